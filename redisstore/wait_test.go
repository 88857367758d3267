//go:build unix

package redisstore

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// subscribers returns how many have subscribed to what is said of a store's lock.
func subscribers(t *testing.T, s *Store, addr string) int64 {
	n, err := clientOf(addr).PubSubNumSub(t.Context(), s.lockKey()).Result()
	require.NoError(t, err)
	return n[s.lockKey()]
}

// lockElsewhere makes the lock another one's, for some time.
func lockElsewhere(t *testing.T, s *Store, addr string, ttl time.Duration) {
	require.NoError(t, clientOf(addr).Set(t.Context(), s.lockKey(), "another", ttl).Err())
}

// Who waits for the lock subscribes to what is said of it, once, and leaves nothing behind.
func TestWaiterSubscribesAndEndsThat(t *testing.T) {
	r := start(t)
	client := redis.NewClient(&redis.Options{Addr: r.addr}) // which does not go by the context
	defer client.Close()
	s := &Store{Client: client, Key: testKey, LockTTL: time.Minute}
	lockElsewhere(t, s, r.addr, time.Minute)
	done := make(chan error)
	go func() {
		done <- s.UpdateUnless(t.Context(), func(current *authretry.Record) bool { return current != nil && current.Token.AccessToken == "new" },
			func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
				t.Error("another one has done it")
				return nil, nil
			})
	}()
	require.Eventually(t, func() bool { return subscribers(t, s, r.addr) == 1 }, 10*time.Second, 5*time.Millisecond)
	l := &lock{store: s}
	data, err := record("new").Encode()
	require.NoError(t, err)
	require.NoError(t, l.write(t.Context(), data))
	require.NoError(t, <-done)
	require.Eventually(t, func() bool { return subscribers(t, s, r.addr) == 0 }, 10*time.Second, 5*time.Millisecond)
}

// Where a subscription is lost, or cannot be had, the waiter is told once, and asks as often as before.
func TestWaiterWithoutASubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379", Dialer: func(context.Context, string, string) (net.Conn, error) { return nil, io.EOF }})
		defer client.Close()
		w := waiter{store: &Store{Client: client, Key: testKey, LockTTL: time.Hour}, ready: true, poll: maxPoll}
		w.subscribe(t.Context())
		defer w.end()
		require.False(t, w.wait(t.Context()))
		require.False(t, w.ready)
		begin := time.Now()
		require.False(t, w.wait(t.Context()))
		require.NotZero(t, time.Since(begin), "it is not told again")
		require.Less(t, time.Since(begin), 2*maxPoll)
	})

	r := start(t)
	s := &Store{Client: &scripts{Scripter: clientOf(r.addr)}, Key: testKey} // which cannot subscribe
	lockElsewhere(t, s, r.addr, 200*time.Millisecond)
	require.NoError(t, inUpdate(t, s, func(confirm func(context.Context) error) error { return confirm(t.Context()) }))
}

// Who is told that the lock is free asks for it soon, and who is told that a login was saved has no need to look if nothing is
// enough.
func TestWaiterIsWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Store{Key: testKey, LockTTL: time.Hour, Client: answering{answer: func(context.Context) (any, error) {
			t.Error("there is nothing to ask")
			return nil, redis.Nil
		}}}
		w := waiter{store: s, ready: true, poll: maxPoll, messages: make(chan string, 2)}
		w.messages <- hasSaved
		w.messages <- "free"
		begin := time.Now()
		require.False(t, w.wait(t.Context()))
		require.LessOrEqual(t, time.Since(begin), maxPoll)
	})
}
