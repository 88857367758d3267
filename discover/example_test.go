package discover_test

import (
	"fmt"
	"net/http"
	"os"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/discover"
	"github.com/authretry/authretry/filestore"
	"github.com/authretry/authretry/login"
)

// A program that knows nothing but a URL. Its first run asks a person, and later ones go on with that login.
func Example() {
	d := &discover.Config{Flow: login.Auto(os.Stderr)}
	tokens := &authretry.TokenSource{
		Fetch:  d.Fetch,
		Login:  d.Login,
		Revoke: d.Revoke, // what Logout calls
		Store:  filestore.New(os.ExpandEnv("$HOME/.config/my-agent/mcp.example.com.json")),
	}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens, StepUp: true})}
	resp, err := client.Get("https://mcp.example.com/mcp")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
}

// The same in a test, against a server that is both resource and authorization server, and with a person who agrees.
func Example_test() {
	oauth := &authtest.OAuth{Scope: "tools"}
	srv := authtest.NewServer(oauth)
	defer srv.Close()

	d := &discover.Config{Flow: &login.Browser{Open: authtest.Approve}}
	tokens := &authretry.TokenSource{Fetch: d.Fetch, Login: d.Login}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens, StepUp: true})}
	resp, err := client.Get(srv.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	for _, r := range srv.Requests() {
		fmt.Println(r.Method, r.Path, r.Status)
	}
	// Output:
	// 200 OK
	// GET / 401
	// GET /.well-known/oauth-protected-resource 200
	// GET /.well-known/oauth-authorization-server 200
	// POST /oauth/register 201
	// GET /oauth/authorize 200
	// POST /oauth/decide 302
	// GET / 200
}

// A service that has been registered with its authorization server, and asks nobody.
func ExampleConfig_Fetch() {
	d := &discover.Config{
		Issuers: []string{"https://auth.example.com"},
		Clients: []discover.Client{{Issuer: "https://auth.example.com", ID: "my-service", Auth: authretry.SecretBasic(os.Getenv("CLIENT_SECRET"))}},
		Grant:   func(e *authretry.TokenEndpoint, _ *discover.Server) authretry.FetchFunc { return e.ClientCredentials() },
	}
	tokens := &authretry.TokenSource{Fetch: d.Fetch}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens, StepUp: true})}
	_ = client
}
