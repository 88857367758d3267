package authretry

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
)

// A headerPlace says where in a request a secret is: in which header, and after which word.
type headerPlace struct {
	header string // as it was configured
	prefix string // before the secret, with a space; "": there is none
}

// placeOf returns the place that the fields Header and Prefix of a Scheme describe: if they are empty, it is in
// Authorization, after the word given.
func placeOf(header, prefix, word string) headerPlace {
	p := headerPlace{header, prefix}
	if header == "" {
		p.header = "Authorization"
	}
	if prefix == "" && (header == "" || p.isAuthorization()) {
		p.prefix = word
	}
	return p
}

func (p headerPlace) isAuthorization() bool { return equalFoldASCII(p.header, "Authorization") }

// name returns the name of the header, in canonical form.
func (p headerPlace) name() string { return textproto.CanonicalMIMEHeaderKey(p.header) }

// check returns an error if there is no such place. The fields are those of a Scheme of the given type.
func (p headerPlace) check(scheme string) error {
	switch {
	case !isToken(p.header):
		return errors.New("authretry: " + scheme + ".Header is not the name of a header (RFC 9110 §5.1)")
	case hasControl(p.prefix):
		return errors.New("authretry: " + scheme + ".Prefix has a control character")
	}
	return nil
}

// session returns the Session that puts the secret in the place.
func (p headerPlace) session(secret string) headerSession {
	if p.prefix != "" {
		secret = p.prefix + " " + secret
	}
	return headerSession{name: p.name(), values: []string{secret}}
}

// secret returns what is in the place, or "" if nothing is.
func (p headerPlace) secret(h http.Header) string {
	value, n := h.Get(p.header), len(p.prefix)
	switch {
	case n == 0:
		return value
	case len(value) > n && value[n] == ' ' && equalFoldASCII(value[:n], p.prefix):
		return value[n+1:]
	}
	return ""
}

// isCallers reports whether the header of that name is the caller's own, and so not to be set. Of Authorization it says
// no: a request that has one does not come as far as a Session.
func isCallers(h http.Header, name string) bool {
	return name != "Authorization" && !equalFoldASCII(name, "Authorization") && hasField(h, name)
}

// A headerSession puts the same header on every request, but for those that have it already.
type headerSession struct {
	name   string // canonical
	values []string
}

// Authorize implements [Session].
func (s headerSession) Authorize(req *http.Request) error {
	if !isCallers(req.Header, s.name) {
		req.Header[s.name] = s.values
	}
	return nil
}

func (s headerSession) size() int { return 64 + len(s.values[0]) }

// Format keeps the header's value, which is a secret, out of everything that package fmt prints.
func (s headerSession) Format(f fmt.State, verb rune) {
	fmt.Fprintf(f, "%s: (secret)", s.name)
}
