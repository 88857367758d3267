package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/login"
	"github.com/stretchr/testify/require"
)

// A boundServer is an API that takes only tokens that are bound to a key, and, at an origin of its own, the authorization server that
// issues them.
type boundServer struct {
	authtest.DPoP
	noNonceBefore bool           // the API gives none before it has seen a proof
	metadata      map[string]any // further members of the API's
	server        map[string]any // and of the authorization server's
	answer        http.Handler   // in place of the API's, to a request with a token; nil: none

	api, issuer *httptest.Server
	date        string // on every answer of the API: those that are alike stay so when a second is over
	guard       *authtest.Server

	mu         sync.Mutex // guards what follows
	logins     []url.Values
	registered map[string]any
	revoked    []string
	secrets    []string // the tokens and proofs that came, and what the token endpoint has issued
}

func (b *boundServer) start(t *testing.T) {
	b.date = time.Now().UTC().Format(http.TimeFormat)
	b.guard = authtest.NewServer(&b.DPoP)
	b.guard.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusOK) }))
	b.api, b.issuer = httptest.NewServer(http.HandlerFunc(b.serveAPI)), httptest.NewServer(http.HandlerFunc(b.serveIssuer))
	for _, s := range []*httptest.Server{b.api, b.issuer} {
		t.Cleanup(s.Close)
	}
	t.Cleanup(b.guard.Close)
}

// serveAPI repeats in its answer what it was sent, where why401 prints it.
func (b *boundServer) serveAPI(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Date", b.date)
	if r.URL.Path == "/.well-known/oauth-protected-resource" {
		serveJSON(w, map[string]any{"resource": b.api.URL, "authorization_servers": []string{b.issuer.URL}}, b.metadata)
		return
	}
	proof := r.Header.Get("DPoP")
	if proof == "" {
		if w.Header().Set("Server", "authtest"); b.noNonceBefore {
			w = &withoutNonce{w}
		}
		b.guard.ServeHTTP(w, r)
		return
	}
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	b.keep(token, proof)
	w.Header().Set("X-Request-Id", token)
	w.Header().Set("Server", proof)
	if b.answer != nil {
		b.answer.ServeHTTP(w, r)
		return
	}
	b.guard.ServeHTTP(w, r)
}

func (b *boundServer) keep(secrets ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.secrets = append(b.secrets, secrets...)
}

// serveIssuer is the authorization server, at which everybody agrees at once.
func (b *boundServer) serveIssuer(w http.ResponseWriter, r *http.Request) {
	at := b.issuer.URL
	body, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(body))
	switch r.URL.Path {
	case "/.well-known/oauth-authorization-server":
		serveJSON(w, map[string]any{"issuer": at, "authorization_endpoint": at + "/authorize", "token_endpoint": at + "/token", "revocation_endpoint": at + "/revoke",
			"registration_endpoint": at + "/register", "code_challenge_methods_supported": []string{"S256"}}, b.server)
	case "/register":
		b.mu.Lock()
		defer b.mu.Unlock()
		json.Unmarshal(body, &b.registered)
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(map[string]any{"client_id": "why", "redirect_uris": b.registered["redirect_uris"], "token_endpoint_auth_method": "none"})
	case "/authorize":
		q := r.URL.Query()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.logins = append(b.logins, q)
		back := url.Values{"code": {b.Code(q.Get("dpop_jkt"))}, "state": {q.Get("state")}, "iss": {at}}
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
	case "/revoke":
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.Revoke(form.Get("token")) {
			b.revoked = append(b.revoked, form.Get("token"))
		}
	default: // the token endpoint
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		answer := httptest.NewRecorder()
		b.guard.ServeHTTP(answer, r)
		var said struct {
			Access  string `json:"access_token"`
			Refresh string `json:"refresh_token"`
		}
		if json.Unmarshal(answer.Body.Bytes(), &said); said.Access != "" {
			b.keep(said.Access, said.Refresh)
		}
		b.keep(r.Header.Get("DPoP"))
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		w.Write(answer.Body.Bytes())
	}
}

