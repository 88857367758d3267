package schemetest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/authretry/authretry"
)

// accountHeader has the index of the account for which a request is sent, so that the server knows it as well. Without it,
// that is the first.
const accountHeader = "Schemetest-Account"

// setAccounts takes Options.Accounts, if there are any.
func (k *check) setAccounts() {
	if k.Accounts == nil {
		return
	}
	if len(k.Accounts) < 2 || k.Server != nil {
		k.misused("Options.Accounts needs two accounts or more, and takes the place of Options.Server")
		return
	}
	k.accounts = slices.Sorted(maps.Keys(k.Accounts))
	k.Server = k.Accounts[k.accounts[0]]
	for _, account := range k.accounts {
		if account == "" || k.Accounts[account] == nil || refusalOf(k.Accounts[account]) == nil {
			k.misused("Options.Accounts has no name, no handler or one that answered a request without credentials with another status than 401, for account %q", account)
		}
	}
}

// accountOf is the Transport's Account.
func (k *check) accountOf(req *http.Request) string { return k.accounts[accountIn(req)] }

// accountIn returns the index of the account for which a request is sent.
func accountIn(req *http.Request) int {
	i, _ := strconv.Atoi(req.Header.Get(accountHeader))
	return i
}

// newRequestFor returns a request on behalf of the account with that index.
func (t *trial) newRequestFor(account int, path, body string) *http.Request {
	req := t.newRequest(path, body)
	req.Header[accountHeader] = []string{strconv.Itoa(account)}
	return req
}

// judgedByAccount answers as the handler of the account does for which the request was sent, and reports if it has the
// credentials of another account. A request of a Carrier's own may have anybody's.
//
// If the path begins with "to", a request that is accepted is redirected to what follows.
func judgedByAccount(t *trial, w http.ResponseWriter, r *http.Request, c *call) {
	answers := t.askAll(r)
	if c == nil {
		copyAnswer(w, answers[max(0, slices.IndexFunc(answers, isAccepted))])
		return
	}
	own := answers[c.account]
	t.judgeWhose(c.account, answers)
	t.mu.Lock()
	if !isRight(own) && c.authorized > 0 {
		t.refusals++
	}
	t.mu.Unlock()
	if to, ok := strings.CutPrefix(r.URL.Path, "/schemetest/to"); ok && isAccepted(own) {
		t.mu.Lock()
		*c = call{account: c.account, n: c.n} // what comes next is another call of RoundTrip
		t.mu.Unlock()
		w.Header().Set("Location", "/schemetest"+to)
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	copyAnswer(w, own)
}

// askAll returns what the handlers of all accounts answer to a request.
func (t *trial) askAll(r *http.Request) (answers []*httptest.ResponseRecorder) {
	body, _ := io.ReadAll(r.Body) // of a request that was cut short there is nothing to judge
	for _, account := range t.accounts {
		own := r.Clone(r.Context())
		own.Body = io.NopCloser(bytes.NewReader(body))
		rec := httptest.NewRecorder()
		t.Accounts[account].ServeHTTP(rec, own)
		answers = append(answers, rec)
	}
	return answers
}

// judgeWhose reports if a request for one account has the credentials of another, going by what the handlers answer.
func (t *trial) judgeWhose(account int, answers []*httptest.ResponseRecorder) {
	for i, answer := range answers {
		switch {
		case i == account || !isRight(answer):
		case isRight(answers[account]):
			t.misused("the handlers of accounts %q and %q in Options.Accounts accept the same request", t.accounts[account], t.accounts[i])
		default:
			t.broken(clauseWhose, "a request of account %q had the credentials of %q", t.accounts[account], t.accounts[i])
		}
	}
}

func isAccepted(answer *httptest.ResponseRecorder) bool { return answer.Code < 400 }

// isRight reports whether the credentials were right that got the answer: they are, too, if a Digest's nonce is only stale
// (RFC 7616 §3.3), as that of another account's server is.
func isRight(answer *httptest.ResponseRecorder) bool {
	challenges, _ := authretry.ParseChallenges(answer.Header()["Www-Authenticate"])
	return isAccepted(answer) || slices.ContainsFunc(challenges, func(c authretry.Challenge) bool {
		return strings.EqualFold(c.Params.Get("stale"), "true")
	})
}

// judgedAndRefused answers as judgedByAccount does, but refuses every third call once whatever it has.
func judgedAndRefused(t *trial, w http.ResponseWriter, r *http.Request, c *call) {
	t.mu.Lock()
	refuses := c != nil && c.n%3 == 0 && c.sends == 1
	t.mu.Unlock()
	if !refuses {
		judgedByAccount(t, w, r, c)
		return
	}
	judgedByAccount(t, httptest.NewRecorder(), r, c)
	copyHeader(w.Header(), refusalOf(t.Accounts[t.accounts[c.account]]))
	w.WriteHeader(http.StatusUnauthorized)
}

// checkAccounts sends requests on behalf of all accounts by one Transport: in turn, and by a second one at once, with
// redirects to another account's path, and with Forget in between, after which a Scheme is asked as after an eviction. In
// the end the server refuses some that are right, too. Of what follows, only whose credentials are sent is looked at.
func checkAccounts(k *check) {
	if k.accounts == nil || !k.works() {
		return
	}
	known := len(k.Errs())
	accepts := func(account string, o outcome) bool {
		if !o.isAccepted() && len(k.Errs()) == known { // or else it may follow from what was reported
			k.broken(clauseForWhom, "the handler of account %q does not accept its requests: %v", account, o)
		}
		return len(k.Errs()) == known
	}
	t := k.newTrial(k.newScheme, judgedByAccount)
	defer t.end()
	for n := range 2 {
		for i, account := range k.accounts {
			if !accepts(account, t.do(t.newRequestFor(i, fmt.Sprint("/a/", n), ""))) {
				return
			}
		}
	}
	t = k.newTrial(k.newScheme, judgedByAccount) // which nobody was asked for yet
	defer t.end()
	for account, o := range t.allAtOnce() {
		if !accepts(account, o) {
			return
		}
	}
	t.answerBy(judgedAndRefused)
	t.allAtOnce()
}

// allAtOnce sends requests of all accounts at once. It returns the outcome of the last of each account that was not
// accepted, or of some other.
func (t *trial) allAtOnce() map[string]outcome {
	client := &http.Client{Transport: t.transport}
	following := func(req *http.Request) outcome { return t.send(client.Do, req) }
	var mu sync.Mutex // guards outcomes
	outcomes := map[string]outcome{}
	var clients sync.WaitGroup
	for n := range 8 {
		clients.Go(func() {
			for m := range 12 {
				account, other := (n+m)%len(t.accounts), (n+m+m%2)%len(t.accounts)
				path, do := "/"+url.PathEscape(t.accounts[other])+"/x", t.do
				if m%4 == 3 {
					path, do = "/to"+path, following
				}
				if (n+m)%6 == 5 && !t.forget(t.accounts[other]) || t.IsStopped() {
					return
				}
				o := do(t.newRequestFor(account, path, strings.Repeat("a body", n%2)))
				mu.Lock()
				if _, ok := outcomes[t.accounts[account]]; !ok || !o.isAccepted() {
					outcomes[t.accounts[account]] = o
				}
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	return outcomes
}

// forget calls the Transport's Forget, and reports whether it has returned as it should.
func (t *trial) forget(account string) bool {
	ended := make(chan bool, 1)
	go func() {
		defer func() { ended <- recover() == nil }() // a panic was reported
		t.transport.Forget(account)
	}()
	select {
	case ok := <-ended:
		return ok
	case <-time.After(t.limit):
		t.broken(clauseForget, "Forget had not returned after %v", t.limit)
		t.Stop()
		return false
	}
}

// checkForget gives the accounts other credentials, one after the other, and has what is remembered forgotten: then the new
// ones are sent.
func checkForget(k *check) {
	if k.accounts == nil || k.Renew == nil || !k.works() {
		return
	}
	t := k.newTrial(k.newScheme, judgedByAccount)
	defer t.end()
	if t.firstRefused() != "" { // checkAccounts has said so
		return
	}
	known := len(k.Errs())
	for _, account := range k.accounts {
		k.Renew(account)
		if !t.forget(account) {
			return
		}
		if refused := t.firstRefused(); refused != "" {
			if len(k.Errs()) == known {
				k.broken(clauseForget, "after Options.Renew and Forget, the credentials of account %q are not the new ones: its handler refuses them", refused)
			}
			return
		}
	}
}

// firstRefused sends a request for each account, and returns the first one whose credentials were refused, or whose request
// was not let in; "" if there is none.
func (t *trial) firstRefused() string {
	for i, account := range t.accounts {
		before := t.refused()
		if o := t.do(t.newRequestFor(i, "/a/b", "")); !o.isAccepted() || t.refused() > before {
			return account
		}
	}
	return ""
}

// refused returns how often credentials were refused by the handler of the account that they were sent for.
func (t *trial) refused() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refusals
}
