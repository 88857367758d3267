package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// Bearer is the Bearer authentication scheme (RFC 6750). The token is sent ahead, with the first request, unless the source has
// to see first what the server asks for ([ErrChallengeRequired]). If a server refuses the token, with any challenge or with
// none, it is refreshed, and the request is sent again. A challenge that asks for more than another token of the same kind, such
// as insufficient_scope, is not answered unless StepUp is set.
//
// Source should be a [TokenSource]. Others work, too:
//
//   - One with a method Refresh(context.Context, *oauth2.Token) (*oauth2.Token, error), such as TokenSource has, is asked
//     for another token than the one that was refused.
//   - One without is asked for its token again. If that is the same, as it is with oauth2.ReuseTokenSource until it
//     expires, the 401 is returned to the caller.
//
// The Token method of such a source has no context to obey. So it is called in a goroutine of its own, for which a request
// waits no longer than its own context lasts. Requests that want a token meanwhile wait for the same call, unless that has
// taken 30 seconds, and there are not more than eight. It is called directly if that context cannot end, or if the source has
// just returned the same token twice and that is good for another minute.
//
// A Bearer is safe for concurrent use. It must not be copied after its first use.
type Bearer struct {
	// Source has the token, for everybody, whatever [Transport.Account] says. Where each account has a token of its own, set
	// Sources instead.
	Source oauth2.TokenSource

	// Sources returns the source of an account's token instead, for a [Transport] whose Account tells users apart. It is
	// asked once for each account, however many requests wait, and again after an error, after [Transport.Forget], and after
	// an account that has not been used for long has been forgotten, which happens if there are more than some 100,000. A
	// TokenSource that is refreshing, or that has a refresh token and no Store, is not forgotten, since nobody else has its login.
	//
	// Its context belongs to no request: it ends after 30 seconds, and has no values but the account. It may return one
	// source for several accounts, which then share its token. If it returns a TokenSource that you keep, call Set of that one
	// after a login: what another one has saved in the Store, it may find up to half a minute later.
	Sources func(ctx context.Context, account string) (oauth2.TokenSource, error)

	// StepUp lets Bearer answer a challenge that asks for another token than the one it refused, with status 401 or 403: for more
	// scope (insufficient_scope, RFC 6750 §3.1), for a fresher or stronger login (insufficient_user_authentication, RFC 9470
	// §3), or for claims (insufficient_claims, as Microsoft Entra's continuous access evaluation has it). It needs a
	// [TokenSource], whose Fetch or Login is asked for such a token, which then serves all requests. What was not granted is
	// not asked for again before MinRefreshInterval is over. If false, such a challenge is not answered.
	StepUp bool

	// ScopeFilter returns which of the scopes that a server asks for may be asked of the authorization server, so that
	// nobody gets to ask for more than the program is meant to have. If nil, all of them may.
	ScopeFilter func(scopes []string) []string

	// NotAhead waits for a challenge before the token is sent to an origin for the first time.
	NotAhead bool

	// Header is the name of the header that carries the token, such as "X-Auth-Token". If empty, it is Authorization. A
	// request that has the header already keeps its own, and gets no token.
	Header string

	// Prefix is put before the token, with a space. If empty, it is "Bearer" for Authorization, nothing for any other
	// header.
	Prefix string

	own      atomic.Pointer[sourceInUse] // Source
	accounts accountSources              // what Sources has returned
}

// A sourceInUse is a source of tokens, and the header for its last token.
type sourceInUse struct {
	oauth2.TokenSource
	header atomic.Pointer[bearerHeader]
	asked  atomic.Pointer[askings] // of a source of others; nil: not yet
}

// A bearerHeader is the header for a token, made once. All requests share its values, whose capacity is 1.
type bearerHeader struct {
	headerSession
	token  *oauth2.Token // as the source has returned it, which may change what it points to
	access string        // its AccessToken
	kind   string        // its TokenType
	expiry time.Time     // its Expiry
	only   *origin       // where alone it may go, as it was obtained for that (RFC 8707); nil: anywhere
	stable atomic.Bool   // the source has returned it more than once
}

// A refresher is an oauth2.TokenSource that can be told that a token was refused.
type refresher interface {
	Refresh(ctx context.Context, rejected *oauth2.Token) (*oauth2.Token, error)
}

