package authretry

import (
	"net/http"
	"sync"
)

// maxUploads is of how many origins it is remembered what they do with large bodies.
const maxUploads = 1 << 10

// uploads remembers what servers do with large bodies. That is the same whoever sends them, so it does not matter for which account.
type uploads struct {
	mu    sync.Mutex
	known map[origin]uploadHabits
}

// uploadHabits is what an origin has done so far.
type uploadHabits struct {
	takes      bool // it has taken a large body, or one of unknown length, without credentials and without a challenge
	challenges bool // it has refused something, whoever had asked
	refuses    bool // it has refused what was sent ahead, and taken other credentials, as for a stale nonce; or a body was lost to that
	silent     bool // it has let a body wait that was announced, and then taken it with the credentials that were sent ahead
}

func (u *uploads) of(o origin) uploadHabits {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.known[o]
}

func (u *uploads) note(o origin, change func(h *uploadHabits)) {
	if len(o.host) > maxHost {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	before, ok := u.known[o]
	after := before
	change(&after)
	if after == before {
		return
	}
	if !ok {
		for other := range u.known { // any one
			if len(u.known) < maxUploads {
				break
			}
			delete(u.known, other)
		}
		o = o.clone()
	}
	if u.known == nil {
		u.known = make(map[origin]uploadHabits)
	}
	u.known[o] = after
}

// announce has the first send ask before it sends a large body, where a refusal may come (RFC 9110 §10.1.1): it would come too late for
// a body that cannot be sent twice.
func (x *exchange) announce(req *http.Request) *http.Request {
	if x.body == nil || x.body.inMemory || !x.mayBeRefused() {
		return req
	}
	own := req.Header.Get("Expect") != "" // then nothing is read of the body before the server has asked for it
	if x.body.isLarge() || x.body.isEndless() && (own || x.req.Method != http.MethodConnect && x.body.peek()) {
		x.expects = !own
		req = x.body.expect(req)
	}
	return req
}

// mayBeRefused reports whether the server may refuse the first send. Nonces become stale; other credentials are taken for good until the
// server has refused some.
func (x *exchange) mayBeRefused() bool {
	h := x.uploads.of(x.origin())
	if x.ahead.Session == nil {
		return !h.takes || h.challenges
	}
	return !h.silent && (h.refuses || isExclusive(x.ahead.Session) && x.ahead.by == nil)
}

// noteUpload notes what the server has done with the body of a request that it has taken with what is in l.
func (x *exchange) noteUpload(l *lease) {
	switch {
	case x.foreign:
	case l != &x.ahead && x.ahead.Session != nil:
		x.uploads.note(x.origin(), func(h *uploadHabits) { h.refuses = true })
	case !x.body.isHeldBack():
	case l.Session == nil && x.body.wasLetGo():
		x.uploads.note(x.origin(), func(h *uploadHabits) { h.takes = true })
	case l.Session != nil && l == &x.ahead && x.body.hasWaited():
		x.uploads.note(x.origin(), func(h *uploadHabits) { h.silent = true })
	}
}

// keepForNext keeps an answer that comes too late for this request's body. The next one is announced.
func (x *exchange) keepForNext(answer *lease) {
	x.keep(answer)
	if x.ahead.Session != nil && !x.foreign {
		x.uploads.note(x.origin(), func(h *uploadHabits) { h.refuses = true })
	}
}

// noteInsisted notes what the server has taken with what is in l, after it had refused to be asked (417).
func (x *exchange) noteInsisted(l *lease) {
	switch {
	case x.foreign:
	case l.Session == nil:
		x.uploads.note(x.origin(), func(h *uploadHabits) { h.takes = true })
	default:
		x.uploads.note(x.origin(), func(h *uploadHabits) { h.silent = true })
	}
}
