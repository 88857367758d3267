package authretry

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// Whatever happens to the connection, on the first send or the second: an error or a response, nothing left behind.
func TestFaultsOfConnections(t *testing.T) { // not parallel: it counts goroutines
	for _, newScheme := range []func() Scheme{
		func() Scheme { return &Digest{Username: "u", Password: "p"} },
		func() Scheme { return &Basic{Username: "u", Password: "p"} },
	} {
		for _, kind := range []string{"none", "one-shot", "with GetBody"} {
			for _, onSecond := range []bool{false, true} {
				for _, fault := range faults {
					tryFault(t, newScheme(), kind, fault, onSecond, false)
					if fault.whole && fault.name != "nothing wrong" && !onSecond {
						tryFault(t, newScheme(), kind, fault, onSecond, true)
					}
				}
			}
		}
	}
}

// tryFault sends one request. If noticed is set, the second send waits until http.Transport knows that the connection of the
// first is of no use any more; else it may just have been taken.
func tryFault(t *testing.T, scheme Scheme, kind string, fault connFault, onSecond, noticed bool) {
	t.Helper()
	before := runtime.NumGoroutine()
	srv := newFaultListener(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) bool {
		io.Copy(io.Discard, r.Body)
		second := hasCredentials(r)
		head := faultRefusal
		if second {
			head = faultSuccess
		}
		if second == onSecond {
			return fault.do(c, head)
		}
		io.WriteString(c, head+faultBody)
		return true
	})
	base := newNoticing(noticed)
	transport := &Transport{Base: base, Schemes: []Scheme{scheme}}
	req, err := http.NewRequest("POST", srv.url(), nil)
	require.NoError(t, err)
	bodies := &faultBodies{content: "hello"}
	bodies.put(req, kind)
	req.Header.Set("Idempotency-Key", "k") // so that http.Transport repeats it where a connection has just ended

	what := fmt.Sprintf("%s, body %s, on the second send: %v, noticed: %v, %s", scheme.Name(), kind, onSecond, noticed, fault.name)
	resp, err := transport.RoundTrip(req)
	// A connection that was taken just when it ended fails a request of which a part was written; the body goes out after the
	// headers here.
	if taken := fault.whole && fault.name != "nothing wrong" && kind != "none" && !onSecond && !noticed; !taken || err == nil {
		require.Equal(t, fault.heard, err == nil, "%s: %v", what, err)
	}
	if err == nil {
		require.Equal(t, 200, resp.StatusCode, what)
		got, err := io.ReadAll(resp.Body)
		require.Equal(t, fault.whole || !onSecond, err == nil, what)
		if err == nil && (fault.name != "more than was announced" || noticed) { // which net/http may take for the next answer
			require.Equal(t, faultBody, string(got), what)
		}
		require.NoError(t, resp.Body.Close())
	} else {
		require.NotContains(t, err.Error(), "Authorization", what)
	}
	require.LessOrEqual(t, srv.requests.Load(), int32(3), what) // of which one by http.Transport itself
	transport.CloseIdleConnections()
	srv.close(t)
	requireNoMoreGoroutines(t, before)
	bodies.requireClosedOnce(t)
}

// A server that refuses and closes while a large body is still on its way: its answer must not be lost.
func TestFaultsRefusedBeforeTheBodyWasRead(t *testing.T) {
	for _, kind := range []string{"one-shot", "with GetBody"} {
		for range 5 {
			before := runtime.NumGoroutine()
			srv := newFaultListener(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) bool {
				if !hasCredentials(r) {
					io.WriteString(c, strings.Replace(faultRefusal, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)+faultBody)
					return false
				}
				n, _ := io.Copy(io.Discard, r.Body)
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 7\r\n\r\n%7d", n)
				return false
			})
			transport := &Transport{Base: &http.Transport{}, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}
			req, err := http.NewRequest("PUT", srv.url(), nil)
			require.NoError(t, err)
			bodies := &faultBodies{content: strings.Repeat("x", 8<<20)}
			bodies.put(req, kind)
			req.ContentLength = int64(len(bodies.content)) // of unknown length, it is announced only if it is seen to be large
			resp, err := transport.RoundTrip(req)
			require.NoError(t, err, kind)
			require.Equal(t, 200, resp.StatusCode)
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, "8388608", string(got), "%s: the body arrived whole", kind)
			resp.Body.Close()
			transport.CloseIdleConnections()
			srv.close(t)
			requireNoMoreGoroutines(t, before)
			bodies.requireClosedOnce(t)
		}
	}
}

