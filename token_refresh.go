package authretry

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// A refreshRun is one refresh. Its goroutine may outlive the callers who wait for it.
type refreshRun struct {
	demand
	base     *knownToken // the current token when it started; nil if there was none
	ctx      *refreshContext
	began    time.Time
	logouts  uint32                     // how often there had been a Logout when it began
	failure  failure                    // of the refresh before
	fetched  atomic.Pointer[knownToken] // what it has obtained
	ended    atomic.Bool                // and reported to the listener
	isOthers bool                       // it is that of an earlier run, which sees to its saving
	isOwn    bool                       // Fetch has given it to this run; set before it
	lacks    bool                       // fetched lacks something of what was asked for; set before it
	useless  bool                       // fetched has nothing new but its refresh token; set before it
	revoked  atomic.Bool                // since there was a Logout; or it was in use, so that Logout sees to that

	// Of a Login:
	uselessLogins uint8              // see knownToken.useless
	waiters       int                // guarded by TokenSource.mu
	givenUp       bool               // by all of them; guarded by it, too
	cancel        context.CancelFunc // when there are none

	done  chan struct{} // closed when token and err are set
	over  bool          // done is closed; guarded by TokenSource.mu
	token *oauth2.Token
	err   error // if both are nil, whoever has waited looks again what there is
}

// serves reports whether the run, or what comes of it, is for who has the demand d.
func (run *refreshRun) serves(d *demand) bool { return d.within(&run.needs) }

// await waits for the end of the run.
func (run *refreshRun) await(ctx context.Context, what string) error {
	select {
	case <-run.done:
		return nil
	case <-ctx.Done():
		return waitError(ctx, what)
	}
}

// result returns what came of the run for who has the demand d. It is not theirs if the run was for others, or if Set has
// put something in its place that does not meet it, or has to be refreshed itself.
func (run *refreshRun) result(d *demand) (t *oauth2.Token, err error, ours bool) {
	switch {
	case run.err == nil && run.token == nil:
		return nil, nil, false
	case run.challenge == nil && d.challenge != nil && errors.Is(run.err, ErrChallengeRequired):
		return nil, nil, false
	case !run.serves(d) && (run.err == nil || !run.none()):
		return nil, nil, false
	case run.token != nil && d.none():
		return run.token, nil, true // whatever others have asked for besides
	case run.err == nil:
		return run.token, nil, true
	case !run.needs.within(&d.needs): // most likely, what has failed is what others wanted
		d.alone = true // so it ends: the run that it starts is for nobody else
		return nil, nil, false
	case run.err == error(errRefusedWhileFresh) && !d.retried: // which concerns who had refused it
		d.retried = true
		return nil, nil, false
	}
	return nil, run.err, true
}

// start starts a refresh of the token k. The caller holds mu.
func (s *TokenSource) start(ctx context.Context, k *knownToken, d demand) *refreshRun {
	run := &refreshRun{demand: d, base: k, began: time.Now(), logouts: s.logouts, failure: s.failure, done: make(chan struct{})}
	s.running = run
	s.goroutines++
	run.ctx = newRefreshContext(ctx, s)
	ctx, cancel := context.WithTimeout(run.ctx, s.fetchTimeout())
	go s.carryOut(ctx, cancel, run)
	return run
}

func (s *TokenSource) fetchTimeout() time.Duration {
	if s.FetchTimeout > 0 {
		return s.FetchTimeout
	}
	return defaultFetchTimeout
}

// carryOut carries out a refresh, which ends even if Fetch, Store or OnToken panic, exit the goroutine, or do not heed
// the context.
func (s *TokenSource) carryOut(ctx context.Context, cancel context.CancelFunc, run *refreshRun) {
	defer s.goroutineEnds()
	defer cancel()
	overdue := context.AfterFunc(ctx, func() {
		s.end(run, run.fetched.Load(), failed(context.DeadlineExceeded, nil))
	})
	err := error(&tokenError{text: "a callback for tokens has ended its goroutine"})
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
		overdue()
		s.end(run, run.fetched.Load(), err)
	}()
	s.report(run, Event{Kind: EventRefreshing})
	err = s.obtainNew(ctx, run)
}

