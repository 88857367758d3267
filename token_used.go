package authretry

import (
	"slices"

	"golang.org/x/oauth2"
)

// usedGrants are the refresh tokens that are known not to be worth sending again, the last ones, and what is known of the Store.
type usedGrants struct {
	spent   []string       // the token endpoint has given a successor
	coming  *knownToken    // what it has given for the last one, if that is not in use yet
	instead *knownToken    // of what coming is to take the place; nil: of nothing
	refused []refusedGrant // it has refused them for good

	last  *Record // what the Store had when it was looked at last, or what it was to get since; nil: not looked at, or it had nothing
	isOwn bool    // it was to get that
	looks uint32  // how often last has been set
	ended string  // the login of which the Store has said last that it was ended

	unrevoked []*oauth2.Token // with which Revoke has failed, the last first
}

// A refusedGrant is one that the token endpoint has refused for good.
type refusedGrant struct {
	err    *tokenError
	access string // the access token that it came with
}

const (
	maxSpent     = 16
	maxRefused   = 4 // each with the answer of the token endpoint
	maxUnrevoked = 8
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
	u.coming, u.instead = k, nil
	u.spent = slices.DeleteFunc(u.spent, func(spent string) bool { return spent == k.token.RefreshToken }) // it has been given anew
	if !slices.Contains(u.spent, k.from) {
		u.spent = keptLast(u.spent, k.from, maxSpent)
	}
}

// spendFor is spend, for a run that is to replace the token in use.
func (s *TokenSource) spendFor(run *refreshRun, k *knownToken) {
	s.spend(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used != nil && s.used.coming == k {
		s.used.instead = run.base
	}
}

// newerFor returns what the token endpoint has given for the refresh token of previous, which a run is about to send, or for a later
// one, if that is not in use yet. It fails if the token that the run is to replace is not in use any more.
func (s *TokenSource) newerFor(run *refreshRun, previous *oauth2.Token) (*knownToken, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newerForLocked(run, previous)
}

// newerForLocked is newerFor. The caller holds mu.
func (s *TokenSource) newerForLocked(run *refreshRun, previous *oauth2.Token) (*knownToken, error) {
	if s.current.Load() != run.base {
		return nil, errReplaced
	}
	if s.used == nil || s.used.coming == nil {
		return nil, nil
	}
	coming := s.used.coming
	isInstead := previous == run.baseToken() && s.used.instead == run.base // or else it may be of an earlier login, of another user
	if isInstead || coming.from == grantOf(previous) || coming.succeeds(run.base) {
		return coming, nil
	}
	return nil, nil // the Store has something later
}

// hasSpent reports whether the refresh token of t has been spent here.
func (s *TokenSource) hasSpent(t *oauth2.Token) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used.hasSpent(grantOf(t))
}

// hasSpent is TokenSource.hasSpent, for a refresh token. The caller holds mu.
func (u *usedGrants) hasSpent(grant string) bool {
	return u != nil && grant != "" && slices.Contains(u.spent, grant)
}

// cameAfter reports whether k was obtained for the refresh token of a Record, or for one that was spent here later.
func (s *TokenSource) cameAfter(k *knownToken, stored *Record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used.cameAfter(k, stored)
}

// cameAfter is TokenSource.cameAfter. The caller holds mu.
func (u *usedGrants) cameAfter(k *knownToken, stored *Record) bool {
	if u == nil || stored == nil || k.from == "" || grantOf(stored.Token) == "" {
		return false
	}
	i := slices.Index(u.spent, stored.Token.RefreshToken)
	return i >= 0 && slices.Index(u.spent, k.from) >= i
}

// refuse notes which refresh token the token endpoint has refused for good, if that is what e says: it is not to be sent again,
// whatever comes into use meanwhile. What is said of it in answer to a request for more concerns nobody else.
func (s *TokenSource) refuse(r *TokenRequest, e *tokenError) {
	more := r.wider || r.Claims != "" || len(r.ACRValues) > 0 || r.HasMaxAge
	if e.grant == "" || e.client || e.person || more || !e.isPermanent() {
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

// looks counts what was seen in the Store or was to go there. It is asked before Load, for what has changed by the time that it returns.
func (s *TokenSource) looks() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used == nil {
		return 0
	}
	return s.used.looks
}

// noteLook notes what was seen in the Store under its lock, or what it was told in a Logout, and returns how many looks there were.
func (s *TokenSource) noteLook(stored *Record) uint32 {
	if stored == nil {
		return s.looks()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usedHere().note(stored, false)
}

// noteEnd notes that Load has said that a login was ended, unless something else is known since the looks that there were before it.
func (s *TokenSource) noteEnd(stored *Record, looks uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.usedHere()
	if u.looks != looks {
		return false
	}
	u.note(stored, false)
	return true
}

// noteOwn notes that the Store is about to get k, and is called under its lock.
func (s *TokenSource) noteOwn(k *knownToken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k.looks = s.usedHere().note(k.record(), true)
}

func (u *usedGrants) note(r *Record, own bool) uint32 {
	u.last, u.isOwn = r, own
	u.looks++
	if r.LoggedOut {
		u.ended = r.Login
	} else if u.ended == r.Login {
		u.ended = "" // the Store has forgotten that
	}
	return u.looks
}

// isPast reports whether something later than k was seen in the Store, or was to go there: a successor, another login, or that the
// login of k was ended. What was saved can be found there again, if it is not. The caller holds mu.
func (s *TokenSource) isPast(k *knownToken) bool {
	if k == nil || s.used == nil || s.used.last == nil {
		return false
	}
	last := s.used.last
	switch u := k.unsaved.Load(); {
	case k.isOf(s.used.ended):
		return true
	case last.Token != nil && isSameToken(last.Token, k.token), s.used.cameAfter(k, last):
		return false
	case u == nil:
		return s.used.looks != k.looks
	}
	return !k.isNewerThan(last)
}

// isOvertaken reports whether a run comes too late with k: Set or Logout was faster, or a later run. What the Store has not got would be
// lost: it is used, unless something is in use that is later.
func (s *TokenSource) isOvertaken(run *refreshRun, k *knownToken) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch current := s.current.Load(); {
	case s.logouts != run.logouts:
		return true
	case current == run.base, k.succeeds(current):
		return false
	case k.unsaved.Load() == nil:
		return true
	default: // if nothing is in use, settle knows whether k is past
		return current != nil && (current.unsaved.Load() != nil || current.looks >= k.looks)
	}
}

// hasLoggedOutSince reports whether there was a Logout since a run began: what comes of it is not used any more, even if there was
// no token before it, and there is none now.
func (s *TokenSource) hasLoggedOutSince(run *refreshRun) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logouts != run.logouts
}
