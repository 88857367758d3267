package ntlm_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/ntlm"
	"github.com/stretchr/testify/require"
)

// A proxyLab is a proxy that asks for NTLM. What it answers can be something else.
type proxyLab struct {
	url    *url.URL
	answer func(w io.Writer, kind string, dials int) bool // in place of what follows, by the kind of message; true: it has answered
	body   string                                         // of a 407
	basic  bool                                           // it asks for Basic instead

	dials    atomic.Int32
	mu       sync.Mutex // guards what follows
	requests []string
	open     map[net.Conn]bool
}

func newProxyLab(t testing.TB, change func(*proxyLab)) *proxyLab {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxyLab{url: &url.URL{Scheme: "http", Host: listener.Addr().String()}, body: "407", open: map[net.Conn]bool{}}
	if change != nil {
		change(p)
	}
	if p.url.Scheme == "https" {
		cert := httptest.NewUnstartedServer(nil)
		cert.StartTLS()
		cert.Close()
		listener = tls.NewListener(listener, &tls.Config{Certificates: cert.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}})
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.dials.Add(1)
			p.mu.Lock()
			p.open[conn] = true
			p.mu.Unlock()
			all.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.mu.Lock()
		for conn := range p.open {
			conn.Close()
		}
		p.mu.Unlock()
		all.Wait()
	})
	return p
}

func (p *proxyLab) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		p.mu.Lock()
		delete(p.open, conn)
		p.mu.Unlock()
	}()
	r := bufio.NewReader(conn)
	nonce := make([]byte, 8)
	rand.Read(nonce)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		word, token, _ := strings.Cut(req.Header.Get("Proxy-Authorization"), " ")
		kind := kindOf(word, token)
		p.mu.Lock()
		p.requests = append(p.requests, req.Method+" "+req.Host+" "+kind)
		p.mu.Unlock()
		if p.answer != nil && p.answer(conn, kind, int(p.dials.Load())) {
			continue
		}
		challenge := "NTLM"
		if p.basic {
			kind, challenge = "", `Basic realm="proxy"`
			if token == base64.StdEncoding.EncodeToString([]byte("nala:her password")) {
				p.connect(conn, r, req.Host)
				return
			}
		}
		switch kind {
		case "1":
			challenge = "NTLM " + base64.StdEncoding.EncodeToString(message2{nonce: nonce, info: targetInfo(), flags: usualFlags}.bytes())
		case "3":
			message, _ := base64.StdEncoding.DecodeString(token)
			if m, err := parse3(message); err == nil && m.user == "mufasa" && m.verify(secret, nonce) {
				p.connect(conn, r, req.Host)
				return
			}
		}
		fmt.Fprintf(conn, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: %s\r\nContent-Length: %d\r\n\r\n%s", challenge, len(p.body), p.body)
	}
}

func (p *proxyLab) connect(conn net.Conn, r *bufio.Reader, host string) {
	origin, err := net.Dial("tcp", host)
	if err != nil {
		io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	if !p.basic { // http.Transport does not expect it
		io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
	}
	io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		io.Copy(origin, r)
		origin.Close()
	}()
	io.Copy(conn, origin)
}

func (p *proxyLab) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.requests
	p.requests = nil
	return list
}

