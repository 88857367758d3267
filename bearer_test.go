package authretry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A resource takes one access token, and counts the requests that it gets.
type resource struct {
	*httptest.Server
	challenge string
	requests  atomic.Int32
	token     atomic.Value // of string; "": none will do
}

func newResource(t *testing.T, token, challenge string) *resource {
	s := &resource{challenge: challenge}
	s.token.Store(token)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		if want := s.token.Load().(string); want == "" || r.Header.Get("Authorization") != "Bearer "+want {
			if s.challenge != "" {
				w.Header().Set("WWW-Authenticate", s.challenge)
			}
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		io.WriteString(w, "welcome")
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *resource) get(t *testing.T, b *Bearer) int {
	resp, err := (&http.Client{Transport: New(b)}).Get(s.URL)
	require.NoError(t, err)
	resp.Body.Close()
	return resp.StatusCode
}

func newRequest(header ...string) *http.Request {
	req := httptest.NewRequest("GET", "https://api.example.com/", nil)
	if len(header) > 0 {
		req.Header["Authorization"] = header
	}
	return req
}

func TestBearerIsSentAheadAndRefreshed(t *testing.T) {
	for _, challenge := range []string{`Bearer error="invalid_token"`, `Bearer realm="x"`, `Bearer`, `Basic realm="x"`, ``, `Bearer error="invalid_token", error_description=" garbled`} {
		t.Run(challenge, func(t *testing.T) {
			i := &issuer{}
			b := &Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: old()}}
			s := newResource(t, "old", challenge)
			require.Equal(t, 200, s.get(t, b))
			require.EqualValues(t, 1, s.requests.Load())
			s.token.Store("access-1")
			require.Equal(t, 200, s.get(t, b))
			require.EqualValues(t, 3, s.requests.Load())
			require.EqualValues(t, 1, i.calls.Load())
		})
	}
}

func TestBearerNotAhead(t *testing.T) {
	i := &issuer{}
	b := &Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: old()}, NotAhead: true}
	s := newResource(t, "old", "Bearer")
	client := &http.Client{Transport: New(b)}
	for range 2 {
		resp, err := client.Get(s.URL)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
	}
	require.EqualValues(t, 3, s.requests.Load(), "two, then one: the origin is remembered")
	require.Zero(t, i.calls.Load(), "a request without a token says nothing about the token")
}

func TestBearerManyRefusalsAtOnce(t *testing.T) {
	i := &issuer{delay: 20 * time.Millisecond}
	src := &TokenSource{Fetch: i.fetch, Initial: old()}
	s := newResource(t, "access-1", "Bearer")
	base := &http.Transport{MaxConnsPerHost: 50}
	defer base.CloseIdleConnections()
	client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{&Bearer{Source: src}}}}
	var wg sync.WaitGroup
	var failed atomic.Int32
	for range 300 {
		wg.Go(func() {
			resp, err := client.Get(s.URL)
			if err != nil || resp.StatusCode != 200 {
				failed.Add(1)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		})
	}
	wg.Wait()
	require.Zero(t, failed.Load())
	require.EqualValues(t, 1, i.calls.Load())
	require.LessOrEqual(t, s.requests.Load(), int32(600))
}

func TestBearerServerThatAlwaysRefuses(t *testing.T) {
	i := &issuer{}
	b := &Bearer{Source: &TokenSource{Fetch: i.fetch}}
	s := newResource(t, "", "Bearer")
	client := &http.Client{Transport: New(b)}
	for range 50 {
		resp, err := client.Get(s.URL)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 401, resp.StatusCode)
	}
	require.EqualValues(t, 2, i.calls.Load(), "one to begin with, one because that was refused")
	require.EqualValues(t, 51, s.requests.Load())
}

