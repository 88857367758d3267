package authretry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// roundTripFunc is a Base made of a func.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func get(t *testing.T, client *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, err := client.Get(url)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body.Close()
	return resp, string(body)
}

func TestBasicIsAnsweredAndThenSentAheadInItsScope(t *testing.T) {
	var hits atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		if _, password, _ := r.BasicAuth(); password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		io.WriteString(w, "welcome")
	}))
	defer srv.Close()
	client := &http.Client{Transport: New(&Basic{Username: "Mufasa", Password: "secret"})}

	for _, step := range []struct {
		path string
		hits int32
	}{
		{"/docs/a", 2},
		{"/docs/a", 1},
		{"/docs/b/c/d", 1},
		{"/other", 2}, // above the scope
		{"/docs/a", 1},
		{"/else/where", 1}, // below "/" by now
	} {
		hits.Store(0)
		resp, body := get(t, client, srv.URL+step.path)
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, "welcome", body)
		require.Equal(t, step.hits, hits.Load(), step.path)
		require.Empty(t, resp.Request.Header.Get("Authorization"), "the caller's request has no credentials of ours")
	}
}

func TestWrongPasswordCostsTwoRequestsAndIsForgotten(t *testing.T) {
	var hits atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "go away")
	}))
	defer srv.Close()
	client := &http.Client{Transport: New(&Basic{Username: "Mufasa", Password: "wrong"})}
	for range 3 {
		hits.Store(0)
		resp, body := get(t, client, srv.URL)
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, "go away", body)
		require.Equal(t, int32(2), hits.Load())
		var rejection *Rejection
		require.ErrorAs(t, Explain(resp), &rejection)
		require.Equal(t, ReasonCredentialsRefused, rejection.Reason)
		require.Equal(t, []string{"Basic"}, rejection.Tried)
		t.Log(rejection)
	}
}

func TestOneShotBodyIsReplayed(t *testing.T) {
	for _, size := range []int{1, 1000, 1 << 20} {
		var bodies []string
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			bodies = append(bodies, string(b))
			if _, password, _ := r.BasicAuth(); password != "secret" {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
			}
		}))
		client := &http.Client{Transport: New(&Basic{Username: "Mufasa", Password: "secret"})}
		payload := strings.Repeat("x", size)
		resp, err := client.Post(srv.URL, "text/plain", io.MultiReader(strings.NewReader(payload)))
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, payload, bodies[len(bodies)-1])
		srv.Close()
	}
}

func TestDigestIsOneRoundTripInTheSteadyState(t *testing.T) {
	for name, guard := range map[string]*authtest.Digest{
		"plain":           {},
		"MD5-sess":        {Algorithms: []string{"MD5-sess"}},
		"nextnonce":       {NextNonce: authtest.NextNonceAlways},
		"one use":         {NextNonce: authtest.NextNonceAlways, NonceUses: 1},
		"same nextnonce":  {NextNonce: authtest.NextNonceSame},
		"userhash":        {Userhash: true, UTF8: true},
		"RFC 2069":        {QOP: authtest.NoQOP, Algorithms: []string{"MD5"}},
		"auth-int":        {QOP: "auth-int"},
		"several, opaque": {Algorithms: []string{"SHA-512-256", "SHA-256", "MD5"}, Opaque: `a"b`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			guard.Username, guard.Password = "Jäsøn", "Secret, or not?"
			srv := authtest.NewServer(guard)
			defer srv.Close()
			client := &http.Client{Transport: &Transport{Base: srv.Client().Transport,
				Schemes: []Scheme{&Digest{Username: "Jäsøn", Password: "Secret, or not?", RequireMutualAuth: strings.Contains(guard.QOP+"auth", "authauth")}}}}
			rounds := thorough.Or(20, 5)
			for range rounds {
				for _, body := range []string{"", "hello"} {
					resp, err := client.Post(srv.URL+"/path?query", "text/plain", io.MultiReader(strings.NewReader(body)))
					require.NoError(t, err)
					resp.Body.Close()
					require.Equal(t, 200, resp.StatusCode)
				}
			}
			require.Equal(t, 1+2*rounds, srv.Counts().Requests)
			require.Empty(t, guard.NonceErrors())
		})
	}
}

// Servers that want nonce counts in order refuse those of requests that overtake each other.
func TestConcurrentDigestKeepsNonceCountsInOrder(t *testing.T) {
	workers := thorough.Or(500, 100)
	rounds := thorough.Or(8, 2)
	guard := &authtest.Digest{Username: "Mufasa", Password: "Circle of Life"}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	base := srv.Client().Transport.(*http.Transport).Clone()
	base.MaxIdleConnsPerHost = workers
	defer base.CloseIdleConnections()
	client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{&Digest{Username: "Mufasa", Password: "Circle of Life"}}}}
	round := func() {
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				resp, err := client.Get(srv.URL)
				if assert.NoError(t, err) {
					assert.Equal(t, 200, resp.StatusCode)
					resp.Body.Close()
				}
			})
		}
		wg.Wait()
	}
	round()
	warm := srv.Counts()
	require.LessOrEqual(t, warm.Requests, 2*workers)
	for range rounds {
		round()
	}
	require.Empty(t, guard.NonceErrors())
	// A later round may have more requests in flight at once than any before, and so bring home more nonces.
	require.LessOrEqual(t, srv.Counts().Challenged, workers)
	require.Equal(t, workers*(rounds+1), srv.Counts().Accepted)
	require.Zero(t, srv.Counts().Refused)
}

func TestStaleNonceIsAnsweredOnceAndKept(t *testing.T) {
	guard := &authtest.Digest{Username: "u", Password: "p"}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	client := &http.Client{Transport: New(&Digest{Username: "u", Password: "p"})}
	get(t, client, srv.URL)
	guard.GoStale()
	srv.Reset()
	resp, _ := get(t, client, srv.URL)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, 2, srv.Counts().Requests)
	resp, _ = get(t, client, srv.URL)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, 3, srv.Counts().Requests)
	guard.SetPassword("other")
	srv.Reset()
	resp, _ = get(t, client, srv.URL)
	require.Equal(t, 401, resp.StatusCode)
	require.Equal(t, 2, srv.Counts().Requests)
	require.ErrorContains(t, Explain(resp), "credentials were refused")
}

func TestOneSchemeAfterTheOther(t *testing.T) {
	for name, c := range map[string]struct {
		guards  []authtest.Guard
		schemes []Scheme
		want    string
	}{
		"our order counts among schemes": {
			[]authtest.Guard{&authtest.Basic{Username: "u", Password: "p"}, &authtest.Digest{Username: "u", Password: "p"}},
			[]Scheme{&Digest{Username: "u", Password: "p"}, &Basic{Username: "u", Password: "p"}}, "Digest"},
		"a scheme that the server does not offer is passed over": {
			[]authtest.Guard{&authtest.Basic{Username: "u", Password: "p"}},
			[]Scheme{&Digest{Username: "u", Password: "p"}, &Basic{Username: "u", Password: "p"}}, "Basic"},
		"an API key that is not asked for gives way": {
			[]authtest.Guard{&authtest.Basic{Username: "u", Password: "p"}},
			[]Scheme{&APIKey{Key: "k"}, &Basic{Username: "u", Password: "p"}}, "Basic"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := authtest.NewServer(c.guards...)
			defer srv.Close()
			client := &http.Client{Transport: New(c.schemes...)}
			for i := range 3 {
				resp, _ := get(t, client, srv.URL)
				require.Equal(t, 200, resp.StatusCode)
				require.Equal(t, 2+i, srv.Counts().Requests)
			}
			requests := srv.Requests()
			require.Equal(t, c.want, requests[len(requests)-1].Scheme)
		})
	}
}

func TestMisconfigurationIsAnErrorAndClosesTheBody(t *testing.T) {
	var none *Basic
	for name, transport := range map[string]*Transport{
		"nil":         nil,
		"zero":        {},
		"nil scheme":  {Schemes: []Scheme{nil}},
		"nil pointer": {Schemes: []Scheme{none}},
	} {
		body := &tracked{Reader: strings.NewReader("x")}
		_, err := transport.RoundTrip(httptest.NewRequest("POST", "https://example.com/", body))
		var rejection *Rejection
		require.ErrorAs(t, err, &rejection, name)
		require.Equal(t, ReasonMisconfigured, rejection.Reason)
		require.ErrorContains(t, err, "authretry: ")
		require.Equal(t, int32(1), body.closed.Load())
	}
}

func TestCredentialsThatCannotBeSentFailTheRequest(t *testing.T) {
	refusing := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: http.Header{"Www-Authenticate": {
			`Basic realm="x"`, `Digest realm="x", nonce="n", qop="auth"`}}}, nil
	})
	for _, scheme := range []Scheme{
		&Basic{Username: "a:b", Password: "secret"},
		&Basic{Username: "a\r\nb", Password: "secret"},
		&Basic{Username: "a", Password: "secret\n"},
		&Basic{},
		&Digest{Username: "a\r\nb", Password: "secret"},
		&Digest{Username: "a\x00b", Password: "secret"},
		&APIKey{},
		&APIKey{Key: "secret\r\nX: y"},
		&APIKey{Key: "secret key"},
		&APIKey{KeyFunc: func(context.Context, CredentialsRequest) (string, error) { return "", errors.New("vault is sealed") }},
		&Basic{Credentials: func(context.Context, CredentialsRequest) (string, string, error) {
			return "", "", errors.New("vault is sealed")
		}},
	} {
		body := &tracked{Reader: strings.NewReader("x")}
		req := httptest.NewRequest("POST", "https://example.com/", body)
		req.ContentLength = 1
		_, err := (&Transport{Base: refusing, Schemes: []Scheme{scheme}}).RoundTrip(req)
		var rejection *Rejection
		require.ErrorAs(t, err, &rejection, "%v", scheme)
		require.Equal(t, ReasonNoCredentials, rejection.Reason)
		require.NotContains(t, err.Error(), "secret")
	}
}

func TestOwnAuthorizationPassesUntouched(t *testing.T) {
	srv := authtest.NewServer(&authtest.Basic{Username: "u", Password: "p"})
	defer srv.Close()
	client := &http.Client{Transport: New(&Basic{Username: "u", Password: "p"})}
	for _, set := range []func(*http.Request){
		func(r *http.Request) { r.Header.Set("Authorization", "Basic bm90OnJpZ2h0") },
		func(r *http.Request) { r.Header["authorization"] = []string{"Basic bm90OnJpZ2h0"} },
		func(r *http.Request) { r.URL.User = url.UserPassword("not", "right") },
		func(r *http.Request) { r.Header["Authorization"] = nil },
	} {
		srv.Reset()
		req, err := http.NewRequest("GET", srv.URL, nil)
		require.NoError(t, err)
		set(req)
		resp, err := client.Do(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, 1, srv.Counts().Requests)
		require.ErrorContains(t, Explain(resp), "Authorization header of its own")
	}
}

// An adding Scheme adds a header value, where there may be others.
type adding struct{ name string }

func (a adding) Name() string { return "Adding" }

func (a adding) Answer(context.Context, *Challenge, *http.Response) (Session, error) { return a, nil }

func (a adding) Start(context.Context, *http.Request) (Session, error) { return a, nil }

func (a adding) Authorize(req *http.Request) error {
	req.Header.Add(a.name, "ours")
	req.Header[a.name][0] = "changed"
	return nil
}

// Requests may share their headers, as those of an SDK do. What a Scheme does to them must not get from one to another.
func TestSchemesCannotReachTheCallersHeaders(t *testing.T) {
	values := make([]string, 1, 8)
	values[0] = "callers"
	req, err := http.NewRequest("GET", "https://api.example.com/", nil)
	require.NoError(t, err)
	req.Header["X-Key"] = values
	transport := &Transport{Schemes: []Scheme{adding{"X-Key"}}, Base: roundTripFunc(func(r *http.Request) (*http.Response, error) {
		require.Equal(t, []string{"changed", "ours"}, r.Header["X-Key"])
		return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
	})}
	_, err = transport.RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, []string{"callers", ""}, values[:2])
	require.Equal(t, http.Header{"X-Key": {"callers"}}, req.Header)
}

func TestTransportsNestByOrigin(t *testing.T) {
	one := authtest.NewServer(&authtest.Basic{Username: "one", Password: "p"})
	defer one.Close()
	two := authtest.NewServer(&authtest.Digest{Username: "two", Password: "p"})
	defer two.Close()
	inner := &Transport{Origins: []string{one.URL}, Schemes: []Scheme{&Basic{Username: "one", Password: "p"}}}
	outer := &Transport{Origins: []string{two.URL + "/"}, Schemes: []Scheme{&Digest{Username: "two", Password: "p"}}, Base: inner}
	for _, srv := range []*authtest.Server{one, two} {
		resp, _ := get(t, &http.Client{Transport: outer}, srv.URL)
		require.Equal(t, 200, resp.StatusCode)
	}
	three := authtest.NewServer(&authtest.Basic{Username: "one", Password: "p"})
	defer three.Close()
	resp, _ := get(t, &http.Client{Transport: outer}, three.URL)
	require.Equal(t, 401, resp.StatusCode)
	require.Equal(t, 1, three.Counts().Requests)
	require.ErrorContains(t, Explain(resp), "Transport.Origins")
}

