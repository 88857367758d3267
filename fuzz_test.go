package authretry

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptrace"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// FuzzRoundTrip has a hostile server answer a client with all schemes: no panic, at most two sends for each request, one
// line for each header, and credentials only to the origin that was asked.
func FuzzRoundTrip(f *testing.F) {
	f.Add(uint16(401), uint16(200), `Digest realm="x", nonce="n", qop="auth"`, `Basic realm="x"`, "a=b", "", `nextnonce="n2", rspauth="x"`, byte(0xff))
	f.Add(uint16(302), uint16(401), `Bearer error="invalid_token"`, "", "a=b; Domain=evil.test", "https://evil.test/", "", byte(0xff))
	f.Add(uint16(401), uint16(307), `Digest realm="x", nonce="n", qop="auth-int", algorithm=SHA-256-sess, userhash=true`, "ApiKey", "", "//api.example.com.evil.test/", "", byte(0xff))
	f.Add(uint16(407), uint16(403), `Basic`, `Bearer error="insufficient_scope"`, "", "http://api.example.com/", "=", byte(0x35))
	f.Add(uint16(401), uint16(401), `Digest realm="x", nonce="n", stale=true`, `Digest nonce=, realm="\`, "=;", "/other", "nextnonce=\x00", byte(0x02))
	f.Add(uint16(417), uint16(401), `Basic realm="x"`, "", "", "", "", byte(0x84))
	f.Fuzz(func(t *testing.T, status1, status2 uint16, challenge1, challenge2, cookie, location, info string, choice byte) {
		var schemes []Scheme
		for i, s := range []Scheme{
			&Digest{Username: "u", Password: secret},
			&Basic{Username: "u", Password: secret},
			&Bearer{Source: &TokenSource{Initial: &oauth2.Token{AccessToken: secret}}, NotAhead: choice&0x40 == 0},
			&APIKey{Header: "X-API-Key", Key: secret},
			&APIKey{Key: secret},
			&Basic{Username: "u", Password: secret, Ahead: true},
		} {
			if choice&(1<<i) != 0 {
				schemes = append(schemes, s)
			}
		}
		if schemes == nil {
			return
		}
		jar, err := cookiejar.New(nil)
		require.NoError(t, err)
		sends := 0 // of one RoundTrip
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			sends++
			for name, values := range req.Header {
				require.True(t, isToken(name))
				require.False(t, hasControl(strings.Join(values, "")), "%q", values)
			}
			require.LessOrEqual(t, len(req.Header["Authorization"]), 1)
			require.LessOrEqual(t, len(req.Header["X-Api-Key"]), 1)
			if hasCredentials(req) && req.URL.User == nil { // which http.Client makes a header of
				require.Equal(t, "https://api.example.com", originOf(req.URL).String())
				require.False(t, hasLeftOrigin(req, byURL))
			}
			resp := &http.Response{StatusCode: int(status1), Body: http.NoBody, Request: req, Header: http.Header{
				"Www-Authenticate": {challenge1, challenge2}, "Proxy-Authenticate": {challenge2}, "Set-Cookie": {cookie},
				"Location": {location}, "Authentication-Info": {info},
			}}
			if hasCredentials(req) || sends > 1 {
				resp.StatusCode = int(status2)
			}
			if trace := httptrace.ContextClientTrace(req.Context()); req.Header.Get("Expect") != "" && trace != nil {
				trace.Got100Continue()
			}
			if req.Body != nil {
				io.Copy(io.Discard, req.Body)
				req.Body.Close()
			}
			return resp, nil
		})
		transport := &Transport{Base: base, Schemes: schemes, Jar: jar, Refused: forbidden[choice&0x80 != 0], OnEvent: func(_ context.Context, e Event) {
			if e.Err != nil {
				require.NotContains(t, e.Err.Error(), secret)
			}
		}}
		client := &http.Client{Jar: jar, Transport: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			sends = 0
			resp, err := transport.RoundTrip(req)
			require.LessOrEqual(t, sends, 2)
			if err == nil {
				require.False(t, hasCredentials(resp.Request) && req.URL.User == nil, "the caller gets no credentials of ours")
			}
			return resp, err
		})}
		for range 2 {
			resp, err := client.Post("https://api.example.com/a", "text/plain", io.MultiReader(strings.NewReader("body")))
			if err != nil {
				require.NotContains(t, err.Error(), secret)
				continue
			}
			resp.Body.Close()
			if refusal := Explain(resp); refusal != nil {
				require.NotContains(t, refusal.Error(), secret)
				require.False(t, hasControl(refusal.Error()), "%q", refusal)
			}
		}
	})
}
