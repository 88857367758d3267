package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What a server shows of its own secrets is hidden by their names, in whatever it writes them; codes, messages and all else stay.
func TestSecretsByName(t *testing.T) {
	var c cleaner
	for in, want := range map[string]string{
		`{"access_token":"ya29.a0","refresh_token": "1//0g","client_secret":"GOCSPX-x","password":"Tr0ub4dor&3","apiKey":"AIza","expires_in":3600}`: `{"access_token":"(secret)","refresh_token": "(secret)","client_secret":"(secret)","password":"(secret)","apiKey":"(secret)","expires_in":3600}`,
		`{"password":"two words","user":{"passwd":"a\"b","id":7}}`:                                                                                  `{"password":"(secret)","user":{"passwd":"(secret)","id":7}}`,
		`{\"password\":\"hunter2\",\"n\":1}`:                                                                                                        `{\"password\":\"(secret)\",\"n\":1}`,
		`&quot;password&quot;:&quot;hunter2&quot;, ok`:                                                                                              `&quot;password&quot;:&quot;(secret)&quot;, ok`,
		`{'api_key': 'swordfish'}`:                                                                                                                  `{'api_key': '(secret)'}`,
		`map[Password:hunter2 Name:bob]`:                                                                                                            `map[Password:(secret) Name:bob]`,
		`"tokens_and":["a"],"token":["s3cr3t","t0ken"],"password":["This field is required."]`:                                                      `"tokens_and":["a"],"token":["(secret)","(secret)"],"password":["This field is required."]`,
		`access_token=ya29&password=swordfish&grant_type=password&token_type=bearer`:                                                                `access_token=(secret)&password=(secret)&grant_type=password&token_type=bearer`,
		`<password>hunter2</password><wsse:Password Type="x">pw 1</wsse:Password><Token-0>FwoG</Token-0><Code>ExpiredToken</Code>`:                  `<password>(secret)</password><wsse:Password Type="x">(secret)</wsse:Password><Token-0>(secret)</Token-0><Code>ExpiredToken</Code>`,
		"see https://bob:hunter2@host/x, http://ghp1@host/ and http://host:80/a@b":                                                                  "see https://bob:(secret)@host/x, http://(secret)@host/ and http://host:80/a@b",
		"dsn bob:hunter2@tcp(db:3306)/x, bob:p@ss@host.example":                                                                                     "dsn bob:(secret)@tcp(db:3306)/x, bob:(secret)@host.example",
		"curl -u admin:Tr0ub4dor -X GET --user 'a:b c' --token t0k --token-file x":                                                                  "curl -u admin:(secret) -X GET --user 'a:(secret)' --token (secret) --token-file x",
		"Server: x token=ya29":                                     "Server: x token=(secret)",
		"Authorization: Bearer abc123def Host: x":                  "Authorization: Bearer (secret) Host: x",
		`"Authorization":"Basic dXNlcjpwYXNz"`:                     `"Authorization":"Basic (secret)"`,
		"Cookie: sid=abc; theme=dark":                              "Cookie: sid=(secret); theme=(secret)",
		"Set-Cookie: sid=abc; Path=/":                              "Set-Cookie: sid=(secret); Path=(secret)",
		"X-Api-Key: k1llme, JSESSIONID=0A1B; key=AIzaSy0123456789": "X-Api-Key: (secret), JSESSIONID=(secret); key=(secret)",
		"password: swordfish":                                      "password: (secret)",
		"got eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln there":       "got (secret) there",
		`"password":"cut sho`:                                      `"password":"(secret)`,
	} {
		require.Equal(t, want, c.redact(in))
		require.Equal(t, want, c.redact(want), "what is hidden is not hidden again")
	}
	for _, readable := range []string{
		`{"token_type":"bearer","token":{"error":"expired","exp":1},"token_endpoint":"https://a/token"}`,
		`{"token":"token_expired","password":"must not be blank","secret":null,"jwt":false,"code":"invalid_token"}`,
		`{"error":"invalid_token","error_description":"Invalid token: signature has expired"}`,
		`{"token":"Token expired at 10:00","apiKey":"API key not valid"}`,
		"Invalid token: signature", "Missing token: Authorization header", "Authorization: required", "Could not verify JWT: JWTExpired",
		"Invalid key=value pair (missing equal-sign) in Authorization header", "the token: it is not valid", "scope=read:token audience=x",
		`Bearer error="invalid_token", authorization_uri="https://login.example.com"`, `PrivateToken challenge="abc", token-key="def123456"`,
		`Digest nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"`,
		`{"key":"value","session":"closed","auth":"none"}`, "<token>expired token</token> <tokens>a</tokens>", "https://host:8443/token",
		"curl -u admin -p", "pull cave/lamp:v1.2@sha256:abc", "mailto:bob@example.com, by: bob@example.com, at 12:30 @home, a:@b", "password=(secret)", "token: ****", "compass=12345", `claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ"`,
	} {
		require.Equal(t, readable, c.redact(readable))
	}
}

