package discover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/dnstest"
	"github.com/authretry/authretry/internal/guarded"
	"github.com/authretry/authretry/login"
)

// hostile are URLs that no server may have us ask, nor a browser open. SENTINEL is the port of the sentinel.
var hostile = strings.Fields(`
	https://127.0.0.1:SENTINEL/x https://127.0.0.2:SENTINEL/x https://[::1]:SENTINEL/x https://[::ffff:127.0.0.1]:SENTINEL/x
	https://[::ffff:7f00:1]:SENTINEL/x https://localhost:SENTINEL/x https://LOCALHOST:SENTINEL/x https://0.0.0.0:SENTINEL/x https://[::]:SENTINEL/x
	https://[64:ff9b::7f00:1]:SENTINEL/x https://[2002:7f00:1::]:SENTINEL/x https://[::7f00:1]:SENTINEL/x
	https://inside.test:SENTINEL/x https://both.test:SENTINEL/x https://metadata.test:SENTINEL/x
	https://169.254.169.254/latest/meta-data https://[fd00:ec2::254]/ https://100.100.100.200/ https://168.63.129.16/ https://[fe80::1]/
	https://10.0.0.1/ https://192.168.0.1/ https://172.16.0.1/ https://100.64.0.1/ https://[fd12::1]/ https://224.0.0.1/ https://255.255.255.255/
	http://127.0.0.1:SENTINEL/x http://localhost:SENTINEL/x http://outside.test/x http://inside.test:SENTINEL/x
	https://user@outside.test/x https://user:pass@outside.test/x https://outside.test/x#frag https://outside.test/x# https:///x https://:443/x https:outside.test
	javascript:alert(1) file:///etc/passwd data:text/html,x ftp://outside.test/ gopher://127.0.0.1:SENTINEL/ unix:///run/docker.sock /relative //inside.test:SENTINEL/x x
	https://outside.test:x/ https://[::1/ https://outside.test/%zz
`)

// outsider is a Config for which the resource is at an address of the Internet: no connection from outside is needed to see what
// is not dialled.
func outsider(t *testing.T) *Config {
	resolver, _ := dnstest.Resolver(t, map[string][]string{"inside.test.": {"127.0.0.1"}, "metadata.test.": {"169.254.169.254"},
		"both.test.": {"127.0.0.1", "10.0.0.1"}, "outside.test.": {"192.0.2.1"}})
	return &Config{resolver: resolver, proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
		Flow: &person{open: func(context.Context, string) error { return errors.New("a browser was opened") }}}
}

func hostileWith(port string) []string {
	var list []string
	for _, u := range hostile {
		list = append(list, strings.ReplaceAll(u, "SENTINEL", port))
	}
	return append(list, "https://outside.test/"+strings.Repeat("a", 9<<10), "https://outside.test/\x1b[2J", "https://outside.test/\n")
}

// requireClear requires an error that is ours, has nothing of the URL but a host, and no secret.
func requireClear(t *testing.T, err error, about string) {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e, "%q", about)
	for _, text := range []string{err.Error(), fmt.Sprintf("%+v", e)} {
		require.Less(t, len(text), 600)
		require.NotContains(t, text, "pass@")
		require.NotContains(t, text, "\x1b")
		require.NotContains(t, text, "alert(1)")
	}
}

