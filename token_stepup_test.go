package authretry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A grantingIssuer issues tokens of the scopes that are asked for, or of those that limit leaves of them.
type grantingIssuer struct {
	calls    atomic.Int32
	limit    func(scopes []string) []string
	mu       sync.Mutex
	granted  map[string][]string // by access token
	requests []TokenRequest
	fail     error
}

func newGrantingIssuer() *grantingIssuer {
	return &grantingIssuer{granted: map[string][]string{"t0": {"base"}}}
}

// initial is a token at hand.
func (i *grantingIssuer) initial() *oauth2.Token {
	return (&oauth2.Token{AccessToken: "t0", RefreshToken: "r0", Expiry: time.Now().Add(time.Hour)}).WithExtra(map[string]any{"scope": "base"})
}

func (i *grantingIssuer) fetch(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
	n := i.calls.Add(1)
	time.Sleep(50 * time.Millisecond)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.requests = append(i.requests, r)
	if i.fail != nil {
		return nil, i.fail
	}
	scopes := r.Scopes
	if i.limit != nil {
		scopes = i.limit(scopes)
	}
	name := fmt.Sprint("t", n)
	i.granted[name] = scopes
	return (&oauth2.Token{AccessToken: name, RefreshToken: fmt.Sprint("r", n), Expiry: time.Now().Add(time.Hour)}).
		WithExtra(map[string]any{"scope": strings.Join(scopes, " ")}), nil
}

func (i *grantingIssuer) last() TokenRequest {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.requests[len(i.requests)-1]
}

