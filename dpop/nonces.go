package dpop

import (
	"cmp"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	maxOrigins = 16_384
	maxNonce   = 1 << 10 // bytes
)

// isNonce reports whether s is a nonce (RFC 9449 §8.1), of a length that is worth sending back.
func isNonce(s string) bool {
	if s == "" || len(s) > maxNonce {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// nonces are the last nonces of origins. The zero value is ready for use.
type nonces struct {
	clock atomic.Int64 // counts uses, to find what has not been used for long
	limit int          // of origins, for tests; 0: maxOrigins

	mu    sync.RWMutex // guards known, not what is in it
	known map[string]*nonce
}

// A nonce is the last one of an origin.
type nonce struct {
	value   atomic.Pointer[string]
	lastUse atomic.Int64
}

// of returns the last nonce of an origin, or "".
func (n *nonces) of(origin string) string {
	n.mu.RLock()
	known := n.known[origin]
	n.mu.RUnlock()
	if known == nil {
		return ""
	}
	known.lastUse.Store(n.clock.Add(1))
	return *known.value.Load()
}

// learn notes the nonce of an origin.
func (n *nonces) learn(origin, value string) {
	n.mu.RLock()
	known := n.known[origin]
	n.mu.RUnlock()
	if known == nil {
		known = n.add(origin)
	} else if *known.value.Load() == value {
		return
	}
	value = strings.Clone(value) // it is a part of a header that may be large
	known.value.Store(&value)
}

// add makes room for an origin's nonce, in place of the one that was not used for longest if there are too many: the oldest
// among a few taken at random, which is as good as the oldest of all.
func (n *nonces) add(origin string) *nonce {
	n.mu.Lock()
	defer n.mu.Unlock()
	if known := n.known[origin]; known != nil {
		return known
	}
	for len(n.known) >= cmp.Or(n.limit, maxOrigins) {
		var oldest string
		looked := 0
		for o, known := range n.known {
			if looked == 0 || known.lastUse.Load() < n.known[oldest].lastUse.Load() {
				oldest = o
			}
			if looked++; looked == 16 {
				break
			}
		}
		delete(n.known, oldest)
	}
	if n.known == nil {
		n.known = make(map[string]*nonce)
	}
	known := &nonce{}
	known.value.Store(new(string))
	known.lastUse.Store(n.clock.Add(1))
	n.known[strings.Clone(origin)] = known
	return known
}
