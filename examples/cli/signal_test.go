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
		signals []os.Signal
		fault   authtest.Fault
		isSaved bool
	}{
		"Ctrl-C":       {[]os.Signal{os.Interrupt}, authtest.Delay(500 * time.Millisecond), true},
		"kill":         {[]os.Signal{syscall.SIGTERM}, authtest.Delay(500 * time.Millisecond), true},
		"Ctrl-C twice": {[]os.Signal{os.Interrupt, os.Interrupt}, authtest.Hang(), false},
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
			for _, s := range c.signals {
				require.NoError(t, cmd.Process.Signal(s))
				time.Sleep(100 * time.Millisecond) // or else two are one
			}
			select {
			case err := <-ended:
				require.Error(t, err)
			case <-time.After(10 * time.Second):
				t.Fatal("the command goes on")
			}
			record, err := store.Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.isSaved, record.Token.RefreshToken != first.RefreshToken)
		})
	}
}
