package guides_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
)

// Behind a corporate proxy that wants a password, a ProxyTransport is the Base of the Transport. The token endpoint is behind the same
// proxy, so TokenSource.HTTPClient goes by it, too.
func Example_corporateProxy() {
	bearer := &authtest.Bearer{}         // in place of the API
	srv := authtest.NewTLSServer(bearer) // and its token endpoint
	defer srv.Close()
	var tunnels atomic.Int32
	proxy := httptest.NewServer(corporateProxy("Aladdin", "open sesame", &tunnels))
	defer proxy.Close()
	proxyURL, err := url.Parse(proxy.URL)
	check(err)

	base := srv.Client().Transport.(*http.Transport).Clone() // http.DefaultTransport in your program, which finds the proxy in HTTPS_PROXY
	base.Proxy = http.ProxyURL(proxyURL)
	proxied := authretry.NewProxyTransport(base,
		&authretry.Digest{Username: "Aladdin", Password: "open sesame"}, // the stronger first: the proxy says which it wants
		&authretry.Basic{Username: "Aladdin", Password: "open sesame"},
	)
	// For Basic to a proxy on another machine whose URL is http://, set proxied.AllowPlaintext. Who is in between can read it.

	tokens := &authretry.TokenSource{
		Fetch:      authretry.ClientCredentialsGrant(bearer.ClientCredentials()),
		HTTPClient: &http.Client{Transport: proxied},
	}
	client := &http.Client{Transport: &authretry.Transport{
		Base:    proxied,
		Schemes: []authretry.Scheme{&authretry.Bearer{Source: tokens}},
	}}
	for range 2 {
		_, err = get(client, srv.URL)
		check(err)
	}
	fmt.Println("requests:", srv.Counts().Requests, "token requests:", srv.Counts().TokenRequests)
	fmt.Println("tunnels:", tunnels.Load() > 0)
	// Output:
	// requests: 2 token requests: 1
	// tunnels: true
}

// corporateProxy is a proxy that wants Basic, and opens tunnels.
func corporateProxy(user, password string, tunnels *atomic.Int32) http.Handler {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != want {
			w.Header().Set("Proxy-Authenticate", `Basic realm="the way out"`)
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		if r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		target, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer target.Close()
		w.WriteHeader(http.StatusOK)
		client, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer client.Close()
		tunnels.Add(1)
		go func() {
			defer target.Close()
			io.Copy(target, buffered)
		}()
		io.Copy(client, target)
	})
}
