package authretry

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync"
)

// ProxyTransport is an [http.RoundTripper] that authenticates to forward proxies: it answers a proxy's 407 with
// Proxy-Authorization (RFC 9110 §11.7) and sends the request once more. For an http URL the proxy refuses the request
// itself; for an https URL it refuses the CONNECT that opens the tunnel. What a proxy asked for is remembered, so that
// the next request or CONNECT carries credentials at once.
//
// It is the Base of a [Transport] if the origin demands credentials too. The two share nothing: a proxy's credentials
// never go to an origin, and a 407 that comes from an origin, directly or through a tunnel, is not answered.
// Through a proxy without a tunnel, an origin's 407 cannot be told from the proxy's; the answer goes to the proxy.
//
// A request for an http URL that is refused for good returns the 407, and [Explain] says why. One for an https URL
// returns an error of type [*Rejection], with the status 407 and the proxy's challenges, for there is no response: the
// origin was never asked.
//
// What the caller says counts: a Proxy-Authorization header, on the request for an http URL or from the hooks of Base
// for CONNECT, or a user name in the proxy's URL, is sent as it is and never replaced. SOCKS proxies are left to
// http.Transport.
//
// A ProxyTransport is safe for concurrent use. It must not be copied, nor its fields changed, after its first use.
type ProxyTransport struct {
	// Base says which proxy to use for which request, and how to connect. The ProxyTransport works on a clone of it,
	// with connections of its own; protocols that were added by RegisterProtocol are not cloned. Its hooks
	// GetProxyConnectHeader and OnProxyConnectResponse are called as ever, but an error that the latter has
	// for a 407 counts only if that is not going to be answered. If nil, it is http.DefaultTransport, whose Proxy
	// is http.ProxyFromEnvironment.
	Base *http.Transport

	// Schemes are the ways to authenticate to proxies, in order of preference, the strongest first. At least one
	// is required. A [CredentialsFunc] of theirs is asked for the proxy's origin, such as "http://proxy.example.com:3128".
	Schemes []Scheme

	// AllowPlaintext lets Basic, Bearer and other reusable secrets go to a proxy whose URL is http://, for everybody
	// on the way to read. By default they go to proxies with an https:// URL and to loopback only, and
	// otherwise the request fails. Digest may always.
	AllowPlaintext bool

	// ReplayLimit is as in [Transport]. It matters to http URLs only: a CONNECT is refused before anything is read.
	ReplayLimit int64

	// OnEvent is called with each step of each request, like [Transport.OnEvent], and by goroutines of http.Transport too. The
	// events' Origin is that of the proxy, or of the request if it goes through no HTTP proxy.
	OnEvent func(context.Context, Event)

	once      sync.Once
	auth      *authenticator
	transport *http.Transport // the clone, with hooks of our own; those of Base are below
	err       error           // what is wrong with the fields

	proxy             func(*http.Request) (*url.URL, error)
	connectHeader     http.Header
	getConnectHeader  func(ctx context.Context, proxyURL *url.URL, target string) (http.Header, error)
	onConnectResponse func(ctx context.Context, proxyURL *url.URL, connectReq *http.Request, connectRes *http.Response) error
}

// NewProxyTransport returns a ProxyTransport over a clone of base, or of http.DefaultTransport if base is nil, with the
// given schemes, in order of preference.
//
// It returns the struct rather than an http.RoundTripper because most proxies have http:// URLs, and whether Basic
// may go there is for the caller to say, by [ProxyTransport.AllowPlaintext].
func NewProxyTransport(base *http.Transport, schemes ...Scheme) *ProxyTransport {
	return &ProxyTransport{Base: base, Schemes: schemes}
}

// RoundTrip implements http.RoundTripper. See [ProxyTransport].
func (t *ProxyTransport) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	return t.roundTrip(req, &proxyWay{t: t})
}

