package storetest

import (
	"context"
	"errors"
	"strings"

	"github.com/authretry/authretry"
)

// meddle does something to the store behind its back. It returns false, and reports it, if that fails.
func (k *check) meddle(name string, do func(context.Context) error) (done bool) {
	ctx, cancel := context.WithTimeout(context.Background(), k.limit)
	defer cancel()
	err := do(ctx)
	if err != nil {
		k.misused("Options.%s failed: %v", name, err)
	}
	return err == nil
}

// meddleUnderLock is meddle while somebody has the lock, which may keep others from writing. It returns false if it does.
func (k *check) meddleUnderLock(name string, do func(context.Context) error) (done bool) {
	ctx, cancel := in100ms()
	defer cancel()
	switch err := do(ctx); {
	case err == nil:
		return true
	case ctx.Err() == nil:
		k.misused("Options.%s failed: %v", name, err)
	}
	return false
}

// checkLostLock takes the lock from its holder, and sees what that one still does.
func checkLostLock(k *check) {
	if k.TakeLock == nil {
		return
	}
	for _, v := range []struct {
		name  string
		saved bool // by another one, before the first one does
	}{{"and nobody else has saved", false}, {"and another one has saved", true}} {
		place := k.newPlace()
		s, other := k.storeAt(place), k.storeAt(place)
		if !s.save(k.numbered(1)) {
			return
		}
		taken := false
		err := s.update(func(ctx context.Context, _ *authretry.Record, confirm confirmFunc) (*authretry.Record, error) {
			if err := confirm(ctx); err != nil {
				k.broken(clauseConfirm, "confirm failed, though the lock holds: %v", err)
			}
			if taken = k.meddle("TakeLock", func(ctx context.Context) error { return k.TakeLock(ctx, place) }); !taken {
				return nil, nil
			}
			if v.saved {
				if err := other.updateAfterKill(saving(k.numbered(2))); err != nil {
					k.broken(clauseFreed, "Update failed after the lock was taken from its holder: %v", err)
				}
			}
			err := confirm(ctx)
			if s.look(err); err == nil {
				k.broken(clauseConfirm, "confirm returned nil after the lock was lost, %s", v.name)
			}
			return k.numbered(3), nil
		})
		switch {
		case !taken:
			return
		case v.saved && err == nil:
			k.broken(clauseCompares, "Update returned nil after the lock was lost, %s", v.name)
		case v.saved:
			s.holds(clauseCompares, 2, "after the lock was lost, "+v.name)
		case err == nil:
			s.holds(clauseSaves, 3, "after the lock was lost, "+v.name)
		default:
			s.holds(clauseCompares, 1, "after the lock was lost, "+v.name)
		}
		if err := other.updateAfterKill(keeping); err != nil {
			k.broken(clauseFree, "Update failed after somebody else had lost the lock: %v", err)
		}
	}
}

// checkPut has another Record come without the lock.
func checkPut(k *check) {
	if k.Put == nil {
		return
	}
	place := k.newPlace()
	s := k.storeAt(place)
	if !s.save(k.numbered(1)) {
		return
	}
	foreign, err := k.numbered(2).Encode()
	if err != nil {
		k.misused("%v", err)
		return
	}
	put := false
	err = s.update(func(ctx context.Context, _ *authretry.Record, confirm confirmFunc) (*authretry.Record, error) {
		if put = k.meddleUnderLock("Put", func(ctx context.Context) error { return k.Put(ctx, place, foreign) }); !put {
			return nil, nil
		}
		err := confirm(ctx)
		if s.look(err); err == nil {
			k.broken(clauseRoom, "confirm returned nil after another Record had come, which cannot be replaced")
		}
		return k.numbered(3), nil
	})
	if !put {
		return
	}
	if err == nil {
		k.broken(clauseCompares, "Update returned nil, though another Record had come")
	}
	s.holds(clauseCompares, 2, "after another Record had come")
}

// checkRemoved has the Record vanish, beside those who read and under the lock.
func checkRemoved(k *check) {
	if k.Remove == nil {
		return
	}
	place := k.newPlace()
	s := k.storeAt(place)
	remove := func(ctx context.Context) error { return k.Remove(ctx, place) }
	if !s.save(k.numbered(1)) || !k.meddle("Remove", remove) {
		return
	}
	if r, err := s.load(); err != nil || r != nil {
		k.broken(clauseVanished, "Load returned a Record or an error, though what was saved has vanished: %v", err)
	}
	err := s.update(func(_ context.Context, current *authretry.Record, _ confirmFunc) (*authretry.Record, error) {
		if current != nil {
			k.broken(clauseVanished, "Update's function got a Record, though what was saved has vanished")
		}
		return k.numbered(2), nil
	})
	if err != nil {
		k.broken(clauseVanished, "Update failed, though what was saved has only vanished: %v", err)
		return
	}
	removed := false
	err = s.update(func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) {
		if removed = k.meddleUnderLock("Remove", remove); !removed {
			return nil, nil // or it is done when the lock is free
		}
		return k.numbered(3), nil
	})
	switch n := s.number(); {
	case n < 0 || !removed && (n == 0 || n == 2):
	case !removed, err == nil && n != 3, err != nil && n != 0:
		k.broken(clauseVanished, "there is %s after the Record vanished under the lock, and Update returned %v", nameOf(n), err)
	}
}

