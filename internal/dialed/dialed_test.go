package dialed

import (
	"net"
	"net/http/httptrace"
	"testing"

	"github.com/stretchr/testify/require"
)

type conn struct {
	net.Conn
	at string
}

func (c conn) RemoteAddr() net.Addr { return c }
func (c conn) Network() string      { return "tcp" }
func (c conn) String() string       { return c.at }

// An address is that of the server if the connection was asked for the server, and has its port, or the host says so.
func TestWatch(t *testing.T) {
	for _, c := range []struct{ target, asked, at, want string }{
		{"example.com:443", "example.com:443", "192.0.2.1:443", "192.0.2.1:443"},
		{"example.com:443", "EXAMPLE.com:443", "[2001:db8::1]:443", "[2001:db8::1]:443"},
		{"[::1]:443", "[::1]:443", "[::1]:443", "[::1]:443"},
		{"example.com:443", "proxy.example.com:3128", "192.0.2.2:3128", ""},
		{"example.com:443", "example.com:443", "127.0.0.1:1080", ""}, // a dialer that goes by SOCKS
		{"localhost.example.com:443", "localhost.example.com:443", "127.0.0.1:1080", ""},
		{"127.0.0.2:443", "127.0.0.2:443", "127.0.0.1:1080", ""},
		{"127.0.0.1:443", "127.0.0.1:443", "127.0.0.1:1080", "127.0.0.1:1080"}, // which the URL says, too
		{"[::1]:443", "[::1]:443", "[::1]:1080", "[::1]:1080"},
		{"Localhost:443", "Localhost:443", "127.0.0.1:1080", "127.0.0.1:1080"},
		{"localhost:443", "localhost:443", "192.0.2.1:1080", ""},
		{"example.com:443", "example.com:443", "@", ""},
		{"example.com:443", "example.com:443", "", ""},
	} {
		w, ctx := New(t.Context(), c.target)
		trace := httptrace.ContextClientTrace(ctx)
		trace.GetConn(c.asked)
		trace.GotConn(httptrace.GotConnInfo{Conn: conn{at: c.at}})
		require.Equal(t, c.want, w.Addr(), c)
	}
	require.Empty(t, (*Watch)(nil).Addr())
}
