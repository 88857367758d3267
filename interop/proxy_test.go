package interop

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/stretchr/testify/require"
)

// newProxyClient returns a client that goes through the proxy, and authenticates to it with the schemes. Origins
// with TLS have a certificate that roots knows.
func newProxyClient(t *testing.T, proxy string, roots *x509.CertPool, schemes ...authretry.Scheme) (*http.Client, *http.Transport) {
	t.Helper()
	u, err := url.Parse(proxy)
	require.NoError(t, err)
	base := &http.Transport{Proxy: http.ProxyURL(u), TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 64}
	t.Cleanup(base.CloseIdleConnections)
	return &http.Client{Transport: authretry.NewProxyTransport(base, schemes...)}, base
}

func rootsOf(origin *httptest.Server) *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(origin.Certificate())
	return roots
}

func TestSquidPlain(t *testing.T) {
	for _, scheme := range []string{"Basic", "Digest"} {
		t.Run(scheme, func(t *testing.T) {
			squid := servers.Squid(t, scheme)
			origin := openOrigin(t, httptest.NewServer)
			client, _ := newProxyClient(t, squid.URL, nil, both()...)
			for range 5 {
				_, body := getOK(t, client, origin.URL)
				require.Equal(t, "this is the origin\n", body)
			}
			log := []string{"407 GET -"}
			for range 5 {
				log = append(log, "200 GET "+scheme)
			}
			require.Equal(t, log, proxied(t, squid, 6))
		})
	}
}

func TestSquidConnect(t *testing.T) {
	for _, scheme := range []string{"Basic", "Digest"} {
		t.Run(scheme, func(t *testing.T) {
			squid := servers.Squid(t, scheme)
			origin := openOrigin(t, httptest.NewTLSServer)
			client, _ := newProxyClient(t, squid.URL, rootsOf(origin), both()...)
			for range 3 {
				for range 2 { // the second goes through the tunnel that is there
					_, body := getOK(t, client, origin.URL)
					require.Equal(t, "this is the origin\n", body)
				}
				client.CloseIdleConnections()
			}
			log := []string{"407 CONNECT -"}
			for range 3 {
				log = append(log, "200 CONNECT "+scheme)
			}
			require.ElementsMatch(t, log, proxied(t, squid, 4))
		})
	}
}

// With both on offer, the client's order decides.
func TestSquidPreference(t *testing.T) {
	squid := servers.Squid(t, "Basic", "Digest")
	origin := openOrigin(t, httptest.NewServer)
	client, _ := newProxyClient(t, squid.URL, nil, both()...)
	getOK(t, client, origin.URL)
	require.Equal(t, []string{"407 GET -", "200 GET Digest"}, proxied(t, squid, 2))
}

func TestSquidWrongPassword(t *testing.T) {
	wrong := map[string]authretry.Scheme{
		"Basic":  &authretry.Basic{Username: servers.Username, Password: "wrong"},
		"Digest": &authretry.Digest{Username: servers.Username, Password: "wrong"},
	}
	for name, scheme := range wrong {
		t.Run(name, func(t *testing.T) {
			squid := servers.Squid(t, name)
			plain := openOrigin(t, httptest.NewServer)
			client, _ := newProxyClient(t, squid.URL, nil, scheme)
			resp, _ := get(t, client, plain.URL)
			require.Equal(t, http.StatusProxyAuthRequired, resp.StatusCode)
			require.Equal(t, []string{"407 GET -", "407 GET " + name}, proxied(t, squid, 2))

			secure := openOrigin(t, httptest.NewTLSServer)
			client, _ = newProxyClient(t, squid.URL, rootsOf(secure), scheme)
			_, err := client.Get(secure.URL) //nolint:bodyclose // there is none
			var rejection *authretry.Rejection
			require.ErrorAs(t, err, &rejection)
			require.Equal(t, http.StatusProxyAuthRequired, rejection.Status)
			require.Len(t, rejection.Challenges, 1)
			require.Equal(t, name, rejection.Challenges[0].Scheme)
			require.NotContains(t, err.Error(), "wrong")
			require.Equal(t, []string{"407 CONNECT -", "407 CONNECT " + name}, proxied(t, squid, 4)[2:])
		})
	}
}

// An origin that demands Digest too, for the same user name in the same realm: each gets its own answer.
func TestSquidBeforeDigestOrigin(t *testing.T) {
	for _, scheme := range []string{"Basic", "Digest"} {
		t.Run(scheme, func(t *testing.T) {
			squid := servers.Squid(t, scheme)
			apache := servers.Apache(t)
			proxyClient, _ := newProxyClient(t, squid.URL, apache.CA.Pool, both()...)
			client := &http.Client{Transport: &authretry.Transport{Base: proxyClient.Transport, Schemes: both()}}
			for range 3 {
				_, body := getOK(t, client, apache.URL+"/ordered/")
				require.Equal(t, "this is ordered\n", body)
			}
			log := []string{"407 GET -", "401 GET " + scheme}
			for range 3 {
				log = append(log, "200 GET "+scheme)
			}
			require.Equal(t, log, proxied(t, squid, 5))

			for range 3 {
				_, body := getOK(t, client, apache.TLS+"/ordered/")
				require.Equal(t, "this is ordered\n", body)
			}
			client.CloseIdleConnections()
			require.Equal(t, []string{"200 CONNECT " + scheme}, proxied(t, squid, 6)[5:], "the proxy's challenge was known")
		})
	}
}

// Nonce counts arrive at Squid in order, however many requests there are at once.
func TestSquidConcurrent(t *testing.T) {
	const workers, each = 32, 20
	squid := servers.Squid(t, "Digest")
	origin := openOrigin(t, httptest.NewServer)
	client, _ := newProxyClient(t, squid.URL, nil, digest())
	failures := atOnce(client, workers, each, origin.URL)
	require.Empty(t, failures)
	lines := proxied(t, squid, workers*each+1)
	require.LessOrEqual(t, len(lines), workers*each+workers, "one challenge a worker at most")
	require.NotContains(t, lines, "407 GET Digest")
}

// Squid lets a nonce serve 50 times, and says what the next one is in Proxy-Authentication-Info before that.
func TestSquidNextNonce(t *testing.T) {
	squid := servers.Squid(t, "Digest")
	origin := openOrigin(t, httptest.NewServer)
	client, _ := newProxyClient(t, squid.URL, nil, digest())
	for range 120 {
		getOK(t, client, origin.URL)
	}
	want := append([]string{"407 GET -"}, slices.Repeat([]string{"200 GET Digest"}, 120)...)
	require.Equal(t, want, proxied(t, squid, 121))
}

// The same for CONNECTs, of which each request makes one.
func TestSquidConcurrentConnect(t *testing.T) {
	const workers, each = 32, 5
	squid := servers.Squid(t, "Digest")
	origin := openOrigin(t, httptest.NewTLSServer)
	_, base := newProxyClient(t, squid.URL, rootsOf(origin), digest())
	base.DisableKeepAlives = true
	client := &http.Client{Transport: authretry.NewProxyTransport(base, digest())}
	require.Empty(t, atOnce(client, workers, each, origin.URL))
	for _, line := range proxied(t, squid, workers*each+1) {
		require.Contains(t, []string{"407 CONNECT -", "200 CONNECT Digest"}, line)
	}
}
