package authretry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// A FetchFunc gets a new token, from an authorization server or elsewhere. It is called by one goroutine at a time, with
// a context that ends after [TokenSource.FetchTimeout] and carries the values of the context of whoever needed the
// token first. It must not modify what r points to.
//
// An error that wraps [ErrLoginRequired], or is an *oauth2.RetrieveError with a status of 4xx other than 408 and 429,
// is permanent for r.Previous's refresh token; others are transient. The text of an error may end up in the
// caller's log, so it must not carry a secret. That of an *oauth2.RetrieveError or *url.Error, which can, is not used.
type FetchFunc func(ctx context.Context, r TokenRequest) (*oauth2.Token, error)

// A TokenRequest says what a new token is for.
type TokenRequest struct {
	// Previous is the token to be replaced, with the newest refresh token that is known; nil if there is none.
	Previous *oauth2.Token

	// Challenge is the one with which the server refused Previous: its scope, error, claims or resource_metadata may
	// say what is wanted (RFC 6750 §3, RFC 9728 §5.1). It is nil if there was none.
	Challenge *Challenge
}

// Format keeps tokens out of everything that package fmt prints.
func (r TokenRequest) Format(f fmt.State, verb rune) { formatShown(f, "authretry.TokenRequest") }

// MarshalJSON keeps tokens out of JSON.
func (r TokenRequest) MarshalJSON() ([]byte, error) { return marshalShown() }

// RefreshGrant returns a FetchFunc that uses the refresh token of the previous token (RFC 6749 §6). If the answer has
// no new refresh token, the new token keeps the old one. Without one, the error wraps [ErrLoginRequired].
//
// The request is sent by a client that retries a few times, briefly, on connection errors, 429 and 5xx, and does not
// follow redirects; or by the one that the context has under oauth2.HTTPClient. Of cfg, the authorization code
// part is not used. If cfg.Endpoint.AuthStyle is not set, the client authenticates itself by the header (RFC 6749 §2.3.1),
// or by parameters if it has no secret; and in the other way if the server does not take that.
func RefreshGrant(cfg *oauth2.Config) FetchFunc {
	if cfg == nil {
		return misconfigured("RefreshGrant")
	}
	client := newTokenClient()
	style := newAuthStyle(cfg.Endpoint.AuthStyle, cfg.ClientSecret)
	return func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
		if r.Previous == nil || r.Previous.RefreshToken == "" {
			return nil, fmt.Errorf("%w: there is no refresh token", ErrLoginRequired)
		}
		ctx = withTokenClient(ctx, client)
		return style.try(func(s oauth2.AuthStyle) (*oauth2.Token, error) {
			c := oauth2.Config{ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret, Endpoint: cfg.Endpoint, Scopes: cfg.Scopes}
			c.Endpoint.AuthStyle = s
			return c.TokenSource(ctx, &oauth2.Token{RefreshToken: r.Previous.RefreshToken}).Token()
		})
	}
}

// ClientCredentialsGrant returns a FetchFunc that uses the client's own credentials (RFC 6749 §4.4). For the rest, see
// [RefreshGrant].
func ClientCredentialsGrant(cfg *clientcredentials.Config) FetchFunc {
	if cfg == nil {
		return misconfigured("ClientCredentialsGrant")
	}
	client := newTokenClient()
	style := newAuthStyle(cfg.AuthStyle, cfg.ClientSecret)
	return func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
		ctx = withTokenClient(ctx, client)
		return style.try(func(s oauth2.AuthStyle) (*oauth2.Token, error) {
			c := clientcredentials.Config{
				ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret, TokenURL: cfg.TokenURL,
				Scopes: cfg.Scopes, EndpointParams: cfg.EndpointParams, AuthStyle: s,
			}
			return c.Token(ctx)
		})
	}
}

func misconfigured(name string) FetchFunc {
	return func(context.Context, TokenRequest) (*oauth2.Token, error) {
		return nil, fmt.Errorf("%w: %s was called with nil", ErrLoginRequired, name)
	}
}

// An authStyle is the way in which a client authenticates itself to a token endpoint. What package oauth2 does
// about an unknown one is not for us: it tries the second way after any error, and so spends a refresh token twice.
type authStyle struct {
	known  atomic.Int32 // an oauth2.AuthStyle; 0 if it is not known yet
	likely oauth2.AuthStyle
}

func newAuthStyle(configured oauth2.AuthStyle, secret string) *authStyle {
	s := &authStyle{likely: oauth2.AuthStyleInHeader} // which all servers must support for secrets (RFC 6749 §2.3.1)
	if secret == "" {
		s.likely = oauth2.AuthStyleInParams // a public client says its client_id only (§3.2.1)
	}
	s.known.Store(int32(configured))
	return s
}

// try calls get with the known style; or with the likely one, and with the other if the server's answer says that it
// did not recognize the client, in which case it has not looked at the grant.
func (s *authStyle) try(get func(oauth2.AuthStyle) (*oauth2.Token, error)) (*oauth2.Token, error) {
	if known := oauth2.AuthStyle(s.known.Load()); known != oauth2.AuthStyleAutoDetect {
		return get(known)
	}
	style := s.likely
	t, err := get(style)
	if isClientRefused(err) {
		style = oauth2.AuthStyleInParams + oauth2.AuthStyleInHeader - style
		t, err = get(style)
	}
	if err == nil {
		s.known.Store(int32(style))
	}
	return t, err
}

func isClientRefused(err error) bool {
	e, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok || e.Response == nil {
		return false
	}
	switch e.ErrorCode {
	case "invalid_client", "invalid_request", "unauthorized_client":
		return true
	case "":
		return e.Response.StatusCode == http.StatusUnauthorized // as invalid_client is in RFC 6749 §5.2
	}
	return false
}

// withTokenClient puts client into the context, unless it has one for this purpose.
func withTokenClient(ctx context.Context, client *http.Client) context.Context {
	if _, ok := ctx.Value(oauth2.HTTPClient).(*http.Client); ok {
		return ctx
	}
	return context.WithValue(ctx, oauth2.HTTPClient, client)
}

// newTokenClient returns the client that the grants use: http.DefaultTransport, with a few short retries.
//
// A refresh grant is retried even if the connection broke after the request was written, when the server may have
// rotated the refresh token and may take the next request for theft (RFC 9700 §4.14.2). But all that could be done
// instead is to log in again, or to send the same refresh token later; and servers that forgive a repetition, for
// just this reason, do so for a short time. So a prompt retry is the one with the best chances.
func newTokenClient() *http.Client {
	// A redirect would take the client's secret and the refresh token elsewhere (RFC 9700 §4.12).
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	retrying := &retryablehttp.Client{
		HTTPClient:   &http.Client{Transport: defaultTransport{}, CheckRedirect: stay},
		RetryMax:     3,
		RetryWaitMin: 100 * time.Millisecond,
		RetryWaitMax: time.Second,
		CheckRetry:   retryTokenRequest,
		Backoff:      retryablehttp.DefaultBackoff,
		ErrorHandler: lastTokenResponse,
	}
	return &http.Client{Transport: &retryablehttp.RoundTripper{Client: retrying}, CheckRedirect: stay}
}

// defaultTransport is http.DefaultTransport without CloseIdleConnections: go-retryablehttp calls that when it gives up,
// and would close the connections of the whole program.
type defaultTransport struct{}

func (defaultTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return http.DefaultTransport.RoundTrip(req)
}

// retryTokenRequest decides on retries as go-retryablehttp does, but leaves long waits to the TokenSource, which does
// not keep its callers waiting meanwhile, and knows a request that can never succeed.
func retryTokenRequest(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if _, ok := errors.AsType[*Rejection](err); ok || errors.Is(err, errRecursion) {
		return false, nil
	}
	if retryAfter(resp) > 2*time.Second {
		return false, nil
	}
	return retryablehttp.DefaultRetryPolicy(ctx, resp, err)
}

// lastTokenResponse lets the last response through, for the error that the server may state in it.
func lastTokenResponse(resp *http.Response, err error, _ int) (*http.Response, error) {
	if err != nil && resp != nil {
		resp.Body.Close()
		resp = nil
	}
	return resp, err
}

// retryAfter returns how long the server asks to be left alone (RFC 9110 §10.2.3), or 0.
func retryAfter(resp *http.Response) time.Duration {
	if resp == nil || resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	value := resp.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil {
		return min(time.Duration(max(seconds, 0))*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(time.Until(at), 0), maxRetryAfter)
	}
	return 0
}

// A tokenError says why there is no token. Its text is all that any formatting shows: what it wraps can have the token
// endpoint's answer and its URL in it, and the secrets that are in those.
type tokenError struct {
	text       string
	causes     []error
	grant      string        // the refresh token that was tried
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

// isPermanent reports whether only a new login can help.
func (e *tokenError) isPermanent() bool {
	return e != nil && errors.Is(e, ErrLoginRequired)
}

var errSameToken = &tokenError{
	text:   "TokenSource.Fetch returned the same token again where another one was needed; it must not cache tokens",
	causes: []error{ErrTokenRefused},
}

// failed is the error for a Fetch of a successor of previous that failed with err.
func failed(err error, previous *oauth2.Token) error {
	e := &tokenError{text: "no new token could be obtained: " + describeCause(err, previous), causes: []error{err}, grant: grantOf(previous)}
	permanent := errors.Is(err, ErrLoginRequired)
	if r, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		e.retryAfter = retryAfter(r.Response)
		if isPermanentAnswer(r) {
			permanent = true
			e.causes = []error{ErrLoginRequired, err}
		}
	}
	if permanent {
		e.text += "; log in again and call TokenSource.Set"
		if e.grant == "" {
			e.text += ", or put the client's credentials right"
		}
	}
	return e
}

