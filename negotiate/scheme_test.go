package negotiate

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
)

const (
	testURL = "http://www.example.test/a/b"
	testSPN = "HTTP/www.example.test"
)

// get sends a request, and returns the status and who the server says it is for.
func get(t *testing.T, rt http.RoundTripper, url string) (status int, user string) {
	resp, err := (&http.Client{Transport: rt}).Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

func newRequest(t *testing.T, url string) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	return req
}

// to returns a Transport to a server without a network.
func to(h http.Handler, s *Scheme) *authretry.Transport {
	s.SharedConnections = true
	return &authretry.Transport{Base: by{h}, Schemes: []authretry.Scheme{s}}
}

// A request is sent twice if it was not known that the server asks, then once; and once from the beginning if Ahead is set.
func TestSendsPerRequest(t *testing.T) {
	for _, ahead := range []bool{false, true} {
		k := newTestKDC(t, testSPN)
		srv := newTestService(k)
		rt := to(srv, &Scheme{Kerberos: k.client("alice"), Ahead: ahead, Mutual: true})
		before := int32(0)
		for n := range int32(3) {
			status, user := get(t, rt, testURL)
			require.Equal(t, 200, status)
			require.Equal(t, "alice", user)
			want := int32(1)
			if n == 0 && !ahead {
				want = 2
			}
			require.Equal(t, want, srv.requests.Load()-before, "request %d, ahead: %v", n, ahead)
			before = srv.requests.Load()
		}
		require.EqualValues(t, 1, k.logins.Load())
		require.EqualValues(t, 1, k.tickets.Load())
		require.EqualValues(t, 3, srv.accepted.Load())
	}
}

// 16 at once that send 10 each: no more than 1.1 sends each, with one exchange, and no token twice.
func TestManyAtOnce(t *testing.T) {
	k := newTestKDC(t, "HTTP/127.0.0.1")
	handler := newTestService(k)
	srv := httptest.NewServer(handler)
	defer srv.Close()
	base := &http.Transport{MaxIdleConnsPerHost: 16}
	defer base.CloseIdleConnections()
	rt := &authretry.Transport{Base: base, Schemes: []authretry.Scheme{&Scheme{Kerberos: k.client("alice"), Mutual: true}}}
	defer rt.CloseIdleConnections()
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for range 10 {
				resp, err := (&http.Client{Transport: rt}).Post(srv.URL, "text/plain", strings.NewReader("a body"))
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Error(resp.Status)
				}
			}
		})
	}
	workers.Wait()
	require.EqualValues(t, 160, handler.accepted.Load())
	require.LessOrEqual(t, handler.requests.Load(), int32(176))
	require.EqualValues(t, 1, k.logins.Load())
	require.EqualValues(t, 1, k.tickets.Load())
}
