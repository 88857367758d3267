package login

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/oauth2"
)

// Auto returns a Flow that is a [Browser] where there is one to be opened, and else a [Device]: over SSH, and where there is no
// display or no command that opens a page. It writes to out; nil means os.Stderr.
//
// If there is nothing to be opened, and the authorization server has no device authorization endpoint, the person is asked to open
// the page. In continuous integration, where there is nobody, it fails at once, as [Device] and [Browser] do.
func Auto(out io.Writer) Flow { return auto{out, here()} }

type auto struct {
	out io.Writer
	in  surroundings
}

// Login implements [Flow].
func (f auto) Login(ctx context.Context, a *Authorization) (*oauth2.Token, error) {
	flow, err := f.choose(a)
	if err != nil {
		return nil, err
	}
	return flow.Login(ctx, a)
}

func (f auto) choose(a *Authorization) (Flow, error) {
	if a == nil || a.URL == "" && a.DeviceURL == "" {
		return nil, errors.New("login: there is neither an authorization endpoint nor one for devices, so nobody can log in")
	}
	why := f.in.whyNoBrowser()
	switch {
	case f.in.isCI():
		return nil, errCI("take a login.Device whose Prompt shows the code to somebody")
	case a.URL != "" && why == "":
		return &Browser{Out: f.out}, nil
	case a.DeviceURL != "":
		return &Device{Out: f.out}, nil
	}
	return &Browser{Out: f.out, hint: fmt.Sprintf(byHand, why)}, nil
}

// byHand is what to do where no browser can be opened, and there is no other way.
const byHand = `It is not opened for you: %s. The browser has to reach port PORT of this machine.
If it runs on another one, run this there first, with the name of this machine for HOST:

    ssh -N -L PORT:127.0.0.1:PORT HOST

Waiting for you to log in ...
`

// surroundings are what can be known of where the program runs.
type surroundings struct {
	getenv   func(string) string
	lookPath func(string) (string, error)
	goos     string
}

// here returns the surroundings of this process.
func here() surroundings { return surroundings{os.Getenv, exec.LookPath, runtime.GOOS} }

// whyNoBrowser says why no browser can be opened for the person, "" if one can.
func (s surroundings) whyNoBrowser() string {
	command := openCommand(s.goos)[0]
	switch {
	case s.getenv("SSH_CONNECTION") != "" || s.getenv("SSH_CLIENT") != "" || s.getenv("SSH_TTY") != "":
		return "this is an SSH session"
	case command == "xdg-open" && s.getenv("DISPLAY") == "" && s.getenv("WAYLAND_DISPLAY") == "":
		return "there is no display"
	}
	if _, err := s.lookPath(command); err != nil {
		return "there is no " + command
	}
	return ""
}

// isCI reports whether the variable CI is set, as most services for continuous integration do. That there is no terminal says less:
// a browser needs none, and a service may show a code in its log.
func (s surroundings) isCI() bool {
	ci := strings.ToLower(s.getenv("CI"))
	return ci != "" && ci != "false" && ci != "0"
}

// errCI is the error for a login where nobody can log in. What would work says otherwise.
func errCI(otherwise string) error {
	return errors.New("login: nobody can log in here, since this is continuous integration (CI is set); use client credentials, or a token that the job is given; " +
		"if somebody is there nevertheless, " + otherwise)
}
