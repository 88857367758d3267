package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/guarded"
)

// A session sends the token that the place of the request is known to need. One serves all requests.
type session Scheme

// Authorize implements authretry.Session.
func (s *session) Authorize(req *http.Request) error {
	at := placeFor(authretry.AccountOf(req.Context()), req.URL)
	memory := &(*Scheme)(s).memory
	wants, known := memory.needs(at)
	if !known {
		return nil // it has been forgotten a moment ago: let the registry ask
	}
	err := memory.grant((*Scheme)(s), at, wants).authorize(req)
	if r, ok := errors.AsType[*authretry.Rejection](err); ok && (r.Reason == authretry.ReasonInsufficientScope || r.Reason == authretry.ReasonNoCredentials) {
		memory.unlearn(at) // all together is not granted any more: let the registry ask for what it needs
		return nil
	}
	return err
}

// Covers reports false: for which requests there is a token depends on their paths, and Start knows that.
func (s *session) Covers(*url.URL) bool { return false }

// Format keeps credentials and tokens out of everything that package fmt prints.
func (s *session) Format(f fmt.State, _ rune) { io.WriteString(f, "registry.session{}") }

// MarshalJSON keeps credentials and tokens out of JSON.
func (s *session) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }

// An answer is a session for the request that was refused.
type answer struct {
	*session
	grant   *grant
	isFirst atomic.Bool // the registry has not yet said what it thinks of the answer
}

// Authorize implements authretry.Session.
func (a *answer) Authorize(req *http.Request) error {
	if !a.isFirst.Load() {
		return a.session.Authorize(req)
	}
	return a.grant.authorize(req)
}

// Learn notes what the registry makes of the token for which it has asked.
func (a *answer) Learn(resp *http.Response, refused bool) (keep bool, err error) {
	token := tokenOf(resp.Request)
	if token == "" || !a.isFirst.CompareAndSwap(true, false) {
		return true, nil
	}
	switch status := resp.StatusCode; {
	case refused:
		return true, a.grant.refused(token, codeOf(challengeIn(resp)))
	case status == http.StatusProxyAuthRequired, status == http.StatusTooManyRequests, status >= 500: // it did not come as far as that
	default:
		a.grant.accepted(token)
	}
	return true, nil
}

// challengeIn returns the first challenge of Bearer; nil if there is none.
func challengeIn(refusal *http.Response) *authretry.Challenge {
	const most = 64
	challenges, _ := authretry.ParseChallenges(refusal.Header["Www-Authenticate"])
	for i := range challenges[:min(len(challenges), most)] {
		if guarded.Lower(challenges[i].Scheme) == "bearer" {
			return &challenges[i]
		}
	}
	return nil
}

// codeOf returns the error code of a challenge, "" of none.
func codeOf(c *authretry.Challenge) string {
	if c == nil {
		return ""
	}
	return c.Params.Get("error")
}
