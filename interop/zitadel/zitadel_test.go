// Package zitadel tests the token endpoint's grants against the example server of zitadel/oidc. It is a module of its own, since
// that server and fosite need different versions of the same modules.
package zitadel

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/oauth2"
)

const (
	callback  = "http://127.0.0.1/callback"
	tokenType = "urn:ietf:params:oauth:token-type:"
)

// keyedStorage is the example's, with keys of clients and service users that are made for the test: those of the example have
// 1024 bits. A client that has a key must authenticate itself by it.
type keyedStorage struct {
	*storage.Storage
	keys map[string]crypto.PublicKey // by client and kid
}

func (s *keyedStorage) GetKeyByIDAndClientID(_ context.Context, kid, client string) (*jose.JSONWebKey, error) {
	key, ok := s.keys[client+" "+kid]
	if !ok {
		return nil, errors.New("key not found")
	}
	return &jose.JSONWebKey{KeyID: kid, Use: "sig", Key: key}, nil
}

func (s *keyedStorage) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	client, err := s.Storage.GetClientByClientID(ctx, id)
	if _, ok := s.keys[id+" k1"]; err == nil && ok {
		return keyedClient{client}, nil
	}
	return client, err
}

type keyedClient struct{ op.Client }

func (keyedClient) AuthMethod() oidc.AuthMethod { return oidc.AuthMethodPrivateKeyJWT }

// A server is a running server.
type server struct {
	issuer string
	ec     *ecdsa.PrivateKey // of the client "jwt", as k1, and of the service user, as k2
	rsa    *rsa.PrivateKey   // of the client "jwt", as k3, and of the service user, as k1
	sends  atomic.Int32      // to the token endpoint
}

func start(t *testing.T) *server {
	t.Helper()
	s := &server{}
	var err error
	s.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	s.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	srv := httptest.NewUnstartedServer(nil)
	s.issuer = "http://" + srv.Listener.Addr().String() + "/"
	store := &keyedStorage{
		Storage: storage.NewStorageWithClients(storage.NewUserStore(s.issuer), map[string]*storage.Client{
			"jwt": storage.NativeClient("jwt", callback),
			"web": storage.WebClient("web", "s+cret/", callback),
		}),
		keys: map[string]crypto.PublicKey{"jwt k1": &s.ec.PublicKey, "jwt k3": &s.rsa.PublicKey,
			storage.ServiceUserID + " k1": &s.rsa.PublicKey, storage.ServiceUserID + " k2": &s.ec.PublicKey},
	}
	handler := exampleop.SetupServer(s.issuer, store, slog.New(slog.DiscardHandler), false)
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/oauth/token" {
			s.sends.Add(1)
		}
		handler.ServeHTTP(w, r)
	})
	srv.Start()
	t.Cleanup(srv.Close)
	return s
}

func (s *server) endpoint(client string, auth authretry.ClientAuth) *authretry.TokenEndpoint {
	return &authretry.TokenEndpoint{URL: s.issuer + "oauth/token", ClientID: client, Auth: auth, Issuer: s.issuer}
}

// login has somebody log in, by the forms that a browser would show.
func (s *server) login(t *testing.T, endpoint *authretry.TokenEndpoint) *oauth2.Token {
	t.Helper()
	verifier := rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(verifier))
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	code := ""
	client := &http.Client{Jar: jar, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if req.URL.Path == "/callback" {
			code = req.URL.Query().Get("code")
			return http.ErrUseLastResponse
		}
		return nil
	}}
	resp, err := client.Get(s.issuer + "auth?" + url.Values{"client_id": {endpoint.ClientID}, "redirect_uri": {callback}, "response_type": {"code"},
		"scope": {"openid offline_access"}, "state": {"s"}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}}.Encode())
	require.NoError(t, err)
	page, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body.Close()
	id := regexp.MustCompile(`name="id" value="([^"]+)"`).FindSubmatch(page)
	require.NotNil(t, id, "there is no form on %s", page)
	resp, err = client.PostForm(s.issuer+"login/username", url.Values{"id": {string(id[1])}, "username": {"test-user@127.0.0.1"}, "password": {"verysecure"}})
	require.NoError(t, err)
	resp.Body.Close()
	require.NotEmpty(t, code)
	login, err := endpoint.AuthorizationCode(code, verifier, callback)(t.Context(), authretry.TokenRequest{})
	require.NoError(t, err)
	return login
}

