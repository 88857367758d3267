package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/dnstest"
	"github.com/authretry/authretry/registry"
	"github.com/stretchr/testify/require"
)

// An outsideConn is a connection that says it is one to another address.
type outsideConn struct {
	net.Conn
	remote net.Addr
}

func (c outsideConn) RemoteAddr() net.Addr { return c.remote }

// outside returns a Base whose connections all lead to a server, and say that they lead to an address, by the port of the URL.
func outside(t *testing.T, srv *httptest.Server, addr string) *http.Transport {
	remote, err := net.ResolveTCPAddr("tcp", addr)
	require.NoError(t, err)
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(address)
		require.NoError(t, err)
		at := *remote
		at.Port, err = strconv.Atoi(port)
		require.NoError(t, err)
		conn, err := new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
		return outsideConn{conn, &at}, err
	}
	base := &http.Transport{DialContext: dial, DialTLSContext: dial}
	t.Cleanup(base.CloseIdleConnections)
	return base
}

// A naming registry names a token server, and wants any token.
type naming struct {
	mu     sync.Mutex
	realm  string // guarded by mu
	scope  string
	passes string // the token that is good; any if empty
}

func (n *naming) set(realm string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.realm = realm
}

func (n *naming) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	token, sent := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if sent && (n.passes == "" || token == n.passes) {
		return
	}
	scope := n.scope
	if scope == "" {
		scope = "repository:a:pull"
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="`+n.realm+`",service="s",scope="`+scope+`"`)
	w.WriteHeader(http.StatusUnauthorized)
}

// A listening sentinel counts the connections that are made to it.
type sentinel struct {
	port        string
	connections atomic.Int32
}

func newSentinel(t *testing.T) *sentinel {
	s := &sentinel{}
	l, err := net.Listen("tcp", ":0") // by IPv4 and IPv6, whatever the address
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	_, s.port, err = net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.connections.Add(1)
			conn.Close()
		}
	}()
	return s
}

// always returns a func that has credentials for every registry, so that there is something to steal.
func always(t *testing.T) authretry.CredentialsFunc {
	return func(context.Context, authretry.CredentialsRequest) (string, string, error) {
		return user, password, nil
	}
}

func noProxy(*http.Request) (*url.URL, error) { return nil, nil }

// Token servers that a registry outside must not have us ask, by https and by http. The sentinel is at PORT of this machine. It
// sees no connection, and each refusal says why.
func TestRealmsThatAreNotAsked(t *testing.T) {
	const (
		inside   = "only those inside can reach"
		noHost   = "it has no host"
		unlisted = "not in Scheme.Realms"
	)
	guard := newSentinel(t)
	resolver, set := dnstest.Resolver(t, map[string][]string{
		"inside.example.com.": {"127.0.0.1"}, "private.example.com.": {"10.1.2.3"}, "metadata.example.com.": {"169.254.169.254"},
		"both.example.com.": {"127.0.0.1", "10.0.0.1"}, "changing.example.com.": {"8.8.8.8"}, "registry.example.com.": {"127.0.0.1"},
	})
	set("changing.example.com.", "127.0.0.1") // since somebody else looked
	table := []struct{ realm, why string }{
		{"SCHEME://127.0.0.1:PORT/token", inside},
		{"SCHEME://127.8.9.10:PORT/token", inside},
		{"SCHEME://localhost:PORT/token", inside},
		{"SCHEME://LocalHost:PORT/token", inside},
		{"SCHEME://[::1]:PORT/token", inside},
		{"SCHEME://[::ffff:127.0.0.1]:PORT/token", inside},
		{"SCHEME://[::ffff:7f00:1]:PORT/token", inside},
		{"SCHEME://0.0.0.0:PORT/token", inside},
		{"SCHEME://[::]:PORT/token", inside},
		{"SCHEME://[64:ff9b::127.0.0.1]:PORT/token", inside},
		{"SCHEME://[64:ff9b:1::7f00:1]:PORT/token", inside},
		{"SCHEME://[2002:7f00:1::]:PORT/token", inside},
		{"SCHEME://[2001:0:7f00:1::1]:PORT/token", inside},
		{"SCHEME://10.0.0.1:PORT/token", inside},
		{"SCHEME://172.16.0.1:PORT/token", inside},
		{"SCHEME://192.168.1.1:PORT/token", inside},
		{"SCHEME://100.64.0.1:PORT/token", inside},
		{"SCHEME://[fd00::1]:PORT/token", inside},
		{"SCHEME://169.254.169.254/latest/meta-data/", inside},
		{"SCHEME://[fd00:ec2::254]/latest/meta-data/", inside},
		{"SCHEME://100.100.100.200/latest/meta-data/", inside},
		{"SCHEME://168.63.129.16/metadata", inside},
		{"SCHEME://[fe80::1%25lo]:PORT/token", inside},
		{"SCHEME://224.0.0.1:PORT/token", inside},
		{"SCHEME://255.255.255.255:PORT/token", inside},
		{"SCHEME://inside.example.com:PORT/token", inside},
		{"SCHEME://private.example.com:PORT/token", inside},
		{"SCHEME://metadata.example.com:PORT/token", inside},
		{"SCHEME://both.example.com:PORT/token", inside},
		{"SCHEME://changing.example.com:PORT/token", inside},
		{"SCHEME://registry.example.com:PORT/v2/", inside}, // by its own name, which now leads elsewhere
		{"/token", inside},
		{"token", inside},
		{"SCHEME://user:pw@127.0.0.1:PORT/token", "user name in it"},
		{"SCHEME://auth.example.com:PORT/token#x", "fragment"},
		{"SCHEME:///token", noHost},
		{"SCHEME://:PORT/token", noHost},
		{"SCHEME:127.0.0.1", noHost},
		{"javascript:alert(1)", noHost},
		{"file:///etc/passwd", noHost},
		{"ftp://127.0.0.1:PORT/token", "neither https nor http"},
		{"gopher://127.0.0.1:PORT/token", "neither https nor http"},
		{"SCHEME://127.0.0.1:PORT:99/token", "not a URL"},
		{"SCHEME://127.0.0.1:PORT/%zz", "not a URL"},
		{"SCHEME://127.0.0.1:PORT/" + strings.Repeat("a", 8<<10), "too long"},
	}
	require.Greater(t, len(table), 30)
	for _, scheme := range []string{"https", "http"} {
		for _, c := range table {
			realm := strings.NewReplacer("SCHEME", scheme, "PORT", guard.port).Replace(c.realm)
			t.Run(realm[:min(len(realm), 60)], func(t *testing.T) {
				registryServer := &naming{realm: realm}
				srv := httptest.NewServer(registryServer)
				defer srv.Close()
				s := &registry.Scheme{Credentials: always(t)}
				s.SetResolver(resolver)
				s.SetProxy(noProxy)
				client := &http.Client{Transport: &authretry.Transport{Schemes: []authretry.Scheme{s}, AllowPlaintext: true, Base: outside(t, srv, "8.8.4.4:443")}}
				resp, err := client.Get(scheme + "://registry.example.com:" + guard.port + "/v2/a/manifests/latest")
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Equal(t, 401, resp.StatusCode)
				var why *authretry.Rejection
				require.ErrorAs(t, authretry.Explain(resp), &why)
				require.Equal(t, authretry.ReasonUntrustedRealm, why.Reason)
				require.ErrorContains(t, why, c.why)
				require.NotContains(t, why.Error(), password)
			})
		}
	}
	require.Zero(t, guard.connections.Load())
}

// Http is not for registries on https, nor for other machines than this if the registry is here.
func TestRealmsOnPlainHTTP(t *testing.T) {
	for home, realm := range map[string]string{"https://registry.example.com": "http://auth.example.com/token", "http://127.0.0.1": "http://auth.example.com/token"} {
		registryServer := &naming{realm: realm}
		srv := httptest.NewServer(registryServer)
		defer srv.Close()
		s := &registry.Scheme{Credentials: always(t)}
		s.SetProxy(noProxy)
		client := &http.Client{Transport: &authretry.Transport{Schemes: []authretry.Scheme{s}, Base: outside(t, srv, "127.0.0.1:80")}}
		resp, err := client.Get(home + "/v2/a/manifests/latest")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		var why *authretry.Rejection
		require.ErrorAs(t, authretry.Explain(resp), &why)
		require.Equal(t, authretry.ReasonUntrustedRealm, why.Reason, "%v", why)
	}
}

// A tokenServer answers with a token for the user, or for anybody, and counts who asks with credentials and who without.
type tokenServer struct {
	*httptest.Server
	asked, credentials atomic.Int32
}

func newTokenServer(t *testing.T) *tokenServer {
	s := &tokenServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		if _, p, ok := r.BasicAuth(); ok && p == password {
			s.credentials.Add(1)
			fmt.Fprint(w, `{"token":"users"}`)
			return
		}
		fmt.Fprint(w, `{"token":"anybodys"}`)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *tokenServer) counts() [2]int32 { return [2]int32{s.asked.Load(), s.credentials.Load()} }

// The names that lead inside are asked where the registry is inside as well, or where the user says so.
func TestRealmsInside(t *testing.T) {
	resolver, _ := dnstest.Resolver(t, map[string][]string{"auth.example.com.": {"127.0.0.1"}})
	for name, c := range map[string]struct {
		home   string
		listed bool
		want   int32
	}{
		"registry outside":         {"8.8.4.4:80", false, 0},
		"registry outside, listed": {"8.8.4.4:80", true, 1},
		"registry private":         {"10.0.0.1:80", false, 0},
		"registry here":            {"127.0.0.1:80", false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			tokens := newTokenServer(t)
			_, port, _ := net.SplitHostPort(tokens.Listener.Addr().String())
			realm := "http://auth.example.com:" + port
			srv := httptest.NewServer(&naming{realm: realm + "/token"})
			defer srv.Close()
			s := &registry.Scheme{Credentials: always(t)}
			if c.listed {
				s.Realms = map[string][]string{"http://registry.example.com": {realm}}
			}
			s.SetResolver(resolver)
			s.SetProxy(noProxy)
			client := &http.Client{Transport: &authretry.Transport{Schemes: []authretry.Scheme{s}, AllowPlaintext: true, Base: outside(t, srv, c.home)}}
			resp, err := client.Get("http://registry.example.com/v2/a/manifests/latest")
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, c.want, tokens.asked.Load())
		})
	}
}

// A registry that was at an address inside, and is outside when it names its token server, counts as outside.
func TestRegistryThatChangesItsAddress(t *testing.T) {
	guard := newSentinel(t)
	registryServer := &naming{realm: "http://127.0.0.1:" + guard.port + "/token"}
	srv := httptest.NewServer(registryServer)
	defer srv.Close()
	inside := httptest.NewServer(http.NotFoundHandler())
	defer inside.Close()
	s := &registry.Scheme{}
	s.SetProxy(noProxy)
	var base atomic.Pointer[http.Transport]
	client := &http.Client{Transport: &authretry.Transport{Schemes: []authretry.Scheme{s}, AllowPlaintext: true,
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) { return base.Load().RoundTrip(req) })}}
	for i, b := range []*http.Transport{outside(t, inside, "127.0.0.1:80"), outside(t, srv, "8.8.8.8:80")} {
		base.Store(b)
		resp, err := client.Get("http://registry.example.com/v2/a/manifests/latest")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, []int{404, 401}[i], resp.StatusCode)
	}
	require.Zero(t, guard.connections.Load())
}

// A registry that is asked by a dialer of the program's own, as by one for SOCKS, is not on this machine because the proxy is.
func TestRegistryByADialer(t *testing.T) {
	guard := newSentinel(t)
	n := &naming{}
	srv := httptest.NewTLSServer(n)
	defer srv.Close()
	base := srv.Client().Transport.(*http.Transport).Clone() // which dials the server for example.com
	defer base.CloseIdleConnections()
	base.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
	}
	client := &http.Client{Transport: &authretry.Transport{Schemes: []authretry.Scheme{&registry.Scheme{Credentials: always(t)}}, Base: base}}
	for _, realm := range []string{"https://127.0.0.1:" + guard.port + "/token", "https://localhost:" + guard.port + "/token", "https://10.0.0.1/token"} {
		n.set(realm)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", "https://example.com/v2/a/manifests/latest", nil)
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 401, resp.StatusCode)
		r, ok := errors.AsType[*authretry.Rejection](authretry.Explain(resp))
		require.True(t, ok)
		require.Equal(t, authretry.ReasonUntrustedRealm, r.Reason)
	}
	require.Zero(t, guard.connections.Load())
}

// A token server is not asked because another one redirects there.
func TestRedirectOfATokenServer(t *testing.T) {
	guard := newSentinel(t)
	for _, post := range []bool{false, true} {
		redirecting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:"+guard.port+"/token", http.StatusTemporaryRedirect)
		}))
		defer redirecting.Close()
		srv := httptest.NewServer(&naming{realm: redirecting.URL})
		defer srv.Close()
		for _, own := range []*http.Client{nil, http.DefaultClient} {
			client := &http.Client{Transport: authretry.New(&registry.Scheme{Credentials: always(t), PostPassword: post, HTTPClient: own})}
			_, err := client.Get(srv.URL + "/v2/a/manifests/latest")
			require.ErrorContains(t, err, "answered 307, and redirects are not followed")
			require.NotContains(t, err.Error(), password)
		}
	}
	require.Zero(t, guard.connections.Load())
}

// A token server that is the registry's own /v2/ costs one token request, and no more.
func TestRealmThatIsTheRegistryItself(t *testing.T) {
	var requests atomic.Int32
	n := &naming{passes: "never"}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		n.ServeHTTP(w, r)
	}))
	defer srv.Close()
	n.set(srv.URL + "/v2/")
	client := &http.Client{Transport: authretry.New(&registry.Scheme{Credentials: always(t)})}
	_, err := client.Get(srv.URL + "/v2/")
	require.ErrorContains(t, err, "refuses the user name or the password")
	require.EqualValues(t, 2, requests.Load())
}

// A registry that names another token server than before does not get it the credentials.
func TestRealmThatChanges(t *testing.T) {
	first, second := newTokenServer(t), newTokenServer(t)
	n := &naming{realm: first.URL}
	srv := httptest.NewServer(n)
	defer srv.Close()
	var events []authretry.Event
	transport := authretry.New(&registry.Scheme{Credentials: login(srv.URL)})
	transport.OnEvent = func(_ context.Context, e authretry.Event) { events = append(events, e) }
	client := &http.Client{Transport: transport}
	get := func(repository string) *http.Response {
		resp, err := client.Get(srv.URL + "/v2/" + repository + "/manifests/latest")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp
	}
	require.Equal(t, 200, get("a").StatusCode)
	n.set(second.URL)
	events = nil
	resp := get("b")
	require.Equal(t, 401, resp.StatusCode)
	var why *authretry.Rejection
	require.ErrorAs(t, authretry.Explain(resp), &why)
	require.Equal(t, authretry.ReasonUntrustedRealm, why.Reason)
	require.ErrorContains(t, why, "name both in Scheme.Realms")
	var reasons []authretry.Reason
	for _, e := range events {
		if e.Kind == authretry.EventRefused {
			reasons = append(reasons, e.Reason)
		}
	}
	require.Equal(t, []authretry.Reason{authretry.ReasonUntrustedRealm}, reasons)
	require.Equal(t, [2]int32{1, 1}, first.counts())
	require.Equal(t, [2]int32{0, 0}, second.counts())
	n.set(first.URL)
	require.Equal(t, 200, get("b").StatusCode)

	// Both are fine if the user has named both; and none is that is not named.
	third := newTokenServer(t)
	client.Transport = authretry.New(&registry.Scheme{Credentials: login(srv.URL), Realms: map[string][]string{srv.URL: {first.URL, second.URL + "/"}}})
	for i, realm := range []string{first.URL, second.URL, third.URL} {
		n.set(realm)
		require.Equal(t, []int{200, 200, 401}[i], get(fmt.Sprint("c", i)).StatusCode)
	}
	require.Equal(t, [2]int32{0, 0}, third.counts())

	// Without credentials there is nothing to keep.
	client.Transport = authretry.New(&registry.Scheme{})
	for i, realm := range []string{first.URL, third.URL} {
		n.set(realm)
		require.Equal(t, 200, get(fmt.Sprint("d", i)).StatusCode)
	}
	require.Equal(t, [2]int32{1, 0}, third.counts())
}

// A token server that was not asked, because it is where nobody may have us ask, has got no credentials. The next one may.
func TestRealmThatWasNotAsked(t *testing.T) {
	good, other := newTokenServer(t), newTokenServer(t)
	n := &naming{}
	srv := httptest.NewServer(n)
	defer srv.Close()
	client := &http.Client{Transport: authretry.New(&registry.Scheme{Credentials: login(srv.URL)})}
	for i, realm := range []string{"https://169.254.169.254/token", good.URL, other.URL, "https://169.254.169.254/token", other.URL} {
		n.set(realm)
		resp, err := client.Get(fmt.Sprint(srv.URL, "/v2/r", i, "/manifests/latest"))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, []int{401, 200, 401, 401, 401}[i], resp.StatusCode)
	}
	require.Equal(t, [2]int32{1, 1}, good.counts())
	require.Equal(t, [2]int32{0, 0}, other.counts())
}

// Nor has one to which there was no connection, or whose certificate is not trusted. One that has hung up may have got them.
func TestRealmThatCannotBeReached(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	stranger := httptest.NewUnstartedServer(http.NotFoundHandler())
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0) // which would have its handshakes
	stranger.StartTLS()
	defer stranger.Close()
	hangingUp := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer hangingUp.Close()
	for name, c := range map[string]struct {
		realm string
		then  int // the status for the next token server
	}{
		"no connection":       {gone.URL, 200},
		"another certificate": {stranger.URL, 200},
		"hanging up":          {hangingUp.URL, 401},
	} {
		for kind, scheme := range map[string]*registry.Scheme{
			"":                 {},
			" by POST":         {PostPassword: true},
			" by a client":     {HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}},
			" by who says not": {HTTPClient: &http.Client{Transport: untraced{&http.Transport{DisableKeepAlives: true}}}},
		} {
			t.Run(name+kind, func(t *testing.T) {
				good := newTokenServer(t)
				n := &naming{realm: c.realm}
				srv := httptest.NewServer(n)
				defer srv.Close()
				scheme.Credentials = login(srv.URL)
				client := &http.Client{Transport: authretry.New(scheme)}
				_, err := client.Get(srv.URL + "/v2/a/manifests/latest")
				require.Error(t, err)
				n.set(good.URL)
				resp, err := client.Get(srv.URL + "/v2/b/manifests/latest")
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				then := c.then
				if kind == " by who says not" {
					then = 401 // it may have sent them
				}
				require.Equal(t, then, resp.StatusCode)
			})
		}
	}
}

// An untraced RoundTripper says nothing of its connections.
type untraced struct{ http.RoundTripper }

func (u untraced) RoundTrip(req *http.Request) (*http.Response, error) {
	return u.RoundTripper.RoundTrip(req.WithContext(context.WithoutCancel(noValues{req.Context()})))
}

type noValues struct{ context.Context }

func (noValues) Value(any) any { return nil }

// A blob elsewhere, to which the registry redirects, gets neither token nor credentials, whatever it asks for.
func TestBlobElsewhere(t *testing.T) {
	stolen := newTokenServer(t)
	var headers []string
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers = append(headers, r.Header.Get("Authorization"))
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+stolen.URL+`",service="s"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer storage.Close()
	tokens := newTokenServer(t)
	n := &naming{realm: tokens.URL}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			n.ServeHTTP(w, r)
			return
		}
		http.Redirect(w, r, storage.URL+"/v2/a/blobs/sha256:0", http.StatusTemporaryRedirect)
	}))
	defer srv.Close()
	client := &http.Client{Transport: authretry.New(&registry.Scheme{Credentials: always(t)})}
	for range 2 {
		resp, err := client.Get(srv.URL + "/v2/a/blobs/sha256:0")
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 401, resp.StatusCode)
	}
	require.Equal(t, []string{"", ""}, headers)
	require.Equal(t, [2]int32{0, 0}, stolen.counts())
}

// Where a proxy stands between, the names are judged here, and the registry counts as outside.
func TestByAProxy(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.URL.Host)
		fmt.Fprint(w, `{"token":"t"}`)
	}))
	defer proxy.Close()
	to, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	resolver, _ := dnstest.Resolver(t, map[string][]string{"inside.example.com.": {"10.0.0.1"}, "outside.example.com.": {"8.8.8.8"}})
	for realm, want := range map[string]int{
		"http://inside.example.com/token": 401, "http://10.0.0.1/token": 401, "http://127.0.0.1/token": 401, "http://localhost/token": 401,
		"http://outside.example.com/token": 200, "http://registry.example.com/token": 200, "/token": 200,
	} {
		n := &naming{realm: realm}
		s := &registry.Scheme{}
		s.SetResolver(resolver)
		s.SetProxy(http.ProxyURL(to))
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) { // which says nothing of an address
			w := httptest.NewRecorder()
			n.ServeHTTP(w, req)
			return w.Result(), nil
		})
		client := &http.Client{Transport: &authretry.Transport{Schemes: []authretry.Scheme{s}, AllowPlaintext: true, Base: base}}
		resp, err := client.Get("http://registry.example.com/v2/a/manifests/latest")
		require.NoError(t, err)
		require.Equal(t, want, resp.StatusCode, realm)
	}
	require.ElementsMatch(t, []string{"outside.example.com", "registry.example.com", "registry.example.com"}, asked)
}

func TestRealmsThatAreNone(t *testing.T) {
	for _, list := range []map[string][]string{
		{"registry.example.com": nil}, {"https://registry.example.com": {"auth.example.com"}}, {"https://u:secret@registry.example.com": nil},
		{"https://registry.example.com/v2/": nil}, {"https://registry.example.com": {"https://auth.example.com/token"}}, {"ftp://a": nil}, {"https://a\x00": nil},
	} {
		client := &http.Client{Transport: authretry.New(&registry.Scheme{Realms: list})}
		_, err := client.Get("https://registry.example.com/v2/")
		require.ErrorContains(t, err, "Scheme.Realms has an element that is no origin")
		require.NotContains(t, err.Error(), "secret")
	}
}

// A challenge that is not of a registry's kind is for others to answer.
func TestOtherChallenges(t *testing.T) {
	for name, header := range map[string]string{
		"no realm":          `Bearer error="invalid_token"`,
		"10,000 scopes":     `Bearer realm="/token",service="s",scope="` + strings.Repeat("repository:a:pull ", 10_000) + `"`,
		"500 scopes":        `Bearer realm="/token",service="s",scope="` + strings.Repeat("repository:a:pull ", 500) + `"`,
		"many repositories": `Bearer realm="/token",service="s",scope="` + manyScopes(65) + `"`,
		"a bad scope":       "Bearer realm=\"/token\",service=\"s\",scope=\"repository:\x80:pull\"",
		"a long service":    `Bearer realm="/token",service="` + strings.Repeat("s", 1025) + `"`,
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/token" {
					asked.Add(1)
				}
				if _, p, _ := r.BasicAuth(); p == password {
					return
				}
				w.Header()["Www-Authenticate"] = []string{header, `Basic realm="r"`}
				w.WriteHeader(http.StatusUnauthorized)
			}))
			defer srv.Close()
			client := &http.Client{Transport: authretry.New(&registry.Scheme{}, &authretry.Basic{Username: user, Password: password})}
			resp, err := client.Get(srv.URL + "/v2/")
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			if len(header) < 64<<10 { // of longer headers the rest is not read
				require.Equal(t, 200, resp.StatusCode)
			}
			require.Zero(t, asked.Load())
		})
	}
}

func manyScopes(n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, "repository:a%d:pull ", i)
	}
	return s.String()
}

// What a registry puts into a scope stays there.
func TestScopeThatWouldBeMore(t *testing.T) {
	var got url.Values
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.URL.Query()
		fmt.Fprint(w, `{"token":"t"}`)
	}))
	defer tokens.Close()
	srv := httptest.NewServer(&naming{realm: tokens.URL + "/token?tenant=1&service=other", scope: "repository:a&service=evil&account=root:pull repository:host:5000/b:push,pull"})
	defer srv.Close()
	client := &http.Client{Transport: authretry.New(&registry.Scheme{})}
	resp, err := client.Get(srv.URL + "/v2/a/manifests/latest")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, url.Values{"tenant": {"1"}, "service": {"s"}, "scope": {"repository:a&service=evil&account=root:pull", "repository:host:5000/b:pull,push"}}, got)
}
