package ntlm

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/authretry/authretry"
)

// Bounds of what a proxy sends in answer to a CONNECT.
const (
	maxProxyHeader = 64 << 10 // bytes of one response's header
	maxInterim     = 8        // responses with a status of 1xx before the one that counts
	proxyTimeout   = 30 * time.Second
)

// A ProxyDialer dials through a proxy that asks for NTLM. It sends CONNECT, and both of NTLM's messages, by one connection, which
// http.Transport closes when a proxy refuses. Its DialContext is for an http.Transport without a Proxy:
//
//	dialer := &ntlm.ProxyDialer{Proxy: proxy, Username: `EXAMPLE\mufasa`, Password: password}
//	base := &http.Transport{DialContext: dialer.DialContext}
//
// All addresses are dialled through the proxy; NO_PROXY is not looked at. Each connection is a tunnel, those for http URLs too, so
// the proxy must allow CONNECT to their ports. Squid, as it comes, does for 443 alone.
//
// The first message goes ahead of any challenge: it has no secret. A proxy that lets everybody in is used without a login; one that
// asks for something else than NTLM gets nothing, and the dial fails with an error of type [*authretry.Rejection], as it does when
// the proxy refuses the login.
//
// A tunnel belongs to whoever opened it. So there is one ProxyDialer, and one http.Transport, for each user of the proxy. A
// ProxyDialer is safe for concurrent use. Its fields must not be changed after its first use.
type ProxyDialer struct {
	// Proxy is where the proxy is: http:// or https://, a host, and a port if it is not the scheme's own. A user name in it is an error.
	Proxy *url.URL

	// Username is "user", `DOMAIN\user` or "user@domain.example.com", and Password the password.
	Username string
	Password string

	// AllowPlaintext lets the login go to a proxy whose URL is http://, for everybody on the way to try passwords on. By
	// default it goes to proxies with an https:// URL and to loopback only, and otherwise the dial fails.
	AllowPlaintext bool

	// Dial connects to the proxy. If nil, a net.Dialer does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// TLSClientConfig is for a proxy with an https:// URL. It may be nil.
	TLSClientConfig *tls.Config

	// Header is sent with each CONNECT besides. It may be nil.
	Header http.Header
}

// DialContext returns a connection to an address such as "www.example.com:443", through the proxy. It takes 30 seconds at most, or
// as long as ctx lasts. If the connection is closed in the middle, there is one more try.
func (d *ProxyDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, proxyTimeout, errProxyTimeout)
	defer cancel()
	conn, err := d.tunnel(ctx, network, address)
	if isGone(err) && ctx.Err() == nil {
		conn, err = d.tunnel(ctx, network, address)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if gone, ok := errors.AsType[*goneError](err); ok {
		err = gone.err
	}
	return conn, err
}

// errProxyTimeout is a timeout for net.Error, too.
var errProxyTimeout error = timeoutError{}

type timeoutError struct{}

func (timeoutError) Error() string {
	return fmt.Sprint("ntlm: the proxy has not answered after ", proxyTimeout)
}
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }
func (timeoutError) Unwrap() error   { return context.DeadlineExceeded }

func (d *ProxyDialer) user() user { return user{d.Username, d.Password} }

// check returns what is wrong with the fields.
func (d *ProxyDialer) check() error {
	switch {
	case d.Proxy == nil || d.Proxy.Hostname() == "" || defaultPorts[d.Proxy.Scheme] == "":
		return errors.New("ntlm: ProxyDialer.Proxy must be an http or https URL with a host")
	case d.Proxy.User != nil:
		return errors.New("ntlm: ProxyDialer.Proxy must have no user name; set ProxyDialer.Username and Password")
	case d.Proxy.Scheme == "http" && !d.AllowPlaintext && !isLoopback(d.Proxy.Hostname()):
		return &authretry.Rejection{Reason: authretry.ReasonPlaintext, Origin: d.origin(), Schemes: []string{"NTLM"},
			Err: errors.New("ntlm: NTLM credentials are not sent over plain http to another host than loopback: use an https proxy, or set ProxyDialer.AllowPlaintext")}
	}
	return d.user().check()
}

// isLoopback reports whether a host is this machine by its address, or is called so (RFC 6761 §6.3).
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (d *ProxyDialer) origin() string { return placeOf("", d.Proxy).origin() }

// tunnel connects to the proxy, and has it connect to the address.
func (d *ProxyDialer) tunnel(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.connect(ctx, network)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	t := &tunnel{d: d, conn: conn, address: address}
	err = t.open()
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	if t.unread.Buffered() > 0 {
		return &readAhead{conn, t.unread}, nil
	}
	return conn, nil
}

