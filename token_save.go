package authretry

import (
	"context"
	"crypto/rand"
	"time"

	"golang.org/x/oauth2"
)

// newLogin returns what is known of a token that somebody has just logged in for. If there is a Store, it has yet to be saved.
func (s *TokenSource) newLogin(t *oauth2.Token) *knownToken {
	k := s.newKnownToken(t)
	k.loggedIn = k.received.UnixMicro()
	s.unuse(t)
	if s.Store != nil {
		k.login = rand.Text()
		k.unsaved.Store(&unsaved{new: true})
	}
	return k
}

// save saves k, if the Store has nothing newer; if that is tried again, only as long as k is the token in use.
func (s *TokenSource) save(ctx context.Context, k *knownToken, again bool) error {
	if u := k.unsaved.Load(); u != nil && u.new {
		// What is there now is what k replaces. If the lock cannot be had, what comes there meanwhile is later than k.
		if stored, err := s.Store.Load(ctx); err == nil {
			defer func() { k.unsaved.CompareAndSwap(u, &unsaved{has: stored}) }()
		}
	}
	err := s.Store.Update(ctx, func(_ context.Context, stored *Record, _ func(context.Context) error) (*Record, error) {
		s.noteLook(stored)
		u, past := k.unsaved.Load(), k
		switch {
		case u == nil || again && s.current.Load() != k: // it has been saved or replaced
		case s.hasSpent(k.token):
			past = nil // what has come of it is about to take its place
		case s.cameAfter(k, stored) || k.isNewerThan(stored):
			k.unsaved.CompareAndSwap(u, &unsaved{has: stored})
			if u.new {
				s.noteOwn(k)
			}
			return k.record(), nil
		case stored != nil && stored.Token != nil && stored.Token.AccessToken != k.token.AccessToken: // nil: k was saved meanwhile
			s.replacedElsewhere(k)
		}
		if stored != nil && stored.LoggedOut {
			s.endedElsewhere(past)
		}
		return nil, nil
	})
	if err == nil {
		k.unsaved.Store(nil)
	}
	return err
}

// replacedElsewhere notes that the Store has something newer than k: the next caller finds it there. It is called under the Store's
// lock, so that no refresh spends meanwhile what it finds there.
func (s *TokenSource) replacedElsewhere(k *knownToken) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.Load() == k {
		s.endCurrent()
	}
}

// endedElsewhere notes that the Store has said that the login was ended. Of tokens that have yet to be saved, that concerns k only. It
// is called under the Store's lock, too, but for a Logout, which has told the Store itself.
func (s *TokenSource) endedElsewhere(k *knownToken) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if current := s.current.Load(); current != nil && (current == k || current.unsaved.Load() == nil) {
		s.endCurrent()
	}
}

// endCurrent forgets the token in use. The caller holds mu.
func (s *TokenSource) endCurrent() {
	s.current.Store(nil)
	s.begun, s.ended = true, true
}

// saveLater saves k after a delay, and again until that succeeds or there is another token.
func (s *TokenSource) saveLater(ctx *refreshContext, k *knownToken, delay time.Duration) {
	time.AfterFunc(s.jittered(delay), func() {
		if s.current.Load() != k || k.unsaved.Load() == nil {
			return
		}
		again := true
		defer func() {
			if again { // whatever has become of the listener
				s.saveLater(ctx, k, min(2*delay, maxRetryDelay))
			}
		}()
		err := s.saveNow(ctx, k)
		if err == nil {
			again = false
			return
		}
		s.reportTo(ctx, ctx.caller(), Event{Kind: EventNotSaved, Err: err})
	})
}

// Wait waits for the refreshes that are under way, those in the background too, and for a login whose token is being saved, but for no
// person. Then it has a token saved that the Store has not got yet.
// A program calls it before it ends: a refresh token that has been sent may be good for nothing any more, and what has come of it would
// be lost.
//
// It takes FetchTimeout at most for each of both, unless Fetch or Store do not heed their context. If the token could not be saved, the
// error wraps [ErrNotSaved]; and context.Cause(ctx) if ctx ended first. That a refresh has failed is no error: whoever needs its token
// hears of that. It ends nothing. Fetch, Login, Store and Revoke must not call it, since it would wait for them.
func (s *TokenSource) Wait(ctx context.Context) error {
	if ctx.Value(refreshKey{s}) != nil {
		return errRecursion
	}
	for {
		idle := s.whenIdle()
		if idle == nil {
			break
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return waitError(ctx, "a refresh")
		}
	}
	k := s.current.Load()
	if k == nil || k.unsaved.Load() == nil {
		return nil
	}
	return s.saveNow(ctx, k)
}

// saveNow saves k, unless there is another token by now. The error wraps ErrNotSaved, whatever the Store may have done.
func (s *TokenSource) saveNow(ctx context.Context, k *knownToken) error {
	limited, cancel := s.limited(ctx)
	defer cancel()
	err := apart(panicked, func() error { return s.save(limited, k, true) })
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return notSaved(err, k, nil)
}

// whenIdle returns what is closed when no refresh is under way, or a login for which somebody has done their part; nil if there is none.
func (s *TokenSource) whenIdle() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch run := s.loggingIn; {
	case s.goroutines > 0 && s.idle == nil:
		s.idle = make(chan struct{})
	case s.goroutines == 0 && run != nil && !run.over && run.fetched.Load() != nil:
		return run.done
	}
	return s.idle
}

// isOld reports whether stored is what our token was to replace, had it been possible to save it; or was before, and the Store
// has forgotten what came after. Once our token has been replaced itself, it is to replace nothing.
func (run *refreshRun) isOld(stored *Record) bool {
	if stored != nil && run.ctx.source.hasSpent(stored.Token) {
		return true
	}
	if run.base == nil || stored == nil || run.ctx.source.current.Load() != run.base {
		return false
	}
	return run.base.isNewerThan(stored)
}

// isNewerThan reports whether k has yet to take the place of what the Store has. A Store that said that it did not save k may
// have done so nevertheless, and others may have gone on from there: so once that has been tried, k only takes the place of
// what it was to replace then, and of what has become of that, if k is of a new login. Whatever else is there now is newer: a
// successor of k, another login, or that the login of k was ended.
func (k *knownToken) isNewerThan(stored *Record) bool {
	u := k.unsaved.Load()
	switch {
	case u == nil:
		return false
	case u.new || stored == nil || stored.isSame(u.has):
		return true
	}
	replaced := u.has.login()
	return stored.Login == replaced && k.login != replaced && !(stored.LoggedOut && replaced == "")
}
