package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"strings"
	"testing"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

// RFC 7638 §3.1.
func TestThumbprint(t *testing.T) {
	n, err := base64.RawURLEncoding.DecodeString("0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs" +
		"tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw")
	require.NoError(t, err)
	k, err := NewKey(publicOnly{&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}}, "")
	require.NoError(t, err)
	require.Equal(t, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", k.Thumbprint())
}

type publicOnly struct{ crypto.PublicKey }

func (p publicOnly) Public() crypto.PublicKey { return p.PublicKey }
func (publicOnly) Sign(_ io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	return []byte{0x30, 3, 2, 1, 1}, nil
}

func TestSign(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for _, c := range []struct {
		signer    crypto.Signer
		ask, want string
		verify    func(text, signature []byte) bool
	}{
		{ec, "", ES256, func(text, signature []byte) bool {
			sum := sha256.Sum256(text)
			return len(signature) == 64 && ecdsa.Verify(&ec.PublicKey, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
		}},
		{ed, "", EdDSA, func(text, signature []byte) bool {
			return ed25519.Verify(ed.Public().(ed25519.PublicKey), text, signature)
		}},
		{r, "", RS256, func(text, signature []byte) bool {
			sum := sha256.Sum256(text)
			return rsa.VerifyPKCS1v15(&r.PublicKey, crypto.SHA256, sum[:], signature) == nil
		}},
		{r, PS256, PS256, func(text, signature []byte) bool {
			sum := sha256.Sum256(text)
			return rsa.VerifyPSS(&r.PublicKey, crypto.SHA256, sum[:], signature, nil) == nil
		}},
	} {
		k, err := NewKey(c.signer, c.ask)
		require.NoError(t, err)
		require.Equal(t, c.want, k.Algorithm())
		header, err := EncodeHeader(map[string]any{"alg": k.Algorithm(), "jwk": json.RawMessage(k.JWK())})
		require.NoError(t, err)
		for range thorough.Or(50, 15) { // R and S are of every length
			token, err := k.Sign(header, []byte(`{"a":1}`))
			require.NoError(t, err)
			parts := strings.Split(token, ".")
			require.Len(t, parts, 3)
			require.Equal(t, header, parts[0])
			claims, err := base64.RawURLEncoding.DecodeString(parts[1])
			require.NoError(t, err)
			require.JSONEq(t, `{"a":1}`, string(claims))
			signature, err := base64.RawURLEncoding.DecodeString(parts[2])
			require.NoError(t, err)
			require.True(t, c.verify([]byte(parts[0]+"."+parts[1]), signature), c.want)
		}
	}
}

func TestKeyThatCannotSign(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	for _, c := range []struct {
		signer crypto.Signer
		alg    string
	}{{nil, ""}, {p384, ""}, {ec, RS256}, {ec, "none"}, {ec, "HS256"}, {publicOnly{"a"}, ""}, {publicOnly{&rsa.PublicKey{N: big.NewInt(77), E: 3}}, ""}} {
		_, err := NewKey(c.signer, c.alg)
		require.Error(t, err)
	}
	k, err := NewKey(publicOnly{&ec.PublicKey}, "")
	require.NoError(t, err)
	_, err = k.Sign("e30", []byte("{}"))
	require.Error(t, err, "it is no signature")
}
