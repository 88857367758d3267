//go:build unix

package redisstore

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

func record(accessToken string) *authretry.Record {
	return &authretry.Record{Token: &oauth2.Token{AccessToken: accessToken}}
}

// An Update asks for the lock, and by the time that it gets the answer, another one has it.
func TestLockWhoseAnswerComesLateIsNotTaken(t *testing.T) {
	r := start(t)
	set(t, storeAt(r.addr), &oauth2.Token{AccessToken: "old"})
	p, client := through(t, r.addr)
	slow := &Store{Client: client, Key: testKey, LockTTL: 150 * time.Millisecond}
	require.Equal(t, "old", accessToken(t, slow)) // so there is a connection

	p.answers.close()
	var busy, together atomic.Bool
	done := make(chan error)
	go func() {
		done <- slow.Update(t.Context(), func(_ context.Context, current *authretry.Record, _ func(context.Context) error) (*authretry.Record, error) {
			together.Store(busy.Load())
			return record(current.Token.AccessToken + " and newest"), nil
		})
	}()
	require.Eventually(t, func() bool { return clientOf(r.addr).Exists(t.Context(), slow.lockKey()).Val() == 1 }, 30*time.Second, time.Millisecond)
	_, err := update(storeAt(r.addr), t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) {
		busy.Store(true)
		defer busy.Store(false)
		p.answers.open()
		time.Sleep(100 * time.Millisecond)
		return &oauth2.Token{AccessToken: "newer"}, nil
	})
	require.NoError(t, err)
	require.NoError(t, <-done)
	require.False(t, together.Load(), "two hold the lock")
	require.Equal(t, "newer and newest", accessToken(t, slow))
}

// A lock that came too late, or for somebody who no longer waits, is given back, rather than left to expire.
func TestLockThatNobodyWaitsForIsReleased(t *testing.T) {
	r := start(t)
	p, client := through(t, r.addr)
	s := &Store{Client: client, Key: testKey, LockTTL: time.Minute}
	set(t, s, &oauth2.Token{AccessToken: "a"}) // so Redis knows the scripts
	p.answers.close()
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan struct{})
	go func() {
		defer close(given)
		defer cancel()
		for clientOf(r.addr).Exists(ctx, s.lockKey()).Val() == 0 {
			time.Sleep(time.Millisecond)
		}
	}()
	begin := time.Now()
	_, err := update(s, ctx, mustNotRun(t))
	require.ErrorIs(t, err, context.Canceled)
	<-given
	require.Less(t, time.Since(begin), 15*time.Second, "the client does not go by the context")
	require.EqualValues(t, 1, clientOf(r.addr).Exists(t.Context(), s.lockKey()).Val())
	p.answers.open()
	require.Eventually(t, func() bool { return clientOf(r.addr).Exists(t.Context(), s.lockKey()).Val() == 0 }, 30*time.Second, 5*time.Millisecond)
}

// inUpdate runs f within an Update, with confirm, and returns what confirm said.
func inUpdate(t *testing.T, s *Store, f func(confirm func(context.Context) error) error) error {
	t.Helper()
	var said error
	require.NoError(t, s.Update(t.Context(), func(_ context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		said = f(confirm)
		return nil, nil
	}))
	return said
}

func TestConfirmExtendsTheLockAndLeavesTheTokenAsItIs(t *testing.T) {
	r := start(t)
	s := storeAt(r.addr)
	s.LockTTL = time.Minute
	confirmAfter := func() error {
		return inUpdate(t, s, func(confirm func(context.Context) error) error {
			require.NoError(t, clientOf(r.addr).PExpire(t.Context(), s.lockKey(), 20*time.Second).Err())
			require.NoError(t, confirm(t.Context()))
			require.Greater(t, clientOf(r.addr).PTTL(t.Context(), s.lockKey()).Val(), 50*time.Second)
			return confirm(t.Context())
		})
	}
	require.NoError(t, confirmAfter(), "there is nothing yet")
	require.Zero(t, clientOf(r.addr).Exists(t.Context(), testKey).Val())
	raw := `{"version": 1, "access_token": "a"}`
	require.NoError(t, clientOf(r.addr).Set(t.Context(), testKey, raw, time.Hour).Err())
	require.NoError(t, confirmAfter())
	require.Equal(t, raw, clientOf(r.addr).Get(t.Context(), testKey).Val())
	require.Greater(t, clientOf(r.addr).PTTL(t.Context(), testKey).Val(), time.Minute)
}

