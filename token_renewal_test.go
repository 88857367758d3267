package authretry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
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

// A token that a person has logged in for with an ACR is refreshed as any other when it has expired, and that is no request for the ACR.
func TestRenewalOfAStrongLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Request: req, Header: http.Header{"Content-Type": {"application/json"}},
				Body: io.NopCloser(strings.NewReader(`{"token_type":"Bearer","access_token":"new","expires_in":3600}`))}, nil
		})}
		src := &TokenSource{HTTPClient: client, Fetch: (&TokenEndpoint{URL: "https://auth.example.com/token", ClientID: "c"}).Refresh(), MinRefreshInterval: time.Millisecond}
		expiry := time.Now().Add(50 * time.Millisecond)
		logins := 0
		src.Login = func(context.Context, TokenRequest) (*oauth2.Token, error) {
			if logins++; logins > 1 {
				return nil, errors.New("nobody there")
			}
			return &oauth2.Token{AccessToken: "in", RefreshToken: "refresh", Expiry: expiry}, nil
		}
		gold := TokenRequest{ACRValues: []string{"gold"}}
		_, err := src.Obtain(t.Context(), gold)
		require.NoError(t, err)
		time.Sleep(60 * time.Millisecond)
		_, _ = src.Obtain(t.Context(), gold)
		time.Sleep(500 * time.Millisecond)
		_, err = src.Token()
		require.NoError(t, err, "the token endpoint takes the refresh token")
	})
}

// But if it is refused, no refresh helps: somebody is asked.
func TestRefusedTokenOfAStrongLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetches, logins := 0, 0
		src := &TokenSource{Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			if grantOf(r.Previous) == "" {
				return nil, ErrLoginRequired
			}
			fetches++
			return &oauth2.Token{AccessToken: fmt.Sprint("t", fetches), RefreshToken: "r"}, nil
		}, Login: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			logins++
			return &oauth2.Token{AccessToken: fmt.Sprint("login", logins), RefreshToken: "r"}, nil
		}}
		k, err := src.Obtain(t.Context(), TokenRequest{ACRValues: []string{"gold"}})
		require.NoError(t, err)
		time.Sleep(time.Hour)
		_, err = src.Obtain(t.Context(), TokenRequest{Previous: k, ACRValues: []string{"gold"}})
		require.NoError(t, err)
		require.Equal(t, 2, logins, "no refresh can help there: Login is asked")
	})
}

// A server that refuses tokens that have what it asks for causes few token requests.
func TestRefusalsOfWhatWasGrantedAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetches := 0
		src := &TokenSource{Initial: withScope(old(), "a"), Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			fetches++
			return withScope(&oauth2.Token{AccessToken: fmt.Sprint("t", fetches), RefreshToken: "r"}, "a"), nil
		}}
		k, _ := src.Token()
		for range 1000 {
			n, err := src.Obtain(t.Context(), TokenRequest{Previous: k, Scopes: []string{"a"}})
			if err == nil {
				k = n
			}
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, fetches, 40, "in a second")
	})
}

// Also with claims.
func TestRepeatedClaimsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetches := 0
		src := &TokenSource{Initial: old(), Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			fetches++
			return &oauth2.Token{AccessToken: fmt.Sprint("t", fetches), RefreshToken: "r"}, nil
		}}
		c := Challenge{Scheme: "Bearer", Params: Params{{"error", "insufficient_claims"}, {"claims", "eyJhIjoxfQ"}}}
		k, _ := src.Token()
		for range 1000 {
			n, err := src.StepUp(t.Context(), k.AccessToken, &c, nil)
			if err == nil {
				k = n
			}
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, fetches, 40, "in a second")
	})
}

// What somebody wants who waits for a login is not asked of Fetch again.
func TestWhoWaitsForALoginWaitsForNoRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked [][]string
		src := &TokenSource{Initial: withScope(old(), "a"), Fetch: slowFetch(func(n int, r TokenRequest) (*oauth2.Token, error) {
			asked = append(asked, r.Scopes)
			if slices.Contains(r.Scopes, "person") {
				return nil, ErrLoginRequired
			}
			if !slices.Contains(r.Scopes, "b") {
				return withScope(&oauth2.Token{AccessToken: fmt.Sprint("t", n), RefreshToken: "r"}, "a"), nil
			}
			return withScope(&oauth2.Token{AccessToken: fmt.Sprint("t", n), RefreshToken: "r"}, "a b"), nil
		}), Login: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			time.Sleep(time.Minute)
			return withScope(&oauth2.Token{AccessToken: "in", RefreshToken: "r"}, "a person"), nil
		}}
		refreshing(src)
		go func() { _, _ = src.Obtain(context.Background(), TokenRequest{Scopes: []string{"person"}}) }()
		time.Sleep(5 * time.Second) // it waits for a login now
		synctest.Wait()
		n := len(asked)
		_, err := src.Obtain(t.Context(), TokenRequest{Scopes: []string{"b"}})
		more := asked[n:]
		time.Sleep(2 * time.Minute)
		require.NoError(t, err)
		require.Len(t, more, 1, "person is not asked of Fetch again by somebody who wants b")
	})
}

