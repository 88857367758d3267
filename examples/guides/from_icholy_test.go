package guides_test

import (
	"fmt"
	"net/http"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/icholy/digest"
)

// From icholy/digest: the Transport field of its Transport is Base, and Jar is Jar. This server takes each nonce once, and says in its answer which
// is the next one (nextnonce, RFC 7616 §3.5).
func Example_fromIcholyDigest() {
	srv := authtest.NewServer(&authtest.Digest{Username: "Mufasa", Password: "Circle of Life", NonceUses: 1, NextNonce: authtest.NextNonceAlways})
	defer srv.Close()
	count := func(client *http.Client) int {
		srv.Reset()
		for range 10 {
			_, err := get(client, srv.URL)
			check(err)
		}
		return srv.Counts().Requests
	}

	before := &http.Client{Transport: &digest.Transport{Username: "Mufasa", Password: "Circle of Life", Transport: http.DefaultTransport}}
	after := &http.Client{Transport: &authretry.Transport{
		Base:    http.DefaultTransport,
		Schemes: []authretry.Scheme{&authretry.Digest{Username: "Mufasa", Password: "Circle of Life"}},
	}}
	fmt.Println("ten calls, before:", count(before), "requests")
	fmt.Println("ten calls, after: ", count(after), "requests")
	// Output:
	// ten calls, before: 20 requests
	// ten calls, after:  11 requests
}
