package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func TestRefreshOutlivesItsCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		i := &issuer{delay: time.Second}
		var value any
		src := &TokenSource{Initial: old(), Fetch: func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
			value = ctx.Value(key{})
			return i.fetch(ctx, r)
		}}
		ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), key{}, "of the caller"), 10*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := src.Refresh(ctx, old())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 10*time.Millisecond, time.Since(start))
		time.Sleep(time.Second)
		synctest.Wait()
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "access-1", got.AccessToken)
		require.Nil(t, value, "the token is for all callers")
		require.EqualValues(t, 1, i.calls.Load())
	})
}

func TestCancelledCallerStartsNothing(t *testing.T) {
	i := &issuer{}
	src := &TokenSource{Fetch: i.fetch, Initial: old()}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := src.Refresh(ctx, old())
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, i.calls.Load())
}

func TestFetchThatReturnsNonsense(t *testing.T) {
	for want, token := range map[string]*oauth2.Token{
		"neither a token nor an error": nil,
		"has no access token":          {RefreshToken: "r"},
		"cannot be sent":               {AccessToken: "a\r\nX-Evil: 1"},
		"expired already":              {AccessToken: "a", Expiry: time.Now().Add(-time.Minute)},
	} {
		t.Run(want, func(t *testing.T) {
			calls := 0
			src := &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { calls++; return token, nil }}
			for range 100 {
				_, err := src.Token()
				require.ErrorContains(t, err, want)
			}
			require.Less(t, calls, 5)
		})
	}
	for _, kind := range []string{"", "bEARER", "DPoP", "N_A"} { // which of them it can send is for a Scheme to judge
		issued := &oauth2.Token{AccessToken: "a", TokenType: kind}
		src := &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { return issued, nil }}
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, kind, got.TokenType)
		require.NoError(t, src.Set(issued))
	}
}

func TestExpiredTokenFromFetchKeepsItsRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var previous []string
		src := &TokenSource{Initial: &oauth2.Token{RefreshToken: "refresh-0"}, Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			previous = append(previous, r.Previous.RefreshToken)
			n := len(previous)
			return &oauth2.Token{AccessToken: fmt.Sprint("a", n), RefreshToken: fmt.Sprint("refresh-", n), Expiry: time.Now().Add(time.Duration(n-2) * time.Minute)}, nil
		}}
		for len(previous) < 3 {
			src.Token()
			time.Sleep(time.Second)
		}
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "a3", got.AccessToken)
		require.Equal(t, []string{"refresh-0", "refresh-1", "refresh-2"}, previous)
	})
}

func TestFetchThatDoesNotReturn(t *testing.T) {
	for name, end := range map[string]func(){
		"panics":       func() { panic("s3cret") },
		"dereferences": func() { var t *oauth2.Token; _ = t.AccessToken },
		"exits":        runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := false
				src := &TokenSource{Initial: old()}
				src.Fetch = func(context.Context, TokenRequest) (*oauth2.Token, error) {
					if !ended {
						ended = true
						time.Sleep(time.Second)
						end()
					}
					return &oauth2.Token{AccessToken: "new"}, nil
				}
				errs := make(chan error)
				for range 10 {
					go func() { _, err := src.Refresh(context.Background(), old()); errs <- err }()
				}
				for range 10 {
					err := <-errs
					require.ErrorContains(t, err, "callback")
					require.NotContains(t, err.Error(), "s3cret")
				}
				time.Sleep(time.Second)
				got, err := src.Refresh(context.Background(), old())
				require.NoError(t, err)
				require.Equal(t, "new", got.AccessToken)
			})
		})
	}
}

func TestFetchThatIgnoresItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Initial: old(), FetchTimeout: 5 * time.Second, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			time.Sleep(time.Minute)
			return &oauth2.Token{AccessToken: "late"}, nil
		}}
		start := time.Now()
		_, err := src.Refresh(context.Background(), old())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "FetchTimeout")
		require.Equal(t, 5*time.Second, time.Since(start))
		time.Sleep(time.Minute)
		synctest.Wait()
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "late", got.AccessToken)
	})
}