// Over HTTP/2 the stream is reset rather than the connection.
func TestFaultsOfStreams(t *testing.T) {
	before := runtime.NumGoroutine()
	var fault func(w http.ResponseWriter, r *http.Request)
	var onSecond bool
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Digest realm="x", nonce="n", qop="auth"`)
		switch second := hasCredentials(r); {
		case second == onSecond:
			fault(w, r)
		case second:
			io.Copy(w, r.Body)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = discardLog
	srv.StartTLS()
	status := func(r *http.Request) int {
		if hasCredentials(r) {
			return http.StatusOK
		}
		return http.StatusUnauthorized
	}
	for name, c := range map[string]struct {
		heard bool
		fault func(w http.ResponseWriter, r *http.Request)
	}{
		"reset before the header": {false, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		"reset after the header": {true, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(status(r))
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}},
		"reset in the body": {true, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status(r))
			io.WriteString(w, faultBody)
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}},
		"answered before the body was read": {true, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status(r)) }},
	} {
		for _, kind := range []string{"none", "one-shot", "with GetBody"} {
			for _, onSecond = range []bool{false, true} {
				fault = c.fault
				transport := &Transport{Base: srv.Client().Transport, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}
				req, err := http.NewRequest("POST", srv.URL, nil)
				require.NoError(t, err)
				bodies := &faultBodies{content: strings.Repeat("x", 256<<10)}
				bodies.put(req, kind)
				what := fmt.Sprintf("%s, body %s, on the second send: %v", name, kind, onSecond)
				resp, err := transport.RoundTrip(req)
				require.Equal(t, c.heard, err == nil, "%s: %v", what, err)
				if err == nil {
					require.Equal(t, 2, resp.ProtoMajor)
					require.Equal(t, 200, resp.StatusCode, what)
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				require.Eventually(t, func() bool {
					for _, b := range bodies.made {
						if b.closed.Load() != 1 {
							return false
						}
					}
					return true
				}, 30*time.Second, time.Millisecond, what)
			}
		}
	}
	srv.Client().CloseIdleConnections()
	srv.Close()
	requireNoMoreGoroutines(t, before)
}

// Informational responses are neither the answer nor a challenge (RFC 9110 §15.2).
func TestFaultsInformationalResponses(t *testing.T) {
	before := runtime.NumGoroutine()
	const hints = "HTTP/1.1 103 Early Hints\r\nWWW-Authenticate: Basic realm=\"evil\"\r\nAuthentication-Info: nextnonce=\"evil\"\r\n\r\n"
	srv := newFaultListener(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) bool {
		io.WriteString(c, hints+"HTTP/1.1 102 Processing\r\n\r\n"+hints)
		if hasCredentials(r) {
			io.WriteString(c, faultSuccess+faultBody)
		} else {
			io.WriteString(c, faultRefusal+faultBody)
		}
		return true
	})
	realms := map[string]bool{}
	transport := &Transport{Base: &http.Transport{}, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}, &Basic{Username: "u", Password: "p"}},
		OnEvent: func(_ context.Context, e Event) { realms[e.Realm] = true }}
	for range 3 {
		resp, body := get(t, &http.Client{Transport: transport}, srv.url())
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, faultBody, body)
	}
	require.Equal(t, int32(4), srv.requests.Load())
	require.Equal(t, map[string]bool{"": true, "x": true}, realms)
	transport.CloseIdleConnections()
	srv.close(t)
	requireNoMoreGoroutines(t, before)
}

// The caller gives up, in each phase of a request.
func TestFaultsContextEndsInEachPhase(t *testing.T) {
	type phase struct {
		name   string
		serve  func(c *net.TCPConn, r *http.Request, giveUp func()) bool // nil: as usual
		scheme func(giveUp func()) Scheme                                // nil: Digest
	}
	hang := func(ctx context.Context, giveUp func()) error {
		giveUp()
		<-ctx.Done()
		return ctx.Err()
	}
	wait := func(c *net.TCPConn, giveUp func()) bool { // until the peer closes
		giveUp()
		io.Copy(io.Discard, c)
		return false
	}
	for _, p := range []phase{
		{name: "the first send", serve: func(c *net.TCPConn, r *http.Request, giveUp func()) bool { return wait(c, giveUp) }},
		{name: "the header", serve: func(c *net.TCPConn, r *http.Request, giveUp func()) bool {
			io.WriteString(c, faultRefusal[:50])
			return wait(c, giveUp)
		}},
		{name: "the refusal's body", serve: func(c *net.TCPConn, r *http.Request, giveUp func()) bool {
			io.WriteString(c, faultRefusal)
			return wait(c, giveUp)
		}},
		{name: "the second send", serve: func(c *net.TCPConn, r *http.Request, giveUp func()) bool {
			if hasCredentials(r) {
				return wait(c, giveUp)
			}
			io.WriteString(c, faultRefusal+faultBody)
			return true
		}},
		{name: "the answer", scheme: func(giveUp func()) Scheme {
			return &Digest{Credentials: func(ctx context.Context, _ CredentialsRequest) (string, string, error) {
				return "", "", hang(ctx, giveUp)
			}}
		}},
		{name: "the first token", scheme: func(giveUp func()) Scheme {
			return &Bearer{Source: &TokenSource{FetchTimeout: 10 * time.Millisecond, Fetch: func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
				return nil, hang(ctx, giveUp)
			}}}
		}},
		{name: "the refresh", scheme: func(giveUp func()) Scheme {
			return &Bearer{Source: &TokenSource{FetchTimeout: 10 * time.Millisecond, Initial: &oauth2.Token{AccessToken: "old"},
				Fetch: func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) { return nil, hang(ctx, giveUp) }}}
		}},
		{name: "a source that knows no context", scheme: func(giveUp func()) Scheme {
			return &Bearer{Source: tokenSourceFunc(func() (*oauth2.Token, error) {
				giveUp()
				return nil, errors.New("too late")
			})}
		}},
	} {
		for _, kind := range []string{"none", "one-shot", "with GetBody"} {
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(t.Context())
			srv := newFaultListener(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) bool {
				io.Copy(io.Discard, r.Body)
				if p.serve != nil {
					return p.serve(c, r, cancel)
				}
				io.WriteString(c, faultRefusal+faultBody)
				return true
			})
			scheme := Scheme(&Digest{Username: "u", Password: "p"})
			if p.scheme != nil {
				scheme = p.scheme(cancel)
			}
			transport := &Transport{Base: &http.Transport{}, Schemes: []Scheme{scheme}}
			req, err := http.NewRequestWithContext(ctx, "POST", srv.url(), nil)
			require.NoError(t, err)
			bodies := &faultBodies{content: "hello"}
			bodies.put(req, kind)
			resp, err := transport.RoundTrip(req)
			require.Error(t, err, p.name)
			require.Nil(t, resp)
			if p.name != "a source that knows no context" { // whose own error may come first
				require.ErrorIs(t, err, context.Canceled, "%s: %v", p.name, err)
			}
			transport.CloseIdleConnections()
			srv.close(t)
			requireNoMoreGoroutines(t, before)
			bodies.requireClosedOnce(t)
			cancel()
		}
	}
}

type tokenSourceFunc func() (*oauth2.Token, error)

func (f tokenSourceFunc) Token() (*oauth2.Token, error) { return f() }

// A token endpoint that misbehaves: the request fails with a clear error in bounded time, or gets its token.
func TestFaultsOfTheTokenEndpoint(t *testing.T) {
	answer := func(contentType, body string) func(c *net.TCPConn) bool {
		return func(c *net.TCPConn) bool {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", contentType, len(body), body)
			return true
		}
	}
	const good = `{"access_token":"fresh","token_type":"bearer"}`
	for name, c := range map[string]struct {
		serve func(c *net.TCPConn) bool
		want  string // of the error; "" for none
	}{
		"hangs": {func(c *net.TCPConn) bool { io.Copy(io.Discard, c); return false }, "too long"},
		"drips": {func(c *net.TCPConn) bool {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
			for ticker := time.NewTicker(5 * time.Millisecond); ; <-ticker.C {
				if _, err := io.WriteString(c, " "); err != nil {
					ticker.Stop()
					return false
				}
			}
		}, "too long"},
		"is endless": {func(c *net.TCPConn) bool {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"access_token\":\""+secret)
			for chunk := bytes.Repeat([]byte("x"), 32<<10); ; {
				if _, err := c.Write(chunk); err != nil {
					return false
				}
			}
		}, "no new token could be obtained"},
		"is closed":                   {func(c *net.TCPConn) bool { return false }, "could not be reached"},
		"resets":                      {func(c *net.TCPConn) bool { return reset(c) }, "could not be reached"},
		"answers in HTML":             {answer("text/html", "<html>"+secret+"</html>"), "no new token could be obtained"},
		"has an empty token":          {answer("application/json", `{"access_token":"","note":"`+secret+`"}`), "no new token could be obtained"},
		"has no token":                {answer("application/json", `{}`), "no new token could be obtained"},
		"answers null":                {answer("application/json", `null`), "no new token could be obtained"},
		"answers nothing":             {answer("application/json", ``), "no new token could be obtained"},
		"has a token of another type": {answer("application/json", `{"access_token":"other-`+secret+`","token_type":"mac"}`), "only Bearer"},
		"has a token with a newline":  {answer("application/json", `{"access_token":"`+secret+`\r\nX: y","token_type":"bearer"}`), "cannot be sent"},
		"says text/plain for JSON":    {answer("text/plain", good), ""}, // a form, to package oauth2
		"says nothing of its type":    {answer("", good), ""},
		"is well":                     {answer("application/json", good), ""},
	} {
		before := runtime.NumGoroutine()
		issuer := newFaultListener(t, func(conn *net.TCPConn, in *bufio.Reader, r *http.Request) bool {
			io.Copy(io.Discard, r.Body)
			return c.serve(conn)
		})
		srv := newFaultListener(t, func(c *net.TCPConn, in *bufio.Reader, r *http.Request) bool {
			if r.Header.Get("Authorization") == "Bearer fresh" {
				io.WriteString(c, faultSuccess+faultBody)
			} else {
				io.WriteString(c, faultRefusal+faultBody)
			}
			return true
		})
		tokens := &http.Client{Transport: &http.Transport{}}
		source := &TokenSource{
			Initial:      &oauth2.Token{AccessToken: secret, RefreshToken: secret},
			Fetch:        RefreshGrant(&oauth2.Config{ClientID: "c", ClientSecret: secret, Endpoint: oauth2.Endpoint{TokenURL: issuer.url()}}),
			FetchTimeout: 200 * time.Millisecond,
			HTTPClient:   tokens,
		}
		switch c.want {
		case "":
			source.FetchTimeout = 0 // however slow this machine is
		case "too long":
			source.FetchTimeout = 30 * time.Millisecond
		}
		transport := &Transport{Base: &http.Transport{}, Schemes: []Scheme{&Bearer{Source: source}}}
		req, err := http.NewRequestWithContext(t.Context(), "GET", srv.url(), nil)
		require.NoError(t, err)
		resp, err := transport.RoundTrip(req)
		if c.want == "" {
			require.NoError(t, err, name)
			require.Equal(t, 200, resp.StatusCode, name)
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		} else {
			var rejection *Rejection
			require.ErrorAs(t, err, &rejection, name)
			require.Equal(t, ReasonNoCredentials, rejection.Reason, name)
			for _, text := range everyText(err) {
				require.NotContains(t, text, secret, name)
			}
			if !strings.Contains(err.Error(), "too long") { // a slow machine may cut anything short
				require.ErrorContains(t, err, c.want, name)
			}
		}
		transport.CloseIdleConnections()
		tokens.CloseIdleConnections()
		srv.close(t)
		issuer.close(t)
		requireNoMoreGoroutines(t, before)
	}
}
