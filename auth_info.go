package authretry

import "strings"

// An authInfo is what we use of Authentication-Info (RFC 7616 §3.5). Its qop and nc are those of the request, or else
// rspauth is wrong.
type authInfo struct {
	nextnonce, rspauth       string
	hasNextnonce, hasRspauth bool
}

// readAuthInfo reads Authentication-Info as far as it makes sense. The first parameter of a name counts. A line with
// another cnonce than that of the request answers somebody else: a proxy may pass on what it got from its own server,
// before what the origin says.
func readAuthInfo(lines []string, cnonce string) authInfo {
	var info authInfo
	for _, line := range lines {
		with, theirs := readAuthInfoLine(info, line)
		if theirs == "" || theirs == cnonce {
			info = with
		}
	}
	return info
}

// readAuthInfoLine returns info with what a line adds to it, and the line's cnonce, if it has one.
func readAuthInfoLine(info authInfo, rest string) (with authInfo, cnonce string) {
	for rest != "" {
		var name, value string
		name, value, rest = consumeAuthInfoParam(rest)
		switch {
		case !info.hasNextnonce && equalFoldASCII(name, "nextnonce"):
			info.nextnonce, info.hasNextnonce = unescape(value), true
		case !info.hasRspauth && equalFoldASCII(name, "rspauth"):
			info.rspauth, info.hasRspauth = unescape(value), true
		case cnonce == "" && equalFoldASCII(name, "cnonce"):
			cnonce = unescape(value)
		}
	}
	return info, cnonce
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
