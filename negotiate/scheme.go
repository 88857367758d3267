package negotiate

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/guarded"
)

// A Scheme is the Negotiate authentication of RFC 4559, with Kerberos. It answers a challenge of Negotiate, from an origin or
// from a proxy, with a token for the service HTTP at that host. Its zero value does so as whoever has run kinit.
//
// Each send has a token of its own, so none is refused as a replay. Nothing but Kerberos is ever negotiated: a server that goes
// on with NTLM, which Negotiate can carry as well, gets no answer. Credentials are never delegated, and tokens are not bound to
// the TLS connection (RFC 5929).
//
// A Scheme is safe for concurrent use. It must not be copied, nor its fields changed, after its first use.
type Scheme struct {
	// Kerberos makes the tokens, for everybody. If it and Accounts are nil, it is [Default], but not for requests that
	// authretry.Transport.Account names an account for.
	Kerberos Kerberos

	// Accounts returns what makes the tokens of an account, as authretry.Transport.Account has named it. It is called once for
	// each account until that is forgotten, or has made room for others (1024 are kept), with a context that has no values
	// and ends after 30 seconds. An error fails the requests that wait for it, and is not kept.
	Accounts func(ctx context.Context, account string) (Kerberos, error)

	// SPN returns the name of the service at an origin, or of the one at a proxy, such as "HTTP/www.example.com". What it gets
	// has a scheme and a host, and those are what the caller has addressed: no redirect changes them, and Request.Host changes the
	// host only where the request goes there (see the package comment). If it returns "", there is no Kerberos for the origin, and
	// its challenges are not answered. If SPN is nil, the name is HTTP/ and the host in lower case, without the port, which is not
	// resolved by DNS. It is called by many goroutines at once.
	SPN func(origin *url.URL) string

	// Ahead sends a token ahead of any challenge, to every origin that the Transport sends credentials to, so that each request is sent
	// once. Where the realm knows no such service, the request is sent without one, or fails if Mutual is set. By default only what is at or
	// below the folder of a path that was challenged gets a token ahead.
	Ahead bool

	// Mutual demands that the server proves that it has the service's key (RFC 4559 §5): a response to a token without a valid proof fails
	// the request with an error that wraps authretry.ErrMutualAuth. By then the server has got the request. Returned as they are, and
	// proving nothing, are refusals, and a 407 from a proxy on the way. A request that goes without a token, as nobody has asked for one,
	// has a response that proves nothing: so set Ahead, too, where no other server may answer. By default proofs are not looked at. It
	// needs a server that sends one with every response, as Apache's mod_auth_gssapi does and, for a proxy, Squid does not; and with
	// Ahead, one that asks for Negotiate on every path.
	Mutual bool

	// SharedConnections sends all requests by Transport.Base. By default those with a token go by connections of the account's own,
	// made by a clone of Base: some servers authenticate a connection by the first token on it, and take whatever comes after that for
	// the same user's. It is for servers that are known to authenticate each request, and for a Base that is neither an *http.Transport
	// nor an *authretry.ProxyTransport. Proxies are authenticated to by the connections of the ProxyTransport in any case.
	SharedConnections bool

	memory memory
}

// Bounds of what is read and remembered.
const (
	maxToken = 64 << 10 // bytes of a token in a header, in base64
	maxSPN   = 1 << 10  // bytes
)

// Name returns "Negotiate".
func (s *Scheme) Name() string { return "Negotiate" }

// PlaintextSafe reports true: a token proves that the user has the key of a ticket, and shows no secret.
func (s *Scheme) PlaintextSafe() bool { return true }

// Start implements authretry.Starter: it returns nothing unless Ahead is set.
func (s *Scheme) Start(ctx context.Context, req *http.Request) (authretry.Session, error) {
	if !s.Ahead {
		return nil, nil
	}
	session, err := s.session(ctx, req.URL)
	if errors.Is(err, authretry.ErrUnsupportedChallenge) {
		return nil, nil
	}
	return session, err
}

// Answer implements authretry.Scheme.
func (s *Scheme) Answer(ctx context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
	if c == nil {
		return nil, authretry.ErrCredentialsRefused
	}
	answer, err := s.session(ctx, refusal.Request.URL)
	if err != nil {
		return nil, err
	}
	sent := tokenIn(refusal.Request.Header)
	if sent == nil {
		return answer, nil
	}
	reason, again := readRefusal(c.Token68)
	if r, ok := sessionOf(answer).kerberos.(Renewer); ok && again && r.Renew(sessionOf(answer).spn, sent) {
		return answer, nil
	}
	return nil, fmt.Errorf("%w%s", authretry.ErrCredentialsRefused, reason)
}

