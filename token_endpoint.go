package authretry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/authretry/authretry/internal/returning"
	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/oauth2"
)

// A TokenEndpoint is where an authorization server issues tokens (RFC 6749 §3.2), and what one client says there. A method
// for each grant returns a [FetchFunc]:
//
//	endpoint := &authretry.TokenEndpoint{
//		URL:      "https://auth.example.com/token",
//		ClientID: "my-app",
//		Auth:     authretry.SecretBasic(secret),
//		Params:   url.Values{"resource": {"https://api.example.com"}},
//	}
//	tokens := &authretry.TokenSource{Fetch: endpoint.Refresh(), Store: filestore.New(path)}
//
// A request is sent again on connection errors, 429 and 5xx other than 501, three times at most within some seconds, and not if
// the server asks for a longer wait (Retry-After) than two; each time with new proofs and assertions. An authorization code
// and a device code are sent once, and once more with a nonce that the server asks for (RFC 9449 §8): whoever sends a code again may end
// the login that it has brought (RFC 6749 §4.1.2), and a device must not ask too often. Redirects are not followed. At most 1 MiB of an answer is read, in JSON or form-encoded, as
// package oauth2 does; but a JSON object is taken for one whatever its Content-Type. Errors of the server are *oauth2.RetrieveError.
//
// It is safe for concurrent use. It must not be changed after its first use.
type TokenEndpoint struct {
	// URL is that of the token endpoint. It must be https, or http to this machine, unless AllowPlaintext is set.
	URL string

	// ClientID is the client's name.
	ClientID string

	// Auth authenticates the client. If it is nil, the client is a public one, which says its ClientID only.
	Auth ClientAuth

	// Params are sent with each request besides what the grant needs, such as resource (RFC 8707) or audience. They must not
	// name what the grant or Auth sends. If there is one resource, and it is an http or https URL, a [Bearer] sends the token
	// to the origin of that only.
	Params url.Values

	// Issuer is the authorization server's own name (RFC 8414 §2), if it is known: the audience of assertions, and saved
	// with the login.
	Issuer string

	// Proof binds tokens to a key, by which each use of them has to be proven (RFC 9449): a *dpop.Key. A server that then
	// issues a token of another type has not understood: that is an error. A server that asks for a nonce gets the request
	// once more, unless it asks for the nonce that the proof had.
	Proof Prover

	// FormerURLs are other URLs at which refresh tokens were issued that may be sent to this one, as when the server has
	// moved. Any other refresh token that is known to have been issued elsewhere is not sent.
	FormerURLs []string

	// WidensOnRefresh says that a refresh can bring more scope than was granted, as at Microsoft Entra. If false, such a
	// demand needs a login (RFC 6749 §6), and the error wraps [ErrLoginRequired].
	WidensOnRefresh bool

	// HTTPClient sends the requests, once each, without the retries above. If it is nil, [TokenSource.HTTPClient] does; and if
	// that is nil, a client of our own over http.DefaultTransport. For mutual TLS (RFC 8705) set one with the client's certificate,
	// and as URL the one of the server's mtls_endpoint_aliases, if it has that; Auth is nil then.
	HTTPClient *http.Client

	// Base is what the client of our own is over, in place of http.DefaultTransport and of TokenSource.HTTPClient, with the
	// retries above. It does not count if HTTPClient is set.
	Base http.RoundTripper

	// AllowPlaintext lets the client's credentials and refresh tokens go over plain http to any host.
	AllowPlaintext bool
}

// A Prover proves that whoever uses a token has the key to which it is bound (RFC 9449). It must be safe for concurrent use.
type Prover interface {
	// Prove puts a proof for this send of req into its header. accessToken is "" at a token endpoint.
	Prove(req *http.Request, accessToken string) error

	// Learn sees each response to what was proven, and learns its nonce. It must not read the body.
	Learn(resp *http.Response)

	// Thumbprint returns the SHA-256 thumbprint of the public key (RFC 7638), by which a saved login is known to be bound to it.
	Thumbprint() string
}

const (
	maxTokenRetries = 3
	minTokenBackoff = 100 * time.Millisecond
	maxTokenBackoff = time.Second
	maxTokenAnswer  = 1 << 20
)

