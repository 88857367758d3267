package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// An asker asks the question.
type asker struct {
	base *http.Transport
	now  func() time.Time
}

// mostBody is how much of the last response's body is looked at.
const mostBody = 16 << 10

// An inquiry is one question and what has been found out about it, for the causes to be found in.
type inquiry struct {
	question
	report   *report
	resp     *http.Response // the last one; nil if there is none
	body     string         // its beginning, as sent
	hops     []hop
	err      error
	schemes  []authretry.Scheme
	proxies  func(*http.Request) (*url.URL, error)
	rejected *authretry.Rejection // why there are no credentials, or why they were refused
	now      time.Time            // when the last response came
}

// A hop is one request on the wire.
type hop struct {
	req  *http.Request
	resp *http.Response // its body is not to be read
	err  error
	sent string // the kind of credentials that it carried

	connect bool   // it is a CONNECT, to a proxy
	proxy   string // the kind of credentials that it carried for a proxy
}

// closed reports whether h is a CONNECT that has opened no tunnel.
func (h hop) closed() bool { return h.connect && h.resp.StatusCode != http.StatusOK }

// asked returns the URL that was asked last.
func (in *inquiry) asked() *url.URL {
	for _, h := range slices.Backward(in.hops) {
		if !h.connect {
			return h.req.URL
		}
	}
	return in.url
}

// ask asks the question and reports.
func (a *asker) ask(ctx context.Context, q question) *report {
	if q.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, q.timeout)
		defer cancel()
	}
	in := &inquiry{question: q, report: &report{URL: q.clean.url(q.url)}}
	recorder := &recorder{}
	recorder.base = in.transport(a.base, recorder)
	client := in.client(recorder)
	defer client.CloseIdleConnections()

	req, err := http.NewRequestWithContext(ctx, q.method, "", q.body())
	if err != nil {
		panic(err) // the method has been checked
	}
	req.URL, req.Header = q.url, q.header.Clone()
	req.Host = req.Header.Get("Host") // the URL's if empty
	in.resp, in.err = client.Do(req)
	in.now = a.now()
	in.hops = recorder.done()
	if in.resp != nil {
		if in.err == nil {
			body, _ := io.ReadAll(io.LimitReader(in.resp.Body, mostBody))
			in.body = string(body)
		}
		in.resp.Body.Close()
	}
	in.fill()
	return in.report
}

// client returns the client that a program would have, over the recorder.
func (in *inquiry) client(recorder http.RoundTripper) *http.Client {
	jar, _ := cookiejar.New(nil)
	if in.token != "" {
		in.schemes = append(in.schemes, &authretry.Bearer{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: in.token})})
	}
	if in.user.given {
		in.schemes = append(in.schemes,
			&authretry.Digest{Username: in.user.name, Password: in.user.password},
			&authretry.Basic{Username: in.user.name, Password: in.user.password, Ahead: in.ahead})
	}
	client := &http.Client{Transport: recorder, Jar: jar, CheckRedirect: in.checkRedirect}
	if in.schemes != nil {
		t := authretry.New(in.schemes...)
		t.Base, t.Jar, t.AllowPlaintext = recorder, jar, in.allowPlaintext
		client.Transport = t
	}
	return client
}

var errTooManyRedirects = errors.New("stopped after 10 redirects")

// checkRedirect keeps what was given with -H from another origin, as authretry does with its credentials: http.Client
// by itself removes Authorization and Cookie there, but no header with an API key.
func (in *inquiry) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errTooManyRedirects
	}
	if left(append(via, req)) {
		for name := range in.header {
			if !harmless[http.CanonicalHeaderKey(name)] {
				req.Header.Del(name)
			}
		}
	}
	return nil
}

// left reports whether redirects have left the origin of the first request. From http to https of the same host
// is not leaving.
func left(hops []*http.Request) bool {
	at := hops[0].URL
	for _, hop := range hops[1:] {
		upgrade := at.Scheme == "http" && hop.URL.Scheme == "https" && portOf(at) == "80" && portOf(hop.URL) == "443" &&
			isSameHost(at, hop.URL)
		if !upgrade && !sameOrigin(at, hop.URL) {
			return true
		}
		at = hop.URL
	}
	return false
}

// transport returns what sends requests by the proxy, if there is one, and has the recorder told of each CONNECT.
func (in *inquiry) transport(base *http.Transport, r *recorder) http.RoundTripper {
	t := base.Clone()
	if in.proxy != nil {
		t.Proxy = http.ProxyURL(in.proxy)
	}
	t.OnProxyConnectResponse = r.connected
	in.proxies = t.Proxy
	if !in.proxyUser.given {
		return t
	}
	p := authretry.NewProxyTransport(t,
		&authretry.Digest{Username: in.proxyUser.name, Password: in.proxyUser.password},
		&authretry.Basic{Username: in.proxyUser.name, Password: in.proxyUser.password})
	p.AllowPlaintext = in.allowPlaintext
	p.OnEvent = r.event
	return p
}

// A recorder notes what goes over the wire below the Transport.
type recorder struct {
	base http.RoundTripper

	mu    sync.Mutex // guards what follows
	hops  []hop
	proxy string // the kind of credentials that the next request, or CONNECT, has for the proxy
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.base.RoundTrip(req)
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.hops); err != nil && n > 0 && r.hops[n-1].closed() {
		return resp, err // there was no tunnel to send it through
	}
	r.add(hop{req: req, resp: resp, err: err, sent: kindOf(req.Header.Get("Authorization"))})
	return resp, err
}