func TestNothingHostileIsAsked(t *testing.T) {
	port, connections := dnstest.Sentinel(t)
	urls := hostileWith(port)
	require.Greater(t, len(urls), 45)
	for _, named := range urls {
		c := outsider(t)
		// As the URL of the resource's metadata.
		_, err := c.Login(t.Context(), authretry.TokenRequest{URL: "https://api.example.com/x", RemoteAddr: "8.8.8.8:443",
			Challenge: &authretry.Challenge{Scheme: "Bearer", Params: authretry.Params{{Name: "resource_metadata", Value: named}}}})
		requireClear(t, err, named)

		// As the authorization server.
		_, err = c.server(t.Context(), outside("https://api.example.com/"), named)
		requireClear(t, err, named)

		// As one of its endpoints.
		for _, endpoint := range []string{"authorization_endpoint", "token_endpoint", "device_authorization_endpoint", "registration_endpoint",
			"pushed_authorization_request_endpoint", "revocation_endpoint"} {
			doc := metadata("https://as.example.com", map[string]any{endpoint: named})
			s, err := c.readServer(t.Context(), "https://as.example.com", outside("https://as.example.com"), doc)
			if err == nil { // then it is the dialer that refuses
				err = c.use(t.Context(), s, endpoint)
			}
			require.ErrorIs(t, err, ErrRefusedURL, "%s %q", endpoint, named)
			require.Less(t, len(err.Error()), 600)
		}
		require.Zero(t, connections.Load(), "%q", named)
	}
}

func outside(u string) place {
	p, err := url.Parse(u)
	if err != nil {
		panic(err)
	}
	return place{url: p}
}

func metadata(issuer string, change map[string]any) document {
	m := map[string]any{"issuer": issuer, "authorization_endpoint": issuer + "/authorize", "token_endpoint": issuer + "/token",
		"code_challenge_methods_supported": []string{"S256"}}
	for name, value := range change {
		m[name] = value
	}
	data, _ := json.Marshal(m)
	doc, err := parse(data)
	if err != nil {
		panic(err)
	}
	return doc
}

// use sends a request to an endpoint, as a login or a refresh would.
func (c *Config) use(ctx context.Context, s *Server, endpoint string) error {
	who := identity{id: "me"}
	e := c.endpoint(s.at, s.TokenURL, s.Issuer, "https://api.example.com", who)
	a := &login.Authorization{Endpoint: e, URL: s.AuthorizationURL, DeviceURL: s.DeviceURL}
	var err error
	switch endpoint {
	case "authorization_endpoint":
		_, err = a.Code(ctx, "http://127.0.0.1:1/")
	case "token_endpoint":
		_, err = e.AuthorizationCode("code", "", "")(ctx, authretry.TokenRequest{})
	case "device_authorization_endpoint":
		_, err = a.Device(ctx)
	case "registration_endpoint":
		_, err = c.register(ctx, s, "http://127.0.0.1:1/")
	case "pushed_authorization_request_endpoint":
		a.PushedURL = s.PushedURL
		_, err = a.Code(ctx, "http://127.0.0.1:1/")
	case "revocation_endpoint":
		err = e.Revocation(s.RevocationURL)(ctx, &oauth2.Token{AccessToken: "a"})
	}
	return err
}

// An authorization endpoint that is at an address inside is not given to a browser.
func TestBrowserIsNotSentInside(t *testing.T) {
	port, _ := dnstest.Sentinel(t)
	c := outsider(t)
	for _, named := range []string{"https://10.0.0.1/router?reboot=1", "https://inside.test:" + port + "/", "https://localhost/", "https://[::1]/", "https://metadata.test/"} {
		_, err := c.readServer(t.Context(), "https://as.example.com", outside("https://as.example.com"), metadata("https://as.example.com", map[string]any{"authorization_endpoint": named}))
		require.ErrorIs(t, err, ErrRefusedURL, named)
		var r *authretry.Rejection
		require.ErrorAs(t, err, &r)
		require.Equal(t, authretry.ReasonUntrustedRealm, r.Reason)
	}
	c.Issuers = []string{"https://localhost"} // the user has named it
	_, err := c.readServer(t.Context(), "https://localhost", outside("https://localhost"), metadata("https://localhost", nil))
	require.NoError(t, err)
}

