package authtest

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// send sends one request and returns the answer, whose body is read.
func send(t testing.TB, srv *Server, method, target, body string, header http.Header) *http.Response {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, srv.URL+target, reader)
	require.NoError(t, err)
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := srv.Client().Transport.RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body = io.NopCloser(strings.NewReader(string(text)))
	return resp
}

// dial connects to the server and sends raw bytes.
func dial(t *testing.T, srv *Server, raw string) (net.Conn, *bufio.Reader) {
	conn, err := srv.Dial(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, raw)
	require.NoError(t, err)
	return conn, bufio.NewReader(conn)
}

var aladdin = auth("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")

func newBasic() *Basic { return &Basic{Username: "Aladdin", Password: "open sesame"} }

func TestEveryKindOfServer(t *testing.T) {
	for name, c := range map[string]struct {
		start         func(...Guard) *Server
		proto, scheme string
	}{
		"plain": {NewServer, "HTTP/1.1", "http://127.0.0.1:"},
		"TLS":   {NewTLSServer, "HTTP/1.1", "https://127.0.0.1:"},
		"HTTP2": {NewHTTP2Server, "HTTP/2.0", "https://127.0.0.1:"},
		"pipe":  {NewPipeServer, "HTTP/1.1", "http://127."},
	} {
		t.Run(name, func(t *testing.T) {
			srv := c.start(newBasic())
			require.True(t, strings.HasPrefix(srv.URL, c.scheme), srv.URL)
			resp := send(t, srv, "POST", "/a?b=c", "hello", nil)
			require.Equal(t, 401, resp.StatusCode)
			require.Equal(t, `Basic realm="authtest"`, resp.Header.Get("WWW-Authenticate"))

			resp = send(t, srv, "POST", "/a?b=c", "hello", aladdin)
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, "5", resp.Header.Get(BodyLengthHeader))
			sum := fmt.Sprintf("%x", sha256.Sum256([]byte("hello")))
			require.Equal(t, sum, resp.Header.Get(BodySHA256Header))

			requests := srv.Requests()
			require.Len(t, requests, 2)
			require.Equal(t, Challenged, requests[0].Decision)
			require.Equal(t, 401, requests[0].Status)
			require.Equal(t, c.proto != "HTTP/2.0", requests[0].BodyComplete, "HTTP/2 leaves a refused body unread")
			r := requests[1]
			require.Equal(t, "POST /a 200 accepted", r.String())
			require.Equal(t, "/a?b=c", r.Target)
			require.Equal(t, c.proto, r.Proto)
			require.Equal(t, "Basic", r.Scheme)
			require.Equal(t, aladdin["Authorization"], r.Header["Authorization"])
			require.Equal(t, sum, r.BodySHA256)
			require.EqualValues(t, 5, r.BodyLength)
			require.True(t, r.BodyComplete)
			require.Equal(t, sum, r.ResponseHeader.Get(BodySHA256Header))
			require.Equal(t, requests[0].Conn, r.Conn, "one connection")

			srv.Client().CloseIdleConnections()
			send(t, srv, "GET", "/", "", aladdin)
			require.NotEqual(t, r.Conn, srv.Requests()[2].Conn, "another connection")
			srv.Close()
			srv.Close() // twice does no harm
			require.Len(t, srv.Requests(), 3)
			_, err := srv.Client().Get(srv.URL)
			require.Error(t, err)
		})
	}
}

func TestDialReachesTLS(t *testing.T) {
	srv := NewTLSServer()
	defer srv.Close()
	conn, _ := dial(t, srv, "")
	config := srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.ServerName = "example.com"
	secure := tls.Client(conn, config)
	_, err := io.WriteString(secure, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(secure), nil)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
}

func TestBasic(t *testing.T) {
	guard := &Basic{Username: "Zoë", Password: "a:b", Realm: `say "friend"`, UTF8: true}
	srv := NewServer(guard)
	defer srv.Close()
	for _, c := range []struct{ header, reason string }{
		{"Basic WDphOmI=", "wrong user name or password"},
		{"Basic Wm/Dqw==", "the credentials have no colon"},
		{"Basic !", "the credentials are not base64"},
		{"Basic Wm/DqzphOmM=", "wrong user name or password"},
	} {
		srv.Reset()
		resp := send(t, srv, "GET", "/", "", auth(c.header))
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, `Basic realm="say \"friend\"", charset="UTF-8"`, resp.Header.Get("WWW-Authenticate"))
		require.Equal(t, "GET / 401 refused: "+c.reason, srv.Requests()[0].String())
	}
	// "Zoë:a:b", then "Zoë:new".
	require.Equal(t, 200, send(t, srv, "GET", "/", "", auth("basic  Wm/DqzphOmI=")).StatusCode)
	guard.SetPassword("new")
	require.Equal(t, 401, send(t, srv, "GET", "/", "", auth("Basic Wm/DqzphOmI=")).StatusCode)
	require.Equal(t, 200, send(t, srv, "GET", "/", "", auth("Basic Wm/DqzpuZXc=")).StatusCode)
}

