// Sdk shows how an API client embeds authretry: the credentials are bound to the API's origin, whatever else the
// http.Client is used for, and callers get errors that say what to do.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
)

// A Client is a client of the example API. It is safe for concurrent use.
type Client struct {
	http   *http.Client
	origin string
}

// NewClient returns a Client for the API at origin, such as "https://api.example.com". If base is nil,
// http.DefaultTransport sends the requests.
func NewClient(origin, key string, base http.RoundTripper) *Client {
	return &Client{origin: origin, http: &http.Client{Transport: &authretry.Transport{
		Base:    base,
		Origins: []string{origin},
		Schemes: []authretry.Scheme{&authretry.APIKey{Header: "X-API-Key", Key: key}},
	}}}
}

// Greeting asks the API for its greeting.
func (c *Client) Greeting(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", c.origin+"/greeting", nil)
	if err != nil {
		return "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if err := authretry.Explain(resp); err != nil {
		return "", err // "... the credentials were refused ...; check them"
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("greeting: %s", resp.Status)
	}
	var greeting struct{ Text string }
	err = json.NewDecoder(resp.Body).Decode(&greeting)
	return greeting.Text, err
}

func main() {
	srv := authtest.NewServer(&authtest.APIKey{Header: "X-API-Key", Key: "sesame"})
	defer srv.Close()
	srv.Handle("/greeting", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"text": "Hakuna Matata"}`)
	}))

	text, err := NewClient(srv.URL, "sesame", nil).Greeting(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("good key:", text)

	_, err = NewClient(srv.URL, "wrong", nil).Greeting(context.Background())
	fmt.Println("wrong key:", err != nil)
}
