// Package redisstore keeps an OAuth 2.0 login in Redis or Valkey, for all the machines that share it: the replicas of a
// service, or jobs that run here and there. It is an authretry.TokenStore.
//
//	tokens := &authretry.TokenSource{
//		Fetch: authretry.RefreshGrant(config),
//		Store: &redisstore.Store{Client: client, Key: "myapp:login"},
//	}
//
// # Guarantees
//
// One holder at a time refreshes, under a lock that is extended for as long as that takes. The lock of a holder that
// has crashed, or cannot reach Redis any more, expires after LockTTL, 10 seconds unless set. Those who wait for it take
// it in no particular order. Those who wait for a token, as a TokenSource does, go on without the lock when another one has
// stored it. They are woken by Pub/Sub, on a channel named like the lock's key; where that is not possible, they ask some ten
// times a second. In a process, one asks for all who wait for the same login with the same client. For each login that it waits for, a
// process has one more connection.
//
// Before a refresh token is spent, one more script makes sure that the lock is still there, and that no other token has
// been stored, and it writes the lock again: so a Redis that is read-only, out of memory, cannot save to its disk, lacks
// replicas (min-replicas-to-write) or refuses the user is found out in time, and the refresh token is not spent. An answer
// that comes later than LockTTL after its question counts for nothing, neither there nor when the lock is taken, because
// somebody else may have the lock by then.
//
// A lock that expires cannot be trusted alone: a holder that was suspended may wake up after another one has refreshed.
// So a token is written only in place of the one that it was made from, which a script on the server compares: a newer
// token is never overwritten, and the late holder gets [ErrLockLost]. If the lock was lost, but nobody has stored
// another token meanwhile, the token is written nevertheless, and likewise if the key has vanished: a token that
// was obtained is not thrown away as long as it overwrites none.
//
// Not prevented is that a holder is suspended for LockTTL, or cut off from Redis for that long, after the lock was confirmed and
// before the new token is stored: then another one may spend the same refresh token. Nor is a crash in between, nor what Redis
// loses (see below), be it the login or the lock. These are all the reasons: nothing that goes wrong before the lock is confirmed costs a login.
//
// Reading takes no lock, so nobody waits for a refresh who has a good token to read.
//
// # When Redis is down
//
// Update and Load return an error as soon as the client gives up, or the context ends, whether or not the client's
// ContextTimeoutEnabled is set. The client's DialTimeout, ReadTimeout and MaxRetries say when it does: by default, within
// two seconds if connections are refused, but after 20 or more if there is no answer at all. To confirm the lock, and to write the
// token, takes LockTTL at most, and to release the lock a second.
//
// If there is no answer to a write, the error says that the token may have been stored nevertheless. The lock is then not
// released, but expires, so that others do not read the old token while the new one is on its way. If it arrives still
// later, it is compared like any other. A TokenSource goes on handing out the token that it has until that expires, and
// saves it within some 30 seconds of when Redis is back. It gets no new one until then, unless RefreshWhenDown is set.
//
// What Redis has confirmed, it can still lose: with its own crash, unless appendonly and appendfsync say otherwise,
// with a failover to a replica that lags behind, and by eviction, unless maxmemory-policy is noeviction or a volatile
// one (the token has no TTL, because a refresh token outlives its access token). An older token that comes back that
// way may hold a refresh token that has been used, and a server that detects reuse ends the login then: RFC 9700
// §4.14.2.
//
// # Keys and values
//
// The login is a string at Key: what Record.Encode makes of it, or Seal of that. The lock is a string at "{Key}:lock", or
// Key + ":lock" if Key has a hash tag of its own, so that a Redis Cluster keeps both on one node. Several logins need
// several keys.
//
// To log out, call TokenSource.Logout, which leaves a value that says so, and that others notice. Do not delete the key:
// one that merely vanished, as by eviction, is written back by whoever still has the token.
//
// Everything is done by scripts, which clients for a cluster send to primaries only, whatever ReadOnly and the like say: a
// replica may not have the newest token yet. A client that is connected to a replica itself reads there nevertheless, and
// Update fails, before anything is spent. They need a user who may call EVALSHA, EVAL, GET, SET and DEL with both keys:
//
//	ACL SETUSER myapp on >password ~myapp:login ~{myapp:login}:lock &{myapp:login}:lock +evalsha +eval +get +set +del +publish +subscribe
//
// If one of the first five is missing, Update fails before anything is spent, with an error that names them all; but for EVAL, which
// is needed only for a script that Redis does not know yet. Without PUBLISH, SUBSCRIBE and the channel, those who wait are not woken.
//
// # Security
//
// Without Seal, whoever can read Redis, its files, replicas and backups, or the output of MONITOR and SLOWLOG, can read
// the token. Use TLS and a password. Whoever can write there can replace the token; if Open authenticates it, only by an
// older one.
package redisstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry"
	"github.com/redis/go-redis/v9"
)

