package storetest

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"time"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// checkValues checks that what is saved comes back.
func checkValues(k *check) {
	place := k.newPlace()
	s, other := k.storeAt(place), k.storeAt(place)
	if r, err := s.load(); err != nil || r != nil {
		k.broken(clauseNone, "Load returned a Record or an error, though nothing has been saved yet: %v", err)
	}
	err := s.update(func(_ context.Context, current *authretry.Record, _ confirmFunc) (*authretry.Record, error) {
		if current != nil {
			k.broken(clauseNoneThere, "Update's function got a Record, though nothing has been saved yet")
		}
		return nil, nil
	})
	if err != nil {
		k.broken(clauseNoneThere, "Update failed where nothing has been saved yet: %v", err)
	}
	for _, v := range []struct {
		name string
		r    *authretry.Record
	}{
		{"a Record with everything", whole()},
		{"a token alone", &authretry.Record{Token: &oauth2.Token{AccessToken: secret}}},
		{"a refresh token alone", &authretry.Record{Token: &oauth2.Token{RefreshToken: secret}}},
		{"a token with a scope of its own", &authretry.Record{Token: (&oauth2.Token{AccessToken: secret}).WithExtra(map[string]any{"scope": "u v"})}},
		{"the longest Record", largest(k.MaxSize)},
		{"a short Record after a long one", &authretry.Record{Token: &oauth2.Token{AccessToken: secret + "2"}}},
	} {
		if !s.save(v.r) {
			return
		}
		for _, reader := range []store{s, other, k.storeAt(place)} {
			reader.returns(v.name, v.r)
			reader.show()
		}
	}
}

// returns reports if a store has another Record than want, to those who read and to those who update.
func (s store) returns(name string, want *authretry.Record) {
	judge := func(c clause, got *authretry.Record) {
		if got == nil {
			s.k.broken(c, "%s was saved, and nothing comes back", name)
		} else if fields := differences(want, got); fields != nil {
			s.k.broken(clauseWhole, "%s was saved, and comes back with another %s", name, strings.Join(fields, ", "))
		}
	}
	got, err := s.load()
	if err != nil {
		s.k.broken(clauseNone, "Load failed where %s has been saved: %v", name, err)
		return
	}
	judge(clauseNone, got)
	err = s.update(func(_ context.Context, current *authretry.Record, _ confirmFunc) (*authretry.Record, error) {
		judge(clauseNoneThere, current)
		return current, nil
	})
	if err != nil {
		s.k.broken(clauseSame, "Update failed where its function returned what it was given: %v", err)
	}
}

// checkFailures checks that nothing is saved if the function fails, whichever way, and that the lock is free then.
func checkFailures(k *check) {
	place := k.newPlace()
	s, other := k.storeAt(place), k.storeAt(place)
	if !s.save(k.numbered(1)) {
		return
	}
	failure := errors.New("the function has failed")
	err := s.update(func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) {
		return k.numbered(2), failure
	})
	if !errors.Is(err, failure) {
		k.broken(clauseFails, "its function's error is not wrapped by that of Update: %v", err)
	}
	s.holds(clauseFails, 1, "after a function that failed and returned another Record")
	if err := s.update(keeping); err != nil {
		k.broken(clauseSame, "Update failed where its function returned nil: %v", err)
	}
	s.holds(clauseSame, 1, "after a function that returned nil")
	for name, r := range map[string]*authretry.Record{"an empty Record": {}, "a Record of more than 1 MiB": largest(1<<20 + 1)} {
		if err := s.update(saving(r)); err == nil {
			k.broken(clauseSaves, "Update returned nil for %s", name)
		}
		s.holds(clauseSaves, 1, "after "+name)
	}
	for name, end := range map[string]func(){"panicked": func() { panic(failure) }, "ended its goroutine": runtime.Goexit} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer func() { _ = recover() }()
			_ = s.Update(context.Background(), func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) {
				end()
				return nil, nil
			})
		}()
		k.in(k.limit, clauseReturns, "Update, whose function "+name+",", func() { <-done })
		_ = other.updateWithin(k.LockTTL+k.limit, clauseFree, context.Background(), keeping)
		s.holds(clauseFails, 1, "after a function that "+name)
	}
}

// checkContexts checks Update with contexts that end, other than while it waits.
func checkContexts(k *check) {
	s := k.storeAt(k.newPlace())
	if !s.save(k.numbered(1)) {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	err := s.updateWithin(k.limit, clauseReturns, ctx, func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) {
		cancel()
		return k.numbered(2), nil
	})
	if err != nil {
		k.broken(clauseEnded, "Update failed, whose context ended while its function was at work: %v", err)
	}
	s.holds(clauseEnded, 2, "after the context ended while the function was at work")
	called := false
	err = s.updateWithin(k.limit, clauseObeys, ctx, func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) {
		called = true
		return nil, nil
	})
	if called || !errors.Is(err, context.Canceled) {
		k.broken(clauseObeys, "Update under a context that had ended before: the function was called: %v; the error: %v", called, err)
	}
	if r, err := s.Load(ctx); err != nil && !errors.Is(err, context.Canceled) || err != nil && r != nil {
		k.broken(clauseErrors, "Load under a context that had ended before failed for another reason: %v", err)
	}
	_ = s.update(keeping) // which the lock must be free for
}

// checkConfirm checks the function that Update gives to its own.
func checkConfirm(k *check) {
	place := k.newPlace()
	s, other := k.storeAt(place), k.storeAt(place)
	for n := range 3 { // with nothing there, with a Record, and once more by another store
		if n == 2 {
			s = k.storeAt(place)
		}
		var kept confirmFunc
		err := s.update(func(ctx context.Context, _ *authretry.Record, confirm confirmFunc) (*authretry.Record, error) {
			kept = confirm
			for range 3 {
				if err := confirm(ctx); err != nil {
					s.look(err)
					k.broken(clauseConfirm, "confirm failed, though the lock holds: %v", err)
				}
				other.holds(clauseSame, n, "after confirm")
			}
			ended, cancel := context.WithCancel(ctx)
			cancel()
			if confirm(ended) == nil {
				k.broken(clauseConfirm, "confirm returned nil under a context that had ended")
			}
			return k.numbered(n + 1), nil
		})
		if err != nil {
			k.broken(clauseSaves, "Update failed after confirm: %v", err)
			return
		}
		s.holds(clauseSaves, n+1, "after confirm and Update")
		k.in(k.limit, clauseReturns, "confirm", func() { err = kept(context.Background()) })
		if s.look(err); err == nil {
			k.broken(clauseConfirm, "confirm returned nil after Update had returned")
		}
		_ = other.updateWithin(k.limit, clauseFree, context.Background(), keeping)
		s.holds(clauseSaves, n+1, "after confirm, called too late")
	}
}

// in100ms returns a context for what must not take long.
func in100ms() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 100*time.Millisecond)
}
