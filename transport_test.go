package authretry

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/authretry/authretry/authtest"
	"github.com/stretchr/testify/assert"
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

func TestDigestIsOneRoundTripInTheSteadyState(t *testing.T) {
	for name, guard := range map[string]*authtest.Digest{
		"plain":           {},
		"MD5-sess":        {Algorithms: []string{"MD5-sess"}},
		"nextnonce":       {NextNonce: authtest.NextNonceAlways},
		"one use":         {NextNonce: authtest.NextNonceAlways, NonceUses: 1},
		"same nextnonce":  {NextNonce: authtest.NextNonceSame},
		"userhash":        {Userhash: true, UTF8: true},
		"RFC 2069":        {QOP: authtest.NoQOP, Algorithms: []string{"MD5"}},
		"auth-int":        {QOP: "auth-int"},
		"several, opaque": {Algorithms: []string{"SHA-512-256", "SHA-256", "MD5"}, Opaque: `a"b`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			guard.Username, guard.Password = "Jäsøn", "Secret, or not?"
			srv := authtest.NewServer(guard)
			defer srv.Close()
			client := &http.Client{Transport: &Transport{Base: srv.Client().Transport,
				Schemes: []Scheme{&Digest{Username: "Jäsøn", Password: "Secret, or not?", RequireMutualAuth: strings.Contains(guard.QOP+"auth", "authauth")}}}}
			for range 20 {
				for _, body := range []string{"", "hello"} {
					resp, err := client.Post(srv.URL+"/path?query", "text/plain", io.MultiReader(strings.NewReader(body)))
					require.NoError(t, err)
					resp.Body.Close()
					require.Equal(t, 200, resp.StatusCode)
				}
			}
			require.Equal(t, 41, srv.Counts().Requests)
			require.Empty(t, guard.NonceErrors())
		})
	}
}

// Servers that want nonce counts in order refuse those of requests that overtake each other.
func TestConcurrentDigestKeepsNonceCountsInOrder(t *testing.T) {
	const workers, rounds = 500, 20
	guard := &authtest.Digest{Username: "Mufasa", Password: "Circle of Life"}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	base := srv.Client().Transport.(*http.Transport).Clone()
	base.MaxIdleConnsPerHost = workers
	defer base.CloseIdleConnections()
	client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{&Digest{Username: "Mufasa", Password: "Circle of Life"}}}}
	round := func() {
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				resp, err := client.Get(srv.URL)
				if assert.NoError(t, err) {
					assert.Equal(t, 200, resp.StatusCode)
					resp.Body.Close()
				}
			})
		}
		wg.Wait()
	}
	round()
	warm := srv.Counts()
	require.LessOrEqual(t, warm.Requests, 2*workers)
	for range rounds {
		round()
	}
	require.Empty(t, guard.NonceErrors())
	// A later round may have more requests in flight at once than any before, and so bring home more nonces.
	require.LessOrEqual(t, srv.Counts().Challenged, workers)
	require.Equal(t, workers*(rounds+1), srv.Counts().Accepted)
	require.Zero(t, srv.Counts().Refused)
}

func TestStaleNonceIsAnsweredOnceAndKept(t *testing.T) {
	guard := &authtest.Digest{Username: "u", Password: "p"}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	client := &http.Client{Transport: New(&Digest{Username: "u", Password: "p"})}
	get(t, client, srv.URL)
	guard.GoStale()
	srv.Reset()
	resp, _ := get(t, client, srv.URL)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, 2, srv.Counts().Requests)
	resp, _ = get(t, client, srv.URL)
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, 3, srv.Counts().Requests)
	guard.SetPassword("other")
	srv.Reset()
	resp, _ = get(t, client, srv.URL)
	require.Equal(t, 401, resp.StatusCode)
	require.Equal(t, 2, srv.Counts().Requests)
	require.ErrorContains(t, Explain(resp), "credentials were refused")
}

func TestOneSchemeAfterTheOther(t *testing.T) {
	for name, c := range map[string]struct {
		guards  []authtest.Guard
		schemes []Scheme
		want    string
	}{
		"our order counts among schemes": {
			[]authtest.Guard{&authtest.Basic{Username: "u", Password: "p"}, &authtest.Digest{Username: "u", Password: "p"}},
			[]Scheme{&Digest{Username: "u", Password: "p"}, &Basic{Username: "u", Password: "p"}}, "Digest"},
		"a scheme that the server does not offer is passed over": {
			[]authtest.Guard{&authtest.Basic{Username: "u", Password: "p"}},
			[]Scheme{&Digest{Username: "u", Password: "p"}, &Basic{Username: "u", Password: "p"}}, "Basic"},
		"an API key that is not asked for gives way": {
			[]authtest.Guard{&authtest.Basic{Username: "u", Password: "p"}},
			[]Scheme{&APIKey{Key: "k"}, &Basic{Username: "u", Password: "p"}}, "Basic"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := authtest.NewServer(c.guards...)
			defer srv.Close()
			client := &http.Client{Transport: New(c.schemes...)}
			for i := range 3 {
				resp, _ := get(t, client, srv.URL)
				require.Equal(t, 200, resp.StatusCode)
				require.Equal(t, 2+i, srv.Counts().Requests)
			}
			requests := srv.Requests()
			require.Equal(t, c.want, requests[len(requests)-1].Scheme)
		})
	}
}
