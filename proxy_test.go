package authretry

import (
	"bufio"
	"cmp"
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/internal/quicktls"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A testProxy is a forward proxy that demands Basic or Digest. Of Digest it is strict: nonce counts must come in order,
// or the nonce is gone, as with Squid.
type testProxy struct {
	*httptest.Server
	schemes   []string
	realm     string // "lab", unless noRealm
	noRealm   bool
	password  string
	nonceUses int    // after which a nonce is stale; 0: never
	nextNonce bool   // in every answer
	drops     string // CONNECTs with credentials whose connections are closed without an answer: "once" or "always"

	forwarding *http.Transport
	tunnels    sync.WaitGroup

	mu     sync.Mutex
	nonces map[string]int // the last nonce count
	log    []string       // "407 CONNECT -"
	heads  []http.Header
	open   map[net.Conn]struct{}
}

const proxyUser = "Mufasa"

func newTestProxy(t *testing.T, p *testProxy) *testProxy {
	p.Server = httptest.NewUnstartedServer(p)
	p.forwarding = &http.Transport{}
	p.nonces = make(map[string]int)
	p.open = make(map[net.Conn]struct{})
	if !p.noRealm {
		p.realm = "lab"
	}
	if p.password == "" {
		p.password = "Circle of Life"
	}
	p.Start()
	t.Cleanup(p.shutdown)
	return p
}

func (p *testProxy) shutdown() {
	p.mu.Lock()
	for c := range p.open {
		c.Close()
	}
	p.mu.Unlock()
	p.tunnels.Wait()
	p.CloseClientConnections()
	p.Close()
	p.forwarding.CloseIdleConnections()
}

func (p *testProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	authorization := r.Header.Get("Proxy-Authorization")
	scheme, _, _ := strings.Cut(authorization, " ")
	ok, stale := p.check(r, scheme, authorization)
	status := http.StatusOK
	if !ok {
		status = http.StatusProxyAuthRequired
	}
	p.mu.Lock()
	p.log = append(p.log, fmt.Sprintf("%d %s %s", status, r.Method, cmp.Or(scheme, "-")))
	p.heads = append(p.heads, r.Header.Clone())
	drop := r.Method == http.MethodConnect && scheme != "" && p.drops != ""
	if drop && p.drops == "once" {
		p.drops = ""
	}
	p.mu.Unlock()
	if drop {
		panic(http.ErrAbortHandler)
	}
	if !ok {
		p.challenge(w, stale)
		return
	}
	if p.nextNonce && scheme == "Digest" {
		w.Header().Set("Proxy-Authentication-Info", `nextnonce="`+p.newNonce()+`"`)
	}
	if r.Method == http.MethodConnect {
		p.tunnel(w, r)
		return
	}
	r.Header.Del("Proxy-Authorization")
	r.RequestURI = ""
	resp, err := p.forwarding.RoundTrip(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}

func (p *testProxy) challenge(w http.ResponseWriter, stale bool) {
	for _, scheme := range p.schemes {
		c := scheme + ` realm="` + p.realm + `"`
		if scheme == "Digest" {
			c += fmt.Sprintf(`, nonce="%s", qop="auth", stale=%v`, p.newNonce(), stale)
		}
		w.Header().Add("Proxy-Authenticate", c)
	}
	w.WriteHeader(http.StatusProxyAuthRequired)
	io.WriteString(w, "the proxy refuses")
}

func (p *testProxy) newNonce() string {
	nonce := rand.Text()
	p.mu.Lock()
	p.nonces[nonce] = 0
	p.mu.Unlock()
	return nonce
}

var digestParam = regexp.MustCompile(`(\w+)=(?:"([^"]*)"|([^\s,]+))`)

// check is an independent check of the credentials.
func (p *testProxy) check(r *http.Request, scheme, authorization string) (ok, stale bool) {
	if len(p.schemes) == 0 {
		return true, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if scheme == "Basic" {
		return authorization == "Basic "+base64.StdEncoding.EncodeToString([]byte(proxyUser+":"+p.password)), false
	}
	param := make(map[string]string)
	for _, m := range digestParam.FindAllStringSubmatch(authorization, -1) {
		param[m[1]] = m[2] + m[3]
	}
	uri := r.RequestURI
	if r.Method != http.MethodConnect {
		uri = r.URL.RequestURI()
	}
	h := func(s string) string { sum := md5.Sum([]byte(s)); return hex.EncodeToString(sum[:]) }
	want := h(h(proxyUser+":"+p.realm+":"+p.password) + ":" + param["nonce"] + ":" + param["nc"] + ":" + param["cnonce"] + ":auth:" + h(r.Method+":"+uri))
	if scheme != "Digest" || param["uri"] != uri || param["response"] != want {
		return false, false
	}
	nonce := param["nonce"]
	last, known := p.nonces[nonce]
	nc, _ := strconv.ParseInt(param["nc"], 16, 32)
	if !known || int(nc) != last+1 || p.nonceUses > 0 && last == p.nonceUses {
		delete(p.nonces, nonce)
		return false, true
	}
	p.nonces[nonce] = int(nc)
	return true, false
}

func (p *testProxy) tunnel(w http.ResponseWriter, r *http.Request) {
	target, err := net.Dial("tcp", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	info := w.Header().Get("Proxy-Authentication-Info")
	conn, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		target.Close()
		return
	}
	if info != "" {
		info = "Proxy-Authentication-Info: " + info + "\r\n"
	}
	p.mu.Lock()
	p.open[conn], p.open[target] = struct{}{}, struct{}{}
	p.mu.Unlock()
	relay := func(dst net.Conn, src io.Reader) {
		io.Copy(dst, src)
		conn.Close()
		target.Close()
	}
	p.tunnels.Go(func() { relay(target, buffered) })
	p.tunnels.Go(func() {
		io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n"+info+"\r\n") // who sees it may end the test
		relay(conn, target)
	})
}

// requests returns the log so far, such as "407 CONNECT -" and "200 CONNECT Digest", and forgets it.
func (p *testProxy) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	log := p.log
	p.log, p.heads = nil, nil
	return log
}

func (p *testProxy) setPassword(password string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.password = password
}

func (p *testProxy) headers() []http.Header {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]http.Header(nil), p.heads...)
}

func (p *testProxy) proxyURL() *url.URL {
	u, err := url.Parse(p.URL)
	if err != nil {
		panic(err)
	}
	return u
}

// newTestOrigin is an origin that fails the test if it gets to see the proxy's credentials.
func newTestOrigin(t *testing.T, start func(http.Handler) *httptest.Server) *httptest.Server {
	srv := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "" {
			t.Error("Proxy-Authorization has reached the origin")
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			panic(http.ErrAbortHandler) // an answer to half a body could overtake the client's cancel
		}
		fmt.Fprintf(w, "%s %s %d", r.Proto, r.Method, n)
	}))
	t.Cleanup(srv.Close)
	return srv
}

func startTLS(h http.Handler) *httptest.Server {
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of tunnels that are closed before they are used
	srv.TLS = quicktls.Config()
	srv.StartTLS()
	return srv
}

func startHTTP2(h http.Handler) *httptest.Server {
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.TLS = quicktls.Config()
	srv.StartTLS()
	return srv
}

// via returns a base that goes through the proxy, and knows the certificates of the servers.
func via(proxy *testProxy, servers ...*httptest.Server) *http.Transport {
	base := &http.Transport{Proxy: http.ProxyURL(proxy.proxyURL()), TLSClientConfig: &tls.Config{RootCAs: x509.NewCertPool()}, MaxIdleConnsPerHost: 64}
	for _, s := range servers {
		if c := s.Certificate(); c != nil {
			base.TLSClientConfig.RootCAs.AddCert(c)
		}
	}
	return base
}

