package main

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/authretry/authretry/authtest"
	"github.com/stretchr/testify/require"
)

// latin is a password that is other bytes in ISO 8859-1 than in UTF-8.
const latin = "sésame-ouvre-toi"

// TestMisses asks servers that refuse in another way than by a 401 with a challenge, and gateways that get in the way. Each
// behaves, and words it, as the one that it is named after.
func TestMisses(t *testing.T) {
	const api = "api.example.com"
	const home = "https://api.example.com/"
	withToken := []string{"-token-env", "TOKEN"}
	withKey := []string{"-H", "X-Api-Key: " + apiKey}
	asMusa := []string{"-u", "Músa", "-password-env", "PASSWORD"}
	basic := &authtest.Basic{Username: "Aladdin", Password: password, Realm: "cave"}
	digest := &authtest.Digest{Username: "Músa", Password: password, Realm: "cave", Opaque: "5ccc"}

	for _, c := range []struct {
		name   string
		args   []string
		url    string
		server func(t *testing.T) http.Handler
		status int
	}{
		{"login-page", nil, home, always(loginPage), 1},
		{"login-page-with-token", withToken, home, always(behindSignIn()), 1},
		{"cookie", nil, home, always(checksCookie(http.StatusUnauthorized)), 0},
		{"cookie-loop", nil, home, always(checksCookie(http.StatusFound)), 0},
		{"gateway-strips", withToken, home, stripping, 1},
		{"http-to-https", nil, "http://api.example.com:443/", always(says(200, "")), 1},
		{"nginx-http-to-https", nil, "http://api.example.com/", always(nginx(400, "400 The plain HTTP request was sent to HTTPS port", "The plain HTTP request was sent to HTTPS port")), 1},
		{"nginx-client-certificate", nil, home, always(nginx(400, "400 No required SSL certificate was sent", "No required SSL certificate was sent")), 1},
		{"invalid-token-400", withToken, home, always(says(400, "Content-Type: application/json\n\n"+`{"error":"invalid_token","error_description":"Invalid Credentials"}`)), 1},
		{"invalid-token-400-expired", []string{"-token-env", "EXPIRED"}, home, always(says(400, `WWW-Authenticate: Bearer error="invalid_token"`)), 1},
		{"hidden-login", []string{"-u", "Aladdin", "-password-env", "PASSWORD"}, home, always(says(404, "Content-Type: application/json\n\n"+`{"message":"Not Found"}`)), 0},
		{"graphql", nil, home + "graphql", always(graphQL("UNAUTHENTICATED", "You must be logged in.")), 1},
		{"graphql-token", withToken, home + "graphql", always(graphQL("invalid-jwt", "Could not verify JWT: JWTExpired")), 1},
		{"graphql-other-error", withToken, home + "graphql", always(graphQL("BAD_USER_INPUT", "No such field.")), 0},
		{"grpc", withToken, home + "cave.Door/Open", always(grpcStatus("16", "token is expired")), 1},
		{"grpc-permission", withToken, home + "cave.Door/Open", always(grpcStatus("7", "not for you")), 1},
		{"latin1", []string{"-u", "Aladdin", "-password-env", "LATIN"}, home, always(basicInLatin1(latin)), 1},
		{"latin1-wrong", []string{"-u", "Aladdin", "-password-env", "LATIN"}, home, always(basicInLatin1("another")), 1},
		{"tomcat-name", asMusa, home, func(t *testing.T) http.Handler { return readsLatin1(guarded(t, digest)) }, 1},
		{"cherrypy-name", asMusa, home, func(t *testing.T) http.Handler { return badRequestForNames(guarded(t, digest)) }, 1},
		{"cloudflare-challenge", withToken, home, always(says(403, "Server: cloudflare\nCf-Mitigated: challenge\nContent-Type: text/html\n\n<title>Just a moment...</title>")), 1},
		{"cloudflare-1020", withToken, home, always(says(403, "Server: cloudflare\nCF-Ray: 8f0c-FRA\nContent-Type: text/plain\n\nerror code: 1020")), 1},
		{"cloudflare-origin", withToken, home, always(says(403, "Server: cloudflare\nContent-Type: application/json\n\n"+`{"message":"no"}`)), 1},
		{"csrf-django", []string{"-H", "Cookie: sessionid=" + cookie}, home, always(says(403, "Content-Type: text/html\n\n<h1>Forbidden <span>(403)</span></h1>\n<p>CSRF verification failed. Request aborted.</p>")), 1},
		{"csrf-laravel", nil, home, always(says(419, "Content-Type: application/json\n\n"+`{"message":"CSRF token mismatch."}`)), 1},
		{"csrf-sap", withToken, home, always(says(403, "X-CSRF-Token: Required\nContent-Type: text/plain\n\nCSRF token validation failed")), 1},
		{"aws-route", withKey, home, always(says(403, "X-Amzn-Errortype: MissingAuthenticationTokenException\nContent-Type: application/json\n\n"+`{"message":"Missing Authentication Token"}`)), 1},
		{"aws-bearer", withToken, home, always(says(403, "X-Amzn-Errortype: IncompleteSignatureException\nContent-Type: application/json\n\n"+
			`{"message":"Invalid key=value pair (missing equal-sign) in Authorization header (hashed with SHA-256 and encoded with Base64): 'x'. not a valid key=value pair"}`)), 1},
		{"aws-api-key", withKey, home, always(says(403, "X-Amzn-Errortype: ForbiddenException\nContent-Type: application/json\n\n"+`{"message":"Forbidden"}`)), 1},
		{"aws-s3", nil, home, always(says(403, "Content-Type: application/xml\n\n"+`<?xml version="1.0"?><Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we calculated does not match the signature you provided.</Message></Error>`)), 1},
		{"forbidden-key", withKey, home, always(says(403, "Content-Type: application/json\n\n"+`{"error":"forbidden"}`)), 1},
		{"token-space", []string{"-token-env", "SPACE"}, home, always(says(401, "WWW-Authenticate: Bearer")), 3},
		{"token-bom", []string{"-token-env", "BOM"}, home, always(says(200, "")), 0},
		{"token-not-ascii", []string{"-token-env", "LATIN"}, home, always(says(401, "WWW-Authenticate: Bearer")), 3},
		{"token-control", []string{"-token-env", "CONTROL"}, home, always(says(401, "WWW-Authenticate: Bearer")), 3},
		{"token-scheme", []string{"-token-env", "SCHEME"}, home, always(says(401, "WWW-Authenticate: Bearer")), 3},
		{"token-for-token", withToken, home, always(says(401, "WWW-Authenticate: Token")), 1},
		{"forbidden-not-sent", []string{"-u", "Aladdin", "-password-env", "PASSWORD"}, home, always(says(403, "X-You-Are-Authenticated-As: anonymous\nContent-Type: text/html\n\n<p>Authentication required</p>")), 1},
		{"redirect-to-http", withToken, home, redirecting("http://api.example.com/elsewhere", says(404, "")), 0},
		{"redirect-to-saml", withToken, home, redirecting("https://sso.example.com/adfs/ls/?SAMLRequest=abc", loginPage), 1},
		{"jira-captcha", []string{"-u", "Aladdin", "-password-env", "PASSWORD", "-ahead"}, home, always(says(401, "X-Authentication-Denied-Reason: CAPTCHA_CHALLENGE; login-url=https://api.example.com/login.jsp\nWWW-Authenticate: OAuth realm=\"x\"")), 1},
		{"key-of-another-kind", withToken, home, always(says(401, "WWW-Authenticate: Basic realm=\"x\"\nContent-Type: application/json\n\n"+`{"error":{"message":"Invalid API Key provided: tok-****"}}`)), 1},
		{"registry-password", []string{"-u", "Aladdin", "-password-env", "PASSWORD"}, home + "v2/", always(says(401, `WWW-Authenticate: Bearer realm="https://api.example.com/token",service="registry",scope="repository:cave/lamp:pull"`)), 1},
		{"aws-signed", []string{"-H", "Authorization: AWS4-HMAC-SHA256 Credential=" + apiKey + "/20261121/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + token}, home,
			always(says(403, "Content-Type: application/xml\n\n"+`<?xml version="1.0"?><Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we calculated does not match the signature you provided.</Message><Region>us-east-1</Region><AWSAccessKeyId>`+apiKey+`</AWSAccessKeyId></Error>`)), 1},
		{"account-locked", []string{"-u", "Aladdin", "-password-env", "PASSWORD"}, home, always(says(401, "WWW-Authenticate: Basic realm=\"cave\"\nContent-Type: application/json\n\n"+`{"error":"Account Aladdin is locked after 5 failed login attempts"}`)), 1},
		{"message", withToken, home, always(says(403, "Content-Type: application/problem+json\n\n"+`{"title":"Forbidden","detail":"The header X-Tenant-Id is required for this door."}`)), 1},
		{"kubernetes", withToken, home, always(says(403, "Content-Type: application/json\n\n"+`{"kind":"Status","message":"pods is forbidden: User \"system:serviceaccount:ci:deploy\" cannot list resource \"pods\" in API group \"\" in the namespace \"prod\"","code":403}`)), 1},
		{"github-scope", withToken, home, always(says(404, "X-Accepted-Oauth-Scopes: repo\nX-Oauth-Scopes: read:org, gist\nContent-Type: application/json\n\n"+`{"message":"Not Found"}`)), 0},
		{"api-error", withToken, home, always(says(200, "Content-Type: application/json\n\n"+`{"ok":false,"error":"missing_scope","needed":"chat:write"}`)), 1},
		{"captive-portal", withToken, home, always(says(511, "Content-Type: text/html\n\n<a href=\"http://portal.example.com/\">Log in</a>")), 1},
		{"password-control", []string{"-u", "Aladdin", "-password-env", "CONTROL"}, home, always(says(401, "WWW-Authenticate: Basic realm=\"cave\"")), 3},
		{"hidden-from-user", withToken, home, always(says(404, "Content-Type: application/json\n\n"+`{"message":"Not Found"}`)), 0},
		{"server-error-credentials", []string{"-token-env", "TOKEN", "-H", "X-Api-Key: " + apiKey, "-H", "Accept: text/plain"}, home, always(failsOnCredentials), 0},
		{"server-error-password", []string{"-u", "Aladdin", "-password-env", "PASSWORD"}, home, always(failsOnCredentials), 0},
		{"server-error", withToken, home, always(says(500, "")), 0},
		{"server-error-post", append([]string{"-X", "POST"}, withToken...), home, always(says(500, "")), 0},
		{"server-error-not-sent", []string{"-u", "Aladdin", "-password-env", "PASSWORD"}, home, always(says(500, "")), 0},
		{"server-error-none", nil, home, always(says(500, "Content-Type: text/plain\n\nInternal Server Error")), 0},
		{"basic-after-cookie", []string{"-u", "Aladdin", "-password-env", "PASSWORD"}, home, func(t *testing.T) http.Handler { return guarded(t, basic) }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := c.server(t)
			w := newWorld(t, map[string]http.Handler{api: server, "sso.example.com": server})
			w.env = map[string]string{"LATIN": latin, "SPACE": "tok-3f9a1c 77e2", "BOM": "\ufeff" + token, "CONTROL": password + "\x01x", "SCHEME": "Token " + token}
			w.golden(c.name, append(c.args, c.url), c.status, true)
		})
	}
}

