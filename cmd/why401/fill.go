package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/authretry/authretry"
)

// fill makes the report of what was recorded.
func (in *inquiry) fill(ctx context.Context) {
	r, clean := in.report, &in.clean
	in.hideLogin()
	for _, h := range in.hops {
		clean.hideExchange(h)
	}
	in.words = strings.ReplaceAll(strings.ToLower(clean.long().redactSent(in.body)), `\"`, `"`)
	if in.resp != nil {
		in.words += " " + strings.ToLower(clean.long().redactSent(strings.Join(moreWords(in.resp), " ")))
	}
	if n := len(in.hops); n > 0 && in.hops[n-1].resp != nil {
		resp := in.hops[n-1].resp // also if it was not passed on, because credentials must not be sent
		r.Challenges, r.More, r.Damage = clean.challenges(resp.Header.Values(challengeHeader(resp)), resp.StatusCode == http.StatusProxyAuthRequired)
	}
	r.Challenges, r.Damage = orEmpty(r.Challenges), orEmpty(r.Damage)
	if in.trial.isBound() {
		needBound(r.Challenges)
	}
	in.settle()
	in.askRepeatedly(ctx)
	if in.trials.repeats.differs && r.Outcome == outcomePassed {
		r.Outcome = outcomeRefused
		r.Summary += " Asked again, it refused."
	}
	in.tryAgain(ctx)
	r.Login = in.foundLogin(ctx)
	for _, h := range slices.Concat(in.hops, in.trials.hops) {
		r.Exchanges = append(r.Exchanges, in.exchange(h))
	}
	r.Exchanges, r.answered = orEmpty(r.Exchanges), len(in.hops)
	if resp := in.resp; resp != nil {
		r.Status = resp.StatusCode
		r.Body = in.excerpt()
	}
	if in.rejected != nil {
		r.Reason, r.Explanation = in.rejected.Reason.String(), clean.rejection(*in.rejected)
	}
	r.Causes, r.Notes = orEmpty(in.allCauses()), orEmpty(in.notes())
}

// moreWords returns what servers say outside the body: SharePoint and Exchange, Azure DevOps, and those that put it into the status line.
func moreWords(resp *http.Response) []string {
	azure, err := url.QueryUnescape(resp.Header.Get("X-Tfs-Serviceerror"))
	if err != nil {
		azure = ""
	}
	phrase := resp.Status
	if isCommonplace(phrase) || phrase == statusText(resp.StatusCode) {
		phrase = ""
	}
	return []string{resp.Header.Get("X-Ms-Diagnostics"), azure, phrase}
}

