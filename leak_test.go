package authretry

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// echoing is a server that sends back what it got in a place where net/http does not want it, and quotes it in an error.
func echoing(t *testing.T, format string) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				req, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				body, _ := io.ReadAll(req.Body)
				said := req.Header.Get("Authorization") + req.Header.Get("X-Api-Key") + req.Header.Get("Proxy-Authorization") + string(body)
				if said == "" {
					io.WriteString(conn, "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
					return
				}
				fmt.Fprintf(conn, format, said)
			}()
		}
	}()
	return l.Addr().String()
}

var echoes = []string{
	"HTTP/1.1 200 OK\r\nAuthorization %s\r\n\r\n",
	"HTTP/1.1 200 OK\r\n%s\r\nX: y\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
	"HTTP/1.1 %s\r\n\r\n",
	"HTTP/%s 200 OK\r\n\r\n",
	"%s\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n",
}

const longSecret = "a-secret-that-is-as-long-as-they-are"

func TestErrorsDoNotQuoteWhatAServerSendsBack(t *testing.T) {
	t.Parallel()
	for _, format := range echoes {
		address := echoing(t, format)
		for name, scheme := range map[string]Scheme{
			"Basic":        &Basic{Username: "u", Password: longSecret},
			"Basic, ahead": &Basic{Username: "u", Password: longSecret, Ahead: true},
			"Basic, key":   &Basic{Username: longSecret, Ahead: true},
			"Bearer":       &Bearer{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: longSecret})},
			"APIKey":       &APIKey{Header: "X-API-Key", Key: longSecret},
			"caller's":     &Digest{Username: "u", Password: "p"},
		} {
			what := fmt.Sprintf("%s, %q", name, format)
			var log bytes.Buffer
			transport := &Transport{Schemes: []Scheme{scheme}, OnEvent: LogEvents(slog.New(slog.NewTextHandler(&log, nil)))}
			req, err := http.NewRequest("GET", "http://"+address+"/", nil)
			require.NoError(t, err)
			if name == "caller's" {
				req.SetBasicAuth("u", longSecret)
			}
			_, err = transport.RoundTrip(req)
			require.Error(t, err, what)
			requireNoPartOf(t, longSecret, err, what)
			requireNoPart(t, longSecret, log.String(), what)
			require.Contains(t, log.String(), "error=")
		}
	}
}

// requireNoPartOf requires that no text of err, or of what it wraps, shows a secret.
func requireNoPartOf(t *testing.T, secret string, err error, what string) {
	t.Helper()
	for _, text := range everyText(err) {
		requireNoPart(t, secret, text, what)
	}
	for cause := err; cause != nil; cause = errors.Unwrap(cause) {
		requireNoPart(t, secret, cause.Error(), what)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		requireNoPart(t, secret, u.Error(), what)
	}
}

func requireNoPart(t *testing.T, secret, text, what string) {
	t.Helper()
	requireNoSecret(t, what, text)
	for _, form := range []string{secret, encoded(secret)} {
		require.NotContains(t, text, form[:len(form)-4], what)
	}
}

func encoded(password string) string {
	req := httptest.NewRequest("GET", "/", nil)
	req.SetBasicAuth("u", password)
	return strings.TrimPrefix(req.Header.Get("Authorization"), "Basic ")
}

