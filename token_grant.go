package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// RefreshGrant returns a FetchFunc that uses the refresh token of the previous token (RFC 6749 §6): the Refresh of a
// [TokenEndpoint] with what cfg says. Of cfg, the authorization code part and the scopes are not used. If
// cfg.Endpoint.AuthStyle is not set, the client authenticates itself by the header (RFC 6749 §2.3.1), or by parameters if it has
// no secret; and in the other way if the server does not take that.
func RefreshGrant(cfg *oauth2.Config) FetchFunc {
	if cfg == nil {
		return misconfigured("RefreshGrant")
	}
	return endpointOf(cfg.Endpoint.TokenURL, cfg.ClientID, cfg.ClientSecret, cfg.Endpoint.AuthStyle).Refresh()
}

// ClientCredentialsGrant returns a FetchFunc that uses the client's own credentials (RFC 6749 §4.4): the ClientCredentials of a
// [TokenEndpoint] with what cfg says. For the AuthStyle, see [RefreshGrant].
func ClientCredentialsGrant(cfg *clientcredentials.Config) FetchFunc {
	if cfg == nil {
		return misconfigured("ClientCredentialsGrant")
	}
	e := endpointOf(cfg.TokenURL, cfg.ClientID, cfg.ClientSecret, cfg.AuthStyle)
	return e.clientCredentials(cfg.Scopes, cfg.EndpointParams)
}

// endpointOf returns a TokenEndpoint for what package oauth2 knows of one.
func endpointOf(tokenURL, clientID, secret string, style oauth2.AuthStyle) *TokenEndpoint {
	e := &TokenEndpoint{URL: tokenURL, ClientID: clientID}
	switch style {
	case oauth2.AuthStyleInHeader:
		e.Auth = SecretBasic(secret)
	case oauth2.AuthStyleInParams:
		e.Auth = SecretPost(secret)
	default: // all servers must take the header for secrets; a public client says its client_id only (§3.2.1)
		e.Auth = &secretEither{clientSecret: clientSecret{secret, secret != ""}}
	}
	return e
}

func misconfigured(name string) FetchFunc {
	return func(context.Context, TokenRequest) (*oauth2.Token, error) {
		return nil, fmt.Errorf("%w: %s was called with nil", ErrLoginRequired, name)
	}
}

// Refresh returns a FetchFunc that uses the refresh token of the previous token (RFC 6749 §6). If the answer has no new refresh
// token, the new token keeps the old one. Without one, the error wraps [ErrLoginRequired]; and so it does if the refresh token
// is known to have been issued elsewhere, to another client, or for another key than that of Proof ([ReasonWrongKey]).
//
// Claims that are wanted are sent (OpenID Connect Core §5.5), scopes only if WidensOnRefresh is set.
func (e *TokenEndpoint) Refresh() FetchFunc {
	return func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
		if r.Previous == nil || r.Previous.RefreshToken == "" {
			return nil, fmt.Errorf("%w: there is no refresh token", ErrLoginRequired)
		}
		if err := e.mayRefresh(r.Previous); err != nil {
			return nil, err
		}
		grant := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {r.Previous.RefreshToken}}
		if r.wider || len(r.ACRValues) > 0 || r.HasMaxAge {
			if !e.WidensOnRefresh || !r.wider {
				return nil, fmt.Errorf("%w: a refresh gives no more than was granted (RFC 6749 §6)", ErrLoginRequired)
			}
			grant.Set("scope", strings.Join(r.Scopes, " "))
		}
		if r.Claims != "" {
			grant.Set("claims", r.Claims)
		}
		return e.fetch(ctx, grant)
	}
}