func TestConfirmFailsIfTheLockIsLostOrNothingCanBeWritten(t *testing.T) {
	_, elsewhere, err := net.SplitHostPort(start(t).addr)
	require.NoError(t, err)
	for name, test := range map[string]struct {
		do   func(c *redis.Client, lockKey string) error
		want string
	}{
		"lock expired":        {func(c *redis.Client, k string) error { return c.Del(t.Context(), k).Err() }, "it has expired"},
		"another one's lock":  {func(c *redis.Client, k string) error { return c.Set(t.Context(), k, "another", 0).Err() }, "it has expired"},
		"another one's token": {func(c *redis.Client, k string) error { return c.Set(t.Context(), testKey, "another", 0).Err() }, "another token has been stored"},
		"empty Redis":         {func(c *redis.Client, k string) error { return c.FlushAll(t.Context()).Err() }, "it has expired"},
		"replica": {func(c *redis.Client, k string) error {
			return c.Do(t.Context(), "REPLICAOF", "127.0.0.1", elsewhere).Err()
		}, "READONLY"},
		"out of memory": {func(c *redis.Client, k string) error { return c.ConfigSet(t.Context(), "maxmemory", "1").Err() }, "OOM"},
		"no replicas": {func(c *redis.Client, k string) error {
			return c.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err()
		}, "NOREPLICAS"},
		"no permission to SET": {func(c *redis.Client, k string) error {
			return c.Do(t.Context(), "ACL", "SETUSER", "default", "-set").Err()
		}, "SET"},
		"token's key read-only": {func(c *redis.Client, k string) error {
			return c.Do(t.Context(), "ACL", "SETUSER", "default", "resetkeys", "%R~"+testKey, "~"+k).Err()
		}, "SET"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			s := storeAt(r.addr)
			set(t, s, &oauth2.Token{AccessToken: "old"})
			err := inUpdate(t, s, func(confirm func(context.Context) error) error {
				require.NoError(t, confirm(t.Context()))
				require.NoError(t, test.do(clientOf(r.addr), s.lockKey()))
				return confirm(t.Context())
			})
			require.ErrorContains(t, err, "redisstore: cannot confirm")
			require.ErrorContains(t, err, test.want)
			t.Log(err)
		})
	}
}

func TestConfirmFailsIfTheAnswerComesLate(t *testing.T) {
	t.Parallel()
	r := start(t)
	p, client := through(t, r.addr)
	s := &Store{Client: client, Key: testKey, LockTTL: time.Second}
	err := inUpdate(t, s, func(confirm func(context.Context) error) error {
		p.answers.close()
		begin := time.Now()
		err := confirm(t.Context())
		require.Less(t, time.Since(begin), 15*time.Second, "the client does not go by the context")
		p.answers.open()
		return err
	})
	require.ErrorIs(t, err, errNoAnswer)
	require.NotErrorIs(t, err, context.DeadlineExceeded, "which is not the caller's")

	err = inUpdate(t, s, func(confirm func(context.Context) error) error {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		return confirm(ctx)
	})
	require.ErrorIs(t, err, context.Canceled)
}

// As with RefreshWhenDown before there is a lock.
func TestConfirmOfRefreshWhenDown(t *testing.T) {
	r := start(t)
	s := storeAt(r.addr)
	s.RefreshWhenDown = true
	require.Error(t, inUpdate(t, s, func(confirm func(context.Context) error) error {
		takeLock(t, s)
		return confirm(t.Context())
	}))
	require.NoError(t, inUpdate(t, s, func(confirm func(context.Context) error) error {
		r.kill()
		return confirm(t.Context())
	}))
	require.NoError(t, inUpdate(t, s, func(confirm func(context.Context) error) error { return confirm(t.Context()) }))
}

// A connection hangs in which the first extension is under way. The next one takes another.
func TestLockIsExtendedThoughAConnectionHangs(t *testing.T) {
	t.Parallel()
	r := start(t)
	p, client := through(t, r.addr)
	s := &Store{Client: client, Key: testKey, LockTTL: 2 * time.Second}
	require.NoError(t, inUpdate(t, s, func(confirm func(context.Context) error) error {
		p.requests.close()
		time.Sleep(s.LockTTL / 2)
		p.requests.openForOthers()
		time.Sleep(s.LockTTL)
		return confirm(t.Context())
	}))
}

func TestReleaseDoesNotWaitLong(t *testing.T) {
	r := start(t)
	p, client := through(t, r.addr)
	s := &Store{Client: client, Key: testKey, LockTTL: time.Hour}
	set(t, s, &oauth2.Token{AccessToken: "a"})
	begin := time.Now()
	require.NoError(t, inUpdate(t, s, func(func(context.Context) error) error {
		p.answers.close()
		return nil
	}))
	require.Less(t, time.Since(begin), 15*time.Second, "the client does not go by the context")
	require.Eventually(t, func() bool { return clientOf(r.addr).Exists(t.Context(), s.lockKey()).Val() == 0 }, 30*time.Second, time.Millisecond, "it is heard")
}

