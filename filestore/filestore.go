// Package filestore keeps an OAuth 2.0 token in a file, for all the processes of one machine that share a login: the
// runs of a command, or several programs. It is an authretry.TokenStore.
//
//	tokens := &authretry.TokenSource{
//		Fetch: authretry.RefreshGrant(config),
//		Store: filestore.New(path), // in a folder of the user's own, such as os.UserConfigDir() says
//	}
//
// # Guarantees
//
// One process at a time refreshes, under a lock on a file beside the token's (path + ".lock", which stays). A token is
// written to a temporary file, synced, and renamed: a crash at any point leaves the old token or the new one.
// Reading takes no lock, so nobody waits for a refresh who has a good token to read.
//
// Before a refresh token is spent, the temporary file is made, filled and synced: a full disk, a folder that cannot be written
// or a failing fsync is found out by then, and costs no login. If somebody has removed the lock file meanwhile, so that
// another process may have the lock too, nothing is spent; and a token is written only in place of the one that it was
// made from.
//
// One person is asked to log in at a time, over all these processes: see LockLogin.
//
// What cannot be prevented: a process that is killed after it has sent a refresh token, and before it has saved the answer,
// takes the login with it if the server takes each refresh token once.
//
// A login ends by TokenSource.Logout, which leaves a file that says so. Do not remove the file instead: a process that
// still has the token in memory would write it back.
//
// # Security
//
// The token is stored as it is, in a file of mode 0600. A file that others may read, or that belongs to another
// user, is refused rather than used, by root too. The folder must be one in which nobody else can write; it is made, with mode 0700, if there is none. On Windows the
// folder's access rights are what protects the file. Network file systems whose locks do not work between machines are
// no place for it.
package filestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/authretry/authretry"
	"github.com/gofrs/flock"
)

// Errors that those of a Store wrap.
var (
	// ErrDamaged means that the file does not hold a token. Update has moved it aside, under the name that the error
	// gives, so that nothing is lost and a new login can be stored.
	ErrDamaged = errors.New("filestore: the file does not hold a token")

	// ErrUnsafe means that others can read the file, or could have put it there.
	ErrUnsafe = errors.New("filestore: the file is not private")

	// ErrConflict means that a token was not stored, because another one is there by now: somebody has removed the lock file, so
	// that two had the lock. The other token stays.
	ErrConflict = errors.New("filestore: the lock file was removed, and another token may have been stored meanwhile")
)

const pollEvery = 5 * time.Millisecond

// A Store keeps a token in a file. It is safe for concurrent use, by goroutines and by processes.
type Store struct {
	path string
	disk disk
}

// A disk is what a Store asks of the file system besides what cannot fail silently.
type disk struct {
	sync   func(*os.File) error
	rename func(from, to string) error
}

// New returns a Store for the file path, which need not exist yet.
func New(path string) *Store { return &Store{path, disk{(*os.File).Sync, os.Rename}} }

// Load returns what is in the file, nil if there is no file. It takes no lock.
func (s *Store) Load(ctx context.Context) (*authretry.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	r, _, err := s.read()
	return r, err
}

// Update calls fn with what is in the file, nil if there is none, while it holds the lock, and stores what fn returns
// unless that is nil or the same. It waits for the lock until ctx ends. What fn returns is stored even if ctx has ended
// by then.
func (s *Store) Update(ctx context.Context, fn func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error)) error {
	lock, err := s.lock(ctx, ".lock")
	if err != nil {
		return err
	}
	u := &writing{store: s, lock: lock}
	defer u.end()

	s.removeLeftovers()
	current, old, err := s.read()
	if errors.Is(err, ErrDamaged) {
		return s.keepAside(err)
	}
	if err != nil {
		return err
	}
	u.old = old
	next, err := fn(ctx, current, u.confirm)
	if err != nil || next == nil {
		return err
	}
	data, err := next.Encode()
	if err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	if current != nil {
		if same, err := current.Encode(); err == nil && bytes.Equal(same, data) {
			return nil
		}
	}
	return u.write(data)
}

// LockLogin has one person asked at a time over all processes that share the file, for [authretry.TokenSource.Login]. It waits
// until ctx ends. The lock is on a file of its own (path + ".login.lock"), so that refreshes go on meanwhile.
func (s *Store) LockLogin(ctx context.Context) (unlock func(), err error) {
	lock, err := s.lock(ctx, ".login.lock")
	if err != nil {
		return nil, err
	}
	return func() { lock.Close() }, nil
}

// lock locks a file beside the token's, which is made if there is none. It is sure that the file that it has locked is still
// there then, and not one that somebody has just removed.
func (s *Store) lock(ctx context.Context, suffix string) (*flock.Flock, error) {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	for {
		lock := flock.New(s.path+suffix, flock.SetPermissions(0o600))
		if _, err := lock.TryLockContext(ctx, pollEvery); err != nil {
			return nil, fmt.Errorf("filestore: cannot lock %s: %w", lock.Path(), err)
		}
		if isThere(lock) {
			return lock, nil
		}
		lock.Close()
	}
}

// isThere reports whether a lock's file is still the one at its path.
func isThere(lock *flock.Flock) bool {
	locked, err := lock.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(lock.Path())
	return err == nil && os.SameFile(locked, there)
}
