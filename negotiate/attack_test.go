package negotiate

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/authretry/authretry"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
	"github.com/stretchr/testify/require"
)

// A recording remembers what is sent.
type recording struct {
	http.Handler
	mu   sync.Mutex
	sent []string // each Authorization
}

func (r *recording) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.sent = append(r.sent, req.Header.Get("Authorization"))
	r.mu.Unlock()
	r.Handler.ServeHTTP(w, req)
}

// refusingWith is a server that refuses for ever with these challenges.
func refusingWith(challenges ...string) *recording {
	return &recording{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Www-Authenticate"] = challenges
		w.WriteHeader(http.StatusUnauthorized)
	})}
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// Whatever tokens come with refusals, a request is sent twice at most, and the KDC is asked for one ticket.
func TestEndlessRefusals(t *testing.T) {
	k := newTestKDC(t, testSPN)
	srv := newTestService(k)
	ntlm := b64([]byte("NTLMSSP\x00\x02\x00\x00\x00" + strings.Repeat("\xff", 40)))
	for name, c := range map[string]struct{ token, reason string }{
		"none":             {"", ""},
		"no base64":        {" %%%", ""},
		"noise":            {" " + b64([]byte(strings.Repeat("\x30\x84\xff\xff", 100))), "goes on with what is no token"},
		"64 KiB":           {" " + strings.Repeat("QUFB", 16<<10), "goes on with what is no token"},
		"1 MiB":            {" " + strings.Repeat("QUFB", 256<<10), ""},
		"continue":         {" " + b64(respToken(1, idReply, []byte("x"))), "wants more than one token"},
		"reject":           {" " + b64([]byte("\xa1\x07\x30\x05\xa0\x03\x0a\x01\x02")), "rejects the token"},
		"accepted":         {" " + b64(respToken(acceptCompleted, idReply, []byte("x"))), "does not let its user in"},
		"NTLM":             {" " + ntlm, "goes on with NTLM"},
		"NTLM in a frame":  {" " + b64([]byte("\xa1\x15\x30\x13\xa0\x03\x0a\x01\x01\xa1\x0c\x06\x0a\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a")), "goes on with NTLM"},
		"an error":         {" " + b64(srv.krbError(41)), "KRB_AP_ERR_MODIFIED"},
		"a damaged error":  {" " + b64(respToken(2, idError, []byte("\x7e\x84\xff\xff\xff\xff"))), ""},
		"another's choice": {" " + b64([]byte("\xa1\x0f\x30\x0d\xa0\x03\x0a\x01\x01\xa1\x06\x06\x04\x2a\x03\x04\x05")), "another mechanism"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, ahead := range []bool{false, true} {
				refusing := refusingWith("Negotiate" + c.token)
				rt := to(refusing, &Scheme{Kerberos: k.client("alice"), Ahead: ahead, Mutual: true})
				before := k.tickets.Load()
				for range 3 {
					resp, err := rt.RoundTrip(newRequest(t, testURL))
					require.NoError(t, err)
					require.Equal(t, 401, resp.StatusCode)
					if c.reason != "" {
						require.ErrorContains(t, authretry.Explain(resp), c.reason)
					}
					require.LessOrEqual(t, len(refusing.sent), 2)
					refusing.sent = nil
				}
				require.LessOrEqual(t, k.tickets.Load()-before, int32(1))
			}
		})
	}
}

// A server, or who stands before it, that changes from Negotiate to NTLM and then to Basic gets tokens of Kerberos, and nothing
// else.
func TestNoDowngrade(t *testing.T) {
	k := newTestKDC(t, testSPN)
	rt := to(nil, &Scheme{Kerberos: k.client("alice")})
	for _, challenges := range [][]string{
		{"Negotiate", "NTLM", `Basic realm="x"`},
		{"NTLM", `Basic realm="x"`},
		{"NTLM TlRMTVNTUAACAAAA"},
		{"Negotiate TlRMTVNTUAACAAAA"},
		{`Basic realm="x"`},
		{"Negotiate", `Basic realm="x"`},
	} {
		srv := refusingWith(challenges...)
		rt.Base = by{srv}
		for range 2 {
			resp, err := rt.RoundTrip(newRequest(t, testURL))
			require.NoError(t, err)
			require.Equal(t, 401, resp.StatusCode)
		}
		for _, sent := range srv.sent {
			if sent == "" {
				continue
			}
			token, ok := strings.CutPrefix(sent, "Negotiate ")
			require.True(t, ok, sent)
			_, err := requestIn(decode(token))
			require.NoError(t, err, "it is no AP-REQ")
		}
	}
}

// Where Basic may be used as well, a Kerberos that fails is an error, and no reason to send the password.
func TestNoBasicInPlaceOfAFailingKerberos(t *testing.T) {
	k := newTestKDC(t) // which knows no service
	down := k.client("alice")
	down.dial = unreachable
	for _, c := range []*Client{k.client("alice"), down, {Cache: "KCM:0", Config: k.config("x")}} {
		srv := refusingWith("Negotiate", `Basic realm="x"`)
		rt := to(srv, &Scheme{Kerberos: c})
		rt.Schemes = append(rt.Schemes, &authretry.Basic{Username: "alice", Password: secret})
		rt.AllowPlaintext = true
		_, err := rt.RoundTrip(newRequest(t, testURL))
		require.Error(t, err)
		require.Equal(t, []string{""}, srv.sent)
	}
}

// The name of the service follows from what the caller has addressed: no Host header has a say in it, nor has a redirect.
func TestSPN(t *testing.T) {
	for host, spn := range map[string]string{
		"www.example.test": testSPN, "WWW.Example.Test:8080": testSPN, "www.example.test.": testSPN,
		"127.0.0.1:80": "HTTP/127.0.0.1", "[::1]:80": "HTTP/::1",
	} {
		got, err := new(Scheme).spn(&url.URL{Scheme: "http", Host: host})
		require.NoError(t, err)
		require.Equal(t, spn, got)
	}
	for _, host := range []string{"", "bücher.test", "\u212aerberos.test", "a b", "x@EVIL.TEST", strings.Repeat("a", 2000)} {
		_, err := new(Scheme).spn(&url.URL{Scheme: "http", Host: host})
		require.ErrorContains(t, err, "set Scheme.SPN", host)
	}

	k := newTestKDC(t, testSPN, "HTTP/evil.test", "HTTP/alias.test")
	srv := &recording{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Host == "www.example.test" && r.Header.Get("Authorization") != "" {
			w.Header().Set("Location", "http://evil.test/")
			w.WriteHeader(http.StatusTemporaryRedirect)
			return
		}
		w.Header().Set("WWW-Authenticate", "Negotiate")
		w.WriteHeader(http.StatusUnauthorized)
	})}
	var asked []string
	rt := to(srv, &Scheme{Kerberos: k.client("alice"), SPN: func(u *url.URL) string {
		asked = append(asked, u.String())
		return "HTTP/" + u.Hostname()
	}})
	req := newRequest(t, testURL+"?q=secret")
	resp, err := (&http.Client{Transport: rt}).Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 401, resp.StatusCode)
	require.Equal(t, []string{"http://www.example.test"}, asked)
	require.Len(t, srv.sent, 3)
	require.Empty(t, srv.sent[2])
	require.EqualValues(t, 1, k.tickets.Load())

	for spn, text := range map[string]string{"": "", "HTTP": "is no service and host", "HTTP/a b": "is no service and host", "HTTP/x@EVIL": "is no service and host"} {
		resp, err := to(refusingWith("Negotiate"), &Scheme{Kerberos: k.client("alice"), Ahead: true, SPN: func(*url.URL) string { return spn }}).RoundTrip(newRequest(t, testURL))
		if spn == "" {
			require.NoError(t, err)
			require.Equal(t, 401, resp.StatusCode)
		} else {
			require.ErrorContains(t, err, text)
		}
	}
}

// Request.Host names the service only where the request goes there: by plain http, through a proxy or a Base that may use one.
func TestSPNAndHost(t *testing.T) {
	k := newTestKDC(t, testSPN, "HTTP/alias.test")
	asks := refusingWith("Negotiate")
	srv := httptest.NewServer(asks)
	defer srv.Close()
	proxy, err := url.Parse(srv.URL)
	require.NoError(t, err)
	dialled := &net.Dialer{}
	direct := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialled.DialContext(ctx, network, proxy.Host)
	}}
	proxied := &http.Transport{Proxy: http.ProxyURL(proxy)}
	defer direct.CloseIdleConnections()
	defer proxied.CloseIdleConnections()
	for _, c := range []struct {
		base      http.RoundTripper
		url, want string
	}{
		{direct, testURL, "http://www.example.test"},
		{proxied, testURL, "http://alias.test"},
		{by{asks}, testURL, "http://alias.test"},
		{by{asks}, "https://www.example.test/", "https://www.example.test"},
	} {
		var asked []string
		rt := &authretry.Transport{Base: c.base, Schemes: []authretry.Scheme{&Scheme{Kerberos: k.client("alice"), SharedConnections: true,
			SPN: func(u *url.URL) string { asked = append(asked, u.String()); return "HTTP/" + u.Hostname() }}}}
		req := newRequest(t, c.url)
		req.Host = "alias.test"
		resp, err := rt.RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, []string{c.want}, asked)
	}
}

// With Mutual, a response whose sender has not proved that it could read the request's own token fails the request. Without, proofs
// do not matter.
func TestMutual(t *testing.T) {
	k := newTestKDC(t, testSPN)
	client := k.client("alice")
	get := func(srv http.Handler, mutual bool) error {
		resp, err := to(srv, &Scheme{Kerberos: client, Ahead: true, Mutual: mutual}).RoundTrip(newRequest(t, testURL))
		if err == nil {
			require.Equal(t, 200, resp.StatusCode)
		}
		return err
	}
	lying := func(lie func(part *messages.EncAPRepPart, key *types.EncryptionKey)) http.Handler {
		srv := newTestService(k)
		srv.lie = lie
		return srv
	}
	mute := newTestService(k)
	mute.mute = true
	answering := func(values ...string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header()["Www-Authenticate"] = values })
	}
	var earlier string
	other := newTestService(k)
	require.NoError(t, get(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		other.ServeHTTP(w, r)
		earlier = w.Header().Get("WWW-Authenticate")
	}), true))
	var raw string // without the frame of RFC 4178, as some have it
	require.NoError(t, get(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		other.ServeHTTP(w, r)
		inner := readReply(decode(strings.TrimPrefix(w.Header().Get("WWW-Authenticate"), "Negotiate "))).token
		raw = "Negotiate " + b64(inner)
		w.Header().Set("WWW-Authenticate", raw)
	}), true))

	for name, c := range map[string]struct {
		srv  http.Handler
		text string
	}{
		"none":               {mute, "has no proof"},
		"another time":       {lying(func(p *messages.EncAPRepPart, _ *types.EncryptionKey) { p.CTime = p.CTime.Add(1e9) }), "belongs to another request"},
		"another µs":         {lying(func(p *messages.EncAPRepPart, _ *types.EncryptionKey) { p.Cusec ^= 1 }), "belongs to another request"},
		"another key":        {lying(func(_ *messages.EncAPRepPart, key *types.EncryptionKey) { key.KeyValue = make([]byte, 32) }), "not by who has the key"},
		"an earlier one":     {answering(earlier), "belongs to another request"},
		"an earlier one raw": {answering(raw), "belongs to another request"},
		"two":                {answering(earlier, earlier), "has no proof"},
		"NTLM":               {answering("Negotiate TlRMTVNTUAACAAAA"), "it is NTLM"},
		"64 KiB":             {answering("Negotiate " + strings.Repeat("QUFB", 16<<10)), "what is no token"},
		"1 MiB":              {answering("Negotiate " + strings.Repeat("QUFB", 256<<10)), "has no proof"},
		"not accepted":       {answering("Negotiate " + b64(respToken(1, idReply, []byte("x")))), "has not accepted"},
		"accepted, no proof": {answering("Negotiate oRQwEqADCgEAoQsGCSqGSIb3EgECAg=="), "no token of Kerberos"},
		"no AP-REP":          {answering("Negotiate " + b64(respToken(0, idReply, []byte("\x6f\x84\xff\xff\xff\xff")))), "no token of Kerberos"},
		"an error":           {answering("Negotiate " + b64(respToken(0, idError, []byte("x")))), "no token of Kerberos"},
		"our own token": {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", r.Header.Get("Authorization"))
		}), "no token of Kerberos"},
	} {
		t.Run(name, func(t *testing.T) {
			err := get(c.srv, true)
			require.ErrorContains(t, err, c.text)
			require.ErrorIs(t, err, authretry.ErrMutualAuth)
			var r *authretry.Rejection
			require.ErrorAs(t, err, &r)
			require.Equal(t, authretry.ReasonUntrustedServer, r.Reason)
			require.NoError(t, get(c.srv, false))
		})
	}
}

