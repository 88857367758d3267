package authretry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A countingConn counts what is written to it.
type countingConn struct {
	net.Conn
	writes *atomic.Int32
}

func (c countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// http.Transport sends a body in memory in one write with its header, if it knows it by its type. It still does.
func TestBodyInMemoryLeavesInOneWriteWithItsHeader(t *testing.T) {
	bodies := map[string]func() io.Reader{
		"bytes.Reader":   func() io.Reader { return bytes.NewReader([]byte("a body")) },
		"bytes.Buffer":   func() io.Reader { return bytes.NewBufferString("a body") },
		"strings.Reader": func() io.Reader { return strings.NewReader("a body") },
	}
	for name, newBody := range bodies {
		for _, getBody := range []bool{true, false} {
			for schemeName, scheme := range map[string]Scheme{
				"ahead":    &APIKey{Key: "k"},
				"answered": &Basic{Username: "Mufasa", Password: "secret"},
				"refused":  &puppet{name: "Basic", answer: func(context.Context, *Challenge, *http.Response) (Session, error) { return word{text: "wrong"}, nil }},
			} {
				t.Run(fmt.Sprint(name, " GetBody ", getBody, " ", schemeName), func(t *testing.T) {
					var bodies []string
					srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						b, _ := io.ReadAll(r.Body)
						bodies = append(bodies, string(b))
						if _, _, ok := r.BasicAuth(); !ok && r.Header.Get("Authorization") != "ApiKey k" {
							w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
							w.WriteHeader(401)
						}
					}))
					defer srv.Close()
					var writes atomic.Int32
					base := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
						c, err := new(net.Dialer).DialContext(ctx, network, address)
						return countingConn{c, &writes}, err
					}}
					defer base.CloseIdleConnections()
					req, err := http.NewRequest("POST", srv.URL, newBody())
					require.NoError(t, err)
					if !getBody {
						req.GetBody = nil
					}
					resp, err := (&Transport{Base: base, Schemes: []Scheme{scheme}}).RoundTrip(req)
					require.NoError(t, err)
					resp.Body.Close()
					require.Equal(t, map[string]int{"ahead": 200, "answered": 200, "refused": 401}[schemeName], resp.StatusCode)
					for _, b := range bodies {
						require.Equal(t, "a body", b)
					}
					require.Len(t, bodies, map[string]int{"ahead": 1, "answered": 2, "refused": 2}[schemeName])
					require.EqualValues(t, len(bodies), writes.Load(), "one write for each send")
				})
			}
		}
	}
}

// A body in memory whose reader has been read in part is sent from there, both times, whatever its length is said to be.
func TestBodyInMemoryStartsWhereItsReaderIs(t *testing.T) {
	g := newGuarded(t, true, false)
	r := strings.NewReader("skipped|the body")
	r.Seek(8, io.SeekStart)
	for range 2 { // without a ContentLength, and read to its end by then
		req := httptest.NewRequest("PUT", g.URL, nil)
		req.RequestURI = ""
		req.Body = io.NopCloser(r)
		resp, err := g.transport().RoundTrip(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
	}
	require.EqualValues(t, 2*len("the body"), g.bytesRead.Load(), "twice for the first request, as net/http would have sent it once")
}

// What is sent after RoundTrip has returned is not recorded any more: there will be no retry.
func TestStreamIsNotRecordedAfterTheResponse(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		io.Copy(w, r.Body)
	}))
	defer srv.Close()
	pr, pw := io.Pipe()
	req, err := http.NewRequest("POST", srv.URL, pr)
	require.NoError(t, err)
	var b *body
	base := roundTripFunc(func(r *http.Request) (*http.Response, error) {
		b = r.Body.(*sender).body
		return http.DefaultTransport.RoundTrip(r)
	})
	resp, err := (&Transport{Base: base, Schemes: []Scheme{&APIKey{Key: "k"}}}).RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	half, looked := make(chan struct{}), make(chan struct{})
	go func() {
		for i := range 100 {
			if i == 50 {
				close(half)
				<-looked
			}
			pw.Write(make([]byte, 1000))
		}
		pw.Close()
	}()
	<-half
	b.mu.Lock()
	closed, record := b.closed, b.record
	b.mu.Unlock()
	close(looked)
	require.False(t, closed)
	require.Empty(t, record)
	n, err := io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.EqualValues(t, 100*1000, n)
}

