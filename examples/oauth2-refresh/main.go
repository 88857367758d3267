// Oauth2-refresh shows the whole life of an OAuth 2.0 login: a token that is refreshed when the server refuses it,
// a hundred requests that cause one refresh, a login that has ended, and the next one.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/http"
	"sync"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"golang.org/x/oauth2"
)

func main() {
	bearer := &authtest.Bearer{} // in place of your authorization server and your API
	srv := authtest.NewServer(bearer)
	defer srv.Close()

	tokens := &authretry.TokenSource{
		Fetch:   authretry.RefreshGrant(bearer.Config()), // your oauth2.Config
		Initial: bearer.Login(),                          // from Config.Exchange, or from where OnToken has put it
		OnToken: func(*oauth2.Token) { fmt.Println("a new token: time to store it") },
	}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}

	get := func() error {
		resp, err := client.Get(srv.URL)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return authretry.Explain(resp) // nil unless it is a refusal
	}

	fmt.Println("first request:", get())

	bearer.ExpireNow() // the server no longer wants the token
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if err := get(); err != nil {
				log.Fatal(err)
			}
		})
	}
	wg.Wait()
	fmt.Println("100 requests, all refused at first, took", srv.Counts().TokenRequests, "token request")

	token, err := tokens.Token()
	if err != nil {
		log.Fatal(err)
	}
	bearer.Revoke(token.RefreshToken) // the user has logged out elsewhere
	err = get()
	fmt.Println("login required:", errors.Is(err, authretry.ErrLoginRequired))

	tokens.Set(bearer.Login()) // the user has logged in again
	fmt.Println("after the login:", get())
}