// fetch sends a request for a token and reads the answer.
func (e *TokenEndpoint) fetch(ctx context.Context, grant url.Values) (*oauth2.Token, error) {
	if err := e.check(grant); err != nil {
		return nil, err
	}
	form, retries := make(url.Values, len(grant)+len(e.Params)+2), maxTokenRetries
	for _, params := range []url.Values{grant, e.Params} {
		for name, values := range params {
			form[name] = values
		}
	}
	if grant.Has("code") || grant.Has("device_code") {
		retries = 0
	}
	answer, err := e.send(ctx, e.URL, form, retries)
	if err != nil {
		return nil, err
	}
	known := &Record{Issuer: e.Issuer, TokenURL: e.URL, ClientID: e.ClientID}
	if resources := slices.Concat(e.Params["resource"], grant["resource"]); len(resources) == 1 {
		known.Resource = resources[0]
	}
	if e.Proof != nil {
		known.KeyThumbprint = e.Proof.Thumbprint()
	}
	t, err := answer.token(known)
	if err != nil {
		if refreshToken := answer.fields.RefreshToken; refreshToken != "" {
			return &oauth2.Token{RefreshToken: refreshToken}, err // the one before may be spent
		}
		return nil, err
	}
	if t.RefreshToken == "" {
		t.RefreshToken = grant.Get("refresh_token")
	}
	if e.Proof != nil && !equalFoldASCII(t.TokenType, "DPoP") {
		t.AccessToken = ""
		return t, fmt.Errorf("authretry: the token endpoint has issued a token of type %q, although the proof asked for one that is bound to a key (RFC 9449 §5); if the server has no DPoP, leave TokenEndpoint.Proof nil, and take a Bearer as the Scheme", printable(t.TokenType))
	}
	return t, nil
}

// Validate says what is wrong with the fields, as far as that can be told without asking anybody: the URL, Params, and, if it has a
// method Validate() error as a [PrivateKeyJWT] has, Auth. A program that calls it when it starts need not wait for the first token to
// hear that. The fields must not be changed any more after it.
func (e *TokenEndpoint) Validate() error {
	if e == nil {
		return errors.New("authretry: the TokenEndpoint is nil")
	}
	if err := e.check(url.Values{"grant_type": nil}); err != nil {
		return err
	}
	u, _ := url.Parse(e.URL)
	if u.Scheme != "https" && !e.AllowPlaintext && !originOf(u).isLoopback() {
		return fmt.Errorf("authretry: TokenEndpoint.URL: %w", errPlaintextEndpoint)
	}
	switch auth := e.Auth.(type) {
	case *clientSecret, *PrivateKeyJWT: // an assertion says who the client is by itself (RFC 7521 §4.2)
		if e.ClientID == "" {
			return errors.New("authretry: TokenEndpoint.ClientID is empty, and Auth needs it")
		}
		if s, ok := auth.(*clientSecret); ok {
			return s.check()
		}
	}
	if v, ok := e.Auth.(interface{ Validate() error }); ok {
		return v.Validate()
	}
	return nil
}

// check reports mistakes in the fields.
func (e *TokenEndpoint) check(grant url.Values) error {
	if !isHTTP(e.URL) {
		return errors.New("authretry: TokenEndpoint.URL is not an http or https URL (in a config of package oauth2: TokenURL)")
	}
	for name := range e.Params {
		if _, taken := grant[name]; taken || slices.Contains(ofTheClient, name) {
			return fmt.Errorf("authretry: TokenEndpoint.Params has %q, which the grant or Auth sends", printable(name))
		}
	}
	return nil
}

func isHTTP(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http")
}

// ofTheClient are the parameters by which a client authenticates itself.
var ofTheClient = []string{"client_id", "client_secret", "client_assertion", "client_assertion_type"}

// send sends a form, and who the client is, until there is an answer to keep: again after a failure that may pass, as often as
// retries says if it is our own client.
func (e *TokenEndpoint) send(ctx context.Context, to string, form url.Values, retries int) (*tokenAnswer, error) {
	client := e.client(ctx)
	switch {
	case e.HTTPClient == nil && e.Base != nil:
		client = &http.Client{Transport: e.Base}
	case client != nil:
		retries = 0
	default:
		client = plainTokenClient
	}
	client = returning.Client(client) // a redirect would take the client's secret and the refresh token elsewhere (RFC 9700 §4.12)
	auth, proven := e.auth(), false
	for sends := 0; ; sends++ {
		if sends > 0 { // before the first, the TokenSource has done it
			if err := Confirm(ctx); err != nil {
				return nil, err
			}
		}
		req, err := e.request(ctx, auth, to, form)
		if err != nil {
			return nil, err
		}
		if !e.isSafe(client, req) {
			return nil, errPlaintextEndpoint
		}
		answer, err := sendTokenRequest(client, req)
		var resp *http.Response
		if answer != nil {
			resp = answer.resp
			if e.Proof != nil {
				e.Proof.Learn(resp)
			}
		}
		switch again := e.retry(ctx, auth, answer, err); {
		case !proven && e.Proof != nil && answer.wantsNonce():
			proven = true // with the nonce that Proof has learnt (RFC 9449 §8)
		case again == authAgain:
		case again == passing && retries > 0:
			if err := sleep(ctx, retryablehttp.DefaultBackoff(minTokenBackoff, maxTokenBackoff, maxTokenRetries-retries, resp)); err != nil {
				return nil, err
			}
			retries--
		case err != nil:
			return nil, err
		default:
			return answer, nil
		}
	}
}