// What was recorded before that is not held for as long as the sender takes.
func TestRecordIsDroppedWithTheResponse(t *testing.T) {
	var b *body
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		b = req.Body.(*sender).body
		_, err := io.ReadFull(req.Body, make([]byte, 1000))
		b.mu.Lock()
		defer b.mu.Unlock()
		require.Len(t, b.record, 1000)
		return &http.Response{StatusCode: 200, Request: req, Body: http.NoBody, Header: http.Header{}}, err
	})
	req, err := http.NewRequest("PUT", "https://api.example.com/", io.MultiReader(bytes.NewReader(make([]byte, 1000)), bytes.NewReader(make([]byte, 1000))))
	require.NoError(t, err)
	req.ContentLength = 2000
	_, err = (&Transport{Base: base, Schemes: []Scheme{&APIKey{Key: "k"}}}).RoundTrip(req)
	require.NoError(t, err)
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Nil(t, b.record)
}

// A remembered session that wants the body hashed cannot have a one-shot body that is larger than what is kept of it. What
// was read to find that out is still sent: never a part of a body as if it were all.
func TestBodyThatIsTooLargeToBeHashedIsSentWhole(t *testing.T) {
	for _, size := range []int{100, 1 << 10, 1<<10 + 1, 40 << 10, 200 << 10} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprint(size, " ", known), func(t *testing.T) {
				var got []int
				srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					b, err := io.ReadAll(r.Body)
					if err == nil && r.Method == "POST" {
						require.True(t, bytes.Equal(pattern(size), b), "%d of %d bytes", len(b), size)
						got = append(got, len(b))
					}
					if r.Header.Get("Authorization") == "" && r.URL.Path == "/" {
						w.Header().Set("WWW-Authenticate", `Digest realm="x", nonce="n", qop="auth-int"`)
						w.WriteHeader(401)
					}
				}))
				defer srv.Close()
				transport := &Transport{ReplayLimit: 1 << 10, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}
				client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
				get(t, client, srv.URL) // from now on, it is known what the server wants
				req, err := http.NewRequest("POST", srv.URL+"/", &tracked{Reader: bytes.NewReader(pattern(size))})
				require.NoError(t, err)
				if known {
					req.ContentLength = int64(size)
				}
				resp, err := client.Do(req)
				require.NoError(t, err)
				resp.Body.Close()
				if size <= 1<<10 {
					require.Equal(t, 200, resp.StatusCode)
					require.Equal(t, []int{size}, got)
					return
				}
				require.Equal(t, 401, resp.StatusCode)
				var r *Rejection
				require.ErrorAs(t, Explain(resp), &r)
				require.Equal(t, ReasonBodyNotReplayable, r.Reason)
				require.Contains(t, r.Error(), "wants the body hashed before it is sent (Digest qop=auth-int)")
			})
		}
	}
}

