package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the files in testdata anew")

// TestAsk prints what a person sees of each kind of broken set-up into testdata, to be read and compared.
func TestAsk(t *testing.T) {
	user := func(variable string) []string { return []string{"-u", "Aladdin", "-password-env", variable} }
	withToken := func(variable string) []string { return []string{"-token-env", variable} }
	proxyUser := func(variable string, more ...string) []string {
		return append([]string{"-proxy", "http://proxy.example.com:3128", "-proxy-user", "Porter", "-proxy-password-env", variable}, more...)
	}
	basic := &authtest.Basic{Username: "Aladdin", Password: password, Realm: "cave"}
	digest := &authtest.Digest{Username: "Aladdin", Password: password, Realm: "cave", Opaque: "5ccc", UTF8: true}
	stale := &authtest.Digest{Username: "Aladdin", Password: password, Realm: "cave", NonceLifetime: time.Nanosecond}
	tokens := guarded(t, &authtest.Bearer{Realm: "cave"})
	narrow := &authtest.Bearer{Realm: "cave", Scope: "treasure:write"}
	scoped := narrow.Login("treasure:read")
	type hosts = map[string]http.Handler
	const api = "api.example.com"

	for i, c := range []struct {
		name   string
		args   []string
		url    string
		hosts  hosts
		status int
	}{
		{"basic-right", user("PASSWORD"), "https://api.example.com/", hosts{api: guarded(t, basic)}, 0},
		{"basic-wrong-password", user("WRONG"), "https://api.example.com/", hosts{api: guarded(t, basic)}, 1},
		{"basic-no-credentials", nil, "api.example.com/reports", hosts{api: guarded(t, basic)}, 1},
		{"basic-unknown-user", []string{"-u", "Cassim", "-password-env", "PASSWORD"}, "https://api.example.com/", hosts{api: guarded(t, basic)}, 1},
		{"basic-plain-http", user("PASSWORD"), "http://api.example.com/", hosts{api: guarded(t, basic)}, 3},
		{"basic-plain-http-allowed", append(user("PASSWORD"), "-allow-plaintext"), "http://api.example.com/", hosts{api: guarded(t, basic)}, 0},
		{"basic-wants-token", user("PASSWORD"), "https://api.example.com/", hosts{api: tokens}, 1},
		{"digest-wrong-password", user("WRONG"), "https://api.example.com/", hosts{api: guarded(t, digest)}, 1},
		{"digest-right", user("PASSWORD"), "https://api.example.com/", hosts{api: guarded(t, digest)}, 0},
		{"digest-stale-for-ever", user("PASSWORD"), "https://api.example.com/", hosts{api: guarded(t, stale)}, 1},
		{"digest-unknown-algorithm", user("PASSWORD"), "https://api.example.com/", hosts{
			api: says(401, `WWW-Authenticate: Digest realm="cave", nonce="5ccc", algorithm=SHA3-512, qop="auth"`)}, 1},
		{"bearer-revoked", withToken("TOKEN"), "https://api.example.com/", hosts{api: tokens}, 1},
		{"bearer-expired", withToken("EXPIRED"), "https://api.example.com/", hosts{
			api: says(401, `WWW-Authenticate: Bearer error="invalid_token", error_description="The token expired at 09:00"`)}, 1},
		{"bearer-not-yet-valid", withToken("EARLY"), "https://api.example.com/", hosts{api: says(401, `WWW-Authenticate: Bearer`)}, 1},
		{"bearer-wrong-audience", withToken("UNREVOKED"), "https://api.example.com/", hosts{
			api: says(401, `WWW-Authenticate: Bearer realm="cave", error="invalid_token", error_description="The audience is invalid", error_uri="https://docs.example.com/401"`)}, 1},
		{"bearer-scope", nil, "https://api.example.com/", hosts{api: guarded(t, narrow)}, 1},
		{"bearer-prefix", withToken("PREFIXED"), "https://api.example.com/", hosts{api: says(401, `WWW-Authenticate: Bearer`)}, 1},
		{"bearer-registry", nil, "https://api.example.com/v2/", hosts{
			api: says(401, `WWW-Authenticate: Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:cave/lamp:pull"`)}, 1},
		{"redirect-other-host", user("PASSWORD"), "https://api.example.com/reports?key=" + apiKey, hosts{
			api:                 says(302, "Location: https://files.example.com/reports?key="+apiKey),
			"files.example.com": guarded(t, basic)}, 1},
		{"redirect-token", withToken("TOKEN"), "https://api.example.com/", hosts{
			api:                 says(307, "Location: https://files.example.com/"),
			"files.example.com": says(401, `WWW-Authenticate: Bearer`)}, 1},
		{"redirect-login", nil, "https://api.example.com/", hosts{
			api: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/login" {
					w.Header().Set("Content-Type", "text/html")
					io.WriteString(w, "<html>Please log in</html>")
					return
				}
				http.SetCookie(w, &http.Cookie{Name: "sid", Value: cookie})
				http.Redirect(w, r, "/login?from=/", http.StatusFound)
			})}, 1},
		{"redirect-loop", nil, "https://api.example.com/", hosts{api: says(302, "Location: /again")}, 3},
		{"redirect-nowhere", nil, "https://api.example.com/", hosts{api: says(302, "Location: ftp://files.example.com/x")}, 3},
		{"redirect-unreadable", nil, "https://api.example.com/", hosts{api: says(302, "Location: http://[files.example.com/x?key="+cookie)}, 3},
		{"no-challenge", user("PASSWORD"), "https://api.example.com/", hosts{api: says(401, "Content-Type: application/json\n\n"+`{"error":"no session, please log in"}`)}, 1},
		{"no-challenge-api-key", nil, "https://api.example.com/", hosts{api: says(401, "Content-Type: application/json\n\n"+`{"message":"Missing x-api-key header"}`)}, 1},
		{"no-challenge-wrong-api-key", []string{"-H", "X-API-Key: " + apiKey}, "https://api.example.com/", hosts{
			api: says(401, "Content-Type: application/json\n\n"+`{"message":"API key `+apiKey+` is not valid"}`)}, 1},
		{"garbled-challenge", user("PASSWORD"), "https://api.example.com/", hosts{api: says(401, `WWW-Authenticate: "cave", ==`)}, 1},
		{"damaged-challenge", user("WRONG"), "https://api.example.com/", hosts{api: says(401, `WWW-Authenticate: Basic realm="the cave`)}, 1},
		{"negotiate", user("PASSWORD"), "https://api.example.com/", hosts{api: says(401, "WWW-Authenticate: Negotiate\nWWW-Authenticate: NTLM")}, 1},
		{"aws4", withToken("TOKEN"), "https://api.example.com/", hosts{api: says(401, "WWW-Authenticate: AWS4-HMAC-SHA256\nContent-Type: application/xml\n\n<Error><Code>AccessDenied</Code></Error>")}, 1},
		{"unknown-scheme", withToken("TOKEN"), "https://api.example.com/", hosts{api: says(401, `WWW-Authenticate: Sesame door="3"`)}, 1},
		{"forbidden", withToken("TOKEN"), "https://api.example.com/", hosts{api: says(403, "Content-Type: text/html\n\n<html><h1>Forbidden</h1></html>")}, 1},
		{"should-be-403", user("PASSWORD"), "https://api.example.com/", hosts{
			api: says(401, "WWW-Authenticate: Basic realm=\"cave\"\nContent-Type: text/plain\n\nYou do not have permission to open this door.")}, 1},
		{"refused-after-redirect", withToken("TOKEN"), "https://api.example.com/", hosts{
			api: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/" {
					http.Redirect(w, r, "/admin", http.StatusSeeOther)
					return
				}
				says(401, `WWW-Authenticate: Bearer realm="cave"`)(w, r)
			})}, 1},
		{"clock-skew", withToken("TOKEN"), "https://api.example.com/", hosts{
			api: says(401, "Date: Sat, 21 Nov 2026 12:17:00 GMT\nWWW-Authenticate: Bearer error=\"invalid_token\"")}, 1},
		{"own-authorization", append(user("PASSWORD"), "-H", "Authorization: Bearer "+token), "https://api.example.com/", hosts{api: guarded(t, basic)}, 1},
		{"own-authorization-no-scheme", []string{"-H", "Authorization: " + token}, "https://api.example.com/", hosts{api: tokens}, 1},
		{"userinfo", nil, "https://Aladdin:" + password + "@api.example.com/", hosts{api: guarded(t, basic)}, 1},
		{"proxy-http", []string{"-proxy", "http://proxy.example.com:3128"}, "http://api.example.com/", hosts{
			"proxy.example.com": says(407, `Proxy-Authenticate: Basic realm="way out"`)}, 1},
		{"proxy-connect", append(withToken("TOKEN"), "-proxy", "http://proxy.example.com:3128"), "https://api.example.com/", hosts{
			"proxy.example.com": says(407, `Proxy-Authenticate: Digest realm="way out", nonce="5ccc", qop="auth"`)}, 1},
		{"proxy-unreachable-target", []string{"-proxy", "http://proxy.example.com:3128"}, "https://api.example.com/", hosts{
			"proxy.example.com": says(503, "")}, 3},
		{"proxy-unreachable", []string{"-proxy", "http://proxy.example.com:1"}, "https://api.example.com/", hosts{api: says(200, "")}, 3},
		{"proxy-unknown", []string{"-proxy", "http://proxy.example.org:3128"}, "http://api.example.com/", hosts{api: says(200, "")}, 3},
		{"proxy-right", proxyUser("PASSWORD", "-allow-plaintext"), "https://api.example.com/", hosts{api: says(200, "")}, 0},
		{"proxy-wrong-password", proxyUser("WRONG", "-allow-plaintext"), "https://api.example.com/", hosts{api: says(200, "")}, 1},
		{"proxy-plain-http", proxyUser("PASSWORD"), "https://api.example.com/", hosts{api: says(200, "")}, 1},
		{"proxy-http-wrong-password", proxyUser("WRONG", "-allow-plaintext"), "http://api.example.com/", hosts{api: says(200, "")}, 1},
		{"proxy-http-plain-http", proxyUser("PASSWORD"), "http://api.example.com/", hosts{api: says(200, "")}, 3},
		{"no-proxy-but-407", nil, "https://api.example.com/", hosts{api: says(407, `Proxy-Authenticate: Basic realm="way out"`)}, 1},
		{"http-on-https-port", nil, "https://api.example.com:8443/", hosts{api: says(200, "")}, 3},
		{"connection-refused", nil, "https://api.example.com:1/", hosts{api: says(200, "")}, 3},
		{"unknown-host", nil, "https://api.example.org/", hosts{}, 3},
		{"tls", user("PASSWORD"), "https://api.example.com/", hosts{api: says(200, "")}, 3},
		{"not-found", nil, "https://api.example.com/", hosts{api: says(404, "Content-Type: text/plain\n\nno such door")}, 0},
		{"too-many", user("WRONG"), "https://api.example.com/", hosts{api: says(429, "Retry-After: 120")}, 0},
		{"ok", nil, "https://api.example.com/", hosts{api: says(200, "")}, 0},
		{"hostile", withToken("TOKEN"), "https://api.example.com/", hosts{
			api: says(401, "WWW-Authenticate: Bearer realm=\"\u202egnp\u0085\", error_description=\"\u009b31mred "+token+"\"\nContent-Type: text/plain\n\n\x1b]0;title\x07\x1b[2J"+strings.Repeat("long ", 500))}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.hosts)
			if w.hosts["proxy.example.com"] == nil {
				w.hosts["proxy.example.com"] = w.tunnels("Porter", password)
			}
			args := append(c.args, c.url)
			if c.name == "bearer-scope" {
				args = []string{"-H", "Authorization: Bearer " + scoped.AccessToken, c.url}
			}
			out, status := w.run(args, "", c.name != "tls")
			require.Equal(t, c.status, status, out)
			noSecret(t, out)
			require.NotContains(t, out, scoped.AccessToken)
			golden(t, c.name+".txt", out)
			require.NotRegexp(t, `[^\n\PC]`, out, "nothing that a terminal obeys")

			if i%thorough.Or(1, 3) > 0 && c.name != "bearer-expired" {
				return
			}
			machine, status := w.run(append([]string{"-json"}, args...), "", c.name != "tls")
			require.Equal(t, c.status, status)
			noSecret(t, machine)
			if c.name == "bearer-expired" { // the field names are a promise
				golden(t, c.name+".json", machine)
			}
			var r report
			require.NoError(t, json.Unmarshal([]byte(machine), &r))
			require.NotEmpty(t, r.Summary)
		})
	}
}

