package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// bodyTime is how long a response's body is read after its header has come. Streams have bodies that never end, and broken
// servers have bodies that are shorter than they say.
const bodyTime = 3 * time.Second

// handshakeTime is how long a server may take for the handshake of TLS, which takes a few round trips. A port that speaks something
// else often says nothing at all.
const handshakeTime = 4 * time.Second

// A stage is how far a request has come.
type stage int

const (
	starting    stage = iota // there may be no connection yet
	handshaking              // there is one, and TLS has begun
	waiting                  // the request has been written
)

// watch sends a request by the base, notes how far it comes, and bounds the time that is given to the response's body.
func (r *recorder) watch(req *http.Request) (*http.Response, error) {
	r.at(starting)
	ctx, cancel := context.WithCancel(req.Context())
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.remote = info.Conn.RemoteAddr().String()
		},
		TLSHandshakeStart: func() { r.at(handshaking) },
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				r.at(waiting)
			}
		},
	})
	resp, err := r.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	if resp.Body == http.NoBody {
		cancel()
		return resp, nil
	}
	b := &boundedBody{ReadCloser: resp.Body, cancel: cancel}
	b.timer = time.AfterFunc(bodyTime, func() {
		b.overdue.Store(true)
		r.mu.Lock()
		r.slow = true
		r.mu.Unlock()
		cancel()
	})
	resp.Body = b
	return resp, nil
}

func (r *recorder) at(s stage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stage = s
}

// A boundedBody ends when it is overdue.
type boundedBody struct {
	io.ReadCloser
	timer   *time.Timer
	cancel  context.CancelFunc // of the request
	overdue atomic.Bool
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && b.overdue.Load() {
		err = io.EOF
	}
	return n, err
}

func (b *boundedBody) Close() error {
	b.timer.Stop()
	defer b.cancel()
	return b.ReadCloser.Close()
}
