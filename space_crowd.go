package authretry

import (
	"context"
	"net/url"
	"slices"
	"time"
)

// Some servers keep few nonces, and forget the others: then each request that is given one more pushes out that of another,
// and hardly any gets through. Such a server is found out by what it refuses without calling it stale: a nonce that was
// good, or one that it has given away a moment ago. From then on fewer requests at once are sent to it. Healthy servers pay
// nothing, and where it was the password that was wrong, nothing is lost.
const (
	maxCrowdWait   = 100 * time.Millisecond // then a request goes on, so that nothing can get stuck
	successesToAdd = 50                     // for each request that may be out
	trustGood      = 10                     // seconds for which credentials that were accepted are taken to be right
)

// A crowd says how many requests to an origin are out that are authenticated by exclusive Sessions, and how many there may
// be. What guards the originSpaces guards it.
type crowd struct {
	here     int32      // requests that are out
	bound    int32      // of here; 0: none
	good     int32      // successes since bound has changed
	lastGood uint32     // when one was last accepted, in Unix seconds; 0: not yet
	waiting  *[]*waiter // requests that may not go out yet, the first at the front; nil: none
	round    uint16     // how often the bound was lowered
	counts   bool       // there are, or were, exclusive Sessions
}

// A waiter is a request that waits. When it may go out, it gets a lease, with a Session if one has become free.
type waiter struct {
	u    *url.URL
	when chan lease
}

// A visit is a request's part in a crowd. The zero visit is none.
type visit struct {
	at    *originSpaces // nil: it is not counted
	round uint16        // when it began
}

// enter counts a request, if it may be one that counts. The caller holds mu.
func (k *originSpaces) enter() visit {
	if !k.counts {
		return visit{}
	}
	k.here++
	return visit{k, k.round}
}

// enter counts a request that is challenged for the first time, and is about to be authenticated by an exclusive Session.
func (s *spaces) enter(key spacesKey) visit {
	if len(key.host) > maxHost {
		return visit{}
	}
	known := s.at(key)
	known.mu.Lock()
	known.counts = true
	v := known.enter()
	known.mu.Unlock()
	s.shrink()
	return v
}

// isFull reports whether a request that counts has to wait. The caller holds mu.
func (k *originSpaces) isFull() bool {
	return k.bound > 0 && (k.here >= k.bound || k.waiting != nil)
}

// await waits until a request to u, which has got lease l without a Session, may go out, if too many are out already. It returns
// the lease, with a Session that has become free meanwhile, if one has.
func (v visit) await(ctx context.Context, u *url.URL, l lease) lease {
	k := v.at
	w := k.queue(u)
	if w == nil {
		return l
	}
	timer := time.NewTimer(maxCrowdWait)
	defer timer.Stop()
	select {
	case got := <-w.when:
		return got
	case <-timer.C:
	case <-ctx.Done():
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case got := <-w.when: // at the last moment
		return got
	default:
		k.unqueue(w)
		k.here++
	}
	return l
}

// queue puts a request that was counted at the end of those who wait. It returns nil if it may go out.
func (k *originSpaces) queue(u *url.URL) *waiter {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.here--; !k.isFull() {
		k.here++
		return nil
	}
	w := &waiter{u, make(chan lease, 1)}
	if k.waiting == nil {
		k.waiting = new([]*waiter)
	}
	*k.waiting = append(*k.waiting, w)
	return w
}

// unqueue takes back what queue has done. The caller holds mu.
func (k *originSpaces) unqueue(w *waiter) {
	all := *k.waiting
	if i := slices.Index(all, w); i > 0 {
		all = slices.Delete(all, i, i+1)
	} else { // as nearly always, whether it may go out or has waited long enough
		all[0] = nil
		all = all[1:]
	}
	if *k.waiting = all; len(all) == 0 {
		k.waiting = nil
	}
}

// end says that the request is over, and lets out others. accepted says that its credentials were.
func (v visit) end(accepted bool) {
	k := v.at
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.here--
	if accepted {
		k.lastGood = uint32(time.Now().Unix())
		if k.good++; k.bound > 0 && k.good >= successesToAdd*k.bound {
			k.bound, k.good = k.bound+1, 0
		}
	}
	for k.waiting != nil && (k.bound == 0 || k.here < k.bound) {
		w := (*k.waiting)[0]
		l, _ := k.lease(w.u, false) // which may panic
		k.unqueue(w)
		k.here++
		w.when <- l
	}
}

// crowded lowers the bound, since the server has refused what it should know. Those that went out before it was lowered the
// last time have no say. It reports whether it is likely that the credentials are right, because they were a moment ago.
func (v visit) crowded() (right bool) {
	k := v.at
	if k == nil {
		return false
	}
	var dropped []held
	defer func() { endAll(dropped) }()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.here < 2 {
		return false
	}
	if v.round == k.round {
		k.round++
		if k.bound == 0 {
			k.bound = k.here / 2
		}
		k.bound, k.good = max(2, k.bound/2), 0
		for _, sp := range k.spaces {
			for len(sp.idle) > int(k.bound) { // those used last are the likeliest to be known
				k.grow(-sp.idle[0].size())
				if sp.idle[0].by != nil {
					dropped = append(dropped, sp.idle[0])
				}
				sp.idle = slices.Delete(sp.idle, 0, 1)
			}
		}
	}
	return uint32(time.Now().Unix())-k.lastGood <= trustGood
}
