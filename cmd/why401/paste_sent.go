package main

import (
	"net/http"
	"net/url"
	"strings"
)

// hideSent hides the credentials that somebody has pasted together with a response, since the server may repeat them: the lines of a
// request, with "> " before them or without, as "curl -v" prints them, and the cookies of a response.
func (c *cleaner) hideSent(text string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		rest, isSent := strings.CutPrefix(line, "> ")
		if about, ok := strings.CutPrefix(line, "* "); ok { // * [HTTP/2] [1] [authorization: Bearer …]
			if i := strings.LastIndex(about, "["); i >= 0 {
				rest, isSent = strings.TrimSuffix(about[i+1:], "]"), true
			}
		}
		if target := requestTarget(rest); target != "" {
			if u, err := url.Parse(target); err == nil {
				c.hideURL(u)
			}
			continue
		}
		name, value, ok := strings.Cut(strings.TrimPrefix(rest, "< "), ":")
		name, value = http.CanonicalHeaderKey(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case !ok || value == "":
		case name == "Set-Cookie":
			if cookie, err := http.ParseSetCookie(value); err == nil && len(cookie.Value) >= wordLength {
				c.hide(cookie.Value)
			}
		case isSent && !harmless[name] && !ofMessages[name], isCredential(name):
			c.hideHeader(value)
		}
	}
}

// requestTarget returns the target of a request line, or of HTTP/2's :path; empty if the line is none.
func requestTarget(line string) string {
	if path, ok := strings.CutPrefix(line, ":path: "); ok {
		return path
	}
	if words := strings.Fields(line); len(words) == 3 && strings.HasPrefix(words[2], "HTTP/") {
		return words[1]
	}
	return ""
}

// isCredential reports whether a header of the name has credentials in requests.
func isCredential(name string) bool {
	return name == "Authorization" || name == "Proxy-Authorization" || name == "Cookie" || name == "Dpop" ||
		strings.HasPrefix(name, "X-") && hasAny(name, "Key", "Token", "Auth", "Secret")
}

// ofMessages are headers of requests, besides the harmless ones, that have no credentials.
var ofMessages = map[string]bool{"Connection": true, "Content-Length": true, "Transfer-Encoding": true, "Upgrade": true, "Pragma": true, "Te": true,
	"Http2-Settings": true, "Proxy-Connection": true, "Keep-Alive": true}

// isNoField reports whether a line is neither a field of a challenge nor the value of one: it is of a body, or of a map of fields as
// Python or Go print it, or of what is sent, or another field.
func isNoField(line string) bool {
	for _, start := range []string{"{", "}", "[", "<", "'", `"`, "map[", "http.Header", ">", "* ", "Headers("} {
		if strings.HasPrefix(line, start) {
			return true
		}
	}
	first, _, _ := strings.Cut(line, " ")
	_, known := schemeNamed(first)
	return requestTarget(line) != "" || strings.Contains(first, ":") || line != "" && !known && !strings.Contains(line, "=")
}

// asksFor is for a response that says no more than what it asks for.
func (in *inquiry) asksFor() *cause {
	if !in.refused() || len(in.report.Challenges) == 0 {
		return nil
	}
	windows := in.has("Negotiate") != nil || in.has("NTLM") != nil
	asks := " It asks for " + in.asks() + ". Whether any were sent does not show here."
	if in.resp.StatusCode == http.StatusProxyAuthRequired {
		fix := "Give it some with -proxy-user and the URL. That shows whether they are accepted."
		if windows && in.has("Basic") == nil && in.has("Digest") == nil {
			fix = "Run kinit, and try curl --proxy-negotiate -U : by the same proxy."
		}
		return &cause{"proxy", certain, "It is a proxy that refuses: it wants credentials of its own." + asks, fix}
	}
	fix := "See below for what the challenge needs."
	switch {
	case in.has("Basic") != nil || in.has("Digest") != nil:
		fix = "Run it with the URL and -u. That shows whether they are accepted."
	case in.has("Bearer") != nil:
		fix = "Run it with the URL and -token-env. That shows whether the token is accepted."
	case windows && in.has("Negotiate") == nil:
		fix = "Try curl --ntlm -u 'DOMAIN\\user' with the URL."
	case windows:
		fix = "Run kinit, and try curl --negotiate -u : with the URL."
	}
	return &cause{"asks", certain, "The server asks for credentials: it got none, or does not accept them." + asks, fix}
}

// forbids is for a 403 of which no more is known.
func (in *inquiry) forbids() *cause {
	if in.resp.StatusCode != http.StatusForbidden {
		return nil
	}
	return &cause{"forbidden", possible, "The server forbids this, and does not say why. It may know who asks, and not allow it, or want credentials (RFC 9110 §15.5.4).",
		"Run it with the URL, and with credentials. That shows more."}
}
