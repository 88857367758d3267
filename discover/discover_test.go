package discover

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/filestore"
	"github.com/authretry/authretry/login"
)

// person is a Flow without anything to see: a listener for the answer, and a person who opens what they are told to.
type person struct {
	open  func(ctx context.Context, url string) error
	by    string // "device": by a device
	asked atomic.Int32
	last  atomic.Pointer[login.Authorization]
}

func (p *person) Login(ctx context.Context, a *login.Authorization) (*oauth2.Token, error) {
	p.asked.Add(1)
	p.last.Store(a)
	if p.by == "device" {
		d, err := a.Device(ctx)
		if err != nil {
			return nil, err
		}
		if err := p.open(ctx, d.VerificationURIComplete); err != nil {
			return nil, err
		}
		return d.Await(ctx)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	code, err := a.Code(ctx, "http://"+l.Addr().String()+"/callback")
	if err != nil {
		return nil, err
	}
	type result struct {
		t   *oauth2.Token
		err error
	}
	done := make(chan result, 1)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code.Matches(r.URL.Query()) {
			t, err := code.Redeem(ctx, r.URL.Query())
			done <- result{t, err}
		}
	})}
	go srv.Serve(l)
	defer srv.Close()
	if err := p.open(ctx, code.URL()); err != nil {
		return nil, err
	}
	select {
	case r := <-done:
		return r.t, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func approving() *person { return &person{open: authtest.Approve} }

// program is what a user would write.
func program(c *Config, store authretry.TokenStore) (*http.Client, *authretry.TokenSource) {
	tokens := &authretry.TokenSource{Fetch: c.Fetch, Login: c.Login, Revoke: c.Revoke, Store: store}
	return &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens, StepUp: true})}, tokens
}

// bubbled is program for a server that lives by the clock of a bubble.
func bubbled(srv *authtest.Server, c *Config, store authretry.TokenStore) (*http.Client, *authretry.TokenSource) {
	c.HTTPClient = srv.Client()
	client, tokens := program(c, store)
	client.Transport.(*authretry.Transport).Base = srv.Client().Transport
	return client, tokens
}

func get(t *testing.T, client *http.Client, url string) {
	t.Helper()
	resp, err := client.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	require.Equal(t, 200, resp.StatusCode, "%s: %v", body, authretry.Explain(resp))
}

// paths returns which paths of the authorization server were asked, and how often, but for those of a person.
func paths(srv *authtest.Server) map[string]int {
	counts := map[string]int{}
	for _, r := range srv.Requests() {
		if strings.HasPrefix(r.Path, "/.well-known/") || r.Path == "/oauth/register" || r.Path == "/oauth/par" || r.Path == "/oauth/device" || r.Path == "/oauth/revoke" {
			counts[r.Path]++
		}
	}
	return counts
}

const (
	metaResource = "/.well-known/oauth-protected-resource"
	metaServer   = "/.well-known/oauth-authorization-server"
)

func TestFiftyFirstCallsAtOnceAreOneDiscoveryAndOneLogin(t *testing.T) {
	oauth := &authtest.OAuth{Scope: "read"}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	p := approving()
	store := filestore.New(filepath.Join(t.TempDir(), "login"))
	client, _ := program(&Config{Flow: p}, store)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { get(t, client, srv.URL) })
	}
	wg.Wait()
	require.EqualValues(t, 1, p.asked.Load())
	require.Equal(t, 1, oauth.Logins())
	require.Equal(t, map[string]int{metaResource: 1, metaServer: 1, "/oauth/register": 1}, paths(srv))
	require.Len(t, srv.TokenRequests(), 1)
	require.Equal(t, []string{srv.URL}, srv.TokenRequests()[0].Form["resource"])
	require.Equal(t, 50, srv.Counts().Accepted)

	// A later process neither discovers anything nor asks anybody, also when it has to refresh.
	srv.Reset()
	oauth.ExpireNow()
	later := approving()
	client, _ = program(&Config{Flow: later}, store)
	get(t, client, srv.URL+"/other")
	require.Zero(t, later.asked.Load())
	require.Empty(t, paths(srv)[metaServer])
	require.Len(t, srv.TokenRequests(), 1)
	refresh := srv.TokenRequests()[0]
	require.Equal(t, "refresh_token", refresh.GrantType)
	require.Equal(t, []string{srv.URL}, refresh.Form["resource"])
}

// A token that is known to have expired is refreshed without asking anybody but the token endpoint.
func TestLaterProcessRefreshesWithoutDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := authtest.NewPipeServer(&authtest.OAuth{})
		defer srv.Close()
		store := filestore.New(filepath.Join(t.TempDir(), "login"))
		client, _ := bubbled(srv, &Config{Flow: &person{open: srv.Approve}}, store)
		get(t, client, srv.URL)
		time.Sleep(2 * time.Hour)
		srv.Reset()
		client, _ = bubbled(srv, &Config{Flow: &person{open: func(context.Context, string) error { return errors.New("nobody is there") }}}, store)
		get(t, client, srv.URL)
		require.Empty(t, paths(srv))
		require.Equal(t, authtest.Counts{Requests: 1, Accepted: 1, TokenRequests: 1}, srv.Counts())
	})
}

func TestByADevice(t *testing.T) {
	if thorough.Or(false, true) {
		t.Skip("it waits for a second, which others do by the clock of a bubble: set AUTHRETRY_TESTS=all")
	}
	t.Parallel()
	oauth := &authtest.OAuth{DeviceInterval: time.Second}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	client, _ := program(&Config{Flow: &person{open: authtest.Approve, by: "device"}}, nil)
	get(t, client, srv.URL)
	require.Equal(t, 1, oauth.Logins())
}

// An issuer that wants no resource with a refresh is asked once more, once.
func TestRefreshWithoutTheResourceWhereThatIsNotWanted(t *testing.T) {
	oauth := &authtest.OAuth{NoResourceOnRefresh: true}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	store := filestore.New(filepath.Join(t.TempDir(), "login"))
	client, tokens := program(&Config{Flow: approving()}, store)
	get(t, client, srv.URL)
	refreshes := func() (n int) {
		for _, r := range srv.TokenRequests() {
			if r.GrantType == "refresh_token" {
				n++
			}
		}
		return n
	}
	for i, want := range []int{2, 3, 4} {
		_, err := tokens.Refresh(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, want, refreshes(), "refresh %d", i)
	}
	_, tokens = program(&Config{Flow: approving()}, store)
	_, err := tokens.Token()
	require.NoError(t, err)
	got, err := tokens.Refresh(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, 5, refreshes(), "it is saved with the login")
	require.Equal(t, srv.URL, authretry.RecordOf(got).Resource, "and the token is for the resource all the same")
}

func TestStepUpUnitesScopes(t *testing.T) {
	oauth := &authtest.OAuth{Scope: "read"}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	p := approving()
	client, _ := program(&Config{Flow: p}, nil)
	get(t, client, srv.URL)
	require.Equal(t, []string{"read"}, p.last.Load().Scopes)

	srv.Inject("/write", 1, authtest.Reply(403, http.Header{"Www-Authenticate": {`Bearer error="insufficient_scope", scope="write", resource_metadata="` + srv.URL + metaResource + `"`}}, ""))
	get(t, client, srv.URL+"/write")
	require.EqualValues(t, 2, p.asked.Load())
	require.ElementsMatch(t, []string{"read", "write"}, p.last.Load().Scopes)
	require.Equal(t, 2, paths(srv)["/oauth/register"], "each listener has another port, and so another registration")
}

func TestScopesThatAreAskedFor(t *testing.T) {
	for name, c := range map[string]struct {
		oauth *authtest.OAuth
		edit  map[string]any // of the resource's metadata
		conf  *Config
		want  []string
	}{
		"of the challenge":   {oauth: &authtest.OAuth{Scope: "a b"}, edit: map[string]any{"scopes_supported": []string{"c"}}, want: []string{"a", "b"}},
		"of the resource":    {edit: map[string]any{"scopes_supported": []string{"c", "d"}}, want: []string{"c", "d"}},
		"none":               {edit: map[string]any{"scopes_supported": nil}},
		"offline_access":     {oauth: &authtest.OAuth{Scope: "a", Scopes: []string{"a", "offline_access"}}, want: []string{"a", "offline_access"}},
		"of the program":     {oauth: &authtest.OAuth{Scope: "a"}, conf: &Config{Scopes: []string{"z", "a"}}, want: []string{"z", "a"}},
		"filtered":           {oauth: &authtest.OAuth{Scope: "a", Scopes: []string{"a", "offline_access"}}, conf: &Config{ScopeFilter: func(s []string) []string { return s[:1] }}, want: []string{"a"}},
		"those that are bad": {edit: map[string]any{"scopes_supported": []string{"a b", `"`, "ok", ""}}, want: []string{"ok"}},
	} {
		t.Run(name, func(t *testing.T) {
			oauth := cmp.Or(c.oauth, &authtest.OAuth{})
			oauth.Edit = func(path string, doc map[string]any) {
				if path == metaResource {
					for k, v := range c.edit {
						doc[k] = v
					}
				}
			}
			srv := authtest.NewServer(oauth)
			defer srv.Close()
			p := approving()
			conf := cmp.Or(c.conf, &Config{})
			conf.Flow = p
			client, _ := program(conf, nil)
			get(t, client, srv.URL)
			require.Equal(t, c.want, p.last.Load().Scopes)
		})
	}
}

func TestPushedRequests(t *testing.T) {
	oauth := &authtest.OAuth{RequirePushed: true}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	client, _ := program(&Config{Flow: approving()}, nil)
	get(t, client, srv.URL)
	require.Equal(t, 1, paths(srv)["/oauth/par"])
}

func TestClients(t *testing.T) {
	for name, c := range map[string]struct {
		oauth      *authtest.OAuth
		conf       func(issuer string) *Config
		registered int
		id         string
		want       error
	}{
		"named here":                 {oauth: &authtest.OAuth{ClientID: "me", ClientSecret: "s"}, conf: func(i string) *Config { return &Config{Clients: []Client{{i, "me", authretry.SecretBasic("s")}}} }, id: "me"},
		"named without issuer":       {oauth: &authtest.OAuth{ClientID: "me"}, conf: func(string) *Config { return &Config{Clients: []Client{{ID: "me"}}} }, id: "me"},
		"of another issuer":          {oauth: &authtest.OAuth{ClientID: "me", NoRegistration: true}, conf: func(string) *Config { return &Config{Clients: []Client{{Issuer: "https://other", ID: "me"}}} }, want: ErrNoClient},
		"metadata document":          {oauth: &authtest.OAuth{MetadataDocuments: true}, conf: func(string) *Config { return &Config{ClientMetadataURL: "https://client.example.com/me.json"} }, id: "https://client.example.com/me.json"},
		"document that is not taken": {conf: func(string) *Config { return &Config{ClientMetadataURL: "https://client.example.com/me.json"} }, registered: 1},
		"registered":                 {conf: func(string) *Config { return &Config{} }, registered: 1},
		"registered with a secret":   {oauth: &authtest.OAuth{RegisterSecrets: true}, conf: func(string) *Config { return &Config{} }, registered: 1},
		"nothing":                    {conf: func(string) *Config { return &Config{NoRegistration: true} }, want: ErrNoClient},
	} {
		t.Run(name, func(t *testing.T) {
			srv := authtest.NewServer(cmp.Or(c.oauth, &authtest.OAuth{}))
			defer srv.Close()
			conf := c.conf(srv.URL)
			conf.Flow = approving()
			store := filestore.New(filepath.Join(t.TempDir(), "login"))
			client, _ := program(conf, store)
			if c.want != nil {
				_, err := client.Get(srv.URL)
				require.ErrorIs(t, err, c.want)
				require.ErrorIs(t, err, authretry.ErrLoginRequired)
				require.Empty(t, srv.TokenRequests())
				return
			}
			get(t, client, srv.URL)
			require.Equal(t, c.registered, paths(srv)["/oauth/register"])
			id := srv.TokenRequests()[0].ClientID
			if c.id != "" {
				require.Equal(t, c.id, id)
			}

			// The same client refreshes, in another process too.
			conf = c.conf(srv.URL)
			conf.Flow = approving()
			_, tokens := program(conf, store)
			_, err := tokens.Token()
			require.NoError(t, err)
			_, err = tokens.Refresh(t.Context(), nil)
			require.NoError(t, err)
			last := srv.TokenRequests()[1]
			require.Equal(t, id, last.ClientID)
			require.Equal(t, authtest.Accepted, last.Decision)
			require.Equal(t, c.registered, paths(srv)["/oauth/register"])
		})
	}
}

