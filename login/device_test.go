package login

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
)

// directly returns a client whose requests a handler answers, without a connection, so that a bubble's clock goes on.
func directly(h http.Handler) *http.Client {
	return &http.Client{Transport: roundTripperFunc(func(req *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		resp := w.Result()
		resp.Request = req
		return resp, nil
	})}
}

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// bubbled returns how to log in at a server in a bubble.
func bubbled(t *testing.T) (*testServer, *Authorization) {
	s := newServer(t)
	a := s.authorization()
	a.Endpoint.HTTPClient = directly(s.Config.Handler)
	return s, a
}

func TestDeviceLogsSomebodyIn(t *testing.T) {
	s, a := bubbled(t)
	s.polls = 3
	s.deviceSay = map[string]any{"verification_uri_complete": "https://auth.example.com/device?user_code=WDJB-MJHT"}
	synctest.Test(t, func(t *testing.T) {
		out := &terminal{}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		token, err := (&Device{Out: out}).Login(ctx, a)
		require.NoError(t, err)
		require.Equal(t, "token-4", token.AccessToken)
		require.Equal(t, 4*5*time.Second, time.Since(start))
		require.Equal(t, `To log in at auth.example.com, open this address in a browser, on any device:

    https://auth.example.com/device

and enter the code

    WDJB-MJHT

Or open this one, and see that it shows the same code:

    https://auth.example.com/device?user_code=WDJB-MJHT

Waiting for you to log in there, until `+start.Add(5*time.Minute).Local().Format(time.TimeOnly)+" ...\nYou are logged in.\n", out.String())
	})
}

// A person has as long as the code lives, if the login may take longer.
func TestDeviceSaysUntilWhen(t *testing.T) {
	_, a := bubbled(t)
	synctest.Test(t, func(t *testing.T) {
		for _, limit := range []time.Duration{0, time.Hour} {
			ctx, out := t.Context(), &terminal{}
			if limit > 0 {
				limited, cancel := context.WithTimeout(ctx, limit)
				defer cancel()
				ctx = limited
			}
			until := time.Now().Add(10 * time.Minute).Local().Format(time.TimeOnly)
			_, err := (&Device{Out: out}).Login(ctx, a)
			require.NoError(t, err)
			require.Contains(t, out.String(), "until "+until)
		}
	})
}

// What a server says wrongly is an error, and nothing of it is shown.
func TestDeviceCodesThatAreNotShown(t *testing.T) {
	for name, said := range map[string]map[string]any{
		"escapes in the code":             {"user_code": "\x1b]0;x\x07ABCD"},
		"a line in the code":              {"user_code": "ABCD\nEFGH"},
		"direction of the code":           {"user_code": "\u202eABCD"},
		"no code":                         {"user_code": ""},
		"a long code":                     {"user_code": string(make([]byte, 100))},
		"escapes in the address":          {"verification_uri": "https://auth.example.com/\x1b[2J"},
		"javascript":                      {"verification_uri": "javascript:alert(1)"},
		"a file":                          {"verification_uri": "file:///etc/passwd"},
		"plain http":                      {"verification_uri": "http://auth.example.com/device"},
		"no address":                      {"verification_uri": ""},
		"no device code":                  {"device_code": ""},
		"asked once a day":                {"interval": 86400},
		"asked more seldom than it lives": {"interval": 60, "expires_in": 30},
	} {
		t.Run(name, func(t *testing.T) {
			s, a := bubbled(t)
			s.deviceSay = said
			synctest.Test(t, func(t *testing.T) {
				out := &terminal{}
				start := time.Now()
				_, err := (&Device{Out: out}).Login(t.Context(), a)
				require.ErrorContains(t, err, "login: ")
				requirePrintable(t, err.Error())
				require.Empty(t, out.String())
				require.Zero(t, s.tokenRequests())
				require.Zero(t, time.Since(start))
			})
		})
	}
	for _, complete := range []string{"javascript:alert(1)", "https://other.example.com/", "https://auth.example.com/\x1b[2J"} {
		s, a := bubbled(t)
		s.deviceSay = map[string]any{"verification_uri_complete": complete, "interval": 0}
		synctest.Test(t, func(t *testing.T) {
			out := &terminal{}
			start := time.Now()
			_, err := (&Device{Out: out}).Login(t.Context(), a)
			require.NoError(t, err)
			require.Equal(t, 5*time.Second, time.Since(start), "an interval of 0 is none")
			require.NotContains(t, out.String(), "Or open this one", "the code can be typed")
			requirePrintable(t, out.String())
		})
	}
}

// Whoever declines is not asked again before MinRefreshInterval is over, and the error says so in a sentence.
func TestDeclinedLoginIsNotAskedForAgain(t *testing.T) {
	s, a := bubbled(t)
	s.answer = url.Values{"error": {"access_denied"}}
	synctest.Test(t, func(t *testing.T) {
		prompts := 0
		device := &Device{Out: io.Discard, Prompt: func(context.Context, *DeviceCode) error { prompts++; return nil }}
		tokens := &authretry.TokenSource{Login: a.LoginFunc(device), MinRefreshInterval: time.Minute}
		for range 5 {
			_, err := tokens.Token()
			require.ErrorIs(t, err, authretry.ErrLoginRequired)
			require.ErrorIs(t, err, ErrDeclined)
			require.NotContains(t, err.Error(), "remote text")
		}
		require.Equal(t, 1, prompts)
		time.Sleep(time.Minute)
		_, err := tokens.Token()
		require.ErrorIs(t, err, ErrDeclined)
		require.Equal(t, 2, prompts)
	})
}

func TestDeviceEndsWithItsContext(t *testing.T) {
	s, a := bubbled(t)
	s.polls = 1 << 30
	synctest.Test(t, func(t *testing.T) {
		enough := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 12*time.Second, enough)
		defer cancel()
		start := time.Now()
		_, err := (&Device{Out: &terminal{}}).Login(ctx, a)
		require.ErrorIs(t, err, enough)
		require.Equal(t, 12*time.Second, time.Since(start))
		require.Equal(t, 2, s.tokenRequests())

		_, err = (&Device{Out: &terminal{}}).Login(t.Context(), a)
		require.ErrorIs(t, err, ErrExpired)
		require.Equal(t, 12*time.Second+10*time.Minute, time.Since(start))
	})
	_, err := (&Device{Prompt: func(context.Context, *DeviceCode) error { return io.ErrClosedPipe }}).Login(t.Context(), a)
	require.ErrorIs(t, err, io.ErrClosedPipe)
	require.ErrorContains(t, err, "Device.Prompt")
	_, err = (&Device{}).Login(t.Context(), nil)
	require.Error(t, err)
}

// A login that nobody could answer fails before anybody is asked for anything; a Prompt says that somebody is there.
func TestLoginWhereNobodyIs(t *testing.T) {
	t.Setenv("CI", "true")
	for want, flow := range map[string]Flow{
		"set Browser.Open":          &Browser{Out: &terminal{}},
		"set Device.Prompt":         &Device{Out: &terminal{}},
		"login.Device whose Prompt": Auto(&terminal{}),
		"Device.Out is io.Discard, and there is no Device.Prompt": &Device{Out: io.Discard},
	} {
		s, a := bubbled(t)
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			_, err := (&authretry.TokenSource{Login: a.LoginFunc(flow)}).Token()
			require.ErrorIs(t, err, authretry.ErrLoginRequired)
			require.ErrorContains(t, err, want)
			require.Zero(t, time.Since(start))
			require.Zero(t, s.tokenRequests())
		})
	}
	_, a := bubbled(t)
	synctest.Test(t, func(t *testing.T) {
		shown := 0
		_, err := (&Device{Prompt: func(context.Context, *DeviceCode) error { shown++; return nil }}).Login(t.Context(), a)
		require.NoError(t, err)
		require.Equal(t, 1, shown)
	})
}

// Who shows the code by a Prompt is not told of the end by another way, unless there is an Out.
func TestPromptIsAlone(t *testing.T) {
	read, write, err := os.Pipe()
	require.NoError(t, err)
	before := os.Stderr
	os.Stderr = write
	defer func() { os.Stderr = before }()
	prompt := func(context.Context, *DeviceCode) error { return nil }
	_, a := bubbled(t)
	synctest.Test(t, func(t *testing.T) {
		_, err := (&Device{Prompt: prompt}).Login(t.Context(), a)
		require.NoError(t, err)
		out := &terminal{}
		_, err = (&Device{Prompt: prompt, Out: out}).Login(t.Context(), a)
		require.NoError(t, err)
		require.Equal(t, "You are logged in.\n", out.String())
	})
	require.NoError(t, write.Close())
	printed, err := io.ReadAll(read)
	require.NoError(t, err)
	require.Empty(t, string(printed))
}
