package authretry

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry/internal/dialed"
)

// A side is one of the two that refuse requests for want of credentials: an origin (RFC 9110 §11.6) or a proxy
// (RFC 9110 §11.7). The headers are those with which it challenges, is answered, and informs.
type side struct {
	status                       int
	challenge, credentials, info string
}

var (
	originSide = &side{http.StatusUnauthorized, "Www-Authenticate", "Authorization", "Authentication-Info"}
	proxySide  = &side{http.StatusProxyAuthRequired, "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info"}
)

// An exchange is one call of RoundTrip: a send with what is remembered, and if that is refused, an answer to the
// challenges and one more send. It is the same for an origin's 401, a proxy's 407, and a proxy's 407 to a CONNECT.
type exchange struct {
	*authenticator
	req  *http.Request // the caller's
	body *body         // nil: none

	account string // for whom it is; "" if there is one user
	host    string // of who asks for credentials, as it was before the request was sent; with a port, if the URL has one
	changes uint32 // how often such an account had been forgotten when it began

	secure   bool  // who asks for credentials is asked by https
	attempts uint8 // sends
	passed   bool  // its credentials were accepted
	expects  bool  // we had the first send ask for 100 Continue
	foreign  bool  // resp does not come from the side that we authenticate to
	ended    bool  // EventDone was reported
	begun    bool  // it is known for whom it is
	tunnel   bool  // what is to be authorized is a CONNECT, before the request is sent

	missed  atomic.Bool               // a Scheme has asked its context for a value that the request has, and was not given it
	refusal atomic.Pointer[refusedAt] // where the latest challenge came from, of an origin's; nil: there was none

	copied http.Request // the first send, which is a part of the exchange to save an allocation
	visit  visit        // among those that are out to the origin
	ahead  lease        // what is to go, and then went, with the first send; what is in it counts only if it has a Session

	resp *http.Response // the latest

	aside *aside // nil: nothing of it
}

// aside is what most exchanges do not have. An exchange is allocated, and cleared, for each request, so it is apart.
type aside struct {
	proxied *proxyWay // how its requests are sent by a ProxyTransport; nil: by a Transport
	at      *url.URL  // see exchange.at
	own     bool      // a proxy refuses a CONNECT with the caller's own credentials

	answer   *lease        // what went with the second send; nil: there was none
	last     *http.Request // the latest send that was answered, or the CONNECT that was refused; nil: none but the first
	noReplay error         // why the Session that was to go ahead could not have the body
	hook     error         // what the caller's OnProxyConnectResponse says of a refused CONNECT
	carried  []carriedUse  // what Carriers have made, and this exchange uses

	seen       *http.Response // which Schemes have been shown, with this header
	seenHeader http.Header

	remote string // from which address the latest response came; "" if it is not known, or nobody asks

	start  time.Time     // if anybody listens
	waited time.Duration // for credentials, if anybody listens
}

// value returns what there is of it.
func (a *aside) value() aside {
	if a == nil {
		return aside{}
	}
	return *a
}

// setAside returns x.aside, to set something of it.
func (x *exchange) setAside() *aside {
	if x.aside == nil {
		x.aside = new(aside)
	}
	return x.aside
}

// at returns the URL to which belongs what is remembered: the request's, that to which its Host leads, or the root of the proxy.
func (x *exchange) at() *url.URL {
	switch a := x.aside; {
	case a == nil:
	case a.proxied != nil && a.proxied.root != nil:
		return a.proxied.root
	case a.at != nil:
		return a.at
	}
	return x.req.URL
}

// A way is how the requests of an exchange are sent.
type way interface {
	// send sends req, which carries the credentials of l. Those of a tunnel go with its CONNECT instead: then
	// it is send that authorizes them, and puts into l what the proxy has refused.
	send(x *exchange, req *http.Request, l *lease) (*http.Response, error)

	// isProxied reports whether a proxy sees what is sent to the origin over plain http, if that can be told.
	isProxied(req *http.Request) bool

	// carrying returns what a Carrier may make its own RoundTripper from.
	carrying() (http.RoundTripper, error)
}

// way returns how the requests are sent.
func (x *exchange) way() way {
	if x.aside != nil && x.aside.proxied != nil {
		return x.aside.proxied
	}
	return x.direct
}

// errRefusedBefore ends a dial that would send what the proxy has just refused.
var errRefusedBefore = errors.New("authretry: the proxy has refused these credentials before")

// run makes ready what the exchange needs, and sees to what it leaves behind. Its caller has deferred contain, which does the latter
// after a panic.
func (x *exchange) run() (resp *http.Response, err error) {
	if x.accountFunc != nil {
		if err := x.findAccount(); err != nil {
			closeBody(x.req)
			return nil, x.fail(nil, err)
		}
	}
	x.begin()
	if x.accountFunc != nil && x.account == "" {
		return x.pass(ReasonNoAccount)
	}
	if hasBody(x.req) {
		x.takeBody()
	}
	resp, err = x.converse()
	x.end(resp)
	return resp, err
}

// end sees to what the exchange leaves behind. After a panic of its own, it can be called again.
func (x *exchange) end(resp *http.Response) {
	x.leave(x.passed) // which may panic
	if x.body != nil && x.body.unwatch != nil {
		x.body.unwatch()
	}
	if x.aside != nil {
		x.endCarriers(resp)
	}
}

// converse sends the request, and once more with an answer if it is refused.
func (x *exchange) converse() (resp *http.Response, err error) {
	first, err := x.first()
	if err != nil {
		x.body.abandon()
		return nil, x.fail(nil, err)
	}
	if resp, err = x.send(first, &x.ahead); err != nil {
		return nil, x.broken(err)
	}
	if x.expects && resp.StatusCode == http.StatusExpectationFailed {
		return x.insist(resp, first)
	}
	if !x.isRefusal(resp) {
		return x.accept(resp, first, &x.ahead)
	}
	second, err := x.second(first, resp)
	if err != nil {
		return x.refuse(resp, first, err)
	}
	discard(resp)
	answer := x.aside.answer
	again, err := x.send(second, answer)
	if errors.Is(err, errRefusedBefore) {
		x.attempts--
		return x.refuse(resp, second, &unanswered{refused: ErrCredentialsRefused})
	}
	if err != nil {
		return nil, x.broken(err)
	}
	if !x.isRefusal(again) {
		return x.accept(again, second, answer)
	}
	return x.refuse(again, second, x.learnRefusal(again, second))
}

// goTo says where the request goes, by http or https. Whatever Base may do to that URL, it does not change who asks for credentials.
func (x *exchange) goTo(at *url.URL) {
	x.secure, x.host = at.Scheme == "https", at.Host
	if len(x.host) > maxHost {
		x.host = lowerASCII(x.host) // once, rather than whenever the origin is asked for
	}
}

// origin returns the origin that asks for credentials.
func (x *exchange) origin() origin {
	if x.secure {
		return writtenOrigin{"https", x.host}.canonical()
	}
	return writtenOrigin{"http", x.host}.canonical()
}

// takeBody takes over the body of the caller's request.
func (x *exchange) takeBody() {
	limit := x.replayLimit
	if x.tunnel {
		limit = -1 // a CONNECT is refused before anything of the body is read
	}
	if x.body = newBody(x.req, limit); !x.body.inMemory {
		// http.Transport waits for a Read that blocks, whatever the context says; nobody needs the body by then.
		x.body.unwatch = context.AfterFunc(x.req.Context(), x.body.abandon)
	}
}

// begin says that it is known for whom the request is.
func (x *exchange) begin() {
	x.changes = x.spaces.changesOf(x.account).Load()
	if x.onEvent != nil {
		x.listen()
	}
	x.begun = true
}

// context returns the context of what is sent: the caller's or, if somebody listens, or there are accounts or a Session that may
// look for ours, one that says who listens, and for whom it is.
func (x *exchange) context() context.Context {
	if x.begun && x.side == originSide && (x.onEvent != nil || x.accountFunc != nil || x.hasOthers) {
		return (*sendContext)(x)
	}
	return x.req.Context()
}

// pass sends the request as it is, without credentials of ours, for the reason given; 0 if it cannot be sent anyway.
func (x *exchange) pass(reason Reason) (*http.Response, error) {
	if x.onEvent != nil {
		x.listen()
	}
	resp, err := x.send(x.req, &lease{})
	if err != nil {
		return nil, x.lost(err)
	}
	return x.release(resp, x.req, x.explainPassed(resp, reason)), nil
}

// first returns the request with what can be sent ahead.
func (x *exchange) first() (*http.Request, error) {
	req := x.copy(&x.copied)
	x.body.first(req)
	if x.tunnel {
		return req, nil
	}
	l := &x.ahead
	if a := x.always; a != nil && x.spaces.count.Load() == 0 && x.mayGo(a.space.scheme) {
		l.Session, l.space = a.Session, a.space
	} else if err := x.borrow(l); err != nil {
		*l = lease{}
		return nil, err
	}
	if l.Session != nil {
		err := x.authorize(req, l)
		if err == nil {
			x.report(Event{Kind: EventAuthorized, Attempt: 1}, l)
			return x.announce(req), nil
		}
		switch {
		case errors.Is(err, errBodyNotReplayable):
			x.setAside().noReplay = err
		case !errors.Is(err, ErrChallengeRequired):
			*l = lease{}
			return nil, err
		}
		x.keep(l) // let the server say what it wants, of a body like this, or at all
		*l = lease{}
	}
	return x.announce(req), nil
}

// second returns the request with an answer to the challenges of resp. An error says why there is none: an *unanswered
// that the refusal goes to the caller, any other that the request fails.
func (x *exchange) second(first *http.Request, resp *http.Response) (*http.Request, error) {
	if x.aside.value().own {
		return nil, &unanswered{own: errOwnProxyAuthorization}
	}
	answer, err := x.answerTo(resp, first, &x.ahead)
	if err != nil {
		return nil, err
	}
	if !x.body.canReplay() {
		x.keepForNext(&answer)
		if x.req.Context().Err() != nil {
			return nil, context.Cause(x.req.Context()) // which has closed the body
		}
		return nil, &unanswered{body: cmp.Or(x.aside.value().noReplay, errBodyNotReplayable)}
	}
	if x.visit.at == nil && !x.tunnel && isExclusive(answer.Session) {
		x.visit = x.spaces.enter(x.remembered())
	}
	req := x.copy(new(http.Request))
	if !x.tunnel {
		if err := x.authorize(req, &answer); errors.Is(err, errBodyNotReplayable) {
			x.keepForNext(&answer)
			return nil, &unanswered{body: err}
		} else if err != nil {
			return nil, err
		}
		if answer.by == nil && sameCredentials(first.Header, req.Header) {
			return nil, &unanswered{refused: ErrCredentialsRefused} // never again unchanged, whatever the Scheme says
		}
	}
	if err := x.body.replay(req); err != nil {
		x.keepForNext(&answer)
		return nil, &unanswered{body: err}
	}
	x.addCookies(req, resp)
	x.setAside().answer = &answer
	if !x.tunnel {
		x.report(Event{Kind: EventAuthorized, Attempt: 2}, &answer)
	}
	return req, nil
}

// answerTo returns what answers a challenge of resp, which refuses what was sent with l.
func (x *exchange) answerTo(resp *http.Response, sent *http.Request, l *lease) (lease, error) {
	challenges := x.challenges(resp)
	x.reportChallenges(resp.StatusCode, challenges)
	x.noteRefusal()
	x.uploads.note(x.origin(), func(h *uploadHabits) { h.challenges = true })
	x.learn(resp, sent, l, true)
	if hintOf(l) == errNonceForgotten {
		x.visit.crowded()
	}
	answer, err := x.choose(challenges, resp, sent, l)
	if err != nil {
		return lease{}, x.withoutRepeatedIn(err, resp)
	}
	err = x.carry(&answer)
	return answer, err
}

// insist sends the request again without the Expect that the server does not like (RFC 9110 §10.1.1). That was the
// retry: a refusal that comes now is returned, but remembered for the next request.
func (x *exchange) insist(resp *http.Response, first *http.Request) (*http.Response, error) {
	l := &x.ahead
	if !x.body.canReplay() {
		return x.accept(resp, first, l)
	}
	learnt := x.learnAccepted(resp, first, l) // counts only if resp goes to the caller: who does not like Expect may be in front of the server
	req := x.copy(new(http.Request))
	if l.Session != nil {
		if err := x.authorize(req, l); err != nil {
			return x.refuse(resp, first, err)
		}
	}
	if err := x.body.replay(req); err != nil {
		if x.req.Context().Err() != nil {
			return x.refuse(resp, first, context.Cause(x.req.Context())) // which has closed the body
		}
		return x.acceptLearnt(resp, first, l, learnt)
	}
	discard(resp)
	if l.Session != nil {
		x.report(Event{Kind: EventAuthorized, Attempt: 2}, l)
	}
	resp, err := x.send(req, l)
	if err != nil {
		return nil, x.broken(err)
	}
	x.expects = false
	if !x.isRefusal(resp) {
		x.noteInsisted(l) // it is not asked again
		return x.accept(resp, req, l)
	}
	answer, err := x.answerTo(resp, req, l)
	if err != nil {
		return x.refuse(resp, req, err)
	}
	x.keep(&answer)
	return x.refuse(resp, req, &unanswered{body: errExpectRefused})
}

// copy makes into a copy of the caller's request, with headers of its own. Their values are shared, which our own
// Schemes and http.Transport leave alone; those of others get their own values, too.
func (x *exchange) copy(into *http.Request) *http.Request {
	if x.onEvent != nil || x.accountFunc != nil || x.hasOthers {
		*into = *x.req.WithContext(x.context())
	} else {
		*into = *x.req
	}
	if x.hasOthers {
		into.Header = x.req.Header.Clone()
	} else {
		into.Header = maps.Clone(x.req.Header)
	}
	return into
}

// authorize lets the lease's Session put its credentials on req. One for a proxy sees no header of the request, and
// what it puts into Authorization is the proxy's: nobody but the proxy may see it.
func (x *exchange) authorize(req *http.Request, l *lease) error {
	if x.onEvent == nil && x.side == originSide && x.body == nil && !x.goesElsewhere() { // as most
		return x.put(l.Session, req)
	}
	if x.onEvent != nil {
		defer x.waitedSince(time.Now())
	}
	if x.side == proxySide {
		return x.authorizeToProxy(req, l)
	}
	return x.authorizeToOrigin(req, l)
}

func (x *exchange) authorizeToOrigin(req *http.Request, l *lease) error {
	getBody, to, elsewhere := req.GetBody, req.URL, x.goesElsewhere()
	if elsewhere {
		req.URL = x.at()
	}
	if x.body != nil {
		req.GetBody = x.body.copies()
	}
	err := x.put(l.Session, req)
	req.GetBody = getBody
	if elsewhere {
		req.URL = to
	}
	return err
}

func (x *exchange) authorizeToProxy(req *http.Request, l *lease) error {
	scratch := req.WithContext((*sendContext)(x))
	scratch.Header = make(http.Header)
	if x.body != nil {
		scratch.GetBody = x.body.copies()
	}
	if err := x.put(l.Session, scratch); err != nil {
		return err
	}
	value := scratch.Header.Get("Authorization")
	if value == "" || len(scratch.Header) > 1 {
		return errNoProxyCredentials
	}
	req.Header[x.credentials] = []string{value}
	return nil
}

// A Session that authorizesIn a context is given ours beside the request, which then keeps the caller's. That it is an interface lets the
// linker leave Bearer, and what a TokenSource needs, out of programs without them.
type authorizesIn interface {
	authorizeIn(ctx context.Context, req *http.Request) error
}

// put lets a Session put its credentials on req.
func (x *exchange) put(s Session, req *http.Request) (err error) {
	if in, ok := s.(authorizesIn); ok {
		err = in.authorizeIn((*sendContext)(x), req)
	} else {
		err = s.Authorize(req)
	}
	if err != nil && x.body != nil && x.req.Context().Err() != nil {
		err = context.Cause(x.req.Context()) // rather than what came of closing the body while it was hashed
	}
	return err
}

var errNoProxyCredentials = errors.New("authretry: a Session sets no Authorization, or another header besides, and that one is all that a proxy can get")

// send puts req on the wire.
func (x *exchange) send(req *http.Request, l *lease) (*http.Response, error) {
	x.attempts++
	var watched *dialed.Watch
	if x.asksRemote && req != x.req {
		watched = x.watch(req)
	}
	x.body.handOver()
	resp, err := x.way().send(x, req, l)
	if watched != nil || x.aside != nil {
		x.setAside().remote = watched.Addr()
	}
	if err != nil {
		return nil, withoutSecrets(err, func() []string { return secretsOf(req, x.req) })
	}
	if resp == nil {
		return nil, errors.New("authretry: Transport.Base returned neither a response nor an error")
	}
	if resp.Body == nil {
		resp.Body = http.NoBody
	}
	x.resp = resp
	last := req
	if x.tunnel {
		last = resp.Request
	}
	if last != &x.copied && last != x.req {
		x.setAside().last = last
	}
	return resp, nil
}

// broken returns the error of a request that could not be sent.
func (x *exchange) broken(err error) error {
	defer x.body.settle()
	switch {
	case isFollowing(err):
		return x.fail(nil, err)
	case x.body != nil && x.req.Context().Err() != nil:
		err = context.Cause(x.req.Context()) // rather than what came of closing the body
	}
	return x.lost(err)
}
