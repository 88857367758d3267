package authtest

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

// A digestClient computes Digest credentials by the letter of RFC 7616, for one challenge.
type digestClient struct {
	user, password          string
	realm, nonce, opaque    string
	algorithm, qop, cnonce  string
	nc                      int
	userhash, extendedName  bool
	body                    string // for auth-int
	lastA1, lastURI, lastNC string
}

func (c *digestClient) h(s string) string {
	switch strings.TrimSuffix(c.algorithm, "-sess") {
	case "SHA-256":
		return fmt.Sprintf("%x", sha256.Sum256([]byte(s)))
	case "SHA-512-256":
		return fmt.Sprintf("%x", sha512.Sum512_256([]byte(s)))
	}
	return fmt.Sprintf("%x", md5.Sum([]byte(s)))
}

// answer takes up a challenge.
func (c *digestClient) answer(challenge string) {
	get := func(name string) string {
		m := regexp.MustCompile(`[ ,]` + name + `=(?:"((?:[^"\\]|\\.)*)"|([^", ]+))`).FindStringSubmatch(challenge)
		if m == nil {
			return ""
		}
		return regexp.MustCompile(`\\(.)`).ReplaceAllString(m[1]+m[2], "$1")
	}
	c.realm, c.nonce, c.opaque = get("realm"), get("nonce"), get("opaque")
	c.algorithm, c.qop, c.nc = get("algorithm"), strings.Split(get("qop"), ",")[0], 0
	c.userhash = get("userhash") == "true"
	c.cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
}

// authorization returns the header for the next request.
func (c *digestClient) authorization(method, uri string) string {
	c.nc++
	nc := fmt.Sprintf("%08x", c.nc)
	a1 := c.h(c.user + ":" + c.realm + ":" + c.password)
	if strings.HasSuffix(c.algorithm, "-sess") {
		a1 = c.h(a1 + ":" + c.nonce + ":" + c.cnonce)
	}
	a2 := method + ":" + uri
	if c.qop == "auth-int" {
		a2 += ":" + c.h(c.body)
	}
	response := c.h(a1 + ":" + c.nonce + ":" + nc + ":" + c.cnonce + ":" + c.qop + ":" + c.h(a2))
	if c.qop == "" {
		response = c.h(a1 + ":" + c.nonce + ":" + c.h(a2))
	}
	c.lastA1, c.lastURI, c.lastNC = a1, uri, nc

	username := `username="` + c.user + `"`
	if c.userhash {
		username = `userhash=true, username="` + c.h(c.user+":"+c.realm) + `"`
	} else if c.extendedName {
		username = "username*=UTF-8''" + strings.ReplaceAll(fmt.Sprintf("% x", c.user), " ", "%")
		username = strings.Replace(username, "''", "''%", 1)
	}
	s := fmt.Sprintf(`Digest %s, realm="%s", nonce="%s", uri="%s", response="%s"`, username,
		strings.ReplaceAll(c.realm, `"`, `\"`), c.nonce, uri, response)
	if c.algorithm != "" {
		s += ", algorithm=" + c.algorithm
	}
	if c.opaque != "" {
		s += fmt.Sprintf(`, opaque="%s"`, c.opaque)
	}
	if c.qop != "" || strings.HasSuffix(c.algorithm, "-sess") {
		s += fmt.Sprintf(`, cnonce="%s"`, c.cnonce)
	}
	if c.qop != "" {
		s += fmt.Sprintf(`, qop=%s, nc=%s`, c.qop, nc)
	}
	return s
}

// rspauth returns what the server must answer with.
func (c *digestClient) rspauth(body string) string {
	a2 := ":" + c.lastURI
	if c.qop == "auth-int" {
		a2 += ":" + c.h(body)
	}
	return c.h(c.lastA1 + ":" + c.nonce + ":" + c.lastNC + ":" + c.cnonce + ":" + c.qop + ":" + c.h(a2))
}

