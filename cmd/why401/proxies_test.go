package main

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestProxyURL has a user name and a password in the proxy's URL, as the environment gives it. http.Transport sends them.
func TestProxyURL(t *testing.T) {
	for _, c := range []struct {
		url, challenge, password, cause string
		status                          int
	}{
		{"https://api.example.com/", `Basic realm="way out"`, wrong, "proxy-password", 1},
		{"http://api.example.com/", `Basic realm="way out"`, wrong, "proxy-password", 1},
		{"https://api.example.com/", `Digest realm="way out", nonce="5ccc", qop="auth"`, wrong, "proxy-digest", 1},
		{"https://api.example.com/", `Negotiate`, wrong, "proxy-windows", 1},
		{"https://api.example.com/", "", password, "", 0},
	} {
		t.Run(c.url+" "+c.challenge, func(t *testing.T) {
			w := newWorld(t, map[string]http.Handler{"api.example.com": says(200, "")})
			w.hosts["proxy.example.com"] = says(407, "Proxy-Authenticate: "+c.challenge)
			if c.challenge == "" {
				w.hosts["proxy.example.com"] = w.tunnels("Porter", password)
			}
			w.proxy = &url.URL{Scheme: "http", Host: "proxy.example.com:3128", User: url.UserPassword("Porter", c.password)}
			w.env = map[string]string{"HTTP_PROXY": w.proxy.String()}
			out, status := w.run([]string{c.url}, "", true)
			require.Equal(t, c.status, status, out)
			require.Contains(t, out, "with Basic credentials")
			noSecret(t, out)
			if c.cause != "" {
				first, _ := w.cause(c.url)
				require.Equal(t, c.cause, first.Name, out)
				require.Equal(t, certain, first.Sure)
			}
			if strings.HasPrefix(c.challenge, "Basic") && c.url[:5] == "https" {
				golden(t, "proxy-url.txt", out)
			}
		})
	}
}

// TestProxyWantsKerberos gives a user name and a password to proxies that do not take any. They are not sent.
func TestProxyWantsKerberos(t *testing.T) {
	for challenge, want := range map[string]string{
		"Negotiate": "proxy-windows", "NTLM": "proxy-windows", "Negotiate\nProxy-Authenticate: NTLM": "proxy-windows", "Bearer": "proxy-scheme",
		"Negotiate\nProxy-Authenticate: Basic realm=\"way out\"": "proxy-password",
	} {
		for _, url := range []string{"https://api.example.com/", "http://api.example.com/"} {
			var got []string
			w := newWorld(t, map[string]http.Handler{"proxy.example.com": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = append(got, r.Header.Get("Proxy-Authorization"))
				says(407, "Proxy-Authenticate: "+challenge)(w, r)
			})})
			first, out := w.cause("-proxy", "http://proxy.example.com:3128", "-proxy-user", "Porter", "-proxy-password-env", "WRONG", "-allow-plaintext", url)
			require.Equal(t, want, first.Name, out)
			if want != "proxy-password" {
				require.Equal(t, certain, first.Sure)
				require.Empty(t, strings.Join(got, ""))
			}
		}
	}
}

// TestProxyURLThatCannotBeRead has a password in the proxy's URL that is not in percent-encoding, so that http.Transport does not use it.
func TestProxyURLThatCannotBeRead(t *testing.T) {
	for _, url := range []string{"http://Porter:" + password + "%zz@proxy.example.com:3128", "http://Porter:a/" + password + "@proxy.example.com:3128"} {
		w := newWorld(t, map[string]http.Handler{"api.example.com": says(200, "")})
		w.env = map[string]string{"HTTPS_PROXY": url}
		out, status := w.run([]string{"https://api.example.com/"}, "", true)
		require.Equal(t, exitPassed, status)
		require.Contains(t, out, "HTTPS_PROXY is no URL that can be read")
		noSecret(t, out)
	}
	w := newWorld(t, map[string]http.Handler{"api.example.com": says(200, "")})
	w.env = map[string]string{"HTTPS_PROXY": "proxy.example.com:3128", "HTTP_PROXY": "10.0.0.1:3128"}
	out, _ := w.run([]string{"https://api.example.com/"}, "", true)
	require.NotContains(t, out, "no URL")
}

// A network that wants a login may redirect a CONNECT.
func TestCaptiveProxy(t *testing.T) {
	w := newWorld(t, map[string]http.Handler{"proxy.example.com": says(302, "Location: http://captive.example.com/login")})
	out, status := w.run([]string{"-proxy", "http://proxy.example.com:3128", "https://api.example.com/"}, "", true)
	require.Equal(t, exitFailed, status)
	require.Contains(t, out, "Likely cause: The proxy leads to another page: the network may want a login.\nWhat to do: Open any page in a browser on this network, and log in.\n")
}

// TestProxyForbids has a proxy that answers 403 to CONNECT, so that no request is sent.
func TestProxyForbids(t *testing.T) {
	w := newWorld(t, map[string]http.Handler{"proxy.example.com": says(403, "Content-Type: text/html\n\n<p>Blocked</p>")})
	for _, args := range [][]string{nil, {"-token-env", "TOKEN"}, {"-u", "Aladdin", "-password-env", "PASSWORD", "-ahead"}} {
		first, out := w.cause(append([]string{"-proxy", "http://proxy.example.com:3128"}, append(args, "https://api.example.com/")...)...)
		require.Equal(t, "proxy-forbids", first.Name, out)
		require.NotContains(t, out, "The server forbids", out)
	}
}

// TestProxyFindsNoHost has Squid look up a name that there is not.
func TestProxyFindsNoHost(t *testing.T) {
	w := newWorld(t, map[string]http.Handler{"proxy.example.com": says(503, "X-Squid-Error: ERR_DNS_FAIL 0")})
	first, out := w.cause("-proxy", "http://proxy.example.com:3128", "https://nowhere.example.com/")
	require.Equal(t, "proxy-dns", first.Name, out)
}

// TestProxyThatHadNoAnswer has Squid say, of a request over plain http, that it does not reach the server.
func TestProxyThatHadNoAnswer(t *testing.T) {
	for _, status := range []int{502, 503, 504} {
		w := newWorld(t, map[string]http.Handler{"proxy.example.com": says(status, "X-Squid-Error: ERR_CONNECT_FAIL 111")})
		first, out := w.cause("-proxy", "http://proxy.example.com:3128", "http://api.example.com/")
		require.Equal(t, "proxy-unanswered", first.Name, out)
		require.NotContains(t, out, "server failed")
	}
}
