package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/httptransport"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

const apiURL = "https://api.example.com/v1/things?limit=10"

// newRequest returns a request with the headers that requests usually have.
func newRequest() *http.Request {
	req, err := http.NewRequest("GET", apiURL, nil)
	if err != nil {
		panic(err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "bench/1.0")
	req.Header.Set("X-Request-Id", "0c7f3a52")
	return req
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

var accepted = &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody}

// atOnce is a Base that takes no time.
var atOnce = roundTripFunc(func(*http.Request) (*http.Response, error) { return accepted, nil })

// boundBearer is the least that a RoundTripper has to do.
type boundBearer struct {
	base  http.RoundTripper
	value string
}

func (b boundBearer) RoundTrip(req *http.Request) (*http.Response, error) {
	own := new(http.Request)
	*own = *req
	own.Header = req.Header.Clone()
	own.Header.Set("Authorization", b.value)
	return b.base.RoundTrip(own)
}

// bearerPeers are all ways to put a Bearer token on a request, over base.
func bearerPeers(base http.RoundTripper, token *oauth2.Token) map[string]http.RoundTripper {
	fetch := func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) { return nil, errors.New("no") }
	src := &authretry.TokenSource{Initial: token, Fetch: fetch}
	peers := map[string]http.RoundTripper{
		bound:    boundBearer{base, "Bearer " + token.AccessToken},
		ours:     &authretry.Transport{Base: base, Schemes: []authretry.Scheme{&authretry.Bearer{Source: src}}},
		"oauth2": &oauth2.Transport{Base: base, Source: oauth2.ReuseTokenSource(token, nil)},
		"cloud auth": cloudAuth(base, func(context.Context) (*auth.Token, error) {
			return &auth.Token{Value: token.AccessToken, Expiry: token.Expiry}, nil
		}, 0),
		"azcore (all)": azcoreClient(base, func(context.Context) (*oauth2.Token, error) { return token, nil }, false),
	}
	if token.Expiry.IsZero() {
		peers["oauth2"] = &oauth2.Transport{Base: base, Source: oauth2.StaticTokenSource(token)}
	}
	return peers
}

type tokenProvider func(context.Context) (*auth.Token, error)

func (f tokenProvider) Token(ctx context.Context) (*auth.Token, error) { return f(ctx) }

// cloudAuth returns cloud.google.com/go/auth's transport.
func cloudAuth(base http.RoundTripper, fetch tokenProvider, early time.Duration) http.RoundTripper {
	var provider auth.TokenProvider = fetch
	if early > 0 {
		provider = auth.NewCachedTokenProvider(fetch, &auth.CachedTokenProviderOptions{ExpireEarly: early})
	}
	client, err := httptransport.NewClient(&httptransport.Options{
		Credentials:      auth.NewCredentials(&auth.CredentialsOptions{TokenProvider: provider}),
		BaseRoundTripper: base,
		DisableTelemetry: true,
	})
	if err != nil {
		panic(err)
	}
	return client.Transport
}

type azcoreCredential func(context.Context) (*oauth2.Token, error)

func (f azcoreCredential) GetToken(ctx context.Context, _ policy.TokenRequestOptions) (azcore.AccessToken, error) {
	t, err := f(ctx)
	if err != nil {
		return azcore.AccessToken{}, err
	}
	a := azcore.AccessToken{Token: t.AccessToken, ExpiresOn: t.Expiry.UTC()}
	if t.Expiry.IsZero() {
		a.ExpiresOn = time.Now().Add(24 * time.Hour).UTC()
	} else {
		a.RefreshOn = time.Now().Add(time.Until(t.Expiry) / 2).UTC()
	}
	return a, nil
}

type azcoreTransport struct {
	pipeline runtime.Pipeline
}

type transporter struct{ http.RoundTripper }

func (t transporter) Do(req *http.Request) (*http.Response, error) { return t.RoundTrip(req) }

// azcoreClient returns azcore's pipeline, whose logging and retry policies cannot be left out. If it is to answer
// challenges, it asks for another token, as clients of azcore's do it.
func azcoreClient(base http.RoundTripper, fetch azcoreCredential, answer bool) http.RoundTripper {
	opts := &policy.BearerTokenOptions{InsecureAllowCredentialWithHTTP: true}
	if answer {
		opts.AuthorizationHandler.OnChallenge = func(_ *policy.Request, _ *http.Response, authenticate func(policy.TokenRequestOptions) error) error {
			return authenticate(policy.TokenRequestOptions{Scopes: []string{"all"}})
		}
	}
	return azcoreTransport{runtime.NewPipeline("bench", "v1", runtime.PipelineOptions{
		PerRetry: []policy.Policy{runtime.NewBearerTokenPolicy(fetch, []string{"all"}, opts)},
	}, &policy.ClientOptions{
		Transport: transporter{base},
		Retry:     policy.RetryOptions{MaxRetries: -1},
		Telemetry: policy.TelemetryOptions{Disabled: true},
	})}
}

func (t azcoreTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	r, err := runtime.NewRequestFromRequest(req.Clone(req.Context()))
	if err != nil {
		return nil, err
	}
	return t.pipeline.Do(r)
}

// checkBearer reports whether a peer sends the token, and leaves the caller's request alone and closes its body.
func checkBearer(build func(base http.RoundTripper) http.RoundTripper, token string) error {
	var got string
	rt := build(roundTripFunc(func(req *http.Request) (*http.Response, error) {
		got = req.Header.Get("Authorization")
		if req.Body != nil {
			io.Copy(io.Discard, req.Body)
			req.Body.Close()
		}
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
	}))
	req := newRequest()
	req.Method = "POST"
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader([]byte("x"))), 1
	resp, err := rt.RoundTrip(req)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != 200:
		return fmt.Errorf("status %d", resp.StatusCode)
	case got != "Bearer "+token:
		return errors.New("does not send the token")
	case req.Header.Get("Authorization") != "":
		return errors.New("modifies the caller's request")
	}
	return nil
}

// bearerRow measures what a request with a Bearer token costs in the steady state.
func bearerRow(e effort, expiring bool, goroutines int) ([]timing, error) {
	token := &oauth2.Token{AccessToken: "ya29.a0AfH6SMBx-9Z3vJ2", TokenType: "Bearer"}
	if expiring {
		token.Expiry = time.Now().Add(time.Hour)
	}
	var cs []contender
	for name, rt := range inOrder(bearerPeers(atOnce, token)) {
		req := newRequest()
		cs = append(cs, contender{
			name: name,
			op: func() error {
				_, err := rt.RoundTrip(req)
				return err
			},
			check: func() error {
				return checkBearer(func(base http.RoundTripper) http.RoundTripper { return bearerPeers(base, token)[name] }, token.AccessToken)
			},
		})
	}
	return compare(e, goroutines, "oauth2", cs...)
}
