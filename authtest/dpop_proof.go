package authtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// proofClaims are those of a proof (RFC 9449 §4.2).
type proofClaims struct {
	ID       string  `json:"jti"`
	Method   string  `json:"htm"`
	URI      string  `json:"htu"`
	IssuedAt float64 `json:"iat"`
	Hash     string  `json:"ath"`
	Nonce    string  `json:"nonce"`
}

// judge judges the proof of a request, with which the token came; "" at the token endpoint. It returns the thumbprint of its
// key, or an error code and why.
func (d *DPoP) judge(x *exchange, token string) (key, code, reason string) {
	values := x.r.Header["Dpop"]
	if len(values) != 1 {
		return "", "invalid_dpop_proof", "there is not one DPoP header"
	}
	claims, key, err := readProof(values[0], d.algorithms())
	if err == nil {
		err = claims.check(x.r, token)
	}
	switch {
	case err != nil:
		return "", "invalid_dpop_proof", err.Error()
	case d.Nonces == NoNonces && (claims.IssuedAt < float64(time.Now().Add(-time.Minute).Unix()) || claims.IssuedAt > float64(time.Now().Add(time.Minute).Unix())):
		return "", "invalid_dpop_proof", "iat is not now"
	case !d.isGood(claims.Nonce):
		return "", "use_dpop_nonce", "the proof has no nonce that is good"
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.jtis[claims.ID] {
		d.replays++
		return "", "invalid_dpop_proof", "the proof was used before"
	}
	if d.jtis == nil {
		d.jtis = map[string]bool{}
	}
	d.jtis[claims.ID] = true
	return key, "", ""
}

// check checks what a proof says of the request that it came with.
func (c *proofClaims) check(r *http.Request, token string) error {
	switch {
	case len(c.ID) < 16: // 96 bits, in base64
		return errors.New("jti is missing, or could be guessed")
	case c.Method != r.Method:
		return errors.New("htm is not the method")
	case c.IssuedAt == 0:
		return errors.New("iat is missing")
	}
	hash := ""
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		hash = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	if c.Hash != hash {
		return errors.New("ath is not the hash of the token")
	}
	if u, err := url.Parse(c.URI); err != nil || !isTarget(u, r) {
		return errors.New("htu is not the URL without query and fragment")
	}
	return nil
}

// isTarget reports whether u is where r has come to, as the server sees it.
func isTarget(u *url.URL, r *http.Request) bool {
	scheme, port := "http", "80"
	if r.TLS != nil {
		scheme, port = "https", "443"
	}
	host := r.Host
	if name, p, err := net.SplitHostPort(host); err == nil && p == port {
		host = name
	}
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	return u.Scheme == scheme && u.Host == strings.ToLower(host) && u.EscapedPath() == path && u.RawQuery == "" && !u.ForceQuery && u.Fragment == "" && u.User == nil
}

// readProof reads a proof, and returns the thumbprint of the key that has signed it (RFC 7638).
func readProof(proof string, algorithms []string) (*proofClaims, string, error) {
	var header struct {
		Type      string                     `json:"typ"`
		Algorithm string                     `json:"alg"`
		JWK       map[string]json.RawMessage `json:"jwk"`
	}
	var claims proofClaims
	signed, signature, err := readJWS(proof, &header, &claims)
	switch {
	case err != nil:
		return nil, "", err
	case header.Type != "dpop+jwt":
		return nil, "", errors.New("typ is not dpop+jwt")
	case !slices.Contains(algorithms, header.Algorithm):
		return nil, "", errors.New("alg is not one that is offered")
	}
	key, thumbprint, err := readJWK(header.JWK)
	if err != nil {
		return nil, "", err
	}
	if !verifies(key, header.Algorithm, signed, signature) {
		return nil, "", errors.New("the signature is wrong")
	}
	return &claims, thumbprint, nil
}

// readJWS reads a JWS in compact form (RFC 7515 §7.1). It does not look at the signature.
func readJWS(text string, header, claims any) (signed string, signature []byte, err error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return "", nil, errors.New("it is no JWS in compact form")
	}
	var data [3][]byte
	for i, part := range parts {
		if data[i], err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil {
			return "", nil, errors.New("a part of the JWS is not base64url")
		}
	}
	if json.Unmarshal(data[0], header) != nil || json.Unmarshal(data[1], claims) != nil {
		return "", nil, errors.New("a part of the JWS is not JSON")
	}
	return parts[0] + "." + parts[1], data[2], nil
}

// readJWK reads a public key (RFC 7517), and returns its thumbprint besides.
func readJWK(jwk map[string]json.RawMessage) (key crypto.PublicKey, thumbprint string, err error) {
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, ok := jwk[private]; ok {
			return nil, "", errors.New("jwk has a private key")
		}
	}
	text := func(name string) (s string) {
		_ = json.Unmarshal(jwk[name], &s)
		return s
	}
	number := func(name string) []byte {
		b, _ := base64.RawURLEncoding.DecodeString(text(name))
		return b
	}
	var canonical string
	switch kind := text("kty"); {
	case kind == "EC" && text("crv") == "P-256" && len(number("x")) == 32 && len(number("y")) == 32:
		point := append(append([]byte{4}, number("x")...), number("y")...)
		key, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
		canonical = fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, text("x"), text("y"))
	case kind == "OKP" && text("crv") == "Ed25519" && len(number("x")) == ed25519.PublicKeySize:
		key = ed25519.PublicKey(number("x"))
		canonical = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, text("x"))
	case kind == "RSA" && len(number("n")) >= 256 && len(number("e")) > 0 && len(number("e")) <= 4:
		key = &rsa.PublicKey{N: new(big.Int).SetBytes(number("n")), E: int(new(big.Int).SetBytes(number("e")).Int64())}
		canonical = fmt.Sprintf(`{"e":%q,"kty":"RSA","n":%q}`, text("e"), text("n"))
	default:
		return nil, "", errors.New("jwk is none on P-256, of Ed25519, or RSA with 2048 bits")
	}
	if err != nil {
		return nil, "", errors.New("jwk is no point of its curve")
	}
	sum := sha256.Sum256([]byte(canonical))
	return key, base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// verifies reports whether the signature is that of the key.
func verifies(key crypto.PublicKey, alg, signed string, signature []byte) bool {
	sum := sha256.Sum256([]byte(signed))
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return alg == "ES256" && len(signature) == 64 && // RFC 7518 §3.4
			ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	case ed25519.PublicKey:
		return alg == "EdDSA" && ed25519.Verify(key, []byte(signed), signature)
	case *rsa.PublicKey:
		switch alg {
		case "RS256":
			return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil
		case "PS256":
			return rsa.VerifyPSS(key, crypto.SHA256, sum[:], signature, nil) == nil
		}
	}
	return false
}
