package authretry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry/authtest"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

const tooLarge = defaultReplayLimit + 1 // to be sent again without GetBody

// uploadOnce sends a body that cannot be sent again, and returns the status.
func uploadOnce(t *testing.T, client *http.Client, url string) int {
	t.Helper()
	body := &tracked{Reader: strings.NewReader(strings.Repeat("x", tooLarge))}
	req, err := http.NewRequest("PUT", url, body)
	require.NoError(t, err)
	req.ContentLength = tooLarge
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	body.requireGoodUse(t)
	return resp.StatusCode
}

// A nonce that has become stale does not cost an upload: the body is announced, so nothing of it is sent before the new nonce is there.
func TestStaleNonceDoesNotCostAnUpload(t *testing.T) {
	for name, newServer := range map[string]func(...authtest.Guard) *authtest.Server{
		"HTTP/1.1": authtest.NewServer, "TLS": authtest.NewTLSServer, "HTTP/2": authtest.NewHTTP2Server,
	} {
		t.Run(name, func(t *testing.T) { staleBeforeUploads(t, newServer()) })
	}
}

func staleBeforeUploads(t *testing.T, srv *authtest.Server) {
	guard := &authtest.Digest{Username: "u", Password: "p"}
	defer srv.Close()
	srv.Protect("/", guard)
	var sizes []int64
	srv.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		sizes = append(sizes, n)
	}))
	client := &http.Client{Transport: &Transport{Base: srv.Client().Transport, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}}
	for range 3 {
		require.Equal(t, 200, uploadOnce(t, client, srv.URL+"/file"))
		guard.GoStale()
	}
	require.Equal(t, []int64{tooLarge, tooLarge, tooLarge}, sizes)
}

// A Bearer's token is taken for good until the server has refused one: from then on, uploads to it are announced.
func TestUploadIsAnnouncedWhereATokenWasRefused(t *testing.T) {
	good, refresh := "t1", func() string { return "t2" }
	var expect []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" {
			expect = append(expect, r.Header.Get("Expect"))
		}
		if r.Header.Get("Authorization") != "Bearer "+good {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(401)
			return
		}
		io.Copy(io.Discard, r.Body)
	}))
	defer srv.Close()
	client := &http.Client{Transport: &Transport{Base: srv.Client().Transport, Schemes: []Scheme{
		&Bearer{Source: &TokenSource{
			Initial:            &oauth2.Token{AccessToken: "t1"},
			MinRefreshInterval: time.Nanosecond,
			Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
				return &oauth2.Token{AccessToken: refresh()}, nil
			},
		}},
	}}}
	require.Equal(t, 200, uploadOnce(t, client, srv.URL))
	good = "t2"
	resp, err := client.Get(srv.URL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
	good, refresh = "t3", func() string { return "t3" }
	require.Equal(t, 200, uploadOnce(t, client, srv.URL))
	require.Equal(t, []string{"", "100-continue", ""}, expect[:3], "the retry need not ask")
}

// A server that says nothing to an Expect lets an upload wait once: with credentials sent ahead, it is not asked again.
func TestServerThatIgnoresExpectIsNotAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			log = append(log, fmt.Sprintf("%t %s", req.Header["Authorization"] != nil, req.Header.Get("Expect")))
			resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: req, Header: http.Header{}}
			if req.Body != nil {
				n, err := io.Copy(io.Discard, req.Body)
				require.NoError(t, err)
				require.EqualValues(t, tooLarge, n)
				req.Body.Close()
			}
			if req.Header["Authorization"] == nil {
				resp.StatusCode, resp.Header["Www-Authenticate"] = 401, []string{`Digest realm="r", nonce="n", qop="auth"`}
			}
			return resp, nil
		})
		client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}}
		resp, err := client.Get("http://a.test/")
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		start := time.Now()
		for range 3 {
			require.Equal(t, 200, uploadOnce(t, client, "http://a.test/"))
		}
		require.Equal(t, expectTimeout, time.Since(start))
		require.Equal(t, []string{"false ", "true ", "true 100-continue", "true ", "true "}, log)
	})
}

// A server that does not like our Expect is sent the credentials again without, and is not asked again. If it refuses them then, the body
// is lost, but not what it says: the next request carries an answer.
func TestExpectThatIsNotLikedBesideCredentials(t *testing.T) {
	nonce := "n1"
	var log []string
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		log = append(log, fmt.Sprintf("%t %s", strings.Contains(req.Header.Get("Authorization"), nonce), req.Header.Get("Expect")))
		resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: req, Header: http.Header{}}
		if req.Header.Get("Expect") != "" {
			resp.StatusCode = 417
		} else {
			if req.Body != nil {
				io.Copy(io.Discard, req.Body)
			}
			if !strings.Contains(req.Header.Get("Authorization"), nonce) {
				resp.StatusCode, resp.Header["Www-Authenticate"] = 401, []string{`Digest realm="r", nonce="` + nonce + `", qop="auth", stale=true`}
			}
		}
		if req.Body != nil {
			req.Body.Close()
		}
		return resp, nil
	})
	client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}}
	get := func() int {
		resp, err := client.Get("http://a.test/")
		require.NoError(t, err)
		return resp.StatusCode
	}
	take := func() []string { defer func() { log = nil }(); return log }
	require.Equal(t, 200, get())
	require.Equal(t, []string{"false ", "true "}, take())

	nonce = "n2"
	body := io.NopCloser(io.LimitReader(zeros{}, tooLarge))
	req, err := http.NewRequest("PUT", "http://a.test/", body)
	require.NoError(t, err)
	req.ContentLength = tooLarge
	resp, err := client.Do(req)
	require.NoError(t, err)
	require.Equal(t, 401, resp.StatusCode)
	said := rejectionOf(resp)
	require.Equal(t, 1, strings.Count(said.Error(), "GetBody"), said.Error())
	require.Equal(t, ReasonBodyNotReplayable, said.Reason)
	require.Equal(t, []string{"Digest"}, said.Tried)
	require.False(t, said.Refreshed)
	require.Equal(t, []string{"false 100-continue", "false "}, take())

	require.Equal(t, 200, uploadOnce(t, client, "http://a.test/"))
	require.Equal(t, []string{"true 100-continue", "true "}, take(), "the new nonce, and the same credentials without Expect")
	require.Equal(t, 200, uploadOnce(t, client, "http://a.test/"))
	require.Equal(t, []string{"true "}, take())
}

// Servers that take large bodies are remembered within bounds, and by name only if that is not too long.
func TestServersThatTakeBodiesAreBounded(t *testing.T) {
	var u uploads
	takes := func(h *uploadHabits) { h.takes = true }
	for i := range 10 * maxUploads {
		o := origin{"https", fmt.Sprint("host", i), "443"}
		u.note(o, takes)
		require.True(t, u.of(o).takes)
		require.LessOrEqual(t, len(u.known), maxUploads)
	}
	long := origin{"https", strings.Repeat("h", maxHost+1), "443"}
	u.note(long, takes)
	require.False(t, u.of(long).takes)
}
