package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

func TestLogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour}
		store := newSharedStore(nil)
		var revoked []string
		open := func() *TokenSource {
			return &TokenSource{Fetch: i.fetch, Store: store, Initial: old(), MinRefreshInterval: -1,
				Revoke: func(_ context.Context, t *oauth2.Token) error { revoked = append(revoked, t.RefreshToken); return nil }}
		}
		here, there := open(), open()
		require.Equal(t, "old", tokenOf(t, here))
		require.Equal(t, "old", tokenOf(t, there))
		got, err := here.Refresh(t.Context(), old())
		require.NoError(t, err)
		require.NoError(t, here.Logout(t.Context()))
		require.Equal(t, []string{got.RefreshToken}, revoked, "the newest one")
		require.True(t, store.record().LoggedOut)
		for range 3 {
			_, err = here.Token()
			require.ErrorIs(t, err, ErrLoginRequired)
			time.Sleep(time.Minute)
		}
		// The other process notices at its next look, and does not bring it back, neither from memory nor from Initial.
		require.Equal(t, "old", tokenOf(t, there))
		_, err = there.Refresh(t.Context(), old())
		require.ErrorIs(t, err, ErrLoginRequired)
		_, err = there.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
		_, err = open().Token()
		require.ErrorIs(t, err, ErrLoginRequired)
		require.True(t, store.record().LoggedOut)
		require.EqualValues(t, 1, i.calls.Load())

		require.NoError(t, here.Set(&oauth2.Token{AccessToken: "again", RefreshToken: "r"}))
		time.Sleep(time.Minute)
		require.Equal(t, "again", tokenOf(t, there))
		require.Equal(t, "again", tokenOf(t, open()))
	})
}

func TestLogoutThatFails(t *testing.T) {
	store := newSharedStore(old())
	store.failSave = errors.New("disk full")
	src := &TokenSource{Store: store, Revoke: func(context.Context, *oauth2.Token) error { return errors.New("revocation is down, refresh-0") }}
	require.Equal(t, "old", tokenOf(t, src))
	err := src.Logout(t.Context())
	require.ErrorIs(t, err, store.failSave)
	require.ErrorContains(t, err, "revoked")
	require.NotErrorIs(t, err, ErrNotRevoked, "it has not ended for the others")
	require.NotContains(t, err.Error(), "refresh-0")
}

// A token that could not be revoked is tried again by the next Logout, until it is revoked, and named by the endpoint that was asked.
func TestRevokeThatFailedIsRepeated(t *testing.T) {
	down := true
	var asked []string
	src := &TokenSource{Initial: old(), Revoke: func(_ context.Context, t *oauth2.Token) error {
		asked = append(asked, t.RefreshToken)
		if down {
			return &oauth2.RetrieveError{Response: &http.Response{StatusCode: 503}, ErrorCode: "temporarily_unavailable"}
		}
		return nil
	}}
	logout := func() error { asked = nil; return src.Logout(t.Context()) }
	err := logout()
	require.ErrorIs(t, err, ErrNotRevoked)
	require.ErrorContains(t, err, `the revocation endpoint answered 503 "temporarily_unavailable"`)
	require.NotContains(t, err.Error(), "token endpoint")
	_, err = src.Token()
	require.ErrorIs(t, err, ErrLoginRequired, "it has ended all the same")

	require.NoError(t, src.Set(&oauth2.Token{AccessToken: "a", RefreshToken: "refresh-1"}))
	require.ErrorIs(t, logout(), ErrNotRevoked)
	require.Equal(t, []string{"refresh-1", "refresh-0"}, asked)
	down = false
	require.NoError(t, logout())
	require.Equal(t, []string{"refresh-1", "refresh-0"}, asked)
	require.NoError(t, logout())
	require.Empty(t, asked)

	down = true
	for i := range 2 * maxUnrevoked {
		require.NoError(t, src.Set(&oauth2.Token{AccessToken: "a", RefreshToken: fmt.Sprint("r", i)}))
		require.ErrorIs(t, logout(), ErrNotRevoked)
	}
	require.ErrorIs(t, logout(), ErrNotRevoked)
	require.Len(t, asked, maxUnrevoked)
	require.Equal(t, fmt.Sprint("r", 2*maxUnrevoked-1), asked[0], "the last ones")
}

