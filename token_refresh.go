package authretry

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// A flight is one refresh. The goroutine that performs it outlives the callers who wait for it.
type flight struct {
	demand
	base    *heldToken // the current token when it started; nil if there was none
	began   time.Time
	failure failure                   // of the refresh before
	fetched atomic.Pointer[heldToken] // what it has obtained
	ended   atomic.Bool               // and reported to the listener

	done  chan struct{} // closed when token and err are set
	down  bool          // done is closed; guarded by TokenSource.mu
	token *oauth2.Token
	err   error // if it is nil and token is, too, Set has overtaken the flight
}

// flightKey marks the context of a TokenSource's own refreshes.
type flightKey struct{ *TokenSource }

// launch starts a refresh of the token h. The caller holds mu.
func (s *TokenSource) launch(ctx context.Context, h *heldToken, d demand) *flight {
	f := &flight{demand: d, base: h, began: time.Now(), failure: s.failure, done: make(chan struct{})}
	s.flight = f
	ctx = context.WithValue(context.WithoutCancel(ctx), flightKey{s}, true)
	ctx, cancel := context.WithTimeout(ctx, s.fetchTimeout())
	go s.fly(ctx, cancel, f)
	return f
}

func (s *TokenSource) fetchTimeout() time.Duration {
	if s.FetchTimeout > 0 {
		return s.FetchTimeout
	}
	return defaultFetchTimeout
}

// fly performs a refresh from its start to its end, which it comes to even if Fetch, Store or OnToken panic, exit the
// goroutine, or do not heed the context.
func (s *TokenSource) fly(ctx context.Context, cancel context.CancelFunc, f *flight) {
	defer cancel()
	overdue := context.AfterFunc(ctx, func() {
		s.land(ctx, f, f.fetched.Load(), failed(context.DeadlineExceeded, nil))
	})
	err := error(&tokenError{text: "a callback for tokens has ended its goroutine"})
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
		overdue()
		s.land(ctx, f, f.fetched.Load(), err)
	}()
	f.report(ctx, Event{Kind: EventRefreshing})
	err = s.perform(ctx, f)
}

// perform obtains the token and puts it in f.fetched. It may leave an error besides, if that token is without use or
// could not be saved.
func (s *TokenSource) perform(ctx context.Context, f *flight) error {
	if s.Store == nil {
		return s.fetch(ctx, f, f.baseToken())
	}
	if stored, ok := load(ctx, s.Store); ok {
		if s.adopt(f, stored) {
			return nil
		}
		if err := f.failure.stands(f.previous(stored), time.Now()); err != nil {
			return err // there is nothing new: leave the lock to others
		}
	}
	var fetchErr error
	_, err := s.Store.Update(ctx, func(ctx context.Context, stored *oauth2.Token) (*oauth2.Token, error) {
		h := f.fetched.Load()
		if h == nil { // as always, but if the Store has called before
			if s.adopt(f, stored) {
				return stored, nil
			}
			fetchErr = s.fetch(ctx, f, f.previous(stored))
			if h = f.fetched.Load(); h == nil {
				return nil, fetchErr
			}
		}
		h.supersedes.CompareAndSwap(nil, stored)
		return h.token, nil
	})
	h := f.fetched.Load()
	switch {
	case err == nil && h != nil:
		h.supersedes.Store(nil)
		return fetchErr
	case fetchErr != nil:
		return fetchErr
	case h != nil:
		return notSaved(err, h.token)
	case err != nil:
		return storeFailed(err, f.baseToken())
	}
	return &tokenError{text: "TokenStore.Update has neither called its function nor failed"}
}

// fetch calls Fetch for a successor of previous.
func (s *TokenSource) fetch(ctx context.Context, f *flight, previous *oauth2.Token) error {
	if err := f.failure.stands(previous, time.Now()); err != nil {
		return err
	}
	switch {
	case f.noFetch:
		return errRefusedWhileFresh
	case s.Fetch == nil:
		return errNoFetch
	}
	if f.forced { // and nothing new in the Store: what other processes refresh does not count
		s.mu.Lock()
		s.forced.n++
		s.mu.Unlock()
	}
	t, err := s.Fetch(ctx, TokenRequest{Previous: previous, Challenge: f.challenge})
	if err != nil {
		return failed(err, previous)
	}
	if err := checkToken(t); err != nil {
		return err
	}
	if b := f.base; b != nil && t.AccessToken == b.token.AccessToken && (f.refusal || t.Expiry.Equal(b.token.Expiry)) {
		return errSameToken
	}
	h := s.hold(t)
	h.forced = f.forced
	f.fetched.Store(h)
	if h.lifetime == 0 {
		return &tokenError{text: "the token endpoint issued a token that has expired already; is the clock right?"}
	}
	return nil
}

