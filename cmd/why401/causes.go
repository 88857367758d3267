package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/authretry/authretry"
)

// mostSkew is how far clocks may differ before tokens and signatures are likely to suffer from it.
const mostSkew = time.Minute

// causes finds what is likely to be wrong, the likeliest first: what is certain, then what the server says, then what
// usually is the matter.
func (in *inquiry) causes() []cause {
	return in.find(
		in.notSent, in.noAnswer, in.proxyRefused,
		in.ownAuthorization, in.redirected,
		in.tokenTimes, in.insufficientScope, in.staleForEver, in.serverSays,
		in.forbidden, in.noneGiven, in.wrongScheme, in.malformed,
		in.shouldBe403, in.skewed, in.wrongPassword, in.wrongToken, in.noChallenge, in.tooMany,
	)
}

func (in *inquiry) find(finders ...func() *cause) []cause {
	var list []cause
	for _, find := range finders {
		if c := find(); c != nil {
			c.Text, c.Fix = in.clean.text(c.Text, 1200), in.clean.text(c.Fix, 1200)
			list = append(list, *c)
		}
	}
	return list
}

func (in *inquiry) refused() bool { return in.resp != nil && isRefusal(in.resp.StatusCode) }

func isRefusal(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusProxyAuthRequired
}

func (in *inquiry) is(reasons ...authretry.Reason) bool {
	for _, r := range reasons {
		if in.rejected != nil && in.rejected.Reason == r {
			return true
		}
	}
	return false
}

// has returns the first challenge of the scheme.
func (in *inquiry) has(scheme string) *authretry.Challenge {
	for i := range in.report.Challenges {
		if c := &in.report.Challenges[i]; strings.EqualFold(c.Scheme, scheme) {
			return &c.raw
		}
	}
	return nil
}

// param returns the first parameter of the name in any challenge.
func (in *inquiry) param(name string) string {
	for i := range in.report.Challenges {
		if v := in.report.Challenges[i].raw.Params.Get(name); v != "" {
			return v
		}
	}
	return ""
}

// last returns the credentials that the last request carried.
func (in *inquiry) last() string {
	if len(in.hops) == 0 {
		return ""
	}
	return in.hops[len(in.hops)-1].sent
}

func (in *inquiry) asks() string {
	var names []string
	for _, c := range in.report.Challenges {
		names = append(names, c.Scheme)
	}
	return strings.Join(names, " or ")
}

func (in *inquiry) notSent() *cause {
	if !in.is(authretry.ReasonPlaintext) {
		return nil
	}
	if p := in.proxyURL(); p != nil && in.rejected.Origin == p.Scheme+"://"+p.Host {
		return &cause{"proxy-plain-http", "The credentials were not sent to the proxy: its URL is plain http, and everybody on the way could have read them (RFC 7617 §4).",
			"Use a proxy with an https:// URL, or Digest. If the network up to the proxy can be trusted, say so: -allow-plaintext here, ProxyTransport.AllowPlaintext in a program."}
	}
	return &cause{"plain-http", "The credentials were not sent: the URL is plain http, and everybody on the way could have read them (RFC 6750 §5.3, RFC 7617 §4).",
		"Use https. If the network can be trusted, say so: -allow-plaintext here, Transport.AllowPlaintext in a program."}
}

