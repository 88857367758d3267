package servers

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Registry starts a Docker registry, with Basic on v2/.
func Registry(t testing.TB) *Server {
	t.Helper()
	dir := folder(t)
	write(t, dir, "htpasswd", htpasswd(t, "B")) // the registry takes bcrypt alone
	return serveRegistry(t, DebianRegistry(t), dir, filepath.Join(dir, "data"), nil, fill(registryHtpasswd, "dir", dir, "realm", Realm))
}

// TokenAuth says whose tokens a registry takes.
type TokenAuth struct {
	Realm, Service, Issuer string
	Certificates           []byte // PEM, of those who sign; distribution 2
	JWKS                   []byte // the same as a JWK Set; distribution 3
	CA                     *CA    // has the registry listen by TLS alone, if not nil
}

// RegistryWithTokens starts a registry that wants the tokens of a token server: program is DebianRegistry, or a later version. Its
// content is in the folder data, or in one of its own if that is "".
func RegistryWithTokens(t testing.TB, program, data string, auth TokenAuth) *Server {
	t.Helper()
	dir := folder(t)
	keys := "rootcertbundle: " + write(t, dir, "certificates.pem", string(auth.Certificates))
	if auth.JWKS != nil {
		keys = "jwks: " + write(t, dir, "jwks.json", string(auth.JWKS))
	}
	if data == "" {
		data = filepath.Join(dir, "data")
	}
	return serveRegistry(t, program, dir, data, auth.CA,
		fill(registryTokens, "realm", auth.Realm, "service", auth.Service, "issuer", auth.Issuer, "keys", keys))
}

// DebianRegistry returns the path of the registry that Debian has.
func DebianRegistry(t testing.TB) string {
	t.Helper()
	return program(t, "docker-registry", "docker-registry")
}

func serveRegistry(t testing.TB, program, dir, data string, ca *CA, auth string) *Server {
	t.Helper()
	port := freePort(t)
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	config := fill(registryConf, "data", data, "port", port)
	if ca != nil {
		ca.Certificate(t, dir)
		config += fill(registryTLS, "dir", dir)
	}
	conf := write(t, dir, "config.yml", config+auth)
	cmd := exec.Command(program, "serve", conf)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	run(t, dir, []int{port}, cmd)
	if ca != nil {
		return &Server{TLS: url("https", port), Dir: dir, CA: ca}
	}
	return &Server{URL: url("http", port), Dir: dir}
}

// The secret lets an upload go on at another registry of the same content.
const registryConf = `version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: {data}
  delete:
    enabled: true
http:
  addr: 127.0.0.1:{port}
  secret: the same for all
`

const registryTLS = `  tls:
    certificate: {dir}/cert.pem
    key: {dir}/key.pem
`

const registryHtpasswd = `auth:
  htpasswd:
    realm: {realm}
    path: {dir}/htpasswd
`

const registryTokens = `auth:
  token:
    realm: {realm}
    service: {service}
    issuer: {issuer}
    {keys}
`
