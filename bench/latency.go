package main

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cloud.google.com/go/auth"
	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

const (
	tokenLife    = 200 * time.Millisecond
	endpointTime = 50 * time.Millisecond
	serviceTime  = 2 * time.Millisecond // of the API
	oauth2Lead   = 20 * time.Millisecond
)

// A shortLived is an API whose tokens do not live long, and the token endpoint for it.
type shortLived struct {
	requests atomic.Int64 // at the token endpoint
	never    bool         // tokens do not expire
}

// token is the token endpoint. A token says itself when it ends.
func (s *shortLived) token(ctx context.Context) (*oauth2.Token, error) {
	s.requests.Add(1)
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(endpointTime):
	}
	if s.never {
		return &oauth2.Token{AccessToken: "0"}, nil
	}
	end := time.Now().Add(tokenLife)
	return &oauth2.Token{AccessToken: strconv.FormatInt(end.UnixNano(), 10), TokenType: "Bearer", Expiry: end}, nil
}

// RoundTrip is the API.
func (s *shortLived) RoundTrip(req *http.Request) (*http.Response, error) {
	text, _ := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	end, err := strconv.ParseInt(text, 10, 64)
	good := err == nil && (s.never || time.Now().UnixNano() < end)
	time.Sleep(serviceTime)
	if good {
		return accepted, nil
	}
	return &http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": {`Bearer error="invalid_token"`}}, Body: http.NoBody, Request: req}, nil
}

const noExpiry = "no expiry"

func latencyPeers() map[string]func(*shortLived) http.RoundTripper {
	withSource := func(s *shortLived) http.RoundTripper {
		src := &authretry.TokenSource{Fetch: func(ctx context.Context, _ authretry.TokenRequest) (*oauth2.Token, error) { return s.token(ctx) }}
		return &authretry.Transport{Base: s, Schemes: []authretry.Scheme{&authretry.Bearer{Source: src}}}
	}
	return map[string]func(*shortLived) http.RoundTripper{
		noExpiry: func(s *shortLived) http.RoundTripper { s.never = true; return withSource(s) },
		ours:     withSource,
		"oauth2, lead of 20 ms": func(s *shortLived) http.RoundTripper {
			return &oauth2.Transport{Base: s, Source: oauth2.ReuseTokenSourceWithExpiry(nil, onceSource(s.token), oauth2Lead)}
		},
		"cloud auth": func(s *shortLived) http.RoundTripper {
			return cloudAuth(s, func(ctx context.Context) (*auth.Token, error) {
				t, err := s.token(ctx)
				if err != nil {
					return nil, err
				}
				return &auth.Token{Value: t.AccessToken, Expiry: t.Expiry}, nil
			}, 0)
		},
		"azcore": func(s *shortLived) http.RoundTripper { return azcoreClient(s, s.token, true) },
	}
}

// A latencyResult is what became of requests while tokens came and went.
type latencyResult struct {
	name          string
	least         float64 // p99 of the best run, in nanoseconds: whatever else the machine does only adds to it
	p99           spread
	ratio         float64 // of the least, to that of no expiry
	tokenRequests float64
	failures      float64
}

// latencyRow sends requests at a rate, whether or not those before are done, and measures each from when it was due.
func latencyRow(e effort) []latencyResult {
	peers := latencyPeers()
	p99s, requests, failures := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	for range e.repeat {
		for name, build := range inOrder(peers) {
			s := &shortLived{}
			p99, failed := load(e, build(s))
			p99s[name] = append(p99s[name], p99)
			requests[name] = append(requests[name], float64(s.requests.Load()))
			failures[name] = append(failures[name], float64(failed))
		}
	}
	var results []latencyResult
	for name := range inOrder(peers) {
		least := slices.Min(p99s[name])
		results = append(results, latencyResult{
			name: name, least: least, p99: spreadOf(p99s[name]), ratio: least / slices.Min(p99s[noExpiry]),
			tokenRequests: slices.Max(requests[name]), failures: slices.Max(failures[name]),
		})
	}
	return results
}

func load(e effort, rt http.RoundTripper) (p99 float64, failures int64) {
	if resp, err := rt.RoundTrip(newRequest()); err != nil || resp.StatusCode != 200 { // the first token is not the row's business
		failures++
	}
	const tick = time.Millisecond
	total := int(int64(e.rate) * int64(e.length) / int64(time.Second))
	perTick := max(1, int(int64(e.rate)*int64(tick)/int64(time.Second)))
	latencies := make([]float64, total)
	var failed atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for i := 0; i < total; {
		due := start.Add(time.Duration(i/perTick) * tick)
		time.Sleep(time.Until(due))
		for range min(perTick, total-i) {
			n := i
			i++
			wg.Go(func() {
				resp, err := rt.RoundTrip(newRequest())
				latencies[n] = float64(time.Since(due))
				if err != nil || resp.StatusCode != 200 {
					failed.Add(1)
				}
			})
		}
	}
	wg.Wait()
	slices.Sort(latencies)
	return latencies[len(latencies)*99/100], failures + failed.Load()
}
