package authretry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
)

// Explain says why resp is a refusal: a 401 (Unauthorized), a 407 (Proxy Authentication Required), or a 403
// (Forbidden) with a Bearer challenge of insufficient_scope. It returns nil for any other response, and otherwise a
// [*Rejection], also for a response that did not come through a [Transport]: then the Rejection says just that.
//
// The response's body is not touched, and Explain may be called more than once, until somebody replaces
// resp.Request.
func Explain(resp *http.Response) error {
	if resp == nil || !isRefusal(resp) {
		return nil
	}
	if rejection := rejectionOf(resp); rejection != nil {
		return rejection
	}
	return &Rejection{Reason: ReasonNotTraced, Status: resp.StatusCode, Challenges: challengesOf(resp)}
}

// A Rejection says why a request was refused, or why it was not sent. It is the error that [Explain] returns for a
// response, and the type of all errors that [Transport.RoundTrip] makes itself. It holds no secret.
type Rejection struct {
	Reason     Reason
	Origin     string      // "https://api.example.com"
	Status     int         // of the response; 0 if there is none
	Challenges []Challenge // what the response asks for, as far as it could be read
	Schemes    []string    // the names of the Schemes that the Transport has
	Tried      []string    // the names of the Schemes whose credentials were sent and refused, in that order
	Ahead      bool        // credentials were sent with the first request
	Refreshed  bool        // credentials that were refused were replaced by new ones of the same Scheme
	Retried    bool        // the request was sent twice
	Err        error       // the cause, if there is one: what a Scheme or a token endpoint said
}

// Unwrap returns the cause.
func (r *Rejection) Unwrap() error { return r.Err }

// A Reason says why a request was refused or not sent, for programs to switch on.
type Reason int

// The reasons of a [Rejection].
const (
	ReasonNotTraced           Reason = iota + 1 // the response did not come through a Transport
	ReasonNoChallenge                           // the refusal has no challenge (RFC 9110 §15.5.2 demands one)
	ReasonMalformedChallenge                    // the refusal has challenges, but none that can be read
	ReasonUnsupportedScheme                     // no Scheme of the Transport can answer the challenges
	ReasonCredentialsRefused                    // the server has seen the credentials, and does not want them
	ReasonFreshTokenRefused                     // the server refuses a token that is new from the token endpoint
	ReasonInsufficientScope                     // the token is good, but not for this (RFC 6750 §3.1)
	ReasonBodyNotReplayable                     // the request's body cannot be sent twice
	ReasonOwnAuthorization                      // the caller's own Authorization header went out, and was refused
	ReasonOriginNotListed                       // no credentials: the origin is not one of Transport.Origins
	ReasonRedirected                            // no credentials: a redirect has left the origin that the caller addressed
	ReasonPlaintext                             // no credentials: they would have gone over plain http
	ReasonProxyAuthentication                   // it is a proxy that refuses; see NewProxyTransport
	ReasonNoCredentials                         // credentials could not be obtained
	ReasonUntrustedServer                       // the server could not prove that it knows the password (Digest.RequireMutualAuth)
	ReasonMisconfigured                         // a field of the Transport does not make sense
)

var reasonNames = [...]string{"", "not traced", "no challenge", "malformed challenge", "unsupported scheme", "credentials refused",
	"fresh token refused", "insufficient scope", "body not replayable", "own Authorization header", "origin not listed", "redirected",
	"plain http", "proxy authentication", "no credentials", "untrusted server", "misconfigured"}

// String returns the reason in a few words, such as "no challenge".
func (r Reason) String() string {
	if r <= 0 || int(r) >= len(reasonNames) {
		return "unknown"
	}
	return reasonNames[r]
}

// Error returns one or two sentences that say what happened and what to change.
func (r *Rejection) Error() string {
	var s strings.Builder
	s.WriteString("authretry: ")
	if r.Status != 0 {
		fmt.Fprintf(&s, "%s answered %d: ", orUnknown(r.Origin), r.Status)
	} else if r.Origin != "" {
		fmt.Fprintf(&s, "%s: ", r.Origin)
	}
	s.WriteString(r.sentence())
	return s.String()
}

