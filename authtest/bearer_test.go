package authtest

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

func TestBearerRotatesAndDetectsReuse(t *testing.T) {
	// Characters that only form-encoding before Basic keeps apart (RFC 6749 §2.3.1).
	bearer := &Bearer{ClientID: "an id", ClientSecret: "s&cret:%+ä"}
	srv := NewServer(bearer)
	defer srv.Close()
	first := bearer.Login("read")
	require.Equal(t, 200, send(t, srv, "GET", "/", "", auth("Bearer "+first.AccessToken)).StatusCode)

	expired := *first
	expired.Expiry = time.Unix(1, 0)
	second, err := bearer.Config().TokenSource(t.Context(), &expired).Token()
	require.NoError(t, err)
	require.NotEqual(t, first.RefreshToken, second.RefreshToken)
	require.WithinDuration(t, time.Now().Add(time.Hour), second.Expiry, time.Minute)
	require.Equal(t, 200, send(t, srv, "GET", "/", "", auth("Bearer "+second.AccessToken)).StatusCode)
	require.Equal(t, 200, send(t, srv, "GET", "/", "", auth("bearer "+first.AccessToken)).StatusCode,
		"the old token stays good unless RevokeOnRefresh is set")

	_, err = bearer.Config().TokenSource(t.Context(), &expired).Token()
	require.ErrorContains(t, err, "invalid_grant")
	require.Equal(t, 1, bearer.Reuses())
	for _, token := range []*oauth2.Token{first, second} {
		resp := send(t, srv, "GET", "/", "", auth("Bearer "+token.AccessToken))
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, `Bearer realm="authtest", error="invalid_token", error_description="the access token was revoked"`,
			resp.Header.Get("WWW-Authenticate"))
	}
	second.Expiry = time.Unix(1, 0)
	_, err = bearer.Config().TokenSource(t.Context(), second).Token()
	require.ErrorContains(t, err, "invalid_grant", "the family is revoked, the newest refresh token included")

	requests := srv.TokenRequests()
	require.Len(t, requests, 3)
	require.Equal(t, "refresh_token 200", requests[0].String())
	require.Equal(t, Accepted, requests[0].Decision)
	require.Equal(t, "an id", requests[0].ClientID)
	require.Equal(t, first.RefreshToken, requests[0].Form.Get("refresh_token"))
	require.Equal(t, "refresh_token 400 invalid_grant", requests[1].String())
	require.Equal(t, Refused, requests[1].Decision)
	require.Equal(t, 3, srv.Counts().TokenRequests)
	require.Equal(t, 5, srv.Counts().Requests, "token requests are counted apart")
}

func TestBearerRefusals(t *testing.T) {
	bearer := &Bearer{Realm: "api", Scope: "read write"}
	srv := NewServer(bearer)
	defer srv.Close()
	good, narrow, revoked, family := bearer.Login("write", "read", "x"), bearer.Login("read"), bearer.Login("read", "write"), bearer.Login("read", "write")
	require.True(t, bearer.Revoke(revoked.AccessToken))
	require.True(t, bearer.Revoke(family.RefreshToken))
	require.False(t, bearer.Revoke("nobody's"))

	for _, c := range []struct {
		header, challenge string
		status            int
		decision          Decision
	}{
		{"Bearer " + good.AccessToken, "", 200, Accepted},
		{"", `Bearer realm="api", scope="read write"`, 401, Challenged},
		{"Basic eDp5", `Bearer realm="api", scope="read write"`, 401, Challenged},
		{"Bearer x", `Bearer realm="api", error="invalid_token", error_description="the access token is unknown", scope="read write"`, 401, Refused},
		{"Bearer " + revoked.AccessToken, `Bearer realm="api", error="invalid_token", error_description="the access token was revoked", scope="read write"`, 401, Refused},
		{"Bearer " + family.AccessToken, `Bearer realm="api", error="invalid_token", error_description="the access token was revoked", scope="read write"`, 401, Refused},
		{"Bearer " + narrow.AccessToken, `Bearer realm="api", error="insufficient_scope", error_description="the access token lacks the scope", scope="read write"`, 403, Refused},
	} {
		srv.Reset()
		var header http.Header
		if c.header != "" {
			header = auth(c.header)
		}
		resp := send(t, srv, "GET", "/", "", header)
		require.Equal(t, c.status, resp.StatusCode, c.header)
		require.Equal(t, c.challenge, resp.Header.Get("WWW-Authenticate"))
		require.Equal(t, c.decision, srv.Requests()[0].Decision)
	}
	bearer.ExpireNow()
	resp := send(t, srv, "GET", "/", "", auth("Bearer "+good.AccessToken))
	require.Contains(t, resp.Header.Get("WWW-Authenticate"), "the access token expired")
}

