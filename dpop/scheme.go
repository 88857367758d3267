package dpop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// A Scheme is the DPoP authentication scheme (RFC 9449 §7): it sends an access token together with a proof, a new one
// for each send. It is sent with the first request already, since some servers that want DPoP challenge with Bearer, or with
// nothing.
//
// A refusal that says use_dpop_nonce is answered with the nonce that came with it, as is one that says nothing but brings the
// first nonce; one that says invalid_dpop_proof with another proof; and any other with the successor of the token, whatever the
// challenge says: a server cannot have the token sent as Bearer. One that asks for another kind of token needs StepUp. A
// request is sent twice at most. After a second refusal, the nonce is kept, and a token that it calls dead is replaced in the
// background, so that the next request is sent once.
//
// Tokens of another type than DPoP are not sent, nor are those that are known to be bound to another key
// (authretry.ReasonWrongKey): the first such token is replaced, if its TokenSource can. Nor are those for another resource (RFC 8707).
//
// A Scheme is safe for concurrent use. It must not be copied, nor its fields changed, after its first use.
type Scheme struct {
	// Source has the token, for everybody, and Key is what it is bound to. The TokenEndpoint that the token comes from has the
	// same Key as Proof.
	Source *authretry.TokenSource
	Key    *Key

	// Sources returns those of an account instead, for an authretry.Transport whose Account tells users apart. It is asked
	// once for each account, however many requests wait, and again after an error, after Transport.Forget, and after
	// an account that has not been used for long has made room for others: some 100,000 are remembered. A TokenSource that has a
	// refresh token and no Store is the only one to have its login: it does not make room.
	//
	// Its context belongs to no request: it ends after 30 seconds, and has no values.
	Sources func(ctx context.Context, account string) (*authretry.TokenSource, *Key, error)

	// NotAhead waits for a challenge of DPoP before the token is sent to an origin for the first time.
	NotAhead bool

	// StepUp lets a challenge be answered that asks for another token than the one it refused, with status 401 or 403, as
	// authretry.Bearer's does.
	StepUp bool

	// ScopeFilter returns which of the scopes that a server asks for may be asked of the authorization server. If nil, all of
	// them may.
	ScopeFilter func(scopes []string) []string

	own      atomic.Pointer[login] // Source and Key
	accounts accounts              // what Sources has returned
}

var (
	errNoSource   = errors.New("dpop: Scheme.Source and Scheme.Key are needed, or Scheme.Sources")
	errTwoSources = errors.New("dpop: Scheme.Source or Scheme.Key is set, and so is Scheme.Sources: it is not clear whose token to send")
	errNoAccount  = errors.New("dpop: Scheme.Sources needs an account: set Transport.Account")
)

// Name returns "DPoP".
func (s *Scheme) Name() string { return "DPoP" }

// Start implements authretry.Starter: it returns nothing if NotAhead is set, or if the request has a proof of its own.
func (s *Scheme) Start(_ context.Context, req *http.Request) (authretry.Session, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.NotAhead || hasProof(req) {
		return nil, nil
	}
	return (*session)(s), nil
}

// Answer implements authretry.Scheme.
func (s *Scheme) Answer(ctx context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	l, err := s.login(ctx)
	if err != nil {
		return nil, err
	}
	if c == nil {
		c = challengeIn(refusal)
	}
	if err := l.canSign(c); err != nil {
		return nil, err
	}
	l.key.Learn(refusal) // which may be of a request without a proof
	a := &answer{session: (*session)(s)}
	refused, sent := tokenOf(refusal.Request)
	switch {
	case c.StepUp() != 0:
		err = s.stepUp(ctx, l, refused, c)
	case !sent:
		_, err = l.obtain(ctx, authretry.TokenRequest{Challenge: c})
	default:
		a.sameToken, err = l.answer(ctx, c, refusal, refused)
	}
	if err != nil {
		return nil, err
	}
	a.isFirst.Store(true)
	return a, nil
}

