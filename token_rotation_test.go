package authretry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A refresh token is not sent again where an earlier Fetch, whose time was over, returns between the look and the send.
func TestRefreshTokenIsNotSpentTwiceAfterALapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		release := make(chan struct{})
		store := &lapsingStore{sharedStore: newSharedStore(&oauth2.Token{AccessToken: "x", RefreshToken: "R0", Expiry: time.Now().Add(time.Minute)})}
		store.confirm = func(n int32) error {
			if n == 2 { // a round trip, during which the first Fetch returns
				close(release)
				time.Sleep(time.Millisecond)
			}
			return nil
		}
		src := &TokenSource{Store: store, Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			sent = append(sent, r.Previous.RefreshToken)
			n := len(sent)
			if n == 1 {
				<-release // whatever its context says
			}
			return &oauth2.Token{AccessToken: fmt.Sprint("t", n), RefreshToken: fmt.Sprint("R", n), Expiry: time.Now().Add(time.Hour)}, nil
		}}
		for range 2 {
			time.Sleep(2 * time.Minute)
			_, _ = src.Token()
		}
		time.Sleep(time.Minute)
		require.Equal(t, []string{"R0"}, sent)
	})
}

type lapsingStore struct { // its lock has always lapsed, as a lease may
	*sharedStore
	confirm func(n int32) error
	n       atomic.Int32
}

func (s *lapsingStore) Update(ctx context.Context, fn func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	n, current := s.n.Add(1), s.record()
	r, err := fn(ctx, current, func(context.Context) error { return s.confirm(n) })
	if err != nil || r == nil || r.isSame(current) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.saved != current {
		return errors.New("another is there")
	}
	s.saved = r
	return nil
}

// The same without a Store, where the two meet by chance; so it looks many times.
func TestRefreshTokenIsNotSpentTwiceInARace(t *testing.T) {
	t.Parallel()
	twice := 0
	for range thorough.Or(500, 100) {
		var sends atomic.Int32
		release := make(chan struct{})
		src := &TokenSource{FetchTimeout: 200 * time.Microsecond, Initial: &oauth2.Token{AccessToken: "x", RefreshToken: "R0"},
			Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
				if r.Previous.RefreshToken == "R0" && sends.Add(1) == 1 {
					<-release
				}
				return &oauth2.Token{AccessToken: "t", RefreshToken: "R1"}, nil
			}}
		_, _ = src.Token()
		_, _ = src.Refresh(context.Background(), nil) // its time is over
		src.mu.Lock()
		src.failure = failure{} // and so is that of its backoff
		src.mu.Unlock()
		var wg sync.WaitGroup
		wg.Go(func() { close(release) })
		wg.Go(func() { _, _ = src.Refresh(context.Background(), nil) })
		wg.Wait()
		time.Sleep(50 * time.Microsecond)
		if sends.Load() > 1 {
			twice++
		}
	}
	require.Zero(t, twice)
}

// A new refresh token is kept, even if the access token that it came with is of no use.
func TestNewRefreshTokenIsKeptWhateverItCameWith(t *testing.T) {
	for _, access := range []string{"old", "cannot be sent", "with an error"} {
		t.Run(access, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sent []string
				src := &TokenSource{Initial: old(), Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
					sent = append(sent, r.Previous.RefreshToken)
					var err error
					if access == "with an error" {
						err = errors.New("it is of the wrong type")
					}
					return &oauth2.Token{AccessToken: access, RefreshToken: fmt.Sprint("refresh-", len(sent))}, err
				}}
				for range 2 {
					_, _ = src.Refresh(t.Context(), old())
					time.Sleep(time.Minute)
				}
				require.Equal(t, []string{"refresh-0", "refresh-1"}, sent)
			})
		})
	}
}

// A source whose token is not saved yet makes no room for others: its successor would send again what it has spent.
func TestUnsavedTokenDoesNotMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		store := newSharedStore(&oauth2.Token{AccessToken: "x", RefreshToken: "R0", Expiry: time.Now().Add(time.Second)})
		store.failSave = errors.New("disk full")
		sources := func(_ context.Context, account string) (oauth2.TokenSource, error) {
			if account != "alice" {
				return &TokenSource{Initial: &oauth2.Token{AccessToken: "x"}}, nil
			}
			return &TokenSource{Store: store, Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
				sent = append(sent, r.Previous.RefreshToken)
				return &oauth2.Token{AccessToken: fmt.Sprint("t", len(sent)), RefreshToken: fmt.Sprint("R", len(sent)), Expiry: time.Now().Add(time.Hour)}, nil
			}}, nil
		}
		a := &accountSources{limit: 3 * sizeOfSource}
		get := func(account string) {
			s := a.add(account, sources)
			<-s.done
			s.lastUse.Store(a.clock.Add(1))
			_, _ = s.inUse.TokenSource.Token()
			synctest.Wait()
		}
		time.Sleep(2 * time.Second)
		for _, account := range []string{"alice", "b", "c", "d", "e", "f", "g", "alice"} {
			get(account)
		}
		store.change(func(s *sharedStore) { s.failSave = nil })
		time.Sleep(time.Hour)
		require.Equal(t, []string{"R0"}, sent)
	})
}

// An answer without a refresh token leaves the one that there is (RFC 6749 §6).
func TestAnswerWithoutARefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		src := &TokenSource{Initial: old(), Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			sent = append(sent, r.Previous.RefreshToken)
			return &oauth2.Token{AccessToken: fmt.Sprint("t", len(sent)), Expiry: time.Now().Add(time.Minute)}, nil // RFC 6749 §6
		}}
		_, _ = src.Refresh(t.Context(), old())
		time.Sleep(time.Hour)
		_, _ = src.Token()
		require.Equal(t, []string{"refresh-0", "refresh-0"}, sent, "Previous has the newest refresh token that is known")
	})
}

// A Store that does not heed its context costs some goroutines, and no more.
func TestStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &hangingStore{sharedStore: newSharedStore(nil), block: make(chan struct{})}
		src := &TokenSource{Store: s, Fetch: (&issuer{}).fetch}
		for range 100 {
			_, _ = src.Token()
			time.Sleep(time.Minute)
		}
		n := s.calls.Load()
		close(s.block)
		time.Sleep(time.Hour)
		require.LessOrEqual(t, n, int32(maxGoroutines), "each is a goroutine that hangs")
	})
}

type hangingStore struct {
	*sharedStore
	calls atomic.Int32
	block chan struct{}
}

func (s *hangingStore) Load(context.Context) (*Record, error) {
	s.calls.Add(1)
	<-s.block
	return nil, nil
}

// A token that is in use is saved, whatever OnToken did as it came.
func TestOnTokenThatPanicsInSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSharedStore(nil)
		store.failSave = errors.New("down")
		src := &TokenSource{Store: store, OnToken: func(*oauth2.Token) { panic("boom") }}
		func() { defer func() { _ = recover() }(); _ = src.Set(old()) }()
		store.change(func(s *sharedStore) { s.failSave = nil })
		time.Sleep(time.Hour)
		require.Equal(t, "old", src.current.Load().token.AccessToken) // it is in use
		require.NotNil(t, store.get())
	})
}
