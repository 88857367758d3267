package guarded

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/authretry/authretry/internal/dnstest"
	"github.com/stretchr/testify/require"
)

func TestKinds(t *testing.T) {
	for k, addrs := range map[kind]string{
		outside: `8.8.8.8 1.1.1.1 172.15.0.1 172.32.0.1 100.63.255.255 100.128.0.1 11.0.0.1 2606:4700::1111 2001:4860:4860::8888 ::ffff:8.8.8.8
			64:ff9b::8.8.8.8 2002:808:808::1 ::ffff:0:8.8.8.8`,
		private: `10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 100.64.0.1 fd00::1 fc00::1 fec0::1 ::ffff:10.0.0.1
			64:ff9b::10.0.0.1 64:ff9b:1::10.0.0.1 2002:a00:1::1 ::10.0.0.1 2001:0:808:808::f5ff:fffe 2001:db9::5efe:10.0.0.1`,
		loopback: `127.0.0.1 127.255.255.254 ::1 ::ffff:127.0.0.1 64:ff9b::127.0.0.1 64:ff9b::7f00:1 2002:7f00:1:: ::127.0.0.1 2001:0:7f00:1::f7f7:f7f7 2001:0:808:808::80ff:fffe ::ffff:0:127.0.0.1`,
		special: `0.0.0.0 :: 169.254.169.254 ::ffff:169.254.169.254 169.254.0.1 fe80::1 fe80::1%eth0 224.0.0.1 239.1.1.1 255.255.255.255 240.0.0.1 ff02::1 100.100.100.200
			fd00:ec2::254 fd20:ce::254 fd00:42::42 fd00:c1::a9fe:a9fe fd00:a9fe:a9fe::1 fd00:100::100:200 168.63.129.16 192.0.0.192 192.0.2.1 198.18.0.1 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1 64:ff9b:1::169.254.169.254 2001:0:a9fe:a9fe::1 64:ff9b:1:a9fe:a9:fe00:: 2001:db8::1 100::1`,
	} {
		for _, addr := range strings.Fields(addrs) {
			require.Equal(t, k, kindOf(netip.MustParseAddr(addr)), addr)
		}
	}
	require.Equal(t, special, kindOf(netip.Addr{}))
}

// What a browser makes of a host, by the URL Standard's "host parser" and "ends-in-a-number checker".
func TestReadHost(t *testing.T) {
	for want, hosts := range map[string]string{
		"127.0.0.1": `127.0.0.1 127.0.0.1. localhost localhost. LOCALHOST Localhost. app.localhost a.b.LocalHost.`,
		"10.0.0.1":  `10.0.0.1 10.0.0.1.`,
		"::1":       `::1 0:0:0:0:0:0:0:1`,
		"fe80::1%a": `fe80::1%a FE80::1%A`,
		"": `example.com example.com. intranet localhost.example.com notlocalhost localhost-x 127.0.0.1.example.com 127.0.0.1.x 0x7f.example.com 0xg 1a 1.0xz
			xn--nxasmq6b.example -1 1- a..`,
	} {
		for _, host := range strings.Fields(hosts) {
			addr, ok := ReadHost(host)
			require.True(t, ok, host)
			require.Equal(t, want != "", addr.IsValid(), host)
			if want != "" {
				require.Equal(t, want, addr.String(), host)
			}
		}
	}
	for _, host := range strings.Fields(`2130706433 2852039166 0x7f000001 0X7F000001 0x 127.1 127.1. 0x7f.1 0177.0.0.1 127.0.0.01 127.0.0.0x1 a.0x 169.254.43518 a.1 example.com.7 256.256.256.256 1.2.3.4.5
		１２７.0.0.1 127。0。0。1 127.0.0.１ ⓛocalhost localhoſt bücher.example`) {
		_, ok := ReadHost(host)
		require.False(t, ok, host)
	}
}

func TestWhatMayBeReachedFromWhere(t *testing.T) {
	addrs := []string{"8.8.8.8", "10.0.0.1", "127.0.0.1", "169.254.169.254", "169.254.0.7", "fd00:ec2::254"}
	for _, c := range []struct {
		home  string
		named bool
		may   string // of addrs, as bits
	}{
		{"", false, "100000"},
		{"8.8.4.4", false, "100000"},
		{"8.8.4.4", true, "111000"},
		{"10.9.9.9", false, "110000"},
		{"fd12::1", false, "110000"},
		{"127.0.0.1", false, "111000"},
		{"::1", false, "111000"},
		{"169.254.0.7", false, "100010"},
	} {
		p := &Policy{Named: func(string) bool { return c.named }}
		if c.home != "" {
			p.HomeAddr = netip.MustParseAddr(c.home)
		}
		for i, addr := range addrs {
			require.Equal(t, c.may[i] == '1', p.mayReach("h", netip.MustParseAddr(addr)), "%s from %q, named: %v", addr, c.home, c.named)
		}
	}
}

func TestCheck(t *testing.T) {
	https, _ := url.Parse("https://registry.test/v2/")
	http, _ := url.Parse("http://registry.test:5000/v2/")
	for named, want := range map[string]string{
		"https://auth.test/token?a=b":              "https://auth.test/token?a=b",
		"/token":                                   "https://registry.test/token",
		"token":                                    "https://registry.test/v2/token",
		"//auth.test/token":                        "https://auth.test/token",
		"HTTPS://auth.test/":                       "https://auth.test/",
		"http://auth.test/token":                   "",
		"javascript:alert(1)":                      "",
		"file:///etc/passwd":                       "",
		"https:///token":                           "",
		"https://:443/token":                       "",
		"https:auth.test":                          "",
		"https://user@auth.test/":                  "",
		"https://user:pass@auth.test/":             "",
		"https://auth.test/#x":                     "",
		"https://auth.test/#":                      "",
		"https://auth.test/\n":                     "",
		"https://auth.test:x/":                     "",
		"https://[::1/":                            "",
		"https://a/" + strings.Repeat("a", MaxURL): "",
	} {
		p := &Policy{Home: https}
		got, err := p.Check(named)
		if want == "" {
			require.ErrorAs(t, err, new(*RefusedError), "%.40q", named)
			require.Less(t, len(err.Error()), 300)
			require.NotContains(t, err.Error(), "pass")
			continue
		}
		require.NoError(t, err, named)
		require.Equal(t, want, got.String())
	}
	got, err := (&Policy{Home: http}).Check("http://auth.test/")
	require.NoError(t, err)
	require.Equal(t, "http://auth.test/", got.String())
}

func TestNothingInsideIsDialled(t *testing.T) {
	port, connections := dnstest.Sentinel(t)
	resolver, _ := dnstest.Resolver(t, map[string][]string{"inside.test.": {"127.0.0.1"}, "metadata.test.": {"169.254.169.254"}, "both.test.": {"127.0.0.1", "10.0.0.1"}})
	home, _ := url.Parse("http://registry.test/v2/")
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "localhost", "LOCALHOST", "0.0.0.0", "[::]", "[64:ff9b::7f00:1]",
		"169.254.169.254", "[fd00:ec2::254]", "10.0.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1", "100.100.100.200", "[fe80::1]", "[fe80::1%25lo]", "224.0.0.1", "255.255.255.255",
		"inside.test", "metadata.test", "both.test", "2130706433", "127.1", "0x7f.1", "[::7f00:1]", "[2002:7f00:1::]", "168.63.129.16"} {
		p := &Policy{Home: home, HomeAddr: netip.MustParseAddr("8.8.8.8"), Resolver: resolver, Proxy: func(*http.Request) (*url.URL, error) { return nil, nil }}
		resp, err := p.Client().Get("http://" + host + ":" + port + "/token")
		require.Error(t, err, host)
		require.Nil(t, resp)
	}
	require.Zero(t, connections.Load())

	// The same address, where the registry is there too.
	p := &Policy{Home: home, HomeAddr: netip.MustParseAddr("127.0.0.1"), Resolver: resolver}
	resp, err := p.Client().Get("http://inside.test:" + port)
	require.NoError(t, err)
	resp.Body.Close()
	require.Positive(t, connections.Load())
}

