package discover

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/login"
	"golang.org/x/oauth2"
)

// Login is for authretry.TokenSource.Login: it finds out where to log in, has the program registered there if need be, and has
// Flow ask a person.
func (c *Config) Login(ctx context.Context, r authretry.TokenRequest) (*oauth2.Token, error) {
	if c.Flow == nil {
		return nil, fmt.Errorf("%w: Config.Flow is nil", ErrNoFlow)
	}
	known := authretry.RecordOf(r.Previous)
	c.bind(&known)
	f, err := c.discover(ctx, &r, &known)
	if err != nil {
		return nil, err
	}
	s := f.server
	if f.resource.BoundTokens && c.Proof == nil {
		return nil, failed(f.resource.at.url.Hostname(), ErrBoundTokens, nil)
	}
	scopes := c.scopes(&r, f)
	a := &login.Authorization{URL: s.AuthorizationURL, DeviceURL: s.DeviceURL, Scopes: scopes, Params: c.Params, Claims: r.Claims,
		ACRValues: r.ACRValues, MaxAge: r.MaxAge, HasMaxAge: r.HasMaxAge, AnswersWithIssuer: s.AnswersWithIssuer}
	if s.RequiresPushed {
		a.PushedURL = s.PushedURL
	}
	if err := c.checkFlows(a, s); err != nil {
		return nil, err
	}
	var who identity
	a.Register = func(ctx context.Context, redirectURI string) (*authretry.TokenEndpoint, error) {
		var err error
		if who, err = c.identify(ctx, s, &known, redirectURI); err != nil {
			return nil, err
		}
		e := c.endpoint(s.at, s.TokenURL, s.Issuer, "", who)
		e.Params = url.Values{"resource": {f.resource.ID}}
		return e, nil
	}
	before := c.kept(s.Issuer, &known)
	t, err := c.Flow.Login(ctx, a)
	if refused, ok := errors.AsType[*login.Error](err); ok && refused.Code == "invalid_client" && who.registered != nil {
		if c.forget(s.Issuer, who.id); before != nil && who.id == before.id { // registered long ago, and not known any more
			t, err = c.Flow.Login(ctx, a)
		}
	}
	if err != nil {
		return nil, err
	}
	return c.withRecord(t, f, who, scopes), nil
}

// checkFlows leaves those flows of which nothing is wrong. An error says that there are none.
func (c *Config) checkFlows(a *login.Authorization, s *Server) error {
	host := s.at.url.Hostname()
	if !s.supports(deviceGrant) {
		a.DeviceURL = ""
	}
	if a.URL != "" && !s.HasPKCE && !c.AssumePKCE {
		if a.URL = ""; a.DeviceURL == "" {
			return failed(host, ErrNoPKCE, nil)
		}
	}
	if s.RequiresPushed && s.PushedURL == "" {
		a.URL = ""
	}
	if a.URL == "" && a.DeviceURL == "" {
		return failed(host, ErrNoFlow, nil)
	}
	return nil
}

// withRecord returns a new token with what has to be known of it.
func (c *Config) withRecord(t *oauth2.Token, f *found, who identity, scopes []string) *oauth2.Token {
	if t == nil {
		return nil
	}
	r := authretry.RecordOf(t)
	s := f.server
	r.Issuer, r.TokenURL, r.ClientID, r.Resource = s.Issuer, s.TokenURL, who.id, f.resource.ID
	r.Extra = map[string]string{}
	for name, value := range map[string]string{extraMetadata: f.resource.metadata, extraRevocation: s.RevocationURL} {
		if value != "" {
			r.Extra[name] = value
		}
	}
	for name, addr := range map[string]netip.Addr{extraHome: s.at.addr, extraResourceAddr: f.resource.at.addr} {
		if addr.IsValid() {
			r.Extra[name] = addr.String()
		}
	}
	if c.isUnnamed(s.Issuer) {
		r.Extra[extraUnnamed] = "true"
	}
	who.registered.save(r.Extra)
	if r.Scopes == nil && len(scopes) > 0 { // as asked for (RFC 6749 §5.1)
		t = t.WithExtra(map[string]any{"scope": strings.Join(scopes, " "), "id_token": t.Extra("id_token")})
	}
	return authretry.WithRecord(t, r)
}

