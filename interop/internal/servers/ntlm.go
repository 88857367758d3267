package servers

import (
	"os"
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
	needsFile(t, "/usr/lib/apache2/modules/mod_auth_gssapi.so", "libapache2-mod-auth-gssapi")
	needsFile(t, "/usr/lib/"+multiarch()+"/gssntlmssp/gssntlmssp.so", "gss-ntlmssp")
	dir := folder(t)
	users := write(t, dir, "users", Domain+":"+Username+":"+Password+"\n")
	return httpd{
		modules: []string{"auth_gssapi", "dav", "dav_fs"},
		spaces:  []string{"ntlm"},
		config:  fill(apacheNTLMConf, "dir", dir),
		env:     append(os.Environ(), "NTLM_USER_FILE="+users),
	}.start(t, dir)
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
LogLevel warn auth_gssapi:info
ThreadsPerChild 128
MaxRequestWorkers 128
KeepAliveTimeout 60
Header always set X-User "expr=%{REMOTE_USER}"
DavLockDB "{dir}/davlock"

<Location "/ntlm/">
	AuthType GSSAPI
	AuthName "lab"
	GssapiAllowedMech ntlmssp
	GssapiConnectionBound On
	Dav On
	Require valid-user
</Location>
`
