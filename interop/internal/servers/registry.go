package servers

import (
	"os/exec"
	"testing"
)

// Registry starts a Docker registry, with Basic on v2/.
func Registry(t testing.TB) *Server {
	t.Helper()
	registry := program(t, "docker-registry", "docker-registry")
	dir := folder(t)
	port := freePort(t)
	write(t, dir, "htpasswd", htpasswd(t, "B")) // the registry takes bcrypt alone
	write(t, dir, "data/.keep", "")
	conf := write(t, dir, "config.yml", fill(registryConf, "dir", dir, "port", port, "realm", Realm))
	run(t, dir, []int{port}, exec.Command(registry, "serve", conf))
	return &Server{URL: url("http", port), Dir: dir}
}

const registryConf = `version: 0.1
log:
  level: error
storage:
  filesystem:
    rootdirectory: {dir}/data
http:
  addr: 127.0.0.1:{port}
auth:
  htpasswd:
    realm: {realm}
    path: {dir}/htpasswd
`
