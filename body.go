package authretry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"
)

const (
	// defaultReplayLimit is how much of a one-shot body is kept for a replay if Transport.ReplayLimit is 0.
	defaultReplayLimit = 1 << 20

	// What is read of a refusal's body so that its connection can serve the retry; beyond that, a new connection
	// costs less.
	drainLimit   = 64 << 10
	drainTimeout = 200 * time.Millisecond
)

var (
	errBodyNotReplayable = errors.New("authretry: the body cannot be read twice; set Request.GetBody or raise Transport.ReplayLimit")
	errBodyNotHashable   = fmt.Errorf("authretry: the server wants the body hashed (Digest qop=auth-int): %w", errBodyNotReplayable)
	errExpectRefused     = errors.New("authretry: the request was sent twice already, the second time without an Expect: 100-continue; send it again yourself: it will carry credentials then")
	errNoBody            = errors.New("authretry: Request.GetBody returned neither a body nor an error")
	errSuperseded        = errors.New("authretry: the body has been taken over by the retry")
)

// A body is the body of the caller's request, made safe to send twice. A nil *body is that of a request without one.
//
// http.Transport may still read a body, and will close it, after its RoundTrip has returned. So each send gets a
// sender of its own; only the current one reads the caller's body, and what it reads is recorded up to a limit. The
// retry supersedes the first sender, replays the record, and goes on with the rest of the caller's body. That is
// closed once, by whoever is the last to send it.
//
// A short body in memory is sent as it is: http.Transport knows such bodies by their type, and writes them together
// with the header. Nobody needs to close it, and the retry reads its own copy.
type body struct {
	src      io.ReadCloser                 // the caller's Request.Body
	rewind   func() (io.ReadCloser, error) // gives another copy of it; nil if there is no way but to record src
	inMemory bool                          // src is sent as it is
	size     int64                         // of src; -1 or 0: unknown
	limit    int64                         // of the record
	unsent   io.Closer                     // a copy for the second send, until that begins
	unwatch  func() bool                   // undoes that the end of the context abandons it; nil: it does not

	reading chan struct{} // has an element during a Read of src, which may take long; guards err and chunk
	err     error         // what the last Read of src returned
	chunk   []byte        // what src is read into while it is recorded

	mu       sync.Mutex // guards what is below, never over I/O
	record   []byte     // what was read of src and is still to be sent, or may be sent again
	cuts     []int      // where the portions of the record end that were read ahead
	overflow bool       // no more is recorded, and src cannot be replayed: the record is incomplete, or nobody needs it
	current  *sender
	settled  bool // there will be no other sender
	closed   bool // src is
}

func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

// newBody takes over the body of req, which has one.
func newBody(req *http.Request, limit int64) *body {
	switch {
	case limit == 0:
		limit = defaultReplayLimit
	case limit < 0:
		limit = 0
	}
	b := &body{src: req.Body, rewind: req.GetBody, size: req.ContentLength, limit: limit, reading: make(chan struct{}, 1)}
	if again, size := memoryOf(req.Body); again != nil {
		b.size = size
		if b.rewind == nil {
			b.rewind = again
		}
		b.inMemory = size <= defaultReplayLimit
	}
	return b
}

// The types of what io.NopCloser returns, by which http.Transport knows a body in memory too.
var (
	nopCloserType         = reflect.TypeOf(io.NopCloser(nil))
	nopCloserWriterToType = reflect.TypeOf(io.NopCloser(new(bytes.Reader)))
)

// memoryOf returns what makes copies of a body that is in memory, as those of http.NewRequest are, and its length. It
// returns nil for any other.
func memoryOf(body io.ReadCloser) (again func() (io.ReadCloser, error), size int64) {
	if t := reflect.TypeOf(body); t != nopCloserType && t != nopCloserWriterToType {
		return nil, 0
	}
	switch r := reflect.ValueOf(body).Field(0).Interface().(type) {
	case *bytes.Reader:
		start := *r
		return func() (io.ReadCloser, error) { c := start; return io.NopCloser(&c), nil }, int64(r.Len())
	case *strings.Reader:
		start := *r
		return func() (io.ReadCloser, error) { c := start; return io.NopCloser(&c), nil }, int64(r.Len())
	case *bytes.Buffer:
		start := r.Bytes()
		return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(start)), nil }, int64(r.Len())
	}
	return nil, 0
}

