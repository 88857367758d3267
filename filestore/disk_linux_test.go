package filestore

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/thorough"
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

// fillUp leaves no room on a disk until the file that it names is removed.
func fillUp(t *testing.T, dir string) (filler string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	require.NoError(t, err)
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, f.Close())
	return f.Name()
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
			filler := fillUp(t, dir)
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

// A file that is mounted, as containers have it, cannot be replaced, though there is room, and its folder can be written.
func TestFileThatCannotBeReplaced(t *testing.T) {
	s := New(path(t))
	set(t, s, &oauth2.Token{AccessToken: "a0", RefreshToken: "r0", Expiry: time.Now().Add(-time.Hour)})
	if err := syscall.Mount(s.path, s.path, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("a file cannot be mounted here, which needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(s.path, syscall.MNT_DETACH) })
	i := newIssuer(t, "r0")
	_, err := i.source(s.path).Token()
	require.ErrorIs(t, err, syscall.EBUSY)
	require.Zero(t, i.requests.Load(), "the refresh token is not spent")
	require.Equal(t, "a0", accessOf(t, s))
	only(t, s)
	require.NoError(t, syscall.Unmount(s.path, syscall.MNT_DETACH))
	_, err = i.source(s.path).Token()
	require.NoError(t, err)
}

// Where nothing is spent, nothing is confirmed. The token is good, and that it could not be saved is said until it is.
func TestTokenOfAClientOnAFullDisk(t *testing.T) {
	dir := smallDisk(t)
	s := New(filepath.Join(dir, "token.json"))
	filler := fillUp(t, dir)
	tokens := newResource(t)
	var mu sync.Mutex
	var said []error
	client := &http.Client{Transport: &authretry.Transport{
		Schemes: []authretry.Scheme{&authretry.Bearer{Source: &authretry.TokenSource{
			Fetch: (&authretry.TokenEndpoint{URL: tokens + "/token", ClientID: "c", Auth: authretry.SecretBasic("client-secret")}).ClientCredentials(), Store: s}}},
		OnEvent: func(_ context.Context, e authretry.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind == authretry.EventRefreshed || e.Kind == authretry.EventNotSaved {
				said = append(said, e.Err)
			}
		},
	}}
	resp, err := client.Get(tokens + "/resource")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	resp.Body.Close()
	mu.Lock()
	require.NotEmpty(t, said)
	for _, err := range said {
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.ErrorContains(t, err, "could not be saved")
		require.NotContains(t, fmt.Sprintf("%+v", err), "secret")
	}
	mu.Unlock()
	require.NoError(t, os.Remove(filler))
	require.Eventually(t, func() bool { return accessOf(t, s) == "secret-token" }, 30*time.Second, 10*time.Millisecond)
}

// newResource issues one token, and wants it.
func newResource(t *testing.T) string {
	mux := http.NewServeMux()
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"secret-token","expires_in":3600}`)
	})
	mux.HandleFunc("/resource", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret-token" {
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.URL
}

// A folder that this user may read only. Root may write in any, so that a thread becomes somebody else.
func TestFolderThatIsReadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a folder can be given to another user by root only")
	}
	const nobody = 65534
	root, err := os.MkdirTemp("/tmp", "filestore-*")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(root) })
	require.NoError(t, os.Chmod(root, 0o711))
	s := New(filepath.Join(root, "sub", "token.json"))
	set(t, s, record("old").Token)
	for _, path := range []string{s.path, s.path + ".lock", filepath.Dir(s.path)} {
		require.NoError(t, os.Chown(path, nobody, nobody))
	}
	require.NoError(t, os.Chmod(filepath.Dir(s.path), 0o500))
	spent := false
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good, so that the thread ends with the goroutine
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), nobody, ^uintptr(0)); errno != 0 {
			failed <- errno
			return
		}
		failed <- New(s.path).Update(context.Background(), func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
			if err := confirm(ctx); err != nil {
				return nil, err
			}
			spent = true
			return record("new"), nil
		})
	}()
	require.ErrorIs(t, <-failed, fs.ErrPermission)
	require.False(t, spent)
	entries, err := os.ReadDir(filepath.Dir(s.path))
	require.NoError(t, err)
	require.Len(t, entries, 2)
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

// A command that is run by sudo once must not leave a lock file to which the user whose login it is has no access ever after.
func TestNoLockFileIsMadeBesideAFileOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a file can be given to another user by root only")
	}
	s := New(path(t))
	data, err := record("a").Encode() // as another program has kept it, without a lock file
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Dir(s.path), 0o700))
	require.NoError(t, os.WriteFile(s.path, data, 0o600))
	require.NoError(t, os.Chown(s.path, 65534, 65534))
	_, err = update(s, t.Context(), nil)
	require.ErrorIs(t, err, ErrUnsafe)
	_, err = s.LockLogin(t.Context())
	require.ErrorIs(t, err, ErrUnsafe)
	entries, err := os.ReadDir(filepath.Dir(s.path))
	require.NoError(t, err)
	require.Len(t, entries, 1)

	require.NoError(t, os.Chown(s.path, os.Geteuid(), -1))
	unlock, err := s.LockLogin(t.Context())
	require.NoError(t, err)
	unlock()
	set(t, s, record("b").Token)
}

// Two hundred processes find one expired token: there is one token request.
func TestTwoHundredProcessesRefreshOnce(t *testing.T) {
	t.Parallel()
	processes := thorough.Or(200, 50)
	s := New(path(t))
	set(t, s, &oauth2.Token{AccessToken: "a0", RefreshToken: "r0", Expiry: time.Now().Add(-time.Hour)})
	i := newIssuer(t, "r0")
	var all sync.WaitGroup
	var served atomic.Int32
	for range processes {
		all.Go(func() {
			if out, err := child(t, "refresh", s.path, i.URL).CombinedOutput(); err != nil || string(out) != "a1" {
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
