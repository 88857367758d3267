package authtest

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

// What a sound server refuses, and what it does not, in credentials that are good otherwise.
func TestDigestJudgement(t *testing.T) {
	for _, c := range []struct {
		name     string
		guard    *Digest
		old, new string // in the header of a good client; the digest is computed anew over qop, nc and cnonce
		reason   string // "" if it is accepted
	}{
		{"nc of 0", &Digest{}, "nc=00000001", "nc=00000000", "nc is 00000000, and counting begins with 00000001 (RFC 7616 §3.4)"},
		{"nc of 0 in a window", &Digest{NonceWindow: 5}, "nc=00000001", "nc=00000000", "nc is 00000000, and counting begins with 00000001 (RFC 7616 §3.4)"},
		{"nc of 0 where nobody looks", &Digest{NonceWindow: -1}, "nc=00000001", "nc=00000000", "nc is 00000000, and counting begins with 00000001 (RFC 7616 §3.4)"},
		{"nc of 7 where nobody looks", &Digest{NonceWindow: -1}, "nc=00000001", "nc=00000007", ""},
		{"MD5 named, and left out", &Digest{Algorithms: []string{"MD5"}}, ", algorithm=MD5", "", "algorithm is missing, which the challenge names (RFC 7616 §3.4)"},
		{"MD5 named beside another, and left out", &Digest{Algorithms: []string{"MD5", "SHA-256"}}, ", algorithm=MD5", "", "algorithm is missing, which the challenge names (RFC 7616 §3.4)"},
		{"no algorithm named, and none sent", &Digest{Algorithms: []string{""}}, "", "", ""},
		{"no algorithm named, and MD5 sent", &Digest{Algorithms: []string{""}}, "nc=", "algorithm=MD5, nc=", ""},
		{"MD5 named with and without a word", &Digest{Algorithms: []string{"MD5", ""}}, ", algorithm=MD5", "", ""},
		{"algorithm in lower case", &Digest{}, "algorithm=SHA-256", "algorithm=sha-256", ""},
		{"only -sess for an algorithm", &Digest{Algorithms: []string{"MD5"}}, "algorithm=MD5", "algorithm=-sess", "the algorithm is not known"},
		{"userhash=maybe", &Digest{Userhash: true}, "userhash=true", "userhash=maybe", "userhash is neither true nor false (RFC 7616 §3.4)"},
		{"userhash=maybe, plain name", &Digest{}, "nc=", "userhash=maybe, nc=", "userhash is neither true nor false (RFC 7616 §3.4)"},
		{"userhash=false", &Digest{Userhash: false}, "nc=", "userhash=false, nc=", ""},
		{"userhash in quotes, which no RFC forbids", &Digest{Userhash: true}, "userhash=true", `userhash="true"`, ""},
		{"cnonce without qop", &Digest{QOP: NoQOP}, "uri=", `cnonce="x", uri=`, "cnonce without qop (RFC 2617 §3.2.2)"},
		{"empty cnonce without qop", &Digest{QOP: NoQOP}, "uri=", `cnonce="", uri=`, "cnonce is empty"},
		{"cnonce without qop for -sess", &Digest{QOP: NoQOP, Algorithms: []string{"MD5-sess"}}, "", "", ""},
		{"a qop that is offered and unknown", &Digest{QOP: "auth, x-new"}, "qop=auth", "qop=x-new", "the qop was not offered"},
		{"an unknown qop is offered too", &Digest{QOP: "auth, x-new"}, "", "", ""},
		{"response in upper case", &Digest{}, "response", "RESPONSE", "the response is wrong: another password, or a mistake in the computation"},
		{"username* with a raw quote", &Digest{}, `username="Mufasa"`, `username*=UTF-8''Mufasa'`, "username* is not an ext-value (RFC 8187 §3.2)"},
		{"username* that is not UTF-8", &Digest{}, `username="Mufasa"`, `username*=UTF-8''Mufasa%ff`, "username* is not an ext-value (RFC 8187 §3.2)"},
		{"username*", &Digest{}, `username="Mufasa"`, `username*=utf-8'en'Muf%61sa`, ""},
		{"no credentials after the word", &Digest{}, "*", "", "realm is missing"},
		{"an extension", &Digest{}, "nc=", "x-new=1, nc=", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv, client := newDigest(t, c.guard)
			header := client.authorization("GET", "/")
			switch c.old {
			case "*":
				header = "Digest"
			case "response":
				i := strings.Index(header, `response="`) + len(`response="`)
				header = header[:i] + strings.ToUpper(header[i:i+64]) + header[i+64:]
			default:
				require.Contains(t, header, c.old)
				header = strings.Replace(header, c.old, c.new, 1)
				header = strings.Replace(header, client.response("GET", client.lastNC), client.response("GET", ncOf(header)), 1)
			}
			srv.Reset()
			resp := send(t, srv, "GET", "/", "", auth(header))
			r := srv.Requests()[0]
			if c.reason == "" {
				require.Equal(t, Accepted, r.Decision, r.Reason)
				return
			}
			require.Equal(t, 401, resp.StatusCode)
			require.Equal(t, Refused, r.Decision)
			require.Equal(t, c.reason, r.Reason)
		})
	}
}

