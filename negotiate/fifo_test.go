//go:build unix

package negotiate

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The usual place of a cache is in a folder where everybody can make files: a pipe there, whose opening does not end, must not hold up
// requests.
func TestCacheThatIsAPipe(t *testing.T) {
	k := newTestKDC(t, testSPN)
	path := filepath.Join(t.TempDir(), "cc")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	ended := make(chan error, 1)
	go func() {
		_, err := (&Client{Cache: path, Config: k.config("x"), dial: k.dial}).Token(t.Context(), testSPN)
		ended <- err
	}()
	select {
	case err := <-ended:
		require.ErrorContains(t, err, "it is damaged, or no such file")
	case <-time.After(10 * time.Second):
		t.Fatal("Token waits for somebody to write")
	}
}
