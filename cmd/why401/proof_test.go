package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/authretry/authretry/dpop"
	"github.com/stretchr/testify/require"
)

// The keys of the tests, as members of a proof's header (RFC 7517).
const (
	ourKey   = `{"kty":"EC","crv":"P-256","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","y":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	otherKey = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
)

// signed makes a token whose signature nobody checks.
func signed(header, claims string) string {
	e := base64.RawURLEncoding
	return e.EncodeToString([]byte(header)) + "." + e.EncodeToString([]byte(claims)) + "." + e.EncodeToString([]byte("a signature of the test itself, of as many bytes as ES256 has it"))
}

// TestProofs reads proofs without their keys, and says what cannot be right.
func TestProofs(t *testing.T) {
	bound := signed(`{"alg":"ES256","kid":"k1"}`, fmt.Sprintf(`{"iss":"https://login.example.com","exp":%d,"cnf":{"jkt":%q}}`, noon.Unix()+3600, thumbprint(json.RawMessage(ourKey))))
	withCertificate := signed(`{"alg":"ES256"}`, fmt.Sprintf(`{"exp":%d,"cnf":{"x5t#S256":"x"}}`, noon.Unix()+3600))
	hash := sha256.Sum256([]byte(bound))
	ath := base64.RawURLEncoding.EncodeToString(hash[:])
	proof := func(key, typ, htm, htu, ath string, age int64, nonce string) string {
		return signed(fmt.Sprintf(`{"typ":%q,"alg":"ES256","jwk":%s}`, typ, key), fmt.Sprintf(`{"jti":"jti-0123456789","htm":%q,"htu":%q,"ath":%q,"iat":%d,"nonce":%q}`, htm, htu, ath, noon.Unix()-age, nonce))
	}
	const home = "https://api.example.com/"
	asDPoP, asBearer := "Authorization: DPoP "+bound, "Authorization: Bearer "+bound
	refusal := says(401, `WWW-Authenticate: DPoP realm="cave", error="invalid_dpop_proof", algs="ES256 EdDSA"`)
	wantsNonce := says(401, "WWW-Authenticate: DPoP error=\"use_dpop_nonce\"\nDPoP-Nonce: nonce-of-now")
	for _, c := range []struct {
		name   string
		server http.Handler
		args   []string
	}{
		{"dpop-good", refusal, []string{"-H", asDPoP, "-H", "DPoP: " + proof(ourKey, "dpop+jwt", "GET", home, ath, 1, "")}},
		{"dpop-all-wrong", refusal, []string{"-H", asDPoP, "-H", "DPoP: " + proof(otherKey, "JWT", "POST", "https://api.example.com/other", "x", 3600, "")}},
		{"dpop-no-nonce", wantsNonce, []string{"-H", asDPoP, "-H", "DPoP: " + proof(ourKey, "dpop+jwt", "GET", "https://api.example.com", ath, 1, "")}},
		{"dpop-old-nonce", wantsNonce, []string{"-H", asDPoP, "-H", "DPoP: " + proof(ourKey, "dpop+jwt", "GET", home, "", 1, "nonce-of-old")}},
		{"dpop-no-proof", refusal, []string{"-H", asDPoP}},
		{"dpop-no-jwt", refusal, []string{"-H", asDPoP, "-H", "DPoP: " + apiKey}},
		{"dpop-as-bearer", refusal, []string{"-H", asBearer}},
		{"certificate-bound", says(401, "WWW-Authenticate: Bearer error=\"invalid_token\""), []string{"-H", "Authorization: Bearer " + withCertificate}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, map[string]http.Handler{"api.example.com": c.server})
			out, status := w.run(append(c.args, home), "", true)
			require.Equal(t, exitRefused, status)
			for _, secret := range []string{bound, withCertificate, ath, "jti-0123456789", "c2lnbmF0dXJl", apiKey} {
				require.NotContains(t, out, secret)
			}
			golden(t, c.name+".txt", out)
		})
	}
}

// TestThumbprint compares thumbprints with those of package dpop.
func TestThumbprint(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	key, err := dpop.NewKey(private)
	require.NoError(t, err)
	req, err := http.NewRequest("GET", "https://api.example.com/", nil)
	require.NoError(t, err)
	require.NoError(t, key.Prove(req, "token"))
	p := decodeJWT(req.Header.Get("DPoP"))
	require.NotNil(t, p)
	require.Equal(t, key.Thumbprint(), thumbprint(p.Header.Key))
	require.Equal(t, []string{"GET", "https://api.example.com/"}, []string{p.Method, p.URL})
	for _, key := range []string{"", "{}", `{"kty":"EC"}`, `{"kty":7}`, "[]"} {
		require.Empty(t, thumbprint(json.RawMessage(key)))
	}
}
