// Package dpop proves possession of a key with each use of an OAuth 2.0 token (DPoP, RFC 9449), so that a token that is
// stolen is of no use. It is built on what package authretry exports, and needs nothing else.
//
// A [Key] makes the proofs, at the authorization server as at the API. A [Scheme] sends them, as authretry.Bearer sends
// Bearer tokens:
//
//	key, err := dpop.OpenKey(filepath.Join(folder, "dpop.pem")) // made there by whichever process comes first
//	if err != nil {
//		log.Fatal(err)
//	}
//	endpoint := &authretry.TokenEndpoint{
//		URL:      "https://auth.example.com/token",
//		ClientID: "my-app",
//		Proof:    key,
//	}
//	tokens := &authretry.TokenSource{
//		Fetch: endpoint.Refresh(),
//		Store: filestore.New(filepath.Join(folder, "token.json")),
//	}
//	client := &http.Client{Transport: authretry.New(&dpop.Scheme{Source: tokens, Key: key})}
//
// The first login binds its token to the key. Once the browser has come back with a code:
//
//	// The authorization request had dpop_jkt=key.Thumbprint() and the PKCE challenge of verifier.
//	token, err := endpoint.AuthorizationCode(code, verifier, redirectURI)(ctx, authretry.TokenRequest{})
//	if err == nil {
//		err = tokens.Set(token)
//	}
//
// A service without users takes endpoint.ClientCredentials("read") as Fetch, and needs no login.
//
// # Nonces
//
// A server may ask that proofs have a nonce of its own making (RFC 9449 §8, §9). The Key remembers the last one of each
// origin, for 16,384 of them, from whatever response it came, and sends it ahead. So a login costs two requests to the token
// endpoint at most, the first request to an API two, and each after that one, even if the nonce changes with each response
// (for requests that are sent at once, as long as the server takes the one before, too). Since servers judge the nonce before
// the token, a process's first request to such a server with a token that was revoked comes back as a 401; the next one has
// a new token, and succeeds.
//
// # Keys
//
// Take one Key for each login, kept beside its token. The thumbprint of the key is saved with the token
// (authretry.Record): a token of another key is not sent, and a TokenEndpoint does not spend its refresh token. If the TokenSource has
// a Login, the user is asked to log in again, with the key at hand: so a key that is lost costs one login. If there is none, or what it
// returns is bound to another key once more, the request fails, and the reason is authretry.ReasonWrongKey.
//
// A token that was issued before the program had a Key is replaced in the same way, by a refresh if that brings a token of type DPoP.
//
// A fleet shares the key as it shares the refresh token. A key that must not leave a TPM or a key management service goes to
// [NewKey] as a crypto.Signer.
//
// # Servers
//
// It is tested against oidc-provider, which wants nonces at both of its endpoints, against a Personal Data Server of the AT
// Protocol, and against Apache's mod_oauth2, which has none; and jose judges its proofs, of all three algorithms (module interop).
// The PDS and mod_oauth2 do not take EdDSA: if you do not know the server, take ES256.
//
// # What it refuses
//
// A token of type Bearer is an error, both from an authorization server that has ignored the proof and from a source. No
// challenge has a token sent as Bearer. A server whose algs have none of ours gets no answer, and authretry.Explain says so.
// Over plain http, tokens go to loopback only, unless Transport.AllowPlaintext is set: a proof does not hide the token.
//
// A header of the caller's own, be it Authorization or DPoP, is left alone. For a proxy, DPoP is not.
package dpop