// NewClientConn returns a new connection to a server, as [http.Transport.NewClientConn] does: by a tunnel through the proxy if there
// is one, with credentials for that. The scheme must be https, since other requests do not go by tunnels. It is for a [Carrier] whose
// requests must have a connection that nobody else uses.
func (t *ProxyTransport) NewClientConn(ctx context.Context, scheme, address string) (*http.ClientConn, error) {
	if scheme != "https" {
		return nil, errors.New("authretry: a ProxyTransport opens connections for https URLs only")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, (&url.URL{Scheme: scheme, Host: address, Path: "/"}).String(), nil)
	if err != nil {
		return nil, err
	}
	way := &proxyWay{t: t, opens: address}
	isOurs := true // also if what is called ends the goroutine
	defer func() {
		if isOurs && way.opened != nil {
			way.opened.Close()
		}
	}()
	if _, err := t.roundTrip(req, way); err != nil {
		return nil, err
	}
	isOurs = false
	return way.opened, nil
}

func (t *ProxyTransport) roundTrip(req *http.Request, way *proxyWay) (resp *http.Response, err error) {
	err = t.init()
	if t == nil {
		closeBody(req)
		return nil, &Rejection{Reason: ReasonMisconfigured, Err: err}
	}
	x := &exchange{authenticator: t.auth, req: withoutExplanation(req), aside: &aside{proxied: way}}
	defer x.contain(&resp, &err)
	if err != nil {
		closeBody(req)
		return nil, x.fail(nil, misconfiguration{err})
	}
	if req.URL == nil || req.Header == nil {
		return x.pass(0) // http.Transport returns the error for that
	}
	x.goTo(req.URL)
	if t.proxy == nil {
		return x.pass(ReasonProxyAuthentication) // an origin's 407, then
	}
	if way.proxy, err = t.proxy(req); err != nil {
		closeBody(req)
		return nil, x.lost(err)
	}
	if way.proxy == nil || way.proxy.Scheme != "http" && way.proxy.Scheme != "https" || req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return x.pass(ReasonProxyAuthentication) // directly, or by SOCKS
	}
	way.root = &url.URL{Scheme: way.proxy.Scheme, Host: way.proxy.Host, Path: "/"}
	x.goTo(way.root)
	x.tunnel = req.URL.Scheme == "https"
	if !x.tunnel && (way.proxy.User != nil || hasField(req.Header, "Proxy-Authorization")) {
		x.setAside().own = true
		return x.pass(ReasonProxyAuthentication)
	}
	return x.run()
}

// CloseIdleConnections closes the idle connections, to proxies and to origins.
func (t *ProxyTransport) CloseIdleConnections() {
	if t.init() == nil {
		t.transport.CloseIdleConnections()
	}
}

// Validate says what is wrong with the fields, as [Transport.Validate] does.
func (t *ProxyTransport) Validate() error {
	if err := t.init(); err != nil {
		return err
	}
	return validate(t.Schemes)
}

func (t *ProxyTransport) init() error {
	if t == nil {
		return errors.New("authretry: the ProxyTransport is nil; make one with NewProxyTransport")
	}
	t.once.Do(func() {
		t.auth = &authenticator{side: proxySide, allowPlaintext: t.AllowPlaintext, replayLimit: t.ReplayLimit, onEvent: t.OnEvent}
		if t.err = t.auth.setSchemes(t.Schemes, "ProxyTransport"); t.err != nil {
			return
		}
		base := t.Base
		if base == nil {
			var ok bool
			if base, ok = http.DefaultTransport.(*http.Transport); !ok {
				t.err = errors.New("authretry: http.DefaultTransport is not an *http.Transport; set ProxyTransport.Base")
				return
			}
		}
		t.setHooks(base.Clone())
	})
	return t.err
}

// setHooks puts our hooks into a clone of Base, and keeps those that it had.
func (t *ProxyTransport) setHooks(clone *http.Transport) {
	if clone.TLSNextProto == nil && clone.TLSClientConfig != nil && slices.Contains(clone.TLSClientConfig.NextProtos, "h2") {
		clone.ForceAttemptHTTP2 = true // Base does HTTP/2; a clone would offer it nevertheless, but not speak it
	}
	t.transport = clone
	t.connectHeader = clone.ProxyConnectHeader
	t.getConnectHeader, clone.GetProxyConnectHeader = clone.GetProxyConnectHeader, t.headerForConnect
	t.onConnectResponse, clone.OnProxyConnectResponse = clone.OnProxyConnectResponse, t.responseToConnect
	if t.proxy = clone.Proxy; t.proxy != nil {
		clone.Proxy = func(req *http.Request) (*url.URL, error) {
			return proxySendOf(req.Context()).proxy, nil
		}
	}
}

