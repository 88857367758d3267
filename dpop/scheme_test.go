package dpop_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/authtest/schemetest"
	"github.com/authretry/authretry/dpop"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A world is a server with a DPoP guard and token endpoint, and a client.
type world struct {
	*authtest.Server
	guard  *authtest.DPoP
	key    *dpop.Key
	tokens *authretry.TokenSource
	scheme *dpop.Scheme
	client *http.Client
}

func newWorld(t *testing.T, guard *authtest.DPoP) *world {
	w := &world{guard: guard, key: newKey(t)}
	w.Server = authtest.NewServer(guard)
	t.Cleanup(w.Close)
	endpoint := &authretry.TokenEndpoint{URL: guard.TokenURL(), ClientID: "app", Proof: w.key}
	w.tokens = &authretry.TokenSource{Fetch: endpoint.Refresh(), Initial: guard.Login(w.key.Thumbprint(), "read")}
	w.scheme = &dpop.Scheme{Source: w.tokens, Key: w.key}
	w.client = &http.Client{Transport: authretry.New(w.scheme)}
	return w
}

func (w *world) login(t *testing.T) *oauth2.Token {
	endpoint := &authretry.TokenEndpoint{URL: w.guard.TokenURL(), ClientID: "app", Proof: w.key}
	token, err := endpoint.AuthorizationCode(w.guard.Code(w.key.Thumbprint()), "", "")(context.Background(), authretry.TokenRequest{})
	require.NoError(t, err)
	require.Equal(t, w.key.Thumbprint(), authretry.RecordOf(token).KeyThumbprint)
	return token
}

// get sends a request, and returns its status and how often it was sent.
func (w *world) get(t *testing.T, path string) (status, sends int) {
	before := w.Counts().Requests
	resp := w.do(t, path)
	return resp.StatusCode, w.Counts().Requests - before
}

func (w *world) do(t *testing.T, path string) *http.Response {
	resp, err := w.client.Get(w.URL + path)
	require.NoError(t, err)
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp
}

func (w *world) requireSends(t *testing.T, wantStatus, wantSends int) {
	t.Helper()
	status, sends := w.get(t, "/things?q=1")
	require.Equal(t, []int{wantStatus, wantSends}, []int{status, sends})
}

func newKey(t testing.TB) *dpop.Key {
	k, err := dpop.OpenKey(t.TempDir() + "/key.pem")
	require.NoError(t, err)
	return k
}

var allNonces = map[string]authtest.Nonces{"none": authtest.NoNonces, "each time": authtest.NonceEachTime, "each minute": authtest.NonceEachMinute}

func TestHowOftenIsSent(t *testing.T) {
	for name, nonces := range allNonces {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, &authtest.DPoP{Nonces: nonces})
			token := w.login(t)
			extra := 0
			if nonces != authtest.NoNonces {
				extra = 1
			}
			require.Equal(t, 1+extra, w.Counts().TokenRequests, "the login")
			w.tokens.Initial = token
			w.requireSends(t, 200, 1) // the nonce is known from the same origin
			for range 5 {
				w.requireSends(t, 200, 1)
			}
			w.guard.ExpireNow()
			w.requireSends(t, 200, 2)
			require.Equal(t, 2+extra, w.Counts().TokenRequests, "the refresh")
			w.requireSends(t, 200, 1)

			w = newWorld(t, &authtest.DPoP{Nonces: nonces})
			w.requireSends(t, 200, 1+extra) // nothing is known yet
			w.requireSends(t, 200, 1)
			require.Zero(t, w.guard.Replays())
			require.Zero(t, w.Counts().TokenRequests)
		})
	}
}

// The nonce is judged before the token: so it takes the first of two sends to learn it, and the second to learn of the token.
func TestRevokedTokenAndUnknownNonce(t *testing.T) {
	for _, asBearer := range []bool{false, true} {
		w := newWorld(t, &authtest.DPoP{Nonces: authtest.NonceEachMinute, AsBearer: asBearer})
		w.guard.Revoke(w.tokens.Initial.AccessToken)
		w.requireSends(t, 401, 2)
		w.requireSends(t, 200, 1)
		w.requireSends(t, 200, 1)
	}
}

// A token that a server has accepted when it had asked for one, and then refuses, is replaced at once, time and again.
func TestRevokedAgainAndAgain(t *testing.T) {
	w := newWorld(t, &authtest.DPoP{Nonces: authtest.NonceEachTime})
	w.requireSends(t, 200, 2)
	for n := 1; n <= 5; n++ {
		w.guard.ExpireNow()
		w.requireSends(t, 200, 2)
		require.Equal(t, n, w.Counts().TokenRequests)
	}
}

// One that it refuses while it is fresh is not, be it in the background.
func TestRefusedForEver(t *testing.T) {
	for name, answer := range map[string]func(n int, w http.ResponseWriter){
		"invalid_token": func(_ int, w http.ResponseWriter) { refuse(w, `DPoP error="invalid_token"`, "") },
		"nothing":       func(_ int, w http.ResponseWriter) { w.WriteHeader(401) },
		"in turn": func(n int, w http.ResponseWriter) {
			if n%2 == 1 {
				refuse(w, `DPoP error="use_dpop_nonce"`, fmt.Sprint("n", n))
				return
			}
			refuse(w, `DPoP error="invalid_token"`, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, url := newAnswering(t, func(n int, w http.ResponseWriter, _ *http.Request) { answer(n, w) })
			var fetches atomic.Int32
			s := staticScheme(t)
			s.Source.Fetch = func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
				return &oauth2.Token{AccessToken: fmt.Sprint("t", fetches.Add(1)), TokenType: "DPoP"}, nil
			}
			client := &http.Client{Transport: authretry.New(s)}
			for range 10 {
				resp, err := client.Get(url)
				require.NoError(t, err)
				resp.Body.Close()
				require.Equal(t, 401, resp.StatusCode)
			}
			require.LessOrEqual(t, a.sends.Load(), int32(20))
			require.EqualValues(t, 1, fetches.Load())
		})
	}
}

func TestServersThatChallengeOtherwise(t *testing.T) {
	for name, c := range map[string]struct {
		challenge []string
		sends     int
	}{
		"Bearer":                      {[]string{`Bearer error="invalid_token"`}, 2},
		"nothing":                     {nil, 2},
		"without an error":            {[]string{`DPoP`}, 2},
		"Bearer first":                {[]string{`Bearer`, `DPoP error="invalid_token"`}, 2},
		"an error that nobody knows":  {[]string{`DPoP error="x"`}, 2},
		"damaged":                     {[]string{`DPoP error="`}, 2},
		"Bearer after, to have it so": {[]string{`DPoP error="invalid_token", Bearer error="invalid_token"`}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, &authtest.DPoP{Nonces: authtest.NonceEachTime})
			w.requireSends(t, 200, 2)
			w.guard.Revoke(w.tokens.Initial.AccessToken)
			w.Inject("/", 1, authtest.RewriteChallenges(func([]string) []string { return c.challenge }))
			w.requireSends(t, 200, c.sends)
			require.Equal(t, 1, w.Counts().TokenRequests)
			for _, r := range w.Requests() {
				require.True(t, strings.HasPrefix(r.Header.Get("Authorization"), "DPoP "), "never as Bearer")
				require.Len(t, r.Header["Dpop"], 1)
			}
		})
	}
}

func TestProofThatWasUsedBefore(t *testing.T) {
	w := newWorld(t, &authtest.DPoP{})
	w.requireSends(t, 200, 1)
	w.Inject("/", 1, authtest.Reply(401, http.Header{"Www-Authenticate": {`DPoP error="invalid_dpop_proof"`}}, ""))
	w.requireSends(t, 200, 2)
	require.Zero(t, w.Counts().TokenRequests, "the token is not to blame")
	w.Inject("/", 2, authtest.Reply(401, http.Header{"Www-Authenticate": {`DPoP error="invalid_dpop_proof"`}}, ""))
	w.requireSends(t, 401, 2)
	w.requireSends(t, 200, 1)
	require.Zero(t, w.Counts().TokenRequests)
}

// answering is a server of which a test says all.
type answering struct {
	sends   atomic.Int32
	headers sync.Map
}

func newAnswering(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) (*answering, string) {
	a := &answering{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(a.sends.Add(1))
		a.headers.Store(n, r.Header.Clone())
		answer(n, w, r)
	}))
	t.Cleanup(srv.Close)
	return a, srv.URL
}

func (a *answering) header(n int) http.Header {
	h, _ := a.headers.Load(n)
	return h.(http.Header)
}

func refuse(w http.ResponseWriter, challenge, nonce string) {
	w.Header().Set("WWW-Authenticate", challenge)
	if nonce != "" {
		w.Header().Set("DPoP-Nonce", nonce)
	}
	w.WriteHeader(401)
}

func staticScheme(t testing.TB) *dpop.Scheme {
	return &dpop.Scheme{Key: newKey(t), Source: &authretry.TokenSource{Initial: &oauth2.Token{AccessToken: "t", TokenType: "dpop"}}}
}

func TestNoncesThatAreNone(t *testing.T) {
	for name, nonce := range map[string]string{
		"none": "", "huge": strings.Repeat("n", 1025), "with a space": "a b", "with a quote": `a"b`, "outside ASCII": "ä",
	} {
		t.Run(name, func(t *testing.T) {
			a, url := newAnswering(t, func(_ int, w http.ResponseWriter, _ *http.Request) { refuse(w, `DPoP error="use_dpop_nonce"`, nonce) })
			client := &http.Client{Transport: authretry.New(staticScheme(t))}
			resp, err := client.Get(url)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, 401, resp.StatusCode)
			require.EqualValues(t, 1, a.sends.Load())
			require.ErrorContains(t, authretry.Explain(resp), "has given none that can be used")
		})
	}
}

func TestNonceForEver(t *testing.T) {
	for name, c := range map[string]struct {
		nonce func(n int) string
		sends []int32
	}{
		"the same":     {func(int) string { return "n" }, []int32{2, 3, 4}},
		"another each": {func(n int) string { return fmt.Sprint("n", n) }, []int32{2, 4, 6}},
	} {
		t.Run(name, func(t *testing.T) {
			a, url := newAnswering(t, func(n int, w http.ResponseWriter, _ *http.Request) {
				refuse(w, `DPoP error="use_dpop_nonce"`, c.nonce(n))
			})
			client := &http.Client{Transport: authretry.New(staticScheme(t))}
			for _, want := range c.sends {
				resp, err := client.Get(url)
				require.NoError(t, err)
				resp.Body.Close()
				require.Equal(t, 401, resp.StatusCode)
				require.Equal(t, want, a.sends.Load())
			}
		})
	}
}

func TestAlgorithmThatTheServerDoesNotTake(t *testing.T) {
	w := newWorld(t, &authtest.DPoP{Algorithms: []string{"EdDSA", "PS256"}})
	resp := w.do(t, "/")
	require.Equal(t, 401, resp.StatusCode)
	require.Equal(t, 1, w.Counts().Requests)
	var r *authretry.Rejection
	require.ErrorAs(t, authretry.Explain(resp), &r)
	require.Equal(t, authretry.ReasonUnsupportedScheme, r.Reason)
	require.ErrorContains(t, r, `the server takes proofs signed by "EdDSA PS256", and the key signs by ES256`)
}

func TestAllAlgorithmsAreTaken(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	edKey, err := dpop.NewKey(ed)
	require.NoError(t, err)
	rsaKey, err := dpop.NewKey(big)
	require.NoError(t, err)
	for _, key := range []*dpop.Key{newKey(t), edKey, rsaKey} {
		guard := &authtest.DPoP{Nonces: authtest.NonceEachTime}
		srv := authtest.NewHTTP2Server(guard)
		defer srv.Close()
		client := &http.Client{Transport: &authretry.Transport{Base: srv.Client().Transport, Schemes: []authretry.Scheme{
			&dpop.Scheme{Key: key, Source: &authretry.TokenSource{Initial: guard.Login(key.Thumbprint())}},
		}}}
		for _, path := range []string{"", "/", "/a%2Fb/c%20d?x=y#z", "/ä;b=c,d/$&+!*'()", "//double/../dots/./"} {
			resp, err := client.Post(srv.URL+path, "text/plain", strings.NewReader("body"))
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode, "%s: %v", path, srv.Requests())
		}
	}
}

