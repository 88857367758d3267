package servers

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// Nginx starts nginx, with Basic on basic/ and quoted/ (a realm with quotes, which nginx sends unescaped), and
// a redirect from away/ to elsewhere.
//
// The access log has a line for each request: status, protocol, method, path and auth-scheme.
func Nginx(t testing.TB, elsewhere string) *Server {
	t.Helper()
	nginx := program(t, "nginx", "nginx")
	dir := folder(t)
	plain, secure := freePort(t), freePort(t)
	ca := NewCA(t, dir)
	ca.Certificate(t, dir)
	for _, space := range []string{"basic", "quoted"} {
		write(t, dir, "www/"+space+"/index.html", "this is "+space+"\n")
	}
	write(t, dir, "htpasswd", htpasswdSHA())
	conf := write(t, dir, "nginx.conf",
		fill(nginxConf, "dir", dir, "plain", plain, "secure", secure, "realm", Realm, "elsewhere", elsewhere))
	// Without -e, nginx opens the system's log before it has read where ours is.
	run(t, dir, []int{plain, secure}, exec.Command(nginx, "-p", dir, "-e", "stderr", "-c", conf))
	return &Server{URL: url("http", plain), TLS: url("https", secure), Dir: dir, CA: ca, accessLog: filepath.Join(dir, "access.log")}
}

const nginxConf = `
daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log stderr warn;
events {}
http {
	client_body_temp_path {dir}/body;
	proxy_temp_path {dir}/proxy;
	fastcgi_temp_path {dir}/fastcgi;
	uwsgi_temp_path {dir}/uwsgi;
	scgi_temp_path {dir}/scgi;
	map $http_authorization $auth_scheme {
		default -;
		~^(?<word>[A-Za-z]+) $word;
	}
	log_format requests "$status $server_protocol $request_method $uri $auth_scheme";
	access_log {dir}/access.log requests;
	server {
		listen 127.0.0.1:{plain};
		listen 127.0.0.1:{secure} ssl http2;
		ssl_certificate {dir}/cert.pem;
		ssl_certificate_key {dir}/key.pem;
		root {dir}/www;
		auth_basic_user_file {dir}/htpasswd;
		location /basic/ {
			auth_basic "{realm}";
		}
		location /quoted/ {
			auth_basic 'lab "quoted" realm';
		}
		location /away/ {
			auth_basic "{realm}";
			try_files /nothing-is-here @away; # a return in this place would come before the credentials are asked for
		}
		location @away {
			return 302 {elsewhere};
		}
	}
}
`
