package authretry

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
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

	// Schemes are the ways to authenticate to proxies, in order of preference, the strongest first. There must be
	// one. A [CredentialsFunc] of theirs is asked for the proxy's origin, such as "http://proxy.example.com:3128".
	Schemes []Scheme

	// AllowPlaintext lets Basic, Bearer and other reusable secrets go to a proxy whose URL is http://, for everybody
	// on the way to read. By default they go to proxies with an https:// URL and to loopback only, and
	// otherwise the request fails. Digest may always.
	AllowPlaintext bool

	// ReplayLimit is as in [Transport]. It matters to http URLs only: a CONNECT is refused before anything is read.
	ReplayLimit int64

	// OnEvent is called with each step of each request that goes through an HTTP proxy, like [Transport.OnEvent],
	// and by goroutines of http.Transport too. The events' Origin is that of the proxy.
	OnEvent func(context.Context, Event)

	once       sync.Once
	negotiator *negotiator
	transport  *http.Transport // the clone, with hooks of our own; those of Base are below
	err        error           // what is wrong with the fields

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
func (t *ProxyTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := t.init(); err != nil {
		closeBody(req)
		return nil, &Rejection{Reason: ReasonMisconfigured, Err: err}
	}
	if t.proxy == nil || req.URL == nil || req.Header == nil {
		return t.transport.RoundTrip(req) // there is no proxy, or it knows what to say
	}
	proxy, err := t.proxy(req)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	x := &proxyExchange{t: t, req: req, proxy: proxy}
	x.reporter = reporter{onEvent: t.OnEvent, schemes: t.Schemes, ctx: req.Context()}
	if proxy == nil || proxy.Scheme != "http" && proxy.Scheme != "https" {
		return x.pass(originOf(req.URL), errOriginRefuses) // directly, or by SOCKS
	}
	x.origin = originOf(proxy)
	switch req.URL.Scheme {
	case "https":
		x.listen()
		return x.tunnel()
	case "http":
		if proxy.User != nil || hasField(req.Header, "Proxy-Authorization") {
			return x.pass(x.origin, errOwnProxyAuthorization)
		}
		x.listen()
		return x.forward()
	}
	return x.pass(originOf(req.URL), errOriginRefuses)
}

// CloseIdleConnections closes the idle connections, to proxies and to origins.
func (t *ProxyTransport) CloseIdleConnections() {
	if t.init() == nil {
		t.transport.CloseIdleConnections()
	}
}