func TestBearerRevokedAgainSoonAfterItWasAccepted(t *testing.T) {
	i := &issuer{}
	b := &Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: old()}}
	s := newResource(t, "old", "Bearer")
	for n := 1; n <= maxForcedByOne+1; n++ {
		s.token.Store(fmt.Sprintf("access-%d", n))
		require.Equal(t, map[bool]int{true: 200, false: 401}[n <= maxForcedByOne], s.get(t, b))
	}
	require.EqualValues(t, maxForcedByOne, i.calls.Load(), "a token is everybody's, so one server does not have it replaced for ever")
}

func TestBearerInsufficientScope(t *testing.T) {
	i := &issuer{}
	b := &Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: old()}}
	c := &Challenge{Scheme: "Bearer", Params: Params{{"error", "insufficient_scope"}, {"scope", "admin"}}}
	_, err := b.Answer(context.Background(), c, refusalOf(newRequest("Bearer old")))
	require.ErrorIs(t, err, ErrUnsupportedChallenge)
	require.Zero(t, i.calls.Load())
}

func TestBearerChallengeReachesFetch(t *testing.T) {
	var got TokenRequest
	src := &TokenSource{Initial: old(), Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
		got = r
		return &oauth2.Token{AccessToken: "new"}, nil
	}}
	c := &Challenge{Scheme: "Bearer", Params: Params{{"claims", "e30="}}}
	session, err := (&Bearer{Source: src}).Answer(context.Background(), c, refusalOf(newRequest("Bearer old")))
	require.NoError(t, err)
	require.Same(t, c, got.Challenge)
	require.Equal(t, "refresh-0", got.Previous.RefreshToken)
	req := newRequest()
	require.NoError(t, session.Authorize(req))
	require.Equal(t, "Bearer new", req.Header.Get("Authorization"))
}

func TestBearerAfterAnotherScheme(t *testing.T) {
	i := &issuer{}
	b := &Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: old()}}
	for _, header := range []string{"Basic eDp5", "Bearer", ""} {
		session, err := b.Answer(context.Background(), &Challenge{Scheme: "Bearer"}, refusalOf(newRequest(header)))
		require.NoError(t, err)
		req := newRequest()
		require.NoError(t, session.Authorize(req))
		require.Equal(t, "Bearer old", req.Header.Get("Authorization"))
	}
	require.Zero(t, i.calls.Load())
}

func TestBearerFailures(t *testing.T) {
	i := &issuer{}
	i.failWith(refusal(http.StatusBadRequest, "invalid_grant"))
	b := &Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: old()}}
	s := newResource(t, "", "Bearer")
	for range 3 {
		_, err := (&http.Client{Transport: New(b)}).Get(s.URL)
		require.ErrorIs(t, err, ErrLoginRequired)
		_, ok := errors.AsType[*oauth2.RetrieveError](err)
		require.True(t, ok)
		require.NotContains(t, err.Error(), "s3cret")
	}
	require.EqualValues(t, 1, i.calls.Load())

	static := &Bearer{Source: &TokenSource{Initial: old()}}
	require.Equal(t, 401, s.get(t, static), "there never was a way to get another token")

	var nilSource *TokenSource
	for _, b := range []*Bearer{{}, {Source: nilSource}} {
		_, err := b.Start(context.Background(), newRequest())
		require.ErrorContains(t, err, "Bearer.Source is nil")
		_, err = b.Answer(context.Background(), nil, refusalOf(newRequest()))
		require.ErrorContains(t, err, "Bearer.Source is nil")
	}
}

// A foreignSource is an oauth2.TokenSource that is not ours.
type foreignSource func() (*oauth2.Token, error)

func (f foreignSource) Token() (*oauth2.Token, error) { return f() }

// A foreignRefresher has our Refresh, too.
type foreignRefresher struct{ *TokenSource }

