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
// A login ends by TokenSource.Logout, which leaves a file that says so. Do not remove the file instead: a process that
// still has the token in memory would write it back.
//
// # Security
//
// The token is stored as it is, in a file of mode 0600. A file that others may read is refused rather than used. The
// folder must be one in which nobody else can write; it is made, with mode 0700, if there is none. On Windows the
// folder's access rights are what protects the file. Network file systems whose locks do not work between machines are
// no place for it.
package filestore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
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

const (
	maxSize   = 2 << 20 // of the file; a token is much smaller
	reserved  = 16 << 10
	pollEvery = 5 * time.Millisecond
)

// A Store keeps a token in a file. It is safe for concurrent use, by goroutines and by processes.
type Store struct{ path string }

// New returns a Store for the file path, which need not exist yet.
func New(path string) *Store { return &Store{path} }

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
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	lock := flock.New(s.path+".lock", flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, pollEvery); err != nil {
		return fmt.Errorf("filestore: cannot lock %s: %w", lock.Path(), err)
	}
	defer lock.Close()

	s.removeLeftovers()
	current, old, err := s.read()
	if errors.Is(err, ErrDamaged) {
		return s.keepAside(err)
	}
	if err != nil {
		return err
	}
	u := &writing{store: s, lock: lock, old: old}
	defer u.discard()
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

// A writing is a call of Update that holds the lock.
type writing struct {
	store *Store
	lock  *flock.Flock
	old   []byte   // the contents of the file; nil: there is none
	temp  *os.File // where the new contents go; nil: it has not been made yet
}

// confirm returns an error unless the lock holds, and the new contents can be written.
func (u *writing) confirm(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	if err := u.holds(); err != nil {
		return err
	}
	return u.reserve(max(reserved, 2*len(u.old)))
}

// holds returns an error if the lock file is not the one that we have locked.
func (u *writing) holds() error {
	locked, err := u.lock.Stat()
	if err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	there, err := os.Stat(u.lock.Path())
	if err != nil || !os.SameFile(locked, there) {
		return fmt.Errorf("%w: %s", ErrConflict, u.lock.Path())
	}
	return nil
}

// reserve makes the temporary file, and room in it, on the disk.
func (u *writing) reserve(size int) error {
	if u.temp == nil {
		f, err := os.CreateTemp(filepath.Dir(u.store.path), filepath.Base(u.store.path)+".tmp-*") // with mode 0600
		if err != nil {
			return fmt.Errorf("filestore: %w", err)
		}
		u.temp = f
	}
	if _, err := u.temp.WriteAt(bytes.Repeat([]byte{' '}, size), 0); err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	if err := u.temp.Sync(); err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	return nil
}

// write replaces the file's contents so that a crash leaves the old or the new.
func (u *writing) write(data []byte) error {
	var text bytes.Buffer
	if err := json.Indent(&text, data, "", "\t"); err != nil {
		return errors.New("filestore: the token cannot be written as JSON")
	}
	text.WriteByte('\n')
	if err := u.reserve(text.Len()); err != nil {
		return err
	}
	_, err := u.temp.WriteAt(text.Bytes(), 0)
	if err == nil {
		err = u.temp.Truncate(int64(text.Len()))
	}
	if err == nil {
		err = u.temp.Sync()
	}
	if err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	if _, now, err := u.store.read(); err != nil {
		return err
	} else if !bytes.Equal(now, u.old) {
		return fmt.Errorf("%w: %s", ErrConflict, u.store.path)
	}
	name := u.temp.Name()
	err = u.temp.Close()
	u.temp = nil
	if err == nil {
		err = os.Rename(name, u.store.path)
	}
	if err != nil {
		os.Remove(name)
		return fmt.Errorf("filestore: %w", err)
	}
	return syncDir(filepath.Dir(u.store.path))
}

// discard removes a temporary file that was not used.
func (u *writing) discard() {
	if u.temp != nil {
		u.temp.Close()
		os.Remove(u.temp.Name())
	}
}

// read returns what is in the file, and its contents, nil if there is no file.
func (s *Store) read() (*authretry.Record, []byte, error) {
	info, err := os.Lstat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("filestore: %w", err)
	}
	if err := s.check(info); err != nil {
		return nil, nil, err // before it is opened, which takes forever if it is a pipe
	}
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("filestore: %w", err)
	}
	defer f.Close()
	// Another process may have put another file there in the meantime.
	if info, err = f.Stat(); err != nil {
		return nil, nil, fmt.Errorf("filestore: %w", err)
	}
	if err := s.check(info); err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, nil, fmt.Errorf("filestore: %w", err)
	}
	r, err := decode(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %s", err, s.path)
	}
	return r, data, nil
}

// check returns an error unless the file may hold a token.
func (s *Store) check(info fs.FileInfo) error {
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		return fmt.Errorf("%w: %s is a symbolic link; use the file it leads to", ErrUnsafe, s.path)
	case !mode.IsRegular():
		return fmt.Errorf("%w: %s is not a regular file", ErrUnsafe, s.path)
	case runtime.GOOS != "windows" && mode.Perm()&0o077 != 0:
		return fmt.Errorf("%w: %s has mode %#o; if nobody else can have read it, chmod 600 it, otherwise log in again", ErrUnsafe, s.path, mode.Perm())
	}
	return nil
}

// decode reads the contents of a file.
func decode(data []byte) (*authretry.Record, error) {
	if len(data) > maxSize {
		return nil, ErrDamaged
	}
	r, err := authretry.DecodeRecord(bytes.TrimSpace(data))
	switch {
	case errors.Is(err, authretry.ErrNewerRecord):
		return nil, fmt.Errorf("filestore: %w", err)
	case err != nil:
		return nil, ErrDamaged
	}
	return r, nil
}

// syncDir makes a rename outlast a crash of the machine.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // where folders cannot be synced
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	return nil
}

// removeLeftovers removes the temporary files of writers that have crashed. The caller holds the lock.
func (s *Store) removeLeftovers() {
	entries, err := os.ReadDir(filepath.Dir(s.path))
	if err != nil {
		return
	}
	prefix := filepath.Base(s.path) + ".tmp-"
	for _, e := range entries {
		if len(e.Name()) > len(prefix) && e.Name()[:len(prefix)] == prefix {
			os.Remove(filepath.Join(filepath.Dir(s.path), e.Name()))
		}
	}
}

// keepAside moves a damaged file out of the way. The caller holds the lock.
func (s *Store) keepAside(damage error) error {
	aside := fmt.Sprintf("%s.damaged-%s", s.path, time.Now().UTC().Format("20060102T150405.000000000"))
	if err := os.Rename(s.path, aside); err != nil {
		return fmt.Errorf("%w, and it cannot be moved aside: %w", damage, err)
	}
	return fmt.Errorf("%w; it has been moved to %s; log in again", damage, aside)
}
