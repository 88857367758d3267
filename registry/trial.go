package registry

import (
	"context"
	"net/http"
	"time"
)

// refusedFor is how long credentials that a token server has refused are not sent to it again, so that a password that is wrong
// is not tried for each scope anew until the account is locked.
const refusedFor = 30 * time.Second

// A trial is what is known of credentials at a token server. memory.mu guards its fields.
type trial struct {
	good  bool          // it has taken them
	until time.Time     // before which they are not sent again, since it has refused them; zero: it has not
	runs  chan struct{} // closed when the request has ended by which they are tried; nil: there is none
}

// How a trial has ended.
type outcome int

const (
	unknown outcome = iota // the token server has not said
	good
	bad
)

// try begins a trial of credentials that are about to be sent, and returns what is to be called after that. As long as it is not known
// whether they are good, those who come while they are tried wait for the end of that: a password that is wrong is sent once, however
// many want a token at once. If the token server has said nothing of them by then, they go on. The error is that for credentials that it
// has just refused, or that of ctx.
func (m *memory) try(ctx context.Context, who asker) (end func(outcome), err error) {
	one, runs, isFirst, err := m.begin(who)
	if err != nil {
		return nil, err
	}
	if runs != nil && !isFirst {
		select {
		case <-runs:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if err := m.refused(one); err != nil {
			return nil, err
		}
	}
	return func(how outcome) { m.note(one, how, isFirst) }, nil
}

// begin returns the trial of credentials, and what is closed when the request has ended by which they are tried: by the first who
// comes, or nobody if they are known to be good.
func (m *memory) begin(who asker) (one *trial, runs chan struct{}, isFirst bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	one, ok := m.trials.get(who)
	if !ok {
		one = &trial{}
		m.trials.limit = maxTrials
		m.trials.put(who, one)
	}
	if err := one.refused(); err != nil {
		return nil, nil, false, err
	}
	if one.good {
		return one, nil, false, nil
	}
	if isFirst = one.runs == nil; isFirst {
		one.runs = make(chan struct{})
	}
	return one, one.runs, isFirst, nil
}

func (m *memory) refused(one *trial) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return one.refused()
}

// refused returns an error if the token server has just refused the credentials. The caller holds memory.mu.
func (t *trial) refused() error {
	if time.Now().Before(t.until) {
		return errCredentialsRefused(http.StatusUnauthorized)
	}
	return nil
}

// note notes how a request with the credentials has ended.
func (m *memory) note(one *trial, how outcome, isFirst bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch how {
	case good:
		one.good, one.until = true, time.Time{}
	case bad:
		one.good, one.until = false, time.Now().Add(refusedFor)
	}
	if isFirst {
		close(one.runs)
		one.runs = nil
	}
}
