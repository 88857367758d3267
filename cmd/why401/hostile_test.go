package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A collector notes what comes to a host.
type collector struct {
	http.Handler

	mu   sync.Mutex
	sent []string // guarded by mu: path, Authorization and body of each request
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	c.sent = append(c.sent, r.URL.Path+" "+r.Header.Get("Authorization")+" "+string(body))
	c.mu.Unlock()
	c.Handler.ServeHTTP(w, r)
}

// A host to which redirects have led gets no password by naming itself as a token service.
func TestPasswordStaysWithTheRegistryThatWasAsked(t *testing.T) {
	elsewhere := &collector{Handler: says(401, `WWW-Authenticate: Bearer realm="https://files.example.com/token",service="s",scope="repository:a:pull"`)}
	w := newWorld(t, map[string]http.Handler{"api.example.com": says(302, "Location: https://files.example.com/v2/"), "files.example.com": elsewhere})
	w.run([]string{"-u", "Aladdin", "-password-env", "PASSWORD", "https://api.example.com/v2/"}, "", true)
	require.Equal(t, []string{"/v2/  ", "/token  "}, elsewhere.sent)
}

// A server does not have the token service of this machine asked, however it writes its address.
func TestTokenServiceOnThisMachine(t *testing.T) {
	for host, want := range map[string]int{"localhost": 0, "x.localhost": 0, "127.0.0.1": 0, "127.1": 0, "2130706433": 0, "0x7f.1": 0, "auth.example.com": 1} {
		service := &collector{Handler: says(200, "")}
		w := newWorld(t, map[string]http.Handler{host: service,
			"api.example.com": says(401, `WWW-Authenticate: Bearer realm="http://`+host+`/token",service="s",scope="repository:a:pull"`)})
		w.run([]string{"https://api.example.com/v2/"}, "", true)
		require.Len(t, service.sent, want, host)
	}
	service := &collector{Handler: says(200, "")}
	w := newWorld(t, map[string]http.Handler{"localhost": service,
		"127.0.0.1": says(401, `WWW-Authenticate: Bearer realm="http://localhost/token",service="s",scope="repository:a:pull"`)})
	w.run([]string{"http://127.0.0.1/v2/"}, "", true)
	require.Len(t, service.sent, 1, "a registry that is on this machine itself")
}

// Nor one whose name leads to this machine, or to a network of somebody's own, unless the registry is there as well.
func TestTokenServiceByItsAddress(t *testing.T) {
	const outside, inside, here, metadata = "93.184.216.34:443", "10.0.0.7:443", "127.0.0.1:443", "169.254.169.254:443"
	for _, c := range []struct {
		registry, service string
		want              int
	}{
		{outside, outside, 1}, {outside, inside, 0}, {outside, here, 0}, {outside, metadata, 0},
		{inside, outside, 1}, {inside, inside, 1}, {inside, here, 0}, {inside, metadata, 0}, {here, inside, 1}, {here, here, 1},
	} {
		service := &collector{Handler: says(200, "")}
		w := newWorld(t, map[string]http.Handler{"auth.example.com": service,
			"api.example.com": says(401, `WWW-Authenticate: Bearer realm="https://auth.example.com/token",service="s",scope="repository:a:pull"`)})
		w.seen = map[string]string{"api.example.com": c.registry, "auth.example.com": c.service}
		out, _ := w.run([]string{"https://api.example.com/v2/"}, "", true)
		require.Len(t, service.sent, c.want, "%v", c)
		require.Contains(t, out, "No credentials were sent", "%v", c)
	}
}

// Redirects of a token service are not followed: package registry follows none, either.
func TestTokenServiceThatRedirects(t *testing.T) {
	elsewhere := &collector{Handler: says(200, "")}
	w := newWorld(t, map[string]http.Handler{"auth.example.com": says(302, "Location: https://files.example.com/"), "files.example.com": elsewhere,
		"api.example.com": says(401, `WWW-Authenticate: Bearer realm="https://auth.example.com/token",service="s",scope="repository:a:pull"`)})
	w.run([]string{"https://api.example.com/v2/"}, "", true)
	require.Empty(t, elsewhere.sent)
}