// isLarge reports whether a refusal had better come before the body is sent: it could not be replayed, or it is so
// long that a server may close the connection rather than read it, and its answer would be lost.
func (b *body) isLarge() bool {
	if b.rewind != nil {
		return b.size > defaultReplayLimit
	}
	return b.size > 0 && b.size > b.limit
}

// isEndless reports whether the body may be more than could be replayed, for all that is known: its length is not.
func (b *body) isEndless() bool { return b.rewind == nil && b.size <= 0 }

// first puts the body on the first send.
func (b *body) first(req *http.Request) {
	if b != nil && !b.inMemory {
		b.putFirst(req)
	}
}

func (b *body) putFirst(req *http.Request) {
	s := &sender{body: b, gone: make(chan struct{})}
	req.Body = s
	b.mu.Lock() // abandon may be called at any time
	defer b.mu.Unlock()
	b.current = s
}

// isHeldBack reports whether the first send had to wait for the server.
func (b *body) isHeldBack() bool { return b != nil && b.current != nil && b.current.gate != nil }

// wasLetGo reports whether the server has asked for the body, or has let it wait for so long that it came unasked.
func (b *body) wasLetGo() bool { return b.current.gate.heard.Load() || b.current.gate.waited.Load() }

// hasWaited reports whether the server has said nothing to that, not even later.
func (b *body) hasWaited() bool { return b.current.gate.waited.Load() && !b.current.gate.heard.Load() }

// canReplay reports whether replay will do, as far as can be told without asking GetBody.
func (b *body) canReplay() bool {
	if b == nil || b.rewind != nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.overflow && !b.closed
}