func TestBearerForeignSource(t *testing.T) {
	t.Run("with another token", func(t *testing.T) {
		n := 0
		b := &Bearer{Source: foreignSource(func() (*oauth2.Token, error) {
			n++
			return &oauth2.Token{AccessToken: fmt.Sprint("t", n)}, nil
		})}
		s := newResource(t, "t2", "Bearer")
		require.Equal(t, 200, s.get(t, b))
		require.Equal(t, 2, n, "what was obtained for the retry is what is sent")
	})
	t.Run("with the same token", func(t *testing.T) {
		i := &issuer{}
		b := &Bearer{Source: oauth2.ReuseTokenSource(nil, &TokenSource{Fetch: i.fetch})}
		s := newResource(t, "", "Bearer")
		for range 10 {
			require.Equal(t, 401, s.get(t, b))
		}
		require.EqualValues(t, 10, s.requests.Load(), "never again unchanged")
		require.EqualValues(t, 1, i.calls.Load())
	})
	t.Run("that can refresh", func(t *testing.T) {
		i := &issuer{}
		b := &Bearer{Source: foreignRefresher{&TokenSource{Fetch: i.fetch, Initial: old()}}}
		s := newResource(t, "access-1", "Bearer")
		require.Equal(t, 200, s.get(t, b))
		require.Equal(t, 200, s.get(t, b))
		require.EqualValues(t, 3, s.requests.Load())
		require.EqualValues(t, 1, i.calls.Load())
	})
	t.Run("that fails", func(t *testing.T) {
		for _, code := range []string{"invalid_grant", "interaction_required"} {
			b := &Bearer{Source: foreignSource(func() (*oauth2.Token, error) { return nil, refusal(400, code) })}
			for _, ctx := range []context.Context{context.Background(), t.Context()} {
				err := (*bearerSession)(b).Authorize(newRequest().WithContext(ctx))
				require.ErrorIs(t, err, ErrLoginRequired)
				require.EqualError(t, err, `authretry: Bearer.Source has no token: the token endpoint answered 400 "`+code+`"`)
			}
		}
	})
	for want, source := range map[string]foreignSource{
		"panicked":       func() (*oauth2.Token, error) { panic("s3cret") },
		"neither":        func() (*oauth2.Token, error) { return nil, nil },
		"cannot be sent": func() (*oauth2.Token, error) { return &oauth2.Token{AccessToken: "a\nb"}, nil },
		"only Bearer":    func() (*oauth2.Token, error) { return &oauth2.Token{AccessToken: "a", TokenType: "mac"}, nil },
	} {
		t.Run(want, func(t *testing.T) {
			err := (*bearerSession)(&Bearer{Source: source}).Authorize(newRequest().WithContext(t.Context()))
			require.ErrorContains(t, err, want)
		})
	}
}

// A token is accepted by a server that has asked for it, and only by its own answer.
func TestBearerLearn(t *testing.T) {
	for _, c := range []struct {
		status  int
		refused bool
		sent    string
		want    bool
	}{
		{200, false, "Bearer access-1", true},
		{403, false, "bearer access-1", true},
		{404, false, "Bearer access-1", true},
		{429, false, "Bearer access-1", false},
		{401, true, "Bearer access-1", false},
		{400, true, "Bearer access-1", false},
		{407, false, "Bearer access-1", false},
		{500, false, "Bearer access-1", false},
		{502, false, "Bearer access-1", false},
		{200, false, "Bearer old", false},
		{200, false, "", false},
	} {
		src := &TokenSource{Fetch: (&issuer{}).fetch, Initial: old()}
		b := &Bearer{Source: src}
		ahead, err := b.Start(t.Context(), newRequest())
		require.NoError(t, err)
		require.NotImplements(t, (*Learner)(nil), ahead, "nobody has asked")
		answer, err := b.Answer(t.Context(), nil, refusalOf(newRequest("Bearer old")))
		require.NoError(t, err)
		req := newRequest(c.sent)
		keep, err := answer.(Learner).Learn(&http.Response{StatusCode: c.status, Request: req}, c.refused)
		require.Equal(t, c.refused, errors.Is(err, ErrTokenRefused), "%v", err)
		require.True(t, keep, "a server that asks for a token will ask again")
		answer.(Learner).Learn(&http.Response{StatusCode: 200, Request: newRequest("Bearer access-1")}, false) // to another request

		_, err = src.Refresh(t.Context(), &oauth2.Token{AccessToken: "access-1"})
		require.Equal(t, c.want, err == nil, c)
	}
}

