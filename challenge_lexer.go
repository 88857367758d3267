package authretry

import (
	"math/bits"
	"strings"
)

// The lexical grammar of challenges: each consume function returns what it has read from the start of a string, and the rest.
// They allocate nothing, and their time is linear in what they consume.

// unescapeParam returns the value of a quoted-string with that content (RFC 9110 §5.6.4), and spaces for control characters.
func unescapeParam(content string) string {
	b := make([]byte, 0, 64)
	if len(content) > cap(b) {
		b = make([]byte, 0, len(content))
	}
	for i := 0; i < len(content); i++ {
		c := content[i]
		if classes[c]&notPlain != 0 {
			if c == '\\' && i+1 < len(content) {
				i++
				c = content[i]
			}
			if classes[c]&control != 0 {
				c = ' '
			}
		}
		b = append(b, c)
	}
	return string(b)
}

// A quoted is a quoted-string that has been consumed.
type quoted struct {
	content   string // between the quotes, escapes and all
	escaped   bool   // whether there may be escapes or control characters
	problem   string
	problemAt int // from the opening quote
}

func (q *quoted) note(problem string, at int) {
	if q.problem == "" {
		q.problem, q.problemAt = problem, at
	}
}

// consumeValue consumes a token or a quoted-string, after which the line ends or a comma comes.
func consumeValue(s string) (content string, escaped bool, rest string, ok bool) {
	if s == "" || s[0] != '"' {
		content, rest = consumeToken(s)
		return content, false, rest, content != "" && (rest == "" || rest[0] == ',')
	}
	s = s[1:]
	n := plainPrefix(s)
	for n < len(s) && s[n] == '\\' {
		escaped = true
		for n += 2; n < len(s) && classes[s[n]]&notPlain == 0; n++ {
		}
	}
	if n >= len(s) || s[n] != '"' {
		return "", false, s, false
	}
	content, rest = s[:n], s[n+1:]
	return content, escaped, rest, rest == "" || rest[0] == ','
}

// plainPrefix returns how many bytes of s come before the first that is notPlain.
func plainPrefix(s string) int {
	i := 0
	// Eight bytes at once, as long as none of them is notPlain, or a tab: byte-1 has its high bit set if the byte was 0,
	// as has byte-' ' if it was less than a space; and ^byte takes out those that had it set before. What is borrowed
	// from the next byte may be found, too, but after the right one.
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(s); i += 8 {
		b := s[i : i+8]
		w := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
		quote, backslash, del := w^ones*'"', w^ones*'\\', w^ones*0x7f
		found := ((quote-ones)&^quote | (backslash-ones)&^backslash | (del-ones)&^del | (w-ones*' ')&^w) & highs
		if found != 0 {
			i += bits.TrailingZeros64(found) / 8
			break
		}
	}
	for i < len(s) && classes[s[i]]&notPlain == 0 {
		i++
	}
	return i
}

// consumeQuoted consumes a quoted-string (RFC 9110 §5.6.4) and returns it and the rest. The first byte of s is its
// opening quote. It is linear because what has to be looked at around a quote ends at the quotes next to it.
func consumeQuoted(s string) (q quoted, rest string) {
	inner := 0 // the last quote before i
	for i := 1; i < len(s); i++ {
		c := s[i]
		if classes[c]&notPlain == 0 {
			continue
		}
		switch c {
		case '\\':
			q.escaped = true
			i++ // whatever it is, it closes nothing
		case '"':
			if closes(s[i+1:]) {
				q.content = s[1:i]
				return q, s[i+1:]
			}
			if s[i-1] == '=' {
				// This one opens the value of another parameter, if that has a comma before it: then the string has
				// ended there.
				comma := inner + 1 + strings.LastIndexByte(s[inner+1:i], ',')
				if rest, ok := consumeParamStart(s[comma+1 : i]); ok && rest == "" && comma > inner {
					q.content, q.problem, q.problemAt = s[1:comma], "unclosed quote", 0
					return q, s[comma:]
				}
			}
			q.note("unescaped quote", i)
			inner = i
		default:
			q.escaped = true
			q.note("control character", i)
		}
	}
	q.content, q.problem, q.problemAt = s[1:], "unclosed quote", 0
	return q, ""
}

// closes reports whether a quote before rest closes its quoted-string.
func closes(rest string) bool {
	return rest == "" || classes[rest[0]]&afterQuote != 0 && closesBefore(rest)
}

