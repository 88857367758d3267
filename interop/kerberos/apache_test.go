// Package kerberos tests negotiate against a KDC of MIT krb5, Apache with mod_auth_gssapi, and Squid, with curl beside it.
package kerberos

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/interop/internal/servers"
	"github.com/authretry/authretry/negotiate"
	"github.com/stretchr/testify/require"
)

const (
	user    = "mufasa"
	service = "HTTP/localhost"
	full    = user + "@" + servers.KerberosRealm
)

// A client sends requests by a Transport of its own, and counts how often each is sent.
type client struct {
	*authretry.Transport
	sends atomic.Int32
}

// newClient returns a client of HTTP/1.1 and HTTP/2, as the URLs have it.
func newClient(t *testing.T, s *servers.Server, scheme *negotiate.Scheme) *client {
	base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.CA.Pool}, ForceAttemptHTTP2: true}
	c := &client{}
	c.Transport = &authretry.Transport{Base: base, Schemes: []authretry.Scheme{scheme}, OnEvent: func(_ context.Context, e authretry.Event) {
		if e.Kind == authretry.EventDone {
			c.sends.Add(int32(e.Attempt))
		}
	}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// get sends a request, and returns the response after its body was read.
func (c *client) get(t *testing.T, url string) *http.Response {
	t.Helper()
	resp, err := (&http.Client{Transport: c}).Get(url)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp
}

// Each request is sent once with Ahead, and otherwise only the first of each folder twice: by HTTP/1.1 and by HTTP/2, in all
// ways that mod_auth_gssapi has, with the server's proof and without.
func TestApache(t *testing.T) {
	r := servers.Kerberos(t, "")
	s := servers.ApacheKerberos(t, r, "")
	cache := r.Login(t, user, servers.Password)
	const each = 5
	sent := 0
	for _, space := range []string{"plain", "once", "bound"} {
		for _, base := range []string{s.URL, s.TLS} {
			for _, ahead := range []bool{true, false} {
				for _, mutual := range []bool{true, false} {
					c := newClient(t, s, &negotiate.Scheme{Kerberos: &negotiate.Client{Cache: cache, Config: r.Config}, Ahead: ahead, Mutual: mutual})
					for range each {
						resp := c.get(t, base+"/"+space+"/")
						require.Equal(t, 200, resp.StatusCode)
						require.Equal(t, full, resp.Header.Get("X-User"))
						require.Equal(t, map[bool]int{true: 2, false: 1}[strings.HasPrefix(base, "https")], resp.ProtoMajor)
					}
					require.EqualValues(t, map[bool]int{true: each, false: each + 1}[ahead], c.sends.Load())
					sent += int(c.sends.Load())
					c.CloseIdleConnections() // or Apache may keep the last line of its log
				}
			}
		}
	}
	// Apache says the same. It writes its log behind the responses.
	require.Eventually(t, func() bool { return len(s.AccessLog(t)) >= sent }, 20*time.Second, 20*time.Millisecond)
	require.Len(t, s.AccessLog(t), sent)
}

// The proof comes with responses of every kind, so Mutual is of use with them all.
func TestApacheProvesItselfAlways(t *testing.T) {
	r := servers.Kerberos(t, "")
	s := servers.ApacheKerberos(t, r, "")
	c := newClient(t, s, &negotiate.Scheme{Kerberos: &negotiate.Client{Cache: r.Login(t, user, servers.Password), Config: r.Config}, Ahead: true, Mutual: true})
	etag := c.get(t, s.URL+"/plain/index.html").Header.Get("Etag")
	for _, base := range []string{s.URL, s.TLS} {
		for _, q := range []struct {
			method, path, match string
			status              int
		}{
			{"GET", "/plain/not-here", "", 404}, {"HEAD", "/plain/index.html", "", 200},
			{"GET", "/plain/index.html", etag, 304}, {"DELETE", "/plain/index.html", "", 405}, {"OPTIONS", "/plain/", "", 200},
		} {
			req, err := http.NewRequestWithContext(t.Context(), q.method, base+q.path, nil)
			require.NoError(t, err)
			if q.match != "" {
				req.Header.Set("If-None-Match", q.match)
			}
			resp, err := c.RoundTrip(req)
			require.NoError(t, err, "%+v", q)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, q.status, resp.StatusCode, "%+v", q)
		}
	}
}