// WantsRemoteAddr says that a Login wants to know where the server is that asks for a token.
func (s *Scheme) WantsRemoteAddr() bool { return s.Source != nil && s.Source.Login != nil }

// AnswersForbidden says that a challenge for another token is answered with 403, too, if StepUp is set.
func (s *Scheme) AnswersForbidden(c *authretry.Challenge) bool { return s.StepUp && c.StepUp() != 0 }

// stepUp gets the token that the challenge c asks for.
func (s *Scheme) stepUp(ctx context.Context, l *login, refused string, c *authretry.Challenge) error {
	if !s.StepUp {
		return fmt.Errorf("%w: %w", authretry.ErrUnsupportedChallenge, &authretry.Rejection{Reason: c.StepUp()})
	}
	t, err := l.source.StepUp(ctx, refused, c, s.ScopeFilter)
	if err != nil {
		return err
	}
	_, err = l.ready(t)
	return err
}

// Forget forgets the source and the key of an account. Transport.Forget calls it.
func (s *Scheme) Forget(account string) { s.accounts.forget(account) }

// Format keeps the sources, and with them tokens, out of everything that package fmt prints.
func (s *Scheme) Format(f fmt.State, _ rune) { io.WriteString(f, "dpop.Scheme{}") }

// MarshalJSON keeps the sources, and with them tokens, out of JSON.
func (s *Scheme) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }

// check returns what is wrong with the fields.
func (s *Scheme) check() error {
	switch {
	case s.Sources != nil && (s.Source != nil || s.Key != nil):
		return errTwoSources
	case s.Sources == nil && (s.Source == nil || s.Key == nil):
		return errNoSource
	}
	return nil
}

// Validate says what is wrong with the fields, those of Source among them. See [authretry.Transport.Validate].
func (s *Scheme) Validate() error {
	if err := s.check(); err != nil || s.Source == nil {
		return err
	}
	return s.Source.Validate()
}

// login returns whose token to send for a request, whose context, or one made for it, is ctx.
func (s *Scheme) login(ctx context.Context) (*login, error) {
	if s.Sources != nil {
		return s.accounts.of(ctx, authretry.AccountOf(ctx), s.Sources)
	}
	if l := s.own.Load(); l != nil {
		return l, nil
	}
	s.own.CompareAndSwap(nil, &login{source: s.Source, key: s.Key})
	return s.own.Load(), nil
}

// known returns the login of a request that was sent; nil if it has been forgotten.
func (s *Scheme) known(req *http.Request) *login {
	if s.Sources != nil {
		return s.accounts.known(authretry.AccountOf(req.Context()))
	}
	return s.own.Load()
}

// A session sends the current token of the request's account. One serves all requests, since there is nothing to remember of
// any but what the login has.
type session Scheme

// Authorize implements authretry.Session. A request with a proof of the caller's own gets nothing.
func (s *session) Authorize(req *http.Request) error {
	if hasProof(req) {
		return nil
	}
	ctx := req.Context()
	l, err := (*Scheme)(s).login(ctx)
	if err != nil {
		return err
	}
	r, err := l.obtain(ctx, authretry.TokenRequest{})
	if err != nil {
		return err
	}
	if r.only != "" && r.only != originOf(req.URL) {
		return fmt.Errorf("dpop: the token is for the resource %s (RFC 8707), so it is not sent to another origin; take a TokenSource for each server, with a Store of its own", r.only)
	}
	if err := l.key.prove(req, r.ath); err != nil {
		return err
	}
	req.Header["Authorization"] = r.header
	return nil
}

// Covers reports true: a token is for the whole origin.
func (s *session) Covers(*url.URL) bool { return true }

// Learn remembers the nonce that came with a response, be it a success or a refusal.
func (s *session) Learn(resp *http.Response, _ bool) (keep bool, err error) {
	if l := (*Scheme)(s).known(resp.Request); l != nil && !hasOnlyProof(resp.Request) {
		l.key.Learn(resp)
	}
	return true, nil
}

