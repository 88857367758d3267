package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/dpop"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// startProvider starts oidc-provider, and returns the key of its client "jwt".
func startProvider(t *testing.T) (*servers.Server, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	point, err := key.PublicKey.Bytes()
	require.NoError(t, err)
	encode := base64.RawURLEncoding.EncodeToString
	keys := fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","use":"sig","alg":"ES256","kid":"k1","x":%q,"y":%q}]}`, encode(point[1:33]), encode(point[33:]))
	return servers.OIDCProvider(t, keys), key
}

// authorize has somebody log in and consent, by the forms that a browser would show, and returns the code.
func authorize(t *testing.T, srv *servers.Server, params url.Values) (code, verifier string) {
	t.Helper()
	verifier = rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(verifier))
	query := url.Values{"response_type": {"code"}, "redirect_uri": {"http://127.0.0.1/callback"}, "prompt": {"consent"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}}
	for name, values := range params {
		query[name] = values
	}
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	var arrived *url.URL
	client := &http.Client{Jar: jar, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if req.URL.Path == "/callback" {
			arrived = req.URL
			return http.ErrUseLastResponse
		}
		return nil
	}}
	form := regexp.MustCompile(`action="([^"]+)"[\s\S]*?name="prompt" value="([^"]+)"`)
	resp, err := client.Get(srv.URL + "/auth?" + query.Encode())
	for range 4 {
		require.NoError(t, err)
		page, err2 := io.ReadAll(resp.Body)
		resp.Body.Close()
		require.NoError(t, err2)
		if arrived != nil {
			require.Empty(t, arrived.Query().Get("error"), arrived.Query().Get("error_description"))
			return arrived.Query().Get("code"), verifier
		}
		fields := form.FindStringSubmatch(string(page))
		require.NotNil(t, fields, "there is no form on %s", page)
		resp, err = client.PostForm(fields[1], url.Values{"prompt": {fields[2]}, "login": {"mufasa"}, "password": {"x"}})
	}
	require.Fail(t, "the login does not end")
	return "", ""
}

// introspect asks the provider about a token.
func introspect(t *testing.T, srv *servers.Server, token string) (claims map[string]any) {
	t.Helper()
	req, err := http.NewRequest("POST", srv.URL+"/token/introspection", strings.NewReader(url.Values{"token": {token}}.Encode()))
	require.NoError(t, err)
	req.SetBasicAuth(url.QueryEscape("bearer"), url.QueryEscape("s+cret/"))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&claims))
	return claims
}

func TestOIDCProviderClients(t *testing.T) {
	srv, key := startProvider(t)
	base := &sends{}
	for name, endpoint := range map[string]*authretry.TokenEndpoint{
		"assertion for the issuer":   {ClientID: "jwt", Auth: &authretry.PrivateKeyJWT{Signer: key, KeyID: "k1"}, Issuer: srv.URL},
		"assertion for the endpoint": {ClientID: "jwt", Auth: &authretry.PrivateKeyJWT{Signer: key}},
		"secret by the header":       {ClientID: "bearer", Auth: authretry.SecretBasic("s+cret/")},
	} {
		endpoint.URL, endpoint.HTTPClient = srv.URL+"/token", &http.Client{Transport: base}
		endpoint.Params = url.Values{"resource": {"https://api.example.com/"}}
		tokens := &authretry.TokenSource{Fetch: endpoint.ClientCredentials("read")}
		got, err := tokens.Token()
		require.NoError(t, err, name)
		claims := introspect(t, srv, got.AccessToken)
		require.Equal(t, []any{true, "read", "https://api.example.com/"}, []any{claims["active"], claims["scope"], claims["aud"]}, name)

		wider, err := tokens.Obtain(t.Context(), authretry.TokenRequest{Scopes: []string{"write"}})
		require.NoError(t, err, name)
		require.Equal(t, "read write", introspect(t, srv, wider.AccessToken)["scope"], name)
	}
	require.Equal(t, map[string]int{"/token": 6}, base.take())

	wrong := &authretry.TokenEndpoint{URL: srv.URL + "/token", ClientID: "jwt", Auth: &authretry.PrivateKeyJWT{Signer: key, Audience: "https://other.example.com"}}
	_, err := (&authretry.TokenSource{Fetch: wrong.ClientCredentials()}).Token()
	require.ErrorContains(t, err, `401 "invalid_client"`)
}

