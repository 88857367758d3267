package authtest

import (
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// mustWork panics if the guard cannot work, with what is wrong.
func mustWork(g Guard) {
	if isNil(g) {
		panic("authtest: a guard is nil: leave it out, and a path without guards is open")
	}
	if problem := g.problem(); problem != "" {
		panic(fmt.Sprintf("authtest: %v cannot work: %s", g, problem))
	}
}

// mustBePath panics if no request can be at or below the path.
func mustBePath(path string) {
	if !isPath(path) {
		panic("authtest: " + strconv.Quote(path) + " is no path: it must begin with a slash, and have no query")
	}
}

// isNil reports whether v is nil, or a nil pointer or func.
func isNil(v any) bool {
	of := reflect.ValueOf(v)
	switch of.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Func:
		return of.IsNil()
	}
	return false
}

// isPath reports whether s is a path as [net/url.URL.Path] has it.
func isPath(s string) bool { return strings.HasPrefix(s, "/") && !strings.ContainsAny(s, "?#") }

// firstProblem returns the first of the problems that is not "".
func firstProblem(problems ...string) string {
	for _, p := range problems {
		if p != "" {
			return p
		}
	}
	return ""
}

// when returns the problem if there is one.
func when(wrong bool, problem string) string {
	if wrong {
		return problem
	}
	return ""
}

func headerProblem(name, value string) string {
	return when(hasControl(value), name+" has a control character, which no header can carry (RFC 9110 §5.5)")
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func isToken(s string) bool {
	token, rest := cutToken(s)
	return token != "" && rest == ""
}

func (b *Basic) problem() string {
	return firstProblem(
		headerProblem("the realm", b.Realm),
		when(strings.Contains(b.Username, ":"), "its user name has a colon, which ends a user name (RFC 7617 §2)"),
		when(hasControl(b.Username), "its user name has a control character (RFC 7617 §2)"),
		when(!utf8.ValidString(b.Username), "its user name is not UTF-8"),
		passwordProblem(b.password.get(b.Password)),
	)
}

func passwordProblem(password string) string {
	return firstProblem(
		when(hasControl(password), "its password has a control character (RFC 7617 §2)"),
		when(!utf8.ValidString(password), "its password is not UTF-8"),
	)
}

// takenByHTTP are the headers that net/http takes out of a request before a handler sees it.
var takenByHTTP = []string{"Host", "Trailer", "Transfer-Encoding"}

func (a *APIKey) problem() string {
	return firstProblem(
		headerProblem("the realm", a.Realm),
		when(a.Header != "" && !isToken(a.Header), "its Header is not the name of a header"),
		when(slices.Contains(takenByHTTP, http.CanonicalHeaderKey(a.Header)), "its Header belongs to HTTP itself"),
		when(a.Prefix != "" && !isToken(a.Prefix), "its Prefix is not one word"),
		keyProblem(a.key.get(a.Key)),
	)
}

func keyProblem(key string) string {
	return firstProblem(
		when(key == "", "it has no Key, so no request could be accepted"),
		when(hasControl(key), "its Key has a control character, which no header can carry (RFC 9110 §5.5)"),
		when(strings.Trim(key, " ") != key, "its Key begins or ends with a space, which no header carries (RFC 9110 §5.5)"),
	)
}

func (b *Bearer) problem() string {
	path := b.tokenPath()
	return firstProblem(
		headerProblem("the realm", b.Realm),
		when(b.Scope != "" && !isScope(b.Scope), "its Scope is not scopes with one space between them (RFC 6749 §3.3)"),
		when(b.TokenLifetime < 0, "its TokenLifetime is negative, so no token could ever be good"),
		when(!isPath(path) || (&url.URL{Path: path}).EscapedPath() != path, "its TokenPath is no path, or one that has to be escaped"),
		when(b.ClientSecret != "" && b.ClientID == "", "it has a ClientSecret and no ClientID"),
		when(hasControl(b.TokenType), "its TokenType has a control character"),
	)
}

func (d *Digest) problem() string {
	var unknown, bad string
	for _, name := range d.algorithms() {
		if newHash(name) == nil {
			unknown = "it does not know the algorithm " + strconv.Quote(name)
		}
	}
	known := d.QOP == NoQOP
	for _, qop := range d.qops() {
		known = known || qop == "auth" || qop == "auth-int"
		if !isToken(qop) {
			bad = "its QOP is not words with commas between them"
		}
	}
	noQOP := d.QOP == NoQOP
	return firstProblem(
		unknown, bad,
		when(!known, "its QOP has neither auth nor auth-int, so no request could be accepted"),
		headerProblem("the realm", d.Realm), headerProblem("Opaque", d.Opaque), headerProblem("Domain", d.Domain),
		when(d.UTF8 && !(utf8.ValidString(d.Username) && utf8.ValidString(d.password.get(d.Password))),
			"it announces UTF-8, and its user name or password is not UTF-8"),
		when(d.NonceLifetime < 0 || d.NonceUses < 0, "its NonceLifetime or NonceUses is negative"),
		when(noQOP && (d.NonceWindow != 0 || d.StaleOnNC), "NonceWindow and StaleOnNC need nonce counts, and NoQOP has none"),
		when(d.NonceWindow < 0 && d.StaleOnNC, "StaleOnNC is for wrong nonce counts, and with a negative NonceWindow none is"),
		when(d.NextNonce < NextNonceNever || d.NextNonce > NextNonceSame, "its NextNonce is none of the constants"),
		when(d.NextNonce == NextNonceNearEnd && d.NonceLifetime == 0 && d.NonceUses == 0,
			"NextNonceNearEnd needs nonces that end: set NonceLifetime or NonceUses"),
		when(d.Rspauth < RspauthRight || d.Rspauth > RspauthMissing, "its Rspauth is none of the constants"),
		when(noQOP && d.Rspauth == RspauthWrong, "RspauthWrong needs an rspauth, and NoQOP has none"),
	)
}

// isScope reports whether s is scope-tokens with one space between them (RFC 6749 §3.3).
func isScope(s string) bool {
	for token := range strings.SplitSeq(s, " ") {
		if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }) {
			return false
		}
	}
	return true
}