const defaultLockTTL = 10 * time.Second

// A Store keeps a login in Redis. It is safe for concurrent use. It must not be copied, nor its fields changed, after
// its first use.
type Store struct {
	// Client is a *redis.Client, *redis.ClusterClient, *redis.Ring or any other redis.UniversalClient. It is not
	// closed.
	Client redis.Scripter

	// Key is where the login is. It must not be empty.
	Key string

	// Seal encrypts what is stored, and Open decrypts it, or fails if it is not what Seal has made. Both must be safe
	// for concurrent use, must keep their argument as it is, and must not put it into their errors. What Open refuses
	// is never overwritten: Update and Load fail until Open accepts it, or the key is renamed or deleted. To change the
	// encryption key, let Open try both keys until everybody seals with the new one.
	//
	// If both are nil, the login is stored as it is. One without the other is an error.
	Seal func(plaintext []byte) ([]byte, error)
	Open func(sealed []byte) ([]byte, error)

	// LockTTL is after how long the lock of a holder that has crashed expires. A holder that is alive extends it every
	// third of that. It should be much longer than Redis takes to answer: a later answer counts for nothing. 0 means
	// 10 seconds.
	LockTTL time.Duration

	// RefreshWhenDown has Update call its function although Redis cannot be reached, or cannot write for now: without a
	// lock, with the last Record that this Store has read or written, nil if there is none, and with a confirm that
	// returns nil. If Redis goes down later, when there is a lock already, confirm returns nil too. Update returns an
	// error then, because the token is not stored. A TokenSource uses it nevertheless.
	//
	// That is for logins that any number of processes may refresh at a time, such as client credentials. It is
	// dangerous where refresh tokens are used once only: the first process to refresh takes the refresh token from all
	// others and from Redis, and the second one that uses it may end the login for all (RFC 9700 §4.14.2).
	RefreshWhenDown bool

	last   atomic.Pointer[authretry.Record]        // read or written, for RefreshWhenDown
	random func(below time.Duration) time.Duration // nil: rand.N
}

// updateFunc is what Update calls.
type updateFunc = func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error)

// Load returns the Record in Redis, nil if there is none. It takes no lock.
func (s *Store) Load(ctx context.Context) (*authretry.Record, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	answer, err := reads.Do(ctx, s.loginKey(), func(ctx context.Context) (any, error) { return s.run(ctx, readScript, nil) })
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, failed("read", s.Key, err)
	}
	value, _ := answer.(string)
	return s.decode(value, err == nil)
}

// Update calls fn with the Record in Redis, nil if there is none, while it holds the lock, and stores what fn returns
// unless that is nil or the same. It waits for the lock until ctx ends. What fn returns is stored even if ctx has ended
// by then. If Redis does not say whether that has succeeded, the error says so.
func (s *Store) Update(ctx context.Context, fn func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error)) error {
	return s.update(ctx, nil, fn)
}

