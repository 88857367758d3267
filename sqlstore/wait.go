package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/crowd"
)

const (
	minPoll = 5 * time.Millisecond
	maxPoll = 60 * time.Millisecond

	// lookTimes is how often who asks looks for another token before it tries the lock again.
	lookTimes = 4
)

// News is what the one who asks has found.
type news struct {
	data []byte // what is in the row; nil: nothing
	err  error  // why nobody knows
}

// A rowKey is a row of a DB.
type rowKey struct {
	db          *sql.DB
	table, name string
}

// What the Stores of one process share: crowds are those who wait, of whom one asks PostgreSQL, for all, and reads are under way. They
// are there for as long as somebody waits. These are variables of the package because those Stores have nothing in common but their DB:
// if each of a thousand asked for itself, the one who can end their wait would stand in line with all others for a connection.
var (
	crowds crowd.Crowds[rowKey, news]
	reads  crowd.Reads[rowKey, []byte]
)

func (s *Store) rowKey() rowKey { return rowKey{s.DB, s.table(), s.Name} }

// A waiter waits for a lock.
type waiter struct {
	store  *Store
	enough func(*authretry.Record) bool // nil: nothing is
	crowd  *crowd.Crowd[rowKey, news]

	seen  []byte // what enough was shown last
	shown bool   // and whether it was
}

// lock waits for the lock until ctx ends. Who waits has no connection. If enough returns true for a login that somebody has
// stored meanwhile, there is neither a lock nor an error.
func (s *Store) lock(ctx context.Context, enough func(*authretry.Record) bool) (*holder, error) {
	c, told := crowds.Join(s.rowKey())
	defer c.Leave(told)
	w := &waiter{store: s, enough: enough, crowd: c}
	for {
		n, turn, _, err := c.Await(ctx, told)
		switch {
		case err != nil:
			return nil, w.ended(ctx)
		case turn:
			defer c.EndTurn(told)
			h, err := w.ask(ctx)
			if err != nil && ctx.Err() == nil {
				c.Tell(c.Mark(), news{err: err}) // so that others do not wait for the same, one after the other
			}
			return h, err
		case n.err != nil || w.isEnough(n.data):
			return nil, n.err
		}
	}
}

// ask asks PostgreSQL until there is something to return.
func (w *waiter) ask(ctx context.Context) (*holder, error) {
	s, poll := w.store, minPoll
	for n := 0; ; n++ {
		if n%lookTimes == 0 {
			h, err := s.tryLock(ctx)
			if errors.Is(err, errNoRow) {
				if err = s.insert(ctx); err == nil {
					h, err = s.tryLock(ctx)
				}
			}
			switch {
			case err == nil:
				return h, nil
			case !errors.Is(err, errTaken) && !errors.Is(err, errNoRow):
				return nil, err
			}
		}
		at := w.crowd.Mark()
		data, err := s.read(ctx)
		if err != nil {
			return nil, err
		}
		w.crowd.Tell(at, news{data: data})
		if w.isEnough(data) {
			return nil, nil
		}
		select {
		case <-ctx.Done():
			return nil, w.ended(ctx)
		case <-time.After(poll/2 + rand.N(poll)):
		}
		poll = min(2*poll, maxPoll)
	}
}

// isEnough shows enough what it has not seen yet. What cannot be read is left for who gets the lock.
func (w *waiter) isEnough(data []byte) bool {
	if w.enough == nil || w.shown && bytes.Equal(w.seen, data) && (w.seen == nil) == (data == nil) {
		return false
	}
	w.seen, w.shown = data, true
	r, err := w.store.decode(data)
	return err == nil && w.enough(r)
}

func (w *waiter) ended(ctx context.Context) error {
	return fmt.Errorf("sqlstore: cannot lock %q: %w: %w", w.store.Name, errTaken, ctx.Err())
}
