package authretry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Digest is the Digest scheme (RFC 7616), with which a client proves that it knows a password without sending it.
// Servers of RFC 2617 and RFC 2069 are answered too.
//
// It knows the algorithms MD5 (not in FIPS 140-3 mode), SHA-256 and SHA-512-256 with their -sess forms, the qop values auth
// and auth-int (auth where there is a choice), and userhash. User name and password are hashed as the bytes they are:
// RFC 7616 §4 wants UTF-8, in normalization form C.
//
// A nonce is used by one request at a time, so that nonce counts arrive in order, unless the server gives the same one to
// several requests. Even then, no count is used twice. If a server keeps only a few nonces, and so forgets some that it has
// just given, fewer requests are sent to it at once: the others wait for one of those to end, up to 100 ms.
//
// Digest protects the password on the way, but nothing else of a request. Prefer https, where the server has it.
//
// A Digest must not be changed once it is in use. It is safe for concurrent use.
type Digest struct {
	// Username must not have control characters in it. One outside ASCII is sent as it is, also to a server that
	// announces charset=UTF-8: all servers that were tried take that, and not all of them take username* (RFC 7616 §3.4).
	// One that is empty is a user name if there is a Password: some cameras and printers have such an account.
	Username string
	Password string

	// Credentials, if not nil, is called instead, once for each challenge that is answered.
	Credentials CredentialsFunc

	// RequireMutualAuth fails a request, with an error wrapping ErrMutualAuth, if the response does not prove that the
	// server knows the password as well (rspauth, RFC 7616 §3.5). It must then offer qop=auth: other challenges
	// are not answered. A server that does not ask for credentials is not checked. What a proxy answers in its place has no
	// proof either, and fails the request: its 407 too. If false, a wrong or missing rspauth is no more than an
	// [EventUnverified], and none at all under auth-int, where it is not checked.
	RequireMutualAuth bool

	// MinAlgorithm is the weakest algorithm that is answered: "MD5", "SHA-256" or "SHA-512-256", each with its
	// -sess form. If empty it is MD5, since most servers know nothing else. An attacker who can change a
	// challenge can otherwise ask for the weakest (RFC 7616 §5.11).
	MinAlgorithm string

	cnonce func() string // for tests; nil: crypto/rand
}

// ErrMutualAuth means that [Digest.RequireMutualAuth] is set, and that the response did not prove that the server
// knows the password. Other Schemes, such as module negotiate's, wrap it where a server did not prove who it is.
var ErrMutualAuth = errors.New("authretry: the server did not prove that it knows the password")

// Name returns "Digest".
func (d *Digest) Name() string { return "Digest" }

// PlaintextSafe returns true: what Digest sends does not carry the password.
func (d *Digest) PlaintextSafe() bool { return true }

// Answer returns a [Session] for the nonce of challenge c. It never returns [ErrCredentialsRefused]: a server that
// wants nonce counts in order refuses good credentials too, and not all of them say stale=true.
//
// A user name that cannot be sent in a header fails the request, since no challenge would change that.
func (d *Digest) Answer(ctx context.Context, c *Challenge, refusal *http.Response) (Session, error) {
	if d == nil {
		return nil, errors.New("authretry: a nil *Digest has no credentials")
	}
	weakest, err := d.weakest()
	if err != nil {
		return nil, err
	}
	offer, err := readDigestChallenge(c)
	if err != nil {
		return nil, err
	}
	if offer.algorithm < weakest {
		return nil, unsupportedDigest("its algorithm is weaker than Digest.MinAlgorithm")
	}
	if d.RequireMutualAuth && offer.qop != qopAuth {
		// Without qop nothing in the server's proof is fresh, and that of auth-int is not checked.
		return nil, unsupportedDigest("Digest.RequireMutualAuth is set, and qop=auth is not offered")
	}
	origin := originOf(refusal.Request.URL).String()
	username, password, err := d.credentials(ctx, origin, c)
	if err != nil {
		return nil, err
	}

	cnonce := d.cnonce
	if cnonce == nil {
		cnonce = rand.Text
	}
	s := newDigestSession(noncesOf(ctx), origin, offer, username, password, cnonce())
	s.mutual = d.RequireMutualAuth
	if refusal.Request.Method != http.MethodConnect { // a proxy's space is all of the proxy (RFC 7616 §3.3)
		s.space = readDigestDomain(c.Params.Get("domain"), refusal.Request.URL)
	}
	return s, nil
}

// credentials returns a user name that is fit for a header, and the password.
func (d *Digest) credentials(ctx context.Context, origin string, c *Challenge) (username, password string, err error) {
	username, password = d.Username, d.Password
	if d.Credentials != nil {
		username, password, err = d.Credentials(ctx, CredentialsRequest{Account: AccountOf(ctx), Origin: origin, Challenge: c})
		if err != nil {
			return "", "", fmt.Errorf("authretry: no Digest credentials could be obtained: %w", err)
		}
	}
	return username, password, checkDigest(username, password)
}

func checkDigest(username, password string) error {
	if username == "" && password == "" {
		return errors.New("authretry: there is no Digest user name; set Digest.Username or Digest.Credentials")
	}
	if hasControl(username) || strings.Contains(username, "\t") {
		return errors.New("authretry: the Digest user name has a control character in it")
	}
	return nil
}

// weakest returns what MinAlgorithm says.
func (d *Digest) weakest() (digestAlgorithm, error) {
	if d.MinAlgorithm == "" {
		return algorithmMD5, nil
	}
	weakest, _, ok := digestAlgorithmNamed(d.MinAlgorithm)
	if !ok {
		return weakest, fmt.Errorf("authretry: Digest.MinAlgorithm %q is none of MD5, SHA-256, SHA-512-256", d.MinAlgorithm)
	}
	return weakest, nil
}

// Validate says what is wrong with the fields. See [Transport.Validate].
func (d *Digest) Validate() error {
	if _, err := d.weakest(); err != nil || d.Credentials != nil {
		return err
	}
	return checkDigest(d.Username, d.Password)
}

// Format writes d without its password, whatever the verb.
func (d Digest) Format(f fmt.State, verb rune) { formatShown(f, "authretry.Digest", d.shown()...) }

// MarshalJSON returns d without its password.
func (d Digest) MarshalJSON() ([]byte, error) { return marshalShown(d.shown()...) }

func (d Digest) shown() []shownField {
	return []shownField{
		shown("Username", d.Username),
		redacted("Password", d.Password),
		shown("RequireMutualAuth", d.RequireMutualAuth),
		shown("MinAlgorithm", d.MinAlgorithm),
	}
}
