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

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A sharedStore is a TokenStore in memory, for TokenSources that play processes.
type sharedStore struct {
	lock     chan struct{} // as a mutex that obeys a context
	mu       sync.Mutex
	saved    *Record
	updates  atomic.Int32
	saves    atomic.Int32
	confirms atomic.Int32

	failSave, failLock, failLoad, failConfirm error
}

func newSharedStore(t *oauth2.Token) *sharedStore {
	s := &sharedStore{lock: make(chan struct{}, 1)}
	if t != nil {
		s.put(t)
	}
	return s
}

func (s *sharedStore) Load(context.Context) (*Record, error) {
	if err := s.failing(&s.failLoad); err != nil {
		return nil, err
	}
	return s.record(), nil
}

func (s *sharedStore) Update(ctx context.Context, fn func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	s.updates.Add(1)
	if err := s.failing(&s.failLock); err != nil {
		return err
	}
	select {
	case s.lock <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.lock }()
	current := s.record()
	r, err := fn(ctx, current, func(context.Context) error { s.confirms.Add(1); return s.failing(&s.failConfirm) })
	if err != nil || r == nil || r.isSame(current) {
		return err
	}
	s.saves.Add(1)
	if err := s.failing(&s.failSave); err != nil {
		return err
	}
	s.putRecord(r)
	return nil
}

// failing returns one of the errors, which change may be setting at the same time.
func (s *sharedStore) failing(err *error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *err
}

// change sets the errors while others use the store.
func (s *sharedStore) change(f func(s *sharedStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *sharedStore) record() *Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved
}

func (s *sharedStore) putRecord(r *Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved = r
}

func (s *sharedStore) get() *oauth2.Token {
	if r := s.record(); r != nil {
		return r.Token
	}
	return nil
}

func (s *sharedStore) put(t *oauth2.Token) { s.putRecord(&Record{Token: t}) }

// bothStores runs a test with a Store that can be read without its lock, and with one that cannot for the time being.
func bothStores(t *testing.T, test func(t *testing.T, store TokenStore, s *sharedStore)) {
	for name, err := range map[string]error{"Load fails": errors.New("busy"), "Load": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSharedStore(nil)
				s.failLoad = err
				test(t, s, s)
			})
		})
	}
}

func TestStoreOneRefreshForAllProcesses(t *testing.T) {
	bothStores(t, func(t *testing.T, store TokenStore, s *sharedStore) {
		i := &issuer{delay: 50 * time.Millisecond, lifetime: 2 * time.Second}
		s.put(&oauth2.Token{AccessToken: "stale", RefreshToken: "refresh-0", Expiry: time.Now().Add(-time.Hour)})
		start := time.Now()
		var wg sync.WaitGroup
		for range 8 {
			src := &TokenSource{Fetch: i.fetch, Store: store}
			for range 4 {
				wg.Go(func() {
					for time.Since(start) < time.Minute {
						if got, err := src.Token(); err != nil || !time.Now().Before(got.Expiry) {
							t.Error(got, err)
						}
						time.Sleep(thorough.Or(31*time.Millisecond, 93*time.Millisecond))
					}
				})
			}
		}
		wg.Wait()
		time.Sleep(time.Second)
		i.mu.Lock()
		defer i.mu.Unlock()
		for n, refresh := range i.previous { // each refresh token once, in order
			require.Equal(t, fmt.Sprintf("refresh-%d", n), refresh)
		}
		require.Greater(t, len(i.previous), 30)
		require.Less(t, len(i.previous), 62) // 2 s of life, of which 0.8 to 1 s are early
	})
}

