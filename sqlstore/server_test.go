//go:build unix

package sqlstore

import (
	"database/sql"
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/authretry/authretry/internal/pgtest"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
)

// A server is a PostgreSQL of the test's own. Its owner owns the table, too, and a user "app" may do what the package comment says, and
// no more.
type server struct{ *pgtest.Server }

// installed skips the test if a program is not installed, or fails it where it must not be missing.
func installed(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, pgtest.ErrNotInstalled) && os.Getenv("AUTHRETRY_INTEROP") != "require" {
		t.Skip(err)
	}
	require.NoError(t, err)
}

// start starts a server until the test ends.
func start(t testing.TB) *server {
	t.Helper()
	pg, err := pgtest.Start()
	installed(t, err)
	t.Cleanup(pg.Close)
	s := &server{pg}
	for _, statement := range []string{Schema, Schema, "CREATE ROLE app LOGIN", "GRANT SELECT, INSERT, UPDATE ON authretry_logins TO app"} {
		_, err := s.owner().ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	return s
}

// run runs the server again.
func (s *server) run(t testing.TB) {
	t.Helper()
	require.NoError(t, s.Run())
}

// signal sends a signal to the server's processes.
func (s *server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	require.NoError(t, s.Signal(sig))
}

func (s *server) owner() *sql.DB { return dbAt(s.DSN("owner")) }

// store returns a store as another process would have.
func (s *server) store(name string) *Store {
	return &Store{DB: dbAt(s.DSN("app")), Name: name}
}

var dbs sync.Map // by connection string

func dbAt(dsn string) *sql.DB {
	if db, ok := dbs.Load(dsn); ok {
		return db.(*sql.DB)
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		panic(err)
	}
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20)
	known, _ := dbs.LoadOrStore(dsn, db)
	return known.(*sql.DB)
}

// pooled starts a PgBouncer in transaction mode before the server, and returns the connection string of the user app.
func (s *server) pooled(t testing.TB) (dsn string) {
	t.Helper()
	dsn, end, err := s.Pool("app")
	installed(t, err)
	t.Cleanup(end)
	return dsn
}