// connected is an http.Transport's OnProxyConnectResponse.
func (r *recorder) connected(_ context.Context, _ *url.URL, req *http.Request, resp *http.Response) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(hop{req: req, resp: resp, connect: true})
	return nil // http.Transport fails by itself if there is no tunnel
}

// add notes a hop. The recorder is locked.
func (r *recorder) add(h hop) {
	h.proxy, r.proxy = r.proxy, ""
	r.hops = append(r.hops, h)
}

// event is a ProxyTransport's OnEvent.
func (r *recorder) event(_ context.Context, e authretry.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Kind == authretry.EventAuthorized {
		r.proxy = e.Scheme
	}
}

func (r *recorder) CloseIdleConnections() {
	if c, ok := r.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (r *recorder) done() []hop {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.hops)
}

// unreadable is what kindOf returns for what has no scheme.
const unreadable = "unreadable"

// kindOf returns the scheme of an Authorization header, if it looks like one.
func kindOf(authorization string) string {
	scheme, _, ok := strings.Cut(authorization, " ")
	switch {
	case authorization == "":
		return ""
	case !ok || len(scheme) > 30:
		return unreadable
	}
	return scheme
}

// fill makes the report of what was recorded.
func (in *inquiry) fill() {
	r, clean := in.report, &in.clean
	in.settle()
	for _, h := range in.hops {
		r.Exchanges = append(r.Exchanges, in.exchange(h))
	}
	r.Exchanges = orEmpty(r.Exchanges)
	if resp := in.resp; resp != nil {
		r.Status = resp.StatusCode
		r.Body = in.excerpt()
	}
	if n := len(in.hops); n > 0 && in.hops[n-1].resp != nil {
		resp := in.hops[n-1].resp // also if it was not passed on, because credentials must not be sent
		r.Challenges, r.Damage = clean.challenges(resp.Header.Values(challengeHeader(resp)), resp.StatusCode == http.StatusProxyAuthRequired)
	}
	r.Challenges, r.Damage = orEmpty(r.Challenges), orEmpty(r.Damage)
	if in.rejected != nil {
		r.Reason, r.Explanation = in.rejected.Reason.String(), clean.text(in.rejected.Error(), 1000)
	}
	r.Causes, r.Notes = orEmpty(in.causes()), orEmpty(in.notes())
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
			r.Error = clean.text(plainError(in.err), 500)
		}
		r.Summary = fmt.Sprintf("%s gave no answer.", r.URL)
		switch {
		case in.resp != nil && in.resp.StatusCode == http.StatusProxyAuthRequired:
			r.Outcome = outcomeRefused
			r.Summary = fmt.Sprintf("The proxy refused to connect to %s: 407 Proxy Authentication Required.", clean.text(in.url.Host, 100))
		case in.resp != nil:
			r.Summary = fmt.Sprintf("The proxy answered CONNECT to %s with %d.", clean.text(in.url.Host, 100), in.resp.StatusCode)
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
		}
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

// matters are the response headers that help to understand a refusal.
var matters = []string{"WWW-Authenticate", "Proxy-Authenticate", "Authentication-Info", "Location", "Date", "Server", "Via",
	"Retry-After", "Content-Type", "DPoP-Nonce", "X-Request-Id"}

func (in *inquiry) exchange(h hop) exchange {
	clean := &in.clean
	e := exchange{Method: clean.text(h.req.Method, 20), URL: clean.url(h.req.URL), Redirected: h.req.Response != nil, Credentials: clean.text(h.sent, 40), ProxyCredentials: h.proxy}
	if h.connect {
		e.URL = clean.text(h.req.Host, 100)
	}
	for name := range in.header {
		if h.req.Header.Get(name) != "" && !harmless[http.CanonicalHeaderKey(name)] && name != "Authorization" {
			e.Own = append(e.Own, clean.text(name, 60))
		}
	}
	slices.Sort(e.Own)
	if h.resp == nil && in.rejected != nil {
		e.Error = "not sent"
		return e
	}
	if h.resp == nil {
		e.Error = clean.text(plainError(h.err), 300)
		return e
	}
	e.Status = h.resp.StatusCode
	_, phrase, _ := strings.Cut(h.resp.Status, " ")
	e.Phrase = clean.text(phrase, 60)
	const mostLines = 12
	for _, name := range matters {
		for i, value := range h.resp.Header.Values(name) {
			if i == mostLines {
				break
			}
			if name == "Location" {
				value = in.location(h, value)
			}
			e.Header = append(e.Header, headerField{name, clean.text(value, 400)})
		}
	}
	return e
}

// location returns a Location without what may be secret in it.
func (in *inquiry) location(h hop, value string) string {
	u, err := h.req.URL.Parse(value)
	if err != nil {
		return "(unreadable)"
	}
	return in.clean.url(u)
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
	return err.Error()
}

// excerpt returns the beginning of the body of a response that is not a success, if it is text.
func (in *inquiry) excerpt() string {
	if in.resp.StatusCode < 400 {
		return ""
	}
	text := in.body
	if strings.Contains(in.resp.Header.Get("Content-Type"), "html") {
		text = withoutTags(text)
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

// tlsProblem reports whether err is about the server's certificate or the handshake.
func tlsProblem(err error) bool {
	var verification *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	var alert tls.AlertError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	return errors.As(err, &verification) || errors.As(err, &header) || errors.As(err, &alert) || errors.As(err, &unknown) || errors.As(err, &host) ||
		strings.Contains(err.Error(), "tls: ") || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &netErr) && netErr.Timeout()
}