func noSecret(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{password, wrong, token, apiKey, cookie, expired, fresh, early} {
		require.NotContains(t, text, secret)
	}
}

// TestFilesHaveNoSecret looks for the secrets in what has been printed once and for all.
func TestFilesHaveNoSecret(t *testing.T) {
	files, err := filepath.Glob("testdata/*")
	require.NoError(t, err)
	require.Greater(t, len(files), 40)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		noSecret(t, string(text))
	}
}

func TestPaste(t *testing.T) {
	head := "HTTP/2 301 \nlocation: /b\n\nHTTP/2 401 \nserver: x\nwww-authenticate: Digest realm=\"cave\", nonce=\"5ccc\",\n  qop=\"auth\", stale=TRUE\nWWW-Authenticate: Basic realm=\"cave\"\n\n<html>a: b</html>"
	for _, c := range []struct {
		name, in string
		status   int
	}{
		{"paste-line", "WWW-Authenticate: Bearer realm=\"cave\", error=\"invalid_token\", x-new=1\r\n", 0},
		{"paste-value", "  Negotiate YIIBhgYGKwYBBQ==\n", 0},
		{"paste-ntlm", "Proxy-Authenticate: Negotiate TlRMTVNTUAACAAAADAAMADAAAAABAoEA\nProxy-Authenticate: NTLM\n", 0},
		{"paste-head", head, 0},
		{"paste-proxy", "Proxy-Authenticate: Basic realm=\"way out\"\n", 0},
		{"paste-401-without", "HTTP/1.1 401 Unauthorized\nContent-Length: 0\n\n", 0},
		{"paste-nothing", "", 3},
		{"paste-cloudflare", "HTTP/2 403 \nserver: cloudflare\ncf-mitigated: challenge\ncontent-type: text/html\n\n<title>Just a moment...</title>\n", 0},
		{"paste-graphql", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"errors\":[{\"message\":\"no\",\r\n\"extensions\":{\"code\":\"UNAUTHENTICATED\"}}]}\r\n", 0},
		{"paste-login-page", "HTTP/1.1 200 OK\nContent-Type: text/html\n\n<form><input type=\"password\"></form>", 0},
		{"paste-verbose", "* Connected\n> GET / HTTP/1.1\n>\n< HTTP/1.1 401 Unauthorized\n< WWW-Authenticate: Basic realm=\"cave\"\n<\n{\"WWW-Authenticate\": 1}\n", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, status := newWorld(t, nil).run(nil, c.in, true)
			require.Equal(t, c.status, status, out)
			golden(t, c.name+".txt", out)
		})
	}
}

