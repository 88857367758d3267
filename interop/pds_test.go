package interop

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/dpop"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

const pdsCallback = "http://127.0.0.1/callback"

// pdsClient is the name of a client on the user's own machine, which needs no registration.
var pdsClient = "http://localhost?" + url.Values{"redirect_uri": {pdsCallback}, "scope": {"atproto transition:generic"}}.Encode()

// pdsBrowser does what the server's pages do in a browser: their script talks JSON to the server.
type pdsBrowser struct {
	t       *testing.T
	srv     *servers.Server
	page    string            // on which it is
	cookies map[string]string // by hand: they are marked Secure, which browsers take for localhost and net/http/cookiejar for https only
}

// send sends a request with the headers that a browser would add, and reads the answer into into.
func (b *pdsBrowser) send(method, u string, header map[string]string, body, into any) {
	b.t.Helper()
	data, err := json.Marshal(body)
	require.NoError(b.t, err)
	req, err := http.NewRequest(method, u, bytes.NewReader(data))
	require.NoError(b.t, err)
	for name, value := range header {
		req.Header.Set(name, value)
	}
	for name, value := range b.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(b.t, err)
	defer resp.Body.Close()
	require.Equal(b.t, 200, resp.StatusCode, u)
	for _, c := range resp.Cookies() {
		b.cookies[c.Name] = c.Value
	}
	if into != nil {
		require.NoError(b.t, json.NewDecoder(resp.Body).Decode(into))
	}
}

// open opens a page of the server.
func (b *pdsBrowser) open(u string) {
	b.t.Helper()
	b.page = u
	b.send("GET", u, map[string]string{"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, nil, nil)
}

// call is a call by the script of the page.
func (b *pdsBrowser) call(name, token string, body, into any) {
	b.t.Helper()
	header := map[string]string{"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "same-origin", "Sec-Fetch-Dest": "empty", "Origin": b.srv.URL,
		"Referer": b.page, "Content-Type": "application/json", "X-Csrf-Token": b.cookies["csrf-token"]}
	if token != "" {
		header["Authorization"] = "Bearer " + token
	}
	b.send("POST", b.srv.URL+"/@atproto/oauth-provider/~api/"+name, header, body, into)
}

// pdsAccount makes an account.
func pdsAccount(t *testing.T, srv *servers.Server, name string) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"handle": name + ".test", "email": name + "@example.com", "password": servers.Password})
	require.NoError(t, err)
	resp, err := http.Post(srv.URL+"/xrpc/com.atproto.server.createAccount", "application/json", bytes.NewReader(body))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
}

// pdsLogin pushes an authorization request (RFC 9126), which the server insists on, has somebody sign in and consent, and
// returns the token that comes of it.
func pdsLogin(t *testing.T, srv *servers.Server, endpoint *authretry.TokenEndpoint, name string) *oauth2.Token {
	t.Helper()
	verifier := rand.Text() + rand.Text()
	sum := sha256.Sum256([]byte(verifier))
	form := url.Values{"client_id": {pdsClient}, "redirect_uri": {pdsCallback}, "response_type": {"code"}, "scope": {"atproto transition:generic"},
		"state": {rand.Text()}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}}.Encode()
	var pushed struct {
		RequestURI string `json:"request_uri"`
	}
	for _, want := range []int{400, 201} { // the first brings the nonce
		req, err := http.NewRequest("POST", srv.URL+"/oauth/par", strings.NewReader(form))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		require.NoError(t, endpoint.Proof.Prove(req, ""))
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		endpoint.Proof.Learn(resp)
		require.Equal(t, want, resp.StatusCode)
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&pushed))
		resp.Body.Close()
	}

	browser := &pdsBrowser{t: t, srv: srv, cookies: map[string]string{}}
	browser.open(srv.URL + "/oauth/authorize?" + url.Values{"client_id": {pdsClient}, "request_uri": {pushed.RequestURI}}.Encode())
	var signedIn struct {
		Account        struct{ DID string }
		EphemeralToken string
	}
	browser.call("sign-in", "", map[string]any{"locale": "en", "username": name + ".test", "password": servers.Password, "remember": false}, &signedIn)
	var consented struct{ URL string }
	browser.call("consent", signedIn.EphemeralToken, map[string]any{"did": signedIn.Account.DID}, &consented)
	back, err := url.Parse(consented.URL)
	require.NoError(t, err)
	require.Equal(t, []string{pdsCallback}, back.Query()["redirect_uri"])
	require.NotEmpty(t, back.Query().Get("code"), "%s", back.Query().Get("error_description"))
	login, err := endpoint.AuthorizationCode(back.Query().Get("code"), verifier, pdsCallback)(t.Context(), authretry.TokenRequest{})
	require.NoError(t, err)
	return login
}