func TestStoreRefusedToken(t *testing.T) {
	bothStores(t, func(t *testing.T, store TokenStore, s *sharedStore) {
		ctx := context.Background()
		i := &issuer{}
		s.put(old())
		a, b := &TokenSource{Fetch: i.fetch, Store: store}, &TokenSource{Fetch: i.fetch, Store: store}
		for _, src := range []*TokenSource{a, b} {
			got, err := src.Token()
			require.NoError(t, err)
			require.Equal(t, "old", got.AccessToken)
		}
		require.Zero(t, i.calls.Load())
		for _, src := range []*TokenSource{a, b} {
			got, err := src.Refresh(ctx, old())
			require.NoError(t, err)
			require.Equal(t, "access-1", got.AccessToken)
		}
		require.Equal(t, []string{"refresh-0"}, i.previous)
		require.Equal(t, "refresh-1", s.get().RefreshToken)
	})
}

func TestStoreHasASuccessorOfATokenRefusedWhileFresh(t *testing.T) {
	bothStores(t, func(t *testing.T, store TokenStore, s *sharedStore) {
		ctx := context.Background()
		i := &issuer{}
		s.put(old())
		a, b := &TokenSource{Fetch: i.fetch, Store: store}, &TokenSource{Fetch: i.fetch, Store: store}
		_, err := a.Token()
		require.NoError(t, err)
		first, err := a.Refresh(ctx, old())
		require.NoError(t, err)
		for range 100 {
			_, err = a.Refresh(ctx, first)
			require.ErrorIs(t, err, ErrTokenRefused)
			time.Sleep(10 * time.Millisecond)
		}
		require.EqualValues(t, 1, i.calls.Load())
		require.Less(t, s.updates.Load(), int32(10))

		second, err := b.Refresh(ctx, first) // it is not fresh from the endpoint for b
		require.NoError(t, err)
		time.Sleep(2 * time.Second)
		got, err := a.Refresh(ctx, first)
		require.NoError(t, err)
		require.Equal(t, second.AccessToken, got.AccessToken)
		require.EqualValues(t, 2, i.calls.Load())
	})
}

func TestStoreEmpty(t *testing.T) {
	bothStores(t, func(t *testing.T, store TokenStore, s *sharedStore) {
		i := &issuer{}
		src := &TokenSource{Fetch: i.fetch, Store: store}
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "access-1", got.AccessToken)
		require.Equal(t, "access-1", s.get().AccessToken)

		src = &TokenSource{Store: newSharedStore(nil)}
		_, err = src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
	})
}

func TestStoreOnTokenSeesTokensOfOthers(t *testing.T) {
	bothStores(t, func(t *testing.T, store TokenStore, s *sharedStore) {
		s.put(old())
		var seen []string
		src := &TokenSource{Store: store, OnToken: func(t *oauth2.Token) { seen = append(seen, t.AccessToken) }}
		_, err := src.Token()
		require.NoError(t, err)
		s.put(&oauth2.Token{AccessToken: "theirs"})
		got, err := src.Refresh(context.Background(), old())
		require.NoError(t, err)
		require.Equal(t, "theirs", got.AccessToken)
		require.NoError(t, src.Set(&oauth2.Token{AccessToken: "login"}))
		require.Equal(t, []string{"old", "theirs", "login"}, seen)
		require.Equal(t, "login", s.get().AccessToken)
	})
}

func TestOnTokenIsNotShownInitial(t *testing.T) {
	use := func(t *testing.T, store TokenStore) {
		var seen []string
		i := &issuer{}
		src := &TokenSource{Initial: old(), Fetch: i.fetch, Store: store, OnToken: func(t *oauth2.Token) { seen = append(seen, t.AccessToken) }}
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "old", got.AccessToken)
		require.Empty(t, seen)
		got, err = src.Refresh(context.Background(), got)
		require.NoError(t, err)
		require.Equal(t, []string{got.AccessToken}, seen)
	}
	t.Run("without a store", func(t *testing.T) { use(t, nil) })
	bothStores(t, func(t *testing.T, store TokenStore, s *sharedStore) {
		use(t, store)
		require.NotNil(t, s.get())
	})
}

