package main

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/authretry/authretry"
)

// hide adds secrets. They are hidden in whatever case and code they come back.
func (c *cleaner) hide(secrets ...string) {
	for _, s := range secrets {
		decoded := string(viewOf(s, true).runes) // as somebody else may have it
		if utf8.RuneCountInString(decoded) < spacedLimit {
			decoded = ""
		}
		for _, folded := range []string{folded(s), decoded} {
			if folded == "" || slices.Contains(c.secrets, folded) {
				continue
			}
			c.secrets = append(c.secrets, folded)
			if r := []rune(folded); len(r) >= pieceLimit {
				if c.pieces == nil {
					c.pieces = map[string]struct{}{}
				}
				for i := range len(r) - pieceLength + 1 {
					c.pieces[string(r[i:i+pieceLength])] = struct{}{}
				}
			}
		}
	}
	slices.SortFunc(c.secrets, func(a, b string) int { return len(b) - len(a) })
}

// hideUser adds a password, and the credentials of Basic that are made of it.
func (c *cleaner) hideUser(name, password string) {
	if password != "" {
		pair := []byte(name + ":" + password)
		c.hide(password, base64.StdEncoding.EncodeToString(pair), base64.URLEncoding.EncodeToString(pair))
	}
}

// hideHeader adds the value of a header, and the parts of it that may be secrets by themselves: what follows the
// scheme, what a cookie or a parameter is set to, both sides of a colon, and what is in the base64 of Basic.
func (c *cleaner) hideHeader(value string) {
	scheme, rest, ok := strings.Cut(value, " ")
	if strings.HasPrefix(scheme, "AWS4-") {
		c.hideAWS(rest)
		return
	}
	if c.hideParams(value) {
		return
	}
	c.hide(value)
	if ok {
		c.hide(strings.TrimSpace(rest))
	}
	if strings.EqualFold(scheme, "Basic") {
		if plain, _, ok := decodeBasic(strings.TrimSpace(rest)); ok {
			name, password, _ := strings.Cut(plain, ":")
			c.hideUser(name, password)
			c.hideUser(name, strings.TrimSpace(password))
		}
	}
	for part := range strings.FieldsFuncSeq(value, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`,;&"'{}()<>[]`, r) }) {
		name, set, ok := strings.Cut(strings.TrimRight(part, "="), "=")
		if ok && set != "" {
			part = set
		} else {
			part = name
		}
		for side := range strings.SplitSeq(part, ":") {
			if utf8.RuneCountInString(side) >= wordLength && !isPublic(side) {
				c.hide(side)
			}
		}
	}
}

// openParams are the parameters of a signature that say how it is made, in words that servers speak of.
var openParams = []string{"algorithm", "headers", "realm", "qop", "version", "oauth_version", "oauth_signature_method"}

// hideParams adds what may be secret in credentials that are a scheme with several parameters, and reports whether these are such. The
// names of the parameters are not: servers speak of a signature, a date and an algorithm.
func (c *cleaner) hideParams(value string) bool {
	parsed, err := authretry.ParseChallenges([]string{value})
	if err != nil || len(parsed) != 1 || len(parsed[0].Params) < 2 {
		return false
	}
	for _, p := range parsed[0].Params {
		if !isName(p.Name) || strings.ContainsAny(p.Name, "0123456789") { // it may be a part of a secret
			return false
		}
	}
	for _, p := range parsed[0].Params {
		if slices.Contains(openParams, strings.ToLower(p.Name)) {
			continue
		}
		for _, part := range append(strings.Split(p.Value, ":"), p.Value) {
			if utf8.RuneCountInString(part) >= wordLength && !isPublic(part) {
				c.hide(part)
			}
		}
	}
	return true
}

// hideAWS adds what may be secret in a signature of AWS: not the region, the service and the names of headers, which its errors
// speak of.
func (c *cleaner) hideAWS(params string) {
	for param := range strings.SplitSeq(params, ",") {
		switch name, value, _ := strings.Cut(strings.TrimSpace(param), "="); name {
		case "Credential":
			key, _, _ := strings.Cut(value, "/")
			c.hide(key)
		case "Signature":
			c.hide(value)
		}
	}
}

// decodeBasic decodes what follows Basic: base64, or a kind of it that not every server reads, and then it is not exact.
func decodeBasic(code string) (plain string, exact, ok bool) {
	for i, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if data, err := e.DecodeString(code); err == nil {
			return string(data), i == 0, true
		}
	}
	return "", false, false
}

// hideURL adds what may be secret in a URL: its userinfo, and the values of its query.
func (c *cleaner) hideURL(u *url.URL) {
	if u.User != nil {
		password, _ := u.User.Password()
		c.hide(u.User.Username())
		c.hideUser(u.User.Username(), password)
	}
	for name, values := range u.Query() {
		for _, v := range append(values, name) {
			if v == name && !slices.Equal(values, []string{""}) {
				continue // a name; without a value it may be a key
			}
			if len(v) >= 8 { // shorter ones are words rather than keys
				c.hide(v)
			}
		}
	}
}

// hideExchange adds what an exchange has shown: our credentials and the proofs with them, cookies, and the URL.
func (c *cleaner) hideExchange(h hop) {
	c.hideURL(h.req.URL)
	for _, name := range []string{"Authorization", "DPoP", "Cookie"} {
		for _, value := range h.req.Header.Values(name) {
			if digest, ok := strings.CutPrefix(value, "Digest "); ok {
				for _, name := range []string{"response", "cnonce"} {
					if _, after, ok := strings.Cut(digest, name+`="`); ok {
						proof, _, _ := strings.Cut(after, `"`)
						c.hide(proof)
					}
				}
				continue
			}
			c.hideHeader(value)
		}
	}
	if h.resp == nil {
		return
	}
	for i, cookie := range h.resp.Cookies() {
		if i < mostCookies && len(cookie.Value) >= wordLength {
			c.hide(cookie.Value)
		}
	}
	location := h.resp.Header.Get("Location")
	if u, err := h.req.URL.Parse(location[:min(len(location), mostField)]); err == nil {
		c.hideURL(u)
	}
}

// mostCookies is how many cookies of one response are hidden where it repeats them: browsers take no more of one host, either.
const mostCookies = 180

// hideData adds what may be secret in a body to send: in JSON or a form, what is in fields that are named as secrets are.
func (c *cleaner) hideData(data []byte) {
	var v any
	if json.Unmarshal(data, &v) == nil {
		c.hideFields("", v)
		return
	}
	if form, err := url.ParseQuery(string(data)); err == nil {
		for name, values := range form {
			for _, value := range values {
				c.hideFields(name, value)
			}
		}
	}
}

// hideFields adds the texts in v that are in a field named as secrets are.
func (c *cleaner) hideFields(name string, v any) {
	switch v := v.(type) {
	case string:
		if hasAny(strings.ToLower(name), "pass", "pwd", "secret", "token", "key", "assertion", "code", "credential") {
			c.hide(v)
		}
	case []any:
		for _, one := range v {
			c.hideFields(name, one)
		}
	case map[string]any:
		for name, one := range v {
			c.hideFields(name, one)
		}
	}
}
