package guides_test

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
)

// A LionsClient is the client of an API, as a library has it. It is safe for concurrent use.
type LionsClient struct {
	api    string
	client *http.Client
}

// NewLionsClient returns a client for the API at the URL api. If client is nil, http.DefaultClient is meant. It is not changed: its
// other uses get no credentials.
func NewLionsClient(client *http.Client, api, key string) (*LionsClient, error) {
	u, err := url.Parse(api)
	if err != nil {
		return nil, err
	}
	own := *cmp.Or(client, http.DefaultClient) // with its Timeout, CheckRedirect and Jar
	transport := &authretry.Transport{
		Base:    own.Transport,                       // its proxies, tracing and so on; nil is http.DefaultTransport
		Jar:     own.Jar,                             // for a cookie that comes with a refusal
		Origins: []string{u.Scheme + "://" + u.Host}, // whatever URLs the API returns: the key goes there only
		Schemes: []authretry.Scheme{&authretry.APIKey{Header: "X-API-Key", Key: key}},
	}
	own.Transport = transport
	return &LionsClient{api, &own}, transport.Validate() // an empty key, or a URL that is none
}

// King returns the king.
func (c *LionsClient) King() (string, error) { return get(c.client, c.api+"/king") }

// A library that is given an *http.Client copies it, and puts a Transport round the copy's.
func Example_sdk() {
	srv := authtest.NewServer(&authtest.APIKey{Header: "X-API-Key", Key: "sesame"}) // in place of the API
	defer srv.Close()
	srv.Handle("/king", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "Mufasa") }))

	users := &http.Client{Timeout: time.Minute}
	lions, err := NewLionsClient(users, srv.URL, "sesame")
	check(err)
	fmt.Println(lions.King())

	_, err = get(users, srv.URL+"/king")
	fmt.Println("the user's own client has no key:", err != nil)

	lions, err = NewLionsClient(nil, srv.URL, "wrong")
	check(err)
	_, err = lions.King()
	fmt.Println("a wrong key:", err != nil)
	// Output:
	// Mufasa <nil>
	// the user's own client has no key: true
	// a wrong key: true
}
