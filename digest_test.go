package authretry

import (
	"bytes"
	"context"
	"crypto/fips140"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

// A digestVector is a file of testdata/digest: a challenge, and the requests made with the session that answers it.
type digestVector struct {
	Why       string
	Challenge map[string]string
	Username  string
	Password  string
	Cnonce    string
	Exchanges []struct {
		Method, URL, Body  string
		Authorization      string  // its parameters may be in any order
		AuthenticationInfo *string // of the response, if there is a response
		Unverified         bool    // the response's rspauth is reported
	}
}

func TestDigestVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/digest/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			var v digestVector
			decoder := json.NewDecoder(bytes.NewReader(data))
			decoder.DisallowUnknownFields()
			require.NoError(t, decoder.Decode(&v))
			require.NotEmpty(t, v.Why)
			require.NotEmpty(t, v.Exchanges)

			d := &Digest{Username: v.Username, Password: v.Password, cnonce: func() string { return v.Cnonce }}
			var session Session
			for i, x := range v.Exchanges {
				var unverified []Event
				ctx := withListener(t.Context(), func(_ context.Context, e Event) { unverified = append(unverified, e) })
				req := (&http.Request{Method: x.Method, Header: http.Header{}}).WithContext(ctx)
				req.URL, err = url.Parse(x.URL)
				require.NoError(t, err)
				if x.Body != "" {
					req.Body = io.NopCloser(strings.NewReader("must not be read"))
					req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(x.Body)), nil }
				}
				if session == nil {
					session, err = d.Answer(ctx, digestChallenge(v.Challenge), refusalOf(req))
					require.NoError(t, err)
				}
				require.NoError(t, session.Authorize(req))
				require.ElementsMatch(t, splitAuthorization(t, x.Authorization),
					splitAuthorization(t, req.Header.Get("Authorization")), "exchange %d", i+1)
				if x.AuthenticationInfo != nil {
					resp := &http.Response{Request: req, Header: http.Header{"Authentication-Info": {*x.AuthenticationInfo}}}
					require.NoError(t, learn(session.(Learner), resp))
					require.Equal(t, x.Unverified, len(unverified) == 1, "exchange %d: %v", i+1, unverified)
				}
			}
		})
	}
}

// digestChallenge returns a challenge with the given parameters.
func digestChallenge(params map[string]string) *Challenge {
	c := &Challenge{Scheme: "Digest"}
	for name, value := range params {
		c.Params = append(c.Params, Param{name, value})
	}
	return c
}

// with returns the parameters of an ordinary challenge, changed: name, value, name, value. A value of "-" removes
// the parameter.
func with(changes ...string) map[string]string {
	params := map[string]string{"realm": "lab", "nonce": "n1", "qop": "auth", "algorithm": "SHA-256", "opaque": "o1"}
	for i := 0; i < len(changes); i += 2 {
		params[changes[i]] = changes[i+1]
		if changes[i+1] == "-" {
			delete(params, changes[i])
		}
	}
	return params
}

func newDigestRequest(t testing.TB, method, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	return req
}

// refusalOf returns a 401 to req, as a Scheme gets to see it.
func refusalOf(req *http.Request) *http.Response {
	return &http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{}, Body: http.NoBody, Request: req}
}

// answer returns d's session for a challenge of https://example.com/a/b.
func answer(t testing.TB, d *Digest, params map[string]string) *digestSession {
	t.Helper()
	session, err := d.Answer(t.Context(), digestChallenge(params), refusalOf(newDigestRequest(t, "GET", "https://example.com/a/b")))
	require.NoError(t, err)
	return session.(*digestSession)
}

// authorize returns the Authorization that the session puts on a GET of https://example.com/a/b.
func authorize(t testing.TB, s Session) string {
	t.Helper()
	req := newDigestRequest(t, "GET", "https://example.com/a/b")
	require.NoError(t, s.Authorize(req))
	return req.Header.Get("Authorization")
}

// splitAuthorization returns the parameters of a Digest header as they are on the wire.
func splitAuthorization(t testing.TB, header string) []string {
	t.Helper()
	rest, ok := strings.CutPrefix(header, "Digest ")
	require.True(t, ok, header)
	var params []string
	inQuotes, escaped, start := false, false, 0
	for i, c := range []byte(rest) {
		switch {
		case escaped:
			escaped = false
		case inQuotes && c == '\\':
			escaped = true
		case c == '"':
			inQuotes = !inQuotes
		case c == ',' && !inQuotes:
			params = append(params, strings.TrimSpace(rest[start:i]))
			start = i + 1
		}
	}
	require.False(t, inQuotes || escaped, "a quote is not closed: %s", header)
	return append(params, strings.TrimSpace(rest[start:]))
}

