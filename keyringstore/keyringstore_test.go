//go:build linux

package keyringstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/keyringtest"
	"github.com/authretry/authretry/storetest"
	"github.com/stretchr/testify/require"
	"github.com/zalando/go-keyring"
	"golang.org/x/oauth2"
)

var _ authretry.TokenStore = (*Store)(nil)

// open opens the place "LOCKFILE|USER".
func open(place string) (authretry.TokenStore, error) { return storeOf(place), nil }

func storeOf(place string) *Store {
	lock, user, _ := strings.Cut(place, "|")
	return &Store{Service: "keyringstore-test", User: user, LockFile: lock, part: 4 << 10}
}

func TestMain(m *testing.M) {
	storetest.Child(open)
	os.Exit(m.Run())
}

// startKeyring starts a GNOME Keyring that is unlocked, for as long as the test lasts, and waits until it answers.
func startKeyring(t *testing.T) (daemon *exec.Cmd) {
	t.Helper()
	daemon = keyringtest.Start(t)
	require.Eventually(t, func() bool {
		return keyring.Set("keyringstore-test", "probe", "x") == nil
	}, 60*time.Second, 50*time.Millisecond, "GNOME Keyring does not answer")
	return daemon
}

func TestContract(t *testing.T) {
	startKeyring(t)
	var places atomic.Int32
	dir := t.TempDir()
	item := func(place string) (service, user string) { s := storeOf(place); return s.Service, s.User }
	storetest.Run(t, open, storetest.Options{
		NewPlace: func() (string, error) {
			n := places.Add(1)
			return fmt.Sprintf("%s|login %d", filepath.Join(dir, fmt.Sprint(n)), n), nil
		},
		MaxSize: 12 << 10,
		Put: func(_ context.Context, place string, value []byte) error {
			service, user := item(place)
			return keyring.Set(service, user, string(value))
		},
		Find: func(_ context.Context, place string, value []byte) (bool, error) {
			service, user := item(place)
			text, err := keyring.Get(service, user)
			return text == string(value), err
		},
		Remove: func(_ context.Context, place string) error {
			service, user := item(place)
			return keyring.Delete(service, user)
		},
		TakeLock: func(_ context.Context, place string) error { return os.Remove(storeOf(place).LockFile + ".lock") },
	})
}

func saving(access string) func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
	return func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
		return &authretry.Record{Token: &oauth2.Token{AccessToken: access}}, nil
	}
}

// What is longer than an item is in several, of which none stays that nothing refers to. One that is missing is damage.
func TestLongLoginIsInSeveralItems(t *testing.T) {
	startKeyring(t)
	s := storeOf(filepath.Join(t.TempDir(), "lock") + "|long")
	count := func() (n int) {
		for i := range 20 {
			c, err := s.read(t.Context())
			require.NoError(t, err)
			if _, err := keyring.Get(s.Service, s.partName(c.id, i)); err == nil {
				n++
			}
		}
		return n
	}
	for _, size := range []int{10, 20_000, 10_000, 10} {
		before, err := s.read(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.Update(t.Context(), saving(strings.Repeat("x", size))))
		r, err := s.Load(t.Context())
		require.NoError(t, err)
		require.Len(t, r.Token.AccessToken, size)
		require.Equal(t, (size+100)/(4<<10) > 0, count() > 0)
		for i := range before.parts {
			_, err := keyring.Get(s.Service, s.partName(before.id, i))
			require.ErrorIs(t, err, keyring.ErrNotFound)
		}
	}
	require.NoError(t, s.Update(t.Context(), saving(strings.Repeat("x", 10_000))))
	c, err := s.read(t.Context())
	require.NoError(t, err)
	require.NoError(t, keyring.Delete(s.Service, s.partName(c.id, 1)))
	_, err = s.Load(t.Context())
	require.ErrorIs(t, err, ErrDamaged)
	require.ErrorIs(t, s.Update(t.Context(), saving("new")), ErrDamaged)
}

// Where there is no keyring, the error says what to use, and nothing is spent.
func TestNoKeyring(t *testing.T) {
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "nothing"))
	s := storeOf(filepath.Join(t.TempDir(), "lock") + "|none")
	_, err := s.Load(t.Context())
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorContains(t, err, "filestore")
	err = s.Update(t.Context(), func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
		return nil, errors.New("it was called")
	})
	require.ErrorIs(t, err, ErrUnavailable)
}

