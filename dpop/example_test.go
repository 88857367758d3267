package dpop_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/dpop"
)

func Example() {
	// A server that wants proofs, with another nonce each time.
	guard := &authtest.DPoP{Nonces: authtest.NonceEachTime}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	folder, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)

	key, err := dpop.OpenKey(filepath.Join(folder, "dpop.pem"))
	if err != nil {
		log.Fatal(err)
	}
	endpoint := &authretry.TokenEndpoint{URL: guard.TokenURL(), ClientID: "my-app", Proof: key}
	tokens := &authretry.TokenSource{Fetch: endpoint.Refresh()}
	client := &http.Client{Transport: authretry.New(&dpop.Scheme{Source: tokens, Key: key})}

	// The login: the code comes from an authorization request with dpop_jkt.
	code := guard.Code(key.Thumbprint())
	token, err := endpoint.AuthorizationCode(code, "", "")(context.Background(), authretry.TokenRequest{})
	if err != nil {
		log.Fatal(err)
	}
	if err := tokens.Set(token); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		resp, err := client.Get(srv.URL)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}
	fmt.Println(srv.Counts().TokenRequests, "token requests,", srv.Counts().Requests, "requests")
	// Output:
	// 200 OK
	// 200 OK
	// 2 token requests, 2 requests
}

// One Transport for many users: each has a token and a key.
func ExampleScheme_accounts() {
	guard := &authtest.DPoP{}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	folder, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)

	scheme := &dpop.Scheme{
		Sources: func(_ context.Context, account string) (*authretry.TokenSource, *dpop.Key, error) {
			key, err := dpop.OpenKey(filepath.Join(folder, account+".pem"))
			if err != nil {
				return nil, nil, err
			}
			endpoint := &authretry.TokenEndpoint{URL: guard.TokenURL(), ClientID: "my-app", Proof: key}
			return &authretry.TokenSource{Fetch: endpoint.ClientCredentials("read")}, key, nil
		},
	}
	client := &http.Client{Transport: &authretry.Transport{
		Schemes: []authretry.Scheme{scheme},
		Account: func(req *http.Request) string { return req.Header.Get("X-User") },
	}}
	for _, user := range []string{"mufasa", "nala"} {
		req, err := http.NewRequest("GET", srv.URL, nil)
		if err != nil {
			log.Fatal(err)
		}
		req.Header.Set("X-User", user)
		resp, err := client.Do(req)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}
	// Output:
	// 200 OK
	// 200 OK
}

// A proof for a request that does not go through net/http.
func ExampleKey_Proof() {
	folder, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	key, err := dpop.OpenKey(filepath.Join(folder, "dpop.pem"))
	if err != nil {
		log.Fatal(err)
	}
	u := &url.URL{Scheme: "https", Host: "api.example.com", Path: "/v1/things"}
	proof, err := key.Proof("GET", u, "", "the access token")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Count(proof, "."), key.Algorithm())
	// Output: 2 ES256
}
