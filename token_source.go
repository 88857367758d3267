package authretry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// TokenSource hands out an OAuth 2.0 access token and keeps it fresh: it refreshes in the background before the token
// expires, and at once when a server has refused it, with one token request however many ask. Give it to a
// [Bearer], or to gRPC or anything else that takes an oauth2.TokenSource.
//
// A refresh is not tied to the caller who caused it. It has no values of that caller's context, and goes on when that ends, for
// FetchTimeout at most. What it obtains is kept. Every caller waits under its own context.
//
// The error of a failed refresh goes to all who waited for it, unless it was for more than they wanted. The token endpoint is then left alone for a time that
// grows from 100 ms to 30 s (sooner where the token is about to expire), or for what Retry-After says, 5 min at most, during
// which callers without a usable token get the same error. A refresh token that the token endpoint has refused is not sent
// again: the error wraps [ErrLoginRequired] until Set or the Store has another token, unless Login helps. Client credentials
// that it has refused are tried again after a time that grows from 30 s to 5 min; and so is a refresh token for which it wants a person to
// do something first (interaction_required, login_required or consent_required, as Microsoft Entra has it), with that error meanwhile. All these times are made up to a fifth
// longer or shorter, but for that of Retry-After.
//
// Where nothing but a new login can help, Set is seen at once. A login that somebody else has saved in the Store is looked for
// by the next caller after a time that grows from 1 s to 30 s; and so is a token, while Retry-After keeps this process from asking for one.
//
// Do not wrap a TokenSource in oauth2.ReuseTokenSource, as oauth2.NewClient does, too. It keeps a token that has been
// refreshed or refused, and it writes into tokens that others use. A Bearer with such a wrapper works until the token
// is refused; then the caller gets the 401.
//
// A token that could not be saved is in use nevertheless, and is saved again until that succeeds, or another one is in use:
// after times that grow from 100 ms to 30 s, too.
//
// A TokenSource has no goroutine but those of a refresh, a login or a saving under way, so there is nothing to close. But a
// program that ends calls [TokenSource.Wait] first, so that the token of a refresh under way is not lost. It is safe for concurrent use. It must not be copied, nor its fields changed, after its first use; nor may the tokens that it
// returns be modified.
type TokenSource struct {
	// Fetch gets a new token: [RefreshGrant], [ClientCredentialsGrant], a method of [TokenEndpoint] or your own. If it is nil,
	// tokens come from Initial, Set, Store and Login alone.
	Fetch FetchFunc

	// Initial is the token to begin with, for a program that is given one at each start. After a login, call Set instead.
	// A token without AccessToken, but with a RefreshToken, is refreshed when first needed. If there is a Store, Initial counts
	// only if that has no login, and none that was ended; it is saved there when it comes into use, or else what it is refreshed to.
	Initial *oauth2.Token

	// Store keeps the token for other processes, and for later ones. If it is nil, the token is kept in memory only.
	Store TokenStore

	// Login asks a person to log in, in a browser for instance (package login), and returns the token. It is called where the
	// error would otherwise wrap ErrLoginRequired, as also where a refresh cannot give what a server asks for, if somebody
	// waits: not for a refresh in the background, nor where it is the client that the token endpoint refuses, which no person
	// can help. One call is under way at a time, if it heeds its context; with a Store that has a method
	// LockLogin(context.Context) (unlock func(), err error), one over all processes that share it. Refreshes go on beside it,
	// and only those wait who need it. Its context ends after LoginTimeout, and when nobody waits any more: so also when Set has a
	// token that will do for them. If it fails while somebody waits, nobody is asked again before MinRefreshInterval is over, unless
	// Set is called. If the server because of which somebody has logged in refuses that token, too, nobody is asked because of it
	// before MinRefreshInterval is over, the next time before twice as long, and so on up to an hour: until then, the error wraps
	// [ErrTokenRefused]. What Login returns is used as by Set.
	Login FetchFunc

	// LoginTimeout bounds a Login. 0 means 5 minutes.
	LoginTimeout time.Duration

	// HTTPClient sends the requests of [RefreshGrant] and [ClientCredentialsGrant], and of whatever else of package oauth2 Fetch
	// calls: the context of a refresh has it under oauth2.HTTPClient. If it is nil, the grants have a client of their own, which sends
	// a request again after a 5xx, a 429 or a broken connection (see [TokenEndpoint]); by this one it is sent once. What the context
	// of a caller has there does not count, since the token is for all callers. Its Transport must not be one that uses this
	// TokenSource.
	HTTPClient *http.Client

	// Revoke is what Logout calls with the token, if it is not nil: it tells the authorization server that the token is not
	// used any more (RFC 7009): [TokenEndpoint.Revocation], or your own. It is called, too, with what a refresh brings that
	// Logout has overtaken; if that fails, nobody is told, but the next Logout tries again.
	Revoke func(context.Context, *oauth2.Token) error

	// OnToken is called with each token from Fetch, Store, Login or Set just before it comes into use, each time that it does;
	// Initial is not shown to it. It is called by one goroutine at a time. Callers without a usable token wait until it has
	// returned. It must not call methods of the TokenSource, nor Update of its Store, whose lock may wait for it.
	OnToken func(*oauth2.Token)

	// OnEvent is called with what happens to the token ([EventRefreshing], [EventRefreshed], [EventNotSaved]) where nobody else is told:
	// where no request by a Transport with an OnEvent has started it. What holds for [Transport.OnEvent] holds for it, too; one
	// function can be both.
	OnEvent func(context.Context, Event)

	// RefreshBefore is how long before its expiry a token is refreshed in the background, by the next caller, while
	// all go on using it. That is not before half of its lifetime has passed. 0 means 0.45 of the lifetime or
	// 5 minutes, whichever is less, and up to a tenth more or less, so that not all processes refresh at the same moment.
	// Negative means not before it has expired.
	RefreshBefore time.Duration

	// FetchTimeout bounds a refresh, Store included. Nobody waits any longer for a Fetch that ignores the end of its
	// context, but if it returns a token later, that is kept. While four refreshes have not come to an end, no other is begun.
	// 0 means 30 seconds.
	FetchTimeout time.Duration

	// MinRefreshInterval is for servers that refuse tokens although they are fresh. A token that was obtained
	// because its predecessor was refused, or by Login, and is refused itself before any server has accepted it, is not replaced
	// by another such one before it has this age (Login says when somebody is asked again); and an origin because of which a token was
	// obtained does not cause another to be obtained for this time, unless it has accepted that one, whatever others accept. Nor do
	// refusals, or calls of Refresh, cause more than 32 calls of Fetch from the first of them until this time is over, and those of one
	// origin more than 8, since all requests share the token. Until then, the error wraps [ErrTokenRefused]. 0 means 10 seconds; negative means no such bound.
	//
	// To a [Bearer], a server has accepted a token when it has accepted the request because of which the token was obtained, sent
	// again by the Transport. If the body of that could not be sent again, the token counts as not accepted, whatever requests follow.
	MinRefreshInterval time.Duration

	random func() float64 // nil: rand.Float64; some tests have one that can be foreseen

	// current is the token in use: nil at first, then replaced as a whole. A caller with a good token touches nothing
	// else. It changes only under publishing and mu.
	current atomic.Pointer[knownToken]

	// publishing makes OnToken and the change of current one step, so that tokens are seen in the order in which they
	// come into use. It is held while OnToken runs. Callers who want a token do not take it. It is taken before mu.
	publishing turn

	// mu guards what follows. It is never held while anything is called that could wait.
	mu         sync.Mutex
	begun      bool             // Initial has been looked at
	ended      bool             // by Logout, here or elsewhere
	logouts    uint32           // calls of Logout
	goroutines int32            // of refreshes, also of those that nobody waits for any more
	idle       chan struct{}    // closed when there is none of them; nil if no Wait waits for that
	running    *refreshRun      // the refresh under way; nil if there is none
	fetching   map[string]bool  // with which refresh tokens Fetch has been called, and has not returned; nil: with none
	used       *usedGrants      // nil: none
	failure    failure          // of the last refresh; zero if it succeeded
	forced     *forced          // refreshes that refusals have caused lately; nil: none
	unserved   map[*demand]bool // of those who wait for a refresh, or (true) a login, that will not meet them; nil: none
	stepUps    refreshCount     // refreshes that needs have caused lately
	lacking    time.Time        // until then nobody asks for more: a grant has lacked something

	loggingIn *refreshRun // the login under way; nil if there is none
	declined  error       // of the last login; nil: all who waited for it have given up, and it may be begun once more
	declineTo time.Time   // until then nobody is asked again because of declined
	share     float64     // of a token's lifetime, in which it is refreshed early; 0: not chosen yet
}

