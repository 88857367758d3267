package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

var _ authretry.TokenStore = (*Store)(nil)

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

// count adds one to the number in the token, times over.
func count(s *Store, times int) error {
	for range times {
		_, err := update(s, context.Background(), func(_ context.Context, t *oauth2.Token) (*oauth2.Token, error) {
			n := 0
			if t != nil {
				var err error
				if n, err = numberIn(t); err != nil {
					return nil, err
				}
			}
			return numbered(n + 1), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// numbered is a token of several pages in which a torn write would show.
func numbered(n int) *oauth2.Token {
	return &oauth2.Token{AccessToken: strings.Repeat(fmt.Sprintf("%08d", n), 2000), RefreshToken: fmt.Sprintf("%08d", n)}
}

func numberIn(t *oauth2.Token) (int, error) {
	if t.AccessToken != strings.Repeat(t.RefreshToken, 2000) {
		return 0, errors.New("torn")
	}
	return strconv.Atoi(t.RefreshToken)
}

func path(t *testing.T) string { return filepath.Join(t.TempDir(), "sub", "token.json") }

func set(t *testing.T, s *Store, token *oauth2.Token) {
	t.Helper()
	_, err := update(s, t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) { return token, nil })
	require.NoError(t, err)
}

func TestTokenComesBackWhole(t *testing.T) {
	s := New(path(t))
	none, err := loadToken(s, t.Context())
	require.NoError(t, err)
	require.Nil(t, none)
	want := (&oauth2.Token{AccessToken: "a\u00e4\"", RefreshToken: "r", TokenType: "bearer", Expiry: time.Now().Add(time.Hour)}).
		WithExtra(map[string]any{"id_token": "i", "scope": "s t", "other": "x"})
	set(t, s, want)
	got, err := loadToken(New(s.path), t.Context())
	require.NoError(t, err)
	require.Equal(t, want.AccessToken, got.AccessToken)
	require.Equal(t, want.RefreshToken, got.RefreshToken)
	require.Equal(t, want.TokenType, got.TokenType)
	require.True(t, want.Expiry.Equal(got.Expiry))
	require.Equal(t, "i", got.Extra("id_token"))
	require.Equal(t, "s t", got.Extra("scope"))
	info, err := os.Stat(s.path)
	require.NoError(t, err)
	if runtime.GOOS != "windows" {
		require.Equal(t, os.FileMode(0o600), info.Mode())
		lock, err := os.Stat(s.path + ".lock")
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), lock.Mode())
		folder, err := os.Stat(filepath.Dir(s.path))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700), folder.Mode().Perm())
	}
	entries, err := os.ReadDir(filepath.Dir(s.path))
	require.NoError(t, err)
	require.Len(t, entries, 2, "the token and the lock")
}

func TestSameTokenIsNotWrittenAgain(t *testing.T) {
	s := New(path(t))
	set(t, s, &oauth2.Token{AccessToken: "a"})
	before, err := os.Stat(s.path)
	require.NoError(t, err)
	_, err = update(s, t.Context(), func(_ context.Context, current *oauth2.Token) (*oauth2.Token, error) { return current, nil })
	require.NoError(t, err)
	after, err := os.Stat(s.path)
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after))
}

func TestFileThatOthersCanReadIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o602, 0o660} {
		s := New(path(t))
		set(t, s, &oauth2.Token{AccessToken: "secret"})
		require.NoError(t, os.Chmod(s.path, mode))
		_, err := loadToken(s, t.Context())
		require.ErrorIs(t, err, ErrUnsafe)
		_, err = update(s, t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) {
			t.Error("fn must not be called")
			return nil, nil
		})
		require.ErrorIs(t, err, ErrUnsafe)
		require.ErrorContains(t, err, "chmod 600")
		require.FileExists(t, s.path)
	}
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	t.Chdir(t.TempDir()) // where an empty path would put its lock
	s := New(path(t))
	set(t, s, &oauth2.Token{AccessToken: "secret"})
	link := New(s.path + ".link")
	require.NoError(t, os.Symlink(s.path, link.path))
	dangling := New(s.path + ".dangling")
	require.NoError(t, os.Symlink(s.path+".nothing", dangling.path))
	for _, refused := range []*Store{link, dangling, New(filepath.Dir(s.path)), New(filepath.Dir(s.path) + "/")} {
		_, err := refused.Load(t.Context())
		require.ErrorIs(t, err, ErrUnsafe, refused.path)
		_, err = update(refused, t.Context(), nil)
		require.ErrorIs(t, err, ErrUnsafe, refused.path)
	}
	require.NoFileExists(t, s.path+".nothing")
	_, err := link.Load(t.Context())
	require.ErrorContains(t, err, "symbolic link")
	for _, nowhere := range []*Store{New(""), New(filepath.Join(s.path, "token.json"))} {
		_, err := nowhere.Load(t.Context())
		require.Error(t, err, nowhere.path)
		_, err = update(nowhere, t.Context(), nil)
		require.Error(t, err, nowhere.path)
		_, err = nowhere.LockLogin(t.Context())
		require.Error(t, err, nowhere.path)
	}
	require.NoFileExists(t, ".lock")
}

// A file takes the place of the one that was looked at before it could be opened.
func TestFileThatIsReplacedWhileItIsOpened(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such modes")
	}
	s := New(path(t))
	set(t, s, record("ours").Token)
	evil := filepath.Join(t.TempDir(), "evil.json")
	data, err := os.ReadFile(s.path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(evil, data, 0o644))
	s.disk.open = func(path string) (*os.File, error) {
		require.NoError(t, os.Rename(evil, path))
		return os.Open(path)
	}
	_, err = s.Load(t.Context())
	require.ErrorIs(t, err, ErrUnsafe)

	s = New(path(t))
	set(t, s, record("ours").Token)
	s.disk.open = func(path string) (*os.File, error) {
		require.NoError(t, os.Remove(path))
		return os.Open(path)
	}
	none, err := s.Load(t.Context())
	require.NoError(t, err)
	require.Nil(t, none)
}

func TestDamagedFileIsKeptAside(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "torn": `{"version":1,"access_token":"secr`, "no token": `{"version":1}`, "list": `["secret"]`, "null": "null",
		"wrong type": `{"version":1,"access_token":["secret"]}`, "version below 0": `{"version":-1,"access_token":"secret"}`,
		"huge":  `{"version":1,"access_token":"` + strings.Repeat("secret", 1<<18) + `"}`,
		"space": `{"version":1,"access_token":"secret"}` + strings.Repeat(" ", 2<<20),
	} {
		t.Run(name, func(t *testing.T) {
			s := New(filepath.Join(t.TempDir(), "token.json"))
			require.NoError(t, os.WriteFile(s.path, []byte(content), 0o600))
			_, err := loadToken(s, t.Context())
			require.ErrorIs(t, err, ErrDamaged)
			require.FileExists(t, s.path, "Load changes nothing")
			_, err = update(s, t.Context(), func(context.Context, *oauth2.Token) (*oauth2.Token, error) {
				t.Error("fn must not be called")
				return nil, nil
			})
			require.ErrorIs(t, err, ErrDamaged)
			require.NotContains(t, err.Error(), "secret")
			kept, globErr := filepath.Glob(s.path + ".damaged-*")
			require.NoError(t, globErr)
			require.Len(t, kept, 1)
			require.ErrorContains(t, err, kept[0])
			data, readErr := os.ReadFile(kept[0])
			require.NoError(t, readErr)
			require.Equal(t, content, string(data))
			set(t, s, &oauth2.Token{AccessToken: "new"})
		})
	}
}

// Somebody stores a token where the damage was, before that is moved aside.
func TestDamageThatIsRepairedMeanwhile(t *testing.T) {
	s := New(path(t))
	set(t, s, record("new").Token)
	repaired := s.path + ".repaired"
	require.NoError(t, os.Rename(s.path, repaired))
	require.NoError(t, os.WriteFile(s.path, []byte("damaged"), 0o600))
	opened := 0
	s.disk.open = func(path string) (*os.File, error) {
		if opened++; opened == 2 {
			require.NoError(t, os.Rename(repaired, path))
		}
		return os.Open(path)
	}
	_, err := update(s, t.Context(), nil)
	require.ErrorIs(t, err, ErrConflict)
	require.Equal(t, "new", accessOf(t, s))
	only(t, s)
}

// A file of any size costs no more memory than one that may be a token.
func TestHugeFileIsNotRead(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "token.json"))
	require.NoError(t, os.WriteFile(s.path, nil, 0o600))
	require.NoError(t, os.Truncate(s.path, 256<<20))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := s.Load(t.Context())
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, ErrDamaged)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20))
}
