//go:build unix

package sqlstore

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/storetest"
)

// open opens the place "DSN|NAME", or "DSN|NAME|sealed".
func open(place string) (authretry.TokenStore, error) { return storeOf(place), nil }

func storeOf(place string) *Store {
	fields := strings.Split(place, "|")
	s := &Store{DB: dbAt(fields[0]), Name: fields[1]}
	if len(fields) == 3 {
		s.Seal, s.Open = sealWith(bytes.Repeat([]byte{1}, 32), s.Name)
	}
	return s
}

func sealWith(secret []byte, name string) (seal, open func([]byte) ([]byte, error)) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return func(plaintext []byte) ([]byte, error) { return aead.Seal(nil, nil, plaintext, []byte(name)), nil },
		func(sealed []byte) ([]byte, error) { return aead.Open(nil, nil, sealed, []byte(name)) }
}

func TestMain(m *testing.M) {
	storetest.Child(open)
	os.Exit(m.Run())
}

// contractOptions are those of a server that is reached by a connection string.
func (s *server) contractOptions(dsn, suffix string) storetest.Options {
	var places atomic.Int32
	exec := func(ctx context.Context, statement string, args ...any) error {
		_, err := s.owner().ExecContext(ctx, statement, args...)
		return err
	}
	return storetest.Options{
		NewPlace: func() (string, error) { return fmt.Sprintf("%s|login%d%s", dsn, places.Add(1), suffix), nil },
		Put: func(ctx context.Context, place string, value []byte) error {
			store := storeOf(place)
			if _, err := authretry.DecodeRecord(value); (err == nil || errors.Is(err, authretry.ErrNewerRecord)) && store.Seal != nil {
				if value, err = store.Seal(value); err != nil {
					return err
				}
			}
			return exec(ctx, "INSERT INTO authretry_logins VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET record = EXCLUDED.record", store.Name, value)
		},
		Find: func(ctx context.Context, place string, value []byte) (found bool, err error) {
			if _, err := authretry.DecodeRecord(value); suffix != "" && errors.Is(err, authretry.ErrNewerRecord) {
				return true, nil // it was sealed
			}
			err = s.owner().QueryRowContext(ctx, "SELECT record = $2 FROM authretry_logins WHERE name = $1", storeOf(place).Name, value).Scan(&found)
			if errors.Is(err, sql.ErrNoRows) {
				err = nil
			}
			return found, err
		},
		Remove: func(ctx context.Context, place string) error {
			return exec(ctx, "DELETE FROM authretry_logins WHERE name = $1", storeOf(place).Name)
		},
		TakeLock: func(ctx context.Context, _ string) error { return s.endTransactions(ctx) },
		Spoil: func(ctx context.Context, place string) (func() error, error) {
			return func() error { return exec(context.Background(), "GRANT UPDATE ON authretry_logins TO app") },
				exec(ctx, "REVOKE UPDATE ON authretry_logins FROM app")
		},
	}
}

// endTransactions ends the connections of all who have a lock, and waits until they are gone.
func (s *server) endTransactions(ctx context.Context) error {
	_, err := s.owner().ExecContext(ctx, `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND usename = 'app'`)
	return err
}

func TestContract(t *testing.T) {
	s := start(t)
	storetest.Run(t, open, s.contractOptions(s.DSN("app"), ""))
}

func TestContractSealed(t *testing.T) {
	s := start(t)
	storetest.Run(t, open, s.contractOptions(s.DSN("app"), "|sealed"))
}

func TestContractBehindAPooler(t *testing.T) {
	s := start(t)
	storetest.Run(t, open, s.contractOptions(s.pooled(t), ""))
}
