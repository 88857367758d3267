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
// Before a refresh token is spent, what is in the keyring is written once more. So a keyring that is locked, or has gone, is found
// out in time. A token is written only in place of the one that it was made from, as far as those go who use the lock: a keyring
// cannot compare.
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
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/filestore"
	"github.com/zalando/go-keyring"
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

	// LockFile is the path of the lock, to which ".lock" and ".login.lock" are added. Its folder is made if there is none. "" means one
	// in the folder authretry of os.UserConfigDir, that goes by Service and User.
	LockFile string

	part int // how many bytes an item has, at most; 0: what the system allows
}

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
// is nil or the same. It waits for the lock until ctx ends. What fn returns is stored even if ctx has ended by then.
func (s *Store) Update(ctx context.Context, fn func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error)) error {
	lock, err := s.lock()
	if err != nil {
		return err
	}
	// The file's store never gets a Record: of it there is the lock.
	return lock.Update(ctx, func(ctx context.Context, _ *authretry.Record, holds func(context.Context) error) (*authretry.Record, error) {
		old, err := s.read(ctx)
		if err != nil {
			return nil, err
		}
		next, err := fn(ctx, old.record, func(ctx context.Context) error {
			if err := holds(ctx); err != nil {
				return err
			}
			if err := s.write(ctx, old, old.data); err != nil {
				return err
			}
			return holds(ctx) // after all this, which may have taken a while
		})
		if err != nil || next == nil {
			return nil, err
		}
		data, err := next.Encode()
		if err != nil {
			return nil, fmt.Errorf("keyringstore: %w", err)
		}
		if old.record != nil {
			if own, err := old.record.Encode(); err == nil && bytes.Equal(own, data) {
				return nil, nil
			}
		}
		return nil, s.write(context.WithoutCancel(ctx), old, data)
	})
}

// LockLogin has one person asked at a time over all processes that share LockFile, for [authretry.TokenSource.Login]. It waits until
// ctx ends. Refreshes go on meanwhile. It ends with unlock, which may be called again, or with the process.
func (s *Store) LockLogin(ctx context.Context) (unlock func(), err error) {
	lock, err := s.lock()
	if err != nil {
		return nil, err
	}
	return lock.LockLogin(ctx)
}

// check reports mistakes in the fields.
func (s *Store) check() error {
	if s.Service == "" || s.User == "" {
		return errors.New("keyringstore: Store.Service or Store.User is empty")
	}
	return nil
}

// lock returns a file's store, which has a lock.
func (s *Store) lock() (*filestore.Store, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.LockFile != "" {
		return filestore.New(s.LockFile), nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return nil, fmt.Errorf("keyringstore: there is no place for the lock; set Store.LockFile: %w", err)
	}
	sum := sha256.Sum256([]byte(s.Service + "\x00" + s.User))
	return filestore.New(filepath.Join(dir, "authretry", hex.EncodeToString(sum[:16]))), nil
}

// Contents are what is in the keyring.
type contents struct {
	item   string // the text of the item
	exists bool
	parts  int    // how many others there are
	id     string // in their names
	data   []byte // the login; nil: none
	record *authretry.Record
}

// partsPrefix begins an item that says where the login is: "parts:COUNT:ID".
const partsPrefix = "parts:"