func TestWriteWithoutAnAnswerMayHaveBeenStored(t *testing.T) {
	t.Parallel()
	r := start(t)
	set(t, storeAt(r.addr), &oauth2.Token{AccessToken: "old"})
	p, client := through(t, r.addr)
	s := &Store{Client: client, Key: testKey, LockTTL: 2 * time.Second}
	begin := time.Now()
	err := s.Update(t.Context(), func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
		p.answers.close()
		return record("new-secret"), nil
	})
	require.Less(t, time.Since(begin), 15*time.Second, "the client does not go by the context")
	require.ErrorContains(t, err, "may have been stored")
	require.ErrorIs(t, err, errNoAnswer)
	require.NotErrorIs(t, err, ErrLockLost)
	require.NotContains(t, err.Error(), "secret")
	require.Equal(t, "new-secret", accessToken(t, storeAt(r.addr)))
	p.answers.open()
	set(t, s, &oauth2.Token{AccessToken: "newer"})
	require.Equal(t, "newer", accessToken(t, s))
}

// The write reaches Redis after Update has given it up: while others still wait for the lock, or after they have stored
// another token.
func TestLateWriteOverwritesNoNewerToken(t *testing.T) {
	for name, lateBy := range map[string]time.Duration{"in time for the next": 0, "too late": time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t)
			set(t, storeAt(r.addr), &oauth2.Token{AccessToken: "old"})
			p, client := through(t, r.addr)
			s := &Store{Client: client, Key: testKey, LockTTL: 2 * time.Second}
			err := s.Update(t.Context(), func(_ context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
				require.NoError(t, confirm(t.Context()))
				p.requests.close()
				return record("late"), nil
			})
			require.ErrorContains(t, err, "may have been stored, or be stored yet")
			if lateBy == 0 {
				p.requests.open()
				require.Eventually(t, func() bool { return accessToken(t, storeAt(r.addr)) == "late" }, 30*time.Second, 5*time.Millisecond)
				return
			}
			set(t, storeAt(r.addr), &oauth2.Token{AccessToken: "newer"}) // when the lock has expired
			p.requests.open()
			require.NoError(t, client.Ping(t.Context()).Err())
			time.Sleep(50 * time.Millisecond)
			require.Equal(t, "newer", accessToken(t, s))
		})
	}
}

// breaking is a client whose connection breaks when it is asked to write.
type breaking struct{ redis.Scripter }

func (b breaking) EvalSha(ctx context.Context, sha1 string, keys []string, args ...any) *redis.Cmd {
	if sha1 == writeScript.Hash() {
		cmd := redis.NewCmd(ctx)
		cmd.SetErr(io.ErrUnexpectedEOF)
		return cmd
	}
	return b.Scripter.EvalSha(ctx, sha1, keys, args...)
}

// A lock under which a write may still be on its way is left to expire.
func TestUnsureHolderKeepsOthersOut(t *testing.T) {
	t.Parallel()
	r := start(t)
	s := &Store{Client: breaking{clientOf(r.addr)}, Key: testKey, LockTTL: 2 * time.Second}
	var confirmed time.Time
	err := s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		confirmed = time.Now()
		return record("new"), confirm(ctx)
	})
	require.ErrorContains(t, err, "may have been stored")
	set(t, storeAt(r.addr), &oauth2.Token{AccessToken: "newer"})
	require.GreaterOrEqual(t, time.Since(confirmed), s.LockTTL)
}

// userOf returns a client for a user who may do what the package comment says, and no more.
func userOf(t *testing.T, r *server, without string) *redis.Client {
	rules := []any{"ACL", "SETUSER", "myapp", "reset", "on", ">password", "~" + testKey, "~{" + testKey + "}:lock"}
	for _, c := range []string{"+evalsha", "+eval", "+get", "+set", "+del"} {
		if c != "+"+without {
			rules = append(rules, c)
		}
	}
	require.NoError(t, clientOf(r.addr).Do(t.Context(), rules...).Err())
	client := redis.NewClient(&redis.Options{Addr: r.addr, Username: "myapp", Password: "password"})
	t.Cleanup(func() { client.Close() })
	return client
}

