package authretry_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
)

func get(client *http.Client, url string) *http.Response {
	resp, err := client.Get(url)
	if err != nil {
		panic(err)
	}
	resp.Body.Close()
	return resp
}

func ExampleNew() {
	srv := authtest.NewServer(&authtest.Digest{Username: "Mufasa", Password: "Circle of Life"})
	defer srv.Close()

	client := &http.Client{Transport: authretry.New(
		&authretry.Digest{Username: "Mufasa", Password: "Circle of Life"},
		&authretry.Basic{Username: "Mufasa", Password: "Circle of Life"},
	)}
	fmt.Println(get(client, srv.URL+"/films").Status)
	// Output: 200 OK
}

func ExampleTransport() {
	srv := authtest.NewTLSServer(&authtest.APIKey{Key: "sesame"})
	defer srv.Close()

	transport := &authretry.Transport{
		Base:    srv.Client().Transport, // your own http.Transport, with its timeouts and certificates
		Schemes: []authretry.Scheme{&authretry.APIKey{Key: "sesame"}},
		Origins: []string{srv.URL}, // nobody else gets the key
	}
	fmt.Println(get(&http.Client{Transport: transport}, srv.URL).Status)
	// Output: 200 OK
}

func ExampleBasic() {
	srv := authtest.NewServer(&authtest.Basic{Realm: "letters", Username: "Mufasa", Password: "Circle of Life"})
	defer srv.Close()

	// Credentials by realm, from wherever they are kept.
	basic := &authretry.Basic{Credentials: func(ctx context.Context, r authretry.CredentialsRequest) (username, password string, err error) {
		switch r.Challenge.Params.Get("realm") {
		case "letters":
			return "Mufasa", "Circle of Life", nil
		}
		return "", "", fmt.Errorf("%w: no account", authretry.ErrUnsupportedChallenge)
	}}
	fmt.Println(get(&http.Client{Transport: authretry.New(basic)}, srv.URL).Status)
	// Output: 200 OK
}

func ExampleAPIKey() {
	srv := authtest.NewServer(&authtest.APIKey{Header: "X-API-Key", Key: "sesame"})
	defer srv.Close()

	client := &http.Client{Transport: authretry.New(&authretry.APIKey{Header: "X-API-Key", Key: "sesame"})}
	fmt.Println(get(client, srv.URL).Status)
	// Output: 200 OK
}

func ExampleExplain() {
	srv := authtest.NewServer(&authtest.Basic{Realm: "letters", Username: "Mufasa", Password: "Circle of Life"})
	defer srv.Close()
	client := &http.Client{Transport: authretry.New(&authretry.Basic{Username: "Mufasa", Password: "wrong"})}

	resp := get(client, srv.URL)
	if rejection, ok := errors.AsType[*authretry.Rejection](authretry.Explain(resp)); ok {
		fmt.Println(rejection.Reason)
		fmt.Println("tried:", rejection.Tried)
		fmt.Println("wanted:", rejection.Challenges[0])
	}
	// Output:
	// credentials refused
	// tried: [Basic]
	// wanted: Basic realm="letters"
}

func ExampleRejection() {
	client := &http.Client{Transport: authretry.New(&authretry.APIKey{Key: "sesame"})}
	_, err := client.Get("http://api.example.com/")
	if rejection, ok := errors.AsType[*authretry.Rejection](err); ok {
		fmt.Println(rejection)
	}
	// Output: authretry: ApiKey credentials are not sent over plain http to another host than loopback: use https, or set Transport.AllowPlaintext
}

func ExampleLogEvents() {
	srv := authtest.NewServer(&authtest.Basic{Username: "Mufasa", Password: "Circle of Life"})
	defer srv.Close()
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch a.Key {
		case slog.TimeKey, "origin", "duration": // what differs from run to run
			return slog.Attr{}
		}
		return a
	}}))
	client := &http.Client{Transport: &authretry.Transport{
		Schemes: []authretry.Scheme{&authretry.Basic{Username: "Mufasa", Password: "Circle of Life"}},
		OnEvent: authretry.LogEvents(logger),
	}}
	get(client, srv.URL)
	// Output:
	// level=DEBUG msg="authretry: challenged" scheme=Basic realm=authtest attempt=1 status=401
	// level=DEBUG msg="authretry: authorized" scheme=Basic realm=authtest attempt=2
	// level=DEBUG msg="authretry: done" attempt=2 status=200
}

func ExampleNewRetryableClient() {
	srv := authtest.NewServer(&authtest.Basic{Username: "Mufasa", Password: "Circle of Life"})
	defer srv.Close()
	srv.Inject("/", 1, authtest.Reply(http.StatusTooManyRequests, http.Header{"Retry-After": {"0"}}, ""))

	client := authretry.NewRetryableClient(authretry.New(&authretry.Basic{Username: "Mufasa", Password: "Circle of Life"}))
	resp, err := client.Get(srv.URL)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	// Output: 200 OK
}

// A signer is a Scheme of one's own: it answers "Signature" challenges by a MAC of method, path and the server's nonce.
type signer struct{ key []byte }

func (s *signer) Name() string { return "Signature" }

// What is sent does not carry the key, so it may go over plain http.
func (s *signer) PlaintextSafe() bool { return true }

func (s *signer) Answer(_ context.Context, c *authretry.Challenge, _ *http.Response) (authretry.Session, error) {
	if c == nil || c.Params.Get("nonce") == "" {
		return nil, fmt.Errorf("%w: there is no nonce", authretry.ErrUnsupportedChallenge)
	}
	return &signed{s.key, c.Params.Get("nonce")}, nil
}

type signed struct {
	key   []byte
	nonce string
}

func (s *signed) Authorize(req *http.Request) error {
	mac := hmac.New(sha256.New, s.key)
	fmt.Fprintf(mac, "%s %s %s", req.Method, req.URL.Path, s.nonce)
	req.Header.Set("Authorization", "Signature "+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return nil
}

func ExampleScheme() {
	srv := authtest.NewServer()
	defer srv.Close()
	srv.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mac := hmac.New(sha256.New, []byte("secret"))
		fmt.Fprintf(mac, "%s %s %s", r.Method, r.URL.Path, "n0nce")
		if r.Header.Get("Authorization") != "Signature "+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
			w.Header().Set("WWW-Authenticate", `Signature nonce="n0nce"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	client := &http.Client{Transport: authretry.New(&signer{[]byte("secret")})}
	fmt.Println(get(client, srv.URL+"/films").Status)
	// Output: 200 OK
}
