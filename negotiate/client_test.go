package negotiate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry"
	"github.com/jcmturner/gofork/encoding/asn1"
	"github.com/jcmturner/gokrb5/v8/iana/errorcode"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
	"github.com/stretchr/testify/require"
)

// A ticket that comes to its end while 16 goroutines use it is replaced once, in the background, and no request fails. The same for
// one that has ended while nobody wanted it.
func TestTicketThatEndsUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newTestKDC(t, testSPN)
		srv := newTestService(k)
		rt := to(srv, &Scheme{Kerberos: k.client("alice"), Ahead: true, Mutual: true})
		load := func(d time.Duration) {
			end := time.Now().Add(d)
			var workers sync.WaitGroup
			for range 16 {
				workers.Go(func() {
					for time.Now().Before(end) {
						if status, _ := get(t, rt, testURL); status != 200 {
							t.Error(status)
						}
						time.Sleep(10 * time.Minute)
					}
				})
			}
			workers.Wait()
		}
		load(8 * time.Hour)
		require.EqualValues(t, 1, k.tickets.Load())
		load(4 * time.Hour) // of 10 hours, 8:20 have passed
		require.EqualValues(t, 2, k.tickets.Load())
		require.EqualValues(t, 2, k.logins.Load())
		time.Sleep(24 * time.Hour)
		load(time.Hour)
		require.EqualValues(t, 3, k.tickets.Load())
		require.EqualValues(t, 3, k.logins.Load())
		require.Equal(t, srv.requests.Load(), srv.accepted.Load())
	})
}

// A login that fails does no harm as long as the one before lasts, and is not tried for each request.
func TestLoginThatCannotBeRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newTestKDC(t, testSPN, "HTTP/a.test", "HTTP/b.test")
		c := k.client("alice")
		_, err := c.Token(t.Context(), testSPN)
		require.NoError(t, err)
		k.lie = func(kind string, answer []byte) []byte {
			return changed(kind == "preauth", answer, k.refuse(errorcode.KDC_ERR_CLIENT_REVOKED, nil))
		}
		time.Sleep(8*time.Hour + 30*time.Minute)
		asked := k.asked.Load()
		for _, spn := range []string{"HTTP/a.test", "HTTP/b.test"} {
			_, err := c.Token(t.Context(), spn)
			require.NoError(t, err)
		}
		require.EqualValues(t, 3, k.asked.Load()-asked, "one for the login, and two for tickets")
		time.Sleep(2 * time.Hour)
		_, err = c.Token(t.Context(), testSPN)
		require.ErrorContains(t, err, "KDC_ERR_CLIENT_REVOKED")
	})
}

// A KDC that cannot be reached fails the requests, and is not dialled for each of them; as soon as it can be, all is well.
func TestKDCThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newTestKDC(t, testSPN)
		c := k.client("alice")
		var dials atomic.Int32
		down := atomic.Bool{}
		down.Store(true)
		c.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if dials.Add(1); down.Load() {
				return nil, errors.New("connection refused")
			}
			return k.dial(ctx, network, address)
		}
		rt := to(newTestService(k), &Scheme{Kerberos: c})
		for range 50 {
			_, err := rt.RoundTrip(newRequest(t, testURL))
			require.ErrorContains(t, err, "no KDC of the realm EXAMPLE.TEST answers: connection refused")
		}
		require.EqualValues(t, 1, dials.Load())
		down.Store(false)
		time.Sleep(2 * time.Second)
		status, _ := get(t, rt, testURL)
		require.Equal(t, 200, status)
	})
}

// Who waits for a KDC that does not answer waits as long as its context lasts. There are no more than 8 exchanges at once, and
// they end.
func TestKDCThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newTestKDC(t, "HTTP/first.test", testSPN)
		c := k.client("alice")
		var mu sync.Mutex
		open, most, hangs := 0, 0, false // the first two guarded by mu
		opened := func(n int) (now, ever int) {
			mu.Lock()
			defer mu.Unlock()
			open += n
			most = max(most, open)
			return open, most
		}
		c.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if !hangs {
				return k.dial(ctx, network, address)
			}
			ours, theirs := net.Pipe()
			opened(1)
			return &closing{ours, func() { opened(-1); theirs.Close() }}, nil
		}
		_, err := c.Token(t.Context(), "HTTP/first.test")
		require.NoError(t, err)
		hangs = true
		begin := time.Now()
		var callers sync.WaitGroup
		for i := range 100 {
			callers.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				_, err := c.Token(ctx, fmt.Sprintf("HTTP/host-%d.test", i/2))
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no ticket for HTTP/host-") {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		require.Equal(t, 2*time.Second, time.Since(begin))
		_, ever := opened(0)
		require.Equal(t, 8, ever)

		_, err = c.Token(t.Context(), testSPN)
		require.Error(t, err)
		require.LessOrEqual(t, time.Since(begin), 30*time.Second)
		time.Sleep(time.Minute)
		synctest.Wait()
		now, _ := opened(0)
		require.Zero(t, now)
	})
}

// When one KDC of a realm hangs or is down, another is asked.
func TestSecondKDC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newTestKDC(t, testSPN)
		c := k.client("alice")
		c.Config = k.config("hangs.test\n  kdc = down.test:88\n  kdc = good.test:88")
		c.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			switch address {
			case "good.test:88":
				return k.dial(ctx, network, address)
			case "hangs.test:88":
				ours, theirs := net.Pipe()
				return &closing{ours, func() { theirs.Close() }}, nil
			}
			return nil, errUnreachable
		}
		for range 20 { // the order is that of chance, but for the one that has answered
			begin := time.Now()
			_, err := c.Token(t.Context(), testSPN)
			require.NoError(t, err)
			require.LessOrEqual(t, time.Since(begin), 5*time.Second)
			c.login, c.good = nil, nil
		}
	})
}

// A closing is a connection that says when it is closed.
type closing struct {
	net.Conn
	closed func()
}

func (c *closing) Close() error {
	c.closed()
	return c.Conn.Close()
}

// Whatever the KDC answers, there is an error that says so, in little time and memory, and nothing is sent to the server.
func TestKDCThatLies(t *testing.T) {
	wrongKey := newTestKDC(t, testSPN)
	wrongKey.keys = keytab.New()
	wrongKey.add("krbtgt/"+testRealm, "x")
	wrongKey.add("alice", "another password")
	preauth := func(k *testKDC, info types.PAData) []byte {
		data, err := asn1.Marshal(types.PADataSequence{info})
		require.NoError(t, err)
		return k.refuse(errorcode.KDC_ERR_PREAUTH_REQUIRED, data)
	}
	for name, c := range map[string]struct {
		lie  func(k *testKDC, kind string, answer []byte) []byte
		text string
	}{
		"nothing":              {func(*testKDC, string, []byte) []byte { return nil }, "cannot be read"},
		"noise":                {func(*testKDC, string, []byte) []byte { return []byte(strings.Repeat("\x6b\x82\xff\xff", 1000)) }, "cannot be read"},
		"half an answer":       {func(_ *testKDC, _ string, b []byte) []byte { return b[:len(b)/2] }, "cannot be read"},
		"an answer to another": {func(k *testKDC, kind string, b []byte) []byte { return changed(kind == "AS", b, k.refuse(0, nil)) }, "KDC_ERR_NONE"},
		"a damaged AS-REP":     {func(_ *testKDC, kind string, b []byte) []byte { return damaged(kind == "AS", b) }, "wrong"},
		"a damaged TGS-REP":    {func(_ *testKDC, kind string, b []byte) []byte { return damaged(kind == "TGS", b) }, "cannot be read"},
		"a proof wanted again": {func(k *testKDC, kind string, b []byte) []byte {
			return changed(kind == "AS", b, preauth(k, etypeInfo(t, aes256, "x", 4096)))
		}, "PREAUTH_REQUIRED"},
		"so many iterations": {func(k *testKDC, kind string, b []byte) []byte {
			return changed(kind == "preauth", b, preauth(k, etypeInfo(t, aes256, "x", 1<<31)))
		}, "hashed more often"},
		"all the iterations": {func(k *testKDC, kind string, b []byte) []byte {
			return changed(kind == "preauth", b, preauth(k, etypeInfo(t, aes256, "x", 0)))
		}, "hashed more often"},
		"a weak proof": {func(k *testKDC, kind string, b []byte) []byte {
			return changed(kind == "preauth", b, preauth(k, etypeInfo(t, 23, "x", 4096)))
		}, "too weak"},
		"iterations afterwards": {func(k *testKDC, kind string, b []byte) []byte {
			var rep messages.ASRep
			if kind != "AS" || rep.Unmarshal(b) != nil {
				return b
			}
			rep.PAData = types.PADataSequence{etypeInfo(t, aes256, "x", 1<<31)}
			return must(rep.Marshal())
		}, "hashed more often"},
		"another name on the ticket": {func(k *testKDC, kind string, b []byte) []byte {
			var rep messages.TGSRep
			if kind != "TGS" || rep.Unmarshal(b) != nil {
				return b
			}
			rep.Ticket.SName = types.NewPrincipalName(1, "krbtgt/"+testRealm)
			return must(rep.Marshal())
		}, "cannot be read"},
		"no name on the ticket": {func(k *testKDC, kind string, b []byte) []byte {
			var rep messages.TGSRep
			if kind != "TGS" || rep.Unmarshal(b) != nil {
				return b
			}
			rep.Ticket.SName.NameString = nil
			return must(rep.Marshal())
		}, "cannot be read"},
		"no kind of proof": {func(k *testKDC, kind string, b []byte) []byte {
			return changed(kind == "preauth", b, k.refuse(errorcode.KDC_ERR_PREAUTH_REQUIRED, []byte("x")))
		}, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newTestKDC(t, testSPN)
			k.lie = func(kind string, answer []byte) []byte { return c.lie(k, kind, answer) }
			srv := newTestService(k)
			_, err := to(srv, &Scheme{Kerberos: k.client("alice"), Ahead: true}).RoundTrip(newRequest(t, testURL))
			require.ErrorContains(t, err, c.text)
			require.NotContains(t, err.Error(), secret)
			require.Zero(t, srv.requests.Load())
		})
	}
	t.Run("4 GiB", func(t *testing.T) {
		k := newTestKDC(t, testSPN)
		c := k.client("alice")
		c.dial = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				theirs.Read(make([]byte, 1<<10))
				theirs.Write([]byte("\xff\xff\xff\xff"))
			}()
			return ours, nil
		}
		_, err := c.Token(t.Context(), testSPN)
		require.ErrorContains(t, err, "would have 4294967295 bytes")
	})
	t.Run("another's", func(t *testing.T) {
		k := newTestKDC(t, testSPN)
		c := k.client("alice")
		c.dial = wrongKey.dial
		_, err := c.Token(t.Context(), testSPN)
		require.ErrorContains(t, err, "wrong")
	})
	t.Run("a ticket for another service", func(t *testing.T) {
		k := newTestKDC(t, testSPN, "HTTP/evil.test")
		k.swap = map[string]string{testSPN: "HTTP/evil.test"}
		_, err := k.client("alice").Token(t.Context(), testSPN)
		require.ErrorContains(t, err, "there is no ticket for "+testSPN+": the KDC has issued one for another service")
	})
}

