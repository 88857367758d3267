// Package ntlm has NTLM ([MS-NTHT], [MS-NLMP]), which Windows' servers, and proxies of Windows' domains, still ask for: a Scheme for
// an authretry.Transport, and a dialer for proxies. It is built on what package authretry exports, and on the messages of
// Microsoft's github.com/Azure/go-ntlmssp.
//
//	client := &http.Client{Transport: &authretry.Transport{
//		Schemes: []authretry.Scheme{&ntlm.Scheme{Username: `EXAMPLE\mufasa`, Password: password}},
//		Origins: []string{"https://intranet.example.com"},
//	}}
//
// Where there is Kerberos, use that: NTLM proves the password to whoever asks, and does not know who that is.
//
// # Connections
//
// NTLM authenticates a connection, so connections must be kept apart: the Scheme has its own, for each account and origin, up to
// Scheme.MaxConns. They are dialled as Transport.Base would, by its proxy too, but always speak HTTP/1.1, since NTLM does not work over
// HTTP/2. Transport.Base must be an *http.Transport; or for https, where a proxy wants credentials, an *authretry.ProxyTransport.
// Connections that are idle are closed after its IdleConnTimeout, or 90 seconds; and those of an account when it is forgotten, or not let
// in any more.
//
// Through a proxy, a request for an http URL goes by the proxy's connection to the server, and the login with it. So the proxy must
// keep the two together, as Squid does. With https there is a tunnel.
//
// # What is sent
//
// A new connection is authenticated by two requests. The first has the caller's URL, Host, User-Agent and Cookie, but no body. Its
// method is the caller's if that request was refused just now, and else HEAD, so that nothing is done by it at a place
// that is open to all. The second is the caller's request itself. It goes out at most twice in a call of RoundTrip: once to be
// refused, once with the login; then by connections that are authenticated, once.
//
// If a connection is closed between the first message and the answer to the request, there is one more try by a new one, unless
// the request may have been carried out, and is not one that may be repeated (as net/http has it). If the server has forgotten who a
// connection's user is, it refuses, and there is another handshake; a body that cannot be sent twice does not get through then, as
// authretry.Explain says.
//
// # How strong it is
//
// The answer is NTLMv2, whatever the server asks for; there is no LM, no NTLMv1, and no session key. Over https it is bound to the
// server's certificate (tls-server-end-point, RFC 5929; Windows calls that Extended Protection), and to the service "HTTP/host" always,
// so that servers that check either do not take a login that somebody passes on. Most do not check.
// Of a certificate whose signature has no hash of its own (Ed25519) no binding is defined, and there is none. There is no MIC
// over the three messages: none of what it would protect is used. No Windows server was at hand to test against: the
// tests are against gss-ntlmssp's part of Apache, Squid's, and one by the specification.
//
// A Transport that has a Scheme named "Negotiate" too does not use NTLM when that has no answer, unless Scheme.AfterNegotiate is set.
//
// Over plain http NTLM goes to loopback only, unless Transport.AllowPlaintext is set. In FIPS 140-3 mode there is no NTLM, as
// it needs MD4 and MD5.
//
// # Proxies
//
// A proxy that refuses CONNECT with NTLM is out of reach of http.Transport, and of authretry.ProxyTransport, since the connection is
// closed by that. ProxyDialer sends CONNECT, and the whole handshake, by one.
package ntlm