// TestBriefFits has the most likely cause and what to do in the first two lines of each report, whole, on a screen of 80
// columns; and in the signs, and on a narrow screen in more lines.
func TestBriefFits(t *testing.T) {
	fits := func(c cause) {
		t.Helper()
		why, do := c.brief()
		require.LessOrEqual(t, utf8.RuneCountInString("Possible cause: "+why), 80, why)
		require.LessOrEqual(t, utf8.RuneCountInString("What to do: "+do), 80, do)
		require.NotEmpty(t, do)
	}
	for _, s := range allSigns() {
		fits(cause{s.name, s.sure, s.text, s.fix})
	}
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	n := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		lines := strings.Split(string(text), "\n")
		if !strings.Contains(lines[0], "ause: ") {
			continue
		}
		n++
		require.Regexp(t, `^(Cause|Likely cause|Possible cause): `, lines[0], file)
		require.Regexp(t, `^What to do: `, lines[1], file)
		require.Empty(t, lines[2], file)
		require.NotContains(t, lines[0]+lines[1], "…", file)
	}
	require.Greater(t, n, 80)

	var out strings.Builder
	newPrinter(&out, func(string) string { return "40" }).brief(cause{"x", likely, strings.Repeat("why ", 20) + ".", "Do."}, "")
	require.NotContains(t, out.String(), "…")
	out.Reset()
	newPrinter(&out, func(string) string { return "" }).brief(cause{"x", likely, "“" + strings.Repeat("the server's words. ", 20) + "”.", "Do."}, "")
	require.Equal(t, 3, strings.Count(out.String(), "\n"))
}

