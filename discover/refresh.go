package discover

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// refresh gets the successor of a token from where that was issued.
func (c *Config) refresh(ctx context.Context, r authretry.TokenRequest, known *authretry.Record) (*oauth2.Token, error) {
	if known.TokenURL == "" || known.ClientID == "" {
		return nil, fmt.Errorf("%w: it is not known where the refresh token was issued, so it is not sent anywhere", authretry.ErrLoginRequired)
	}
	c.bind(known)
	if c.hasMoved(ctx, &r, known) {
		return nil, fmt.Errorf("%w: the resource trusts other authorization servers now", authretry.ErrLoginRequired)
	}
	who, at, err := c.saved(known)
	if err != nil {
		return nil, err
	}
	if known.Extra[extraUnnamed] != "" {
		c.noteUnnamed(known.Issuer)
	}
	t, err := c.naming(ctx, known.Issuer, func() (*oauth2.Token, error) {
		return c.endpoint(at, known.TokenURL, known.Issuer, known.Resource, who).Refresh()(ctx, r)
	})
	if err != nil {
		if who.registered != nil && isOneOf(err, "invalid_client", "unauthorized_client") {
			c.forget(known.Issuer, who.id)
			return nil, fmt.Errorf("%w: the authorization server does not know the client any more that it has registered", authretry.ErrLoginRequired)
		}
		return t, err
	}
	next := *known
	if c.isUnnamed(known.Issuer) && known.Extra[extraUnnamed] == "" {
		next.Extra = map[string]string{extraUnnamed: "true"}
		for name, value := range known.Extra {
			next.Extra[name] = value
		}
	}
	return authretry.WithRecord(t, next), nil
}

// saved returns what the program is called where a saved login comes from, and where that is.
func (c *Config) saved(known *authretry.Record) (identity, place, error) {
	u, err := url.Parse(known.TokenURL)
	if err != nil {
		return identity{}, place{}, fmt.Errorf("%w: the saved login does not say where it comes from", authretry.ErrLoginRequired)
	}
	at := place{url: u}
	if at.addr, _ = netip.ParseAddr(known.Extra[extraHome]); !at.addr.IsValid() {
		at.addr = addrOf(u.Hostname())
	}
	if !c.allows(known.Issuer) {
		return identity{}, place{}, fmt.Errorf("%w: the saved login is of an authorization server that is not in Config.Issuers", authretry.ErrLoginRequired)
	}
	if g := registeredIn(known); g != nil { // which may have been given the name of one of Clients
		who, err := g.identity()
		return who, at, err
	}
	who := identity{id: known.ClientID}
	if client := c.clientOf(known); client != nil {
		who.auth = client.Auth
	}
	return who, at, nil
}

// naming calls fetch, which names the resource (RFC 8707); and once more without where the issuer does not want that, as Microsoft
// Entra does, which is then remembered.
func (c *Config) naming(ctx context.Context, issuer string, fetch func() (*oauth2.Token, error)) (*oauth2.Token, error) {
	named := !c.isUnnamed(issuer)
	t, err := fetch()
	if err == nil || !named || !wantsNoResource(err) {
		return t, err
	}
	if err := authretry.Confirm(ctx); err != nil {
		return nil, err
	}
	c.noteUnnamed(issuer)
	t, again := fetch()
	if again != nil {
		c.mu.Lock()
		delete(c.unnamed, issuer) // that was not it
		c.mu.Unlock()
		if isInvalidGrant(again) {
			return nil, again
		}
		return t, err
	}
	return t, nil
}

// wantsNoResource reports whether an answer may be about the resource: it is 400, and not about the grant, the client or a proof.
func wantsNoResource(err error) bool {
	r, ok := errors.AsType[*oauth2.RetrieveError](err)
	return ok && r.Response != nil && r.Response.StatusCode == http.StatusBadRequest && !isInvalidGrant(err) &&
		!isOneOf(err, "invalid_client", "unauthorized_client", "unsupported_grant_type", "use_dpop_nonce", "invalid_dpop_proof", "slow_down")
}

func isInvalidGrant(err error) bool { return isOneOf(err, "invalid_grant", "bad_refresh_token") }

// isOneOf reports whether a token endpoint has answered with one of the error codes.
func isOneOf(err error, codes ...string) bool {
	r, ok := errors.AsType[*oauth2.RetrieveError](err)
	return ok && slices.Contains(codes, r.ErrorCode)
}

// hasMoved reports whether a resource that has refused a token says that it trusts other authorization servers than the one that
// has issued it. If it does not say, or cannot be asked, it has not.
func (c *Config) hasMoved(ctx context.Context, r *authretry.TokenRequest, known *authretry.Record) bool {
	if r.Challenge == nil || r.Challenge.StepUp() != 0 || r.Challenge.Params.Get("resource_metadata") == "" {
		return false
	}
	t, err := c.targetOf(r, known)
	if err != nil || !isAt(known.Resource, t.at.url) {
		return false
	}
	resource, err := c.resource(ctx, t)
	return err == nil && len(resource.Issuers) > 0 && !slices.Contains(resource.Issuers, known.Issuer)
}

// Revoke is for authretry.TokenSource.Revoke: it tells the authorization server that a login has ended (RFC 7009), if that has
// said where.
func (c *Config) Revoke(ctx context.Context, t *oauth2.Token) error {
	known := authretry.RecordOf(t)
	to := known.Extra[extraRevocation]
	if to == "" {
		return nil
	}
	who, at, err := c.saved(&known)
	if err != nil {
		return err
	}
	return c.endpoint(at, known.TokenURL, known.Issuer, "", who).Revocation(to)(ctx, t)
}
