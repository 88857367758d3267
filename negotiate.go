package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
)

// A negotiator knows the Schemes and what they have agreed on with servers. A Transport has one for the origins; a
// proxy Transport has one for the proxies.
type negotiator struct {
	schemes        []Scheme
	starters       []starter
	hasOthers      bool // some scheme is not of this package
	allowPlaintext bool
	spaces         spaces
}

// A starter is a Starter among the schemes.
type starter struct {
	Starter
	scheme int // its index
}

func newNegotiator(schemes []Scheme, allowPlaintext bool) (*negotiator, error) {
	if len(schemes) == 0 {
		return nil, errors.New("authretry: Transport.Schemes is empty: there is nothing to answer a 401 with")
	}
	n := &negotiator{schemes: schemes, allowPlaintext: allowPlaintext}
	for i, s := range schemes {
		if s == nil || reflect.ValueOf(s).Kind() == reflect.Pointer && reflect.ValueOf(s).IsNil() {
			return nil, fmt.Errorf("authretry: Transport.Schemes[%d] is nil", i)
		}
		if s, ok := s.(Starter); ok {
			n.starters = append(n.starters, starter{s, i})
		}
		switch s.(type) {
		case *Basic, *Bearer, *Digest, *APIKey:
		default:
			n.hasOthers = true
		}
	}
	return n, nil
}

// ahead returns what to send with the first request: the Session that was challenged for at this path before, else
// what a Starter sends, else a Session that says it covers the path. The lease's Session is nil if there is none.
func (n *negotiator) ahead(ctx context.Context, o origin, req *http.Request) (lease, error) {
	l, exact := n.spaces.lend(o, req.URL)
	if exact {
		return l, nil
	}
	for _, s := range n.starters {
		session, err := s.Start(ctx, req)
		if err == nil && session != nil && !n.mayGo(s.scheme, o) {
			err = plaintextError(s.Name())
		}
		if err != nil {
			n.spaces.keep(o, req.URL, l)
			return lease{scheme: s.scheme}, err
		}
		if session != nil {
			n.spaces.keep(o, req.URL, l)
			return lease{Session: session, scheme: s.scheme, started: true}, nil
		}
	}
	return l, nil
}

// mayGo reports whether the scheme's credentials may go to the origin in the way its URL says.
func (n *negotiator) mayGo(scheme int, o origin) bool {
	if n.allowPlaintext || o.isConfidential() {
		return true
	}
	safe, ok := n.schemes[scheme].(PlaintextSafe)
	return ok && safe.PlaintextSafe()
}

// maxChallenges is how many challenges of a response are looked at. A hostile header has room for many more, and
// each of them may be put to a CredentialsFunc and to OnEvent.
const maxChallenges = 64

// readChallenges reads a header as far as anybody is going to look at it.
func readChallenges(values []string) []Challenge {
	challenges, _ := ParseChallenges(values)
	return challenges[:min(len(challenges), maxChallenges)]
}

// answer chooses the first Scheme, in the order of preference, that has a Session for one of the challenges; among
// several challenges of one scheme the first, for the server's order is its preference (RFC 7616 §3.7). A Scheme that
// sent credentials ahead is asked at last even if none of the challenges is its own.
//
// A lease without Session means that the refusal stands, for the reasons in the error. An error without a reason to
// let it stand, that is, one which is not a *standing, fails the request.
func (n *negotiator) answer(ctx context.Context, o origin, challenges []Challenge, rejected *http.Request, sent lease) (lease, error) {
	stands := &standing{}
	own := false
	for i, s := range n.schemes {
		for c := range challenges {
			if !equalFoldASCII(challenges[c].Scheme, s.Name()) {
				continue
			}
			own = own || i == sent.scheme
			if !n.mayGo(i, o) {
				stands.plaintext = plaintextError(s.Name())
				continue
			}
			session, err := s.Answer(ctx, &challenges[c], &http.Response{Request: rejected})
			if err = stands.note(err); err != nil {
				return lease{scheme: i}, err
			}
			if session != nil {
				return lease{Session: session, scheme: i, realm: challenges[c].Params.Get("realm")}, nil
			}
		}
	}
	if sent.Session != nil && !own {
		session, err := n.schemes[sent.scheme].Answer(ctx, nil, &http.Response{Request: rejected})
		if err = stands.note(err); err != nil {
			return lease{scheme: sent.scheme}, err
		}
		if session != nil {
			return lease{Session: session, scheme: sent.scheme, realm: sent.realm, started: sent.started}, nil
		}
	}
	if stands.plaintext != nil && stands.refused == nil {
		return lease{}, stands.plaintext
	}
	return lease{}, stands
}

// A standing says why a refusal stands: what each Scheme that was asked had to say.
type standing struct {
	refused     error // wraps ErrCredentialsRefused
	unsupported error // wraps ErrUnsupportedChallenge
	plaintext   error
	body        error // why the body cannot be sent again
}

func (s *standing) Error() string { return "authretry: the refusal stands" }

// note sorts out what a Scheme's Answer returned; what it returns itself fails the request.
func (s *standing) note(err error) error {
	switch {
	case errors.Is(err, ErrCredentialsRefused):
		s.refused = err
	case errors.Is(err, ErrUnsupportedChallenge):
		s.unsupported = err
	default:
		return err
	}
	return nil
}

// learn lets a Session learn from a response that is not a refusal, and remembers it.
func (n *negotiator) learn(o origin, req *http.Request, resp *http.Response, l lease) error {
	if learner, ok := l.Session.(Learner); ok {
		if _, err := learner.Learn(resp, false); err != nil {
			return err
		}
	}
	n.spaces.keep(o, req.URL, l)
	return nil
}

// plaintextError is the error of a Scheme whose credentials must not go over plain http.
type plaintextError string

func (e plaintextError) Error() string {
	return "authretry: " + string(e) + " credentials are not sent over plain http to another host than loopback: use https, or set Transport.AllowPlaintext"
}
