package authretry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

const (
	defaultLoginTimeout = 5 * time.Minute
	maxLoginWait        = time.Hour // see loginWait
)

// joinLogin returns the login to wait for, starting it if need be; or else the token that there is by now, or why nobody is asked.
func (s *TokenSource) joinLogin(ctx context.Context, d *demand) (*refreshRun, *oauth2.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, now := s.current.Load(), time.Now()
	switch {
	case d.metBy(k, now):
		return nil, k.token, nil
	case s.loggingIn != nil:
		s.await(s.loggingIn, d, true)
		s.loggingIn.waiters++
		return s.loggingIn, nil, nil
	case ctx.Err() != nil:
		return nil, nil, fmt.Errorf("authretry: there is no token, and no time for a login: %w", context.Cause(ctx))
	case now.Before(s.declineTo) && s.declined != nil && !d.anew:
		return nil, nil, s.declined
	case k.isUselessLogin(d, originIn(ctx)) && now.Sub(k.received) < s.loginWait(k):
		return nil, nil, errLoginRefused
	}
	if err := s.mayAsk(k, d, now); err != nil {
		return nil, nil, err
	}
	run := &refreshRun{demand: *d, base: k, began: now, done: make(chan struct{}), waiters: 1, ctx: newRefreshContext(ctx, s)}
	run.needs, run.by = s.withOthers(d, k, true), originIn(ctx)
	if k.isUselessLogin(d, run.by) && k.useless < math.MaxUint8 {
		run.uselessLogins = k.useless + 1
	}
	s.loggingIn = run
	timeout := s.LoginTimeout
	if timeout <= 0 {
		timeout = defaultLoginTimeout
	}
	limited, cancel := context.WithTimeout(run.ctx, timeout)
	run.cancel = cancel
	go s.logIn(limited, run)
	return run, nil, nil
}

// isUselessLogin reports whether k is of a login that was of no use: no server has accepted its token, and one refuses it; or the server
// for which somebody has logged in refuses it, and has never accepted it. Another login would be of no more use to that server.
func (k *knownToken) isUselessLogin(d *demand, by origin) bool {
	if k == nil || !k.isLogin || d.refused == "" || d.refused != k.token.AccessToken {
		return false
	}
	if k.accepted.Load() && (k.by == nil || *k.by != by || k.served.Load()) {
		return false
	}
	asked := k.needs()
	return d.within(&asked)
}

// loginWait returns how long after a login that was of no use nobody is asked for another one: longer each time, so that a person does not
// find a window every few seconds.
func (s *TokenSource) loginWait(k *knownToken) time.Duration {
	wait := s.refusalInterval()
	for n := k.useless; n > 0 && 0 < wait && wait < maxLoginWait; n-- {
		wait = min(2*wait, maxLoginWait)
	}
	return wait
}

// mayAsk returns why a person must not be asked now for a token that is good for more, or counts it, unless join has done so for a refresh.
// The caller holds mu.
func (s *TokenSource) mayAsk(k *knownToken, d *demand, now time.Time) error {
	switch {
	case d.needsPerson():
		return s.countStepUp(now)
	case !d.none() && s.Fetch == nil && s.Store == nil:
		return s.mayStepUp(k, &d.needs, now)
	}
	return nil
}

// awaitLogin waits for the end of a login, which ends too when nobody waits any more.
func (s *TokenSource) awaitLogin(ctx context.Context, run *refreshRun) error {
	err := run.await(ctx, "a login")
	s.mu.Lock()
	defer s.mu.Unlock()
	if run.waiters--; run.waiters == 0 {
		run.cancel()
		run.givenUp = true
	}
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		return noTimeToLogIn(ctx)
	}
	return err
}