func TestStoreThatCannotSaveLosesNothing(t *testing.T) {
	bothStores(t, func(t *testing.T, store TokenStore, s *sharedStore) {
		i := &issuer{}
		s.put(old())
		s.failSave = errors.New("disk full")
		var events []Event
		ctx := withListener(context.Background(), func(_ context.Context, e Event) { events = append(events, e) })
		src := &TokenSource{Fetch: i.fetch, Store: store, MinRefreshInterval: -1}
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "old", got.AccessToken)
		for n := 1; n <= 3; n++ {
			got, err = src.Refresh(ctx, got)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("access-%d", n), got.AccessToken)
			require.ErrorIs(t, events[len(events)-1].Err, s.failSave)
			require.ErrorContains(t, events[len(events)-1].Err, "could not be saved")
		}
		s.failSave = nil
		_, err = src.Refresh(ctx, got)
		require.NoError(t, err)
		require.Equal(t, "access-4", s.get().AccessToken)
		require.Equal(t, []string{"refresh-0", "refresh-1", "refresh-2", "refresh-3"}, i.previous)

		s.failSave = errors.New("disk full")
		require.ErrorIs(t, src.Set(&oauth2.Token{AccessToken: "login", RefreshToken: "refresh-login"}), s.failSave)
		got, err = src.Token()
		require.NoError(t, err)
		require.Equal(t, "login", got.AccessToken)
		_, err = src.Refresh(ctx, got)
		require.NoError(t, err)
		require.Equal(t, "refresh-login", i.previous[4])
	})
}

func TestStoreThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour}
		s := newSharedStore(nil)
		src := &TokenSource{Fetch: i.fetch, Store: s}
		first, err := src.Token()
		require.NoError(t, err)
		s.failLock = errors.New("connection refused")
		for time.Now().Before(first.Expiry) {
			_, err := src.Token()
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		_, err = src.Token()
		require.ErrorIs(t, err, s.failLock)
		require.ErrorContains(t, err, "TokenStore")
		require.NotErrorIs(t, err, ErrLoginRequired)
		s.failLock = nil
		time.Sleep(time.Minute)
		_, err = src.Token()
		require.NoError(t, err)
	})
}

func TestStoreThatHangsDelaysNobodyWithAGoodToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour}
		s := newSharedStore(nil)
		src := &TokenSource{Fetch: i.fetch, Store: s}
		first, err := src.Token()
		require.NoError(t, err)
		s.lock <- struct{}{} // somebody holds it
		for time.Now().Before(first.Expiry) {
			before := time.Now()
			_, err := src.Token()
			require.NoError(t, err)
			require.Zero(t, time.Since(before))
			time.Sleep(time.Second)
		}
		_, err = src.Token()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		<-s.lock
	})
}

func TestStoreSlowToSave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		src := &TokenSource{Fetch: i.fetch, FetchTimeout: time.Second, Store: slowStore{newSharedStore(nil)}}
		got, err := src.Token() // when the time is up, the token has been obtained, though not saved
		require.NoError(t, err)
		require.Equal(t, "access-1", got.AccessToken)
		time.Sleep(time.Hour)
		again, err := src.Token()
		require.NoError(t, err)
		require.Same(t, got, again)
	})
}

// A slowStore takes a minute to save.
type slowStore struct{ *sharedStore }

func (s slowStore) Update(ctx context.Context, fn func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	_, err := fn(ctx, nil, func(context.Context) error { return nil })
	time.Sleep(time.Minute)
	return err
}

