package authretry_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// An outsideBearer is a Bearer as anybody could write it: what it needs of a TokenSource is exported.
type outsideBearer struct {
	tokens   *authretry.TokenSource
	notAhead bool
}

func (b *outsideBearer) Name() string { return "Bearer" }

func (b *outsideBearer) Start(context.Context, *http.Request) (authretry.Session, error) {
	if b.notAhead {
		return nil, nil
	}
	return outsideSession{b.tokens}, nil
}

func (b *outsideBearer) Answer(ctx context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
	if c != nil && c.Params.Get("error") == "insufficient_scope" {
		return nil, authretry.ErrUnsupportedChallenge
	}
	r := authretry.TokenRequest{Challenge: c}
	if refused, ok := tokenOf(refusal.Request); ok {
		r.Previous = &oauth2.Token{AccessToken: refused}
	}
	if _, err := b.tokens.Obtain(ctx, r); err != nil {
		return nil, err
	}
	return outsideAnswer{outsideSession{b.tokens}}, nil
}

type outsideSession struct{ tokens *authretry.TokenSource }

func (s outsideSession) Authorize(req *http.Request) error {
	t, err := s.tokens.Obtain(req.Context(), authretry.TokenRequest{})
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+t.AccessToken)
	return nil
}

func (s outsideSession) Covers(*url.URL) bool { return true }

type outsideAnswer struct{ outsideSession }

func (s outsideAnswer) Learn(resp *http.Response, refused bool) (keep bool, err error) {
	if sent, ok := tokenOf(resp.Request); ok && !refused && resp.StatusCode < 500 && resp.StatusCode != http.StatusProxyAuthRequired {
		s.tokens.Accepted(&oauth2.Token{AccessToken: sent})
	}
	return true, nil
}

func tokenOf(req *http.Request) (string, bool) {
	return strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
}

// A tokenAPI takes one access token, and issues the next.
type tokenAPI struct {
	*httptest.Server
	tokens   *authretry.TokenSource
	accepts  atomic.Value // of string
	requests atomic.Int32

	mu      sync.Mutex
	fetches []authretry.TokenRequest
}

func newTokenAPI(t *testing.T, initial *oauth2.Token, challenge string) *tokenAPI {
	api := &tokenAPI{}
	api.accepts.Store("")
	api.tokens = &authretry.TokenSource{Initial: initial, Fetch: api.fetch}
	api.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api.requests.Add(1)
		if token, _ := tokenOf(r); r.URL.Path != "/public" && (token == "" || token != api.accepts.Load()) {
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	api.Config.SetKeepAlivesEnabled(false) // as in newTokenEndpoint
	t.Cleanup(api.Close)
	return api
}

func (api *tokenAPI) fetch(_ context.Context, r authretry.TokenRequest) (*oauth2.Token, error) {
	time.Sleep(20 * time.Millisecond)
	api.mu.Lock()
	defer api.mu.Unlock()
	api.fetches = append(api.fetches, r)
	n := len(api.fetches)
	return &oauth2.Token{AccessToken: fmt.Sprintf("access-%d", n), RefreshToken: fmt.Sprintf("refresh-%d", n)}, nil
}

// A Bearer that is written outside does what ours does.
func TestBearerFromOutside(t *testing.T) {
	t.Parallel()
	old := &oauth2.Token{AccessToken: "old", RefreshToken: "refresh-0"}
	schemes := map[string]func(tokens *authretry.TokenSource, notAhead bool) authretry.Scheme{
		"ours": func(tokens *authretry.TokenSource, notAhead bool) authretry.Scheme {
			return &authretry.Bearer{Source: tokens, NotAhead: notAhead}
		},
		"outside": func(tokens *authretry.TokenSource, notAhead bool) authretry.Scheme {
			return &outsideBearer{tokens, notAhead}
		},
	}
	type get func(path string) (status int)
	for name, behaviour := range map[string]struct {
		initial   *oauth2.Token
		challenge string
		notAhead  bool
		test      func(t *testing.T, api *tokenAPI, get get)
	}{
		"is sent ahead": {old, "Bearer", false, func(t *testing.T, api *tokenAPI, get get) {
			api.accepts.Store("old")
			require.Equal(t, 200, get("/"))
			require.EqualValues(t, 1, api.requests.Load())
			require.Empty(t, api.fetches)
		}},
		"is refreshed when refused": {old, `Bearer error="invalid_token"`, false, func(t *testing.T, api *tokenAPI, get get) {
			api.accepts.Store("access-1")
			require.Equal(t, 200, get("/"))
			require.EqualValues(t, 2, api.requests.Load())
			require.Len(t, api.fetches, 1)
			require.Equal(t, "refresh-0", api.fetches[0].Previous.RefreshToken)
			require.Equal(t, "invalid_token", api.fetches[0].Challenge.Params.Get("error"))
			require.Equal(t, 200, get("/"))
			require.EqualValues(t, 3, api.requests.Load())
		}},
		"is refreshed once for many refusals": {old, "Bearer", false, func(t *testing.T, api *tokenAPI, get get) {
			api.accepts.Store("access-1")
			var ok atomic.Int32
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					if get("/") == 200 {
						ok.Add(1)
					}
				})
			}
			wg.Wait()
			require.EqualValues(t, 100, ok.Load())
			require.Len(t, api.fetches, 1)
		}},
		"is fetched for the first challenge": {nil, `Bearer scope="read"`, true, func(t *testing.T, api *tokenAPI, get get) {
			api.accepts.Store("access-1")
			require.Equal(t, 200, get("/"))
			require.Len(t, api.fetches, 1)
			require.Nil(t, api.fetches[0].Previous)
			require.Equal(t, "read", api.fetches[0].Challenge.Params.Get("scope"))
			require.Equal(t, 200, get("/elsewhere"))
			require.EqualValues(t, 3, api.requests.Load(), "the server is known to ask")
		}},
		"is not refreshed again when refused while fresh": {old, "Bearer", false, func(t *testing.T, api *tokenAPI, get get) {
			for range 5 {
				require.Equal(t, 401, get("/"))
				require.Equal(t, 200, get("/public"), "which proves nothing")
			}
			require.EqualValues(t, 11, api.requests.Load())
			require.Len(t, api.fetches, 1)
		}},
		"is refreshed when revoked after it was accepted": {old, "Bearer", false, func(t *testing.T, api *tokenAPI, get get) {
			for n := 1; n <= 5; n++ {
				api.accepts.Store(fmt.Sprintf("access-%d", n))
				require.Equal(t, 200, get("/"))
			}
			require.Len(t, api.fetches, 5)
		}},
		"does not help where the scope is insufficient": {old, `Bearer error="insufficient_scope"`, false, func(t *testing.T, api *tokenAPI, get get) {
			require.Equal(t, 401, get("/"))
			require.Empty(t, api.fetches)
		}},
	} {
		for who, scheme := range schemes {
			t.Run(name+"/"+who, func(t *testing.T) {
				t.Parallel() // to fetch takes its time
				api := newTokenAPI(t, behaviour.initial, behaviour.challenge)
				client := &http.Client{Transport: authretry.New(scheme(api.tokens, behaviour.notAhead))}
				behaviour.test(t, api, func(path string) int {
					resp, err := client.Get(api.URL + path)
					if err != nil {
						return 0
					}
					defer resp.Body.Close()
					io.Copy(io.Discard, resp.Body)
					return resp.StatusCode
				})
			})
		}
	}
}
