package authtest

import "time"

// An ending is something that is good until it ends.
type ending interface{ ended(now time.Time) bool }

// A tokenSet is a map of tokens by value. It keeps all that are good, and of those that have ended at least
// the last maxRemembered, so that a server under load does not grow for ever.
type tokenSet[T ending] struct {
	values  map[string]T
	order   []string // in order of issue
	sweepAt int      // how many make the next sweep
}

func (s *tokenSet[T]) get(key string) (T, bool) {
	v, ok := s.values[key]
	return v, ok
}

// put adds a token that is not there yet.
func (s *tokenSet[T]) put(key string, v T) {
	if s.values == nil {
		s.values, s.sweepAt = map[string]T{}, 2*maxRemembered
	}
	if len(s.order) >= s.sweepAt {
		s.sweep(time.Now())
	}
	s.order = append(s.order, key)
	s.values[key] = v
}

// sweep forgets the oldest of those that have ended. That it comes the later the more are good makes its cost constant
// for each token.
func (s *tokenSet[T]) sweep(now time.Time) {
	ended := 0
	for _, key := range s.order {
		if s.values[key].ended(now) {
			ended++
		}
	}
	var kept []string
	for _, key := range s.order {
		if ended > maxRemembered && s.values[key].ended(now) {
			ended--
			delete(s.values, key)
			continue
		}
		kept = append(kept, key)
	}
	s.order, s.sweepAt = kept, 2*max(len(kept), maxRemembered)
}

func (a *accessToken) ended(now time.Time) bool { return a.dead || a.revoked || !now.Before(a.expires) }

func (r *refreshToken) ended(time.Time) bool { return r.used || r.revoked }
