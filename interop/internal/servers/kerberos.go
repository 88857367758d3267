package servers

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A KerberosKDC is a realm of Kerberos, with a KDC of MIT krb5.
type KerberosKDC struct {
	Dir    string
	Realm  string
	Config string   // the path of its krb5.conf
	Env    []string // for programs that are to use it

	local, log string // kadmin.local, and where the KDC says what it does
}

// KerberosRealm is the name of the realm, unless it is another.
const KerberosRealm = "EXAMPLE.TEST"

// Kerberos starts a KDC with the user Mufasa, and the services HTTP/localhost and HTTP/proxy.test, whose keytab is http.keytab.
// Clock, such as "+10m", is by how much its clock is ahead; "" for right.
func Kerberos(t testing.TB, clock string) *KerberosKDC {
	t.Helper()
	return kerberos(t, KerberosRealm, clock)
}

// KerberosTrusting starts KDCs of two realms, of which the second has services that users of the first may use. The krb5.conf of the
// first says that they are there.
func KerberosTrusting(t testing.TB) (users, services *KerberosKDC) {
	t.Helper()
	users, services = kerberos(t, KerberosRealm, ""), kerberos(t, "AWAY.TEST", "")
	for _, r := range []*KerberosKDC{users, services} {
		r.Add(t, "krbtgt/"+services.Realm+"@"+users.Realm, "between the two")
	}
	theirs, err := os.ReadFile(services.Config)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile(users.Config)
	if err != nil {
		t.Fatal(err)
	}
	_, realm, _ := strings.Cut(string(theirs), "[realms]\n")
	text := string(ours) + realm + "\n[domain_realm]\n\tlocalhost = " + services.Realm + "\n"
	if err := os.WriteFile(users.Config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return users, services
}

func kerberos(t testing.TB, realm, clock string) *KerberosKDC {
	t.Helper()
	kdc := program(t, "krb5-kdc", "krb5kdc")
	util := program(t, "krb5-kdc", "kdb5_util")
	local := program(t, "krb5-admin-server", "kadmin.local")
	program(t, "krb5-user", "kinit")
	dir := folder(t)
	port := freePort(t)
	r := &KerberosKDC{Dir: dir, Realm: realm, local: local}
	r.Config = write(t, dir, "krb5.conf", fill(krb5Conf, "port", port, "realm", realm))
	profile := write(t, dir, "kdc.conf", fill(kdcConf, "dir", dir, "port", port, "realm", realm))
	r.Env = append(os.Environ(), "KRB5_CONFIG="+r.Config, "KRB5_KDC_PROFILE="+profile, "KRB5CCNAME=FILE:"+filepath.Join(dir, "nobody's"),
		"KRB5RCACHENAME=file2:"+filepath.Join(dir, "replays"))
	r.log = filepath.Join(dir, "kdc.log")
	r.run(t, util, "create", "-s", "-P", "the master's", "-r", realm)
	r.Add(t, strings.ToLower(Username), Password)
	for _, service := range []string{"HTTP/localhost", "HTTP/proxy.test"} {
		r.Rekey(t, service)
	}
	cmd := withClock(t, clock, kdc, "-n")
	cmd.Env = r.Env
	run(t, dir, []int{port}, cmd)
	return r
}

// withClock returns a command whose clock is off, as faketime has it.
func withClock(t testing.TB, clock, name string, args ...string) *exec.Cmd {
	t.Helper()
	if clock == "" {
		return exec.Command(name, args...)
	}
	return exec.Command(program(t, "faketime", "faketime"), append([]string{"-f", clock, name}, args...)...)
}

// Add adds a user, or gives one another password.
func (r *KerberosKDC) Add(t testing.TB, user, password string) {
	t.Helper()
	r.run(t, r.local, "-q", "addprinc -pw \""+password+"\" "+user)
}

// Rekey gives a service a key, or another one in place of those that it had, and puts it into http.keytab.
func (r *KerberosKDC) Rekey(t testing.TB, service string) {
	t.Helper()
	r.run(t, r.local, "-q", "addprinc -randkey "+service)
	r.run(t, r.local, "-q", "ktadd -k "+filepath.Join(r.Dir, "http.keytab")+" "+service)
}

// Limit says for how long tickets for a service are good, such as "10 seconds".
func (r *KerberosKDC) Limit(t testing.TB, service, life string) {
	t.Helper()
	r.run(t, r.local, "-q", "modprinc -maxlife \""+life+"\" "+service)
}

// Issued returns how many tickets for a service the KDC has issued.
func (r *KerberosKDC) Issued(t testing.TB, service string) (n int) {
	t.Helper()
	text, err := os.ReadFile(r.log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, " TGS_REQ ") && strings.Contains(line, " ISSUE: ") && strings.Contains(line, " for "+service+"@") {
			n++
		}
	}
	return n
}

