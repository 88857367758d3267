package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// explainPasted explains the challenges in text such as "WWW-Authenticate: Digest ...", the value alone, or all of a
// response's head.
func explainPasted(stdin io.Reader, clean *cleaner) (*report, error) {
	const most = 1 << 20
	if f, ok := stdin.(*os.File); ok && isTerminal(f) {
		fmt.Fprintln(os.Stderr, "Paste the WWW-Authenticate header, or all of a response's head, and end with Ctrl-D:")
	}
	text, err := io.ReadAll(io.LimitReader(stdin, most))
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	clean.hideSent(string(text))
	p := readPasted(string(text))
	r := &report{Outcome: outcomeExplained, Exchanges: []exchange{}, Notes: []cause{}}
	r.Challenges, r.More, r.Damage = clean.challenges(p.challenges, p.proxy)
	r.Challenges, r.Damage = orEmpty(r.Challenges), orEmpty(r.Damage)
	r.Causes = orEmpty(p.causes(r, clean))
	asks := len(p.challenges) > 0
	switch {
	case !asks && p.status == "" && p.noField:
		return nil, errors.New("this is no header line: paste lines such as WWW-Authenticate: Bearer realm=\"x\", or all that curl -i prints; a body, or a map of headers as Python or Go print it, is not read")
	case !asks && p.status == "":
		return nil, errors.New("there is nothing to explain: give a URL, or a WWW-Authenticate header on standard input; see why401 -h")
	case !asks && strings.HasPrefix(p.status, "401"):
		r.Summary = "This 401 has no WWW-Authenticate header, though it must (RFC 9110 §15.5.2): the server does not say what it wants."
	case !asks:
		r.Summary = "This response asks for nothing: it has neither WWW-Authenticate nor Proxy-Authenticate."
	case len(r.Challenges) == 0:
		r.Summary = "No challenge can be read from this."
	case len(r.Challenges) == 1:
		r.Summary = "This is one challenge."
	default:
		r.Summary = fmt.Sprintf("These are %d challenges. Any one of them is enough; take the strongest that you have credentials for.", len(r.Challenges))
	}
	return r, nil
}

// A pasted is a response as somebody has pasted it, or as much of it as there is.
type pasted struct {
	status     string // code and phrase; empty if there is none
	header     http.Header
	challenges []string // the values of WWW-Authenticate or Proxy-Authenticate
	proxy      bool     // they are a proxy's
	body       string
	noField    bool // there is a line that is neither a field nor a value
}

// causes finds the likely causes that show in a response alone.
func (p *pasted) causes(r *report, clean *cleaner) []cause {
	resp := &http.Response{Header: p.header, Request: &http.Request{URL: &url.URL{}}}
	fmt.Sscan(p.status, &resp.StatusCode)
	switch {
	case resp.StatusCode != 0 || len(p.challenges) == 0:
	case p.proxy:
		resp.StatusCode = http.StatusProxyAuthRequired
	default:
		resp.StatusCode = http.StatusUnauthorized
	}
	if len(p.challenges) > 0 {
		resp.Header.Set(challengeHeader(resp), "") // what it says has been read
	}
	in := &inquiry{report: r, attempt: attempt{resp: resp, body: p.body}, question: question{clean: *clean, url: resp.Request.URL}, pasted: true, words: strings.ToLower(clean.redactSent(p.body))}
	if resp.StatusCode >= 200 && !isRefusal(resp.StatusCode) {
		in.isDisguised()
	}
	list := in.find(in.brokenDigest, in.misspelt, in.insufficientScope, in.signs, in.disguised, in.serverSays, in.malformed, in.noChallenge)
	if len(list) == 0 {
		list = in.find(in.asksFor, in.forbids)
	}
	return list
}

// mostPasted is how long a field may be that goes on over several lines.
const mostPasted = 64 << 10

// readPasted reads what is pasted: a response as "curl -i" or "curl -v" prints it, of which the last one counts, or fields of it, or,
// if no line has a field name, the values of WWW-Authenticate.
func readPasted(text string) *pasted {
	p := &pasted{header: http.Header{}}
	var bare []string
	var content strings.Builder
	head, body := false, false // whether there was a status line, and whether its fields have ended
	last := ""                 // the field that a line which begins with a space continues
	for line := range strings.Lines(text) {
		whole := line
		line = strings.TrimPrefix(strings.TrimRight(line, "\r\n"), "< ") // as curl -v has it
		name, value, isField := strings.Cut(line, ":")
		name = http.CanonicalHeaderKey(name)
		isChallenge := name == "Www-Authenticate" || name == "Proxy-Authenticate"
		switch {
		case strings.HasPrefix(line, "HTTP/"):
			_, p.status, _ = strings.Cut(line, " ")
			p.challenges, p.header = nil, http.Header{}
			content.Reset()
			head, body, last = true, false, ""
		case body:
			content.WriteString(whole)
		case head && (line == "" || line == "<"):
			body = true
		case isField && isChallenge:
			p.challenges, last, p.proxy = append(p.challenges, strings.TrimSpace(value)), name, name == "Proxy-Authenticate"
		case last != "" && len(p.challenges[len(p.challenges)-1]) > mostPasted:
			// more than any server sends
		case last != "" && (strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")):
			p.challenges[len(p.challenges)-1] += " " + strings.TrimSpace(line)
		case head && isField:
			p.header.Add(name, strings.TrimSpace(value))
			last = ""
		case isNoField(strings.TrimSpace(line)):
			p.noField, last = true, ""
		default:
			last = ""
			if strings.TrimSpace(line) != "" {
				bare = append(bare, strings.TrimSpace(line))
			}
		}
	}
	p.body = content.String()
	if !head && p.challenges == nil {
		p.challenges = bare
	}
	return p
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
