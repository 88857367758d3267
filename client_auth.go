package authretry

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry/internal/jws"
	"golang.org/x/oauth2"
)

// A ClientAuth authenticates a client to a token endpoint (RFC 6749 §2.3): [SecretBasic], [SecretPost], [PrivateKeyJWT],
// [Assertion] or [AssertionFile]. Few need another one.
type ClientAuth interface {
	// Authenticate adds what says who the client is to the form or the header of a request to e. It is called before each
	// send, possibly by several goroutines at once. Its error must not carry a secret.
	Authenticate(ctx context.Context, e *TokenEndpoint, form url.Values, header http.Header) error
}

// publicClient is a client without credentials.
type publicClient struct{}

func (publicClient) Authenticate(_ context.Context, e *TokenEndpoint, form url.Values, _ http.Header) error {
	return sayClientID(e, form)
}

func sayClientID(e *TokenEndpoint, form url.Values) error {
	if e.ClientID != "" {
		form.Set("client_id", e.ClientID)
	}
	return nil
}

// SecretBasic sends the client's secret in the Authorization header (client_secret_basic), form-encoded as RFC 6749 §2.3.1
// demands. All servers that issue secrets must take this.
func SecretBasic(secret string) ClientAuth { return &clientSecret{secret, true} }

// SecretPost sends the client's secret in the form (client_secret_post, RFC 6749 §2.3.1).
func SecretPost(secret string) ClientAuth { return &clientSecret{secret, false} }

type clientSecret struct {
	secret   string
	inHeader bool
}

// check returns what is wrong with the secret.
func (c *clientSecret) check() error {
	switch {
	case c.secret == "" && !c.inHeader: // some servers have clients with an empty one
		return errors.New("authretry: TokenEndpoint.Auth has an empty client secret; leave Auth nil for a client without one")
	case hasControl(c.secret):
		return errors.New("authretry: TokenEndpoint.Auth has a client secret with a line break, or another control character")
	}
	return nil
}

func (c *clientSecret) Authenticate(_ context.Context, e *TokenEndpoint, form url.Values, header http.Header) error {
	if c.inHeader {
		pair := url.QueryEscape(e.ClientID) + ":" + url.QueryEscape(c.secret)
		header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
		return nil
	}
	if c.secret != "" {
		form.Set("client_secret", c.secret)
	}
	return sayClientID(e, form)
}

// Format keeps the secret out of everything that package fmt prints.
func (c *clientSecret) Format(f fmt.State, _ rune) { formatShown(f, "authretry.ClientAuth") }

// secretEither sends the secret in whichever way the server takes, as an oauth2.Config without an AuthStyle asks for. What
// package oauth2 does there is not for us: it tries the second way after any error, and so spends a refresh token twice.
type secretEither struct {
	clientSecret
	known atomic.Bool // that inHeader is right, or the opposite if swap is set
	swap  atomic.Bool
}

// An authStyle is a secretEither in one fetch.
type authStyle struct {
	*secretEither
	inHeader bool
	other    bool // the second way is being tried
}

func (s *secretEither) begin() *authStyle {
	return &authStyle{secretEither: s, inHeader: s.inHeader != s.swap.Load()}
}

func (s *authStyle) Authenticate(ctx context.Context, e *TokenEndpoint, form url.Values, header http.Header) error {
	c := clientSecret{s.secret, s.inHeader}
	return c.Authenticate(ctx, e, form, header)
}

// learn learns from an answer, and reports whether the request is to be sent in the other way: the server has not recognized
// the client, in which case it has not looked at the grant.
func (s *authStyle) learn(failure *oauth2.RetrieveError) (again bool) {
	switch {
	case failure == nil:
		if !s.known.Load() {
			s.swap.Store(s.inHeader != s.secretEither.inHeader)
			s.known.Store(true)
		}
		return false
	case s.known.Load() || s.other || !isClientRefused(failure):
		return false
	}
	s.inHeader, s.other = !s.inHeader, true
	return true
}

func isClientRefused(e *oauth2.RetrieveError) bool {
	switch e.ErrorCode {
	case "invalid_client", "invalid_request", "unauthorized_client":
		return true
	case "":
		return e.Response.StatusCode == http.StatusUnauthorized // as invalid_client is in RFC 6749 §5.2
	}
	return false
}

