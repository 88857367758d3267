package authretry

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
)

// errFollowsRedirects fails a request whose Base has led its credentials astray.
var errFollowsRedirects = errors.New("authretry: Transport.Base follows redirects by itself, and was led to another origin with the credentials; " +
	"let it return redirects (http.ErrUseLastResponse), so that the http.Client outside follows them without")

// A leash keeps the credentials of one send from leaving their origin where Base follows redirects by itself, like an
// http.Client in its place, which takes headers along, X-API-Key to anybody and Authorization to other ports and to
// sub-domains.
//
// It watches, by httptrace, which host each header is written for, and closes the connection if our credentials are
// in one for another host than that which got them first, or in clear text after TLS. http.Transport has collected
// the header in a buffer by then, and sent nothing of it, unless it is long: then the host alone decides.
type leash struct {
	httptrace.ClientTrace
	req, callers http.Header   // with and without our credentials
	long         bool          // the header may not fit into the buffer of http.Transport
	started      *http.Request // the request, as it goes to Base

	mu     sync.Mutex // guards what is below: the hooks are called by goroutines of http.Transport
	conn   net.Conn   // the latest
	hop    hop        // of the latest header
	home   hop        // which got the credentials first
	broken bool       // a connection was closed
}

// A hop is where a header goes. Ports are in the host, if they are not those of the scheme.
type hop struct {
	host   string
	secure bool
}

// probation is how many sends of a Base of unknown type are on a leash, if it is not seen to follow a redirect.
const probation = 16

// distrusts reports whether Base may follow redirects, for all that is known of it.
func (t *Transport) distrusts(base http.RoundTripper) bool {
	switch base.(type) {
	case *http.Transport, *Transport, *ProxyTransport, *returningRedirects:
		return false
	}
	return t.follows.Load() || t.sends.Load() < probation && t.sends.Add(1) <= probation
}

// leashed sends req by Base: on a leash if Base has been seen to follow a redirect, or is new. What a leash costs is
// spared to all others.
func (x *exchange) leashed(req *http.Request) (*http.Response, error) {
	var l *leash
	if x.t.distrusts(x.t.base()) {
		l = newLeash(req, x.req)
	}
	if l == nil {
		resp, err := x.t.base().RoundTrip(req)
		if err != nil || resp == nil || resp.Request == nil || resp.Request == req || resp.Request.Response == x.req.Response {
			return resp, err
		}
		x.t.follows.Store(true)
		if l = newLeash(req, x.req); l != nil && !l.held(resp, x.origin) {
			resp.Body.Close()
			return nil, errFollowsRedirects
		}
		return resp, nil
	}
	resp, err := x.t.base().RoundTrip(l.started)
	if resp != nil && resp.Request != nil && resp.Request.Response != x.req.Response {
		x.t.follows.Store(true)
	}
	if !l.held(resp, x.origin) {
		if err == nil {
			resp.Body.Close()
		}
		return nil, errFollowsRedirects
	}
	if resp != nil && resp.Request == l.started {
		resp.Request = req
	}
	return resp, err
}

// newLeash returns the leash for credentials that req has, and the caller's request has not; nil if there are none.
func newLeash(req, callers *http.Request) *leash {
	const buffer = 4 << 10                // http.Transport's, by default
	size := 1<<10 + len(req.URL.RawQuery) // a guess at what else there is
	has := false
	for name, values := range req.Header {
		for _, v := range values {
			size += len(name) + len(v)
		}
		has = has || isCredential(name, values, callers.Header)
	}
	if !has {
		return nil
	}
	l := &leash{req: req.Header, callers: callers.Header, long: size > buffer}
	l.GotConn, l.WroteHeaderField = l.gotConn, l.wroteHeaderField
	l.started = req.WithContext(httptrace.WithClientTrace(req.Context(), &l.ClientTrace))
	return l
}

func (l *leash) gotConn(info httptrace.GotConnInfo) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = info.Conn
}

func (l *leash) wroteHeaderField(name string, values []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case len(values) == 0:
	case name == "Host" || name == ":authority":
		_, secure := l.conn.(*tls.Conn)
		l.hop = hop{strings.ToLower(values[0]), secure}
		if l.long && l.isAstray() {
			l.breakOff()
		}
	case l.carries(name, values):
		if l.home.host == "" {
			l.home = l.hop
		} else if l.isAstray() {
			l.breakOff()
		}
	}
}

// isAstray reports whether the latest header is for another host than that which got the credentials first, or less
// safe on its way.
func (l *leash) isAstray() bool {
	return l.home.host != "" && (l.hop.host != l.home.host || l.home.secure && !l.hop.secure)
}

// isCredential reports whether a header of a request is one that the caller's has not, and that is not for the way.
func isCredential(name string, values []string, callers http.Header) bool {
	return name != "Expect" && name != "Cookie" && !slices.Equal(values, callers[name])
}

// withoutCredentials returns req, or a copy of it without the credentials that are in sent and not in callers.
func withoutCredentials(req *http.Request, sent, callers http.Header) *http.Request {
	own := req
	for name, values := range sent {
		if !isCredential(name, values, callers) || !slices.Equal(req.Header[name], values) {
			continue
		}
		if own == req {
			own = req.WithContext(req.Context())
			own.Header = req.Header.Clone()
		}
		delete(own.Header, name)
		if v, ok := callers[name]; ok {
			own.Header[name] = v
		}
	}
	return own
}

// carries reports whether a header is one of our credentials.
func (l *leash) carries(name string, values []string) bool {
	name = http.CanonicalHeaderKey(name) // HTTP/2 has it in lower case
	ours := l.req[name]
	return isCredential(name, ours, l.callers) && slices.ContainsFunc(values, func(v string) bool { return slices.Contains(ours, v) })
}

func (l *leash) breakOff() {
	l.broken = true
	if l.conn != nil {
		l.conn.Close()
	}
}

// held reports whether the credentials have stayed where they belong. If they went elsewhere by a way that could not
// be watched, resp has it.
func (l *leash) held(resp *http.Response, home origin) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return false
	}
	for range maxHops {
		if resp == nil || resp.Request == nil || resp.Request == l.started || resp.Request.URL == nil {
			return true
		}
		if o := originOf(resp.Request.URL); o != home && !isUpgrade(home, o) && l.isOn(resp.Request.Header) {
			return false
		}
		resp = resp.Request.Response
	}
	return true
}

func (l *leash) isOn(h http.Header) bool {
	for name, values := range h {
		if l.carries(name, values) {
			return true
		}
	}
	return false
}