// 16 at once that send 10 each: at most 1.1 sends for each, and one ticket.
func TestApacheManyAtOnce(t *testing.T) {
	r := servers.Kerberos(t, "")
	s := servers.ApacheKerberos(t, r, "")
	for i, base := range []string{s.URL, s.TLS} {
		c := newClient(t, s, &negotiate.Scheme{Kerberos: &negotiate.Client{Principal: user, Password: servers.Password, Config: r.Config}, Mutual: true})
		var workers sync.WaitGroup
		for range 16 {
			workers.Go(func() {
				for range 10 {
					resp, err := (&http.Client{Transport: c}).Post(base+"/plain/", "text/plain", strings.NewReader("a body"))
					if err != nil {
						t.Error(err)
						return
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if resp.StatusCode != 200 {
						t.Error(resp.Status)
					}
				}
			})
		}
		workers.Wait()
		require.LessOrEqual(t, c.sends.Load(), int32(176))
		require.Equal(t, i+1, r.Issued(t, service))
	}
}

// Passwords, keytabs and caches do, and what is wrong with them is said.
func TestCredentials(t *testing.T) {
	r := servers.Kerberos(t, "")
	s := servers.ApacheKerberos(t, r, "")
	keytab := r.Keytab(t, user)
	for name, k := range map[string]*negotiate.Client{
		"password":       {Principal: user, Password: servers.Password},
		"in a realm":     {Principal: full, Password: servers.Password},
		"keytab":         {Principal: user, Keytab: keytab},
		"cache":          {Cache: "FILE:" + r.Login(t, user, servers.Password)},
		"renewable":      {Cache: r.Login(t, user, servers.Password, "-r", "1d", "-f")},
		"wrong password": {Principal: user, Password: "wrong"},
		"nobody":         {Principal: "nobody", Password: servers.Password},
		"wrong keytab":   {Principal: "nobody", Keytab: keytab},
		"KEYRING":        {Cache: "KEYRING:persistent:0"},
	} {
		k.Config = r.Config
		c := newClient(t, s, &negotiate.Scheme{Kerberos: k, Mutual: true})
		want := map[string]string{
			"wrong password": "the password or the keytab is wrong", "nobody": "KDC_ERR_C_PRINCIPAL_UNKNOWN",
			"wrong keytab": "has no key for nobody@EXAMPLE.TEST", "KEYRING": "is of the type KEYRING",
		}[name]
		resp, err := (&http.Client{Transport: c}).Get(s.URL + "/plain/")
		if want == "" {
			require.NoError(t, err, name)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, full, resp.Header.Get("X-User"), name)
		} else {
			require.ErrorContains(t, err, want)
			require.ErrorContains(t, err, "answered 401")
		}
	}
}

// A service of another realm is reached by way of the user's own, as curl does.
func TestOtherRealm(t *testing.T) {
	users, services := servers.KerberosTrusting(t)
	s := servers.ApacheKerberos(t, services, "")
	cache := users.Login(t, user, servers.Password)
	require.Equal(t, "200", curl(t, users, cache, "--negotiate", "--user", ":", s.URL+"/plain/"))
	for _, k := range []*negotiate.Client{{Cache: users.Login(t, user, servers.Password)}, {Principal: user, Password: servers.Password}} {
		k.Config = users.Config
		resp := newClient(t, s, &negotiate.Scheme{Kerberos: k, Mutual: true}).get(t, s.URL+"/plain/")
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, full, resp.Header.Get("X-User"))
	}
	require.Equal(t, 3, services.Issued(t, service))
}

