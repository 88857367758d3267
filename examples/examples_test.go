// Package examples has its programs in folders; this test runs them.
package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

// What differs from run to run.
var changing = regexp.MustCompile(`(nonce=|127\.0\.0\.1:)("[0-9A-Z]+"|[0-9]+)`)

// TestOutput runs every example and compares what it prints with its output.txt. Unless all is to be tried, it runs the one that
// README.md begins with.
func TestOutput(t *testing.T) {
	outputs, err := filepath.Glob("*/output.txt")
	require.NoError(t, err)
	mains, err := filepath.Glob("*/main.go")
	require.NoError(t, err)
	for _, main := range mains {
		if _, err := os.Stat(filepath.Join(filepath.Dir(main), "go.mod")); err == nil {
			continue // a module of its own tests itself
		}
		require.Contains(t, outputs, filepath.Join(filepath.Dir(main), "output.txt"))
	}
	for _, output := range outputs {
		dir := filepath.Dir(output)
		if thorough.Or(false, dir != "quickstart") {
			continue
		}
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(output)
			require.NoError(t, err)
			got, err := exec.Command("go", "run", "./"+dir).Output()
			require.NoError(t, err)
			require.Equal(t, string(want), changing.ReplaceAllString(string(got), "$1..."))
		})
	}
}

// TestTemporaryFiles has a link where the example that writes a password could be expected to do so, by its process ID: it must not go there.
func TestTemporaryFiles(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "js" {
		t.Skip("there is no shell")
	}
	dir := t.TempDir()
	program, theirs := filepath.Join(dir, "registry"), filepath.Join(dir, "theirs")
	require.NoError(t, exec.Command("go", "build", "-o", program, "./registry").Run())
	temp := t.TempDir()
	cmd := exec.Command("sh", "-c", `ln -s "$2" "$TMPDIR/config-$$.json" && exec "$1"`, "sh", program, theirs)
	cmd.Env = append(os.Environ(), "TMPDIR="+temp)
	require.NoError(t, cmd.Run())
	require.NoFileExists(t, theirs)
	left, err := filepath.Glob(filepath.Join(temp, "*"))
	require.NoError(t, err)
	require.LessOrEqual(t, len(left), 1, "besides the link, which is not ours")
}
