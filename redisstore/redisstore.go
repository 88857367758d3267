// Package redisstore keeps an OAuth 2.0 token in Redis or Valkey, for all the machines that share a login: the replicas
// of a service, or jobs that run here and there. It is an authretry.TokenStore.
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
// it in no particular order.
//
// A lock that expires cannot be trusted alone: a holder that was suspended may wake up after another one has refreshed.
// So a token is written only in place of the one that it was made from, which a script on the server compares: a newer
// token is never overwritten, and the late holder gets [ErrLockLost]. If the lock was lost, but nobody has stored
// another token meanwhile, the token is written all the same, and likewise if the key has been deleted: a token that
// was obtained is not thrown away as long as it overwrites none.
//
// Reading takes no lock, so nobody waits for a refresh who has a good token to read.
//
// # When Redis is down
//
// Update and Load return an error as soon as the client gives up: its DialTimeout, ReadTimeout and MaxRetries say when
// (by default, within two seconds if connections are refused, but much later if there is no answer at all), and if its
// ContextTimeoutEnabled is set, the context does, too. A TokenSource goes on handing out the token that it has until
// that expires. It gets no new one then, unless RefreshWhenDown is set. A token that was obtained just before Redis went
// away stays in use, and the TokenSource saves its successor once Redis is back.
//
// What Redis has confirmed, it can still lose: with its own crash, unless appendonly and appendfsync say otherwise,
// with a failover to a replica that lags behind, and by eviction, unless maxmemory-policy is noeviction or a volatile
// one (the token has no TTL, because a refresh token outlives its access token). An older token that comes back that
// way may hold a refresh token that has been used, and a server that detects reuse ends the login then: RFC 9700
// §4.14.2.
//
// # Keys and values
//
// The token is a string at Key: a JSON object with the members version (1), access_token, token_type, refresh_token,
// expiry (RFC 3339), scope and id_token, or what Seal made of it. The lock is a string at "{Key}:lock", or Key +
// ":lock" if Key has a hash tag of its own, so that a Redis Cluster keeps both on one node. To log out, delete Key when
// no refresh is under way, and revoke the refresh token. Several logins need several keys.
//
// Everything is done by scripts, which need EVAL, EVALSHA, GET, SET, DEL, PEXPIRE and GETRANGE. They run on primaries
// only, never on a replica, which may not have the newest token yet.
//
// # Security
//
// Without Seal, whoever can read Redis, its files, replicas and backups, or the output of MONITOR and SLOWLOG, can read
// the token. Use TLS and a password. Whoever can write there can replace the token; if Open authenticates it, only by an
// older one.
//
// # The lock
//
// It is that of github.com/bsm/redislock: a few scripts on one Redis, with go-redis as its only dependency. An attempt
// that the client repeats because the answer was lost finds the lock its own. Errors of Redis are returned at once, and
// the end of a context as such. github.com/go-redsync/redsync is for the Redlock algorithm over several independent
// Redis servers, which a token that lives on one of them gains nothing from. It makes no difference between a lock that
// is taken and a Redis that is down, and repeats either up to 32 times; it reports the end of the context as a failure
// to lock; and its module requires the other Go clients for Redis, too.
package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry/internal/savedtoken"
	"github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"
	"golang.org/x/oauth2"
)

// Errors that those of a Store wrap.
var (
	// ErrLockLost means that a token was not stored, because two had the lock one after the other without the first
	// noticing, and the other one has stored a token. That one stays. Where both come from the same refresh token, a
	// server that detects reuse may have revoked either or both. A TokenSource goes on with its own until that is
	// refused or expires, and takes the stored one then.
	ErrLockLost = errors.New("redisstore: a lock was lost, and another token has been stored meanwhile")

	// ErrDamaged means that the key does not hold a token. Nothing has been changed. To be able to log in again, rename
	// or delete the key.
	ErrDamaged = errors.New("redisstore: the key does not hold a token")
)

const (
	defaultLockTTL = 10 * time.Second
	minPoll        = 5 * time.Millisecond
	maxPoll        = 100 * time.Millisecond
	releaseTimeout = time.Second
)

