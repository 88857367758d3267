//go:build unix

package redisstore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/storetest"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

var _ authretry.TokenStore = (*Store)(nil)

const testKey = "app:login"

// update is Update for who is interested in tokens alone.
func update(s *Store, ctx context.Context, fn func(ctx context.Context, current *oauth2.Token) (*oauth2.Token, error)) (*oauth2.Token, error) {
	var got *oauth2.Token
	err := s.Update(ctx, func(ctx context.Context, current *authretry.Record, _ func(context.Context) error) (*authretry.Record, error) {
		var t *oauth2.Token
		if current != nil {
			t = current.Token
		}
		next, err := fn(ctx, t)
		if got = next; err != nil || next == nil {
			return nil, err
		}
		return &authretry.Record{Token: next}, nil
	})
	return got, err
}

// loadToken is Load for who is interested in tokens alone.
func loadToken(s *Store, ctx context.Context) (*oauth2.Token, error) {
	r, err := s.Load(ctx)
	if r == nil {
		return nil, err
	}
	return r.Token, err
}

// TestMain lets the test binary be one of the processes that share a login, and says once if there is no Redis.
func TestMain(m *testing.M) {
	redis.SetLogger(quiet{})
	storetest.Child(open)
	if addr := os.Getenv("REDISSTORE_HOLD"); addr != "" {
		fmt.Println(hold(storeAt(addr)))
		os.Exit(0)
	}
	if _, err := exec.LookPath("redis-server"); err != nil && os.Getenv("AUTHRETRY_INTEROP") != "require" {
		fmt.Println("redis-server is not installed (Debian's package redis-server): the tests that need it are skipped")
	}
	os.Exit(m.Run())
}

// quiet keeps to itself what the client logs when the server is gone.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// A server is a redis-server of the test's own.
type server struct {
	addr  string
	args  []string
	cmd   *exec.Cmd
	ended chan error // has what cmd.Wait says
}

// start runs a redis-server on a free port until the test ends.
func start(t testing.TB, args ...string) *server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("AUTHRETRY_INTEROP") == "require" {
			t.Fatal("redis-server is not installed")
		}
		t.SkipNow()
	}
	s := &server{addr: freeAddr(t)}
	_, port, err := net.SplitHostPort(s.addr)
	require.NoError(t, err)
	s.args = append([]string{"--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port", port, "--dir", t.TempDir(), "--loglevel", "warning"}, args...)
	t.Cleanup(s.kill)
	s.run(t)
	return s
}

// run starts the server, empty, and waits until it answers.
func (s *server) run(t testing.TB) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var output bytes.Buffer
		cmd, ended := exec.Command("redis-server", s.args...), make(chan error, 1)
		cmd.Stdout, cmd.Stderr = &output, &output
		require.NoError(t, cmd.Start())
		go func() { ended <- cmd.Wait() }()
		s.cmd, s.ended = cmd, ended
		for time.Now().Before(end) && len(ended) == 0 {
			err := clientOf(s.addr).Ping(t.Context()).Err()
			if _, isAnswer := errors.AsType[redis.Error](err); err == nil || isAnswer {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		s.kill() // somebody else's connection may have had the port
		require.True(t, time.Now().Before(end), "%s", &output)
	}
}

func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.ended
		s.cmd = nil
	}
}

// freeAddr returns an address that is free, as is the one of the cluster's bus, whose port is 10,000 higher.
func freeAddr(t testing.TB) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		bus, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", l.Addr().(*net.TCPAddr).Port+10_000))
		require.NoError(t, l.Close())
		if err == nil {
			require.NoError(t, bus.Close())
			return l.Addr().String()
		}
	}
}

var clients sync.Map // by address

// clientOf returns a client that tries once more, and gives up when its context ends.
func clientOf(addr string) *redis.Client {
	c, _ := clients.LoadOrStore(addr, redis.NewClient(&redis.Options{
		Addr: addr, MaxRetries: 1, DialerRetries: 1, DialTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, ContextTimeoutEnabled: true,
	}))
	return c.(*redis.Client)
}

