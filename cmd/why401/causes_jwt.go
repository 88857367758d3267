package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
)

// leeway is how far clocks differ on most machines, and Date has no parts of a second.
const leeway = 2 * time.Second

// clocks is for a JWT that is good by one clock and not by the other. Which of them is wrong is not known.
func (in *inquiry) clocks() *cause {
	c := decodeJWT(in.sentToken())
	date, ok := in.date()
	if !in.lookedAt() || c == nil || !ok || in.skew().Abs() < leeway {
		return nil
	}
	disagree := ""
	switch {
	case isPast(c.Expires, date) && !isPast(c.Expires, in.now):
		disagree = "By that clock the token has expired, and by the one here it has not."
	case isFuture(c.NotBefore, date) && !isFuture(c.NotBefore, in.now):
		disagree = "By that clock the token is not valid yet, and by the one here it is."
	case isFuture(c.Issued, date) && !isFuture(c.Issued, in.now):
		disagree = "By that clock the token was issued in the future, and by the one here it was not."
	default:
		return nil
	}
	direction := "ahead of"
	if in.skew() < 0 {
		direction = "behind"
	}
	return &cause{"clocks", certain, fmt.Sprintf("The server's clock is %s %s the one here. ", about(in.skew().Abs()), direction) + disagree + " Which of the two is wrong does not show here.",
		"Find out which of the two is wrong, and set it. See timedatectl or chronyc tracking; a new token does not help as long as they differ."}
}

// unlessClocks returns find, or what finds nothing if the clocks are known to be the cause.
func (in *inquiry) unlessClocks(find func() *cause) func() *cause {
	return func() *cause {
		if in.clocks() != nil {
			return nil
		}
		return find()
	}
}

func isPast(claim *float64, now time.Time) bool { return claim != nil && at(claim).Before(now) }

// isFuture reports whether a claim's time has not come, beyond what clocks usually differ by. One in milliseconds is none.
func isFuture(claim *float64, now time.Time) bool {
	return claim != nil && !isInMilliseconds(claim) && at(claim).After(now.Add(leeway))
}

// isInMilliseconds reports whether a claim's time is one that is plausible only in milliseconds: the years from 2001 to 5138.
func isInMilliseconds(claim *float64) bool {
	return claim != nil && math.Abs(*claim) >= 1e12 && *claim < 1e14
}

// wrongJWT is for a token that is a JWT, and no access token that a server can take.
func (in *inquiry) wrongJWT() *cause {
	token := in.sentToken()
	if !in.lookedAt() || in.sentOther() || !strings.EqualFold(in.last(), "Bearer") && !strings.EqualFold(in.last(), "DPoP") || in.mistyped() != nil {
		return nil
	}
	if c := cutJWT(token); c != nil {
		return c
	}
	t := decodeJWT(token)
	if t == nil {
		return oddClaims(token)
	}
	if c := t.unfit(); c != nil {
		return c
	}
	return in.oddTimes(t)
}

// unfit is for a token that is of another kind than an access token.
func (t *jwt) unfit() *cause {
	const fix = "Send the access_token of the same answer. "
	isAccessToken := strings.HasSuffix(strings.ToLower(asText(t.Header.Type)), "at+jwt") // RFC 9068 §2.1
	switch kind := strings.ToLower(asText(t.Kind)); {
	case strings.EqualFold(asText(t.Header.Algorithm), "none"):
		return &cause{"token-unsigned", certain, "The token is not signed: its alg is none. No server should take it (RFC 8725 §3.2).", "Get one from the authorization server, which signs them."}
	case kind == "refresh", kind == "offline":
		return &cause{"refresh-token", certain, "This is a refresh token, and the server wants an access token. Its typ says so.",
			fix + "The refresh token goes to the authorization server only, which gives out new access tokens for it."}
	case isAccessToken:
		return nil
	case kind == "id", t.AccessTokenHash != nil, t.CodeHash != nil:
		return &cause{"id-token", certain, "This is an ID token, and the server wants an access token. Its claims say so (OpenID Connect Core §2): it tells a client who has logged in, and most servers do not take it.",
			fix + "The id_token is not for APIs."}
	case t.Nonce != "" && t.Method == "":
		return &cause{"id-token", likely, "This is an ID token, and the server wants an access token. It has a nonce, as ID tokens have (OpenID Connect Core §2).",
			fix + "The id_token is not for APIs."}
	}
	return nil
}

// oddTimes is for times that are in milliseconds, or before which nothing can be.
func (in *inquiry) oddTimes(t *jwt) *cause {
	now := in.now
	if date, ok := in.date(); ok {
		now = date
	}
	switch {
	case isInMilliseconds(t.NotBefore):
		return &cause{"token-milliseconds", certain, "The token's nbf is in milliseconds, and JWTs have seconds. So it is not valid before thousands of years have passed (RFC 7519 §2).", "Have whoever issues it divide by 1000."}
	case isInMilliseconds(t.Expires), isInMilliseconds(t.Issued):
		return &cause{"token-milliseconds", likely, "The token has times in milliseconds, and JWTs have seconds. Some servers refuse what lies so far in the future (RFC 7519 §2).", "Have whoever issues it divide by 1000."}
	case isFuture(t.Issued, now) && in.clocks() == nil:
		return &cause{"token-issued-later", likely, fmt.Sprintf("The token was issued in the future, says its iat. That is %s from now by the server's clock, and some servers refuse it.", about(at(t.Issued).Sub(now))),
			"Correct the clock of whoever issued it. Or wait, and try again."}
	}
	return nil
}

// cutJWT is for what begins as a JWT does, and is not all of one.
func cutJWT(token string) *cause {
	const fix = "Copy it anew, all of it: three parts with two dots between them."
	first, rest, _ := strings.Cut(token, ".")
	var header struct {
		Algorithm string `json:"alg"`
	}
	data, err := base64.RawURLEncoding.DecodeString(first)
	switch {
	case !strings.HasPrefix(token, "eyJ") || len(token) > maxJWT: // {" in base64
		return nil
	case strings.Contains(token, "~"): // with disclosures (RFC 9901 §4)
		return nil
	case rest == "" && (err != nil || json.Unmarshal(data, &header) != nil || header.Algorithm == ""):
		return nil // it may be something else that is JSON in base64
	}
	_ = json.Unmarshal(data, &header)
	parts := strings.Split(token, ".")
	switch {
	case len(parts) == 5: // encrypted (RFC 7516 §7.1)
		return nil
	case len(parts) != 3:
		return &cause{"token-cut", certain, fmt.Sprintf("The token is a JWT of %s, and a JWT has 3 parts. So it is not whole, or more than one (RFC 7515 §7.1).", number(len(parts), "part")), fix}
	case parts[2] == "" && !strings.EqualFold(header.Algorithm, "none"):
		return &cause{"token-cut", certain, "The token is a JWT without its signature, which comes after the last dot.", fix}
	case !isJSON(parts[0]) || !isJSON(parts[1]):
		return &cause{"token-damaged", certain, "The token looks like a JWT, and cannot be decoded.", fix + " Something has changed it on the way: a line break, another encoding, a character too few."}
	}
	signature, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[2], "="))
	if size := signatureSizes[header.Algorithm]; err != nil || size > 0 && len(signature) != size {
		return &cause{"token-cut", certain, "The token is a JWT whose signature is not whole.", fix}
	}
	return nil
}

// isJSON reports whether a part of a JWT can be decoded.
func isJSON(part string) bool {
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(part, "="))
	return err == nil && json.Valid(data)
}

// oddClaims is for a JWT whose times are no numbers.
func oddClaims(token string) *cause {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxJWT {
		return nil
	}
	var claims map[string]any
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil || json.Unmarshal(data, &claims) != nil {
		return nil
	}
	for _, name := range []string{"exp", "nbf", "iat"} {
		if _, isNumber := claims[name].(float64); claims[name] != nil && !isNumber {
			return &cause{"token-claim-type", likely, "The token's " + name + " is not a number, as it must be (RFC 7519 §2).", "Have whoever issues it write the seconds since 1970, as a number."}
		}
	}
	return nil
}

// signatureSizes are how many bytes the signatures have whose size is fixed (RFC 7518 §3).
var signatureSizes = map[string]int{"HS256": 32, "HS384": 48, "HS512": 64, "ES256": 64, "ES384": 96, "ES512": 132}

func asText(claim any) string {
	s, _ := claim.(string)
	return s
}

// isUnfit reports whether the refused token is known to be unfit, so that nothing need be guessed of it.
func (in *inquiry) isUnfit() bool {
	return in.mistyped() != nil || in.wrongJWT() != nil || in.clocks() != nil
}