// A logout while a refresh is under way: what the refresh brings is not put in its place.
func TestLogoutDuringARefresh(t *testing.T) {
	for _, hasStore := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			i := &issuer{delay: time.Second, lifetime: time.Hour}
			src := &TokenSource{Fetch: i.fetch, Initial: old()}
			store := newSharedStore(nil)
			if hasStore {
				src.Store = store
			}
			require.Equal(t, "old", tokenOf(t, src))
			var all sync.WaitGroup
			all.Go(func() { _, _ = src.Refresh(context.Background(), old()) })
			time.Sleep(100 * time.Millisecond)
			require.NoError(t, src.Logout(t.Context()))
			all.Wait()
			time.Sleep(time.Minute)
			_, err := src.Token()
			require.ErrorIs(t, err, ErrLoginRequired)
			if hasStore {
				require.True(t, store.record().LoggedOut)
			}
		})
	}
}

// The same where there was no token before, so that it looks as if nothing had happened meanwhile.
func TestLogoutDuringTheFirstFetch(t *testing.T) {
	for name, takes := range map[string]time.Duration{"in time": time.Second, "after FetchTimeout": 2 * time.Minute} {
		for _, lostLock := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, lock lost: %v", name, lostLock), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					src := &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
						time.Sleep(takes)
						return &oauth2.Token{AccessToken: "first", RefreshToken: "r"}, nil
					}}
					if lostLock { // so that the logout need not wait for the refresh
						src.Store = unlockedStore{newSharedStore(nil)}
					}
					var err error
					var waiting sync.WaitGroup
					waiting.Go(func() { _, err = src.Token() })
					time.Sleep(min(takes, time.Minute) - 100*time.Millisecond)
					require.NoError(t, src.Logout(t.Context()))
					waiting.Wait()
					require.Error(t, err)
					time.Sleep(time.Hour)
					_, err = src.Token()
					require.ErrorIs(t, err, ErrLoginRequired)
				})
			})
		}
	}
}

// Revoke is asked by the HTTP client that is for the token endpoint, and no longer than a refresh would take.
func TestRevokeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := &http.Client{}
		src := &TokenSource{Initial: old(), HTTPClient: own, FetchTimeout: time.Minute, Revoke: func(ctx context.Context, _ *oauth2.Token) error {
			if ctx.Value(oauth2.HTTPClient) != own {
				return errors.New("by another client")
			}
			<-ctx.Done()
			return ctx.Err()
		}}
		began := time.Now()
		require.ErrorIs(t, src.Logout(t.Context()), context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(began))
		ended, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		src.Initial, began = nil, time.Now()
		require.NoError(t, src.Set(old()))
		require.Error(t, src.Logout(ended))
		require.Equal(t, time.Second, time.Since(began))
	})
}

// A Store and Revoke hear for what cause the caller has given up, and that is what the error says.
func TestLogoutEndsWithItsContext(t *testing.T) {
	gone := errors.New("the user has closed the window")
	for _, hasStore := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			src := &TokenSource{Initial: old(), Revoke: func(ctx context.Context, _ *oauth2.Token) error {
				<-ctx.Done()
				return context.Cause(ctx)
			}}
			if hasStore {
				src.Store = awaitingStore{newSharedStore(nil)}
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(gone) })
			require.ErrorIs(t, src.Logout(ctx), gone)
		})
	}
}

type awaitingStore struct{ TokenStore } // for what never comes

