package dpop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry"
)

const (
	maxAccounts    = 100_000
	sourcesTimeout = 30 * time.Second
)

// accounts remembers what Scheme.Sources has returned for each account. The zero value is ready for use.
type accounts struct {
	clock atomic.Int64 // counts uses, to find what has not been used for long
	limit int          // for tests; 0: maxAccounts

	mu     sync.RWMutex // guards what follows, not what is in all
	all    map[string]*account
	pinned int // of those in all that may not make room, and so do not count
}

// An account is the login of an account, or Sources being asked for it.
type account struct {
	name     string
	lastUse  atomic.Int64
	isPinned bool // guarded by accounts.mu

	done  chan struct{} // closed when what follows is set
	login *login
	err   error
}

type sourcesFunc = func(ctx context.Context, account string) (*authretry.TokenSource, *Key, error)

// of returns the login of an account, asking for it if need be.
func (a *accounts) of(ctx context.Context, name string, ask sourcesFunc) (*login, error) {
	if name == "" {
		return nil, errNoAccount
	}
	a.mu.RLock()
	one := a.all[name]
	a.mu.RUnlock()
	if one == nil {
		one = a.add(name, ask)
	}
	one.lastUse.Store(a.clock.Add(1))
	select {
	case <-one.done:
		return one.login, one.err
	default:
	}
	select {
	case <-one.done:
		return one.login, one.err
	case <-ctx.Done():
		return nil, fmt.Errorf("dpop: gave up waiting for Scheme.Sources: %w", context.Cause(ctx))
	}
}

// known returns the login of an account, or nil if it is not known at present.
func (a *accounts) known(name string) *login {
	a.mu.RLock()
	one := a.all[name]
	a.mu.RUnlock()
	if one == nil {
		return nil
	}
	select {
	case <-one.done:
		return one.login
	default:
		return nil
	}
}

// add asks for the login of an account, unless somebody else has begun to.
func (a *accounts) add(name string, ask sourcesFunc) *account {
	a.mu.Lock()
	defer a.mu.Unlock()
	if one := a.all[name]; one != nil {
		return one
	}
	one := &account{name: strings.Clone(name), done: make(chan struct{})}
	one.lastUse.Store(a.clock.Add(1))
	if a.all == nil {
		a.all = make(map[string]*account)
	}
	a.all[one.name] = one
	a.shrinkLocked()
	go a.ask(one, ask)
	return one
}

// An answered is what Sources has returned.
type answered struct {
	source *authretry.TokenSource
	key    *Key
	err    error
}

// ask asks Sources, for all who wait. If it does not return in time, those who come later ask again.
func (a *accounts) ask(one *account, ask sourcesFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), sourcesTimeout)
	defer cancel()
	result := make(chan answered, 1)
	go func() {
		r := answered{err: errors.New("it has ended its goroutine")}
		defer func() {
			if p := recover(); p != nil {
				r = answered{err: fmt.Errorf("it panicked with a value of type %T", p)}
			}
			result <- r
		}()
		r.source, r.key, r.err = ask(ctx, one.name)
	}()
	var r answered
	select {
	case r = <-result:
	case <-ctx.Done():
		r.err = errors.New("it took more than 30 seconds")
	}
	if r.err == nil && (r.source == nil || r.key == nil) {
		r.err = errors.New("it returned neither a source with a key nor an error")
	}
	defer close(one.done)
	if r.err == nil {
		one.login = &login{source: r.source, key: r.key}
		return
	}
	one.err = fmt.Errorf("dpop: Scheme.Sources has no source for the account: %w", r.err)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.removeLocked(one) // it is asked again
}

func (a *accounts) forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if one := a.all[name]; one != nil {
		a.removeLocked(one)
	}
}

func (a *accounts) removeLocked(one *account) {
	if a.all[one.name] == one {
		delete(a.all, one.name)
		if one.isPinned {
			a.pinned--
		}
	}
}

// shrinkLocked removes what has not been used for long, as long as there is too much: the oldest among a few taken at
// random, which is as good as the oldest of all.
func (a *accounts) shrinkLocked() {
	const tries = 32 // in which there may be none that can go; then others are looked at the next time
	for range tries {
		if len(a.all)-a.pinned <= cmp.Or(a.limit, maxAccounts) {
			return
		}
		var oldest *account
		looked := 0
		for _, one := range a.all {
			if oldest == nil || one.lastUse.Load() < oldest.lastUse.Load() {
				oldest = one
			}
			if looked++; looked == 16 {
				break
			}
		}
		switch pins := oldest.mayNotGo(); {
		case !pins:
			a.removeLocked(oldest)
			continue
		case !oldest.isPinned:
			oldest.isPinned = true
			a.pinned++
		}
		oldest.lastUse.Store(a.clock.Add(1)) // so that it is not looked at again before others
	}
}

// mayNotGo reports whether an account is being asked for, or has a login that nobody else has.
func (one *account) mayNotGo() bool {
	select {
	case <-one.done:
	default:
		return true
	}
	if one.login == nil || one.login.source.Store != nil {
		return false
	}
	t := one.login.source.Initial
	if r := one.login.last.Load(); r != nil {
		t = r.token
	}
	return t != nil && t.RefreshToken != ""
}
