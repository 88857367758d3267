// Package guarded has the one HTTP client for URLs that a server names: the realm of a registry, the metadata of an
// authorization server. Whoever controls that server must not get us to send requests to what only we can reach.
//
// Each address is judged when it is about to be dialled, after DNS, so that a name that changes its address is judged by the
// one that is used. What is outside may be reached; private networks if the server that named the URL is in one itself, or if
// the user has named the host; this machine if that server is here, too; link-local addresses, metadata services, multicast
// and the like never.
//
// Where a proxy from the environment is in use, it is the proxy that resolves the name and dials. Then the name is resolved
// here as well, and refused if any address of it would be; what the proxy finds a moment later nobody can know. If it cannot be
// resolved here, it is left to the proxy, unless it is an address, or may be read as one.
package guarded

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

const (
	// MaxURL is how long a URL may be that a server names.
	MaxURL = 8 << 10

	// MaxAnswer is how many bytes of a response can be read.
	MaxAnswer = 1 << 20

	// Timeout is how long a request takes at most, the answer included.
	Timeout = 10 * time.Second
)

// A Policy says what may be reached.
type Policy struct {
	// Home is the server that named the URL.
	Home *url.URL

	// HomeAddr is the address at which that server was, as a connection to it says. If it is not valid, as behind a
	// proxy, the server counts as outside.
	HomeAddr netip.Addr

	// Named reports whether the user has named a host, which then may be in a private network or on this machine. If nil,
	// none is.
	Named func(host string) bool

	// Resolver resolves names. If nil, net.DefaultResolver does.
	Resolver *net.Resolver

	// Proxy is as that of http.Transport. If nil, it is http.ProxyFromEnvironment.
	Proxy func(*http.Request) (*url.URL, error)

	// TLS is as TLSClientConfig of http.Transport.
	TLS *tls.Config
}

// A RefusedError says why a URL that a server has named is not asked.
type RefusedError struct {
	Host string // of the URL
	Why  string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%+.100q is not asked, since a server has named it: %s", e.Host, e.Why)
}

// Check returns the URL that a server names, resolved against Home, or a *RefusedError. It judges no address.
func (p *Policy) Check(named string) (*url.URL, error) {
	refuse := func(host, why string) (*url.URL, error) { return nil, &RefusedError{host, why} }
	if len(named) > MaxURL {
		return refuse("", "it is too long")
	}
	u, err := url.Parse(named)
	if err != nil {
		return refuse("", "it is not a URL")
	}
	if p.Home != nil {
		u = p.Home.ResolveReference(u)
	}
	if strings.HasSuffix(named, "#") {
		return refuse(u.Hostname(), "it has a fragment")
	}
	if err := p.check(u); err != nil {
		return nil, err
	}
	return u, nil
}

// check does so for a URL that has been read.
func (p *Policy) check(u *url.URL) error {
	refuse := func(host, why string) error { return &RefusedError{host, why} }
	switch {
	case u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return refuse("", "it has no host")
	case u.Scheme == "http" && (p.Home == nil || p.Home.Scheme != "http"):
		return refuse(u.Hostname(), "it is not https")
	case u.Scheme != "https" && u.Scheme != "http":
		return refuse(u.Hostname(), "it is neither https nor http")
	case u.User != nil:
		return refuse(u.Hostname(), "it has a user name in it")
	case u.Fragment != "":
		return refuse(u.Hostname(), "it has a fragment")
	}
	return nil
}

// Client returns a client that obeys the policy. It follows no redirects, keeps no connections, and its responses end with an
// error after MaxAnswer bytes.
func (p *Policy) Client() *http.Client {
	return &http.Client{
		Transport:     guard{p},
		Timeout:       Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// guard is the RoundTripper of a Client.
type guard struct{ *Policy }

// RoundTrip implements http.RoundTripper.
func (g guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.check(req.URL); err != nil {
		closeBody(req)
		return nil, err
	}
	proxyOf := g.Proxy
	if proxyOf == nil {
		proxyOf = http.ProxyFromEnvironment
	}
	proxy, err := proxyOf(req)
	if err == nil && proxy != nil {
		err = g.judgeName(req.Context(), req.URL.Hostname())
	}
	if err != nil {
		closeBody(req)
		return nil, err
	}
	base := &http.Transport{Proxy: http.ProxyURL(proxy), DisableKeepAlives: true, ForceAttemptHTTP2: true, TLSHandshakeTimeout: Timeout,
		MaxResponseHeaderBytes: 64 << 10, TLSClientConfig: g.TLS.Clone()}
	if proxy == nil {
		dialer := &net.Dialer{Resolver: g.Resolver, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			return g.CheckAddress(req.URL.Hostname(), address)
		}}
		base.Proxy, base.DialContext = nil, dialer.DialContext
	}
	resp, err := base.RoundTrip(req)
	if err != nil {
		if refused, ok := errors.AsType[*RefusedError](err); ok {
			return nil, refused
		}
		return nil, err
	}
	resp.Body = &limited{resp.Body, MaxAnswer}
	return resp, nil
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// CheckAddress returns a *RefusedError if an address, with its port, must not be dialled for a host.
func (p *Policy) CheckAddress(host, address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil || !p.mayReach(host, at.Addr()) {
		return &RefusedError{host, "it leads to an address that only those inside can reach"}
	}
	return nil
}

// judgeName does so for all addresses of a host that somebody else is going to dial, a proxy or a browser, who may read it in another
// way than we would.
func (p *Policy) judgeName(ctx context.Context, host string) error {
	addr, ok := ReadHost(host)
	if !ok && !p.isNamed(host) {
		return &RefusedError{host, "it may be taken for an address that only those inside can reach"}
	}
	addrs := []netip.Addr{addr}
	if !addr.IsValid() {
		resolver := p.Resolver
		if resolver == nil {
			resolver = net.DefaultResolver
		}
		addrs, _ = resolver.LookupNetIP(ctx, "ip", host)
	}
	for _, addr := range addrs {
		if err := p.CheckAddress(host, netip.AddrPortFrom(addr, 443).String()); err != nil {
			return err
		}
	}
	return nil
}

// CheckHost resolves a host that somebody else is going to dial, such as the user's browser, and returns a *RefusedError if any
// address of it is one that we would not dial ourselves. It sends nothing there.
func (p *Policy) CheckHost(ctx context.Context, host string) error { return p.judgeName(ctx, host) }

// mayReach reports whether addr may be dialled for a host.
func (p *Policy) mayReach(host string, addr netip.Addr) bool {
	home := outside
	if p.HomeAddr.IsValid() {
		home = kindOf(p.HomeAddr)
	}
	switch kindOf(addr) {
	case outside:
		return true
	case private:
		return p.isNamed(host) || home == private || home == loopback
	case loopback:
		return p.isNamed(host) || home == loopback
	}
	return home == special && addr.Unmap() == p.HomeAddr.Unmap() // where the server itself is
}

func (p *Policy) isNamed(host string) bool { return p.Named != nil && p.Named(host) }

// limited is a response's body of which no more than left bytes are read.
type limited struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		var one [1]byte
		if n, err := l.ReadCloser.Read(one[:]); n == 0 {
			return 0, err
		}
		return 0, errTooLong
	}
	n, err := l.ReadCloser.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

var errTooLong = fmt.Errorf("the answer has more than %d bytes", MaxAnswer)
