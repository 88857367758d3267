package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A rotatingIssuer takes each refresh token once.
type rotatingIssuer struct {
	mu     sync.Mutex
	n      int
	valid  string
	reused []string
	delay  time.Duration
}

func (i *rotatingIssuer) fetch(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
	time.Sleep(i.delay)
	i.mu.Lock()
	defer i.mu.Unlock()
	if grantOf(r.Previous) != i.valid {
		i.reused = append(i.reused, grantOf(r.Previous))
		return nil, refusal(400, "invalid_grant")
	}
	i.n++
	i.valid = fmt.Sprint("r", i.n)
	return &oauth2.Token{AccessToken: fmt.Sprint("a", i.n), RefreshToken: i.valid, Expiry: time.Now().Add(time.Hour)}, nil
}

func TestInitialIsSavedBeforeItIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		initial := &oauth2.Token{AccessToken: "a0", RefreshToken: "r0", Expiry: time.Now().Add(time.Hour)}
		store := newSharedStore(nil)
		src := &TokenSource{Store: store, Initial: initial}
		require.Equal(t, "a0", tokenOf(t, src))
		require.Equal(t, "r0", store.get().RefreshToken)

		// One that is in use already counts for more than Initial, whether it is good or not.
		i := &rotatingIssuer{valid: "theirs"}
		store = newSharedStore(&oauth2.Token{AccessToken: "x", RefreshToken: "theirs", Expiry: time.Now().Add(-time.Hour)})
		src = &TokenSource{Store: store, Initial: initial, Fetch: i.fetch}
		require.Equal(t, "a1", tokenOf(t, src))
		require.Empty(t, i.reused)

		// If it cannot be saved, it is used all the same, and saved later.
		store = newSharedStore(nil)
		store.change(func(s *sharedStore) { s.failSave = errors.New("disk full") })
		src = &TokenSource{Store: store, Initial: initial}
		require.Equal(t, "a0", tokenOf(t, src))
		store.change(func(s *sharedStore) { s.failSave = nil })
		time.Sleep(time.Minute)
		require.Equal(t, "r0", store.get().RefreshToken)
	})
}

// Initial that has to be refreshed first is spent once by all the processes that begin with it.
func TestInitialIsSpentOnceByAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "r0", delay: time.Second}
		store := newSharedStore(nil)
		var all sync.WaitGroup
		for range 10 {
			src := &TokenSource{Store: store, Initial: &oauth2.Token{RefreshToken: "r0"}, Fetch: i.fetch}
			all.Go(func() {
				got, err := src.Token()
				if err != nil || got.AccessToken != "a1" {
					t.Errorf("%v", err)
				}
			})
		}
		all.Wait()
		require.Empty(t, i.reused)
		require.Equal(t, 1, i.n)
	})
}

// A token that could not be saved is saved again until it is, and the listener of who waited is told each time.
func TestTokenIsSavedAgainUntilItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "r0"}
		store := newSharedStore(&oauth2.Token{AccessToken: "a0", RefreshToken: "r0"})
		var mu sync.Mutex
		var notSaved []error
		ctx := withListener(t.Context(), func(_ context.Context, e Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind == EventNotSaved {
				notSaved = append(notSaved, e.Err)
			}
		})
		src := &TokenSource{Store: store, Fetch: i.fetch, MinRefreshInterval: -1}
		require.Equal(t, "a0", tokenOf(t, src))
		store.change(func(s *sharedStore) { s.failSave = errors.New("disk full") })
		got, err := src.Refresh(ctx, &oauth2.Token{AccessToken: "a0"})
		require.NoError(t, err)
		require.Equal(t, "a1", got.AccessToken)
		time.Sleep(10 * time.Minute)
		mu.Lock()
		require.Greater(t, len(notSaved), 10)
		require.Less(t, len(notSaved), 60)
		require.ErrorIs(t, notSaved[0], store.failing(&store.failSave))
		require.ErrorIs(t, notSaved[0], ErrNotSaved)
		require.ErrorContains(t, notSaved[0], "in use")
		mu.Unlock()
		require.Equal(t, "r0", store.get().RefreshToken)
		store.change(func(s *sharedStore) { s.failSave = nil })
		time.Sleep(time.Minute)
		require.Equal(t, "r1", store.get().RefreshToken)
		// Another process goes on with that.
		next, err := (&TokenSource{Store: store, Fetch: i.fetch}).Refresh(t.Context(), got)
		require.NoError(t, err)
		require.Equal(t, "a2", next.AccessToken)
		require.Empty(t, i.reused)
	})
}

