package ntlm

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry"
)

// Bounds of the body of a refusal in the middle of a handshake, which has to end before the next message.
const (
	maxRefusal  = 64 << 10 // bytes
	refusalTime = 10 * time.Second
)

// A state is what a connection is doing.
type state int

const (
	busy   state = iota // RoundTrip has it
	open                // its response is with the caller
	idle                // it waits for a request
	closed              // and counts no more
)

// A conn is one connection. It is HTTP/1.1, so it has one request at a time.
type conn struct {
	*http.ClientConn
	pool  *pool
	proxy string // by which it goes; "" if by none

	// What follows is guarded by pool.mu.
	state    state
	isProved bool        // it is authenticated
	losses   int         // pool.losses when it was
	detach   func()      // ends what binds the request under way to its context
	timer    *time.Timer // closes it when it has been idle for long
}

// roundTrip sends a request under the end of ctx, and of the values of the other. The connection closes if that fails.
//
// A ClientConn leaves something behind in the context of a request that fails, so it gets one that ends with the request.
func (c *conn) roundTrip(ctx context.Context, req *http.Request) (resp *http.Response, err error) {
	own, cancel := context.WithCancelCause(context.WithoutCancel(req.Context()))
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	c.setDetach(func() { stop(); cancel(context.Canceled) })()
	defer func() {
		if resp == nil { // also if a hook of httptrace panics
			c.end()
		}
	}()
	if resp, err = c.RoundTrip(req.WithContext(own)); err == nil {
		return resp, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, err
}

// setDetach sets what ends a request, and returns what ends the one before.
func (c *conn) setDetach(detach func()) (before func()) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	before, c.detach = c.detach, detach
	if before == nil {
		return func() {}
	}
	return before
}

// send sends the caller's request, and lets the caller have the connection until the end of the response.
func (c *conn) send(req *http.Request, body *heldBody, authorization string) (*http.Response, error) {
	var began atomic.Bool
	trace := &httptrace.ClientTrace{WroteHeaders: func() { began.Store(true) }}
	own := withAuthorization(req, body, authorization)
	resp, err := c.roundTrip(req.Context(), own.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err != nil {
		if !began.Load() || mayArriveTwice(req) {
			err = &goneError{err}
		}
		return nil, err
	}
	resp.Request = req
	c.learn(resp.StatusCode, authorization != "")
	c.give()
	return resp, nil
}

// learn notes what a response says of the login.
func (c *conn) learn(status int, wasSent bool) {
	p := c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case status == http.StatusUnauthorized && wasSent:
		p.refused = true
	case status == http.StatusUnauthorized && c.isProved:
		if c.losses == p.losses { // or else it has been counted
			p.losses++
		}
		c.isProved = false
	case wasSent && isLetIn(status):
		p.refused = false
		c.isProved, c.losses = true, p.losses
	}
}

// isLetIn reports whether a status other than 401 says that the server has taken the login, rather than that it, or a gateway in
// front of it, has not come to that.
func isLetIn(status int) bool {
	return status < 500 && status != http.StatusProxyAuthRequired && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests
}

// give leaves the connection to the caller, who has a response of it.
func (c *conn) give() {
	c.pool.mu.Lock()
	c.state = open
	c.pool.mu.Unlock()
	c.settle()
}

// settle looks at what has become of a connection that RoundTrip does not have. It is called when something may have.
func (c *conn) settle() {
	p := c.pool
	p.mu.Lock()
	isDead := c.Err() != nil
	wasOpen := c.state == open
	if c.state == busy || c.state == closed || !isDead && !(wasOpen && c.Available() > 0) {
		p.mu.Unlock()
		return
	}
	var detach func()
	if isDead || !c.isProved || p.users == 0 {
		detach = c.endLocked()
	} else {
		c.state, detach, c.detach = idle, c.detach, nil
		p.idle = append(p.idle, c)
		c.timer = time.AfterFunc(p.idleFor, c.endIdle)
	}
	p.mu.Unlock()
	detach()
	if wasOpen {
		<-p.slots
	}
}

