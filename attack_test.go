package authretry

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry/internal/quicktls"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

var discardLog = slog.NewLogLogger(slog.DiscardHandler, 0) // for servers that would write of every fault

// What an attacker is after, in all its disguises.
const secret = "hunter2"

var allChallenges = []string{
	`Bearer realm="x"`,
	`Digest realm="x", nonce="n", qop="auth", algorithm=SHA-256`,
	`Basic realm="x"`,
	`ApiKey realm="x"`,
}

// A net of names: every host leads to one of two loopback servers, one with TLS and one without. The origin of all
// good is https://api.example.com, and everybody else is evil.
type internet struct {
	tls, plain *httptest.Server

	mu       sync.Mutex
	requests []*http.Request
}

// newInternet starts the servers. The good origin redirects from /open at once, and from /locked when there are
// credentials; /landing is where an attacker sends people back to.
func newInternet(t *testing.T) *internet {
	n := &internet{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		n.requests = append(n.requests, r)
		n.mu.Unlock()
		to := r.URL.Query().Get("to")
		switch {
		case isGood(r) && (r.URL.Path == "/open" || r.URL.Path == "/locked" && hasCredentials(r)):
			http.Redirect(w, r, to, http.StatusTemporaryRedirect)
		case !isGood(r) && r.URL.Path == "/back":
			http.Redirect(w, r, "https://api.example.com/landing", http.StatusTemporaryRedirect)
		case !isGood(r) && r.URL.Path == "/round":
			http.Redirect(w, r, "https://api.example.com/relay", http.StatusTemporaryRedirect)
		case isGood(r) && r.URL.Path == "/relay":
			http.Redirect(w, r, "/landing", http.StatusTemporaryRedirect)
		default:
			w.Header()["Www-Authenticate"] = allChallenges
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	n.tls = httptest.NewUnstartedServer(handler)
	n.tls.EnableHTTP2 = true
	n.tls.TLS = quicktls.Config() // there are many handshakes
	n.tls.Config.ErrorLog = discardLog
	n.tls.StartTLS()
	n.plain = httptest.NewServer(handler)
	t.Cleanup(n.tls.Close)
	t.Cleanup(n.plain.Close)
	return n
}

func isGood(r *http.Request) bool { return r.TLS != nil && r.Host == "api.example.com" }

func hasCredentials(r *http.Request) bool {
	return r.Header["Authorization"] != nil || r.Header["X-Api-Key"] != nil
}

func (n *internet) transport(t *testing.T, http2 bool) *http.Transport {
	base := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			to := n.tls
			if strings.HasSuffix(address, ":80") {
				to = n.plain
			}
			return (&net.Dialer{}).DialContext(ctx, network, to.Listener.Addr().String())
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: http2,
	}
	t.Cleanup(base.CloseIdleConnections)
	return base
}

// take returns the requests since the last call.
func (n *internet) take() []*http.Request {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer func() { n.requests = nil }()
	return n.requests
}

// followingBase is an http.Client that somebody has made a RoundTripper of. It follows redirects.
func followingBase(base http.RoundTripper) http.RoundTripper {
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return (&http.Client{Transport: base}).Do(req)
	})
}

var attackedSchemes = map[string]func() Scheme{
	"Basic":        func() Scheme { return &Basic{Username: "u", Password: secret} },
	"Basic, ahead": func() Scheme { return &Basic{Username: "u", Password: secret, Ahead: true} },
	"Digest":       func() Scheme { return &Digest{Username: "u", Password: secret} },
	"Bearer": func() Scheme {
		return &Bearer{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: secret})}
	},
	"Bearer, long": func() Scheme {
		return &Bearer{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: strings.Repeat("x", 8<<10)})}
	},
	"Bearer, challenged": func() Scheme {
		return &Bearer{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: secret}), NotAhead: true}
	},
	"API key":         func() Scheme { return &APIKey{Key: secret} },
	"API key, header": func() Scheme { return &APIKey{Header: "X-API-Key", Key: secret} },
}

