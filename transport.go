package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/authretry/authretry/internal/returning"
	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/oauth2"
)

// Transport is an [http.RoundTripper] that authenticates requests. It sends credentials ahead where it knows that they
// are wanted, answers a 401 with the first of its Schemes that has an answer to one of the challenges, and retries
// the request once (RFC 9110 §11).
//
// A request goes to Base at most twice. (What Base repeats by itself, as http.Transport does where a connection that it had
// kept turns out to be closed, is not counted.) A response with a status of 401 means that the server refused: it is returned
// with its body unread, and [Explain] says why. An error of type [*Rejection] means that credentials could not be obtained or
// must not be sent, that the server did not prove what it had to ([Digest.RequireMutualAuth]), that a field makes no sense, or
// that Base, a Scheme or a callback panicked.
//
// Credentials are sent only to the origin that the caller addressed: a request that comes from a redirect to another
// origin is sent without them. A request that has an Authorization header (http.Client makes one of URL userinfo) is sent with
// that, as it is. A request whose Authorization header is present but nil is sent without any.
//
// Any other error comes from Base, or is the cause with which the request's context has ended. If the text of Base's error
// contains credentials, or quotes what a server has sent, which may be what it was sent, the text is replaced by one without that.
//
// A Transport remembers what servers asked for, so make one and share it: it is safe for concurrent use by any
// number of goroutines. It must not be copied, nor its fields changed, after its first use.
type Transport struct {
	// Base sends the requests. If nil, http.DefaultTransport does.
	//
	// It must not follow redirects by itself, as a wrapped http.Client does, since that takes credentials along. A
	// retryablehttp.RoundTripper is prevented from it. Any other Base that does is noticed by its first response from another
	// origin, if the Request of that response says how it got there. A request that had credentials then fails, but they have been
	// sent there already. From then on no credentials are sent by that Base.
	//
	// It may send requests elsewhere than their URL says, to one of several replicas for instance: credentials go by the URL that
	// it is given.
	Base http.RoundTripper

	// Schemes are the ways to authenticate, in order of preference, the strongest first. At least one is
	// required.
	Schemes []Scheme

	// Origins are the origins that may have the credentials, such as "https://api.example.com". Requests to others
	// are sent as they are, so Transports for several APIs can be nested: the inner one is the outer one's Base. An element is scheme, host
	// and, if it is not the default one, port: no path, and no pattern such as "https://*.example.com". The host is that of the URL,
	// or Request.Host where the request goes there: by plain http through a proxy. With a Base of which it is not known whether it uses
	// a proxy, both must be listed if they differ, unless the host of the URL is loopback.
	//
	// To leave it empty is valid, but not secure: credentials then go to whatever origin the caller addresses, as far as the
	// Schemes have any for it, and a [Bearer] and an [APIKey] send theirs to any. Set it, unless all URLs are your own.
	Origins []string

	// AllowPlaintext lets Basic, Bearer, API keys and other reusable secrets go over plain http to any host. By
	// default they go there to loopback only, and otherwise the request fails. Digest may always.
	AllowPlaintext bool

	// ReplayLimit is how many bytes of a body that has no Request.GetBody are kept, while it is sent, for a replay.
	// 0 means 1 MiB; negative means none. A body that is in memory, as those of http.NewRequest are, is sent again whatever
	// its size.
	//
	// Where a challenge may come, a larger body is announced by "Expect: 100-continue", so that a server can refuse before
	// it is sent; so is one of more than 1 MiB that has a GetBody, or is in memory. A server that does not answer that gets the
	// body after a second, or after ExpectContinueTimeout of an http.Transport if that is longer. One of unknown length,
	// without GetBody, is announced too if its Reader has more than 64 KiB at hand, or ReplayLimit if that is less. A
	// challenge may come if no credentials are sent ahead, unless the origin has taken such a body without one and has
	// refused nobody. It may come, too, if what is sent ahead is of an [Exclusive] Session, as Digest's is, since nonces
	// become stale, or if the origin has refused what was sent ahead before, and taken what came in its place, or a body was lost
	// to that. Where a body with such credentials has waited for nothing, and was then taken, the next ones do not wait.
	ReplayLimit int64

	// Account says on whose behalf a request is sent, such as the user for whom a server calls an API. Whatever the Transport
	// gets or remembers for a request is for those of its account only. If it is "", the request is sent without credentials.
	// If it has more than 256 bytes, the request fails.
	//
	// A request that http.Client makes of a redirect is on behalf of whoever the first one was sent for. One that has the
	// response of another request, but not its context, passes without credentials unless Account says the same for it.
	//
	// Account is called by the goroutine that sends the request, so possibly by many at once; it should return at once,
	// and must not modify the request.
	//
	// If it is nil, all requests are on behalf of one user. Then a [CredentialsFunc] sees no values of the request's context,
	// since its result is used for other requests too.
	Account func(req *http.Request) string

	// Jar is the Jar of the http.Client that uses the Transport, so that a cookie that comes with a refusal
	// goes out with the retry: 256 of them at most, of 8 KiB each. What the caller has written into the Cookie header is left as
	// it is. Jar may be nil, and must be if Account is not, since a Jar is one user's.
	Jar http.CookieJar

	// Refused says which responses are refusals besides those with status 401, for servers that send 400, 403 or 200
	// where they mean 401, for a token that has expired for instance. It is asked for the responses to all requests that may
	// have credentials, also to successful ones, so it should look at the status before anything else; but not for those with
	// status 101, 401 and 407, for a 403 that a Scheme answers ([Bearer.StepUp]), and for a 417 (Expectation Failed) to an Expect
	// of ours. It may read the first 64 KiB of resp.Body, which the caller still gets; after these it reads EOF. A
	// response that it calls a refusal counts as a 401 in everything: credentials that it refuses have not been accepted.
	// If nil, only a 401 refuses, and a 403 that a Scheme answers.
	Refused func(resp *http.Response) bool

	// OnEvent is called with each step of each request, and by many goroutines at once. It should return soon: a request waits until it
	// has, and a refresh waits too, for [TokenSource.FetchTimeout] at most. It must not wait for the token of whose refresh it is told.
	// Its context has the values of the request's, and [AccountOf] says for whom that is. If nil, nothing is computed for it.
	// [LogEvents] makes one for package log/slog, and module otelauthretry one for OpenTelemetry; a func of yours can call several.
	OnEvent func(context.Context, Event)

	once      sync.Once
	auth      *authenticator
	origins   map[origin]bool
	returning *returning.RoundTripper // in place of a Base that would follow redirects; nil: there is no need
	follows   atomic.Bool             // Base has followed a redirect to another origin
	err       error                   // what is wrong with the fields
}

