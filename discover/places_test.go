package discover

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/filestore"
	"github.com/authretry/authretry/internal/dnstest"
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
				_, err = conf.choose(&Resource{Issuers: []string{issuer}, at: at, named: 1}, &authretry.Record{})
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
	resource := &Resource{Issuers: list, at: at, named: len(list)}
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
	}
	require.LessOrEqual(t, len(c.unnamed), maxKept)
	require.LessOrEqual(t, len(c.refused), maxKept)
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
}
