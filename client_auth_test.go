package authretry

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// parseJWT returns header and claims, and what was signed, without a look at the signature.
func parseJWT(t *testing.T, token string) (header, claims map[string]any, text, signature []byte) {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	for i, into := range []*map[string]any{&header, &claims} {
		data, err := base64.RawURLEncoding.DecodeString(parts[i])
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(data, into))
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	require.NoError(t, err)
	return header, claims, []byte(parts[0] + "." + parts[1]), signature
}

func TestSecretsOfClients(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) { issue(w) })
	for _, c := range []struct {
		auth             ClientAuth
		header, id, post string
	}{
		{SecretBasic("s+t:ü"), "Basic " + base64.StdEncoding.EncodeToString([]byte("i+d:s%2Bt%3A%C3%BC")), "", ""},
		{SecretPost("s+t"), "", "i d", "s+t"},
		{nil, "", "i d", ""},
	} {
		e.reset()
		_, err := (&TokenEndpoint{URL: e.URL, ClientID: "i d", Auth: c.auth}).Refresh()(t.Context(), refreshRequest)
		require.NoError(t, err)
		require.Equal(t, []string{c.header}, e.auths())
		require.Equal(t, []string{c.id, c.post}, []string{e.forms()[0].Get("client_id"), e.forms()[0].Get("client_secret")})
	}
}

func TestPrivateKeyJWT(t *testing.T) {
	t.Parallel()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	hash := func(text []byte) []byte { sum := sha256.Sum256(text); return sum[:] }
	certificate := &x509.Certificate{Raw: []byte("DER")}
	thumbprint := base64.RawURLEncoding.EncodeToString(hash(certificate.Raw))
	for alg, c := range map[string]struct {
		auth   *PrivateKeyJWT
		verify func(text, signature []byte) bool
	}{
		"ES256": {&PrivateKeyJWT{Signer: ec, KeyID: "k1"}, func(text, s []byte) bool {
			return len(s) == 64 && ecdsa.Verify(&ec.PublicKey, hash(text), new(big.Int).SetBytes(s[:32]), new(big.Int).SetBytes(s[32:]))
		}},
		"EdDSA": {&PrivateKeyJWT{Signer: ed}, func(text, s []byte) bool { return ed25519.Verify(ed.Public().(ed25519.PublicKey), text, s) }},
		"RS256": {&PrivateKeyJWT{Signer: r, Certificate: certificate}, func(text, s []byte) bool {
			return rsa.VerifyPKCS1v15(&r.PublicKey, crypto.SHA256, hash(text), s) == nil
		}},
		"PS256": {&PrivateKeyJWT{Signer: r, Algorithm: "PS256", Audience: "someone"}, func(text, s []byte) bool {
			return rsa.VerifyPSS(&r.PublicKey, crypto.SHA256, hash(text), s, nil) == nil
		}},
	} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			e := newTokenEndpoint(t, func(n int, w http.ResponseWriter, _ *http.Request) {
				if n == 1 {
					w.WriteHeader(503)
					return
				}
				issue(w)
			})
			for _, issuer := range []string{"", "https://issuer.test"} {
				endpoint := &TokenEndpoint{URL: e.URL, ClientID: "c", Auth: c.auth, Issuer: issuer}
				start := time.Now()
				_, err := endpoint.Refresh()(t.Context(), refreshRequest)
				require.NoError(t, err)
				form := e.forms()[len(e.forms())-1]
				require.Equal(t, "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", form.Get("client_assertion_type"))
				require.Equal(t, "c", form.Get("client_id"))
				header, claims, text, signature := parseJWT(t, form.Get("client_assertion"))
				require.True(t, c.verify(text, signature))
				require.Equal(t, alg, header["alg"])
				require.Equal(t, c.auth.KeyID, fmt.Sprint(header["kid"], "")[:len(c.auth.KeyID)])
				_, hasKeyID := header["kid"]
				require.Equal(t, c.auth.KeyID != "", hasKeyID)
				if c.auth.Certificate != nil {
					require.Equal(t, thumbprint, header["x5t#S256"])
				} else {
					require.NotContains(t, header, "x5t#S256")
				}
				audience := c.auth.Audience
				if audience == "" {
					audience = issuer
				}
				if audience == "" {
					audience = e.URL
				}
				require.Equal(t, []any{"c", "c", audience}, []any{claims["iss"], claims["sub"], claims["aud"]}, "one string, no list")
				requireBetween(t, start, time.Unix(int64(claims["iat"].(float64)), 0), time.Now())
				requireBetween(t, start.Add(time.Minute), time.Unix(int64(claims["exp"].(float64)), 0), time.Now().Add(time.Minute))
			}
			seen := map[any]bool{}
			for _, form := range e.forms() {
				_, claims, _, _ := parseJWT(t, form.Get("client_assertion"))
				require.False(t, seen[claims["jti"]], "each send has its own, retries too")
				seen[claims["jti"]] = true
			}
			require.Len(t, seen, 3)
		})
	}
}

func TestPrivateKeyJWTIsFreshEachTime(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	auth, e := &PrivateKeyJWT{Signer: ed}, &TokenEndpoint{URL: "https://a.test/"}
	seen := map[string]bool{}
	for range thorough.Or(10_000, 1_000) {
		form := map[string][]string{}
		require.NoError(t, auth.Authenticate(t.Context(), e, form, nil))
		require.False(t, seen[form["client_assertion"][0]])
		seen[form["client_assertion"][0]] = true
	}
}

// failingSigner cannot sign, and says more than it should.
type failingSigner struct{ crypto.Signer }

func (failingSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the module is locked")
}

func TestClientThatCannotAuthenticate(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	for says, auth := range map[string]ClientAuth{
		"there is no key":       &PrivateKeyJWT{},
		"does not sign by":      &PrivateKeyJWT{Signer: ec, Algorithm: "RS256"},
		"the module is locked":  &PrivateKeyJWT{Signer: failingSigner{ec}},
		"called with nil":       Assertion(nil),
		"is empty":              Assertion(func(context.Context) (string, error) { return "", nil }),
		"no such file":          AssertionFile(filepath.Join(t.TempDir(), "none")),
		"metadata is not there": Assertion(func(context.Context) (string, error) { return "", errors.New("metadata is not there") }),
	} {
		e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) { issue(w) })
		src := &TokenSource{Fetch: (&TokenEndpoint{URL: e.URL, Auth: auth}).Refresh(), Initial: refreshRequest.Previous}
		_, err := src.Refresh(t.Context(), nil)
		require.ErrorContains(t, err, says)
		require.NotErrorIs(t, err, ErrLoginRequired)
		require.Empty(t, e.forms())
	}
}

func TestSecretFileThatIsNone(t *testing.T) {
	dir := t.TempDir()
	path := func(name string, data []byte) string {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
		return filepath.Join(dir, name)
	}
	large := path("large", nil)
	require.NoError(t, os.Truncate(large, 1<<30))
	for _, p := range []string{path("empty", nil), path("blank", []byte(" \n")), large, dir, filepath.Join(dir, "none"), os.DevNull} {
		_, err := FromFile(p)(t.Context(), TokenRequest{})
		require.Error(t, err, p)
	}
	start := time.Now()
	got, err := FromFile(path("good", []byte("\n token \n")))(t.Context(), TokenRequest{})
	require.NoError(t, err)
	require.Equal(t, "token", got.AccessToken)
	requireBetween(t, start.Add(time.Minute), got.Expiry, time.Now().Add(time.Minute))

	jwt := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
	}
	soon := time.Now().Add(20 * time.Second).Truncate(time.Second)
	for claims, end := range map[string]time.Time{`{"exp":` + fmt.Sprint(soon.Unix()) + `}`: soon,
		`{"exp":99999999999}`: {}, `{"exp":1e300}`: {}, `{"exp":-1}`: {}, `{"exp":"x"}`: {}, `{`: {}} {
		start := time.Now()
		got, err := FromFile(path("jwt", []byte(jwt(claims))))(t.Context(), TokenRequest{})
		require.NoError(t, err)
		if end.IsZero() {
			requireBetween(t, start.Add(time.Minute), got.Expiry, time.Now().Add(time.Minute))
		} else {
			require.True(t, got.Expiry.Equal(end), claims)
		}
	}
}

// A file is replaced as the kubelet does it, by a symbolic link that changes, under a thousand readers: nobody fails, and it
// is read once for each refresh.
func TestFileThatIsReplacedUnderReaders(t *testing.T) {
	dir := t.TempDir()
	write := func(n int) {
		version := filepath.Join(dir, fmt.Sprint("v", n))
		require.NoError(t, os.WriteFile(version, []byte(fmt.Sprint("token-", n)), 0o600))
		link := filepath.Join(dir, "next")
		require.NoError(t, os.Symlink(version, link))
		require.NoError(t, os.Rename(link, filepath.Join(dir, "token")))
	}
	write(0)
	reads := 0
	fromFile := FromFile(filepath.Join(dir, "token"))
	src := &TokenSource{MinRefreshInterval: -1, Fetch: func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
		reads++ // one Fetch is under way at a time
		return fromFile(ctx, r)
	}}
	first, err := src.Token()
	require.NoError(t, err)
	for n := 1; n <= 5; n++ {
		write(n)
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				got, err := src.Obtain(context.Background(), TokenRequest{Previous: first})
				if err != nil || got.AccessToken != fmt.Sprint("token-", n) {
					t.Errorf("%v, %v", got.AccessToken, err)
				}
			})
		}
		all.Wait()
		first, err = src.Token()
		require.NoError(t, err)
	}
	require.Equal(t, 6, reads)
	_, err = src.Obtain(t.Context(), TokenRequest{Previous: first})
	require.ErrorIs(t, err, ErrCredentialsRefused, "the file has not changed")
}

// How a server wants the secret is tried once. What it refuses later, it refuses for another reason.
func TestWayOfTheSecretIsKnownAfterASuccess(t *testing.T) {
	e := newTokenEndpoint(t, func(n int, w http.ResponseWriter, r *http.Request) {
		switch {
		case n == 1 || n > 3:
			w.WriteHeader(401)
			fmt.Fprint(w, `{"error":"invalid_client"}`)
		default:
			issue(w)
		}
	})
	fetch := RefreshGrant(e.config())
	for range 2 {
		_, err := fetch(t.Context(), refreshRequest)
		require.NoError(t, err)
	}
	require.NotEmpty(t, e.auths()[0])
	require.Equal(t, []string{"", ""}, e.auths()[1:], "the second way is right")
	_, err := fetch(t.Context(), refreshRequest)
	require.Error(t, err)
	require.Len(t, e.auths(), 4, "a refresh token is not sent twice")
}
