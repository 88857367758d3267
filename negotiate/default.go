//go:build !windows

package negotiate

// Default returns the Kerberos of whoever runs the program: on Windows the one of SSPI, which has not been tested with a server;
// elsewhere a [Client] with the default credential cache.
func Default() Kerberos { return new(Client) }
