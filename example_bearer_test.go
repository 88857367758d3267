package authretry_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// The token has been revoked: it is refreshed, and the caller sees nothing of that.
func ExampleBearer() {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(r.Method, r.URL.Path, "with", r.Header.Get("Authorization"))
		if r.Header.Get("Authorization") != "Bearer fresh" {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		io.WriteString(w, "three orders")
	}))
	defer api.Close()

	tokens := &authretry.TokenSource{
		Initial: &oauth2.Token{AccessToken: "revoked", RefreshToken: "secret"},
		Fetch: func(ctx context.Context, r authretry.TokenRequest) (*oauth2.Token, error) {
			fmt.Println("refresh because of", r.Challenge.Params.Get("error"))
			return &oauth2.Token{AccessToken: "fresh"}, nil
		},
	}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}
	resp, err := client.Get(api.URL + "/orders")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(resp.StatusCode, string(body))
	// Output:
	// GET /orders with Bearer revoked
	// refresh because of invalid_token
	// GET /orders with Bearer fresh
	// 200 three orders
}
