package redisstore

import (
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
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

// errNoAnswer says that Redis has taken longer than we wait for it, which is not the caller's deadline.
var errNoAnswer = errors.New("there was no answer from Redis in time")

// failed returns the error of a script. What a server quotes of a command that it does not know is left out.
func failed(what, key string, err error) error {
	if text, _, quotes := strings.Cut(err.Error(), ", with args"); quotes {
		return fmt.Errorf("redisstore: cannot %s %s: %s", what, key, text)
	}
	wrapped := fmt.Errorf("redisstore: cannot %s %s: %w", what, key, err)
	switch {
	case isForbidden(err):
		return fmt.Errorf("%w (the user needs EVALSHA, EVAL, GET, SET and DEL for the login's key and its lock's)", wrapped)
	case isAnswer(err) && !isPassing(err):
		return wrapped
	}
	return downError{wrapped}
}

// isAnswer reports whether a server has answered with the error.
func isAnswer(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok
}

// isForbidden reports whether a server's access rules are why a command, or one within a script, has failed. What it says
// differs from version to version, and does not always name the command.
func isForbidden(err error) bool {
	text := err.Error()
	return isAnswer(err) && (strings.Contains(text, "NOPERM") || strings.Contains(text, "ACL failure") ||
		strings.Contains(text, "The user executing the script can't"))
}

// isPassing reports whether the error that a server has answered with will pass, as when it is busy starting.
func isPassing(err error) bool {
	return redis.IsLoadingError(err) || redis.IsReadOnlyError(err) || redis.IsClusterDownError(err) || redis.IsMasterDownError(err) ||
		redis.IsTryAgainError(err) || redis.IsNoReplicasError(err) || redis.IsMaxClientsError(err) || redis.IsOOMError(err) ||
		redis.HasErrorPrefix(err, "MISCONF")
}

// A downError is that of a Redis that cannot be reached, or cannot work for now, rather than of one that refuses.
type downError struct{ error }

func (e downError) Unwrap() error { return e.error }

func isDown(err error) bool {
	_, down := errors.AsType[downError](err)
	return down
}
