package schemetest

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"sync"

	"github.com/authretry/authretry"
)

// A trial is one Scheme under a Transport of its own, and a server for it.
type trial struct {
	*check
	scheme    authretry.Scheme
	transport *authretry.Transport
	base      *http.Transport
	server    *httptest.Server
	waits     bool   // the Scheme is one of Options.Slow
	doneIn    string // the method that gets a context which is done; "" for none

	mu       sync.Mutex // guards everything below
	answer   answer
	calls    map[string]*call
	told     map[string]bool // the refusals that the Scheme has seen
	last     http.Header     // the Server's last refusal
	sessions []authretry.Session
	returned map[authretry.Session]bool // Exclusive Sessions
	isShared bool                       // there was a Session that is not Exclusive
	carries  bool                       // there was a Carrier
	covered  map[coverKey]bool
	sent     http.Header    // what Sessions have put into headers
	running  map[string]int // how many calls of each method have not returned
	refusals int            // of credentials, by the server of the account that they were sent for
}

// newTrial starts a trial with a Scheme that newScheme makes. It must be ended.
func (k *check) newTrial(newScheme func() authretry.Scheme, a answer) *trial {
	t := &trial{check: k, scheme: newScheme(), answer: a, last: k.refusal(), base: &http.Transport{MaxIdleConnsPerHost: 64},
		calls: map[string]*call{}, told: map[string]bool{}, returned: map[authretry.Session]bool{}, covered: map[coverKey]bool{},
		sent: http.Header{}, running: map[string]int{}}
	t.transport = &authretry.Transport{Base: t.base, Schemes: []authretry.Scheme{&watched{t}}, OnEvent: t.checkEvent}
	if k.accounts != nil {
		t.transport.Account = k.accountOf
	}
	t.server = httptest.NewServer(http.HandlerFunc(t.serve))
	return t
}

// end ends the trial with a look at what it leaves.
func (t *trial) end() {
	if t.IsStopped() { // something may hang, and have the server wait for it
		go t.close()
		return
	}
	t.close()
	t.checkPrinted()
	t.checkCovers()
}

func (t *trial) close() {
	t.transport.CloseIdleConnections()
	t.server.CloseClientConnections()
	t.server.Close()
}

// answerBy changes how the server answers, between calls.
func (t *trial) answerBy(a answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.answer = a
}

// remember notes what there is to know of a Session that was returned.
func (t *trial) remember(s authretry.Session, isExclusive, isCarrier bool) {
	const enough = 32
	t.mu.Lock()
	defer t.mu.Unlock()
	t.isShared = t.isShared || !isExclusive
	t.carries = t.carries || isCarrier
	if len(t.sessions) < enough {
		t.sessions = append(t.sessions, s)
	}
}

// isNew reports whether an Exclusive Session was not returned before, as far as that can be told.
func (t *trial) isNew(s authretry.Session) bool {
	if !isPointer(s) {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.returned[s] {
		return false
	}
	t.returned[s] = true
	return true
}

// isPointer reports whether s is a pointer to something, by which it can be told from others.
func isPointer(s authretry.Session) bool {
	v := reflect.ValueOf(s)
	return v.Kind() == reflect.Pointer && v.Type().Elem().Size() > 0
}

// A coverKey is what a Session was asked to cover.
type coverKey struct {
	session authretry.Session
	url     string
}

// sameCover returns what the Session said of u when it was asked first, and reports if it says something else now.
func (t *trial) sameCover(s authretry.Session, u *url.URL, covered bool) bool {
	if !isPointer(s) {
		return covered
	}
	t.mu.Lock()
	key := coverKey{s, u.String()}
	before, known := t.covered[key]
	if !known {
		t.covered[key] = covered
	}
	t.mu.Unlock()
	if known && before != covered {
		t.broken(clauseCovers, "Covers said %v of a URL, and then %v", before, covered)
		return before
	}
	return covered
}

// checkCovers asks once more what was asked before.
func (t *trial) checkCovers() {
	for key := range t.covered { // nobody writes to it any more but sameCover, and only what is there
		if u, err := url.Parse(key.url); err == nil {
			t.sameCover(key.session, u, key.session.(authretry.Covers).Covers(u))
		}
	}
}
