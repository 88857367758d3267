package discover

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/guarded"
)

// What can be wrong, by errors.Is. Each text says what to do.
var (
	// ErrNoMetadata means that there is no metadata where it should be, or none that can be read.
	ErrNoMetadata = errors.New("there is no metadata that can be read; name the authorization server in Config.Issuers, or use an authretry.TokenEndpoint")

	// ErrUnreachable means that a server could not be reached, or has not answered in time. Nobody knows what it has.
	ErrUnreachable = errors.New("the server could not be reached")

	// ErrOutOfOrder means that a server has answered 429 or 5xx. Nobody knows what it has.
	ErrOutOfOrder = errors.New("the server is out of order; try again later")

	// ErrOtherResource means that the metadata is that of another resource than the one that was asked (RFC 9728).
	ErrOtherResource = errors.New("the metadata is that of another resource than the one that was asked (RFC 9728); check the URL, or if that is right, name the resource in Config.Resource")

	// ErrOtherIssuer means that the metadata is that of another authorization server than the one that was asked (RFC 8414).
	ErrOtherIssuer = errors.New("the metadata is that of another authorization server than the one that was asked (RFC 8414); its operator has to put that right")

	// ErrNotAllowed means that the resource names no authorization server that Config.Issuers allows, or too many to choose from.
	// Which ones it names is in its metadata, which why401 -login shows.
	ErrNotAllowed = errors.New("the resource names no authorization server that may be asked; if one of those is right, name it in Config.Issuers")

	// ErrRefusedURL means that a server has named a URL that is not asked: it is not https, or leads to where only those inside
	// can reach (see [Config.Issuers]).
	ErrRefusedURL = errors.New("a server has named a URL that is not asked; if it is right, name the authorization server in Config.Issuers")

	// ErrNoPKCE means that the authorization server does not say that it checks PKCE by S256 (RFC 7636), without which codes can be
	// stolen.
	ErrNoPKCE = errors.New("the authorization server does not say that it supports PKCE by S256 (RFC 7636); if it does nevertheless, set Config.AssumePKCE")

	// ErrBoundTokens means that the resource takes only tokens that are bound to a key (RFC 9449).
	ErrBoundTokens = errors.New("the resource takes only tokens that are bound to a key (RFC 9449); set Config.Proof, and use a dpop.Scheme")

	// ErrNoFlow means that there is no way to get a token that both sides know.
	ErrNoFlow = errors.New("the authorization server has no way to get a token that the program has; set another Config.Flow, or Config.Grant")

	// ErrNoClient means that the program is not known to the authorization server, and cannot make itself known.
	ErrNoClient = errors.New("the program is not known to the authorization server, which lets no client register itself; register it there, and name it in Config.Clients")

	// ErrRegistration means that the authorization server has not registered the program (RFC 7591).
	ErrRegistration = errors.New("the authorization server has not registered the program (RFC 7591); register it there by hand, and name it in Config.Clients")
)

// An Error says which step of the way from a 401 to a token has failed, and at which host. Its text has nothing that a server has
// said but the name of the host, and what package crypto/x509 says of its certificate.
type Error struct {
	Host string // of the server that was asked, or that was not; with the port, if the URL has one
	Step string // what it was asked for: "resource metadata", "authorization server metadata", "registration"; or ""
	What error  // one of the errors of this package

	cause error // what happened; may be nil
}

// The steps that an Error can name.
const (
	stepResource     = "resource metadata"
	stepServer       = "authorization server metadata"
	stepRegistration = "registration"
)

// Error implements error.
func (e *Error) Error() string {
	text := "discover: " + e.Step
	switch {
	case e.Host == "":
	case e.Step == "":
		text += fmt.Sprintf("%+.100q: ", e.Host)
	default:
		text += fmt.Sprintf(" at %+.100q: ", e.Host)
	}
	return text + e.What.Error() + causeText(e.cause)
}

// causeText says what has happened, if that can be said in words of our own, or of those who know a server only by its address and its
// certificate.
func causeText(cause error) string {
	if cause == nil {
		return ""
	}
	if refused, ok := errors.AsType[*guarded.RefusedError](cause); ok {
		if refused.Host == "" {
			return " (" + refused.Why + ")"
		}
		return " (" + refused.Error() + ")"
	}
	if own, ok := errors.AsType[ownError](cause); ok {
		return " (" + string(own) + ")"
	}
	if status, ok := errors.AsType[outOfOrder](cause); ok {
		return " (" + status.Error() + ")"
	}
	if why := whyUnreachable(cause); why != "" {
		return " (" + why + ")"
	}
	return ""
}

// Unwrap returns What and what has happened, of which the text says nothing. Where a URL was refused, it has a
// *authretry.Rejection, too.
func (e *Error) Unwrap() []error {
	errs := []error{e.What}
	if e.cause != nil {
		errs = append(errs, e.cause)
	}
	if e.What == ErrRefusedURL {
		errs = append(errs, &authretry.Rejection{Reason: authretry.ReasonUntrustedRealm, Err: e.What})
	}
	return errs
}

// Format keeps what it wraps out of everything that package fmt prints.
func (e *Error) Format(f fmt.State, _ rune) { io.WriteString(f, e.Error()) }

// An ownError is a text of ours that says what has happened.
type ownError string

func (e ownError) Error() string { return string(e) }

// An outOfOrder is the status of a server that cannot say at present what it has.
type outOfOrder int

func (e outOfOrder) Error() string { return fmt.Sprintf("it answered %d", int(e)) }

// answered returns the error for an answer with a status that is none of success.
func answered(status int) error {
	if status == http.StatusTooManyRequests || status >= 500 {
		return outOfOrder(status)
	}
	return ownError(fmt.Sprintf("it answered %d", status))
}

// failed returns an *Error that names no step.
func failed(host string, what, cause error) error { return failedAt("", host, what, cause) }

// failedAt returns an *Error. A cause that is not about what the server has takes the place of what.
func failedAt(step, host string, what, cause error) error {
	if u, ok := cause.(*url.Error); ok { // which has the URL in its text
		cause = u.Err
	}
	if cause != nil {
		what = whatOf(cause, what)
	}
	return &Error{Host: host, Step: step, What: what, cause: cause}
}

// whatOf returns what a cause stands for; what, if it says so in words of ours.
func whatOf(cause, what error) error {
	if _, ok := errors.AsType[*guarded.RefusedError](cause); ok {
		return ErrRefusedURL
	}
	if _, ok := errors.AsType[outOfOrder](cause); ok {
		return ErrOutOfOrder
	}
	if _, ok := errors.AsType[ownError](cause); ok {
		return what
	}
	return ErrUnreachable
}
