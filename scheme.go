package authretry

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

// A Scheme is an HTTP authentication scheme together with the credentials for it: it turns a [Challenge] into
// a [Session]. [Basic], [Digest], [Bearer] and [APIKey] are written against this interface, and so can yours be.
//
// A Scheme must be safe for concurrent use. It may implement [Starter] and [PlaintextSafe] besides.
type Scheme interface {
	// Name returns the auth-scheme (RFC 9110 §11.1), such as "Digest". It is compared without case.
	Name() string

	// Answer returns a Session that satisfies the challenge c, which the server sent in answer to rejected.
	// It must neither modify rejected nor read its body, and it must obey ctx if it takes time.
	//
	// Challenge c has the Scheme's name. It is nil if the server refused credentials that this Scheme had sent
	// ahead, but sent no challenge of this Scheme with the refusal: a Scheme that cannot do better returns
	// ErrUnsupportedChallenge.
	//
	// Answer must return an error wrapping ErrUnsupportedChallenge if c is not a challenge it can answer: then
	// the next challenge is tried. It must return an error wrapping ErrCredentialsRefused if the credentials it
	// has are those that rejected carried: they are not sent again. Any other error means that credentials could
	// not be obtained, and fails the request.
	Answer(ctx context.Context, c *Challenge, rejected *http.Request) (Session, error)
}

// A Session authorizes requests to one protection space (RFC 9110 §11.5).
//
// A Session is shared: Authorize may be called for any number of requests at once. One that is also [Exclusive]
// is lent to one request at a time instead. Without [Covers], a Session is used for requests at or below
// the last path segment of the one that was challenged (as RFC 7617 §2.2 has it).
type Session interface {
	// Authorize sets the credentials in the headers of req, which is a private copy of the caller's request. It
	// must not read or replace req.Body; req.GetBody, if not nil, gives a copy of the body to compute on. It
	// obeys req.Context() if it takes time. An error means that credentials could not be obtained, and fails the
	// request.
	Authorize(req *http.Request) error
}

// A Starter is a [Scheme] that can send credentials before any challenge has been seen.
type Starter interface {
	Scheme

	// Start returns the Session that authorizes req ahead of any challenge, or nil if there is none to send.
	Start(ctx context.Context, req *http.Request) (Session, error)
}

// PlaintextSafe is implemented by a [Scheme] whose credentials prove knowledge of a secret without carrying it, so
// that they may go over plain http to any host. The credentials of every other Scheme go there only if
// [Transport.AllowPlaintext] is set, or to loopback.
type PlaintextSafe interface {
	PlaintextSafe() bool
}

// An Exclusive is a [Session] that is lent to one request at a time, from when it authorizes the request until
// the response's headers have come. [Digest] needs it: many servers refuse a nonce count that arrives out of order.
type Exclusive interface {
	Session
	Exclusive()
}

// A Learner is a [Session] that learns from the responses to the requests it has authorized.
type Learner interface {
	Session

	// Learn is called with each response to a request that this Session authorized, unless it is a refusal
	// (401, or 407 of a proxy). It must not read resp.Body. An error discards the response and fails the request.
	Learn(resp *http.Response) error
}

// Covers is implemented by a [Session] that knows the extent of its protection space.
type Covers interface {
	Session

	// Covers reports whether the space includes u, which is of the same origin as the challenged request.
	Covers(u *url.URL) bool
}

// Errors that a [Scheme]'s Answer wraps, to say why it has no [Session] for a challenge.
var (
	// ErrUnsupportedChallenge means that the Scheme cannot answer this challenge; the next one is tried.
	ErrUnsupportedChallenge = errors.New("authretry: challenge not supported")

	// ErrCredentialsRefused means that the only credentials at hand are those the server has just refused.
	ErrCredentialsRefused = errors.New("authretry: the credentials at hand are those the server refused")
)

// A CredentialsFunc returns the user name and password for an origin, such as "https://api.example.com". The
// challenge says which realm asks for them; it is nil if the credentials are to be sent ahead of any challenge.
// An error wrapping [ErrUnsupportedChallenge] means that there are none for this origin or realm; any other error
// fails the request. It is called whenever a challenge is answered, by many goroutines at once, and should obey ctx.
type CredentialsFunc func(ctx context.Context, origin string, c *Challenge) (username, password string, err error)