func TestAttackRedirects(t *testing.T) {
	t.Parallel()
	targets := []string{
		"https://evil.test/",
		"https://evil.test/back",
		"https://evil.test/round",
		"https://api.example.com:8443/",
		"http://api.example.com/",
		"https://v2.api.example.com/",
		"https://v2.api.example.com/back",
		"https://api.example.com.evil.test/",
		"https://example.com/",
		"//evil.test\\@api.example.com/",
	}
	quiet := func(c *retryablehttp.Client) *retryablehttp.Client {
		c.Logger, c.RetryMax = nil, 1
		c.RetryWaitMin, c.RetryWaitMax = time.Millisecond, time.Millisecond
		return c
	}
	clients := map[string]func(base http.RoundTripper, s Scheme) http.RoundTripper{
		"http.Client": func(base http.RoundTripper, s Scheme) http.RoundTripper {
			return &Transport{Base: base, Schemes: []Scheme{s}}
		},
		"a Base that follows": func(base http.RoundTripper, s Scheme) http.RoundTripper {
			return &Transport{Base: followingBase(base), Schemes: []Scheme{s}}
		},
		"retries outside": func(base http.RoundTripper, s Scheme) http.RoundTripper {
			return &retryablehttp.RoundTripper{Client: quiet(NewRetryableClient(&Transport{Base: base, Schemes: []Scheme{s}}))}
		},
		"retries inside": func(base http.RoundTripper, s Scheme) http.RoundTripper {
			inner := quiet(retryablehttp.NewClient())
			inner.HTTPClient = &http.Client{Transport: base}
			return &Transport{Base: &retryablehttp.RoundTripper{Client: inner}, Schemes: []Scheme{s}}
		},
	}
	every, kinds := thorough.Or(1, 8), 0 // of all combinations; there are as many kinds of clients, which begin with another each
	for _, clientName := range slices.Sorted(maps.Keys(clients)) {
		newClient := clients[clientName]
		for _, http2 := range []bool{false, true} {
			i := kinds
			kinds++
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", clientName, http2), func(t *testing.T) {
				t.Parallel()
				n := newInternet(t)
				base := n.transport(t, http2)
				for _, schemeName := range slices.Sorted(maps.Keys(attackedSchemes)) {
					newScheme := attackedSchemes[schemeName]
					for _, target := range targets {
						for _, path := range []string{"/open", "/locked"} {
							if i++; i%every > 0 {
								continue
							}
							client := &http.Client{Transport: newClient(base, newScheme())}
							what := fmt.Sprint(schemeName, " ", path, " ", target)
							asked, strayed := false, false
							for range 3 { // from the second time on, it knows what the server wants
								resp, err := client.Get("https://api.example.com" + path + "?to=" + url.QueryEscape(target))
								if err == nil {
									resp.Body.Close()
								}
								found := strayed // and so refused from then on
								for _, r := range n.take() {
									require.False(t, found && hasCredentials(r), "%s: again, to %s%s", what, r.Host, r.URL)
									if isGood(r) && r.URL.Path == path {
										asked = asked || hasCredentials(r)
									} else if clientName == "a Base that follows" {
										strayed = strayed || hasCredentials(r)
									} else {
										require.False(t, hasCredentials(r), "%s: credentials went to %s%s", what, r.Host, r.URL)
									}
									require.NotContains(t, fmt.Sprint(r.Header["Referer"], r.URL, r.Header["Cookie"]), secret)
								}
								if found {
									require.ErrorContains(t, err, "ErrUseLastResponse", what)
								}
							}
							if path == "/locked" {
								require.True(t, asked, "%s: the good origin got none either", what)
							}
						}
					}
				}
			})
		}
	}
}

// A redirect inside the origin, and one from http to https, are followed with credentials as before, by whomever.
func TestAttackGuardsLetFriendsPass(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	base := n.transport(t, false)
	inner := retryablehttp.NewClient()
	inner.Logger, inner.HTTPClient = nil, &http.Client{Transport: base}
	for name, b := range map[string]http.RoundTripper{
		"http.Transport": base, "following": followingBase(base), "retries": &retryablehttp.RoundTripper{Client: inner},
	} {
		transport := &Transport{Base: b, Schemes: []Scheme{&APIKey{Header: "X-API-Key", Key: secret}}, AllowPlaintext: true}
		client := &http.Client{Transport: transport}
		resp, err := client.Get("https://api.example.com/open?to=/landing")
		require.NoError(t, err, name)
		resp.Body.Close()
		require.NotContains(t, fmt.Sprint(resp.Request.Header), secret, "what the caller gets has no credentials of ours")
		requests := n.take()
		require.Equal(t, "/landing", requests[1].URL.Path)
		require.Equal(t, []string{secret}, requests[1].Header["X-Api-Key"], name)
		require.Equal(t, ReasonCredentialsRefused, Explain(resp).(*Rejection).Reason, name)
		transport.CloseIdleConnections()
	}
}

