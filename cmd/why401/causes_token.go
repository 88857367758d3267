package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// mostSkew is how far clocks may differ before tokens and signatures are likely to suffer from it.
const mostSkew = time.Minute

func (in *inquiry) tokenTimes() *cause {
	c := decodeJWT(in.sentToken())
	if !in.refused() || c == nil || in.clocks() != nil {
		return nil
	}
	now := in.now
	if date, ok := in.date(); ok {
		now = date // the server's clock decides
	}
	switch {
	case isPast(c.Expires, now):
		t := at(c.Expires)
		return &cause{"token-expired", certain, fmt.Sprintf("The token has expired. It is a JWT, and its exp says %s, which is %s ago by the server's clock.", t.Format(time.DateTime+" MST"), about(now.Sub(t))),
			"Get a new token. In a program, give authretry.Bearer a TokenSource with a RefreshGrant or ClientCredentialsGrant: it refreshes in time."}
	case isFuture(c.NotBefore, now):
		t := at(c.NotBefore)
		return &cause{"token-not-yet-valid", certain, fmt.Sprintf("The token is not valid yet. It is a JWT, and its nbf says %s, which is %s from now by the server's clock.", t.Format(time.DateTime+" MST"), about(t.Sub(now))),
			"Wait, or correct the clock of whoever issued it."}
	}
	return nil
}

// about returns a duration as a person would say it.
func about(d time.Duration) string {
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

// number returns a count with its unit.
func number(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}

func (in *inquiry) wrongToken() *cause {
	byLogin := in.trial != nil && in.header.Get("Authorization") == ""
	isToken := strings.EqualFold(in.last(), "Bearer") || byLogin && strings.EqualFold(in.last(), "DPoP")
	if !in.refused() || in.resp.StatusCode == http.StatusForbidden || !isToken || in.sentOther() {
		return nil
	}
	if in.isUnfit() || in.tokenTimes() != nil || in.serverSays() != nil || in.disguise != nil {
		return nil // they know better
	}
	if byLogin {
		return &cause{"wrong-token", likely, "The server does not take the token that was just issued for it. It may expect another audience, or another issuer.",
			"Compare the token's iss and aud with what the server expects. Whoever runs one of the two has to put that right."}
	}
	writes, repeat := "", " If it is refused at some times only, -repeat 5 shows that."
	if in.repeat > 0 || in.pasted {
		repeat = ""
	}
	if !in.isSafe() {
		repeat, writes = "", " Or it may read here, and not write: asking with GET shows that."
	}
	c := decodeJWT(in.sentToken())
	if host := in.otherEnvironment(c); host != "" {
		return &cause{"wrong-token", likely, "The token is of another environment: " + host + ". That is its issuer. Tokens of one environment (staging, production) are not taken in another." + writes,
			"Get one where this environment's tokens are issued. See that the program has that issuer's URL, not the other's."}
	}
	if host := in.foreignHost(c); host != "" {
		return &cause{"wrong-token", likely, "The token's aud is another server: " + host + ". It is probably not meant for this one; or it is revoked, or of another issuer." + writes,
			"Get one for this server. Compare the token's iss and aud with what it expects."}
	}
	if c != nil && c.Expires != nil {
		return &cause{"wrong-token", likely, "The token is revoked, or meant for another server. It may have been issued by another authorization server, for another audience, or for another environment (staging, production)." + writes,
			"Compare its iss and aud with what the server expects; get a new one." + repeat}
	}
	return &cause{"wrong-token", likely, "The token is expired, revoked, or meant for another server. It is no JWT with an expiry, so nothing can be read from it here." + writes,
		"Get a new one, from an issuer that the server trusts. See whether that is accepted." + repeat}
}

// unsendable is for credentials that cannot be put into a header, where mistyped does not know why.
func (in *inquiry) unsendable() *cause {
	if !in.isUnsendable() {
		return nil
	}
	return &cause{"unsendable", certain, "The credentials cannot be sent as they are." + noneSent, "See below what is wrong with them, and put that right."}
}
