package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/filestore"
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
	asked := 0
	decline := func(ctx context.Context, url string) error {
		asked++
		return authtest.Decline(ctx, url)
	}
	flow := &login.Browser{Open: decline, Out: io.Discard}
	_, err := connect(t.Context(), srv.URL+"/mcp", newTokens(filepath.Join(t.TempDir(), "login.json"), flow))
	if !errors.Is(err, authretry.ErrLoginRequired) || !errors.Is(err, login.ErrDeclined) {
		t.Errorf("the error is %v", err)
	}
	if asked != 1 || oauth.Logins() != 0 {
		t.Errorf("asked %d times, %d logins", asked, oauth.Logins())
	}
}

// So it does if the server refuses what it has been sent, with what to do.
func TestRefused(t *testing.T) {
	srv, _ := newServer()
	defer srv.Close()
	srv.Inject("/mcp", 100, authtest.Refuse())
	flow := &login.Browser{Open: authtest.Approve, Out: io.Discard}
	_, err := connect(t.Context(), srv.URL+"/mcp", newTokens(filepath.Join(t.TempDir(), "login.json"), flow))
	var rejection *authretry.Rejection
	if !errors.As(err, &rejection) || rejection.Reason != authretry.ReasonFreshTokenRefused {
		t.Errorf("the error is %v", err)
	}
}

// Ctrl-C ends a login, and the next run need not wait for it.
func TestInterrupted(t *testing.T) {
	srv, oauth := newServer()
	defer srv.Close()
	file := filepath.Join(t.TempDir(), "login.json")
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan struct{})
	leave := func(ctx context.Context, _ string) error {
		interrupt()
		<-ctx.Done()
		close(ended)
		return nil
	}
	_, err := connect(ctx, srv.URL+"/mcp", newTokens(file, &login.Browser{Open: leave, Out: io.Discard}))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	<-ended

	session, err := connect(t.Context(), srv.URL+"/mcp", newTokens(file, &login.Browser{Open: authtest.Approve, Out: io.Discard}))
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}
	if n := oauth.Logins(); n != 1 {
		t.Errorf("%d logins", n)
	}
}

// loggedIn returns a server at which a person has logged in, and where the login is.
func loggedIn(t *testing.T) (srv *authtest.Server, oauth *authtest.OAuth, file string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", dir)
	t.Setenv("AppData", dir)
	srv, oauth = newServer()
	t.Cleanup(srv.Close)
	server := srv.URL + "/mcp"
	file, err := loginFile(server)
	if err != nil {
		t.Fatal(err)
	}
	session, err := connect(t.Context(), server, newTokens(file, &login.Browser{Open: authtest.Approve, Out: io.Discard}))
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Close(); err != nil {
		t.Fatal(err)
	}
	return srv, oauth, file
}

// With a URL, the program finds the login that is in its file, and asks nobody.
func TestArguments(t *testing.T) {
	srv, oauth, _ := loggedIn(t)
	server := srv.URL + "/mcp"

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

// Ctrl-C while a token is being refreshed does not lose the login: the refresh token is used up, and the next one has to be saved.
func TestInterruptedWhileRefreshing(t *testing.T) {
	srv, oauth, file := loggedIn(t)
	server := srv.URL + "/mcp"
	first, err := filestore.New(file).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	oauth.ExpireNow()
	srv.Reset()
	srv.Inject("/oauth/token", 1, authtest.Delay(2*time.Second))
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	go func() {
		for srv.Counts().TokenRequests == 0 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		interrupt()
	}()
	if err := run(ctx, io.Discard, []string{server}); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	next, err := filestore.New(file).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if next.Token.RefreshToken == first.Token.RefreshToken {
		t.Error("the process ends, and its login with it")
	}
}
