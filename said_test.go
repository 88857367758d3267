package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// What a person reads of an http.Client's error says each thing once: the URL, that credentials are missing, and why.
func TestErrorsSayEachThingOnce(t *testing.T) {
	t.Parallel()
	server := func(t *testing.T, h http.HandlerFunc) string {
		srv := httptest.NewServer(h)
		srv.Config.SetKeepAlivesEnabled(false) // as in newTokenEndpoint
		t.Cleanup(srv.Close)
		return srv.URL
	}
	says401 := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
	saysBasic := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
	refuses := func(code string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error":%q}`, code)
		}
	}
	good := func() *oauth2.Token {
		return &oauth2.Token{AccessToken: "access-1", RefreshToken: "refresh-1", Expiry: time.Now().Add(time.Hour)}
	}
	old := func(refresh string) *oauth2.Token {
		return &oauth2.Token{AccessToken: "access-1", RefreshToken: refresh, Expiry: time.Now().Add(-time.Hour)}
	}
	refreshed := func(t *testing.T, initial *oauth2.Token, h http.HandlerFunc) Scheme {
		e := &TokenEndpoint{URL: server(t, h), ClientID: "c"}
		return &Bearer{Source: &TokenSource{Fetch: e.Refresh(), Initial: initial}}
	}
	sealed := errors.New("vault is sealed")
	const closed = "http://127.0.0.1:1" // where nobody listens; a port that was closed a moment ago may be another test's by now

	for name, c := range map[string]struct {
		handler http.HandlerFunc
		scheme  func(t *testing.T) Scheme
		want    string // after the method and the URL
	}{
		"the refresh token has ended":              {says401, func(t *testing.T) Scheme { return refreshed(t, old("refresh-1"), refuses("invalid_grant")) }, `no new token could be obtained: the token endpoint at ADDRESS answered 400 "invalid_grant"; log in again and call TokenSource.Set`},
		"the refresh token has ended, after a 401": {says401, func(t *testing.T) Scheme { return refreshed(t, good(), refuses("invalid_grant")) }, `the server answered 401: no new token could be obtained: the token endpoint at ADDRESS answered 400 "invalid_grant"; log in again and call TokenSource.Set`},
		"the client is not known":                  {says401, func(t *testing.T) Scheme { return refreshed(t, old("refresh-1"), refuses("invalid_client")) }, `no new token could be obtained: the token endpoint at ADDRESS answered 400 "invalid_client"; put the client's credentials right`},
		"a proof is wanted":                        {says401, func(t *testing.T) Scheme { return refreshed(t, old("refresh-1"), refuses("invalid_dpop_proof")) }, `no new token could be obtained: the token endpoint at ADDRESS answered 400 "invalid_dpop_proof" (RFC 9449: see TokenEndpoint.Proof)`},
		"there is no refresh token":                {says401, func(t *testing.T) Scheme { return refreshed(t, old(""), refuses("")) }, `no new token could be obtained: there is no refresh token; log in again and call TokenSource.Set`},
		"there is no token":                        {says401, func(t *testing.T) Scheme { return &Bearer{Source: &TokenSource{}} }, `a new login is required: there is no usable token, and TokenSource.Fetch is nil; set Fetch or Login, or call TokenSource.Set`},
		"there is a short token, of a test": {says401, func(t *testing.T) Scheme {
			return &Bearer{Source: &TokenSource{Fetch: (&TokenEndpoint{URL: closed, ClientID: "c"}).Refresh(), Initial: old("con")}}
		}, `no new token could be obtained: the token endpoint could not be reached: dial tcp ADDRESS: connect: connection refused`},
		"the token is empty": {says401, func(t *testing.T) Scheme { return &Bearer{Source: oauth2.StaticTokenSource(&oauth2.Token{})} },
			`Fetch, Login or Source has returned a token that has no access token`},
		"the login was ended": {says401, func(t *testing.T) Scheme {
			s := &TokenSource{Initial: good()}
			require.NoError(t, s.Logout(t.Context()))
			return &Bearer{Source: s}
		}, `the login was ended (TokenSource.Logout); log in again and call TokenSource.Set`},
		"the token endpoint is not there": {says401, func(t *testing.T) Scheme {
			e := &TokenEndpoint{URL: closed, ClientID: "c"}
			return &Bearer{Source: &TokenSource{Fetch: e.Refresh(), Initial: old("refresh-1")}}
		}, `no new token could be obtained: the token endpoint could not be reached: dial tcp ADDRESS: connect: connection refused`},
		"a Fetch of one's own": {says401, func(t *testing.T) Scheme {
			return &Bearer{Source: &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { return nil, sealed }}}
		}, `no new token could be obtained: vault is sealed`},
		"a Login of one's own": {says401, func(t *testing.T) Scheme {
			return &Bearer{Source: &TokenSource{Login: func(context.Context, TokenRequest) (*oauth2.Token, error) { return nil, sealed }}}
		}, `nobody has logged in: vault is sealed`},
		"a source of others": {says401, func(t *testing.T) Scheme {
			return &Bearer{Source: sourceFunc(func() (*oauth2.Token, error) { return nil, sealed })}
		}, `Bearer.Source has no token: vault is sealed`},
		"Credentials of one's own": {saysBasic, func(*testing.T) Scheme {
			return &Basic{Credentials: func(context.Context, CredentialsRequest) (string, string, error) { return "", "", sealed }}
		}, `the server answered 401: credentials could not be obtained: vault is sealed`},
		"Digest credentials of one's own": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Digest realm="x", nonce="n", qop="auth"`)
			w.WriteHeader(http.StatusUnauthorized)
		}, func(*testing.T) Scheme {
			return &Digest{Credentials: func(context.Context, CredentialsRequest) (string, string, error) { return "", "", sealed }}
		}, `the server answered 401: no Digest credentials could be obtained: vault is sealed`},
		"a key of one's own": {saysBasic, func(*testing.T) Scheme {
			return &APIKey{KeyFunc: func(context.Context, CredentialsRequest) (string, error) { return "", sealed }}
		}, `credentials could not be obtained: vault is sealed`},
		"a store that fails": {says401, func(t *testing.T) Scheme {
			return &Bearer{Source: &TokenSource{Fetch: (&TokenEndpoint{URL: closed}).Refresh(), Store: failingStore{sealed}}}
		}, `the TokenStore failed: vault is sealed`},
		"no user name": {saysBasic, func(*testing.T) Scheme { return &Basic{} }, `the server answered 401: Basic has neither Username nor Credentials`},
		"no key":       {saysBasic, func(*testing.T) Scheme { return &APIKey{} }, `APIKey has no key; set Key or KeyFunc`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // some try again
			url := server(t, c.handler)
			client := &http.Client{Transport: New(c.scheme(t))}
			_, err := client.Get(url)
			require.Error(t, err)
			text, ok := strings.CutPrefix(err.Error(), fmt.Sprintf("Get %q: authretry: ", url))
			require.True(t, ok, err.Error())
			require.Equal(t, c.want, regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(text, "ADDRESS"))

			r, ok := errors.AsType[*Rejection](err)
			require.True(t, ok, "a program still finds all of it")
			require.Equal(t, []any{ReasonNoCredentials, url}, []any{r.Reason, r.Origin})
		})
	}
}

type sourceFunc func() (*oauth2.Token, error)

func (f sourceFunc) Token() (*oauth2.Token, error) { return f() }

type failingStore struct{ err error }

func (s failingStore) Load(context.Context) (*Record, error) { return nil, s.err }
func (s failingStore) Update(context.Context, func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	return s.err
}
