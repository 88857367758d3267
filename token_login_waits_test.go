package authretry

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A source makes no room for others while somebody logs in.
func TestSourceDoesNotMakeRoomDuringALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logins := 0
		sources := func(_ context.Context, account string) (oauth2.TokenSource, error) {
			return &TokenSource{Login: func(context.Context, TokenRequest) (*oauth2.Token, error) {
				logins++
				time.Sleep(time.Minute)
				return old(), nil
			}}, nil
		}
		a := &accountSources{limit: 3 * sizeOfSource}
		get := func(account string) oauth2.TokenSource {
			s := a.add(account, sources)
			<-s.done
			s.lastUse.Store(a.clock.Add(1))
			return s.inUse.TokenSource
		}
		alice := get("alice")
		go func() { _, _ = alice.Token() }()
		synctest.Wait()
		for _, u := range []string{"b", "c", "d", "e", "f", "g"} {
			get(u)
		}
		time.Sleep(2 * time.Minute) // alice has logged in
		_, err := get("alice").Token()
		require.NoError(t, err)
		require.Equal(t, 1, logins)
	})
}

// A login whose token has expired is refreshed.
func TestLoginWithATokenThatHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Fetch: func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
			if grantOf(r.Previous) == "" {
				return nil, ErrLoginRequired
			}
			return anyToken(1, r)
		}, Login: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			return &oauth2.Token{AccessToken: "x", RefreshToken: "r", Expiry: time.Now().Add(-time.Minute)}, nil
		}}
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "t1", got.AccessToken, "Token returns a token that has not expired")
	})
}

// A token that comes into use during a login is for those who wait for the login.
func TestSetDuringALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Login: func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		go func() { time.Sleep(time.Second); _ = src.Set(old()) }()
		start := time.Now()
		_, err := src.Token()
		require.NoError(t, err, "after %v", time.Since(start))
	})
}

// A login that was given up by all who waited says nothing to those who come later.
func TestLoginThatSomebodyElseGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Login: func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
			select {
			case <-time.After(time.Minute):
				return old(), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _ = src.Obtain(ctx, TokenRequest{})
		time.Sleep(time.Second)
		_, err := src.Token()
		require.NoError(t, err, "whose context has no end")
	})
}

// A listener that waits for the token of which it is told holds up nobody for ever.
func TestListenerThatWantsTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Fetch: (&issuer{}).fetch}
		ctx := withListener(context.Background(), func(_ context.Context, e Event) {
			if e.Kind == EventRefreshed {
				_, _ = src.Token()
			}
		})
		go func() { _, _ = src.Obtain(ctx, TokenRequest{}) }()
		time.Sleep(2 * time.Minute)
		limited, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := src.Obtain(limited, TokenRequest{}) // anybody
		require.NoError(t, err)
	})
}

// What a refresh brings that was under way at a Logout is revoked.
func TestLogoutDuringARefreshRevokesWhatComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		revoked := make(chan string, 3)
		src := &TokenSource{Fetch: (&issuer{delay: time.Second}).fetch, Initial: old(), Revoke: func(_ context.Context, t *oauth2.Token) error {
			revoked <- t.RefreshToken
			return nil
		}}
		refreshing(src)
		require.NoError(t, src.Logout(t.Context()))
		time.Sleep(time.Minute)
		require.Equal(t, "refresh-0", <-revoked)
		require.Equal(t, "refresh-1", <-revoked)
		require.Empty(t, revoked)
	})
}

// A Fetch that calls Logout, which would wait for it, gets an error at once.
func TestFetchThatCallsLogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took time.Duration
		src := &TokenSource{Store: newSharedStore(&oauth2.Token{RefreshToken: "r"})}
		src.Fetch = func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
			start := time.Now()
			_ = src.Logout(ctx)
			took = time.Since(start)
			return nil, ErrLoginRequired
		}
		_, _ = src.Token()
		time.Sleep(time.Hour)
		require.Zero(t, took)
	})
}

// An error of a Login that has the token in its text is not shown.
func TestErrorOfALoginKeepsTheToken(t *testing.T) {
	src := &TokenSource{Initial: &oauth2.Token{AccessToken: "s3cret"}, Login: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
		return nil, fmt.Errorf("cannot replace %s", r.Previous.AccessToken)
	}}
	k, _ := src.Token()
	_, err := src.Refresh(t.Context(), k)
	require.NotContains(t, err.Error(), "s3cret") // a Fetch with that text is kept quiet
}

// A login may bring a refresh token alone, as Set may.
func TestLoginWithARefreshTokenOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			if grantOf(r.Previous) == "" {
				return nil, ErrLoginRequired
			}
			return anyToken(1, r)
		}, Login: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			return &oauth2.Token{RefreshToken: "r"}, nil
		}}
		_, err := src.Token()
		require.NoError(t, err, "used as by Set, which takes this")
	})
}
