package authretry

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

func login(name string) *oauth2.Token {
	return &oauth2.Token{AccessToken: name, RefreshToken: "refresh-" + name, Expiry: time.Now().Add(time.Hour)}
}

// expiredLogin is one whose access token is of no use any more.
func expiredLogin(name string) *oauth2.Token {
	return &oauth2.Token{AccessToken: name, RefreshToken: "refresh-" + name, Expiry: time.Now().Add(-time.Hour)}
}

// Set is told that the login was not saved, and it was. What another process makes of it meanwhile is not overwritten, and
// this one goes on with that.
func TestSetLeavesWhatAnotherProcessMadeOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "refresh-new"}
		s := newSharedStore(login("old"))
		ours := &TokenSource{Fetch: i.fetch, Store: unheardStore{s, new(sync.Once)}}
		theirs := &TokenSource{Fetch: i.fetch, Store: s}
		require.Error(t, ours.Set(login("new")))
		require.Equal(t, "refresh-new", s.get().RefreshToken)
		_, err := theirs.Refresh(t.Context(), login("new"))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, "r1", s.get().RefreshToken)
		got, err := ours.Refresh(t.Context(), login("new"))
		require.NoError(t, err)
		require.Equal(t, "a1", got.AccessToken)
		require.Empty(t, i.reused)
	})
}

// The same, if this process needs another token before it has looked at the store again.
func TestSetGoesOnWithWhatAnotherProcessMadeOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "refresh-new"}
		s := newSharedStore(login("old"))
		ours := &TokenSource{Fetch: i.fetch, Store: unheardStore{s, new(sync.Once)}}
		require.Error(t, ours.Set(login("new")))
		_, err := (&TokenSource{Fetch: i.fetch, Store: s}).Refresh(t.Context(), login("new"))
		require.NoError(t, err)
		got, err := ours.Refresh(t.Context(), login("new"))
		require.NoError(t, err)
		require.Equal(t, "a1", got.AccessToken)
		require.Empty(t, i.reused)
	})
}

// A login that was really not saved replaces the one before, also if that was refreshed meanwhile; and so does what has come
// of it.
func TestSetReplacesWhatCameOfTheLoginBefore(t *testing.T) {
	for name, refreshed := range map[string]bool{"itself": false, "its successor": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := &rotatingIssuer{valid: "refresh-new"}
				s := newSharedStore(login("old"))
				s.failSave = errors.New("disk full")
				ours := &TokenSource{Fetch: i.fetch, Store: s}
				require.Error(t, ours.Set(login("new")))
				want := "refresh-new"
				if refreshed {
					_, err := ours.Refresh(t.Context(), login("new"))
					require.NoError(t, err)
					want = "r1"
				}
				s.put(login("old-1"))
				time.Sleep(time.Minute)
				s.put(login("old-2"))
				s.change(func(s *sharedStore) { s.failSave = nil })
				time.Sleep(time.Minute)
				require.Equal(t, want, s.get().RefreshToken)
			})
		})
	}
}

// A login that could not be saved does not replace a later one.
func TestSetLeavesALaterLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSharedStore(login("old"))
		s.failSave = errors.New("disk full")
		ours := &TokenSource{Store: s}
		require.Error(t, ours.Set(login("new")))
		s.change(func(s *sharedStore) { s.failSave = nil })
		require.NoError(t, (&TokenSource{Store: s}).Set(login("newer")))
		time.Sleep(time.Minute)
		require.Equal(t, "newer", s.get().AccessToken)
	})
}

// Set is told that the login was not saved, and it was. If it is ended by another process, it is not revived, whatever there
// was before; and this process notices as soon as it looks.
func TestSetDoesNotReviveALoginThatWasEnded(t *testing.T) {
	for name, before := range map[string]*Record{"nothing": nil, "a login": {Token: login("old")}, "the end of one": {LoggedOut: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSharedStore(nil)
				s.putRecord(before)
				ours := &TokenSource{Store: unheardStore{s, new(sync.Once)}}
				require.Error(t, ours.Set(login("new")))
				require.NoError(t, (&TokenSource{Store: s}).Logout(t.Context()))
				time.Sleep(time.Minute)
				require.True(t, s.record().LoggedOut)
				_, err := ours.Token()
				require.ErrorIs(t, err, ErrLoginRequired)
			})
		})
	}
}

// A process that was told to log out does not save what it had not saved yet, even if that was about to happen.
func TestNothingIsSavedAfterLogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSharedStore(login("old"))
		s.failLock = errors.New("busy")
		src := &TokenSource{Store: s}
		require.Error(t, src.Set(login("new")))
		s.change(func(s *sharedStore) { s.failLock = nil })
		s.lock <- struct{}{}
		done := make(chan error)
		go func() { done <- src.Logout(context.Background()) }()
		synctest.Wait()
		time.Sleep(time.Second) // the saving waits, too
		<-s.lock
		require.NoError(t, <-done)
		time.Sleep(time.Minute)
		require.True(t, s.record().LoggedOut)
	})
}