// Errors of a [TokenSource].
var (
	// ErrLoginRequired means that no retry can help: the user has to log in again or, where there are no credentials but the
	// client's, those have to be put right. It ends with [TokenSource.Set], or when another process has put a new token into the
	// Store.
	ErrLoginRequired = errors.New("authretry: a new login is required")

	// ErrChallengeRequired is for a Fetch or a Login that cannot tell what token is wanted before a server has asked for one:
	// where TokenRequest.Challenge is nil, and there is nothing to go on with. The request is then sent without a token, and what
	// the server answers is the Challenge of the next TokenRequest. It is no failure that is remembered.
	ErrChallengeRequired = errors.New("authretry: the server has not said yet what token it wants, so that none can be obtained")

	// ErrTokenRefused means that a server refuses a token although it is fresh from the token endpoint, so that
	// another refresh would not help now. It wraps [ErrCredentialsRefused].
	ErrTokenRefused error = &refusedError{text: "the server refuses a token fresh from the token endpoint"}

	// ErrNotSaved means that a token is in use that the Store has not saved. It is saved again until that succeeds: until then, a
	// process that ends takes the login with it.
	ErrNotSaved = errors.New("authretry: the token could not be saved")

	// ErrNotRevoked means that the login has ended, but that the authorization server could not be told.
	ErrNotRevoked = errors.New("authretry: the token could not be revoked")
)

