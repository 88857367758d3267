// Package discover gets a program from a bare URL to a token: a 401 names the resource's metadata (RFC 9728), these name an
// authorization server, whose metadata (RFC 8414, OpenID Connect Discovery) say where a person logs in, or a machine gets its
// token. It is what a client of the Model Context Protocol needs, and any other that learns of its authorization server by
// being refused. It is built on what package authretry exports.
//
// # Basic use
//
//	d := &discover.Config{Flow: login.Auto(os.Stderr)} // a browser, or a code to be typed on another device
//	tokens := &authretry.TokenSource{Fetch: d.Fetch, Login: d.Login, Revoke: d.Revoke, Store: filestore.New(path)}
//	client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens, StepUp: true})}
//	resp, err := client.Get("https://mcp.example.com/mcp")
//
// The first request goes out without a token, and is refused. Then a person logs in, once, however many requests wait, and the
// request is sent again. What was discovered is saved with the login: from then on the token is sent ahead and renews itself,
// in later processes too, without another question to the person. Only when the resource refuses a token, it is asked which
// authorization servers it trusts by then. A refresh token goes to the token endpoint that has issued it, and to no other. Where a server asks for more scope, a person is asked again, for both.
//
// A program without a person sets Config.Grant instead of Flow, and no Login:
//
//	d := &discover.Config{
//		Clients: []discover.Client{{Issuer: "https://auth.example.com", ID: "my-service", Auth: authretry.SecretBasic(secret)}},
//		Grant:   func(e *authretry.TokenEndpoint, _ *discover.Server) authretry.FetchFunc { return e.ClientCredentials() },
//	}
//	tokens := &authretry.TokenSource{Fetch: d.Fetch}
//
// # Which resource
//
// The metadata must be those of the resource that was asked: its URL without the query, or its origin, compared as strings (RFC
// 9728 §3.3); or what Config.Resource says. They are where the challenge says (resource_metadata), or else at the well-known
// place of the path, then at that of the root. The token is asked for with that name (resource, RFC 8707) at login, for the
// code and with each refresh; an authorization server that refuses it with a refresh, as Microsoft Entra does, is asked once
// more without, which is remembered. Whatever the server makes of it, the token goes to the origin of the resource only.
//
// # Which authorization server
//
// Without Config.Issuers, it is the resource that says where people log in, and whoever controls the resource chooses that. A
// program that knows better names the issuers. That server, too, is shown what Config.Grant sends besides the client's own
// credentials: an assertion, or the subject token of an exchange. Name the issuers where that is so. Of several, the one of the saved login comes first, then one of Config.Clients,
// then as the resource has them; three at most are asked. The metadata must call the server just as the resource does (RFC 8414
// §3.3), and so must each answer of a login (RFC 9207). It must support PKCE by S256, unless Config.AssumePKCE is set.
//
// A resource that refuses a token, and names other authorization servers by then, gets a new login there.
//
// # What the program is called
//
// At each authorization server, in this order: as Config.Clients says; as the server has registered it before; by
// Config.ClientMetadataURL, where the server takes that; or else the server registers it (RFC 7591), as a native application,
// with the login. A registration belongs to one redirect URI, so a login by a browser on another port has the program
// registered again. What a server has registered, no other gets to see; and the credentials of Config.Clients go to their own issuer.
//
// # Which scopes
//
// Those that the challenge asks for, united with what the token to be replaced was good for, and Config.Scopes; or, if these are
// none, all that the resource names. Besides, offline_access where the server knows that. Config.ScopeFilter sees them all, and has the
// last word.
//
// # What is asked
//
// Servers name URLs here, and whoever runs one must not have us send requests, or a person's browser, to what only we can
// reach. A URL must be https, or http to this machine, without user name and fragment. Its address is judged when it is
// dialled, after DNS: one on a private network or this machine is asked only if the server that named it is there itself, or if
// Config.Issuers names its host; link-local addresses, metadata services of clouds, multicast and the like never. The connection
// by which the resource refused says where it is. If a proxy is in between, or a DialContext of yours leads to another port, it
// counts as outside. What a browser is sent to, an authorization endpoint or the page of a device login, is judged by all addresses
// of its name. Redirects are not followed, an answer may have 1 MiB. Metadata and a registration may take 10 seconds, a request of a
// login 30, and other token requests as long as TokenSource.FetchTimeout. With a proxy in the environment, that resolves names: they are judged here besides. What a browser or
// a proxy is to dial is judged as these read it: app.localhost, or 127.0.0.1 with a dot behind it, is this machine; and what they
// may take for an address in another form (127.1, 0x7f000001), or what is not ASCII, is refused unless Config.Issuers names it.
// Config.HTTPClient takes the place of all this.
//
// # Errors
//
// Each that is about discovery is an [*Error] that says which host is meant, what it was asked for, and what to do; by errors.Is it is
// one of the errors of this package. A server that is out of order, or cannot be reached, is told from one that has no metadata. Nothing
// that a server has written is in it, but for what package crypto/x509 says of a certificate. What TokenSource makes of it wraps
// authretry.ErrLoginRequired too, if a login was to be had.
package discover
