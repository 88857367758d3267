package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/login"
	"github.com/stretchr/testify/require"
)

var address = regexp.MustCompile(`127\.0\.0\.1:\d{5}`)

// TestLogin has why401 find out who gives out tokens, and log somebody in who agrees.
func TestLogin(t *testing.T) {
	approve := &login.Browser{Open: authtest.Approve, Out: io.Discard}
	nobody := &login.Browser{Open: func(context.Context, string) error { t.Error("nobody is to be asked"); return nil }, Out: io.Discard}
	for _, c := range []struct {
		name   string
		oauth  *authtest.OAuth
		args   []string
		flow   login.Flow
		status int
		logins int
	}{
		{"login-unasked", &authtest.OAuth{Scope: "tools"}, nil, nobody, 3, 0},
		{"login-register", &authtest.OAuth{Scope: "tools"}, []string{"-register"}, approve, 0, 1},
		{"login-client", &authtest.OAuth{Scope: "tools", ClientID: "why"}, []string{"-client-id", "why"}, approve, 0, 1},
		{"login-unknown-client", &authtest.OAuth{NoRegistration: true}, []string{"-register"}, nobody, 3, 0},
		{"login-declined", &authtest.OAuth{ClientID: "why"}, []string{"-client-id", "why"}, &login.Browser{Open: authtest.Decline, Out: io.Discard}, 3, 0},
		{"login-other-issuer", &authtest.OAuth{ClientID: "why"}, []string{"-client-id", "why", "-issuer", "https://login.example.org"}, nobody, 3, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := authtest.NewServer(c.oauth)
			defer server.Close()
			var sent string
			server.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				sent = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
				if c.logins > 0 {
					w.Header().Set("X-Request-Id", sent) // which is printed
				}
			}))
			out, status := runLogin(c.flow, append(append([]string{"-login"}, c.args...), server.URL+"/"))
			require.Equal(t, c.status, status, out)
			require.Equal(t, c.logins, c.oauth.Logins())
			if c.logins > 0 {
				require.NotEmpty(t, sent)
				require.NotContains(t, out, sent)
				require.Contains(t, out, hidden)
				resp, err := http.DefaultClient.Do(withBearer(t, server.URL, sent))
				require.NoError(t, err)
				resp.Body.Close()
				require.Equal(t, http.StatusUnauthorized, resp.StatusCode, "it was revoked")
			}
			golden(t, c.name+".txt", address.ReplaceAllString(dated.ReplaceAllString(out, ""), "127.0.0.1:12345"))
		})
	}
}

var dated = regexp.MustCompile(`(?m)^ *Date: .*\n`)

func withBearer(t *testing.T, url, token string) *http.Request {
	req, err := http.NewRequest("GET", url, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	return req
}

// runLogin runs the command without a world around it.
func runLogin(flow login.Flow, args []string) (out string, status int) {
	return runLoginOver(&http.Transport{}, flow, args)
}

func runLoginOver(base *http.Transport, flow login.Flow, args []string) (out string, status int) {
	var stdout, stderr bytes.Buffer
	defer base.CloseIdleConnections()
	c := command{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, getenv: func(string) string { return "" },
		asker: asker{base: base, now: time.Now, flow: flow}}
	status = c.run(context.Background(), args)
	return stdout.String() + stderr.String(), status
}

// TestLoginWithoutMetadata asks a server that says no more than Bearer.
func TestLoginWithoutMetadata(t *testing.T) {
	server := authtest.NewServer(&authtest.Bearer{Realm: "cave"})
	defer server.Close()
	out, status := runLogin(&login.Browser{Out: io.Discard}, []string{"-login", "-client-id", "why", server.URL + "/"})
	require.Equal(t, exitFailed, status)
	golden(t, "login-no-metadata.txt", address.ReplaceAllString(out, "127.0.0.1:12345"))
}
