package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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
	status, values, proxy := challengeLines(string(text))
	r := &report{Outcome: outcomeExplained, Exchanges: []exchange{}, Notes: []cause{}}
	r.Challenges, r.Damage = clean.challenges(values, proxy)
	r.Challenges, r.Damage = orEmpty(r.Challenges), orEmpty(r.Damage)
	r.Causes = orEmpty(pastedCauses(r, status, len(values) > 0, proxy, clean))
	switch {
	case len(values) == 0 && status == "":
		return nil, errors.New("there is nothing to explain: give a URL, or a WWW-Authenticate header on standard input; see why401 -h")
	case len(values) == 0 && strings.HasPrefix(status, "401"):
		r.Summary = "This 401 has no WWW-Authenticate header, though it must (RFC 9110 §15.5.2): the server does not say what it wants."
	case len(values) == 0:
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

// pastedCauses finds the likely causes that show in a response's head alone.
func pastedCauses(r *report, status string, asks, proxy bool, clean *cleaner) []cause {
	resp := &http.Response{Header: http.Header{}}
	fmt.Sscan(status, &resp.StatusCode)
	if resp.StatusCode == 0 && asks && !proxy {
		resp.StatusCode = http.StatusUnauthorized
	}
	if asks {
		resp.Header.Set(challengeHeader(resp), "") // what it says has been read
	}
	in := &inquiry{report: r, attempt: attempt{resp: resp}, question: question{clean: *clean}}
	return in.find(in.insufficientScope, in.serverSays, in.malformed, in.noChallenge)
}

// challengeLines finds the header values in pasted text: those of the fields WWW-Authenticate and Proxy-Authenticate,
// or, if no line has a field name, all lines. It returns the last status as well, and whether the challenges are
// a proxy's.
func challengeLines(text string) (status string, values []string, proxy bool) {
	var bare []string
	head := false    // whether there is a status line: then the rest is fields, and a body after an empty line
	current := false // whether the last field was a challenge, which a line that begins with a space continues
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		line = strings.TrimPrefix(line, "< ") // as curl -v has it
		name, value, isField := strings.Cut(line, ":")
		switch {
		case strings.HasPrefix(line, "HTTP/"):
			_, status, _ = strings.Cut(line, " ")
			head, current, values = true, false, nil // the head that counts is the last
		case isField && (strings.EqualFold(name, "WWW-Authenticate") || strings.EqualFold(name, "Proxy-Authenticate")):
			values, current, proxy = append(values, strings.TrimSpace(value)), true, strings.EqualFold(name, "Proxy-Authenticate")
		case current && (strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")):
			values[len(values)-1] += " " + strings.TrimSpace(line)
		default:
			current = false
			if strings.TrimSpace(line) != "" {
				bare = append(bare, strings.TrimSpace(line))
			}
		}
	}
	if !head && values == nil {
		values = bare
	}
	return status, values, proxy
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
