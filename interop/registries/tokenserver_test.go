package registries

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/stretchr/testify/require"
)

const (
	service       = "lab registry"
	issuer        = "lab tokens"
	identityToken = "an identity token"
)

// A signingKey is what tokens are signed with: known to a registry by a certificate or by a JWK.
type signingKey struct {
	private     *ecdsa.PrivateKey
	id          string
	certificate []byte // DER
}

func newSigningKey(t *testing.T) *signingKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	id := rand.Text()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: id},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	return &signingKey{private, id, certificate}
}

// sign returns a JWT, with the certificate in its header (x5c), or else the key's name.
func (k *signingKey) sign(claims any, x5c bool) string {
	header := map[string]any{"typ": "JWT", "alg": "ES256"}
	if x5c {
		header["x5c"] = []string{base64.StdEncoding.EncodeToString(k.certificate)}
	} else {
		header["kid"] = k.id
	}
	text := encodeJSON(header) + "." + encodeJSON(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, k.private, sum[:])
	if err != nil {
		panic(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func encodeJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// bundle returns the certificates of keys.
func bundle(keys []*signingKey) (text []byte) {
	for _, k := range keys {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.certificate})...)
	}
	return text
}

// jwks returns keys as a JWK Set.
func jwks(t *testing.T, keys []*signingKey) []byte {
	t.Helper()
	list := []any{}
	for _, k := range keys {
		point, err := k.private.PublicKey.Bytes()
		require.NoError(t, err)
		encode := base64.RawURLEncoding.EncodeToString
		list = append(list, map[string]string{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": k.id,
			"x": encode(point[1:33]), "y": encode(point[33:])})
	}
	text, err := json.Marshal(map[string]any{"keys": list})
	require.NoError(t, err)
	return text
}

// A tokenServer is one as distribution describes it (spec/auth/token, spec/auth/oauth): GET with Basic, or without for what is
// public, and POST with password or identity token.
//
// The user may do everything, but nothing besides pull below readonly/. Everybody may pull below public/.
type tokenServer struct {
	URL string
	x5c bool

	mu       sync.Mutex // guards what follows
	key      *signingKey
	lifetime time.Duration
	noPost   bool
	requests []tokenRequest
}

// A tokenRequest is a request that a tokenServer has had.
type tokenRequest struct {
	method, user, scope string
	status              int
}

// newTokenServer starts a tokenServer, by https if it is given a certificate.
func newTokenServer(t *testing.T, x5c bool, certificates ...tls.Certificate) *tokenServer {
	s := &tokenServer{x5c: x5c, key: newSigningKey(t), lifetime: time.Hour}
	srv := httptest.NewUnstartedServer(s)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // for clients that do not trust the certificate
	if len(certificates) > 0 {
		srv.TLS = &tls.Config{Certificates: certificates}
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	s.URL = srv.URL + "/auth/token"
	return s
}

// set changes what the server does from now on.
func (s *tokenServer) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// take returns the requests since it was last called.
func (s *tokenServer) take() []tokenRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.requests
	s.requests = nil
	return taken
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user, scopes, status := s.read(r)
	s.requests = append(s.requests, tokenRequest{r.Method, user, strings.Join(scopes, " "), status})
	if status != http.StatusOK {
		w.WriteHeader(status)
		return
	}
	now := time.Now()
	answer := map[string]any{"expires_in": int(s.lifetime.Seconds()), "issued_at": now.UTC().Format(time.RFC3339Nano)}
	name := "token"
	if r.Method == http.MethodPost {
		name = "access_token"
	}
	answer[name] = s.issue(user, scopes, now)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// read returns who asks, and for what; or why not.
func (s *tokenServer) read(r *http.Request) (user string, scopes []string, status int) {
	form := r.URL.Query()
	if r.Method == http.MethodPost {
		if s.noPost {
			return "", nil, http.StatusMethodNotAllowed
		}
		if r.URL.RawQuery != "" || r.ParseForm() != nil || r.PostForm.Get("client_id") == "" || len(r.PostForm["scope"]) > 1 {
			return "", nil, http.StatusBadRequest
		}
		form = r.PostForm
	}
	scopes = strings.Fields(strings.Join(form["scope"], " "))
	hasSpace := func(scope string) bool { return strings.Contains(scope, " ") }
	if r.URL.Path != "/auth/token" || form.Get("service") != service ||
		r.Method == http.MethodGet && slices.ContainsFunc(form["scope"], hasSpace) { // there, each is a parameter of its own
		return "", scopes, http.StatusBadRequest
	}
	username, password, _ := r.BasicAuth()
	if r.Method == http.MethodPost {
		username, password = "", ""
		switch form.Get("grant_type") {
		case "password":
			username, password = form.Get("username"), form.Get("password")
		case "refresh_token":
			if form.Get("refresh_token") == identityToken {
				return servers.Username, scopes, http.StatusOK
			}
		}
	} else if r.Header.Get("Authorization") == "" {
		return "", scopes, http.StatusOK
	}
	if username != servers.Username || password != servers.Password {
		return "", scopes, http.StatusUnauthorized
	}
	return username, scopes, http.StatusOK
}

// may reports whether a user may do something.
func may(user, name, action string) bool {
	if user == "" || strings.HasPrefix(name, "readonly/") {
		return action == "pull" && (user != "" || strings.HasPrefix(name, "public/"))
	}
	return true
}

// issue returns a token for what the user may do of what is asked for.
func (s *tokenServer) issue(user string, scopes []string, now time.Time) string {
	type access struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	granted := []access{}
	for _, scope := range scopes {
		kind, rest, _ := strings.Cut(scope, ":")
		i := max(0, strings.LastIndexByte(rest, ':'))
		a := access{kind, rest[:i], []string{}}
		for action := range strings.SplitSeq(rest[min(i+1, len(rest)):], ",") {
			if may(user, a.Name, action) {
				a.Actions = append(a.Actions, action)
			}
		}
		granted = append(granted, a)
	}
	// Registries accept a token for 60 seconds more than it says. These end when they should.
	const leeway = 60
	return s.key.sign(map[string]any{"iss": issuer, "sub": user, "aud": service, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(s.lifetime+time.Second-1).Unix() - leeway, "access": granted}, s.x5c)
}