// A Store keeps a token in Redis. It is safe for concurrent use. It must not be copied, nor its fields changed, after
// its first use.
type Store struct {
	// Client is a *redis.Client, *redis.ClusterClient, *redis.Ring or any other redis.UniversalClient. It is not
	// closed.
	Client redis.Scripter

	// Key is where the token is. It must not be empty.
	Key string

	// Seal encrypts what is stored, and Open decrypts it, or fails if it is not what Seal has made. Both must be safe
	// for concurrent use, must keep their argument as it is, and must not put it into their errors. What Open refuses
	// is never overwritten: Update and Load fail until Open accepts it, or the key is renamed or deleted. To change the
	// encryption key, let Open try both keys until everybody seals with the new one.
	//
	// If both are nil, the token is stored as it is. One without the other is an error.
	Seal func(plaintext []byte) ([]byte, error)
	Open func(sealed []byte) ([]byte, error)

	// LockTTL is after how long the lock of a holder that has crashed expires. A holder that is alive extends it every
	// third of that. 0 means 10 seconds.
	LockTTL time.Duration

	// RefreshWhenDown has Update call its function although Redis cannot be reached: without a lock, with the last
	// token that this Store has read or written, nil if there is none. Update returns the new token then, and an error,
	// because it is not stored. A TokenSource uses it nevertheless.
	//
	// That is for logins that any number of processes may refresh at a time, such as client credentials. It is
	// dangerous where refresh tokens are used once only: the first process to refresh takes the refresh token from all
	// others and from Redis, and the second one that uses it may end the login for all (RFC 9700 §4.14.2).
	RefreshWhenDown bool

	last atomic.Pointer[oauth2.Token] // read or written, for RefreshWhenDown
}

// Load returns the token in Redis, nil if there is none. It takes no lock.
func (s *Store) Load(ctx context.Context) (*oauth2.Token, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	t, _, err := s.read(ctx)
	return t, err
}

// Update calls fn with the token in Redis, nil if there is none, while it holds the lock, and stores what fn returns
// unless that is the same token. It waits for the lock until ctx ends. What fn returns is stored even if ctx has ended
// by then. If that fails, Update returns the token besides the error.
func (s *Store) Update(ctx context.Context, fn func(ctx context.Context, current *oauth2.Token) (*oauth2.Token, error)) (*oauth2.Token, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	lock, err := s.lock(ctx)
	if err != nil {
		return s.updateDown(ctx, err, fn)
	}
	defer s.keep(ctx, lock)()

	current, raw, err := s.read(ctx)
	if err != nil {
		return s.updateDown(ctx, err, fn)
	}
	next, err := fn(ctx, current)
	switch {
	case err != nil:
		return nil, err
	case isEmpty(next):
		return nil, errNoToken
	case current != nil && savedtoken.Of(next) == savedtoken.Of(current):
		return next, nil
	}
	return next, s.write(context.WithoutCancel(ctx), next, raw)
}

// updateDown is Update where down says that there is neither a lock nor a token.
func (s *Store) updateDown(ctx context.Context, down error, fn func(ctx context.Context, current *oauth2.Token) (*oauth2.Token, error)) (*oauth2.Token, error) {
	if !s.RefreshWhenDown || ctx.Err() != nil || !isDown(down) {
		return nil, down
	}
	next, err := fn(ctx, s.last.Load())
	switch {
	case err != nil:
		return nil, err
	case isEmpty(next):
		return nil, errNoToken
	}
	return next, fmt.Errorf("%w; so the token is not stored", down)
}

var errNoToken = errors.New("redisstore: there is no token to store")

func isEmpty(t *oauth2.Token) bool { return t == nil || t.AccessToken == "" && t.RefreshToken == "" }

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

