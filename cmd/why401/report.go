package main

import (
	"strings"

	"github.com/authretry/authretry"
)

// A report is all that this program finds out. Its JSON is what -json prints.
type report struct {
	Outcome     string        `json:"outcome"`
	URL         string        `json:"url,omitempty"`
	Status      int           `json:"status,omitempty"`
	Summary     string        `json:"summary"`
	Exchanges   []exchange    `json:"exchanges"`
	Challenges  []challenge   `json:"challenges"`
	More        int           `json:"moreChallenges,omitempty"` // how many challenges there are besides those
	Damage      []string      `json:"damage"`
	Reason      string        `json:"reason,omitempty"`
	Explanation string        `json:"explanation,omitempty"`
	Error       string        `json:"error,omitempty"`
	Body        string        `json:"body,omitempty"`
	Login       *loginFinding `json:"login,omitempty"`
	Causes      []cause       `json:"causes"`
	Notes       []cause       `json:"notes"`

	answered int // the number of the exchange that has the body
}

// The outcomes of a report.
const (
	outcomePassed    = "passed"    // there was an answer, and it is not a refusal
	outcomeRefused   = "refused"   // 401, 403 or 407, or another response that means one of them
	outcomeFailed    = "failed"    // there was no answer, or credentials could not be sent
	outcomeExplained = "explained" // header lines from standard input
)

// Explained returns the explanation without the name of who says it.
func (r *report) Explained() string { return strings.TrimPrefix(r.Explanation, "authretry: ") }

// An exchange is one request on the wire and its response.
type exchange struct {
	Method           string        `json:"method"`
	URL              string        `json:"url"`
	Redirected       bool          `json:"redirected,omitempty"`       // it follows the Location of the exchange before
	Trial            string        `json:"trial,omitempty"`            // how it was asked again, to find out more: "without cookies"
	Credentials      string        `json:"credentials,omitempty"`      // what kind of them, never which
	ProxyCredentials string        `json:"proxyCredentials,omitempty"` // the same, for the proxy
	Cookies          int           `json:"cookies,omitempty"`          // how many the server had set before, and got back
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

// A cause is something that may be wrong, and what to do about it. The name is for programs. The first sentences of Text
// and Fix say the most important, in one line each; they come first in what is printed.
type cause struct {
	Name string `json:"name"`
	Sure string `json:"sure,omitempty"` // certain, likely or possible; empty for a note
	Text string `json:"text"`
	Fix  string `json:"fix,omitempty"`
}

// How sure a cause is.
const (
	certain  = "certain"  // the server says so, or it was tried
	likely   = "likely"   // it usually is the matter where this is seen
	possible = "possible" // it is worth a look
)

// brief returns the first sentences of Text and Fix.
func (c cause) brief() (why, do string) { return firstSentence(c.Text), firstSentence(c.Fix) }

// hasMore reports whether there is more to say than the brief.
func (c cause) hasMore() bool {
	why, do := c.brief()
	return why != c.Text || do != c.Fix
}

// firstSentence returns what comes before the first full stop that is not within “quotes”.
func firstSentence(s string) string {
	quotes := 0
	for i, r := range s {
		switch {
		case r == '“':
			quotes++
		case r == '”':
			quotes--
		case r == '.' && quotes <= 0 && (i+1 == len(s) || s[i+1] == ' '):
			return s[:i+1]
		}
	}
	return s
}

// How much is explained.
const (
	mostChallenges = 12
	mostParams     = 30
)

// challenges explains the challenges in the values of a header, and says how many more there are.
func (c *cleaner) challenges(values []string, proxy bool) (list []challenge, more int, damage []string) {
	parsed, err := authretry.ParseChallenges(values)
	if again, wrong := repaired(values); wrong != "" {
		return []challenge{c.explain(again, proxy)}, 0, []string{wrong}
	}
	for _, p := range parsed[:min(len(parsed), mostChallenges)] {
		list = append(list, c.explain(p, proxy))
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			damage = append(damage, strings.TrimPrefix(strings.TrimSpace(line), "authretry: "))
		}
	}
	return list, len(parsed) - len(list), damage
}

// explain explains one challenge.
func (c *cleaner) explain(p authretry.Challenge, proxy bool) challenge {
	shown := c.challenge(p)
	words, known := schemeNamed(shown.Scheme)
	ch := challenge{Scheme: shown.Scheme, Known: known, Defined: words.rfc, Meaning: words.meaning, Proxy: proxy, Token68: len(p.Token68), raw: p}
	for i := range p.Params[:min(len(p.Params), mostParams)] {
		ch.Params = append(ch.Params, parameter{shown.Params[i].Name, printable(shown.Params[i].Value, 300), printable(meaningOf(shown, shown.Params[i]), 300)})
	}
	needs, recipe := needsOf(shown)
	ch.Needs, ch.Snippet = printable(needs, 500), recipe.code(proxy)
	return ch
}
