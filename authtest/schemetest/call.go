package schemetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/authretry/authretry"
)

// A call is one call of RoundTrip.
type call struct {
	account    int  // the index of the one that it is for
	n          int  // which call it is
	sends      int  // how often its request came to the server
	authorized int  // how often a Session has authorized it
	nothingNew bool // its first send carried credentials, and their refusal told the Scheme nothing new
}

// callHeader tells which call a request belongs to.
const callHeader = "Schemetest-Call"

// newRequest returns a request to the server, with a body if there is text for one.
func (t *trial) newRequest(path, body string) *http.Request {
	req, err := http.NewRequest("GET", t.server.URL+"/schemetest"+path, nil)
	if body != "" {
		req, err = http.NewRequest("POST", t.server.URL+"/schemetest"+path, strings.NewReader(body))
	}
	if err != nil {
		panic(err) // the URL is ours
	}
	req.Header["Schemetest-Caller"] = []string{"one", "two"}
	if body != "" {
		req.Header["Schemetest-Body"] = []string{body}
	}
	return req
}

// bodyOf returns the text of the body of a request from newRequest.
func (t *trial) bodyOf(req *http.Request) string { return req.Header.Get("Schemetest-Body") }

// begin notes a call, and marks its request.
func (t *trial) begin(req *http.Request) *call {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &call{account: accountIn(req), n: len(t.calls) + 1}
	id := fmt.Sprint(c.n)
	t.calls[id] = c
	req.Header[callHeader] = []string{id}
	return c
}

// authorized notes that a Session has put headers on a request.
func (t *trial) authorized(req *http.Request, added http.Header) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.calls[req.Header.Get(callHeader)]; c != nil {
		c.authorized++
	}
	for name, values := range added {
		t.sent[name] = append(t.sent[name], values...)
	}
}

// An outcome is what became of a call: a response, whose body was read, or an error.
type outcome struct {
	status int
	why    error // what Explain says of the response
	err    error
}

func (o outcome) String() string {
	if err := cmp.Or(o.err, o.why); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("the status is %d", o.status)
}

// isAccepted reports whether the request was let in.
func (o outcome) isAccepted() bool { return o.err == nil && o.status < 400 }

var errStuck = errors.New("schemetest: the call has not returned")

// do sends a request through the Transport.
func (t *trial) do(req *http.Request) outcome { return t.send(t.transport.RoundTrip, req) }

// send sends a request, and checks what holds for every call.
func (t *trial) send(roundTrip func(*http.Request) (*http.Response, error), req *http.Request) outcome {
	known := len(t.Errs())
	c := t.begin(req)
	before := show(req)
	ctx, cancel := context.WithTimeout(req.Context(), t.limit)
	defer cancel()
	ended := make(chan outcome, 1)
	go func() { ended <- t.take(roundTrip(req.WithContext(ctx))) }()
	o, ok := t.await(ctx, ended)
	if !ok {
		return o
	}
	t.countSends(c)
	if len(t.Errs()) > known { // from which the rest may follow
		return o
	}
	if errors.Is(o.err, context.DeadlineExceeded) && req.Context().Err() == nil {
		t.broken(clauseAnswer, "a request had not ended after %v", t.limit)
		t.Stop() // or else the next ones take as long
	}
	changed, _ := before.hide(false)
	t.unchanged(clauseRequest, "something", "the caller's request", changed)
	return o
}

// await waits for the outcome of a call. If there is none within the limit after the end of its context, it says which
// methods have not returned, and ok is false.
func (t *trial) await(ctx context.Context, ended <-chan outcome) (_ outcome, ok bool) {
	select {
	case o := <-ended:
		return o, true
	case <-ctx.Done():
	}
	select {
	case o := <-ended:
		return o, true
	case <-time.After(t.limit):
	}
	t.Stop()
	t.mu.Lock()
	running := t.running
	t.running = map[string]int{}
	t.mu.Unlock()
	stuck := false
	for method, n := range running {
		if c, ok := endsWithContext[method]; ok && n > 0 {
			stuck = true
			t.broken(c, "%s had not returned %v after the context of the request was done", method, t.limit)
		}
	}
	if !stuck {
		t.broken(clauseAnswer, "a request had not ended %v after its context was done", t.limit)
	}
	return outcome{err: errStuck}, false
}

// take reads what a call has returned.
func (t *trial) take(resp *http.Response, err error) outcome {
	if err != nil {
		t.checkValue("the error of a request", err)
		return outcome{err: err}
	}
	defer resp.Body.Close()
	why := authretry.Explain(resp)
	if why != nil {
		t.checkValue("what Explain says", why)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return outcome{resp.StatusCode, why, err}
}

// countSends checks how often the request of a call was sent.
func (t *trial) countSends(c *call) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case c.sends > 2:
		t.broken(clauseTwice, "one call of RoundTrip has sent the request %d times", c.sends)
	case c.sends == 2 && c.authorized == 2 && c.nothingNew && !t.AnswersAgain:
		t.broken(clauseNothingNew, "a refusal of credentials said nothing new, and the Scheme sent some again; if they were another token or key, set Options.AnswersAgain")
	}
}