func (in *inquiry) noAnswer() *cause {
	if in.report.Outcome != outcomeFailed || in.rejected != nil {
		return nil
	}
	host, port := in.asked().Hostname(), portOf(in.asked())
	var dns *net.DNSError
	var op *net.OpError
	switch err := in.err; {
	case in.resp != nil:
		return &cause{"proxy-failed", "The proxy could not or would not connect to " + host + ". The server itself was not asked.",
			"Ask whoever runs the proxy, or go without one: set NO_PROXY for the host."}
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return &cause{"http-not-https", "The server speaks plain http on this port.", "Use http://, or the port that has TLS (443 usually)."}
	case strings.Contains(err.Error(), "certificate required"):
		return &cause{"client-certificate", "The server wants a client certificate (mutual TLS) before it says anything.",
			"Get one from whoever runs the server, and try: curl --cert FILE --key FILE " + in.clean.url(in.url) + ". In a program, set Certificates in the TLSClientConfig of the http.Transport that is Transport.Base."}
	case tlsProblem(err):
		return &cause{"tls", "TLS failed, so nothing has been asked yet and no credentials were sent. Usually the certificate is self-signed, of a private authority, expired, or for another host name; or a device in between opens TLS.",
			"Look at it with: openssl s_client -connect " + net.JoinHostPort(host, port) + " -servername " + host + ". For a private authority set SSL_CERT_FILE to its certificate."}
	case errors.As(err, &dns):
		return &cause{"dns", "The name " + host + " is not known to the DNS that was asked.", "Check the spelling, and whether the name is to be seen from this network (VPN?)."}
	case isTimeout(err):
		return &cause{"timeout", "There was no answer in time.", "Check host and port, firewalls, and whether a proxy is needed; or give it longer with -timeout."}
	case errors.Is(err, errTooManyRedirects):
		return &cause{"redirect-loop", "Redirects go on and on. A server often redirects in a circle when it wants a login and does not get its cookie, or when http and https redirect to each other.",
			"See the exchange above for where the circle is, and ask its last URL directly."}
	case len(in.hops) > 1 && strings.Contains(err.Error(), "unsupported protocol scheme"), len(in.hops) > 0 && in.hops[len(in.hops)-1].err == nil:
		return &cause{"redirect", "A redirect leads to where no http client can go.", "Look at the Location above, and have the server repaired; or ask the right URL directly."}
	case errors.As(err, &op) && op.Op == "dial":
		return &cause{"connection", "Nothing accepts connections at " + net.JoinHostPort(host, port) + ".", "Check host and port, and whether the server runs."}
	}
	return &cause{"broken", "The connection broke before there was an answer.", "Try again; if it stays like this, look into the server's log."}
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "http":
		return "80"
	}
	return "443"
}

func (in *inquiry) proxyRefused() *cause {
	if !in.refused() || in.resp.StatusCode != http.StatusProxyAuthRequired || in.is(authretry.ReasonPlaintext) {
		return nil
	}
	if in.proxyURL() == nil {
		return &cause{"proxy", "The status is 407, which only a proxy may send, and no proxy is configured. Either there is one in between that does not show itself, or the server says 407 where it means 401.",
			"Ask whoever runs the server or the network."}
	}
	if in.proxyUser.given {
		return &cause{"proxy-password", "The proxy does not accept the credentials. " + in.rejectedByProxy(),
			"Type the password of -proxy-user anew. It is the user of the proxy, who need not be known to the server, and the other way round."}
	}
	return &cause{"proxy", "It is the proxy that refuses, not the server: it wants credentials of its own (RFC 9110 §15.5.8). Those of the server do not help.",
		"Give it some with -proxy-user. In a program, use authretry.NewProxyTransport; Basic goes to a proxy with an http:// URL only if its AllowPlaintext is set."}
}

// proxyURL returns the proxy for the URL that was asked last, or nil.
func (in *inquiry) proxyURL() *url.URL {
	if in.proxies == nil {
		return nil
	}
	proxy, err := in.proxies(&http.Request{URL: in.asked()})
	if err != nil {
		return nil
	}
	return proxy
}

func (in *inquiry) rejectedByProxy() string {
	for i := range in.report.Challenges {
		if s := in.report.Challenges[i].Scheme; strings.EqualFold(s, "Basic") || strings.EqualFold(s, "Digest") {
			return "User name or password is wrong, or the user may not use it."
		}
	}
	return "It asks for another kind of them: " + in.asks() + "."
}

func (in *inquiry) ownAuthorization() *cause {
	word := strings.Contains(in.header.Get("Authorization"), " ")
	if !in.refused() || in.last() == "" || in.header.Get("Authorization") == "" || word && in.schemes == nil {
		return nil
	}
	text := "The Authorization header given with -H went out as it is, and was refused."
	if in.schemes != nil {
		text += " Because of it, the user name, password or token that were given as well were not used."
	}
	if !word {
		text += " It has no scheme: there must be a word such as Basic or Bearer before the credentials (RFC 9110 §11.4)."
	}
	return &cause{"own-authorization", text, "Leave the header out, and use -u or -token-env instead; in a program, leave it to the Transport."}
}

