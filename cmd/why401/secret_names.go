package main

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// named returns where s has the value of something that is named as secrets are, such as a password or a token: in JSON, a form, XML,
// headers, a URL's userinfo, or a command line. They are the server's own, or somebody else's: what was sent is found by itself.
// Messages and codes in their place are left, such as "token": "token expired".
func named(s string) (spans []span) {
	end := 0 // of what has been found
	add := func(found ...span) {
		for _, f := range found {
			if f.from >= end && f.from < f.to {
				spans, end = append(spans, f), f.to
			}
		}
	}
	for i := 0; i < len(s); i++ {
		if i < end {
			continue
		}
		switch c := s[i]; {
		case c == ':' && strings.HasPrefix(s[i:], "://"):
			add(userinfoIn(s, i+3))
		case c == ':' || c == '=':
			add(setIn(s, i)...)
		case c == '<':
			add(elementIn(s, i))
		case c == '-' && (i == 0 || s[i-1] == ' '):
			add(argumentIn(s, i))
		case c == 'e' && strings.HasPrefix(s[i:], "eyJ") && (i == 0 || !isCode(s[i-1])):
			add(jwtIn(s, i))
		}
	}
	return spans
}

// secretNames are the ends of names of secrets, in lower case, without what separates words.
var secretNames = []string{"token", "password", "passwd", "pwd", "passphrase", "passcode", "secret", "apikey", "accesskey", "secretkey", "privatekey",
	"subscriptionkey", "accountkey", "sharedkey", "sessionkey", "authkey", "signature", "cookie", "credential", "credentials", "authorization", "assertion",
	"sessionid", "sessid", "jwt", "bearer"}

// wholeNames are such names by themselves only: "compass" has no secret.
var wholeNames = []string{"pass", "userpass", "dbpass", "sig", "xsignature"}

// perhapsNames are those whose values are secrets only if they look like one.
var perhapsNames = []string{"key", "sid", "session", "auth", "otp"}

