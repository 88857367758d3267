package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// A jwt is what a JSON Web Token says (RFC 7519), or a DPoP proof (RFC 9449 §4.2). No signature is checked: it is believed no
// further than for advice.
type jwt struct {
	Header struct {
		Type      any             `json:"typ"`
		Algorithm any             `json:"alg"`
		KeyID     any             `json:"kid"`
		Key       json.RawMessage `json:"jwk"` // of a proof
	}
	Expires   *float64 `json:"exp"`
	NotBefore *float64 `json:"nbf"`
	Issued    *float64 `json:"iat"`
	Issuer    any      `json:"iss"`
	Audience  any      `json:"aud"`   // a string or a list of them
	Scope     any      `json:"scope"` // a string, with spaces (RFC 8693 §4.2)
	Scp       any      `json:"scp"`   // the same, of Microsoft and Okta
	ClientID  any      `json:"client_id"`
	Kind      any      `json:"typ"` // "ID", "Refresh", "Offline" or "Bearer", of Keycloak

	AccessTokenHash any `json:"at_hash"` // of an ID token (OpenID Connect Core §3.1.3.6)
	CodeHash        any `json:"c_hash"`

	Confirms *struct {
		Thumbprint  string `json:"jkt"`      // of the key that it is bound to (RFC 9449 §6.1)
		Certificate string `json:"x5t#S256"` // or of the certificate (RFC 8705 §3.1)
	} `json:"cnf"`

	Nonce     string `json:"nonce"` // of a proof, or an ID token
	Method    string `json:"htm"`   // of a proof
	URL       string `json:"htu"`
	TokenHash string `json:"ath"`
}

// maxJWT is how long a token may be that is looked into.
const maxJWT = 64 << 10

// decodeJWT reads a token; nil if it is no JWT.
func decodeJWT(token string) *jwt {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxJWT {
		return nil
	}
	var t jwt
	for i, into := range []any{&t.Header, &t} {
		data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[i], "="))
		if err != nil || json.Unmarshal(data, into) != nil {
			return nil
		}
	}
	return &t
}

// scopes returns the scopes that the token says it has; nil if it says none.
func (t *jwt) scopes() (list []string) {
	if t == nil {
		return nil
	}
	for _, claim := range []any{t.Scope, t.Scp} {
		switch claim := claim.(type) {
		case string:
			list = append(list, strings.Fields(claim)...)
		case []any:
			for _, one := range claim {
				if s, ok := one.(string); ok {
					list = append(list, s)
				}
			}
		}
	}
	return list
}

// about returns what the token says of whom it is from and what for, such as `iss "https://…", aud "cave"`.
func (t *jwt) about() string {
	var list []string
	for _, claim := range []struct {
		name  string
		value any
	}{{"iss", t.Issuer}, {"aud", t.Audience}, {"scope", t.Scope}, {"scp", t.Scp}, {"client_id", t.ClientID}, {"alg", t.Header.Algorithm}, {"kid", t.Header.KeyID}} {
		if text, err := json.Marshal(claim.value); err == nil && claim.value != nil {
			list = append(list, claim.name+" "+string(text))
		}
	}
	for _, claim := range []struct {
		name    string
		seconds *float64
	}{{"iat", t.Issued}, {"exp", t.Expires}} {
		if claim.seconds != nil {
			list = append(list, claim.name+" "+at(claim.seconds).Format(time.DateTime+" MST"))
		}
	}
	switch {
	case t.Confirms != nil && t.Confirms.Thumbprint != "":
		list = append(list, "bound to a key (DPoP)")
	case t.Confirms != nil && t.Confirms.Certificate != "":
		list = append(list, "bound to a client certificate")
	}
	return strings.Join(list, ", ")
}

// at returns the time of a claim. Where it is none, that is one that no clock shows.
func at(seconds *float64) time.Time {
	const most = 1 << 40
	return time.Unix(int64(min(max(*seconds, -most), most)), 0).UTC()
}
