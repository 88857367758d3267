package redisstore

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/authretry/authretry"
)

const (
	minPoll = 5 * time.Millisecond
	maxPoll = 100 * time.Millisecond
)

// A waiter waits for a lock that another one has. It is woken by who releases the lock or stores a login. Until it can be, or if
// that is not possible, it asks again and again, less and less often. It asks still when it can be, since messages may be
// lost, and the lock of who has crashed expires without one.
type waiter struct {
	store  *Store
	enough func(*authretry.Record) bool // nil: nothing is
	poll   time.Duration

	seen   string // the login that enough was shown last
	exists bool
	shown  bool // and whether it was

	wakeUp *wakeUp   // nil before it waits, or if it cannot be woken
	news   chan news // from there
	ready  bool      // it will be woken
}

// isEnough shows enough a login that it has not seen yet. What cannot be read is left for who gets the lock.
func (w *waiter) isEnough(value string, exists bool) bool {
	if w.enough == nil || w.shown && w.exists == exists && w.seen == value {
		return false
	}
	w.seen, w.exists, w.shown = value, exists, true
	r, err := w.store.decode(value, exists)
	return err == nil && w.enough(r)
}

// wait waits until it is time to ask for the lock again, or ctx ends. It returns true if that need not be.
func (w *waiter) wait(ctx context.Context) (enough bool) {
	if w.news == nil {
		w.news = make(chan news, 1)
		w.wakeUp = w.store.wakeUpFor(w.news)
	}
	delay := w.poll/2 + rand.N(w.poll)
	if w.poll = min(2*w.poll, maxPoll); w.ready {
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
		case n := <-w.news:
			switch {
			case n.lost:
				w.ready = false
				return false
			case w.isEnough(n.login, n.exists):
				return true
			case n.locked:
				timer.Reset(w.patience())
			default: // not all who wait at once, of whom one gets it
				timer.Reset(rand.N(maxPoll))
			}
			w.ready = true
		}
	}
}

// patience returns how long to wait for being woken: the lock of who has crashed expires after LockTTL.
func (w *waiter) patience() time.Duration {
	return w.store.lockTTL()/2 + rand.N(w.store.lockTTL()/4)
}

// end is called when it waits no longer.
func (w *waiter) end() {
	if w.wakeUp != nil {
		w.wakeUp.leave(w.news)
	}
}