// A Base may ask for another copy of a body, as an http.Transport does when a connection is lost, and a Transport that is
// Base for its own retry. The server has not asked for that copy either.
func TestCopyForBaseWaitsForTheServerToo(t *testing.T) {
	content := bytes.Repeat([]byte("x"), defaultReplayLimit+1)
	for name, body := range map[string]io.ReadCloser{
		"in memory": io.NopCloser(bytes.NewReader(content)),
		"stream":    io.NopCloser(io.MultiReader(bytes.NewReader(content))),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var sent []int
				base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
					resp := &http.Response{StatusCode: 200, Request: req, Body: http.NoBody, Header: http.Header{}}
					if len(sent) == 0 {
						require.Equal(t, "100-continue", req.Header.Get("Expect"))
						req.Body.Close()
						again, err := req.GetBody()
						require.NoError(t, err)
						read := make(chan int)
						go func() {
							got, _ := io.ReadAll(again)
							read <- len(got)
						}()
						synctest.Wait() // it waits at the gate
						select {
						case n := <-read:
							t.Errorf("%d bytes are sent before the server has asked for them", n)
						default:
						}
						t.Cleanup(func() { require.Zero(t, <-read, "the retry has taken over") })
						resp.StatusCode = 401
						resp.Header.Set("WWW-Authenticate", `Basic realm="x"`)
						sent = append(sent, 0)
						return resp, nil
					}
					got, err := io.ReadAll(req.Body)
					require.NoError(t, err)
					req.Body.Close()
					sent = append(sent, len(got))
					return resp, nil
				})
				req, err := http.NewRequest("PUT", "https://api.example.com/", body)
				require.NoError(t, err)
				req.ContentLength = int64(len(content))
				req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
				resp, err := (&Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).RoundTrip(req)
				require.NoError(t, err)
				resp.Body.Close()
				require.Equal(t, []int{0, len(content)}, sent)
			})
		})
	}
}

// The body is closed when the context ends, and that is not the reason.
func TestContextThatEndsWhileTheBodyIsHashedIsTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 401, Request: req, Body: http.NoBody,
				Header: http.Header{"Www-Authenticate": {`Digest realm="x", nonce="n", qop="auth-int"`}}}, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, w := io.Pipe() // nothing is ever written
		defer w.Close()
		req, err := http.NewRequestWithContext(ctx, "PUT", "https://api.example.com/", r)
		require.NoError(t, err)
		_, err = (&Transport{Base: base, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}).RoundTrip(req)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// The same for a body of which GetBody gives copies: one that blocks is closed when the context ends.
func TestContextEndsAReadOfACopyThatIsHashed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 401, Request: req, Body: http.NoBody,
				Header: http.Header{"Www-Authenticate": {`Digest realm="x", nonce="n", qop="auth-int"`}}}, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		getBody := func() (io.ReadCloser, error) { r, _ := io.Pipe(); return r, nil } // nothing is ever written
		body, _ := getBody()
		req, err := http.NewRequestWithContext(ctx, "PUT", "https://api.example.com/", body)
		require.NoError(t, err)
		req.GetBody = getBody
		start := time.Now()
		_, err = (&Transport{Base: base, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}).RoundTrip(req)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
	})
}

// A server that does not like Expect is not asked again if the body cannot be sent again; the response is the caller's request's.
func TestResponseToOurExpectBelongsToTheCallersRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			require.NotEmpty(t, req.Header.Get("Expect"))
			io.ReadFull(req.Body, make([]byte, 2000))
			return &http.Response{StatusCode: 417, Request: req, Body: http.NoBody, Header: http.Header{}}, nil
		})
		req, err := http.NewRequest("PUT", "https://api.example.com/", io.MultiReader(bytes.NewReader(make([]byte, 5000))))
		require.NoError(t, err)
		req.ContentLength = 5000
		resp, err := (&Transport{Base: base, ReplayLimit: 1000, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).RoundTrip(req)
		require.NoError(t, err)
		require.Empty(t, resp.Request.Header.Get("Expect"))
		require.True(t, resp.Request.Body == req.Body)
	})
}

// putting returns a PUT of a body that is not in memory, but of which there are copies.
func putting(t *testing.T, size int64, getBody func() (io.ReadCloser, error)) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), "PUT", "https://api.example.com/", io.LimitReader(zeros{}, size))
	require.NoError(t, err)
	req.ContentLength, req.GetBody = size, getBody
	return req
}

func zerosOf(size int64) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(zeros{}, size)), nil }
}