// sourceFailed is the error for a Bearer.Source, other than a TokenSource, that failed.
func sourceFailed(err error) error {
	e := &tokenError{text: "Bearer.Source has no token: " + describeCause(err, nil), causes: []error{err}}
	if r, ok := errors.AsType[*oauth2.RetrieveError](err); ok && isPermanentAnswer(r) {
		e.causes = []error{ErrLoginRequired, err}
	}
	return e
}

// isPermanentAnswer reports whether the token endpoint has refused the grant for good (RFC 6749 §5.2). Some servers do
// so with a status of 200.
func isPermanentAnswer(r *oauth2.RetrieveError) bool {
	switch r.ErrorCode {
	case "temporarily_unavailable", "server_error", "slow_down":
		return false
	case "invalid_grant", "invalid_client", "unauthorized_client":
		return true
	}
	if r.Response == nil {
		return r.ErrorCode != ""
	}
	switch status := r.Response.StatusCode; {
	case status == http.StatusRequestTimeout || status == http.StatusTooEarly || status == http.StatusTooManyRequests:
		return false
	case 200 <= status && status < 300:
		return r.ErrorCode != ""
	default:
		return 400 <= status && status < 500
	}
}

// notSaved is the error for a token that the Store failed to save.
func notSaved(err error, t *oauth2.Token) error {
	return &tokenError{text: "the new token is in use, but could not be saved: " + describeCause(err, t), causes: []error{err}}
}

// storeFailed is the error for a Store that could not be read or locked.
func storeFailed(err error, t *oauth2.Token) error {
	return &tokenError{text: "the TokenStore failed: " + describeCause(err, t), causes: []error{err}}
}

// panicked is the error for a panic in a callback. Its text leaves out values that could be secrets.
func panicked(value any) error {
	text := fmt.Sprintf("a callback for tokens panicked with a value of type %T", value)
	if err, ok := value.(runtime.Error); ok {
		text = "a callback for tokens panicked: " + err.Error()
	}
	return &tokenError{text: text}
}

// describeCause returns a text for err that has no secret: neither what the token endpoint has answered, but for the
// error code, nor URLs, nor anything of the token t.
func describeCause(err error, t *oauth2.Token) string {
	if r, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return describeAnswer(r)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "it took too long (see TokenSource.FetchTimeout)"
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		return "the token endpoint could not be reached: " + describeCause(u.Err, t)
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "oauth2: cannot "): // goes on with parts of the answer
		return "the token endpoint's answer could not be read"
	case t != nil && (contains(text, t.AccessToken) || contains(text, t.RefreshToken)):
		return fmt.Sprintf("an error of type %T that carries a token in its text", err)
	}
	return strings.TrimPrefix(printable(text), "authretry: ")
}

// describeAnswer names the status and the error code of a token endpoint's answer.
func describeAnswer(r *oauth2.RetrieveError) string {
	text := "the token endpoint answered"
	if r.Response != nil {
		text += " " + strconv.Itoa(r.Response.StatusCode)
	}
	if r.ErrorCode != "" {
		text += " " + strconv.Quote(printable(r.ErrorCode))
	}
	return text
}

func contains(text, secret string) bool { return secret != "" && strings.Contains(text, secret) }

// printable cuts a text of others down to one line of printable ASCII.
func printable(s string) string {
	const limit = 300
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
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

// checkToken returns an error if t cannot be sent as a Bearer token (RFC 6750 §2.1). Visible ASCII passes, where the
// RFC allows less: there are issuers who need it.
func checkToken(t *oauth2.Token) error {
	switch {
	case t == nil:
		return &tokenError{text: "neither a token nor an error was returned"}
	case t.AccessToken == "":
		return &tokenError{text: "the new token has no access token"}
	case t.TokenType != "" && !equalFoldASCII(t.TokenType, "Bearer"):
		return &tokenError{text: "the new token is of the type " + strconv.Quote(printable(t.TokenType)) + ", and only Bearer can be sent (RFC 6750)"}
	}
	for i := range len(t.AccessToken) {
		if c := t.AccessToken[i]; c <= ' ' || c > '~' {
			return &tokenError{text: "the access token has a character that cannot be sent (RFC 6750 §2.1)"}
		}
	}
	return nil
}