// While it is not saved, what others save counts for more only if it is another login or newer.
func TestUnsavedTokenYieldsToANewerOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "r0"}
		store := newSharedStore(&oauth2.Token{AccessToken: "a0", RefreshToken: "r0"})
		src := &TokenSource{Store: store, Fetch: i.fetch, MinRefreshInterval: -1}
		require.Equal(t, "a0", tokenOf(t, src))
		store.change(func(s *sharedStore) { s.failSave = errors.New("disk full") })
		_, err := src.Refresh(t.Context(), &oauth2.Token{AccessToken: "a0"})
		require.NoError(t, err)
		store.put(&oauth2.Token{AccessToken: "login", RefreshToken: "r-login"}) // somebody has logged in
		store.change(func(s *sharedStore) { s.failSave = nil })
		time.Sleep(time.Minute)
		require.Equal(t, "login", store.get().AccessToken)
	})
}

// Nothing is spent that could not be saved, as far as the store knows.
func TestRefreshTokenIsNotSpentUnlessTheStoreConfirms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "r0"}
		store := newSharedStore(&oauth2.Token{AccessToken: "a0", RefreshToken: "r0"})
		store.change(func(s *sharedStore) { s.failConfirm = errors.New("no space left") })
		src := &TokenSource{Store: store, Fetch: i.fetch}
		_, err := src.Refresh(t.Context(), &oauth2.Token{AccessToken: "a0"})
		require.ErrorIs(t, err, store.failing(&store.failConfirm))
		require.NotErrorIs(t, err, ErrLoginRequired)
		require.Zero(t, i.n)
		store.change(func(s *sharedStore) { s.failConfirm = nil })
		time.Sleep(time.Minute)
		_, err = src.Refresh(t.Context(), &oauth2.Token{AccessToken: "a0"})
		require.NoError(t, err)
		require.EqualValues(t, 2, store.confirms.Load())
	})
}

// Each send of a refresh token is confirmed, retries too.
func TestEachSendOfARefreshTokenIsConfirmed(t *testing.T) {
	t.Parallel()
	sends := 0
	e := newTokenEndpoint(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if sends = n; n < 3 {
			w.WriteHeader(503)
			return
		}
		issue(w)
	})
	store := newSharedStore(old())
	_, err := (&TokenSource{Store: store, Fetch: (&TokenEndpoint{URL: e.URL}).Refresh()}).Refresh(t.Context(), old())
	require.NoError(t, err)
	require.Equal(t, 3, sends)
	require.EqualValues(t, 3, store.confirms.Load())
}

// Set during a refresh wins, in memory and in the store, and the refresh does not write over it.
func TestSetDuringARefreshIsNotOverwritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "r0", delay: 10 * time.Second}
		store := newSharedStore(&oauth2.Token{AccessToken: "a0", RefreshToken: "r0"})
		src := &TokenSource{Store: store, Fetch: i.fetch}
		require.Equal(t, "a0", tokenOf(t, src))
		var all sync.WaitGroup
		all.Go(func() { _, _ = src.Refresh(context.Background(), &oauth2.Token{AccessToken: "a0"}) })
		time.Sleep(time.Second)
		require.NoError(t, src.Set(&oauth2.Token{AccessToken: "login", RefreshToken: "r-login"}))
		all.Wait()
		time.Sleep(time.Minute)
		require.Equal(t, "login", tokenOf(t, src))
		require.Equal(t, "r-login", store.get().RefreshToken)
	})
}

// A token that was set and refreshed at once is not put back by the Set that was still waiting to save it.
func TestSetDoesNotWriteOverItsOwnSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "r-login"}
		store := newSharedStore(nil)
		src := &TokenSource{Store: store, Fetch: i.fetch, MinRefreshInterval: -1}
		store.change(func(s *sharedStore) { s.failSave = errors.New("disk full") })
		require.Error(t, src.Set(&oauth2.Token{AccessToken: "login", RefreshToken: "r-login"}))
		store.change(func(s *sharedStore) { s.failSave = nil })
		_, err := src.Refresh(t.Context(), &oauth2.Token{AccessToken: "login"})
		require.NoError(t, err)
		require.Equal(t, "r1", store.get().RefreshToken)
		time.Sleep(10 * time.Minute)
		require.Equal(t, "r1", store.get().RefreshToken)
		require.Empty(t, i.reused)
	})
}

