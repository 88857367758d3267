package authretry

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net/http"
)

// Learn learns from a refusal which nonce to go on with. From any other response it learns by Authentication-Info: it
// checks rspauth, if that matters to anybody, and goes on with nextnonce.
func (s *digestSession) Learn(resp *http.Response, refused bool) (keep bool, err error) {
	if refused {
		return s.learnRefusal(resp.Header["Www-Authenticate"]), nil
	}
	if resp.StatusCode == http.StatusProxyAuthRequired && !s.mutual { // of which the origin knows nothing
		s.uri = ""
		return true, nil
	}
	info := readAuthInfo(resp.Header["Authentication-Info"], s.use.cnonce)
	next := s.canFollow(info.nextnonce)
	listen := listener(contextOf(resp))
	// The rspauth of auth-int is not checked: it covers the response's body, and servers get that wrong.
	if s.qop != qopAuthInt && (s.mutual || listen != nil || next && info.rspauth != "") && !s.proves(info.rspauth) {
		if err := s.unverified(resp, info.rspauth, listen); s.mutual {
			return false, err
		}
		next = next && info.rspauth == "" // or else it may be the nextnonce of somebody else, such as a proxy
	}
	if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusProxyAuthRequired {
		s.use.accept(s.who)
	}
	s.uri = ""
	if next {
		s.setNonce(info.nextnonce, s.use.cnonce)
	}
	return true, nil
}

// canFollow reports whether a nextnonce is to be taken up. A server may name the nonce in use again: then the count
// goes on. One that cannot be sent is left alone; at worst the server refuses the old one, and gives another.
func (s *digestSession) canFollow(nextnonce string) bool {
	return nextnonce != "" && nextnonce != string(s.nonce) && len(nextnonce) <= maxDigestText && !hasControl(nextnonce)
}

// proves reports whether rspauth is what a server sends that knows H(A1) (RFC 7616 §3.5).
func (s *digestSession) proves(rspauth string) bool {
	return subtle.ConstantTimeCompare(s.response(nil, []byte(":"+s.uri)), []byte(rspauth)) == 1
}

// unverified returns an error that says what is wrong with the proof of the server, and tells the listener, if any.
func (s *digestSession) unverified(resp *http.Response, rspauth string, listen func(context.Context, Event)) error {
	origin := "the server"
	if resp.Request != nil && resp.Request.URL != nil {
		origin = originOf(resp.Request.URL).String()
	}
	realm := cut(s.shownRealm())
	origin = cutTo(maxOriginText, origin)
	err := fmt.Errorf("%w: the rspauth of %s, realm %q, is wrong", ErrMutualAuth, origin, realm)
	if rspauth == "" {
		err = fmt.Errorf("%w: %s, realm %q, sent no rspauth", ErrMutualAuth, origin, realm)
	}
	if listen != nil {
		listen(contextOf(resp), Event{Kind: EventUnverified, Origin: origin, Scheme: "Digest", Realm: realm, Err: err})
	}
	return err
}

func contextOf(resp *http.Response) context.Context {
	if resp.Request == nil {
		return context.Background()
	}
	return resp.Request.Context()
}

// learnRefusal goes on with the nonce that a refusal gives, if all that is wrong with the one that was refused is
// likely to be its age: because the server says so (stale=true), or because it has accepted these credentials with it
// before. It needs no password: the hash of that is the same for every nonce.
func (s *digestSession) learnRefusal(lines []string) (keep bool) {
	s.uri, s.forgotten = "", false
	challenges := readChallenges(lines)
	for i := range challenges {
		if !equalFoldASCII(challenges[i].Scheme, "Digest") {
			continue
		}
		o, err := readDigestChallenge(&challenges[i])
		if err != nil || !s.canGoOn(o) {
			continue
		}
		if o.stale {
			s.goOn(o, s.use.cnonce)
			return true
		}
		var accepted bool
		accepted, s.forgotten = s.use.refuse(s.who)
		if accepted {
			s.goOn(o, s.use.cnonce)
			s.use.instead.Store(s.who)
		}
		return accepted
	}
	return false
}

// canGoOn reports whether o differs from what the session answers in nothing but what goOn changes.
func (s *digestSession) canGoOn(o *digestOffer) bool {
	return o.realm == s.realm() && o.algorithm == s.algorithm && o.sess == s.sess && o.userhash == s.userhash &&
		(o.qop == qopAuth || !s.mutual)
}

// errNonceForgotten is what Explain says of a refusal that may have another cause than wrong credentials.
var errNonceForgotten = &refusedError{text: "the server has refused a nonce that it had accepted before, without calling it stale: " +
	"if the password is still right, the server keeps few nonces at once (Apache: raise AuthDigestShmemSize); send fewer requests at once"}

// refusedHint returns what there is to say of the last refusal besides that the credentials were refused, as an error
// that wraps ErrCredentialsRefused, or nil.
func (s *digestSession) refusedHint() error {
	switch {
	case s.forgotten:
		return errNonceForgotten
	case s.noPassword:
		return errNoPassword
	}
	return nil
}