func (t *ProxyTransport) init() error {
	if t == nil {
		return errors.New("authretry: the ProxyTransport is nil; make one with NewProxyTransport")
	}
	t.once.Do(func() {
		if len(t.Schemes) == 0 {
			t.err = errors.New("authretry: ProxyTransport.Schemes is empty: there is nothing to answer a 407 with")
			return
		}
		if t.negotiator, t.err = newNegotiator(t.Schemes, t.AllowPlaintext); t.err != nil {
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
		t.adopt(base.Clone())
	})
	return t.err
}

// adopt puts our hooks into a clone of Base, and keeps those that it had.
func (t *ProxyTransport) adopt(clone *http.Transport) {
	if clone.TLSNextProto == nil && clone.TLSClientConfig != nil && slices.Contains(clone.TLSClientConfig.NextProtos, "h2") {
		clone.ForceAttemptHTTP2 = true // Base does HTTP/2; a clone would offer it all the same, but not speak it
	}
	t.transport = clone
	t.connectHeader = clone.ProxyConnectHeader
	t.getConnectHeader, clone.GetProxyConnectHeader = clone.GetProxyConnectHeader, t.headerForConnect
	t.onConnectResponse, clone.OnProxyConnectResponse = clone.OnProxyConnectResponse, t.responseToConnect
	if t.proxy = clone.Proxy; t.proxy != nil {
		clone.Proxy = func(req *http.Request) (*url.URL, error) {
			return proxySendOf(req.Context()).x.proxy, nil
		}
	}
}

// The reasons for which a 407 is returned as it came.
var (
	errOriginRefuses         = errors.New("authretry: it was not a proxy of ours that sent this, so it got no proxy's credentials")
	errOwnProxyAuthorization = errors.New("authretry: the caller's own Proxy-Authorization went out (a user name in the proxy's URL becomes one), so it was left alone; remove it to let ProxyTransport authenticate")
)

// A proxyExchange is one call of ProxyTransport's RoundTrip.
type proxyExchange struct {
	reporter // the origin is the proxy's
	t        *ProxyTransport
	req      *http.Request // the caller's
	proxy    *url.URL      // nil: none
	body     *body         // nil: none

	ahead  lease // what went with the first send and was refused, or is out
	answer lease // what went with the second
}

// A proxySend is one of the sends of an exchange. It travels in the context of its request, and of the dials that
// http.Transport makes for it, which may take longer than the exchange. So the proxy that was asked for once is the
// one that gets the request, whatever Base.Proxy would say the next time; and the CONNECT hooks know whose they are.
type proxySend struct {
	x       *proxyExchange // of which dials may use what does not change: t, proxy, and reporter but for attempts
	attempt int
	refused string // the Proxy-Authorization that the proxy has just refused

	mu     sync.Mutex
	answer lease     // to the challenge of the CONNECT before; taken by the first dial that needs one
	out    []connect // CONNECTs without an answer yet
}

type proxySendKey struct{}

func proxySendOf(ctx context.Context) *proxySend {
	s, _ := ctx.Value(proxySendKey{}).(*proxySend)
	return s
}

// pass sends the request to where it was decided to go, without credentials of ours.
func (x *proxyExchange) pass(from origin, why error) (*http.Response, error) {
	resp, err := x.send(x.copy(), &proxySend{x: x})
	if err == nil && resp.StatusCode == http.StatusProxyAuthRequired {
		x.explain(resp, from, why)
	}
	return resp, err
}

// send puts req on the wire. The response's request is the caller's, without our credentials.
func (x *proxyExchange) send(req *http.Request, s *proxySend) (*http.Response, error) {
	x.attempts++
	s.attempt = x.attempts
	resp, err := x.t.transport.RoundTrip(req.WithContext(context.WithValue(req.Context(), proxySendKey{}, s)))
	if err == nil {
		resp.Request = x.req
	}
	return resp, err
}

// copy returns a copy of the caller's request, with headers of its own.
func (x *proxyExchange) copy() *http.Request {
	req := x.req.WithContext(x.ctx)
	req.Header = make(http.Header, len(x.req.Header)+1)
	for name, values := range x.req.Header {
		req.Header[name] = values[:len(values):len(values)] // shared, but not to be appended to
	}
	return req
}

// takeBody takes over the caller's body, and returns what ends the watch over it: http.Transport waits for a Read that
// blocks, whatever the context says.
func (x *proxyExchange) takeBody(limit int64) (release func() bool) {
	if x.body = newBody(x.req, limit); x.body == nil {
		return func() bool { return true }
	}
	return context.AfterFunc(x.ctx, x.body.abandon)
}

// forward sends a request for an http URL through the proxy: at most twice, the second time with an answer to what the
// proxy said to the first.
func (x *proxyExchange) forward() (*http.Response, error) {
	defer x.takeBody(x.t.ReplayLimit)()
	first, err := x.firstForward()
	if err != nil {
		x.body.abandon()
		return nil, x.fail(err)
	}
	expects := len(first.Header["Expect"]) > len(x.req.Header["Expect"])
	resp, err := x.send(first, &proxySend{x: x})
	if err == nil && expects && resp.StatusCode == http.StatusExpectationFailed {
		resp, err = x.insist(resp)
		if err != nil || resp.StatusCode != http.StatusProxyAuthRequired {
			return x.end(resp, err, lease{})
		}
		if answer, err := x.choose(x.req.Method, resp.Header, "", lease{}); err == nil {
			x.keep(answer)
		}
		return x.refuse(resp, &standing{body: errBodyNotReplayable})
	}
	if err != nil || resp.StatusCode != http.StatusProxyAuthRequired {
		return x.end(resp, err, x.ahead)
	}
	second, err := x.secondForward(first, resp)
	if err != nil {
		return x.refuse(resp, err)
	}
	discard(resp)
	resp, err = x.send(second, &proxySend{x: x})
	if err != nil || resp.StatusCode != http.StatusProxyAuthRequired {
		return x.end(resp, err, x.answer)
	}
	x.learnRefusal(x.req.Method, resp.Header, second.Header.Get("Proxy-Authorization"))
	return x.refuse(resp, &standing{refused: ErrCredentialsRefused})
}

// firstForward returns the request with what can be sent ahead.
func (x *proxyExchange) firstForward() (*http.Request, error) {
	ahead, err := x.t.negotiator.ahead(x.ctx, x.origin, x.asked(x.ctx, x.req.Method, ""))
	if err != nil {
		return nil, err
	}
	req := x.copy()
	x.body.first(req)
	if ahead.Session != nil {
		err := x.authorize(req, ahead)
		if err == nil {
			x.ahead = ahead
			x.report(Event{Kind: EventAuthorized, Attempt: 1}, ahead)
			return req, nil
		}
		if !errors.Is(err, errBodyNotReplayable) {
			return nil, err
		}
	}
	if x.body != nil && x.body.isLarge() {
		req = x.body.expect(req)
	}
	return req, nil
}

// secondForward returns the request with an answer to the challenges of resp, or an error that says why the refusal
// stands (a *standing) or that fails the request.
func (x *proxyExchange) secondForward(first *http.Request, resp *http.Response) (*http.Request, error) {
	sent := first.Header.Get("Proxy-Authorization")
	answer, err := x.choose(x.req.Method, resp.Header, sent, x.ahead)
	if err != nil {
		return nil, err
	}
	if !x.body.canReplay() {
		x.keep(answer) // the next request will need it
		return nil, &standing{body: errBodyNotReplayable}
	}
	req := x.copy()
	if err := x.authorize(req, answer); err != nil {
		if errors.Is(err, errBodyNotReplayable) {
			return nil, &standing{body: err}
		}
		return nil, err
	}
	if sent == req.Header.Get("Proxy-Authorization") {
		return nil, &standing{refused: ErrCredentialsRefused} // never again unchanged, whatever the Scheme says
	}
	if err := x.body.replay(req); err != nil {
		return nil, &standing{body: err}
	}
	x.answer = answer
	x.report(Event{Kind: EventAuthorized, Attempt: 2}, answer)
	x.report(Event{Kind: EventReplayed, Attempt: 2}, answer)
	return req, nil
}

// authorize puts the lease's credentials on req.
func (x *proxyExchange) authorize(req *http.Request, l lease) error {
	scratch := *req
	scratch.Header = make(http.Header)
	if x.body != nil {
		scratch.GetBody = x.body.copies()
	}
	value, err := authorization(l, &scratch)
	if err == nil {
		req.Header["Proxy-Authorization"] = []string{value}
	}
	return err
}

// insist sends the request again without the Expect that the proxy does not like (RFC 9110 §10.1.1). That was the
// retry.
func (x *proxyExchange) insist(resp *http.Response) (*http.Response, error) {
	req := x.copy()
	if err := x.body.replay(req); err != nil {
		return resp, nil
	}
	discard(resp)
	return x.send(req, &proxySend{x: x})
}

// authorization returns the credentials that the lease's Session has for a request. Sessions set Authorization, also
// where their credentials are for a proxy; what else they set is lost, for nobody but the proxy may see it.
func authorization(l lease, scratch *http.Request) (string, error) {
	if err := l.Authorize(scratch); err != nil {
		return "", err
	}
	value := scratch.Header.Get("Authorization")
	if value == "" {
		return "", errors.New("authretry: a Session did not set Authorization, and that is all that a proxy can get")
	}
	return value, nil
}

// asked returns the request as Schemes and spaces are to see it: as one for the root of the proxy's origin, since a
// proxy's protection space is all of the proxy (RFC 7616 §3.3), and credentials for it must not be confused with those
// for the origin that is behind it.
func (x *proxyExchange) asked(ctx context.Context, method, sent string) *http.Request {
	req := &http.Request{
		Method: method,
		URL:    &url.URL{Scheme: x.proxy.Scheme, Host: x.proxy.Host, Path: "/"},
		Host:   x.proxy.Host,
		Header: make(http.Header),
	}
	if sent != "" {
		req.Header["Authorization"] = []string{sent}
	}
	return req.WithContext(ctx)
}

// choose returns an answer to the challenges of a 407 whose header this is.
func (x *proxyExchange) choose(method string, header http.Header, sent string, l lease) (lease, error) {
	challenges := readChallenges(header["Proxy-Authenticate"])
	x.reportChallenges(http.StatusProxyAuthRequired, challenges)
	if _, exclusive := l.Session.(Exclusive); l.Session != nil && !exclusive {
		x.t.negotiator.spaces.forget(x.origin, l)
	}
	return x.t.negotiator.answer(x.ctx, x.origin, challenges, x.asked(x.ctx, method, sent), l)
}

// learn lets a Session learn from a response that is not a refusal, and remembers it.
func (x *proxyExchange) learn(ctx context.Context, method, sent string, resp *http.Response, l lease) error {
	asked := x.asked(ctx, method, sent)
	return x.t.negotiator.learn(x.origin, asked, &http.Response{
		StatusCode: resp.StatusCode,
		Header:     http.Header{"Authentication-Info": resp.Header["Proxy-Authentication-Info"]},
		Body:       http.NoBody,
		Request:    asked,
	}, l)
}

// learnRefusal notes what a second refusal teaches, as a Transport does.
func (x *proxyExchange) learnRefusal(method string, header http.Header, sent string) {
	n := x.t.negotiator
	challenges := readChallenges(header["Proxy-Authenticate"])
	x.reportChallenges(http.StatusProxyAuthRequired, challenges)
	if x.answer.Session == nil {
		return
	}
	for _, c := range challenges {
		if equalFoldASCII(c.Scheme, n.schemes[x.answer.scheme].Name()) && equalFoldASCII(c.Params.Get("stale"), "true") {
			if next, err := n.answer(x.ctx, x.origin, challenges, x.asked(x.ctx, method, sent), x.answer); err == nil {
				x.keep(next)
			}
			return
		}
	}
	n.spaces.forget(x.origin, x.answer)
}

func (x *proxyExchange) keep(l lease) {
	x.t.negotiator.spaces.keep(x.origin, x.asked(x.ctx, http.MethodGet, "").URL, l)
}

// end returns what is not a refusal, after the Session has learnt from it.
func (x *proxyExchange) end(resp *http.Response, err error, l lease) (*http.Response, error) {
	x.body.settle()
	if err != nil {
		if x.body != nil && x.ctx.Err() != nil {
			err = context.Cause(x.ctx) // rather than what came of closing the body
		}
		x.report(Event{Kind: EventDone, Attempt: x.attempts, Err: err}, lease{})
		return nil, err
	}
	if l.Session != nil {
		if err := x.learn(x.ctx, x.req.Method, "", resp, l); err != nil {
			resp.Body.Close()
			return nil, x.fail(err)
		}
	}
	if resp.StatusCode == http.StatusProxyAuthRequired { // through the tunnel
		x.explain(resp, originOf(x.req.URL), errOriginRefuses)
	}
	x.report(Event{Kind: EventDone, Attempt: x.attempts, Status: resp.StatusCode}, lease{})
	return resp, nil
}

// refuse returns the proxy's 407 to a request, or fails the request if that is what the error says.
func (x *proxyExchange) refuse(resp *http.Response, err error) (*http.Response, error) {
	x.body.settle()
	if _, stands := err.(*standing); !stands {
		discard(resp)
		return nil, x.fail(err)
	}
	x.explain(resp, x.origin, err)
	x.report(Event{Kind: EventRefused, Attempt: x.attempts, Status: resp.StatusCode}, lease{})
	x.report(Event{Kind: EventDone, Attempt: x.attempts, Status: resp.StatusCode}, lease{})
	return resp, nil
}

// explain attaches to a 407, of the proxy or of an origin, what Explain will say of it.
func (x *proxyExchange) explain(resp *http.Response, from origin, err error) {
	r := x.refusal(challengesOf(resp), err)
	r.Origin = from.String()
	resp.Request = x.req.WithContext(context.WithValue(x.req.Context(), rejectionKey{}, r))
}

// fail returns the error of a request for which credentials could not be obtained.
func (x *proxyExchange) fail(err error) error {
	r := x.rejection(err)
	x.report(Event{Kind: EventDone, Attempt: x.attempts, Err: r}, lease{})
	return r
}

// refusal returns a Rejection for a 407, with what the exchange has tried.
func (x *proxyExchange) refusal(challenges []Challenge, err error) *Rejection {
	r := x.rejection(err)
	r.Status = http.StatusProxyAuthRequired
	r.Challenges = challenges
	r.Retried = x.attempts > 1
	if x.ahead.Session != nil {
		r.Ahead = true
		r.Tried = append(r.Tried, r.Schemes[x.ahead.scheme])
	}
	if x.answer.Session != nil {
		r.Refreshed = r.Ahead && x.answer.scheme == x.ahead.scheme
		r.Tried = append(r.Tried, r.Schemes[x.answer.scheme])
	}
	stands, ok := err.(*standing)
	if !ok {
		return r
	}
	switch {
	case stands.body != nil:
		r.Err = stands.body
	case stands.refused != nil:
		r.Err = &proxyCause{"the " + strings.Join(r.Tried, " and then ") + " credentials were refused; check them", stands.refused}
	case len(challenges) == 0:
		r.Err = &proxyCause{"the refusal names no challenge that could be read, so no scheme could be chosen", stands}
	default:
		r.Err = &proxyCause{"the configured " + strings.Join(r.Schemes, ", ") + " cannot answer that; add the scheme to ProxyTransport.Schemes" +
			because(detail(stands.unsupported, ErrUnsupportedChallenge)), stands.unsupported}
	}
	return r
}

// rejection returns a Rejection with the reason that an error of ours stands for. The CONNECT hooks may call it.
func (x *proxyExchange) rejection(err error) *Rejection {
	r := &Rejection{Reason: ReasonNoCredentials, Origin: x.origin.String(), Err: err}
	if plaintext, ok := errors.AsType[plaintextError](err); ok {
		r.Reason = ReasonPlaintext
		r.Err = &proxyCause{string(plaintext) + " credentials are not sent over plain http to a proxy on another host: use a proxy with an https:// URL, or set ProxyTransport.AllowPlaintext", plaintext}
	}
	_, stands := err.(*standing)
	switch {
	case stands, err == errOwnProxyAuthorization, err == errOriginRefuses:
		r.Reason = ReasonProxyAuthentication
	case errors.Is(err, ErrMutualAuth):
		r.Reason = ReasonUntrustedServer
	}
	for _, s := range x.t.negotiator.schemes {
		r.Schemes = append(r.Schemes, s.Name())
	}
	return r
}

// A proxyCause says in the words of a proxy's user why a refusal stands.
type proxyCause struct {
	text  string
	cause error
}

func (c *proxyCause) Error() string { return "authretry: " + c.text }
func (c *proxyCause) Unwrap() error { return c.cause }

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
