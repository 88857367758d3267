package authretry

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// An origin is scheme, host and effective port of a URL, in canonical form (RFC 9110 §4.3.1). It is what
// credentials are bound to: no state of one origin ever reaches another.
//
// Only the case of ASCII letters does not matter in a host. Everything else is compared byte by byte: net/http dials a host
// outside ASCII by its IDNA name, for which Unicode's case mapping does not do ("gİthub.test" is xn--github-qyd.test, and
// "straẞe.test" strasse.test). So a name in Unicode and its xn-- form are two origins.
type origin struct {
	scheme string // in lower case
	host   string // with ASCII letters in lower case, without the brackets of an IPv6 address
	port   string // never empty for http and https
}

// A writtenOrigin is an origin as a URL has it, which costs nothing to know. Most requests need no more.
type writtenOrigin struct{ scheme, host string }

// originOf returns the origin of u. It allocates nothing if u is in lower case already.
func originOf(u *url.URL) origin { return writtenOrigin{u.Scheme, u.Host}.canonical() }

func (w writtenOrigin) canonical() origin {
	if port := defaultPort(w.scheme); port != "" && isCanonicalHost(w.host) {
		return origin{w.scheme, w.host, port} // as most are
	}
	host, port := w.host, ""
	if strings.Contains(host, ":") {
		u := url.URL{Host: host}
		host, port = u.Hostname(), u.Port()
	}
	scheme := lowerASCII(w.scheme)
	if port == "" {
		port = defaultPort(scheme)
	}
	return origin{scheme, lowerASCII(host), port}
}

// isCanonicalHost reports whether a host is in lower case, and has no port.
func isCanonicalHost(host string) bool {
	for i := range len(host) {
		if c := host[i]; c == ':' || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// clone returns o without a hold on the URL that it is a part of.
func (o origin) clone() origin {
	return origin{strings.Clone(o.scheme), strings.Clone(o.host), strings.Clone(o.port)}
}

// lowerASCII returns s with its ASCII letters in lower case.
func lowerASCII(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

func defaultPort(scheme string) string {
	switch scheme {
	case "https":
		return "443"
	case "http":
		return "80"
	}
	return ""
}

// String returns the origin as RFC 6454 §6.2 writes it, such as "https://api.example.com".
func (o origin) String() string {
	host := o.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if o.port == defaultPort(o.scheme) {
		return o.scheme + "://" + host
	}
	return o.scheme + "://" + host + ":" + o.port
}

// isLoopback reports whether what is sent to the origin stays on this machine, unless it goes by a proxy.
func (o origin) isLoopback() bool {
	if o.host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(o.host)
	return err == nil && addr.Unmap().IsLoopback()
}

// parseOrigin reads Transport.Origins[i]. Its errors say what to write instead, and quote nothing in which somebody may have left a
// password.
func parseOrigin(s string, i int) (origin, error) {
	wrong := func(format string, args ...any) (origin, error) {
		return origin{}, fmt.Errorf("authretry: Transport.Origins[%d] "+format, append([]any{i}, args...)...)
	}
	u, err := url.Parse(s)
	if err != nil {
		return wrong(`is not a URL; write it as "https://api.example.com"`)
	}
	o := originOf(u)
	switch {
	case (o.scheme != "https" && o.scheme != "http") || o.host == "":
		return wrong("does not begin with https:// or http:// and a host; write %q", originMeant(s))
	case strings.Contains(o.host, "*"):
		return wrong("is %q, but there are no patterns; write each host by its name", o)
	case u.User != nil:
		return wrong("has a user name; write %q, and give the credentials to a Scheme", o)
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "":
		return wrong("has more than scheme, host and port; write %q: an origin is all paths of its host", o)
	}
	return o, nil
}

// originMeant returns what was meant by a host without a scheme, or an example.
func originMeant(s string) string {
	host, _, _ := strings.Cut(strings.TrimPrefix(s, "//"), "/")
	if u, err := url.Parse("https://" + host); err == nil && u.User == nil && u.Hostname() != "" && strings.Trim(host, ".:-") == host {
		if o := originOf(u); !strings.ContainsAny(o.host, "*%?#") && u.RawQuery == "" && u.Fragment == "" {
			return o.String()
		}
	}
	return "https://api.example.com"
}

// originOfResource returns the origin of a resource (RFC 8707), nil if that is not an http or https URL.
func originOfResource(resource string) *origin {
	u, err := url.Parse(resource)
	if err != nil || u.Host == "" {
		return nil
	}
	o := originOf(u)
	if o.scheme != "https" && o.scheme != "http" {
		return nil
	}
	return &o
}

// maxHops bounds the walk along a chain of redirects. http.Client follows ten by default.
const maxHops = 100

// hasLeftOrigin reports whether req is the outcome of a chain of redirects that has left the origin of the
// request that the caller made, even if it has come back since: whoever was visited in between has chosen where req
// goes. An upgrade from http to https of the same host, on default ports, is not leaving. Of says where a request goes.
func hasLeftOrigin(req *http.Request, of func(*http.Request) origin) bool {
	o := of(req)
	for range maxHops {
		if req.Response == nil {
			return false
		}
		req = req.Response.Request
		if req == nil || req.URL == nil {
			return true // a redirect by someone unknown
		}
		from := of(req)
		if from != o && !isUpgrade(from, o) {
			return true
		}
		o = from
	}
	return true
}

func isUpgrade(from, to origin) bool {
	return from.scheme == "http" && from.port == "80" && to.scheme == "https" && to.port == "443" && from.host == to.host
}