func (r *Rejection) sentence() string {
	tried := strings.Join(slices.Compact(slices.Clone(r.Tried)), " and then ")
	switch r.Reason {
	case ReasonNotTraced:
		return "the response did not come through an authretry.Transport, so nothing more is known; set one as the http.Client's Transport"
	case ReasonNoChallenge:
		s := "the refusal names no challenge (RFC 9110 §15.5.2), so no scheme could be chosen"
		if r.Ahead {
			return s + "; the " + tried + " credentials sent with the request were not accepted"
		}
		return s + "; if the server wants a token or an API key, let Bearer or APIKey send it ahead"
	case ReasonMalformedChallenge:
		return "its WWW-Authenticate header cannot be read" + because(r.Err)
	case ReasonUnsupportedScheme:
		if r.Err != nil {
			return "it asks for " + describe(r.Challenges) + ", which the configured scheme cannot answer" + because(r.Err)
		}
		return "it asks for " + describe(r.Challenges) + ", and Transport.Schemes has only " + strings.Join(r.Schemes, ", ") + "; add what it asks for"
	case ReasonCredentialsRefused:
		s := "the " + tried + " credentials were refused"
		if r.Refreshed {
			s += ", and so were the new ones that replaced them"
		}
		if len(r.Challenges) > 0 {
			s += "; it asks for " + describe(r.Challenges)
		}
		return s + "; check that they are right, and meant for this server" + because(r.Err)
	case ReasonFreshTokenRefused:
		return "it refuses a token that the token endpoint has only just issued; check its audience, its scope, and the clocks"
	case ReasonInsufficientScope:
		s := "the token is good, but its scope does not suffice (RFC 6750 §3.1)"
		for i := range r.Challenges {
			if scope := r.Challenges[i].Params.Get("scope"); scope != "" {
				return s + fmt.Sprintf("; ask the authorization server for scope %.200q", scope)
			}
		}
		return s + "; ask the authorization server for a wider one"
	case ReasonBodyNotReplayable:
		return "the request could be answered, but its body cannot be sent twice; set Request.GetBody, raise Transport.ReplayLimit, or send the request again yourself: it will carry credentials then" + because(r.Err)
	case ReasonOwnAuthorization:
		return "the request had an Authorization header of its own (URL userinfo becomes one), so the Transport did not touch it; remove the header to let the Transport authenticate"
	case ReasonOriginNotListed:
		return "no credentials were sent, because the origin is not in Transport.Origins; add it if it may have them"
	case ReasonRedirected:
		if r.Err != nil {
			return strings.TrimPrefix(r.Err.Error(), "authretry: ")
		}
		return "no credentials were sent, because redirects have led away from the origin that was asked first; if you trust where they lead, request that URL directly"
	case ReasonProxyAuthentication:
		s := "a proxy asks for " + describe(r.Challenges)
		if r.Err == nil {
			return s + "; give it credentials with NewProxyTransport"
		}
		return s + because(r.Err)
	case ReasonPlaintext, ReasonMisconfigured:
		if r.Err != nil {
			return strings.TrimPrefix(r.Err.Error(), "authretry: ")
		}
	case ReasonNoCredentials, ReasonUntrustedServer:
		s := "credentials could not be obtained"
		if r.Reason == ReasonUntrustedServer {
			s = "the response was discarded"
		}
		return s + because(r.Err)
	}
	return "the request was refused" + because(r.Err)
}

// because appends a cause to a sentence.
func because(err error) string {
	if err == nil {
		return ""
	}
	text, _, _ := strings.Cut(err.Error(), "\n") // the first of several will do
	for _, prefix := range []string{"authretry: ", "challenge not supported: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return ": " + text
}

func orUnknown(origin string) string {
	if origin == "" {
		return "the server"
	}
	return origin
}

// describe names what challenges ask for, such as `Digest (realm "x")`. What the server wrote is quoted and cut.
func describe(challenges []Challenge) string {
	const most = 4
	var s strings.Builder
	for i := range challenges {
		if i == most {
			s.WriteString(" and others")
			break
		}
		if i > 0 {
			s.WriteString(" or ")
		}
		fmt.Fprintf(&s, "%.40s", challenges[i].Scheme) // a token: no control characters
		if realm := challenges[i].Params.Get("realm"); realm != "" {
			fmt.Fprintf(&s, " (realm %.80q)", realm)
		}
	}
	if s.Len() == 0 {
		return "nothing that could be read"
	}
	return s.String()
}

// isRefusal reports whether resp is one of those that Explain explains.
func isRefusal(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusProxyAuthRequired:
		return true
	case http.StatusForbidden:
		return len(resp.Header["Www-Authenticate"]) > 0 && isInsufficientScope(challengesOf(resp))
	}
	return false
}

