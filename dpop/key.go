package dpop

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/authretry/authretry/internal/jws"
)

// A Key is what tokens are bound to: it makes the proofs by which each use of them is proven, and remembers for each origin
// the last nonce that came from there, be it an authorization server or a resource server. Use one Key for each login.
//
// It is an authretry.Prover, and safe for concurrent use if its crypto.Signer is. Nothing that package fmt prints of it, nor
// its JSON, shows the key.
type Key struct {
	signer     *jws.Key
	header     string // of a proof, encoded
	thumbprint string
	nonces     *nonces
}

// NewKey returns a Key that signs by s: ES256 for an *ecdsa.PrivateKey on P-256, the usual one; EdDSA for an
// ed25519.PrivateKey; RS256 for an *rsa.PrivateKey of 2048 bits or more. The key may be in a TPM, a secure enclave or a
// key management service.
func NewKey(s crypto.Signer) (*Key, error) {
	signer, err := jws.NewKey(s, "")
	if err != nil {
		return nil, fmt.Errorf("dpop: %w", err)
	}
	header, err := jws.EncodeHeader(struct {
		Type      string          `json:"typ"`
		Algorithm string          `json:"alg"`
		JWK       json.RawMessage `json:"jwk"`
	}{"dpop+jwt", signer.Algorithm(), signer.JWK()})
	if err != nil {
		return nil, fmt.Errorf("dpop: %w", err)
	}
	return &Key{signer: signer, header: header, thumbprint: signer.Thumbprint(), nonces: &nonces{}}, nil
}

// Thumbprint returns the SHA-256 thumbprint of the public key in base64url (RFC 7638). An authorization request that has it as
// dpop_jkt binds its code to the key (RFC 9449 §10).
func (k *Key) Thumbprint() string { return k.thumbprint }

// Algorithm returns the algorithm of the proofs, such as "ES256".
func (k *Key) Algorithm() string { return k.signer.Algorithm() }

// Proof returns a proof for one send of a request (RFC 9449 §4.2): no two are alike. An empty method is GET. The nonce is that
// which the server has given last; accessToken is the token that goes along. Either may be empty.
//
// [Key.Prove] finds all that by itself. Proof is for requests that do not go through net/http.
func (k *Key) Proof(method string, u *url.URL, nonce, accessToken string) (string, error) {
	if u == nil {
		return "", errNoURL
	}
	to, err := targetOf(u, "")
	if err != nil {
		return "", err
	}
	if nonce != "" && !isNonce(nonce) {
		return "", errors.New("dpop: the nonce has a character that no nonce has, or is too long (RFC 9449 §8.1)")
	}
	return k.proof(method, to.uri, nonce, hashOf(accessToken))
}

// proof returns a proof, where ath is the hash of the token that goes along, or "".
func (k *Key) proof(method, uri, nonce, ath string) (string, error) {
	if method == "" {
		method = http.MethodGet
	}
	claims, err := json.Marshal(struct {
		ID       string `json:"jti"`
		Method   string `json:"htm"`
		URI      string `json:"htu"`
		IssuedAt int64  `json:"iat"`
		Hash     string `json:"ath,omitempty"`
		Nonce    string `json:"nonce,omitempty"`
	}{rand.Text(), method, uri, time.Now().Unix(), ath, nonce})
	if err != nil {
		return "", fmt.Errorf("dpop: %w", err)
	}
	proof, err := k.signer.Sign(k.header, claims)
	if err != nil {
		return "", fmt.Errorf("dpop: the key cannot sign: %w", err)
	}
	return proof, nil
}

// hashOf returns what a proof says of an access token (ath); "" of none.
func hashOf(accessToken string) string {
	if accessToken == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(accessToken))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Prove implements authretry.Prover: it sets the header DPoP to a proof for this send of req, with the nonce of its
// origin.
func (k *Key) Prove(req *http.Request, accessToken string) error {
	return k.prove(req, hashOf(accessToken))
}

func (k *Key) prove(req *http.Request, ath string) error {
	to, err := targetOf(req.URL, req.Host)
	if err != nil {
		return err
	}
	proof, err := k.proof(req.Method, to.uri, k.nonces.of(to.origin), ath)
	if err != nil {
		return err
	}
	if req.Header == nil {
		req.Header = make(http.Header)
	}
	req.Header[proofHeader] = []string{proof}
	return nil
}

// The headers, in the form that http.Header has them.
const (
	proofHeader = "Dpop"
	nonceHeader = "Dpop-Nonce"
)

// Learn implements authretry.Prover: it remembers the nonce that resp has for the origin of resp.Request, if there is one. It
// does not read the body.
func (k *Key) Learn(resp *http.Response) {
	if resp == nil || resp.Request == nil || resp.Request.URL == nil || resp.StatusCode == http.StatusProxyAuthRequired {
		return
	}
	values := resp.Header[nonceHeader]
	if len(values) == 0 || !isNonce(values[0]) {
		return
	}
	if to, err := targetOf(resp.Request.URL, resp.Request.Host); err == nil {
		k.nonces.learn(to.origin, values[0])
	}
}

// nonceFor returns the nonce that a proof for req would have.
func (k *Key) nonceFor(req *http.Request) string {
	to, err := targetOf(req.URL, req.Host)
	if err != nil {
		return ""
	}
	return k.nonces.of(to.origin)
}

// Format keeps the key out of everything that package fmt prints.
func (k Key) Format(f fmt.State, _ rune) { io.WriteString(f, "dpop.Key{}") }

// MarshalJSON keeps the key out of JSON.
func (k Key) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }
