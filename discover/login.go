package discover

import (
	"context"
	"errors"
	"fmt"
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
	if err := c.checkProof(f.resource); err != nil {
		return nil, err
	}
	scopes := c.scopes(&r, f)
	a := &login.Authorization{URL: s.AuthorizationURL, DeviceURL: s.DeviceURL, Scopes: scopes, Params: c.Params, Claims: r.Claims,
		ACRValues: r.ACRValues, MaxAge: r.MaxAge, HasMaxAge: r.HasMaxAge, AnswersWithIssuer: s.AnswersWithIssuer}
	a.CheckPage = func(ctx context.Context, page *url.URL) error {
		if err := c.checkPage(ctx, s.at, page); err != nil {
			return failed(s.at.url.Host, ErrRefusedURL, err)
		}
		return nil
	}
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

// checkProof returns an error if the resource takes only tokens that are bound to a key, and there is none.
func (c *Config) checkProof(r *Resource) error {
	if r.BoundTokens && c.Proof == nil {
		return failed(r.at.url.Host, ErrBoundTokens, nil)
	}
	return nil
}

// checkFlows leaves those flows of which nothing is wrong, and which Flow has. An error says that there are none.
func (c *Config) checkFlows(a *login.Authorization, s *Server) error {
	host := s.at.url.Host
	switch c.Flow.(type) {
	case *login.Browser:
		a.DeviceURL = ""
	case *login.Device:
		a.URL = ""
	}
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
		wanted = validScopes(strings.Fields(r.Challenge.Params.Get("scope")))
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