func proxyClient(t *testing.T, base *http.Transport, schemes ...Scheme) *http.Client {
	transport := NewProxyTransport(base, schemes...)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func proxySchemes(password string) []Scheme {
	return []Scheme{&Digest{Username: proxyUser, Password: password}, &Basic{Username: proxyUser, Password: password}}
}

const goodPassword = "Circle of Life"

func repeated(n int, s string) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = s
	}
	return list
}

func TestProxyAnswersOnceAndThenSendsAhead(t *testing.T) {
	for _, c := range []struct {
		offers []string
		used   string
	}{
		{[]string{"Basic"}, "Basic"},
		{[]string{"Digest"}, "Digest"},
		{[]string{"Basic", "Digest"}, "Digest"},
	} {
		t.Run(strings.Join(c.offers, " and "), func(t *testing.T) {
			proxy := newTestProxy(t, &testProxy{schemes: c.offers})
			origin, secure, h2 := newTestOrigin(t, httptest.NewServer), newTestOrigin(t, startTLS), newTestOrigin(t, startHTTP2)
			base := via(proxy, secure, h2)
			base.ForceAttemptHTTP2 = true
			client := proxyClient(t, base, proxySchemes(goodPassword)...)

			for i := range 3 {
				resp, body := get(t, client, origin.URL+"/a/b?c=d")
				require.Equal(t, "HTTP/1.1 GET 0", body)
				require.Empty(t, resp.Request.Header, "no credentials in the caller's request")
				require.NoError(t, Explain(resp))
				want := []string{"200 GET " + c.used}
				if i == 0 {
					want = append([]string{"407 GET -"}, want...)
				}
				require.Equal(t, want, proxy.requests())
			}
			for _, s := range []struct{ url, body string }{{secure.URL, "HTTP/1.1 GET 0"}, {h2.URL, "HTTP/2.0 GET 0"}} {
				for range 3 {
					resp, body := get(t, client, s.url)
					require.Equal(t, s.body, body)
					require.Empty(t, resp.Request.Header)
				}
				require.Equal(t, []string{"200 CONNECT " + c.used}, proxy.requests(), "one tunnel, its credentials known from the http requests")
			}
			client.CloseIdleConnections()
			get(t, client, secure.URL)
			require.Equal(t, []string{"200 CONNECT " + c.used}, proxy.requests(), "CloseIdleConnections has closed the tunnels")
		})
	}
}

func TestProxyConnectIsAnswered(t *testing.T) {
	for _, scheme := range []string{"Basic", "Digest"} {
		for _, nextNonce := range []bool{false, true} {
			proxy := newTestProxy(t, &testProxy{schemes: []string{scheme}, nextNonce: nextNonce})
			secure := newTestOrigin(t, startTLS)
			client := proxyClient(t, via(proxy, secure), proxySchemes(goodPassword)...)
			for range 3 {
				_, body := get(t, client, secure.URL)
				require.Equal(t, "HTTP/1.1 GET 0", body)
				client.CloseIdleConnections()
			}
			require.Equal(t, append([]string{"407 CONNECT -"}, repeated(3, "200 CONNECT "+scheme)...), proxy.requests())
		}
	}
}

func TestProxyNonceThatEnds(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Digest"}, nonceUses: 2})
	origin, secure := newTestOrigin(t, httptest.NewServer), newTestOrigin(t, startTLS)
	client := proxyClient(t, via(proxy, secure), proxySchemes(goodPassword)...)
	for range 3 {
		get(t, client, origin.URL)
		get(t, client, secure.URL)
		client.CloseIdleConnections()
	}
	require.Equal(t, []string{
		"407 GET -", "200 GET Digest", "200 CONNECT Digest",
		"407 GET Digest", "200 GET Digest", "200 CONNECT Digest",
		"407 GET Digest", "200 GET Digest", "200 CONNECT Digest",
	}, proxy.requests())

	proxy = newTestProxy(t, &testProxy{schemes: []string{"Digest"}, nonceUses: 1})
	client = proxyClient(t, via(proxy, secure), proxySchemes(goodPassword)...)
	for range 3 {
		get(t, client, secure.URL)
		client.CloseIdleConnections()
	}
	require.Equal(t, []string{
		"407 CONNECT -", "200 CONNECT Digest",
		"407 CONNECT Digest", "200 CONNECT Digest",
		"407 CONNECT Digest", "200 CONNECT Digest",
	}, proxy.requests())
}

func TestProxyRefusesForGood(t *testing.T) {
	for _, scheme := range []string{"Basic", "Digest"} {
		t.Run(scheme, func(t *testing.T) {
			proxy := newTestProxy(t, &testProxy{schemes: []string{scheme}})
			origin, secure := newTestOrigin(t, httptest.NewServer), newTestOrigin(t, startTLS)
			client := proxyClient(t, via(proxy, secure), proxySchemes("sesame")...)
			check := func(err error) {
				t.Helper()
				var r *Rejection
				require.ErrorAs(t, err, &r)
				require.ErrorIs(t, err, ErrCredentialsRefused)
				require.Equal(t, ReasonProxyAuthentication, r.Reason)
				require.Equal(t, http.StatusProxyAuthRequired, r.Status)
				require.Equal(t, proxy.URL, r.Origin)
				require.Equal(t, []string{scheme}, r.Tried)
				require.True(t, r.Retried)
				require.Len(t, r.Challenges, 1)
				require.Equal(t, scheme, r.Challenges[0].Scheme)
				require.Equal(t, "lab", r.Challenges[0].Params.Get("realm"))
				text := fmt.Sprintf("%v %+v %#v", err, err, err)
				require.NotContains(t, text, "sesame")
				require.NotContains(t, text, base64.StdEncoding.EncodeToString([]byte(proxyUser+":sesame")))
				require.Contains(t, err.Error(), "a proxy asks for "+scheme+` (realm "lab"): the `+scheme+" credentials were refused; check them")
			}
			for range 2 { // what was refused is not sent ahead the next time
				resp, body := get(t, client, origin.URL)
				require.Equal(t, http.StatusProxyAuthRequired, resp.StatusCode)
				require.Equal(t, "the proxy refuses", body)
				require.Empty(t, resp.Request.Header)
				check(Explain(resp))
				require.Equal(t, []string{"407 GET -", "407 GET " + scheme}, proxy.requests())

				_, err := client.Get(secure.URL)
				check(err)
				require.Equal(t, []string{"407 CONNECT -", "407 CONNECT " + scheme}, proxy.requests())
			}
		})
	}
}

func TestProxyChallengeThatCannotBeAnswered(t *testing.T) {
	for name, c := range map[string]struct {
		offers []string
		text   string
	}{
		"another scheme": {[]string{"Negotiate"}, "the configured Digest, Basic cannot answer that; add the scheme to ProxyTransport.Schemes"},
		"none":           {[]string{}, "names no challenge"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for _, scheme := range c.offers {
					w.Header().Add("Proxy-Authenticate", scheme)
				}
				w.WriteHeader(http.StatusProxyAuthRequired)
			}))
			defer srv.Close()
			u, _ := url.Parse(srv.URL)
			client := proxyClient(t, &http.Transport{Proxy: http.ProxyURL(u)}, proxySchemes(goodPassword)...)
			resp, _ := get(t, client, "http://origin.test/")
			require.ErrorContains(t, Explain(resp), c.text)
			_, err := client.Get("https://origin.test/")
			require.ErrorContains(t, err, c.text)
			var r *Rejection
			require.ErrorAs(t, err, &r)
			require.Equal(t, ReasonProxyAuthentication, r.Reason)
			require.Empty(t, r.Tried)
			require.False(t, r.Retried)
		})
	}
}

