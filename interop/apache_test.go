package interop

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/stretchr/testify/require"
)

func TestApacheSteadyState(t *testing.T) {
	s := servers.Apache(t)
	for space, scheme := range map[string]string{"basic": "Basic", "quoted": "Basic", "digest": "Digest", "once": "Digest", "ordered": "Digest"} {
		t.Run(space, func(t *testing.T) {
			recorder := servers.Record(t, s.URL)
			client := newClient(t, nil, both()...)
			for range 20 {
				_, body := getOK(t, client, recorder.URL+"/"+space+"/")
				require.Equal(t, "this is "+space+"\n", body)
			}
			exchanges := recorder.Take()
			require.Equal(t, append([]string{"-"}, slices.Repeat([]string{scheme}, 20)...), schemesOf(exchanges))
		})
	}
}

// Each nonce of once/ serves for one request, and comes with the response to the request before.
func TestApacheNextNonce(t *testing.T) {
	s := servers.Apache(t)
	recorder := servers.Record(t, s.URL)
	client := newClient(t, nil, digest())
	for range 10 {
		getOK(t, client, recorder.URL+"/once/")
	}
	nonces := map[string]bool{}
	for _, e := range recorder.Take()[1:] {
		require.Equal(t, "00000001", e.Params["nc"])
		nonces[e.Params["nonce"]] = true
	}
	require.Len(t, nonces, 10)
}

// Apache gives a client that comes again in time the next nonce. One that lets a second pass has a stale nonce.
func TestApacheStale(t *testing.T) {
	s := servers.Apache(t)
	recorder := servers.Record(t, s.URL)
	client := newClient(t, nil, digest())
	getOK(t, client, recorder.URL+"/short/")
	require.Equal(t, []string{"-", "Digest"}, schemesOf(recorder.Take()))
	for range 2 {
		getOK(t, client, recorder.URL+"/short/")
		require.Equal(t, []string{"Digest"}, schemesOf(recorder.Take()))

		<-time.After(1200 * time.Millisecond) // the server's clock is real: AuthDigestNonceLifetime is 1
		getOK(t, client, recorder.URL+"/short/")
		exchanges := recorder.Take()
		require.Equal(t, []string{"Digest", "Digest"}, schemesOf(exchanges))
		require.True(t, exchanges[0].Stale)
		require.NotEqual(t, exchanges[0].Params["nonce"], exchanges[1].Params["nonce"])
		require.Equal(t, "00000001", exchanges[1].Params["nc"])
	}
}