// verifyAuthorization is a server's check of a Digest header, written without a look at digest.go.
func verifyAuthorization(t testing.TB, header, username, password, method, uri, body string) {
	t.Helper()
	got := map[string]string{}
	for _, param := range splitAuthorization(t, header) {
		name, value, ok := strings.Cut(param, "=")
		require.True(t, ok, param)
		switch name {
		case "username", "realm", "nonce", "uri", "response", "cnonce", "opaque":
			require.True(t, len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"', "%s must be quoted", param)
			value = strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(value[1 : len(value)-1])
		case "algorithm", "qop", "nc", "userhash":
			require.NotContains(t, value, `"`, "%s must not be quoted", param)
		default:
			require.Fail(t, "unknown parameter", param)
		}
		require.NotContains(t, got, name, "sent twice")
		got[name] = value
	}
	algorithm, sess := strings.CutSuffix(strings.ToUpper(got["algorithm"]), "-SESS")
	newHash := map[string]func() hash.Hash{"": md5.New, "MD5": md5.New, "SHA-256": sha256.New, "SHA-512-256": sha512.New512_256}[algorithm]
	require.NotNil(t, newHash, algorithm)
	h := func(s string) string {
		f := newHash()
		io.WriteString(f, s)
		return fmt.Sprintf("%x", f.Sum(nil))
	}
	if got["userhash"] == "true" {
		require.Equal(t, h(username+":"+got["realm"]), got["username"])
	} else {
		require.Equal(t, username, got["username"])
	}
	require.Equal(t, uri, got["uri"])

	a1 := h(username + ":" + got["realm"] + ":" + password)
	if sess {
		a1 = h(a1 + ":" + got["nonce"] + ":" + got["cnonce"])
	}
	a2 := method + ":" + uri
	if got["qop"] == "auth-int" {
		a2 += ":" + h(body)
	}
	want := h(a1 + ":" + got["nonce"] + ":" + h(a2))
	if qop, ok := got["qop"]; ok {
		require.Contains(t, []string{"auth", "auth-int"}, qop)
		require.NotEmpty(t, got["cnonce"])
		require.Regexp(t, "^[0-9a-f]{8}$", got["nc"])
		want = h(strings.Join([]string{a1, got["nonce"], got["nc"], got["cnonce"], qop, h(a2)}, ":"))
	} else {
		require.NotContains(t, got, "cnonce")
		require.NotContains(t, got, "nc")
	}
	require.Equal(t, want, got["response"])
}

func TestDigestChallengesThatCannotBeAnswered(t *testing.T) {
	tests := map[string]struct {
		d      Digest
		params map[string]string
		why    string
	}{
		"no realm":               {params: with("realm", "-"), why: "no realm"},
		"no nonce":               {params: with("nonce", "-"), why: "no nonce"},
		"empty nonce":            {params: with("nonce", ""), why: "no nonce"},
		"unknown algorithm":      {params: with("algorithm", "SHA-1"), why: `"SHA-1" is unknown`},
		"only a suffix":          {params: with("algorithm", "-sess"), why: "unknown"},
		"only unknown qop":       {params: with("qop", "auth-conf, token"), why: "qop"},
		"MD5-sess without qop":   {params: with("algorithm", "MD5-sess", "qop", "-"), why: "-sess"},
		"SHA-256-sess, empty":    {params: with("algorithm", "SHA-256-sess", "qop", " , "), why: "-sess"},
		"CR LF in the realm":     {params: with("realm", "lab\r\nX-Evil: 1"), why: "control character"},
		"NUL in the nonce":       {params: with("nonce", "n\x00"), why: "control character"},
		"LF in the opaque":       {params: with("opaque", "o\n"), why: "control character"},
		"DEL in the realm":       {params: with("realm", "\x7f"), why: "control character"},
		"too large":              {params: with("nonce", strings.Repeat("n", 1<<20)), why: "too large"},
		"larger than a line":     {params: with("nonce", strings.Repeat("n", 4<<10), "opaque", strings.Repeat("o", 4<<10)), why: "too large"},
		"too many domains":       {params: with("domain", strings.Repeat("/a ", 1<<20)), why: "too large"},
		"MD5 is too weak":        {d: Digest{MinAlgorithm: "SHA-256"}, params: with("algorithm", "MD5"), why: "MinAlgorithm"},
		"so is no algorithm":     {d: Digest{MinAlgorithm: "SHA-256"}, params: with("algorithm", "-"), why: "MinAlgorithm"},
		"so is MD5-sess":         {d: Digest{MinAlgorithm: "sha-256"}, params: with("algorithm", "MD5-sess"), why: "MinAlgorithm"},
		"SHA-256 is too weak":    {d: Digest{MinAlgorithm: "SHA-512-256"}, params: with(), why: "MinAlgorithm"},
		"mutual, without qop":    {d: Digest{RequireMutualAuth: true}, params: with("qop", "-"), why: "RequireMutualAuth"},
		"mutual, but auth-int":   {d: Digest{RequireMutualAuth: true}, params: with("qop", "auth-int"), why: "RequireMutualAuth"},
		"nothing in it whatever": {params: nil, why: "no realm"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.d.Username, test.d.Password = "Mufasa", "Circle of Life"
			session, err := test.d.Answer(t.Context(), digestChallenge(test.params), refusalOf(newDigestRequest(t, "GET", "http://example.com/")))
			require.ErrorIs(t, err, ErrUnsupportedChallenge)
			require.ErrorContains(t, err, test.why)
			require.Less(t, len(err.Error()), 200)
			require.Nil(t, session)
		})
	}

	_, err := (&Digest{Username: "Mufasa"}).Answer(t.Context(), nil, refusalOf(newDigestRequest(t, "GET", "http://example.com/")))
	require.ErrorIs(t, err, ErrUnsupportedChallenge)
}

