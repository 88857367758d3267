// Package examples has its programs in folders; this test runs them.
package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