// Whoever has strict nonce counts refuses all that is out of order, so this fails unless Sessions are lent.
func TestProxyManyAtOnce(t *testing.T) {
	workers, each := thorough.Or(32, 12), thorough.Or(6, 2)
	for _, c := range []struct {
		name  string
		start func(http.Handler) *httptest.Server
	}{
		{"http", httptest.NewServer},
		{"https", startTLS},
		{"HTTP/2", startHTTP2},
	} {
		t.Run(c.name, func(t *testing.T) {
			proxy := newTestProxy(t, &testProxy{schemes: []string{"Digest"}})
			origin := newTestOrigin(t, c.start)
			base := via(proxy, origin)
			base.DisableKeepAlives = c.name == "https" // a CONNECT each
			base.ForceAttemptHTTP2 = true
			client := proxyClient(t, base, proxySchemes(goodPassword)...)
			var wg sync.WaitGroup
			failures := make(chan error, workers*each)
			for range workers {
				wg.Go(func() {
					for range each {
						resp, err := client.Post(origin.URL, "text/plain", io.MultiReader(strings.NewReader("hello")))
						if err != nil {
							failures <- err
							continue
						}
						body, err := io.ReadAll(resp.Body)
						resp.Body.Close()
						if err != nil || !strings.HasSuffix(string(body), "POST 5") {
							failures <- fmt.Errorf("%v: %s, %w", resp.Status, body, err)
						}
					}
				})
			}
			wg.Wait()
			close(failures)
			for err := range failures {
				require.NoError(t, err)
			}
			log := proxy.requests()
			require.LessOrEqual(t, len(log), workers*each+workers, "one challenge a worker at most")
			for _, line := range log {
				require.NotRegexp(t, "^407 .* Digest$", line, "no credentials were refused")
			}
		})
	}
}

func TestProxyBeforeAnOriginThatDemandsDigest(t *testing.T) {
	for name, start := range map[string]func(...authtest.Guard) *authtest.Server{
		"http": authtest.NewServer, "https": authtest.NewTLSServer, "HTTP/2": authtest.NewHTTP2Server,
	} {
		t.Run(name, func(t *testing.T) {
			guard := &authtest.Digest{Username: "Simba", Password: "Hakuna", Realm: "lab"}
			origin := start(guard)
			defer origin.Close()
			proxy := newTestProxy(t, &testProxy{schemes: []string{"Digest"}})
			base := origin.Client().Transport.(*http.Transport).Clone()
			base.Proxy = http.ProxyURL(proxy.proxyURL())
			base.DialContext = nil
			client := &http.Client{Transport: &Transport{
				Base:    NewProxyTransport(base, proxySchemes(goodPassword)...),
				Schemes: []Scheme{&Digest{Username: "Simba", Password: "Hakuna"}},
			}}
			defer client.CloseIdleConnections()
			for range 3 {
				resp, err := client.Post(origin.URL+"/x", "text/plain", strings.NewReader("hello"))
				require.NoError(t, err)
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				require.Equal(t, 200, resp.StatusCode, "%v", Explain(resp))
			}
			require.Empty(t, guard.NonceErrors())
			require.Len(t, origin.Requests(), 4)
			want := []string{"407 POST -", "200 POST Digest", "200 POST Digest", "200 POST Digest", "200 POST Digest"}
			if name != "http" {
				want = []string{"407 CONNECT -", "200 CONNECT Digest"}
			}
			require.Equal(t, want, proxy.requests())
		})
	}
}

func TestProxyRefusalPassesTheOriginsTransport(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	client := &http.Client{Transport: &Transport{
		Base:    NewProxyTransport(via(proxy), &Basic{Username: proxyUser, Password: "wrong"}),
		Schemes: []Scheme{&Basic{Username: "Simba", Password: "origins-own", Ahead: true}},

		AllowPlaintext: true, // what goes through a proxy is not on this machine
	}}
	defer client.CloseIdleConnections()
	for _, target := range []string{"http://127.0.0.1:1/", "https://127.0.0.1:1/"} {
		resp, err := client.Get(target)
		if err == nil {
			resp.Body.Close()
			require.Equal(t, 407, resp.StatusCode)
			require.Empty(t, resp.Request.Header, "neither the proxy's credentials nor the origin's")
			err = Explain(resp)
		}
		var r *Rejection
		require.ErrorAs(t, err, &r)
		require.Equal(t, ReasonProxyAuthentication, r.Reason)
		require.Equal(t, proxy.URL, r.Origin)
		require.Equal(t, []string{"Basic"}, r.Tried)
	}
}

// socksProxy returns the address of a SOCKS 5 proxy (RFC 1928) that connects to IPv4 addresses.
func socksProxy(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	serve := func(conn net.Conn) {
		defer conn.Close()
		var greeting [3]byte // version 5, one method: no authentication
		io.ReadFull(conn, greeting[:])
		conn.Write([]byte{5, 0})
		var request [10]byte // version 5, CONNECT, reserved, IPv4, address, port
		io.ReadFull(conn, request[:])
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte(request[4:8])), binary.BigEndian.Uint16(request[8:]))
		target, err := net.Dial("tcp", addr.String())
		if err != nil {
			return
		}
		defer target.Close()
		conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		go io.Copy(conn, target)
		io.Copy(target, conn)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return l.Addr().String()
}

func TestProxyCredentialsNeverAnswerAnOrigin(t *testing.T) {
	var hits atomic.Int32
	refusing := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		if r.Header.Get("Proxy-Authorization") != "" || r.Header.Get("Authorization") != "" {
			t.Error("the origin has got credentials")
		}
		w.Header().Set("Proxy-Authenticate", `Basic realm="lab"`)
		w.WriteHeader(http.StatusProxyAuthRequired)
	})
	origin, secure := httptest.NewServer(refusing), startTLS(refusing)
	defer origin.Close()
	defer secure.Close()
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	scheme := &Basic{Username: proxyUser, Password: goodPassword, Ahead: true}

	none := func(*http.Request) (*url.URL, error) { return nil, nil }
	for name, c := range map[string]struct {
		proxy  func(*http.Request) (*url.URL, error)
		target string
	}{
		"no proxy":                 {nil, origin.URL},
		"no proxy, https":          {nil, secure.URL},
		"not this one":             {none, origin.URL},
		"not this one, https":      {none, secure.URL},
		"by SOCKS":                 {http.ProxyURL(&url.URL{Scheme: "socks5", Host: socksProxy(t)}), origin.URL},
		"by SOCKS, https":          {http.ProxyURL(&url.URL{Scheme: "socks5", Host: socksProxy(t)}), secure.URL},
		"through a proxy's tunnel": {http.ProxyURL(proxy.proxyURL()), secure.URL},
	} {
		t.Run(name, func(t *testing.T) {
			hits.Store(0)
			base := via(proxy, secure)
			base.Proxy = c.proxy
			client := proxyClient(t, base, scheme)
			resp, err := client.Get(c.target)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, 407, resp.StatusCode)
			require.Equal(t, int32(1), hits.Load())
			if c.proxy != nil {
				var r *Rejection
				require.ErrorAs(t, Explain(resp), &r)
				require.Equal(t, c.target, r.Origin)
				require.ErrorContains(t, r, "not a proxy of ours")
			}
		})
	}
}

func TestProxyIsChosenOnceForARequest(t *testing.T) {
	a := newTestProxy(t, &testProxy{schemes: []string{"Basic"}, password: "a's"})
	b := newTestProxy(t, &testProxy{schemes: []string{"Basic"}, password: "b's"})
	origin, secure := newTestOrigin(t, httptest.NewServer), newTestOrigin(t, startTLS)
	base := via(a, secure)
	var calls atomic.Int32
	base.Proxy = func(*http.Request) (*url.URL, error) {
		return []*url.URL{a.proxyURL(), b.proxyURL(), nil}[(calls.Add(1)-1)%3], nil
	}
	var asked sync.Map
	client := proxyClient(t, base, &Basic{Credentials: func(_ context.Context, r CredentialsRequest) (string, string, error) {
		asked.Store(r.Origin, true)
		return proxyUser, map[string]string{a.URL: "a's", b.URL: "b's"}[r.Origin], nil
	}})
	for range 2 {
		for range 3 {
			resp, _ := get(t, client, origin.URL)
			require.Equal(t, 200, resp.StatusCode)
		}
		for range 3 {
			resp, _ := get(t, client, secure.URL)
			require.Equal(t, 200, resp.StatusCode)
		}
		client.CloseIdleConnections()
	}
	require.Equal(t, int32(12), calls.Load())
	for _, p := range []*testProxy{a, b} {
		require.Equal(t, []string{"407 GET -", "200 GET Basic", "200 CONNECT Basic", "200 GET Basic", "200 CONNECT Basic"}, p.requests())
	}
	asked.Range(func(origin, _ any) bool {
		require.Contains(t, []string{a.URL, b.URL}, origin, "credentials are looked up for proxies only")
		return true
	})
}

func TestProxyCallersOwnCredentialsCount(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	origin, secure := newTestOrigin(t, httptest.NewServer), newTestOrigin(t, startTLS)
	own := "Basic " + base64.StdEncoding.EncodeToString([]byte("own:own"))
	ahead := &Basic{Ahead: true, Credentials: func(context.Context, CredentialsRequest) (string, string, error) {
		t.Error("credentials are asked for in vain")
		return proxyUser, goodPassword, nil
	}}
	check := func(client *http.Client, req *http.Request) {
		t.Helper()
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			require.Equal(t, 407, resp.StatusCode)
			err = Explain(resp)
		}
		var r *Rejection
		require.ErrorAs(t, err, &r)
		require.Equal(t, 407, r.Status)
		require.Equal(t, proxy.URL, r.Origin)
		require.ErrorContains(t, err, "caller's own Proxy-Authorization")
		require.Empty(t, r.Tried)
		require.Len(t, proxy.headers(), 1)
		require.Equal(t, own, proxy.headers()[0].Get("Proxy-Authorization"))
		proxy.requests()
	}
	newRequest := func(target string) *http.Request {
		req, err := http.NewRequest("GET", target, nil)
		require.NoError(t, err)
		return req
	}

	client := proxyClient(t, via(proxy, secure), ahead)
	req := newRequest(origin.URL)
	req.Header["proxy-authorization"] = []string{own}
	check(client, req)

	u := proxy.proxyURL()
	u.User = url.UserPassword("own", "own")
	base := via(proxy, secure)
	base.Proxy = http.ProxyURL(u)
	client = proxyClient(t, base, ahead)
	check(client, newRequest(origin.URL))
	check(client, newRequest(secure.URL))

	base = via(proxy, secure)
	base.ProxyConnectHeader = http.Header{"Proxy-Authorization": {own}}
	check(proxyClient(t, base, ahead), newRequest(secure.URL))
	require.Equal(t, http.Header{"Proxy-Authorization": {own}}, base.ProxyConnectHeader)
}

func TestProxyHooksOfTheCallerAreCalled(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Digest"}})
	secure := newTestOrigin(t, startTLS)
	errHook := errors.New("the hook does not like it")
	for _, password := range []string{goodPassword, "wrong"} {
		base := via(proxy, secure)
		base.ProxyConnectHeader = http.Header{"X-Not-Called": {"1"}}
		header := http.Header{"X-Called": {"1"}}
		base.GetProxyConnectHeader = func(_ context.Context, u *url.URL, target string) (http.Header, error) {
			assert.Equal(t, proxy.URL, u.String())
			assert.Equal(t, secure.Listener.Addr().String(), target)
			return header, nil
		}
		var statuses []int
		base.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, req *http.Request, resp *http.Response) error {
			assert.Empty(t, req.Header.Get("Proxy-Authorization"), "the hook need not know")
			if statuses = append(statuses, resp.StatusCode); resp.StatusCode != 200 {
				return errHook
			}
			return nil
		}
		client := proxyClient(t, base, proxySchemes(password)...)
		resp, err := client.Get(secure.URL)
		if password == goodPassword {
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, []int{407, 200}, statuses)
		} else {
			require.ErrorIs(t, err, errHook)
			require.ErrorIs(t, err, ErrCredentialsRefused)
			require.ErrorContains(t, err, "check them; OnProxyConnectResponse says: the hook")
			require.Equal(t, []int{407, 407}, statuses)
		}
		for _, h := range proxy.headers() {
			require.Equal(t, "1", h.Get("X-Called"))
			require.Empty(t, h.Get("X-Not-Called"))
		}
		require.Len(t, header, 1, "the hook's map is its own")
		proxy.requests()

		base.GetProxyConnectHeader = nil
		client = proxyClient(t, base, proxySchemes(goodPassword)...)
		resp, err = client.Get(secure.URL)
		require.NoError(t, err)
		resp.Body.Close()
		for _, h := range proxy.headers() {
			require.Equal(t, "1", h.Get("X-Not-Called"), "ProxyConnectHeader counts if there is no func")
		}
		proxy.requests()

		base.GetProxyConnectHeader = func(context.Context, *url.URL, string) (http.Header, error) { return nil, errHook }
		_, err = proxyClient(t, base, proxySchemes(goodPassword)...).Get(secure.URL)
		require.ErrorIs(t, err, errHook)
		require.Empty(t, proxy.requests())
	}
}

func TestProxyPlaintext(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	digests := newTestProxy(t, &testProxy{schemes: []string{"Digest"}})
	origin, secure := newTestOrigin(t, httptest.NewServer), newTestOrigin(t, startTLS)
	remote := func(p *testProxy) *http.Transport { // the proxy, as if it were on another host
		base := via(p, secure)
		base.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "proxy.test:3128"})
		base.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, p.Listener.Addr().String())
		}
		return base
	}
	basic := &Basic{Username: proxyUser, Password: goodPassword}
	ahead := &Basic{Username: proxyUser, Password: goodPassword, Ahead: true}
	for _, target := range []string{origin.URL, secure.URL} {
		for _, scheme := range []*Basic{basic, ahead} {
			_, err := proxyClient(t, remote(proxy), scheme).Get(target)
			var r *Rejection
			require.ErrorAs(t, err, &r)
			require.Equal(t, ReasonPlaintext, r.Reason)
			require.Equal(t, "http://proxy.test:3128", r.Origin)
			require.ErrorContains(t, err, "set ProxyTransport.AllowPlaintext")
			for _, h := range proxy.headers() {
				require.Empty(t, h.Get("Proxy-Authorization"))
			}
			proxy.requests()

			transport := NewProxyTransport(remote(proxy), scheme)
			transport.AllowPlaintext = true
			resp, _ := get(t, &http.Client{Transport: transport}, target)
			require.Equal(t, 200, resp.StatusCode)
			transport.CloseIdleConnections()
			proxy.requests()
		}
		resp, _ := get(t, proxyClient(t, remote(digests), proxySchemes(goodPassword)...), target)
		require.Equal(t, 200, resp.StatusCode)
	}
}

