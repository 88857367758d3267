package authretry

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// While OnToken is shown a login, another process saves a later one, or a successor, and a refresh finds that. What the refresh brings
// is used, though it cannot be saved, and not what Set was given: nor does that go into the Store again, whether it was saved or not.
func TestLaterTokenIsFoundWhileSetIsUnderWay(t *testing.T) {
	for name, failure := range map[string]error{"saved": nil, "perhaps saved": errors.New("no answer")} {
		for what, successor := range map[string]bool{"a later login": false, "a successor": true} {
			t.Run(name+", "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testLaterTokenIsFoundWhileSetIsUnderWay(t, failure, successor) })
			})
		}
	}
}

func testLaterTokenIsFoundWhileSetIsUnderWay(t *testing.T, failure error, successor bool) {
	i := &rotatingIssuer{valid: "refresh-theirs", delay: 2 * time.Second}
	s := newSharedStore(nil)
	src := &TokenSource{Fetch: i.fetch, Store: s, OnToken: func(*oauth2.Token) { time.Sleep(time.Second) }}
	all := sync.WaitGroup{}
	s.change(func(s *sharedStore) { s.failSave = failure })
	all.Go(func() { _ = src.Set(login("mine")) })
	synctest.Wait()
	theirs := &Record{Token: expiredLogin("theirs"), Login: "later"}
	if successor {
		theirs.Login = src.used.last.Login
	}
	s.putRecord(theirs)
	all.Go(func() {
		if got, err := src.Token(); err != nil || got.AccessToken != "a1" {
			t.Errorf("%v %v", got, err)
		}
	})
	synctest.Wait()
	s.change(func(s *sharedStore) { s.failSave = errors.New("disk full") })
	all.Wait()
	require.Equal(t, "a1", tokenOf(t, src))
	require.Empty(t, i.reused)
	s.change(func(s *sharedStore) { s.failSave = nil })
	time.Sleep(time.Minute)
	require.Equal(t, "a1", s.get().AccessToken)
}

// perhapsSaved returns a login that the Store was to get, and of which it has not said that it has.
func perhapsSaved(t *testing.T, src *TokenSource, s *sharedStore, name string) *knownToken {
	k := src.newLogin(login(name))
	s.failSave = errors.New("no answer")
	require.Error(t, src.save(t.Context(), k, false))
	s.failSave = nil
	return k
}

// What may have been saved does not replace what came later, though its refresh token was spent here: a later login, a successor.
func TestSpentTokenIsNotReplacedByAnEarlierOne(t *testing.T) {
	for name, successor := range map[string]bool{"a later login": false, "a successor": true} {
		t.Run(name, func(t *testing.T) {
			s := newSharedStore(nil)
			src := &TokenSource{Store: s}
			k := perhapsSaved(t, src, s, "mine")
			src.replace(k)
			theirs := &Record{Token: login("theirs"), Login: "later"}
			if successor {
				theirs.Login = k.login
			}
			s.putRecord(theirs)
			src.spend(&knownToken{token: login("new"), login: theirs.Login, from: "refresh-theirs"})
			require.NoError(t, src.save(t.Context(), k, true))
			require.Equal(t, "theirs", s.get().AccessToken)
			require.Nil(t, src.current.Load(), "the next caller asks the Store")
		})
	}
}

// What the Store has is older than a token that was obtained for that, or for what was spent after it, and for no other.
func TestTokenCameAfterWhatWasSpentForIt(t *testing.T) {
	src := &TokenSource{Store: newSharedStore(nil)}
	of := func(n string) *Record { return &Record{Token: login(n)} }
	at := func(n, from string) *knownToken { return &knownToken{token: login(n), from: from} }
	second, third := at("second", "refresh-first"), at("third", "refresh-second")
	require.False(t, src.cameAfter(second, of("first")), "nothing was spent")
	src.spend(second)
	src.spend(third)
	require.True(t, src.cameAfter(second, of("first")))
	require.True(t, src.cameAfter(third, of("first")))
	require.True(t, src.cameAfter(third, of("second")))
	require.False(t, src.cameAfter(second, of("second")), "it is itself")
	require.False(t, src.cameAfter(third, of("another")))
	require.False(t, src.cameAfter(at("first", ""), of("second")))
	require.False(t, src.cameAfter(third, nil))
	require.False(t, src.cameAfter(third, &Record{LoggedOut: true}))
}