// scopes returns what to ask for: what the challenge names, or what the token has to be good for, or else what the resource knows;
// besides, Config.Scopes, and offline_access where it is known.
func (c *Config) scopes(r *authretry.TokenRequest, f *found) []string {
	var wanted []string
	if r.Challenge != nil {
		wanted = strings.Fields(r.Challenge.Params.Get("scope"))
	}
	wanted = append(slices.Clone(r.Scopes), wanted...)
	if len(wanted) == 0 && len(c.Scopes) == 0 {
		wanted = f.resource.Scopes
	}
	wanted = append(slices.Clone(c.Scopes), wanted...)
	if c.Flow != nil && c.Grant == nil && slices.Contains(f.server.Scopes, "offline_access") {
		wanted = append(wanted, "offline_access")
	}
	var once []string
	for _, s := range wanted {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	if c.ScopeFilter != nil {
		once = c.ScopeFilter(once)
	}
	return validScopes(once)
}

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
		if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok && who.registered != nil && (refused.ErrorCode == "invalid_client" || refused.ErrorCode == "unauthorized_client") {
			c.forget(known.Issuer, who.id)
			return nil, fmt.Errorf("%w: the authorization server does not know the client any more that it has registered", authretry.ErrLoginRequired)
		}
		return nil, err
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
	if len(c.Issuers) > 0 && !slices.Contains(c.Issuers, known.Issuer) {
		return identity{}, place{}, fmt.Errorf("%w: the saved login is of an authorization server that is not in Config.Issuers", authretry.ErrLoginRequired)
	}
	who := identity{id: known.ClientID}
	for _, client := range c.Clients {
		if client.ID == known.ClientID && (client.Issuer == known.Issuer || client.Issuer == "") {
			who.auth = client.Auth
			return who, at, nil
		}
	}
	if g := registeredIn(known); g != nil {
		who, err = g.identity()
	}
	return who, at, err
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
		return nil, err
	}
	return t, nil
}

// wantsNoResource reports whether an answer may be about the resource: it is 400, and not about the grant, the client or a proof.
func wantsNoResource(err error) bool {
	r, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok || r.Response == nil || r.Response.StatusCode != http.StatusBadRequest {
		return false
	}
	switch r.ErrorCode {
	case "invalid_grant", "bad_refresh_token", "invalid_client", "unauthorized_client", "unsupported_grant_type", "use_dpop_nonce", "invalid_dpop_proof", "slow_down":
		return false
	}
	return true
}

func isInvalidGrant(err error) bool {
	r, ok := errors.AsType[*oauth2.RetrieveError](err)
	return ok && (r.ErrorCode == "invalid_grant" || r.ErrorCode == "bad_refresh_token")
}

// hasMoved reports whether a resource that has refused a token says that it trusts other authorization servers than the one that
// has issued it. If it does not say, or cannot be asked, it has not.
func (c *Config) hasMoved(ctx context.Context, r *authretry.TokenRequest, known *authretry.Record) bool {
	if r.Challenge == nil || r.Challenge.StepUp() != 0 || r.Challenge.Params.Get("resource_metadata") == "" {
		return false
	}
	t, err := c.targetOf(r, known)
	if err != nil {
		return false
	}
	if own, err := url.Parse(known.Resource); err != nil || originOf(own) != originOf(t.at.url) {
		return false
	}
	resource, err := c.resource(ctx, t)
	return err == nil && len(resource.Issuers) > 0 && !slices.Contains(resource.Issuers, known.Issuer)
}

// fetchByGrant gets a token by Grant. What was discovered for it is remembered, until the resource refuses a token.
func (c *Config) fetchByGrant(ctx context.Context, r authretry.TokenRequest, known *authretry.Record) (*oauth2.Token, error) {
	t, err := c.targetOf(&r, known)
	if err != nil {
		return nil, err
	}
	key := t.at.url.String()
	c.mu.Lock()
	f := c.machine[key]
	c.mu.Unlock()
	if f == nil || r.Challenge != nil {
		if f, err = c.discover(ctx, &r, known); err != nil {
			return nil, err
		}
		c.mu.Lock()
		keep(&c.machine, key, f)
		keep(&c.machine, f.resource.ID, f) // by which it goes when the token is replaced
		c.mu.Unlock()
	}
	who, err := c.identify(ctx, f.server, known, "")
	if err != nil {
		return nil, err
	}
	scopes := c.scopes(&r, f)
	r.Scopes = scopes
	got, err := c.naming(ctx, f.server.Issuer, func() (*oauth2.Token, error) {
		fetch := c.Grant(c.endpoint(f.server.at, f.server.TokenURL, f.server.Issuer, f.resource.ID, who), f.server)
		if fetch == nil {
			return nil, fmt.Errorf("%w: Config.Grant has returned nil", ErrNoFlow)
		}
		return fetch(ctx, r)
	})
	if err != nil {
		return nil, err
	}
	return c.withRecord(got, f, who, scopes), nil
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
