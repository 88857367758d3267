package authretry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// FuzzTokenSources has several processes share one login, while all goes wrong that a script says: crashes, lost requests and
// answers, a store that fails, locks that are lost, logouts. In the end all is put right, and must be found so.
//
// A script is pairs of bytes: what happens, and to whom or how. The first byte chooses the store and the issuer.
func FuzzTokenSources(f *testing.F) {
	f.Add([]byte{0, 0, 0, 4, 6, 1, 1, 0, 3, 4, 6, 0, 2})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) == 0 || len(script) > 160 {
			return
		}
		synctest.Test(t, func(t *testing.T) { newTokenModel(t, script[0]).run(script[1:]) })
	})
}

const (
	modelProcesses    = 3
	modelFetchTimeout = 10 * time.Second
	modelStoreBound   = 3 * time.Second // of a write that does not heed the end of its context
)

// A tokenModel is the processes, and what they share.
type tokenModel struct {
	t      *testing.T
	issuer *modelIssuer
	store  *modelStore
	procs  []*process
	ids    int
	chance float64 // that is for 0 in the first process
	calls  sync.WaitGroup

	mu       sync.Mutex
	failures []string
	losses   int // how often the store has lost all
}

func newTokenModel(t *testing.T, options byte) *tokenModel {
	w := &tokenModel{t: t}
	w.issuer = &modelIssuer{w: w, lifetime: time.Minute, widens: options&2 != 0}
	w.store = &modelStore{w: w, certain: options&1 != 0}
	w.chance = float64(options>>3) / 32
	initial := w.issuer.login()
	if options&4 == 0 {
		w.store.saved = &Record{Token: initial, Scopes: []string{"base"}}
		w.issuer.families[0].saved = true
		initial = nil
	}
	for range modelProcesses {
		w.procs = append(w.procs, w.newProcess(initial))
	}
	return w
}

func (w *tokenModel) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures = append(w.failures, fmt.Sprintf(format, args...))
}

func (w *tokenModel) logf(format string, args ...any) {
	w.t.Logf("%s "+format, append([]any{time.Now().Format("04:05.000")}, args...)...)
}

// disturb notes that the store may show an older token than it has shown, or that a newer one is lost.
func (w *tokenModel) disturb(r *Record) {
	if r != nil && r.Token != nil {
		f, _ := modelTokenOf(r.Token)
		w.disturbFamily(f)
	}
}

func (w *tokenModel) disturbFamily(n int) {
	f := w.issuer.family(n)
	w.mu.Lock()
	defer w.mu.Unlock()
	f.disturbed = true
}

func (w *tokenModel) isDisturbed(n int) bool {
	f := w.issuer.family(n)
	w.mu.Lock()
	defer w.mu.Unlock()
	return f.disturbed
}

// forget notes that the store has lost a record that p has written, and that it said to be saved: whoever has that token finds an older
// one there until it has to refresh. What p had before, and had not saved yet, is lost with it.
func (w *tokenModel) forget(p *process, r *Record) {
	if r == nil || r.Token == nil {
		return
	}
	f, _ := modelTokenOf(r.Token)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.procs {
		delete(p.got, f)
	}
	clear(p.got)
}

// forgetAll notes that the store has lost all that it knew: whoever has not heard that an older token was saved writes that one, also
// before a refresh that is under way has a newer one, and a logout ends none of what it knew before.
func (w *tokenModel) forgetAll() {
	w.issuer.mu.Lock()
	defer w.issuer.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.losses++
	for _, f := range w.issuer.families {
		f.saved = false
	}
	for _, p := range w.procs {
		clear(p.got)
	}
}

// pardon excuses all sends so far: the store has forgotten what came of them.
func (w *tokenModel) pardon() {
	w.issuer.mu.Lock()
	defer w.issuer.mu.Unlock()
	for _, f := range w.issuer.families {
		for _, sends := range f.sends {
			excuse(sends)
		}
	}
}

