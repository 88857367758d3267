package discover

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/guarded"
)

// A registered is a client that an authorization server has registered on demand.
type registered struct {
	id, secret, method string
	redirectURI        string    // with which; "" if it was for a device
	expires            time.Time // of the secret; zero: never
}

// isFor reports whether it can be used with a redirect URI, "" for a device.
func (g *registered) isFor(redirectURI string, now time.Time) bool {
	return (g.expires.IsZero() || now.Before(g.expires)) && (redirectURI == "" || g.redirectURI == redirectURI)
}

// An identity is what the program is called at one authorization server.
type identity struct {
	id         string
	auth       authretry.ClientAuth
	registered *registered // nil if it was not registered on demand
}

// named returns what the program is called at the server by Config.Clients.
func (c *Config) named(issuer string) (identity, bool) {
	for _, client := range c.Clients {
		if client.Issuer == issuer {
			return identity{id: client.ID, auth: client.Auth}, true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range c.Clients {
		if client.Issuer != "" {
			continue
		}
		if by, ok := c.bound[client.ID]; ok && by != issuer {
			continue // it is known to another one, for which its credentials are
		}
		keep(&c.bound, client.ID, issuer)
		return identity{id: client.ID, auth: client.Auth}, true
	}
	return identity{}, false
}

// bind notes that a Client that names no issuer is that of a saved login.
func (c *Config) bind(known *authretry.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range c.Clients {
		if client.Issuer == "" && client.ID == known.ClientID && known.Issuer != "" {
			keep(&c.bound, client.ID, known.Issuer)
		}
	}
}

// identify returns what the program is called at the server, for a redirect URI, "" if there is none; registering it if need be.
func (c *Config) identify(ctx context.Context, s *Server, known *authretry.Record, redirectURI string) (identity, error) {
	if who, ok := c.named(s.Issuer); ok {
		return who, nil
	}
	if g := c.kept(s.Issuer, known); g != nil && g.isFor(redirectURI, time.Now()) {
		return g.identity()
	}
	switch {
	case c.ClientMetadataURL != "" && s.TakesMetadataDocuments:
		return identity{id: c.ClientMetadataURL}, nil
	case c.Grant != nil: // as what nobody has said: JWTs of others may do without
		return identity{}, nil
	case c.NoRegistration || s.RegistrationURL == "":
		return identity{}, failed(s.at.url.Hostname(), ErrNoClient, nil)
	}
	g, err := c.register(ctx, s, redirectURI)
	if err != nil {
		return identity{}, err
	}
	c.mu.Lock()
	keep(&c.registered, s.Issuer, g)
	c.mu.Unlock()
	return g.identity()
}

// kept returns the client that was registered at an issuer before, by this process or with a saved login.
func (c *Config) kept(issuer string, known *authretry.Record) *registered {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.registered[issuer]
	if g == nil && known.Issuer == issuer {
		g = registeredIn(known)
	}
	if g == nil || c.refused[issuer+" "+g.id] {
		return nil
	}
	return g
}

// forget notes that an issuer does not know a client any more that it has registered.
func (c *Config) forget(issuer, clientID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	keep(&c.refused, issuer+" "+clientID, true)
	delete(c.registered, issuer)
}

// identity returns what the program is called by it.
func (g *registered) identity() (identity, error) {
	who := identity{id: g.id, registered: g}
	switch {
	case g.method == "client_secret_basic":
		who.auth = authretry.SecretBasic(g.secret)
	case g.method == "client_secret_post":
		who.auth = authretry.SecretPost(g.secret)
	case g.method != "none":
		return identity{}, failed("", ErrRegistration, ownError("it was registered with a way to authenticate itself that it does not have"))
	}
	return who, nil
}

// register registers the program (RFC 7591 §3.1).
func (c *Config) register(ctx context.Context, s *Server, redirectURI string) (*registered, error) {
	host := s.at.url.Hostname()
	method := s.methodFor("")
	body, err := json.Marshal(c.registration(s, redirectURI, method))
	if err != nil {
		return nil, failed(host, ErrRegistration, ownError("Config.Registration cannot be written as JSON"))
	}
	ctx, cancel := context.WithTimeout(ctx, guarded.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.RegistrationURL, bytes.NewReader(body))
	if err != nil {
		return nil, failed(host, ErrRegistration, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := c.client(s.at).Do(req)
	if err != nil {
		return nil, failed(host, ErrRegistration, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK {
		return nil, failed(host, ErrRegistration, ownError(fmt.Sprintf("it answered %d", resp.StatusCode)))
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, guarded.MaxAnswer+1))
	if err != nil || len(answer) > guarded.MaxAnswer {
		return nil, failed(host, ErrRegistration, ownError("its answer broke off, or is too long"))
	}
	doc, err := parse(answer)
	if err == nil {
		var g *registered
		if g, err = readRegistered(doc, s); err == nil {
			g.redirectURI = redirectURI
			return g, nil
		}
	}
	return nil, failed(host, ErrRegistration, err)
}

// registration returns what the server is told of the program.
func (c *Config) registration(s *Server, redirectURI, method string) map[string]any {
	m := map[string]any{"client_name": "authretry"}
	maps.Copy(m, c.Registration)
	m["application_type"] = "native" // or else a redirect to this machine may be refused
	m["token_endpoint_auth_method"] = method
	var grants []string
	if m["response_types"] = []string{}; redirectURI != "" {
		grants = append(grants, "authorization_code")
		m["response_types"], m["redirect_uris"] = []string{"code"}, []string{redirectURI}
	}
	if redirectURI == "" || s.DeviceURL != "" && slices.Contains(s.GrantTypes, deviceGrant) {
		grants = append(grants, deviceGrant) // a person without a browser may come later
	}
	if s.supports("refresh_token") {
		grants = append(grants, "refresh_token")
	}
	m["grant_types"] = grants
	return m
}

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// methodFor returns how a client with a secret, or one that has none yet, is to authenticate itself.
func (s *Server) methodFor(secret string) string {
	prefer := []string{"none", "client_secret_basic", "client_secret_post"}
	if secret != "" {
		prefer = prefer[1:]
	}
	for _, method := range prefer {
		if slices.Contains(s.AuthMethods, method) {
			return method
		}
	}
	return prefer[0]
}

const maxClient = 4 << 10 // bytes of a client ID or secret

// readRegistered reads the answer to a registration (RFC 7591 §3.2.1).
func readRegistered(doc document, s *Server) (*registered, error) {
	g := &registered{}
	var expires float64
	err := doc.readAll(map[string]any{"client_id": &g.id, "client_secret": &g.secret, "client_secret_expires_at": &expires,
		"token_endpoint_auth_method": &g.method})
	switch {
	case err != nil:
		return nil, err
	case g.id == "" || len(g.id) > maxClient || len(g.secret) > maxClient:
		return nil, ownError("its answer has no client_id, or one that is too long")
	}
	if g.secret == "" {
		g.method = "none"
	} else if g.method == "" {
		g.method = s.methodFor(g.secret)
	}
	if expires > 0 && g.secret != "" {
		g.expires = time.Unix(int64(min(expires, 1e11)), 0)
	}
	if _, err := g.identity(); err != nil {
		return nil, ownError("it wants the program to authenticate itself in a way that it does not have")
	}
	return g, nil
}

// What is kept with a login, in Record.Extra.
const (
	extraMetadata     = "resource_metadata"
	extraHome         = "issuer_addr"   // where the authorization server was
	extraResourceAddr = "resource_addr" // where the resource was
	extraRevocation   = "revocation_endpoint"
	extraUnnamed      = "token_requests_without_resource"
	extraSecret       = "client_secret"
	extraMethod       = "token_endpoint_auth_method"
	extraRedirectURI  = "redirect_uri"
	extraExpires      = "client_secret_expires_at"
)

// save puts what has to be known of the client into what is kept with a login.
func (g *registered) save(extra map[string]string) {
	if g == nil {
		return
	}
	extra[extraMethod] = g.method
	for name, value := range map[string]string{extraSecret: g.secret, extraRedirectURI: g.redirectURI} {
		if value != "" {
			extra[name] = value
		}
	}
	if !g.expires.IsZero() {
		extra[extraExpires] = g.expires.UTC().Format(time.RFC3339)
	}
}

// registeredIn returns the client that was registered for a saved login; nil if it was not registered on demand.
func registeredIn(known *authretry.Record) *registered {
	method := known.Extra[extraMethod]
	if method == "" || known.ClientID == "" {
		return nil
	}
	g := &registered{id: known.ClientID, secret: known.Extra[extraSecret], method: method, redirectURI: known.Extra[extraRedirectURI]}
	g.expires, _ = time.Parse(time.RFC3339, known.Extra[extraExpires])
	return g
}

// endpoint returns a token endpoint at which the program is who.
func (c *Config) endpoint(at place, tokenURL, issuer, resource string, who identity) *authretry.TokenEndpoint {
	e := &authretry.TokenEndpoint{URL: tokenURL, ClientID: who.id, Auth: who.auth, Issuer: issuer, Proof: c.Proof,
		HTTPClient: c.HTTPClient, Base: c.base(at)}
	if resource != "" && !c.isUnnamed(issuer) {
		e.Params = url.Values{"resource": {resource}}
	}
	return e
}

// isUnnamed reports whether an issuer wants no resource named with a token request.
func (c *Config) isUnnamed(issuer string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unnamed[issuer]
}

func (c *Config) noteUnnamed(issuer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	keep(&c.unnamed, issuer, true)
}
