package authretry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry/authtest"
	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

func quickRetries(t *Transport) *retryablehttp.Client {
	client := NewRetryableClient(t)
	client.RetryWaitMin, client.RetryWaitMax, client.RetryMax = time.Millisecond, time.Millisecond, 3
	return client
}

func TestRetryableClientGivesEachAttemptANonceCountOfItsOwn(t *testing.T) {
	guard := &authtest.Digest{Username: "u", Password: "p"}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	client := quickRetries(New(&Digest{Username: "u", Password: "p"}))
	for range 5 {
		srv.Inject("/", 2, authtest.Reply(503, nil, "later"))
		resp, err := client.Post(srv.URL, "text/plain", []byte("x"))
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 503, resp.StatusCode, "a POST is not repeated")
		srv.Reset()
		resp, err = client.Get(srv.URL)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
	}
	for _, e := range guard.NonceErrors() { // a count that met the 503 is one that the server has not seen
		require.Greater(t, e.Got, e.Want, "no count is used twice")
	}
}

func TestRetryableClientRetriesOnlyWhatMayBeRepeated(t *testing.T) {
	for _, c := range []struct {
		method, key string
		status      int
		hits        int32
	}{
		{"GET", "", 503, 4},
		{"PUT", "", 500, 4},
		{"DELETE", "", 502, 4},
		{"POST", "", 503, 1},
		{"PATCH", "", 500, 1},
		{"POST", "k", 503, 4},
		{"PATCH", "k", 503, 4},
		{"POST", "", 429, 4}, // the server has not looked at it
		{"POST", "", 404, 1},
		{"GET", "", 401, 1},
		{"GET", "", 501, 1},
		{"POST", "", 0, 1}, // a broken connection
		{"GET", "", 0, 4},
		{"POST", "k", 0, 4},
	} {
		t.Run(fmt.Sprintf("%s %s %d", c.method, c.key, c.status), func(t *testing.T) {
			t.Parallel()
			var hits atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				hits.Add(1)
				io.Copy(io.Discard, r.Body)
				if c.status == 0 {
					panic(http.ErrAbortHandler)
				}
				w.WriteHeader(c.status)
				io.WriteString(w, "the last word")
			}))
			defer srv.Close()
			req, err := retryablehttp.NewRequest(c.method, srv.URL, []byte("x"))
			require.NoError(t, err)
			if c.key != "" {
				req.Header.Set("Idempotency-Key", c.key)
			}
			base := &http.Transport{DisableKeepAlives: true} // or net/http retries by itself
			resp, err := quickRetries(&Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).Do(req)
			require.Equal(t, c.hits, hits.Load())
			if c.status == 0 {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, c.status, resp.StatusCode)
			require.Equal(t, "the last word", string(body))
		})
	}
}

func TestRetryableClientRetriesWhatWasNotSent(t *testing.T) {
	dials := 0
	base := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		dials++
		return nil, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
	}}
	_, err := quickRetries(&Transport{Base: base, Schemes: []Scheme{&Basic{Username: "u", Password: "p"}}}).Post("http://localhost/", "", []byte("x"))
	require.Error(t, err)
	require.Equal(t, 4, dials)
}

func TestRetryableClientDoesNotRepeatAPostBehindARedirect(t *testing.T) {
	var posts atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			posts.Add(1)
			http.Redirect(w, r, "/result", http.StatusSeeOther)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer srv.Close()
	resp, err := quickRetries(New(&Basic{Username: "u", Password: "p"})).Post(srv.URL, "text/plain", []byte("x"))
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, int32(1), posts.Load())
}

func TestRetryableClientLeavesPermanentErrorsAlone(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		calls int
	}{
		"login required": {fmt.Errorf("%w: gone", ErrLoginRequired), 1},
		"some error":     {errors.New("vault is sealed"), 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				tokens := &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
					calls++
					return nil, c.err
				}}
				client := quickRetries(New(&Bearer{Source: tokens}))
				client.RetryWaitMin, client.RetryWaitMax = time.Second, time.Second // longer than the first back-offs of the source
				_, err := client.Get("http://localhost:1/")
				require.ErrorIs(t, err, c.err)
				require.Equal(t, c.calls, calls)
			})
		})
	}
	hits := 0
	base := roundTripFunc(func(*http.Request) (*http.Response, error) { hits++; return nil, errors.New("?") })
	_, err := quickRetries(&Transport{Base: base, Schemes: []Scheme{&Basic{Username: "a:b", Password: "p", Ahead: true}}}).Get("http://localhost/")
	require.Error(t, err)
	require.Zero(t, hits)
}

// What nobody but a person can put right is not tried again, whatever the method.
func TestRetryableClientTriesOnceWhereRetriesAreInVain(t *testing.T) {
	for _, method := range []string{"GET", "POST"} {
		tries := 0
		transport := New(&Bearer{Source: &TokenSource{}})
		transport.OnEvent = func(_ context.Context, e Event) {
			if e.Kind == EventDone {
				tries++
			}
		}
		req, err := retryablehttp.NewRequest(method, "http://localhost:1/", nil)
		require.NoError(t, err)
		_, err = quickRetries(transport).Do(req)
		require.ErrorIs(t, err, ErrLoginRequired)
		require.Equal(t, 1, tries, method)
	}
}

// A 5xx of which nobody says to what request it came is not taken for that of one which may be repeated.
func TestResponseWithoutItsRequestIsNotRepeated(t *testing.T) {
	again, err := checkRetry(t.Context(), &http.Response{StatusCode: 503}, nil)
	require.NoError(t, err)
	require.False(t, again)
}

func TestRetryableClientIsQuietAndSharesTheJar(t *testing.T) {
	client := NewRetryableClient(New(&Basic{Username: "u", Password: "p"}))
	require.Nil(t, client.Logger)
	require.Nil(t, client.HTTPClient.Jar)
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	require.Equal(t, jar, NewRetryableClient(&Transport{Jar: jar}).HTTPClient.Jar)
	_, err = NewRetryableClient(nil).Get("http://localhost/")
	require.ErrorContains(t, err, "authretry: the Transport is nil")
}

// The other order is safe, too: attempts below the Transport repeat its nonce count and are refused, which the
// Transport answers once.
func TestTransportAroundRetriesIsSafe(t *testing.T) {
	guard := &authtest.Digest{Username: "u", Password: "p"}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	inner := retryablehttp.NewClient()
	inner.Logger, inner.RetryWaitMin, inner.RetryWaitMax = nil, time.Millisecond, time.Millisecond
	client := &http.Client{Transport: &Transport{Base: &retryablehttp.RoundTripper{Client: inner}, Schemes: []Scheme{&Digest{Username: "u", Password: "p"}}}}
	for range 3 {
		resp, err := client.Post(srv.URL, "text/plain", io.MultiReader(strings.NewReader("hello")))
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
	}
}

// What keeps credentials from being obtained may pass, if it is the network.
func TestNetworkErrorsMayPass(t *testing.T) {
	for err, want := range map[error]bool{&net.OpError{Op: "dial", Err: errors.New("refused")}: true, errors.New("no such user"): false} {
		require.Equal(t, want, (&Rejection{Reason: ReasonNoCredentials, Err: fmt.Errorf("vault: %w", err)}).mayPass())
	}
}
