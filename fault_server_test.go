package authretry

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A faultListener is a server whose every byte is the test's to say, and that knows which connections are open.
type faultListener struct {
	net.Listener
	handlers sync.WaitGroup
	requests atomic.Int32
	open     atomic.Int32

	// serve answers a request on a connection, which it may do as badly as it likes. It returns whether the
	// connection is good for another.
	serve func(c *net.TCPConn, in *bufio.Reader, r *http.Request) bool
}

func newFaultListener(t *testing.T, serve func(c *net.TCPConn, in *bufio.Reader, r *http.Request) bool) *faultListener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f := &faultListener{Listener: l, serve: serve}
	f.handlers.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.open.Add(1)
			f.handlers.Go(func() { f.handle(c.(*net.TCPConn)) })
		}
	})
	return f
}

func (f *faultListener) handle(c *net.TCPConn) {
	defer f.open.Add(-1)
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		f.requests.Add(1)
		if r.Header.Get("Expect") != "" {
			r.Body = &continuing{r.Body, c, sync.Once{}}
		}
		if !f.serve(c, in, r) {
			return
		}
	}
}

// A continuing body says "100 Continue" when it is first read.
type continuing struct {
	io.ReadCloser
	c    io.Writer
	once sync.Once
}

func (b *continuing) Read(p []byte) (int, error) {
	b.once.Do(func() { io.WriteString(b.c, "HTTP/1.1 100 Continue\r\n\r\n") })
	return b.ReadCloser.Read(p)
}

func (f *faultListener) url() string { return "http://" + f.Addr().String() }

// close ends the server, after it has seen that nobody holds a connection any more.
func (f *faultListener) close(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return f.open.Load() == 0 }, 30*time.Second, time.Millisecond, "a connection was left open")
	f.Close()
	f.handlers.Wait()
}

// reset has the peer see "connection reset".
func reset(c *net.TCPConn) bool {
	c.SetLinger(0)
	return false // it is closed then
}

const (
	faultRefusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"x\", nonce=\"n\", qop=\"auth\"\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 20\r\n\r\n"
	faultSuccess = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n"
	faultBody    = "twenty bytes of body"
)

// A connFault is something that can go wrong with an answer.
type connFault struct {
	name  string
	heard bool                                   // the head of the answer gets through
	whole bool                                   // and the body, too
	do    func(c *net.TCPConn, head string) bool // answers, and returns whether the connection lives on
}

var faults = []connFault{
	{"reset before the header", false, false, func(c *net.TCPConn, head string) bool { return reset(c) }},
	{"end before the header", false, false, func(c *net.TCPConn, head string) bool { return false }},
	{"end in the header", false, false, func(c *net.TCPConn, head string) bool { io.WriteString(c, head[:30]); return false }},
	{"reset in the header", false, false, func(c *net.TCPConn, head string) bool { io.WriteString(c, head[:30]); return reset(c) }},
	{"garbage for a header", false, false, func(c *net.TCPConn, head string) bool { io.WriteString(c, "SSH-2.0-x\r\n\r\n"); return false }},
	{"end after the header", true, false, func(c *net.TCPConn, head string) bool { io.WriteString(c, head); return false }},
	{"end in the body", true, false, func(c *net.TCPConn, head string) bool { io.WriteString(c, head+faultBody[:7]); return false }},
	{"end after the body", true, true, func(c *net.TCPConn, head string) bool { io.WriteString(c, head+faultBody); return false }},
	{"half-closed after the body", true, true, func(c *net.TCPConn, head string) bool {
		io.WriteString(c, head+faultBody)
		c.CloseWrite()
		return true // it would go on to read
	}},
	{"more than was announced", true, true, func(c *net.TCPConn, head string) bool {
		io.WriteString(c, head+faultBody+"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
		return true
	}},
	{"nothing wrong", true, true, func(c *net.TCPConn, head string) bool { io.WriteString(c, head+faultBody); return true }},
}

// A faultBodies makes the bodies of a request, and knows whether each of them has been closed once.
type faultBodies struct {
	content string
	made    []*closeCounter
}

func (b *faultBodies) open() *closeCounter {
	c := &closeCounter{Reader: strings.NewReader(b.content)}
	b.made = append(b.made, c)
	return c
}

// put gives a request a body of a kind.
func (b *faultBodies) put(req *http.Request, kind string) {
	switch kind {
	case "one-shot":
		req.Body, req.ContentLength = b.open(), -1
	case "with GetBody":
		req.Body, req.ContentLength = b.open(), int64(len(b.content))
		req.GetBody = func() (io.ReadCloser, error) { return b.open(), nil }
	}
}

// requireClosedOnce waits for http.Transport, which may close a body after its RoundTrip has returned.
func (b *faultBodies) requireClosedOnce(t *testing.T) {
	t.Helper()
	for _, c := range b.made {
		require.Eventually(t, func() bool { return c.closed.Load() > 0 }, 10*time.Second, time.Millisecond)
		require.Equal(t, int32(1), c.closed.Load())
	}
}

// A noticing is a Base whose requests with credentials wait until the connection that was dialed first is closed on our side, if
// it is told to.
type noticing struct {
	*http.Transport
	waits  bool
	closed chan struct{}
	once   sync.Once
}

func newNoticing(waits bool) *noticing {
	n := &noticing{Transport: &http.Transport{}, waits: waits, closed: make(chan struct{})}
	n.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &noticedConn{c, n}, nil
	}
	return n
}

func (n *noticing) RoundTrip(req *http.Request) (*http.Response, error) {
	if n.waits && hasCredentials(req) {
		select {
		case <-n.closed:
		case <-time.After(time.Minute):
			return nil, errors.New("the connection was not closed")
		}
	}
	return n.Transport.RoundTrip(req)
}

type noticedConn struct {
	net.Conn
	n *noticing
}

func (c *noticedConn) Close() error {
	defer c.n.once.Do(func() { close(c.n.closed) })
	return c.Conn.Close()
}