// Where the source has no other token than the refused one, it is said what to change.
func TestBearerSaysWhyThereIsNoOtherToken(t *testing.T) {
	same := foreignSource(func() (*oauth2.Token, error) { return old(), nil })
	for want, source := range map[string]oauth2.TokenSource{
		"Bearer.Source is an oauth2.ReuseTokenSource, which returns the refused token until it expires; give Bearer a TokenSource": oauth2.ReuseTokenSource(old(), same),
		"Bearer.Source is an oauth2.StaticTokenSource, which has no other token; give Bearer a TokenSource":                        oauth2.StaticTokenSource(old()),
		"Bearer.Source, of type authretry.foreignSource, returned the refused token again; give Bearer a TokenSource":              same,
		"there is no other token than the one that was refused, and TokenSource.Fetch is nil; set it, or call TokenSource.Set":     &TokenSource{Initial: old()},
		"TokenSource.Fetch returned the same token again where another one was needed; it must not cache tokens, and FromFile needs another one in the file": &TokenSource{
			Initial: old(), Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { return old(), nil },
		},
	} {
		b := &Bearer{Source: source}
		_, err := b.Answer(t.Context(), nil, refusalOf(newRequest("Bearer old")))
		require.ErrorIs(t, err, ErrCredentialsRefused)
		require.ErrorContains(t, err, "authretry: "+want)
		require.NotContains(t, err.Error(), "old")
		s := newResource(t, "", "Bearer")
		resp, err := (&http.Client{Transport: New(b)}).Get(s.URL)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 401, resp.StatusCode)
		require.ErrorContains(t, Explain(resp), want)
		require.EqualValues(t, 1, s.requests.Load())
	}
}

func TestBearerForeignSourceThatBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Bearer{Source: foreignSource(func() (*oauth2.Token, error) {
			time.Sleep(time.Minute)
			return &oauth2.Token{AccessToken: "a"}, nil
		})}
		for range 3 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			start := time.Now()
			err := (*bearerSession)(b).Authorize(newRequest().WithContext(ctx))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.EqualError(t, err, "authretry: gave up waiting for Bearer.Source: context deadline exceeded")
			require.Equal(t, time.Second, time.Since(start))
			cancel()
		}
		time.Sleep(time.Hour)
	})
}

func TestBearerHeaderAndPrefix(t *testing.T) {
	for _, c := range []struct {
		header, prefix string
		wantHeader     string
		want           string // of the token "T"
		wantName       string
	}{
		{"", "", "Authorization", "Bearer T", "Bearer"},
		{"", "token", "Authorization", "token T", "token"},
		{"authorization", "", "Authorization", "Bearer T", "Bearer"},
		{"X-Auth-Token", "", "X-Auth-Token", "T", "Bearer"},
		{"X-API-Key", "", "X-Api-Key", "T", "Bearer"},
		{"X-Auth-Token", "v1", "X-Auth-Token", "v1 T", "v1"},
	} {
		t.Run(c.header+" "+c.prefix, func(t *testing.T) {
			i := &issuer{}
			var requests atomic.Int32
			accepted := "T"
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				want := strings.TrimSuffix(c.want, "T") + accepted
				if got := r.Header.Values(c.wantHeader); len(got) != 1 || got[0] != want {
					w.WriteHeader(http.StatusUnauthorized)
				}
			}))
			defer server.Close()
			b := &Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: &oauth2.Token{AccessToken: "T"}}, Header: c.header, Prefix: c.prefix}
			require.Equal(t, c.wantName, b.Name())
			client := &http.Client{Transport: New(b)}
			for n, want := range []string{"T", "access-1", "access-2"} { // the second is accepted, so the third can come at once
				accepted = want
				resp, err := client.Get(server.URL)
				require.NoError(t, err)
				resp.Body.Close()
				require.Equal(t, 200, resp.StatusCode, want)
				require.EqualValues(t, n, i.calls.Load())
				require.EqualValues(t, 1+2*n, requests.Load())
			}

			req := newRequest()
			steady := func() {
				session, err := b.Start(t.Context(), req)
				if err != nil {
					panic(err)
				}
				if session != nil {
					session.Authorize(req)
				}
			}
			steady()
			require.Zero(t, testing.AllocsPerRun(100, steady))
		})
	}
	for _, b := range []*Bearer{{Header: "X Auth"}, {Header: "X\r\nY"}, {Prefix: "a\r\nb"}, {Header: "X-Auth-Token", Prefix: "\x00"}} {
		b.Source = &TokenSource{Initial: old()}
		_, err := b.Start(t.Context(), newRequest())
		require.ErrorContains(t, err, "authretry: Bearer.")
		require.False(t, hasControl(err.Error()))
		_, again := b.Answer(t.Context(), nil, refusalOf(newRequest()))
		require.Equal(t, err, again)
	}
}