func closesBefore(rest string) bool {
	rest = skipSpace(rest)
	return rest == "" || rest[0] == ',' || beginsParam(rest)
}

// beginsParam reports whether s begins a parameter, with or without a scheme before it.
func beginsParam(s string) bool {
	_, ok := consumeParamStart(s)
	return ok
}

// beginsValue reports whether s, which follows an equals sign, can be read as a value: there is something, but not
// another equals sign after a word.
func beginsValue(s string) bool {
	_, rest := consumeToken(s)
	return s != "" && s[0] != ',' && !strings.HasPrefix(rest, "=")
}

// consumeParamStart consumes `name =` or `scheme name =`.
func consumeParamStart(s string) (rest string, ok bool) {
	for range 2 {
		token, after := consumeToken(skipSpace(s))
		if token == "" {
			return s, false
		}
		if rest, ok := consumeEquals(after); ok {
			return rest, true
		}
		s = after
	}
	return s, false
}

// consumeEquals consumes an equals sign and the white space around it (BWS, RFC 9110 §5.6.3).
func consumeEquals(s string) (rest string, ok bool) {
	rest, ok = strings.CutPrefix(skipSpace(s), "=")
	return skipSpace(rest), ok
}

// consumeToken consumes a token (RFC 9110 §5.6.2), or nothing.
func consumeToken(s string) (token, rest string) {
	for i := range len(s) {
		if classes[s[i]]&tokenChar == 0 {
			return s[:i], s[i:]
		}
	}
	return s, ""
}

// consumeToken68 consumes a token68 (RFC 9110 §11.2) that is followed by a comma or the end, or nothing.
func consumeToken68(s string) (token68, rest string) {
	i := 0
	for i < len(s) && classes[s[i]]&token68Char != 0 {
		i++
	}
	if i == 0 {
		return "", s
	}
	for i < len(s) && s[i] == '=' {
		i++
	}
	if rest := skipSpace(s[i:]); rest == "" || rest[0] == ',' {
		return s[:i], rest
	}
	return "", s
}

// consumeUnquoted consumes a value that has no quotes: a token, or what somebody took for one.
func consumeUnquoted(s string) (value, rest string) {
	for i := range len(s) {
		if isSeparator(s[i]) || s[i] == '"' {
			return s[:i], s[i:]
		}
	}
	return s, ""
}

// consumeSeparators consumes white space, commas, and so empty list elements (RFC 9110 §5.6.1.2).
func consumeSeparators(s string) (comma bool, rest string) {
	for i := range len(s) {
		if !isSeparator(s[i]) {
			return comma, s[i:]
		}
		comma = comma || s[i] == ','
	}
	return comma, ""
}

// skipElement returns s from its first comma that is not quoted.
func skipElement(s string) string {
	for s != "" && s[0] != ',' {
		if s[0] == '"' {
			_, s = consumeQuoted(s)
		} else {
			s = s[1:]
		}
	}
	return s
}

func skipSpace(s string) string {
	for s != "" && classes[s[0]]&blank != 0 {
		s = s[1:]
	}
	return s
}

func isSeparator(c byte) bool { return c == ',' || classes[c]&blank != 0 }

func isToken(s string) bool {
	token, rest := consumeToken(s)
	return token != "" && rest == ""
}

// The classes of characters that the grammar tells apart.
const (
	tokenChar   = 1 << iota // RFC 9110 §5.6.2
	token68Char             // RFC 9110 §11.2, without "="
	control                 // CTL of RFC 5234, without the tab
	blank                   // SP, HTAB, and control characters in their stead (RFC 9110 §5.5)
	notPlain                // needs a second look inside a quoted-string
	afterQuote              // may follow the quote that closes a quoted-string
)

var classes = func() (classes [256]byte) {
	for c := range classes {
		switch {
		case c < ' ' && c != '\t', c == 0x7f:
			classes[c] = control | blank | notPlain
		case c == ' ', c == '\t':
			classes[c] = blank
		case c == '"', c == '\\':
			classes[c] = notPlain
		case '0' <= c && c <= '9', 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', strings.IndexByte("-._~+", byte(c)) >= 0:
			classes[c] = tokenChar | token68Char
		case strings.IndexByte("!#$%&'*^`|", byte(c)) >= 0:
			classes[c] = tokenChar
		case c == '/':
			classes[c] = token68Char
		}
		if c == ',' || classes[c]&(tokenChar|blank) != 0 {
			classes[c] |= afterQuote
		}
	}
	return classes
}()
