package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
)

// A modelIssuer is a token endpoint that rotates refresh tokens, and ends a login of which one is used again.
type modelIssuer struct {
	w *tokenModel

	mu       sync.Mutex // never held over a wait
	families []*family
	faults   []issuerFault // of the next requests
	skew     time.Duration // of its clock
	lifetime time.Duration
	widens   bool // it gives scopes besides those of the login
}

// A family is the tokens that come of one login.
type family struct {
	newest    int
	revoked   bool
	reused    bool   // that is why
	ended     bool   // by Logout
	login     string // Record.Login of what was saved last
	forsaken  bool   // by a Logout of which the store was not told
	saved     bool   // the store has had it, and has not lost all since
	disturbed bool   // the store has lost one of its tokens, so that older ones may be seen again
	sends     map[int][]*send
}

// A send is that of a refresh token.
type send struct {
	proc     *process
	answered atomic.Bool // the process knows what became of it
	spent    bool
	excused  atomic.Bool // why others may send it again: the lock was lost, or the answer, or what came of it was not saved
}

func excuse(sends []*send) {
	for _, s := range sends {
		s.excused.Store(true)
	}
}

// An issuerFault is what goes wrong with a request.
type issuerFault byte

const (
	requestLost issuerFault = iota
	answerLost
	answerSlow
	answerHangs
	answerUnavailable
	answerInvalidScope
	answerLate // the client ignores the end of its context
	requestLate
	issuerFaults

	// Those that came later have numbers of their own, so that older scripts mean what they did.
	answerOfNoUse // a new refresh token, and an access token that cannot be used
	answerSame    // a new refresh token, and the access token that there was
)

// name returns the secret of a refresh token, or what it names.
func modelToken(f, n int) string { return fmt.Sprintf("secret-%d-%d", f, n) }

func modelTokenOf(t *oauth2.Token) (f, n int) {
	if t == nil {
		return -1, -1
	}
	if _, err := fmt.Sscanf(t.RefreshToken, "secret-%d-%d", &f, &n); err != nil {
		return -1, -1
	}
	return f, n
}

// login begins a family.
func (i *modelIssuer) login() *oauth2.Token {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.families = append(i.families, &family{sends: make(map[int][]*send)})
	return i.token(len(i.families)-1, 0, nil)
}

func (i *modelIssuer) token(f, n int, scopes []string) *oauth2.Token {
	t := &oauth2.Token{AccessToken: "access-" + modelToken(f, n), RefreshToken: modelToken(f, n), Expiry: time.Now().Add(i.skew + i.lifetime)}
	return t.WithExtra(map[string]any{"scope": strings.Join(union([]string{"base"}, scopes), " ")})
}

func (i *modelIssuer) family(n int) *family {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.families[n]
}

// fetch is the FetchFunc of a process.
func (i *modelIssuer) fetch(ctx context.Context, p *process, r TokenRequest) (*oauth2.Token, error) {
	if p.crashed.Load() {
		return nil, errors.New("crashed")
	}
	p.requests = append(p.requests, time.Now())
	if n := len(p.requests); n > 50 && time.Since(p.requests[n-51]) < 10*time.Second {
		i.w.fail("more than 50 token requests of one process in 10 s")
	}
	f, n := modelTokenOf(r.Previous)
	if f < 0 {
		return nil, fmt.Errorf("%w: no refresh token", ErrLoginRequired)
	}
	h, _ := ctx.Value(holdKey{}).(*modelHold)
	if h == nil || !h.confirmed {
		i.w.fail("process %d sends %d-%d without a confirmed lock", p.id, f, n)
		return nil, errors.New("not confirmed")
	}
	i.w.logf("process %d sends %d-%d", p.id, f, n)
	i.w.store.mu.Lock()
	h.confirmed = false
	s := &send{proc: p}
	h.sent = append(h.sent, s)
	if i.w.store.holder != h {
		s.excused.Store(true)
	}
	i.w.store.mu.Unlock()

	i.w.mu.Lock()
	losses := i.w.losses
	i.w.mu.Unlock()
	i.mu.Lock()
	fault := issuerFaults
	if len(i.faults) > 0 {
		fault, i.faults = i.faults[0], i.faults[1:]
	}
	i.checkSend(p, f, n)
	i.families[f].sends[n] = append(i.families[f].sends[n], s)
	i.mu.Unlock()

	lost := func(err error) (*oauth2.Token, error) {
		s.excused.Store(true)
		i.w.disturbFamily(f)
		return nil, err
	}
	switch fault {
	case requestLost:
		return nil, errors.New("connection refused")
	case answerUnavailable:
		return nil, refusal(http.StatusServiceUnavailable, "")
	case answerInvalidScope:
		return nil, refusal(http.StatusBadRequest, "invalid_scope")
	case requestLate:
		if !sleepUntil(ctx, 20*time.Second) {
			return nil, ctx.Err()
		}
	}
	if p.crashed.Load() {
		return nil, errors.New("crashed")
	}
	t, err := i.answer(f, n, s, r.Scopes)
	switch fault {
	case answerLost:
		return lost(errors.New("EOF after " + r.Previous.RefreshToken))
	case answerHangs:
		<-ctx.Done()
		return lost(ctx.Err())
	case answerSlow:
		if !sleepUntil(ctx, 3*time.Second) {
			return lost(ctx.Err())
		}
	case answerLate:
		time.Sleep(25 * time.Second)
	}
	if p.crashed.Load() {
		return lost(errors.New("crashed"))
	}
	if _, got := modelTokenOf(t); err == nil {
		i.w.mu.Lock()
		if i.w.losses == losses {
			p.got[f] = max(p.got[f], got)
		}
		i.w.mu.Unlock()
	}
	s.answered.Store(err == nil || !r.wider) // an error in answer to a request for more concerns nobody else
	switch {
	case err == nil && fault == answerOfNoUse:
		return &oauth2.Token{AccessToken: "of no use", RefreshToken: t.RefreshToken}, errors.New("the access token is of no use")
	case err == nil && fault == answerSame:
		t.AccessToken = r.Previous.AccessToken
	}
	return t, err
}

// hasSpent reports whether the process knows that a refresh token is of no use any more, whatever the store has forgotten.
func (i *modelIssuer) hasSpent(p *process, f, n int) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.ContainsFunc(i.families[f].sends[n], func(s *send) bool { return s.proc == p && s.spent && s.answered.Load() })
}

// checkSend says whether the process may send a refresh token. The caller holds mu.
func (i *modelIssuer) checkSend(p *process, f, n int) {
	for _, before := range i.families[f].sends[n] {
		switch {
		case before.proc == p && before.answered.Load():
			i.w.fail("process %d sends %d-%d again, which has been answered", p.id, f, n)
		case before.spent && !before.excused.Load():
			i.w.fail("process %d sends %d-%d, which process %d has spent", p.id, f, n, before.proc.id)
		}
	}
}

// answer carries out a request.
func (i *modelIssuer) answer(f, n int, s *send, scopes []string) (*oauth2.Token, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	fam := i.families[f]
	if n < fam.newest && !fam.revoked {
		fam.revoked, fam.reused = true, true
	}
	if fam.revoked {
		return nil, refusal(http.StatusBadRequest, "invalid_grant")
	}
	s.spent = true
	fam.newest++
	if !i.widens {
		scopes = nil
	}
	return i.token(f, fam.newest, scopes), nil
}

func sleepUntil(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
