package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/authretry/authretry"
)

// A store is one that is watched: its errors are looked at, and its calls have a limit.
type store struct {
	k *check
	authretry.TokenStore
}

type (
	confirmFunc = func(context.Context) error
	updateFunc  = func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error)
)

// saving returns a function for Update that saves r.
func saving(r *authretry.Record) updateFunc {
	return func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) { return r, nil }
}

// keeping is a function for Update that saves nothing.
func keeping(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) {
	return nil, nil
}

// update calls Update, once nobody has the lock.
func (s store) update(fn updateFunc) error {
	return s.updateWithin(s.k.limit, clauseReturns, context.Background(), fn)
}

// updateAfterKill is update where a holder was killed, and the lock may have to expire.
func (s store) updateAfterKill(fn updateFunc) error {
	return s.updateWithin(s.k.LockTTL+s.k.limit, clauseFreed, context.Background(), fn)
}

// updateWithin calls Update. If that takes longer than limit, c is broken.
func (s store) updateWithin(limit time.Duration, c clause, ctx context.Context, fn updateFunc) (err error) {
	calls := 0
	s.k.in(limit, c, "Update", func() {
		err = s.Update(ctx, func(ctx context.Context, current *authretry.Record, confirm confirmFunc) (*authretry.Record, error) {
			if calls++; calls > 1 {
				s.k.broken(clauseCalls, "Update called its function %d times", calls)
			}
			return fn(ctx, current, confirm)
		})
	})
	s.look(err)
	if err == nil && calls == 0 {
		s.k.broken(clauseNoneThere, "Update returned nil without having called its function")
	}
	return err
}

// save saves r, and reports if that fails.
func (s store) save(r *authretry.Record) bool {
	err := s.update(saving(r))
	if err != nil {
		s.k.broken(clauseSaves, "Update failed: %v", err)
	}
	return err == nil
}

// load calls Load, which waits for nobody.
func (s store) load() (r *authretry.Record, err error) {
	s.k.in(s.k.limit, clauseLockFree, "Load", func() { r, err = s.Load(context.Background()) })
	s.look(err)
	return r, err
}

// mustLoad is load where there is no reason to fail.
func (s store) mustLoad() *authretry.Record {
	r, err := s.load()
	if err != nil {
		s.k.broken(clauseWhole, "Load failed: %v", err)
	}
	return r
}

// number returns which of the numbered Records is there, 0 if there is none, -1 if something is wrong, which it reports.
func (s store) number() int {
	r, err := s.load()
	n := -1
	if err == nil {
		n, err = numberOf(r)
	}
	if err != nil {
		s.k.broken(clauseWhole, "Load returned what nobody has saved: %v", err)
		return -1
	}
	return n
}

// holds reports if another than the Record n is there.
func (s store) holds(c clause, n int, when string) {
	if got := s.number(); got != n && got >= 0 {
		s.k.broken(c, "%s: there is %s rather than %s", when, nameOf(got), nameOf(n))
	}
}

func nameOf(n int) string {
	if n == 0 {
		return "no Record"
	}
	return fmt.Sprintf("the %s Record", [...]string{"first", "second", "third", "fourth"}[min(n, 4)-1])
}

// look looks for tokens in an error.
func (s store) look(err error) {
	if err != nil {
		for ; err != nil; err = errors.Unwrap(err) {
			if text := fmt.Sprintf("%v %+v %#v", err, err, err); hasSecret(text) {
				s.k.broken(clauseErrors, "an error has a token in it: %v", err)
			}
		}
	}
}

// show looks for tokens in what the store shows of itself. Nobody may use it meanwhile: package fmt looks at everything that is in
// it, its mutex too.
func (s store) show() {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if hasSecret(fmt.Sprintf(verb, s.TokenStore)) {
			s.k.broken(clauseShown, "fmt shows a token of the store by %s", verb)
		}
	}
	if text, err := json.Marshal(s.TokenStore); err == nil && hasSecret(string(text)) {
		s.k.broken(clauseShown, "encoding/json shows a token of the store")
	}
}
