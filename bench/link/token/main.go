// Command token has a TokenSource.
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/authretry/authretry"
)

func main() {
	endpoint := &authretry.TokenEndpoint{URL: os.Getenv("TOKEN_URL"), ClientID: os.Getenv("CLIENT_ID")}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: &authretry.TokenSource{Fetch: endpoint.Refresh()}})}
	resp, err := client.Get(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	resp.Write(os.Stdout)
}