// isSecretName reports whether the value of something with a name is a secret: always, or if it looks like one. A number at its end
// does not count.
func isSecretName(name string) (always, perhaps bool) {
	plain := strings.Map(func(r rune) rune {
		if !isWord(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, name)
	plain = strings.TrimRight(plain, "0123456789")
	always = slices.Contains(wholeNames, plain) || slices.ContainsFunc(secretNames, func(end string) bool { return strings.HasSuffix(plain, end) })
	return always, !always && slices.Contains(perhapsNames, plain)
}

// quotes are what may be around a name or a value.
var quotes = []string{`\"`, `\'`, `"`, `'`, "`", "&quot;", "&#34;", "&#x27;", "&#39;"}

// mostName is how long the name of a secret may be, in bytes.
const mostName = 60

// nameBefore returns the name that ends where s does, perhaps in quotes, and where it begins; "" if there is none.
func nameBefore(s string) (name string, at int) {
	end := len(strings.TrimRight(s, " "))
	for _, q := range quotes {
		if strings.HasSuffix(s[:end], q) {
			end -= len(q)
			break
		}
	}
	at = end
	for at > 0 && end-at < mostName && (isCode(s[at-1]) || s[at-1] == '.') && s[at-1] != '/' && s[at-1] != '+' {
		at--
	}
	return s[at:end], at
}

// isCode reports whether c is of base64, or of a name.
func isCode(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("+/-_", c) >= 0
}

// setIn finds the values of a name, with a colon or an equals sign at i between the two.
func setIn(s string, i int) []span {
	name, at := nameBefore(s[max(0, i-2*mostName):i])
	at += max(0, i-2*mostName)
	always, perhaps := isSecretName(name)
	if !always && !perhaps {
		return passwordIn(s, i, name)
	}
	from := i + 1
	for from < len(s) && (s[from] == ' ' || s[from] == '\n' || s[from] == '\t') {
		from++
	}
	lower := strings.ToLower(name)
	if list, ok := strings.CutPrefix(s[from:], "["); ok && s[i] == ':' { // of JSON
		return listIn(list, from+1)
	}
	if v, ok := quotedAt(s, from); ok {
		if strings.HasSuffix(lower, "authorization") {
			v = afterScheme(s, v)
		}
		return orNone(v, !isMessage(s[v.from:v.to]) && (always || looksSecret(s[v.from:v.to])))
	}
	v := span{from, from}
	for v.to < len(s) && !strings.ContainsRune(" \t\r\n&,;<>\"'`{}[]()|\\", rune(s[v.to])) {
		v.to++
	}
	switch value := s[v.from:v.to]; {
	case strings.HasSuffix(lower, "cookie") && strings.Contains(value, "="):
		return cookiesIn(s, v.from)
	case strings.HasSuffix(lower, "authorization"):
		if _, isScheme := schemeNamed(value); isScheme {
			v = wordAfter(s, v.to)
		}
		return orNone(v, looksSecret(s[v.from:v.to]))
	case isMessage(value) || value == "":
		return nil
	case s[i] == '=' && always:
		return []span{v}
	case looksSecret(value) && (always || len(value) >= 2*wordLength):
		return []span{v}
	}
	return orNone(v, always && !isProse(s, at, v))
}

func orNone(v span, ok bool) []span {
	if !ok {
		return nil
	}
	return []span{v}
}

// quotedAt returns what is in quotes that begin at from.
func quotedAt(s string, from int) (v span, ok bool) {
	for _, q := range quotes {
		if !strings.HasPrefix(s[from:], q) {
			continue
		}
		v = span{from + len(q), len(s)} // what is cut off has no end
		for i := v.from; i < len(s); i++ {
			if strings.HasPrefix(s[i:], q) {
				v.to = i
				break
			}
			if s[i] == '\\' && q[0] != '\\' {
				i++
			}
		}
		return v, true
	}
	return span{}, false
}

// listIn finds the texts in a list of JSON that are no messages. S is what comes after the bracket, which is at the offset.
func listIn(s string, offset int) (spans []span) {
	for i := 0; i < min(len(s), mostSecret) && s[i] != ']' && s[i] != '{'; i++ {
		if v, ok := quotedAt(s, i); ok {
			if !isMessage(s[v.from:v.to]) {
				spans = append(spans, span{v.from + offset, v.to + offset})
			}
			i = v.to
		}
	}
	return spans
}

// afterScheme leaves the name of a scheme out of the value of an Authorization header.
func afterScheme(s string, v span) span {
	word, rest, ok := strings.Cut(s[v.from:v.to], " ")
	if _, isScheme := schemeNamed(word); ok && isScheme {
		v.from = v.to - len(rest)
	}
	return v
}

// wordAfter returns the word that follows at i.
func wordAfter(s string, i int) span {
	for i < len(s) && s[i] == ' ' {
		i++
	}
	v := span{i, i}
	for v.to < len(s) && !strings.ContainsRune(" \t\r\n,;\"'<>()[]{}", rune(s[v.to])) {
		v.to++
	}
	return v
}

// cookiesIn finds what cookies are set to, in a header's value.
func cookiesIn(s string, i int) (spans []span) {
	for {
		v := wordAfter(s, i)
		name, value, ok := strings.Cut(s[v.from:v.to], "=")
		if !ok {
			return spans
		}
		if value != "" {
			spans = append(spans, span{v.from + len(name) + 1, v.to})
		}
		if i = v.to; i >= len(s) || s[i] != ';' {
			return spans
		}
		i++
	}
}

// elementIn finds the text of an XML element that begins at i.
func elementIn(s string, i int) span {
	tag, _, ok := strings.Cut(s[i+1:min(len(s), i+400)], ">")
	if !ok || tag == "" || strings.HasSuffix(tag, "/") {
		return span{}
	}
	name, _, _ := strings.Cut(tag, " ")
	if _, local, ok := strings.Cut(name, ":"); ok {
		name = local
	}
	v := span{i + 1 + len(tag) + 1, len(s)}
	if end := strings.IndexByte(s[v.from:], '<'); end >= 0 {
		v.to = v.from + end
	}
	if always, _ := isSecretName(name); !always || isMessage(s[v.from:v.to]) || strings.TrimSpace(s[v.from:v.to]) == "" {
		return span{}
	}
	return v
}

// userinfoIn finds the password of a URL whose authority begins at i; without one, the user, who may be a token.
func userinfoIn(s string, i int) span {
	end := i
	for end < len(s) && !strings.ContainsRune(" /?#\"'<>\\\t\r\n", rune(s[end])) {
		end++
	}
	at := strings.LastIndexByte(s[i:end], '@')
	if at < 0 {
		return span{}
	}
	v := span{i, i + at}
	if user, _, ok := strings.Cut(s[v.from:v.to], ":"); ok {
		v.from += len(user) + 1
	}
	return v
}

// beforeAddresses are what is before the address of a person, with a colon in between, rather than a user name.
var beforeAddresses = []string{"mailto", "email", "mail", "acct", "sip", "sips", "xmpp", "user", "username", "login", "from", "to", "cc", "for", "contact", "account", "subject", "sub"}

// passwordIn finds the password in user:password@host, with the colon at i, where no scheme is before it.
func passwordIn(s string, i int, user string) []span {
	if s[i] != ':' || user == "" || s[i-1] == ' ' || slices.Contains(beforeAddresses, strings.ToLower(user)) {
		return nil
	}
	end := i + 1
	for end < len(s) && end-i < 2*mostName && !strings.ContainsRune(" /?#\"'<>\\,;()[]{}\t\r\n", rune(s[end])) {
		end++
	}
	at := strings.LastIndexByte(s[i:end], '@')
	if at < 2 || i+at+1 >= end || !isAlphanumeric(s[i+at+1]) || isMessage(s[i+1:i+at]) || strings.HasPrefix(s[i+at+1:], "sha256:") { // which is of a container's image
		return nil
	}
	return []span{{i + 1, i + at}}
}

// argumentIn finds the secret of a flag of a command line that begins at i: that of curl -u, and of those named as secrets are.
func argumentIn(s string, i int) span {
	flag, _, ok := strings.Cut(s[i:min(len(s), i+mostName)], " ")
	if !ok {
		return span{}
	}
	v := wordAfter(s, i+len(flag))
	if slices.Contains([]string{"-u", "-U", "--user", "--proxy-user"}, flag) {
		if quoted, ok := quotedAt(s, v.from); ok {
			v = quoted
		}
		user, _, ok := strings.Cut(s[v.from:v.to], ":")
		if !ok {
			return span{}
		}
		v.from += len(user) + 1
		return v
	}
	always, _ := isSecretName(flag)
	if !strings.HasPrefix(flag, "--") || !always || isMessage(s[v.from:v.to]) || strings.HasPrefix(s[v.from:], "-") {
		return span{}
	}
	return v
}

// jwtIn returns the JWT that begins at i.
func jwtIn(s string, i int) span {
	v, dots := span{i, i}, 0
	for v.to < len(s) && (isCode(s[v.to]) || s[v.to] == '.') {
		if s[v.to] == '.' {
			dots++
		}
		v.to++
	}
	if dots < 2 {
		return span{}
	}
	return v
}

// looksSecret reports whether a word looks like a key rather than a word.
func looksSecret(s string) bool {
	upper, lower, digit, other := false, false, false, false
	for i, r := range s {
		switch {
		case unicode.IsDigit(r):
			digit = true
		case unicode.IsUpper(r):
			upper = upper || i > 0
		case unicode.IsLower(r):
			lower = true
		case !strings.ContainsRune("-_.:!?/", r):
			other = true
		}
	}
	n := utf8.RuneCountInString(s)
	return n >= wordLength && (digit || upper && lower || other) && !strings.ContainsFunc(s, unicode.IsSpace) && !isMessage(s) || n >= 24 && !strings.Contains(s, " ")
}

// messageWords are words of which some are in each message that stands in place of a secret.
var messageWords = []string{"expired", "expire", "expires", "invalid", "required", "missing", "must", "not", "no", "wrong", "incorrect", "blank", "empty", "field",
	"malformed", "unknown", "denied", "revoked", "cannot", "failed", "failure", "bad", "unauthorized", "mismatch", "inactive", "disabled", "none", "null", "nil", "true", "false",
	"undefined", "unsupported", "bearer", "basic", "dpop", "jwt", "opaque", "redacted", "hidden", "masked", "required.", "needed", "please", "provide", "supply",
	"provided", "string", "header", "query", "signature", "error", "unverified", "verify", "fetch", "absent", "short", "long", "weak", "is", "was", "has", "could", "should"}

// messageParts are such words where they are only a part, as in JWTExpired.
var messageParts = []string{"expired", "invalid", "required", "missing", "malformed", "denied", "revoked", "mismatch", "exception", "notfound"}

// isMessage reports whether the value of a secret's name is a message or a code, or is hidden already.
func isMessage(value string) bool {
	if strings.HasPrefix(value, hidden) || strings.Trim(value, "*•x…. ") == "" {
		return true
	}
	words := strings.FieldsFunc(strings.ToLower(value), func(r rune) bool { return !unicode.IsLetter(r) && r != '\'' })
	isSpaced := strings.Contains(value, " ")
	if !isSpaced && strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsLetter(r) && !strings.ContainsRune("_-.:!'", r) }) {
		return false
	}
	return slices.ContainsFunc(words, func(w string) bool {
		return slices.Contains(messageWords, w) || strings.HasSuffix(w, "n't") || hasAny(w, messageParts...)
	})
}

// isProse reports whether a word of letters in v, after a name at, is part of a sentence, as in "invalid token: signature has expired".
func isProse(s string, at int, v span) bool {
	before := strings.TrimRight(s[:at], " ")
	after := strings.TrimLeft(s[v.to:], " ")
	word, _, _ := strings.Cut(after, " ")
	if after != "" && len(after) < len(s[v.to:]) && !strings.ContainsAny(word, ":=") {
		return true // it goes on
	}
	r, _ := utf8.DecodeLastRuneInString(before)
	return before != "" && len(before) < at && isWord(r)
}
