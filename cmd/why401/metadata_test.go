package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is wrong with the metadata that a challenge names is told, with -login and without.
func TestMetadataOfChallenge(t *testing.T) {
	var origin string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch name := strings.TrimPrefix(r.URL.Path, "/"); {
		case name == "meta/other":
			says(200, "Content-Type: application/json\n\n"+`{"resource":"https://mcp.example.com/","authorization_servers":["https://idp.example.com"]}`)(w, r)
		case name == "meta/html":
			says(200, "Content-Type: text/html\n\n<p>Sign in</p>")(w, r)
		case name == "meta/broken":
			w.WriteHeader(http.StatusServiceUnavailable)
		case name == "gone":
			says(401, `WWW-Authenticate: Bearer resource_metadata="http://127.0.0.1:1/meta"`)(w, r)
		case strings.HasPrefix(name, "meta/"), strings.HasPrefix(name, ".well-known"):
			w.WriteHeader(http.StatusNotFound)
		case name == "inside":
			says(401, `WWW-Authenticate: Bearer resource_metadata="http://169.254.169.254/latest"`)(w, r)
		default:
			says(401, `WWW-Authenticate: Bearer resource_metadata="`+origin+"/meta/"+name+`"`)(w, r)
		}
	}))
	defer server.Close()
	origin = server.URL
	for name, want := range map[string]string{
		"nowhere": "The metadata that says who gives out tokens cannot be read. It is that of resource_metadata, " + origin + "/meta/nowhere (it answered 404).",
		"broken": "A server that says who gives out tokens is out of order. It is " + strings.TrimPrefix(origin, "http://") +
			", which was asked for the resource metadata (it answered 503).",
		"gone":   "A server that says who gives out tokens could not be reached. It is 127.0.0.1:1, which was asked for the resource metadata (dial tcp 127.0.0.1:1: connect: connection refused).",
		"html":   "The metadata that says who gives out tokens cannot be read.",
		"other":  "The metadata is that of another resource than was asked (RFC 9728 §3.3).",
		"inside": "The server names an authorization server that is not asked.",
	} {
		t.Run(name, func(t *testing.T) {
			out, status := runLogin(nil, []string{origin + "/" + name})
			require.Equal(t, exitRefused, status, out)
			require.Contains(t, out, "Cause: No credentials were sent, and the server wants some.\nWhat to do: Run it again with -token-env")
			require.Contains(t, strings.Join(strings.Fields(out), " "), want)

			out, status = runLogin(nil, []string{"-login", origin + "/" + name})
			require.Equal(t, exitFailed, status, out)
			first, _, _ := strings.Cut(want, ". It")
			require.Contains(t, out, "Cause: "+strings.TrimSuffix(first, "."))
		})
	}
}