func (awaitingStore) Update(ctx context.Context, _ func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// A login that has never been used is revoked all the same.
func TestLogoutRevokesInitial(t *testing.T) {
	for name, store := range map[string]TokenStore{"no Store": nil, "nothing in the Store": newSharedStore(nil)} {
		var revoked []string
		src := &TokenSource{Store: store, Initial: old(), Revoke: func(_ context.Context, t *oauth2.Token) error {
			revoked = append(revoked, t.RefreshToken)
			return nil
		}}
		require.NoError(t, src.Logout(t.Context()))
		require.Equal(t, []string{"refresh-0"}, revoked, name)
		_, err := src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
	}
}

// Logout ends and revokes the login that there is, whatever was there before it.
func TestLogoutEndsTheLoginInUse(t *testing.T) {
	var revoked []string
	revoke := func(_ context.Context, t *oauth2.Token) error { revoked = append(revoked, t.RefreshToken); return nil }
	src := &TokenSource{Fetch: new(issuer).fetch, Initial: old(), Revoke: revoke}
	_, err := src.Refresh(t.Context(), old())
	require.NoError(t, err)
	require.NoError(t, src.Logout(t.Context()))
	require.Equal(t, []string{"refresh-1"}, revoked)

	store := newSharedStore(nil)
	src = &TokenSource{Store: store}
	require.NoError(t, src.Set(login("a")))
	name := store.record().Login
	require.NotEmpty(t, name)
	store.putRecord(nil) // it has vanished
	require.NoError(t, src.Logout(t.Context()))
	require.Equal(t, &Record{LoggedOut: true, Login: name}, store.record())

	revoked = nil
	store = newSharedStore(login("a"))
	src = &TokenSource{Store: store, Revoke: revoke}
	require.Equal(t, "a", tokenOf(t, src))
	store.put(login("newer"))
	require.NoError(t, src.Logout(t.Context()))
	require.Equal(t, []string{login("newer").RefreshToken}, revoked, "that of another process")

	store = newSharedStore(login("of which nothing is known"))
	require.NoError(t, (&TokenSource{Store: store}).Logout(t.Context()))
	require.NotEmpty(t, store.record().Login, "it is not taken for an earlier one")
	ended := &Record{LoggedOut: true} // by a version that gave it no name
	store.putRecord(ended)
	require.NoError(t, (&TokenSource{Store: store}).Logout(t.Context()))
	require.Same(t, ended, store.record(), "it is not ended again")
}

// A login that could not be saved is revoked as well as the one that is saved.
func TestLogoutRevokesWhatIsNotSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var revoked []string
		store := newSharedStore(login("saved"))
		store.change(func(s *sharedStore) { s.failSave = errors.New("disk full") })
		src := &TokenSource{Store: store, Revoke: func(_ context.Context, t *oauth2.Token) error {
			revoked = append(revoked, t.AccessToken)
			return nil
		}}
		require.ErrorIs(t, src.Set(login("unsaved")), ErrNotSaved)
		store.change(func(s *sharedStore) { s.failSave = nil })
		require.NoError(t, src.Logout(t.Context()))
		require.Equal(t, []string{"saved", "unsaved"}, revoked)
		time.Sleep(time.Minute)
		require.True(t, store.record().LoggedOut, "nothing is saved after it")
	})
}

// What a refresh has put to use, and Logout has revoked, is not revoked once more as that refresh ends.
func TestLogoutAsARefreshEnds(t *testing.T) {
	src := &TokenSource{Revoke: func(context.Context, *oauth2.Token) error { panic("it has been revoked") }}
	k := src.newKnownToken(login("new"))
	run := &refreshRun{isOwn: true, done: make(chan struct{})}
	src.settle(run, k, nil)
	revoke := src.Revoke
	src.Revoke = nil
	require.NoError(t, src.Logout(t.Context()))
	src.Revoke = revoke
	src.revokeLate(run, k)
	require.Nil(t, src.used, "Revoke was not called")
}

// A Logout has forgotten the token before the store's lock is free again.
func TestLogoutForgetsUnderTheLock(t *testing.T) {
	store := newSharedStore(old())
	src := &TokenSource{Fetch: new(issuer).fetch, Store: store}
	require.Equal(t, "old", tokenOf(t, src))
	src.Store = lockWatch{store, func() { require.Nil(t, src.current.Load()) }}
	require.NoError(t, src.Logout(t.Context()))
}

// While OnToken looks at what a refresh has brought, the Store says that a later login was ended: what was brought is not used any more.
func TestEndIsSeenWhileOnTokenRuns(t *testing.T) {
	i := &issuer{lifetime: time.Hour}
	store := newSharedStore(nil)
	src := &TokenSource{Fetch: i.fetch, Store: store}
	require.NoError(t, src.Set(&oauth2.Token{AccessToken: "old", RefreshToken: "r", Expiry: time.Now().Add(-time.Hour)}))
	src.OnToken = func(*oauth2.Token) {
		store.putRecord(&Record{LoggedOut: true, Login: "later"})
		src.noteLook(&Record{LoggedOut: true, Login: "later"}) // as another goroutine does that has looked there
	}
	_, err := src.Token()
	require.ErrorIs(t, err, ErrLoginRequired)
	require.EqualValues(t, 1, i.calls.Load())
}

