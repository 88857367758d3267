package authtest

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// Bearer is a [Guard] that asks for an access token (RFC 6750), and the token endpoint that issues them (RFC 6749):
// POST to [Bearer.TokenURL] with grant_type refresh_token or client_credentials. A Bearer belongs to one server.
// Its fields must not be changed once it is in use.
//
// Tokens are opaque. A refresh token is good once: its use brings a new one, and its second use revokes
// all tokens that came from the same [Bearer.Login] (RFC 9700 §4.14.2).
type Bearer struct {
	Realm         string        // of the challenge; none if empty
	Scope         string        // scopes separated by spaces that a token must have, or the answer is 403; none if empty
	TokenLifetime time.Duration // of an access token; an hour if 0

	TokenPath              string // of the token endpoint; "/token" if empty
	ClientID, ClientSecret string // what the endpoint wants, by Basic or in the form; anything if ClientID is empty

	OmitExpiry      bool   // no expires_in in token responses
	TokenType       string // in token responses; "Bearer" if empty
	KeepRefresh     bool   // a refresh token stays the same, and is good for ever
	RevokeOnRefresh bool   // a refresh ends the old access token at once, as ory/fosite has it

	mu      sync.Mutex // guards everything below
	server  *Server
	access  bounded[*accessToken]
	refresh bounded[*refreshToken]
	reuses  int
}

// A family is all tokens that came from one login.
type family struct {
	scope   string
	revoked bool
	latest  *accessToken
}

type accessToken struct {
	*family
	scope   string
	expires time.Time
	dead    bool
}

type refreshToken struct {
	*family
	used bool
}

// Login issues the first tokens of a family, as a login in the browser would, with the scopes given.
func (b *Bearer) Login(scopes ...string) *oauth2.Token {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.issue(&family{scope: strings.Join(scopes, " ")}, strings.Join(scopes, " "), true)
}

// Config returns the configuration of a client whose token requests the server accepts. Its requests go by the
// client in the context (see [oauth2.HTTPClient]), which must be [Server.Client] unless [NewServer] made the server.
func (b *Bearer) Config() *oauth2.Config {
	return &oauth2.Config{
		ClientID: b.clientID(), ClientSecret: b.ClientSecret,
		Endpoint: oauth2.Endpoint{TokenURL: b.TokenURL(), AuthStyle: oauth2.AuthStyleInHeader},
	}
}

// ClientCredentials is like [Bearer.Config] for the client_credentials grant.
func (b *Bearer) ClientCredentials(scopes ...string) *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID: b.clientID(), ClientSecret: b.ClientSecret, Scopes: scopes,
		TokenURL: b.TokenURL(), AuthStyle: oauth2.AuthStyleInHeader,
	}
}

func (b *Bearer) clientID() string { return orDefault(b.ClientID, "authtest") }

// TokenURL returns the URL of the token endpoint. It panics if the Bearer is on no server.
func (b *Bearer) TokenURL() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server == nil {
		panic("authtest: this Bearer protects no server yet")
	}
	return b.server.URL + b.tokenPath()
}

// Revoke ends the token. With a refresh token the whole family ends, its access tokens included (RFC 7009 §2.1).
// It reports whether the token was known.
func (b *Bearer) Revoke(token string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a, ok := b.access.get(token); ok {
		a.dead = true
		return true
	}
	r, ok := b.refresh.get(token)
	if ok {
		r.revoked = true
	}
	return ok
}

// ExpireNow lets all access tokens issued so far expire, whatever their expires_in said. Refresh tokens stay good.
func (b *Bearer) ExpireNow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for _, a := range b.access.values {
		if now.Before(a.expires) {
			a.expires = now
		}
	}
}

// Reuses returns how often a refresh token was used that had been used before.
func (b *Bearer) Reuses() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reuses
}

func (b *Bearer) tokenPath() string { return orDefault(b.TokenPath, "/token") }

func (b *Bearer) attach(s *Server) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil && b.server != s {
		panic("authtest: this Bearer protects another server already")
	}
	b.server = s
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.tokens[b.tokenPath()]; other != nil && other != b {
		panic("authtest: two Bearers of one server need different TokenPaths")
	}
	s.tokens[b.tokenPath()] = b
}

// Format writes the type and the realm, whatever the verb: no secret, and nothing that changes.
func (b *Bearer) Format(f fmt.State, _ rune) { formatGuard(f, "Bearer", b.Realm) }

func (b *Bearer) secretHeader() string { return "Authorization" }

func (b *Bearer) check(x *exchange) verdict {
	token, ok := credentials(x.r.Header.Get("Authorization"), "Bearer")
	if !ok {
		return verdict{decision: Challenged}
	}
	refused := verdict{decision: Refused, scheme: "Bearer", code: "invalid_token"}
	b.mu.Lock()
	defer b.mu.Unlock()
	a, known := b.access.get(token)
	switch {
	case !known:
		refused.reason = "the access token is unknown"
	case a.dead || a.revoked:
		refused.reason = "the access token was revoked"
	case !time.Now().Before(a.expires):
		refused.reason = "the access token expired"
	case !includes(a.scope, b.Scope):
		refused.reason, refused.code, refused.status =
			"the access token lacks the scope", "insufficient_scope", http.StatusForbidden
	default:
		return verdict{decision: Accepted, scheme: "Bearer"}
	}
	return refused
}

