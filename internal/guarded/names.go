package guarded

import (
	"net"
	"net/netip"
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

// IsLoopbackName reports whether a host, by its name alone, is this machine to everybody. Of other names that ReadHost takes for this
// machine, a resolver may ask the network.
func IsLoopbackName(host string) bool {
	ip := net.ParseIP(host)
	return Lower(host) == "localhost" || ip != nil && ip.IsLoopback()
}

// ReadHost returns the address that a host is to a browser, which asks no resolver then: 127.0.0.1 for "127.0.0.1.", "localhost" and
// "a.localhost" (RFC 6761 §6.3). It is not valid for any other name. It returns false if a browser may take the host for an address, and
// we cannot tell which: "127.1", "0x7f.1" and "2130706433" are 127.0.0.1 (URL Standard §3.5, as by inet_aton), and so is what
// becomes one of these when characters outside ASCII are mapped.
func ReadHost(host string) (addr netip.Addr, ok bool) {
	name := Lower(strings.TrimSuffix(host, "."))
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr, true
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	if last == "localhost" {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
	}
	return netip.Addr{}, !isNumber(last) && !strings.ContainsFunc(name, func(r rune) bool { return r > '~' })
}

// isNumber reports whether a label of a host is one to a browser, in decimal, octal or hexadecimal digits.
func isNumber(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return label != "" && strings.Trim(label, "0123456789") == ""
}
