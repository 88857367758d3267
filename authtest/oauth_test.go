package authtest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const verifier = "a-verifier-of-more-than-43-characters-as-RFC-7636-wants"

// A loginClient speaks to an OAuth as a program would.
type loginClient struct {
	t        *testing.T
	srv      *Server
	id       string
	redirect string
	at       chan url.Values // what is sent to redirect
}

func newLoginClient(t *testing.T, srv *Server) *loginClient {
	c := &loginClient{t: t, srv: srv, id: "me", at: make(chan url.Values, 10)}
	back := NewServer()
	t.Cleanup(back.Close)
	back.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.at <- r.URL.Query() }))
	c.redirect = back.URL + "/callback"
	return c
}

func (c *loginClient) url(change url.Values) string {
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{"response_type": {"code"}, "client_id": {c.id}, "redirect_uri": {c.redirect}, "state": {"s"}, "scope": {"x"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}}
	for name, values := range change {
		q[name] = values
	}
	return c.srv.URL + oauthAuthorize + "?" + q.Encode()
}

// code has somebody agree, and returns what the program is sent.
func (c *loginClient) answer(change url.Values) url.Values {
	require.NoError(c.t, Approve(c.t.Context(), c.url(change)))
	select {
	case q := <-c.at:
		return q
	default:
		require.Fail(c.t, "nothing was sent back")
		return nil
	}
}

func (c *loginClient) token(form url.Values) (int, map[string]any) {
	return post(c.t, c.srv, oauthToken, form)
}

func post(t *testing.T, srv *Server, path string, form url.Values) (int, map[string]any) {
	resp, err := srv.Client().PostForm(srv.URL+path, form)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	said := map[string]any{}
	_ = json.Unmarshal(body, &said)
	return resp.StatusCode, said
}

func (c *loginClient) redeeming(code string, change url.Values) url.Values {
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "client_id": {c.id}, "redirect_uri": {c.redirect}, "code_verifier": {verifier}}
	for name, values := range change {
		form[name] = values
	}
	return form
}

func TestOAuthCode(t *testing.T) {
	oauth := &OAuth{ClientID: "me", Scope: "x"}
	srv := NewServer(oauth)
	defer srv.Close()
	c := newLoginClient(t, srv)
	q := c.answer(nil)
	require.Equal(t, "s", q.Get("state"))
	require.Equal(t, srv.URL, q.Get("iss"))
	status, said := c.token(c.redeeming(q.Get("code"), nil))
	require.Equal(t, 200, status, said)
	require.Equal(t, "x", said["scope"])
	require.Equal(t, 1, oauth.Logins())
	use := func() int {
		resp := send(t, srv, "GET", "/", "", http.Header{"Authorization": {"Bearer " + said["access_token"].(string)}})
		return resp.StatusCode
	}
	require.Equal(t, 200, use())

	// The code is good once; its second use ends what came of it.
	status, _ = c.token(c.redeeming(q.Get("code"), nil))
	require.Equal(t, 400, status)
	require.Equal(t, 401, use())
}

func TestOAuthRefusesCodes(t *testing.T) {
	oauth := &OAuth{ClientID: "me", ClientSecret: ""}
	srv := NewServer(oauth)
	defer srv.Close()
	c := newLoginClient(t, srv)
	for name, change := range map[string]url.Values{
		"verifier":     {"code_verifier": {"another-verifier-of-more-than-43-characters-as-it-is"}},
		"no verifier":  {"code_verifier": nil},
		"redirect_uri": {"redirect_uri": {"http://127.0.0.1:1/other"}},
		"code":         {"code": {"code-x"}},
		"client":       {"client_id": {"you"}},
		"resource":     {"resource": {"nonsense"}},
		"grant":        {"grant_type": {"password"}},
	} {
		status, said := c.token(c.redeeming(c.answer(nil).Get("code"), change))
		require.GreaterOrEqual(t, status, 400, name)
		require.NotContains(t, said, "access_token", name)
	}
	for name, change := range map[string]url.Values{
		"PKCE":          {"code_challenge": nil},
		"plain PKCE":    {"code_challenge_method": {"plain"}},
		"response_type": {"response_type": {"token"}},
		"scope":         {"scope": {`"`}},
		"resource":      {"resource": {"x"}},
	} {
		q := c.answer(change)
		require.NotEmpty(t, q.Get("error"), name)
		require.Empty(t, q.Get("code"), name)
		require.Equal(t, srv.URL, q.Get("iss"))
	}
	for name, change := range map[string]url.Values{"client": {"client_id": {"you"}}, "redirect": {"redirect_uri": {"https://evil.example.com/"}}} {
		require.Error(t, Approve(t.Context(), c.url(change)), name)
		require.Empty(t, c.at, "nothing is sent to where it may not")
	}
	require.NoError(t, Decline(t.Context(), c.url(nil)))
	require.Equal(t, "access_denied", (<-c.at).Get("error"))
}

