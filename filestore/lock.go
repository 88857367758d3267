package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/authretry/authretry"
	"github.com/gofrs/flock"
)

const (
	pollEvery     = 5 * time.Millisecond  // so as to meet the moment between two who use the lock in turn
	pollAtLeast   = 20 * time.Millisecond // of those who wait for what others store, so that hundreds do not need the whole machine for it
	pollAtMost    = 50 * time.Millisecond
	folderTimeout = 5 * time.Second
)

// LockLogin has one person asked at a time over all processes that share the file, for [authretry.TokenSource.Login]. It waits
// until ctx ends. The lock is on a file of its own (path + ".login.lock"), so that refreshes go on meanwhile. It ends with
// unlock, which may be called again, or with the process.
func (s *Store) LockLogin(ctx context.Context) (unlock func(), err error) {
	lock, err := s.lock(ctx, ".login.lock", nil)
	if err != nil {
		return nil, err
	}
	return func() { lock.Close() }, nil
}

// lock locks a file beside the token's, which is made if there is none. If enough is not nil, and returns true while it waits, there is
// neither a lock nor an error.
func (s *Store) lock(ctx context.Context, suffix string, enough func() bool) (*flock.Flock, error) {
	if s.path == "" {
		return nil, errNoPath
	}
	path := s.path + suffix
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	switch info, err := os.Lstat(path); {
	case err == nil && !info.Mode().IsRegular(): // a pipe would take forever to open
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrUnsafe, path)
	case errors.Is(err, fs.ErrNotExist): // root's lock file would lock out whose login it is
		if there, err := os.Lstat(s.path); err == nil && !isOwn(there) {
			return nil, s.check(there)
		}
	}
	lock := flock.New(path, flock.SetPermissions(0o600))
	for began := time.Now(); ; {
		locked, err := lock.TryLock()
		if err == nil {
			err = ctx.Err()
		}
		switch {
		case err != nil:
			lock.Close()
			return nil, fmt.Errorf("filestore: cannot lock %s: %w", path, err)
		case locked:
			return lock, nil
		case enough != nil && enough():
			return nil, lock.Close()
		}
		delay := pollEvery
		if enough != nil {
			delay = min(max(pollAtLeast, time.Since(began)/8), pollAtMost)
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
	}
}

// news returns a function that shows enough what is in the file, each time that another one is there. What cannot be read
// is left for who has the lock.
func (s *Store) news(enough func(*authretry.Record) bool) func() bool {
	seen, _ := os.Lstat(s.path)
	first := true
	return func() bool {
		now, err := os.Lstat(s.path)
		if !first && (err != nil && seen == nil || err == nil && seen != nil && os.SameFile(seen, now) && seen.ModTime().Equal(now.ModTime())) {
			return false
		}
		first = false
		if seen = now; err != nil {
			seen = nil
		}
		r, _, err := s.read()
		return err == nil && enough(r)
	}
}

// lockFolder locks the folder for a moment, so that of two who have the lock, because somebody has removed its file, one compares
// and replaces after the other. Unlike that file, the folder cannot go without the token. Where folders cannot be locked,
// or somebody keeps it locked, it has to do without.
func (s *Store) lockFolder() (unlock func()) {
	ctx, cancel := context.WithTimeout(context.Background(), folderTimeout)
	defer cancel()
	lock := flock.New(filepath.Dir(s.path), flock.SetFlag(os.O_RDONLY))
	_, _ = lock.TryLockContext(ctx, pollEvery)
	return func() { lock.Close() }
}

// isAt reports whether an open file is the one at path, where it may have been removed or replaced.
func isAt(f interface{ Stat() (fs.FileInfo, error) }, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(opened, there)
}
