package authretry

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/require"
)

// A recordingProxy is a forward proxy that says what it is asked for.
func recordingProxy(t *testing.T) (base *http.Transport, asked func() []string) {
	var log []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log = append(log, r.URL.String()+" "+r.Header.Get("Authorization"))
	}))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	base = &http.Transport{Proxy: http.ProxyURL(u)}
	t.Cleanup(base.CloseIdleConnections)
	return base, func() []string { defer func() { log = nil }(); return log }
}

// Through a proxy, plain http goes to req.Host, whatever the URL says. So that is the origin: httputil.ReverseProxy, for one,
// leaves it to whoever is outside.
func TestHostThatDecidesIsTheOrigin(t *testing.T) {
	base, asked := recordingProxy(t)
	proxied := NewProxyTransport(base, &Basic{Username: "u", Password: "p"})
	for name, rt := range map[string]http.RoundTripper{"http.Transport": base, "ProxyTransport": proxied,
		"nested": &Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}, Origins: []string{"https://other.test"}}} {
		transport := &Transport{Base: rt, Schemes: []Scheme{&APIKey{Key: "k"}}, Origins: []string{"http://api.internal"}, AllowPlaintext: true}
		api, _ := url.Parse("http://api.internal/")
		front := httptest.NewServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(api)
			r.Out.Host = r.In.Host
		}})
		for host, want := range map[string]string{"evil.example": "http://evil.example/ ", "api.internal": "http://api.internal/ ApiKey k"} {
			req, err := http.NewRequest("GET", front.URL, nil)
			require.NoError(t, err)
			req.Host = host
			resp, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, []string{want}, asked(), name)
		}
		front.Close()
	}
	// A Base that cannot be looked into might use a proxy.
	unknown := roundTripFunc(base.RoundTrip)
	req, _ := http.NewRequest("GET", "http://api.internal/", nil)
	req.Host = "evil.example"
	_, err := (&Transport{Base: unknown, Schemes: []Scheme{&APIKey{Key: "k"}}, Origins: []string{"http://api.internal"}, AllowPlaintext: true}).RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, []string{"http://evil.example/ "}, asked())
	// Without a proxy, Host is but a name for the server that the URL leads to.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "ApiKey k", r.Header.Get("Authorization"))
	}))
	defer server.Close()
	req, _ = http.NewRequest("GET", server.URL, nil)
	req.Host = "virtual.example"
	_, err = (&Transport{Schemes: []Scheme{&APIKey{Key: "k"}}, Origins: []string{server.URL}}).RoundTrip(req)
	require.NoError(t, err)
}

// What a proxy gets is not on this machine, whatever it is called.
func TestLoopbackByAProxyIsNotLoopback(t *testing.T) {
	base, asked := recordingProxy(t)
	for _, target := range []string{"http://localhost/", "http://127.0.0.1/", "http://[::1]/"} {
		for _, base := range []http.RoundTripper{base, &retryablehttp.RoundTripper{Client: &retryablehttp.Client{HTTPClient: &http.Client{Transport: base}}}} {
			r := rejectionFor(t, &Transport{Base: base, Schemes: []Scheme{&APIKey{Key: "k"}}}, target)
			require.Equal(t, ReasonPlaintext, r.Reason, target)
			require.Empty(t, asked())
		}
	}
}
