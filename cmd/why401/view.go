package main

import (
	"encoding/hex"
	"html"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A view is a text as secrets are looked for in it: without white space, in lower case, and perhaps decoded.
type view struct {
	runes []rune
	at    []span // where each comes from
}

// hasGap reports whether something was left out between the two.
func (v view) hasGap(first, last int) bool {
	for i := first; i < last; i++ {
		if v.at[i].to != v.at[i+1].from {
			return true
		}
	}
	return false
}

// viewOf returns a view of s. A decoded one has percent-encoding, the escapes of JSON and Go, and HTML's entities undone.
func viewOf(s string, decoded bool) (v view) {
	for i := 0; i < len(s); {
		text, size := "", 0
		if decoded {
			text, size = unescape(s[i:])
		}
		if size == 0 {
			_, size = utf8.DecodeRuneInString(s[i:])
			text = s[i : i+size]
		}
		for _, r := range text {
			if !leftOut(r) {
				v.runes, v.at = append(v.runes, unicode.ToLower(r)), append(v.at, span{i, i + size})
			}
		}
		i += size
	}
	return v
}

func leftOut(r rune) bool { return unicode.IsSpace(r) || r != utf8.RuneError && !unicode.IsPrint(r) }

// folded returns a secret as a view has it.
func folded(s string) string { return string(viewOf(s, false).runes) }

// unescape returns what the escape at the beginning of s stands for, and its size; 0 if there is none.
func unescape(s string) (text string, size int) {
	switch s[0] {
	case '+':
		return " ", 1
	case '%':
		var bytes []byte // of one character
		for size+3 <= len(s) && s[size] == '%' {
			b, err := hex.DecodeString(s[size+1 : size+3])
			if err != nil {
				break
			}
			bytes, size = append(bytes, b...), size+3
			if utf8.FullRune(bytes) {
				break
			}
		}
		return string(bytes), size
	case '\\':
		if len(s) >= 6 && s[1] == 'u' {
			if n, err := strconv.ParseUint(s[2:6], 16, 16); err == nil {
				return string(rune(n)), 6
			}
		}
		if len(s) >= 4 && s[1] == 'x' {
			if n, err := strconv.ParseUint(s[2:4], 16, 8); err == nil {
				return string(rune(n)), 4
			}
		}
		if len(s) >= 2 {
			if strings.IndexByte("nrt", s[1]) >= 0 {
				return " ", 2
			}
			_, n := utf8.DecodeRuneInString(s[1:])
			return s[1 : 1+n], 1 + n
		}
	case '&':
		if end := strings.IndexByte(s[:min(len(s), 12)], ';'); end > 0 {
			if plain := html.UnescapeString(s[:end+1]); plain != s[:end+1] {
				return plain, end + 1
			}
		}
	}
	return "", 0
}
