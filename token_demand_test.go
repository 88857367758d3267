package authretry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

func withScope(t *oauth2.Token, scope string) *oauth2.Token {
	return t.WithExtra(map[string]any{"scope": scope})
}

// slowFetch takes a second and calls answer, with the number of the call.
func slowFetch(answer func(n int, r TokenRequest) (*oauth2.Token, error)) FetchFunc {
	var calls atomic.Int32
	return func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
		n := int(calls.Add(1))
		time.Sleep(time.Second)
		return answer(n, r)
	}
}

func anyToken(n int, _ TokenRequest) (*oauth2.Token, error) {
	return &oauth2.Token{AccessToken: fmt.Sprint("t", n), RefreshToken: "refresh-0"}, nil
}

// refreshing starts a refresh of a token in use, which takes a second.
func refreshing(src *TokenSource) {
	_, _ = src.Token()
	go func() { _, _ = src.Refresh(context.Background(), nil) }()
	synctest.Wait()
}

// What somebody wanted who does not wait any more is no need of others: of what only a person can give, nor too much.
func TestDemandsOfThoseWhoHaveLeft(t *testing.T) {
	many := make([]string, 65)
	for i := range many {
		many[i] = fmt.Sprint("s", i)
	}
	for name, r := range map[string]TokenRequest{"acr": {ACRValues: []string{"gold"}}, "65 scopes": {Scopes: many}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &TokenSource{Initial: withScope(old(), "a"), Fetch: slowFetch(anyToken)}
				refreshing(src)
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				defer cancel()
				_, err := src.Obtain(ctx, r) // gives up
				require.ErrorIs(t, err, context.DeadlineExceeded)
				time.Sleep(24 * time.Hour)
				for range 3 {
					_, err = src.Obtain(t.Context(), TokenRequest{Scopes: []string{"b"}})
					time.Sleep(time.Hour)
				}
				require.NoError(t, err, "two hours after the first")
			})
		})
	}
}

// Nor a scope that the authorization server refuses.
func TestBadScopeOfSomebodyWhoHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Initial: withScope(old(), "a"), Fetch: slowFetch(func(n int, r TokenRequest) (*oauth2.Token, error) {
			if slices.Contains(r.Scopes, "bad") {
				return nil, refusal(400, "invalid_scope")
			}
			return anyToken(n, r)
		})}
		refreshing(src)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, _ = src.Obtain(ctx, TokenRequest{Scopes: []string{"bad"}}) // gives up
		time.Sleep(24 * time.Hour)
		_, err := src.Obtain(t.Context(), TokenRequest{Scopes: []string{"b"}})
		require.NoError(t, err, "nobody wants the bad one any more")
	})
}

// Nor is a person asked for it.
func TestNobodyIsAskedForWhatNobodyWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logins := 0
		src := &TokenSource{Initial: withScope(old(), "a"), Fetch: slowFetch(anyToken), Login: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			logins++
			return &oauth2.Token{AccessToken: "login", RefreshToken: "refresh-0"}, nil
		}}
		refreshing(src)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, _ = src.Obtain(ctx, TokenRequest{ACRValues: []string{"gold"}}) // gives up
		time.Sleep(24 * time.Hour)
		_, err := src.Obtain(t.Context(), TokenRequest{Scopes: []string{"b"}})
		require.NoError(t, err)
		require.Zero(t, logins, "Fetch can give b")
	})
}

// Nothing is left of those who have given up.
func TestDemandsEndWithThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Initial: withScope(old(), "a"), Fetch: slowFetch(anyToken)}
		refreshing(src)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for i := range 8000 {
			_, _ = src.Obtain(ctx, TokenRequest{Scopes: []string{fmt.Sprint("scope-", i)}})
		}
		n := len(src.unserved)
		time.Sleep(time.Hour)
		require.Zero(t, n)
	})
}

// How fresh a login is, is counted from the login, and not from the last refresh.
func TestMaxAgeIsThatOfTheLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logins := 0
		token := func(name string, n int) (*oauth2.Token, error) {
			return &oauth2.Token{AccessToken: fmt.Sprint(name, n), RefreshToken: "r", Expiry: time.Now().Add(50 * time.Minute)}, nil
		}
		src := &TokenSource{
			Fetch: slowFetch(func(n int, _ TokenRequest) (*oauth2.Token, error) { return token("t", n) }),
			Login: func(context.Context, TokenRequest) (*oauth2.Token, error) { logins++; return token("login", logins) }}
		c := Challenge{Scheme: "Bearer", Params: Params{{"error", "insufficient_user_authentication"}, {"max_age", "3600"}}}
		_, err := src.StepUp(t.Context(), "", &c, nil)
		require.NoError(t, err)
		require.Equal(t, 1, logins)
		for range 24 * 60 {
			time.Sleep(time.Minute)
			_, err = src.Token()
			require.NoError(t, err)
		}
		k, _ := src.Token()
		_, err = src.StepUp(t.Context(), k.AccessToken, &c, nil) // the server: the login is a day old
		time.Sleep(time.Minute)
		require.NoError(t, err)
		require.Equal(t, 2, logins)
	})
}