func TestTokensThatAreNotSent(t *testing.T) {
	record := func(r authretry.Record) *oauth2.Token {
		r.Token = &oauth2.Token{AccessToken: "secret-token", TokenType: "DPoP"}
		data, err := r.Encode()
		require.NoError(t, err)
		got, err := authretry.DecodeRecord(data)
		require.NoError(t, err)
		return got.Token
	}
	for name, c := range map[string]struct {
		token  *oauth2.Token
		reason authretry.Reason
		text   string
	}{
		"of type Bearer":       {&oauth2.Token{AccessToken: "secret-token", TokenType: "Bearer"}, authretry.ReasonNoCredentials, `of type "Bearer"`},
		"of no type":           {&oauth2.Token{AccessToken: "secret-token"}, authretry.ReasonNoCredentials, `of type ""`},
		"of another key":       {record(authretry.Record{KeyThumbprint: "another"}), authretry.ReasonWrongKey, "thumbprint"},
		"for another resource": {record(authretry.Record{Resource: "https://api.example.com/v1"}), authretry.ReasonNoCredentials, "https://api.example.com"},
	} {
		for _, notAhead := range []bool{false, true} {
			t.Run(fmt.Sprint(name, notAhead), func(t *testing.T) {
				a, url := newAnswering(t, func(_ int, w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("Authorization") == "" {
						refuse(w, "DPoP", "")
					}
				})
				s := &dpop.Scheme{Key: newKey(t), Source: &authretry.TokenSource{Initial: c.token}, NotAhead: notAhead}
				_, err := (&http.Client{Transport: authretry.New(s)}).Get(url)
				var r *authretry.Rejection
				require.ErrorAs(t, err, &r)
				require.Equal(t, c.reason, r.Reason)
				require.ErrorContains(t, err, c.text)
				require.NotContains(t, err.Error(), "secret-token")
				if notAhead {
					require.EqualValues(t, 1, a.sends.Load())
				} else {
					require.Zero(t, a.sends.Load())
				}
			})
		}
	}
}

// An authorization server that ignores the proof issues a Bearer token: that is an error, and not a downgrade.
func TestEndpointThatIssuesBearerTokens(t *testing.T) {
	w := newWorld(t, &authtest.DPoP{TokenType: "Bearer"})
	w.tokens.Initial.TokenType = "DPoP"
	w.guard.ExpireNow()
	_, err := w.client.Get(w.URL)
	require.ErrorContains(t, err, `token of type "Bearer"`)
	require.Equal(t, 1, w.Counts().Requests)
}

func TestNotAhead(t *testing.T) {
	w := newWorld(t, &authtest.DPoP{Nonces: authtest.NonceEachTime})
	w.scheme.NotAhead = true
	w.requireSends(t, 200, 2)
	require.Empty(t, w.Requests()[0].Header.Get("Authorization"))
	require.Empty(t, w.Requests()[0].Header.Get("DPoP"))
	w.requireSends(t, 200, 1)
	w.guard.Revoke(w.tokens.Initial.AccessToken)
	w.requireSends(t, 200, 2)
	w.requireSends(t, 200, 1)
}

func TestCallersOwnProofIsLeftAlone(t *testing.T) {
	for _, notAhead := range []bool{false, true} {
		w := newWorld(t, &authtest.DPoP{})
		w.scheme.NotAhead = notAhead
		req, err := http.NewRequest("GET", w.URL, nil)
		require.NoError(t, err)
		req.Header.Set("DPoP", "own")
		resp, err := w.client.Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 401, resp.StatusCode)
		var why *authretry.Rejection
		require.ErrorAs(t, authretry.Explain(resp), &why)
		require.Empty(t, why.Tried)
		for _, r := range w.Requests() {
			require.Equal(t, []string{"own"}, r.Header["Dpop"])
			require.Empty(t, r.Header["Authorization"])
		}
	}
}