// That a login was ended is also noted where that is overwritten, as a login that has yet to be saved is newer: what was found in the
// Store before, and is not in use yet, does not come into use any more.
func TestEndIsNotedThatIsOverwritten(t *testing.T) {
	for name, overwrite := range map[string]func(t *testing.T, src *TokenSource, s *sharedStore){
		"by Set": func(t *testing.T, src *TokenSource, s *sharedStore) {
			require.NoError(t, src.save(t.Context(), src.newLogin(login("new")), false))
		},
		"by a refresh": func(t *testing.T, src *TokenSource, s *sharedStore) {
			s.failLock = errors.New("it is taken")
			require.ErrorIs(t, src.Set(expiredLogin("new")), ErrNotSaved)
			s.failLock = nil
			require.Equal(t, "a1", tokenOf(t, src))
			src.endedElsewhere(nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := &rotatingIssuer{valid: "refresh-new"}
			s := newSharedStore(nil)
			src := &TokenSource{Fetch: i.fetch, Store: s}
			earlier := &refreshRun{ctx: newRefreshContext(t.Context(), src), done: make(chan struct{})}
			s.putRecord(&Record{LoggedOut: true, Login: "theirs"})
			overwrite(t, src, s)
			require.NotNil(t, s.get())
			found := src.newKnownToken(login("theirs"))
			src.publish(earlier, found, nil)
			require.Nil(t, src.current.Load())
		})
	}
}

// What was spent for a token that does not come into use any more, as the Store has said meanwhile that a login was ended, is not in use
// any more either: what was in use when the refresh began, or what Set has put there since.
func TestWhatWasSpentIsNotUsedAfterAnEnd(t *testing.T) {
	for name, set := range map[string]bool{"then": false, "since": true} {
		t.Run(name, func(t *testing.T) {
			src := &TokenSource{Store: newSharedStore(nil), Initial: login("old")}
			base := src.newKnownToken(src.Initial)
			src.current.Store(base)
			run := &refreshRun{base: base, ctx: newRefreshContext(t.Context(), src), done: make(chan struct{})}
			if set {
				run.base = nil
			}
			began := run.base
			k := src.newKnownToken(login("new"))
			k.from = grantOf(src.Initial)
			src.noteLook(&Record{LoggedOut: true, Login: "another"})
			src.publish(run, k, nil)
			require.Nil(t, src.current.Load())
			require.True(t, run.base == began, "the goroutine of a run whose time is up may be reading it")
			require.NoError(t, run.err, "whoever waits looks into the Store")
		})
	}
}

// Where the Store shows again what was spent for a token, it has lost that token, and has nothing later.
func TestStoreThatHasLostATokenHasNothingLater(t *testing.T) {
	src := &TokenSource{Store: newSharedStore(nil)}
	k := src.newKnownToken(login("new"))
	k.from = "refresh-old"
	src.spend(k)
	src.noteOwn(k)
	require.False(t, src.isPast(k))
	src.noteLook(&Record{Token: login("old")})
	require.False(t, src.isPast(k))
	src.noteLook(&Record{Token: login("another")})
	require.True(t, src.isPast(k))
}

// A refresh token that was spent is not sent again, though the Store has it still, as what came of it could not be saved, and a Logout
// has made this process forget that.
func TestSpentRefreshTokenIsNotSentAfterALogout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "refresh-old", delay: 2 * time.Second}
		s := newSharedStore(login("old"))
		src := &TokenSource{Fetch: i.fetch, Store: s}
		require.Equal(t, "old", tokenOf(t, src))
		src.Refused(t.Context(), login("old"), nil) // starts a refresh, for which nobody waits
		synctest.Wait()
		s.change(func(s *sharedStore) { s.failLock, s.failSave = errors.New("down"), errors.New("down") })
		require.Error(t, src.Logout(t.Context()))
		s.change(func(s *sharedStore) { s.failLock = nil })
		require.Equal(t, "old", tokenOf(t, src), "the Store has it still")
		time.Sleep(3 * time.Second) // what it was spent for arrives, and is not used
		s.change(func(s *sharedStore) { s.failSave = nil })
		_, err := src.Refresh(t.Context(), login("old"))
		require.ErrorIs(t, err, ErrLoginRequired)
		require.Empty(t, i.reused)
	})
}