func TestAPIKey(t *testing.T) {
	for _, c := range []struct {
		name            string
		guard           *APIKey
		header          http.Header
		challenge, word string
	}{
		{"default", &APIKey{Key: "k1"}, auth("ApiKey k1"), `ApiKey realm="authtest"`, "ApiKey "},
		{"word", &APIKey{Key: "k1", Prefix: "Token", Realm: "r"}, auth("Token k1"), `Token realm="r"`, "Token "},
		{"header", &APIKey{Key: "k1", Header: "x-api-key"}, http.Header{"X-Api-Key": {"k1"}}, `ApiKey realm="authtest"`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := NewServer(c.guard)
			defer srv.Close()
			require.Equal(t, c.challenge, send(t, srv, "GET", "/", "", nil).Header.Get("WWW-Authenticate"))
			require.Equal(t, 200, send(t, srv, "GET", "/", "", c.header).StatusCode)
			for name := range c.header {
				require.Equal(t, 401, send(t, srv, "GET", "/", "", http.Header{name: {c.word + "k2"}}).StatusCode)
				require.Equal(t, "wrong key", srv.Requests()[2].Reason)
				c.guard.SetKey("k2")
				require.Equal(t, 200, send(t, srv, "GET", "/", "", http.Header{name: {c.word + "k2"}}).StatusCode)
			}
			require.Equal(t, 401, send(t, srv, "GET", "/", "", auth("Basic eDp5")).StatusCode)
			require.Equal(t, Challenged, srv.Requests()[4].Decision, "credentials of another scheme are none")
			require.Equal(t, "the Authorization header is of another scheme", srv.Requests()[4].Reason)
		})
	}
}

func TestSeveralGuards(t *testing.T) {
	bearer := &Bearer{}
	srv := NewServer(bearer, newBasic(), &APIKey{Header: "X-API-Key", Key: "k"})
	defer srv.Close()
	want := []string{`Bearer realm="authtest"`, `Basic realm="authtest"`, `ApiKey realm="authtest"`}
	require.Equal(t, want, send(t, srv, "GET", "/", "", nil).Header["Www-Authenticate"])
	require.Equal(t, 200, send(t, srv, "GET", "/", "", aladdin).StatusCode)
	require.Equal(t, 200, send(t, srv, "GET", "/", "", http.Header{"X-Api-Key": {"k"}}).StatusCode)
	require.Equal(t, 200, send(t, srv, "GET", "/", "", auth("Bearer "+bearer.Login().AccessToken)).StatusCode)
	require.Equal(t, 401, send(t, srv, "GET", "/", "", auth("Bearer x")).StatusCode)

	two := http.Header{"Authorization": {"Bearer x", aladdin.Get("Authorization")}}
	require.Equal(t, want, send(t, srv, "GET", "/", "", two).Header["Www-Authenticate"])
	require.Equal(t, "GET / 401 refused: more than one Authorization header", srv.Requests()[5].String())
	require.Equal(t, Counts{Requests: 6, Accepted: 3, Challenged: 1, Refused: 2}, srv.Counts())
}

