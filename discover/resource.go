package discover

import (
	"cmp"
	"context"
	"net/netip"
	"net/url"
	"slices"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/guarded"
)

// A Resource is what a protected resource says of itself (RFC 9728 §2).
type Resource struct {
	// ID is its identifier, which authorization servers are told (RFC 8707).
	ID string

	// Issuers are the authorization servers that it names. More than 64 are an error, unless Config.Issuers says which; then only those
	// of them are here.
	Issuers []string

	// Scopes are those that it knows; nil if it does not say.
	Scopes []string

	// BoundTokens says that it takes only tokens that are bound to a key (dpop_bound_access_tokens_required).
	BoundTokens bool

	// ProofAlgorithms are those by which proofs of such a key may be signed (dpop_signing_alg_values_supported); nil if it does not say.
	ProofAlgorithms []string

	metadata string // the URL of its metadata
	at       place  // it
}

const (
	maxIssuers  = 64      // that a resource may name, unless Config.Issuers says which
	maxResource = 2 << 10 // bytes of a resource's identifier
)

// wellKnownResource is where a resource's metadata is (RFC 9728 §3).
const wellKnownResource = "/.well-known/oauth-protected-resource"

// A target is the resource for which a token is wanted, as far as that is known.
type target struct {
	at       place
	resource string // the identifier that it must have; "" if any will do that names it
	metadata string // the URL of its metadata; "" if that is to be found
}

// targetOf returns for which resource a token is wanted.
func (c *Config) targetOf(r *authretry.TokenRequest, known *authretry.Record) (*target, error) {
	t := &target{resource: c.Resource}
	named := r.URL
	if r.Challenge != nil {
		t.metadata = r.Challenge.Params.Get("resource_metadata")
	}
	if named == "" {
		if named = cmp.Or(c.Resource, known.Resource); named == known.Resource {
			t.metadata = known.Extra[extraMetadata]
		}
	}
	if named == "" {
		return nil, errNoResource
	}
	u, err := url.Parse(named)
	if err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, failed("", ErrNoMetadata, ownError("the resource is not an http or https URL"))
	}
	if c.Resource != "" && !isAt(c.Resource, u) {
		return nil, failed(u.Host, ErrOtherResource, ownError("it is not at the origin of Config.Resource; take a Config, a TokenSource and a Store for each server"))
	}
	if c.Resource == "" && hasOrigin(known.Resource) && !isAt(known.Resource, u) { // which would have the login replaced by one of its own
		return nil, failed(u.Host, ErrOtherResource, ownError("it is not at the origin of the resource that the login is for; take a Config, a TokenSource and a Store for each server"))
	}
	u.RawQuery, u.Fragment, u.User = "", "", nil
	t.at.url = u
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		t.at.addr = at.Addr()
	} else if t.at.addr = addrOf(u.Hostname()); !t.at.addr.IsValid() && r.URL == "" {
		t.at.addr, _ = netip.ParseAddr(known.Extra[extraResourceAddr])
	}
	return t, nil
}

// isAt reports whether a resource is at the origin of a URL.
func isAt(resource string, u *url.URL) bool {
	own, err := url.Parse(resource)
	return err == nil && guarded.Origin(own) == guarded.Origin(u)
}

// hasOrigin reports whether a resource is at an origin: that of a login which was made by other means may be any URI (RFC 8707 §2).
func hasOrigin(resource string) bool {
	u, err := url.Parse(resource)
	return err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http")
}

// is reports whether a resource's identifier names the target: by its URL, or its origin. They are compared as strings (RFC 9728
// §3.3).
func (t *target) is(id string) bool {
	if t.resource != "" {
		return id == t.resource
	}
	origin := guarded.Origin(t.at.url)
	return id == t.at.url.String() || id == origin || id == origin+"/" || t.at.url.Path == "" && id == t.at.url.String()+"/"
}

