package authretry

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-retryablehttp"
)

// Transport is an [http.RoundTripper] that authenticates requests. It sends credentials ahead where it knows that they
// are wanted, answers a 401 with the first of its Schemes that has an answer to one of the challenges, and retries
// the request once (RFC 9110 §11).
//
// A request is on the wire at most twice. A response with a status of 401 means that the server refused: it is
// returned with its body unread, and [Explain] says why. An error of type [*Rejection] means that credentials could
// not be obtained, or must not be sent.
//
// Credentials stay with the origin that the caller addressed: a request that comes from a redirect to another
// origin passes without them, and so does one that has an Authorization header (or URL userinfo, which http.Client
// makes one of): the caller's word counts. A request whose Authorization header is present but nil is sent without.
//
// A Transport remembers what servers asked for, so make one and share it: it is safe for concurrent use by any
// number of goroutines. It must not be copied, nor its fields changed, after its first use.
type Transport struct {
	// Base sends the requests. If nil, http.DefaultTransport does.
	//
	// It must not follow redirects by itself, as a wrapped http.Client does, since that takes credentials along. A
	// retryablehttp.RoundTripper is kept from it. Another Base that is not an *http.Transport is watched during its
	// first requests, and for good once it has followed a redirect: as far as it sends by an http.Transport, it is
	// kept from sending credentials to another host or in clear text after TLS, and the request fails. Where that
	// comes too late, because it sends by other means or has not followed a redirect before, the request still fails.
	Base http.RoundTripper

	// Schemes are the ways to authenticate, in order of preference, the strongest first. There must be one.
	Schemes []Scheme

	// Origins are the origins that may have the credentials, such as "https://api.example.com". Requests to others
	// pass untouched, so Transports for several APIs nest: the inner one is the outer one's Base. If empty,
	// credentials go to whatever origin the caller addresses, as far as the Schemes have any for it.
	Origins []string

	// AllowPlaintext lets Basic, Bearer, API keys and other reusable secrets go over plain http to any host. By
	// default they go there to loopback only, and otherwise the request fails. Digest may always.
	AllowPlaintext bool

	// ReplayLimit is how many bytes of a body that has no Request.GetBody are kept, while it is sent, for a replay.
	// 0 means 1 MiB; negative means none. A larger body, or one of unknown length, is announced by
	// "Expect: 100-continue" if a challenge is likely, so that a server can refuse before it is sent.
	ReplayLimit int64

	// Jar is the Jar of the http.Client that uses the Transport, so that a cookie that comes with a refusal
	// goes out with the retry. It may be nil.
	Jar http.CookieJar

	// RetryForbidden treats 403 (Forbidden) as 401, for servers that send it to say that credentials have expired.
	// A Bearer challenge of insufficient_scope is not answered even then.
	RetryForbidden bool

	// OnEvent is called with each step of each request, by the goroutine that takes it, so possibly by many at
	// once; it should return soon. If nil, nothing is computed for it. [LogEvents] makes one for package log/slog.
	OnEvent func(context.Context, Event)

	once       sync.Once
	negotiator *negotiator
	origins    map[origin]bool
	returning  *returningRedirects // in place of a Base that would follow redirects; nil: there is no need
	follows    atomic.Bool         // Base has been seen to follow a redirect
	sends      atomic.Int32        // by a Base of unknown type, up to probation
	err        error               // what is wrong with the fields
}

// New returns a Transport over http.DefaultTransport with the given schemes, in order of preference.
func New(schemes ...Scheme) *Transport {
	return &Transport{Schemes: schemes}
}

// RoundTrip implements http.RoundTripper. See [Transport].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := t.init(); err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, &Rejection{Reason: ReasonMisconfigured, Err: err}
	}
	if req.URL == nil || req.Header == nil || req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return t.base().RoundTrip(req) // it knows what to say
	}
	x := exchange{t: t, req: req, reporter: reporter{onEvent: t.OnEvent, schemes: t.Schemes, ctx: req.Context(), origin: originOf(req.URL)}}
	if reason := t.withholds(req, x.origin); reason != 0 {
		resp, err := t.base().RoundTrip(req)
		if err == nil && isRefusal(resp) {
			x.explain(resp, reason, nil)
		}
		return resp, err
	}
	return x.run()
}

// CloseIdleConnections closes the idle connections of Base, if it can.
func (t *Transport) CloseIdleConnections() {
	t.init()
	if c, ok := t.base().(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (t *Transport) init() error {
	if t == nil {
		return errors.New("authretry: the Transport is nil; make one with New")
	}
	t.once.Do(func() {
		if rt, ok := t.Base.(*retryablehttp.RoundTripper); ok {
			t.returning = newReturningRedirects(rt)
		}
		t.negotiator, t.err = newNegotiator(t.Schemes, t.AllowPlaintext)
		for _, s := range t.Origins {
			o, err := parseOrigin(s)
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
// passing here.
func (t *Transport) withholds(req *http.Request, o origin) Reason {
	switch {
	case t.origins != nil && !t.origins[o]:
		return ReasonOriginNotListed
	case hasOwnAuthorization(req.Header):
		return ReasonOwnAuthorization
	case req.Response != nil && hasLeftOrigin(req, o):
		return ReasonRedirected
	}
	return 0
}

// hasOwnAuthorization reports whether the caller has set Authorization, in lower case as well, as some do for servers that
// insist on it. A look at all headers, for other spellings, would cost a tenth of the request.
func hasOwnAuthorization(h http.Header) bool {
	_, canonical := h["Authorization"]
	_, lower := h["authorization"] //lint:ignore SA1008 it is what no method of http.Header finds
	return canonical || lower
}

// An exchange is one call of RoundTrip.
type exchange struct {
	reporter
	t    *Transport
	req  *http.Request // the caller's
	body *body         // nil: none

	ahead   lease // what went with the first send
	answer  lease // what went with the second
	expects bool  // we had the first send ask for 100 Continue
}

// run takes the request through the house: at most two sends, the second with an answer to what the first one got.
func (x *exchange) run() (*http.Response, error) {
	x.listen()
	if x.body = newBody(x.req, x.t.ReplayLimit); x.body != nil {
		// http.Transport waits for a Read that blocks, whatever the context says; nobody needs the body by then.
		defer context.AfterFunc(x.ctx, x.body.abandon)()
	}
	first, err := x.first()
	if err != nil {
		x.body.abandon()
		return nil, x.fail(err)
	}
	resp, err := x.send(first)
	if err != nil {
		return nil, err
	}
	if x.expects && resp.StatusCode == http.StatusExpectationFailed {
		return x.insist(resp)
	}
	if !x.refused(resp) {
		return x.accept(resp, first, x.ahead)
	}
	second, err := x.second(first, resp)
	if second == nil {
		return x.refuse(resp, first, err)
	}
	discard(resp)
	if resp, err = x.send(second); err != nil {
		return nil, err
	}
	if !x.refused(resp) {
		return x.accept(resp, second, x.answer)
	}
	x.learnRefusal(resp, second)
	return x.refuse(resp, second, &standing{refused: ErrCredentialsRefused})
}

// first returns the request with what can be sent ahead.
func (x *exchange) first() (*http.Request, error) {
	var err error
	if x.ahead, err = x.t.negotiator.ahead(x.ctx, x.origin, x.req); err != nil {
		return nil, err
	}
	req := x.copy()
	x.body.first(req)
	if x.ahead.Session != nil {
		if err := x.authorize(req, x.ahead); err == nil {
			x.report(Event{Kind: EventAuthorized, Attempt: 1}, x.ahead)
			return req, nil
		} else if !errors.Is(err, errBodyNotReplayable) {
			return nil, err
		}
		x.ahead = lease{} // let the server say what it wants of a body like this
	}
	if x.body != nil && x.body.isLarge() {
		x.expects = req.Header.Get("Expect") == ""
		req = x.body.expect(req)
	}
	return req, nil
}

// second returns the request with an answer to the challenges of resp, or nil if the refusal stands: then the error
// says why, and fails the request unless it is a *standing.
func (x *exchange) second(first *http.Request, resp *http.Response) (*http.Request, error) {
	challenges := readChallenges(resp.Header["Www-Authenticate"])
	x.reportChallenges(resp.StatusCode, challenges)
	if _, exclusive := x.ahead.Session.(Exclusive); x.ahead.Session != nil && !exclusive {
		x.t.negotiator.spaces.forget(x.origin, x.ahead)
	}
	answer, err := x.t.negotiator.answer(x.ctx, x.origin, challenges, first, x.ahead)
	if err != nil {
		return nil, err
	}
	if !x.body.canReplay() {
		x.t.negotiator.spaces.keep(x.origin, x.req.URL, answer) // the next request will need it
		if x.ctx.Err() != nil {
			return nil, context.Cause(x.ctx) // which has closed the body
		}
		return nil, &standing{body: errBodyNotReplayable}
	}
	req := x.copy()
	if err := x.authorize(req, answer); err != nil {
		if errors.Is(err, errBodyNotReplayable) {
			return nil, &standing{body: err}
		}
		return nil, err
	}
	if x.ahead.Session != nil && sameHeader(first.Header, req.Header) {
		return nil, &standing{refused: ErrCredentialsRefused} // never again unchanged, whatever the Scheme says
	}
	if err := x.body.replay(req); err != nil {
		return nil, &standing{body: err}
	}
	x.addCookies(req, resp)
	x.answer = answer
	x.report(Event{Kind: EventAuthorized, Attempt: 2}, answer)
	x.report(Event{Kind: EventReplayed, Attempt: 2}, answer)
	return req, nil
}

// insist sends the request again without the Expect that the server does not like (RFC 9110 §10.1.1). That was the
// retry: a refusal that comes now is returned, but remembered for the next request.
func (x *exchange) insist(resp *http.Response) (*http.Response, error) {
	req := x.copy()
	if err := x.body.replay(req); err != nil {
		x.body.settle()
		return x.release(resp, req), nil
	}
	discard(resp)
	resp, err := x.send(req)
	if err != nil {
		return nil, err
	}
	if !x.refused(resp) {
		return x.accept(resp, req, lease{})
	}
	challenges := readChallenges(resp.Header["Www-Authenticate"])
	if answer, err := x.t.negotiator.answer(x.ctx, x.origin, challenges, req, lease{}); err == nil {
		x.t.negotiator.spaces.keep(x.origin, x.req.URL, answer)
	}
	return x.refuse(resp, req, &standing{body: errBodyNotReplayable})
}

// copy returns a copy of the caller's request, with headers of its own. Their values are shared, which our own Schemes
// and http.Transport leave alone; those of others get their own values, too.
func (x *exchange) copy() *http.Request {
	req := x.req
	if x.ctx != req.Context() {
		req = req.WithContext(x.ctx)
	} else {
		req = new(http.Request)
		*req = *x.req
	}
	if x.t.negotiator.hasOthers {
		req.Header = x.req.Header.Clone()
	} else {
		req.Header = maps.Clone(x.req.Header)
	}
	return req
}

// authorize lets the lease's Session put its credentials on req.
func (x *exchange) authorize(req *http.Request, l lease) error {
	if x.body == nil {
		return l.Authorize(req)
	}
	getBody := req.GetBody
	req.GetBody = x.body.copies()
	err := l.Authorize(req)
	req.GetBody = getBody
	return err
}

// send puts req on the wire.
func (x *exchange) send(req *http.Request) (*http.Response, error) {
	x.attempts++
	resp, err := x.leashed(req)
	if err == nil && resp == nil {
		err = errors.New("authretry: Transport.Base returned neither a response nor an error")
	}
	if errors.Is(err, errFollowsRedirects) {
		x.body.settle()
		return nil, x.fail(err)
	}
	if err != nil {
		if x.body != nil && x.ctx.Err() != nil {
			err = context.Cause(x.ctx) // rather than what came of closing the body
		}
		x.body.settle()
		x.report(Event{Kind: EventDone, Attempt: x.attempts, Err: withoutQuery(err, x.req.URL)}, lease{})
		return nil, err
	}
	return resp, nil
}

// refused reports whether resp refuses the request for want of credentials.
func (x *exchange) refused(resp *http.Response) bool {
	return (resp.StatusCode == http.StatusUnauthorized || x.t.RetryForbidden && resp.StatusCode == http.StatusForbidden) && x.isOwn(resp)
}

// accept returns a response that is not a refusal, after the Session has learnt from it.
func (x *exchange) accept(resp *http.Response, sent *http.Request, l lease) (*http.Response, error) {
	if l.Session != nil && x.isOwn(resp) && resp.StatusCode != http.StatusProxyAuthRequired { // of which the origin knows nothing
		if err := x.t.negotiator.learn(x.origin, x.req, resp, l); err != nil {
			resp.Body.Close()
			x.body.settle()
			return nil, x.fail(err)
		}
	}
	x.body.settle()
	if isRefusal(resp) {
		reason := Reason(0)
		if !x.isOwn(resp) {
			reason = ReasonRedirected
		}
		x.explain(resp, reason, nil)
		x.report(Event{Kind: EventRefused, Attempt: x.attempts, Status: resp.StatusCode}, l)
	}
	return x.release(resp, sent), nil
}

// refuse returns the refusal resp, or fails the request if the error that keeps it from being answered says so.
func (x *exchange) refuse(resp *http.Response, sent *http.Request, err error) (*http.Response, error) {
	stands, ok := err.(*standing)
	if !ok {
		discard(resp)
		x.body.settle()
		return nil, x.fail(err)
	}
	x.body.settle()
	x.explain(resp, 0, stands)
	x.report(Event{Kind: EventRefused, Attempt: x.attempts, Status: resp.StatusCode}, lease{})
	return x.release(resp, sent), nil
}

// release makes resp the caller's: its request is the caller's again, without our credentials.
func (x *exchange) release(resp *http.Response, sent *http.Request) *http.Response {
	if resp.Request == sent {
		resp.Request = x.req
	} else if resp.Request != nil { // a Base's own copy
		resp.Request = withoutCredentials(resp.Request, sent.Header, x.req.Header)
	}
	x.report(Event{Kind: EventDone, Attempt: x.attempts, Status: resp.StatusCode}, lease{})
	return resp
}

// learnRefusal notes what a second refusal teaches: a nonce that was stale already is followed by another for
// the next request; other credentials are forgotten, so that a later request asks again.
func (x *exchange) learnRefusal(resp *http.Response, sent *http.Request) {
	n := x.t.negotiator
	challenges := readChallenges(resp.Header["Www-Authenticate"])
	x.reportChallenges(resp.StatusCode, challenges)
	for _, c := range challenges {
		if equalFoldASCII(c.Scheme, n.schemes[x.answer.scheme].Name()) && equalFoldASCII(c.Params.Get("stale"), "true") {
			if next, err := n.answer(x.ctx, x.origin, challenges, sent, x.answer); err == nil {
				n.spaces.keep(x.origin, x.req.URL, next)
			}
			return
		}
	}
	n.spaces.forget(x.origin, x.answer)
}

// isOwn reports whether resp is of the origin that was asked: a Base that follows redirects may have gone elsewhere,
// and what is said there is nothing to learn from or to answer.
func (x *exchange) isOwn(resp *http.Response) bool {
	r := resp.Request
	return r == nil || r.URL == x.req.URL || r.URL != nil && originOf(r.URL) == x.origin && (r.Response == x.req.Response || !hasLeftOrigin(r, x.origin))
}

// addCookies adds to the retry what the refusal's Set-Cookie put into the Jar, as http.Client would have.
func (x *exchange) addCookies(req *http.Request, refusal *http.Response) {
	jar := x.t.Jar
	if jar == nil {
		return
	}
	cookies := refusal.Cookies()
	if len(cookies) == 0 {
		return
	}
	before := jar.Cookies(req.URL)
	jar.SetCookies(req.URL, cookies)
	sent := req.Cookies()
	delete(req.Header, "Cookie")
	for _, c := range sent {
		if !slices.ContainsFunc(before, func(b *http.Cookie) bool { return b.Name == c.Name && b.Value == c.Value }) {
			req.AddCookie(c) // the caller's own
		}
	}
	for _, c := range jar.Cookies(req.URL) {
		req.AddCookie(c)
	}
}

// fail returns the error of a request for which credentials could not be obtained.
func (x *exchange) fail(err error) error {
	rejection := x.rejection(err)
	x.report(Event{Kind: EventDone, Attempt: x.attempts, Err: rejection}, lease{})
	return rejection
}

// withoutQuery returns err, or its innermost cause if its text has the query of u, which may be confidential. The
// errors of http.Transport never have it, but those of other bases do.
func withoutQuery(err error, u *url.URL) error {
	if u.RawQuery == "" || !strings.Contains(err.Error(), u.RawQuery) {
		return err
	}
	for cause := errors.Unwrap(err); cause != nil; cause = errors.Unwrap(cause) {
		err = cause
	}
	return err
}

func sameHeader(a, b http.Header) bool {
	return maps.EqualFunc(a, b, slices.Equal)
}