// As above, but it is an earlier login that was ended, and what was refreshed was not saved before: what was brought is in the
// Store, and is found there. The refresh token is not sent again.
func TestEndOfAnEarlierLoginIsSeenWhileOnTokenRuns(t *testing.T) {
	i := &rotatingIssuer{valid: "refresh-new"}
	store := newSharedStore(nil)
	store.putRecord(&Record{LoggedOut: true, Login: "earlier"})
	src := &TokenSource{Fetch: i.fetch, Store: store}
	store.change(func(s *sharedStore) { s.failLock = errors.New("it is taken") })
	require.ErrorIs(t, src.Set(expiredLogin("new")), ErrNotSaved)
	store.change(func(s *sharedStore) { s.failLock = nil })
	src.OnToken = func(*oauth2.Token) {
		src.OnToken = nil
		src.noteLook(&Record{LoggedOut: true, Login: "earlier"}) // as another goroutine does that has looked there before
	}
	require.Equal(t, "a1", tokenOf(t, src))
	require.Empty(t, i.reused)
}

// A login that was saved before a Logout, and is not in use yet, does not come into use after it.
func TestLogoutEndsALoginOnItsWay(t *testing.T) {
	src := &TokenSource{Store: newSharedStore(nil)}
	k := src.newLogin(login("saved"))
	require.NoError(t, src.save(t.Context(), k, false))
	require.NoError(t, src.Logout(t.Context()))
	src.replace(k)
	_, err := src.Token()
	require.ErrorIs(t, err, ErrLoginRequired)
}

// What is found in the Store before that has saved a logout is not in use after it.
func TestLogoutEndsWhatIsFoundMeanwhile(t *testing.T) {
	s := newSharedStore(login("old"))
	found := false
	store := &interruptedStore{sharedStore: s}
	src := &TokenSource{Store: store}
	store.beforeWrite = func() {
		store.beforeWrite = nil
		found = tokenOf(t, src) == "old"
	}
	require.NoError(t, src.Logout(t.Context()))
	require.True(t, found)
	_, err := src.Token()
	require.ErrorIs(t, err, ErrLoginRequired)
}

// Nor does it come into use after the logout, if it was found before.
func TestLogoutEndsWhatWasFoundBeforeIt(t *testing.T) {
	store := &interruptedStore{sharedStore: newSharedStore(login("old"))}
	src := &TokenSource{Store: store}
	k := src.newKnownToken(login("old"))
	store.beforeWrite = func() { k.looks = src.looks() }
	require.NoError(t, src.Logout(t.Context()))
	src.publish(&refreshRun{logouts: src.logouts, ctx: newRefreshContext(t.Context(), src), done: make(chan struct{})}, k, nil)
	require.Nil(t, src.current.Load())
}

// What Set was given before a Logout, and may not have saved, does not come into use while the Store is told; what it is given when
// the Store has been told stays.
func TestLogoutAndASetThatIsNotSaved(t *testing.T) {
	s := newSharedStore(login("old"))
	store := &interruptedStore{sharedStore: s}
	src := &TokenSource{Store: store}
	before := perhapsSaved(t, src, s, "before")
	store.beforeWrite = func() { src.replace(before) }
	require.NoError(t, src.Logout(t.Context()))
	store.beforeWrite = nil
	_, err := src.Token()
	require.ErrorIs(t, err, ErrLoginRequired)

	require.NoError(t, src.Set(login("again")))
	store.afterUpdate = func() {
		store.afterUpdate = nil
		s.failLock = errors.New("down")
		require.ErrorIs(t, src.Set(login("after")), ErrNotSaved)
	}
	require.NoError(t, src.Logout(t.Context()))
	require.Equal(t, "after", tokenOf(t, src))
}

