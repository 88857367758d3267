package schemetest

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/authretry/authretry"
)

// A watchedSession is a Session of which each call is watched.
type watchedSession struct {
	authretry.Session
	t *trial
}

// Authorize implements authretry.Session.
func (s *watchedSession) Authorize(req *http.Request) error {
	ctx, leave := s.t.enter(req.Context(), "Authorize")
	defer leave()
	own := req.WithContext(ctx)
	before := showUnsent(own, s.t.bodyOf(own))
	err := s.Session.Authorize(own)
	if use := before.useOf(); use != "" {
		s.t.broken(clauseBody, "Authorize has %s req.Body", use)
	}
	changed, added := before.hide(true)
	c := clauseAuthorize
	if len(changed) == 1 && strings.HasPrefix(changed[0], "its header") {
		c = clauseCallers
	}
	s.t.unchanged(c, "Authorize", "the request", changed)
	req.Header = own.Header
	s.t.judge(ctx, "Authorize", err)
	s.t.authorized(req, added)
	return err
}

// Learn implements authretry.Learner. For a Session that is none it says not to keep it, which comes to the same.
func (s *watchedSession) Learn(resp *http.Response, refused bool) (keep bool, err error) {
	learner, ok := s.Session.(authretry.Learner)
	if !ok {
		return false, nil
	}
	ctx, leave := s.t.enter(context.Background(), "Learn")
	defer leave()
	own, body := resp.Body, newWatchedBody("ok\n")
	status, header := resp.StatusCode, resp.Header.Clone()
	before := show(resp.Request)
	resp.Body = body
	keep, err = learner.Learn(resp, refused)
	if body.use != "" {
		s.t.broken(clauseLearn, "Learn has %s resp.Body", body.use)
	}
	resp.Body = own
	changed, _ := before.hide(false)
	s.t.unchanged(clauseShown, "Learn", "the response's Request", changed)
	s.t.unchanged(clauseShown, "Learn", "the response", changedResponse(resp, status, header))
	s.t.judge(ctx, "Learn", err)
	return keep, err
}

type exclusive struct{}

func (exclusive) Exclusive() {}

type covers struct{ s *watchedSession }

// Covers implements authretry.Covers.
func (c covers) Covers(u *url.URL) bool {
	_, leave := c.s.t.enter(context.Background(), "Covers")
	defer leave()
	before := *u
	covered := c.s.Session.(authretry.Covers).Covers(u)
	if *u != before {
		c.s.t.broken(clauseShown, "Covers has changed the URL")
		*u = before
	}
	return c.s.t.sameCover(c.s.Session, u, covered)
}

type carries struct{ s *watchedSession }

// Carry implements authretry.Carrier.
func (c carries) Carry(ctx context.Context, base http.RoundTripper) (http.RoundTripper, error) {
	ctx, leave := c.s.t.enter(ctx, "Carry")
	defer leave()
	by, err := c.s.Session.(authretry.Carrier).Carry(ctx, base)
	c.s.t.judge(ctx, "Carry", err)
	return by, err
}

// session returns a watched Session, which implements what s does of that which a Transport asks for.
func (t *trial) session(method string, s authretry.Session) authretry.Session {
	if s == nil {
		return nil
	}
	_, isExclusive := s.(authretry.Exclusive)
	_, isCovers := s.(authretry.Covers)
	_, isCarrier := s.(authretry.Carrier)
	if isExclusive && !t.isNew(s) {
		t.broken(clauseExclusive, "%s returned an Exclusive Session again", method)
	}
	t.remember(s, isExclusive, isCarrier)
	w := &watchedSession{s, t}
	switch {
	case isExclusive && isCovers && isCarrier:
		return struct {
			*watchedSession
			exclusive
			covers
			carries
		}{w, exclusive{}, covers{w}, carries{w}}
	case isExclusive && isCovers:
		return struct {
			*watchedSession
			exclusive
			covers
		}{w, exclusive{}, covers{w}}
	case isExclusive && isCarrier:
		return struct {
			*watchedSession
			exclusive
			carries
		}{w, exclusive{}, carries{w}}
	case isCovers && isCarrier:
		return struct {
			*watchedSession
			covers
			carries
		}{w, covers{w}, carries{w}}
	case isExclusive:
		return struct {
			*watchedSession
			exclusive
		}{w, exclusive{}}
	case isCovers:
		return struct {
			*watchedSession
			covers
		}{w, covers{w}}
	case isCarrier:
		return struct {
			*watchedSession
			carries
		}{w, carries{w}}
	}
	return w
}
