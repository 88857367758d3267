package keyringstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/filestore"
)

const (
	saveTimeout = 30 * time.Second
	pollEvery   = 100 * time.Millisecond
)

// errNoAnswer is why a context of ours ends.
var errNoAnswer = errors.New("there was no answer from the keyring in time")

// file returns a file's store, which never gets a Record: of it there is the lock.
func (s *Store) file() (*filestore.Store, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	path := s.LockFile
	if path == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil, fmt.Errorf("keyringstore: there is no place for the lock; set Store.LockFile: %w", err)
		}
		sum := sha256.Sum256([]byte(s.Service + "\x00" + s.User))
		path = filepath.Join(dir, "authretry", hex.EncodeToString(sum[:16]))
	}
	if _, err := os.Lstat(path); err == nil { // which the file's store would take for a login
		return nil, fmt.Errorf("keyringstore: Store.LockFile is the name of a file that is there already: %s", path)
	}
	return filestore.New(path), nil
}

// A holder has the lock.
type holder struct {
	store    *Store
	old      contents                    // what was in the keyring when the lock was taken
	holds    func(context.Context) error // whether it still does
	release  chan struct{}               // closed to end it
	released chan error                  // what has come of it

	// mu guards what follows: the function that Update has called may have left a goroutine behind, which still confirms.
	mu      sync.Mutex
	over    bool
	writing sync.WaitGroup // those calls of the keyring that have not ended yet
	hangs   bool           // one of them, that nobody waits for any more
}

// lock waits for the lock until ctx ends. If enough returns true for a login that another one has stored meanwhile, there is neither a
// lock nor an error.
func (s *Store) lock(ctx context.Context, enough func(*authretry.Record) bool) (*holder, error) {
	file, err := s.file()
	if err != nil {
		return nil, err
	}
	h := &holder{store: s, release: make(chan struct{}), released: make(chan error, 1)}
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	locked := make(chan func(context.Context) error)
	go func() {
		h.released <- file.Update(waiting, func(_ context.Context, _ *authretry.Record, holds func(context.Context) error) (*authretry.Record, error) {
			select {
			case locked <- holds:
			case <-waiting.Done():
				return nil, fmt.Errorf("keyringstore: cannot lock: %w", waiting.Err())
			}
			<-h.release
			h.writing.Wait()
			return nil, nil
		})
	}()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	seen := ""
	for first := true; ; {
		select {
		case h.holds = <-locked:
			return h, nil
		case err := <-h.released:
			return nil, err
		case <-tick.C:
		}
		if enough == nil {
			continue
		}
		// What cannot be read is left for who gets the lock.
		c, err := s.read(waiting)
		if err != nil || !first && c.item == seen {
			continue
		}
		first, seen = false, c.item
		if enough(c.record) {
			return nil, nil
		}
	}
}

// confirm returns nil only if the lock still holds, and the keyring can be written. What it writes is as it was.
func (h *holder) confirm(ctx context.Context) error {
	if err := h.holds(ctx); err != nil {
		return err
	}
	if err := h.write(ctx, h.old.data); err != nil {
		return err
	}
	return h.holds(ctx) // after all this, which may have taken a while
}

// save puts data in the place of what was there.
func (h *holder) save(ctx context.Context, data []byte) error {
	limit := saveTimeout
	if h.store.wait > 0 {
		limit = h.store.wait
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errNoAnswer)
	defer cancel()
	err := h.write(ctx, data)
	if errors.Is(err, errNoAnswer) {
		return fmt.Errorf("%w: %w; the token may have been stored, or be stored yet", ErrUnavailable, err)
	}
	return err
}

// write writes data until ctx ends. If the keyring has not answered by then, the lock does not end before it has.
func (h *holder) write(ctx context.Context, data []byte) error {
	h.mu.Lock()
	if h.over {
		h.mu.Unlock()
		return errors.New("keyringstore: there is nothing to write after Update has returned")
	}
	h.writing.Add(1)
	h.mu.Unlock()
	err := h.store.call(ctx, "write", h.writing.Done, func() error { return h.store.put(h.old, data) })
	if ctx.Err() != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.hangs = true
	}
	return err
}

// end ends the lock.
func (h *holder) end() {
	h.mu.Lock()
	h.over = true
	hangs := h.hangs
	h.mu.Unlock()
	close(h.release)
	if !hangs {
		<-h.released
	}
}
