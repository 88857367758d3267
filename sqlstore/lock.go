package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Why a lock was not taken, and may be if it is tried again.
var (
	errTaken = errors.New("another one has the lock")
	errNoRow = errors.New("there is no row")
)

// A holder has the row's lock: a transaction.
type holder struct {
	store *Store
	old   []byte // what was in the row when the lock was taken; nil: nothing
	stop  context.CancelFunc

	mu   sync.Mutex // guards what follows
	tx   *sql.Tx
	over bool // the transaction has ended
	lost error
}

// limited bounds a statement.
func (s *Store) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, s.timeout(), errNoAnswer)
}

// read returns what is in the row; nil: nothing.
func (s *Store) read(ctx context.Context) (data []byte, err error) {
	limited, cancel := s.limited(ctx)
	defer cancel()
	err = s.DB.QueryRowContext(limited, "SELECT record FROM "+s.table()+" WHERE name = $1", s.Name).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, s.failed(limited, "read", err)
	}
	return data, nil
}

// insert makes the row, which has to be there to be locked.
func (s *Store) insert(ctx context.Context) error {
	limited, cancel := s.limited(ctx)
	defer cancel()
	_, err := s.DB.ExecContext(limited, "INSERT INTO "+s.table()+" (name) VALUES ($1) ON CONFLICT (name) DO NOTHING", s.Name)
	if err != nil {
		return s.failed(limited, "make the row of", err)
	}
	return nil
}

// tryLock tries to take the lock once.
func (s *Store) tryLock(ctx context.Context) (*holder, error) {
	limited, cancel := s.limited(ctx)
	defer cancel()
	// The transaction outlasts ctx, but not before it has the lock.
	lasting, stop := context.WithCancel(context.WithoutCancel(ctx))
	tied := context.AfterFunc(limited, stop)
	h, err := s.begin(lasting, stop, " NOWAIT")
	if err == nil && !tied() {
		h.roll()
		err = limited.Err()
	}
	if err != nil {
		tied()
		stop()
		if errors.Is(err, errTaken) || errors.Is(err, errNoRow) {
			return nil, err
		}
		return nil, s.failed(limited, "lock", err)
	}
	go h.keep(lasting)
	return h, nil
}

// begin begins a transaction, and locks the row. It ends with ctx, which stop ends.
func (s *Store) begin(ctx context.Context, stop context.CancelFunc, how string) (*holder, error) {
	tx, err := s.DB.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted}) // where nobody else's commit is an error
	if err != nil {
		return nil, err
	}
	h := &holder{store: s, stop: stop, tx: tx}
	err = tx.QueryRowContext(ctx, "SELECT record FROM "+s.table()+" WHERE name = $1 FOR UPDATE"+how, s.Name).Scan(&h.old)
	if err == nil { // who does not get the lock needs none of these
		_, err = tx.ExecContext(ctx, `SELECT set_config('statement_timeout', $1, true), set_config('lock_timeout', $1, true),
			set_config('idle_in_transaction_session_timeout', $2, true),
			set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true)`,
			strconv.FormatInt(max(1, s.timeout().Milliseconds()), 10), strconv.FormatInt(s.lockTTL().Milliseconds(), 10))
	}
	switch {
	case err == nil:
		return h, nil
	case errors.Is(err, sql.ErrNoRows):
		err = errNoRow
	case isTaken(err):
		err = errTaken
	}
	_ = tx.Rollback()
	return nil, err
}

// isTaken reports whether PostgreSQL says that another one has the lock (lock_not_available), whichever driver there is.
func isTaken(err error) bool {
	if e, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		return e.SQLState() == "55P03"
	}
	return strings.Contains(err.Error(), "could not obtain lock on row")
}

// keep has the transaction live for as long as the holder does.
func (h *holder) keep(ctx context.Context) {
	tick := time.NewTicker(h.store.lockTTL() / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if h.exec(ctx, "keep", "SELECT 1") != nil {
			return // confirm and write will say so
		}
	}
}

