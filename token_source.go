package authretry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// TokenSource hands out an OAuth 2.0 access token and keeps it fresh: it refreshes in the background before the token
// expires, and at once when a server has refused it, with one token request however many ask. Give it to a
// [Bearer], or to gRPC or anything else that takes an oauth2.TokenSource.
//
// A refresh belongs to nobody: it goes on when the caller who started it has gone, with the values of that caller's
// context, bounded by FetchTimeout, and what it obtains is kept. Every caller waits under its own context. A failed
// refresh is reported to those who waited for it, and after it the token endpoint is left alone for a growing while
// (100 ms to 30 s, or what Retry-After says), in which callers without a usable token get the same error. A refresh token
// that the token endpoint has refused is never sent again: the error wraps [ErrLoginRequired] until Set, or the
// Store, brings another token. Client credentials that it refuses are tried again, but seldom (30 s to 5 min).
//
// Do not wrap a TokenSource in oauth2.ReuseTokenSource, as oauth2.NewClient does too: what caches the token a second
// time does not see that it was refreshed or refused, and it writes into the token that it shares with others. A Bearer
// given such a wrapper still works until the token is refused; then the 401 comes back to the caller.
//
// A TokenSource starts no goroutine but for a refresh under way, so there is nothing to close. It is safe for
// concurrent use. It must not be copied, nor its fields changed, after its first use; nor may the tokens that it
// returns be modified.
type TokenSource struct {
	// Fetch gets a new token: [RefreshGrant], [ClientCredentialsGrant] or your own. If it is nil, tokens
	// come from Initial, Set and Store alone.
	Fetch FetchFunc

	// Initial is the token to begin with. One without AccessToken, but with a RefreshToken, is refreshed when
	// first needed. If Initial is nil, the first token comes from Store, else from Fetch.
	//
	// Initial is not written to Store. When a user has logged in, call Set instead, which is.
	Initial *oauth2.Token

	// Store is where the token is shared with other processes, and found again by the next one. If it is nil, this
	// process is alone with its token.
	Store TokenStore

	// OnToken is called with each token but Initial, whether it comes from Fetch, from Store or from Set, before
	// anybody gets to use it: a place to save it, or to let other things know. It is called once for each token,
	// never concurrently with itself. Those without a usable token wait for it. It must not call methods of
	// the TokenSource.
	OnToken func(*oauth2.Token)

	// RefreshBefore is how long before its expiry a token is refreshed in the background, while callers go on
	// using it, though not before half of its lifetime has passed. 0 means 0.45 of the lifetime or 5 minutes, whichever
	// is less, and a tenth more or less, so that many processes do not march in step. Negative means not before it
	// has expired.
	RefreshBefore time.Duration

	// FetchTimeout bounds a refresh, Store included. A Fetch that ignores the end of its context is left behind
	// then, but if it still brings a token, that is kept. 0 means 30 seconds.
	FetchTimeout time.Duration

	// MinRefreshInterval is for servers that refuse tokens although they are fresh: a token that was obtained
	// because its predecessor was refused, and is refused itself before any server has accepted it, is not replaced
	// before it has this age. Nor is there more than a handful of refreshes forced by refusals in this time. In the
	// meantime Refresh returns [ErrTokenRefused]. 0 means 10 seconds; negative means no such bound.
	MinRefreshInterval time.Duration

	// current is the token in use: nil at first, then replaced as a whole. All that a caller with a good token
	// touches. It changes only under publishing and mu.
	current atomic.Pointer[heldToken]

	// publishing makes OnToken and the change of current one step, so that tokens are seen in the order in which they
	// come into use. It is held while OnToken runs, and taken by nobody who only wants a token. It is taken
	// before mu.
	publishing sync.Mutex

	// mu guards what follows. It is held for a few instructions, never while anything is called that could wait.
	mu      sync.Mutex
	begun   bool    // Initial has been looked at
	flight  *flight // the refresh under way; nil if there is none
	failure failure // of the last refresh; zero if it succeeded
	forced  burst   // refreshes that refusals have caused lately
	share   float64 // of a token's lifetime, in which it is refreshed early; 0: not chosen yet
}