func TestProxyOverTLS(t *testing.T) {
	proxy := &testProxy{schemes: []string{"Basic"}, password: goodPassword}
	proxy.Server = httptest.NewUnstartedServer(proxy)
	proxy.forwarding, proxy.nonces, proxy.open = &http.Transport{}, map[string]int{}, map[net.Conn]struct{}{}
	proxy.StartTLS()
	t.Cleanup(proxy.shutdown)
	origin, secure := newTestOrigin(t, httptest.NewServer), newTestOrigin(t, startTLS)
	client := proxyClient(t, via(proxy, proxy.Server, secure), proxySchemes(goodPassword)...)
	for _, target := range []string{origin.URL, secure.URL} {
		resp, _ := get(t, client, target)
		require.Equal(t, 200, resp.StatusCode)
	}
	require.Equal(t, []string{"407 GET -", "200 GET Basic", "200 CONNECT Basic"}, proxy.requests())
}

// A closeCounter is a body that counts how often it was closed.
type closeCounter struct {
	io.Reader
	closed atomic.Int32
}

func (c *closeCounter) Close() error { c.closed.Add(1); return nil }

// requireClosedOnce waits until body is closed, which http.Transport may do after RoundTrip has returned.
func requireClosedOnce(t *testing.T, body *closeCounter) {
	t.Helper()
	require.Eventually(t, func() bool { return body.closed.Load() > 0 }, 30*time.Second, time.Millisecond)
	require.Equal(t, int32(1), body.closed.Load())
}

func TestProxyBodies(t *testing.T) {
	t.Parallel() // it waits for connections to be closed
	origin, secure := newTestOrigin(t, httptest.NewServer), newTestOrigin(t, startTLS)
	for _, target := range []string{origin.URL, secure.URL} {
		for _, password := range []string{goodPassword, "wrong"} {
			for _, size := range []int{1, 100_000, 3 << 20} {
				for _, rewindable := range []bool{false, true} {
					proxy := newTestProxy(t, &testProxy{schemes: []string{"Digest"}})
					client := proxyClient(t, via(proxy, secure), proxySchemes(password)...)
					content := strings.Repeat("x", size)
					body := &closeCounter{Reader: strings.NewReader(content)}
					var again []*closeCounter
					req, err := http.NewRequest("PUT", target, body)
					require.NoError(t, err)
					req.ContentLength = int64(size)
					if rewindable {
						req.GetBody = func() (io.ReadCloser, error) {
							again = append(again, &closeCounter{Reader: strings.NewReader(content)})
							return again[len(again)-1], nil
						}
					}
					resp, err := client.Do(req)
					if err == nil {
						text, err := io.ReadAll(resp.Body)
						require.NoError(t, err)
						resp.Body.Close()
						if password == goodPassword {
							require.Equal(t, "HTTP/1.1 PUT "+strconv.Itoa(size), string(text))
						} else {
							require.Equal(t, 407, resp.StatusCode)
						}
					} else {
						require.ErrorIs(t, err, ErrCredentialsRefused)
					}
					for _, b := range append(again, body) {
						requireClosedOnce(t, b)
					}
					client.CloseIdleConnections()
				}
			}
		}
	}
}

func TestProxyDialThatFailsWithACredentialOnItsWay(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Digest"}, drops: "once"})
	secure := newTestOrigin(t, startTLS)
	base := via(proxy, secure)
	header := http.Header{"X-Shared": {"1"}}
	base.GetProxyConnectHeader = func(context.Context, *url.URL, string) (http.Header, error) { return header, nil }
	client := proxyClient(t, base, proxySchemes(goodPassword)...)
	_, err := client.Get(secure.URL)
	require.Error(t, err)
	require.Equal(t, http.Header{"X-Shared": {"1"}}, header, "the credentials are not left in what belongs to the caller")
	var r *Rejection
	require.False(t, errors.As(err, &r), "it was not refused: %v", err)
	resp, _ := get(t, client, secure.URL)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, []string{"407 CONNECT -", "200 CONNECT Digest", "407 CONNECT -", "200 CONNECT Digest"}, proxy.requests())
}

// A blockingBody has nothing to read until it is closed.
type blockingBody struct {
	closeCounter
	reading func()
	gone    chan struct{}
}

func (b *blockingBody) Read([]byte) (int, error) {
	b.reading()
	<-b.gone
	return 0, io.ErrClosedPipe
}

func (b *blockingBody) Close() error {
	close(b.gone)
	return b.closeCounter.Close()
}

func TestProxyContextEndsTheWaitForABody(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{})
	origin, secure := newTestOrigin(t, httptest.NewServer), newTestOrigin(t, startTLS)
	for _, target := range []string{origin.URL, secure.URL} {
		ctx, cancel := context.WithCancelCause(context.Background())
		errEnough := errors.New("enough")
		body := &blockingBody{reading: func() { cancel(errEnough) }, gone: make(chan struct{})}
		req, err := http.NewRequestWithContext(ctx, "POST", target, body)
		require.NoError(t, err)
		transport := NewProxyTransport(via(proxy, secure), proxySchemes(goodPassword)...)
		_, err = transport.RoundTrip(req)
		require.ErrorIs(t, err, errEnough)
		requireClosedOnce(t, &body.closeCounter)
		transport.CloseIdleConnections()
	}
}

// requireNoMoreGoroutines waits until there are no more goroutines than before: connections take a moment to close.
func requireNoMoreGoroutines(t *testing.T, before int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("there are more goroutines than before:\n%s", stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func TestProxyContextEndsTheWaitForCONNECT(t *testing.T) {
	before := runtime.NumGoroutine()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(context.Background())
	errEnough := errors.New("enough")
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := silent.Accept()
		if err != nil {
			return
		}
		http.ReadRequest(bufio.NewReader(conn))
		cancel(errEnough)
		accepted <- conn
	}()
	transport := NewProxyTransport(&http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: silent.Addr().String()})}, proxySchemes(goodPassword)...)
	body := &closeCounter{Reader: strings.NewReader("hello")}
	req, err := http.NewRequestWithContext(ctx, "POST", "https://origin.test/", body)
	require.NoError(t, err)
	_, err = transport.RoundTrip(req)
	require.ErrorIs(t, err, errEnough)
	require.Equal(t, int32(1), body.closed.Load())
	(<-accepted).Close()
	silent.Close()
	requireNoMoreGoroutines(t, before)
}

func TestProxyLeavesNoGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("at work", func(t *testing.T) {
		proxy := newTestProxy(t, &testProxy{schemes: []string{"Digest"}})
		origin, secure := newTestOrigin(t, httptest.NewServer), newTestOrigin(t, startTLS)
		for _, password := range []string{goodPassword, "wrong"} {
			client := proxyClient(t, via(proxy, secure), proxySchemes(password)...)
			for range 5 {
				for _, target := range []string{origin.URL, secure.URL} {
					if resp, err := client.Post(target, "", io.MultiReader(strings.NewReader("x"))); err == nil {
						io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
				}
			}
		}
	})
	requireNoMoreGoroutines(t, before)
}

func TestProxyEvents(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Digest"}})
	origin, secure := newTestOrigin(t, httptest.NewServer), newTestOrigin(t, startTLS)
	transport := NewProxyTransport(via(proxy, secure), proxySchemes(goodPassword)...)
	var mu sync.Mutex
	var events []string
	transport.OnEvent = func(_ context.Context, e Event) {
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, proxy.URL, e.Origin)
		events = append(events, fmt.Sprint(e.Kind, " ", e.Attempt, " ", e.Scheme, " ", e.Status))
	}
	defer transport.CloseIdleConnections()
	get(t, &http.Client{Transport: transport}, secure.URL)
	require.Equal(t, []string{"challenged 1 Digest 407", "authorized 2 Digest 0", "unverified 0 Digest 0", "done 2  200"}, events)
	events = nil
	get(t, &http.Client{Transport: transport}, origin.URL)
	require.Equal(t, []string{"authorized 1 Digest 0", "unverified 0 Digest 0", "done 1  200"}, events)
}

