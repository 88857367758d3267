package kerberos

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/authretry/authretry/negotiate"
	"github.com/stretchr/testify/require"
)

type accountKey struct{}

// manyUsers returns a Transport for all users, and a func that sends a request for one.
func manyUsers(t *testing.T, s *servers.Server, scheme *negotiate.Scheme) func(account, url string) (status int, as string) {
	base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.CA.Pool}, ForceAttemptHTTP2: true}
	rt := &authretry.Transport{Base: base, Schemes: []authretry.Scheme{scheme}, Account: func(r *http.Request) string {
		account, _ := r.Context().Value(accountKey{}).(string)
		return account
	}}
	t.Cleanup(rt.CloseIdleConnections)
	return func(account, url string) (int, string) {
		req, err := http.NewRequestWithContext(context.WithValue(t.Context(), accountKey{}, account), "GET", url, nil)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		resp, err := rt.RoundTrip(req)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, resp.Header.Get("X-User")
	}
}

// With GssapiConnectionBound no account's request is taken for another's, nor nobody's for somebody's, by HTTP/1.1 and by
// HTTP/2. With SharedConnections they are: that is what the connections of each account are for.
func TestConnectionBound(t *testing.T) {
	r := servers.Kerberos(t, "")
	s := servers.ApacheKerberos(t, r, "")
	r.Add(t, "scar", "Be Prepared")
	passwords := map[string]string{user: servers.Password, "scar": "Be Prepared"}
	accounts := func(_ context.Context, account string) (negotiate.Kerberos, error) {
		return &negotiate.Client{Principal: account, Password: passwords[account], Config: r.Config}, nil
	}
	for _, url := range []string{s.URL + "/bound/", s.TLS + "/bound/"} {
		send := manyUsers(t, s, &negotiate.Scheme{Accounts: accounts})
		var workers sync.WaitGroup
		for i := range 12 {
			workers.Go(func() {
				for range 20 {
					switch account := []string{user, "scar", ""}[i%3]; account {
					case "":
						if status, as := send("", url); status != 401 || as != "" {
							t.Errorf("nobody is %q: %d", as, status)
						}
					default:
						if status, as := send(account, url); status != 200 || as != account+"@"+servers.KerberosRealm {
							t.Errorf("%s is %q: %d", account, as, status)
						}
					}
				}
			})
		}
		workers.Wait()

		shared := manyUsers(t, s, &negotiate.Scheme{Accounts: accounts, SharedConnections: true})
		_, as := shared(user, url)
		require.Equal(t, full, as)
		status, as := shared("", url)
		t.Logf("with SharedConnections, nobody is %q: %d", as, status)
	}
}
