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
	withToken, withKey := []string{"-token-env", "TOKEN"}, []string{"-H", "X-API-Key: " + apiKey}
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
		{"WordPress", withPassword, json(401, `{"code":"rest_not_logged_in","message":"You are not currently logged in.","data":{"status":401}}`), "has not seen the Authorization header", "Have the gateway pass Authorization on"},
		{"WordPress, that writes", withPassword, json(401, `{"code":"rest_cannot_create","message":"Sorry, you are not allowed to create posts as this user.","data":{"status":401}}`), "has not seen the Authorization header", "Have the gateway pass Authorization on"},
		{"Argo CD", withToken, json(401, `{"error":"no session information","code":16,"message":"no session information"}`), "has not seen the Authorization header", "Have the gateway pass Authorization on"},
		{"NetBox", withToken, json(403, `{"detail":"Authentication credentials were not provided."}`), "wants another word than Bearer", "Try -H 'Authorization: Token KEY'"},
		{"Proxmox", []string{"-H", "Authorization: PVEAPIToken root@pam!mon=" + apiKey}, says(401, "Content-Type: text/plain\n\nNo ticket"), "no credentials in a form that it knows", "Compare the header with the documentation"},
		{"FastAPI, with a key", withKey, json(403, `{"detail":"Not authenticated"}`), "no credentials: it does not read the header of -H.", "Send the key in the header that its documentation names."},
		{"Meilisearch", withKey, json(401, `{"message":"The Authorization header is missing. It must use the bearer authorization method.","code":"missing_authorization_header"}`), "no credentials: it does not read the header of -H.", "Send it in Authorization: -token-env"},
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
