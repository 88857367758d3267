package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

// cause runs the command with -json too, and returns the first cause. What a person sees begins with it, in two lines, and has no secret.
func (w *world) cause(args ...string) (first cause, out string) {
	w.t.Helper()
	out, status := w.run(args, "", true)
	noSecret(w.t, out)
	machine, again := w.run(append([]string{"-json"}, args...), "", true)
	require.Equal(w.t, status, again)
	noSecret(w.t, machine)
	var r report
	require.NoError(w.t, json.Unmarshal([]byte(machine), &r), out)
	require.NotEmpty(w.t, r.Causes, out)
	lines := strings.Split(out, "\n")
	require.Regexp(w.t, `^(Cause|Likely cause|Possible cause): `, lines[0], out)
	require.Regexp(w.t, `^What to do: `, lines[1], out)
	require.Empty(w.t, lines[2], out)
	require.NotContains(w.t, lines[0]+lines[1], "…", out)
	return r.Causes[0], out
}

// TestTypingErrors gives credentials that are wrong in their form, to a server that says no more than that it refuses them.
func TestTypingErrors(t *testing.T) {
	code := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for i, c := range []struct {
		value string // of Authorization
		name  string
		sure  string
	}{
		{"Bearer Bearer " + token, "token-prefix-twice", certain},
		{"Bearer bearer: " + token, "token-prefix-twice", certain},
		{"Bearer Token " + token, "token-scheme", certain},
		{`Bearer "` + token + `"`, "token-quotes", certain},
		{"Bearer “" + token + "”", "token-quotes", certain},
		{`"Bearer ` + token + `"`, "header-quotes", certain},
		{"Bearer: " + token, "scheme-colon", certain},
		{"Bearer:" + token, "scheme-colon", certain},
		{"Authorization: Bearer " + token, "header-twice", certain},
		{"Bearer $TOKEN", "token-variable", certain},
		{"Bearer ${TOKEN}", "token-variable", certain},
		{"Bearer $(cat token)", "token-variable", certain},
		{"Bearer $env:TOKEN", "token-variable", certain},
		{"Bearer %TOKEN%", "token-variable", certain},
		{"Bearer {{token}}", "token-template", certain},
		{"Bearer {token}", "token-template", certain},
		{"Bearer ${{ secrets.TOKEN }}", "token-template", certain},
		{"Bearer <" + token + ">", "token-brackets", certain},
		{"Bearer undefined", "token-no-value", certain},
		{"Bearer null", "token-no-value", certain},
		{"Bearer None", "token-no-value", certain},
		{"Bearer [object Object]", "token-no-value", certain},
		{"Bearer " + token + `\n`, "token-escape", certain},
		{"Bearer " + token + "%0A", "token-escape", certain},
		{"Bearer " + token + "...", "token-dots", certain},
		{"Bearer YOUR_TOKEN", "token-placeholder", likely},
		{`Bearer {"access_token":"` + token + `","token_type":"Bearer"}`, "token-json", certain},
		{"Bearer " + token + " " + token, "token-character", certain},
		{`Bearer {"token":"` + token + `"}`, "token-json", certain},
		{"Bearer '" + token, "token-character", certain},
		{"Bearer " + token + ",", "token-character", certain},
		{"Bearer 1|" + token, "wrong-token", likely},
		{"Bearer ", "empty-credentials", certain},
		{"Basic", "empty-credentials", certain},
		{"Basic Aladdin:" + password, "basic-not-base64", certain},
		{`Basic "` + password + `"`, "basic-quotes", certain},
		{code(password), "basic-no-colon", certain},
		{code("Aladdin:" + password + "\n"), "basic-line-break", certain},
		{code("Aladdin:" + password + "\r"), "password-return", certain},
		{code("Aladdin:" + password + " "), "password-space", likely},
		{code("Aladdin :" + password), "user-space", likely},
		{code(code("Aladdin:" + password)[len("Basic "):]), "basic-twice", certain},
		{strings.TrimRight(code("Aladdin:"+password+"1"), "="), "basic-alphabet", likely},

		{"Bearer " + token, "wrong-token", likely},
		{"Bearer $2b$12$" + token, "wrong-token", likely},
		{code("Aladdin:" + password), "wrong-password", likely},
		{token, "own-authorization", certain},
	} {
		if i%thorough.Or(1, 2) > 0 {
			continue
		}
		t.Run(c.value, func(t *testing.T) {
			scheme := "Bearer"
			if strings.HasPrefix(c.value, "Basic") {
				scheme = "Basic"
			}
			w := newWorld(t, map[string]http.Handler{"api.example.com": echoing("WWW-Authenticate: " + scheme + ` realm="cave"`)})
			first, out := w.cause("-H", "Authorization: "+c.value, "https://api.example.com/")
			require.Equal(t, c.name, first.Name, out)
			require.Equal(t, c.sure, first.Sure, out)
			if c.sure == certain {
				for _, other := range []string{"is expired, revoked", "or the password is wrong", "They are for"} {
					require.NotContains(t, out, other)
				}
			}
			if c.name != "own-authorization" {
				require.NotContains(t, out, "given with -H has no scheme")
			}
		})
	}
}

