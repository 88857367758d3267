package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/login"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

type greeting struct {
	Name string `json:"name" jsonschema:"who is to be greeted"`
}

// newServer starts an MCP server of the SDK that demands OAuth, and has the logins, too.
func newServer() (*authtest.Server, *authtest.OAuth) {
	server := mcp.NewServer(&mcp.Implementation{Name: "greeter", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "greet", Description: "says hello"},
		func(_ context.Context, _ *mcp.CallToolRequest, g greeting) (*mcp.CallToolResult, any, error) {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "Hello, " + g.Name + "."}}}, nil, nil
		})
	oauth := &authtest.OAuth{Scope: "mcp:tools", ResourcePath: "/mcp"}
	srv := authtest.NewServer(oauth)
	srv.Handle("/mcp", mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil))
	return srv, oauth
}

// demonstrate does what two runs of the program would do, with somebody who agrees.
func demonstrate(ctx context.Context, out io.Writer) error {
	srv, oauth := newServer()
	defer srv.Close()
	dir, err := os.MkdirTemp("", "mcp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	flow := &login.Browser{Open: authtest.Approve, Out: io.Discard}

	for _, tool := range []string{"", "greet"} {
		fmt.Fprintln(out, strings.TrimSpace("$ mcp URL "+tool))
		tokens := newTokens(filepath.Join(dir, "login.json"), flow)
		session, err := connect(ctx, srv.URL+"/mcp", tokens)
		if err != nil {
			return err
		}
		err = errors.Join(use(ctx, out, session, tool, `{"name": "Mufasa"}`), session.Close(), tokens.Wait(ctx))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "Refusals: %d, logins: %d\n", srv.Counts().Challenged, oauth.Logins())
	}
	return nil
}
