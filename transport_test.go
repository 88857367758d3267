package authretry

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// roundTripFunc is a Base made of a func.
type roundTripFunc func(*http.Request) (*http.Response, error)

func (f roundTripFunc) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func get(t *testing.T, client *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, err := client.Get(url)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body.Close()
	return resp, string(body)
}

func TestBasicIsAnsweredAndThenSentAheadInItsScope(t *testing.T) {
	var hits atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		if _, password, _ := r.BasicAuth(); password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		io.WriteString(w, "welcome")
	}))
	defer srv.Close()
	client := &http.Client{Transport: New(&Basic{Username: "Mufasa", Password: "secret"})}

	for _, step := range []struct {
		path string
		hits int32
	}{
		{"/docs/a", 2},
		{"/docs/a", 1},
		{"/docs/b/c/d", 1},
		{"/other", 2}, // above the scope
		{"/docs/a", 1},
		{"/else/where", 1}, // below "/" by now
	} {
		hits.Store(0)
		resp, body := get(t, client, srv.URL+step.path)
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, "welcome", body)
		require.Equal(t, step.hits, hits.Load(), step.path)
		require.Empty(t, resp.Request.Header.Get("Authorization"), "the caller's request has no credentials of ours")
	}
}

func TestWrongPasswordCostsTwoRequestsAndIsForgotten(t *testing.T) {
	var hits atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "go away")
	}))
	defer srv.Close()
	client := &http.Client{Transport: New(&Basic{Username: "Mufasa", Password: "wrong"})}
	for range 3 {
		hits.Store(0)
		resp, body := get(t, client, srv.URL)
		require.Equal(t, 401, resp.StatusCode)
		require.Equal(t, "go away", body)
		require.Equal(t, int32(2), hits.Load())
		var rejection *Rejection
		require.ErrorAs(t, Explain(resp), &rejection)
		require.Equal(t, ReasonCredentialsRefused, rejection.Reason)
		require.Equal(t, []string{"Basic"}, rejection.Tried)
		t.Log(rejection)
	}
}

func TestOneShotBodyIsReplayed(t *testing.T) {
	for _, size := range []int{1, 1000, 1 << 20} {
		var bodies []string
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			bodies = append(bodies, string(b))
			if _, password, _ := r.BasicAuth(); password != "secret" {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
			}
		}))
		client := &http.Client{Transport: New(&Basic{Username: "Mufasa", Password: "secret"})}
		payload := strings.Repeat("x", size)
		resp, err := client.Post(srv.URL, "text/plain", io.MultiReader(strings.NewReader(payload)))
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, payload, bodies[len(bodies)-1])
		srv.Close()
	}
}
