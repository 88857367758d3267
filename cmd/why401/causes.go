package main

import (
	"slices"
	"strings"

	"net/http"

	"github.com/authretry/authretry"
)

// causes finds what is likely to be wrong, the likeliest first. Those that are as sure as each other come in the order of the
// finders: what is known of the exchange, then what the server says, then what usually is the matter.
func (in *inquiry) causes() []cause {
	list := in.find(
		in.unlike, in.brokenToken, in.mistyped, in.mistypedPassword, in.clocks, in.spelling, in.wrongJWT, in.misnamed,
		in.notSent, in.noLogin, in.unlessMistyped(in.unsendable), in.noAnswer, in.brokenHTTP2, in.clientCertificate, in.proxyRefused, in.proxyUnanswered,
		in.unlessMistyped(in.ownAuthorization), in.redirected,
		in.tokenTimes, in.proof, in.boundToken, in.unlessMistyped(in.wrongKind), in.insufficientScope, in.staleForEver, in.latin1, in.cookie, in.preflight, in.brokenDigest, in.misspelt, in.malformed, in.signs, in.invalidKey, in.disguised, in.oauthErrorIn401, in.serverSays,
		in.githubPermission, in.tooMany, in.underscored, in.forbidden, in.tokenService, in.noneGiven, in.noMetadata, in.unlessMistyped(in.wrongScheme),
		in.shouldBe403, in.notASCII, in.headerLost, in.keyLost, in.wantsOtherKind, in.unlessClocks(in.skewed), in.severalServers, in.unlessMistyped(in.wrongPassword), in.wrongToken, in.refusedKey, in.refusedOther, in.noChallenge, in.hidden, in.hiddenByScope, in.hiddenFromUser, in.serverError, in.methodChanged, in.otherStatus, in.tidied,
	)
	slices.SortStableFunc(list, func(a, b cause) int { return sureness(b) - sureness(a) })
	for i := range list {
		in.sayHowLong(&list[i])
	}
	if len(list) > 0 {
		in.quoteMessage(&list[0])
	}
	return list
}

func sureness(c cause) int { return slices.Index([]string{possible, likely, certain}, c.Sure) }

func (in *inquiry) find(finders ...func() *cause) []cause {
	var list []cause
	for _, find := range finders {
		if c := find(); c != nil {
			list = append(list, *c)
		}
	}
	return list
}

// refused reports whether the response is a refusal, be it one that does not look like one.
func (in *inquiry) refused() bool {
	return in.resp != nil && (isRefusal(in.resp.StatusCode) || in.disguise != nil)
}

// is401 reports whether the response is a 401.
func (in *inquiry) is401() bool {
	return in.resp != nil && in.resp.StatusCode == http.StatusUnauthorized
}

func isRefusal(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusProxyAuthRequired
}

func (in *inquiry) is(reasons ...authretry.Reason) bool {
	return in.rejected != nil && slices.Contains(reasons, in.rejected.Reason)
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

// sentOther reports whether the last request had credentials of a scheme that the server does not ask for. One whose metadata asks
// for tokens that are bound to a key may challenge with Bearer.
func (in *inquiry) sentOther() bool {
	last := in.last()
	if in.trial.isBound() && strings.EqualFold(last, "DPoP") && in.has("Bearer") != nil {
		return false
	}
	if strings.EqualFold(last, "Bearer") && (in.has("OAuth2") != nil || in.has("OAuth") != nil) { // which some call it
		return false
	}
	return last != "" && last != unreadable && len(in.report.Challenges) > 0 && in.has(last) == nil
}

// gave reports whether the last request carried anything that may be a credential.
func (in *inquiry) gave() bool { return in.last() != "" || in.gaveKey() }

// gaveKey reports whether the last request carried a header given with -H that may be a credential.
func (in *inquiry) gaveKey() bool {
	if len(in.hops) == 0 {
		return false
	}
	for name := range in.header {
		if name != "Authorization" && !harmless[name] && in.hops[len(in.hops)-1].req.Header.Get(name) != "" {
			return true
		}
	}
	return false
}

// ownKey reports whether a header given with -H may be an API key.
func (in *inquiry) ownKey() bool {
	for name := range in.header {
		if !harmless[http.CanonicalHeaderKey(name)] {
			return true
		}
	}
	return false
}

func (in *inquiry) asks() string {
	var names []string
	for _, c := range in.report.Challenges {
		names = append(names, c.Scheme)
	}
	return strings.Join(slices.Compact(names), " or ")
}

// says reports whether the response's text has any of the words, which are in lower case.
func (in *inquiry) says(words ...string) bool { return hasAny(in.words, words...) }

func hasAny(s string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(s, w) })
}