func isInsufficientScope(challenges []Challenge) bool {
	for i := range challenges {
		if equalFoldASCII(challenges[i].Scheme, "Bearer") && challenges[i].Params.Get("error") == "insufficient_scope" {
			return true
		}
	}
	return false
}

func challengesOf(resp *http.Response) []Challenge {
	name := "Www-Authenticate"
	if resp.StatusCode == http.StatusProxyAuthRequired {
		name = "Proxy-Authenticate"
	}
	return readChallenges(resp.Header[name])
}

// A Rejection travels with its response in the context of resp.Request: unlike the body, nobody wraps that.
type rejectionKey struct{}

func rejectionOf(resp *http.Response) *Rejection {
	if resp.Request == nil {
		return nil
	}
	r, _ := resp.Request.Context().Value(rejectionKey{}).(*Rejection)
	return r
}

// explain attaches to the refusal resp what Explain will say of it, unless a Transport below has already done so.
func (x *exchange) explain(resp *http.Response, reason Reason, stands *standing) {
	if below := rejectionOf(resp); below != nil && below != x.req.Context().Value(rejectionKey{}) {
		if x.isOwn(resp) { // and not of a request with our credentials
			resp.Request = x.req.WithContext(context.WithValue(x.req.Context(), rejectionKey{}, below))
		}
		return
	}
	r := x.rejection(nil)
	r.Status = resp.StatusCode
	r.Challenges = challengesOf(resp)
	if r.Reason = reason; reason == 0 {
		r.Reason, r.Err = x.why(resp, r.Challenges, stands)
	}
	req := x.req
	if !x.isOwn(resp) {
		req = resp.Request // of a Base that follows redirects
	}
	resp.Request = req.WithContext(context.WithValue(req.Context(), rejectionKey{}, r))
}

// why finds the reason of a refusal that was to be answered.
func (x *exchange) why(resp *http.Response, challenges []Challenge, stands *standing) (Reason, error) {
	if stands == nil {
		stands = &standing{}
	}
	switch {
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return ReasonProxyAuthentication, nil
	case isInsufficientScope(challenges):
		return ReasonInsufficientScope, nil
	case stands.body != nil:
		return ReasonBodyNotReplayable, nil
	case errors.Is(stands.refused, ErrTokenRefused):
		return ReasonFreshTokenRefused, stands.refused
	case stands.refused != nil:
		return ReasonCredentialsRefused, detail(stands.refused, ErrCredentialsRefused)
	case len(challenges) == 0:
		if _, err := ParseChallenges(resp.Header["Www-Authenticate"]); err != nil {
			return ReasonMalformedChallenge, err
		}
		return ReasonNoChallenge, nil
	}
	return ReasonUnsupportedScheme, detail(stands.unsupported, ErrUnsupportedChallenge)
}

// detail returns err if it says more than the sentinel that it wraps.
func detail(err, sentinel error) error {
	if err == sentinel {
		return nil
	}
	return err
}

// rejection returns a Rejection with what the exchange knows, and the reason that an error of ours stands for.
func (x *exchange) rejection(err error) *Rejection {
	r := &Rejection{Reason: ReasonNoCredentials, Origin: x.origin.String(), Retried: x.attempts > 1, Err: err}
	var plaintext plaintextError
	switch {
	case errors.As(err, &plaintext):
		r.Reason = ReasonPlaintext
	case errors.Is(err, ErrMutualAuth):
		r.Reason = ReasonUntrustedServer
	case errors.Is(err, errFollowsRedirects):
		r.Reason = ReasonRedirected
	}
	n := x.t.negotiator
	for _, s := range n.schemes {
		r.Schemes = append(r.Schemes, s.Name())
	}
	if x.ahead.Session != nil && x.attempts > 0 {
		r.Ahead = true
		r.Tried = append(r.Tried, r.Schemes[x.ahead.scheme])
	}
	if x.answer.Session != nil && x.attempts > 1 {
		r.Refreshed = r.Ahead && x.answer.scheme == x.ahead.scheme
		r.Tried = append(r.Tried, r.Schemes[x.answer.scheme])
	}
	return r
}

// mayPass reports whether the same request may succeed later without anybody changing anything.
func (r *Rejection) mayPass() bool {
	if r.Reason != ReasonNoCredentials || errors.Is(r.Err, ErrLoginRequired) {
		return false
	}
	if _, ok := errors.AsType[net.Error](r.Err); ok {
		return true
	}
	_, isToken := errors.AsType[*tokenError](r.Err)
	return isToken
}
