// Command bench measures authretry beside its peers, and beside the least that the work can cost.
//
// It runs every row, checks what each peer does before it is timed, and writes RESULTS.md and growth.svg. With -brief it takes a few
// seconds, and its numbers are worth nothing.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	if uploadIfChild() || fleetIfChild() {
		return
	}
	dir := flag.String("dir", ".", "where RESULTS.md and growth.svg go")
	short := flag.Bool("brief", false, "show that all rows run, and no more")
	only := flag.String("only", "", "the rows whose name has this in it, to standard output")
	flag.Parse()
	e := thorough
	if *short {
		e = brief
	}
	start := time.Now()
	r, err := runAll(e, *only, func(row string) { fmt.Fprintf(os.Stderr, "%5.0f s  %s\n", time.Since(start).Seconds(), row) })
	if err != nil {
		log.Fatal(err)
	}
	text := r.write(time.Since(start))
	if *only != "" {
		fmt.Print(text)
		return
	}
	if err := os.WriteFile(filepath.Join(*dir, "growth.svg"), []byte(picture(r.growths)), 0o644); err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*dir, "RESULTS.md"), []byte(text), 0o644); err != nil {
		log.Fatal(err)
	}
}

// runAll runs the rows whose name has only in it.
func runAll(e effort, only string, progress func(row string)) (*report, error) {
	r := &report{}
	for _, row := range []struct {
		name string
		run  func(*report, effort) error
	}{
		{"Bearer", bearerRows},
		{"accounts, step-up and DPoP", variantRows},
		{"Digest", digestRows},
		{"parser", parserRows},
		{"hostile headers", hostileRows},
		{"loopback", loopbackRows},
		{"POST", postRows},
		{"storms", stormRows},
		{"fleets", fleetRows},
		{"upload", uploadRows},
		{"latency", latencyRows},
		{"growth", growthAndFootprints},
		{"linking", linkRows},
	} {
		if !strings.Contains(row.name, only) {
			continue
		}
		progress(row.name)
		if err := row.run(r, e); err != nil {
			return nil, fmt.Errorf("%s: %w", row.name, err)
		}
	}
	return r, nil
}

func bearerRows(r *report, e effort) error {
	r.printf("## Bearer, steady state\n\nThe base answers at once. azcore's pipeline has logging and retry policies that cannot be left out.\n\n")
	for _, goroutines := range []int{1, 16} {
		for _, expiring := range []bool{false, true} {
			name := "static token"
			if expiring {
				name = "token with an expiry"
			}
			if goroutines > 1 {
				name = fmt.Sprintf("%s, %d goroutines", name, goroutines)
			}
			timings, err := bearerRow(e, expiring, goroutines)
			if err != nil {
				return err
			}
			r.printf("%s:\n\n", name)
			r.timings("oauth2", timings)
			our, target, limit := named(timings, ours), "at most 4 allocations", 1.0
			if expiring {
				target, limit = "at most 0.7 × oauth2, 4 allocations", 0.7
			}
			b := named(timings, bound)
			r.judge("Bearer, "+name, target, our.wrong == "" && our.ratio.median <= limit && our.allocs <= 4,
				fmt.Sprintf("%.2f × oauth2, %.2f × bound, %.0f allocations", our.ratio.median, our.ratio.median/b.ratio.median, our.allocs), bestPeer(timings))
		}
	}
	return nil
}

func digestRows(r *report, e effort) error {
	r.printf("## Digest, steady state\n\nThe base answers at once, and checks nothing: what is right is found out before, by a server that takes RFC 7616 by its word.\n\n")
	for _, h := range []hashing{md5Hashing, sha256Hashing} {
		timings, err := digestRow(e, h)
		if err != nil {
			return err
		}
		r.printf("%s:\n\n", h.name)
		r.timings(bound, timings)
		our := named(timings, ours)
		r.judge("Digest, "+h.name, "at most 1.2 × bound, 10 allocations", our.wrong == "" && our.ratio.median <= 1.2 && our.allocs <= 10,
			fmt.Sprintf("%.2f × bound, %.0f allocations", our.ratio.median, our.allocs), bestPeer(timings))
	}
	return nil
}

func parserRows(r *report, e effort) error {
	r.printf("## Parser\n\nOnly parsers that can be called are here. icholy's knows Digest only.\n\n")
	for _, c := range parseCases {
		timings, err := parseRow(e, c)
		if err != nil {
			return err
		}
		r.printf("%s (%d bytes):\n\n", c.name, len(c.header))
		r.timings("scan", timings)
		our := named(timings, ours)
		r.judge("Parse "+c.name, c.target, our.wrong == "" && our.ratio.median <= c.limit && our.allocs <= c.allocs,
			fmt.Sprintf("%.2f × scan, %.0f allocations", our.ratio.median, our.allocs), bestPeer(timings))
	}
	return nil
}

