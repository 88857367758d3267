// Package dialed tells to which address a request has gone.
package dialed

import (
	"context"
	"net"
	"net/http/httptrace"
	"net/netip"
	"strconv"
	"strings"
	"sync"
)

// A Watch notes to which address a request goes. What a proxy is asked says nothing of that.
type Watch struct {
	target string // the server's host and port

	mu     sync.Mutex // guards what follows: what sends the request may use goroutines of its own
	direct bool       // the connection is one to the server, and not to a proxy
	addr   string
}

// New returns a Watch for a request to a host and port, which must be as http.Transport writes them, and a context for it.
func New(ctx context.Context, hostPort string) (*Watch, context.Context) {
	w := &Watch{target: hostPort}
	return w, httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GetConn: w.getConn, GotConn: w.gotConn})
}

// getConn is called before a connection is made or taken from the pool, with the address of the server, or of the proxy.
func (w *Watch) getConn(hostPort string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.direct, w.addr = strings.EqualFold(hostPort, w.target), ""
}

func (w *Watch) gotConn(got httptrace.GotConnInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.direct || got.Conn == nil || got.Conn.RemoteAddr() == nil {
		return
	}
	if addr := got.Conn.RemoteAddr().String(); isOf(w.target, addr) {
		w.addr = addr
	}
}

// Addr returns the address and port, "" if they are not known. A nil Watch knows none.
func (w *Watch) Addr() string {
	if w == nil {
		return ""
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.addr
}

// isOf reports whether an address is that of the target: it has its port, or its host says so. Any other is where a dialer of the program's
// goes by, such as a SOCKS proxy.
func isOf(target, address string) bool {
	host, port, err := net.SplitHostPort(target)
	at, errAt := netip.ParseAddrPort(address)
	if err != nil || errAt != nil {
		return false
	}
	own, _ := netip.ParseAddr(host)
	return port == strconv.Itoa(int(at.Port())) || own == at.Addr() || strings.EqualFold(host, "localhost") && at.Addr().IsLoopback()
}
