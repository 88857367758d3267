package registry

import (
	"crypto/sha256"
	"net/url"
	"strings"
	"sync"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/guarded"
)

// Bounds of what is remembered, so that no registry, and no number of repositories and accounts, can fill the memory. What has
// not been used for longest makes room.
const (
	maxPlaces  = 4 << 10  // repositories and other paths of which it is known what they need
	maxGrants  = 1 << 10  // tokens
	maxTrusted = 4 << 10  // registries of which it is known which token server has got their credentials
	maxTrials  = 1 << 10  // credentials of which it is known whether they are good
	maxNoPost  = 1 << 10  // token servers that want GET
	maxToken   = 64 << 10 // bytes of a token
)

// memory is what a Scheme has learnt. The zero value is ready for use.
type memory struct {
	mu      sync.Mutex // guards what follows, for no longer than a look
	places  lru[place, needs]
	grants  lru[grantKey, *grant]
	trusted lru[string, *trusted] // by registry, the token server that has got credentials
	noPost  lru[string, bool]     // by URL, the token servers that want GET
	trials  lru[asker, *trial]    // of credentials
}

// A place is something of a registry that has needs of its own, on behalf of an account.
type place struct {
	account, registry string
	name              string // as placeOf returns it
}

func placeFor(account string, u *url.URL) place {
	return place{account, guarded.Origin(u), placeOf(u.Path)}
}

// needs are what is sent to a place: a token of a realm, good for a scope.
type needs struct {
	realm *realm
	scope scopeSet
	text  string // scope, as text
}

// A grantKey says which token a grant has.
type grantKey struct {
	account, registry, realm, service, scope string
}

// An asker asks a token server on behalf of an account, with credentials of which this is a hash.
type asker struct {
	account, realm string
	credentials    [sha256.Size]byte
}

// needs returns what is known of a place.
func (m *memory) needs(at place) (n needs, known bool) {
	if at.name == "" {
		return needs{}, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.places.get(at)
}

// unite returns what to ask for at a place where the registry asks for the scope: that, and what it needs besides.
func (m *memory) unite(at place, r *realm, asked scopeSet) needs {
	known, ok := m.needs(at)
	if ok && known.realm.isSame(r) {
		asked = unite(asked, known.scope, at.name)
	}
	return needs{realm: r, scope: asked, text: asked.String()}
}

// remember notes what a place needs, once there is a token for it.
func (m *memory) remember(at place, n needs) {
	if at.name == "" {
		return
	}
	at = place{strings.Clone(at.account), at.registry, strings.Clone(at.name)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if known, ok := m.places.get(at); ok && known.realm.isSame(n.realm) && !n.scope.includes(known.scope) {
		n.scope = unite(n.scope, known.scope, at.name) // somebody else has learnt something meanwhile
		n.text = n.scope.String()
	}
	m.places.limit = maxPlaces
	m.places.put(at, n)
}

// unlearn forgets what a place needs.
func (m *memory) unlearn(at place) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.places.forget(func(p place) bool { return p == at })
}

// grant returns the grant of a token for what a place needs.
func (m *memory) grant(s *Scheme, at place, n needs) *grant {
	key := grantKey{at.account, at.registry, n.realm.url.String(), n.realm.service, n.text}
	m.mu.Lock()
	defer m.mu.Unlock()
	g, ok := m.grants.get(key)
	if !ok {
		key.account = strings.Clone(key.account)
		g = &grant{scheme: s, account: key.account, registry: key.registry, scope: n.scope}
		g.source = &authretry.TokenSource{Fetch: g.fetch}
		m.grants.limit = maxGrants
		m.grants.put(key, g)
	}
	g.realm.Store(n.realm) // as it was named last
	return g
}

// forget forgets what there is of an account.
func (m *memory) forget(account string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.places.forget(func(p place) bool { return p.account == account })
	m.grants.forget(func(k grantKey) bool { return k.account == account })
	m.trials.forget(func(a asker) bool { return a.account == account })
}

// A trusted is the token server to which a registry's credentials go. memory.mu guards asking and asked.
type trusted struct {
	registry, origin string
	asking           int  // requests that are on their way to it
	asked            bool // it may have got them
}

// trust reports whether credentials for a registry may go to a token server that it names: one in Scheme.Realms, the registry
// itself, or the one that has got them before. If none has, it is this one from now on. It returns that one. If they may go there, done is
// to be called after the request.
func (m *memory) trust(r *realm) (to *trusted, ok bool) {
	if r.listed || r.origin == r.registry {
		return nil, true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	to, known := m.trusted.get(r.registry)
	if !known {
		to = &trusted{registry: r.registry, origin: r.origin}
		m.trusted.limit = maxTrusted
		m.trusted.put(r.registry, to)
	}
	if to.origin != r.origin {
		return to, false
	}
	to.asking++
	return to, true
}

// done notes whether a token server may have got credentials by a request that has ended. One that has never got any makes room for
// another.
func (m *memory) done(to *trusted, sent bool) {
	if to == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	to.asking--
	to.asked = to.asked || sent
	if now, _ := m.trusted.get(to.registry); now == to && !to.asked && to.asking == 0 {
		m.trusted.forget(func(registry string) bool { return registry == to.registry })
	}
}

// wantsGet reports whether a token server has refused POST as such.
func (m *memory) wantsGet(r *realm) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, wants := m.noPost.get(r.url.String())
	return wants
}

func (m *memory) noteWantsGet(r *realm) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.noPost.limit = maxNoPost
	m.noPost.put(r.url.String(), true)
}