// The keyring hangs when there is a new token to be stored. Update does not wait forever, and the lock stays until the token has
// arrived after all, so that it overwrites none that is newer.
func TestKeyringThatHangs(t *testing.T) {
	daemon := startKeyring(t)
	s := storeOf(filepath.Join(t.TempDir(), "lock") + "|hangs")
	s.wait = 2 * time.Second
	other := &Store{Service: s.Service, User: s.User, LockFile: s.LockFile}
	require.NoError(t, s.Update(t.Context(), saving("old")))
	err := s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		require.NoError(t, confirm(ctx))
		require.NoError(t, daemon.Process.Signal(syscall.SIGSTOP))
		limited, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, confirm(limited), context.DeadlineExceeded)
		return &authretry.Record{Token: &oauth2.Token{AccessToken: "new"}}, nil
	})
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorContains(t, err, "may have been stored")
	for name, get := range map[string]func(context.Context) error{
		"Load":   func(ctx context.Context) error { _, err := s.Load(ctx); return err },
		"Update": func(ctx context.Context) error { return other.Update(ctx, saving("newer")) },
		"UpdateUnless": func(ctx context.Context) error {
			return other.UpdateUnless(ctx, func(*authretry.Record) bool { return true }, saving("newer"))
		},
	} {
		limited, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		err := get(limited)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded, name)
		require.Equal(t, name != "Load", strings.Contains(err.Error(), "cannot lock"), err)
	}
	require.NoError(t, daemon.Process.Signal(syscall.SIGCONT))
	require.NoError(t, other.Update(t.Context(), saving("newer")))
	r, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Equal(t, "newer", r.Token.AccessToken)
}

// A keyring that is locked, and that nobody is there to unlock, is no keyring without a login. What is in it is there when it is unlocked.
func TestKeyringThatIsLocked(t *testing.T) {
	daemon := startKeyring(t)
	s := storeOf(filepath.Join(t.TempDir(), "lock") + "|locked")
	require.NoError(t, s.Update(t.Context(), saving("old")))
	require.NoError(t, daemon.Process.Kill())
	_ = daemon.Wait()
	daemon = keyringtest.StartDaemon(t) // which nobody has told the password
	limited, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.Eventually(t, func() bool {
		_, err := s.Load(limited)
		require.Error(t, err)
		return strings.Contains(err.Error(), "unlock")
	}, 30*time.Second, 20*time.Millisecond)
	require.ErrorIs(t, s.Update(limited, saving("new")), ErrUnavailable)
	require.NoError(t, daemon.Process.Kill())
	_ = daemon.Wait()
	keyringtest.StartDaemon(t, "--unlock")
	require.Eventually(t, func() bool {
		r, err := s.Load(t.Context())
		return err == nil && r != nil && r.Token.AccessToken == "old"
	}, 30*time.Second, 20*time.Millisecond)
}

// What panics below is an error, as go-keyring does if the session's bus ends while it waits for a person.
func TestPanicOfTheKeyringIsAnError(t *testing.T) {
	s := storeOf(filepath.Join(t.TempDir(), "lock") + "|panics")
	over := make(chan struct{})
	err := s.call(t.Context(), "read", func() { close(over) }, func() error { panic("secret") })
	require.ErrorIs(t, err, ErrUnavailable)
	require.NotContains(t, err.Error(), "secret")
	<-over
}

// A file that is in the place of the lock is left alone.
func TestLockFileThatIsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings")
	require.NoError(t, os.WriteFile(path, []byte("mine"), 0o600))
	require.ErrorContains(t, storeOf(path+"|x").Update(t.Context(), saving("x")), "LockFile is the name of a file")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "mine", string(text))
}

func TestMistakesInTheFieldsAreErrors(t *testing.T) {
	for _, s := range []*Store{{}, {Service: "s"}, {User: "u"}} {
		_, err := s.Load(t.Context())
		require.ErrorContains(t, err, "is empty")
		require.ErrorContains(t, s.Update(t.Context(), saving("x")), "is empty")
		_, err = s.LockLogin(t.Context())
		require.ErrorContains(t, err, "is empty")
	}
}

// Without a LockFile, the lock is in the person's folder, another for each login.
func TestLockIsInThePersonsFolder(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	for _, user := range []string{"a", "b"} {
		unlock, err := (&Store{Service: "s", User: user}).LockLogin(t.Context())
		require.NoError(t, err)
		unlock()
	}
	files, err := filepath.Glob(filepath.Join(dir, "authretry", "*.login.lock"))
	require.NoError(t, err)
	require.Len(t, files, 2)
}

// A keyring that gives no room for a first login is found out before anything is spent, and is left as it was.
func TestKeyringThatCannotBeWritten(t *testing.T) {
	keyringtest.Start(t, "CreateItem")
	s := storeOf(filepath.Join(t.TempDir(), "lock") + "|first")
	require.Eventually(t, func() bool {
		_, err := s.Load(t.Context())
		return err == nil
	}, 20*time.Second, 50*time.Millisecond, "GNOME Keyring does not answer")
	err := s.Update(t.Context(), func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		require.Nil(t, current)
		return nil, confirm(ctx)
	})
	require.ErrorIs(t, err, ErrUnavailable)
}