func TestDigestAcceptsEveryForm(t *testing.T) {
	for _, algorithm := range []string{"", "MD5", "SHA-256", "SHA-512-256", "MD5-sess", "SHA-256-sess", "SHA-512-256-sess"} {
		for _, qop := range []string{"", "auth", "auth-int", NoQOP} {
			for _, userhash := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s %t", algorithm, qop, userhash), func(t *testing.T) {
					guard := &Digest{
						Username: "Jäsøn Doe", Password: "Secret, or not?", Realm: `a "quoted" realm`, Opaque: `HRPC`,
						Algorithms: []string{algorithm}, QOP: qop, Userhash: userhash, UTF8: true, Domain: "/a /b",
					}
					srv := NewServer(guard)
					defer srv.Close()
					challenge := send(t, srv, "PUT", "/a?b=c", "body", nil).Header.Get("WWW-Authenticate")
					require.Contains(t, challenge, `realm="a \"quoted\" realm"`)
					require.Contains(t, challenge, `domain="/a /b"`)

					c := &digestClient{user: guard.Username, password: guard.Password, body: "body"}
					c.answer(challenge)
					c.extendedName = !userhash
					for range 3 {
						resp := send(t, srv, "PUT", "/a?b=c", "body", auth(c.authorization("PUT", "/a?b=c")))
						require.Equal(t, 200, resp.StatusCode, "%v", srv.Requests())
						require.Equal(t, "4", resp.Header.Get(BodyLengthHeader))
						info := resp.Header.Get("Authentication-Info")
						if qop == NoQOP {
							require.Empty(t, info)
							continue
						}
						require.Contains(t, info, `rspauth="`+c.rspauth("ok\n")+`"`)
						require.Contains(t, info, "nc="+c.lastNC)
					}
					wrong := *c
					wrong.password = "wrong"
					resp := send(t, srv, "PUT", "/a?b=c", "body", auth(wrong.authorization("PUT", "/a?b=c")))
					require.Equal(t, 401, resp.StatusCode)
					require.NotContains(t, resp.Header.Get("WWW-Authenticate"), "stale")
					require.Empty(t, guard.NonceErrors())
				})
			}
		}
	}
}

// The example of RFC 7616 §3.9.1, to the last digit.
func TestDigestVectors(t *testing.T) {
	const nonceValue = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
	for algorithm, response := range map[string]string{
		"MD5":     "8ca523f5e9506fed4657c9700eebdbec",
		"SHA-256": "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
	} {
		t.Run(algorithm, func(t *testing.T) {
			guard := &Digest{
				Username: "Mufasa", Password: "Circle of Life", Realm: "http-auth@example.org", QOP: "auth, auth-int",
				Algorithms: []string{"SHA-256", "MD5"}, Opaque: "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
			}
			guard.nonces.put(nonceValue, &nonce{})
			srv := NewServer(guard)
			defer srv.Close()
			header := `Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm=` +
				algorithm + `, nonce="` + nonceValue + `", nc=00000001,
				cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop=auth, response="` + response + `",
				opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`
			header = regexp.MustCompile(`\s+`).ReplaceAllString(header, " ")
			damaged := strings.Replace(header, response[:4], "0000", 1)
			require.Equal(t, 401, send(t, srv, "GET", "/dir/index.html", "", auth(damaged)).StatusCode)
			require.Equal(t, 200, send(t, srv, "GET", "/dir/index.html", "", auth(header)).StatusCode)
		})
	}
}

func auth(value string) http.Header { return http.Header{"Authorization": {value}} }

// newDigest starts a server with the guard, and a client that has answered its challenge.
func newDigest(t *testing.T, guard *Digest) (*Server, *digestClient) {
	guard.Username, guard.Password = "Mufasa", "Circle of Life"
	srv := NewServer(guard)
	t.Cleanup(srv.Close)
	c := &digestClient{user: guard.Username, password: guard.Password}
	c.answer(send(t, srv, "GET", "/", "", nil).Header.Get("WWW-Authenticate"))
	return srv, c
}

// ask sends a request with the next credentials of c and says what came back: "200", "401" or "401 stale".
func ask(t *testing.T, srv *Server, c *digestClient) string {
	t.Helper()
	resp := send(t, srv, "GET", "/", "", auth(c.authorization("GET", "/")))
	if challenge := resp.Header.Get("WWW-Authenticate"); strings.Contains(challenge, "stale=true") {
		return "401 stale"
	}
	return strconv.Itoa(resp.StatusCode)
}

