package authretry_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// A token endpoint takes what package oauth2 has no room for: here, which API the token is for (RFC 8707), at each refresh.
func ExampleTokenEndpoint() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := r.BasicAuth()
		fmt.Println(user, r.PostFormValue("grant_type"), r.PostFormValue("resource"))
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"access-2","refresh_token":"refresh-2","token_type":"Bearer","expires_in":3600}`)
	}))
	defer server.Close()

	endpoint := &authretry.TokenEndpoint{
		URL:      server.URL, // "https://auth.example.com/token"
		ClientID: "my-app",
		Auth:     authretry.SecretBasic("secret"),
		Params:   url.Values{"resource": {"https://api.example.com"}},
	}
	tokens := &authretry.TokenSource{
		Fetch:   endpoint.Refresh(),
		Initial: &oauth2.Token{RefreshToken: "refresh-1"},
	}
	token, err := tokens.Token()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token.AccessToken)
	// Output:
	// my-app refresh_token https://api.example.com
	// access-2
}

// A client that signs with its own key instead of having a secret (private_key_jwt, RFC 7523).
func ExamplePrivateKeyJWT() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := base64.RawURLEncoding.DecodeString(strings.Split(r.PostFormValue("client_assertion"), ".")[1])
		var said struct{ Sub, Aud string }
		json.Unmarshal(claims, &said)
		fmt.Println(r.PostFormValue("grant_type"), said.Sub, said.Aud)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"access","token_type":"Bearer","expires_in":3600}`)
	}))
	defer server.Close()

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // yours: from a file, a TPM, a key management service
	if err != nil {
		log.Fatal(err)
	}
	endpoint := &authretry.TokenEndpoint{
		URL:      server.URL,
		Issuer:   "https://auth.example.com",
		ClientID: "my-service",
		Auth:     &authretry.PrivateKeyJWT{Signer: key, KeyID: "2026-11"},
	}
	tokens := &authretry.TokenSource{Fetch: endpoint.ClientCredentials("read")}
	if _, err := tokens.Token(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// client_credentials my-service https://auth.example.com
}

// A workload in Kubernetes says who it is by its service account token, which is projected into a file and replaced there
// before it expires. Here it authenticates a client, as Microsoft Entra has it; where it is exchanged for another token, as at
// Google, see [authretry.TokenEndpoint.TokenExchange].
func ExampleAssertionFile() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "token") // /var/run/secrets/azure/tokens/azure-identity-token, in $AZURE_FEDERATED_TOKEN_FILE
	os.WriteFile(path, []byte("header.claims.signature\n"), 0o600)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(r.PostFormValue("client_id"), r.PostFormValue("client_assertion"), r.PostFormValue("scope"))
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"access","token_type":"Bearer","expires_in":3600}`)
	}))
	defer server.Close()

	endpoint := &authretry.TokenEndpoint{
		URL:      server.URL, // https://login.microsoftonline.com/TENANT/oauth2/v2.0/token
		ClientID: "my-workload",
		Auth:     authretry.AssertionFile(path),
	}
	tokens := &authretry.TokenSource{Fetch: endpoint.ClientCredentials("https://api.example.com/.default")}
	if _, err := tokens.Token(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// my-workload header.claims.signature https://api.example.com/.default
}

// A GitHub App gets tokens for an installation by a JWT of its own. This FetchFunc is all that there is to it; an SDK that
// sends "Authorization: token T" sets Prefix.
func ExampleFetchFunc_gitHubApp() {
	github := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/access_tokens") {
			fmt.Println(r.Method, r.URL.Path, strings.Count(r.Header.Get("Authorization"), "."))
			w.WriteHeader(http.StatusCreated)
			json.NewEncoder(w).Encode(map[string]any{"token": "ghs_1", "expires_at": time.Now().Add(time.Hour)})
			return
		}
		fmt.Println(r.Method, r.URL.Path, r.Header.Get("Authorization"))
	}))
	defer github.Close()
	key, err := rsa.GenerateKey(rand.Reader, 2048) // the App's private key
	if err != nil {
		log.Fatal(err)
	}

	encode := base64.RawURLEncoding.EncodeToString
	installation := func(ctx context.Context, _ authretry.TokenRequest) (*oauth2.Token, error) {
		now := time.Now()
		claims := fmt.Sprintf(`{"iss":"my-app","iat":%d,"exp":%d}`, now.Add(-time.Minute).Unix(), now.Add(9*time.Minute).Unix())
		text := encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encode([]byte(claims))
		sum := sha256.Sum256([]byte(text))
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(ctx, "POST", github.URL+"/app/installations/7/access_tokens", nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+text+"."+encode(signature))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			return nil, fmt.Errorf("the installation's token was refused with %s", resp.Status)
		}
		var answer struct {
			Token   string    `json:"token"`
			Expires time.Time `json:"expires_at"`
		}
		if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil {
			return nil, err
		}
		return &oauth2.Token{AccessToken: answer.Token, Expiry: answer.Expires}, nil
	}
	client := &http.Client{Transport: authretry.New(&authretry.Bearer{
		Source: &authretry.TokenSource{Fetch: installation},
		Prefix: "token",
	})}
	resp, err := client.Get(github.URL + "/repos/me/mine")
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	// Output:
	// POST /app/installations/7/access_tokens 2
	// GET /repos/me/mine token ghs_1
}