// A header that is the caller's own stays, and no credentials of ours are tried in its place.
func TestHeaderOfTheCallersOwnStays(t *testing.T) {
	for name, scheme := range map[string]Scheme{
		"Bearer":            &Bearer{Source: &TokenSource{Initial: old()}, Header: "X-Auth-Token"},
		"Bearer, NotAhead":  &Bearer{Source: &TokenSource{Initial: old()}, Header: "X-Auth-Token", NotAhead: true},
		"Bearer of another": &Bearer{Source: oauth2.StaticTokenSource(old()), Header: "X-Auth-Token"},
		"APIKey":            &APIKey{Key: "old", Header: "X-Auth-Token"},
	} {
		t.Run(name, func(t *testing.T) {
			remembered, err := scheme.Answer(t.Context(), nil, refusalOf(newRequest()))
			require.NoError(t, err)
			for _, spelling := range []string{"X-Auth-Token", "x-auth-token", "X-AUTH-Token"} {
				req := newRequest()
				req.Header[spelling] = []string{"mine"}
				session, err := scheme.(Starter).Start(t.Context(), req)
				require.NoError(t, err)
				require.Nil(t, session)
				require.NoError(t, remembered.Authorize(req))
				answer, err := scheme.Answer(t.Context(), nil, refusalOf(req))
				require.NoError(t, err)
				require.NoError(t, answer.Authorize(req))
				require.Equal(t, http.Header{spelling: {"mine"}}, req.Header)
			}
			req := newRequest()
			require.NoError(t, remembered.Authorize(req))
			require.Equal(t, "old", req.Header.Get("X-Auth-Token"))
		})
	}
}

// What the caller has set is refused: nobody is asked for a key that would not be sent, ahead or in answer to a challenge.
func TestKeyIsNotAskedForWhereTheCallerHasItsOwn(t *testing.T) {
	never := func(context.Context, CredentialsRequest) (string, error) { panic("asked") }
	source := foreignSource(func() (*oauth2.Token, error) { panic("asked") })
	for name, scheme := range map[string]Scheme{
		"APIKey":           &APIKey{Header: "X-Key", KeyFunc: never},
		"APIKey, Prefix":   &APIKey{Header: "X-Key", Prefix: "v1", KeyFunc: never},
		"APIKey, Key":      &APIKey{Header: "X-Key", Key: "ours"},
		"Bearer":           &Bearer{Header: "X-Key", Source: source},
		"Bearer, NotAhead": &Bearer{Header: "X-Key", Source: source, NotAhead: true},
	} {
		for _, origin := range []string{"https://api.example.com/", "http://api.example.com/"} {
			sends, body := 0, "refused"
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				sends++
				require.Equal(t, http.Header{"x-key": {"mine"}}, req.Header)
				return &http.Response{StatusCode: 401, Request: req, Header: http.Header{"Www-Authenticate": {scheme.Name()}}, Body: io.NopCloser(strings.NewReader(body))}, nil
			})
			transport := &Transport{Base: base, Schemes: []Scheme{scheme}}
			for range 2 {
				req := httptest.NewRequest("GET", origin, nil)
				req.Header["x-key"] = []string{"mine"}
				resp, err := transport.RoundTrip(req)
				require.NoError(t, err, name)
				r := Explain(resp).(*Rejection)
				require.Equal(t, ReasonCredentialsRefused, r.Reason)
				require.Empty(t, r.Tried, name)
				require.ErrorContains(t, r, "that the request came with were refused")
			}
			require.Equal(t, 2, sends, name)
		}
	}

	// Nor are those that are remembered for the origin said to have been tried.
	server := &saying{right: "none", challenge: "X-Key"}
	transport := &Transport{Schemes: []Scheme{&Bearer{Header: "X-Key", Prefix: "X-Key", Source: oauth2.StaticTokenSource(old()), NotAhead: true}},
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			resp, err := server.RoundTrip(req)
			if req.Header.Get("X-Key") == "X-Key old" {
				resp.StatusCode = 200
			}
			return resp, err
		})}
	require.Equal(t, 200, roundTrip(t, transport, "https://api.example.com/").StatusCode)
	req := httptest.NewRequest("GET", "https://api.example.com/", nil)
	req.Header["X-Key"] = []string{"mine"}
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	require.Empty(t, Explain(resp).(*Rejection).Tried)
	require.Equal(t, 200, roundTrip(t, transport, "https://api.example.com/").StatusCode)
	require.Len(t, server.sent, 4, "it is remembered still")
}

func TestBearerSendsNoOtherTypeOfToken(t *testing.T) {
	for kind, ok := range map[string]bool{"": true, "bEARER": true, "DPoP": false, "N_A": false, "Bearer\nX": false} {
		b := &Bearer{Source: &TokenSource{Initial: &oauth2.Token{AccessToken: "s3cret", TokenType: kind}}}
		req := newRequest()
		err := (*bearerSession)(b).Authorize(req)
		require.Equal(t, ok, req.Header["Authorization"] != nil)
		if ok {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, "authretry: the token is of type "+strconv.Quote(printable(kind)))
		require.NotContains(t, err.Error(), "s3cret")
		_, err = (&http.Client{Transport: New(b)}).Get("http://127.0.0.1:1/")
		require.ErrorContains(t, err, "only Bearer tokens")
	}
}

// A source may renew its token in place.
func TestBearerSourceThatChangesItsToken(t *testing.T) {
	mine := &oauth2.Token{AccessToken: "a"}
	b := &Bearer{Source: oauth2.StaticTokenSource(mine)}
	for _, access := range []string{"a", "a", "b", "b"} {
		mine.AccessToken = access
		req := newRequest()
		require.NoError(t, (*bearerSession)(b).Authorize(req))
		require.Equal(t, "Bearer "+access, req.Header.Get("Authorization"))
	}
	session, err := b.Answer(context.Background(), nil, refusalOf(newRequest("Bearer a")))
	require.NoError(t, err)
	req := newRequest()
	require.NoError(t, session.Authorize(req))
	require.Equal(t, "Bearer b", req.Header.Get("Authorization"))
	mine.TokenType = "token"
	require.Error(t, session.Authorize(req))
	b.Prefix = "Token"
	require.NoError(t, session.Authorize(req))
	require.Equal(t, "Token b", req.Header.Get("Authorization"))
}

