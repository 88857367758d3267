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
// http.DefaultTransport sends the requests. The error says what is wrong with origin or key, as far as that can be seen without the API.
func NewClient(origin, key string, base http.RoundTripper) (*Client, error) {
	transport := &authretry.Transport{
		Base:    base,
		Origins: []string{origin},
		Schemes: []authretry.Scheme{&authretry.APIKey{Header: "X-API-Key", Key: key}},
	}
	return &Client{origin: origin, http: &http.Client{Transport: transport}}, transport.Validate()
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

	for _, key := range []string{"sesame", "wrong"} {
		client, err := NewClient(srv.URL, key, nil)
		if err != nil {
			log.Fatal(err)
		}
		text, err := client.Greeting(context.Background())
		fmt.Printf("key %q: %q, refused: %t\n", key, text, err != nil)
	}
	_, err := NewClient(srv.URL, "", nil)
	fmt.Println("no key:", err)
}