const (
	defaultFetchTimeout    = 30 * time.Second
	defaultRefusalInterval = 10 * time.Second

	earlyShare = 0.45 // of the lifetime; times 0.9 to 1.1
	maxEarly   = 5 * time.Minute
	forever    = time.Duration(math.MaxInt64)
)

// Obtain returns a token that meets r: one that has not expired and, if r.Previous is set, is another than that one, which a server
// has refused. So the zero TokenRequest asks for a usable token. If there is one, it is returned at once; but for a request to an
// origin that has refused it, Obtain waits for its successor, if that is on its way. For 50 ms after the process was stopped, or the
// machine has slept, the token may be one that has expired meanwhile.
//
// If the current token does not meet r, Obtain waits for a refresh, for which all wait who need one (another may begin before
// it has ended if Set or Logout is called meanwhile, or if Fetch outlasts FetchTimeout). If it is Obtain that starts it, Fetch
// gets r.Challenge. If the source has replaced r.Previous already, however long ago, and has a token that has not expired,
// nothing is refreshed.
//
// The error wraps [ErrLoginRequired] if nothing but a new login can help, and context.Cause(ctx) if ctx ended first. It
// wraps [ErrCredentialsRefused] if there is no other token than r.Previous; one of these errors is [ErrTokenRefused]. So
// the Answer of a [Scheme] can return it as it is.
func (s *TokenSource) Obtain(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
	return s.meet(ctx, &r)
}

// meet is Obtain. It does not change r, which is nil if nothing is asked for.
func (s *TokenSource) meet(ctx context.Context, r *TokenRequest) (*oauth2.Token, error) {
	if r == nil || r.Previous == nil && r.asksForNothing() {
		if t, err := s.atHand(ctx); t != nil || err != nil {
			return t, err
		}
	}
	if r == nil {
		r = new(TokenRequest)
	}
	d, err := newDemand(r)
	if err != nil {
		return nil, err
	}
	if d.account == "" {
		d.account = AccountOf(ctx)
	}
	if d.challenge != nil && d.at == (refusedAt{}) {
		d.at = refusalIn(ctx)
	}
	return s.obtain(ctx, d)
}

// Token returns a token that has not expired, obtaining one if need be. It implements oauth2.TokenSource. Where there
// is a context to obey, use [TokenSource.Obtain].
func (s *TokenSource) Token() (*oauth2.Token, error) {
	return s.Obtain(context.Background(), TokenRequest{})
}

// Refresh returns another token than rejected, which a server has refused: it is Obtain without a challenge. If rejected
// is nil, the current token is replaced although nobody has refused it: by the refresh under way, if there is one, by another
// token that is in the Store, or by Fetch as far as MinRefreshInterval lets it.
//
// It is also the method that a [Bearer] looks for in sources that are not a TokenSource.
func (s *TokenSource) Refresh(ctx context.Context, rejected *oauth2.Token) (*oauth2.Token, error) {
	if rejected == nil {
		return s.obtain(ctx, demand{forced: true, attempt: 2})
	}
	return s.Obtain(ctx, TokenRequest{Previous: rejected})
}

