package authtest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A handKey makes proofs by hand, as the RFC says.
type handKey struct{ *ecdsa.PrivateKey }

func newHandKey(t *testing.T) handKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return handKey{key}
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (k handKey) jwk() map[string]any {
	return map[string]any{"kty": "EC", "crv": "P-256", "x": base64url(k.X.FillBytes(make([]byte, 32))), "y": base64url(k.Y.FillBytes(make([]byte, 32)))}
}

func (k handKey) thumbprint() string {
	jwk := k.jwk()
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, jwk["x"], jwk["y"]))
	return base64url(sum[:])
}

func (k handKey) sign(header, claims map[string]any) string {
	h, _ := json.Marshal(header)
	c, _ := json.Marshal(claims)
	signed := base64url(h) + "." + base64url(c)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, k.PrivateKey, sum[:])
	if err != nil {
		panic(err)
	}
	return signed + "." + base64url(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

func (k handKey) header() map[string]any {
	return map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": k.jwk()}
}

func proofClaims(method, uri, token string) map[string]any {
	claims := map[string]any{"jti": rand.Text(), "htm": method, "htu": uri, "iat": time.Now().Unix()}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		claims["ath"] = base64url(sum[:])
	}
	return claims
}

func TestDPoPJudgesProofs(t *testing.T) {
	key, other := newHandKey(t), newHandKey(t)
	type change = func(header, claims map[string]any)
	set := func(name string, value any) change {
		return func(_, claims map[string]any) { claims[name] = value }
	}
	header := func(name string, value any) change {
		return func(header, _ map[string]any) { header[name] = value }
	}
	private := key.jwk()
	private["d"] = base64url(key.D.Bytes())
	for name, c := range map[string]struct {
		change change
		code   string // "" if it is accepted
		reason string
	}{
		"good":               {func(_, _ map[string]any) {}, "", ""},
		"another method":     {set("htm", "post"), "invalid_dpop_proof", "htm"},
		"with a query":       {func(_, c map[string]any) { c["htu"] = c["htu"].(string) + "?x=1" }, "invalid_dpop_proof", "htu"},
		"another path":       {func(_, c map[string]any) { c["htu"] = c["htu"].(string) + "b" }, "invalid_dpop_proof", "htu"},
		"another host":       {set("htu", "http://elsewhere/a"), "invalid_dpop_proof", "htu"},
		"another token":      {set("ath", "x"), "invalid_dpop_proof", "ath"},
		"of no token":        {func(_, c map[string]any) { delete(c, "ath") }, "invalid_dpop_proof", "ath"},
		"no jti":             {set("jti", ""), "invalid_dpop_proof", "jti"},
		"no iat":             {func(_, c map[string]any) { delete(c, "iat") }, "invalid_dpop_proof", "iat"},
		"old":                {set("iat", time.Now().Add(-time.Hour).Unix()), "invalid_dpop_proof", "iat"},
		"of the future":      {set("iat", time.Now().Add(time.Hour).Unix()), "invalid_dpop_proof", "iat"},
		"of another type":    {header("typ", "JWT"), "invalid_dpop_proof", "typ"},
		"of no algorithm":    {header("alg", "none"), "invalid_dpop_proof", "alg"},
		"a wrong algorithm":  {header("alg", "RS256"), "invalid_dpop_proof", "signature"},
		"a private key":      {header("jwk", private), "invalid_dpop_proof", "private"},
		"no key":             {header("jwk", nil), "invalid_dpop_proof", "jwk"},
		"another public key": {header("jwk", other.jwk()), "invalid_dpop_proof", "signature"},
	} {
		t.Run(name, func(t *testing.T) {
			guard := &authtest.DPoP{Realm: "x"}
			srv := authtest.NewServer(guard)
			defer srv.Close()
			token := guard.Login(key.thumbprint()).AccessToken
			h, claims := key.header(), proofClaims("GET", srv.URL+"/a", token)
			c.change(h, claims)
			r := sendProof(t, srv, srv.URL+"/a?x=1", "DPoP "+token, key.sign(h, claims))
			if c.code == "" {
				require.Equal(t, authtest.Accepted, r.Decision, r.Reason)
				return
			}
			require.Equal(t, 401, r.Status)
			require.Contains(t, r.Reason, c.reason)
			require.Contains(t, r.ResponseHeader.Get("WWW-Authenticate"), `DPoP realm="x", error="`+c.code+`"`)
			require.Contains(t, r.ResponseHeader.Get("WWW-Authenticate"), `algs="ES256 EdDSA RS256"`)
		})
	}
}

// sendProof sends a request, and returns its record.
func sendProof(t *testing.T, srv *authtest.Server, target, authorization string, proofs ...string) authtest.Request {
	req, err := http.NewRequest("GET", target, nil)
	require.NoError(t, err)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	for _, proof := range proofs {
		req.Header.Add("DPoP", proof)
	}
	resp, err := srv.Client().Do(req)
	require.NoError(t, err)
	resp.Body.Close()
	all := srv.Requests()
	return all[len(all)-1]
}

func TestDPoPLast64NoncesAreGood(t *testing.T) {
	key := newHandKey(t)
	guard := &authtest.DPoP{Nonces: authtest.NonceEachTime}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	token := guard.Login(key.thumbprint()).AccessToken
	var given []string
	send := func(nonce string) authtest.Request {
		claims := proofClaims("GET", srv.URL+"/", token)
		claims["nonce"] = nonce
		r := sendProof(t, srv, srv.URL+"/", "DPoP "+token, key.sign(key.header(), claims))
		given = append(given, r.ResponseHeader.Get("DPoP-Nonce"))
		return r
	}
	for range 70 {
		send("none that was given")
	}
	for i := range thorough.Or(150, 10) {
		// The answer gives another one before the proof is judged, so the last 64 are that one and 63 of those before.
		require.Equal(t, authtest.Accepted, send(given[len(given)-63]).Decision, i)
		require.Equal(t, authtest.Refused, send(given[len(given)-64]).Decision, i)
	}
}

func TestDPoPJudgesTokens(t *testing.T) {
	key, other := newHandKey(t), newHandKey(t)
	guard := &authtest.DPoP{Scope: "write"}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	send := func(k handKey, scheme, token string) authtest.Request {
		return sendProof(t, srv, srv.URL+"/", scheme+" "+token, k.sign(k.header(), proofClaims("GET", srv.URL+"/", token)))
	}
	token := guard.Login(key.thumbprint(), "read", "write").AccessToken
	require.Equal(t, authtest.Accepted, send(key, "DPoP", token).Decision)
	require.Equal(t, authtest.Accepted, send(key, "dpop", token).Decision)
	require.Equal(t, authtest.Challenged, send(key, "Bearer", token).Decision, "no downgrade")
	require.Contains(t, send(other, "DPoP", token).Reason, "another key")
	require.Contains(t, send(key, "DPoP", "nonsense").Reason, "unknown")
	narrow := send(key, "DPoP", guard.Login(key.thumbprint(), "read").AccessToken)
	require.Equal(t, 403, narrow.Status)
	require.Contains(t, narrow.ResponseHeader.Get("WWW-Authenticate"), "insufficient_scope")

	proof := key.sign(key.header(), proofClaims("GET", srv.URL+"/", token))
	require.Equal(t, authtest.Accepted, sendProof(t, srv, srv.URL+"/", "DPoP "+token, proof).Decision)
	require.Contains(t, sendProof(t, srv, srv.URL+"/", "DPoP "+token, proof).Reason, "used before")
	require.Equal(t, 1, guard.Replays())
	fresh := key.sign(key.header(), proofClaims("GET", srv.URL+"/", token))
	require.NotEqual(t, authtest.Accepted, sendProof(t, srv, srv.URL+"/", "DPoP "+token, fresh, fresh).Decision)
	require.NotEqual(t, authtest.Accepted, sendProof(t, srv, srv.URL+"/", "DPoP "+token).Decision)
	for _, r := range srv.Requests() {
		dump, err := json.Marshal(r)
		require.NoError(t, err)
		require.NotContains(t, string(dump), fresh, "proofs are masked")
	}
	guard.Revoke(token)
	require.Contains(t, send(key, "DPoP", token).Reason, "revoked")
	guard.ExpireNow()
	require.Contains(t, send(key, "DPoP", guard.Login(key.thumbprint()).AccessToken).Reason, "scope")
}

