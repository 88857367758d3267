package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// setURL takes the URL. Userinfo in it is left out: http.Client would make it an Authorization header.
func (q *question) setURL(raw string) error {
	switch scheme, rest, _ := strings.Cut(raw, ":"); {
	case strings.HasPrefix(rest, "//") && (strings.EqualFold(scheme, "ws") || strings.EqualFold(scheme, "wss")):
		return usagef("a WebSocket is opened by a request of HTTP: ask for http%s:// in place of %s://", strings.ToLower(scheme)[2:], strings.ToLower(scheme))
	case !strings.HasPrefix(rest, "//") && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")):
		return usagef("the URL must begin with %s://", strings.ToLower(scheme))
	case !strings.Contains(raw, "://"):
		raw = "https://" + raw
	}
	u, err := parseURL(raw, "http", "https")
	if err != nil {
		return usagef("%v", err)
	}
	q.clean.hideURL(u)
	q.userinfo, u.User = u.User != nil, nil
	q.url, q.clean.asked = u, *u
	return nil
}

// userinfoOf returns what may be secret in a URL that need not be a valid one.
func userinfoOf(raw string) []string {
	at := strings.LastIndex(raw, "@")
	if at < 0 {
		return nil
	}
	userinfo := raw[:at]
	if _, rest, ok := strings.Cut(userinfo, "://"); ok {
		userinfo = rest
	}
	_, password, _ := strings.Cut(userinfo, ":")
	return []string{userinfo, password}
}

// parseURL parses an absolute URL. Its errors do not quote it, for it may have a password in it.
func parseURL(raw string, schemes ...string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		var urlErr *url.Error
		if errors.As(err, &urlErr) {
			if isBareIPv6(raw) {
				return nil, errors.New("an IPv6 address stands in brackets in a URL, such as http://[::1]:8080/")
			}
			return nil, errors.New("the URL cannot be read")
		}
		return nil, err
	}
	for _, s := range schemes {
		if u.Scheme == s && u.Host != "" {
			return u, nil
		}
	}
	return nil, fmt.Errorf("the URL must begin with %s://", strings.Join(schemes, ":// or "))
}

// isBareIPv6 reports whether a URL's host is an IPv6 address, perhaps with a port, without the brackets that it needs (RFC 3986 §3.2.2).
func isBareIPv6(raw string) bool {
	_, rest, _ := strings.Cut(raw, "://")
	host, _, _ := strings.Cut(rest, "/")
	address, _, _ := strings.Cut(host, "%")
	return strings.Count(host, ":") > 1 && net.ParseIP(address) != nil
}
