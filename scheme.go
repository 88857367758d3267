package authretry

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

// A Scheme is an HTTP authentication scheme together with the credentials for it: it turns a [Challenge] into
// a [Session]. [Basic], [Digest], [Bearer] and [APIKey] are Schemes. Implement it only for a scheme that is not here;
// package authtest/schemetest has a check for that.
//
// A Scheme must be safe for concurrent use. It must not change the requests, responses and challenges that it is shown,
// but for what Authorize is there for. The texts of its errors, and of itself in package fmt, must not show a secret. It may
// implement [Starter], [PlaintextSafe] and [WantsRemoteAddr] besides. It may have the methods
// Forget(account string), which [Transport.Forget] calls, and CloseIdleConnections(), which [Transport.CloseIdleConnections]
// calls; and a method AnswersForbidden(c *Challenge) bool, which says of a challenge with its name that comes with
// 403 (Forbidden) whether it is to be answered as if it had come with 401.
//
// The contexts that it gets have the values of the request's context only if [Transport.Account] is set, since a Session
// serves every request of its account: path, method and origin may decide what it sends, but never whose credentials. By
// [AccountOf] it learns for whom a request is sent. Account is not asked for proxies.
//
// To a proxy's scheme a 407 (Proxy Authentication Required) is shown in the words of a 401: its challenges are in
// WWW-Authenticate, its information in Authentication-Info, and what a Session sets in Authorization is sent in
// Proxy-Authorization. Only the status stays 407.
type Scheme interface {
	// Name returns the auth-scheme (RFC 9110 §11.1), such as "Digest". It is compared without case.
	Name() string

	// Answer returns a Session that satisfies the challenge c of the refusal. It obeys ctx if it takes time.
	//
	// Challenge c has the Scheme's name. It is nil only for the Scheme whose credentials were refused, if no challenge
	// of the refusal has its name: then the refusal's header may still say what is wanted.
	//
	// The refusal is a copy of the response, whose Body returns an error when it is read. Its Request is the one that
	// was refused, with ctx as its context; its headers have credentials only for the Scheme that sent them.
	//
	// An error wrapping [ErrUnsupportedChallenge] means that the Scheme cannot answer c: the next challenge is tried. One
	// wrapping [ErrCredentialsRefused] means that it has no other credentials than those that were refused. In both cases
	// the refusal goes to the caller if nothing else can answer it. Any other error means that credentials could
	// not be obtained, and fails the request; if it wraps a [*Rejection], that one's Reason is kept.
	//
	// The exchange itself sees to it that the same headers are not sent again. A Scheme whose credentials differ each time
	// they are made, by a timestamp or a serial number, must return ErrCredentialsRefused itself unless something that
	// counts has changed: a nonce, a token or a key. (Digest does answer: good credentials are refused if their nonce
	// counts arrive in another order.)
	Answer(ctx context.Context, c *Challenge, refusal *http.Response) (Session, error)
}

// A Session authorizes requests to one protection space (RFC 9110 §11.5). Only those who implement a [Scheme] need it.
//
// A Session is shared: Authorize may be called for any number of requests at once. One that is also [Exclusive]
// is lent to one request at a time instead. Without [Covers], a Session is used for requests at or below
// the last slash of the path that was challenged (as RFC 7617 §2.2 has it).
//
// It may implement [Learner], [Exclusive], [Covers] and [Carrier] besides.
type Session interface {
	// Authorize sets the credentials in the headers of req, which is a copy of the caller's request. The headers are its own. The
	// URL may be the caller's, and must not be changed, so no credentials go into the query. It is that at which the request
	// arrives: with the host of req.Host if that decides, as it does by a proxy over plain http. A header that is
	// there already is the caller's, and should be left alone. Authorize must not read or replace
	// req.Body; req.GetBody, if not nil, gives a copy of the body to compute on. It obeys req.Context() if it takes
	// time. An error means that credentials could not be obtained, and fails the request; but for that of a GetBody whose body
	// cannot be read twice, or one that wraps it: then the request is sent without credentials ahead, or the refusal goes to
	// the caller. One that wraps [ErrChallengeRequired] has the request sent without credentials ahead, too.
	Authorize(req *http.Request) error
}

// A Starter is a [Scheme] that can send credentials ahead of a challenge. Only those who implement a Scheme need it.
type Starter interface {
	Scheme

	// Start returns the Session that authorizes req ahead of any challenge, or nil if there is none to send. It is
	// asked for each request unless another Scheme's turn comes first: that of a Starter before it that has something to send,
	// or of the Scheme that has answered a challenge at or above the path. A Session that it returns is not remembered, nor is
	// one that takes its place after a refusal. Only where it returns nil is a Session used that its own Answer returned before.
	Start(ctx context.Context, req *http.Request) (Session, error)
}

// PlaintextSafe is implemented by a [Scheme] whose credentials prove knowledge of a secret without carrying it, so
// that they may go over plain http to any host. The credentials of every other Scheme go there only if
// [Transport.AllowPlaintext] is set, or to loopback. Only those who implement a Scheme need it.
type PlaintextSafe interface {
	PlaintextSafe() bool
}

