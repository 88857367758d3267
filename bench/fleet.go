package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/redisstore"
	"github.com/redis/go-redis/v9"
	"golang.org/x/oauth2"
)

// A fleetStore is where the replicas of a service keep their login.
type fleetStore struct {
	name string
	open func() (authretry.TokenStore, error)
	cost func() (float64, error) // what the server has done so far
	unit string
	end  func()
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
func (x fleetResult) meets() bool {
	return x.tokenRequests == 1 && x.failures == 0 && x.cost <= 6 && x.median <= x.endpoint+100*time.Millisecond && x.last <= 2*x.endpoint+200*time.Millisecond
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
	err = first.Update(context.Background(), func(context.Context, *authretry.Record, func(context.Context) error) (*authretry.Record, error) {
		return &authretry.Record{Token: &oauth2.Token{AccessToken: "old", RefreshToken: "r", Expiry: time.Now().Add(-time.Hour)}}, nil
	})
	if err != nil {
		return x, err
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
	slices.Sort(served)
	x.tokenRequests, x.failures = int(requests.Load()), int(failures.Load())
	x.median, x.last, x.cost = served[replicas/2], served[replicas-1], (after-before)/float64(replicas)
	return x, err
}

// fleetRows measures a fleet of a thousand on Redis.
func fleetRows(r *report, e effort) error {
	r.printf("## Fleets\n\nReplicas, each a TokenSource with a store of its own in one process, find one expired token at once. "+
		"From when they ask until they have the new one; the best of %d runs, as whatever else the machine does only adds to it.\n\n", e.repeat)
	var rows []string
	for _, endpoint := range e.endpoints {
		var best fleetResult
		for n := range e.repeat {
			s, err := redisFleet()
			if err != nil {
				return err
			}
			if s == nil {
				r.printf("There is no redis-server on this machine.\n\n")
				return nil
			}
			x, err := runFleet(s, e.replicas, endpoint)
			s.end()
			if err != nil {
				return err
			}
			if n == 0 || x.last < best.last || x.tokenRequests != 1 || x.failures > 0 {
				best = x
			}
			if x.tokenRequests != 1 || x.failures > 0 {
				break
			}
		}
		rows = append(rows, fmt.Sprintf("redisstore | %d | %v | %d | %d | %v | %v | %.1f", best.replicas, endpoint, best.tokenRequests, best.failures,
			best.median.Round(time.Millisecond), best.last.Round(time.Millisecond), best.cost))
		r.judge(fmt.Sprintf("Fleet of %d on Redis, endpoint %v", best.replicas, endpoint),
			"1 token request, 6 scripts a replica, median at most endpoint + 100 ms, last 2 × endpoint + 200 ms", best.meets(),
			fmt.Sprintf("%v, %.1f scripts", best, best.cost), "none has a store")
	}
	r.table("store | replicas | endpoint | token requests | failures | median | last | scripts a replica", rows)
	return nil
}

// fleetGrowth measures how long the last of a fleet waits; nil if there is no Redis.
func fleetGrowth(e effort) (*growth, error) {
	g := &growth{title: "Fleet on Redis, the last replica's wait, endpoint 200 ms", of: "replicas", at: []int{1, 10, 100, e.replicas}}
	own := series{name: ours}
	for _, n := range g.at {
		s, err := redisFleet()
		if s == nil {
			return nil, err
		}
		x, err := runFleet(s, n, 200*time.Millisecond)
		s.end()
		if err != nil {
			return nil, err
		}
		own.ns = append(own.ns, float64(x.last))
	}
	g.series = []series{own}
	return g, nil
}

// redisFleet starts a Redis of its own; nil if there is none on this machine.
func redisFleet() (*fleetStore, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return nil, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	l.Close()
	dir, err := os.MkdirTemp("", "bench-redis-")
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command("redis-server", "--save", "", "--bind", "127.0.0.1", "--port", port, "--dir", dir)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	client := redis.NewClient(&redis.Options{Addr: addr})
	s := &fleetStore{
		name: "redisstore", unit: "scripts",
		open: func() (authretry.TokenStore, error) { return &redisstore.Store{Client: client, Key: "login"}, nil },
		cost: func() (float64, error) { return scripts(client) },
		end: func() {
			client.Close()
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			os.RemoveAll(dir)
		},
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err = client.Ping(context.Background()).Err(); err == nil {
			return s, nil
		}
		if time.Now().After(end) {
			s.end()
			return nil, err
		}
	}
}

// scripts returns how many scripts a Redis has run.
func scripts(client *redis.Client) (n float64, err error) {
	text, err := client.Info(context.Background(), "commandstats").Result()
	for line := range strings.Lines(text) {
		var calls float64
		for _, command := range []string{"evalsha", "eval"} {
			if rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":calls="); ok {
				fmt.Sscanf(rest, "%f", &calls)
				n += calls
			}
		}
	}
	return n, err
}
