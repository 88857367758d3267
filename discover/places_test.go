package discover

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/filestore"
	"github.com/authretry/authretry/internal/dnstest"
	"github.com/authretry/authretry/login"
)

// A missing has nothing anywhere but what is in documents, by path, and notes what it was asked for.
type missing struct {
	*httptest.Server
	documents map[string]any

	mu    sync.Mutex
	asked []string
}

func newMissing(t *testing.T) *missing {
	m := &missing{documents: map[string]any{}}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		m.asked = append(m.asked, r.URL.EscapedPath())
		m.mu.Unlock()
		if doc, ok := m.documents[r.URL.EscapedPath()]; ok {
			says(doc)(w, r)
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

func TestWhereMetadataIsLookedFor(t *testing.T) {
	at := func(u string) *target {
		p, _ := url.Parse(u)
		return &target{at: place{url: p, addr: netip.MustParseAddr("127.0.0.1")}}
	}
	for path, want := range map[string][]string{
		"":               {metaResource},
		"/":              {metaResource},
		"/mcp":           {metaResource + "/mcp", metaResource},
		"/a/b%2Fc/":      {metaResource + "/a/b%2Fc/", metaResource},
		"/a?query=1#top": {metaResource + "/a%3Fquery=1%23top", metaResource}, // as a path
	} {
		m := newMissing(t)
		p := &url.URL{Scheme: "http", Host: m.Listener.Addr().String()}
		if path == "/a?query=1#top" {
			p.Path = path
		} else {
			p, _ = url.Parse(m.URL + path)
		}
		_, err := new(Config).resource(t.Context(), &target{at: place{url: p, addr: netip.MustParseAddr("127.0.0.1")}})
		require.ErrorIs(t, err, ErrNoMetadata)
		require.Equal(t, want, m.asked, path)
	}
	// Where the challenge says, and nowhere else.
	m := newMissing(t)
	named := at(m.URL + "/mcp")
	named.metadata = m.URL + "/elsewhere"
	_, err := new(Config).resource(t.Context(), named)
	require.ErrorIs(t, err, ErrNoMetadata)
	require.Equal(t, []string{"/elsewhere"}, m.asked)

	for path, want := range map[string][]string{
		"":          {metaServer, wellKnownOpenID},
		"/":         {metaServer, wellKnownOpenID},
		"/tenant":   {metaServer + "/tenant", wellKnownOpenID + "/tenant", "/tenant" + wellKnownOpenID},
		"/tenant/":  {metaServer + "/tenant", wellKnownOpenID + "/tenant", "/tenant" + wellKnownOpenID},
		"/a/tenant": {metaServer + "/a/tenant", wellKnownOpenID + "/a/tenant", "/a/tenant" + wellKnownOpenID},
	} {
		m := newMissing(t)
		_, err := new(Config).server(t.Context(), at(m.URL).at, m.URL+path)
		require.ErrorIs(t, err, ErrNoMetadata)
		require.Equal(t, want, m.asked, path)

		// The last of them is found, too.
		m.documents[want[len(want)-1]] = map[string]any{"issuer": m.URL + path, "token_endpoint": m.URL + "/token"}
		s, err := new(Config).server(t.Context(), at(m.URL).at, m.URL+path)
		require.NoError(t, err)
		require.Equal(t, m.URL+"/token", s.TokenURL)
	}
}

func TestIdentifiersAreComparedAsStrings(t *testing.T) {
	u, _ := url.Parse("https://api.example.com/v1/mcp")
	root, _ := url.Parse("https://api.example.com")
	for id, want := range map[string]bool{
		"https://api.example.com/v1/mcp":     true,
		"https://api.example.com":            true,
		"https://api.example.com/":           true,
		"https://api.example.com/v1/mcp/":    false,
		"https://api.example.com/v1":         false,
		"https://api.example.com/V1/mcp":     false,
		"HTTPS://api.example.com/v1/mcp":     false,
		"https://API.example.com/v1/mcp":     false,
		"https://api.example.com:443/v1/mcp": false,
		"https://api.example.com/v1/mcp?x":   false,
		"https://api.example.com/v1/%6dcp":   false,
		"http://api.example.com/v1/mcp":      false,
		"https://evil.example.com":           false,
		"":                                   false,
	} {
		require.Equal(t, want, (&target{at: place{url: u}}).is(id), id)
		require.Equal(t, id == "https://x/", (&target{at: place{url: u}, resource: "https://x/"}).is(id), "only what Config.Resource says: %s", id)
	}
	require.True(t, (&target{at: place{url: root}}).is("https://api.example.com/"))
}

// An authorization server in a private network is asked where the resource is in one, or where the program names it.
func TestWhereServersMayBe(t *testing.T) {
	oauth := &authtest.OAuth{}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	port := srv.URL[len("http://127.0.0.1"):]
	resolver, _ := dnstest.Resolver(t, map[string][]string{"localhost.": {"127.0.0.1"}})
	for name, c := range map[string]struct {
		remote  string
		issuers []string
		allowed bool
	}{
		"resource here":              {remote: "127.0.0.1:443", allowed: true},
		"resource outside":           {remote: "8.8.8.8:443"},
		"resource nobody knows":      {},
		"resource outside, named":    {remote: "8.8.8.8:443", issuers: []string{srv.URL}, allowed: true},
		"another is named":           {remote: "8.8.8.8:443", issuers: []string{"http://localhost" + port, srv.URL + "/x"}},
		"resource in a metadata net": {remote: "169.254.169.254:80"},
	} {
		t.Run(name, func(t *testing.T) {
			conf := &Config{Issuers: c.issuers, resolver: resolver}
			home, _ := url.Parse("http://api.example.com/")
			at := place{url: home}
			if c.remote != "" {
				at.addr = netip.MustParseAddrPort(c.remote).Addr()
			}
			issuer := srv.URL
			s, err := conf.server(t.Context(), at, issuer)
			if !c.allowed && len(c.issuers) > 0 { // its host is named, so that it is asked; but it is no issuer that may be chosen
				require.NoError(t, err)
				_, err = conf.choose(&Resource{Issuers: []string{issuer}, at: at}, &authretry.Record{})
				require.ErrorIs(t, err, ErrNotAllowed)
				return
			}
			if !c.allowed {
				require.ErrorIs(t, err, ErrRefusedURL)
				return
			}
			require.NoError(t, err)
			require.Equal(t, srv.URL+"/oauth/token", s.TokenURL)
		})
	}
}

// Several servers: the one that is known already comes first, then one at which the program is known; a few are tried.
func TestChoice(t *testing.T) {
	at := outside("https://api.example.com")
	list := []string{"https://a", "https://b", "https://c", "https://d", "https://b"}
	resource := &Resource{Issuers: list, at: at}
	for name, c := range map[string]struct {
		conf  *Config
		known authretry.Record
		want  []string
	}{
		"as named":         {&Config{}, authretry.Record{}, []string{"https://a", "https://b", "https://c"}},
		"known":            {&Config{}, authretry.Record{Issuer: "https://d"}, []string{"https://d", "https://a", "https://b"}},
		"the program's":    {&Config{Clients: []Client{{Issuer: "https://c"}}}, authretry.Record{}, []string{"https://c", "https://a", "https://b"}},
		"allowed":          {&Config{Issuers: []string{"https://b", "https://x"}}, authretry.Record{}, []string{"https://b"}},
		"both":             {&Config{Clients: []Client{{Issuer: "https://c"}}}, authretry.Record{Issuer: "https://b"}, []string{"https://b", "https://c", "https://a"}},
		"known, forbidden": {&Config{Issuers: []string{"https://a"}}, authretry.Record{Issuer: "https://d"}, []string{"https://a"}},
	} {
		got, err := c.conf.choose(resource, &c.known)
		require.NoError(t, err)
		require.Equal(t, c.want, got, name)
	}
	got, err := (&Config{Issuers: []string{"https://only"}}).choose(&Resource{at: at}, &authretry.Record{})
	require.NoError(t, err)
	require.Equal(t, []string{"https://only"}, got, "the resource names none, and the program one")
}

// A server that cannot be used does not keep the next one from being tried.
func TestSecondServerIsTried(t *testing.T) {
	oauth := &authtest.OAuth{}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	bad := newMissing(t)
	oauth.Edit = func(path string, doc map[string]any) {
		if path == metaResource {
			doc["authorization_servers"] = []string{bad.URL, srv.URL}
		}
	}
	client, _ := program(&Config{Flow: approving()}, nil)
	get(t, client, srv.URL)
	require.Equal(t, 1, oauth.Logins())
	require.Len(t, bad.asked, 2)
}

// A Client without an issuer is that of the first one: its secret goes to no other.
func TestClientIsOfOneIssuer(t *testing.T) {
	c := &Config{Clients: []Client{{ID: "me", Auth: authretry.SecretBasic("s")}}}
	who, ok := c.named("https://first")
	require.True(t, ok)
	require.Equal(t, "me", who.id)
	_, ok = c.named("https://second")
	require.False(t, ok)
	_, ok = c.named("https://first")
	require.True(t, ok)

	// Another issuer may give its own client that name: it gets no secret for it, and takes the name from nobody.
	registered := &authretry.Record{ClientID: "me", Issuer: "https://second", TokenURL: "https://second/token", Extra: map[string]string{extraMethod: "none"}}
	c.bind(registered)
	who, _, err := c.saved(registered)
	require.NoError(t, err)
	require.Equal(t, "me", who.id)
	require.Nil(t, who.auth)
	_, ok = c.named("https://first")
	require.True(t, ok)

	// In a later process, it is that of the saved login.
	c = &Config{Clients: []Client{{ID: "me", Auth: authretry.SecretBasic("s")}}}
	c.bind(&authretry.Record{ClientID: "me", Issuer: "https://first"})
	_, ok = c.named("https://second")
	require.False(t, ok)
}

// What is remembered does not grow.
func TestMemoryIsBounded(t *testing.T) {
	c := &Config{}
	for i := range 10_000 {
		c.noteUnnamed(string(rune(i)))
		c.forget("x", string(rune(i)))
		keep(&c.machine, string(rune(i)), new(found))
	}
	require.LessOrEqual(t, len(c.unnamed), maxKept)
	require.LessOrEqual(t, len(c.refused), maxKept)
	require.LessOrEqual(t, len(c.machine), maxKept)
}

// What is remembered of a server is not as much as that may say.
func TestListsAreBounded(t *testing.T) {
	var many []string
	for i := range 20_000 {
		many = append(many, fmt.Sprint(i))
	}
	said := func(name string, more map[string]any) document {
		more[name] = many
		text, err := json.Marshal(more)
		require.NoError(t, err)
		doc, err := parse(text)
		require.NoError(t, err)
		return doc
	}
	const issuer = "https://auth.example.com"
	first := many[:maxScopes]
	for name, of := range map[string]func(*Server) []string{
		"scopes_supported":                      func(s *Server) []string { return s.Scopes },
		"grant_types_supported":                 func(s *Server) []string { return s.GrantTypes },
		"token_endpoint_auth_methods_supported": func(s *Server) []string { return s.AuthMethods },
		"dpop_signing_alg_values_supported":     func(s *Server) []string { return s.ProofAlgorithms },
	} {
		s, err := new(Config).readServer(t.Context(), issuer, outside(issuer), said(name, map[string]any{"issuer": issuer, "token_endpoint": issuer + "/t"}))
		require.NoError(t, err)
		require.Equal(t, first, of(s), name)
		require.Less(t, cap(of(s)), 2*maxScopes, name)
	}
	r, err := readResource(said("dpop_signing_alg_values_supported", map[string]any{"resource": "https://api.example.com"}))
	require.NoError(t, err)
	require.Equal(t, first, r.ProofAlgorithms)
	r, err = readResource(said("authorization_servers", map[string]any{"resource": "https://api.example.com"}))
	require.NoError(t, err)
	r.at = outside("https://api.example.com")
	_, err = (&Config{Issuers: []string{"7", "19999"}}).choose(r, &authretry.Record{})
	require.NoError(t, err)
	require.Equal(t, []string{"7", "19999"}, r.Issuers)
}

// The token endpoint fails for a moment, and the refresh goes on.
func TestRefreshIsTriedAgain(t *testing.T) {
	oauth := &authtest.OAuth{}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	client, tokens := program(&Config{Flow: approving()}, filestore.New(filepath.Join(t.TempDir(), "login")))
	get(t, client, srv.URL)
	srv.Inject("/oauth/token", 1, authtest.Reply(503, nil, ""))
	_, err := tokens.Refresh(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, srv.TokenRequests(), 3)
}

// A Flow or Grant that is not there is a mistake that says so.
func TestNothingIsSet(t *testing.T) {
	c := &Config{}
	_, err := c.Fetch(t.Context(), authretry.TokenRequest{})
	require.ErrorIs(t, err, errNoWay)
	_, err = c.Login(t.Context(), authretry.TokenRequest{})
	require.ErrorIs(t, err, ErrNoFlow)
	require.NoError(t, c.Revoke(t.Context(), &oauth2.Token{AccessToken: "a"}), "nobody is to be told")
}

func TestDiscoverShowsWhatThereIs(t *testing.T) {
	oauth := &authtest.OAuth{Scopes: []string{"a"}}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	r, s, err := new(Config).Discover(t.Context(), authretry.TokenRequest{URL: srv.URL + "/"})
	require.NoError(t, err)
	require.Equal(t, srv.URL, r.ID)
	require.Equal(t, srv.URL+"/oauth/device", s.DeviceURL)
	require.Equal(t, []string{"a"}, s.Scopes)
	require.True(t, s.AnswersWithIssuer && s.HasPKCE)
	_, _, err = new(Config).Discover(t.Context(), authretry.TokenRequest{})
	require.ErrorIs(t, err, authretry.ErrChallengeRequired)
	for _, u := range []string{"ftp://x/", "::", "/x", "https://"} {
		_, _, err = new(Config).Discover(t.Context(), authretry.TokenRequest{URL: u})
		require.ErrorIs(t, err, ErrNoMetadata, u)
	}
	_, _, err = (&Config{Resource: "https://api.example.com"}).Discover(t.Context(), authretry.TokenRequest{URL: "https://evil.example.com/"})
	require.ErrorIs(t, err, ErrOtherResource)
	require.ErrorContains(t, err, "take a Config, a TokenSource and a Store for each server")
}

// A counting store says how often a refresh token was confirmed, and refuses from one time on.
type counting struct {
	authretry.TokenStore
	confirmed, refuse int
}

func (s *counting) Update(ctx context.Context, fn func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error)) error {
	return s.TokenStore.Update(ctx, func(ctx context.Context, current *authretry.Record, confirm func(context.Context) error) (*authretry.Record, error) {
		return fn(ctx, current, func(ctx context.Context) error {
			if s.confirmed++; s.confirmed >= s.refuse {
				return errors.New("the lock is lost")
			}
			return confirm(ctx)
		})
	})
}

// The store confirms the second send of a refresh token, too, the one without the resource.
func TestEachSendIsConfirmed(t *testing.T) {
	for refuse, sends := range map[int]int{1: 0, 2: 1, 3: 2} {
		oauth := &authtest.OAuth{NoResourceOnRefresh: true}
		srv := authtest.NewServer(oauth)
		store := &counting{TokenStore: filestore.New(filepath.Join(t.TempDir(), "login")), refuse: 100}
		client, tokens := program(&Config{Flow: approving()}, store)
		get(t, client, srv.URL)
		srv.Reset()
		store.confirmed, store.refuse = 0, refuse
		_, err := tokens.Refresh(t.Context(), nil)
		require.Equal(t, refuse > 2, err == nil)
		require.Len(t, srv.TokenRequests(), sends)
		srv.Close()
	}
}

// What the metadata say of PKCE, scopes and grants is heeded, and what they do not say is not held against them.
func TestFlowsThatAreLeft(t *testing.T) {
	at := place{url: &url.URL{Scheme: "https", Host: "as.example.com"}}
	for name, c := range map[string]struct {
		server      Server
		conf        *Config
		url, device bool
		want        error
	}{
		"both":                 {server: Server{AuthorizationURL: "a", DeviceURL: "d", HasPKCE: true}, url: true, device: true},
		"no PKCE":              {server: Server{AuthorizationURL: "a", DeviceURL: "d"}, device: true},
		"no PKCE, no device":   {server: Server{AuthorizationURL: "a"}, want: ErrNoPKCE},
		"no PKCE, browser":     {server: Server{AuthorizationURL: "a", DeviceURL: "d"}, conf: &Config{Flow: &login.Browser{}}, want: ErrNoPKCE},
		"no browser":           {server: Server{DeviceURL: "d"}, conf: &Config{Flow: &login.Browser{}}, want: ErrNoFlow},
		"no device":            {server: Server{AuthorizationURL: "a", HasPKCE: true}, conf: &Config{Flow: &login.Device{}}, want: ErrNoFlow},
		"no PKCE, by device":   {server: Server{AuthorizationURL: "a", DeviceURL: "d"}, conf: &Config{Flow: &login.Device{}}, device: true},
		"PKCE is assumed":      {server: Server{AuthorizationURL: "a"}, conf: &Config{AssumePKCE: true}, url: true},
		"nothing":              {server: Server{}, want: ErrNoFlow},
		"device not supported": {server: Server{AuthorizationURL: "a", DeviceURL: "d", HasPKCE: true, GrantTypes: []string{"authorization_code"}}, url: true},
		"device supported":     {server: Server{DeviceURL: "d", GrantTypes: []string{deviceGrant}}, device: true},
		"pushed, nowhere":      {server: Server{AuthorizationURL: "a", HasPKCE: true, RequiresPushed: true}, want: ErrNoFlow},
		"pushed":               {server: Server{AuthorizationURL: "a", HasPKCE: true, RequiresPushed: true, PushedURL: "p"}, url: true},
	} {
		c.server.at = at
		a := &login.Authorization{URL: c.server.AuthorizationURL, DeviceURL: c.server.DeviceURL}
		err := cmp.Or(c.conf, &Config{}).checkFlows(a, &c.server)
		if c.want != nil {
			require.ErrorIs(t, err, c.want, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, c.url, a.URL != "", name)
		require.Equal(t, c.device, a.DeviceURL != "", name)
	}
}

// How a program is registered, and how it authenticates itself then.
func TestRegistrations(t *testing.T) {
	for name, c := range map[string]struct {
		answer  string
		methods []string
		method  string // "": it is refused
		expires int64
	}{
		"public":            {answer: `{"client_id":"c"}`, method: "none"},
		"public, said":      {answer: `{"client_id":"c","token_endpoint_auth_method":"none"}`, method: "none"},
		"basic":             {answer: `{"client_id":"c","client_secret":"s"}`, method: "client_secret_basic"},
		"post by the list":  {answer: `{"client_id":"c","client_secret":"s"}`, methods: []string{"client_secret_post", "private_key_jwt"}, method: "client_secret_post"},
		"basic by the list": {answer: `{"client_id":"c","client_secret":"s"}`, methods: []string{"none", "client_secret_post", "client_secret_basic"}, method: "client_secret_basic"},
		"post, said":        {answer: `{"client_id":"c","client_secret":"s","token_endpoint_auth_method":"client_secret_post"}`, methods: []string{"client_secret_basic"}, method: "client_secret_post"},
		"none, though":      {answer: `{"client_id":"c","client_secret":"s","token_endpoint_auth_method":"none"}`, method: "none"},
		"no secret, though": {answer: `{"client_id":"c","token_endpoint_auth_method":"client_secret_basic"}`, method: "none"},
		"never expires":     {answer: `{"client_id":"c","client_secret":"s","client_secret_expires_at":0}`, method: "client_secret_basic"},
		"expires":           {answer: `{"client_id":"c","client_secret":"s","client_secret_expires_at":1893456000}`, method: "client_secret_basic", expires: 1893456000},
		"a key":             {answer: `{"client_id":"c","client_secret":"s","token_endpoint_auth_method":"private_key_jwt"}`},
		"no client":         {answer: `{"client_secret":"s"}`},
		"a number":          {answer: `{"client_id":7}`},
		"long":              {answer: `{"client_id":"` + strings.Repeat("c", maxClient+1) + `"}`},
		"a long secret":     {answer: `{"client_id":"c","client_secret":"` + strings.Repeat("c", maxClient+1) + `"}`},
	} {
		doc, err := parse([]byte(c.answer))
		require.NoError(t, err)
		g, err := readRegistered(doc, &Server{AuthMethods: c.methods})
		if c.method == "" {
			require.Error(t, err, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, c.method, g.method, name)
		if c.expires == 0 {
			require.True(t, g.expires.IsZero(), name)
		} else {
			require.Equal(t, c.expires, g.expires.Unix(), name)
		}

		// It is the same after having been saved.
		extra := map[string]string{}
		g.redirectURI = "http://127.0.0.1:1/"
		g.save(extra)
		again := registeredIn(&authretry.Record{ClientID: g.id, Extra: extra})
		require.Equal(t, g.id+g.secret+g.method+g.redirectURI, again.id+again.secret+again.method+again.redirectURI)
		require.True(t, g.expires.Equal(again.expires))
		now := time.Unix(1700000000, 0)
		require.True(t, again.isFor("", now) && again.isFor("http://127.0.0.1:1/", now))
		require.False(t, again.isFor("http://127.0.0.1:2/", now), "not by another redirect URI")
		require.Equal(t, c.expires == 0, again.isFor("", time.Unix(2000000000, 0)), "the secret has ended")
	}
	require.Nil(t, registeredIn(&authretry.Record{ClientID: "c"}))

	c := &Config{Registration: map[string]any{"client_name": "mine", "application_type": "web", "software_id": "x"}}
	m := c.registration(&Server{DeviceURL: "d", GrantTypes: []string{"authorization_code", deviceGrant}}, "http://127.0.0.1:1/", "none")
	require.Equal(t, map[string]any{"client_name": "mine", "application_type": "native", "software_id": "x", "token_endpoint_auth_method": "none",
		"redirect_uris": []string{"http://127.0.0.1:1/"}, "response_types": []string{"code"}, "grant_types": []string{"authorization_code", deviceGrant}}, m)
	m = c.registration(&Server{}, "", "none")
	require.Equal(t, []string{deviceGrant, "refresh_token"}, m["grant_types"])
	require.NotContains(t, m, "redirect_uris")
	require.Equal(t, "none", (&Server{}).methodFor(""))
	require.Equal(t, "client_secret_post", (&Server{AuthMethods: []string{"client_secret_post"}}).methodFor(""))
}
