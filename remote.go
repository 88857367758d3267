package authretry

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
)

// A remote is at which address the server is to which a request goes, as far as that can be told.
type remote struct {
	target string // the server's host and port

	mu     sync.Mutex // guards what follows: Base may use goroutines of its own
	direct bool       // the connection is one to the server, and not to a proxy
	at     string
}

// watch has a request say where it goes, if a Scheme asks for that.
func (x *exchange) watch(req *http.Request) *remote {
	if !x.asksRemote || req == x.req {
		return nil
	}
	r := &remote{target: hostPort(req.URL)}
	*req = *req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GetConn: r.getConn, GotConn: r.gotConn}))
	return r
}

// getConn is called before a connection is made or taken from the pool, with the address of the server, or of the proxy.
func (r *remote) getConn(hostPort string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.direct, r.at = strings.EqualFold(hostPort, r.target), ""
}

func (r *remote) gotConn(got httptrace.GotConnInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.direct && got.Conn != nil && got.Conn.RemoteAddr() != nil {
		r.at = got.Conn.RemoteAddr().String()
	}
}

// A refusedAt is where a refusal came from.
type refusedAt struct {
	url    string // of the request, without user info, query and fragment
	remote string // the address of the server, as far as that is known
}

// refusedAt returns where the refusal came from that is being answered, of an origin's.
func (x *exchange) refusedAt() refusedAt {
	if x.side != originSide || x.resp == nil {
		return refusedAt{}
	}
	u := url.URL{Scheme: x.req.URL.Scheme, Host: x.req.URL.Host, Path: x.req.URL.Path, RawPath: x.req.URL.RawPath}
	return refusedAt{u.String(), x.remote}
}

// refusalIn returns where the refusal came from that is being answered, if a context says so.
func refusalIn(ctx context.Context) refusedAt {
	at, _ := ctx.Value(refusalKey{}).(refusedAt)
	return at
}

// addr returns the address and port, or "".
func (r *remote) addr() string {
	if r == nil {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at
}

// hostPort returns where a URL leads, as http.Transport writes it. A host outside ASCII is one of which nothing will be known.
func hostPort(u *url.URL) string {
	o := originOf(u)
	return net.JoinHostPort(o.host, o.port)
}
