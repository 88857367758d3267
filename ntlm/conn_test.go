package ntlm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/ntlm"
	"github.com/stretchr/testify/require"
)

// Of the caller's headers, the first message has what a gateway may go by, and no more.
func TestHeadersOfTheFirstMessage(t *testing.T) {
	var got []http.Header
	l := newLab(t, func(l *lab) {
		l.second = func(_ http.ResponseWriter, r *http.Request) bool {
			got = append(got, r.Header.Clone())
			return false
		}
	})
	req := newRequest(t, "PUT", l.URL+"/a", strings.NewReader("body"))
	for _, name := range []string{"User-Agent", "Cookie", "X-Secret", "If-Match", "Content-Type", "Upgrade"} {
		req.Header.Set(name, "a="+name)
	}
	status, _ := do(t, newClient(t, nil, nil), req)
	require.Equal(t, 200, status)
	require.Len(t, got, 1)
	delete(got[0], "Authorization")
	require.Equal(t, http.Header{"User-Agent": {"a=User-Agent"}, "Cookie": {"a=Cookie"}, "Accept-Encoding": {"gzip"}, "Content-Length": {"0"}}, got[0])
}

// A connection that the server closes while it is idle is not used, and leaves nothing behind.
func TestIdleConnectionThatTheServerHasClosed(t *testing.T) {
	l := newLab(t, nil)
	scheme := &ntlm.Scheme{Username: "mufasa", Password: secret}
	client := newClient(t, scheme, nil)
	for i := range 5 {
		status, body := do(t, client, newRequest(t, "POST", l.URL+"/a", io.MultiReader(strings.NewReader("once"))))
		require.Equal(t, 200, status)
		require.Equal(t, "hello mufasa, 4 bytes", body)
		require.EqualValues(t, i+1, l.handshake.Load())
		l.CloseClientConnections()
		require.Eventually(t, func() bool { _, conns := scheme.Pools(); return conns == 0 }, 30*time.Second, time.Millisecond)
	}
}

// A request that meets a connection that was dead already is sent by a new one, and not by the next of those that are as old.
func TestConnectionsThatAreAllDead(t *testing.T) {
	const conns = 3
	var mu sync.Mutex
	dead := map[string]bool{} // by the client's address
	var isOver bool
	together := make(chan struct{}, conns)
	l := newLab(t, func(l *lab) {
		l.after = func(w http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			if !isOver {
				dead[r.RemoteAddr] = true
				all := len(dead) == conns
				mu.Unlock()
				if all {
					close(together)
				}
				<-together // so that there are as many connections
				return false
			}
			isDead := dead[r.RemoteAddr]
			mu.Unlock()
			if isDead { // as a gateway has forgotten those that were idle, and closes them when something comes
				conn, _, _ := w.(http.Hijacker).Hijack()
				conn.Close()
			}
			return isDead
		}
	})
	client := newClient(t, nil, nil)
	var all sync.WaitGroup
	for range conns {
		all.Go(func() { getOK(t, client, l.URL) })
	}
	all.Wait()
	mu.Lock()
	isOver = true
	mu.Unlock()
	getOK(t, client, l.URL)
}

