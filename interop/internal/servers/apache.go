package servers

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
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
	dir := folder(t)
	write(t, dir, "htpasswd", htpasswdSHA())
	write(t, dir, "htdigest", htdigest(Realm))
	return httpd{
		modules: []string{"authn_file", "auth_basic", "auth_digest", "dav", "dav_fs"},
		spaces:  []string{"basic", "quoted", "digest", "short", "once", "ordered", "dav"},
		config:  fill(config, "dir", dir, "realm", Realm),
	}.start(t, dir)
}

const apacheConf = `
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
`

// An httpd is an Apache httpd: what it has besides the access log, HTTP/2 and TLS that all of them have.
type httpd struct {
	modules []string // of Apache; others are loaded by config
	spaces  []string // the folders that there are below /
	config  string   // has the last word
	host    string   // in its URLs; "": 127.0.0.1
	env     []string // nil: this process's
	clock   string   // as for Kerberos
}

// needsFile ends the test where a file of a Debian package is missing.
func needsFile(t testing.TB, file, debianPackage string) {
	t.Helper()
	if _, err := os.Stat(file); err != nil {
		Missing(t, filepath.Base(file)+" is not installed (Debian package "+debianPackage+")")
	}
}

// start starts it in a folder, on a port without TLS and one with.
func (h httpd) start(t testing.TB, dir string) *Server {
	t.Helper()
	name := program(t, "apache2", "apache2", "httpd")
	for _, space := range h.spaces {
		write(t, dir, "www/"+space+"/index.html", "this is "+space+"\n")
	}
	plain, secure := freePort(t), freePort(t)
	ca := NewCA(t, dir)
	ca.Certificate(t, dir)
	host := cmp.Or(h.host, "127.0.0.1")
	var load strings.Builder
	for _, module := range append([]string{"mpm_event", "authn_core", "authz_core", "authz_user", "dir", "headers", "setenvif", "ssl", "http2"}, h.modules...) {
		load.WriteString("LoadModule " + module + "_module /usr/lib/apache2/modules/mod_" + module + ".so\n")
	}
	conf := write(t, dir, "httpd.conf", fill(httpdConf, "dir", dir, "host", host, "plain", plain, "secure", secure, "modules", load.String(), "config", h.config))
	cmd := withClock(t, h.clock, name, "-f", conf, "-DFOREGROUND")
	cmd.Env = h.env
	run(t, dir, []int{plain, secure}, cmd)
	at := func(url string) string { return strings.Replace(url, "127.0.0.1", host, 1) }
	return &Server{URL: at(url("http", plain)), TLS: at(url("https", secure)), Dir: dir, CA: ca, accessLog: filepath.Join(dir, "access.log")}
}

const httpdConf = `
ServerRoot "{dir}"
ServerName {host}
PidFile "{dir}/httpd.pid"
DefaultRuntimeDir "{dir}"
Mutex file:{dir}
ErrorLog "{dir}/error.log"
LogLevel warn

{modules}
StartServers 1
ServerLimit 1
ThreadLimit 128
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
{config}
<VirtualHost 127.0.0.1:{secure}>
	SSLEngine on
	SSLCertificateFile "{dir}/cert.pem"
	SSLCertificateKeyFile "{dir}/key.pem"
	Protocols h2 http/1.1
	CustomLog "{dir}/access.log" requests
</VirtualHost>
`