// UpdateUnless is Update, but while it waits for the lock it shows enough each Record that others store, nil if the key vanishes.
// As soon as enough returns true, it returns nil without having called fn. A thousand who wait for one token are woken at once when
// it is there.
func (s *Store) UpdateUnless(ctx context.Context, enough func(current *authretry.Record) bool, fn func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error)) error {
	return s.update(ctx, enough, fn)
}

func (s *Store) update(ctx context.Context, enough func(*authretry.Record) bool, fn updateFunc) error {
	if err := s.check(); err != nil {
		return err
	}
	l, err := s.lock(ctx, enough)
	if err != nil {
		return s.updateDown(ctx, err, fn)
	}
	if l == nil {
		return nil // another one has done it
	}
	defer l.keep(ctx)()

	current, err := s.decode(l.value, l.exists)
	if err != nil {
		return err
	}
	next, err := fn(ctx, current, l.confirm)
	if err != nil || next == nil {
		return err
	}
	data, err := next.Encode()
	if err != nil {
		return fmt.Errorf("redisstore: %w", err)
	}
	if isEncodedAs(current, data) {
		return nil
	}
	if err := l.write(context.WithoutCancel(ctx), data); err != nil {
		return err
	}
	s.last.Store(next)
	return nil
}

// updateDown is Update where down says that there is neither a lock nor a Record.
func (s *Store) updateDown(ctx context.Context, down error, fn updateFunc) error {
	if !s.RefreshWhenDown || ctx.Err() != nil || !isDown(down) {
		return down
	}
	next, err := fn(ctx, s.last.Load(), func(context.Context) error { return nil })
	if err != nil || next == nil {
		return err
	}
	return fmt.Errorf("%w; so the token is not stored", down)
}

func isEncodedAs(r *authretry.Record, data []byte) bool {
	own, err := r.Encode()
	return err == nil && bytes.Equal(own, data)
}

// check reports mistakes in the fields.
func (s *Store) check() error {
	switch {
	case s.Client == nil:
		return errors.New("redisstore: Store.Client is nil")
	case s.Key == "":
		return errors.New("redisstore: Store.Key is empty")
	case (s.Seal == nil) != (s.Open == nil):
		return errors.New("redisstore: Store.Seal and Store.Open belong together, but one of them is nil")
	}
	return nil
}

// lockKey returns a key that a Redis Cluster keeps in the slot of Key.
func (s *Store) lockKey() string {
	if _, tag, ok := strings.Cut(s.Key, "{"); ok && strings.Index(tag, "}") > 0 {
		return s.Key + ":lock"
	}
	return "{" + s.Key + "}:lock"
}

func (s *Store) lockTTL() time.Duration {
	if s.LockTTL > 0 {
		return max(s.LockTTL, 3*time.Millisecond) // which Redis counts
	}
	return defaultLockTTL
}

// decode reads a value of Key.
func (s *Store) decode(value string, exists bool) (*authretry.Record, error) {
	if !exists {
		s.last.Store(nil)
		return nil, nil
	}
	data := []byte(value)
	if s.Open != nil {
		var err error
		if data, err = s.Open(data); err != nil {
			return nil, fmt.Errorf("redisstore: Store.Open refuses the value at %s, which is left as it is: %w", s.Key, err)
		}
	}
	r, err := authretry.DecodeRecord(data)
	switch {
	case errors.Is(err, authretry.ErrNewerRecord):
		return nil, fmt.Errorf("redisstore: cannot read %s: %w", s.Key, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %s", ErrDamaged, s.Key)
	}
	s.last.Store(r)
	return r, nil
}

// Format keeps tokens and the client's password out of everything that package fmt prints.
func (s *Store) Format(f fmt.State, verb rune) { fmt.Fprintf(f, "redisstore.Store{Key: %q}", s.Key) }

// MarshalJSON keeps them out of JSON.
func (s *Store) MarshalJSON() ([]byte, error) { return json.Marshal(map[string]string{"Key": s.Key}) }
