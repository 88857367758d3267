package discover

import (
	"context"
	"net/url"
	"slices"
	"time"

	"github.com/authretry/authretry"
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
	if registeredIn(known) != nil || !c.allows(known.Issuer) {
		return // the issuer has chosen the name, or is not asked any more
	}
	if client := c.clientOf(known); client != nil && client.Issuer == "" && known.Issuer != "" {
		c.mu.Lock()
		defer c.mu.Unlock()
		keep(&c.bound, client.ID, known.Issuer)
	}
}

// allows reports whether an authorization server may be asked, by Issuers.
func (c *Config) allows(issuer string) bool {
	return len(c.Issuers) == 0 || slices.Contains(c.Issuers, issuer)
}

// clientOf returns the one of Clients that a saved login is of: that of its issuer, or else one that names none; nil if there is none.
func (c *Config) clientOf(known *authretry.Record) *Client {
	for _, issuer := range []string{known.Issuer, ""} {
		for i := range c.Clients {
			if client := &c.Clients[i]; client.ID == known.ClientID && client.Issuer == issuer {
				return client
			}
		}
	}
	return nil
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
		return identity{}, failed(s.at.url.Host, ErrNoClient, nil)
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
	if g := c.registered[issuer]; g != nil && g.id == clientID {
		delete(c.registered, issuer)
	}
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
		return identity{}, failedAt(stepRegistration, "", ErrRegistration, ownError("it was registered with a way to authenticate itself that it does not have"))
	}
	return who, nil
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
