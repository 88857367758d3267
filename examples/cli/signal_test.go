//go:build unix

package main

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/filestore"
	"github.com/stretchr/testify/require"
)

// Who ends the command while it refreshes a token does not lose the login, by Ctrl-C or by kill; and the second time it ends at once,
// whatever the server does.
func TestSignals(t *testing.T) {
	program := filepath.Join(t.TempDir(), "cli")
	require.NoError(t, exec.Command("go", "build", "-o", program, ".").Run())
	for name, c := range map[string]struct {
		signal  os.Signal
		fault   authtest.Fault
		isSaved bool // or else the signal is sent again
	}{
		"Ctrl-C":       {os.Interrupt, authtest.Delay(2 * time.Second), true},
		"kill":         {syscall.SIGTERM, authtest.Delay(2 * time.Second), true},
		"Ctrl-C twice": {os.Interrupt, authtest.Hang(), false},
	} {
		t.Run(name, func(t *testing.T) {
			srv, oauth := newServer()
			defer srv.Close()
			home := t.TempDir()
			t.Setenv("HOME", home)
			t.Setenv("XDG_CONFIG_HOME", home)
			dir, err := os.UserConfigDir()
			require.NoError(t, err)
			store := filestore.New(filepath.Join(dir, "my-cli", url.QueryEscape(srv.URL)+".json"))
			first := oauth.Login()
			require.NoError(t, (&authretry.TokenSource{Store: store}).Set(first))
			oauth.ExpireNow()
			srv.Inject("/oauth/token", 1, c.fault)

			cmd := exec.Command(program, "whoami")
			cmd.Env = append(os.Environ(), "CLI_SERVER="+srv.URL)
			require.NoError(t, cmd.Start())
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			defer cmd.Process.Kill()
			require.Eventually(t, func() bool { return srv.Counts().TokenRequests == 1 }, 30*time.Second, time.Millisecond)
			require.NoError(t, cmd.Process.Signal(c.signal))
			require.Eventually(t, func() bool {
				select {
				case err = <-ended:
					return true
				default:
					if !c.isSaved {
						cmd.Process.Signal(c.signal)
					}
					return false
				}
			}, 15*time.Second, 100*time.Millisecond, "the command goes on") // that is less than it waits for a refresh
			require.Equal(t, c.isSaved, err != nil && cmd.ProcessState.Exited())
			record, err := store.Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.isSaved, record.Token.RefreshToken != first.RefreshToken)
		})
	}
}