func changed(when bool, b, other []byte) []byte {
	if when {
		return other
	}
	return b
}

// damaged changes what is encrypted at the end of an answer.
func damaged(when bool, b []byte) []byte {
	if when {
		b[len(b)-20] ^= 1
	}
	return b
}

// A wrong password is tried once in 30 seconds, however many ask, so that the account is not locked.
func TestWrongPasswordIsTriedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newTestKDC(t, testSPN)
		c := k.client("alice")
		c.Password = "a-wrong-password"
		var callers sync.WaitGroup
		for i := range 40 {
			callers.Go(func() {
				_, err := c.Token(t.Context(), fmt.Sprintf("HTTP/%d.test", i))
				if err == nil || !strings.Contains(err.Error(), "the password or the keytab is wrong") || strings.Contains(err.Error(), c.Password) {
					t.Error(err)
				}
			})
		}
		callers.Wait()
		require.EqualValues(t, 2, k.asked.Load(), "one without a proof, which says how it is wanted")
		time.Sleep(29 * time.Second)
		_, err := c.Token(t.Context(), testSPN)
		require.ErrorContains(t, err, "wrong")
		require.EqualValues(t, 2, k.asked.Load())
		time.Sleep(2 * time.Second)
		_, err = c.Token(t.Context(), testSPN)
		require.ErrorContains(t, err, "wrong")
		require.ErrorIs(t, err, authretry.ErrLoginRequired)
		require.EqualValues(t, 4, k.asked.Load())
	})
}

