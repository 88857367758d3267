// Package crowd lets those who wait in one process for the same thing have one of them ask for it.
package crowd

import (
	"context"
	"sync"
)

// Crowds are those who wait for something, by what they wait for. The zero Crowds are empty, and nothing stays of a crowd
// that has gone. They are safe for concurrent use.
type Crowds[K comparable, N any] struct {
	mu  sync.Mutex
	all map[K]*Crowd[K, N]
}

// A Crowd waits for one thing, of which it is told news.
type Crowd[K comparable, N any] struct {
	// Once is for what the first one to need it starts, and Context, for what that does, ends when nobody waits any more.
	Once    sync.Once
	Context context.Context

	of   *Crowds[K, N]
	key  K
	stop context.CancelFunc
	turn chan struct{} // has room for one, who asks for all

	mu     sync.Mutex // guards what follows; locked after of.mu
	all    map[chan N]Mark
	joined Mark
	last   N
}

// A Mark says who is in a crowd: all who had joined by then.
type Mark uint64

// Join has the caller be told the news of what it waits for, until it leaves.
func (c *Crowds[K, N]) Join(key K) (g *Crowd[K, N], news chan N) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g = c.all[key]; g == nil {
		g = &Crowd[K, N]{turn: make(chan struct{}, 1), of: c, key: key, all: make(map[chan N]Mark)}
		g.Context, g.stop = context.WithCancel(context.Background())
		if c.all == nil {
			c.all = make(map[K]*Crowd[K, N])
		}
		c.all[key] = g
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	news = make(chan N, 1)
	g.joined++
	g.all[news] = g.joined
	return g, news
}

// Leave ends what Join has begun. It may be called again.
func (g *Crowd[K, N]) Leave(news chan N) {
	g.of.mu.Lock()
	defer g.of.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	if delete(g.all, news); len(g.all) == 0 && g.of.all[g.key] == g {
		g.stop()
		delete(g.of.all, g.key)
	}
}

// Await waits for news, or for the turn to ask for all, until ctx ends. Whose turn it is calls [Crowd.EndTurn]. Waited says whether it
// had been another one's before.
func (g *Crowd[K, N]) Await(ctx context.Context, told chan N) (n N, turn, waited bool, err error) {
	select {
	case g.turn <- struct{}{}:
	default:
		waited = true
		select {
		case n = <-told:
			return n, false, waited, nil
		case <-ctx.Done():
			return n, false, waited, ctx.Err()
		case g.turn <- struct{}{}:
		}
	}
	select {
	case n = <-told: // rather than to ask for it again
		<-g.turn
		return n, false, waited, nil
	default:
		return n, true, waited, nil
	}
}

// EndTurn ends the turn, and what Join has begun: in this order it would be the turn of one who has not heard the news yet.
func (g *Crowd[K, N]) EndTurn(told chan N) {
	g.Leave(told) // which waits until all others have been told
	<-g.turn
}

// Last returns what was told last.
func (g *Crowd[K, N]) Last() N {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}

// Mark returns a Mark of those who are there now. Who asks takes it before that, so that news of before somebody joined are not told
// to that one, who may have seen later ones.
func (g *Crowd[K, N]) Mark() Mark {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.joined
}

// Tell tells the news to everybody who was there at the Mark, in place of those that one has not heard yet.
func (g *Crowd[K, N]) Tell(at Mark, n N) { g.TellUnless(func(N) bool { return false }, at, n) }

// TellUnless is Tell, but it tells nothing if known returns true for what was told last.
func (g *Crowd[K, N]) TellUnless(known func(last N) bool, at Mark, n N) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if known(g.last) {
		return
	}
	g.last = n
	for news, joined := range g.all {
		if joined > at {
			continue
		}
		select {
		case <-news:
		default:
		}
		news <- n // there is room, since nobody else puts something in
	}
}

// Look returns how many wait in the crowd of key, and what they were told last.
func (c *Crowds[K, N]) Look(key K) (size int, last N) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.all[key]
	if g == nil {
		return 0, last
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.all), g.last
}
