package discover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/internal/dnstest"
	"github.com/authretry/authretry/internal/guarded"
	"github.com/authretry/authretry/login"
)

func TestURLsThatMayBeNamed(t *testing.T) {
	c := &Config{}
	for named, want := range map[string]bool{
		"https://as.example.com/x": true, "https://as.example.com:8443/x?y=z": true, "http://127.0.0.1:1/x": true, "http://localhost/": true,
		"/x": false, "x": false, "//as.example.com/x": false, "": false, "http://as.example.com/": false,
	} {
		_, err := c.check(outside("http://127.0.0.1/mcp"), named)
		require.Equal(t, want, err == nil, named)
	}
	_, err := c.check(outside("https://api.example.com/mcp"), "http://127.0.0.1:1/x")
	require.ErrorAs(t, err, new(*guarded.RefusedError), "http where the namer is on https")
}

func TestDocuments(t *testing.T) {
	for _, text := range []string{`[1]`, `null`, `"x"`, `7`, `{`, ``} {
		_, err := parse([]byte(text))
		require.EqualError(t, err, "its answer is not a JSON object", text)
	}
	for text, want := range map[string]string{
		`{"resource":["a"]}`:                               "its resource is of a wrong type",
		`{"resource":"a","authorization_servers":"b"}`:     "its authorization_servers is of a wrong type",
		`{"resource":"a","authorization_servers":[1]}`:     "its authorization_servers is of a wrong type",
		`{"resource":"a","scopes_supported":{}}`:           "its scopes_supported is of a wrong type",
		`{"RESOURCE":"a"}`:                                 "its resource is missing, or too long", // names are compared as they are
		`{"resource":"` + strings.Repeat("a", 2049) + `"}`: "its resource is missing, or too long",
		`{"resource":"a","authorization_servers":null}`:    "",
	} {
		doc, err := parse([]byte(text))
		require.NoError(t, err)
		if _, err = readResource(doc); want == "" {
			require.NoError(t, err)
		} else {
			require.EqualError(t, err, want)
		}
	}
}

