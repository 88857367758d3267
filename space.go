package authretry

import (
	"cmp"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
)

// Bounds of what a Transport remembers, so that no server, no walk over many of them, and no number of users can fill
// the memory. The sizes are estimates.
const (
	maxRemembered = 64 << 20 // bytes, of all accounts and origins together
	maxSpaces     = 32       // protection spaces of one origin
	maxScopes     = 1 << 10  // scopes of one space
	maxScope      = 1 << 10  // bytes of a scope; longer paths are challenged each time
	maxHost       = 1 << 10  // bytes of an origin's host; nothing is remembered of one that is longer
	maxRealm      = 1 << 10  // bytes of a realm; spaces with a longer one are challenged each time
	maxIdle       = 1 << 14  // idle exclusive sessions of one space; never more than its requests were in flight at once

	sizeOfOrigin  = 180      // an originSpaces and its place in the map
	sizeOfSpace   = 240      // a protectionSpace with two scopes, but not its texts
	sizeOfScope   = 30       // one more
	sizeOfSession = 500      // one that does not say its size
	sizeOfCarrier = 64 << 10 // a connection with its buffers
)

// spaces remembers the Sessions that protection spaces (RFC 9110 §11.5) have accepted, so that the next request
// carries credentials at once. The zero value is ready for use.
type spaces struct {
	count   atomic.Int32      // of known, so that nothing is locked while there are none
	clock   atomic.Int64      // counts uses, to find what has not been used for long
	size    atomic.Int64      // of all that is remembered, in bytes
	changes [32]atomic.Uint32 // how often accounts were forgotten, by a hash of them
	limit   int64             // of size, for tests; 0: maxRemembered

	mu    sync.RWMutex // guards what follows, not what is in the originSpaces
	known map[spacesKey]*originSpaces
	first map[string]*originSpaces // of each account that is not "", with the next ones in their field next
}

// changesOf counts how often an account, or another one by chance, was forgotten.
func (s *spaces) changesOf(account string) *atomic.Uint32 {
	var h uint32
	for i := range len(account) {
		h = h*31 + uint32(account[i])
	}
	return &s.changes[h%uint32(len(s.changes))]
}

// A spacesKey says for whom, and of whom, something is remembered.
type spacesKey struct {
	account string
	origin
}

// originSpaces are the protection spaces of one origin, for one account, the latest last.
type originSpaces struct {
	all     *spaces
	key     spacesKey
	next    *originSpaces // of the same account; guarded by spaces.mu
	lastUse atomic.Int64

	mu     sync.Mutex // guards everything below, for no longer than a look
	spaces []*protectionSpace
	size   int // in bytes
	crowd
	dropped bool // it is not remembered any more, and counts no more
}

// A protectionSpace is one protection space: what a Scheme has agreed on with a realm of an origin. Its scopes are the
// paths that were challenged, as they are and up to the last slash: in one folder there can be two spaces.
type protectionSpace struct {
	scheme  int32 // index in Transport.Schemes
	started bool  // by a Starter, ahead of any challenge: there is nothing to remember
	gone    bool  // it is not among the spaces of its origin any more
	realm   string
	of      *originSpaces // among whose it is, or was; nil: it is not remembered, and says what a lease is for
	scopes  map[string]struct{}
	latest  held   // the latest Session: it serves all requests if it is shared, and knows what the space covers
	idle    []held // exclusive Sessions that are not lent at present; the one used last comes out first
}

// held is a Session, and what its requests go by.
type held struct {
	Session
	by *carried // of a Carrier; nil: as all others
}

// size returns how many bytes the Session takes.
func (h held) size() int {
	n := sizeOfSession
	if s, ok := h.Session.(interface{ size() int }); ok {
		n = s.size()
	}
	if h.by != nil {
		n += sizeOfCarrier
	}
	return n
}

// A lease is a Session in the hands of one request.
type lease struct {
	held
	space *protectionSpace // of the Session, or of one to wait for; nil: there is neither
}

// scheme returns the index of the lease's scheme in Transport.Schemes.
func (l *lease) scheme() int32 {
	if l.space == nil {
		return 0
	}
	return l.space.scheme
}

func (l *lease) realm() string {
	if l.space == nil {
		return ""
	}
	return l.space.realm
}

// lend returns the remembered Session for a request to u, if there is one. The more specific scope wins, then the
// later space. The lease is exact if a path at or above u's was challenged, and not only covered by what the
// Session says of its extent. If there are exclusive Sessions, the request is counted until its visit ends.
func (s *spaces) lend(key spacesKey, u *url.URL) (l lease, v visit, exact bool) {
	known := s.of(key)
	if known == nil {
		return lease{}, visit{}, false
	}
	known.lastUse.Store(s.clock.Add(1))
	known.mu.Lock()
	defer known.mu.Unlock()
	l, exact = known.lease(u, known.isFull())
	return l, known.enter(), exact
}