// Accepted notes that a server has accepted t after it had asked for credentials. If t is refused later, it must have been
// revoked, and MinRefreshInterval does not hold up its successor because t is new; the numbers that it allows still hold. Of t
// only the AccessToken counts; if that is not the current one, Accepted does nothing. A [Scheme] calls it from Learn; so does, after
// each call that has succeeded, a program that uses a TokenSource without a [Transport], for gRPC for instance.
func (s *TokenSource) Accepted(t *oauth2.Token) {
	if k := s.current.Load(); k != nil && t != nil && k.token.AccessToken == t.AccessToken && !k.accepted.Load() {
		by := origin{}
		if k.by != nil {
			by = *k.by // most likely
		}
		s.acceptedBy(by, t.AccessToken)
	}
}

// Refused starts to replace t, which a server has refused, as Obtain does with t as Previous, but does not wait for that, and
// asks nobody to log in. Of t only the AccessToken counts; if that is not the current one, Refused does nothing. A [Scheme]
// calls it from Learn for the second refusal of a request, with the context of that, so that the next request has another
// token. C is what the server asks for; it may be nil.
//
// The error wraps [ErrTokenRefused] if t is so fresh that it is not replaced before MinRefreshInterval is over; otherwise it is nil.
// A Learn that returns it has [Explain] say so.
func (s *TokenSource) Refused(ctx context.Context, t *oauth2.Token, c *Challenge) error {
	k := s.current.Load()
	if k == nil || t == nil || k.token.AccessToken != t.AccessToken || ctx.Value(refreshKey{s}) != nil {
		return nil
	}
	err := s.staysFor(originIn(ctx), t.AccessToken)
	d := demand{refused: t.AccessToken, challenge: c, background: true, attempt: 2}
	if c != nil {
		d.at = refusalIn(ctx)
	}
	_, _, _ = s.join(context.WithoutCancel(ctx), &d)
	return err
}

// staysFor returns an error if an origin has refused the current token, and that is too fresh to be replaced for it.
func (s *TokenSource) staysFor(by origin, access string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, now := s.current.Load(), time.Now()
	if k.usable(now) && k.token.AccessToken == access && s.refusedWhileFresh(k, demand{refused: access, by: by}, now) {
		return errRefusedWhileFresh
	}
	return nil
}

// atHand returns the current token; nil if there is none that is usable, or the origin of the request has refused it. For the
// successor of that one it waits. It neither locks nor allocates otherwise.
func (s *TokenSource) atHand(ctx context.Context) (*oauth2.Token, error) {
	k := s.current.Load()
	if k == nil {
		return nil, nil
	}
	if k.refusers.Load() != nil && k.isRefusedBy(originIn(ctx)) && ctx.Value(refreshKey{s}) == nil {
		return nil, s.awaitSuccessor(ctx, k)
	}
	if k.resting.Load() || k.settled(time.Since(k.received)) {
		return k.token, nil
	}
	if now := time.Now(); k.usable(now) {
		s.renew(ctx, k, now)
		return k.token, nil
	}
	return nil, nil
}

// awaitSuccessor waits for the token that takes the place of k, which the origin of the request has refused, if it is on its way.
func (s *TokenSource) awaitSuccessor(ctx context.Context, k *knownToken) error {
	s.mu.Lock()
	run := s.running
	s.mu.Unlock()
	if run == nil || run.base != k {
		return nil
	}
	return run.await(ctx, "a token")
}

// renew starts a refresh in the background, unless somebody else has.
func (s *TokenSource) renew(ctx context.Context, k *knownToken, now time.Time) {
	due := k.refreshAt.Load()
	if int64(now.Sub(k.received)) < due || ctx.Value(refreshKey{s}) != nil { // it may be a refresh, or a login, that asks
		return
	}
	if !k.refreshAt.CompareAndSwap(due, int64(k.lifetime)) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.running != nil || s.current.Load() != k:
	case s.goroutines >= maxGoroutines:
		k.retryAfter(now, minStoreWait)
	case now.Before(s.failure.until):
		k.retryAfter(now, s.failure.until.Sub(now))
	default:
		s.start(ctx, k, demand{background: true, account: AccountOf(ctx)})
	}
}

