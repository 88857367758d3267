package login

import (
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAutoChooses(t *testing.T) {
	both := &Authorization{URL: "https://a/authorize", DeviceURL: "https://a/device"}
	onlyBrowser, onlyDevice := &Authorization{URL: "https://a/authorize"}, &Authorization{DeviceURL: "https://a/device"}
	for name, c := range map[string]struct {
		goos    string
		env     string
		command string // that there is
		a       *Authorization
		want    string
	}{
		"Linux desktop":         {"linux", "DISPLAY=:0", "xdg-open", both, "browser"},
		"Wayland":               {"linux", "WAYLAND_DISPLAY=wayland-0", "xdg-open", both, "browser"},
		"macOS":                 {"darwin", "", "open", both, "browser"},
		"Windows":               {"windows", "", "rundll32", both, "browser"},
		"BSD":                   {"openbsd", "DISPLAY=:0", "xdg-open", both, "browser"},
		"no display":            {"linux", "", "xdg-open", both, "device"},
		"nothing that opens":    {"linux", "DISPLAY=:0", "", both, "device"},
		"SSH":                   {"linux", "SSH_CONNECTION=1", "xdg-open", both, "device"},
		"SSH with X11":          {"linux", "SSH_CONNECTION=1 DISPLAY=localhost:10.0", "xdg-open", both, "device"},
		"SSH by its client":     {"darwin", "SSH_CLIENT=1", "open", both, "device"},
		"SSH by its terminal":   {"darwin", "SSH_TTY=/dev/pts/1", "open", both, "device"},
		"CI":                    {"darwin", "CI=true", "open", both, "use client credentials"},
		"CI is 1":               {"linux", "CI=1 DISPLAY=:0", "xdg-open", both, "use client credentials"},
		"CI is false":           {"darwin", "CI=false", "open", both, "browser"},
		"CI is 0":               {"darwin", "CI=0", "open", both, "browser"},
		"only a device":         {"darwin", "", "open", onlyDevice, "device"},
		"SSH, only a browser":   {"linux", "SSH_CONNECTION=1", "xdg-open", onlyBrowser, "by hand: It is not opened for you: this is an SSH session"},
		"no display, no device": {"linux", "", "xdg-open", onlyBrowser, "by hand: It is not opened for you: there is no display"},
		"no command, no device": {"windows", "", "", onlyBrowser, "by hand: It is not opened for you: there is no rundll32"},
		"CI, only a browser":    {"linux", "CI=true", "xdg-open", onlyBrowser, "use client credentials"},
		"neither":               {"darwin", "", "open", &Authorization{}, "neither an authorization endpoint"},
		"nothing":               {"darwin", "", "open", nil, "neither an authorization endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			in := surroundings{goos: c.goos, getenv: func(key string) string {
				for _, pair := range strings.Fields(c.env) {
					if value, ok := strings.CutPrefix(pair, key+"="); ok {
						return value
					}
				}
				return ""
			}, lookPath: func(name string) (string, error) {
				if name == c.command {
					return name, nil
				}
				return "", exec.ErrNotFound
			}}
			flow, err := auto{io.Discard, in}.choose(c.a)
			got := ""
			switch flow := flow.(type) {
			case nil:
				got = err.Error()
			case *Device:
				got = "device"
			case *Browser:
				if got = "browser"; flow.hint != "" {
					got = "by hand: " + flow.hint
				}
			}
			require.Contains(t, got, c.want)
		})
	}
	_, err := Auto(nil).Login(t.Context(), nil)
	require.Error(t, err)
}

// Where no browser can be opened, a person opens the page by hand, from another machine if need be.
func TestPageThatIsOpenedByHand(t *testing.T) {
	s, out := newServer(t), &terminal{}
	a := s.authorization()
	a.DeviceURL = ""
	flow := auto{out, surroundings{goos: "linux", getenv: func(key string) string { return map[string]string{"SSH_TTY": "x"}[key] }, lookPath: exec.LookPath}}
	ended := make(chan error, 1)
	go func() {
		_, err := flow.Login(t.Context(), a)
		ended <- err
	}()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "Waiting for you") }, 20*time.Second, time.Millisecond)
	require.Regexp(t, `(?m)^It is not opened for you: this is an SSH session\. The browser has to reach port (\d+) of this machine\.$`, out.String())
	require.Regexp(t, `(?m)^    ssh -N -L (\d+):127\.0\.0\.1:(\d+) HOST$`, out.String())
	require.NoError(t, agree(t.Context(), shownIn(t, out.String())))
	require.NoError(t, <-ended)
	require.True(t, strings.HasSuffix(out.String(), "You are logged in.\n"))
}
