package authretry

import (
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Bounds of what a Transport remembers, so that no server, and no walk over many of them, can fill the memory.
const (
	maxOrigins = 1 << 14 // origins
	maxSpaces  = 32      // protection spaces of one origin
	maxScopes  = 1 << 10 // scopes of one space
	maxScope   = 1 << 10 // bytes of a scope; longer paths are challenged each time
	maxRealm   = 1 << 10 // bytes of a realm; spaces with a longer one are challenged each time
	maxIdle    = 1 << 14 // idle exclusive sessions of one space; never more than requests were in flight at once
)

// spaces remembers the Sessions that protection spaces (RFC 9110 §11.5) have accepted, so that the next request
// carries credentials at once. The zero value is ready for use.
type spaces struct {
	count atomic.Int32 // of origins, so that nothing is locked while there are none
	clock atomic.Int64 // counts uses, to find the origins that have not been used for long

	mu      sync.RWMutex // guards origins, not what is in them
	origins map[origin]*originSpaces
}

// originSpaces are the protection spaces of one origin, the latest last.
type originSpaces struct {
	lastUse atomic.Int64

	mu     sync.Mutex // guards everything below, for no longer than a look
	spaces []*protectionSpace
}

// A protectionSpace is one protection space: what a Scheme has agreed on with a realm of an origin. Its scopes are the
// paths that were challenged, as they are and up to the last slash: in one folder there can be two spaces.
type protectionSpace struct {
	scheme int // index in Transport.Schemes
	realm  string
	scopes map[string]struct{}
	latest held   // the latest Session: it serves all requests if it is shared, and knows what the space covers
	idle   []held // exclusive Sessions that are not lent at present; the one used last comes out first
}

// held is a Session, and what its requests go by.
type held struct {
	Session
	by http.RoundTripper // of a Carrier; nil: as all others
}

// goesBy reports whether by is what the Session's requests go by. Values of some types cannot be compared.
func (h held) goesBy(by http.RoundTripper) bool {
	return h.by == nil || reflect.ValueOf(h.by).Comparable() && h.by == by
}

// closeIdle closes the connections of Carriers that nobody uses at present. It must not be called under a lock.
func closeIdle(list []held) {
	for _, h := range list {
		if c, ok := h.by.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
		}
	}
}

// A lease is a Session in the hands of one request.
type lease struct {
	held
	scheme  int // index in Transport.Schemes
	realm   string
	started bool // by a Starter, ahead of any challenge: there is nothing to remember

	// Where a remembered Session came from; nil for one that has just answered a challenge.
	known *originSpaces
	space *protectionSpace
}

// lend returns the remembered Session for a request to u, if there is one. The more specific scope wins, then the
// later space. The lease is exact if a path at or above u's was challenged, and not only covered by what the
// Session says of its extent.
func (s *spaces) lend(o origin, u *url.URL) (l lease, exact bool) {
	if s.count.Load() == 0 {
		return lease{}, false
	}
	s.mu.RLock()
	known := s.origins[o]
	s.mu.RUnlock()
	if known == nil {
		return lease{}, false
	}
	known.lastUse.Store(s.clock.Add(1))
	known.mu.Lock()
	defer known.mu.Unlock()
	var best *protectionSpace
	depth := -1
	for i := len(known.spaces) - 1; i >= 0; i-- {
		if d := known.spaces[i].match(u); d > depth {
			best, depth = known.spaces[i], d
		}
	}
	if best == nil {
		return lease{}, false
	}
	l = lease{held: best.latest, scheme: best.scheme, realm: best.realm, known: known, space: best}
	if _, exclusive := best.latest.Session.(Exclusive); exclusive {
		l.held = best.takeIdle()
	}
	return l, depth > 0
}

// keep returns the lease after use, or remembers the Session of a new one for requests to u and below.
func (s *spaces) keep(o origin, u *url.URL, l lease) {
	if l.started || l.Session == nil || len(l.realm) > maxRealm {
		return
	}
	_, exclusive := l.Session.(Exclusive)
	if l.space != nil {
		if exclusive {
			l.known.mu.Lock()
			defer l.known.mu.Unlock()
			l.space.putIdle(l.held)
		}
		return
	}
	known := s.at(o)
	var dropped []held
	defer func() { closeIdle(dropped) }()
	known.mu.Lock()
	defer known.mu.Unlock()
	sp, dropped := known.space(l.scheme, l.realm)
	if !exclusive && !sp.latest.goesBy(l.by) {
		dropped = append(dropped, sp.latest)
	}
	sp.latest = l.held
	sp.addScopes(pathOf(u))
	if exclusive {
		sp.putIdle(l.held)
	}
}

// forget drops the whole space of a lease whose credentials the server has refused for good.
func (s *spaces) forget(o origin, l lease) {
	s.mu.RLock()
	known := s.origins[o]
	s.mu.RUnlock()
	if known == nil {
		return
	}
	var dropped []held
	defer func() { closeIdle(dropped) }()
	known.mu.Lock()
	defer known.mu.Unlock()
	for i, sp := range known.spaces {
		if sp.scheme == l.scheme && sp.realm == l.realm {
			known.spaces = append(known.spaces[:i], known.spaces[i+1:]...)
			dropped = sp.carried(nil)
			return
		}
	}
}

