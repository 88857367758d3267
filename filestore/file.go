package filestore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/authretry/authretry"
)

// maxSize is how large the file may be. A token is much smaller.
const maxSize = 2 << 20

// read returns what is in the file, and its contents, nil if there is no file.
func (s *Store) read() (*authretry.Record, []byte, error) {
	if s.path == "" {
		return nil, nil, errNoPath
	}
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
	f, err := s.disk.open(s.path)
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
	case !isOwn(info):
		return fmt.Errorf("%w: %s belongs to another user", ErrUnsafe, s.path)
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
	var line bytes.Buffer // as it was encoded: the bound of a Record is that of its bytes
	if json.Compact(&line, data) != nil {
		return nil, ErrDamaged
	}
	r, err := authretry.DecodeRecord(line.Bytes())
	switch {
	case errors.Is(err, authretry.ErrNewerRecord):
		return nil, fmt.Errorf("filestore: %w", err)
	case err != nil:
		return nil, ErrDamaged
	}
	return r, nil
}

// syncDir makes a rename outlast a crash of the machine.
func (s *Store) syncDir() error {
	if runtime.GOOS == "windows" {
		return nil // where folders cannot be synced
	}
	s.unsynced.Store(true)
	d, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	defer d.Close()
	if err := s.disk.sync(d); err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	s.unsynced.Store(false)
	return nil
}

// tempInfix is what stands between the names of the file and of a temporary one's number.
const tempInfix = ".tmp-"

// removeLeftovers removes the temporary files of writers that have crashed. The caller holds the lock.
func (s *Store) removeLeftovers() {
	entries, err := os.ReadDir(filepath.Dir(s.path))
	if err != nil {
		return
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), filepath.Base(s.path)+tempInfix)
		if !ok || number == "" || strings.Trim(number, "0123456789") != "" || !e.Type().IsRegular() {
			continue
		}
		unlock := s.lockFolder() // or else who has the lock too may be about to rename it
		os.Remove(filepath.Join(filepath.Dir(s.path), e.Name()))
		unlock()
	}
}

// keepAside moves a damaged file out of the way. The caller holds the lock.
func (s *Store) keepAside(damage error) error {
	unlock := s.lockFolder()
	defer unlock()
	if _, _, err := s.read(); !errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%w: %s", ErrConflict, s.path)
	}
	aside := fmt.Sprintf("%s.damaged-%s", s.path, time.Now().UTC().Format("20060102T150405.000000000"))
	if err := os.Rename(s.path, aside); err != nil {
		return fmt.Errorf("%w, and it cannot be moved aside: %w", damage, err)
	}
	return fmt.Errorf("%w; it has been moved to %s; log in again, unless the token comes of client credentials", damage, aside)
}
