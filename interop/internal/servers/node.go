package servers

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
)

// OIDCProvider starts oidc-provider, an authorization server of the Node world, with the clients of testdata/node/provider.mjs. keys
// are the public keys of its client "jwt", as a JWK Set.
func OIDCProvider(t testing.TB, keys string) *Server {
	t.Helper()
	port := freePort(t)
	runNode(t, folder(t), port, "provider.mjs", strconv.Itoa(port), keys)
	return &Server{URL: url("http", port)}
}

// runNode runs a script of testdata/node as a server that may write to a folder.
func runNode(t testing.TB, to string, port int, script string, args ...string) {
	t.Helper()
	dir, node := nodeFolder(t)
	run(t, to, []int{port}, exec.Command(node, append([]string{filepath.Join(dir, script)}, args...)...))
}

// Node returns the Node that is among the packages of testdata/node.
func Node(t testing.TB) string {
	t.Helper()
	_, node := nodeFolder(t)
	return node
}

// nodeFolder returns the folder testdata/node, and the Node that is among its packages.
func nodeFolder(t testing.TB) (dir, node string) {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	dir, err := filepath.Abs(filepath.Join(filepath.Dir(file), "..", "..", "testdata", "node"))
	if err != nil {
		t.Fatal(err)
	}
	node, err = exec.LookPath(filepath.Join(dir, "node_modules", ".bin", "node"))
	if err != nil {
		Missing(t, "the packages of interop/testdata/node are not installed (npm install --no-package-lock, in that folder)")
	}
	return dir, node
}
