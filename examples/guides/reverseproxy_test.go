package guides_test

import (
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
)

// newGateway returns a reverse proxy to the API at target, which it uses by its own login. Who may use the gateway is for somebody before it
// to check. A gateway that has a login for each of its users is in examples/many-users.
func newGateway(target *url.URL, base http.RoundTripper, schemes ...authretry.Scheme) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport: &authretry.Transport{
			Base:    base,
			Schemes: schemes,
			Origins: []string{target.Scheme + "://" + target.Host},
		},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			// They are for the gateway: the API must not see them. And a request that has an Authorization keeps it, and gets no token.
			r.Out.Header.Del("Authorization")
			r.Out.Header.Del("Cookie")
		},
		ModifyResponse: func(resp *http.Response) error {
			// A session that the API begins is of the gateway's login: who has its cookie could use the API without the gateway.
			resp.Header.Del("Set-Cookie")
			return authretry.Explain(resp) // the gateway was refused: a 401 would have the browser ask its user for a password
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			log.Print(err) // it has no secret
			status := http.StatusBadGateway
			if errors.Is(err, authretry.ErrLoginRequired) {
				status = http.StatusServiceUnavailable // until the gateway's own login is renewed
			}
			http.Error(w, "the API cannot be used at the moment", status)
		},
	}
}

// A reverse proxy whose Transport is authretry's logs in at the API, and its users need not.
func Example_reverseProxy() {
	bearer := &authtest.Bearer{} // in place of your authorization server and your API
	srv := authtest.NewServer(bearer)
	defer srv.Close()
	srv.Handle("/king", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "of-the-gateway"})
		fmt.Fprintf(w, "Mufasa, %d cookies", len(r.Cookies()))
	}))
	target, err := url.Parse(srv.URL)
	check(err)

	tokens := &authretry.TokenSource{Fetch: authretry.ClientCredentialsGrant(bearer.ClientCredentials())}
	gateway := httptest.NewServer(newGateway(target, nil, &authretry.Bearer{Source: tokens}))
	defer gateway.Close()

	for range 2 {
		req, err := http.NewRequest("GET", gateway.URL+"/king", nil)
		check(err)
		req.Header.Set("Authorization", "Basic dXNlcjpwYXNzd29yZA==") // for the gateway
		req.Header.Set("Cookie", "session=1")
		resp, err := http.DefaultClient.Do(req)
		check(err)
		var text [100]byte
		n, _ := resp.Body.Read(text[:])
		resp.Body.Close()
		fmt.Println(resp.Status, string(text[:n])+",", len(resp.Cookies()), "of the API's")
		bearer.ExpireNow() // the API no longer wants the token
	}
	// Output:
	// 200 OK Mufasa, 0 cookies, 0 of the API's
	// 200 OK Mufasa, 0 cookies, 0 of the API's
}