// What was asked of one login is not believed of another, which was found in the Store.
func TestWhatWasAskedOfAnotherLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, logins := newSharedStore(nil), 0
		src := &TokenSource{Store: store, Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			if grantOf(r.Previous) == "" {
				return nil, ErrLoginRequired
			}
			return &oauth2.Token{AccessToken: "of-" + r.Previous.RefreshToken, RefreshToken: r.Previous.RefreshToken, Expiry: time.Now().Add(time.Hour)}, nil
		}, Login: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			logins++
			return &oauth2.Token{AccessToken: "gold", RefreshToken: "A", Expiry: time.Now().Add(time.Hour)}, nil
		}}
		gold := TokenRequest{ACRValues: []string{"gold"}}
		_, err := src.Obtain(t.Context(), gold)
		require.NoError(t, err)
		// Another process: somebody logs in anew, without gold. The token has expired when this process looks.
		require.NoError(t, (&TokenSource{Store: store}).Set(&oauth2.Token{AccessToken: "plain", RefreshToken: "B", Expiry: time.Now().Add(time.Minute)}))
		time.Sleep(2 * time.Hour)
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "of-B", got.AccessToken)
		_, err = src.Obtain(t.Context(), gold)
		require.NoError(t, err)
		require.Equal(t, 2, logins, "login B has no gold")
	})
}

// A token that Set puts to use during a step-up is for those whom it serves.
func TestSetDuringAStepUpThatItDoesNotMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Initial: withScope(old(), "a"), Fetch: slowFetch(anyToken)}
		go func() {
			time.Sleep(time.Second / 2)
			_ = src.Set(withScope(&oauth2.Token{AccessToken: "set", RefreshToken: "r"}, "a"))
		}()
		got, err := src.Obtain(t.Context(), TokenRequest{Scopes: []string{"b"}})
		time.Sleep(time.Minute)
		require.NoError(t, err)
		require.NotEqual(t, "set", got.AccessToken, "which has scope a only")
	})
}

// Initial does not serve a demand that it is not known to meet, with a Store as without.
func TestInitialIsNotForEveryDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Store: newSharedStore(nil), Initial: withScope(old(), "a"), Fetch: slowFetch(anyToken)}
		got, err := src.Obtain(t.Context(), TokenRequest{Scopes: []string{"b"}})
		require.NoError(t, err)
		require.NotEqual(t, "old", got.AccessToken, "which has scope a only")
	})
}

// Who wants a token, and nothing of it, does not get the error of a step-up.
func TestErrorOfAStepUpIsNotForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Initial: &oauth2.Token{RefreshToken: "r"}, Fetch: slowFetch(func(n int, r TokenRequest) (*oauth2.Token, error) {
			if len(r.Scopes) > 0 {
				return nil, refusal(400, "invalid_scope")
			}
			return anyToken(n, r)
		})}
		go func() { _, _ = src.Obtain(context.Background(), TokenRequest{Scopes: []string{"bad"}}) }()
		synctest.Wait()
		_, err := src.Token()
		require.NoError(t, err)
	})
}

// However many of them come one after the other.
func TestErrorsOfManyStepUpsAreNotForOthers(t *testing.T) {
	run := &refreshRun{demand: demand{needs: needs{scopes: []string{"bad"}}}, err: errors.New("the scope is bad")}
	d := new(demand)
	for range 3 {
		_, _, ours := run.result(d)
		require.False(t, ours)
	}
	_, err, ours := run.result(&run.demand)
	require.True(t, ours)
	require.Equal(t, run.err, err)
}

// Nor does who was granted what they wanted.
func TestGrantedScopeIsNoError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Initial: withScope(old(), "a"), Fetch: slowFetch(func(n int, r TokenRequest) (*oauth2.Token, error) {
			got, _ := anyToken(n, r)
			if slices.Contains(r.Scopes, "b") {
				return withScope(got, "a b"), nil // and never bad
			}
			return withScope(got, "a"), nil
		})}
		refreshing(src)
		go func() { _, _ = src.Obtain(context.Background(), TokenRequest{Scopes: []string{"bad"}}) }()
		synctest.Wait()
		_, err := src.Obtain(t.Context(), TokenRequest{Scopes: []string{"b"}})
		time.Sleep(time.Minute)
		require.Contains(t, src.current.Load().scopes, "b")
		require.NoError(t, err)
	})
}

