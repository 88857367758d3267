// Retryable shows authretry inside go-retryablehttp: 5xx responses are retried there, refusals by authretry, and each
// attempt has a nonce count or token of its own.
package main

import (
	"fmt"
	"log"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
)

func main() {
	srv := authtest.NewServer(&authtest.Digest{Username: "Mufasa", Password: "Circle of Life"})
	defer srv.Close()
	srv.Inject("/", 2, authtest.Reply(503, nil, "come back later"))

	client := authretry.NewRetryableClient(authretry.New(&authretry.Digest{Username: "Mufasa", Password: "Circle of Life"}))
	client.RetryWaitMin = 10 * time.Millisecond

	resp, err := client.Get(srv.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	for _, r := range srv.Requests() {
		fmt.Println(r)
	}
	fmt.Println("in the end:", resp.Status)
}
