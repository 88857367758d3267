package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/internal/quicktls"
	"github.com/stretchr/testify/require"
)

// noon is the time in the world of the tests, where every server's clock shows the same unless a test says otherwise.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// The secrets of the tests. None of them may ever be printed.
const (
	password = "open-sesame-4711"
	wrong    = "close-barley-0815"
	token    = "tok-3f9a1c77e2"
	apiKey   = "key-88d1f0aa51"
	cookie   = "sid-5e11c0ffee"
)

// A world has hosts, each with a handler, that are reached by name over https and http.
type world struct {
	t      *testing.T
	hosts  map[string]http.Handler
	env    map[string]string // besides the secrets of the tests
	at     map[string]string // addresses of hosts that have a server of their own
	seen   map[string]string // addresses at which hosts seem to be
	plain  *httptest.Server
	secure *httptest.Server
	proxy  *url.URL // of the environment
}

func newWorld(t *testing.T, hosts map[string]http.Handler) *world {
	w := &world{t: t, hosts: hosts}
	w.plain, w.secure = httptest.NewUnstartedServer(w), httptest.NewUnstartedServer(w)
	for _, s := range []*httptest.Server{w.plain, w.secure} {
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // a refused certificate is what some of the tests are about
		t.Cleanup(s.Close)
	}
	w.plain.Start()
	w.secure.TLS = quicktls.Config() // there are many handshakes
	w.secure.StartTLS()
	return w
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Date", noon.Format(http.TimeFormat))
	local := r.Context().Value(http.LocalAddrContextKey).(net.Addr).String()
	host, _, _ := strings.Cut(r.Host, ":")
	if r.Method == http.MethodConnect || r.URL.IsAbs() && local == w.plain.Listener.Addr().String() {
		host = "proxy.example.com"
	}
	w.hosts[host].ServeHTTP(rw, r)
}

// A placed connection seems to lead to another address.
type placed struct {
	net.Conn
	addr net.Addr
}

func (p placed) RemoteAddr() net.Addr { return p.addr }

func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := w.dialHost(ctx, network, address)
	host, _, _ := net.SplitHostPort(address)
	if seen := w.seen[host]; seen != "" && err == nil {
		conn = placed{conn, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(seen))}
	}
	return conn, err
}

func (w *world) dialHost(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, _ := net.SplitHostPort(address)
	var d net.Dialer
	switch {
	case w.at[host] != "":
		return d.DialContext(ctx, network, w.at[host])
	case w.hosts[host] == nil:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
	case port == "443":
		return d.DialContext(ctx, network, w.secure.Listener.Addr().String())
	case port == "80" || port == "3128" || port == "8443":
		return d.DialContext(ctx, network, w.plain.Listener.Addr().String())
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	closed.Close()
	_, err = d.DialContext(ctx, network, closed.Addr().String())
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err.(*net.OpError).Err}
}

// run runs the command in the world.
func (w *world) run(args []string, stdin string, trust bool) (out string, status int) {
	base := &http.Transport{DialContext: w.dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: trust, CurvePreferences: quicktls.Curves}, ForceAttemptHTTP2: true}
	if w.proxy != nil {
		base.Proxy = http.ProxyURL(w.proxy)
	}
	w.t.Cleanup(base.CloseIdleConnections)
	var stdout, stderr bytes.Buffer
	c := command{
		stdin:  strings.NewReader(stdin),
		stdout: &stdout,
		stderr: &stderr,
		getenv: w.getenv,
		asker:  asker{base: base, now: func() time.Time { return noon }},
	}
	status = c.run(w.t.Context(), args)
	return stdout.String() + stderr.String(), status
}

func (w *world) getenv(name string) string {
	if value, ok := w.env[name]; ok {
		return value
	}
	return map[string]string{"PASSWORD": password, "WRONG": wrong, "TOKEN": token, "PREFIXED": "Bearer " + token + "\n",
		"EXPIRED": expired, "UNREVOKED": fresh, "EARLY": early}[name]
}

// newJWT makes a token. Nobody verifies it, so anything will do for a signature.
func newJWT(claims string) string {
	e := base64.RawURLEncoding
	return e.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + e.EncodeToString([]byte(claims)) + "." + e.EncodeToString([]byte("the-signature-of-the-test-itself"))
}

var (
	expired = newJWT(fmt.Sprintf(`{"sub":"Ali","exp":%d}`, noon.Add(-3*time.Hour).Unix()))
	fresh   = newJWT(fmt.Sprintf(`{"sub":"Ali","iss":"https://login.example.com","aud":["treasury"],"scope":"read","exp":%d}`, noon.Add(time.Hour).Unix()))
	early   = newJWT(fmt.Sprintf(`{"sub":"Ali","nbf":%d}`, noon.Add(10*time.Minute).Unix()))
)

// guarded returns a server of package authtest.
func guarded(t *testing.T, guards ...authtest.Guard) http.Handler {
	s := authtest.NewServer(guards...)
	t.Cleanup(s.Close)
	return s
}

// tunnels returns a proxy that wants Basic, and connects to the world's https hosts.
func (w *world) tunnels(username, password string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+password))
		if r.Header.Get("Proxy-Authorization") != want || r.Method != http.MethodConnect {
			says(407, `Proxy-Authenticate: Basic realm="way out"`)(rw, r)
			return
		}
		server, err := net.Dial("tcp", w.secure.Listener.Addr().String())
		if err != nil {
			rw.WriteHeader(http.StatusBadGateway)
			return
		}
		rw.WriteHeader(http.StatusOK)
		client, buffered, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			server.Close()
			return
		}
		go func() {
			io.Copy(server, buffered)
			server.Close()
		}()
		io.Copy(client, server)
		client.Close()
	})
}

// says returns a handler that always answers the same: a status, header lines, an empty line and a body.
func says(status int, text string) http.HandlerFunc {
	head, body, _ := strings.Cut(text, "\n\n")
	return func(w http.ResponseWriter, r *http.Request) {
		for line := range strings.Lines(head) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
				if name == "Date" {
					w.Header().Del(name)
				}
				w.Header().Add(name, value)
			}
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// varying is what differs from run to run, at a constant length.
var varying = regexp.MustCompile(`((?:nonce|rspauth) ?= ?")[^"]+`)

// golden compares text with the file in testdata, or writes it if -update is set.
func golden(t *testing.T, name, got string) {
	got = varying.ReplaceAllString(got, "${1}…")
	file := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}
