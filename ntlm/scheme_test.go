package ntlm_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/ntlm"
	"github.com/stretchr/testify/require"
)

var discardLog = log.New(io.Discard, "", 0)

// newClient returns a client of the user whom a lab knows.
func newClient(t testing.TB, scheme *ntlm.Scheme, change func(*authretry.Transport, *http.Transport)) *http.Client {
	if scheme == nil {
		scheme = &ntlm.Scheme{Username: `EXAMPLE\mufasa`, Password: secret}
	}
	base := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	transport := &authretry.Transport{Base: base, Schemes: []authretry.Scheme{scheme}}
	if change != nil {
		change(transport, base)
	}
	t.Cleanup(func() { transport.CloseIdleConnections() })
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

func do(t testing.TB, client *http.Client, req *http.Request) (status int, body string) {
	t.Helper()
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(b)
}

func newRequest(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	require.NoError(t, err)
	return req
}

func getOK(t testing.TB, client *http.Client, url string) string {
	t.Helper()
	status, body := do(t, client, newRequest(t, "GET", url, nil))
	require.Equal(t, 200, status)
	return body
}

// The first request is refused, the connection is authenticated, and carries what follows.
func TestConnectionIsAuthenticatedOnce(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			l := newLab(t, func(l *lab) {
				if scheme == "https" {
					l.TLS = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
					l.EnableHTTP2 = true
				}
			})
			client := newClient(t, nil, func(_ *authretry.Transport, base *http.Transport) { base.ForceAttemptHTTP2 = true })
			require.Equal(t, "hello mufasa, 0 bytes", getOK(t, client, l.URL+"/a/b"))
			require.Equal(t, []string{"GET /a/b", "GET /a/b 1", "GET /a/b 3"}, l.take())
			for range 5 {
				status, body := do(t, client, newRequest(t, "POST", l.URL+"/a/c", strings.NewReader("12345")))
				require.Equal(t, 200, status)
				require.Equal(t, "hello mufasa, 5 bytes", body)
				require.Equal(t, []string{"POST /a/c"}, l.take())
			}
			require.EqualValues(t, 1, l.handshake.Load())
			require.EqualValues(t, 2, l.dialled.Load(), "one of Base's, and one of the Scheme's")
			require.Equal(t, "EXAMPLE", l.last.domain)
			require.Empty(t, l.last.lm, "nothing but NTLMv2")
			require.Equal(t, "HTTP/127.0.0.1", fromUTF16LE(l.last.pairs[9]))
			require.Equal(t, "WWW", fromUTF16LE(l.last.pairs[1]), "what the server says of itself is in the answer")
		})
	}
}

// A first message that a place does not ask for has no effect there: it goes with HEAD, unless the request was just challenged.
func TestFirstMessageDoesNothing(t *testing.T) {
	l := newLab(t, func(l *lab) {
		l.isPublic = func(r *http.Request) bool { return r.URL.Path == "/a/public" }
	})
	var transport *authretry.Transport
	client := newClient(t, nil, func(tr *authretry.Transport, _ *http.Transport) { transport = tr })
	getOK(t, client, l.URL+"/a/b")
	l.take()
	transport.CloseIdleConnections()
	status, _ := do(t, client, newRequest(t, "DELETE", l.URL+"/a/public", nil))
	require.Equal(t, 200, status)
	require.Equal(t, []string{"HEAD /a/public 1", "DELETE /a/public"}, l.take())
	status, _ = do(t, client, newRequest(t, "DELETE", l.URL+"/a/b", nil))
	require.Equal(t, 200, status)
	require.Equal(t, []string{"HEAD /a/b 1", "DELETE /a/b 3"}, l.take(), "a connection that is not authenticated is not kept")
	status, _ = do(t, client, newRequest(t, "DELETE", l.URL+"/a/public", nil))
	require.Equal(t, 200, status)
	require.Equal(t, []string{"DELETE /a/public"}, l.take())
	require.Empty(t, l.marks, "nothing but NTLM's messages is in Authorization")
}

