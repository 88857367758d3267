package main

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/login"
)

func TestOutput(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), &out, nil); err != nil {
		t.Fatal(err)
	}
	const want = `$ mcp URL
greet: says hello
Refusals: 1, logins: 1
$ mcp URL greet
Hello, Mufasa.
Refusals: 1, logins: 1
`
	if out.String() != want {
		t.Errorf("printed\n%s", out.String())
	}
}

// What the SDK returns says why there is no session.
func TestDeclined(t *testing.T) {
	srv, oauth := newServer()
	defer srv.Close()
	flow := &login.Browser{Open: authtest.Decline, Out: io.Discard}
	_, err := connect(t.Context(), srv.URL+"/mcp", filepath.Join(t.TempDir(), "login.json"), flow)
	if !errors.Is(err, authretry.ErrLoginRequired) || !errors.Is(err, login.ErrDeclined) {
		t.Errorf("the error is %v", err)
	}
	if n := oauth.Logins(); n != 0 {
		t.Errorf("%d logins", n)
	}
}

// With a URL, the program finds the login that is in its file, and asks nobody.
func TestArguments(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", dir)
	t.Setenv("AppData", dir)
	srv, oauth := newServer()
	defer srv.Close()
	server := srv.URL + "/mcp"
	file, err := loginFile(server)
	if err != nil {
		t.Fatal(err)
	}
	session, err := connect(t.Context(), server, file, &login.Browser{Open: authtest.Approve, Out: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}

	var out strings.Builder
	for _, args := range [][]string{{server}, {server, "greet", `{"name": "Mufasa"}`}} {
		if err := run(t.Context(), &out, args); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(t.Context(), &out, []string{server, "greet"}); err == nil || err.Error() != "greet has failed" {
		t.Errorf("greet needs a name, but the error is %v", err)
	}
	const want = "greet: says hello\nHello, Mufasa.\nvalidating"
	if !strings.HasPrefix(out.String(), want) {
		t.Errorf("printed\n%s", out.String())
	}
	if n := oauth.Logins(); n != 1 {
		t.Errorf("%d logins", n)
	}
}
