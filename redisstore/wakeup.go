package redisstore

import (
	"context"
	"reflect"
	"time"

	"github.com/authretry/authretry/internal/crowd"
	"github.com/redis/go-redis/v9"
)

// News is what those who wait in one process are told.
type news struct {
	login      string
	exists     bool
	locked     bool  // another one has the lock
	subscribed bool  // they will be told when somebody has stored a login, or released the lock
	lost       bool  // they will not be told that any more
	err        error // why nobody knows more
}

// A loginKey is a login of a client, or of a Store whose client is of a type that cannot be compared.
type loginKey struct {
	client, key any
}

// What the Stores of one process share: crowds are those who wait, of whom one asks Redis, for all, and reads are under way. They
// are there for as long as somebody waits. These are variables of the package because those Stores have nothing in common but their
// client: if each of a thousand asked for itself, with a subscription of its own, they would have a thousand connections, and the one
// who can end their wait would stand in line with all others.
var (
	crowds crowd.Crowds[loginKey, news]
	reads  crowd.Reads[loginKey, any]
)

// loginKey goes by Key: two may have one lock, as "a" and "{a}" have, but no login.
func (s *Store) loginKey() loginKey {
	if reflect.ValueOf(s.Client).Comparable() {
		return loginKey{s.Client, s.Key}
	}
	return loginKey{s, s.Key}
}

// A subscriber is a client that can be woken, which all are but those within a transaction or a pipeline.
type subscriber interface {
	Subscribe(ctx context.Context, channels ...string) *redis.PubSub
}

// listen tells a crowd what goes on, until it has gone, or the connection ends.
func (s *Store) listen(c *crowd.Crowd[loginKey, news]) {
	client, ok := s.Client.(subscriber)
	if !ok {
		return
	}
	ctx := c.Context
	defer func() {
		_ = recover() // of a client that cannot subscribe after all
		c.Tell(c.Mark(), news{lost: true})
	}()
	p := client.Subscribe(ctx, s.lockKey())
	defer context.AfterFunc(ctx, func() { p.Close() })()
	defer p.Close()
	for {
		if _, err := p.Receive(ctx); err != nil || ctx.Err() != nil {
			return
		}
		// It has subscribed now, or somebody has stored a login or released the lock.
		for more := true; more; {
			at := c.Mark()
			n, err := s.look(ctx)
			if err != nil {
				return // who asks will find out
			}
			c.Tell(at, n)
			more = c.Mark() != at // somebody has come meanwhile, who is to hear of it too
		}
	}
}

// look asks what there is.
func (s *Store) look(ctx context.Context) (n news, err error) {
	ctx, cancel := context.WithTimeout(ctx, min(s.lockTTL(), 5*time.Second))
	defer cancel()
	answer, err := s.run(ctx, lookScript, nil)
	n.subscribed = true
	if values, _ := answer.([]any); len(values) == 2 {
		n.login, n.exists = values[1].(string)
		n.locked = values[0] == int64(1)
	}
	return n, err
}
