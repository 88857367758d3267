package main

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

// TestEchoes lets a server say in all ways what it was sent, whole and in parts.
func TestEchoes(t *testing.T) {
	const secret = "open+sesame/4711&<ä>"
	wrapped := func(s string) string { return s[:9] + "\r\n  " + s[9:] }
	percent := func(s string) string {
		return "%" + strings.ReplaceAll(fmt.Sprintf("% x", s), " ", "%")
	}
	std, raw := base64.StdEncoding.EncodeToString, base64.RawURLEncoding.EncodeToString
	for how, echo := range map[string]func(s string) string{
		"as it is":              func(s string) string { return s },
		"in upper case":         strings.ToUpper,
		"escaped for a query":   url.QueryEscape,
		"escaped for a path":    url.PathEscape,
		"escaped throughout":    percent,
		"in a JSON string":      func(s string) string { return strings.Trim(fmt.Sprintf("%+q", s), `"`) },
		"in HTML":               html.EscapeString,
		"in base64":             func(s string) string { return std([]byte(s)) },
		"in base64 for URLs":    func(s string) string { return raw([]byte(s)) },
		"in base64, with more":  func(s string) string { return std([]byte("X-Secret: " + s + "\r\n")) },
		"in hex":                func(s string) string { return hex.EncodeToString([]byte(s)) },
		"in hex, with more":     func(s string) string { return "expired+no-" + hex.EncodeToString([]byte(s)) + "f" },
		"in base64, after more": func(s string) string { return "a-b_c/d+" + std([]byte(s)) },
		"in base64, cut short":  func(s string) string { return std([]byte(s))[:16] },
		"in hex, cut short":     func(s string) string { return hex.EncodeToString([]byte(s))[:20] },
		"over two lines":        wrapped,
		"cut short":             func(s string) string { return s[:12] + "…" },
		"without its beginning": func(s string) string { return s[4:] },
	} {
		for what, c := range map[string]struct {
			header string   // as -H has it
			parts  []string // of which each is a secret
		}{
			"a key":             {"X-API-Key: " + secret, []string{secret}},
			"a key with its id": {"X-API-Key: client-77:" + secret, []string{"client-77:" + secret, secret}},
			"a token":           {"Authorization: Bearer " + secret, []string{"Bearer " + secret, secret}},
			"Basic":             {"Authorization: Basic " + std([]byte("Ali:"+secret)), []string{secret, std([]byte("Ali:" + secret))}},
			"a cookie":          {"Cookie: theme=dark; sid=" + secret + "; x=y", []string{"sid=" + secret, secret}},
			"parameters":        {`Authorization: Own id="7", proof="` + secret + `"`, []string{secret}},
		} {
			if len(what+how)%thorough.Or(1, 5) > 0 {
				continue
			}
			t.Run(what+" "+how, func(t *testing.T) {
				for _, part := range c.parts {
					said := echo(part)
					w := newWorld(t, map[string]http.Handler{"api.example.com": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						w.Header().Set("WWW-Authenticate", "Bearer error_description="+fmt.Sprintf("%q", strings.Join(strings.Fields(said), " ")))
						w.Header().Set("X-Request-Id", strings.Join(strings.Fields(said), " "))
						w.Header().Set("Content-Type", "text/plain")
						w.WriteHeader(http.StatusUnauthorized)
						io.WriteString(w, "You sent "+said+" to us.")
					})})
					for _, args := range [][]string{{}, {"-json"}} {
						out, _ := w.run(append(args, "-H", c.header, "https://api.example.com/"), "", true)
						require.Contains(t, out, hidden)
						one := strings.Join(strings.Fields(out), " ")
						require.NotContains(t, one, strings.Join(strings.Fields(said), " "))
						require.NotContains(t, strings.ToLower(one), strings.ToLower(secret[4:12]))
						require.Contains(t, one, "You sent "+hidden, "and no more than that is hidden")
					}
				}
			})
		}
	}
}