// Format keeps the sources, and with them tokens, out of everything that package fmt prints.
func (s *session) Format(f fmt.State, _ rune) { io.WriteString(f, "dpop.session{}") }

// MarshalJSON keeps the sources, and with them tokens, out of JSON.
func (s *session) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }

// An answer is a session for a server that has asked for a token.
type answer struct {
	*session
	sameToken bool        // as the one that was refused, with another proof
	isFirst   atomic.Bool // the server has not yet said what it thinks of the answer
}

// Learn notes besides that the server has accepted the token for which it asked, or that it has refused what it was answered,
// after which the token is replaced for the next request if it is to blame. What is said to a later request proves nothing: it
// may not need credentials.
func (a *answer) Learn(resp *http.Response, refused bool) (keep bool, err error) {
	_, _ = a.session.Learn(resp, refused)
	l := (*Scheme)(a.session).known(resp.Request)
	token, sent := tokenOf(resp.Request)
	if l == nil || !sent || !a.isFirst.CompareAndSwap(true, false) {
		return true, nil
	}
	switch {
	case refused:
		c := challengeIn(resp)
		if isOfToken(codeOf(c)) {
			return true, l.refused(resp.Request.Context(), token, c, a.sameToken)
		}
		if codeOf(c) == "invalid_dpop_proof" {
			return true, proofRefused(resp.Header.Get("Date"), time.Now())
		}
	case resp.StatusCode == http.StatusProxyAuthRequired, resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500: // it did not come as far as that
	default:
		l.source.Accepted(&oauth2.Token{AccessToken: token})
	}
	return true, nil
}

// tokenOf returns the token that we have put on a request, if there is one.
func tokenOf(req *http.Request) (token string, sent bool) {
	token, sent = strings.CutPrefix(req.Header.Get("Authorization"), "DPoP ")
	return token, sent && hasProof(req)
}

// hasProof reports whether a request has a proof, under the name that RFC 9449 writes, too, which is not how http.Header does.
func hasProof(req *http.Request) bool {
	for name := range req.Header {
		if len(name) == len(proofHeader) && strings.EqualFold(name, proofHeader) {
			return true
		}
	}
	return false
}

// hasOnlyProof reports whether the caller has set a proof, with which we do not interfere.
func hasOnlyProof(req *http.Request) bool {
	_, sent := tokenOf(req)
	return hasProof(req) && !sent
}

// originOf returns the origin of a URL in normal form, or "" if it has none.
func originOf(u *url.URL) string {
	if u == nil {
		return ""
	}
	t, err := targetOf(u, "")
	if err != nil {
		return ""
	}
	return t.origin
}

// codeOf returns the error code of a challenge, "" of none.
func codeOf(c *authretry.Challenge) string {
	if c == nil {
		return ""
	}
	return c.Params.Get("error")
}

// challengeIn returns the challenge of a refusal that says most: the first of DPoP, else the first with an error code; nil if there
// is none.
func challengeIn(refusal *http.Response) *authretry.Challenge {
	const most = 64
	challenges, _ := authretry.ParseChallenges(refusal.Header["Www-Authenticate"])
	challenges = challenges[:min(len(challenges), most)]
	isDPoP := func(c authretry.Challenge) bool { return strings.EqualFold(c.Scheme, "DPoP") }
	hasCode := func(c authretry.Challenge) bool { return c.Params.Get("error") != "" }
	for _, fits := range []func(authretry.Challenge) bool{isDPoP, hasCode} {
		if i := slices.IndexFunc(challenges, fits); i >= 0 {
			return &challenges[i]
		}
	}
	return nil
}

// isOfToken reports whether an error code, or that there is none, says that the token is to blame.
func isOfToken(code string) bool {
	switch code {
	case "use_dpop_nonce", "invalid_dpop_proof", "insufficient_scope", "insufficient_user_authentication", "insufficient_claims":
		return false
	}
	return true
}
