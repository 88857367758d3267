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
// Before a refresh token is spent, room for its successor is made and synced: 16 KiB, or twice what is in the file if that is
// more. A Store that has not written yet also writes what is in the file once more, all the way. So a full disk, a folder or a
// file that cannot be replaced, or a failing fsync is found out by then, as far as the file system tells, and costs no login. If
// by then somebody has removed the lock file, so that another process may have the lock too, or has changed the file, nothing is
// spent; and a token is written only in place of the one that it was made from.
//
// One person is asked to log in at a time, over all these processes, under a lock on a file of its own (path +
// ".login.lock", which stays): see [Store.LockLogin].
//
// What cannot be prevented: a process that is killed, or ends without TokenSource.Wait, after it has sent a refresh token, and before it has saved the answer,
// takes the login with it if the server takes each refresh token once. So does a disk that fails in between, if the
// process ends before the token could be saved again. And a lock file that is removed in between lets two send the same one.
//
// A file in which a program has kept an oauth2.Token as JSON is a login, too, and is written as ours with the next token.
//
// A login ends by TokenSource.Logout, which leaves a file that says so. Do not remove the file instead: a process that
// still has the token in memory would write it back.
//
// # Security
//
// The token is stored as it is, in a file of mode 0600. A file that others may read, or that belongs to another user, is
// refused rather than used, by root too, who then leaves no lock file either that its owner could not open. So is a symbolic link, and what
// is no regular file. The folder must be one in
// which nobody else can write, which is not checked; it is made, with mode 0700, if there is none. On Windows the folder's
// access rights are what protects the file. Network file systems whose locks do not work between machines are no place
// for it, and neither is a file that is mounted alone into a container, because it cannot be replaced: mount its folder.
package filestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/authretry/authretry"
)

// Errors that those of a Store wrap.
var (
	// ErrDamaged means that the file does not hold what a Store has saved. Update moves it aside, under the name that its error
	// gives, so that nothing is lost and a new login can be stored. Load leaves it where it is.
	ErrDamaged = errors.New("filestore: the file does not hold a login that this package has saved")

	// ErrUnsafe means that others can read the file, or could have put it there; or that it, or the lock file, is no regular
	// file.
	ErrUnsafe = errors.New("filestore: the file is not private")

	// ErrConflict means that a refresh token was not spent, or a new token not stored, because somebody has removed the lock
	// file, so that two may have the lock, or has changed the file. What is in the file stays.
	ErrConflict = errors.New("filestore: somebody else has removed the lock file or changed the file meanwhile")

	errNoPath = errors.New("filestore: the path is empty")
)

// A Store keeps a token in a file. It is safe for concurrent use, by goroutines and by processes.
type Store struct {
	path string
	disk disk

	proven   atomic.Bool // the file can be replaced: we have done so
	unsynced atomic.Bool // the file was replaced, and a crash of the machine may undo that
}

// A disk is what a Store asks of the file system where it matters when, or whether, that fails.
type disk struct {
	open   func(path string) (*os.File, error)
	sync   func(*os.File) error
	rename func(from, to string) error
}

// New returns a Store for the file path, which need not exist yet.
func New(path string) *Store {
	return &Store{path: path, disk: disk{os.Open, (*os.File).Sync, os.Rename}}
}

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
// by then. If the file does not hold a token, fn is not called: see ErrDamaged.
func (s *Store) Update(ctx context.Context, fn func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error)) error {
	return s.update(ctx, nil, fn)
}

// UpdateUnless is Update, but while it waits for the lock it shows enough each Record that others save, nil if the file vanishes.
// As soon as enough returns true, it returns nil without having called fn.
func (s *Store) UpdateUnless(ctx context.Context, enough func(current *authretry.Record) bool, fn func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error)) error {
	return s.update(ctx, s.news(enough), fn)
}

func (s *Store) update(ctx context.Context, enough func() bool, fn func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error)) error {
	lock, err := s.lock(ctx, ".lock", enough)
	if lock == nil {
		return err
	}
	u := &writing{store: s, lock: lock}
	defer u.end()

	if s.unsynced.Load() { // so that there is no success before what was written last is safe
		if err := s.syncDir(); err != nil {
			return err
		}
	}
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
