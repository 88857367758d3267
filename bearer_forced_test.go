package authretry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
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

// forcedServers has an API that refuses everything, one that takes the current token only, and an open page beside the first.
// Whoever it is asks with a challenge.
func forcedServers(current func() string) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			io.Copy(io.Discard, req.Body)
			req.Body.Close()
		}
		resp := &http.Response{StatusCode: 401, Request: req, Header: http.Header{"Www-Authenticate": {"Bearer"}}, Body: http.NoBody}
		switch {
		case req.URL.Path == "/open",
			req.URL.Host == "good.test" && req.Header.Get("Authorization") == "Bearer "+current():
			resp.StatusCode = 200
		}
		return resp, nil
	}
}

// Neither an open page beside it, nor another API that takes the token, lets one that refuses everything cause more token
// requests than there are intervals.
func TestRefusingOriginCausesFewTokenRequests(t *testing.T) {
	for name, c := range map[string]struct {
		notAhead bool
		requests []string // by turns
		most     int32
	}{
		"alone":                       {false, []string{"GET https://bad.test/api"}, 7},
		"beside an open page":         {false, []string{"GET https://bad.test/api", "GET https://bad.test/open"}, 7},
		"beside an open page, asked":  {true, []string{"GET https://bad.test/api", "GET https://bad.test/open"}, 7},
		"a body that is sent once":    {true, []string{"PUT https://bad.test/api", "GET https://bad.test/open"}, 7},
		"the same path, otherwise":    {true, []string{"PUT https://bad.test/open?x", "PUT https://bad.test/api", "PUT https://bad.test/open"}, 7},
		"beside an API that is good":  {true, []string{"GET https://bad.test/api", "GET https://good.test/"}, 7},
		"beside one that is asked":    {false, []string{"GET https://bad.test/api", "OLD https://good.test/"}, 7},
		"two":                         {false, []string{"GET https://bad.test/api", "OLD https://good.test/", "GET https://worse.test/api"}, 14},
		"three, and an open page too": {true, []string{"GET https://a.test/api", "OLD https://good.test/", "PUT https://b.test/api", "GET https://b.test/open", "PUT https://c.test/api"}, 21},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := &issuer{}
				source := &TokenSource{Fetch: i.fetch, Initial: old()}
				current := func() string { t, _ := source.Token(); return t.AccessToken }
				transport := &Transport{Base: forcedServers(current), Schemes: []Scheme{&Bearer{Source: source, NotAhead: c.notAhead}}, ReplayLimit: -1}
				for start := time.Now(); time.Since(start) < time.Minute; {
					for _, r := range c.requests {
						method, target, _ := strings.Cut(r, " ")
						req := httptest.NewRequest(method, target, nil)
						if method == "PUT" {
							req.Body, req.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("body"))), 4
						}
						if method == "OLD" { // a request that was under way with the token before
							req.Method = "GET"
							b := transport.Schemes[0].(*Bearer)
							answer, err := b.Answer(req.Context(), &Challenge{Scheme: "Bearer"}, refusalOf(req))
							require.NoError(t, err)
							require.NoError(t, answer.Authorize(req))
							resp, err := forcedServers(current)(req)
							require.NoError(t, err)
							answer.(Learner).Learn(resp, false)
							continue
						}
						resp, err := transport.RoundTrip(req)
						require.NoError(t, err)
						resp.Body.Close()
					}
					time.Sleep(thorough.Or(50*time.Millisecond, 150*time.Millisecond))
				}
				require.LessOrEqual(t, i.calls.Load(), c.most)
				require.Positive(t, i.calls.Load())
			})
		})
	}
}

// A server that takes a token once, and then wants another, has it replaced for everybody: that is bounded, too.
func TestOriginThatTakesEachTokenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		last := "old"
		transport := &Transport{Schemes: []Scheme{&Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: old()}}},
			Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				resp := &http.Response{StatusCode: 200, Request: req, Header: http.Header{"Www-Authenticate": {"Bearer"}}, Body: http.NoBody}
				if token := req.Header.Get("Authorization"); token == last {
					resp.StatusCode = 401
				} else {
					last = token
				}
				return resp, nil
			})}
		for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(50 * time.Millisecond) {
			_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://bad.test/", nil))
			require.NoError(t, err)
		}
		require.LessOrEqual(t, i.calls.Load(), int32(7*maxForcedByOne))
	})
}

// Many such origins together are bounded, too.
func TestManyOriginsThatRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		source := &TokenSource{Fetch: i.fetch, Initial: old()}
		transport := &Transport{Base: &saying{challenge: "Bearer"}, Schemes: []Scheme{&Bearer{Source: source}}}
		for n := range 64 {
			roundTrip(t, transport, fmt.Sprintf("https://%d.test/", n))
			current, err := source.Token()
			require.NoError(t, err)
			source.Accepted(current) // somewhere else
		}
		require.EqualValues(t, 32, i.calls.Load())
		time.Sleep(defaultRefusalInterval)
		roundTrip(t, transport, "https://late.test/")
		require.EqualValues(t, 33, i.calls.Load())
	})
}

// One that has refused a fresh token, and takes the next, has proven that it means it.
func TestOriginThatAcceptsMayRefuseAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		server := &saying{challenge: "Bearer", right: "Bearer access-2"}
		transport := &Transport{Base: server, Schemes: []Scheme{&Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: old()}}}}
		require.Equal(t, 401, roundTrip(t, transport, "https://api.example.com/").StatusCode)
		require.Equal(t, 401, roundTrip(t, transport, "https://api.example.com/").StatusCode)
		require.EqualValues(t, 1, i.calls.Load(), "access-1 was fresh")
		time.Sleep(defaultRefusalInterval)
		require.Equal(t, 200, roundTrip(t, transport, "https://api.example.com/").StatusCode)
		server.right = "Bearer access-3"
		require.Equal(t, 200, roundTrip(t, transport, "https://api.example.com/").StatusCode)
		require.EqualValues(t, 3, i.calls.Load())
	})
}

// What could not be obtained is not held against the origin that was to have it.
func TestFailedRefreshIsTriedAgainForTheSameOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		i.failWith(errors.New("down"))
		server := &saying{challenge: "Bearer", right: "Bearer access-2"}
		transport := &Transport{Base: server, Schemes: []Scheme{&Bearer{Source: &TokenSource{Fetch: i.fetch, Initial: old()}}}}
		_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.example.com/", nil))
		require.ErrorContains(t, err, "down")
		i.failWith(nil)
		time.Sleep(time.Second)
		require.Equal(t, 200, roundTrip(t, transport, "https://api.example.com/").StatusCode)
	})
}

// What is remembered of those who refuse is bounded, however many they are, and however they are called.
func TestForcersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &TokenSource{}
		for n := range 10_000 {
			source.countForced(origin{"https", strings.Repeat("y", n), "443"})
		}
		require.LessOrEqual(t, len(source.forced.by), 64)
		time.Sleep(defaultRefusalInterval)
		source.countForced(origin{"https", "z", "443"})
		require.Len(t, source.forced.by, 1)
		require.NotNil(t, source.forcer(origin{"https", "z", "443"}))
	})
}

// A source of others that hangs is called a few times in all, however many requests give up waiting for it.
func TestBearerSourceThatHangsIsNotAskedByEachRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var calls, under atomic.Int32
		b := &Bearer{Source: foreignSource(func() (*oauth2.Token, error) {
			calls.Add(1)
			under.Add(1)
			defer under.Add(-1)
			<-release
			return &oauth2.Token{AccessToken: "late"}, nil
		})}
		before := runtime.NumGoroutine()
		for range 1000 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := (*bearerSession)(b).Authorize(newRequest().WithContext(ctx))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
		}
		require.EqualValues(t, maxAsking, under.Load())
		require.EqualValues(t, maxAsking, calls.Load())
		require.LessOrEqual(t, runtime.NumGoroutine(), before+maxAsking+1)
		close(release)
		synctest.Wait()
		require.Zero(t, under.Load())
		req := newRequest().WithContext(t.Context())
		require.NoError(t, (*bearerSession)(b).Authorize(req))
		require.Equal(t, "Bearer late", req.Header.Get("Authorization"))
		require.EqualValues(t, maxAsking+1, calls.Load())
	})
}

// Those who want a token at once get it from one call; but whoever was refused does not get the refused one by that.
func TestBearerSourceIsAskedOnceByManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		b := &Bearer{Source: foreignSource(func() (*oauth2.Token, error) {
			n := calls.Add(1)
			token := map[bool]string{true: "old", false: "new"}[n == 1]
			time.Sleep(time.Second)
			return &oauth2.Token{AccessToken: token}, nil
		})}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				req := newRequest().WithContext(t.Context())
				if err := (*bearerSession)(b).Authorize(req); err != nil || req.Header.Get("Authorization") != "Bearer old" {
					t.Error(err, req.Header)
				}
			})
		}
		synctest.Wait()
		wg.Go(func() {
			answer, err := b.Answer(t.Context(), &Challenge{Scheme: "Bearer"}, refusalOf(newRequest("Bearer old")))
			if err != nil {
				t.Error(err)
				return
			}
			req := newRequest().WithContext(t.Context())
			if err := answer.Authorize(req); err != nil || req.Header.Get("Authorization") != "Bearer new" {
				t.Error(err, req.Header)
			}
		})
		wg.Wait()
		require.EqualValues(t, 2, calls.Load())
	})
	failing := &Bearer{Source: foreignSource(func() (*oauth2.Token, error) { return nil, errors.New("down") })}
	for range 3 {
		require.ErrorContains(t, (*bearerSession)(failing).Authorize(newRequest().WithContext(t.Context())), "down")
	}
	leaving := &Bearer{Source: foreignSource(func() (*oauth2.Token, error) { runtime.Goexit(); return nil, nil })}
	for range 3 {
		require.ErrorContains(t, (*bearerSession)(leaving).Authorize(newRequest().WithContext(t.Context())), "has ended its goroutine")
	}
}
