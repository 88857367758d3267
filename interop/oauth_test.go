package interop

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/oauthserver"
	"github.com/stretchr/testify/require"
)

func startOAuth(t *testing.T, lifetime time.Duration) *oauthserver.Server {
	t.Helper()
	srv, err := oauthserver.New(lifetime)
	require.NoError(t, err)
	t.Cleanup(srv.Close)
	return srv
}

func getResource(t *testing.T, client *http.Client, srv *oauthserver.Server, query string) *http.Response {
	t.Helper()
	resp, err := client.Get(srv.URL + "/resource" + query)
	require.NoError(t, err)
	resp.Body.Close()
	return resp
}

func TestOAuthRefresh(t *testing.T) {
	srv := startOAuth(t, time.Hour)
	login, err := srv.Login(t.Context())
	require.NoError(t, err)
	tokens := &authretry.TokenSource{Fetch: authretry.RefreshGrant(oauthserver.Config(srv.URL)), Initial: login}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}
	require.Equal(t, 200, getResource(t, client, srv, "").StatusCode)
	for range 3 {
		before := srv.Counts()
		require.NoError(t, srv.Expire(t.Context()))
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				resp, err := client.Get(srv.URL + "/resource")
				if err != nil || resp.StatusCode != 200 {
					t.Error(resp, err)
				}
				resp.Body.Close()
			})
		}
		wg.Wait()
		require.Equal(t, before.Refreshes+1, srv.Counts().Refreshes)
	}
	require.Zero(t, srv.Counts().InvalidGrants)

	// Somebody else uses the refresh token, and then we do, which ends the login.
	stolen, err := tokens.Token()
	require.NoError(t, err)
	thief := &authretry.TokenSource{Fetch: authretry.RefreshGrant(oauthserver.Config(srv.URL)), Initial: stolen}
	_, err = thief.Refresh(t.Context(), stolen)
	require.NoError(t, err)
	before := srv.Counts()
	for range 3 {
		_, err = client.Get(srv.URL + "/resource")
		require.ErrorIs(t, err, authretry.ErrLoginRequired)
		require.NotContains(t, err.Error(), stolen.RefreshToken)
	}
	require.Equal(t, before.TokenRequests+1, srv.Counts().TokenRequests, "the token endpoint is left alone")
	require.Equal(t, before.InvalidGrants+1, srv.Counts().InvalidGrants)

	again, err := srv.Login(t.Context())
	require.NoError(t, err)
	require.NoError(t, tokens.Set(again))
	require.Equal(t, 200, getResource(t, client, srv, "").StatusCode)
}

func TestOAuthTokensThatLiveForSeconds(t *testing.T) {
	srv := startOAuth(t, 2*time.Second)
	login, err := srv.Login(t.Context())
	require.NoError(t, err)
	tokens := &authretry.TokenSource{Fetch: authretry.RefreshGrant(oauthserver.Config(srv.URL)), Initial: login}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		require.Equal(t, 200, getResource(t, client, srv, "").StatusCode)
	}
	counts := srv.Counts()
	require.GreaterOrEqual(t, counts.Refreshes, 2)
	require.LessOrEqual(t, counts.Refreshes, 9)
	t.Logf("%d requests, %d refreshes in 5 s, %d refused", counts.Accepted, counts.Refreshes, counts.Refused)
}

func TestOAuthClientCredentials(t *testing.T) {
	srv := startOAuth(t, time.Hour)
	tokens := &authretry.TokenSource{Fetch: authretry.ClientCredentialsGrant(srv.ClientCredentials("read"))}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}
	require.Equal(t, 200, getResource(t, client, srv, "?scope=read").StatusCode)
	resp := getResource(t, client, srv, "?scope=write")
	require.Equal(t, 403, resp.StatusCode)
	rejection, ok := errors.AsType[*authretry.Rejection](authretry.Explain(resp))
	require.True(t, ok)
	require.Equal(t, authretry.ReasonInsufficientScope, rejection.Reason)
	require.Equal(t, 1, srv.Counts().TokenRequests)

	config := srv.ClientCredentials("read")
	config.ClientSecret = "wrong"
	wrong := &authretry.TokenSource{Fetch: authretry.ClientCredentialsGrant(config)}
	_, err := wrong.Token()
	require.ErrorIs(t, err, authretry.ErrLoginRequired)
}

func TestOAuthRevocation(t *testing.T) {
	srv := startOAuth(t, time.Hour)
	login, err := srv.Login(t.Context())
	require.NoError(t, err)
	tokens := &authretry.TokenSource{Fetch: authretry.RefreshGrant(oauthserver.Config(srv.URL)), Initial: login}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}
	require.Equal(t, 200, getResource(t, client, srv, "").StatusCode)

	config := oauthserver.Config(srv.URL)
	req, err := http.NewRequest("POST", srv.URL+"/revoke", strings.NewReader(url.Values{"token": {login.RefreshToken}}.Encode()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(config.ClientID), url.QueryEscape(config.ClientSecret))
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)

	_, err = client.Get(srv.URL + "/resource")
	require.ErrorIs(t, err, authretry.ErrLoginRequired)
}