// A body is sent once, by the connection that was authenticated, whatever its size, and though it cannot be had twice.
func TestBodyFromAReaderIsSentOnce(t *testing.T) {
	const size = 10 << 20
	l := newLab(t, nil)
	var transport *authretry.Transport
	client := newClient(t, nil, func(tr *authretry.Transport, base *http.Transport) {
		base.ExpectContinueTimeout = 10 * time.Second
		transport = tr
	})
	for i := range 3 {
		if i == 2 {
			transport.CloseIdleConnections()
		}
		req := newRequest(t, "POST", l.URL+"/a", struct{ io.Reader }{bytes.NewReader(make([]byte, size))})
		req.ContentLength = []int64{size, -1, size}[i]
		status, body := do(t, client, req)
		require.Equal(t, 200, status)
		require.Equal(t, fmt.Sprintf("hello mufasa, %d bytes", size), body)
	}
	require.EqualValues(t, 3*size, l.bodies)
	require.Equal(t, []string{"POST /a", "POST /a 1", "POST /a 3", "POST /a", "HEAD /a 1", "POST /a 3"}, l.take())
}

func TestWrongPassword(t *testing.T) {
	l := newLab(t, nil)
	client := newClient(t, &ntlm.Scheme{Username: "mufasa", Password: "wrong"}, nil)
	for range 3 {
		resp, err := client.Post(l.URL+"/a", "text/plain", strings.NewReader("body"))
		require.NoError(t, err)
		require.Equal(t, 401, resp.StatusCode)
		body, _ := io.ReadAll(resp.Body)
		require.Equal(t, "no\n", string(body))
		resp.Body.Close()
		require.Equal(t, []string{"POST /a", "POST /a 1", "POST /a 3"}, l.take())
		r := explain(t, resp)
		require.Equal(t, authretry.ReasonCredentialsRefused, r.Reason)
		require.Empty(t, resp.Request.Header["Authorization"])
	}
	require.Equal(t, 3, l.refusals)
}

// A password that is wrong from now on is tried once in a call, by a connection that takes the place of one that was good.
func TestPasswordThatIsNotGoodAnyMore(t *testing.T) {
	l := newLab(t, nil)
	var transport *authretry.Transport
	client := newClient(t, nil, func(tr *authretry.Transport, _ *http.Transport) { transport = tr })
	getOK(t, client, l.URL+"/a")
	l.take()
	transport.CloseIdleConnections()
	l.mu.Lock()
	l.passwords["mufasa"] = "another"
	l.mu.Unlock()
	status, _ := do(t, client, newRequest(t, "GET", l.URL+"/a", nil))
	require.Equal(t, 401, status)
	require.Equal(t, []string{"HEAD /a 1", "GET /a 3"}, l.take())
	status, _ = do(t, client, newRequest(t, "GET", l.URL+"/a", nil))
	require.Equal(t, 401, status)
	require.Equal(t, []string{"GET /a", "GET /a 1", "GET /a 3"}, l.take())
	l.mu.Lock()
	l.passwords["mufasa"] = secret
	l.mu.Unlock()
	getOK(t, client, l.URL+"/a")
}

// Where the server has forgotten who a connection's user is, there is another handshake.
func TestConnectionThatIsNotAuthenticatedAnyMore(t *testing.T) {
	l := newLab(t, nil)
	client := newClient(t, nil, nil)
	getOK(t, client, l.URL+"/a")
	for range 3 {
		l.take()
		l.forgetConns()
		status, body := do(t, client, newRequest(t, "POST", l.URL+"/a", strings.NewReader("body")))
		require.Equal(t, 200, status)
		require.Equal(t, "hello mufasa, 4 bytes", body)
		require.Equal(t, []string{"POST /a", "POST /a 1", "POST /a 3"}, l.take())
	}
}

// A body that is gone by then does not get through, and the caller can read why.
func TestBodyThatIsGoneWhenTheConnectionIsRefused(t *testing.T) {
	l := newLab(t, nil)
	client := newClient(t, nil, func(tr *authretry.Transport, _ *http.Transport) { tr.ReplayLimit = 4 })
	getOK(t, client, l.URL+"/a")
	l.forgetConns()
	resp, err := client.Post(l.URL+"/a", "text/plain", io.MultiReader(strings.NewReader("more than four bytes")))
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 401, resp.StatusCode)
	require.Equal(t, authretry.ReasonBodyNotReplayable, explain(t, resp).Reason)
	status, _ := do(t, client, newRequest(t, "POST", l.URL+"/a", io.MultiReader(strings.NewReader("more than four bytes"))))
	require.Equal(t, 200, status)
}

