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
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/dpop"
	"github.com/authretry/authretry/internal/thorough"
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
		resp := w.do(t, "/things?q=1")
		require.Equal(t, []int{401, 2}, []int{resp.StatusCode, w.Counts().Requests})
		r, _ := errors.AsType[*authretry.Rejection](authretry.Explain(resp))
		require.Equal(t, authretry.ReasonCredentialsRefused, r.Reason)
		require.ErrorContains(t, r, "then the token was refused, which is being replaced: the next request has another one")
		w.requireSends(t, 200, 1)
		w.requireSends(t, 200, 1)
	}
}

// Nobody says that a token is being replaced if there is nothing to replace it with, or if it is not the token that is to blame.
func TestNothingIsReplaced(t *testing.T) {
	for second, fetch := range map[string]authretry.FetchFunc{
		`DPoP error="invalid_token"`: nil,
		`DPoP error="use_dpop_nonce"`: func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
			t.Error("the token is good")
			return nil, errors.New("x")
		},
	} {
		a, url := newAnswering(t, func(n int, w http.ResponseWriter, _ *http.Request) {
			if n == 1 {
				refuse(w, `DPoP error="use_dpop_nonce"`, "n1")
				return
			}
			refuse(w, second, "n2")
		})
		s := staticScheme(t)
		s.Source.Fetch = fetch
		resp, err := (&http.Client{Transport: authretry.New(s)}).Get(url)
		require.NoError(t, err)
		resp.Body.Close()
		require.EqualValues(t, 2, a.sends.Load())
		require.ErrorContains(t, authretry.Explain(resp), "credentials were refused")
		require.NotContains(t, authretry.Explain(resp).Error(), "being replaced")
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
		"of type Bearer":       {&oauth2.Token{AccessToken: "secret-token", TokenType: "Bearer"}, authretry.ReasonNoCredentials, `of type "Bearer", and only DPoP tokens are bound to a key (RFC 9449 §5); set TokenEndpoint.Proof, or discover.Config.Proof, to the Key; if that is set`},
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

// Where Request.Host decides where the request goes, as by a proxy, a token for the host of the URL is not sent.
func TestTokenIsNotSentWhereHostLeads(t *testing.T) {
	record := authretry.Record{Resource: "http://api.internal/", Token: &oauth2.Token{AccessToken: "secret-token", TokenType: "DPoP"}}
	data, err := record.Encode()
	require.NoError(t, err)
	decoded, err := authretry.DecodeRecord(data)
	require.NoError(t, err)
	proxy, proxyURL := newAnswering(t, func(int, http.ResponseWriter, *http.Request) {})
	u, err := url.Parse(proxyURL)
	require.NoError(t, err)
	base := &http.Transport{Proxy: http.ProxyURL(u)}
	defer base.CloseIdleConnections()
	client := &http.Client{Transport: &authretry.Transport{Base: base, AllowPlaintext: true,
		Schemes: []authretry.Scheme{&dpop.Scheme{Key: newKey(t), Source: &authretry.TokenSource{Initial: decoded.Token}}}}}
	for host, sends := range map[string]int{"evil.example": 0, "api.internal": 1} {
		req := newRequest(t, "http://api.internal/")
		req.Host = host
		resp, err := client.Do(req)
		if sends == 0 {
			require.ErrorContains(t, err, "not sent to another origin; take a TokenSource for each server, with a Store of its own")
		} else {
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
		}
		require.EqualValues(t, sends, proxy.sends.Swap(0))
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
	for _, c := range []struct {
		notAhead bool
		name     string
	}{{false, "Dpop"}, {true, "Dpop"}, {false, "DPoP"}, {true, "DPoP"}, {false, "dpop"}} {
		w := newWorld(t, &authtest.DPoP{})
		w.scheme.NotAhead = c.notAhead
		req, err := http.NewRequest("GET", w.URL, nil)
		require.NoError(t, err)
		req.Header[c.name] = []string{"own"} // in the spelling of the RFC, for instance
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
	many := thorough.Or(50, 20)
	get := func() {
		var wg sync.WaitGroup
		var ok atomic.Int32
		for range many {
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
		require.EqualValues(t, many, ok.Load())
	}
	get()
	require.LessOrEqual(t, w.Counts().Requests, 2*many, "at most one more each")
	w.Reset()
	for range 4 {
		get()
	}
	require.Equal(t, 4*many, w.Counts().Requests)
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

// Where it is proofs that are refused, the clock is what is wrong mostly, which is said, and by how much.
func TestProofsThatAreRefused(t *testing.T) {
	for date, want := range map[string]string{
		time.Now().Add(-2 * time.Hour).UTC().Format(http.TimeFormat):   "that of this machine is 2h0m",
		time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat): "s behind; set it right",
		time.Now().UTC().Format(http.TimeFormat):                       "see that the clock is right, and that the server knows itself by the URL that it is asked by",
		"yesterday":                                                    "see that the clock is right",
	} {
		a, url := newAnswering(t, func(_ int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", date)
			refuse(w, `DPoP error="invalid_dpop_proof"`, "")
		})
		resp, err := (&http.Client{Transport: authretry.New(staticScheme(t))}).Get(url)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.EqualValues(t, 2, a.sends.Load())
		require.ErrorContains(t, authretry.Explain(resp), "the server refuses a proof, and another one, too (invalid_dpop_proof)")
		require.ErrorContains(t, authretry.Explain(resp), want)
		require.ErrorIs(t, authretry.Explain(resp), authretry.ErrCredentialsRefused)
	}
}

// A server that refuses every token has one reason, for the request that has had the token replaced and for those after it.
func TestFreshTokenThatIsRefusedHasOneReason(t *testing.T) {
	w := newWorld(t, &authtest.DPoP{})
	w.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `DPoP error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	for range 3 {
		resp := w.do(t, "/")
		require.Equal(t, 401, resp.StatusCode)
		r, ok := errors.AsType[*authretry.Rejection](authretry.Explain(resp))
		require.True(t, ok)
		require.Equal(t, authretry.ReasonFreshTokenRefused, r.Reason, r.Error())
	}
}

// A 429 may come from in front of the server, and says nothing of the token: one that is refused next is as fresh as before.
func TestTooManyRequestsAcceptNothing(t *testing.T) {
	for status, want := range map[int]authretry.Reason{200: 0, 429: authretry.ReasonFreshTokenRefused, 503: authretry.ReasonFreshTokenRefused} {
		w := newWorld(t, &authtest.DPoP{})
		sends := 0
		w.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if sends++; sends == 2 {
				w.WriteHeader(status)
			} else if sends < 4 {
				refuse(w, `DPoP error="invalid_token"`, "")
			}
		}))
		require.Equal(t, status, w.do(t, "/").StatusCode)
		resp := w.do(t, "/")
		if want == 0 {
			require.Equal(t, 200, resp.StatusCode, "the token was good, and is replaced")
			continue
		}
		require.Equal(t, 401, resp.StatusCode)
		r, ok := errors.AsType[*authretry.Rejection](authretry.Explain(resp))
		require.True(t, ok)
		require.Equal(t, want, r.Reason, status)
	}
}
