package authtest

import (
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// A request may come as soon as the port is open, from a program that has known it as another server's.
func TestURLIsThereBeforeTheFirstRequest(t *testing.T) {
	s := newServer([]Guard{&OAuth{}})
	s.http = httptest.NewUnstartedServer(s)
	s.start("http", func() {
		require.NotEmpty(t, s.URL)
		s.http.Start()
	})
	defer s.Close()
	require.Equal(t, s.http.URL, s.URL)
	for _, other := range []*Server{NewTLSServer(), NewHTTP2Server(), NewPipeServer()} {
		require.Equal(t, other.http.URL, other.URL)
		other.Close()
	}
}
