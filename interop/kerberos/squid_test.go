package kerberos

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/authretry/authretry/negotiate"
	"github.com/stretchr/testify/require"
)

// A proxy's 407 is answered, for plain requests and for CONNECT, ahead and when challenged, and curl does the
// same. It sends no proof.
func TestSquid(t *testing.T) {
	r := servers.Kerberos(t, "")
	squid := servers.SquidKerberos(t, r)
	cache := r.Login(t, user, servers.Password)
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Proxy-Authorization") != "" || req.Header.Get("Authorization") != "" {
			t.Error("the origin has got a token")
		}
		io.WriteString(w, "the origin")
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	at, err := url.Parse(squid.URL)
	require.NoError(t, err)

	require.Equal(t, "200", curl(t, r, cache, "--proxy", squid.URL, "--proxy-negotiate", "--proxy-user", ":", plain.URL))
	require.Equal(t, "200", curl(t, r, cache, "--proxy", squid.URL, "--proxy-anyauth", "--proxy-user", ":", "--insecure", secure.URL))
	logged := 3 // curl's: 200 GET; 407 and 200 CONNECT

	via := func(scheme *negotiate.Scheme) *authretry.ProxyTransport {
		scheme.Kerberos = &negotiate.Client{Cache: cache, Config: r.Config}
		base := secure.Client().Transport.(*http.Transport).Clone()
		base.Proxy = http.ProxyURL(at)
		return authretry.NewProxyTransport(base, scheme)
	}
	for _, ahead := range []bool{true, false} {
		rt := via(&negotiate.Scheme{Ahead: ahead})
		for _, target := range []string{plain.URL, plain.URL, secure.URL, secure.URL} {
			resp, err := (&http.Client{Transport: rt}).Get(target)
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, "the origin", string(body))
		}
		rt.CloseIdleConnections()
		logged += 3 // two GET and a CONNECT, whose tunnel both requests go by
		if !ahead {
			logged++ // the first 407
		}
	}
	counted := func() (n int) {
		for _, line := range squid.AccessLog(t) {
			if !strings.Contains(line, " - ") { // or else it is a connection without a request
				n++
			}
		}
		return n
	}
	require.Eventually(t, func() bool { return counted() >= logged }, 20*time.Second, 20*time.Millisecond)
	require.Equal(t, logged, counted(), "%v", squid.AccessLog(t))

	// Squid proves nothing.
	for _, target := range []string{plain.URL, secure.URL} {
		_, err := (&http.Client{Transport: via(&negotiate.Scheme{Mutual: true})}).Get(target)
		require.ErrorContains(t, err, "the response has no proof")
	}
}