// NewLogin has somebody log in, by Login, whatever token there is, and returns the token. It is for what a person asks for, such as a
// command named login: [TokenSource.Obtain] asks nobody as long as there is a token that has not expired by its own account, be it good or
// not. If somebody is being asked already, NewLogin waits for that login. If it fails, what there was stays in use; if Login is nil, the
// error wraps [ErrLoginRequired].
func (s *TokenSource) NewLogin(ctx context.Context) (*oauth2.Token, error) {
	switch {
	case ctx.Value(refreshKey{s}) != nil:
		return nil, errRecursion
	case s.Login == nil:
		return nil, errNoLogin
	}
	d := demand{anew: true, attempt: 1, account: AccountOf(ctx)}
	for {
		run, _, err := s.joinLogin(ctx, &d)
		if err != nil {
			return nil, err
		}
		if err := s.awaitLogin(ctx, run); err != nil {
			return nil, err
		}
		switch k := run.fetched.Load(); {
		case k == nil && (run.err != nil || run.token != nil): // nobody has logged in, or by Set
			return run.token, run.err
		case k == nil || !k.isLogin: // it was given up as we came, or somebody else's token was as good for who had asked
			continue
		case run.err != nil || run.token != nil:
			return run.token, run.err
		}
		return s.obtain(ctx, demand{attempt: 1, account: d.account, loggedIn: true}) // what Login has returned has to be refreshed first
	}
}

// noTimeToLogIn is the error for a request whose own time limit is over before somebody has logged in.
func noTimeToLogIn(ctx context.Context) error {
	return fmt.Errorf("authretry: the request's own time limit (the deadline of its context, or http.Client.Timeout) was over before somebody had logged in, "+
		"and a login ends when no request waits for it; log in before the first request, by TokenSource.Obtain, or set no such limit: %w", context.Cause(ctx))
}

// logIn carries out a login, which ends even if Login panics, exits the goroutine, or does not heed its context.
func (s *TokenSource) logIn(ctx context.Context, run *refreshRun) {
	ends, _ := ctx.Deadline()
	defer run.cancel()
	overdue := context.AfterFunc(ctx, func() {
		if ctx.Err() == context.Canceled { // whoever comes now waits until Login has returned
			left := time.NewTimer(time.Until(ends))
			defer left.Stop()
			select {
			case <-run.done:
				return
			case <-left.C:
			}
		}
		s.endLogin(run, nil, notLoggedIn(ctx, context.Cause(ctx), nil))
	})
	err := apart(panicked, func() error { return s.askPerson(ctx, run) })
	overdue()
	if err != nil && !errors.Is(err, ErrLoginRequired) {
		err = notLoggedIn(ctx, err, nil)
	}
	s.endLogin(run, run.fetched.Load(), err)
}

// notLoggedIn is the error of a login under ctx, in place of the token previous, that has failed.
func notLoggedIn(ctx context.Context, err error, previous *oauth2.Token) error {
	text := describeCause(err, previous)
	if ctx.Err() == context.DeadlineExceeded {
		text = "it took too long (see TokenSource.LoginTimeout)"
	}
	return &tokenError{text: "nobody has logged in: " + text, causes: []error{ErrLoginRequired, err}}
}

// askPerson has somebody log in, unless somebody else has by the time that it is their turn. The token is in run.fetched.
func (s *TokenSource) askPerson(ctx context.Context, run *refreshRun) error {
	var stored *Record
	if s.Store != nil {
		if locker, ok := s.Store.(interface {
			LockLogin(ctx context.Context) (unlock func(), err error)
		}); ok {
			unlock, err := locker.LockLogin(ctx)
			if err != nil {
				return notLoggedIn(ctx, err, nil)
			}
			defer unlock()
		}
		var err error
		looks := s.looks()
		if stored, err = s.Store.Load(ctx); err == nil && !run.anew && s.takeStored(run, stored.attached(), looks) {
			return nil
		}
	}
	previous := run.previous(stored)
	t, err := s.Login(ctx, TokenRequest{Previous: previous, Challenge: run.challenge, URL: run.at.url, RemoteAddr: run.at.remote, Account: run.account,
		Scopes: union(run.has(previous, stored), run.scopes), Claims: run.claims,
		ACRValues: run.acr, MaxAge: run.maxAge, HasMaxAge: run.hasMaxAge, wider: true})
	if err == nil && (t == nil || t.AccessToken != "" || t.RefreshToken == "") { // or else it has to be refreshed
		err = checkToken(t)
	}
	if err != nil {
		return notLoggedIn(ctx, err, previous)
	}
	k := s.newLogin(t)
	k.isLogin, k.useless = true, run.uselessLogins
	if by := run.by; by.host != "" && len(by.host) <= maxForcerHost {
		by = by.clone()
		k.by = &by
	}
	if k.scopes == nil {
		k.scopes = union(run.has(previous, stored), run.scopes)
	}
	k.obtainedWith(run.needs)
	run.fetched.Store(k) // now it cannot be lost any more
	if s.Store != nil {
		_ = s.save(context.WithoutCancel(ctx), k, false) // endLogin has it saved later
	}
	return nil
}

// endLogin puts the token of a login to use, and tells those who wait. It is called twice if the time ran out before: what a
// person has done is used nevertheless.
func (s *TokenSource) endLogin(run *refreshRun, k *knownToken, err error) {
	if k != nil {
		err = apart(panicked, func() error { s.replace(k); return nil })
		if k.unsaved.Load() != nil {
			s.saveLater(run.ctx, k, minRetryDelay)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loggingIn == run {
		s.loggingIn = nil
	}
	if run.over {
		return
	}
	switch {
	case k == nil && run.challenge == nil && errors.Is(err, ErrChallengeRequired):
		run.finish(nil, err)
	case k == nil && run.givenUp && !time.Now().Before(s.declineTo): // which is nobody's fault who has come since
		s.declined, s.declineTo = nil, time.Now().Add(s.refusalInterval())
		run.finish(nil, nil)
	case k == nil:
		if run.givenUp { // again
			err = errGivenUp
		}
		s.declined, s.declineTo = err, time.Now().Add(s.refusalInterval())
		run.finish(nil, err)
	case err == nil && !k.usable(time.Now()):
		run.finish(nil, nil) // it has to be refreshed
	case !isSubset(run.scopes, k.scopes):
		s.lacking = time.Now().Add(s.refusalInterval())
		run.finish(k.token, notGranted("whoever has logged in has not been granted what was asked for"))
	default:
		run.finish(k.token, err)
	}
}

// Set puts t to use, after a login: it replaces the current token and forgets all failures. If there is a Store, it is
// saved there first. An error says that this failed, or that t cannot be used. If it wraps [ErrNotSaved], only the saving failed:
// this process goes on with t nevertheless, and tries to save it again. It does not save t again over what has come of it, if it was
// saved in spite of the error, nor over a later login, nor if it was ended meanwhile: then it goes on with what is there. What is later, it
// knows unless the Store could not even be read.
func (s *TokenSource) Set(t *oauth2.Token) error {
	if t == nil || t.AccessToken == "" && t.RefreshToken == "" {
		return errors.New("authretry: TokenSource.Set needs a token")
	}
	if t.AccessToken != "" {
		if err := checkToken(t); err != nil {
			return err
		}
	}
	k := s.newLogin(t)
	var err error
	defer func() { // whatever OnToken does
		if err != nil {
			s.saveLater(newRefreshContext(context.Background(), s), k, minRetryDelay)
		}
	}()
	if s.Store != nil {
		ctx, cancel := context.WithTimeout(newRefreshContext(context.Background(), s), s.fetchTimeout())
		defer cancel()
		err = s.save(ctx, k, false)
	}
	s.replace(k)
	s.forgetDemands()
	if err != nil {
		return notSaved(err, k, nil)
	}
	return nil
}

// forgetDemands forgets what nobody could be given lately.
func (s *TokenSource) forgetDemands() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lacking, s.stepUps, s.declined, s.declineTo = time.Time{}, refreshCount{}, nil, time.Time{}
}

// replace puts k to use, whatever else is going on; nil: no token. If a refresh has found k in the Store meanwhile, and spent
// its refresh token, or a successor of k that another process has put there, what came of that stays; and so does a later login. It
// returns what was in use.
func (s *TokenSource) replace(k *knownToken) (before *knownToken) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	before = s.current.Load()
	if k != nil && (s.hasSpent(k.token) || before.isOf(k.login)) {
		return before
	}
	defer func() { // whatever OnToken does
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.isPast(k) {
			s.endUpTo(k)
		} else {
			s.putToUse(k)
		}
	}()
	if s.OnToken != nil && k != nil {
		s.OnToken(k.token)
	}
	return before
}

