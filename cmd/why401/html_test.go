package main

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/authretry/authretry/authtest"
	"github.com/stretchr/testify/require"
)

// TestHTML writes pages. How they look is tested in interop/browser.
func TestHTML(t *testing.T) {
	const evil = `<script>alert(1)</script>`
	file := filepath.Join(t.TempDir(), "out.html")
	require.NoError(t, os.WriteFile(file, []byte("one that others can read"), 0o644))
	w := newWorld(t, map[string]http.Handler{
		"api.example.com":   guarded(t, &authtest.Basic{Username: "Aladdin", Password: password, Realm: "cave"}),
		"files.example.com": says(302, "Location: https://other.example.com/a"),
		"other.example.com": says(302, "Location: https://third.example.com/b"),
		"third.example.com": says(302, "Location: https://api.example.com/c"),
		"evil.example.com":  says(401, "WWW-Authenticate: Bearer realm=\""+evil+"\", =\nX-Request-Id: "+token+evil+"\nContent-Type: text/plain\n\n"+evil+token),
	})
	for _, c := range []struct {
		args   []string
		status int
		has    []string
	}{
		{[]string{"-u", "Aladdin", "-password-env", "WRONG", "https://api.example.com/"}, exitRefused,
			[]string{"<h1>The user name or the password is wrong.</h1>", "Likely cause", "<em>Authorization:</em> Basic ••••••••", "401 Unauthorized", "lanes-2"}},
		{[]string{"-u", "Aladdin", "-password-env", "PASSWORD", "https://api.example.com/"}, exitPassed, []string{"did not refuse", `class="verdict passed"`}},
		{[]string{"-H", "X-Api-Key: " + apiKey, "https://files.example.com/"}, exitRefused, []string{"<em>X-Api-Key:</em> ••••••••", "other hosts", "lanes-4"}},
		{[]string{"-token-env", "TOKEN", "https://evil.example.com/"}, exitRefused, []string{"&lt;script&gt;", hidden}},
		{nil, exitPassed, []string{"This is one challenge.", "<dt>realm</dt>"}},
	} {
		in := ""
		if c.args == nil {
			in = "WWW-Authenticate: Basic realm=\"cave\""
		}
		out, status := w.run(append([]string{"-html", file}, c.args...), in, true)
		require.Equal(t, c.status, status, out)
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, want := range c.has {
			require.Contains(t, string(text), want)
		}
		noSecret(t, string(text))
		require.NotContains(t, string(text), "<script")
		require.NotRegexp(t, regexp.MustCompile(`(?i)(src|href|url|@import)[ (=]+["']?http`), string(text), "it loads nothing")
		require.Equal(t, 1, strings.Count(string(text), "<style>"))
	}
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Zero(t, info.Mode().Perm()&0o077, "nobody else can read it")

	out, status := w.run([]string{"-html", filepath.Join(file, "x"), "https://api.example.com/"}, "", true)
	require.Equal(t, exitUsage, status)
	require.Contains(t, out, "-html: open")
	require.Contains(t, out, "What to do:", "what was found out is printed all the same")

	w.hosts["api.example.com"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			says(500, "Content-Type: text/plain\n\nthe door is stuck")(w, r)
		}
	})
	w.run([]string{"-html", file, "-token-env", "TOKEN", "https://api.example.com/"}, "", true)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Regexp(t, `(?s)class="verdict unsure".*500 Internal.*The response says: “the door is stuck”.*tried again without`, string(text), "the body is below its own response")
}