// A login that was ended while OnToken is shown it does not come into use, if this process has seen that.
func TestSetOfALoginThatIsEndedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSharedStore(nil)
		src := &TokenSource{Store: s, OnToken: func(*oauth2.Token) { time.Sleep(time.Second) }}
		done := make(chan error)
		go func() { done <- src.Set(login("new")) }()
		synctest.Wait()
		require.NoError(t, (&TokenSource{Store: s}).Logout(t.Context()))
		_, err := src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
		require.NoError(t, <-done)
		_, err = src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
	})
}

// A token endpoint that refuses the refresh tokens of some logins, and counts.
type refusingIssuer struct {
	refuses map[string]bool
	sent    []string
}

func (i *refusingIssuer) fetch(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
	grant := grantOf(r.Previous)
	i.sent = append(i.sent, grant)
	if i.refuses[grant] {
		return nil, refusal(http.StatusBadRequest, "invalid_grant")
	}
	return expiredLogin(grant + "-next"), nil
}

// While OnToken is shown a login, a refresh finds it in the Store, and it is refused. It is not sent again when it is in use.
func TestRefusedWhileSetIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &refusingIssuer{refuses: map[string]bool{"refresh-new": true}}
		s := newSharedStore(nil)
		src := &TokenSource{Fetch: i.fetch, Store: s, OnToken: func(*oauth2.Token) { time.Sleep(time.Second) }}
		done := make(chan error)
		go func() { done <- src.Set(expiredLogin("new")) }()
		synctest.Wait()
		_, err := src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
		require.NoError(t, <-done)
		_, err = src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
		require.Equal(t, []string{"refresh-new"}, i.sent)
		// But whoever sets it again has it tried again; as has another process that was luckier.
		require.NoError(t, src.Set(expiredLogin("new")))
		_, err = src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
		require.Len(t, i.sent, 2)
		s.put(&oauth2.Token{AccessToken: "lucky", RefreshToken: "refresh-new", Expiry: time.Now().Add(2 * time.Minute)})
		time.Sleep(time.Minute)
		require.Equal(t, "lucky", tokenOf(t, src))
		time.Sleep(2 * time.Minute)
		_, err = src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
		require.Len(t, i.sent, 3)
	})
}

// While OnToken is shown a login, a refresh finds it in the Store, and spends it, but what comes of it cannot be saved. Whoever
// needs a token when the login is in use gets that; the refresh token is not sent again.
func TestSpentWhileSetIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "refresh-new"}
		s := newSharedStore(nil)
		src := &TokenSource{Fetch: i.fetch, Store: s, OnToken: func(*oauth2.Token) { time.Sleep(time.Second) }}
		all := sync.WaitGroup{}
		all.Go(func() { _ = src.Set(expiredLogin("new")) })
		synctest.Wait()
		s.change(func(s *sharedStore) { s.failSave = errors.New("disk full") })
		for range 3 {
			all.Go(func() {
				if got, err := src.Token(); err != nil || got.AccessToken != "a1" {
					t.Errorf("%v %v", got, err)
				}
			})
		}
		all.Wait()
		require.Empty(t, i.reused)
		require.Equal(t, 1, i.n)
		s.change(func(s *sharedStore) { s.failSave = nil })
		time.Sleep(time.Minute)
		require.Equal(t, "r1", s.get().RefreshToken, "whoever has found it in memory has not saved it")
	})
}

// What the token endpoint has given for a refresh token is not in use yet when the next refresh comes, and is of no use to that.
// It fails, and does not send the refresh token again.
func TestSuccessorOnItsWayThatIsOfNoUse(t *testing.T) {
	i := &issuer{}
	src := &TokenSource{Fetch: i.fetch, Initial: expiredLogin("old")}
	src.useInitial()
	k := src.newKnownToken(expiredLogin("next"))
	k.from = "refresh-old"
	src.spend(k)
	_, err := src.Token()
	require.ErrorIs(t, err, errComing)
	require.Zero(t, i.calls.Load())
}

// What a refresh has obtained for a login that was replaced meanwhile is gone. Who sets that login again has its refresh token
// sent again.
func TestSuccessorThatWasNotUsedIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{delay: time.Second}
		src := &TokenSource{Fetch: i.fetch, Initial: expiredLogin("old")}
		done := make(chan error)
		go func() {
			_, err := src.Token()
			done <- err
		}()
		synctest.Wait()
		require.NoError(t, src.Set(login("other")))
		require.NoError(t, <-done)
		time.Sleep(time.Minute)
		require.Equal(t, "other", tokenOf(t, src))
		require.NoError(t, src.Set(expiredLogin("old")))
		require.Equal(t, "access-2", tokenOf(t, src))
		require.Equal(t, []string{"refresh-old", "refresh-old"}, i.previous)
	})
}

