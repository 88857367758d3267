package redisstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/crowd"
)

const (
	minPoll = 5 * time.Millisecond
	maxPoll = 100 * time.Millisecond
)

// A waiter waits for a lock that another one has.
type waiter struct {
	store  *Store
	enough func(*authretry.Record) bool // nil: nothing is
	crowd  *crowd.Crowd[loginKey, news]
	told   chan news

	seen   string // the login that enough was shown last
	exists bool
	shown  bool // and whether it was

	waited     bool          // for somebody else
	poll       time.Duration // how long it waits before it asks again, if it will not be told
	subscribed bool          // it will be told
}

var errOthersWait = errors.New("others are waiting for it")

// lock waits for the lock until ctx ends. If enough returns true for a login that another one has stored meanwhile, there is
// neither a lock nor an error.
func (s *Store) lock(ctx context.Context, enough func(*authretry.Record) bool) (*lock, error) {
	w := &waiter{store: s, enough: enough, poll: minPoll}
	w.crowd, w.told = crowds.Join(s.loginKey())
	defer w.crowd.Leave(w.told)
	for {
		n, turn, waited, err := w.crowd.Await(ctx, w.told)
		w.waited = w.waited || waited
		switch {
		case err != nil:
			return nil, failed("lock", s.lockKey(), fmt.Errorf("%w: %w", errOthersWait, err))
		case turn:
			defer w.crowd.EndTurn(w.told)
			l, err := w.ask(ctx)
			if err != nil && ctx.Err() == nil {
				w.crowd.Tell(w.crowd.Mark(), news{err: err}) // so that others do not wait for the same, one after the other
			}
			return l, err
		case n.err != nil || w.isEnough(n):
			return nil, n.err
		}
	}
}

// ask asks for the lock until ctx ends. In between it is woken by who releases the lock or stores a login. Until it can be, or if
// that is not possible, it asks again and again, less and less often. It asks still when it can be, since messages may be lost, and the
// lock of who has crashed expires without one.
func (w *waiter) ask(ctx context.Context) (*lock, error) {
	s := w.store
	w.subscribed = w.crowd.Last().subscribed
	var why error
	for {
		at := w.crowd.Mark()
		l, err := s.tryLock(ctx)
		w.waited = w.waited || err != nil
		switch {
		case err == nil && w.waited && w.isEnough(news{login: l.value, exists: l.exists}): // stored just before the lock was free
			l.release(context.WithoutCancel(ctx))
			return nil, nil
		case err == nil:
			return l, nil
		case ctx.Err() != nil && why != nil:
			return nil, failed("lock", s.lockKey(), fmt.Errorf("%w: %w", why, ctx.Err()))
		case !errors.Is(err, errTaken) && !errors.Is(err, errLate):
			return nil, failed("lock", s.lockKey(), err)
		}
		why = err
		w.crowd.Once.Do(func() { go s.listen(w.crowd) })
		if l != nil {
			n := news{login: l.value, exists: l.exists, locked: true}
			w.crowd.TellUnless(func(last news) bool { return last.subscribed }, at, n) // who then hear of what comes later
			if w.isEnough(n) {
				return nil, nil
			}
		}
		if w.wait(ctx) {
			return nil, nil
		}
	}
}

// wait waits until it is time to ask for the lock again, or ctx ends. It returns true if that need not be.
func (w *waiter) wait(ctx context.Context) (enough bool) {
	delay := w.poll/2 + w.store.randomBelow(w.poll)
	if w.poll = min(2*w.poll, maxPoll); w.subscribed {
		delay = w.patience()
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return false
		case n := <-w.told:
			w.subscribed = n.subscribed
			switch {
			case n.lost:
				return false
			case w.isEnough(n):
				return true
			case n.locked && w.subscribed:
				timer.Reset(w.patience())
			case n.locked: // as we know
			default: // not all who wait at once, of whom one gets it
				timer.Reset(w.store.randomBelow(maxPoll))
			}
		}
	}
}

// isEnough shows enough a login that it has not seen yet. What cannot be read is left for who gets the lock.
func (w *waiter) isEnough(n news) bool {
	if w.enough == nil || n.lost || w.shown && w.exists == n.exists && w.seen == n.login {
		return false
	}
	w.seen, w.exists, w.shown = n.login, n.exists, true
	r, err := w.store.decode(n.login, n.exists)
	return err == nil && w.enough(r)
}

// patience returns how long to wait for being told: the lock of who has crashed expires after LockTTL.
func (w *waiter) patience() time.Duration {
	return w.store.lockTTL()/2 + w.store.randomBelow(w.store.lockTTL()/4)
}

func (s *Store) randomBelow(below time.Duration) time.Duration {
	if s.random != nil {
		return s.random(below)
	}
	return rand.N(below)
}