// resource asks for the metadata of the target: where the challenge says, or else at the well-known places, first that of its
// path, then that of its root (RFC 9728 §3.1).
func (c *Config) resource(ctx context.Context, t *target) (*Resource, error) {
	places := []string{t.metadata}
	if t.metadata == "" {
		origin := &url.URL{Scheme: t.at.url.Scheme, Host: t.at.url.Host}
		root := origin.String() + wellKnownResource
		if places = []string{root}; t.at.url.Path != "" && t.at.url.Path != "/" {
			places = []string{root + t.at.url.EscapedPath(), root}
		}
	}
	var first error
	for _, named := range places {
		u, err := c.check(t.at, named)
		if err != nil {
			return nil, failedAt(stepResource, t.at.url.Host, ErrRefusedURL, err)
		}
		home := t.at
		home.own = !home.addr.IsValid() && guarded.Origin(u) == guarded.Origin(home.url)
		doc, addr, err := c.get(ctx, home, u)
		if err == nil {
			if home.own {
				t.at.addr = addr // as if it had refused a request from there
			}
			r, err := readResource(doc)
			if err != nil {
				return nil, failedAt(stepResource, u.Host, ErrNoMetadata, err)
			}
			if !t.is(r.ID) {
				return nil, failedAt(stepResource, u.Host, ErrOtherResource, nil)
			}
			r.metadata, r.at = u.String(), t.at
			return r, nil
		}
		if first == nil || !isMissing(err) {
			first = failedAt(stepResource, u.Host, ErrNoMetadata, err)
		}
		if !isMissing(err) && !isOutOfOrder(err) {
			break
		}
	}
	return nil, first
}

// isMissing reports whether an error of get says that there is nothing to be had there.
func isMissing(err error) bool {
	_, ok := err.(ownError)
	return ok
}

// isOutOfOrder reports whether it says that the server cannot tell at present what is there. What is elsewhere it may be able to say.
func isOutOfOrder(err error) bool {
	_, ok := err.(outOfOrder)
	return ok
}

// readResource reads the metadata of a resource.
func readResource(doc document) (*Resource, error) {
	r := &Resource{}
	err := doc.readAll(map[string]any{"resource": &r.ID, "authorization_servers": &r.Issuers, "scopes_supported": &r.Scopes,
		"dpop_bound_access_tokens_required": &r.BoundTokens, "dpop_signing_alg_values_supported": &r.ProofAlgorithms})
	if err != nil {
		return nil, err
	}
	if r.ID == "" || len(r.ID) > maxResource {
		return nil, ownError("its resource is missing, or too long")
	}
	r.Scopes, r.ProofAlgorithms = validScopes(r.Scopes), few(r.ProofAlgorithms)
	return r, nil
}

// choose returns the authorization servers to try, the best first: of those that the resource names and Issuers allows, the one
// that is known already, or at which the program is known, comes first.
func (c *Config) choose(r *Resource, known *authretry.Record) ([]string, error) {
	if len(c.Issuers) == 0 && len(r.Issuers) > maxIssuers {
		return nil, failedAt(stepResource, r.at.url.Host, ErrNotAllowed, ownError("there are too many to choose from"))
	}
	var allowed []string
	for _, issuer := range r.Issuers {
		if c.allows(issuer) && !slices.Contains(allowed, issuer) {
			allowed = append(allowed, issuer)
		}
	}
	switch {
	case len(r.Issuers) == 0 && len(c.Issuers) == 1: // which is the only one that it can mean
		allowed = c.Issuers
	case len(allowed) == 0:
		return nil, failedAt(stepResource, r.at.url.Host, ErrNotAllowed, nil)
	}
	if len(r.Issuers) > maxIssuers {
		r.Issuers = slices.Clone(allowed) // what was discovered is kept
	}
	rank := func(issuer string) int {
		switch {
		case issuer == known.Issuer:
			return 0
		case slices.ContainsFunc(c.Clients, func(client Client) bool { return client.Issuer == issuer }):
			return 1
		}
		return 2
	}
	slices.SortStableFunc(allowed, func(a, b string) int { return rank(a) - rank(b) })
	return allowed[:min(len(allowed), maxTried)], nil
}

// maxTried is how many authorization servers are asked for their metadata, of those that a resource names.
const maxTried = 3