// An Exclusive is a [Session] that is lent to one request at a time, from when it authorizes the request until
// the response's headers have come. [Digest] needs it: many servers refuse a nonce count that arrives out of order.
// A Scheme must not return one that it has returned before. Only those who implement a Scheme need it.
type Exclusive interface {
	Session
	Exclusive()
}

// A Learner is a [Session] that learns from the responses to the requests it has authorized. Only those who implement a
// [Scheme] need it.
type Learner interface {
	Session

	// Learn is called with every response to a request that this Session authorized, but for one that Base has brought from
	// another origin; refused says that it is a refusal. It must not block, nor read resp.Body. A 407 (Proxy Authentication
	// Required) that is no refusal comes from a proxy on the way: of that, the origin knows nothing.
	//
	// After the second refusal of one request, keep decides whether the Session is remembered for the next one, as a
	// Digest is that has just been given a nonce in place of a stale one. Otherwise keep is ignored.
	//
	// An error discards the response and fails the request. For a refusal it is ignored; but after the second one, an error
	// that wraps [ErrCredentialsRefused] is what [Explain] says. It is ignored, too, for a 417 (Expectation Failed) to an Expect of
	// the Transport, after which the request is sent again without that.
	Learn(resp *http.Response, refused bool) (keep bool, err error)
}

// Covers is implemented by a [Session] that knows the extent of its protection space. Only those who implement a
// [Scheme] need it.
type Covers interface {
	Session

	// Covers reports whether the space includes u, which is of the same origin as the challenged request. What it
	// says is final, also for the path that was challenged. It is asked for most requests, under a lock, so it must return at once.
	Covers(u *url.URL) bool
}

// A Carrier is a [Session] whose requests go by a RoundTripper of its own, as they must if the server authenticates
// a connection rather than a request (NTLM). Only those who implement a [Scheme] need it.
type Carrier interface {
	Session

	// Carry is called once for each Session that the Scheme's Answer or Start has returned. It returns what the Session's requests
	// go by, which must be safe for concurrent use unless the Session is [Exclusive], and must not follow redirects. It
	// may send requests of its own first, without the caller's body, and obeys ctx.
	//
	// Base is what the requests would go by otherwise: an *http.Transport or a *ProxyTransport. It must not be changed, but
	// can be cloned, and has a NewClientConn. With any other [Transport.Base], and for a proxy's credentials, a Carrier fails the request.
	//
	// If what Carry returns is not base itself, and has a method CloseIdleConnections, that is called when no request uses the
	// Session any more, which for one that Start has returned is after its request, and by [Transport.CloseIdleConnections].
	Carry(ctx context.Context, base http.RoundTripper) (http.RoundTripper, error)
}

// WantsRemoteAddr is implemented by a [Scheme] that has to know at which address a server is that refuses a request, as one does
// that asks another server whom the first has named. If it returns true, RemoteAddr of the Request that Answer finds in a refusal
// is the address and port of the connection by which that came, such as "192.0.2.1:443". It is empty if that is not known: a proxy
// was asked in the server's place, [Transport.Base] does not say (package net/http/httptrace), or it says a port that is not the
// URL's, as where a DialContext goes by a SOCKS proxy. Proxies' refusals have none. Only those who implement a Scheme need it.
type WantsRemoteAddr interface {
	WantsRemoteAddr() bool
}

// Errors that a [Scheme]'s Answer wraps, to say why it has no [Session] for a challenge.
var (
	// ErrUnsupportedChallenge means that the Scheme cannot answer this challenge; the next one is tried.
	ErrUnsupportedChallenge = errors.New("authretry: challenge not supported")

	// ErrCredentialsRefused means that the only credentials at hand are those the server has just refused.
	ErrCredentialsRefused = errors.New("authretry: the credentials at hand are those the server refused")
)

// A CredentialsRequest says which credentials are wanted.
type CredentialsRequest struct {
	Account   string     // for whom, as Transport.Account says; "" if that is nil, and for a proxy
	Origin    string     // by whom, such as "https://api.example.com"
	Challenge *Challenge // what is asked for; nil if the credentials are to be sent ahead of any challenge
}

// A CredentialsFunc returns the user name and password for an account and an origin. The challenge says which realm
// asks for them. An error wrapping [ErrUnsupportedChallenge] means that there are none, and one wrapping
// [ErrCredentialsRefused] that there are none but those that were refused: then the refusal goes to the caller unless another
// Scheme has an answer. Any other error fails the request. It is called whenever a challenge is answered, and for each request
// to which [Basic.Ahead] applies, by many goroutines at once, and should obey ctx.
//
// What it returns is used for other requests of the same account, so it must depend on r alone. Unless
// [Transport.Account] is set, ctx has no values of the request's context, so that a user who is found there cannot be taken
// for all users. For a proxy it never has.
type CredentialsFunc func(ctx context.Context, r CredentialsRequest) (username, password string, err error)
