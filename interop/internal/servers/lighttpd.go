package servers

import (
	"os/exec"
	"testing"
)

// Lighttpd starts lighttpd, with Digest on both/ (SHA-256 and MD5), md5/ and sha256/.
func Lighttpd(t testing.TB) *Server {
	t.Helper()
	lighttpd := program(t, "lighttpd", "lighttpd")
	dir := folder(t)
	port := freePort(t)
	for _, space := range []string{"both", "md5", "sha256"} {
		write(t, dir, "www/"+space+"/index.html", "this is "+space+"\n")
	}
	write(t, dir, "htdigest", htdigest(Realm)+htdigestSHA256(Realm))
	conf := write(t, dir, "lighttpd.conf", fill(lighttpdConf, "dir", dir, "port", port, "realm", Realm))
	run(t, dir, []int{port}, exec.Command(lighttpd, "-D", "-f", conf))
	return &Server{URL: url("http", port), Dir: dir}
}

const lighttpdConf = `
server.bind = "127.0.0.1"
server.port = {port}
server.document-root = "{dir}/www"
server.errorlog = "{dir}/error.log"
server.upload-dirs = ("{dir}")
server.modules = ("mod_auth", "mod_authn_file")
index-file.names = ("index.html")
mimetype.assign = (".html" => "text/html")
auth.backend = "htdigest"
auth.backend.htdigest.userfile = "{dir}/htdigest"
auth.require = (
	"/both/" => ("method" => "digest", "algorithm" => "MD5|SHA-256", "realm" => "{realm}", "require" => "valid-user"),
	"/md5/" => ("method" => "digest", "algorithm" => "MD5", "realm" => "{realm}", "require" => "valid-user"),
	"/sha256/" => ("method" => "digest", "algorithm" => "SHA-256", "realm" => "{realm}", "require" => "valid-user")
)
`