// obtain returns a token that meets the demand: the current one, or that of a refresh for which it waits.
func (s *TokenSource) obtain(ctx context.Context, d demand) (*oauth2.Token, error) {
	defer s.leave(&d)
	if ctx.Value(refreshKey{s}) != nil {
		return nil, errRecursion
	}
	if s.current.Load() == nil {
		if err := s.checkInitial(); err != nil {
			return nil, err
		}
	}
	s.useInitial()
	for {
		run, t, err := s.join(ctx, &d)
		if run != nil {
			if err := run.await(ctx, "a token"); err != nil {
				return nil, err
			}
			var ours bool
			if t, err, ours = run.result(&d); !ours {
				if d.alone {
					s.leave(&d)
				}
				continue
			}
		}
		if s.Login != nil && needsLogin(err) && !d.loggedIn {
			if run, t, err = s.joinLogin(ctx, &d); run != nil {
				if err := s.awaitLogin(ctx, run); err != nil {
					return nil, err
				}
				d.loggedIn = run.serves(&d) && run.fetched.Load() != nil // once is enough
				var ours bool
				if t, err, ours = run.result(&d); !ours {
					continue
				}
			}
		}
		if err == nil && d.isRefused(t) {
			return nil, errSameToken
		}
		return t, err
	}
}

// join returns the refresh to wait for, starting it if need be; or else the token or the error that there is already.
func (s *TokenSource) join(ctx context.Context, d *demand) (*refreshRun, *oauth2.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, now := s.current.Load(), time.Now()
	if k.usable(now) && d.refused != "" && d.refused == k.token.AccessToken {
		k.refusedBy(originIn(ctx))
	}
	switch {
	case d.metBy(k, now):
		return nil, k.token, nil
	case s.running != nil:
		s.await(s.running, d, false)
		return s.running, nil, nil
	case ctx.Err() != nil:
		return nil, nil, fmt.Errorf("authretry: there is no token, and no time to get one: %w", context.Cause(ctx))
	case s.ended && s.Store == nil:
		return nil, nil, errLoggedOut
	case s.Fetch == nil && s.Store == nil:
		return nil, nil, d.noFetchError()
	case now.Before(s.failure.until) && s.failure.err != error(errRefusedWhileFresh):
		return nil, nil, s.failure.remembered(now)
	case s.goroutines >= maxGoroutines:
		return nil, nil, errStillRefreshing
	}
	start := *d
	if d.isRenewalOf(k, now) {
		start.needs = needs{} // what comes is as good
	} else if !d.none() {
		if err := s.mayStepUp(k, &start.needs, now); err != nil {
			return nil, nil, err
		}
		start.needs = s.withOthers(d, k, false)
	}
	if k.usable(now) {
		start.forced, start.by = true, originIn(ctx)
		start.noFetch = start.none() && s.refusedWhileFresh(k, start, now)
		if start.noFetch && (s.Store == nil || now.Before(s.failure.until)) {
			return nil, nil, errRefusedWhileFresh
		}
	}
	return s.start(ctx, k, start), nil, nil
}

// await notes that somebody waits for a run; and if that will not meet the demand, that the next refresh, or login, should. The caller
// holds mu.
func (s *TokenSource) await(run *refreshRun, d *demand, login bool) {
	switch {
	case run.serves(d):
		delete(s.unserved, d)
		return
	case d.alone:
		return
	case s.unserved == nil:
		s.unserved = make(map[*demand]bool)
	}
	s.unserved[d] = login
}

// leave notes that who has the demand d does not wait any more.
func (s *TokenSource) leave(d *demand) {
	if d.none() {
		return // it is met by every run
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.unserved, d); len(s.unserved) == 0 {
		s.unserved = nil
	}
}

// withOthers returns what a refresh, or a login, is for that d starts in place of the token k: for those who wait for one, besides, as
// far as that is not too much for one token. What only a person can give is no need of a refresh. The caller holds mu.
func (s *TokenSource) withOthers(d *demand, k *knownToken, login bool) needs {
	delete(s.unserved, d)
	n := d.needs
	if d.alone {
		return n
	}
	for other, waitsForLogin := range s.unserved {
		if waitsForLogin != login || !login && other.needsPerson() || other.within(&n) {
			continue
		}
		if both := n.and(other.needs); both.tooMuch(k.knownScopes()) == nil {
			n = both
		}
	}
	return n
}