// api answers with status unless the token has the scope that the path names; at "/none", with a 403 without a challenge.
func (i *grantingIssuer) api(status int) roundTripFunc {
	return func(r *http.Request) (*http.Response, error) {
		time.Sleep(5 * time.Millisecond)
		resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: r, Header: http.Header{}}
		scope := strings.TrimPrefix(r.URL.Path, "/")
		i.mu.Lock()
		defer i.mu.Unlock()
		switch has := i.granted[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]; {
		case scope == "none":
			resp.StatusCode = http.StatusForbidden
		case !slices.Contains(has, scope):
			resp.StatusCode = status
			resp.Header.Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="x", error="insufficient_scope", scope=%q`, scope))
		}
		return resp, nil
	}
}

func (i *grantingIssuer) transport(src *TokenSource, status int) *Transport {
	return &Transport{Base: i.api(status), Schemes: []Scheme{&Bearer{Source: src, StepUp: true}}}
}

// challenging answers every request with a challenge, which may be another one each time.
func challenging(status int, challenge func(n int) string) (roundTripFunc, *atomic.Int32) {
	sent := new(atomic.Int32)
	return func(r *http.Request) (*http.Response, error) {
		n := int(sent.Add(1))
		return &http.Response{StatusCode: status, Body: http.NoBody, Request: r, Header: http.Header{"Www-Authenticate": {challenge(n)}}}, nil
	}, sent
}

func TestRequestsThatNeedDifferentScopesShareTokens(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		for want, atHand := range map[int32]bool{2: true, 3: false} {
			synctest.Test(t, func(t *testing.T) {
				i := newGrantingIssuer()
				src := &TokenSource{Fetch: i.fetch}
				if atHand {
					src.Initial = i.initial()
				}
				transport := i.transport(src, status)
				var all sync.WaitGroup
				var passed atomic.Int32
				for n := range 100 {
					all.Go(func() {
						resp, err := transport.RoundTrip(httptest.NewRequest("GET", fmt.Sprint("https://api.test/s", n%4), nil))
						if err == nil && resp.StatusCode == 200 {
							passed.Add(1)
						}
					})
				}
				all.Wait()
				require.EqualValues(t, 100, passed.Load())
				require.Equal(t, want, i.calls.Load())
				require.Subset(t, i.last().Scopes, []string{"s0", "s1", "s2", "s3"})
				require.Equal(t, atHand, slices.Contains(i.last().Scopes, "base"), "what was granted already is kept")
			})
		}
	}
}

func TestStepUpIsByTheChallengeAndOnlyIfAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newGrantingIssuer()
		src := &TokenSource{Fetch: i.fetch, Initial: i.initial()}
		without := &Transport{Base: i.api(403), Schemes: []Scheme{&Bearer{Source: src}}}
		for _, path := range []string{"/none", "/more"} {
			resp, err := without.RoundTrip(httptest.NewRequest("GET", "https://api.test"+path, nil))
			require.NoError(t, err)
			require.Equal(t, 403, resp.StatusCode)
		}
		resp, err := i.transport(src, 403).RoundTrip(httptest.NewRequest("GET", "https://api.test/none", nil))
		require.NoError(t, err)
		require.Equal(t, 403, resp.StatusCode)
		require.Zero(t, i.calls.Load(), "a 403 costs no token request")
	})
}

// What an authorization server does not give is not asked for again and again.
func TestScopeThatIsNotGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newGrantingIssuer()
		i.limit = func([]string) []string { return []string{"base"} }
		src := &TokenSource{Fetch: i.fetch, Initial: i.initial()}
		transport := i.transport(src, 403)
		for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(100 * time.Millisecond) {
			resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/more", nil))
			require.NoError(t, err)
			require.Equal(t, 403, resp.StatusCode)
			rejection, ok := errors.AsType[*Rejection](Explain(resp))
			require.True(t, ok)
			require.Equal(t, ReasonInsufficientScope, rejection.Reason)
			ok200, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/base", nil))
			require.NoError(t, err)
			require.Equal(t, 200, ok200.StatusCode, "those who need no more are served")
		}
		require.LessOrEqual(t, i.calls.Load(), int32(7))
	})
}

// An authorization server that gives one new scope at a time, to a server that always wants another one.
func TestStepUpsAreBounded(t *testing.T) {
	for name, limit := range map[string]func([]string) []string{
		"all that is wanted":  nil,
		"one scope at a time": func(s []string) []string { return s[:min(1, len(s))] },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newGrantingIssuer()
				i.limit = limit
				base, _ := challenging(403, func(n int) string { return fmt.Sprintf(`Bearer error="insufficient_scope", scope="s%d"`, n) })
				transport := &Transport{Base: base, Schemes: []Scheme{&Bearer{Source: &TokenSource{Fetch: i.fetch}, StepUp: true}}}
				for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(100 * time.Millisecond) {
					resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
					require.NoError(t, err)
					require.Equal(t, 403, resp.StatusCode)
				}
				if limit == nil { // 8 in 10 s, until there are 64 scopes
					require.LessOrEqual(t, i.calls.Load(), int32(1+6*maxStepUps))
					require.Greater(t, i.calls.Load(), int32(1+maxStepUps), "and then again")
				} else {
					require.LessOrEqual(t, i.calls.Load(), int32(8))
				}
				require.LessOrEqual(t, len(i.last().Scopes), maxNeedScopes)
			})
		})
	}
}

func TestScopesThatAreNotAskedFor(t *testing.T) {
	many := make([]string, 10_000)
	for i := range many {
		many[i] = fmt.Sprint("s", i)
	}
	for name, scope := range map[string]string{"none": "", "64 KiB": strings.Repeat("a", 64<<10), "10,000": strings.Join(many, " "), "65": strings.Join(many[:65], " "),
		"a quote": `a\"b`, "not ASCII": "é"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newGrantingIssuer()
				base, sent := challenging(401, func(int) string { return `Bearer error="insufficient_scope", scope="` + scope + `"` })
				transport := &Transport{Base: base, Schemes: []Scheme{&Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: i.initial()}, StepUp: true}}}
				resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
				require.NoError(t, err)
				require.Equal(t, 401, resp.StatusCode)
				require.Less(t, len(Explain(resp).Error()), 1000)
				require.Zero(t, i.calls.Load())
				require.EqualValues(t, 1, sent.Load())
			})
		})
	}
}

func TestScopeFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newGrantingIssuer()
		base, _ := challenging(403, func(int) string { return `Bearer error="insufficient_scope", scope="admin write"` })
		bearer := &Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: i.initial()}, StepUp: true,
			ScopeFilter: func(scopes []string) []string {
				return slices.DeleteFunc(scopes, func(s string) bool { return s == "admin" })
			}}
		transport := &Transport{Base: base, Schemes: []Scheme{bearer}}
		_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
		require.NoError(t, err)
		require.Equal(t, []string{"base", "write"}, i.last().Scopes)

		bearer.ScopeFilter = func([]string) []string { return nil }
		resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
		require.NoError(t, err)
		require.EqualValues(t, 1, i.calls.Load())
		require.ErrorContains(t, Explain(resp), "ScopeFilter lets none of the challenge's scopes be asked for")
	})
}

// A source that cannot be asked for more is named, since nothing else says that StepUp does nothing with it.
func TestStepUpNeedsATokenSource(t *testing.T) {
	base, _ := challenging(403, func(int) string { return `Bearer error="insufficient_scope", scope="admin"` })
	resp, err := (&Transport{Base: base, Schemes: []Scheme{&Bearer{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "t"}), StepUp: true}}}).
		RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
	require.NoError(t, err)
	require.ErrorContains(t, Explain(resp), "which the authorization server has to grant: Bearer.StepUp needs a TokenSource, and the source is of type oauth2.staticTokenSource")
}

// An error in answer to a step-up is for those who asked.
func TestErrorOfAStepUpConcernsNobodyElse(t *testing.T) {
	for _, fail := range []error{refusal(400, "invalid_scope"), refusal(400, "invalid_grant"), refusal(401, "invalid_client"), errors.New("down")} {
		synctest.Test(t, func(t *testing.T) {
			i := newGrantingIssuer()
			i.fail = fail
			src := &TokenSource{Fetch: i.fetch, Initial: i.initial()}
			transport := i.transport(src, 403)
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() {
					resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/base", nil))
					if err != nil || resp.StatusCode != 200 {
						t.Errorf("%v", err)
					}
				})
				all.Go(func() {
					resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/more", nil))
					if err == nil && resp.StatusCode != 403 {
						t.Errorf("%d", resp.StatusCode)
					}
				})
			}
			all.Wait()
			i.mu.Lock()
			i.fail = nil
			i.mu.Unlock()
			got, err := src.Token()
			require.NoError(t, err)
			require.Equal(t, "t0", got.AccessToken)
			got, err = src.Refresh(t.Context(), got)
			require.NoError(t, err, "the refresh token is as good as before")
			require.Equal(t, "r0", i.last().Previous.RefreshToken)
			require.NotEqual(t, "t0", got.AccessToken)
		})
	}
}

// Two processes that need different scopes unite them in the store, and do not take each other's away.
func TestStoreUnitesScopes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newGrantingIssuer()
		store := newSharedStore(nil)
		store.put(i.initial())
		a := i.transport(&TokenSource{Fetch: i.fetch, Store: store}, 403)
		b := i.transport(&TokenSource{Fetch: i.fetch, Store: store}, 403)
		for range 20 {
			for transport, path := range map[*Transport]string{a: "/read", b: "/write"} {
				resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test"+path, nil))
				require.NoError(t, err)
				require.Equal(t, 200, resp.StatusCode)
			}
			time.Sleep(time.Second)
		}
		require.EqualValues(t, 2, i.calls.Load(), "one for each scope, and no more")
		require.Equal(t, []string{"base", "read", "write"}, store.record().Scopes)
		data, err := store.record().Encode()
		require.NoError(t, err)
		saved, err := DecodeRecord(data)
		require.NoError(t, err)
		require.Equal(t, []string{"base", "read", "write"}, saved.Scopes)
	})
}

