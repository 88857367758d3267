package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/gofrs/flock"
	"github.com/stretchr/testify/require"
)

// A fileStore keeps a Record in a file, under a lock on another one. It breaks one clause if it has a flaw. It is no
// example: package filestore is one.
type fileStore struct {
	path string
	flaw string

	shown []byte // what it has read last, if that is its flaw
}

// openFile opens the place "FLAW|PATH".
func openFile(place string) (authretry.TokenStore, error) {
	flaw, path, _ := strings.Cut(place, "|")
	s := &fileStore{path: path, flaw: flaw}
	if flaw == "shows what it has" {
		return open2{s}, nil
	}
	return s, nil
}

// open2 is a fileStore that can be printed.
type open2 struct{ *fileStore }

func (s open2) String() string { return "a store with " + string(s.shown) }

func (s *fileStore) read() (*authretry.Record, []byte, error) {
	data, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		if s.flaw == "takes nothing for a logout" {
			return &authretry.Record{LoggedOut: true}, nil, nil
		}
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if s.flaw == "shows what it has" {
		s.shown = data
	}
	r, err := authretry.DecodeRecord(data)
	switch {
	case err == nil && r.LoggedOut && s.flaw == "takes a logout for nothing":
		return nil, data, nil
	case err == nil && s.flaw == "reads no scopes" && r.Token != nil:
		r.Scopes, r.Token = nil, r.Token.WithExtra(nil)
	case err != nil && s.flaw == "takes a newer version for damage":
		err = errors.New("it is damaged")
	case err != nil && s.flaw == "takes damage for nothing":
		return nil, data, nil
	case err != nil && s.flaw == "removes damage":
		os.Remove(s.path)
	case err != nil && s.flaw == "quotes damage":
		err = fmt.Errorf("%w: %.200s", err, data)
	}
	return r, data, err
}

func (s *fileStore) Load(ctx context.Context) (*authretry.Record, error) {
	if s.flaw == "locks for reading" {
		l := flock.New(s.path + ".lock")
		if _, err := l.TryLockContext(ctx, time.Millisecond); err != nil {
			return nil, err
		}
		defer l.Close()
	}
	r, _, err := s.read()
	if r == nil && err == nil && s.flaw == "is empty where there is nothing" {
		r = &authretry.Record{}
	}
	return r, err
}

var forgotten []*flock.Flock // which would be unlocked if nothing had them any more

var inProcess sync.Mutex // for the flaw of a lock that other processes do not heed

// UpdateUnless is there for those who wait.
func (s *fileStore) UpdateUnless(ctx context.Context, enough func(*authretry.Record) bool, fn func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error)) error {
	seen, _, _ := s.read()
	for s.flaw != "does not look while it waits" {
		limited, cancel := context.WithTimeout(ctx, 3*time.Millisecond)
		err := s.Update(limited, func(_ context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
			return fn(ctx, current, confirm)
		})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
		now, _, err := s.read()
		if err == nil && fmt.Sprint(numberOf(now)) != fmt.Sprint(numberOf(seen)) && enough(now) && s.flaw != "goes on after it has seen enough" {
			return nil
		}
		seen = now
	}
	return s.Update(ctx, fn)
}