// replay puts the body on the second send, or returns an error if that is impossible; then the first send goes on
// as if nothing had been asked.
func (b *body) replay(req *http.Request) error {
	if b == nil {
		return nil
	}
	if b.rewind != nil {
		again, err := b.rewind()
		if err == nil && again == nil {
			err = errNoBody
		}
		if err != nil {
			return err
		}
		req.Body = again
		if b.inMemory {
			return nil
		}
		if inMemory, _ := memoryOf(again); inMemory == nil {
			req.Body = &guardedBody{again}
		}
		b.unsent = req.Body
		b.mu.Lock()
		defer b.mu.Unlock()
		b.settled = true
		b.current.leaveLocked() // nobody wants the rest of it; whoever sends it still has to close it
		if g := b.current.gate; g != nil {
			g.end()
		}
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.overflow || b.closed {
		return errBodyNotReplayable
	}
	b.current.leaveLocked()
	b.current = &sender{body: b, gone: make(chan struct{}), replaying: true}
	b.settled = true
	req.Body = b.current
	return nil
}

// handOver says that the body is sent from now on, by whoever then closes it. It returns the copy that is to be sent, if there is one.
func (b *body) handOver() (unsent io.Closer) {
	if b != nil {
		unsent, b.unsent = b.unsent, nil
	}
	return unsent
}

// settle says that there will be no other sender than the current one, so that nothing more need be recorded.
func (b *body) settle() {
	if b != nil && !b.inMemory {
		b.settleSender()
	}
}

func (b *body) settleSender() {
	var src io.Closer
	defer func() { closeSource(src) }()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settled = true
	if !b.overflow && b.current != nil && !b.current.replaying {
		b.overflow = true
		if b.current.pos >= len(b.record) {
			b.record, b.cuts, b.current.pos = nil, nil, 0
		}
	}
	if b.current == nil || b.current.closed {
		src = b.closeLocked()
	} else if b.current.gate != nil {
		b.current.gate.pass()
	}
}

// abandon closes the caller's body whoever may be reading it: the request is not sent, or not sent again.
func (b *body) abandon() {
	if b == nil {
		return
	}
	defer func() { _ = recover() }() // a Close that panics may do so in a goroutine of package context
	b.mu.Lock()
	b.settled = true
	if b.current != nil && b.current.gate != nil {
		b.current.gate.end()
	}
	src := b.closeLocked()
	b.mu.Unlock()
	closeSource(src)
}

// closeLocked notes that the caller's body is closed, and returns it to be closed without the lock; nil if it was closed
// before.
func (b *body) closeLocked() io.Closer {
	if b.closed {
		return nil
	}
	b.closed = true
	b.record = nil
	return b.src
}

func closeSource(src io.Closer) error {
	if src == nil {
		return nil
	}
	return src.Close()
}

// copies returns a GetBody for a Session that has to read the body before it is sent, as Digest's auth-int does. A
// one-shot body is read into the record for that. If it does not fit, what was read of it is still sent.
func (b *body) copies() func() (io.ReadCloser, error) {
	if b.rewind != nil {
		return func() (io.ReadCloser, error) {
			again, err := b.rewind()
			if err == nil && again == nil {
				err = errNoBody
			}
			return again, err
		}
	}
	return func() (io.ReadCloser, error) {
		b.reading <- struct{}{}
		defer func() { <-b.reading }()
		chunk := make([]byte, 32<<10)
		for b.err == nil {
			var n int
			n, b.err = b.src.Read(chunk)
			if !b.take(chunk[:n]) {
				return nil, errBodyNotReplayable
			}
		}
		if b.err != io.EOF {
			return nil, b.err
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.overflow {
			return nil, errBodyNotReplayable
		}
		return io.NopCloser(bytes.NewReader(b.record)), nil
	}
}

// take records what was read of src ahead of any sender, and reports whether the record is complete. What exceeds the
// limit is recorded too, or it would be missing from what is sent.
func (b *body) take(p []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.record = append(b.record, p...)
	b.overflow = b.overflow || int64(len(b.record)) > b.limit
	return !b.overflow
}

// A sender is the body of one send.
type sender struct {
	*body
	gate      *gate // nil: nothing to wait for
	replaying bool
	pos       int           // in the record
	gone      chan struct{} // closed when nobody wants to send this any more
	left      bool          // gone is closed
	closed    bool
}

func (s *sender) leaveLocked() {
	if !s.left {
		s.left = true
		close(s.gone)
	}
}

// guardedBody is a body of the caller's that is read by a goroutine of http.Transport, where nobody else would catch a panic.
type guardedBody struct{ io.ReadCloser }

func (g *guardedBody) Read(p []byte) (n int, err error) { return readGuarded(g.ReadCloser.Read, p) }

func (g *guardedBody) Close() (err error) { return closeGuarded(g.ReadCloser) }

// readGuarded calls read, and returns an error if that panics, or returns what no reader may.
func readGuarded(read func(p []byte) (int, error), p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil || n < 0 || n > len(p) {
			n, err = 0, errBodyGone
		}
	}()
	return read(p)
}

func closeGuarded(c io.Closer) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{"the request's body panicked when it was closed"}
		}
	}()
	return closeSource(c)
}

// Read reads from the record, then from the caller's body.
func (s *sender) Read(p []byte) (int, error) { return readGuarded(s.read, p) }

func (s *sender) read(p []byte) (int, error) {
	if s.gate != nil {
		s.gate.wait(s.gone)
	}
	b := s.body
	if b.rewind != nil {
		select {
		case <-s.gone:
			return 0, errSuperseded
		default:
			return b.src.Read(p)
		}
	}
	for locked := false; ; locked = true {
		b.mu.Lock()
		gone, n := s.left || b.closed, s.readRecord(p)
		if locked && !gone && n == 0 {
			break
		}
		b.mu.Unlock()
		if locked {
			<-b.reading
		}
		switch {
		case gone:
			return 0, errSuperseded
		case n > 0:
			return n, nil
		}
		select {
		case b.reading <- struct{}{}:
		case <-s.gone:
			return 0, errSuperseded
		}
	}
	if s.replaying || b.overflow {
		b.record, b.cuts, s.pos = nil, nil, 0 // it will not be asked for again
	}
	final := s.replaying || b.overflow || b.settled
	b.mu.Unlock()
	if err := b.err; err != nil {
		<-b.reading
		return 0, err
	}
	if !final {
		return s.readAside(p)
	}
	defer func() { <-b.reading }()
	n, err := b.src.Read(p)
	b.err = err
	return n, err
}