// One refresh, however many are refused at once; and nobody is refused for the nonce that another uses, too.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t, &authtest.DPoP{Nonces: authtest.NonceEachMinute})
	get := func() {
		var wg sync.WaitGroup
		var ok atomic.Int32
		for range 50 {
			wg.Go(func() {
				if resp, err := w.client.Get(w.URL); err == nil {
					resp.Body.Close()
					if resp.StatusCode == 200 {
						ok.Add(1)
					}
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 50, ok.Load())
	}
	get()
	require.LessOrEqual(t, w.Counts().Requests, 100, "at most one more each")
	w.Reset()
	for range 4 {
		get()
	}
	require.Equal(t, 200, w.Counts().Requests)
	w.guard.ExpireNow()
	get()
	require.Equal(t, 1, w.Counts().TokenRequests)
	require.Zero(t, w.guard.Replays())
}

func TestStepUp(t *testing.T) {
	for _, status := range []int{401, 403} {
		for _, stepUp := range []bool{true, false} {
			key := newKey(t)
			token := func(access, scope string) *oauth2.Token {
				return (&oauth2.Token{AccessToken: access, TokenType: "DPoP"}).WithExtra(map[string]any{"scope": scope})
			}
			var asked atomic.Pointer[authretry.TokenRequest]
			source := &authretry.TokenSource{Initial: token("narrow", "read"), Fetch: func(_ context.Context, r authretry.TokenRequest) (*oauth2.Token, error) {
				asked.Store(&r)
				return token("wide", strings.Join(r.Scopes, " ")), nil
			}}
			a, url := newAnswering(t, func(_ int, w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "DPoP wide" {
					w.Header().Set("WWW-Authenticate", `DPoP error="insufficient_scope", scope="write"`)
					w.WriteHeader(status)
				}
			})
			client := &http.Client{Transport: authretry.New(&dpop.Scheme{Source: source, Key: key, StepUp: stepUp})}
			resp, err := client.Get(url)
			require.NoError(t, err)
			resp.Body.Close()
			if stepUp {
				require.Equal(t, 200, resp.StatusCode)
				require.EqualValues(t, 2, a.sends.Load())
				require.ElementsMatch(t, []string{"read", "write"}, asked.Load().Scopes)
				continue
			}
			require.Equal(t, status, resp.StatusCode)
			require.EqualValues(t, 1, a.sends.Load())
			require.Nil(t, asked.Load())
			var r *authretry.Rejection
			require.ErrorAs(t, authretry.Explain(resp), &r)
			require.Equal(t, authretry.ReasonInsufficientScope, r.Reason)
		}
	}
}

// A server whose nonces are good once: each comes with the response before, which was a success.
func TestNonceThatChangesWithEachResponse(t *testing.T) {
	var last atomic.Value
	last.Store("")
	a, url := newAnswering(t, func(n int, w http.ResponseWriter, r *http.Request) {
		nonce, _ := claimsOf(t, r.Header.Get("DPoP"))["nonce"].(string)
		good := nonce != "" && nonce == last.Load()
		last.Store(fmt.Sprint("n", n))
		if !good {
			refuse(w, `DPoP error="use_dpop_nonce"`, fmt.Sprint("n", n))
			return
		}
		w.Header().Set("DPoP-Nonce", fmt.Sprint("n", n))
	})
	client := &http.Client{Transport: authretry.New(staticScheme(t))}
	for i := range 5 {
		resp, err := client.Get(url)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
		require.EqualValues(t, 2+i, a.sends.Load())
	}
}

// A server that says nothing but gives a nonce for the first time wants that, rather than another token.
func TestNonceWithoutAChallenge(t *testing.T) {
	a, url := newAnswering(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if claimsOf(t, r.Header.Get("DPoP"))["nonce"] != "n" {
			w.Header().Set("DPoP-Nonce", "n")
			w.WriteHeader(401)
		}
	})
	s := staticScheme(t)
	s.Source.Fetch = func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
		t.Error("the token is good")
		return nil, errors.New("x")
	}
	resp, err := (&http.Client{Transport: authretry.New(s)}).Get(url)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
	require.EqualValues(t, 2, a.sends.Load())
}

