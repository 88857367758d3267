// Command retryable has none of authretry, but go-retryablehttp, which authretry needs.
package main

import (
	"log"
	"net/http"
	"os"

	_ "github.com/hashicorp/go-retryablehttp"
)

func main() {
	client := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	resp, err := client.Get(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	resp.Write(os.Stdout)
}