func (s *fileStore) Update(ctx context.Context, fn func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error)) error {
	early, _, earlyErr := s.read()
	unlock, lock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	if s.flaw == "forgets the lock of a panic" {
		forgotten = append(forgotten, lock)
	} else {
		defer unlock()
	}
	current, old, err := s.read()
	if s.flaw == "reads before it has the lock" {
		current, err = early, earlyErr
	}
	if err != nil {
		return err
	}
	over := false
	confirm := func(ctx context.Context) error {
		_, now, err := s.read()
		switch {
		case s.flaw == "confirms always":
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case over && s.flaw != "confirms when it is over":
			return errors.New("it is over")
		case !s.isAt(lock) && s.flaw != "confirms a lost lock" && s.flaw != "confirms when it is over":
			return errors.New("the lock is lost")
		case err != nil:
			return err
		case !bytes.Equal(now, old) && s.flaw != "confirms what has changed":
			return errors.New("it has changed")
		}
		f, err := os.CreateTemp(filepath.Dir(s.path), "room")
		if err == nil {
			f.Close()
			os.Remove(f.Name())
		}
		return err
	}
	next, err := fn(ctx, current, confirm)
	if s.flaw == "calls twice" {
		next, err = fn(ctx, current, confirm)
	}
	over = true
	if s.flaw == "forgets the lock of a panic" {
		defer unlock()
	}
	if err != nil && (s.flaw != "saves what has failed" || next == nil) {
		if s.flaw == "hides the error" {
			return errors.New("it failed")
		}
		return err
	}
	if next == nil || next == current {
		return nil
	}
	if ctx.Err() != nil && s.flaw == "saves under the context alone" {
		return ctx.Err()
	}
	data, encodeErr := next.Encode()
	if encodeErr != nil {
		return encodeErr
	}
	if _, now, err := s.read(); s.flaw != "does not compare" && s.flaw != "hides that it cannot write" && (err != nil || !bytes.Equal(now, old)) {
		return errors.New("it has changed")
	}
	if s.flaw == "returns too early" {
		go func() {
			time.Sleep(10 * time.Millisecond)
			s.write(data)
		}()
		return nil
	}
	if writeErr := s.write(data); s.flaw != "hides that it cannot write" && writeErr != nil {
		return writeErr
	}
	return err
}

func (s *fileStore) isAt(lock *flock.Flock) bool {
	if lock == nil {
		return true
	}
	a, err := lock.Stat()
	b, err2 := os.Stat(lock.Path())
	return err == nil && err2 == nil && os.SameFile(a, b)
}