func TestBearerRevokeOnRefresh(t *testing.T) {
	bearer := &Bearer{RevokeOnRefresh: true, OmitExpiry: true, TokenType: "bearer", TokenPath: "/oauth2/token"}
	srv := NewServer(bearer)
	defer srv.Close()
	first := bearer.Login()
	require.True(t, first.Expiry.IsZero())
	second, err := bearer.Config().TokenSource(t.Context(), &oauth2.Token{RefreshToken: first.RefreshToken}).Token()
	require.NoError(t, err)
	require.True(t, second.Expiry.IsZero())
	require.Equal(t, "bearer", second.TokenType)
	require.Equal(t, 401, send(t, srv, "GET", "/", "", auth("Bearer "+first.AccessToken)).StatusCode)
	require.Equal(t, 200, send(t, srv, "GET", "/", "", auth("Bearer "+second.AccessToken)).StatusCode)
	require.Equal(t, 401, send(t, srv, "GET", "/token", "", nil).StatusCode, "/token is a path like any other here")
}

func TestBearerKeepRefresh(t *testing.T) {
	bearer := &Bearer{KeepRefresh: true}
	srv := NewServer(bearer)
	defer srv.Close()
	old := &oauth2.Token{RefreshToken: bearer.Login().RefreshToken}
	for range 3 {
		token, err := bearer.Config().TokenSource(t.Context(), old).Token()
		require.NoError(t, err)
		require.Equal(t, old.RefreshToken, token.RefreshToken)
		require.Equal(t, 200, send(t, srv, "GET", "/", "", auth("Bearer "+token.AccessToken)).StatusCode)
	}
	require.Zero(t, bearer.Reuses())
}

func TestTokenEndpoint(t *testing.T) {
	bearer := &Bearer{ClientID: "id", ClientSecret: "secret", TokenLifetime: 1500 * time.Millisecond}
	srv := NewServer(bearer)
	defer srv.Close()
	const form = "application/x-www-form-urlencoded"
	basic := http.Header{"Content-Type": {form}, "Authorization": {"Basic aWQ6c2VjcmV0"}}
	wrong := http.Header{"Content-Type": {form}, "Authorization": {"Basic aWQ6d3Jvbmc="}}
	garbled := http.Header{"Content-Type": {form}, "Authorization": {"Basic !"}}
	none := http.Header{"Content-Type": {form + "; charset=utf-8"}}
	text := http.Header{"Content-Type": {"text/plain"}, "Authorization": basic["Authorization"]}
	refresh := url.QueryEscape(bearer.Login("a b").RefreshToken)

	for _, c := range []struct {
		name, body string
		header     http.Header
		status     int
		code       string
	}{
		{"by Basic", "grant_type=client_credentials&scope=a+b", basic, 200, ""},
		{"by form", "grant_type=client_credentials&client_id=id&client_secret=secret", none, 200, ""},
		{"id said twice", "grant_type=client_credentials&client_id=id", basic, 200, ""},
		{"by both", "grant_type=client_credentials&client_id=id&client_secret=secret", basic, 400, "invalid_request"},
		{"garbled Basic", "grant_type=client_credentials", garbled, 400, "invalid_request"},
		{"wrong secret", "grant_type=client_credentials", wrong, 401, "invalid_client"},
		{"no client", "grant_type=client_credentials", none, 401, "invalid_client"},
		{"not a form", "grant_type=client_credentials", text, 400, "invalid_request"},
		{"no grant type", "scope=a", basic, 400, "invalid_request"},
		{"another grant type", "grant_type=password", basic, 400, "unsupported_grant_type"},
		{"no refresh token", "grant_type=refresh_token", basic, 400, "invalid_request"},
		{"unknown refresh token", "grant_type=refresh_token&refresh_token=x", basic, 400, "invalid_grant"},
		{"more scope", "grant_type=refresh_token&refresh_token=" + refresh + "&scope=c", basic, 400, "invalid_scope"},
		{"less scope", "grant_type=refresh_token&refresh_token=" + refresh + "&scope=b", basic, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv.Reset()
			resp := send(t, srv, "POST", "/token", c.body, c.header)
			require.Equal(t, c.status, resp.StatusCode)
			require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
			require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
			var answer map[string]any
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
			if c.code != "" {
				require.Equal(t, c.code, answer["error"])
				require.NotContains(t, answer, "access_token")
			} else {
				require.NotEmpty(t, answer["access_token"])
				require.EqualValues(t, 1, answer["expires_in"])
			}
			require.Equal(t, c.code, srv.TokenRequests()[0].Error)
			_, challenged := resp.Header["Www-Authenticate"]
			require.Equal(t, c.status == 401, challenged, "no 401 without a challenge (RFC 9110 §15.5.2)")
		})
	}
	require.Equal(t, 405, send(t, srv, "GET", "/token?grant_type=client_credentials", "", basic).StatusCode)

	token, err := bearer.ClientCredentials("x", "y").Token(t.Context())
	require.NoError(t, err)
	require.Equal(t, "x y", token.Extra("scope"))
	require.Empty(t, token.RefreshToken)
}