// As real servers do, it refuses a code_verifier that is too short, or has other characters, although its challenge fits (RFC 7636 §4.1).
func TestOAuthRefusesBadVerifiers(t *testing.T) {
	srv := NewServer(&OAuth{ClientID: "me"})
	defer srv.Close()
	c := newLoginClient(t, srv)
	for v, want := range map[string]int{
		strings.Repeat("a", 42): 400, strings.Repeat("a", 43): 200, strings.Repeat("~", 128): 200, strings.Repeat("a", 129): 400,
		strings.Repeat("a", 42) + "=": 400, strings.Repeat("a", 42) + "+": 400,
	} {
		sum := sha256.Sum256([]byte(v))
		code := c.answer(url.Values{"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}}).Get("code")
		status, said := c.token(c.redeeming(code, url.Values{"code_verifier": {v}}))
		require.Equal(t, want, status, "%s: %v", v, said)
	}
}

// What was pushed is good for as long as the answer says, and once.
func TestOAuthPushedRequestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := NewPipeServer(&OAuth{ClientID: "me", RequirePushed: true})
		defer srv.Close()
		sum := sha256.Sum256([]byte(verifier))
		open := func(after time.Duration) int {
			status, said := post(t, srv, oauthPush, url.Values{"response_type": {"code"}, "client_id": {"me"}, "redirect_uri": {"http://127.0.0.1/"},
				"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}})
			require.Equal(t, 201, status)
			require.EqualValues(t, 60, said["expires_in"])
			time.Sleep(after)
			q := url.Values{"client_id": {"me"}, "request_uri": {said["request_uri"].(string)}}
			resp := send(t, srv, "GET", oauthAuthorize+"?"+q.Encode(), "", nil)
			return resp.StatusCode
		}
		require.Equal(t, 200, open(59*time.Second))
		require.Equal(t, 400, open(60*time.Second))
	})
}

func TestOAuthRegistration(t *testing.T) {
	oauth := &OAuth{RegisterSecrets: true}
	srv := NewServer(oauth)
	defer srv.Close()
	c := newLoginClient(t, srv)
	register := func(body string) (int, map[string]any) {
		resp, err := srv.Client().Post(srv.URL+oauthRegister, "application/json", strings.NewReader(body))
		require.NoError(t, err)
		defer resp.Body.Close()
		said := map[string]any{}
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&said))
		return resp.StatusCode, said
	}
	for _, bad := range []string{`x`, `{"grant_types":["authorization_code"]}`, `{"redirect_uris":["http://127.0.0.1/callback"]}`,
		`{"redirect_uris":["http://evil.example.com/"],"application_type":"native"}`, `{"redirect_uris":["javascript:x"]}`} {
		status, _ := register(bad)
		require.Equal(t, 400, status, bad)
	}
	status, said := register(`{"redirect_uris":["http://127.0.0.1/callback"],"application_type":"native"}`)
	require.Equal(t, 201, status)
	c.id = said["client_id"].(string)
	q := c.answer(nil) // to another port than was registered (RFC 8252 §7.3)
	status, _ = c.token(c.redeeming(q.Get("code"), nil))
	require.Equal(t, 401, status, "the secret is missing")
	status, _ = c.token(c.redeeming(c.answer(nil).Get("code"), url.Values{"client_secret": {said["client_secret"].(string)}}))
	require.Equal(t, 200, status)
	oauth.ForgetClients()
	require.Error(t, Approve(t.Context(), c.url(nil)))
}

func TestOAuthRefreshAndRevocation(t *testing.T) {
	oauth := &OAuth{ClientID: "me", MetadataDocuments: true, NoResourceOnRefresh: true}
	srv := NewServer(oauth)
	defer srv.Close()
	tok := oauth.Login("x")
	refresh := func(id, value string, more url.Values) (int, map[string]any) {
		form := url.Values{"grant_type": {"refresh_token"}, "client_id": {id}, "refresh_token": {value}}
		for name, values := range more {
			form[name] = values
		}
		return post(t, srv, oauthToken, form)
	}
	status, said := refresh("https://other.example.com/client", tok.RefreshToken, nil)
	require.Equal(t, 400, status, "it is another client's")
	require.Equal(t, "invalid_grant", said["error"])
	status, _ = refresh("me", tok.RefreshToken, url.Values{"resource": {srv.URL}})
	require.Equal(t, 400, status)
	status, said = refresh("me", tok.RefreshToken, nil)
	require.Equal(t, 200, status, "it was not spent")
	status, _ = post(t, srv, oauthRevoke, url.Values{"token": {said["refresh_token"].(string)}, "client_id": {"https://other.example.com/client"}})
	require.Equal(t, 200, status)
	status, said = refresh("me", said["refresh_token"].(string), nil)
	require.Equal(t, 200, status, "another client cannot revoke it (RFC 7009 §2.1)")
	status, _ = post(t, srv, oauthRevoke, url.Values{"token": {said["refresh_token"].(string)}, "client_id": {"me"}})
	require.Equal(t, 200, status)
	status, _ = refresh("me", said["refresh_token"].(string), nil)
	require.Equal(t, 400, status)
	status, _ = post(t, srv, oauthRevoke, url.Values{"token": {"x"}, "client_id": {"you"}})
	require.Equal(t, 401, status)
}

func TestOAuthDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		oauth := &OAuth{ClientID: "me", DeviceLifetime: time.Minute}
		srv := NewPipeServer(oauth)
		defer srv.Close()
		begin := func() (code, complete string) {
			status, said := post(t, srv, oauthDevice, url.Values{"client_id": {"me"}, "scope": {"x"}})
			require.Equal(t, 200, status)
			require.Equal(t, 5.0, said["interval"])
			return said["device_code"].(string), said["verification_uri_complete"].(string)
		}
		poll := func(code string) any {
			status, said := post(t, srv, oauthToken, url.Values{"grant_type": {deviceGrantType}, "device_code": {code}, "client_id": {"me"}})
			if status == 200 {
				return "token"
			}
			return said["error"]
		}
		code, complete := begin()
		require.Equal(t, "slow_down", poll(code), "at once is too early")
		time.Sleep(5 * time.Second)
		require.Equal(t, "slow_down", poll(code), "the interval is 10 seconds now")
		time.Sleep(15 * time.Second)
		require.Equal(t, "authorization_pending", poll(code))
		require.NoError(t, srv.Approve(context.Background(), complete))
		time.Sleep(15 * time.Second)
		require.Equal(t, "token", poll(code))
		require.Equal(t, "invalid_grant", poll(code), "once")

		code, complete = begin()
		require.NoError(t, srv.Decline(context.Background(), complete))
		time.Sleep(5 * time.Second)
		require.Equal(t, "access_denied", poll(code))

		code, complete = begin()
		time.Sleep(time.Minute)
		require.Equal(t, "expired_token", poll(code))
		require.Error(t, srv.Approve(context.Background(), complete))
		require.Equal(t, "invalid_grant", poll("device-x"))
		require.Equal(t, 1, oauth.Logins())
	})
}

func TestOAuthAsAResource(t *testing.T) {
	other := &OAuth{}
	at := NewServer(other)
	defer at.Close()
	oauth := &OAuth{Scope: "x y", ResourcePath: "/api", At: other, Edit: func(path string, doc map[string]any) { doc["path"] = path }}
	srv := NewServer(oauth)
	defer srv.Close()
	resp := send(t, srv, "GET", "/api", "", nil)
	require.Equal(t, 401, resp.StatusCode)
	require.Equal(t, `Bearer resource_metadata="`+srv.URL+`/.well-known/oauth-protected-resource/api", scope="x y"`, resp.Header.Get("WWW-Authenticate"))
	meta, err := srv.Client().Get(srv.URL + "/.well-known/oauth-protected-resource/api")
	require.NoError(t, err)
	defer meta.Body.Close()
	said := map[string]any{}
	require.NoError(t, json.NewDecoder(meta.Body).Decode(&said))
	require.Equal(t, srv.URL+"/api", said["resource"])
	require.Equal(t, []any{at.URL}, said["authorization_servers"])
	require.Equal(t, "/.well-known/oauth-protected-resource/api", said["path"])
	for scope, want := range map[string]int{"x y": 200, "x": 403} {
		tok := other.Login(scope)
		resp := send(t, srv, "GET", "/api", "", http.Header{"Authorization": {"Bearer " + tok.AccessToken}})
		require.Equal(t, want, resp.StatusCode)
	}
	require.Equal(t, Counts{Requests: 3, AuthRequests: 1, Accepted: 1, Challenged: 1, Refused: 1}, srv.Counts())
}

func TestOAuthThatCannotWork(t *testing.T) {
	for name, bad := range map[string]*OAuth{
		"scope":  {Scope: `"`},
		"path":   {ResourcePath: "x"},
		"time":   {TokenLifetime: -1},
		"secret": {ClientSecret: "s"},
		"chain":  {At: &OAuth{At: &OAuth{}}},
	} {
		require.Panics(t, func() { NewServer(bad) }, name)
	}
	require.Panics(t, func() { NewServer(&OAuth{}, &OAuth{}) })
	used := &OAuth{}
	srv := NewServer(used)
	defer srv.Close()
	require.Panics(t, func() { NewServer(used) })
	require.Panics(t, func() { new(OAuth).Issuer() })
}

// Whoever writes the URLs by hand, rather than taking them from the metadata, is told where the login is.
func TestApproveSaysWhereTheLoginIs(t *testing.T) {
	srv := NewServer(&OAuth{})
	defer srv.Close()
	err := Approve(t.Context(), srv.URL+"/authorize")
	require.EqualError(t, err, "authtest: /authorize answered 401; the page at which a person logs in to an OAuth is /oauth/authorize, or /oauth/verify for a device")
}

// Approve goes nowhere but to this machine.
func TestApproveStaysHere(t *testing.T) {
	for _, u := range []string{"http://192.0.2.1/", "https://example.com/", "::"} {
		require.Error(t, Approve(t.Context(), u))
	}
	plain := NewServer()
	defer plain.Close()
	require.Error(t, Approve(t.Context(), plain.URL+oauthAuthorize), "there is nothing to decide")
}
