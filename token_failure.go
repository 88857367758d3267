package authretry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// A failure is that of the last refresh, and what follows from it and from those before.
type failure struct {
	err   error
	until time.Time     // no refresh is started before
	delay time.Duration // that until was made from; grows

	final   *tokenError   // the last permanent error, or with which the token endpoint has asked to be left alone; nil if there was none
	finalTo time.Time     // Fetch is not called before with the grant that final is for
	wait    time.Duration // between looks into the Store for a better one; grows
}

const (
	minRetryDelay  = 100 * time.Millisecond
	maxRetryDelay  = 30 * time.Second
	minRefusedWait = 30 * time.Second // after a permanent error without a refresh token
	maxRefusedWait = 5 * time.Minute
	maxRetryAfter  = 5 * time.Minute
	minStoreWait   = time.Second // between looks into the Store for what another process may have put there
	maxStoreWait   = 30 * time.Second
)

// finalFor returns the error with which a refresh of previous has failed for good, or nil if it can be tried.
func (f *failure) finalFor(previous *oauth2.Token, now time.Time) error {
	if f.final != nil && f.final.grant == grantOf(previous) && now.Before(f.finalTo) {
		return f.final
	}
	return nil
}

// next returns what follows from err, when f is what followed from the refreshes before.
func (f failure) next(err error, current *knownToken, s *TokenSource, now time.Time) failure {
	f.err = err
	e, _ := err.(*tokenError)
	if e != nil && e == f.final && e.retryAfter > 0 { // the Store had nothing new, and the token endpoint is to be left alone still
		f.until = f.nextLook(s, now)
		return f
	}
	if !e.isPermanent() && (e == nil || !e.client) {
		f.delay = min(max(2*f.delay, minRetryDelay), maxRetryDelay)
		if err == error(errRefusedWhileFresh) {
			f.delay = min(f.delay, minStoreWait) // the token endpoint had no part in it
		}
		wait := s.jittered(f.delay)
		if current.usable(now) { // so as to be in time before it expires
			left := current.lifetime - now.Sub(current.received)
			wait = min(wait, max(left/4, min(current.lifetime/100, time.Second)))
		}
		if e != nil {
			wait = max(wait, e.retryAfter)
		}
		f.until = now.Add(wait)
		if e != nil && e.retryAfter > 0 && s.Store != nil { // others may be asked to wait less, and save what they get
			f.final, f.finalTo, f.wait = e, f.until, 0
			f.until = f.nextLook(s, now)
		}
		return f
	}
	switch {
	case e == f.final: // as before: the Store had nothing new
	case e.grant != "" && !e.client && !e.person: // RFC 6749 §5.2: the refresh token is of no use any more
		f.final, f.finalTo = e, now.Add(forever)
	default: // the client's own credentials, which somebody may put right, as they may what a person has to do
		f.delay = min(max(2*f.delay, minRefusedWait), maxRefusedWait)
		f.final, f.finalTo = e, now.Add(s.jittered(f.delay))
	}
	f.until = f.nextLook(s, now)
	return f
}

// nextLook returns when it is time for another refresh, which may only look into the Store.
func (f *failure) nextLook(s *TokenSource, now time.Time) time.Time {
	if s.Store != nil {
		f.wait = min(max(2*f.wait, minStoreWait), maxStoreWait)
		if look := now.Add(s.jittered(f.wait)); look.Before(f.finalTo) {
			return look
		}
	}
	return f.finalTo
}

// remembered returns the error for who comes too early for another refresh.
func (f *failure) remembered(now time.Time) error {
	left := f.until.Sub(now)
	e, ok := f.err.(*tokenError)
	if ok && e == f.final && e.retryAfter > 0 {
		left = f.finalTo.Sub(now)
	} else if ok && e.grant != "" && e == f.final {
		return f.err
	}
	if !ok || left < time.Second || left > maxRefusedWait+maxRefusedWait/5 {
		return f.err
	}
	later := *e
	later.text += fmt.Sprintf("; that is what a refresh has said before, and the next one is in %s", left.Round(time.Second))
	return &later
}

// jittered returns a duration between 0.8 and 1.2 of d.
func (s *TokenSource) jittered(d time.Duration) time.Duration {
	return time.Duration((0.8 + 0.4*s.chance()) * float64(d))
}

// chance returns a number at random, at least 0 and below 1.
func (s *TokenSource) chance() float64 {
	if s.random != nil {
		return s.random()
	}
	return rand.Float64()
}

