package authretry

import (
	"context"
	"encoding/binary"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// nonceGeneration is how many nonces there are in each of the two generations that are remembered.
const nonceGeneration = 1 << 13

// nonces remembers how each nonce of each origin has been used. The nonce count belongs to the nonce (RFC 7616 §3.4),
// whichever session uses it and whoever that is for: requests that are challenged at the same time may be given one
// nonce, and a nextnonce may be one that was in use before.
//
// A nonce is remembered until at least nonceGeneration others have come after its last use, and at most twice as many.
// It is kept as a hash, so a long one takes no more room than a short one.
//
// The zero value is ready for use. It is safe for concurrent use.
type nonces struct {
	turn atomic.Uint32 // how many generations there have been

	once sync.Once // makes seed
	seed maphash.Seed

	mu         sync.Mutex           // guards the maps, not what is in them
	young, old map[uint64]*nonceUse // by the hash of origin and nonce
}

// A nonceUse is what is remembered of one nonce of one origin.
type nonceUse struct {
	count atomic.Uint32 // the nonce count of the last request
	turn  atomic.Uint32 // the generation it is in

	// Whose credentials the server has last accepted with this nonce, and not refused with it since; a hash of them, 0
	// for nobody.
	accepted atomic.Uint32

	// Whose accepted nonce the server has refused without a word of stale=true, and given this one instead.
	instead atomic.Uint32

	// The -sess algorithms demand one cnonce for as long as the nonce lasts, for the server may compute A1 only once
	// (RFC 7616 §3.4.2). So it belongs to the nonce, too. It does not change.
	cnonce string
}

// accept notes that the server has accepted the credentials with this nonce.
func (u *nonceUse) accept(who uint32) {
	if u.accepted.Load() != who { // most requests write nothing that others read
		u.accepted.Store(who)
	}
}

// refuse notes that the server has refused the credentials with this nonce, and did not call it stale. It reports
// whether it has accepted them with it since it last refused them; and whether it has either done that, or has given
// this nonce in place of one with which it had.
func (u *nonceUse) refuse(who uint32) (accepted, forgotten bool) {
	accepted = u.accepted.CompareAndSwap(who, 0)
	return accepted, u.instead.CompareAndSwap(who, 0) || accepted
}

// noncesKey is the key of a context that has a *nonces, with which [Digest] shares what it knows of a nonce among the
// sessions of a Transport.
type noncesKey struct{}

// noncesOf returns what the context has, or else what is shared with nobody.
func noncesOf(ctx context.Context) *nonces {
	if n, _ := ctx.Value(noncesKey{}).(*nonces); n != nil {
		return n
	}
	return new(nonces)
}

// hash returns a hash of text that nobody outside can foresee. Those of different kinds have nothing to do with each
// other.
func (n *nonces) hash(kind uint64, text []byte) uint64 {
	n.once.Do(func() { n.seed = maphash.MakeSeed() })
	var h maphash.Hash
	h.SetSeed(n.seed)
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], kind)
	h.Write(b[:])
	h.Write(text)
	return h.Sum64()
}

// of returns the use of a nonce; origin is the hash of the origin. The cnonce is for a nonce that is new.
func (n *nonces) of(origin uint64, nonce []byte, cnonce string) *nonceUse {
	key := n.hash(origin, nonce)
	n.mu.Lock()
	defer n.mu.Unlock()
	u := n.young[key]
	if u == nil {
		if u = n.old[key]; u == nil {
			u = &nonceUse{cnonce: cnonce}
		}
		n.putLocked(key, u)
	}
	return u
}

// next returns the nonce count of the next request with the nonce that u is the use of, and sees to it that u is not
// forgotten while it is needed.
func (n *nonces) next(u *nonceUse, origin uint64, nonce []byte) uint32 {
	if u.turn.Load() != n.turn.Load() {
		n.renew(u, n.hash(origin, nonce))
	}
	return u.count.Add(1) // after 2³² requests it is 0, which a server refuses as a replay, with a new nonce
}

func (n *nonces) renew(u *nonceUse, key uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.young[key] == nil {
		n.putLocked(key, u)
	}
	u.turn.Store(n.turn.Load())
}

func (n *nonces) putLocked(key uint64, u *nonceUse) {
	if n.young == nil || len(n.young) == nonceGeneration {
		n.young, n.old = make(map[uint64]*nonceUse), n.young
		n.turn.Add(1)
	}
	n.young[key] = u
	u.turn.Store(n.turn.Load())
}
