package authretry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A userServer wants to see on each request the credentials of the user that it says it is for, in X-User, which only the
// test sets. Whatever else it sees is a mistake that it remembers.
type userServer struct {
	*httptest.Server
	mistakes sync.Map
	hits     atomic.Int64
}

func newUserServer(t *testing.T) *userServer {
	s := &userServer{}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *userServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.hits.Add(1)
	io.Copy(io.Discard, r.Body)
	user := r.Header.Get("X-User")
	if to := r.URL.Query().Get("to"); to != "" {
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
		return
	}
	if whose := whoseCredentials(r); whose != "" && whose != user {
		s.mistakes.Store(fmt.Sprintf("%s's credentials on %s's request to %s", whose, user, r.URL), true)
	}
	if whoseCredentials(r) == "" || rand.IntN(8) == 0 { // and sometimes for no reason
		w.Header()["Www-Authenticate"] = []string{`Digest realm="x", nonce="` + fmt.Sprint(rand.IntN(50)) + `", qop="auth"`, `Basic realm="x"`, `Bearer`}
		w.WriteHeader(401)
	}
}

// whoseCredentials returns the user whose credentials a request has: they all say it.
func whoseCredentials(r *http.Request) string {
	if user, _, ok := r.BasicAuth(); ok {
		return user
	}
	for _, mark := range []string{`Digest username="`, "Bearer token-", "ApiKey key-"} {
		if _, user, ok := strings.Cut(r.Header.Get("Authorization"), mark); ok {
			return user[:strings.IndexAny(user+`"-`, `"-`)]
		}
	}
	return ""
}

// Every scheme, on behalf of many users, on one Transport: never a request with another's credentials.
func TestOneTransportForManyUsersNeverMixesThemUp(t *testing.T) {
	credentials := func(_ context.Context, r CredentialsRequest) (string, string, error) { return r.Account, "p", nil }
	var tokens atomic.Int64
	schemes := map[string]func() Scheme{
		"Basic":        func() Scheme { return &Basic{Credentials: credentials} },
		"Basic, ahead": func() Scheme { return &Basic{Credentials: credentials, Ahead: true} },
		"Digest":       func() Scheme { return &Digest{Credentials: credentials} },
		"API key": func() Scheme {
			return &APIKey{KeyFunc: func(_ context.Context, r CredentialsRequest) (string, error) { return "key-" + r.Account, nil }}
		},
		"API key by the context": func() Scheme {
			return &APIKey{KeyFunc: func(ctx context.Context, _ CredentialsRequest) (string, error) {
				return "key-" + ctx.Value(userKey{}).(string), nil
			}}
		},
		"Bearer": func() Scheme {
			return &Bearer{Sources: func(_ context.Context, account string) (oauth2.TokenSource, error) {
				return &TokenSource{MinRefreshInterval: -1, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
					return &oauth2.Token{AccessToken: fmt.Sprint("token-", account, "-", tokens.Add(1))}, nil
				}}, nil
			}}
		},
		"Bearer, challenged": func() Scheme {
			return &Bearer{NotAhead: true, Sources: func(_ context.Context, account string) (oauth2.TokenSource, error) {
				return oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "token-" + account}), nil
			}}
		},
	}
	for name, newScheme := range schemes {
		for _, users := range []int{2, 50} {
			t.Run(fmt.Sprint(name, " ", users), func(t *testing.T) {
				t.Parallel()
				a, b := newUserServer(t), newUserServer(t)
				base := &http.Transport{MaxIdleConnsPerHost: 64}
				t.Cleanup(base.CloseIdleConnections)
				scheme := newScheme()
				transport := &Transport{Base: base, Schemes: []Scheme{scheme}, Account: accountOfUser}
				require.NoError(t, transport.init())
				transport.auth.spaces.limit = 8 << 10 // so that there are evictions
				if s, ok := scheme.(*Bearer); ok {
					s.accounts.limit = 8 << 10
				}
				retrying := retryablehttp.NewClient()
				retrying.HTTPClient, retrying.Logger = &http.Client{Transport: transport}, nil
				clients := []*http.Client{{Transport: transport}, retrying.StandardClient(), {Transport: &Transport{Base: transport, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}, Origins: []string{"https://other.test"}}}}
				var group sync.WaitGroup
				for range 16 {
					group.Go(func() {
						for i := range thorough.Or(60, 8) {
							user := fmt.Sprint("user", rand.IntN(users))
							target := a.URL + "/" + user + "/x"
							switch rand.IntN(4) {
							case 0:
								target += "?to=" + url.QueryEscape(a.URL+"/other/")
							case 1:
								target += "?to=" + url.QueryEscape(b.URL+"/other/")
							}
							ctx, cancel := context.WithCancel(t.Context())
							if rand.IntN(20) == 0 {
								time.AfterFunc(time.Millisecond, cancel)
							}
							req, _ := http.NewRequestWithContext(ctx, "PUT", target, strings.NewReader("body"))
							req.Header.Set("X-User", user)
							req = forUser(user, req)
							if rand.IntN(30) == 0 {
								transport.Forget(fmt.Sprint("user", rand.IntN(users)))
							}
							if resp, err := clients[i%len(clients)].Do(req); err == nil {
								io.Copy(io.Discard, resp.Body)
								resp.Body.Close()
							} else if ctx.Err() == nil && !errors.Is(err, context.Canceled) && !strings.Contains(err.Error(), "CloseIdleConnections called") {
								t.Error(err) // http.Transport says those two of others, too; retryablehttp closes connections when it gives up
							}
							cancel()
						}
					})
				}
				group.Wait()
				for _, s := range []*userServer{a, b} {
					s.mistakes.Range(func(what, _ any) bool { t.Error(what); return true })
				}
				require.Less(t, transport.auth.spaces.size.Load(), int64(16<<10))
			})
		}
	}
}

