package ntlm

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/guarded"
)

// A Scheme is NTLM, by which Windows' servers authenticate a connection rather than a request. Where one is wanted, the Scheme opens
// connections of its own, which are authenticated when they are new, and carry the requests of their account and origin from then
// on. See the package comment for what is sent.
//
// It needs a Transport whose Base is an *http.Transport, or for https an *authretry.ProxyTransport: that is cloned, so its dialer, TLS
// configuration, proxy and timeouts count.
//
// NTLM is a weak scheme. Its answer goes over plain http to loopback only, unless [authretry.Transport.AllowPlaintext] is set; and
// set [authretry.Transport.Origins], for whoever gets an answer can try passwords on it, or pass it on to another server.
//
// A Scheme is safe for concurrent use. It must not be copied, nor its fields changed, after its first use.
type Scheme struct {
	// Username is "user", `DOMAIN\user` or "user@domain.example.com", and Password the password. Neither may have more than 1,024
	// bytes.
	Username string
	Password string

	// Credentials, if not nil, is called instead, once for each challenge that is answered.
	Credentials authretry.CredentialsFunc

	// AfterNegotiate allows NTLM although the Transport has a Scheme named "Negotiate", when that has no answer. Without it, NTLM is
	// not used by such a Transport, also where the server offers nothing else: somebody on the way may have taken the better
	// offer out. Where there is no Negotiate, it does not matter.
	AfterNegotiate bool

	// MaxConns is how many requests to an origin an account may have under way, and so how many connections. More wait for a
	// response to end, which it does when its body has been read or closed. If 0, it is 100.
	MaxConns int

	mu    sync.Mutex // guards pools
	pools map[place]*pool
}

// maxPools is of how many places a Scheme knows that there are connections. What it does not know of is not shared by requests that
// are challenged at the same time, and no more.
const maxPools = 1 << 12

// A place is where connections lead, and whose they are.
type place struct{ account, scheme, host, port string }

var defaultPorts = map[string]string{"http": "80", "https": "443"}

// placeOf returns the place of a request for an account.
func placeOf(account string, u *url.URL) place {
	return place{account, u.Scheme, guarded.Lower(u.Hostname()), cmp.Or(u.Port(), defaultPorts[u.Scheme])}
}

// address returns what to dial.
func (p place) address() string { return net.JoinHostPort(p.host, p.port) }

// origin returns the origin, such as "https://www.example.com".
func (p place) origin() string { return guarded.Origin(&url.URL{Scheme: p.scheme, Host: p.address()}) }

// Name returns "NTLM".
func (s *Scheme) Name() string { return "NTLM" }

// Validate says what is wrong with the fields. See authretry.Transport.Validate.
func (s *Scheme) Validate() error {
	if s.Credentials != nil {
		return nil
	}
	return user{s.Username, s.Password}.check()
}

// Answer implements authretry.Scheme.
func (s *Scheme) Answer(ctx context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
	switch {
	case c == nil:
		return nil, authretry.ErrCredentialsRefused
	case refusal.StatusCode == http.StatusProxyAuthRequired:
		return nil, fmt.Errorf("%w: a ProxyTransport does not keep the connection on which a proxy refuses; use ntlm.ProxyDialer", authretry.ErrUnsupportedChallenge)
	case !s.AfterNegotiate && authretry.HasScheme(ctx, "Negotiate"):
		return nil, fmt.Errorf("%w: there is no Kerberos, and NTLM does not take its place unless ntlm.Scheme.AfterNegotiate is set", authretry.ErrUnsupportedChallenge)
	}
	at := placeOf(authretry.AccountOf(ctx), refusal.Request.URL)
	who := user{s.Username, s.Password}
	if s.Credentials != nil {
		var err error
		who.name, who.password, err = s.Credentials(ctx, authretry.CredentialsRequest{Account: at.account, Origin: at.origin(), Challenge: c})
		if err != nil {
			return nil, err
		}
	}
	if err := who.check(); err != nil {
		return nil, err
	}
	if hasMark(refusal.Request) && s.isRefused(at, who) {
		return nil, authretry.ErrCredentialsRefused
	}
	return &session{s, at, who, markWord + rand.Text()}, nil
}

// isRefused reports whether a server has just refused these credentials, by which connections were to be authenticated.
func (s *Scheme) isRefused(at place, who user) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pools[at]
	return p != nil && p.user == who && p.isRefused()
}

// pool returns the connections to a place for a user. It counts as in use until it is left.
func (s *Scheme) pool(at place, who user, base http.RoundTripper) (*pool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pools[at]
	if p == nil || p.user != who || p.base != base {
		if s.pools == nil {
			s.pools = make(map[place]*pool)
		}
		for other := range s.pools {
			if len(s.pools) < maxPools {
				break
			}
			delete(s.pools, other)
		}
		var err error
		if p, err = newPool(s, at, who, base); err != nil {
			return nil, err
		}
		s.pools[at] = p
	}
	p.enter()
	return p, nil
}

// entered says that a pool is in use again.
func (s *Scheme) entered(p *pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pools[p.place] == nil {
		s.pools[p.place] = p
	}
	p.enter()
}

// left forgets a pool that is not in use.
func (s *Scheme) left(p *pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pools[p.place] == p && !p.isUsed() {
		delete(s.pools, p.place)
	}
}

// Forget closes the account's idle connections, and has what is challenged from now on get others. Transport.Forget calls it, which
// has the account's next requests challenged. Connections that are in use by then are closed when their responses end.
func (s *Scheme) Forget(account string) {
	s.mu.Lock()
	var forgotten []*pool
	for at, p := range s.pools {
		if at.account == account {
			forgotten = append(forgotten, p)
			delete(s.pools, at)
		}
	}
	s.mu.Unlock()
	for _, p := range forgotten {
		p.closeIdle()
	}
}

// Format keeps credentials out of everything that package fmt prints.
func (s *Scheme) Format(f fmt.State, _ rune) { io.WriteString(f, "ntlm.Scheme{}") }

// MarshalJSON keeps credentials out of JSON.
func (s *Scheme) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }

// A session is what answers a challenge: connections that are authenticated.
type session struct {
	scheme *Scheme
	at     place
	user   user
	mark   string
}

// markWord begins the marks of sessions. A mark is no secret, but there is none like it.
const markWord = "NTLM "

// Authorize implements authretry.Session. It marks the request as one of a session's, so that Answer knows if that is refused. A
// connection takes off the mark before it sends the request.
func (s *session) Authorize(req *http.Request) error {
	if req.Header["Authorization"] == nil {
		req.Header["Authorization"] = []string{s.mark}
	}
	return nil
}

func hasMark(req *http.Request) bool {
	return strings.HasPrefix(req.Header.Get("Authorization"), markWord)
}

// Carry implements authretry.Carrier. Nothing is sent before there is a request.
func (s *session) Carry(_ context.Context, base http.RoundTripper) (http.RoundTripper, error) {
	p, err := s.scheme.pool(s.at, s.user, base)
	if err != nil {
		return nil, err
	}
	by := &carrier{pool: p}
	by.isFirst.Store(true)
	return by, nil
}

// Format keeps credentials out of everything that package fmt prints.
func (s *session) Format(f fmt.State, _ rune) { io.WriteString(f, "ntlm.session{}") }

// MarshalJSON keeps credentials out of JSON.
func (s *session) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }
