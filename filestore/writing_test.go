package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

func record(access string) *authretry.Record {
	return &authretry.Record{Token: &oauth2.Token{AccessToken: access, RefreshToken: "r-" + access}}
}

type confirmFunc = func(context.Context) error

// accessOf returns the access token in the file.
func accessOf(t *testing.T, s *Store) string {
	t.Helper()
	r, err := New(s.path).Load(t.Context())
	require.NoError(t, err)
	if r == nil {
		return ""
	}
	return r.Token.AccessToken
}

// only checks that the folder has the token, its lock, and nothing that was left over.
func only(t *testing.T, s *Store) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(s.path))
	require.NoError(t, err)
	for _, e := range entries {
		require.Contains(t, []string{"token.json", "token.json.lock"}, e.Name())
	}
}

// A disk that fails to sync is found out before a refresh token is spent, or else leaves the old token and an error.
func TestDiskThatFails(t *testing.T) {
	broken := errors.New("input/output error")
	for _, c := range []struct {
		name  string
		sync  int // which call of sync fails
		spent bool
		saved bool // for all that a reader can tell
	}{
		{"when room is made", 1, false, false},
		{"when the token is written", 3, true, false},
		{"when the folder is synced", 4, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := New(path(t))
			set(t, s, record("old").Token)
			calls := 0
			s.disk.sync = func(f *os.File) error {
				if calls++; calls == c.sync {
					return broken
				}
				return f.Sync()
			}
			spent := false
			err := s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
				if err := confirm(ctx); err != nil {
					return nil, err
				}
				spent = true
				return record("new"), nil
			})
			require.ErrorIs(t, err, broken)
			require.Equal(t, c.spent, spent)
			want := "old"
			if c.saved {
				want = "new"
			}
			require.Equal(t, want, accessOf(t, s))
			only(t, s)
		})
	}
	t.Run("when the file is renamed", func(t *testing.T) {
		s := New(path(t))
		set(t, s, record("old").Token)
		s.disk.rename = func(string, string) error { return broken }
		err := s.Update(t.Context(), func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) {
			return record("new"), nil
		})
		require.ErrorIs(t, err, broken)
		require.Equal(t, "old", accessOf(t, s))
		only(t, s)
	})
}

// Each token is synced before it takes the place of the old one, and its folder after that.
func TestOrderOfWriting(t *testing.T) {
	s := New(path(t))
	var did []string
	s.disk.sync = func(f *os.File) error {
		info, err := f.Stat()
		require.NoError(t, err)
		if info.IsDir() {
			did = append(did, "sync folder")
		} else {
			data, err := os.ReadFile(f.Name())
			require.NoError(t, err)
			did = append(did, fmt.Sprintf("sync file with token %v", strings.Contains(string(data), "access_token")))
		}
		return f.Sync()
	}
	s.disk.rename = func(from, to string) error {
		did = append(did, "rename")
		return os.Rename(from, to)
	}
	set(t, s, record("a").Token)
	require.Equal(t, []string{"sync file with token false", "sync file with token true", "rename", "sync folder"}, did)
}

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

	// If nobody has stored another one, the token is stored, under the lock that is there now.
	other := make(chan error, 1)
	err = s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		require.NoError(t, os.Remove(s.path+".lock"))
		held := make(chan struct{})
		go func() {
			other <- New(s.path).Update(context.Background(), func(_ context.Context, current *authretry.Record, _ func(context.Context) error) (*authretry.Record, error) {
				close(held)
				time.Sleep(50 * time.Millisecond) // the first one has to wait for that
				if current.Token.AccessToken != "newer" {
					return nil, errors.New("they were at it together")
				}
				return nil, nil
			})
		}()
		<-held
		return record("newest"), nil
	})
	require.NoError(t, err)
	require.NoError(t, <-other)
	require.Equal(t, "newest", accessOf(t, s))
	only(t, s)
}

// With somebody who removes the lock file all the time, no update is lost without an error.
func TestNoUpdateIsLostWithoutAnError(t *testing.T) {
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
			for range 20 {
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

func TestConfirm(t *testing.T) {
	s := New(path(t))
	var kept func(context.Context) error
	err := s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		for range 3 {
			require.NoError(t, confirm(ctx))
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		require.ErrorIs(t, confirm(ended), context.Canceled)
		kept = confirm
		return nil, errors.New("the token endpoint is down")
	})
	require.ErrorContains(t, err, "down")
	only(t, s)
	require.Error(t, kept(t.Context()), "there is nothing to confirm any more")
	only(t, s)
}

// What is larger than the room that was made is written all the same.
func TestTokenOfAnySize(t *testing.T) {
	s := New(path(t))
	for _, size := range []int{1, 100_000, 500_000, 10} {
		r := record(strings.Repeat("x", size))
		require.NoError(t, s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
			return r, confirm(ctx)
		}))
		require.Len(t, accessOf(t, s), size)
	}
	err := s.Update(t.Context(), func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) {
		return record(strings.Repeat("x", 2<<20)), nil
	})
	require.Error(t, err)
	require.Len(t, accessOf(t, s), 10)
}

func TestFuncThatPanicsLeavesTheLockFree(t *testing.T) {
	s := New(path(t))
	set(t, s, record("a").Token)
	require.Panics(t, func() {
		_ = s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
			require.NoError(t, confirm(ctx))
			panic("x")
		})
	})
	set(t, s, record("b").Token)
	require.Equal(t, "b", accessOf(t, s))
	only(t, s)
}

// The folder is gone when the token is to be written: an error, and the next Update makes it again.
func TestFolderThatIsRemoved(t *testing.T) {
	s := New(path(t))
	err := s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		require.NoError(t, confirm(ctx))
		require.NoError(t, os.RemoveAll(filepath.Dir(s.path)))
		return record("a"), nil
	})
	require.Error(t, err)
	set(t, s, record("b").Token)
	require.Equal(t, "b", accessOf(t, s))
}

func TestTombstone(t *testing.T) {
	s := New(path(t))
	set(t, s, record("a").Token)
	require.NoError(t, (&authretry.TokenSource{Store: s}).Logout(t.Context()))
	r, err := New(s.path).Load(t.Context())
	require.NoError(t, err)
	require.True(t, r.LoggedOut)
	_, err = (&authretry.TokenSource{Store: New(s.path), Initial: &oauth2.Token{AccessToken: "initial"}}).Token()
	require.ErrorIs(t, err, authretry.ErrLoginRequired)
}

func TestLockLogin(t *testing.T) {
	s := New(path(t))
	unlock, err := s.LockLogin(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = New(s.path).LockLogin(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	set(t, s, record("a").Token) // refreshes go on
	unlock()
	unlock, err = New(s.path).LockLogin(t.Context())
	require.NoError(t, err)
	unlock()
}
