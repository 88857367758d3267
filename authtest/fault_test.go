package authtest

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFaultsTakeTurns(t *testing.T) {
	srv := NewServer(newBasic())
	defer srv.Close()
	srv.Inject("/a", 2, Refuse())
	srv.Inject("/", 1, Redirect(307, "https://elsewhere.example/"))
	srv.Inject("/a", 1, Reply(418, nil, "teapot"))
	var status []int
	for range 5 {
		status = append(status, send(t, srv, "GET", "/a", "", aladdin).StatusCode)
	}
	require.Equal(t, []int{401, 401, 307, 418, 200}, status)
	requests := srv.Requests()
	require.Equal(t, "GET /a 401 injected: refuse", requests[0].String())
	require.Equal(t, `Basic realm="authtest"`, requests[0].ResponseHeader.Get("WWW-Authenticate"))
	require.Equal(t, "GET /a 307 injected: redirect", requests[2].String())
	require.Equal(t, "https://elsewhere.example/", requests[2].ResponseHeader.Get("Location"))
	require.Equal(t, "GET /a 418 injected: reply 418", requests[3].String())
	require.Equal(t, Counts{Requests: 5, Injected: 4, Accepted: 1}, srv.Counts())
}

func TestFaultsForEver(t *testing.T) {
	srv := NewServer()
	defer srv.Close()
	srv.Inject("/", -1, Refuse())
	for range 3 {
		require.Equal(t, 401, send(t, srv, "GET", "/", "", nil).StatusCode)
	}
	srv.Reset()
	require.Equal(t, 200, send(t, srv, "GET", "/", "", nil).StatusCode)
}

func TestFaultsOfRefusals(t *testing.T) {
	srv := NewServer(newBasic(), &Bearer{})
	defer srv.Close()
	srv.Inject("/", 1, DropChallenge())
	srv.Inject("/", 2, JoinChallenges())
	srv.Inject("/", 3, RewriteChallenges(func(values []string) []string { return append(values, `Garbled "`) }))
	require.Equal(t, 200, send(t, srv, "GET", "/", "", aladdin).StatusCode, "an accepted request meets none of them")
	for _, want := range [][]string{
		{`Garbled "`},
		{`Basic realm="authtest", Bearer realm="authtest"`, `Garbled "`},
		{`Basic realm="authtest"`, `Bearer realm="authtest"`, `Garbled "`},
		{`Basic realm="authtest"`, `Bearer realm="authtest"`},
	} {
		resp := send(t, srv, "GET", "/", "", nil)
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, want, resp.Header["Www-Authenticate"])
	}
	require.Equal(t, 4, srv.Counts().Challenged)

	srv.Inject("/", 1, DropChallenge())
	_, present := send(t, srv, "GET", "/", "", auth("Basic eDp5")).Header["Www-Authenticate"]
	require.False(t, present)
}

func TestCloseUnread(t *testing.T) {
	srv := NewPipeServer(newBasic())
	defer srv.Close()
	srv.Inject("/", 1, CloseUnread())
	conn, r := dial(t, srv, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	require.Equal(t, 401, resp.StatusCode)
	require.Equal(t, `Basic realm="authtest"`, resp.Header.Get("WWW-Authenticate"))
	require.True(t, resp.Close)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "authtest: refused\n", string(text))
	_, err = io.WriteString(conn, "hello")
	require.ErrorIs(t, err, io.ErrClosedPipe)
	record := srv.Requests()[0]
	require.Equal(t, "PUT / 401 challenged", record.String())
	require.Zero(t, record.BodyLength)
	require.False(t, record.BodyComplete)

	// The next one keeps the connection and takes the body.
	_, r = dial(t, srv, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
	resp, err = http.ReadResponse(r, nil)
	require.NoError(t, err)
	require.False(t, resp.Close)
	require.True(t, srv.Requests()[1].BodyComplete)
}

func TestCloseUnreadOverHTTP2(t *testing.T) {
	srv := NewHTTP2Server(newBasic())
	defer srv.Close()
	srv.Inject("/", 1, CloseUnread())
	require.Equal(t, 401, send(t, srv, "PUT", "/", "hello", nil).StatusCode)
	require.Equal(t, 200, send(t, srv, "PUT", "/", "hello", aladdin).StatusCode)
	require.Equal(t, srv.Requests()[0].Conn, srv.Requests()[1].Conn)
}

func TestAbort(t *testing.T) {
	for name, start := range map[string]func(...Guard) *Server{"HTTP/1.1": NewServer, "HTTP/2": NewHTTP2Server} {
		t.Run(name, func(t *testing.T) {
			srv := start()
			defer srv.Close()
			srv.Inject("/", 1, Abort())
			// A POST, so that net/http does not try again by itself.
			_, err := srv.Client().Post(srv.URL, "", nil)
			require.Error(t, err)
			require.Equal(t, "POST / 0 injected: abort", srv.Requests()[0].String())
		})
	}
}

func TestHangEndsWithTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := NewPipeServer()
		defer srv.Close()
		srv.Inject("/", 1, Hang())
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", srv.URL, nil)
		require.NoError(t, err)
		start := time.Now()
		_, err = srv.Client().Do(req)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Hour, time.Since(start))
	})
}

func TestHangEndsWithTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := NewPipeServer()
		srv.Inject("/", 1, Hang())
		_, r := dial(t, srv, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		synctest.Wait()
		require.Equal(t, "GET / 0 injected: hang", srv.Requests()[0].String())
		srv.Close()
		_, err := r.ReadByte()
		require.ErrorIs(t, err, io.EOF)
	})
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := NewPipeServer(newBasic())
		srv.Inject("/", 2, Delay(time.Minute))
		start := time.Now()
		require.Equal(t, 200, send(t, srv, "GET", "/", "", aladdin).StatusCode)
		require.Equal(t, time.Minute, time.Since(start))
		require.Equal(t, Counts{Requests: 1, Accepted: 1}, srv.Counts(), "decided as ever")

		conn, err := srv.Dial(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		synctest.Wait()
		srv.Close()
		require.Equal(t, time.Minute, time.Since(start), "Close waits for no delay")
		_, err = bufio.NewReader(conn).ReadByte()
		require.ErrorIs(t, err, io.EOF)
	})
}

// In a bubble, nonces and tokens age by the bubble's clock, and Close leaves no goroutine: the bubble would not end.
func TestSynctest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		digest := &Digest{Username: "u", Password: "p", NonceLifetime: time.Minute, NextNonce: NextNonceNearEnd}
		bearer := &Bearer{TokenLifetime: time.Hour}
		srv := NewPipeServer(digest)
		defer srv.Close()
		srv.Protect("/api", bearer)

		c := &digestClient{user: "u", password: "p"}
		c.answer(send(t, srv, "GET", "/", "", nil).Header.Get("WWW-Authenticate"))
		time.Sleep(44 * time.Second)
		resp := send(t, srv, "GET", "/", "", auth(c.authorization("GET", "/")))
		require.NotContains(t, resp.Header.Get("Authentication-Info"), "nextnonce")
		time.Sleep(time.Second)
		resp = send(t, srv, "GET", "/", "", auth(c.authorization("GET", "/")))
		require.Contains(t, resp.Header.Get("Authentication-Info"), "nextnonce")
		time.Sleep(15*time.Second - 1)
		require.Equal(t, "200", ask(t, srv, c))
		time.Sleep(time.Nanosecond)
		require.Equal(t, "401 stale", ask(t, srv, c))

		token := bearer.Login()
		time.Sleep(time.Hour - 1)
		require.Equal(t, 200, send(t, srv, "GET", "/api", "", auth("Bearer "+token.AccessToken)).StatusCode)
		time.Sleep(time.Nanosecond)
		require.Equal(t, 401, send(t, srv, "GET", "/api", "", auth("Bearer "+token.AccessToken)).StatusCode)
		require.False(t, token.Valid())
	})
}

func TestPipeDialObeysItsContext(t *testing.T) {
	srv := NewPipeServer()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := newPipeListener() // nobody accepts
	_, err := l.dial(ctx)
	require.ErrorIs(t, err, context.Canceled)
	srv.Close()
	_, err = srv.Dial(t.Context())
	require.ErrorContains(t, err, "use of closed network connection")
}
