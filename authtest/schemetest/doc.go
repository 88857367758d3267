// Package schemetest checks that a Scheme keeps the contract that package authretry has for it. Whoever writes a
// [authretry.Scheme] calls [Run] in a test:
//
//	func TestScheme(t *testing.T) {
//		schemetest.Run(t, func() authretry.Scheme { return &Scheme{Key: key} }, schemetest.Options{
//			Server:  server,        // an http.Handler that asks for the Scheme's credentials, and judges them
//			Secrets: []string{key}, // what no error and no log may show
//		})
//	}
//
// Run it with -race as well: then it finds data races, too. [Check] does the same without a testing.T.
//
// The Scheme is driven by an [authretry.Transport] against servers on the loopback interface: one that accepts what
// is right; one that refuses for ever, in the same words, in new ones, without a challenge, or with one for
// another scheme; one that redirects to another origin. The calls of the Scheme and its Sessions are watched. An error
// says what was seen, and quotes the sentence of the contract that is broken; or what is wrong with the [Options].
//
// A Scheme that has other credentials for each account, as a server needs that acts on behalf of many users, is checked
// with [Options].Accounts in place of Server: then one Transport drives it for all of them, and each request must have
// the credentials of its own account. With Renew it must send new ones after [authretry.Transport.Forget].
//
// # What goes without saying
//
// Most of the contract is in the comments of [authretry.Scheme], [authretry.Session] and what they may implement. This is
// checked besides:
//
//   - No method panics.
//   - Start, Answer, AnswersForbidden, Learn and Covers change nothing of what they are shown.
//   - The caller's request is afterwards as it was before.
//   - No text shows a secret: no error, no event, nothing that package fmt or encoding/json makes of a Scheme or a
//     Session.
//
// What cannot be seen from outside is not checked: how good a nonce or a signature is, what a Scheme sends by
// connections of its own, how it does behind a proxy, and how it does when an account makes room for others.
package schemetest