// Who is known and not let in is told so, and so is who has no ticket for the host.
func TestApacheRefusals(t *testing.T) {
	r := servers.Kerberos(t, "")
	s := servers.ApacheKerberos(t, r, "")
	k := &negotiate.Client{Cache: r.Login(t, user, servers.Password), Config: r.Config}
	c := newClient(t, s, &negotiate.Scheme{Kerberos: k})
	for range 3 {
		resp := c.get(t, s.URL+"/only/")
		require.Equal(t, 401, resp.StatusCode)
		require.ErrorContains(t, authretry.Explain(resp), "the server has accepted the token, and does not let its user in")
	}
	require.EqualValues(t, 6, c.sends.Load())
	require.Equal(t, 1, r.Issued(t, service))

	_, err := c.RoundTrip(newRequest(t, strings.Replace(s.URL, "localhost", "127.0.0.1", 1)+"/plain/"))
	require.ErrorContains(t, err, "there is no ticket for HTTP/127.0.0.1: the KDC knows no service with the name of the host")
}

func newRequest(t *testing.T, url string) *http.Request {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	return req
}

// A clock that is ten minutes off is named, be it the KDC's or the server's.
func TestClocks(t *testing.T) {
	for _, clock := range []string{"+10m", "-10m"} {
		where := map[bool]string{true: "behind", false: "ahead of"}[clock == "+10m"]
		t.Run("KDC "+clock, func(t *testing.T) {
			r := servers.Kerberos(t, clock)
			k := &negotiate.Client{Principal: user, Password: servers.Password, Config: r.Config}
			_, err := k.Token(t.Context(), service)
			require.ErrorContains(t, err, where+" that of the KDC, and Kerberos allows 5 minutes: set the clocks right")
		})
		t.Run("server "+clock, func(t *testing.T) {
			r := servers.Kerberos(t, "")
			s := servers.ApacheKerberos(t, r, clock)
			k := &negotiate.Client{Principal: user, Password: servers.Password, Config: r.Config}
			for _, ahead := range []bool{true, false} {
				resp := newClient(t, s, &negotiate.Scheme{Kerberos: k, Ahead: ahead}).get(t, s.URL+"/plain/")
				require.Equal(t, 401, resp.StatusCode)
				require.ErrorContains(t, authretry.Explain(resp), where+" that of the server")
			}
		})
	}
}

// A ticket that ends while it is in use is replaced once each time, and no request fails.
func TestTicketThatEndsUnderLoad(t *testing.T) {
	r := servers.Kerberos(t, "")
	s := servers.ApacheKerberos(t, r, "")
	const life = 10 * time.Second
	r.Limit(t, service, "10 seconds")
	c := newClient(t, s, &negotiate.Scheme{Kerberos: &negotiate.Client{Principal: user, Password: servers.Password, Config: r.Config}, Ahead: true, Mutual: true})
	begin := time.Now()
	var failed, passed atomic.Int32
	var enough atomic.Bool
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for !enough.Load() {
				resp, err := (&http.Client{Transport: c}).Get(s.URL + "/plain/")
				if err != nil || resp.StatusCode != 200 {
					failed.Add(1)
					t.Log(resp, err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				passed.Add(1)
				<-time.After(10 * time.Millisecond) // the KDC's clock is real
			}
		})
	}
	defer workers.Wait()
	defer enough.Store(true)
	replaced := func() bool { return r.Issued(t, service) >= 2 }
	require.Eventually(t, replaced, time.Minute, 50*time.Millisecond)
	<-time.After(life * 2 / 10) // until the first one has ended, too
	enough.Store(true)
	workers.Wait()
	require.Zero(t, failed.Load())
	most := 1 + int(time.Since(begin)/(life*8/10)) // it is replaced when 5/6 have passed
	require.LessOrEqual(t, r.Issued(t, service), most)
	t.Log(fmt.Sprint(passed.Load(), " requests, ", r.Issued(t, service), " tickets"))
}
