package ntlm

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/authretry/authretry"
)

const (
	defaultMaxConns = 100
	defaultIdle     = 90 * time.Second // if Base has no IdleConnTimeout
)

// A pool has the connections of one account to one origin.
type pool struct {
	place
	user    user
	owner   *Scheme
	base    http.RoundTripper
	dialer  dialer                                // made of base
	proxy   func(*http.Request) (*url.URL, error) // base's; may be nil
	idleFor time.Duration
	slots   chan struct{} // one for each request that is under way

	mu      sync.Mutex // guards what follows, and the state of each conn
	idle    []*conn    // the one used last at the end
	conns   int        // all that there are
	users   int        // carriers that are in use; without any, no connection is kept
	losses  int        // how often a connection was not authenticated any more; none is used that is older than the last time
	refused bool       // the server has refused the user, who had not been let in since
}

// A dialer opens connections: an *http.Transport, or an *authretry.ProxyTransport.
type dialer interface {
	NewClientConn(ctx context.Context, scheme, address string) (*http.ClientConn, error)
}

// newPool returns the connections to a place, as base has them: an *http.Transport, or an *authretry.ProxyTransport over one.
func newPool(s *Scheme, at place, who user, base http.RoundTripper) (*pool, error) {
	p := &pool{place: at, user: who, owner: s, base: base, idleFor: defaultIdle, slots: make(chan struct{}, cmp.Or(max(s.MaxConns, 0), defaultMaxConns))}
	var transport *http.Transport
	switch base := base.(type) {
	case *http.Transport:
		transport = base.Clone()
		p.dialer = transport
	case *authretry.ProxyTransport:
		if base.Base != nil {
			transport = base.Base.Clone()
		} else if usual, ok := http.DefaultTransport.(*http.Transport); ok {
			transport = usual.Clone()
		} else {
			return nil, errors.New("ntlm: http.DefaultTransport is not an *http.Transport; set ProxyTransport.Base")
		}
		p.dialer = &authretry.ProxyTransport{Base: transport, Schemes: base.Schemes, AllowPlaintext: base.AllowPlaintext, OnEvent: base.OnEvent}
	default:
		return nil, fmt.Errorf("ntlm: Transport.Base must be an *http.Transport or an *authretry.ProxyTransport, and is a %T", base)
	}
	speakHTTP1(transport)
	if transport.IdleConnTimeout > 0 {
		p.idleFor = transport.IdleConnTimeout
	}
	if p.proxy = transport.Proxy; p.proxy != nil {
		transport.Proxy = func(req *http.Request) (*url.URL, error) {
			proxy, _ := req.Context().Value(proxyKey{}).(*url.URL)
			return proxy, nil
		}
	}
	return p, nil
}

// speakHTTP1 has a clone of a Base offer HTTP/1.1 alone: there is no NTLM over HTTP/2. Connections last, or there is no second message.
func speakHTTP1(t *http.Transport) {
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.ForceAttemptHTTP2 = false
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = new(tls.Config)
	}
	t.TLSClientConfig.NextProtos = []string{"http/1.1"} // Clone has copied it
	t.DisableKeepAlives = false
	t.MaxIdleConnsPerHost = 0
}

// proxyKey is the key of the proxy in the context of a dial.
type proxyKey struct{}

func (p *pool) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users++
}

func (p *pool) isUsed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.users > 0
}

func (p *pool) isRefused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

// leave says that a carrier is not in use any more.
func (p *pool) leave() {
	p.mu.Lock()
	p.users--
	p.mu.Unlock()
}

// closeUnused closes the idle connections, if no carrier is in use.
func (p *pool) closeUnused() {
	if !p.isUsed() {
		p.closeIdle()
		p.owner.left(p)
	}
}

func (p *pool) closeIdle() {
	p.mu.Lock()
	list := p.idle
	p.idle = nil
	p.mu.Unlock()
	closeAll(list)
}

// takeIdle returns an authenticated connection by that proxy, reserved for one request; nil if there is none.
func (p *pool) takeIdle(proxy string) *conn {
	for {
		c := p.popIdle(proxy)
		if c == nil || c.Reserve() == nil {
			return c
		}
		c.end() // the server has closed it
	}
}

// popIdle returns the connection by that proxy that was used last, busy from now on. Those of no use are closed.
func (p *pool) popIdle(proxy string) (found *conn) {
	var useless []*conn
	p.mu.Lock()
	for i := len(p.idle) - 1; i >= 0 && found == nil; i-- {
		switch c := p.idle[i]; {
		case c.losses != p.losses:
			useless = append(useless, c)
		case c.proxy == proxy:
			found = c
			found.state = busy
			found.timer.Stop()
			p.idle = slices.Delete(p.idle, i, i+1)
		}
	}
	p.mu.Unlock()
	closeAll(useless)
	return found
}

// makeRoom counts one more connection. An idle one is closed if there would be too many.
func (p *pool) makeRoom() {
	var oldest []*conn
	p.mu.Lock()
	p.conns++
	if p.conns > cap(p.slots) && len(p.idle) > 0 {
		oldest, p.idle = p.idle[:1:1], p.idle[1:]
	}
	p.mu.Unlock()
	closeAll(oldest)
}

// proxyFor returns the proxy that Base has for a request; nil for none.
func (p *pool) proxyFor(req *http.Request) (*url.URL, error) {
	if p.proxy == nil {
		return nil, nil
	}
	return p.proxy(req)
}

