package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// A Flow asks a person to log in, and returns the token. It obeys ctx, and may be used again, also by several goroutines at once.
type Flow interface {
	Login(ctx context.Context, a *Authorization) (*oauth2.Token, error)
}

// An Authorization is what a person is asked to agree to, and at which authorization server. It has the protocol: a [Flow] shows
// the person what [Authorization.Code] or [Authorization.Device] returns.
//
// It is safe for concurrent use. It must not be changed after its first use.
type Authorization struct {
	// Endpoint is the token endpoint, with what the client is called and how it authenticates itself. Its Issuer is what the
	// server must call itself (RFC 9207), its Proof the key that tokens are bound to (dpop_jkt, RFC 9449 §10), and the resource
	// among its Params is asked for here, too (RFC 8707 §2.1).
	Endpoint *authretry.TokenEndpoint

	// URL is that of the authorization endpoint (RFC 6749 §3.1): https, or http to this machine. If it is empty, there is no login
	// by a browser.
	URL string

	// DeviceURL is that of the device authorization endpoint (RFC 8628 §3.1). If it is empty, there is no login by a device.
	DeviceURL string

	// PushedURL is where the parameters of the authorization request are sent first (RFC 9126). If it is empty, they are in the
	// URL that is opened.
	PushedURL string

	// Scopes are what is asked for (RFC 6749 §3.3).
	Scopes []string

	// Params are further parameters of the request, such as prompt or audience. They must not name what is sent anyway.
	Params url.Values

	// Claims is the claims parameter (OpenID Connect Core §5.5), a JSON object, or "".
	Claims string

	// ACRValues and MaxAge, if HasMaxAge, say how strong and how fresh the login must be (RFC 9470 §4).
	ACRValues []string
	MaxAge    time.Duration
	HasMaxAge bool

	// AnswersWithIssuer says that the server names itself in each answer (authorization_response_iss_parameter_supported, RFC
	// 9207 §3): one without iss is refused then. An iss that is there is compared in any case.
	AnswersWithIssuer bool

	// HTTPClient sends the requests to DeviceURL and PushedURL. If it is nil, Endpoint does, as it sends its own.
	HTTPClient *http.Client

	// CheckPage is asked, before anybody sees it, about the page at which a code is to be typed, whose URL the server has named. An error
	// ends the login. Package discover judges there by which address a browser would go. If it is nil, what [DeviceCode] says of that
	// URL is all that is asked of it.
	CheckPage func(ctx context.Context, page *url.URL) error

	// Register returns the Endpoint to use in place of Endpoint, for a client that has to be registered first. It is called
	// before each login, with the redirect URI that it is going to have, "" for a device. If it is nil, Endpoint is used.
	Register func(ctx context.Context, redirectURI string) (*authretry.TokenEndpoint, error)
}

// Format keeps Params and Claims, which may name a person, out of everything that package fmt prints.
func (a Authorization) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "login.Authorization{URL: %q, DeviceURL: %q, Scopes: %q}", a.URL, a.DeviceURL, a.Scopes)
}

// MarshalJSON does so for JSON.
func (a Authorization) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"URL": a.URL, "DeviceURL": a.DeviceURL, "Scopes": a.Scopes})
}

// LoginFunc returns a FetchFunc for TokenSource.Login, for programs that know their authorization server: it asks f for what the
// TokenRequest wants besides what a says.
//
//	endpoint := &authretry.TokenEndpoint{URL: "https://auth.example.com/token", ClientID: "my-cli"}
//	a := &login.Authorization{Endpoint: endpoint, URL: "https://auth.example.com/authorize"}
//	tokens := &authretry.TokenSource{Fetch: endpoint.Refresh(), Login: a.LoginFunc(flow), Store: filestore.New(path)}
func (a *Authorization) LoginFunc(f Flow) authretry.FetchFunc {
	return func(ctx context.Context, r authretry.TokenRequest) (*oauth2.Token, error) {
		if f == nil {
			return nil, errors.New("login: LoginFunc was called with nil")
		}
		b := *a
		b.Scopes = slices.Clone(a.Scopes)
		for _, scope := range r.Scopes {
			if !slices.Contains(b.Scopes, scope) {
				b.Scopes = append(b.Scopes, scope)
			}
		}
		if r.Claims != "" {
			b.Claims = r.Claims
		}
		if len(r.ACRValues) > 0 {
			b.ACRValues = r.ACRValues
		}
		if r.HasMaxAge {
			b.MaxAge, b.HasMaxAge = r.MaxAge, true
		}
		return f.Login(ctx, &b)
	}
}

// endpoint returns the token endpoint to use for a redirect URI, "" for a device.
func (a *Authorization) endpoint(ctx context.Context, redirectURI string) (*authretry.TokenEndpoint, error) {
	e := a.Endpoint
	if a.Register != nil {
		var err error
		if e, err = a.Register(ctx, redirectURI); err != nil {
			return nil, err
		}
	}
	if e == nil {
		return nil, errors.New("login: Authorization.Endpoint is nil")
	}
	return e, nil
}

// post sends a form to another endpoint than that for tokens, and reads the answer.
func (a *Authorization) post(ctx context.Context, e *authretry.TokenEndpoint, to string, form url.Values, into any) error {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	if a.HTTPClient != nil {
		by := *e
		by.HTTPClient = a.HTTPClient
		e = &by
	}
	return readable(e.Post(ctx, to, form, into))
}

const postTimeout = 30 * time.Second // of one request

// params returns what both kinds of request have.
func (a *Authorization) params(e *authretry.TokenEndpoint) url.Values {
	params := url.Values{}
	if len(a.Scopes) > 0 {
		params.Set("scope", strings.Join(a.Scopes, " "))
	}
	if resource := e.Params["resource"]; len(resource) > 0 {
		params["resource"] = resource
	}
	if a.Claims != "" {
		params.Set("claims", a.Claims)
	}
	if len(a.ACRValues) > 0 {
		params.Set("acr_values", strings.Join(a.ACRValues, " "))
	}
	if a.HasMaxAge {
		params.Set("max_age", fmt.Sprint(int64(max(a.MaxAge, 0)/time.Second)))
	}
	return params
}

// addParams adds the further parameters to those that are sent anyway.
func (a *Authorization) addParams(params url.Values) error {
	for name, values := range a.Params {
		if _, taken := params[name]; taken || slices.Contains(ofTheClient, name) {
			return fmt.Errorf("login: Authorization.Params has %.40q, which is sent anyway", name)
		}
		params[name] = values
	}
	return nil
}

// ofTheClient are the parameters by which a client authenticates itself.
var ofTheClient = []string{"client_id", "client_secret", "client_assertion", "client_assertion_type"}