var (
	errNoSource   = errors.New("authretry: Bearer.Source is nil: there is no token to send")
	errTwoSources = errors.New("authretry: Bearer.Source and Bearer.Sources are both set: it is not clear whose token to send")
	errNoAccount  = errors.New("authretry: Bearer.Sources needs an account: set Transport.Account")
)

// Name returns "Bearer", or the Prefix if that is set.
func (b *Bearer) Name() string {
	if b.Prefix != "" {
		return b.Prefix
	}
	return "Bearer"
}

// Start implements [Starter]: it returns nothing if NotAhead is set.
func (b *Bearer) Start(ctx context.Context, req *http.Request) (Session, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	if b.NotAhead || b.Header != "" && isCallers(req.Header, b.Header) {
		return nil, nil
	}
	return (*bearerSession)(b), nil
}

// always returns what Start returns for each request, whatever that is; nil if it depends.
func (b *Bearer) always() Session {
	if b.NotAhead || b.Header != "" || b.check() != nil {
		return nil
	}
	return (*bearerSession)(b)
}

// Answer implements [Scheme].
func (b *Bearer) Answer(ctx context.Context, c *Challenge, refusal *http.Response) (Session, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	src, err := b.source(ctx)
	if err != nil {
		return nil, err
	}
	refused := b.place().secret(refusal.Request.Header)
	var t *oauth2.Token
	if c.StepUp() != 0 {
		t, err = b.stepUp(ctx, src, refused, c)
	} else {
		t, err = src.successor(ctx, refused, c)
	}
	if err == nil {
		err = checkToken(t)
	}
	if err != nil {
		return nil, err
	}
	if t.AccessToken == refused {
		return nil, src.sameTokenError()
	}
	s := &bearerAnswer{bearerSession: (*bearerSession)(b)}
	o := &obtained{source: src, token: t}
	if _, ok := src.TokenSource.(*TokenSource); !ok {
		s.unsent.Store(o) // what the source returns next may be yet another one
	} else if path := refusal.Request.URL.Path; len(path) <= maxScope {
		o.origin, o.method, o.path = originIn(ctx).clone(), refusal.Request.Method, strings.Clone(path)
		s.untested.Store(o)
	}
	return s, nil
}

// Format keeps the Source, and with it tokens, out of everything that package fmt prints.
func (b *Bearer) Format(f fmt.State, verb rune) {
	formatShown(f, "authretry.Bearer", b.shown()...)
}

// MarshalJSON keeps the Source, and with it tokens, out of JSON.
func (b *Bearer) MarshalJSON() ([]byte, error) {
	return marshalShown(b.shown()...)
}

func (b *Bearer) shown() []shownField {
	return []shownField{shown("StepUp", b.StepUp), shown("NotAhead", b.NotAhead), shown("Header", b.Header), shown("Prefix", b.Prefix)}
}

func (b *Bearer) place() headerPlace { return placeOf(b.Header, b.Prefix, "Bearer") }

// check returns what is wrong with the fields.
func (b *Bearer) check() error {
	switch {
	case b.Sources != nil && b.Source != nil:
		return errTwoSources
	case b.Sources == nil && isNilSource(b.Source):
		return errNoSource
	case b.Header == "" && b.Prefix == "": // as almost always
		return nil
	}
	return b.place().check("Bearer")
}

// wantsRemoteAddr reports whether a Login may want to know where the server is that asks for a token.
func (b *Bearer) wantsRemoteAddr() bool {
	s, ok := b.Source.(*TokenSource)
	return ok && s != nil && s.Login != nil
}

// Validate says what is wrong with the fields, those of a [TokenSource] among them. See [Transport.Validate].
func (b *Bearer) Validate() error {
	if err := b.check(); err != nil {
		return err
	}
	if s, ok := b.Source.(*TokenSource); ok {
		return s.Validate()
	}
	return nil
}

func isNilSource(src oauth2.TokenSource) bool {
	s, ok := src.(*TokenSource)
	return src == nil || ok && s == nil
}

