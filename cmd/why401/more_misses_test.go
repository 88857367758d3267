package main

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMoreMisses asks more servers that refuse in their own way, in their own words.
func TestMoreMisses(t *testing.T) {
	const api = "api.example.com"
	const home = "https://api.example.com/"
	withToken := []string{"-token-env", "UNREVOKED"}
	withPassword := []string{"-u", "Aladdin", "-password-env", "PASSWORD"}
	json := func(status int, body string) func(*testing.T) http.Handler {
		return always(says(status, "Content-Type: application/json\n\n"+body))
	}
	challenge := func(value string) func(*testing.T) http.Handler { return always(says(401, "WWW-Authenticate: "+value)) }

	for _, c := range []struct {
		name   string
		args   []string
		url    string
		server func(t *testing.T) http.Handler
		status int
	}{
		{"secrets-of-server", withToken, home, json(401, `{"error":"invalid_token","access_token":"ya29.a0","client_secret":"GOCSPX-x","token_type":"bearer","url":"https://bob:hunter2@host/"}`), 1},
		{"nothing-came-basic", append(withPassword, "-ahead"), home, always(says(401, "WWW-Authenticate: Basic realm=\"cave\"\nContent-Type: application/json\n\n"+`{"error":"missing credentials"}`)), 1},
		{"grpc-trailers", withToken, home + "cave.Door/Open", always(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
			io.WriteString(w, "\x00\x00\x00\x00\x00")
			w.Header().Set("Grpc-Status", "16")
			w.Header().Set("Grpc-Message", "token%20is%20expired")
		})), 1},
		{"cors-preflight", []string{"-X", "OPTIONS", "-H", "Origin: https://app.example.com", "-H", "Access-Control-Request-Method: POST"}, home, challenge("Bearer"), 1},
		{"salesforce", withToken, home, always(says(500, "Content-Type: text/xml\n\n"+`<soapenv:Envelope><soapenv:Body><soapenv:Fault><faultcode>sf:INVALID_SESSION_ID</faultcode><faultstring>INVALID_SESSION_ID: Invalid Session ID found in SessionHeader: Illegal Session</faultstring></soapenv:Fault></soapenv:Body></soapenv:Envelope>`)), 1},
		{"soap-200", nil, home, always(says(200, "Content-Type: text/xml\n\n"+`<s:Envelope><s:Body><s:Fault><faultcode>wsse:InvalidSecurity</faultcode><faultstring>An error was discovered processing the header</faultstring></s:Fault></s:Body></s:Envelope>`)), 1},
		{"json-rpc", withToken, home, json(200, `{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"Unauthorized: missing or invalid access token"}}`), 1},
		{"esri", nil, home, json(200, `{"error":{"code":499,"message":"Token Required","details":[]}}`), 1},
		{"status-498", withToken, home, json(498, `{"error":{"code":498,"message":"Invalid token.","details":[]}}`), 1},
		{"status-440", nil, home, always(says(440, "")), 1},
		{"cloudflare-api", withToken, home, json(200, `{"success":false,"errors":[{"code":10000,"message":"Authentication error"}],"result":null}`), 1},
		{"success-with-errors", withToken, home, json(200, `{"success":true,"errors":[],"error":null,"result":{"message":"authentication"}}`), 0},
		{"server-error-cut-token", []string{"-token-env", "CUT"}, home, always(failsOnCredentials), 0},
		{"server-error-says", []string{"-token-env", "TOKEN"}, home, always(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				says(500, "Content-Type: text/plain\n\njwt malformed")(w, r)
				return
			}
			says(401, "WWW-Authenticate: Bearer")(w, r)
		})), 0},
		{"realm-of-digest", []string{"-u", "Aladdin", "-password-env", "WRONG"}, home, challenge(`Basic realm="a", Digest realm="b", nonce="5ccc", qop="auth"`), 1},
		{"single-quotes", withToken, home, challenge(`Bearer error='invalid_token', error_description='The token is expired'`), 1},
		{"semicolons", withToken, home, challenge(`Bearer realm="api"; error="invalid_token"; error_description="The token expired"`), 1},
		{"digest-without-nonce", withPassword, home, challenge(`Digest realm="x", qop="auth"`), 1},
		{"digest-without-nonce-none", nil, home, challenge(`Digest realm="x", qop="auth"`), 1},
		{"digest-unknown-qop", withPassword, home, challenge(`Digest realm="x", nonce="5ccc", qop="auth-conf"`), 1},
		{"quota", withToken, home, json(429, `{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","code":"insufficient_quota"}}`), 1},
		{"payment", withToken, home, json(402, `{"error":"subscribe first"}`), 1},
		{"captive-redirect", withToken, home, redirecting("https://captive.example.com/login", always(says(200, "Content-Type: text/html\n\n<title>Hotel WiFi - Sign in</title><form><input type=password></form>"))(t)), 1},
		{"modsecurity", withToken, home, always(says(403, "Server: Apache\nContent-Type: text/html\n\n<h1>Forbidden</h1><p>You don't have permission to access this resource.</p><hr>Mod_Security: Access denied with code 403")), 1},
		{"azure-key", nil, home, always(says(401, `WWW-Authenticate: AzureApiManagementKey realm="https://x.azure-api.net/",name="Ocp-Apim-Subscription-Key",type="header"`+"\nContent-Type: application/json\n\n"+
			`{ "statusCode": 401, "message": "Access denied due to missing subscription key. Make sure to include subscription key when making requests to an API." }`)), 1},
		{"azure-key-token", withToken, home, always(says(401, `WWW-Authenticate: AzureApiManagementKey realm="https://x.azure-api.net/",name="Ocp-Apim-Subscription-Key",type="header"`+"\nContent-Type: application/json\n\n"+
			`{ "statusCode": 401, "message": "Access denied due to missing subscription key." }`)), 1},
		{"kong", nil, home, always(says(401, "WWW-Authenticate: Key realm=\"kong\"\nContent-Type: application/json\n\n"+`{"message":"No API key found in request"}`)), 1},
		{"oauth-client", withToken, home, json(401, `{"error":"invalid_client","error_description":"Client authentication failed"}`), 1},
		{"oauth-grant", nil, home, json(400, `{"error":"invalid_grant","error_description":"Token has been expired or revoked."}`), 1},
		{"invalid-token-of-none", nil, home, challenge(`Bearer error="invalid_token"`), 1},
		{"invalid-token-in-url", nil, home + "?access_token=" + apiKey, challenge(`Bearer error="invalid_token"`), 1},
		{"basic-key-in-url", nil, home + "?api_key=" + apiKey, challenge(`Basic realm="cave"`), 1},
		{"registry-right", withPassword, home + "v2/", always(registryAt(home)), 1},
		{"registry-denied", withPassword, home + "v2/", always(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "Bearer "+token {
				says(403, "Content-Type: application/json\n\n"+`{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`)(w, r)
				return
			}
			registryAt(home).ServeHTTP(w, r)
		})), 1},
		{"registry-wrong", []string{"-u", "Aladdin", "-password-env", "WRONG"}, home + "v2/", always(registryAt(home)), 1},
		{"registry-elsewhere", withPassword, home + "v2/", always(registryAt("https://captive.example.com/")), 1},
		{"ntlm-only", withPassword, home, challenge("NTLM"), 1},
		{"github-permission", withToken, home, always(says(403, "X-Accepted-GitHub-Permissions: contents=write\nContent-Type: application/json\n\n"+`{"message":"Resource not accessible by personal access token","status":"403"}`)), 1},
		{"google-no-key", nil, home, json(403, `{"error":{"code":403,"message":"The request is missing a valid API key.","status":"PERMISSION_DENIED"}}`), 1},
		{"unavailable-with-form", withToken, home, always(says(503, "Content-Type: text/html\n\n<h1>Maintenance</h1><input type=password>")), 0},
		{"upgrade", withToken, home, always(says(426, "Upgrade: websocket")), 0},
		{"misdirected", withToken, home, always(says(421, "")), 0},
		{"redirected-post", []string{"-X", "POST", "-token-env", "TOKEN"}, home, redirecting("https://api.example.com/form/", always(says(405, "Allow: POST"))(t)), 0},
		{"misspelt-scheme", withToken, home, challenge(`Baisc realm="cave"`), 1},
		{"misspelt-scheme-none", nil, home, challenge(`Bearers realm="cave"`), 1},
		{"challenge-without-scheme", nil, home, challenge(`realm="cave", charset="UTF-8"`), 1},
		{"challenge-empty", nil, home, always(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Www-Authenticate"] = []string{""}
			w.WriteHeader(http.StatusUnauthorized)
		})), 1},
		{"cloudflare-access-login", withToken, home, redirecting("https://captive.example.com/cdn-cgi/access/login/app.example.com?kid=abc", loginPage), 1},
		{"cloudflare-access-refused", []string{"-H", "CF-Access-Client-Id: x.access", "-H", "CF-Access-Client-Secret: " + apiKey}, home, redirecting("https://captive.example.com/cdn-cgi/access/login/app.example.com?kid=abc", loginPage), 1},
		{"post-with-token", append([]string{"-X", "POST"}, withToken...), home, challenge("Bearer"), 1},
		{"s3-anonymous", nil, home, always(says(403, "Content-Type: application/xml\n\n<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>")), 1},
		{"s3-token", withToken, home, always(says(403, "Content-Type: application/xml\n\n<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>")), 1},
		{"token-semicolon", []string{"-token-env", "SEMICOLON"}, home, challenge("Bearer"), 1},
		{"digest-uri", withPassword, home, always(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				says(400, "Content-Type: text/plain\n\nBad Request: uri mismatch - </x> does not match request-uri </internal/x>")(w, r)
				return
			}
			says(401, `WWW-Authenticate: Digest realm="cave", nonce="5ccc", qop="auth"`)(w, r)
		})), 1},
		{"event-error", withToken, home, always(says(200, "Content-Type: text/event-stream\n\nevent: error\ndata: {\"message\":\"token expired\"}\n\n")), 1},
		{"password-not-utf8", []string{"-u", "Aladdin", "-password-env", "LATIN1"}, home, challenge(`Basic realm="cave", charset="UTF-8"`), 1},
		{"latin1-with-metadata", []string{"-u", "Aladdin", "-password-env", "LATIN"}, home, always(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer resource_metadata="https://api.example.com/.well-known/oauth-protected-resource"`)
			basicInLatin1(latin).ServeHTTP(w, r)
		})), 1},
		{"user-agent", withToken, home, always(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.UserAgent(), "Go-") {
				says(403, "Content-Type: text/html\n\n<h1>Forbidden</h1>")(w, r)
			}
		})), 1},
		{"broken-on-credentials", withPassword, home, always(breaksOnCredentials), 3},
		{"broken-on-token", withToken, home, always(breaksOnCredentials), 3},
		{"broken", nil, home, always(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })), 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := c.server(t)
			w := newWorld(t, map[string]http.Handler{api: server, "captive.example.com": server})
			w.env = map[string]string{"CUT": fresh[:len(fresh)-44], "SEMICOLON": token + ";", "LATIN": latin, "LATIN1": inLatin1(latin)}
			w.golden(c.name, append(c.args, c.url), c.status, true)
		})
	}
}

// registryAt is a container registry whose tokens are given out at the origin, by itself or another server.
func registryAt(origin string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, given, sent := r.BasicAuth()
		switch {
		case r.URL.Path == "/v2/" && r.Header.Get("Authorization") == "Bearer "+token:
			io.WriteString(w, "{}")
		case r.URL.Path == "/v2/":
			says(401, `WWW-Authenticate: Bearer realm="`+origin+`token",service="registry",scope="repository:cave/lamp:pull"`)(w, r)
		case r.URL.Path != "/token" || r.URL.Query().Get("service") != "registry":
			w.WriteHeader(http.StatusNotFound)
		case origin != "https://api.example.com/" && sent:
			panic("credentials go to no other origin")
		case given != password:
			says(401, `WWW-Authenticate: Basic realm="registry"`)(w, r)
		default:
			io.WriteString(w, `{"token":"`+token+`"}`)
		}
	})
}

// breaksOnCredentials breaks the connection on whatever credentials it is sent.
var breaksOnCredentials = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "" {
		panic(http.ErrAbortHandler)
	}
	says(401, `WWW-Authenticate: Basic realm="cave"`)(w, r)
})

// TestOtherProtocols asks what does not speak HTTP/1.1, or TLS that is not of today.
func TestOtherProtocols(t *testing.T) {
	clear := httptest.NewUnstartedServer(says(401, "Date: Sat, 21 Nov 2026 12:00:00 GMT\nWWW-Authenticate: Bearer"))
	clear.Config.Protocols = new(http.Protocols)
	clear.Config.Protocols.SetUnencryptedHTTP2(true)
	clear.Start()
	defer clear.Close()
	old := httptest.NewUnstartedServer(says(200, ""))
	old.Config.ErrorLog = log.New(io.Discard, "", 0)
	old.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	old.StartTLS()
	defer old.Close()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer other.Close()
	go func() {
		for {
			conn, err := other.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "SSH-2.0-OpenSSH_9.6\r\n")
			conn.Close()
		}
	}()
	for name, c := range map[string]struct{ address, url, cause string }{
		"HTTP/2 without TLS": {clear.Listener.Addr().String(), "http://api.example.com/", "The server speaks HTTP/2 without TLS, and nothing else."},
		"TLS 1.1":            {old.Listener.Addr().String(), "https://api.example.com/", "The server has only versions of TLS that are too old: not 1.2 or 1.3."},
		"SSH":                {other.Addr().String(), "https://api.example.com/", "What answers on this port does not speak TLS."},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.at = map[string]string{"api.example.com": c.address}
			out, status := w.run([]string{c.url}, "", true)
			require.Equal(t, exitFailed, status, out)
			require.Contains(t, out, "Cause: "+c.cause+"\n")
		})
	}
}

// TestManyChallenges shows the first of them, with the code for each scheme once, and says how many more there are.
func TestManyChallenges(t *testing.T) {
	w := newWorld(t, map[string]http.Handler{"api.example.com": says(401, strings.Repeat("WWW-Authenticate: Basic realm=\"cave\"\n", 100))})
	out, _ := w.run([]string{"https://api.example.com/"}, "", true)
	require.Contains(t, out, "  Not shown: 88 more of them.\n")
	require.Equal(t, 1, strings.Count(out, "authretry.Basic{"))
	out, _ = w.run([]string{"-json", "https://api.example.com/"}, "", true)
	require.Contains(t, out, `"moreChallenges": 88,`)
}