// Nor is a page shown at which a code is to be typed.
func TestDeviceLoginIsNotSentInside(t *testing.T) {
	c := outsider(t)
	for _, host := range []string{"10.0.0.1", "192.168.0.1", "inside.test", "both.test", "metadata.test", "169.254.169.254", "[fd12::1]", "2130706433"} {
		err := c.checkPage(t.Context(), outside("https://as.example.com"), &url.URL{Scheme: "https", Host: host, Path: "/router"})
		require.ErrorAs(t, err, new(*guarded.RefusedError), host)
	}
	require.NoError(t, c.checkPage(t.Context(), outside("https://as.example.com"), &url.URL{Scheme: "https", Host: "unknown-here.test"}))

	// Of a server on this machine it is link-local addresses alone.
	srv := newResourceServer(t)
	for page, want := range map[string]error{"https://169.254.169.254/latest": ErrRefusedURL, "https://10.0.0.1/device": login.ErrExpired} {
		device := httptest.NewServer(says(map[string]any{"device_code": "d", "user_code": "ABCD", "verification_uri": page, "expires_in": 2, "interval": 1}))
		defer device.Close()
		srv.server.Store(says(map[string]any{"issuer": srv.URL, "token_endpoint": device.URL, "device_authorization_endpoint": device.URL}))
		var shown []string
		conf := &Config{Clients: []Client{{ID: "me"}}, Flow: &login.Device{Prompt: func(_ context.Context, d *login.DeviceCode) error {
			shown = append(shown, d.VerificationURI)
			return login.ErrExpired // it has been seen
		}}}
		_, err := conf.Login(t.Context(), authretry.TokenRequest{URL: srv.URL})
		require.ErrorIs(t, err, want, page)
		if want == ErrRefusedURL {
			require.Empty(t, shown)
			requireClear(t, err, page)
			r, ok := errors.AsType[*authretry.Rejection](err)
			require.True(t, ok)
			require.Equal(t, authretry.ReasonUntrustedRealm, r.Reason)
		} else {
			require.Equal(t, []string{page}, shown)
		}
	}
}

// Nor is one whose host a browser takes for an address inside where a resolver of ours does not: numbers in other forms, a trailing dot,
// sub-domains of localhost, and characters that are mapped to others.
func TestBrowserIsNotSentInsideByANumber(t *testing.T) {
	c := outsider(t)
	readServer := func(named string) error {
		_, err := c.readServer(t.Context(), "https://as.example.com", outside("https://as.example.com"), metadata("https://as.example.com", map[string]any{"authorization_endpoint": named}))
		return err
	}
	for _, host := range []string{"2130706433", "0x7f.1", "127.1:8443", "localhost.", "app.localhost", "127.0.0.1.", "2852039166", "0177.0.0.1", "0X7f000001.", "inside.test.",
		"10.0.0.1.", "%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1", "127%E3%80%820%E3%80%820%E3%80%821", "%E2%93%9Bocalhost", "LocalHost.", "a.b.LOCALHOST:1"} {
		err := readServer("https://" + host + "/")
		require.ErrorIs(t, err, ErrRefusedURL, host)
		requireClear(t, err, host)
	}
	for _, host := range []string{"8.8.8.8", "8.8.8.8.", "[2606:4700::1111]", "unknown-here.test", "localhost.unknown-here.test", "127.0.0.1.unknown-here.test"} {
		require.NoError(t, readServer("https://"+host+"/"), host)
	}
}

// An authorization server that was outside when somebody logged in does not get a refresh token when its name leads inside.
func TestNameThatLeadsInsideLater(t *testing.T) {
	port, connections := dnstest.Sentinel(t)
	resolver, set := dnstest.Resolver(t, map[string][]string{"as.test.": {"8.8.8.8"}})
	c := outsider(t)
	c.resolver = resolver
	set("as.test.", "127.0.0.1")
	previous := authretry.WithRecord(&oauth2.Token{AccessToken: "a", RefreshToken: "r"}, authretry.Record{Issuer: "https://as.test:" + port,
		TokenURL: "https://as.test:" + port + "/token", ClientID: "me", Resource: "https://api.example.com", Extra: map[string]string{extraHome: "8.8.8.8"}})
	_, err := c.Fetch(t.Context(), authretry.TokenRequest{Previous: previous})
	require.Error(t, err)
	require.NotErrorIs(t, err, authretry.ErrLoginRequired, "the login is as good as before")
	require.Zero(t, connections.Load())
}

// A resource's server is one that answers everything with what a test says.
type resourceServer struct {
	*httptest.Server
	resource, server atomic.Value // of http.HandlerFunc
	asked            atomic.Int32 // of the authorization server, but for its metadata
}

func newResourceServer(t *testing.T) *resourceServer {
	s := &resourceServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, metaResource):
			s.resource.Load().(http.HandlerFunc)(w, r)
		case strings.HasPrefix(r.URL.Path, "/.well-known/"):
			s.server.Load().(http.HandlerFunc)(w, r)
		case r.URL.Path == "/":
			w.Header().Set("WWW-Authenticate", `Bearer resource_metadata="`+s.URL+metaResource+`"`)
			w.WriteHeader(401)
		default:
			s.asked.Add(1)
			w.WriteHeader(500)
		}
	}))
	t.Cleanup(s.Close)
	s.resource.Store(says(map[string]any{"resource": s.URL, "authorization_servers": []string{s.URL}}))
	s.server.Store(says(map[string]any{"issuer": s.URL, "authorization_endpoint": s.URL + "/authorize", "token_endpoint": s.URL + "/token",
		"registration_endpoint": s.URL + "/register", "code_challenge_methods_supported": []string{"S256"}}))
	return s
}

func says(document any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(document)
	}
}

func writes(kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Write([]byte(body))
	}
}

// endless writes as much as anybody reads.
func endless(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Write([]byte(`{"resource":"`))
	for range 1 << 14 { // 1 GiB
		if _, err := w.Write(make([]byte, 64<<10)); err != nil {
			return
		}
	}
}