// New returns a Transport over http.DefaultTransport with the given schemes, in order of preference.
func New(schemes ...Scheme) *Transport {
	return &Transport{Schemes: schemes}
}

// RoundTrip implements http.RoundTripper. See [Transport].
func (t *Transport) RoundTrip(req *http.Request) (resp *http.Response, err error) {
	err = t.init()
	if t == nil {
		closeBody(req)
		return nil, &Rejection{Reason: ReasonMisconfigured, Err: err}
	}
	x := &exchange{authenticator: t.auth, req: withoutExplanation(req)}
	defer x.contain(&resp, &err)
	switch {
	case err != nil:
		closeBody(req)
		return nil, x.fail(nil, misconfiguration{err})
	case req.URL == nil, req.Header == nil, req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return x.pass(0) // Base returns the error for that
	}
	at, sure := t.goesTo(req)
	x.goTo(at)
	if at != req.URL {
		x.setAside().at = at
	}
	if reason := t.withholds(req, at, sure); reason != 0 {
		return x.pass(reason)
	}
	return x.run()
}

// Forget forgets all that is remembered for an account. Call it when a user has logged in or out, after that has been stored
// where a [CredentialsFunc] or [Bearer.Sources] looks, for the next request may ask there at once. Requests that are out
// go on with what they have. Schemes are told, if they have a method Forget(account string), as a [Bearer] has.
func (t *Transport) Forget(account string) {
	if t.init() != nil {
		return
	}
	defer t.auth.spaces.forgetAccount(account) // last, so that nothing is kept that a Scheme has said before it was told
	for _, s := range t.Schemes {
		if f, ok := s.(interface{ Forget(account string) }); ok {
			f.Forget(account)
		}
	}
}

// CloseIdleConnections closes the idle connections of Base, if it can, and those that a [Carrier] has made. Schemes are told, if
// they have a method CloseIdleConnections().
func (t *Transport) CloseIdleConnections() {
	err := t.init()
	if c, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
	if err != nil {
		return
	}
	t.auth.spaces.closeIdle()
	for _, s := range t.Schemes {
		if c, ok := s.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
		}
	}
}

// Validate says what is wrong with the fields, as far as that can be told without asking anybody. A program that calls it when it
// starts need not wait for the first request to hear that. The fields must not be changed any more after it.
//
// If the Transport's own fields are right, it calls Validate() error of each Scheme that has such a method, as [Bearer], [Basic],
// [Digest] and [APIKey] have, and the error has what each of them says. It calls no func in a field, a FetchFunc neither: for a
// [TokenEndpoint], there is [TokenEndpoint.Validate], and the rest is found with the first token. Ask for that by
// [TokenSource.Obtain].
func (t *Transport) Validate() error {
	if err := t.init(); err != nil {
		return err
	}
	return errors.Join(t.checkBase(), t.checkPlaintext(), validate(t.Schemes))
}

// checkBase returns an error if Base puts its own credentials in place of those of a Scheme.
func (t *Transport) checkBase() error {
	if _, ok := t.Base.(*oauth2.Transport); !ok {
		return nil
	}
	for _, s := range t.Schemes {
		switch s := s.(type) {
		case *Basic, *Digest:
		case interface{ place() headerPlace }:
			if !s.place().isAuthorization() {
				continue
			}
		default:
			continue // what it sends is not known
		}
		return errors.New("authretry: Transport.Base is an oauth2.Transport, which puts its own token in place of what a Scheme sends; take its Base")
	}
	return nil
}

// checkPlaintext returns an error if one of the Origins gets no credentials, as no Scheme's may go there in clear.
func (t *Transport) checkPlaintext() error {
	isSafe := func(s Scheme) bool {
		safe, ok := s.(PlaintextSafe)
		return ok && safe.PlaintextSafe()
	}
	if t.AllowPlaintext || slices.ContainsFunc(t.Schemes, isSafe) {
		return nil
	}
	for i, s := range t.Origins {
		if o, err := parseOrigin(s, i); err == nil && o.scheme == "http" && !o.isLoopback() {
			return fmt.Errorf("authretry: Transport.Origins[%d] is %q, and none of the Schemes sends its credentials over plain http to another host; write https://, or set Transport.AllowPlaintext", i, o)
		}
	}
	return nil
}

// validate asks those Schemes that can say what is wrong with their fields.
func validate(schemes []Scheme) error {
	var wrong []error
	for _, s := range schemes {
		if v, ok := s.(interface{ Validate() error }); ok {
			wrong = append(wrong, v.Validate())
		}
	}
	return errors.Join(wrong...)
}

func (t *Transport) init() error {
	if t == nil {
		return errors.New("authretry: the Transport is nil; make one with New")
	}
	t.once.Do(func() {
		if rt, ok := t.Base.(*retryablehttp.RoundTripper); ok {
			t.returning = returning.Redirects(rt)
		}
		t.auth = &authenticator{side: originSide, direct: t, allowPlaintext: t.AllowPlaintext, replayLimit: t.ReplayLimit,
			refused: t.Refused, jar: t.Jar, accountFunc: t.Account, onEvent: t.OnEvent}
		if t.err = t.auth.setSchemes(t.Schemes, "Transport"); t.err != nil {
			return
		}
		if t.Account != nil && t.Jar != nil {
			t.err = errors.New("authretry: Transport.Jar and Transport.Account are both set, but a Jar is one user's, and would send its cookies for another")
			return
		}
		for i, s := range t.Origins {
			o, err := parseOrigin(s, i)
			if err != nil {
				t.err = err
				return
			}
			if t.origins == nil {
				t.origins = make(map[origin]bool, len(t.Origins))
			}
			t.origins[o] = true
		}
	})
	return t.err
}

func (t *Transport) base() http.RoundTripper {
	switch {
	case t == nil || t.Base == nil:
		return http.DefaultTransport
	case t.returning != nil:
		return t.returning
	}
	return t.Base
}

// withholds returns why a request passes without credentials, or 0 if it may have them. Nothing is sent without
// passing here. At is where it goes; if that is not sure, it may as well go to where its URL says.
func (t *Transport) withholds(req *http.Request, at *url.URL, sure bool) Reason {
	switch {
	case t.origins != nil && (!t.origins[originOf(at)] || !sure && !t.origins[originOf(req.URL)]):
		return ReasonOriginNotListed
	case hasOwnAuthorization(req.Header):
		return ReasonOwnAuthorization
	case req.Response != nil && hasLeftOrigin(req, func(req *http.Request) origin { at, _ := t.goesTo(req); return originOf(at) }):
		return ReasonRedirected
	}
	return 0
}

