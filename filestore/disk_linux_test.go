package filestore

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// smallDisk mounts a disk of 128 KiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128k,mode=700"); err != nil {
		t.Skipf("a disk cannot be mounted here, which needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// An issuer of refresh tokens of which each may be used once, as it stands behind a real endpoint.
type issuer struct {
	*httptest.Server
	requests, reuses atomic.Int32
	mu               sync.Mutex
	valid            string
}

func newIssuer(t *testing.T, valid string) *issuer {
	i := &issuer{valid: valid}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := i.requests.Add(1)
		time.Sleep(50 * time.Millisecond)
		i.mu.Lock()
		defer i.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if r.PostFormValue("refresh_token") != i.valid {
			i.reuses.Add(1)
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"invalid_grant"}`)
			return
		}
		i.valid = fmt.Sprint("r", n)
		fmt.Fprintf(w, `{"access_token":"a%d","refresh_token":%q,"expires_in":3600}`, n, i.valid)
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) source(path string) *authretry.TokenSource {
	return &authretry.TokenSource{Fetch: (&authretry.TokenEndpoint{URL: i.URL}).Refresh(), Store: New(path)}
}

// A full disk and a read-only one cost no login: nothing is spent, and it goes on when there is room.
func TestFullAndReadOnlyDisk(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, dir string) (repair func()){
		"full": func(t *testing.T, dir string) func() {
			filler := filepath.Join(dir, "filler")
			f, err := os.Create(filler)
			require.NoError(t, err)
			for block := make([]byte, 4096); err == nil; {
				_, err = f.Write(block)
			}
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.NoError(t, f.Close())
			return func() { require.NoError(t, os.Remove(filler)) }
		},
		"read-only": func(t *testing.T, dir string) func() {
			require.NoError(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
			return func() { require.NoError(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT, "")) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := smallDisk(t)
			s := New(filepath.Join(dir, "token.json"))
			set(t, s, &oauth2.Token{AccessToken: "a0", RefreshToken: "r0", Expiry: time.Now().Add(-time.Hour)})
			i := newIssuer(t, "r0")
			repair := spoil(t, dir)
			_, err := i.source(s.path).Token()
			require.Error(t, err)
			require.NotErrorIs(t, err, authretry.ErrLoginRequired)
			require.Zero(t, i.requests.Load(), "the refresh token is not spent")
			require.Equal(t, "a0", accessOf(t, s))
			repair()
			got, err := i.source(s.path).Token()
			require.NoError(t, err)
			require.Equal(t, got.AccessToken, accessOf(t, s))
			require.Zero(t, i.reuses.Load())
		})
	}
}

func TestFileOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a file can be given to another user by root only")
	}
	s := New(path(t))
	set(t, s, record("a").Token)
	require.NoError(t, os.Chown(s.path, 65534, 65534))
	_, err := s.Load(t.Context())
	require.ErrorIs(t, err, ErrUnsafe)
	_, err = update(s, t.Context(), nil)
	require.ErrorIs(t, err, ErrUnsafe)
}

// Two hundred processes find one expired token: there is one token request.
func TestTwoHundredProcessesRefreshOnce(t *testing.T) {
	const processes = 200
	s := New(path(t))
	set(t, s, &oauth2.Token{AccessToken: "a0", RefreshToken: "r0", Expiry: time.Now().Add(-time.Hour)})
	i := newIssuer(t, "r0")
	exe, err := os.Executable()
	require.NoError(t, err)
	var all sync.WaitGroup
	var served atomic.Int32
	for range processes {
		all.Go(func() {
			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Env = append(os.Environ(), "FILESTORE_REFRESH="+s.path, "FILESTORE_ENDPOINT="+i.URL)
			if out, err := cmd.CombinedOutput(); err != nil || string(out) != "a1" {
				t.Errorf("%v: %s", err, out)
				return
			}
			served.Add(1)
		})
	}
	all.Wait()
	require.EqualValues(t, processes, served.Load())
	require.EqualValues(t, 1, i.requests.Load())
}
