package main

import (
	"io"
	"net/http"
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
