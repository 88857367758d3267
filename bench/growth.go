package main

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/authretry/authretry"
	icholy "github.com/icholy/digest"
	"golang.org/x/oauth2"
)

// A series is how the cost of one contender grows.
type series struct {
	name string
	ns   []float64
}

// A growth is how costs grow with something.
type growth struct {
	title  string
	of     string // what is on the horizontal axis
	at     []int
	series []series
}

func (g *growth) add(i int, timings []timing) {
	for _, t := range timings {
		if t.wrong != "" {
			t.name += " (wrong)"
		}
		k := 0
		for k < len(g.series) && strings.TrimSuffix(g.series[k].name, " (wrong)") != strings.TrimSuffix(t.name, " (wrong)") {
			k++
		}
		if k == len(g.series) {
			g.series = append(g.series, series{name: t.name, ns: make([]float64, len(g.at))})
		}
		g.series[k].ns[i] = t.ns.median
	}
}

// growthRows measures all growths.
func growthRows(e effort) ([]growth, error) {
	e.rounds = max(3, e.rounds/2)
	origins := growth{title: "Digest, time per request", of: "origins remembered", at: []int{1, 100, 10_000}}
	for i, n := range origins.at {
		timings, err := originsRow(e, n)
		if err != nil {
			return nil, err
		}
		origins.add(i, timings)
	}
	goroutines := growth{title: "Bearer, time per request", of: "goroutines", at: []int{1, 16, 256}}
	for i, n := range goroutines.at {
		timings, err := bearerRow(e, true, n)
		if err != nil {
			return nil, err
		}
		goroutines.add(i, timings)
	}
	digests := growth{title: "Digest, time per request", of: "goroutines", at: []int{1, 16, 256}}
	for i, n := range digests.at {
		timings, err := sharedDigestRow(e, n)
		if err != nil {
			return nil, err
		}
		digests.add(i, timings)
	}
	parsing := growth{title: "Parser, time per header", of: "KiB of well-formed challenges", at: []int{1, 4, 16, 64}}
	for i, n := range parsing.at {
		line := strings.Repeat(parseCases[1].header+", ", n<<10/len(parseCases[1].header)+1)[:n<<10]
		line = line[:strings.LastIndex(line, `", `)+1]
		want, err := parsers[ours]([]string{line}, true)
		if err != nil {
			return nil, err
		}
		timings, err := parseRow(e, parseCase{header: line, want: want})
		if err != nil {
			return nil, err
		}
		parsing.add(i, timings)
	}
	all := []growth{origins, goroutines, digests, parsing}
	fleets, err := fleetGrowth(e)
	if fleets != nil {
		all = append(all, *fleets)
	}
	return all, err
}

// requestsTo returns a request for each of n origins.
func requestsTo(n int) []*http.Request {
	requests := make([]*http.Request, n)
	for i := range requests {
		requests[i] = newRequest()
		requests[i].URL.Host = fmt.Sprintf("api-%d.example.com", i)
		requests[i].Host = requests[i].URL.Host
	}
	return requests
}

// rememberingPeers are those that remember what a server asked for.
func rememberingPeers(base http.RoundTripper) map[string]http.RoundTripper {
	all := digestPeers(base)
	return map[string]http.RoundTripper{ours: all[ours], "icholy": all["icholy"]}
}

// originsRow measures Digest for requests that go to n origins by turns.
func originsRow(e effort, n int) ([]timing, error) {
	var cs []contender
	for name, rt := range inOrder(rememberingPeers(refusing(md5Hashing.challenge(nonce)))) {
		requests := requestsTo(n)
		i := 0
		op := func() error {
			i++
			_, err := rt.RoundTrip(requests[i%n])
			return err
		}
		for range n {
			if err := op(); err != nil {
				return nil, err
			}
		}
		cs = append(cs, contender{name: name, op: op})
	}
	return compare(e, 1, ours, cs...)
}

// sharedDigestRow measures Digest for requests to one origin on many goroutines.
func sharedDigestRow(e effort, goroutines int) ([]timing, error) {
	var cs []contender
	for name, rt := range inOrder(rememberingPeers(refusing(md5Hashing.challenge(nonce)))) {
		req := newRequest()
		cs = append(cs, contender{name: name, op: func() error { _, err := rt.RoundTrip(req); return err }})
	}
	return compare(e, goroutines, ours, cs...)
}

// A footprint is how much memory one remembered origin takes.
type footprint struct {
	name  string
	bytes float64
}

// footprints measures the heap with 10,000 origins.
func footprints() []footprint {
	const n = 10_000
	heap := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	digest := refusing(md5Hashing.challenge(nonce))
	token := &oauth2.Token{AccessToken: "t", Expiry: time.Now().Add(time.Hour)}
	var all []footprint
	for _, p := range []struct {
		name string
		rt   http.RoundTripper
	}{
		{ours + ", Digest", digestPeers(digest)[ours]},
		{ours + ", Basic", &authretry.Transport{Base: refusing(`Basic realm="x"`), Schemes: []authretry.Scheme{&authretry.Basic{Username: username, Password: password}}}},
		{ours + ", Bearer", bearerPeers(atOnce, token)[ours]},
		{"icholy, Digest", &icholy.Transport{Username: username, Password: password, Transport: digest}},
	} {
		requests := requestsTo(n)
		before := heap()
		for _, req := range requests {
			p.rt.RoundTrip(req)
		}
		all = append(all, footprint{p.name, max(0, heap()-before) / n})
		runtime.KeepAlive(requests)
		runtime.KeepAlive(p.rt)
	}
	return all
}
