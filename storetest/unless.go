package storetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry"
)

// An unlessUpdater is a store that lets those go who wait for what another one has done meanwhile.
type unlessUpdater interface {
	UpdateUnless(ctx context.Context, enough func(current *authretry.Record) bool, fn func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error)) error
}

// checkUnless checks UpdateUnless, if there is one: those who wait see what is saved, although somebody has the lock all the time.
func checkUnless(k *check) {
	place := k.newPlace()
	s := k.storeAt(place)
	if _, ok := s.TokenStore.(unlessUpdater); !ok || !s.save(k.numbered(1)) {
		return
	}
	u := s.TokenStore.(unlessUpdater)
	update := func(ctx context.Context, enough func(*authretry.Record) bool, fn updateFunc) (err error) {
		k.in(k.LockTTL+k.limit, clauseEnough, "UpdateUnless", func() { err = u.UpdateUnless(ctx, enough, fn) })
		s.look(err)
		return err
	}
	never := func(*authretry.Record) bool { return false }
	if err := update(context.Background(), never, saving(k.numbered(2))); err != nil {
		k.broken(clauseSaves, "UpdateUnless failed where nobody had the lock: %v", err)
	}
	s.holds(clauseSaves, 2, "after UpdateUnless")

	h := s.hold(k.numbered(3))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err := update(ctx, never, func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) {
		k.broken(clauseKeepsOut, "UpdateUnless called its function, though another one had the lock")
		return nil, nil
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		k.broken(clauseObeys, "the error of UpdateUnless, whose context ended while it waited, does not wrap its error: %v", err)
	}
	if err := h.release(); err != nil {
		k.broken(clauseSaves, "Update failed beside UpdateUnless: %v", err)
	}
	k.checkEnough(place, update)
}

// checkEnough waits for what others save, who save all the time. Now and then who waits gets the lock, but not each time.
func (k *check) checkEnough(place string, update func(context.Context, func(*authretry.Record) bool, updateFunc) error) {
	const savers, attempts = 4, 30
	var stopped atomic.Bool
	var all sync.WaitGroup
	alone := func() (func(), bool) { return func() {}, true }
	for range savers {
		c := counter{k.storeAt(place), alone, k.broken}
		all.Go(func() {
			for !stopped.Load() && !k.IsStopped() {
				if _, err := c.add(); err != nil {
					c.s.look(err)
					k.broken(clauseSaves, "Update failed beside UpdateUnless: %v", err)
					return
				}
			}
		})
	}
	defer all.Wait()
	defer stopped.Store(true)
	reader := k.storeAt(place)
	locked := errors.New("it has the lock")
	for range attempts {
		before, seen := reader.number(), false
		err := update(context.Background(), func(r *authretry.Record) bool {
			n, err := numberOf(r)
			if err != nil {
				k.broken(clauseWhole, "UpdateUnless showed what nobody has saved: %v", err)
			}
			if seen {
				k.broken(clauseEnough, "UpdateUnless went on after enough had returned true")
			}
			seen = n > before
			return seen
		}, func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) { return nil, locked })
		switch {
		case seen && err != nil:
			k.broken(clauseEnough, "UpdateUnless called its function, or failed, after enough had returned true: %v", err)
			return
		case seen:
			return // as it should be
		case !errors.Is(err, locked):
			k.broken(clauseEnough, "UpdateUnless returned neither after enough had returned true nor after its function was called: %v", err)
			return
		}
	}
	k.broken(clauseUnless, "UpdateUnless has not shown what others have saved, in %d calls beside %d that save all the time", attempts, savers)
}
