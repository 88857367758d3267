package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/authretry/authretry"
)

func (in *inquiry) notSent() *cause {
	if !in.is(authretry.ReasonPlaintext) {
		return nil
	}
	if p := in.proxyURL(); p != nil && in.rejected.Origin == p.Scheme+"://"+p.Host {
		return &cause{"proxy-plain-http", certain, "The proxy's URL is plain http, so it was sent no credentials. Everybody on the way could have read them (RFC 7617 §4).",
			"Use a proxy with an https:// URL, or Digest. If the network up to the proxy can be trusted, say so: -allow-plaintext here, ProxyTransport.AllowPlaintext in a program."}
	}
	return &cause{"plain-http", certain, "The URL is plain http, so no credentials were sent. Everybody on the way could have read them (RFC 6750 §5.3, RFC 7617 §4).",
		"Use https. If the network can be trusted, say so: -allow-plaintext here, Transport.AllowPlaintext in a program."}
}

// noAnswer says why there is none.
func (in *inquiry) noAnswer() *cause {
	if in.report.Outcome != outcomeFailed || in.rejected != nil {
		return nil
	}
	host, port := in.clean.host(in.asked().Hostname()), portOf(in.asked())
	var dns *net.DNSError
	var op *net.OpError
	switch err := in.err; {
	case in.resp != nil && in.resp.StatusCode >= 300 && in.resp.StatusCode < 400:
		return &cause{"captive-portal", likely, "The proxy leads to another page: the network may want a login. It answered " + statusText(in.resp.StatusCode) + " to CONNECT, so the server was not asked.",
			"Open any page in a browser on this network, and log in. The Location below is where the proxy leads."}
	case in.resp != nil && in.resp.StatusCode == http.StatusForbidden:
		return &cause{"proxy-forbids", certain, "The proxy forbids the connection, so the server was not asked. It answered 403 to the CONNECT to " + net.JoinHostPort(host, port) + ": one of its rules is about the host, the port, or who asks.",
			"Have whoever runs the proxy allow the host, or set NO_PROXY for it. Credentials for the server do not help."}
	case in.resp != nil && strings.HasPrefix(in.resp.Header.Get("X-Squid-Error"), "ERR_DNS_FAIL"):
		return &cause{"proxy-dns", certain, "The proxy finds no host of that name. The name is " + host + ", and it was the proxy that has looked it up.",
			"Check the spelling. Or set NO_PROXY for the host, if the name is known here and not to the proxy."}
	case in.resp != nil:
		return &cause{"proxy-failed", certain, "The proxy did not connect to the server, which was not asked. It could not or would not connect to " + host + ".",
			"Ask whoever runs the proxy, or set NO_PROXY for the host."}
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return &cause{"http-not-https", certain, "The server speaks plain http on this port.", "Use http://, or the port that has TLS (443 usually)."}
	case in.refusesHandshake(err):
		return nil // clientCertificate knows why
	case tlsProblem(err):
		return in.badCertificate(err)
	case in.proxyIsUnreachable(err):
		return &cause{"proxy-unreachable", certain, "The proxy cannot be reached, so the server was not asked. The proxy is " + in.clean.host(in.proxyURL().Host) + ".",
			"Check the proxy's host and port (-proxy, HTTP_PROXY, HTTPS_PROXY). Or go without one: set NO_PROXY for the host."}
	case (errors.As(err, &dns) || errors.As(err, &op) && op.Op == "dial" && !isTimeout(err)) && len(in.requests()) > 1 && left(in.requests()):
		return &cause{"redirect-unreachable", certain, "A redirect leads to where no server can be reached. It leads to " + net.JoinHostPort(host, port) + ": behind a proxy or a forwarded port, servers often do not know by what name and port they are asked.",
			"Ask where it means to lead, by the host and port that were asked. Usually that is the same URL with a slash at its end; have the server told its own URL."}
	case errors.As(err, &dns):
		return &cause{"dns", certain, "The host's name is not known to the DNS that was asked. The name is " + host + ".", "Check the spelling, and whether it is seen from here (VPN?)."}
	case isTimeout(err) && in.stage == handshaking:
		return &cause{"tls-silent", certain, fmt.Sprintf("The port accepts connections, and says nothing to TLS. It was given %d seconds. Perhaps it speaks plain http, or something else; nothing has been asked yet, and no credentials were sent.", int(handshakeTime.Seconds())),
			"Try http:// with this port, or the port that has TLS (443 usually). If it is that one, whatever is between may hold TLS up: firewalls, VPN, MTU."}
	case isTimeout(err) && in.stage == waiting:
		return &cause{"slow", certain, "The server took the request, and did not answer in time.", "Give it longer with -timeout. If it stays like this, look into the server's log."}
	case isTimeout(err):
		return &cause{"timeout", certain, "There was no answer in time.", "Check host, port, firewalls, and whether a proxy is needed. Or give it longer with -timeout."}
	case errors.Is(err, errTooManyRedirects) && isLoginPath(in.asked().Path):
		return &cause{"redirect-loop-login", certain, "Redirects lead to a login again and again, and the server lets nobody through. The last was to " + in.clean.url(in.asked()) + ".",
			"Ask the API's own URL, with a token that it takes. Some servers redirect only those who do not ask for JSON: try -H 'Accept: application/json'."}
	case errors.Is(err, errTooManyRedirects):
		return &cause{"redirect-loop", certain, "Redirects go on and on. A server often redirects in a circle when it wants a login and does not get its cookie, or when http and https redirect to each other.",
			"See below where the circle is, and ask its last URL directly."}
	case errors.Is(err, errBodyElsewhere):
		return &cause{"redirect-body", certain, "A redirect leads to another origin, and was not followed. The body would have gone there, too, and may have a secret in it.",
			"Ask where it leads directly, if you trust that: see the Location below."}
	case len(in.hops) > 1 && strings.Contains(err.Error(), "unsupported protocol scheme"), len(in.hops) > 0 && in.hops[len(in.hops)-1].err == nil:
		return &cause{"redirect", certain, "A redirect leads to where no http client can go.", "Look at the Location below, and have the server repaired. Or ask the right URL directly."}
	case isHTTP2(err):
		return nil // brokenHTTP2 says so
	case errors.As(err, &op) && op.Op == "dial":
		return &cause{"connection", certain, "Nothing accepts connections at this host and port. They are " + net.JoinHostPort(host, port) + ".", "Check host and port, and whether the server runs."}
	}
	switch text := in.err.Error(); {
	case hasAny(text, "malformed HTTP "):
		return &cause{"no-http", certain, "What answers at this host and port does not speak HTTP/1.1.", "Check host and port. It may be another service, or HTTP/2 without TLS."}
	case hasAny(text, "headers exceeded"):
		return &cause{"long-answer", certain, "The header of the server's answer is longer than clients take. It has more than 10 MB.", "Have the server repaired. What it sends shows with curl -i."}
	case hasAny(text, "malformed MIME header", "bad Content-Length", "invalid Content-Length", "unsupported transfer encoding", "too many transfer encodings"):
		return &cause{"malformed-answer", certain, "The header of the server's answer is malformed, so clients drop it. It has a character that no header may have, or a length that is none (RFC 9110 §5.5, RFC 9112 §6).",
			"Have the server repaired. What it sends shows with curl -i, or openssl s_client."}
	}
	switch bare := in.trials.bare; {
	case in.trials.clearHTTP2:
		return &cause{"http2-without-tls", certain, "The server speaks HTTP/2 without TLS, and nothing else. It was asked so again, without credentials, and answered.",
			"Use https, or a client that speaks HTTP/2 at once. That is curl --http2-prior-knowledge; in a program, it is Base: base := &http.Transport{Protocols: new(http.Protocols)}; base.Protocols.SetUnencryptedHTTP2(true)."}
	case in.gave() && (in.answeredBare() || bare != nil && bare.resp != nil):
		return &cause{"broken-on-credentials", certain, "The connection breaks with credentials, and does not without. Something fails on them: the server, or a firewall on the way.",
			"Look into the server's log. See also whether a shorter token, or one without odd characters, gets through."}
	}
	return &cause{"broken", certain, "The connection broke before there was an answer.", "Try again; if it stays like this, look into the server's log."}
}