// A key that has merely vanished is no logout: whoever has the login writes it back.
func TestKeyThatHasVanishedIsWrittenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "r0"}
		store := newSharedStore(&oauth2.Token{AccessToken: "a0", RefreshToken: "r0", Expiry: time.Now().Add(time.Hour)})
		src := &TokenSource{Store: store, Fetch: i.fetch}
		require.Equal(t, "a0", tokenOf(t, src))
		store.putRecord(nil)
		time.Sleep(2 * time.Hour)
		require.Equal(t, "a1", tokenOf(t, src))
		require.Equal(t, "r1", store.get().RefreshToken)
		require.Empty(t, i.reused)
	})
}

// A store that fails before, between and after: nothing that is there is lost, and there is always an error or a token.
func TestStoreThatFailsAnywhere(t *testing.T) {
	broken := errors.New("broken")
	for name, fail := range map[string]func(s *sharedStore){
		"load": func(s *sharedStore) { s.failLoad = broken }, "lock": func(s *sharedStore) { s.failLock = broken },
		"confirm": func(s *sharedStore) { s.failConfirm = broken }, "save": func(s *sharedStore) { s.failSave = broken },
		"all": func(s *sharedStore) { s.failLoad, s.failLock = broken, broken },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := &rotatingIssuer{valid: "r0"}
				store := newSharedStore(&oauth2.Token{AccessToken: "a0", RefreshToken: "r0"})
				src := &TokenSource{Store: store, Fetch: i.fetch, MinRefreshInterval: -1}
				last := tokenOf(t, src)
				store.change(fail)
				for range 5 {
					if got, err := src.Refresh(t.Context(), &oauth2.Token{AccessToken: last}); err == nil {
						last = got.AccessToken
					} else {
						require.NotErrorIs(t, err, ErrLoginRequired)
					}
					time.Sleep(10 * time.Second)
				}
				store.change(func(s *sharedStore) { s.failLoad, s.failLock, s.failConfirm, s.failSave = nil, nil, nil, nil })
				time.Sleep(2 * time.Minute)
				got, err := src.Refresh(t.Context(), &oauth2.Token{AccessToken: last})
				require.NoError(t, err)
				require.Equal(t, got.RefreshToken, store.get().RefreshToken)
				require.Empty(t, i.reused)
			})
		})
	}
}

// A store in which others put two tokens by turns, both of them refused, costs no storm of token requests.
func TestStoreThatAlternatesBetweenRefusedTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		store := newSharedStore(&oauth2.Token{AccessToken: "x0"})
		src := &TokenSource{Store: store, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			return &oauth2.Token{AccessToken: fmt.Sprint("new-", calls.Add(1))}, nil
		}}
		got := &oauth2.Token{AccessToken: tokenOf(t, src)}
		requests := 0
		for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(10 * time.Millisecond) {
			requests++
			store.put(&oauth2.Token{AccessToken: fmt.Sprint("x", requests%2)})
			if next, err := src.Refresh(t.Context(), got); err == nil {
				got = next
			}
		}
		require.LessOrEqual(t, calls.Load(), int32(6*maxForced+1))
	})
}

// A Fetch that does not heed the end of its context is not called beside itself: it might spend a refresh token twice.
func TestFetchThatIgnoresItsContextIsNotCalledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var under, most, calls atomic.Int32
		src := &TokenSource{FetchTimeout: time.Second, Initial: old(), Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			calls.Add(1)
			most.Store(max(most.Load(), under.Add(1)))
			defer under.Add(-1)
			time.Sleep(10 * time.Minute)
			return nil, errors.New("too late")
		}}
		for start := time.Now(); time.Since(start) < 9*time.Minute; time.Sleep(time.Second) {
			_, err := src.Refresh(t.Context(), old())
			require.Error(t, err)
		}
		require.EqualValues(t, 1, calls.Load())
		require.NoError(t, src.Set(&oauth2.Token{RefreshToken: "login"}))
		_, err := src.Token()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualValues(t, 2, calls.Load(), "it is another refresh token")
		time.Sleep(time.Hour)
		require.EqualValues(t, 2, most.Load())
		_, err = src.Token()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualValues(t, 3, calls.Load(), "it has returned")
		time.Sleep(time.Hour)
	})
}