// A refresh that is late has spent the refresh token of a later login, which the Store has still. Another refresh goes on with what is
// about to come into use, and does not send the refresh token of the login before.
func TestRefreshBesideALateOneOfALaterLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "refresh-theirs", delay: 25 * time.Second}
		s := newSharedStore(nil)
		src := &TokenSource{Fetch: i.fetch, Store: s, FetchTimeout: 10 * time.Second}
		require.NoError(t, src.Set(login("mine")))
		src.OnToken = func(*oauth2.Token) { time.Sleep(time.Second) }
		s.putRecord(&Record{Token: expiredLogin("theirs"), Login: "later"})
		s.change(func(s *sharedStore) { s.failSave = errors.New("disk full") })
		src.Refused(t.Context(), login("mine"), nil)
		time.Sleep(20 * time.Second)
		got, err := src.Refresh(t.Context(), login("mine"))
		require.NoError(t, err)
		require.Equal(t, "a1", got.AccessToken)
		require.Empty(t, i.reused)
		s.change(func(s *sharedStore) { s.failSave = nil })
		time.Sleep(time.Minute)
		require.Equal(t, "a1", s.get().AccessToken, "it is saved in the end")
	})
}

// A login that was ended, and is in the Store again, as that has forgotten its end, is used: whether Load finds it or a refresh, as it
// is or refreshed.
func TestLoginWhoseEndWasForgottenIsUsed(t *testing.T) {
	for name, failLoad := range map[string]error{"by Load": nil, "by Update": errors.New("busy")} {
		for what, token := range map[string]*oauth2.Token{"good": login("again"), "expired": expiredLogin("again")} {
			t.Run(name+", "+what, func(t *testing.T) {
				i := &rotatingIssuer{valid: "refresh-again"}
				s := newSharedStore(nil)
				src := &TokenSource{Store: s, Fetch: i.fetch}
				s.putRecord(&Record{LoggedOut: true, Login: "l"})
				s.failLoad = failLoad
				_, err := src.Token()
				require.ErrorIs(t, err, ErrLoginRequired)
				src.failure = failure{} // as after some time
				s.putRecord(&Record{Token: token, Login: "l"})
				require.Equal(t, map[string]string{"good": "again", "expired": "a1"}[what], tokenOf(t, src))
			})
		}
	}
}

// That Load says that a login was ended counts only if nothing else is known since it began.
func TestEndThatLoadHasSeenMayBeOver(t *testing.T) {
	src := &TokenSource{Store: newSharedStore(nil)}
	ended, later := &Record{LoggedOut: true, Login: "l"}, &Record{Token: login("later"), Login: "later"}
	looks := src.looks()
	src.noteLook(later)
	require.False(t, src.noteEnd(ended, looks))
	require.Equal(t, later, src.used.last)
	require.True(t, src.noteEnd(ended, src.looks()))
	require.Equal(t, ended, src.used.last)
}

// Initial comes into use though it cannot be saved, also where the Store has had something before, and has lost it.
func TestInitialIsUsedWhereTheStoreHasLostWhatItHad(t *testing.T) {
	s := newSharedStore(expiredLogin("lost"))
	src := &TokenSource{Initial: login("initial"), Store: s, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
		return nil, errors.New("down")
	}}
	_, err := src.Token()
	require.Error(t, err)
	src.failure = failure{} // as after some time
	s.putRecord(nil)
	s.failSave = errors.New("disk full")
	require.Equal(t, "initial", tokenOf(t, src))
}