func TestDPoPNonces(t *testing.T) {
	key := newHandKey(t)
	for name, nonces := range map[string]authtest.Nonces{"each time": authtest.NonceEachTime, "each minute": authtest.NonceEachMinute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				guard := &authtest.DPoP{Nonces: nonces, AsBearer: true}
				srv := authtest.NewPipeServer(guard)
				defer srv.Close()
				token := guard.Login(key.thumbprint()).AccessToken
				send := func(nonce string) authtest.Request {
					claims := proofClaims("GET", srv.URL+"/", token)
					maps.Copy(claims, map[string]any{"nonce": nonce, "iat": 1}) // the nonce is what counts
					return sendProof(t, srv, srv.URL+"/", "DPoP "+token, key.sign(key.header(), claims))
				}
				r := send("x")
				require.Contains(t, r.ResponseHeader.Get("WWW-Authenticate"), `Bearer realm="authtest", error="use_dpop_nonce"`)
				first := r.ResponseHeader.Get("DPoP-Nonce")
				r = send(first)
				require.Equal(t, authtest.Accepted, r.Decision)
				require.Equal(t, nonces == authtest.NonceEachMinute, r.ResponseHeader.Get("DPoP-Nonce") == first)
				time.Sleep(time.Minute)
				require.Equal(t, authtest.Accepted, send(first).Decision)
				guard.ForgetNonces()
				require.NotEqual(t, authtest.Accepted, send(first).Decision)
			})
		})
	}
}

// A handProver is an authretry.Prover made by hand.
type handProver struct {
	handKey
	nonce string
}

func (p *handProver) Prove(req *http.Request, _ string) error {
	claims := proofClaims(req.Method, req.URL.String(), "")
	if p.nonce != "" {
		claims["nonce"] = p.nonce
	}
	req.Header.Set("DPoP", p.sign(p.header(), claims))
	return nil
}
func (p *handProver) Learn(resp *http.Response) { p.nonce = resp.Header.Get("DPoP-Nonce") }
func (p *handProver) Thumbprint() string        { return p.thumbprint() }

