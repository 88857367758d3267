// Package keyringstore keeps an OAuth 2.0 login in the keyring of the person who runs the program: the Keychain of macOS, the
// Credential Manager of Windows, the Secret Service of Linux desktops (GNOME Keyring, KWallet). It is an authretry.TokenStore.
//
//	tokens := &authretry.TokenSource{
//		Fetch: authretry.RefreshGrant(config),
//		Store: &keyringstore.Store{Service: "myapp", User: "login"},
//	}
//
// # Guarantees
//
// A keyring has no locks, so one process at a time refreshes under that of a file, as with package filestore: [Store].LockFile. It has
// no secrets. All programs that share a login must name the same one.
//
// Before a refresh token is spent, what is in the keyring is written once more, or an item that is removed again if there is nothing.
// So a keyring that is locked, or has gone, is found
// out in time. A token is written only in place of the one that it was made from, as far as those go who use the lock: a keyring
// cannot compare. If a keyring does not answer, the lock is not released before it does, since what was sent to it may arrive late. It ends
// with the process nevertheless.
//
// Those who wait for a token, as a TokenSource does, go on without the lock when another one has stored it.
//
// What is longer than an item of the keyring may be (some 2,500 bytes on Windows and macOS) is kept in several, and the last that
// is written says which: a crash at any point leaves the old login or the new one, and perhaps items that nothing refers to.
//
// Where there is no keyring, as on a server or in a container, every call fails with [ErrUnavailable]: use package filestore
// there. If a keyring is locked, the system may ask the person to unlock it, and Load and Update wait for that until their context
// ends.
//
// One person is asked to log in at a time, over all these processes: see [Store.LockLogin]. To log out, call TokenSource.Logout; do not
// remove the item instead.
package keyringstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/authretry/authretry"
)

// Errors that those of a Store wrap.
var (
	// ErrUnavailable means that there is no keyring here, or that it cannot be used now. Nothing was spent, and what is in it
	// is as it was.
	ErrUnavailable = errors.New("keyringstore: the keyring cannot be used (where there is none, as on a server, use filestore)")

	// ErrDamaged means that the keyring's item does not hold a login. Nothing has been changed. To be able to log in again,
	// remove the item.
	ErrDamaged = errors.New("keyringstore: the item does not hold a login")

	// ErrConflict means that a refresh token was not spent, or a new token not stored, because somebody has changed the item
	// without the lock. What is in the keyring stays.
	ErrConflict = errors.New("keyringstore: somebody else has changed the item meanwhile")
)

// A Store keeps a login in a keyring. It is safe for concurrent use, by goroutines and by processes. Its fields must not be changed after
// its first use.
type Store struct {
	// Service and User are under what name it is kept: the program's, and one of the login. Neither may be empty.
	Service, User string

	// LockFile is the path of the lock, to which ".lock" and ".login.lock" are added. There must be no file with that name itself. Its folder
	// is made if there is none. "" means one in the folder authretry of os.UserConfigDir, that goes by Service and User.
	// A file of 16 KiB without secrets is beside it for a moment whenever a refresh token is about to be spent, as filestore makes one.
	LockFile string

	part int           // how many bytes an item has, at most; 0: what the system allows
	wait time.Duration // how long the keyring may take to store a new token; 0: saveTimeout
}

// updateFunc is what Update calls.
type updateFunc = func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error)

// Load returns the Record in the keyring, nil if there is none. It takes no lock.
func (s *Store) Load(ctx context.Context) (*authretry.Record, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	k, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	return k.record, nil
}

// Update calls fn with the Record in the keyring, nil if there is none, while it holds the lock, and stores what fn returns unless that
// is nil or the same. It waits for the lock until ctx ends. What fn returns is stored even if ctx has ended by then. If the keyring takes more
// than 30 seconds for that, Update returns an error, and the lock stays until the keyring has answered, or the process ends.
func (s *Store) Update(ctx context.Context, fn func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error)) error {
	return s.update(ctx, nil, fn)
}

// UpdateUnless is Update, but while it waits for the lock it looks at the keyring, some ten times a second, and shows enough each Record
// that others store, nil if the item vanishes. As soon as enough returns true, it returns nil without having called fn.
func (s *Store) UpdateUnless(ctx context.Context, enough func(current *authretry.Record) bool, fn func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error)) error {
	return s.update(ctx, enough, fn)
}

func (s *Store) update(ctx context.Context, enough func(*authretry.Record) bool, fn updateFunc) error {
	h, err := s.lock(ctx, enough)
	if h == nil {
		return err
	}
	defer h.end()

	if h.old, err = s.read(ctx); err != nil {
		return err
	}
	next, err := fn(ctx, h.old.record, h.confirm)
	if err != nil || next == nil {
		return err
	}
	data, err := next.Encode()
	if err != nil {
		return fmt.Errorf("keyringstore: %w", err)
	}
	if h.old.record != nil {
		if own, err := h.old.record.Encode(); err == nil && bytes.Equal(own, data) {
			return nil
		}
	}
	return h.save(context.WithoutCancel(ctx), data)
}

// LockLogin has one person asked at a time over all processes that share LockFile, for [authretry.TokenSource.Login]. It waits until
// ctx ends. Refreshes go on meanwhile. It ends with unlock, which may be called again, or with the process.
func (s *Store) LockLogin(ctx context.Context) (unlock func(), err error) {
	file, err := s.file()
	if err != nil {
		return nil, err
	}
	return file.LockLogin(ctx)
}

// check reports mistakes in the fields.
func (s *Store) check() error {
	if s.Service == "" || s.User == "" {
		return errors.New("keyringstore: Store.Service or Store.User is empty")
	}
	return nil
}

// MarshalJSON says which login it is.
func (s *Store) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"Service": s.Service, "User": s.User})
}
