package discover

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/guarded"
	"github.com/authretry/authretry/login"
	"golang.org/x/oauth2"
)

// A Config says how a program gets tokens for a resource of which it knows no more than a URL. Its methods are what an
// authretry.TokenSource needs: Fetch, Login and Revoke.
//
// It is for one resource: a token that was obtained for it goes to the resource's origin only, and no server at another origin can have
// it replaced. Several TokenSources may share it, one for each account. It is safe for concurrent use. It must not be copied, nor its
// fields changed, after its first use.
type Config struct {
	// Resource is the identifier of the resource (RFC 9728 §1.2), an https URL without query and fragment. If it is empty, it is
	// what the resource calls itself, which must be the URL that was asked, without its query, or its origin. If it is set, the
	// resource must call itself just so; and tokens can be obtained before the resource has asked for one, with Scopes, or else all
	// scopes that it names.
	Resource string

	// Flow asks a person to log in: a *login.Browser, a *login.Device, or what login.Auto returns. If it is nil, nobody is asked.
	Flow login.Flow

	// Grant returns how to get a token without a person, such as the ClientCredentials, JWTBearer or TokenExchange of the endpoint. If
	// it is nil, tokens come of a login by Flow alone. The endpoint must not be changed. What it sends besides the client's own
	// credentials, such as a subject token, goes to whichever server the resource names, unless there are Issuers.
	//
	//	Grant: func(e *authretry.TokenEndpoint, _ *discover.Server) authretry.FetchFunc { return e.ClientCredentials() }
	Grant func(e *authretry.TokenEndpoint, s *Server) authretry.FetchFunc

	// Issuers are the authorization servers that may be asked, by their names, such as "https://auth.example.com", to the letter: a
	// slash at the end makes another name. Their hosts, and those that a server there names, may be on a private network or this
	// machine even if the resource is not; no others may. If there are none, those may be asked that the resource names: then whoever
	// runs the resource decides where people log in, and what Grant shows.
	Issuers []string

	// Clients are what the program is called at authorization servers where somebody has registered it.
	Clients []Client

	// ClientMetadataURL is the https URL of a document that describes the program (OAuth Client ID Metadata Document), which is its
	// client ID at authorization servers that take one. It must allow redirects to this machine.
	ClientMetadataURL string

	// Registration is what an authorization server is told of the program that registers it on demand (RFC 7591 §2), such as
	// client_name or software_id, besides what it needs. What it answers is kept with the login.
	Registration map[string]any

	// NoRegistration turns that off.
	NoRegistration bool

	// Scopes are asked for in any case, besides those that the resource asks for.
	Scopes []string

	// ScopeFilter returns which of the scopes may be asked for, so that a resource cannot have the program ask for more than it
	// is meant to have. It sees all of them, offline_access too. If it is nil, all may.
	ScopeFilter func(scopes []string) []string

	// Params are further parameters of the authorization request, such as prompt.
	Params url.Values

	// Proof binds tokens to a key (RFC 9449): a *dpop.Key, for a dpop.Scheme.
	Proof authretry.Prover

	// AssumePKCE is for authorization servers that check PKCE (RFC 7636), and do not say so in their metadata. It is sent in any case.
	AssumePKCE bool

	// OriginIsIssuer is for resources without metadata of their own: their origin is then the authorization server, as MCP had it
	// before June 2025.
	OriginIsIssuer bool

	// HTTPClient sends all requests to authorization servers, and those for metadata. If it is nil, a client does that judges each
	// address just before it is dialled: what a server names must not lead to this machine or a private network, unless the
	// server itself is there, or Issuers names the host; and link-local addresses and metadata services of clouds are never
	// asked. With a client of your own, that is up to it.
	HTTPClient *http.Client

	// TLSClientConfig is that of the client of ours, as in http.Transport: its RootCAs, for an authority of your own. It is not used
	// with HTTPClient.
	TLSClientConfig *tls.Config

	resolver *net.Resolver                         // nil: the usual one
	proxy    func(*http.Request) (*url.URL, error) // nil: from the environment

	mu         sync.Mutex             // guards what follows
	registered map[string]*registered // by issuer
	refused    map[string]bool        // client IDs that an issuer has registered, and does not know any more
	unnamed    map[string]bool        // issuers that want no resource named with a token request
	bound      map[string]string      // the issuer of a Client that names none, by client ID
	machine    map[string]*found      // what Grant goes by, by the URL that was asked
}

