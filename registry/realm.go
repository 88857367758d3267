package registry

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/guarded"
)

const maxService = 1 << 10 // bytes of the service that a challenge names

// A realm is a token server, as a registry has named it. It is not modified.
type realm struct {
	url      *url.URL
	service  string
	origin   string         // of url
	registry string         // the origin of who has named it
	home     *url.URL       // the URL at which that was
	homeAddr netip.AddrPort // and the address; not valid if it is not known
	listed   bool           // the user has named it in Scheme.Realms
}

// realmIn returns the token server that a refusal names, or an error that says why it is not asked.
func (s *Scheme) realmIn(c *authretry.Challenge, refusal *http.Response) (*realm, error) {
	home := &url.URL{Scheme: refusal.Request.URL.Scheme, Host: refusal.Request.URL.Host, Path: refusal.Request.URL.Path}
	r := &realm{home: home, registry: guarded.Origin(home), service: strings.Clone(c.Params.Get("service"))}
	r.homeAddr, _ = netip.ParseAddrPort(refusal.Request.RemoteAddr)
	named := c.Params.Get("realm")
	if named == "" {
		return nil, fmt.Errorf("%w: the challenge names no token server", authretry.ErrUnsupportedChallenge)
	}
	if len(r.service) > maxService || strings.ContainsFunc(r.service, isControl) {
		return nil, untrusted(fmt.Errorf("registry: the service that it names is too long, or has a control character"))
	}
	u, err := s.policy(r).Check(named)
	if err != nil {
		return nil, untrusted(err)
	}
	r.url, r.origin = u, guarded.Origin(u)
	list, fixed := s.realms[r.registry]
	r.listed = slices.Contains(list, r.origin)
	if fixed && !r.listed {
		return nil, untrusted(fmt.Errorf("registry: %.100q is not in Scheme.Realms for this registry; if it is right, add it", u.Hostname()))
	}
	if u.Scheme == "http" && guarded.IsLoopbackName(home.Hostname()) && !guarded.IsLoopbackName(u.Hostname()) && !r.listed {
		return nil, untrusted(fmt.Errorf("registry: %.100q is not on this machine, as the registry is, and would be asked over plain http; if it is right, name it in Scheme.Realms", u.Hostname()))
	}
	return r, nil
}

// untrusted is the error for a challenge that names a token server which must not be asked. The refusal goes to the caller.
func untrusted(why error) error {
	return fmt.Errorf("%w: %w", authretry.ErrUnsupportedChallenge, &authretry.Rejection{Reason: authretry.ReasonUntrustedRealm, Err: why})
}

// policy returns what may be reached for a realm.
func (s *Scheme) policy(r *realm) *guarded.Policy {
	return &guarded.Policy{
		Home:     r.home,
		HomeAddr: r.homeAddr.Addr(),
		Named: func(string) bool { // which is asked for r.url alone, since there are no redirects
			return r.listed || !r.homeAddr.IsValid() && r.origin == r.registry
		},
		Resolver: s.resolver,
		Proxy:    s.proxy,
		TLS:      s.TLSClientConfig,
	}
}

// isSame reports whether two realms are asked in the same way.
func (r *realm) isSame(other *realm) bool {
	return r.service == other.service && r.url.String() == other.url.String()
}

// parseRealms reads Scheme.Realms.
func parseRealms(fields map[string][]string) (map[string][]string, error) {
	realms := make(map[string][]string, len(fields))
	for registry, list := range fields {
		from, err := parseOrigin(registry)
		if err != nil {
			return nil, err
		}
		realms[from] = []string{}
		for _, one := range list {
			to, err := parseOrigin(one)
			if err != nil {
				return nil, err
			}
			realms[from] = append(realms[from], to)
		}
	}
	return realms, nil
}

// parseOrigin reads an origin in Scheme.Realms. What is wrong with it is not quoted: somebody may have left a password in it.
func parseOrigin(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("registry: Scheme.Realms has an element that is no origin; write it as \"https://auth.example.com\"")
	}
	return guarded.Origin(u), nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
