package authretry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry/internal/quicktls"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

// A guarded server wants Basic credentials. It records the bodies of those requests that it reads.
type guarded struct {
	*httptest.Server
	hits      atomic.Int32
	bytesRead atomic.Int64
	readFirst bool        // read the body before refusing
	suddenly  atomic.Bool // the last body had no length, and was not announced

	mu     sync.Mutex
	bodies [][sha256.Size]byte // of the requests let in
}

func newGuarded(t *testing.T, readFirst, http2 bool) *guarded {
	g := &guarded{readFirst: readFirst}
	g.Server = httptest.NewUnstartedServer(g)
	g.EnableHTTP2 = http2
	if http2 {
		g.TLS = quicktls.Config()
		g.StartTLS()
	} else {
		g.Start()
	}
	t.Cleanup(g.Close)
	return g
}

func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.hits.Add(1)
	g.suddenly.Store(r.ContentLength < 0 && r.Header.Get("Expect") == "")
	_, password, _ := r.BasicAuth()
	if g.readFirst || password == "secret" {
		hash := sha256.New()
		n, err := io.Copy(hash, r.Body)
		g.bytesRead.Add(n)
		if err != nil {
			return
		}
		if password == "secret" {
			g.mu.Lock()
			g.bodies = append(g.bodies, [sha256.Size]byte(hash.Sum(nil)))
			g.mu.Unlock()
			io.WriteString(w, "thanks")
			return
		}
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
	w.WriteHeader(http.StatusUnauthorized)
	io.WriteString(w, "who are you?")
}

func (g *guarded) transport() *Transport {
	return &Transport{Base: g.Client().Transport, Schemes: []Scheme{&Basic{Username: "Mufasa", Password: "secret"}}}
}

// wasLate reports whether the refusal of a body came after it was sent, because the machine was busy: the server, or the reader of a
// body of unknown length, did not get its turn in the time that it had.
func (g *guarded) wasLate(resp *http.Response, took time.Duration) bool {
	return (resp == nil || resp.StatusCode == http.StatusUnauthorized) && (took >= expectTimeout || g.suddenly.Load())
}

// A tracked body checks that it is read by one goroutine at a time, not after Close, and closed once.
type tracked struct {
	io.Reader
	reading, closed atomic.Int32
	misuse          atomic.Value
}

func (b *tracked) Read(p []byte) (int, error) {
	if b.reading.Add(1) > 1 {
		b.misuse.Store("read by two goroutines at once")
	}
	defer b.reading.Add(-1)
	if b.closed.Load() > 0 {
		b.misuse.Store("read after Close")
	}
	return b.Reader.Read(p)
}

func (b *tracked) Close() error {
	if b.closed.Add(1) > 1 {
		b.misuse.Store("closed twice")
	}
	return nil
}

func (b *tracked) requireGoodUse(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return b.closed.Load() > 0 }, 30*time.Second, time.Millisecond, "the body must be closed")
	require.Nil(t, b.misuse.Load())
}

// pattern returns n bytes in which no two blocks are alike.
func pattern(n int) []byte {
	b := make([]byte, 0, n+20)
	for i := 0; len(b) < n; i++ {
		b = binary.LittleEndian.AppendUint64(b, uint64(i))
	}
	return b[:n]
}

func TestBodiesAreReplayedWhole(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		for _, readFirst := range []bool{false, true} {
			for _, size := range []int{1, 32 << 10, 1 << 20, 3 << 20} {
				for _, kind := range []string{"GetBody", "one-shot", "unknown length"} {
					if readFirst && size > 1<<20 && kind != "GetBody" {
						continue // cannot be replayed: see TestUnreplayableBodyLeavesTheRefusalUntouched
					}
					t.Run(fmt.Sprintf("http2=%v/readFirst=%v/%d/%s", http2, readFirst, size, kind), func(t *testing.T) {
						t.Parallel()
						payload := pattern(size)
						for late := 0; ; late++ {
							srv := newGuarded(t, readFirst, http2)
							body := &tracked{Reader: bytes.NewReader(payload)}
							req, err := http.NewRequest("PUT", srv.URL, body)
							require.NoError(t, err)
							switch kind {
							case "GetBody":
								req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(payload)), nil }
								fallthrough
							case "one-shot":
								req.ContentLength = int64(size)
							}
							start := time.Now()
							resp, err := srv.transport().RoundTrip(req)
							took := time.Since(start)
							if size > defaultReplayLimit && kind != "GetBody" && late < 20 && srv.wasLate(resp, took) {
								if resp != nil {
									resp.Body.Close()
								}
								body.requireGoodUse(t)
								continue
							}
							require.NoError(t, err)
							answer, err := io.ReadAll(resp.Body)
							require.NoError(t, err)
							resp.Body.Close()
							body.requireGoodUse(t)
							require.Equal(t, "thanks", string(answer), "after %v", took)
							require.Equal(t, [][sha256.Size]byte{sha256.Sum256(payload)}, srv.bodies)
							require.Equal(t, int32(2), srv.hits.Load())
							return
						}
					})
				}
			}
		}
	}
}