func newES256(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func newProofs(t *testing.T, signer *ecdsa.PrivateKey) *dpop.Key {
	t.Helper()
	key, err := dpop.NewKey(signer)
	require.NoError(t, err)
	return key
}

func TestPDS(t *testing.T) {
	srv := servers.PDS(t)
	pdsAccount(t, srv, "mufasa")
	signer := newES256(t)
	key := newProofs(t, signer)
	base := &sends{}
	endpoint := &authretry.TokenEndpoint{URL: srv.URL + "/oauth/token", ClientID: pdsClient, Proof: key, HTTPClient: &http.Client{Transport: base}}
	login := pdsLogin(t, srv, endpoint, "mufasa")
	require.Equal(t, "DPoP", login.TokenType)
	require.Equal(t, map[string]int{"/oauth/token": 1}, base.take(), "the nonce is that of the pushed request")

	const session = "/xrpc/com.atproto.server.getSession"
	clientOf := func(source *authretry.TokenSource, key *dpop.Key) *http.Client {
		return &http.Client{Transport: &authretry.Transport{Base: base, Schemes: []authretry.Scheme{&dpop.Scheme{Source: source, Key: key}}}}
	}
	tokens := &authretry.TokenSource{Fetch: endpoint.Refresh(), Initial: login}
	client := clientOf(tokens, key)
	_, body := getOK(t, client, srv.URL+session)
	require.Contains(t, body, "mufasa.test")
	require.Empty(t, atOnce(client, 50, 4, srv.URL+session))
	require.Equal(t, map[string]int{session: 201}, base.take())

	// A process that begins has no nonce.
	begins := clientOf(tokens, newProofs(t, signer))
	getOK(t, begins, srv.URL+session)
	require.Equal(t, map[string]int{session: 2, "401": 1}, base.take())
	require.Empty(t, atOnce(begins, 50, 4, srv.URL+session))
	require.Equal(t, map[string]int{session: 200}, base.take())

	// Each refresh token serves once, and the access token dies with it.
	seen := map[string]bool{login.RefreshToken: true}
	for range 5 {
		got, err := tokens.Refresh(t.Context(), nil)
		require.NoError(t, err)
		require.False(t, seen[got.RefreshToken], "rotated")
		seen[got.RefreshToken] = true
		getOK(t, client, srv.URL+session)
	}
	require.Equal(t, map[string]int{"/oauth/token": 5, session: 5}, base.take())

	// A crowd with a token that the server has forgotten: one refresh, and nobody notices.
	dead := func() *authretry.TokenSource {
		current, err := tokens.Token()
		require.NoError(t, err)
		return &authretry.TokenSource{Fetch: endpoint.Refresh(), Initial: &oauth2.Token{AccessToken: login.AccessToken, TokenType: "DPoP", RefreshToken: current.RefreshToken}}
	}
	tokens = dead()
	require.Empty(t, atOnce(clientOf(tokens, key), 50, 4, srv.URL+session))
	counted := base.take()
	refused := counted["401"]
	require.Equal(t, map[string]int{"/oauth/token": 1, session: 200 + refused, "401": refused}, counted)
	require.LessOrEqual(t, refused, 50, "none is refused but the first of each")
	require.Positive(t, refused)

	// Neither a nonce nor a token that is good: the server judges the nonce first. The second refusal teaches enough.
	endpoint = &authretry.TokenEndpoint{URL: endpoint.URL, ClientID: pdsClient, Proof: newProofs(t, signer), HTTPClient: endpoint.HTTPClient}
	tokens = dead()
	begins = clientOf(tokens, endpoint.Proof.(*dpop.Key))
	resp, _ := get(t, begins, srv.URL+session)
	require.Equal(t, 401, resp.StatusCode)
	getOK(t, begins, srv.URL+session)
	require.Equal(t, map[string]int{"/oauth/token": 1, session: 3, "401": 2}, base.take())

	// A token of another key, of which the client cannot know that it is.
	current, err := tokens.Token()
	require.NoError(t, err)
	stolen := &authretry.TokenSource{Initial: &oauth2.Token{AccessToken: current.AccessToken, TokenType: "DPoP"}}
	resp, _ = get(t, clientOf(stolen, newProofs(t, newES256(t))), srv.URL+session)
	require.Equal(t, 401, resp.StatusCode)
	require.Contains(t, resp.Header.Get("WWW-Authenticate"), "Invalid DPoP key binding")
	require.Equal(t, map[string]int{session: 2, "401": 2}, base.take())

	// Whoever presents an old refresh token ends the login.
	thief := &authretry.TokenSource{Fetch: endpoint.Refresh(), Initial: login}
	_, err = thief.Refresh(t.Context(), nil)
	require.ErrorIs(t, err, authretry.ErrLoginRequired)
	_, err = tokens.Refresh(t.Context(), nil)
	require.ErrorIs(t, err, authretry.ErrLoginRequired)
}
