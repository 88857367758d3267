package redisstore

import (
	"context"
	"reflect"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// News is what a waiter is told when somebody has stored a login, or released the lock.
type news struct {
	login  string
	exists bool
	locked bool // another one has the lock
	lost   bool // nobody will be told any more
}

// A wakeUp tells the waiters of one process what goes on at one key: it has a subscription, and looks once for all of
// them.
type wakeUp struct {
	key   wakeUpKey
	store *Store // by which it looks
	stop  context.CancelFunc

	mu      sync.Mutex
	waiters map[chan news]bool
	last    news // what they were told last
	told    bool // and whether they were
}

// A wakeUpKey is a key of a client.
type wakeUpKey struct {
	client subscriber
	key    string
}

// A subscriber is a client that can be woken, which all are but those within a transaction or a pipeline.
type subscriber interface {
	Subscribe(ctx context.Context, channels ...string) *redis.PubSub
}

// wakeUps are there for as long as somebody waits. The Stores of one process have nothing else in common than their client.
var wakeUps struct {
	mu  sync.Mutex
	all map[wakeUpKey]*wakeUp
}

// wakeUpFor has a waiter be told what goes on, until it leaves. It returns nil if that is not possible.
func (s *Store) wakeUpFor(waiter chan news) *wakeUp {
	client, ok := s.Client.(subscriber)
	if !ok || !reflect.TypeOf(client).Comparable() {
		return nil
	}
	key := wakeUpKey{client, s.lockKey()}
	wakeUps.mu.Lock()
	defer wakeUps.mu.Unlock()
	w := wakeUps.all[key]
	if w == nil {
		ctx, stop := context.WithCancel(context.Background())
		w = &wakeUp{key: key, store: s, stop: stop, waiters: make(map[chan news]bool)}
		if wakeUps.all == nil {
			wakeUps.all = make(map[wakeUpKey]*wakeUp)
		}
		wakeUps.all[key] = w
		go w.listen(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiters[waiter] = true
	if w.told {
		tell(waiter, w.last)
	}
	return w
}

// leave ends what wakeUpFor has begun.
func (w *wakeUp) leave(waiter chan news) {
	wakeUps.mu.Lock()
	defer wakeUps.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(w.waiters, waiter); len(w.waiters) == 0 {
		w.stop()
		if wakeUps.all[w.key] == w {
			delete(wakeUps.all, w.key)
		}
	}
}

// listen listens until ctx ends, or the connection does.
func (w *wakeUp) listen(ctx context.Context) {
	defer func() {
		_ = recover() // of a client that cannot subscribe after all
		w.tellAll(news{lost: true})
		wakeUps.mu.Lock()
		defer wakeUps.mu.Unlock()
		if wakeUps.all[w.key] == w {
			delete(wakeUps.all, w.key)
		}
	}()
	s := w.key.client.Subscribe(ctx, w.key.key)
	defer context.AfterFunc(ctx, func() { s.Close() })()
	defer s.Close()
	for {
		if _, err := s.Receive(ctx); err != nil || ctx.Err() != nil {
			return
		}
		// It has subscribed now, or somebody has stored a login or released the lock.
		n, err := w.look(ctx)
		if err != nil {
			return // who waits asks for itself
		}
		w.tellAll(n)
	}
}

// look asks what there is.
func (w *wakeUp) look(ctx context.Context) (n news, err error) {
	ctx, cancel := context.WithTimeout(ctx, min(w.store.lockTTL(), 5*time.Second))
	defer cancel()
	answer, err := w.store.run(ctx, lookScript, nil)
	if values, _ := answer.([]any); len(values) == 2 {
		n.login, n.exists = values[1].(string)
		n.locked = values[0] == int64(1)
	}
	return n, err
}

func (w *wakeUp) tellAll(n news) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last, w.told = n, true
	for waiter := range w.waiters {
		tell(waiter, n)
	}
}

// tell tells a waiter something, in place of what it has not heard yet.
func tell(waiter chan news, n news) {
	for {
		select {
		case waiter <- n:
			return
		default:
		}
		select {
		case <-waiter:
		default:
		}
	}
}
