package guides_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/filestore"
	"golang.org/x/oauth2"
)

// With oauth2.NewClient, a token that the server has ended early is sent until it expires by its own account, and the refreshed one is
// lost with the process.
func withOAuth2(config *oauth2.Config, login *oauth2.Token) *http.Client {
	ctx := context.Background()
	return oauth2.NewClient(ctx, config.TokenSource(ctx, login))
}

// With authretry, a token that is refused is refreshed at once, and saved. Differences to know: the token goes to the origin that is
// addressed, not to others that it redirects to; it goes over http to this machine only (Transport.AllowPlaintext); and a client
// for the token endpoint is TokenSource.HTTPClient, since oauth2.HTTPClient of a context does not count.
func withAuthretry(config *oauth2.Config, login *oauth2.Token, file string) (*http.Client, error) {
	tokens := &authretry.TokenSource{Fetch: authretry.RefreshGrant(config), Store: filestore.New(file)}
	err := tokens.Set(login) // after a login only: a later run finds it in the file
	return &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}, err
}

// From oauth2.NewClient to a TokenSource.
func Example_fromOAuth2() {
	bearer := &authtest.Bearer{} // in place of your authorization server and your API
	srv := authtest.NewServer(bearer)
	defer srv.Close()
	dir, err := os.MkdirTemp("", "guides")
	check(err)
	defer os.RemoveAll(dir)

	before := withOAuth2(bearer.Config(), bearer.Login())
	after, err := withAuthretry(bearer.Config(), bearer.Login(), filepath.Join(dir, "login.json"))
	check(err)
	bearer.ExpireNow() // an hour before they expire by their own account

	resp, err := before.Get(srv.URL)
	check(err)
	resp.Body.Close()
	fmt.Println("before:", resp.Status)
	resp, err = after.Get(srv.URL)
	check(err)
	resp.Body.Close()
	fmt.Println("after: ", resp.Status)
	// Output:
	// before: 401 Unauthorized
	// after:  200 OK
}