// TestUsage has what the command line must not say. Nothing of a password is repeated.
func TestUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"-u: give the user name alone":          {"-u", "Aladdin:" + password, "https://api.example.com/"},
		"a user name has no colon":              {"-u", "dom:alice", "-password-env", "PASSWORD", "https://api.example.com/"},
		"-proxy takes no user name":             {"-proxy", "http://Aladdin:" + password + "@proxy.example.com", "https://api.example.com/"},
		"the URL cannot be read":                {"https://Aladdin:" + password + "%zz@api.example.com/"},
		"the URL must begin with":               {"ftp://Aladdin:" + password + "@api.example.com/"},
		"is empty or not set":                   {"-token-env", token, "https://api.example.com/"},
		"standard input is none":                {"-u", "Aladdin", "https://api.example.com/"},
		"-password needs a user name":           {"-password-env", "PASSWORD", "https://api.example.com/"},
		"it takes 'Name: value'":                {"-H", "X-API-Key=" + apiKey, "https://api.example.com/"},
		"-X takes a method":                     {"-X", "GET IT", "https://api.example.com/"},
		"one URL is enough":                     {"https://api.example.com/", "-u", "Aladdin"},
		"flag provided but not defined":         {"-k", "https://api.example.com/"},
		"-register are for -login":              {"-register", "https://api.example.com/"},
		"-login gets a token":                   {"-login", "-token-env", "TOKEN", "https://api.example.com/"},
		"-issuer: the URL must begin":           {"-login", "-issuer", "ftp://Aladdin:" + password + "@x", "https://api.example.com/"},
		"either -token-env or":                  {"-token-env", "TOKEN", "-token-file", "x", "https://api.example.com/"},
		"-password-file: there is no such file": {"-u", "Aladdin", "-password-file", "no-such-file", "https://api.example.com/"},
	} {
		t.Run(name, func(t *testing.T) {
			out, status := newWorld(t, nil).run(args, "", true)
			require.Equal(t, exitUsage, status, out)
			require.Contains(t, strings.Join(strings.Fields(out), " "), name)
			require.NotRegexp(t, `(?m)^.{81}`, out)
			noSecret(t, out)
		})
	}
}

