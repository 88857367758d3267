//go:build unix

package redisstore

import (
	"context"
	"io"
	"sync/atomic"
	"testing"
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
	require.Eventually(t, func() bool { return subscribers(t, s, r.addr) == 1 }, 30*time.Second, 5*time.Millisecond)
	l := &lock{store: s}
	data, err := record("new").Encode()
	require.NoError(t, err)
	require.NoError(t, l.write(t.Context(), data))
	require.NoError(t, <-done)
	require.Eventually(t, func() bool { return subscribers(t, s, r.addr) == 0 }, 30*time.Second, 5*time.Millisecond)
}

// A client that cannot subscribe asks for the lock again.
func TestWaiterWithoutASubscription(t *testing.T) {
	r := start(t)
	s := &Store{Client: &scripts{Scripter: clientOf(r.addr)}, Key: testKey} // which cannot subscribe
	lockElsewhere(t, s, r.addr, 200*time.Millisecond)
	require.NoError(t, inUpdate(t, s, func(confirm func(context.Context) error) error { return confirm(t.Context()) }))
}

// Where what there is cannot be looked up, those who wait do not take it for nothing, and ask for the lock by themselves.
func TestWaiterForWhomNobodyCanLook(t *testing.T) {
	r := start(t)
	set(t, storeAt(r.addr), record("old").Token)
	client := redis.NewClient(&redis.Options{Addr: r.addr})
	defer client.Close()
	look := new(failingLook)
	client.AddHook(look)
	s := &Store{Client: client, Key: testKey, LockTTL: time.Minute}
	lockElsewhere(t, s, r.addr, time.Minute)
	done := make(chan error)
	go func() {
		done <- s.UpdateUnless(t.Context(), func(current *authretry.Record) bool {
			if current == nil {
				t.Error("there is a login")
			}
			return false
		}, func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
			return nil, nil
		})
	}()
	require.Eventually(t, func() bool { return look.asked.Load() > 2 }, 10*time.Second, time.Millisecond)
	require.NoError(t, client.Del(t.Context(), s.lockKey()).Err())
	require.NoError(t, <-done)
}

// failingLook has lookScript fail, and counts the scripts after that.
type failingLook struct {
	failed atomic.Bool
	asked  atomic.Int32
}

func (*failingLook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*failingLook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (l *failingLook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		switch args := cmd.Args(); {
		case len(args) > 1 && args[1] == lookScript.Hash():
			l.failed.Store(true)
			cmd.SetErr(io.EOF)
			return io.EOF
		case l.failed.Load():
			l.asked.Add(1)
		}
		return next(ctx, cmd)
	}
}
