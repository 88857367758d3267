package authretry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// A tokenEndpoint is a real one on loopback that answers as its test says, and keeps what it was sent.
type tokenEndpoint struct {
	*httptest.Server
	mu       sync.Mutex // guards the rest: the end of a connection does not say that the handler has returned
	received []url.Values
	headers  []string
}

func newTokenEndpoint(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *tokenEndpoint {
	e := &tokenEndpoint{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		e.mu.Lock()
		e.received = append(e.received, r.PostForm)
		e.headers = append(e.headers, r.Header.Get("Authorization"))
		n := len(e.received)
		e.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		answer(n, w, r)
	}))
	e.Config.SetKeepAlivesEnabled(false) // each httptest.Server that is closed closes what http.DefaultTransport keeps, in other tests, too
	t.Cleanup(e.Close)
	return e
}

// forms returns what it was sent since the last reset.
func (e *tokenEndpoint) forms() []url.Values {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.received)
}

// auths returns the Authorization of each of them.
func (e *tokenEndpoint) auths() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.headers)
}

func (e *tokenEndpoint) reset() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.received, e.headers = nil, nil
}

func (e *tokenEndpoint) config() *oauth2.Config {
	return &oauth2.Config{ClientID: "i d", ClientSecret: "s+t", Endpoint: oauth2.Endpoint{TokenURL: e.URL}}
}

var refreshRequest = TokenRequest{Previous: &oauth2.Token{AccessToken: "a-0", RefreshToken: "r-0"}}

// requireBetween compares whole seconds.
func requireBetween(t *testing.T, from, got, to time.Time) {
	t.Helper()
	require.LessOrEqual(t, from.Unix(), got.Unix())
	require.LessOrEqual(t, got.Unix(), to.Unix())
}

func issue(w http.ResponseWriter) { fmt.Fprint(w, `{"access_token":"a-1","token_type":"bearer"}`) }