// With retries inside, a redirect to another origin is followed as ever, but by the http.Client outside, and without.
func TestAttackRetriesInsideReturnRedirects(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	inner := retryablehttp.NewClient()
	inner.Logger, inner.HTTPClient = nil, &http.Client{Transport: n.transport(t, false)}
	client := &http.Client{Transport: &Transport{
		Base:    &retryablehttp.RoundTripper{Client: inner},
		Schemes: []Scheme{&APIKey{Header: "X-API-Key", Key: secret}},
	}}
	resp, err := client.Get("https://api.example.com/open?to=https://evil.test/")
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, "evil.test", resp.Request.URL.Host)
	require.Equal(t, ReasonRedirected, Explain(resp).(*Rejection).Reason)
	requests := n.take()
	require.Len(t, requests, 2)
	require.False(t, hasCredentials(requests[1]))
	require.Nil(t, inner.HTTPClient.CheckRedirect, "the caller's client is not changed")
}

// repetitive is a Scheme that answers every refusal with the credentials that were refused.
type repetitive struct{}

func (repetitive) Name() string { return "Repetitive" }
func (repetitive) Start(context.Context, *http.Request) (Session, error) {
	return headerSession{"Authorization", []string{"Repetitive " + secret}}, nil
}
func (s repetitive) Answer(ctx context.Context, c *Challenge, refusal *http.Response) (Session, error) {
	return s.Start(ctx, refusal.Request)
}

func TestAttackRefusedCredentialsAreNotSentAgainUnchanged(t *testing.T) {
	t.Parallel()
	sends := 0
	transport := &Transport{Schemes: []Scheme{repetitive{}}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		sends++
		return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: http.Header{"Www-Authenticate": {"Repetitive"}}}, nil
	})}
	resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil))
	require.NoError(t, err)
	require.Equal(t, 1, sends)
	require.Equal(t, ReasonCredentialsRefused, Explain(resp).(*Rejection).Reason)
}

// A Base that sends a copy of the request, as one that traces does, says so in the response: that copy has credentials.
func TestAttackResponseHasNoCredentialsOfOurs(t *testing.T) {
	t.Parallel()
	for name, newScheme := range attackedSchemes {
		copying := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			resp := &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}, Request: req.Clone(req.Context())}
			if !hasCredentials(req) {
				resp.StatusCode, resp.Header["Www-Authenticate"] = 401, allChallenges
			}
			return resp, nil
		})
		transport := &Transport{Base: copying, Schemes: []Scheme{newScheme()}}
		for range 17 {
			req := httptest.NewRequest("GET", "https://api.example.com/", nil)
			req.Header.Set("X-Mine", "kept")
			resp, err := transport.RoundTrip(req)
			require.NoError(t, err)
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, http.Header{"X-Mine": {"kept"}}, resp.Request.Header, name)
		}
	}
}

// What took a redirect with credentials is an error that says what to change, and not one to be retried.
func TestAttackBaseThatFollowsIsNamed(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	unseen := roundTripFunc(func(req *http.Request) (*http.Response, error) { // not by http.Transport
		next := httptest.NewRequest("GET", "https://evil.test/", nil)
		next.Header = req.Header
		next.Response = &http.Response{Request: req}
		return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}, Request: next}, nil
	})
	unknown := roundTripFunc(func(req *http.Request) (*http.Response, error) { // by a response of nobody knows whom
		next := httptest.NewRequest("GET", "https://evil.test/", nil)
		next.Response = new(http.Response)
		return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}, Request: next}, nil
	})
	for name, base := range map[string]http.RoundTripper{"seen": followingBase(n.transport(t, false)), "unseen": unseen, "unknown": unknown} {
		transport := &Transport{Base: base, Schemes: []Scheme{&APIKey{Header: "X-API-Key", Key: secret}}}
		req, err := http.NewRequest("GET", "https://api.example.com/open?to=https://evil.test/", nil)
		require.NoError(t, err)
		resp, err := transport.RoundTrip(req)
		var rejection *Rejection
		require.ErrorAs(t, err, &rejection, name)
		require.Nil(t, resp)
		require.Equal(t, ReasonRedirected, rejection.Reason)
		require.False(t, rejection.mayPass())
		require.ErrorContains(t, err, "ErrUseLastResponse")
	}
}

// What a Base that follows redirects met elsewhere is not a challenge to answer, be it good or evil that says it.
func TestAttackChallengeBehindARedirectIsNotAnswered(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	for _, target := range []string{"https://evil.test/", "https://evil.test/back", "http://api.example.com/", "https://api.example.com:8443/back"} {
		asked := 0
		ask := func(context.Context, CredentialsRequest) (string, string, error) { asked++; return "u", secret, nil }
		client := &http.Client{Transport: &Transport{
			Base:    followingBase(n.transport(t, false)),
			Schemes: []Scheme{&Digest{Credentials: ask}, &Basic{Credentials: ask}},
		}}
		resp, err := client.Get("https://api.example.com/open?to=" + target)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 401, resp.StatusCode)
		require.Zero(t, asked, target)
		require.Equal(t, ReasonRedirected, Explain(resp).(*Rejection).Reason, target)
		for _, r := range n.take() {
			require.False(t, hasCredentials(r))
		}
	}
}