// A tokenError says why there is no token. Its text is all that any formatting shows: what it wraps can have the token
// endpoint's answer and its URL in it, and the secrets that are in those.
type tokenError struct {
	text       string
	causes     []error
	grant      string        // the refresh token that was tried
	client     bool          // it is the client's credentials that were refused
	person     bool          // a person has to do something; the refresh token is tried again nevertheless
	retryAfter time.Duration // the server's wish
}

func (e *tokenError) Error() string   { return "authretry: " + e.text }
func (e *tokenError) Unwrap() []error { return e.causes }

// Format keeps the causes out of everything that package fmt prints.
func (e *tokenError) Format(f fmt.State, verb rune) {
	if verb == 'q' {
		fmt.Fprintf(f, "%q", e.Error())
		return
	}
	io.WriteString(f, e.Error())
}

// needsLogin reports whether a person who logs in can help with err.
func needsLogin(err error) bool {
	e, ok := errors.AsType[*tokenError](err)
	return errors.Is(err, ErrLoginRequired) && !(ok && e.client)
}

// isPermanent reports whether no retry can help. What it wraps may be of anybody's, and panic when it is asked.
func (e *tokenError) isPermanent() (permanent bool) {
	defer func() { _ = recover() }()
	return e != nil && errors.Is(e, ErrLoginRequired)
}

// A refusedError says why there is no other token than the one that a server has refused.
type refusedError struct {
	text string
	also error // what it wraps besides ErrCredentialsRefused; nil: nothing
}

func (e *refusedError) Error() string { return "authretry: " + e.text }

func (e *refusedError) Unwrap() []error {
	if e.also == nil {
		return []error{ErrCredentialsRefused}
	}
	return []error{ErrCredentialsRefused, e.also}
}

var (
	errRefusedWhileFresh = &refusedError{
		text: "the server refuses a token fresh from the token endpoint (see TokenSource.MinRefreshInterval)",
		also: ErrTokenRefused,
	}
	errLoginRefused = &refusedError{
		text: "the server refuses the token of the last login, and another login would be of no more use; see TokenSource.Login for when somebody is asked again",
		also: ErrTokenRefused,
	}
	errNoOtherToken = &refusedError{
		text: "there is no other token than the one that was refused, and TokenSource.Fetch is nil; set it, or call TokenSource.Set",
		also: ErrLoginRequired,
	}
	errLoggedOut = &tokenError{
		text:   "the login was ended (TokenSource.Logout); log in again and call TokenSource.Set",
		causes: []error{ErrLoginRequired},
	}
	errPersonNeeded = &tokenError{
		text:   "the server wants a fresher or stronger login (RFC 9470), which no refresh can give; log in again, or set TokenSource.Login",
		causes: []error{ErrLoginRequired, ErrCredentialsRefused},
	}
	errGivenUp = &tokenError{
		text:   "nobody has logged in: all who waited have given up, more than once; nobody is asked again before TokenSource.MinRefreshInterval is over",
		causes: []error{ErrLoginRequired},
	}
	errNoLogin   = fmt.Errorf("%w: TokenSource.Login is nil, so that nobody can be asked", ErrLoginRequired)
	errNoFetch   = fmt.Errorf("%w: there is no usable token, and TokenSource.Fetch is nil; set Fetch or Login, or call TokenSource.Set", ErrLoginRequired)
	errSameToken = &tokenError{
		text:   "TokenSource.Fetch returned the same token again where another one was needed; it must not cache tokens, and FromFile needs another one in the file",
		causes: []error{ErrCredentialsRefused},
	}
	errSpent = &tokenError{
		text:   "the refresh token has been used, and what came of it is lost; a new login is required",
		causes: []error{ErrLoginRequired},
	}
	errForgotten       = errors.New("authretry: there was a Logout since the refresh began")
	errComing          = errors.New("authretry: an earlier refresh has a token that is not in use yet")
	errReplaced        = errors.New("authretry: the token has been replaced while it was to be refreshed")
	errStillRefreshing = errors.New("authretry: earlier refreshes have not returned from TokenSource.Store or Fetch")
	errStillFetching   = errors.New("authretry: an earlier call of TokenSource.Fetch has not returned, although its context has ended")
	errOwnLogout       = errors.New("authretry: TokenSource.Logout is called by a refresh of that very source, whose Store it would wait for")
	errRecursion       = errors.New("authretry: the request for a token needs that very token: its client must not be one that uses this TokenSource")
)

