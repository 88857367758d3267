package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry"
)

// A holder is an Update whose function is at work until it is released.
type holder struct {
	release func() error // returns what Update did
}

// hold has s hold the lock, and return r when it is released.
func (s store) hold(r *authretry.Record) holder {
	entered, leave, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var enter sync.Once
	go func() {
		done <- s.Update(context.Background(), func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) {
			enter.Do(func() { close(entered) })
			<-leave
			return r, nil
		})
	}()
	var err error
	s.k.in(s.k.limit, clauseReturns, "Update", func() {
		select {
		case <-entered:
		case err = <-done:
			done <- err
		}
	})
	var once sync.Once
	return holder{func() error {
		once.Do(func() { close(leave) })
		s.k.in(s.k.limit, clauseReturns, "Update", func() { err = <-done; done <- err })
		s.look(err)
		return err
	}}
}

// checkWaiting checks those who come while another one has the lock: who reads does not wait, who waits obeys the context,
// and who has given up leaves nothing behind.
func checkWaiting(k *check) {
	place := k.newPlace()
	s, other := k.storeAt(place), k.storeAt(place)
	if !s.save(k.numbered(1)) {
		return
	}
	h := s.hold(k.numbered(2))
	defer h.release()
	for _, reader := range []store{s, other, k.storeAt(place)} {
		reader.holds(clauseLockFree, 1, "while another one has the lock")
	}
	held := time.Now()
	neverCalled := func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) {
		k.broken(clauseKeepsOut, "Update called its function, though another one had the lock for %v", time.Since(held).Round(time.Millisecond))
		return nil, nil
	}
	// Longer than a lock lasts that is not extended.
	deadline, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond+2*k.LockTTL)
	defer cancel()
	ended, end := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, end)
	var all sync.WaitGroup
	for range 10 {
		for _, w := range []struct {
			ctx  context.Context
			want error
		}{{deadline, context.DeadlineExceeded}, {ended, context.Canceled}} {
			waiter := k.storeAt(place)
			all.Go(func() {
				err := waiter.updateWithin(k.limit, clauseObeys, w.ctx, neverCalled)
				if !errors.Is(err, w.want) {
					k.broken(clauseObeys, "the error of Update, whose context ended while it waited, does not wrap %v: %v", w.want, err)
				}
			})
		}
	}
	all.Wait()
	if k.IsStopped() {
		return
	}
	if err := h.release(); err != nil {
		k.broken(clauseSaves, "Update failed, whose function took a while: %v", err)
	}
	err := other.updateWithin(k.limit, clauseFree, context.Background(), func(_ context.Context, current *authretry.Record, _ confirmFunc) (*authretry.Record, error) {
		if n, err := numberOf(current); err != nil || n != 2 {
			k.broken(clauseCurrent, "Update's function got %s rather than what the one before has saved: %v", nameOf(n), err)
		}
		return nil, nil
	})
	if err != nil {
		k.broken(clauseObeys, "Update failed after others had given up waiting: %v", err)
	}
}

// A counter adds to the number of the Record. It finds out if two do so at once.
type counter struct {
	s      store
	enter  func() (leave func(), alone bool)
	broken func(clause, string, ...any)
}

// add adds one, and returns the sum.
func (c counter) add() (n int, err error) {
	err = c.s.Update(context.Background(), func(_ context.Context, current *authretry.Record, _ confirmFunc) (*authretry.Record, error) {
		leave, alone := c.enter()
		defer leave()
		if !alone {
			c.broken(clauseKeepsOut, "two had the lock at once")
		}
		var err error
		if n, err = numberOf(current); err != nil {
			return nil, fmt.Errorf("the function of Update got %w", err)
		}
		time.Sleep(time.Millisecond) // so that others come meanwhile
		n++
		next := c.s.k.numbered(n)
		next.ClientID = rand.Text() // so that two who had the lock at once have not saved the same
		return next, nil
	})
	return n, err
}

// checkGoroutines has goroutines count, with one store and with several, and compares the sum.
func checkGoroutines(k *check) {
	const goroutines, times = 8, 8
	known, place := len(k.Errs()), k.newPlace()
	shared := k.storeAt(place)
	var inside atomic.Int32
	enter := func() (func(), bool) { return func() { inside.Add(-1) }, inside.Add(1) == 1 }
	var all sync.WaitGroup
	for i := range goroutines {
		s := shared
		if i%2 == 0 {
			s = k.storeAt(place)
		}
		all.Go(func() {
			k.in(times*k.limit, clauseReturns, "Update", func() {
				for range times {
					if _, err := (counter{s, enter, k.broken}).add(); err != nil {
						s.look(err)
						k.broken(clauseConcurrent, "Update failed beside others: %v", err)
						return
					}
					_, _ = s.load()
				}
			})
		})
	}
	all.Wait()
	if n := shared.number(); n != goroutines*times && len(k.Errs()) == known {
		k.broken(clauseCurrent, "%d calls of Update have counted to %d", goroutines*times, n)
	}
}

// checkReading reads while others write all the time.
func checkReading(k *check) {
	place := k.newPlace()
	writer, reader := k.storeAt(place), k.storeAt(place)
	alone := func() (func(), bool) { return func() {}, true }
	done := make(chan error, 1)
	go func() {
		for range 30 {
			if _, err := (counter{writer, alone, k.broken}).add(); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for seen := 0; ; {
		n := reader.number()
		switch {
		case n < 0:
			return
		case n < seen:
			k.broken(clauseForward, "Load returned an older Record than before")
		}
		seen = n
		select {
		case err := <-done:
			if err != nil {
				k.broken(clauseSaves, "Update failed beside those who read: %v", err)
			}
			return
		default:
		}
	}
}
