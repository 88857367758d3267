package crowd

import (
	"context"
	"sync"
	"time"
)

// patience is how long who wants to read waits for a read of another one, which may hang, before it reads for itself.
const patience = time.Second

// Reads has those who read the same thing at once share one read. Each is served by one that has begun after it came, so that it
// sees all that was there by then. The zero Reads are ready, and safe for concurrent use.
type Reads[K comparable, V any] struct {
	mu  sync.Mutex
	all map[K]*readers[V]
}

// Readers are those who read one thing.
type readers[V any] struct {
	turn      chan struct{} // has room for one, who reads
	count     int
	gathering *read[V] // which those share who come now; nil: none have come yet
}

// A read serves several.
type read[V any] struct {
	done  chan struct{} // closed when the rest is there
	value V
	err   error
	again bool // who has read was called off
}

// Do returns what get does, for the caller or for another one. Its context ends the wait with its error; that of get is the same. What it
// returns is shared, and must not be changed.
func (r *Reads[K, V]) Do(ctx context.Context, key K, get func(context.Context) (V, error)) (value V, err error) {
	all := r.join(key)
	defer r.leave(key, all)
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		mine := r.gather(all)
		select {
		case <-mine.done:
		case all.turn <- struct{}{}:
			r.get(ctx, all, mine, get)
		case <-ctx.Done():
			return value, ctx.Err()
		case <-limit.C:
			return get(ctx)
		}
		if !mine.again {
			return mine.value, mine.err
		}
		if err := ctx.Err(); err != nil {
			return value, err
		}
	}
}

// get has mine be done, unless it is already, and ends the turn.
func (r *Reads[K, V]) get(ctx context.Context, all *readers[V], mine *read[V], get func(context.Context) (V, error)) {
	defer func() { <-all.turn }()
	select {
	case <-mine.done:
		return
	default:
	}
	r.mu.Lock()
	all.gathering = nil // who comes from now on may want to see more than this one does
	r.mu.Unlock()
	mine.again = true // if it panics
	defer close(mine.done)
	mine.value, mine.err = get(ctx)
	mine.again = mine.err != nil && ctx.Err() != nil
}

func (r *Reads[K, V]) join(key K) *readers[V] {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all[key]
	if all == nil {
		all = &readers[V]{turn: make(chan struct{}, 1)}
		if r.all == nil {
			r.all = make(map[K]*readers[V])
		}
		r.all[key] = all
	}
	all.count++
	return all
}

func (r *Reads[K, V]) leave(key K, all *readers[V]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if all.count--; all.count == 0 {
		delete(r.all, key)
	}
}

// gather returns the read that serves who comes now.
func (r *Reads[K, V]) gather(all *readers[V]) *read[V] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if all.gathering == nil {
		all.gathering = &read[V]{done: make(chan struct{})}
	}
	return all.gathering
}