func TestClaimsOfAChallenge(t *testing.T) {
	const claims = `{"access_token":{"nbf":{"essential":true,"value":"1"},"x":"??>>"}}`
	for name, encoded := range map[string]string{
		"standard": base64.StdEncoding.EncodeToString([]byte(claims)), "raw": base64.RawStdEncoding.EncodeToString([]byte(claims)),
		"URL": base64.URLEncoding.EncodeToString([]byte(claims)), "raw URL": base64.RawURLEncoding.EncodeToString([]byte(claims)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newGrantingIssuer()
				base, sent := challenging(401, func(int) string { return `Bearer realm="", error="insufficient_claims", claims="` + encoded + `"` })
				src := &TokenSource{Fetch: i.fetch, Initial: i.initial()}
				transport := &Transport{Base: base, Schemes: []Scheme{&Bearer{Source: src, StepUp: true}}}
				_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
				require.NoError(t, err)
				require.EqualValues(t, 2, sent.Load(), "one step-up for one request")
				require.EqualValues(t, 1, i.calls.Load())
				require.JSONEq(t, claims, i.last().Claims)
				require.Equal(t, "t0", i.last().Previous.AccessToken)
				// Those of another challenge are asked for besides.
				_, err = src.Obtain(t.Context(), TokenRequest{Claims: `{"access_token":{"y":1}}`})
				require.NoError(t, err)
				require.JSONEq(t, `{"access_token":{"y":1}}`, i.last().Claims)
			})
		})
	}
	var waiting []string
	synctest.Test(t, func(t *testing.T) { // of those who wait together, all are
		i := newGrantingIssuer()
		src := &TokenSource{Fetch: i.fetch, Initial: i.initial()}
		var all sync.WaitGroup
		for n := range 5 {
			all.Go(func() {
				_, err := src.Obtain(t.Context(), TokenRequest{Claims: fmt.Sprintf(`{"access_token":{"c%d":1}}`, n)})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for _, r := range i.requests {
			waiting = append(waiting, r.Claims)
		}
	})
	require.Len(t, waiting, 2)
	require.Equal(t, 5, strings.Count(waiting[0]+waiting[1], `:1`))
}

func TestClaimsThatAreNotAskedFor(t *testing.T) {
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for name, encoded := range map[string]string{"none": "", "not base64": "***", "not JSON": encode("{"), "no object": encode(`["a"]`), "null": encode("null"),
		"17 KiB": encode(`{"a":"` + strings.Repeat("x", 17<<10) + `"}`), "64 KiB": encode(`{"a":"` + strings.Repeat("x", 64<<10) + `"}`)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newGrantingIssuer()
				base, sent := challenging(401, func(int) string { return `Bearer error="insufficient_claims", claims="` + encoded + `"` })
				transport := &Transport{Base: base, Schemes: []Scheme{&Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: i.initial()}, StepUp: true}}}
				resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
				require.NoError(t, err)
				require.Equal(t, 401, resp.StatusCode)
				require.Error(t, Explain(resp))
				require.Zero(t, i.calls.Load())
				require.EqualValues(t, 1, sent.Load())
			})
		})
	}
}

// A fresher or stronger login is for a person, whom Login asks (RFC 9470).
func TestInsufficientUserAuthentication(t *testing.T) {
	for challenge, want := range map[string]*TokenRequest{
		`acr_values="a b"`:           {ACRValues: []string{"a", "b"}},
		`max_age="300"`:              {MaxAge: 5 * time.Minute, HasMaxAge: true},
		`max_age=0`:                  {HasMaxAge: true},
		`acr_values="a", max_age=60`: {ACRValues: []string{"a"}, MaxAge: time.Minute, HasMaxAge: true},
		`acr_values="a", max_age=1000000000000000000`: {ACRValues: []string{"a"}}, // any login will do
		`max_age="-1"`:                 nil,
		`max_age="1e18"`:               nil,
		`max_age=99999999999999999999`: nil,
		`max_age=1000000000000000000`:  nil,
		`realm="x"`:                    nil,
	} {
		t.Run(challenge, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newGrantingIssuer()
				base, sent := challenging(401, func(int) string { return `Bearer error="insufficient_user_authentication", ` + challenge })
				var asked []TokenRequest
				src := &TokenSource{Fetch: i.fetch, Initial: i.initial(), Login: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
					asked = append(asked, r)
					return &oauth2.Token{AccessToken: "login", RefreshToken: "r-login"}, nil
				}}
				transport := &Transport{Base: base, Schemes: []Scheme{&Bearer{Source: src, StepUp: true}}}
				resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
				require.NoError(t, err)
				require.Equal(t, ReasonInsufficientLogin, Explain(resp).(*Rejection).Reason)
				require.Zero(t, i.calls.Load(), "no refresh can help")
				if want == nil {
					require.Empty(t, asked)
					require.EqualValues(t, 1, sent.Load())
					return
				}
				require.Len(t, asked, 1)
				require.EqualValues(t, 2, sent.Load())
				r := asked[0]
				require.Equal(t, []any{want.ACRValues, want.MaxAge, want.HasMaxAge}, []any{r.ACRValues, r.MaxAge, r.HasMaxAge})
			})
		})
	}
}

