package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
)

func readAll(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(body)
}

// device begins a login by a device on a server whose clock is the bubble's.
func device(t *testing.T, oauth *authtest.OAuth) (*DeviceCode, *authtest.Server) {
	srv := authtest.NewPipeServer(oauth)
	t.Cleanup(srv.Close)
	d, err := of(srv, oauth).Device(t.Context())
	require.NoError(t, err)
	return d, srv
}

// polls returns when the token endpoint was asked, in seconds from the beginning.
func polls(srv *authtest.Server, began time.Time) (at []int) {
	for _, r := range srv.TokenRequests() {
		at = append(at, int(r.Time.Sub(began).Round(time.Second).Seconds()))
	}
	return at
}

func TestDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		d, srv := device(t, &authtest.OAuth{ClientID: "me", DeviceLifetime: time.Minute})
		defer srv.Close()
		require.Equal(t, began.Add(time.Minute), d.Expiry)
		go func() {
			time.Sleep(12 * time.Second)
			_ = srv.Approve(context.Background(), d.VerificationURIComplete)
		}()
		tok, err := d.Await(t.Context())
		require.NoError(t, err)
		require.Equal(t, []int{5, 10, 15}, polls(srv, began))
		require.Equal(t, srv.URL, authretry.RecordOf(tok).Resource)
		require.NotContains(t, fmt.Sprintf("%v %+v %#v", d, *d, d), "device-")
		text, _ := json.Marshal(d)
		require.NotContains(t, string(text), "device-")
	})
}

// Each slow_down makes the interval 5 seconds longer, for all later polls (RFC 8628 §3.5).
func TestSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		d, srv := device(t, &authtest.OAuth{ClientID: "me"})
		defer srv.Close()
		srv.Inject("/oauth/token", 2, authtest.TokenError("slow_down"))
		go func() {
			time.Sleep(40 * time.Second)
			_ = srv.Approve(context.Background(), d.VerificationURIComplete)
		}()
		_, err := d.Await(t.Context())
		require.NoError(t, err)
		require.Equal(t, []int{5, 15, 30, 45}, polls(srv, began), "5, then 10, then 15 seconds apart")
	})
}

func TestDeviceThatEnds(t *testing.T) {
	for name, c := range map[string]struct {
		act  func(srv *authtest.Server, d *DeviceCode, cancel func())
		want error
		at   int
	}{
		"declined": {func(srv *authtest.Server, d *DeviceCode, _ func()) {
			_ = srv.Decline(context.Background(), d.VerificationURIComplete)
		}, ErrDeclined, 5},
		"expired": {func(*authtest.Server, *DeviceCode, func()) {}, ErrExpired, 60},
		"by server": {func(srv *authtest.Server, _ *DeviceCode, _ func()) {
			srv.Inject("/oauth/token", 1, authtest.TokenError("expired_token"))
		}, ErrExpired, 5},
		"cancelled": {func(_ *authtest.Server, _ *DeviceCode, cancel func()) { cancel() }, context.Canceled, 0},
		"bad client": {func(srv *authtest.Server, _ *DeviceCode, _ func()) {
			srv.Inject("/oauth/token", 1, authtest.TokenError("invalid_client"))
		}, &Error{}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				d, srv := device(t, &authtest.OAuth{ClientID: "me", DeviceLifetime: time.Minute})
				defer srv.Close()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				c.act(srv, d, cancel)
				_, err := d.Await(ctx)
				if _, ok := c.want.(*Error); ok {
					require.ErrorAs(t, err, new(*Error))
				} else {
					require.ErrorIs(t, err, c.want)
				}
				require.Equal(t, c.at, int(time.Since(began).Seconds()))
			})
		})
	}
}

// A server that cannot be reached, has failed, or breaks off is asked more and more seldom, and the login goes on.
func TestDeviceGoesOnAfterFailures(t *testing.T) {
	for _, fault := range []authtest.Fault{authtest.Reply(502, nil, "<html>"), authtest.Abort(),
		authtest.Reply(400, http.Header{"Content-Length": {"99"}}, `{"error":"authoriz`)} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			d, srv := device(t, &authtest.OAuth{ClientID: "me"})
			defer srv.Close()
			srv.Inject("/oauth/token", 1, fault)
			require.NoError(t, srv.Approve(t.Context(), d.VerificationURIComplete))
			_, err := d.Await(t.Context())
			require.NoError(t, err)
			require.Equal(t, []int{5, 15}, polls(srv, began))
		})
	}
}

func TestDeviceAnswers(t *testing.T) {
	good := map[string]any{"device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": "https://auth.example.com/device", "expires_in": 600, "interval": 5}
	for name, c := range map[string]struct {
		change map[string]any
		want   string // of the error
		check  func(*testing.T, *DeviceCode)
	}{
		"good":                    {},
		"interval 0":              {change: map[string]any{"interval": 0}, check: func(t *testing.T, d *DeviceCode) { require.Equal(t, 5*time.Second, d.interval) }},
		"interval -1":             {change: map[string]any{"interval": -1}, check: func(t *testing.T, d *DeviceCode) { require.Equal(t, 5*time.Second, d.interval) }},
		"interval as a string":    {change: map[string]any{"interval": "7"}, check: func(t *testing.T, d *DeviceCode) { require.Equal(t, 7*time.Second, d.interval) }},
		"no interval":             {change: map[string]any{"interval": nil}, check: func(t *testing.T, d *DeviceCode) { require.Equal(t, 5*time.Second, d.interval) }},
		"interval 86400":          {change: map[string]any{"interval": 86400}, want: "nobody could log in"},
		"interval 1e300":          {change: map[string]any{"interval": 1e300}, want: "nobody could log in"},
		"no expiry":               {change: map[string]any{"expires_in": nil}, check: func(t *testing.T, d *DeviceCode) { require.False(t, d.Expiry.IsZero()) }},
		"expiry of a year":        {change: map[string]any{"expires_in": 3e7}, check: func(t *testing.T, d *DeviceCode) { require.Less(t, time.Until(d.Expiry), time.Hour) }},
		"no device code":          {change: map[string]any{"device_code": ""}, want: "no device code"},
		"no user code":            {change: map[string]any{"user_code": ""}, want: "to be typed"},
		"a long user code":        {change: map[string]any{"user_code": strings.Repeat("A", 65)}, want: "to be typed"},
		"escapes in the code":     {change: map[string]any{"user_code": "AB\x1b[2J\x1b]0;x\a"}, want: "to be typed"},
		"a code from the right":   {change: map[string]any{"user_code": "AB\u202eCD"}, want: "to be typed"},
		"a newline in the code":   {change: map[string]any{"user_code": "AB\nlog in at evil"}, want: "to be typed"},
		"no URI":                  {change: map[string]any{"verification_uri": nil}, want: "verification_uri"},
		"Google's name":           {change: map[string]any{"verification_uri": nil, "verification_url": "https://auth.example.com/d"}},
		"javascript":              {change: map[string]any{"verification_uri": "javascript:alert(1)"}, want: "verification_uri"},
		"escapes in the URI":      {change: map[string]any{"verification_uri": "https://auth.example.com/\x1b[2J"}, want: "verification_uri"},
		"a URI of this machine":   {change: map[string]any{"verification_uri": "http://127.0.0.1:631/"}, want: "verification_uri"},
		"that by a trailing dot":  {change: map[string]any{"verification_uri": "https://127.0.0.1./"}, want: "leads to this machine"},
		"that by localhost.":      {change: map[string]any{"verification_uri": "https://LOCALHOST.:631/"}, want: "leads to this machine"},
		"that by a sub-domain":    {change: map[string]any{"verification_uri": "https://app.localhost/"}, want: "leads to this machine"},
		"that by no address":      {change: map[string]any{"verification_uri": "https://0.0.0.0/"}, want: "leads to this machine"},
		"that by an IPv6 address": {change: map[string]any{"verification_uri": "https://[::ffff:127.0.0.1]/"}, want: "leads to this machine"},
		"that by a number":        {change: map[string]any{"verification_uri": "https://2130706433/"}, want: "verification_uri"},
		"a host with a number":    {change: map[string]any{"verification_uri": "https://127.example.com/"}},
		"a complete URI": {change: map[string]any{"verification_uri_complete": "https://auth.example.com/device?c=A"}, check: func(t *testing.T, d *DeviceCode) {
			require.Equal(t, "https://auth.example.com/device?c=A", d.VerificationURIComplete)
		}},
		"a complete URI of evil": {change: map[string]any{"verification_uri_complete": "https://evil.example.com/"}, check: func(t *testing.T, d *DeviceCode) { require.Empty(t, d.VerificationURIComplete) }},
		"a complete file":        {change: map[string]any{"verification_uri_complete": "file:///x"}, check: func(t *testing.T, d *DeviceCode) { require.Empty(t, d.VerificationURIComplete) }},
		"a wrong type":           {change: map[string]any{"user_code": []string{"A"}}, want: "could not be read"},
	} {
		t.Run(name, func(t *testing.T) {
			said := map[string]any{}
			for _, m := range []map[string]any{good, c.change} {
				for k, v := range m {
					said[k] = v
				}
			}
			a := answering(t, said)
			d, err := a.Device(t.Context())
			if c.want != "" {
				require.ErrorContains(t, err, c.want)
				require.NotContains(t, err.Error(), "\x1b")
				return
			}
			require.NoError(t, err)
			if c.check != nil {
				c.check(t, d)
			}
		})
	}
}

