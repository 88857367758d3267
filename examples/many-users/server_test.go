package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/filestore"
	"github.com/authretry/authretry/internal/quicktls"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

const (
	withPasswords = 10 // users who have a password for the files
	rounds        = 5  // in each of which the mail API ends a token of each user
	letters       = 6  // that each user reads at once, in a round
	files         = 2  // that each user reads meanwhile
)

// users returns how many there are.
func users() int { return thorough.Or(50, 14) }

// Users by the dozen at once, whose tokens and nonces end all the time. Each says in the path who it is, which no code but the
// test's looks at, so what the APIs have recorded says whether somebody's credentials were on another's request.
func TestNobodyGetsTheCredentialsOfAnother(t *testing.T) {
	mail := &mailAPI{}
	mailServer := httptest.NewServer(mail)
	defer mailServer.Close()
	fileAPI := newFileAPI(t)
	endpoint := &authretry.TokenEndpoint{URL: mailServer.URL + "/token", ClientID: "test"}
	s := &server{
		mailAPI: parse(mailServer.URL), filesAPI: parse(fileAPI.URL),
		refresh:   endpoint.Refresh(),
		revoke:    endpoint.Revocation(mailServer.URL + "/revoke"),
		tokens:    t.TempDir(),
		passwords: map[string]string{},
		signIn: func(r *http.Request) (user string, token *oauth2.Token, err error) {
			user = r.FormValue("user")
			if token = mail.login(user); r.FormValue("expired") != "" {
				mail.expire(user, 0)
				token.Expiry = time.Now().Add(-time.Hour)
			}
			return user, token, nil
		},
	}
	for i := range withPasswords {
		s.passwords[name(i)] = passwordOf(i)
	}
	srv := httptest.NewUnstartedServer(s.handler())
	srv.TLS = quicktls.Config()
	srv.StartTLS()
	defer srv.Close()
	srv.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = users() * (letters + files)

	var all sync.WaitGroup
	for i := range users() {
		all.Go(func() {
			u := newTestUser(t, i, srv)
			u.login(u.beginsExpired())
			for round := range rounds {
				if round == 3 && i%5 == 0 {
					u.post("/logout", nil)
					u.get("/mail/1", http.StatusForbidden, "please log in")
					u.login(false)
				}
				if round > 0 || !u.beginsExpired() { // then that is what this round is about
					mail.expire(u.name, rand.IntN(letters))
				}
				fileAPI.guards[i].GoStale()
				u.read()
			}
		})
	}
	all.Wait()
	for i := range users() {
		t.Run(name(i), func(t *testing.T) {
			checkMail(t, mail, i)
			fileAPI.check(t, i)
			login, err := filestore.New(s.tokenFile(name(i))).Load(t.Context())
			require.NoError(t, err)
			require.NotNil(t, login)
			require.Equal(t, name(i), mail.access[login.Token.AccessToken].user, "the token in the user's file")
			require.Equal(t, name(i), mail.refresh[login.Token.RefreshToken], "the token in the user's file")
		})
	}
}

// Where an API redirects to, we do not go for the user: it may be what only we can reach.
func TestRedirectsOfTheFilesAPI(t *testing.T) {
	asked := 0
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		fmt.Fprint(w, "of ours")
	}))
	defer inside.Close()
	files := httptest.NewServer(http.RedirectHandler(inside.URL, http.StatusFound))
	defer files.Close()
	s := &server{mailAPI: parse(inside.URL), filesAPI: parse(files.URL), tokens: t.TempDir()}
	srv := httptest.NewUnstartedServer(s.handler())
	srv.TLS = quicktls.Config()
	srv.StartTLS()
	defer srv.Close()
	s.sessions.users = map[string]string{"a": "alice"}
	req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/files/1", nil)
	require.NoError(t, err)
	req.AddCookie(&http.Cookie{Name: "session", Value: "a"})
	resp, err := srv.Client().Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusBadGateway, resp.StatusCode)
	require.Zero(t, asked)
}

// checkMail checks what the mail API has recorded of a user.
func checkMail(t *testing.T, mail *mailAPI, i int) {
	calls, grants := mail.records()
	accepted, refused := 0, map[string]bool{}
	for _, call := range calls {
		if userIn(call.path) != name(i) {
			continue
		}
		require.Equal(t, name(i), call.user, "whose token was on the request for %s", call.path)
		require.Len(t, call.header["Authorization"], 1)
		require.Empty(t, call.header["Cookie"])
		if call.status == http.StatusOK {
			accepted++
		} else {
			refused[call.header.Get("Authorization")] = true
		}
	}
	require.Equal(t, rounds*letters, accepted)
	requests := 0
	for _, user := range grants {
		require.NotEmpty(t, user, "a refresh token was not good, or not any more")
		if user == name(i) {
			requests++
		}
	}
	require.Equal(t, rounds, requests, "one token request for each token that has ended, however many requests met it")
	if (&testUser{i: i}).beginsExpired() {
		requests--
	}
	require.Len(t, refused, requests, "tokens that were refused")
}

// A fileAPI has files of each user, which ask for that user's password.
type fileAPI struct {
	*httptest.Server
	guards  []*authtest.Digest
	servers []*authtest.Server
}

func newFileAPI(t *testing.T) *fileAPI {
	api := &fileAPI{}
	index := map[string]int{}
	for i := range users() {
		guard := &authtest.Digest{Realm: "files", Username: name(i), Password: passwordOf(i)}
		srv := authtest.NewServer(guard)
		t.Cleanup(srv.Close)
		srv.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "a file of ", name(i)) }))
		api.guards, api.servers, index[name(i)] = append(api.guards, guard), append(api.servers, srv), i
	}
	api.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api.servers[index[userIn(r.URL.Path)]].ServeHTTP(w, r)
	}))
	t.Cleanup(api.Close)
	return api
}

// check checks what the API has recorded of a user.
func (api *fileAPI) check(t *testing.T, i int) {
	for _, r := range api.servers[i].Requests() {
		require.Equal(t, name(i), userIn(r.Path))
		require.Empty(t, r.Header["Cookie"])
		switch sent := r.Header.Get("Authorization"); {
		case i >= withPasswords:
			require.Empty(t, sent, "this user has no credentials")
		case sent != "":
			require.Contains(t, sent, fmt.Sprintf("Digest username=%q", name(i)))
		}
	}
	want := 0
	if i < withPasswords {
		want = rounds * files
	}
	require.Equal(t, want, api.servers[i].Counts().Accepted)
	require.Empty(t, api.guards[i].NonceErrors())
}

func name(i int) string       { return fmt.Sprint("user-", i) }
func passwordOf(i int) string { return fmt.Sprint("password-", i) }

// userIn returns the user who is named in a path such as "/mail/user-7/1".
func userIn(path string) string { return strings.Split(path, "/")[2] }

// A testUser is a user with a browser, which sends a cookie and, as some do, Authorization.
type testUser struct {
	t      *testing.T
	i      int
	name   string
	client *http.Client
	server string
}

func newTestUser(t *testing.T, i int, srv *httptest.Server) *testUser {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	return &testUser{t, i, name(i), &http.Client{Transport: srv.Client().Transport, Jar: jar}, srv.URL}
}

// beginsExpired reports whether the first token of the user has expired when it is stored, as after a holiday.
func (u *testUser) beginsExpired() bool { return u.i%2 == 1 }

func (u *testUser) login(expired bool) {
	form := url.Values{"user": {u.name}}
	if expired {
		form.Set("expired", "yes")
	}
	u.post("/login", form)
}

// read reads all that a round has, at once.
func (u *testUser) read() {
	var group sync.WaitGroup
	defer group.Wait()
	for i := range letters {
		group.Go(func() { u.get(fmt.Sprintf("/mail/%s/%d", u.name, i), http.StatusOK, "a letter to "+u.name) })
	}
	for i := range files {
		path := fmt.Sprintf("/files/%s/%d", u.name, i)
		group.Go(func() {
			if u.i < withPasswords {
				u.get(path, http.StatusOK, "a file of "+u.name)
			} else {
				u.get(path, http.StatusForbidden, "we have no password of yours for the files: please give us one")
			}
		})
	}
}

func (u *testUser) get(path string, status int, text string) {
	req, err := http.NewRequest("GET", u.server+path, nil)
	if !assert.NoError(u.t, err) {
		return
	}
	req.SetBasicAuth(u.name, "for the server alone")
	resp, err := u.client.Do(req)
	if assert.NoError(u.t, err) {
		assert.Equal(u.t, fmt.Sprint(status, " ", text), shown(resp), path)
		if status == http.StatusOK { // what the API has sent runs no script as if it were ours
			assert.Equal(u.t, []string{"sandbox"}, resp.Header["Content-Security-Policy"], path)
			assert.Equal(u.t, []string{"nosniff"}, resp.Header["X-Content-Type-Options"], path)
		}
	}
}

func (u *testUser) post(path string, form url.Values) {
	resp, err := u.client.PostForm(u.server+path, form)
	if assert.NoError(u.t, err) {
		assert.Equal(u.t, "200 ", shown(resp), path)
	}
}