// Keytab writes a keytab of a user, whose password it leaves as it is, and returns its path.
func (r *KerberosKDC) Keytab(t testing.TB, user string) string {
	t.Helper()
	path := filepath.Join(r.Dir, user+".keytab")
	r.run(t, r.local, "-q", "ktadd -norandkey -k "+path+" "+user)
	return path
}

// Login runs kinit for a user, and returns the path of the cache.
func (r *KerberosKDC) Login(t testing.TB, user, password string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), user)
	cmd := exec.Command("kinit", append(args, "-c", path, user)...)
	cmd.Env, cmd.Stdin = r.Env, strings.NewReader(password+"\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("kinit: %v\n%s", err, out)
	}
	return path
}

func (r *KerberosKDC) run(t testing.TB, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Dir = r.Env, r.Dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

const krb5Conf = `
[libdefaults]
	default_realm = {realm}
	dns_lookup_kdc = false
	dns_canonicalize_hostname = false
	rdns = false
	udp_preference_limit = 1

[realms]
	{realm} = {
		kdc = 127.0.0.1:{port}
	}
`

const kdcConf = `
[kdcdefaults]
	kdc_listen = 127.0.0.1:{port}
	kdc_tcp_listen = 127.0.0.1:{port}

[logging]
	kdc = FILE:{dir}/kdc.log

[realms]
	{realm} = {
		database_name = {dir}/principal
		key_stash_file = {dir}/stash
		acl_file = {dir}/acl
		max_life = 10h
		max_renewable_life = 1d
		default_principal_flags = +preauth
	}
`

// ApacheKerberos starts Apache httpd with mod_auth_gssapi, for the service HTTP/localhost of the realm. Below / it has
//
//	plain/ each request is authenticated
//	once/  GssapiNegotiateOnce, which sends no token after a failure
//	bound/ GssapiConnectionBound, which authenticates connections
//	only/  nobody is let in
//
// The access log has a line for each request: status, protocol, method, path and auth-scheme. The header X-User says for whom
// it was. Clock is as for Kerberos.
func ApacheKerberos(t testing.TB, r *KerberosKDC, clock string) *Server {
	t.Helper()
	needsFile(t, "/usr/lib/apache2/modules/mod_auth_gssapi.so", "libapache2-mod-auth-gssapi")
	return httpd{
		modules: []string{"auth_gssapi"},
		spaces:  []string{"plain", "once", "bound", "only"},
		config:  fill(apacheKerberosConf, "keytab", filepath.Join(r.Dir, "http.keytab")),
		host:    "localhost",
		env:     r.Env,
		clock:   clock,
	}.start(t, folder(t))
}

const apacheKerberosConf = `
LimitRequestFieldSize 65536
Header always set X-User "expr=%{REMOTE_USER}"

<Location "/plain/">
	AuthType GSSAPI
	AuthName "lab"
	GssapiCredStore keytab:{keytab}
	Require valid-user
</Location>
<Location "/once/">
	AuthType GSSAPI
	AuthName "lab"
	GssapiCredStore keytab:{keytab}
	GssapiNegotiateOnce On
	Require valid-user
</Location>
<Location "/bound/">
	AuthType GSSAPI
	AuthName "lab"
	GssapiCredStore keytab:{keytab}
	GssapiConnectionBound On
	Require valid-user
</Location>
<Location "/only/">
	AuthType GSSAPI
	AuthName "lab"
	GssapiCredStore keytab:{keytab}
	Require user nobody@` + KerberosRealm + `
</Location>
`

// SquidKerberos starts Squid as a forward proxy that demands Negotiate, for the service HTTP/localhost of the realm. Its access log is
// that of Squid.
func SquidKerberos(t testing.TB, r *KerberosKDC) *Server {
	t.Helper()
	squid := program(t, "squid", "squid")
	helper := program(t, "squid", "/usr/lib/squid/negotiate_kerberos_auth")
	dir := folder(t)
	port := freePort(t)
	auth := "auth_param negotiate program " + helper + " -k " + filepath.Join(r.Dir, "http.keytab") + " -s HTTP/localhost@" + KerberosRealm + "\nauth_param negotiate children 4 startup=1\n"
	conf := write(t, dir, "squid.conf", fill(auth+squidConf, "dir", dir, "port", port))
	cmd := squidCommand(squid, conf, port)
	cmd.Env = r.Env
	run(t, dir, []int{port}, cmd)
	return &Server{URL: strings.Replace(url("http", port), "127.0.0.1", "localhost", 1), Dir: dir, accessLog: filepath.Join(dir, "access.log")}
}