// lease returns the Session for a request to u; none of those that are exclusive if the request has to wait. The caller holds
// mu.
func (k *originSpaces) lease(u *url.URL, waits bool) (l lease, exact bool) {
	var best *protectionSpace
	depth := -1
	for i := len(k.spaces) - 1; i >= 0; i-- {
		if d := k.spaces[i].match(u); d > depth {
			best, depth = k.spaces[i], d
		}
	}
	if best == nil {
		return lease{}, false
	}
	l = lease{best.latest, best}
	if isExclusive(best.latest.Session) {
		l.held = held{}
		if !waits {
			l.held = k.takeIdle(best)
		}
	}
	return l, depth > 0
}

// keep returns the lease after use, or remembers the Session of a new one for requests to u and below, unless its account
// has been forgotten since there were that many changes. It reports whether the Session is remembered.
func (s *spaces) keep(key spacesKey, u *url.URL, l *lease, changes uint32) (kept bool) {
	if len(l.space.realm) > maxRealm || len(key.host) > maxHost || isForOneRequest(l.Session) {
		return false
	}
	var known *originSpaces
	switch {
	case l.space.of == nil:
		known = s.at(key)
		if s.changesOf(key.account).Load() != changes { // looked at after known, which is dropped if it changes later
			s.shrink()
			return false
		}
	case !isExclusive(l.Session):
		return true
	default:
		known = l.space.of
	}
	kept, carried := known.keep(u, l)
	endAll(carried)
	s.shrink()
	return kept
}

func isExclusive(s Session) bool {
	_, ok := s.(Exclusive)
	return ok
}

// isForOneRequest reports whether a Session is of no use to other requests than the one that it was made for.
func isForOneRequest(s Session) bool {
	_, ok := s.(interface{ forOneRequest() })
	return ok
}

// forget drops the whole space of a lease whose credentials the server has refused for good.
func (s *spaces) forget(key spacesKey, l *lease) {
	if known := s.of(key); known != nil && l.Session != nil {
		endAll(known.forget(l))
	}
}

// forgetAccount drops all that is remembered for an account.
func (s *spaces) forgetAccount(account string) {
	s.mu.Lock()
	s.changesOf(account).Add(1)
	known := s.first[account]
	delete(s.first, account)
	if account == "" { // of which there is no list
		for _, k := range s.known {
			if k.key.account == "" {
				k.next, known = known, k
			}
		}
	}
	for k := known; k != nil; k = k.next {
		delete(s.known, k.key)
	}
	s.count.Store(int32(len(s.known)))
	s.mu.Unlock()
	for ; known != nil; known = known.next {
		endAll(known.drop())
	}
}

// addLocked adds k, whose key is set.
func (s *spaces) addLocked(k *originSpaces) {
	if s.known == nil {
		s.known, s.first = make(map[spacesKey]*originSpaces), make(map[string]*originSpaces)
	}
	s.known[k.key] = k
	if k.key.account != "" {
		k.next = s.first[k.key.account]
		s.first[k.key.account] = k
	}
	s.count.Store(int32(len(s.known)))
}

// removeLocked removes k.
func (s *spaces) removeLocked(k *originSpaces) {
	delete(s.known, k.key)
	s.count.Store(int32(len(s.known)))
	if k.key.account == "" {
		return
	}
	if first := s.first[k.key.account]; first == k {
		if s.first[k.key.account] = k.next; k.next == nil {
			delete(s.first, k.key.account)
		}
	} else {
		for first.next != k {
			first = first.next
		}
		first.next = k.next
	}
}