// subjectOf asks the server whose token it is.
func (s *server) subjectOf(t *testing.T, token *oauth2.Token) string {
	t.Helper()
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: oauth2.StaticTokenSource(token)})}
	resp, err := client.Get(s.issuer + "userinfo")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, authretry.Explain(resp))
	var claims struct{ Sub string }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&claims))
	return claims.Sub
}

// A client that signs an assertion for the code, and another for each refresh. Refresh tokens rotate.
func TestPrivateKeyJWT(t *testing.T) {
	s := start(t)
	for name, auth := range map[string]*authretry.PrivateKeyJWT{
		"ES256": {Signer: s.ec, KeyID: "k1"},
		"RS256": {Signer: s.rsa, KeyID: "k3"},
		"PS256": {Signer: s.rsa, KeyID: "k3", Algorithm: "PS256"},
	} {
		s.sends.Store(0)
		endpoint := s.endpoint("jwt", auth)
		login := s.login(t, endpoint)
		require.Equal(t, "id1", s.subjectOf(t, login), name)
		tokens := &authretry.TokenSource{Fetch: endpoint.Refresh(), Initial: login}
		seen := map[string]bool{login.RefreshToken: true}
		for range 3 {
			got, err := tokens.Refresh(t.Context(), nil)
			require.NoError(t, err, name)
			require.False(t, seen[got.RefreshToken], "rotated")
			seen[got.RefreshToken] = true
			require.Equal(t, "id1", s.subjectOf(t, got))
		}
		require.EqualValues(t, 4, s.sends.Load())

		elsewhere := &authretry.TokenSource{Fetch: endpoint.Refresh(), Initial: &oauth2.Token{RefreshToken: login.RefreshToken}}
		_, err := elsewhere.Token()
		require.ErrorIs(t, err, authretry.ErrLoginRequired, "it was used before")
	}
	for name, auth := range map[string]*authretry.PrivateKeyJWT{
		"a key of nobody":  {Signer: s.ec, KeyID: "k9"},
		"another key":      {Signer: s.ec, KeyID: "k3"},
		"another audience": {Signer: s.ec, KeyID: "k1", Audience: "https://other.example.com"},
	} {
		tokens := &authretry.TokenSource{Fetch: s.endpoint("jwt", auth).Refresh(), Initial: &oauth2.Token{RefreshToken: "r"}}
		_, err := tokens.Token()
		require.Error(t, err, name)
	}
}