// response returns the digest of the last request with another nonce count.
func (c *digestClient) response(method, nc string) string {
	if c.qop == "" {
		return c.h(c.lastA1 + ":" + c.nonce + ":" + c.h(method+":"+c.lastURI))
	}
	return c.h(c.lastA1 + ":" + c.nonce + ":" + nc + ":" + c.cnonce + ":" + c.qop + ":" + c.h(method+":"+c.lastURI))
}

func ncOf(header string) string {
	_, after, _ := strings.Cut(header, "nc=")
	return after[:min(8, len(after))]
}

func TestHeaderJudgement(t *testing.T) {
	basic, key, bearer := newBasic(), &APIKey{Header: "X-API-Key", Key: "k"}, &Bearer{}
	word := &APIKey{Key: "k"}
	shared := NewServer() // a Bearer is on one server
	defer shared.Close()
	token := bearer.Login().AccessToken
	right := aladdin.Get("Authorization")
	for _, c := range []struct {
		name     string
		guard    Guard
		target   string
		header   http.Header
		status   int
		decision Decision
		reason   string
	}{
		{"Basic", basic, "/", aladdin, 200, Accepted, ""},
		{"bits left over in base64", basic, "/", auth(strings.Replace(right, "ZQ==", "ZR==", 1)), 401, Refused, "the credentials are not base64"},
		{"base64 without padding", basic, "/", auth(strings.TrimRight(right, "=")), 401, Refused, "the credentials are not base64"},
		{"Basic and nothing", basic, "/", auth("Basic"), 401, Refused, "the credentials have no colon"},
		{"a tab after the scheme", basic, "/", auth(strings.Replace(right, " ", "\t", 1)), 401, Challenged, "the Authorization header is of another scheme"},
		{"one key", key, "/", http.Header{"X-Api-Key": {"k"}}, 200, Accepted, ""},
		{"two keys", key, "/", http.Header{"X-Api-Key": {"k", "other"}}, 401, Refused, "more than one X-Api-Key header"},
		{"the same key twice", key, "/", http.Header{"X-Api-Key": {"k", "k"}}, 401, Refused, "more than one X-Api-Key header"},
		{"an empty key before the right one", key, "/", http.Header{"X-Api-Key": {"", "k"}}, 401, Refused, "more than one X-Api-Key header"},
		{"keys joined", key, "/", http.Header{"X-Api-Key": {"k, k"}}, 401, Refused, "wrong key"},
		{"the word without a key", word, "/", auth("ApiKey"), 401, Refused, "the key is missing"},
		{"Bearer", bearer, "/", auth("Bearer " + token), 200, Accepted, ""},
		{"Bearer and nothing", bearer, "/", auth("Bearer"), 400, Refused, "the access token is missing, or has characters that no token has"},
		{"two tokens in one", bearer, "/", auth("Bearer " + token + ", " + token), 400, Refused, "the access token is missing, or has characters that no token has"},
		{"token in quotes", bearer, "/", auth(`Bearer "` + token + `"`), 400, Refused, "the access token is missing, or has characters that no token has"},
		{"token in the query, too", bearer, "/?access_token=" + token, auth("Bearer " + token), 400, Refused, "there is an access token in the query, too"},
		{"token in the query alone", bearer, "/?access_token=" + token, nil, 401, Challenged, ""},
		{"two Authorization headers", bearer, "/", http.Header{"Authorization": {"Bearer " + token, "Bearer " + token}}, 401, Refused, "more than one Authorization header"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := NewServer()
			defer srv.Close()
			if c.guard == Guard(bearer) {
				srv = shared
			}
			srv.Reset()
			srv.Protect("/", c.guard)
			resp := send(t, srv, "GET", c.target, "", c.header)
			r := srv.Requests()[0]
			require.Equal(t, c.reason, r.Reason)
			require.Equal(t, c.decision, r.Decision)
			require.Equal(t, c.status, resp.StatusCode)
			if c.status == 400 {
				require.Contains(t, resp.Header.Get("WWW-Authenticate"), `error="invalid_request"`)
			}
		})
	}
}

