package interop

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/dpop"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// An issuer signs access tokens (RFC 9068) that a resource server can read by its JWK Set.
type issuer struct {
	t   *testing.T
	key *ecdsa.PrivateKey
	url string // of the JWK Set
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{t: t, key: newES256(t)}
	point, err := i.key.PublicKey.Bytes()
	require.NoError(t, err)
	encode := base64.RawURLEncoding.EncodeToString
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "k1",
			"x": encode(point[1:33]), "y": encode(point[33:])}}})
	}))
	t.Cleanup(srv.Close)
	i.url = srv.URL + "/jwks"
	return i
}

// token returns a token that is bound to a key by its thumbprint, if that is not "".
func (i *issuer) token(thumbprint string, lifetime time.Duration) string {
	i.t.Helper()
	claims := map[string]any{"iss": "https://as.example.com", "sub": servers.Username, "jti": rand.Text(),
		"iat": time.Now().Add(min(0, lifetime) - time.Second).Unix(), "exp": time.Now().Add(lifetime).Unix()}
	if thumbprint != "" {
		claims["cnf"] = map[string]string{"jkt": thumbprint}
	}
	body, err := json.Marshal(claims)
	require.NoError(i.t, err)
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","typ":"at+jwt","kid":"k1"}`)) + "." + base64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, sum[:])
	require.NoError(i.t, err)
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// tokens is a source whose first token the server refuses. It counts the others.
func (i *issuer) tokens(thumbprint, tokenType string, fetched *atomic.Int32) *authretry.TokenSource {
	return &authretry.TokenSource{
		Initial: &oauth2.Token{AccessToken: i.token(thumbprint, -time.Hour), TokenType: tokenType},
		Fetch: func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
			fetched.Add(1)
			return &oauth2.Token{AccessToken: i.token(thumbprint, time.Hour), TokenType: tokenType}, nil
		},
	}
}

// It challenges with Bearer, although it wants DPoP, and has no nonces.
func TestApacheDPoP(t *testing.T) {
	as := newIssuer(t)
	srv := servers.ApacheOAuth2(t, as.url)
	recorder := servers.Record(t, srv.URL)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for name, signer := range map[string]crypto.Signer{"ES256": newES256(t), "RS256": rsaKey} {
		key, err := dpop.NewKey(signer)
		require.NoError(t, err)
		var fetched atomic.Int32
		client := newClient(t, nil, &dpop.Scheme{Source: as.tokens(key.Thumbprint(), "DPoP", &fetched), Key: key})
		for range 3 {
			_, body := getOK(t, client, recorder.URL+"/dpop/index.html?q=1")
			require.Equal(t, "this is dpop\n", body, name)
		}
		require.Equal(t, []string{"DPoP", "DPoP", "DPoP", "DPoP"}, schemesOf(recorder.Take()), name)
		require.Empty(t, atOnce(client, 50, 4, recorder.URL+"/dpop/"))
		require.Len(t, recorder.Take(), 200, name)
		require.EqualValues(t, 1, fetched.Load(), name)
	}

	// A token of another key than that of the proof, of which the client cannot know that it is.
	key, other := newProofs(t, newES256(t)), newProofs(t, newES256(t))
	stolen := &oauth2.Token{AccessToken: as.token(key.Thumbprint(), time.Hour), TokenType: "DPoP"}
	resp, _ := get(t, newClient(t, nil, &dpop.Scheme{Source: &authretry.TokenSource{Initial: stolen}, Key: other}), recorder.URL+"/dpop/")
	require.Equal(t, 401, resp.StatusCode)
	require.LessOrEqual(t, len(recorder.Take()), 2)
	require.Error(t, authretry.Explain(resp))

	// mod_oauth2 does not know EdDSA.
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	unknown, err := dpop.NewKey(ed)
	require.NoError(t, err)
	good := &oauth2.Token{AccessToken: as.token(unknown.Thumbprint(), time.Hour), TokenType: "DPoP"}
	resp, _ = get(t, newClient(t, nil, &dpop.Scheme{Source: &authretry.TokenSource{Initial: good}, Key: unknown}), recorder.URL+"/dpop/")
	require.Equal(t, 401, resp.StatusCode)
}

func TestApacheBearer(t *testing.T) {
	as := newIssuer(t)
	srv := servers.ApacheOAuth2(t, as.url)
	recorder := servers.Record(t, srv.URL)
	var fetched atomic.Int32
	client := newClient(t, nil, &authretry.Bearer{Source: as.tokens("", "Bearer", &fetched)})
	for range 3 {
		_, body := getOK(t, client, recorder.URL+"/bearer/")
		require.Equal(t, "this is bearer\n", body)
	}
	require.Equal(t, []string{"Bearer", "Bearer", "Bearer", "Bearer"}, schemesOf(recorder.Take()))
	require.Empty(t, atOnce(client, 50, 4, recorder.URL+"/bearer/"))
	require.Len(t, recorder.Take(), 200)
	require.EqualValues(t, 1, fetched.Load())

	// A DPoP client at a server that takes bearer tokens only: the token is not sent as one.
	key := newProofs(t, newES256(t))
	bound := &oauth2.Token{AccessToken: as.token(key.Thumbprint(), time.Hour), TokenType: "DPoP"}
	resp, _ := get(t, newClient(t, nil, &dpop.Scheme{Source: &authretry.TokenSource{Initial: bound}, Key: key}), recorder.URL+"/bearer/")
	require.Equal(t, 401, resp.StatusCode)
	sent := schemesOf(recorder.Take())
	require.NotContains(t, sent, "Bearer")
	require.LessOrEqual(t, len(sent), 2)
}
