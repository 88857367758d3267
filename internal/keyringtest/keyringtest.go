//go:build unix

// Package keyringtest runs a D-Bus session with a GNOME Keyring, for tests: Debian's, in a folder of its own, by any user.
package keyringtest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Start starts a D-Bus session with a GNOME Keyring that is unlocked, for as long as the test lasts, and has the environment
// say so. Methods of its collections that are forbidden, such as "CreateItem", fail. Where these are not installed, the test is skipped, or fails if AUTHRETRY_INTEROP is "require". The keyring may take a moment
// until it answers.
func Start(t testing.TB, forbidden ...string) (daemon *exec.Cmd) {
	t.Helper()
	for _, program := range []string{"dbus-daemon", "gnome-keyring-daemon"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("AUTHRETRY_INTEROP") == "require" {
				t.Fatalf("%s is not installed", program)
			}
			t.Skipf("%s is not installed", program)
		}
	}
	home := t.TempDir()
	for name, value := range map[string]string{
		"HOME": home, "XDG_RUNTIME_DIR": home, "XDG_DATA_HOME": filepath.Join(home, "data"), "XDG_CONFIG_HOME": filepath.Join(home, "config"),
	} {
		t.Setenv(name, value)
	}
	// Unlike a usual session's, it starts nothing by itself: a second keyring, which is locked, might come before ours.
	config, deny := filepath.Join(home, "bus.conf"), ""
	for _, member := range forbidden {
		deny += `<deny send_interface="org.freedesktop.Secret.Collection" send_member="` + member + `"/>`
	}
	if err := os.WriteFile(config, []byte(`<busconfig>
	<type>session</type>
	<listen>unix:dir=`+home+`</listen>
	<auth>EXTERNAL</auth>
	<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/>`+deny+`</policy>
</busconfig>`), 0o600); err != nil {
		t.Fatal(err)
	}
	bus := exec.Command("dbus-daemon", "--config-file="+config, "--print-address", "--nofork", "--nopidfile")
	out, err := bus.StdoutPipe()
	if err == nil {
		err = bus.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = bus.Process.Kill()
		_ = bus.Wait()
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", strings.TrimSpace(address))
	return StartDaemon(t, "--unlock")
}

// StartDaemon starts a GNOME Keyring in the session that there is.
func StartDaemon(t testing.TB, options ...string) (daemon *exec.Cmd) {
	t.Helper()
	daemon = exec.Command("gnome-keyring-daemon", append(options, "--foreground", "--components=secrets")...)
	daemon.Stdin = strings.NewReader("password")
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	return daemon
}