// Every challenge of a Bearer has a parameter (RFC 6750 §3).
func TestNoBareBearer(t *testing.T) {
	srv := NewServer(&Bearer{})
	defer srv.Close()
	require.Equal(t, `Bearer realm="authtest"`, send(t, srv, "GET", "/", "", nil).Header.Get("WWW-Authenticate"))
	srv.Inject("/", 1, Refuse())
	require.Equal(t, `Bearer realm="authtest"`, send(t, srv, "GET", "/", "", nil).Header.Get("WWW-Authenticate"))
}

func TestTokenEndpointJudgement(t *testing.T) {
	confidential := &Bearer{ClientID: "id", ClientSecret: "secret"}
	public := &Bearer{ClientID: "public"}
	anyone := &Bearer{}
	basic := func(user string) []string {
		return []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(user))}
	}
	const cc = "grant_type=client_credentials"
	const refresh = "grant_type=refresh_token&refresh_token=RT"
	for _, c := range []struct {
		name          string
		bearer        *Bearer
		query, form   string
		authorization []string
		status        int
		code          string
	}{
		{"by Basic", confidential, "", cc, basic("id:secret"), 200, ""},
		{"grant_type twice", confidential, "", cc + "&" + cc, basic("id:secret"), 400, "invalid_request"},
		{"two scopes", confidential, "", cc + "&scope=a&scope=b", basic("id:secret"), 400, "invalid_request"},
		{"two refresh tokens", confidential, "", refresh + "&refresh_token=RT", basic("id:secret"), 400, "invalid_request"},
		{"client_id twice", confidential, "", cc + "&client_id=id&client_id=id&client_secret=secret", nil, 400, "invalid_request"},
		{"a parameter that is not known, twice", confidential, "", cc + "&x=1&x=1", basic("id:secret"), 400, "invalid_request"},
		{"client_id of another", confidential, "", cc + "&client_id=other", basic("id:secret"), 400, "invalid_request"},
		{"client_id of another, where any will do", anyone, "", cc + "&client_id=other", basic("id:secret"), 400, "invalid_request"},
		{"client_id of the same", confidential, "", cc + "&client_id=id", basic("id:secret"), 200, ""},
		{"parameters without values count for nothing", confidential, "", cc + "&client_id=&client_secret=&scope=", basic("id:secret"), 200, ""},
		{"two Authorization headers", confidential, "", cc, append(basic("id:secret"), basic("id:secret")...), 400, "invalid_request"},
		{"another scheme", confidential, "", cc, []string{"Bearer x"}, 401, "invalid_client"},
		{"secret in the URL", confidential, "?client_id=id&client_secret=secret", cc, nil, 400, "invalid_request"},
		{"secret in the URL, too", confidential, "?client_secret=secret", cc, basic("id:secret"), 400, "invalid_request"},
		{"refresh token in the URL", confidential, "?refresh_token=RT", "grant_type=refresh_token", basic("id:secret"), 400, "invalid_request"},
		{"a query that has no secret", confidential, "?tenant=1", cc, basic("id:secret"), 200, ""},
		{"malformed scope", confidential, "", cc + "&scope=a++b", basic("id:secret"), 400, "invalid_scope"},
		{"malformed scope", confidential, "", cc + "&scope=%22a%22", basic("id:secret"), 400, "invalid_scope"},
		{"a form that is too large", confidential, "", cc + "&x=" + strings.Repeat("x", maxForm), basic("id:secret"), 400, "invalid_request"},
		{"client_credentials of a public client", public, "", cc + "&client_id=public", nil, 400, "unauthorized_client"},
		{"client_credentials of a public client by Basic", public, "", cc, basic("public:"), 400, "unauthorized_client"},
		{"client_credentials of nobody", anyone, "", cc, nil, 401, "invalid_client"},
		{"client_credentials of somebody without a secret", anyone, "", cc + "&client_id=x", nil, 400, "unauthorized_client"},
		{"client_credentials of somebody", anyone, "", cc, basic("x:y"), 200, ""},
		{"refresh of a public client", public, "", refresh + "&client_id=public", nil, 200, ""},
		{"refresh of a public client that says nothing", public, "", refresh, nil, 401, "invalid_client"},
		{"refresh of nobody in particular", anyone, "", refresh, nil, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := NewServer()
			defer srv.Close()
			b := &Bearer{ClientID: c.bearer.ClientID, ClientSecret: c.bearer.ClientSecret}
			srv.Protect("/", b)
			body := strings.ReplaceAll(c.form, "RT", b.Login().RefreshToken)
			header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
			if c.authorization != nil {
				header["Authorization"] = c.authorization
			}
			resp := send(t, srv, "POST", "/token"+c.query, body, header)
			var answer struct{ Error string }
			require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
			require.Equal(t, c.code, answer.Error)
			require.Equal(t, c.status, resp.StatusCode)
			require.Equal(t, c.status == 401, resp.Header.Get("WWW-Authenticate") != "")
			require.Equal(t, "no-cache", resp.Header.Get("Pragma"))
		})
	}
	for name, b := range map[string]*Bearer{"confidential": confidential, "anyone": anyone} {
		srv := NewServer(b)
		defer srv.Close()
		_, err := b.ClientCredentials("a").Token(t.Context())
		require.NoError(t, err, "%s: what the guard itself configures is accepted", name)
	}
}

// Guards that no request could satisfy, and settings that contradict each other, are found when the server is set up.
func TestProtectRefusesWhatCannotWork(t *testing.T) {
	for name, g := range map[string]Guard{
		"colon in a user name":            &Basic{Username: "a:b"},
		"control character in user name":  &Basic{Username: "a\n"},
		"control character in a password": &Basic{Password: "a\x00"},
		"user name not UTF-8":             &Basic{Username: "\xff"},
		"password not UTF-8":              &Basic{Password: "\xff"},
		"control character in a realm":    &Basic{Realm: "a\r\nb"},
		"no key":                          &APIKey{},
		"key with a space after it":       &APIKey{Key: "k "},
		"key with a line end":             &APIKey{Key: "k\n"},
		"header that is none":             &APIKey{Key: "k", Header: "X API Key"},
		"header that no handler sees":     &APIKey{Key: "k", Header: "host"},
		"prefix of two words":             &APIKey{Key: "k", Prefix: "Api Key"},
		"secret without an id":            &Bearer{ClientSecret: "s"},
		"scope with two spaces":           &Bearer{Scope: "a  b"},
		"scope with a quote":              &Bearer{Scope: `a"b`},
		"tokens that never live":          &Bearer{TokenLifetime: -time.Second},
		"token path without a slash":      &Bearer{TokenPath: "token"},
		"token path with a query":         &Bearer{TokenPath: "/token?x"},
		"token path to be escaped":        &Bearer{TokenPath: "/to ken"},
		"unknown algorithm":               &Digest{Algorithms: []string{"SHA-1"}},
		"half an algorithm":               &Digest{Algorithms: []string{"-sess"}},
		"unknown qop":                     &Digest{QOP: "x-new"},
		"qop and none":                    &Digest{QOP: "auth none"},
		"empty qop in a list":             &Digest{QOP: "auth,"},
		"UTF-8 announced, and not had":    &Digest{UTF8: true, Username: "\xff"},
		"negative uses":                   &Digest{NonceUses: -1},
		"negative lifetime":               &Digest{NonceLifetime: -1},
		"window without counts":           &Digest{QOP: NoQOP, NonceWindow: 1},
		"stale on counts without counts":  &Digest{QOP: NoQOP, StaleOnNC: true},
		"stale on counts not looked at":   &Digest{NonceWindow: -1, StaleOnNC: true},
		"near an end that never comes":    &Digest{NextNonce: NextNonceNearEnd},
		"unknown next nonce":              &Digest{NextNonce: 9},
		"unknown rspauth":                 &Digest{Rspauth: -1},
		"wrong rspauth without one":       &Digest{QOP: NoQOP, Rspauth: RspauthWrong},
		"control character in opaque":     &Digest{Opaque: "\x7f"},
		"public, and nothing private":     &Registry{Public: []string{"library/"}},
		"public repository without name":  &Registry{Username: "u", Public: []string{"/"}},
		"public repository by its path":   &Registry{Username: "u", Public: []string{"/v2/a"}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := NewServer()
			defer srv.Close()
			message := panicOf(func() { srv.Protect("/a", newBasic(), g) })
			require.Regexp(t, `^authtest: authtest\.\w+\(realm "[^"]*"\) cannot work: `, message)
			require.Equal(t, 200, send(t, srv, "GET", "/a", "", nil).StatusCode, "nothing is changed")
		})
	}
	for name, g := range map[string]Guard{"nil": nil, "a nil *Basic": (*Basic)(nil), "a nil *OAuth": (*OAuth)(nil)} {
		require.Contains(t, panicOf(func() { NewServer(newBasic(), g) }), "a guard is nil", name)
	}
	srv := NewServer()
	defer srv.Close()
	require.Contains(t, panicOf(func() { srv.Protect("/a", nil) }), "a guard is nil")
	for _, h := range []http.Handler{nil, http.HandlerFunc(nil)} {
		require.Contains(t, panicOf(func() { srv.Handle("/a", h) }), `the handler for "/a" is nil`)
	}
	require.Equal(t, 200, send(t, srv, "GET", "/a", "", nil).StatusCode, "nothing is changed")
	for _, path := range []string{"", "a", "*", "/a?b", "/a#b"} {
		require.Contains(t, panicOf(func() { srv.Protect(path) }), "is no path")
		require.Contains(t, panicOf(func() { srv.Handle(path, nil) }), "is no path")
		require.Contains(t, panicOf(func() { srv.Inject(path, 1, Refuse()) }), "is no path")
	}
	require.Contains(t, panicOf(func() { newBasic().SetPassword("a\n") }), "control character")
	require.Contains(t, panicOf(func() { (&APIKey{}).SetKey("") }), "no Key")
	later := &APIKey{Header: "X-API-Key"}
	later.SetKey("k")
	require.Empty(t, panicOf(func() { srv.Protect("/later", later) }))
}

func panicOf(fn func()) (message string) {
	defer func() {
		if v := recover(); v != nil {
			message = v.(string)
		}
	}()
	fn()
	return ""
}

// logIn makes the tokens of one login of many. Most of them come to be remembered without Login, which takes more time, unless all
// is to be tried.
func logIn(b *Bearer, i int) (*accessToken, *refreshToken) {
	if i%thorough.Or(1, 100) == 0 {
		t := b.Login()
		return b.access.values[t.AccessToken], b.refresh.values[t.RefreshToken]
	}
	f := &family{}
	access, refresh := &accessToken{family: f, expires: time.Now().Add(time.Hour)}, &refreshToken{family: f}
	b.access.put(strconv.Itoa(i), access)
	b.refresh.put(strconv.Itoa(i), refresh)
	return access, refresh
}

// However many tokens are issued, those that are good stay so.
func TestGoodTokensAreNotForgotten(t *testing.T) {
	bearer := &Bearer{}
	srv := NewServer(bearer)
	defer srv.Close()
	first := bearer.Login()
	used := bearer.Login()
	_, code, _ := bearer.rotate(used.RefreshToken, "")
	require.Empty(t, code)
	for i := range thorough.Or(3, 2)*maxRemembered + 1 {
		logIn(bearer, i)
	}
	require.Equal(t, 200, send(t, srv, "GET", "/", "", auth("Bearer "+first.AccessToken)).StatusCode)
	_, code, _ = bearer.rotate(used.RefreshToken, "")
	require.Equal(t, "invalid_grant", code)
	require.Equal(t, 1, bearer.Reuses())
	_, code, _ = bearer.rotate(first.RefreshToken, "")
	require.Empty(t, code)
}

// Of the tokens that have ended, the last are remembered, and the others take no memory.
func TestEndedTokensAreForgotten(t *testing.T) {
	bearer := &Bearer{}
	first := bearer.Login()
	for i := range thorough.Or(5, 3) * maxRemembered {
		access, refresh := logIn(bearer, i)
		access.dead, refresh.used = true, true
	}
	require.LessOrEqual(t, len(bearer.access.values), 2*maxRemembered+2)
	require.GreaterOrEqual(t, len(bearer.access.values), maxRemembered)
	require.LessOrEqual(t, len(bearer.refresh.values), 2*maxRemembered+2)
	require.Len(t, bearer.access.order, len(bearer.access.values))
	require.Contains(t, bearer.access.values, first.AccessToken)
	require.Contains(t, bearer.refresh.values, first.RefreshToken)
}

// A fault for all paths leaves the token endpoint alone: a test that lets requests fail wants tokens all the same.
func TestFaultsLeaveTheTokenEndpointAlone(t *testing.T) {
	bearer := &Bearer{TokenPath: "/oauth2/token"}
	srv := NewServer(bearer)
	defer srv.Close()
	for _, path := range []string{"/", "/oauth2", "/oauth2/"} {
		srv.Reset()
		srv.Inject(path, 1, Reply(503, nil, ""))
		_, err := bearer.ClientCredentials().Token(t.Context())
		require.NoError(t, err)
		require.Equal(t, 503, send(t, srv, "GET", "/oauth2/x", "", nil).StatusCode, "it is still there")
	}
	for _, path := range []string{"/oauth2/token", "/oauth2/token/"} {
		srv.Inject(path, 1, TokenError("invalid_client"))
		resp, err := srv.Client().PostForm(bearer.TokenURL(), url.Values{})
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 401, resp.StatusCode)
		require.NotEmpty(t, resp.Header.Get("WWW-Authenticate"))
	}
}