// endIdle closes the connection, if it is idle.
func (c *conn) endIdle() {
	c.pool.mu.Lock()
	end := func() {}
	if c.state == idle {
		end = c.endLocked()
	}
	c.pool.mu.Unlock()
	end()
}

// end closes the connection. It counts no more.
func (c *conn) end() {
	c.pool.mu.Lock()
	end := c.endLocked()
	c.pool.mu.Unlock()
	end()
}

// endLocked is end for who has locked the pool, and calls what is returned when it is not locked any more.
func (c *conn) endLocked() (end func()) {
	p := c.pool
	if c.state == closed {
		return func() {}
	}
	if c.state == idle {
		c.timer.Stop()
		p.idle = slices.DeleteFunc(p.idle, func(other *conn) bool { return other == c })
	}
	c.state = closed
	p.conns--
	detach := c.detach
	c.detach = nil
	return func() {
		c.Close()
		if detach != nil {
			detach()
		}
	}
}

// handshake sends the first message, and returns what authenticates the request that comes next. It is "" if the server does not
// ask for it: then the connection is closed.
//
// The first message goes without the caller's body, and where the request was challenged (isFirst) with its method, since a server
// may ask for one method and not for another. Then a refusal without a message of the server's is the response to the request. At
// other times it goes with HEAD, by which nothing is done at a place that is open to all.
func (c *conn) handshake(req *http.Request, isFirst bool) (authorization string, refusal *http.Response, err error) {
	method := http.MethodHead
	if isFirst {
		method = req.Method
	}
	leg := &http.Request{Method: method, URL: req.URL, Host: req.Host, Header: http.Header{"Authorization": {negotiateMessage}}}
	for _, name := range []string{"User-Agent", "Cookie"} { // by which a gateway may choose where to send it
		if values, ok := req.Header[name]; ok {
			leg.Header[name] = values
		}
	}
	resp, err := c.roundTrip(req.Context(), leg) // without the caller's httptrace
	if err != nil {
		return "", nil, &goneError{err}
	}
	err = errNoToken
	if resp.StatusCode == http.StatusUnauthorized {
		authorization, err = c.pool.user.authenticate(resp, resp.Header["Www-Authenticate"], req.URL.Hostname())
		if err == errNoToken && isFirst {
			resp.Request = req
			c.give()
			return "", resp, nil
		}
	}
	switch {
	case err == errNoToken:
		c.end()
		return "", nil, nil
	case err != nil:
		c.end()
		return "", nil, &handshakeError{err}
	}
	return authorization, nil, c.next(resp)
}

// next ends a refusal, so that the connection can have the next request.
func (c *conn) next(resp *http.Response) error {
	if resp.Close {
		c.end()
		return &goneError{&handshakeError{errors.New("ntlm: the server closes the connection between NTLM's messages")}}
	}
	overdue := time.AfterFunc(refusalTime, c.end)
	n, err := io.CopyN(io.Discard, resp.Body, maxRefusal+1)
	inTime := overdue.Stop()
	resp.Body.Close()
	if err == io.EOF {
		err = c.Reserve()
	}
	if n > maxRefusal || !inTime {
		err = &handshakeError{errors.New("ntlm: the server's refusal does not end, and its connection is of no use before that")}
	} else if err != nil {
		err = &goneError{err}
	}
	if err != nil {
		c.end()
	}
	return err
}

// A handshakeError says why there is no answer to the server's message.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// A goneError means that the connection was closed, and that the request may be sent by another.
type goneError struct{ err error }

func (e *goneError) Error() string { return e.err.Error() }
func (e *goneError) Unwrap() error { return e.err }

func isGone(err error) bool {
	_, ok := errors.AsType[*goneError](err)
	return ok
}

// mayArriveTwice reports whether a request can be sent again when it is not known whether it has arrived, as net/http has it.
func mayArriveTwice(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	_, ok := req.Header["Idempotency-Key"]
	_, also := req.Header["X-Idempotency-Key"]
	return ok || also
}

var _ authretry.Carrier = (*session)(nil)
