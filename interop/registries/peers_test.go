package registries

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// wrap is a file that has a Transport for the tests of a package. It writes a byte for each exchange.
const wrap = `package remote

import (
	"context"
	"net/http"
	"os"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/registry"
)

var authretryClient = func() *http.Client {
	log, err := os.OpenFile(os.Getenv("AUTHRETRY_EXCHANGES"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	t := authretry.New(&registry.Scheme{})
	t.Base = currentDefault{}
	t.OnEvent = func(_ context.Context, e authretry.Event) {
		if e.Kind == authretry.EventDone {
			_, _ = log.Write([]byte("."))
		}
	}
	return &http.Client{Transport: t}
}()

// A currentDefault is whatever http.DefaultTransport is now. Tests change it.
type currentDefault struct{}

func (currentDefault) RoundTrip(req *http.Request) (*http.Response, error) { return http.DefaultTransport.RoundTrip(req) }
`

// The tests that go-containerregistry and oras-go have of what they send, and how, pass by our Transport, put to where users put it:
// in place of what they send by if they are told nothing else.
func TestPeersOwnTests(t *testing.T) {
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	for _, peer := range []struct {
		module, folder string
		old, new       string // in which line
		exchanges      int64  // at the least
	}{
		{"github.com/google/go-containerregistry", "pkg/v1/remote",
			"transport:            DefaultTransport,", "transport: authretryClient.Transport,", 1000},
		{"oras.land/oras-go/v2", "registry/remote", "return auth.DefaultClient", "_ = auth.DefaultClient; return authretryClient", 200},
	} {
		t.Run(peer.module, func(t *testing.T) {
			dir := t.TempDir()
			source := strings.TrimSpace(goCommand(t, ".", "list", "-m", "-f", "{{.Dir}}", peer.module))
			require.NoError(t, os.CopyFS(dir, os.DirFS(source)))
			goCommand(t, dir, "mod", "edit", "-go=1.26.0", "-toolchain=none",
				"-require=github.com/authretry/authretry@v0.0.0", "-replace=github.com/authretry/authretry="+root)
			replaced := 0
			files, err := filepath.Glob(filepath.Join(dir, peer.folder, "*.go"))
			require.NoError(t, err)
			for _, file := range files {
				text, err := os.ReadFile(file)
				require.NoError(t, err)
				if n := strings.Count(string(text), peer.old); n > 0 && !strings.HasSuffix(file, "_test.go") {
					replaced += n
					require.NoError(t, os.Chmod(file, 0o600))
					require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(string(text), peer.old, peer.new)), 0o600))
				}
			}
			require.Positive(t, replaced)
			require.NoError(t, os.WriteFile(filepath.Join(dir, peer.folder, "authretry.go"), []byte(wrap), 0o600))
			exchanges := filepath.Join(dir, "exchanges")
			require.NoError(t, os.WriteFile(exchanges, nil, 0o600))
			t.Setenv("AUTHRETRY_EXCHANGES", exchanges)
			goCommand(t, dir, "test", "-mod=mod", "-vet=off", "./"+peer.folder)
			info, err := os.Stat(exchanges)
			require.NoError(t, err)
			t.Logf("%d exchanges", info.Size())
			require.GreaterOrEqual(t, info.Size(), peer.exchanges)
		})
	}
}

// goCommand runs the go command in a folder, and returns what it writes.
func goCommand(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "go %s said %s%s", strings.Join(args, " "), out, &stderr)
	return string(out)
}
