// Package interop tests authretry against servers and a client that others wrote, and by the tests of net/http.
// "go test ./..." in this folder runs the tests of those servers that are installed; with AUTHRETRY_INTEROP=require in
// the environment, all of them. The Debian packages are listed in .ci/run, those of npm, Node itself among them, in
// testdata/node/package.json; the folders browser, mcp, ntlm, registries and zitadel are modules of their own.
package interop

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/stretchr/testify/require"
)

func basic() *authretry.Basic {
	return &authretry.Basic{Username: servers.Username, Password: servers.Password}
}

func digest() *authretry.Digest {
	return &authretry.Digest{Username: servers.Username, Password: servers.Password}
}

// both is what curl --anyauth does: the strongest that the server offers.
func both() []authretry.Scheme {
	return []authretry.Scheme{digest(), basic()}
}

// newClient returns a client over base, or over a transport of its own if base is nil.
func newClient(t *testing.T, base *http.Transport, schemes ...authretry.Scheme) *http.Client {
	if base == nil {
		base = &http.Transport{}
	}
	if base.MaxIdleConnsPerHost == 0 {
		base.MaxIdleConnsPerHost = 64
	}
	base.ExpectContinueTimeout = time.Second
	t.Cleanup(base.CloseIdleConnections)
	return &http.Client{Transport: &authretry.Transport{Base: base, Schemes: schemes}, Timeout: time.Minute}
}

// get returns the response to a GET, and its body.
func get(t *testing.T, client *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, err := client.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(body)
}

// getOK is get, of something that the client may have.
func getOK(t *testing.T, client *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, body := get(t, client, url)
	require.Equal(t, http.StatusOK, resp.StatusCode, "%v", authretry.Explain(resp))
	return resp, body
}

// atOnce makes requests by many workers, each so many in turn, and says what went wrong.
func atOnce(client *http.Client, workers, each int, url string) (failures []string) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	fail := func(failure string) {
		mu.Lock()
		defer mu.Unlock()
		failures = append(failures, failure)
	}
	for range workers {
		wg.Go(func() {
			for range each {
				resp, err := client.Get(url)
				if err != nil {
					fail(err.Error())
					continue
				}
				if resp.StatusCode != http.StatusOK {
					fail(fmt.Sprint(resp.Status, ": ", authretry.Explain(resp)))
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					fail(err.Error())
				}
				_ = resp.Body.Close()
			}
		})
	}
	wg.Wait()
	return failures
}

// sends sends requests by http.DefaultTransport, and counts them.
type sends struct {
	mu      sync.Mutex
	counted map[string]int // by path, and of "401", refusals; guarded by mu
}

func (c *sends) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counted == nil {
		c.counted = map[string]int{}
	}
	c.counted[req.URL.Path]++
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		c.counted["401"]++
	}
	return resp, err
}

// take returns what was counted since the last call.
func (c *sends) take() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	counted := c.counted
	c.counted = nil
	return counted
}

// schemesOf returns the auth-schemes of the exchanges, "-" for none.
func schemesOf(exchanges []servers.Exchange) []string {
	schemes := []string{}
	for _, e := range exchanges {
		if e.Scheme == "" {
			e.Scheme = "-"
		}
		schemes = append(schemes, e.Scheme)
	}
	return schemes
}

// nonceCounts returns the last nonce count of each nonce in the Digest exchanges, having checked that they arrived in
// order, without gaps or repeats.
func nonceCounts(t *testing.T, exchanges []servers.Exchange) map[string]int64 {
	t.Helper()
	last := map[string]int64{}
	for _, e := range exchanges {
		if e.Scheme != "Digest" {
			continue
		}
		nonce := e.Params["nonce"]
		nc, err := strconv.ParseInt(e.Params["nc"], 16, 64)
		require.NoError(t, err)
		require.Equal(t, last[nonce]+1, nc, "the nonce count of %s", nonce)
		last[nonce] = nc
	}
	return last
}

// curl runs curl and returns the statuses of its final responses.
func curl(t *testing.T, args ...string) []string {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	args = append([]string{"--silent", "--max-time", "30", "--noproxy", "", "--write-out", `%{stderr}%{http_code}\n`}, args...)
	var statuses strings.Builder
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Stderr = &statuses
	require.NoError(t, cmd.Run(), "curl %q said %s", args, &statuses)
	return strings.Fields(statuses.String())
}

// wire counts the bytes that go out on the connections of a transport.
type wire struct{ sent atomic.Int64 }

func (w *wire) transport() *http.Transport {
	var d net.Dialer
	return &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return countingConn{conn, w}, nil
	}}
}

type countingConn struct {
	net.Conn
	w *wire
}

func (c countingConn) Write(p []byte) (int, error) {
	c.w.sent.Add(int64(len(p))) // before: the answer to it may come before Write returns
	n, err := c.Conn.Write(p)
	c.w.sent.Add(int64(n - len(p)))
	return n, err
}
