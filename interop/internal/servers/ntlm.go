package servers

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Domain is the domain of Username where there is one.
const Domain = "EXAMPLE"

// ApacheNTLM starts Apache httpd with mod_auth_gssapi and gss-ntlmssp, which is another implementation of NTLM. Below / it has
//
//	ntlm/ NTLM, and files that can be PUT
//
// The access log has a line for each request: status, protocol, method, path and auth-scheme. The header X-User says for whom
// it was.
func ApacheNTLM(t testing.TB) *Server {
	t.Helper()
	httpd := program(t, "apache2", "apache2", "httpd")
	for file, debianPackage := range map[string]string{
		"/usr/lib/apache2/modules/mod_auth_gssapi.so":           "libapache2-mod-auth-gssapi",
		"/usr/lib/" + multiarch() + "/gssntlmssp/gssntlmssp.so": "gss-ntlmssp",
	} {
		if _, err := os.Stat(file); err != nil {
			Missing(t, filepath.Base(file)+" is not installed (Debian package "+debianPackage+")")
		}
	}
	dir := folder(t)
	plain, secure := freePort(t), freePort(t)
	ca := NewCA(t, dir)
	ca.Certificate(t, dir)
	write(t, dir, "www/ntlm/index.html", "this is ntlm\n")
	write(t, dir, "users", Domain+":"+Username+":"+Password+"\n")
	conf := write(t, dir, "httpd.conf", fill(apacheNTLMConf, "dir", dir, "plain", plain, "secure", secure))
	cmd := exec.Command(httpd, "-f", conf, "-DFOREGROUND")
	cmd.Env = append(os.Environ(), "NTLM_USER_FILE="+filepath.Join(dir, "users"))
	run(t, dir, []int{plain, secure}, cmd)
	return &Server{URL: url("http", plain), TLS: url("https", secure), Dir: dir, CA: ca, accessLog: filepath.Join(dir, "access.log")}
}

// multiarch returns the name of the folder that Debian has for this machine's libraries.
func multiarch() string {
	folders, _ := filepath.Glob("/usr/lib/*/gssntlmssp")
	if len(folders) == 0 {
		return "gssntlmssp is not there"
	}
	return filepath.Base(filepath.Dir(folders[0]))
}

const apacheNTLMConf = `
ServerRoot "{dir}"
ServerName 127.0.0.1
PidFile "{dir}/httpd.pid"
DefaultRuntimeDir "{dir}"
Mutex file:{dir}
ErrorLog "{dir}/error.log"
LogLevel warn auth_gssapi:info

Define modules /usr/lib/apache2/modules
LoadModule mpm_event_module ${modules}/mod_mpm_event.so
LoadModule authn_core_module ${modules}/mod_authn_core.so
LoadModule authz_core_module ${modules}/mod_authz_core.so
LoadModule authz_user_module ${modules}/mod_authz_user.so
LoadModule auth_gssapi_module ${modules}/mod_auth_gssapi.so
LoadModule dir_module ${modules}/mod_dir.so
LoadModule dav_module ${modules}/mod_dav.so
LoadModule dav_fs_module ${modules}/mod_dav_fs.so
LoadModule headers_module ${modules}/mod_headers.so
LoadModule setenvif_module ${modules}/mod_setenvif.so
LoadModule ssl_module ${modules}/mod_ssl.so
LoadModule http2_module ${modules}/mod_http2.so

StartServers 1
ServerLimit 1
ThreadLimit 128
ThreadsPerChild 128
MaxRequestWorkers 128
MaxKeepAliveRequests 0
KeepAliveTimeout 60

SetEnvIf Authorization "^([A-Za-z]+)" scheme=$1
LogFormat "%>s %H %m %U %{scheme}e" requests
CustomLog "{dir}/access.log" requests
Header always set X-User "expr=%{REMOTE_USER}"

Listen 127.0.0.1:{plain}
Listen 127.0.0.1:{secure}
DocumentRoot "{dir}/www"
DirectoryIndex index.html
DavLockDB "{dir}/davlock"

<Location "/ntlm/">
	AuthType GSSAPI
	AuthName "lab"
	GssapiAllowedMech ntlmssp
	GssapiConnectionBound On
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