func TestLongestPathCounts(t *testing.T) {
	srv := NewServer()
	defer srv.Close()
	srv.Protect("/a/", newBasic())
	srv.Protect("/a/b", &APIKey{Key: "k"})
	srv.Handle("/a/b", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	for path, challenge := range map[string]string{
		"/": "", "/ab": "", "/a": "Basic", "/a/": "Basic", "/a/bc": "Basic", "/a/b": "ApiKey", "/a/b/c": "ApiKey",
	} {
		got, _, _ := strings.Cut(send(t, srv, "GET", path, "", nil).Header.Get("WWW-Authenticate"), " ")
		require.Equal(t, challenge, got, path)
	}
	require.Equal(t, 200, send(t, srv, "GET", "/a", "", aladdin).StatusCode)
	require.Equal(t, 418, send(t, srv, "GET", "/a/b", "", auth("ApiKey k")).StatusCode)
	srv.Protect("/a/b")
	require.Equal(t, 418, send(t, srv, "GET", "/a/b", "", nil).StatusCode)
	require.Equal(t, "not protected", srv.Requests()[9].Reason)
}

func TestBodyCutShort(t *testing.T) {
	srv := NewServer()
	defer srv.Close()
	conn, r := dial(t, srv, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	require.Equal(t, 400, resp.StatusCode)
	record := srv.Requests()[0]
	require.EqualValues(t, 4, record.BodyLength)
	require.False(t, record.BodyComplete)
}

func TestExpectContinue(t *testing.T) {
	srv := NewServer(newBasic())
	defer srv.Close()
	const head = "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
	_, r := dial(t, srv, head+"\r\n")
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 401 Unauthorized\r\n", line, "no 100 Continue for a body that is refused")
	require.False(t, srv.Requests()[0].BodyComplete)

	conn, r := dial(t, srv, head+"Authorization: "+aladdin.Get("Authorization")+"\r\n\r\n")
	line, err = r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
	_, err = r.ReadString('\n')
	require.NoError(t, err)
	_, err = io.WriteString(conn, "hello")
	require.NoError(t, err)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	require.Equal(t, "5", resp.Header.Get(BodyLengthHeader))
}

func TestRecordsAreCopies(t *testing.T) {
	bearer := &Bearer{}
	srv := NewServer(bearer)
	defer srv.Close()
	send(t, srv, "GET", "/", "", nil)
	_, err := bearer.ClientCredentials("s").Token(t.Context())
	require.NoError(t, err)
	srv.Requests()[0].Header.Set("User-Agent", "changed")
	srv.Requests()[0].ResponseHeader.Set("Www-Authenticate", "changed")
	srv.TokenRequests()[0].Form.Set("scope", "changed")
	require.NotEqual(t, "changed", srv.Requests()[0].Header.Get("User-Agent"))
	require.Equal(t, `Bearer realm="authtest"`, srv.Requests()[0].ResponseHeader.Get("WWW-Authenticate"))
	require.Equal(t, "s", srv.TokenRequests()[0].Form.Get("scope"))
}

func TestKeepAndReset(t *testing.T) {
	srv := NewServer()
	defer srv.Close()
	for _, path := range []string{"/1", "/2", "/3"} {
		send(t, srv, "GET", path, "", nil)
	}
	srv.Keep(2)
	require.Equal(t, "/2", srv.Requests()[0].Path)
	send(t, srv, "GET", "/4", "", nil)
	require.Equal(t, "/3", srv.Requests()[0].Path)
	require.Len(t, srv.Requests(), 2)
	srv.Keep(0)
	send(t, srv, "GET", "/5", "", nil)
	require.Empty(t, srv.Requests())
	require.Equal(t, 5, srv.Counts().Requests)
	srv.Inject("/", 1, Refuse())
	srv.Reset()
	require.Zero(t, srv.Counts())
	require.Equal(t, 200, send(t, srv, "GET", "/", "", nil).StatusCode, "the fault is forgotten")
}

func TestNothingPrintsCredentials(t *testing.T) {
	digest := &Digest{Username: "Mufasa", Password: "password-secret"}
	basic, bearer := newBasic(), &Bearer{ClientID: "id", ClientSecret: "form-secret"}
	key := &APIKey{Header: "X-API-Key", Key: "key-secret"}
	srv := NewServer(digest, basic, bearer, key)
	defer srv.Close()
	c := &digestClient{user: digest.Username, password: digest.Password}
	c.answer(send(t, srv, "GET", "/", "", nil).Header["Www-Authenticate"][0])
	digestHeader := c.authorization("GET", "/?token=query-secret&bare-secret")
	response := digestHeader[strings.Index(digestHeader, `response="`)+10:][:64]
	token := bearer.Login()
	send(t, srv, "GET", "/?token=query-secret&bare-secret", "", auth(digestHeader))
	require.Equal(t, 200, srv.Requests()[1].Status)
	send(t, srv, "GET", "/", "", aladdin)
	send(t, srv, "GET", "/", "", auth("Digest garbled-secret"))
	send(t, srv, "GET", "/", "", auth("schemeless-secret"))
	send(t, srv, "GET", "/", "", auth("Bearer "+token.AccessToken))
	srv.Inject("/", 1, Reply(200, http.Header{"Set-Cookie": {"a=cookie-secret"}}, ""))
	send(t, srv, "GET", "/", "", http.Header{"X-Api-Key": {"key-secret"}, "Cookie": {"a=cookie-secret"},
		"Proxy-Authorization": {"Basic proxy-secret"}})
	send(t, srv, "POST", "/token", "grant_type=refresh_token&client_id=id&client_secret=form-secret&refresh_token="+
		token.RefreshToken, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}})

	var printed strings.Builder
	for _, r := range srv.Requests() {
		text, err := json.Marshal(r)
		require.NoError(t, err)
		fmt.Fprintf(&printed, "%v\n%+v\n%#v\n%s\n%s\n%s\n", r, r, r, &r, r.Dump(), text)
	}
	text, err := json.Marshal(srv.TokenRequests())
	require.NoError(t, err)
	fmt.Fprintf(&printed, "%v\n%+v\n%#v\n%s", srv.TokenRequests(), srv.TokenRequests(), srv.TokenRequests(), text)

	for _, guard := range []Guard{digest, basic, bearer, key} {
		guards := fmt.Sprintf("%v %+v %#v %s", guard, guard, guard, []any{guard})
		require.Contains(t, guards, "(realm ")
		printed.WriteString(guards)
	}

	for _, secret := range []string{"-secret", "open sesame", "Mufasa", response, c.cnonce, c.rspauth("ok\n"), "QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
		token.AccessToken, token.RefreshToken} {
		require.NotContains(t, printed.String(), secret)
	}
	for _, shown := range []string{
		`Authorization: Digest username="***", realm="authtest", nonce="` + c.nonce + `", uri="/?token=***&***"`,
		`nc=00000001`, "Authorization: Basic ***", "Authorization: Bearer ***", "GET /?token=***&*** HTTP/1.1",
		"X-Api-Key: ***", "Cookie: ***", "Authorization: Digest ***", "Authorization: ***", `"Decision":"accepted"`,
	} {
		require.Contains(t, printed.String(), shown)
	}
	require.Equal(t, digestHeader, srv.Requests()[1].Header.Get("Authorization"), "the fields have it all")
}