// endUpTo forgets the token in use rather than replace it by k, which is past, by what was seen in the Store: the next caller looks there.
// What is later than k and has yet to be saved stays in use, and so does what is of the login that was found, or is being refreshed. The
// caller holds publishing and mu.
func (s *TokenSource) endUpTo(k *knownToken) {
	current, last := s.current.Load(), s.used.last
	switch {
	case current == nil, last.Token != nil && current.isOf(last.Login), s.running != nil && s.running.base == current:
	case current.unsaved.Load() != nil && current.number > k.number:
	case !s.used.isOwn:
		s.endCurrent()
	}
}

// putToUse makes k the current token, and forgets all failures. The caller holds publishing and mu.
func (s *TokenSource) putToUse(k *knownToken) {
	s.current.Store(k)
	s.begun, s.ended = true, k == nil
	s.failure, s.forced = failure{}, nil
	if run := s.loggingIn; k != nil && run != nil && run.fetched.Load() != k && k.meets(&run.needs, time.Now()) {
		s.supersede(run) // there is no need of it any more, for all that is known
		s.loggingIn = nil
	}
	if k == nil {
		s.logouts++
		if s.used != nil {
			s.used.coming, s.used.instead = nil, nil
		}
	}
	if s.running != nil {
		s.supersede(s.running)
		s.running = nil
	}
}

// Logout ends the login: this process forgets its token, and the Store is told, so that the others notice when they next
// look there, which is when their token is due for a refresh or is refused; none of them saves it again. Then Revoke is called, if it
// is not nil, under a context that ends after FetchTimeout, or when ctx does. Until there is a new login, by Set, by Login or in the
// Store, errors wrap [ErrLoginRequired].
//
// An error says what failed. If the Store could not be told, the others go on, and so does this process when it finds the login
// there: call Logout again. If Revoke alone failed, the error wraps [ErrNotRevoked]: the login has ended here nevertheless, but the
// authorization server goes on accepting the token until it expires. Another Logout calls Revoke with it again, as long as this
// TokenSource is in memory; of several such tokens, with the last 8. A later process cannot, since a Logout leaves no token in the
// Store: so a command calls it again before it ends, or tells the user where to end the login.
func (s *TokenSource) Logout(ctx context.Context) error {
	if ctx.Value(refreshKey{s}) != nil && ctx.Value(confirmKey{}) != nil {
		return errOwnLogout
	}
	var failed []error
	var ended []*oauth2.Token
	if s.Store == nil {
		ended = s.endHere(nil, s.unusedInitial())
	} else {
		said, err := s.endInStore(ctx)
		if said != nil {
			s.noteLook(said.record)
			s.endedElsewhere(nil) // what was found there before it had been told; if it was not, the next caller finds it again
			ended = said.tokens
		} else {
			ended = s.endHere(nil, nil)
		}
		if err != nil {
			failed = append(failed, storeFailed(err, ended...))
		}
	}
	failed = append(failed, s.revoke(ctx, ended, len(failed) == 0))
	return errors.Join(failed...)
}

// An endedLogin is what a Logout has found in the Store.
type endedLogin struct {
	record *Record         // what the Store has said, or what it was told
	tokens []*oauth2.Token // those to be revoked
}

