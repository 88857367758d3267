package dpop

import (
	"errors"
	"net/url"
	"strings"
)

// A target is where a request goes.
type target struct {
	uri    string // the htu of a proof (RFC 9449 §4.2): without query and fragment, normalized (RFC 3986 §6.2.2, §6.2.3)
	origin string // whose nonces count
}

var (
	errNoURL    = errors.New("dpop: the request has no http or https URL")
	errHostName = errors.New("dpop: the host has a character outside ASCII; write it in its xn-- form, as the server gets to see it")
)

// targetOf returns where a request to u goes. Host is that of the Host header, by which the server knows itself; "" if it is
// that of u.
func targetOf(u *url.URL, host string) (target, error) {
	if u == nil {
		return target{}, errNoURL
	}
	scheme := lower(u.Scheme)
	if scheme != "https" && scheme != "http" || u.Host == "" {
		return target{}, errNoURL
	}
	own, err := normalHost(scheme, u.Host)
	if err != nil {
		return target{}, err
	}
	said := own
	if host != "" && host != u.Host {
		if said, err = normalHost(scheme, host); err != nil {
			return target{}, err
		}
	}
	uri := scheme + "://" + said + pathOf(u)
	t := target{uri: uri, origin: uri[:len(scheme)+len("://")+len(said)]}
	if said != own {
		t.origin += " at " + own // a server has no say in the nonces of one that it was called by the name of
	}
	return t, nil
}

// normalHost returns a host in lower case, without a port that is the scheme's default, and without an IPv6 zone, which is not
// sent.
func normalHost(scheme, host string) (string, error) {
	for i := range len(host) {
		if host[i] <= ' ' || host[i] > '~' || host[i] == '/' || host[i] == '?' || host[i] == '#' || host[i] == '@' {
			return "", errHostName
		}
	}
	host = lower(host)
	name, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		name, port = host[:i], host[i+1:]
	}
	if i := strings.IndexByte(name, '%'); i >= 0 && strings.HasPrefix(name, "[") {
		name = name[:i] + "]"
	}
	if port == "" || scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		return name, nil
	}
	return name + ":" + port, nil
}

// pathOf returns the path of u as it is sent.
func pathOf(u *url.URL) string {
	path := u.Opaque
	if path == "" {
		path = u.EscapedPath()
	} else {
		if rest, ok := strings.CutPrefix(path, "//"); ok {
			path = rest[max(0, strings.IndexByte(rest, '/')):]
			if !strings.HasPrefix(path, "/") {
				path = "" // it was a host alone
			}
		}
		path, _, _ = strings.Cut(path, "?")
	}
	if !strings.HasPrefix(path, "/") || path == "*" {
		return "/"
	}
	return path
}

// lower returns s with the letters of ASCII in lower case. It allocates nothing if they are.
func lower(s string) string {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			return strings.ToLower(s) // of ASCII, where it counts
		}
	}
	return s
}
