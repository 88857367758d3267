// Package jws signs JSON Web Signatures in compact form (RFC 7515), with what crypto.Signer has.
package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// The algorithms that a Key may sign by (RFC 7518 §3.1, RFC 8037 §3.1).
const (
	ES256 = "ES256"
	EdDSA = "EdDSA"
	RS256 = "RS256"
	PS256 = "PS256"
)

// A Key signs by one algorithm. It is safe for concurrent use if its crypto.Signer is.
type Key struct {
	signer crypto.Signer
	alg    string
	jwk    []byte
}

// NewKey returns a Key that signs by alg; if that is empty, by ES256 for a key on P-256, EdDSA for Ed25519, RS256 for RSA.
func NewKey(signer crypto.Signer, alg string) (*Key, error) {
	if signer == nil {
		return nil, errors.New("there is no key: the Signer is nil")
	}
	k := &Key{signer: signer, alg: alg}
	var usual string
	var members any
	switch public := signer.Public().(type) {
	case *ecdsa.PublicKey:
		if public.Curve != elliptic.P256() {
			return nil, errors.New("an elliptic key must be on P-256")
		}
		point, err := public.Bytes()
		if err != nil {
			return nil, errors.New("the key is not a point of P-256")
		}
		usual = ES256
		members = struct {
			Crv string `json:"crv"`
			Kty string `json:"kty"`
			X   string `json:"x"`
			Y   string `json:"y"`
		}{"P-256", "EC", encode(point[1:33]), encode(point[33:])}
	case ed25519.PublicKey:
		usual = EdDSA
		members = struct {
			Crv string `json:"crv"`
			Kty string `json:"kty"`
			X   string `json:"x"`
		}{"Ed25519", "OKP", encode(public)}
	case *rsa.PublicKey:
		if public.N.BitLen() < 2048 {
			return nil, errors.New("an RSA key must have 2048 bits or more")
		}
		if usual = RS256; alg == PS256 {
			usual = PS256
		}
		members = struct {
			E   string `json:"e"`
			Kty string `json:"kty"`
			N   string `json:"n"`
		}{encode(big.NewInt(int64(public.E)).Bytes()), "RSA", encode(public.N.Bytes())}
	default:
		return nil, fmt.Errorf("a key of type %T cannot sign; it must be one on P-256, Ed25519 or RSA", public)
	}
	if k.alg == "" {
		k.alg = usual
	}
	if k.alg != usual {
		return nil, fmt.Errorf("a key of type %T does not sign by %q", signer.Public(), alg)
	}
	var err error
	k.jwk, err = json.Marshal(members)
	return k, err
}

// Algorithm returns the algorithm.
func (k *Key) Algorithm() string { return k.alg }

// JWK returns the public key as JSON (RFC 7517), in the form of which a thumbprint is made (RFC 7638 §3).
func (k *Key) JWK() []byte { return k.jwk }

// Thumbprint returns the SHA-256 thumbprint of the public key, in base64url (RFC 7638).
func (k *Key) Thumbprint() string {
	sum := sha256.Sum256(k.jwk)
	return encode(sum[:])
}

// Sign returns a token with a header that is encoded already, and claims in JSON.
func (k *Key) Sign(header string, claims []byte) (string, error) {
	text := make([]byte, 0, len(header)+1+base64.RawURLEncoding.EncodedLen(len(claims)+256)+2)
	text = append(text, header...)
	text = append(text, '.')
	text = base64.RawURLEncoding.AppendEncode(text, claims)
	signature, err := k.sign(text)
	if err != nil {
		return "", err
	}
	text = append(text, '.')
	return string(base64.RawURLEncoding.AppendEncode(text, signature)), nil
}

// EncodeHeader returns a header in the form that Sign takes.
func EncodeHeader(header any) (string, error) {
	data, err := json.Marshal(header)
	return encode(data), err
}

func (k *Key) sign(text []byte) ([]byte, error) {
	if k.alg == EdDSA {
		return k.signer.Sign(rand.Reader, text, crypto.Hash(0))
	}
	sum := sha256.Sum256(text)
	switch k.alg {
	case PS256:
		return k.signer.Sign(rand.Reader, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
	case RS256:
		return k.signer.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
	der, err := k.signer.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var point struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &point); err != nil || len(rest) > 0 || point.R.Sign() < 0 || point.S.Sign() < 0 ||
		point.R.BitLen() > 256 || point.S.BitLen() > 256 {
		return nil, errors.New("the signature is none of ECDSA on P-256")
	}
	signature := make([]byte, 64) // RFC 7518 §3.4
	point.R.FillBytes(signature[:32])
	point.S.FillBytes(signature[32:])
	return signature, nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
