package authtest

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"net/http"
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
// The guard accepts a token in the Authorization header only. It answers 401 and invalid_token for one that is unknown,
// revoked or expired; 403 and insufficient_scope for one that lacks a scope; 400 and invalid_request for what
// is no token by its characters, and for another in the query (access_token) besides.
//
// The token endpoint accepts a form of at most 1 MiB and a client that authenticates by Basic, form-encoded first, or in
// the form. It refuses a parameter that is there twice, a secret or a refresh token in the URL, more than one way to
// authenticate, a client_id in the form that is not that of Basic, a malformed scope, a scope that the refresh token
// has not, and client_credentials for a client without a secret (RFC 6749 §2.3, §3.2, §4.4).
//
// Tokens are opaque. A refresh token is good once: its use brings a new one, and its second use revokes
// all tokens that came from the same [Bearer.Login] (RFC 9700 §4.14.2). No token is forgotten as long as it is good. Of
// those that are not any more, at least the last 65,536 of each kind are remembered; older ones may be unknown tokens.
type Bearer struct {
	Realm         string        // of the challenge; "authtest" if empty
	Scope         string        // scopes separated by spaces that a token must have, or the answer is 403; none if empty
	TokenLifetime time.Duration // of an access token; an hour if 0

	TokenPath              string // of the token endpoint; "/token" if empty
	ClientID, ClientSecret string // what the endpoint wants, by Basic or in the form; anything, or nothing for a refresh, if ClientID is empty

	OmitExpiry      bool   // no expires_in in token responses
	TokenType       string // in token responses; "Bearer" if empty
	KeepRefresh     bool   // a refresh token stays the same, and is good until it is revoked
	RevokeOnRefresh bool   // a refresh ends the old access token at once, as ory/fosite has it

	mu      sync.Mutex // guards everything below
	server  *Server
	access  tokenSet[*accessToken]
	refresh tokenSet[*refreshToken]
	reuses  int
}

// A family is all tokens that came from one login.
type family struct {
	client  string // whose they are, at an OAuth
	jkt     string // the thumbprint of the key that they are bound to (RFC 9449 §6); "" if they are not
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
// client in the context (see [oauth2.HTTPClient]), which must be [Server.Client] unless [NewServer] made the server. With
// authretry.RefreshGrant, that client is TokenSource.HTTPClient.
func (b *Bearer) Config() *oauth2.Config {
	return &oauth2.Config{
		ClientID: b.clientID(), ClientSecret: b.clientSecret(),
		Endpoint: oauth2.Endpoint{TokenURL: b.TokenURL(), AuthStyle: oauth2.AuthStyleInHeader},
	}
}

// ClientCredentials is like [Bearer.Config] for the client_credentials grant.
func (b *Bearer) ClientCredentials(scopes ...string) *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID: b.clientID(), ClientSecret: b.clientSecret(), Scopes: scopes,
		TokenURL: b.TokenURL(), AuthStyle: oauth2.AuthStyleInHeader,
	}
}

func (b *Bearer) clientID() string { return orDefault(b.ClientID, "authtest") }

func (b *Bearer) clientSecret() string {
	if b.ClientID == "" {
		return "authtest" // any will do
	}
	return b.ClientSecret
}

func (b *Bearer) realm() string { return orDefault(b.Realm, defaultRealm) }

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

// isOf reports whether a token was issued to a client of an OAuth.
func (b *Bearer) isOf(token, client string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a, ok := b.access.get(token); ok {
		return a.client == client
	}
	r, ok := b.refresh.get(token)
	return ok && r.client == client
}

// ExpireNow lets all access tokens issued so far expire, whatever their expires_in said. Refresh tokens stay good.
//
// An authretry.TokenSource fetches no more than 8 tokens in its MinRefreshInterval, 10 seconds if it is not set, because one origin
// has refused those before, and none to replace one that has not been accepted, as that field says. A test that calls ExpireNow
// more often, or after an upload that could not be sent again, sets MinRefreshInterval to -1.
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
func (b *Bearer) Format(f fmt.State, _ rune) { formatGuard(f, "Bearer", b.realm()) }

// MarshalJSON writes the realm alone.
func (b *Bearer) MarshalJSON() ([]byte, error) { return marshalGuard(b.realm()) }

func (b *Bearer) secretHeader() string { return "Authorization" }

func (b *Bearer) check(x *exchange) verdict { return b.checkScope(x, b.Scope) }

// checkScope judges a request that needs a scope.
func (b *Bearer) checkScope(x *exchange, needed string) verdict {
	token, ok := credentials(x.r.Header.Get("Authorization"), "Bearer")
	if !ok {
		return verdict{decision: Challenged}
	}
	refused := verdict{decision: Refused, scheme: "Bearer", code: "invalid_token"}
	malformed := verdict{decision: Refused, scheme: "Bearer", code: "invalid_request", status: http.StatusBadRequest}
	switch {
	case !isB64Token(token):
		malformed.reason = "the access token is missing, or has characters that no token has"
		return malformed
	case x.r.URL.Query().Has("access_token"): // RFC 6750 §2
		malformed.reason = "there is an access token in the query, too"
		return malformed
	}
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
	case !includes(a.scope, needed):
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
	params := []string{"realm=" + quote(b.realm())} // RFC 6750 §3: one parameter at least
	// RFC 6750 §3.1: a request without credentials learns of no error.
	if v.code != "" {
		params = append(params, "error="+quote(v.code), "error_description="+quote(v.reason))
	}
	if b.Scope != "" {
		params = append(params, "scope="+quote(b.Scope))
	}
	return []string{"Bearer " + strings.Join(params, ", ")}
}

// isB64Token reports whether s is one (RFC 6750 §2.1).
func isB64Token(s string) bool {
	s = strings.TrimRight(s, "=")
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~+/", r))
	})
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
