package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestFirstTwoLines has what an engineer needs in the first two lines of the report.
func TestFirstTwoLines(t *testing.T) {
	const home = "https://api.example.com/"
	page := func(status int, body string) http.Handler {
		return says(status, "Content-Type: text/html\n\n"+body)
	}
	sendsToLogin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/login" {
			http.Redirect(w, r, "/login", http.StatusFound)
			return
		}
		page(200, `<form><input type="password"></form>`).ServeHTTP(w, r)
	})
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
	secrets := map[string]string{"QUOTED": `"` + token + `"`,
		"GRAPH":   newJWT(fmt.Sprintf(`{"aud":"https://graph.microsoft.com","exp":%d}`, noon.Add(time.Hour).Unix())),
		"STAGING": newJWT(fmt.Sprintf(`{"iss":"https://login.staging.example.com/","exp":%d}`, noon.Add(time.Hour).Unix())),
		"NEAR":    newJWT(fmt.Sprintf(`{"aud":["https://files.example.com"],"exp":%d}`, noon.Add(time.Hour).Unix()))}
	withToken, withCookie := []string{"-token-env", "TOKEN"}, []string{"-H", "Cookie: sid=" + cookie}
	for _, c := range []struct {
		name      string
		args      []string
		url       string
		server    http.Handler
		status    int
		cause, do string
	}{
		{"quotes that were left out", []string{"-token-env", "QUOTED"}, home, says(200, ""), 0, "The token is in quotes.", "Remove the quotes there"},
		{"line break that was left out", []string{"-token-file", file}, home, says(200, ""), 0, "The file of the token ends with a line break.", "Trim what a program reads"},
		{"aud of another server", []string{"-token-env", "GRAPH"}, home, says(401, "WWW-Authenticate: Bearer"), 1, "aud is another server: graph.microsoft.com.", "Get one for this server."},
		{"aud of another server, invalid_token", []string{"-token-env", "GRAPH"}, home, says(401, `WWW-Authenticate: Bearer error="invalid_token"`), 1, "not valid", "Get another: the aud of this one is graph.microsoft.com."},
		{"issuer of staging", []string{"-token-env", "STAGING"}, home, says(401, "WWW-Authenticate: Bearer"), 1, "another environment: login.staging.example.com.", "this environment's tokens"},
		{"issuer of staging, invalid_token", []string{"-token-env", "STAGING"}, home, says(401, `WWW-Authenticate: Bearer error="invalid_token"`), 1, "not valid", "Get another: this one is of login.staging.example.com."},
		{"issuer of staging, in staging", []string{"-token-env", "STAGING"}, "https://api-stg.example.com/", says(401, "WWW-Authenticate: Bearer"), 1, "The token is revoked, or meant for another server.", "Compare its iss and aud"},
		{"aud of a neighbour", []string{"-token-env", "NEAR"}, home, says(401, "WWW-Authenticate: Bearer"), 1, "The token is revoked, or meant for another server.", "Compare its iss and aud"},
		{"login page, with a token", withToken, home, sendsToLogin, 1, "a login page for people", "or get a new token."},
		{"login page, with a cookie", withCookie, home, sendsToLogin, 1, "The session has ended", "Log in again"},
		{"login page, with a cookie, at once", withCookie, home, page(200, `<form><input type="password"></form>`), 1, "The session has ended", "Log in again"},
		{"page of a hotel", nil, "http://api.example.com/", page(200, `<title>Hotel WiFi</title><form><input type="password"></form>`), 1, "The network wants a login", "in a browser on this network"},
		{"login page that speaks of WiFi", nil, home, page(200, `<title>WiFi planner</title><form><input type="password"></form>`), 1, "a login page for people", "Send a token"},
		{"F5", withToken, home, page(403, "The requested URL was rejected. Please consult with your administrator.<br>Your support ID is: 17"), 1, "F5's firewall refused", "support ID"},
		{"F5 in a 200", withToken, home, page(200, "<title>Request Rejected</title>The requested URL was rejected. Please consult with your administrator."), 1, "F5's firewall refused", "support ID"},
		{"429", withToken, home, says(429, "Retry-After: 37"), 0, "limits how often", "Wait 37 seconds: Retry-After says so."},
		{"429 until then", withToken, home, says(429, "Retry-After: Sat, 21 Nov 2026 12:10:00 GMT"), 0, "limits how often", "Wait 10 minutes: Retry-After says so."},
		{"429 until before", withToken, home, says(429, "Retry-After: Sat, 21 Nov 2026 11:10:00 GMT"), 0, "limits how often", "What to do: Wait."},
		{"503", withToken, home, says(503, "Retry-After: 120"), 0, "not available now", "Wait 2 minutes: Retry-After says so."},
		{"limit of GitHub", withToken, home, says(403, "X-RateLimit-Remaining: 0\nX-RateLimit-Reset: 1795263420"), 1, "The limit of requests is used up.", "Wait 17 minutes: X-RateLimit-Reset says so."},
		{"limit for seconds", withToken, home, says(403, "X-RateLimit-Remaining: 0\nX-RateLimit-Reset: 59"), 1, "The limit of requests is used up.", "Wait 59 seconds: X-RateLimit-Reset says so."},
		{"limit without end", withToken, home, says(403, "X-RateLimit-Remaining: 0"), 1, "The limit of requests is used up.", "Wait until the time"},
		{"431", withToken, home, says(431, ""), 1, "headers are too large", "Use a smaller token"},
		{"two headers", []string{"-H", "Authorization: Bearer " + token, "-H", "Authorization: Basic " + apiKey}, home, says(400, ""), 1, "2 Authorization headers", "Send one of them."},
		{"Vault is sealed", withToken, home, says(503, "Content-Type: application/json\n\n"+`{"errors":["Vault is sealed"]}`), 1, "Vault is sealed", "vault operator unseal"},
		{"token in the query", withToken, home, says(401, "Content-Type: application/json\n\n"+`{"error":"Missing access_token parameter"}`), 1, "in the URL: access_token=TOKEN", "Send it there"},
		{"Retry-After of a 401", withToken, home, says(401, "Retry-After: 30\nWWW-Authenticate: Bearer"), 1, "Likely cause: The server limits how often", "Wait 30 seconds: Retry-After says so."},
		{"Retry-After of a 403", withToken, home, says(403, "Retry-After: 60"), 1, "Likely cause: The server limits how often", "Wait 60 seconds: Retry-After says so."},
		{"token that may not write", append([]string{"-X", "POST"}, withToken...), home, says(403, "Content-Type: application/json\n\n{\"error\":\"forbidden\"}"), 1, "Likely cause: The token may probably not write", "Ask with GET."},
		{"405", []string{"-u", "Ali", "-password-env", "PASSWORD"}, home, says(405, "Allow: POST"), 0, "does not take this method", "Check the method and the path."},
		{"406", withToken, home, says(406, ""), 0, "no answer of a kind that Accept allows", "Send the Accept"},
		{"no tenant", withToken, home, says(401, "Content-Type: text/plain\n\nno org id\n"), 1, "Cause: The server wants the tenant's name", "X-Scope-OrgID"},
		{"no session cookie", withToken, home, says(401, "Content-Type: application/json\n\n{\"error\":\"No session cookie\"}"), 1, "Likely cause: The server wants a session cookie", "Log in where it sets one"},
		{"token in the URL that has expired", nil, home + "?access_token=" + apiKey, says(401, "Content-Type: application/json\n\n{\"error\":\"token has expired\"}"), 1, "Cause: The server says that the token or session has expired.", "Get a new one."},
		{"bearer in lower case", withToken, home, spelled("bearer", "bearer"), 1, "Cause: The server wants the word bearer in this case, and got Bearer.", "-H 'Authorization: bearer TOKEN'"},
		{"Bearer in upper case", []string{"-H", "Authorization: bearer " + token}, home, spelled("Bearer", "Bearer"), 1, "Cause: The server wants the word Bearer in this case, and got bearer.", "Write it so."},
		{"Bearer in upper case, without a challenge", []string{"-H", "Authorization: bearer " + token}, home, spelled("Bearer", ""), 1, "Cause: The server wants the word Bearer in this case, and got bearer.", "Write it so."},
		{"bearer in lower case, and refused", []string{"-H", "Authorization: bearer " + token}, home, says(401, "WWW-Authenticate: Bearer"), 1, "The token is expired", "Get a new one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, map[string]http.Handler{"api.example.com": c.server, "api-stg.example.com": c.server})
			w.env = secrets
			first, out := w.cause(append(c.args, c.url)...)
			_, status := w.run(append(c.args, c.url), "", true)
			require.Equal(t, c.status, status, out)
			lines := strings.Split(out, "\n")
			require.Contains(t, lines[0], c.cause, first.Name)
			require.Contains(t, lines[1], c.do, first.Name)
		})
	}
}

// spelled returns a server that takes the word before a token in this case only, and its challenge.
func spelled(word, challenge string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != word+" "+token {
			says(401, "WWW-Authenticate: "+challenge)(w, r)
		}
	})
}

// TestAddressWithoutBrackets has an IPv6 address as people write it outside URLs.
func TestAddressWithoutBrackets(t *testing.T) {
	w := newWorld(t, nil)
	for _, url := range []string{"http://::1:8080/api", "http://::1/", "https://fe80::1%eth0/"} {
		out, status := w.run([]string{url}, "", true)
		require.Equal(t, exitUsage, status, out)
		require.Contains(t, out, "brackets", url)
	}
	out, _ := w.run([]string{"http://user:pass:word/"}, "", true)
	require.NotContains(t, out, "brackets")
}

// TestSlipsOfTheCommandLine says what to write in place of what was written, and does not repeat it.
func TestSlipsOfTheCommandLine(t *testing.T) {
	const home = "https://api.example.com/"
	w := newWorld(t, nil)
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"wss://api.example.com/"}, "ask for https:// in place of wss://"},
		{[]string{"WS://api.example.com/"}, "ask for http:// in place of ws://"},
		{[]string{"http:/api.example.com/"}, "must begin with http://"},
		{[]string{"https:api.example.com/"}, "must begin with https://"},
		{[]string{"-timeout", "5", home}, "such as 30s"},
		{[]string{"-repeat", "x", home}, "-repeat takes a number"},
		{[]string{"-token-file", token, home}, "the flag takes its name"},
		{[]string{"-token-file", strings.Repeat(token, 50), home}, "the flag takes its name"},
		{[]string{"-u", "Ali", "-password-file", password, home}, "the flag takes its name"},
		{[]string{"-token-env", token, home}, "the flag takes its name"},
	} {
		out, status := w.run(c.args, "", true)
		require.Equal(t, exitUsage, status, out)
		require.Contains(t, strings.Join(strings.Fields(out), " "), c.says)
		noSecret(t, out)
	}
}

// TestProxyWithoutScheme takes a proxy as the environment has it.
func TestProxyWithoutScheme(t *testing.T) {
	w := newWorld(t, map[string]http.Handler{"proxy.example.com": says(407, `Proxy-Authenticate: Basic realm="x"`)})
	first, out := w.cause("-proxy", "proxy.example.com:3128", "https://api.example.com/")
	require.Equal(t, "proxy", first.Name, out)
}