func TestDigestNonceCounts(t *testing.T) {
	counts := []int{1, 2, 2, 3, 5, 4, 6, 1, 7}
	for _, c := range []struct {
		name  string
		guard *Digest
		want  string
	}{
		{"in order", &Digest{}, "200 200 401 200 401 200 401 401 401"},
		{"in order, stale", &Digest{StaleOnNC: true}, "200 200 401s 401s 401s 401s 401s 401s 401s"},
		{"window of 3", &Digest{NonceWindow: 3}, "200 200 401 200 200 200 200 401 200"},
		{"not looked at", &Digest{NonceWindow: -1}, "200 200 200 200 200 200 200 200 200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			guard := c.guard
			srv, client := newDigest(t, guard)
			var got []string
			for _, nc := range counts {
				client.nc = nc - 1
				got = append(got, strings.Replace(ask(t, srv, client), " stale", "s", 1))
			}
			require.Equal(t, c.want, strings.Join(got, " "))
			require.NotEmpty(t, guard.NonceErrors(), "every repeat and gap is recorded, refused or not")
			require.Equal(t, NonceError{Nonce: client.nonce, Got: 2, Want: 3}, guard.NonceErrors()[0])
			require.Equal(t, "nc 2 where 3 was next", guard.NonceErrors()[0].String())
		})
	}
}

func TestDigestWindowStaysBounded(t *testing.T) {
	guard := &Digest{NonceWindow: 10}
	n := &nonce{}
	for nc := range uint32(1000) {
		_, bad := guard.count(n, digestCredentials{nc: nc + 1})
		require.False(t, bad)
	}
	require.LessOrEqual(t, len(n.seen), 22)
	_, bad := guard.count(n, digestCredentials{nc: 990})
	require.True(t, bad)
}

func TestDigestGoStale(t *testing.T) {
	guard := &Digest{}
	srv, c := newDigest(t, guard)
	require.Equal(t, "200", ask(t, srv, c))
	guard.GoStale()

	wrong := *c
	wrong.password = "wrong"
	require.Equal(t, "401", ask(t, srv, &wrong), "stale=true is for those who know the password")
	require.Equal(t, "401 stale", ask(t, srv, c))
	require.Equal(t, "the nonce is stale", srv.Requests()[3].Reason)

	c.nonce, c.nc = "made-up", 0
	require.Equal(t, "401 stale", ask(t, srv, c))
}

func TestDigestSetPassword(t *testing.T) {
	guard := &Digest{}
	srv, c := newDigest(t, guard)
	guard.SetPassword("new")
	require.Equal(t, "401", ask(t, srv, c))
	c.password, c.nc = "new", 0
	require.Equal(t, "200", ask(t, srv, c))
}

func TestDigestNonceUses(t *testing.T) {
	srv, c := newDigest(t, &Digest{NonceUses: 2})
	require.Equal(t, "200", ask(t, srv, c))
	require.Equal(t, "200", ask(t, srv, c))
	require.Equal(t, "401 stale", ask(t, srv, c))
}

func TestDigestNextNonce(t *testing.T) {
	next := regexp.MustCompile(`nextnonce="([^"]*)"`)
	for _, c := range []struct {
		name string
		mode NextNonce
		want []bool // of three answers: has it a nextnonce?
	}{
		{"never", NextNonceNever, []bool{false, false, false}},
		{"always", NextNonceAlways, []bool{true, true, true}},
		{"near the end", NextNonceNearEnd, []bool{false, true, true}},
		{"the same", NextNonceSame, []bool{true, true, true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			guard := &Digest{NextNonce: c.mode, NonceUses: 3}
			srv, client := newDigest(t, guard)
			var last string
			for _, want := range c.want {
				resp := send(t, srv, "GET", "/", "", auth(client.authorization("GET", "/")))
				require.Equal(t, 200, resp.StatusCode)
				m := next.FindStringSubmatch(resp.Header.Get("Authentication-Info"))
				require.Equal(t, want, m != nil)
				if want {
					require.Equal(t, c.mode == NextNonceSame, m[1] == client.nonce)
					last = m[1]
				}
			}
			if c.mode == NextNonceAlways || c.mode == NextNonceNearEnd {
				client.nonce, client.nc = last, 0
				require.Equal(t, "200", ask(t, srv, client))
			}
			require.Empty(t, guard.NonceErrors())
			require.Equal(t, 1, srv.Counts().Challenged)
		})
	}
}

func TestDigestRspauth(t *testing.T) {
	srv, c := newDigest(t, &Digest{Rspauth: RspauthWrong})
	resp := send(t, srv, "GET", "/", "", auth(c.authorization("GET", "/")))
	require.Regexp(t, `rspauth="[0-9a-f]{64}"`, resp.Header.Get("Authentication-Info"))
	require.NotContains(t, resp.Header.Get("Authentication-Info"), c.rspauth(""))

	srv, c = newDigest(t, &Digest{Rspauth: RspauthMissing})
	require.Empty(t, send(t, srv, "GET", "/", "", auth(c.authorization("GET", "/"))).Header.Get("Authentication-Info"))

	// The answer to HEAD has no body, so auth-int covers none.
	srv, c = newDigest(t, &Digest{QOP: "auth-int"})
	resp = send(t, srv, "HEAD", "/", "", auth(c.authorization("HEAD", "/")))
	require.Equal(t, 200, resp.StatusCode)
	require.Contains(t, resp.Header.Get("Authentication-Info"), c.rspauth(""))
}

func TestDigestChallenges(t *testing.T) {
	srv := NewServer(&Digest{Realm: `a "b" \c`, RawRealm: true, Algorithms: []string{"SHA-256", ""}, QOP: NoQOP})
	defer srv.Close()
	challenges := send(t, srv, "GET", "/", "", nil).Header["Www-Authenticate"]
	require.Len(t, challenges, 2)
	require.Regexp(t, `^Digest realm="a "b" \\c", nonce="[A-Z2-7]+", algorithm=SHA-256$`, challenges[0])
	require.Regexp(t, `^Digest realm="a "b" \\c", nonce="[A-Z2-7]+"$`, challenges[1])
	require.Panics(t, func() { NewServer(&Digest{Algorithms: []string{"SHA-1"}}) })
}