func TestFetchThatNeedsItsOwnToken(t *testing.T) {
	src := &TokenSource{}
	src.Fetch = func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
		if _, err := src.Obtain(ctx, TokenRequest{Previous: &oauth2.Token{AccessToken: "x"}}); !errors.Is(err, errRecursion) {
			return nil, errors.New("Obtain did not notice")
		}
		return src.Obtain(ctx, TokenRequest{})
	}
	_, err := src.Token()
	require.ErrorIs(t, err, errRecursion)
}

func TestTokenEndpointBehindItsOwnTransport(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	for _, initial := range []*oauth2.Token{nil, {AccessToken: "a", RefreshToken: "r"}} {
		src := &TokenSource{Initial: initial, Fetch: ClientCredentialsGrant(&clientcredentials.Config{ClientID: "id", TokenURL: server.URL})}
		client := &http.Client{Transport: New(&Bearer{Source: src})}
		src.HTTPClient = client
		_, err := client.Get(server.URL)
		require.ErrorIs(t, err, errRecursion)
	}
}

func TestOnTokenSeesEachTokenFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Second, delay: time.Millisecond}
		var seen sync.Map
		var running, calls atomic.Int32
		src := &TokenSource{Fetch: i.fetch, OnToken: func(t *oauth2.Token) {
			if running.Add(1) != 1 {
				panic("concurrent OnToken")
			}
			calls.Add(1)
			time.Sleep(time.Millisecond)
			if _, twice := seen.LoadOrStore(t.AccessToken, true); twice {
				panic("twice: " + t.AccessToken)
			}
			running.Add(-1)
		}}
		var wg sync.WaitGroup
		for n := range 20 {
			wg.Go(func() {
				for range 100 {
					got, err := src.Token()
					require.NoError(t, err)
					_, ok := seen.Load(got.AccessToken)
					require.True(t, ok)
					time.Sleep(time.Duration(30+n) * time.Millisecond)
				}
			})
			wg.Go(func() {
				time.Sleep(time.Duration(n) * 100 * time.Millisecond)
				require.NoError(t, src.Set(&oauth2.Token{AccessToken: fmt.Sprintf("set-%d", n), Expiry: time.Now().Add(time.Second)}))
			})
		}
		wg.Wait()
		require.GreaterOrEqual(t, calls.Load(), int32(22))
	})
}

func TestOnTokenThatPanicsLosesNothing(t *testing.T) {
	i := &issuer{}
	src := &TokenSource{Fetch: i.fetch, OnToken: func(*oauth2.Token) { panic("s3cret") }}
	_, err := src.Token()
	require.ErrorContains(t, err, "panicked")
	got, err := src.Token()
	require.NoError(t, err)
	require.Equal(t, "access-1", got.AccessToken)
}

func TestSetDuringARefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{delay: time.Second}
		src := &TokenSource{Fetch: i.fetch, Initial: old()}
		type result struct {
			token *oauth2.Token
			err   error
		}
		done := make(chan result)
		go func() {
			got, err := src.Refresh(context.Background(), old())
			done <- result{got, err}
		}()
		synctest.Wait()
		start := time.Now()
		require.NoError(t, src.Set(&oauth2.Token{AccessToken: "login"}))
		r := <-done
		require.NoError(t, r.err)
		require.Equal(t, "login", r.token.AccessToken)
		require.Zero(t, time.Since(start))
		time.Sleep(2 * time.Second)
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "login", got.AccessToken)

		// One that has only a refresh token makes those who wait wait for another refresh.
		go func() {
			got, err := src.Refresh(context.Background(), got)
			done <- result{got, err}
		}()
		synctest.Wait()
		require.NoError(t, src.Set(&oauth2.Token{RefreshToken: "refresh-login"}))
		r = <-done
		require.NoError(t, r.err)
		require.Equal(t, "access-3", r.token.AccessToken)
		require.Equal(t, "refresh-login", i.previous[2])
	})
}

func TestTokenSourceEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []Event
		ctx := withListener(context.Background(), func(_ context.Context, e Event) { events = append(events, e) })
		i := &issuer{delay: time.Second}
		src := &TokenSource{Fetch: i.fetch, Initial: old()}
		_, err := src.Refresh(ctx, old())
		require.NoError(t, err)
		require.Equal(t, []Event{
			{Kind: EventRefreshing, Scheme: "Bearer", Attempt: 2},
			{Kind: EventRefreshed, Scheme: "Bearer", Attempt: 2, Duration: time.Second},
		}, events)
		i.failWith(refusal(400, "invalid_grant"))
		_, err = src.Refresh(ctx, nil)
		require.Error(t, err)
		require.Equal(t, err, events[3].Err)
	})
}

func TestListenerThatExitsHangsNobody(t *testing.T) {
	for _, end := range []func(){runtime.Goexit, func() { panic("listener") }} {
		for _, kind := range []EventKind{EventRefreshing, EventRefreshed} {
			src := &TokenSource{Fetch: new(issuer).fetch, Initial: old()}
			ctx := withListener(context.Background(), func(_ context.Context, e Event) {
				if e.Kind == kind {
					end()
				}
			})
			got, err := src.Refresh(ctx, old())
			if err == nil {
				require.Equal(t, "access-1", got.AccessToken)
			}
		}
	}
}

// Who has asked for nothing besides gets the token of a refresh that was to bring more, and did not.
func TestTokenThatLacksAScopeIsGoodForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			time.Sleep(time.Second)
			return (&oauth2.Token{AccessToken: "less"}).WithExtra(map[string]any{"scope": "read"}), nil
		}}
		refused := make(chan error, 1)
		go func() {
			_, err := src.Obtain(t.Context(), TokenRequest{Scopes: []string{"write"}})
			refused <- err
		}()
		synctest.Wait()
		require.Equal(t, "less", tokenOf(t, src))
		require.ErrorContains(t, <-refused, "granted less")
	})
}

// The time of a refresh may be up in the moment in which such a token comes: it is known by then that it lacks something, which the
// race detector can tell.
func TestTokenThatLacksAScopeAsTheTimeEnds(t *testing.T) {
	src := &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
		return (&oauth2.Token{AccessToken: "less"}).WithExtra(map[string]any{"scope": "read"}), nil
	}}
	d, err := newDemand(&TokenRequest{Scopes: []string{"write"}})
	require.NoError(t, err)
	run := &refreshRun{demand: d, ctx: newRefreshContext(t.Context(), src), done: make(chan struct{})}
	var overdue sync.WaitGroup
	overdue.Go(func() {
		for run.fetched.Load() == nil {
			runtime.Gosched()
		}
		src.end(run, run.fetched.Load(), failed(context.DeadlineExceeded, nil))
	})
	require.ErrorContains(t, src.fetch(t.Context(), run, nil, nil), "granted less")
	overdue.Wait()
	got, err, ours := run.result(&d)
	require.Nil(t, got)
	require.ErrorContains(t, err, "took too long")
	require.True(t, ours)
	require.Equal(t, "less", tokenOf(t, src), "it is good for who has asked for nothing more")
}

// A token that could not be replaced goes to those again who have refused it.
func TestFailedRefreshForgetsWhoHasRefused(t *testing.T) {
	i := &issuer{}
	i.failWith(errors.New("down"))
	src := &TokenSource{Fetch: i.fetch, Initial: old()}
	require.Equal(t, "old", tokenOf(t, src))
	k, o := src.current.Load(), origin{scheme: "https", host: "api.test", port: "443"}
	for _, r := range []TokenRequest{{Previous: old()}, {Scopes: []string{"more"}}} {
		k.refusedBy(o)
		require.True(t, k.isRefusedBy(o))
		_, err := src.Obtain(t.Context(), r)
		require.ErrorContains(t, err, "down")
		require.False(t, k.isRefusedBy(o))
		src.failure = failure{}
	}
}