// golden runs the command, and compares what a person sees with the file in testdata.
func (w *world) golden(name string, args []string, status int, trust bool) {
	w.t.Helper()
	out, got := w.run(args, "", trust)
	require.Equal(w.t, status, got, out)
	noSecret(w.t, out)
	require.NotContains(w.t, out, latin)
	golden(w.t, name+".txt", out)
}

func always(h http.Handler) func(*testing.T) http.Handler {
	return func(*testing.T) http.Handler { return h }
}

// failsOnCredentials fails on whatever credentials it is sent.
var failsOnCredentials = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "" || r.Header.Get("X-Api-Key") != "" {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	says(401, `WWW-Authenticate: Basic realm="cave"`)(w, r)
})

// redirecting is a server whose root leads elsewhere, where then answers.
func redirecting(to string, then http.Handler) func(*testing.T) http.Handler {
	return always(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			http.Redirect(w, r, to, http.StatusFound)
			return
		}
		then.ServeHTTP(w, r)
	}))
}

// loginPage is what a website answers to who has no session.
var loginPage = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	io.WriteString(w, `<!DOCTYPE html><title>Log in</title><form method="post"><input name="user"><input name="password" type="password"></form>`)
})

// behindSignIn is a server behind an oauth2-proxy, which looks at cookies only.
func behindSignIn() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/oauth2/") {
			http.Redirect(w, r, "/oauth2/sign_in", http.StatusFound)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, `<title>Sign In</title><button>Sign in with OpenID Connect</button>`)
	})
}