// What a refresh has obtained before a Logout, and is not in use yet, is not what another refresh goes on with.
func TestLogoutForgetsWhatIsComing(t *testing.T) {
	src := &TokenSource{Store: newSharedStore(nil)}
	k := src.newKnownToken(login("new"))
	k.from = "refresh-old"
	src.spend(k)
	coming, err := src.newerFor(&refreshRun{}, &oauth2.Token{RefreshToken: "refresh-old"})
	require.NoError(t, err)
	require.Equal(t, k, coming)
	require.NoError(t, src.Logout(t.Context()))
	coming, err = src.newerFor(&refreshRun{}, &oauth2.Token{RefreshToken: "refresh-old"})
	require.NoError(t, err)
	require.Nil(t, coming)
}

// A token is noted once for the next Logout, however often it could not be revoked.
func TestTokenIsRevokedOncePerLogout(t *testing.T) {
	down, calls := errors.New("down"), 0
	src := &TokenSource{Store: unwritableStore{newSharedStore(login("a"))}, Revoke: func(context.Context, *oauth2.Token) error { calls++; return down }}
	for range 3 {
		calls = 0
		err := src.Logout(t.Context())
		require.ErrorIs(t, err, down)
		require.NotErrorIs(t, err, ErrNotRevoked, "the others go on")
		require.Equal(t, 1, calls)
		require.Equal(t, 1, strings.Count(err.Error(), "revoked"), err.Error())
	}
}

// An unwritableStore calls the function of an Update, and then fails.
type unwritableStore struct{ TokenStore }

func (s unwritableStore) Update(ctx context.Context, fn func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	current, _ := s.Load(ctx)
	_, _ = fn(ctx, current, func(context.Context) error { return nil })
	return errors.New("the disk is full")
}

// It is the last tokens with which Revoke is called again, also where a refresh has brought the very last one after the Logout.
func TestLastTokensAreRevokedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := true
		var revoked []string
		late := make(chan struct{})
		src := &TokenSource{
			Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { <-late; return login("late"), nil },
			Revoke: func(_ context.Context, t *oauth2.Token) error {
				if down {
					return errors.New("down")
				}
				revoked = append(revoked, t.AccessToken)
				return nil
			},
		}
		for i := range maxUnrevoked + 1 {
			require.NoError(t, src.Set(login(strconv.Itoa(i))))
			if i == maxUnrevoked {
				go src.Obtain(t.Context(), TokenRequest{Previous: login(strconv.Itoa(i))})
				synctest.Wait()
			}
			require.ErrorIs(t, src.Logout(t.Context()), ErrNotRevoked)
		}
		close(late)
		synctest.Wait()
		down = false
		require.NoError(t, src.Logout(t.Context()))
		require.Equal(t, []string{"late", "8", "7", "6", "5", "4", "3", "2"}, revoked)
		require.NoError(t, src.Logout(t.Context()))
		require.Len(t, revoked, maxUnrevoked)
	})
}

// An interruptedStore does something before it writes, and after Update.
type interruptedStore struct {
	*sharedStore
	beforeWrite, afterUpdate func()
}

func (s *interruptedStore) Update(ctx context.Context, fn func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	err := s.sharedStore.Update(ctx, func(ctx context.Context, current *Record, confirm func(context.Context) error) (*Record, error) {
		if s.beforeWrite != nil {
			defer s.beforeWrite()
		}
		return fn(ctx, current, confirm)
	})
	if s.afterUpdate != nil {
		s.afterUpdate()
	}
	return err
}

// While OnToken looks at a login, the Store says that one was ended, or has a later one. Then what Set has saved is not used, for somebody
// may have ended or replaced that; nor is what it was to replace. The next caller finds in the Store what there is.
func TestEndIsSeenWhileSetIsUnderWay(t *testing.T) {
	theirs := &Record{Token: login("theirs"), Login: "theirs"}
	for name, note := range map[string]func(src *TokenSource){ // as another goroutine does that has looked there
		"ended": func(src *TokenSource) { src.noteLook(&Record{LoggedOut: true, Login: "another"}) },
		"later": func(src *TokenSource) { src.noteLook(theirs) },
	} {
		t.Run(name, func(t *testing.T) {
			store := newSharedStore(nil)
			src := &TokenSource{Store: store}
			require.NoError(t, src.Set(login("first")))
			src.OnToken = func(*oauth2.Token) {
				src.OnToken = nil
				store.putRecord(theirs)
				note(src)
			}
			require.NoError(t, src.Set(login("second")))
			require.Equal(t, "theirs", tokenOf(t, src))
		})
	}
}
