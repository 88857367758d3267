package negotiate

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
)

type connKey struct{}

// A boundServer authenticates connections, as mod_auth_gssapi does with GssapiConnectionBound: who has proved itself on one is
// taken for its user for as long as it lasts, whatever comes.
type boundServer struct {
	*httptest.Server
	service *testService
	conns   atomic.Int32 // that were opened
	open    atomic.Int32
	mu      sync.Mutex
	user    map[net.Conn]string // guarded by mu
}

func newBoundServer(t *testing.T, k *testKDC, http2 bool) *boundServer {
	b := &boundServer{service: newTestService(k), user: map[net.Conn]string{}}
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		c := r.Context().Value(connKey{}).(net.Conn)
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.user[c] == "" {
			rec := httptest.NewRecorder()
			b.service.ServeHTTP(rec, r)
			if rec.Code == 200 {
				b.user[c] = rec.Body.String()
			} else {
				w.Header()["Www-Authenticate"] = rec.Header()["Www-Authenticate"]
				w.WriteHeader(rec.Code)
				return
			}
		}
		io.WriteString(w, b.user[c])
	}))
	b.EnableHTTP2 = http2
	b.Config.ErrorLog = log.New(io.Discard, "", 0) // dials that are not needed any more are cut short
	b.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	b.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			b.conns.Add(1)
			b.open.Add(1)
		case http.StateClosed:
			b.open.Add(-1)
		}
	}
	if http2 {
		b.StartTLS()
	} else {
		b.Start()
	}
	t.Cleanup(b.Close)
	return b
}

type accountKey struct{}

// The requests of one account are never taken for another's, nor those of nobody for somebody's, by a server that authenticates
// connections. By HTTP/2, there is one connection for each account.
func TestConnectionsAreNotShared(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		for _, ahead := range []bool{false, true} {
			k := newTestKDC(t, loopbackSPN)
			srv := newBoundServer(t, k, http2)
			base := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: srv.tlsConfig()}
			scheme := &Scheme{Ahead: ahead, Accounts: func(_ context.Context, account string) (Kerberos, error) { return k.client(account), nil }}
			rt := &authretry.Transport{Base: base, Schemes: []authretry.Scheme{scheme}, Account: func(r *http.Request) string {
				account, _ := r.Context().Value(accountKey{}).(string)
				return account
			}}
			send := func(account string) (int, string) {
				req, err := http.NewRequestWithContext(context.WithValue(t.Context(), accountKey{}, account), "GET", srv.URL+"/x", nil)
				if err != nil {
					t.Error(err)
					return 0, ""
				}
				resp, err := rt.RoundTrip(req)
				if err != nil {
					t.Error(err)
					return 0, ""
				}
				defer resp.Body.Close()
				body, _ := io.ReadAll(resp.Body)
				if (resp.ProtoMajor == 2) != http2 {
					t.Error(resp.Proto)
				}
				return resp.StatusCode, string(body)
			}
			var workers sync.WaitGroup
			for i := range 12 {
				workers.Go(func() {
					for range 10 {
						account := []string{"alice", "bob", "carol", ""}[i%4]
						status, user := send(account)
						want := 200
						if account == "" {
							want = 401
						}
						if status != want || user != account {
							t.Errorf("%d %q for %q", status, user, account)
						}
					}
				})
			}
			workers.Wait()
			if http2 { // where dials that are too many are closed again
				require.LessOrEqual(t, len(srv.users()), 3*4)
			}
			rt.Forget("alice")
			rt.CloseIdleConnections()
			require.Eventually(t, func() bool { return srv.open.Load() == 0 }, 20*time.Second, time.Millisecond)
		}
	}
}

func (b *boundServer) tlsConfig() *tls.Config {
	if b.TLS == nil {
		return nil
	}
	return b.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
}

// users returns the users of all connections.
func (b *boundServer) users() (list []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, user := range b.user {
		list = append(list, user)
	}
	return list
}

// One connection by HTTP/2 serves all requests of an account, and Base stays as it is.
func TestHTTP2StaysOneConnection(t *testing.T) {
	k := newTestKDC(t, loopbackSPN)
	srv := newBoundServer(t, k, true)
	base := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: srv.tlsConfig()}
	rt := &authretry.Transport{Base: base, Schemes: []authretry.Scheme{&Scheme{Kerberos: k.client("alice")}}}
	for range 20 {
		status, user := get(t, rt, srv.URL)
		require.Equal(t, 200, status)
		require.Equal(t, "alice", user)
	}
	require.EqualValues(t, 2, srv.conns.Load(), "Base's, which was refused, and the account's")
	rt.Forget("")
	require.Eventually(t, func() bool { return srv.open.Load() == 1 }, 20*time.Second, time.Millisecond)
	rt.CloseIdleConnections()
	require.Eventually(t, func() bool { return srv.open.Load() == 0 }, 20*time.Second, time.Millisecond)
}

// What cannot be cloned is an error that says what to do, and works then.
func TestBaseThatCannotBeCloned(t *testing.T) {
	k := newTestKDC(t, testSPN)
	s := &Scheme{Kerberos: k.client("alice")}
	rt := &authretry.Transport{Base: by{newTestService(k)}, Schemes: []authretry.Scheme{s}}
	_, err := rt.RoundTrip(newRequest(t, testURL))
	require.ErrorContains(t, err, "Transport.Base must be an *http.Transport or a *ProxyTransport")
	status, _ := get(t, to(newTestService(k), &Scheme{Kerberos: k.client("alice")}), testURL)
	require.Equal(t, 200, status)
	_, err = new(carriers).get(carrierKey{"", by{}})
	require.ErrorContains(t, err, "SharedConnections")
}

// However many accounts there are, as many clones are kept as there may be, and those that go close their connections.
func TestClonesAreBounded(t *testing.T) {
	var c carriers
	base := &http.Transport{}
	for i := range maxCarriers + 100 {
		_, err := c.get(carrierKey{string(rune(i)), base})
		require.NoError(t, err)
	}
	require.Equal(t, maxCarriers, c.all.Len())
	first, err := c.get(carrierKey{"x", base})
	require.NoError(t, err)
	again, err := c.get(carrierKey{"x", base})
	require.NoError(t, err)
	require.Same(t, first, again)
	require.Equal(t, idleTimeout, first.clone.(*http.Transport).IdleConnTimeout)
	require.Zero(t, base.IdleConnTimeout)
}
