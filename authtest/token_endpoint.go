package authtest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"
)

// maxForm is how many bytes of a token request are read.
const maxForm = 1 << 20

// A tokenClient is what a token request says of its client.
type tokenClient struct {
	id, secret string
	byBasic    bool
	problem    string // what is wrong with how it authenticates
	code       string // the error code of the problem
}

// readTokenRequest reads the form in the body and adds to the record what it says. A query in the URL does not
// count (RFC 6749 §2.3.1).
func (x *exchange) readTokenRequest() {
	body, err := io.ReadAll(io.LimitReader(x.r.Body, maxForm+1))
	media, _, _ := strings.Cut(x.r.Header.Get("Content-Type"), ";")
	if err == nil && len(body) <= maxForm && strings.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded") {
		if form, err := url.ParseQuery(string(body)); err == nil {
			x.form = form
		}
	}
	client := clientOf(x.r, x.form)

	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.grant.Form, x.grant.ClientID = x.form, client.id
	x.grant.GrantType, x.grant.Scope = x.form.Get("grant_type"), x.form.Get("scope")
}

// clientOf returns how the client authenticates. By Basic, id and secret are form-encoded (RFC 6749 §2.3.1).
// A parameter without a value counts as if it were not there (§3.2).
func clientOf(r *http.Request, form url.Values) tokenClient {
	c := tokenClient{id: form.Get("client_id"), secret: form.Get("client_secret")}
	header := r.Header["Authorization"]
	if len(header) == 0 {
		return c
	}
	inForm := c
	encoded, isBasic := credentials(header[0], "Basic")
	id, secret, ok := r.BasicAuth()
	c = tokenClient{id: inForm.id, byBasic: isBasic, code: "invalid_request"}
	switch {
	case len(header) > 1:
		c.problem = "more than one Authorization header"
	case !isBasic:
		c.problem, c.code = "the client authenticates by a scheme that is not Basic", "invalid_client"
	case !ok || encoded == "":
		c.problem = "the Basic credentials cannot be read"
	case inForm.secret != "":
		c.problem = "the client authenticates by more than one means"
	}
	if c.problem != "" {
		return c
	}
	var err1, err2 error
	c.id, err1 = url.QueryUnescape(id)
	c.secret, err2 = url.QueryUnescape(secret)
	switch {
	case err1 != nil || err2 != nil:
		c.id, c.secret, c.problem = "", "", "user name and password of Basic are not form-encoded"
	case inForm.id != "" && inForm.id != c.id:
		c.problem = "client_id is not the client of the Authorization header"
	}
	return c
}

// requestProblem says what is wrong with the form as such, and with what the URL has besides (RFC 6749 §2.3.1, §3.2).
func requestProblem(r *http.Request, form url.Values) string {
	if form == nil {
		return "the body is not a form, or is too large"
	}
	for name, values := range form {
		if len(values) > 1 {
			return "the parameter " + printable(name) + " is there more than once"
		}
	}
	query := r.URL.Query()
	for _, name := range []string{"client_secret", "refresh_token"} {
		if query.Has(name) {
			return name + " is in the URL, which logs have"
		}
	}
	return ""
}

// printable returns a name fit for an error_description (RFC 6749 §5.2).
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, name)
}

// serveToken is the token endpoint (RFC 6749 §3.2).
func (b *Bearer) serveToken(x *exchange) {
	if x.r.Method != http.MethodPost {
		x.w.Header().Set("Allow", http.MethodPost)
		x.w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	client, problem := clientOf(x.r, x.form), requestProblem(x.r, x.form)
	switch {
	case problem != "":
		x.tokenError("invalid_request", problem)
	case client.problem != "":
		x.tokenError(client.code, client.problem)
	case b.ClientID != "" && (!same(client.id, b.ClientID) || !same(client.secret, b.ClientSecret)):
		x.tokenError("invalid_client", "unknown client or wrong secret")
	default:
		token, code, description := b.grant(client, x.form)
		if code != "" {
			x.tokenError(code, description)
			return
		}
		x.tokenResponse(token)
	}
}

// grant performs the grant that the form asks for.
func (b *Bearer) grant(client tokenClient, form url.Values) (token *oauth2.Token, code, description string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kind, scope := form.Get("grant_type"), form.Get("scope")
	switch {
	case kind == "":
		return nil, "invalid_request", "grant_type is missing"
	case kind != "client_credentials" && kind != "refresh_token":
		return nil, "unsupported_grant_type", "refresh_token and client_credentials are supported"
	case scope != "" && !isScope(scope):
		return nil, "invalid_scope", "the scope is malformed (RFC 6749 §3.3)"
	case kind == "refresh_token":
		return b.rotate(form.Get("refresh_token"), scope)
	case client.id == "":
		return nil, "invalid_client", "client_credentials is for a client that authenticates (RFC 6749 §4.4.2)"
	case client.secret == "":
		return nil, "unauthorized_client", "client_credentials is not for a client without a secret (RFC 6749 §4.4)"
	}
	return b.issue(&family{scope: scope}, scope, false), "", ""
}

// rotate exchanges a refresh token (RFC 6749 §6). The caller holds b.mu.
func (b *Bearer) rotate(value, scope string) (token *oauth2.Token, code, description string) {
	r, known := b.refresh.get(value)
	switch {
	case value == "":
		return nil, "invalid_request", "refresh_token is missing"
	case !known:
		return nil, "invalid_grant", "the refresh token is unknown"
	case r.used:
		// RFC 9700 §4.14.2: somebody has a copy. Which of the two is the thief cannot be known.
		b.reuses++
		r.revoked = true
		return nil, "invalid_grant", "the refresh token was used before; all tokens of this login are revoked"
	case r.revoked:
		return nil, "invalid_grant", "the refresh token was revoked"
	case !includes(r.scope, scope):
		return nil, "invalid_scope", "the scope is more than was granted"
	}
	if b.RevokeOnRefresh {
		r.latest.dead = true // those before it are dead already
	}
	r.used = !b.KeepRefresh
	return b.issue(r.family, orDefault(scope, r.scope), !b.KeepRefresh), "", ""
}

// tokenError answers with an error response (RFC 6749 §5.2).
func (x *exchange) tokenError(code, description string) {
	x.s.mu.Lock()
	if x.grant != nil {
		x.grant.Error = code
	}
	x.s.mu.Unlock()
	status := http.StatusBadRequest
	if code == "invalid_client" {
		status = http.StatusUnauthorized
		if x.issuer != nil { // RFC 9110 §15.5.2: no 401 without a challenge
			x.w.Header().Set("Www-Authenticate", `Basic realm="token endpoint"`)
		}
	}
	x.writeJSON(status, map[string]any{"error": code, "error_description": strings.ReplaceAll(description, "§", "section ")})
}

// tokenResponse answers with a token (RFC 6749 §5.1).
func (x *exchange) tokenResponse(t *oauth2.Token) {
	x.decide(verdict{decision: Accepted})
	fields := map[string]any{"access_token": t.AccessToken, "token_type": t.TokenType}
	if t.ExpiresIn != 0 {
		fields["expires_in"] = t.ExpiresIn
	}
	if t.RefreshToken != "" {
		fields["refresh_token"] = t.RefreshToken
	}
	if scope := t.Extra("scope"); scope != nil {
		fields["scope"] = scope
	}
	x.writeJSON(http.StatusOK, fields)
}

func (x *exchange) writeJSON(status int, fields map[string]any) {
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache") // RFC 6749 §5.1 wants both
	x.w.WriteHeader(status)
	json.NewEncoder(x.w).Encode(fields)
}
