package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A recordingProxy is a forward proxy that says what it is asked for.
func recordingProxy(t *testing.T) (base *http.Transport, asked func() []string) {
	var log []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log = append(log, r.URL.String()+" "+r.Header.Get("Authorization"))
	}))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	base = &http.Transport{Proxy: http.ProxyURL(u)}
	t.Cleanup(base.CloseIdleConnections)
	return base, func() []string { defer func() { log = nil }(); return log }
}

// Through a proxy, plain http goes to req.Host, whatever the URL says. So that is the origin: httputil.ReverseProxy, for one,
// leaves it to whoever is outside.
func TestHostThatDecidesIsTheOrigin(t *testing.T) {
	base, asked := recordingProxy(t)
	proxied := NewProxyTransport(base, &Basic{Username: "u", Password: "p"})
	for name, rt := range map[string]http.RoundTripper{"http.Transport": base, "ProxyTransport": proxied,
		"nested": &Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}, Origins: []string{"https://other.test"}}} {
		transport := &Transport{Base: rt, Schemes: []Scheme{&APIKey{Key: "k"}}, Origins: []string{"http://api.internal"}, AllowPlaintext: true}
		api, _ := url.Parse("http://api.internal/")
		front := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(api)
			r.Out.Host = r.In.Host
		}})
		for host, want := range map[string]string{"evil.example": "http://evil.example/ ", "api.internal": "http://api.internal/ ApiKey k"} {
			req, err := http.NewRequest("GET", front.URL, nil)
			require.NoError(t, err)
			req.Host = host
			resp, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, []string{want}, asked(), name)
		}
		front.Close()
	}
	// A Base that cannot be looked into might use a proxy.
	unknown := roundTripFunc(base.RoundTrip)
	req, _ := http.NewRequest("GET", "http://api.internal/", nil)
	req.Host = "evil.example"
	_, err := (&Transport{Base: unknown, Schemes: []Scheme{&APIKey{Key: "k"}}, Origins: []string{"http://api.internal"}, AllowPlaintext: true}).RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, []string{"http://evil.example/ "}, asked())
	// So if it is Host's origin that is listed, it is not sure that it is that one which gets the request.
	for _, c := range []struct {
		origins []string
		sent    string
	}{
		{[]string{"http://evil.example"}, ""}, {[]string{"http://api.internal"}, ""}, {[]string{"http://api.internal", "http://evil.example"}, "ApiKey k"},
	} {
		var sent string
		unknown = func(req *http.Request) (*http.Response, error) {
			sent = req.Header.Get("Authorization")
			return &http.Response{StatusCode: 401, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
		}
		resp, err := (&Transport{Base: unknown, Schemes: []Scheme{&APIKey{Key: "k"}}, Origins: c.origins, AllowPlaintext: true}).RoundTrip(req)
		require.NoError(t, err)
		require.Equal(t, c.sent, sent)
		if sent == "" {
			require.ErrorContains(t, Explain(resp), "Request.Host names another host than the URL")
		}
	}
	// Without a proxy, Host is but a name for the server that the URL leads to.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "ApiKey k", r.Header.Get("Authorization"))
	}))
	defer server.Close()
	req, _ = http.NewRequest("GET", server.URL, nil)
	req.Host = "virtual.example"
	_, err = (&Transport{Schemes: []Scheme{&APIKey{Key: "k"}}, Origins: []string{server.URL}}).RoundTrip(req)
	require.NoError(t, err)
}

