package login

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// Errors of a login, by errors.Is.
var (
	// ErrDeclined means that the person, or the authorization server for them, has said no (access_denied).
	ErrDeclined = errors.New("login: the login was declined")

	// ErrExpired means that nobody has agreed in time (expired_token).
	ErrExpired = errors.New("login: nobody has agreed before the code expired; log in again")

	// ErrIssuer means that an answer came from another authorization server than the one that was asked (RFC 9207), or does
	// not say from which. Its code has not been used.
	ErrIssuer = errors.New("login: the answer comes from another authorization server than the one that was asked (RFC 9207), so it is not used")
)

// An Error is what an authorization server says in place of a code or a token. Its text has nothing of the server's.
type Error struct {
	// Code is the error code, such as "access_denied" (RFC 6749 §4.1.2.1, RFC 8628 §3.5); "" if it is none that is known.
	Code string

	// Status is the status of the answer; 0 if it came by a browser.
	Status int
}

// Error says what has failed, and what to do.
func (e *Error) Error() string {
	text := "login: the authorization server has answered with an error"
	if e.Status != 0 {
		text = fmt.Sprintf("login: the authorization server answered %d", e.Status)
	}
	if e.Code == "" {
		if e.Status >= 400 && e.Status < 500 && e.Status != http.StatusTooManyRequests {
			text += ", and names no error that is known; check the URLs of the TokenEndpoint and the Authorization"
		}
		return text
	}
	if what, ok := meanings[e.Code]; ok && what != "" {
		return fmt.Sprintf("%s, %s: %s", text, e.Code, what)
	}
	return text + ", " + e.Code
}

// Unwrap returns ErrDeclined or ErrExpired where Code says so.
func (e *Error) Unwrap() error {
	switch e.Code {
	case "access_denied":
		return ErrDeclined
	case "expired_token":
		return ErrExpired
	}
	return nil
}

// meanings are the codes that are known, and what to do about them.
var meanings = map[string]string{
	"access_denied":             "the login was declined",
	"authorization_pending":     "",
	"consent_required":          "it wants to ask the person for their consent",
	"expired_token":             "nobody has agreed in time; log in again",
	"interaction_required":      "it wants to ask the person something",
	"invalid_client":            "it does not know the client; put the client's credentials right",
	"invalid_dpop_proof":        "it takes none but good proofs of a key (RFC 9449); set TokenEndpoint.Proof, or discover.Config.Proof, and set the clock right",
	"invalid_grant":             "the code is not good, or not any more; log in again",
	"invalid_request":           "it does not take the request as it is; see what the client is allowed there",
	"invalid_scope":             "it does not know one of the scopes, or does not give it to this client",
	"invalid_target":            "it does not know the resource (RFC 8707), which is in TokenEndpoint.Params, or in discover.Config.Resource",
	"login_required":            "it wants the person to log in",
	"server_error":              "it has failed; try again later",
	"slow_down":                 "",
	"temporarily_unavailable":   "try again later",
	"unauthorized_client":       "the client may not log people in in this way",
	"unsupported_response_type": "it does not know the authorization code flow",
	"use_dpop_nonce":            "it wants a proof of a key with its nonce (RFC 9449), and asks for another one each time; if there is no proof, set TokenEndpoint.Proof, or discover.Config.Proof",
}

// known returns an error code if it is one that is known, else "".
func known(code string) string {
	if _, ok := meanings[code]; ok {
		return code
	}
	return ""
}

// isOf reports whether e has one of the codes.
func (e *Error) isOf(codes ...string) bool { return e.Code != "" && slices.Contains(codes, e.Code) }

// readable returns an error of a request in words of our own, without the server's. It does not wrap what it is made of where that
// has the answer, or a URL, which could have secrets in it.
func readable(err error) error {
	if r, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		e := &Error{Code: known(r.ErrorCode)}
		if r.Response != nil {
			e.Status = r.Response.StatusCode
		}
		return e
	}
	u, ok := errors.AsType[*url.Error](err)
	if !ok {
		return err
	}
	if _, judged := errors.AsType[*authretry.Rejection](u.Err); judged { // by who looks at a URL before it is asked
		return u.Err
	}
	return &unreachableError{u.Err}
}

// An unreachableError is that of a request that has had no answer.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string {
	return "login: the authorization server could not be reached"
}
func (e *unreachableError) Unwrap() error              { return e.err }
func (e *unreachableError) Format(f fmt.State, _ rune) { io.WriteString(f, e.Error()) }

// hasNoAnswer reports whether an error is that of a request that has had no answer, or not all of it.
func hasNoAnswer(err error) bool {
	_, unreachable := errors.AsType[*unreachableError](err)
	_, network := errors.AsType[net.Error](err)
	return unreachable || network || errors.Is(err, io.ErrUnexpectedEOF)
}