// mayRefresh returns why the refresh token of t must not be sent here.
func (e *TokenEndpoint) mayRefresh(t *oauth2.Token) error {
	if err := e.isStranger(t); err != nil {
		return err
	}
	if known := RecordOf(t); known.KeyThumbprint != "" && (e.Proof == nil || e.Proof.Thumbprint() != known.KeyThumbprint) {
		text := "the refresh token is bound to another key than that of TokenEndpoint.Proof (RFC 9449 §5)"
		if e.Proof == nil {
			text = "the refresh token is bound to a key (RFC 9449 §5), and TokenEndpoint.Proof is nil; set it to that key"
		}
		return &tokenError{
			text:   text,
			causes: []error{ErrLoginRequired, &Rejection{Reason: ReasonWrongKey}},
		}
	}
	return nil
}

// isStranger returns an error if t is known to have been issued elsewhere, or to another client.
func (e *TokenEndpoint) isStranger(t *oauth2.Token) error {
	switch known := RecordOf(t); {
	case known.TokenURL != "" && known.TokenURL != e.URL && !slices.Contains(e.FormerURLs, known.TokenURL):
		return fmt.Errorf("%w: the refresh token was issued by another token endpoint than TokenEndpoint.URL, so it is not sent there (see FormerURLs)", ErrLoginRequired)
	case known.ClientID != "" && known.ClientID != e.ClientID:
		return fmt.Errorf("%w: the refresh token was issued to another client than TokenEndpoint.ClientID", ErrLoginRequired)
	}
	return nil
}

// ClientCredentials returns a FetchFunc that uses the client's own credentials (RFC 6749 §4.4). It asks for the scopes, for
// what the TokenRequest wants besides, and for its claims. A renewal also asks for what was granted without having been asked for; if
// the server does not take that (invalid_scope), as Microsoft Entra does not beside a scope that ends in /.default, for the scopes alone.
func (e *TokenEndpoint) ClientCredentials(scopes ...string) FetchFunc {
	return e.clientCredentials(scopes, nil)
}

func (e *TokenEndpoint) clientCredentials(scopes []string, params url.Values) FetchFunc {
	return renewing(func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
		grant := url.Values{"grant_type": {"client_credentials"}}
		for name, values := range params {
			grant[name] = values
		}
		return e.fetchWider(ctx, grant, scopes, &r)
	})
}

// renewing returns fetch for a server that does not let scopes be asked for that it has granted by itself: if nobody wants more than there
// was, they are left out of another request, for which the parties' tokens and assertions are made anew.
func renewing(fetch FetchFunc) FetchFunc {
	return func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
		t, err := fetch(ctx, r)
		refused, ok := errors.AsType[*oauth2.RetrieveError](err)
		if !ok || refused.ErrorCode != "invalid_scope" || r.wider || len(r.Scopes) == 0 {
			return t, err
		}
		r.Scopes = nil
		return fetch(ctx, r)
	}
}

// fetchWider fetches a token for the scopes and what r wants besides.
func (e *TokenEndpoint) fetchWider(ctx context.Context, grant url.Values, scopes []string, r *TokenRequest) (*oauth2.Token, error) {
	if r.Scopes != nil {
		scopes = union(scopes, r.Scopes)
	}
	if len(scopes) > 0 {
		grant.Set("scope", strings.Join(scopes, " "))
	}
	if r.Claims != "" {
		claims, err := mergeClaims(grant.Get("claims"), r.Claims)
		if err != nil {
			return nil, err
		}
		grant.Set("claims", claims)
	}
	return e.fetch(ctx, grant)
}

// JWTBearer returns a FetchFunc that presents a JWT of somebody whom the server trusts (RFC 7523 §2.1). assertion is called for
// each token; what it says of the scopes and claims that the TokenRequest wants is its own to judge. Which scopes are asked for is as for
// ClientCredentials.
func (e *TokenEndpoint) JWTBearer(assertion func(ctx context.Context, r TokenRequest) (string, error), scopes ...string) FetchFunc {
	return renewing(func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
		if assertion == nil {
			return nil, errors.New("authretry: TokenEndpoint.JWTBearer was called with nil")
		}
		jwt, err := assertion(ctx, r)
		switch {
		case err != nil:
			return nil, fmt.Errorf("authretry: there is no assertion for the token endpoint: %w", err)
		case jwt == "":
			return nil, errors.New("authretry: the assertion for the token endpoint is empty")
		}
		grant := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {jwt}}
		return e.fetchWider(ctx, grant, scopes, &r)
	})
}