// Nor is a person asked for what somebody wants who waits for a refresh.
func TestWhoWaitsForARefreshWaitsForNoLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked [][]string
		src := &TokenSource{Initial: withScope(old(), "a"), Fetch: slowFetch(func(n int, r TokenRequest) (*oauth2.Token, error) {
			if slices.Contains(r.Scopes, "bad") {
				return nil, refusal(400, "invalid_scope")
			}
			return withScope(&oauth2.Token{AccessToken: fmt.Sprint("t", n), RefreshToken: "r"}, "a"), nil
		}), Login: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			asked = append(asked, r.Scopes)
			if slices.Contains(r.Scopes, "bad") {
				return nil, refusal(400, "invalid_scope")
			}
			return withScope(&oauth2.Token{AccessToken: "in", RefreshToken: "r"}, "a"), nil
		}}
		refreshing(src)
		go func() { _, _ = src.Obtain(context.Background(), TokenRequest{Scopes: []string{"bad"}}) }()
		synctest.Wait()
		_, err := src.Obtain(t.Context(), TokenRequest{ACRValues: []string{"gold"}})
		time.Sleep(time.Minute)
		require.NoError(t, err)
	})
}

// Who wants a token after an expiry does not get the errors of those who want more, as often as they try.
func TestErrorsOfStepUpsAfterAnExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails := 0
		for range 40 {
			src := &TokenSource{Initial: withScope(&oauth2.Token{AccessToken: "old", RefreshToken: "r", Expiry: time.Now().Add(time.Second)}, "a"),
				Fetch: slowFetch(func(n int, r TokenRequest) (*oauth2.Token, error) {
					if len(r.Scopes) > 1 {
						return nil, refusal(400, "invalid_scope")
					}
					return withScope(&oauth2.Token{AccessToken: fmt.Sprint("t", n), RefreshToken: "r"}, "a"), nil
				})}
			_, _ = src.Token()
			time.Sleep(2 * time.Second)
			for i := range 4 {
				go func() { _, _ = src.Obtain(context.Background(), TokenRequest{Scopes: []string{fmt.Sprint("bad", i)}}) }()
				synctest.Wait()
			}
			_, err := src.Token()
			if err != nil {
				fails++
				t.Log(err)
			}
			time.Sleep(time.Minute)
		}
		require.Zero(t, fails)
	})
}

// A refresh in the background that could not begin, since earlier ones hang, begins later.
func TestRefreshIsTriedAgainAfterAHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &panickingStore{sharedStore: newSharedStore(nil), block: make(chan struct{})}
		var fetches atomic.Int32
		src := &TokenSource{Store: s, FetchTimeout: time.Second, Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			return &oauth2.Token{AccessToken: fmt.Sprint("t", fetches.Add(1)), RefreshToken: "r", Expiry: time.Now().Add(10 * time.Hour)}, nil
		}}
		_, err := src.Token()
		require.NoError(t, err)
		s.hang.Store(true)
		for range 4 {
			_, _ = src.Refresh(t.Context(), nil)
			time.Sleep(time.Hour)
		}
		require.EqualValues(t, 4, s.calls.Load())
		time.Sleep(5*time.Hour + 56*time.Minute)
		_, err = src.Token() // due: cannot begin
		require.NoError(t, err)
		s.hang.Store(false)
		close(s.block)
		for range 3 * 60 {
			time.Sleep(time.Second)
			_, err = src.Token()
			require.NoError(t, err)
		}
		require.EqualValues(t, 2, fetches.Load(), "it is due for four minutes, and everything works")
	})
}

// A server that asks for ever more does not have a person asked for ever.
func TestStepUpsByLoginAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logins := 0
		src := &TokenSource{Initial: withScope(old(), "a"), Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { return nil, ErrLoginRequired },
			Login: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
				logins++
				return withScope(&oauth2.Token{AccessToken: fmt.Sprint("t", logins), RefreshToken: "r"}, "a"+fmt.Sprint(logins)), nil
			}}
		for i := range 50 {
			_, _ = src.Obtain(t.Context(), TokenRequest{Scopes: []string{fmt.Sprint("a", i+1)}})
			time.Sleep(time.Millisecond)
		}
		require.LessOrEqual(t, logins, maxStepUps)
	})
}

