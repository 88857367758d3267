package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/authretry/authretry"
)

// trials is what came of asking again in another manner, where the first answer alone does not say what is the matter. A
// trial is made once, and only of a method that changes nothing.
type trials struct {
	hops          []hop    // of those that are no part of the main exchange
	brokenHTTP2   string   // what was wrong over HTTP/2, before HTTP/1.1 was tried
	latin1        bool     // the server has let in who was refused, with user name and password in ISO 8859-1
	withoutCookie *attempt // what the server has answered to a client without cookies; nil: that was not tried, or no different
	agent         bool     // the server does not refuse the User-Agent of another program
	clearHTTP2    bool     // the server answers over HTTP/2 without TLS, and over HTTP/1.1 not
	metadata      error    // why nobody can log in as the challenge says
	tokenService  *attempt // what a registry's token service has answered; nil: that was not tried
	sentPassword  bool     // it was sent the user name and the password
	registry      *attempt // what the registry has answered to the token that it has made; nil: that was not tried
	repeats       repeats
	spelling      string   // the scheme's name as the server wants it, with which it has let in; empty: that was not tried, or is no different
	bare          *attempt // what the server has answered without credentials, with which it has failed; nil: that was not tried
}

// isSafe reports whether the question may be asked again.
func (in *inquiry) isSafe() bool { return isSafe(in.method) }

// isSafe reports whether a method changes nothing (RFC 9110 §9.2.1).
func isSafe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// overHTTP1 asks by HTTP/1.1 where the answer over HTTP/2 is none.
func (in *inquiry) overHTTP1(ctx context.Context) {
	if !in.isSafe() || !isHTTP2(in.err) {
		return
	}
	broken := in.attempt
	in.trials.brokenHTTP2 = in.errorText(broken.err, 200)
	in.attempt = in.send(ctx, manner{trial: "over HTTP/1.1", http1: true})
	in.hops = append(broken.hops, in.hops...)
}

// withNonce asks again where a server has told its nonce only once it was sent a proof (RFC 9449 §9), after which a Transport has
// sent as much as it sends for one call. The token is that of the login.
func (in *inquiry) withNonce(ctx context.Context) {
	if !in.trial.isBound() || !in.is401() || in.resp.Header.Get("DPoP-Nonce") == "" {
		return
	}
	challenges, _ := authretry.ParseChallenges(in.resp.Header.Values("WWW-Authenticate"))
	if !slices.ContainsFunc(challenges, func(c authretry.Challenge) bool { return c.Params.Get("error") == "use_dpop_nonce" }) {
		return
	}
	before := in.attempt
	in.attempt = in.send(ctx, manner{})
	in.hops = append(before.hops, in.hops...)
}

// isHTTP2 reports whether err is about HTTP/2 itself. Its errors have no exported types.
func isHTTP2(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "stream error: stream ID") || strings.Contains(err.Error(), "http2: ")) && !isTimeout(err)
}

// tryAgain asks again where that tells the cause.
func (in *inquiry) tryAgain(ctx context.Context) {
	switch {
	case in.trials.repeats.differs: // which tells enough
	case in.err != nil && isTLS(in.err) && in.certificate == nil:
		in.certificate = in.handshake(ctx)
	case !in.isSafe():
	case in.isBroken() && in.gave() && !in.answeredBare():
		again := in.sendAgain(ctx, manner{trial: "without credentials", bare: true})
		in.trials.bare = &again
	case in.isBroken() && !in.gave() && in.asked().Scheme == "http" && in.proxyURL() == nil:
		again := in.send(ctx, manner{trial: "over HTTP/2 without TLS", clear2: true, bare: true})
		if again.resp != nil {
			in.addTrial(again)
			in.trials.clearHTTP2 = true
		}
	case in.mayRefuseAgent():
		schemes := in.schemes
		again := in.send(ctx, manner{trial: "as curl", agent: true})
		in.schemes = schemes
		if again.resp != nil && again.resp.StatusCode != http.StatusForbidden && again.resp.StatusCode < 500 {
			in.addTrial(again)
			in.trials.agent = true
		}
	case in.refused() && in.needsLatin1():
		in.clean.hideUser(inLatin1(in.user.name), inLatin1(in.user.password))
		again := in.send(ctx, manner{trial: "with user name and password in Latin-1", latin1: true})
		in.addTrial(again)
		in.trials.latin1 = again.resp != nil && again.resp.StatusCode < 300
	case in.is401() && in.otherSpelling() != "" && !left(in.requests()):
		spelling, credentials := in.otherSpelling(), in.hops[len(in.hops)-1].req.Header.Get("Authorization")[len(in.last()):]
		if again := in.sendAgain(ctx, manner{trial: "with " + printable(spelling, 20) + " written so", header: spelling + credentials}); again.resp != nil && again.resp.StatusCode < 400 {
			in.trials.spelling = printable(spelling, 20)
		}
	case in.failed() && in.gave():
		again := in.sendAgain(ctx, manner{trial: "without credentials", bare: true})
		in.trials.bare = &again
	case in.report.Outcome == outcomePassed && in.resp.StatusCode < 300 && in.sentCookie():
		again := in.send(ctx, manner{trial: "without cookies", noCookies: true})
		in.addTrial(again)
		if again.isRefused() {
			in.trials.withoutCookie = &again
		}
	case in.is401() && in.param("resource_metadata") != "":
		in.lookForMetadata(ctx)
	case in.is401() && in.has("Bearer") != nil && isRegistry(*in.has("Bearer")):
		in.askTokenService(ctx)
	}
}

// isRefused reports whether an attempt has been refused, rather than failed for reasons of its own.
func (a *attempt) isRefused() bool {
	if a.err != nil {
		return errors.Is(a.err, errTooManyRedirects)
	}
	status := a.resp.StatusCode
	return status >= 400 && status < 500 && status != http.StatusTooManyRequests || isLoginPage(a.resp, strings.ToLower(a.body))
}

// mayRefuseAgent reports whether a 403 may be for the User-Agent, and a request with another one does no harm: a password is not sent again.
func (in *inquiry) mayRefuseAgent() bool {
	return in.resp != nil && in.resp.StatusCode == http.StatusForbidden && len(in.report.Challenges) == 0 && in.header.Get("User-Agent") == "" && !sentPassword(in) &&
		(in.sign() == nil || in.sign().Name == "web-server") && in.trial == nil && in.shortMessage() == "" && !left(in.requests())
}

func (in *inquiry) addTrial(a attempt) {
	for _, h := range a.hops {
		in.clean.hideExchange(h)
	}
	in.trials.hops = append(in.trials.hops, a.hops...)
}

// handshake looks whether the server wants a client certificate, though its own is not trusted, so that nothing is asked. It
// sends nothing but the handshake, and returns what the server said when it asked for one, or nil.
func (in *inquiry) handshake(ctx context.Context) *tls.CertificateRequestInfo {
	at := in.asked()
	if in.proxyURL() != nil || at.Scheme != "https" {
		return nil
	}
	conn, err := in.asker.dial(ctx, net.JoinHostPort(at.Hostname(), portOf(at)))
	if err != nil {
		return nil
	}
	defer conn.Close()
	r := &recorder{}
	// The server's certificate is not verified because nothing is sent to it, and nothing that it sends is believed.
	config := &tls.Config{ServerName: at.Hostname(), InsecureSkipVerify: true, GetClientCertificate: r.asksForCertificate}
	_ = tls.Client(conn, config).HandshakeContext(ctx) // whether it ends well is up to the certificate that we do not have
	_, certificate := r.done()
	return certificate
}

// needsLatin1 reports whether user name and password are other bytes in ISO 8859-1 than in UTF-8, and the server may want those.
func (in *inquiry) needsLatin1() bool {
	name, password := in.user.name, in.user.password
	last := strings.ToLower(in.last())
	return in.user.given && (last == "basic" || last == "digest") && !isASCII(name+password) && inLatin1(name+password) != "" &&
		!strings.EqualFold(in.param("charset"), "UTF-8")
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

// inLatin1 returns a text in ISO 8859-1; empty if it has a character that there is not.
func inLatin1(s string) string {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xff {
			return ""
		}
		b = append(b, byte(r))
	}
	return string(b)
}

// sentCookie reports whether a request had cookies that the server has set a moment before.
func (in *inquiry) sentCookie() bool {
	return in.header.Get("Cookie") == "" && slices.ContainsFunc(in.hops, func(h hop) bool { return !h.connect && h.req.Header.Get("Cookie") != "" })
}