func storeAt(addr string) *Store {
	return &Store{Client: clientOf(addr), Key: testKey, LockTTL: 2 * time.Second}
}

func set(t *testing.T, s *Store, token *oauth2.Token) {
	t.Helper()
	_, err := update(s, t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) { return token, nil })
	require.NoError(t, err)
}

func accessToken(t *testing.T, s *Store) string {
	t.Helper()
	token, err := loadToken(s, t.Context())
	require.NoError(t, err)
	require.NotNil(t, token)
	return token.AccessToken
}

// mustNotRun is for an Update that must not come to call it.
func mustNotRun(t *testing.T) func(context.Context, *oauth2.Token) (*oauth2.Token, error) {
	return func(context.Context, *oauth2.Token) (*oauth2.Token, error) {
		t.Error("fn must not be called")
		return nil, nil
	}
}

func TestTokenComesBackWhole(t *testing.T) {
	r := start(t)
	s := storeAt(r.addr)
	none, err := loadToken(s, t.Context())
	require.NoError(t, err)
	require.Nil(t, none)
	want := (&oauth2.Token{AccessToken: "a\u00e4\"", RefreshToken: "r", TokenType: "bearer", Expiry: time.Now().Add(time.Hour)}).
		WithExtra(map[string]any{"id_token": "i", "scope": "s t", "other": "x"})
	written := &authretry.Record{Token: want, Scopes: []string{"s", "t"}, Issuer: "https://login.example", TokenURL: "https://login.example/token", ClientID: "c",
		Resource: "https://api.example", KeyThumbprint: "k"}
	require.NoError(t, s.Update(t.Context(), func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
		return written, nil
	}))
	read, err := storeAt(r.addr).Load(t.Context())
	require.NoError(t, err)
	got := read.Token
	read.Token, written.Token = nil, nil
	require.Equal(t, written, read)
	require.Equal(t, want.AccessToken, got.AccessToken)
	require.Equal(t, want.RefreshToken, got.RefreshToken)
	require.Equal(t, want.TokenType, got.TokenType)
	require.True(t, want.Expiry.Equal(got.Expiry))
	require.Equal(t, "i", got.Extra("id_token"))
	require.Equal(t, "s t", got.Extra("scope"))
	keys, err := clientOf(r.addr).Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	require.Equal(t, []string{testKey}, keys, "the lock is gone")
	ttl, err := clientOf(r.addr).TTL(t.Context(), testKey).Result()
	require.NoError(t, err)
	require.EqualValues(t, -1, ttl, "the token stays")
}

func TestSameTokenIsNotWrittenAgain(t *testing.T) {
	r := start(t)
	s := storeAt(r.addr)
	require.NoError(t, clientOf(r.addr).Set(t.Context(), testKey, `{"version": 1, "access_token": "a"}`, 0).Err())
	_, err := update(s, t.Context(), func(_ context.Context, current *oauth2.Token) (*oauth2.Token, error) { return current, nil })
	require.NoError(t, err)
	require.Equal(t, `{"version": 1, "access_token": "a"}`, clientOf(r.addr).Get(t.Context(), testKey).Val())
}

// itself returns a command for another process of this test binary.
func itself(t *testing.T, env ...string) *exec.Cmd {
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout = os.Stdout
	return cmd
}

// takeLock makes the lock of the holder that calls it another one's, as when it has expired.
func takeLock(t *testing.T, s *Store) {
	t.Helper()
	require.NoError(t, s.Client.(*redis.Client).Del(t.Context(), s.lockKey()).Err())
}

func TestHolderThatLostItsLockDoesNotOverwriteANewerToken(t *testing.T) {
	r := start(t)
	s := storeAt(r.addr)
	set(t, s, &oauth2.Token{AccessToken: "old", RefreshToken: "r"})
	got, err := update(s, t.Context(), func(_ context.Context, current *oauth2.Token) (*oauth2.Token, error) {
		takeLock(t, s)
		set(t, storeAt(r.addr), &oauth2.Token{AccessToken: "newer"})
		return &oauth2.Token{AccessToken: "late-secret"}, nil
	})
	require.ErrorIs(t, err, ErrLockLost)
	require.NotContains(t, err.Error(), "secret")
	require.Equal(t, "late-secret", got.AccessToken)
	require.Equal(t, "newer", accessToken(t, s))

	// The lock of another holder is not taken away by the one that lost its own.
	_, err = update(s, t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) {
		takeLock(t, s)
		require.NoError(t, clientOf(r.addr).Set(t.Context(), s.lockKey(), "another", 0).Err())
		return &oauth2.Token{AccessToken: "newest"}, nil
	})
	require.NoError(t, err)
	require.Equal(t, "another", clientOf(r.addr).Get(t.Context(), s.lockKey()).Val())
}

func TestHolderThatLostItsLockStoresItsTokenIfThereIsNoOther(t *testing.T) {
	r := start(t)
	s := storeAt(r.addr)
	set(t, s, &oauth2.Token{AccessToken: "old", RefreshToken: "r"})
	_, err := update(s, t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) {
		takeLock(t, s)
		return &oauth2.Token{AccessToken: "new"}, nil
	})
	require.NoError(t, err)
	require.Equal(t, "new", accessToken(t, s))
	_, err = update(s, t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) {
		require.NoError(t, clientOf(r.addr).FlushAll(t.Context()).Err())
		return &oauth2.Token{AccessToken: "newer"}, nil
	})
	require.NoError(t, err)
	require.Equal(t, "newer", accessToken(t, s))
}

// A process is stopped in the middle of fn for longer than its lock lives, as when its machine is suspended.
func TestSuspendedHolderFindsTheNewerToken(t *testing.T) {
	r := start(t)
	s := storeAt(r.addr)
	set(t, s, &oauth2.Token{AccessToken: "old"})
	cmd := itself(t, "REDISSTORE_HOLD="+r.addr)
	cmd.Stdout = nil
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(stdout)
	require.True(t, lines.Scan())
	require.Equal(t, "holding old", lines.Text())
	require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
	set(t, s, &oauth2.Token{AccessToken: "newer"}) // when the lock has expired
	require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
	require.NoError(t, stdin.Close())
	require.True(t, lines.Scan())
	require.Equal(t, fmt.Sprintf("%v: %s", ErrLockLost, testKey), lines.Text())
	require.Equal(t, "newer", accessToken(t, s))
}

// hold is an Update that lasts until stdin ends.
func hold(s *Store) error {
	_, err := update(s, context.Background(), func(_ context.Context, current *oauth2.Token) (*oauth2.Token, error) {
		fmt.Println("holding", current.AccessToken)
		_, _ = io.Copy(io.Discard, os.Stdin)
		return &oauth2.Token{AccessToken: "late"}, nil
	})
	return err
}

func TestRepeatedWriteIsNoLoss(t *testing.T) {
	r := start(t)
	s := storeAt(r.addr)
	l, err := s.lock(t.Context(), nil)
	require.NoError(t, err)
	token := []byte(`{"version":1,"access_token":"a"}`)
	require.NoError(t, l.write(t.Context(), token))
	require.NoError(t, l.write(t.Context(), token), "as by a client that did not get the answer")
	require.ErrorIs(t, l.write(t.Context(), []byte(`{"version":1,"access_token":"b"}`)), ErrLockLost)
}

