// Package oauthserver is an OAuth 2.0 authorization server, built on ory/fosite, and a resource that it guards: a
// second opinion on what authtest and we believe servers do.
//
// Refresh tokens rotate. The second use of one revokes the login (RFC 9700 §4.14.2), and a refresh ends the old access
// token at once.
package oauthserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/compose"
	"github.com/ory/fosite/storage"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// The client's credentials have characters that must be form-encoded before Basic (RFC 6749 §2.3.1).
const (
	clientID     = "client:with/specials"
	clientSecret = "s3cret +%&=ü"
	username     = "mufasa"
	password     = "circle of life"
)

// A Server is an authorization server and a resource, at /resource. It is safe for concurrent use.
type Server struct {
	URL string

	server   *httptest.Server
	provider fosite.OAuth2Provider
	store    *storage.MemoryStore
	strategy interface {
		AccessTokenSignature(ctx context.Context, token string) string
	}

	mu     sync.Mutex // one request at a time, since the MemoryStore's rotation is not atomic; guards what follows
	config *fosite.Config
	counts Counts
	latest string          // the access token issued last
	seen   map[string]bool // the X-Client of requests accepted with it
	owed   map[string]bool // the X-Request of requests that were refused, and have not come through since
}

// Counts are what has happened since the start.
type Counts struct {
	Refreshes     int // granted
	InvalidGrants int
	TokenRequests int
	Accepted      int // by the resource
	Refused       int
}

// New starts a Server whose access tokens live for the time given. Close it after use.
func New(lifetime time.Duration) (*Server, error) {
	config := &fosite.Config{
		AccessTokenLifespan:  lifetime,
		RefreshTokenLifespan: time.Hour,
		RefreshTokenScopes:   []string{"offline"},
		GlobalSecret:         []byte("a secret of thirty-two bytes or so"),
		HashCost:             4,
	}
	secret, err := (&fosite.BCrypt{Config: config}).Hash(context.Background(), []byte(clientSecret))
	if err != nil {
		return nil, err
	}
	store := storage.NewMemoryStore()
	store.Clients[clientID] = &fosite.DefaultClient{
		ID: clientID, Secret: secret,
		GrantTypes: []string{"refresh_token", "password", "client_credentials"},
		Scopes:     []string{"offline", "read", "write"},
	}
	store.Users[username] = storage.MemoryUserRelation{Username: username, Password: password}
	strategy := compose.NewOAuth2HMACStrategy(config)
	s := &Server{
		store: store, config: config, strategy: strategy, seen: make(map[string]bool), owed: make(map[string]bool),
		provider: compose.Compose(config, store, strategy,
			compose.OAuth2ClientCredentialsGrantFactory,
			compose.OAuth2RefreshTokenGrantFactory,
			//lint:ignore SA1019 the way to a login that needs no browser
			compose.OAuth2ResourceOwnerPasswordCredentialsFactory,
			compose.OAuth2TokenRevocationFactory,
			compose.OAuth2TokenIntrospectionFactory,
		),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/token", s.serveToken)
	mux.HandleFunc("/revoke", s.serveRevoke)
	mux.HandleFunc("/resource", s.serveResource)
	s.server = httptest.NewServer(mux)
	s.URL = s.server.URL
	return s, nil
}

// Close stops the Server.
func (s *Server) Close() { s.server.Close() }

// Config returns the client's configuration for the Server at url.
func Config(url string) *oauth2.Config {
	return &oauth2.Config{ClientID: clientID, ClientSecret: clientSecret, Endpoint: oauth2.Endpoint{TokenURL: url + "/token"}}
}

// ClientCredentials is Config for the client_credentials grant.
func (s *Server) ClientCredentials(scopes ...string) *clientcredentials.Config {
	return &clientcredentials.Config{ClientID: clientID, ClientSecret: clientSecret, TokenURL: s.URL + "/token", Scopes: scopes}
}

// Login returns the first tokens of a login with the scopes given.
func (s *Server) Login(ctx context.Context, scopes ...string) (*oauth2.Token, error) {
	config := Config(s.URL)
	config.Scopes = append(scopes, "offline")
	config.Endpoint.AuthStyle = oauth2.AuthStyleInHeader
	return config.PasswordCredentialsToken(ctx, username, password)
}

// Expire ends the access token issued last, ahead of its time.
func (s *Server) Expire(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == "" {
		return errors.New("no access token has been issued")
	}
	clear(s.seen)
	return s.store.DeleteAccessTokenSession(ctx, s.strategy.AccessTokenSignature(ctx, s.latest))
}

// SetLifetime sets the lifetime of the access tokens issued from now on.
func (s *Server) SetLifetime(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.AccessTokenLifespan = d
}

// Counts returns what has happened so far.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// HasSeen reports whether a client, by its X-Client header, has come through with the access token issued last.
func (s *Server) HasSeen(client string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[client]
}

// Owed returns how many requests, by their X-Request header, were refused and have not come through since.
func (s *Server) Owed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.owed)
}

func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.TokenRequests++
	ctx := r.Context()
	request, err := s.provider.NewAccessRequest(ctx, r, &fosite.DefaultSession{})
	if err == nil && (request.GetGrantTypes().ExactOne("client_credentials") || request.GetGrantTypes().ExactOne("password")) {
		for _, scope := range request.GetRequestedScopes() {
			request.GrantScope(scope)
		}
	}
	var response fosite.AccessResponder
	if err == nil {
		response, err = s.provider.NewAccessResponse(ctx, request)
	}
	if err != nil {
		if errors.Is(err, fosite.ErrInvalidGrant) {
			s.counts.InvalidGrants++
		}
		s.provider.WriteAccessError(ctx, w, request, err)
		return
	}
	if request.GetGrantTypes().ExactOne("refresh_token") {
		s.counts.Refreshes++
	}
	s.latest = response.GetAccessToken()
	clear(s.seen)
	s.provider.WriteAccessResponse(ctx, w, request, response)
}

func (s *Server) serveRevoke(w http.ResponseWriter, r *http.Request) {
	err := s.provider.NewRevocationRequest(r.Context(), r)
	s.provider.WriteRevocationResponse(r.Context(), w, err)
}

func (s *Server) serveResource(w http.ResponseWriter, r *http.Request) {
	token := fosite.AccessTokenFromRequest(r)
	s.mu.Lock() // the MemoryStore hands out one session to all
	defer s.mu.Unlock()
	_, request, err := s.provider.IntrospectToken(r.Context(), token, fosite.AccessToken, &fosite.DefaultSession{})
	scope := r.URL.Query().Get("scope")
	switch {
	case token == "":
		s.counts.Refused++
		w.Header().Set("WWW-Authenticate", `Bearer realm="interop"`)
		w.WriteHeader(http.StatusUnauthorized)
	case err != nil:
		s.counts.Refused++
		if id := r.Header.Get("X-Request"); id != "" {
			s.owed[id] = true
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="interop", error="invalid_token", error_description="the token is expired or revoked"`)
		w.WriteHeader(http.StatusUnauthorized)
	case scope != "" && !request.GetGrantedScopes().Has(strings.Fields(scope)...):
		s.counts.Refused++
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="interop", error="insufficient_scope", scope=%q`, scope))
		w.WriteHeader(http.StatusForbidden)
	default:
		s.counts.Accepted++
		delete(s.owed, r.Header.Get("X-Request"))
		if client := r.Header.Get("X-Client"); client != "" && token == s.latest {
			s.seen[client] = true
		}
	}
}