func (in *inquiry) ownAuthorization() *cause {
	word := strings.Contains(in.header.Get("Authorization"), " ")
	if !in.refused() || in.last() == "" || in.header.Get("Authorization") == "" || word && in.schemes == nil {
		return nil
	}
	sure, text := likely, "The Authorization header given with -H was refused. It went out as it is."
	if !word {
		sure, text = certain, "The Authorization header given with -H has no scheme. There must be a word such as Basic or Bearer before the credentials (RFC 9110 §11.4)."
	}
	if in.schemes != nil {
		text += " Because of it, the user name, password or token that were given as well were not used."
	}
	return &cause{"own-authorization", sure, text, "Leave the header out, and use -u or -token-env instead. In a program, leave it to the Transport."}
}

// requests returns what was sent, but for CONNECTs.
func (in *inquiry) requests() (list []*http.Request) {
	for _, h := range in.hops {
		if !h.connect {
			list = append(list, h.req)
		}
	}
	return list
}

func (in *inquiry) redirected() *cause {
	hops := in.requests()
	if !in.refused() || in.schemes == nil && !in.ownKey() || in.last() != "" || len(hops) < 2 || !left(hops) {
		return nil
	}
	what := "credentials were not sent there"
	if in.schemes == nil {
		what = "what was given with -H was not sent there"
	}
	return in.redirectedFrom(hops, what)
}

// redirectedFrom says where a redirect led, to which what was given was not sent.
func (in *inquiry) redirectedFrom(hops []*http.Request, what string) *cause {
	if in.disguise != nil && (in.disguise.Name == "captive-portal" || in.disguise.Name == "cloudflare-access") {
		return nil // it has been said
	}
	at := in.asked()
	isPage := isLoginPage(in.resp, strings.ToLower(in.body))
	switch {
	case isPage || isLoginPath(at.Path) || strings.Contains(at.RawQuery, "SAMLRequest="):
		sure := likely
		if isPage {
			sure = certain
		}
		return &cause{"redirected-to-login", sure, "The server has sent it on to a login page at another origin. So it did not accept what it was given, or looks only at its own session. The page is " + in.clean.url(at) + ", and " + what + ".",
			"Get a token that the first server takes; do not send it to the page. Behind Cloudflare Access, that is a service token in the headers CF-Access-Client-Id and CF-Access-Client-Secret."}
	case at.Scheme == "http" && in.url.Scheme == "https":
		return &cause{"redirected-to-http", certain, "A redirect led from https to http, so no credentials went there. It led from " + in.clean.url(originURL(in.url)) + " to " + in.clean.url(at) + ", where everybody on the way could read them.",
			"Ask the https URL of the place that it led to. Have the redirect repaired: behind a proxy that ends TLS, the server must be told that it is asked by https."}
	}
	return &cause{"redirected", certain, "A redirect led to another origin, so no credentials went there. It led from " + in.clean.url(originURL(in.url)) + " to " + in.clean.url(originURL(in.asked())) +
		", and " + what + ": otherwise any server could collect credentials by redirecting.",
		"Ask where it leads directly, if you trust that. The URL is " + in.clean.url(in.asked())}
}

// cookie is for who passes with a cookie, and would not without.
func (in *inquiry) cookie() *cause {
	if in.trials.withoutCookie == nil {
		return nil
	}
	text := "It passes only with a cookie that the server sets first. Asked again without cookies, "
	switch again := in.trials.withoutCookie; {
	case again.err != nil:
		text += "there was no answer: " + in.errorText(again.err, 200) + "."
	case again.resp.StatusCode < 400:
		text += "it answered with a login page."
	default:
		text += "it answered " + strings.TrimSpace(statusText(again.resp.StatusCode)) + "."
	}
	return &cause{"cookie", certain, text + " This program keeps cookies; an http.Client does not by itself.",
		"Give your http.Client a Jar, from package net/http/cookiejar. Where the cookie comes with a 401, give the same one to Transport.Jar."}
}

// latin1 is for who was let in with the same user name and password in another encoding.
func (in *inquiry) latin1() *cause {
	if !in.trials.latin1 {
		return nil
	}
	return &cause{"latin1", certain, "The server wants user name and password in Latin-1, not UTF-8. It has let them in when they were sent again in ISO 8859-1, which old servers use and browsers once did. RFC 7617 §2.1 has UTF-8 where the server says so, and it does not.",
		"Encode both with charmap.ISO8859_1 of golang.org/x/text first. Basic and Digest send the bytes that they are given. Or choose a password of ASCII characters."}
}

// notASCII is for a user name that the server has probably read in another encoding than it was sent in.
func (in *inquiry) notASCII() *cause {
	ascii := isASCII(in.user.name + in.user.password)
	if in.trials.latin1 || !in.refused() || !in.user.given || ascii || in.last() == "" || strings.EqualFold(in.last(), "Bearer") {
		return nil
	}
	what, sure := "password", possible
	if !isASCII(in.user.name) {
		what, sure = "user name", likely
	}
	text := "The server may not read a " + what + " outside ASCII. It was sent in UTF-8 (RFC 7617 §2.1, RFC 7616 §4)."
	if len(in.trials.hops) > 0 {
		text += " In Latin-1, it was not let in either."
	}
	if strings.EqualFold(in.last(), "Digest") {
		text += " With Digest, Tomcat refuses such names even if they are right, because it reads headers as Latin-1."
	}
	return &cause{"not-ascii", sure, text, "Try a user whose name and password are ASCII. If that gets in, have the user renamed, or Basic over https configured with UTF-8."}
}

func (in *inquiry) noneGiven() *cause {
	if !in.is401() || in.schemes != nil || in.ownKey() || in.preflight() != nil {
		return nil
	}
	if len(in.report.Challenges) == 0 {
		if in.keyInQuery() != "" {
			return nil
		}
		return &cause{"no-credentials", certain, "No credentials were sent.", "Give some: -u for a password, -token-env for a token, -H for a key."}
	}
	fix := "Run it again with credentials that a challenge can use."
	switch {
	case in.has("Basic") != nil || in.has("Digest") != nil:
		fix = "Run it again with -u and the user name."
	case in.has("Bearer") != nil && isRegistry(*in.has("Bearer")):
		fix = "Get a token from the realm's URL; package registry does that."
	case in.param("resource_metadata") != "" && in.trials.metadata == nil:
		fix = "Run it again with -login, or with -token-env and a token."
	case in.has("Bearer") != nil:
		fix = "Run it again with -token-env and a variable that has a token."
	case in.has("DPoP") != nil:
		fix = "Run it again with -login."
	case in.has("Negotiate") != nil:
		fix = "Run kinit, and see whether curl --negotiate -u : gets in."
	case in.has("NTLM") != nil:
		fix = "See whether curl --ntlm -u 'DOMAIN\\user' gets in."
	}
	text := "No credentials were sent, and the server wants some. It asks for " + in.asks() + "."
	if in.userinfo {
		text = "No credentials were sent: those in the URL are not used. The server asks for " + in.asks() + "."
	}
	if name := in.keyInQuery(); name != "" {
		text = "No credentials were sent, besides those in the URL. Its query has " + name + ", and the server asks for " + in.asks() + "."
	}
	return &cause{"no-credentials", certain, text, fix + " That shows whether they are accepted."}
}

// wrongKind is for credentials of a kind that the server has not asked for, of which it says more than that: a new one would be
// refused just as well.
func (in *inquiry) wrongKind() *cause {
	if !in.isOfOtherKind() {
		return nil
	}
	return in.otherKind()
}

func (in *inquiry) isOfOtherKind() bool { return in.sentOther() && in.param("error") != "" }

func (in *inquiry) wrongScheme() *cause {
	if in.isOfOtherKind() {
		return nil // it has been said
	}
	return in.otherKind()
}

// keyInQuery returns the name of what may be a credential in the URL's query; "" if there is none.
func (in *inquiry) keyInQuery() string {
	for name, values := range in.url.Query() {
		if always, perhaps := isSecretName(name); (always || perhaps) && len(values[0]) >= wordLength {
			return printable(name, 20)
		}
	}
	return ""
}

func (in *inquiry) otherKind() *cause {
	unsupported := in.is(authretry.ReasonUnsupportedScheme)
	if !in.is401() || !unsupported && !in.sentOther() {
		return nil
	}
	if in.brokenDigest() != nil {
		return nil // it has been said
	}
	if unsupported && in.rejected.Err != nil {
		return in.unsupported()
	}
	has := in.clean.name(in.last(), 40)
	if has == "" {
		var names []string
		for _, s := range in.schemes {
			names = append(names, s.Name())
		}
		has = strings.Join(names, " or ")
	}
	fix := "See what its documentation says of " + in.asks() + ". Below is what each challenge needs."
	switch {
	case in.has("Bearer") != nil && isRegistry(*in.has("Bearer")) && in.user.given:
		fix = "Have the token service at the realm's URL make a token of them. In a program, package registry does that."
	case in.has("Basic") != nil || in.has("Digest") != nil:
		fix = "Give a user name and a password, with -u."
	case in.has("Bearer") != nil:
		fix = "Give a token, with -token-env or -token-file. A user name and a password are not accepted here, but the authorization server may give out a token for them."
	case in.has("Keystone") != nil: // OpenStack
		fix = "Send the token with -H 'X-Auth-Token: TOKEN'. Keystone gives one out at the uri of its challenge."
	case in.has("Token") != nil || in.has("ApiKey") != nil:
		fix = "Give the key with the scheme's name, as a header. For instance -H 'Authorization: " + in.asks() + " …', which other users of the machine can read."
	case in.has("DPoP") != nil:
		fix = "Use package dpop, with a token that is bound to a key. A token alone is not accepted (RFC 9449)."
	case in.has("NTLM") != nil && in.has("Negotiate") == nil:
		fix = "See whether curl --ntlm -u 'DOMAIN\\user' gets in. In a program, use module ntlm."
	case in.has("Negotiate") != nil:
		fix = "Run kinit, and see whether curl --negotiate -u : gets in. In a program, use module negotiate, or ntlm where there is no Kerberos."
	case in.has("AWS4-HMAC-SHA256") != nil:
		fix = "Sign the request with the AWS SDK (its signer package). Or use an endpoint that takes tokens."
	}
	return &cause{"wrong-scheme", certain, "The credentials are of another kind than the server wants. They are for " + has + ", and it asks for " + in.asks() + ".", fix}
}

func (in *inquiry) malformed() *cause {
	if !in.refused() || len(in.report.Challenges) > 0 || len(in.report.Damage) == 0 {
		return nil
	}
	return &cause{"malformed-challenge", certain, "The server's challenge cannot be read by any client. Its " + challengeHeader(in.resp) + " header does not follow the grammar (RFC 9110 §11.6.1), so it cannot be told what it wants.",
		"Have the server repaired. If it is known what it wants, send that ahead: Bearer and APIKey do always, Basic with Ahead."}
}