// A TokenExchange says which token is exchanged for which (RFC 8693 §2.1).
type TokenExchange struct {
	// Subject returns the token of the party on whose behalf the new one is, and its type, such as
	// "urn:ietf:params:oauth:token-type:access_token". It is called for each exchange, and must not be nil.
	Subject func(ctx context.Context) (token, tokenType string, err error)

	// Actor returns the same of the acting party. It may be nil.
	Actor func(ctx context.Context) (token, tokenType string, err error)

	// Audience and Resource say where the new token is to be used.
	Audience, Resource []string

	// Scopes are what is asked for; besides, what a TokenRequest wants, as for TokenEndpoint.ClientCredentials.
	Scopes []string

	// RequestedType is the type of the new token. If empty, the server decides.
	RequestedType string

	// SendAs is the token type of a new token for which the server says "N_A" (§2.2.1), since it is no access token, such as
	// "Bearer" if the token is to be sent as one nevertheless. If empty, it stays as it is, and no Scheme sends it.
	SendAs string
}

// TokenExchange returns a FetchFunc that exchanges a token for another one (RFC 8693). The answer seldom has a refresh token;
// another exchange takes the place of a refresh.
func (e *TokenEndpoint) TokenExchange(x TokenExchange) FetchFunc {
	return renewing(func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
		grant := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}}
		if x.Subject == nil {
			return nil, errors.New("authretry: TokenExchange.Subject is nil")
		}
		for name, party := range map[string]func(context.Context) (string, string, error){"subject": x.Subject, "actor": x.Actor} {
			if party == nil {
				continue
			}
			token, kind, err := party(ctx)
			if err != nil {
				return nil, fmt.Errorf("authretry: there is no %s token to exchange: %w", name, err)
			}
			grant.Set(name+"_token", token)
			grant.Set(name+"_token_type", kind)
		}
		for name, values := range map[string][]string{"audience": x.Audience, "resource": x.Resource} {
			if len(values) > 0 {
				grant[name] = values
			}
		}
		if x.RequestedType != "" {
			grant.Set("requested_token_type", x.RequestedType)
		}
		t, err := e.fetchWider(ctx, grant, x.Scopes, &r)
		if err == nil && x.SendAs != "" && equalFoldASCII(t.TokenType, "N_A") {
			t.TokenType = x.SendAs
		}
		return t, err
	})
}

// AuthorizationCode returns a FetchFunc that redeems an authorization code (RFC 6749 §4.1.3), with the PKCE verifier (RFC 7636)
// unless that is empty, and the redirect URI unless that is. A code can be redeemed once: this is for [TokenSource.Set] and for a
// [TokenSource.Login]. Package login has a browser bring the code.
func (e *TokenEndpoint) AuthorizationCode(code, verifier, redirectURI string) FetchFunc {
	return func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
		grant := url.Values{"grant_type": {"authorization_code"}, "code": {code}}
		if verifier != "" {
			grant.Set("code_verifier", verifier)
		}
		if redirectURI != "" {
			grant.Set("redirect_uri", redirectURI)
		}
		return e.fetch(ctx, grant)
	}
}

// DeviceCode returns a FetchFunc that asks once for the token of a login by a device (RFC 8628 §3.4). Until the person has agreed, the
// error is an *oauth2.RetrieveError that says authorization_pending, or slow_down (§3.5): package login asks again as it should.
func (e *TokenEndpoint) DeviceCode(deviceCode string) FetchFunc {
	return func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
		return e.fetch(ctx, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {deviceCode}})
	}
}

// retryAfter returns how long the server asks to be left alone (RFC 9110 §10.2.3), or 0.
func retryAfter(resp *http.Response) time.Duration {
	if resp == nil || resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	value := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseInt(value, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(max(min(seconds, int64(maxRetryAfter/time.Second)), 0)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(time.Until(at), 0), maxRetryAfter)
	}
	return 0
}
