package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
		{"when a copy is written", 1, false, false},
		{"when the folder is synced, with the copy", 2, false, false},
		{"when room is made", 3, false, false},
		{"when the token is written", 4, true, false},
		{"when the folder is synced", 5, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := New(path(t))
			set(t, New(s.path), record("old").Token)
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
		fresh := New(s.path)
		fresh.disk = s.disk
		require.NoError(t, fresh.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
			for range 2 {
				require.ErrorIs(t, confirm(ctx), broken, "as long as it has not succeeded")
			}
			return nil, nil
		}))
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
	written := []string{"sync file with token true", "rename", "sync folder"}
	room := []string{"sync file with token false"}
	require.Equal(t, written, did)

	confirmed := func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		return record("b" + current.Token.AccessToken), confirm(ctx)
	}
	did = nil
	require.NoError(t, s.Update(t.Context(), confirmed))
	require.Equal(t, slices.Concat(room, written), did)

	did = nil
	other := New(s.path) // which cannot know yet whether the file can be replaced
	other.disk = s.disk
	require.NoError(t, other.Update(t.Context(), confirmed))
	require.Equal(t, slices.Concat(written, room, written), did)
}

// There is no success while a rename may yet be undone by a crash of the machine, though there is nothing to write then.
func TestFolderThatCouldNotBeSynced(t *testing.T) {
	s := New(path(t))
	set(t, s, record("a").Token)
	broken := errors.New("input/output error")
	s.disk.sync = func(f *os.File) error {
		if info, err := f.Stat(); err != nil || info.IsDir() {
			return broken
		}
		return f.Sync()
	}
	_, err := update(s, t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) { return record("b").Token, nil })
	require.ErrorIs(t, err, broken)
	same := func(_ context.Context, current *oauth2.Token) (*oauth2.Token, error) { return current, nil }
	_, err = update(s, t.Context(), same)
	require.ErrorIs(t, err, broken)
	synced := 0
	s.disk.sync = func(f *os.File) error {
		synced++
		return f.Sync()
	}
	for range 2 {
		_, err = update(s, t.Context(), same)
		require.NoError(t, err)
	}
	require.Equal(t, 1, synced)
}

// Leftovers are removed by who has the lock, and nothing else is.
func TestLeftovers(t *testing.T) {
	s := New(path(t))
	set(t, s, record("a").Token)
	kept := []string{filepath.Join(filepath.Dir(s.path), "123"), s.path + ".tmp-", s.path + ".tmp-mine", s.path + ".tmp-1.bak", s.path + "2.tmp-3", s.path + ".temp-4"}
	for _, name := range kept {
		require.NoError(t, os.WriteFile(name, nil, 0o600))
	}
	folder := s.path + ".tmp-5"
	require.NoError(t, os.Mkdir(folder, 0o700))
	leftover := s.path + ".tmp-6"
	nothing := func(context.Context, *oauth2.Token) (*oauth2.Token, error) { return nil, nil }
	_, err := update(s, t.Context(), func(ctx context.Context, _ *oauth2.Token) (*oauth2.Token, error) {
		require.NoError(t, os.WriteFile(leftover, nil, 0o600)) // as a writer at work has it
		_, err := New(s.path).Load(ctx)
		require.NoError(t, err)
		waiting, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		_, err = update(New(s.path), waiting, nothing)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.FileExists(t, leftover)
		return nil, nil
	})
	require.NoError(t, err)
	_, err = update(s, t.Context(), nothing)
	require.NoError(t, err)
	require.NoFileExists(t, leftover)
	require.DirExists(t, folder)
	for _, name := range kept {
		require.FileExists(t, name)
	}
}

func TestConfirm(t *testing.T) {
	s := New(path(t))
	set(t, s, record("old").Token)
	for name, result := range map[string]*authretry.Record{"nothing": nil, "new": record("new")} {
		for _, before := range []int{0, 3} {
			var kept func(context.Context) error
			err := s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
				for range before {
					require.NoError(t, confirm(ctx))
				}
				ended, cancel := context.WithCancel(ctx)
				cancel()
				require.ErrorIs(t, confirm(ended), context.Canceled)
				kept = confirm
				return result, nil
			})
			require.NoError(t, err)
			only(t, s)
			require.Error(t, kept(t.Context()), "%s, confirmed %d times before: it is over", name, before)
			only(t, s)
		}
	}
	err := s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		require.NoError(t, confirm(ctx))
		return record("lost"), errors.New("the token endpoint is down")
	})
	require.ErrorContains(t, err, "down")
	require.Equal(t, "new", accessOf(t, s))
	only(t, s)
}

// A Fetch that its caller has given up may still run when Update returns.
func TestConfirmBesideTheEndOfUpdate(t *testing.T) {
	s := New(path(t))
	var left sync.WaitGroup
	for range 20 {
		require.NoError(t, s.Update(t.Context(), func(_ context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
			for range 4 {
				left.Go(func() { _ = confirm(t.Context()) })
			}
			return record(fmt.Sprint(time.Now().UnixNano())), nil
		}))
	}
	left.Wait()
	only(t, s)
}

// There is room for a token that is larger than the one before. The file is no larger than its token for that.
func TestRoom(t *testing.T) {
	s := New(path(t))
	for _, size := range []int{10, 100_000} {
		set(t, s, record(strings.Repeat("x", size)).Token)
		before, err := os.Stat(s.path)
		require.NoError(t, err)
		var room []int64
		s.disk.sync = func(f *os.File) error {
			if info, err := f.Stat(); err == nil && !info.IsDir() {
				room = append(room, info.Size())
			}
			return f.Sync()
		}
		require.NoError(t, s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
			return record(strings.Repeat("y", size)), confirm(ctx)
		}))
		require.GreaterOrEqual(t, room[0], max(16<<10, 2*before.Size()))
		after, err := os.Stat(s.path)
		require.NoError(t, err)
		require.Equal(t, before.Size(), after.Size())
	}
}

// What is larger than the room that was made is written all the same.
func TestTokenOfAnySize(t *testing.T) {
	t.Parallel()
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

	r := record("") // as large as a Record may be
	data, err := r.Encode()
	require.NoError(t, err)
	r.Token.AccessToken = strings.Repeat("x", 1<<20-len(data)-len(`"access_token":"",`))
	data, err = r.Encode()
	require.NoError(t, err)
	require.Len(t, data, 1<<20)
	set(t, s, r.Token)
	require.Equal(t, r.Token.AccessToken, accessOf(t, s))
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
