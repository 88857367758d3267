package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Servers that say that nothing came say so in many words. Those that say so of what is wrong, or of something else, are not taken for
// them: the pages of Apache, nginx and Tomcat for every 401 are among those.
func TestNothingCame(t *testing.T) {
	ask := func(kind, said string) string {
		args, head := []string{"-token-env", "UNREVOKED"}, "WWW-Authenticate: Bearer\n"
		if strings.HasPrefix(kind, "Basic") {
			args, head = []string{"-u", "Aladdin", "-password-env", "PASSWORD", "-ahead"}, "WWW-Authenticate: Basic realm=\"cave\"\n"
		}
		if strings.HasSuffix(kind, "unasked") {
			head = ""
		}
		w := newWorld(t, map[string]http.Handler{"api.example.com": says(401, head+"Content-Type: text/plain\n\n"+said)})
		out, _ := w.run(append(args, "https://api.example.com/"), "", true)
		first, _, _ := strings.Cut(out, "\n")
		return first
	}
	const lost = "Likely cause: The server has not seen the Authorization header that was sent."
	for _, said := range []string{"Missing Authorization header", "Authentication credentials were not provided.", "Full authentication is required to access this resource",
		"missing credentials", "Authorization header is required", "Authorization header not found", "no credentials supplied", "auth header missing",
		"Request is missing required authentication credential. Expected OAuth 2 access token", "you must provide an authorization header", "Anonymous access is not allowed"} {
		require.Equal(t, lost, ask("Basic", said), said)
		require.Equal(t, lost, ask("Bearer", said), said)
	}
	for _, said := range []string{"No token provided", "Access denied. No token provided.", "missing bearer token", "Jwt is missing", "Bearer token not found in request", "token is required",
		"A token is required", "No auth token", "Missing access token", "no JWT in request", "access token required: the access token is missing"} {
		require.Equal(t, lost, ask("Bearer", said), said)
		require.Equal(t, lost, ask("Basic", said), said)
		require.Equal(t, "Likely cause: The server wants a token, and was sent a user name and a password.", ask("Basic unasked", said), said)
	}
	require.Equal(t, lost, ask("Basic", "Must provide username and password"))
	require.Equal(t, lost, ask("Bearer", "Must provide username and password"))
	require.Equal(t, "Likely cause: The server wants a user name and a password, and was sent a token.", ask("Bearer unasked", "Must provide username and password"))
	require.Equal(t, "Cause: The server wants an API key, and has seen none.", ask("Bearer", "No API key provided"))

	for _, said := range []string{"", "401 Authorization Required", "Invalid credentials.", "invalid or missing token", "A valid token is required", "an admin token is required", "redirect URI mismatch", "CSRF token missing", "The refresh token is required",
		"Either you supplied the wrong credentials (e.g., bad password), or your browser doesn't understand how to supply the credentials required.",
		"The request has not been applied to the target resource because it lacks valid authentication credentials for that resource.", "token_missing", "no_token_type"} {
		require.NotEqual(t, lost, ask("Basic", said), said)
		require.NotEqual(t, lost, ask("Bearer", said), said)
		require.NotContains(t, ask("Basic", said), "was sent", said)
	}
}
