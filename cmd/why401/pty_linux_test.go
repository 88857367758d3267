package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/authretry/authretry/authtest"
	"github.com/stretchr/testify/require"
)

// TestPasswordAtTerminal types a password at a pseudo-terminal, which must not echo it, and must be as it was afterwards.
func TestPasswordAtTerminal(t *testing.T) {
	if _, err := exec.LookPath("stty"); err != nil {
		t.Skip("there is no stty")
	}
	keyboard, terminal := openTerminal(t)
	before, err := stty(terminal, "-g")
	require.NoError(t, err)

	w := newWorld(t, map[string]http.Handler{"api.example.com": guarded(t, &authtest.Basic{Username: "Aladdin", Password: password})})
	base := &http.Transport{DialContext: w.dial}
	defer base.CloseIdleConnections()
	var stdout bytes.Buffer
	// The prompt comes once the echo is off, and is answered then.
	prompt := writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "not shown") {
			if _, err := io.WriteString(keyboard, password+"\n"); err != nil {
				return 0, err
			}
		}
		return len(p), nil
	})
	c := command{stdin: terminal, stdout: &stdout, stderr: prompt, getenv: func(string) string { return "" }, asker: asker{base: base, now: time.Now}}
	status := c.run(t.Context(), []string{"-u", "Aladdin", "-allow-plaintext", "http://api.example.com/"})
	require.Equal(t, exitPassed, status, stdout.String())

	after, err := stty(terminal, "-g")
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.NoError(t, writeAll(terminal, "end"))
	echoed := make([]byte, 100)
	n, err := keyboard.Read(echoed)
	require.NoError(t, err)
	require.Equal(t, "end", string(echoed[:n]), "nothing before the end has been echoed")
}

// TestWidthOfTheTerminal goes by the terminal rather than by COLUMNS, which shells do not export.
func TestWidthOfTheTerminal(t *testing.T) {
	_, terminal := openTerminal(t)
	columns := func() int { return newPrinter(terminal, func(string) string { return "100" }).width }
	for columnsSet, want := range map[uint16]int{50: 50, 90: 90, 7: 40, 300: 120, 0: 100} {
		size := [4]uint16{24, columnsSet, 0, 0}
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, terminal.Fd(), syscall.TIOCSWINSZ, uintptr(unsafe.Pointer(&size)))
		require.Zero(t, errno)
		require.Equal(t, want, columns())
	}
	file, err := os.Create(t.TempDir() + "/out")
	require.NoError(t, err)
	defer file.Close()
	require.Equal(t, 100, newPrinter(file, func(string) string { return "100" }).width, "a file has no width of its own")
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func writeAll(w io.Writer, s string) error {
	_, err := io.WriteString(w, s)
	return err
}

// openTerminal opens a pseudo-terminal: what is written to keyboard is typed at terminal, whose output is read there.
func openTerminal(t *testing.T) (keyboard, terminal *os.File) {
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("there are no pseudo-terminals here")
	}
	t.Cleanup(func() { keyboard.Close() })
	var locked, number int32
	for request, arg := range map[uintptr]*int32{syscall.TIOCSPTLCK: &locked, syscall.TIOCGPTN: &number} {
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, keyboard.Fd(), request, uintptr(unsafe.Pointer(arg)))
		require.Zero(t, errno)
	}
	terminal, err = os.OpenFile("/dev/pts/"+strconv.Itoa(int(number)), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { terminal.Close() })
	return keyboard, terminal
}