func TestDPoPEndpoint(t *testing.T) {
	_, clientKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	idp := newHandKey(t)
	guard := &authtest.DPoP{Nonces: authtest.NonceEachTime, ClientID: "app", ClientKey: clientKey.Public(), Issuer: "https://issuer.example", AssertionKey: &idp.PublicKey}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	prover := &handProver{handKey: newHandKey(t)}
	endpoint := func(change func(*authretry.TokenEndpoint)) *authretry.TokenEndpoint {
		e := &authretry.TokenEndpoint{URL: guard.TokenURL(), ClientID: "app", Issuer: guard.Issuer, Auth: &authretry.PrivateKeyJWT{Signer: clientKey}, Proof: prover}
		change(e)
		return e
	}
	fetch := func(f authretry.FetchFunc, previous *oauth2.Token) (*oauth2.Token, string) {
		token, err := f(context.Background(), authretry.TokenRequest{Previous: previous})
		if r, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
			return nil, r.ErrorCode
		}
		require.NoError(t, err)
		require.Equal(t, "DPoP", token.TokenType)
		return token, ""
	}
	good := endpoint(func(*authretry.TokenEndpoint) {})
	code := guard.Code("")
	token, failure := fetch(good.AuthorizationCode(code, "", ""), nil)
	require.Empty(t, failure)
	require.Equal(t, 2, srv.Counts().TokenRequests, "once for the nonce")
	_, failure = fetch(good.AuthorizationCode(code, "", ""), nil)
	require.Equal(t, "invalid_grant", failure)
	_, failure = fetch(good.AuthorizationCode(guard.Code("another key"), "", ""), nil)
	require.Equal(t, "invalid_grant", failure)
	next, failure := fetch(good.Refresh(), token)
	require.Empty(t, failure)
	another := endpoint(func(e *authretry.TokenEndpoint) { e.Proof = &handProver{handKey: newHandKey(t)} })
	_, failure = fetch(another.Refresh(), &oauth2.Token{RefreshToken: next.RefreshToken})
	require.Equal(t, "invalid_grant", failure, "bound to a key")
	_, failure = fetch(good.ClientCredentials("read"), nil)
	require.Empty(t, failure)
	_, failure = fetch(good.Refresh(), next)
	require.Empty(t, failure)
	_, failure = fetch(good.Refresh(), next)
	require.Equal(t, "invalid_grant", failure)
	require.Equal(t, 1, guard.Reuses())

	assertion := func(audience string, expiry time.Duration) func(context.Context, authretry.TokenRequest) (string, error) {
		return func(context.Context, authretry.TokenRequest) (string, error) {
			return idp.sign(map[string]any{"alg": "ES256"}, map[string]any{"iss": "idp", "sub": "u", "aud": audience, "jti": rand.Text(), "exp": time.Now().Add(expiry).Unix()}), nil
		}
	}
	_, failure = fetch(good.JWTBearer(assertion(guard.Issuer, time.Minute)), nil)
	require.Empty(t, failure)
	for _, bad := range []func(context.Context, authretry.TokenRequest) (string, error){
		assertion("elsewhere", time.Minute), assertion(guard.Issuer, -time.Minute), assertion(guard.Issuer, 48*time.Hour),
		func(context.Context, authretry.TokenRequest) (string, error) { return "x.y.z", nil },
	} {
		_, failure = fetch(good.JWTBearer(bad), nil)
		require.Equal(t, "invalid_grant", failure)
	}

	_, wrong, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	replayed := ""
	for name, change := range map[string]func(*authretry.TokenEndpoint){
		"no assertion":    func(e *authretry.TokenEndpoint) { e.Auth = nil },
		"a secret":        func(e *authretry.TokenEndpoint) { e.Auth = authretry.SecretBasic("s") },
		"another key":     func(e *authretry.TokenEndpoint) { e.Auth = &authretry.PrivateKeyJWT{Signer: wrong} },
		"another client":  func(e *authretry.TokenEndpoint) { e.ClientID = "other" },
		"for another one": func(e *authretry.TokenEndpoint) { e.Issuer = "https://other.example" },
		"used before": func(e *authretry.TokenEndpoint) {
			form := url.Values{}
			require.NoError(t, e.Auth.Authenticate(context.Background(), e, form, nil))
			replayed = form.Get("client_assertion")
			e.Auth = authretry.Assertion(func(context.Context) (string, error) { return replayed, nil })
			_, failure := fetch(e.ClientCredentials(), nil)
			require.Empty(t, failure)
		},
	} {
		_, failure := fetch(endpoint(change).ClientCredentials(), nil)
		require.Equal(t, "invalid_client", failure, name)
	}
	resp, err := http.PostForm(guard.TokenURL(), url.Values{"grant_type": {"client_credentials"}})
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 400, resp.StatusCode, "no proof")
}

func TestDPoPOfNoUse(t *testing.T) {
	require.Panics(t, func() { authtest.NewServer(&authtest.DPoP{Algorithms: []string{"none"}}) })
	require.Panics(t, func() { (&authtest.DPoP{}).TokenURL() })
	guard := &authtest.DPoP{Realm: "x"}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	secret := guard.Login("k").AccessToken
	text, err := json.Marshal(guard)
	require.NoError(t, err)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v %s", guard, guard, guard, guard)+string(text), secret)
	require.True(t, strings.Contains(fmt.Sprint(guard), "DPoP"))
}
