package discover

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/authretry/authretry/internal/guarded"
)

// A Server is what an authorization server says of itself (RFC 8414 §2, OpenID Connect Discovery §3).
type Server struct {
	// Issuer is its name.
	Issuer string

	// The URLs of its endpoints; "" if it has none.
	AuthorizationURL, TokenURL, DeviceURL, PushedURL, RegistrationURL, RevocationURL string

	// Scopes are those that it knows; nil if it does not say.
	Scopes []string

	// AuthMethods are how clients authenticate themselves at its token endpoint; nil if it does not say.
	AuthMethods []string

	// GrantTypes are those that it knows; nil if it does not say.
	GrantTypes []string

	// ProofAlgorithms are those by which proofs of a key may be signed (dpop_signing_alg_values_supported, RFC 9449 §5.1); nil if it
	// does not say.
	ProofAlgorithms []string

	// RequiresPushed says that it takes authorization requests only at PushedURL (RFC 9126).
	RequiresPushed bool

	// AnswersWithIssuer says that it names itself in each answer (RFC 9207).
	AnswersWithIssuer bool

	// TakesMetadataDocuments says that a client may be a URL with its metadata (client_id_metadata_document_supported).
	TakesMetadataDocuments bool

	// HasPKCE says that it checks PKCE by S256 (RFC 7636).
	HasPKCE bool

	at place // it
}

// server asks an authorization server for its metadata. The places are those of RFC 8414 §3.1 and of OpenID Connect, first with
// the path of the issuer put after the well-known part, then before it.
func (c *Config) server(ctx context.Context, home place, issuer string) (*Server, error) {
	resource := home.url
	if slices.Contains(c.Issuers, issuer) { // the program itself names it
		if u, err := url.Parse(issuer); err == nil {
			home = place{url: u}
		}
	}
	u, err := c.check(home, issuer)
	if err != nil || u.RawQuery != "" || u.ForceQuery {
		return nil, failedAt(stepServer, home.url.Host, ErrRefusedURL, errors.Join(err, ownError("its authorization server is no issuer (RFC 8414)")))
	}
	origin, path := (&url.URL{Scheme: u.Scheme, Host: u.Host}).String(), strings.TrimSuffix(u.EscapedPath(), "/")
	places := []string{origin + wellKnownServer + path, origin + wellKnownOpenID + path}
	if path != "" {
		places = append(places, origin+path+wellKnownOpenID)
	}
	var first error
	missing := true // at all places
	for _, named := range places {
		at, err := url.Parse(named)
		if err != nil {
			return nil, failedAt(stepServer, u.Host, ErrNoMetadata, ownError("its issuer cannot be a part of a URL"))
		}
		doc, addr, err := c.get(ctx, home, at)
		if err == nil {
			if !addr.IsValid() {
				addr = addrOf(u.Hostname())
			}
			return c.readServer(ctx, issuer, place{url: u, addr: addr}, doc)
		}
		missing = missing && isMissing(err)
		if first == nil || !isMissing(err) {
			first = failedAt(stepServer, u.Host, ErrNoMetadata, err)
		}
		if !isMissing(err) && !isOutOfOrder(err) {
			break
		}
	}
	if c.OriginIsIssuer && missing && path == "" && guarded.Origin(u) == guarded.Origin(resource) { // as MCP had it before June 2025
		return &Server{Issuer: issuer, AuthorizationURL: origin + "/authorize", TokenURL: origin + "/token", RegistrationURL: origin + "/register",
			HasPKCE: true, at: place{url: u, addr: home.addr}}, nil
	}
	return nil, first
}

const (
	wellKnownServer = "/.well-known/oauth-authorization-server"
	wellKnownOpenID = "/.well-known/openid-configuration"
)

// readServer reads the metadata of the server at a place, which must be those of the issuer.
func (c *Config) readServer(ctx context.Context, issuer string, at place, doc document) (*Server, error) {
	s := &Server{at: at}
	var challengeMethods []string
	err := doc.readAll(map[string]any{
		"issuer": &s.Issuer, "scopes_supported": &s.Scopes, "token_endpoint_auth_methods_supported": &s.AuthMethods,
		"grant_types_supported": &s.GrantTypes, "require_pushed_authorization_requests": &s.RequiresPushed,
		"authorization_response_iss_parameter_supported": &s.AnswersWithIssuer,
		"client_id_metadata_document_supported":          &s.TakesMetadataDocuments,
		"code_challenge_methods_supported":               &challengeMethods,
		"dpop_signing_alg_values_supported":              &s.ProofAlgorithms,
		"authorization_endpoint":                         &s.AuthorizationURL, "token_endpoint": &s.TokenURL,
		"device_authorization_endpoint": &s.DeviceURL, "registration_endpoint": &s.RegistrationURL,
		"pushed_authorization_request_endpoint": &s.PushedURL, "revocation_endpoint": &s.RevocationURL,
	})
	failed := func(what, cause error) error { return failedAt(stepServer, at.url.Host, what, cause) }
	if err != nil {
		return nil, failed(ErrNoMetadata, err)
	}
	if s.Issuer != issuer {
		return nil, failed(ErrOtherIssuer, nil)
	}
	s.HasPKCE = slices.Contains(challengeMethods, "S256")
	s.Scopes, s.AuthMethods, s.GrantTypes, s.ProofAlgorithms = validScopes(s.Scopes), few(s.AuthMethods), few(s.GrantTypes), few(s.ProofAlgorithms)
	if s.TokenURL == "" {
		return nil, failed(ErrNoMetadata, ownError("it has no token_endpoint"))
	}
	for _, named := range []string{s.AuthorizationURL, s.TokenURL, s.DeviceURL, s.PushedURL, s.RegistrationURL, s.RevocationURL} {
		if named == "" {
			continue
		}
		if u, err := c.check(at, named); err != nil {
			return nil, failed(ErrRefusedURL, err)
		} else if named == s.AuthorizationURL {
			if err := c.checkPage(ctx, at, u); err != nil {
				return nil, failed(ErrRefusedURL, err)
			}
		}
	}
	return s, nil
}

// checkPage returns an error if a place names a page for a person's browser that is at an address which we would not ask ourselves.
func (c *Config) checkPage(ctx context.Context, at place, page *url.URL) error {
	if c.HTTPClient != nil {
		return nil // it is up to that, which does not say
	}
	return c.policy(at).CheckHost(ctx, page.Hostname())
}

// supports reports whether the server knows a grant type, for all that it says.
func (s *Server) supports(grant string) bool {
	return len(s.GrantTypes) == 0 || slices.Contains(s.GrantTypes, grant)
}

// validScopes returns those of the scopes that can be sent (RFC 6749 §3.3), within bounds.
func validScopes(scopes []string) []string {
	var valid []string
	size := 0
	for _, s := range scopes {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			continue
		}
		if size += len(s) + 1; len(valid) == maxScopes || size > maxScopeBytes {
			break
		}
		valid = append(valid, s)
	}
	return valid
}

// few returns the first of what a server says that it knows: what was discovered is kept, and a document may have some 300,000 names.
func few(names []string) []string {
	size := 0
	for i, name := range names {
		if size += len(name) + 1; i == maxScopes || size > maxScopeBytes {
			return slices.Clone(names[:i])
		}
	}
	return names
}

const (
	maxScopes     = 64
	maxScopeBytes = 4 << 10
)
