package dpop_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/dpop"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

var _ authretry.Prover = (*dpop.Key)(nil)

func claimsOf(t testing.TB, proof string) (claims map[string]any) {
	parts := strings.Split(proof, ".")
	require.Len(t, parts, 3)
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &claims))
	return claims
}

func TestProofsURI(t *testing.T) {
	k := newKey(t)
	for from, want := range map[string]string{
		"HTTPS://API.Example.COM:443":             "https://api.example.com/",
		"https://api.example.com/a%20b?x=1#y":     "https://api.example.com/a%20b",
		"http://user:secret@h:80/":                "http://h/",
		"https://h:8443/?":                        "https://h:8443/",
		"https://h:/a":                            "https://h/a",
		"https://[2001:DB8::1]:443/%7Euser/A%2fB": "https://[2001:db8::1]/%7Euser/A%2fB",
		"https://[fe80::1%25eth0]:444/a":          "https://[fe80::1]:444/a",
		"http://h:443/":                           "http://h:443/",
		"https://h/a//b/../c":                     "https://h/a//b/../c",
		"https://h/ä":                             "https://h/%C3%A4",
	} {
		u, err := url.Parse(from)
		require.NoError(t, err)
		proof, err := k.Proof("PATCH", u, "", "")
		require.NoError(t, err)
		require.Equal(t, want, claimsOf(t, proof)["htu"], from)
		require.Equal(t, "PATCH", claimsOf(t, proof)["htm"])
	}
	for _, u := range []*url.URL{nil, {}, {Scheme: "ftp", Host: "h"}, {Scheme: "https"}, {Scheme: "https", Host: "bücher.example"}, {Scheme: "https", Host: "a b"}} {
		_, err := k.Proof("GET", u, "", "")
		require.Error(t, err)
	}
	u := &url.URL{Scheme: "https", Host: "h"}
	_, err := k.Proof("GET", u, "a b", "")
	require.ErrorContains(t, err, "nonce")
	for opaque, want := range map[string]string{"//other/a?b": "https://h/a", "//other": "https://h/", "/a": "https://h/a", "x": "https://h/"} {
		proof, err := k.Proof("", &url.URL{Scheme: "https", Host: "h", Opaque: opaque}, "", "")
		require.NoError(t, err)
		require.Equal(t, want, claimsOf(t, proof)["htu"])
		require.Equal(t, "GET", claimsOf(t, proof)["htm"])
	}
}

func TestProofsClaims(t *testing.T) {
	k := newKey(t)
	u := &url.URL{Scheme: "https", Host: "h"}
	proof, err := k.Proof("GET", u, "n", "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU")
	require.NoError(t, err)
	claims := claimsOf(t, proof)
	require.Equal(t, "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo", claims["ath"], "RFC 9449 §7.1")
	require.Equal(t, "n", claims["nonce"])
	require.InDelta(t, time.Now().Unix(), claims["iat"], 60)
	require.Len(t, claims, 6)
	var header struct {
		Type, Alg string
		JWK       map[string]string
	}
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(proof, ".")[0])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal([]byte(strings.Replace(string(data), `"typ"`, `"type"`, 1)), &header))
	require.Equal(t, "dpop+jwt", header.Type)
	require.Equal(t, "ES256", header.Alg)
	require.NotContains(t, header.JWK, "d", "the public key only")
	require.Len(t, header.JWK, 4)
}

// The host is the one by which the server knows itself; but the nonces are those of the server that has given them.
func TestHostHeader(t *testing.T) {
	k := newKey(t)
	learn := func(u, host, nonce string) {
		req := newRequest(t, u)
		req.Host = host
		k.Learn(&http.Response{Request: req, StatusCode: 200, Header: http.Header{"Dpop-Nonce": {nonce}}})
	}
	claims := func(u, host string) map[string]any {
		req := newRequest(t, u)
		req.Host = host
		require.NoError(t, k.Prove(req, ""))
		return claimsOf(t, req.Header.Get("DPoP"))
	}
	learn("https://evil.example", "api.example.com", "evil")
	require.NotContains(t, claims("https://api.example.com", ""), "nonce")
	require.NotContains(t, claims("https://evil.example", ""), "nonce")
	require.Equal(t, "evil", claims("https://evil.example", "API.example.com:443")["nonce"])
	require.Equal(t, "https://api.example.com/", claims("https://evil.example", "api.example.com")["htu"])
	learn("https://api.example.com:443/x", "", "good")
	require.Equal(t, "good", claims("https://API.example.com", "")["nonce"])
	require.NotContains(t, claims("http://api.example.com", ""), "nonce")
	require.NotContains(t, claims("https://api.example.com:444", ""), "nonce")
}