// isBroken reports whether a connection was made, and broke before there was an answer, or brought one that is none of HTTP/1.1.
func (in *inquiry) isBroken() bool {
	var op *net.OpError
	err := in.err
	return err != nil && in.rejected == nil && in.resp == nil && len(in.hops) > 0 && in.hops[len(in.hops)-1].err != nil && !isTimeout(err) && !tlsProblem(err) && !isHTTP2(err) && in.certificate == nil &&
		!(errors.As(err, &op) && op.Op != "read" && op.Op != "write") && (errors.As(err, &op) || hasAny(err.Error(), "EOF", "malformed HTTP response", "reset", "broken pipe", "closed"))
}

// answeredBare reports whether the same was answered a moment before, without credentials.
func (in *inquiry) answeredBare() bool {
	n := len(in.hops)
	return n > 1 && in.hops[n-2].resp != nil && in.hops[n-2].sent == "" && !in.hops[n-2].connect && in.hops[n-2].req.URL.String() == in.hops[n-1].req.URL.String()
}

// proxyIsUnreachable reports whether there was no connection to the proxy.
func (in *inquiry) proxyIsUnreachable(err error) bool {
	var op *net.OpError
	return in.proxyURL() != nil && errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect")
}

// overHTTP1 is a transport that speaks HTTP/1.1 only. It is no clone of http.DefaultTransport, which would go on to offer HTTP/2.
const overHTTP1 = "base := &http.Transport{Proxy: http.ProxyFromEnvironment, Protocols: new(http.Protocols)}; base.Protocols.SetHTTP1(true)"

// brokenHTTP2 is for a server whose answer over HTTP/2 is none, such as lighttpd's with two challenges in one field.
func (in *inquiry) brokenHTTP2() *cause {
	if in.trials.brokenHTTP2 == "" && !isHTTP2(in.err) {
		return nil
	}
	was := in.trials.brokenHTTP2
	if was == "" {
		was = in.errorText(in.err, 200)
	}
	overHTTP1Answer := ""
	if in.resp != nil {
		overHTTP1Answer = " Over HTTP/1.1 it answered " + statusText(in.resp.StatusCode) + "."
	}
	if strings.Contains(was, "HTTP_1_1_REQUIRED") {
		return &cause{"http11-required", certain, "The server takes this request over HTTP/1.1 only (RFC 9113 §7). It has broken off HTTP/2 with HTTP_1_1_REQUIRED. Windows servers do so where Negotiate, NTLM or a client certificate authenticates the whole connection, which HTTP/2 shares among requests." + overHTTP1Answer,
			"Use HTTP/1.1. In a program, it is Base, or the client's Transport: " + overHTTP1 + "."}
	}
	text := "The server's answer over HTTP/2 is broken, so clients drop it. It was: " + was + "." + overHTTP1Answer
	if strings.Contains(text, "www-authenticate") {
		text += " lighttpd sends two Digest challenges in one field, with a line break between them, which HTTP/2 forbids (RFC 9113 §8.2.1)."
	}
	return &cause{"http2", certain, text,
		"Use HTTP/1.1. In a program, it is Base, or the client's Transport: " + overHTTP1 + ". In lighttpd, offer one algorithm of Digest, or set server.feature-flags += ( \"server.h2proto\" => \"disable\" )."}
}

// refusesHandshake reports whether err is that the server broke off, after it had asked for a client certificate and got none. In
// TLS 1.3 that comes after the handshake, so it may as well be a connection that was reset.
func (in *inquiry) refusesHandshake(err error) bool {
	n := len(in.hops)
	if err == nil || in.certificate == nil || n == 0 || in.hops[n-1].err == nil {
		return false
	}
	return strings.Contains(err.Error(), "remote error: tls: ") || !isTLS(err) && !isTimeout(err) && !isHTTP2(err) && in.resp == nil
}

// clientCertificate is for a server that has asked for one in the handshake.
func (in *inquiry) clientCertificate() *cause {
	if in.certificate == nil || in.err == nil && !in.refused() || in.rejected != nil && in.resp == nil {
		return nil
	}
	if in.disguise != nil && strings.HasPrefix(in.disguise.Name, "client-certificate") {
		return nil // it is said already
	}
	if in.err != nil && !isTLS(in.err) && !in.refusesHandshake(in.err) {
		return nil // it has failed for another reason
	}
	c := &cause{Name: "client-certificate", Sure: certain, Text: "The server wants a client certificate (mutual TLS). It says nothing without one.",
		Fix: "Get one from whoever runs the server, and try it with curl. The command is: curl --cert FILE --key FILE " + in.clean.url(in.url) +
			" and in a program, it is set as Certificates in the TLSClientConfig of the http.Transport that is Transport.Base."}
	switch {
	case in.err != nil && !in.refusesHandshake(in.err):
		c.Sure, c.Text = likely, "The server asks for a client certificate as well (mutual TLS). That was seen in a handshake without verification, in which nothing was sent; whether it goes on without one is not known."
	case in.err == nil:
		c.Sure, c.Text = possible, "The server asks for a client certificate, and got none. It answers without one, but may answer otherwise to who has one."
	}
	if issuers := in.issuers(); issuers != "" {
		c.Text += " It takes those issued by " + issuers + "."
	}
	return c
}

