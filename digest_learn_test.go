package authretry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDigestRequireMutualAuth(t *testing.T) {
	d := &Digest{Username: "Mufasa", Password: "Circle of Life", RequireMutualAuth: true, cnonce: func() string { return "c1" }}
	// Computed with sha256sum, for GET https://example.com/a/b.
	const right = "3fbf34e110098609246bea9877c3713e9ee2302e01132e9c953f72b30fd8f5b0"
	for _, test := range []struct {
		name   string
		header http.Header
		err    string
	}{
		{"right", http.Header{"Authentication-Info": {`rspauth="` + right + `"`}}, ""},
		{"right, on the second line", http.Header{"Authentication-Info": {`qop=auth`, `rspauth=` + right}}, ""},
		{"wrong", http.Header{"Authentication-Info": {`rspauth="` + strings.Repeat("0", 64) + `"`}}, "is wrong"},
		{"short", http.Header{"Authentication-Info": {`rspauth="` + right[:60] + `"`}}, "is wrong"},
		{"the first counts", http.Header{"Authentication-Info": {`rspauth="0", rspauth="` + right + `"`}}, "is wrong"},
		{"empty", http.Header{"Authentication-Info": {`rspauth=""`}}, "sent no rspauth"},
		{"auth-int, says the server", http.Header{"Authentication-Info": {`qop=auth-int, rspauth="0"`}}, "is wrong"},
		{"missing", http.Header{}, "sent no rspauth"},
		{"no header at all", nil, "sent no rspauth"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var events []Event
			req := newDigestRequest(t, "GET", "https://example.com/a/b")
			req = req.WithContext(withListener(t.Context(), func(_ context.Context, e Event) { events = append(events, e) }))
			session := answer(t, d, with())
			require.NoError(t, session.Authorize(req))
			err := learn(session, &http.Response{Header: test.header, Request: req})
			if test.err == "" {
				require.NoError(t, err)
				require.Empty(t, events)
				return
			}
			require.ErrorIs(t, err, ErrMutualAuth)
			require.ErrorContains(t, err, test.err)
			require.ErrorContains(t, err, `https://example.com, realm "lab"`)
			require.Equal(t, []Event{{Kind: EventUnverified, Origin: "https://example.com", Scheme: "Digest", Realm: "lab", Err: err}}, events)
		})
	}

	session := answer(t, d, with())
	authorize(t, session)
	require.ErrorIs(t, learn(session, &http.Response{}), ErrMutualAuth, "a response without its request is no way round")

	d.RequireMutualAuth = false
	session = answer(t, d, with())
	authorize(t, session)
	require.NoError(t, learn(session, &http.Response{}))
}

// learn tells a Session of a response that is not a refusal.
func learn(s Learner, resp *http.Response) error {
	_, err := s.Learn(resp, false)
	return err
}

// newInfo returns a response with that Authentication-Info.
func newInfo(lines ...string) *http.Response {
	return &http.Response{Header: http.Header{"Authentication-Info": lines}}
}

// Authentication-Info is a list of auth-params (RFC 9110 §11.6.3), which servers write in every way that there is.
func TestDigestTakesUpANextnonceHoweverItIsWritten(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{[]string{`nextnonce="n2"`}, `n2`},
		{[]string{`nextnonce=n2`}, `n2`},
		{[]string{`nextnonce=bjI=`}, `bjI=`},
		{[]string{"NextNonce\t= \"n2\" , qop=auth"}, `n2`},
		{[]string{` nextnonce = n2 , qop=auth`}, `n2`},
		{[]string{`nextnonce="n, 2"`}, `n, 2`},
		{[]string{`nextnonce="n\2\""`}, `n2\"`},
		{[]string{`qop=auth, cnonce="a, nextnonce=x", nc=00000001, nextnonce="n2"`}, `n2`},
		{[]string{`nc="\", nextnonce=x", nextnonce="n2"`}, `n2`},
		{[]string{`,, nextnonce="n2",`}, `n2`},
		{[]string{`stray, nextnonce="n2"`}, `n2`},
		{[]string{`=, nextnonce="n2"`}, `n2`},
		{[]string{`nextnonce="n2", nextnonce="n3"`, `nextnonce="n4"`}, `n2`},
		{[]string{`qop=auth`, `nextnonce="n2"`}, `n2`},
	} {
		session := answer(t, &Digest{Username: "Mufasa", Password: "Circle of Life", cnonce: func() string { return "a, nextnonce=x" }}, with())
		authorize(t, session)
		require.NoError(t, learn(session, newInfo(c.lines...)))
		require.Regexp(t, regexp.QuoteMeta(`nonce="`+c.want+`", uri="/a/b", `)+`.* nc=00000001,`, authorize(t, session), "%q", c.lines)
	}
}