// maxGoroutines is how many goroutines of refreshes there are at most: what does not heed the end of its context keeps them.
const maxGoroutines = 4

// goroutineEnds is called as the goroutine of a refresh ends, whether or not anybody has waited for it.
func (s *TokenSource) goroutineEnds() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.goroutines--; s.goroutines == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

// obtainNew gets the token and puts it in run.fetched. It may leave an error besides, if that token is without use or
// could not be saved.
func (s *TokenSource) obtainNew(ctx context.Context, run *refreshRun) error {
	if s.Store == nil {
		return s.fetch(ctx, run, run.baseToken(), nil)
	}
	looks := s.looks()
	if stored, err := s.Store.Load(ctx); err == nil { // or else Update will say why
		stored = stored.attached()
		if err := s.refusedForGood(run, run.previous(stored)); s.takeStored(run, stored, looks) {
			return nil
		} else if err != nil {
			return err // there is nothing new: leave the lock to others
		}
	}
	var fetchErr error
	// ends reports whether stored ends the run, because another process has put a good token there, or ended the login.
	ends := func(stored *Record, looks uint32) bool {
		if s.takeStored(run, stored, looks) {
			return true
		}
		if stored != nil && stored.LoggedOut && !run.isOld(stored) {
			fetchErr = errLoggedOut
		}
		return fetchErr != nil
	}
	enough := func(stored *Record) bool {
		before := looks
		looks = s.looks()
		if stored != nil && stored.LoggedOut && !s.noteEnd(stored, before) {
			return false // it may be over: Update says so
		}
		return ends(stored.attached(), before)
	}
	err := s.updateUnless(ctx, enough, func(ctx context.Context, stored *Record, confirm func(context.Context) error) (*Record, error) {
		k := run.fetched.Load()
		stored = stored.attached()
		looks := s.noteLook(stored)
		if k == nil { // as always, but if the Store has called before
			if ends(stored, looks) {
				return nil, fetchErr
			}
			if k = s.initial(run, stored); k == nil {
				fetchErr = s.fetch(context.WithValue(ctx, confirmKey{}, confirm), run, run.previous(stored), stored)
				k = run.fetched.Load()
			}
			if k == nil || run.isOthers {
				return nil, fetchErr
			}
		}
		return k.record(), nil
	})
	k := run.fetched.Load()
	switch {
	case run.isOthers:
		return nil
	case err == nil && k != nil:
		k.unsaved.Store(nil)
		if k.succeeds(run.base) {
			run.base.unsaved.Store(nil) // what has come of it is in the Store, and is newer
		}
		return fetchErr
	case fetchErr != nil:
		return fetchErr
	case k != nil:
		return notSaved(err, k, run.baseToken())
	case err != nil:
		return storeFailed(err, run.baseToken())
	}
	return &tokenError{text: "TokenStore.Update has neither called its function nor failed"}
}

// initial makes Initial the result of the run, if the Store has nothing, and it is good.
func (s *TokenSource) initial(run *refreshRun, stored *Record) *knownToken {
	if stored != nil || run.base != nil || s.Initial == nil || checkToken(s.Initial) != nil || run.isRefused(s.Initial) || !s.mayBegin() {
		return nil
	}
	k := s.newKnownToken(s.Initial)
	if k.lifetime == 0 || !k.meets(&run.needs, time.Now()) {
		return nil
	}
	k.isInitial = true
	s.obtained(run, k, stored)
	return k
}

// obtained makes k the result of the run. If there is a Store, which has stored, k has yet to be saved there.
func (s *TokenSource) obtained(run *refreshRun, k *knownToken, stored *Record) {
	if s.Store != nil {
		k.unsaved.Store(&unsaved{has: stored}) // before it can be published, which may be at once: the time may be up
		s.noteOwn(k)
	}
	run.fetched.Store(k)
}