// A Base of somebody else may have anything in its errors.
func TestErrorsOfABaseDoNotShowCredentials(t *testing.T) {
	t.Parallel()
	cause := &net.OpError{Op: "read", Err: context.DeadlineExceeded}
	for name, fail := range map[string]func(req *http.Request) error{
		"the header": func(req *http.Request) error { return fmt.Errorf("sent %v: %w", req.Header, cause) },
		"the value": func(req *http.Request) error {
			return fmt.Errorf("sent %s: %w", req.Header.Get("Authorization"), cause)
		},
		"a part of it": func(req *http.Request) error {
			return fmt.Errorf("sent %s: %w", req.Header.Get("Authorization")[:30], cause)
		},
		"the password": func(req *http.Request) error { return fmt.Errorf("sent %s: %w", longSecret, cause) },
		"a joined one": func(req *http.Request) error { return errors.Join(cause, errors.New(longSecret)) },
		"at length":    func(req *http.Request) error { return fmt.Errorf("%s: %w", strings.Repeat("x", 9<<10), cause) },
	} {
		var done error
		transport := &Transport{Schemes: []Scheme{&Basic{Username: "u", Password: longSecret, Ahead: true}},
			Base:    roundTripFunc(func(req *http.Request) (*http.Response, error) { return nil, fail(req) }),
			OnEvent: func(_ context.Context, e Event) { done = e.Err }}
		_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/?key=s3cret", nil))
		for _, err := range []error{err, done} {
			requireNoPartOf(t, longSecret, err, name)
			require.Less(t, len(err.Error()), 5<<10)
			require.ErrorIs(t, err, context.DeadlineExceeded, name)
			var op *net.OpError
			require.ErrorAs(t, err, &op, "what has no secret is found")
			timeout, ok := errors.AsType[net.Error](&url.Error{Op: "Get", URL: "x", Err: err})
			require.True(t, ok && timeout.Timeout(), "as in net/http")
		}
	}
	secretive := fmt.Errorf("sent %s", longSecret)
	transport := &Transport{Schemes: []Scheme{&APIKey{Key: longSecret}}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return nil, fmt.Errorf("lost: %w", &url.Error{Op: "Get", URL: "x", Err: secretive})
	})}
	_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil))
	require.ErrorIs(t, err, secretive)
	var found *url.Error
	require.False(t, errors.As(err, &found), "it shows a secret")
	require.Nil(t, found)

	// What shows nothing passes as it is.
	plain := errors.New(`the replica "eu-1" is down`)
	transport.Base, transport = nil, &Transport{Schemes: transport.Schemes, Base: roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, plain })}
	_, err = transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil))
	require.Equal(t, plain, err)
}

// Many APIs take a key for a user name, and no password.
func TestKeyInPlaceOfAUserNameIsNotShown(t *testing.T) {
	t.Parallel()
	for user, isShown := range map[string]bool{longSecret: false, "admin": true} {
		basic := &Basic{Username: user, Ahead: true}
		data, err := json.Marshal(basic)
		require.NoError(t, err)
		for _, text := range []string{fmt.Sprintf("%+v", basic), fmt.Sprintf("%#v", *basic), string(data)} {
			require.Equal(t, isShown, strings.Contains(text, user), text)
		}
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			name, _, _ := req.BasicAuth()
			return nil, fmt.Errorf("not sent for %s to %v", name, req.URL)
		})
		_, err = (&Transport{Base: base, Schemes: []Scheme{basic}}).RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil))
		require.Equal(t, isShown, strings.Contains(err.Error(), user), err.Error())
		_, err = (&Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).
			RoundTrip(httptest.NewRequest("GET", "https://"+user+"@api.example.com/", nil))
		require.Equal(t, isShown, strings.Contains(err.Error(), user), err.Error())
	}
	require.Contains(t, fmt.Sprint(&Basic{Username: longSecret, Password: "p"}), longSecret, "it is a name")
}

// A query may be confidential, but the caller knows it: it is kept out of events.
func TestEventsDoNotShowTheQuery(t *testing.T) {
	t.Parallel()
	reset := errors.New("connection reset")
	for want, fail := range map[string]func(u string) error{
		"connection reset": func(u string) error { return &url.Error{Op: "Get", URL: u, Err: reset} },
		"is not shown":     func(u string) error { return errors.New("GET " + u + " failed") },
	} {
		var done error
		transport := &Transport{Schemes: []Scheme{&APIKey{Key: "k"}}, OnEvent: func(_ context.Context, e Event) { done = e.Err },
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) { return nil, fail(req.URL.String()) })}
		_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/?key=s3cret", nil))
		require.Equal(t, fail("https://api.example.com/?key=s3cret"), err)
		require.ErrorContains(t, done, want)
		require.NotContains(t, done.Error(), "s3cret")
	}
}

func TestErrorsOfAProxyDoNotQuoteWhatItSendsBack(t *testing.T) {
	t.Parallel()
	for _, format := range append(echoes, "HTTP/1.1 502 Got %s\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"%s\"\r\nContent-Length: 0\r\n\r\n") {
		proxy, err := url.Parse("http://" + echoing(t, format))
		require.NoError(t, err)
		var log bytes.Buffer
		transport := NewProxyTransport(&http.Transport{Proxy: http.ProxyURL(proxy)}, &Basic{Username: "u", Password: longSecret, Ahead: true})
		transport.OnEvent = LogEvents(slog.New(slog.NewTextHandler(&log, nil)))
		resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://origin.test/", nil))
		if err == nil {
			t.Fatalf("%q: a response %v", format, resp)
		}
		requireNoPartOf(t, longSecret, err, format)
		requireNoPart(t, longSecret, log.String(), format)
	}
}