// TestTypingErrorsWith400 has servers that do not answer 401 to what they cannot read.
func TestTypingErrorsWith400(t *testing.T) {
	w := newWorld(t, map[string]http.Handler{"api.example.com": says(400, "Content-Type: text/plain\n\nbad request")})
	for value, want := range map[string]string{"Basic Aladdin:" + password: "basic-not-base64", "Bearer Bearer " + token: "token-prefix-twice"} {
		first, out := w.cause("-H", "Authorization: "+value, "https://api.example.com/")
		require.Equal(t, want, first.Name, out)
		require.Equal(t, 1, strings.Count(out, "(certain)"), out)
	}
	out, status := w.run([]string{"-token-env", "TOKEN", "https://api.example.com/"}, "", true)
	require.Equal(t, exitPassed, status, out)
}

// TestTokenAsProgramsHaveIt reads tokens that a program would send otherwise.
func TestTokenAsProgramsHaveIt(t *testing.T) {
	for _, c := range []struct {
		token, cause, note string
	}{
		{"$TOKEN", "token-variable", ""},
		{"undefined", "token-no-value", ""},
		{"[object Object]", "token-no-value", ""},
		{"<" + token + ">", "token-brackets", ""},
		{token + `\n`, "token-escape", ""},
		{token + "%0A", "token-escape", ""},
		{"Basic " + token, "token-scheme", ""},
		{"Bearer ", "token-empty", ""},
		{`"` + token + `"`, "wrong-token", "token-quotes"},
		{`Bearer "` + token + `"`, "wrong-token", "token-quotes"},
		{"Bearer Bearer " + token, "wrong-token", "more than once"},
		{"Bearer: " + token, "wrong-token", "token-prefix"},
	} {
		t.Run(c.token, func(t *testing.T) {
			w := newWorld(t, map[string]http.Handler{"api.example.com": echoing("WWW-Authenticate: Bearer")})
			w.env = map[string]string{"ODD": c.token}
			first, out := w.cause("-token-env", "ODD", "https://api.example.com/")
			require.Equal(t, c.cause, first.Name, out)
			if c.note != "" {
				machine, _ := w.run([]string{"-json", "-token-env", "ODD", "https://api.example.com/"}, "", true)
				require.Contains(t, machine, c.note)
				require.Contains(t, machine, "refuse")
			}
		})
	}

	// What has a refresh token in it is not sent.
	file := filepath.Join(t.TempDir(), "answer")
	require.NoError(t, os.WriteFile(file, []byte("{\n  \"access_token\": \""+token+"\",\n  \"refresh_token\": \""+cookie+"\"\n}\n"), 0o600))
	w := newWorld(t, nil)
	out, status := w.run([]string{"-token-file", file, "https://api.example.com/"}, "", true)
	require.Equal(t, exitUsage, status)
	require.Contains(t, out, "jq -r .access_token")
	noSecret(t, out)
}

// TestPasswordTypingErrors gives passwords that probably are not meant so.
func TestPasswordTypingErrors(t *testing.T) {
	for password, want := range map[string]string{
		password + " ":               "password-space",
		password + "\r":              "password-return",
		password + "\n":              "password-line-break",
		`"` + password + `"`:         "password-quotes",
		"$PASSWORD":                  "password-variable",
		"$1a" + password:             "wrong-password",
		"se\u0301same-ouvre-toi":     "password-decomposed",
		"\u05d0\u05b7\u05d1" + wrong: "wrong-password",
	} {
		for _, challenge := range []string{`Basic realm="cave"`, `Digest realm="cave", nonce="5ccc", qop="auth"`} {
			w := newWorld(t, map[string]http.Handler{"api.example.com": echoing("WWW-Authenticate: " + challenge)})
			w.env = map[string]string{"ODD": password}
			first, out := w.cause("-u", "Aladdin", "-password-env", "ODD", "https://api.example.com/")
			require.Equal(t, want, first.Name, out)
			require.NotContains(t, out, password)
			if strings.ContainsAny(password, "\r\n") {
				require.NotContains(t, out, "a space")
			}
		}
	}
}

// TestUserNameOfMacOS gives a user name with combining characters, as file names there have them.
func TestUserNameOfMacOS(t *testing.T) {
	for name, want := range map[string]string{"Mu\u0301sa": "user-decomposed", "M\u00fasa": "not-ascii"} {
		for _, challenge := range []string{`Basic realm="cave"`, `Digest realm="cave", nonce="5ccc", qop="auth"`} {
			w := newWorld(t, map[string]http.Handler{"api.example.com": says(401, "WWW-Authenticate: "+challenge)})
			first, out := w.cause("-u", name, "-password-env", "PASSWORD", "https://api.example.com/")
			require.Equal(t, want, first.Name, out)
		}
	}
}