// A Store may forget what it has said to be saved, as when a replica is promoted that did not have it yet.
func TestStoreThatForgetsASavedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		s := newSharedStore(old())
		src := &TokenSource{Fetch: i.fetch, Store: s, MinRefreshInterval: -1}
		got, err := src.Refresh(context.Background(), old())
		require.NoError(t, err)
		s.put(old())
		got, err = src.Refresh(context.Background(), got)
		require.NoError(t, err)
		require.Equal(t, "access-2", got.AccessToken)
		require.Equal(t, []string{"refresh-0", "refresh-1"}, i.previous)
		require.Equal(t, "refresh-2", s.get().RefreshToken)
	})
}

// While Set waits for its turn, a refresh may find the new login in the Store, and spend it.
func TestSetDoesNotReplaceItsSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		s := newSharedStore(old())
		var seen []string
		src := &TokenSource{Fetch: i.fetch, Store: s, OnToken: func(t *oauth2.Token) {
			time.Sleep(time.Second)
			seen = append(seen, t.AccessToken)
		}}
		var asked sync.WaitGroup
		asked.Go(func() { _, _ = src.Token() }) // in OnToken for a second
		synctest.Wait()
		done := make(chan error)
		go func() { done <- src.Set(&oauth2.Token{AccessToken: "login", RefreshToken: "refresh-login"}) }()
		synctest.Wait()
		require.Equal(t, "refresh-login", s.get().RefreshToken)
		src.spend(&knownToken{token: &oauth2.Token{RefreshToken: "refresh-1"}, from: "refresh-login"})
		require.NoError(t, <-done)
		asked.Wait()
		require.Contains(t, seen, "old")
		require.NotContains(t, seen, "login")
	})
}

// A refresh token is not sent again that was refused after the time for the refresh was over.
func TestLateRefusalCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		src := &TokenSource{Initial: &oauth2.Token{RefreshToken: "refresh-0"}, FetchTimeout: time.Second, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			calls++
			time.Sleep(10 * time.Second)
			return nil, refusal(http.StatusBadRequest, "invalid_grant")
		}}
		_, err := src.Token()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(time.Minute)
		_, err = src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
		require.Equal(t, 1, calls)
	})
}

// Set is told that the login was not saved, and it was; a refresh finds it in the Store while OnToken is shown it.
func TestSetDoesNotSaveOverItsSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		s := newSharedStore(nil)
		var once sync.Once
		src := &TokenSource{Fetch: i.fetch, Store: unheardStore{s, &once}, OnToken: func(*oauth2.Token) { time.Sleep(time.Second) }}
		done := make(chan error)
		login := &oauth2.Token{AccessToken: "login", RefreshToken: "refresh-login"}
		go func() { done <- src.Set(login) }()
		synctest.Wait()
		go src.Refresh(context.Background(), login)
		synctest.Wait()
		require.Equal(t, "refresh-1", s.get().RefreshToken)
		require.Error(t, <-done)
		time.Sleep(time.Minute)
		require.Equal(t, "refresh-1", s.get().RefreshToken)
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "access-1", got.AccessToken)
	})
}

// An unheardStore saves, and says once that it has not.
type unheardStore struct {
	*sharedStore
	once *sync.Once
}

func (s unheardStore) Update(ctx context.Context, fn func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	err := s.sharedStore.Update(ctx, fn)
	s.once.Do(func() { err = errors.New("no answer") })
	return err
}

// The time of a refresh may be up in the moment in which it has its token, before the Store is told of that: the token is in use from
// then on, and is saved later.
func TestTokenThatComesAsTheTimeEndsIsSaved(t *testing.T) {
	for name, initial := range map[string]*oauth2.Token{"from Fetch": nil, "Initial": login("a1")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSharedStore(nil)
				src := &TokenSource{Store: s, Initial: initial, Fetch: new(rotatingIssuer).fetch}
				run := &refreshRun{ctx: newRefreshContext(t.Context(), src), done: make(chan struct{})}
				if src.initial(run, nil) == nil {
					require.NoError(t, src.fetch(t.Context(), run, nil, nil))
				}
				src.end(run, run.fetched.Load(), failed(context.DeadlineExceeded, nil))
				require.Equal(t, "a1", tokenOf(t, src))
				time.Sleep(time.Minute)
				require.NotNil(t, s.record())
				require.Equal(t, "a1", s.get().AccessToken)
			})
		})
	}
}