func (p *proxyLab) dialer() *ntlm.ProxyDialer {
	return &ntlm.ProxyDialer{Proxy: p.url, Username: `EXAMPLE\mufasa`, Password: secret, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
}

func clientBy(t testing.TB, d *ntlm.ProxyDialer) *http.Client {
	transport := &http.Transport{DialContext: d.DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func hello(w http.ResponseWriter, r *http.Request) {
	for _, name := range []string{"Proxy-Authorization", "Authorization"} {
		if r.Header.Get(name) != "" {
			w.WriteHeader(http.StatusBadRequest)
		}
	}
	n, _ := io.Copy(io.Discard, r.Body)
	fmt.Fprintf(w, "%s, %d bytes", r.Proto, n)
}

func TestProxyDialer(t *testing.T) {
	for _, proxyScheme := range []string{"http", "https"} {
		for _, scheme := range []string{"http", "https"} {
			t.Run(proxyScheme+" proxy, "+scheme+" origin", func(t *testing.T) {
				p := newProxyLab(t, func(p *proxyLab) { p.url.Scheme = proxyScheme })
				origin := httptest.NewUnstartedServer(http.HandlerFunc(hello))
				proto := "HTTP/1.1"
				if scheme == "https" {
					origin.EnableHTTP2 = true
					origin.StartTLS()
					proto = "HTTP/2.0"
				} else {
					origin.Start()
				}
				defer origin.Close()
				client := clientBy(t, p.dialer())
				for range 3 {
					status, body := do(t, client, newRequest(t, "POST", origin.URL, strings.NewReader("12345")))
					require.Equal(t, 200, status)
					require.Equal(t, proto+", 5 bytes", body)
				}
				at := origin.Listener.Addr().String()
				require.Equal(t, []string{"CONNECT " + at + " 1", "CONNECT " + at + " 3"}, p.take())
				require.EqualValues(t, 1, p.dials.Load(), "all by one connection")
			})
		}
	}
}

// A proxy that asks for nothing is used without a login, and what the origin says first is not lost.
func TestProxyDialerWithoutLogin(t *testing.T) {
	p := newProxyLab(t, func(p *proxyLab) {
		p.answer = func(w io.Writer, _ string, _ int) bool {
			io.WriteString(w, "HTTP/1.1 200 OK\r\n\r\n220 ready\r\n")
			return true
		}
	})
	conn, err := p.dialer().DialContext(t.Context(), "tcp", "mail.test:25")
	require.NoError(t, err)
	defer conn.Close()
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "220 ready\r\n", line)
	require.Equal(t, []string{"CONNECT mail.test:25 1"}, p.take())
	io.WriteString(conn, "HELP / HTTP/1.1\r\nHost: mail.test\r\n\r\n") // to which the lab says the same
	line, err = r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 200 OK\r\n", line)
}

func TestProxyDialerRefused(t *testing.T) {
	p := newProxyLab(t, nil)
	d := p.dialer()
	d.Password = "wrong password"
	_, err := clientBy(t, d).Get("https://origin.test")
	var r *authretry.Rejection
	require.ErrorAs(t, err, &r)
	require.Equal(t, authretry.ReasonCredentialsRefused, r.Reason)
	require.Equal(t, 407, r.Status)
	require.Equal(t, p.url.String(), r.Origin)
	require.ErrorIs(t, err, authretry.ErrCredentialsRefused)
	require.Equal(t, []string{"CONNECT origin.test:443 1", "CONNECT origin.test:443 3"}, p.take())
	require.NotContains(t, fmt.Sprintf("%+v", err), "wrong password")
}

// What a proxy does instead of NTLM, and how often it is asked.
func TestProxyDialerBadProxies(t *testing.T) {
	const unauthorized = "HTTP/1.1 407 Proxy Authentication Required\r\n"
	for name, c := range map[string]struct {
		answer func(w io.Writer, kind string, dials int) bool
		text   string
		dials  int
	}{
		"asks for Basic": {func(w io.Writer, _ string, _ int) bool {
			io.WriteString(w, unauthorized+"Proxy-Authenticate: Basic realm=\"p\"\r\nContent-Length: 0\r\n\r\n")
			return true
		}, "it asks for Basic", 1},
		"changes from NTLM to Basic": {func(w io.Writer, kind string, _ int) bool {
			if kind == "3" {
				io.WriteString(w, unauthorized+"Proxy-Authenticate: Basic realm=\"p\"\r\nContent-Length: 0\r\n\r\n")
			}
			return kind == "3"
		}, "it asks for Basic", 1},
		"answers with a token for ever": {func(w io.Writer, _ string, _ int) bool {
			fmt.Fprintf(w, unauthorized+"Proxy-Authenticate: NTLM %s\r\nContent-Length: 0\r\n\r\n", base64.StdEncoding.EncodeToString(message2{nonce: make([]byte, 8), info: targetInfo(), flags: usualFlags}.bytes()))
			return true
		}, "credentials were refused", 1},
		"closes at once": {func(w io.Writer, _ string, _ int) bool { w.(net.Conn).Close(); return true }, "has closed the connection", 2},
		"closes in the middle": {func(w io.Writer, kind string, _ int) bool {
			if kind == "3" {
				w.(net.Conn).Close()
			}
			return kind == "3"
		}, "", 2},
		"closes in the middle of a header": {func(w io.Writer, _ string, _ int) bool {
			io.WriteString(w, unauthorized+"Proxy-Authenticate: N")
			w.(net.Conn).Close()
			return true
		}, "has closed the connection", 2},
		"closes between the messages": {func(w io.Writer, _ string, _ int) bool {
			io.WriteString(w, unauthorized+"Connection: close\r\nProxy-Authenticate: NTLM "+base64.StdEncoding.EncodeToString(message2{nonce: make([]byte, 8), info: targetInfo(), flags: usualFlags}.bytes())+"\r\nContent-Length: 0\r\n\r\n")
			return true
		}, "closes the connection between NTLM's messages", 2},
		"a header without end": {func(w io.Writer, _ string, _ int) bool {
			io.WriteString(w, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(w, "X-Endless: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
					return true
				}
			}
		}, "a header of more than 65536 bytes", 1},
		"a line without end": {func(w io.Writer, _ string, _ int) bool {
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 1000)); err != nil {
					return true
				}
			}
		}, "a header of more than 65536 bytes", 1},
		"responses without end": {func(w io.Writer, _ string, _ int) bool {
			for {
				if _, err := io.WriteString(w, "HTTP/1.1 103 Early Hints\r\n\r\n"); err != nil {
					return true
				}
			}
		}, "none that counts", 1},
		"a body without end": {func(w io.Writer, _ string, _ int) bool {
			io.WriteString(w, unauthorized+"Transfer-Encoding: chunked\r\nProxy-Authenticate: NTLM "+base64.StdEncoding.EncodeToString(message2{nonce: make([]byte, 8), info: targetInfo(), flags: usualFlags}.bytes())+"\r\n\r\n")
			for {
				if _, err := io.WriteString(w, "400\r\n"+strings.Repeat("x", 0x400)+"\r\n"); err != nil {
					return true
				}
			}
		}, "does not end", 1},
		"a token of 64 KiB": {func(w io.Writer, _ string, _ int) bool {
			io.WriteString(w, unauthorized+"Proxy-Authenticate: NTLM "+strings.Repeat("A", 60<<10)+"\r\nContent-Length: 0\r\n\r\n")
			return true
		}, "and may have 16384", 1},
		"no HTTP": {func(w io.Writer, _ string, _ int) bool { io.WriteString(w, secret+"\r\n\r\n"); return true }, "cannot be read", 1},
		"a failure": {func(w io.Writer, _ string, _ int) bool {
			io.WriteString(w, "HTTP/1.1 503 "+secret+"\r\n\r\n")
			return true
		}, "with status 503", 1},
		"forbidden": {func(w io.Writer, kind string, _ int) bool {
			if kind == "3" {
				io.WriteString(w, "HTTP/1.1 403 Forbidden\r\n\r\n")
			}
			return kind == "3"
		}, "with status 403", 1},
		"closes in the middle, once": {func(w io.Writer, kind string, dials int) bool {
			if dials == 1 && kind == "3" {
				w.(net.Conn).Close()
				return true
			}
			return false
		}, "with status 502", 2},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxyLab(t, func(p *proxyLab) { p.answer = c.answer })
			conn, err := p.dialer().DialContext(t.Context(), "tcp", "127.0.0.1:1")
			if conn != nil {
				conn.Close()
			}
			require.ErrorContains(t, err, c.text)
			require.NotContains(t, fmt.Sprintf("%v %+v", err, err), secret)
			require.EqualValues(t, c.dials, p.dials.Load())
			for _, request := range p.take() {
				require.NotContains(t, request, "Basic")
			}
		})
	}
}