// A token whose login turns out to have been ended while OnToken is shown it does not come into use.
func TestLoginThatIsEndedBeforeItsTokenIsInUse(t *testing.T) {
	s := newSharedStore(nil)
	s.putRecord(&Record{Token: expiredLogin("old"), Login: "l"})
	i := &rotatingIssuer{valid: "refresh-old"}
	src := &TokenSource{Fetch: i.fetch, Store: s}
	src.OnToken = func(*oauth2.Token) { src.noteLook(&Record{LoggedOut: true, Login: "l"}) }
	_, err := src.Token()
	require.ErrorIs(t, err, errLoggedOut)
	require.Nil(t, src.current.Load())
}

// unsavedBeforeALogout returns a source with a token that could not be saved, before another process has ended the login.
func unsavedBeforeALogout(t *testing.T) (src *TokenSource, got *oauth2.Token) {
	i := &rotatingIssuer{valid: "refresh-old"}
	s := newSharedStore(login("old"))
	src = &TokenSource{Fetch: i.fetch, Store: s}
	require.Equal(t, "old", tokenOf(t, src))
	s.change(func(s *sharedStore) { s.failSave = errors.New("disk full") })
	got, err := src.Refresh(t.Context(), login("old"))
	require.NoError(t, err)
	s.change(func(s *sharedStore) { s.failSave = nil })
	require.NoError(t, (&TokenSource{Store: s}).Logout(t.Context()))
	return src, got
}

// A refresh that finds that the login was ended ends the use of its token, also if that is not saved yet.
func TestRefreshOfAnUnsavedTokenFindsALogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, got := unsavedBeforeALogout(t)
		_, err := src.Refresh(t.Context(), got)
		require.ErrorIs(t, err, ErrLoginRequired)
		_, err = src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
	})
}

// A refresh of a login that was replaced meanwhile finds that the new one was ended, too. That is not used any more either.
func TestLateRefreshFindsALogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &lateStore{sharedStore: newSharedStore(login("old"))}
		src := &TokenSource{Fetch: (&rotatingIssuer{}).fetch, Store: s}
		require.Equal(t, "old", tokenOf(t, src))
		s.delay.Store(int64(time.Second))
		go src.Refresh(context.Background(), login("old"))
		synctest.Wait()
		s.delay.Store(0)
		require.NoError(t, src.Set(login("new")))
		require.NoError(t, (&TokenSource{Store: s}).Logout(t.Context()))
		require.Equal(t, "new", tokenOf(t, src), "nobody has looked")
		time.Sleep(time.Second)
		synctest.Wait()
		_, err := src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
	})
}

// A lateStore takes its time before it is read.
type lateStore struct {
	*sharedStore
	delay atomic.Int64
}

func (s *lateStore) Load(ctx context.Context) (*Record, error) {
	time.Sleep(time.Duration(s.delay.Load()))
	return s.sharedStore.Load(ctx)
}

// While OnToken is shown a login, another process refreshes it, and a refresh here goes on from there. What that obtains comes
// into use.
func TestRefreshedElsewhereWhileSetIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "refresh-new"}
		s := newSharedStore(nil)
		src := &TokenSource{Fetch: i.fetch, Store: s, OnToken: func(*oauth2.Token) { time.Sleep(time.Second) }}
		all := sync.WaitGroup{}
		all.Go(func() { _ = src.Set(expiredLogin("new")) })
		synctest.Wait()
		_, err := (&TokenSource{Fetch: i.fetch, Store: s}).Token()
		require.NoError(t, err)
		first := *s.get()
		first.Expiry = time.Now()
		s.putRecord(&Record{Token: &first, Login: s.record().Login})
		s.change(func(s *sharedStore) { s.failSave = errors.New("disk full") })
		for range 3 {
			all.Go(func() {
				if got, err := src.Token(); err != nil || got.AccessToken != "a2" {
					t.Errorf("%v %v", got, err)
				}
			})
		}
		all.Wait()
		require.Empty(t, i.reused)
	})
}

// A process that finds that the login was ended, when it comes to save its token, does not go on with it.
func TestLogoutThatIsFoundWhenATokenIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, _ := unsavedBeforeALogout(t)
		time.Sleep(time.Minute)
		_, err := src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
	})
}

