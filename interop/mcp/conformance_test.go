package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/stretchr/testify/require"
)

// TestMain is the client, where the kit has started it.
func TestMain(m *testing.M) {
	if os.Getenv("MCP_CONFORMANCE_SCENARIO") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestConformance runs all scenarios about authorization that the kit has.
func TestConformance(t *testing.T) {
	kit := newKit(t)
	client, err := os.Executable()
	require.NoError(t, err)
	scenarios := kit.scenarios(t)
	require.Len(t, scenarios, 33)
	for _, scenario := range scenarios {
		t.Run(strings.TrimPrefix(scenario, "auth/"), func(t *testing.T) {
			checks, output, err := kit.run(t, scenario, client)
			require.NoError(t, err, output)
			require.NotZero(t, checks["SUCCESS"], output)
			require.Zero(t, checks["FAILURE"]+checks["WARNING"], output)
			require.NotContains(t, output, "DATA RACE") // of the client, which some scenarios let fail
		})
	}
}

// The kit fails a client that does nothing, and says so where this test looks.
func TestClientThatDoesNothing(t *testing.T) {
	checks, _, err := newKit(t).run(t, "auth/dpop", "true")
	require.ErrorContains(t, err, "exit status 1")
	require.NotZero(t, checks["FAILURE"])
	require.Zero(t, checks["SUCCESS"])
}

// The kit's servers are not to be reached from outside.
func TestLoopback(t *testing.T) {
	kit := newKit(t)
	const listen = `const s = require("net").createServer().listen(0); console.log(s.address().address); s.close()`
	output, err := kit.node(t, "--eval", listen)
	require.NoError(t, err, output)
	require.Equal(t, "127.0.0.1\n", output)
}

// A kit is the conformance tests of the protocol, as npm installs them.
type kit struct{ program, main, preload string }

// newKit finds the kit, and Node.
func newKit(t *testing.T) *kit {
	t.Helper()
	k := &kit{program: servers.Node(t)}
	testdata, err := filepath.Abs("testdata")
	require.NoError(t, err)
	k.preload = filepath.Join(testdata, "loopback.mjs")
	k.main = filepath.Join(testdata, "node_modules", "@modelcontextprotocol", "conformance", "dist", "index.js")
	if _, err := os.Stat(k.main); err != nil {
		servers.Missing(t, "the conformance tests are not installed (npm install --no-package-lock, in interop/mcp/testdata)")
	}
	return k
}

// node runs Node, for some minutes at most, and returns what it has written. What it has started ends with it.
func (k *kit) node(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, k.program, append([]string{"--import", k.preload}, args...)...)
	// A process group of its own, in which its shell and the client are, too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.WaitDelay = 10 * time.Second
	end := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = end
	output, err := cmd.CombinedOutput()
	if cmd.Process != nil {
		_ = end() // of what is left, such as a client that the kit has given up
	}
	return string(output), err
}

var scenarioLine = regexp.MustCompile(`(?m)^ +- (auth/\S+)`)

// scenarios returns the names of those that are about authorization.
func (k *kit) scenarios(t *testing.T) (names []string) {
	t.Helper()
	output, err := k.node(t, k.main, "list")
	require.NoError(t, err, output)
	for _, m := range scenarioLine.FindAllStringSubmatch(output, -1) {
		names = append(names, m[1])
	}
	return names
}

// run runs a scenario with a client, and returns how many of the kit's checks have ended how.
func (k *kit) run(t *testing.T, scenario, client string) (checks map[string]int, output string, err error) {
	t.Helper()
	dir := t.TempDir()
	output, err = k.node(t, k.main, "client", "--scenario", scenario, "--command", client,
		"--timeout", "90000" /* ms */, "--output-dir", dir)
	files, globErr := filepath.Glob(filepath.Join(dir, "auth", "*", "checks.json"))
	require.NoError(t, globErr)
	require.Len(t, files, 1, output)
	text, readErr := os.ReadFile(files[0])
	require.NoError(t, readErr)
	var results []struct{ Status string }
	require.NoError(t, json.Unmarshal(text, &results))
	checks = map[string]int{}
	for _, r := range results {
		checks[r.Status]++
	}
	return checks, output, err
}
