// This program is a client of the Model Context Protocol whose user logs in, once. The MCP SDK knows nothing of that: its
// http.Client has an authretry.Transport, which learns from the server's 401 where people log in.
//
//	go run .                          a server in this process, and authtest.Approve in place of a person
//	go run . URL                      lists the tools of that server; a browser opens, if it wants to know who you are
//	go run . URL TOOL '{"a": "b"}'    calls one, with arguments
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/discover"
	"github.com/authretry/authretry/filestore"
	"github.com/authretry/authretry/login"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// newTokens returns the source of the tokens for a server. The login is in a file, for later processes too.
func newTokens(file string, flow login.Flow) *authretry.TokenSource {
	d := &discover.Config{Flow: flow, Registration: map[string]any{"client_name": "authretry's example"}}
	return &authretry.TokenSource{Fetch: d.Fetch, Login: d.Login, Revoke: d.Revoke, Store: filestore.New(file)}
}

// connect begins a session with a server.
func connect(ctx context.Context, server string, tokens *authretry.TokenSource) (*mcp.ClientSession, error) {
	transport := authretry.New(&authretry.Bearer{Source: tokens, StepUp: true})
	client := mcp.NewClient(&mcp.Implementation{Name: "authretry-example", Version: "1"}, nil)
	return client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint:   server,
		HTTPClient: &http.Client{Transport: explained{transport}}, // and no OAuthHandler
	}, nil)
}

// use lists the tools of a server, or calls one, if it is named.
func use(ctx context.Context, out io.Writer, session *mcp.ClientSession, tool, arguments string) error {
	if tool == "" {
		for tool, err := range session.Tools(ctx, nil) {
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%s: %s\n", tool.Name, tool.Description)
		}
		return nil
	}
	result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: json.RawMessage(arguments)})
	if err != nil {
		return err
	}
	for _, content := range result.Content {
		if text, ok := content.(*mcp.TextContent); ok {
			fmt.Fprintln(out, text.Text)
		}
	}
	if result.IsError {
		return fmt.Errorf("%s has failed", tool)
	}
	return nil
}

func main() {
	// Ctrl-C, or kill, ends a login, and frees its port and lock. What is being saved is waited for; the second time it ends at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer, args []string) (err error) {
	if len(args) == 0 {
		return demonstrate(ctx, out)
	}
	given := [3]string{2: "{}"} // the URL, the tool, its arguments
	copy(given[:], args)
	file, err := loginFile(given[0])
	if err != nil {
		return err
	}
	tokens := newTokens(file, login.Auto(os.Stderr))
	defer func() { // a refresh may be under way, whose token has to be saved
		err = errors.Join(err, tokens.Wait(context.WithoutCancel(ctx)))
	}()
	session, err := connect(ctx, given[0], tokens)
	if err != nil {
		return err
	}
	return errors.Join(use(ctx, out, session, given[1], given[2]), session.Close())
}

// loginFile returns where the login at a server is kept.
func loginFile(server string) (string, error) {
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, "authretry-mcp", url.QueryEscape(server)+".json"), err
}