func TestRefreshGrant(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"access_token":"a-1","token_type":"bearer","expires_in":2,"scope":"read"}`)
	})
	start := time.Now()
	got, err := RefreshGrant(e.config())(context.Background(), refreshRequest)
	require.NoError(t, err)
	require.Equal(t, "a-1", got.AccessToken)
	require.Equal(t, "r-0", got.RefreshToken, "the old one is kept")
	require.Equal(t, "read", got.Extra("scope"))
	requireBetween(t, start.Add(2*time.Second), got.Expiry, time.Now().Add(2*time.Second))
	require.Equal(t, []url.Values{{"grant_type": {"refresh_token"}, "refresh_token": {"r-0"}}}, e.forms())
	require.Equal(t, []string{"Basic aStkOnMlMkJ0"}, e.auths(), "form-encoded (RFC 6749 §2.3.1)")

	_, err = RefreshGrant(e.config())(context.Background(), TokenRequest{Previous: &oauth2.Token{AccessToken: "a"}})
	require.ErrorIs(t, err, ErrLoginRequired)
	require.Len(t, e.forms(), 1)
}

func TestClientCredentialsGrant(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) { issue(w) })
	src := &TokenSource{Fetch: ClientCredentialsGrant(&clientcredentials.Config{
		ClientID: "id", ClientSecret: "secret", TokenURL: e.URL, Scopes: []string{"a", "b"}, EndpointParams: url.Values{"audience": {"x"}},
	})}
	got, err := src.Token()
	require.NoError(t, err)
	require.Equal(t, "a-1", got.AccessToken)
	require.Equal(t, []url.Values{{"grant_type": {"client_credentials"}, "scope": {"a b"}, "audience": {"x"}}}, e.forms())
}

func TestFetchThatCachesIsCalledSeldom(t *testing.T) {
	calls := 0
	src := &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
		calls++
		return &oauth2.Token{AccessToken: "same"}, nil
	}}
	got, err := src.Token()
	require.NoError(t, err)
	for range 1000 {
		_, err = src.Refresh(context.Background(), got)
		require.ErrorIs(t, err, ErrCredentialsRefused)
	}
	require.Less(t, calls, 5)
}

func TestGrantRetriesTransientFailures(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(w http.ResponseWriter){
		"500": func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		"503": func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		"429": func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) },
		"429, at once": func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		},
		"broken connection": func(w http.ResponseWriter) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newTokenEndpoint(t, func(n int, w http.ResponseWriter, r *http.Request) {
				if n < 3 {
					fail(w)
					return
				}
				issue(w)
			})
			got, err := RefreshGrant(e.config())(context.Background(), refreshRequest)
			require.NoError(t, err)
			require.Equal(t, "a-1", got.AccessToken)
			require.Len(t, e.forms(), 3)
			require.Equal(t, "r-0", e.forms()[2].Get("refresh_token"))
		})
	}
}

func TestGrantGivesUp(t *testing.T) {
	t.Parallel()
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprint(w, "s3cret")
	})
	_, err := (&TokenSource{Fetch: RefreshGrant(e.config()), Initial: refreshRequest.Previous}).Refresh(context.Background(), nil)
	require.Regexp(t, `^authretry: no new token could be obtained: the token endpoint at 127\.0\.0\.1:\d+ answered 502$`, err.Error())
	require.NotErrorIs(t, err, ErrLoginRequired)
	_, ok := errors.AsType[*oauth2.RetrieveError](err)
	require.True(t, ok)
	require.Len(t, e.forms(), 4)
}

func TestGrantLeavesALongRetryAfterToTheSource(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "60")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	src := &TokenSource{Fetch: RefreshGrant(e.config()), Initial: refreshRequest.Previous}
	for range 10 {
		_, err := src.Refresh(context.Background(), nil)
		require.ErrorContains(t, err, "429")
	}
	require.Len(t, e.forms(), 1)
	require.Greater(t, time.Until(src.failure.until), 50*time.Second)
}

func TestGrantUnreachableEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		l.Close()
		cfg := &oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: "http://" + l.Addr().String() + "/?key=s3cret"}}
		src := &TokenSource{Fetch: RefreshGrant(cfg), Initial: refreshRequest.Previous}
		_, err = src.Refresh(context.Background(), nil)
		require.ErrorContains(t, err, "the token endpoint could not be reached: dial tcp")
		require.NotContains(t, err.Error(), "s3cret")
		require.NotErrorIs(t, err, ErrLoginRequired)
	})
}

func TestGrantDoesNotFollowRedirects(t *testing.T) {
	elsewhere := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) { issue(w) })
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	_, err := RefreshGrant(e.config())(context.Background(), refreshRequest)
	require.Error(t, err)
	require.Empty(t, elsewhere.forms())
}

func TestGrantUsesTheClientInTheContext(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, e.Client())
	_, err := RefreshGrant(e.config())(ctx, refreshRequest)
	require.Error(t, err)
	require.Len(t, e.forms(), 1, "which does not retry")
}

func TestGrantFindsTheAuthStyle(t *testing.T) {
	fail := func(w http.ResponseWriter, status int, code string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":%q}`, code)
	}
	t.Run("a refused grant is not repeated", func(t *testing.T) {
		e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) { fail(w, 400, "invalid_grant") })
		_, err := RefreshGrant(e.config())(context.Background(), refreshRequest)
		require.Error(t, err)
		require.Len(t, e.forms(), 1)
	})
	t.Run("a refused client is tried the other way, once", func(t *testing.T) {
		e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) {
			if r.PostForm.Get("client_secret") != "s+t" {
				fail(w, 401, "invalid_client")
				return
			}
			issue(w)
		})
		fetch := RefreshGrant(e.config())
		for range 3 {
			_, err := fetch(context.Background(), refreshRequest)
			require.NoError(t, err)
		}
		require.Len(t, e.forms(), 4)
	})
	t.Run("a public client says its client_id", func(t *testing.T) {
		e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) { issue(w) })
		cfg := e.config()
		cfg.ClientSecret = ""
		_, err := RefreshGrant(cfg)(context.Background(), refreshRequest)
		require.NoError(t, err)
		require.Equal(t, "i d", e.forms()[0].Get("client_id"))
		require.Equal(t, []string{""}, e.auths())
	})
	t.Run("a configured one is used", func(t *testing.T) {
		e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) { fail(w, 401, "invalid_client") })
		cfg := e.config()
		cfg.Endpoint.AuthStyle = oauth2.AuthStyleInParams
		_, err := RefreshGrant(cfg)(context.Background(), refreshRequest)
		require.Error(t, err)
		require.Len(t, e.forms(), 1)
	})
}

func TestGrantsDoNotUsePlainHTTP(t *testing.T) {
	for address, allowed := range map[string]bool{
		"http://issuer.example.com/token":       false,
		"HTTP://issuer.example.com:443/token":   false,
		"http://localhost.example.com/token":    false,
		"http://u:s3cret@10.0.0.1/token?s3cret": false,
		"http://localhost/token":                true,
		"http://LocalHost:8080/token":           true,
		"http://127.0.0.1/token":                true,
		"http://[::1]:8080/token":               true,
		"https://issuer.example.com/token":      true,
	} {
		for name, fetch := range map[string]FetchFunc{
			"refresh": RefreshGrant(&oauth2.Config{ClientID: "id", ClientSecret: "s3cret", Endpoint: oauth2.Endpoint{TokenURL: address}}),
			"client":  ClientCredentialsGrant(&clientcredentials.Config{ClientID: "id", ClientSecret: "s3cret", TokenURL: address}),
		} {
			sends := 0
			client := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				sends++
				return nil, errors.New("sent")
			})}
			source := &TokenSource{Fetch: fetch, Initial: &oauth2.Token{RefreshToken: "refresh-0"}, HTTPClient: client}
			transport := &Transport{Base: &saying{challenge: "Bearer"}, Schemes: []Scheme{&Bearer{Source: source}}}
			_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil))
			var r *Rejection
			require.ErrorAs(t, err, &r, name+address)
			require.Equal(t, allowed, sends > 0, name+address)
			if allowed {
				require.Equal(t, ReasonNoCredentials, r.Reason)
				continue
			}
			require.Equal(t, ReasonPlaintext, r.Reason, "%v", err)
			require.ErrorContains(t, err, "is on plain http")
			require.NotContains(t, err.Error(), "s3cret")
			require.NotErrorIs(t, err, ErrLoginRequired)
			require.False(t, r.mayPass())
		}
	}

	// A client that follows redirects by itself is kept from it.
	elsewhere := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) { issue(w) })
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	retrying := retryablehttp.NewClient()
	retrying.Logger = nil
	_, err := (&TokenSource{HTTPClient: retrying.StandardClient(), Initial: &oauth2.Token{RefreshToken: "refresh-0"}, Fetch: RefreshGrant(e.config())}).Token()
	require.ErrorContains(t, err, "307")
	require.Empty(t, elsewhere.forms())

	// Through a proxy, localhost is the proxy's.
	proxied := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: "proxy.test:3128"})}}
	source := &TokenSource{HTTPClient: proxied, Initial: &oauth2.Token{RefreshToken: "refresh-0"},
		Fetch: RefreshGrant(&oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: "http://localhost:1/token"}})}
	_, err = source.Token()
	require.ErrorContains(t, err, "is on plain http")
}

// As Microsoft Entra does where a service asks for ".default" on behalf of a user: the answer names what that stands for, which must not
// be asked for beside it.
func TestScopesThatTheServerGrantsByItselfAreNotInsistedOn(t *testing.T) {
	answer := func(_ int, w http.ResponseWriter, r *http.Request) {
		if r.PostForm.Get("scope") != "https://graph.example/.default" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"invalid_scope","error_description":".default can't be combined with resource-specific scopes"}`)
			return
		}
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":3600,"scope":"email https://graph.example/User.Read"}`, rand.Text())
	}
	for name, grant := range map[string]func(e *TokenEndpoint, party func() (string, error)) FetchFunc{
		"client credentials": func(e *TokenEndpoint, _ func() (string, error)) FetchFunc {
			return e.ClientCredentials("https://graph.example/.default")
		},
		"JWT bearer": func(e *TokenEndpoint, party func() (string, error)) FetchFunc {
			return e.JWTBearer(func(context.Context, TokenRequest) (string, error) { return party() }, "https://graph.example/.default")
		},
		"token exchange": func(e *TokenEndpoint, party func() (string, error)) FetchFunc {
			subject := func(context.Context) (string, string, error) {
				token, err := party()
				return token, "urn:ietf:params:oauth:token-type:jwt", err
			}
			return e.TokenExchange(TokenExchange{Subject: subject, Scopes: []string{"https://graph.example/.default"}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newTokenEndpoint(t, answer)
			parties := 0
			fetch := grant(&TokenEndpoint{URL: e.URL, ClientID: "id"}, func() (string, error) {
				parties++
				return fmt.Sprint("party-", parties), nil
			})
			src := &TokenSource{Fetch: fetch}
			first, err := src.Token()
			require.NoError(t, err)
			second, err := src.Refresh(context.Background(), first)
			require.NoError(t, err)
			require.NotEqual(t, first.AccessToken, second.AccessToken)
			require.Len(t, e.forms(), 3)
			if parties > 0 {
				require.Equal(t, 3, parties, "an assertion may be good for one request only")
			}

			_, err = src.Obtain(context.Background(), TokenRequest{Scopes: []string{"more"}})
			require.ErrorContains(t, err, "invalid_scope", "who wants more is told that it is not granted")
			require.Len(t, e.forms(), 4)
		})
	}
}