// TestOwnSentencesStay asks with passwords that are words of our own sentences: the report is that of any other password.
func TestOwnSentencesStay(t *testing.T) {
	servers := map[string]func() http.Handler{
		"Basic":        func() http.Handler { return says(401, `WWW-Authenticate: Basic realm="cave"`) },
		"Digest":       func() http.Handler { return says(401, `WWW-Authenticate: Digest realm="cave", nonce="5ccc"`) },
		"no challenge": func() http.Handler { return says(401, "") },
		"403":          func() http.Handler { return says(403, "") },
		"redirect":     func() http.Handler { return says(302, "Location: https://unknown.test/") },
		"broken": func() http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conn, _, _ := w.(http.Hijacker).Hijack()
				io.WriteString(conn, "garbage\r\n")
				conn.Close()
			})
		},
		"graphql": func() http.Handler {
			return says(200, "Content-Type: application/json\n\n"+`{"errors":[{"message":"no","extensions":{"code":"FORBIDDEN"}}]}`)
		},
		"grpc":       func() http.Handler { return says(200, "Content-Type: application/grpc\nGrpc-Status: 16") },
		"login page": func() http.Handler { return says(200, "Content-Type: text/html\n\n<input type=password>") },
		"invalid token": func() http.Handler {
			return says(400, "Content-Type: application/json\n\n"+`{"error":"invalid_token"}`)
		},
		"not found":  func() http.Handler { return says(404, "") },
		"cookie":     func() http.Handler { return checksCookie(401) },
		"cloudflare": func() http.Handler { return says(403, "Cf-Mitigated: challenge") },
		"scope": func() http.Handler {
			return says(401, `WWW-Authenticate: Bearer error="insufficient_scope", scope="x"`)
		},
	}
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, map[string]http.Handler{"api.example.com": server()})
			report := func(password string) string {
				w.env = map[string]string{"P": password}
				out, _ := w.run([]string{"-u", "Aladdin", "-password-env", "P", "-X", "GET", "https://api.example.com/reports"}, "", true)
				return varying.ReplaceAllString(out, "${1}…")
			}
			want := report("qqqq-zzzz-qqqq")
			words := []string{"wrong", "password", "user", "Aladdin", "GET", "api", "example", "https", "reports", "server", "refused",
				"credentials", "Unauthorized", "authretry", "Basic", "realm", "nonce", "the", "lookup", "such", "malformed", "response", "HTTP", "Transport",
				"certain", "likely", "token", "login", "page", "status", "cookies", "GraphQL", "gRPC", "Cloudflare", "browser", "Found", "OK"}
			for i, word := range words {
				if i%thorough.Or(1, 10) > 0 {
					continue
				}
				require.Equal(t, want, report(word), "password %q", word)
			}
		})
	}
}

// TestSecretsOfTheExchange hides what the exchange itself has shown: cookies, proofs, queries and userinfo of redirects.
func TestSecretsOfTheExchange(t *testing.T) {
	var seen []string
	w := newWorld(t, map[string]http.Handler{"api.example.com": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			http.SetCookie(w, &http.Cookie{Name: "sid", Value: cookie})
			w.Header().Set("Location", "https://Ali:sent-in-the-clear@api.example.com/next?code=query-secret-77")
			w.WriteHeader(http.StatusFound)
			return
		}
		w.Header().Set("WWW-Authenticate", `Digest realm="cave", nonce="5ccc", qop="auth"`)
		w.WriteHeader(http.StatusUnauthorized)
		seen = append(seen, r.Header.Get("Authorization"))
		_, code, _ := strings.Cut(r.Header.Get("Authorization"), `response="`)
		fmt.Fprintf(w, "cookie %s, query %s, userinfo %s, proof %.32s.", cookie, r.URL.Query().Get("code"), "sent-in-the-clear", code)
	})})
	out, _ := w.run([]string{"-u", "Aladdin", "-password-env", "PASSWORD", "https://api.example.com/"}, "", true)
	require.Contains(t, strings.Join(strings.Fields(out), " "), "cookie (secret), query (secret), userinfo (secret)", out)
	for _, secret := range []string{cookie, "query-secret", "sent-in-the-clear"} {
		require.NotContains(t, out, secret)
	}

	w = newWorld(t, map[string]http.Handler{"api.example.com": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Digest realm="cave", nonce="5ccc", qop="auth"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, proof, _ := strings.Cut(r.Header.Get("Authorization"), `response="`)
		fmt.Fprintf(w, "proof %.32s.", proof)
		seen = append(seen, proof)
	})})
	out, _ = w.run([]string{"-u", "Aladdin", "-password-env", "PASSWORD", "https://api.example.com/"}, "", true)
	require.Contains(t, out, "proof (secret).")
	require.NotContains(t, out, seen[len(seen)-1][:32])
}

// TestErrorsAreCleaned cleans what an error quotes, and leaves its own words.
func TestErrorsAreCleaned(t *testing.T) {
	in := &inquiry{}
	in.clean.asked = url.URL{Host: "api.example.com"}
	in.clean.hide(token, "malformed", "lookup", "tls")
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New(`net/http: HTTP/1.x transport connection broken: malformed MIME header line: Authorization ` + token),
			`net/http: HTTP/1.x transport connection broken: malformed MIME header line: Authorization (secret)`},
		{errors.New(`malformed HTTP response "tls: ` + token + `"`), `malformed HTTP response "(secret): (secret)"`},
		{&url.Error{Op: "Get", URL: "https://x/?" + token, Err: errors.New("unexpected EOF")}, "unexpected EOF"},
		{&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: token + ".example.org", IsNotFound: true}},
			"dial tcp: lookup (secret).example.org: no such host"},
		{errors.New("something else " + token), "something else (secret)"},
	} {
		require.Equal(t, c.want, in.errorText(c.err, 500))
	}
}