// A refresh token that was refused for good is not sent again where the Store can only be read under its lock.
func TestRefusedRefreshTokenIsNotSentAgainUnderTheLock(t *testing.T) {
	s := newSharedStore(expiredLogin("old"))
	s.failLoad = errors.New("busy")
	calls := 0
	src := &TokenSource{Store: s, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
		calls++
		return nil, refusal(400, "invalid_grant")
	}}
	for range 3 {
		_, err := src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
		src.failure = failure{} // as after some time
	}
	require.Equal(t, 1, calls)
}

// What is being refreshed stays in use until that has ended, whatever is found to be past meanwhile; and nothing is sent for a token that
// is not in use any more.
func TestWhatIsBeingRefreshedStays(t *testing.T) {
	src := &TokenSource{Store: newSharedStore(nil)}
	base, k := src.newLogin(login("base")), src.newLogin(login("saved"))
	base.unsaved.Store(nil)
	src.current.Store(base)
	src.running = &refreshRun{base: base, ctx: newRefreshContext(t.Context(), src), done: make(chan struct{})}
	require.NoError(t, src.save(t.Context(), k, false))
	src.noteLook(&Record{Token: login("theirs"), Login: "theirs"})
	src.replace(k)
	require.Equal(t, base, src.current.Load())
	src.running = nil
	src.replace(k)
	require.Nil(t, src.current.Load(), "the next caller looks into the Store")

	_, err := src.newerFor(&refreshRun{base: base}, base.token)
	require.ErrorIs(t, err, errReplaced)
}

// Nor does a login that is past end what is later: what has yet to be saved, or is of the login that was found.
func TestLoginThatIsPastDoesNotEndALaterOne(t *testing.T) {
	theirs := &Record{Token: login("theirs"), Login: "theirs"}
	for name, change := range map[string]func(k *knownToken){
		"not saved":          func(k *knownToken) { k.unsaved.Store(&unsaved{}) },
		"of the login found": func(k *knownToken) { k.login = "theirs" },
	} {
		t.Run(name, func(t *testing.T) {
			src := &TokenSource{Store: newSharedStore(nil)}
			k := src.newLogin(login("saved"))
			later := src.newKnownToken(login("later"))
			change(later)
			src.current.Store(later)
			require.NoError(t, src.save(t.Context(), k, false))
			src.noteLook(theirs)
			src.replace(k)
			require.Equal(t, later, src.current.Load())
		})
	}
}

// What a refresh has obtained is what the Store was to get last.
func TestRefreshNotesWhatTheStoreIsToGet(t *testing.T) {
	i := &rotatingIssuer{valid: "refresh-old"}
	src := &TokenSource{Store: newSharedStore(expiredLogin("old")), Fetch: i.fetch}
	require.Equal(t, "a1", tokenOf(t, src))
	require.True(t, src.used.isOwn)
	require.Equal(t, "a1", src.used.last.Token.AccessToken)
}

// A store that shows what others save while a refresh waits for its lock says that a login was ended: that ends the refresh, unless
// something else was seen under the lock meanwhile.
func TestEndThatIsSeenWhileWaitingForTheLock(t *testing.T) {
	for name, isOver := range map[string]bool{"it is so": false, "it is over": true} {
		t.Run(name, func(t *testing.T) {
			s := newSharedStore(login("again"))
			s.failLoad = errors.New("busy")
			src := &TokenSource{}
			store := &showingStore{sharedStore: s, shown: &Record{LoggedOut: true, Login: "theirs"}}
			if isOver {
				store.before = func() { src.noteLook(&Record{Token: login("again"), Login: "later"}) }
			}
			src.Store = store
			got, err := src.Token()
			if isOver {
				require.NoError(t, err)
				require.Equal(t, "again", got.AccessToken)
			} else {
				require.ErrorIs(t, err, ErrLoginRequired)
			}
		})
	}
}

// A showingStore shows a Record before it gets the lock.
type showingStore struct {
	*sharedStore
	before func()
	shown  *Record
}