// checkWrite says whether the process may write the record in place of the current one.
func (w *tokenModel) checkWrite(p *process, current, r *Record) {
	if r.LoggedOut {
		w.logf("process %d writes a logout", p.id)
		w.issuer.mu.Lock()
		defer w.issuer.mu.Unlock()
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, f := range w.issuer.families {
			if f.saved && (current != nil || f.login == r.Login) { // a store that has lost all is told of the login that is known
				f.ended = true
			}
		}
		return
	}
	f, n := modelTokenOf(r.Token)
	w.logf("process %d writes %d-%d", p.id, f, n)
	fam := w.issuer.family(f)
	w.mu.Lock()
	fam.saved, fam.login = true, r.Login
	ended := fam.ended
	w.mu.Unlock()
	if current == nil {
		return
	}
	if current.LoggedOut {
		if ended {
			w.fail("process %d revives the login %d, which was ended", p.id, f)
		}
		return
	}
	has, m := modelTokenOf(current.Token)
	if has == f && m > n {
		w.fail("process %d writes %d-%d over %d-%d", p.id, f, n, has, m)
	}
}

// A process is a TokenSource, and what becomes of it.
type process struct {
	w        *tokenModel
	id       int
	source   *TokenSource
	crashed  atomic.Bool
	requests []time.Time // one at a time
	got      map[int]int // the newest token that has reached it, by family; guarded by tokenModel.mu

	mu      sync.Mutex
	last    *oauth2.Token   // that a caller has got
	shown   map[string]bool // to OnToken
	newest  [2]int          // family and number
	showing atomic.Int32
	goneAt  time.Time    // when it saw in the store that the login was ended
	gone    map[int]bool // which logins
	forgot  int          // how often the store has forgotten that
	unsaved bool         // an event or an error has said so
}

func (w *tokenModel) newProcess(initial *oauth2.Token) *process {
	p := &process{w: w, id: w.ids, shown: make(map[string]bool), got: make(map[int]int), newest: [2]int{-1, -1}}
	w.ids++
	p.source = &TokenSource{Initial: initial, Store: processStore{w.store, p}, FetchTimeout: modelFetchTimeout, OnToken: p.onToken,
		Fetch: func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) { return w.issuer.fetch(ctx, p, r) }}
	chance := math.Mod(w.chance+0.618*float64(p.id), 1)
	p.source.random = func() float64 { return chance }
	if initial != nil {
		p.shown[initial.AccessToken] = true
	}
	return p
}

// saw notes what the process has seen in the store, under its lock.
func (p *process) saw(r *Record) {
	if r == nil || !r.LoggedOut {
		return
	}
	gone := make(map[int]bool)
	p.w.issuer.mu.Lock()
	p.w.mu.Lock()
	for i, f := range p.w.issuer.families {
		if f.ended {
			gone[i] = true
		}
	}
	p.w.mu.Unlock()
	p.w.issuer.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(gone) > len(p.gone) {
		p.goneAt, p.gone = time.Now(), gone
	}
}

func (p *process) onToken(t *oauth2.Token) {
	if p.showing.Add(1) != 1 {
		p.w.fail("OnToken runs twice at a time")
	}
	defer p.showing.Add(-1)
	time.Sleep(time.Millisecond)
	f, n := modelTokenOf(t)
	p.w.logf("process %d shows %d-%d", p.id, f, n)
	p.mu.Lock()
	before := p.newest
	p.shown[t.AccessToken], p.newest = true, [2]int{f, n}
	p.mu.Unlock()
	if before[0] == f && before[1] > n && n > 0 && !p.w.isDisturbed(f) {
		p.w.fail("process %d shows %d-%d after %d-%d", p.id, f, n, f, before[1])
	}
}

// listen checks an event.
func (p *process) listen(_ context.Context, e Event) {
	if e.Err != nil {
		p.w.checkText(e.Err)
	}
	if e.Kind == EventNotSaved {
		p.mu.Lock()
		p.unsaved = true
		p.mu.Unlock()
	}
}

