package redisstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/authretry/authretry"
	"github.com/redis/go-redis/v9"
)

const (
	minPoll = 5 * time.Millisecond
	maxPoll = 100 * time.Millisecond
)

// A subscriber is a client that can be woken, which all are but those within a transaction or a pipeline.
type subscriber interface {
	Subscribe(ctx context.Context, channels ...string) *redis.PubSub
}

// A waiter waits for a lock that another one has. It is woken by who releases it or stores a login, on a channel that is named
// like the lock's key. Until it has subscribed, or if that is not possible, it asks again and again, less and less often.
// Once it has, it asks still, since messages may be lost, and the lock of who has crashed expires without one.
type waiter struct {
	store  *Store
	enough func(*authretry.Record) bool // nil: nothing is
	poll   time.Duration

	seen   string // the login that enough was shown last
	exists bool
	shown  bool // and whether it was

	messages chan string // those of others; nil before it waits
	stop     context.CancelFunc
	ready    bool // it has subscribed
}

// What a waiter's subscription says, besides what others publish.
const (
	isSubscribed   = "subscribed"
	isUnsubscribed = "unsubscribed"
	hasSaved       = "saved"
)

// isEnough shows enough a login that it has not seen yet. What cannot be read is left for who gets the lock.
func (w *waiter) isEnough(value string, exists bool) bool {
	if w.enough == nil || w.shown && w.exists == exists && w.seen == value {
		return false
	}
	w.seen, w.exists, w.shown = value, exists, true
	r, err := w.store.decode(value, exists)
	return err == nil && w.enough(r)
}

// wait waits until it is time to ask for the lock again, or ctx ends. It returns true if that need not be.
func (w *waiter) wait(ctx context.Context) (enough bool) {
	if w.messages == nil {
		w.subscribe(ctx)
	}
	delay := w.poll/2 + rand.N(w.poll)
	if w.poll = min(2*w.poll, maxPoll); w.ready {
		delay = w.store.lockTTL()/2 + rand.N(w.store.lockTTL()/4)
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return false
		case m := <-w.messages:
			switch m {
			case isSubscribed, isUnsubscribed:
				w.ready = m == isSubscribed
				return false // for what was said before
			case hasSaved:
				if w.enough == nil {
					continue // the lock will be free soon
				}
				answer, err := w.store.run(ctx, readScript, nil)
				value, ok := answer.(string)
				if (err == nil || errors.Is(err, redis.Nil)) && w.isEnough(value, ok) {
					return true
				}
			default: // not all who wait at once, of whom one gets it
				timer.Reset(min(rand.N(maxPoll), delay))
			}
		}
	}
}

// subscribe subscribes in the background.
func (w *waiter) subscribe(ctx context.Context) {
	w.messages = make(chan string, 8)
	client, ok := w.store.Client.(subscriber)
	if !ok {
		return
	}
	ctx, w.stop = context.WithCancel(ctx)
	go func() {
		defer func() { _ = recover() }() // of a client that cannot subscribe after all
		s := client.Subscribe(ctx, w.store.lockKey())
		defer context.AfterFunc(ctx, func() { s.Close() })()
		defer s.Close()
		for {
			said, err := s.Receive(ctx)
			message := ""
			switch m := said.(type) {
			case *redis.Subscription:
				message = isSubscribed
			case *redis.Message:
				message = m.Payload
			}
			if err != nil {
				message = isUnsubscribed
			}
			select {
			case w.messages <- message:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
}

// end ends the subscription.
func (w *waiter) end() {
	if w.stop != nil {
		w.stop()
	}
}