// at returns the spaces of an origin, making room for them if need be.
func (s *spaces) at(o origin) *originSpaces {
	s.mu.RLock()
	known := s.origins[o]
	s.mu.RUnlock()
	if known != nil {
		return known
	}
	var dropped *originSpaces
	defer func() { closeIdle(dropped.carried(nil)) }()
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.origins[o]; known != nil {
		return known
	}
	if s.origins == nil {
		s.origins = make(map[origin]*originSpaces)
	}
	if len(s.origins) >= maxOrigins {
		dropped = s.evict()
	}
	known = &originSpaces{}
	known.lastUse.Store(s.clock.Add(1))
	s.origins[o] = known
	s.count.Store(int32(len(s.origins)))
	return known
}

// evict drops the origin that has not been used for longest among a few taken at random, which is as good as the
// longest of all and costs lookups nothing.
func (s *spaces) evict() *originSpaces {
	var oldest origin
	var use int64
	n := 0
	for o, known := range s.origins {
		if last := known.lastUse.Load(); n == 0 || last < use {
			oldest, use = o, last
		}
		if n++; n == 16 {
			break
		}
	}
	dropped := s.origins[oldest]
	delete(s.origins, oldest)
	return dropped
}

// closeIdle closes what Carriers have open and nobody uses at present.
func (s *spaces) closeIdle() {
	s.mu.RLock()
	all := slices.Collect(maps.Values(s.origins))
	s.mu.RUnlock()
	for _, known := range all {
		closeIdle(known.carried(nil))
	}
}

// carried appends to list what Carriers have made for the origin, but for what is lent.
func (k *originSpaces) carried(list []held) []held {
	if k == nil {
		return list
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, sp := range k.spaces {
		list = sp.carried(list)
	}
	return list
}

// space returns the space of a realm, adding it if it is new. It is the last one then, which counts for more than those
// before: a server may have changed from one scheme to another. What Carriers have made for
// one that had to make room is returned besides.
func (k *originSpaces) space(scheme int, realm string) (sp *protectionSpace, dropped []held) {
	for i, sp := range k.spaces {
		if sp.scheme == scheme && sp.realm == realm {
			k.spaces = append(append(k.spaces[:i], k.spaces[i+1:]...), sp)
			return sp, nil
		}
	}
	if len(k.spaces) == maxSpaces {
		dropped = k.spaces[0].carried(nil)
		k.spaces = append(k.spaces[:0], k.spaces[1:]...)
	}
	realm = strings.Clone(realm) // it is a part of a header that may be large
	sp = &protectionSpace{scheme: scheme, realm: realm, scopes: make(map[string]struct{}, 1)}
	k.spaces = append(k.spaces, sp)
	return sp, dropped
}

// match returns how well the space fits u: the length of the path scope that u is in, 0 if only the Session says
// that it covers u, or -1.
func (sp *protectionSpace) match(u *url.URL) int {
	c, knows := sp.latest.Session.(Covers)
	if knows && !c.Covers(u) {
		return -1
	}
	if !hasDotSegment(u.Path) {
		for scope := pathOf(u); scope != ""; scope = parentScope(scope) {
			if _, ok := sp.scopes[scope]; ok {
				return len(scope)
			}
		}
	}
	if knows {
		return 0
	}
	return -1
}

func (sp *protectionSpace) takeIdle() held {
	n := len(sp.idle) - 1
	if n < 0 {
		return held{}
	}
	h := sp.idle[n]
	sp.idle[n] = held{}
	sp.idle = sp.idle[:n]
	return h
}

func (sp *protectionSpace) putIdle(h held) {
	if len(sp.idle) < maxIdle {
		sp.idle = append(sp.idle, h)
	}
}

// carried appends to list what Carriers have made for the space, but for what is lent. The caller holds the lock.
func (sp *protectionSpace) carried(list []held) []held {
	if sp.latest.by != nil {
		list = append(list, sp.latest)
	}
	for _, h := range sp.idle {
		if h.by != nil {
			list = append(list, h)
		}
	}
	return list
}

// addScopes adds the path and what lies below its last slash (RFC 7617 §2.2) to the space.
func (sp *protectionSpace) addScopes(path string) {
	for _, scope := range []string{path, parentScope(path + "x")} {
		if scope == "" || len(scope) > maxScope {
			continue
		}
		if _, ok := sp.scopes[scope]; !ok && len(sp.scopes) >= maxScopes {
			for s := range sp.scopes {
				delete(sp.scopes, s)
				break
			}
		}
		sp.scopes[scope] = struct{}{}
	}
}

// pathOf returns the path of u as a server sees it.
func pathOf(u *url.URL) string {
	if u.Path == "" {
		return "/"
	}
	return u.Path
}

// parentScope returns the path up to the last slash but a trailing one, or "" if there is none.
func parentScope(path string) string {
	if path == "" {
		return ""
	}
	return path[:strings.LastIndexByte(path[:len(path)-1], '/')+1]
}

// hasDotSegment reports whether the server may take the path to lie elsewhere than it seems to.
func hasDotSegment(path string) bool {
	return strings.Contains(path, "/../") || strings.HasSuffix(path, "/..") || strings.Contains(path, "/./")
}
