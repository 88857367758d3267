package guarded

import (
	"net"
	"net/url"
	"strings"
)

// Origin returns scheme, host and port of a URL, the port only if it is not the usual one (RFC 6454 §6.2). Like
// authretry.Transport it folds the case of ASCII letters alone.
func Origin(u *url.URL) string {
	host, port := Lower(u.Hostname()), u.Port()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	scheme := Lower(u.Scheme)
	if port == "" || scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		return scheme + "://" + host
	}
	return scheme + "://" + host + ":" + port
}

// Lower returns s with its ASCII letters in lower case.
func Lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

// IsLoopbackName reports whether a host, by its name alone, is this machine.
func IsLoopbackName(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
