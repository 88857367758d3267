package authretry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/jwt"
)

// A FetchFunc may get tokens from wherever they are. It is called once, however many requests wait.
func ExampleTokenSource() {
	n := 0
	tokens := &authretry.TokenSource{
		Fetch: func(ctx context.Context, r authretry.TokenRequest) (*oauth2.Token, error) {
			n++
			return &oauth2.Token{AccessToken: fmt.Sprint(n), Expiry: time.Now().Add(time.Hour)}, nil
		},
		OnToken: func(t *oauth2.Token) { fmt.Println("new token:", t.AccessToken) },
	}
	first, err := tokens.Token()
	if err != nil {
		log.Fatal(err)
	}
	if _, err := tokens.Refresh(context.Background(), first); err != nil { // a server has refused it
		log.Fatal(err)
	}
	again, err := tokens.Refresh(context.Background(), first) // so has another: no need to fetch again
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("in use:", again.AccessToken)
	// Output:
	// new token: 1
	// new token: 2
	// in use: 2
}

// A login that was kept from an earlier run: the access token is refreshed when it expires or is refused.
func ExampleRefreshGrant() {
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(r.PostFormValue("grant_type"), r.PostFormValue("refresh_token"))
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"access-2","refresh_token":"refresh-2","token_type":"Bearer","expires_in":3600}`)
	}))
	defer endpoint.Close()

	tokens := &authretry.TokenSource{
		Fetch: authretry.RefreshGrant(&oauth2.Config{
			ClientID: "my-app",
			Endpoint: oauth2.Endpoint{TokenURL: endpoint.URL},
		}),
		Initial: &oauth2.Token{AccessToken: "access-1", RefreshToken: "refresh-1", Expiry: time.Now().Add(-time.Hour)},
	}
	t, err := tokens.Token()
	if errors.Is(err, authretry.ErrLoginRequired) {
		log.Fatal("please log in again")
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(t.AccessToken)
	// Output:
	// refresh_token refresh-1
	// access-2
}

func ExampleClientCredentialsGrant() {
	tokens := &authretry.TokenSource{
		Fetch: authretry.ClientCredentialsGrant(&clientcredentials.Config{
			ClientID:     "my-service",
			ClientSecret: "from the environment",
			TokenURL:     "https://idp.example.com/token",
			Scopes:       []string{"orders.read"},
		}),
	}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}
	_ = client
}

// Any other grant is a func. Here each token comes from a file that a sidecar writes, as workload identities are often
// handed out.
func ExampleFetchFunc_file() {
	tokens := &authretry.TokenSource{
		Fetch: func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
			data, err := os.ReadFile("/var/run/secrets/token")
			if err != nil {
				return nil, err
			}
			return &oauth2.Token{AccessToken: strings.TrimSpace(string(data)), Expiry: time.Now().Add(10 * time.Minute)}, nil
		},
	}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}
	_ = client
}

// A grant of package oauth2 that only comes with a cache: a private key JWT (RFC 7523). A new source for each token has
// nothing to return from its cache.
func ExampleFetchFunc() {
	cfg := &jwt.Config{
		Email:    "robot@example.com",
		TokenURL: "https://idp.example.com/token",
		// PrivateKey: ...
	}
	tokens := &authretry.TokenSource{
		Fetch: func(ctx context.Context, _ authretry.TokenRequest) (*oauth2.Token, error) {
			return cfg.TokenSource(ctx).Token()
		},
	}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}
	_ = client
}

// A command that logs its user in with a code to type on another device (RFC 8628), and keeps the login in the
// keyring of the operating system.
func ExampleTokenSource_deviceLogin() {
	cfg := &oauth2.Config{
		ClientID: "my-cli",
		Scopes:   []string{"offline_access"},
		Endpoint: oauth2.Endpoint{
			DeviceAuthURL: "https://idp.example.com/device",
			TokenURL:      "https://idp.example.com/token",
		},
	}
	tokens := &authretry.TokenSource{
		Fetch:   authretry.RefreshGrant(cfg),
		Initial: loadFromKeyring(),
		OnToken: saveToKeyring, // rotated refresh tokens are saved before anybody uses what came with them
	}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}

	call := func() error {
		resp, err := client.Get("https://api.example.com/orders")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	login := func(ctx context.Context) error {
		device, err := cfg.DeviceAuth(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("Open %s and enter %s\n", device.VerificationURI, device.UserCode)
		t, err := cfg.DeviceAccessToken(ctx, device)
		if err != nil {
			return err
		}
		return tokens.Set(t)
	}
	err := call()
	if errors.Is(err, authretry.ErrLoginRequired) {
		if err = login(context.Background()); err == nil {
			err = call()
		}
	}
	if err != nil {
		log.Fatal(err)
	}
}

// keyring stands for a package that keeps secrets where the operating system does. Where several commands share one
// login, or may run at once, use a TokenStore in place of OnToken, so that only one of them refreshes.
var keyring map[string][]byte

func loadFromKeyring() *oauth2.Token {
	var t oauth2.Token
	if json.Unmarshal(keyring["my-cli"], &t) != nil {
		return nil // no login yet
	}
	return &t
}

func saveToKeyring(t *oauth2.Token) {
	data, err := json.Marshal(t)
	if err != nil {
		log.Print(err)
		return
	}
	keyring["my-cli"] = data
}

// A server that wants more scope for some requests gets a token that has it, together with what was granted before.
func ExampleBearer_stepUp() {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" && r.Header.Get("Authorization") != "Bearer token-for-read+write" {
			w.Header().Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="write"`)
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer api.Close()

	tokens := &authretry.TokenSource{Fetch: func(_ context.Context, r authretry.TokenRequest) (*oauth2.Token, error) {
		scopes := r.Scopes
		if scopes == nil { // as before: there is nothing yet
			scopes = []string{"read"}
		}
		scope := strings.Join(scopes, " ")
		fmt.Printf("asking for %q\n", scope) // in place of TokenEndpoint.ClientCredentials("read")
		return (&oauth2.Token{AccessToken: "token-for-" + strings.Join(scopes, "+")}).WithExtra(map[string]any{"scope": scope}), nil
	}}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens, StepUp: true})}
	for range 2 {
		for _, method := range []string{"GET", "POST"} {
			req, _ := http.NewRequest(method, api.URL, nil)
			resp, err := client.Do(req)
			if err != nil {
				log.Fatal(err)
			}
			resp.Body.Close()
			fmt.Println(method, resp.StatusCode)
		}
	}
	// Output:
	// asking for "read"
	// GET 200
	// asking for "read write"
	// POST 200
	// GET 200
	// POST 200
}

// Where the login has ended, a person is asked, once, however many requests need the token.
func ExampleTokenSource_login() {
	tokens := &authretry.TokenSource{
		Fetch: func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
			return nil, fmt.Errorf("%w: the refresh token was revoked", authretry.ErrLoginRequired)
		},
		Login: func(ctx context.Context, r authretry.TokenRequest) (*oauth2.Token, error) {
			fmt.Println("please log in")
			return &oauth2.Token{AccessToken: "new", RefreshToken: "newer", Expiry: time.Now().Add(time.Hour)}, nil
		},
	}
	for range 3 {
		token, err := tokens.Token()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(token.AccessToken)
	}
	if err := tokens.Logout(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// please log in
	// new
	// new
	// new
}
