package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
	oras "oras.land/oras-go/v2/registry/remote/auth"
)

// An authority is an API and its token endpoint, without a network between.
type authority struct {
	fetchTime time.Duration
	rotates   bool // a refresh token is good once; its second use ends everything
	hold      func(nth int)
	fetching  func() // called when a token request arrives

	mu       sync.Mutex
	issued   int
	valid    map[string]bool // access tokens
	refresh  string          // the refresh token
	ended    bool
	requests int // at the token endpoint
	refused  int
}

// token is the token endpoint.
func (a *authority) token(ctx context.Context, refresh string) (*oauth2.Token, error) {
	a.mu.Lock()
	a.requests++
	good := !a.ended && (!a.rotates || a.refresh == "" || refresh == a.refresh)
	if !good {
		a.ended, a.valid = true, nil
	} else {
		a.issued++
		a.refresh = "refresh-" + strconv.Itoa(a.issued)
	}
	n, refresh := a.issued, a.refresh
	a.mu.Unlock()
	if !good {
		return nil, errors.New("invalid_grant")
	}
	if a.fetching != nil {
		a.fetching()
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(a.fetchTime):
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	t := "token-" + strconv.Itoa(n)
	if !a.ended {
		if a.valid == nil {
			a.valid = map[string]bool{}
		}
		a.valid["Bearer "+t] = true
	}
	return &oauth2.Token{AccessToken: t, RefreshToken: refresh, TokenType: "Bearer", Expiry: time.Now().Add(time.Hour)}, nil
}

// RoundTrip is the API, and the token endpoint for those who reach it by HTTP.
func (a *authority) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Path == "/token" {
		t, err := a.token(req.Context(), "")
		if err != nil {
			return nil, err
		}
		body := fmt.Sprintf(`{"token":%q,"access_token":%q,"expires_in":3600}`, t.AccessToken, t.AccessToken)
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
	}
	a.mu.Lock()
	good := a.valid[req.Header.Get("Authorization")]
	if !good {
		a.refused++
	}
	nth := a.refused
	a.mu.Unlock()
	if good {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
	}
	if a.hold != nil {
		a.hold(nth)
	}
	header := http.Header{"Www-Authenticate": {`Bearer realm="https://api.example.com/token",service="api",error="invalid_token"`}}
	return &http.Response{StatusCode: 401, Header: header, Body: http.NoBody, Request: req}, nil
}

// revoke makes the access tokens that there are worthless.
func (a *authority) revoke() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.valid, a.requests, a.refused = nil, 0, 0
}

// stormPeers are all that answer a 401 with another token.
func stormPeers(a *authority) map[string]http.RoundTripper {
	src := &authretry.TokenSource{Fetch: func(ctx context.Context, r authretry.TokenRequest) (*oauth2.Token, error) {
		refresh := ""
		if r.Previous != nil {
			refresh = r.Previous.RefreshToken
		}
		return a.token(ctx, refresh)
	}}
	var mu sync.Mutex
	refresh := ""
	keep := func(ctx context.Context) (*oauth2.Token, error) { // what a user of azcore would write
		mu.Lock()
		previous := refresh
		mu.Unlock()
		t, err := a.token(ctx, previous)
		if err == nil {
			mu.Lock()
			refresh = t.RefreshToken
			mu.Unlock()
		}
		return t, err
	}
	client := &oras.Client{Client: &http.Client{Transport: a}, Cache: oras.NewCache()}
	return map[string]http.RoundTripper{
		ours:     &authretry.Transport{Base: a, Schemes: []authretry.Scheme{&authretry.Bearer{Source: src}}},
		"azcore": azcoreClient(a, keep, true),
		"oras":   roundTripFunc(client.Do),
		"oauth2": &oauth2.Transport{Base: a, Source: oauth2.ReuseTokenSource(nil, onceSource(keep))},
	}
}

type onceSource func(context.Context) (*oauth2.Token, error)

func (f onceSource) Token() (*oauth2.Token, error) { return f(context.Background()) }

// A stormResult is what came of a storm.
type stormResult struct {
	name          string
	tokenRequests int
	failures      int
}

// A storm is a way for many refusals to come at once.
type storm struct {
	name     string
	requests int
	rotates  bool
	late     time.Duration // over which the refusals are spread; 0: they come together
	cancel   bool          // the request that was first to be refused is cancelled while its token is fetched
}

var storms = []storm{
	{name: "1,000 together", requests: 1000},
	{name: "stragglers over 250 ms", requests: 1000, late: 250 * time.Millisecond},
	{name: "rotating refresh tokens", requests: 1000, rotates: true},
	{name: "a cancelled leader with 99", requests: 100, cancel: true},
}

// stormRow lets the storm come over each peer.
func stormRow(s storm) ([]stormResult, error) {
	var results []stormResult
	for name := range inOrder(stormPeers(&authority{})) {
		a := &authority{fetchTime: 20 * time.Millisecond, rotates: s.rotates}
		rt := stormPeers(a)[name]
		send := func(ctx context.Context) bool {
			resp, err := rt.RoundTrip(newRequest().WithContext(ctx))
			return err == nil && resp.StatusCode == 200
		}
		begun := send(context.Background())
		if !begun {
			begun = send(context.Background())
		}
		if !begun {
			return nil, fmt.Errorf("%s: no token to begin with", name)
		}
		a.revoke()
		failures := s.run(a, send)
		a.mu.Lock()
		results = append(results, stormResult{name: name, tokenRequests: a.requests, failures: failures})
		a.mu.Unlock()
	}
	return results, nil
}

// run returns how many requests have failed that were not cancelled.
func (s storm) run(a *authority, send func(context.Context) bool) int {
	var barrier sync.WaitGroup
	barrier.Add(s.requests)
	all := make(chan struct{})
	go func() { barrier.Wait(); close(all) }()
	a.hold = func(nth int) {
		switch {
		case nth > s.requests || s.cancel: // a second refusal of the same request
		case s.late > 0:
			time.Sleep(s.late * time.Duration(nth) / time.Duration(s.requests))
		default:
			barrier.Done()
			<-all
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	failures := 0
	start := func(ctx context.Context, counts bool) {
		wg.Go(func() {
			if !send(ctx) && counts {
				mu.Lock()
				failures++
				mu.Unlock()
			}
		})
	}
	if !s.cancel {
		for range s.requests {
			start(context.Background(), true)
		}
		wg.Wait()
		return failures
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	fetching := make(chan struct{})
	var once sync.Once
	a.fetching = func() { once.Do(func() { close(fetching) }) }
	start(ctx, false)
	select {
	case <-fetching:
	case <-time.After(time.Second): // this peer does not fetch
	}
	for range s.requests - 1 {
		start(context.Background(), true)
	}
	time.Sleep(a.fetchTime / 4) // for the followers to get in line
	cancel()
	wg.Wait()
	return failures
}