// A client that was registered on demand, and is not known any more, is registered again with the next login.
func TestClientThatWasForgotten(t *testing.T) {
	oauth := &authtest.OAuth{}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	store := filestore.New(filepath.Join(t.TempDir(), "login"))
	p := approving()
	client, _ := program(&Config{Flow: p}, store)
	get(t, client, srv.URL)
	oauth.ForgetClients()
	oauth.ExpireNow()
	get(t, client, srv.URL)
	require.EqualValues(t, 2, p.asked.Load())
	require.Equal(t, 2, paths(srv)["/oauth/register"])
}

// What a refresh has found out of a client, the login that follows goes by.
func TestClientThatWasForgottenBeforeARefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		oauth := &authtest.OAuth{DeviceInterval: time.Second}
		srv := authtest.NewPipeServer(oauth)
		defer srv.Close()
		client, _ := bubbled(srv, &Config{Flow: &person{open: srv.Approve, by: "device"}}, nil)
		get(t, client, srv.URL)
		oauth.ForgetClients()
		oauth.ExpireNow()
		get(t, client, srv.URL)
		require.Equal(t, 2, paths(srv)["/oauth/register"])
		require.Equal(t, 2, paths(srv)["/oauth/device"], "the client is not tried again")
	})
}

// One that is refused at the beginning of a login is registered again at once, and the login goes on.
func TestClientThatWasForgottenBeforeALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		oauth := &authtest.OAuth{DeviceInterval: time.Second}
		srv := authtest.NewPipeServer(oauth)
		defer srv.Close()
		p := &person{open: srv.Approve, by: "device"}
		client, tokens := bubbled(srv, &Config{Flow: p}, nil)
		get(t, client, srv.URL)
		require.NoError(t, tokens.Logout(t.Context()))
		get(t, client, srv.URL)
		require.Equal(t, 1, paths(srv)["/oauth/register"], "the client stays, since a device has no redirect URI")
		require.NoError(t, tokens.Logout(t.Context()))
		oauth.ForgetClients()
		get(t, client, srv.URL)
		require.Equal(t, 2, paths(srv)["/oauth/register"])
		require.Equal(t, 3, oauth.Logins())

		// A new one that is refused is not tried for ever.
		require.NoError(t, tokens.Logout(t.Context()))
		oauth.ForgetClients()
		srv.Inject("/oauth/device", -1, authtest.TokenError("invalid_client"))
		_, err := client.Get(srv.URL)
		require.ErrorIs(t, err, authretry.ErrLoginRequired)
		require.Equal(t, 3, paths(srv)["/oauth/register"])
	})
}

