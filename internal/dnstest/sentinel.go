package dnstest

import (
	"net"
	"net/http"
	"sync/atomic"
	"testing"
)

// Sentinel listens on every address of this machine for as long as the test lives. It returns its port, and how many connections it
// has seen.
func Sentinel(t testing.TB) (port string, connections *atomic.Int32) {
	t.Helper()
	connections = new(atomic.Int32)
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler(), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, connections
}