func TestDecisionsHaveNames(t *testing.T) {
	require.Equal(t, "undecided accepted challenged refused injected unknown unknown",
		strings.Trim(fmt.Sprint([]Decision{Undecided, Accepted, Challenged, Refused, Injected, 5, -1}), "[]"))
}

func TestServerIsAHandler(t *testing.T) {
	srv := NewServer(newBasic())
	defer srv.Close()
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	require.Equal(t, 401, w.Code)
	require.Equal(t, 1, srv.Counts().Challenged)
}

func TestReplay(t *testing.T) {
	const recording = "HTTP/1.1 100 Continue\r\n\r\n" +
		"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"lab \"quoted\" realm\"\r\nContent-Length: 3\r\n\r\nno\n" +
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n" +
		"HTTP/1.0 404 Not Found\r\nX: y\r\n\r\nto the end"
	handler, err := Replay([]byte(recording))
	require.NoError(t, err)
	srv := NewServer()
	defer srv.Close()
	srv.Handle("/", handler)
	var got []string
	for range 4 {
		resp := send(t, srv, "POST", "/", "body", nil)
		body, _ := io.ReadAll(resp.Body)
		got = append(got, fmt.Sprintf("%d %s %s", resp.StatusCode, resp.Header["Www-Authenticate"], body))
	}
	require.Equal(t, []string{`401 [Digest realm="lab "quoted" realm"] no` + "\n", "200 [] yes", "404 [] to the end",
		"500 [] authtest: the recording has no more responses\n"}, got)

	_, err = Replay([]byte("HTTP/2 401\r\n\r\n"))
	require.ErrorContains(t, err, "authtest: response 1 of the recording: ")
	_, err = Replay([]byte("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"))
	require.ErrorContains(t, err, "authtest: body of response 1 of the recording: ")
}

func TestConcurrentUse(t *testing.T) {
	digest, bearer, basic, key := &Digest{}, &Bearer{}, newBasic(), &APIKey{Header: "X-API-Key", Key: "old"}
	srv := NewServer(digest, bearer, basic, key)
	defer srv.Close()
	refresh := bearer.Login().RefreshToken
	source := func() error {
		_, err := bearer.Config().TokenSource(t.Context(), &oauth2.Token{RefreshToken: refresh}).Token()
		return err
	}
	var good atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if source() == nil {
				good.Add(1)
			}
			send(t, srv, "PUT", "/", "hello", aladdin)
			send(t, srv, "GET", "/x", "", nil)
			digest.GoStale()
			digest.SetPassword("new")
			digest.NonceErrors()
			bearer.ExpireNow()
			bearer.Reuses()
			bearer.Revoke(bearer.Login().AccessToken)
			basic.SetPassword("open sesame")
			key.SetKey("new")
			srv.Inject("/x", 1, DropChallenge())
			srv.Protect("/y", basic)
			srv.Handle("/y", http.NotFoundHandler())
			_ = fmt.Sprint(srv.Requests(), srv.TokenRequests(), srv.Counts(), digest, bearer)
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, good.Load(), "a refresh token is good once, however many ask at once")
	require.Equal(t, 49, bearer.Reuses())
	require.Equal(t, Counts{Requests: 100, Accepted: 50, Challenged: 50, TokenRequests: 50}, srv.Counts())
}