// answering is an Authorization at a server of the Internet whose device endpoint says the same to everybody.
func answering(t *testing.T, said any) *Authorization {
	body, err := json.Marshal(said)
	require.NoError(t, err)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }))
	t.Cleanup(srv.Close)
	client := srv.Client() // it knows example.com
	return &Authorization{Endpoint: &authretry.TokenEndpoint{URL: "https://example.com/token", ClientID: "me"}, DeviceURL: "https://example.com/device", HTTPClient: client}
}

func TestDeviceMistakes(t *testing.T) {
	for name, a := range map[string]*Authorization{
		"no URL":      {Endpoint: &authretry.TokenEndpoint{URL: "https://a/", ClientID: "me"}},
		"no endpoint": {DeviceURL: "https://a/"},
	} {
		_, err := a.Device(t.Context())
		require.Error(t, err, name)
	}
	_, err := (&Authorization{DeviceURL: "http://auth.example.com/", Endpoint: &authretry.TokenEndpoint{URL: "https://a/", ClientID: "me"}}).Device(t.Context())
	var r *authretry.Rejection
	require.ErrorAs(t, err, &r)
	require.Equal(t, authretry.ReasonPlaintext, r.Reason)
}

// 1 MiB of an answer are read, and no redirect is followed.
func TestPostIsBounded(t *testing.T) {
	t.Parallel()
	var visits, written atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "/", http.StatusTemporaryRedirect)
			return
		}
		visits.Add(1)
		for range 1 << 10 {
			n, err := w.Write(make([]byte, 64<<10))
			if written.Add(int64(n)); err != nil {
				return
			}
		}
	}))
	defer srv.Close()
	for i, path := range []string{"/", "/redirect"} {
		a := &Authorization{Endpoint: &authretry.TokenEndpoint{URL: srv.URL, ClientID: "me"}, DeviceURL: srv.URL + path}
		_, err := a.Device(t.Context())
		require.Error(t, err)
		require.EqualValues(t, 1, visits.Load(), "request %d", i)
	}
	require.Less(t, written.Load(), int64(32<<20), "besides what is in the connection's buffers")
	srv.Close()
	if thorough.Or(false, true) {
		return // what follows is tried again and again
	}
	a := &Authorization{Endpoint: &authretry.TokenEndpoint{URL: srv.URL, ClientID: "me"}, DeviceURL: srv.URL + "/secret-path"}
	_, err := a.Device(t.Context())
	require.EqualError(t, err, "login: the authorization server could not be reached")
	require.NotContains(t, fmt.Sprintf("%+v", err), "secret-path")
}

// With a key, the request is proven, and the nonce that the server asks for is used.
func TestProofOfPushedRequests(t *testing.T) {
	nonces := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("DPoP-Nonce", "n")
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("DPoP") != "proof n" {
			nonces++
			w.WriteHeader(400)
			io.WriteString(w, `{"error":"use_dpop_nonce"}`)
			return
		}
		io.WriteString(w, `{"request_uri":"urn:x"}`)
	}))
	defer srv.Close()
	p := &prover{}
	a := &Authorization{Endpoint: &authretry.TokenEndpoint{URL: srv.URL, ClientID: "me", Proof: p}, URL: srv.URL, PushedURL: srv.URL}
	_, err := a.Code(t.Context(), redirectURI)
	require.NoError(t, err)
	require.Equal(t, 1, nonces)
	p.deaf = true
	nonces = 0
	_, err = a.Code(t.Context(), redirectURI)
	require.ErrorContains(t, err, "nonce")
	require.Equal(t, 2, nonces, "once more, and not for ever")
}

type prover struct {
	nonce string
	deaf  bool
}

func (p *prover) Prove(r *http.Request, _ string) error {
	if p.deaf {
		p.nonce = ""
	}
	r.Header.Set("DPoP", "proof "+p.nonce)
	return nil
}
func (p *prover) Learn(r *http.Response) { p.nonce = r.Header.Get("DPoP-Nonce") }
func (p *prover) Thumbprint() string     { return "thumb" }

// The page is judged before it is shown, and an error is the login's.
func TestPageOfADeviceIsChecked(t *testing.T) {
	a := answering(t, map[string]any{"device_code": "d", "user_code": "ABCD", "verification_uri": "https://auth.example.com/device", "expires_in": 600})
	bad := errors.New("not this one")
	for _, want := range []error{nil, bad} {
		var asked []string
		a.CheckPage = func(_ context.Context, page *url.URL) error {
			asked = append(asked, page.String())
			return want
		}
		d, err := a.Device(t.Context())
		require.ErrorIs(t, err, want)
		require.Equal(t, want == nil, d != nil)
		require.Equal(t, []string{"https://auth.example.com/device"}, asked)
	}
}