// A 407 that comes from a proxy on the way proves nothing, and goes to the caller.
func TestMutualBehindAProxyThatRefuses(t *testing.T) {
	k := newTestKDC(t, testSPN)
	proxy := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Proxy-Authenticate", "Negotiate")
		w.WriteHeader(http.StatusProxyAuthRequired)
	})
	status, _ := get(t, to(proxy, &Scheme{Kerberos: k.client("alice"), Ahead: true, Mutual: true}), testURL)
	require.Equal(t, 407, status)
}

// What the caller has in Authorization stays there, and its response needs no proof of ours.
func TestCallersAuthorization(t *testing.T) {
	k := newTestKDC(t, testSPN)
	for _, own := range []string{"Negotiate", "Negotiate %", "Basic QTpC"} {
		s := &session{kerberos: k.client("alice"), spn: testSPN, mutual: true}
		req := newRequest(t, testURL)
		req.Header.Set("Authorization", own)
		require.NoError(t, s.Authorize(req))
		require.Equal(t, own, req.Header.Get("Authorization"))
		_, err := s.Learn(&http.Response{StatusCode: 200, Header: http.Header{}, Request: req}, false)
		require.NoError(t, err)
	}
	require.Zero(t, k.asked.Load())
}

// An origin that another server redirects to gets no token ahead, though it has the same host and so the same service.
func TestRedirectedToAnotherPort(t *testing.T) {
	k := newTestKDC(t, loopbackSPN)
	elsewhere := refusingWith("Negotiate")
	second := httptest.NewServer(elsewhere)
	defer second.Close()
	first := httptest.NewServer(http.RedirectHandler(second.URL, http.StatusFound))
	defer first.Close()
	rt := &authretry.Transport{Base: &http.Transport{}, Schemes: []authretry.Scheme{&Scheme{Kerberos: k.client("alice"), Ahead: true}}}
	defer rt.CloseIdleConnections()
	status, _ := get(t, rt, first.URL)
	require.Equal(t, 401, status)
	require.Equal(t, []string{""}, elsewhere.sent)
}

var errUnreachable = errors.New("unreachable")

func FuzzReply(f *testing.F) {
	k := newTestKDC(f, testSPN)
	f.Add(respToken(acceptCompleted, idReply, []byte("x")))
	f.Add(newTestService(k).krbError(37))
	f.Add([]byte("NTLMSSP\x00\x02"))
	f.Add([]byte("\x60\x84\xff\xff\xff\xff"))
	user := k.client("alice")
	t := must(user.ticket(f.Context(), testSPN))
	tickets := []*ticket{t}
	token := must(initToken(must(newAPReq(t, t.got))))
	f.Fuzz(func(t *testing.T, b []byte) {
		readRefusal(b64(b))
		if verify(tickets, token, b) == nil {
			t.Error("what was made without the key is a proof")
		}
		if verify(tickets, b, b) == nil {
			t.Error("what is no token has a proof")
		}
	})
}

func unreachable(context.Context, string, string) (net.Conn, error) {
	return nil, errUnreachable
}

// With Mutual and Ahead no request goes without a token, to which anybody could answer: what says that there is no such service is not
// protected.
func TestMutualNeedsAToken(t *testing.T) {
	k := newTestKDC(t) // which knows no service
	for _, mutual := range []bool{true, false} {
		srv := &recording{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		_, err := to(srv, &Scheme{Kerberos: k.client("alice"), Ahead: true, Mutual: mutual}).RoundTrip(newRequest(t, testURL))
		if mutual {
			require.ErrorContains(t, err, "with Scheme.Mutual no request is sent")
			require.Empty(t, srv.sent)
		} else {
			require.NoError(t, err)
			require.Equal(t, []string{""}, srv.sent)
		}
	}
}