// The end of a request's context ends it in each phase, and its connection with it.
func TestContextEndsInEachPhase(t *testing.T) {
	for _, phase := range []string{"first message", "login", "body"} {
		t.Run(phase, func(t *testing.T) {
			reached, ended := make(chan struct{}, 1), make(chan struct{})
			hang := func(r *http.Request) {
				reached <- struct{}{}
				select {
				case <-r.Context().Done():
				case <-ended:
				}
			}
			l := newLab(t, func(l *lab) {
				l.second = func(_ http.ResponseWriter, r *http.Request) bool {
					if phase == "first message" {
						hang(r)
					}
					return false
				}
				l.after = func(w http.ResponseWriter, r *http.Request) bool {
					if phase == "body" {
						w.(http.Flusher).Flush()
					}
					hang(r)
					return true
				}
			})
			defer close(ended)
			scheme := &ntlm.Scheme{Username: "mufasa", Password: secret, MaxConns: 1}
			client := newClient(t, scheme, nil)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if phase != "body" {
				go func() {
					<-reached
					cancel(errCause)
				}()
			}
			resp, err := client.Do(newRequest(t, "POST", l.URL+"/a", strings.NewReader("body")).WithContext(ctx))
			if phase == "body" {
				require.NoError(t, err)
				cancel(errCause)
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			require.ErrorIs(t, err, errCause)
			require.Eventually(t, func() bool { _, conns := scheme.Pools(); return conns == 0 }, 30*time.Second, time.Millisecond)
		})
	}
}

// A connection is for one proxy. One that is idle makes room for one by another.
func TestConnectionsByAnotherProxy(t *testing.T) {
	l := newLab(t, nil)
	at, err := url.Parse(l.URL)
	require.NoError(t, err)
	scheme := &ntlm.Scheme{Username: "mufasa", Password: secret, MaxConns: 1}
	client := newClient(t, scheme, func(tr *authretry.Transport, base *http.Transport) {
		tr.AllowPlaintext = true
		base.Proxy = func(req *http.Request) (*url.URL, error) {
			switch req.URL.Path {
			case "/a/proxied":
				return at, nil
			case "/a/failing":
				return nil, errors.New("no proxy today")
			}
			return nil, nil
		}
	})
	for i := range 4 {
		getOK(t, client, l.URL+[]string{"/a/direct", "/a/proxied"}[i%2])
		_, conns := scheme.Pools()
		require.Equal(t, 1, conns)
	}
	require.EqualValues(t, 4, l.handshake.Load())
	_, err = client.Get(l.URL + "/a/failing")
	require.ErrorContains(t, err, "no proxy today")
}

// A Scheme knows of a bounded number of places.
func TestPlacesAreBounded(t *testing.T) {
	scheme := &ntlm.Scheme{Username: "mufasa", Password: secret}
	base := &http.Transport{}
	for i := range 5000 {
		refusal := &http.Response{StatusCode: 401, Header: http.Header{}, Request: newRequest(t, "GET", fmt.Sprintf("https://%d.test/", i), nil)}
		session, err := scheme.Answer(t.Context(), &authretry.Challenge{Scheme: "NTLM"}, refusal)
		require.NoError(t, err)
		_, err = session.(authretry.Carrier).Carry(t.Context(), base)
		require.NoError(t, err)
	}
	places, _ := scheme.Pools()
	require.Equal(t, 4096, places)
}

// Of connections that the server has forgotten, one that is refused tells of all that are as old.
func TestConnectionsThatAreNotAuthenticatedAnyMore(t *testing.T) {
	l := newLab(t, nil)
	client := newClient(t, nil, nil)
	for range 3 {
		var held []*http.Response
		for range 4 {
			resp, err := client.Get(l.URL + "/a")
			require.NoError(t, err)
			require.Equal(t, 200, resp.StatusCode)
			held = append(held, resp)
		}
		for _, resp := range held {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		l.forgetConns()
		l.take()
		getOK(t, client, l.URL+"/a")
		require.Equal(t, []string{"GET /a", "GET /a 1", "GET /a 3"}, l.take())
		getOK(t, client, l.URL+"/a")
		require.Equal(t, []string{"GET /a"}, l.take())
	}
}

// That credentials were refused is held against nobody but whose request it was.
func TestRefusalIsNotRemembered(t *testing.T) {
	l := newLab(t, nil)
	scheme := &ntlm.Scheme{Username: "mufasa", Password: secret}
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	share := func(tr *authretry.Transport, _ *http.Transport) { tr.Base = base }
	one, other := newClient(t, scheme, share), newClient(t, scheme, share)
	held, err := one.Get(l.URL + "/a") // so that the connections are in use
	require.NoError(t, err)
	setPassword := func(password string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.passwords["mufasa"] = password
	}
	setPassword("another")
	status, _ := do(t, other, newRequest(t, "GET", l.URL+"/a", nil))
	require.Equal(t, 401, status)
	setPassword(secret)
	getOK(t, other, l.URL+"/a")
	held.Body.Close()
}

// Connections that are in use when their account is forgotten are closed after that, and nothing is known of a place without users.
func TestForgottenWhileInUse(t *testing.T) {
	l := newLab(t, nil)
	scheme := &ntlm.Scheme{Username: "mufasa", Password: secret}
	var transport *authretry.Transport
	client := newClient(t, scheme, func(tr *authretry.Transport, _ *http.Transport) { transport = tr })
	for _, forget := range []func(){func() { transport.Forget("") }, func() { transport.CloseIdleConnections() }} {
		resp, err := client.Get(l.URL + "/a")
		require.NoError(t, err)
		forget()
		places, _ := scheme.Pools()
		require.Zero(t, places)
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		client.CloseIdleConnections()
		require.Eventually(t, func() bool { return l.open.Load() == 0 }, 30*time.Second, time.Millisecond)
	}
}

// A Scheme around this one that mixes up accounts is stopped by the connections.
func TestConnectionsKnowTheirAccount(t *testing.T) {
	l := newLab(t, nil)
	mixing := &mixingUp{Scheme: &ntlm.Scheme{Username: "mufasa", Password: secret}}
	client := &http.Client{Transport: &authretry.Transport{
		Base: &http.Transport{}, Schemes: []authretry.Scheme{mixing},
		Account: func(req *http.Request) string { return req.Header.Get("X-User") },
	}}
	for _, user := range []string{"alice", "bob"} {
		req := newRequest(t, "GET", l.URL+"/a", nil)
		req.Header.Set("X-User", user)
		resp, err := client.Do(req)
		if user == "alice" {
			require.NoError(t, err)
			resp.Body.Close()
		} else {
			require.ErrorContains(t, err, "of another account")
		}
	}
}

// mixingUp asks for everybody's Session as if it were the first one's.
type mixingUp struct {
	authretry.Scheme
	ctx context.Context
}

func (m *mixingUp) Answer(ctx context.Context, c *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
	if m.ctx == nil {
		m.ctx = ctx
	}
	return m.Scheme.Answer(m.ctx, c, refusal)
}

// Of which origin credentials are asked for, and where they do not go.
func TestOriginOfCredentials(t *testing.T) {
	l := newLab(t, nil)
	var origins []string
	client := newClient(t, &ntlm.Scheme{Credentials: func(_ context.Context, r authretry.CredentialsRequest) (string, string, error) {
		origins = append(origins, r.Origin)
		return "mufasa", secret, nil
	}}, func(tr *authretry.Transport, base *http.Transport) {
		tr.AllowPlaintext = true
		base.DialContext = dialling(l.Listener.Addr().String())
	})
	for _, u := range []string{"http://Intranet.test/", "http://intranet.test:80/x/", "http://intranet.test:8080/", "http://[::1]:8080/"} {
		getOK(t, client, u)
	}
	require.Equal(t, []string{"http://intranet.test", "http://intranet.test:8080", "http://[::1]:8080"}, origins)
	_, err := client.Get("http://bücher.test/")
	require.ErrorContains(t, err, "write it as xn--")
}

// A body that nobody has read is there for another try, and is closed once, when that is over.
func TestHeldBody(t *testing.T) {
	for name, c := range map[string]struct{ reads, hasGetBody, renews, closes bool }{
		"not read":           {false, false, true, true},
		"read":               {true, false, false, true},
		"read, not closed":   {true, false, false, false},
		"read, with GetBody": {true, true, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := &countingBody{Reader: strings.NewReader("body")}, &countingBody{Reader: strings.NewReader("body")}
			req := &http.Request{Body: first}
			if c.hasGetBody {
				req.GetBody = func() (io.ReadCloser, error) { return second, nil }
			}
			held := ntlm.HoldBody(req)
			lent := held.Take()
			if c.reads {
				lent.Read(make([]byte, 2))
			}
			if c.closes {
				lent.Close()
			}
			require.Zero(t, first.closes)
			require.Equal(t, c.renews, held.Renew())
			if c.renews {
				_, err := lent.Read(make([]byte, 2))
				require.Equal(t, c.reads, err == nil, "what was taken back cannot be read")
				again := held.Take()
				b, err := io.ReadAll(again)
				require.NoError(t, err)
				require.Equal(t, "body", string(b))
				held.End(false)
				again.Close()
				again.Close()
			} else {
				held.End(true)
			}
			require.Equal(t, 1, first.closes)
			require.Equal(t, map[bool]int{true: 1, false: 0}[c.hasGetBody], second.closes)
		})
	}
}

type countingBody struct {
	io.Reader
	closes int
}

func (c *countingBody) Close() error { c.closes++; return nil }

// A proxy that does not answer at all is waited for 30 seconds.
func TestProxyDialerTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &ntlm.ProxyDialer{Proxy: &url.URL{Scheme: "http", Host: "127.0.0.1"}, Username: "mufasa", Password: secret}
		var far net.Conn
		d.Dial = func(context.Context, string, string) (near net.Conn, err error) {
			near, far = net.Pipe()
			go io.Copy(io.Discard, far)
			return near, nil
		}
		began := time.Now()
		_, err := d.DialContext(t.Context(), "tcp", "origin.test:443")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "has not answered")
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout())
		require.Equal(t, 30*time.Second, time.Since(began))
		far.Close()
	})
}