// What cannot be sent back is no nonce; the count of the old one goes on.
func TestDigestIgnoresAHostileNextnonce(t *testing.T) {
	d := &Digest{Username: "Mufasa", Password: "Circle of Life"}
	session := answer(t, d, with())
	authorize(t, session)
	for i, hostile := range []string{`nextnonce=""`, "nextnonce=\"a\nb\"", "nextnonce=\x00", `nextnonce="` + strings.Repeat("n", 1<<20) + `"`,
		`nextnonce="unclosed`, `nextnonce`, `=,"=`, `nextnonce=`, strings.Repeat(`"\`, 1<<16), strings.Repeat("=,", 1<<16)} {
		require.NoError(t, learn(session, newInfo(hostile)))
		require.Regexp(t, fmt.Sprintf(`nonce="n1", uri="/a/b", .* nc=%08x,`, i+2), authorize(t, session), "%.40q", hostile)
	}
}

// What a proxy has got from a server of its own may be passed on beside what the origin says, or in its place.
func TestDigestLeavesANextnonceOfOthers(t *testing.T) {
	// Computed with sha256sum, for GET https://example.com/a/b.
	const right = "3fbf34e110098609246bea9877c3713e9ee2302e01132e9c953f72b30fd8f5b0"
	const proxy, origin = `nextnonce="proxy", cnonce="not ours", nc=00000001`, `nextnonce="n2", cnonce="c1"`
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{[]string{origin}, "n2 1"},
		{[]string{origin + `, cnonce="not the first"`}, "n2 1"},
		{[]string{proxy}, "n1 2"},
		{[]string{`cnonce="not ours", nextnonce="proxy"`}, "n1 2"},
		{[]string{proxy, origin}, "n2 1"},
		{[]string{origin, proxy}, "n2 1"},
		{[]string{proxy, `nextnonce="n2"`}, "n2 1"},
		{[]string{proxy, `rspauth="` + right + `", nextnonce="n2"`}, "n2 1"},
		{[]string{proxy + `, rspauth="` + right + `"`}, "n1 2"},
		{[]string{`nextnonce="proxy", rspauth="wrong"`}, "n1 2"},
		{[]string{`nextnonce="proxy"`, `rspauth="wrong"`}, "n1 2"},
		{[]string{`nextnonce="n2", rspauth=""`}, "n2 1"},
	} {
		for _, listening := range []bool{true, false} {
			session := answer(t, &Digest{Username: "Mufasa", Password: "Circle of Life", cnonce: func() string { return "c1" }}, with())
			resp := newInfo(c.lines...)
			resp.Request = newDigestRequest(t, "GET", "https://example.com/a/b")
			if listening {
				resp.Request = resp.Request.WithContext(withListener(t.Context(), func(context.Context, Event) {}))
			}
			require.NoError(t, session.Authorize(resp.Request))
			require.NoError(t, learn(session, resp))
			require.Equal(t, c.want, nonceCount(t, session), "%q", c.lines)
		}
	}

	// What comes with a proxy's refusal is the proxy's, whatever header it is in.
	session := answer(t, &Digest{Username: "Mufasa"}, with())
	authorize(t, session)
	resp := newInfo(`nextnonce="proxy"`)
	resp.StatusCode = http.StatusProxyAuthRequired
	require.NoError(t, learn(session, resp))
	require.Equal(t, "n1 2", nonceCount(t, session))

	// The rspauth of auth-int is not checked.
	session = answer(t, &Digest{Username: "Mufasa"}, with("qop", "auth-int"))
	authorize(t, session)
	require.NoError(t, learn(session, newInfo(`nextnonce="n2", rspauth="wrong"`)))
	require.Equal(t, "n2 1", nonceCount(t, session))

	// Nor is one that fails taken up before the request fails.
	session = answer(t, &Digest{Username: "Mufasa", RequireMutualAuth: true}, with())
	authorize(t, session)
	require.ErrorIs(t, learn(session, newInfo(`nextnonce="n2"`)), ErrMutualAuth)
	require.Equal(t, "n1 2", nonceCount(t, session))
}

// refuse lets a session learn from a refusal with that WWW-Authenticate.
func refuse(t testing.TB, s Learner, lines ...string) (keep bool) {
	t.Helper()
	keep, err := s.Learn(&http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": lines}}, true)
	require.NoError(t, err)
	return keep
}

func TestDigestLearnsFromARefusal(t *testing.T) {
	const forgotten = true
	for _, c := range []struct {
		name       string
		challenged map[string]string // at first
		mutual     bool
		accepted   bool // before the refusal
		refusal    []string
		keep       bool
		want       string // in the next Authorization
		hint       bool
	}{
		{name: "stale", refusal: []string{`Digest realm="lab", nonce="n2", qop="auth", algorithm=SHA-256, opaque="o2", stale=true`},
			keep: true, want: `nonce="n2", .* nc=00000001, .*, opaque="o2", algorithm=SHA-256$`},
		{name: "stale, and accepted before", accepted: true, refusal: []string{`Digest realm="lab", nonce="n2", qop="auth", algorithm=SHA-256, stale="TRUE"`},
			keep: true, want: `nonce="n2", .* nc=00000001, qop=auth, response="[^"]*", algorithm=SHA-256$`},
		{name: "stale, but the same nonce", refusal: []string{`Digest realm="lab", nonce="n1", qop="auth", algorithm=SHA-256, opaque="o2", stale=true`},
			keep: true, want: `nonce="n1", .* nc=00000002, .* opaque="o2"`},
		{name: "accepted before", accepted: true, refusal: []string{`Digest realm="lab", nonce="n2", qop="auth", algorithm=SHA-256, opaque="o2"`},
			keep: true, want: `nonce="n2", .* nc=00000001, .* opaque="o2"`, hint: forgotten},
		{name: "accepted before, and the same nonce", accepted: true, refusal: []string{`Digest realm="lab", nonce="n1", qop="auth", algorithm=SHA-256, stale=false`},
			keep: true, want: `nonce="n1", .* nc=00000003,`, hint: forgotten},
		{name: "not accepted before", refusal: []string{`Digest realm="lab", nonce="n2", qop="auth", algorithm=SHA-256, opaque="o2"`},
			want: `nonce="n1", .* nc=00000002,`},
		{name: "among others", refusal: []string{`Basic realm="lab"`, `Digest realm="attic", nonce="n3", qop="auth", algorithm=SHA-256, stale=true, Digest realm="lab", nonce="n3", qop="auth", stale=true`,
			`digest realm="lab", nonce="n2", qop="auth", algorithm=sha-256, stale=true`}, keep: true, want: `nonce="n2", .*, algorithm=sha-256$`},
		{name: "another realm", accepted: true, refusal: []string{`Digest realm="attic", nonce="n2", qop="auth", algorithm=SHA-256, stale=true`}, want: `nonce="n1"`},
		{name: "another algorithm", accepted: true, refusal: []string{`Digest realm="lab", nonce="n2", qop="auth", algorithm=MD5, stale=true`}, want: `nonce="n1"`},
		{name: "-sess", accepted: true, refusal: []string{`Digest realm="lab", nonce="n2", qop="auth", algorithm=SHA-256-sess, stale=true`}, want: `nonce="n1"`},
		{name: "no -sess", challenged: with("algorithm", "MD5-sess"), refusal: []string{`Digest realm="lab", nonce="n2", qop="auth", stale=true`}, want: `nonce="n1"`},
		{name: "-sess stays", challenged: with("algorithm", "MD5-sess"), refusal: []string{`Digest realm="lab", nonce="n2", qop="auth", algorithm=MD5-sess, stale=true`}, keep: true, want: `nonce="n2"`},
		{name: "userhash", refusal: []string{`Digest realm="lab", nonce="n2", qop="auth", algorithm=SHA-256, userhash=true, stale=true`}, want: `nonce="n1"`},
		{name: "userhash stays", challenged: with("userhash", "true"), refusal: []string{`Digest realm="lab", nonce="n2", qop="auth", algorithm=SHA-256, userhash=true, stale=true`},
			keep: true, want: `nonce="n2".* userhash=true$`},
		{name: "no qop any more", refusal: []string{`Digest realm="lab", nonce="n2", algorithm=SHA-256, stale=true`}, keep: true, want: `nonce="n2", uri="/a/b", response=`},
		{name: "auth-int from now on", refusal: []string{`Digest realm="lab", nonce="n2", qop="auth-int", algorithm=SHA-256, stale=true`}, keep: true, want: `qop=auth-int`},
		{name: "nothing to check the server by", mutual: true, refusal: []string{`Digest realm="lab", nonce="n2", qop="auth-int", algorithm=SHA-256, stale=true`}, want: `nonce="n1"`},
		{name: "with the server's proof", mutual: true, refusal: []string{`Digest realm="lab", nonce="n2", qop="auth", algorithm=SHA-256, stale=true`}, keep: true, want: `nonce="n2"`},
		{name: "no challenge", accepted: true, want: `nonce="n1"`},
		{name: "no challenge of ours", accepted: true, refusal: []string{`Basic realm="lab"`, `Bearer`}, want: `nonce="n1"`},
		{name: "no nonce", accepted: true, refusal: []string{`Digest realm="lab", qop="auth", algorithm=SHA-256, stale=true`}, want: `nonce="n1"`},
		{name: "nothing that can be answered", accepted: true, refusal: []string{`Digest realm="lab", nonce="n2", qop="auth-conf", algorithm=SHA-256, stale=true`}, want: `nonce="n1"`},
		{name: "a nonce of 1 MiB", accepted: true, refusal: []string{`Digest realm="lab", nonce="` + strings.Repeat("n", 1<<20) + `", qop="auth", algorithm=SHA-256, stale=true`}, want: `nonce="n1"`},
		{name: "an opaque of 1 MiB", accepted: true, refusal: []string{`Digest realm="lab", nonce="n2", opaque="` + strings.Repeat("o", 1<<20) + `", qop="auth", algorithm=SHA-256, stale=true`}, want: `nonce="n1"`},
		{name: "1 MiB of commas", accepted: true, refusal: []string{strings.Repeat(`Digest ,`, 1<<17)}, want: `nonce="n1"`},
		{name: "after more than anybody reads", refusal: []string{strings.Repeat(`Basic,`, maxChallenges) + `Digest realm="lab", nonce="n2", qop="auth", algorithm=SHA-256, stale=true`}, want: `nonce="n1"`},
		{name: "control characters", refusal: []string{"Digest realm=\"lab\", nonce=\"n\r\n2\x00\", opaque=\"\x7f\", qop=\"auth\", algorithm=SHA-256, stale=true"},
			keep: true, want: `nonce="n  2 ", .* opaque=" "`},
		{name: "quotes", refusal: []string{`Digest realm="lab", nonce="n\"2\\", opaque="\\\"", qop="auth", algorithm=SHA-256, stale=true`},
			keep: true, want: regexp.QuoteMeta(`nonce="n\"2\\", `) + `.*` + regexp.QuoteMeta(` opaque="\\\""`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.challenged == nil {
				c.challenged = with()
			}
			var n nonces
			d := &Digest{Username: "Mufasa", Password: "Circle of Life", RequireMutualAuth: c.mutual}
			session := answerIn(t, &n, d, "https://example.com/a/b", c.challenged)
			authorize(t, session)
			if c.accepted {
				require.NoError(t, learn(session, newInfo()))
				authorize(t, session)
			}
			require.Equal(t, c.keep, refuse(t, session, c.refusal...))
			require.Equal(t, c.hint, session.refusedHint() != nil)
			header := authorize(t, session)
			require.Regexp(t, c.want, header)
			require.False(t, hasControl(header), "%q", header)
			verifyAuthorization(t, header, "Mufasa", "Circle of Life", "GET", "/a/b", "")
		})
	}
}

// What is to be kept is decided by what these credentials have come to with this nonce, and for the last time.
func TestDigestKeepsASessionOnlyWhileItsCredentialsAreGood(t *testing.T) {
	const url, again = "https://example.com/a/b", `Digest realm="lab", nonce="n1", qop="auth", algorithm=SHA-256`
	mufasa, scar := &Digest{Username: "Mufasa", Password: "Circle of Life"}, &Digest{Username: "Scar", Password: "wrong"}
	var n nonces
	good, bad := answerIn(t, &n, mufasa, url, with()), answerIn(t, &n, scar, url, with())
	use := func(s *digestSession, accepted bool) (keep bool) {
		authorize(t, s)
		if accepted {
			require.NoError(t, learn(s, newInfo()))
			return true
		}
		return refuse(t, s, again)
	}
	require.True(t, use(good, true))
	require.False(t, use(bad, false), "the nonce was good for somebody else")
	require.NoError(t, bad.refusedHint())
	require.True(t, use(good, false), "overtaken, perhaps")
	require.False(t, use(answerIn(t, &n, mufasa, url, with()), false), "the password has changed, perhaps")
	require.False(t, use(good, false))
	require.True(t, use(good, true))
	require.True(t, use(answerIn(t, &n, mufasa, url, with()), false), "it was good again")

	// Neither status says that the server has looked at the credentials and found them good.
	for _, status := range []int{401, 407} {
		session := answerIn(t, &nonces{}, mufasa, url, with())
		authorize(t, session)
		_, err := session.Learn(&http.Response{StatusCode: status}, false)
		require.NoError(t, err)
		require.False(t, use(session, false), status)
	}
}

// The session that is refused at last is not the one whose nonce the server has forgotten: that one was refused before.
func TestDigestHintsAtAServerThatKeepsFewNonces(t *testing.T) {
	const url = "https://example.com/a/b"
	d := &Digest{Username: "Mufasa", Password: "Circle of Life"}
	offer := func(nonce string) string {
		return `Digest realm="lab", nonce="` + nonce + `", qop="auth", algorithm=SHA-256`
	}
	var n nonces
	first := answerIn(t, &n, d, url, with("nonce", "a"))
	authorize(t, first)
	require.NoError(t, learn(first, newInfo()))
	authorize(t, first)
	require.True(t, refuse(t, first, offer("b")))
	second := answerIn(t, &n, d, url, with("nonce", "b"))
	require.Equal(t, "b 1", nonceCount(t, second))
	require.False(t, refuse(t, second, offer("c")))
	for _, s := range []interface{ refusedHint() error }{first, second} {
		require.ErrorContains(t, s.refusedHint(), "AuthDigestShmemSize")
	}

	// The next refusal of credentials that were never accepted is an ordinary one.
	third := answerIn(t, &n, d, url, with("nonce", "c"))
	authorize(t, third)
	require.False(t, refuse(t, third, offer("d")))
	require.NoError(t, third.refusedHint())

	// A wrong password has no part in that, nor has one that is called stale.
	stranger := answerIn(t, &n, &Digest{Username: "Mufasa", Password: "wrong"}, url, with("nonce", "b"))
	authorize(t, stranger)
	require.False(t, refuse(t, stranger, offer("e")))
	require.NoError(t, stranger.refusedHint())
	require.True(t, refuse(t, second, offer("f")+", stale=true"))
	require.NoError(t, second.refusedHint())
}

// FuzzAuthenticationInfo reads hostile headers, of answers and of refusals: the session must stay fit for use, and be
// right.
func FuzzAuthenticationInfo(f *testing.F) {
	f.Add(`nextnonce="n2", qop=auth, rspauth="6629fae49393a05397450978507c4ef1", cnonce="c1", nc=00000001`, "")
	f.Add(`NEXTNONCE = "a\"b\\" ,, rspauth=`, `nextnonce=second;line, nc="00000001"`)
	f.Add(`nextnonce="unclosed`, `rspauth="\`)
	f.Add(`=,"=",a="b"c,nextnonce=`+"n\x00", "nextnonce=\t n\t")
	f.Add(`Digest realm="lab", nonce="n1", nextnonce=n2, opaque="o\"2", algorithm=MD5-sess, qop=auth, stale=true`, `cnonce="c"`)
	f.Add("Digest realm=lab, nonce=\"\r\n\", algorithm=md5-SESS, qop=auth-int, STALE=True", `nextnonce="n1"`)
	f.Fuzz(func(t *testing.T, line1, line2 string) {
		var n nonces
		req := newDigestRequest(t, "GET", "https://example.com/a/b")
		reported := 0
		req = req.WithContext(withListener(t.Context(), func(context.Context, Event) { reported++ }))
		sent := make(map[string]bool)
		var sessions []*digestSession
		for range 2 {
			sessions = append(sessions, answerIn(t, &n, &Digest{Username: "Mufasa", Password: "Circle of Life"}, req.URL.String(), with("algorithm", "MD5-sess")))
		}
		for range 3 {
			for _, session := range sessions {
				require.NoError(t, session.Authorize(req))
				header := req.Header.Get("Authorization")
				require.False(t, hasControl(header), "%q", header)
				require.False(t, sent[header], "%q was sent before", header)
				sent[header] = true
				verifyAuthorization(t, header, "Mufasa", "Circle of Life", "GET", "/a/b", "")

				before, checked := reported, session.qop == qopAuth
				require.NoError(t, learn(session, &http.Response{Request: req, Header: http.Header{"Authentication-Info": {line1, line2}}}))
				require.Equal(t, checked, reported == before+1, "nobody can guess rspauth")
				refuse(t, session, line1, line2)
			}
		}
	})
}

// Only a Digest challenge goes on with a Digest session, whatever parameters another scheme has.
func TestDigestLeavesAChallengeOfAnotherScheme(t *testing.T) {
	for scheme, want := range map[string]bool{"Digest": true, "DIGEST": true, "Other": false} {
		session := answer(t, &Digest{Username: "Mufasa", Password: "p"}, with())
		authorize(t, session)
		require.Equal(t, want, refuse(t, session, scheme+` realm="lab", nonce="n2", qop="auth", algorithm=SHA-256, stale=true`), scheme)
	}
}

// What does not follow the grammar has no value: a word after a space is none.
func TestAuthenticationInfoWithoutEquals(t *testing.T) {
	for _, line := range []string{`nextnonce "n2"`, `nextnonce n2`, `nextnonce`} {
		require.Empty(t, readAuthInfo([]string{line}, "c").nextnonce, line)
	}
	require.Equal(t, "n2", readAuthInfo([]string{`nextnonce = "n2"`}, "c").nextnonce)
}

func TestDigestSessionCountsItsSpace(t *testing.T) {
	domain := "/docs/ /" + strings.Repeat("x", 1000) + "/"
	whole, part := answer(t, &Digest{Username: "u", Password: "p"}, with()), answer(t, &Digest{Username: "u", Password: "p"}, with("domain", domain))
	require.Greater(t, part.size(), whole.size()+1000, "so that it counts for what is remembered")
}

func TestDigestURIOfCONNECT(t *testing.T) {
	for want, req := range map[string]*http.Request{
		"a.test:443": {Method: "CONNECT", URL: &url.URL{Opaque: "a.test:443"}, Host: "other:1"},
		"b.test:443": {Method: "CONNECT", URL: &url.URL{Host: "other:1"}, Host: "b.test:443"},
		"c.test:443": {Method: "CONNECT", URL: &url.URL{Host: "c.test:443"}},
		"/d":         {Method: "CONNECT", URL: &url.URL{Host: "other:1", Path: "/d"}},
	} {
		require.Equal(t, want, digestURI(req))
	}
}
