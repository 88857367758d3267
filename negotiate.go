package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"time"
)

// An authenticator is what a Transport has for origins, and a ProxyTransport for proxies: the Schemes, what they have
// agreed on with servers, and what else is the same for all exchanges.
type authenticator struct {
	*side
	direct         way // how a Transport sends requests; nil for a ProxyTransport, where each exchange has its own
	schemes        []Scheme
	starters       []starter
	always         *lease // what goes ahead with any request, unless something is remembered; nil: a Starter has to be asked
	hasOthers      bool   // some scheme is not of this package, and may ask a request's context by AccountOf
	allowPlaintext bool

	replayLimit int64
	refused     func(*http.Response) bool              // Transport.Refused
	jar         http.CookieJar                         // Transport.Jar
	accountFunc func(*http.Request) string             // Transport.Account; nil: there is one user
	forbidden   []answersForbidden                     // the schemes that answer a 403
	asksRemote  bool                                   // some scheme wants to know where the server is
	onEvent     func(ctx context.Context, event Event) // nil: nobody listens, and nothing is computed

	spaces  spaces
	nonces  nonces
	uploads uploads
}

// A starter is a Starter among the schemes.
type starter struct {
	Starter
	space *protectionSpace // of what it starts
}

// An answersForbidden is a Scheme that may answer a 403.
type answersForbidden interface {
	Scheme
	AnswersForbidden(c *Challenge) bool
}

// setSchemes checks the Schemes of a Transport or ProxyTransport, whose name is for the error.
func (a *authenticator) setSchemes(schemes []Scheme, name string) error {
	if len(schemes) == 0 {
		return fmt.Errorf("authretry: %s.Schemes is empty: there is nothing to answer a %d with", name, a.status)
	}
	for i, s := range schemes {
		if s == nil || reflect.ValueOf(s).Kind() == reflect.Pointer && reflect.ValueOf(s).IsNil() {
			return fmt.Errorf("authretry: %s.Schemes[%d] is nil", name, i)
		}
		if s, ok := s.(Starter); ok {
			a.starters = append(a.starters, starter{s, &protectionSpace{scheme: int32(i), started: true}})
		}
		if f, ok := s.(answersForbidden); ok {
			a.forbidden = append(a.forbidden, f)
		}
		switch s := s.(type) {
		case *Basic, *Digest, *APIKey:
		case *Bearer:
			a.asksRemote = a.asksRemote || a.side == originSide && s.wantsRemoteAddr()
			if s.Sources != nil && a.accountFunc == nil {
				return fmt.Errorf("authretry: Bearer.Sources needs to know for whom a request is: set Transport.Account, or Bearer.Source if there is one user; a ProxyTransport has no accounts")
			}
		default:
			a.hasOthers = true
			w, ok := s.(WantsRemoteAddr)
			if !ok || a.side != originSide {
				break
			}
			// By itself, since this is done once: what it leaves unfinished, Origins among it, would never be finished.
			err := apart(func(value any) error { return &panicError{panicText(value)} }, func() error {
				a.asksRemote = w.WantsRemoteAddr() || a.asksRemote
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	a.schemes = schemes
	if len(a.starters) == 0 {
		return nil
	}
	// Not what has a Bearer in it, whose Start may be another; and by an interface, for the linker (see authorizesIn).
	if _, ok := a.starters[0].Starter.(*Bearer); ok {
		if session := a.starters[0].Starter.(interface{ always() Session }).always(); session != nil {
			a.always = &lease{held{Session: session}, a.starters[0].space}
		}
	}
	return nil
}

// borrow puts into l, which is empty, what goes ahead with the first request, when it may. Its Session stays nil if there is none.
func (x *exchange) borrow(l *lease) error {
	if err := x.lend(l); err != nil {
		return err
	}
	if x.visit.at != nil && l.Session == nil {
		*l = x.visit.await(x.req.Context(), x.at(), *l)
	}
	if l.Session != nil && !l.space.started && !x.mayGo(l.space.scheme) { // by a proxy by now
		x.keep(l)
		*l = lease{}
	}
	return x.carry(l)
}

// lend puts into l, which is empty, what to send with the first request: a Session for the space that was challenged at this
// path before, else what a Starter sends, else a Session that says it covers the path. The Session stays nil if there is none.
//
// A Starter is asked before what is remembered of its own Scheme: that says no more than that the origin has asked.
func (x *exchange) lend(l *lease) error {
	if x.onEvent != nil {
		defer x.waitedSince(time.Now())
	}
	exact := false
	if x.spaces.count.Load() > 0 {
		// The visit ends with the exchange, also if a Starter panics.
		*l, x.visit, exact = x.spaces.lend(x.remembered(), x.at())
		if l.Session != nil && x.hasCallers(l.space.scheme) {
			x.leave(false)
			*l, exact = lease{}, false
		}
	}
	for i := range x.starters {
		s := &x.starters[i]
		if exact && s.space.scheme != l.space.scheme {
			continue
		}
		session, err := s.Start((*callContext)(x), x.shown(x.req, false))
		err = x.missedValues(err)
		if err == nil && session != nil && !x.mayGo(s.space.scheme) {
			err = plaintextError(s.Name())
		}
		if err != nil || session != nil {
			x.keep(l)
			x.leave(false)
			*l = lease{held{Session: session}, s.space}
			return err
		}
	}
	return nil
}

// leave says that the exchange is none of those that are out to the origin, or not any more.
func (x *exchange) leave(accepted bool) {
	if v := x.visit; v.at != nil {
		x.visit = visit{} // first, since end may panic
		v.end(accepted)
	}
}

// hasCallers reports whether the caller has set the header of a scheme, other than Authorization, and so has its own credentials.
func (x *exchange) hasCallers(scheme int32) bool {
	s, ok := x.schemes[scheme].(interface{ place() headerPlace })
	return ok && x.side == originSide && isCallers(x.req.Header, s.place().header)
}

// remembered returns under which key there is what is remembered for the request.
func (x *exchange) remembered() spacesKey { return spacesKey{x.account, x.origin()} }

// mayGo reports whether the scheme's credentials may go to the origin in the way its URL says: reusable secrets may not over
// a network without TLS (RFC 6750 §5.3, RFC 7617 §4), unless AllowPlaintext is set.
func (x *exchange) mayGo(scheme int32) bool {
	return x.allowPlaintext || x.secure || x.mayGoInClear(scheme)
}

func (x *exchange) mayGoInClear(scheme int32) bool {
	if x.origin().isLoopback() && !x.goesElsewhere() && !x.way().isProxied(x.req) { // asked only now: a Proxy func may count its calls
		return true
	}
	safe, ok := x.schemes[scheme].(PlaintextSafe)
	return ok && safe.PlaintextSafe()
}

// readChallenges reads a header as far as anybody is going to look at it.
func readChallenges(values []string) []Challenge {
	challenges, _ := parseSome(values)
	return challenges
}

// choose returns a Session of the first Scheme, in the order of preference, that has one for a challenge of the
// refusal; among several challenges of one scheme it is the first, for the server's order is its preference
// (RFC 7616 §3.7). A Scheme whose credentials were refused is asked at last even if no challenge is its own.
//
// An *unanswered error means that the refusal goes to the caller, any other that the request fails.
func (x *exchange) choose(challenges []Challenge, resp *http.Response, sent *http.Request, refused *lease) (lease, error) {
	if x.onEvent != nil {
		defer x.waitedSince(time.Now())
	}
	u := &unanswered{}
	own := false
	for n, s := range x.schemes {
		i := int32(n)
		for c := range challenges {
			if !equalFoldASCII(challenges[c].Scheme, s.Name()) {
				continue
			}
			own = own || i == refused.scheme()
			if x.hasCallers(i) {
				u.refused = ErrCredentialsRefused
				continue
			}
			if !x.mayGo(i) {
				u.plaintext = plaintextError(s.Name())
				continue
			}
			if l, err := x.ask(u, i, &challenges[c], resp, sent, refused); l.Session != nil || err != nil {
				return l, err
			}
		}
	}
	if refused.Session != nil && !own {
		if l, err := x.ask(u, refused.scheme(), nil, resp, sent, refused); l.Session != nil || err != nil {
			return l, err
		}
	}
	if u.plaintext != nil && u.refused == nil {
		return lease{}, u.plaintext
	}
	return lease{}, u
}

// ask asks a Scheme for its answer to a challenge. It returns neither a Session nor an error if there is none, and why is
// noted in u.
func (x *exchange) ask(u *unanswered, scheme int32, c *Challenge, resp *http.Response, sent *http.Request, refused *lease) (lease, error) {
	isSender := refused.Session != nil && refused.space.scheme == scheme
	refusal := x.shownResponse(resp, sent, isSender)
	refusal.Request = refusal.Request.WithContext((*callContext)(x))
	session, err := x.schemes[scheme].Answer((*callContext)(x), c, refusal)
	err = x.missedValues(err)
	switch {
	case errors.Is(err, ErrCredentialsRefused):
		u.refused = err
	case errors.Is(err, ErrUnsupportedChallenge):
		u.unsupported = err
	case err != nil:
		return lease{}, err
	default:
		realm := refused.realm()
		if c != nil {
			if realm = c.Params.Get("realm"); x.repeats(cut(realm)) { // looked at only now: what was sent may be much, and challenges many
				realm = "" // events have it
				if s, ok := session.(interface{ hideRealm() }); ok {
					s.hideRealm()
				}
			}
		}
		return lease{held{Session: session}, &protectionSpace{scheme: scheme, realm: realm, started: isSender && refused.space.started}}, nil
	}
	if isSender && (c == nil || u.refused != nil) {
		x.spaces.forget(x.remembered(), refused) // the server does not want these credentials
	}
	return lease{}, nil
}

// An unanswered says why a refusal is returned to the caller: what each Scheme that was asked had to say.
type unanswered struct {
	refused     error // wraps ErrCredentialsRefused
	unsupported error // wraps ErrUnsupportedChallenge
	plaintext   error
	body        error // why the body cannot be sent again
	own         error // the caller's own credentials were refused
}

func (u *unanswered) Error() string { return "authretry: there is no answer to the refusal" }

// plaintextError is the error of a Scheme whose credentials must not go over plain http.
type plaintextError string

func (e plaintextError) Error() string {
	return "authretry: " + string(e) + " credentials are not sent over plain http to another host than loopback: use https, or set Transport.AllowPlaintext"
}
