package authtest

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

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