func (w *tokenModel) checkText(err error) {
	if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, "secret") {
		w.fail("a secret in an error: %s", text)
	}
}

// obtain asks for a token, and checks what comes of it.
func (p *process) obtain(limit time.Duration, r TokenRequest) (*oauth2.Token, error) {
	ctx := withListener(context.Background(), p.listen)
	bound := 3 * (modelFetchTimeout + modelStoreBound) // a refresh that does not serve the caller, its own, and one that Set has ended
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
		bound = min(bound, limit)
	}
	began := time.Now()
	p.mu.Lock()
	gone, forgot := p.gone, p.forgot
	if began.Sub(p.goneAt) < modelFetchTimeout+modelStoreBound {
		gone = nil // what has seen it is under way
	}
	p.mu.Unlock()
	t, err := p.source.Obtain(ctx, r)
	if p.crashed.Load() {
		return t, err
	}
	if d := time.Since(began); d > bound+10*time.Millisecond {
		p.w.fail("process %d: a caller has waited %v, and not %v", p.id, d, bound)
	}
	if err != nil {
		p.w.checkText(err)
		return nil, err
	}
	f, n := modelTokenOf(t)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = t
	switch {
	case !p.shown[t.AccessToken]:
		p.w.fail("process %d hands out %d-%d before OnToken has seen it", p.id, f, n)
	case r.Previous != nil && r.Previous.AccessToken == t.AccessToken:
		p.w.fail("process %d hands out the refused token", p.id)
	case gone[f] && p.forgot == forgot:
		p.w.fail("process %d hands out %d-%d, although it has seen that the login was ended", p.id, f, n)
	}
	return t, nil
}

var (
	modelDelays = [...]time.Duration{time.Millisecond, 50 * time.Millisecond, time.Second, 4 * time.Second, 11 * time.Second, 35 * time.Second, time.Minute, 10 * time.Minute}
	modelLimits = [...]time.Duration{0, 10 * time.Millisecond, time.Second, 15 * time.Second}
	modelSkews  = [...]time.Duration{0, -50 * time.Second, -2 * time.Minute, time.Hour}
)

// run plays a script, and checks what is left.
func (w *tokenModel) run(script []byte) {
	for ; len(script) >= 2 && !w.hasFailed(); script = script[2:] {
		w.step(script[0]%16, int(script[1]))
		synctest.Wait()
	}
	w.store.heal()
	w.issuer.mu.Lock()
	w.issuer.faults, w.issuer.skew = nil, 0
	w.issuer.mu.Unlock()
	w.logf("all is put right")
	w.calls.Wait()
	time.Sleep(10 * time.Minute)
	w.checkEnd()
	for _, p := range w.procs {
		p.crashed.Store(true)
	}
	require.Empty(w.t, w.failures)
}

func (w *tokenModel) hasFailed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.failures) > 0
}