// mayBegin reports whether Initial may still come into use.
func (s *TokenSource) mayBegin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.begun
}

// takeStored makes the token in the Store the result of the run, if another process has put it there since, and it is
// good. It was found there after so many looks.
func (s *TokenSource) takeStored(run *refreshRun, stored *Record, looks uint32) bool {
	if stored == nil || stored.Token == nil || checkToken(stored.Token) != nil || run.isOld(stored) {
		return false
	}
	if run.base != nil && run.base.token.AccessToken == stored.Token.AccessToken {
		return false
	}
	k := s.newKnownToken(stored.Token)
	k.scopes, k.login, k.looks = union(k.scopes, stored.scopes()), stored.Login, looks
	if k.lifetime == 0 || run.isRefused(stored.Token) || !k.meets(&run.needs, time.Now()) {
		return false
	}
	s.noteFound(stored)
	run.fetched.Store(k)
	return true
}

// previous returns the token to refresh: that of the Store, which others may have renewed, unless ours is newer.
func (run *refreshRun) previous(stored *Record) *oauth2.Token {
	if stored == nil || stored.Token == nil || run.isOld(stored) {
		if run.base == nil && stored == nil && run.ctx.source.mayBegin() {
			return run.ctx.source.Initial
		}
		return run.baseToken()
	}
	return stored.Token
}

// has returns what the token to be replaced is good for, as far as that is known.
func (run *refreshRun) has(previous *oauth2.Token, stored *Record) []string {
	switch {
	case stored != nil && stored.Token == previous:
		return stored.scopes()
	case run.base != nil && run.base.token == previous:
		return run.base.scopes
	}
	return nil
}

// login returns what is known of where the token to be replaced comes from (see Record).
func (run *refreshRun) login(previous *oauth2.Token, stored *Record) string {
	switch {
	case stored != nil && stored.Token == previous:
		return stored.Login
	case run.base != nil && run.base.token == previous:
		return run.base.login
	}
	return ""
}

func (run *refreshRun) baseToken() *oauth2.Token {
	if run.base == nil {
		return nil
	}
	return run.base.token
}

// end ends a run with the token k, or with err, or both: a token that is of no use, or could not be saved.
//
// It is called twice if the time ran out before the work was done. Whatever token the second call has is kept, too,
// unless there is a newer one.
func (s *TokenSource) end(run *refreshRun, k *knownToken, err error) {
	defer s.revokeLate(run, k)
	defer s.publish(run, k, err) // whatever the listener does
	if run.ended.CompareAndSwap(false, true) {
		s.report(run, Event{Kind: EventRefreshed, Duration: time.Since(run.began), Err: err})
	}
}

// publish shows the token of a run to OnToken, and settles the run.
func (s *TokenSource) publish(run *refreshRun, k *knownToken, err error) {
	if k == nil {
		s.settle(run, nil, err)
		return
	}
	s.publishing.Lock()
	defer s.publishing.Unlock()
	if s.isOvertaken(run, k) {
		s.settle(run, nil, err)
		return
	}
	if k.lifetime > 0 && !run.lacks && !run.useless {
		err = nil // that the token could not be saved is for the listener; it is good
	}
	if k.unsaved.Load() != nil {
		defer s.saveLater(run.ctx, k, minRetryDelay)
	}
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
		s.settle(run, k, err)
	}()
	if s.OnToken != nil && !k.isInitial && k.token.AccessToken != "" {
		s.OnToken(k.token)
	}
}

