// Many-users is a server that calls two APIs on behalf of its users: one with OAuth 2.0 tokens of each user, by a reverse
// proxy, and one with Digest. What there is to take from it is in server.go and
// login.go; here two users use it.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"golang.org/x/oauth2"
)

func main() {
	// The APIs, in place of those that you call.
	mail := &mailAPI{}
	mailServer := httptest.NewServer(mail)
	defer mailServer.Close()
	files := authtest.NewServer(&authtest.Digest{Realm: "files", Username: "alice", Password: "Circle of Life"})
	defer files.Close()

	// The server, with https as its cookie needs it.
	folder, err := os.MkdirTemp("", "many-users")
	check(err)
	defer os.RemoveAll(folder)
	endpoint := &authretry.TokenEndpoint{URL: mailServer.URL + "/token", ClientID: "many-users"}
	srv := httptest.NewTLSServer((&server{
		mailAPI: parse(mailServer.URL), filesAPI: parse(files.URL),
		refresh:   endpoint.Refresh(),
		revoke:    endpoint.Revocation(mailServer.URL + "/revoke"),
		tokens:    folder,
		passwords: map[string]string{"alice": "Circle of Life"},
		signIn: func(r *http.Request) (user string, token *oauth2.Token, err error) {
			if user = r.FormValue("user"); user != "alice" && user != "bob" {
				return "", nil, errors.New("unknown user")
			}
			return user, mail.login(user), nil
		},
	}).handler())
	defer srv.Close()

	alice, bob := newBrowser(srv), newBrowser(srv)
	fmt.Println("before the login:", alice.get("/mail/1"))
	alice.post("/login", url.Values{"user": {"alice"}})
	bob.post("/login", url.Values{"user": {"bob"}})
	fmt.Println("alice, mail: ", alice.get("/mail/1"))
	fmt.Println("bob, mail:   ", bob.get("/mail/1"))
	fmt.Println("alice, files:", alice.get("/files/1"))
	fmt.Println("bob, files:  ", bob.get("/files/1"))

	fmt.Println("\nthe mail API ends bob's token")
	mail.expire("bob", 0)
	fmt.Println("alice, mail: ", alice.get("/mail/2"))
	fmt.Println("bob, mail:   ", bob.get("/mail/2"))
	_, grants := mail.records()
	fmt.Println("token requests were for", grants)

	fmt.Println("\nalice logs out")
	alice.post("/logout", nil)
	fmt.Println("logins at the mail API:", mail.logins())
	fmt.Println("alice, mail: ", alice.get("/mail/3"))
	fmt.Println("bob, mail:   ", bob.get("/mail/3"))

	fmt.Println("\nalice logs in again")
	alice.post("/login", url.Values{"user": {"alice"}})
	fmt.Println("alice, mail: ", alice.get("/mail/4"))
	fmt.Println("alice, files:", alice.get("/files/4"))

	fmt.Println("\nbob tells the mail API that we may no longer read his mail")
	mail.revoke("bob")
	fmt.Println("alice, mail: ", alice.get("/mail/5"))
	fmt.Println("bob, mail:   ", bob.get("/mail/5"))

	cookies := 0
	calls, _ := mail.records()
	for _, call := range calls {
		cookies += len(call.header["Cookie"])
	}
	fmt.Printf("\nthe mail API got %d requests, and %d of our cookies\n", len(calls), cookies)
}

// A browser is one user's.
type browser struct {
	client *http.Client
	server string
}

func newBrowser(srv *httptest.Server) *browser {
	jar, err := cookiejar.New(nil)
	check(err)
	return &browser{&http.Client{Transport: srv.Client().Transport, Jar: jar}, srv.URL}
}

func (b *browser) get(path string) string {
	resp, err := b.client.Get(b.server + path)
	check(err)
	return shown(resp)
}

func (b *browser) post(path string, form url.Values) {
	resp, err := b.client.PostForm(b.server+path, form)
	check(err)
	if text := shown(resp); resp.StatusCode != http.StatusOK {
		log.Fatal(text)
	}
}

func shown(resp *http.Response) string {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(err)
	return fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(body)))
}

func parse(origin string) *url.URL {
	u, err := url.Parse(origin)
	check(err)
	return u
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
