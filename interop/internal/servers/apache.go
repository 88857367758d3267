package servers

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// Apache starts Apache httpd 2.4. Below / it has
//
//	basic/   Basic
//	quoted/  Basic, in a realm with quotes
//	digest/  Digest, with nonces that live for minutes
//	short/   Digest, with nonces that live for a second
//	once/    Digest, with nonces that serve once, and the next one in Authentication-Info
//	ordered/ Digest, with nonce counts that have to arrive in order
//	dav/     Digest, and files that can be PUT
//
// The access log has a line for each request: status, protocol, method, path and auth-scheme.
func Apache(t testing.TB) *Server {
	t.Helper()
	return apache(t, apacheConf+"AuthDigestShmemSize 1048576\n")
}

// ApacheAsItComes starts the same with the memory for nonces that Apache has unless it is told otherwise, which is for about a
// dozen of those whose counts have to arrive in order.
func ApacheAsItComes(t testing.TB) *Server {
	t.Helper()
	return apache(t, apacheConf)
}

func apache(t testing.TB, config string) *Server {
	t.Helper()
	httpd := program(t, "apache2", "apache2", "httpd")
	dir := folder(t)
	plain, secure := freePort(t), freePort(t)
	ca := NewCA(t, dir)
	ca.Certificate(t, dir)
	for _, space := range []string{"basic", "quoted", "digest", "short", "once", "ordered", "dav"} {
		write(t, dir, "www/"+space+"/index.html", "this is "+space+"\n")
	}
	write(t, dir, "htpasswd", htpasswdSHA())
	write(t, dir, "htdigest", htdigest(Realm))
	conf := write(t, dir, "httpd.conf", fill(config, "dir", dir, "plain", plain, "secure", secure, "realm", Realm))
	run(t, dir, []int{plain, secure}, exec.Command(httpd, "-f", conf, "-DFOREGROUND"))
	return &Server{URL: url("http", plain), TLS: url("https", secure), Dir: dir, CA: ca, accessLog: filepath.Join(dir, "access.log")}
}

const apacheConf = `
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
LoadModule authn_file_module ${modules}/mod_authn_file.so
LoadModule authz_core_module ${modules}/mod_authz_core.so
LoadModule authz_user_module ${modules}/mod_authz_user.so
LoadModule auth_basic_module ${modules}/mod_auth_basic.so
LoadModule auth_digest_module ${modules}/mod_auth_digest.so
LoadModule dir_module ${modules}/mod_dir.so
LoadModule dav_module ${modules}/mod_dav.so
LoadModule dav_fs_module ${modules}/mod_dav_fs.so
LoadModule setenvif_module ${modules}/mod_setenvif.so
LoadModule ssl_module ${modules}/mod_ssl.so
LoadModule http2_module ${modules}/mod_http2.so

StartServers 1
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
MaxKeepAliveRequests 0

SetEnvIf Authorization "^([A-Za-z]+)" scheme=$1
LogFormat "%>s %H %m %U %{scheme}e" requests
CustomLog "{dir}/access.log" requests

Listen 127.0.0.1:{plain}
Listen 127.0.0.1:{secure}
DocumentRoot "{dir}/www"
DirectoryIndex index.html
DavLockDB "{dir}/davlock"

<Location "/basic/">
	AuthType Basic
	AuthName "{realm}"
	AuthUserFile "{dir}/htpasswd"
	Require valid-user
</Location>
<Location "/quoted/">
	AuthType Basic
	AuthName "lab \"quoted\" realm"
	AuthUserFile "{dir}/htpasswd"
	Require valid-user
</Location>
<Location "/digest/">
	AuthType Digest
	AuthName "{realm}"
	AuthUserFile "{dir}/htdigest"
	Require valid-user
</Location>
<Location "/short/">
	AuthType Digest
	AuthName "{realm}"
	AuthUserFile "{dir}/htdigest"
	AuthDigestNonceLifetime 1
	Require valid-user
</Location>
<Location "/once/">
	AuthType Digest
	AuthName "{realm}"
	AuthUserFile "{dir}/htdigest"
	AuthDigestNonceLifetime 0
	Require valid-user
</Location>
<Location "/ordered/">
	AuthType Digest
	AuthName "{realm}"
	AuthUserFile "{dir}/htdigest"
	AuthDigestNcCheck On
	Require valid-user
</Location>
<Location "/dav/">
	AuthType Digest
	AuthName "{realm}"
	AuthUserFile "{dir}/htdigest"
	Dav On
	Require valid-user
</Location>

<VirtualHost 127.0.0.1:{secure}>
	SSLEngine on
	SSLCertificateFile "{dir}/cert.pem"
	SSLCertificateKeyFile "{dir}/key.pem"
	Protocols h2 http/1.1
	CustomLog "{dir}/access.log" requests
</VirtualHost>
`
