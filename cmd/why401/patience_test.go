package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// answering runs the command by the clock of a bubble, with a server that reads a request and writes the answer, which may
// end nowhere. It returns what is printed and how long it took.
func answering(t *testing.T, answer string, args ...string) (out string, status int, took time.Duration) {
	w := newWorld(t, nil)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		base := &http.Transport{TLSHandshakeTimeout: 10 * time.Second, DialContext: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				reader := bufio.NewReader(server)
				for ctx.Err() == nil && answer != "" {
					if _, err := http.ReadRequest(reader); err != nil {
						return
					}
					if _, err := io.WriteString(server, strings.ReplaceAll(answer, "\n", "\r\n")); err != nil {
						return
					}
				}
				io.Copy(io.Discard, reader)
			}()
			return client, nil
		}}
		var stdout strings.Builder
		c := command{stdout: &stdout, stderr: &stdout, getenv: w.getenv, asker: asker{base: base, now: time.Now}}
		began := time.Now()
		status = c.run(ctx, args)
		took = time.Since(began)
		out = stdout.String()
		cancel()
		base.CloseIdleConnections()
	})
	noSecret(t, out)
	if lines := strings.Split(out, "\n"); strings.Contains(lines[0], "ause: ") {
		require.Regexp(t, `^What to do: `, lines[1])
		require.NotContains(t, lines[0]+lines[1], "…")
	}
	return out, status, took
}

// TestBodyThatDoesNotEnd stops reading, and goes on with what there is.
func TestBodyThatDoesNotEnd(t *testing.T) {
	const api = "http://api.example.com/"
	const unfinished = "HTTP/1.1 401 Unauthorized\nContent-Length: 500\nWWW-Authenticate: Basic realm=\"cave\"\n\nrefused"
	for _, c := range []struct {
		answer string
		args   []string
		status int
		within time.Duration
		says   string
	}{
		{"HTTP/1.1 200 OK\nContent-Type: text/event-stream\n\ndata: 1\n\n", []string{api}, 0, bodyTime, "did not end within 3 seconds"},
		{unfinished, []string{api}, 1, bodyTime, "“refused”"},
		{unfinished, []string{"-allow-plaintext", "-u", "Aladdin", "-password-env", "WRONG", api}, 1, bodyTime + time.Second, "Likely cause: The user name or the password is wrong."},
		{"HTTP/1.1 302 Found\nLocation: /x\nContent-Length: 500\n\nx", []string{api}, 3, 11 * bodyTime, "Redirects go on and on"},
		{"HTTP/1.1 401 Unauthorized\nContent-Length: 7\n\nrefused", []string{api}, 1, 0, "“refused”"},
	} {
		out, status, took := answering(t, c.answer, c.args...)
		require.Equal(t, c.status, status, out)
		require.LessOrEqual(t, took, c.within, out)
		require.Contains(t, out, c.says)
	}
}

// TestNoAnswerInTime says how far it came.
func TestNoAnswerInTime(t *testing.T) {
	for url, want := range map[string]string{
		"https://api.example.com:8080/": "Cause: The port accepts connections, and says nothing to TLS.",
		"http://api.example.com/":       "Cause: The server took the request, and did not answer in time.",
	} {
		for _, timeout := range []string{"5s", "30s"} {
			out, status, took := answering(t, "", "-timeout", timeout, url)
			require.Equal(t, exitFailed, status, out)
			require.Contains(t, out, want)
			if strings.HasPrefix(url, "https") {
				require.Equal(t, handshakeTime, took, "nobody waits for what will not come")
			}
		}
	}
}

// TestAnswerThatIsNone has answers that http.Transport drops.
func TestAnswerThatIsNone(t *testing.T) {
	for answer, want := range map[string]string{
		"HTTP/1.1 401 Unauthorized\nWWW-Authenticate: Basic realm=\"c\x01ve\"\n\n": "Cause: The header of the server's answer is malformed",
		"HTTP/1.1 401 Unauthorized\nWWW-Authenticate\n\n":                          "Cause: The header of the server's answer is malformed",
		"HTTP/1.1 401 Unauthorized\nContent-Length: x\n\n":                         "Cause: The header of the server's answer is malformed",
		"SSH-2.0-OpenSSH_9.9\n":                                                    "Cause: What answers at this host and port does not speak HTTP",
	} {
		out, status, _ := answering(t, answer, "http://api.example.com/")
		require.Equal(t, exitFailed, status, out)
		require.Contains(t, out, want)
	}
}
