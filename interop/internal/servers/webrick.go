package servers

import (
	_ "embed"
	"os/exec"
	"strconv"
	"testing"
)

//go:embed webrick.rb
var webrickScript string

// WEBrick starts Ruby's WEBrick, with Digest on auth/ (qop auth, nextnonce and rspauth in Authentication-Info) and
// on auth-int/ (qop auth-int alone). What is posted there comes back.
func WEBrick(t testing.TB) *Server {
	t.Helper()
	ruby := program(t, "ruby", "ruby")
	if err := exec.Command(ruby, "-e", "require 'webrick'").Run(); err != nil {
		program(t, "ruby-webrick", "webrick.rb, the library of ruby,")
	}
	dir := folder(t)
	port := freePort(t)
	script := write(t, dir, "webrick.rb", webrickScript)
	run(t, dir, []int{port}, exec.Command(ruby, script, strconv.Itoa(port), dir+"/htdigest", Realm, Username, Password))
	return &Server{URL: url("http", port), Dir: dir}
}
