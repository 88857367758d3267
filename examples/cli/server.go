package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/login"
)

// newServer starts a server that the command can log in to.
func newServer() (*authtest.Server, *authtest.OAuth) {
	oauth := &authtest.OAuth{ClientID: "my-cli", DeviceInterval: time.Second}
	srv := authtest.NewServer(oauth)
	srv.Handle("/me", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "You are Mufasa.") }))
	return srv, oauth
}

// serve is for trying the command by hand, from another terminal.
func serve(ctx context.Context) error {
	srv, _ := newServer()
	defer srv.Close()
	fmt.Printf("In another terminal, or by SSH:\n\n    export CLI_SERVER=%s\n    go run ./examples/cli whoami\n", srv.URL)
	<-ctx.Done()
	return nil
}

// demonstrate runs the command several times, with somebody who agrees in a browser, or on another device.
func demonstrate(ctx context.Context) error {
	srv, oauth := newServer()
	defer srv.Close()
	dir, err := os.MkdirTemp("", "cli-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	flows := []login.Flow{
		&login.Browser{Open: authtest.Approve, Out: io.Discard},
		&login.Device{Out: io.Discard, Prompt: func(ctx context.Context, code *login.DeviceCode) error {
			return authtest.Approve(ctx, code.VerificationURIComplete)
		}},
	}
	for _, flow := range flows {
		for _, command := range []string{"login", "whoami", "whoami", "logout"} {
			fmt.Println("$ cli", command)
			if err := newCLI(srv.URL, filepath.Join(dir, "login.json"), flow).run(ctx, command); err != nil {
				return err
			}
		}
		fmt.Println("Logins:", oauth.Logins())
	}
	return nil
}
