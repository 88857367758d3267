package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/internal/quicktls"
	"github.com/stretchr/testify/require"
)

// inTurn is a load balancer in front of servers, of which it asks one after the other.
func inTurn(servers ...http.Handler) http.Handler {
	var n atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := int(n.Add(1)-1) % len(servers)
		w.Header().Set("X-Served-By", fmt.Sprint("node-", i+1))
		servers[i].ServeHTTP(w, r)
	})
}

// overHTTP2 has a host speak HTTP/2, besides HTTP/1.1.
func (w *world) overHTTP2(host string) {
	s := httptest.NewUnstartedServer(w)
	s.EnableHTTP2 = true
	s.TLS = quicktls.Config()
	s.StartTLS()
	w.t.Cleanup(s.Close)
	w.at = map[string]string{host: s.Listener.Addr().String()}
}

// TestOneOfSeveralServers finds the one that refuses.
func TestOneOfSeveralServers(t *testing.T) {
	const home = "https://api.example.com/"
	key := func(key string) http.Handler { return guarded(t, &authtest.APIKey{Prefix: "Bearer", Key: key}) }
	basic := func(password string) http.Handler {
		return guarded(t, &authtest.Basic{Username: "Aladdin", Password: password})
	}
	withPassword := []string{"-u", "Aladdin", "-password-env", "PASSWORD", "-repeat", "5", home}
	for _, c := range []struct {
		name   string
		args   []string
		server http.Handler
		says   string
	}{
		{"token", []string{"-token-env", "TOKEN", "-repeat", "3", home}, inTurn(key("of-staging"), key(token)), "Of those that refuse, X-Served-By is “node-1”, and of the others “node-2”."},
		{"token that passes first", []string{"-token-env", "TOKEN", "-repeat", "3", home}, inTurn(key(token), key(token), key("of-staging")), "Of 3 answers, 1 refused (401 Unauthorized) and 2 did not."},
		{"password", withPassword, inTurn(basic(password), basic("another")), "Of those that refuse, X-Served-By is “node-2”"},
		{"nothing sent", []string{"-repeat", "1", home}, inTurn(says(401, ""), says(200, "")), "X-Served-By is “node-1”"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, map[string]http.Handler{"api.example.com": c.server})
			out, status := w.run(c.args, "", true)
			require.Equal(t, exitRefused, status, out)
			noSecret(t, out)
			lines := strings.Split(out, "\n")
			require.Equal(t, "Cause: The same is refused at one time, and not at another.", lines[0], out)
			require.Regexp(t, `^What to do: Compare the servers [^…]*$`, lines[1])
			require.Empty(t, lines[2])
			require.Contains(t, strings.Join(strings.Fields(out), " "), c.says)
		})
	}
}

// TestSeveralServersInOneExchange sends no password again unless -repeat says so.
func TestSeveralServersInOneExchange(t *testing.T) {
	n := 0
	w := newWorld(t, map[string]http.Handler{"api.example.com": inTurn(says(401, `WWW-Authenticate: Basic realm="cave"`), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n++
		says(401, `WWW-Authenticate: Basic realm="cave"`)(w, r)
	}))})
	out, _ := w.run([]string{"-u", "Aladdin", "-password-env", "WRONG", "https://api.example.com/"}, "", true)
	require.Contains(t, out, "Run it again with -repeat 5")
	require.Equal(t, 1, n)
}

// TestNonceOfAnotherServer has a challenge come from one server, and the answer go to another.
func TestNonceOfAnotherServer(t *testing.T) {
	digest := func() http.Handler {
		return guarded(t, &authtest.Digest{Username: "Aladdin", Password: password})
	}
	w := newWorld(t, map[string]http.Handler{"api.example.com": inTurn(digest(), says(401, `WWW-Authenticate: Digest realm="authtest", nonce="5ccc", qop="auth"`))})
	first, out := w.cause("-u", "Aladdin", "-password-env", "PASSWORD", "https://api.example.com/")
	require.Equal(t, "several-servers", first.Name, out)
	require.Contains(t, strings.Split(out, "\n")[1], "Bind clients to one server")
}

// TestSameEachTime has one answer, as often as it is asked.
func TestSameEachTime(t *testing.T) {
	for status, want := range map[int]int64{401: 4, 200: 4, 429: 2, 500: 3} { // a 500 is asked without credentials, besides
		var n atomic.Int64
		w := newWorld(t, map[string]http.Handler{"api.example.com": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n.Add(1)
			w.WriteHeader(status)
		})})
		out, _ := w.run([]string{"-token-env", "TOKEN", "-repeat", "3", "https://api.example.com/"}, "", true)
		require.Equal(t, want, n.Load(), out)
		require.Equal(t, status < 429, strings.Contains(out, "It was asked 4 times"), out)
	}
}

// TestRefusedOverHTTP2Only has a gateway that loses the header over HTTP/2.
func TestRefusedOverHTTP2Only(t *testing.T) {
	for _, c := range []struct {
		repeat, sure string
		asked        int64
	}{{"1", likely, 2}, {"2", certain, 3}, {"9", certain, 3}} {
		var n atomic.Int64
		w := newWorld(t, map[string]http.Handler{"api.example.com": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n.Add(1)
			if r.ProtoMajor == 2 || r.Header.Get("Authorization") == "" {
				says(401, "WWW-Authenticate: Bearer")(w, r)
			}
		})})
		w.overHTTP2("api.example.com")
		out, status := w.run([]string{"-token-env", "TOKEN", "-repeat", c.repeat, "https://api.example.com/"}, "", true)
		require.Equal(t, exitRefused, status, out)
		require.Equal(t, c.asked, n.Load(), out)
		require.Contains(t, strings.Split(out, "\n")[0], "The server refuses over HTTP/2, and not over HTTP/1.1.")
		require.Contains(t, out, "("+c.sure+") The server refuses over HTTP/2")
	}
}

// TestHeaderLostOverHTTP2 says how to see whether it is that.
func TestHeaderLostOverHTTP2(t *testing.T) {
	w := newWorld(t, map[string]http.Handler{"api.example.com": says(401, "Content-Type: application/json\n\n"+`{"error":"missing Authorization header"}`)})
	w.overHTTP2("api.example.com")
	_, out := w.cause("-token-env", "TOKEN", "https://api.example.com/")
	require.Contains(t, strings.Join(strings.Fields(out), " "), "-repeat 3 shows whether HTTP/1.1 does better")
}

// TestRepeatIsRefused where it could do harm, or makes no sense.
func TestRepeatIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	for _, args := range [][]string{{"-repeat", "3", "-X", "POST"}, {"-repeat", "21"}, {"-repeat", "-1"}, {"-repeat", "2", "-login"}} {
		out, status := w.run(append(args, "https://api.example.com/"), "", true)
		require.Equal(t, exitUsage, status, out)
		require.Contains(t, out, "-repeat")
	}
}
