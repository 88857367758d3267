package registry_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/dnstest"
	"github.com/authretry/authretry/registry"
	"github.com/stretchr/testify/require"
)

// What others were told about their clients, and what becomes of it here.

// GHSA-xf85-363p-868w, CVE-2026-48978 and oras-go#1276: a registry on https names a token server on http, or one inside, and gets a
// password or an identity token sent there.
func TestOrasGo1276(t *testing.T) {
	guard := newSentinel(t)
	entries := map[string]string{"password": auth(user, password), "identity token": `{"auth":"dTo=","identitytoken":"` + password + `"}`}
	for kind, entry := range entries {
		credentials := registry.DockerConfig(writeConfig(t, `{"auths":{"registry.example.com":`+entry+`}}`))
		for name, realm := range map[string]string{
			"without TLS":               "http://auth.example.com/token",
			"without TLS, the registry": "http://registry.example.com/token",
			"inside":                    "https://127.0.0.1:" + guard.port + "/token",
			"a private network":         "https://10.0.0.1:" + guard.port + "/token",
			"metadata":                  "https://169.254.169.254/latest/meta-data/",
			"neither http nor https":    "ftp://auth.example.com/token",
		} {
			t.Run(kind+", "+name, func(t *testing.T) {
				n := &naming{realm: realm}
				srv := httptest.NewServer(n)
				defer srv.Close()
				s := &registry.Scheme{Credentials: credentials}
				s.SetProxy(noProxy)
				client := &http.Client{Transport: &authretry.Transport{Schemes: []authretry.Scheme{s}, Base: outside(t, srv, "8.8.4.4:443")}}
				resp, err := client.Get("https://registry.example.com/v2/a/manifests/latest")
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Equal(t, 401, resp.StatusCode)
				var why *authretry.Rejection
				require.ErrorAs(t, authretry.Explain(resp), &why)
				require.Equal(t, authretry.ReasonUntrustedRealm, why.Reason)
			})
		}

		// Another host, by https, is what registries do name. The client is the user's own: nobody judges its addresses, but
		// it is not asked for what has no TLS.
		var mu sync.Mutex
		var asked []string
		own := &http.Client{Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, req.URL.Scheme+"://"+req.URL.Host)
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"token":"t"}`)), Request: req}, nil
		})}
		for _, realm := range []string{"http://auth.example.com/token", "https://auth.example.com/token"} {
			srv := httptest.NewServer(&naming{realm: realm})
			defer srv.Close()
			s := &registry.Scheme{Credentials: credentials, HTTPClient: own}
			client := &http.Client{Transport: &authretry.Transport{Schemes: []authretry.Scheme{s}, Base: outside(t, srv, "8.8.4.4:443")}}
			resp, err := client.Get("https://registry.example.com/v2/a/manifests/latest")
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
		}
		require.Equal(t, []string{"https://auth.example.com"}, asked)
	}
	require.Zero(t, guard.connections.Load())
}

// go-containerregistry#2440: names that lead inside get past what looks at addresses in URLs alone. As the realm, and where a token
// server redirects to, they are not asked. Where a registry sends an upload or a blob, the caller goes: with no token of ours.
func TestGoContainerRegistry2440(t *testing.T) {
	guard := newSentinel(t)
	inside := map[string][]string{
		"loopback.example.com.": {"127.0.0.1"}, "private.example.com.": {"192.168.0.1"}, "metadata.example.com.": {"169.254.169.254"},
		"shared.example.com.": {"100.64.0.1"}, "unspecified.example.com.": {"0.0.0.0"}, "second.example.com.": {"10.0.0.1", "127.0.0.1"},
	}
	resolver, _ := dnstest.Resolver(t, inside)
	for name := range inside {
		host := strings.TrimSuffix(name, ".") + ":" + guard.port
		t.Run(host, func(t *testing.T) {
			srv := httptest.NewServer(&naming{realm: "https://" + host + "/token"})
			defer srv.Close()
			s := &registry.Scheme{Credentials: always(t)}
			s.SetResolver(resolver)
			s.SetProxy(noProxy)
			client := &http.Client{Transport: &authretry.Transport{Schemes: []authretry.Scheme{s}, Base: outside(t, srv, "8.8.4.4:443")}}
			resp, err := client.Get("https://registry.example.com/v2/a/manifests/latest")
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			var why *authretry.Rejection
			require.ErrorAs(t, authretry.Explain(resp), &why)
			require.Equal(t, authretry.ReasonUntrustedRealm, why.Reason)

			redirecting := httptest.NewServer(http.RedirectHandler("http://"+host+"/token", http.StatusFound))
			defer redirecting.Close()
			srv.Config.Handler.(*naming).set(redirecting.URL)
			s = &registry.Scheme{Credentials: always(t)}
			s.SetResolver(resolver)
			client = &http.Client{Transport: authretry.New(s)}
			_, err = client.Get(srv.URL + "/v2/a/manifests/latest")
			require.ErrorContains(t, err, "redirects are not followed")
		})
	}
	require.Zero(t, guard.connections.Load())

	tokens := newTokenServer(t)
	var headers []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers = append(headers, r.Method+" "+r.Header.Get("Authorization"))
		w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer other.Close()
	elsewhere := strings.Replace(other.URL, "127.0.0.1", "localhost", 1) + "/v2/a/blobs/"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") == "":
			(&naming{realm: tokens.URL}).ServeHTTP(w, r)
		case r.Method == "POST":
			w.Header().Set("Location", elsewhere)
			w.WriteHeader(http.StatusAccepted)
		default:
			http.Redirect(w, r, elsewhere, http.StatusTemporaryRedirect)
		}
	}))
	defer srv.Close()
	credentials := registry.DockerConfig(writeConfig(t, `{"auths":{"`+strings.TrimPrefix(srv.URL, "http://")+`":`+auth(user, password)+`}}`))
	client := &http.Client{Transport: authretry.New(&registry.Scheme{Credentials: credentials}, &authretry.Basic{Credentials: credentials})}
	resp, err := client.Post(srv.URL+"/v2/a/blobs/uploads/", "", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	upload, err := resp.Location()
	require.NoError(t, err)
	req, err := http.NewRequest("PUT", upload.String(), strings.NewReader("layer"))
	require.NoError(t, err)
	for _, req := range []*http.Request{req, httptest.NewRequest("GET", srv.URL+"/v2/a/blobs/sha256:0", nil)} {
		req.RequestURI = ""
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 401, resp.StatusCode)
	}
	require.Equal(t, []string{"PUT ", "GET "}, headers)
	require.Equal(t, [2]int32{1, 1}, tokens.counts())
}

// CVE-2020-15157: an image has a layer at a host of the attacker's (a foreign layer), which asks for credentials. There is no
// redirect: the program goes there. It gets what anybody gets, whatever it asks for, and whichever token server it names.
func TestCVE202015157(t *testing.T) {
	tokens, stolen := newTokenServer(t), newTokenServer(t)
	good := httptest.NewServer(&naming{realm: tokens.URL})
	defer good.Close()
	for name, challenge := range map[string]string{
		"its own token server":  `Bearer realm="` + stolen.URL + `/token",service="s",scope="repository:a:pull"`,
		"the registry's":        `Bearer realm="` + tokens.URL + `",service="s",scope="repository:a:pull,push"`,
		"Basic":                 `Basic realm="s"`,
		"both, and a long list": `Basic realm="s", Bearer realm="` + stolen.URL + `/token",service="s",scope="registry:catalog:*"`,
	} {
		for _, fixed := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", with Origins: ", fixed), func(t *testing.T) {
				var headers []string
				evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					headers = append(headers, r.Header.Get("Authorization"))
					w.Header().Set("WWW-Authenticate", challenge)
					w.WriteHeader(http.StatusUnauthorized)
				}))
				defer evil.Close()
				tokens.credentials.Store(0)
				stolen.asked.Store(0)
				credentials := always(t) // which looks at no origin: Origins does
				if !fixed {
					host := strings.TrimPrefix(good.URL, "http://")
					credentials = registry.DockerConfig(writeConfig(t, `{"auths":{"`+host+`":`+auth(user, password)+`}}`))
				}
				transport := authretry.New(&registry.Scheme{Credentials: credentials}, &authretry.Basic{Credentials: credentials})
				if fixed {
					transport.Origins = []string{good.URL}
				}
				client := &http.Client{Transport: transport}
				for _, u := range []string{good.URL + "/v2/a/manifests/latest", evil.URL + "/v2/a/blobs/sha256:0", good.URL + "/v2/a/manifests/latest"} {
					resp, err := client.Get(u)
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					require.Equal(t, map[bool]int{true: 200, false: 401}[strings.HasPrefix(u, good.URL)], resp.StatusCode)
				}
				require.EqualValues(t, 1, tokens.credentials.Load(), "for the registry alone")
				require.Zero(t, stolen.credentials.Load())
				require.Empty(t, headers[0])
				for _, header := range headers {
					require.Contains(t, []string{"", "Bearer anybodys"}, header, "at the most a token for nobody")
				}
				if fixed {
					require.Equal(t, []string{""}, headers)
					require.Zero(t, stolen.asked.Load())
				}
			})
		}
	}
}