func TestAttackChallengeThatNamesAnotherHost(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	base := n.transport(t, false)
	for _, challenge := range []string{
		`Bearer realm="https://evil.test/token", service="https://evil.test", resource_metadata="https://evil.test/.well-known/oauth-protected-resource", authorization_uri="https://evil.test/authorize"`,
		`Digest realm="https://evil.test/", nonce="n", qop="auth", domain="https://evil.test/ //evil.test/ http://api.example.com/", opaque="https://evil.test/"`,
		`Basic realm="https://evil.test/"`,
	} {
		var dialled []string
		client := &http.Client{Transport: &Transport{
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				dialled = append(dialled, req.URL.Scheme+"://"+req.URL.Host)
				if req.URL.Host != "api.example.com" || req.URL.Scheme != "https" || hasCredentials(req) {
					return base.RoundTrip(req)
				}
				return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: http.Header{"Www-Authenticate": {challenge}}}, nil
			}),
			Schemes: []Scheme{
				&Bearer{Source: &TokenSource{Initial: &oauth2.Token{AccessToken: secret}}, NotAhead: true},
				&Digest{Username: "u", Password: secret}, &Basic{Username: "u", Password: secret},
			},
		}}
		resp, err := client.Get("https://api.example.com/locked?to=https://api.example.com/landing")
		require.NoError(t, err)
		resp.Body.Close()
		for _, host := range dialled {
			require.Equal(t, "https://api.example.com", host, challenge)
		}
		n.take()
		for _, u := range []string{"https://evil.test/", "http://api.example.com/"} {
			if resp, err := client.Get(u); err == nil {
				resp.Body.Close()
			}
			for _, r := range n.take()[:1] { // the first, which no challenge of theirs has led to
				require.False(t, hasCredentials(r), "%s: ahead to %s", challenge, u)
			}
		}
	}
}

func TestAttackDigestDowngrade(t *testing.T) {
	t.Parallel()
	send := func(d *Digest, challenges ...string) (sent string, err error) {
		transport := &Transport{Schemes: []Scheme{d}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			sent += req.Header.Get("Authorization")
			return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: http.Header{"Www-Authenticate": challenges}}, nil
		})}
		resp, err := transport.RoundTrip(httptest.NewRequest("GET", "http://api.example.com/", nil))
		if err != nil {
			return sent, err
		}
		return sent, Explain(resp)
	}
	md5 := `Digest realm="x", nonce="n", qop="auth"`
	sha := `Digest realm="x", nonce="n", qop="auth", algorithm=SHA-256`
	for _, c := range []struct {
		min        string
		challenges []string
		want       string // in what is sent; "" for nothing
	}{
		{"", []string{md5}, `cnonce="`},
		{"SHA-256", []string{md5}, ""},
		{"SHA-256", []string{strings.Replace(sha, "SHA-256", "MD5-sess", 1)}, ""},
		{"SHA-512-256", []string{sha}, ""},
		{"SHA-256", []string{md5, sha}, "algorithm=SHA-256"},
		{"SHA-256", []string{sha, md5}, "algorithm=SHA-256"},
		{"", []string{strings.Replace(md5, `"auth"`, `"auth,"`, 1)}, `cnonce="`},
		{"", []string{strings.Replace(md5, `"auth"`, `"future"`, 1)}, ""}, // not as if there were no qop
		{"", []string{strings.Replace(md5, `qop="auth"`, `QOP=AUTH`, 1)}, `cnonce="`},
		{"", []string{`Digest realm="x", nonce="n", algorithm=MD5-sess`}, ""},
		{"", []string{`Digest realm="x", nonce="n", algorithm=MD5-plain, qop="auth"`}, ""},
	} {
		sent, err := send(&Digest{Username: "u", Password: secret, MinAlgorithm: c.min}, c.challenges...)
		if c.want == "" {
			require.Empty(t, sent, "%+v", c)
			require.ErrorIs(t, err, ErrUnsupportedChallenge)
		} else {
			require.Contains(t, sent, c.want, "%+v", c)
			require.Contains(t, sent, "nc=00000001")
		}
	}
}

func TestAttackHeaderInjection(t *testing.T) {
	t.Parallel()
	for _, evil := range []string{"x\r\nX-Evil: 1", "x\nX-Evil: 1", "x\x00", "x\x7f", "x\r", "\r\n\r\nGET /"} {
		schemes := map[string]Scheme{
			"Basic user":       &Basic{Username: evil, Password: "p"},
			"Basic password":   &Basic{Username: "u", Password: evil, Ahead: true},
			"Digest user":      &Digest{Username: evil, Password: "p"},
			"Digest password":  &Digest{Username: "u", Password: evil},
			"API key":          &APIKey{Key: evil},
			"API key's prefix": &APIKey{Key: "k", Prefix: evil},
			"API key's header": &APIKey{Key: "k", Header: evil},
			"token":            &Bearer{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: evil})},
			"Initial":          &Bearer{Source: &TokenSource{Initial: &oauth2.Token{AccessToken: evil}}},
			"realm, nonce":     &Digest{Username: "u", Password: "p"},
			"fetched": &Bearer{Source: &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
				return &oauth2.Token{AccessToken: evil}, nil
			}}},
			"from the challenge": &Digest{Credentials: func(_ context.Context, r CredentialsRequest) (string, string, error) {
				return r.Challenge.Params.Get("realm"), r.Challenge.Params.Get("nonce"), nil
			}},
		}
		for name, scheme := range schemes {
			jar, err := cookiejar.New(nil)
			require.NoError(t, err)
			sends := 0
			transport := &Transport{Jar: jar, Schemes: []Scheme{scheme}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				sends++
				for header, values := range req.Header {
					require.True(t, isToken(header), "%s: %q", name, header)
					require.Len(t, values, 1)
					require.False(t, hasControl(values[0]), "%s: %s: %q", name, header, values[0])
				}
				return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: http.Header{
					"Www-Authenticate": {
						fmt.Sprintf(`Digest realm="%s", nonce="%[1]s", opaque="%[1]s", qop="auth", domain="%[1]s", algorithm="MD5"`, evil),
						fmt.Sprintf(`Digest realm="a\%s", nonce="\%[1]s", opaque="\%[1]s", qop="auth"`, evil),
						fmt.Sprintf(`Basic realm="%s"`, evil), `ApiKey`, `Bearer`,
					},
					"Set-Cookie": {"a=" + evil, evil + "=b", "c=d; Path=" + evil},
				}}, nil
			})}
			req := httptest.NewRequest("GET", "https://api.example.com/", nil)
			resp, err := transport.RoundTrip(req)
			require.LessOrEqual(t, sends, 2)
			if err != nil {
				require.False(t, hasControl(err.Error()), "%s: %q", name, err)
				require.NotContains(t, err.Error(), "X-Evil", name)
			} else {
				require.False(t, hasControl(Explain(resp).Error()), "%s: %q", name, Explain(resp))
			}
		}
	}
}

// specimens has values of every exported type with secrets in all the places that the type has for them. There must
// be none of which some formatting shows one.
func specimens(t *testing.T) map[string][]any {
	tok := &oauth2.Token{AccessToken: secret, RefreshToken: secret}
	grant := func(context.Context, TokenRequest) (*oauth2.Token, error) {
		return nil, &oauth2.RetrieveError{Response: &http.Response{StatusCode: 400}, Body: []byte(secret), ErrorCode: "invalid_grant", ErrorDescription: secret}
	}
	source := &TokenSource{Initial: tok, Fetch: grant}
	_, err := source.Token()
	require.NoError(t, err)
	basic := &Basic{Username: "u", Password: secret}
	digest := &Digest{Username: "u", Password: secret}
	key := &APIKey{Key: secret}
	bearer := &Bearer{Source: source}
	static := &Bearer{Source: oauth2.StaticTokenSource(tok)}
	schemes := []Scheme{bearer, static, digest, basic, key}
	ed := ed25519.NewKeyFromSeed([]byte(secret + strings.Repeat("-", 32))[:32])
	auths := []any{SecretBasic(secret), SecretPost(secret), &secretEither{clientSecret: clientSecret{secret: secret}}, &PrivateKeyJWT{Signer: ed}}
	endpoint := &TokenEndpoint{Auth: SecretPost(secret), Params: url.Values{"a": {secret}}}

	req := httptest.NewRequest("GET", "https://api.example.com/", nil)
	var sessions []any
	for _, s := range schemes {
		session, err := s.Answer(t.Context(), digestChallenge(with()), refusalOf(req))
		require.NoError(t, err)
		require.NoError(t, session.Authorize(req.Clone(t.Context())))
		sessions = append(sessions, session)
	}
	covers := []any{sessions[0], sessions[2]}

	// A Transport in use, and the errors that come of it.
	refusing := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 401, Body: http.NoBody, Request: r, Header: http.Header{"Www-Authenticate": allChallenges}}, nil
	})
	var events []any
	transport := &Transport{Base: refusing, Schemes: schemes, OnEvent: func(_ context.Context, e Event) { events = append(events, e) }}
	_, failed := transport.RoundTrip(req)
	require.ErrorIs(t, failed, ErrLoginRequired)
	used := &Transport{Base: refusing, Schemes: []Scheme{digest, basic}, OnEvent: transport.OnEvent}
	refused, err := used.RoundTrip(req)
	require.NoError(t, err)
	_, mutual := (&Transport{Schemes: []Scheme{&Digest{Username: "u", Password: secret, RequireMutualAuth: true}}, OnEvent: transport.OnEvent,
		Base: answering(`Digest realm="x", nonce="n", qop="auth"`)}).RoundTrip(req)
	require.ErrorIs(t, mutual, ErrMutualAuth)
	var rejection *Rejection
	require.ErrorAs(t, failed, &rejection)
	proxied := NewProxyTransport(&http.Transport{}, schemes...)
	require.NoError(t, proxied.init())
	_, parse := ParseChallenges([]string{`Basic realm="` + secret})
	var parseError *ParseError
	require.ErrorAs(t, parse, &parseError)

	return map[string][]any{
		"Transport":          {transport, used, New(schemes...)},
		"ProxyTransport":     {proxied},
		"Basic":              {basic, *basic},
		"Digest":             {digest, *digest},
		"Bearer":             {bearer, static},
		"APIKey":             {key, *key},
		"TokenSource":        {source},
		"TokenRequest":       {TokenRequest{Previous: tok}, &TokenRequest{Previous: tok}},
		"FetchFunc":          {FetchFunc(grant)},
		"TokenStore":         {},
		"CredentialsFunc":    {CredentialsFunc(nil)},
		"CredentialsRequest": {},
		"Record":             {Record{Token: tok, Extra: map[string]string{secret: secret}}, &Record{Token: tok}, RecordOf(tok)},
		"ClientAuth":         auths,
		"PrivateKeyJWT":      {auths[3]},
		"TokenEndpoint":      {endpoint, *endpoint},
		"TokenExchange":      {},
		"Prover":             {},
		"Scheme":             {schemes},
		"Starter":            {Starter(basic)},
		"PlaintextSafe":      {PlaintextSafe(digest)},
		"WantsRemoteAddr":    {},
		"Session":            sessions,
		"Exclusive":          {sessions[2]},
		"Learner":            covers,
		"Covers":             covers,
		"Carrier":            {},
		"Event":              events,
		"EventKind":          {EventDone},
		"Rejection":          {failed, *rejection, mutual, Explain(refused)},
		"Reason":             {ReasonNotTraced},
		"ParseError":         {parse, *parseError},

		// A server's words, in which there is nothing of ours: shown as they are.
		"Challenge": {},
		"Params":    {},
		"Param":     {},
	}
}

func TestAttackNothingShowsASecret(t *testing.T) {
	t.Parallel()
	have := specimens(t)
	exported := exportedTypes(t)
	require.Greater(t, len(exported), 20)
	for _, name := range exported {
		values, ok := have[name]
		require.True(t, ok, "the exported type %s has no specimen here: give it one", name)
		for _, v := range values {
			for _, text := range everyText(v) {
				requireNoSecret(t, name, text)
			}
		}
	}
	// A program that shows what it was given has not been told a secret of ours either.
	for _, v := range have["Rejection"] {
		if err, ok := v.(error); ok {
			requireNoSecret(t, "error", err.Error()+fmt.Sprint(errors.Unwrap(err)))
		}
	}
}

func requireNoSecret(t *testing.T, name, text string) {
	t.Helper()
	for _, form := range []string{
		secret, hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret))),
		strings.Trim(fmt.Sprint([]byte(secret)), "[]"), // %d of bytes
		base64.StdEncoding.EncodeToString([]byte("u:" + secret)), base64.StdEncoding.EncodeToString([]byte(secret)),
		algorithmMD5.hex("u", "x", secret), algorithmSHA256.hex("u", "x", secret), // as good as the password
	} {
		require.NotContains(t, text, form, "%s", name)
	}
}

// everyText returns v as every way of formatting shows it.
func everyText(v any) []string {
	var texts []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		texts = append(texts, fmt.Sprintf(verb, v), fmt.Sprintf(verb, []any{v}), fmt.Sprintf(verb, struct{ V any }{v}))
	}
	j, _ := json.Marshal(v)
	var logged bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&logged, nil), slog.NewJSONHandler(&logged, nil)} {
		slog.New(h).Info("x", "v", v)
	}
	return append(texts, string(j), logged.String())
}

// sources parses the package, without its tests.
func sources(t *testing.T) []*ast.File {
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		files = append(files, f)
	}
	return files
}

func exportedTypes(t *testing.T) []string {
	var names []string
	for _, f := range sources(t) {
		for _, d := range f.Decls {
			if d, ok := d.(*ast.GenDecl); ok && d.Tok == token.TYPE {
				for _, spec := range d.Specs {
					if name := spec.(*ast.TypeSpec).Name; name.IsExported() {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

// Whoever measures how long a comparison takes learns nothing of what rspauth should be: it is compared in constant time,
// and with == to nothing but "".
func TestAttackTimingOfRspauth(t *testing.T) {
	t.Parallel()
	constantTime := 0
	mentions := func(e ast.Expr) (found bool) {
		ast.Inspect(e, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				found = found || n.Name == "rspauth"
			case *ast.CallExpr:
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "ConstantTimeCompare" {
					return false
				}
			}
			return true
		})
		return found
	}
	for _, f := range sources(t) {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BinaryExpr:
				literal, _ := n.Y.(*ast.BasicLit)
				if (n.Op == token.EQL || n.Op == token.NEQ) && (mentions(n.X) || mentions(n.Y)) {
					require.True(t, literal != nil && literal.Value == `""`, "rspauth is compared with ==")
				}
			case *ast.CallExpr:
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && slices.ContainsFunc(n.Args, mentions) {
					if s.Sel.Name == "ConstantTimeCompare" {
						constantTime++
					}
					require.NotContains(t, []string{"Equal", "Compare", "EqualFold", "HasPrefix"}, s.Sel.Name, "rspauth is compared otherwise")
				}
			}
			return true
		})
	}
	require.Equal(t, 1, constantTime)
}

// heap returns the bytes in use after everything unused has gone.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// refusalWith returns a Base that answers credentials with 200 and others with 401, and lets edit change each response.
func refusalWith(edit func(n int, resp *http.Response)) http.RoundTripper {
	var n atomic.Int64
	return roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: req, Header: http.Header{}}
		if !hasCredentials(req) {
			resp.StatusCode = 401
			resp.Header["Www-Authenticate"] = allChallenges
		}
		edit(int(n.Add(1)), resp)
		return resp, nil
	})
}

func TestAttackMemoryIsBounded(t *testing.T) { // not parallel: it measures the heap
	pad := strings.Repeat("x", thorough.Or(256<<10, 64<<10))
	for name, edit := range map[string]func(n int, resp *http.Response){
		"a new realm each time": func(n int, resp *http.Response) {
			resp.StatusCode = 401
			resp.Header["Www-Authenticate"] = []string{fmt.Sprintf(`Basic realm="%d"`, n), fmt.Sprintf(`Basic realm="%s"`, strings.Clone(pad))}
		},
		"a huge realm each time": func(n int, resp *http.Response) {
			if resp.StatusCode == 401 {
				resp.Header["Www-Authenticate"] = []string{fmt.Sprintf(`Basic realm="%d%s"`, n, pad)}
			}
		},
		"a small realm in a huge header": func(n int, resp *http.Response) {
			if resp.StatusCode == 401 {
				resp.Header["Www-Authenticate"] = []string{fmt.Sprintf(`Basic realm="%d", comment="%s"`, n, pad)}
			}
		},
		"a new Digest realm and nonce each time": func(n int, resp *http.Response) {
			if resp.StatusCode == 401 {
				resp.Header["Www-Authenticate"] = []string{fmt.Sprintf(`Digest realm="r%d", nonce="n%d", qop="auth", domain="%s", comment="%s"`, n, n, resp.Request.URL.Path, pad)}
			}
		},
		"a huge nextnonce": func(n int, resp *http.Response) {
			resp.Header["Authentication-Info"] = []string{fmt.Sprintf(`nextnonce="%d%s"`, n, strings.Repeat(pad, 4))}
		},
		"stale for ever": func(n int, resp *http.Response) {
			resp.StatusCode = 401
			resp.Header["Www-Authenticate"] = []string{fmt.Sprintf(`Digest realm="x", nonce="n%d", qop="auth", stale=true, comment="%s"`, n, pad)}
		},
	} {
		transport := &Transport{Base: refusalWith(edit), Schemes: []Scheme{&Digest{Username: "u", Password: "p"}, &Basic{Username: "u", Password: "p"}}}
		before := heap()
		for i := range thorough.Or(60, 40) {
			resp, err := transport.RoundTrip(httptest.NewRequest("GET", fmt.Sprintf("https://api.example.com/%d/", i), nil))
			require.NoError(t, err)
			resp.Body.Close()
		}
		for _, known := range transport.auth.spaces.known {
			require.LessOrEqual(t, len(known.spaces), 32, name)
		}
		after := heap()
		require.Less(t, int64(after)-int64(before), int64(2<<20), name)
		runtime.KeepAlive(transport)
	}
}

func TestAttackRefusalsForEver(t *testing.T) {
	t.Parallel()
	for name, challenge := range map[string]string{
		"401":        `Basic realm="x", Digest realm="x", nonce="n", qop="auth", Bearer, ApiKey`,
		"stale=true": `Digest realm="x", nonce="n", qop="auth", stale=true`,
	} {
		sends := 0
		fetches := 0
		transport := &Transport{
			Base: refusalWith(func(_ int, resp *http.Response) {
				sends++
				resp.StatusCode = 401
				resp.Header["Www-Authenticate"] = []string{challenge}
			}),
			Schemes: []Scheme{
				&Bearer{Source: &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
					fetches++
					return &oauth2.Token{AccessToken: fmt.Sprint(fetches)}, nil
				}}},
				&Digest{Username: "u", Password: secret}, &Basic{Username: "u", Password: secret}, &APIKey{Key: secret},
			},
		}
		for range 50 {
			before := sends
			resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil))
			require.NoError(t, err)
			require.Equal(t, 401, resp.StatusCode)
			require.LessOrEqual(t, sends-before, 2, name)
		}
		require.LessOrEqual(t, fetches, 2+32, "the token endpoint is spared, too")
	}
}

func TestAttackHugeHeaders(t *testing.T) {
	t.Parallel()
	const size = 10 << 20
	for name, header := range map[string]http.Header{
		"one realm":          {"Www-Authenticate": {`Digest nonce="n", realm="` + strings.Repeat("x", size) + `"`}},
		"100,000 challenges": {"Www-Authenticate": slices.Repeat([]string{`Digest realm="x", nonce="n", qop="auth"`}, 100_000)},
		"schemes":            {"Www-Authenticate": {strings.Repeat("Digest,", size/70)}},
		"parameters":         {"Www-Authenticate": {"Digest " + strings.Repeat("a=b,", size/40)}},
		"quotes":             {"Www-Authenticate": {`Digest realm=` + strings.Repeat(`"`, size)}},
		"many cookies":       {"Www-Authenticate": {`Digest realm="x", nonce="n"`}, "Set-Cookie": slices.Repeat([]string{"a=b"}, 100_000)},
	} {
		jar, err := cookiejar.New(nil)
		require.NoError(t, err)
		asked, sends, events := 0, 0, 0
		ask := func(context.Context, CredentialsRequest) (string, string, error) {
			asked++
			return "", "", fmt.Errorf("%w: not for me", ErrUnsupportedChallenge)
		}
		transport := &Transport{Jar: jar, Schemes: []Scheme{&Digest{Credentials: ask}, &Digest{Username: "u", Password: "p", MinAlgorithm: "SHA-256"}},
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				sends++
				return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: header}, nil
			}),
			OnEvent: func(context.Context, Event) { events++ },
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil).WithContext(ctx))
		require.NoError(t, err, name)
		require.NoError(t, ctx.Err(), name)
		cancel()
		require.Equal(t, 401, resp.StatusCode)
		require.LessOrEqual(t, sends, 2)
		require.LessOrEqual(t, asked, maxChallenges, name)
		require.LessOrEqual(t, events, 4*maxChallenges, name)
		require.Less(t, len(Explain(resp).Error()), 4<<10, name)
	}
}

// A refusal whose body never ends, or comes in drops, delays the retry for a moment only.
func TestAttackBodyOfTheRefusal(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(w http.ResponseWriter, r *http.Request){
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for chunk := bytes.Repeat([]byte("x"), 32<<10); r.Context().Err() == nil; {
				w.Write(chunk)
			}
		},
		"slow": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				io.WriteString(w, "x")
				http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(10 * time.Millisecond):
				}
			}
		},
		"silent": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var over sync.WaitGroup
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if hasCredentials(r) {
					io.WriteString(w, "welcome")
					return
				}
				over.Add(1)
				defer over.Done()
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				write(w, r)
			}))
			defer srv.Close()
			start := time.Now()
			resp, body := get(t, &http.Client{Transport: New(&Basic{Username: "u", Password: secret})}, srv.URL)
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, "welcome", body)
			require.Less(t, time.Since(start), 30*time.Second)
			over.Wait() // the connection has been closed
		})
	}
}