// In FIPS 140-3 mode, MD5 is not computed, and SHA-256 is. A program is in it from its start.
func TestDigestInFIPSMode(t *testing.T) {
	if !fips140.Enforced() {
		again := exec.Command(os.Args[0], "-test.run=^TestDigestInFIPSMode$", "-test.v")
		again.Env = append(os.Environ(), "GODEBUG=fips140=only")
		output, err := again.CombinedOutput()
		require.NoError(t, err, "%s", output)
		require.Contains(t, string(output), "--- PASS: TestDigestInFIPSMode")
		return
	}
	d := &Digest{Username: "u", Password: "p"}
	refusal := refusalOf(newDigestRequest(t, "GET", "https://example.com/"))
	for _, algorithm := range []string{"MD5", "MD5-sess"} {
		_, err := d.Answer(t.Context(), digestChallenge(with("algorithm", algorithm)), refusal)
		require.ErrorIs(t, err, ErrUnsupportedChallenge)
		require.ErrorContains(t, err, "FIPS")
	}
	_, err := d.Answer(t.Context(), digestChallenge(with()), refusal)
	require.NoError(t, err)
}

func TestDigestMinAlgorithmAnswersTheStronger(t *testing.T) {
	for _, algorithm := range []string{"SHA-256", "SHA-256-sess", "SHA-512-256", "SHA-512-256-sess"} {
		d := &Digest{Username: "Mufasa", Password: "Circle of Life", MinAlgorithm: "SHA-256"}
		verifyAuthorization(t, authorize(t, answer(t, d, with("algorithm", algorithm))), "Mufasa", "Circle of Life", "GET", "/a/b", "")
	}
}

// A server that offered qop must get a cnonce, or it could have tables ready for its nonce (RFC 7616 §5.8).
func TestDigestSendsACnonceWhenQopIsOffered(t *testing.T) {
	d := &Digest{Username: "Mufasa", Password: "Circle of Life"}
	for _, qop := range []string{"auth", "auth-int", "AUTH,auth-int", "auth-conf,auth", "auth-int\t,x"} {
		one, two := authorize(t, answer(t, d, with("qop", qop))), authorize(t, answer(t, d, with("qop", qop)))
		require.Contains(t, one, `, cnonce="`)
		require.NotEqual(t, one, two, "the cnonce must differ from session to session")
	}
	require.NotContains(t, authorize(t, answer(t, d, with("qop", "-"))), "cnonce")
	require.NotContains(t, authorize(t, answer(t, d, with("qop", ""))), "cnonce")
}

