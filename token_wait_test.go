package authretry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A program that waits before it ends does not take a spent refresh token's successor with it.
func TestWaitForARefreshInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "r0", delay: time.Second}
		store := newSharedStore(&oauth2.Token{AccessToken: "a0", RefreshToken: "r0", Expiry: time.Now().Add(time.Hour)})
		src := &TokenSource{Fetch: i.fetch, Store: store}
		require.NoError(t, src.Wait(t.Context()), "there is nothing to wait for")
		require.Equal(t, "a0", tokenOf(t, src))
		require.NoError(t, src.Refused(t.Context(), &oauth2.Token{AccessToken: "a0"}, nil))
		require.NoError(t, src.Wait(t.Context()))
		require.Equal(t, "r1", store.get().RefreshToken)

		// It waits no longer than its caller likes, and ends nothing.
		go src.Refresh(t.Context(), nil)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		require.ErrorIs(t, src.Wait(ctx), context.DeadlineExceeded)
		require.NoError(t, src.Wait(t.Context()))
		require.Equal(t, "r2", store.get().RefreshToken)
		require.Nil(t, src.idle)
		require.Empty(t, i.reused)
	})
}

// What the Store has not got yet is saved at once, or the error says so.
func TestWaitSaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore(nil)
		store.change(func(s *sharedStore) { s.failSave = errors.New("disk full") })
		src := &TokenSource{Store: store}
		require.ErrorIs(t, src.Set(login("new")), ErrNotSaved)
		time.Sleep(time.Minute) // the next attempt of its own is far
		saves := store.saves.Load()
		err := src.Wait(t.Context())
		require.ErrorIs(t, err, ErrNotSaved)
		require.ErrorContains(t, err, "disk full")
		store.change(func(s *sharedStore) { s.failSave = nil })
		require.NoError(t, src.Wait(t.Context()))
		require.Equal(t, "new", store.get().AccessToken)
		require.Equal(t, saves+2, store.saves.Load())
	})
}

// A callback that waits for the very refresh that has called it would wait for ever.
func TestWaitWithinARefresh(t *testing.T) {
	var src *TokenSource
	src = &TokenSource{Fetch: func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) { return nil, src.Wait(ctx) }}
	_, err := src.Token()
	require.ErrorIs(t, err, errRecursion)
}

// NewLogin asks whatever there is: a token that looks good, one that was declined a moment ago, a login that is dead.
func TestNewLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{takes: time.Second}
		store := newSharedStore(login("dead"))
		src := &TokenSource{Store: store, Login: p.login}
		require.Equal(t, "dead", tokenOf(t, src))
		got, err := src.NewLogin(t.Context())
		require.NoError(t, err)
		require.Equal(t, "login-1", got.AccessToken)
		require.Equal(t, "login-1", store.get().AccessToken)
		require.Equal(t, "login-1", tokenOf(t, src))
		require.Equal(t, "dead", p.last.Previous.AccessToken)

		p.err = errors.New("declined")
		_, err = src.NewLogin(t.Context())
		require.ErrorIs(t, err, p.err)
		require.Equal(t, "login-1", tokenOf(t, src), "what there was stays")
		p.err = nil
		got, err = src.NewLogin(t.Context())
		require.NoError(t, err)
		require.Equal(t, "login-3", got.AccessToken)

		// Two who want one share it; whoever has a token need not wait.
		results := make(chan string, 2)
		for range 2 {
			go func() {
				got, err := src.NewLogin(t.Context())
				if err != nil {
					results <- err.Error()
					return
				}
				results <- got.AccessToken
			}()
		}
		synctest.Wait()
		require.Equal(t, "login-3", tokenOf(t, src))
		require.Equal(t, "login-4", <-results)
		require.Equal(t, "login-4", <-results)
		require.EqualValues(t, 4, p.asked.Load())

		// It ends when nobody waits any more.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		_, err = src.NewLogin(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		require.EqualValues(t, 1, p.gaveUp.Load())
		require.Equal(t, "login-4", tokenOf(t, src))
	})
}

// What Login returns may have to be refreshed first; and where there is no Login, nobody can be asked.
func TestNewLoginThatHasToBeRefreshed(t *testing.T) {
	i := &rotatingIssuer{valid: "r0"}
	src := &TokenSource{Fetch: i.fetch, Login: func(context.Context, TokenRequest) (*oauth2.Token, error) {
		return &oauth2.Token{RefreshToken: "r0"}, nil
	}}
	got, err := src.NewLogin(t.Context())
	require.NoError(t, err)
	require.Equal(t, "a1", got.AccessToken)
	_, err = (&TokenSource{Initial: login("a")}).NewLogin(t.Context())
	require.ErrorIs(t, err, ErrLoginRequired)
	src.Login = func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) { return src.NewLogin(ctx) }
	_, err = src.NewLogin(t.Context())
	require.ErrorIs(t, err, errRecursion)
}