func TestResourceThatWantsBoundTokens(t *testing.T) {
	oauth := &authtest.OAuth{Edit: func(path string, doc map[string]any) {
		if path == metaResource {
			doc["dpop_bound_access_tokens_required"] = true
		}
	}}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	p := approving()
	client, _ := program(&Config{Flow: p}, nil)
	_, err := client.Get(srv.URL)
	require.ErrorIs(t, err, ErrBoundTokens)
	require.Zero(t, p.asked.Load())

	c := &Config{Grant: func(*authretry.TokenEndpoint, *Server) authretry.FetchFunc {
		return func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
			return nil, errors.New("a token was asked for")
		}
	}}
	_, err = c.Fetch(t.Context(), authretry.TokenRequest{URL: srv.URL, RemoteAddr: "127.0.0.1:1", Challenge: &authretry.Challenge{}})
	require.ErrorIs(t, err, ErrBoundTokens)
}

func TestAlgorithmsOfProofs(t *testing.T) {
	oauth := &authtest.OAuth{Edit: func(path string, doc map[string]any) {
		if doc["dpop_signing_alg_values_supported"] = []string{"ES256"}; path == metaResource {
			doc["dpop_signing_alg_values_supported"] = []string{"ES512", "EdDSA"}
		}
	}}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	r, s, err := new(Config).Discover(t.Context(), authretry.TokenRequest{URL: srv.URL, RemoteAddr: "127.0.0.1:1", Challenge: &authretry.Challenge{}})
	require.NoError(t, err)
	require.Equal(t, []string{"ES512", "EdDSA"}, r.ProofAlgorithms)
	require.Equal(t, []string{"ES256"}, s.ProofAlgorithms)
}

// A resource that trusts another authorization server than before gets another login. Nothing of the old one goes there.
func TestResourceThatMoves(t *testing.T) {
	old, now := &authtest.OAuth{}, &authtest.OAuth{}
	oldSrv, newSrv := authtest.NewServer(old), authtest.NewServer(now)
	defer oldSrv.Close()
	defer newSrv.Close()
	resource := &authtest.OAuth{At: old}
	var moved atomic.Bool
	resource.Edit = func(_ string, doc map[string]any) {
		if moved.Load() {
			doc["authorization_servers"] = []string{newSrv.URL}
		}
	}
	srv := authtest.NewServer(resource)
	defer srv.Close()
	store := filestore.New(filepath.Join(t.TempDir(), "login"))
	p := approving()
	client, _ := program(&Config{Flow: p}, store)
	get(t, client, srv.URL)
	require.Equal(t, 1, old.Logins())

	moved.Store(true)
	oldSrv.Reset()
	old.ExpireNow()
	client, _ = program(&Config{Flow: p}, store)
	_, err := client.Get(srv.URL) // which takes tokens of the old one only
	require.NoError(t, err)
	require.Equal(t, 1, now.Logins())
	require.Empty(t, oldSrv.TokenRequests())
	for _, r := range newSrv.TokenRequests() {
		require.NotEqual(t, "refresh_token", r.GrantType)
	}
}

func TestLogoutRevokes(t *testing.T) {
	oauth := &authtest.OAuth{RegisterSecrets: true}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	client, tokens := program(&Config{Flow: approving()}, filestore.New(filepath.Join(t.TempDir(), "login")))
	get(t, client, srv.URL)
	before, err := tokens.Token()
	require.NoError(t, err)
	require.NoError(t, tokens.Logout(t.Context()))
	require.Equal(t, 2, paths(srv)["/oauth/revoke"], "the refresh token, and the access token")
	plain := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: before.AccessToken})})}
	resp, err := plain.Get(srv.URL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 401, resp.StatusCode)

	get(t, client, srv.URL) // logs in again
	require.Equal(t, 2, oauth.Logins())
}

func TestDeclined(t *testing.T) {
	oauth := &authtest.OAuth{}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	p := &person{open: authtest.Decline}
	client, _ := program(&Config{Flow: p}, nil)
	for range 3 {
		_, err := client.Get(srv.URL)
		require.ErrorIs(t, err, authretry.ErrLoginRequired)
		require.ErrorIs(t, err, login.ErrDeclined)
	}
	require.EqualValues(t, 1, p.asked.Load(), "nobody is asked again at once")
}