func TestLearnBadResponses(t *testing.T) {
	k := newKey(t)
	header := http.Header{"Dpop-Nonce": {"n"}}
	for _, resp := range []*http.Response{nil, {Header: header}, {Header: header, Request: &http.Request{}},
		{Header: header, Request: &http.Request{URL: &url.URL{}}}, {Header: header, Request: newRequest(t, "https://h"), StatusCode: 407},
		{Request: newRequest(t, "https://h")}, {Request: newRequest(t, "https://h"), Header: http.Header{"Dpop-Nonce": {}}},
		{Request: newRequest(t, "https://h"), Header: http.Header{"Dpop-Nonce": {"a\x00b", "n"}}}} {
		k.Learn(resp)
	}
	req := newRequest(t, "https://h")
	require.NoError(t, k.Prove(req, ""))
	require.NotContains(t, claimsOf(t, req.Header.Get("DPoP")), "nonce")
	require.Error(t, k.Prove(&http.Request{}, ""))
	require.NoError(t, k.Prove(&http.Request{URL: req.URL}, ""))
}

func TestNoTwoProofsAreAlike(t *testing.T) {
	n := thorough.Or(1_000_000, 5_000)
	if raceEnabled {
		n = 20_000
	}
	k, err := dpop.NewKey(quickSigner{newSigner(t)})
	require.NoError(t, err)
	u := &url.URL{Scheme: "https", Host: "h"}
	seen := make(map[string]bool, n)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range n / 4 {
				proof, err := k.Proof("GET", u, "", "")
				if err != nil {
					t.Error(err)
					return
				}
				_, rest, _ := strings.Cut(proof, ".")
				claims, _, _ := strings.Cut(rest, ".")
				data, _ := base64.RawURLEncoding.DecodeString(claims)
				jti := string(data[:len(`{"jti":"`)+26])
				mu.Lock()
				if seen[jti] {
					t.Error("twice")
				}
				seen[jti] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.Len(t, seen, n)
}

func newSigner(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// A quickSigner returns a signature that is none.
type quickSigner struct{ *ecdsa.PrivateKey }

func (quickSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return []byte{0x30, 6, 2, 1, 1, 2, 1, 1}, nil
}

type failingSigner struct{ *ecdsa.PrivateKey }

func (failingSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the TPM is gone")
}

func TestKeysThatDoNotWork(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	for _, s := range []crypto.Signer{nil, p384} {
		_, err := dpop.NewKey(s)
		require.ErrorContains(t, err, "dpop: ")
	}
	k, err := dpop.NewKey(failingSigner{newSigner(t)})
	require.NoError(t, err)
	s := staticScheme(t)
	s.Key = k
	_, err = (&http.Client{Transport: authretry.New(s)}).Get("https://api.example.com")
	require.ErrorContains(t, err, "the TPM is gone")
}

func TestKeyPrintsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	k, err := dpop.OpenKey(path)
	require.NoError(t, err)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	block, _ := pem.Decode(data)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	private, err := parsed.(*ecdsa.PrivateKey).Bytes()
	require.NoError(t, err)
	d := new(big.Int).SetBytes(private)
	s := &dpop.Scheme{Source: staticScheme(t).Source, Key: k}
	for _, v := range []any{k, *k, s, struct{ Key *dpop.Key }{k}, []any{k}} {
		var log strings.Builder
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		b, _ := json.Marshal(v)
		out := fmt.Sprintf("%v %+v %#v %s %q %d %x", v, v, v, v, v, v, v) + string(b) + log.String()
		require.NotContains(t, out, d.String())
		require.NotContains(t, out, fmt.Sprintf("%x", d))
		require.NotContains(t, out, fmt.Sprintf("%x", d.Bytes()))
	}
}

func TestOpenKeyMakesOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "key.pem")
	var mu sync.Mutex
	thumbprints := map[string]bool{}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			k, err := dpop.OpenKey(path)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			thumbprints[k.Thumbprint()] = true
			mu.Unlock()
		})
	}
	wg.Wait()
	require.Len(t, thumbprints, 1)
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

// TestMain is one of the processes of TestOpenKeyByManyProcesses, too.
func TestMain(m *testing.M) {
	if path := os.Getenv("DPOP_TEST_KEY"); path != "" {
		k, err := dpop.OpenKey(path)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(k.Thumbprint())
		return
	}
	thorough.Main(m)
}

func TestOpenKeyByManyProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	var mu sync.Mutex
	thumbprints := map[string]int{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "DPOP_TEST_KEY="+path)
			out, err := cmd.Output()
			if err != nil {
				t.Error(string(out), err)
			}
			mu.Lock()
			thumbprints[string(out)]++
			mu.Unlock()
		})
	}
	wg.Wait()
	require.Len(t, thumbprints, 1)
}
