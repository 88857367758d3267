// Package sqlstore keeps an OAuth 2.0 login in PostgreSQL, for all the machines that share it: the replicas of a service, or
// jobs that run here and there. It is an authretry.TokenStore. It uses database/sql, and any driver for PostgreSQL.
//
//	tokens := &authretry.TokenSource{
//		Fetch: authretry.RefreshGrant(config),
//		Store: &sqlstore.Store{DB: db, Name: "myapp"},
//	}
//
// The table has to be there: [Schema] makes it, and may be run again.
//
// # Guarantees
//
// One holder at a time refreshes. The login is a row, which the holder has locked (SELECT ... FOR UPDATE NOWAIT) in a transaction
// that ends when the new token is committed. So the lock, the comparison and the write are one: nobody else can have
// written in between, whatever happened. The lock of a holder that has crashed ends with its connection. If its machine has gone
// without a word, PostgreSQL ends the transaction after LockTTL, 30 seconds unless set: a holder that is alive sends
// something every third of that.
//
// Before a refresh token is spent, the row is written as it is in that transaction: so a lost connection, a full
// disk, a server that only reads, and a user who may not write are found out in time. A commit is durable (synchronous_commit is
// on, whatever the server's default is).
//
// If the connection is lost while the token is obtained, or while it is committed, Update looks with another connection, and stores the
// token unless somebody has stored another one meanwhile: then that one stays, and the error is [ErrLockLost].
//
// Reading takes no lock. Who waits does so without a connection. Of all who wait in one process with the same DB, one asks whether there
// is another token, some 16 times a second, and tells the others: so a thousand who wait share a pool of twenty. If it gets an error, so
// do they. A holder has a connection for as long as it takes to get a token. So DB needs one for each login that is refreshed at the
// same time, and one more.
//
// Not prevented is that two spend the same refresh token if the holder loses its connection, or is suspended for LockTTL, after the
// lock was confirmed and before the new token is stored. And a failover to a replica that lags behind loses what was committed, unless
// synchronous_standby_names says that commits wait for it: an older token that comes back that way may hold a refresh token that has
// been used.
//
// # Connection poolers
//
// A pooler in transaction mode, as PgBouncer has it, works, since nothing outlasts a transaction. The driver must not keep prepared
// statements then: with pgx, by default_query_exec_mode=exec in the connection string. The pooler's own idle_transaction_timeout
// must be longer than a third of LockTTL.
//
// # Rights
//
// The user needs SELECT, INSERT and UPDATE on the table, and no more. To log out, call TokenSource.Logout, which leaves a value
// that says so. Do not delete the row: whoever still has the token would write it back.
//
// # Security
//
// Without Seal, whoever can read the table, its backups or replicas can read the token. Nothing that is stored is part of a
// statement's text, unless the driver puts it there (pgx does with default_query_exec_mode=simple_protocol): otherwise the
// server's log has it only with log_parameter_max_length, or log_min_duration_statement and the like. Use TLS.
package sqlstore

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/authretry/authretry"
)

// Schema makes the table that a Store uses unless Table is set. It may be run again, and at the same time by several.
const Schema = `DO $$ BEGIN
	PERFORM pg_advisory_xact_lock(hashtext('authretry_logins')); -- since IF NOT EXISTS fails for one of two at the same time
	CREATE TABLE IF NOT EXISTS authretry_logins (
		name text PRIMARY KEY,
		record bytea
	);
END $$`

const (
	defaultTable   = "authretry_logins"
	defaultLockTTL = 30 * time.Second
	defaultTimeout = 5 * time.Second
)

// Errors that those of a Store wrap.
var (
	// ErrLockLost means that a token was not stored, because the connection was lost that had the lock, and somebody
	// else has stored another token meanwhile. That one stays. Where both come from the same refresh token, a server that
	// detects reuse may have revoked either or both.
	ErrLockLost = errors.New("sqlstore: the connection with the lock was lost, and another token has been stored meanwhile")

	// ErrDamaged means that the row does not hold a token. Nothing has been changed. To be able to log in again, rename the
	// row, or set its record to NULL.
	ErrDamaged = errors.New("sqlstore: the row does not hold a token")
)

// A Store keeps a login in a row. It is safe for concurrent use. It must not be copied, nor its fields changed, after its first use.
type Store struct {
	// DB is a PostgreSQL. It is not closed.
	DB *sql.DB

	// Name is which login it is, the primary key of its row. It must not be empty.
	Name string

	// Table is the table's name, or SCHEMA.NAME. "" means authretry_logins. It must be like what Schema makes.
	Table string

	// Seal encrypts what is stored, and Open decrypts it, or fails if it is not what Seal has made. Both must be safe for
	// concurrent use, must keep their argument as it is, and must not put it into their errors. What Open refuses is never
	// overwritten. To change the encryption key, let Open try both keys until everybody seals with the new one.
	//
	// If both are nil, the login is stored as it is. One without the other is an error.
	Seal func(plaintext []byte) ([]byte, error)
	Open func(sealed []byte) ([]byte, error)

	// LockTTL is after how long the lock of a holder ends of which nothing is heard, not even the end of its connection. 0 means
	// 30 seconds.
	LockTTL time.Duration

	// Timeout bounds each statement, and how long a new token is tried to be stored. 0 means 5 seconds.
	Timeout time.Duration
}