// failed is the error for a Fetch of a successor of previous that failed with err.
func failed(err error, previous *oauth2.Token) *tokenError {
	e := &tokenError{text: "no new token could be obtained", causes: []error{err}, grant: grantOf(previous)}
	if cause := withoutLogin(describeCause(err, previous)); cause != "" {
		e.text += ": " + cause
	}
	permanent := errors.Is(err, ErrLoginRequired)
	r, isRefusal := errors.AsType[*oauth2.RetrieveError](err)
	if isRefusal {
		e.retryAfter = retryAfter(r.Response)
		switch {
		case isGrantRefused(r), isPersonNeeded(r):
			permanent, e.person = true, isPersonNeeded(r)
			e.causes = []error{ErrLoginRequired, err}
		case isClientsFault(r):
			e.client = true
			if e.grant == "" { // it is the client's credentials that are the grant
				e.causes = []error{ErrLoginRequired, err}
			}
		}
	}
	if _, ok := errors.AsType[*unusedClientError](err); ok {
		e.text += "; the HTTP client in the caller's context (oauth2.HTTPClient) is not used for this: set TokenSource.HTTPClient"
	}
	switch {
	case e.client:
		e.text += "; put the client's credentials right"
	case permanent && e.grant == "" && isRefusal && isGrantRefused(r): // of JWTBearer or TokenExchange, of which the next call has another
		e.text += "; the assertion or token that was presented is not good there; present another, or log in and call TokenSource.Set"
	case permanent:
		e.text += "; log in again and call TokenSource.Set"
	}
	return e
}

// isOutOfOrder reports whether a Fetch that was to get more than there was has failed for a reason that concerns everybody: the token
// endpoint cannot be asked at present.
func isOutOfOrder(err error) (is bool) {
	defer func() { _ = recover() }() // err may be of anybody's
	if r, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return r.Response != nil && (r.Response.StatusCode >= 500 || r.Response.StatusCode == http.StatusTooManyRequests)
	}
	_, unreachable := errors.AsType[net.Error](err) // as a *url.Error is
	return unreachable || errors.Is(err, context.DeadlineExceeded)
}

// withoutLogin leaves out of a cause what failed says at the end.
func withoutLogin(cause string) string {
	needed := strings.TrimPrefix(ErrLoginRequired.Error(), "authretry: ")
	if cause == needed {
		return ""
	}
	return strings.TrimPrefix(cause, needed+": ")
}

// sourceFailed is the error for a Bearer.Source, other than a TokenSource, that failed.
func sourceFailed(err error) error {
	e := &tokenError{text: "Bearer.Source has no token: " + describeCause(err), causes: []error{err}}
	if r, ok := errors.AsType[*oauth2.RetrieveError](err); ok && (isGrantRefused(r) || isPersonNeeded(r)) {
		e.causes = []error{ErrLoginRequired, err}
	}
	return e
}

// isGrantRefused reports whether the token endpoint has refused the refresh token for good (RFC 6749 §5.2; GitHub has a code of
// its own). Anything else that it, or somebody in front of it, says may pass.
func isGrantRefused(r *oauth2.RetrieveError) bool {
	return r.ErrorCode == "invalid_grant" || r.ErrorCode == "bad_refresh_token"
}

// isPersonNeeded reports whether the token endpoint wants a person to log in, or to agree to something (the codes are those of OpenID Connect
// Core §3.1.2.6). Microsoft Entra says so in answer to a refresh token that is as good as before: where another factor is demanded from
// where the program is now, for instance.
func isPersonNeeded(r *oauth2.RetrieveError) bool {
	return r.ErrorCode == "interaction_required" || r.ErrorCode == "login_required" || r.ErrorCode == "consent_required"
}

// isClientsFault reports whether the token endpoint has refused the client, which only somebody can put right.
func isClientsFault(r *oauth2.RetrieveError) bool {
	return r.ErrorCode == "invalid_client" || r.ErrorCode == "unauthorized_client"
}

// waitError is the error for a wait that ended with ctx. Its cause is what net/http returns, too.
func waitError(ctx context.Context, what string) error {
	return fmt.Errorf("authretry: gave up waiting for %s: %w", what, context.Cause(ctx))
}

// notSaved is the error for a token that the Store failed to save.
func notSaved(err error, k *knownToken, before *oauth2.Token) error {
	of := []*oauth2.Token{k.token, before, {RefreshToken: k.from}} // a Store may quote what it was to replace
	if u := k.unsaved.Load(); u != nil && u.has != nil {
		of = append(of, u.has.Token)
	}
	return &tokenError{text: "the new token is in use, but could not be saved: " + describeCause(err, of...), causes: []error{ErrNotSaved, err}}
}

// storeFailed is the error for a Store that could not be read or locked.
func storeFailed(err error, of ...*oauth2.Token) error {
	return &tokenError{text: "the TokenStore failed: " + describeCause(err, of...), causes: []error{err}}
}