func TestCookieOfTheRefusalGoesOutWithTheRetry(t *testing.T) {
	var cookies []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookies = append(cookies, r.Header.Get("Cookie"))
		if r.Header.Get("Authorization") == "" {
			http.SetCookie(w, &http.Cookie{Name: "session", Value: "new"})
			http.SetCookie(w, &http.Cookie{Name: "gone", MaxAge: -1})
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer srv.Close()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	jar.SetCookies(u, []*http.Cookie{{Name: "session", Value: "old"}, {Name: "gone", Value: "x"}, {Name: "kept", Value: "y"}})
	client := &http.Client{Jar: jar, Transport: &Transport{Jar: jar, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}}
	req, err := http.NewRequest("GET", srv.URL, nil)
	require.NoError(t, err)
	req.Header.Set("Cookie", "own=1")
	resp, err := client.Do(req)
	require.NoError(t, err)
	resp.Body.Close()
	require.Len(t, cookies, 2)
	require.Equal(t, "own=1; session=old; gone=x; kept=y", cookies[0])
	require.ElementsMatch(t, []string{"own=1", "session=new", "kept=y"}, strings.Split(cookies[1], "; "))
}

// What the caller has written into Cookie is sent as it is, also with the retry, and so is what http.Client adds to it.
func TestCookiesOfTheCallerAreSentAsTheyAre(t *testing.T) {
	var seen []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Cookie"))
		if r.Header.Get("Authorization") == "" {
			http.SetCookie(w, &http.Cookie{Name: "s", Value: "new one", Quoted: true})
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer srv.Close()
	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	for _, own := range []string{"", "a=b", `a="x y"`, "a=é", `a="q"; b=2`, "lonely", "a=b=c", "a=1,2", "a b=c", `a=x\y`, "=v", "a=1;b=2;", ";", "s=old", "s=old; s=old",
		"k=y", "a=1; k=y; a=1", `x="; s=old; y"`, "s=a; s=b"} {
		for had, kept := range map[string]string{"": "", "s=old": "", "k=y; s=old": "k=y"} { // in the Jar
			jar, err := cookiejar.New(nil)
			require.NoError(t, err)
			list, _ := http.ParseCookie(had)
			jar.SetCookies(u, list)
			client := &http.Client{Jar: jar, Transport: &Transport{Jar: jar, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}}
			seen = nil
			for range 2 {
				req, err := http.NewRequest("GET", srv.URL, nil)
				require.NoError(t, err)
				if own != "" {
					req.Header.Set("Cookie", own)
				}
				resp, err := client.Do(req)
				require.NoError(t, err)
				resp.Body.Close()
			}
			join := func(texts ...string) string {
				return strings.Join(slices.DeleteFunc(texts, func(text string) bool { return text == "" }), "; ")
			}
			require.Len(t, seen, 3)
			require.Equal(t, join(own, had), seen[0])
			require.Equal(t, join(own, kept, `s="new one"`), seen[1])
			require.Equal(t, seen[2], seen[1], "as http.Client has it")
		}
	}
}

// Of several lines of Cookie each is sent. What something else has added after http.Client's is the caller's too.
func TestCookiesInSeveralLines(t *testing.T) {
	u, err := url.Parse("https://api.example.com/")
	require.NoError(t, err)
	for _, c := range []struct{ had, lines, want string }{
		{"", "", "s=new"},
		{"", "a=1,2|b", "a=1,2|b; s=new"},
		{"", "a|", "a|s=new"},
		{"s=old", "own; s=old; added", "own; added; s=new"},
		{"s=old", "s=old", "s=new"},
		{"s=old", "another", "another; s=new"},
		{"gone=1", "own; gone=1", "own; s=new"},
	} {
		jar, err := cookiejar.New(nil)
		require.NoError(t, err)
		list, _ := http.ParseCookie(c.had)
		jar.SetCookies(u, list)
		var sent []string
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			sent = append(sent, strings.Join(req.Header["Cookie"], "|"))
			return &http.Response{StatusCode: 401, Request: req, Body: http.NoBody, Header: http.Header{"Www-Authenticate": {"Basic"}, "Set-Cookie": {"s=new", "gone=; Max-Age=-1"}}}, nil
		})
		req, err := http.NewRequest("GET", u.String(), nil)
		require.NoError(t, err)
		if c.lines != "" {
			req.Header["Cookie"] = strings.Split(c.lines, "|")
		}
		before := slices.Clone(req.Header["Cookie"])
		_, err = (&Transport{Base: base, Jar: jar, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).RoundTrip(req)
		require.NoError(t, err)
		require.Equal(t, []string{c.lines, c.want}, sent)
		require.Equal(t, before, req.Header["Cookie"])
	}
}

func TestRefusalWithoutUsableChallengeComesBackUntouched(t *testing.T) {
	for _, c := range []struct {
		challenges []string
		reason     Reason
	}{
		{nil, ReasonNoChallenge},
		{[]string{""}, ReasonNoChallenge},
		{[]string{"Negotiate", `NTLM`}, ReasonUnsupportedScheme},
		{[]string{`Digest realm="x", nonce="n", algorithm=unknown`}, ReasonUnsupportedScheme},
		{[]string{`Digest realm="x", nonce="n", qop="unknown"`}, ReasonUnsupportedScheme},
		{[]string{`Bearer error="insufficient_scope", scope="a b"`}, ReasonInsufficientScope},
		{[]string{"Ba\u017fic realm=\"x\""}, ReasonMalformedChallenge},
		{[]string{`="`}, ReasonMalformedChallenge},
	} {
		hits := 0
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			hits++
			return &http.Response{StatusCode: 401, Body: io.NopCloser(strings.NewReader("why")), Request: req,
				Header: http.Header{"Www-Authenticate": c.challenges}}, nil
		})
		transport := &Transport{Base: base, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}, &Basic{Username: "u", Password: "p"}}}
		resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://example.com/", nil))
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, "why", string(body))
		require.Equal(t, 1, hits)
		var rejection *Rejection
		require.ErrorAs(t, Explain(resp), &rejection)
		require.Equal(t, c.reason, rejection.Reason, "%q", c.challenges)
	}
}