// issuers names the authorities whose client certificates the server takes, as far as it says so.
func (in *inquiry) issuers() string {
	const most = 3
	var names []string
	for _, der := range in.certificate.AcceptableCAs[:min(most, len(in.certificate.AcceptableCAs))] {
		var name pkix.RDNSequence
		if rest, err := asn1.Unmarshal(der, &name); err == nil && len(rest) == 0 {
			names = append(names, in.clean.text(name.String(), 100))
		}
	}
	if len(in.certificate.AcceptableCAs) > most {
		names = append(names, "others")
	}
	return strings.Join(names, " or ")
}

// badCertificate says what is wrong with the server's certificate, or with TLS at all.
func (in *inquiry) badCertificate(err error) *cause {
	host, port := in.clean.host(in.asked().Hostname()), portOf(in.asked())
	look := "openssl s_client -connect " + net.JoinHostPort(host, port) + " -servername " + host
	nothing := " Nothing has been asked yet, and no credentials were sent."
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return &cause{"tls-expired", certain, "The server's certificate has expired, or is not valid yet." + in.validity(invalid.Cert) + nothing,
			"Have it renewed, or set the clock here right. Look at it with: " + look}
	case errors.As(err, &name):
		return &cause{"tls-name", certain, "The server's certificate is for another host name." + in.names(name.Certificate) + nothing,
			"Use a name that it has, or have one issued for this name. Look at it with: " + look}
	case errors.As(err, &unknown):
		return &cause{"tls-untrusted", certain, "The server's certificate is from no authority that is trusted here. It is self-signed, or of a private authority, or a device in between opens TLS." + nothing,
			"Set SSL_CERT_FILE to the authority's certificate, if you trust it. Look at it with: " + look}
	}
	switch text := err.Error(); {
	case strings.Contains(text, "protocol version not supported") || strings.Contains(text, "unsupported protocol version") || strings.Contains(text, "server selected unsupported protocol version"):
		return &cause{"tls-version", certain, "The server has only versions of TLS that are too old: not 1.2 or 1.3." + nothing,
			"Have TLS 1.2 or later configured. Programs in Go take TLS 1.0 and 1.1 only if MinVersion of tls.Config allows them, and both are broken. Look at it with: " + look}
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		return &cause{"tls-none", certain, "What answers on this port does not speak TLS." + nothing, "Try http:// with this port, or check host and port. Usually, https is on 443; another protocol, such as SSH, may be on this one."}
	}
	return &cause{"tls", certain, "TLS failed, so nothing has been asked yet. No credentials were sent.", "See what the server can do with openssl s_client. The command is: " + look}
}

func (in *inquiry) validity(c *x509.Certificate) string {
	if c == nil {
		return ""
	}
	return " It is valid from " + c.NotBefore.UTC().Format(time.DateOnly) + " to " + c.NotAfter.UTC().Format(time.DateOnly) + "."
}

func (in *inquiry) names(c *x509.Certificate) string {
	if c == nil || len(c.DNSNames) == 0 {
		return ""
	}
	const most = 5
	return " It is for " + in.clean.text(strings.Join(c.DNSNames[:min(most, len(c.DNSNames))], ", "), 300) + "."
}

// statusText returns a status in the way of a status line.
func statusText(status int) string {
	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
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

// tlsProblem reports whether err is about the server's certificate or the handshake.
func tlsProblem(err error) bool {
	return isTLS(err) || strings.Contains(err.Error(), "tls: ") || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// isTLS reports whether err is an error of package tls or x509.
func isTLS(err error) bool {
	var verification *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	var alert tls.AlertError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	return errors.As(err, &verification) || errors.As(err, &header) || errors.As(err, &alert) || errors.As(err, &unknown) || errors.As(err, &host)
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &netErr) && netErr.Timeout()
}