func hostileRows(r *report, e effort) error {
	large, small := e.header, e.header/4
	r.printf("## 64 KiB of hostile header\n\nTime × scan, and how it grows from a quarter of that (4 is linear, 16 quadratic). There is no right result here; one that gives up early is fast.\n" +
		"ggcr and oras are reached through a request, whose cost is in their numbers.\n\n")
	worst, worstBytes, growing := 0.0, 0.0, 0.0
	worstShape := ""
	peerWorst := map[string]float64{}
	var header string
	var rows []string
	for _, s := range shapes {
		timings, err := hostileRow(e, s, large)
		if err != nil {
			return err
		}
		before, err := hostileRow(e, s, small)
		if err != nil {
			return err
		}
		header, row := "shape", s.name
		for i, t := range timings {
			header += " | " + t.name
			grows := t.ns.median / before[i].ns.median
			row += fmt.Sprintf(" | %.2f × (%s, %s, grows %.1f ×)", t.ratio.median, duration(t.ns.median), size(t.bytes), grows)
			peerWorst[t.name] = max(peerWorst[t.name], t.ns.median)
			if t.name == ours {
				worstBytes, growing = max(worstBytes, t.bytes), max(growing, grows)
				if t.ratio.median > worst {
					worst, worstShape = t.ratio.median, s.name
				}
			}
		}
		if len(rows) == 0 {
			rows = append(rows, header)
		}
		rows = append(rows, row)
	}
	header, rows = rows[0], rows[1:]
	r.table(header, rows)
	var peers []string
	for name, ns := range inOrder(peerWorst) {
		if name != ours && name != bound {
			peers = append(peers, name+" "+duration(ns))
		}
	}
	r.judge("64 KiB of hostile header, worst of seven", "at most 4 × scan, linear, under 1 MiB", worst <= 4 && growing < 8 && worstBytes < 1<<20,
		fmt.Sprintf("%.2f × scan (%s), %s, grows %.1f ×", worst, worstShape, size(worstBytes), growing), "worst shape: "+strings.Join(peers, ", "))
	return nil
}

func loopbackRows(r *report, e effort) error {
	r.printf("## Digest over loopback\n\nOne request after the other, to a server that checks nonce counts. With nextnonce each nonce serves once, and the next one comes with the answer.\n\n")
	for _, next := range []bool{false, true} {
		name := "Digest over loopback"
		if next {
			name += ", nextnonce"
		}
		results, err := loopbackRow(e, next)
		if err != nil {
			return err
		}
		var rows []string
		best, met, measured := "", false, ""
		least, floor := 0.0, 0.0
		for _, x := range results {
			if x.name == bound {
				floor = x.ratio.median
			}
			rows = append(rows, fmt.Sprintf("%s | %.2f | %.2f (%.2f to %.2f) | %s | %d | %s", x.name, x.hits, x.ratio.median, x.ratio.p10, x.ratio.p90, duration(x.ns.median), x.conns, x.wrong))
			text := fmt.Sprintf("%.2f hits, %.2f ×, %d connections", x.hits, x.ratio.median, x.conns)
			switch {
			case x.name == ours:
				measured, met = text, x.wrong == "" && x.hits == 1 && x.ratio.median <= 1.3 && x.conns == 1
			case x.name != noAuth && x.name != bound && x.wrong == "" && (best == "" || x.ratio.median < least):
				best, least = x.name+": "+text, x.ratio.median
			}
		}
		r.printf("%s:\n\n", name)
		r.table("who | server hits a request | × no auth | time | connections | wrong", rows)
		r.judge(name, "1.0 hits, at most 1.3 × no auth, 1 connection", met, fmt.Sprintf("%s (bound: %.2f ×)", measured, floor), best)
	}
	return nil
}

