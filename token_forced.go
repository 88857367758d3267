package authretry

import (
	"slices"
	"time"
)

// What refusals may cause: whoever refuses a token has it replaced for everybody who uses it.
const (
	maxForced      = 32  // refreshes within MinRefreshInterval, whoever refuses
	maxForcedByOne = 8   // of these, because of one origin
	maxForcers     = 64  // origins that are remembered
	maxForcerHost  = 255 // bytes of their names
)

// A refreshCount counts refreshes since a point in time.
type refreshCount struct {
	since time.Time
	n     int
}

func (c *refreshCount) add(now time.Time, interval time.Duration) {
	if now.Sub(c.since) >= interval {
		*c = refreshCount{since: now}
	}
	c.n++
}

// forced are the refreshes that refusals have caused lately.
type forced struct {
	all refreshCount
	by  []forcer // of these
}

// A forcer is an origin whose refusals have caused refreshes lately.
type forcer struct {
	origin origin
	refreshCount
	last    time.Time // when it caused one, or when that had a token
	pending bool      // and it has accepted nothing since
}

// mayForce reports whether the origin may have a token replaced that it refuses. It may not if it would not accept, or has not
// tried, what was obtained the last time: others may accept what they like.
func (f *forcer) mayForce(now time.Time, interval time.Duration) bool {
	if f.pending && now.Sub(f.last) < interval {
		return false
	}
	return f.n < maxForcedByOne || now.Sub(f.since) >= interval
}

// refusedWhileFresh reports whether a refresh of the token k would be one too many for the token endpoint, and for all others
// who use the token, where it answers a server's refusal of k. The caller holds mu.
func (s *TokenSource) refusedWhileFresh(k *knownToken, d demand, now time.Time) bool {
	interval := s.refusalInterval()
	if d.refused != "" {
		if k.successor && !k.accepted.Load() && now.Sub(k.received) < interval {
			return true
		}
		if f := s.forcer(d.by); f != nil && !f.mayForce(now, interval) {
			return true
		}
	}
	return s.forced != nil && now.Sub(s.forced.all.since) < interval && s.forced.all.n >= maxForced
}

// countForced counts a refresh that a refusal has caused.
func (s *TokenSource) countForced(by origin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forced == nil {
		s.forced = new(forced)
	}
	now, interval := time.Now(), s.refusalInterval()
	s.forced.all.add(now, interval)
	if f := s.addForcer(by, now, interval); f != nil {
		f.last = now
		f.add(now, interval)
	}
}

// obtainedFor notes that a token was obtained because an origin has refused the one before. It returns that origin, nil if it
// is not known.
func (s *TokenSource) obtainedFor(by origin) *origin {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.forcer(by)
	if f == nil {
		return nil
	}
	f.last, f.pending = time.Now(), true
	o := f.origin
	return &o
}

// acceptedBy notes that an origin has accepted a token for which it had asked.
func (s *TokenSource) acceptedBy(by origin, accessToken string) {
	k := s.current.Load()
	if k == nil || k.token.AccessToken != accessToken {
		return
	}
	k.accepted.Store(true)
	if k.by != nil && *k.by == by {
		k.served.Store(true)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.forcer(by); f != nil {
		f.pending = false
	}
}

// forcer returns what is known of an origin; nil if that is nothing. The caller holds mu.
func (s *TokenSource) forcer(o origin) *forcer {
	if s.forced == nil {
		return nil
	}
	for i := range s.forced.by {
		if f := &s.forced.by[i]; f.origin == o {
			return f
		}
	}
	return nil
}

// addForcer is like forcer, and adds what is missing, if there is room. The caller holds mu.
func (s *TokenSource) addForcer(o origin, now time.Time, interval time.Duration) *forcer {
	if f := s.forcer(o); f != nil {
		return f
	}
	list := slices.DeleteFunc(s.forced.by, func(f forcer) bool { return now.Sub(f.last) >= interval })
	s.forced.by = list
	if o.host == "" || len(o.host) > maxForcerHost || len(list) >= maxForcers {
		return nil // the bound for all together holds
	}
	s.forced.by = append(list, forcer{origin: o.clone()})
	return &s.forced.by[len(list)]
}