func TestProxyCloneKeepsHTTP2(t *testing.T) {
	h2 := newTestOrigin(t, startHTTP2)
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Digest"}})
	transport := NewProxyTransport(&http.Transport{Proxy: http.ProxyURL(proxy.proxyURL())}, proxySchemes(goodPassword)...)
	require.NoError(t, transport.init())
	defer transport.CloseIdleConnections()
	transport.transport.TLSClientConfig.RootCAs = x509.NewCertPool()
	transport.transport.TLSClientConfig.RootCAs.AddCert(h2.Certificate())
	_, body := get(t, &http.Client{Transport: transport}, h2.URL)
	require.Equal(t, "HTTP/2.0 GET 0", body)
}

func TestProxyTransportThatIsMisconfigured(t *testing.T) {
	for text, transport := range map[string]*ProxyTransport{
		"make one with NewProxyTransport": nil,
		"ProxyTransport.Schemes is empty": {},
		"Transport.Schemes[0] is nil":     {Schemes: []Scheme{(*Basic)(nil)}},
	} {
		body := &closeCounter{Reader: strings.NewReader("")}
		req, err := http.NewRequest("POST", "http://origin.test/", body)
		require.NoError(t, err)
		_, err = transport.RoundTrip(req)
		var r *Rejection
		require.ErrorAs(t, err, &r)
		require.Equal(t, ReasonMisconfigured, r.Reason)
		require.ErrorContains(t, err, text)
		require.Equal(t, int32(1), body.closed.Load())
		transport.CloseIdleConnections()
	}
}

// A stubborn Scheme has the same to say to each challenge.
type stubborn struct{ err error }

func (s stubborn) Name() string { return "Basic" }
func (s stubborn) Start(context.Context, *http.Request) (Session, error) {
	return headerSession{"Authorization", []string{"Basic c3R1YmJvcm4="}}, s.err
}
func (s stubborn) Answer(ctx context.Context, _ *Challenge, refusal *http.Response) (Session, error) {
	return s.Start(ctx, refusal.Request)
}

func TestProxyGetsNothingTwiceThatItHasRefused(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	client := proxyClient(t, via(proxy), stubborn{})
	resp, _ := get(t, client, "http://origin.test/")
	require.ErrorIs(t, Explain(resp), ErrCredentialsRefused)
	require.Equal(t, []string{"407 GET Basic"}, proxy.requests())
	_, err := client.Get("https://origin.test/")
	require.ErrorIs(t, err, ErrCredentialsRefused)
	require.Equal(t, []string{"407 CONNECT Basic"}, proxy.requests())
	var r *Rejection
	require.ErrorAs(t, err, &r)
	require.Equal(t, 407, r.Status)
	require.Equal(t, []string{"Basic"}, r.Tried)
	require.False(t, r.Retried)
	require.Len(t, r.Challenges, 1)
}

func TestProxyCredentialsThatCannotBeObtained(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	errDown := errors.New("the vault is sealed")
	later := &Basic{Credentials: func(context.Context, CredentialsRequest) (string, string, error) { return "", "", errDown }}
	for _, target := range []string{"http://origin.test/", "https://origin.test/"} {
		for _, scheme := range []Scheme{stubborn{errDown}, later} {
			body := &closeCounter{Reader: strings.NewReader("hello")}
			req, err := http.NewRequest("POST", target, body)
			require.NoError(t, err)
			_, err = proxyClient(t, via(proxy), scheme).Do(req)
			require.ErrorIs(t, err, errDown)
			var r *Rejection
			require.ErrorAs(t, err, &r)
			require.Equal(t, ReasonNoCredentials, r.Reason)
			require.Equal(t, proxy.URL, r.Origin)
			requireClosedOnce(t, body)
		}
	}
	for _, line := range proxy.requests() {
		require.Contains(t, line, "-", "no credentials were sent")
	}
}

func TestProxyThatIsStaleForEver(t *testing.T) {
	var log []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, _, _ := strings.Cut(r.Header.Get("Proxy-Authorization"), " ")
		log = append(log, r.Method+" "+scheme)
		w.Header().Set("Proxy-Authenticate", `Digest realm="lab", qop="auth", stale=true, nonce="`+rand.Text()+`"`)
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	defer srv.Close()
	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	client := proxyClient(t, &http.Transport{Proxy: http.ProxyURL(u)}, proxySchemes(goodPassword)...)
	for range 2 {
		get(t, client, "http://origin.test/")
		_, err := client.Get("https://origin.test/")
		require.ErrorIs(t, err, ErrCredentialsRefused)
	}
	require.Equal(t, []string{
		"GET ", "GET Digest", "CONNECT Digest", "CONNECT Digest", // the nonce that was learnt last goes ahead
		"GET Digest", "GET Digest", "CONNECT Digest", "CONNECT Digest",
	}, log)
}

func TestProxyThatCannotProveItself(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Digest"}})
	origin, secure := newTestOrigin(t, httptest.NewServer), newTestOrigin(t, startTLS)
	for _, target := range []string{origin.URL, secure.URL} {
		client := proxyClient(t, via(proxy, secure), &Digest{Username: proxyUser, Password: goodPassword, RequireMutualAuth: true})
		_, err := client.Get(target)
		require.ErrorIs(t, err, ErrMutualAuth)
		require.ErrorContains(t, err, proxy.URL)
		var r *Rejection
		require.ErrorAs(t, err, &r)
		require.Equal(t, ReasonUntrustedServer, r.Reason)
	}
}

// While a CONNECT's challenge is being answered, another request's tunnel becomes free: the answer is not needed now,
// but kept for the next CONNECT.
func TestProxyAnswerThatIsNotNeeded(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Digest"}})
	secure := newTestOrigin(t, startTLS)
	var client *http.Client
	var calls atomic.Int32
	client = proxyClient(t, via(proxy, secure), &Digest{Credentials: func(context.Context, CredentialsRequest) (string, string, error) {
		if calls.Add(1) == 1 {
			get(t, client, secure.URL)
		}
		return proxyUser, goodPassword, nil
	}})
	get(t, client, secure.URL)
	require.Equal(t, []string{"407 CONNECT -", "407 CONNECT -", "200 CONNECT Digest"}, proxy.requests())

	transport := client.Transport.(*ProxyTransport)
	known := transport.auth.spaces.at(spacesKey{"", originOf(proxy.proxyURL())}).spaces
	require.Len(t, known, 1)
	require.Len(t, known[0].idle, 2)
	for range 2 {
		client.CloseIdleConnections()
		get(t, client, secure.URL)
	}
	require.Equal(t, repeated(2, "200 CONNECT Digest"), proxy.requests())

	// Credentials that are refused for good are forgotten, all Sessions of them.
	proxy.setPassword("changed")
	for _, first := range []string{"407 CONNECT Digest", "407 CONNECT -"} {
		client.CloseIdleConnections()
		_, err := client.Get(secure.URL)
		require.ErrorIs(t, err, ErrCredentialsRefused)
		require.Equal(t, []string{first, "407 CONNECT Digest"}, proxy.requests())
	}
}

// A request that finds all Sessions lent goes out bare, and its challenge says nothing against them.
func TestProxySessionsSurviveABareRequest(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Digest"}, noRealm: true})
	client := proxyClient(t, via(proxy), proxySchemes(goodPassword)...)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/outer" { // whose Session is lent until we answer
			resp, err := client.Get("http://" + r.Host + "/inner")
			if assert.NoError(t, err) {
				resp.Body.Close()
			}
		}
	}))
	defer origin.Close()
	get(t, client, origin.URL)
	get(t, client, origin.URL+"/outer")
	require.Equal(t, []string{"407 GET -", "200 GET Digest", "200 GET Digest", "407 GET -", "200 GET Digest"}, proxy.requests())
	get(t, client, origin.URL+"/outer")
	require.Equal(t, []string{"200 GET Digest", "200 GET Digest"}, proxy.requests(), "there are two Sessions now")
}

func TestProxyThatDoesNotLikeExpect(t *testing.T) {
	var log []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, _, _ := strings.Cut(r.Header.Get("Proxy-Authorization"), " ")
		log = append(log, fmt.Sprintf("%s Expect=%s", scheme, r.Header.Get("Expect")))
		switch {
		case r.Header.Get("Expect") != "":
			w.WriteHeader(http.StatusExpectationFailed)
		case scheme == "":
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Proxy-Authenticate", `Basic realm="lab"`)
			w.WriteHeader(http.StatusProxyAuthRequired)
		default:
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
		}
	}))
	defer srv.Close()
	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	client := proxyClient(t, &http.Transport{Proxy: http.ProxyURL(u)}, proxySchemes(goodPassword)...)
	send := func() (*http.Response, string) {
		large := strings.Repeat("x", defaultReplayLimit+1)
		req, err := http.NewRequest("POST", "http://origin.test/", io.MultiReader(strings.NewReader(large)))
		require.NoError(t, err)
		req.ContentLength = int64(len(large))
		resp, err := client.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp, string(body)
	}
	resp, _ := send()
	require.Equal(t, 407, resp.StatusCode)
	require.ErrorContains(t, Explain(resp), "sent twice already")
	resp, body := send()
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, fmt.Sprint(defaultReplayLimit+1), body)
	require.Equal(t, []string{" Expect=100-continue", " Expect=", "Basic Expect="}, log)
}

func TestProxyCredentialsStayBehindOnARedirect(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	direct, secure := newTestOrigin(t, httptest.NewServer), newTestOrigin(t, startTLS)
	for _, target := range []string{direct.URL, secure.URL} {
		origin := httptest.NewServer(http.RedirectHandler(target, http.StatusTemporaryRedirect))
		base := via(proxy, secure)
		base.Proxy = func(req *http.Request) (*url.URL, error) {
			if "http://"+req.URL.Host == origin.URL {
				return proxy.proxyURL(), nil
			}
			return nil, nil
		}
		resp, err := proxyClient(t, base, proxySchemes(goodPassword)...).Post(origin.URL, "text/plain", strings.NewReader("hello"))
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, []string{"407 POST -", "200 POST Basic"}, proxy.requests())
		origin.Close()
	}
}

// An origin's Session learns nothing from a proxy's refusal, which the origin does not know of.
func TestProxyRefusalIsNotTheOrigins(t *testing.T) {
	guard := &authtest.Digest{Username: "Simba", Password: "Hakuna"}
	origin := authtest.NewServer(guard)
	defer origin.Close()
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	client := &http.Client{Transport: &Transport{
		Base:    NewProxyTransport(via(proxy), &Basic{Username: proxyUser, Password: goodPassword}),
		Schemes: []Scheme{&Digest{Username: "Simba", Password: "Hakuna"}},
	}}
	defer client.CloseIdleConnections()
	resp, _ := get(t, client, origin.URL)
	require.Equal(t, 200, resp.StatusCode)

	proxy.setPassword("changed")
	resp, _ = get(t, client, origin.URL)
	require.Equal(t, 407, resp.StatusCode)
	require.ErrorIs(t, Explain(resp), ErrCredentialsRefused)
}

// Where the server has to prove that it knows the password, a 407 does not do instead, whoever says that it is a proxy.
func TestRequireMutualAuthTakesNoProxysWord(t *testing.T) {
	for _, n := range []int{1, 2} { // the second goes ahead
		transport := &Transport{Schemes: []Scheme{&Digest{Username: "u", Password: "p", RequireMutualAuth: true}},
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				resp := &http.Response{StatusCode: 407, Request: req, Header: http.Header{"Proxy-Authenticate": {"Basic"}}, Body: http.NoBody}
				if req.Header.Get("Authorization") == "" {
					resp.StatusCode, resp.Header = 401, http.Header{"Www-Authenticate": {`Digest realm="x", nonce="n", qop="auth"`}}
				}
				return resp, nil
			})}
		for range n {
			_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil))
			require.ErrorIs(t, err, ErrMutualAuth, n)
		}
	}
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	origin := authtest.NewServer(&authtest.Digest{Username: "Simba", Password: "Hakuna"})
	defer origin.Close()
	client := &http.Client{Transport: &Transport{
		Base:    NewProxyTransport(via(proxy), &Basic{Username: proxyUser, Password: goodPassword}),
		Schemes: []Scheme{&Digest{Username: "Simba", Password: "Hakuna", RequireMutualAuth: true}},
	}}
	defer client.CloseIdleConnections()
	resp, _ := get(t, client, origin.URL)
	require.Equal(t, 200, resp.StatusCode)
	proxy.setPassword("changed")
	_, err := client.Get(origin.URL)
	require.ErrorIs(t, err, ErrMutualAuth)
	require.ErrorContains(t, err, "answered 407: a proxy asks for Basic")
}

// An explanation belongs to one response, not to the requests that are made from it.
func TestProxyExplanationIsNotInherited(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer origin.Close()
	resp, _ := get(t, proxyClient(t, via(proxy), &Basic{Username: proxyUser, Password: "wrong"}), origin.URL)
	require.ErrorContains(t, Explain(resp), "a proxy asks")
	client := &http.Client{Transport: New(&Basic{Username: "Simba", Password: "wrong"})}
	defer client.CloseIdleConnections()
	resp, err := client.Do(resp.Request)
	require.NoError(t, err)
	resp.Body.Close()
	var r *Rejection
	require.ErrorAs(t, Explain(resp), &r)
	require.Equal(t, 401, r.Status)
	require.Equal(t, ReasonCredentialsRefused, r.Reason)
}

// A hook that does not like a proxy's answer has the last word, though that lets the request through.
func TestProxyHookThatRefusesATunnel(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	secure := newTestOrigin(t, startTLS)
	base := via(proxy, secure)
	errHook := errors.New("not by this proxy")
	base.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
		if resp.StatusCode == 200 {
			return errHook
		}
		return nil
	}
	_, err := proxyClient(t, base, proxySchemes(goodPassword)...).Get(secure.URL)
	require.ErrorIs(t, err, errHook)
	require.Equal(t, []string{"407 CONNECT -", "200 CONNECT Basic"}, proxy.requests(), "the origin has got nothing")
}

func TestProxyEventsOfARefusedTunnel(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	transport := NewProxyTransport(via(proxy), proxySchemes("wrong")...)
	var mu sync.Mutex
	var refused, done []Event
	transport.OnEvent = func(_ context.Context, e Event) {
		mu.Lock()
		defer mu.Unlock()
		switch e.Kind {
		case EventRefused:
			refused = append(refused, e)
		case EventDone:
			done = append(done, e)
		}
	}
	_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://origin.test/", nil))
	require.Error(t, err)
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, refused, 1)
	require.Equal(t, Event{Kind: EventRefused, Origin: proxy.URL, Attempt: 2, Status: 407, Reason: ReasonProxyAuthentication}, refused[0])
	require.Len(t, done, 1)
	require.Equal(t, ReasonProxyAuthentication, done[0].Reason)
	require.Equal(t, err, done[0].Err)
}

// A Carrier that is started ahead of a CONNECT has no connection to authenticate.
func TestProxyCarrierOfATunnelIsAnError(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	scheme := &puppet{name: "Handshake", start: func(context.Context, *http.Request) (Session, error) {
		return &handshaken{h: &handshake{}}, nil
	}}
	transport := NewProxyTransport(via(proxy), scheme)
	transport.AllowPlaintext = true
	_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://origin.test/", nil))
	require.ErrorContains(t, err, "Handshake authenticates connections, and got none")
	require.Empty(t, proxy.requests())
}

