package authretry

import (
	"slices"

	"golang.org/x/oauth2"
)

// usedGrants are the refresh tokens that are known not to be worth sending again, the last ones, and a login that was ended.
type usedGrants struct {
	spent   []string       // the token endpoint has given a successor
	coming  *knownToken    // what it has given for the last one, if that is not in use yet
	newest  string         // the login that the Store has got last from here, or was to get; or noLogin
	seen    *Record        // what a refresh has found in the Store since; nil: nothing
	ended   string         // the login of which the Store has said last that it was ended
	refused []refusedGrant // it has refused them for good
}

// A refusedGrant is one that the token endpoint has refused for good.
type refusedGrant struct {
	err    *tokenError
	access string // the access token that it came with
}

const (
	maxSpent   = 16
	maxRefused = 4 // each with the answer of the token endpoint

	noLogin = "-" // no login is named so
)

// keptLast appends to a list of at most a given length, whose first one makes room.
func keptLast[T any](list []T, last T, most int) []T {
	return append(list[max(0, len(list)-most+1):], last)
}

// usedHere returns the refresh tokens that are known not to be worth sending again. The caller holds mu.
func (s *TokenSource) usedHere() *usedGrants {
	if s.used == nil {
		s.used = new(usedGrants)
	}
	return s.used
}

// spend notes that the token endpoint has given k for a refresh token, which is not to be sent again.
func (s *TokenSource) spend(k *knownToken) {
	if k.from == "" || k.token.RefreshToken == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.usedHere()
	u.coming, u.newest, u.seen = k, k.login, nil
	if u.ended == k.login {
		u.ended = "" // the Store has forgotten that
	}
	if !slices.Contains(u.spent, k.from) {
		u.spent = keptLast(u.spent, k.from, maxSpent)
	}
}

// newerFor returns what the token endpoint has given for a refresh token that a run is about to send, if that is not in use
// yet. It fails if the token that the run is to replace is not in use any more.
func (s *TokenSource) newerFor(run *refreshRun, grant string) (*knownToken, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current.Load() != run.base {
		return nil, errReplaced
	}
	if s.used == nil || s.used.coming == nil || s.used.coming.from != grant && !s.used.coming.succeeds(run.base) {
		return nil, nil
	}
	return s.used.coming, nil
}

// hasSpent reports whether the refresh token of a Record has been spent here.
func (s *TokenSource) hasSpent(stored *Record) bool {
	if stored == nil || grantOf(stored.Token) == "" {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used != nil && slices.Contains(s.used.spent, stored.Token.RefreshToken)
}

// cameAfter reports whether k was obtained for the refresh token of a Record, or for one that was spent here later.
func (s *TokenSource) cameAfter(k *knownToken, stored *Record) bool {
	if stored == nil || k.from == "" || grantOf(stored.Token) == "" {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used == nil {
		return false
	}
	i := slices.Index(s.used.spent, stored.Token.RefreshToken)
	return i >= 0 && slices.Index(s.used.spent, k.from) >= i
}

// refuse notes which refresh token the token endpoint has refused for good, if that is what e says: it is not to be sent again,
// whatever comes into use meanwhile. What is said of it in answer to a request for more concerns nobody else.
func (s *TokenSource) refuse(r *TokenRequest, e *tokenError) {
	more := r.wider || r.Claims != "" || len(r.ACRValues) > 0 || r.HasMaxAge
	if e.grant == "" || e.client || more || !e.isPermanent() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.usedHere()
	u.refused = keptLast(u.refused, refusedGrant{e, r.Previous.AccessToken}, maxRefused)
}

// refusalOf returns the error with which a refresh token was refused for good, nil if it was not.
func (u *usedGrants) refusalOf(grant string) *tokenError {
	if u == nil || grant == "" {
		return nil
	}
	for _, r := range u.refused {
		if r.err.grant == grant {
			return r.err
		}
	}
	return nil
}

// unuse forgets what is known of the refresh token of t, with which somebody wants to begin anew.
func (s *TokenSource) unuse(t *oauth2.Token) {
	grant := grantOf(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used != nil {
		s.used.spent = slices.DeleteFunc(s.used.spent, func(spent string) bool { return spent == grant })
		s.used.refused = slices.DeleteFunc(s.used.refused, func(r refusedGrant) bool { return r.err.grant == grant })
	}
}

// noteFound notes that the Store has a good token: if it has the refresh token of one that was refused, somebody else was luckier
// with that; and if its login was ended, the Store has forgotten that since.
func (s *TokenSource) noteFound(stored *Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used == nil {
		return
	}
	t := stored.Token
	s.used.refused = slices.DeleteFunc(s.used.refused, func(r refusedGrant) bool { return r.err.grant == grantOf(t) && r.access != t.AccessToken })
	if s.used.ended == stored.Login {
		s.used.ended = ""
	}
}

// noteEnd notes that the Store says that a login was ended.
func (s *TokenSource) noteEnd(login string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.usedHere()
	u.ended, u.newest, u.seen = login, noLogin, nil
	s.ends++
}

// noteNewest notes that the login of k is about to be saved.
func (s *TokenSource) noteNewest(k *knownToken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.usedHere()
	u.newest, u.seen = k.login, nil
}

// noteSeen notes what a refresh has found in the Store, under its lock. What comes of it is later than any end that was seen before.
func (s *TokenSource) noteSeen(run *refreshRun, stored *Record) {
	if stored != nil && stored.LoggedOut {
		s.noteEnd(stored.Login)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used != nil && stored != nil && stored.Token != nil {
		s.used.seen = stored
	}
	run.ends = s.ends
}

// isPast reports whether the Store has said of the login of k that it was ended, or has, since it got k, got a successor of k or a
// token of a later login, from here or as a refresh has found out.
func (s *TokenSource) isPast(k *knownToken) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used == nil || k == nil || k.login == "" {
		return false
	}
	u, seen := k.unsaved.Load(), s.used.seen
	switch {
	case k.isOf(s.used.ended):
		return true
	case u != nil && u.new:
		return false
	case seen != nil && !isSameToken(seen.Token, k.token) && !k.isNewerThan(seen):
		return true
	case u != nil && s.used.newest == noLogin: // another one was ended
		return false
	}
	return !k.isOf(s.used.newest)
}