func TestByAGrantWithoutAPerson(t *testing.T) {
	oauth := &authtest.OAuth{Scope: "read", ClientID: "me", ClientSecret: "s"}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	c := &Config{Clients: []Client{{Issuer: srv.URL, ID: "me", Auth: authretry.SecretPost("s")}},
		Grant: func(e *authretry.TokenEndpoint, _ *Server) authretry.FetchFunc { return e.ClientCredentials() }}
	tokens := &authretry.TokenSource{Fetch: c.Fetch, MinRefreshInterval: -1}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}
	get(t, client, srv.URL)
	require.Equal(t, "read", srv.TokenRequests()[0].Scope)
	require.Equal(t, map[string]int{metaResource: 1, metaServer: 1}, paths(srv))
	for range 3 {
		_, err := tokens.Refresh(t.Context(), nil)
		require.NoError(t, err)
	}
	require.Equal(t, map[string]int{metaResource: 1, metaServer: 1}, paths(srv), "what was discovered is remembered")
	require.Len(t, srv.TokenRequests(), 4)
	require.Equal(t, "read", srv.TokenRequests()[3].Scope)
}

// With Resource, a token can be had before anybody has asked for one.
func TestBeforeAnyChallenge(t *testing.T) {
	oauth := &authtest.OAuth{ResourcePath: "/api"}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	c := &Config{Resource: srv.URL + "/api", Flow: approving()}
	_, tokens := program(c, nil)
	got, err := tokens.Token()
	require.NoError(t, err)
	require.Equal(t, srv.URL+"/api", authretry.RecordOf(got).Resource)

	_, tokens = program(&Config{Flow: approving()}, nil)
	_, err = tokens.Token()
	require.ErrorIs(t, err, authretry.ErrChallengeRequired)
	require.ErrorContains(t, err, "name the resource in discover.Config.Resource, or send it a request first")
}

// A token goes to the origin of its resource alone.
func TestTokenGoesToItsResourceOnly(t *testing.T) {
	oauth := &authtest.OAuth{}
	srv, other := authtest.NewServer(oauth), authtest.NewServer()
	defer srv.Close()
	defer other.Close()
	client, _ := program(&Config{Flow: approving()}, nil)
	get(t, client, srv.URL)
	_, err := client.Get(other.URL)
	require.ErrorContains(t, err, "RFC 8707")
	require.Empty(t, other.Requests())
}

func TestIssuerOfTheAnswer(t *testing.T) {
	// A mix-up: the answer comes from another server than the one that was asked (RFC 9207).
	oauth := &authtest.OAuth{}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	srv.Inject("/oauth/decide", 1, authtest.Reply(200, nil, ""))
	p := &person{open: func(ctx context.Context, u string) error {
		if err := authtest.Approve(ctx, u); err != nil {
			return err
		}
		at := strings.Split(strings.Split(u, "redirect_uri=")[1], "&")[0]
		state := strings.Split(strings.Split(u, "state=")[1], "&")[0]
		at = strings.NewReplacer("%3A", ":", "%2F", "/").Replace(at)
		resp, err := http.Get(at + "?code=x&iss=https://evil.example.com&state=" + state)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}}
	client, _ := program(&Config{Flow: p}, nil)
	_, err := client.Get(srv.URL)
	require.ErrorIs(t, err, login.ErrIssuer)
	require.Empty(t, srv.TokenRequests())
}

func TestOriginIsIssuer(t *testing.T) {
	oauth := &authtest.OAuth{}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	srv.Inject(metaResource, -1, authtest.Reply(404, nil, ""))
	srv.Inject("/", -1, authtest.RewriteChallenges(func([]string) []string { return []string{"Bearer"} }))
	client, _ := program(&Config{Flow: approving()}, nil)
	_, err := client.Get(srv.URL)
	require.ErrorIs(t, err, ErrNoMetadata)
	client, _ = program(&Config{Flow: approving(), OriginIsIssuer: true}, nil)
	get(t, client, srv.URL)
	require.True(t, slices.Equal(srv.TokenRequests()[0].Form["resource"], []string{srv.URL}))
}
