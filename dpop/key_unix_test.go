//go:build unix

package dpop_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/authretry/authretry/dpop"
	"github.com/stretchr/testify/require"
)

func TestOpenKeyOfBadFiles(t *testing.T) {
	folder := t.TempDir()
	good := filepath.Join(folder, "good.pem")
	_, err := dpop.OpenKey(good)
	require.NoError(t, err)
	text, err := os.ReadFile(good)
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(p384)
	require.NoError(t, err)
	write := func(data string, mode os.FileMode) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, []byte(data), 0o600))
			require.NoError(t, os.Chmod(path, mode))
		}
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, path string)
		want error
		text string
	}{
		"readable by others": {write(string(text), 0o640), dpop.ErrUnsafe, "chmod 600"},
		"empty":              {write("", 0o600), dpop.ErrDamaged, ""},
		"cut":                {write(string(text[:len(text)/2]), 0o600), dpop.ErrDamaged, ""},
		"changed":            {write(strings.Replace(string(text), "MIG", "MIH", 1), 0o600), dpop.ErrDamaged, ""},
		"of another kind":    {write(strings.ReplaceAll(string(text), "PRIVATE KEY", "EC PRIVATE KEY"), 0o600), dpop.ErrDamaged, "PKCS#8"},
		"of another curve":   {write(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), 0o600), nil, "P-256"},
		"a folder":           {func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o700)) }, dpop.ErrUnsafe, "regular"},
		"a symbolic link":    {func(t *testing.T, path string) { require.NoError(t, os.Symlink(good, path)) }, dpop.ErrUnsafe, "symbolic link"},
		"a link to nowhere":  {func(t *testing.T, path string) { require.NoError(t, os.Symlink(path+"x", path)) }, dpop.ErrUnsafe, "symbolic link"},
		"a pipe":             {func(t *testing.T, path string) { require.NoError(t, syscall.Mkfifo(path, 0o600)) }, dpop.ErrUnsafe, "regular"},
		"huge": {func(t *testing.T, path string) {
			write(string(text), 0o600)(t, path)
			require.NoError(t, os.Truncate(path, 1<<30))
		}, dpop.ErrDamaged, "bytes"},
		"of another user": {func(t *testing.T, path string) {
			write(string(text), 0o600)(t, path)
			if err := os.Chown(path, 12345, -1); err != nil {
				t.Skip("only root can give files away")
			}
		}, dpop.ErrUnsafe, "another user"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(folder, strings.ReplaceAll(name, " ", "-"))
			c.make(t, path)
			_, err := dpop.OpenKey(path)
			require.Error(t, err)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			}
			require.ErrorContains(t, err, c.text)
			require.ErrorContains(t, err, path)
			require.NotContains(t, err.Error(), "MIG")
		})
	}
	_, err = dpop.OpenKey(filepath.Join(good, "below-a-file"))
	require.Error(t, err)
}