// How much of a body is kept does not matter where there are copies of it.
func TestReplayLimitIsNotForBodiesWithCopies(t *testing.T) {
	for size, expects := range map[int64]string{2000: "", defaultReplayLimit + 1: "100-continue"} {
		for _, limit := range []int64{1000, 10 << 20} {
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				require.Equal(t, expects, req.Header.Get("Expect"))
				req.Body.Close()
				return &http.Response{StatusCode: 200, Request: req, Body: http.NoBody, Header: http.Header{}}, nil
			})
			_, err := (&Transport{Base: base, ReplayLimit: limit, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).RoundTrip(putting(t, size, zerosOf(size)))
			require.NoError(t, err)
		}
	}
}

// What is kept of a body takes as much memory as has come of it, whatever the Content-Length says and the limit allows: a reverse proxy
// passes on what its own client says.
func TestContentLengthOfABodyThatDoesNotCome(t *testing.T) {
	content := pattern(defaultReplayLimit + 1000)
	for _, size := range []int64{1 << 42, 1 << 50, math.MaxInt64} {
		var got [][]byte
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			data, err := io.ReadAll(req.Body)
			require.NoError(t, err)
			req.Body.Close()
			got = append(got, data)
			return &http.Response{StatusCode: 401, Request: req, Body: http.NoBody, Header: http.Header{"Www-Authenticate": {`Basic realm="x"`}}}, nil
		})
		req, err := http.NewRequest("PUT", "https://api.example.com/", io.MultiReader(bytes.NewReader(content)))
		require.NoError(t, err)
		req.ContentLength = size
		_, err = (&Transport{Base: base, ReplayLimit: math.MaxInt64, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).RoundTrip(req)
		require.NoError(t, err)
		require.Len(t, got, 2)
		for _, data := range got {
			require.True(t, bytes.Equal(content, data), "%d bytes", len(data))
		}
	}
}

// So does what the first send has read when the retry has begun, which is kept whatever the limit.
func TestContentLengthOfABodyThatTheRetryTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, begun := pattern(5000), make(chan struct{})
		src := bytes.NewReader(content)
		sends := 0
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if sends++; sends == 1 {
				go func() {
					if _, err := io.ReadAll(req.Body); !errors.Is(err, errSuperseded) {
						t.Error(err)
					}
					req.Body.Close()
				}()
				time.Sleep(expectTimeout)
				synctest.Wait()
			} else {
				close(begun)
				data, err := io.ReadAll(req.Body)
				require.NoError(t, err)
				require.True(t, bytes.Equal(content, data), "%d bytes", len(data))
				req.Body.Close()
			}
			return &http.Response{StatusCode: 401, Request: req, Body: http.NoBody, Header: http.Header{"Www-Authenticate": {`Basic realm="x"`}}}, nil
		})
		req, err := http.NewRequest("PUT", "https://api.example.com/", readerFunc(func(p []byte) (int, error) {
			<-begun
			return src.Read(p)
		}))
		require.NoError(t, err)
		req.ContentLength = 1 << 50
		_, err = (&Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).RoundTrip(req)
		require.NoError(t, err)
		require.Equal(t, 2, sends)
	})
}

// Who still sends the body for the first time gets no more of it when the retry has begun.
func TestFirstSenderEndsWithTheRetry(t *testing.T) {
	for _, getBody := range []func() (io.ReadCloser, error){nil, zerosOf(2000)} {
		var first io.ReadCloser
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			if first == nil {
				first = req.Body
				return &http.Response{StatusCode: 401, Request: req, Body: http.NoBody, Header: http.Header{"Www-Authenticate": {`Basic realm="x"`}}}, nil
			}
			n, err := first.Read(make([]byte, 10))
			require.ErrorIs(t, err, errSuperseded)
			require.Zero(t, n)
			got, err := io.ReadAll(req.Body)
			require.NoError(t, err)
			require.Len(t, got, 2000)
			return &http.Response{StatusCode: 200, Request: req, Body: http.NoBody, Header: http.Header{}}, nil
		})
		resp, err := (&Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).RoundTrip(putting(t, 2000, getBody))
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		require.NoError(t, first.Close())
	}
}