func TestLargeOneShotBodyIsSentOnce(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100)) // it measures the heap
	size := thorough.Or[int64](256<<20, 40<<20)
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", http2), func(t *testing.T) {
			for late := 0; ; late++ {
				srv := newGuarded(t, true, http2) // net/http says 100 Continue when the handler reads, so let it refuse first
				srv.readFirst = false
				body := &tracked{Reader: io.LimitReader(zeros{}, size)}
				req, err := http.NewRequest("PUT", srv.URL, body)
				require.NoError(t, err)
				req.ContentLength = size
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				start := time.Now()
				resp, err := srv.transport().RoundTrip(req)
				runtime.ReadMemStats(&after)
				if late < 20 && srv.wasLate(resp, time.Since(start)) {
					if resp != nil {
						resp.Body.Close()
					}
					body.requireGoodUse(t)
					continue
				}
				require.NoError(t, err)
				resp.Body.Close()
				body.requireGoodUse(t)
				require.Equal(t, 200, resp.StatusCode)
				require.Equal(t, int32(2), srv.hits.Load())
				require.Equal(t, size, srv.bytesRead.Load(), "the body is on the wire once")
				require.Less(t, after.HeapInuse, before.HeapInuse+24<<20)
				return
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestUnreplayableBodyLeavesTheRefusalUntouched(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", http2), func(t *testing.T) {
			srv := newGuarded(t, true, http2)
			transport := srv.transport()
			transport.ReplayLimit = 1000
			body := &tracked{Reader: bytes.NewReader(pattern(100_000))}
			req, err := http.NewRequest("PUT", srv.URL, body)
			require.NoError(t, err)
			resp, err := transport.RoundTrip(req)
			require.NoError(t, err)
			require.Equal(t, 401, resp.StatusCode)
			answer, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, "who are you?", string(answer))
			var rejection *Rejection
			require.ErrorAs(t, Explain(resp), &rejection)
			require.Equal(t, ReasonBodyNotReplayable, rejection.Reason)
			require.Equal(t, int32(1), srv.hits.Load())
			body.requireGoodUse(t)

			// What was learnt serves the next request, which carries credentials at once.
			body = &tracked{Reader: bytes.NewReader(pattern(100_000))}
			req, err = http.NewRequest("PUT", srv.URL, body)
			require.NoError(t, err)
			resp, err = transport.RoundTrip(req)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, int32(2), srv.hits.Load())
			body.requireGoodUse(t)
		})
	}
}

func TestNegativeReplayLimitKeepsNothing(t *testing.T) {
	srv := newGuarded(t, true, false)
	transport := srv.transport()
	transport.ReplayLimit = -1
	req, err := http.NewRequest("PUT", srv.URL, &tracked{Reader: strings.NewReader("x")})
	require.NoError(t, err)
	req.ContentLength = 1
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 401, resp.StatusCode)
	require.Equal(t, int32(1), srv.hits.Load())
}

// A server may refuse while the caller is still producing the body: what has been read by then is not lost, and what
// comes later goes to the retry.
func TestBodyInTheMakingIsHandedOver(t *testing.T) {
	srv := newGuarded(t, false, true)
	reader, writer := io.Pipe()
	go func() {
		for i := range 100 {
			fmt.Fprintf(writer, "line %d\n", i)
		}
		writer.Close()
	}()
	transport := srv.transport()
	body := &tracked{Reader: reader}
	req, err := http.NewRequest("POST", srv.URL, body)
	require.NoError(t, err)
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	resp.Body.Close()
	var want bytes.Buffer
	for i := range 100 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	require.Equal(t, [][sha256.Size]byte{sha256.Sum256(want.Bytes())}, srv.bodies)
	body.requireGoodUse(t)
}

