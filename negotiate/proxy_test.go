package negotiate

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
)

// A testProxy is a forward proxy that wants Negotiate of the service at 127.0.0.1.
type testProxy struct {
	service       *testService
	plain, tunnel atomic.Int32 // requests that were refused, and let through, of either kind
	mute          bool
}

func (p *testProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	count := &p.plain
	if r.Method == http.MethodConnect {
		count = &p.tunnel
	}
	count.Add(1)
	asked := r.Clone(r.Context())
	asked.Header = http.Header{"Authorization": r.Header["Proxy-Authorization"]}
	rec := httptest.NewRecorder()
	p.service.ServeHTTP(rec, asked)
	proof := rec.Header()["Www-Authenticate"]
	if rec.Code != 200 {
		w.Header()["Proxy-Authenticate"] = proof
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	if r.Method != http.MethodConnect {
		if !p.mute {
			w.Header()["Proxy-Authentication-Info"] = proof
		}
		io.WriteString(w, "for "+rec.Body.String()+r.Header.Get("Authorization"))
		return
	}
	to, err := net.Dial("tcp", r.Host)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	from, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	info := "Proxy-Authentication-Info: " + proof[0] + "\r\n"
	if p.mute {
		info = ""
	}
	io.WriteString(from, "HTTP/1.1 200 OK\r\n"+info+"\r\n")
	go func() {
		defer to.Close()
		io.Copy(to, from)
	}()
	go func() {
		defer from.Close()
		io.Copy(from, to)
	}()
}

// A proxy's 407 is answered, of a plain request and of a CONNECT, with a token for the proxy's own service; its proof is
// verified if that is wanted.
func TestProxy(t *testing.T) {
	origin := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "" {
			t.Error("the origin has got the proxy's token")
		}
		io.WriteString(w, "the origin")
	}))
	defer origin.Close()
	for _, ahead := range []bool{false, true} {
		for _, mute := range []bool{false, true} {
			for _, mutual := range []bool{false, true} {
				k := newTestKDC(t, loopbackSPN)
				p := &testProxy{service: newTestService(k), mute: mute}
				srv := httptest.NewServer(p)
				at, err := url.Parse(srv.URL)
				require.NoError(t, err)
				base := origin.Client().Transport.(*http.Transport).Clone()
				base.Proxy = http.ProxyURL(at)
				rt := authretry.NewProxyTransport(base, &Scheme{Kerberos: k.client("alice"), Ahead: ahead, Mutual: mutual})
				for n := range int32(3) {
					resp, err := (&http.Client{Transport: rt}).Get("http://origin.test/")
					require.Equal(t, mute && mutual, err != nil, "%v", err)
					if err != nil {
						require.ErrorContains(t, err, "has no proof")
						continue
					}
					body, err := io.ReadAll(resp.Body)
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					require.Equal(t, "for alice", string(body))
					require.Equal(t, map[bool]int32{false: n + 2, true: n + 1}[ahead], p.plain.Load())
				}
				resp, err := (&http.Client{Transport: rt}).Get(origin.URL)
				require.Equal(t, mute && mutual, err != nil, "%v", err)
				if err == nil {
					body, err := io.ReadAll(resp.Body)
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					require.Equal(t, "the origin", string(body))
					require.EqualValues(t, 1, p.tunnel.Load(), "what the proxy wants is known by now")
				} else {
					require.ErrorContains(t, err, "has no proof")
				}
				rt.CloseIdleConnections()
				srv.Close()
			}
		}
	}
}

// Through a proxy that wants Negotiate to an origin that does: each gets its own token, and the connections to the origin are the
// account's own.
func TestProxyBeforeAnOrigin(t *testing.T) {
	k := newTestKDC(t, loopbackSPN, "HTTP/localhost")
	srv := newBoundServer(t, k, true)
	proxy := httptest.NewServer(&testProxy{service: newTestService(k)})
	defer proxy.Close()
	at, err := url.Parse(strings.Replace(proxy.URL, "127.0.0.1", "localhost", 1))
	require.NoError(t, err)
	base := &http.Transport{Proxy: http.ProxyURL(at), TLSClientConfig: srv.tlsConfig(), ForceAttemptHTTP2: true}
	proxied := authretry.NewProxyTransport(base, &Scheme{Kerberos: k.client("bob")})
	rt := &authretry.Transport{Base: proxied, Schemes: []authretry.Scheme{&Scheme{Kerberos: k.client("alice"), Mutual: false}}}
	for range 5 {
		status, user := get(t, rt, srv.URL)
		require.Equal(t, 200, status)
		require.Equal(t, "alice", user)
	}
	rt.CloseIdleConnections()
}

// A proxy has no accounts.
func TestProxyHasNoAccounts(t *testing.T) {
	k := newTestKDC(t, loopbackSPN)
	srv := httptest.NewServer(&testProxy{service: newTestService(k)})
	defer srv.Close()
	at, err := url.Parse(srv.URL)
	require.NoError(t, err)
	rt := authretry.NewProxyTransport(&http.Transport{Proxy: http.ProxyURL(at)}, &Scheme{Accounts: nobodys})
	_, err = rt.RoundTrip(newRequest(t, "http://origin.test/"))
	require.ErrorContains(t, err, "a proxy has no accounts: set Scheme.Kerberos")
}
