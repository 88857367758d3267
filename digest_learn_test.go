package authretry

import (
	"context"
	"fmt"
	"net/http"
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

	// The rspauth of auth-int is not checked.
	session := answer(t, &Digest{Username: "Mufasa"}, with("qop", "auth-int"))
	authorize(t, session)
	require.NoError(t, learn(session, newInfo(`nextnonce="n2", rspauth="wrong"`)))
	require.Equal(t, "n2 1", nonceCount(t, session))

	// Nor is one that fails taken up before the request fails.
	session = answer(t, &Digest{Username: "Mufasa", RequireMutualAuth: true}, with())
	authorize(t, session)
	require.ErrorIs(t, learn(session, newInfo(`nextnonce="n2"`)), ErrMutualAuth)
	require.Equal(t, "n1 2", nonceCount(t, session))
}

// FuzzAuthenticationInfo reads hostile headers, the session must stay fit for use, and be
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
			}
		}
	})
}
