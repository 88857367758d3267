package authretry

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

const (
	maxSources     = 62 << 20 // bytes of all accounts' sources together, but for tokens
	sizeOfSource   = 600      // of one: a TokenSource, and its place in the map
	sourcesTimeout = 30 * time.Second
)

// accountSources remembers what Bearer.Sources has returned for each account. The zero value is ready for use.
type accountSources struct {
	clock atomic.Int64 // counts uses, to find what has not been used for long
	limit int          // of size, for tests; 0: maxSources

	mu    sync.RWMutex // guards what follows, not what is in known
	known map[string]*accountSource
	size  int // of those that may make room, in bytes
}

// An accountSource is the source of one account, or Sources being asked for it.
type accountSource struct {
	account string
	lastUse atomic.Int64
	pinned  bool // it does not count, since it may not make room; guarded by accountSources.mu

	done  chan struct{} // closed when what follows is set
	once  sync.Once     // closes done
	inUse *sourceInUse
	err   error
}

// of returns the source of an account, asking for it if need be.
func (a *accountSources) of(ctx context.Context, account string, ask sourcesFunc) (*sourceInUse, error) {
	if account == "" {
		return nil, errNoAccount
	}
	a.mu.RLock()
	s := a.known[account]
	a.mu.RUnlock()
	if s == nil {
		s = a.add(account, ask)
	}
	s.lastUse.Store(a.clock.Add(1))
	select {
	case <-s.done:
		return s.inUse, s.err
	default:
	}
	select {
	case <-s.done:
		return s.inUse, s.err
	case <-ctx.Done():
		return nil, waitError(ctx, "Bearer.Sources")
	}
}

// A sourcesFunc is Bearer.Sources.
type sourcesFunc = func(ctx context.Context, account string) (oauth2.TokenSource, error)

// add asks for the source of an account, unless somebody else has begun to.
func (a *accountSources) add(account string, ask sourcesFunc) *accountSource {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.known[account]; s != nil {
		return s
	}
	s := &accountSource{account: strings.Clone(account), done: make(chan struct{})}
	s.lastUse.Store(a.clock.Add(1))
	if a.known == nil {
		a.known = make(map[string]*accountSource)
	}
	a.known[s.account] = s
	a.size += s.size()
	a.shrinkLocked()
	go a.ask(s, ask)
	return s
}

// ask asks Sources, for all who wait. If it does not return in time, those who come later ask again.
func (a *accountSources) ask(s *accountSource, ask sourcesFunc) {
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), accountKey{}, s.account), sourcesTimeout)
	defer cancel()
	overdue := context.AfterFunc(ctx, func() {
		a.finish(s, nil, noSource(errors.New("it took more than 30 seconds")))
	})
	defer overdue()
	var src oauth2.TokenSource
	err := noSource(errors.New("it has ended its goroutine"))
	defer func() {
		if p := recover(); p != nil {
			err = noSource(panicked(p))
		}
		a.finish(s, src, err)
	}()
	got, failure := ask(ctx, s.account)
	switch {
	case failure != nil:
		err = noSource(failure) // which calls what is not ours, too
	case isNilSource(got):
		err = noSource(errors.New("it returned neither a source nor an error"))
	default:
		src, err = got, nil
	}
}

// noSource is the error for a call of Bearer.Sources that failed.
func noSource(err error) error {
	return &tokenError{text: "Bearer.Sources has no source for the account: " + describeCause(err), causes: []error{err}}
}

// finish tells those who wait. What has failed is not remembered.
func (a *accountSources) finish(s *accountSource, src oauth2.TokenSource, err error) {
	s.once.Do(func() {
		defer close(s.done)
		if err == nil {
			s.inUse = &sourceInUse{TokenSource: src}
			return
		}
		s.err = err
		a.mu.Lock()
		defer a.mu.Unlock()
		a.removeLocked(s)
	})
}

func (a *accountSources) forget(account string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.known[account]; s != nil {
		a.removeLocked(s)
	}
}

func (a *accountSources) removeLocked(s *accountSource) {
	if a.known[s.account] == s {
		delete(a.known, s.account)
		a.countLocked(s, true)
	}
}

// countLocked has s count, or not if it is pinned or gone.
func (a *accountSources) countLocked(s *accountSource, pinned bool) {
	switch {
	case pinned && !s.pinned:
		a.size -= s.size()
	case !pinned && s.pinned:
		a.size += s.size()
	}
	s.pinned = pinned
}

func (s *accountSource) size() int { return sizeOfSource + len(s.account) }

// shrinkLocked removes what has not been used for long, as long as there is too much: the oldest among a few taken at
// random, which is as good as the oldest of all.
func (a *accountSources) shrinkLocked() {
	const tries = 32 // in which there may be none that can go; then others are looked at the next time
	limit := cmp.Or(a.limit, maxSources)
	for range tries {
		if a.size <= limit {
			return
		}
		var oldest *accountSource
		n := 0
		for _, s := range a.known {
			if oldest == nil || s.lastUse.Load() < oldest.lastUse.Load() {
				oldest = s
			}
			if n++; n == 16 {
				break
			}
		}
		if a.countLocked(oldest, oldest.mayNotGo()); oldest.pinned {
			oldest.lastUse.Store(a.clock.Add(1)) // so that it is not looked at again before others
		} else {
			a.removeLocked(oldest)
		}
	}
}

// mayNotGo reports whether s is being asked for, refreshes, or has a login that nobody else has.
func (s *accountSource) mayNotGo() bool {
	select {
	case <-s.done:
	default:
		return true
	}
	src, ok := s.inUse.TokenSource.(*TokenSource)
	return ok && src.isOnlyCopy()
}
