// Oauth2-refresh shows the whole life of an OAuth 2.0 login: a token that is kept in a file and refreshed when the server refuses
// it, a hundred requests that cause one refresh, a second run that finds the login, a login that has ended, and the next one.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/filestore"
	"golang.org/x/oauth2"
)

func main() {
	bearer := &authtest.Bearer{} // in place of your authorization server and your API
	srv := authtest.NewServer(bearer)
	defer srv.Close()
	dir, err := os.MkdirTemp("", "oauth2-refresh") // in place of a folder below os.UserConfigDir
	check(err)
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "login.json")

	p := newProgram(bearer.Config(), file, srv.URL)
	fmt.Println("before the first login:", p.get() == nil)
	check(p.tokens.Set(bearer.Login())) // what Config.Exchange has returned; an error says that it could not be saved
	fmt.Println("after it:", p.get() == nil)

	bearer.ExpireNow() // the server no longer wants the token
	before := srv.Counts().TokenRequests
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { check(p.get()) })
	}
	wg.Wait()
	fmt.Println("100 requests, all refused at first, took", srv.Counts().TokenRequests-before, "token request")

	p = newProgram(bearer.Config(), file, srv.URL) // the program is started again
	fmt.Println("a second run needs no login:", p.get() == nil)

	token, err := p.tokens.Token()
	check(err)
	bearer.Revoke(token.RefreshToken) // the user has logged out elsewhere
	fmt.Println("login required:", errors.Is(p.get(), authretry.ErrLoginRequired))
	check(p.tokens.Set(bearer.Login())) // the user has logged in again
	fmt.Println("after the login:", p.get() == nil)
}

// A program uses an API with the login that a file keeps.
type program struct {
	url    string
	tokens *authretry.TokenSource
	client *http.Client
}

func newProgram(config *oauth2.Config, file, url string) *program {
	tokens := &authretry.TokenSource{Fetch: authretry.RefreshGrant(config), Store: filestore.New(file)}
	return &program{url, tokens, &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}}
}

func (p *program) get() error {
	resp, err := p.client.Get(p.url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := authretry.Explain(resp); err != nil { // says why the server refuses
		return err
	}
	if resp.StatusCode != http.StatusOK { // which Explain does not judge
		return errors.New(resp.Status)
	}
	return nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