// includes reports whether each of the wanted scopes is granted.
func includes(granted, wanted string) bool {
	have := strings.Fields(granted)
	return !slices.ContainsFunc(strings.Fields(wanted), func(scope string) bool {
		return !slices.Contains(have, scope)
	})
}

func (b *Bearer) challenges(v verdict) []string {
	var params []string
	if b.Realm != "" {
		params = append(params, "realm="+quote(b.Realm))
	}
	// RFC 6750 §3.1: a request without credentials learns of no error.
	if v.code != "" {
		params = append(params, "error="+quote(v.code), "error_description="+quote(v.reason))
	}
	if b.Scope != "" {
		params = append(params, "scope="+quote(b.Scope))
	}
	return []string{strings.TrimSpace("Bearer " + strings.Join(params, ", "))}
}

// issue makes an access token, and a refresh token if wanted. The caller holds b.mu.
func (b *Bearer) issue(f *family, scope string, withRefresh bool) *oauth2.Token {
	lifetime := cmp.Or(b.TokenLifetime, time.Hour)
	now := time.Now()
	t := &oauth2.Token{AccessToken: "at-" + rand.Text(), TokenType: orDefault(b.TokenType, "Bearer")}
	if !b.OmitExpiry {
		t.Expiry = now.Add(lifetime)
		t.ExpiresIn = max(1, int64(lifetime/time.Second))
	}
	a := &accessToken{family: f, scope: scope, expires: now.Add(lifetime)}
	f.latest = a
	b.access.put(t.AccessToken, a)
	if withRefresh {
		t.RefreshToken = "rt-" + rand.Text()
		b.refresh.put(t.RefreshToken, &refreshToken{family: f})
	}
	if scope != "" {
		t = t.WithExtra(map[string]any{"scope": scope})
	}
	return t
}

// serveToken is the token endpoint (RFC 6749 §3.2).
func (b *Bearer) serveToken(x *exchange) {
	id, secret, byBasic, wellFormed := clientCredentials(x.r, x.form)
	switch {
	case x.r.Method != http.MethodPost:
		x.w.Header().Set("Allow", http.MethodPost)
		x.w.WriteHeader(http.StatusMethodNotAllowed)
	case x.form == nil:
		x.tokenError("invalid_request", "the body is not a form")
	case !wellFormed:
		x.tokenError("invalid_request", "the client authenticates by more than one means, or by a broken one")
	case b.ClientID != "" && (!same(id, b.ClientID) || !same(secret, b.ClientSecret)):
		if byBasic { // RFC 6749 §5.2
			x.w.Header().Set("Www-Authenticate", `Basic realm="token endpoint"`)
		}
		x.tokenError("invalid_client", "unknown client or wrong secret")
	default:
		token, code, description := b.grant(x.form)
		if code != "" {
			x.tokenError(code, description)
			return
		}
		x.tokenResponse(token)
	}
}

// grant performs the grant that the form asks for.
func (b *Bearer) grant(form url.Values) (token *oauth2.Token, code, description string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch form.Get("grant_type") {
	case "client_credentials":
		scope := form.Get("scope")
		return b.issue(&family{scope: scope}, scope, false), "", ""
	case "refresh_token":
		return b.rotate(form.Get("refresh_token"), form.Get("scope"))
	case "":
		return nil, "invalid_request", "grant_type is missing"
	}
	return nil, "unsupported_grant_type", "refresh_token and client_credentials are supported"
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

// maxForm is how many bytes of a token request are read.
const maxForm = 1 << 20

// readTokenRequest reads the form in the body and adds to the record what it says. A query in the URL does not
// count (RFC 6749 §2.3.1).
func (x *exchange) readTokenRequest() {
	body, err := io.ReadAll(io.LimitReader(x.r.Body, maxForm))
	media, _, _ := strings.Cut(x.r.Header.Get("Content-Type"), ";")
	if err == nil && strings.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded") {
		if form, err := url.ParseQuery(string(body)); err == nil {
			x.form = form
		}
	}
	id, _, _, _ := clientCredentials(x.r, x.form)

	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.grant.Form, x.grant.ClientID = x.form, id
	x.grant.GrantType, x.grant.Scope = x.form.Get("grant_type"), x.form.Get("scope")
}

// clientCredentials returns how the client authenticates. By Basic, id and secret are form-encoded (RFC 6749 §2.3.1).
func clientCredentials(r *http.Request, form url.Values) (id, secret string, byBasic, ok bool) {
	id, secret = form.Get("client_id"), form.Get("client_secret")
	if r.Header.Get("Authorization") == "" {
		return id, secret, false, true
	}
	encodedID, encodedSecret, ok := r.BasicAuth()
	if !ok || form.Has("client_secret") {
		return id, "", ok, false
	}
	id, err := url.QueryUnescape(encodedID)
	if err != nil {
		return "", "", true, false
	}
	secret, err = url.QueryUnescape(encodedSecret)
	return id, secret, true, err == nil
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
	}
	x.writeJSON(status, map[string]any{"error": code, "error_description": description})
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
	x.w.WriteHeader(status)
	json.NewEncoder(x.w).Encode(fields)
}
