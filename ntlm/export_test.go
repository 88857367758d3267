package ntlm

import (
	"crypto/tls"
	"io"
	"net/http"
)

// ChannelBindings are what a login by a TLS connection is bound to.
func ChannelBindings(state *tls.ConnectionState) []byte { return channelBindings(state) }

// AuthenticateMessage answers a server's message.
func AuthenticateMessage(message []byte, name, password string) (string, error) {
	return user{name, password}.authenticateMessage(message, "HTTP/www.example.com", []byte("0123456789abcdef"))
}

// Pools returns of how many places the Scheme knows that there are connections, and how many those are.
func (s *Scheme) Pools() (places, conns int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pools {
		p.mu.Lock()
		conns += p.conns
		p.mu.Unlock()
	}
	return len(s.pools), conns
}

// A HeldBody is the body of a request, for one try or two.
type HeldBody struct{ h *heldBody }

func HoldBody(req *http.Request) HeldBody { return HeldBody{holdBody(req)} }
func (h HeldBody) Take() io.ReadCloser    { return h.h.take() }
func (h HeldBody) Renew() bool            { return h.h.renew() }
func (h HeldBody) End(failed bool)        { h.h.end(failed) }