// A proxyWay is how the requests of one exchange are sent: directly, through a proxy, or in a tunnel through it.
type proxyWay struct {
	t       *ProxyTransport
	proxy   *url.URL // nil: none
	root    *url.URL // of the proxy that may ask for credentials; nil: none may
	refused string   // the Proxy-Authorization of a CONNECT that the proxy has just refused
	opens   string   // the address to which a connection is opened, in place of sending a request; "" if none is
	opened  *http.ClientConn
}

// A proxySend is one of the sends of an exchange. It travels in the context of its request, and of the dials that
// http.Transport makes for it, which may take longer than the exchange. So the proxy that was asked for once is the
// one that gets the request, whatever Base.Proxy would say the next time; and the CONNECT hooks know whose they are.
type proxySend struct {
	x       *exchange // of which dials may use what does not change, and no other request's dial changes
	proxy   *url.URL
	attempt int
	refused string // the Proxy-Authorization that the proxy has just refused

	mu     sync.Mutex
	answer lease     // to the challenge of the CONNECT before; taken by the first dial that needs one
	out    []connect // CONNECTs without an answer yet
	sent   []string  // the Proxy-Authorization of each CONNECT
}

type proxySendKey struct{}

func proxySendOf(ctx context.Context) *proxySend {
	s, _ := ctx.Value(proxySendKey{}).(*proxySend)
	return s
}

func (w *proxyWay) isProxied(*http.Request) bool { return false } // it is the proxy itself that is authenticated to

func (w *proxyWay) carrying() (http.RoundTripper, error) {
	return nil, errors.New("a ProxyTransport has no connections to give away")
}

// send implements way. A proxy's refusal of a CONNECT is an error to http.Transport; here it is a response.
func (w *proxyWay) send(x *exchange, req *http.Request, l *lease) (*http.Response, error) {
	s := &proxySend{x: x, proxy: w.proxy, attempt: int(x.attempts), refused: w.refused}
	if x.tunnel {
		s.answer, *l = *l, lease{}
	}
	x.foreign = x.tunnel // what comes through a tunnel is not from the proxy
	resp, err := w.roundTrip(req.WithContext(context.WithValue(req.Context(), proxySendKey{}, s)))
	if unused := s.takeAnswer(); unused.Session != nil {
		x.keep(&unused) // another request's connection was free by then
	}
	if err == nil {
		resp.Request = req
		return resp, nil
	}
	refusal, refused := errors.AsType[*connectRefusal](err)
	if !refused {
		return nil, withoutSecrets(err, s.secrets)
	}
	*l, w.refused = refusal.lease, refusal.sent
	x.foreign = false
	x.aside.hook, x.aside.own = refusal.hook, refusal.own
	asked := &http.Request{Method: http.MethodConnect, Header: http.Header{}}
	if refusal.sent != "" {
		asked.Header["Proxy-Authorization"] = []string{refusal.sent}
	}
	return &http.Response{StatusCode: http.StatusProxyAuthRequired, Header: refusal.header, Body: http.NoBody, Request: asked.WithContext(x.context())}, nil
}

// roundTrip sends a request, or opens a connection, which is then as good as a response.
func (w *proxyWay) roundTrip(req *http.Request) (resp *http.Response, err error) {
	if w.opens == "" {
		return w.t.transport.RoundTrip(req)
	}
	if w.opened, err = w.t.transport.NewClientConn(req.Context(), req.URL.Scheme, w.opens); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody}, nil
}

// secrets returns what has gone with CONNECTs.
func (s *proxySend) secrets() (list []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, value := range s.sent {
		list = append(list, secretsIn(value)...)
	}
	return append(list, unknownSecrets()...)
}

// hasField reports whether h has a field of that name, in whatever case.
func hasField(h http.Header, name string) bool {
	for key := range h {
		if equalFoldASCII(key, name) {
			return true
		}
	}
	return false
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
