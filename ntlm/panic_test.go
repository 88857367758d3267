package ntlm_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/ntlm"
	"github.com/stretchr/testify/require"
)

// What the program gives to Base may panic, or end the goroutine. The request has failed then, and takes no place from others.
func TestCallbackThatPanics(t *testing.T) {
	for name, bad := range map[string]func(){"panic": func() { panic("x") }, "Goexit": runtime.Goexit} {
		for _, where := range []string{"Proxy", "DialContext", "httptrace"} {
			t.Run(name+" in "+where, func(t *testing.T) {
				l := newLab(t, nil)
				var isBad atomic.Bool
				maybe := func(here string) {
					if here == where && isBad.Load() {
						bad()
					}
				}
				scheme := &ntlm.Scheme{Username: "mufasa", Password: secret, MaxConns: 1}
				client := newClient(t, scheme, func(_ *authretry.Transport, base *http.Transport) {
					base.Proxy = func(*http.Request) (*url.URL, error) { maybe("Proxy"); return nil, nil }
					base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
						maybe("DialContext")
						return new(net.Dialer).DialContext(ctx, network, address)
					}
				})
				trace := &httptrace.ClientTrace{ConnectStart: func(string, string) { maybe("httptrace") }}
				req := newRequest(t, "GET", l.URL+"/a", nil)
				req = req.WithContext(httptrace.WithClientTrace(req.Context(), trace))
				getOK(t, client, l.URL+"/a")
				for range 3 {
					client.CloseIdleConnections()
					isBad.Store(true)
					ended := make(chan struct{})
					go func() {
						defer close(ended)
						resp, err := client.Do(req)
						if err == nil {
							resp.Body.Close()
							t.Error("it was not called")
						}
					}()
					<-ended
					isBad.Store(false)
					getOK(t, client, l.URL+"/a")
				}
				_, conns := scheme.Pools()
				require.LessOrEqual(t, conns, 1)
			})
		}
	}
}
