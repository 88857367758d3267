package schemetest_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest/schemetest"
)

// Proof is a Scheme that proves to know a key, by an HMAC of the nonce that the server has asked with.
type Proof struct{ Key string }

func (p *Proof) Name() string { return "Proof" }

func (p *Proof) Answer(_ context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
	if c == nil || c.Params.Get("nonce") == "" {
		return nil, fmt.Errorf("%w: there is no nonce", authretry.ErrUnsupportedChallenge)
	}
	session := proven{c.Params.Get("nonce"), mac(p.Key, c.Params.Get("nonce"))}
	if refusal.Request.Header.Get("Authorization") == session.credentials() {
		return nil, authretry.ErrCredentialsRefused
	}
	return session, nil
}

func (p *Proof) PlaintextSafe() bool { return true }

// Format keeps the key out of everything that is printed.
func (p *Proof) Format(s fmt.State, _ rune) { io.WriteString(s, "Proof") }

// MarshalJSON keeps the key out of JSON.
func (p *Proof) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a Proof has a key, which goes nowhere")
}

type proven struct{ nonce, mac string }

func (p proven) credentials() string { return "Proof " + p.nonce + ":" + p.mac }

func (p proven) Authorize(req *http.Request) error {
	req.Header.Set("Authorization", p.credentials())
	return nil
}

func mac(key, nonce string) string {
	h := hmac.New(sha256.New, []byte(key))
	io.WriteString(h, nonce)
	return hex.EncodeToString(h.Sum(nil))
}

// asksForProof returns a server that takes any nonce as often as it comes, which a real one must not.
func asksForProof(key string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proof, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Proof ")
		nonce, sum, ok := strings.Cut(proof, ":")
		if !ok || sum != mac(key, nonce) {
			w.Header().Set("WWW-Authenticate", `Proof realm="example", nonce="n-1"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
}

// A careless is a Proof that does not keep its key to itself.
type careless struct{ Proof }

func (c *careless) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "Proof with %s", c.Key) }

// In a test, Run takes the place of Check, and fails it with the same errors.
func Example() {
	options := schemetest.Options{
		Server:  asksForProof("a key of some length"),
		Secrets: []string{"a key of some length"},
	}
	fmt.Println(schemetest.Check(func() authretry.Scheme { return &Proof{"a key of some length"} }, options))
	fmt.Println(schemetest.Check(func() authretry.Scheme { return &careless{Proof{"a key of some length"}} }, options))
	// Output:
	// <nil>
	// the Scheme shows a secret when it is printed with %v (schemetest: "No text shows a secret: no error, no event, nothing that package fmt or encoding/json makes of a Scheme or a Session.")
}

// Proofs is a Scheme that has a Proof for each account.
type Proofs struct{ Keys map[string]string }

func (p *Proofs) Name() string { return "Proof" }

func (p *Proofs) Answer(ctx context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
	own := &Proof{p.Keys[authretry.AccountOf(ctx)]}
	return own.Answer(ctx, c, refusal)
}

// A confused is a Proofs that takes the account from the path, to which anybody can be sent.
type confused struct{ Proofs }

func (p *confused) Answer(ctx context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
	account := authretry.AccountOf(ctx)
	if strings.Contains(refusal.Request.URL.Path, "/alice/") {
		account = "alice"
	}
	own := &Proof{p.Keys[account]}
	return own.Answer(ctx, c, refusal)
}

// A Scheme that has other credentials for each account is driven for two.
func Example_accounts() {
	keys := map[string]string{"alice": "a key of alice's", "bob": "a key of bob's"}
	options := schemetest.Options{Accounts: map[string]http.Handler{
		"alice": asksForProof(keys["alice"]),
		"bob":   asksForProof(keys["bob"]),
	}}
	fmt.Println(schemetest.Check(func() authretry.Scheme { return &Proofs{keys} }, options))
	fmt.Println(schemetest.Check(func() authretry.Scheme { return &confused{Proofs{keys}} }, options))
	// Output:
	// <nil>
	// a request of account "bob" had the credentials of "alice" (Scheme: "a Session serves every request of its account: path, method and origin may decide what it sends, but never whose credentials")
}