// A server may send alice to what is bob's, but what goes there is still on behalf of alice. Account is asked once.
func TestChainOfRedirectsIsOnBehalfOfOneUser(t *testing.T) {
	srv := newUserServer(t)
	asked := 0
	for name, account := range map[string]func(*http.Request) string{
		"by the path":       func(req *http.Request) string { return strings.Split(req.URL.Path, "/")[1] },
		"changing its mind": func(req *http.Request) string { asked++; return []string{"alice", "bob", "carol"}[asked-1] },
	} {
		t.Run(name, func(t *testing.T) {
			var users []string
			transport := &Transport{Account: account, Schemes: []Scheme{&APIKey{KeyFunc: func(ctx context.Context, r CredentialsRequest) (string, error) {
				users = append(users, r.Account)
				return "key-" + AccountOf(ctx), nil
			}}}}
			req, err := http.NewRequest("GET", srv.URL+"/alice/?to="+url.QueryEscape("/bob/?to=/carol/"), nil)
			require.NoError(t, err)
			req.Header.Set("X-User", "alice")
			resp, err := (&http.Client{Transport: transport}).Do(req)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, "/carol/", resp.Request.URL.Path)
			for _, user := range users {
				require.Equal(t, "alice", user)
			}
			require.GreaterOrEqual(t, len(users), 3)
		})
	}
	srv.mistakes.Range(func(what, _ any) bool { t.Error(what); return true })
	require.Equal(t, 1, asked)
}