func (in *inquiry) redirected() *cause {
	var hops []*http.Request
	for _, h := range in.hops {
		if !h.connect {
			hops = append(hops, h.req)
		}
	}
	if !in.refused() || in.schemes == nil && !in.ownKey() || in.last() != "" || len(hops) < 2 || !left(hops) {
		return nil
	}
	what := "credentials were not sent there"
	if in.schemes == nil {
		what = "what was given with -H was not sent there"
	}
	return &cause{"redirected", fmt.Sprintf("A redirect has led from %s to %s, another origin, and %s: otherwise any server could collect credentials by redirecting.", in.clean.url(originURL(in.url)), in.clean.url(originURL(in.asked())), what),
		"If you trust where it leads, ask that URL directly: " + in.clean.url(in.asked())}
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && isSameHost(a, b) && portOf(a) == portOf(b)
}

// isSameHost compares hosts as authretry does: byte by byte, but for the case of ASCII letters.
func isSameHost(a, b *url.URL) bool { return lowerASCII(a.Hostname()) == lowerASCII(b.Hostname()) }

func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func originURL(u *url.URL) *url.URL { return &url.URL{Scheme: u.Scheme, Host: u.Host} }

// claims are those of a JWT that help here (RFC 7519 §4.1).
type claims struct {
	Expires   *float64 `json:"exp"`
	NotBefore *float64 `json:"nbf"`
	Issuer    any      `json:"iss"`
	Audience  any      `json:"aud"`   // a string or a list of them
	Scope     any      `json:"scope"` // a string, with spaces (RFC 8693 §4.2)
	Scp       any      `json:"scp"`   // the same, of Microsoft and Okta
}

// about returns what the token says of whom it is from and what for, such as `iss "https://…", aud "cave"`.
func (c *claims) about() string {
	var list []string
	for _, claim := range []struct {
		name  string
		value any
	}{{"iss", c.Issuer}, {"aud", c.Audience}, {"scope", c.Scope}, {"scp", c.Scp}} {
		if text, err := json.Marshal(claim.value); err == nil && claim.value != nil {
			list = append(list, claim.name+" "+string(text))
		}
	}
	return strings.Join(list, ", ")
}

// claimsOf reads a JWT's claims, without verifying anything: they are believed no further than for advice.
func claimsOf(token string) *claims {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return nil
	}
	var c claims
	if json.Unmarshal(data, &c) != nil {
		return nil
	}
	return &c
}

// sentToken returns the Bearer token, be it from a flag or in a header given with -H.
func (in *inquiry) sentToken() string {
	if scheme, token, ok := strings.Cut(in.header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return in.token
}

func (in *inquiry) tokenTimes() *cause {
	c := claimsOf(in.sentToken())
	if !in.refused() || c == nil {
		return nil
	}
	now := in.now
	if date, ok := in.date(); ok {
		now = date // the server's clock decides
	}
	at := func(seconds float64) time.Time { return time.Unix(int64(seconds), 0).UTC() }
	switch {
	case c.Expires != nil && at(*c.Expires).Before(now):
		t := at(*c.Expires)
		return &cause{"token-expired", fmt.Sprintf("The token has expired: it is a JWT, and its exp says %s, which is %s ago by the server's clock.", t.Format(time.DateTime+" MST"), about(now.Sub(t))),
			"Get a new token. In a program, give authretry.Bearer a TokenSource with a RefreshGrant or ClientCredentialsGrant: it refreshes in time."}
	case c.NotBefore != nil && at(*c.NotBefore).After(now):
		t := at(*c.NotBefore)
		return &cause{"token-not-yet-valid", fmt.Sprintf("The token is not valid yet: it is a JWT, and its nbf says %s, which is %s from now by the server's clock.", t.Format(time.DateTime+" MST"), about(t.Sub(now))),
			"Wait, or correct the clock of whoever issued it."}
	}
	return nil
}

// about returns a duration as a person would say it.
func about(d time.Duration) string {
	number := func(n int, unit string) string {
		if n == 1 {
			return "1 " + unit
		}
		return fmt.Sprintf("%d %ss", n, unit)
	}
	switch {
	case d < 2*time.Minute:
		return number(int(d.Seconds()), "second")
	case d < 2*time.Hour:
		return number(int(d.Minutes()), "minute")
	case d < 48*time.Hour:
		return number(int(d.Hours()), "hour")
	}
	return number(int(d.Hours()/24), "day")
}