func TestBearerSteadyStateDoesNotAllocate(t *testing.T) {
	expiring := &oauth2.Token{AccessToken: "a", Expiry: time.Now().Add(time.Hour)}
	for name, source := range map[string]oauth2.TokenSource{
		"TokenSource": &TokenSource{Initial: expiring, Fetch: new(issuer).fetch},
		"static":      oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "a"}),
		"reused":      oauth2.ReuseTokenSource(expiring, nil),
	} {
		t.Run(name, func(t *testing.T) {
			b := &Bearer{Source: source}
			req := newRequest().WithContext(t.Context())
			resp := &http.Response{StatusCode: 200, Request: req}
			steady := func() {
				session, err := b.Start(req.Context(), req)
				if err != nil {
					panic(err)
				}
				if err := session.Authorize(req); err != nil {
					panic(err)
				}
			}
			steady()
			steady()
			require.Zero(t, testing.AllocsPerRun(100, steady))

			answer, err := b.Answer(req.Context(), nil, refusalOf(newRequest())) // as it is remembered if NotAhead is set
			require.NoError(t, err)
			require.Zero(t, testing.AllocsPerRun(100, func() {
				if err := answer.Authorize(req); err != nil {
					panic(err)
				}
				if err := learn(answer.(Learner), resp); err != nil {
					panic(err)
				}
			}))
			require.Equal(t, "Bearer a", req.Header.Get("Authorization"))
			require.Equal(t, 1, cap(req.Header["Authorization"]))
		})
	}
}

func BenchmarkBearerAuthorize(b *testing.B) {
	bearer := &Bearer{Source: &TokenSource{
		Initial: &oauth2.Token{AccessToken: "a", Expiry: time.Now().Add(time.Hour)}, Fetch: new(issuer).fetch,
	}}
	session, err := bearer.Start(context.Background(), newRequest())
	require.NoError(b, err)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		req := newRequest()
		for pb.Next() {
			session.Authorize(req)
		}
	})
}

// A source of others that can refresh may do that in any way.
type oddRefresher struct {
	foreignSource
	refresh func(ctx context.Context) (*oauth2.Token, error)
}

func (o oddRefresher) Refresh(ctx context.Context, _ *oauth2.Token) (*oauth2.Token, error) {
	return o.refresh(ctx)
}

func TestBearerForeignSourceThatRefreshesBadly(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for want, c := range map[string]struct {
		ctx     context.Context
		refresh func(ctx context.Context) (*oauth2.Token, error)
	}{
		"neither a token nor an error":    {t.Context(), func(context.Context) (*oauth2.Token, error) { return nil, nil }},
		"cannot be sent":                  {t.Context(), func(context.Context) (*oauth2.Token, error) { return &oauth2.Token{AccessToken: "a\r\nX: y"}, nil }},
		"the token endpoint answered 400": {t.Context(), func(context.Context) (*oauth2.Token, error) { return nil, refusal(400, "invalid_grant") }},
		"context canceled":                {gone, func(ctx context.Context) (*oauth2.Token, error) { return nil, ctx.Err() }},
	} {
		b := &Bearer{Source: oddRefresher{func() (*oauth2.Token, error) { return old(), nil }, c.refresh}}
		session, err := b.Answer(c.ctx, &Challenge{Scheme: "Bearer"}, refusalOf(newRequest("Bearer old")))
		require.Nil(t, session, want)
		require.ErrorContains(t, err, want)
	}
}

// Without a Transport that says for whom a request is, nobody's token is sent.
func TestBearerSourcesWithoutAnAccount(t *testing.T) {
	b := &Bearer{Sources: func(context.Context, string) (oauth2.TokenSource, error) { return expiringSource(), nil }}
	req := newRequest()
	session, err := b.Start(t.Context(), req)
	require.NoError(t, err)
	require.ErrorIs(t, session.Authorize(req), errNoAccount)
	require.Empty(t, req.Header)
	_, err = b.Answer(t.Context(), &Challenge{Scheme: "Bearer"}, refusalOf(req))
	require.ErrorIs(t, err, errNoAccount)
	require.Empty(t, b.accounts.known)
}

// What a Scheme has refused already, it does not give again, whoever asks it.
func TestAnswerIsNotWhatWasRefused(t *testing.T) {
	for _, s := range []Starter{&APIKey{Key: "k"}, &APIKey{Header: "X-API-Key", Key: "k"}, &Basic{Username: "u", Password: "p", Ahead: true}} {
		req := newRequest()
		session, err := s.Start(t.Context(), req)
		require.NoError(t, err)
		require.NoError(t, session.Authorize(req))
		_, err = s.(Scheme).Answer(t.Context(), &Challenge{}, refusalOf(req))
		require.ErrorIs(t, err, ErrCredentialsRefused)
		again, err := s.(Scheme).Answer(t.Context(), &Challenge{}, refusalOf(newRequest("other")))
		require.NoError(t, err)
		require.NotNil(t, again)
	}
}