func stormRows(r *report, e effort) error {
	r.printf("## Storms\n\nToken requests and failed requests; a fetch takes 20 ms. The worst of %d runs. The leader who is cancelled does not count as failed. "+
		"oauth2 does not answer a 401. oras's credentials cannot rotate.\n\n", e.repeat)
	for _, s := range storms {
		worst := map[string]stormResult{}
		for range e.repeat {
			results, err := stormRow(s)
			if err != nil {
				return err
			}
			for _, x := range results {
				w := worst[x.name]
				worst[x.name] = stormResult{x.name, max(w.tokenRequests, x.tokenRequests), max(w.failures, x.failures)}
			}
		}
		var rows, right []string
		for name, x := range inOrder(worst) {
			rows = append(rows, fmt.Sprintf("%s | %d | %d", name, x.tokenRequests, x.failures))
			if name != ours && x.failures == 0 {
				right = append(right, fmt.Sprintf("%s: %d", name, x.tokenRequests))
			}
		}
		if len(right) == 0 {
			right = append(right, "none does it right")
		}
		r.printf("%s:\n\n", s.name)
		r.table("who | token requests | failures", rows)
		our := worst[ours]
		r.judge("Storm: "+s.name, "1 token request, no failure", our.tokenRequests == 1 && our.failures == 0,
			fmt.Sprintf("%d, %d failures", our.tokenRequests, our.failures), strings.Join(right, ", "))
	}
	return nil
}

func uploadRows(r *report, e effort) error {
	r.printf("## An upload of %s that can be read once, Digest\n\nEach peer in a process of its own. Resident is the most memory over what the process had before. "+
		"The server reads what it refuses, unless it is asked before. The first request of a client: it knows no nonce.\n\n", size(float64(e.size)))
	results, err := uploadRow(e)
	if err != nil {
		return err
	}
	var rows []string
	least, best := int64(0), ""
	var our uploadResult
	for _, x := range results {
		state := ""
		if x.wrong != "" {
			state = "**wrong**: " + x.wrong
		}
		rows = append(rows, fmt.Sprintf("%s | %s | %s | %d | %.2f s | %s", x.name, size(float64(x.resident)), size(float64(x.wire)), x.requests, x.seconds, oneLine(state)))
		switch {
		case x.name == ours:
			our = x
		case x.name != noAuth && x.wrong == "" && (best == "" || x.resident < least):
			least, best = x.resident, fmt.Sprintf("%s: +%s, %s, %d requests", x.name, size(float64(x.resident)), size(float64(x.wire)), x.requests)
		}
	}
	r.table("who | resident | on the wire | requests | time | remarks", rows)
	r.judge("Upload of "+size(float64(e.size)), "at most 24 MiB resident, sent once, 2 requests",
		our.wrong == "" && our.resident <= 24<<20 && our.wire <= e.size+e.size/100 && our.requests == 2,
		fmt.Sprintf("+%s, %s, %d requests", size(float64(our.resident)), size(float64(our.wire)), our.requests), best)
	return nil
}

func latencyRows(r *report, e effort) error {
	r.printf("## Latency while tokens expire\n\nTokens live %v, the token endpoint takes %v, the API %v; %d requests a second for %v, sent when they are due, measured from then. "+
		"The best of %d runs by turns, as whatever else the machine does only adds to it; most token requests and failures of all. oauth2 needs its lead set: its own of 10 s is longer than the tokens live.\n\n", tokenLife, endpointTime, serviceTime, e.rate, e.length, e.repeat)
	results := latencyRow(e)
	var rows, peers []string
	var our latencyResult
	for _, x := range results {
		rows = append(rows, fmt.Sprintf("%s | %.2f | %s | %s to %s | %.0f | %.0f", x.name, x.ratio, duration(x.least), duration(x.p99.p10), duration(x.p99.p90), x.tokenRequests, x.failures))
		switch x.name {
		case ours:
			our = x
		case noExpiry:
		default:
			peers = append(peers, fmt.Sprintf("%s: %.1f ×, %.0f", x.name, x.ratio, x.tokenRequests))
		}
	}
	r.table("who | × no expiry | p99 | p99 of the runs | token requests | failures", rows)
	limit := 14 * e.length.Seconds() / thorough.length.Seconds()
	r.judge("p99 while tokens expire", "at most 1.2 × no expiry, 14 token requests in 2 s", our.failures == 0 && our.ratio <= 1.2 && our.tokenRequests <= limit,
		fmt.Sprintf("%.2f ×, %.0f token requests", our.ratio, our.tokenRequests), strings.Join(peers, "; "))
	return nil
}

func growthAndFootprints(r *report, e effort) error {
	growths, err := growthRows(e)
	if err != nil {
		return err
	}
	r.growths = slices.Clone(growths)
	var rows []string
	for _, f := range footprints() {
		rows = append(rows, fmt.Sprintf("%s | %s", f.name, size(f.bytes)))
	}
	r.printf("## Memory for each origin that is remembered\n\nThe heap with 10,000 origins. What is remembered of all origins together is bounded by 64 MiB.\n\n")
	r.table("who | memory", rows)
	return nil
}