// A login by a code, with refresh tokens that are rotated, and the resource named each time.
func TestOIDCProviderLoginAndRefresh(t *testing.T) {
	srv, _ := startProvider(t)
	base := &sends{}
	endpoint := &authretry.TokenEndpoint{URL: srv.URL + "/token", ClientID: "bearer", Auth: authretry.SecretBasic("s+cret/"),
		Params: url.Values{"resource": {"https://api.example.com/"}}, HTTPClient: &http.Client{Transport: base}}
	code, verifier := authorize(t, srv, url.Values{"client_id": {"bearer"}, "scope": {"openid offline_access read"}, "resource": {"https://api.example.com/"}})
	login, err := endpoint.AuthorizationCode(code, verifier, "http://127.0.0.1/callback")(t.Context(), authretry.TokenRequest{})
	require.NoError(t, err)
	require.NotEmpty(t, login.RefreshToken)

	tokens := &authretry.TokenSource{Fetch: endpoint.Refresh(), Initial: login}
	seen := map[string]bool{login.RefreshToken: true}
	for range 5 {
		got, err := tokens.Refresh(t.Context(), nil)
		require.NoError(t, err)
		require.False(t, seen[got.RefreshToken], "rotated")
		seen[got.RefreshToken] = true
		require.Equal(t, "https://api.example.com/", introspect(t, srv, got.AccessToken)["aud"])
	}
	require.Equal(t, map[string]int{"/token": 6}, base.take())

	elsewhere := &authretry.TokenSource{Fetch: endpoint.Refresh(), Initial: &oauth2.Token{RefreshToken: login.RefreshToken}}
	_, err = elsewhere.Token()
	require.ErrorIs(t, err, authretry.ErrLoginRequired, "it was used before")
	_, err = tokens.Refresh(t.Context(), nil)
	require.ErrorIs(t, err, authretry.ErrLoginRequired, "which has ended the login")
}

// Tokens that are bound to a key, at a provider that wants nonces at both of its endpoints.
func TestOIDCProviderDPoP(t *testing.T) {
	srv, _ := startProvider(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	proof, err := dpop.NewKey(key)
	require.NoError(t, err)
	base := &sends{}
	endpoint := &authretry.TokenEndpoint{URL: srv.URL + "/token", ClientID: "public", Proof: proof, HTTPClient: &http.Client{Transport: base}}
	code, verifier := authorize(t, srv, url.Values{"client_id": {"public"}, "scope": {"openid offline_access"}, "dpop_jkt": {proof.Thumbprint()}})
	login, err := endpoint.AuthorizationCode(code, verifier, "http://127.0.0.1/callback")(t.Context(), authretry.TokenRequest{})
	require.NoError(t, err)
	require.Equal(t, map[string]int{"/token": 2}, base.take(), "the first one brings the nonce")
	require.Equal(t, "DPoP", login.TokenType)

	tokens := &authretry.TokenSource{Fetch: endpoint.Refresh(), Initial: login}
	client := &http.Client{Transport: &authretry.Transport{Base: base, Schemes: []authretry.Scheme{&dpop.Scheme{Source: tokens, Key: proof}}}}
	me := func() int {
		resp, err := client.Get(srv.URL + "/me")
		require.NoError(t, err)
		defer resp.Body.Close()
		require.NoError(t, authretry.Explain(resp))
		return resp.StatusCode
	}
	for range 3 {
		require.Equal(t, 200, me())
	}
	require.Equal(t, map[string]int{"/me": 3}, base.take(), "the nonce is one for both endpoints")
	refreshed, err := tokens.Refresh(t.Context(), nil)
	require.NoError(t, err)
	require.NotEqual(t, login.AccessToken, refreshed.AccessToken)
	require.Equal(t, 200, me())
	require.Equal(t, map[string]int{"/token": 1, "/me": 1}, base.take())

	// A process that begins: it has the token, but no nonce.
	other, err := dpop.NewKey(key)
	require.NoError(t, err)
	client.Transport = &authretry.Transport{Base: base, Schemes: []authretry.Scheme{&dpop.Scheme{Source: tokens, Key: other}}}
	for range 3 {
		require.Equal(t, 200, me())
	}
	require.Equal(t, map[string]int{"/me": 4, "401": 1}, base.take(), "two sends for the first request, one for each other")

	// A client that has another key gets no further than here.
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	strange, err := dpop.NewKey(stranger)
	require.NoError(t, err)
	client.Transport = &authretry.Transport{Base: base, Schemes: []authretry.Scheme{&dpop.Scheme{Source: tokens, Key: strange}}}
	_, err = client.Get(srv.URL + "/me")
	rejection, ok := errors.AsType[*authretry.Rejection](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, authretry.ReasonWrongKey, rejection.Reason)
	require.Empty(t, base.take())
}