// Who was addressed by Host, through a proxy, and redirects to the host of the URL, has led elsewhere.
func TestRedirectFromTheHostThatDecides(t *testing.T) {
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String()+" "+r.Header.Get("Authorization"))
		if r.URL.Path == "/" {
			w.Header().Set("Location", r.URL.Query().Get("to"))
			w.WriteHeader(http.StatusFound)
		}
	}))
	defer srv.Close()
	proxy, err := url.Parse(srv.URL)
	require.NoError(t, err)
	base := &http.Transport{Proxy: http.ProxyURL(proxy)}
	defer base.CloseIdleConnections()
	ahead := &puppet{name: "Word", start: func(_ context.Context, req *http.Request) (Session, error) {
		if req.URL.Host != "api.internal" {
			return nil, nil
		}
		return &word{text: "Word k"}, nil
	}}
	client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{ahead}, AllowPlaintext: true}}
	for host, c := range map[string]struct {
		to   string
		want []string
	}{
		"evil.example": {"http://api.internal/in", []string{"http://evil.example/?to=http://api.internal/in ", "http://api.internal/in "}},
		"api.internal": {"http://api.internal/in", []string{"http://api.internal/?to=http://api.internal/in Word k", "http://api.internal/in Word k"}},
	} {
		req, err := http.NewRequest("GET", "http://api.internal/?to="+c.to, nil)
		require.NoError(t, err)
		req.Host = host
		resp, err := client.Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, c.want, asked)
		asked = nil
	}
}

// What a proxy gets is not on this machine, whatever it is called.
func TestLoopbackByAProxyIsNotLoopback(t *testing.T) {
	base, asked := recordingProxy(t)
	for _, target := range []string{"http://localhost/", "http://127.0.0.1/", "http://[::1]/"} {
		for _, base := range []http.RoundTripper{base, &retryablehttp.RoundTripper{Client: &retryablehttp.Client{HTTPClient: &http.Client{Transport: base}}}} {
			r := rejectionFor(t, &Transport{Base: base, Schemes: []Scheme{&APIKey{Key: "k"}}}, target)
			require.Equal(t, ReasonPlaintext, r.Reason, target)
			require.Empty(t, asked())
		}
	}
	// Nor is what Host says so, if the URL leads elsewhere and it is not known which of them counts.
	req, err := http.NewRequest("GET", "http://api.internal/", nil)
	require.NoError(t, err)
	req.Host = "127.0.0.1"
	for _, base := range []http.RoundTripper{base, roundTripFunc(base.RoundTrip)} {
		_, err = (&Transport{Base: base, Schemes: []Scheme{&APIKey{Key: "k"}}}).RoundTrip(req)
		var r *Rejection
		require.ErrorAs(t, err, &r)
		require.Equal(t, ReasonPlaintext, r.Reason)
		require.Empty(t, asked())
	}
}

// Where req.Host decides, it is its credentials that are asked for, and a Scheme sees the URL at which the request arrives; Base gets the
// caller's.
func TestCredentialsAreThoseOfTheHostThatDecides(t *testing.T) {
	var seen []string
	sees := func(what string, req *http.Request) { seen = append(seen, what+" "+req.URL.String()) }
	other := &puppet{name: "Other",
		start: func(_ context.Context, req *http.Request) (Session, error) { sees("Start", req); return nil, nil },
		answer: func(_ context.Context, _ *Challenge, refusal *http.Response) (Session, error) {
			sees("Answer", refusal.Request)
			return &seeingSession{sees}, nil
		}}
	only := func(r CredentialsRequest) error {
		if r.Origin != "http://api.internal" {
			return fmt.Errorf("%w: not for %s", ErrUnsupportedChallenge, r.Origin)
		}
		return nil
	}
	theirs := &Record{Token: &oauth2.Token{AccessToken: secret}, Resource: "http://api.internal/"}
	login := func(_ context.Context, r CredentialsRequest) (string, string, error) { return "u", secret, only(r) }
	for name, c := range map[string]struct {
		scheme    Scheme
		challenge string
		sent      string // in Authorization; "" if nothing is
	}{
		"Basic":       {&Basic{Credentials: login}, `Basic realm="x"`, ""},
		"Basic ahead": {&Basic{Credentials: login, Ahead: true}, `Basic realm="x"`, ""},
		"Digest":      {&Digest{Credentials: login}, `Digest realm="x", nonce="n", qop="auth"`, ""},
		"APIKey":      {&APIKey{KeyFunc: func(_ context.Context, r CredentialsRequest) (string, error) { return secret, only(r) }}, "ApiKey", ""},
		"Bearer":      {&Bearer{Source: oauth2.StaticTokenSource(theirs.attached().Token)}, "Bearer", ""},
		"of others":   {other, "Other", "Other credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				require.Equal(t, "http://api.internal/path", req.URL.String(), "it is for Base to say where that leads")
				resp := &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: req}
				if a := req.Header.Get("Authorization"); a != "" {
					got = append(got, a)
				} else {
					resp.StatusCode = 401
					resp.Header.Set("WWW-Authenticate", c.challenge)
				}
				return resp, nil
			})
			transport := &Transport{Base: base, Schemes: []Scheme{c.scheme}, AllowPlaintext: true}
			for range 2 {
				req, err := http.NewRequest("GET", "http://api.internal/path", nil)
				require.NoError(t, err)
				req.Host = "evil.example"
				resp, err := transport.RoundTrip(req)
				if err == nil {
					require.Same(t, req.URL, resp.Request.URL)
				}
			}
			if c.sent == "" {
				require.Empty(t, got)
			} else {
				require.Equal(t, []string{c.sent, c.sent}, got)
			}
		})
	}
	at := " http://evil.example/path"
	require.Equal(t, []string{"Start" + at, "Answer" + at, "Authorize" + at, "Learn" + at, "Start" + at, "Authorize" + at, "Learn" + at}, seen)
}

