package authtest

import (
	"crypto"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
)

// DPoP is a [Guard] that asks for an access token and a proof of the key that it is bound to (RFC 9449), and the token
// endpoint that issues such tokens: POST to [DPoP.TokenURL] with grant_type refresh_token, client_credentials,
// authorization_code or urn:ietf:params:oauth:grant-type:jwt-bearer. A DPoP belongs to one server. Its fields must not be
// changed once it is in use.
//
// Of a proof it checks typ, alg, jwk and signature, htm, htu, iat, ath, nonce, that its jti was not used before, and that
// the token is bound to its key. As real servers do, it judges the nonce before the token. Where no nonces are asked for, iat
// may be a minute off; where they are, the clock does not count.
//
// Tokens are as those of a [Bearer]. A refresh token is bound to the key of the first proof, whether the client is
// public or not.
type DPoP struct {
	Realm         string        // of the challenge; "authtest" if empty
	Scope         string        // scopes separated by spaces that a token must have, or the answer is 403; none if empty
	TokenLifetime time.Duration // of an access token; an hour if 0

	Nonces     Nonces   // which nonces are asked for, at both ends: NonceEachTime or NonceEachMinute; NoNonces if 0
	Algorithms []string // of proofs, also for algs; ES256, EdDSA and RS256 if empty
	AsBearer   bool     // refusals have a challenge of Bearer, as those of Apache's mod_oauth2 do

	TokenPath              string           // of the token endpoint; "/token" if empty
	ClientID, ClientSecret string           // what the endpoint wants, by Basic or in the form; anything if ClientID is empty
	ClientKey              crypto.PublicKey // if not nil, the client must authenticate by a JWT that this key verifies (private_key_jwt)
	Issuer                 string           // for whom such a JWT must be; if empty, the TokenURL
	AssertionKey           crypto.PublicKey // that verifies what the JWT bearer grant presents; if nil, there is no such grant

	TokenType       string // in token responses; "DPoP" if empty
	RevokeOnRefresh bool   // a refresh ends the old access token at once

	tokens Bearer // which issues them; its mu guards the tokens

	mu         sync.Mutex // guards everything below
	step       int        // of the nonce, where somebody asked for another one
	nonces     []string   // the last maxNonces of NonceEachTime, the latest last
	jtis       map[string]bool
	replays    int
	codes      map[string]string // authorization codes, and the keys that they are bound to
	assertions map[string]bool   // the jti of each
}

// Nonces says which nonces a [DPoP] asks for.
type Nonces int

// The kinds of nonces.
const (
	NoNonces        Nonces = iota // none
	NonceEachTime                 // another one comes with each answer, and only the last 64 are good
	NonceEachMinute               // another one each minute; that of the minute before is good as well
)

// maxNonces is how many nonces of NonceEachTime are good.
const maxNonces = 64

// Login issues the first tokens, as a login in the browser would, bound to the key with that thumbprint (RFC 7638).
func (d *DPoP) Login(thumbprint string, scopes ...string) *oauth2.Token {
	d.tokens.mu.Lock()
	defer d.tokens.mu.Unlock()
	scope := strings.Join(scopes, " ")
	return d.issue(&family{scope: scope, jkt: thumbprint}, scope, true)
}

// Code issues an authorization code, which is good once. If the thumbprint is not "", it is bound to that key (dpop_jkt,
// RFC 9449 §10).
func (d *DPoP) Code(thumbprint string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.codes == nil {
		d.codes = map[string]string{}
	}
	code := "code-" + rand.Text()
	d.codes[code] = thumbprint
	return code
}

// TokenURL returns the URL of the token endpoint. It panics if the DPoP is on no server.
func (d *DPoP) TokenURL() string {
	d.tokens.mu.Lock()
	defer d.tokens.mu.Unlock()
	if d.tokens.server == nil {
		panic("authtest: this DPoP protects no server yet")
	}
	return d.tokens.server.URL + d.tokenPath()
}

// Revoke ends the token, as [Bearer.Revoke] does.
func (d *DPoP) Revoke(token string) bool { return d.tokens.Revoke(token) }

// ExpireNow lets all access tokens issued so far expire, as [Bearer.ExpireNow] does. A test that calls it more than 8 times sets
// MinRefreshInterval of the authretry.TokenSource to -1.
func (d *DPoP) ExpireNow() { d.tokens.ExpireNow() }

// Reuses returns how often a refresh token was used that had been used before.
func (d *DPoP) Reuses() int { return d.tokens.Reuses() }

// ForgetNonces makes all nonces of the past bad.
func (d *DPoP) ForgetNonces() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.step++
	d.nonces = nil
}

// Replays returns how often a proof, or an assertion at the token endpoint, was used that had been used before.
func (d *DPoP) Replays() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.replays
}

// Proofs returns how many good proofs there were.
func (d *DPoP) Proofs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.jtis)
}

func (d *DPoP) tokenPath() string { return orDefault(d.TokenPath, "/token") }

func (d *DPoP) realm() string { return orDefault(d.Realm, defaultRealm) }