type updateFunc = func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error)

// Load returns the Record in the row, nil if there is none. It takes no lock.
func (s *Store) Load(ctx context.Context) (*authretry.Record, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	data, err := reads.Do(ctx, s.rowKey(), s.read)
	switch {
	case err != nil && err == ctx.Err():
		return nil, s.failed(ctx, "read", err)
	case err != nil:
		return nil, err
	}
	return s.decode(data)
}

// Update calls fn with the Record in the row, nil if there is none, while it holds the row's lock, and stores what fn returns unless
// that is nil or the same. It waits for the lock until ctx ends. What fn returns is stored even if ctx has ended by then.
func (s *Store) Update(ctx context.Context, fn func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error)) error {
	return s.update(ctx, nil, fn)
}

// UpdateUnless is Update, but while it waits for the lock it shows enough each Record that others store, nil if the row vanishes.
// As soon as enough returns true, it returns nil without having called fn.
func (s *Store) UpdateUnless(ctx context.Context, enough func(current *authretry.Record) bool, fn func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error)) error {
	return s.update(ctx, enough, fn)
}

func (s *Store) update(ctx context.Context, enough func(*authretry.Record) bool, fn updateFunc) error {
	if err := s.check(); err != nil {
		return err
	}
	h, err := s.lock(ctx, enough)
	if h == nil {
		return err
	}
	defer h.end()

	current, err := s.decode(h.old)
	if err != nil {
		return err
	}
	next, err := fn(ctx, current, h.confirm)
	if err != nil || next == nil {
		return err
	}
	data, err := next.Encode()
	if err != nil {
		return fmt.Errorf("sqlstore: %w", err)
	}
	if current != nil {
		if own, err := current.Encode(); err == nil && bytes.Equal(own, data) {
			return nil
		}
	}
	if s.Seal != nil {
		if data, err = s.Seal(data); err != nil {
			return fmt.Errorf("sqlstore: Store.Seal failed, so the token is not stored: %w", err)
		}
	}
	return h.write(context.WithoutCancel(ctx), data)
}

// check reports mistakes in the fields.
func (s *Store) check() error {
	switch {
	case s.DB == nil:
		return errors.New("sqlstore: Store.DB is nil")
	case s.Name == "":
		return errors.New("sqlstore: Store.Name is empty")
	case (s.Seal == nil) != (s.Open == nil):
		return errors.New("sqlstore: Store.Seal and Store.Open belong together, but one of them is nil")
	}
	return nil
}

// table returns the table's name, quoted.
func (s *Store) table() string {
	if s.Table == "" {
		return defaultTable
	}
	parts := strings.Split(s.Table, ".")
	for i, part := range parts {
		parts[i] = `"` + strings.ReplaceAll(part, `"`, `""`) + `"`
	}
	return strings.Join(parts, ".")
}

func (s *Store) lockTTL() time.Duration {
	if s.LockTTL > 0 {
		return max(s.LockTTL, 10*time.Millisecond)
	}
	return defaultLockTTL
}

func (s *Store) timeout() time.Duration {
	if s.Timeout > 0 {
		return s.Timeout
	}
	return defaultTimeout
}

// decode reads what is in the row; nil: nothing.
func (s *Store) decode(data []byte) (*authretry.Record, error) {
	if data == nil {
		return nil, nil
	}
	if s.Open != nil {
		var err error
		if data, err = s.Open(data); err != nil {
			return nil, fmt.Errorf("sqlstore: Store.Open refuses the record of %q, which is left as it is: %w", s.Name, err)
		}
	}
	r, err := authretry.DecodeRecord(data)
	switch {
	case errors.Is(err, authretry.ErrNewerRecord):
		return nil, fmt.Errorf("sqlstore: cannot read the record of %q: %w", s.Name, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %q in %s", ErrDamaged, s.Name, s.table())
	}
	return r, nil
}

// Format keeps tokens and the connection's password out of everything that package fmt prints.
func (s *Store) Format(f fmt.State, verb rune) { fmt.Fprintf(f, "sqlstore.Store{Name: %q}", s.Name) }

// MarshalJSON keeps them out of JSON.
func (s *Store) MarshalJSON() ([]byte, error) { return json.Marshal(map[string]string{"Name": s.Name}) }
