package interop

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/dpop"
	"github.com/authretry/authretry/filestore"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/authretry/authretry/login"
	"github.com/stretchr/testify/require"
)

// askAtProvider returns how to log in at oidc-provider.
func askAtProvider(srv *servers.Server, endpoint *authretry.TokenEndpoint) *login.Authorization {
	return &login.Authorization{Endpoint: endpoint, URL: srv.URL + "/auth", DeviceURL: srv.URL + "/device/auth", AnswersWithIssuer: true,
		Scopes: []string{"openid", "offline_access"}, Params: url.Values{"prompt": {"consent"}}}
}

// flows are the ways to log in, with a person who agrees. asked counts how often they were asked, and last is the last page that
// they have seen.
func flows(t *testing.T, asked *atomic.Int32, last *string) map[string]login.Flow {
	return map[string]login.Flow{
		"browser": &login.Browser{Out: io.Discard, Open: func(_ context.Context, address string) error {
			asked.Add(1)
			arrived := walkTo(t, address)
			require.NotNil(t, arrived)
			resp, err := http.Get(arrived.String())
			require.NoError(t, err)
			defer resp.Body.Close()
			page, err := io.ReadAll(resp.Body)
			*last = string(page)
			return err
		}},
		"device": &login.Device{Out: io.Discard, Prompt: func(_ context.Context, code *login.DeviceCode) error {
			asked.Add(1)
			require.NotEmpty(t, code.UserCode)
			walk(t, code.VerificationURIComplete)
			return nil
		}},
	}
}

// Somebody logs in at oidc-provider in either way; the login is saved, refreshed by a later process, and revoked by Logout.
func TestOIDCProviderLogin(t *testing.T) {
	srv, _ := startProvider(t)
	var asked atomic.Int32
	var last string
	for name, flow := range flows(t, &asked, &last) {
		t.Run(name, func(t *testing.T) {
			asked.Store(0)
			endpoint := &authretry.TokenEndpoint{URL: srv.URL + "/token", ClientID: "cli", Issuer: srv.URL}
			process := func(path string) (*authretry.TokenSource, *http.Client) {
				tokens := &authretry.TokenSource{Fetch: endpoint.Refresh(), Login: askAtProvider(srv, endpoint).LoginFunc(flow),
					Revoke: endpoint.Revocation(srv.URL + "/token/revocation"), Store: filestore.New(path)}
				return tokens, &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}
			}
			path := filepath.Join(t.TempDir(), "login.json")
			_, client := process(path)
			me := func(client *http.Client) {
				resp, err := client.Get(srv.URL + "/me")
				require.NoError(t, err)
				defer resp.Body.Close()
				require.NoError(t, authretry.Explain(resp))
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.JSONEq(t, `{"sub":"mufasa"}`, string(body))
			}
			me(client)

			later, client := process(path)
			me(client)
			saved, err := later.Token()
			require.NoError(t, err)
			refreshed, err := later.Refresh(t.Context(), saved)
			require.NoError(t, err)
			require.NotEqual(t, saved.AccessToken, refreshed.AccessToken)
			me(client)
			require.EqualValues(t, 1, asked.Load())

			require.Equal(t, true, introspect(t, srv, refreshed.AccessToken)["active"])
			require.NoError(t, later.Logout(t.Context()))
			require.Equal(t, false, introspect(t, srv, refreshed.AccessToken)["active"])
			require.Equal(t, false, introspect(t, srv, refreshed.RefreshToken)["active"])
			me(client)
			require.EqualValues(t, 2, asked.Load(), "a new login")
		})
	}
	require.Contains(t, last, "You are logged in")
}

// The same with tokens that are bound to a key: the code is, too (dpop_jkt, RFC 9449 §10).
func TestOIDCProviderLoginWithKey(t *testing.T) {
	srv, _ := startProvider(t)
	var asked atomic.Int32
	var last string
	for name, flow := range flows(t, &asked, &last) {
		t.Run(name, func(t *testing.T) {
			signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			require.NoError(t, err)
			key, err := dpop.NewKey(signer)
			require.NoError(t, err)
			endpoint := &authretry.TokenEndpoint{URL: srv.URL + "/token", ClientID: "public", Issuer: srv.URL, Proof: key}
			tokens := &authretry.TokenSource{Fetch: endpoint.Refresh(), Login: askAtProvider(srv, endpoint).LoginFunc(flow)}
			client := &http.Client{Transport: authretry.New(&dpop.Scheme{Source: tokens, Key: key})}
			resp, err := client.Get(srv.URL + "/me")
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.NoError(t, authretry.Explain(resp))
			token, err := tokens.Token()
			require.NoError(t, err)
			require.Equal(t, "DPoP", token.TokenType)
			_, err = tokens.Refresh(t.Context(), token)
			require.NoError(t, err)
		})
	}
	require.EqualValues(t, 2, asked.Load())
}

// A login for which the provider may not ask anybody: it says so, and is not asked again at once.
func TestOIDCProviderMayNotAsk(t *testing.T) {
	srv, _ := startProvider(t)
	endpoint := &authretry.TokenEndpoint{URL: srv.URL + "/token", ClientID: "cli", Issuer: srv.URL}
	asked := 0
	flow := &login.Browser{Out: io.Discard, Open: func(_ context.Context, address string) error {
		asked++
		u, err := url.Parse(address)
		require.NoError(t, err)
		query := u.Query()
		query.Set("prompt", "none") // nobody is logged in, and nobody may be asked
		u.RawQuery = query.Encode()
		arrived := walkTo(t, u.String())
		require.NotNil(t, arrived)
		resp, err := http.Get(arrived.String())
		if err == nil {
			resp.Body.Close()
		}
		return err
	}}
	tokens := &authretry.TokenSource{Login: askAtProvider(srv, endpoint).LoginFunc(flow)}
	for range 3 {
		_, err := tokens.Token()
		require.ErrorIs(t, err, authretry.ErrLoginRequired)
		require.ErrorContains(t, err, "login_required")
	}
	require.Equal(t, 1, asked)
}
