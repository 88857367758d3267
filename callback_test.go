package authretry

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/token"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A callback is something of others that we call. The test makes a setting in which it fails, by boom, and uses that.
type callback struct {
	apart  bool // it is called by another goroutine than the caller's
	silent bool // its failure is nobody's error
	use    func(t *testing.T, boom func()) error
}

// boomed is what is sent and received by what fails.
type boomed struct{ boom func() }

func (b boomed) Error() string { b.boom(); return "" }
func (b boomed) Authenticate(context.Context, *TokenEndpoint, url.Values, http.Header) error {
	b.boom()
	return nil
}
func (b boomed) Token() (*oauth2.Token, error) { b.boom(); return old(), nil }
func (b boomed) RoundTrip(*http.Request) (*http.Response, error) {
	b.boom()
	return nil, errors.New("no")
}
func (b boomed) SetCookies(*url.URL, []*http.Cookie) { b.boom() }
func (b boomed) Cookies(*url.URL) []*http.Cookie     { b.boom(); return nil }
func (b boomed) Read([]byte) (int, error)            { b.boom(); return 0, io.EOF }
func (b boomed) Close() error                        { b.boom(); return nil }
func (b boomed) CloseIdleConnections()               { b.boom() }

// boomedAt is a Scheme, a Session, a Prover and a TokenStore that fails in one method.
type boomedAt struct {
	where string
	boom  func()
}

func (b boomedAt) at(where string) {
	if b.where == where {
		b.boom()
	}
}
func (b boomedAt) Name() string          { b.at("Name"); return "Puppet" }
func (b boomedAt) WantsRemoteAddr() bool { b.at("WantsRemoteAddr"); return false }
func (b boomedAt) PlaintextSafe() bool   { b.at("PlaintextSafe"); return false }
func (b boomedAt) Start(context.Context, *http.Request) (Session, error) {
	b.at("Start")
	return nil, nil
}
func (b boomedAt) Answer(context.Context, *Challenge, *http.Response) (Session, error) {
	b.at("Answer")
	if b.where == "Carry" || b.where == "by" || b.where == "CloseIdleConnections" {
		return carriedBoom{b}, nil
	}
	return sessionBoom{b}, nil
}

type sessionBoom struct{ boomedAt }

func (s sessionBoom) Authorize(req *http.Request) error {
	s.at("Authorize")
	req.Header["Authorization"] = []string{"Puppet x"}
	return nil
}
func (s sessionBoom) Covers(*url.URL) bool                     { s.at("Covers"); return true }
func (s sessionBoom) Learn(*http.Response, bool) (bool, error) { s.at("Learn"); return true, nil }

type carriedBoom struct{ boomedAt }

func (s carriedBoom) Authorize(req *http.Request) error {
	return sessionBoom(s).Authorize(req)
}
func (s carriedBoom) Carry(_ context.Context, base http.RoundTripper) (http.RoundTripper, error) {
	s.at("Carry")
	return carriedWay(s), nil
}

type carriedWay struct{ boomedAt }

func (c carriedWay) RoundTrip(req *http.Request) (*http.Response, error) {
	c.at("by")
	return &http.Response{StatusCode: 401, Request: req, Body: http.NoBody, Header: http.Header{}}, nil
}
func (c carriedWay) CloseIdleConnections() { c.at("CloseIdleConnections") }

func (b boomedAt) Prove(*http.Request, string) error { b.at("Prove"); return nil }
func (b boomedAt) Thumbprint() string                { b.at("Thumbprint"); return "x" }

type proverBoom struct{ boomedAt }

func (p proverBoom) Learn(*http.Response) { p.at("LearnProof") }

// storeBoom is a TokenStore that fails in one method.
type storeBoom struct {
	boomedAt
	lose error
}

func (s storeBoom) Load(context.Context) (*Record, error) { s.at("Load"); return nil, nil }
func (s storeBoom) Update(ctx context.Context, fn func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	s.at("Update")
	_, err := fn(ctx, nil, func(context.Context) error { s.at("confirm"); return nil })
	s.at("saved")
	return errors.Join(err, s.lose)
}
func (s storeBoom) LockLogin(context.Context) (func(), error) {
	s.at("LockLogin")
	return func() { s.at("unlock") }, nil
}

// valueBoom is a context that fails when it is asked for a value of ours.
type valueBoom struct {
	context.Context
	boom func()
}

func (v valueBoom) Value(key any) any {
	if _, ours := key.(interface{ ours() }); ours {
		v.boom()
	}
	return v.Context.Value(key)
}

// sendBy sends a request with a body and a context that can end.
func sendBy(rt http.RoundTripper, edit func(req *http.Request)) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req := httptest.NewRequest("PUT", "https://api.example.com/", strings.NewReader("body")).WithContext(ctx)
	if edit != nil {
		edit(req)
	}
	resp, err := rt.RoundTrip(req)
	if err == nil {
		resp.Body.Close()
		err = Explain(resp)
	}
	return err
}

// asking is a Base that asks for credentials, whatever it gets.
func askingFor(challenges ...string) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		resp := &http.Response{StatusCode: 401, Request: req, Body: http.NoBody, Header: http.Header{"Www-Authenticate": challenges, "Set-Cookie": {"a=b"}}}
		return resp, nil
	}
}

// puppetAt sends by a Scheme that fails in a method.
func puppetAt(where string) callback {
	return callback{use: func(t *testing.T, boom func()) error {
		transport := &Transport{Base: askingFor("Puppet"), Schemes: []Scheme{boomedAt{where: where, boom: boom}}}
		return errors.Join(sendBy(transport, nil), sendBy(transport, nil))
	}}
}

// refreshedBy sends with a token that a TokenSource has to get.
func refreshedBy(make func(boom func()) *TokenSource) callback {
	return callback{apart: true, use: func(t *testing.T, boom func()) error {
		source := make(boom)
		return sendBy(&Transport{Base: askingFor("Bearer"), Schemes: []Scheme{&Bearer{Source: source}}}, nil)
	}}
}

func endpointBoom(edit func(e *TokenEndpoint, boom func())) callback {
	return refreshedBy(func(boom func()) *TokenSource {
		e := &TokenEndpoint{URL: "https://issuer.example.com/", ClientID: "c", HTTPClient: &http.Client{Transport: askingFor("x")}}
		edit(e, boom)
		return &TokenSource{Fetch: e.Refresh(), Initial: &oauth2.Token{RefreshToken: "refresh-0"}}
	})
}

func exchangeBoom(edit func(x *TokenExchange, boom func())) callback {
	return refreshedBy(func(boom func()) *TokenSource {
		e := &TokenEndpoint{URL: "https://issuer.example.com/", ClientID: "c", HTTPClient: &http.Client{Transport: askingFor("x")}}
		x := TokenExchange{Subject: func(context.Context) (string, string, error) { return "t", "x", nil }}
		edit(&x, boom)
		return &TokenSource{Fetch: e.TokenExchange(x)}
	})
}

func storeAt(where string) callback {
	return refreshedBy(func(boom func()) *TokenSource {
		return &TokenSource{Initial: &oauth2.Token{RefreshToken: "refresh-0"}, Store: storeBoom{boomedAt: boomedAt{where: where, boom: boom}},
			Fetch: func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
				return &oauth2.Token{AccessToken: "new"}, nil
			}}
	})
}

// loginAt needs a login, with a Store or without.
func loginAt(where string, silent bool) callback {
	c := refreshedBy(func(boom func()) *TokenSource {
		source := &TokenSource{
			Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { return nil, ErrLoginRequired },
			Login: func(context.Context, TokenRequest) (*oauth2.Token, error) {
				boomedAt{where: where, boom: boom}.at("Login")
				if where == "error" {
					return nil, boomed{boom}
				}
				return &oauth2.Token{AccessToken: "new"}, nil
			},
		}
		switch where {
		case "OnToken":
			source.OnToken = func(*oauth2.Token) { boom() }
		case "LockLogin", "unlock", "saved":
			source.Store = storeBoom{boomedAt: boomedAt{where: where, boom: boom}}
		}
		return source
	})
	c.silent = silent
	return c
}

func basicBy(edit func(transport *Transport, boom func())) callback {
	return callback{use: func(t *testing.T, boom func()) error {
		transport := &Transport{Base: askingFor("Basic", digestChallengeText, "ApiKey"), Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}
		edit(transport, boom)
		return sendBy(transport, nil)
	}}
}

var callbacks = map[string]callback{
	"Transport.Base":    basicBy(func(t *Transport, boom func()) { t.Base = boomed{boom} }),
	"Transport.Account": basicBy(func(t *Transport, boom func()) { t.Account = func(*http.Request) string { boom(); return "" } }),
	"Transport.Jar":     basicBy(func(t *Transport, boom func()) { t.Jar = boomed{boom} }),
	"Transport.OnEvent": basicBy(func(t *Transport, boom func()) { t.OnEvent = func(context.Context, Event) { boom() } }),
	"Transport.Refused": basicBy(func(t *Transport, boom func()) {
		t.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 403, Request: req, Body: http.NoBody}, nil
		})
		t.Refused = func(*http.Response) bool { boom(); return false }
	}),
	"Transport.Base, its Proxy": {use: func(t *testing.T, boom func()) error {
		transport := &Transport{Base: &http.Transport{Proxy: func(*http.Request) (*url.URL, error) { boom(); return nil, nil }}, Schemes: []Scheme{&Basic{}}}
		return sendBy(transport, func(req *http.Request) { req.URL.Scheme, req.Host = "http", "other.test" })
	}},
	"Basic.Credentials": basicBy(func(t *Transport, boom func()) {
		t.Schemes = []Scheme{&Basic{Credentials: func(context.Context, CredentialsRequest) (string, string, error) { boom(); return "", "", nil }}}
	}),
	"Digest.Credentials": basicBy(func(t *Transport, boom func()) {
		t.Schemes = []Scheme{&Digest{Credentials: func(context.Context, CredentialsRequest) (string, string, error) { boom(); return "", "", nil }}}
	}),
	"APIKey.KeyFunc": basicBy(func(t *Transport, boom func()) {
		t.Schemes = []Scheme{&APIKey{KeyFunc: func(context.Context, CredentialsRequest) (string, error) { boom(); return "", nil }}}
	}),
	"Bearer.ScopeFilter": basicBy(func(t *Transport, boom func()) {
		t.Base = askingFor(`Bearer error="insufficient_scope", scope="a"`)
		t.Schemes = []Scheme{&Bearer{Source: &TokenSource{Initial: old()}, StepUp: true, ScopeFilter: func([]string) []string { boom(); return nil }}}
	}),
	"a context's Value": {use: func(t *testing.T, boom func()) error {
		transport := &Transport{Base: askingFor("Bearer"), Schemes: []Scheme{&Bearer{Source: &TokenSource{Initial: old()}}}, Account: func(*http.Request) string { return "x" }}
		return sendBy(transport, func(req *http.Request) { *req = *req.WithContext(valueBoom{req.Context(), boom}) })
	}},

	"Scheme.Name":       puppetAt("Name"),
	"Scheme.Answer":     puppetAt("Answer"),
	"Starter.Start":     puppetAt("Start"),
	"Session.Authorize": puppetAt("Authorize"),
	"Learner.Learn":     puppetAt("Learn"),
	"Covers.Covers":     puppetAt("Covers"),
	"PlaintextSafe.PlaintextSafe": {use: func(t *testing.T, boom func()) error {
		transport := &Transport{Base: askingFor("Puppet"), Schemes: []Scheme{boomedAt{where: "PlaintextSafe", boom: boom}}}
		return sendBy(transport, func(req *http.Request) { req.URL.Scheme = "http" })
	}},
	"WantsRemoteAddr.WantsRemoteAddr": {apart: true, use: func(t *testing.T, boom func()) error {
		asked := 0
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			asked++
			return askingFor("Puppet").RoundTrip(req)
		})
		transport := &Transport{Base: base, Schemes: []Scheme{boomedAt{where: "WantsRemoteAddr", boom: boom}}, Origins: []string{"https://other.test"}}
		first := sendBy(transport, nil)
		require.Error(t, first)
		require.Equal(t, first.Error(), sendBy(transport, nil).Error(), "nor does it go on as a Transport without Origins")
		require.Zero(t, asked)
		return first
	}},
	"Carrier.Carry":                  carrierAt("Carry", false),
	"what Carry returned, RoundTrip": carrierAt("by", false),
	"what Carry returned, CloseIdle": carrierAt("CloseIdleConnections", true),

	"a body's Read": {apart: true, use: func(t *testing.T, boom func()) error {
		return sendBody(func(req *http.Request) { req.Body = boomed{boom} })
	}},
	"a body's Read, beside GetBody": {apart: true, use: func(t *testing.T, boom func()) error {
		return sendBody(func(req *http.Request) {
			req.Body, req.GetBody = boomed{boom}, func() (io.ReadCloser, error) { return http.NoBody, nil }
		})
	}},
	"a body's Close": {apart: true, silent: true, use: func(t *testing.T, boom func()) error {
		return sendBody(func(req *http.Request) {
			req.Body = struct {
				io.Reader
				io.Closer
			}{strings.NewReader("body"), boomed{boom}}
		})
	}},
	"GetBody": {use: func(t *testing.T, boom func()) error {
		return sendBody(func(req *http.Request) {
			req.Body, req.GetBody = io.NopCloser(io.MultiReader(strings.NewReader("x"))), func() (io.ReadCloser, error) { boom(); return nil, nil }
		})
	}},
	"what GetBody returned": {apart: true, use: func(t *testing.T, boom func()) error {
		return sendBody(func(req *http.Request) {
			req.Body, req.GetBody = io.NopCloser(io.MultiReader(strings.NewReader("x"))), func() (io.ReadCloser, error) { return boomed{boom}, nil }
		})
	}},
	"a response's body, Read": basicBy(func(t *Transport, boom func()) {
		t.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 401, Request: req, Header: http.Header{"Www-Authenticate": {"Basic"}}, Body: boomed{boom}}, nil
		})
	}),

	"Bearer.Source": {apart: true, use: func(t *testing.T, boom func()) error {
		return sendBy(&Transport{Base: askingFor("Bearer"), Schemes: []Scheme{&Bearer{Source: boomed{boom}}}}, nil)
	}},
	"Bearer.Sources": {apart: true, use: func(t *testing.T, boom func()) error {
		return sendBy(&Transport{Base: askingFor("Bearer"), Account: func(*http.Request) string { return "x" },
			Schemes: []Scheme{&Bearer{Sources: func(context.Context, string) (oauth2.TokenSource, error) { boom(); return nil, nil }}}}, nil)
	}},
	"an error of Sources": {apart: true, use: func(t *testing.T, boom func()) error {
		return sendBy(&Transport{Base: askingFor("Bearer"), Account: func(*http.Request) string { return "x" },
			Schemes: []Scheme{&Bearer{Sources: func(context.Context, string) (oauth2.TokenSource, error) { return nil, boomed{boom} }}}}, nil)
	}},

	"TokenSource.Fetch": refreshedBy(func(boom func()) *TokenSource {
		return &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { boom(); return nil, nil }}
	}),
	"an error of Fetch": refreshedBy(func(boom func()) *TokenSource {
		return &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { return nil, boomed{boom} }}
	}),
	"TokenSource.HTTPClient": refreshedBy(func(boom func()) *TokenSource {
		return &TokenSource{HTTPClient: &http.Client{Transport: boomed{boom}}, Initial: &oauth2.Token{RefreshToken: "refresh-0"},
			Fetch: (&TokenEndpoint{URL: "https://issuer.example.com/", ClientID: "c"}).Refresh()}
	}),
	"TokenSource.OnToken": {apart: true, silent: true, use: refreshedBy(func(boom func()) *TokenSource {
		return &TokenSource{OnToken: func(*oauth2.Token) { boom() }, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			return &oauth2.Token{AccessToken: "new"}, nil
		}}
	}).use},
	"TokenSource.Login":           loginAt("Login", false),
	"an error of Login":           loginAt("error", false),
	"OnToken, after a login":      loginAt("OnToken", true),
	"a store's LockLogin":         loginAt("LockLogin", false),
	"a store's unlock":            loginAt("unlock", true),
	"a store's Update at a login": loginAt("saved", true),
	"TokenSource.Revoke": {apart: true, use: func(t *testing.T, boom func()) error {
		return (&TokenSource{Initial: old(), Revoke: func(context.Context, *oauth2.Token) error { boom(); return nil }}).Logout(context.Background())
	}},
	"TokenStore.Load":             storeAt("Load"),
	"TokenStore.Update":           storeAt("Update"),
	"confirm":                     storeAt("confirm"),
	"a store, after it has saved": {apart: true, silent: true, use: storeAt("saved").use},
	"a listener of a refresh": {apart: true, silent: true, use: func(t *testing.T, boom func()) error {
		source := &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			return &oauth2.Token{AccessToken: "new"}, nil
		}}
		_, err := source.Obtain(withListener(context.Background(), func(context.Context, Event) { boom() }), TokenRequest{})
		return err
	}},
	"TokenSource.OnEvent": {apart: true, silent: true, use: func(t *testing.T, boom func()) error {
		source := &TokenSource{OnEvent: func(context.Context, Event) { boom() }, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			return &oauth2.Token{AccessToken: "new"}, nil
		}}
		_, err := source.Obtain(context.Background(), TokenRequest{})
		return err
	}},
	"the saving of a token": {apart: true, silent: true, use: func(t *testing.T, boom func()) error {
		var calls atomic.Int32
		var unmarked atomic.Bool
		store := storeBoom{boomedAt: boomedAt{where: "saved", boom: func() {
			if calls.Add(1) > 1 {
				boom()
			}
		}}, lose: errors.New("full")}
		source := &TokenSource{Store: store, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			return &oauth2.Token{AccessToken: "new"}, nil
		}}
		_, err := source.Obtain(withListener(context.Background(), func(_ context.Context, e Event) {
			if e.Kind == EventNotSaved {
				if !errors.Is(e.Err, ErrNotSaved) {
					unmarked.Store(true)
				}
				boom()
			}
		}), TokenRequest{})
		time.Sleep(time.Minute)
		require.Greater(t, calls.Load(), int32(3), "it is tried again and again")
		require.False(t, unmarked.Load(), "the error says so, whatever the Store does")
		source.current.Store(nil) // or else for ever
		return err
	}},

	"TokenEndpoint.Auth":       endpointBoom(func(e *TokenEndpoint, boom func()) { e.Auth = boomed{boom} }),
	"TokenEndpoint.HTTPClient": endpointBoom(func(e *TokenEndpoint, boom func()) { e.HTTPClient = &http.Client{Transport: boomed{boom}} }),
	"TokenEndpoint.Base":       endpointBoom(func(e *TokenEndpoint, boom func()) { e.HTTPClient, e.Base = nil, boomed{boom} }),
	"Prover.Prove":             endpointBoom(func(e *TokenEndpoint, boom func()) { e.Proof = proverBoom{boomedAt{where: "Prove", boom: boom}} }),
	"Prover.Learn":             endpointBoom(func(e *TokenEndpoint, boom func()) { e.Proof = proverBoom{boomedAt{where: "LearnProof", boom: boom}} }),
	"Prover.Thumbprint": endpointBoom(func(e *TokenEndpoint, boom func()) {
		e.Proof = proverBoom{boomedAt{where: "Thumbprint", boom: boom}}
		e.HTTPClient.Transport = roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Request: req, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"access_token":"a","token_type":"DPoP"}`))}, nil
		})
	}),
	"TokenExchange.Subject": exchangeBoom(func(x *TokenExchange, boom func()) {
		x.Subject = func(context.Context) (string, string, error) { boom(); return "", "", nil }
	}),
	"TokenExchange.Actor": exchangeBoom(func(x *TokenExchange, boom func()) {
		x.Actor = func(context.Context) (string, string, error) { boom(); return "", "", nil }
	}),
}

// sameAs names what is called by way of something else in the table, or never.
var sameAs = map[string]string{
	"ClientAuth.Authenticate": "TokenEndpoint.Auth", "TokenEndpoint.Proof": "Prover.Prove", "CredentialsFunc": "Basic.Credentials",
	"FetchFunc": "TokenSource.Fetch", "TokenSource.Store": "TokenStore.Load", "Transport.Schemes": "Scheme.Answer",
	"Exclusive.Exclusive":    "it says something by being there",
	"ProxyTransport.Base":    "TestCallbacksOfAProxyTransport",
	"ProxyTransport.OnEvent": "TestCallbacksOfAProxyTransport", "ProxyTransport.Schemes": "TestCallbacksOfAProxyTransport",
}

func carrierAt(where string, silent bool) callback {
	return callback{silent: silent, use: func(t *testing.T, boom func()) error {
		base := &http.Transport{}
		base.RegisterProtocol("test", askingFor("Puppet"))
		transport := &Transport{Base: base, Schemes: []Scheme{&puppet{name: "Puppet", start: func(context.Context, *http.Request) (Session, error) {
			return carriedBoom{boomedAt{where: where, boom: boom}}, nil
		}, answer: func(context.Context, *Challenge, *http.Response) (Session, error) { return nil, ErrCredentialsRefused }}}}
		return sendBy(transport, nil)
	}}
}

// sendBody sends a request whose body is read and closed by a goroutine of Base's, as http.Transport does.
func sendBody(edit func(req *http.Request)) error {
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		failed := make(chan error, 1)
		go func() {
			defer close(failed)
			_, err := io.Copy(io.Discard, req.Body)
			req.Body.Close()
			failed <- err
		}()
		if err := <-failed; err != nil {
			return nil, err
		}
		return askingFor("Basic")(req)
	})
	return sendBy(&Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}, func(req *http.Request) { req.ContentLength = -1; edit(req) })
}

// failures are the ways in which a callback can fail to return.
var failures = map[string]func(){"panic": func() { panic(secret) }, "Goexit": runtime.Goexit}

// requireContained requires that a callback which fails ends neither the program nor a wait. A panic is an error of the
// request. The end of the caller's own goroutine is what it is; that of any other is an error.
func requireContained(t *testing.T, failure string, c callback) {
	var err error
	returned := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = c.use(t, failures[failure])
		returned = true
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Minute):
		t.Fatal("it waits for ever")
	}
	if failure == "Goexit" && !c.apart {
		require.False(t, returned, "it has ended the goroutine, which nobody can prevent")
		return
	}
	require.True(t, returned, "the caller's goroutine has ended")
	if c.silent {
		return
	}
	require.Error(t, err)
	for _, text := range everyText(err) {
		require.NotContains(t, text, secret)
	}
}

func TestCallbacksThatDoNotReturn(t *testing.T) {
	for _, name := range callbacksOf(t) {
		_, known := callbacks[name]
		require.True(t, known || sameAs[name] != "", "%s has no case here: give it one", name)
	}
	for name, c := range callbacks {
		for failure := range failures {
			t.Run(name+", "+failure, func(t *testing.T) {
				if strings.HasPrefix(name, "a body's Read") && failure == "Goexit" || name == "what GetBody returned" && failure == "Goexit" || name == "a body's Close" && failure == "Goexit" {
					t.Skip("it ends a goroutine of Base's, as it would without us")
				}
				synctest.Test(t, func(t *testing.T) { requireContained(t, failure, c) })
			})
		}
	}
}

// The hooks for a CONNECT are called by goroutines of http.Transport, whose end nobody would notice.
func TestCallbacksOfAProxyTransport(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	good := func() Scheme { return &Basic{Username: proxyUser, Password: goodPassword, Ahead: true} }
	use := func(make func(boom func()) *ProxyTransport) callback {
		return callback{apart: true, use: func(t *testing.T, boom func()) error {
			transport := make(boom)
			defer transport.CloseIdleConnections()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://origin.test/", nil).WithContext(ctx))
			require.NoError(t, ctx.Err(), "nobody has told it")
			if err == nil {
				err = fmt.Errorf("got %d", resp.StatusCode)
			}
			require.ErrorContains(t, err, "authretry: ")
			return err
		}}
	}
	for name, c := range map[string]callback{
		"GetProxyConnectHeader": use(func(boom func()) *ProxyTransport {
			base := via(proxy)
			base.GetProxyConnectHeader = func(context.Context, *url.URL, string) (http.Header, error) { boom(); return nil, nil }
			return NewProxyTransport(base, good())
		}),
		"OnProxyConnectResponse": use(func(boom func()) *ProxyTransport {
			base := via(proxy)
			base.OnProxyConnectResponse = func(context.Context, *url.URL, *http.Request, *http.Response) error { boom(); return nil }
			return NewProxyTransport(base, good())
		}),
		"Credentials, ahead": use(func(boom func()) *ProxyTransport {
			return NewProxyTransport(via(proxy), &Basic{Ahead: true, Credentials: func(context.Context, CredentialsRequest) (string, string, error) { boom(); return "", "", nil }})
		}),
		"OnEvent": use(func(boom func()) *ProxyTransport {
			return &ProxyTransport{Base: via(proxy), Schemes: []Scheme{good()}, OnEvent: func(_ context.Context, e Event) {
				if e.Kind == EventAuthorized {
					boom()
				}
			}}
		}),
	} {
		for failure := range failures {
			t.Run(name+", "+failure, func(t *testing.T) { requireContained(t, failure, c) })
		}
	}
}

// callbacksOf returns what the package calls that is not its own: fields of func and interface types of exported structs, and
// the methods of exported interfaces.
func callbacksOf(t *testing.T) (names []string) {
	files := sources(t)
	callable := map[string]bool{"http.RoundTripper": true, "http.CookieJar": true, "oauth2.TokenSource": true, "http.Client": true, "http.Transport": true}
	types := make(map[string]ast.Expr)
	for _, f := range files {
		for _, d := range f.Decls {
			if d, ok := d.(*ast.GenDecl); ok && d.Tok == token.TYPE {
				for _, spec := range d.Specs {
					spec := spec.(*ast.TypeSpec)
					types[spec.Name.Name] = spec.Type
					switch spec.Type.(type) {
					case *ast.FuncType, *ast.InterfaceType:
						callable[spec.Name.Name] = true
					}
				}
			}
		}
	}
	var isCallable func(e ast.Expr) bool
	isCallable = func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.FuncType:
			return true
		case *ast.Ident:
			return callable[e.Name]
		case *ast.StarExpr:
			return isCallable(e.X)
		case *ast.ArrayType:
			return isCallable(e.Elt)
		case *ast.SelectorExpr:
			return callable[e.X.(*ast.Ident).Name+"."+e.Sel.Name]
		}
		return false
	}
	for name, e := range types {
		if !ast.IsExported(name) {
			continue
		}
		switch e := e.(type) {
		case *ast.StructType:
			for _, f := range e.Fields.List {
				for _, field := range f.Names {
					if field.IsExported() && isCallable(f.Type) {
						names = append(names, name+"."+field.Name)
					}
				}
			}
		case *ast.InterfaceType:
			for _, m := range e.Methods.List {
				for _, method := range m.Names {
					names = append(names, name+"."+method.Name)
				}
			}
		case *ast.FuncType:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
