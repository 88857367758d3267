// Package authretry handles HTTP authentication for http.Client. It is an [http.RoundTripper] that detects a 401
// (Unauthorized), parses its challenges, chooses a scheme it has credentials for, refreshes the OAuth 2.0 token or
// computes the Digest or Basic answer, and retries the request once.
//
// Set a [Transport] as an http.Client's transport:
//
//	client := &http.Client{Transport: authretry.New(
//		&authretry.Bearer{Source: tokens},                       // refreshed when refused or about to expire
//		&authretry.Digest{Username: "Mufasa", Password: secret}, // RFC 7616
//		&authretry.Basic{Username: "Mufasa", Password: secret},  // RFC 7617
//	)}
//
// From then on, requests to servers that ask for credentials carry them. If a server still refuses, [Explain] says why.
//
// # Choosing schemes
//
// List the schemes you have credentials for, the strongest first. [Bearer] and [APIKey] send theirs ahead: with the first request,
// before the server asks, unless it has asked for those of another scheme there. [Digest] and [Basic] wait for a challenge. From
// then on they send ahead, too, to what belongs to the same protection space (RFC 9110 §11.5).
//
// A refusal is answered by the first scheme of your list that can answer one of its challenges. Among several challenges of that
// scheme, the first one that it can answer counts (RFC 7616 §3.7). If the credentials of that scheme cannot be obtained, as when
// the token endpoint is down, the request fails. No weaker scheme takes its place.
//
// For tokens that are bound to a key (DPoP, RFC 9449), take package dpop, whose Scheme takes the place of Bearer. It is built on
// what this package exports. So are the modules negotiate, for Kerberos (RFC 4559), and ntlm.
//
// For a scheme that is not here, implement [Scheme]: it sees the response that refused, may send ahead ([Starter]), learn
// from each response ([Learner]), and authenticate connections instead of requests ([Carrier]). It gets OAuth 2.0 tokens by
// [TokenSource.Obtain] and [TokenSource.StepUp], and says by [TokenSource.Accepted] and [TokenSource.Refused] what became of one.
//
// For a server that says 400, 403 or 200 where it means 401, set [Transport.Refused].
//
// # Tokens
//
// A [TokenSource] holds an OAuth 2.0 token and renews it: in the background when it is about to expire, and at once when
// a server has refused it. However many requests are refused together, there is one token request. With a [TokenStore]
// that holds for all the processes that share a login too: package filestore is for those of one machine, module
// redisstore for fleets. When nothing but a new login can help, errors wrap [ErrLoginRequired]; after that login, call Set.
//
// Any other oauth2.TokenSource works as well, but can be refreshed after a refusal only if it has a method
// Refresh(context.Context, *oauth2.Token) (*oauth2.Token, error). Do not wrap a TokenSource by
// oauth2.ReuseTokenSource: that keeps handing out a token that has been revoked.
//
// A server may ask for another token than the one that it refuses: one with more scope (RFC 6750 §3.1), from a fresher or
// stronger login (RFC 9470), or with certain claims (continuous access evaluation at Microsoft Entra). If [Bearer.StepUp] is set,
// the TokenSource is asked for such a token, once for a request, and it then serves all requests. Scopes that are known to have
// been granted before are asked for again with the new ones. [Bearer.ScopeFilter] says what servers may ask for.
//
// # Logging in and out
//
// Where only a new login helps, the error wraps [ErrLoginRequired]. Let the user log in, and give the token to [TokenSource.Set],
// which saves it in the Store. Or set [TokenSource.Login], a func that asks the user, in a browser for instance. It is called
// once, however many requests need the token; each waits under its own context.
//
//	tokens := &authretry.TokenSource{
//		Fetch: endpoint.Refresh(),
//		Store: filestore.New(path),
//		Login: func(ctx context.Context, r authretry.TokenRequest) (*oauth2.Token, error) {
//			return askInBrowser(ctx, r.Scopes) // yours
//		},
//	}
//
// Package login has such funcs, for a browser and for another device, and package discover finds out by the first 401 where that is
// to be: then no more than a URL has to be known.
//
// [TokenSource.Logout] ends the login, for all processes that share the Store. The others notice when they next look there, which is
// when their token is due for a refresh or is refused. None of them saves it again.
//
// # Token endpoints
//
// A [TokenEndpoint] is the place that issues tokens, with what this client has to say there. Its methods return a [FetchFunc]
// for each grant: Refresh, ClientCredentials, JWTBearer, TokenExchange, AuthorizationCode and DeviceCode. Revocation is for
// TokenSource.Revoke, and Post for the authorization server's other endpoints.
//
//	endpoint := &authretry.TokenEndpoint{
//		URL:      "https://auth.example.com/token",
//		ClientID: "my-service",
//		Auth:     &authretry.PrivateKeyJWT{Signer: key}, // or SecretBasic, SecretPost, Assertion, AssertionFile; nil: a public client
//		Params:   url.Values{"resource": {"https://api.example.com"}},
//	}
//	tokens := &authretry.TokenSource{Fetch: endpoint.ClientCredentials("read")}
//
// Those who have an oauth2.Config or clientcredentials.Config take [RefreshGrant] or [ClientCredentialsGrant] instead. For mutual
// TLS (RFC 8705) give the endpoint an HTTPClient with the client's certificate. For a token that something else writes into a
// file, Fetch is [FromFile].
//
// A refresh token is sent only to the endpoint that has issued it, as far as that is known, and a token that was obtained for
// one resource (RFC 8707) only to the origin of that. Secrets go over https, or http to this machine, unless AllowPlaintext of
// the endpoint is set.
//
// # Many users
//
// A server that calls an API on behalf of its users has two ways to do it.
//
// One Transport for all of them, whose Account tells them apart: whatever the Transport gets or remembers for a request is
// for those of its account only.
//
//	transport := &authretry.Transport{
//		Origins: []string{"https://api.example.com"},
//		Account: func(req *http.Request) string { return userOf(req.Context()) }, // "" is nobody: no credentials
//		Schemes: []authretry.Scheme{&authretry.Bearer{Sources: tokensOf}},       // func(ctx, account) (oauth2.TokenSource, error)
//	}
//
// Take it where there are many users, where they come and go, or where the http.Client is made by somebody else. The
// context of a request must say who the user is. A [CredentialsFunc] goes by the account that it is given: what it returns
// is used for other requests, so without Account it sees no values of the context. Set Origins, since a Bearer sends
// tokens to whatever origin is addressed; for a second API, take a second Transport. When a user has logged in or out,
// store that first, and then call [Transport.Forget].
//
// A httputil.ReverseProxy passes on the Authorization and Cookie headers of the outside client. Its Rewrite must delete
// them: they are for your server, and a request that has its own Authorization is left as it is.
//
// Or one Transport for each user, over a shared Base: some 2 KiB each. Take it where there are few users, or where each has a client
// of its own anyway, and keep it with the user's session. A [ProxyTransport] has no accounts, since http.Transport shares tunnels
// among all requests: make one for each user of the proxy.
//
// A Jar belongs to one user: an http.Client with a Jar must not be shared by users, whatever its Transport does.
//
// # Redirects and origins
//
// An origin is scheme, host and port of a URL. Credentials go to the origin that the caller addressed, and to no other. After a
// redirect to another origin, requests are sent without credentials, also if a further redirect leads back. A redirect from http
// to https of the same host, from port 80 to port 443, does not count as one to another origin. Set [Transport.Origins] to fix
// which origins may have the credentials, in an SDK for instance. Requests to others are sent as they are.
//
// Over plain http, Basic, Bearer and API keys go to loopback only, unless [Transport.AllowPlaintext] is set.
//
// A request with an Authorization header of its own is sent as it is. With req.Header["Authorization"] = nil it is sent without
// any.
//
// # Bodies
//
// A retry needs the request's body a second time. Request.GetBody is used where there is one, as for all bodies that
// http.NewRequest knows. Otherwise what is sent is recorded, up to [Transport.ReplayLimit]. Where a refusal may come, a
// larger body, and one of more than 1 MiB that has a GetBody, is announced with "Expect: 100-continue", so that the server can
// refuse before anything of it is sent: at first, where a nonce that is sent ahead may have become stale, and where what was sent ahead
// has been refused before. If a body cannot be sent again, the refusal is returned as it is, and the next request
// carries the credentials that it asked for.
//
// # Retries
//
// A request goes to Base at most twice, and the second time not with the credentials that were just refused. The next request
// may have them again: a wrong password is sent once for each request. For retries of failures other than authentication
// take [NewRetryableClient]: each of its attempts goes through the Transport. The
// other order, with a retrying transport as Base, is safe but wasteful: an attempt that is repeated below the
// Transport has the nonce count of the first, and servers refuse it as a replay.
//
// # Proxies
//
// [NewProxyTransport] answers a proxy's 407, for plain http and for CONNECT. Its credentials and what it remembers are
// apart from the origin's; a Transport can have it as Base. Most proxies have http:// URLs: Digest may go there, and Basic
// if AllowPlaintext of the [ProxyTransport] is set.
//
// # Testing
//
// Package authtest has servers that ask for credentials, check them strictly, and go wrong on demand.
//
// # Migrating
//
// From oauth2.Transport or oauth2.NewClient: put the same source into a Bearer,
//
//	&http.Client{Transport: authretry.New(&authretry.Bearer{Source: source})}
//
// and, to have refused tokens refreshed, make source a TokenSource with [RefreshGrant] or [ClientCredentialsGrant]. The
// token no longer follows redirects to other hosts, and goes over plain http to loopback only.
//
// From icholy/digest: digest.Transport{Username, Password, Transport} becomes
//
//	&authretry.Transport{Base: base, Schemes: []authretry.Scheme{&authretry.Digest{Username: user, Password: password}}}
//
// From code that says "if resp.StatusCode == 401, refresh and try again": delete it, and move what gets the token into
// TokenSource.Fetch.
//
// Whole programs for these, and for gRPC, WebSocket, a reverse proxy and others, are in examples/guides.
package authretry
