package authretry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// RefreshGrant returns a FetchFunc that uses the refresh token of the previous token (RFC 6749 §6). If the answer has
// no new refresh token, the new token keeps the old one. Without one, the error wraps [ErrLoginRequired].
//
// The request is sent by a client that retries a few times, briefly, on connection errors, 429 and 5xx, and does not
// follow redirects; or by [TokenSource.HTTPClient]. Of cfg, the authorization code
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
		if r.more {
			return nil, fmt.Errorf("%w: a refresh gives no more than was granted (RFC 6749 §6)", ErrLoginRequired)
		}
		ctx = withTokenClient(ctx, client)
		sends := 0
		return style.try(func(s oauth2.AuthStyle) (*oauth2.Token, error) {
			if sends++; sends > 1 { // before the first, the TokenSource has done it
				if err := confirm(ctx); err != nil {
					return nil, err
				}
			}
			c := oauth2.Config{ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret, Endpoint: cfg.Endpoint, Scopes: cfg.Scopes}
			c.Endpoint.AuthStyle = s
			return c.TokenSource(ctx, &oauth2.Token{RefreshToken: r.Previous.RefreshToken}).Token()
		})
	}
}

// ClientCredentialsGrant returns a FetchFunc that uses the client's own credentials (RFC 6749 §4.4). It asks for cfg.Scopes, for
// what the TokenRequest wants besides, and for its claims. For the rest, see [RefreshGrant].
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
			if r.Scopes != nil {
				c.Scopes = union(cfg.Scopes, r.Scopes)
			}
			if r.Claims != "" {
				c.EndpointParams = maps.Clone(cfg.EndpointParams)
				if c.EndpointParams == nil {
					c.EndpointParams = make(url.Values)
				}
				claims, err := mergeClaims(c.EndpointParams.Get("claims"), r.Claims)
				if err != nil {
					return nil, err
				}
				c.EndpointParams.Set("claims", claims)
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
		PrepareRetry: func(req *http.Request) error { return confirm(req.Context()) },
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