func TestAccountThatIsNobodyOrNonsense(t *testing.T) {
	basic := &Basic{Username: "u", Password: "p", Ahead: true}
	for name, c := range map[string]struct {
		account string
		reason  Reason
		text    string
		sent    []string
	}{
		"nobody": {"", ReasonNoAccount, `answered 401: no credentials were sent, because it is not known for whom the request is: Transport.Account returned "", ` +
			`or another account than that of the redirect which the request comes from; send it with a context that says whose it is`, []string{""}},
		"long":     {strings.Repeat("a", 256), ReasonCredentialsRefused, "", []string{"Basic dTpw"}},
		"too long": {strings.Repeat("a", 257), ReasonMisconfigured, "Transport.Account returned 257 bytes, and an account may have 256", nil},
		"1 MiB":    {strings.Repeat("a", 1<<20), ReasonMisconfigured, "Transport.Account returned 1048576 bytes", nil},
	} {
		server := &saying{challenge: `Basic realm="x"`}
		r := rejectionFor(t, &Transport{Base: server, Schemes: []Scheme{basic}, Account: func(*http.Request) string { return c.account }}, "https://api.example.com/")
		require.Equal(t, c.reason, r.Reason, name)
		require.ErrorContains(t, r, c.text)
		require.Equal(t, c.sent, server.sent, name)
	}
	for text, account := range map[string]func(*http.Request) string{
		"panicked":             func(*http.Request) string { panic(secret) },
		"an account may have ": func(*http.Request) string { return strings.Repeat(secret, 257) },
	} {
		body := &tracked{Reader: strings.NewReader("body")}
		req := httptest.NewRequest("PUT", "https://api.example.com/", body)
		_, err := (&Transport{Base: &saying{}, Schemes: []Scheme{basic}, Account: account}).RoundTrip(req)
		require.ErrorContains(t, err, text)
		require.NotContains(t, err.Error(), secret)
		body.requireGoodUse(t)
	}

	jar, _ := cookiejar.New(nil)
	r := rejectionFor(t, &Transport{Schemes: []Scheme{basic}, Account: accountOfUser, Jar: jar}, "https://api.example.com/")
	require.ErrorContains(t, r, "Transport.Jar and Transport.Account are both set")
	r = rejectionFor(t, &Transport{Schemes: []Scheme{&Bearer{Sources: func(context.Context, string) (oauth2.TokenSource, error) { return nil, nil }}}}, "https://api.example.com/")
	require.ErrorContains(t, r, "Bearer.Sources needs to know for whom a request is: set Transport.Account")
	r = rejectionFor(t, &Transport{Account: func(*http.Request) string { return "alice" }, Schemes: []Scheme{&Bearer{Source: expiringSource(),
		Sources: func(context.Context, string) (oauth2.TokenSource, error) { return expiringSource(), nil }}}}, "https://api.example.com/")
	require.ErrorIs(t, r, errTwoSources)
}

// Without Account, what is got for one request is used for others: so a func that goes by the context's user fails at once,
// and says what to set. With it, the context has its values.
func TestFuncSeesNoValuesUnlessThereAreAccounts(t *testing.T) {
	byUser := func(ctx context.Context, _ CredentialsRequest) (string, string, error) {
		user, ok := ctx.Value(userKey{}).(string)
		if !ok {
			return "", "", errors.New("no user")
		}
		return user, "p", nil
	}
	orPanic := func(ctx context.Context, _ CredentialsRequest) (string, string, error) {
		return ctx.Value(userKey{}).(string), "p", nil
	}
	challenge := `Digest realm="x", nonce="n", qop="auth", Basic realm="x"`
	for name, scheme := range map[string]func(f CredentialsFunc) Scheme{
		"Basic":        func(f CredentialsFunc) Scheme { return &Basic{Credentials: f} },
		"Basic, ahead": func(f CredentialsFunc) Scheme { return &Basic{Credentials: f, Ahead: true} },
		"Digest":       func(f CredentialsFunc) Scheme { return &Digest{Credentials: f} },
	} {
		for _, f := range []CredentialsFunc{byUser, orPanic} {
			server := &saying{challenge: challenge}
			transport := &Transport{Base: server, Schemes: []Scheme{scheme(f)}}
			_, err := transport.RoundTrip(forUser("alice", httptest.NewRequest("GET", "https://api.example.com/", nil)))
			require.ErrorContains(t, err, "set Transport.Account to tell users apart", name)
			for _, sent := range server.sent {
				require.Empty(t, sent)
			}

			server = &saying{challenge: challenge}
			transport = &Transport{Base: server, Schemes: []Scheme{scheme(f)}, Account: func(*http.Request) string { return "service" }}
			_, err = transport.RoundTrip(forUser("alice", httptest.NewRequest("GET", "https://api.example.com/", nil)))
			require.NoError(t, err)
			require.NotEmpty(t, server.sent[len(server.sent)-1])
		}
		// Who asks for nothing that is there is told nothing about it.
		_, err := (&Transport{Base: &saying{challenge: challenge}, Schemes: []Scheme{scheme(byUser)}}).RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil))
		require.ErrorContains(t, err, "no user", name)
		require.NotContains(t, err.Error(), "Transport.Account")
	}
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	for _, target := range []string{"http://origin.test/", "https://origin.test/"} {
		req, _ := http.NewRequest("GET", target, nil)
		_, err := proxyClient(t, via(proxy), &Basic{Credentials: byUser}).Do(forUser("alice", req))
		require.ErrorContains(t, err, "make a ProxyTransport for each user of the proxy")
		_, err = proxyClient(t, via(proxy), &APIKey{Prefix: "Basic", KeyFunc: func(ctx context.Context, _ CredentialsRequest) (string, error) {
			user, _, err := byUser(ctx, CredentialsRequest{})
			return user, err
		}}).Do(forUser("alice", req))
		require.ErrorContains(t, err, "make a ProxyTransport for each user of the proxy")
	}
}

// A context without its values still ends as the request's does, with its cause and deadline, and what is derived from it
// needs no goroutine.
func TestContextOfAFuncKeepsDeadlineAndCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("the user has closed the window")
		ctx, cancel := context.WithCancelCause(t.Context())
		ctx, stop := context.WithTimeout(ctx, time.Hour)
		defer stop()
		var got error
		var deadline bool
		transport := &Transport{Base: &saying{challenge: `Basic realm="x"`}, Schemes: []Scheme{&Basic{Credentials: func(ctx context.Context, _ CredentialsRequest) (string, string, error) {
			_, deadline = ctx.Deadline()
			derived, end := context.WithCancel(ctx)
			defer end()
			cancel(cause)
			<-derived.Done() // at once, without anybody else having to run
			got = context.Cause(derived)
			return "", "", context.Cause(ctx)
		}}}}
		_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil).WithContext(ctx))
		require.ErrorIs(t, err, cause)
		require.Equal(t, cause, got)
		require.True(t, deadline)
	})
}

// After Forget, an account's credentials are asked for again, and nobody else's.
func TestForgetForgetsOneAccount(t *testing.T) {
	asked := map[string]int{}
	password := "old"
	transport := &Transport{Account: accountOfUser, Schemes: []Scheme{&Basic{Credentials: func(_ context.Context, r CredentialsRequest) (string, string, error) {
		asked[r.Account]++
		return r.Account, password, nil
	}}}, Base: answering(`Basic realm="x"`)}
	send := func(user string) {
		_, err := transport.RoundTrip(forUser(user, httptest.NewRequest("GET", "https://api.example.com/", nil)))
		require.NoError(t, err)
	}
	send("alice")
	send("bob")
	send("alice")
	require.Equal(t, map[string]int{"alice": 1, "bob": 1}, asked)
	transport.Forget("alice")
	send("alice")
	send("bob")
	require.Equal(t, map[string]int{"alice": 2, "bob": 1}, asked)

	// What is under way when an account is forgotten is not remembered after it.
	transport.Forget("alice")
	inner := transport.Base
	transport.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.Header["Authorization"] != nil {
			transport.Forget("alice")
		}
		return inner.RoundTrip(req)
	})
	send("alice")
	transport.Base = inner
	send("alice")
	require.Equal(t, 4, asked["alice"])
}

func TestSourcesAreAskedOncePerAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := map[string]int{}
		var mu sync.Mutex
		var fail error
		bearer := &Bearer{Sources: func(ctx context.Context, account string) (oauth2.TokenSource, error) {
			require.Nil(t, ctx.Value(userKey{}))
			require.Equal(t, account, AccountOf(ctx))
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			calls[account]++
			return oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "token-" + account}), fail
		}}
		transport := &Transport{Base: &saying{}, Schemes: []Scheme{bearer}, Account: accountOfUser}
		transport.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
			require.Equal(t, "Bearer token-"+accountOfUser(req), req.Header.Get("Authorization"))
			return &http.Response{StatusCode: 200, Body: http.NoBody, Request: req, Header: http.Header{}}, nil
		})
		send := func(user string, timeout time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			_, err := transport.RoundTrip(forUser(user, httptest.NewRequest("GET", "https://api.example.com/", nil).WithContext(ctx)))
			return err
		}
		var group sync.WaitGroup
		for i := range 100 {
			group.Go(func() {
				user := []string{"alice", "bob"}[i%2]
				if i < 10 { // those who began have gone when the answer comes
					require.ErrorIs(t, send(user, time.Millisecond), context.DeadlineExceeded)
				} else {
					time.Sleep(time.Millisecond / 2)
					require.NoError(t, send(user, time.Minute))
				}
			})
		}
		group.Wait()
		require.Equal(t, map[string]int{"alice": 1, "bob": 1}, calls)
		transport.Forget("alice")
		require.NoError(t, send("alice", time.Minute))
		require.Equal(t, map[string]int{"alice": 2, "bob": 1}, calls)

		fail = errors.New("the database is away")
		require.ErrorIs(t, send("carol", time.Minute), fail)
		require.ErrorContains(t, send("carol", time.Minute), "Bearer.Sources has no source for the account: the database is away")
		require.Equal(t, 2, calls["carol"], "errors are not kept")
	})
}

func TestSourcesThatAreOfNoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		defer close(never)
		var typedNil *TokenSource
		for name, c := range map[string]struct {
			sources func(context.Context, string) (oauth2.TokenSource, error)
			text    string
		}{
			"nil":       {func(context.Context, string) (oauth2.TokenSource, error) { return nil, nil }, "returned neither a source nor an error"},
			"typed nil": {func(context.Context, string) (oauth2.TokenSource, error) { return typedNil, nil }, "returned neither a source nor an error"},
			"panics":    {func(context.Context, string) (oauth2.TokenSource, error) { panic(secret) }, "panicked with a value of type string"},
			"hangs":     {func(context.Context, string) (oauth2.TokenSource, error) { <-never; return nil, nil }, "took more than 30 seconds"},
		} {
			transport := &Transport{Base: &saying{}, Schemes: []Scheme{&Bearer{Sources: c.sources}}, Account: accountOfUser}
			for range 2 {
				start := time.Now()
				_, err := transport.RoundTrip(forUser("alice", httptest.NewRequest("GET", "https://api.example.com/", nil)))
				require.ErrorContains(t, err, c.text, name)
				require.NotContains(t, err.Error(), secret)
				require.LessOrEqual(t, time.Since(start), 30*time.Second)
			}
		}
	})
}

// One source for two accounts is theirs to share: to forget one of them takes it from nobody.
func TestOneSourceForTwoAccounts(t *testing.T) {
	shared := &TokenSource{Initial: &oauth2.Token{AccessToken: "token-team", RefreshToken: "r"}}
	asked := 0
	server := &saying{right: "Bearer token-team"}
	transport := &Transport{Base: server, Account: accountOfUser, Schemes: []Scheme{&Bearer{Sources: func(context.Context, string) (oauth2.TokenSource, error) {
		asked++
		return shared, nil
	}}}}
	for _, user := range []string{"alice", "bob", "alice", "bob"} {
		resp, err := transport.RoundTrip(forUser(user, httptest.NewRequest("GET", "https://api.example.com/", nil)))
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		transport.Forget("alice")
	}
	require.Equal(t, 3, asked)
}

// A source that alone has a login does not make room, nor does one that is refreshing.
func TestOnlyCopyOfALoginDoesNotMakeRoom(t *testing.T) {
	asked := map[string]int{}
	bearer := &Bearer{Sources: func(_ context.Context, account string) (oauth2.TokenSource, error) {
		asked[account]++
		s := &TokenSource{Initial: &oauth2.Token{AccessToken: "t"}}
		if strings.HasPrefix(account, "login") {
			s.Initial.RefreshToken = "the only one"
		}
		return s, nil
	}}
	bearer.accounts.limit = 10_000
	server := &saying{right: "Bearer t"}
	transport := &Transport{Base: server, Account: accountOfUser, Schemes: []Scheme{bearer}}
	for i := range 1000 {
		for _, user := range []string{fmt.Sprint("login", i%50), fmt.Sprint("visitor", i)} {
			resp, err := transport.RoundTrip(forUser(user, httptest.NewRequest("GET", "https://api.example.com/", nil)))
			require.NoError(t, err)
			require.Equal(t, 200, resp.StatusCode)
		}
	}
	for user, n := range asked {
		require.Equal(t, 1, n, user)
	}
	require.Less(t, len(bearer.accounts.known), 50+50)
}

