package negotiate

import (
	"bytes"
	"errors"
	"os"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	maxServices = 1 << 10     // whose tickets are kept
	maxTickets  = 4           // of one service: one to use, and those whose tokens may be out yet
	renewAfter  = time.Minute // a ticket that was got so lately is not replaced because a service refuses it
)

// A login is what one user has got since logging in. It is guarded by Client.mu, but for path, owner and turn, which do not change, and for
// the tgt of one that has a path.
type login struct {
	path     string             // of the cache that it comes from; "": none
	owner    string             // of that cache
	file     os.FileInfo        // of that cache, as it was; guarded by Client.reading
	stored   map[string]*ticket // from that cache, by service
	tgt      *ticket
	services *simplelru.LRU[string, *service]

	turn    chan struct{} // has room for the one that logs in
	failed  error         // why that has failed
	isUntil time.Time     // when it may be tried again
}

func newLogin(tgt *ticket) *login {
	l := &login{tgt: tgt, turn: make(chan struct{}, 1)}
	l.services, _ = simplelru.NewLRU[string, *service](maxServices, nil)
	return l
}

// service returns what there is for a service.
func (l *login) service(spn string) *service {
	s, ok := l.services.Get(spn)
	if !ok {
		s = new(service)
		l.services.Add(spn, s)
	}
	return s
}

// cached returns a ticket that the cache had for a service, the first time that it is wanted.
func (l *login) cached(spn string, now time.Time) *ticket {
	if t := l.stored[spn]; t.isUsable(now) && !t.isOld(now) {
		return t
	}
	return nil
}

// A service is what there is for one service.
type service struct {
	tickets []*ticket         // the latest first
	renewal *pending[*ticket] // an exchange that is under way
	failed  error             // why the latest has failed
	until   time.Time         // when there may be another
}

func (s *service) all() []*ticket { return append([]*ticket(nil), s.tickets...) }

// latest returns the ticket to use, or nil.
func (s *service) latest(now time.Time) *ticket {
	if len(s.tickets) > 0 && s.tickets[0].isUsable(now) {
		return s.tickets[0]
	}
	return nil
}

// want returns the ticket, or what to wait for, or why there is none. It begins an exchange if need be.
func (s *service) want(now time.Time, begin func() *pending[*ticket]) (*ticket, *pending[*ticket], error) {
	t := s.latest(now)
	if s.renewal == nil && (t == nil || t.isOld(now)) && now.After(s.until) {
		s.renewal = begin()
	}
	switch {
	case t != nil:
		return t, nil, nil
	case s.renewal != nil:
		return nil, s.renewal, nil
	}
	return nil, nil, s.failed
}

// got ends an exchange for a service.
func (l *login) got(spn string, t *ticket, err error) error {
	s, now := l.service(spn), time.Now()
	s.renewal = nil
	if err != nil {
		s.failed, s.until = err, now.Add(heldBack(err))
		if l.failed != nil && errors.Is(err, l.failed) {
			s.until = l.isUntil // it is the login that has failed
		}
		return err
	}
	s.failed, s.until = nil, time.Time{}
	if t.isOld(now) { // there is no better one at present
		s.until = now.Add(t.end.Sub(now) / 6)
	}
	if len(s.tickets) == 0 || s.tickets[0] != t {
		s.tickets = append([]*ticket{t}, s.tickets[:min(len(s.tickets), maxTickets-1)]...)
	}
	return nil
}

// renew drops the ticket of a token, and reports whether there will be another.
func (s *service) renew(token []byte, now time.Time) bool {
	if len(s.tickets) == 0 || s.renewal != nil {
		return s.renewal != nil
	}
	latest := s.tickets[0]
	if !latest.isIn(token) {
		return true // it has been replaced meanwhile
	}
	if now.Before(latest.got.Add(renewAfter)) {
		return false
	}
	latest.end = now // it is kept, to verify what is out
	s.until = time.Time{}
	return true
}

// isIn reports whether a token has the ticket.
func (t *ticket) isIn(token []byte) bool {
	return len(t.EncPart.Cipher) > 0 && bytes.Contains(token, t.EncPart.Cipher)
}

// heldBack returns for how long what has failed is not tried again.
func heldBack(err error) time.Duration {
	if _, ok := errors.AsType[*saidError](err); ok {
		return refusedFor
	}
	return failedFor
}