// panicked is the error for a panic in a callback. Its text leaves out values that could be secrets, and says where it was. It is to be
// called by the function that recovered.
func panicked(value any) error {
	return &tokenError{text: panicTextOf("a callback for tokens (Fetch, Login, Store, OnToken, ...)", value),
		causes: []error{&Rejection{Reason: ReasonMisconfigured}}}
}

// describeCause returns a text for err that has no secret: neither what the token endpoint has answered, but for the
// error code, nor URLs, nor anything of the tokens that it may be about.
func describeCause(err error, of ...*oauth2.Token) string {
	return describeCauseAt("token", err, of...)
}

// describeCauseAt does that for another endpoint of the authorization server.
func describeCauseAt(endpoint string, err error, of ...*oauth2.Token) string {
	shows := func(text string) bool {
		return slices.ContainsFunc(of, func(t *oauth2.Token) bool {
			return t != nil && (contains(text, t.AccessToken) || contains(text, t.RefreshToken))
		})
	}
	if r, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return describeAnswer(endpoint, r, isErrorCode(r.ErrorCode) && (answerCodes[r.ErrorCode] || !shows(r.ErrorCode)))
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "it took too long (see TokenSource.FetchTimeout)"
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		cause, where := describeCauseAt(endpoint, u.Err, of...), ""
		if at, _ := url.Parse(u.URL); at != nil && !strings.Contains(cause, at.Host) {
			where = atHost(at)
		}
		return "the " + endpoint + " endpoint" + where + " could not be reached: " + cause
	}
	text := withoutQuotes(err.Error())
	switch {
	case strings.Contains(text, "oauth2: cannot "): // goes on with parts of the answer
		return "the " + endpoint + " endpoint's answer could not be read; check its URL"
	case shows(text):
		return fmt.Sprintf("an error of type %T, which is not shown because a token is in its text", err)
	}
	return strings.TrimPrefix(printable(text), "authretry: ")
}

// describeAnswer names the status of an endpoint's answer, and the error code if that can be shown.
func describeAnswer(endpoint string, r *oauth2.RetrieveError, showsCode bool) string {
	text := "the " + endpoint + " endpoint"
	if r.Response == nil {
		text += " answered"
	} else {
		if req := r.Response.Request; req != nil {
			text += atHost(req.URL)
		}
		text += " answered " + strconv.Itoa(r.Response.StatusCode)
	}
	switch {
	case showsCode:
		text += " " + strconv.Quote(r.ErrorCode) + answerHints[r.ErrorCode]
	case r.ErrorCode != "":
		text += " with a text in place of an error code"
	case r.Response != nil && r.Response.StatusCode < 500 && r.Response.StatusCode != http.StatusTooManyRequests:
		text += ", and names no error of OAuth 2.0; check its URL"
	}
	return text
}

// atHost names the host of an endpoint.
func atHost(u *url.URL) string {
	if u == nil || u.Host == "" {
		return ""
	}
	return " at " + printable(cutTo(maxOriginText, u.Host))
}

// isErrorCode reports whether a text has the form of an error code: short, of letters and a few signs, without digits. Any other is not
// shown: it may be what the request had, secrets too.
func isErrorCode(s string) bool {
	const most = 40
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte("_-.:/ ", c) >= 0) {
			return false
		}
	}
	return 0 < len(s) && len(s) <= most
}

// answerCodes are the error codes that are shown although a token may be a part of them, of one letter for instance (RFC 6749 §5.2).
var answerCodes = map[string]bool{"invalid_request": true, "invalid_client": true, "invalid_grant": true, "unauthorized_client": true,
	"unsupported_grant_type": true, "invalid_scope": true}

// answerHints says of error codes what to look at, where their names do not.
var answerHints = map[string]string{
	"unauthorized_client": " (the client may not use this grant)",
	"invalid_target":      " (not for this resource, RFC 8707)",
	"invalid_dpop_proof":  " (RFC 9449: see TokenEndpoint.Proof)",
	"use_dpop_nonce":      " (RFC 9449: see TokenEndpoint.Proof)",
}

func contains(text, secret string) bool {
	return len(secret) >= leastSecret && strings.Contains(text, secret)
}

// printable cuts a text of others down to one line of printable ASCII.
func printable(s string) string {
	const limit = 300
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return strings.Map(func(r rune) rune {
		if (r < ' ' || r > '~') && r != '§' { // which our own errors have
			return '?'
		}
		return r
	}, s)
}

// grantOf returns what a refresh of t is tried with.
func grantOf(t *oauth2.Token) string {
	if t == nil {
		return ""
	}
	return t.RefreshToken
}