// settle decides on the outcome.
func (in *inquiry) settle() {
	r, clean := in.report, &in.clean
	if in.err != nil {
		errors.As(in.err, &in.rejected)
		in.resp = nil
		if n := len(in.hops); n > 0 && in.hops[n-1].closed() {
			in.resp = in.hops[n-1].resp
		}
		r.Outcome = outcomeFailed
		if in.rejected == nil && in.resp == nil {
			r.Error = in.errorText(in.err, 500)
		}
		r.Summary = fmt.Sprintf("%s gave no answer.", r.URL)
		switch {
		case in.resp != nil && in.resp.StatusCode == http.StatusProxyAuthRequired:
			r.Outcome = outcomeRefused
			r.Summary = fmt.Sprintf("The proxy refused to connect to %s: 407 Proxy Authentication Required.", clean.host(in.url.Host))
		case in.resp != nil:
			r.Summary = fmt.Sprintf("The proxy answered CONNECT to %s with %d.", clean.host(in.url.Host), in.resp.StatusCode)
		case in.is(authretry.ReasonNoCredentials):
			r.Summary = fmt.Sprintf("%s wants credentials, and there are none.", r.URL)
		case in.rejected != nil:
			r.Summary = fmt.Sprintf("%s was not given the credentials.", r.URL)
		case len(in.hops) > 0 && in.hops[len(in.hops)-1].resp != nil:
			r.Summary = fmt.Sprintf("%s was not reached: a redirect could not be followed.", r.URL)
		}
		return
	}
	where := clean.url(in.resp.Request.URL)
	if where != r.URL {
		where = r.URL + " led to " + where + ", which"
	}
	status := strings.TrimSpace(fmt.Sprintf("%d %s", in.resp.StatusCode, http.StatusText(in.resp.StatusCode)))
	switch {
	case isRefusal(in.resp.StatusCode):
		r.Outcome = outcomeRefused
		r.Summary = fmt.Sprintf("%s refused: %s.", where, status)
		if in.schemes != nil || in.proxyUser.given {
			if errors.As(authretry.Explain(in.resp), &in.rejected) && in.token != "" && in.rejected.Reason == authretry.ReasonCredentialsRefused {
				in.rejected.Err = nil // what else a Bearer needs than one token is for who writes a program
			}
			if in.rejected != nil && in.trial.isBound() { // which may be in answer to a challenge of Bearer
				in.rejected.Tried = slices.Clone(in.rejected.Tried)
				for i := range in.rejected.Tried {
					if in.rejected.Tried[i] == "Bearer" {
						in.rejected.Tried[i] = "DPoP"
					}
				}
			}
		}
	case in.isDisguised():
		r.Outcome = outcomeRefused
		r.Summary = fmt.Sprintf("%s answered %s, which is a refusal nevertheless.", where, status)
	default:
		r.Outcome = outcomePassed
		r.Summary = fmt.Sprintf("%s did not refuse: %s.", where, status)
	}
}

func challengeHeader(resp *http.Response) string {
	if resp.StatusCode == http.StatusProxyAuthRequired {
		return "Proxy-Authenticate"
	}
	return "WWW-Authenticate"
}

// orEmpty makes JSON of an empty list rather than of null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// matters are the response headers that help to understand a refusal, those among them that a cause goes by.
var matters = []string{"WWW-Authenticate", "Proxy-Authenticate", "Authentication-Info", "Location", "Date", "Server", "Via",
	"Retry-After", "Content-Type", "Content-Encoding", "DPoP-Nonce", "Grpc-Status", "Grpc-Message", "X-Csrf-Token", "X-Amzn-Errortype", "X-Ms-Diagnostics", "X-Tfs-Serviceerror", "Cf-Mitigated", "Cf-Ray", "X-Accepted-Github-Permissions", "X-Github-Sso", "X-Github-Otp",
	"X-Accepted-Oauth-Scopes", "X-Oauth-Scopes", "X-Authentication-Denied-Reason", "X-You-Are-Authenticated-As", "X-Goog-Iap-Generated-Response", "X-Squid-Error", "X-Azure-Ref",
	"X-Ratelimit-Remaining", "X-Ratelimit-Reset", "Allow", "Upgrade", "X-Request-Id"}

