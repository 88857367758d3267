package login_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/filestore"
	"github.com/authretry/authretry/login"
)

// A command that asks a person when it has no token, and shares its login with its later runs.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt) // Ctrl-C ends the login, and frees the port
	defer stop()
	endpoint := &authretry.TokenEndpoint{URL: "https://auth.example.com/token", ClientID: "my-cli"}
	ask := &login.Authorization{Endpoint: endpoint, URL: "https://auth.example.com/authorize", DeviceURL: "https://auth.example.com/device"}
	tokens := &authretry.TokenSource{
		Fetch: endpoint.Refresh(),
		Login: ask.LoginFunc(login.Auto(os.Stderr)),
		Store: filestore.New(os.ExpandEnv("$HOME/.config/my-cli/login.json")),
	}
	defer tokens.Wait(context.WithoutCancel(ctx)) // a refresh may be under way, whose token has to be saved
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}
	req, err := http.NewRequestWithContext(ctx, "GET", "https://api.example.com/me", nil)
	if err != nil {
		panic(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
}

// Where the authorization server wants a port that the client is registered with, or the host name localhost.
func ExampleBrowser() {
	browser := &login.Browser{RedirectURIs: []string{"http://localhost:8000/callback", "http://localhost:18000/callback"}}
	ask := &login.Authorization{
		Endpoint: &authretry.TokenEndpoint{URL: "https://auth.example.com/token", ClientID: "my-cli"},
		URL:      "https://auth.example.com/authorize",
	}
	tokens := &authretry.TokenSource{Login: ask.LoginFunc(browser)}
	_ = tokens
}

// A program with a window of its own shows the code there.
func ExampleDevice() {
	device := &login.Device{Prompt: func(ctx context.Context, code *login.DeviceCode) error {
		fmt.Println("Type", code.UserCode, "at", code.VerificationURI)
		return nil
	}}
	ask := &login.Authorization{
		Endpoint:  &authretry.TokenEndpoint{URL: "https://auth.example.com/token", ClientID: "my-tv"},
		DeviceURL: "https://auth.example.com/device",
	}
	tokens := &authretry.TokenSource{Login: ask.LoginFunc(device)}
	_ = tokens
}