// source returns the source of the token for a request, whose context, or one made for it, is ctx.
func (b *Bearer) source(ctx context.Context) (*sourceInUse, error) {
	if b.Sources != nil {
		return b.accounts.of(ctx, AccountOf(ctx), b.Sources)
	}
	if src := b.own.Load(); src != nil {
		return src, nil
	}
	b.own.CompareAndSwap(nil, &sourceInUse{TokenSource: b.Source})
	return b.own.Load(), nil
}

// Forget forgets the source of an account's token. [Transport.Forget] calls it.
func (b *Bearer) Forget(account string) { b.accounts.forget(account) }

// sameTokenError says why the token that was refused is all that Source has, and what to change.
func (s *sourceInUse) sameTokenError() error {
	text := fmt.Sprintf("Bearer.Source, of type %T, returned the refused token again; give Bearer a TokenSource, which refreshes it", s.TokenSource)
	switch reflect.TypeOf(s.TokenSource) {
	case reflect.TypeOf(oauth2.ReuseTokenSource(nil, nil)):
		text = "Bearer.Source is an oauth2.ReuseTokenSource, which returns the refused token until it expires; give Bearer a TokenSource"
	case reflect.TypeOf(oauth2.StaticTokenSource(nil)):
		text = "Bearer.Source is an oauth2.StaticTokenSource, which has no other token; give Bearer a TokenSource"
	}
	return &refusedError{text: text}
}

// successor returns the token that answers the challenge c, in place of the refused one if that is not "".
func (s *sourceInUse) successor(ctx context.Context, refused string, c *Challenge) (*oauth2.Token, error) {
	if refused == "" {
		return s.token(ctx, &TokenRequest{Challenge: c})
	}
	previous := &oauth2.Token{AccessToken: refused}
	switch src := s.TokenSource.(type) {
	case *TokenSource:
		return src.Obtain(ctx, TokenRequest{Previous: previous, Challenge: c})
	case refresher:
		t, err := src.Refresh(ctx, previous)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, waitError(ctx, "Bearer.Source")
		case err != nil:
			return nil, sourceFailed(err)
		}
		return t, nil
	}
	return s.askForAnother(ctx, refused)
}

// token returns the token to send where none was refused. R is nil if nothing is asked of it.
func (s *sourceInUse) token(ctx context.Context, r *TokenRequest) (*oauth2.Token, error) {
	if src, ok := s.TokenSource.(*TokenSource); ok {
		return src.meet(ctx, r)
	}
	if h := s.header.Load(); ctx.Done() == nil || h != nil && h.stable.Load() && isLasting(h.expiry) {
		t, err := s.TokenSource.Token()
		if err != nil {
			return nil, sourceFailed(err)
		}
		return t, nil
	}
	t, _, err := s.ask(ctx)
	return t, err
}

func isLasting(expiry time.Time) bool {
	return expiry.IsZero() || expiry.UnixMicro()-time.Now().UnixMicro() > time.Minute.Microseconds()
}

// headerFor returns the header for a token that Source has returned.
func (b *Bearer) headerFor(src *sourceInUse, t *oauth2.Token) (*bearerHeader, error) {
	h := src.header.Load()
	if h != nil && h.token == t && h.access == t.AccessToken && h.kind == t.TokenType && h.expiry == t.Expiry {
		if !h.stable.Load() {
			h.stable.Store(true)
		}
		return h, nil
	}
	if err := checkToken(t); err != nil {
		return nil, err
	}
	if err := b.checkType(t.TokenType); err != nil {
		return nil, err
	}
	h = &bearerHeader{token: t, access: t.AccessToken, kind: t.TokenType, expiry: t.Expiry}
	h.headerSession = b.place().session(h.access)
	h.only = originOfResource(RecordOf(t).Resource)
	src.header.Store(h)
	return h, nil
}

// checkType returns an error for a token of a type that is used in another way, such as DPoP (RFC 6749 §7.1).
func (b *Bearer) checkType(kind string) error {
	if kind == "" || equalFoldASCII(kind, "Bearer") || equalFoldASCII(kind, b.Prefix) {
		return nil
	}
	scheme := "a Scheme for its type"
	if equalFoldASCII(kind, "DPoP") {
		scheme = "dpop.Scheme"
	}
	return fmt.Errorf("authretry: the token is of type %q, and only Bearer tokens can be sent as such (RFC 6749 §7.1); it needs %s", printable(kind), scheme)
}

// A bearerSession sends the current token of the request's account. One serves all requests, since there is nothing to
// remember of any but the token, which the source has.
type bearerSession Bearer

// Authorize implements [Session].
func (s *bearerSession) Authorize(req *http.Request) error { return s.authorizeIn(req.Context(), req) }

// authorizeIn does what Authorize does, with a context that need not be the request's.
func (s *bearerSession) authorizeIn(ctx context.Context, req *http.Request) error {
	src := s.own.Load()
	if src == nil {
		var err error
		if src, err = (*Bearer)(s).source(ctx); err != nil {
			return err
		}
	}
	t, err := src.token(ctx, nil)
	if err != nil {
		return err
	}
	return s.send(req, src, t)
}

func (s *bearerSession) send(req *http.Request, src *sourceInUse, t *oauth2.Token) error {
	h := src.header.Load()
	if _, ours := src.TokenSource.(*TokenSource); !ours || h == nil || h.token != t { // a TokenSource does not change its tokens
		var err error
		if h, err = (*Bearer)(s).headerFor(src, t); err != nil {
			return err
		}
	}
	if h.only != nil && *h.only != originOf(req.URL) {
		return errForAnother(h.only)
	}
	return h.Authorize(req)
}

// errForAnother is the error for a token that is for a resource at another origin than the request.
func errForAnother(only *origin) error {
	return fmt.Errorf("authretry: the token is for the resource %s (RFC 8707), so it is not sent to another origin; take a TokenSource for each server, with a Store of its own", only)
}

// Format keeps the Source, and with it tokens, out of everything that package fmt prints.
func (s *bearerSession) Format(f fmt.State, verb rune) { (*Bearer)(s).Format(f, verb) }

// Covers reports true: a Bearer token is for the whole origin.
func (s *bearerSession) Covers(*url.URL) bool { return true }

// A bearerAnswer is a bearerSession for a server that has asked for a token.
type bearerAnswer struct {
	*bearerSession
	unsent   atomic.Pointer[obtained] // what was obtained for the challenge, until it is sent; nil for a TokenSource
	untested atomic.Pointer[obtained] // the same, until the server has said what it thinks of it; for a TokenSource
}

// obtained is a token, where it comes from, and what for.
type obtained struct {
	source       *sourceInUse
	token        *oauth2.Token
	origin       origin // which has refused a request
	method, path string // of that request
}

func (*bearerAnswer) size() int { return 64 }

// Authorize implements [Session].
func (s *bearerAnswer) Authorize(req *http.Request) error { return s.authorizeIn(req.Context(), req) }

func (s *bearerAnswer) authorizeIn(ctx context.Context, req *http.Request) error {
	if s.unsent.Load() != nil { // which says no at less cost than Swap
		if o := s.unsent.Swap(nil); o != nil {
			return s.send(req, o.source, o.token)
		}
	}
	return s.bearerSession.authorizeIn(ctx, req)
}

// Learn notes what the server makes of the token for which it asked: if it accepts it, a later refusal will mean that it has
// been revoked. Only the answer to the request for which it asked counts. What is said to any other may be said to
// everybody, and so is what does not come from where credentials are looked at.
//
// After a refusal, keep is true: that the server asks for a token is as true as before, and which one is sent next is for the
// source to say. The error says that this will be the same for a while, as the token is fresh.
func (s *bearerAnswer) Learn(resp *http.Response, refused bool) (keep bool, err error) {
	o := s.untested.Load()
	if o == nil || !s.untested.CompareAndSwap(o, nil) {
		return true, nil
	}
	src, ok := o.source.TokenSource.(*TokenSource)
	if ok && refused {
		return true, src.staysFor(o.origin, o.token.AccessToken)
	}
	req := resp.Request
	if !ok || req == nil || req.URL == nil || req.Method != o.method || req.URL.Path != o.path ||
		(*Bearer)(s.bearerSession).place().secret(req.Header) != o.token.AccessToken {
		return true, nil
	}
	switch status := resp.StatusCode; {
	case status == http.StatusProxyAuthRequired, status == http.StatusTooManyRequests, status >= 500: // it did not come as far as that
	default:
		src.acceptedBy(o.origin, o.token.AccessToken)
	}
	return true, nil
}
