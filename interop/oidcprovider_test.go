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
	query, verifier := authorizationRequest()
	for name, values := range params {
		query[name] = values
	}
	return walk(t, srv.URL+"/auth?"+query.Encode()).Get("code"), verifier
}

// authorizationRequest returns what every authorization request says here, and the verifier to its challenge.
func authorizationRequest() (params url.Values, verifier string) {
	verifier = rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(verifier))
	return url.Values{"response_type": {"code"}, "redirect_uri": {"http://127.0.0.1/callback"}, "prompt": {"consent"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}}, verifier
}

// walk is a person with a browser, who fills in each form, until there is none. It returns what the client is told by the redirect
// at the end, nil if there is none.
func walk(t *testing.T, address string) url.Values {
	t.Helper()
	arrived := walkTo(t, address)
	if arrived == nil {
		return nil
	}
	require.Empty(t, arrived.Query().Get("error"), arrived.Query().Get("error_description"))
	return arrived.Query()
}

// walkTo is such a person, and returns where the redirect at the end leads.
func walkTo(t *testing.T, address string) *url.URL {
	t.Helper()
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
	action := regexp.MustCompile(`<form[^>]*action="([^"]+)"`)
	hidden := regexp.MustCompile(`<input type="hidden" name="([^"]+)" value="([^"]*)"`)
	resp, err := client.Get(address)
	for range 6 {
		require.NoError(t, err)
		page, err2 := io.ReadAll(resp.Body)
		resp.Body.Close()
		require.NoError(t, err2)
		if arrived != nil {
			return arrived
		}
		require.Equal(t, 200, resp.StatusCode, "%s", page)
		to := action.FindSubmatch(page)
		if to == nil {
			return nil
		}
		fields := url.Values{"login": {"mufasa"}, "password": {"x"}, "confirm": {"yes"}}
		for _, field := range hidden.FindAllSubmatch(page, -1) {
			fields.Set(string(field[1]), string(field[2]))
		}
		resp, err = client.PostForm(string(to[1]), fields)
	}
	require.Fail(t, "the forms do not end")
	return nil
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
	require.Equal(t, map[string]int{"/token": 1}, base.take(), "one refresh, which may bring a token of that key; the token is not sent")
}

// What is asked for is pushed first (RFC 9126), and what is pushed by a key's owner is bound to that key.
func TestOIDCProviderPushedRequest(t *testing.T) {
	srv, signer := startProvider(t)
	endpoint := &authretry.TokenEndpoint{URL: srv.URL + "/token", ClientID: "jwt", Auth: &authretry.PrivateKeyJWT{Signer: signer, KeyID: "k1"}, Issuer: srv.URL}
	form, verifier := authorizationRequest()
	form.Set("scope", "openid offline_access read")
	form.Set("resource", "https://api.example.com/")
	var pushed struct {
		RequestURI string `json:"request_uri"`
	}
	postByHand(t, endpoint, srv.URL+"/request", form, &pushed)
	require.NotEmpty(t, pushed.RequestURI)
	code := walk(t, srv.URL+"/auth?"+url.Values{"client_id": {"jwt"}, "request_uri": {pushed.RequestURI}}.Encode()).Get("code")
	endpoint.Params = url.Values{"resource": {"https://api.example.com/"}}
	login, err := endpoint.AuthorizationCode(code, verifier, "http://127.0.0.1/callback")(t.Context(), authretry.TokenRequest{})
	require.NoError(t, err)
	tokens := &authretry.TokenSource{Fetch: endpoint.Refresh(), Initial: login}
	refreshed, err := tokens.Refresh(t.Context(), nil)
	require.NoError(t, err)
	claims := introspect(t, srv, refreshed.AccessToken)
	require.Equal(t, []any{true, "https://api.example.com/"}, []any{claims["active"], claims["aud"]})
}

// A login by a device (RFC 8628), whose tokens are bound to a key. From then on they are refreshed as any others.
func TestOIDCProviderDevice(t *testing.T) {
	srv, _ := startProvider(t)
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	key, err := dpop.NewKey(signer)
	require.NoError(t, err)
	base := &sends{}
	endpoint := &authretry.TokenEndpoint{URL: srv.URL + "/token", ClientID: "public", Proof: key, HTTPClient: &http.Client{Transport: base}}
	var device struct {
		Code     string `json:"device_code"`
		Complete string `json:"verification_uri_complete"`
	}
	postByHand(t, endpoint, srv.URL+"/device/auth", url.Values{"scope": {"openid offline_access"}}, &device)
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {device.Code}}
	var answer struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
		TokenType    string `json:"token_type"`
		Error        string
	}
	postByHand(t, endpoint, endpoint.URL, form, &answer)
	require.Equal(t, "authorization_pending", answer.Error)
	walk(t, device.Complete)
	answer.Error = ""
	postByHand(t, endpoint, endpoint.URL, form, &answer)
	require.Empty(t, answer.Error)
	require.Equal(t, "DPoP", answer.TokenType)

	tokens := &authretry.TokenSource{Fetch: endpoint.Refresh(), Initial: &oauth2.Token{RefreshToken: answer.RefreshToken}}
	client := &http.Client{Transport: &authretry.Transport{Base: base, Schemes: []authretry.Scheme{&dpop.Scheme{Source: tokens, Key: key}}}}
	for range 2 {
		resp, err := client.Get(srv.URL + "/me")
		require.NoError(t, err)
		require.NoError(t, authretry.Explain(resp))
		require.NoError(t, resp.Body.Close())
	}
	require.Equal(t, map[string]int{"/token": 1, "/me": 2}, base.take())
}

// postByHand sends a form as the client of an endpoint, with a proof where it has a key, as often as nonces are asked for, and
// decodes the answer.
func postByHand(t *testing.T, e *authretry.TokenEndpoint, address string, form url.Values, into any) {
	t.Helper()
	var data []byte
	for range 3 {
		fields := url.Values{"client_id": {e.ClientID}}
		for name, values := range form {
			fields[name] = values
		}
		header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
		if e.Auth != nil {
			require.NoError(t, e.Auth.Authenticate(t.Context(), e, fields, header))
		}
		req, err := http.NewRequest("POST", address, strings.NewReader(fields.Encode()))
		require.NoError(t, err)
		req.Header = header
		if e.Proof != nil {
			require.NoError(t, e.Proof.Prove(req, ""))
		}
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		if e.Proof != nil {
			e.Proof.Learn(resp)
		}
		data, err = io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		if !strings.Contains(string(data), "use_dpop_nonce") {
			break
		}
	}
	require.NoError(t, json.Unmarshal(data, into), "%s", data)
}
