package authretry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A revokingAPI takes the tokens of an issuer but for those that were revoked. At /always it refuses whatever comes.
type revokingAPI struct {
	mu      sync.Mutex
	revoked map[string]bool
	refused atomic.Int32
	sent    atomic.Int32
	bodies  []string
}

func (a *revokingAPI) revoke(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.revoked == nil {
		a.revoked = map[string]bool{}
	}
	a.revoked[token] = true
}

func (a *revokingAPI) RoundTrip(r *http.Request) (*http.Response, error) {
	a.sent.Add(1)
	time.Sleep(5 * time.Millisecond)
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		r.Body.Close()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	resp := &http.Response{StatusCode: 200, Body: http.NoBody, Request: r, Header: http.Header{}}
	if a.revoked[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")] || r.URL.Path == "/always" {
		a.refused.Add(1)
		resp.StatusCode = 401
		resp.Header.Set("Www-Authenticate", `Bearer error="invalid_token"`)
		return resp, nil
	}
	a.bodies = append(a.bodies, string(body))
	return resp, nil
}

// oneShot is a body that can be read once, of which nothing more is known.
func oneShot(text string) io.Reader { return io.MultiReader(strings.NewReader(text)) }

// While a token that an origin has refused is being replaced, requests to that origin wait for its successor: they would be
// refused, and those that cannot be repeated be lost.
func TestRequestsWaitForTheSuccessorOfARefusedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{delay: time.Second, lifetime: time.Hour}
		api := &revokingAPI{}
		transport := &Transport{Base: api, Schemes: []Scheme{&Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: old()}}}}
		api.revoke("old")
		var all sync.WaitGroup
		all.Go(func() {
			resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
			require.NoError(t, err)
			require.Equal(t, 200, resp.StatusCode)
		})
		time.Sleep(100 * time.Millisecond) // it has been refused
		for n := range 20 {
			all.Go(func() {
				req := httptest.NewRequest("POST", "https://api.test/upload", oneShot(fmt.Sprint("body ", n)))
				req.ContentLength = int64(len(fmt.Sprint("body ", n)))
				resp, err := transport.RoundTrip(req)
				if err != nil || resp.StatusCode != 200 {
					t.Errorf("%v, %v", resp, err)
				}
			})
		}
		// Those to another origin do not wait, nor does one whose context ends.
		other := &revokingAPI{}
		start := time.Now()
		elsewhere := &Transport{Base: other, Schemes: transport.Schemes}
		resp, err := elsewhere.RoundTrip(httptest.NewRequest("GET", "https://other.test/", nil))
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		require.Less(t, time.Since(start), 100*time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		start = time.Now()
		_, err = transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil).WithContext(ctx))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 50*time.Millisecond, time.Since(start))
		all.Wait()
		require.EqualValues(t, 1, api.refused.Load())
		require.EqualValues(t, 1, i.calls.Load())
		require.Len(t, api.bodies, 21)
	})
}

// One path that always refuses does not stop its neighbours.
func TestPathThatAlwaysRefusesStopsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{delay: 50 * time.Millisecond, lifetime: time.Hour}
		api := &revokingAPI{}
		transport := &Transport{Base: api, Schemes: []Scheme{&Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: old()}}}}
		seconds := thorough.Or(60, 20)
		end := time.Now().Add(time.Duration(seconds) * time.Second)
		passed := atomic.Int32{}
		var all sync.WaitGroup
		all.Go(func() {
			for time.Now().Before(end) {
				resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/always", nil))
				if err == nil && resp.StatusCode != 401 {
					t.Error(resp.StatusCode)
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
		callers := thorough.Or(4, 1)
		for range callers {
			all.Go(func() {
				for time.Now().Before(end) {
					resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/open", nil))
					if err != nil || resp.StatusCode != 200 {
						t.Errorf("%v", err)
						return
					}
					passed.Add(1)
				}
			})
		}
		all.Wait()
		require.Greater(t, passed.Load(), int32(callers*seconds*200*9/10), "of 200 a second")
		require.LessOrEqual(t, i.calls.Load(), int32(8), "token requests in a minute")
	})
}

// If replacing the token fails, or is held back, requests go out with what there is.
func TestRequestsGoOutWhereNoSuccessorIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		i.failWith(errors.New("down"))
		api := &revokingAPI{}
		transport := &Transport{Base: api, Schemes: []Scheme{&Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: old()}}}}
		_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/always", nil))
		require.ErrorContains(t, err, "down")
		start := time.Now()
		resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/open", nil))
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, 5*time.Millisecond, time.Since(start))
	})
}

// A refresh may send requests by the very Transport: they do not wait for it.
func TestRequestOfTheRefreshItselfDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &revokingAPI{}
		var transport *Transport
		src := &TokenSource{Initial: old()}
		src.Fetch = func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
			req := httptest.NewRequest("GET", "https://api.test/open", nil).WithContext(ctx)
			start := time.Now()
			_, err := transport.RoundTrip(req)
			if time.Since(start) > time.Second {
				t.Errorf("it has waited for %v", time.Since(start))
			}
			return &oauth2.Token{AccessToken: "new"}, ignore(err)
		}
		transport = &Transport{Base: api, Schemes: []Scheme{&Bearer{Source: src}}}
		api.revoke("old")
		resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
		require.NoError(t, err)
		require.Equal(t, 200, resp.StatusCode)
	})
}

func ignore(error) error { return nil }

// Want of scope refuses no token: nobody waits for those who step up.
func TestNobodyWaitsForAStepUpOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newGrantingIssuer()
		src := &TokenSource{Initial: i.initial(), Fetch: func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
			time.Sleep(10 * time.Second)
			return i.fetch(ctx, r)
		}}
		transport := i.transport(src, 403)
		var all sync.WaitGroup
		all.Go(func() {
			resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/more", nil))
			if err != nil || resp.StatusCode != 200 {
				t.Errorf("%v", err)
			}
		})
		time.Sleep(time.Second)
		for range 100 {
			start := time.Now()
			resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/base", nil))
			require.NoError(t, err)
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, 5*time.Millisecond, time.Since(start))
		}
		all.Wait()
	})
}
