package guides_test

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
)

// NewTokenClient returns a client for the API at the URL api, which gets its tokens at tokenURL by client credentials. If client is
// nil, http.DefaultClient is meant. What it trusts, such as a private CA, counts for the API and for the token endpoint.
func NewTokenClient(client *http.Client, api, tokenURL, id, secret string) (*LionsClient, error) {
	u, err := url.Parse(api)
	if err != nil {
		return nil, err
	}
	client = cmp.Or(client, http.DefaultClient)
	endpoint := &authretry.TokenEndpoint{
		URL: tokenURL, ClientID: id, Auth: authretry.SecretBasic(secret),
		HTTPClient: client, // as it was given: token requests are not sent through Transport.Base
	}
	transport := &authretry.Transport{
		Base:    client.Transport,
		Jar:     client.Jar,
		Origins: []string{u.Scheme + "://" + u.Host},
		Schemes: []authretry.Scheme{&authretry.Bearer{Source: &authretry.TokenSource{Fetch: endpoint.ClientCredentials()}}},
	}
	own := *client // with its Timeout, CheckRedirect and Jar
	own.Transport = transport
	return &LionsClient{api, &own}, errors.Join(endpoint.Validate(), transport.Validate())
}

// A library that gets tokens has them fetched by the client that it is given, too.
func Example_sdkWithTokens() {
	bearer := &authtest.Bearer{ClientID: "zoo", ClientSecret: "sesame"} // in place of the API
	srv := authtest.NewTLSServer(bearer)                                // and its token endpoint, with a certificate that only srv.Client trusts
	defer srv.Close()
	srv.Handle("/king", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "Mufasa") }))

	users := &http.Client{Transport: srv.Client().Transport, Timeout: time.Minute} // in your program: an http.Transport with RootCAs
	lions, err := NewTokenClient(users, srv.URL, bearer.TokenURL(), "zoo", "sesame")
	check(err)
	fmt.Println(lions.King())

	lions, err = NewTokenClient(nil, srv.URL, bearer.TokenURL(), "zoo", "sesame")
	check(err)
	_, err = lions.King()
	fmt.Println("without the CA:", strings.Contains(err.Error(), "certificate signed by unknown authority"))
	fmt.Println(srv.TokenRequests())
	// Output:
	// Mufasa <nil>
	// without the CA: true
	// [client_credentials 200]
}
