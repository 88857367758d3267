package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPasteNoHeader pastes what is no header, and once was explained as a broken challenge.
func TestPasteNoHeader(t *testing.T) {
	for _, in := range []string{
		`{"error":"invalid_token"}`, "{\n  \"error\": \"invalid_token\"\n}", `[{"error":"x"}]`,
		`{'WWW-Authenticate': 'Bearer realm="x"', 'Content-Length': '0'}`,
		`map[Content-Length:[0] Www-Authenticate:[Bearer realm="x"]]`, `http.Header{"Www-Authenticate":[]string{"Bearer"}}`,
		"<html>401</html>", "401 Unauthorized", "Unauthorized", "error: invalid_token", "Content-Type: text/html; charset=utf-8\nServer: x",
		"GET /x HTTP/1.1\nAuthorization: Bearer " + token, "Authorization: Bearer " + token, "> GET / HTTP/1.1\n> Cookie: sid=" + cookie + "\n>",
	} {
		out, status := newWorld(t, nil).run(nil, in, true)
		require.Equal(t, exitFailed, status, out)
		require.Contains(t, out, "this is no header line: paste lines such as WWW-Authenticate: ", in)
		noSecret(t, out)
	}
	out, status := newWorld(t, nil).run(nil, "{\"a\":1}\nWWW-Authenticate: Basic realm=\"cave\"\n", true)
	require.Equal(t, exitPassed, status)
	require.Contains(t, out, "This is one challenge.")
	require.NotContains(t, out, "damaged")
	again, status := newWorld(t, nil).run([]string{"-"}, "{\"a\":1}\nWWW-Authenticate: Basic realm=\"cave\"\n", true)
	require.Equal(t, exitPassed, status)
	require.Equal(t, out, again, "as many commands have it")
}

// TestPastedChallengeHasACause pastes challenges, each of which has a cause in the first line.
func TestPastedChallengeHasACause(t *testing.T) {
	for in, want := range map[string]string{
		"WWW-Authenticate: Basic realm=\"cave\"":               "The server asks for credentials",
		"WWW-Authenticate: NTLM":                               "The server asks for credentials",
		"WWW-Authenticate: Sesame\nWWW-Authenticate: Bearer":   "The server asks for credentials",
		"HTTP/1.1 401 No\nWWW-Authenticate: Token\n\n":         "The server asks for credentials",
		"HTTP/1.1 407 No\nProxy-Authenticate: Basic x=\"y\"\n": "It is a proxy that refuses",
		"Proxy-Authenticate: Negotiate":                        "It is a proxy that refuses",
		"HTTP/1.1 403 Forbidden\nServer: x\n\n":                "The server forbids this",
		"HTTP/1.1 401 No\n\n":                                  "The 401 does not say",
		"Digest realm=\"cave\",\n  nonce=\"5ccc\"":             "The server asks for credentials",
		"Sesame door=3":                                        "The server asks for credentials",
		"WWW-Authenticate: \"==":                               "The server's challenge cannot be read",
	} {
		out, status := newWorld(t, nil).run(nil, in, true)
		require.Equal(t, exitPassed, status, out)
		lines := strings.Split(out, "\n")
		require.Contains(t, lines[0], want, out)
		require.Regexp(t, "^What to do: ", lines[1])
		require.NotContains(t, lines[0]+lines[1], "…")
	}
}

// TestPastedSecrets has credentials in what curl -v prints, and a server that repeats them.
func TestPastedSecrets(t *testing.T) {
	echo := "< HTTP/1.1 401 Unauthorized\n< Set-Cookie: sid=" + cookie + "; Path=/\n< WWW-Authenticate: Bearer realm=\"" + token + "\", error=\"invalid_token\", error_description=\"bad: " +
		token + " " + strings.ToUpper(apiKey) + " " + cookie + "\"\n<\n{\"message\":\"" + token + "\"}\n"
	for _, sent := range []string{
		"> GET /x?key=" + apiKey + " HTTP/1.1\n> Authorization: Bearer " + token + "\n>\n",
		"* [HTTP/2] [1] [:path: /x?key=" + apiKey + "]\n* [HTTP/2] [1] [authorization: Bearer " + token + "]\n",
		"> GET / HTTP/1.1\n> authorization: bearer " + token + "\n> my-header: " + apiKey + "\n",
		"GET / HTTP/1.1\nAuthorization: Bearer " + token + "\nX-Api-Key: " + apiKey + "\n\n",
	} {
		for _, args := range [][]string{nil, {"-json"}} {
			out, status := newWorld(t, nil).run(args, sent+echo, true)
			require.Equal(t, exitPassed, status, out)
			noSecret(t, out)
			require.NotContains(t, strings.ToLower(out), apiKey)
			require.Contains(t, out, "(secret)")
		}
	}
}

// Whatever a response says that is known, it can be pasted.
func TestPasteEverySign(t *testing.T) {
	w := newWorld(t, nil)
	for _, s := range slices.Concat(knownSigns, saidSigns) {
		for _, status := range s.statuses {
			for _, word := range append(s.words, "") {
				out, code := w.run(nil, fmt.Sprintf("HTTP/1.1 %d No\n%s\n\n%s\n", status, s.header, word), true)
				require.Equal(t, exitPassed, code, "%d %s: %s", status, word, out)
			}
		}
	}
}