// readRecord reads from the record. What was read ahead comes in the portions in which the caller's body gave it: somebody
// may wait for them. The caller holds b.mu.
func (s *sender) readRecord(p []byte) int {
	b := s.body
	if s.pos >= len(b.record) {
		return 0
	}
	rest := b.record[s.pos:]
	for _, cut := range b.cuts {
		if cut > s.pos && !s.replaying {
			rest = b.record[s.pos:cut]
			break
		}
	}
	n := copy(p, rest)
	s.pos += n
	return n
}

// readAside reads from the caller's body in a goroutine of its own, as long as there may be a retry. http.Transport ends a
// Read that blocks by closing the body, and waits for that; but the caller's body must not be closed then. So the Read is
// left to end by itself, and what it brings is recorded for the retry. It ends the use of b.reading.
func (s *sender) readAside(p []byte) (int, error) {
	b := s.body
	if b.chunk == nil {
		b.chunk = make([]byte, 32<<10)
	}
	chunk := b.chunk[:min(len(p), len(b.chunk))]
	var n int
	var err error
	done := make(chan struct{})
	go func() {
		defer func() { <-b.reading }()
		defer close(done)
		defer func() {
			err = b.err
			s.keep(chunk[:n])
		}()
		n = b.readInto(chunk)
	}()
	select {
	case <-done:
		copy(p, chunk[:n])
		return n, err
	case <-s.gone:
		return 0, errSuperseded
	}
}

// readInto reads from the caller's body in a goroutine of ours, where nobody else would catch a panic, or see that it has ended.
// It sets b.err.
func (b *body) readInto(p []byte) (n int) {
	b.err = errBodyGone
	n, b.err = readGuarded(b.src.Read, p)
	return n
}

// keep records what the first sender has read of src. If the retry has taken over during the Read, nothing of that may
// be lost, whatever the limit.
func (s *sender) keep(p []byte) {
	b := s.body
	b.mu.Lock()
	defer b.mu.Unlock()
	limit := b.limit
	if b.current.replaying {
		limit = math.MaxInt64
	}
	if b.overflow || int64(len(b.record)+len(p)) > limit {
		b.overflow, b.record, b.cuts, s.pos = true, nil, nil, 0
		return
	}
	if b.record == nil && 0 < b.size && b.size <= limit {
		b.record = make([]byte, 0, min(b.size, defaultReplayLimit)) // no more, since a Content-Length may be somebody else's
	}
	b.record = append(b.record, p...)
	s.pos += len(p)
}

// Close closes the caller's body, unless the retry has it or may need it.
func (s *sender) Close() error {
	return closeGuarded(s.leave())
}

// leave says that nobody sends s any more. It returns the caller's body if that is to be closed.
func (s *sender) leave() io.Closer {
	b := s.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.current != s || s.closed {
		return nil
	}
	s.closed = true
	s.leaveLocked()
	if b.settled || b.overflow || b.rewind != nil {
		return b.closeLocked()
	}
	return nil
}

// discard reads the rest of a refusal's body, if that is short and soon done, so that its connection can be used
// again, and closes it.
func discard(resp *http.Response) {
	if resp.Body == http.NoBody || resp.ContentLength > drainLimit {
		resp.Body.Close()
		return
	}
	overdue := time.AfterFunc(drainTimeout, func() {
		defer func() { _ = recover() }() // there is no caller here whom a panic of Base's body would reach
		resp.Body.Close()
	})
	io.CopyN(io.Discard, resp.Body, drainLimit)
	if overdue.Stop() {
		resp.Body.Close()
	}
}