// TestHelp fits on a usual screen.
func TestHelp(t *testing.T) {
	out, status := newWorld(t, nil).run([]string{"-h"}, "", true)
	require.Equal(t, exitPassed, status)
	require.Contains(t, out, "-token-env VAR")
	require.NotRegexp(t, `(?m)^.{81}`, out)
}

// TestSecretFiles reads password and token from files, as editors leave them.
func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		return file
	}
	w := newWorld(t, map[string]http.Handler{
		"basic.example.com": guarded(t, &authtest.Basic{Username: "Aladdin", Password: password}),
		"token.example.com": guarded(t, &authtest.APIKey{Prefix: "Bearer", Key: token}),
	})
	out, status := w.run([]string{"-u", "Aladdin", "-password-file", write("p", password+"\r\n"), "https://basic.example.com/"}, "", true)
	require.Equal(t, exitPassed, status, out)
	out, status = w.run([]string{"-token-file", write("t", "\""+token+"\"\n"), "https://token.example.com/"}, "", true)
	require.Equal(t, exitPassed, status, out)
	require.Contains(t, out, "The token is in quotes")
	require.Contains(t, out, "The file of the token ends with a line break.")
	out, _ = w.run([]string{"-token-file", write("t", token), "https://token.example.com/"}, "", true)
	require.NotContains(t, out, "line break")
	out, status = w.run([]string{"-u", "Aladdin", "-password-file", write("p", password+"\nuser: Aladdin\n"), "https://basic.example.com/"}, "", true)
	require.Equal(t, exitPassed, status, out)
	require.Contains(t, out, "The file of the password has more than one line.")

	for content, want := range map[string]string{
		token[:6] + "\n" + token[6:]:   "Cause: Only the first of several lines in the token's file was sent.",
		fresh[:60] + "\n" + fresh[60:]: "Cause: Only the first of several lines in the token's file was sent.",
		"wrong":                        "Likely cause: The token is expired, revoked, or meant for another server.",
	} {
		out, status = w.run([]string{"-token-file", write("t", content), "https://token.example.com/"}, "", true)
		require.Equal(t, exitRefused, status, out)
		require.Contains(t, out, want)
		noSecret(t, out)
	}
}

