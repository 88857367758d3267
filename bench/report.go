package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// A verdict is what a row comes to.
type verdict struct {
	row, target, ours, peer string
	met                     bool
}

// A report collects the rows.
type report struct {
	verdicts []verdict
	detail   strings.Builder
	growths  []growth
}

func (r *report) judge(row, target string, met bool, ours, peer string) {
	r.verdicts = append(r.verdicts, verdict{row, target, ours, peer, met})
}

func (r *report) printf(format string, args ...any) { fmt.Fprintf(&r.detail, format, args...) }

// table prints a heading, a header line and rows. Cells are separated by |.
func (r *report) table(header string, rows []string) {
	r.printf("| %s |\n|%s\n", header, strings.Repeat("---|", strings.Count(header, "|")+1))
	for _, row := range rows {
		r.printf("| %s |\n", row)
	}
	r.printf("\n")
}

// timings prints what compare has found out.
func (r *report) timings(reference string, timings []timing) {
	var rows []string
	for _, t := range timings {
		state := t.remarks
		if t.wrong != "" {
			state = "**wrong**: " + t.wrong
		}
		rows = append(rows, fmt.Sprintf("%s | %.2f (%.2f to %.2f) | %s (%s to %s) | %.0f | %s | %s", t.name,
			t.ratio.median, t.ratio.p10, t.ratio.p90, duration(t.ns.median), duration(t.ns.p10), duration(t.ns.p90), t.allocs, size(t.bytes), oneLine(state)))
	}
	r.table("who | × "+reference+" | time | allocations | bytes | remarks", rows)
}

// bestPeer returns the fastest peer that does the row right.
func bestPeer(timings []timing) string {
	best := timing{}
	for _, t := range timings {
		if t.name == ours || t.name == bound || t.wrong != "" {
			continue
		}
		if best.name == "" || t.ratio.median < best.ratio.median {
			best = t
		}
	}
	if best.name == "" {
		return "none does it right"
	}
	return fmt.Sprintf("%s: %.2f ×, %.0f allocations", best.name, best.ratio.median, best.allocs)
}

// write returns RESULTS.md.
func (r *report) write(took time.Duration) string {
	var b strings.Builder
	b.WriteString(`# Results

Written by ` + "`bench/run.sh`" + `, which runs all of it. Ratios come first: contenders take turns within milliseconds, in an order that changes,
so that whatever else the machine does hits all alike; a ratio is the median of those within each turn, with the tenth and ninetieth
percentile after it. Times are this machine's. Every peer's answer is checked first, and one that does a row wrongly is marked so.

"Bound" is the cheapest correct code that one can imagine: a copy of the request, a clone of its headers and one Set; for Digest that and
the hashes; for the parser a look at each byte, escaped ones too, that tells quoted from unquoted. A scan that skips escaped bytes is faster, and
all ratios of parsers to it higher.

Rows on one goroutine are in processor time of the thread, so the collector's own threads are not in them; those on several in time that passes.

## In short

| row | target | authretry | met | best peer that does it right |
|---|---|---|---|---|
`)
	for _, v := range r.verdicts {
		met := "yes"
		if !v.met {
			met = "**no**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", v.row, v.target, v.ours, met, v.peer)
	}
	b.WriteString("\n")
	b.WriteString(r.detail.String())
	b.WriteString("## Growth\n\n![Growth](growth.svg)\n\n")
	for _, g := range r.growths {
		fmt.Fprintf(&b, "%s, by %s:\n\n| who |", g.title, g.of)
		for _, at := range g.at {
			fmt.Fprintf(&b, " %d |", at)
		}
		b.WriteString("\n|---|" + strings.Repeat("---|", len(g.at)) + "\n")
		for _, s := range g.series {
			fmt.Fprintf(&b, "| %s |", s.name)
			for _, ns := range s.ns {
				fmt.Fprintf(&b, " %s |", duration(ns))
			}
			b.WriteString("\n")
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "## Machine and versions\n\n%s, %d cores, %s/%s, %s; %d seconds in all.\n\n", cpuModel(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), int(took.Seconds()))
	b.WriteString("| module | version |\n|---|---|\n")
	for _, line := range versions() {
		b.WriteString(line)
	}
	return b.String()
}

// cpuModel returns the processor's name, where it can be had.
func cpuModel() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	_, after, _ := strings.Cut(string(info), "model name")
	line, _, _ := strings.Cut(after, "\n")
	if _, name, ok := strings.Cut(line, ":"); ok {
		return strings.TrimSpace(name)
	}
	return "unknown processor"
}

// peerModules are the modules that rows compare.
var peerModules = []string{
	"golang.org/x/oauth2", "github.com/icholy/digest", "github.com/mongodb-forks/digest", "resty.dev/v3", "github.com/distribution/distribution",
	"github.com/google/go-containerregistry", "github.com/modelcontextprotocol/go-sdk", "cloud.google.com/go/auth",
	"github.com/Azure/azure-sdk-for-go/sdk/azcore", "oras.land/oras-go/v2",
}

func versions() (lines []string) {
	info, _ := debug.ReadBuildInfo()
	known := map[string]string{}
	if info != nil {
		for _, dep := range info.Deps {
			known[dep.Path] = dep.Version
		}
	}
	for _, path := range peerModules {
		lines = append(lines, fmt.Sprintf("| %s | %s |\n", path, known[path]))
	}
	return lines
}

// duration writes nanoseconds with three digits.
func duration(ns float64) string {
	switch {
	case ns < 1e3:
		return digits(ns) + " ns"
	case ns < 1e6:
		return digits(ns/1e3) + " µs"
	case ns < 1e9:
		return digits(ns/1e6) + " ms"
	}
	return digits(ns/1e9) + " s"
}

func size(bytes float64) string {
	switch {
	case bytes < 1<<10:
		return digits(bytes) + " B"
	case bytes < 1<<20:
		return digits(bytes/(1<<10)) + " KiB"
	}
	return digits(bytes/(1<<20)) + " MiB"
}

func digits(v float64) string {
	switch {
	case v < 10 && v != float64(int(v)):
		return fmt.Sprintf("%.2f", v)
	case v < 100 && v != float64(int(v)):
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func oneLine(s string) string { return strings.NewReplacer("\n", " ", "|", "/").Replace(s) }
