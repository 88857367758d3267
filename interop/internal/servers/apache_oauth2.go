package servers

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// ApacheOAuth2 starts Apache httpd with mod_oauth2, a resource server in C that reads access tokens itself: JWTs, signed by a key
// of the JWK Set at the URL given. Below / it has
//
//	dpop/   tokens that are bound to a key, with a proof
//	bearer/ bearer tokens
//
// The access log has a line for each request: status, protocol, method, path and auth-scheme.
func ApacheOAuth2(t testing.TB, jwks string) *Server {
	t.Helper()
	httpd := program(t, "apache2", "apache2", "httpd")
	if _, err := os.Stat("/usr/lib/apache2/modules/mod_oauth2.so"); err != nil {
		Missing(t, "mod_oauth2.so is not installed (Debian package libapache2-mod-oauth2)")
	}
	dir := folder(t)
	port := freePort(t)
	for _, space := range []string{"dpop", "bearer"} {
		write(t, dir, "www/"+space+"/index.html", "this is "+space+"\n")
	}
	conf := write(t, dir, "httpd.conf", fill(apacheOAuth2Conf, "dir", dir, "port", port, "jwks", jwks))
	run(t, dir, []int{port}, exec.Command(httpd, "-f", conf, "-DFOREGROUND"))
	return &Server{URL: url("http", port), Dir: dir, accessLog: filepath.Join(dir, "access.log")}
}

const apacheOAuth2Conf = `
ServerRoot "{dir}"
ServerName 127.0.0.1
PidFile "{dir}/httpd.pid"
DefaultRuntimeDir "{dir}"
Mutex file:{dir}
ErrorLog "{dir}/error.log"
LogLevel warn

Define modules /usr/lib/apache2/modules
LoadModule mpm_event_module ${modules}/mod_mpm_event.so
LoadModule authn_core_module ${modules}/mod_authn_core.so
LoadModule authz_core_module ${modules}/mod_authz_core.so
LoadModule authz_user_module ${modules}/mod_authz_user.so
LoadModule dir_module ${modules}/mod_dir.so
LoadModule setenvif_module ${modules}/mod_setenvif.so
LoadModule oauth2_module ${modules}/mod_oauth2.so

StartServers 1
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
MaxKeepAliveRequests 0

SetEnvIf Authorization "^([A-Za-z]+)" scheme=$1
LogFormat "%>s %H %m %U %{scheme}e" requests
CustomLog "{dir}/access.log" requests

Listen 127.0.0.1:{port}
DocumentRoot "{dir}/www"
DirectoryIndex index.html

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
