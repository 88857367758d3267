package servers

import "testing"

// ApacheOAuth2 starts Apache httpd with mod_oauth2, a resource server in C that reads access tokens itself: JWTs, signed by a key
// of the JWK Set at the URL given. Below / it has
//
//	dpop/   tokens that are bound to a key, with a proof
//	bearer/ bearer tokens
//
// The access log has a line for each request: status, protocol, method, path and auth-scheme.
func ApacheOAuth2(t testing.TB, jwks string) *Server {
	t.Helper()
	needsFile(t, "/usr/lib/apache2/modules/mod_oauth2.so", "libapache2-mod-oauth2")
	return httpd{modules: []string{"oauth2"}, spaces: []string{"dpop", "bearer"}, config: fill(apacheOAuth2Conf, "jwks", jwks)}.start(t, folder(t))
}

const apacheOAuth2Conf = `
<Location "/dpop/">
	AuthType oauth2
	OAuth2AcceptTokenIn header type=DPoP
	OAuth2TokenVerify jwks_uri {jwks} type=dpop
	Require valid-user
</Location>
<Location "/bearer/">
	AuthType oauth2
	OAuth2TokenVerify jwks_uri {jwks}
	Require valid-user
</Location>
`