// Why a token request is sent again.
const (
	final     = iota // it is not
	passing          // the failure may pass
	authAgain        // the client was not recognized, and there is another way to say who it is
)

func (e *TokenEndpoint) retry(ctx context.Context, auth ClientAuth, answer *tokenAnswer, err error) int {
	var resp *http.Response
	if answer != nil {
		resp = answer.resp
	}
	if style, ok := auth.(*authStyle); ok && answer != nil && style.learn(answer.failure) {
		return authAgain
	}
	if again, _ := retryTokenRequest(ctx, resp, err); again {
		return passing
	}
	return final
}

// auth returns the way in which the client authenticates itself in one fetch.
func (e *TokenEndpoint) auth() ClientAuth {
	switch auth := e.Auth.(type) {
	case nil:
		return publicClient{}
	case *secretEither:
		return auth.begin()
	}
	return e.Auth
}

// client returns the client that was set, if there is one.
func (e *TokenEndpoint) client(ctx context.Context) *http.Client {
	if e.HTTPClient != nil {
		return e.HTTPClient
	}
	client, _ := ctx.Value(oauth2.HTTPClient).(*http.Client)
	return client
}

// plainTokenClient is used where none was set.
var plainTokenClient = &http.Client{Transport: defaultTransport{}}

// defaultTransport is http.DefaultTransport as it is when it is used.
type defaultTransport struct{}

func (defaultTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return http.DefaultTransport.RoundTrip(req)
}

func (e *TokenEndpoint) request(ctx context.Context, auth ClientAuth, to string, params url.Values) (*http.Request, error) {
	form, header := maps.Clone(params), make(http.Header)
	if err := auth.Authenticate(ctx, e, form, header); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, errors.New("authretry: the endpoint's URL is not an http or https URL")
	}
	header.Set("Content-Type", "application/x-www-form-urlencoded")
	header.Set("Accept", "application/json, application/x-www-form-urlencoded;q=0.9") // GitHub answers in a form unless asked
	req.Header = header
	if e.Proof != nil {
		if err := e.Proof.Prove(req, ""); err != nil {
			return nil, fmt.Errorf("authretry: TokenEndpoint.Proof has failed: %w", err)
		}
	}
	return req, nil
}

var errPlaintextEndpoint = &tokenError{
	text:   "the endpoint is on plain http, so that refresh tokens and the client's credentials could be read on the way; use https, or set TokenEndpoint.AllowPlaintext",
	causes: []error{&Rejection{Reason: ReasonPlaintext}},
}

// isSafe reports whether secrets may be sent in this way.
func (e *TokenEndpoint) isSafe(client *http.Client, req *http.Request) bool {
	if e.AllowPlaintext || req.URL.Scheme == "https" {
		return true
	}
	rt := cmp.Or[http.RoundTripper](client.Transport, http.DefaultTransport)
	if _, ours := rt.(defaultTransport); ours {
		rt = http.DefaultTransport
	}
	proxy, _ := proxyOf(rt, req)
	return originOf(req.URL).isLoopback() && proxy == nil
}

func sendTokenRequest(client *http.Client, req *http.Request) (*tokenAnswer, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer))
	if err != nil {
		return nil, fmt.Errorf("authretry: the endpoint's answer broke off: %w", err)
	}
	return readTokenAnswer(resp, body), nil
}

// sleep waits, for no longer than ctx lasts.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// retryTokenRequest decides on retries as go-retryablehttp does, but leaves long waits to the TokenSource, which does
// not keep its callers waiting meanwhile, and knows a request that can never succeed.
//
// A refresh grant is retried even if the connection broke after the request was written, when the server may have
// rotated the refresh token and may take the next request for theft (RFC 9700 §4.14.2). But all that could be done
// instead is to log in again, or to send the same refresh token later; and servers that forgive a repetition, for
// just this reason, do so for a short time. So a prompt retry is the one with the best chances.
func retryTokenRequest(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if _, ok := errors.AsType[*Rejection](err); ok || errors.Is(err, errRecursion) {
		return false, nil
	}
	if retryAfter(resp) > 2*time.Second {
		return false, nil
	}
	return retryablehttp.DefaultRetryPolicy(ctx, resp, err)
}

// Format keeps secrets out of everything that package fmt prints.
func (e TokenEndpoint) Format(f fmt.State, verb rune) {
	formatShown(f, "authretry.TokenEndpoint", e.shown()...)
}

// MarshalJSON keeps secrets out of JSON.
func (e TokenEndpoint) MarshalJSON() ([]byte, error) { return marshalShown(e.shown()...) }

func (e TokenEndpoint) shown() []shownField {
	return []shownField{shown("ClientID", e.ClientID), shown("Issuer", e.Issuer)}
}
