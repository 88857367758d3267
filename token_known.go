package authretry

import (
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// A knownToken is a token in use, with what is known of it. It is not modified but for its atomic fields.
type knownToken struct {
	token    *oauth2.Token
	number   uint64        // in the order in which tokens have become known; clocks show the same twice
	received time.Time     // with a monotonic reading
	lifetime time.Duration // from received; 0 if it had expired by then
	expiry   int64         // by the wall clock, in Unix microseconds

	scopes []string // what it is good for, as far as that is known; sorted
	asked  *needs   // what was asked for when it was obtained, and before, besides scopes; nil if nothing was

	early     time.Duration // the age from which on it is refreshed in the background
	successor bool          // Fetch got it because its predecessor was refused
	isLogin   bool          // Login has returned it
	isInitial bool          // it is TokenSource.Initial, on its way into the Store
	useless   uint8         // how many logins before this one, in a row, were of no use to who had refused a token
	looks     uint32        // how often the Store had been looked at when it was found there, or was to go there; guarded by TokenSource.mu
	by        *origin       // by whom its predecessor was refused, or who had asked for one, as far as that is known
	from      string        // the refresh token that was spent for it; "" if none was, as far as that is known
	login     string        // see Record
	loggedIn  int64         // when somebody has logged in for it, in Unix microseconds; 0 if that is not known

	refreshAt atomic.Int64            // the age, a Duration, at which the next caller starts that refresh
	accepted  atomic.Bool             // a server has accepted it
	served    atomic.Bool             // so has the one in by
	wallSeen  atomic.Uint32           // in which wallInterval of its age the wall clock was looked at last, the first being 1; 0: in none
	resting   atomic.Bool             // there is nothing to do about it, and no clock is looked at: for a moment, or for ever if it does not expire
	unsaved   atomic.Pointer[unsaved] // nil: the Store has it, or there is no Store

	refusers atomic.Pointer[[]origin] // who has refused it; nil: nobody of whom that is known
}

// maxRefusers is how many origins are remembered that have refused a token; there are seldom two.
const maxRefusers = 64

// refusedBy notes that an origin has refused the token. The caller holds TokenSource.mu.
func (k *knownToken) refusedBy(o origin) {
	if o.host == "" || len(o.host) > maxForcerHost || k.isRefusedBy(o) {
		return
	}
	var list []origin
	if known := k.refusers.Load(); known != nil {
		list = slices.Clip(*known)
	}
	if len(list) < maxRefusers {
		list = append(list, o.clone())
		k.refusers.Store(&list)
	}
}

// unrefuse forgets who has refused the token: it is not replaced, so that they get it again.
func (k *knownToken) unrefuse() {
	if k != nil {
		k.refusers.Store(nil)
	}
}

func (k *knownToken) isRefusedBy(o origin) bool {
	known := k.refusers.Load()
	return known != nil && slices.Contains(*known, o)
}

// unsaved is what is known of the Store while it has not got a token yet.
type unsaved struct {
	has *Record // what it had instead when it was tried to save the token; nil: nothing
	new bool    // that has not been tried yet: it is a new login, which replaces whatever there is
}

// record returns what is saved of the token.
func (k *knownToken) record() *Record {
	r := RecordOf(k.token)
	r.Scopes, r.Login = k.scopes, k.login
	return &r
}

// isOf reports whether k is of a login, as far as that is known (see Record).
func (k *knownToken) isOf(login string) bool { return k != nil && login != "" && k.login == login }

// succeeds reports whether k came of another token: directly, or later and of the same login.
func (k *knownToken) succeeds(other *knownToken) bool {
	switch {
	case other == nil:
		return false
	case k.from != "" && k.from == grantOf(other.token):
		return true
	}
	return other.isOf(k.login) && k.token.AccessToken != other.token.AccessToken && k.number > other.number
}

// needs returns what was asked for when the token was obtained, and before, besides scopes.
func (k *knownToken) needs() needs {
	if k.asked == nil {
		return needs{}
	}
	return *k.asked
}

// obtainedWith notes what was asked for when the token was obtained, and before.
func (k *knownToken) obtainedWith(n needs) {
	n.scopes = nil
	k.asked = nil
	if !n.none() {
		kept := n
		k.asked = &kept
	}
}

// meets reports whether the token is good for what is needed, for all that is known.
func (k *knownToken) meets(n *needs, now time.Time) bool {
	if n.none() {
		return true
	}
	has := k.needs()
	has.scopes = k.scopes
	return n.within(&has) && (!n.hasMaxAge || k.loggedIn != 0 && now.UnixMicro()-k.loggedIn <= n.maxAge.Microseconds())
}

// knownScopes returns what the token is good for, as far as that is known. k may be nil.
func (k *knownToken) knownScopes() []string {
	if k == nil {
		return nil
	}
	return k.scopes
}

// grantedScopes returns what the token endpoint says that a token is good for; nil if it does not (RFC 6749 §5.1).
func grantedScopes(t *oauth2.Token) []string {
	scope, _ := t.Extra("scope").(string)
	var scopes []string
	for s := range strings.FieldsSeq(scope) {
		if len(scopes) == maxGranted {
			break
		}
		scopes = append(scopes, s)
	}
	return union(nil, scopes)
}

var lastKnown atomic.Uint64 // the number of the last token of all

// maxGranted is how many scopes of one token are known.
const maxGranted = 1 << 12

// newKnownToken returns what is known of t, which has just been obtained. It has a copy of t, which is its owner's.
func (s *TokenSource) newKnownToken(t *oauth2.Token) *knownToken {
	own := *t
	k := &knownToken{token: &own, number: lastKnown.Add(1), received: time.Now(), lifetime: forever, expiry: math.MaxInt64, scopes: grantedScopes(t)}
	if !t.Expiry.IsZero() {
		// By both clocks: the monotonic one does not count the time that the machine sleeps, and the wall clock may be set back.
		// What is so far off that a Duration cannot hold it is as good as never; nor may microseconds hold it then.
		if k.lifetime = max(0, t.Expiry.Sub(k.received)); k.lifetime < forever {
			k.expiry = t.Expiry.UnixMicro()
		}
	}
	if t.AccessToken == "" {
		k.lifetime = 0
	}
	k.resting.Store(k.lifetime == forever)
	k.early = k.lifetime - s.leadTime(k.lifetime)
	k.refreshAt.Store(int64(k.early))
	return k
}

// wallInterval is how often the wall clock is looked at, and while a token is in much use, the monotonic one, too: that is a tenth of a
// request's cost. Neither is looked at while the process is stopped or the machine sleeps, so for as long after it wakes, a token that has
// expired meanwhile may be taken to be good.
const wallInterval = 50 * time.Millisecond

// settled reports whether there is nothing to do about the token at an age.
func (k *knownToken) settled(age time.Duration) bool {
	due := time.Duration(k.refreshAt.Load())
	if age >= due {
		return false
	}
	interval := uint32(age/wallInterval) + 1
	if k.wallSeen.Load() != interval {
		return k.lasts(interval)
	}
	// It is in much use. The rest ends before something is due, not just then: who waits for that moment must find it over.
	if rest := min(time.Duration(interval)*wallInterval, due-time.Millisecond) - age; rest > 0 && k.resting.CompareAndSwap(false, true) {
		time.AfterFunc(rest, func() { k.resting.Store(false) })
	}
	return true
}

// lasts reports whether the token has not expired by the wall clock, in an interval of its age.
func (k *knownToken) lasts(interval uint32) bool {
	if time.Now().UnixMicro() >= k.expiry {
		return false
	}
	k.wallSeen.Store(interval)
	return true
}

// usable reports whether the token has not expired. A tolerance, as in oauth2.Token.Valid, would make tokens
// useless that live for seconds; RefreshBefore sees to it that a token is replaced in time.
func (k *knownToken) usable(now time.Time) bool {
	return k != nil && now.Sub(k.received) < k.lifetime && now.UnixMicro() < k.expiry
}

// retryAfter puts the refresh in the background off by a delay, at most to the end of the token's life.
func (k *knownToken) retryAfter(now time.Time, delay time.Duration) {
	age := now.Sub(k.received)
	delay = min(delay, k.lifetime-age)
	k.refreshAt.Store(int64(max(k.early, age+delay)))
}

// leadTime returns how long before the end of a token's lifetime it is to be refreshed in the background.
func (s *TokenSource) leadTime(lifetime time.Duration) time.Duration {
	if lifetime == forever || s.RefreshBefore < 0 || s.Fetch == nil && s.Store == nil {
		return 0
	}
	if s.RefreshBefore > 0 {
		return min(s.RefreshBefore, lifetime/2)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.share == 0 {
		s.share = 0.9 + 0.2*s.chance()
	}
	return time.Duration(s.share * min(earlyShare*float64(lifetime), float64(maxEarly)))
}

// checkToken returns an error if t cannot be sent in a header (RFC 6750 §2.1). Visible ASCII passes, where the RFC allows
// less, because some issuers need it. Which type of token can be sent is for the Scheme to judge.
func checkToken(t *oauth2.Token) error {
	switch {
	case t == nil:
		return &tokenError{text: "Fetch, Login or Source has returned neither a token nor an error"}
	case t.AccessToken == "":
		return &tokenError{text: "Fetch, Login or Source has returned a token that has no access token"}
	}
	for i := range len(t.AccessToken) {
		if c := t.AccessToken[i]; c <= ' ' || c > '~' {
			return &tokenError{text: "the access token has a character that cannot be sent (RFC 6750 §2.1); it is the token alone, without the word Bearer and without a line break"}
		}
	}
	return nil
}

// isSameToken reports whether two tokens are one, as it was obtained.
func isSameToken(a, b *oauth2.Token) bool {
	return a.AccessToken == b.AccessToken && a.RefreshToken == b.RefreshToken
}