// An account costs no allocation.
func TestAccountCostsNoAllocation(t *testing.T) {
	for name, newScheme := range map[string]func(accounts bool) Scheme{
		"Basic":  func(bool) Scheme { return &Basic{Username: "u", Password: "p"} },
		"Digest": func(bool) Scheme { return &Digest{Username: "u", Password: "p"} },
		"Bearer": func(accounts bool) Scheme {
			if accounts {
				return &Bearer{Sources: func(context.Context, string) (oauth2.TokenSource, error) { return expiringSource(), nil }}
			}
			return &Bearer{Source: expiringSource()}
		},
	} {
		var n [2]float64
		for i, account := range []func(*http.Request) string{nil, func(*http.Request) string { return "alice" }} {
			transport := &Transport{Base: answering(`Digest realm="x", nonce="n", qop="auth", Basic realm="x"`), Schemes: []Scheme{newScheme(account != nil)}, Account: account}
			req := httptest.NewRequest("GET", "https://api.example.com/v1/things?q=1", nil)
			n[i] = testing.AllocsPerRun(100, func() { transport.RoundTrip(req) })
		}
		t.Log(name, n)
		require.Equal(t, n[0], n[1], name)
	}
}

// A copy of a response's request, with another user's context, is not on behalf of the user whose redirect it comes from.
func TestCopyOfARedirectedRequestIsNotItsUsers(t *testing.T) {
	srv := newUserServer(t)
	transport := &Transport{Account: accountOfUser, Schemes: []Scheme{&APIKey{KeyFunc: func(_ context.Context, r CredentialsRequest) (string, error) {
		return "key-" + r.Account, nil
	}}}}
	client := &http.Client{Transport: transport}
	req, err := http.NewRequest("GET", srv.URL+"/?to=/elsewhere", nil)
	require.NoError(t, err)
	req.Header.Set("X-User", "alice")
	resp, err := client.Do(forUser("alice", req))
	require.NoError(t, err)
	resp.Body.Close()
	again := resp.Request.Clone(context.WithValue(t.Context(), userKey{}, "bob"))
	again.Header.Set("X-User", "bob")
	resp, err = client.Do(again)
	require.NoError(t, err)
	resp.Body.Close()
	require.ErrorContains(t, Explain(resp), "another account than that of the redirect")
	srv.mistakes.Range(func(what, _ any) bool { t.Error(what); return true })
}

// A request that passed without being looked at says nothing of whose the one is to which its redirect leads.
func TestRedirectOfARequestThatPassed(t *testing.T) {
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: req, Header: http.Header{}}
		if req.URL.Scheme == "http" {
			resp.StatusCode, resp.Header["Location"] = 302, []string{"https://api.example.com/"}
		} else {
			require.Equal(t, "ApiKey key-alice", req.Header.Get("Authorization"))
		}
		return resp, nil
	})
	transport := &Transport{Base: base, Origins: []string{"https://api.example.com"}, Account: func(*http.Request) string { return "alice" },
		Schemes: []Scheme{&APIKey{KeyFunc: func(_ context.Context, r CredentialsRequest) (string, error) { return "key-" + r.Account, nil }}}}
	resp, err := (&http.Client{Transport: transport}).Get("http://api.example.com/")
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
}

