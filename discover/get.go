package discover

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/authretry/authretry/internal/dialed"
	"github.com/authretry/authretry/internal/guarded"
	"github.com/authretry/authretry/internal/returning"
)

// A place is a server that names others: its URL, and at which address it is, if that is known.
type place struct {
	url  *url.URL
	addr netip.Addr
	own  bool // it is asked itself, and the program has named it, or has asked it before
}

// policy returns what may be reached of what the place names.
func (c *Config) policy(home place) *guarded.Policy {
	named := func(host string) bool {
		return c.isNamed(host) || home.own && strings.EqualFold(host, home.url.Hostname())
	}
	return &guarded.Policy{Home: home.url, HomeAddr: home.addr, Named: named, Resolver: c.resolver, Proxy: c.proxy, TLS: c.TLSClientConfig}
}

// client returns what asks for what the place names.
func (c *Config) client(home place) *http.Client {
	if c.HTTPClient == nil {
		client := c.policy(home).Client()
		client.Transport = c.base(home)
		return client
	}
	return returning.Client(c.HTTPClient)
}

// base returns what the requests of our own client go by.
func (c *Config) base(home place) http.RoundTripper {
	return judging{c.policy(home).Client().Transport}
}

// A judging says of a URL that is not asked that this is final, in words for the caller.
type judging struct{ http.RoundTripper }

func (j judging) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := j.RoundTripper.RoundTrip(req)
	if refused, ok := errors.AsType[*guarded.RefusedError](err); ok {
		return nil, failed(req.URL.Host, ErrRefusedURL, refused)
	}
	return resp, err
}

// isNamed reports whether the program has named a host in Issuers.
func (c *Config) isNamed(host string) bool {
	for _, issuer := range c.Issuers {
		if u, err := url.Parse(issuer); err == nil && strings.EqualFold(u.Hostname(), host) {
			return true
		}
	}
	return false
}

// check returns a URL that the place names, or why it is not asked: it must be https, or http to this machine.
func (c *Config) check(home place, named string) (*url.URL, error) {
	policy := c.policy(home)
	u, err := url.Parse(named)
	if err == nil && !u.IsAbs() {
		return nil, &guarded.RefusedError{Why: "it is no absolute URL"}
	}
	if u, err = policy.Check(named); err != nil {
		return nil, err
	}
	if u.Scheme == "http" && !guarded.IsLoopbackName(u.Hostname()) {
		return nil, &guarded.RefusedError{Host: u.Hostname(), Why: "it is not https"}
	}
	return u, nil
}

// A document is a JSON object, by the names of its members as they are written.
type document map[string]json.RawMessage

// get asks for a JSON object that the place names. Any answer but 200 with such an object is an ownError, which says that there is
// none, or outOfOrder. It returns at which address the server is, too, if that is known.
func (c *Config) get(caller context.Context, home place, u *url.URL) (document, netip.Addr, error) {
	ctx, cancel := context.WithTimeout(caller, c.timeout())
	defer cancel()
	watched, ctx := dialed.New(ctx, hostPort(u))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.client(home).Do(req)
	if err != nil {
		return nil, netip.Addr{}, c.unanswered(caller, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, netip.Addr{}, answered(resp.StatusCode)
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return nil, netip.Addr{}, ownError("its answer is not application/json")
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, guarded.MaxAnswer+1))
	if len(body) > guarded.MaxAnswer || len(body) == guarded.MaxAnswer && err != nil {
		return nil, netip.Addr{}, ownError("its answer is too long")
	}
	if err != nil {
		return nil, netip.Addr{}, c.unanswered(caller, err)
	}
	doc, err := parse(body)
	addr, _ := netip.ParseAddrPort(watched.Addr())
	return doc, addr.Addr(), err
}

// parse reads a JSON object.
func parse(body []byte) (document, error) {
	var doc document
	if json.Unmarshal(body, &doc) != nil || doc == nil {
		return nil, ownError("its answer is not a JSON object")
	}
	return doc, nil
}

// read reads a member, if it is there. An error means that it is of another type.
func (d document) read(name string, into any) error {
	raw, ok := d[name]
	if !ok || string(raw) == "null" {
		return nil
	}
	if json.Unmarshal(raw, into) != nil {
		return ownError("its " + name + " is of a wrong type")
	}
	return nil
}

// readAll reads several members.
func (d document) readAll(members map[string]any) error {
	var failed []error
	for name, into := range members {
		if err := d.read(name, into); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// hostPort returns where a URL leads, as http.Transport writes it.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// addrOf returns the address that a host is by its name alone, if it is one.
func addrOf(host string) netip.Addr {
	if strings.EqualFold(host, "localhost") {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	addr, _ := netip.ParseAddr(host)
	return addr
}
