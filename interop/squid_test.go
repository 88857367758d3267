package interop

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/stretchr/testify/require"
)

// openOrigin is an origin that lets everybody in, and fails the test if a proxy's credentials come through.
func openOrigin(t *testing.T, start func(http.Handler) *httptest.Server) *httptest.Server {
	t.Helper()
	origin := start(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Proxy-Authorization") != "" {
			t.Error("Proxy-Authorization has reached the origin")
		}
		_, _ = w.Write([]byte("this is the origin\n"))
	}))
	t.Cleanup(origin.Close)
	return origin
}

// proxied returns status, method and auth-scheme of the requests in Squid's log, as soon as there are n.
func proxied(t *testing.T, squid *servers.Server, n int) []string {
	t.Helper()
	var requests []string
	read := func() bool {
		requests = nil
		for _, line := range squid.AccessLog(t) {
			fields := strings.Fields(line) // status, method, target, Proxy-Authorization with its spaces escaped
			if fields[1] == "-" {
				continue // a connection without a request
			}
			scheme, _, _ := strings.Cut(fields[3], "%20")
			requests = append(requests, fields[0]+" "+fields[1]+" "+scheme)
		}
		return len(requests) >= n
	}
	// The log is written after the response, and for CONNECT after the tunnel has been closed.
	require.Eventually(t, read, 10*time.Second, 20*time.Millisecond)
	return requests
}

// TestSquidCurl shows what curl does with Squid.
func TestSquidCurl(t *testing.T) {
	for _, scheme := range []string{"Basic", "Digest"} {
		t.Run(scheme, func(t *testing.T) {
			squid := servers.Squid(t, scheme)
			args := []string{"--proxy", squid.URL, "--proxy-anyauth", "--proxy-user", servers.Username + ":" + servers.Password, "--insecure"}
			plain := openOrigin(t, httptest.NewServer)
			require.Equal(t, []string{"200"}, curl(t, append(args, plain.URL)...))
			require.Equal(t, []string{"407 GET -", "200 GET " + scheme}, proxied(t, squid, 2))
			secure := openOrigin(t, httptest.NewTLSServer)
			require.Equal(t, []string{"200"}, curl(t, append(args, secure.URL)...))
			require.Equal(t, []string{"407 CONNECT -", "200 CONNECT " + scheme}, proxied(t, squid, 4)[2:])

			args[4] = servers.Username + ":wrong"
			require.Equal(t, []string{"407"}, curl(t, append(args, plain.URL)...))
			require.Equal(t, []string{"407 GET -", "407 GET " + scheme}, proxied(t, squid, 6)[4:])
		})
	}
}
