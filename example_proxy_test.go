package authretry_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/authretry/authretry"
)

// The origin and the proxy each ask for credentials of their own: the ProxyTransport is the Base of the Transport.
func ExampleProxyTransport() {
	// A proxy that wants Basic, and sends requests on to an origin that wants an API key.
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") == "" {
			w.Header().Set("Proxy-Authenticate", `Basic realm="the way out"`)
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		fmt.Fprintf(w, "%s, with %s", r.URL, r.Header.Get("Authorization"))
	}))
	defer proxy.Close()
	proxyURL, err := url.Parse(proxy.URL)
	if err != nil {
		panic(err)
	}

	base := &http.Transport{Proxy: http.ProxyURL(proxyURL)} // nil: the proxy that the environment names
	client := &http.Client{Transport: &authretry.Transport{
		Base:           authretry.NewProxyTransport(base, &authretry.Basic{Username: "Mufasa", Password: "Circle of Life"}),
		Schemes:        []authretry.Scheme{&authretry.APIKey{Key: "K"}},
		AllowPlaintext: true, // the example's origin has an http URL
	}}
	defer client.CloseIdleConnections()

	resp, err := client.Get("http://api.example.com/lions")
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	var body [100]byte
	n, _ := resp.Body.Read(body[:])
	fmt.Println(resp.StatusCode, string(body[:n]))
	// Output: 200 http://api.example.com/lions, with ApiKey K
}