// checksCookie is a server that gives a cookie to who has none, redirects once, and answers who comes back without it as it
// is told.
func checksCookie(without int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Cookie("sid")
		switch {
		case c != nil && c.Value == cookie:
			io.WriteString(w, "open")
		case r.URL.Path == "/" || without == http.StatusFound:
			http.SetCookie(w, &http.Cookie{Name: "sid", Value: cookie, Path: "/"})
			http.Redirect(w, r, "/checked", http.StatusFound)
		default:
			w.WriteHeader(without)
		}
	})
}

// stripping is Django REST framework behind a gateway that takes Authorization off.
func stripping(t *testing.T) http.Handler {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			says(401, "WWW-Authenticate: Bearer realm=\"api\"\nContent-Type: application/json\n\n"+`{"detail":"Authentication credentials were not provided."}`)(w, r)
		}
	}))
	t.Cleanup(backend.Close)
	to, err := url.Parse(backend.URL)
	require.NoError(t, err)
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Header.Del("Authorization")
		},
		ModifyResponse: func(resp *http.Response) error { resp.Header.Del("Date"); return nil },
	}
}

func nginx(status int, title, text string) http.Handler {
	return says(status, "Server: nginx/1.22.1\nContent-Type: text/html\n\n<html>\r\n<head><title>"+title+"</title></head>\r\n<body>\r\n<center><h1>400 Bad Request</h1></center>\r\n<center>"+text+
		"</center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n")
}