func TestInsufficientUserAuthenticationWithoutLogin(t *testing.T) {
	i := newGrantingIssuer()
	base, sent := challenging(401, func(int) string { return `Bearer error="insufficient_user_authentication", max_age=5` })
	transport := &Transport{Base: base, Schemes: []Scheme{&Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: i.initial()}, StepUp: true}}}
	resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
	require.NoError(t, err)
	require.EqualValues(t, 1, sent.Load())
	require.Zero(t, i.calls.Load())
	require.Equal(t, ReasonInsufficientLogin, Explain(resp).(*Rejection).Reason)
	require.ErrorContains(t, Explain(resp), "TokenSource.Login")
}

// Fetch is told for whom the token is, where that is known.
func TestFetchKnowsTheAccount(t *testing.T) {
	t.Parallel()
	i := newGrantingIssuer()
	transport := i.transport(&TokenSource{Fetch: i.fetch}, 403)
	transport.Account = func(*http.Request) string { return "alice" }
	_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/more", nil))
	require.NoError(t, err)
	require.Equal(t, []string{"alice", "alice"}, []string{i.requests[0].Account, i.requests[1].Account})
}

// What a challenge does not describe is not asked for: no token would meet it.
func TestChallengeThatDoesNotSayWhatItWants(t *testing.T) {
	many := strings.TrimSpace(strings.Repeat("s ", maxNeedScopes+1))
	long := base64.StdEncoding.EncodeToString([]byte(`{"a":"` + strings.Repeat("x", 2*maxClaims) + `"}`))
	for challenge, want := range map[string]string{
		`Bearer error="insufficient_user_authentication"`:                       "does not say which login it asks for",
		`Bearer error="insufficient_user_authentication", max_age="soon"`:       "no number of seconds",
		`Bearer error="insufficient_user_authentication", max_age="2000000000"`: "does not say which login it asks for",
		`Bearer error="insufficient_scope"`:                                     "the challenge names no scope",
		`Bearer error="insufficient_scope", scope="` + many + `"`:               fmt.Sprintf("names more than %d scopes", maxNeedScopes),
		`Bearer error="insufficient_claims", claims="` + long + `"`:             "claims that are too long",
	} {
		asked := 0
		src := &TokenSource{Initial: old(), Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			asked++
			return &oauth2.Token{AccessToken: "new"}, nil
		}}
		list, err := ParseChallenges([]string{challenge})
		require.NoError(t, err)
		_, err = src.StepUp(t.Context(), "old", &list[0], nil)
		require.ErrorIs(t, err, ErrUnsupportedChallenge)
		var r *Rejection
		require.ErrorAs(t, err, &r)
		require.Equal(t, list[0].StepUp(), r.Reason)
		require.ErrorContains(t, err, want)
		require.Zero(t, asked)
	}
	_, err := (&TokenSource{Initial: old()}).StepUp(t.Context(), "old", &Challenge{Scheme: "Bearer"}, nil)
	require.Equal(t, ErrUnsupportedChallenge, err, "it asks for nothing of the kind")
}