// lock waits for the lock until ctx ends. Those who wait ask again and again, less and less often.
func (s *Store) lock(ctx context.Context) (*redislock.Lock, error) {
	for poll := minPoll; ; poll = min(2*poll, maxPoll) {
		err := ctx.Err()
		if err == nil {
			var lock *redislock.Lock
			lock, err = redislock.Obtain(ctx, s.Client, s.lockKey(), s.lockTTL(), nil)
			if err == nil {
				return lock, nil
			}
		}
		if !errors.Is(err, redislock.ErrNotObtained) {
			return nil, failed("lock", s.lockKey(), err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(poll/2 + rand.N(poll)):
		}
	}
}

// keep extends the lock until the function that it returns is called, which releases it.
func (s *Store) keep(ctx context.Context, lock *redislock.Lock) (release func()) {
	ctx = context.WithoutCancel(ctx)
	working, stop := context.WithCancel(ctx)
	go func() {
		tick := time.NewTicker(s.lockTTL() / 3)
		defer tick.Stop()
		for {
			select {
			case <-working.Done():
				return
			case <-tick.C:
			}
			if err := lock.Refresh(working, s.lockTTL(), nil); errors.Is(err, redislock.ErrNotObtained) {
				return // It is lost. fn goes on, because what it obtains may still be stored.
			}
		}
	}()
	return func() {
		stop()
		ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
		defer cancel()
		_ = lock.Release(ctx) // if that fails, it expires
	}
}

// A script, unlike the command GET, is never sent to a replica.
var readScript = redis.NewScript(`return redis.call("GET", KEYS[1])`)

// writeScript replaces the value ARGV[2] by ARGV[1], and is content if somebody has done so before: that was this
// script, sent once already by a client that did not get the answer.
var writeScript = redis.NewScript(`
local value = redis.call("GET", KEYS[1])
if value and value ~= ARGV[1] and value ~= ARGV[2] then
	return 0
end
redis.call("SET", KEYS[1], ARGV[1])
return 1`)

// read returns the token in Redis, nil if there is none, and its value.
func (s *Store) read(ctx context.Context) (*oauth2.Token, string, error) {
	raw, err := readScript.Run(ctx, s.Client, []string{s.Key}).Text()
	if errors.Is(err, redis.Nil) {
		s.last.Store(nil)
		return nil, "", nil
	}
	if err != nil {
		return nil, "", failed("read", s.Key, err)
	}
	data := []byte(raw)
	if s.Open != nil {
		if data, err = s.Open(data); err != nil {
			return nil, "", fmt.Errorf("redisstore: Store.Open refuses the value at %s, which is left as it is: %w", s.Key, err)
		}
	}
	t, err := decode(data)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %s", err, s.Key)
	}
	s.last.Store(t)
	return t, raw, nil
}

// write puts t in the place of the value old.
func (s *Store) write(ctx context.Context, t *oauth2.Token, old string) error {
	data, err := json.Marshal(savedtoken.Of(t))
	if err != nil {
		return errors.New("redisstore: the token cannot be written as JSON")
	}
	if s.Seal != nil {
		if data, err = s.Seal(data); err != nil {
			return fmt.Errorf("redisstore: Store.Seal failed, so the token is not stored: %w", err)
		}
	}
	written, err := writeScript.Run(ctx, s.Client, []string{s.Key}, data, old).Bool()
	switch {
	case err != nil:
		return failed("write", s.Key, err)
	case !written:
		return fmt.Errorf("%w: %s", ErrLockLost, s.Key)
	}
	s.last.Store(t)
	return nil
}

// decode reads an opened value.
func decode(data []byte) (*oauth2.Token, error) {
	t, newer := savedtoken.Parse(data)
	switch {
	case newer > 0:
		return nil, fmt.Errorf("redisstore: the token is stored in version %d, which is newer than this program", newer)
	case t == nil:
		return nil, ErrDamaged
	}
	return t, nil
}

// failed returns the error of a command, or of a script. What a server quotes of one that it does not know is left out.
func failed(what, key string, err error) error {
	if text, _, quotes := strings.Cut(err.Error(), ", with args"); quotes {
		return fmt.Errorf("redisstore: cannot %s %s: %s", what, key, text)
	}
	wrapped := fmt.Errorf("redisstore: cannot %s %s: %w", what, key, err)
	if _, isAnswer := errors.AsType[redis.Error](err); isAnswer && !isPassing(err) {
		return wrapped
	}
	return downError{wrapped}
}

// isPassing reports whether the error that a server has answered with will pass, as when it is busy starting.
func isPassing(err error) bool {
	return redis.IsLoadingError(err) || redis.IsReadOnlyError(err) || redis.IsClusterDownError(err) || redis.IsMasterDownError(err) ||
		redis.IsTryAgainError(err) || redis.IsNoReplicasError(err) || redis.IsMaxClientsError(err) || redis.IsOOMError(err)
}

// A downError is that of a Redis that cannot be reached, or cannot work for now, rather than of one that refuses.
type downError struct{ error }

func (e downError) Unwrap() error { return e.error }

func isDown(err error) bool {
	_, down := errors.AsType[downError](err)
	return down
}

// Format keeps tokens and the client's password out of everything that package fmt prints.
func (s *Store) Format(f fmt.State, verb rune) { fmt.Fprintf(f, "redisstore.Store{Key: %q}", s.Key) }

// MarshalJSON keeps them out of JSON.
func (s *Store) MarshalJSON() ([]byte, error) { return json.Marshal(map[string]string{"Key": s.Key}) }
