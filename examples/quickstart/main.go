// Quickstart shows one client that gets past Basic, Digest and an expired Bearer token, and prints what went over the
// wire. The servers are authtest's, on loopback: nothing else is needed to run it.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"strings"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
)

func main() {
	// A server with three protected folders, and a token endpoint.
	bearer := &authtest.Bearer{Realm: "api"}
	srv := authtest.NewServer()
	defer srv.Close()
	srv.Protect("/letters/", &authtest.Basic{Realm: "letters", Username: "Mufasa", Password: "Circle of Life"})
	srv.Protect("/films/", &authtest.Digest{Realm: "films", Username: "Mufasa", Password: "Circle of Life"})
	srv.Protect("/api/", bearer)

	// The client: this is all that a program needs.
	tokens := &authretry.TokenSource{Fetch: authretry.RefreshGrant(bearer.Config()), Initial: bearer.Login()}
	client := &http.Client{Transport: &authretry.Transport{
		Schemes: []authretry.Scheme{
			&authretry.Bearer{Source: tokens, NotAhead: true},
			&authretry.Digest{Username: "Mufasa", Password: "Circle of Life"},
			&authretry.Basic{Username: "Mufasa", Password: "Circle of Life"},
		},
		Base:    wire{},
		OnEvent: decision,
	}}

	visit := func(why, path string) {
		fmt.Printf("\n# %s\n", why)
		resp, err := client.Get(srv.URL + path)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			log.Fatal(resp.Status, ": ", authretry.Explain(resp)) // says why, if it is a refusal
		}
	}
	visit("Basic: challenged once, then sent ahead", "/letters/1")
	visit("Basic again", "/letters/2")
	visit("Digest: challenged once, then the nonce count rises", "/films/1")
	visit("Digest again", "/films/2")
	visit("Bearer: the token is good", "/api/me")
	bearer.ExpireNow()
	visit("Bearer: the token has expired, so it is refreshed", "/api/me")
	visit("Bearer again", "/api/me")

	counts := srv.Counts()
	fmt.Printf("\n7 calls took %d requests and %d token request; each was answered 200 in the end.\n", counts.Requests, counts.TokenRequests)
}

// wire prints what goes over the wire, with secrets masked.
type wire struct{}

func (wire) RoundTrip(req *http.Request) (*http.Response, error) {
	fmt.Printf("  > %s %s\n", req.Method, req.URL.Path)
	if a := req.Header.Get("Authorization"); a != "" {
		fmt.Println("  > Authorization:", mask(a))
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err == nil {
		fmt.Println("  <", resp.Status)
		for _, c := range resp.Header.Values("WWW-Authenticate") {
			fmt.Println("  < WWW-Authenticate:", c)
		}
	}
	return resp, err
}

// mask shows of credentials what is no secret: the scheme, and Digest's parameters but for the response.
func mask(authorization string) string {
	scheme, rest, _ := strings.Cut(authorization, " ")
	if scheme != "Digest" {
		return scheme + " ********"
	}
	params := strings.Split(rest, ", ")
	for i, p := range params {
		if strings.HasPrefix(p, "response=") {
			params[i] = `response="********"`
		}
	}
	return scheme + " " + strings.Join(params, ", ")
}

// decision prints what the Transport decided.
func decision(_ context.Context, e authretry.Event) {
	switch e.Kind {
	case authretry.EventAuthorized:
		how := "ahead"
		if e.Attempt == 2 {
			how = "in answer to the challenge"
		}
		fmt.Printf("    credentials for %s are sent %s\n", e.Scheme, how)
	case authretry.EventRefreshed:
		fmt.Println("    a new token has been fetched")
	}
}
