//go:build unix

package sqlstore

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
)

// through returns a store that reaches the server by a proxy, which asks pass whether data go on, and drops what follows as well if
// they do not.
func (s *server) through(t testing.TB, name string, pass func(toServer bool, data []byte) bool) *Store {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	dsn := s.DSN("app")
	_, rest, _ := strings.Cut(dsn, "@")
	target, _, _ := strings.Cut(rest, "/")
	relay := func(from, to net.Conn, toServer bool) {
		defer from.Close()
		defer to.Close()
		buf := make([]byte, 64<<10)
		for passes := true; ; {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			if passes = passes && pass(toServer, buf[:n]); passes {
				if _, err := to.Write(buf[:n]); err != nil {
					return
				}
			}
		}
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			go relay(client, upstream, true)
			go relay(upstream, client, false)
		}
	}()
	db := dbAt(strings.Replace(dsn, target, l.Addr().String(), 1))
	t.Cleanup(func() { db.Close() })
	return &Store{DB: db, Name: name}
}

// A COMMIT that nobody answers does not hold up Update for longer than Timeout: the token is stored with another connection, as soon as
// PostgreSQL has ended that transaction.
func TestCommitWithoutAnAnswer(t *testing.T) {
	srv := start(t)
	var swallow atomic.Bool
	s := srv.through(t, "login", func(toServer bool, data []byte) bool {
		return !toServer || string(data) != "Q\x00\x00\x00\x0bcommit\x00" || !swallow.CompareAndSwap(true, false)
	})
	s.Timeout, s.LockTTL = 3*time.Second, 500*time.Millisecond
	require.NoError(t, s.Update(t.Context(), saving(record("old"))))
	swallow.Store(true)
	require.NoError(t, s.Update(t.Context(), saving(record("new"))))
	require.False(t, swallow.Load())
	require.Equal(t, "new", accessOf(t, s))
}

// Nor does a ROLLBACK, after a refresh that has failed.
func TestRollbackWithoutAnAnswer(t *testing.T) {
	srv := start(t)
	s := srv.store("login")
	s.Timeout = 500 * time.Millisecond
	errRefused := errors.New("refused")
	require.ErrorIs(t, s.Update(t.Context(), func(context.Context, *authretry.Record, confirmFunc) (*authretry.Record, error) {
		srv.signal(t, syscall.SIGSTOP)
		return nil, errRefused
	}), errRefused)
	srv.signal(t, syscall.SIGCONT)
	require.NoError(t, srv.store("login").Update(t.Context(), saving(record("a"))))
}

// What confirms a lock that may have ended since confirms nothing.
func TestConfirmationThatComesLate(t *testing.T) {
	srv := start(t)
	var late atomic.Bool
	var s *Store
	s = srv.through(t, "login", func(toServer bool, _ []byte) bool {
		if !toServer && late.CompareAndSwap(true, false) {
			time.Sleep(2 * s.LockTTL)
		}
		return true
	})
	s.LockTTL = 500 * time.Millisecond
	err := s.Update(t.Context(), func(ctx context.Context, _ *authretry.Record, confirm confirmFunc) (*authretry.Record, error) {
		require.NoError(t, confirm(ctx)) // so that the statement is prepared
		late.Store(true)
		require.Error(t, confirm(ctx))
		require.Error(t, confirm(ctx), "it stays lost")
		return nil, nil
	})
	require.NoError(t, err)
}

// Replicas that start at the same time may each run Schema.
func TestSchemaBySeveralAtOnce(t *testing.T) {
	srv := start(t)
	for range 5 {
		_, err := srv.owner().Exec("DROP TABLE authretry_logins")
		require.NoError(t, err)
		errs := make(chan error, 20)
		for range cap(errs) {
			go func() {
				_, err := srv.owner().Exec(Schema)
				errs <- err
			}()
		}
		for range cap(errs) {
			require.NoError(t, <-errs)
		}
	}
}