// A connection of its own goes by a tunnel of its own, with the proxy's credentials.
func TestProxyConnectionOfItsOwn(t *testing.T) {
	for _, scheme := range []string{"Basic", "Digest"} {
		proxy := newTestProxy(t, &testProxy{schemes: []string{scheme}})
		secure := newTestOrigin(t, startTLS)
		transport := NewProxyTransport(via(proxy, secure), proxySchemes(goodPassword)...)
		for range 2 {
			conn, err := transport.NewClientConn(t.Context(), "https", secure.Listener.Addr().String())
			require.NoError(t, err)
			for range 2 {
				resp, err := conn.RoundTrip(httptest.NewRequest("GET", secure.URL, nil))
				require.NoError(t, err)
				body, err := io.ReadAll(resp.Body)
				require.NoError(t, err)
				require.Equal(t, "HTTP/1.1 GET 0", string(body))
			}
			require.NoError(t, conn.Close())
		}
		require.Equal(t, []string{"407 CONNECT -", "200 CONNECT " + scheme, "200 CONNECT " + scheme}, proxy.requests())

		proxy.setPassword("another")
		_, err := transport.NewClientConn(t.Context(), "https", secure.Listener.Addr().String())
		var r *Rejection
		require.ErrorAs(t, err, &r)
		require.Equal(t, ReasonProxyAuthentication, r.Reason)
		require.Equal(t, 407, r.Status)
	}

	// What has no tunnel, and what needs none.
	plain, secure := newTestOrigin(t, httptest.NewServer), newTestOrigin(t, startTLS)
	transport := NewProxyTransport(via(newTestProxy(t, &testProxy{schemes: []string{"Basic"}}), secure), proxySchemes(goodPassword)...)
	_, err := transport.NewClientConn(t.Context(), "http", plain.Listener.Addr().String())
	require.ErrorContains(t, err, "for https URLs only")
	_, err = transport.NewClientConn(t.Context(), "https", "an address\n")
	require.Error(t, err)
	transport = NewProxyTransport(via(newTestProxy(t, &testProxy{}), secure), proxySchemes(goodPassword)...)
	transport.Base.Proxy = nil
	conn, err := transport.NewClientConn(t.Context(), "https", secure.Listener.Addr().String())
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	_, err = (&ProxyTransport{}).NewClientConn(t.Context(), "https", secure.Listener.Addr().String())
	require.ErrorContains(t, err, "ProxyTransport.Schemes is empty")
}

func TestProxyRequestThatCannotBeSent(t *testing.T) {
	transport := NewProxyTransport(nil, proxySchemes(goodPassword)...)
	defer transport.CloseIdleConnections()
	_, err := transport.RoundTrip(&http.Request{Method: "GET", Header: http.Header{}})
	require.ErrorContains(t, err, "nil Request.URL", "as net/http says it")
	_, err = transport.RoundTrip(&http.Request{Method: "GET", URL: &url.URL{Scheme: "http", Host: "origin.test"}})
	require.ErrorContains(t, err, "nil Request.Header")
	require.NotNil(t, transport.proxy, "that of http.DefaultTransport")

	lost := errors.New("no proxy today")
	failing := NewProxyTransport(&http.Transport{Proxy: func(*http.Request) (*url.URL, error) { return nil, lost }}, proxySchemes(goodPassword)...)
	body := &closeCounter{Reader: strings.NewReader("")}
	_, err = failing.RoundTrip(httptest.NewRequest("PUT", "http://origin.test/", body))
	require.ErrorIs(t, err, lost)
	require.EqualValues(t, 1, body.closed.Load())
}

func TestProxyTransportWithoutAnHTTPTransport(t *testing.T) { // not parallel: it replaces http.DefaultTransport
	usual := http.DefaultTransport
	defer func() { http.DefaultTransport = usual }()
	http.DefaultTransport = answering("Basic")
	_, err := NewProxyTransport(nil, proxySchemes(goodPassword)...).RoundTrip(httptest.NewRequest("GET", "http://origin.test/", nil))
	require.ErrorContains(t, err, "set ProxyTransport.Base")
	require.NotContains(t, err.Error(), "panicked")
}

// What an origin refuses is not for a ProxyTransport to explain.
func TestProxyDoesNotExplainAnOriginsRefusal(t *testing.T) {
	origin := authtest.NewServer(&authtest.Basic{Username: "u", Password: "p"})
	defer origin.Close()
	client := proxyClient(t, via(newTestProxy(t, &testProxy{})), proxySchemes(goodPassword)...)
	resp, _ := get(t, client, origin.URL)
	require.Equal(t, 401, resp.StatusCode)
	require.NotErrorIs(t, Explain(resp), errOriginRefuses)
}

// A body that waits for a tunnel which the proxy refuses is closed, also if it could have been sent.
func TestProxyThatRefusesATunnelGetsNoBody(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	for name, schemes := range map[string][]Scheme{
		"wrong":       proxySchemes("wrong"),
		"unsupported": {&Bearer{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "t"})}},
	} {
		transport := NewProxyTransport(via(proxy), schemes...)
		transport.AllowPlaintext = true
		body := &closeCounter{Reader: strings.NewReader("body")}
		_, err := transport.RoundTrip(httptest.NewRequest("PUT", "https://origin.test/", body))
		require.Error(t, err, name)
		requireClosedOnce(t, body)
		transport.CloseIdleConnections()
	}
}

// A CONNECT is not among the requests that wait where a server keeps few nonces.
func TestProxyTunnelsAreNoCrowd(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Digest"}})
	origin := newTestOrigin(t, startTLS)
	transport := NewProxyTransport(via(proxy, origin), proxySchemes(goodPassword)...)
	for range 3 {
		resp, err := transport.RoundTrip(httptest.NewRequest("GET", origin.URL, nil))
		require.NoError(t, err)
		resp.Body.Close()
		transport.CloseIdleConnections()
		require.Len(t, transport.auth.spaces.known, 1)
		for _, known := range transport.auth.spaces.known {
			known.mu.Lock()
			require.Zero(t, known.here)
			known.counts = true // as it is after requests over plain http, which do count
			known.mu.Unlock()
		}
	}
}

// A connection that nobody gets, as a callback has ended the goroutine that asked for it, is closed.
func TestProxyConnectionThatNobodyGets(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	closed := make(chan struct{}, 1)
	secure.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	secure.StartTLS()
	t.Cleanup(secure.Close)
	base := secure.Client().Transport.(*http.Transport).Clone()
	base.Proxy = nil
	transport := NewProxyTransport(base, proxySchemes(goodPassword)...)
	transport.OnEvent = func(_ context.Context, e Event) {
		if e.Kind == EventDone {
			runtime.Goexit()
		}
	}
	go transport.NewClientConn(t.Context(), "https", secure.Listener.Addr().String())
	select {
	case <-closed:
	case <-time.After(time.Minute):
		t.Fatal("it is still open")
	}
}

// What a ProxyTransport sends has the values of the caller's context, whatever its Schemes: traces are among them.
func TestProxyTransportKeepsTheCallersValues(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	for _, s := range []Scheme{&Basic{Username: "u"}, &Bearer{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "x"})}, startingScheme{}} {
		transport := NewProxyTransport(&http.Transport{Proxy: http.ProxyURL(u)}, s)
		var got atomic.Bool
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { got.Store(true) }})
		req, err := http.NewRequestWithContext(ctx, "GET", "http://api.test/", nil)
		require.NoError(t, err)
		resp, err := transport.RoundTrip(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.True(t, got.Load(), "%T", s)
		transport.CloseIdleConnections()
	}
}