// What one origin may not cause any more, another may.
func TestRefusalsOfOneOriginDoNotHoldBackAnother(t *testing.T) {
	for _, withStore := range []bool{false, true} { // false passes
		t.Run(fmt.Sprint(withStore), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &TokenSource{Fetch: slowFetch(anyToken), Initial: old()}
				if withStore {
					src.Store = newSharedStore(nil)
				}
				at := func(host string) (context.Context, origin) {
					o := origin{scheme: "https", host: host, port: "443"}
					return context.WithValue(t.Context(), originKey{}, o), o
				}
				a, _ := at("a")
				b, originB := at("b")
				k0, err := src.Token()
				require.NoError(t, err)
				k1, err := src.Obtain(a, TokenRequest{Previous: k0})
				require.NoError(t, err)
				src.acceptedBy(originB, k1.AccessToken)
				_, err = src.Obtain(a, TokenRequest{Previous: k1})
				require.ErrorIs(t, err, ErrTokenRefused) // right: a has had one
				_, err = src.Obtain(b, TokenRequest{Previous: k1})
				require.NoError(t, err, "b has caused none, and had accepted k1")
			})
		})
	}
}

// A refresh that was due during a step-up comes after it.
func TestEarlyRefreshComesAfterAStepUpThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		src := &TokenSource{Initial: withScope(&oauth2.Token{AccessToken: "x", RefreshToken: "r", Expiry: time.Now().Add(100 * time.Second)}, "a"),
			Fetch: slowFetch(func(_ int, r TokenRequest) (*oauth2.Token, error) {
				if slices.Contains(r.Scopes, "bad") {
					return nil, refusal(400, "invalid_scope")
				}
				n++
				return &oauth2.Token{AccessToken: "t", RefreshToken: "r", Expiry: time.Now().Add(time.Hour)}, nil
			})}
		_, _ = src.Token()
		time.Sleep(70 * time.Second)
		go func() { _, _ = src.Obtain(context.Background(), TokenRequest{Scopes: []string{"bad"}}) }()
		synctest.Wait()
		for range 20 { // all due; the first while the step-up is under way
			_, err := src.Token()
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		require.Equal(t, 1, n)
	})
}

// A token endpoint that is out of order is left alone, also by who wants what the token was good for.
func TestTokenEndpointOutOfOrderIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		src := &TokenSource{Initial: withScope(&oauth2.Token{AccessToken: "x", RefreshToken: "r", Expiry: time.Now().Add(time.Second)}, "a"),
			Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
				n++
				e := refusal(503, "")
				e.Response.Header.Set("Retry-After", "60")
				return nil, e
			}}
		_, _ = src.Token()
		time.Sleep(2 * time.Second)
		var err error
		for range 20 {
			_, err = src.Obtain(t.Context(), TokenRequest{Scopes: []string{"a"}}) // which it has had
		}
		require.Equal(t, 1, n)
		require.NotErrorIs(t, err, ErrCredentialsRefused)
	})
}

// Set forgets, too, that a scope was not granted.
func TestSetForgetsWhatWasLacking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scope := "a"
		src := &TokenSource{Initial: withScope(old(), "a"), Fetch: slowFetch(func(n int, r TokenRequest) (*oauth2.Token, error) {
			got, _ := anyToken(n, r)
			return withScope(got, scope), nil
		})}
		_, err := src.Obtain(t.Context(), TokenRequest{Scopes: []string{"b"}})
		require.Error(t, err)
		scope = "a b" // somebody with more rights logs in
		require.NoError(t, src.Set(withScope(&oauth2.Token{AccessToken: "new", RefreshToken: "new-r"}, "a")))
		_, err = src.Obtain(t.Context(), TokenRequest{Scopes: []string{"b"}})
		require.NoError(t, err)
	})
}

// Numbers in claims are asked for as they are.
func TestNumbersInClaimsStay(t *testing.T) {
	var got string
	src := &TokenSource{Initial: old(), Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
		got = r.Claims
		return &oauth2.Token{AccessToken: "t", RefreshToken: "r"}, nil
	}}
	const claims = `{"userinfo":{"id":{"value":9007199254740993}}}`
	_, err := src.Obtain(t.Context(), TokenRequest{Claims: claims})
	require.NoError(t, err)
	require.Equal(t, claims, got)
}
