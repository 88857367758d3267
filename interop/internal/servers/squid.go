package servers

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// Squid starts Squid as a forward proxy that demands the schemes named: some of "Basic", "Digest" and "NTLM", in Squid's order. With
// NTLM it lets in whoever answers its challenge, whatever the password.
//
// The access log has a line for each request: status, method, target and the auth-scheme of Proxy-Authorization.
func Squid(t testing.TB, schemes ...string) *Server {
	t.Helper()
	squid := program(t, "squid", "squid")
	basic := program(t, "squid", "/usr/lib/squid/basic_ncsa_auth")
	digest := program(t, "squid", "/usr/lib/squid/digest_file_auth")
	dir := folder(t)
	port := freePort(t)
	write(t, dir, "htpasswd", htpasswd(t, "m"))
	write(t, dir, "htdigest", htdigest(Realm))
	var auth string
	for _, scheme := range schemes {
		switch scheme {
		case "Basic":
			auth += "auth_param basic program " + basic + " {dir}/htpasswd\nauth_param basic realm {realm}\nauth_param basic casesensitive on\n"
		case "Digest":
			auth += "auth_param digest program " + digest + " -c {dir}/htdigest\nauth_param digest realm {realm}\n"
		case "NTLM":
			auth += "auth_param ntlm program " + program(t, "squid", "/usr/lib/squid/ntlm_fake_auth") + " -S\nauth_param ntlm children 16 startup=1\n"
		default:
			t.Fatalf("squid has no scheme %q here", scheme)
		}
	}
	conf := write(t, dir, "squid.conf", fill(auth+squidConf, "dir", dir, "port", port, "realm", Realm))
	run(t, dir, []int{port}, squidCommand(squid, conf, port))
	return &Server{URL: url("http", port), Dir: dir, accessLog: filepath.Join(dir, "access.log")}
}

// squidCommand returns what starts Squid, with shared memory of its own: by default all have the same, also what one has left behind.
func squidCommand(squid, conf string, port int) *exec.Cmd {
	return exec.Command(squid, "-N", "-n", "interop"+strconv.Itoa(port), "-f", conf)
}

const squidConf = `
pinger_enable off
acl members proxy_auth REQUIRED
http_access allow members
http_access deny all
http_port 127.0.0.1:{port}
pid_filename {dir}/squid.pid
cache_log {dir}/cache.log
coredump_dir {dir}
netdb_filename none
visible_hostname localhost
cache deny all
cache_mem 0
shutdown_lifetime 0 seconds
logformat requests %>Hs %rm %ru %{Proxy-Authorization}>h
access_log stdio:{dir}/access.log logformat=requests
`
