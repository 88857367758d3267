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
func (c *cleaner) text(s string, most int) string { return printable(c.beginning(s), most) }

// straightQuotes has what is put into “quotes” end where we end it.
var straightQuotes = strings.NewReplacer("“", `"`, "”", `"`)

// quote is text in quotes.
func (c *cleaner) quote(s string, most int) string {
	return "“" + straightQuotes.Replace(c.text(s, most)) + "”"
}

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

// Bounds of what is looked at for secrets, in bytes. More of it would take long, and nobody would read it.
const (
	mostField  = 16 << 10 // of a header's field, or a part of it
	mostSecret = 4 << 10  // what is nearer to the bound than that is not shown, since a secret may go on beyond it
)

// beginning hides the secrets in the beginning of s, which is of a header, and leaves out the rest.
func (c *cleaner) beginning(s string) string {
	if len(s) <= mostField {
		return c.redact(s)
	}
	s = s[:mostField]
	return hide(s, append(c.own(s), named(s)...), mostField-mostSecret) + "…"
}

// redact hides the secrets in s: what was sent, and what is named as secrets are.
func (c *cleaner) redact(s string) string { return hide(s, append(c.own(s), named(s)...), len(s)) }

// redactSent hides what was sent.
func (c *cleaner) redactSent(s string) string { return hide(s, c.own(s), len(s)) }

// own returns where s has what was sent.
func (c *cleaner) own(s string) []span {
	if len(c.secrets) == 0 {
		return nil
	}
	spans := c.encoded(s)
	for _, v := range []view{viewOf(s, false), viewOf(s, true)} {
		spans = append(spans, c.find(s, v)...)
	}
	return spans
}

// hide hides parts of s, and leaves out what comes after so many bytes.
func hide(s string, spans []span, most int) string {
	slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
	var b strings.Builder
	at := 0
	for i := 0; i < len(spans) && spans[i].from < most; {
		from, to := spans[i].from, spans[i].to
		for i++; i < len(spans) && spans[i].from < to; i++ {
			to = max(to, spans[i].to)
		}
		b.WriteString(s[at:from] + hidden)
		at = to
	}
	return b.String() + s[at:max(at, most)]
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
			spans = append(spans, wholeWord(s, span{v.at[i].from, v.at[i+pieceLength-1].to}))
		}
	}
	return spans
}

// wholeWord returns a part of s with all of the letters and digits that it is among: a part of a secret is hidden with what is around it.
func wholeWord(s string, part span) span {
	for part.from > 0 && isAlphanumeric(s[part.from-1]) {
		part.from--
	}
	for part.to < len(s) && isAlphanumeric(s[part.to]) {
		part.to++
	}
	return part
}

func isAlphanumeric(c byte) bool { return isCode(c) && strings.IndexByte("+/-_", c) < 0 }

// encoded returns the words of s that are a secret in base64 or hex.
func (c *cleaner) encoded(s string) (spans []span) {
	for i := 0; i < len(s); i++ {
		from := i
		for i < len(s) && isCode(s[i]) {
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

// decodesToSecret reports whether a word, or a part of it in one alphabet, is code for a text with a secret, from one of its first
// characters on.
func (c *cleaner) decodesToSecret(word string) bool {
	isNoHex := func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) }
	return c.decodes(strings.FieldsFunc(word, func(r rune) bool { return r == '-' || r == '_' }), base64.RawStdEncoding.DecodeString) ||
		c.decodes(strings.FieldsFunc(word, func(r rune) bool { return r == '+' || r == '/' }), base64.RawURLEncoding.DecodeString) ||
		c.decodes(strings.FieldsFunc(word, isNoHex), hex.DecodeString)
}

func (c *cleaner) decodes(codes []string, decode func(string) ([]byte, error)) bool {
	for _, code := range codes {
		for start := range min(4, len(code)) {
			plain, err := decode(code[start:])
			if err != nil { // there may be one character too many
				plain, err = decode(code[start:max(start, len(code)-1)])
			}
			if err != nil {
				continue
			}
			if c.hasSecret(folded(string(plain))) {
				return true
			}
		}
	}
	return false
}

// hasSecret reports whether a folded text has a secret in it, or a piece of a long one.
func (c *cleaner) hasSecret(text string) bool {
	for _, secret := range c.secrets {
		if len(secret) >= wordLength && strings.Contains(text, secret) {
			return true
		}
	}
	runes := []rune(text)
	for i := 0; i+pieceLength <= len(runes); i++ {
		if _, ok := c.pieces[string(runes[i:i+pieceLength])]; ok {
			return true
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
	return printable(c.redactSent(host[:min(len(host), mostField)]), 100)
}

// challenge returns a challenge without the secrets that the server put into it.
func (c *cleaner) challenge(raw authretry.Challenge) authretry.Challenge {
	clean := authretry.Challenge{Scheme: c.name(raw.Scheme, 60), Token68: c.beginning(raw.Token68)}
	for _, q := range raw.Params[:min(len(raw.Params), mostParams)] {
		clean.Params = append(clean.Params, authretry.Param{Name: c.name(q.Name, 60), Value: c.value(q.Name, q.Value)})
	}
	return clean
}

// value returns what something of the name is set to.
func (c *cleaner) value(name, value string) string {
	if always, perhaps := isSecretName(name); (always || perhaps && looksSecret(value)) && value != "" && !isMessage(value) {
		return hidden
	}
	return c.beginning(value)
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
		b.WriteString(`"` + c.beginning(rest[:end]))
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
	return printable(own+c.beginning(s), most)
}
