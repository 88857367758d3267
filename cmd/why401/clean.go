package main

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/authretry/authretry"
)

// A cleaner makes text from elsewhere fit to be printed: without the secrets that it may quote, without anything that
// a terminal would obey, and no longer than a person would read.
//
// Only what others wrote goes through it, before it becomes part of a sentence. Our own sentences do not: to hide a word in
// them would tell that the word is the secret.
type cleaner struct {
	asked   url.URL             // what was asked, as the command line has it
	secrets []string            // as folded returns them, the longest first
	pieces  map[string]struct{} // all parts of pieceLength characters of the long ones
}

// hidden takes the place of a secret.
const hidden = "(secret)"

const (
	wordLength  = 4  // a shorter secret occurs in ordinary words, so it is hidden only where it is a word
	spacedLimit = 8  // a secret of this length is hidden also with white space in it, as when lines are wrapped
	pieceLength = 8  // so much of a long secret is hidden by itself, as when it is cut short
	pieceLimit  = 12 // the length of a long secret
)

// isPublic reports whether s is a word of HTTP's own, such as the name of a scheme or a parameter: where it stands in a
// challenge tells nothing, and to hide it there would.
func isPublic(s string) bool {
	_, known := schemeNamed(s)
	return known || slices.ContainsFunc(params, func(p paramWords) bool { return strings.EqualFold(p.name, s) })
}

// text returns what others wrote for printing, cut to at most the given number of characters.
func (c *cleaner) text(s string, most int) string { return printable(c.redact(s), most) }

// name is text for what may be the name of a scheme or a parameter.
func (c *cleaner) name(s string, most int) string {
	if isPublic(s) {
		return printable(s, most)
	}
	return c.text(s, most)
}

// printable returns s without what a terminal would obey, cut to at most the given number of characters.
func printable(s string, most int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > most {
			b.WriteString("…")
			break
		}
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			b.WriteByte(' ')
		case r == utf8.RuneError || !unicode.IsPrint(r):
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// A span is a part of a text, in bytes.
type span struct{ from, to int }

// redact hides the secrets in s.
func (c *cleaner) redact(s string) string {
	if len(c.secrets) == 0 {
		return s
	}
	spans := c.encoded(s)
	for _, v := range []view{viewOf(s, false), viewOf(s, true)} {
		spans = append(spans, c.find(s, v)...)
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
	var b strings.Builder
	at := 0
	for i := 0; i < len(spans); {
		from, to := spans[i].from, spans[i].to
		for i++; i < len(spans) && spans[i].from < to; i++ {
			to = max(to, spans[i].to)
		}
		b.WriteString(s[at:from] + hidden)
		at = to
	}
	return b.String() + s[at:]
}

// find returns where the secrets are in a view of s.
func (c *cleaner) find(s string, v view) (spans []span) {
	text := string(v.runes)
	runeAt := make([]int, len(text)+1) // by byte
	for i, n := 0, 0; i < len(text); n++ {
		_, size := utf8.DecodeRuneInString(text[i:])
		for range size {
			runeAt[i] = n
			i++
		}
	}
	runeAt[len(text)] = len(v.runes)
	for _, secret := range c.secrets {
		length := utf8.RuneCountInString(secret)
		for at := 0; ; {
			i := strings.Index(text[at:], secret)
			if i < 0 {
				break
			}
			first := runeAt[at+i]
			last := first + length - 1
			at += i + len(secret)
			found := span{v.at[first].from, v.at[last].to}
			before, _ := utf8.DecodeLastRuneInString(s[:found.from])
			after, _ := utf8.DecodeRuneInString(s[found.to:])
			isWhole := !isWord(before) && !isWord(after)
			if length < wordLength && !isWhole || length < spacedLimit && v.hasGap(first, last) || isWhole && isPublic(secret) {
				continue
			}
			spans = append(spans, found)
		}
	}
	for i := 0; i+pieceLength <= len(v.runes) && c.pieces != nil; i++ {
		if _, ok := c.pieces[string(v.runes[i:i+pieceLength])]; ok {
			spans = append(spans, span{v.at[i].from, v.at[i+pieceLength-1].to})
		}
	}
	return spans
}

// encoded returns the words of s that are a secret in base64 or hex.
func (c *cleaner) encoded(s string) (spans []span) {
	inCode := func(r byte) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.IndexByte("+/-_", r) >= 0
	}
	for i := 0; i < len(s); i++ {
		from := i
		for i < len(s) && inCode(s[i]) {
			i++
		}
		if i-from < 6 {
			continue
		}
		to := i
		for to < len(s) && s[to] == '=' {
			to++
		}
		if c.decodesToSecret(s[from:i]) {
			spans = append(spans, span{from, to})
		}
	}
	return spans
}

// decodesToSecret reports whether a word, or what follows its first characters, is code for a text with a secret.
func (c *cleaner) decodesToSecret(word string) bool {
	decoders := []func(string) ([]byte, error){base64.RawStdEncoding.DecodeString, base64.RawURLEncoding.DecodeString, hex.DecodeString}
	for start := range min(4, len(word)) {
		for _, decode := range decoders {
			code := word[start:]
			plain, err := decode(code)
			if err != nil && len(code)%4 == 1 {
				plain, err = decode(code[:len(code)-1])
			}
			if err != nil {
				continue
			}
			text := folded(string(plain))
			for _, secret := range c.secrets {
				if len(secret) >= wordLength && strings.Contains(text, secret) {
					return true
				}
			}
		}
	}
	return false
}

func isWord(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

// url returns u for printing: without the password that userinfo may have, and without the values of a query, which
// may be keys.
func (c *cleaner) url(u *url.URL) string {
	if u.Opaque != "" {
		return c.text(u.Scheme+":"+u.Opaque, 300)
	}
	path, cleaner := u.EscapedPath(), c
	if path == c.asked.EscapedPath() {
		cleaner = c.long()
	}
	s := u.Scheme + "://" + c.host(u.Host) + cleaner.text(path, 250)
	if u.RawQuery != "" {
		s += "?…"
	}
	return s
}

// long returns a cleaner of those secrets that are no ordinary words: for what the user wrote, who may have put a key there,
// but hardly a password.
func (c *cleaner) long() *cleaner {
	long := &cleaner{pieces: c.pieces}
	for _, s := range c.secrets {
		if utf8.RuneCountInString(s) >= spacedLimit {
			long.secrets = append(long.secrets, s)
		}
	}
	return long
}

// host returns a host for printing. The one that was asked is no secret.
func (c *cleaner) host(host string) string {
	if strings.EqualFold(host, c.asked.Host) || strings.EqualFold(host, c.asked.Hostname()) || strings.EqualFold(host, c.asked.Hostname()+":443") {
		return printable(host, 100)
	}
	return c.text(host, 100)
}

// challenge returns a challenge without the secrets that the server put into it.
func (c *cleaner) challenge(raw authretry.Challenge) authretry.Challenge {
	clean := authretry.Challenge{Scheme: c.name(raw.Scheme, 60), Token68: c.redact(raw.Token68)}
	for _, q := range raw.Params {
		clean.Params = append(clean.Params, authretry.Param{Name: c.name(q.Name, 60), Value: c.redact(q.Value)})
	}
	return clean
}

// quotes cleans what is quoted in a sentence of the library's, which quotes what servers wrote.
func (c *cleaner) quotes(s string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(s, `"`)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		end := 0
		for end < len(rest) && rest[end] != '"' {
			if rest[end] == '\\' {
				end++
			}
			end++
		}
		end = min(end, len(rest))
		b.WriteString(`"` + c.redact(rest[:end]))
		s = rest[end:]
		if s != "" {
			b.WriteByte('"')
			s = s[1:]
		}
	}
}

// A cleanError is an error in other words.
type cleanError struct {
	error
	text string
}

func (e cleanError) Error() string { return e.text }
func (e cleanError) Unwrap() error { return e.error }

// rejection returns what a Rejection says, without the secrets that the server put into its challenges.
func (c *cleaner) rejection(r authretry.Rejection) string {
	challenges := r.Challenges
	r.Challenges = nil
	for _, raw := range challenges {
		r.Challenges = append(r.Challenges, c.challenge(raw))
	}
	if u, err := url.Parse(r.Origin); err == nil {
		r.Origin = c.url(u)
	}
	if r.Err != nil {
		r.Err = cleanError{r.Err, c.quotes(r.Err.Error())}
	}
	return printable(r.Error(), 1000)
}

// phrase returns a response's reason phrase.
func (c *cleaner) phrase(resp *http.Response) string {
	_, phrase, _ := strings.Cut(resp.Status, " ")
	if phrase == http.StatusText(resp.StatusCode) {
		return phrase
	}
	return c.text(phrase, 60)
}

// ownErrors are the beginnings of errors, up to where they may quote what a server sent.
var ownErrors = []string{
	"net/http: HTTP/1.x transport connection broken: ", "net/http: request canceled", "net/http: timeout awaiting response headers",
	"malformed HTTP response ", "malformed HTTP status code ", "malformed HTTP version ", "malformed MIME header line: ",
	"malformed MIME header: missing colon: ", "malformed MIME header initial line: ", "malformed MIME header: ", "malformed ",
	"http: server gave HTTP response to HTTPS client", "unsupported protocol scheme ", "unsupported transfer encoding: ",
	"bad Content-Length ", "invalid Content-Length ", "http2: ", "transport connection broken: ", "unexpected EOF", "EOF",
	"Proxy Authentication Required", "readLoopPeekFailLocked: ", "no Host in request URL", "server closed idle connection",
}

// errorText returns an error's text, in which only what a server may have written is cleaned.
func (c *cleaner) errorText(s string, most int) string {
	own := ""
	for again := true; again; {
		again = false
		for _, start := range ownErrors {
			if rest, ok := strings.CutPrefix(s, start); ok {
				own, s, again = own+start, rest, true
				break
			}
		}
	}
	return printable(own+c.redact(s), most)
}
