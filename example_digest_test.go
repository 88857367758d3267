package authretry_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/authretry/authretry"
)

// A Digest answers the challenge with what proves that the password is known. It can be printed: the password is
// not shown.
func ExampleDigest() {
	scheme := &authretry.Digest{
		Username:     "Mufasa",
		Password:     "Circle of Life",
		MinAlgorithm: "SHA-256", // no answer to a server that knows only MD5
	}
	fmt.Println(scheme)

	// Transport does what follows.
	challenge := &authretry.Challenge{Scheme: "Digest", Params: authretry.Params{
		{Name: "realm", Value: "http-auth@example.org"},
		{Name: "nonce", Value: "7ypf/xlj9XXwfDPEoM4URrv"},
		{Name: "algorithm", Value: "SHA-256"},
		{Name: "qop", Value: "auth"},
	}}
	req := httptest.NewRequest(http.MethodGet, "https://example.org/dir/index.html", nil)
	session, err := scheme.Answer(req.Context(), challenge, &http.Response{StatusCode: 401, Request: req})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	if err := session.Authorize(req); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	before, _, _ := strings.Cut(req.Header.Get("Authorization"), ", cnonce=")
	fmt.Println(before)
	// Output:
	// authretry.Digest{Username: "Mufasa", Password: "[redacted]", MinAlgorithm: "SHA-256"}
	// Digest username="Mufasa", realm="http-auth@example.org", nonce="7ypf/xlj9XXwfDPEoM4URrv", uri="/dir/index.html"
}
