package main

import (
	"net"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// What a JWT's claims tell of where it belongs: to another server, or another environment.

// mostHost is how many characters a host's name may have to be named in a first line.
const mostHost = 28

// shortName returns a host's name, or "" if it does not fit.
func shortName(host string) string {
	if utf8.RuneCountInString(host) > mostHost {
		return ""
	}
	return host
}

// foreignHost returns the host that the token's aud names, if that is hardly a name of the server that was asked; else "".
func (in *inquiry) foreignHost(t *jwt) string {
	asked := strings.ToLower(in.asked().Hostname())
	if t == nil || isLocalName(asked) {
		return ""
	}
	list, isList := t.Audience.([]any)
	if !isList {
		list = []any{t.Audience}
	}
	found := ""
	for _, v := range list {
		u, err := url.Parse(asText(v))
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return "" // an identifier of another kind, that may be anybody's
		}
		host := strings.ToLower(u.Hostname())
		if isLocalName(host) || domainOf(host) == domainOf(asked) {
			return ""
		}
		if found == "" {
			found = in.clean.host(host)
		}
	}
	return shortName(found)
}

// isLocalName reports whether a host's name says nothing of the server: one that is reached through a tunnel has others.
func isLocalName(host string) bool { return !strings.Contains(host, ".") || net.ParseIP(host) != nil }

// domainOf returns the last two labels of a host's name.
func domainOf(host string) string {
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	return strings.Join(labels[max(len(labels)-2, 0):], ".")
}

// environments are what hosts that are not of production are called.
var environments = []string{"staging", "stage", "stg", "dev", "development", "test", "testing", "qa", "uat", "sandbox", "preprod", "preview", "integration"}

// otherEnvironment returns the host of the token's issuer, if its name has an environment that the server's has not; else "".
func (in *inquiry) otherEnvironment(t *jwt) string {
	asked := strings.ToLower(in.asked().Hostname())
	if t == nil || isLocalName(asked) {
		return ""
	}
	issuer, err := url.Parse(asText(t.Issuer))
	if err != nil || issuer.Host == "" {
		return ""
	}
	own, of := environmentOf(asked), environmentOf(issuer.Hostname())
	if of == "" || slices.Contains(wordsIn(asked), of) || own != "" && own[:1] == of[:1] { // such as stg and staging
		return ""
	}
	if hasAny(issuer.Hostname(), "auth0", "okta") { // whose tenants are named dev-… though they are all there is
		return ""
	}
	return shortName(in.clean.host(issuer.Hostname()))
}

func environmentOf(host string) string {
	for _, word := range wordsIn(host) {
		if slices.Contains(environments, word) {
			return word
		}
	}
	return ""
}

// wordsIn returns the words in a host's name, in lower case.
func wordsIn(host string) []string {
	return strings.FieldsFunc(strings.ToLower(host), func(r rune) bool { return r == '.' || r == '-' })
}
