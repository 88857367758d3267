package negotiate

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is for Windows alone compiles.
func TestCompilesOnWindows(t *testing.T) {
	cmd := exec.Command("go", "vet", ".")
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
