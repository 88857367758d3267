package servers

import (
	"strconv"
	"testing"
)

// PDS starts a Personal Data Server of the AT Protocol, which is an authorization server and a resource server that take DPoP
// only, with nonces. It knows itself as localhost, and has no accounts.
func PDS(t testing.TB) *Server {
	t.Helper()
	port := freePort(t)
	data := folder(t)
	runNode(t, data, port, "pds.mjs", strconv.Itoa(port), data)
	return &Server{URL: "http://localhost:" + strconv.Itoa(port), Dir: data}
}
