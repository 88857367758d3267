// Package authtest has servers that ask for credentials, for tests of programs that have to bring them: Basic,
// Digest, Bearer with a token endpoint, and API keys. They check what arrives strictly, record it, and go wrong
// on demand.
//
// # Basic use
//
// A [Server] is protected by guards, each of which is a pointer to a struct of settings. The zero values of the
// settings are what a sound server does.
//
//	srv := authtest.NewServer(&authtest.Basic{Username: "Aladdin", Password: "open sesame"})
//	defer srv.Close()
//
//	// ... requests to srv.URL through the client under test ...
//
//	for _, r := range srv.Requests() {
//		fmt.Println(r) // GET / 401 challenged
//	}
//
// [NewServer] speaks HTTP/1.1, [NewTLSServer] the same over TLS, [NewHTTP2Server] HTTP/2 over TLS, and
// [NewPipeServer] uses no socket. [Server.Client] returns a client that reaches any of them and knows no credentials:
// give its Transport to the transport under test as the base, and itself to what sends token requests:
//
//	srv := authtest.NewTLSServer(bearer)
//	tokens := &authretry.TokenSource{Fetch: authretry.RefreshGrant(bearer.Config()), Initial: bearer.Login(), HTTPClient: srv.Client()}
//	transport := &authretry.Transport{Base: srv.Client().Transport, Schemes: []authretry.Scheme{&authretry.Bearer{Source: tokens}}}
//
// With several guards, any one is enough, and a refusal offers all. A server can protect several paths:
//
//	srv := authtest.NewServer()
//	srv.Protect("/files/", digest, basic)
//	srv.Protect("/api/", bearer)
//
// An accepted request is answered by [Echo], which says how many bytes of body arrived and their SHA-256, or by a
// handler of yours ([Server.Handle]).
//
// # What is accepted
//
// A guard accepts what the RFC of its scheme has a client send, and refuses the rest, also where many servers are
// lenient; [Basic], [Digest], [Bearer] and [APIKey] each say what that is. A header with credentials that is there
// twice is refused by all. [Request.Reason] says why a request was refused, without any secret.
//
// Settings that no request could satisfy, or that contradict each other, make [NewServer] and [Server.Protect] panic, so
// that no test passes because a guard refuses everything.
//
// # Digest
//
// [Digest] knows MD5, SHA-256 and SHA-512-256 with and without -sess, auth, auth-int and the form without qop, userhash,
// username*, opaque and domain. Nonces end after a time, after a number of uses, or at once by [Digest.GoStale];
// nonce counts must come in order, unless [Digest.NonceWindow] says otherwise. [Digest.NonceErrors] has those that did not, so
// that "no nc twice, none left out" is one assertion. Answers carry rspauth, unless it is turned off or there is no qop, and
// nextnonce if [Digest.NextNonce] says so.
//
// # Bearer and tokens
//
// [Bearer] guards a path and has a token endpoint besides. [Bearer.Login] issues the first tokens and [Bearer.Config] the
// client's configuration, both as golang.org/x/oauth2 wants them:
//
//	bearer := &authtest.Bearer{TokenLifetime: time.Minute}
//	srv := authtest.NewServer(bearer)
//	source := bearer.Config().TokenSource(ctx, bearer.Login())
//	bearer.ExpireNow() // the token looks good to the client, and is not; see its comment if you do this often
//
// Refresh tokens rotate, and one that is used twice takes all tokens of its login with it ([Bearer.Reuses]). A token is
// remembered for as long as it is good, however many there are.
// [Server.TokenRequests] has what arrived at the token endpoint.
//
// # Logins
//
// [OAuth] guards a path and says where to get a token (RFC 9728); it is that authorization server, too, with everything that
// package discover and package login speak to: metadata, registration, authorization code with PKCE, pushed requests, device grant,
// refresh and revocation. [Approve] and [Decline] play the person, so that a test logs in without one:
//
//	oauth := &authtest.OAuth{Scope: "tools"}
//	srv := authtest.NewServer(oauth)
//	d := &discover.Config{Flow: &login.Browser{Open: authtest.Approve}}
//
// [OAuth.Edit] changes metadata, and [OAuth.At] lets a resource trust the authorization server of another Server.
//
// # DPoP
//
// [DPoP] guards a path by tokens that are bound to a key (RFC 9449), and has a token endpoint that issues them. It verifies
// proofs by itself, finds those that are used twice ([DPoP.Replays]), asks for nonces that change each time or each
// minute ([Nonces]), and can challenge with Bearer, as some servers do. Its token endpoint takes private_key_jwt and the JWT
// bearer grant too, if it has the keys.
//
// # Container registries
//
// [Registry] guards the paths of a container registry by tokens of its token server, which asks for user name and password, an
// identity token, or nothing. Beside a user's repositories it has public ones if told so ([Registry.Public]). It grants less if told
// so ([Registry.Grant]), and [Registry.RotateKey] makes all tokens bad.
//
// # Faults
//
// [Server.Inject] lets the next requests to a path meet a [Fault], be it a protected path or, by its own path, the token
// endpoint:
//
//	srv.Inject("/", 2, authtest.Refuse())                    // the next two: 401, whatever they carry
//	srv.Inject("/", 1, authtest.DropChallenge())             // the next 401 has no WWW-Authenticate
//	srv.Inject("/upload", -1, authtest.CloseUnread())        // every 401 there leaves the body unread
//	srv.Inject("/token", 1, authtest.Reply(429, http.Header{"Retry-After": {"2"}}, ""))
//	srv.Inject("/token", 1, authtest.TokenError("invalid_grant"))
//
// State changes by methods of the guards: GoStale, ExpireNow, Revoke, SetPassword, SetKey.
//
// # Schemes of your own
//
// Package authtest/schemetest checks that an authretry.Scheme keeps its contract: it drives it against servers that accept,
// refuse for ever and redirect, and says which clause is broken. A [Server] can be the one that judges the credentials.
//
// # synctest
//
// In a testing/synctest bubble, connections must be made of channels rather than sockets: use [NewPipeServer], and
// reach it by [Server.Client] or [Server.Dial]. Nonces and tokens then age by the bubble's clock. Close the server
// before the bubble ends.
//
//	synctest.Test(t, func(t *testing.T) {
//		srv := authtest.NewPipeServer(&authtest.Digest{Username: "u", Password: "p", NonceLifetime: time.Minute})
//		defer srv.Close()
//		client := &http.Client{Transport: yourTransport(srv.Client().Transport)}
//		// ... a request ...
//		time.Sleep(time.Minute) // takes no time, and the nonce is stale
//		// ... another ...
//	})
//
// # Fixtures
//
// To test against what a real server said, record it with curl and play it back with [Replay]:
//
//	curl --http1.1 --raw -si --digest -u user:password https://host/path >testdata/host.http
//
// The recording holds responses only: no credentials, but perhaps cookies and tokens, so read it before it is
// committed. If the header lines of a challenge are all there is, put them in place of a guard's:
//
//	srv.Inject("/", -1, authtest.RewriteChallenges(func([]string) []string { return lines }))
//
// [Request.Dump] and the JSON of a [Request] mask the credentials, as [Request.Masked] lists them; whatever else went
// over the wire they show.
package authtest