func TestBadMetadata(t *testing.T) {
	port, connections := dnstest.Sentinel(t)
	many := make([]string, 30_000) // some 800 KiB
	for i := range many {
		many[i] = fmt.Sprintf("https://as%d.example.com", i)
	}
	for name, c := range map[string]struct {
		resource, server func(at string) http.HandlerFunc
		want             error
	}{
		"of another resource": {resource: func(string) http.HandlerFunc {
			return says(map[string]any{"resource": "https://other.example.com", "authorization_servers": []string{"https://a"}})
		}, want: ErrOtherResource},
		"of another path": {resource: func(at string) http.HandlerFunc { return says(map[string]any{"resource": at + "/other"}) }, want: ErrOtherResource},
		"of no resource":  {resource: func(string) http.HandlerFunc { return says(map[string]any{}) }, want: ErrNoMetadata},
		"without servers": {resource: func(at string) http.HandlerFunc { return says(map[string]any{"resource": at}) }, want: ErrNotAllowed},
		"with 30,000 servers": {resource: func(at string) http.HandlerFunc {
			return says(map[string]any{"resource": at, "authorization_servers": many})
		}, want: ErrNotAllowed},
		"of a wrong type": {resource: func(string) http.HandlerFunc {
			return writes("application/json", `{"resource":["a"],"authorization_servers":"b"}`)
		}, want: ErrNoMetadata},
		"that is an array": {resource: func(string) http.HandlerFunc { return writes("application/json", `[1,2]`) }, want: ErrNoMetadata},
		"that is null":     {resource: func(string) http.HandlerFunc { return writes("application/json", `null`) }, want: ErrNoMetadata},
		"that is HTML":     {resource: func(string) http.HandlerFunc { return writes("text/html", `{"resource":"x"}`) }, want: ErrNoMetadata},
		"deep": {resource: func(string) http.HandlerFunc {
			return writes("application/json", strings.Repeat(`{"resource":`, 100_000))
		}, want: ErrNoMetadata},
		"of 1 GiB":        {resource: func(string) http.HandlerFunc { return endless }, want: ErrNoMetadata},
		"that is missing": {resource: func(string) http.HandlerFunc { return http.NotFound }, want: ErrNoMetadata},
		"that is elsewhere": {resource: func(string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://127.0.0.1:"+port+"/", http.StatusTemporaryRedirect)
			}
		}, want: ErrNoMetadata},
		"of another issuer": {server: func(string) http.HandlerFunc {
			return says(map[string]any{"issuer": "https://other.example.com", "token_endpoint": "https://x/"})
		}, want: ErrOtherIssuer},
		"with a slash": {server: func(at string) http.HandlerFunc {
			return says(map[string]any{"issuer": at + "/", "token_endpoint": at})
		}, want: ErrOtherIssuer},
		"without a token endpoint": {server: func(at string) http.HandlerFunc { return says(map[string]any{"issuer": at}) }, want: ErrNoMetadata},
		"without PKCE": {server: func(at string) http.HandlerFunc {
			return says(map[string]any{"issuer": at, "authorization_endpoint": at + "/a", "token_endpoint": at + "/t"})
		}, want: ErrNoPKCE},
		"with plain PKCE": {server: func(at string) http.HandlerFunc {
			return says(map[string]any{"issuer": at, "authorization_endpoint": at + "/a", "token_endpoint": at + "/t", "code_challenge_methods_supported": []string{"plain"}})
		}, want: ErrNoPKCE},
		"without a login": {server: func(at string) http.HandlerFunc {
			return says(map[string]any{"issuer": at, "token_endpoint": at + "/t"})
		}, want: ErrNoFlow},
		"server of 1 GiB": {server: func(string) http.HandlerFunc { return endless }, want: ErrNoMetadata},
		"server that redirects": {server: func(string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://127.0.0.1:"+port+"/", http.StatusFound)
			}
		}, want: ErrNoMetadata},
		"javascript": {server: func(at string) http.HandlerFunc {
			return says(map[string]any{"issuer": at, "authorization_endpoint": "javascript:alert(1)", "token_endpoint": at})
		}, want: ErrRefusedURL},
		"a file": {server: func(at string) http.HandlerFunc {
			return says(map[string]any{"issuer": at, "authorization_endpoint": "file:///etc/passwd", "token_endpoint": at})
		}, want: ErrRefusedURL},
		"registration that fails": {want: ErrOutOfOrder},
	} {
		t.Run(name, func(t *testing.T) {
			srv := newResourceServer(t)
			if c.resource != nil {
				srv.resource.Store(c.resource(srv.URL))
			}
			if c.server != nil {
				srv.server.Store(c.server(srv.URL))
			}
			p := &person{open: func(context.Context, string) error { return errors.New("a browser was opened") }}
			client, _ := program(&Config{Flow: p}, nil)
			_, err := client.Get(srv.URL)
			require.ErrorIs(t, err, c.want)
			requireClear(t, err, name)
			if c.want != ErrOutOfOrder {
				require.Zero(t, srv.asked.Load(), "nothing else is asked")
			}
			require.Zero(t, connections.Load())
		})
	}
}

// Shell characters and others in the authorization endpoint: the browser is not opened, and nothing is registered.
func TestAuthorizationEndpointForAShell(t *testing.T) {
	for _, tail := range []string{"`id`", "$(id)", ";id", "|id", "'", `"`, "\\", " id", "<x>", "^", "{x}", "\u202e"} {
		srv := newResourceServer(t)
		srv.server.Store(says(map[string]any{"issuer": srv.URL, "authorization_endpoint": srv.URL + "/a" + tail, "token_endpoint": srv.URL + "/token",
			"registration_endpoint": srv.URL + "/register", "code_challenge_methods_supported": []string{"S256"}}))
		opened := false
		client, _ := program(&Config{Flow: &person{open: func(context.Context, string) error { opened = true; return nil }}}, nil)
		_, err := client.Get(srv.URL)
		require.ErrorContains(t, err, "is not opened", "%q", tail)
		require.False(t, opened)
		require.Zero(t, srv.asked.Load())
	}
}