// checkSpoiled makes it impossible to save.
func checkSpoiled(k *check) {
	if k.Spoil == nil {
		return
	}
	place := k.newPlace()
	s := k.storeAt(place)
	if !s.save(k.numbered(1)) {
		return
	}
	spoil := func() func() error {
		repair, err := k.Spoil(context.Background(), place)
		if err != nil {
			k.misused("Options.Spoil failed: %v", err)
			return nil
		}
		return repair
	}
	repaired := func(repair func() error, n int) bool {
		if repair == nil {
			return false
		}
		if err := repair(); err != nil {
			k.misused("the repair of Options.Spoil failed: %v", err)
			return false
		}
		s.holds(clauseRoom, n, "after it was impossible to save for a while")
		if !s.save(k.numbered(1)) {
			return false
		}
		s.holds(clauseSaves, 1, "after it was impossible to save for a while")
		return true
	}
	repair := spoil()
	for _, spoiled := range []store{s, k.storeAt(place)} {
		confirmed := false
		err := spoiled.update(func(ctx context.Context, _ *authretry.Record, confirm confirmFunc) (*authretry.Record, error) {
			err := confirm(ctx)
			s.look(err)
			confirmed = err == nil
			return nil, err
		})
		if confirmed || err == nil {
			k.broken(clauseRoom, "confirm returned nil where it is impossible to save")
		}
	}
	if !repaired(repair, 1) {
		return
	}
	var late func() error
	err := s.update(func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) {
		late = spoil()
		return k.numbered(2), nil
	})
	if err == nil {
		k.broken(clauseSafe, "Update returned nil where it is impossible to save")
	}
	repaired(late, 1)
}

// damaged returns values that are no Record. They are large, and made only where they are needed: a child process has no use for them.
func damaged() map[string]string {
	return map[string]string{
		"nothing":            "",
		"a torn Record":      `{"version":1,"access_token":"` + secret,
		"no token":           `{"version":1}`,
		"a list":             `["` + secret + `"]`,
		"null":               "null",
		"another type":       `{"version":1,"access_token":["` + secret + `"]}`,
		"a version below 0":  `{"version":-1,"access_token":"` + secret + `"}`,
		"zeros":              strings.Repeat("\x00", 4096),
		"more than 1 MiB":    `{"version":1,"access_token":"` + secret + strings.Repeat("x", 1<<20) + `"}`,
		"a Record and 2 MiB": `{"version":1,"access_token":"` + secret + `"}` + strings.Repeat(" ", 2<<20) + "x",
		"10 MiB":             secret + strings.Repeat("x", 10<<20),
	}
}

// checkDamage puts what is no Record where one should be.
func checkDamage(k *check) {
	if k.Put == nil {
		return
	}
	for name, text := range damaged() {
		if len(text) > k.MaxSize && k.MaxSize < 1<<20 {
			continue // which the place does not take
		}
		k.checkValue(name, []byte(text), func(err error) {
			if errors.Is(err, authretry.ErrNewerRecord) {
				k.broken(clauseNewer, "the error for %s is ErrNewerRecord", name)
			}
		})
	}
	newer := `{"version":1000,"access_token":"` + secret + `"}`
	place, done := k.checkValue("a Record of a newer version", []byte(newer), func(err error) {
		if err != nil && !errors.Is(err, authretry.ErrNewerRecord) {
			k.broken(clauseNewer, "the error for a Record of a newer version does not wrap ErrNewerRecord: %v", err)
		}
	})
	if !done {
		return
	}
	if _, err := k.storeAt(place).load(); !errors.Is(err, authretry.ErrNewerRecord) {
		k.broken(clauseNewer, "a Record of a newer version was moved: %v", err)
	}
}

// checkValue puts a value where a Record should be, and has judge look at the errors. It returns false if that cannot be done.
func (k *check) checkValue(name string, value []byte, judge func(error)) (place string, done bool) {
	place = k.newPlace()
	s := k.storeAt(place)
	if !s.save(k.numbered(1)) || !k.meddle("Put", func(ctx context.Context) error { return k.Put(ctx, place, value) }) {
		return place, false
	}
	kept := func(after string) {
		if k.Find == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), k.limit)
		defer cancel()
		if found, err := k.Find(ctx, place, value); err != nil {
			k.misused("Options.Find failed: %v", err)
		} else if !found {
			k.broken(clauseDamage, "%s, where a Record should be, is gone after %s", name, after)
		}
	}
	r, err := s.load()
	if err == nil || r != nil {
		k.broken(clauseDamage, "Load returned no error for %s, where a Record should be", name)
	}
	judge(err)
	kept("Load")
	err = s.update(func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) {
		k.broken(clauseDamage, "Update called its function with %s, where a Record should be", name)
		return k.numbered(2), nil
	})
	if err == nil {
		k.broken(clauseDamage, "Update returned no error for %s, where a Record should be", name)
	}
	judge(err)
	kept("Update")
	return place, true
}
