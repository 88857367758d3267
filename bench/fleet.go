package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// A fleet is one of replicas that share a store.
type fleet struct {
	name     string
	replicas func(effort) int
	unit     string                      // of what is counted
	aim      float64                     // how much of that a replica may cause; 0: as much as it does
	start    func() (*fleetStore, error) // nil: it is not installed
}

var fleets = []fleet{
	{"redisstore", func(e effort) int { return e.replicas }, "scripts", 6, redisFleet},
	{"sqlstore, 20 connections", func(e effort) int { return e.replicas }, "statements", 0, sqlFleet},
	{"filestore, processes", func(e effort) int { return e.processes }, "", 0, fileFleet},
}

// A fleetStore is where the replicas of a service keep their login.
type fleetStore struct {
	open func() (authretry.TokenStore, error)
	cost func() (float64, error) // what the server has done so far
	end  func()

	// run runs replicas that are processes of their own; nil: they are TokenSources of this one.
	run func(replicas int, endpoint time.Duration) (fleetResult, error)
}

// A fleetResult is what came of a fleet that finds its token expired.
type fleetResult struct {
	replicas      int
	endpoint      time.Duration
	tokenRequests int
	failures      int
	median, last  time.Duration // from when the replicas ask until they have the token
	cost          float64       // for each replica
}

// meets reports whether the fleet has done as well as it is to do.
func (x fleetResult) meets(f fleet) bool {
	return x.tokenRequests == 1 && x.failures == 0 && (f.aim == 0 || x.cost <= f.aim) &&
		x.median <= x.endpoint+100*time.Millisecond && x.last <= 2*x.endpoint+200*time.Millisecond
}

func (x fleetResult) String() string {
	return fmt.Sprintf("%d token requests, %d failures, median %v, last %v", x.tokenRequests, x.failures, x.median.Round(time.Millisecond), x.last.Round(time.Millisecond))
}

// runFleet has TokenSources, each with a store of its own as another process would have, find one expired token at once.
func runFleet(s *fleetStore, replicas int, endpoint time.Duration) (x fleetResult, err error) {
	x = fleetResult{replicas: replicas, endpoint: endpoint}
	first, err := s.open()
	if err != nil {
		return x, err
	}
	if err := putExpired(first); err != nil {
		return x, err
	}
	if s.run != nil {
		return s.run(replicas, endpoint)
	}
	var requests, failures atomic.Int32
	fetch := func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
		n := requests.Add(1)
		time.Sleep(endpoint)
		return &oauth2.Token{AccessToken: fmt.Sprint("new-", n), RefreshToken: "r", Expiry: time.Now().Add(time.Hour)}, nil
	}
	sources := make([]*authretry.TokenSource, replicas)
	for i := range sources {
		store, err := s.open()
		if err != nil {
			return x, err
		}
		sources[i] = &authretry.TokenSource{Fetch: fetch, Store: store, FetchTimeout: time.Minute}
	}
	before, err := s.cost()
	if err != nil {
		return x, err
	}
	served := make([]time.Duration, replicas)
	var all sync.WaitGroup
	start := time.Now()
	for i, source := range sources {
		all.Go(func() {
			if t, err := source.Token(); err != nil || t.AccessToken != "new-1" {
				failures.Add(1)
			}
			served[i] = time.Since(start)
		})
	}
	all.Wait()
	after, err := s.cost()
	x.tokenRequests, x.failures = int(requests.Load()), int(failures.Load())
	x.serve(served)
	x.cost = (after - before) / float64(replicas)
	return x, err
}

// serve notes when the replicas were served.
func (x *fleetResult) serve(served []time.Duration) {
	slices.Sort(served)
	x.median, x.last = served[len(served)/2], served[len(served)-1]
}

// putExpired puts a token into a store that has expired.
func putExpired(s authretry.TokenStore) error {
	return s.Update(context.Background(), func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
		return &authretry.Record{Token: &oauth2.Token{AccessToken: "old", RefreshToken: "r", Expiry: time.Now().Add(-time.Hour)}}, nil
	})
}

// fleetRows measures fleets.
func fleetRows(r *report, e effort) error {
	r.printf("## Fleets\n\nReplicas find one expired token at once. Those on Redis and PostgreSQL are TokenSources of one process, each with a store "+
		"of its own; those on a file are processes. From when they ask until they have the new one; the best of %d runs, as whatever "+
		"else the machine does only adds to it.\n\n", e.repeat)
	var rows []string
	for _, f := range fleets {
		for _, endpoint := range e.endpoints {
			best, err := bestOf(f, f.replicas(e), endpoint, e.repeat)
			if err != nil {
				return err
			}
			if best == nil {
				r.printf("%s: its server is not on this machine.\n\n", f.name)
				break
			}
			cost, aim := "", ""
			if f.unit != "" {
				cost = fmt.Sprintf("%.1f %s", best.cost, f.unit)
			}
			if f.aim > 0 {
				aim = fmt.Sprintf("%.0f %s a replica, ", f.aim, f.unit)
			}
			rows = append(rows, fmt.Sprintf("%s | %d | %v | %d | %d | %v | %v | %s", f.name, best.replicas, endpoint, best.tokenRequests, best.failures,
				best.median.Round(time.Millisecond), best.last.Round(time.Millisecond), cost))
			r.judge(fmt.Sprintf("Fleet of %d on %s, endpoint %v", best.replicas, f.name, endpoint),
				"1 token request, "+aim+"median at most endpoint + 100 ms, last 2 × endpoint + 200 ms", best.meets(f),
				strings.TrimSuffix(fmt.Sprintf("%v, %s", best, cost), ", "), "none has a store")
		}
	}
	r.table("store | replicas | endpoint | token requests | failures | median | last | work for each", rows)
	return nil
}

// bestOf runs a fleet several times; nil: its server is not installed. A run that is wrong counts, however fast it was.
func bestOf(f fleet, replicas int, endpoint time.Duration, times int) (best *fleetResult, err error) {
	for range times {
		s, err := f.start()
		if s == nil {
			return nil, err
		}
		x, err := runFleet(s, replicas, endpoint)
		s.end()
		if err != nil {
			return nil, err
		}
		if x.tokenRequests != 1 || x.failures > 0 {
			return &x, nil
		}
		if best == nil || x.last < best.last {
			best = &x
		}
	}
	return best, nil
}

// fleetGrowth measures how long the last of a fleet waits; nil if there is no server of any.
func fleetGrowth(e effort) (*growth, error) {
	g := &growth{title: "Fleet, the last replica's wait, endpoint 200 ms", of: "replicas", at: []int{1, 10, 100, e.replicas}}
	for _, f := range fleets {
		if f.unit == "" {
			continue // which is not for a thousand
		}
		own := series{name: f.name}
		for _, n := range g.at {
			best, err := bestOf(f, n, 200*time.Millisecond, min(e.repeat, 3))
			if err != nil {
				return nil, err
			}
			if best == nil {
				break
			}
			own.ns = append(own.ns, float64(best.last))
		}
		if len(own.ns) == len(g.at) {
			g.series = append(g.series, own)
		}
	}
	if len(g.series) == 0 {
		return nil, nil
	}
	return g, nil
}
