package redisstore

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// Each script is given the keys of the login and of its lock, and each may be sent twice, by a client that did not get the
// answer. A script, unlike the command GET, is not sent to a replica by a client for a cluster, and only run for a
// user who may write both keys.
var (
	readScript = redis.NewScript(`return redis.call("GET", KEYS[1])`)

	// lockScript takes the lock ARGV[1] for ARGV[2] milliseconds, and returns 1 and the login in a list; or 0 and the login if
	// it is taken. It calls DEL, which releaseScript will need, so that a user who may not call that learns it now.
	lockScript = redis.NewScript(`
local login = redis.call("GET", KEYS[1])
local lock = redis.call("GET", KEYS[2])
if lock and lock ~= ARGV[1] then
	return {0, login}
end
redis.call("DEL", KEYS[2])
redis.call("SET", KEYS[2], ARGV[1], "PX", ARGV[2])
return {1, login}`)

	// lookScript returns 1 if somebody has the lock, or else 0, and the login.
	lookScript = redis.NewScript(`
local login = redis.call("GET", KEYS[1])
return {redis.call("GET", KEYS[2]) and 1 or 0, login}`)

	// extendScript extends the lock ARGV[1] by ARGV[2] milliseconds, unless it is lost, or the login is no longer
	// ARGV[3]. It does so by SET, which needs no other permission than lockScript, and fails if Redis cannot write.
	extendScript = redis.NewScript(`
local login = redis.call("GET", KEYS[1])
if redis.call("GET", KEYS[2]) ~= ARGV[1] or login and login ~= ARGV[3] then
	return 0
end
redis.call("SET", KEYS[2], ARGV[1], "PX", ARGV[2])
return 1`)

	// writeScript replaces the login ARGV[2] by ARGV[1], and is content if that is there already. It wakes those who wait, if the
	// user may do that.
	writeScript = redis.NewScript(`
local login = redis.call("GET", KEYS[1])
if login and login ~= ARGV[1] and login ~= ARGV[2] then
	return 0
end
redis.call("SET", KEYS[1], ARGV[1])
redis.pcall("PUBLISH", KEYS[2], "saved")
return 1`)

	// releaseScript removes the lock ARGV[1], and wakes those who wait.
	releaseScript = redis.NewScript(`
if redis.call("GET", KEYS[2]) == ARGV[1] then
	redis.call("DEL", KEYS[2])
	redis.pcall("PUBLISH", KEYS[2], "free")
	return 1
end
return 0`)
)

// run runs a script, and waits for the answer until ctx ends, which go-redis does only if it is told to. If the answer is
// unknown then, or the script failed in a way that leaves open whether it has run, it calls undo, if there is one, when
// the client has given up, too.
func (s *Store) run(ctx context.Context, script *redis.Script, undo func(), args ...any) (any, error) {
	if ctx.Err() != nil {
		return nil, endOf(ctx)
	}
	type result struct {
		answer   any
		err      error
		panicked any
	}
	done := make(chan result, 1)
	go func() {
		r := result{err: errNoAnswer} // if a hook of the client exits the goroutine
		defer func() {
			r.panicked = recover()
			done <- r
		}()
		r.answer, r.err = script.Run(ctx, s.Client, []string{s.Key, s.lockKey()}, args...).Result()
	}()
	undoAfter := func(wait func()) {
		if undo != nil {
			go func() {
				wait()
				undo()
			}()
		}
	}
	select {
	case r := <-done:
		if r.panicked != nil {
			panic(r.panicked) // to the one who has brought that client
		}
		if r.err == nil || isAnswer(r.err) {
			return r.answer, r.err
		}
		undoAfter(func() {})
		if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
			<-ctx.Done() // which a timeout of the connection may precede by a moment
		}
		if ctx.Err() != nil {
			return nil, endOf(ctx)
		}
		return nil, r.err
	case <-ctx.Done():
		undoAfter(func() { <-done })
		return nil, endOf(ctx)
	}
}

// within returns a context that ends after limit, for which endOf returns errNoAnswer then.
func within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, errNoAnswer)
}

func endOf(ctx context.Context) error {
	if context.Cause(ctx) == errNoAnswer {
		return errNoAnswer
	}
	return ctx.Err()
}
