// Package kerberos tests negotiate against a KDC of MIT krb5, Apache with mod_auth_gssapi, and Squid, with curl beside it.
package kerberos

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/authretry/authretry/negotiate"
	"github.com/stretchr/testify/require"
)

const user = "mufasa"

// by returns a Transport by HTTP/1.1 or HTTP/2, as the URLs have it.
func by(t *testing.T, s *servers.Server, scheme *negotiate.Scheme) *authretry.Transport {
	base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.CA.Pool}, ForceAttemptHTTP2: true}
	rt := &authretry.Transport{Base: base, Schemes: []authretry.Scheme{scheme}}
	t.Cleanup(rt.CloseIdleConnections)
	return rt
}

func get(t *testing.T, rt http.RoundTripper, url string) *http.Response {
	t.Helper()
	resp, err := (&http.Client{Transport: rt}).Get(url)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp
}

// Each request is sent once with Ahead, and otherwise only the first of each folder twice, by HTTP/1.1 and by HTTP/2, in all
// ways that mod_auth_gssapi has.
func TestApache(t *testing.T) {
	r := servers.Kerberos(t, "")
	s := servers.ApacheKerberos(t, r)
	cache := r.Login(t, user, servers.Password)
	for _, space := range []string{"plain", "once", "bound"} {
		for _, base := range []string{s.URL, s.TLS} {
			for _, ahead := range []bool{true, false} {
				for _, mutual := range []bool{true, false} {
					rt := by(t, s, &negotiate.Scheme{Kerberos: &negotiate.Client{Cache: cache, Config: r.Config}, Ahead: ahead, Mutual: mutual})
					before := len(s.AccessLog(t))
					for range 5 {
						resp := get(t, rt, base+"/"+space+"/")
						require.Equal(t, 200, resp.StatusCode)
						require.Equal(t, user+"@"+servers.KerberosRealm, resp.Header.Get("X-User"))
						require.Equal(t, map[bool]int{true: 2, false: 1}[strings.HasPrefix(base, "https")], resp.ProtoMajor)
					}
					require.Eventually(t, func() bool { return len(s.AccessLog(t))-before >= 5 }, 1e10, 1e7)
					t.Log(space, base, ahead, mutual, s.AccessLog(t)[before:])
				}
			}
		}
	}
}
