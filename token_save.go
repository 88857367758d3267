package authretry

import (
	"context"
	"slices"
	"time"

	"golang.org/x/oauth2"
)

// save saves k, if the Store has nothing newer.
func (s *TokenSource) save(ctx context.Context, k *knownToken) error {
	err := s.Store.Update(ctx, func(_ context.Context, stored *Record, _ func(context.Context) error) (*Record, error) {
		u := k.unsaved.Load()
		if u == nil || k.unspent && s.hasSpent(k.record()) || !u.replace && stored != nil && !stored.isSame(u.has) && !s.hasSpent(stored) {
			return nil, nil // it has been saved, or spent, or somebody has saved a newer one
		}
		return k.record(), nil
	})
	if err == nil {
		k.unsaved.Store(nil)
	}
	return err
}

// saveLater saves k after a delay, and again until that succeeds or there is another token.
func (s *TokenSource) saveLater(ctx *refreshContext, k *knownToken, delay time.Duration) {
	time.AfterFunc(jittered(delay), func() {
		if s.current.Load() != k || k.unsaved.Load() == nil {
			return
		}
		again := true
		defer func() {
			if again { // whatever has become of the listener
				s.saveLater(ctx, k, min(2*delay, maxRetryDelay))
			}
		}()
		limited, cancel := context.WithTimeout(ctx, s.fetchTimeout())
		defer cancel()
		err := apart(panicked, func() error {
			if err := s.save(limited, k); err != nil {
				return notSaved(err, k.token)
			}
			return nil
		})
		if err == nil {
			again = false
			return
		}
		reportTo(ctx, Event{Kind: EventNotSaved, Err: err})
	})
}

// isOld reports whether stored is what our token was to replace, had it been possible to save it; or was before, and the Store
// has forgotten what came after.
func (run *refreshRun) isOld(stored *Record) bool {
	if run.ctx.source.hasSpent(stored) {
		return true
	}
	if run.base == nil || stored == nil {
		return false
	}
	u := run.base.unsaved.Load()
	return u != nil && (u.replace || stored.isSame(u.has))
}

// spend notes that the token endpoint has given t for a refresh token, which is not to be sent again.
func (s *TokenSource) spend(grant string, t *oauth2.Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if grant != "" && t.RefreshToken != "" && t.RefreshToken != grant && !slices.Contains(s.spent, grant) {
		s.spent = append(s.spent[max(0, len(s.spent)-maxSpent+1):], grant)
	}
}

// hasSpent reports whether the refresh token of a Record has been spent here.
func (s *TokenSource) hasSpent(stored *Record) bool {
	if stored == nil || grantOf(stored.Token) == "" {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.spent, stored.Token.RefreshToken)
}
