package filestore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/gofrs/flock"
)

// reserved is the least room that is made for a token before it is obtained.
const reserved = 16 << 10

// A writing is a call of Update that holds the lock.
type writing struct {
	store *Store
	old   []byte // the contents of the file; nil: there is none

	// mu guards what follows: the function that Update has called may have left a goroutine behind, which still confirms.
	mu   sync.Mutex
	lock *flock.Flock
	temp *os.File // where the new contents go; nil: it has not been made yet
	over bool     // Update has returned
}

// confirm returns an error unless the lock holds, and the new contents can be written.
func (u *writing) confirm(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.over {
		return errors.New("filestore: there is nothing to confirm after Update has returned")
	}
	if u.old != nil && !u.store.proven.Load() {
		// Some files cannot be replaced, such as one that is mounted or immutable. That shows only if it is done.
		if err := u.replace(u.old); err != nil {
			return err
		}
	}
	room := bytes.Repeat([]byte{' '}, max(reserved, 2*len(u.old)))
	if err := u.fill(room); err != nil {
		return err
	}
	return u.holds() // after all this, which may have taken a while
}

// holds returns an error if others may have the lock, or have written.
func (u *writing) holds() error {
	if !isAt(u.lock, u.lock.Path()) {
		return fmt.Errorf("%w: %s", ErrConflict, u.lock.Path())
	}
	return u.unchanged()
}

// unchanged returns an error if the file is not as it was.
func (u *writing) unchanged() error {
	_, now, err := u.store.read()
	if err == nil && !bytes.Equal(now, u.old) {
		err = fmt.Errorf("%w: %s", ErrConflict, u.store.path)
	}
	return err
}

// fill makes the temporary file have the contents text, on the disk.
func (u *writing) fill(text []byte) error {
	if !u.hasTemp() {
		u.discard()
		f, err := os.CreateTemp(filepath.Dir(u.store.path), filepath.Base(u.store.path)+tempInfix+"*") // with mode 0600
		if err != nil {
			return fmt.Errorf("filestore: %w", err)
		}
		u.temp = f
	}
	_, err := u.temp.WriteAt(text, 0)
	if err == nil {
		err = u.temp.Truncate(int64(len(text))) // which comes second, so as to keep the room that was made
	}
	if err == nil {
		err = u.store.disk.sync(u.temp)
	}
	if err != nil {
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

	u.mu.Lock()
	defer u.mu.Unlock()
	return u.replace(text.Bytes())
}

// replace puts text in the place of the file, on the disk.
func (u *writing) replace(text []byte) error {
	if err := u.fill(text); err != nil {
		return err
	}
	if err := u.rename(text); err != nil {
		return err
	}
	return u.store.syncDir()
}

// rename puts the temporary file with the contents text in the place of the file, unless that has been changed.
func (u *writing) rename(text []byte) error {
	unlock := u.store.lockFolder()
	defer unlock()
	if err := u.unchanged(); err != nil {
		return err
	}
	if !u.hasTemp() {
		if err := u.fill(text); err != nil {
			return err
		}
	}
	name := u.temp.Name()
	err := u.temp.Close()
	u.temp = nil
	if err == nil {
		err = u.store.disk.rename(name, u.store.path)
	}
	u.store.proven.Store(err == nil)
	if err != nil {
		os.Remove(name)
		return fmt.Errorf("filestore: %w", err)
	}
	return nil
}

// hasTemp reports whether the temporary file is still there: who has the lock too takes it for a leftover.
func (u *writing) hasTemp() bool { return u.temp != nil && isAt(u.temp, u.temp.Name()) }

// discard removes the temporary file.
func (u *writing) discard() {
	if u.temp != nil {
		u.temp.Close()
		os.Remove(u.temp.Name())
		u.temp = nil
	}
}

// end removes a temporary file that was not used, and unlocks.
func (u *writing) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.over = true
	u.discard()
	u.lock.Close()
}