// open returns a new connection, for one request.
func (p *pool) open(ctx context.Context, proxy *url.URL) (*conn, error) {
	if strings.ContainsFunc(p.host, func(r rune) bool { return r > unicode.MaxASCII }) {
		return nil, errors.New("ntlm: the host is not in ASCII; write it as xn--")
	}
	p.makeRoom()
	c := &conn{pool: p, state: busy}
	if proxy != nil {
		c.proxy = proxy.String()
		ctx = context.WithValue(ctx, proxyKey{}, proxy)
	}
	defer func() {
		if c.ClientConn == nil { // also if what is called panics
			p.mu.Lock()
			p.conns--
			p.mu.Unlock()
		}
	}()
	var err error
	if c.ClientConn, err = p.dialer.NewClientConn(ctx, p.scheme, p.address()); err != nil {
		return nil, err
	}
	c.SetStateHook(func(*http.ClientConn) { c.settle() })
	return c, nil
}

func closeAll(list []*conn) {
	for _, c := range list {
		c.end()
	}
}

// A carrier is what the requests of a session go by: the connections of a pool. It has them kept as long as it is in use.
type carrier struct {
	*pool
	isFirst atomic.Bool // the next request is the one that was challenged
	isLeft  atomic.Bool // CloseIdleConnections was called after the last request
}

// CloseIdleConnections says that the connections are not in use by this carrier any more, until its next request.
func (c *carrier) CloseIdleConnections() {
	if c.isLeft.CompareAndSwap(false, true) {
		c.leave()
	}
	c.closeUnused()
}

// RoundTrip sends a request by a connection that is authenticated, or that it authenticates first. If the connection turns out to be
// closed, and nothing of the request can have arrived, or it may arrive twice, there is one more try with a new one.
func (c *carrier) RoundTrip(req *http.Request) (*http.Response, error) {
	body := holdBody(req)
	if err := c.mayCarry(req); err != nil {
		body.end(true)
		return nil, err
	}
	if c.isLeft.CompareAndSwap(true, false) {
		c.owner.entered(c.pool)
	}
	isFirst := c.isFirst.Swap(false)
	select {
	case c.slots <- struct{}{}:
	case <-req.Context().Done():
		body.end(true)
		return nil, context.Cause(req.Context())
	}
	failed := true // also if what is called panics, or ends the goroutine
	defer func() {
		body.end(failed)
		if failed {
			<-c.slots
		}
	}()
	resp, err := c.try(req, body, isFirst, false)
	if isGone(err) && req.Context().Err() == nil && body.renew() {
		resp, err = c.try(req, body, isFirst, true)
	}
	if err != nil {
		return nil, c.explain(err)
	}
	failed = false
	return resp, nil
}

// mayCarry returns why a request must not go by these connections. The Transport sees to it that there is no reason.
func (p *pool) mayCarry(req *http.Request) error {
	if req.URL == nil || placeOf(p.account, req.URL) != p.place || authretry.AccountOf(req.Context()) != p.account {
		return errors.New("ntlm: the request is of another account, or to another origin, than the connections are for")
	}
	return nil
}

// try sends the request once, by a new connection if isAgain: where one that was idle was dead, the others may be, too. With an error,
// the connection is closed. Where the server does not ask for a login, the request goes as others do, by Base.
func (c *carrier) try(req *http.Request, body *heldBody, isFirst, isAgain bool) (*http.Response, error) {
	proxy, err := c.proxyFor(req)
	if err != nil {
		return nil, err
	}
	key := ""
	if proxy != nil {
		key = proxy.String()
	}
	if !isAgain {
		if conn := c.takeIdle(key); conn != nil {
			return conn.send(req, body, "")
		}
	}
	conn, err := c.open(req.Context(), proxy)
	if err != nil {
		return nil, err
	}
	authorization, refusal, err := conn.handshake(req, isFirst)
	if refusal != nil || err != nil {
		return refusal, err
	}
	if authorization != "" {
		return conn.send(req, body, authorization)
	}
	own := withAuthorization(req, body, "")
	resp, err := c.base.RoundTrip(own)
	if err == nil {
		<-c.slots
		if resp.Request == own {
			resp.Request = req
		}
	}
	return resp, err
}

// withAuthorization returns a copy of a request, with the body for one try. The session's mark is not in it.
func withAuthorization(req *http.Request, body *heldBody, authorization string) *http.Request {
	own := req.WithContext(req.Context())
	own.Body = body.take()
	own.Header = req.Header.Clone()
	delete(own.Header, "Authorization")
	if authorization != "" {
		own.Header["Authorization"] = []string{authorization}
	}
	return own
}

// explain makes a Rejection of what is wrong with the server's message: there are no credentials for it.
func (p *pool) explain(err error) error {
	if h, ok := errors.AsType[*handshakeError](err); ok {
		return &authretry.Rejection{Reason: authretry.ReasonNoCredentials, Origin: p.origin(), Status: http.StatusUnauthorized, Schemes: []string{"NTLM"}, Err: h.err}
	}
	if gone, ok := errors.AsType[*goneError](err); ok {
		return gone.err
	}
	return err
}

// Format keeps credentials out of everything that package fmt prints.
func (p *pool) Format(f fmt.State, _ rune) { io.WriteString(f, "ntlm.pool{}") }

// MarshalJSON keeps credentials out of JSON.
func (p *pool) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }
