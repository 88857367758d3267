package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Explain says why resp is a refusal: a 401 (Unauthorized), a 407 (Proxy Authentication Required), a 403
// (Forbidden) with a Bearer or DPoP challenge of insufficient_scope or insufficient_user_authentication, or one that a Scheme
// answers as a 401, or whatever [Transport.Refused] calls one. It returns nil for any other response, and otherwise a
// [*Rejection], also for a response that did not come through a [Transport]: then the Rejection says just that.
//
// Where Transports are nested, the explanation is that of the one that has sent credentials: of the innermost, if several
// have. If none has, it is that of the outermost one that has looked for an answer, or else of the outermost whose Origins have the
// request's, or else of the outermost.
//
// The response's body is not touched, and Explain may be called more than once, until somebody replaces
// resp.Request. For a library that returns no response, there is an example.
func Explain(resp *http.Response) error {
	if resp == nil {
		return nil
	}
	if rejection := rejectionOf(resp); rejection != nil {
		return rejection
	}
	if !isRefusal(resp) {
		return nil
	}
	return &Rejection{Reason: ReasonNotTraced, Status: resp.StatusCode, Challenges: challengesOf(resp)}
}

// isRefusal reports whether resp is one of those that Explain explains.
func isRefusal(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusProxyAuthRequired:
		return true
	case http.StatusForbidden:
		return len(resp.Header["Www-Authenticate"]) > 0 && insufficiency(challengesOf(resp)) != 0
	}
	return false
}

// insufficiency returns what a token lacks, as challenges say that was refused for that; 0 if none says so.
func insufficiency(challenges []Challenge) Reason {
	for i := range challenges {
		if !equalFoldASCII(challenges[i].Scheme, "Bearer") && !equalFoldASCII(challenges[i].Scheme, "DPoP") {
			continue
		}
		switch challenges[i].Params.Get("error") {
		case "insufficient_scope":
			return ReasonInsufficientScope
		case "insufficient_user_authentication":
			return ReasonInsufficientLogin
		}
	}
	return 0
}

func challengesOf(resp *http.Response) []Challenge {
	name := "Www-Authenticate"
	if resp.StatusCode == http.StatusProxyAuthRequired {
		name = "Proxy-Authenticate"
	}
	return readChallenges(resp.Header[name])
}

// explained is the context of a response's request, with which the Rejection travels: unlike the body, nobody wraps that.
type explained struct {
	context.Context
	rejection *Rejection
}

func rejectionOf(resp *http.Response) *Rejection {
	if resp.Request == nil {
		return nil
	}
	if e, ok := resp.Request.Context().(*explained); ok {
		return e.rejection
	}
	return nil
}

// withoutExplanation returns req, or a copy of it without what is said in its context of the response that it comes from.
func withoutExplanation(req *http.Request) *http.Request {
	switch ctx := req.Context().(type) {
	case *explained, *sentFor:
		below, _ := withoutMarks(ctx)
		return req.WithContext(below)
	}
	return req
}

// attach attaches to resp, which goes to the caller, what Explain will say of it.
func (x *exchange) attach(resp *http.Response, r *Rejection) {
	req := x.req
	if resp.Request != nil {
		req = resp.Request
		if e, ok := req.Context().(*explained); ok {
			req = req.WithContext(e.Context)
		}
	}
	resp.Request = req.WithContext(&explained{req.Context(), r})
}

// wordOf returns which of two Rejections counts, that of a Transport or that of one below it. Either may be nil.
func wordOf(outer, inner *Rejection) *Rejection {
	switch {
	case inner == nil:
		return outer
	case outer == nil, inner.weight() > outer.weight(), inner.weight() == hasTried:
		return inner
	}
	return outer
}

// The weights of a Rejection, by what its Transport has done.
const (
	hasPassed  = iota // it is not for the request's origin, and let the request pass
	hasStopped        // it let the request pass for another reason
	hasLooked         // it had no answer to the challenges
	hasTried          // it has sent credentials, or would have
)

func (r *Rejection) weight() int {
	switch {
	case len(r.Tried) > 0, r.Reason == ReasonBodyNotReplayable:
		return hasTried
	case r.Reason == ReasonOriginNotListed:
		return hasPassed
	case r.Reason == ReasonOwnAuthorization, r.Reason == ReasonRedirected, r.Reason == ReasonNoAccount:
		return hasStopped
	case r.Reason == ReasonProxyAuthentication && (r.Err == nil || r.Err == errOriginRefuses || r.Err == errOwnProxyAuthorization):
		return hasPassed
	}
	return hasLooked
}

// explainPassed returns what there is to be said of the response to a request that passed without our credentials, for
// the reason given. It is nil if the response is not a refusal.
func (x *exchange) explainPassed(resp *http.Response, reason Reason) *Rejection {
	switch {
	case !isRefusal(resp):
		return nil
	case x.side == proxySide:
		return x.explainOthers(resp)
	case reason == 0:
		return nil
	}
	r := x.rejection(resp, nil)
	r.Reason = reason
	if reason == ReasonOriginNotListed && x.goesElsewhere() {
		r.Err = errHostDecides
	}
	return r
}

// errHostDecides says why it is not the URL's origin that has to be listed, or not it alone.
var errHostDecides = errors.New("authretry: Request.Host names another host than the URL, and a proxy sends plain http there; if it cannot be told whether Base uses a proxy, list both")

// explainOthers returns what there is to be said of a refusal that does not refuse what we have credentials for. On the side of
// proxies, it is nil unless the status is 407.
func (x *exchange) explainOthers(resp *http.Response) *Rejection {
	switch {
	case x.side == proxySide && resp.StatusCode != http.StatusProxyAuthRequired:
		return nil
	case x.side == proxySide:
		u, own := &unanswered{own: errOriginRefuses}, x.aside.value().own
		if own {
			u.own = errOwnProxyAuthorization
		}
		r := x.why(resp, u)
		if !own {
			r.Origin = cutTo(maxOriginText, originOf(x.req.URL).String())
		}
		return r
	case x.foreign:
		r := x.rejection(resp, nil)
		r.Reason = ReasonRedirected
		return r
	}
	return x.why(resp, &unanswered{})
}

// errOverwritten says that it was not our credentials that were refused.
var errOverwritten = errors.New("authretry: Base has put another Authorization in place of the Scheme's, as an oauth2.Transport does; give the Transport a Base that has no credentials of its own")

// isOverwritten reports whether Base has put an Authorization of its own in place of ours.
func isOverwritten(resp *http.Response, sent *http.Request) bool {
	ours, by := sent.Header["Authorization"], resp.Request
	if ours == nil || by == nil || by == sent || by.URL == nil || *by.URL != *sent.URL {
		return false
	}
	theirs := by.Header["Authorization"]
	return theirs != nil && !slices.Equal(ours, theirs)
}

// why returns what there is to be said of the refusal resp, to which nobody had an answer.
func (x *exchange) why(resp *http.Response, u *unanswered) *Rejection {
	r := x.rejection(resp, nil)
	if x.side == proxySide {
		r.Reason, r.Err = ReasonProxyAuthentication, x.whyProxy(r, u)
		return r
	}
	r.Reason, r.Err = x.whyOrigin(resp, r, u)
	for _, err := range []error{u.refused, u.unsupported} {
		if said, ok := errors.AsType[*Rejection](err); ok { // the Scheme's own word
			r.Reason, r.Err = said.Reason, &saidError{err, said}
			break
		}
	}
	return r
}

func (x *exchange) whyOrigin(resp *http.Response, r *Rejection, u *unanswered) (Reason, error) {
	switch {
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return ReasonProxyAuthentication, nil
	case insufficiency(r.Challenges) != 0:
		return insufficiency(r.Challenges), nil
	case u.body != nil:
		return ReasonBodyNotReplayable, u.body
	case errors.Is(u.refused, ErrTokenRefused):
		return ReasonFreshTokenRefused, u.refused
	case u.refused != nil:
		return ReasonCredentialsRefused, detail(u.refused, ErrCredentialsRefused)
	case len(r.Challenges) == 0:
		if _, err := parseSome(resp.Header[x.challenge]); err != nil {
			return ReasonMalformedChallenge, err
		}
		return ReasonNoChallenge, nil
	}
	return ReasonUnsupportedScheme, detail(u.unsupported, ErrUnsupportedChallenge)
}

// whyProxy returns the cause of a 407 in the words of a proxy's user.
func (x *exchange) whyProxy(r *Rejection, u *unanswered) error {
	switch {
	case u.own != nil:
		return u.own
	case u.body != nil:
		return u.body
	case u.refused != nil:
		return &proxyCause{"the " + strings.Join(r.Tried, " and then ") + " credentials were refused; check them", u.refused}
	case len(r.Challenges) == 0:
		return &proxyCause{"the refusal names no challenge that could be read, so no scheme could be chosen", u}
	}
	advice := "add the scheme to ProxyTransport.Schemes"
	if !slices.ContainsFunc(r.Challenges, func(c Challenge) bool { return !equalFoldASCII(c.Scheme, "NTLM") }) {
		advice = "NTLM needs the ProxyDialer of module ntlm in place of the ProxyTransport"
	}
	return &proxyCause{"the configured " + strings.Join(r.Schemes, ", ") + " cannot answer that; " + advice +
		because(detail(u.unsupported, ErrUnsupportedChallenge)), u.unsupported}
}

// A proxyCause says in the words of a proxy's user why a request was refused.
type proxyCause struct {
	text  string
	cause error
}

func (c *proxyCause) Error() string { return "authretry: " + c.text }
func (c *proxyCause) Unwrap() error { return c.cause }

// The reasons for which a ProxyTransport returns a 407 as it came.
var (
	errOriginRefuses         = errors.New("authretry: it was not a proxy of ours that sent this, so it got no proxy's credentials")
	errOwnProxyAuthorization = errors.New("authretry: the caller's own Proxy-Authorization went out (a user name in the proxy's URL becomes one), so it was left alone; remove it to let ProxyTransport authenticate")
)

// detail returns err if it says more than the sentinel that it wraps.
func detail(err, sentinel error) error {
	if err == sentinel {
		return nil
	}
	return err
}

// saidError is an error of a Scheme that has a Rejection in it: its text is what that one gives as the cause.
type saidError struct {
	error
	said *Rejection
}

func (e *saidError) Error() string {
	if e.said.Err == nil {
		return ""
	}
	return e.said.Err.Error()
}

func (e *saidError) Unwrap() error { return e.error }

// misconfiguration is what is wrong with the fields of a Transport.
type misconfiguration struct{ error }

func (m misconfiguration) Unwrap() error { return m.error }

// rejection returns a Rejection with what the exchange knows, and the reason that an error of ours stands for. Resp is
// the response that refused; nil if there is none.
func (x *exchange) rejection(resp *http.Response, err error) *Rejection {
	r := &Rejection{Reason: reasonOf(err), Retried: x.attempts > 1, Err: err}
	if o := x.origin(); o.host != "" {
		r.Origin = cutTo(maxOriginText, o.String())
	}
	if plaintext, ok := errors.AsType[plaintextError](err); ok && x.side == proxySide {
		r.Err = &proxyCause{string(plaintext) + " credentials are not sent over plain http to a proxy on another host: use a proxy with an https:// URL, or set ProxyTransport.AllowPlaintext", plaintext}
	}
	if resp != nil {
		r.Status, r.Challenges = resp.StatusCode, x.withoutRepeated(challengesOf(resp))
	}
	for _, s := range x.schemes {
		r.Schemes = append(r.Schemes, s.Name())
	}
	if x.ahead.Session != nil && x.attempts > 0 {
		r.Ahead = true
		r.Tried = append(r.Tried, r.Schemes[x.ahead.scheme()])
	}
	if answer := x.aside.value().answer; answer != nil && answer.Session != nil && x.attempts > 1 {
		r.Refreshed = r.Ahead && answer.scheme() == x.ahead.scheme()
		r.Tried = append(r.Tried, r.Schemes[answer.scheme()])
	}
	return r
}

// reasonOf returns the reason that an error of ours, or of a Scheme, stands for.
func reasonOf(err error) Reason {
	if said, ok := errors.AsType[*Rejection](err); ok {
		return said.Reason
	}
	if _, ok := errors.AsType[plaintextError](err); ok {
		return ReasonPlaintext
	}
	if _, ok := errors.AsType[*followsRedirects](err); ok {
		return ReasonRedirected
	}
	if errors.Is(err, ErrMutualAuth) {
		return ReasonUntrustedServer
	}
	if _, ok := errors.AsType[*panicError](err); ok {
		return ReasonMisconfigured
	}
	if _, ok := errors.AsType[misconfiguration](err); ok {
		return ReasonMisconfigured
	}
	return ReasonNoCredentials
}

// fail returns the error of a request for which credentials could not be obtained. Resp is the response that refused; nil
// if there is none.
func (x *exchange) fail(resp *http.Response, err error) error {
	r := x.rejection(resp, err)
	r.nameless = x.side == originSide
	x.done(0, r, r)
	return r
}

// failTunnel returns the error of a request whose CONNECT the proxy has refused, which is what resp says.
func (x *exchange) failTunnel(resp *http.Response, u *unanswered) error {
	r := x.why(resp, u)
	if hook := x.aside.value().hook; hook != nil {
		r.Err = fmt.Errorf("%w; OnProxyConnectResponse says: %w", r.Err, hook)
	}
	x.report(Event{Kind: EventRefused, Attempt: int(x.attempts), Status: r.Status, Reason: r.Reason}, nil)
	x.done(0, r, r)
	return r
}
