package ntlm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/ntlm"
	"github.com/stretchr/testify/require"
)

// post sends n requests by so many workers, each with a body, and returns what went wrong.
func post(client *http.Client, workers, n int, url func(i int) string, answer string) (failures []string) {
	var all sync.WaitGroup
	var mu sync.Mutex // guards failures
	next := make(chan int)
	for range workers {
		all.Go(func() {
			for i := range next {
				failure := postOne(client, url(i), answer)
				if failure != "" {
					mu.Lock()
					failures = append(failures, failure)
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
	return failures
}

func postOne(client *http.Client, url, answer string) (failure string) {
	resp, err := client.Post(url, "text/plain", io.MultiReader(strings.NewReader("12345")))
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(body) != answer {
		return fmt.Sprint(resp.Status, " ", string(body), " ", err, " ", authretry.Explain(resp))
	}
	return ""
}

// Of 100 requests, all pass, with as many handshakes as workers at most, also where each is to another folder.
func TestNoMoreHandshakesThanWorkers(t *testing.T) {
	for _, workers := range []int{1, 4, 20, 100} {
		for name, url := range map[string]string{"one folder": "/a", "many folders": "/%d/a"} {
			t.Run(fmt.Sprint(workers, " workers, ", name), func(t *testing.T) {
				l := newLab(t, nil)
				client := newClient(t, nil, nil)
				failures := post(client, workers, 100, func(i int) string {
					if name == "one folder" {
						return l.URL + url
					}
					return l.URL + fmt.Sprintf(url, i)
				}, "hello mufasa, 5 bytes")
				require.Empty(t, failures)
				// On a busy machine net/http does not keep a connection whose request was not known to be sent 50 ms after the response.
				require.Eventually(t, func() bool {
					most := int32(workers) + l.lost.Load()
					return l.handshake.Load() <= most && l.firsts.Load() <= most
				}, 10*time.Second, time.Millisecond)
				require.LessOrEqual(t, int(l.lost.Load()), 10)
				t.Logf("%d handshakes, %d connections lost", l.handshake.Load(), l.lost.Load())
			})
		}
	}
}

// No more connections are open than MaxConns says, and requests that have to wait for one do so under their contexts.
func TestMaxConns(t *testing.T) {
	l := newLab(t, nil)
	scheme := &ntlm.Scheme{Username: "mufasa", Password: secret, MaxConns: 3}
	client := newClient(t, scheme, nil)
	require.Empty(t, post(client, 20, 200, func(int) string { return l.URL + "/a" }, "hello mufasa, 5 bytes"))
	require.Eventually(t, func() bool { return l.handshake.Load() <= 3+l.lost.Load() }, 10*time.Second, time.Millisecond)
	_, conns := scheme.Pools()
	require.LessOrEqual(t, conns, 3)

	var held []*http.Response
	for range 3 {
		resp, err := client.Get(l.URL + "/a")
		require.NoError(t, err)
		held = append(held, resp)
	}
	// What waits for them to end does so as long as its context lasts.
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errCause)
	defer cancel()
	_, err := client.Do(newRequest(t, "POST", l.URL+"/a", io.MultiReader(strings.NewReader("x"))).WithContext(ctx))
	require.ErrorIs(t, err, errCause)
	held[1].Body.Close()
	getOK(t, client, l.URL+"/a")
	held[0].Body.Close()
	held[2].Body.Close()
}

// Connections and memory stay bounded, whatever number of requests and users there is.
func TestNothingIsLeftBehind(t *testing.T) {
	l := newLab(t, nil)
	for i := range 100 {
		l.passwords[fmt.Sprint("user", i)] = secret
	}
	idle := runtime.NumGoroutine()
	scheme := &ntlm.Scheme{Credentials: func(_ context.Context, r authretry.CredentialsRequest) (string, string, error) {
		return r.Account, secret, nil
	}}
	var transport *authretry.Transport
	client := newClient(t, scheme, func(tr *authretry.Transport, _ *http.Transport) {
		tr.Account = func(req *http.Request) string { return strings.Split(req.URL.Path, "/")[1] }
		transport = tr
	})
	run := func(n int) {
		failures := post(client, 8, n, func(i int) string { return l.URL + fmt.Sprintf("/user%d/a", i%100) }, "")
		for _, f := range failures {
			if !strings.HasPrefix(f, "200 OK hello user") {
				t.Fatal(f)
			}
		}
	}
	run(500)
	before := memory()
	goroutines := runtime.NumGoroutine()
	run(3000)
	after := memory()
	t.Logf("%d handshakes, %d KiB more, %d goroutines more", l.handshake.Load(), (after-before)>>10, runtime.NumGoroutine()-goroutines)
	require.Less(t, after-before, int64(16<<20))
	_, conns := scheme.Pools()
	require.LessOrEqual(t, conns, 800, "each account has no more than there are workers")
	for i := range 100 {
		transport.Forget(fmt.Sprint("user", i))
	}
	places, conns := scheme.Pools()
	require.Zero(t, places)
	require.Zero(t, conns)
	transport.CloseIdleConnections()
	require.Eventually(t, func() bool { return l.open.Load() == 0 && runtime.NumGoroutine() <= idle+5 }, 30*time.Second, time.Millisecond)
}

var errCause = errors.New("the cause")

func memory() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Connections that nobody uses are closed after Base's IdleConnTimeout.
func TestIdleConnectionsAreClosed(t *testing.T) {
	l := newLab(t, nil)
	scheme := &ntlm.Scheme{Username: "mufasa", Password: secret}
	client := newClient(t, scheme, func(_ *authretry.Transport, base *http.Transport) { base.IdleConnTimeout = 20 * time.Millisecond })
	getOK(t, client, l.URL+"/a")
	require.Eventually(t, func() bool { _, conns := scheme.Pools(); return conns == 0 && l.open.Load() == 0 }, 30*time.Second, time.Millisecond)
	getOK(t, client, l.URL+"/a")
	require.EqualValues(t, 2, l.handshake.Load())
}
