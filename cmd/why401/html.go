package main

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
)

//go:embed page.html
var pageText string

//go:embed page.css
var pageStyle string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"title": capital}).Parse(pageText))

// A page is a report as it is shown in a browser. It loads nothing and runs nothing.
type page struct {
	*report
	Style    template.CSS
	Policy   string // the Content-Security-Policy, which allows that style alone
	Headline string
	Tone     string // the class of its colour
	ToDo     string
	Lanes    []string // who takes part: this program, and then those whom it asks
	Steps    []step
}

// A step is an exchange as it is drawn: an arrow there, and one back.
type step struct {
	exchange
	Number int
	To     int    // the lane
	Target string // what the request is for, without the host
	Begins bool   // the first of a trial
	Kind   string // of the status: good, moved or bad
	Sends  []headerField
	Gets   []headerField
	Said   string // the body, if it is shown
}

// masked takes the place of a credential that is sent, whatever its length.
const masked = "••••••••"

// mostHeadline is how long a headline may be, in characters: what a server says can be endless.
const mostHeadline = 140

// mostLanes is how many columns there are; who comes later shares the last one.
const mostLanes = 4

// writeHTML writes the report as one self-contained page.
func writeHTML(w io.Writer, r *report) error {
	hash := sha256.Sum256([]byte(pageStyle))
	p := page{report: r, Style: template.CSS(pageStyle), Lanes: []string{"this program"}, Headline: r.Summary,
		Policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'; base-uri 'none'; form-action 'none'"}
	if len(r.Causes) > 0 {
		p.Headline, p.ToDo = r.Causes[0].brief()
		p.Headline = printable(p.Headline, mostHeadline)
	}
	for i, e := range r.Exchanges {
		p.Steps = append(p.Steps, p.step(i, e))
		if i == r.answered-1 {
			p.Steps[i].Said = r.Body
		}
	}
	if p.Tone = r.Outcome; r.Outcome == outcomePassed && r.Status >= 400 {
		p.Tone = "unsure"
	}
	return pageTemplate.Execute(w, p)
}

func (p *page) step(i int, e exchange) step {
	s := step{exchange: e, Number: i + 1, Kind: statusKind(e.Status), Target: e.URL}
	host := e.URL
	if u, err := url.Parse(e.URL); err == nil && u.Host != "" {
		host, s.Target = u.Host, strings.TrimPrefix(e.URL, u.Scheme+"://"+u.Host)
	}
	if e.Method == http.MethodConnect || e.Status == http.StatusProxyAuthRequired {
		host = "the proxy"
	}
	if s.To = slices.Index(p.Lanes, host); s.To < 0 {
		if len(p.Lanes) < mostLanes {
			p.Lanes = append(p.Lanes, host)
		} else if p.Lanes[mostLanes-1] != host {
			p.Lanes[mostLanes-1] = "other hosts"
		}
		s.To = len(p.Lanes) - 1
	}
	s.Begins = e.Trial != "" && (i == 0 || p.Exchanges[i-1].Trial != e.Trial)
	add := func(name, value string) { s.Sends = append(s.Sends, headerField{name, value}) }
	switch {
	case e.Credentials == unreadable:
		add("Authorization", masked)
	case e.Credentials != "":
		add("Authorization", e.Credentials+" "+masked)
	}
	if e.ProxyCredentials != "" {
		add("Proxy-Authorization", e.ProxyCredentials+" "+masked)
	}
	for _, name := range e.Own {
		add(name, masked)
	}
	if e.Cookies > 0 && !slices.Contains(e.Own, "Cookie") {
		add("Cookie", masked)
	}
	for _, f := range e.Header {
		if f.Name != "Content-Type" && f.Name != "Date" {
			s.Gets = append(s.Gets, f)
		}
	}
	return s
}

// statusKind returns how a status is coloured.
func statusKind(status int) string {
	switch {
	case status >= 400 || status == 0:
		return "bad"
	case status >= 300:
		return "moved"
	}
	return "good"
}

// capital returns a word with a capital letter.
func capital(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// saveHTML writes the page to a file, which nobody else can read: it has no secret of the exchange, but it has the URL.
func saveHTML(file string, r *report) error {
	var b strings.Builder
	if err := writeHTML(&b, r); err != nil {
		return err
	}
	if err := writePrivate(file, b.String()); err != nil {
		return fmt.Errorf("-html: %w", err)
	}
	return nil
}

// writePrivate writes a file that nobody else can read, also where there was one before that others could.
func writePrivate(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		if err := f.Chmod(0o600); err != nil {
			f.Close()
			return err
		}
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