// TestData sends a body again with the answer.
func TestData(t *testing.T) {
	file := filepath.Join(t.TempDir(), "body")
	require.NoError(t, os.WriteFile(file, []byte("a body"), 0o600))
	var got []string
	guard := authtest.NewServer(&authtest.Digest{Username: "Aladdin", Password: password})
	defer guard.Close()
	guard.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, fmt.Sprintf("%s %s %s", r.Method, r.Header.Get("X-A"), body))
	}))
	w := newWorld(t, map[string]http.Handler{"api.example.com": guard})
	out, status := w.run([]string{"-u", "Aladdin", "-password-env", "PASSWORD", "-H", "X-A: b", "-data", file, "https://api.example.com/"}, "", true)
	require.Equal(t, exitPassed, status, out)
	require.Equal(t, []string{"POST b a body"}, got)
}

// TestCleaner hides secrets in the forms in which a server may quote them, and what a terminal would obey.
func TestCleaner(t *testing.T) {
	var c cleaner
	c.hide("p@ss word/1", "ab", "")
	for in, want := range map[string]string{
		"p@ss word/1":                     "(secret)",
		"xp@ss word/1y":                   "x(secret)y",
		"p%40ss+word%2F1 p@ss%20word%2F1": "(secret) (secret)",
		"ab cab, ab.":                     "(secret) cab, (secret).",
		"a\tb\r\nc":                       "a b  c",
		"\x1b[31m\x00\u202e\u009b\xff":    `\x1b[31m\x00\u202e\u009b\ufffd`,
		"Grüße, 世界":                       "Grüße, 世界",
	} {
		require.Equal(t, want, c.text(in, 1000))
	}
	require.Equal(t, "123…", c.text("12345", 3))
	require.Equal(t, []string{"u:p@x", "p@x"}, userinfoOf("http://u:p@x@proxy:bad"))
	require.Equal(t, []string{"u:p", "p"}, userinfoOf("u:p@proxy"))
	require.Empty(t, userinfoOf("http://proxy:3128"))
}