// What KeyFunc returns is for the request that it was asked for, and not remembered for another.
func TestKeyOfKeyFuncIsNotRemembered(t *testing.T) {
	key := &APIKey{KeyFunc: func(context.Context, CredentialsRequest) (string, error) { return "k", nil }}
	server := &saying{right: "Basic dTpw", challenge: `Basic realm="x"`}
	transport := &Transport{Base: server, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}, key}}
	require.Equal(t, 200, roundTrip(t, transport, "https://api.example.com/a").StatusCode)
	server.right, server.challenge = "ApiKey k", "ApiKey"
	require.Equal(t, 200, roundTrip(t, transport, "https://api.example.com/a").StatusCode)
	require.Equal(t, []string{"ApiKey k", "Basic dTpw", "Basic dTpw", "ApiKey k"}, server.sent)
	for _, known := range transport.auth.spaces.known {
		for _, space := range known.spaces {
			require.Zero(t, space.scheme, "there is nothing but what Basic has")
		}
	}
}

func TestSessionsSayWhoseTheyAre(t *testing.T) {
	b := &Bearer{Source: expiringSource(), Header: "X-Auth-Token"}
	session, err := b.Start(t.Context(), newRequest())
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(session), "X-Auth-Token")
	require.Equal(t, fmt.Sprint(b), fmt.Sprint(session))
	require.Contains(t, fmt.Sprint(SecretPost(secret)), "authretry.ClientAuth")
	require.Contains(t, fmt.Sprint(&PrivateKeyJWT{KeyID: "k1"}), "k1")
}

// A KeyFunc has a context, whoever asks the APIKey.
func TestKeyFuncOutsideOfATransport(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "value")
	k := &APIKey{KeyFunc: func(ctx context.Context, _ CredentialsRequest) (string, error) {
		require.Equal(t, "value", ctx.Value(key{}))
		return "k", nil
	}}
	_, err := k.Start(ctx, newRequest())
	require.NoError(t, err)
}

// A source of others is asked for its token where none was refused, and not to refresh it.
func TestBearerForeignSourceIsNotRefreshedAtFirst(t *testing.T) {
	server := &saying{right: "Bearer T", challenge: "Bearer"}
	transport := &Transport{Base: server, Schemes: []Scheme{&Bearer{NotAhead: true, Source: neverRefreshed{t}}}}
	require.Equal(t, 200, roundTrip(t, transport, "https://api.example.com/").StatusCode)
}

type neverRefreshed struct{ t *testing.T }

func (neverRefreshed) Token() (*oauth2.Token, error) { return &oauth2.Token{AccessToken: "T"}, nil }
func (n neverRefreshed) Refresh(context.Context, *oauth2.Token) (*oauth2.Token, error) {
	n.t.Error("nothing was refused")
	return nil, errors.New("no")
}

// Where there are no credentials for an answer, or none to be sent ahead, whoever is asked for them has the word.
func TestCredentialsThatThereAreNot(t *testing.T) {
	sealed := errors.New("vault is sealed")
	key := &APIKey{KeyFunc: func(context.Context, CredentialsRequest) (string, error) { return "", sealed }}
	_, err := key.Answer(t.Context(), &Challenge{}, refusalOf(newRequest()))
	require.ErrorIs(t, err, sealed)
	for name, failure := range map[string]error{"not for this origin": ErrUnsupportedChallenge, "not now": sealed} {
		basic := &Basic{Ahead: true, Credentials: func(context.Context, CredentialsRequest) (string, string, error) { return "", "", failure }}
		session, err := basic.Start(t.Context(), newRequest())
		require.Nil(t, session, name)
		if failure == sealed {
			require.ErrorIs(t, err, sealed)
		} else {
			require.NoError(t, err, "the request goes without")
		}
	}
}
