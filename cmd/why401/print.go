package main

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A printer prints a report for a person.
type printer struct {
	w      io.Writer
	width  int
	colour bool
}

func newPrinter(w io.Writer, getenv func(string) string) *printer {
	f, ok := w.(*os.File)
	p := &printer{w: w, width: 80}
	if columns := columns(f, getenv); columns > 0 {
		p.width = min(max(columns, 40), 120)
	}
	p.colour = ok && isTerminal(f) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb" && getenv("TERM") != ""
	return p
}

// columns returns how wide lines may be: as the terminal says, or else COLUMNS; 0 if neither does. F may be nil.
func columns(f *os.File, getenv func(string) string) int {
	if f != nil {
		if n := terminalWidth(f); n > 0 {
			return n
		}
	}
	n, _ := strconv.Atoi(getenv("COLUMNS"))
	return n
}

// The colours, as SGR sequences.
const (
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	red    = "\x1b[1;31m"
	green  = "\x1b[1;32m"
	yellow = "\x1b[33m"
	plain  = "\x1b[0m"
)

func (p *printer) paint(colour, s string) string {
	if !p.colour || colour == "" || s == "" {
		return s
	}
	return colour + s + plain
}

// line prints text, wrapped, with the indent given; all lines but the first are indented further.
func (p *printer) line(indent, further int, colour, text string) {
	margin := strings.Repeat(" ", indent)
	for _, l := range wrap(text, p.width-indent, further) {
		fmt.Fprintln(p.w, margin+p.paint(colour, l))
	}
}

// wrap breaks text at spaces into lines of at most width characters, of which all but the first are indented by further.
func wrap(text string, width, further int) []string {
	var lines []string
	line, length := "", 0
	next := func() {
		lines = append(lines, line)
		line, length = strings.Repeat(" ", further), further
	}
	text = strings.ToValidUTF8(text, "\uFFFD") // pieces are counted both in characters and in bytes
	isEmpty := true                            // but for the indent
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case isEmpty:
		case length+1+n <= width:
			line, length = line+" ", length+1
		default:
			next()
		}
		for n > width-length && n > 0 {
			piece := breakable(word, width-length)
			line += piece
			word, n = word[len(piece):], n-utf8.RuneCountInString(piece)
			next()
		}
		line, length, isEmpty = line+word, length+n, false
	}
	return append(lines, line)
}

// breakable returns how much of a word that is too long goes on a line with room for so many characters: up to the last of those after
// which a URL or a path is read on easily, or as much as there is room for.
func breakable(word string, room int) string {
	r := []rune(word)
	r = r[:min(max(room, 1), len(r))]
	for _, after := range []string{"/?&,;", "=:.-_"} { // the best places first
		for i := len(r) - 1; i > len(r)/2; i-- {
			if strings.ContainsRune(after, r[i]) {
				return string(r[:i+1])
			}
		}
	}
	return string(r)
}

func (p *printer) heading(s string) {
	fmt.Fprintf(p.w, "\n%s\n", p.paint(bold, strings.ToUpper(s)))
}

func (p *printer) report(r *report) {
	colour := green
	switch r.Outcome {
	case outcomeRefused, outcomeFailed:
		colour = red
	}
	if r.Outcome == outcomePassed && r.Status >= 400 {
		colour = yellow
	}
	if len(r.Causes) > 0 {
		p.brief(r.Causes[0], colour)
		colour = ""
	}
	p.line(0, 0, colour, r.Summary)
	if r.Error != "" {
		p.line(2, 0, "", r.Error)
	}
	p.exchanges(r)
	p.challenges(r)
	p.login(r.Login)
	if r.Explanation != "" {
		p.heading("What became of the credentials")
		p.line(2, 0, "", r.Explained()+" (authretry: "+r.Reason+")")
	}
	if len(r.Causes) > 1 || len(r.Causes) == 1 && r.Causes[0].hasMore() {
		p.causes("Causes", r.Causes)
	}
	p.causes("Also", r.Notes)
}