// Errors of a [TokenSource].
var (
	// ErrLoginRequired means that no retry can help: the user has to log in again, or the client's credentials
	// have to be put right. The way out is [TokenSource.Set], or another process that puts a new token into the Store.
	ErrLoginRequired = errors.New("authretry: a new login is required")

	// ErrTokenRefused means that a server refuses a token although it is fresh from the token endpoint, so that
	// another refresh would not help now.
	ErrTokenRefused = errors.New("authretry: the server refuses a token fresh from the token endpoint")
)

var (
	errRefusedWhileFresh = fmt.Errorf("%w (see TokenSource.MinRefreshInterval)", ErrTokenRefused)
	errRecursion         = errors.New("authretry: the request for a token needs that very token: keep the token endpoint out of the reach of the Transport that uses this TokenSource")
	errNoFetch           = fmt.Errorf("%w: there is no usable token, and TokenSource.Fetch is nil", ErrLoginRequired)
)

const (
	defaultFetchTimeout    = 30 * time.Second
	defaultRefusalInterval = 10 * time.Second
	maxForced              = 32 // refreshes forced by refusals within that interval

	earlyShare = 0.45 // of the lifetime; times 0.9 to 1.1
	maxEarly   = 5 * time.Minute
	forever    = time.Duration(math.MaxInt64)
)

// Token returns a token that has not expired, obtaining one if need be. It implements oauth2.TokenSource. Where there
// is a context to obey, use [TokenSource.Refresh] or a [Bearer].
func (s *TokenSource) Token() (*oauth2.Token, error) {
	return s.token(context.Background())
}

// Refresh returns a token other than rejected, which a server has refused. If the source has moved on from that token
// already, however long ago, it returns the current one at once; otherwise it waits for a refresh, of which there
// is never more than one under way. If rejected is nil, the current token is replaced in any case.
//
// The error wraps [ErrLoginRequired] if nothing but a new login can help, [ErrTokenRefused] if the refused token
// is itself fresh (see MinRefreshInterval), and ctx's error if that ended first.
func (s *TokenSource) Refresh(ctx context.Context, rejected *oauth2.Token) (*oauth2.Token, error) {
	if rejected == nil {
		return s.obtain(ctx, demand{forced: true, attempt: 2})
	}
	return s.refresh(ctx, rejected.AccessToken, nil)
}

// Set puts t to use, after a login: it replaces the current token and forgets all failures. It is written to Store, too:
// an error says that this failed, or that t cannot be used. If only the writing failed, this process goes on with
// t all the same, and the next refresh starts from it.
func (s *TokenSource) Set(t *oauth2.Token) error {
	if t == nil || t.AccessToken == "" && t.RefreshToken == "" {
		return errors.New("authretry: TokenSource.Set needs a token")
	}
	if t.AccessToken != "" {
		if err := checkToken(t); err != nil {
			return err
		}
	}
	s.begin()
	h := s.hold(t)
	s.replace(h)
	if s.Store == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), flightKey{s}, true), s.fetchTimeout())
	defer cancel()
	_, err := s.Store.Update(ctx, func(_ context.Context, stored *oauth2.Token) (*oauth2.Token, error) {
		h.supersedes.Store(stored)
		return h.token, nil
	})
	if err != nil {
		return notSaved(err, h.token)
	}
	h.supersedes.Store(nil)
	return nil
}

// token returns a token that has not expired. With one at hand it neither locks nor allocates.
func (s *TokenSource) token(ctx context.Context) (*oauth2.Token, error) {
	if h := s.current.Load(); h != nil {
		if h.lifetime == forever {
			return h.token, nil
		}
		now := time.Now()
		if h.settled(now) {
			return h.token, nil
		}
		if h.usable(now) {
			s.renew(ctx, h, now)
			return h.token, nil
		}
	}
	return s.obtain(ctx, demand{attempt: 1})
}

// refresh is Refresh for the access token that a server refused with the challenge c.
func (s *TokenSource) refresh(ctx context.Context, rejected string, c *Challenge) (*oauth2.Token, error) {
	return s.obtain(ctx, demand{rejected: rejected, refusal: true, challenge: c, attempt: 2})
}

// unproven returns the current token if no server is known to have accepted it yet, and otherwise nil.
func (s *TokenSource) unproven() *oauth2.Token {
	if h := s.current.Load(); h != nil && !h.accepted.Load() {
		return h.token
	}
	return nil
}

// accepted notes that a server has accepted t: if it is refused later, it has probably been revoked.
func (s *TokenSource) accepted(t *oauth2.Token) {
	if h := s.current.Load(); h != nil && h.token == t {
		h.accepted.Store(true)
	}
}

// renew starts a refresh in the background, unless somebody else has.
func (s *TokenSource) renew(ctx context.Context, h *heldToken, now time.Time) {
	due := h.refreshAt.Load()
	if int64(now.Sub(h.received)) < due || !h.refreshAt.CompareAndSwap(due, int64(h.lifetime)) {
		return
	}
	if ctx.Value(flightKey{s}) != nil {
		return // it is the refresh itself that asks
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.flight != nil || s.current.Load() != h:
	case now.Before(s.failure.until):
		h.retryAfter(now, s.failure.until.Sub(now))
	default:
		s.launch(ctx, h, demand{})
	}
}

// obtain returns a token that meets the demand: the current one, or that of a refresh for which it waits.
func (s *TokenSource) obtain(ctx context.Context, d demand) (*oauth2.Token, error) {
	if ctx.Value(flightKey{s}) != nil {
		return nil, errRecursion
	}
	if s.Initial != nil && s.Initial.AccessToken != "" && s.current.Load() == nil {
		if err := checkToken(s.Initial); err != nil {
			return nil, fmt.Errorf("%w (TokenSource.Initial)", err)
		}
	}
	s.begin()
	for {
		f, t, err := s.join(ctx, d)
		if f == nil {
			return t, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("authretry: gave up waiting for a token: %w", ctx.Err())
		}
		switch {
		case f.err != nil:
			return nil, f.err
		case f.token == nil:
			continue // Set has overtaken the refresh, with a token that needs one itself
		case d.refusal && f.token.AccessToken == d.rejected:
			return nil, errSameToken
		}
		return f.token, nil
	}
}

// join returns the refresh to wait for, starting it if need be; or else the token or the error that there is already.
func (s *TokenSource) join(ctx context.Context, d demand) (*flight, *oauth2.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, now := s.current.Load(), time.Now()
	switch {
	case d.metBy(h, now):
		return nil, h.token, nil
	case s.flight != nil:
		return s.flight, nil, nil
	case ctx.Err() != nil:
		return nil, nil, fmt.Errorf("authretry: no token, and no time to get one: %w", ctx.Err())
	case s.Fetch == nil && s.Store == nil:
		return nil, nil, errNoFetch
	case now.Before(s.failure.until):
		return nil, nil, s.failure.err
	}
	if h.usable(now) {
		d.forced = true
		d.noFetch = s.refusedWhileFresh(h, d, now)
		if d.noFetch && s.Store == nil {
			return nil, nil, errRefusedWhileFresh
		}
	}
	return s.launch(ctx, h, d), nil, nil
}

// A burst counts refreshes since a point in time.
type burst struct {
	since time.Time
	n     int
}

// refusedWhileFresh reports whether a refresh of the token h would be one too many for the token endpoint, which
// answers a server's refusal of h. The caller holds mu.
func (s *TokenSource) refusedWhileFresh(h *heldToken, d demand, now time.Time) bool {
	interval := s.MinRefreshInterval
	if interval == 0 {
		interval = defaultRefusalInterval
	}
	if d.refusal && h.forced && !h.accepted.Load() && now.Sub(h.received) < interval {
		return true
	}
	if now.Sub(s.forced.since) >= interval {
		s.forced = burst{since: now}
	}
	return s.forced.n >= maxForced
}

// A heldToken is a token in use, with what is known of it. It is not modified but for its atomic fields.
type heldToken struct {
	token    *oauth2.Token
	received time.Time     // with a monotonic reading
	lifetime time.Duration // from received; 0 if the token was of no use even then
	expiry   int64         // by the wall clock, in Unix microseconds

	early  time.Duration // the age from which on it is refreshed in the background
	forced bool          // Fetch got it because its predecessor was refused

	refreshAt  atomic.Int64                 // the age, a Duration, at which the next caller starts that refresh
	accepted   atomic.Bool                  // a server has accepted it
	supersedes atomic.Pointer[oauth2.Token] // what the Store still has, until this one is saved
}

