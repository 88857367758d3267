package authretry

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// accept returns a response that is not a refusal, after the Session has learnt from it.
func (x *exchange) accept(resp *http.Response, sent *http.Request, l *lease) (*http.Response, error) {
	return x.acceptLearnt(resp, sent, l, x.learnAccepted(resp, sent, l))
}

// learnAccepted lets the Session learn from a response that is not a refusal.
func (x *exchange) learnAccepted(resp *http.Response, sent *http.Request, l *lease) error {
	if l.Session == nil || x.foreign {
		return nil
	}
	_, err := x.learn(resp, sent, l, false)
	return err
}

// acceptLearnt is accept, where err is what the Session has said.
func (x *exchange) acceptLearnt(resp *http.Response, sent *http.Request, l *lease, err error) (*http.Response, error) {
	if l.Session != nil && !x.foreign {
		if err != nil {
			if r := rejectionOf(resp); r != nil { // a proxy's
				err = fmt.Errorf("%w; the response was: %s", err, strings.TrimPrefix(r.Error(), "authretry: "))
			}
			resp.Body.Close()
			x.body.settle()
			return nil, x.fail(nil, err)
		}
		x.passed = true
		x.keep(l)
	}
	x.noteUpload(l)
	x.body.settle()
	var r *Rejection
	if isRefusal(resp) {
		r = x.explainOthers(resp)
	}
	return x.release(resp, sent, r), nil
}

// refuse returns the refusal resp, or fails the request if the error that keeps it from being answered says so. A
// refused CONNECT has no response to return.
func (x *exchange) refuse(resp *http.Response, sent *http.Request, err error) (*http.Response, error) {
	reason, ok := err.(*unanswered)
	if !ok {
		discard(resp)
		x.body.settle()
		return nil, x.fail(resp, err)
	}
	if x.tunnel {
		x.body.abandon()
		return nil, x.failTunnel(resp, reason)
	}
	x.body.settle()
	r := x.why(resp, reason)
	if x.side == originSide && isOverwritten(resp, sent) {
		r.Reason, r.Err = ReasonMisconfigured, errOverwritten
	}
	return x.release(resp, sent, r), nil
}

// release makes resp the caller's: its request is the caller's again, without our credentials. If r is not nil, it is
// what Explain will say of the response.
func (x *exchange) release(resp *http.Response, sent *http.Request, r *Rejection) *http.Response {
	if inner := rejectionOf(resp); inner != nil {
		r = wordOf(r, inner)
	}
	if resp.Request != nil || resp.Header["Location"] != nil { // from where the next request of the caller's comes
		resp.Request = x.callers(resp, sent)
	}
	if x.begun && x.accountFunc != nil {
		x.noteAccount(resp)
	}
	if r != nil {
		x.attach(resp, r)
		x.report(Event{Kind: EventRefused, Attempt: int(x.attempts), Status: resp.StatusCode, Reason: r.Reason}, nil)
	}
	x.done(resp.StatusCode, r, nil)
	return resp
}

// callers returns the request of a response as the caller is to see it: the caller's own, or that which Base says it has sent
// in its place, without our credentials.
func (x *exchange) callers(resp *http.Response, sent *http.Request) *http.Request {
	own := resp.Request
	if own == sent || own == nil {
		return x.req
	}
	copied := withoutCredentials(own, sent.Header, x.req.Header)
	if ctx, marks := withoutMarks(own.Context()); isSameContext(ctx, sent.Context()) {
		// What we have derived from the caller's context would be in it for ever, if this were sent again and again.
		ctx = x.req.Context()
		for _, m := range slices.Backward(marks) {
			ctx = &sentFor{ctx, m.by, m.account, m.resp}
		}
		copied = copied.WithContext(ctx)
	}
	if own.Response == nil || own.Response == x.req.Response {
		// Base has chosen another URL, but followed no redirect: where one leads from here is judged by the caller's URL.
		copied.Response = x.req.Response
		if resp.Header["Location"] != nil {
			copied.URL, copied.Host = x.req.URL, x.req.Host
		}
	}
	return copied
}

