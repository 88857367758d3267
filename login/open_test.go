package login

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOpenCommand(t *testing.T) {
	for goos, want := range map[string]string{"linux": "xdg-open", "freebsd": "xdg-open", "darwin": "open", "windows": "rundll32 url.dll,FileProtocolHandler"} {
		require.Equal(t, want, strings.Join(openCommand(goos), " "), goos)
	}
}

// script makes a command of a shell script.
func script(t *testing.T, name, text string) {
	t.Helper()
	sh, err := exec.LookPath("sh")
	if err != nil || runtime.GOOS != "linux" {
		t.Skip("for a system with sh and xdg-open")
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!"+sh+"\n"+text), 0o700))
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

// The whole address is one argument, whatever is in it, and the command is out of the reach of our terminal.
func TestPageIsOpenedWithoutAShell(t *testing.T) {
	to := filepath.Join(t.TempDir(), "args")
	script(t, "xdg-open", `printf '%s\n' "$#" "$@" "$(cut -d' ' -f6 /proc/$$/stat)" "$$" >`+to+`.new && mv `+to+".new "+to+"\n")
	const address = "https://auth.example.com/a%20b/authorize?x=1&state=%27%24%28touch+x%29&y=*,~!@:"
	require.NoError(t, openByCommand(t.Context(), address))
	var data []byte
	require.Eventually(t, func() bool { // it may still run
		var err error
		data, err = os.ReadFile(to)
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	require.Equal(t, []string{"1", address}, lines[:2])
	require.Equal(t, lines[2], lines[3], "it leads a session of its own")
}

func TestCommandThatFails(t *testing.T) {
	script(t, "xdg-open", "echo secret >&2; exit 3\n")
	require.EqualError(t, open(t.Context(), []string{"xdg-open"}, "https://a.example.com/", time.Minute), "xdg-open has failed")
	shown := filepath.Join(t.TempDir(), "shown")
	require.NoError(t, os.WriteFile(shown, nil, 0o600))
	script(t, "xdg-open", "while [ -e "+shown+" ]; do sleep 0.1; done\nexit 3\n")
	const wait = 50 * time.Millisecond
	start := time.Now()
	require.NoError(t, open(t.Context(), []string{"xdg-open"}, "https://a.example.com/", wait), "a browser that stays")
	require.GreaterOrEqual(t, time.Since(start), wait)
	require.NoError(t, os.Remove(shown))
	t.Setenv("PATH", "")
	require.EqualError(t, openByCommand(t.Context(), "https://a.example.com/"), "xdg-open cannot be run")
}