// adopt makes the token in the Store the flight's result, if another process has put it there since, and it is good.
func (s *TokenSource) adopt(f *flight, stored *oauth2.Token) bool {
	if stored == nil || checkToken(stored) != nil || f.isOld(stored) {
		return false
	}
	if f.base != nil && f.base.token.AccessToken == stored.AccessToken {
		return false
	}
	h := s.hold(stored)
	if h.lifetime == 0 || f.refusal && stored.AccessToken == f.rejected {
		return false
	}
	f.fetched.Store(h)
	return true
}

// previous returns the token to refresh: that of the Store, which others may have renewed, unless ours is newer.
func (f *flight) previous(stored *oauth2.Token) *oauth2.Token {
	if stored == nil || f.isOld(stored) {
		return f.baseToken()
	}
	return stored
}

// isOld reports whether stored is what our token was to replace, had it been possible to save it.
func (f *flight) isOld(stored *oauth2.Token) bool {
	if f.base == nil {
		return false
	}
	old := f.base.supersedes.Load()
	return old != nil && stored.AccessToken == old.AccessToken && stored.RefreshToken == old.RefreshToken
}

func (f *flight) baseToken() *oauth2.Token {
	if f.base == nil {
		return nil
	}
	return f.base.token
}

// land ends a flight with the token h, or with err, or both: a token that is of no use, or could not be saved.
//
// It is called twice if the time ran out before the work was done. Whatever token the second call brings is kept, too,
// unless there is a newer one.
func (s *TokenSource) land(ctx context.Context, f *flight, h *heldToken, err error) {
	defer s.publish(f, h, err) // whatever the listener does
	if f.ended.CompareAndSwap(false, true) {
		f.report(ctx, Event{Kind: EventRefreshed, Duration: time.Since(f.began), Err: err})
	}
}

// publish shows a flight's token to OnToken and settles the flight.
func (s *TokenSource) publish(f *flight, h *heldToken, err error) {
	if h == nil {
		s.settle(f, nil, err)
		return
	}
	s.publishing.Lock()
	defer s.publishing.Unlock()
	if s.current.Load() != f.base {
		s.settle(f, nil, err) // Set was faster, or a later flight
		return
	}
	if h.lifetime > 0 {
		err = nil // that the token could not be saved is for the listener; it is good
	}
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
		s.settle(f, h, err)
	}()
	if s.OnToken != nil {
		s.OnToken(h.token)
	}
}

// replace puts h to use, whatever else is going on.
func (s *TokenSource) replace(h *heldToken) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	if old := s.current.Load(); old != nil {
		h.supersedes.Store(old.token)
	}
	if s.OnToken != nil {
		s.OnToken(h.token)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.Store(h)
	s.failure, s.forced = failure{}, burst{}
	if s.flight != nil {
		s.overtake(s.flight)
		s.flight = nil
	}
}

// settle publishes h, if there is one, and tells those who wait for the flight. With h, the caller holds publishing.
func (s *TokenSource) settle(f *flight, h *heldToken, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if h != nil {
		s.current.Store(h)
		s.failure = failure{}
	}
	if s.flight == f {
		s.flight = nil
	}
	switch current := s.current.Load(); {
	case f.down:
	case h == nil && current != f.base:
		s.overtake(f)
	case err == nil:
		f.finish(h.token, nil)
	default:
		if h == nil || !h.usable(now) {
			s.failure = f.failure.next(err, current, s.Store != nil, now)
			if current != nil {
				current.retryAfter(now, s.failure.until.Sub(now))
			}
		}
		f.finish(nil, err)
	}
}

// overtake ends a flight because its base is no longer the current token. The caller holds mu.
func (s *TokenSource) overtake(f *flight) {
	if current := s.current.Load(); current.usable(time.Now()) {
		f.finish(current.token, nil)
	} else {
		f.finish(nil, nil)
	}
}

// finish tells those who wait. The caller holds mu.
func (f *flight) finish(t *oauth2.Token, err error) {
	f.token, f.err, f.down = t, err, true
	close(f.done)
}

// report tells the listener, if there is one in the context of who started the flight.
func (f *flight) report(ctx context.Context, e Event) {
	if listen := listener(ctx); listen != nil {
		defer func() { _ = recover() }() // there is no caller here whom a panic would reach
		e.Scheme, e.Attempt = "Bearer", f.attempt
		listen(ctx, e)
	}
}