// lock takes the lock, which has a file unless that is the flaw.
func (s *fileStore) lock(ctx context.Context) (unlock func(), lock *flock.Flock, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if s.flaw == "takes no lock" {
		return func() {}, nil, nil
	}
	if s.flaw == "keeps out its own process" {
		for !inProcess.TryLock() {
			select {
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
		return inProcess.Unlock, nil, nil
	}
	if s.flaw == "has a lock that stays" {
		for {
			f, err := os.OpenFile(s.path+".lock", os.O_CREATE|os.O_EXCL, 0o600)
			if err == nil {
				f.Close()
				return func() { os.Remove(s.path + ".lock") }, nil, nil
			}
			select {
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			case <-time.After(time.Millisecond):
			}
		}
	}
	lock = flock.New(s.path + ".lock")
	if s.flaw == "waits for ever" {
		ctx = context.WithoutCancel(ctx)
	}
	patience := ctx
	if s.flaw == "loses patience" {
		var cancel context.CancelFunc
		patience, cancel = context.WithTimeout(ctx, 30*time.Millisecond)
		defer cancel()
	}
	if _, err := lock.TryLockContext(patience, time.Millisecond); err != nil {
		if s.flaw == "loses patience" && ctx.Err() == nil {
			return func() {}, nil, nil
		}
		return nil, nil, err
	}
	return func() { lock.Close() }, lock, nil
}

func (s *fileStore) write(data []byte) error {
	if s.flaw == "writes in place" {
		f, err := os.OpenFile(s.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		for i := range 8 {
			if _, err := f.Write(data[len(data)*i/8 : len(data)*(i+1)/8]); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
		return nil
	}
	temp, err := os.CreateTemp(filepath.Dir(s.path), "temp")
	if err != nil {
		return err
	}
	defer temp.Close()
	if _, err := temp.Write(data); err != nil {
		return err
	}
	if s.flaw == "shows what it has saved in errors" {
		return fmt.Errorf("cannot save %.200s", data)
	}
	return os.Rename(temp.Name(), s.path)
}

// LockLogin is there for the lock of a login.
func (s *fileStore) LockLogin(ctx context.Context) (func(), error) {
	if s.flaw == "has everybody log in" {
		return func() {}, nil
	}
	path := s.path + ".login.lock"
	if s.flaw == "has refreshes wait for a login" {
		path = s.path + ".lock"
	}
	lock := flock.New(path)
	if _, err := lock.TryLockContext(ctx, time.Millisecond); err != nil {
		return nil, err
	}
	return func() { lock.Close() }, nil
}

// hangs are the flaws with which something waits for ever.
var hangs = map[string]bool{
	"locks for reading": true, "waits for ever": true, "has a lock that stays": true, "forgets the lock of a panic": true,
	"has refreshes wait for a login": true, "does not look while it waits": true,
}

// optionsFor returns what a fileStore needs.
func optionsFor(t *testing.T, flaw string) Options {
	var limit time.Duration
	if hangs[flaw] {
		limit = time.Second
	}
	// What hangs may still write when the test is over, which t.TempDir would take for a failure.
	places, err := os.MkdirTemp("", "storetest")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(places) })
	pathOf := func(place string) string { return strings.SplitN(place, "|", 2)[1] }
	return Options{
		NewPlace: func() (string, error) {
			dir, err := os.MkdirTemp(places, "")
			return flaw + "|" + filepath.Join(dir, "login"), err
		},
		Put: func(_ context.Context, place string, value []byte) error {
			return os.WriteFile(pathOf(place), value, 0o600)
		},
		Find: func(_ context.Context, place string, value []byte) (bool, error) {
			data, err := os.ReadFile(pathOf(place))
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			return bytes.Equal(data, value), err
		},
		Remove:   func(_ context.Context, place string) error { return os.Remove(pathOf(place)) },
		TakeLock: func(_ context.Context, place string) error { return os.RemoveAll(pathOf(place) + ".lock") },
		Spoil: func(_ context.Context, place string) (func() error, error) {
			dir := filepath.Dir(pathOf(place))
			if err := os.Rename(dir, dir+".away"); err != nil { // root may write to a folder that is read-only
				return nil, err
			}
			if err := os.WriteFile(dir, nil, 0o600); err != nil {
				return nil, err
			}
			return func() error {
				if err := os.Remove(dir); err != nil {
					return err
				}
				return os.Rename(dir+".away", dir)
			}, nil
		},
		limit: limit,
	}
}

func TestMain(m *testing.M) {
	Child(openFile)
	thorough.Main(m)
}

func TestSoundStore(t *testing.T) {
	t.Parallel()
	o := optionsFor(t, "")
	o.MaxSize = thorough.Or(0, 64<<10)      // most of the time goes into the longest Record
	o.OneProcess = thorough.Or(false, true) // filestore's tests have others
	Run(t, openFile, o)
}

// A memoryStore is one that a process has for itself.
type memoryStore struct {
	turn chan struct{} // full while somebody has the lock

	mu sync.Mutex
	r  *authretry.Record
}

func (s *memoryStore) Load(context.Context) (*authretry.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r, nil
}

func (s *memoryStore) Update(ctx context.Context, fn func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error)) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.turn }()
	var mu sync.Mutex
	over := false
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
	}()
	current, err := s.Load(ctx)
	if err != nil {
		return err
	}
	next, err := fn(ctx, current, func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if over {
			return errors.New("it is over")
		}
		return ctx.Err()
	})
	if err != nil || next == nil {
		return err
	}
	if _, err := next.Encode(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.r = next
	return nil
}

// Each place is a store that all who open it share, since it is in memory.
func TestSoundStoreInMemory(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	stores := map[string]*memoryStore{}
	open := func(place string) (authretry.TokenStore, error) {
		mu.Lock()
		defer mu.Unlock()
		if stores[place] == nil {
			stores[place] = &memoryStore{turn: make(chan struct{}, 1)}
		}
		return stores[place], nil
	}
	require.NoError(t, Check(open, Options{OneProcess: true, MaxSize: thorough.Or(0, 64<<10)}))
}
