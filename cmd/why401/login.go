package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/discover"
	"github.com/authretry/authretry/dpop"
	"github.com/authretry/authretry/login"
	"golang.org/x/oauth2"
)

// A loginQuestion is what the command line says of -login.
type loginQuestion struct {
	wanted   bool
	clientID string
	issuer   string
	register bool // the authorization server may be asked to register a client
}

// errNoClient is for an authorization server that knows no client of ours, and was not asked to register one.
var errNoClient = errors.New("the authorization server knows no client of this program, and was not asked to register one")

// A loginFinding is what was found out on the way to a login, for the report.
type loginFinding struct {
	Resource  string   `json:"resource"`            // what the resource calls itself
	Issuers   []string `json:"issuers"`             // the authorization servers that it trusts
	Scopes    []string `json:"scopes"`              // those that it knows
	Bound     bool     `json:"bound,omitempty"`     // it takes only tokens that are bound to a key
	Issuer    string   `json:"issuer,omitempty"`    // the authorization server that was asked
	Browser   bool     `json:"browser,omitempty"`   // it lets people log in by a browser
	Device    bool     `json:"device,omitempty"`    // or by another device
	Registers bool     `json:"registers,omitempty"` // it registers clients on demand
	Tried     string   `json:"tried,omitempty"`     // what came of the login
}

// A loginTrial is a login under way. It may still be under way when the report is made, if there was no time for it.
type loginTrial struct {
	bearer *authretry.Bearer
	bound  *dpop.Scheme // in its place, for a server that takes only tokens that are bound to a key

	mu         sync.Mutex // guards what follows
	isForKey   bool       // the login is for bound
	namedBy    string     // who names algorithms of proofs among which ours is not
	algorithms []string   // these
	resource   *discover.Resource
	server     *discover.Server
	token      *oauth2.Token // what somebody has got by logging in
	err        error
}

// startLogin returns the trial of -login: it discovers where to log in, and asks a person.
func (in *inquiry) startLogin() *loginTrial {
	t, key := &loginTrial{}, newKey()
	t.bearer = &authretry.Bearer{Source: t.tokens(in.login, in.newDiscovery())}
	c := in.newDiscovery()
	c.Proof, c.Registration["dpop_bound_access_tokens"] = key, true // RFC 9449 §5.2
	t.bound = &dpop.Scheme{Source: t.tokens(in.login, c), Key: key}
	return t
}

// newDiscovery returns how to discover where to log in, as the command line says.
func (in *inquiry) newDiscovery() *discover.Config {
	q := in.login
	flow := in.asker.flow
	if flow == nil {
		flow = login.Auto(in.asker.out)
	}
	c := &discover.Config{Flow: flow, NoRegistration: !q.register, Registration: map[string]any{"client_name": "why401"}}
	if q.issuer != "" {
		c.Issuers = []string{q.issuer}
	}
	if q.clientID != "" {
		c.Clients = []discover.Client{{Issuer: q.issuer, ID: q.clientID}}
	}
	return c
}

// tokens returns what gets a token as c says, and notes what it finds. There is one token: if it is refused, that is the answer, and it
// is not refreshed, so that none is left at the authorization server that is not revoked.
func (t *loginTrial) tokens(q loginQuestion, c *discover.Config) *authretry.TokenSource {
	return &authretry.TokenSource{
		Fetch: func(ctx context.Context, r authretry.TokenRequest) (*oauth2.Token, error) {
			if r.Previous != nil {
				return nil, authretry.ErrCredentialsRefused
			}
			return c.Fetch(ctx, r)
		},
		Revoke: c.Revoke,
		Login: func(ctx context.Context, r authretry.TokenRequest) (*oauth2.Token, error) {
			resource, server, err := c.Discover(ctx, r)
			if err != nil {
				return nil, err
			}
			t.mu.Lock()
			t.resource, t.server = resource, server
			t.mu.Unlock()
			switch {
			case c.Proof == nil && resource.BoundTokens:
				return nil, discover.ErrBoundTokens // which loginScheme sees to
			case c.Proof != nil:
				if err := t.checkAlgorithms("Its metadata", resource.ProofAlgorithms); err != nil {
					return nil, err
				}
				if err := t.checkAlgorithms("The metadata of its authorization server", server.ProofAlgorithms); err != nil {
					return nil, err
				}
			}
			if q.clientID == "" && !(q.register && server.RegistrationURL != "") {
				return nil, errNoClient
			}
			token, err := c.Login(ctx, r)
			t.mu.Lock()
			defer t.mu.Unlock()
			t.token, t.err = token, err
			return token, err
		},
	}
}

// hasFailed reports whether the login has begun, and there is no token.
func (t *loginTrial) hasFailed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err != nil
}

// hasDiscovered reports whether it is known where to log in.
func (t *loginTrial) hasDiscovered() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.resource != nil
}

// logout ends the login.
func (t *loginTrial) logout(ctx context.Context) error {
	if t.isForKey {
		return t.bound.Source.Logout(ctx)
	}
	return t.bearer.Source.(*authretry.TokenSource).Logout(ctx)
}