func TestDigestRefusesMistakes(t *testing.T) {
	guard := &Digest{Opaque: "xyz", Algorithms: []string{"SHA-256", "SHA-256-sess"}}
	srv, c := newDigest(t, guard)
	good := c.authorization("GET", "/")
	for _, test := range []struct{ old, new, reason string }{
		{`username="Mufasa"`, `username="Scar"`, "wrong user name"},
		{`username="Mufasa"`, `username="Mufasa", username*=UTF-8''Mufasa`, "there must be either username or username*"},
		{`username="Mufasa", `, ``, "there must be either username or username*"},
		{`username="Mufasa"`, `username*="UTF-8''Mufasa"`, "username* must not be quoted (RFC 7616 §3.4)"},
		{`username="Mufasa"`, `username*=Mufasa`, "username* is not an ext-value (RFC 8187 §3.2)"},
		{`username="Mufasa"`, `username*=UTF-8''Mufasa, userhash=true`, "username* must not be used with userhash (RFC 7616 §3.4)"},
		{`username="Mufasa"`, `username="Mufasa", userhash=true`, "userhash was not offered"},
		{`realm="authtest"`, `realm="other"`, "the realm is not the challenge's"},
		{`realm="authtest", `, ``, "realm is missing"},
		{`realm="authtest"`, `realm="authtest", Realm="authtest"`, "realm is repeated"},
		{`uri="/"`, `uri="/other"`, "uri is not the request's target"},
		{`uri="/"`, `uri=x`, "uri must be quoted (RFC 7616 §3.4)"},
		{`opaque="xyz"`, `opaque="abc"`, "opaque is not the challenge's"},
		{`algorithm=SHA-256`, `algorithm="SHA-256"`, "algorithm must not be quoted (RFC 7616 §3.4)"},
		{`algorithm=SHA-256`, `algorithm=MD5`, "the algorithm was not offered"},
		{`algorithm=SHA-256`, `algorithm=SHA-1`, "the algorithm is not known"},
		{`algorithm=SHA-256, `, ``, "algorithm is missing, which the challenge names (RFC 7616 §3.4)"},
		{`qop=auth`, `qop=auth-int`, "the qop was not offered"},
		{`qop=auth, `, ``, "nc without qop (RFC 7616 §3.4)"},
		{`, qop=auth, nc=00000001`, ``, "the qop was not offered"},
		{`nc=00000001`, `nc=1`, "nc is not eight lower-case hex digits"},
		{`nc=00000001`, `nc=0000000A`, "nc is not eight lower-case hex digits"},
		{`nc=00000001`, `nc=0000000g`, "nc is not eight lower-case hex digits"},
		{`nc=00000001`, `nc="00000001"`, "nc must not be quoted (RFC 7616 §3.4)"},
		{`nc=00000001`, `nc=00000002`, "the response is wrong: another password, or a mistake in the computation"},
		{`cnonce="`, `x="`, "cnonce is missing"},
		{`Digest `, `Digest =`, errParams.Error()},
		{`Digest `, `Digest a"b", `, errParams.Error()},
		{`Digest `, `Digest a="b" c`, errParams.Error()},
		{`Digest `, `Digest a=;, `, errParams.Error()},
		{`opaque="xyz"`, `opaque="xyz`, errParams.Error()},
		{good, `Digest x="\`, errParams.Error()},
	} {
		t.Run(test.new, func(t *testing.T) {
			require.Contains(t, good, test.old)
			srv.Reset()
			resp := send(t, srv, "GET", "/", "", auth(strings.Replace(good, test.old, test.new, 1)))
			require.Equal(t, 401, resp.StatusCode)
			require.Equal(t, test.reason, srv.Requests()[0].Reason)
			require.NotContains(t, resp.Header.Get("WWW-Authenticate"), "stale")
		})
	}
	require.Equal(t, 200, send(t, srv, "GET", "/", "", auth(good)).StatusCode, "none of them has used up the nonce")
}

// Session keys keep the first cnonce of a nonce (RFC 7616 §3.4.2).
func TestDigestSessKeepsCnonce(t *testing.T) {
	srv, c := newDigest(t, &Digest{Algorithms: []string{"SHA-256-sess"}})
	require.Equal(t, "200", ask(t, srv, c))
	c.cnonce = "another"
	require.Equal(t, "401", ask(t, srv, c))
}

func TestDigestForgetsOldNonces(t *testing.T) {
	guard := &Digest{}
	first := guard.newNonce()
	var last string
	for range maxRemembered {
		last = guard.newNonce()
	}
	require.Len(t, guard.nonces.values, maxRemembered)
	_, ok := guard.nonces.get(first)
	require.False(t, ok)
	_, ok = guard.nonces.get(last)
	require.True(t, ok)
}

// Ten thousand requests at once, a hundred for each nonce: all are accepted, and not one nonce count is wrong.
func TestDigestUnderLoad(t *testing.T) {
	guard := &Digest{Username: "u", Password: "p"}
	srv := NewServer(guard)
	defer srv.Close()
	srv.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 100
	var wg sync.WaitGroup
	clients, each := thorough.Or(100, 30), thorough.Or(100, 20)
	for range clients {
		wg.Go(func() {
			c := &digestClient{user: "u", password: "p"}
			for range each {
				header := http.Header{}
				if c.nonce != "" {
					header = auth(c.authorization("GET", "/"))
				}
				req, _ := http.NewRequest("GET", srv.URL, nil)
				req.Header = header
				resp, err := srv.Client().Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body) // so that the connection is used again
				resp.Body.Close()
				if c.nonce == "" {
					c.answer(resp.Header.Get("WWW-Authenticate"))
				}
			}
		})
	}
	wg.Wait()
	require.Empty(t, guard.NonceErrors())
	require.Equal(t, Counts{Requests: clients * each, Accepted: clients * (each - 1), Challenged: clients}, srv.Counts())
	require.Len(t, srv.Requests(), clients*each)
}