// settle puts k to use, if there is one, and tells those who wait for the run. With k, the caller holds publishing.
func (s *TokenSource) settle(run *refreshRun, k *knownToken, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used != nil && s.used.coming == run.fetched.Load() {
		s.used.coming, s.used.instead = nil, nil
	}
	current, base := s.current.Load(), run.base
	ends := false // whether the current token is of no use any more
	switch {
	case s.used != nil && k.isOf(s.used.ended):
		k, err = nil, errLoggedOut
	case s.isPast(k) && (k.unsaved.Load() == nil || !s.used.isOwn): // a later login of our own takes its place in a moment
		ends = current == base || k.succeeds(current) // and was spent for k
		k, err = nil, nil                             // the next caller finds in the Store what there is
	}
	if err == error(errLoggedOut) {
		ends = current == base || current != nil && current.unsaved.Load() == nil
	}
	now := time.Now()
	switch {
	case k != nil:
		s.current.Store(k)
		s.begun, s.ended = true, false
		run.revoked.Store(true)
		if !run.useless {
			s.failure = failure{}
		}
	case ends:
		s.endCurrent()
		if current == base {
			base = nil
		}
	}
	if s.running == run {
		s.running = nil
	}
	current = s.current.Load()
	switch {
	case run.over:
	case k == nil && (current != base || err == nil):
		s.supersede(run)
	case err == nil:
		run.finish(k.token, nil)
	case k != nil && run.lacks:
		s.lacking = now.Add(s.refusalInterval())
		run.finish(k.token, err) // which is good for who has asked for no more than there was
	case !run.none() && !isOutOfOrder(err), run.challenge == nil && errors.Is(err, ErrChallengeRequired):
		base.unrefuse()
		if base != nil {
			base.refreshAt.CompareAndSwap(int64(base.lifetime), int64(base.early)) // it may have been due meanwhile
		}
		run.finish(nil, err) // it concerns who has asked, and nothing else
	default:
		base.unrefuse()
		if k == nil || run.useless || !k.usable(now) {
			s.failure = run.failure.next(err, current, s, now)
			if current != nil {
				current.retryAfter(now, s.failure.until.Sub(now))
			}
		}
		run.finish(nil, err)
	}
}

// supersede ends a run because its base is no longer the current token. The caller holds mu.
func (s *TokenSource) supersede(run *refreshRun) {
	if current, now := s.current.Load(), time.Now(); current.usable(now) && current.meets(&run.needs, now) {
		run.finish(current.token, nil)
	} else {
		run.finish(nil, nil)
	}
}

// finish tells those who wait. The caller holds mu.
func (run *refreshRun) finish(t *oauth2.Token, err error) {
	run.token, run.err, run.over = t, err, true
	close(run.done)
}

// revokeLate revokes what has come of a run since there was a Logout.
func (s *TokenSource) revokeLate(run *refreshRun, k *knownToken) {
	if k == nil || s.Revoke == nil || !run.isOwn || !s.hasLoggedOutSince(run) || !run.revoked.CompareAndSwap(false, true) {
		return
	}
	ctx, cancel := context.WithTimeout(run.ctx, s.fetchTimeout())
	defer cancel()
	if apart(panicked, func() error { return s.Revoke(ctx, k.token) }) != nil {
		s.noteUnrevoked(k.token)
	}
}

// report tells the listener of who started the run. One that waits for the run itself is waited for only as long as for a Fetch.
func (s *TokenSource) report(run *refreshRun, e Event) {
	if s.listener(run.ctx) == nil {
		return
	}
	e.Attempt = run.attempt
	told := make(chan struct{})
	go func() {
		defer close(told)
		// Marked, so that a request for the token that it is waited for is an error.
		s.reportTo(run.ctx, context.WithValue(run.ctx.caller(), refreshKey{s}, true), e)
	}()
	overdue := time.NewTimer(s.fetchTimeout())
	defer overdue.Stop()
	select {
	case <-told:
	case <-overdue.C:
	}
}

// listener returns who is told of what happens under ctx; nil: nobody.
func (s *TokenSource) listener(ctx context.Context) func(context.Context, Event) {
	if listen := listener(ctx); listen != nil {
		return listen
	}
	return s.OnEvent
}

// reportTo tells a listener under its caller's context: tracing and loggers look there.
func (s *TokenSource) reportTo(ctx *refreshContext, caller context.Context, e Event) {
	defer func() { _ = recover() }() // there is no caller here whom a panic would reach
	if listen := s.listener(ctx); listen != nil {
		e.Scheme = "Bearer"
		listen(context.WithoutCancel(caller), e)
	}
}