// A seeingSession says what it sees.
type seeingSession struct {
	sees func(what string, req *http.Request)
}

func (s *seeingSession) Authorize(req *http.Request) error {
	s.sees("Authorize", req)
	req.Header.Set("Authorization", "Other credentials")
	return nil
}

func (s *seeingSession) Learn(resp *http.Response, _ bool) (bool, error) {
	s.sees("Learn", resp.Request)
	return true, nil
}

// A password that was learnt on this machine does not go out in clear when a proxy is used since.
func TestRememberedPasswordDoesNotGoByAProxy(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
		}
	}))
	defer srv.Close()
	proxied, asked := recordingProxy(t)
	var on atomic.Bool
	base := &http.Transport{Proxy: func(req *http.Request) (*url.URL, error) {
		if on.Load() {
			return proxied.Proxy(req)
		}
		return nil, nil
	}}
	defer base.CloseIdleConnections()
	transport := &Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: secret}}}
	send := func() {
		req, err := http.NewRequest("GET", srv.URL+"/", nil)
		require.NoError(t, err)
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
	}
	send()
	on.Store(true)
	send()
	require.Equal(t, []string{srv.URL + "/ "}, asked())
	on.Store(false)
	send()
}

// A Transport inside another one, over a retryablehttp.RoundTripper, is looked into before its own first request, too; and by many at once.
func TestNestedTransportIsLookedInto(t *testing.T) {
	base, asked := recordingProxy(t)
	nested := func() *Transport {
		retrying := &retryablehttp.RoundTripper{Client: &retryablehttp.Client{HTTPClient: &http.Client{Transport: base}}}
		inner := &Transport{Base: retrying, Schemes: []Scheme{&APIKey{Key: "other"}}, Origins: []string{"https://other.test"}}
		return &Transport{Base: inner, Schemes: []Scheme{&APIKey{Key: "k"}}}
	}
	for _, target := range []string{"http://localhost/", "http://127.0.0.1/"} {
		require.Equal(t, ReasonPlaintext, rejectionFor(t, nested(), target).Reason)
		outer := nested()
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				req, _ := http.NewRequest("GET", target, nil)
				r, _ := errors.AsType[*Rejection](func() error { _, err := outer.RoundTrip(req); return err }())
				if r == nil || r.Reason != ReasonPlaintext {
					t.Errorf("%v", r)
				}
			})
		}
		all.Wait()
		require.Empty(t, asked())
	}
}
