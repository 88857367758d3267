//go:build unix

package redisstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// startCluster starts a Redis Cluster of three nodes, and returns their addresses.
func startCluster(t *testing.T) (addrs []string) {
	t.Helper()
	for range 3 {
		addrs = append(addrs, start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "5000").addr)
	}
	if _, err := exec.LookPath("redis-cli"); err != nil {
		if os.Getenv("AUTHRETRY_INTEROP") == "require" {
			t.Fatal("redis-cli is not installed")
		}
		t.Skip("redis-cli is not installed")
	}
	args := append([]string{"--cluster", "create"}, append(addrs, "--cluster-yes")...)
	out, err := exec.Command("redis-cli", args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return addrs
}

// In a cluster, the login, its lock and the channel are on one node, whichever that is: one of all who wait refreshes, the others are
// woken, and a holder that lost its lock overwrites nothing.
func TestCluster(t *testing.T) {
	addrs := startCluster(t)
	client := func() *redis.ClusterClient {
		c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
		t.Cleanup(func() { c.Close() })
		return c
	}
	own, others := client(), client()
	for _, addr := range addrs {
		require.Eventually(t, func() bool {
			return strings.HasPrefix(clientOf(addr).ClusterInfo(t.Context()).Val(), "cluster_state:ok")
		}, 60*time.Second, 20*time.Millisecond, "each node knows that all are there")
	}
	nodes := map[string]bool{}
	for i := range 9 {
		key := fmt.Sprint("login", i)
		if i%3 == 0 {
			key = fmt.Sprintf("app{%d}login", i)
		}
		node, err := own.MasterForKey(t.Context(), key)
		require.NoError(t, err)
		nodes[node.Options().Addr] = true
		s, other := &Store{Client: own, Key: key, LockTTL: time.Hour}, &Store{Client: others, Key: key, LockTTL: time.Hour}
		set(t, s, &oauth2.Token{AccessToken: "old"})

		var all sync.WaitGroup
		const waiters = 8
		err = other.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
			for range waiters {
				all.Go(func() {
					err := s.UpdateUnless(t.Context(), func(r *authretry.Record) bool { return r.Token.AccessToken == "new" },
						func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
							return nil, errors.New("it has the lock")
						})
					if err != nil {
						t.Error(err)
					}
				})
			}
			require.Eventually(t, func() bool { return waiting(s) == waiters }, 30*time.Second, time.Millisecond, "they are subscribed")
			return record("new"), confirm(ctx)
		})
		require.NoError(t, err)
		all.Wait()
		require.Equal(t, "new", accessToken(t, other))

		err = s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
			require.NoError(t, own.Del(ctx, s.lockKey()).Err())
			set(t, other, &oauth2.Token{AccessToken: "newer"})
			require.Error(t, confirm(ctx))
			return record("late"), nil
		})
		require.ErrorIs(t, err, ErrLockLost)
		require.Equal(t, "newer", accessToken(t, s))
	}
	require.Len(t, nodes, 3, "logins were on all nodes")
}

// startSentinels starts a primary, its replica, and three sentinels that see to it.
func startSentinels(t *testing.T) (primary, replica *server, sentinels []string) {
	t.Helper()
	primary = start(t)
	host, port, err := net.SplitHostPort(primary.addr)
	require.NoError(t, err)
	replica = start(t, "--replicaof", host+" "+port)
	for range 3 {
		addr := freeAddr(t)
		_, own, _ := net.SplitHostPort(addr)
		dir := t.TempDir()
		path := filepath.Join(dir, "sentinel.conf")
		require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, "port %s\nbind 127.0.0.1\ndir %s\nsentinel monitor login %s %s 2\n"+
			"sentinel down-after-milliseconds login 1000\nsentinel failover-timeout login 5000\n", own, dir, host, port), 0o600))
		cmd := exec.Command("redis-server", path, "--sentinel")
		require.NoError(t, cmd.Start())
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		sentinels = append(sentinels, addr)
	}
	for _, addr := range sentinels {
		c := redis.NewSentinelClient(&redis.Options{Addr: addr})
		require.Eventually(t, func() bool {
			others, err := c.Sentinels(t.Context(), "login").Result()
			replicas, err2 := c.Replicas(t.Context(), "login").Result()
			return err == nil && err2 == nil && len(others) == 2 && len(replicas) == 1
		}, 60*time.Second, 50*time.Millisecond, "the sentinels know each other")
		require.NoError(t, c.Close())
	}
	return primary, replica, sentinels
}

// The primary is killed while a token is obtained. The sentinels promote the replica, and the token gets there: nobody else refreshes
// meanwhile, and all have the new one in the end.
func TestSentinelFailover(t *testing.T) {
	primary, replica, sentinels := startSentinels(t)
	store := func() *Store {
		c := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "login", SentinelAddrs: sentinels})
		t.Cleanup(func() { c.Close() })
		return &Store{Client: c, Key: testKey}
	}
	s := store()
	expired := &oauth2.Token{AccessToken: "old", RefreshToken: "r0", Expiry: time.Now().Add(-time.Hour)}
	set(t, s, expired)
	require.Eventually(t, func() bool { // the lock, too, which Update has taken after the login was there
		return clientOf(replica.addr).Exists(t.Context(), testKey).Val() == 1
	}, 30*time.Second, 10*time.Millisecond)

	var fetches atomic.Int32
	fetch := func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
		n := fetches.Add(1)
		if n == 1 {
			require.Eventually(t, func() bool {
				return clientOf(replica.addr).Exists(t.Context(), s.lockKey()).Val() == 1
			}, 20*time.Second, 5*time.Millisecond, "the replica knows of the lock")
			primary.kill()
		}
		return &oauth2.Token{AccessToken: fmt.Sprint("new", n), RefreshToken: fmt.Sprint("r", n), Expiry: time.Now().Add(time.Hour)}, nil
	}
	source := &authretry.TokenSource{Fetch: fetch, Store: s}
	token, err := source.Token()
	require.NoError(t, err)
	require.Equal(t, "new1", token.AccessToken)
	other := store()
	require.Eventually(t, func() bool {
		r, err := other.Load(t.Context())
		return err == nil && r != nil && r.Token.AccessToken == "new1"
	}, 100*time.Second, 50*time.Millisecond, "it is stored where the replica was promoted")
	token, err = (&authretry.TokenSource{Fetch: fetch, Store: other}).Token()
	require.NoError(t, err)
	require.Equal(t, "new1", token.AccessToken)
	require.EqualValues(t, 1, fetches.Load())
}