// A clock that is off by ten minutes is named, with how much, whoever finds out.
func TestClockThatIsOff(t *testing.T) {
	for _, ahead := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
		want := map[bool]string{true: "behind that of", false: "ahead of that of"}[ahead > 0]
		for _, tolerant := range []bool{false, true} {
			k := newTestKDC(t, testSPN)
			k.ahead, k.tolerant = ahead, tolerant
			_, err := k.client("alice").Token(t.Context(), testSPN)
			require.ErrorContains(t, err, want+" the KDC")
			require.Regexp(t, `the clock of this machine is (9m59s|10m[0-9]s) `, err.Error())
		}
		k := newTestKDC(t, testSPN)
		for _, first := range []bool{true, false} {
			srv := newTestService(k)
			srv.ahead = ahead
			resp, err := to(srv, &Scheme{Kerberos: k.client("alice"), Ahead: first}).RoundTrip(newRequest(t, testURL))
			require.NoError(t, err)
			require.Equal(t, 401, resp.StatusCode)
			require.ErrorContains(t, authretry.Explain(resp), want+" the server")
			require.EqualValues(t, map[bool]int{true: 1, false: 2}[first], srv.requests.Load())
		}
	}
}

// A ticket that has not begun yet, or has ended, may be so by the clock alone.
func TestErrorsThatAreAboutClocks(t *testing.T) {
	srv := newTestService(newTestKDC(t, testSPN))
	for _, code := range []int32{errorcode.KRB_AP_ERR_SKEW, errorcode.KRB_AP_ERR_TKT_NYV, errorcode.KRB_AP_ERR_TKT_EXPIRED} {
		srv.ahead = -10 * time.Minute
		reason, again := readRefusal(b64(srv.krbError(code)))
		require.Contains(t, reason, "ahead of that of the server")
		require.False(t, again)
		if code == errorcode.KRB_AP_ERR_SKEW {
			continue
		}
		srv.ahead = 0
		reason, again = readRefusal(b64(srv.krbError(code)))
		require.Contains(t, reason, "KRB_AP_ERR_TKT_")
		require.Equal(t, code == errorcode.KRB_AP_ERR_TKT_EXPIRED, again)
	}
}

// For a host that is not in the realm the error says so, and the KDC is asked once. What would be sent ahead goes out without a
// token.
func TestHostThatIsNotInTheRealm(t *testing.T) {
	k := newTestKDC(t, testSPN)
	srv := newTestService(k)
	rt := to(srv, &Scheme{Kerberos: k.client("alice"), Ahead: true})
	for range 5 {
		_, err := rt.RoundTrip(newRequest(t, "http://www.elsewhere.test/"))
		require.ErrorContains(t, err, "there is no ticket for HTTP/www.elsewhere.test: the KDC knows no service with the name of the host")
		var r *authretry.Rejection
		require.ErrorAs(t, err, &r)
		require.Equal(t, 401, r.Status)
	}
	require.EqualValues(t, 5, srv.bare.Load())
	require.EqualValues(t, 5, srv.requests.Load())
	require.EqualValues(t, 3, k.asked.Load(), "two to log in, and one for the ticket")
}

// When the service's key has been changed, the ticket is replaced; when it goes on refusing, the KDC is left alone.
func TestServiceWhoseKeyIsChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newTestKDC(t, testSPN)
		srv := newTestService(k)
		rt := to(srv, &Scheme{Kerberos: k.client("alice"), Ahead: true, Mutual: true})
		status, _ := get(t, rt, testURL)
		require.Equal(t, 200, status)
		time.Sleep(time.Hour)
		k.rekey(testSPN)
		status, _ = get(t, rt, testURL)
		require.Equal(t, 200, status)
		require.EqualValues(t, 3, srv.requests.Load())
		require.EqualValues(t, 2, k.tickets.Load())

		srv.only = func() string { return "bob" } // says no more than Negotiate
		for range 20 {
			status, _ = get(t, rt, testURL)
			require.Equal(t, 401, status)
			time.Sleep(time.Second)
		}
		require.EqualValues(t, 2, k.tickets.Load())
	})
}

// When the KDC does not take its own ticket any more, the Client logs in again.
func TestKDCWhoseKeyIsChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newTestKDC(t, testSPN, "HTTP/other.test")
		c := k.client("alice")
		_, err := c.Token(t.Context(), testSPN)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		k.rekey("krbtgt/" + testRealm)
		_, err = c.Token(t.Context(), "HTTP/other.test")
		require.NoError(t, err)
		require.EqualValues(t, 2, k.logins.Load())
	})
}

// A service of another realm is found by krb5.conf, or by the KDC's word; and not looked for in circles.
func TestOtherRealms(t *testing.T) {
	home, away := newTestKDC(t), newTestRealm(t, "AWAY.TEST", "HTTP/www.away.test")
	home.trust(away)
	away.trust(home)
	configured := home.config("home.test:88")
	text, err := os.ReadFile(configured)
	require.NoError(t, err)
	realms := strings.Replace(string(text), "[realms]\n", "[realms]\n AWAY.TEST = {\n  kdc = away.test\n }\n", 1)
	require.NoError(t, os.WriteFile(configured, []byte(realms), 0o600))
	mapped := filepath.Join(t.TempDir(), "krb5.conf")
	require.NoError(t, os.WriteFile(mapped, []byte(realms+"[domain_realm]\n .away.test = AWAY.TEST\n"), 0o600))
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return map[string]*testKDC{"home.test:88": home, "away.test:88": away}[address].dial(ctx, network, address)
	}
	srv := newTestService(away)
	for _, config := range []string{mapped, configured} {
		c := home.client("alice")
		c.Config, c.dial = config, dial
		home.swap = map[string]string{"HTTP/www.away.test": "krbtgt/AWAY.TEST"}
		status, user := get(t, to(srv, &Scheme{Kerberos: c, Mutual: true}), "http://www.away.test/")
		require.Equal(t, 200, status)
		require.Equal(t, "alice", user)
		require.EqualValues(t, 1, home.logins.Load())
		require.EqualValues(t, 1, home.tickets.Load())
		require.EqualValues(t, 1, away.tickets.Load())
		home.logins.Store(0)
		home.tickets.Store(0)
		away.tickets.Store(0)
	}
	c := home.client("alice")
	c.Config, c.dial = configured, dial
	home.swap["HTTP/nowhere.test"] = "krbtgt/AWAY.TEST"
	away.swap = map[string]string{"HTTP/nowhere.test": "krbtgt/" + home.realm}
	_, err = c.Token(t.Context(), "HTTP/nowhere.test")
	require.ErrorContains(t, err, "it has not been found within 5 realms")
}

// A KDC that wants no proof for a login gets none.
func TestKDCWithoutPreauthentication(t *testing.T) {
	k := newTestKDC(t, testSPN)
	k.open = true
	status, _ := get(t, to(newTestService(k), &Scheme{Kerberos: k.client("alice")}), testURL)
	require.Equal(t, 200, status)
	require.EqualValues(t, 2, k.asked.Load())
	c := k.client("alice")
	c.Password = "wrong"
	_, err := c.Token(t.Context(), testSPN)
	require.ErrorContains(t, err, "the password or the keytab is wrong")
}

// A keytab does as a password, and what is wrong with one is said.
func TestKeytab(t *testing.T) {
	k := newTestKDC(t, testSPN)
	path := filepath.Join(t.TempDir(), "keytab")
	keys := keytab.New()
	for _, e := range k.keys.Entries {
		if e.Principal.Components[0] == "alice" {
			keys.Entries = append(keys.Entries, e)
		}
	}
	b, err := keys.Marshal()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, b, 0o600))
	config := k.listen()
	_, err = (&Client{Principal: "alice", Keytab: path, Config: config}).Token(t.Context(), testSPN)
	require.NoError(t, err)
	require.EqualValues(t, 1, k.logins.Load())

	for text, c := range map[string]*Client{
		"cannot be read":           {Principal: "alice", Keytab: path + "-not-here", Config: config},
		"has no key for bob":       {Principal: "bob", Keytab: path, Config: config},
		"has no kdc for the realm": {Principal: "alice@ELSEWHERE.TEST", Password: secret, Config: config},
		"cannot be used":           {Principal: "alice", Keytab: path, Config: config + "-not-here"},
		"and not two of them":      {Principal: "alice", Keytab: path, Password: secret, Config: config},
		"needs a Principal":        {Keytab: path, Config: config},
		"needs a Password":         {Principal: "alice", Config: config},
		"KDC_ERR_C_PRINCIPAL":      {Principal: "nobody", Password: secret, Config: config},
	} {
		_, err := c.Token(t.Context(), testSPN)
		require.ErrorContains(t, err, text)
	}
	require.NoError(t, os.WriteFile(path, []byte("\x05\x02\xff\xff\xff"), 0o600))
	_, err = (&Client{Principal: "alice", Keytab: path, Config: config}).Token(t.Context(), testSPN)
	require.Error(t, err)
}

// After the clock of this machine was set back, tokens have the time that it is, and not one that servers refuse.
func TestClockThatIsSetBack(t *testing.T) {
	k := newTestKDC(t, testSPN)
	c := k.client("alice")
	c.lastTime = time.Now().Add(time.Hour).UnixMicro()
	var last time.Time
	for range 1000 {
		now := c.uniqueTime()
		require.Less(t, time.Until(now), 10*time.Second)
		require.True(t, now.After(last))
		last = now
	}
}