// No secret that the server shows of its own gets into text, JSON or a page, wherever it shows it.
func TestServersOwnSecrets(t *testing.T) {
	const own = "Tr0ub4dor-and-3"
	for _, response := range []http.HandlerFunc{
		says(401, "Content-Type: application/json\n\n"+`{"error":"config","password":"`+own+`"}`),
		says(403, "Content-Type: text/html\n\n<p>DB <password>"+own+"</password> postgres://db:"+own+"@host/</p>"),
		says(401, "Server: x token="+own+"\nX-Request-Id: password="+own+"\nWWW-Authenticate: Bearer token=\""+own+"\", error_description=\"password="+own+"\""),
		says(401, "X-CSRF-Token: "+own+"\nWWW-Authenticate: Basic realm=\"https://u:"+own+"@h/\", =x"),
		says(200, "Content-Type: application/json\n\n"+`{"errors":[{"message":"unauthorized, token: `+own+`"}]}`),
		says(200, "Grpc-Status: 16\nGrpc-Message: token="+own),
	} {
		w := newWorld(t, map[string]http.Handler{"api.example.com": response})
		page := filepath.Join(t.TempDir(), "page.html")
		for _, args := range [][]string{nil, {"-token-env", "TOKEN"}, {"-json"}, {"-u", "Aladdin", "-password-env", "PASSWORD", "-html", page}} {
			out, status := w.run(append(args, "https://api.example.com/"), "", true)
			require.Equal(t, exitRefused, status, out)
			if args != nil && args[len(args)-1] == page {
				text, err := os.ReadFile(page)
				require.NoError(t, err)
				out += string(text)
			}
			require.NotContains(t, strings.ReplaceAll(out, "\n", ""), own)
			require.Contains(t, out, hidden)
		}
	}
	out, _ := newWorld(t, nil).run(nil, "HTTP/1.1 401 Unauthorized\nWWW-Authenticate: Bearer token=\""+own+"\"\n\nno", true)
	require.NotContains(t, out, own)
}

// A header of megabytes is looked at no further than a person would read, and so are its secrets.
func TestLongHeader(t *testing.T) {
	long := strings.Repeat("a", 4<<20)
	for name, response := range map[string]http.HandlerFunc{
		"one value":      says(401, `WWW-Authenticate: Basic realm="`+long+`"`),
		"one scheme":     says(401, `WWW-Authenticate: `+long),
		"words":          says(401, `WWW-Authenticate: Basic `+strings.Repeat("aaaaaaa ", 1<<18)),
		"many values":    says(401, strings.Repeat("Via: "+long[:100]+"\n", 20_000)),
		"many cookies":   says(401, strings.Repeat("Set-Cookie: a="+long[:20]+"\n", 50_000)),
		"a query":        says(302, "Location: /?"+strings.Repeat("a=bbbbbbbb&", 300_000)),
		"damage":         says(401, `WWW-Authenticate: Basic "`+long),
		"names, unended": says(401, "WWW-Authenticate: Basic x="+strings.Repeat("password=[", 200_000)),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, map[string]http.Handler{"api.example.com": response})
			began := time.Now()
			out, _ := w.run([]string{"-json", "-u", "Aladdin", "-password-env", "PASSWORD", "-ahead", "https://api.example.com/"}, "", true)
			require.Less(t, time.Since(began), 10*time.Second)
			require.Less(t, len(out), 50_000)
			if name == "one value" {
				var r report
				require.NoError(t, json.Unmarshal([]byte(out), &r))
				require.Equal(t, "long-header", r.Notes[0].Name)
			}
		})
	}
	var c cleaner
	c.hide(token)
	require.NotContains(t, c.text(strings.Repeat(token+" ", 10_000), 100_000), token[:5], "a secret that goes on beyond the bound is not begun")
}

func FuzzNamed(f *testing.F) {
	for _, s := range []string{`{"password":"x"}`, "token=[\"a\",", "<token>", "://a:b@", "Cookie: a=b;", "-u a:b", "eyJ.a.b", `\"pwd\":\"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		end := 0
		for _, v := range named(s) {
			require.True(t, end <= v.from && v.from < v.to && v.to <= len(s))
			end = v.to
		}
	})
}
