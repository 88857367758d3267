// Package ntlm tests the module ntlm against servers that others wrote: Apache with mod_auth_gssapi and gss-ntlmssp, and Squid with its
// ntlm_fake_auth, beside curl. See package interop for how to run the tests.
package ntlm

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/authretry/authretry/ntlm"
	"github.com/stretchr/testify/require"
)

func scheme() *ntlm.Scheme {
	return &ntlm.Scheme{Username: servers.Domain + `\` + servers.Username, Password: servers.Password}
}

// newClient returns a client of the server's user. Its Base offers HTTP/2 as well.
func newClient(t *testing.T, s *servers.Server, change func(*authretry.Transport, *http.Transport)) *http.Client {
	base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.CA.Pool}, ForceAttemptHTTP2: true, ExpectContinueTimeout: 10 * time.Second}
	transport := &authretry.Transport{Base: base, Schemes: []authretry.Scheme{scheme()}}
	if change != nil {
		change(transport, base)
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 2 * time.Minute}
}

// send sends a request, and returns the status and the name of the user for whom it was.
func send(client *http.Client, method, url string, body io.Reader) (string, error) {
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("X-User")), err
}

// logged closes the client's connections, and returns what is new in a server's log of requests, as soon as there are n lines.
// Those of several connections are in any order.
func logged(t *testing.T, s *servers.Server, client *http.Client, seen *int, n int) (lines []string) {
	t.Helper()
	client.CloseIdleConnections()
	require.Eventually(t, func() bool { lines = s.AccessLog(t)[*seen:]; return len(lines) >= n }, 10*time.Second, 10*time.Millisecond)
	*seen += len(lines)
	return lines
}

const welcome = "200 " + servers.Domain + `\` + servers.Username

// One connection is authenticated, by two requests, and carries the others. Where Base speaks HTTP/2, it is HTTP/1.1.
func TestApacheRequestByRequest(t *testing.T) {
	s := servers.ApacheNTLM(t)
	seen := 0
	for _, c := range []struct{ url, first string }{{s.URL, "HTTP/1.1"}, {s.TLS, "HTTP/2.0"}} {
		client := newClient(t, s, nil)
		for range 3 {
			got, err := send(client, "GET", c.url+"/ntlm/index.html", nil)
			require.NoError(t, err)
			require.Equal(t, welcome, got)
		}
		require.ElementsMatch(t, []string{
			"401 " + c.first + " GET /ntlm/index.html -", "401 HTTP/1.1 GET /ntlm/index.html NTLM", "200 HTTP/1.1 GET /ntlm/index.html NTLM",
			"200 HTTP/1.1 GET /ntlm/index.html -", "200 HTTP/1.1 GET /ntlm/index.html -",
		}, logged(t, s, client, &seen, 5))
	}
}

func TestApacheWorkers(t *testing.T) {
	s := servers.ApacheNTLM(t)
	for _, workers := range []int{1, 4, 20, 100} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			// On a busy machine net/http does not keep a connection whose request was not known to be sent 50 ms after the response.
			handshakes := 0
			for range 3 {
				if handshakes = handshakesOf(t, s, workers); handshakes <= workers {
					break
				}
			}
			require.LessOrEqual(t, handshakes, workers)
			t.Logf("%d handshakes", handshakes)
		})
	}
}

// handshakesOf returns with how many handshakes 100 requests by so many workers got through, as they must.
func handshakesOf(t *testing.T, s *servers.Server, workers int) (handshakes int) {
	seen := len(s.AccessLog(t))
	client := newClient(t, s, nil)
	next := make(chan int)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for i := range next {
				method, path, body, want := "GET", "/ntlm/index.html", io.Reader(nil), welcome
				if i%4 == 3 {
					method, path, body, want = "PUT", fmt.Sprint("/ntlm/file", i), io.MultiReader(strings.NewReader("a body")), "20"
				}
				if got, err := send(client, method, s.TLS+path, body); err != nil || !strings.HasPrefix(got, want) {
					t.Errorf("%d: %s %v", i, got, err)
				}
			}
		})
	}
	for i := range 100 {
		next <- i
	}
	close(next)
	all.Wait()
	for _, line := range logged(t, s, client, &seen, 102) {
		if strings.HasPrefix(line, "401 ") && strings.HasSuffix(line, " NTLM") {
			handshakes++
		}
	}
	return handshakes
}

// A body of 10 MiB that cannot be had twice is sent once, by a connection that is new, and by one that is not.
func TestApacheUpload(t *testing.T) {
	const size = 10 << 20
	s := servers.ApacheNTLM(t)
	seen := 0
	client := newClient(t, s, nil)
	content := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	// Before the server is known, a body is announced (Expect) if it has a length; without one, only if its reader is quick.
	for i, length := range []int64{size, -1} {
		path := fmt.Sprint("/ntlm/", i)
		req, err := http.NewRequest("PUT", s.URL+path, struct{ io.Reader }{bytes.NewReader(content)})
		require.NoError(t, err)
		req.ContentLength = length
		resp, err := client.Do(req)
		require.NoError(t, err)
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		require.Equal(t, 201, resp.StatusCode, "%v", authretry.Explain(resp))
		stored, err := os.ReadFile(filepath.Join(s.Dir, "www", path))
		require.NoError(t, err)
		require.True(t, bytes.Equal(content, stored))
	}
	require.ElementsMatch(t, []string{
		"401 HTTP/1.1 PUT /ntlm/0 -", "401 HTTP/1.1 PUT /ntlm/0 NTLM", "201 HTTP/1.1 PUT /ntlm/0 NTLM", "201 HTTP/1.1 PUT /ntlm/1 -",
	}, logged(t, s, client, &seen, 4))
}

func TestApacheWrongCredentials(t *testing.T) {
	s := servers.ApacheNTLM(t)
	seen := 0
	for _, wrong := range []*ntlm.Scheme{
		{Username: servers.Domain + `\` + servers.Username, Password: "wrong"},
		{Username: servers.Domain + `\Scar`, Password: servers.Password},
	} {
		client := newClient(t, s, func(tr *authretry.Transport, _ *http.Transport) { tr.Schemes = []authretry.Scheme{wrong} })
		resp, err := client.Get(s.URL + "/ntlm/index.html")
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 401, resp.StatusCode)
		require.ErrorContains(t, authretry.Explain(resp), "the NTLM credentials were refused")
		require.ElementsMatch(t, []string{"401 HTTP/1.1 GET /ntlm/index.html -", "401 HTTP/1.1 GET /ntlm/index.html NTLM", "401 HTTP/1.1 GET /ntlm/index.html NTLM"}, logged(t, s, client, &seen, 3))
	}
}

// Many users at once have connections of their own.
func TestApacheAccounts(t *testing.T) {
	s := servers.ApacheNTLM(t)
	client := newClient(t, s, func(tr *authretry.Transport, _ *http.Transport) {
		tr.Account = func(req *http.Request) string { return req.Header.Get("X-Account") }
	})
	right := client.Transport.(*authretry.Transport).Schemes[0].(*ntlm.Scheme)
	right.Credentials = func(_ context.Context, r authretry.CredentialsRequest) (string, string, error) {
		if r.Account != servers.Username {
			return r.Account, "wrong", nil
		}
		return servers.Domain + `\` + servers.Username, servers.Password, nil
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 20 {
				account, want := servers.Username, 200
				if i%2 == 1 {
					account, want = "Scar", 401
				}
				req, _ := http.NewRequest("GET", s.URL+"/ntlm/index.html", nil)
				req.Header.Set("X-Account", account)
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != want {
					t.Errorf("%s has got %d", account, resp.StatusCode)
				}
			}
		})
	}
	all.Wait()
}

// Squid keeps a client's connection and the server's together, so that the login of one is that of the other.
func TestApacheThroughSquid(t *testing.T) {
	s := servers.ApacheNTLM(t)
	squid := servers.Squid(t, "Basic")
	proxy, err := url.Parse(squid.URL)
	require.NoError(t, err)
	proxy.User = url.UserPassword(servers.Username, servers.Password)
	for _, at := range []string{s.URL, s.TLS} {
		client := newClient(t, s, func(tr *authretry.Transport, base *http.Transport) {
			base.Proxy = http.ProxyURL(proxy)
			tr.AllowPlaintext = true // what goes by a proxy does not stay here
		})
		for range 3 {
			got, err := send(client, "GET", at+"/ntlm/index.html", nil)
			require.NoError(t, err)
			require.Equal(t, welcome, got)
		}
	}
}

// proxied returns status, method and auth-scheme of what is in Squid's log, as soon as there are n lines.
func proxied(t *testing.T, squid *servers.Server, n int) (lines []string) {
	t.Helper()
	// The log is written after the response, and for CONNECT after the tunnel has been closed.
	require.Eventually(t, func() bool {
		lines = nil
		for _, line := range squid.AccessLog(t) {
			if fields := strings.Fields(line); fields[1] != "-" {
				word, _, _ := strings.Cut(fields[3], "%20")
				lines = append(lines, fields[0]+" "+fields[1]+" "+word)
			}
		}
		return len(lines) >= n
	}, 10*time.Second, 10*time.Millisecond)
	return lines
}

func dialer(t *testing.T, squid *servers.Server) *ntlm.ProxyDialer {
	proxy, err := url.Parse(squid.URL)
	require.NoError(t, err)
	return &ntlm.ProxyDialer{Proxy: proxy, Username: servers.Domain + `\` + servers.Username, Password: servers.Password}
}

func origin(t *testing.T, start func(http.Handler) *httptest.Server) *httptest.Server {
	o := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "" {
			t.Error("Proxy-Authorization has reached the origin")
		}
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("X-User", fmt.Sprint(n))
	}))
	t.Cleanup(o.Close)
	return o
}

// ProxyDialer sends what curl does: two CONNECTs by one connection.
func TestSquidBesideCurl(t *testing.T) {
	for name, start := range map[string]func(http.Handler) *httptest.Server{"http": httptest.NewServer, "https": httptest.NewTLSServer} {
		t.Run(name, func(t *testing.T) {
			squid := servers.Squid(t, "NTLM")
			o := origin(t, start)
			transport := &http.Transport{DialContext: dialer(t, squid).DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
			for range 3 {
				got, err := send(&http.Client{Transport: transport}, "POST", o.URL, strings.NewReader("12345"))
				require.NoError(t, err)
				require.Equal(t, "200 5", got)
			}
			transport.CloseIdleConnections()
			ours := proxied(t, squid, 2)
			require.Equal(t, []string{"407 CONNECT NTLM", "200 CONNECT NTLM"}, ours)

			if out := curl(t, "--proxy", squid.URL, "--proxytunnel", "--proxy-ntlm", "--proxy-user", servers.Domain+`\`+servers.Username+":"+servers.Password, "--data", "12345", o.URL); out != "200" {
				t.Errorf("curl has got %s", out)
			}
			require.Equal(t, ours, proxied(t, squid, 4)[2:])
		})
	}
}

func TestSquidWorkers(t *testing.T) {
	squid := servers.Squid(t, "NTLM")
	o := origin(t, httptest.NewTLSServer)
	transport := &http.Transport{DialContext: dialer(t, squid).DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 20}
	defer transport.CloseIdleConnections()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 10 {
				got, err := send(&http.Client{Transport: transport}, "POST", o.URL, strings.NewReader("12345"))
				if err != nil || got != "200 5" {
					t.Error(got, err)
				}
			}
		})
	}
	all.Wait()
}

// A proxy that asks for something else gets nothing.
func TestSquidWithoutNTLM(t *testing.T) {
	squid := servers.Squid(t, "Basic", "Digest")
	_, err := dialer(t, squid).DialContext(t.Context(), "tcp", "origin.test:443")
	var r *authretry.Rejection
	require.ErrorAs(t, err, &r)
	require.Equal(t, authretry.ReasonUnsupportedScheme, r.Reason)
	require.Len(t, r.Challenges, 2)
	require.Equal(t, []string{"407 CONNECT NTLM"}, proxied(t, squid, 1))
}

// curl returns the status that curl has got.
func curl(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		servers.Missing(t, "curl is not installed (Debian package curl)")
	}
	args = append([]string{"--silent", "--insecure", "--max-time", "30", "--noproxy", "", "--output", os.DevNull, "--write-out", "%{http_code}"}, args...)
	out, err := exec.CommandContext(t.Context(), path, args...).Output()
	require.NoError(t, err)
	return string(out)
}
