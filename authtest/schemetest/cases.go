package schemetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/authretry/authretry"
)

var cases = []testCase{
	{"name", checkName},
	{"accepted", checkAccepted},
	{"concurrent", checkConcurrent},
	{"refused in the same words", checkRefused(http.StatusUnauthorized, func(t *trial) http.Header { return t.lastRefusal() }, false)},
	{"refused in new words", checkRefused(http.StatusUnauthorized, func(t *trial) http.Header { return t.refusal() }, false)},
	{"refused without a challenge", checkRefused(http.StatusUnauthorized, func(*trial) http.Header { return nil }, true)},
	{"refused for another scheme", checkRefused(http.StatusUnauthorized, func(*trial) http.Header { return foreign }, true)},
	{"forbidden", checkRefused(http.StatusForbidden, insufficient, false)},
	{"redirected", checkRedirected},
	{"context", checkContext},
	{"accounts", checkAccounts},
	{"forgotten account", checkForget},
}

// checkName checks that the name is an auth-scheme, and one that the Server asks for, if it asks for any. Only a Starter
// can do without that.
func checkName(k *check) {
	named, err := authretry.ParseChallenges([]string{k.name})
	if err != nil || len(named) != 1 || named[0].Scheme != k.name {
		k.broken(clauseName, "Name returns %q, which is no token", k.name)
		k.Stop() // no challenge can have it
		return
	}
	challenges, err := authretry.ParseChallenges(k.refusal()["Www-Authenticate"])
	isAsked := slices.ContainsFunc(challenges, func(c authretry.Challenge) bool { return strings.EqualFold(c.Scheme, k.name) })
	_, isStarter := k.newScheme().(authretry.Starter)
	if err != nil || len(challenges) > 0 && !isAsked && !isStarter {
		k.broken(clauseName, "Name returns %q, and none of the Server's challenges has that name: %v", k.name, challenges)
		k.Stop()
	}
}

// accepted sends a request that should be let in, and reports if it is not, unless something was reported that it may
// follow from.
func (t *trial) accepted(req *http.Request) bool {
	known := len(t.Errs())
	o := t.do(req)
	if !o.isAccepted() && len(t.Errs()) == known {
		t.broken(clauseAnswer, "the Server does not accept the Session's requests: %v", o)
	}
	return o.isAccepted()
}

// checkAccepted sends one request after the other to a server that judges them.
func checkAccepted(k *check) {
	t := k.newTrial(k.newScheme, judged)
	defer t.end()
	for _, req := range []*http.Request{
		t.newRequest("/a/b", ""), t.newRequest("/a/b", "a body"), t.newRequest("/a/c?q=1", ""), t.newRequest("/", "another"),
	} {
		if !t.accepted(req) {
			return
		}
	}
	// A request with an Authorization of its own does not get as far as the Scheme.
	for _, name := range slices.Sorted(maps.Keys(t.sent)) {
		if name != "Authorization" {
			req := t.newRequest("/a/b", "")
			req.Header[name] = []string{"the caller's"}
			t.do(req) // the server need not like that
		}
	}
}

// works reports whether a request is let in. If it is not, checkAccepted has said so, or what it follows from.
func (k *check) works() bool {
	t := k.newTrial(k.newScheme, judged)
	defer t.end()
	return t.do(t.newRequest("/works", "")).isAccepted()
}

// checkConcurrent sends many requests at once: to a server that judges them, then to one that refuses.
func checkConcurrent(k *check) {
	if !k.works() {
		return
	}
	t := k.newTrial(k.newScheme, judged)
	defer t.end()
	known := len(k.Errs())
	failed := t.atOnce(8)
	if len(failed) > 0 && len(k.Errs()) == known {
		c := clauseConcurrent
		if t.isShared {
			c = clauseShared
		}
		k.broken(c, "of %d requests, 16 at once, %d were not accepted; the first: %v", 16*8, len(failed), failed[0])
	}
	if len(failed) > 0 {
		return
	}
	t.answerBy(refusing(http.StatusUnauthorized, func(t *trial) http.Header { return t.refusal() }, false))
	t.atOnce(2)
}

// atOnce sends each times 16 requests, 16 at once, and returns the outcomes of those that were not accepted.
func (t *trial) atOnce(each int) (failed []outcome) {
	var mu sync.Mutex // guards failed
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			for j := range each {
				o := t.do(t.newRequest(fmt.Sprintf("/at/once/%d", j), strings.Repeat("a body", i%2)))
				if !o.isAccepted() {
					mu.Lock()
					failed = append(failed, o)
					mu.Unlock()
				}
			}
		})
	}
	clients.Wait()
	return failed
}

// checkRefused sends requests to a server that refuses for ever: from the beginning, and after it has accepted some. What
// is counted is checked with each request, and that each of them ends.
func checkRefused(status int, header func(*trial) http.Header, silent bool) func(*check) {
	return func(k *check) {
		for _, accepting := range []int{0, 2} {
			t := k.newTrial(k.newScheme, judged)
			defer t.end()
			for range accepting {
				t.do(t.newRequest("/a/b", ""))
			}
			t.answerBy(refusing(status, header, silent))
			for range 3 {
				t.do(t.newRequest("/a/b", ""))
				t.do(t.newRequest("/a/c", "a body"))
				if k.IsStopped() {
					return
				}
			}
		}
	}
}

// checkRedirected has the server redirect what it has accepted to another origin, which asks for credentials as well.
func checkRedirected(k *check) {
	var mu sync.Mutex // guards got
	var got []http.Header
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		got = append(got, r.Header.Clone())
		mu.Unlock()
		copyHeader(w.Header(), k.refusal())
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer other.Close()
	t := k.newTrial(k.newScheme, func(t *trial, w http.ResponseWriter, r *http.Request, c *call) {
		rec := httptest.NewRecorder()
		judged(t, rec, r, c)
		if rec.Code < 400 && c != nil {
			rec.Code = http.StatusFound
			w.Header().Set("Location", other.URL+"/elsewhere")
		}
		copyHeader(w.Header(), rec.Header())
		w.WriteHeader(rec.Code)
	})
	defer t.end()
	client := &http.Client{Transport: t.transport}
	known := len(k.Errs())
	o := t.send(client.Do, t.newRequest("/away", ""))
	mu.Lock()
	leaked := slices.ContainsFunc(got, t.hasLeaked)
	mu.Unlock()
	var r *authretry.Rejection
	switch {
	case len(k.Errs()) > known:
	case t.carries && (leaked || errors.As(o.err, &r) && r.Reason == authretry.ReasonRedirected):
		k.broken(clauseFollows, "what Carry returned has followed a redirect to another origin")
	case leaked:
		k.broken(clauseOrigin, "another origin has got credentials by a redirect")
	}
}

// hasLeaked reports whether headers that have come to another origin have credentials.
func (t *trial) hasLeaked(h http.Header) bool {
	for name, values := range h {
		ours := func(value string) bool { return slices.Contains(t.sent[name], value) || t.showsAny(value) }
		if name == "Authorization" || slices.ContainsFunc(values, ours) {
			return true
		}
	}
	return false
}

// checkContext checks that nothing goes on when its context is done.
func checkContext(k *check) {
	if !k.works() {
		return
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, method := range []string{"", "Start", "Answer", "Authorize", "Carry"} {
		t := k.newTrial(k.newScheme, judged)
		t.doneIn = method
		req := t.newRequest("/", "")
		if method == "" {
			req = req.WithContext(cancelled)
		}
		t.ends(req, method == "", context.Canceled)
		t.end()
	}
	if k.Slow == nil || k.IsStopped() {
		return
	}
	soon, cancel := context.WithTimeout(context.Background(), 150*time.Millisecond)
	defer cancel()
	t := k.newTrial(k.Slow, judged)
	defer t.end()
	t.waits = true
	if o := t.ends(t.newRequest("/", "").WithContext(soon), true, context.DeadlineExceeded); o.err == nil {
		k.misused("the Scheme of Options.Slow did not wait for its credentials")
	}
}

// ends sends a request, whose error must wrap want if its own context is done.
func (t *trial) ends(req *http.Request, done bool, want error) outcome {
	known := len(t.Errs())
	o := t.do(req)
	if done && o.err != nil && !errors.Is(o.err, want) && len(t.Errs()) == known {
		t.broken(clauseObeys, "the context of a request was done, and the error does not wrap that of the context: %v", o.err)
	}
	return o
}
