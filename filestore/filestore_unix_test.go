//go:build unix

package filestore

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Opening a pipe without a writer would wait for one, which no context could end.
func TestPipeIsRefusedWithoutWaiting(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "token.json"))
	require.NoError(t, syscall.Mkfifo(s.path, 0o600))
	_, err := loadToken(s, t.Context())
	require.ErrorIs(t, err, ErrUnsafe)
	_, err = update(s, t.Context(), nil)
	require.ErrorIs(t, err, ErrUnsafe)
}

// So it is with a lock file.
func TestLockThatIsNoFileIsRefused(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "token.json"))
	for name, suffix := range map[string]string{"Update": ".lock", "LockLogin": ".login.lock"} {
		for kind, make := range map[string]func(string) error{
			"pipe":          func(path string) error { return syscall.Mkfifo(path, 0o600) },
			"folder":        func(path string) error { return os.Mkdir(path, 0o700) },
			"symbolic link": func(path string) error { return os.Symlink(s.path+".elsewhere", path) },
		} {
			require.NoError(t, make(s.path+suffix))
			var err error
			if name == "Update" {
				_, err = update(s, t.Context(), nil)
			} else {
				_, err = s.LockLogin(t.Context())
			}
			require.ErrorIs(t, err, ErrUnsafe, "%s: %s", name, kind)
			require.NoError(t, os.Remove(s.path+suffix))
		}
	}
	require.NoFileExists(t, s.path+".elsewhere")
}