// exec executes a statement in the transaction. After one that fails, the lock counts as lost.
func (h *holder) exec(ctx context.Context, what, statement string, args ...any) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.over:
		return fmt.Errorf("sqlstore: the lock of %q is no longer held", h.store.Name)
	case h.lost != nil:
		return h.lost
	case ctx.Err() != nil:
		return fmt.Errorf("sqlstore: cannot %s %q: %w", what, h.store.Name, ctx.Err())
	}
	limited, cancel := h.store.limited(context.WithoutCancel(ctx)) // whose end would end the transaction
	defer cancel()
	_, err := h.tx.ExecContext(limited, statement, args...)
	if err != nil {
		h.lost = h.store.failed(limited, what, err)
	}
	return h.lost
}

// confirm returns nil only if the lock still holds, and the row can be written. What it writes is as it was.
// An answer that comes later than LockTTL counts for nothing, since another one may have the lock by then.
func (h *holder) confirm(ctx context.Context) error {
	asked := time.Now()
	err := h.exec(ctx, "confirm", "UPDATE "+h.store.table()+" SET record = $2 WHERE name = $1", h.store.Name, h.old)
	if err == nil && time.Since(asked) >= h.store.lockTTL() {
		err = h.store.failed(context.Background(), "confirm", errNoAnswer)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.lost = err
	}
	return err
}

// write stores data, and ends the transaction.
func (h *holder) write(ctx context.Context, data []byte) error {
	err := h.exec(ctx, "write", "UPDATE "+h.store.table()+" SET record = $2 WHERE name = $1", h.store.Name, data)
	if err == nil {
		err = h.commit()
	}
	if err == nil {
		return nil
	}
	h.roll()
	return h.store.writeAnyway(ctx, h.old, data, err)
}

// writeAnyway stores data, with another connection, if what was there is still there. It does so after cause.
func (s *Store) writeAnyway(ctx context.Context, old, data []byte, cause error) error {
	limited, cancel := s.limited(ctx)
	defer cancel()
	h, err := s.begin(limited, cancel, "")
	if errors.Is(err, errNoRow) {
		if err = s.insert(limited); err == nil {
			h, err = s.begin(limited, cancel, "")
		}
	}
	if err != nil {
		return fmt.Errorf("%w; the token may have been stored", cause)
	}
	defer h.roll()
	switch {
	case bytes.Equal(h.old, data):
		return nil
	case h.old != nil && !bytes.Equal(h.old, old):
		return fmt.Errorf("%w: %q", ErrLockLost, s.Name)
	}
	if err := h.exec(limited, "write", "UPDATE "+s.table()+" SET record = $2 WHERE name = $1", s.Name, data); err != nil {
		return err
	}
	if err := h.commit(); err != nil {
		return fmt.Errorf("%w; the token may have been stored", err)
	}
	return nil
}

func (h *holder) commit() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	limit := h.limit()
	err := h.tx.Commit()
	if !limit.Stop() && err != nil {
		err = errNoAnswer
	}
	if err != nil {
		return h.store.failed(context.Background(), "commit", err)
	}
	return nil
}

// limit ends the transaction's context after Timeout, unless it is stopped, and with it a COMMIT or ROLLBACK without an answer.
func (h *holder) limit() *time.Timer { return time.AfterFunc(h.store.timeout(), h.stop) }

// roll ends the transaction, and with it the lock.
func (h *holder) roll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	defer h.limit().Stop()
	_ = h.tx.Rollback()
}

// end ends whatever there is.
func (h *holder) end() {
	h.roll()
	h.stop()
}

// errNoAnswer says that PostgreSQL has taken longer than Timeout, which is not the caller's deadline.
var errNoAnswer = errors.New("there was no answer from PostgreSQL in time")

// failed returns the error of a statement under the context ctx.
func (s *Store) failed(ctx context.Context, what string, err error) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		<-ctx.Done() // which a timeout of the connection may precede by a moment
	}
	if ctx.Err() != nil {
		if err = context.Cause(ctx); err != errNoAnswer {
			err = ctx.Err()
		}
	}
	return fmt.Errorf("sqlstore: cannot %s %q in %s: %w", what, s.Name, s.table(), err)
}