func TestChallengeInA200IsNoRefusal(t *testing.T) {
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: http.NoBody, Request: req, Header: http.Header{"Www-Authenticate": {"Negotiate oYG2"}}}, nil
	})
	resp, err := (&Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).RoundTrip(httptest.NewRequest("GET", "https://example.com/", nil))
	require.NoError(t, err)
	require.NoError(t, Explain(resp))
}

func TestExplainKnowsAResponseOfSomebodyElse(t *testing.T) {
	require.NoError(t, Explain(nil))
	require.NoError(t, Explain(&http.Response{StatusCode: 404}))
	var rejection *Rejection
	require.ErrorAs(t, Explain(&http.Response{StatusCode: 401}), &rejection)
	require.Equal(t, ReasonNotTraced, rejection.Reason)
}

// forbidden is what Transport.Refused can be: nothing, or a func that takes 403 for a refusal.
var forbidden = map[bool]func(*http.Response) bool{
	true: func(resp *http.Response) bool { return resp.StatusCode == http.StatusForbidden },
}

func TestForbiddenIsAnsweredOnlyIfAsked(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer srv.Close()
	for _, retry := range []bool{false, true} {
		transport := &Transport{Refused: forbidden[retry], Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}
		resp, _ := get(t, &http.Client{Transport: transport}, srv.URL)
		require.Equal(t, map[bool]int{false: 403, true: 200}[retry], resp.StatusCode)
	}
}

func TestEventsTellTheStory(t *testing.T) {
	srv := authtest.NewServer(&authtest.Digest{Username: "u", Password: "secret", Realm: "films"})
	defer srv.Close()
	var events []string
	transport := &Transport{Schemes: []Scheme{&Digest{Username: "u", Password: "secret"}}, OnEvent: func(_ context.Context, e Event) {
		require.Equal(t, srv.URL, e.Origin)
		require.NotContains(t, fmt.Sprintf("%+v %#v", e, e), "secret")
		events = append(events, fmt.Sprintf("%d %s %s %s %d", e.Attempt, e.Kind, e.Scheme, e.Realm, e.Status))
	}}
	get(t, &http.Client{Transport: transport}, srv.URL)
	get(t, &http.Client{Transport: transport}, srv.URL)
	require.Equal(t, []string{
		"1 challenged Digest films 401",
		"2 authorized Digest films 0",
		"2 done   200",
		"1 authorized Digest films 0",
		"1 done   200",
	}, events)
}

func TestNothingExportedPrintsASecret(t *testing.T) {
	for _, v := range []any{
		Basic{Username: "u", Password: "hunter2"}, &Basic{Username: "u", Password: "hunter2"},
		Digest{Username: "u", Password: "hunter2"}, &Digest{Username: "u", Password: "hunter2"},
		APIKey{Key: "hunter2"}, &APIKey{Key: "hunter2"},
		New(&Basic{Username: "u", Password: "hunter2"}, &Digest{Username: "u", Password: "hunter2"}, &APIKey{Key: "hunter2"}),
	} {
		out := fmt.Sprintf("%v %+v %#v %s %q %d %x", v, v, v, v, v, v, v)
		b, _ := json.Marshal(v)
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		for _, text := range []string{out, string(b), log.String()} {
			require.NotContains(t, text, "hunter2")
			require.NotContains(t, text, fmt.Sprintf("%x", "hunter2"))
			require.NotContains(t, text, base64.StdEncoding.EncodeToString([]byte("u:hunter2")))
		}
	}
}

func TestTwoSpacesInOneFolder(t *testing.T) {
	srv := authtest.NewServer()
	defer srv.Close()
	srv.Protect("/x", &authtest.Digest{Username: "u", Password: "p"})
	srv.Protect("/b", &authtest.Basic{Username: "u", Password: "p"})
	client := &http.Client{Transport: New(&Digest{Username: "u", Password: "p"}, &Basic{Username: "u", Password: "p"})}
	visit := func() {
		for _, path := range []string{"/x", "/b"} {
			resp, _ := get(t, client, srv.URL+path)
			require.Equal(t, 200, resp.StatusCode)
		}
	}
	visit()
	visit() // the first nonce was spent on /b
	srv.Reset()
	for range 10 {
		visit()
	}
	require.Equal(t, 20, srv.Counts().Requests)
}

// A Base may choose a replica by rewriting the URL: that is no redirect, and what the replica redirects to is judged by the
// URL that the caller has asked for. One that is led elsewhere by a response is still found out.
func TestBaseThatChoosesAReplica(t *testing.T) {
	server := func(req *http.Request) *http.Response {
		resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: req, Header: http.Header{}}
		if req.Header.Get("Authorization") == "" {
			resp.StatusCode, resp.Header["Www-Authenticate"] = 401, []string{"ApiKey"}
		} else if to, ok := strings.CutPrefix(req.URL.Path, "/to/"); ok {
			resp.StatusCode, resp.Header["Location"] = 307, []string{to}
		}
		return resp
	}
	n := 0
	replica := func(req *http.Request) *http.Request {
		n++
		clone := req.Clone(req.Context())
		clone.URL.Host = fmt.Sprintf("replica-%d.test", n)
		return clone
	}
	for name, base := range map[string]roundTripFunc{
		"a clone": func(req *http.Request) (*http.Response, error) { return server(replica(req)), nil },
		"a new request": func(req *http.Request) (*http.Response, error) {
			clone := replica(req)
			clone.Response = nil
			return server(clone), nil
		},
		"no request": func(req *http.Request) (*http.Response, error) {
			resp := server(replica(req))
			resp.Request = nil
			return resp, nil
		},
		"one that follows inside the replica": func(req *http.Request) (*http.Response, error) {
			first := replica(req)
			next := first.Clone(req.Context())
			next.Response = &http.Response{Request: first}
			return server(next), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{&APIKey{Key: "k"}}}}
			for _, path := range []string{"/", "/to//x", "/to/https://api.example.com/x"} {
				if name == "one that follows inside the replica" && path != "/" {
					continue // it is Base that follows
				}
				resp, err := client.Get("https://api.example.com" + path)
				require.NoError(t, err, path)
				require.Equal(t, 200, resp.StatusCode, path)
			}
			if name != "one that follows inside the replica" {
				resp, err := client.Get("https://api.example.com/to/https://replica-1.test/")
				require.NoError(t, err)
				require.Equal(t, 401, resp.StatusCode, "it is not the origin that was asked, whoever serves it")
			}
		})
	}
	led := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		next := replica(req)
		next.Response = &http.Response{Request: replica(req)}
		return server(next), nil
	})
	_, err := (&Transport{Base: led, Schemes: []Scheme{&APIKey{Key: "k"}}}).RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil))
	require.ErrorContains(t, err, "follows redirects by itself")
}

// The body of a request that is not sent, as Base has followed a redirect before, is closed all the same.
func TestBodyIsClosedIfBaseFollowsRedirects(t *testing.T) {
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		req.Body.Close()
		next := httptest.NewRequest("GET", "https://evil.test/", nil)
		next.Response = &http.Response{Request: req}
		return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}, Request: next}, nil
	})
	for _, rewinds := range []bool{false, true} {
		transport := &Transport{Base: base, Schemes: []Scheme{&APIKey{Key: secret}}}
		for range 2 {
			r, w := io.Pipe()
			w.Close() // so that nobody would wait
			req, err := http.NewRequest("POST", "https://api.example.com/", r)
			require.NoError(t, err)
			if rewinds {
				req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("body")), nil }
			}
			_, err = transport.RoundTrip(req)
			require.ErrorContains(t, err, "follows redirects by itself")
			_, err = r.Read(nil)
			require.ErrorIs(t, err, io.ErrClosedPipe)
		}
	}
}

type statusKey struct{}

// wrapping is a context of somebody between the Transport and its Base.
type wrapping struct{ context.Context }

// A caller may send the request of a response again, and again: its context does not grow.
func TestContextOfARequestThatIsSentAgainDoesNotGrow(t *testing.T) {
	status := func(req *http.Request) int {
		if req.Header.Get("Authorization") == "" {
			return 401
		}
		return req.Context().Value(statusKey{}).(int)
	}
	bases := map[string]roundTripFunc{
		"the request": func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status(req), Body: http.NoBody, Request: req, Header: http.Header{"Www-Authenticate": {"Basic"}, "Location": {"/"}}}, nil
		},
		"a copy": func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status(req), Body: http.NoBody, Request: req.Clone(req.Context()), Header: http.Header{"Www-Authenticate": {"Basic"}, "Location": {"/"}}}, nil
		},
	}
	scheme := func() []Scheme {
		return []Scheme{&puppet{name: "Basic", answer: func(context.Context, *Challenge, *http.Response) (Session, error) { return word{text: "Basic x"}, nil }}}
	}
	one := func(*http.Request) string { return "one" }
	listen := func(context.Context, Event) {}
	for name, base := range bases {
		for setting, transport := range map[string]*Transport{
			"plain":                      {Base: base},
			"listened":                   {Base: base, OnEvent: listen},
			"accounts":                   {Base: base, OnEvent: listen, Account: one},
			"nested":                     {OnEvent: listen, Base: &Transport{Base: base, Schemes: scheme(), Account: one, OnEvent: listen}},
			"nested, both with accounts": {OnEvent: listen, Account: one, Base: &Transport{Base: base, Schemes: scheme(), Account: one, OnEvent: listen}},
		} {
			transport.Schemes = scheme()
			for _, status := range []int{200, 307, 401} {
				what := fmt.Sprint(name, ", ", setting, ", ", status)
				root := &wrapping{context.WithValue(t.Context(), statusKey{}, status)}
				req := httptest.NewRequest("GET", "https://api.example.com/", nil).WithContext(root)
				for range 5 {
					resp, err := transport.RoundTrip(req)
					require.NoError(t, err, what)
					require.Equal(t, status, resp.StatusCode, what)
					req = resp.Request
					below, marks := withoutMarks(req.Context())
					require.Same(t, root, below, what)
					require.LessOrEqual(t, len(marks), 2, what)
				}
			}
		}
	}
}

// What http.Transport says of a request that cannot be sent is said of it here, too.
func TestRequestThatCannotBeSent(t *testing.T) {
	transport := &Transport{Schemes: []Scheme{&Basic{Username: "u", Password: "p", Ahead: true}}}
	_, err := transport.RoundTrip(&http.Request{Method: "GET", Header: http.Header{}})
	require.EqualError(t, err, "http: nil Request.URL")
	_, err = transport.RoundTrip(&http.Request{Method: "GET", URL: urlOf(t, "https://api.example.com/")})
	require.EqualError(t, err, "http: nil Request.Header")
}

// A Transport that is set wrongly has nothing to forget, and tells nobody.
func TestForgetOfATransportThatIsSetWrongly(t *testing.T) {
	b := &Bearer{Sources: func(context.Context, string) (oauth2.TokenSource, error) { return new(TokenSource), nil }}
	_, err := b.accounts.of(t.Context(), "alice", b.Sources)
	require.NoError(t, err)
	transport := &Transport{Schemes: []Scheme{b}, Origins: []string{"no origin"}}
	transport.Forget("alice")
	require.Contains(t, b.accounts.known, "alice")
}

// Validate says before the first request what is wrong: with the Transport alone, or with all of its Schemes.
func TestValidate(t *testing.T) {
	good := []Scheme{
		&Bearer{Source: &TokenSource{}}, &Digest{Username: "u", Password: "p"}, &Basic{Username: "u"}, &APIKey{Key: "k"},
		&Basic{Credentials: func(context.Context, CredentialsRequest) (string, string, error) { panic("asks nobody") }},
		&Digest{Credentials: func(context.Context, CredentialsRequest) (string, string, error) { panic("asks nobody") }},
		&APIKey{KeyFunc: func(context.Context, CredentialsRequest) (string, error) { panic("asks nobody") }},
	}
	require.NoError(t, (&Transport{Schemes: good, Origins: []string{"https://a.test"}}).Validate())
	require.NoError(t, (&ProxyTransport{Schemes: good}).Validate())
	require.NoError(t, (&Transport{Schemes: good, Origins: []string{"http://a.test"}}).Validate(), "for Digest")
	require.NoError(t, (&Transport{Schemes: good[2:3], Origins: []string{"http://a.test"}, AllowPlaintext: true}).Validate())

	for want, transport := range map[string]*Transport{
		"the Transport is nil":                      nil,
		"Transport.Schemes is empty":                {},
		"Transport.Schemes[0] is nil":               {Schemes: []Scheme{(*Basic)(nil)}},
		"Transport.Origins[1] is not a URL":         {Schemes: good, Origins: []string{"https://a.test", "https://%zz"}},
		"Transport.Origins[0] has a user name":      {Schemes: good, Origins: []string{"https://u:secret@a.test"}},
		"Transport.Origins[0] has more than":        {Schemes: good, Origins: []string{"https://a.test/v1"}},
		"Transport.Origins[0] is \"https://*.test":  {Schemes: good, Origins: []string{"https://*.test"}},
		"Transport.Origins[0] does not begin":       {Schemes: good, Origins: []string{"a.test"}},
		"Bearer.Source is nil":                      {Schemes: []Scheme{&Bearer{}}},
		"no Fetch to get one":                       {Schemes: []Scheme{&Bearer{Source: &TokenSource{Initial: &oauth2.Token{RefreshToken: secret}}}}},
		"Transport.Origins[1] is \"http://a.test\"": {Schemes: []Scheme{&APIKey{Key: "k"}, &Basic{Username: "u"}}, Origins: []string{"http://127.0.0.1", "http://a.test"}},
		"(TokenSource.Initial)":                     {Schemes: []Scheme{&Bearer{Source: &TokenSource{Initial: &oauth2.Token{AccessToken: "a b"}}}}},
		"Basic has neither":                         {Schemes: []Scheme{&Basic{}}},
		"user name with a colon":                    {Schemes: []Scheme{&Basic{Username: "a:b"}}},
		"there is no Digest user name":              {Schemes: []Scheme{&Digest{}}},
		"Digest.MinAlgorithm":                       {Schemes: []Scheme{&Digest{Username: "u", MinAlgorithm: "SHA-1"}}},
		"APIKey has no key":                         {Schemes: []Scheme{&APIKey{}}},
		"APIKey":                                    {Schemes: []Scheme{&APIKey{Header: "a b", KeyFunc: func(context.Context, CredentialsRequest) (string, error) { return "", nil }}}},
	} {
		err := transport.Validate()
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
	}
	err := (&ProxyTransport{Schemes: []Scheme{&Basic{}, &Digest{}}}).Validate()
	require.ErrorContains(t, err, "Basic has neither")
	require.ErrorContains(t, err, "there is no Digest user name", "all that is wrong")
	require.ErrorContains(t, (&ProxyTransport{}).Validate(), "ProxyTransport.Schemes is empty")
}