// endInStore has the Store end the login. It returns nil if the Store has not asked what to end.
func (s *TokenSource) endInStore(ctx context.Context) (*endedLogin, error) {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	var said atomic.Pointer[endedLogin]
	err := s.Store.Update(ctx, func(_ context.Context, current *Record, _ func(context.Context) error) (*Record, error) {
		login := current.login()
		if k := s.current.Load(); k != nil && current == nil {
			login = k.login
		}
		r := current
		if r == nil || !r.LoggedOut {
			if login == "" {
				login = rand.Text() // so that it is not taken for an earlier one
			}
			r = &Record{LoggedOut: true, Login: login}
		}
		var stored *oauth2.Token
		if current != nil {
			stored = current.Token
		}
		s.noteLook(r) // what was saved before, and is not in use yet, was ended, too
		// Under the lock, so that no refresh spends what somebody has logged in with since, only for its token to be forgotten.
		said.Store(&endedLogin{r, s.endHere(stored, s.unusedInitial())})
		return r, nil
	})
	return said.Load(), err
}

// endHere ends the login in this process, and returns the tokens to be revoked: the one that the Store has; what was in use, if that is
// newer or there is none; or else initial.
func (s *TokenSource) endHere(stored, initial *oauth2.Token) (ended []*oauth2.Token) {
	k := s.current.Load()
	isNewer := k != nil && k.unsaved.Swap(nil) != nil // nor is it saved after this
	before := s.replace(nil)
	if stored != nil {
		ended = append(ended, stored)
	}
	switch {
	case before != nil && (stored == nil || isNewer || before != k):
		ended = append(ended, before.token)
	case stored == nil && initial != nil:
		ended = append(ended, initial)
	}
	return ended
}

// unusedInitial returns Initial if it has not been in use, nor a login that came in its place.
func (s *TokenSource) unusedInitial() *oauth2.Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun {
		return nil
	}
	return s.Initial
}

// revoke calls Revoke with the tokens of a login, and with those of earlier ones with which that has failed. An error is ErrNotRevoked
// if the login has ended for everybody here.
func (s *TokenSource) revoke(ctx context.Context, ended []*oauth2.Token, hasEnded bool) error {
	if s.Revoke == nil {
		return nil
	}
	s.mu.Lock()
	if s.used != nil {
		ended, s.used.unrevoked = append(ended, s.used.unrevoked...), nil
	}
	s.mu.Unlock()
	ctx, cancel := s.limited(ctx) // of its own, whatever time the Store has taken
	defer cancel()
	var failed []error
	var unrevoked []*oauth2.Token
	for _, t := range eachOnce(ended) {
		err := apart(panicked, func() error { return s.Revoke(ctx, t) })
		if err == nil {
			continue
		}
		text, causes := "the token could not be revoked: "+describeCauseAt("revocation", err, t), []error{err}
		if hasEnded {
			text += "; the login has ended here, but the authorization server takes its tokens until another Logout of this process has revoked them, or they expire"
			causes = append(causes, ErrNotRevoked)
		}
		failed = append(failed, &tokenError{text: text, causes: causes})
		unrevoked = append(unrevoked, t)
	}
	s.noteUnrevoked(unrevoked...)
	return errors.Join(failed...)
}

// noteUnrevoked notes with which tokens, the last first, the next Logout has to call Revoke again.
func (s *TokenSource) noteUnrevoked(list ...*oauth2.Token) {
	if len(list) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.usedHere()
	all := eachOnce(append(list, u.unrevoked...))
	u.unrevoked = all[:min(len(all), maxUnrevoked)]
}

// eachOnce removes from a list what is in it before.
func eachOnce(list []*oauth2.Token) (once []*oauth2.Token) {
	for _, t := range list {
		if !slices.ContainsFunc(once, func(o *oauth2.Token) bool { return isSameToken(o, t) }) {
			once = append(once, t)
		}
	}
	return once
}

// limited returns a context for what a Logout asks: as for a refresh, but it ends with ctx, and for the same cause.
func (s *TokenSource) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	own, end := context.WithCancelCause(newRefreshContext(ctx, s))
	limited, cancel := context.WithTimeout(own, s.fetchTimeout())
	stop := context.AfterFunc(ctx, func() { end(context.Cause(ctx)) })
	return limited, func() { stop(); cancel(); end(nil) }
}