// mayStepUp returns why a token that is good for more must not be asked for now, or counts it. The caller holds mu.
func (s *TokenSource) mayStepUp(k *knownToken, n *needs, now time.Time) error {
	if err := n.tooMuch(k.knownScopes()); err != nil {
		return err
	}
	if n.needsPerson() {
		return errPersonNeeded
	}
	if now.Before(s.lacking) {
		return notGranted("the authorization server has just granted less than was asked for; it is not asked again before TokenSource.MinRefreshInterval is over")
	}
	return s.countStepUp(now)
}

// countStepUp counts that a token is asked for that is good for more, unless there were too many. The caller holds mu.
func (s *TokenSource) countStepUp(now time.Time) error {
	if now.Sub(s.stepUps.since) >= s.refusalInterval() {
		s.stepUps = refreshCount{since: now}
	}
	if s.stepUps.n >= maxStepUps {
		return notGranted("servers ask for more than TokenSource asks the authorization server for in a while (see MinRefreshInterval)")
	}
	s.stepUps.n++
	return nil
}

// Validate says what is wrong with the fields, as far as that can be told without asking anybody: an Initial that cannot be sent, or
// that has to be refreshed where there is no Fetch. A TokenSource without any of Fetch, Initial, Store and Login is in order, since there
// is Set. See [Transport.Validate], which asks.
func (s *TokenSource) Validate() error {
	if s == nil {
		return errors.New("authretry: the TokenSource is nil")
	}
	if i := s.Initial; i != nil && i.AccessToken == "" && s.Fetch == nil && s.Login == nil && s.Store == nil {
		return errors.New("authretry: TokenSource.Initial has no access token, and there is no Fetch to get one")
	}
	return s.checkInitial()
}

// checkInitial returns an error if Initial has an access token that cannot be sent.
func (s *TokenSource) checkInitial() error {
	if s.Initial == nil || s.Initial.AccessToken == "" {
		return nil
	}
	if err := checkToken(s.Initial); err != nil {
		return fmt.Errorf("%w (TokenSource.Initial)", err)
	}
	return nil
}

func (s *TokenSource) refusalInterval() time.Duration {
	if s.MinRefreshInterval == 0 {
		return defaultRefusalInterval
	}
	return s.MinRefreshInterval
}

// useInitial puts Initial to use, the first time that it is called, unless it has to be saved first.
func (s *TokenSource) useInitial() {
	if s.Store != nil {
		return
	}
	var initial *knownToken
	if s.current.Load() == nil && s.Initial != nil && (s.Initial.AccessToken == "" || checkToken(s.Initial) == nil) {
		initial = s.newKnownToken(s.Initial)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun && s.current.Load() == nil && initial != nil {
		s.current.Store(initial)
	}
	s.begun = true
}

// Format keeps tokens out of everything that package fmt prints.
func (s *TokenSource) Format(f fmt.State, verb rune) { formatShown(f, "authretry.TokenSource") }

// MarshalJSON keeps tokens out of JSON.
func (s *TokenSource) MarshalJSON() ([]byte, error) { return marshalShown() }

// isOnlyCopy reports whether a login would be lost, or a refresh or a login interrupted, if s were dropped.
func (s *TokenSource) isOnlyCopy() bool {
	s.mu.Lock()
	busy, ended := s.running != nil || s.loggingIn != nil, s.failure.final
	s.mu.Unlock()
	k := s.current.Load()
	if busy || s.Store != nil {
		return busy || k != nil && k.unsaved.Load() != nil
	}
	t := s.Initial
	if k != nil {
		t = k.token
	}
	return grantOf(t) != "" && (ended == nil || ended.person || ended.grant != grantOf(t))
}

// A turn is a lock that may be held for long: whoever waits for it waits in a way that package testing/synctest
// understands.
type turn struct {
	mu    sync.Mutex
	taken bool
	free  *sync.Cond // nil: nobody has waited yet
}

func (t *turn) Lock() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.taken {
		if t.free == nil {
			t.free = sync.NewCond(&t.mu)
		}
		t.free.Wait()
	}
	t.taken = true
}

func (t *turn) Unlock() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken = false
	if t.free != nil {
		t.free.Signal()
	}
}