// What is learnt for bob is kept, however often others log in.
func TestForgetConcernsNobodyElse(t *testing.T) {
	transport := &Transport{Account: accountOfUser, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}
	sends := 0
	inner := answering(`Basic realm="x"`)
	transport.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
		transport.Forget("somebody else")
		sends++
		return inner.RoundTrip(req)
	})
	for range 10 {
		_, err := transport.RoundTrip(forUser("bob", httptest.NewRequest("GET", "https://api.example.com/", nil)))
		require.NoError(t, err)
	}
	require.Equal(t, 11, sends)
}

// An error whose text cannot be had is an error all the same.
type typedNil struct{ text string }

func (e *typedNil) Error() string { return e.text }

func TestSourcesThatFailWithANilError(t *testing.T) {
	transport := &Transport{Base: &saying{}, Account: accountOfUser, Schemes: []Scheme{&Bearer{Sources: func(context.Context, string) (oauth2.TokenSource, error) {
		var err *typedNil
		return nil, err
	}}}}
	_, err := transport.RoundTrip(forUser("alice", httptest.NewRequest("GET", "https://api.example.com/", nil)))
	require.ErrorContains(t, err, "panicked")
}

// A login that has ended makes room: there is nothing to lose.
func TestEndedLoginMakesRoom(t *testing.T) {
	bearer := &Bearer{Sources: func(context.Context, string) (oauth2.TokenSource, error) {
		return &TokenSource{Initial: &oauth2.Token{RefreshToken: "ended"}, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			return nil, &oauth2.RetrieveError{ErrorCode: "invalid_grant", Response: &http.Response{StatusCode: 400}}
		}}, nil
	}}
	bearer.accounts.limit = 10_000
	transport := &Transport{Base: &saying{}, Account: accountOfUser, Schemes: []Scheme{bearer}}
	for i := range 500 {
		_, err := transport.RoundTrip(forUser(fmt.Sprint("user", i), httptest.NewRequest("GET", "https://api.example.com/", nil)))
		require.ErrorIs(t, err, ErrLoginRequired)
	}
	require.Less(t, len(bearer.accounts.known), 100)
}

// Those that may not make room for a while may do so afterwards.
func TestAccountsThatWereAskedForAtOnceMakeRoomLater(t *testing.T) {
	release := make(chan struct{})
	bearer := &Bearer{Sources: func(_ context.Context, account string) (oauth2.TokenSource, error) {
		if strings.HasPrefix(account, "slow") {
			<-release
		}
		return expiringSource(), nil
	}}
	a := &bearer.accounts
	a.limit = 10_000
	for i := range 100 {
		a.add(fmt.Sprint("slow", i), bearer.Sources)
	}
	require.Len(t, a.known, 100, "each is being asked for")
	close(release)
	for _, s := range a.known {
		<-s.done // who is still being asked for may not go
	}
	for i := range 1000 {
		_, err := a.of(t.Context(), fmt.Sprint("user", i), bearer.Sources)
		require.NoError(t, err)
	}
	require.LessOrEqual(t, len(a.known), 17)
	all := 0
	for _, s := range a.known {
		all += s.size()
	}
	require.LessOrEqual(t, all, a.limit)
	require.LessOrEqual(t, a.size, all)
	require.Positive(t, a.size)
}

// An account in use stays, and those that come once make room for one another.
func TestAccountInUseDoesNotMakeRoom(t *testing.T) {
	asked := map[string]int{}
	bearer := &Bearer{Sources: func(_ context.Context, account string) (oauth2.TokenSource, error) {
		asked[account]++
		return expiringSource(), nil
	}}
	a := &bearer.accounts
	a.limit = 10_000
	for i := range 1000 {
		for _, account := range []string{"busy", fmt.Sprint("visitor", i)} {
			_, err := a.of(t.Context(), account, bearer.Sources)
			require.NoError(t, err)
			require.LessOrEqual(t, len(a.known), 17)
		}
	}
	require.Equal(t, 1, asked["busy"])
}