func TestStepUpWithoutABetterToken(t *testing.T) {
	claims := &Challenge{Scheme: "Bearer", Params: Params{{"error", "insufficient_claims"}, {"claims", base64.StdEncoding.EncodeToString([]byte(`{"a":1}`))}}}
	synctest.Test(t, func(t *testing.T) {
		scope := &Challenge{Scheme: "Bearer", Params: Params{{"error", "insufficient_scope"}, {"scope", "more"}}}
		var asked []TokenRequest
		src := &TokenSource{Initial: old(), MinRefreshInterval: -1, Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			if asked = append(asked, r); len(asked) == 1 {
				return nil, refusal(500, "")
			}
			return (&oauth2.Token{AccessToken: "same"}).WithExtra(map[string]any{"scope": "more"}), nil
		}}
		token, err := src.StepUp(t.Context(), "old", scope, nil)
		require.Nil(t, token)
		require.ErrorContains(t, err, "answered 500")
		require.NotErrorIs(t, err, ErrUnsupportedChallenge, "it may be different the next time")
		time.Sleep(time.Second)
		token, err = src.StepUp(t.Context(), "old", scope, nil)
		require.NoError(t, err)
		_, err = src.StepUp(t.Context(), token.AccessToken, scope, nil)
		require.ErrorIs(t, err, ErrUnsupportedChallenge)
		require.ErrorContains(t, err, "was granted that already")

	})
	// If none was refused, none is to be replaced.
	for _, refused := range []string{"", "x"} {
		r, err := wanted(refused, claims, nil)
		require.NoError(t, err)
		require.Equal(t, refused != "", r.Previous != nil)
	}
}

// What was asked for once is asked for no more, also of a token that came of a refresh.
func TestRefreshedTokenIsAsGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newGrantingIssuer()
		src := &TokenSource{Fetch: i.fetch, Initial: i.initial()}
		more := TokenRequest{Claims: `{"access_token":{"x":1}}`}
		_, err := src.Obtain(t.Context(), more)
		require.NoError(t, err)
		time.Sleep(2 * time.Hour)
		require.Equal(t, "t2", tokenOf(t, src))
		got, err := src.Obtain(t.Context(), more)
		require.NoError(t, err)
		require.Equal(t, "t2", got.AccessToken)
	})
}

// A server that gets no token, since that is for a resource elsewhere, has no say in what it is good for.
func TestStepUpIsNotForAnotherOrigin(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) { issue(w) })
	fetches := 0
	fetch := (&TokenEndpoint{URL: e.URL, Params: url.Values{"resource": {"https://api.example.com/"}}}).ClientCredentials()
	src := &TokenSource{Fetch: func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
		fetches++
		return fetch(ctx, r)
	}}
	challenge := `Bearer`
	transport := &Transport{Schemes: []Scheme{&Bearer{Source: src, StepUp: true, NotAhead: true}}, Base: roundTripFunc(func(r *http.Request) (*http.Response, error) {
		resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: r, Header: http.Header{}}
		if r.URL.Host != "api.example.com" || r.Header.Get("Authorization") == "" {
			require.Empty(t, r.Header.Get("Authorization"))
			resp.StatusCode, resp.Header = 401, http.Header{"Www-Authenticate": {challenge}}
		}
		return resp, nil
	})}
	resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil))
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	for _, challenge = range []string{`Bearer error="insufficient_scope", scope="admin"`, `Bearer error="insufficient_claims", claims="e30="`,
		`Bearer error="insufficient_user_authentication", max_age="0"`} {
		resp, err = transport.RoundTrip(httptest.NewRequest("GET", "https://other.example.com/", nil))
		require.NoError(t, err)
		require.Equal(t, 401, resp.StatusCode)
		require.ErrorContains(t, Explain(resp), "the token is for the resource https://api.example.com (RFC 8707)", challenge)
	}
	require.Equal(t, 1, fetches)
}