func TestChannelBindings(t *testing.T) {
	l := newLab(t, func(l *lab) { l.TLS = new(tls.Config) })
	l.mu.Lock()
	l.bindings = ntlm.ChannelBindings(&tls.ConnectionState{PeerCertificates: l.peers()})
	require.Len(t, l.bindings, 16)
	l.mu.Unlock()
	client := newClient(t, nil, nil)
	require.Equal(t, "hello mufasa, 0 bytes", getOK(t, client, l.URL))

	// Somebody on the way has another certificate, and so has whoever passes the login on.
	l.mu.Lock()
	l.bindings = bytes.Repeat([]byte{1}, 16)
	l.mu.Unlock()
	client = newClient(t, nil, nil)
	status, _ := do(t, client, newRequest(t, "GET", l.URL, nil))
	require.Equal(t, 401, status)
}

// NTLM does not take the place of Negotiate, unless the program says so.
func TestNeverBelowNegotiateSilently(t *testing.T) {
	for _, offer := range [][]string{{"Negotiate", "NTLM"}, {"NTLM"}} {
		l := newLab(t, func(l *lab) {
			l.challenge = func(w http.ResponseWriter) { w.Header()["Www-Authenticate"] = offer }
		})
		for _, after := range []bool{false, true} {
			client := newClient(t, nil, func(tr *authretry.Transport, _ *http.Transport) {
				tr.Schemes = []authretry.Scheme{noKerberos{}, &ntlm.Scheme{Username: "mufasa", Password: secret, AfterNegotiate: after}}
			})
			resp, err := client.Get(l.URL)
			require.NoError(t, err)
			resp.Body.Close()
			if after {
				require.Equal(t, 200, resp.StatusCode)
				continue
			}
			require.Equal(t, 401, resp.StatusCode)
			require.Equal(t, authretry.ReasonUnsupportedScheme, explain(t, resp).Reason)
			require.ErrorContains(t, authretry.Explain(resp), "AfterNegotiate")
			require.Zero(t, l.firsts.Load())
		}
		getOK(t, newClient(t, nil, nil), l.URL) // where there is no Negotiate, NTLM is what there is
	}
}

// noKerberos is Negotiate without a ticket.
type noKerberos struct{}

func (noKerberos) Name() string { return "negotiate" }
func (noKerberos) Answer(context.Context, *authretry.Challenge, *http.Response) (authretry.Session, error) {
	return nil, fmt.Errorf("%w: no ticket", authretry.ErrUnsupportedChallenge)
}

func TestPlainHTTPNeedsToBeAllowed(t *testing.T) {
	l := newLab(t, nil)
	elsewhere := func(tr *authretry.Transport, base *http.Transport) {
		base.DialContext = dialling(l.Listener.Addr().String())
	}
	client := newClient(t, nil, elsewhere)
	_, err := client.Get("http://intranet.test/")
	var r *authretry.Rejection
	require.ErrorAs(t, err, &r)
	require.Equal(t, authretry.ReasonPlaintext, r.Reason)
	require.Zero(t, l.firsts.Load())
	client = newClient(t, nil, func(tr *authretry.Transport, base *http.Transport) { elsewhere(tr, base); tr.AllowPlaintext = true })
	getOK(t, client, "http://intranet.test/")
	require.Equal(t, "HTTP/intranet.test", fromUTF16LE(l.last.pairs[9]))
}

