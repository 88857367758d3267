package main

import (
	"strings"

	"github.com/authretry/authretry"
)

// A schemeWords is what there is to say about an auth-scheme.
type schemeWords struct {
	name    string // as it is usually written
	rfc     string // where it is defined
	meaning string
	needs   string // what a client must have or do
	recipe  recipe // what does it in a program; empty: authretry has nothing
}

// schemes is what this program knows about auth-schemes, those of the IANA registry (RFC 9110 §16.4.1) and those that
// are met outside it.
var schemes = []schemeWords{
	{"Basic", "RFC 7617", "user name and password, base64-encoded but not encrypted, with each request",
		"a user name and a password, and https to carry them",
		basicRecipe},
	{"Digest", "RFC 7616", "a hash that proves that the client knows the password, without sending it",
		"a user name and a password; the answer is computed from the nonce of this challenge",
		digest},
	{"Bearer", "RFC 6750", "a token from an authorization server: whoever bears it is let in",
		"an access token that is meant for this server, has not expired and has the scope asked for",
		bearer},
	{"DPoP", "RFC 9449", "an access token that is bound to a key of the client",
		"a DPoP-bound access token, and for each request a fresh DPoP header, signed with the key", bound},
	{"Negotiate", "RFC 4559", "Kerberos, or NTLM in its place, as Windows domains have it (SPNEGO)",
		"a Kerberos ticket (kinit gets one, klist shows it), a keytab or a domain password, and module negotiate", kerberos},
	{"NTLM", "[MS-NTHT]", "a Windows login that authenticates a connection rather than a request",
		"a domain, a user name and a password, and module ntlm; Negotiate with Kerberos is stronger, where it is offered", windows},
	{"AWS4-HMAC-SHA256", "AWS Signature Version 4", "a signature over the request, made with an access key",
		"an access key and its secret, the right region and service name, and a clock that is right to five minutes", recipe{}},
	{"ApiKey", "no standard", "a fixed key that the provider has given out",
		"the key; whether it goes into Authorization or a header of its own is in the provider's documentation",
		keyRecipe("ApiKey")},
	{"Token", "no standard", "a fixed token that the provider has given out",
		"the token, after the word Token in the Authorization header",
		keyRecipe("Token")},
	{"AzureApiManagementKey", "Azure API Management", "a fixed key of a subscription, in a header of its own or in the query",
		"the subscription key, in the header or the parameter that name gives",
		recipe{scheme: "&authretry.APIKey{\nHeader: \"Ocp-Apim-Subscription-Key\",\nKey: os.Getenv(\"API_KEY\"),\n}"}},
	{"Key", "no standard", "a fixed key, in a header of its own or in the query, as Kong has it",
		"the key, in the header or the parameter that the documentation names; Kong's is apikey, unless it is configured otherwise",
		recipe{scheme: "&authretry.APIKey{\nHeader: \"apikey\",\nKey: os.Getenv(\"API_KEY\"),\n}"}},
	{"HOBA", "RFC 7486", "a signature with a key pair that the client has registered, instead of a password",
		"the registered private key", recipe{}},
	{"Mutual", "RFC 8120", "a password proof in which client and server convince each other",
		"a user name and a password, and a client that has the key exchange of RFC 8121", recipe{}},
	{"SCRAM-SHA-256", "RFC 7804", "a salted password proof in which client and server convince each other",
		"a user name and a password, and a client that has SCRAM", recipe{}},
	{"SCRAM-SHA-1", "RFC 7804", "a salted password proof in which client and server convince each other",
		"a user name and a password, and a client that has SCRAM", recipe{}},
	{"vapid", "RFC 8292", "a signed token by which a push service knows an application server",
		"a token signed with the key that the push subscription was made for", recipe{}},
	{"OAuth", "RFC 5849", "OAuth 1.0: a signature over the request, made with a client's and a token's secret",
		"consumer key and secret, token and token secret, and a clock that is right", recipe{}},
	{"GNAP", "RFC 9635", "an access token that is bound to a key of the client",
		"an access token granted by the authorization server of as_uri, and its key", recipe{}},
	{"PrivateToken", "RFC 9577", "an anonymous token that shows that an issuer trusts the client",
		"a token of the issuer named in the challenge; browsers and phones have them", recipe{}},
	{"Concealed", "RFC 9729", "a signature that is sent without a challenge, on resources that hide themselves",
		"the private key that the server knows", recipe{}},
}

// schemeNamed returns what is known about a scheme.
func schemeNamed(name string) (schemeWords, bool) {
	for _, s := range schemes {
		if strings.EqualFold(s.name, name) {
			return s, true
		}
	}
	return schemeWords{
		name:    name,
		meaning: "a scheme that this program does not know",
		needs:   "whatever the server's documentation says; if that is a fixed key after the word " + name + ", APIKey sends it",
		recipe:  keyRecipe(name),
	}, false
}

// A paramWords is what there is to say about a parameter of a challenge.
type paramWords struct {
	scheme  string // empty: of any
	name    string
	meaning string
	values  map[string]string // what particular values mean, in lower case
}

var params = []paramWords{
	{"Bearer", "realm", "the server's name for what is protected (RFC 9110 §11.5)", nil},
	{"DPoP", "realm", "the server's name for what is protected (RFC 9110 §11.5)", nil},
	{"AzureApiManagementKey", "realm", "the server's name for what is protected (RFC 9110 §11.5)", nil},
	{"Key", "realm", "the server's name for what is protected (RFC 9110 §11.5)", nil},
	{"", "realm", "the server's name for what is protected: which user name and password to use (RFC 9110 §11.5)", nil},
	{"", "charset", "the encoding of user name and password (RFC 7617 §2.1, RFC 7616 §3.3)", nil},

	{"Digest", "domain", "the URIs that the same credentials are good for (RFC 7616 §3.3)", nil},
	{"Digest", "nonce", "a value of the server that goes into the hash, so that an answer cannot be used again (RFC 7616 §3.3)", nil},
	{"Digest", "opaque", "to be returned as it is (RFC 7616 §3.3)", nil},
	{"Digest", "stale", "whether only the nonce was too old (RFC 7616 §3.3)", map[string]string{
		"true":  "the password is right, only the nonce was too old: answer again with the new one (RFC 7616 §3.3)",
		"false": "it is not about the nonce's age (RFC 7616 §3.3)"}},
	{"Digest", "algorithm", "an algorithm that this program does not know", map[string]string{
		"md5":              "the hash; old and weak, but what most servers have (RFC 7616 §3.3)",
		"md5-sess":         "the hash, with a session key (RFC 7616 §3.4.2); old and weak",
		"sha-256":          "the hash (RFC 7616 §3.3)",
		"sha-256-sess":     "the hash, with a session key (RFC 7616 §3.4.2)",
		"sha-512-256":      "the hash (RFC 7616 §3.3)",
		"sha-512-256-sess": "the hash, with a session key (RFC 7616 §3.4.2)"}},
	{"Digest", "qop", "what the hash protects (RFC 7616 §3.3)", map[string]string{
		"auth":          "the hash protects method and URI (RFC 7616 §3.3)",
		"auth-int":      "the hash protects method, URI and body (RFC 7616 §3.3)",
		"auth,auth-int": "the hash protects method and URI, and the body if the client chooses (RFC 7616 §3.3)"}},
	{"Digest", "userhash", "whether the user name may be sent hashed (RFC 7616 §3.4.4)", nil},

	{"AzureApiManagementKey", "name", "the header, or the parameter of the query, that the key goes into", nil},
	{"AzureApiManagementKey", "type", "where the key goes: header or query", nil},

	{"", "scope", "what the token must allow; ask the authorization server for a token with it (RFC 6750 §3)", nil},
	{"", "error", "why the token was refused (RFC 6750 §3.1)", map[string]string{
		"invalid_request":                  "the request is malformed, for instance two tokens in one (RFC 6750 §3.1)",
		"invalid_token":                    "the token is expired, revoked, malformed, or not meant for this server (RFC 6750 §3.1)",
		"insufficient_scope":               "the token is good, but does not allow this (RFC 6750 §3.1)",
		"use_dpop_nonce":                   "the proof must have the nonce of the DPoP-Nonce header (RFC 9449 §9)",
		"invalid_dpop_proof":               "the DPoP header is not right (RFC 9449 §7.1)",
		"insufficient_user_authentication": "the user must log in again, or in a stronger way (RFC 9470)",
		"insufficient_claims":              "the token lacks claims: log in again with the ones in this challenge"}},
	{"", "error_description", "why, in the server's words, for developers (RFC 6750 §3)", nil},
	{"", "error_uri", "a page about the error (RFC 6750 §3)", nil},
	{"", "resource_metadata", "a document that names the authorization servers for this resource (RFC 9728 §5.1)", nil},
	{"", "authorization_uri", "where to log in (used by Microsoft)", nil},
	{"", "authorization", "where to log in (used by Microsoft)", nil},
	{"", "resource_id", "the resource that a token must be for (used by Microsoft)", nil},
	{"", "resource", "the resource that a token must be for (used by Microsoft)", nil},
	{"", "client_id", "the server's own identifier at the authorization server", nil},
	{"", "trusted_issuers", "whose tokens are accepted", nil},
	{"", "claims", "claims to pass on to the authorization server, base64-encoded (a claims challenge of Microsoft Entra)", nil},
	{"", "service", "the service to name when asking the realm's URL for a token (container registries)", nil},
	{"", "acr_values", "how strong the login must have been (RFC 9470 §3)", nil},
	{"", "max_age", "how many seconds ago the login may have been (RFC 9470 §3)", nil},
	{"", "algs", "the signature algorithms that a DPoP proof may have (RFC 9449 §5.1)", nil},
	{"", "as_uri", "the authorization server (RFC 9635 §9.1)", nil},
	{"", "challenge", "data to be signed", nil},
	{"", "max-age", "for how many seconds the challenge is good", nil},
	{"", "token-key", "the issuer's public key (RFC 9577 §2.2)", nil},
}

