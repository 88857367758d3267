package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/authretry/authretry"
)

// date returns the server's clock, as the Date of its last response has it.
func (in *inquiry) date() (time.Time, bool) {
	if in.resp == nil {
		return time.Time{}, false
	}
	date, err := http.ParseTime(in.resp.Header.Get("Date"))
	return date, err == nil
}

// skew returns how far the server's clock is ahead of ours.
func (in *inquiry) skew() time.Duration {
	date, ok := in.date()
	if !ok {
		return 0
	}
	return date.Sub(in.now)
}

func (in *inquiry) insufficientScope() *cause {
	if !in.refused() || in.param("error") != "insufficient_scope" {
		return nil
	}
	fix := "Ask the authorization server for a token with a wider scope; the API's documentation says which."
	if scope := in.param("scope"); scope != "" {
		fix = "Ask the authorization server for a token with the scope " + in.clean.text(scope, 200) + "."
	}
	return &cause{"insufficient-scope", "The token is good, but its scope does not allow this (RFC 6750 §3.1). Refreshing it does not help: the new one would have the same scope.", fix}
}

func (in *inquiry) staleForEver() *cause {
	c := in.has("Digest")
	if !in.refused() || c == nil || !strings.EqualFold(c.Params.Get("stale"), "true") || in.last() == "" {
		return nil
	}
	return &cause{"stale-nonce", "The server calls even the nonce stale that it has only just given out. The password is probably right: a server says stale only of an answer whose hash is (RFC 7616 §3.3). Usually there are several servers behind one address that do not know of each other's nonces, or the server restarts all the time, or nonces last no longer than a request takes.",
		"Bind clients to one server at the load balancer, or share the nonce secret between the servers, or let nonces last longer."}
}

func (in *inquiry) serverSays() *cause {
	if !in.refused() {
		return nil
	}
	code, description := in.param("error"), in.param("error_description")
	if code == "insufficient_scope" && description == "" || code == "" && description == "" {
		return nil
	}
	text := "The server says why:"
	if code != "" {
		text += " " + in.clean.text(code, 60)
	}
	if description != "" {
		text += fmt.Sprintf(" “%s”", in.clean.text(description, 400))
	}
	fix := ""
	switch code {
	case "invalid_token":
		fix = "Get a new token, for this server (audience) and from the issuer that it trusts. If a new one is refused, too, compare its aud and iss with what the server is configured for."
	case "use_dpop_nonce":
		fix = "Put the DPoP-Nonce of the response into the DPoP proof, and send again."
	case "insufficient_claims":
		fix = "Log in again, and pass the claims of the challenge on to the authorization server."
	case "insufficient_user_authentication":
		fix = "Log in again with the acr_values or max_age of the challenge."
	}
	if uri := in.param("error_uri"); uri != "" {
		fix = strings.TrimSpace(fix + " See " + in.clean.text(uri, 200))
	}
	return &cause{"server-says", text, fix}
}

func (in *inquiry) forbidden() *cause {
	if !in.refused() || in.resp.StatusCode != http.StatusForbidden || in.param("error") == "insufficient_scope" {
		return nil
	}
	if !in.gave() {
		return &cause{"forbidden", "The status is 403 and no credentials were sent. Some servers say 403 where they mean 401; others refuse addresses, countries, user agents, or everything behind a firewall.",
			"Try with credentials. If the refusal stays, the server's log or its administrator knows the rule."}
	}
	return &cause{"forbidden", "The status is 403: the server probably knows who you are, and does not let you do this (RFC 9110 §15.5.4). Other credentials of the same user do not help.",
		"Have the permission granted to the user or the token. Transport.Refused is for servers that say 403 when a token has expired."}
}

// gave reports whether the last request carried anything that may be a credential.
func (in *inquiry) gave() bool {
	return in.last() != "" || len(in.report.Exchanges) > 0 && len(in.report.Exchanges[len(in.report.Exchanges)-1].Own) > 0
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

func (in *inquiry) noneGiven() *cause {
	if !in.refused() || in.resp.StatusCode != http.StatusUnauthorized || in.schemes != nil || in.ownKey() {
		return nil
	}
	if len(in.report.Challenges) == 0 {
		return &cause{"no-credentials", "No credentials were sent.", "Give some: -u for a user name and password, -token-env for a token, -H for an API key."}
	}
	fix := "Give some that one of the challenges can use"
	switch {
	case in.has("Basic") != nil || in.has("Digest") != nil:
		fix = "Run it again with -u and the user name"
	case in.has("Bearer") != nil:
		fix = "Run it again with -token-env and the name of a variable that has a token"
	}
	return &cause{"no-credentials", "No credentials were sent, and the server wants some (" + in.asks() + ").", fix + ", to see whether they are accepted."}
}

func (in *inquiry) wrongScheme() *cause {
	unsupported := in.is(authretry.ReasonUnsupportedScheme)
	if !in.refused() || in.resp.StatusCode != http.StatusUnauthorized || !unsupported && !in.sentOther() {
		return nil
	}
	if unsupported && in.rejected.Err != nil {
		return &cause{"unsupported-challenge", "The credentials are of the right kind, but the challenge has something that authretry does not know; it says what, above. Nothing was sent.",
			"Let the server offer what is common as well: Digest with MD5 or SHA-256 and qop=auth, or Basic over https."}
	}
	has := in.clean.name(in.last(), 40)
	if has == "" {
		var names []string
		for _, s := range in.schemes {
			names = append(names, s.Name())
		}
		has = strings.Join(names, " or ")
	}
	fix := "It takes other credentials: see above for what each of the challenges needs."
	switch {
	case in.has("Basic") != nil || in.has("Digest") != nil:
		fix = "Give a user name and a password, with -u."
	case in.has("Bearer") != nil:
		fix = "Give a token, with -token-env or -token-file. A user name and a password are not accepted here, but the authorization server may give out a token for them."
	case in.has("Negotiate") != nil || in.has("NTLM") != nil:
		fix = "See whether curl --negotiate -u : gets in (after kinit). In a program, implement authretry.Scheme with a library that has Kerberos or NTLM, or ask whether the server has another way in for programs."
	case in.has("AWS4-HMAC-SHA256") != nil:
		fix = "Sign the request with the AWS SDK (its signer package), or use an endpoint that takes tokens."
	}
	return &cause{"wrong-scheme", fmt.Sprintf("The credentials are of another kind than the server wants: they are for %s, and it asks for %s.", has, in.asks()), fix}
}

// sentOther reports whether the last request had credentials of a scheme that the server does not ask for.
func (in *inquiry) sentOther() bool {
	last := in.last()
	return last != "" && last != unreadable && len(in.report.Challenges) > 0 && in.has(last) == nil
}

func (in *inquiry) malformed() *cause {
	if !in.refused() || len(in.report.Challenges) > 0 || len(in.report.Damage) == 0 {
		return nil
	}
	return &cause{"malformed-challenge", "The server sends a " + challengeHeader(in.resp) + " header that does not follow the grammar (RFC 9110 §11.6.1), so no client can tell what it wants.",
		"Have the server repaired. If it is known what it wants, send that ahead: Bearer and APIKey do always, Basic with Ahead."}
}

// permission are words in a body that speak of permission rather than of identity.
var permission = []string{"permission", "forbidden", "not allowed", "not permitted", "access denied", "not authorized to", "insufficient", "privilege", "not entitled"}

func (in *inquiry) shouldBe403() *cause {
	if !in.refused() || in.resp.StatusCode != http.StatusUnauthorized || !in.gave() {
		return nil
	}
	fix := "Have the permission granted to the user or the token. Whoever runs the server should send 403, or clients will ask for passwords and refresh tokens in vain."
	for i := range in.hops {
		if h := &in.hops[i]; h.sent != "" && !h.connect && h.resp != nil && h.resp.StatusCode < 400 && sameOrigin(h.req.URL, in.asked()) {
			return &cause{"should-be-403", "The same server has accepted the same credentials a moment before, for " + in.clean.url(h.req.URL) + ". So they are good, and this 401 probably should be a 403: the user may not do this.", fix}
		}
	}
	body := strings.ToLower(in.clean.redact(in.body))
	for _, word := range permission {
		if strings.Contains(body, word) {
			return &cause{"should-be-403", fmt.Sprintf("The response's text speaks of permission (“%s”). Perhaps the credentials are good, and this 401 should be a 403: the user may not do this.", word), fix}
		}
	}
	return nil
}

func (in *inquiry) skewed() *cause {
	skew := in.skew()
	if !in.refused() || skew.Abs() < mostSkew || !in.gave() && in.has("AWS4-HMAC-SHA256") == nil {
		return nil
	}
	direction := "ahead of"
	if skew < 0 {
		direction = "behind"
	}
	text := fmt.Sprintf("The server's clock is %s %s the one here. Tokens and signatures are refused as expired or not yet valid if clocks differ.", about(skew.Abs()), direction)
	return &cause{"clock-skew", text, "Find out which of the two is wrong, and set it (timedatectl, chronyc tracking)."}
}

func (in *inquiry) wrongPassword() *cause {
	last := strings.ToLower(in.last())
	if !in.refused() || in.resp.StatusCode != http.StatusUnauthorized || last != "basic" && last != "digest" || in.sentOther() {
		return nil
	}
	if c := in.has("Digest"); c != nil && strings.EqualFold(c.Params.Get("stale"), "true") {
		return nil
	}
	who := ""
	if in.user.given && in.header.Get("Authorization") == "" {
		who = " " + quoted(in.user.name)
	}
	text := fmt.Sprintf("User name%s or password is wrong, or the user is locked or unknown; a server does not tell which.", who)
	fix := "Type the password anew. Check that the user belongs to this server"
	if realm := in.param("realm"); realm != "" {
		fix += fmt.Sprintf(" and to its realm “%s”", in.clean.text(realm, 100))
	}
	fix += ". Services with two-factor login usually want an app password or a token in place of the password."
	if last == "digest" {
		text += " With Digest, the server's stored hash may also be of another realm (it must be made anew if the realm is renamed), or a proxy may have rewritten the URI, which is part of the hash."
	}
	return &cause{"wrong-password", text, fix}
}

func (in *inquiry) wrongToken() *cause {
	if !in.refused() || in.resp.StatusCode != http.StatusUnauthorized || !strings.EqualFold(in.last(), "Bearer") || in.sentOther() {
		return nil
	}
	if in.tokenTimes() != nil || in.serverSays() != nil {
		return nil // they know better
	}
	if c := claimsOf(in.sentToken()); c != nil && c.Expires != nil {
		return &cause{"wrong-token", "The token is revoked, or was issued by another authorization server, for another audience, or for another environment (staging, production).",
			"Compare the token's iss and aud with what the server is configured for; get a new one."}
	}
	return &cause{"wrong-token", "The token is expired, revoked, or for another server. It is no JWT with an expiry, so nothing can be read from it here.",
		"Get a new one, from the authorization server that this server trusts, and see whether that is accepted."}
}

func (in *inquiry) noChallenge() *cause {
	if !in.refused() || in.resp.StatusCode != http.StatusUnauthorized || len(in.resp.Header.Values("WWW-Authenticate")) > 0 {
		return nil
	}
	text := "The 401 has no WWW-Authenticate header, though it must (RFC 9110 §15.5.2), so the server does not say what it wants."
	body := strings.ToLower(in.clean.redact(in.body))
	fix := "See the API's documentation. Usually it is a token (-token-env), an API key in a header of its own (-H), or a session cookie from a login form."
	if hasAny(body, "api key", "api-key", "apikey", "api_key", "x-api-key") {
		text += " Its text speaks of an API key."
		fix = "Send the key in the header that the API's documentation names, for instance -H 'X-API-Key: …'; in a program: &authretry.APIKey{Header: \"X-API-Key\", Key: os.Getenv(\"…\")}"
	} else if hasAny(body, "token", "bearer", "jwt") {
		text += " Its text speaks of a token."
	} else if hasAny(body, "session", "cookie", "log in", "login", "sign in") {
		text += " Its text speaks of a login."
	}
	if in.gave() {
		fix += " What was sent now is not it, or not good."
	} else if in.user.given {
		text += " User name and password were not sent, because they wait for a challenge."
		fix += " If it is Basic after all, -ahead sends it; in a program, set Basic.Ahead."
	}
	return &cause{"no-challenge", text, fix}
}

func hasAny(s string, words ...string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

func (in *inquiry) tooMany() *cause {
	if in.resp == nil || in.resp.StatusCode != http.StatusTooManyRequests && (in.resp.Header.Get("Retry-After") == "" || !in.refused()) {
		return nil
	}
	text := "The server limits how often it may be asked."
	if after := in.resp.Header.Get("Retry-After"); after != "" {
		text += " Retry-After says " + in.clean.text(after, 40) + "."
	}
	return &cause{"too-many", text, "Wait. After many wrong passwords, servers refuse the right one, too."}
}

// notes says what else was noticed.
func (in *inquiry) notes() []cause {
	list := append([]cause(nil), in.tokenNotes...)
	if in.userinfo {
		list = append(list, cause{"userinfo", "The URL has a user name in it, and perhaps a password. It was not used: a URL gets into histories, logs and Referer headers, and every user of the machine can read it.",
			"Change the password if it is of any worth, and use -u."})
	}
	if in.has("Basic") != nil && !in.report.Challenges[0].Proxy && in.asked().Scheme == "http" && !isLoopback(in.asked().Hostname()) {
		list = append(list, cause{"basic-plain-http", "The server asks for Basic over plain http: whoever is on the way can read the password (RFC 7617 §4).",
			"Use https, if the server has it."})
	}
	if c := claimsOf(in.sentToken()); in.refused() && c != nil && c.about() != "" {
		list = append(list, cause{"token-claims", "The token is a JWT that says of itself: " + in.clean.text(c.about(), 400) + ". (Read, but not verified.)",
			"Compare that with what the server expects."})
	}
	if in.header.Get("Authorization") != "" && in.schemes == nil {
		list = append(list, cause{"own-header", "In a program, authretry leaves a request alone that has an Authorization header of its own: no refresh, no retry.",
			"Give the Transport a Bearer, Basic or APIKey instead of setting the header."})
	}
	if n := len(in.report.Damage); n > 0 && len(in.report.Challenges) > 0 {
		list = append(list, cause{"damaged-challenge", "The header does not follow the grammar (RFC 9110 §11.6.1). It was read as well as it could be; other clients may read it otherwise.",
			"Tell whoever runs the server."})
	}
	if in.report.Outcome == outcomePassed && in.resp != nil {
		list = append(list, in.passedNotes()...)
	}
	return list
}

func (in *inquiry) passedNotes() (list []cause) {
	final := in.asked()
	switch {
	case len(in.hops) > 1 && hasAny(strings.ToLower(final.Path), "login", "signin", "sign-in", "sign_in", "sso", "oauth"):
		list = append(list, cause{"login-page", "The redirect has led to what looks like a login page, for people with a browser. A program would take its 200 for success.",
			"Ask for the API's own URL, or send a token so that there is no redirect."})
	case in.resp.StatusCode == http.StatusNotFound && !in.gave():
		list = append(list, cause{"hidden", "Some servers answer 404 to hide what exists from whom they do not know (RFC 9110 §15.5.5).",
			"If the path is right, try with credentials."})
	case in.resp.StatusCode < 300 && in.schemes != nil && in.last() == "":
		list = append(list, cause{"not-needed", "The server answered without credentials: none were asked for, and none were sent.", ""})
	}
	return list
}