// The end of the context ends the dial, wherever it is.
func TestProxyDialerObeysItsContext(t *testing.T) {
	for _, kind := range []string{"1", "3"} {
		reached := make(chan struct{}, 1)
		p := newProxyLab(t, func(p *proxyLab) {
			p.answer = func(_ io.Writer, k string, _ int) bool {
				if k == kind {
					reached <- struct{}{}
				}
				return k == kind
			}
		})
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("the cause")
		go func() {
			<-reached
			cancel(cause)
		}()
		_, err := p.dialer().DialContext(ctx, "tcp", "origin.test:443")
		require.ErrorIs(t, err, cause)
		require.EqualValues(t, 1, p.dials.Load())
	}
}

func TestProxyDialerFields(t *testing.T) {
	at := func(s string) *url.URL {
		u, err := url.Parse(s)
		require.NoError(t, err)
		return u
	}
	for text, d := range map[string]*ntlm.ProxyDialer{
		"must be an http or https URL":      {Username: "u"},
		"must be an http or https URL with": {Proxy: at("socks5://proxy.test"), Username: "u"},
		"must have no user name":            {Proxy: at("http://u:" + secret + "@127.0.0.1"), Username: "u"},
		"the user name is empty":            {Proxy: at("http://127.0.0.1"), Password: secret},
		"set ProxyDialer.AllowPlaintext":    {Proxy: at("http://proxy.test:3128"), Username: "u", Password: secret},
		"no route":                          {Proxy: at("http://proxy.test:3128"), Username: "u", Password: secret, AllowPlaintext: true},
	} {
		d.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") }
		_, err := d.DialContext(t.Context(), "tcp", "origin.test:443")
		require.ErrorContains(t, err, text)
		require.NotContains(t, err.Error(), secret)
	}

	p := newProxyLab(t, nil)
	d := p.dialer()
	d.Header = http.Header{"User-Agent": {"the program"}}
	_, err := d.DialContext(t.Context(), "tcp", "origin.test:443\r\nX: y")
	require.Error(t, err)
	require.Empty(t, p.take())
	require.Len(t, d.Header, 1)
}
