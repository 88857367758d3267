// This program is a command whose user logs in with a browser, or with another device where there is none, as over SSH: cli login, cli
// whoami, cli logout. Its runs share the login by a file, which renews itself. Without an argument it shows itself, with a
// server of package authtest.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/filestore"
	"github.com/authretry/authretry/login"
)

// A cli is the command, for a server that has both the API and the logins.
type cli struct {
	server string
	tokens *authretry.TokenSource
	client *http.Client
}

func newCLI(server, file string, flow login.Flow) *cli {
	endpoint := &authretry.TokenEndpoint{URL: server + "/oauth/token", ClientID: "my-cli"}
	ask := &login.Authorization{Endpoint: endpoint, URL: server + "/oauth/authorize", DeviceURL: server + "/oauth/device"}
	tokens := &authretry.TokenSource{
		Fetch:  endpoint.Refresh(),
		Login:  ask.LoginFunc(flow), // asks the user, if there is no token and a request waits for one
		Revoke: endpoint.Revocation(server + "/oauth/revoke"),
		Store:  filestore.New(file),
	}
	return &cli{server, tokens, &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}}
}

func (c *cli) run(ctx context.Context, command string) (err error) {
	defer func() { // a refresh may be under way, whose token has to be saved
		err = errors.Join(err, c.tokens.Wait(context.WithoutCancel(ctx)))
	}()
	switch command {
	case "login":
		_, err := c.tokens.NewLogin(ctx) // whatever token there is
		return err
	case "logout":
		return c.tokens.Logout(ctx)
	case "whoami":
		req, err := http.NewRequestWithContext(ctx, "GET", c.server+"/me", nil)
		if err != nil {
			return err
		}
		resp, err := c.client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(os.Stdout, resp.Body)
		return errors.Join(authretry.Explain(resp), err)
	}
	return errUsage
}

var errUsage = errors.New("usage: CLI_SERVER=URL cli login | whoami | logout; or cli serve, which says what the URL is")

func main() {
	// Ctrl-C, or kill, ends a login, and frees its port and lock. What is being saved is waited for; the second time it ends at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	var err error
	switch {
	case len(os.Args) < 2:
		err = demonstrate(ctx)
	case os.Args[1] == "serve":
		err = serve(ctx)
	case os.Getenv("CLI_SERVER") == "":
		err = errUsage
	default:
		err = runAt(ctx, os.Getenv("CLI_SERVER"), os.Args[1])
	}
	switch {
	case err == nil:
		return
	case errors.Is(err, authretry.ErrNotRevoked):
		fmt.Fprintln(os.Stderr, "You are logged out on this machine. But the server was not told, and takes the token until it expires.")
	case errors.Is(err, authretry.ErrLoginRequired):
		fmt.Fprintln(os.Stderr, "You are not logged in. Run: cli login")
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// runAt runs a command at a server, with a file for the login of that one alone.
func runAt(ctx context.Context, server, command string) error {
	dir, err := os.UserConfigDir()
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "my-cli", url.QueryEscape(server)+".json")
	return newCLI(server, file, login.Auto(os.Stderr)).run(ctx, command)
}
