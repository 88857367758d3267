package registry_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/registry"
	"github.com/stretchr/testify/require"
)

// FuzzChallenge has a hostile registry name a token server, a service and a scope of its choice: no panic, no more than two sends
// and one token request for one call, and credentials for nobody but the first token server that it names.
func FuzzChallenge(f *testing.F) {
	f.Add("https://auth.example.com/token", "s", "repository:a:pull", "https://evil.example.com/", "invalid_token", "/v2/a/manifests/latest")
	f.Add("/token", "", "", "//evil.example.com", "insufficient_scope", "/v2/")
	f.Add("javascript:alert(1)", "a&b", ":::", "https://u@a/", "", "/v2//blobs/uploads/")
	f.Add("https://[::ffff:127.0.0.1]/", "\\", "a:b c:d,,e", "http://a", "x", "/v2/blobs/uploads/blobs/uploads/blobs")
	f.Fuzz(func(t *testing.T, realm1, service, scope, realm2, code, path string) {
		sends, asked := 0, 0
		withCredentials := map[string]bool{}
		tokens := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			asked++
			require.Contains(t, []string{"https"}, req.URL.Scheme)
			require.Nil(t, req.URL.User)
			if _, p, ok := req.BasicAuth(); ok && p == password {
				withCredentials[registry.OriginOf(req.URL)] = true
			}
			w := httptest.NewRecorder()
			w.WriteString(`{"token":"t"}`)
			return w.Result(), nil
		})
		escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			sends++
			require.LessOrEqual(t, len(req.Header["Authorization"]), 1)
			realm := realm1
			if sends > 2 {
				realm = realm2
			}
			header := `Bearer realm="` + escape.Replace(realm) + `",service="` + escape.Replace(service) + `",scope="` + escape.Replace(scope) + `",error="` + escape.Replace(code) + `"`
			return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: http.Header{"Www-Authenticate": {header}}}, nil
		})
		scheme := &registry.Scheme{Credentials: returning(user, password), HTTPClient: &http.Client{Transport: tokens}}
		transport := &authretry.Transport{Base: base, Schemes: []authretry.Scheme{scheme}}
		for range 4 {
			before, askedBefore := sends, asked
			req := newRequest(t, "https://registry.example.com/")
			req.URL.Path = path
			resp, err := transport.RoundTrip(req)
			require.LessOrEqual(t, sends-before, 2)
			require.LessOrEqual(t, asked-askedBefore, 2) // an old token may have to be replaced first
			if err == nil {
				if why := authretry.Explain(resp); why != nil {
					require.NotContains(t, why.Error(), password)
				}
			} else {
				require.NotContains(t, err.Error(), password)
			}
		}
		delete(withCredentials, "https://registry.example.com")
		require.LessOrEqual(t, len(withCredentials), 1)
	})
}

func newRequest(t *testing.T, u string) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), "GET", u, nil)
	require.NoError(t, err)
	return req
}

// FuzzAnswer has a token server answer what it likes: a token can be sent, and lives for more than nothing and a day at most.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"token":"t","expires_in":300,"issued_at":"2026-11-26T12:00:00Z"}`), "Thu, 26 Nov 2026 12:00:10 GMT")
	f.Add([]byte(`{"access_token":"t","expires_in":-1e18}`), "")
	f.Add([]byte(`{"token":"\r\n","expires_in":"NaN","issued_at":0}`), "x")
	f.Add([]byte(`<html>`), "")
	f.Fuzz(func(t *testing.T, body []byte, date string) {
		now := time.Now()
		token, err := registry.ReadAnswer(&http.Response{StatusCode: 200, Header: http.Header{"Date": {date}}}, body)
		if err != nil {
			return
		}
		require.Regexp(t, `^[!-~]+$`, token.AccessToken)
		require.LessOrEqual(t, len(token.AccessToken), 64<<10)
		require.True(t, token.Expiry.After(now))
		require.False(t, token.Expiry.After(time.Now().Add(24*time.Hour)))
	})
}

// FuzzDockerConfig reads a configuration of any kind: no panic, and an entry in auths is for its own host alone.
func FuzzDockerConfig(f *testing.F) {
	f.Add(`{"auths":{"registry.example.com":`+auth("u", "p")+`}}`, "https://registry.example.com", "repository:a:pull")
	f.Add(`{"auths":{"https://index.docker.io/v1/":{"identitytoken":"x"}}}`, "https://registry-1.docker.io", "repository:a/b:pull,push registry:catalog:*")
	f.Add(`{"auths":{"":{"auth":"Og=="}},"credHelpers":{"a":""}}`, "://", ":")
	path := filepath.Join(f.TempDir(), "config.json")
	f.Setenv("PATH", "") // no helper is run
	f.Fuzz(func(t *testing.T, text, origin, scope string) {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		for _, challenge := range []*authretry.Challenge{nil, basicChallenge, bearer(scope)} {
			username, secret, err := registry.DockerConfig(path)(t.Context(), authretry.CredentialsRequest{Origin: origin, Challenge: challenge})
			if err != nil {
				require.Empty(t, username+secret)
				continue
			}
			require.NotEmpty(t, username+secret)
			require.False(t, username == "<token>" && challenge != nil && challenge.Scheme == "Basic")
		}
		_, host, _ := strings.Cut(origin, "://")
		if host != "" && !strings.Contains(host, "docker.io") && !strings.Contains(text, host) && !strings.Contains(text, `\`) {
			_, _, err := registry.DockerConfig(path)(t.Context(), authretry.CredentialsRequest{Origin: origin})
			require.Error(t, err)
		}
	})
}
