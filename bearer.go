package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// Bearer is the Bearer authentication scheme (RFC 6750). The token is sent with the first request already; when a
// server refuses it, whatever the challenge says of it or if there is none, it is refreshed and the request sent
// again. A challenge of insufficient_scope is not answered: another token of the same kind would not help.
//
// Source should be a [TokenSource]. Others work, too:
//
//   - One with a method Refresh(context.Context, *oauth2.Token) (*oauth2.Token, error), such as TokenSource has, is asked by
//     it for another token than the one that was refused.
//   - One without is asked for its token again. If it still has the same, as oauth2.ReuseTokenSource does until it
//     expires, the 401 is returned to the caller.
//
// Any other source than a TokenSource is called by the goroutine that needs the token while it returns the same token
// again and that is good for another minute. Otherwise it might block, without a context to obey: then it is called in
// a goroutine of its own, and the request leaves it behind when its own context ends.
//
// A Bearer is safe for concurrent use. It must not be copied after its first use.
type Bearer struct {
	// Source has the token.
	Source oauth2.TokenSource

	// NotAhead waits for a challenge before the token is sent to an origin for the first time.
	NotAhead bool

	header atomic.Pointer[bearerHeader] // for the last token
}

// A bearerHeader is the value of an Authorization header for a token, made once.
type bearerHeader struct {
	token  *oauth2.Token
	values []string    // shared by all requests; its capacity is 1
	stable atomic.Bool // the source has returned it more than once
}

// A refresher is an oauth2.TokenSource that can be told that a token was refused.
type refresher interface {
	Refresh(ctx context.Context, rejected *oauth2.Token) (*oauth2.Token, error)
}

var errNoSource = errors.New("authretry: Bearer.Source is nil: there is no token to send")

// Name returns "Bearer".
func (b *Bearer) Name() string { return "Bearer" }

// Start implements [Starter]: it returns nothing if NotAhead is set.
func (b *Bearer) Start(ctx context.Context, req *http.Request) (Session, error) {
	switch {
	case b.hasNoSource():
		return nil, errNoSource
	case b.NotAhead:
		return nil, nil
	}
	return (*bearerSession)(b), nil
}

// Answer implements [Scheme].
func (b *Bearer) Answer(ctx context.Context, c *Challenge, refusal *http.Response) (Session, error) {
	if b.hasNoSource() {
		return nil, errNoSource
	}
	if c != nil && c.Params.Get("error") == "insufficient_scope" { // RFC 6750 §3.1
		return nil, fmt.Errorf("%w: the token is good, but its scope is insufficient", ErrUnsupportedChallenge)
	}
	refused := bearerToken(refusal.Request.Header)
	if refused == "" {
		return (*bearerSession)(b), nil
	}
	t, err := b.successor(ctx, refused, c)
	if errors.Is(err, ErrTokenRefused) {
		return nil, fmt.Errorf("%w: %w", ErrCredentialsRefused, err)
	}
	if err != nil {
		return nil, err
	}
	if t.AccessToken == refused {
		return nil, ErrCredentialsRefused
	}
	if _, ok := b.Source.(*TokenSource); ok {
		return (*bearerSession)(b), nil
	}
	s := &primedSession{bearerSession: (*bearerSession)(b)}
	s.first.Store(t)
	return s, nil
}

// Format keeps the Source, and with it tokens, out of everything that package fmt prints.
func (b *Bearer) Format(f fmt.State, verb rune) {
	formatShown(f, "authretry.Bearer", shown("NotAhead", b.NotAhead))
}

// MarshalJSON keeps the Source, and with it tokens, out of JSON.
func (b *Bearer) MarshalJSON() ([]byte, error) {
	return marshalShown(shown("NotAhead", b.NotAhead))
}

func (b *Bearer) hasNoSource() bool {
	src, ok := b.Source.(*TokenSource)
	return b.Source == nil || ok && src == nil
}

// successor returns the token that takes the place of a refused one.
func (b *Bearer) successor(ctx context.Context, refused string, c *Challenge) (*oauth2.Token, error) {
	switch src := b.Source.(type) {
	case *TokenSource:
		t, err := src.refresh(ctx, refused, c)
		if err == errNoFetch { // there never was a way to get another one
			return nil, fmt.Errorf("%w, and TokenSource.Fetch is nil", ErrCredentialsRefused)
		}
		return t, err
	case refresher:
		t, err := src.Refresh(ctx, &oauth2.Token{AccessToken: refused})
		if err != nil {
			return nil, sourceFailed(err)
		}
		return t, checkToken(t)
	default:
		return b.ask(ctx)
	}
}

// token returns the token to send.
func (b *Bearer) token(ctx context.Context) (*oauth2.Token, error) {
	if src, ok := b.Source.(*TokenSource); ok {
		return src.token(ctx)
	}
	if h := b.header.Load(); ctx.Done() == nil || h != nil && h.stable.Load() && isLasting(h.token) {
		t, err := b.Source.Token()
		if err != nil {
			return nil, sourceFailed(err)
		}
		return t, nil
	}
	return b.ask(ctx)
}

func isLasting(t *oauth2.Token) bool {
	return t.Expiry.IsZero() || time.Until(t.Expiry) > time.Minute
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
		return nil, fmt.Errorf("authretry: gave up waiting for a token: %w", ctx.Err())
	}
	if failure != nil {
		return nil, sourceFailed(failure)
	}
	return asked, checkToken(asked)
}

// headerFor returns the header for a token that Source has returned.
func (b *Bearer) headerFor(t *oauth2.Token) (*bearerHeader, error) {
	h := b.header.Load()
	if h != nil && h.token == t {
		if !h.stable.Load() {
			h.stable.Store(true)
		}
		return h, nil
	}
	if err := checkToken(t); err != nil {
		return nil, err
	}
	h = &bearerHeader{token: t, values: []string{"Bearer " + t.AccessToken}}
	b.header.Store(h)
	return h, nil
}

// A bearerSession is a Bearer at work: one for all origins, as all there is to remember of any is the token.
type bearerSession Bearer

// Authorize implements [Session].
func (s *bearerSession) Authorize(req *http.Request) error {
	b := (*Bearer)(s)
	t, err := b.token(req.Context())
	if err != nil {
		return err
	}
	h, err := b.headerFor(t)
	if err != nil {
		return err
	}
	req.Header["Authorization"] = h.values
	return nil
}

// Format keeps the Source, and with it tokens, out of everything that package fmt prints.
func (s *bearerSession) Format(f fmt.State, verb rune) { (*Bearer)(s).Format(f, verb) }

// Covers reports true: a Bearer token is for the whole origin.
func (s *bearerSession) Covers(*url.URL) bool { return true }

// Learn notes that a server has accepted the token, so that its refusal will mean that it has been revoked.
func (s *bearerSession) Learn(resp *http.Response, refused bool) (keep bool, err error) {
	src, ok := s.Source.(*TokenSource)
	if !ok || refused || resp.StatusCode >= 500 {
		return false, nil
	}
	t := src.unproven()
	if t != nil && resp.Request != nil && bearerToken(resp.Request.Header) == t.AccessToken {
		src.accepted(t)
	}
	return true, nil
}

// A primedSession sends the token that was obtained in answer to a challenge before it asks the Source again.
type primedSession struct {
	*bearerSession
	first atomic.Pointer[oauth2.Token]
}

// Authorize implements [Session].
func (s *primedSession) Authorize(req *http.Request) error {
	t := s.first.Load()
	if t == nil || !s.first.CompareAndSwap(t, nil) {
		return s.bearerSession.Authorize(req)
	}
	h, err := (*Bearer)(s.bearerSession).headerFor(t)
	if err != nil {
		return err
	}
	req.Header["Authorization"] = h.values
	return nil
}

// bearerToken returns the token in a request's Authorization header, or "".
func bearerToken(h http.Header) string {
	values := h["Authorization"]
	const prefix = "Bearer "
	if len(values) == 0 || len(values[0]) < len(prefix) || !equalFoldASCII(values[0][:len(prefix)], prefix) {
		return ""
	}
	return values[0][len(prefix):]
}