// Callers who give up do not have a person asked again and again.
func TestLoginsThatAreGivenUpAreBounded(t *testing.T) {
	for _, heeds := range []bool{true, false} {
		t.Run(fmt.Sprint(heeds), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var logins, alive, most atomic.Int32
				src := &TokenSource{Login: func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
					logins.Add(1)
					most.Store(max(most.Load(), alive.Add(1)))
					defer alive.Add(-1)
					if heeds {
						<-ctx.Done()
					} else {
						time.Sleep(time.Minute)
					}
					return nil, errors.New("no")
				}}
				for range 100 {
					ctx, cancel := context.WithTimeout(t.Context(), 90*time.Millisecond)
					_, _ = src.Obtain(ctx, TokenRequest{})
					cancel()
					time.Sleep(10 * time.Millisecond)
				}
				time.Sleep(time.Hour)
				require.LessOrEqual(t, logins.Load(), int32(2), "in 10 s")
			})
		})
	}
}

// One login is under way at a time, also if it takes a moment to end.
func TestOneLoginAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var alive, most atomic.Int32
		src := &TokenSource{Login: func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
			most.Store(max(most.Load(), alive.Add(1)))
			defer alive.Add(-1)
			select {
			case <-ctx.Done():
				time.Sleep(50 * time.Millisecond) // closes its port
				return nil, ctx.Err()
			case <-time.After(5 * time.Second):
				return old(), nil
			}
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _ = src.Obtain(ctx, TokenRequest{})
		_, _ = src.Obtain(t.Context(), TokenRequest{})
		require.EqualValues(t, 1, most.Load(), "one call is under way at a time, if it heeds its context")
	})
}

// Nothing is left of many callers who want this and that, and give up, of logins, refreshes and Logouts.
func TestTokenSourceUnderStress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int32
		src := &TokenSource{Initial: withScope(old(), "a"), FetchTimeout: time.Millisecond, MinRefreshInterval: -1, LoginTimeout: 2 * time.Millisecond,
			Revoke: func(context.Context, *oauth2.Token) error { return nil },
			Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
				time.Sleep(rand.N(2 * time.Millisecond))
				i := n.Add(1)
				switch rand.N(6) {
				case 0:
					return nil, errors.New("x")
				case 1:
					return &oauth2.Token{RefreshToken: fmt.Sprint("R", i)}, errors.New("y")
				case 2:
					return nil, ErrLoginRequired
				}
				return &oauth2.Token{AccessToken: fmt.Sprint("t", i), RefreshToken: fmt.Sprint("R", i), Expiry: time.Now().Add(time.Millisecond)}, nil
			},
			Login: func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
				time.Sleep(rand.N(3 * time.Millisecond))
				i := n.Add(1)
				if rand.N(3) == 0 {
					return nil, errors.New("z")
				}
				return &oauth2.Token{AccessToken: fmt.Sprint("l", i), RefreshToken: fmt.Sprint("L", i), Expiry: time.Now().Add(rand.N(3 * time.Millisecond))}, nil
			}}
		end := time.Now().Add(500 * time.Millisecond)
		var wg sync.WaitGroup
		for g := range 12 {
			wg.Go(func() {
				for time.Now().Before(end) {
					ctx, cancel := context.WithTimeout(context.Background(), rand.N(6*time.Millisecond))
					r := TokenRequest{}
					switch rand.N(4) {
					case 0:
						r.Scopes = []string{fmt.Sprint("s", rand.N(5))}
					case 1:
						r.ACRValues = []string{fmt.Sprint("g", rand.N(3))}
					case 2:
						if k := src.current.Load(); k != nil {
							r.Previous = k.token
						}
					}
					if g == 0 && rand.N(10) == 0 {
						_ = src.Set(&oauth2.Token{AccessToken: fmt.Sprint("set", n.Add(1)), RefreshToken: "S"})
					}
					if g == 1 && rand.N(20) == 0 {
						_ = src.Logout(ctx)
					}
					_, _ = src.Obtain(ctx, r)
					cancel()
					time.Sleep(rand.N(100 * time.Microsecond)) // else the clock of the bubble stands still while there is a token
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		src.mu.Lock()
		defer src.mu.Unlock()
		require.Zero(t, src.goroutines)
		require.Nil(t, src.unserved)
		require.Nil(t, src.fetching)
	})
}

// A panickingStore hangs, and panics at the end.
type panickingStore struct {
	*sharedStore
	calls atomic.Int32
	hang  atomic.Bool
	block chan struct{}
}

func (s *panickingStore) Load(ctx context.Context) (*Record, error) {
	if s.hang.Load() {
		s.calls.Add(1)
		<-s.block
		panic("down")
	}
	return s.sharedStore.Load(ctx)
}