// The first send may be stuck in a Read of the caller's body when the server's refusal comes. That Read ends some
// time; what it brings belongs to the retry, and if it is more than would be kept otherwise.
func TestReadInProgressBelongsToTheRetry(t *testing.T) {
	for name, c := range map[string]struct {
		limit    int64
		isStream bool
	}{"of known length": {}, "a stream, and little is kept": {limit: 20, isStream: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				late := strings.Repeat("late", 10)
				reader, writer := io.Pipe()
				var second string
				var lateRead error
				done := make(chan struct{})
				base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
					if req.Header.Get("Authorization") == "" {
						go func() { // as http.Transport does, it goes on reading after it has returned the refusal
							defer close(done)
							_, lateRead = io.ReadAll(req.Body)
							req.Body.Close()
						}()
						if c.isStream {
							io.WriteString(writer, ".") // for the look ahead whether there is much of it
						}
						synctest.Wait() // until the Read blocks in the pipe
						return responseTo(req, 401, "Www-Authenticate", `Basic realm="x"`), nil
					}
					go func() {
						io.WriteString(writer, late)
						io.WriteString(writer, " but whole")
						writer.Close()
					}()
					b, err := io.ReadAll(req.Body)
					req.Body.Close()
					second = string(b)
					return responseTo(req, 200), err
				})
				want := late + " but whole"
				transport := &Transport{Base: base, ReplayLimit: c.limit, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}
				body := &tracked{Reader: reader}
				req, err := http.NewRequest("POST", "http://localhost/", body)
				require.NoError(t, err)
				if c.isStream {
					want = "." + want
				} else {
					req.ContentLength = int64(len(want))
				}
				resp, err := transport.RoundTrip(req)
				require.NoError(t, err)
				require.Equal(t, 200, resp.StatusCode)
				require.Equal(t, want, second)
				<-done
				require.Error(t, lateRead, "the first send must not take its part for the whole body")
				body.requireGoodUse(t)
			})
		})
	}
}

// A body that may be too large to be sent again is announced by Expect, and a server that ignores that gets it after a
// second (RFC 9110 §10.1.1). One of unknown length is looked at first: if it is short, or a stream of which there is
// nothing yet, it is sent as it is. A server that has taken a large body is not asked again, until it is known to challenge
// anything.
func TestServerHasTimeToRefuseALargeBody(t *testing.T) {
	for name, c := range map[string]struct {
		size   int64 // of the body
		length int64 // as the request says
		slow   time.Duration
		expect string
		waits  time.Duration // before the body, and while it is read
	}{
		"short":                     {100, 100, 0, "", 0},
		"large":                     {2000, 2000, 0, "100-continue", expectTimeout},
		"unknown":                   {100, 0, 0, "", 0},
		"unknown, at the border":    {1000, -1, 0, "", 0},
		"unknown, over the border":  {1001, -1, 0, "100-continue", expectTimeout},
		"unknown, and large":        {2000, 0, 0, "100-continue", expectTimeout},
		"unknown, and slow":         {2000, 0, time.Hour, "", 0},
		"unknown, and hardly there": {2000, 0, time.Nanosecond, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				challenges := false
				var expect string
				base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
					resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: req, Header: http.Header{}}
					expect = req.Header.Get("Expect")
					if req.Method == "POST" {
						b, err := io.ReadAll(req.Body)
						require.NoError(t, err)
						require.Len(t, b, int(c.size))
						req.Body.Close()
					}
					if challenges && req.Header["Authorization"] == nil {
						resp.StatusCode, resp.Header["Www-Authenticate"] = 401, []string{`Basic realm="x"`}
					}
					return resp, nil
				})
				transport := &Transport{Base: base, ReplayLimit: 1000, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}
				send := func(path string) time.Duration {
					body := &tracked{Reader: &sluggish{strings.NewReader(strings.Repeat("x", int(c.size))), c.slow}}
					req, err := http.NewRequest("POST", "http://localhost"+path, body)
					require.NoError(t, err)
					req.ContentLength = c.length
					start := time.Now()
					_, err = transport.RoundTrip(req)
					require.NoError(t, err)
					body.requireGoodUse(t)
					return time.Since(start)
				}
				// A busy machine may cut short the look ahead at a body of unknown length; then nothing has been noted of the server.
				first := func(path string) (waited time.Duration) {
					for range 100 {
						if waited = send(path); expect != "" || c.expect == "" || c.length > 0 {
							break
						}
					}
					require.Equal(t, c.expect, expect)
					return waited
				}
				waited := first("/")
				if c.slow == 0 {
					require.Equal(t, c.waits, waited)
				}
				if c.expect != "" {
					send("/")
					require.Empty(t, expect, "it is known by now")
				}

				challenges = true
				_, err := transport.RoundTrip(httptest.NewRequest("GET", "http://localhost/locked/", nil))
				require.NoError(t, err)
				challenges = false
				first("/elsewhere")
			})
		})
	}
}

// sluggish needs some time for each Read, of a thousand bytes at the most.
type sluggish struct {
	r    io.Reader
	time time.Duration
}

func (s *sluggish) Read(p []byte) (int, error) {
	time.Sleep(s.time)
	return s.r.Read(p[:min(len(p), 1000)])
}

