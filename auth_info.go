package authretry

import "strings"

// An authInfo is what we use of Authentication-Info (RFC 7616 §3.5): its qop, cnonce and nc are those of the request,
// or else rspauth is wrong.
type authInfo struct {
	nextnonce string
	rspauth   string
}

// readAuthInfo reads Authentication-Info as far as it makes sense. The first parameter of a name counts.
func readAuthInfo(lines []string) authInfo {
	var info authInfo
	var hasNextnonce, hasRspauth bool
	for _, rest := range lines {
		for rest != "" {
			var name, value string
			name, value, rest = consumeAuthInfoParam(rest)
			switch {
			case !hasNextnonce && equalFoldASCII(name, "nextnonce"):
				info.nextnonce, hasNextnonce = unescape(value), true
			case !hasRspauth && equalFoldASCII(name, "rspauth"):
				info.rspauth, hasRspauth = unescape(value), true
			}
		}
	}
	return info
}

// consumeAuthInfoParam returns the first auth-param of s, with its value unquoted but not unescaped, and what follows the
// comma after it. The value is empty if there is none, or if its closing quote is missing.
func consumeAuthInfoParam(s string) (name, value, rest string) {
	name, rest = consumeToken(skipSpace(s))
	rest, ok := consumeEquals(rest)
	switch {
	case !ok:
	case strings.HasPrefix(rest, `"`):
		value, rest = cutQuoted(rest[1:])
	default:
		value, rest = consumeUnquoted(rest)
	}
	_, rest, _ = strings.Cut(rest, ",")
	return name, value, rest
}

// cutQuoted returns s up to a quote that is not escaped, and what follows it.
func cutQuoted(s string) (value, rest string) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return s[:i], s[i+1:]
		}
	}
	return "", ""
}