func TestTokenEndpointFaults(t *testing.T) {
	bearer := &Bearer{}
	srv := NewServer(bearer)
	defer srv.Close()
	const path = "/token"
	srv.Inject(path, 1, Reply(429, http.Header{"retry-after": {"2"}}, ""))
	srv.Inject(path, 2, Reply(503, nil, ""))
	srv.Inject(path, 1, Reply(200, http.Header{"Content-Type": {"text/html"}}, "<html>log in</html>"))
	srv.Inject(path, 1, Reply(200, http.Header{"Content-Type": {"application/json"}}, `{"token_type":"Bearer"}`))
	srv.Inject(path, 1, TokenError("invalid_grant"))
	srv.Inject(path, 1, TokenError("invalid_client"))

	var failures []string
	for range 8 {
		_, err := bearer.ClientCredentials().Token(t.Context())
		if err == nil {
			failures = append(failures, "")
		} else if failed := new(oauth2.RetrieveError); errors.As(err, &failed) {
			failures = append(failures, failed.Response.Status)
		} else {
			failures = append(failures, err.Error())
		}
	}
	require.Equal(t, []string{
		"429 Too Many Requests", "503 Service Unavailable", "503 Service Unavailable",
		"oauth2: cannot parse json: invalid character '<' looking for beginning of value",
		"oauth2: server response missing access_token",
		"400 Bad Request", "401 Unauthorized", "",
	}, failures)
	requests := srv.TokenRequests()
	require.Len(t, requests, 8)
	require.Equal(t, Injected, requests[0].Decision)
	require.Equal(t, "client_credentials", requests[0].GrantType, "what arrived is recorded though a fault answers")
	require.Equal(t, "client_credentials 400 invalid_grant", requests[5].String())
	require.Equal(t, Accepted, requests[7].Decision)

	srv.Inject(path, 1, Reply(429, http.Header{"retry-after": {"2"}}, ""))
	require.Equal(t, "2", send(t, srv, "POST", path, "", nil).Header.Get("Retry-After"))
}

func TestBearersOfOneServer(t *testing.T) {
	a, b := &Bearer{}, &Bearer{TokenPath: "/b/token"}
	require.Panics(t, func() { a.TokenURL() })
	srv := NewServer(a)
	defer srv.Close()
	srv.Protect("/b", b)
	require.True(t, strings.HasSuffix(b.TokenURL(), "/b/token"))
	require.Equal(t, 401, send(t, srv, "GET", "/b/x", "", auth("Bearer "+a.Login().AccessToken)).StatusCode)
	require.Equal(t, 200, send(t, srv, "GET", "/b/x", "", auth("Bearer "+b.Login().AccessToken)).StatusCode)
	require.Panics(t, func() { srv.Protect("/c", &Bearer{}) }, "the token endpoint of a is there")
	other := NewServer()
	defer other.Close()
	require.Panics(t, func() { other.Protect("/", a) })
}
