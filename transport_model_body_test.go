package authretry

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// putBody gives a request a body of some kind.
func (o *order) putBody(req *http.Request) {
	kind := o.pick(8)
	if kind < 2 {
		if kind == 1 {
			req.Body = http.NoBody
		}
		return
	}
	size := pickOf(o.script, 1, 50, 500, 5000, 70_000, 1<<20+1)
	o.content = modelContent[:size]
	shape := o.pick(24)
	newBody := func(name string) *clientBody {
		b := &modelBody{m: o.m, name: name, rest: o.content, closed: make(chan struct{}),
			portion: []int{1 << 30, 20, 33_000}[shape%3], delay: []time.Duration{0, 0, 1, 30}[shape/3%4] * tick}
		if shape >= 12 && kind == 7 {
			o.broken, b.err, b.rest = true, errBrokenBody, o.content[:size/2]
		}
		return &clientBody{b}
	}
	req.ContentLength = int64(size)
	switch kind {
	case 2:
		req.Body = io.NopCloser(bytes.NewReader(o.content))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(o.content)), nil }
	case 3:
		req.Body = io.NopCloser(strings.NewReader(string(o.content)))
	case 4:
		req.Body = newBody("with GetBody")
		fails := o.rarely()
		req.GetBody = func() (io.ReadCloser, error) {
			if fails {
				return nil, errBrokenBody
			}
			return newBody("of GetBody"), nil
		}
	case 5:
		req.Body = newBody("of known length")
	case 6:
		req.Body, req.ContentLength = newBody("of unknown length"), -1
	case 7:
		req.Body = newBody("that may fail")
		if shape%2 == 0 {
			req.ContentLength = -1
		}
	}
	if o.rarely() {
		req.Header.Set("Expect", "100-continue")
	}
}

var errBrokenBody = errors.New("the caller's body broke")

// A clientBody is a body as http.Client has it, which closes some by itself, and more than once.
type clientBody struct{ *modelBody }

func (clientBody) Close() error { return nil }

// taken returns the body that a Transport gets from http.Client. From then on it has to be closed.
func (m *model) taken(body io.ReadCloser) io.ReadCloser {
	c, ok := body.(*clientBody)
	if !ok {
		return body
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bodies = append(m.bodies, c.modelBody)
	return c.modelBody
}

// A modelBody is a body of the caller's: it must not be read by two at once, and must be closed once.
type modelBody struct {
	m       *model
	name    string
	rest    []byte
	portion int           // of one Read
	delay   time.Duration // before each of the first Reads
	err     error         // at its end; nil means EOF
	reads   int
	reading atomic.Bool
	closes  atomic.Int32
	once    sync.Once
	closed  chan struct{}
}

func (b *modelBody) Read(p []byte) (int, error) {
	if !b.reading.CompareAndSwap(false, true) {
		b.m.problem("a body (%s) is read by two at once", b.name)
		return 0, errBrokenBody
	}
	defer b.reading.Store(false)
	if b.reads++; b.delay > 0 && b.reads <= 3 {
		select {
		case <-time.After(b.delay):
		case <-b.closed:
		}
	}
	select {
	case <-b.closed:
		return 0, http.ErrBodyReadAfterClose
	default:
	}
	if len(b.rest) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), b.portion)], b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *modelBody) Close() error {
	b.closes.Add(1)
	b.once.Do(func() { close(b.closed) })
	return nil
}

// A modelAnswer is the body of a response. It ends with the context of its request, as that of an http.Transport does.
type modelAnswer struct {
	status int
	rest   []byte
	delay  time.Duration // before each Read
	end    <-chan struct{}
	read   atomic.Int64
	once   sync.Once
	closed chan struct{}
}

func (a *modelAnswer) Read(p []byte) (int, error) {
	a.read.Add(1)
	if a.delay > 0 {
		select {
		case <-time.After(a.delay):
		case <-a.closed:
		case <-a.end:
			return 0, io.ErrUnexpectedEOF
		}
	}
	if a.isClosed() {
		return 0, http.ErrBodyReadAfterClose
	}
	if len(a.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

func (a *modelAnswer) Close() error {
	a.once.Do(func() { close(a.closed) })
	return nil
}

func (a *modelAnswer) isClosed() bool {
	select {
	case <-a.closed:
		return true
	default:
		return false
	}
}

// An upload is the sending of one body by the wire.
type upload struct {
	c       *call
	req     *http.Request
	began   time.Time
	gated   bool          // the body must not be read yet: we have asked the server with Expect
	allowed chan struct{} // closed when the server has said 100 or has answered
	done    chan struct{} // closed when the body has been read, or will not be
	err     error
	closing sync.Once
}

// giveUp closes the body, once.
func (u *upload) giveUp() { u.closing.Do(func() { u.req.Body.Close() }) }

// start sends the body of req as http.Transport does: in a goroutine of its own, possibly after the answer. Most is
// how much is read of it; with rewind it is given up after the first bytes, and begun again by GetBody, as for a connection
// that was lost.
func (u *upload) start(most int, rewind bool, first int) {
	go func() {
		defer close(u.done)
		body := u.req.Body
		defer func() {
			if body == u.req.Body {
				u.giveUp()
			} else {
				body.Close()
			}
		}()
		if rewind && u.req.GetBody != nil {
			u.read(body, first)
			u.giveUp()
			again, err := u.req.GetBody()
			if err != nil {
				u.err = err
				return
			}
			body = again
		}
		got, err := u.read(body, most)
		if err != io.EOF {
			u.err = err
			return
		}
		if length := u.req.ContentLength; length > 0 && int64(len(got)) != length {
			u.err = errors.New("the body is not as long as its Content-Length")
			return
		}
		if u.c.broken || !bytes.Equal(got, u.c.content) {
			u.c.m.problem("a server got %d bytes as the whole body, which has %d", len(got), len(u.c.content))
		}
	}()
}

func (u *upload) read(body io.Reader, most int) (got []byte, err error) {
	chunk := make([]byte, 32<<10)
	for err == nil && len(got) < most {
		var n int
		n, err = body.Read(chunk[:min(len(chunk), most-len(got))])
		got = append(got, chunk[:n]...)
		if n > 0 && u.gated && time.Since(u.began) < expectTimeout {
			select {
			case <-u.allowed:
			default:
				u.gated = false
				u.c.m.problem("a body was sent before the server could refuse it")
			}
		}
	}
	return got, err
}