func graphQL(code, message string) http.Handler {
	return says(200, "Content-Type: application/json\n\n"+`{"data":null,"errors":[{"message":"`+message+`","extensions":{"code":"`+code+`"}}]}`)
}

// grpcStatus is a gRPC server's answer without messages, which has its status in the header.
func grpcStatus(status, message string) http.Handler {
	return says(200, "Content-Type: application/grpc\nGrpc-Status: "+status+"\nGrpc-Message: "+message)
}

// basicInLatin1 is a server that compares user name and password with those that it has in ISO 8859-1.
func basicInLatin1(password string) http.Handler {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("Aladdin:"+inLatin1(password)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != want {
			says(401, `WWW-Authenticate: Basic realm="cave"`)(w, r)
		}
	})
}

// readsLatin1 reads headers in ISO 8859-1, as Tomcat does.
func readsLatin1(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("Authorization"); a != "" {
			var read strings.Builder
			for i := range len(a) {
				read.WriteRune(rune(a[i]))
			}
			r.Header.Set("Authorization", read.String())
		}
		next.ServeHTTP(w, r)
	})
}

// badRequestForNames answers 400 to a user name outside ASCII.
func badRequestForNames(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isASCII(r.Header.Get("Authorization")) {
			says(400, "Content-Type: text/html;charset=utf-8\n\n<title>400 Bad Request</title>")(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// TestClientCertificate asks servers that want a client certificate, whether their own is trusted or not.
func TestClientCertificate(t *testing.T) {
	for _, c := range []struct {
		name    string
		auth    tls.ClientAuthType
		version uint16
		trust   bool
		handler http.Handler
		status  int
	}{
		{"client-certificate", tls.RequireAnyClientCert, tls.VersionTLS13, true, says(200, ""), 3},
		{"client-certificate-tls12", tls.RequireAnyClientCert, tls.VersionTLS12, true, says(200, ""), 3},
		{"client-certificate-untrusted", tls.RequireAnyClientCert, tls.VersionTLS13, false, says(200, ""), 3},
		{"client-certificate-loop", tls.RequestClientCert, tls.VersionTLS13, true, says(302, "Location: /again"), 3},
		{"client-certificate-optional", tls.RequestClientCert, tls.VersionTLS13, true, says(403, "Date: Sat, 21 Nov 2026 12:00:00 GMT"), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(c.handler)
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.TLS = &tls.Config{ClientAuth: c.auth, MaxVersion: c.version}
			server.StartTLS()
			defer server.Close()
			w := newWorld(t, nil)
			w.at = map[string]string{"api.example.com": server.Listener.Addr().String()}
			w.golden(c.name, []string{"https://api.example.com/"}, c.status, c.trust)
		})
	}
}

// TestBrokenHTTP2 asks a server that puts two challenges into one field over HTTP/2, with a line break between them, as
// lighttpd does.
func TestBrokenHTTP2(t *testing.T) {
	const challenges = `Digest realm="lab", charset="UTF-8", algorithm=SHA-256, nonce="6b09146e:12e5", qop="auth"` + "\r\n" +
		`WWW-Authenticate: Digest realm="lab", charset="UTF-8", algorithm=MD5, nonce="6b09146e:12e5", qop="auth"`
	server := httptest.NewUnstartedServer(says(401, "Date: Sat, 21 Nov 2026 12:00:00 GMT\nServer: lighttpd/1.4.69\nWWW-Authenticate: "+strings.ReplaceAll(challenges, "\r\n", "\n")))
	server.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	server.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		"h2": func(_ *http.Server, conn *tls.Conn, _ http.Handler) {
			answerHTTP2(conn, "401", "www-authenticate", challenges)
		},
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	w := newWorld(t, nil)
	w.at = map[string]string{"api.example.com": server.Listener.Addr().String()}
	w.golden("http2", []string{"https://api.example.com/"}, 1, true)

	body := filepath.Join(t.TempDir(), "body")
	require.NoError(t, os.WriteFile(body, []byte("x"), 0o600))
	w.golden("http2-post", []string{"-data", body, "https://api.example.com/"}, 3, true)
}

// TestHTTP1Required asks a server that breaks off HTTP/2, as IIS does where Negotiate authenticates the connection.
func TestHTTP1Required(t *testing.T) {
	server := httptest.NewUnstartedServer(says(401, "Date: Sat, 21 Nov 2026 12:00:00 GMT\nServer: Microsoft-IIS/10.0\nWWW-Authenticate: Negotiate"))
	server.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	server.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		"h2": func(_ *http.Server, conn *tls.Conn, _ http.Handler) { resetHTTP2(conn, 0xd) },
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	w := newWorld(t, nil)
	w.at = map[string]string{"api.example.com": server.Listener.Addr().String()}
	w.golden("http11-required", []string{"https://api.example.com/"}, 1, true)
}

// resetHTTP2 resets the stream of each request on a connection with an error code (RFC 9113 §6.4).
func resetHTTP2(conn io.ReadWriter, code uint32) {
	serveHTTP2(conn, func(frame func(kind, flags byte, stream uint32, payload []byte), stream uint32) {
		const reset = 3
		frame(reset, 0, stream, binary.BigEndian.AppendUint32(nil, code))
	})
}

// answerHTTP2 answers each request on a connection with a status and one field, whatever is in it (RFC 9113).
func answerHTTP2(conn io.ReadWriter, status, name, value string) {
	literal := func(b []byte, s string) []byte { // RFC 7541 §5.2, without Huffman coding
		if len(s) < 127 {
			return append(append(b, byte(len(s))), s...)
		}
		b = append(b, 127)
		rest := len(s) - 127
		for ; rest >= 128; rest /= 128 {
			b = append(b, byte(rest%128+128))
		}
		return append(append(b, byte(rest)), s...)
	}
	serveHTTP2(conn, func(frame func(kind, flags byte, stream uint32, payload []byte), stream uint32) {
		const headers, endHeaders, endStream = 1, 4, 1
		block := literal([]byte{0x08}, status) // a literal, with the name of the static table's 8th entry
		block = literal(literal(append(block, 0), name), value)
		frame(headers, endHeaders|endStream, stream, block)
	})
}

// serveHTTP2 has each request on a connection answered by frames (RFC 9113).
func serveHTTP2(conn io.ReadWriter, answer func(frame func(kind, flags byte, stream uint32, payload []byte), stream uint32)) {
	frame := func(kind, flags byte, stream uint32, payload []byte) {
		head := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
		head = append(head, flags)
		conn.Write(append(binary.BigEndian.AppendUint32(head, stream), payload...))
	}
	if _, err := io.CopyN(io.Discard, conn, 24); err != nil { // the preface
		return
	}
	const settings, headers, ack = 4, 1, 1
	frame(settings, 0, 0, nil)
	for head := make([]byte, 9); ; {
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		length := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
		if _, err := io.CopyN(io.Discard, conn, length); err != nil {
			return
		}
		switch {
		case head[3] == settings && head[4]&ack == 0:
			frame(settings, ack, 0, nil)
		case head[3] == headers:
			answer(frame, binary.BigEndian.Uint32(head[5:]))
		}
	}
}
