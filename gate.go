package authretry

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// expectTimeout is how long a body waits for "100 Continue": servers that know nothing of it say nothing.
	expectTimeout = time.Second

	// How much of a body of unknown length is read ahead, and how often other goroutines get a turn meanwhile, to see
	// whether it is large.
	peekSize  = 64 << 10
	peekTurns = 5000
)

// A gate holds the first sender of a body back until the server has asked for it, or has had time to refuse it.
type gate struct {
	asked  atomic.Int64 // when the request's headers were written, in nanoseconds; 0 if not known
	heard  atomic.Bool  // the server has asked for the body
	waited atomic.Bool  // as long as it could
	once   sync.Once
	open   chan struct{}
	ended  sync.Once
	over   chan struct{} // closed when the first send is not wanted any more
}

// expect makes the first send ask before it sends the body (RFC 9110 §10.1.1): no byte of the body is read until the
// server says 100, or has said nothing for a while, or RoundTrip has its answer and there will be no retry.
//
// http.Transport alone does not do: without ExpectContinueTimeout it does not wait, and over HTTP/1.1 it sends the
// body after a final status too if the server keeps the connection, as nginx and Squid do.
func (b *body) expect(req *http.Request) *http.Request {
	g := &gate{open: make(chan struct{}), over: make(chan struct{})}
	b.mu.Lock()
	b.current.gate = g
	b.mu.Unlock()
	if req.Header.Get("Expect") == "" {
		req.Header["Expect"] = []string{"100-continue"}
	}
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		WroteHeaders:   func() { g.asked.CompareAndSwap(0, time.Now().UnixNano()) },
		Got100Continue: func() { g.heard.Store(true); g.pass() },
	}))
	if b.rewind != nil { // Base may want another copy, for another connection or for a retry of its own
		again := b.copies()
		req.GetBody = func() (io.ReadCloser, error) {
			body, err := again()
			if err != nil {
				return nil, err
			}
			return &gatedCopy{body, g}, nil
		}
	}
	return req
}

// A gatedCopy is a copy of the body that Base has asked for. The server has not asked for that either.
type gatedCopy struct {
	io.ReadCloser
	gate *gate
}

func (c *gatedCopy) Read(p []byte) (int, error) {
	if !c.gate.wait(c.gate.over) {
		return 0, errSuperseded
	}
	return c.ReadCloser.Read(p)
}

// peek reads ahead what there is of a body of unknown length, and reports whether that is so much that a refusal had
// better come before it is sent. A reader that has not so much at hand is taken for a stream, which must neither be held
// up nor announced: its server may answer while it comes, and http.Transport drops the body of a request with Expect if an
// answer comes first. Neither must a body be announced that turns out to be empty or short.
func (b *body) peek() (large bool) {
	most := min(b.limit, peekSize)
	over := make(chan struct{}) // closed when nothing more is to be read
	done := make(chan struct{})
	var begun atomic.Bool
	b.reading <- struct{}{}
	go func() {
		defer func() { <-b.reading }()
		defer close(done)
		chunk := make([]byte, min(most+1, 32<<10))
		begun.Store(true)
		for b.err == nil && b.recorded() <= most {
			n := b.readInto(chunk[:min(int64(len(chunk)), most+1-b.recorded())])
			b.mu.Lock()
			b.record = append(b.record, chunk[:n]...)
			b.cuts = append(b.cuts, len(b.record))
			b.mu.Unlock()
			select {
			case <-over:
				return
			default:
			}
		}
	}()
	for turns := 0; turns < peekTurns; { // a timer would hold up every stream, in testing/synctest until its clock goes on
		select {
		case <-done:
			return b.recorded() > most
		default:
			runtime.Gosched()
		}
		if begun.Load() {
			turns++
		}
	}
	close(over)
	return false
}

func (b *body) recorded() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return int64(len(b.record))
}

func (g *gate) pass() { g.once.Do(func() { close(g.open) }) }

// end says that the first send is not wanted any more.
func (g *gate) end() { g.ended.Do(func() { close(g.over) }) }

// wait returns true when the gate is open, false if the sender was gone before.
func (g *gate) wait(gone <-chan struct{}) bool {
	select {
	case <-g.open:
		return true
	default:
	}
	left := expectTimeout
	if asked := g.asked.Load(); asked != 0 {
		left -= max(0, time.Since(time.Unix(0, asked))) // less than nothing if the clock was set back
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-gone:
		return false
	case <-g.open:
	case <-timer.C:
		g.waited.Store(true)
		g.pass()
	}
	return true
}
