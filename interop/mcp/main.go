// This program is a client of the Model Context Protocol that logs in wherever the protocol knows a way, by an
// authretry.Transport below the SDK's own client. The conformance tests of the protocol, "the kit", run it once for each of
// their scenarios: see conformance_test.go. Its argument is the URL of a server; what it has to show there is in its
// environment. It lists the server's tools and calls each.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/authretry/authretry"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: MCP_CONFORMANCE_SCENARIO=auth/... mcp URL")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, server string) error {
	s, err := scenarioFromEnvironment()
	if err != nil {
		return err
	}
	scheme, err := s.scheme()
	if err != nil {
		return err
	}
	client := mcp.NewClient(&mcp.Implementation{Name: "authretry-interop", Version: "1"}, nil)
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint:   server,
		HTTPClient: &http.Client{Transport: authretry.New(scheme)},
	}, nil)
	if err != nil {
		return err
	}
	defer session.Close()
	return callAll(ctx, session)
}

// callAll calls each tool of the server, without arguments.
func callAll(ctx context.Context, session *mcp.ClientSession) error {
	for tool, err := range session.Tools(ctx, nil) {
		if err != nil {
			return err
		}
		result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: tool.Name, Arguments: map[string]any{}})
		if err != nil {
			return err
		}
		if result.IsError {
			return fmt.Errorf("the tool %q has failed", tool.Name)
		}
	}
	return nil
}
