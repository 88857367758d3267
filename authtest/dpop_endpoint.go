package authtest

import (
	"crypto"
	"errors"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/oauth2"
)

// An issuer has a token endpoint.
type issuer interface {
	serveToken(x *exchange)
}

const jwtBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"

// serveToken is the token endpoint (RFC 6749 §3.2, RFC 9449 §5).
func (d *DPoP) serveToken(x *exchange) {
	if x.r.Method != http.MethodPost {
		x.w.Header().Set("Allow", http.MethodPost)
		x.w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	d.giveNonce(x.w.Header())
	client, problem := clientOf(x.r, x.form), requestProblem(x.r, x.form)
	if problem != "" {
		x.tokenError("invalid_request", problem)
		return
	}
	key, code, reason := d.judge(x, "")
	if code != "" {
		x.tokenError(code, reason)
		return
	}
	if client.problem != "" {
		x.tokenError(client.code, client.problem)
		return
	}
	if err := d.checkClient(client.id, client.secret, x.form); err != nil {
		x.tokenError("invalid_client", err.Error())
		return
	}
	token, code, reason := d.grant(x.form, key)
	if code != "" {
		x.tokenError(code, reason)
		return
	}
	x.tokenResponse(token)
}

var errUnknownClient = errors.New("unknown client or wrong secret")

// checkClient returns an error unless the client has said who it is.
func (d *DPoP) checkClient(id, secret string, form url.Values) error {
	switch {
	case d.ClientKey == nil && d.ClientID != "" && (!same(id, d.ClientID) || !same(secret, d.ClientSecret)):
		return errUnknownClient
	case d.ClientKey == nil:
		return nil
	case form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer":
		return errors.New("the client authenticates by no assertion")
	case id != "" && id != orDefault(d.ClientID, id):
		return errUnknownClient
	}
	claims, err := d.readAssertion(form.Get("client_assertion"), d.ClientKey)
	if err != nil {
		return err
	}
	if d.ClientID != "" && claims.Issuer != d.ClientID || claims.Subject != claims.Issuer || claims.Issuer == "" {
		return errors.New("iss and sub are not the client") // RFC 7523 §3
	}
	return nil
}

// assertionClaims are those of a JWT as an assertion (RFC 7523 §3).
type assertionClaims struct {
	Issuer   string  `json:"iss"`
	Subject  string  `json:"sub"`
	Audience any     `json:"aud"`
	ID       string  `json:"jti"`
	Expiry   float64 `json:"exp"`
	Before   float64 `json:"nbf"`
}

// maxAssertionLife is how far the end of an assertion may be ahead.
const maxAssertionLife = time.Hour

// readAssertion reads a JWT that the key verifies, and that is for this server, now, and for the first time.
func (d *DPoP) readAssertion(text string, key crypto.PublicKey) (*assertionClaims, error) {
	var header struct {
		Algorithm string `json:"alg"`
	}
	var claims assertionClaims
	signed, signature, err := readJWS(text, &header, &claims)
	if err != nil {
		return nil, err
	}
	now := float64(time.Now().Unix())
	switch {
	case !verifies(key, header.Algorithm, signed, signature):
		return nil, errors.New("the signature of the assertion is wrong")
	case claims.Audience != orDefault(d.Issuer, d.TokenURL()): // a string, as FAPI 2.0 wants it
		return nil, errors.New("the assertion is for another audience")
	case claims.Expiry <= now || claims.Expiry > now+maxAssertionLife.Seconds() || claims.Before > now:
		return nil, errors.New("the assertion is not good now, or for too long")
	case claims.ID == "":
		return nil, errors.New("the assertion has no jti")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.assertions[claims.ID] {
		d.replays++
		return nil, errors.New("the assertion was used before")
	}
	if d.assertions == nil {
		d.assertions = map[string]bool{}
	}
	d.assertions[claims.ID] = true
	return &claims, nil
}

// grant performs the grant that the form asks for, for the key of the proof.
func (d *DPoP) grant(form url.Values, key string) (token *oauth2.Token, code, description string) {
	scope := form.Get("scope")
	switch kind := form.Get("grant_type"); kind {
	case "client_credentials":
	case "refresh_token":
		return d.refresh(form.Get("refresh_token"), scope, key)
	case "authorization_code":
		if !d.redeem(form.Get("code"), key) {
			return nil, "invalid_grant", "the code is unknown, was used before, or is bound to another key"
		}
	case jwtBearer:
		if d.AssertionKey == nil {
			return nil, "unsupported_grant_type", "there is no AssertionKey"
		}
		if _, err := d.readAssertion(form.Get("assertion"), d.AssertionKey); err != nil {
			return nil, "invalid_grant", err.Error()
		}
	default:
		return nil, "unsupported_grant_type", "the grant_type is not supported"
	}
	d.tokens.mu.Lock()
	defer d.tokens.mu.Unlock()
	withRefresh := form.Get("grant_type") == "authorization_code"
	return d.issue(&family{scope: scope, jkt: key}, scope, withRefresh), "", ""
}

// refresh exchanges a refresh token.
func (d *DPoP) refresh(value, scope, key string) (token *oauth2.Token, code, description string) {
	d.tokens.mu.Lock()
	defer d.tokens.mu.Unlock()
	if r, known := d.tokens.refresh.get(value); known && r.jkt != key {
		return nil, "invalid_grant", "the refresh token is bound to another key"
	}
	token, code, description = d.tokens.rotate(value, scope)
	if token != nil {
		token.TokenType = orDefault(d.TokenType, "DPoP")
	}
	return token, code, description
}

// redeem reports whether a code is good, once.
func (d *DPoP) redeem(code, key string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	bound, known := d.codes[code]
	delete(d.codes, code)
	return known && (bound == "" || bound == key)
}
