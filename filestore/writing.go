package filestore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

const (
	// reserved is the least room that is made for a token before it is obtained.
	reserved = 16 << 10

	// regainTimeout is how long a holder whose lock file was removed waits for the one that is there now.
	regainTimeout = 5 * time.Second
)

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
	if !isThere(u.lock) {
		return fmt.Errorf("%w: %s", ErrConflict, u.lock.Path())
	}
	return u.reserve(max(reserved, 2*len(u.old)))
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
	if err := u.store.disk.sync(u.temp); err != nil {
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
		err = u.store.disk.sync(u.temp)
	}
	if err != nil {
		return fmt.Errorf("filestore: %w", err)
	}
	u.regain()
	if _, now, err := u.store.read(); err != nil {
		return err
	} else if !bytes.Equal(now, u.old) {
		return fmt.Errorf("%w: %s", ErrConflict, u.store.path)
	}
	name := u.temp.Name()
	err = u.temp.Close()
	u.temp = nil
	if err == nil {
		err = u.store.disk.rename(name, u.store.path)
	}
	if err != nil {
		os.Remove(name)
		return fmt.Errorf("filestore: %w", err)
	}
	return u.store.syncDir()
}

// regain takes the lock that is there now, if somebody has removed the one that we have: others may have that. If they keep it
// for long, the comparison that follows has to do.
func (u *writing) regain() {
	if isThere(u.lock) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), regainTimeout)
	defer cancel()
	if lock, err := u.store.lock(ctx, ".lock"); err == nil {
		u.lock.Close()
		u.lock = lock
	}
}

// end removes a temporary file that was not used, and unlocks.
func (u *writing) end() {
	if u.temp != nil {
		u.temp.Close()
		os.Remove(u.temp.Name())
	}
	u.lock.Close()
}
