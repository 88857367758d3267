package filestore

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

const (
	pollEvery     = 5 * time.Millisecond
	folderTimeout = 5 * time.Second
)

// LockLogin has one person asked at a time over all processes that share the file, for [authretry.TokenSource.Login]. It waits
// until ctx ends. The lock is on a file of its own (path + ".login.lock"), so that refreshes go on meanwhile. It ends with
// unlock, which may be called again, or with the process.
func (s *Store) LockLogin(ctx context.Context) (unlock func(), err error) {
	lock, err := s.lock(ctx, ".login.lock")
	if err != nil {
		return nil, err
	}
	return func() { lock.Close() }, nil
}

// lock locks a file beside the token's, which is made if there is none.
func (s *Store) lock(ctx context.Context, suffix string) (*flock.Flock, error) {
	if s.path == "" {
		return nil, errNoPath
	}
	path := s.path + suffix
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() { // a pipe would take forever to open
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrUnsafe, path)
	}
	lock := flock.New(path, flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, pollEvery); err != nil {
		return nil, fmt.Errorf("filestore: cannot lock %s: %w", path, err)
	}
	return lock, nil
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