// A login that could not be saved is not saved any more where another one has taken its place.
func TestReplacedLoginIsNotSavedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore(nil)
		store.change(func(s *sharedStore) { s.failSave = errors.New("disk full") })
		src := &TokenSource{Store: store}
		require.Error(t, src.Set(&oauth2.Token{AccessToken: "first", RefreshToken: "r-first"}))
		store.change(func(s *sharedStore) { s.failSave = nil })
		require.NoError(t, src.Set(&oauth2.Token{AccessToken: "second", RefreshToken: "r-second"}))
		updates := store.updates.Load()
		time.Sleep(time.Hour)
		require.Equal(t, "r-second", store.get().RefreshToken)
		require.Equal(t, updates, store.updates.Load())
	})
}

// What another process has put into the Store is used without its lock.
func TestNewTokenInTheStoreNeedsNoLock(t *testing.T) {
	store := newSharedStore(&oauth2.Token{AccessToken: "theirs"})
	store.change(func(s *sharedStore) { s.failLock = errors.New("others have it") })
	require.Equal(t, "theirs", tokenOf(t, &TokenSource{Store: store}))
	require.Zero(t, store.updates.Load())
}

// Initial that has expired is refreshed, and not put into the Store.
func TestExpiredInitialIsRefreshed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &rotatingIssuer{valid: "r0"}
		store := newSharedStore(nil)
		expired := &oauth2.Token{AccessToken: "a0", RefreshToken: "r0", Expiry: time.Now().Add(-time.Hour)}
		src := &TokenSource{Store: store, Fetch: i.fetch, Initial: expired}
		require.Equal(t, "a1", tokenOf(t, src))
		require.Equal(t, "r1", store.get().RefreshToken)
		require.EqualValues(t, 1, store.saves.Load())
	})
}

// A laterStore is one whose second Update waits for the gate before it asks for the lock.
type laterStore struct {
	*sharedStore
	n    atomic.Int32
	gate chan struct{}
}

func (s *laterStore) Update(ctx context.Context, fn func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	if s.n.Add(1) == 2 {
		<-s.gate
	}
	return s.sharedStore.Update(ctx, fn)
}

// A login whose saving is tried again is not saved after a later one, and not after that was ended.
func TestSavingAgainLeavesALaterLoginThatWasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &laterStore{sharedStore: newSharedStore(nil), gate: make(chan struct{})}
		src := &TokenSource{Fetch: (&issuer{lifetime: time.Hour}).fetch, Store: store}
		store.failLock = errors.New("it is down")
		require.ErrorIs(t, src.Set(&oauth2.Token{AccessToken: "earlier", RefreshToken: "r1"}), ErrNotSaved)
		store.mu.Lock()
		store.failLock = nil
		store.mu.Unlock()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.EqualValues(t, 2, store.n.Load(), "it is being tried again")
		require.NoError(t, src.Set(&oauth2.Token{AccessToken: "later", RefreshToken: "r2"}))
		require.NoError(t, (&TokenSource{Fetch: new(issuer).fetch, Store: store.sharedStore}).Logout(t.Context()))
		close(store.gate)
		synctest.Wait()
		require.True(t, store.record().LoggedOut)
		_, err := src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
	})
}

// A Store that quotes the record that it was to replace shows no token by that.
func TestNotSavedShowsNoTokenOfBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore(&oauth2.Token{AccessToken: "secret-a0", RefreshToken: "secret-r0"})
		i := &issuer{}
		src := &TokenSource{Store: store, Fetch: i.fetch, MinRefreshInterval: -1}
		require.Equal(t, "secret-a0", tokenOf(t, src))
		for _, quoted := range []string{"secret-a0", "secret-r0"} {
			store.change(func(s *sharedStore) { s.failSave = errors.New("cannot replace " + quoted) })
			var mu sync.Mutex
			var heard []error
			hear := func(err ...error) { mu.Lock(); defer mu.Unlock(); heard = append(heard, err...) }
			ctx := withListener(t.Context(), func(_ context.Context, e Event) { hear(e.Err) })
			_, err := src.Refresh(ctx, nil)
			require.NoError(t, err)
			time.Sleep(time.Minute)
			hear(src.Wait(t.Context()), src.Set(&oauth2.Token{AccessToken: "another", RefreshToken: "secret-r0"}))
			mu.Lock()
			require.Greater(t, len(heard), 3)
			for _, err := range heard {
				require.NotContains(t, fmt.Sprint(err), quoted)
			}
			mu.Unlock()
			src = &TokenSource{Store: store, Fetch: i.fetch, MinRefreshInterval: -1}
		}
	})
}
