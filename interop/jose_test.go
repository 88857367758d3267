package interop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/authretry/authretry/dpop"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/stretchr/testify/require"
)

// joseKeys are some keys of each algorithm of package dpop.
func joseKeys(t *testing.T) (keys []*dpop.Key) {
	t.Helper()
	for _, c := range []struct {
		algorithm string
		keys      int
		generate  func() (crypto.Signer, error)
	}{
		{"ES256", 20, func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
		{"EdDSA", 20, func() (crypto.Signer, error) { _, k, err := ed25519.GenerateKey(rand.Reader); return k, err }},
		{"RS256", 1, func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }},
		{"RS256", 1, func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 3072) }},
	} {
		for range c.keys {
			signer, err := c.generate()
			require.NoError(t, err)
			key, err := dpop.NewKey(signer)
			require.NoError(t, err)
			require.Equal(t, c.algorithm, key.Algorithm())
			keys = append(keys, key)
		}
	}
	return keys
}

// Coordinates that begin with a zero, and signatures whose numbers do, come once in 128: hence many keys, and many proofs of each.
func TestJoseTakesProofs(t *testing.T) {
	jose := servers.NewJose(t)
	ids := map[string]bool{}
	for i, key := range joseKeys(t) {
		for j := range 16 {
			p := servers.Proof{Method: []string{"GET", "POST", "PROPFIND"}[j%3]}
			u := &url.URL{Scheme: "https", Host: "API.Example.com:443", Path: fmt.Sprintf("/a b/%d-%d", i, j), RawQuery: "q=1"}
			p.URI = fmt.Sprintf("https://api.example.com/a%%20b/%d-%d", i, j)
			if j&1 != 0 {
				p.Nonce = rand.Text() + "-._~!#$%&'()*+,/:;<=>?@[]^`{|}"
			}
			if j&2 != 0 {
				p.Token = rand.Text() + "-._~+/=="
			}
			var err error
			p.Proof, err = key.Proof(p.Method, u, p.Nonce, p.Token)
			require.NoError(t, err)
			got := jose.Judge(p)
			require.Equal(t, servers.Judgement{Algorithm: key.Algorithm(), ID: got.ID, Thumbprint: key.Thumbprint()}, got)
			require.False(t, ids[got.ID], "a jti twice")
			ids[got.ID] = true
		}
	}
	require.Len(t, ids, 42*16)
}

func TestJoseRefusesProofs(t *testing.T) {
	jose := servers.NewJose(t)
	keys := joseKeys(t)
	u := &url.URL{Scheme: "https", Host: "api.example.com", Path: "/a"}
	flip := func(proof string, part, at int) string { // a bit of a part of the proof
		parts := strings.Split(proof, ".")
		data, err := base64.RawURLEncoding.DecodeString(parts[part])
		require.NoError(t, err)
		data[(at+len(data))%len(data)] ^= 1
		parts[part] = base64.RawURLEncoding.EncodeToString(data)
		return strings.Join(parts, ".")
	}
	for _, i := range []int{0, 20, 40} {
		key, other := keys[i], keys[i+1]
		text, err := key.Proof("GET", u, "n", "t")
		require.NoError(t, err)
		good := servers.Proof{Proof: text, Method: "GET", URI: u.String(), Nonce: "n", Token: "t"}
		require.Empty(t, jose.Judge(good).Error)
		require.NotEqual(t, other.Thumbprint(), jose.Judge(good).Thumbprint)
		foreign, err := other.Proof("GET", u, "n", "t")
		require.NoError(t, err)
		header, _, _ := strings.Cut(foreign, ".")
		_, rest, _ := strings.Cut(text, ".")
		for name, c := range map[string]struct {
			change func(*servers.Proof)
			want   string
		}{
			"the signature":   {func(p *servers.Proof) { p.Proof = flip(p.Proof, 2, -1) }, "signature verification failed"},
			"its first byte":  {func(p *servers.Proof) { p.Proof = flip(p.Proof, 2, 0) }, "signature verification failed"},
			"the jti":         {func(p *servers.Proof) { p.Proof = flip(p.Proof, 1, 10) }, "signature verification failed"},
			"another's key":   {func(p *servers.Proof) { p.Proof = header + "." + rest }, "signature verification failed"},
			"no signature":    {func(p *servers.Proof) { p.Proof = p.Proof[:strings.LastIndex(p.Proof, ".")+1] }, "signature"},
			"another method":  {func(p *servers.Proof) { p.Method = "POST" }, `"htm"`},
			"another address": {func(p *servers.Proof) { p.URI += "b" }, `"htu"`},
			"another nonce":   {func(p *servers.Proof) { p.Nonce = "m" }, `"nonce"`},
			"no nonce wanted": {func(p *servers.Proof) { p.Nonce = "" }, `"nonce"`},
			"another token":   {func(p *servers.Proof) { p.Token = "s" }, `"ath"`},
			"no token":        {func(p *servers.Proof) { p.Token = "" }, `"ath"`},
		} {
			bad := good
			c.change(&bad)
			require.Contains(t, jose.Judge(bad).Error, c.want, "%s, %s", key.Algorithm(), name)
		}
	}
}