// A GetBody that has neither a body nor an error to return does not send an empty body, nor the hash of one.
func TestGetBodyThatReturnsNothing(t *testing.T) {
	for challenge, scheme := range map[string]Scheme{
		`Basic realm="x"`: &Basic{Username: "u", Password: "p"},
		`Digest realm="x", nonce="n", qop="auth-int"`: &Digest{Username: "u", Password: "p"},
	} {
		sent := 0
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			sent++
			return &http.Response{StatusCode: 401, Request: req, Body: http.NoBody, Header: http.Header{"Www-Authenticate": {challenge}}}, nil
		})
		transport := &Transport{Base: base, Schemes: []Scheme{scheme}}
		resp, err := transport.RoundTrip(putting(t, 2000, func() (io.ReadCloser, error) { return nil, nil }))
		if err == nil {
			err = Explain(resp)
		}
		require.ErrorIs(t, err, errNoBody)
		require.Equal(t, 1, sent)
	}
}

// The hash of what was read before an error would vouch for a body that is not whole.
func TestBodyThatFailsIsNotHashed(t *testing.T) {
	lost := errors.New("the disk is gone")
	sent := 0
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		sent++
		return &http.Response{StatusCode: 401, Request: req, Body: http.NoBody,
			Header: http.Header{"Www-Authenticate": {`Digest realm="x", nonce="n", qop="auth-int"`}}}, nil
	})
	req := putting(t, 2000, nil)
	req.Body = io.NopCloser(io.MultiReader(strings.NewReader("half of it"), errReader{lost}))
	_, err := (&Transport{Base: base, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}).RoundTrip(req)
	require.ErrorIs(t, err, lost)
	require.Equal(t, 1, sent)

	_, err = (&body{err: io.EOF, overflow: true, reading: make(chan struct{}, 1)}).copies()()
	require.ErrorIs(t, err, errBodyNotReplayable, "it was read, but not kept")
}

func TestCloseThatPanicsIsAnError(t *testing.T) {
	require.ErrorContains(t, closeGuarded(boomed{func() { panic(secret) }}), "the request's body panicked when it was closed")
}

// What is read ahead of a stream comes as it was written, and no more is read ahead than is at hand.
func TestStreamThatIsReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			p := make([]byte, 10)
			n, err := req.Body.Read(p)
			require.NoError(t, err)
			require.Equal(t, "one", string(p[:n]))
			go func() { w.Write([]byte("two")) }()
			n, err = req.Body.Read(p) // which the writer may be waiting for
			require.NoError(t, err)
			require.Equal(t, "two", string(p[:n]))
			return &http.Response{StatusCode: 200, Request: req, Body: http.NoBody, Header: http.Header{}}, nil
		})
		go func() { time.Sleep(time.Second); w.Write([]byte("one")) }()
		req := putting(t, -1, nil)
		req.Body = r
		_, err := (&Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).RoundTrip(req)
		require.NoError(t, err)
		w.Close()
	})
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		for _, want := range []string{"one", "two"} {
			p := make([]byte, 10)
			n, err := req.Body.Read(p)
			require.NoError(t, err)
			require.Equal(t, want, string(p[:n]))
		}
		return &http.Response{StatusCode: 200, Request: req, Body: http.NoBody, Header: http.Header{}}, nil
	})
	req := putting(t, -1, nil)
	req.Body = io.NopCloser(io.MultiReader(strings.NewReader("one"), strings.NewReader("two")))
	_, err := (&Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).RoundTrip(req)
	require.NoError(t, err)
}