// TestForeignTextInSentences has servers repeat a token wherever what they say becomes part of a sentence.
func TestForeignTextInSentences(t *testing.T) {
	const said = "T0K"
	for i, response := range []http.HandlerFunc{
		says(401, `WWW-Authenticate: Bearer realm="T0K", error="T0K", error_description="because of T0K.", error_uri="https://x/T0K", scope="T0K"`),
		says(401, `WWW-Authenticate: Bearer error="insufficient_scope", scope="a T0K"`),
		says(401, `WWW-Authenticate: Bearer realm="https://x/T0K", service="T0K", scope="repository:T0K:pull"`),
		says(401, `WWW-Authenticate: T0K x="T0K", T0K="y"`),
		says(401, "WWW-Authenticate: Basic realm=\"T0K\", =T0K, T0K"),
		says(400, "Content-Type: application/json\n\n"+`{"error":"invalid_token","error_description":"T0K"}`),
		says(200, "Content-Type: application/json\n\n"+`{"errors":[{"message":"unauthorized T0K","extensions":{"code":"T0K"}}]}`),
		says(200, "Content-Type: application/json\n\n"+`{"errors":[{"message":"T0K","type":"FORBIDDEN"}]}`),
		says(200, "Content-Type: application/grpc\nGrpc-Status: 16\nGrpc-Message: T0K is expired"),
		says(200, "Content-Type: text/html\n\nT0K<input type=password>"),
		says(403, "Server: T0K\nX-Amzn-Errortype: AccessDeniedException T0K\nCf-Ray: T0K\nX-Csrf-Token: T0K\n\npermission for T0K"),
		says(403, "Retry-After: T0K\nX-Request-Id: T0K\nVia: T0K\n\nT0K"),
		says(302, "Location: https://other.test/T0K?T0K"),
		says(302, "Location: https://api.example.com:T0K/"),
	} {
		for _, secret := range []string{token, newJWT(`{"iss":"x"}`)} {
			w := newWorld(t, map[string]http.Handler{"api.example.com": repeating(response, said, secret)})
			w.env = map[string]string{"SECRET": secret}
			page := filepath.Join(t.TempDir(), "page.html")
			for j, args := range [][]string{{"-token-env", "SECRET"}, {"-H", "Authorization: Bearer " + secret}, {"-H", "X-Api-Key: " + secret}, {"-json", "-token-env", "SECRET"}, {"-html", page, "-token-env", "SECRET"}} {
				if (i+j)%thorough.Or(1, 3) > 0 {
					continue
				}
				out, _ := w.run(append(args, "https://api.example.com/"), "", true)
				if args[0] == "-html" {
					text, err := os.ReadFile(page)
					require.NoError(t, err)
					out += string(text)
				}
				one := strings.Join(strings.Fields(out), "")
				require.NotContains(t, one, secret, "response %d", i)
				require.NotContains(t, one, secret[:12], "response %d", i)
			}
		}
	}
}

// repeating has what next says with a secret in the place of a word.
func repeating(next http.HandlerFunc, word, secret string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorded := httptest.NewRecorder()
		next(recorded, r)
		for name, values := range recorded.Header() {
			for _, value := range values {
				w.Header().Add(name, strings.ReplaceAll(value, word, secret))
			}
		}
		w.WriteHeader(recorded.Code)
		io.WriteString(w, strings.ReplaceAll(recorded.Body.String(), word, secret))
	})
}

// What a server says of a signature is legible, but for what is secret in it.
func TestWordsOfSignature(t *testing.T) {
	w := newWorld(t, map[string]http.Handler{"api.example.com": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		says(401, "Content-Type: application/json\n\n"+`{"message":"HMAC signature of date cannot be verified"}`)(w, r)
		io.WriteString(w, r.Header.Get("Authorization"))
	})})
	out, _ := w.run([]string{"-H", `Authorization: hmac username="` + cookie + `", algorithm="hmac-sha256", headers="date", signature="` + apiKey + `"`, "https://api.example.com/"}, "", true)
	require.Contains(t, out, "HMAC signature of date cannot be verified")
	require.Contains(t, out, "with hmac credentials")
	noSecret(t, out)
}