func (d *DPoP) algorithms() []string {
	if len(d.Algorithms) == 0 {
		return []string{"ES256", "EdDSA", "RS256"}
	}
	return d.Algorithms
}

func (d *DPoP) problem() string {
	isUnknown := func(alg string) bool { return !slices.Contains([]string{"ES256", "EdDSA", "RS256", "PS256"}, alg) }
	return firstProblem(
		headerProblem("the realm", d.Realm),
		when(slices.ContainsFunc(d.Algorithms, isUnknown), "it has an algorithm that is unknown"),
		when(d.Scope != "" && !isScope(d.Scope), "its Scope is not scopes with one space between them (RFC 6749 §3.3)"),
		when(d.TokenLifetime < 0, "its TokenLifetime is negative, so no token could ever be good"),
		when(!isPath(d.tokenPath()), "its TokenPath is no path"),
		when(d.ClientSecret != "" && d.ClientID == "", "it has a ClientSecret and no ClientID"),
		when(hasControl(d.TokenType), "its TokenType has a control character"),
	)
}

func (d *DPoP) attach(s *Server) {
	d.tokens.mu.Lock()
	defer d.tokens.mu.Unlock()
	if d.tokens.server != nil && d.tokens.server != s {
		panic("authtest: this DPoP protects another server already")
	}
	d.tokens.server = s
	d.tokens.TokenLifetime, d.tokens.RevokeOnRefresh = d.TokenLifetime, d.RevokeOnRefresh
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.tokens[d.tokenPath()]; other != nil && other != d {
		panic("authtest: two guards of one server need different TokenPaths")
	}
	s.tokens[d.tokenPath()] = d
}

// Format writes the type and the realm, whatever the verb: no secret, and nothing that changes.
func (d *DPoP) Format(f fmt.State, _ rune) { formatGuard(f, "DPoP", d.realm()) }

// MarshalJSON writes the realm alone.
func (d *DPoP) MarshalJSON() ([]byte, error) { return marshalGuard(d.realm()) }

func (d *DPoP) secretHeader() string { return "Dpop" }

func (d *DPoP) check(x *exchange) verdict {
	d.giveNonce(x.w.Header())
	token, ok := credentials(x.r.Header.Get("Authorization"), "DPoP")
	if !ok {
		return verdict{decision: Challenged}
	}
	refused := verdict{decision: Refused, scheme: "DPoP"}
	key, code, reason := d.judge(x, token)
	if code != "" {
		refused.code, refused.reason = code, reason
		return refused
	}
	refused.code = "invalid_token"
	d.tokens.mu.Lock()
	defer d.tokens.mu.Unlock()
	a, known := d.tokens.access.get(token)
	switch {
	case !known:
		refused.reason = "the access token is unknown"
	case a.dead || a.revoked:
		refused.reason = "the access token was revoked"
	case !time.Now().Before(a.expires):
		refused.reason = "the access token expired"
	case a.jkt != key:
		refused.reason = "the access token is bound to another key"
	case !includes(a.scope, d.Scope):
		refused.reason, refused.code, refused.status =
			"the access token lacks the scope", "insufficient_scope", http.StatusForbidden
	default:
		return verdict{decision: Accepted, scheme: "DPoP"}
	}
	return refused
}

// giveNonce puts the nonce for the next proof into the header of an answer.
func (d *DPoP) giveNonce(h http.Header) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch d.Nonces {
	case NonceEachTime:
		nonce := "n-" + rand.Text()
		d.nonces = appendBounded(d.nonces, nonce, maxNonces)
		h.Set("DPoP-Nonce", nonce)
	case NonceEachMinute:
		h.Set("DPoP-Nonce", d.nonceOf(time.Now()))
	}
}

// nonceOf returns the nonce of a minute. The caller holds mu.
func (d *DPoP) nonceOf(t time.Time) string { return fmt.Sprintf("m-%d-%d", d.step, t.Unix()/60) }

// isGood reports whether a nonce is good.
func (d *DPoP) isGood(nonce string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch now := time.Now(); d.Nonces {
	case NonceEachTime:
		return slices.Contains(d.nonces, nonce)
	case NonceEachMinute:
		return nonce == d.nonceOf(now) || nonce == d.nonceOf(now.Add(-time.Minute))
	}
	return true
}

func (d *DPoP) challenges(v verdict) []string {
	params := []string{"realm=" + quote(d.realm())}
	if v.code != "" {
		params = append(params, "error="+quote(v.code), "error_description="+quote(v.reason))
	}
	if d.Scope != "" {
		params = append(params, "scope="+quote(d.Scope))
	}
	if d.AsBearer {
		return []string{"Bearer " + strings.Join(params, ", ")}
	}
	params = append(params, "algs="+quote(strings.Join(d.algorithms(), " ")))
	return []string{"DPoP " + strings.Join(params, ", ")}
}

// issue makes tokens that are bound to the key of the family. The caller holds tokens.mu.
func (d *DPoP) issue(f *family, scope string, withRefresh bool) *oauth2.Token {
	t := d.tokens.issue(f, scope, withRefresh)
	t.TokenType = orDefault(d.TokenType, "DPoP")
	return t
}
