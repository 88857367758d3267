package main

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/authretry/authretry"
)

// A report is all that this program finds out. Its JSON is what -json prints.
type report struct {
	Outcome     string      `json:"outcome"`
	URL         string      `json:"url,omitempty"`
	Status      int         `json:"status,omitempty"`
	Summary     string      `json:"summary"`
	Exchanges   []exchange  `json:"exchanges"`
	Challenges  []challenge `json:"challenges"`
	Damage      []string    `json:"damage"`
	Reason      string      `json:"reason,omitempty"`
	Explanation string      `json:"explanation,omitempty"`
	Error       string      `json:"error,omitempty"`
	Body        string      `json:"body,omitempty"`
	Causes      []cause     `json:"causes"`
	Notes       []cause     `json:"notes"`
}

// The outcomes of a report.
const (
	outcomePassed    = "passed"    // there was an answer, and it is not a refusal
	outcomeRefused   = "refused"   // 401, 403 or 407
	outcomeFailed    = "failed"    // there was no answer, or credentials could not be sent
	outcomeExplained = "explained" // header lines from standard input
)

// An exchange is one request on the wire and its response.
type exchange struct {
	Method           string        `json:"method"`
	URL              string        `json:"url"`
	Redirected       bool          `json:"redirected,omitempty"`       // it follows the Location of the exchange before
	Credentials      string        `json:"credentials,omitempty"`      // what kind of them, never which
	ProxyCredentials string        `json:"proxyCredentials,omitempty"` // the same, for the proxy
	Own              []string      `json:"own,omitempty"`              // the names of the headers given with -H that it carried
	Status           int           `json:"status,omitempty"`
	Phrase           string        `json:"phrase,omitempty"`
	Header           []headerField `json:"header,omitempty"` // those that matter here
	Error            string        `json:"error,omitempty"`
}

type headerField struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type challenge struct {
	Scheme  string      `json:"scheme"`
	Known   bool        `json:"known"`
	Defined string      `json:"defined,omitempty"`
	Meaning string      `json:"meaning"`
	Proxy   bool        `json:"proxy,omitempty"`   // it is a proxy's
	Token68 int         `json:"token68,omitempty"` // its length
	Params  []parameter `json:"params,omitempty"`
	Needs   string      `json:"needs"`
	Snippet string      `json:"snippet,omitempty"`

	raw authretry.Challenge
}

type parameter struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Meaning string `json:"meaning"`
}

// A cause is something that may be wrong, and what to do about it. The name is for programs.
type cause struct {
	Name string `json:"name"`
	Text string `json:"text"`
	Fix  string `json:"fix,omitempty"`
}

// A cleaner makes text from elsewhere fit to be printed: without the secrets that it may quote, without anything that
// a terminal would obey, and no longer than a person would read.
type cleaner struct {
	secrets []string
}

// hide adds a secret, and the forms in which it may come back.
func (c *cleaner) hide(secrets ...string) {
	for _, s := range secrets {
		for _, form := range []string{s, url.QueryEscape(s), url.PathEscape(s)} {
			if form != "" && !slices.Contains(c.secrets, form) {
				c.secrets = append(c.secrets, form)
			}
		}
	}
	slices.SortFunc(c.secrets, func(a, b string) int { return len(b) - len(a) }) // a part must not hide before the whole
}

// hidden takes the place of a secret.
const hidden = "(secret)"

// text returns s for printing, cut to at most the given number of characters.
func (c *cleaner) text(s string, most int) string {
	for _, secret := range c.secrets {
		s = replaceSecret(s, secret)
	}
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

// replaceSecret hides a secret in s. One that is so short that it occurs in ordinary words is hidden only where it is
// a word.
func replaceSecret(s, secret string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, secret)
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		end := i + len(secret)
		before, _ := utf8.DecodeLastRuneInString(s[:i])
		after, _ := utf8.DecodeRuneInString(s[end:])
		if len(secret) < 4 && (isWord(before) || isWord(after)) {
			b.WriteString(s[:end])
		} else {
			b.WriteString(s[:i] + hidden)
		}
		s = s[end:]
	}
}

func isWord(r rune) bool {
	return r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

// url returns u for printing: without the password that userinfo may have, and without the values of a query, which
// may be keys.
func (c *cleaner) url(u *url.URL) string {
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath, Opaque: u.Opaque}
	s := shown.String()
	if u.RawQuery != "" {
		s += "?…"
	}
	return c.text(s, 300)
}

// challenges explains the challenges in the values of a header.
func (c *cleaner) challenges(values []string, proxy bool) (list []challenge, damage []string) {
	const mostChallenges, mostParams = 12, 30
	parsed, err := authretry.ParseChallenges(values)
	for _, p := range parsed[:min(len(parsed), mostChallenges)] {
		words, known := schemeNamed(c.text(p.Scheme, 60))
		ch := challenge{Scheme: c.text(p.Scheme, 60), Known: known, Defined: words.rfc, Meaning: words.meaning, Proxy: proxy, Token68: len(p.Token68), raw: p}
		for _, q := range p.Params[:min(len(p.Params), mostParams)] {
			ch.Params = append(ch.Params, parameter{c.text(q.Name, 60), c.text(q.Value, 300), meaningOf(p, q)})
		}
		needs, snippet := needsOf(p)
		ch.Needs, ch.Snippet = c.text(needs, 500), c.text(snippet, 200)
		list = append(list, ch)
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			damage = append(damage, strings.TrimPrefix(strings.TrimSpace(line), "authretry: "))
		}
	}
	return list, damage
}