// hideLogin keeps what somebody has got by logging in out of all text.
func (in *inquiry) hideLogin() {
	if in.trial == nil {
		return
	}
	in.trial.mu.Lock()
	defer in.trial.mu.Unlock()
	if t := in.trial.token; t != nil {
		idToken, _ := t.Extra("id_token").(string)
		in.clean.hide(t.AccessToken, t.RefreshToken, idToken)
	}
}

// foundLogin returns what was discovered and tried, in words that may be printed. A login that was only a trial ends here.
func (in *inquiry) foundLogin(ctx context.Context) *loginFinding {
	if in.trial == nil {
		return nil
	}
	t := in.trial
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.resource == nil {
		return nil
	}
	const most = 20
	list := func(texts []string) []string {
		shown := []string{}
		for _, text := range texts[:min(len(texts), most)] {
			shown = append(shown, in.clean.text(text, 200))
		}
		return shown
	}
	r, s := t.resource, t.server
	f := &loginFinding{
		Resource: in.clean.text(r.ID, 200), Issuers: list(r.Issuers), Scopes: list(r.Scopes), Bound: r.BoundTokens || t.isForKey,
		Issuer: in.clean.text(s.Issuer, 200), Browser: s.AuthorizationURL != "", Registers: s.RegistrationURL != "",
		Device: s.DeviceURL != "" && slices.Contains(s.GrantTypes, "urn:ietf:params:oauth:grant-type:device_code"),
	}
	switch {
	case t.err != nil:
		f.Tried = "the login has failed"
	case t.token == nil:
		return f
	case in.resp == nil:
		f.Tried = "somebody has logged in, but there was no answer to the token"
	case in.refused():
		f.Tried = "somebody has logged in, and the server has refused the token"
	default:
		f.Tried = "somebody has logged in, and the server has accepted the token"
	}
	if t.token != nil {
		if err := t.logout(ctx); err == nil && s.RevocationURL != "" {
			f.Tried += "; the token was revoked then"
		} else {
			f.Tried += "; the token was not revoked, but thrown away"
		}
	}
	return f
}

// noLogin says why a login was not possible.
func (in *inquiry) noLogin() *cause {
	if in.err == nil || !in.login.wanted {
		return nil
	}
	is := func(err error) bool { return errors.Is(in.err, err) }
	if c := in.metadataCause(in.err); c != nil && !in.trial.hasDiscovered() {
		return c
	}
	refused, _ := errors.AsType[*login.Error](in.err)
	switch {
	case is(errNoClient) || is(discover.ErrNoClient):
		fix := "Register one there, and give its ID with -client-id."
		if found := in.report.Login; found != nil && found.Registers {
			fix = "Give a client's ID with -client-id, or -register to have one made. -register asks the authorization server to register this program (RFC 7591), which stays there."
		}
		return &cause{"login-client", certain, "A login needs a client that the authorization server knows. None was given, and none was registered unasked.", fix}
	case is(errNoAlgorithm):
		return in.noAlgorithm()
	case is(discover.ErrNoFlow) || is(discover.ErrNoPKCE):
		return &cause{"login-flow", certain, "The authorization server has no login that can be used here. It has neither PKCE by S256 for a browser, nor codes for another device.",
			"Get a token as its documentation says, and try it with -token-env."}
	case is(discover.ErrRegistration):
		return &cause{"login-registration", certain, "The authorization server has not registered this program (RFC 7591).", "Register a client there by hand, and give its ID with -client-id."}
	case is(login.ErrDeclined):
		return &cause{"login-declined", certain, "The login was declined.", "Try again, and agree."}
	case is(login.ErrExpired) || is(context.DeadlineExceeded):
		return &cause{"login-expired", certain, "Nobody has logged in in time.", "Try again; -timeout gives more time."}
	case refused != nil:
		return &cause{"login-error", certain, "The authorization server says: " + in.clean.quote(refused.Code, 60) + ".", "Look that up in its documentation (RFC 6749 §4.1.2.1). Check -client-id and its redirect URI, http://127.0.0.1/callback."}
	case in.trial.hasFailed():
		return &cause{"login-failed", certain, "The login has failed on the way to a token. See below what the authorization server has done.",
			"Have whoever runs the authorization server look at it. Or get a token as its documentation says."}
	case in.is(authretry.ReasonNoCredentials):
		return &cause{"login-failed", certain, "Nobody could be asked to log in. It says below why.", "Get a token as the API's documentation says, and try it with -token-env."}
	}
	return nil
}

// noAlgorithm is for a server that takes proofs, but none of ours.
func (in *inquiry) noAlgorithm() *cause {
	t := in.trial
	t.mu.Lock()
	defer t.mu.Unlock()
	fix := "Have the server take ES256, which most clients have. Package dpop has EdDSA and RS256 besides."
	for _, algorithm := range []string{"EdDSA", "RS256"} {
		if slices.Contains(t.algorithms, algorithm) {
			fix = "In a program, give dpop.NewKey a key for " + algorithm + ". Give what it returns to discover.Config.Proof and a dpop.Scheme."
			break
		}
	}
	return &cause{"login-algorithm", certain, "The server takes no DPoP proofs signed by ES256, as this program's are. " + t.namedBy + " names " + in.clean.text(strings.Join(t.algorithms, ", "), 100) + ".", fix}
}
