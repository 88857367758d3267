package login

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

const maxCode = 8 << 10 // bytes of an authorization code

// A Code is an authorization code flow under way (RFC 6749 §4.1), with PKCE by S256 (RFC 7636). It is for one login.
type Code struct {
	endpoint    *authretry.TokenEndpoint
	redirectURI string
	url         string
	state       string
	verifier    string
	names       bool // the server names itself in each answer
}

// Code begins an authorization code flow, whose answer is going to come to redirectURI: somebody should be listening there
// already. If PushedURL is set, it sends the parameters there.
func (a *Authorization) Code(ctx context.Context, redirectURI string) (*Code, error) {
	if a.URL == "" {
		return nil, errors.New("login: Authorization.URL is empty, so that nobody can log in by a browser; package discover leaves it empty for a server that has no authorization endpoint, or does not say that it supports PKCE (Config.AssumePKCE)")
	}
	to, err := checkOpenable("authorization endpoint", a.URL)
	if err != nil {
		return nil, err
	}
	e, err := a.endpoint(ctx, redirectURI)
	if err != nil {
		return nil, err
	}
	c := &Code{endpoint: e, redirectURI: redirectURI, state: rand.Text(), verifier: oauth2.GenerateVerifier(), names: a.AnswersWithIssuer}
	params := a.params(e)
	params.Set("response_type", "code")
	params.Set("redirect_uri", redirectURI)
	params.Set("state", c.state)
	params.Set("code_challenge", oauth2.S256ChallengeFromVerifier(c.verifier))
	params.Set("code_challenge_method", "S256")
	if e.Proof != nil {
		params.Set("dpop_jkt", e.Proof.Thumbprint())
	}
	if err := a.addParams(params); err != nil {
		return nil, err
	}
	if a.PushedURL != "" {
		if params, err = a.push(ctx, e, params); err != nil {
			return nil, err
		}
	}
	params.Set("client_id", e.ClientID)
	query := to.Query() // which is to stay (RFC 6749 §3.1)
	for name, values := range params {
		query[name] = values
	}
	to.RawQuery = query.Encode()
	c.url = to.String()
	return c, nil
}

// push sends the parameters ahead, and returns what takes their place (RFC 9126 §2).
func (a *Authorization) push(ctx context.Context, e *authretry.TokenEndpoint, params url.Values) (url.Values, error) {
	var said struct {
		RequestURI string `json:"request_uri"`
	}
	if err := a.post(ctx, e, a.PushedURL, params, &said); err != nil {
		return nil, err
	}
	if said.RequestURI == "" || len(said.RequestURI) > maxURL {
		return nil, errors.New("login: the answer to the pushed authorization request has no request_uri, or one that is too long (RFC 9126)")
	}
	return url.Values{"request_uri": {said.RequestURI}}, nil
}

// URL returns what the person's browser is to be sent to. It is https, or http to this machine, and has no character but letters,
// digits and those of URLs that mean nothing to a terminal. To be opened it needs no shell.
func (c *Code) URL() string { return c.url }

// Matches reports whether the query of a request to the redirect URI belongs to this login: whether it has its state. Any other is
// a stranger's, and does not end the login.
func (c *Code) Matches(query url.Values) bool {
	state := query["state"]
	return len(state) == 1 && subtle.ConstantTimeCompare([]byte(state[0]), []byte(c.state)) == 1
}

// Redeem gets the token for which the query of a request to the redirect URI has the code, after having seen that it comes from
// the right server (RFC 9207). It is to be called once, with the first query that Matches. The code is sent once.
func (c *Code) Redeem(ctx context.Context, query url.Values) (*oauth2.Token, error) {
	if !c.Matches(query) {
		return nil, errors.New("login: the answer belongs to another login: its state is not ours")
	}
	if err := c.checkIssuer(query["iss"]); err != nil {
		return nil, err
	}
	if _, failed := query["error"]; failed {
		return nil, &Error{Code: known(query.Get("error"))}
	}
	code := query["code"]
	if len(code) != 1 || code[0] == "" || len(code[0]) > maxCode {
		return nil, errors.New("login: the answer has no code, or more than one, or one that is too long (RFC 6749)")
	}
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	t, err := c.endpoint.AuthorizationCode(code[0], c.verifier, c.redirectURI)(ctx, authretry.TokenRequest{})
	if err != nil {
		return nil, readable(err)
	}
	return t, nil
}

// checkIssuer returns an error unless the answer comes from the server that was asked (RFC 9207 §2.4). Issuers are compared as
// strings.
func (c *Code) checkIssuer(iss []string) error {
	switch {
	case len(iss) == 0 && !c.names:
		return nil
	case len(iss) != 1, c.endpoint.Issuer != "" && iss[0] != c.endpoint.Issuer:
		return ErrIssuer
	}
	return nil
}

// Format keeps the state and the verifier out of everything that package fmt prints.
func (c Code) Format(f fmt.State, _ rune) { io.WriteString(f, "login.Code{}") }

// MarshalJSON does so for JSON.
func (c Code) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }
