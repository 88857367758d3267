package discover

import (
	"time"

	"github.com/authretry/authretry"
)

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