// hold returns t, which has just come in, ready for use. It takes a copy, so that t stays its owner's.
func (s *TokenSource) hold(t *oauth2.Token) *heldToken {
	own := *t
	h := &heldToken{token: &own, received: time.Now(), lifetime: forever, expiry: math.MaxInt64}
	if !t.Expiry.IsZero() {
		// By both clocks: the monotonic one knows nothing of time slept through, the wall clock may be set back.
		h.lifetime = max(0, t.Expiry.Sub(h.received))
		h.expiry = t.Expiry.UnixMicro()
	}
	if t.AccessToken == "" {
		h.lifetime = 0
	}
	h.early = h.lifetime - s.lead(h.lifetime)
	h.refreshAt.Store(int64(h.early))
	return h
}

// settled reports whether there is nothing to do about the token at the time now.
func (h *heldToken) settled(now time.Time) bool {
	return int64(now.Sub(h.received)) < h.refreshAt.Load() && now.UnixMicro() < h.expiry
}

// usable reports whether the token has not expired. A tolerance, as in oauth2.Token.Valid, would leave tokens that
// live for seconds without any life: to be early is the business of RefreshBefore.
func (h *heldToken) usable(now time.Time) bool {
	return h != nil && now.Sub(h.received) < h.lifetime && now.UnixMicro() < h.expiry
}

// retryAfter puts the refresh in the background off by a delay, at most to the end of the token's life.
func (h *heldToken) retryAfter(now time.Time, delay time.Duration) {
	age := now.Sub(h.received)
	delay = min(delay, h.lifetime-age)
	h.refreshAt.Store(int64(max(h.early, age+delay)))
}

// lead returns how long before the end of a token's lifetime it is to be refreshed in the background.
func (s *TokenSource) lead(lifetime time.Duration) time.Duration {
	if lifetime == forever || s.RefreshBefore < 0 || s.Fetch == nil && s.Store == nil {
		return 0
	}
	if s.RefreshBefore > 0 {
		return min(s.RefreshBefore, lifetime/2)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.share == 0 {
		s.share = 0.9 + 0.2*rand.Float64()
	}
	return time.Duration(s.share * min(earlyShare*float64(lifetime), float64(maxEarly)))
}

// begin puts Initial to use, the first time that it is called.
func (s *TokenSource) begin() {
	var initial *heldToken
	if s.current.Load() == nil && s.Initial != nil && (s.Initial.AccessToken == "" || checkToken(s.Initial) == nil) {
		initial = s.hold(s.Initial)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun && s.current.Load() == nil && initial != nil {
		s.current.Store(initial)
	}
	s.begun = true
}

// checkToken returns an error if t cannot be sent as a Bearer token (RFC 6750 §2.1). Visible ASCII passes, where the
// RFC allows less: there are issuers who need it.
func checkToken(t *oauth2.Token) error {
	switch {
	case t == nil:
		return &tokenError{text: "neither a token nor an error was returned"}
	case t.AccessToken == "":
		return &tokenError{text: "the new token has no access token"}
	case t.TokenType != "" && !equalFoldASCII(t.TokenType, "Bearer"):
		return &tokenError{text: "the new token is of the type " + strconv.Quote(printable(t.TokenType)) + ", and only Bearer can be sent (RFC 6750)"}
	}
	for i := range len(t.AccessToken) {
		if c := t.AccessToken[i]; c <= ' ' || c > '~' {
			return &tokenError{text: "the access token has a character that cannot be sent (RFC 6750 §2.1)"}
		}
	}
	return nil
}

// Format keeps tokens out of everything that package fmt prints.
func (s *TokenSource) Format(f fmt.State, verb rune) { formatShown(f, "authretry.TokenSource") }

// MarshalJSON keeps tokens out of JSON.
func (s *TokenSource) MarshalJSON() ([]byte, error) { return marshalShown() }
