package filestore

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// Somebody removes the lock file, so that two have the lock: nothing is spent any more, and no newer token is lost.
func TestLockFileThatIsRemoved(t *testing.T) {
	s := New(path(t))
	set(t, s, record("old").Token)
	var unconfirmed error
	err := s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		require.NoError(t, confirm(ctx))
		require.NoError(t, os.Remove(s.path+".lock"))
		set(t, New(s.path), record("newer").Token) // which has the lock, too
		unconfirmed = confirm(ctx)
		return record("new"), nil
	})
	require.ErrorIs(t, unconfirmed, ErrConflict)
	require.ErrorIs(t, err, ErrConflict)
	require.Equal(t, "newer", accessOf(t, s))
	only(t, s)

	// If nobody has stored another one, the token is stored, and it is the other one who must not spend or store anything.
	var spent error
	err = s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		require.NoError(t, confirm(ctx))
		require.NoError(t, os.Remove(s.path+".lock"))
		return record("newest"), nil
	})
	require.NoError(t, err)
	err = s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		require.NoError(t, os.Remove(s.path+".lock"))
		require.NoError(t, New(s.path).Update(ctx, func(ctx context.Context, _ *authretry.Record, second func(context.Context) error) (*authretry.Record, error) {
			require.NoError(t, second(ctx))
			return record("last"), nil
		}))
		spent = confirm(ctx)
		return record("late"), nil
	})
	require.ErrorIs(t, spent, ErrConflict)
	require.ErrorIs(t, err, ErrConflict)
	require.Equal(t, "last", accessOf(t, s))
	only(t, s)
}

// Somebody changes the file without a lock, which shows before anything is spent.
func TestFileThatIsChangedMeanwhile(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"removed": os.Remove,
		"another token": func(path string) error {
			return os.WriteFile(path, []byte(`{"version":1,"access_token":"by hand"}`), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(path(t))
			set(t, s, record("old").Token)
			var spent error
			err := s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
				require.NoError(t, change(s.path))
				spent = confirm(ctx)
				return record("new"), nil
			})
			require.ErrorIs(t, spent, ErrConflict)
			require.ErrorIs(t, err, ErrConflict)
			require.NotEqual(t, "new", accessOf(t, s))
		})
	}
}

// What changes while room is made, which may take long, is found out too.
func TestLockFileThatIsRemovedWhileRoomIsMade(t *testing.T) {
	s := New(path(t))
	set(t, s, record("old").Token)
	s.disk.sync = func(f *os.File) error {
		_ = os.Remove(s.path + ".lock")
		return f.Sync()
	}
	err := s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		return nil, confirm(ctx)
	})
	require.ErrorIs(t, err, ErrConflict)
}

// Of two who have the lock, one takes the other's temporary file for a leftover.
func TestTemporaryFileThatIsTakenForALeftover(t *testing.T) {
	nothing := func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) { return nil, nil }
	intrude := func(t *testing.T, s *Store) {
		require.NoError(t, os.Remove(s.path+".lock"))
		require.NoError(t, New(s.path).Update(t.Context(), nothing))
		only(t, s)
	}
	t.Run("before the token is written", func(t *testing.T) {
		s := New(path(t))
		require.NoError(t, s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
			require.NoError(t, confirm(ctx))
			intrude(t, s)
			return record("a"), nil
		}))
		require.Equal(t, "a", accessOf(t, s))
	})
	t.Run("before it is renamed", func(t *testing.T) {
		s := New(path(t))
		var once sync.Once
		s.disk.sync = func(f *os.File) error {
			once.Do(func() { intrude(t, s) })
			return f.Sync()
		}
		set(t, s, record("a").Token)
		require.Equal(t, "a", accessOf(t, s))
		only(t, s)
	})
}

// Who has the lock too may be about to rename what looks like a leftover.
func TestLeftoverIsNotRemovedBetweenLookAndRename(t *testing.T) {
	t.Parallel()
	s := New(path(t))
	set(t, s, record("a").Token)
	leftover := s.path + ".tmp-1"
	require.NoError(t, os.WriteFile(leftover, nil, 0o600))
	unlock := s.lockFolder()
	entered, done := make(chan struct{}), make(chan error, 1)
	go func() {
		_, err := update(New(s.path), context.Background(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) {
			close(entered)
			return nil, nil
		})
		done <- err
	}()
	select {
	case <-entered:
		t.Error("it has not waited")
	case <-time.After(50 * time.Millisecond):
	}
	require.FileExists(t, leftover)
	unlock()
	require.NoError(t, <-done)
	only(t, s)
}

// Two have the lock, and both are about to write. The second one to do so must see what the first one has written.
func TestTwoWhoWriteAtOnce(t *testing.T) {
	t.Parallel()
	s, other := New(path(t)), New("")
	other.path = s.path
	set(t, New(s.path), record("old").Token)
	entered, write, filled, renaming, done := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan error, 1)
	other.disk.sync = func(f *os.File) error {
		if info, err := f.Stat(); err == nil && !info.IsDir() {
			defer close(filled)
		}
		return f.Sync()
	}
	other.disk.rename = func(from, to string) error {
		close(renaming)
		return os.Rename(from, to)
	}
	s.disk.rename = func(from, to string) error {
		close(write)
		<-filled
		select {
		case <-renaming:
			t.Error("it has compared already")
		case <-time.After(50 * time.Millisecond):
		}
		return os.Rename(from, to)
	}
	_, err := update(s, t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) {
		require.NoError(t, os.Remove(s.path+".lock"))
		go func() {
			_, err := update(other, context.Background(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) {
				close(entered)
				<-write
				return record("b").Token, nil
			})
			done <- err
		}()
		<-entered
		return record("a").Token, nil
	})
	require.NoError(t, err)
	require.ErrorIs(t, <-done, ErrConflict)
	require.Equal(t, "a", accessOf(t, s))
	only(t, s)
}

// With somebody who removes the lock file all the time, no update is lost without an error.
func TestNoUpdateIsLostWithoutAnError(t *testing.T) {
	t.Parallel()
	s := New(path(t))
	set(t, s, numbered(0))
	stop := make(chan struct{})
	var nuisance, all sync.WaitGroup
	nuisance.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
				os.Remove(s.path + ".lock")
			}
		}
	})
	var stored atomic.Int32
	for range 8 {
		all.Go(func() {
			for range thorough.Or(20, 8) {
				switch err := count(New(s.path), 1); {
				case err == nil:
					stored.Add(1)
				case !errors.Is(err, ErrConflict) && !errors.Is(err, fs.ErrNotExist): // the latter: its temporary file was taken for a leftover
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	close(stop)
	nuisance.Wait()
	token, err := loadToken(s, t.Context())
	require.NoError(t, err)
	n, err := numberIn(token)
	require.NoError(t, err)
	require.EqualValues(t, stored.Load(), n)
}