func TestDigestConfiguration(t *testing.T) {
	tests := map[string]struct {
		d   *Digest
		why string
	}{
		"nil":                         {nil, "nil *Digest"},
		"empty":                       {&Digest{}, "set Digest.Username or Digest.Credentials"},
		"CR LF in the user name":      {&Digest{Username: "Mufasa\r\nX-Evil: 1", Password: "Circle of Life"}, "control character"},
		"a tab in the user name":      {&Digest{Username: "Mu\tfasa", Password: "Circle of Life"}, "control character"},
		"an algorithm nobody knows":   {&Digest{Username: "Mufasa", Password: "Circle of Life", MinAlgorithm: "SHA-3"}, `MinAlgorithm "SHA-3"`},
		"Credentials that are empty":  {&Digest{Credentials: credentials("", "", nil)}, "there is no Digest user name"},
		"Credentials with a bad name": {&Digest{Credentials: credentials("a\x00", "Circle of Life", nil)}, "control character"},
		"Credentials that fail":       {&Digest{Credentials: credentials("", "", errors.New("vault is sealed"))}, "vault is sealed"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := test.d.Answer(t.Context(), digestChallenge(with()), refusalOf(newDigestRequest(t, "GET", "https://EXAMPLE.com:443/a")))
			require.ErrorContains(t, err, test.why)
			require.NotErrorIs(t, err, ErrUnsupportedChallenge, "no other challenge would change that")
			require.NotContains(t, err.Error(), "Circle")
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func credentials(username, password string, err error) CredentialsFunc {
	return func(context.Context, CredentialsRequest) (string, string, error) { return username, password, err }
}

func TestDigestCredentialsAreAskedOncePerAnswer(t *testing.T) {
	var calls []string
	d := &Digest{Username: "not", Password: "used", Credentials: func(ctx context.Context, r CredentialsRequest) (string, string, error) {
		if err := ctx.Err(); err != nil {
			return "", "", err
		}
		calls = append(calls, r.Origin+" "+r.Challenge.Params.Get("realm"))
		return "Mufasa", "Circle of Life", nil
	}}
	for _, url := range []string{"http://Example.com:80/a/b", "https://example.com:8443/a/b", "https://[::1]:443/a/b"} {
		session, err := d.Answer(t.Context(), digestChallenge(with()), refusalOf(newDigestRequest(t, "GET", url)))
		require.NoError(t, err)
		for range 2 {
			verifyAuthorization(t, authorize(t, session), "Mufasa", "Circle of Life", "GET", "/a/b", "")
		}
	}
	require.Equal(t, []string{"http://example.com lab", "https://example.com:8443 lab", "https://[::1] lab"}, calls)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := d.Answer(ctx, digestChallenge(with()), refusalOf(newDigestRequest(t, "GET", "http://example.com/")))
	require.ErrorIs(t, err, context.Canceled)

	none := &Digest{Credentials: credentials("", "", ErrUnsupportedChallenge)}
	_, err = none.Answer(t.Context(), digestChallenge(with()), refusalOf(newDigestRequest(t, "GET", "http://example.com/")))
	require.ErrorIs(t, err, ErrUnsupportedChallenge)
}

// Whatever the server says of charset: servers that announce UTF-8 take the name as it is, too.
func TestDigestUserNamesAreSentAsTheyAre(t *testing.T) {
	for _, name := range []string{"", "Jäsøn Doe", "J\xe4s\xf8n Doe", "日本", `Mu"fa\sa`} {
		for _, charset := range []string{"-", "UTF-8", "utf-8", "ISO-8859-1"} {
			header := authorize(t, answer(t, &Digest{Username: name, Password: "Circle of Life"}, with("charset", charset)))
			require.Contains(t, header, `Digest username="`+escapeQuoted(name)+`", `)
			verifyAuthorization(t, header, name, "Circle of Life", "GET", "/a/b", "")
		}
	}
}

// The order is curl's: there are servers, those of cameras, that cannot read another.
func TestDigestOrderOfParameters(t *testing.T) {
	d := &Digest{Username: "Mufasa", Password: "Circle of Life"}
	for want, params := range map[string]map[string]string{
		"username realm nonce uri cnonce nc qop response opaque algorithm userhash": with("userhash", "true"),
		"username realm nonce uri cnonce nc qop response":                           with("algorithm", "-", "opaque", "-"),
		"username realm nonce uri response opaque algorithm":                        with("qop", "-"),
	} {
		var names []string
		for _, param := range splitAuthorization(t, authorize(t, answer(t, d, params))) {
			name, _, _ := strings.Cut(param, "=")
			names = append(names, name)
		}
		require.Equal(t, want, strings.Join(names, " "))
	}
}

func TestDigestAuthIntBody(t *testing.T) {
	d := &Digest{Username: "Mufasa", Password: "Circle of Life"}
	post := func(getBody func() (io.ReadCloser, error)) *http.Request {
		req := newDigestRequest(t, "POST", "https://example.com/a/b")
		req.Body, req.GetBody = io.NopCloser(strings.NewReader("body")), getBody
		return req
	}
	session := answer(t, d, with("qop", "auth-int"))

	require.ErrorIs(t, session.Authorize(post(nil)), errBodyNotReplayable)
	broken := errors.New("disk on fire")
	require.ErrorIs(t, session.Authorize(post(func() (io.ReadCloser, error) { return nil, broken })), broken)

	body := &closeRecorder{Reader: io.MultiReader(strings.NewReader("bo"), errReader{broken})}
	require.ErrorIs(t, session.Authorize(post(func() (io.ReadCloser, error) { return body, nil })), broken)
	require.Equal(t, 1, body.closed)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	endless := &closeRecorder{Reader: zeroReader{}}
	require.ErrorIs(t, session.Authorize(post(func() (io.ReadCloser, error) { return endless, nil }).WithContext(ctx)), context.Canceled)
	require.Equal(t, 1, endless.closed)

	req := post(func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("body")), nil })
	require.NoError(t, session.Authorize(req))
	verifyAuthorization(t, req.Header.Get("Authorization"), "Mufasa", "Circle of Life", "POST", "/a/b", "body")
	require.Contains(t, req.Header.Get("Authorization"), "nc=00000001,", "a request that was not sent is not counted")
	still, err := io.ReadAll(req.Body)
	require.NoError(t, err)
	require.Equal(t, "body", string(still), "req.Body must not be read")

	req = newDigestRequest(t, "POST", "https://example.com/a/b")
	req.Body = http.NoBody
	require.NoError(t, session.Authorize(req))
	verifyAuthorization(t, req.Header.Get("Authorization"), "Mufasa", "Circle of Life", "POST", "/a/b", "")
}

func TestDigestAuthIntStreamsTheBody(t *testing.T) {
	session := answer(t, &Digest{Username: "Mufasa", Password: "Circle of Life"}, with("qop", "auth-int"))
	req := newDigestRequest(t, "POST", "https://example.com/a/b")
	req.Body = io.NopCloser(zeroReader{})
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(zeroReader{}, 8<<20)), nil }
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	require.NoError(t, session.Authorize(req))
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