func (s *showingStore) UpdateUnless(ctx context.Context, enough func(*Record) bool, fn func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	if s.before != nil {
		s.before()
	}
	if enough(s.shown) {
		return nil
	}
	return s.Update(ctx, fn)
}

// What has been spent is not saved again: what came of it is about to take its place.
func TestWhatWasSpentIsNotSavedAgain(t *testing.T) {
	s := newSharedStore(nil)
	src := &TokenSource{Store: s}
	k := perhapsSaved(t, src, s, "mine")
	src.replace(k)
	src.spend(&knownToken{token: login("new"), login: k.login, from: "refresh-mine"})
	require.NoError(t, src.save(t.Context(), k, true))
	require.Nil(t, s.record())
}

// A refresh that has waited for the Store's lock sends nothing after a Logout.
func TestNothingIsSentAfterALogout(t *testing.T) {
	src := &TokenSource{Store: newSharedStore(nil), Fetch: (&rotatingIssuer{}).fetch}
	run := &refreshRun{ctx: newRefreshContext(t.Context(), src)}
	require.NoError(t, src.Logout(t.Context()))
	require.ErrorIs(t, src.fetch(t.Context(), run, login("old"), nil), errForgotten)
}

// A refresh token that the token endpoint gives anew is good, although it was spent before.
func TestRefreshTokenThatIsGivenAnewIsSent(t *testing.T) {
	var sent []string
	src := &TokenSource{Initial: login("a"), MinRefreshInterval: -1, Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
		sent = append(sent, r.Previous.RefreshToken)
		return login([]string{"b", "a"}[(len(sent)-1)%2]), nil
	}}
	for range 4 {
		_, err := src.Refresh(t.Context(), nil)
		require.NoError(t, err)
	}
	require.Equal(t, []string{"refresh-a", "refresh-b", "refresh-a", "refresh-b"}, sent)
}

// A refresh spends what the Store has, and its token cannot be saved at first. Meanwhile a run that began before has put something earlier to
// use, or what was in use was ended. The token is used, and saved later: nobody else has it. What is later than it stays.
func TestUnsavedTokenIsNotLostToAnEarlierOne(t *testing.T) {
	for name, c := range map[string]struct {
		current func(src *TokenSource, k *knownToken) *knownToken
		stays   bool
	}{
		"an earlier one": {func(src *TokenSource, k *knownToken) *knownToken {
			found := src.newKnownToken(login("found"))
			found.looks = k.looks - 1
			return found
		}, false},
		"a later one": {func(src *TokenSource, k *knownToken) *knownToken {
			found := src.newKnownToken(login("found"))
			found.looks = k.looks + 1
			return found
		}, true},
		"nothing": {func(*TokenSource, *knownToken) *knownToken { return nil }, false},
		"nothing, after a logout": {func(src *TokenSource, _ *knownToken) *knownToken {
			src.logouts++
			return nil
		}, true},
		"a login that is not saved": {func(src *TokenSource, _ *knownToken) *knownToken { return src.newLogin(login("mine")) }, true},
		"a later one, and it was saved": {func(src *TokenSource, k *knownToken) *knownToken {
			k.unsaved.Store(nil)
			return src.newKnownToken(login("found"))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSharedStore(login("theirs"))
				src := &TokenSource{Store: s, Fetch: (&rotatingIssuer{valid: "refresh-theirs"}).fetch}
				run := &refreshRun{base: src.newKnownToken(login("base")), ctx: newRefreshContext(t.Context(), src), done: make(chan struct{})}
				src.current.Store(run.base)
				src.noteLook(s.record())
				require.NoError(t, src.fetch(t.Context(), run, login("theirs"), s.record()))
				k := run.fetched.Load()
				current := c.current(src, k)
				src.current.Store(current)
				src.publish(run, k, nil)
				time.Sleep(time.Minute)
				if c.stays {
					require.True(t, src.current.Load() == current)
					require.Equal(t, "theirs", s.get().AccessToken)
				} else {
					require.True(t, src.current.Load() == k)
					require.Equal(t, "a1", s.get().AccessToken)
				}
			})
		})
	}
}
