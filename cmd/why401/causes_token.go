package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// mostSkew is how far clocks may differ before tokens and signatures are likely to suffer from it.
const mostSkew = time.Minute

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
		return &cause{"token-expired", certain, fmt.Sprintf("The token has expired. It is a JWT, and its exp says %s, which is %s ago by the server's clock.", t.Format(time.DateTime+" MST"), about(now.Sub(t))),
			"Get a new token. In a program, give authretry.Bearer a TokenSource with a RefreshGrant or ClientCredentialsGrant: it refreshes in time."}
	case c.NotBefore != nil && at(*c.NotBefore).After(now):
		t := at(*c.NotBefore)
		return &cause{"token-not-yet-valid", certain, fmt.Sprintf("The token is not valid yet. It is a JWT, and its nbf says %s, which is %s from now by the server's clock.", t.Format(time.DateTime+" MST"), about(t.Sub(now))),
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

func (in *inquiry) wrongToken() *cause {
	if !in.refused() || in.resp.StatusCode == http.StatusForbidden || !strings.EqualFold(in.last(), "Bearer") || in.sentOther() {
		return nil
	}
	if in.tokenTimes() != nil || in.serverSays() != nil || in.disguise != nil {
		return nil // they know better
	}
	if c := claimsOf(in.sentToken()); c != nil && c.Expires != nil {
		return &cause{"wrong-token", likely, "The token is revoked, or meant for another server. It may have been issued by another authorization server, for another audience, or for another environment (staging, production).",
			"Compare its iss and aud with what the server expects; get a new one."}
	}
	return &cause{"wrong-token", likely, "The token is expired, revoked, or meant for another server. It is no JWT with an expiry, so nothing can be read from it here.",
		"Get a new one, from the authorization server that this server trusts. See whether that is accepted."}
}