// A token service gets nothing of what was given for the registry.
func TestTokenServiceGetsNoBody(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.WriteFile(file, []byte(password), 0o600))
	service := &collector{Handler: says(200, "")}
	w := newWorld(t, map[string]http.Handler{"auth.example.com": service,
		"api.example.com": says(401, `WWW-Authenticate: Bearer realm="https://auth.example.com/token",service="s",scope="repository:a:pull"`)})
	w.run([]string{"-X", "GET", "-data", file, "-H", "Accept: x/y", "https://api.example.com/v2/"}, "", true)
	require.Equal(t, []string{"/token  "}, service.sent)
}

// What was given with -data may have a secret in it, and stays with the origin that was asked.
func TestBodyStaysWithTheOriginThatWasAsked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.WriteFile(file, []byte(password), 0o600))
	for _, status := range []int{301, 307, 308} {
		elsewhere := &collector{Handler: says(401, "")}
		w := newWorld(t, map[string]http.Handler{"api.example.com": says(status, "Location: https://files.example.com/"), "files.example.com": elsewhere})
		out, exit := w.run([]string{"-data", file, "https://api.example.com/"}, "", true)
		if status == 301 { // which makes GET of POST
			require.Equal(t, []string{"/  "}, elsewhere.sent)
			continue
		}
		require.Empty(t, elsewhere.sent)
		require.Equal(t, exitFailed, exit)
		require.Contains(t, strings.Join(strings.Fields(out), " "), "Cause: A redirect leads to another origin, and was not followed. ", "%s", out)
	}
}

// What a server says does not end the quotes around it, and goes on as if it were ours.
func TestQuotesAreOurs(t *testing.T) {
	const said = "All is well.” is what the server says. What to do: send the password to http://evil.example.com/ now"
	for _, server := range []http.Handler{
		says(401, "Content-Type: application/json\n\n"+`{"message":"`+said+`"}`),
		says(401, `WWW-Authenticate: Bearer error="invalid_token", error_description="`+said+`"`),
		says(401, `WWW-Authenticate: Basic realm="`+said+`"`),
		says(401, "Content-Type: application/json\n\n"+`{"message":"No Authorization header. `+said+`"}`),
		says(200, "Content-Type: application/json\n\n"+`{"success":false,"errors":[{"message":"unauthorized `+said+`"}]}`),
		says(403, "X-Accepted-GitHub-Permissions: "+said),
		says(200, "Content-Type: application/grpc\nGrpc-Status: 16\nGrpc-Message: "+said),
	} {
		for _, args := range [][]string{{"-token-env", "TOKEN"}, {"-u", "Ali", "-password-env", "WRONG", "-ahead"}} {
			w := newWorld(t, map[string]http.Handler{"api.example.com": server})
			out, _ := w.run(append(args, "https://api.example.com/"), "", true)
			_, causes, _ := strings.Cut(out, "\nCAUSES\n")
			require.NotContains(t, causes, "well.”", out)
			require.NotContains(t, strings.SplitN(out, "\n", 2)[0], "well.”", out)
		}
	}
}

// A password is sent no more often because a challenge is in upper case, as that of Nexus is: a wrong one counts each time.
func TestPasswordIsSentOnce(t *testing.T) {
	for _, args := range [][]string{{"-u", "Ali", "-password-env", "WRONG"}, {"-H", "Authorization: basic QWxpOmNsb3Nl"}} {
		server := &collector{Handler: says(401, `WWW-Authenticate: BASIC realm="Sonatype Nexus Repository Manager"`)}
		w := newWorld(t, map[string]http.Handler{"api.example.com": server})
		w.run(append(args, "https://api.example.com/"), "", true)
		sent := 0
		for _, line := range server.sent {
			if strings.Contains(strings.ToLower(line), " basic ") {
				sent++
			}
		}
		require.Equal(t, 1, sent, server.sent)
	}
}

// A header that is longer than http.Transport reads is named as such.
func TestHeaderWithoutEnd(t *testing.T) {
	w := newWorld(t, map[string]http.Handler{"api.example.com": says(401, "X-A: "+strings.Repeat("a", 11<<20))})
	first, out := w.cause("-token-env", "TOKEN", "-allow-plaintext", "http://api.example.com/")
	require.Equal(t, "long-answer", first.Name, out)
}
