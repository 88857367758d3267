package authtest

import (
	"bufio"
	"errors"
	"hash"
	"io"
	"net"
	"net/http"
	"sync"
)

// A recordedBody counts and hashes what is read of the request's body.
type recordedBody struct {
	io.ReadCloser
	mu  sync.Mutex // guards everything below: a handler may answer while it reads
	sum hash.Hash
	n   int64
	eof bool
}

func (b *recordedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n += int64(n)
	b.sum.Write(p[:n])
	b.eof = b.eof || errors.Is(err, io.EOF)
	return n, err
}

// A recordedWriter tells the exchange when the answer goes out, so that a client that has seen the answer finds
// the record complete.
type recordedWriter struct {
	http.ResponseWriter
	x        *exchange
	sent     bool
	hijacked bool
}

func (w *recordedWriter) WriteHeader(status int) {
	if !w.sent && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.sent = true
		w.x.answered(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recordedWriter) Write(p []byte) (int, error) {
	if !w.sent {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// end records the answer of a handler that has returned without writing one, which net/http makes a 200.
func (w *recordedWriter) end() {
	if !w.sent && !w.hijacked {
		w.sent = true
		w.x.answered(http.StatusOK)
	}
}

// Unwrap lets http.ResponseController find the methods of the server's own writer.
func (w *recordedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// forHandler returns w with the optional methods that the server's own writer has, and no others: handlers look for them.
func (w *recordedWriter) forHandler() http.ResponseWriter {
	flushes := supports[http.Flusher](w.ResponseWriter) || supports[interface{ FlushError() error }](w.ResponseWriter)
	hijacks := supports[http.Hijacker](w.ResponseWriter)
	switch {
	case flushes && hijacks:
		return struct {
			*recordedWriter
			flusher
			hijacker
		}{w, flusher{w}, hijacker{w}}
	case flushes:
		return struct {
			*recordedWriter
			flusher
		}{w, flusher{w}}
	case hijacks:
		return struct {
			*recordedWriter
			hijacker
		}{w, hijacker{w}}
	}
	return w
}

// supports reports whether the writer, or one that it wraps, is a T.
func supports[T any](w http.ResponseWriter) bool {
	for {
		if _, ok := w.(T); ok {
			return true
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = u.Unwrap()
	}
}

// A flusher is an http.Flusher; its FlushError is for http.ResponseController.
type flusher struct{ to *recordedWriter }

func (f flusher) Flush() { f.FlushError() }

func (f flusher) FlushError() error {
	if !f.to.sent {
		f.to.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(f.to.ResponseWriter).Flush()
}

// A hijacker is an http.Hijacker.
type hijacker struct{ to *recordedWriter }

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.to.ResponseWriter).Hijack()
	h.to.hijacked = h.to.hijacked || err == nil
	return conn, rw, err
}