// http.Transport ends a Read of the body that blocks by closing it, and waits for that. What such a Read brings later is not
// lost: it is for the retry.
func TestCloseEndsAReadThatBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pr, pw := io.Pipe()
		calls := 0
		var got string
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if calls++; calls == 2 {
				b, err := io.ReadAll(req.Body)
				got = string(b)
				return &http.Response{StatusCode: 200, Body: http.NoBody, Request: req}, err
			}
			read := make(chan error)
			go func() { _, err := req.Body.Read(make([]byte, 10)); read <- err }()
			time.Sleep(time.Second)
			synctest.Wait() // it blocks
			req.Body.Close()
			require.Error(t, <-read)
			return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: http.Header{"Www-Authenticate": {`Basic realm="x"`}}}, nil
		})
		go func() {
			time.Sleep(time.Minute)
			io.WriteString(pw, "late, but not lost")
			pw.Close()
		}()
		req, err := http.NewRequest("POST", "http://localhost/", pr)
		require.NoError(t, err)
		resp, err := (&Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).RoundTrip(req)
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, "late, but not lost", got)
	})
}

// The same over HTTP/2, with a handler that gives up: RoundTrip returns at once, as that of http.Transport does.
func TestStreamThatIsAbortedReturnsAtOnce(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	for name, scheme := range map[string]Scheme{"ahead": &APIKey{Key: "k"}, "challenged": &Basic{Username: "u", Password: "p"}} {
		pr, pw := io.Pipe()
		req, err := http.NewRequest("POST", srv.URL, pr)
		require.NoError(t, err)
		returned := make(chan error)
		go func() {
			_, err := (&Transport{Base: srv.Client().Transport, Schemes: []Scheme{scheme}}).RoundTrip(req)
			returned <- err
		}()
		select {
		case err := <-returned:
			require.Error(t, err)
		case <-time.After(20 * time.Second):
			t.Error("RoundTrip waits for the body", name)
		}
		pw.Close()
	}
}

func TestExpectationFailedIsAskedWithoutIt(t *testing.T) {
	var got string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Expect") != "" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		b, _ := io.ReadAll(r.Body)
		got = string(b)
	}))
	defer srv.Close()
	transport := New(&Basic{Username: "u", Password: "p"})
	large := strings.Repeat("x", defaultReplayLimit+1)
	body := &tracked{Reader: strings.NewReader(large)}
	req, err := http.NewRequest("POST", srv.URL, body)
	require.NoError(t, err)
	req.ContentLength = int64(len(large))
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
	require.True(t, large == got)
	body.requireGoodUse(t)
}

func TestFailingGetBodyLeavesTheRefusal(t *testing.T) {
	srv := newGuarded(t, false, false)
	body := &tracked{Reader: strings.NewReader("hello")}
	req, err := http.NewRequest("POST", srv.URL, body)
	require.NoError(t, err)
	req.ContentLength = 5
	req.GetBody = func() (io.ReadCloser, error) { return nil, errors.New("gone") }
	resp, err := srv.transport().RoundTrip(req)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, "who are you?", string(b))
	body.requireGoodUse(t)
}

func TestCancelClosesABodyThatBlocks(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", http2), func(t *testing.T) {
			srv := newGuarded(t, true, http2)
			reader, writer := io.Pipe()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			body := &pipeBody{PipeReader: reader}
			req, err := http.NewRequestWithContext(ctx, "POST", srv.URL, body)
			require.NoError(t, err)
			req.ContentLength = 10
			go func() {
				io.WriteString(writer, "12345") // returns when it has been read
				cancel()
			}()
			_, err = srv.transport().RoundTrip(req)
			require.ErrorIs(t, err, context.Canceled)
			require.Eventually(t, func() bool { return body.closed.Load() == 1 }, 30*time.Second, time.Millisecond)
		})
	}
}

type pipeBody struct {
	*io.PipeReader
	closed atomic.Int32
}

func (b *pipeBody) Close() error { b.closed.Add(1); return b.PipeReader.Close() }

func TestBodyIsClosedIfThereAreNoCredentialsToBeginWith(t *testing.T) {
	body := &tracked{Reader: strings.NewReader("hello")}
	req, err := http.NewRequest("POST", "https://a.test/", body)
	require.NoError(t, err)
	transport := New(&APIKey{KeyFunc: func(context.Context, CredentialsRequest) (string, error) { return "", errors.New("vault is sealed") }})
	_, err = transport.RoundTrip(req)
	require.ErrorContains(t, err, "vault is sealed")
	require.Equal(t, int32(1), body.closed.Load())
}

// A Base that waits for a Read that blocks, as http.Transport may, returns when the context ends.
func TestBodyIsClosedWhenTheContextEnds(t *testing.T) {
	reader, _ := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		cancel()
		_, err := io.ReadAll(req.Body) // heeds no context
		req.Body.Close()
		return nil, err
	})
	body := &pipeBody{PipeReader: reader}
	req, err := http.NewRequestWithContext(ctx, "POST", "https://a.test/", body)
	require.NoError(t, err)
	req.ContentLength = 10
	_, err = (&Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).RoundTrip(req)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, int32(1), body.closed.Load())
}