func TestWhatCannotBeUsed(t *testing.T) {
	l := newLab(t, nil)
	for name, c := range map[string]struct {
		scheme *ntlm.Scheme
		base   http.RoundTripper
		url    string
		text   string
	}{
		"no user":        {&ntlm.Scheme{Password: secret}, nil, l.URL, "the user name is empty"},
		"a long user":    {&ntlm.Scheme{Username: strings.Repeat("u", 1025)}, nil, l.URL, "more than 1024 bytes"},
		"ProxyTransport": {nil, authretry.NewProxyTransport(nil, &authretry.Basic{}), l.URL, "for https URLs only"},
		"another Base":   {nil, roundTripFunc(http.DefaultTransport.RoundTrip), l.URL, "must be an *http.Transport"},
	} {
		client := newClient(t, c.scheme, func(tr *authretry.Transport, _ *http.Transport) {
			if c.base != nil {
				tr.Base = c.base
			}
		})
		_, err := client.Get(c.url)
		require.ErrorContains(t, err, c.text, name)
		require.NotContains(t, err.Error(), secret)
	}
	require.Zero(t, l.firsts.Load())

	// A proxy's refusal is not answered.
	proxy := newProxyLab(t, nil)
	through := authretry.NewProxyTransport(&http.Transport{Proxy: http.ProxyURL(proxy.url)}, &ntlm.Scheme{Username: "mufasa", Password: secret})
	resp, err := (&http.Client{Transport: through}).Get("http://origin.test/")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 407, resp.StatusCode)
	require.ErrorContains(t, authretry.Explain(resp), "use ntlm.ProxyDialer")
}

// A server behind a proxy that wants other credentials: each connection has a tunnel of its own.
func TestThroughAProxyThatWantsCredentials(t *testing.T) {
	l := newLab(t, func(l *lab) { l.TLS = new(tls.Config) })
	p := newProxyLab(t, func(p *proxyLab) { p.basic = true })
	client := newClient(t, nil, func(tr *authretry.Transport, base *http.Transport) {
		base.Proxy = http.ProxyURL(p.url)
		through := authretry.NewProxyTransport(base, &authretry.Basic{Username: "nala", Password: "her password"})
		tr.Base = through
		t.Cleanup(through.CloseIdleConnections)
	})
	for range 3 {
		require.Equal(t, "hello mufasa, 0 bytes", getOK(t, client, l.URL+"/a"))
	}
	require.Equal(t, []string{"GET /a", "GET /a 1", "GET /a 3", "GET /a", "GET /a"}, l.take())
	at := l.Listener.Addr().String()
	require.Equal(t, []string{"CONNECT " + at + " ", "CONNECT " + at + " Basic", "CONNECT " + at + " ", "CONNECT " + at + " Basic"}, p.take())
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// What a caller sees of a request is what it was.
func TestCallersSeeTheirOwnRequest(t *testing.T) {
	l := newLab(t, nil)
	client := newClient(t, nil, nil)
	for range 2 {
		req := newRequest(t, "GET", l.URL+"/a", nil)
		resp, err := client.Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Empty(t, req.Header)
		require.Empty(t, resp.Request.Header["Authorization"])
	}
}

// A connection that is handed over to the caller (101) is not one of the Scheme's any more.
func TestUpgrade(t *testing.T) {
	l := newLab(t, func(l *lab) {
		l.after = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Upgrade") == "" {
				return false
			}
			conn, rw, _ := w.(http.Hijacker).Hijack()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			go func() { io.Copy(conn, rw); conn.Close() }()
			return true
		}
	})
	client := newClient(t, &ntlm.Scheme{Username: "mufasa", Password: secret, MaxConns: 1}, nil)
	client.Timeout = 0
	for range 3 {
		req := newRequest(t, "GET", l.URL+"/a", nil)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.Equal(t, 101, resp.StatusCode)
		rw := resp.Body.(io.ReadWriteCloser)
		_, err = rw.Write([]byte("ping"))
		require.NoError(t, err)
		b := make([]byte, 4)
		_, err = io.ReadFull(rw, b)
		require.NoError(t, err)
		require.Equal(t, "ping", string(b))
		rw.Close()
	}
}

// Validate says before the first challenge what is wrong.
func TestValidate(t *testing.T) {
	require.NoError(t, (&ntlm.Scheme{Username: `DOMAIN\user`, Password: "p"}).Validate())
	require.NoError(t, (&ntlm.Scheme{Credentials: func(context.Context, authretry.CredentialsRequest) (string, string, error) { panic("asks nobody") }}).Validate())
	require.ErrorContains(t, (&ntlm.Scheme{Password: "secret"}).Validate(), "user name is empty")
	err := (&authretry.Transport{Schemes: []authretry.Scheme{&ntlm.Scheme{Username: "u", Password: strings.Repeat("secret", 200)}}}).Validate()
	require.ErrorContains(t, err, "has more than 1024 bytes")
	require.NotContains(t, err.Error(), "secret")
}
