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

// Somebody has logged in, and the program is ended before that is saved: Wait has it saved. Who waits no longer is told why.
func TestWaitForALoginThatIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore(nil)
		p := &person{takes: time.Second}
		src := &TokenSource{Store: store, Login: p.login}
		go store.Update(t.Context(), func(context.Context, *Record, func(context.Context) error) (*Record, error) {
			time.Sleep(10 * time.Second) // the refresh of another process
			return nil, nil
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // as by Ctrl-C
		defer cancel()
		_, err := src.NewLogin(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, src.Wait(t.Context()))
		require.Equal(t, "login-1", store.get().AccessToken)
	})
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore(nil)
		store.lock <- struct{}{} // for ever
		src := &TokenSource{Store: store}
		require.ErrorIs(t, src.Set(login("new")), ErrNotSaved)
		cause := errors.New("the program ends")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		err := src.Wait(ctx)
		require.ErrorIs(t, err, cause)
		require.ErrorIs(t, err, ErrNotSaved)
		<-store.lock
		time.Sleep(time.Hour)
	})
}