// A Client is what the program is called at an authorization server.
type Client struct {
	// Issuer is the authorization server's name. If it is empty, it is the first one that is asked, which may be anybody whom the
	// resource names: name it if Auth is a secret.
	Issuer string

	// ID is the client ID.
	ID string

	// Auth authenticates the client. If it is nil, the client is a public one.
	Auth authretry.ClientAuth
}

// A found is what discovery has found out.
type found struct {
	resource *Resource
	server   *Server
}

// maxKept is how much is remembered of each kind.
const maxKept = 64

// keep puts a value into a map that does not grow beyond maxKept.
func keep[V any](m *map[string]V, key string, value V) {
	if *m == nil {
		*m = make(map[string]V)
	}
	if len(*m) >= maxKept {
		clear(*m)
	}
	(*m)[key] = value
}

// errNoResource is for a token that is wanted before a server has asked for one.
var errNoResource = fmt.Errorf("%w; name the resource in discover.Config.Resource, or send it a request first", authretry.ErrChallengeRequired)

var errNoWay = errors.New("discover: Config.Flow and Config.Grant are both nil: there is no way to get a token")

// Fetch is for authretry.TokenSource.Fetch. With a refresh token it asks the token endpoint that has issued it, and no other,
// without discovering anything; but where the resource has refused the token, and names its metadata, it looks there first whether
// the resource trusts that authorization server still. Without a refresh token, it gets a token by Grant, or says that a login is needed.
func (c *Config) Fetch(ctx context.Context, r authretry.TokenRequest) (*oauth2.Token, error) {
	if c.Flow == nil && c.Grant == nil {
		return nil, errNoWay
	}
	known := authretry.RecordOf(r.Previous)
	if r.Previous != nil && r.Previous.RefreshToken != "" {
		t, err := c.refresh(ctx, r, &known)
		if err == nil || c.Grant == nil || !errors.Is(err, authretry.ErrLoginRequired) && !isInvalidGrant(err) {
			return t, err
		}
	}
	switch {
	case c.Grant != nil:
		return c.fetchByGrant(ctx, r, &known)
	case r.Previous == nil && r.Challenge == nil && c.Resource == "":
		return nil, errNoResource
	}
	return nil, fmt.Errorf("%w: there is no refresh token", authretry.ErrLoginRequired)
}

// Discover finds out what is needed to get a token for a TokenRequest: it asks the resource which authorization servers it trusts,
// and one of these where its endpoints are. Fetch and Login call it; it is exported to show what they find.
func (c *Config) Discover(ctx context.Context, r authretry.TokenRequest) (*Resource, *Server, error) {
	known := authretry.RecordOf(r.Previous)
	f, err := c.discover(ctx, &r, &known)
	if err != nil {
		return nil, nil, err
	}
	return f.resource, f.server, nil
}

func (c *Config) discover(ctx context.Context, r *authretry.TokenRequest, known *authretry.Record) (*found, error) {
	t, err := c.targetOf(r, known)
	if err != nil {
		return nil, err
	}
	resource, err := c.resource(ctx, t)
	if err != nil {
		if !c.OriginIsIssuer || !errors.Is(err, ErrNoMetadata) || t.metadata != "" {
			return nil, err
		}
		resource = &Resource{Issuers: []string{guarded.Origin(t.at.url)}, at: t.at}
		resource.ID = cmp.Or(t.resource, resource.Issuers[0])
	}
	issuers, err := c.choose(resource, known)
	if err != nil {
		return nil, err
	}
	var first error
	for _, issuer := range issuers {
		server, err := c.server(ctx, t.at, issuer)
		if err == nil {
			return &found{resource, server}, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// Format says which resource and issuers are meant, and nothing else.
func (c *Config) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "discover.Config{Resource: %q, Issuers: %q}", c.Resource, c.Issuers)
}

// MarshalJSON does so for JSON.
func (c *Config) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }

// Format keeps Auth out of everything that package fmt prints.
func (c Client) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "discover.Client{Issuer: %q, ID: %q}", c.Issuer, c.ID)
}

// MarshalJSON does so for JSON.
func (c Client) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }
