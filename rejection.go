package authretry

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// A Rejection says why a request was refused, or why it has failed. It is the error that [Explain] returns for a
// response, and the type of the errors of RoundTrip that are about credentials (see [Transport]). It holds no secret.
type Rejection struct {
	Reason     Reason
	Origin     string      // "https://api.example.com"
	Status     int         // of the response that refused, also if the request failed after it; 0 if there is none
	Challenges []Challenge // what that response asks for, as far as it could be read; without what it repeats of credentials that were sent
	Schemes    []string    // the names of the Schemes that the Transport has
	Tried      []string    // the names of the Schemes whose credentials were sent, in that order
	Ahead      bool        // credentials were sent with the first request
	Refreshed  bool        // credentials that were refused were replaced by new ones of the same Scheme
	Retried    bool        // the request was sent twice
	Err        error       // the cause, if there is one: what a Scheme or a token endpoint said

	nameless bool // it is RoundTrip's error, before which http.Client puts the URL, so that Error leaves out the origin
}

// Unwrap returns the cause.
func (r *Rejection) Unwrap() error { return r.Err }

// Timeout reports whether the cause is that some time had run out, as for [net.Error]: url.Error asks for it.
func (r *Rejection) Timeout() bool {
	var timeout interface{ Timeout() bool }
	return errors.As(r.Err, &timeout) && timeout.Timeout()
}

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
	ReasonRedirected                            // no credentials, as a redirect has left the origin addressed; or Base has followed one
	ReasonPlaintext                             // no credentials: they would have gone over plain http
	ReasonProxyAuthentication                   // it is a proxy that refuses; see NewProxyTransport
	ReasonNoCredentials                         // credentials could not be obtained
	ReasonUntrustedServer                       // the server could not prove that it knows the password (Digest.RequireMutualAuth) or has the key (negotiate)
	ReasonMisconfigured                         // a field of the Transport does not make sense, or what was called has panicked
	ReasonInsufficientLogin                     // the user's login is not fresh or strong enough for this (RFC 9470)
	ReasonNoAccount                             // no credentials: it is not known for whom the request is; see Transport.Account
	ReasonWrongKey                              // the token is bound to another key than the one at hand (RFC 9449)
	ReasonUntrustedRealm                        // no credentials: the server names a token server that must not be asked
)

var reasonNames = [...]string{"", "not traced", "no challenge", "malformed challenge", "unsupported scheme", "credentials refused",
	"fresh token refused", "insufficient scope", "body not replayable", "own Authorization header", "origin not listed", "redirected",
	"plain http", "proxy authentication", "no credentials", "untrusted server", "misconfigured", "insufficient login", "no account", "wrong key",
	"untrusted realm"}

// String returns the reason in a few words, such as "no challenge". Of 0, as an [Event] has it if nothing was refused, it is "none".
func (r Reason) String() string {
	switch name := r.name(); {
	case r == 0:
		return "none"
	case name == "":
		return "unknown"
	default:
		return name
	}
}

func (r Reason) name() string {
	if r < 0 || int(r) >= len(reasonNames) {
		return ""
	}
	return reasonNames[r]
}

// Error returns one or two sentences that say what happened and what to change. They name the origin, but for an error of
// [Transport.RoundTrip]: to that, http.Client adds the URL.
func (r *Rejection) Error() string {
	var s strings.Builder
	s.WriteString("authretry: ")
	origin := r.Origin
	if r.nameless {
		origin = ""
	}
	if r.Status != 0 {
		fmt.Fprintf(&s, "%s answered %d: ", orUnknown(origin), r.Status)
	} else if origin != "" {
		fmt.Fprintf(&s, "%s: ", origin)
	}
	s.WriteString(r.sentence())
	return s.String()
}