// step does one thing of a script.
func (w *tokenModel) step(what byte, arg int) {
	which, how := arg%modelProcesses, arg/modelProcesses
	p := w.procs[which]
	w.logf("step %d %d %d", what, which, how)
	ask := func(r TokenRequest) {
		limit := modelLimits[how%len(modelLimits)]
		w.calls.Go(func() { p.obtain(limit, r) })
	}
	switch what {
	case 0:
		ask(TokenRequest{})
	case 1:
		p.mu.Lock()
		last := p.last
		p.mu.Unlock()
		ask(TokenRequest{Previous: last})
	case 2:
		ask(TokenRequest{Scopes: []string{fmt.Sprint("s", how/4%4)}})
	case 3:
		ask(TokenRequest{Background: true})
	case 4, 5:
		time.Sleep(modelDelays[arg%len(modelDelays)])
	case 6, 7:
		w.issuer.mu.Lock()
		fault := issuerFault(arg) % issuerFaults
		if arg >= 240 {
			fault = issuerFaults + 1 + issuerFault(arg)%2
		}
		w.issuer.faults = append(w.issuer.faults, fault)
		w.issuer.mu.Unlock()
	case 8:
		w.store.mu.Lock()
		w.store.writes = append(w.store.writes, writeFault(arg%3))
		w.store.mu.Unlock()
	case 9:
		w.store.mu.Lock()
		w.store.failLoad, w.store.failLock, w.store.failConfirm, w.store.slow = arg&1 != 0, arg&2 != 0, arg&4 != 0, arg&8 != 0
		w.store.mu.Unlock()
	case 10:
		p.crashed.Store(true)
		w.store.crash(p)
		w.procs[which] = w.newProcess(p.source.Initial)
	case 11:
		w.store.expire()
	case 12:
		if arg%4 == 0 {
			w.store.evict()
			w.forgetLogouts()
		}
	case 13:
		w.set(p)
	case 14:
		w.calls.Go(func() {
			began := time.Now()
			if err := p.source.Logout(context.Background()); err != nil {
				w.checkText(err)
				w.forsake() // what was not saved yet is gone, as whoever logged out wanted
			}
			w.checkWait("Logout", began)
		})
	case 15:
		w.issuer.mu.Lock()
		w.issuer.skew = modelSkews[arg%len(modelSkews)]
		w.issuer.mu.Unlock()
	}
}

// forsake says that a process has forgotten its login, in whatever state that was, and the store does not know.
func (w *tokenModel) forsake() {
	w.pardon()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.issuer.families {
		f.forsaken = true
	}
}

// forgetLogouts: when the store has lost a logout, too, whoever still has the token goes on; who has logged out has none.
func (w *tokenModel) forgetLogouts() {
	w.mu.Lock()
	for _, f := range w.issuer.families {
		f.forsaken = f.forsaken || f.ended
		f.ended = false
	}
	w.mu.Unlock()
	for _, p := range w.procs {
		p.mu.Lock()
		p.gone = nil
		p.forgot++
		p.mu.Unlock()
	}
}

// set logs in.
func (w *tokenModel) set(p *process) {
	t := w.issuer.login()
	w.calls.Go(func() {
		began := time.Now()
		if err := p.source.Set(t); err != nil {
			w.checkText(err)
		}
		w.checkWait("Set", began)
	})
}

func (w *tokenModel) checkWait(what string, began time.Time) {
	if d := time.Since(began); d > modelFetchTimeout+modelStoreBound {
		w.fail("%s has taken %v", what, d)
	}
}

// checkEnd checks what is left when all has been put right: each process goes on with the login that the store has, which is
// the newest of its family, unless that has been ended.
func (w *tokenModel) checkEnd() {
	for range 2 { // after the second, all have seen what the first has saved
		for _, p := range w.procs {
			_, err := p.obtain(0, TokenRequest{})
			stored := w.store.record()
			if stored == nil || stored.LoggedOut {
				// Whoever has not looked goes on while the token lives; obtain checks those who have.
				if err != nil && !errors.Is(err, ErrLoginRequired) {
					w.fail("process %d: %v, and the store has no login", p.id, err)
				}
				continue
			}
			f, n := modelTokenOf(stored.Token)
			if fam := w.issuer.family(f); err != nil && !fam.revoked && !fam.forsaken && !w.issuer.hasSpent(p, f, n) {
				w.fail("process %d has lost the login %d: %v", p.id, f, err)
			}
		}
		time.Sleep(time.Minute)
	}
	stored := w.store.record()
	if stored == nil || stored.Token == nil {
		return
	}
	f, n := modelTokenOf(stored.Token)
	for _, p := range w.procs {
		// A newer one whose answer was lost, or that a process had that has crashed, is nobody's.
		if fam := w.issuer.family(f); n < p.got[f] && !fam.revoked && !fam.forsaken {
			w.fail("the store has %d-%d, and process %d has got %d-%d", f, n, p.id, f, p.got[f])
		}
		if k := p.source.current.Load(); k != nil && k.unsaved.Load() != nil {
			w.fail("process %d has not saved its token", p.id)
		}
	}
}
