package registry

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/authretry/authretry"
)

// A Scheme is the token authentication of container registries (distribution's specification of it, and OCI's registries). A
// registry refuses with a challenge of Bearer that names a token server, the realm, and the scope that is needed; the Scheme asks
// the realm for a token of that scope, and sends it. Its name is therefore "Bearer".
//
// There is one token for each account, realm, service and set of scopes, with one token request however many requests want it. It
// is renewed in the background before it expires, and replaced when the registry refuses it. What a repository has been found
// to need is remembered, and its token sent ahead. Where more is needed, as for a push after a pull, or for a mount
// from another repository, the next token is for all of it. A token that was granted less than was asked for is not
// asked for again before it expires: the refusal goes to the caller with authretry.ReasonInsufficientScope. If it was asked for without
// credentials, the reason is authretry.ReasonNoCredentials, and a login counts within half a minute.
//
// A registry that names a token server that must not be asked gets no answer. The refusal goes to the caller with
// authretry.ReasonUntrustedRealm; see the package comment for what that is.
//
// A Scheme is safe for concurrent use. It must not be copied, nor its fields changed, after its first use.
type Scheme struct {
	// Credentials returns the user name and password for a registry, which go to the token server that the registry names. The
	// user name "<token>" says that the password is an identity token, as docker login gets it. If Credentials is nil, or
	// returns an error wrapping authretry.ErrUnsupportedChallenge, tokens are asked for without credentials, as for public
	// repositories. DockerConfig makes such a func.
	//
	// A password that a token server has refused is not sent there again for half a minute; and until it is known to be good, one
	// token request tries it, for which the others wait, so that a wrong one does not lock an account.
	//
	// It is called for each token request, so what it returns may change. Its context has no values and ends after 30
	// seconds. The challenge says which scope is wanted.
	Credentials authretry.CredentialsFunc

	// Realms says which token servers a registry may name, by origins such as "https://registry.example.com". These
	// may be in a private network or on this machine, and may change. A registry that is in Realms may name no
	// others. For one that is not, see the package comment.
	Realms map[string][]string

	// TLSClientConfig is for connections to token servers: the certificates to trust, where they are not the system's. It is
	// not used with HTTPClient. What the Transport has for registries does not count for token servers.
	TLSClientConfig *tls.Config

	// HTTPClient sends the token requests instead. The addresses to which it connects are not judged then; all other rules
	// hold. It must not be one whose Transport uses this Scheme.
	HTTPClient *http.Client

	// ClientID is the name of the program for token servers that are asked by POST. If empty, it is "authretry".
	ClientID string

	// PostPassword sends a password by POST in a form, as OAuth 2.0 has it, rather than by GET with Basic. A token server that
	// answers 404 or 405 to that is asked by GET from then on. Identity tokens always go by POST.
	PostPassword bool

	resolver *net.Resolver                         // for tests
	proxy    func(*http.Request) (*url.URL, error) // for tests

	once   sync.Once // sets realms and err
	realms map[string][]string
	err    error

	memory memory
}

// Name returns "Bearer".
func (s *Scheme) Name() string { return "Bearer" }

// WantsRemoteAddr reports true: whether a realm may be asked depends on where the registry is.
func (s *Scheme) WantsRemoteAddr() bool { return true }

// Validate says what is wrong with the fields. See [authretry.Transport.Validate].
func (s *Scheme) Validate() error { return s.init() }

func (s *Scheme) init() error {
	s.once.Do(func() { s.realms, s.err = parseRealms(s.Realms) })
	return s.err
}

// Start implements authretry.Starter: it returns nothing for a request to a repository of which it is not known what it needs.
func (s *Scheme) Start(ctx context.Context, req *http.Request) (authretry.Session, error) {
	if err := s.init(); err != nil {
		return nil, err
	}
	if _, known := s.memory.needs(placeFor(authretry.AccountOf(ctx), req.URL)); !known {
		return nil, nil
	}
	return (*session)(s), nil
}

// Answer implements authretry.Scheme.
func (s *Scheme) Answer(ctx context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
	if err := s.init(); err != nil {
		return nil, err
	}
	at := placeFor(authretry.AccountOf(ctx), refusal.Request.URL)
	var wants needs
	if known, ok := s.memory.needs(at); c == nil && ok {
		wants = known // the token was refused without a word
	} else if c == nil {
		return nil, authretry.ErrCredentialsRefused
	} else {
		r, err := s.realmIn(c, refusal)
		if err != nil {
			return nil, err
		}
		asked, err := parseScope(c.Params.Get("scope"))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", authretry.ErrUnsupportedChallenge, err)
		}
		wants = s.memory.unite(at, r, asked)
	}
	g := s.memory.grant(s, at, wants)
	if err := g.answer(ctx, c, tokenOf(refusal.Request)); err != nil {
		return nil, err
	}
	s.memory.remember(at, wants)
	a := &answer{session: (*session)(s), grant: g}
	a.isFirst.Store(true)
	return a, nil
}

// Forget forgets the tokens of an account, and what was learnt for it. Transport.Forget calls it.
func (s *Scheme) Forget(account string) { s.memory.forget(account) }

// Format keeps credentials and tokens out of everything that package fmt prints.
func (s *Scheme) Format(f fmt.State, _ rune) { io.WriteString(f, "registry.Scheme{}") }

// MarshalJSON keeps credentials and tokens out of JSON.
func (s *Scheme) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }

// tokenOf returns the token that we have put on a request; "" if there is none.
func tokenOf(req *http.Request) string {
	token, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	return token
}
