package authretry

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/oauth2"
)

// maxAsking is how many calls of a source's Token are under way at most, of which all but one have hung for long.
const maxAsking = 8

// askings are the calls of a source's Token that are under way.
type askings struct {
	mu    sync.Mutex
	calls []*asking // the latest last; guarded by mu
}

// An asking is a call of a source's Token under way, in a goroutine of its own. Whoever wants a token meanwhile waits for it,
// too: a source that hangs is not asked by each request anew.
type asking struct {
	began time.Time
	done  chan struct{} // closed when what follows is set
	token *oauth2.Token
	err   error
}

// ask calls Source.Token, or joins the call under way, and waits for no longer than ctx allows.
func (s *sourceInUse) ask(ctx context.Context) (t *oauth2.Token, joined bool, err error) {
	a, joined := s.asking()
	select {
	case <-a.done:
	case <-ctx.Done():
		return nil, joined, waitError(ctx, "Bearer.Source")
	}
	if a.err != nil {
		return nil, joined, sourceFailed(a.err)
	}
	return a.token, joined, nil
}

// askForAnother asks for another token than the one that was refused, which a call may bring that had begun before.
func (s *sourceInUse) askForAnother(ctx context.Context, refused string) (*oauth2.Token, error) {
	t, joined, err := s.ask(ctx)
	if joined && err == nil && t != nil && t.AccessToken == refused {
		t, _, err = s.ask(ctx)
	}
	return t, err
}

// asking returns a call that is under way, beginning one if there is none, or if the last one has taken too long.
func (s *sourceInUse) asking() (a *asking, joined bool) {
	all := s.asked.Load()
	if all == nil {
		s.asked.CompareAndSwap(nil, new(askings))
		all = s.asked.Load()
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if n := len(all.calls); n > 0 && (n >= maxAsking || time.Since(all.calls[n-1].began) < sourcesTimeout) {
		return all.calls[n-1], true
	}
	a = &asking{began: time.Now(), done: make(chan struct{}), err: errors.New("it has ended its goroutine")}
	all.calls = append(all.calls, a)
	go a.call(s.TokenSource, all)
	return a, false
}

func (a *asking) call(source oauth2.TokenSource, all *askings) {
	defer close(a.done)
	defer func() {
		if p := recover(); p != nil {
			a.err = panicked(p)
		}
		all.mu.Lock()
		defer all.mu.Unlock()
		all.calls = slices.DeleteFunc(all.calls, func(b *asking) bool { return b == a })
	}()
	a.token, a.err = source.Token()
}
