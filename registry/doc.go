// Package registry has the token authentication of container registries: Docker Hub, GitHub's, GitLab's, Quay, Harbor, and
// whatever else follows the distribution specification. It is built on what package authretry exports, and needs nothing else.
//
//	credentials := registry.DockerConfig("") // as docker login has left them
//	client := &http.Client{Transport: authretry.New(
//		&registry.Scheme{Credentials: credentials},
//		&authretry.Basic{Credentials: credentials}, // for registries without a token server
//	)}
//	resp, err := client.Get("https://registry-1.docker.io/v2/library/alpine/manifests/latest")
//
// Pulls, pushes and mounts by plain net/http then get the tokens that they need. The same Transport goes below clients that have an
// authentication of their own, with that left out: go-containerregistry by remote.WithTransport, without WithAuth and
// WithAuthFromKeychain; oras-go by an http.Client as Repository.Client, in place of an auth.Client.
//
// # Which token servers are asked
//
// A registry names its token server in a challenge, and whoever has that challenge written has us send a request there, perhaps with
// the user's password. So a token server must be:
//
//   - A URL of at most 8 KiB with a host, without user name and fragment. A relative one is resolved. It is https; or http,
//     if that is what the registry was asked by, and on this machine if that is where the registry is.
//   - In Scheme.Realms, for a registry that is there.
//   - At an address that the registry might reach as well. It is judged when it is about to be dialled, after DNS. Private networks
//     (RFC 1918, RFC 4193, RFC 6598) are for registries that are in one themselves, and this machine is for registries that are
//     here; link-local addresses, metadata services, multicast and the like are for nobody. Addresses in other addresses
//     (IPv4-mapped, NAT64, 6to4, Teredo) count as what they lead to. The connection by which the challenge came says where the
//     registry is. If it came by a proxy, or by a DialContext of yours to another port, the registry counts as outside; then
//     Scheme.Realms is the way to have a token server in a private network, unless it is the registry itself.
//
// Redirects of a token server are not followed, its answer may have 1 MiB and take 10 seconds.
//
// The connections to token servers go by the proxy that the environment names ($HTTPS_PROXY and so on). It is the proxy then that
// resolves the name. So it is resolved here, too, and refused if any of its addresses would be; but what the proxy finds a moment
// later nobody can know, and a name that cannot be resolved here is left to the proxy. Where a proxy could reach what it must
// not, use Scheme.Realms.
//
// # Which get credentials
//
// Credentials are looked up by the registry's origin, and go to the token server that it names first. If it names another one
// later, that one gets none, until the program ends: the refusal goes to the caller with authretry.ReasonUntrustedRealm, and
// an event says so. One to which there was no connection, or only one whose certificate is not trusted, has got none, and does not
// count. A registry that may change its token server, or has several, belongs into Scheme.Realms. The registry itself
// may always have its own credentials.
//
// Where there are no credentials for a registry, tokens are asked for without. If such a token does not suffice, the refusal goes to the
// caller with authretry.ReasonNoCredentials, and authretry.Explain says where credentials were looked for, and what to run or to
// set. Many registries answer in the same way for what does not exist.
//
// A blob that is elsewhere, to which the registry redirects, gets neither token nor credentials: authretry.Transport keeps both with
// the origin that the caller has addressed. To keep them with the registries that are meant, set Transport.Origins.
//
// # Plain http
//
// As all credentials, tokens go over plain http to this machine only, unless Transport.AllowPlaintext is set.
package registry