func (in *inquiry) exchange(h hop) exchange {
	clean := &in.clean
	e := exchange{Method: printable(h.req.Method, 20), URL: clean.url(h.req.URL), Redirected: h.req.Response != nil, Trial: h.trial, Credentials: clean.name(h.sent, 40), ProxyCredentials: h.proxy}
	if e.ProxyCredentials == "" {
		e.ProxyCredentials = in.inProxyURL(h)
	}
	if _, alone := schemeNamed(h.req.Header.Get("Authorization")); alone {
		e.Credentials = "empty " + e.Credentials
	}
	if h.connect {
		e.URL = clean.host(h.req.Host)
	}
	if in.header.Get("Cookie") == "" && !h.connect {
		e.Cookies = len(h.req.Cookies())
	}
	for name := range in.header {
		if h.req.Header.Get(name) != "" && !harmless[http.CanonicalHeaderKey(name)] && name != "Authorization" {
			e.Own = append(e.Own, printable(name, 60))
		}
	}
	slices.Sort(e.Own)
	if h.resp == nil && in.rejected != nil {
		e.Error = "not sent"
		return e
	}
	if h.resp == nil {
		e.Error = in.errorText(h.err, 300)
		return e
	}
	e.Status = h.resp.StatusCode
	e.Phrase = clean.phrase(h.resp)
	const mostLines = 12
	looked := 0
	for _, name := range matters {
		for i, value := range h.resp.Header.Values(name) {
			if looked += min(len(value), mostField); i == mostLines || looked > mostHeader {
				in.cut = in.cut || looked > mostHeader
				break
			}
			in.cut = in.cut || len(value) > mostField
			switch _, err := http.ParseTime(value); {
			case name == "Location":
				value = printable(in.location(h, value), 400)
			case name != "Date" || err != nil:
				value = printable(clean.value(name, value), 400)
			}
			e.Header = append(e.Header, headerField{name, value})
		}
	}
	for _, name := range []string{"Grpc-Status", "Grpc-Message"} {
		if value := h.resp.Trailer.Get(name); value != "" {
			e.Header = append(e.Header, headerField{name, clean.text(value, 400)})
		}
	}
	return e
}

// mostHeader is how much of a header is looked at, in bytes.
const mostHeader = 64 << 10

// location returns a Location without what may be secret in it.
func (in *inquiry) location(h hop, value string) string {
	u, err := h.req.URL.Parse(value)
	if err != nil {
		return "(unreadable)"
	}
	return in.clean.url(u)
}

// errorText returns what went wrong for printing. What the network, DNS and TLS say is not from the server, but for the
// names in its certificate.
func (in *inquiry) errorText(err error, most int) string {
	text := plainError(err)
	if in.refusesHandshake(err) {
		return "the server broke off, after it had asked for a client certificate"
	}
	var host x509.HostnameError
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &host):
	case errors.As(err, &dns):
		return printable(strings.ReplaceAll(text, dns.Name, in.clean.host(dns.Name)), most) // a redirect may have made up the name
	case isHTTP2(err):
		return printable(in.clean.quotes(text), most) // what the server has sent is in quotes
	case errors.As(err, &op), isTLS(err), isTimeout(err), errors.Is(err, errTooManyRedirects):
		return printable(text, most)
	}
	return in.clean.errorText(text, most)
}

// plainError returns what went wrong without the URL, which may have a key in its query.
func plainError(err error) string {
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = urlErr.Err
	}
	if strings.Contains(err.Error(), "failed to parse Location header") {
		return "the Location header cannot be read" // the error quotes it
	}
	return strings.TrimPrefix(err.Error(), "readLoopPeekFailLocked: ") // of no use to anybody
}

// excerpt returns the beginning of the body of a response that is not a success, if it is text.
func (in *inquiry) excerpt() string {
	if in.resp.StatusCode < 400 && in.disguise == nil {
		return ""
	}
	text := in.clean.redact(in.body) // also what is between tags that are taken off
	if strings.Contains(in.resp.Header.Get("Content-Type"), "html") {
		text = withoutTags(text)
	} else if strings.HasPrefix(text, "<") {
		text = strings.ReplaceAll(text, "><", "> <") // XML, which would not fit into a line
	}
	return in.clean.text(strings.Join(strings.Fields(text), " "), 300)
}

// withoutTags leaves out what is between < and >.
func withoutTags(html string) string {
	var b strings.Builder
	for {
		before, rest, _ := strings.Cut(html, "<")
		b.WriteString(before)
		tag, after, ok := strings.Cut(rest, ">")
		if !ok {
			return b.String()
		}
		b.WriteByte(' ')
		for _, element := range []string{"style", "script"} {
			if strings.HasPrefix(strings.ToLower(tag), element) {
				_, after, _ = strings.Cut(after, "</"+element+">")
			}
		}
		html = after
	}
}