// maxOriginText is how many bytes of an origin are in a Rejection or an Event: more than any has that can be dialled.
const maxOriginText = 300

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
		return "it asks for " + describe(r.Challenges) + ", and Transport.Schemes has only " + strings.Join(r.Schemes, ", ") + "; add what it asks for" + placesOf(r.Challenges)
	case ReasonCredentialsRefused:
		s := "the " + tried + " credentials were refused"
		if tried == "" {
			s = "the credentials that the request came with were refused"
		}
		if r.Refreshed {
			s += ", and so were the new ones that replaced them"
		}
		if len(r.Challenges) > 0 {
			s += "; it asks for " + describe(r.Challenges)
			if r.wantsOther() {
				s += ", and Transport.Schemes has only " + strings.Join(r.Schemes, ", ") + "; add what it asks for" + placesOf(r.Challenges) +
					", or check that the credentials are right, and meant for this server"
				return s + because(r.Err)
			}
		}
		return s + "; check that they are right, and meant for this server" + because(r.Err)
	case ReasonFreshTokenRefused:
		s, until := "it refuses a token that the token endpoint has only just issued", "it is not replaced again before TokenSource.MinRefreshInterval is over"
		if errors.Is(r.Err, errLoginRefused) {
			s, until = "it refuses the token of the last login", "nobody is asked to log in for it again for a while, but by TokenSource.NewLogin"
		}
		if len(r.Challenges) > 0 && !r.asksForWhatWasTried() {
			s += ", and asks for " + describe(r.Challenges) + " instead"
		}
		return s + "; check its audience, its scope, and the clocks; " + until
	case ReasonInsufficientScope:
		s, hint := "the token is good, but its scope does not suffice (RFC 6750 §3.1)", ""
		if r.mayStepUp() {
			hint = " (if StepUp of the Scheme is set, it asks for that)"
		}
		for i := range r.Challenges {
			if scope := r.Challenges[i].Params.Get("scope"); scope != "" {
				return s + fmt.Sprintf("; it needs scope %.200q, which the authorization server has to grant", scope) + hint + because(r.Err)
			}
		}
		return s + "; it needs a wider one, which the authorization server has to grant" + hint + because(r.Err)
	case ReasonInsufficientLogin:
		s := "the user's login is not fresh or not strong enough for this (RFC 9470); have the user log in again"
		if r.mayStepUp() {
			s += " (if StepUp of the Scheme and TokenSource.Login are set, they do that)"
		}
		return s + because(r.Err)
	case ReasonBodyNotReplayable:
		if errors.Is(r.Err, errBodyNotHashable) {
			return "the server wants the body hashed before it is sent (Digest qop=auth-int), and it cannot be read twice; set Request.GetBody, or raise Transport.ReplayLimit"
		}
		if r.Err == errExpectRefused {
			return strings.TrimPrefix(r.Err.Error(), "authretry: ")
		}
		return "the request could be answered, but its body cannot be sent twice; set Request.GetBody, raise Transport.ReplayLimit, or send the request again yourself: it will carry credentials then" + because(detail(r.Err, errBodyNotReplayable))
	case ReasonOwnAuthorization:
		return "the request had an Authorization header of its own (URL userinfo becomes one), so the Transport did not touch it; remove the header to let the Transport authenticate"
	case ReasonOriginNotListed:
		return "no credentials were sent, because the origin is not in Transport.Origins; add it if it may have the credentials of that Transport (" + strings.Join(r.Schemes, ", ") + ")" + because(r.Err)
	case ReasonNoAccount:
		return "no credentials were sent, because it is not known for whom the request is: Transport.Account returned \"\", or another account than that of the redirect which the request comes from; send it with a context that says whose it is"
	case ReasonWrongKey:
		return "the token is bound to another key than the one that is at hand (RFC 9449 §5); use the key that it was issued for, or call TokenSource.Logout and log in again" + because(r.Err)
	case ReasonUntrustedRealm:
		return "it names a server that is not asked" + because(r.Err)
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
	case ReasonNoCredentials:
		if isSentence(r.Err) {
			return strings.TrimPrefix(because(r.Err), ": ")
		}
		return "credentials could not be obtained" + because(r.Err)
	case ReasonUntrustedServer:
		return "the response was discarded" + because(r.Err)
	}
	return "the request was refused" + because(r.Err)
}

// mayStepUp reports whether StepUp of a Scheme might have helped, which has not been tried.
func (r *Rejection) mayStepUp() bool {
	return because(r.Err) == "" && !r.Retried && slices.ContainsFunc(r.Schemes, func(name string) bool { return name == "Bearer" || name == "DPoP" })
}

// wantsOther reports whether the server has refused a token that was sent ahead, and asks for schemes alone that are not there. An API
// key in a header of its own has no challenges to be told by.
func (r *Rejection) wantsOther() bool {
	return len(r.Tried) > 0 && !slices.ContainsFunc(r.Tried, func(name string) bool { return name != "Bearer" && name != "DPoP" }) &&
		!slices.ContainsFunc(r.Challenges, func(c Challenge) bool {
			return slices.ContainsFunc(r.Schemes, func(name string) bool { return equalFoldASCII(c.Scheme, name) })
		})
}

// asksForWhatWasTried reports whether a challenge is for a scheme whose credentials were sent.
func (r *Rejection) asksForWhatWasTried() bool {
	return slices.ContainsFunc(r.Challenges, func(c Challenge) bool {
		return slices.ContainsFunc(r.Tried, func(name string) bool { return equalFoldASCII(c.Scheme, name) })
	})
}

// placesOf says where the schemes are that challenges ask for, if they are not in this package.
func placesOf(challenges []Challenge) string {
	var places []string
	for i := range challenges {
		place := ""
		switch c := &challenges[i]; {
		case equalFoldASCII(c.Scheme, "Negotiate"):
			place = "Negotiate is in module negotiate"
		case equalFoldASCII(c.Scheme, "NTLM"):
			place = "NTLM is in module ntlm"
		case equalFoldASCII(c.Scheme, "DPoP"):
			place = "DPoP is in package dpop"
		case equalFoldASCII(c.Scheme, "Bearer") && c.Params.Get("service") != "" && isHTTP(c.Params.Get("realm")):
			place = "that of a container registry is in package registry"
		}
		if place != "" && !slices.Contains(places, place) {
			places = append(places, place)
		}
	}
	if places == nil {
		return ""
	}
	return " (" + strings.Join(places, "; ") + ")"
}

// because appends a cause to a sentence.
func because(err error) string {
	if err == nil {
		return ""
	}
	text, _, _ := strings.Cut(err.Error(), "\n") // the first of several will do
	if text == "" {
		return ""
	}
	for _, prefix := range []string{"authretry: ", "challenge not supported: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return ": " + text
}

// isSentence reports whether err is an error of this module, which says that there are no credentials, and why.
func isSentence(err error) bool {
	if err == nil {
		return false
	}
	text := err.Error()
	return slices.ContainsFunc([]string{"authretry: ", "dpop: ", "registry: ", "discover: ", "login: "}, func(of string) bool {
		return strings.HasPrefix(text, of) && len(text) > len(of)
	})
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

// mayPass reports whether the same request may succeed later without anybody changing anything.
func (r *Rejection) mayPass() bool {
	if r.Reason != ReasonNoCredentials || errors.Is(r.Err, ErrLoginRequired) {
		return false
	}
	if _, ok := errors.AsType[net.Error](r.Err); ok {
		return true
	}
	e, isToken := errors.AsType[*tokenError](r.Err)
	return isToken && !e.client
}