// goesTo returns where the bytes of a request go: to its URL, or to a copy of that with another host. To a proxy, plain http says in
// one line both where to send the request and for which host it is: there req.Host counts rather than the URL, as net/http has it;
// but not with SOCKS. That is not sure if it cannot be told whether there is a proxy.
func (t *Transport) goesTo(req *http.Request) (at *url.URL, sure bool) {
	if req.URL.Scheme != "http" || req.Host == "" || req.Host == req.URL.Host {
		return req.URL, true
	}
	proxy, known := proxyOf(t.base(), req)
	o := originOf(req.URL)
	if known && (proxy == nil || proxy.Scheme != "http" && proxy.Scheme != "https") || !known && o.isLoopback() {
		return req.URL, true
	}
	elsewhere := *req.URL
	elsewhere.Host = req.Host
	if originOf(&elsewhere) == o {
		return req.URL, known
	}
	return &elsewhere, known
}

// isProxied implements way.
func (t *Transport) isProxied(req *http.Request) bool {
	proxy, _ := proxyOf(t.base(), req)
	return proxy != nil
}

// proxyOf returns which proxy a RoundTripper uses for a request, if that can be told.
func proxyOf(rt http.RoundTripper, req *http.Request) (proxy *url.URL, known bool) {
	switch rt := rt.(type) {
	case *http.Transport:
		if rt.Proxy == nil {
			return nil, true
		}
		proxy, err := rt.Proxy(req)
		return proxy, err == nil
	case *ProxyTransport:
		if rt.init() != nil || rt.proxy == nil {
			return nil, true
		}
		proxy, err := rt.proxy(req)
		return proxy, err == nil
	case *Transport:
		_ = rt.init() // it decides what base returns
		return proxyOf(rt.base(), req)
	case *returning.RoundTripper:
		if inner := rt.Client.HTTPClient.Transport; inner != nil {
			return proxyOf(inner, req)
		}
		return proxyOf(http.DefaultTransport, req)
	}
	return nil, false
}

// hasOwnAuthorization reports whether the caller has set Authorization, in lower case as well, as some do for servers that
// insist on it. A look at all headers, for other spellings, would cost a tenth of the request.
func hasOwnAuthorization(h http.Header) bool {
	_, canonical := h["Authorization"]
	_, lower := h["authorization"] //lint:ignore SA1008 it is what no method of http.Header finds
	return canonical || lower
}

// send implements way: by Base, or by what a Carrier has for its Session.
func (t *Transport) send(x *exchange, req *http.Request, l *lease) (*http.Response, error) {
	base := t.base()
	if l.by != nil {
		base = l.by.RoundTripper
	}
	if l.Session != nil && t.follows.Load() {
		closeBody(req) // as Base would
		return nil, &followsRedirects{base}
	}
	resp, err := base.RoundTrip(req)
	if err != nil && resp != nil && resp.Body != nil {
		resp.Body.Close() // there must be none
	}
	if resp == nil || err != nil || resp.Request == nil || resp.Request == req || !x.hasStrayed(resp, req) {
		return resp, err
	}
	t.follows.Store(true)
	if l.Session != nil {
		if resp.Body != nil {
			resp.Body.Close()
		}
		return nil, &followsRedirects{base}
	}
	x.foreign = true // what is said there is nothing to learn from or to answer
	return resp, nil
}

// hasStrayed reports whether Base has followed a redirect by itself, out of the origin that it had asked. That is seen by the
// responses which led to the request that Base says it has sent. Where Base sends a request at first is for Base to say: it
// may choose a replica by rewriting the URL.
func (x *exchange) hasStrayed(resp *http.Response, sent *http.Request) bool {
	got := resp.Request
	if got.URL == nil {
		return false
	}
	o := originOf(got.URL)
	for range maxHops {
		if got.Response == nil || got.Response == x.req.Response {
			return false
		}
		got = got.Response.Request
		if got == nil || got.URL == nil {
			return true // by someone unknown
		}
		from := originOf(got.URL)
		if from != o && !isUpgrade(from, o) {
			return true
		}
		o = from
	}
	return true
}

// followsRedirects fails a request whose Base has taken credentials along with a redirect, or has followed one before.
type followsRedirects struct{ base http.RoundTripper }

func (e *followsRedirects) Error() string {
	return fmt.Sprintf("authretry: Transport.Base, a %T, follows redirects by itself, and was led to another origin; "+
		"let it return redirects (http.ErrUseLastResponse), so that the http.Client outside follows them without credentials", e.base)
}

func isFollowing(err error) bool {
	_, ok := errors.AsType[*followsRedirects](err)
	return ok
}

func (t *Transport) carrying() (http.RoundTripper, error) {
	switch base := t.base().(type) {
	case *http.Transport, *ProxyTransport:
		return base, nil
	default:
		return nil, fmt.Errorf("Transport.Base must be an *http.Transport or a *ProxyTransport for that, and is a %T", base)
	}
}
