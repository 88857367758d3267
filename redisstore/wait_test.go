//go:build unix

package redisstore

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// waiting returns how many wait for the login of s, and will be woken.
func waiting(s *Store) int {
	n, last := crowds.Look(s.loginKey())
	if !last.subscribed {
		return 0
	}
	return n
}

// withLock has another one hold the lock of s until waiters wait for it, who do what wait says.
func withLock(t *testing.T, s *Store, waiters int, wait func() error, release func(*authretry.Record) (*authretry.Record, error)) (since time.Time) {
	t.Helper()
	other := &Store{Client: clientOf(s.Client.(*redis.Client).Options().Addr), Key: s.Key, LockTTL: s.LockTTL}
	done := make(chan error, waiters)
	var all sync.WaitGroup
	_ = other.Update(t.Context(), func(_ context.Context, current *authretry.Record, _ func(context.Context) error) (*authretry.Record, error) {
		for range waiters {
			all.Go(func() { done <- wait() })
		}
		require.Eventually(t, func() bool { return waiting(s) == waiters }, 30*time.Second, time.Millisecond)
		since = time.Now()
		return release(current)
	})
	all.Wait()
	for range waiters {
		require.NoError(t, <-done)
	}
	require.Eventually(t, func() bool { return waiting(s) == 0 }, 30*time.Second, time.Millisecond)
	n, _ := crowds.Look(s.loginKey())
	require.Zero(t, n, "nothing is left")
	return since
}

// Those who wait for a login are woken when another one has stored it, and need no lock. One of them looks for all.
func TestThoseWhoWaitAreWoken(t *testing.T) {
	r := start(t)
	s := storeAt(r.addr)
	s.LockTTL = time.Hour // so that none asks by itself
	set(t, s, &oauth2.Token{AccessToken: "old"})
	const waiters = 50
	since := withLock(t, s, waiters, func() error {
		return s.UpdateUnless(t.Context(), func(r *authretry.Record) bool { return r.Token.AccessToken == "new" },
			func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
				return nil, errors.New("it has the lock")
			})
	}, func(*authretry.Record) (*authretry.Record, error) { return record("new"), nil })
	require.Less(t, time.Since(since), 5*time.Second)
	require.Equal(t, "new", accessToken(t, s))
}

// If the holder fails, one of those who wait takes the lock, long before it would have expired.
func TestThoseWhoWaitAreWokenByAFailure(t *testing.T) {
	r := start(t)
	s := storeAt(r.addr)
	s.LockTTL = time.Hour
	since := withLock(t, s, 1, func() error {
		return s.UpdateUnless(t.Context(), func(r *authretry.Record) bool { return r != nil },
			func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
				return record("new"), nil
			})
	}, func(*authretry.Record) (*authretry.Record, error) {
		return nil, errors.New("the token endpoint is down")
	})
	require.Less(t, time.Since(since), 5*time.Second)
	require.Equal(t, "new", accessToken(t, s))
}

// A user who may not be woken, a client that cannot subscribe, and one whose subscription is cut ask by themselves.
func TestThoseWhoCannotBeWokenAsk(t *testing.T) {
	r := start(t)
	forbidden := userOf(t, r, "")
	for name, client := range map[string]redis.Scripter{
		"a user who may not": forbidden, "a client that cannot": struct{ redis.Scripter }{clientOf(r.addr)}, "a subscription that is cut": clientOf(r.addr),
	} {
		t.Run(name, func(t *testing.T) {
			s := &Store{Client: client, Key: testKey, LockTTL: time.Hour}
			set(t, s, &oauth2.Token{AccessToken: "old"})
			entered, leave := make(chan struct{}), make(chan struct{})
			holder := make(chan error, 1)
			go func() {
				holder <- (&Store{Client: clientOf(r.addr), Key: testKey, LockTTL: time.Hour}).Update(context.Background(), func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
					close(entered)
					<-leave
					return record("new"), nil
				})
			}()
			<-entered
			done := make(chan error, 1)
			go func() {
				done <- s.UpdateUnless(context.Background(), func(r *authretry.Record) bool { return r.Token.AccessToken == "new" },
					func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
						return nil, nil
					})
			}()
			if strings.HasSuffix(name, "cut") {
				require.Eventually(t, func() bool { return waiting(s) == 1 }, 30*time.Second, time.Millisecond)
				require.NoError(t, clientOf(r.addr).ClientKillByFilter(t.Context(), "TYPE", "pubsub").Err())
				require.Eventually(t, func() bool { return waiting(s) == 0 }, 30*time.Second, time.Millisecond)
			}
			require.Eventually(t, func() bool { n, _ := crowds.Look(s.loginKey()); return n == 1 }, 10*time.Second, time.Millisecond)
			close(leave)
			require.NoError(t, <-holder)
			select {
			case err := <-done:
				require.NoError(t, err)
			case <-time.After(10 * time.Second):
				t.Fatal("it waits still")
			}
		})
	}
}

// Two logins may have one lock, as those under "a" and "{a}" have, but neither is shown the other's Record.
func TestLoginsWithOneLockAreNotMixedUp(t *testing.T) {
	r := start(t)
	client := clientOf(r.addr)
	mine, theirs := &Store{Client: client, Key: "a", LockTTL: time.Hour}, &Store{Client: client, Key: "{a}", LockTTL: time.Hour}
	require.Equal(t, mine.lockKey(), theirs.lockKey())
	set(t, mine, &oauth2.Token{AccessToken: "of alice"})
	set(t, theirs, &oauth2.Token{AccessToken: "of bob"})
	var all sync.WaitGroup
	for range 50 {
		for s, access := range map[*Store]string{mine: "of alice", theirs: "of bob"} {
			all.Go(func() {
				if r, err := s.Load(t.Context()); err != nil || r.Token.AccessToken != access {
					t.Errorf("%v, %v", r, err)
				}
			})
		}
	}
	all.Wait()

	withLock(t, mine, 1, func() error {
		defer all.Wait()
		all.Go(func() {
			err := theirs.UpdateUnless(t.Context(), func(r *authretry.Record) bool {
				if r.Token.AccessToken != "of bob" {
					t.Errorf("bob is shown %v", r)
				}
				return false
			}, func(_ context.Context, r *authretry.Record, _ func(context.Context) error) (*authretry.Record, error) {
				if r.Token.AccessToken != "of bob" {
					t.Errorf("bob gets %v", r)
				}
				return nil, nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		for waiting(theirs) == 0 && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		return mine.UpdateUnless(t.Context(), func(r *authretry.Record) bool { return r.Token.AccessToken == "new" },
			func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
				return nil, nil
			})
	}, func(*authretry.Record) (*authretry.Record, error) { return record("new"), nil })
}
