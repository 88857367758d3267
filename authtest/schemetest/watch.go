package schemetest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/authretry/authretry"
)

// A watched is the Scheme of a trial, of which each call is watched.
type watched struct{ t *trial }

// Name returns the same each time, so that nothing follows if the Scheme's own does not.
func (w *watched) Name() string {
	if name := w.t.scheme.Name(); name != w.t.name {
		w.t.broken(clauseName, "Name returned %q, and %q before", name, w.t.name)
	}
	return w.t.name
}

// Start implements authretry.Starter. For a Scheme that is none it returns nothing, which comes to the same.
func (w *watched) Start(ctx context.Context, req *http.Request) (authretry.Session, error) {
	starter, ok := w.t.scheme.(authretry.Starter)
	if !ok {
		return nil, nil
	}
	ctx, leave := w.t.enter(ctx, "Start")
	defer leave()
	before := showUnsent(req, w.t.bodyOf(req))
	session, err := starter.Start(ctx, req)
	if use := before.useOf(); use != "" {
		w.t.broken(clauseShown, "Start has %s the request's Body", use)
	}
	changed, _ := before.hide(false)
	w.t.unchanged(clauseShown, "Start", "the request", changed)
	w.t.judge(ctx, "Start", err)
	return w.t.session("Start", session), err
}

// Answer implements authretry.Scheme.
func (w *watched) Answer(ctx context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
	ctx, leave := w.t.enter(ctx, "Answer")
	defer leave()
	if c == nil {
		defer w.t.notForNil()
	}
	refusal.Request = refusal.Request.WithContext(ctx)
	challenge := challengeText(c)
	status, header := refusal.StatusCode, refusal.Header.Clone()
	body := newWatchedBody("refused\n")
	refusal.Body = body
	before := show(refusal.Request)

	session, err := w.t.scheme.Answer(ctx, c, refusal)
	if body.use == "read" { // to close it does no harm
		w.t.broken(clauseRefusal, "Answer has read the refusal's Body")
	}
	changed, _ := before.hide(false)
	w.t.unchanged(clauseShown, "Answer", "the refusal's Request", changed)
	w.t.unchanged(clauseShown, "Answer", "the refusal", changedResponse(refusal, status, header))
	if challengeText(c) != challenge {
		w.t.broken(clauseShown, "Answer has changed the challenge")
	}
	if session == nil && err == nil {
		w.t.broken(clauseAnswer, "Answer returned neither a Session nor an error")
	}
	w.t.judge(ctx, "Answer", err)
	return w.t.session("Answer", session), err
}

func challengeText(c *authretry.Challenge) string {
	if c == nil {
		return ""
	}
	return c.String()
}

// AnswersForbidden says of a challenge that comes with 403 whether it is answered. For a Scheme that has no such method it says
// no, which comes to the same.
func (w *watched) AnswersForbidden(c *authretry.Challenge) bool {
	f, ok := w.t.scheme.(interface {
		AnswersForbidden(c *authretry.Challenge) bool
	})
	if !ok {
		return false
	}
	_, leave := w.t.enter(context.Background(), "AnswersForbidden")
	defer leave()
	before := challengeText(c)
	answers := f.AnswersForbidden(c)
	if challengeText(c) != before {
		w.t.broken(clauseShown, "AnswersForbidden has changed the challenge")
	}
	return answers
}

// PlaintextSafe implements authretry.PlaintextSafe. For a Scheme that does not it returns false, which comes to the same.
func (w *watched) PlaintextSafe() bool {
	safe, ok := w.t.scheme.(authretry.PlaintextSafe)
	return ok && safe.PlaintextSafe()
}

// Forget is called by authretry.Transport.Forget. For a Scheme that has no such method it does nothing, which comes to the
// same.
func (w *watched) Forget(account string) {
	if f, ok := w.t.scheme.(interface{ Forget(account string) }); ok {
		_, leave := w.t.enter(context.Background(), "Forget")
		defer leave()
		f.Forget(account)
	}
}

// The clauses by which a method of that name must end with its context.
var endsWithContext = map[string]clause{
	"Start": clauseObeys, "Answer": clauseObeys, "Authorize": clauseInTime, "Carry": clauseCarry,
	"Learn": clauseLearn, "Covers": clauseCovers,
}

// enter notes that a method of the Scheme is being called, until leave is. The context that it returns is the one for the
// method: ctx, or one that is done already if the case is about that.
func (t *trial) enter(ctx context.Context, method string) (_ context.Context, leave func()) {
	t.mu.Lock()
	t.running[method]++
	done := t.doneIn == method
	t.mu.Unlock()
	cancel := func() {}
	if done {
		ctx, cancel = context.WithCancel(ctx)
		cancel()
	}
	start := time.Now()
	return ctx, func() {
		cancel()
		p := recover()
		t.mu.Lock()
		t.running[method]--
		t.mu.Unlock()
		t.took(method, time.Since(start))
		if p == nil {
			return
		}
		if p != errReported {
			t.broken(clausePanic, "%s has panicked with a %T: %v", method, p, p)
		}
		panic(p) // for the Transport to do what it does
	}
}

// took complains about a method that has taken too long.
func (t *trial) took(method string, d time.Duration) {
	switch {
	case method == "Learn" && d > t.learnLimit:
		t.broken(clauseLearn, "Learn has taken more than %v", t.learnLimit)
	case !t.waits && d > t.limit/2:
		t.misused("%s has taken more than %v: newScheme should return a Scheme that has its credentials at hand, and Options.Slow one that has not", method, t.limit/2)
	}
}

// notForNil reports a panic of Answer in terms of the challenge that is nil.
func (t *trial) notForNil() {
	if p := recover(); p != nil {
		t.broken(clauseNil, "Answer has panicked with a nil challenge")
		panic(errReported)
	}
}

var errReported = errors.New("schemetest: reported already")

// unchanged reports what a method has changed.
func (t *trial) unchanged(c clause, method, of string, changed []string) {
	if len(changed) > 0 {
		t.broken(c, "%s has changed %s: %s", method, of, strings.Join(changed, ", "))
	}
}

// judge looks at the error of a method.
func (t *trial) judge(ctx context.Context, method string, err error) {
	if err == nil {
		return
	}
	t.checkValue("the error of "+method, err)
	isSaid := errors.Is(err, authretry.ErrCredentialsRefused) || errors.Is(err, authretry.ErrUnsupportedChallenge)
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) && !isSaid {
		t.broken(endsWithContext[method], "the error of %s does not wrap that of its context, which is done", method)
	}
}