// learnRefusal has the Session learn from a second refusal, which decides whether it is kept for the next request. It
// returns why the refusal is not answered any more.
func (x *exchange) learnRefusal(resp *http.Response, sent *http.Request) *unanswered {
	x.reportChallenges(resp.StatusCode, x.challenges(resp))
	u, answer := &unanswered{refused: ErrCredentialsRefused}, x.aside.answer
	x.noteRefusal()
	keep, err := x.learn(resp, sent, answer, true)
	if errors.Is(err, ErrCredentialsRefused) {
		u.refused = x.withoutRepeatedIn(err, resp)
	}
	if hint := hintOf(answer); hint != nil {
		u.refused = hint
	}
	right := x.visit.crowded() // a nonce that was given a moment ago is not known any more, or called stale
	switch {
	case keep:
		x.keep(answer)
	case right:
		u.refused = errNonceForgotten
	default:
		x.spaces.forget(x.remembered(), answer)
	}
	return u
}

// hintOf returns what there is to be said of a refusal besides that the credentials were refused, if the Session knows; or nil.
func hintOf(l *lease) error {
	if hinter, ok := l.Session.(interface{ refusedHint() error }); ok {
		return hinter.refusedHint()
	}
	return nil
}

// learn lets a Session learn from the response to what it has authorized.
func (x *exchange) learn(resp *http.Response, sent *http.Request, l *lease, refused bool) (keep bool, err error) {
	learner, ok := l.Session.(Learner)
	if !ok {
		return false, nil
	}
	if !refused && len(resp.Header[x.challenge]) > 0 {
		x.noteRefusal() // which nobody answers, but a TokenSource may be told
	}
	if refused || x.side == proxySide || x.goesElsewhere() {
		return learner.Learn(x.shownResponse(resp, sent, true), refused)
	}
	own := resp.Request
	resp.Request = sent
	keep, err = learner.Learn(resp, refused)
	resp.Request = own
	return keep, err
}

// challenges reads what resp asks for.
func (x *exchange) challenges(resp *http.Response) []Challenge {
	return readChallenges(resp.Header[x.challenge])
}

// keep remembers the lease's Session for requests like this one, if there is anything to remember.
func (x *exchange) keep(l *lease) {
	if l.Session != nil && !l.space.started {
		x.remember(l)
	}
}

func (x *exchange) remember(l *lease) {
	var key spacesKey
	if l.space.of == nil { // else it is known where the lease belongs
		key = x.remembered()
	}
	if !x.spaces.keep(key, x.at(), l, x.changes) || l.by == nil {
		return
	}
	uses := x.aside.value().carried
	for i := range uses {
		if uses[i].carried == l.by {
			uses[i].kept = true
		}
	}
}

// withoutCredentials returns a copy of req without the headers that are in sent, but not in callers.
func withoutCredentials(req *http.Request, sent, callers http.Header) *http.Request {
	own := req.WithContext(req.Context())
	own.Header = maps.Clone(req.Header)
	for name, values := range sent {
		if name == "Expect" || name == "Cookie" || slices.Equal(values, callers[name]) || !slices.Equal(own.Header[name], values) {
			continue
		}
		if v, ok := callers[name]; ok {
			own.Header[name] = v
		} else {
			delete(own.Header, name)
		}
	}
	return own
}

// sameCredentials reports whether the second send says nothing to the server that the first has not said.
func sameCredentials(first, second http.Header) bool {
	for name, values := range first {
		if name != "Expect" && !slices.Equal(values, second[name]) {
			return false
		}
	}
	for name, values := range second {
		if name != "Expect" && !slices.Equal(values, first[name]) {
			return false
		}
	}
	return true
}