// Many logins that may not make room do not keep others from doing so.
func TestIdleLoginsDoNotKeepOthersFromMakingRoom(t *testing.T) {
	bearer := &Bearer{Sources: func(_ context.Context, account string) (oauth2.TokenSource, error) {
		s := &TokenSource{Initial: &oauth2.Token{AccessToken: "t"}}
		if strings.HasPrefix(account, "login") {
			s.Initial.RefreshToken = "the only one"
		}
		return s, nil
	}}
	a := &bearer.accounts
	a.limit = 10_000
	for i := range 1050 {
		account := fmt.Sprint("visitor", i)
		if i < 50 {
			account = fmt.Sprint("login", i)
		}
		_, err := a.of(t.Context(), account, bearer.Sources)
		require.NoError(t, err)
	}
	require.Less(t, len(a.known), 150)
}

// A request with another response than the one that led to it, such as one of a cache, is nobody's, where Account says another
// account than that of the request which that response answers.
func TestResponseThatACacheHasLedToIsNobodys(t *testing.T) {
	var sent []string
	transport := &Transport{Account: func(req *http.Request) string { return req.Header.Get("X-User") },
		Schemes: []Scheme{&APIKey{KeyFunc: func(_ context.Context, r CredentialsRequest) (string, error) { return "key-" + r.Account, nil }}},
		Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			sent = append(sent, req.Header.Get("Authorization"))
			return responseTo(req, 302, "Location", "/next"), nil
		})}
	req := httptest.NewRequest("GET", "https://api.example.com/", nil)
	req.Header.Set("X-User", "alice")
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	cached := *resp
	for _, user := range []string{"bob", "alice"} {
		next := httptest.NewRequest("GET", "https://api.example.com/next", nil)
		next.Header.Set("X-User", user)
		next.Response = &cached
		_, err = transport.RoundTrip(next)
		require.NoError(t, err)
	}
	require.Equal(t, []string{"ApiKey key-alice", "", "ApiKey key-alice"}, sent)
}

// Of those who come at the same moment, one asks.
func TestSourceOfAnAccountIsAskedForOnce(t *testing.T) {
	var a accountSources
	ask := func(context.Context, string) (oauth2.TokenSource, error) { return expiringSource(), nil }
	require.Same(t, a.add("alice", ask), a.add("alice", ask))
}

// A redirect's Request is the one that Base says it has sent, also where it is noted for whom that was.
func TestRedirectOfABaseThatSendsAnother(t *testing.T) {
	transport := &Transport{Account: func(*http.Request) string { return "alice" }, Schemes: []Scheme{&APIKey{Key: "k"}}}
	transport.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
		req = req.Clone(req.Context())
		req.Header.Set("X-Trace", "1")
		return responseTo(req, 302, "Location", "/next"), nil
	})
	resp := roundTrip(t, transport, "https://api.example.com/")
	require.Equal(t, http.Header{"X-Trace": {"1"}}, resp.Request.Header)
}

// A Scheme learns which others there are beside it, and nobody else does.
func TestHasScheme(t *testing.T) {
	var asked []string
	ask := func(ctx context.Context, where string) {
		for _, name := range []string{"Weak", "sTRONG", "Basic"} {
			if HasScheme(ctx, name) {
				asked = append(asked, where+" "+name)
			}
		}
	}
	weak := &puppet{name: "Weak",
		start: func(ctx context.Context, req *http.Request) (Session, error) { ask(ctx, "start"); return nil, nil },
		answer: func(ctx context.Context, c *Challenge, refusal *http.Response) (Session, error) {
			ask(ctx, "answer")
			derived, cancel := context.WithCancel(refusal.Request.Context())
			defer cancel()
			ask(derived, "derived")
			return nil, ErrUnsupportedChallenge
		}}
	strong := &puppet{name: "Strong", answer: func(context.Context, *Challenge, *http.Response) (Session, error) {
		return nil, ErrUnsupportedChallenge
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ask(r.Context(), "outside")
		w.Header().Set("WWW-Authenticate", "Weak")
		w.WriteHeader(401)
	}))
	defer server.Close()
	resp, err := (&http.Client{Transport: New(strong, weak)}).Get(server.URL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, []string{"start Weak", "start sTRONG", "answer Weak", "answer sTRONG", "derived Weak", "derived sTRONG"}, asked)
	require.False(t, HasScheme(context.Background(), "Weak"))
}
