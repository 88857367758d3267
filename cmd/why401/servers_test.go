package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAnswersOfServers has the first two lines for answers as certain servers word them.
func TestAnswersOfServers(t *testing.T) {
	const home = "https://api.example.com/"
	withToken := []string{"-token-env", "TOKEN"}
	withPassword := []string{"-u", "Ali", "-password-env", "WRONG", "-ahead"}
	json := func(status int, body string) http.Handler { return says(status, "Content-Type: application/json\n\n"+body) }
	for _, c := range []struct {
		name      string
		args      []string
		server    http.Handler
		cause, do string
	}{
		{"IIS", withPassword, says(401, "WWW-Authenticate: Basic realm=\"x\"\nContent-Type: text/html\n\n<h2>401 - Unauthorized: Access is denied due to invalid credentials.</h2><h3>You do not have permission to view this directory or page using the credentials that you supplied.</h3>"), "The user name or the password is wrong.", "Type the password anew"},
		{"Mailgun", withPassword, says(401, "WWW-Authenticate: Basic realm=\"MG API\"\nContent-Type: text/plain\n\nForbidden"), "The user name or the password is wrong.", "Type the password anew"},
		{"Typesense", withToken, json(401, "{\"message\": \"Forbidden - a valid `x-typesense-api-key` header must be sent.\"}"), "a valid `x-typesense-api-key` header must be sent”", ""},
		{"Microsoft Graph", withToken, json(403, `{"error":{"code":"Authorization_RequestDenied","message":"Insufficient privileges to complete the operation."}}`), "“Insufficient privileges to complete the operation”", "Have the permission granted"},
		{"Okta", withToken, json(403, `{"errorCode":"E0000006","errorSummary":"You do not have permission to perform the requested action","errorCauses":[]}`), "“You do not have permission to perform the requested action”", "Have the permission granted"},
		{"Devise", withToken, json(401, `{"error":"You need to sign in or sign up before continuing."}`), "“You need to sign in or sign up before continuing”", "Get a new one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, map[string]http.Handler{"api.example.com": c.server})
			out, status := w.run(append(c.args, home), "", true)
			require.Equal(t, exitRefused, status, out)
			lines := strings.Split(out, "\n")
			require.Contains(t, lines[0], c.cause, out)
			require.Contains(t, lines[1], c.do, out)
			require.LessOrEqual(t, max(len([]rune(lines[0])), len([]rune(lines[1]))), 80)
			noSecret(t, out)
		})
	}
}