func TestUserNeedsWhatThePackageCommentSays(t *testing.T) {
	t.Parallel()
	r := start(t)
	s := &Store{Client: userOf(t, r, ""), Key: testKey, LockTTL: 2 * time.Second}
	for _, token := range []string{"first", "second"} {
		require.NoError(t, s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
			waiting, cancel := context.WithTimeout(t.Context(), 2*s.LockTTL)
			defer cancel()
			_, err := update(storeAt(r.addr), waiting, mustNotRun(t))
			require.ErrorIs(t, err, context.DeadlineExceeded, "the lock is extended, without PEXPIRE")
			require.ErrorIs(t, err, errTaken, "which is why there was none")
			return record(token), confirm(ctx)
		}))
		require.Equal(t, token, accessToken(t, s))
	}
	require.Zero(t, clientOf(r.addr).Exists(t.Context(), s.lockKey()).Val())

	for _, command := range []string{"evalsha", "get", "set", "del"} {
		t.Run("without "+command, func(t *testing.T) {
			_, err := update(&Store{Client: userOf(t, r, command), Key: testKey, RefreshWhenDown: true}, t.Context(), mustNotRun(t))
			require.ErrorContains(t, err, "redisstore: cannot lock")
			require.ErrorContains(t, err, "the user needs EVALSHA, EVAL, GET, SET and DEL")
			require.Zero(t, clientOf(r.addr).Exists(t.Context(), s.lockKey()).Val())
			t.Log(err)
		})
	}
	t.Run("without eval", func(t *testing.T) {
		require.NoError(t, clientOf(r.addr).ScriptFlush(t.Context()).Err())
		_, err := update(&Store{Client: userOf(t, r, "eval"), Key: testKey}, t.Context(), mustNotRun(t))
		require.ErrorContains(t, err, "the user needs EVALSHA, EVAL, GET, SET and DEL")
	})
}

// A lock that cannot be taken, because there is no login in the key, is none.
func TestUnreadableKeyIsNotLocked(t *testing.T) {
	r := start(t)
	s := storeAt(r.addr)
	require.NoError(t, clientOf(r.addr).HSet(t.Context(), testKey, "f", "v").Err())
	_, err := update(s, t.Context(), mustNotRun(t))
	require.ErrorContains(t, err, "WRONGTYPE")
	require.Zero(t, clientOf(r.addr).Exists(t.Context(), s.lockKey()).Val())
}

type panicking struct{ redis.Scripter }

func (panicking) EvalSha(context.Context, string, []string, ...any) *redis.Cmd { panic("boom") }

func TestPanicOfTheClientIsTheCallers(t *testing.T) {
	s := &Store{Client: panicking{}, Key: testKey}
	require.PanicsWithValue(t, "boom", func() { s.Load(t.Context()) })
	require.PanicsWithValue(t, "boom", func() { update(s, t.Context(), mustNotRun(t)) })
}

// scripts counts the scripts that are sent.
type scripts struct {
	redis.Scripter
	n atomic.Int32
}

func (s *scripts) EvalSha(ctx context.Context, sha1 string, keys []string, args ...any) *redis.Cmd {
	s.n.Add(1)
	return s.Scripter.EvalSha(ctx, sha1, keys, args...)
}

func TestScriptsOfAnUpdate(t *testing.T) {
	client := &scripts{Scripter: clientOf(start(t).addr)}
	s := &Store{Client: client, Key: testKey}
	require.NoError(t, inUpdate(t, s, func(func(context.Context) error) error { return nil }))
	require.EqualValues(t, 2, client.n.Swap(0), "lock and read, release")
	require.NoError(t, s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		return record("a"), confirm(ctx)
	}))
	require.EqualValues(t, 4, client.n.Load(), "lock and read, confirm, write, release")
}

func TestErrorsNameWhatIsMissingInTheWordsOfEachVersion(t *testing.T) {
	for _, text := range []string{
		"NOPERM this user has no permissions to run the 'evalsha' command",
		"NOPERM User myapp has no permissions to run the 'evalsha' command",
		"ERR Error running script (call to f_0): @user_script:2: @user_script: 2: -NOPERM this user has no permissions to run the 'set' command or its subcommand",
		"ERR The user executing the script can't run this command or subcommand script: 0, on @user_script:2.",
		"ERR The user executing the script can't access at least one of the keys mentioned in the command arguments script: 0, on @user_script:2.",
		"ERR ACL failure in script: User myapp has no permissions to run the 'set' command script: 0, on @user_script:2.",
	} {
		err := failed("lock", "k", redisError(text))
		require.ErrorContains(t, err, "the user needs", text)
		require.False(t, isDown(err))
	}
	require.False(t, isForbidden(errors.New(strings.Repeat("ACL failure", 2))), "which is not of the server")
}

type redisError string

func (e redisError) Error() string { return string(e) }
func (redisError) RedisError()     {}
