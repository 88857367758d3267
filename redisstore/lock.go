package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

const releaseTimeout = time.Second

// A lock is one that is held, for all that its holder knows.
type lock struct {
	store  *Store
	id     string // the value of the lock's key, which nobody else has
	value  string // of Key when the lock was taken
	exists bool   // and whether there was one
	unsure bool   // a write may still be under way, so others must wait
}

// errNotHeld is what confirm returns when there is nothing left to confirm.
var errNotHeld = errors.New("it has expired or was removed, or another token has been stored, so others may be refreshing")

// Why a lock was not taken, and may be if it is asked for again.
var (
	errTaken = errors.New("another one has it")
	errLate  = errors.New("the answer of Redis came later than LockTTL")
)

// tryLock asks for the lock once. Each time it is another one, so that the release of one cannot release the next. If another
// one has it, there are both an error and a lock, which is not held, but says what the login is.
func (s *Store) tryLock(ctx context.Context) (*lock, error) {
	l := &lock{store: s, id: rand.Text()}
	asked := time.Now()
	answer, err := s.run(ctx, lockScript, func() { l.release(context.WithoutCancel(ctx)) }, l.id, s.lockTTL().Milliseconds())
	values, _ := answer.([]any)
	if err == nil && len(values) != 2 {
		err = errors.New("a script has returned what it does not return")
	}
	if err != nil {
		return nil, err
	}
	l.value, l.exists = values[1].(string)
	switch {
	case values[0] == int64(0):
		return l, errTaken
	case time.Since(asked) >= s.lockTTL():
		go l.release(context.WithoutCancel(ctx)) // in case that it is still ours
		return nil, errLate
	}
	return l, nil
}

// confirm returns nil only if the lock is still ours, by Redis and by our own clock, and the login can be written.
func (l *lock) confirm(ctx context.Context) error {
	err := l.extend(ctx, l.store.lockTTL())
	if l.store.RefreshWhenDown && ctx.Err() == nil && isDown(err) {
		return nil // as if it had been down before
	}
	return err
}

// extend extends the lock, unless Redis takes longer to say so than limit, which must not be more than LockTTL.
func (l *lock) extend(ctx context.Context, limit time.Duration) error {
	ctx, cancel := within(ctx, limit)
	defer cancel()
	asked := time.Now()
	answer, err := l.store.run(ctx, extendScript, nil, l.id, l.store.lockTTL().Milliseconds(), l.value)
	switch {
	case err == nil && time.Since(asked) >= limit:
		err = errNoAnswer
	case err == nil && answer != int64(1):
		return fmt.Errorf("redisstore: cannot confirm %s: %w", l.store.lockKey(), errNotHeld)
	}
	if err != nil {
		return failed("confirm", l.store.lockKey(), err)
	}
	return nil
}

// keep extends the lock until the function that it returns is called, which releases it.
func (l *lock) keep(ctx context.Context) (release func()) {
	ctx = context.WithoutCancel(ctx)
	working, stop := context.WithCancel(ctx)
	every := l.store.lockTTL() / 3
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-working.Done():
				return
			case <-tick.C:
			}
			if err := l.extend(working, every); errors.Is(err, errNotHeld) {
				return // fn goes on, because what it obtains may still be stored
			}
		}
	}()
	return func() {
		stop()
		if !l.unsure {
			l.release(ctx)
		}
	}
}

// release releases the lock. If that fails, it expires.
func (l *lock) release(ctx context.Context) {
	ctx, cancel := within(ctx, releaseTimeout)
	defer cancel()
	_, _ = l.store.run(ctx, releaseScript, nil, l.id)
}

// write puts data in the place of what was there when the lock was taken.
func (l *lock) write(ctx context.Context, data []byte) error {
	s := l.store
	if s.Seal != nil {
		var err error
		if data, err = s.Seal(data); err != nil {
			return fmt.Errorf("redisstore: Store.Seal failed, so the token is not stored: %w", err)
		}
	}
	ctx, cancel := within(ctx, s.lockTTL())
	defer cancel()
	answer, err := s.run(ctx, writeScript, nil, data, l.value)
	switch {
	case err != nil && !isAnswer(err):
		l.unsure = true
		return fmt.Errorf("%w; the token may have been stored, or be stored yet", failed("write", s.Key, err))
	case err != nil:
		return failed("write", s.Key, err)
	case answer != int64(1):
		return fmt.Errorf("%w: %s", ErrLockLost, s.Key)
	}
	return nil
}