// read reads the keyring.
func (s *Store) read(ctx context.Context) (c contents, err error) {
	return c, s.call(ctx, "read", func() error {
		c = contents{}
		item, err := keyring.Get(s.Service, s.User)
		if errors.Is(err, keyring.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		c.item, c.exists, c.data = item, true, []byte(item)
		if rest, ok := strings.CutPrefix(item, partsPrefix); ok {
			if err := s.readParts(&c, rest); err != nil {
				return err
			}
		}
		c.record, err = authretry.DecodeRecord(c.data)
		switch {
		case errors.Is(err, authretry.ErrNewerRecord):
			return fmt.Errorf("keyringstore: %w", err)
		case err != nil:
			return ErrDamaged
		}
		return nil
	})
}

// readParts reads the other items.
func (s *Store) readParts(c *contents, rest string) error {
	count, id, _ := strings.Cut(rest, ":")
	var err error
	if c.parts, err = strconv.Atoi(count); err != nil || c.parts < 1 || c.parts > 1<<10 || id == "" || len(id) > 64 {
		return ErrDamaged
	}
	c.id, c.data = id, nil
	for i := range c.parts {
		text, err := keyring.Get(s.Service, s.partName(c.id, i))
		if errors.Is(err, keyring.ErrNotFound) {
			// Another process has replaced them since, or they are gone.
			if again, err := keyring.Get(s.Service, s.User); err == nil && again != c.item {
				return errReplaced
			}
			return ErrDamaged
		}
		if err != nil {
			return err
		}
		c.data = append(c.data, text...)
	}
	return nil
}

// errReplaced says that what was to be read is no longer there.
var errReplaced = errors.New("the login was replaced")

func (s *Store) partName(id string, i int) string { return fmt.Sprintf("%s %s %d", s.User, id, i) }

// write puts data in the place of old; nil: it only looks whether old is still there.
func (s *Store) write(ctx context.Context, old contents, data []byte) error {
	return s.call(ctx, "write", func() error {
		item, err := keyring.Get(s.Service, s.User)
		if err != nil && !errors.Is(err, keyring.ErrNotFound) {
			return err
		}
		switch {
		case err == nil && item != old.item:
			return ErrConflict
		case data == nil:
			return nil
		case bytes.Equal(data, old.data): // what is there
			return keyring.Set(s.Service, s.User, old.item)
		}
		text := string(data)
		if size := s.partSize(); len(text) > size {
			id, parts := rand.Text(), (len(text)+size-1)/size
			for i := range parts {
				if err := keyring.Set(s.Service, s.partName(id, i), text[i*size:min(len(text), (i+1)*size)]); err != nil {
					return err
				}
			}
			text = fmt.Sprintf("%s%d:%s", partsPrefix, parts, id)
		}
		if err := keyring.Set(s.Service, s.User, text); err != nil {
			return err
		}
		for i := range old.parts {
			_ = keyring.Delete(s.Service, s.partName(old.id, i)) // which nothing refers to any more
		}
		return nil
	})
}

// partSize returns how many bytes an item may have.
func (s *Store) partSize() int {
	switch {
	case s.part > 0:
		return s.part
	case runtime.GOOS == "windows":
		return 2400 // of 2560
	case runtime.GOOS == "darwin":
		return 1500 // of some 3000, in base64, with the names
	}
	return 64 << 10 // without limit, but slow
}

// isReplaced reports whether something was replaced between two looks at it. A Secret Service has a new object for an item then.
func isReplaced(err error) bool {
	if err == nil {
		return false
	}
	text := err.Error()
	return errors.Is(err, errReplaced) || strings.Contains(text, "No such interface") || strings.Contains(text, "No such object") ||
		strings.Contains(text, "does not exist")
}

// maxTries is how often something is read that is replaced again and again.
const maxTries = 10

// call does something with the keyring until ctx ends, which it does not know of: it may ask the person to unlock it.
func (s *Store) call(ctx context.Context, what string, do func() error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("keyringstore: cannot %s the keyring: %w", what, ctx.Err())
	}
	done := make(chan error, 1)
	go func() {
		err := do()
		for tries := 1; isReplaced(err) && tries < maxTries; tries++ {
			time.Sleep(time.Duration(tries) * time.Millisecond)
			err = do()
		}
		done <- err
	}()
	select {
	case err := <-done:
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ErrDamaged), errors.Is(err, ErrConflict), errors.Is(err, authretry.ErrNewerRecord):
			return fmt.Errorf("%w: service %q, user %q", err, s.Service, s.User)
		}
		return fmt.Errorf("%w: cannot %s it: %w", ErrUnavailable, what, err)
	case <-ctx.Done():
		return fmt.Errorf("keyringstore: cannot %s the keyring: %w", what, ctx.Err())
	}
}

// MarshalJSON says which login it is.
func (s *Store) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"Service": s.Service, "User": s.User})
}