func TestStoreBringsANewLogin(t *testing.T) {
	bothStores(t, func(t *testing.T, store TokenStore, s *sharedStore) {
		i := &issuer{}
		i.failWith(refusal(http.StatusBadRequest, "invalid_grant"))
		expired := &oauth2.Token{AccessToken: "expired", RefreshToken: "refresh-0", Expiry: time.Now().Add(-time.Hour)}
		s.put(expired)
		src := &TokenSource{Fetch: i.fetch, Store: store}
		start := time.Now()
		for time.Since(start) < time.Hour {
			_, err := src.Token()
			require.ErrorIs(t, err, ErrLoginRequired)
			time.Sleep(thorough.Or(100*time.Millisecond, time.Second))
		}
		require.EqualValues(t, 1, i.calls.Load())
		require.Less(t, s.updates.Load(), int32(160))

		// A Store that fails in between does not make the refresh token good again.
		s.failLock = errors.New("connection refused")
		for range 100 {
			_, err := src.Token()
			require.Error(t, err)
			time.Sleep(time.Second)
		}
		s.failLock = nil
		for range 100 {
			_, err := src.Token()
			require.Error(t, err)
			time.Sleep(time.Second)
		}
		require.EqualValues(t, 1, i.calls.Load())

		// Another process has logged in: its token is used, and so is its refresh token.
		s.put(&oauth2.Token{AccessToken: "login", RefreshToken: "refresh-login"})
		time.Sleep(time.Minute)
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "login", got.AccessToken)
		i.failWith(nil)
		_, err = src.Refresh(context.Background(), got)
		require.NoError(t, err)
		require.Equal(t, []string{"refresh-0", "refresh-login"}, i.previous)
	})
}

func TestStoreWithAnotherExpiredLogin(t *testing.T) {
	bothStores(t, func(t *testing.T, store TokenStore, s *sharedStore) {
		i := &issuer{}
		i.failWith(refusal(http.StatusBadRequest, "invalid_grant"))
		s.put(&oauth2.Token{RefreshToken: "refresh-0"})
		src := &TokenSource{Fetch: i.fetch, Store: store}
		_, err := src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
		i.failWith(nil)
		s.put(&oauth2.Token{RefreshToken: "refresh-login"})
		time.Sleep(time.Minute)
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "access-2", got.AccessToken)
	})
}

// A refresh token that is refused for good is no reason to take the Store's lock: others may want it.
func TestStoreIsNotLockedForARefusedRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		i.failWith(refusal(400, "invalid_grant"))
		store := newSharedStore(old())
		src := &TokenSource{Store: store, Fetch: i.fetch}
		_, err := src.Refresh(t.Context(), old())
		require.ErrorIs(t, err, ErrLoginRequired)
		updates := store.updates.Load()
		for range 10 {
			time.Sleep(time.Hour)
			_, err = src.Refresh(t.Context(), old())
			require.ErrorIs(t, err, ErrLoginRequired)
		}
		require.Equal(t, updates, store.updates.Load())
		store.put(&oauth2.Token{AccessToken: "new"})
		time.Sleep(time.Hour)
		require.Equal(t, "new", tokenOf(t, src), "it is looked at all the same")
	})
}

// What has been saved is not saved again.
func TestRefreshedTokenIsSavedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore(old())
		src := &TokenSource{Store: store, Fetch: new(issuer).fetch}
		_, err := src.Refresh(t.Context(), old())
		require.NoError(t, err)
		updates := store.updates.Load()
		time.Sleep(time.Hour)
		require.Equal(t, updates, store.updates.Load())
	})
}

// A Store that can do without its lock is asked to, and says for itself that another process has done the work.
func TestStoreThatCanDoWithoutItsLock(t *testing.T) {
	i := &issuer{}
	s := &unlessStore{sharedStore: newSharedStore(nil)}
	s.failLoad = errors.New("not now")
	s.put(login("theirs"))
	src := &TokenSource{Fetch: i.fetch, Store: s}
	require.Equal(t, "theirs", tokenOf(t, src))
	require.Equal(t, 1, s.asked)
	require.Zero(t, s.updates.Load())
	_, err := src.Refresh(t.Context(), login("theirs"))
	require.NoError(t, err)
	require.Equal(t, 2, s.asked)
	require.EqualValues(t, 1, s.updates.Load())
	require.EqualValues(t, 1, i.calls.Load())
}

// An unlessStore can be read without its lock when somebody waits for that.
type unlessStore struct {
	*sharedStore
	asked int
}

func (s *unlessStore) UpdateUnless(ctx context.Context, enough func(*Record) bool, fn func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	if s.asked++; enough(s.record()) {
		return nil
	}
	return s.Update(ctx, fn)
}