// TestHeaderNames gives credentials in headers that the server does not look at.
func TestHeaderNames(t *testing.T) {
	for header, want := range map[string]string{
		"Authorisation: Bearer " + token:  "header-name",
		"Authentication: Bearer " + token: "header-name",
		"Autorization: Bearer " + token:   "header-name",
		"Token: " + token:                 "header-name",
		"X-Api-Key: " + apiKey:            "wrong-key",
		"X-Auth: " + apiKey:               "wrong-key",
		"Cookie: sid=" + cookie:           "wrong-key",
		"X-Debug: true":                   "wrong-key",
	} {
		w := newWorld(t, map[string]http.Handler{"api.example.com": echoing(`WWW-Authenticate: Bearer realm="cave"`)})
		first, out := w.cause("-H", header, "https://api.example.com/")
		require.Equal(t, want, first.Name, out)
		require.Equal(t, likely, first.Sure, out)
	}
	for value, want := range map[string]string{"$KEY": "key-variable", `"` + apiKey + `"`: "key-quotes", "{{key}}": "key-template", "undefined": "key-no-value"} {
		for _, status := range []int{400, 401, 403} {
			w := newWorld(t, map[string]http.Handler{"api.example.com": says(status, "Server: x")})
			first, out := w.cause("-H", "X-Api-Key: "+value, "https://api.example.com/")
			require.Equal(t, want, first.Name, out)
		}
	}
	w := newWorld(t, map[string]http.Handler{"api.example.com": echoing("")})
	_, out := w.cause("-H", "api_key: "+apiKey, "https://api.example.com/")
	require.Contains(t, out, "underscores_in_headers")
}

// TestEachRefusalHasACause crosses kinds of credentials with kinds of answers.
func TestEachRefusalHasACause(t *testing.T) {
	hosts, answers := map[string]http.Handler{}, map[string]string{}
	for _, status := range []int{401, 403, 407} {
		name := "WWW-Authenticate: "
		if status == 407 {
			name = "Proxy-Authenticate: "
		}
		for i, challenges := range []string{"", `Basic realm="cave"`, `Digest realm="cave", nonce="5ccc", qop="auth"`, `Digest realm="cave", nonce="5ccc", algorithm=X`,
			"Bearer", `Bearer error="insufficient_scope"`, `Bearer error="invalid_token"`, `Bearer error="invalid_request"`, "Negotiate", "NTLM", `DPoP algs="ES256"`,
			"Token", "ApiKey", "Sesame", `"==`, "Negotiate\n" + name + `Basic realm="x"`} {
			text := "Server: x"
			if challenges != "" {
				text = name + challenges + "\n\nno"
			}
			host := fmt.Sprintf("s%d-%d.example.com", status, i)
			hosts[host], answers[host] = says(status, text), fmt.Sprint(status, " ", challenges)
		}
	}
	w := newWorld(t, hosts)
	every, n := thorough.Or(1, 11), 0
	for _, args := range [][]string{
		nil,
		{"-u", "Aladdin", "-password-env", "PASSWORD"},
		{"-u", "Aladdin", "-password-env", "PASSWORD", "-ahead"},
		{"-token-env", "TOKEN"},
		{"-token-env", "UNREVOKED"},
		{"-u", "Aladdin", "-password-env", "PASSWORD", "-token-env", "TOKEN"},
		{"-H", "X-Api-Key: " + apiKey},
		{"-H", "Cookie: sid=" + cookie},
		{"-H", "Accept: text/plain"},
		{"-H", "Authorization: Basic QWxhZGRpbjp4"},
		{"-H", "Authorization: Bearer " + token},
		{"-H", "Authorization: DPoP " + token},
		{"-H", "Authorization: Token " + token},
		{"-H", "Authorization: Negotiate " + token},
		{"-H", "Authorization: " + token},
	} {
		for _, host := range slices.Sorted(maps.Keys(answers)) {
			answer := answers[host]
			if n++; n%every != 0 {
				continue
			}
			out, _ := w.run(append(args, "https://"+host+"/"), "", true)
			noSecret(t, out)
			lines := strings.SplitN(out, "\n", 4)
			what := fmt.Sprint(answer, " to ", args, ":\n", out)
			require.Regexp(t, `^(Cause|Likely cause|Possible cause): `, lines[0], what)
			require.Regexp(t, `^What to do: `, lines[1], what)
			require.Empty(t, lines[2], what)
			require.NotContains(t, lines[0]+lines[1], "…", what)
			require.NotContains(t, lines[0], "does not say why", what)
		}
	}
}

// echoing refuses with a header line, and quotes what it was sent.
func echoing(line string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		says(401, "Content-Type: application/x-echo\n"+line+"\n\n"+"you sent: "+strings.Join(r.Header["Authorization"], " ")+" "+r.Header.Get("X-Api-Key"))(w, r)
	})
}
