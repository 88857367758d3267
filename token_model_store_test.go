package authretry

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A modelStore is the TokenStore of a model: one place that all its processes share. It fails as it is told.
type modelStore struct {
	w       *tokenModel
	certain bool // the lock ends with its holder, as that of a file; or else only after a time, as that of a key in Redis

	mu     sync.Mutex // never held over a wait
	saved  *Record
	holder *modelHold

	failLoad, failLock, failConfirm bool
	writes                          []writeFault // of the next writes
	slow                            bool
}

// A writeFault is what goes wrong with a write.
type writeFault byte

const (
	writeFails   writeFault = iota // nothing is written
	writeUnheard                   // it is written, but the writer does not learn of it
	writeLost                      // it is answered, but not written: a replica was promoted that did not have it
)

// A modelHold is one holder's lock.
type modelHold struct {
	proc      *process
	until     time.Time // of a lock that is not certain, once its holder has crashed
	confirmed bool      // and nothing has been sent since
	sent      []*send   // under it
}

const modelLockTTL = 5 * time.Second

var errModelStore = errors.New("the store is down")

// A processStore is the store as a process sees it.
type processStore struct {
	*modelStore
	proc *process
}

func (s processStore) Load(ctx context.Context) (*Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc.crashed.Load() || s.failLoad {
		return nil, errModelStore
	}
	return s.saved, nil
}

func (s processStore) Update(ctx context.Context, fn func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	h := &modelHold{proc: s.proc}
	for !s.take(h) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		if s.proc.crashed.Load() {
			return errModelStore
		}
	}
	s.mu.Lock()
	failed, current := s.failLock || s.proc.crashed.Load(), s.saved
	s.mu.Unlock()
	defer s.release(h)
	if failed {
		return errModelStore
	}
	s.proc.saw(current)
	r, err := fn(context.WithValue(ctx, holdKey{}, h), current, func(context.Context) error { return s.confirm(h) })
	if err != nil || r == nil || r.isSame(current) {
		return err
	}
	if s.isSlow() {
		time.Sleep(2 * time.Second)
	}
	return s.write(h, current, r)
}

type holdKey struct{}

func (holdKey) ours() {}

// take takes the lock, if it is free.
func (s processStore) take(h *modelHold) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.holder; old != nil && (!old.proc.crashed.Load() || !s.certain && time.Now().Before(old.until)) {
		return false
	}
	s.holder = h
	return true
}

func (s processStore) release(h *modelHold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder == h && !h.proc.crashed.Load() {
		s.holder = nil
	}
}

func (s processStore) confirm(h *modelHold) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder != h || s.failConfirm || h.proc.crashed.Load() {
		return errModelStore
	}
	h.confirmed = true
	return nil
}

func (s processStore) isSlow() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slow
}

// write writes a record in place of the one that it was made from.
func (s processStore) write(h *modelHold, current, r *Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.proc.crashed.Load() {
		return errModelStore
	}
	if s.saved != current && !s.saved.isSame(current) {
		excuse(h.sent)
		s.w.disturb(r)
		return errors.New("another record is there")
	}
	fault := writeFault(255)
	if len(s.writes) > 0 {
		fault, s.writes = s.writes[0], s.writes[1:]
	}
	switch fault {
	case writeFails, writeLost:
		excuse(h.sent)
		s.w.disturb(r)
		if fault == writeLost {
			s.w.pardon()
			s.w.forget(h.proc, r)
			if r.LoggedOut {
				s.w.forsake()
			}
			return nil
		}
		return errModelStore
	}
	s.w.checkWrite(h.proc, current, r)
	s.saved = r
	s.proc.saw(r)
	if fault == writeUnheard {
		s.w.disturb(r)
		return errModelStore
	}
	return nil
}

// crash leaves the lock of a process that has ended to others.
func (s *modelStore) crash(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder != nil && s.holder.proc == p {
		s.holder.until = time.Now().Add(modelLockTTL)
		excuse(s.holder.sent)
	}
}

// expire takes the lock from whoever has it.
func (s *modelStore) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder != nil && !s.certain {
		excuse(s.holder.sent)
		s.holder.confirmed = false
		s.holder = nil
	}
}

// evict removes the record.
func (s *modelStore) evict() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.w.disturb(s.saved)
	s.w.pardon()
	s.w.forgetAll()
	s.saved = nil
}

func (s *modelStore) record() *Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved
}

func (s *modelStore) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLoad, s.failLock, s.failConfirm, s.slow, s.writes = false, false, false, false, nil
}