// A body waits for the server to ask for it, for a second since the header has gone out, and no longer than for the response.
func TestBodyThatWaitsForTheServer(t *testing.T) {
	const size = defaultReplayLimit + 1
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var sent *http.Request
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			require.Equal(t, "100-continue", req.Header.Get("Expect"))
			sent = req
			if len(req.Header["X-Early"]) == 0 {
				httptrace.ContextClientTrace(req.Context()).WroteHeaders()
				time.Sleep(600 * time.Millisecond)
				_, err := req.Body.Read(make([]byte, 10))
				require.NoError(t, err)
				require.Equal(t, time.Second, time.Since(start))
			}
			return &http.Response{StatusCode: 200, Request: req, Body: http.NoBody, Header: http.Header{}}, nil
		})
		transport := func() *Transport {
			return &Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}
		}
		_, err := transport().RoundTrip(putting(t, size, zerosOf(size)))
		require.NoError(t, err)
		sent.Body.Close()

		early := putting(t, size, zerosOf(size))
		early.Header.Set("X-Early", "1")
		start = time.Now()
		_, err = transport().RoundTrip(early)
		require.NoError(t, err)
		n, err := io.Copy(io.Discard, sent.Body)
		require.NoError(t, err)
		require.EqualValues(t, size, n)
		require.Zero(t, time.Since(start))
		sent.Body.Close()
	})
}

// Nor does a copy that Base has asked for outlast the request's context; and if there is no copy, Base gets to know why.
func TestCopyForBaseEndsWithTheContext(t *testing.T) {
	const size = defaultReplayLimit + 1
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		lost := errors.New("no copy")
		var failing bool
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			again, err := req.GetBody()
			if failing {
				require.ErrorIs(t, err, lost)
				require.Nil(t, again)
				return nil, err
			}
			require.NoError(t, err)
			cancel()
			start := time.Now()
			n, err := again.Read(make([]byte, 10))
			require.ErrorIs(t, err, errSuperseded)
			require.Zero(t, n)
			require.Less(t, time.Since(start), expectTimeout)
			return nil, context.Cause(ctx)
		})
		transport := &Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}
		_, err := transport.RoundTrip(putting(t, size, zerosOf(size)).WithContext(ctx))
		require.ErrorIs(t, err, context.Canceled)
		failing = true
		_, err = transport.RoundTrip(putting(t, size, func() (io.ReadCloser, error) { return nil, lost }))
		require.ErrorIs(t, err, lost)
	})
}

// Of a body that is to be hashed, no more is read ahead than can be kept, and what one Read brings besides.
func TestBodyThatIsTooLargeToBeHashedIsNotReadToItsEnd(t *testing.T) {
	read, before := 0, 0
	transport := &Transport{ReplayLimit: 1 << 10, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}
	transport.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
		before = read
		if req.Header.Get("Authorization") == "" {
			return responseTo(req, 401, "Www-Authenticate", `Digest realm="x", nonce="n", qop="auth-int"`), nil
		}
		return responseTo(req, 200), nil
	})
	require.Equal(t, 200, roundTrip(t, transport, "https://api.example.com/").StatusCode) // now it is known
	src := io.LimitReader(zeros{}, 1<<20)
	body := readerFunc(func(p []byte) (int, error) {
		n, err := src.Read(p)
		read += n
		return n, err
	})
	resp, err := transport.RoundTrip(httptest.NewRequest("PUT", "https://api.example.com/", body))
	require.NoError(t, err)
	require.Equal(t, 401, resp.StatusCode)
	require.Greater(t, before, 1<<10)
	require.LessOrEqual(t, before, 1<<10+32<<10)
}

// A body that has been read to its end to be hashed is not read on when it is sent.
func TestBodyIsNotReadAfterItsEnd(t *testing.T) {
	var sent []string
	transport := &Transport{Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}
	transport.Base = roundTripFunc(func(req *http.Request) (*http.Response, error) {
		if req.Header.Get("Authorization") == "" {
			return responseTo(req, 401, "Www-Authenticate", `Digest realm="x", nonce="n", qop="auth-int"`), nil
		}
		if req.Method == "PUT" {
			b, err := io.ReadAll(req.Body)
			sent = append(sent, string(b))
			return responseTo(req, 200), err
		}
		return responseTo(req, 200), nil
	})
	roundTrip(t, transport, "https://api.example.com/") // now it is known
	reads := 0
	body := readerFunc(func(p []byte) (int, error) {
		if reads++; reads > 1 {
			t.Error("it is read on")
		}
		return copy(p, "whole"), io.EOF
	})
	req, err := http.NewRequest("PUT", "https://api.example.com/", body)
	require.NoError(t, err)
	_, err = transport.RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, []string{"whole"}, sent)
}

// What a retry has sent again of a stream is not held any longer: it is the last one.
func TestRecordIsDroppedWhenItIsReplayed(t *testing.T) {
	sends := 0
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		b := req.Body.(*sender).body
		if _, err := io.ReadFull(req.Body, make([]byte, 1000)); err != nil {
			return nil, err
		}
		if sends++; sends == 1 {
			return responseTo(req, 401, "Www-Authenticate", `Basic realm="x"`), nil
		}
		n, err := io.Copy(io.Discard, req.Body)
		b.mu.Lock()
		defer b.mu.Unlock()
		require.EqualValues(t, 1000, n)
		require.Nil(t, b.record)
		return responseTo(req, 200), err
	})
	req, err := http.NewRequest("PUT", "https://api.example.com/", io.MultiReader(bytes.NewReader(make([]byte, 1000)), bytes.NewReader(make([]byte, 1000))))
	require.NoError(t, err)
	req.ContentLength = 2000
	resp, err := (&Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, 2, sends)
}

// A refusal that is answered is closed. It is read to its end if that is near, so that its connection can be used again.
func TestRefusalThatIsAnsweredIsClosed(t *testing.T) {
	for name, c := range map[string]struct{ length, read int64 }{
		"short": {10, 10}, "of unknown length": {-1, 100}, "long": {drainLimit + 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.NewReader(strings.Repeat("x", 100))
			if c.length == 10 {
				text.Reset("0123456789")
			}
			size := text.Size()
			body := &closeCounter{Reader: text}
			discard(&http.Response{Body: body, ContentLength: c.length})
			require.EqualValues(t, 1, body.closed.Load())
			require.Equal(t, c.read, size-int64(text.Len()))
		})
	}
}

// One that does not come to its end is closed after a moment.
func TestRefusalThatDoesNotEndIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body, _ := io.Pipe()
		start := time.Now()
		discard(&http.Response{Body: body, ContentLength: -1})
		require.Equal(t, drainTimeout, time.Since(start))
	})
}

// What was read ahead of a body is sent, then more than can be kept; then a Session wants to hash it, which fails. What it has read for
// that is still to be sent, and nothing is left out.
func TestWhatIsReadInVainIsSent(t *testing.T) {
	content := string(pattern(100_000))
	for _, ahead := range []int{0, 1, 1001, 40_000} {
		src := strings.NewReader(content)
		reads := 0
		read := func(p []byte) (int, error) {
			if reads++; reads == 1 && ahead > 0 {
				p = p[:min(len(p), ahead)]
			}
			return src.Read(p[:min(len(p), 40_000)])
		}
		req := httptest.NewRequest("PUT", "/", nil)
		req.Body, req.ContentLength = io.NopCloser(readerFunc(read)), -1
		b := newBody(req, 1000)
		b.first(req)
		b.peek() // which a busy machine may cut short
		first := make([]byte, 2000)
		n, err := io.ReadFull(req.Body, first)
		require.NoError(t, err)
		_, err = b.copies()()
		require.ErrorIs(t, err, errBodyNotReplayable)
		b.settle()
		rest, err := io.ReadAll(req.Body)
		require.NoError(t, err)
		require.True(t, content == string(first[:n])+string(rest), "%d ahead: %d bytes", ahead, n+len(rest))
	}
}
