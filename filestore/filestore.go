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
// # Security
//
// The token is stored as it is, in a file of mode 0600. A file that others may read is refused rather than used. The
// folder must be one in which nobody else can write; it is made, with mode 0700, if there is none. On Windows the
// folder's access rights are what protects the file. Network file systems whose locks do not work between machines are
// no place for it.
package filestore

import (
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

	"github.com/authretry/authretry/internal/savedtoken"
	"github.com/gofrs/flock"
	"golang.org/x/oauth2"
)

// Errors that those of a Store wrap.
var (
	// ErrDamaged means that the file does not hold a token. Update has moved it aside, under the name that the error
	// gives, so that nothing is lost and a new login can be stored.
	ErrDamaged = errors.New("filestore: the file does not hold a token")

	// ErrUnsafe means that others can read the file, or could have put it there.
	ErrUnsafe = errors.New("filestore: the file is not private")
)

const (
	maxSize   = 1 << 20 // of the file; a token is much smaller
	pollEvery = 5 * time.Millisecond
)

// A Store keeps a token in a file. It is safe for concurrent use, by goroutines and by processes.
type Store struct{ path string }

// New returns a Store for the file path, which need not exist yet.
func New(path string) *Store { return &Store{path} }

// Load returns the token in the file, nil if there is no file. It takes no lock.
func (s *Store) Load(ctx context.Context) (*oauth2.Token, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	return s.read()
}

// Update calls fn with the token in the file, nil if there is none, while it holds the lock, and stores what fn returns
// unless that is the same token. It waits for the lock until ctx ends. What fn returns is stored even if ctx has ended
// by then.
func (s *Store) Update(ctx context.Context, fn func(ctx context.Context, current *oauth2.Token) (*oauth2.Token, error)) (*oauth2.Token, error) {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	lock := flock.New(s.path+".lock", flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, pollEvery); err != nil {
		return nil, fmt.Errorf("filestore: cannot lock %s: %w", lock.Path(), err)
	}
	defer lock.Close()

	s.removeLeftovers()
	current, err := s.read()
	if errors.Is(err, ErrDamaged) {
		return nil, s.keepAside(err)
	}
	if err != nil {
		return nil, err
	}
	next, err := fn(ctx, current)
	switch {
	case err != nil:
		return nil, err
	case next == nil || next.AccessToken == "" && next.RefreshToken == "":
		return nil, errors.New("filestore: there is no token to store")
	case current != nil && savedtoken.Of(next) == savedtoken.Of(current):
		return next, nil
	}
	return next, s.write(next)
}

// read returns the token in the file, nil if there is no file.
func (s *Store) read() (*oauth2.Token, error) {
	info, err := os.Lstat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	if err := s.check(info); err != nil {
		return nil, err // before it is opened, which takes forever if it is a pipe
	}
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	defer f.Close()
	// Another process may have put another file there in the meantime.
	if info, err = f.Stat(); err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	if err := s.check(info); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	t, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, s.path)
	}
	return t, nil
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
func decode(data []byte) (*oauth2.Token, error) {
	if len(data) > maxSize {
		return nil, ErrDamaged
	}
	t, newer := savedtoken.Parse(data)
	switch {
	case newer > 0:
		return nil, fmt.Errorf("filestore: the file is of version %d, which is newer than this program", newer)
	case t == nil:
		return nil, ErrDamaged
	}
	return t, nil
}

// write replaces the file's contents so that a crash leaves the old or the new.
func (s *Store) write(t *oauth2.Token) error {
	data, err := json.MarshalIndent(savedtoken.Of(t), "", "\t")
	if err != nil {
		return errors.New("filestore: the token cannot be written as JSON")
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".tmp-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	_, err = f.Write(append(data, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), s.path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("filestore: %w", err)
	}
	return syncDir(filepath.Dir(s.path))
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