// PrivateKeyJWT authenticates the client by a JWT that it signs itself, a new one for each send (private_key_jwt, RFC 7523
// §2.2). It must not be copied, nor changed, after its first use.
type PrivateKeyJWT struct {
	// Signer has the private key: an *ecdsa.PrivateKey on P-256, an ed25519.PrivateKey, an *rsa.PrivateKey of 2048 bits or
	// more, or one in a TPM or a key management service.
	Signer crypto.Signer

	// KeyID is the kid under which the server knows the key. If empty, it is left out.
	KeyID string

	// Algorithm is ES256, EdDSA, RS256 or PS256. If empty, it is what is usual for the key: ES256, EdDSA, RS256.
	Algorithm string

	// Audience is whom the JWT is for. If empty, it is the issuer of the endpoint, if that is known, as a server must be able
	// to tell that it is meant; else the URL of the endpoint.
	Audience string

	// Certificate is that of the key, whose SHA-256 thumbprint (x5t#S256) is sent, as Microsoft Entra wants it. If nil, it is
	// left out.
	Certificate *x509.Certificate

	once   sync.Once
	key    *jws.Key
	header string
	err    error
}

// assertionLifetime is how long an assertion is good for.
const assertionLifetime = time.Minute

func (p *PrivateKeyJWT) init() error {
	if p == nil {
		return errors.New("authretry: the PrivateKeyJWT is nil")
	}
	p.once.Do(func() {
		if p.key, p.err = jws.NewKey(p.Signer, p.Algorithm); p.err != nil {
			p.err = fmt.Errorf("authretry: PrivateKeyJWT: %w", p.err)
			return
		}
		header := struct {
			Algorithm  string `json:"alg"`
			KeyID      string `json:"kid,omitempty"`
			Type       string `json:"typ"`
			Thumbprint string `json:"x5t#S256,omitempty"`
		}{p.key.Algorithm(), p.KeyID, "JWT", ""}
		if p.Certificate != nil {
			sum := sha256.Sum256(p.Certificate.Raw)
			header.Thumbprint = base64.RawURLEncoding.EncodeToString(sum[:])
		}
		p.header, p.err = jws.EncodeHeader(header)
	})
	return p.err
}

// Validate says what is wrong with the fields. See [TokenEndpoint.Validate].
func (p *PrivateKeyJWT) Validate() error { return p.init() }

// Authenticate implements [ClientAuth].
func (p *PrivateKeyJWT) Authenticate(_ context.Context, e *TokenEndpoint, form url.Values, _ http.Header) error {
	if err := p.init(); err != nil {
		return err
	}
	audience := p.Audience
	if audience == "" {
		audience = e.Issuer
	}
	if audience == "" {
		audience = e.URL
	}
	now := time.Now()
	claims, err := json.Marshal(struct {
		Issuer   string `json:"iss"`
		Subject  string `json:"sub"`
		Audience string `json:"aud"`
		ID       string `json:"jti"`
		IssuedAt int64  `json:"iat"`
		Expiry   int64  `json:"exp"`
	}{e.ClientID, e.ClientID, audience, rand.Text(), now.Unix(), now.Add(assertionLifetime).Unix()})
	if err != nil {
		return err
	}
	assertion, err := p.key.Sign(p.header, claims)
	if err != nil {
		return fmt.Errorf("authretry: PrivateKeyJWT.Signer has failed: %w", err)
	}
	return sendAssertion(e, form, assertion)
}

// Format keeps the key out of everything that package fmt prints.
func (p *PrivateKeyJWT) Format(f fmt.State, _ rune) {
	formatShown(f, "authretry.PrivateKeyJWT", shown("KeyID", p.KeyID), shown("Algorithm", p.Algorithm))
}

// MarshalJSON keeps the key out of JSON.
func (p *PrivateKeyJWT) MarshalJSON() ([]byte, error) { return marshalShown(shown("KeyID", p.KeyID)) }

// Assertion authenticates the client by a JWT that f returns (RFC 7521 §4.2), for instance from a cloud's metadata service. f is
// called before each send.
func Assertion(f func(ctx context.Context) (string, error)) ClientAuth { return assertionFunc(f) }

type assertionFunc func(ctx context.Context) (string, error)

func (a assertionFunc) Authenticate(ctx context.Context, e *TokenEndpoint, form url.Values, _ http.Header) error {
	if a == nil {
		return errors.New("authretry: Assertion was called with nil")
	}
	assertion, err := a(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("authretry: there is no assertion of the client: %w", err)
	case assertion == "":
		return errors.New("authretry: the assertion of the client is empty")
	}
	return sendAssertion(e, form, assertion)
}

// AssertionFile authenticates the client by a JWT in a file, which something else replaces before it expires: a Kubernetes
// service account token that is projected into a volume, for instance. It is read before each send.
func AssertionFile(path string) ClientAuth {
	return Assertion(func(context.Context) (string, error) {
		data, err := readSecretFile(path)
		return string(bytes.TrimSpace(data)), err
	})
}

func sendAssertion(e *TokenEndpoint, form url.Values, assertion string) error {
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", assertion)
	return sayClientID(e, form)
}