// brief prints the likeliest cause and what to do: in a line each, where the screen is as wide as most are.
func (p *printer) brief(c cause, colour string) {
	why, do := c.brief()
	label := "Cause: "
	if c.Sure != certain && c.Sure != "" {
		label = strings.ToUpper(c.Sure[:1]) + c.Sure[1:] + " cause: "
	}
	if end := strings.LastIndex(why, "”"); strings.HasPrefix(why, "“") && utf8.RuneCountInString(label+why) > p.width {
		why = why[:end] + "”" // the server's words are worth more than that they are its words
	}
	p.line(0, 2, colour, p.cut(label+why))
	if do != "" {
		p.line(0, 2, bold, p.cut("What to do: "+do))
	}
	fmt.Fprintln(p.w)
}

// cut shortens what has too much of a server's words in it to a line of a usual screen. A narrow one gets all of it.
func (p *printer) cut(s string) string {
	if r := []rune(s); len(r) > p.width && p.width >= 80 {
		return string(r[:p.width-1]) + "…"
	}
	return s
}

func (p *printer) exchanges(r *report) {
	if len(r.Exchanges) == 0 {
		return
	}
	p.heading("The exchange")
	again := 0
	for i, e := range r.Exchanges {
		if i > 0 && reflect.DeepEqual(e, r.Exchanges[i-1]) {
			again++
			if i == len(r.Exchanges)-1 || !reflect.DeepEqual(e, r.Exchanges[i+1]) {
				times := "once"
				if again > 1 {
					times = strconv.Itoa(again) + " times"
				}
				p.line(5, 2, "", "… and the same "+times+" more")
				again = 0
				p.body(r, i)
			}
			continue
		}
		p.line(2, 4, "", fmt.Sprintf("%d. %s %s, %s", i+1, e.Method, e.URL, with(e)))
		if e.Error != "" {
			p.line(5, 2, red, e.Error)
			continue
		}
		colour := green
		if e.Status >= 400 {
			colour = red
		} else if e.Status >= 300 {
			colour = yellow
		}
		p.line(5, 0, colour, strings.TrimSpace(strconv.Itoa(e.Status)+" "+e.Phrase))
		for _, f := range e.Header {
			if f.Name != "Content-Type" && f.Name != "Date" {
				p.line(5, 2, dim, f.Name+": "+f.Value)
			}
		}
		p.body(r, i)
	}
}

// body prints the body below the exchange that has it.
func (p *printer) body(r *report, i int) {
	if r.Body != "" && i == r.answered-1 {
		p.line(5, 2, dim, "“"+r.Body+"”")
	}
}

// with says what a request carried.
func with(e exchange) string {
	s := "without credentials"
	switch {
	case e.Method == "CONNECT" && e.ProxyCredentials != "":
		return "to the proxy, with " + e.ProxyCredentials + " credentials"
	case e.Method == "CONNECT":
		return "to the proxy, without credentials"
	case e.Credentials == unreadable:
		s = "with an Authorization that has no scheme"
	case e.Credentials != "":
		s = "with " + e.Credentials + " credentials"
	case len(e.Own) > 0:
		s = "with " + strings.Join(e.Own, ", ")
	}
	if e.ProxyCredentials != "" && e.Credentials == "" && len(e.Own) == 0 {
		s = "with " + e.ProxyCredentials + " credentials for the proxy only"
	} else if e.ProxyCredentials != "" {
		s += ", and " + e.ProxyCredentials + " credentials for the proxy"
	}
	switch {
	case e.Cookies > 0 && s == "without credentials":
		s = "with " + e.cookies()
	case e.Cookies > 0:
		s += ", and " + e.cookies()
	}
	if e.Redirected {
		s = "redirected, " + s
	}
	switch {
	case e.Trial == s:
		s = "tried again " + s
	case e.Trial != "":
		s = "tried again " + e.Trial + ", " + s
	}
	return s
}

