package login

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/filestore"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

// children are what the test binary does as another process that shares a login.
var children = map[string]func(tokens *authretry.TokenSource) error{"twenty": askTwentyTimes, "interrupted": askUntilInterrupted}

// TestMain lets the test binary be one of them.
func TestMain(m *testing.M) {
	if name := os.Getenv("LOGIN_CHILD"); name != "" {
		if err := children[name](childsTokens(name)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Unsetenv("CI") // the tests play a person, also in continuous integration
	thorough.Main(m)
}

// childsTokens returns a TokenSource as a command would have it, whose person agrees at once, or never.
func childsTokens(name string) *authretry.TokenSource {
	endpoint := &authretry.TokenEndpoint{URL: os.Getenv("LOGIN_AT") + "/token", ClientID: "cli"}
	a := &Authorization{Endpoint: endpoint, URL: os.Getenv("LOGIN_AT") + "/authorize"}
	browser := &Browser{Open: agree, RedirectURIs: []string{"http://" + os.Getenv("LOGIN_TO") + "/callback"}}
	if name == "interrupted" {
		browser.Open = func(context.Context, string) error { fmt.Println("asked"); return nil }
	}
	return &authretry.TokenSource{Fetch: endpoint.Refresh(), Login: a.LoginFunc(browser), Store: filestore.New(os.Getenv("LOGIN_STORE"))}
}

// child returns a process; to is where its browser answers.
func child(t *testing.T, s *testServer, name, store, to string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), "LOGIN_CHILD="+name, "LOGIN_AT="+s.URL, "LOGIN_STORE="+store, "LOGIN_TO="+to)
	return cmd
}

// askTwentyTimes is 20 goroutines that need a token.
func askTwentyTimes(tokens *authretry.TokenSource) error {
	var all sync.WaitGroup
	errs := make(chan error, 20)
	for range 20 {
		all.Go(func() {
			token, err := tokens.Token()
			if err == nil && token.AccessToken != "token-1" {
				err = fmt.Errorf("another token: %s", token.AccessToken)
			}
			errs <- err
		})
	}
	all.Wait()
	for range 20 {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// 20 goroutines in each of 3 processes, and no token: one person is asked once.
func TestOneLoginForAllProcesses(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.mu.Lock()
	s.sleepy = 300 * time.Millisecond // so that the others wait
	s.mu.Unlock()
	store := filepath.Join(t.TempDir(), "login.json")
	type result struct {
		out []byte
		err error
	}
	results := make(chan result, 3)
	for range 3 {
		go func() {
			out, err := child(t, s, "twenty", store, "127.0.0.1").CombinedOutput()
			results <- result{out, err}
		}()
	}
	shown := 0
	for range 3 {
		r := <-results
		require.NoError(t, r.err, "%s", r.out)
		shown += strings.Count(string(r.out), "Your browser is opened")
	}
	require.Equal(t, []int{1, 1, 1}, []int{shown, s.asks(), s.tokenRequests()})
}

// askUntilInterrupted is a command that waits for a login until somebody types Ctrl-C.
func askUntilInterrupted(tokens *authretry.TokenSource) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	_, err := tokens.Obtain(ctx, authretry.TokenRequest{})
	fmt.Println(err)
	for { // and goes on with something else, until its standard input ends
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			return nil
		}
	}
}

// Ctrl-C frees the port and the lock, although the process goes on.
func TestInterruptFreesPortAndLock(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a process cannot be interrupted there")
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, free.Close())
	store := filepath.Join(t.TempDir(), "login.json")
	cmd := child(t, newServer(t), "interrupted", store, free.Addr().String())
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	require.True(t, lines.Scan())
	require.Equal(t, "asked", lines.Text())
	busy, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = filestore.New(store).LockLogin(busy)
	require.Error(t, err, "it has the lock")

	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.True(t, lines.Scan())
	require.Contains(t, lines.Text(), "interrupt")
	unlock, err := filestore.New(store).LockLogin(t.Context())
	require.NoError(t, err)
	unlock()
	require.Eventually(t, func() bool {
		l, err := net.Listen("tcp", free.Addr().String())
		if err == nil {
			l.Close()
		}
		return err == nil
	}, 20*time.Second, time.Millisecond)
	require.NoError(t, stdin.Close())
	require.NoError(t, cmd.Wait())
}
