package guides_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// A handwritten client has something like this: a token in a header, and a function that logs in again after a 401. It has to see to the lock, to
// requests that were refused together, to the request's body, and to a server that refuses every token.
type handwritten struct {
	mu     sync.Mutex
	token  string
	reauth func(context.Context) (string, error)
}

func (h *handwritten) get(ctx context.Context, url string) (*http.Response, error) {
	for again := false; ; again = true {
		h.mu.Lock()
		token := h.token
		h.mu.Unlock()
		req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("X-Auth-Token", token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != http.StatusUnauthorized || again {
			return resp, err
		}
		resp.Body.Close()
		if token, err = h.reauth(ctx); err != nil {
			return nil, err
		}
		h.mu.Lock()
		h.token = token
		h.mu.Unlock()
	}
}

// withReauth has the same function as Fetch. The rest goes. If the token's end is known, put it into Expiry, and no request is refused at all.
func withReauth(reauth func(context.Context) (string, error)) *http.Client {
	tokens := &authretry.TokenSource{Fetch: func(ctx context.Context, _ authretry.TokenRequest) (*oauth2.Token, error) {
		token, err := reauth(ctx)
		if err != nil {
			return nil, err
		}
		return &oauth2.Token{AccessToken: token}, nil
	}}
	return &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens, Header: "X-Auth-Token"})}
}

// From code that logs in again after a 401, such as ReauthFunc of gophercloud's ProviderClient, to TokenSource.Fetch.
func Example_fromReauthentication() {
	c := &cloud{}
	srv := httptest.NewServer(c)
	defer srv.Close()

	old := &handwritten{token: c.token(), reauth: c.login}
	fmt.Println("handwritten:", c.refuse100(func() (*http.Response, error) { return old.get(context.Background(), srv.URL) }), "logins")
	client := withReauth(c.login)
	fmt.Println("authretry:", c.refuse100(func() (*http.Response, error) { return client.Get(srv.URL) }), "login")
	// Output:
	// handwritten: 100 logins
	// authretry: 1 login
}

// A cloud accepts its latest token only.
type cloud struct {
	latest, logins atomic.Int32
	refused        sync.WaitGroup // those that will be refused
}

func (c *cloud) token() string { return fmt.Sprint("token-", c.latest.Load()) }

func (c *cloud) login(context.Context) (string, error) {
	c.logins.Add(1)
	return c.token(), nil
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Auth-Token") != c.token() {
		c.refused.Done()
		c.refused.Wait() // they are refused together
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// refuse100 makes a hundred requests whose token has ended, and returns how many logins that took.
func (c *cloud) refuse100(get func() (*http.Response, error)) int32 {
	once := func() {
		resp, err := get()
		check(err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			log.Fatal(resp.Status)
		}
	}
	once() // so that there is a token
	c.latest.Add(1)
	before := c.logins.Load()
	c.refused.Add(100)
	var all sync.WaitGroup
	for range 100 {
		all.Go(once)
	}
	all.Wait()
	return c.logins.Load() - before
}
