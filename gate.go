package authretry

import (
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// expectTimeout is how long a body waits for "100 Continue": servers that know nothing of it say nothing.
	expectTimeout = time.Second

	// pauseTimeout is how long a body of unknown length waits for a refusal before any of it is sent.
	pauseTimeout = 200 * time.Millisecond
)

// A gate holds the first sender of a body back until the server has asked for it, or has had time to refuse it.
type gate struct {
	after  int64         // how many bytes pass before the gate is closed
	moment time.Duration // how long the first of them wait

	asked atomic.Int64 // when the request's headers were written, in nanoseconds; 0 if not known
	once  sync.Once
	open  chan struct{}
}

// expect makes the first send ask before it sends the body (RFC 9110 §10.1.1): no byte of the body is read until the
// server says 100, or has said nothing for a while, or RoundTrip has its answer and there will be no retry.
//
// http.Transport alone does not do: without ExpectContinueTimeout it does not wait, and over HTTP/1.1 it sends the
// body after a final status too if the server keeps the connection, as nginx and Squid do.
func (b *body) expect(req *http.Request) *http.Request {
	g := &gate{open: make(chan struct{})}
	b.current.gate = g
	req.Header["Expect"] = []string{"100-continue"}
	return req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		WroteHeaders:   func() { g.asked.CompareAndSwap(0, time.Now().UnixNano()) },
		Got100Continue: g.pass,
	}))
}

// pause gives a server a moment to refuse the first send before the body comes, and more time before there is more of
// it than could be replayed.
//
// A body of unknown length is not announced by Expect. It may be empty, or a stream whose server answers while it comes;
// and of a request with Expect http.Transport drops the body if an answer comes first.
func (b *body) pause() {
	b.current.gate = &gate{open: make(chan struct{}), after: b.limit, moment: pauseTimeout}
}

func (g *gate) pass() { g.once.Do(func() { close(g.open) }) }

// admit returns the part of p that may be read, when it may, after sent bytes. It returns false if the sender is gone
// before that.
func (g *gate) admit(p []byte, sent int64, gone <-chan struct{}) ([]byte, bool) {
	left := g.after - sent
	if sent == 0 && g.moment > 0 {
		if !g.wait(g.moment, gone) {
			return nil, false
		}
		g.moment = 0
	} else if left <= 0 {
		if !g.wait(expectTimeout, gone) {
			return nil, false
		}
		g.pass()
	}
	if left > 0 {
		p = p[:min(int64(len(p)), left)]
	}
	return p, true
}

// wait returns true when the gate is open or the time is over, false if the sender was gone before.
func (g *gate) wait(limit time.Duration, gone <-chan struct{}) bool {
	select {
	case <-g.open:
		return true
	default:
	}
	if asked := g.asked.Load(); asked != 0 {
		limit -= time.Since(time.Unix(0, asked))
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-gone:
		return false
	case <-g.open:
	case <-timer.C:
	}
	return true
}