// A redirect to another origin takes neither token nor proof along, and its nonce is nobody's.
func TestRedirectToAnotherOrigin(t *testing.T) {
	other, otherURL := newAnswering(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		refuse(w, `DPoP error="use_dpop_nonce"`, "foreign")
	})
	a, url := newAnswering(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("DPoP-Nonce", "own")
		if r.URL.Path == "/away" {
			http.Redirect(w, r, otherURL, http.StatusTemporaryRedirect)
		}
	})
	s := staticScheme(t)
	client := &http.Client{Transport: authretry.New(s)}
	for _, path := range []string{"/away", "/"} {
		resp, err := client.Get(url + path)
		require.NoError(t, err)
		resp.Body.Close()
	}
	require.Empty(t, other.header(1)["Dpop"])
	require.Empty(t, other.header(1)["Authorization"])
	require.EqualValues(t, 1, other.sends.Load())
	require.Equal(t, "own", claimsOf(t, a.header(2).Get("DPoP"))["nonce"])

	resp, err := client.Get(otherURL) // which is asked now as any other
	require.NoError(t, err)
	resp.Body.Close()
	require.NotContains(t, claimsOf(t, other.header(2).Get("DPoP")), "nonce")
	require.Equal(t, "foreign", claimsOf(t, other.header(3).Get("DPoP"))["nonce"])
}

// A Base that follows redirects by itself brings a nonce from elsewhere.
func TestNonceByABaseThatFollowsRedirects(t *testing.T) {
	_, otherURL := newAnswering(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.Header().Set("DPoP-Nonce", "foreign") })
	away := false
	a, url := newAnswering(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		if away {
			http.Redirect(w, r, otherURL, http.StatusTemporaryRedirect)
		}
	})
	s := staticScheme(t)
	away = true
	following := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return http.DefaultClient.Do(req.Clone(req.Context()))
	})
	_, err := (&authretry.Transport{Base: following, Schemes: []authretry.Scheme{s}}).RoundTrip(newRequest(t, url))
	require.Error(t, err)
	away = false
	resp, err := authretry.New(s).RoundTrip(newRequest(t, url))
	require.NoError(t, err)
	resp.Body.Close()
	require.NotContains(t, claimsOf(t, a.header(int(a.sends.Load())).Get("DPoP")), "nonce")
}

type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func newRequest(t testing.TB, url string) *http.Request {
	req, err := http.NewRequest("GET", url, nil)
	require.NoError(t, err)
	return req
}

func TestPlainHTTP(t *testing.T) {
	_, err := (&http.Client{Transport: authretry.New(staticScheme(t))}).Get("http://api.example.com/")
	var r *authretry.Rejection
	require.ErrorAs(t, err, &r)
	require.Equal(t, authretry.ReasonPlaintext, r.Reason)
}

// A proxy can get one header only, and a token without its proof is for nobody.
func TestNotForProxies(t *testing.T) {
	a, url := newAnswering(t, func(int, http.ResponseWriter, *http.Request) {})
	proxied := authretry.NewProxyTransport(&http.Transport{Proxy: http.ProxyURL(newRequest(t, url).URL)}, staticScheme(t))
	_, err := proxied.RoundTrip(newRequest(t, "http://api.example.com/"))
	require.Error(t, err)
	require.Zero(t, a.sends.Load())
}

func TestMistakesInTheFields(t *testing.T) {
	key, source := newKey(t), &authretry.TokenSource{}
	sources := func(context.Context, string) (*authretry.TokenSource, *dpop.Key, error) { return source, key, nil }
	for _, s := range []*dpop.Scheme{{}, {Source: source}, {Key: key}, {Source: source, Key: key, Sources: sources}, {Key: key, Sources: sources}, {Sources: sources}} {
		_, err := (&http.Client{Transport: authretry.New(s)}).Get("https://api.example.com/")
		require.ErrorContains(t, err, "dpop: Scheme.S")
	}
}