// TestWidth wraps to COLUMNS, and has no colour where there is no terminal.
func TestWidth(t *testing.T) {
	for columns, most := range map[string]int{"": 80, "50": 50, "7": 40, "x": 80, "100": 100} {
		var out strings.Builder
		getenv := func(name string) string { return map[string]string{"COLUMNS": columns, "TERM": "xterm"}[name] }
		newPrinter(&out, getenv).report(&report{Summary: strings.Repeat("word ", 60), Causes: []cause{{Text: strings.Repeat("why ", 60), Fix: strings.Repeat("how ", 60)}}})
		longest := 0
		for line := range strings.Lines(out.String()) {
			longest = max(longest, utf8.RuneCountInString(line)-1)
		}
		require.LessOrEqual(t, longest, most)
		require.Greater(t, longest, most-10)
		require.NotContains(t, out.String(), "\x1b")
	}
}

// TestLongWords breaks what is wider than the screen, after a character of URLs if there is one, and leaves nothing out.
func TestLongWords(t *testing.T) {
	for _, c := range []struct {
		text    string
		further int
		want    []string
	}{
		{"ask https://a.example/b/c?d=e now", 2, []string{"ask", "  https://a.example/", "  b/c?d=e now"}},
		{"https://a.example/b/c?d=e", 2, []string{"https://a.example/b/", "  c?d=e"}},
		{strings.Repeat("a", 45), 2, []string{strings.Repeat("a", 20), "  " + strings.Repeat("a", 18), "  " + strings.Repeat("a", 7)}},
		{"a " + strings.Repeat("é", 20), 0, []string{"a", strings.Repeat("é", 20)}},
		{"/" + strings.Repeat("a", 22), 0, []string{"/" + strings.Repeat("a", 19), "aaa"}},
		{"", 2, []string{""}},
	} {
		require.Equal(t, c.want, wrap(c.text, 20, c.further), c.text)
	}
	for width := range 12 {
		for further := range 12 {
			require.NotPanics(t, func() { wrap("a long-word and/another one", width, further) })
		}
	}
	require.NotPanics(t, func() { wrap("open "+strings.Repeat("\xff", 300), 100, 8) }, "the name of a file need not be UTF-8")
	w := newWorld(t, map[string]http.Handler{"api.example.com": says(401, "WWW-Authenticate: Bearer realm=\""+strings.Repeat("cave", 60)+"\"\nLocation: /"+strings.Repeat("a/", 90))})
	w.env = map[string]string{"COLUMNS": "60"}
	out, _ := w.run([]string{"https://api.example.com/" + strings.Repeat("path/", 40)}, "", true)
	before, _, _ := strings.Cut(out, "      token :=") // code is not broken
	require.NotRegexp(t, `(?m)^.{61}`, before)
	require.Contains(t, strings.ReplaceAll(strings.ReplaceAll(out, "\n", ""), " ", ""), strings.Repeat("path/", 40))
}

// What is given with -H does not go to a host that is the same by Unicode's case mapping, and dialled by another name.
func TestHostOfARedirectIsComparedByBytes(t *testing.T) {
	for to, want := range map[string]bool{"https://KUBE.test/x": false, "https://\u212aube.test/": true} {
		require.Equal(t, want, left([]*http.Request{httptest.NewRequest("GET", "https://kube.test/", nil), httptest.NewRequest("GET", to, nil)}), to)
	}
}

// TestRedirectedKey keeps a header with a key from another origin, where http.Client would have sent it.
func TestRedirectedKey(t *testing.T) {
	var got []string
	w := newWorld(t, map[string]http.Handler{
		"api.example.com": says(302, "Location: https://files.example.com/"),
		"files.example.com": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = append(got, r.Header.Get("X-API-Key")+r.Header.Get("Accept"))
			w.WriteHeader(http.StatusUnauthorized)
		}),
	})
	out, status := w.run([]string{"-H", "X-API-Key: " + apiKey, "-H", "Accept: text/plain", "https://api.example.com/"}, "", true)
	require.Equal(t, exitRefused, status)
	require.Equal(t, []string{"text/plain"}, got)
	require.Contains(t, strings.Join(strings.Fields(out), " "), "what was given with -H")
}

// TestAhead sends Basic where nobody asks for it.
func TestAhead(t *testing.T) {
	w := newWorld(t, map[string]http.Handler{"api.example.com": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, p, _ := r.BasicAuth(); p != password {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})})
	out, status := w.run([]string{"-u", "Aladdin", "-password-env", "PASSWORD", "-ahead", "https://api.example.com/"}, "", true)
	require.Equal(t, exitPassed, status, out)
	out, status = w.run([]string{"-u", "Aladdin", "-password-env", "PASSWORD", "https://api.example.com/"}, "", true)
	require.Equal(t, exitRefused, status)
	require.Contains(t, out, "-ahead")
}