// connect connects to the proxy.
func (d *ProxyDialer) connect(ctx context.Context, network string) (net.Conn, error) {
	dial := d.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	at := placeOf("", d.Proxy)
	conn, err := dial(ctx, network, at.address())
	if err != nil || at.scheme == "http" {
		return conn, err
	}
	config := &tls.Config{}
	if d.TLSClientConfig != nil {
		config = d.TLSClientConfig.Clone()
	}
	config.ServerName = cmp.Or(config.ServerName, at.host)
	config.NextProtos = []string{"http/1.1"} // there is no NTLM over HTTP/2
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// A tunnel is one that is about to be opened, by one connection to the proxy.
type tunnel struct {
	d       *ProxyDialer
	conn    net.Conn
	address string
	limit   io.LimitedReader // of conn
	unread  *bufio.Reader    // of limit
}

// open sends CONNECT, with as many messages as the proxy asks for.
func (t *tunnel) open() error {
	t.limit.R = t.conn
	t.unread = bufio.NewReader(&t.limit)
	resp, err := t.send(negotiateMessage)
	if err != nil || resp.StatusCode == http.StatusOK {
		return err
	}
	if resp.StatusCode != http.StatusProxyAuthRequired {
		return t.failed(resp)
	}
	resp.TLS = t.tlsState()
	authorization, err := t.d.user().authenticate(resp, resp.Header["Proxy-Authenticate"], t.d.Proxy.Hostname())
	if errors.Is(err, errNoToken) {
		return t.refused(resp, authretry.ReasonUnsupportedScheme, errors.New("the proxy did not go on with NTLM"))
	} else if err != nil {
		return t.refused(resp, authretry.ReasonNoCredentials, err)
	}
	if err := t.skip(resp); err != nil {
		return err
	}
	resp, err = t.send(authorization)
	switch {
	case err != nil || resp.StatusCode == http.StatusOK:
		return err
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return t.refused(resp, authretry.ReasonCredentialsRefused, authretry.ErrCredentialsRefused)
	}
	return t.failed(resp)
}

// send sends a CONNECT, and returns the response, whose body is not read.
func (t *tunnel) send(authorization string) (*http.Response, error) {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: t.address}, Host: t.address, Header: t.d.Header.Clone()}
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header["Proxy-Authorization"] = []string{authorization}
	if err := req.Write(t.conn); err != nil {
		return nil, &goneError{fmt.Errorf("ntlm: CONNECT could not be sent to the proxy %s: %w", t.d.origin(), err)}
	}
	for range maxInterim {
		t.limit.N = maxProxyHeader
		resp, err := http.ReadResponse(t.unread, req)
		switch {
		case t.limit.N == 0:
			return nil, fmt.Errorf("ntlm: the proxy %s has answered CONNECT with a header of more than %d bytes", t.d.origin(), maxProxyHeader)
		case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || isNetError(err):
			return nil, &goneError{fmt.Errorf("ntlm: the proxy %s has closed the connection: %w", t.d.origin(), err)}
		case err != nil:
			return nil, fmt.Errorf("ntlm: the answer of the proxy %s to CONNECT cannot be read", t.d.origin()) // err quotes it
		case resp.StatusCode >= 200:
			t.limit.N = 1 << 62
			return resp, nil
		}
	}
	return nil, fmt.Errorf("ntlm: the proxy %s has sent %d responses to CONNECT, and none that counts", t.d.origin(), maxInterim)
}

func isNetError(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// skip ends a response, so that the next CONNECT can be sent.
func (t *tunnel) skip(resp *http.Response) error {
	if resp.Close {
		return &goneError{fmt.Errorf("ntlm: the proxy %s closes the connection between NTLM's messages", t.d.origin())}
	}
	n, err := io.CopyN(io.Discard, resp.Body, maxRefusal+1)
	if n > maxRefusal || err != io.EOF {
		return fmt.Errorf("ntlm: the refusal of the proxy %s does not end, and its connection is of no use before that", t.d.origin())
	}
	return nil
}

func (t *tunnel) tlsState() *tls.ConnectionState {
	conn, ok := t.conn.(*tls.Conn)
	if !ok {
		return nil
	}
	state := conn.ConnectionState()
	return &state
}

// failed returns the error for a status that is not about credentials.
func (t *tunnel) failed(resp *http.Response) error {
	return fmt.Errorf("ntlm: the proxy %s has answered CONNECT with status %d", t.d.origin(), resp.StatusCode)
}

// refused returns the error for a refusal.
func (t *tunnel) refused(resp *http.Response, reason authretry.Reason, cause error) error {
	challenges, _ := authretry.ParseChallenges(resp.Header["Proxy-Authenticate"])
	for i := range challenges {
		challenges[i].Token68 = "" // it says nothing to anybody else
	}
	return &authretry.Rejection{Reason: reason, Origin: t.d.origin(), Status: resp.StatusCode, Challenges: challenges, Schemes: []string{"NTLM"}, Tried: []string{"NTLM"}, Err: cause}
}

// Format keeps the password out of everything that package fmt prints.
func (d ProxyDialer) Format(f fmt.State, _ rune) { io.WriteString(f, "ntlm.ProxyDialer{}") }

// MarshalJSON keeps the password out of JSON.
func (d ProxyDialer) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }

// A readAhead is a connection of which something was read already.
type readAhead struct {
	net.Conn
	unread *bufio.Reader
}

func (c *readAhead) Read(p []byte) (int, error) {
	if c.unread.Buffered() > 0 {
		return c.unread.Read(p)
	}
	return c.Conn.Read(p)
}