// An upload that can be sent once is not lost to a nonce that has become stale: Apache refuses it before anything of it was sent.
func TestApacheStaleNonceBeforeAnUpload(t *testing.T) {
	const size = 3 << 20 // more than Transport.ReplayLimit
	s := servers.Apache(t)
	client := newClient(t, nil, digest())
	getOK(t, client, s.URL+"/short/")
	<-time.After(1200 * time.Millisecond) // the server's clock is real: AuthDigestNonceLifetime is 1
	body := &counted{Reader: io.LimitReader(zeros{}, size)}
	req, err := http.NewRequest("POST", s.URL+"/short/index.html", io.NopCloser(body))
	require.NoError(t, err)
	req.ContentLength = size
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.EqualValues(t, size, body.n.Load())
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// counted counts what is read.
type counted struct {
	io.Reader
	n atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// Apache with AuthDigestNcCheck refuses a nonce count that arrives out of order, without stale=true.
func TestApacheNonceCountsInOrder(t *testing.T) {
	const workers, each = 32, 50
	s := servers.Apache(t)
	recorder := servers.Record(t, s.URL)

	// The first requests wait until all have arrived, so that each of the workers brings home a nonce.
	var all sync.WaitGroup
	all.Add(workers)
	recorder.Hold = func(e servers.Exchange) {
		if e.Scheme == "" {
			all.Done()
			all.Wait()
		}
	}
	client := newClient(t, nil, digest())
	require.Empty(t, atOnce(client, workers, 1, recorder.URL+"/ordered/"))
	warm := recorder.Take()
	require.Len(t, warm, 2*workers)

	require.Empty(t, atOnce(client, workers, each, recorder.URL+"/ordered/"))
	exchanges := recorder.Take()
	require.Len(t, exchanges, workers*each, "one request on the wire for each that was made")
	require.LessOrEqual(t, len(nonceCounts(t, append(warm, exchanges...))), workers)
}

// Apache keeps a dozen nonces, unless it is told to keep more, and has no word for one that it has forgotten.
//
// The best of some attempts counts: on a busy machine Apache may take longer than a request waits for another to end. Without the
// bound that is learnt, fewer than ten calls pass.
func TestApacheKeepsFewNonces(t *testing.T) {
	const workers, each, attempts = 32, 20, 20
	s := servers.ApacheAsItComes(t)
	var client *http.Client
	passes := func(want int) bool {
		before := len(s.AccessLog(t))
		failures := atOnce(client, workers, each, s.URL+"/ordered/")
		sent := len(s.AccessLog(t)) - before
		passed := workers*each - len(failures)
		t.Logf("%d of %d calls pass, with %d requests", passed, workers*each, sent)
		return passed >= want && sent <= workers*each*13/10
	}
	ok := false
	for n := 0; n < attempts && !ok; n++ {
		client = newClient(t, nil, digest())
		ok = passes(600)
	}
	require.True(t, ok, "a client that has to learn it first")
	ok = false
	for n := 0; n < attempts && !ok; n++ {
		ok = passes(635)
	}
	require.True(t, ok, "one that has learnt it")
}

// A large body is asked for before it is sent, if it cannot be had twice.
func TestApacheUpload(t *testing.T) {
	const size = 64 << 20
	s := servers.Apache(t)
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{'u', 'p'}).Read(content)

	// try returns nil if the body was on its way before the server could refuse it. That is so on a busy machine, where its reader has no
	// turn to show how long it is, or the server takes longer than a second.
	try := func(t *testing.T, client *http.Client, url string, body io.Reader, length int64) *http.Response {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, body)
		require.NoError(t, err)
		if length != 0 {
			req.ContentLength = length
		}
		resp, err := client.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		why := authretry.Explain(resp)
		if r, ok := errors.AsType[*authretry.Rejection](why); ok && r.Reason == authretry.ReasonBodyNotReplayable {
			return nil
		}
		require.Contains(t, []int{http.StatusCreated, http.StatusNoContent}, resp.StatusCode, "%v", why)
		return resp
	}
	put := func(t *testing.T, client *http.Client, url string, body io.Reader, length int64) *http.Response {
		t.Helper()
		resp := try(t, client, url, body, length)
		require.NotNil(t, resp, "the body was sent before it was refused")
		return resp
	}
	arrived := func(t *testing.T, client *http.Client, name string) {
		t.Helper()
		onDisk, err := os.ReadFile(filepath.Join(s.Dir, "www/dav", name))
		require.NoError(t, err)
		require.Equal(t, sha256.Sum256(content), sha256.Sum256(onDisk))
		_, back := getOK(t, client, s.URL+"/dav/"+name)
		require.Equal(t, sha256.Sum256(content), sha256.Sum256([]byte(back)))
	}
	// reader hides what net/http could make a GetBody of.
	reader := func() io.Reader { return struct{ io.Reader }{bytes.NewReader(content)} }

	for name, length := range map[string]int64{"of-known-length": size, "of-unknown-length": -1} {
		t.Run("reader "+name, func(t *testing.T) {
			var w *wire
			var client *http.Client
			for attempt, done := 1, false; !done; attempt++ {
				require.LessOrEqual(t, attempt, 10, "the body was sent before it was refused, each time")
				w = new(wire)
				client = newClient(t, w.transport(), digest())
				done = try(t, client, s.URL+"/dav/"+name, reader(), length) != nil
			}
			require.GreaterOrEqual(t, w.sent.Load(), int64(size))
			require.Less(t, w.sent.Load(), int64(size+size/50), "the body goes over the wire once")
			put(t, client, s.URL+"/dav/"+name, reader(), length)
			require.Less(t, w.sent.Load(), int64(2*(size+size/50)))
			arrived(t, client, name)
		})
	}
	t.Run("reader over HTTP/2", func(t *testing.T) {
		var w wire
		base := w.transport()
		base.TLSClientConfig = &tls.Config{RootCAs: s.CA.Pool}
		base.ForceAttemptHTTP2 = true
		client := newClient(t, base, digest())
		require.Equal(t, 2, put(t, client, s.TLS+"/dav/http2", reader(), size).ProtoMajor)
		require.Less(t, w.sent.Load(), int64(size+size/50), "the body goes over the wire once")
		arrived(t, client, "http2")
	})
	t.Run("GetBody", func(t *testing.T) {
		var w wire
		client := newClient(t, w.transport(), digest())
		put(t, client, s.URL+"/dav/getbody", bytes.NewReader(content), 0)
		require.Less(t, w.sent.Load(), int64(size+size/50))
		arrived(t, client, "getbody")
	})
}

func TestApacheHTTP2(t *testing.T) {
	testHTTP2(t, servers.Apache(t), map[string]string{"basic": "Basic", "digest": "Digest", "once": "Digest", "ordered": "Digest"})
}

func TestNginxHTTP2(t *testing.T) {
	testHTTP2(t, servers.Nginx(t, "http://127.0.0.1:9/"), map[string]string{"basic": "Basic", "quoted": "Basic"})
}

// testHTTP2 counts in the server's own log, as nothing can be put between without ending its HTTP/2.
func testHTTP2(t *testing.T, s *servers.Server, spaces map[string]string) {
	for space, scheme := range spaces {
		t.Run(space, func(t *testing.T) {
			client := newClient(t, &http.Transport{
				TLSClientConfig:   &tls.Config{RootCAs: s.CA.Pool},
				ForceAttemptHTTP2: true,
			}, both()...)
			path := "/" + space + "/"
			for range 5 {
				resp, body := getOK(t, client, s.TLS+path)
				require.Equal(t, 2, resp.ProtoMajor)
				require.Equal(t, "this is "+space+"\n", body)
			}
			requests := func() []string {
				var lines []string
				for _, line := range s.AccessLog(t) {
					if strings.Contains(line, " GET "+path) {
						lines = append(lines, line)
					}
				}
				return lines
			}
			want := []string{"401 HTTP/2.0 GET " + path + " -"}
			for range 5 {
				want = append(want, "200 HTTP/2.0 GET "+path+" "+scheme)
			}
			// The log is written after the response, or even after the connection.
			client.CloseIdleConnections()
			require.Eventually(t, func() bool { return len(requests()) >= len(want) }, 10*time.Second, 20*time.Millisecond)
			got := requests()
			for i, line := range got { // index.html is what the server makes of the path
				got[i] = strings.Replace(line, "index.html", "", 1)
			}
			require.ElementsMatch(t, want, got)
		})
	}
}