// session returns a Session for the origin or proxy that u is of.
func (s *Scheme) session(ctx context.Context, u *url.URL) (authretry.Session, error) {
	spn, err := s.spn(u)
	if err != nil {
		return nil, err
	}
	k, err := s.kerberos(ctx)
	if err != nil {
		return nil, err
	}
	own := &session{kerberos: k, spn: spn, mutual: s.Mutual}
	if s.SharedConnections || authretry.ForProxy(ctx) {
		return own, nil
	}
	return &carried{session: own, account: authretry.AccountOf(ctx), carriers: &s.memory.carriers}, nil
}

// spn returns the name of the service at the origin of u.
func (s *Scheme) spn(u *url.URL) (string, error) {
	if s.SPN != nil {
		spn := s.SPN(&url.URL{Scheme: u.Scheme, Host: u.Host})
		switch {
		case spn == "":
			return "", fmt.Errorf("negotiate: there is no Kerberos for this origin, as Scheme.SPN says: %w", authretry.ErrUnsupportedChallenge)
		case len(spn) > maxSPN || !isServiceName(spn):
			return "", fmt.Errorf("negotiate: Scheme.SPN returned %.100q, which is no service and host such as HTTP/www.example.com", spn)
		}
		return spn, nil
	}
	spn := "HTTP/" + strings.TrimSuffix(guarded.Lower(u.Hostname()), ".")
	if len(spn) > maxSPN || !isServiceName(spn) {
		return "", fmt.Errorf("negotiate: no name of a service follows from the host %.100q: set Scheme.SPN", u.Hostname())
	}
	return spn, nil
}

// isServiceName reports whether s is a service and a host of visible ASCII characters.
func isServiceName(s string) bool {
	service, host, ok := strings.Cut(s, "/")
	outside := func(r rune) bool { return r <= ' ' || r > '~' || r == '@' || r == '\\' }
	return ok && service != "" && host != "" && strings.IndexFunc(s, outside) < 0
}

// kerberos returns what makes the tokens of the account for which ctx is.
func (s *Scheme) kerberos(ctx context.Context) (Kerberos, error) {
	account := authretry.AccountOf(ctx)
	switch {
	case s.Accounts != nil && !authretry.ForProxy(ctx):
		return s.memory.account(ctx, account, s.Accounts)
	case s.Kerberos != nil:
		return s.Kerberos, nil
	case s.Accounts != nil:
		return nil, errors.New("negotiate: a proxy has no accounts: set Scheme.Kerberos")
	case account != "":
		return nil, errors.New("negotiate: Transport.Account is set, so it must be said whose tickets are used: set Scheme.Accounts, or Scheme.Kerberos for one identity of all accounts")
	}
	return s.memory.defaultKerberos(), nil
}

// Forget forgets what makes the tokens of an account, and closes its idle connections. authretry.Transport.Forget calls it.
func (s *Scheme) Forget(account string) { s.memory.forget(account) }

// CloseIdleConnections closes the idle connections by which requests with tokens go. authretry.Transport.CloseIdleConnections calls it.
func (s *Scheme) CloseIdleConnections() { s.memory.carriers.closeIdle() }

// Format keeps credentials out of everything that package fmt prints.
func (s *Scheme) Format(f fmt.State, _ rune) { io.WriteString(f, "negotiate.Scheme{}") }

// MarshalJSON keeps credentials out of JSON.
func (s *Scheme) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }

// tokenIn returns the token in the Authorization of a request; nil if there is none.
func tokenIn(h http.Header) []byte {
	scheme, value, _ := strings.Cut(h.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Negotiate") {
		return nil
	}
	return decode(value)
}

// decode reads a token in base64; nil if it is none.
func decode(value string) []byte {
	if len(value) > maxToken {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
	if err != nil || len(b) == 0 {
		return nil
	}
	return b
}

// tokensIn returns the tokens of Negotiate in the lines of a header, such as WWW-Authenticate.
func tokensIn(lines []string) (tokens []string) {
	const most = 64 // challenges that are looked at
	challenges, _ := authretry.ParseChallenges(lines)
	for _, c := range challenges[:min(len(challenges), most)] {
		if strings.EqualFold(c.Scheme, "Negotiate") && c.Token68 != "" {
			tokens = append(tokens, c.Token68)
		}
	}
	return tokens
}