func (p *printer) challenges(r *report) {
	if len(r.Challenges) == 0 && len(r.Damage) == 0 {
		return
	}
	p.heading("What is asked for")
	shown := map[string]bool{} // the code
	for i, c := range r.Challenges {
		if i > 0 {
			fmt.Fprintln(p.w, "\n  or")
		}
		title := c.Scheme
		if c.Defined != "" {
			title += " (" + c.Defined + ")"
		}
		p.line(2, 2, bold, title+": "+c.Meaning+".")
		for _, q := range c.Params {
			p.line(4, 4, "", q.Name+" = "+quote(q.Value))
			p.line(8, 0, dim, q.Meaning)
		}
		if c.Token68 > 0 {
			p.line(4, 4, "", c.Data())
		}
		p.line(4, 4, "", "To satisfy it: "+c.Needs+".")
		if shown[c.Snippet] {
			p.line(4, 4, "", "In a program, it is as above.")
		} else if shown[c.Snippet] = c.Snippet != ""; c.Snippet != "" {
			for line := range strings.Lines(c.Snippet) {
				fmt.Fprint(p.w, "      "+line)
			}
			fmt.Fprintln(p.w)
		} else {
			p.line(4, 4, "", "authretry has no such scheme; implement authretry.Scheme for it, or use a library that has it.")
		}
	}
	if r.More > 0 {
		p.line(2, 2, "", "Not shown: "+strconv.Itoa(r.More)+" more of them.")
	}
	for _, d := range r.Damage {
		p.line(2, 2, yellow, "The header is damaged: "+strings.TrimPrefix(d, "damaged challenge: ")+".")
	}
}

// cookies says how many there are.
func (e *exchange) cookies() string {
	if e.Cookies == 1 {
		return "a cookie"
	}
	return strconv.Itoa(e.Cookies) + " cookies"
}

// login says what -login has found out.
func (p *printer) login(f *loginFinding) {
	if f == nil {
		return
	}
	p.heading("Who gives out tokens")
	p.line(2, 4, "", "The resource calls itself "+f.Resource+", and trusts "+strings.Join(f.Issuers, ", ")+".")
	if len(f.Scopes) > 0 {
		p.line(2, 4, "", "It knows the scopes "+strings.Join(f.Scopes, ", ")+".")
	}
	if f.Bound {
		p.line(2, 4, "", "It takes only tokens that are bound to a key (RFC 9449).")
	}
	p.line(2, 4, "", "Asked was "+f.Issuer+". "+f.Ways())
	if f.Tried == "" {
		p.line(2, 4, "", "Nobody was asked to log in.")
	} else {
		p.line(2, 4, bold, "Tried: "+f.Tried+".")
	}
}

// Ways says how people log in at an authorization server.
func (f *loginFinding) Ways() string {
	s := "It has no login for people"
	switch {
	case f.Browser && f.Device:
		s = "People log in there by a browser, or by another device"
	case f.Browser:
		s = "People log in there by a browser"
	case f.Device:
		s = "People log in there by another device"
	}
	if f.Registers {
		return s + "; it registers programs on demand (RFC 7591)."
	}
	return s + "; it registers no programs on demand."
}

func quote(s string) string { return `"` + s + `"` }

func (p *printer) causes(heading string, list []cause) {
	if len(list) == 0 {
		return
	}
	p.heading(heading)
	for i, c := range list {
		mark := "- "
		if c.Sure != "" {
			mark = fmt.Sprintf("%d. ", i+1)
			c.Text = "(" + c.Sure + ") " + c.Text
		}
		p.line(2, len(mark), "", mark+c.Text)
		if c.Fix != "" {
			p.line(2+len(mark), 0, bold, "What to do: "+c.Fix)
		}
	}
}

// Data says what the data after the scheme's name are.
func (c challenge) Data() string {
	isWindows := strings.EqualFold(c.Scheme, "Negotiate") || strings.EqualFold(c.Scheme, "NTLM")
	if isWindows && strings.HasPrefix(c.raw.Token68, "TlRMTVNTUA") { // "NTLMSSP" in base64
		return fmt.Sprintf("%d characters of a message of NTLM: the server goes on without Kerberos", c.Token68)
	}
	return fmt.Sprintf("%d characters of data that belong to the scheme", c.Token68)
}