func TestScopesThatCanBeSent(t *testing.T) {
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprint("s", i))
	}
	require.Equal(t, many[:maxScopes], validScopes(many))
	long := strings.Repeat("a", 4094)
	require.Equal(t, []string{long}, validScopes([]string{long, "x", "y"}))
	require.Empty(t, validScopes([]string{"", " ", "a b", `a"`, `a\`, "ä", "a\n"}))
}

func TestNamesOfPlaces(t *testing.T) {
	for u, want := range map[string][2]string{
		"https://Api.example.com/x":      {"Api.example.com:443", "https://api.example.com"},
		"http://api.example.com":         {"api.example.com:80", "http://api.example.com"},
		"https://api.example.com:443":    {"api.example.com:443", "https://api.example.com"},
		"http://api.example.com:443":     {"api.example.com:443", "http://api.example.com:443"},
		"https://[2001:db8::1]:8443/x":   {"[2001:db8::1]:8443", "https://[2001:db8::1]:8443"},
		"https://api.example.com:8080/x": {"api.example.com:8080", "https://api.example.com:8080"},
	} {
		p, _ := url.Parse(u)
		require.Equal(t, want, [2]string{hostPort(p), guarded.Origin(p)}, u)
	}
	require.Equal(t, "127.0.0.1", addrOf("LOCALHOST").String())
	require.Equal(t, "::1", addrOf("::1").String())
	require.False(t, addrOf("api.example.com").IsValid())
}

// A server that is there, and does not answer, is not asked elsewhere; one that has nothing is.
func TestServerThatHangsUp(t *testing.T) {
	var connections atomic.Int32
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			conn.Close()
		}
	}()
	at := "http://" + l.Addr().String()
	_, err = new(Config).server(t.Context(), outside(at+"/mcp"), at+"/tenant")
	require.Error(t, err)
	home := outside(at + "/mcp")
	home.addr = addrOf("127.0.0.1")
	_, err = new(Config).server(t.Context(), home, at+"/tenant")
	require.ErrorIs(t, err, ErrUnreachable)
	require.EqualValues(t, 1, connections.Load())
	_, err = new(Config).resource(t.Context(), &target{at: home})
	require.ErrorIs(t, err, ErrUnreachable)
	require.EqualValues(t, 2, connections.Load())
}

// An issuer that the program names may be on http here, although the resource is on https elsewhere.
func TestNamedIssuerIsAskedForItsOwnSake(t *testing.T) {
	oauth := &authtest.OAuth{}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	_, err := (&Config{Issuers: []string{srv.URL}}).server(t.Context(), outside("https://api.example.com"), srv.URL)
	require.NoError(t, err)
	_, err = new(Config).server(t.Context(), outside("https://api.example.com"), srv.URL)
	require.ErrorIs(t, err, ErrRefusedURL)
}

func TestTargets(t *testing.T) {
	known := &authretry.Record{Resource: "https://api.example.com/mcp", Extra: map[string]string{extraMetadata: "https://api.example.com/meta", extraResourceAddr: "10.0.0.7"}}
	challenge := &authretry.Challenge{Params: authretry.Params{{Name: "resource_metadata", Value: "https://api.example.com/new"}}}
	for name, c := range map[string]struct {
		conf                *Config
		r                   authretry.TokenRequest
		known               *authretry.Record
		at, metadata, addr  string
		resource            string
		isChallengeRequired bool
	}{
		"challenge":          {&Config{}, authretry.TokenRequest{URL: "https://u:p@api.example.com/x?q#f", RemoteAddr: "8.8.8.8:443", Challenge: challenge}, known, "https://api.example.com/x", "https://api.example.com/new", "8.8.8.8", "", false},
		"no metadata":        {&Config{}, authretry.TokenRequest{URL: "https://api.example.com/x", Challenge: &authretry.Challenge{}}, known, "https://api.example.com/x", "", "invalid IP", "", false},
		"an address":         {&Config{}, authretry.TokenRequest{URL: "http://127.0.0.1/x"}, &authretry.Record{}, "http://127.0.0.1/x", "", "127.0.0.1", "", false},
		"a saved login":      {&Config{}, authretry.TokenRequest{}, known, "https://api.example.com/mcp", "https://api.example.com/meta", "10.0.0.7", "", false},
		"the program's":      {&Config{Resource: "https://api.example.com/v2"}, authretry.TokenRequest{}, known, "https://api.example.com/v2", "", "10.0.0.7", "https://api.example.com/v2", false},
		"the program's, too": {&Config{Resource: "https://api.example.com/mcp"}, authretry.TokenRequest{}, known, "https://api.example.com/mcp", "https://api.example.com/meta", "10.0.0.7", "https://api.example.com/mcp", false},
		"nothing":            {&Config{}, authretry.TokenRequest{}, &authretry.Record{}, "", "", "", "", true},
	} {
		got, err := c.conf.targetOf(&c.r, c.known)
		if c.isChallengeRequired {
			require.ErrorIs(t, err, authretry.ErrChallengeRequired)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, []string{c.at, c.metadata, c.addr, c.resource}, []string{got.at.url.String(), got.metadata, got.at.addr.String(), got.resource}, name)
	}

	// What refuses is not where the login is for.
	for _, at := range []string{"https://other.example.com/mcp", "http://api.example.com/mcp", "https://api.example.com:8443/mcp"} {
		_, err := new(Config).targetOf(&authretry.TokenRequest{URL: at, Challenge: challenge}, known)
		require.ErrorIs(t, err, ErrOtherResource)
	}
	for _, resource := range []string{"urn:x", "api://client", "api", ""} { // of a login by other means, which says not where
		_, err := new(Config).targetOf(&authretry.TokenRequest{URL: "https://other.example.com/mcp", Challenge: challenge}, &authretry.Record{Resource: resource})
		require.NoError(t, err)
	}
}

// What is saved with a login is what a later process goes by.
func TestWhatIsSaved(t *testing.T) {
	oauth := &authtest.OAuth{}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	client, tokens := program(&Config{Flow: approving()}, nil)
	get(t, client, srv.URL)
	tok, err := tokens.Token()
	require.NoError(t, err)
	r := authretry.RecordOf(tok)
	require.Equal(t, srv.URL, r.Issuer)
	require.Equal(t, srv.URL+"/oauth/token", r.TokenURL)
	redirect := r.Extra[extraRedirectURI]
	require.True(t, strings.HasPrefix(redirect, "http://127.0.0.1:"))
	require.Equal(t, map[string]string{extraMetadata: srv.URL + metaResource, extraHome: "127.0.0.1", extraResourceAddr: "127.0.0.1",
		extraRevocation: srv.URL + "/oauth/revoke", extraMethod: "none", extraRedirectURI: redirect}, r.Extra)
}

// A server that does not say what it has granted has granted what was asked for (RFC 6749 §5.1).
func TestScopesThatWereGrantedSilently(t *testing.T) {
	oauth := &authtest.OAuth{Scope: "read"}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	silent := flowFunc(func(context.Context, *login.Authorization) (*oauth2.Token, error) {
		return &oauth2.Token{AccessToken: oauth.Login("read").AccessToken}, nil
	})
	client, tokens := program(&Config{Flow: silent, Scopes: []string{"more"}}, nil)
	get(t, client, srv.URL)
	tok, err := tokens.Token()
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"read", "more"}, authretry.RecordOf(tok).Scopes)
}

type flowFunc func(context.Context, *login.Authorization) (*oauth2.Token, error)

func (f flowFunc) Login(ctx context.Context, a *login.Authorization) (*oauth2.Token, error) {
	return f(ctx, a)
}

// The client of a saved login is that login's issuer's, though Clients does not say so.
func TestClientOfASavedLogin(t *testing.T) {
	old, now := &authtest.OAuth{ClientID: "me"}, &authtest.OAuth{ClientID: "me", NoRegistration: true}
	oldSrv, newSrv := authtest.NewServer(old), authtest.NewServer(now)
	defer oldSrv.Close()
	defer newSrv.Close()
	previous := authretry.WithRecord(&oauth2.Token{AccessToken: "a", RefreshToken: "r"}, authretry.Record{Issuer: oldSrv.URL, TokenURL: oldSrv.URL + "/oauth/token", ClientID: "me", Resource: newSrv.URL})
	for _, step := range []func(*Config) error{
		func(c *Config) error {
			_, err := c.Login(t.Context(), authretry.TokenRequest{Previous: previous, URL: newSrv.URL + "/"})
			return err
		},
		func(c *Config) error {
			_, _ = c.Fetch(t.Context(), authretry.TokenRequest{Previous: previous}) // which fails, and has said whose it is
			_, err := c.Login(t.Context(), authretry.TokenRequest{URL: newSrv.URL + "/"})
			return err
		},
	} {
		require.ErrorIs(t, step(&Config{Flow: approving(), Clients: []Client{{ID: "me", Auth: authretry.SecretBasic("s")}}}), ErrNoClient)
	}
	require.Empty(t, newSrv.TokenRequests())
}

// A saved login of an authorization server that is not in Issuers any more does not keep the client from the one that has taken its
// place there.
func TestClientWhereIssuersHaveChanged(t *testing.T) {
	srv := authtest.NewServer(&authtest.OAuth{ClientID: "me", ClientSecret: "s", NoRegistration: true})
	defer srv.Close()
	previous := authretry.WithRecord(&oauth2.Token{AccessToken: "a", RefreshToken: "r"}, authretry.Record{Issuer: "https://old.example.com",
		TokenURL: "https://old.example.com/token", ClientID: "me", Resource: srv.URL})
	c := &Config{Flow: approving(), Issuers: []string{srv.URL}, Clients: []Client{{ID: "me", Auth: authretry.SecretBasic("s")}}}
	_, err := c.Fetch(t.Context(), authretry.TokenRequest{Previous: previous})
	require.ErrorIs(t, err, authretry.ErrLoginRequired)
	got, err := c.Login(t.Context(), authretry.TokenRequest{Previous: previous, URL: srv.URL + "/"})
	require.NoError(t, err)
	require.Equal(t, srv.URL, authretry.RecordOf(got).Issuer)
}

// Of two clients with one name, a saved login gets the secret that is for its issuer, and leaves the other one to others.
func TestClientOfItsIssuerComesFirst(t *testing.T) {
	own, other := authretry.SecretBasic("own"), authretry.SecretBasic("other")
	c := &Config{Clients: []Client{{ID: "me", Auth: other}, {Issuer: "https://first", ID: "me", Auth: own}}}
	known := &authretry.Record{ClientID: "me", Issuer: "https://first", TokenURL: "https://first/token"}
	c.bind(known)
	who, _, err := c.saved(known)
	require.NoError(t, err)
	require.Same(t, own, who.auth)
	who, ok := c.named("https://second")
	require.True(t, ok)
	require.Same(t, other, who.auth)
}

// A registration that was refused is none, whatever the answer has.
func TestRegistrationThatIsRefused(t *testing.T) {
	for _, status := range []int{200, 201, 202, 400, 403, 500} {
		oauth := &authtest.OAuth{}
		srv := authtest.NewServer(oauth)
		srv.Inject("/oauth/register", 1, authtest.Reply(status, http.Header{"Content-Type": {"application/json"}}, `{"client_id":"c"}`))
		c := &Config{}
		_, s, err := c.Discover(t.Context(), authretry.TokenRequest{URL: srv.URL})
		require.NoError(t, err)
		_, err = c.register(t.Context(), s, "http://127.0.0.1:1/")
		switch {
		case status == 200 || status == 201:
			require.NoError(t, err)
		case status >= 500:
			require.ErrorIs(t, err, ErrOutOfOrder)
		default:
			require.ErrorIs(t, err, ErrRegistration)
			require.ErrorContains(t, err, fmt.Sprint(status))
		}
		srv.Close()
	}
	c := &Config{Registration: map[string]any{"x": func() {}}}
	_, err := c.register(t.Context(), &Server{at: outside("https://a"), RegistrationURL: "https://a/"}, "")
	require.ErrorIs(t, err, ErrRegistration)
}

// A client that an issuer does not know any more is not taken from a saved login either.
func TestRefusedClientStaysRefused(t *testing.T) {
	c := &Config{}
	known := &authretry.Record{Issuer: "https://a", ClientID: "me", Extra: map[string]string{extraMethod: "none"}}
	require.NotNil(t, c.kept("https://a", known))
	require.Nil(t, c.kept("https://b", known))
	keep(&c.registered, "https://a", &registered{id: "me"})
	c.forget("https://a", "me")
	require.Nil(t, c.kept("https://a", known))
	require.Nil(t, c.registered["https://a"])
}

// Where it was not the resource that a refresh was refused for, the first answer counts, and nothing is remembered; unless the
// second says that the refresh token is not good.
func TestRefusalThatWasNotAboutTheResource(t *testing.T) {
	for name, c := range map[string]struct {
		answers []string
		sends   int
		unnamed bool
		want    string
	}{
		"about it":       {answers: []string{"invalid_target", ""}, sends: 2, unnamed: true},
		"not about it":   {answers: []string{"invalid_request", "invalid_scope"}, sends: 2, want: "invalid_request"},
		"grant":          {answers: []string{"invalid_grant"}, sends: 1, want: "invalid_grant"},
		"grant, then":    {answers: []string{"invalid_request", "invalid_grant"}, sends: 2, want: "invalid_grant"},
		"client":         {answers: []string{"unauthorized_client"}, sends: 1, want: "unauthorized_client"},
		"nonce for ever": {answers: []string{"use_dpop_nonce"}, sends: 1, want: "use_dpop_nonce"},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			conf := &Config{}
			got, err := conf.naming(t.Context(), "https://a", func() (*oauth2.Token, error) {
				code := c.answers[n]
				require.Equal(t, n > 0, conf.isUnnamed("https://a"))
				if n++; code == "" {
					return &oauth2.Token{AccessToken: "a"}, nil
				}
				return nil, &oauth2.RetrieveError{Response: &http.Response{StatusCode: 400}, ErrorCode: code}
			})
			require.Equal(t, c.sends, n)
			require.Equal(t, c.unnamed, conf.isUnnamed("https://a"))
			if c.want == "" {
				require.NoError(t, err)
				require.NotNil(t, got)
				return
			}
			r, ok := errors.AsType[*oauth2.RetrieveError](err)
			require.True(t, ok)
			require.Equal(t, c.want, r.ErrorCode)
		})
	}
	for status, want := range map[int]bool{400: true, 401: false, 403: false, 500: false} {
		require.Equal(t, want, wantsNoResource(&oauth2.RetrieveError{Response: &http.Response{StatusCode: status}}))
	}
	require.False(t, wantsNoResource(errors.New("x")))
}

// A resource that has refused a token is asked whom it trusts only if it says where, and its word counts only if it has one.
func TestWhenAResourceHasMoved(t *testing.T) {
	oauth := &authtest.OAuth{}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	named := &authretry.Challenge{Params: authretry.Params{{Name: "resource_metadata", Value: srv.URL + metaResource}}}
	stepUp := &authretry.Challenge{Params: append(slices.Clone(named.Params), authretry.Param{Name: "error", Value: "insufficient_scope"})}
	for name, c := range map[string]struct {
		r      authretry.TokenRequest
		known  authretry.Record
		edit   func(map[string]any)
		moved  bool
		asksIt bool
	}{
		"the same":         {r: authretry.TokenRequest{URL: srv.URL, Challenge: named}, known: authretry.Record{Issuer: srv.URL, Resource: srv.URL}, asksIt: true},
		"another":          {r: authretry.TokenRequest{URL: srv.URL, Challenge: named}, known: authretry.Record{Issuer: "https://old", Resource: srv.URL}, asksIt: true, moved: true},
		"no challenge":     {r: authretry.TokenRequest{}, known: authretry.Record{Issuer: "https://old", Resource: srv.URL}},
		"no metadata":      {r: authretry.TokenRequest{URL: srv.URL, Challenge: &authretry.Challenge{}}, known: authretry.Record{Issuer: "https://old", Resource: srv.URL}},
		"step-up":          {r: authretry.TokenRequest{URL: srv.URL, Challenge: stepUp}, known: authretry.Record{Issuer: "https://old", Resource: srv.URL}},
		"another resource": {r: authretry.TokenRequest{URL: srv.URL, Challenge: named}, known: authretry.Record{Issuer: "https://old", Resource: "https://other"}},
		"a bad URL":        {r: authretry.TokenRequest{URL: "::", Challenge: named}, known: authretry.Record{Issuer: "https://old", Resource: srv.URL}},
		"damaged": {r: authretry.TokenRequest{URL: srv.URL, Challenge: named}, known: authretry.Record{Issuer: "https://old", Resource: srv.URL}, asksIt: true,
			edit: func(doc map[string]any) { doc["resource"] = "https://x" }},
		"names nobody": {r: authretry.TokenRequest{URL: srv.URL, Challenge: named}, known: authretry.Record{Issuer: "https://old", Resource: srv.URL}, asksIt: true,
			edit: func(doc map[string]any) { delete(doc, "authorization_servers") }},
	} {
		srv.Reset()
		if c.edit != nil {
			doc := map[string]any{"resource": srv.URL, "authorization_servers": []string{srv.URL}}
			c.edit(doc)
			srv.Inject(metaResource, 1, replyJSON(t, doc))
		}
		require.Equal(t, c.moved, new(Config).hasMoved(t.Context(), &c.r, &c.known), name)
		require.Equal(t, c.asksIt, srv.Counts().AuthRequests+srv.Counts().Injected == 1, name)
	}
}

// What Grant goes by is found again when the token is replaced, by whatever path the first request went.
func TestGrantRemembersByTheResource(t *testing.T) {
	oauth := &authtest.OAuth{ClientID: "me", ClientSecret: "s"}
	srv := authtest.NewServer(oauth)
	defer srv.Close()
	c := &Config{Clients: []Client{{Issuer: srv.URL, ID: "me", Auth: authretry.SecretPost("s")}},
		Grant: func(e *authretry.TokenEndpoint, _ *Server) authretry.FetchFunc { return e.ClientCredentials() }}
	tokens := &authretry.TokenSource{Fetch: c.Fetch, MinRefreshInterval: -1}
	get(t, &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}, srv.URL+"/deep/path")
	before := len(paths(srv))
	_, err := tokens.Refresh(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, paths(srv), before)
	require.Equal(t, 1, paths(srv)[metaServer])

	c.Grant = func(*authretry.TokenEndpoint, *Server) authretry.FetchFunc { return nil }
	_, err = c.Fetch(t.Context(), authretry.TokenRequest{URL: srv.URL, Challenge: &authretry.Challenge{}})
	require.ErrorIs(t, err, ErrNoFlow)
	srv.Inject(metaServer, -1, authtest.Reply(404, nil, ""))
	_, err = c.Fetch(t.Context(), authretry.TokenRequest{URL: srv.URL, Challenge: &authretry.Challenge{}})
	require.ErrorIs(t, err, ErrNoMetadata)
}

// Errors say what has happened in words of our own.
func TestErrorsSayWhatHasHappened(t *testing.T) {
	for want, err := range map[string]error{
		`discover: "h": ` + ErrNoMetadata.Error() + " (it answered 404)":                                  failed("h", ErrNoMetadata, ownError("it answered 404")),
		`discover: "h": ` + ErrUnreachable.Error():                                                        failed("h", ErrNoMetadata, &url.Error{Op: "Get", URL: "https://secret", Err: errors.New("secret")}),
		`discover: "h": ` + ErrRefusedURL.Error() + " (it has no host)":                                   failed("h", ErrNoMetadata, &guarded.RefusedError{Why: "it has no host"}),
		`discover: "h": ` + ErrRefusedURL.Error() + ` ("x" is not asked, since a server has named it: y)`: failed("h", ErrNoMetadata, &guarded.RefusedError{Host: "x", Why: "y"}),
		`discover: ` + ErrNoMetadata.Error():                                                              failed("", ErrNoMetadata, nil),
	} {
		require.EqualError(t, err, want)
		require.NotErrorIs(t, err, &url.Error{})
		_, hasURL := errors.AsType[*url.Error](err)
		require.False(t, hasURL, "it has a URL in its text")
	}
}

func replyJSON(t *testing.T, doc any) authtest.Fault {
	data, err := json.Marshal(doc)
	require.NoError(t, err)
	return authtest.Reply(200, http.Header{"Content-Type": {"application/json"}}, string(data))
}

// Without any metadata, the origin of the resource is the authorization server, at the endpoints that MCP had before June 2025.
func TestOriginIsIssuerWithoutMetadata(t *testing.T) {
	m := newMissing(t)
	r := authretry.TokenRequest{URL: m.URL + "/mcp", Challenge: &authretry.Challenge{}}
	_, _, err := new(Config).Discover(t.Context(), r)
	require.ErrorIs(t, err, ErrNoMetadata)
	resource, s, err := (&Config{OriginIsIssuer: true}).Discover(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, m.URL, resource.ID)
	require.Equal(t, [4]string{m.URL, m.URL + "/authorize", m.URL + "/token", m.URL + "/register"}, [4]string{s.Issuer, s.AuthorizationURL, s.TokenURL, s.RegistrationURL})
	require.True(t, s.HasPKCE)

	resource, _, err = (&Config{OriginIsIssuer: true, Resource: m.URL + "/mcp"}).Discover(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, m.URL+"/mcp", resource.ID, "as the program calls it")

	// A resource that names its metadata has to have them, and an authorization server elsewhere has to have its own.
	r.Challenge = &authretry.Challenge{Params: authretry.Params{{Name: "resource_metadata", Value: m.URL + "/meta"}}}
	_, _, err = (&Config{OriginIsIssuer: true}).Discover(t.Context(), r)
	require.ErrorIs(t, err, ErrNoMetadata)
	other := newMissing(t)
	m.documents["/meta"] = map[string]any{"resource": m.URL, "authorization_servers": []string{other.URL}}
	for _, issuers := range [][]string{nil, {other.URL}} {
		_, _, err = (&Config{OriginIsIssuer: true, Issuers: issuers}).Discover(t.Context(), r)
		require.ErrorIs(t, err, ErrNoMetadata)
	}
}

// An authorization server beside the resource, on a private network, may be asked before the resource has refused anything.
func TestServerBesideTheResource(t *testing.T) {
	resolver, _ := dnstest.Resolver(t, map[string][]string{"inside.test.": {"127.0.0.1"}})
	at := "https://inside.test" // on this machine, by a name that does not say so
	m := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case metaResource:
			says(map[string]any{"resource": at, "authorization_servers": []string{at}})(w, r)
		case metaServer:
			says(map[string]any{"issuer": at, "token_endpoint": at + "/token"})(w, r)
		}
	}))
	defer m.Close()
	at += m.URL[strings.LastIndex(m.URL, ":"):]
	tlsConfig := m.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	tlsConfig.ServerName = "example.com"
	c := &Config{Resource: at, resolver: resolver, TLSClientConfig: tlsConfig}
	_, s, err := c.Discover(t.Context(), authretry.TokenRequest{})
	require.NoError(t, err)
	require.Equal(t, at+"/token", s.TokenURL)
}

// Whoever is told that a client is not known any more forgets that one, and not the one that took its place.
func TestOnlyTheClientThatIsNotKnownIsForgotten(t *testing.T) {
	c := &Config{registered: map[string]*registered{"i": {id: "new", method: "none"}}}
	c.forget("i", "old")
	require.NotNil(t, c.kept("i", &authretry.Record{}))
	c.forget("i", "new")
	require.Nil(t, c.kept("i", &authretry.Record{}))
}

// A grant by the JWT of somebody else may do without a client, and nobody is registered for it.
func TestGrantWithoutAClient(t *testing.T) {
	var form url.Values
	var srv *httptest.Server
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case metaResource:
			says(map[string]any{"resource": srv.URL, "authorization_servers": []string{srv.URL}})(w, r)
		case metaServer:
			says(map[string]any{"issuer": srv.URL, "token_endpoint": srv.URL + "/token", "registration_endpoint": srv.URL + "/register"})(w, r)
		case "/token":
			_ = r.ParseForm()
			form = r.PostForm
			says(map[string]any{"access_token": "a", "token_type": "Bearer"})(w, r)
		default:
			t.Errorf("%s was asked", r.URL.Path)
		}
	}))
	defer srv.Close()
	c := &Config{Grant: func(e *authretry.TokenEndpoint, _ *Server) authretry.FetchFunc {
		return e.JWTBearer(func(context.Context, authretry.TokenRequest) (string, error) { return "jwt", nil })
	}}
	_, err := c.Fetch(t.Context(), authretry.TokenRequest{URL: srv.URL, Challenge: &authretry.Challenge{}})
	require.NoError(t, err)
	require.Equal(t, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {"jwt"}, "resource": {srv.URL}}, form)
}

// An answer that is too long says so, and so does one that breaks off.
func TestAnswersThatEndBadly(t *testing.T) {
	m := newResourceServer(t)
	at := outside(m.URL)
	at.addr = addrOf("127.0.0.1")
	m.resource.Store(http.HandlerFunc(endless))
	_, err := new(Config).resource(t.Context(), &target{at: at})
	require.ErrorContains(t, err, "its answer is too long")
	m.resource.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"resource":%q,"authorization_servers":[%q]}`, m.URL, m.URL)
	}))
	_, err = new(Config).resource(t.Context(), &target{at: at})
	require.ErrorContains(t, err, "it answered 404", "whatever it says besides")
	m.resource.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "100")
		w.Write([]byte("{"))
	}))
	_, err = new(Config).resource(t.Context(), &target{at: at})
	require.ErrorContains(t, err, "it has closed the connection before its answer was complete")
}

func TestConfigSaysWhatIsMeant(t *testing.T) {
	require.Equal(t, `discover.Config{Resource: "https://r", Issuers: ["https://i"]}`, fmt.Sprintf("%+v", &Config{Resource: "https://r", Issuers: []string{"https://i"}}))
	require.Equal(t, `discover.Client{Issuer: "https://i", ID: "me"}`, fmt.Sprint(Client{Issuer: "https://i", ID: "me"}))
}