func TestErrorsOfATokenEndpointDoNotQuoteWhatItSendsBack(t *testing.T) {
	t.Parallel()
	for _, format := range echoes {
		address := "http://" + echoing(t, format) + "/token"
		for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
			for name, fetch := range map[string]FetchFunc{
				"refresh": RefreshGrant(&oauth2.Config{ClientID: "u", ClientSecret: longSecret, Endpoint: oauth2.Endpoint{TokenURL: address, AuthStyle: style}}),
				"client":  ClientCredentialsGrant(&clientcredentials.Config{ClientID: "u", ClientSecret: longSecret, TokenURL: address, AuthStyle: style}),
			} {
				source := &TokenSource{Fetch: fetch, Initial: &oauth2.Token{RefreshToken: longSecret + longSecret}, HTTPClient: &http.Client{}}
				_, err := source.Token()
				require.Error(t, err)
				for _, text := range everyText(err) {
					requireNoPart(t, longSecret, text, name+format)
				}
			}
		}
	}
}

// What is short is found too, wherever it was sent, and what is no secret is not taken for one.
func TestErrorsOfABaseShowWhatIsNoSecretAndNothingElse(t *testing.T) {
	t.Parallel()
	const short = "s3cr3t!"
	for name, c := range map[string]struct {
		scheme Scheme
		edit   func(req *http.Request)
		text   func(sent *http.Request) string
		secret string // "": the text is passed on
	}{
		"a short password": {&Basic{Username: "u", Password: short, Ahead: true}, nil,
			func(*http.Request) string { return "sent " + short }, short},
		"a key without a word before it": {&APIKey{Header: "X-API-Key", Key: longSecret}, nil,
			func(sent *http.Request) string { return "sent " + sent.Header.Get("X-Api-Key") }, longSecret},
		"a password of the URL": {&APIKey{Key: "k"}, func(req *http.Request) { req.URL.User = url.UserPassword("u", longSecret) },
			func(sent *http.Request) string { p, _ := sent.URL.User.Password(); return "sent " + p }, longSecret},
		"the caller's cookie": {&APIKey{Key: "k"}, func(req *http.Request) { req.Header.Set("Cookie", "session="+longSecret) },
			func(sent *http.Request) string { return "sent " + sent.Header.Get("Cookie") }, longSecret},
		"the first of several cookies": {&APIKey{Key: "k"}, func(req *http.Request) { req.Header.Set("Cookie", "session="+longSecret+"; theme=dark") },
			func(*http.Request) string { return "sent " + longSecret[4:] }, longSecret[4:]},
		"one of several short cookies": {&APIKey{Key: "k"}, func(req *http.Request) { req.Header.Set("Cookie", "id="+short+"; theme=dark") },
			func(*http.Request) string { return "sent id=" + short }, short},
		"the name of a cookie": {&APIKey{Key: "k"}, func(req *http.Request) { req.Header.Set("Cookie", "the-name-of-the-session="+longSecret) },
			func(*http.Request) string { return "no the-name-of-the-session" }, ""},
		"a password as the URL has it": {&APIKey{Key: "k"}, func(req *http.Request) { req.URL.User = url.UserPassword("u", "p/ss:w?rd@h#me/sec") },
			func(sent *http.Request) string { return "sent " + sent.URL.String() }, "p%2Fss%3Aw%3Frd%40h%23me"},
		"the caller's credentials for a proxy": {&APIKey{Key: "k"}, func(req *http.Request) { req.Header.Set("Proxy-Authorization", "Bearer "+longSecret) },
			func(sent *http.Request) string { return "sent " + sent.Header.Get("Proxy-Authorization") }, longSecret},
		"what Digest sends": {&puppet{name: "x", start: func(context.Context, *http.Request) (Session, error) {
			return word{text: `Digest username="u", response="0123456789abcdef"`}, nil
		}}, nil, func(sent *http.Request) string { return "sent " + sent.Header.Get("Authorization") }, ""},
		"our Expect": {&Basic{Username: "u", Password: "p"}, func(req *http.Request) {
			req.Method, req.Body, req.ContentLength = "PUT", io.NopCloser(io.LimitReader(zeros{}, 2<<20)), 2<<20
		}, func(sent *http.Request) string { return "sent " + sent.Header.Get("Expect") + "." }, ""},
	} {
		var said error
		transport := &Transport{Schemes: []Scheme{c.scheme}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			said = errors.New(c.text(req))
			return nil, said
		})}
		req := httptest.NewRequest("GET", "https://api.example.com/", nil)
		if c.edit != nil {
			c.edit(req)
		}
		_, err := transport.RoundTrip(req)
		if c.secret == "" {
			require.Greater(t, len(said.Error()), len("sent ."), name)
			require.Equal(t, said, err, name)
			continue
		}
		require.Contains(t, said.Error(), c.secret, name)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), c.secret, name)
		require.Equal(t, fmt.Sprintf("%q", err.Error()), fmt.Sprintf("%q", err), name)
		require.Equal(t, err.Error(), fmt.Sprint(err), name)
	}
}

// A request that has no secret is told what the server has sent, as by net/http.
func TestErrorsOfRequestsWithoutSecretsAreAsTheyCame(t *testing.T) {
	t.Parallel()
	malformed := errors.New(`net/http: HTTP/1.x transport connection broken: malformed HTTP response "\x15\x03\x01 is TLS, and not HTTP"`)
	transport := &Transport{Schemes: []Scheme{&Basic{Username: "u", Password: "p"}},
		Base: roundTripFunc(func(*http.Request) (*http.Response, error) { return nil, malformed })}
	_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil))
	require.Equal(t, malformed, err)
}

// A server may repeat in its challenges what it was sent: neither Explain nor an event shows that, whoever has set it; nor what it repeats
// of the first send in answer to the second.
func TestChallengesThatRepeatCredentials(t *testing.T) {
	var sent []string
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		sent = append(sent, req.Header.Get("Authorization"))
		all := strings.ReplaceAll(strings.Join(sent, " "), `"`, "")
		return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: http.Header{
			"Www-Authenticate": {`Basic realm="` + all + `"`, `Other realm="` + all + `"`, strings.ReplaceAll(strings.TrimSpace(all), " ", "-") + ` realm="y"`}}}, nil
	})
	for name, scheme := range map[string]Scheme{
		"APIKey":        &APIKey{Key: longSecret},
		"Bearer":        &Bearer{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: longSecret})},
		"Basic":         &Basic{Username: "u", Password: longSecret},
		"Basic ahead":   &Basic{Username: "u", Password: longSecret, Ahead: true},
		"the caller's":  &Basic{Username: "u", Password: "p"},
		"cannot answer": &Digest{Username: "u", Password: "p"},
	} {
		t.Run(name, func(t *testing.T) {
			var shown strings.Builder
			log := LogEvents(slog.New(slog.NewTextHandler(&shown, &slog.HandlerOptions{Level: slog.LevelDebug - 10})))
			transport := &Transport{Base: base, Schemes: []Scheme{scheme}, OnEvent: func(ctx context.Context, e Event) {
				fmt.Fprintf(&shown, "%+v\n", e)
				log(ctx, e)
			}}
			for range 2 { // with what is remembered, too
				sent = nil
				req, err := http.NewRequest("GET", "https://api.example.com/", nil)
				require.NoError(t, err)
				if name == "the caller's" {
					req.Header.Set("Authorization", "Bearer "+longSecret)
				}
				resp, err := transport.RoundTrip(req)
				require.NoError(t, err)
				fmt.Fprintf(&shown, "%v %+v %#v\n", Explain(resp), Explain(resp), Explain(resp))
				require.NotEmpty(t, sent)
			}
			requireNoPart(t, longSecret, shown.String(), name)
			requireNoPart(t, base64.StdEncoding.EncodeToString([]byte("u:"+longSecret)), shown.String(), name)
		})
	}
}

// What a Scheme says of a challenge may quote that, and so what a server repeats there of what it was sent. A short password is no more than
// a word, unless a challenge repeats it.
func TestErrorsOfSchemesDoNotQuoteWhatAServerRepeats(t *testing.T) {
	t.Parallel()
	algorithm := `Digest realm="x", nonce="n", algorithm="%s"`
	for name, c := range map[string]struct {
		scheme          Scheme
		format, secret  string
		wrapped         error
		isShown, failed bool
	}{
		"algorithm":     {&Digest{Username: "u", Password: "p"}, algorithm, longSecret, ErrUnsupportedChallenge, false, false},
		"qop":           {&Digest{Username: "u", Password: "p"}, `Digest realm="x", nonce="n", qop="%s"`, longSecret, ErrUnsupportedChallenge, false, false},
		"a short one":   {&Digest{Username: "u", Password: "p"}, algorithm, "hunter-22", ErrUnsupportedChallenge, false, false},
		"another's":     {&Digest{Username: "u", Password: "p"}, `Digest realm="x", nonce="n", algorithm="x-hash"`, "authretry", ErrUnsupportedChallenge, true, false},
		"a stranger's":  {quoting(nil), `X realm="%s"`, longSecret, ErrCredentialsRefused, false, false},
		"one that ends": {quoting(io.ErrUnexpectedEOF), `X realm="%s"`, longSecret, io.ErrUnexpectedEOF, false, true},
	} {
		transport := &Transport{Schemes: []Scheme{c.scheme}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: http.Header{
				"Www-Authenticate": {strings.ReplaceAll(c.format, "%s", c.secret)}}}, nil
		})}
		req := httptest.NewRequest("GET", "https://api.example.com/", nil)
		req.Header.Set("Cookie", "session="+c.secret)
		resp, err := transport.RoundTrip(req)
		require.Equal(t, c.failed, err != nil, name)
		if err == nil {
			err = Explain(resp)
		}
		require.ErrorIs(t, err, c.wrapped, name)
		if c.isShown {
			require.ErrorContains(t, err, `"x-hash" is unknown`)
			continue
		}
		for _, text := range everyText(err) {
			require.NotContains(t, text, c.secret[:len(c.secret)-2], name)
		}
	}
}

// quoting is a Scheme that quotes the realm: if cause is nil in what it learns from the second refusal, and else in an error of Answer.
func quoting(cause error) Scheme {
	return &puppet{name: "X", answer: func(_ context.Context, c *Challenge, _ *http.Response) (Session, error) {
		if cause != nil {
			return nil, fmt.Errorf("at %s: %w", c.Params.Get("realm"), cause)
		}
		return quotingSession{c.Params.Get("realm")}, nil
	}}
}

type quotingSession struct{ realm string }

func (quotingSession) Authorize(req *http.Request) error {
	req.Header.Set("Authorization", "X y")
	return nil
}

func (s quotingSession) Learn(_ *http.Response, refused bool) (keep bool, err error) {
	return false, fmt.Errorf("at %s: %w", s.realm, ErrCredentialsRefused)
}

// The realm of a Digest challenge is in what is said of a proof that is missing, also with later requests, which have not sent what it
// repeats.
func TestRealmThatRepeatsCredentialsIsNotShown(t *testing.T) {
	t.Parallel()
	for _, mutual := range []bool{false, true} {
		var shown strings.Builder
		log := LogEvents(slog.New(slog.NewTextHandler(&shown, &slog.HandlerOptions{Level: slog.LevelDebug})))
		transport := &Transport{OnEvent: func(ctx context.Context, e Event) { fmt.Fprintf(&shown, "%+v\n", e); log(ctx, e) },
			Schemes: []Scheme{&Digest{Username: "u", Password: "p", RequireMutualAuth: mutual}, &Basic{Username: "u", Password: longSecret, Ahead: true}},
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: req, Header: http.Header{}}
				if _, password, ok := req.BasicAuth(); ok {
					resp.StatusCode, resp.Header = 401, http.Header{"Www-Authenticate": {`Digest realm="` + password + `", nonce="n", qop="auth"`}}
				}
				return resp, nil
			})}
		for range 2 {
			_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil))
			require.Equal(t, mutual, errors.Is(err, ErrMutualAuth))
			fmt.Fprintf(&shown, "%v\n", err)
		}
		require.Equal(t, 2, strings.Count(shown.String(), "Kind:unverified"))
		requireNoPart(t, longSecret, shown.String(), "realm")
	}
}

// What was sent is looked through once for all challenges, and not for each: a server may have given megabytes of cookies. How often
// that happens shows in what is allocated for it, which is more than all else of a challenge.
func TestManyChallengesThatMayRepeatCredentials(t *testing.T) { // not parallel: it measures the heap
	const last = "the-last-of-a-cookie-that-is-long"
	cookie := "session=" + strings.Repeat("0123456789", 10_000) + last
	allocated := func(challenge string, challenges int) uint64 {
		transport := &Transport{Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}, OnEvent: func(context.Context, Event) {}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: http.Header{
				"Www-Authenticate": slices.Repeat([]string{challenge}, challenges)}}, nil
		})}
		req := httptest.NewRequest("GET", "https://api.example.com/", nil)
		req.Header.Set("Cookie", cookie)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 5 {
			_, err := transport.RoundTrip(req)
			require.NoError(t, err)
		}
		runtime.ReadMemStats(&after)
		return (after.TotalAlloc - before.TotalAlloc) / 5
	}
	for challenge, atMost := range map[string]int64{
		`Digest realm="` + strings.Repeat("the realm of those who have been asked, ", 3) + `", nonce="n", algorithm=y`: 4 << 10,
		strings.Repeat(last, 3) + ` realm="x"`: 2 << 10,
	} {
		allocated(challenge, 1)
		one, all := allocated(challenge, 1), allocated(challenge, maxChallenges)
		each := (int64(all) - int64(one)) / (maxChallenges - 1)
		require.Less(t, each, atMost, challenge)
	}
}
