package authtest_test

import (
	"context"
	"fmt"
	"net/http"

	"golang.org/x/oauth2"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
)

func Example() {
	srv := authtest.NewServer(&authtest.Basic{Username: "Aladdin", Password: "open sesame"})
	defer srv.Close()

	srv.Client().Get(srv.URL + "/cave")

	req, _ := http.NewRequest("GET", srv.URL+"/cave", nil)
	req.SetBasicAuth("Aladdin", "open sesame")
	srv.Client().Do(req)

	for _, r := range srv.Requests() {
		fmt.Println(r)
	}
	// Output:
	// GET /cave 401 challenged
	// GET /cave 200 accepted
}

func ExampleServer_Protect() {
	srv := authtest.NewServer()
	defer srv.Close()
	srv.Protect("/files/", &authtest.Basic{Realm: "files"}, &authtest.APIKey{Header: "X-API-Key", Key: "k"})
	srv.Protect("/api/", &authtest.Bearer{Scope: "read"})

	for _, path := range []string{"/", "/files/report", "/api/users"} {
		resp, err := srv.Client().Get(srv.URL + path)
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		fmt.Printf("%s %d %q\n", path, resp.StatusCode, resp.Header.Values("WWW-Authenticate"))
	}
	// Output:
	// / 200 []
	// /files/report 401 ["Basic realm=\"files\"" "ApiKey realm=\"authtest\""]
	// /api/users 401 ["Bearer realm=\"authtest\", scope=\"read\""]
}

func ExampleServer_Inject() {
	srv := authtest.NewServer()
	defer srv.Close()
	srv.Inject("/", 2, authtest.Reply(503, http.Header{"Retry-After": {"1"}}, "try later"))
	srv.Inject("/", 1, authtest.Refuse())

	for range 4 {
		resp, err := srv.Client().Get(srv.URL)
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}
	// Output:
	// 503 Service Unavailable
	// 503 Service Unavailable
	// 401 Unauthorized
	// 200 OK
}

func ExampleDigest() {
	digest := &authtest.Digest{
		Username: "Mufasa", Password: "Circle of Life", Realm: "http-auth@example.org",
		Algorithms: []string{"SHA-256", "MD5"}, // one challenge each
		NonceUses:  100,
		NextNonce:  authtest.NextNonceNearEnd,
	}
	srv := authtest.NewServer(digest)
	defer srv.Close()

	// Requests through the client under test; then every nonce in use ends.
	digest.GoStale()

	// At the end, no nonce count was used twice or left out.
	fmt.Println(len(digest.NonceErrors()))
	// Output: 0
}

func ExampleBearer() {
	bearer := &authtest.Bearer{ClientID: "app", ClientSecret: "secret"}
	srv := authtest.NewServer(bearer)
	defer srv.Close()
	get := func(t *oauth2.Token) {
		req, _ := http.NewRequest("GET", srv.URL, nil)
		t.SetAuthHeader(req)
		resp, err := srv.Client().Do(req)
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		fmt.Println(resp.Status, resp.Header.Values("WWW-Authenticate"))
	}

	first := bearer.Login("read")
	get(first)
	bearer.ExpireNow()
	get(first)

	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, srv.Client())
	second, err := bearer.Config().TokenSource(ctx, &oauth2.Token{RefreshToken: first.RefreshToken}).Token()
	if err != nil {
		fmt.Println(err)
		return
	}
	get(second)
	fmt.Println(srv.TokenRequests())
	// Output:
	// 200 OK []
	// 401 Unauthorized [Bearer realm="authtest", error="invalid_token", error_description="the access token expired"]
	// 200 OK []
	// [refresh_token 200]
}

// Over TLS, what sends requests must trust the server's certificate, and so must what sends token requests.
func ExampleNewTLSServer() {
	bearer := &authtest.Bearer{}
	srv := authtest.NewTLSServer(bearer)
	defer srv.Close()

	tokens := &authretry.TokenSource{
		Fetch:      authretry.RefreshGrant(bearer.Config()),
		Initial:    bearer.Login(),
		HTTPClient: srv.Client(), // for token requests
	}
	client := &http.Client{Transport: &authretry.Transport{
		Base:    srv.Client().Transport,
		Schemes: []authretry.Scheme{&authretry.Bearer{Source: tokens}},
	}}
	bearer.ExpireNow()
	resp, err := client.Get(srv.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.Status, srv.TokenRequests())
	// Output: 200 OK [refresh_token 200]
}

func ExampleReplay() {
	// As recorded from a real server with curl; see the package's comment.
	handler, err := authtest.Replay([]byte("HTTP/1.1 401 Unauthorized\r\n" +
		"WWW-Authenticate: Digest realm=\"lab \"quoted\" realm\", nonce=\"1\"\r\n" +
		"Content-Length: 0\r\n\r\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	srv := authtest.NewServer()
	defer srv.Close()
	srv.Handle("/", handler)

	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	fmt.Println(resp.Header.Get("WWW-Authenticate"))
	// Output: Digest realm="lab "quoted" realm", nonce="1"
}

func ExampleRequest_Dump() {
	srv := authtest.NewServer(&authtest.APIKey{Header: "X-API-Key", Key: "k"})
	defer srv.Close()
	req, _ := http.NewRequest("GET", srv.URL+"/?page=2", nil)
	req.Header = http.Header{"X-Api-Key": {"another"}, "Accept-Encoding": {"identity"}, "User-Agent": {"example"}}
	srv.Client().Do(req)

	fmt.Print(srv.Requests()[0].Dump())
	// Output:
	// GET /?page=*** HTTP/1.1
	// Accept-Encoding: identity
	// User-Agent: example
	// X-Api-Key: ***
	// (0 bytes of body)
	// 401 Unauthorized
	// Content-Type: text/plain; charset=utf-8
	// Www-Authenticate: ApiKey realm="authtest"
}