// meaningOf says in plain words what a parameter means.
func meaningOf(c authretry.Challenge, p authretry.Param) string {
	if strings.EqualFold(p.Name, "realm") && isRegistry(c) {
		return "where tokens are to be had (container registries)"
	}
	if meaning := registryScope(p.Value); strings.EqualFold(p.Name, "scope") && isRegistry(c) && meaning != "" {
		return meaning
	}
	for _, w := range params {
		if !strings.EqualFold(w.name, p.Name) || w.scheme != "" && !strings.EqualFold(w.scheme, c.Scheme) {
			continue
		}
		value := strings.ReplaceAll(strings.ToLower(p.Value), " ", "")
		if meaning, ok := w.values[value]; ok {
			return meaning
		}
		return w.meaning
	}
	return "an extension that this program does not know"
}

// registryScope says what a scope of a container registry allows, such as "repository:cave/lamp:pull,push"; empty if it is none.
func registryScope(scope string) string {
	const most = 3
	var list []string
	for one := range strings.FieldsSeq(scope) {
		kind, rest, _ := strings.Cut(one, ":")
		colon := strings.LastIndexByte(rest, ':')
		if colon < 0 || len(list) == most {
			return ""
		}
		list = append(list, "to "+strings.ReplaceAll(rest[colon+1:], ",", " and ")+" in the "+kind+" "+rest[:colon])
	}
	if list == nil {
		return ""
	}
	return "what the token must allow: " + strings.Join(list, ", ")
}