func serveJSON(w http.ResponseWriter, documents ...map[string]any) {
	all := map[string]any{}
	for _, d := range documents {
		for name, value := range d {
			all[name] = value
		}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(all)
}

// withoutNonce leaves the nonce out of an answer.
type withoutNonce struct{ http.ResponseWriter }

func (w *withoutNonce) WriteHeader(status int) {
	w.Header().Del("DPoP-Nonce")
	w.ResponseWriter.WriteHeader(status)
}

func (w *withoutNonce) Unwrap() http.ResponseWriter { return w.ResponseWriter }

var nonces = regexp.MustCompile(`n-[A-Z2-7]{26}`)

// TestLoginByDPoP has somebody log in where only tokens that are bound to a key are taken.
func TestLoginByDPoP(t *testing.T) {
	approve := &login.Browser{Open: authtest.Approve, Out: io.Discard}
	nobody := &login.Browser{Open: func(context.Context, string) error { t.Error("nobody is to be asked"); return nil }, Out: io.Discard}
	once := []string{"authorization_code 200"}
	client, bound := []string{"-client-id", "why"}, map[string]any{"dpop_bound_access_tokens_required": true}
	rs256 := map[string]any{"dpop_signing_alg_values_supported": []string{"PS256", "RS256"}}
	for _, c := range []struct {
		name   string
		server *boundServer
		args   []string
		flow   login.Flow
		status int
		asked  []string // of the token endpoint
	}{
		{"login-dpop", &boundServer{}, client, approve, exitPassed, once},
		{"login-dpop-by-metadata", &boundServer{DPoP: authtest.DPoP{AsBearer: true}, metadata: bound}, []string{"-register"}, approve, exitPassed, once},
		{"login-dpop-nonce", &boundServer{DPoP: authtest.DPoP{Nonces: authtest.NonceEachTime}, noNonceBefore: true}, client, approve, exitPassed, []string{"authorization_code 400 use_dpop_nonce", "authorization_code 200"}},
		{"login-dpop-refused", &boundServer{answer: says(401, "WWW-Authenticate: DPoP algs=\"ES256\"")}, client, approve, exitRefused, once},
		{"login-dpop-refused-as-bearer", &boundServer{DPoP: authtest.DPoP{AsBearer: true}, metadata: bound,
			answer: says(401, `WWW-Authenticate: Bearer error="invalid_token"`)}, client, approve, exitRefused, once},
		{"login-dpop-proof-refused", &boundServer{answer: says(401, `WWW-Authenticate: DPoP error="invalid_dpop_proof"`)}, client, approve, exitRefused, once},
		{"login-dpop-nonce-for-ever", &boundServer{answer: says(401, "WWW-Authenticate: DPoP error=\"use_dpop_nonce\"\nDPoP-Nonce: n-AAAAAAAAAAAAAAAAAAAAAAAAAA")}, client, approve, exitRefused, once},
		{"login-dpop-no-nonce", &boundServer{answer: says(401, `WWW-Authenticate: DPoP error="use_dpop_nonce"`)}, client, approve, exitRefused, once},
		{"login-dpop-refused-after-nonce", &boundServer{answer: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if p := decodeJWT(r.Header.Get("DPoP")); p != nil && p.Nonce != "" {
				says(401, `WWW-Authenticate: DPoP error="invalid_token"`)(w, r)
				return
			}
			says(401, "WWW-Authenticate: DPoP error=\"use_dpop_nonce\"\nDPoP-Nonce: n-AAAAAAAAAAAAAAAAAAAAAAAAAA")(w, r)
		})}, client, approve, exitRefused, once},
		{"login-dpop-unasked", &boundServer{}, nil, nobody, exitFailed, nil},
		{"login-dpop-not-bound", &boundServer{DPoP: authtest.DPoP{TokenType: "Bearer"}}, client, approve, exitFailed, once},
		{"login-dpop-algorithms", &boundServer{DPoP: authtest.DPoP{Algorithms: []string{"EdDSA", "RS256"}}}, client, nobody, exitFailed, nil},
		{"login-dpop-algorithms-of-resource", &boundServer{metadata: map[string]any{"dpop_signing_alg_values_supported": []string{"ES512"}}}, client, nobody, exitFailed, nil},
		{"login-dpop-algorithms-of-issuer", &boundServer{server: rs256}, client, nobody, exitFailed, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.server
			b.start(t)
			page := filepath.Join(t.TempDir(), "out.html")
			args := append(append([]string{"-login", "-timeout", "20s", "-html", page}, c.args...), b.api.URL+"/")
			out, status := runLogin(c.flow, args)
			require.Equal(t, c.status, status, out)
			html, err := os.ReadFile(page)
			require.NoError(t, err)
			logins := 0
			if c.flow == approve {
				logins = 1
			}
			require.Len(t, b.logins, logins)
			if status != exitFailed {
				q := b.logins[0]
				require.Len(t, q.Get("dpop_jkt"), 43, "the code is bound to the key, too")
				require.Equal(t, "S256", q.Get("code_challenge_method"))
				require.Contains(t, out, "X-Request-Id: "+hidden)
				require.Contains(t, out, "Server: "+hidden)
				require.NotEmpty(t, b.revoked)
				require.Contains(t, b.secrets, b.revoked[0])
				require.Equal(t, strings.Contains(c.name, "by-metadata"), b.registered["dpop_bound_access_tokens"] == true)
			}
			var asked []string
			for _, r := range b.guard.TokenRequests() {
				asked = append(asked, r.String())
			}
			require.Equal(t, c.asked, asked)
			golden(t, c.name+".txt", nonces.ReplaceAllString(address.ReplaceAllString(dated.ReplaceAllString(out, ""), "127.0.0.1:12345"), "n-…"))

			asJSON, status := runLogin(c.flow, append([]string{"-json"}, args...))
			require.Equal(t, c.status, status)
			for _, secret := range b.secrets {
				head, rest, _ := strings.Cut(secret, ".")
				for _, part := range append(strings.Split(rest, "."), secret, head) { // of a proof, that are its claims and its signature
					if part != "" {
						require.NotContains(t, out+string(html)+asJSON, part)
					}
				}
			}
			require.Zero(t, b.Replays())
		})
	}
}

// Nobody is asked to log in a second time, where a redirect leads from what takes Bearer to what takes DPoP only.
func TestLoginByBearerIsTheOnlyOne(t *testing.T) {
	oauth, bound := &authtest.OAuth{ClientID: "why"}, &authtest.DPoP{}
	server := authtest.NewServer(oauth)
	defer server.Close()
	server.Protect("/bound", bound)
	server.Handle("/", http.RedirectHandler("/bound", http.StatusFound))
	out, status := runLogin(&login.Browser{Open: authtest.Approve, Out: io.Discard}, []string{"-login", "-client-id", "why", server.URL + "/"})
	require.Equal(t, exitRefused, status, out)
	require.Equal(t, 1, oauth.Logins())
	out = strings.Join(strings.Fields(out), " ")
	require.Contains(t, out, "They are for Bearer, and it asks for DPoP.")
	require.Contains(t, out, "the token was revoked then")
}

// Who gives nothing to a server that wants DPoP is told of -login, which is what a token for it takes.
func TestDPoPIsTriedByLogin(t *testing.T) {
	b := &boundServer{}
	b.start(t)
	out, status := runLogin(nil, []string{b.api.URL + "/"})
	require.Equal(t, exitRefused, status)
	require.Contains(t, out, "What to do: Run it again with -login.\n")
	require.NotContains(t, out, "Proof: key}", "it does not say that there are metadata")
	server := httptest.NewServer(says(401, `WWW-Authenticate: DPoP resource_metadata="https://api.example.com/meta"`))
	defer server.Close()
	out, _ = runLogin(nil, []string{server.URL + "/"})
	require.Contains(t, out, "config := &discover.Config{Flow: login.Auto(os.Stderr), Proof: key}")
}

// A server on this machine may name others there, whatever it is called: where it is says the connection.
func TestLoginByDPoPUnderAName(t *testing.T) {
	b := &boundServer{}
	named := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("DPoP") == "" {
			says(401, `WWW-Authenticate: DPoP resource_metadata="`+b.api.URL+`/.well-known/oauth-protected-resource"`)(w, r)
			return
		}
		b.guard.ServeHTTP(w, r)
	}))
	defer named.Close()
	_, port, err := net.SplitHostPort(named.Listener.Addr().String())
	require.NoError(t, err)
	b.metadata = map[string]any{"resource": "http://api.example.test:" + port}
	b.start(t)
	base := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) { // as /etc/hosts would have it
		return new(net.Dialer).DialContext(ctx, network, named.Listener.Addr().String())
	}}
	out, status := runLoginOver(base, &login.Browser{Open: authtest.Approve, Out: io.Discard},
		[]string{"-login", "-timeout", "20s", "-allow-plaintext", "-client-id", "why", "http://api.example.test:" + port + "/"})
	require.Equal(t, exitPassed, status, out)
	require.Contains(t, out, "with DPoP credentials\n     200 OK")
}

// A server that takes Bearer tokens gets one, whatever else it takes.
func TestLoginWhereBothAreTaken(t *testing.T) {
	oauth := &authtest.OAuth{ClientID: "why"}
	bound := &authtest.DPoP{}
	server := authtest.NewServer(bound, oauth)
	defer server.Close()
	out, status := runLogin(&login.Browser{Open: authtest.Approve, Out: io.Discard}, []string{"-login", "-client-id", "why", server.URL + "/"})
	require.Equal(t, exitPassed, status, out)
	require.Regexp(t, `(?m)^ *WWW-Authenticate: DPoP`, out)
	require.Contains(t, out, "with Bearer credentials\n     200 OK")
	require.NotContains(t, out, "bound to a key")
	require.Equal(t, 1, oauth.Logins())
	require.Zero(t, bound.Proofs())
}
