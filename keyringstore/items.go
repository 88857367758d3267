package keyringstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/authretry/authretry"
	"github.com/zalando/go-keyring"
)

// Contents are what is in the keyring.
type contents struct {
	item   string // the text of the item
	exists bool
	parts  int    // how many others there are
	id     string // in their names
	data   []byte // the login; nil: none
	record *authretry.Record
}

// maxLogin is how many bytes are read of a login in several items, which is more than a Record has.
const maxLogin = 2 << 20

// partsPrefix begins an item that says where the login is: "parts:COUNT:ID".
const partsPrefix = "parts:"

// read reads the keyring.
func (s *Store) read(ctx context.Context) (c contents, err error) {
	found := make(chan contents, 1) // which nobody reads if ctx ends first
	err = s.call(ctx, "read", func() {}, func() error {
		var c contents
		item, err := keyring.Get(s.Service, s.User)
		if errors.Is(err, keyring.ErrNotFound) {
			found <- c
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
		found <- c
		return nil
	})
	if err == nil {
		c = <-found
	}
	return c, err
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
		if len(c.data) > maxLogin {
			return ErrDamaged
		}
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

// put puts data in the place of old; nil: it only looks whether old is still there, and whether something can be written.
func (s *Store) put(old contents, data []byte) error {
	item, err := keyring.Get(s.Service, s.User)
	if err != nil && !errors.Is(err, keyring.ErrNotFound) {
		return err
	}
	switch {
	case err == nil && item != old.item:
		return ErrConflict
	case data == nil:
		probe := s.partName(rand.Text(), 0)
		if err := keyring.Set(s.Service, probe, "probe"); err != nil {
			return err
		}
		_ = keyring.Delete(s.Service, probe) // which nothing refers to
		return nil
	case bytes.Equal(data, old.data): // what is there
		return keyring.Set(s.Service, s.User, old.item)
	}
	text := string(data)
	if size := s.partSize(); len(text) > size {
		id, parts := rand.Text(), (len(text)+size-1)/size
		for i := range parts {
			if err := keyring.Set(s.Service, s.partName(id, i), text[i*size:min(len(text), (i+1)*size)]); err != nil {
				s.deleteParts(id, i)
				return err
			}
		}
		text = fmt.Sprintf("%s%d:%s", partsPrefix, parts, id)
	}
	if err := keyring.Set(s.Service, s.User, text); err != nil {
		return err
	}
	s.deleteParts(old.id, old.parts)
	return nil
}

// deleteParts removes items that nothing refers to.
func (s *Store) deleteParts(id string, n int) {
	for i := range n {
		_ = keyring.Delete(s.Service, s.partName(id, i))
	}
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

// call does something with the keyring until ctx ends, which it does not know of: it may ask the person to unlock it, or not answer
// at all. It calls after when that is over, which may be much later.
func (s *Store) call(ctx context.Context, what string, after func(), do func() error) error {
	if ctx.Err() != nil {
		after()
		return fmt.Errorf("keyringstore: cannot %s the keyring: %w", what, ctx.Err())
	}
	done := make(chan error, 1)
	go func() {
		defer after()
		err := safely(do)
		for tries := 1; isReplaced(err) && tries < maxTries; tries++ {
			time.Sleep(time.Duration(tries) * time.Millisecond)
			err = safely(do)
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
		err := ctx.Err()
		if context.Cause(ctx) == errNoAnswer {
			err = errNoAnswer
		}
		return fmt.Errorf("keyringstore: cannot %s the keyring: %w", what, err)
	}
}

// safely calls do. go-keyring panics if the session's bus ends while it waits for a person.
func safely(do func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the connection to it has ended")
		}
	}()
	return do()
}
