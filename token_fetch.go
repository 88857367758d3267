package authretry

import (
	"context"
	"time"

	"golang.org/x/oauth2"
)

// fetch calls Fetch for a successor of previous.
func (s *TokenSource) fetch(ctx context.Context, run *refreshRun, previous *oauth2.Token, stored *Record) error {
	if s.hasLoggedOutSince(run) {
		return errForgotten
	}
	if err := s.refusedForGood(run, previous); err != nil {
		return err
	}
	if k, err := s.newerFor(run, previous); err != nil {
		return err
	} else if k != nil {
		if k.lifetime == 0 || run.isRefused(k.token) || !k.meets(&run.needs, time.Now()) {
			return errComing
		}
		run.isOthers = true
		run.fetched.Store(k)
		return nil
	}
	switch {
	case run.noFetch:
		return errRefusedWhileFresh
	case s.Fetch == nil:
		return run.noFetchError()
	case s.hasSpent(previous):
		return errSpent
	}
	if grantOf(previous) != "" {
		if err := Confirm(ctx); err != nil {
			return storeFailed(err, previous)
		}
	}
	if err := s.begin(run, previous); err == errComing {
		return s.fetch(ctx, run, previous, stored) // it has come meanwhile
	} else if err != nil {
		return err
	}
	defer s.finish(previous) // when it is known what has come of it
	if run.forced {          // and nothing new in the Store: what other processes refresh does not count
		s.countForced(run.by)
	}
	has := run.has(previous, stored)
	r := TokenRequest{Previous: previous, Challenge: run.challenge, URL: run.at.url, RemoteAddr: run.at.remote, Account: run.account, Background: run.background,
		Scopes: union(has, run.scopes), Claims: run.claims, ACRValues: run.acr, MaxAge: run.maxAge, HasMaxAge: run.hasMaxAge,
		wider: !isSubset(run.scopes, has)}
	t, err := s.Fetch(ctx, r)
	rotated := grantOf(t) != "" && grantOf(t) != grantOf(previous)
	useless := err
	if err != nil {
		e := failed(run.ctx.explain(err), previous)
		if !rotated {
			s.refuse(&r, e)
		} else if e.isPermanent() { // but there is something to go on with
			e = &tokenError{text: e.text, grant: grantOf(t), retryAfter: e.retryAfter}
		}
		useless = e
	} else if useless = checkToken(t); useless == nil && run.isSame(t) {
		useless = errSameToken
	}
	switch {
	case useless != nil && !rotated:
		return useless
	case useless != nil && useless != error(errSameToken): // the refresh token before is spent, so the new one takes its place
		t = withRefreshToken(previous, t.RefreshToken)
	}
	k := s.newKnownToken(t)
	switch {
	case rotated:
		k.from = grantOf(previous)
	case k.token.RefreshToken == "" && isOfSameClient(t, previous): // as it was (RFC 6749 §6)
		k.token.RefreshToken = grantOf(previous)
	}
	if run.forced && run.refused != "" && useless == nil {
		k.successor, k.by = true, s.obtainedFor(run.by)
	}
	if k.scopes == nil { // as asked for (RFC 6749 §5.1)
		k.scopes = r.Scopes
		if useless != nil {
			k.scopes = has
		}
	}
	k.login = run.login(previous, stored)
	if b := run.base; b != nil && (previous == b.token || b.isOf(k.login)) {
		k.asked, k.loggedIn = b.asked, b.loggedIn
	}
	if useless == nil {
		k.obtainedWith(k.needs().and(run.needs))
	}
	s.spendFor(run, k)
	run.isOwn, run.useless = true, useless != nil
	run.lacks = !run.useless && !isSubset(run.scopes, k.scopes)
	s.obtained(run, k, stored)
	if useless != nil {
		return useless
	}
	if run.lacks {
		return notGranted("the authorization server has granted less than was asked for; the user or the client may not have that scope")
	}
	if k.lifetime == 0 {
		return &tokenError{text: "the token endpoint issued a token that has expired already; is the clock right?"}
	}
	return nil
}

// refusedForGood returns why a refresh of previous cannot succeed, as it was known when the run began, or has become known
// since.
func (s *TokenSource) refusedForGood(run *refreshRun, previous *oauth2.Token) error {
	now := time.Now()
	if err := run.failure.finalFor(previous, now); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.used.refusalOf(grantOf(previous)); e != nil {
		return e
	}
	return s.failure.finalFor(previous, now)
}

// begin notes that Fetch is about to be called with the refresh token of previous, until finish is called; unless an earlier call that
// does not heed its context is still at it, or something has come of one: then it fails.
func (s *TokenSource) begin(run *refreshRun, previous *oauth2.Token) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	grant := grantOf(previous)
	switch k, err := s.newerForLocked(run, previous); {
	case s.fetching[grant]:
		return errStillFetching
	case err != nil:
		return err
	case k != nil, s.used.hasSpent(grant):
		return errComing
	}
	if s.fetching == nil {
		s.fetching = make(map[string]bool, 1)
	}
	s.fetching[grant] = true
	return nil
}

// finish says that what has come of a call of Fetch is known.
func (s *TokenSource) finish(previous *oauth2.Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.fetching, grantOf(previous)); len(s.fetching) == 0 {
		s.fetching = nil
	}
}

// withRefreshToken returns a copy of t, which may be nil, that has another refresh token.
func withRefreshToken(t *oauth2.Token, refreshToken string) *oauth2.Token {
	own := oauth2.Token{}
	if t != nil {
		own = *t
	}
	own.RefreshToken = refreshToken
	return &own
}

// isOfSameClient reports whether two tokens are of one client of one authorization server, for all that is known.
func isOfSameClient(a, b *oauth2.Token) bool {
	if a == nil || b == nil {
		return false
	}
	ra, rb := RecordOf(a), RecordOf(b)
	return ra.Issuer == rb.Issuer && ra.TokenURL == rb.TokenURL && ra.ClientID == rb.ClientID
}

// isSame reports whether t, which Fetch has returned, is the token that it was to replace.
func (run *refreshRun) isSame(t *oauth2.Token) bool {
	b := run.base
	return b != nil && t.AccessToken == b.token.AccessToken && (run.refused != "" || t.Expiry.Equal(b.token.Expiry))
}