// A name is judged by the address that is dialled, not by one that it had before.
func TestNameThatChangesItsAddress(t *testing.T) {
	port, connections := dnstest.Sentinel(t)
	resolver, set := dnstest.Resolver(t, map[string][]string{"auth.test.": {"8.8.8.8"}})
	home, _ := url.Parse("http://registry.test/v2/")
	p := &Policy{Home: home, Resolver: resolver}
	u, err := p.Check("http://auth.test:" + port + "/token")
	require.NoError(t, err)
	client := p.Client()
	set("auth.test.", "127.0.0.1")
	_, err = client.Get(u.String())
	require.ErrorAs(t, err, new(*RefusedError))
	require.Zero(t, connections.Load())
}

func TestByAProxy(t *testing.T) {
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked = append(asked, r.URL.Host) }))
	defer proxy.Close()
	proxyURL, _ := url.Parse(proxy.URL)
	resolver, _ := dnstest.Resolver(t, map[string][]string{"inside.test.": {"10.0.0.1"}, "outside.test.": {"8.8.8.8"}})
	home, _ := url.Parse("http://registry.test/v2/")
	p := &Policy{Home: home, Resolver: resolver, Proxy: http.ProxyURL(proxyURL)}
	for _, host := range []string{"inside.test", "10.0.0.1", "[::1]", "localhost", "169.254.169.254", "[64:ff9b::a9fe:a9fe]", "inside.test.", "10.0.0.1.", "localhost.",
		"app.localhost", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "127.1", "１６９.254.169.254"} {
		_, err := p.Client().Get("http://" + host + "/")
		require.ErrorAs(t, err, new(*RefusedError), host)
	}
	for _, host := range []string{"outside.test", "8.8.8.8", "unknown-here.test"} {
		resp, err := p.Client().Get("http://" + host + "/")
		require.NoError(t, err)
		resp.Body.Close()
	}
	require.Equal(t, []string{"outside.test", "8.8.8.8", "unknown-here.test"}, asked)
}

// What somebody else is to dial is judged by all its addresses, and nothing is sent there.
func TestCheckHost(t *testing.T) {
	_, connections := dnstest.Sentinel(t)
	resolver, _ := dnstest.Resolver(t, map[string][]string{"inside.test.": {"127.0.0.1"}, "outside.test.": {"8.8.8.8"}, "both.test.": {"8.8.8.8", "10.0.0.1"}})
	p := &Policy{Resolver: resolver, Named: func(host string) bool { return host == "localhost" }}
	for host, allowed := range map[string]bool{"inside.test": false, "outside.test": true, "both.test": false, "127.0.0.1": false, "::1": false, "10.0.0.1": false,
		"localhost": true, "8.8.8.8": true, "169.254.169.254": false, "unknown-here.test": true,
		"127.0.0.1.": false, "localhost.": false, "app.localhost": false, "2130706433": false, "0x7f.1": false, "127.1": false, "１２７.0.0.1": false, "8.8.8.8.": true} {
		err := p.CheckHost(t.Context(), host)
		require.Equal(t, allowed, err == nil, "%s: %v", host, err)
	}
	require.Zero(t, connections.Load())
}

func TestAnswerIsBounded(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/", http.StatusTemporaryRedirect)
		case "/exact":
			w.Write(make([]byte, MaxAnswer))
		default:
			for range 100 {
				w.Write(make([]byte, MaxAnswer))
			}
		}
	}))
	defer srv.Close()
	home, _ := url.Parse(srv.URL)
	p := &Policy{Home: home, HomeAddr: netip.MustParseAddr("127.0.0.1")}
	resp, err := p.Client().Get(srv.URL)
	require.NoError(t, err)
	data, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	require.ErrorIs(t, err, errTooLong)
	require.Len(t, data, MaxAnswer)

	resp, err = p.Client().Get(srv.URL + "/exact")
	require.NoError(t, err)
	data, err = io.ReadAll(resp.Body)
	resp.Body.Close()
	require.NoError(t, err)
	require.Len(t, data, MaxAnswer)

	resp, err = p.Client().Get(srv.URL + "/redirect")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusTemporaryRedirect, resp.StatusCode)
}
