// Package negotiate has the Negotiate authentication of HTTP (RFC 4559) with Kerberos, as Windows domains and MIT realms ask for it.
//
//	// As whoever has run kinit, or on Windows has logged on:
//	client := &http.Client{Transport: authretry.New(&negotiate.Scheme{})}
//	resp, err := client.Get("https://intranet.example.com/")
//
//	// As a service, with its own keytab:
//	client := &http.Client{Transport: authretry.New(&negotiate.Scheme{
//		Kerberos: &negotiate.Client{Principal: "backup@EXAMPLE.COM", Keytab: "/etc/backup.keytab"},
//		Ahead:    true, // every request is sent once
//		Mutual:   true, // and the server proves who it is
//	})}
//
// It answers proxies as well, below authretry.NewProxyTransport, for plain requests and for CONNECT.
//
// # What is sent, and where to
//
// A token is for the service HTTP/host, with the host of the URL that the caller has addressed, or of the proxy. No DNS and no redirect
// changes that; Scheme.SPN can. Request.Host takes the place of the URL's host only over plain http through a proxy, since the proxy
// sends the request there; and also if it cannot be told whether Transport.Base uses a proxy, unless the URL's host is loopback.
// With Scheme.Ahead the KDC is asked for a ticket for every host that the Transport sends to, so set authretry.Transport.Origins, or
// let Scheme.SPN return "" for those that are no part of the realm.
//
// Each send of a request has a token of its own. A token shows the user's name and the realm to who sees it, and no secret, so it
// may go over plain http; but whoever is on the way there can have it instead of the server. Credentials are never delegated. Tokens
// are not bound to the TLS connection (channel bindings, which Windows calls Extended Protection): a server that demands that
// refuses them.
//
// A server that goes on with NTLM gets no answer. If a ticket cannot be had, the request fails, and no scheme that comes after
// this one in Transport.Schemes is used in its place. But a server that does not ask for Negotiate at all, or has refused a token that
// was sent ahead, gets what it asks for, of what there is: who does not want it to have a password does not put Basic there.
//
// # Connections
//
// Some servers authenticate the connection: Apache with GssapiConnectionBound, IIS. What comes on it later is the same user's to them,
// whatever it has. So requests with tokens go by connections that are the account's own: by a clone of Transport.Base for each
// account, and for each user who is in a Client's credential cache in turn. It speaks HTTP/2 if Base does. That needs an
// *http.Transport or an *authretry.ProxyTransport there, or Scheme.SharedConnections.
//
// # Where tickets come from
//
// A [Client] is Kerberos in Go, on the messages and ciphers of github.com/jcmturner/gokrb5. It reads krb5.conf, keytabs and
// credential caches of the type FILE, asks KDCs by TCP, and follows referrals to other realms. Its clock must be right to 5 minutes.
// Not there are PKINIT and other ways to log in than a password or a key, FAST, S4U, and UDP.
//
// On Windows, [Default] is the Kerberos of SSPI. That part compiles, and has not been tested with a server.
//
// For another one, such as a binding to the system's GSSAPI, implement [Kerberos], which has two methods.
package negotiate
