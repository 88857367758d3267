package filestore

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/authretry/authretry/storetest"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// children are what the test binary does as another process that shares a file. Each has the path and one more argument.
var children = map[string]func(path, arg string) error{
	"refresh": refreshOnce,
	"login":   logInOnce,
	"crash":   crash,
}

// TestMain lets the test binary be one of the processes that share a file.
func TestMain(m *testing.M) {
	storetest.Child(open)
	if name := os.Getenv("FILESTORE_CHILD"); name != "" {
		if err := children[name](os.Getenv("FILESTORE_PATH"), os.Getenv("FILESTORE_ARG")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	thorough.Main(m)
}

func child(t *testing.T, name, path, arg string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), "FILESTORE_CHILD="+name, "FILESTORE_PATH="+path, "FILESTORE_ARG="+arg)
	return cmd
}

// refreshOnce gets a token as one of many processes.
func refreshOnce(path, endpoint string) error {
	source := &authretry.TokenSource{Fetch: (&authretry.TokenEndpoint{URL: endpoint}).Refresh(), Store: New(path), FetchTimeout: time.Minute}
	return printToken(source)
}

func printToken(source *authretry.TokenSource) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	token, err := source.Obtain(ctx, authretry.TokenRequest{})
	if err == nil {
		fmt.Print(token.AccessToken)
	}
	return err
}

// logInOnce gets a token from a person, of whom a line in the file asked tells that they were asked.
func logInOnce(path, asked string) error {
	return printToken(&authretry.TokenSource{Store: New(path), Login: func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
		f, err := os.OpenFile(asked, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		time.Sleep(100 * time.Millisecond) // people are slow
		if _, err := fmt.Fprintln(f, os.Getpid()); err != nil {
			return nil, err
		}
		return &oauth2.Token{AccessToken: fmt.Sprint("login-of-", os.Getpid()), Expiry: time.Now().Add(time.Hour)}, nil
	}})
}

func TestOnePersonIsAskedOverAllProcesses(t *testing.T) {
	t.Parallel()
	s := New(path(t))
	asked := s.path + ".asked"
	require.NoError(t, os.MkdirAll(filepath.Dir(s.path), 0o700))
	const processes = 6
	type result struct {
		out []byte
		err error
	}
	results := make(chan result, processes)
	for range processes {
		go func() {
			out, err := child(t, "login", s.path, asked).CombinedOutput()
			results <- result{out, err}
		}()
	}
	for range processes {
		r := <-results
		require.NoError(t, r.err, "%s", r.out)
		require.Equal(t, accessOf(t, s), string(r.out))
	}
	lines, err := os.ReadFile(asked)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(lines), "\n"))
}

const crashed = 7 // the exit status

// crash stores a new token, and ends before or after one of the steps on the disk: 0 before the first, 1 after it, and so on.
func crash(path, at string) error {
	stop, err := strconv.Atoi(at)
	if err != nil {
		return err
	}
	s := New(path)
	done := 0
	step := func(do func() error) error {
		for range 2 {
			if done == stop {
				os.Exit(crashed)
			}
			if done++; done%2 == 1 {
				err = do()
			}
		}
		return err
	}
	s.disk.sync = func(f *os.File) error { return step(f.Sync) }
	s.disk.rename = func(from, to string) error { return step(func() error { return os.Rename(from, to) }) }
	return s.Update(context.Background(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		return record("new"), confirm(ctx)
	})
}

// A crash at each step leaves the old token or the new one, and nothing that the next writer does not remove.
func TestCrashAtEachStep(t *testing.T) {
	t.Parallel()
	const (
		renamed = 5 // confirm syncs, renames, syncs the folder, syncs; then the new token is synced, renamed, and the folder synced
		steps   = 7
	)
	leftovers := 0
	for at := range 2*steps + 1 {
		s := New(path(t))
		set(t, s, record("old").Token)
		out, err := child(t, "crash", s.path, strconv.Itoa(at)).CombinedOutput()
		if at == 2*steps {
			require.NoError(t, err, "%s", out)
			only(t, s)
		} else {
			exit, ok := err.(*exec.ExitError)
			require.True(t, ok && exit.ExitCode() == crashed, "%d: %v: %s", at, err, out)
		}
		want := "old"
		if at > 2*renamed {
			want = "new"
		}
		require.Equal(t, want, accessOf(t, s), "step %d", at)
		entries, err := os.ReadDir(filepath.Dir(s.path))
		require.NoError(t, err)
		leftovers += len(entries) - 2
		_, err = update(s, t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) { return nil, nil })
		require.NoError(t, err)
		only(t, s)
	}
	require.Positive(t, leftovers, "or else there was nothing to remove")
}