func TestDamagedValueIsLeftAlone(t *testing.T) {
	r := start(t)
	for name, content := range map[string]string{
		"empty": "", "torn": `{"version":1,"access_token":"secr`, "no token": `{"version":1}`, "list": `["secret"]`, "null": "null",
		"wrong type": `{"version":1,"access_token":["secret"]}`, "version below 0": `{"version":-1,"access_token":"secret"}`,
		"newer version": `{"version":2,"access_token":"secret"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := storeAt(r.addr)
			s.RefreshWhenDown = true // which it is not
			require.NoError(t, clientOf(r.addr).Set(t.Context(), testKey, content, 0).Err())
			_, loadErr := loadToken(s, t.Context())
			require.ErrorContains(t, loadErr, "redisstore: ")
			_, err := update(s, t.Context(), mustNotRun(t))
			require.Equal(t, loadErr, err)
			require.NotContains(t, err.Error(), "secr")
			require.Equal(t, name != "newer version", errors.Is(err, ErrDamaged))
			require.Equal(t, content, clientOf(r.addr).Get(t.Context(), testKey).Val())
			require.NoError(t, clientOf(r.addr).Rename(t.Context(), testKey, testKey+":damaged").Err())
			set(t, s, &oauth2.Token{AccessToken: "new"})
		})
	}
	s := storeAt(r.addr)
	s.RefreshWhenDown = true
	require.NoError(t, clientOf(r.addr).Del(t.Context(), testKey).Err())
	require.NoError(t, clientOf(r.addr).HSet(t.Context(), testKey, "f", "secret").Err())
	_, err := update(s, t.Context(), mustNotRun(t))
	require.ErrorContains(t, err, "WRONGTYPE")
}

func TestSealedValueIsOpened(t *testing.T) {
	r := start(t)
	s := storeAt(r.addr)
	s.RefreshWhenDown = true
	s.Seal, s.Open = sealWith(bytes.Repeat([]byte{1}, 32), testKey)
	want := &oauth2.Token{AccessToken: "secret", RefreshToken: "secret too"}
	set(t, s, want)
	raw := clientOf(r.addr).Get(t.Context(), testKey).Val()
	require.NotContains(t, raw, "secret")
	require.NotContains(t, raw, "token")
	require.Equal(t, "secret", accessToken(t, s))
	_, err := update(s, t.Context(), func(_ context.Context, current *oauth2.Token) (*oauth2.Token, error) { return current, nil })
	require.NoError(t, err)
	require.Equal(t, raw, clientOf(r.addr).Get(t.Context(), testKey).Val(), "the same token is not sealed again")

	for name, other := range map[string]*Store{"another encryption key": {}, "another Redis key": {}, "altered": {}, "not sealed": {}, "truncated": {}, "read without Open": {}} {
		t.Run(name, func(t *testing.T) {
			other.Client, other.Key, other.RefreshWhenDown = s.Client, testKey, true
			other.Seal, other.Open = s.Seal, s.Open
			content := raw
			switch name {
			case "another encryption key":
				other.Seal, other.Open = sealWith(bytes.Repeat([]byte{2}, 32), testKey)
			case "another Redis key":
				other.Key = "elsewhere"
				other.Seal, other.Open = sealWith(bytes.Repeat([]byte{1}, 32), other.Key)
			case "altered":
				content = raw[:20] + string(raw[20]^1) + raw[21:]
			case "not sealed":
				content = `{"version":1,"access_token":"secret"}`
			case "truncated":
				content = raw[:5]
			case "read without Open":
				other.Seal, other.Open = nil, nil
			}
			require.NoError(t, clientOf(r.addr).Set(t.Context(), other.Key, content, 0).Err())
			_, err := loadToken(other, t.Context())
			require.ErrorContains(t, err, "redisstore: ")
			_, err = update(other, t.Context(), mustNotRun(t))
			require.ErrorContains(t, err, "redisstore: ")
			require.NotContains(t, err.Error(), "secret")
			require.Equal(t, content, clientOf(r.addr).Get(t.Context(), other.Key).Val(), "nothing is overwritten")
		})
	}

	boom := errors.New("boom")
	s.Seal = func([]byte) ([]byte, error) { return nil, boom }
	require.NoError(t, clientOf(r.addr).Set(t.Context(), testKey, raw, 0).Err())
	got, err := update(s, t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) {
		return &oauth2.Token{AccessToken: "new"}, nil
	})
	require.ErrorIs(t, err, boom)
	require.Equal(t, "new", got.AccessToken)
	require.Equal(t, raw, clientOf(r.addr).Get(t.Context(), testKey).Val())
	s.Open = s.Seal
	_, err = loadToken(s, t.Context())
	require.ErrorIs(t, err, boom)
	s.Seal = nil
	_, err = update(s, t.Context(), mustNotRun(t))
	require.ErrorContains(t, err, "belong together")
}

func TestMistakesInTheFieldsAreErrors(t *testing.T) {
	for _, s := range []*Store{{}, {Key: "k"}, {Client: clientOf("127.0.0.1:1")}} {
		_, err := loadToken(s, t.Context())
		require.ErrorContains(t, err, "redisstore: Store.")
		_, err = update(s, t.Context(), mustNotRun(t))
		require.ErrorContains(t, err, "redisstore: Store.")
	}
}

func TestDownRedisIsAnErrorUntilItComesBack(t *testing.T) {
	r := start(t)
	s := storeAt(r.addr)
	set(t, s, &oauth2.Token{AccessToken: "a", RefreshToken: "r"})
	r.kill()
	begin := time.Now()
	_, err := loadToken(s, t.Context())
	require.ErrorContains(t, err, "redisstore: cannot read")
	_, err = update(s, t.Context(), mustNotRun(t))
	require.ErrorContains(t, err, "redisstore: cannot lock")
	require.Less(t, time.Since(begin), 5*time.Second)
	r.run(t)
	set(t, s, &oauth2.Token{AccessToken: "b"})
	got, err := update(s, t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) {
		r.kill()
		return &oauth2.Token{AccessToken: "secret"}, nil
	})
	require.ErrorContains(t, err, "redisstore: cannot write")
	require.NotContains(t, err.Error(), "secret")
	require.Equal(t, "secret", got.AccessToken)
}

// Redis accepts connections, but does not answer.
func TestHungRedisObeysTheContext(t *testing.T) {
	r := start(t)
	client := redis.NewClient(&redis.Options{Addr: r.addr, ReadTimeout: time.Minute, ContextTimeoutEnabled: true})
	defer client.Close()
	s := &Store{Client: client, Key: testKey}
	set(t, s, &oauth2.Token{AccessToken: "a"})
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGSTOP))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := loadToken(s, ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = update(s, ctx, mustNotRun(t))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(begin), 30*time.Second, "which the client's own timeout is not")
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGCONT))
	require.Equal(t, "a", accessToken(t, s))
}

func TestRefreshWhenDownGoesOnWithTheLastToken(t *testing.T) {
	r := start(t)
	s := storeAt(r.addr)
	s.RefreshWhenDown = true
	writer := storeAt(r.addr)
	writer.RefreshWhenDown = true
	set(t, writer, &oauth2.Token{AccessToken: "a", RefreshToken: "r"})
	require.Equal(t, "a", accessToken(t, s))
	r.kill()
	for _, s := range []*Store{s, writer} {
		got, err := update(s, t.Context(), func(_ context.Context, current *oauth2.Token) (*oauth2.Token, error) {
			require.Equal(t, "r", current.RefreshToken)
			return &oauth2.Token{AccessToken: "b"}, nil
		})
		require.ErrorContains(t, err, "not stored")
		require.Equal(t, "b", got.AccessToken)
	}
	boom := errors.New("boom")
	_, err := update(s, t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) { return nil, boom })
	require.ErrorIs(t, err, boom)
	_, err = update(s, t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) { return nil, nil })
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = update(s, ctx, mustNotRun(t))
	require.ErrorIs(t, err, context.Canceled)

	s = storeAt(r.addr) // which has never seen a token
	s.RefreshWhenDown = true
	got, err := update(s, t.Context(), func(_ context.Context, current *oauth2.Token) (*oauth2.Token, error) {
		require.Nil(t, current)
		return &oauth2.Token{AccessToken: "c"}, nil
	})
	require.ErrorContains(t, err, "not stored")
	require.Equal(t, "c", got.AccessToken)
}

// rotating issues tokens, each for a refresh token that is used once.
type rotating struct {
	mu      sync.Mutex
	fetches int
	reused  int
	life    time.Duration
}

func (r *rotating) fetch(_ context.Context, q authretry.TokenRequest) (*oauth2.Token, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q.Previous == nil || q.Previous.RefreshToken != fmt.Sprint("r", r.fetches) {
		r.reused++
		return nil, errors.New("reused")
	}
	r.fetches++
	return &oauth2.Token{AccessToken: fmt.Sprint("new", r.fetches), RefreshToken: fmt.Sprint("r", r.fetches), Expiry: time.Now().Add(r.life)}, nil
}

func (r *rotating) counts() (fetches, reused int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fetches, r.reused
}

var expired = &oauth2.Token{AccessToken: "old", RefreshToken: "r0", Expiry: time.Now().Add(-time.Hour)}

// Tokens live for a moment, and each refresh token is good for once: whoever refreshes without having seen what the
// others did is found out.
func TestRotatingLoginSurvivesManyExpiries(t *testing.T) {
	const sources, goroutines, expiries = 8, 4, 12
	r := start(t)
	set(t, storeAt(r.addr), expired)
	server := &rotating{life: 300 * time.Millisecond}
	var wg sync.WaitGroup
	var calls atomic.Int64
	for range sources {
		source := &authretry.TokenSource{Fetch: server.fetch, Store: storeAt(r.addr)}
		for range goroutines {
			wg.Go(func() {
				for {
					if fetches, reused := server.counts(); fetches >= expiries || reused > 0 {
						return
					}
					if _, err := source.Token(); err != nil {
						t.Error(err)
						return
					}
					calls.Add(1)
				}
			})
		}
	}
	wg.Wait()
	fetches, reused := server.counts()
	require.Zero(t, reused)
	t.Logf("%d calls of Token, %d refreshes", calls.Load(), fetches)
}

func TestTokenSourceGoesOnWithItsTokenWhileRedisIsDown(t *testing.T) {
	r := start(t)
	set(t, storeAt(r.addr), expired)
	server := &rotating{life: time.Hour}
	source := &authretry.TokenSource{Fetch: server.fetch, Store: storeAt(r.addr)}
	_, err := source.Token()
	require.NoError(t, err)
	r.kill()
	token, err := source.Token()
	require.NoError(t, err)
	require.Equal(t, "new1", token.AccessToken)
	_, err = source.Refresh(t.Context(), token) // a server has refused it
	require.ErrorContains(t, err, "redisstore: cannot lock")
	fetches, _ := server.counts()
	require.Equal(t, 1, fetches, "no refresh without the lock")
}

// A rotated refresh token is not used again because Redis, which was down meanwhile, still has the old one.
func TestTokenObtainedWhileRedisWasDownIsStoredLater(t *testing.T) {
	r := start(t)
	raw := `{"version":1,"access_token":"old","refresh_token":"r0","expiry":"2020-01-01T00:00:00Z"}`
	require.NoError(t, clientOf(r.addr).Set(t.Context(), testKey, raw, 0).Err())
	server := &rotating{life: time.Hour}
	s := storeAt(r.addr)
	s.RefreshWhenDown = true
	var down atomic.Bool
	source := &authretry.TokenSource{Store: s, MinRefreshInterval: -1, Fetch: func(ctx context.Context, q authretry.TokenRequest) (*oauth2.Token, error) {
		if !down.Load() {
			r.kill() // between the lock and the write
			down.Store(true)
		}
		return server.fetch(ctx, q)
	}}
	token, err := source.Token()
	require.NoError(t, err)
	require.Equal(t, "new1", token.AccessToken)
	token, err = source.Refresh(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, "new2", token.AccessToken)
	r.run(t)
	require.NoError(t, clientOf(r.addr).Set(t.Context(), testKey, raw, 0).Err()) // as Redis would have it
	token, err = source.Refresh(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, "new3", token.AccessToken)
	require.Equal(t, "new3", accessToken(t, s))
	_, reused := server.counts()
	require.Zero(t, reused)
}

func TestLockIsInTheSlotOfItsKey(t *testing.T) {
	for key, want := range map[string]string{
		"login": "{login}:lock", "{app}:login": "{app}:login:lock", "{}login": "{{}login}:lock", "a{b": "{a{b}:lock", "x{app}{y}": "x{app}{y}:lock",
	} {
		require.Equal(t, want, (&Store{Key: key}).lockKey())
	}
}

func TestClusterOfOneNode(t *testing.T) {
	r := start(t, "--cluster-enabled", "yes", "--cluster-port", "0")
	require.NoError(t, clientOf(r.addr).Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err())
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{r.addr}, ReadOnly: true})
	t.Cleanup(func() { client.Close() })
	for _, key := range []string{"login", "{app}:login", "x{app}{y}"} {
		s := &Store{Client: client, Key: key}
		require.Equal(t, client.ClusterKeySlot(t.Context(), key).Val(), client.ClusterKeySlot(t.Context(), s.lockKey()).Val())
		require.Eventually(t, func() bool {
			_, err := loadToken(s, t.Context())
			return err == nil
		}, 30*time.Second, 10*time.Millisecond)
		set(t, s, &oauth2.Token{AccessToken: "a"})
		set(t, s, &oauth2.Token{AccessToken: "b"})
		require.Equal(t, "b", accessToken(t, s))
	}
}

func TestErrorsAndPrintsHaveNoSecrets(t *testing.T) {
	r := start(t, "--requirepass", "password-secret", "--rename-command", "EVALSHA", "", "--rename-command", "EVAL", "")
	client := redis.NewClient(&redis.Options{Addr: r.addr, Password: "password-secret"})
	t.Cleanup(func() { client.Close() })
	s := &Store{Client: client, Key: testKey}
	s.last.Store(&authretry.Record{Token: &oauth2.Token{AccessToken: "token-secret"}})
	err := (&lock{store: s, value: "old-secret"}).write(t.Context(), []byte("token-secret"))
	require.ErrorContains(t, err, "unknown command")
	require.NotContains(t, err.Error(), "secret")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%q"} {
		require.Equal(t, `redisstore.Store{Key: "app:login"}`, fmt.Sprintf(verb, s))
	}
	text, err := json.Marshal(s)
	require.NoError(t, err)
	require.JSONEq(t, `{"Key": "app:login"}`, string(text))
}

func TestReadOnlyReplicaIsDown(t *testing.T) {
	r := start(t)
	_, port, err := net.SplitHostPort(start(t).addr)
	require.NoError(t, err)
	require.NoError(t, clientOf(r.addr).Do(t.Context(), "REPLICAOF", "127.0.0.1", port).Err())
	_, err = update(storeAt(r.addr), t.Context(), mustNotRun(t))
	require.ErrorContains(t, err, "READONLY")
	require.True(t, isDown(err))
}

// sealWith is the pair that ExampleStore_sealed shows.
func sealWith(secret []byte, key string) (seal, open func([]byte) ([]byte, error)) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return func(plaintext []byte) ([]byte, error) { return aead.Seal(nil, nil, plaintext, []byte(key)), nil },
		func(sealed []byte) ([]byte, error) { return aead.Open(nil, nil, sealed, []byte(key)) }
}