// What ends the context while the body is hashed is the reason, and not that it could not be read on.
func TestDigestAuthIntSaysWhyTheContextHasEnded(t *testing.T) {
	session := answer(t, &Digest{Username: "Mufasa", Password: "Circle of Life"}, with("qop", "auth-int"))
	left := errors.New("the user has left")
	ctx, cancel := context.WithCancelCause(t.Context())
	req := newDigestRequest(t, "POST", "https://example.com/a/b").WithContext(ctx)
	req.Body = io.NopCloser(zeroReader{})
	req.GetBody = func() (io.ReadCloser, error) { cancel(left); return io.NopCloser(zeroReader{}), nil }
	require.ErrorIs(t, session.Authorize(req), left)
}

type closeRecorder struct {
	io.Reader
	closed int
}

func (c *closeRecorder) Close() error {
	c.closed++
	return nil
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestDigestRefusesAControlCharacterInTheURL(t *testing.T) {
	session := answer(t, &Digest{Username: "Mufasa", Password: "Circle of Life"}, with())
	req := newDigestRequest(t, "GET", "https://example.com/a/b")
	req.URL.RawQuery = "q=1\r\nX-Evil: 1"
	require.ErrorContains(t, session.Authorize(req), "control character")
	require.Empty(t, req.Header)
	require.Contains(t, authorize(t, session), "nc=00000001,")
}

func TestDigestCovers(t *testing.T) {
	tests := []struct {
		domain     string
		in, beyond []string
	}{
		{"", []string{"/", "/a/b", "/x?y=z"}, nil},
		{"/docs /api/v1/", []string{"/docs", "/docs/x", "/docs?q", "/api/v1/", "/api/v1/x", "/a/b", "/a/b?other=query"}, []string{"/", "/api/v1", "/a/bc", "/a/", "/x"}},
		{"https://example.com/docs", []string{"/docs/x"}, []string{"/x"}},
		{"HTTPS://EXAMPLE.com:443", []string{"/docs/x", "/"}, nil},
		{"/d%6fcs\t/\u00e4/", []string{"/d%6fcs/x", "/%C3%A4/x"}, []string{"/x"}},
		// Those of others are as good as none: nothing is sent there.
		{"https://evil.test/docs http://example.com/docs https://example.com:8443/docs //evil.test/docs", []string{"/", "/docs"}, nil},
		{"https://evil.test/docs /docs", []string{"/docs"}, []string{"/x"}},
		{"docs ../docs %zz mailto:a@b https:/docs", []string{"/", "/x"}, nil},
	}
	for _, test := range tests {
		session := answer(t, &Digest{Username: "Mufasa", Password: "Circle of Life"}, with("domain", test.domain))
		for _, path := range test.in {
			require.True(t, session.Covers(newDigestRequest(t, "GET", "https://example.com"+path).URL), "%q covers %s", test.domain, path)
		}
		for _, path := range test.beyond {
			require.False(t, session.Covers(newDigestRequest(t, "GET", "https://example.com"+path).URL), "%q covers %s", test.domain, path)
		}
	}

	connect := &http.Request{Method: "CONNECT", URL: &url.URL{Opaque: "target.test:443"}, Header: http.Header{}}
	session, err := (&Digest{Username: "Mufasa"}).Answer(t.Context(), digestChallenge(with("domain", "/docs")), refusalOf(connect))
	require.NoError(t, err)
	require.True(t, session.(Covers).Covers(&url.URL{Scheme: "http", Host: "other.test", Path: "/x"}))
}

// A session outlives the response that it comes from, so it must not keep a large header alive.
func TestDigestSessionIsSmall(t *testing.T) { // not parallel: it measures the heap
	n := thorough.Or(1000, 300)
	d := &Digest{Username: "Mufasa", Password: "Circle of Life"}
	ctx := context.WithValue(t.Context(), noncesKey{}, &nonces{})
	sessions := make([]*digestSession, n)
	rejected := newDigestRequest(t, "GET", "https://example.com/a/b")
	before := heap()
	for i := range sessions {
		header := strings.Repeat("x", 1<<16) + fmt.Sprintf("realm of sixteen7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiT%04d/docs", i)
		tail := header[1<<16:]
		challenge := func(nonce string) *Challenge {
			return &Challenge{Scheme: "Digest", Params: Params{
				{"realm", tail[:16]}, {"nonce", nonce}, {"qop", "auth"}, {"algorithm", "SHA-256"}, {"opaque", tail[16:60]}, {"domain", tail[60:]},
			}}
		}
		session, err := d.Answer(ctx, challenge(tail[16:60]), refusalOf(rejected))
		require.NoError(t, err)
		sessions[i] = session.(*digestSession)
		require.NoError(t, session.Authorize(rejected))
		require.NoError(t, learn(session.(Learner), newInfo(strings.Repeat(" ", 1<<16)+"nextnonce="+tail[17:60])))
		require.NotContains(t, authorize(t, session), tail[16:60]+`", uri`, "it was taken up")
		require.NoError(t, learn(session.(Learner), newInfo()))
	}
	size := (int64(heap()) - int64(before)) / int64(n)
	runtime.KeepAlive(sessions)
	t.Logf("%d bytes a session, with the two nonces that it has had", size)
	require.Less(t, size, int64(1024))
}

func TestDigestNeverShowsThePassword(t *testing.T) {
	d := Digest{Username: "Mufasa", Password: "Circle of Life", MinAlgorithm: "SHA-256", cnonce: func() string { return "c1" }}
	session := answer(t, &d, with("algorithm", "SHA-256-sess"))
	header := authorize(t, session)

	var text strings.Builder
	for _, v := range []any{d, &d, session, *session, []any{d, &d, session}, map[string]any{"d": d}, struct{ D Digest }{d}, struct{ S Session }{session}} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10v", "%z", "%!"} {
			fmt.Fprintf(&text, format+"\n", v)
		}
		encoded, err := json.Marshal(v)
		require.NoError(t, err)
		text.Write(encoded)
		for _, h := range []slog.Handler{slog.NewTextHandler(&text, nil), slog.NewJSONHandler(&text, nil)} {
			slog.New(h).Info("configured", "auth", v)
		}
	}
	response := header[strings.Index(header, `response="`)+len(`response="`):][:64]
	for _, secret := range []string{"Circle", fmt.Sprintf("%x", "Circle of Life"), fmt.Sprintf("%X", "Circle of Life"),
		session.key, session.ha1, fmt.Sprintf("%x", session.key), fmt.Sprintf("%x", session.ha1), response} {
		require.NotContains(t, text.String(), secret)
	}

	require.Equal(t, `authretry.Digest{Username: "Mufasa", Password: "[redacted]", MinAlgorithm: "SHA-256"}`, fmt.Sprintf("%+v", &d))
	require.Equal(t, `authretry.Digest{}`, fmt.Sprint(Digest{}))
	encoded, err := json.Marshal(d)
	require.NoError(t, err)
	require.JSONEq(t, `{"Username": "Mufasa", "Password": "[redacted]", "MinAlgorithm": "SHA-256"}`, string(encoded))
}

func TestDigestIsSafeForConcurrentUse(t *testing.T) {
	d := &Digest{Username: "Mufasa", Password: "Circle of Life"}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			session := answer(t, d, with())
			for range 10 {
				verifyAuthorization(t, authorize(t, session), "Mufasa", "Circle of Life", "GET", "/a/b", "")
			}
		})
	}
	wg.Wait()
}

func TestDigestIsWhatItSays(t *testing.T) {
	var d Scheme = &Digest{}
	require.Equal(t, "Digest", d.Name())
	require.True(t, d.(PlaintextSafe).PlaintextSafe())
	var session Session = &digestSession{}
	for _, ok := range []bool{is[Exclusive](session), is[Learner](session), is[Covers](session)} {
		require.True(t, ok)
	}
}

func is[T any](v any) bool { _, ok := v.(T); return ok }

func TestDigestAllocations(t *testing.T) {
	for _, algorithm := range []string{"MD5", "SHA-256", "SHA-512-256", "SHA-256-sess"} {
		session := answer(t, &Digest{Username: "Mufasa", Password: "Circle of Life"}, with("algorithm", algorithm, "nonce", "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"))
		req := newDigestRequest(t, "GET", "https://example.com/dir/index.html?q=1")
		resp := &http.Response{Request: req, Header: http.Header{}}
		require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
			if session.Authorize(req) != nil {
				panic("not authorized")
			}
		}), 3.0, "the request URI, the value, and the slice that holds it")
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if learn(session, resp) != nil {
				panic("not learnt")
			}
		}))
		resp.Header["Authentication-Info"] = []string{`rspauth="6629fae49393a05397450978507c4ef1", cnonce="c1", nc=00000001, qop=auth`}
		require.Zero(t, testing.AllocsPerRun(100, func() {
			if learn(session, resp) != nil {
				panic("not learnt")
			}
		}), "rspauth is not computed if nobody wants to know")
		if strings.HasSuffix(algorithm, "-sess") {
			continue // each nonce has to be hashed
		}
		next := make([]*http.Response, 1001)
		for i := range next {
			next[i] = newInfo(fmt.Sprintf(`nextnonce="%040d"`, i))
		}
		i := -1
		require.LessOrEqual(t, testing.AllocsPerRun(len(next)-1, func() {
			i++
			if learn(session, next[i]) != nil {
				panic("not learnt")
			}
		}), 1.0, "what is known of the nonce")
		require.Contains(t, authorize(t, session), fmt.Sprintf(`nonce="%040d"`, i), "it was taken up")
	}
}

// BenchmarkDigest compares a request's Authorize and Learn with the bound: the hashes, and one string.
func BenchmarkDigest(b *testing.B) {
	const nonce, opaque, cnonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS", "MZXW6YTBOI2DKNRXHA4TAMJSGM"
	for _, algorithm := range []string{"MD5", "SHA-256", "SHA-512-256"} {
		d := &Digest{Username: "Mufasa", Password: "Circle of Life", cnonce: func() string { return cnonce }}
		session := answer(b, d, with("realm", "http-auth@example.org", "algorithm", algorithm, "nonce", nonce, "opaque", opaque))
		req := newDigestRequest(b, "GET", "https://example.com/dir/index.html?q=1")
		resp := &http.Response{Request: req, Header: http.Header{}}
		b.Run(algorithm+"/ours", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if session.Authorize(req) != nil || learn(session, resp) != nil {
					b.Fatal("failed")
				}
			}
		})
		b.Run(algorithm+"/bound", func(b *testing.B) {
			head, tail := session.head+nonce+`", uri="`, session.tail
			b.ReportAllocs()
			for b.Loop() {
				uri := req.URL.RequestURI()
				var buf [512]byte
				ha2 := session.algorithm.appendHex(buf[:0], append(append(buf[:0], "GET:"...), uri...))
				text := append(append(append(buf[64:64], session.ha1...), ":"+nonce+":00000001:"+cnonce+":auth:"...), ha2...)
				response := session.algorithm.appendHex(buf[:0], text)
				req.Header["Authorization"] = []string{head + uri + `", cnonce="` + cnonce + `", nc=00000001, qop=auth, response="` + string(response) + tail}
			}
		})
	}
}

// FuzzDigestSession answers hostile challenges: what comes out must be fit for a header, and right.
func FuzzDigestSession(f *testing.F) {
	f.Add("lab", "n1", "o1", "MD5", "auth,auth-int", "UTF-8", "", "/docs", "Mufasa", "Circle of Life", "/a?b=c", "body", byte(0xff))
	f.Add(`lab "quoted" \ realm`, `n"1`, `\`, "sha-256-SESS", "auth-int", "", "true", "https://example.com /", "Jäsøn Doe", "", `/?q="`, "", byte(0xff))
	f.Add("", "n", "", "", "", "utf-8", "false", "//", "日本", "\x00", "/", "x", byte(0))
	f.Add("a\r\nX: 1", "n\x00", "\x7f", "SHA-512-256", "auth", "UTF-8", "TRUE", "\x00", "a\nb", ":", "/%zz", "", byte(0x3f))
	f.Fuzz(func(t *testing.T, realm, nonce, opaque, algorithm, qop, charset, userhash, domain, username, password, target, body string, present byte) {
		c := &Challenge{Scheme: "Digest"}
		for i, p := range []Param{{"realm", realm}, {"nonce", nonce}, {"opaque", opaque}, {"algorithm", algorithm}, {"qop", qop},
			{"charset", charset}, {"userhash", userhash}, {"domain", domain}} {
			if present&(1<<i) != 0 {
				c.Params = append(c.Params, p)
			}
		}
		req := newDigestRequest(t, "POST", "https://example.com/")
		if u, err := req.URL.Parse(target); err == nil && u.Host == req.URL.Host {
			req.URL = u
		}
		req.Body = io.NopCloser(strings.NewReader(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
		ctx := context.WithValue(t.Context(), noncesKey{}, &nonces{})
		session, err := (&Digest{Username: username, Password: password}).Answer(ctx, c, refusalOf(req))
		if err != nil {
			require.Nil(t, session)
			return
		}
		another, err := (&Digest{Username: username, Password: password}).Answer(ctx, c, refusalOf(req))
		require.NoError(t, err)
		sent := make(map[string]bool)
		for i := range 6 {
			if session.Authorize(req) != nil {
				return
			}
			header := req.Header.Get("Authorization")
			require.False(t, hasControl(header), "%q", header)
			verifyAuthorization(t, header, username, password, "POST", req.URL.RequestURI(), body)
			require.True(t, session.(Covers).Covers(req.URL), "what was challenged is in the space")
			if session.(*digestSession).qop != qopNone { // without which there is no count
				require.False(t, sent[header], "%q was sent before", header)
				sent[header] = true
			}
			switch i % 3 {
			case 0:
				require.NoError(t, learn(session.(Learner), newInfo(`nextnonce="`+opaque+`"`)))
			case 1:
				require.NoError(t, learn(session.(Learner), newInfo(`nextnonce="`+nonce+`"`)))
			case 2:
				stale := *c
				stale.Params = append(Params{{"stale", "true"}, {"nonce", target}}, c.Params...)
				refuse(t, session.(Learner), stale.String())
			}
			session, another = another, session
		}
	})
}