// The second login fails, and then the account is asked for again.
func TestAccounts(t *testing.T) {
	guard := &authtest.DPoP{Nonces: authtest.NonceEachMinute}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	var asked sync.Map
	s := &dpop.Scheme{Sources: func(_ context.Context, account string) (*authretry.TokenSource, *dpop.Key, error) {
		n, _ := asked.LoadOrStore(account, new(atomic.Int32))
		if n.(*atomic.Int32).Add(1) == 1 && account == "fails" {
			return nil, nil, errors.New("no such user")
		}
		key := newKey(t)
		return &authretry.TokenSource{Initial: guard.Login(key.Thumbprint())}, key, nil
	}}
	transport := &authretry.Transport{Schemes: []authretry.Scheme{s}, Account: func(r *http.Request) string { return r.Header.Get("X-User") }}
	get := func(user string) error {
		req := newRequest(t, srv.URL)
		req.Header.Set("X-User", user)
		resp, err := transport.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode)
		}
		return err
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() { get(fmt.Sprint("user", i%4)) })
	}
	wg.Wait()
	for i := range 4 {
		n, _ := asked.Load(fmt.Sprint("user", i))
		require.EqualValues(t, 1, n.(*atomic.Int32).Load())
	}
	require.ErrorContains(t, get("fails"), "no such user")
	require.NoError(t, get("fails"))
	transport.Forget("user1")
	require.NoError(t, get("user1"))
	n, _ := asked.Load("user1")
	require.EqualValues(t, 2, n.(*atomic.Int32).Load())
	require.Zero(t, guard.Replays())
}

const checkedSecret = "a-secret-of-the-check"

func TestSchemeKeepsTheContract(t *testing.T) {
	key := newKey(t)
	token := func(access string) *oauth2.Token {
		return &oauth2.Token{AccessToken: access, TokenType: "DPoP", RefreshToken: "refresh-" + checkedSecret}
	}
	accepting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "DPoP "+checkedSecret || len(r.Header["Dpop"]) != 1 || r.Header.Get("DPoP") == "the caller's" {
			refuse(w, `DPoP realm="x", algs="ES256"`, "")
		}
	})
	renewing := func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) { return token(checkedSecret), nil }
	slow := func() authretry.Scheme {
		return &dpop.Scheme{Key: key, Source: &authretry.TokenSource{Fetch: func(ctx context.Context, _ authretry.TokenRequest) (*oauth2.Token, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}}
	}
	for name, scheme := range map[string]func() authretry.Scheme{
		"static": func() authretry.Scheme {
			return &dpop.Scheme{Key: key, Source: &authretry.TokenSource{Initial: token(checkedSecret)}}
		},
		"renewing": func() authretry.Scheme {
			return &dpop.Scheme{Key: key, Source: &authretry.TokenSource{Initial: token("revoked"), Fetch: renewing}}
		},
		"not ahead": func() authretry.Scheme {
			return &dpop.Scheme{Key: key, Source: &authretry.TokenSource{Initial: token(checkedSecret)}, NotAhead: true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			schemetest.Run(t, scheme, schemetest.Options{Server: accepting, Slow: slow, Secrets: []string{checkedSecret}, AnswersAgain: name == "renewing"})
		})
	}
}

func TestSchemeKeepsAccountsApart(t *testing.T) {
	var renewals sync.Map
	of := func(account string) string {
		n, _ := renewals.LoadOrStore(account, 0)
		return fmt.Sprintf("%s-%s-%d", checkedSecret, account, n)
	}
	accounts := map[string]http.Handler{}
	keys := map[string]*dpop.Key{}
	for _, account := range []string{"Mufasa", "Scar", "Nala"} {
		keys[account] = newKey(t)
		accounts[account] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "DPoP "+of(account) || len(r.Header["Dpop"]) != 1 {
				refuse(w, "DPoP", "")
			}
		})
	}
	schemetest.Run(t, func() authretry.Scheme {
		return &dpop.Scheme{Sources: func(_ context.Context, account string) (*authretry.TokenSource, *dpop.Key, error) {
			token := &oauth2.Token{AccessToken: of(account), TokenType: "DPoP", RefreshToken: "r"}
			fetch := func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) { return token, nil }
			return &authretry.TokenSource{Initial: token, Fetch: fetch}, keys[account], nil
		}}
	}, schemetest.Options{Accounts: accounts, Secrets: []string{checkedSecret}, AnswersAgain: true, Renew: func(account string) {
		n, _ := renewals.LoadOrStore(account, 0)
		renewals.Store(account, n.(int)+1)
	}})
}
