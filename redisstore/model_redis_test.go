package redisstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A modelRedis is a Redis with a replica that lags behind, in virtual time. It knows the scripts by their hashes.
type modelRedis struct {
	mu   sync.Mutex
	now  modelState
	past []modelState // what it was before, the oldest first
}

// A modelState is what a Redis knows.
type modelState struct {
	since   time.Time
	login   any // a string; nil: there is none
	lock    string
	expires time.Time
}

// set has the Redis know something new. The caller holds mu.
func (r *modelRedis) set(s modelState) {
	r.past = append(r.past, r.now)
	s.since = time.Now()
	r.now = s
}

// failOver has the replica take over, which lags behind.
func (r *modelRedis) failOver(lag time.Duration) (lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.now
	for i := len(r.past) - 1; i >= 0 && time.Since(was.since) < lag; i-- {
		was = r.past[i]
	}
	lost = was != r.now
	r.set(was)
	return lost
}

// execute runs a script.
func (r *modelRedis) execute(hash string, args []any) (answer any, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.now
	if s.lock != "" && !time.Now().Before(s.expires) {
		s.lock = ""
	}
	text := func(i int) string {
		if b, ok := args[i].([]byte); ok {
			return string(b)
		}
		return args[i].(string)
	}
	ttl := func(i int) time.Time { return time.Now().Add(time.Duration(args[i].(int64)) * time.Millisecond) }
	switch hash {
	case readScript.Hash():
		if s.login == nil {
			return nil, redis.Nil
		}
		return s.login, nil
	case lookScript.Hash():
		return []any{map[bool]int64{true: 1}[s.lock != ""], s.login}, nil
	case lockScript.Hash():
		if s.lock != "" && s.lock != text(0) {
			return []any{int64(0), s.login}, nil
		}
		s.lock, s.expires = text(0), ttl(1)
		r.set(s)
		return []any{int64(1), s.login}, nil
	case extendScript.Hash():
		if s.lock != text(0) || s.login != nil && s.login != text(2) {
			return int64(0), nil
		}
		s.lock, s.expires = text(0), ttl(1)
		r.set(s)
		return int64(1), nil
	case writeScript.Hash():
		if s.login != nil && s.login != text(0) && s.login != text(1) {
			return int64(0), nil
		}
		s.login = text(0)
		r.set(s)
		return int64(1), nil
	case releaseScript.Hash():
		if s.lock != text(0) {
			return int64(0), nil
		}
		s.lock = ""
		r.set(s)
		return int64(1), nil
	}
	return nil, errors.New("the model has no such script")
}

// A modelClient is a client of a modelRedis, over a network that delays, drops and reorders. It asks again once, as clients do. It gives up
// after modelPatience.
type modelClient struct {
	redis.Scripter // nil: what is not asked for
	redis          *modelRedis
	process        *modelProcess
}

const modelPatience = 500 * time.Millisecond

var errModelTimeout = errors.New("i/o timeout")

func (c *modelClient) EvalSha(ctx context.Context, hash string, _ []string, args ...any) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	for try := range 2 {
		c.process.runs()
		answered := make(chan func(), 1)
		request, answer := c.process.net(fmt.Sprint(hash, "request", try)), c.process.net(fmt.Sprint(hash, "answer", try))
		if request >= 0 {
			time.AfterFunc(request, func() {
				value, err := c.redis.execute(hash, args)
				if answer < 0 {
					return
				}
				time.AfterFunc(answer, func() {
					answered <- func() {
						if err != nil {
							cmd.SetErr(err)
						}
						cmd.SetVal(value)
					}
				})
			})
		}
		select {
		case set := <-answered:
			c.process.runs()
			set()
			return cmd
		case <-time.After(modelPatience):
		case <-ctx.Done():
			c.process.runs()
			cmd.SetErr(ctx.Err())
			return cmd
		}
	}
	c.process.runs()
	cmd.SetErr(errModelTimeout)
	return cmd
}

func (c *modelClient) Eval(ctx context.Context, _ string, _ []string, _ ...any) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	cmd.SetErr(errors.New("the model knows all scripts"))
	return cmd
}