// RFC 7523 §2.1: the assertion is made anew for each token.
func TestJWTBearer(t *testing.T) {
	s := start(t)
	for kid, key := range map[string]jose.SigningKey{"k1": {Algorithm: jose.RS256, Key: s.rsa}, "k2": {Algorithm: jose.ES256, Key: s.ec}} {
		signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithHeader("kid", kid))
		require.NoError(t, err)
		made := 0
		tokens := &authretry.TokenSource{Fetch: s.endpoint("", nil).JWTBearer(func(context.Context, authretry.TokenRequest) (string, error) {
			made++
			claims, err := json.Marshal(map[string]any{"iss": storage.ServiceUserID, "sub": storage.ServiceUserID, "aud": s.issuer, "jti": rand.Text(),
				"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()})
			if err != nil {
				return "", err
			}
			signed, err := signer.Sign(claims)
			if err != nil {
				return "", err
			}
			return signed.CompactSerialize()
		})}
		first, err := tokens.Token()
		require.NoError(t, err)
		require.True(t, first.Valid())
		second, err := tokens.Refresh(t.Context(), first)
		require.NoError(t, err)
		require.NotEqual(t, first.AccessToken, second.AccessToken)
		require.Equal(t, 2, made)

		wider, err := tokens.Obtain(t.Context(), authretry.TokenRequest{Scopes: []string{"openid"}})
		require.NoError(t, err)
		require.Equal(t, "openid", wider.Extra("scope"))
	}
	bad := &authretry.TokenSource{Fetch: s.endpoint("", nil).JWTBearer(func(context.Context, authretry.TokenRequest) (string, error) { return "a.b.c", nil })}
	_, err := bad.Token()
	require.Error(t, err)
	require.NotContains(t, err.Error(), "a.b.c")
}

// RFC 8693: what the exchange of a user's token gives, as each type of token.
func TestTokenExchange(t *testing.T) {
	s := start(t)
	subject := s.login(t, s.endpoint("jwt", &authretry.PrivateKeyJWT{Signer: s.ec, KeyID: "k1"}))
	endpoint := s.endpoint("web", authretry.SecretBasic("s+cret/"))
	ask := func(requested string, scopes ...string) (*oauth2.Token, error) {
		return (&authretry.TokenSource{Fetch: endpoint.TokenExchange(authretry.TokenExchange{
			Subject: func(context.Context) (string, string, error) {
				return subject.AccessToken, tokenType + "access_token", nil
			},
			Scopes:        scopes,
			RequestedType: requested,
		})}).Token()
	}
	access, err := ask(tokenType+"access_token", "openid")
	require.NoError(t, err)
	require.Equal(t, "Bearer", access.TokenType)
	require.Equal(t, tokenType+"access_token", access.Extra("issued_token_type"))
	require.NotEqual(t, subject.AccessToken, access.AccessToken)
	require.Empty(t, access.RefreshToken)
	require.Equal(t, "id1", s.subjectOf(t, access))

	other, err := ask(tokenType+"access_token", "openid", "custom_scope:impersonate:id2")
	require.NoError(t, err)
	require.Equal(t, "id2", s.subjectOf(t, other), "the administrator acts for somebody else")

	id, err := ask(tokenType+"id_token", "openid")
	require.NoError(t, err)
	require.Equal(t, "N_A", id.TokenType, "it is none that gives access (RFC 8693 §2.2.1)")
	_, err = (&http.Client{Transport: authretry.New(&authretry.Bearer{Source: oauth2.StaticTokenSource(id)})}).Get(s.issuer + "userinfo")
	require.ErrorContains(t, err, "N_A", "and so it is not sent")

	// A refresh token that comes of an exchange is used as any other.
	login, err := ask(tokenType+"refresh_token", "openid", "offline_access")
	require.NoError(t, err)
	require.NotEmpty(t, login.RefreshToken)
	tokens := &authretry.TokenSource{Fetch: endpoint.Refresh(), Initial: login}
	refreshed, err := tokens.Refresh(t.Context(), nil)
	require.NoError(t, err)
	require.NotEqual(t, login.RefreshToken, refreshed.RefreshToken)
	require.Equal(t, "id1", s.subjectOf(t, refreshed))

	wrong := s.endpoint("web", authretry.SecretBasic("s cret/"))
	_, err = (&authretry.TokenSource{Fetch: wrong.TokenExchange(authretry.TokenExchange{
		Subject: func(context.Context) (string, string, error) {
			return subject.AccessToken, tokenType + "access_token", nil
		}})}).Token()
	require.ErrorContains(t, err, "invalid_client")
	require.NotContains(t, err.Error(), subject.AccessToken)
}

// The client's own credentials, with a secret.
func TestClientCredentials(t *testing.T) {
	s := start(t)
	for name, auth := range map[string]authretry.ClientAuth{"by the header": authretry.SecretBasic("verysecret"), "by parameters": authretry.SecretPost("verysecret")} {
		token, err := (&authretry.TokenSource{Fetch: s.endpoint("sid1", auth).ClientCredentials("openid")}).Token()
		require.NoError(t, err, name)
		require.True(t, token.Valid())
	}
	require.EqualValues(t, 2, s.sends.Load())
}