// Of two logins that come at once, be it by two processes, the one that the Store got last comes into use, and what a refresh
// has made of it meanwhile.
func TestTwoSetsAtOnce(t *testing.T) {
	for name, elsewhere := range map[string]bool{"one process": false, "two": true} {
		t.Run(name, func(t *testing.T) { testTwoSetsAtOnce(t, elsewhere) })
	}
}

func testTwoSetsAtOnce(t *testing.T, elsewhere bool) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "refresh-second"}
		s := newSharedStore(nil)
		src := &TokenSource{Fetch: i.fetch, Store: s, OnToken: func(*oauth2.Token) { time.Sleep(time.Second) }}
		all := sync.WaitGroup{}
		all.Go(func() { _ = src.Set(login("first")) })
		synctest.Wait()
		other := src
		if elsewhere {
			other = &TokenSource{Store: s}
		}
		all.Go(func() { _ = other.Set(expiredLogin("second")) })
		synctest.Wait()
		s.change(func(s *sharedStore) { s.failSave = errors.New("disk full") })
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "a1", got.AccessToken)
		all.Wait()
		require.Equal(t, "a1", tokenOf(t, src))
		s.change(func(s *sharedStore) { s.failSave = nil })
		time.Sleep(time.Minute)
		require.Equal(t, "r1", s.get().RefreshToken)
		require.Empty(t, i.reused)
	})
}

// A login that was ended is past, also if it has yet to be saved.
func TestLoginThatWasEndedIsPast(t *testing.T) {
	src := &TokenSource{Store: newSharedStore(nil)}
	k, other := src.newLogin(login("ended")), src.newLogin(login("other"))
	src.noteLook(&Record{LoggedOut: true, Login: k.login})
	require.True(t, src.isPast(k))
	require.False(t, src.isPast(other))
}

// That a login was ended waits for who is being shown a token: OnToken sees what comes of it last.
func TestEndOfALoginWaitsForOnToken(t *testing.T) {
	for name, note := range map[string]func(src *TokenSource){
		"ended":    func(src *TokenSource) { src.endedElsewhere(nil) },
		"replaced": func(src *TokenSource) { src.replacedElsewhere(src.current.Load()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &TokenSource{Initial: old()}
				require.Equal(t, "old", tokenOf(t, src))
				src.publishing.Lock()
				go note(src)
				synctest.Wait()
				require.NotNil(t, src.current.Load())
				src.publishing.Unlock()
				synctest.Wait()
				require.Nil(t, src.current.Load())
			})
		})
	}
}

// A login that is found to be ended when its token is saved at last is past: nothing that comes of it is used any more.
func TestEndThatIsFoundWhenATokenIsSavedIsNoted(t *testing.T) {
	s := newSharedStore(nil)
	src := &TokenSource{Store: s}
	k := perhapsSaved(t, src, s, "a")
	s.putRecord(&Record{LoggedOut: true, Login: k.login})
	require.False(t, src.isPast(k))
	require.NoError(t, src.save(t.Context(), k, false))
	require.True(t, src.isPast(k))
	require.True(t, s.record().LoggedOut)
}

// What could not be saved at first is not saved over what others have put there meanwhile, a later login or a successor, and
// that is used from then on: at once, not only when the token is due.
func TestWhatIsFoundWhenATokenIsSavedIsUsed(t *testing.T) {
	for name, found := range map[string]func(s *sharedStore, k *knownToken){
		"a later login": func(s *sharedStore, k *knownToken) { s.putRecord(&Record{Token: login("found"), Login: "later"}) },
		"a successor":   func(s *sharedStore, k *knownToken) { s.putRecord(&Record{Token: login("found"), Login: k.login}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSharedStore(nil)
				src := &TokenSource{Store: s}
				s.change(func(s *sharedStore) { s.failSave = errors.New("no answer") })
				require.ErrorIs(t, src.Set(login("mine")), ErrNotSaved)
				require.Equal(t, "mine", tokenOf(t, src))
				s.change(func(s *sharedStore) { s.failSave = nil })
				found(s, src.current.Load())
				time.Sleep(time.Second)
				require.Equal(t, "found", tokenOf(t, src))
				require.Equal(t, "found", s.get().AccessToken)
			})
		})
	}
}

// What the Store has is older than a token that has yet to be saved, but only as long as that is in use.
func TestStoreIsNotOlderThanWhatWasReplaced(t *testing.T) {
	src := &TokenSource{Store: newSharedStore(nil)}
	first, second := src.newLogin(login("first")), src.newLogin(login("second"))
	src.replace(first)
	run := &refreshRun{base: first, ctx: newRefreshContext(t.Context(), src)}
	ended := &Record{LoggedOut: true, Login: second.login}
	require.True(t, run.isOld(ended))
	src.replace(second)
	require.False(t, run.isOld(ended))
}