// of returns what is remembered under a key, or nil.
func (s *spaces) of(key spacesKey) *originSpaces {
	if s.count.Load() == 0 {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.known[key]
}

// at returns what is remembered under a key, adding it if need be.
func (s *spaces) at(key spacesKey) *originSpaces {
	if known := s.of(key); known != nil {
		return known
	}
	// Its texts are parts of a URL, and of who knows what.
	key.account, key.host, key.port = strings.Clone(key.account), strings.Clone(key.host), strings.Clone(key.port)
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[key]; known != nil {
		return known
	}
	known := &originSpaces{all: s, key: key}
	known.lastUse.Store(s.clock.Add(1))
	known.grow(sizeOfOrigin + len(key.account) + len(key.host))
	s.addLocked(known)
	return known
}

// shrink drops what has not been used for long, as long as too much is remembered. It looks for the oldest among a few
// taken at random, which is as good as the oldest of all and costs those who only look something up nothing.
func (s *spaces) shrink() {
	limit := cmp.Or(s.limit, maxRemembered)
	for s.size.Load() > limit {
		s.mu.Lock()
		var oldest *originSpaces
		n := 0
		for _, k := range s.known {
			if oldest == nil || k.lastUse.Load() < oldest.lastUse.Load() {
				oldest = k
			}
			if n++; n == 16 {
				break
			}
		}
		if oldest != nil {
			s.removeLocked(oldest)
		}
		s.mu.Unlock()
		if oldest == nil {
			return // others have dropped it all
		}
		endAll(oldest.drop())
	}
}

// closeIdle closes what Carriers have open and nobody uses at present.
func (s *spaces) closeIdle() {
	s.mu.RLock()
	var all []*originSpaces
	for _, known := range s.known {
		all = append(all, known)
	}
	s.mu.RUnlock()
	for _, known := range all {
		known.mu.Lock()
		carried := known.carried()
		known.mu.Unlock()
		for _, h := range carried {
			h.by.closeIdle()
		}
	}
}

// grow counts n bytes more. The caller holds mu, or knows k alone.
func (k *originSpaces) grow(n int) {
	if !k.dropped {
		k.size += n
		k.all.size.Add(int64(n))
	}
}

// drop says that k is not remembered any more. It returns what Carriers have made for it.
func (k *originSpaces) drop() []held {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.grow(-k.size)
	k.dropped = true
	return k.carried()
}

// carried returns what Carriers have made for k, but for what is lent. The caller holds mu.
func (k *originSpaces) carried() (list []held) {
	for _, sp := range k.spaces {
		list = append(list, sp.carried()...)
	}
	return list
}

// keep does what spaces.keep says. It returns what Carriers have made and is not used any more.
func (k *originSpaces) keep(u *url.URL, l *lease) (kept bool, carried []held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	sp, exclusive := l.space, isExclusive(l.Session)
	if k.dropped || sp.gone {
		return false, nil
	}
	spare := false // there are idle sessions that were of no use to the request
	if sp.of == nil {
		sp, carried = k.space(sp.scheme, sp.realm)
		spare = len(sp.idle) > 0 && sp.match(u) < 0
		// A shared Session is in its space as the latest, an exclusive one among the idle.
		if old := sp.latest; old.Session != nil && !isExclusive(old.Session) {
			k.grow(-old.size())
			if old.by != nil && (exclusive || !old.by.isSame(l.by)) {
				carried = append(carried, old)
			}
		}
		if sp.latest = l.held; !exclusive {
			k.grow(l.size())
		}
		k.grow(sp.addScopes(pathOf(u)))
	}
	if !exclusive {
		return true, carried
	}
	if len(sp.idle) >= maxIdle || k.bound > 0 && len(sp.idle) >= int(k.bound) {
		return false, carried
	}
	if spare { // one of which this takes the place
		last := k.takeIdle(sp)
		if last.by != nil {
			carried = append(carried, last)
		}
	}
	sp.idle = append(sp.idle, l.held)
	k.grow(l.size())
	return true, carried
}

// forget drops the space of a lease. It returns what Carriers have made for it.
func (k *originSpaces) forget(l *lease) []held {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, sp := range k.spaces {
		if sp.scheme == l.space.scheme && sp.realm == l.space.realm {
			k.spaces = append(k.spaces[:i], k.spaces[i+1:]...)
			return k.dismiss(sp)
		}
	}
	return nil
}

// dismiss says that a space is not among those of k any more. It returns what Carriers have made for it.
func (k *originSpaces) dismiss(sp *protectionSpace) []held {
	k.grow(-sp.size())
	sp.gone = true
	return sp.carried()
}

// space returns the space of a realm, adding it if it is new. It is the last one then, which counts for more than those
// before: a server may have changed from one scheme to another. What Carriers have made for one that had to make room
// is returned besides.
func (k *originSpaces) space(scheme int32, realm string) (sp *protectionSpace, carried []held) {
	for i, sp := range k.spaces {
		if sp.scheme == scheme && sp.realm == realm {
			k.spaces = append(append(k.spaces[:i], k.spaces[i+1:]...), sp)
			return sp, nil
		}
	}
	if len(k.spaces) == maxSpaces {
		carried = k.dismiss(k.spaces[0])
		k.spaces = append(k.spaces[:0], k.spaces[1:]...)
	}
	realm = strings.Clone(realm) // it is a part of a header that may be large
	sp = &protectionSpace{of: k, scheme: scheme, realm: realm, scopes: make(map[string]struct{}, 1)}
	k.spaces = append(k.spaces, sp)
	k.grow(sp.size())
	return sp, carried
}

// size returns how many bytes the space takes, but for Sessions that are lent.
func (sp *protectionSpace) size() int {
	n := sizeOfSpace + len(sp.realm)
	for scope := range sp.scopes {
		n += sizeOfScope + len(scope)
	}
	if sp.latest.Session != nil && !isExclusive(sp.latest.Session) {
		n += sp.latest.size()
	}
	for _, h := range sp.idle {
		n += h.size()
	}
	return n
}

// takeIdle returns a Session that is not lent, if there is one.
func (k *originSpaces) takeIdle(sp *protectionSpace) held {
	n := len(sp.idle) - 1
	if n < 0 {
		return held{}
	}
	h := sp.idle[n]
	sp.idle[n] = held{}
	sp.idle = sp.idle[:n]
	k.grow(-h.size())
	return h
}

// carried returns what Carriers have made for the space, but for what is lent.
func (sp *protectionSpace) carried() (list []held) {
	if sp.latest.by != nil && !isExclusive(sp.latest.Session) {
		list = append(list, sp.latest)
	}
	for _, h := range sp.idle {
		if h.by != nil {
			list = append(list, h)
		}
	}
	return list
}