// A resource that names another authorization server with each 401 has one login asked for, and no more for a while.
func TestAnotherServerWithEach401(t *testing.T) {
	srv := newResourceServer(t)
	var n atomic.Int32
	srv.resource.Store(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		says(map[string]any{"resource": srv.URL, "authorization_servers": []string{fmt.Sprintf("%s/as%d", srv.URL, n.Add(1))}})(w, r)
	}))
	srv.server.Store(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at := srv.URL + strings.TrimPrefix(r.URL.Path, metaServer)
		says(map[string]any{"issuer": at, "authorization_endpoint": at + "/authorize", "token_endpoint": at + "/token",
			"code_challenge_methods_supported": []string{"S256"}})(w, r)
	}))
	p := &person{open: func(context.Context, string) error { return errors.New("no") }}
	client, _ := program(&Config{Flow: p, ClientMetadataURL: "https://c.example.com/x", Clients: []Client{{ID: "me"}}}, nil)
	for range 20 {
		_, err := client.Get(srv.URL)
		require.ErrorIs(t, err, authretry.ErrLoginRequired)
	}
	require.EqualValues(t, 1, p.asked.Load())
	require.EqualValues(t, 1, n.Load())
}

func TestIssuersAreTheOnlyOnes(t *testing.T) {
	srv := newResourceServer(t)
	client, _ := program(&Config{Flow: approving(), Issuers: []string{"https://ours.example.com"}}, nil)
	_, err := client.Get(srv.URL)
	require.ErrorIs(t, err, ErrNotAllowed)
	require.Zero(t, srv.asked.Load())

	// A saved login of another one is not refreshed either.
	c := &Config{Flow: approving(), Issuers: []string{"https://ours.example.com"}}
	previous := authretry.WithRecord(&oauth2.Token{RefreshToken: "r"}, authretry.Record{Issuer: srv.URL, TokenURL: srv.URL + "/token", ClientID: "me"})
	_, err = c.Fetch(t.Context(), authretry.TokenRequest{Previous: previous})
	require.ErrorIs(t, err, authretry.ErrLoginRequired)
	require.Zero(t, srv.asked.Load())
}

// A refresh token of which nothing is known goes nowhere.
func TestRefreshTokenOfNobodyKnowsWhere(t *testing.T) {
	c := &Config{Flow: approving()}
	_, err := c.Fetch(t.Context(), authretry.TokenRequest{Previous: &oauth2.Token{RefreshToken: "r"}})
	require.ErrorIs(t, err, authretry.ErrLoginRequired)
}

// A token endpoint that the metadata move does not get the refresh token of a live login.
func TestTokenEndpointThatMoves(t *testing.T) {
	t.Parallel()
	srv, now := newResourceServer(t), newResourceServer(t)
	c := &Config{Flow: approving()}
	previous := authretry.WithRecord(&oauth2.Token{RefreshToken: "r"}, authretry.Record{Issuer: srv.URL, TokenURL: srv.URL + "/token", ClientID: "me", Resource: srv.URL})
	srv.server.Store(says(map[string]any{"issuer": srv.URL, "token_endpoint": now.URL + "/token"}))
	_, err := c.Fetch(t.Context(), authretry.TokenRequest{Previous: previous, URL: srv.URL + "/",
		Challenge: &authretry.Challenge{Scheme: "Bearer", Params: authretry.Params{{Name: "resource_metadata", Value: srv.URL + metaResource}}}})
	require.NotErrorIs(t, err, authretry.ErrLoginRequired, "the server has failed")
	require.EqualValues(t, 4, srv.asked.Load(), "three retries")
	require.Zero(t, now.asked.Load())
}
