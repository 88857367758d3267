package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// Bearer is the Bearer authentication scheme (RFC 6750). The token is sent with the first request already. When a
// server refuses it, with whatever challenge or with none, it is refreshed, and the request is sent again. A challenge
// of insufficient_scope is not answered, since another token of the same kind would not help.
//
// Source should be a [TokenSource]. Others work, too:
//
//   - One with a method Refresh(context.Context, *oauth2.Token) (*oauth2.Token, error), such as TokenSource has, is asked
//     for another token than the one that was refused.
//   - One without is asked for its token again. If that is the same, as it is with oauth2.ReuseTokenSource until it
//     expires, the 401 is returned to the caller.
//
// The Token method of such a source has no context to obey. So it is called in a goroutine of its own, for which a request
// waits no longer than its own context lasts. It is called directly if that context cannot end, or if the source has
// just returned the same token twice and that is good for another minute.
//
// A Bearer is safe for concurrent use. It must not be copied after its first use.
type Bearer struct {
	// Source has the token.
	Source oauth2.TokenSource

	// NotAhead waits for a challenge before the token is sent to an origin for the first time.
	NotAhead bool

	// Header is the name of the header that carries the token, such as "X-Auth-Token". If empty, it is Authorization. A
	// request that has the header already keeps its own, and gets no token.
	Header string

	// Prefix is put before the token, with a space. If empty, it is "Bearer" for Authorization, nothing for any other
	// header.
	Prefix string

	header atomic.Pointer[bearerHeader] // for the last token
}

// A bearerHeader is the header for a token, made once. All requests share its values, whose capacity is 1.
type bearerHeader struct {
	headerSession
	token  *oauth2.Token // as the source has returned it, which may change what it points to
	access string        // its AccessToken
	kind   string        // its TokenType
	expiry time.Time     // its Expiry
	stable atomic.Bool   // the source has returned it more than once
}

// A refresher is an oauth2.TokenSource that can be told that a token was refused.
type refresher interface {
	Refresh(ctx context.Context, rejected *oauth2.Token) (*oauth2.Token, error)
}

var errNoSource = errors.New("authretry: Bearer.Source is nil: there is no token to send")

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

// Answer implements [Scheme].
func (b *Bearer) Answer(ctx context.Context, c *Challenge, refusal *http.Response) (Session, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	if c != nil && c.Params.Get("error") == "insufficient_scope" { // RFC 6750 §3.1
		return nil, fmt.Errorf("%w: the token is good, but its scope is insufficient", ErrUnsupportedChallenge)
	}
	refused := b.place().secret(refusal.Request.Header)
	t, err := b.successor(ctx, refused, c)
	if err == nil {
		err = checkToken(t)
	}
	if err != nil {
		return nil, err
	}
	if t.AccessToken == refused {
		return nil, b.sameTokenError()
	}
	s := &bearerAnswer{bearerSession: (*bearerSession)(b)}
	if _, ok := b.Source.(*TokenSource); ok {
		s.untested.Store(t)
	} else {
		s.unsent.Store(t) // what the source returns next may be yet another one
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
	return []shownField{shown("NotAhead", b.NotAhead), shown("Header", b.Header), shown("Prefix", b.Prefix)}
}

func (b *Bearer) place() headerPlace { return placeOf(b.Header, b.Prefix, "Bearer") }

// check returns what is wrong with the fields.
func (b *Bearer) check() error {
	if src, ok := b.Source.(*TokenSource); b.Source == nil || ok && src == nil {
		return errNoSource
	}
	if b.Header == "" && b.Prefix == "" {
		return nil
	}
	return b.place().check("Bearer")
}

// sameTokenError says why the token that was refused is all that Source has, and what to change.
func (b *Bearer) sameTokenError() error {
	text := fmt.Sprintf("Bearer.Source, of type %T, returned the refused token again; give Bearer a TokenSource, which refreshes it", b.Source)
	switch reflect.TypeOf(b.Source) {
	case reflect.TypeOf(oauth2.ReuseTokenSource(nil, nil)):
		text = "Bearer.Source is an oauth2.ReuseTokenSource, which returns the refused token until it expires; give Bearer a TokenSource"
	case reflect.TypeOf(oauth2.StaticTokenSource(nil)):
		text = "Bearer.Source is an oauth2.StaticTokenSource, which has no other token; give Bearer a TokenSource"
	}
	return &refusedError{text: text}
}

// successor returns the token that answers the challenge c, in place of the refused one if that is not "".
func (b *Bearer) successor(ctx context.Context, refused string, c *Challenge) (*oauth2.Token, error) {
	if refused == "" {
		return b.token(ctx, TokenRequest{Challenge: c})
	}
	previous := &oauth2.Token{AccessToken: refused}
	switch src := b.Source.(type) {
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
	return b.ask(ctx)
}

// token returns the token to send where none was refused.
func (b *Bearer) token(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
	if src, ok := b.Source.(*TokenSource); ok {
		return src.Obtain(ctx, r)
	}
	if h := b.header.Load(); ctx.Done() == nil || h != nil && h.stable.Load() && isLasting(h.expiry) {
		t, err := b.Source.Token()
		if err != nil {
			return nil, sourceFailed(err)
		}
		return t, nil
	}
	return b.ask(ctx)
}

func isLasting(expiry time.Time) bool {
	return expiry.IsZero() || time.Until(expiry) > time.Minute
}

// ask calls Source.Token, for no longer than ctx allows.
func (b *Bearer) ask(ctx context.Context) (*oauth2.Token, error) {
	done := make(chan struct{})
	var asked *oauth2.Token
	failure := errors.New("it has ended its goroutine")
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				failure = panicked(p)
			}
		}()
		asked, failure = b.Source.Token()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return nil, waitError(ctx, "Bearer.Source")
	}
	if failure != nil {
		return nil, sourceFailed(failure)
	}
	return asked, nil
}

// headerFor returns the header for a token that Source has returned.
func (b *Bearer) headerFor(t *oauth2.Token) (*bearerHeader, error) {
	h := b.header.Load()
	if h != nil && h.token == t && h.access == t.AccessToken && h.kind == t.TokenType && h.expiry.Equal(t.Expiry) {
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
	b.header.Store(h)
	return h, nil
}

// checkType returns an error for a token of a type that is used in another way, such as DPoP (RFC 6749 §7.1).
func (b *Bearer) checkType(kind string) error {
	if kind == "" || equalFoldASCII(kind, "Bearer") || equalFoldASCII(kind, b.Prefix) {
		return nil
	}
	return fmt.Errorf("authretry: the token is of type %q, and only Bearer tokens can be sent as such (RFC 6749 §7.1); it needs a Scheme for its type", printable(kind))
}

// A bearerSession sends the current token. One serves all requests, since there is nothing to remember of any but the
// token, which the source has.
type bearerSession Bearer

// Authorize implements [Session].
func (s *bearerSession) Authorize(req *http.Request) error {
	t, err := (*Bearer)(s).token(req.Context(), TokenRequest{})
	if err != nil {
		return err
	}
	return s.send(req, t)
}

func (s *bearerSession) send(req *http.Request, t *oauth2.Token) error {
	h, err := (*Bearer)(s).headerFor(t)
	if err != nil {
		return err
	}
	return h.Authorize(req)
}

// Format keeps the Source, and with it tokens, out of everything that package fmt prints.
func (s *bearerSession) Format(f fmt.State, verb rune) { (*Bearer)(s).Format(f, verb) }

// Covers reports true: a Bearer token is for the whole origin.
func (s *bearerSession) Covers(*url.URL) bool { return true }

// A bearerAnswer is a bearerSession for a server that has asked for a token.
type bearerAnswer struct {
	*bearerSession
	unsent   atomic.Pointer[oauth2.Token] // what was obtained for the challenge, until it is sent; nil for a TokenSource
	untested atomic.Pointer[oauth2.Token] // the same, until the server has said what it thinks of it; for a TokenSource
}

// Authorize implements [Session].
func (s *bearerAnswer) Authorize(req *http.Request) error {
	if s.unsent.Load() != nil { // which says no at less cost than Swap
		if t := s.unsent.Swap(nil); t != nil {
			return s.send(req, t)
		}
	}
	return s.bearerSession.Authorize(req)
}

// Learn notes that the server has accepted the token for which it asked, so that a later refusal will mean that it has been
// revoked. What is said to a request that carried a token unasked, or to a later one, proves nothing: it may not need
// credentials.
//
// After a refusal, keep is true: that the server asks for a token is as true as before, and which one is sent next is for the
// source to say.
func (s *bearerAnswer) Learn(resp *http.Response, refused bool) (keep bool, err error) {
	t := s.untested.Load()
	if t == nil || !s.untested.CompareAndSwap(t, nil) || refused {
		return true, nil
	}
	if resp.StatusCode == http.StatusProxyAuthRequired || resp.StatusCode >= 500 { // it did not come as far as that
		return true, nil
	}
	src, ok := s.Source.(*TokenSource)
	if ok && resp.Request != nil && (*Bearer)(s.bearerSession).place().secret(resp.Request.Header) == t.AccessToken {
		src.Accepted(t)
	}
	return true, nil
}
