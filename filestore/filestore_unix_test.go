//go:build unix

package filestore

import (
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
