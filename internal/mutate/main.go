// Mutate changes one guard of a package at a time, and lists those of which no test notices that they are gone:
//
//	go run ./internal/mutate -o internal/mutate/RESULTS.md . ./filestore ./redisstore
//
// A guard is the condition of an if, or of a case in a switch without a value, which never holds then; a call whose result
// nobody uses, which is left out; or a constant whose name begins with max or min, which is a thousand times as large.
//
// Mutants of the first two kinds are compiled together, each behind a switch in the environment. Each test is run once by
// itself, to see which of them it comes by; a mutant is then tried by the tests that come by it, those first that come by few.
// A constant needs a binary of its own, and all tests, for which it has ten times as long. Nothing is written into the tree.
//
// A mutant with which the tests do not end in time is taken to be killed, but is counted: on a machine that is busy it may have
// been only slow. The tests try all that they can (AUTHRETRY_TESTS=all).
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	log.SetFlags(log.Ltime)
	number := flag.Int("n", 0, "how many mutants of each package to try; 0: all")
	seed := flag.Uint64("seed", 1, "for the choice of those")
	files := flag.String("files", "", "only files whose names begin with one of these, with commas between them")
	tried := flag.String("tried", "", "the log of an earlier run of the same sources, whose mutants are left out")
	timeout := flag.Duration("timeout", time.Minute, "for the tests of one mutant, which are taken to have failed then")
	parallel := flag.Int("parallel", 2, "how many mutants to test at a time")
	output := flag.String("o", "", "the file for the result; if empty, standard output")
	flag.Parse()

	var report strings.Builder
	fmt.Fprintf(&report, "# Guards that no test misses\n\n`go run ./internal/mutate %s`, on %s.\n", strings.Join(os.Args[1:], " "), time.Now().UTC().Format("2006-01-02"))
	for _, dir := range flag.Args() {
		mutants, late, survivors, err := mutate(dir, *files, *tried, *number, *seed, *timeout, *parallel)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Fprintf(&report, "\n## %s\n\n%d mutants; with %d of them the tests did not end in time; %d survived.\n\n", dir, mutants, late, len(survivors))
		for _, s := range survivors {
			fmt.Fprintf(&report, "- %s\n", s)
		}
	}
	if *output == "" {
		fmt.Print(report.String())
	} else if err := os.WriteFile(*output, []byte(report.String()), 0o644); err != nil {
		log.Fatal(err)
	}
}

// mutate tries the mutants of a package, and returns how many there were, with how many of them the tests did not end in time, and
// those that no test fails with.
func mutate(dir, files, earlier string, number int, seed uint64, timeout time.Duration, parallel int) (tried, late int, survivors []string, err error) {
	temp, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return 0, 0, nil, err
	}
	defer os.RemoveAll(temp)
	p, err := newPack(dir, files, temp)
	if err != nil {
		return 0, 0, nil, err
	}
	if err := p.build(); err != nil {
		return 0, 0, nil, err
	}
	if err := p.record(timeout); err != nil {
		return 0, 0, nil, err
	}
	mutants, err := untried(p.mutants, earlier)
	if err != nil {
		return 0, 0, nil, err
	}
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(mutants), func(i, j int) { mutants[i], mutants[j] = mutants[j], mutants[i] })
	if number > 0 && len(mutants) > number {
		mutants = mutants[:number]
	}

	var mu sync.Mutex
	var all sync.WaitGroup
	var left []*mutant
	queue := make(chan *mutant)
	for range parallel {
		all.Go(func() {
			for m := range queue {
				started := time.Now()
				outcome := p.try(m, timeout)
				log.Printf("%-9s %6.1fs %s", outcome, time.Since(started).Seconds(), m)
				mu.Lock()
				switch outcome {
				case "survived", "unreached":
					left = append(left, m)
				case "late":
					late++
				}
				mu.Unlock()
			}
		})
	}
	for _, m := range mutants {
		queue <- m
	}
	close(queue)
	all.Wait()
	slices.SortFunc(left, func(a, b *mutant) int { return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line)) })
	for _, m := range left {
		s := m.String()
		if m.number > 0 && len(p.reached[m.number]) == 0 {
			s += " (no test comes by)"
		}
		survivors = append(survivors, s)
	}
	return len(mutants), late, survivors, nil
}

// A mutant is a file with one change.
type mutant struct {
	dir, file string
	line      int
	what      string // the change
	number    int    // the value of MUTANT that makes it, in the binary of all; 0 if it needs one of its own
	source    []byte // the file, if it needs one
}

func (m *mutant) String() string {
	return fmt.Sprintf("%s:%d: %s", filepath.ToSlash(filepath.Join(m.dir, m.file)), m.line, m.what)
}

var isOutcome = regexp.MustCompile(`(?:killed|late|survived|unreached|invalid) +[0-9.]+s (.*)`)

// untried returns the mutants that are not in the log of an earlier run of the same sources.
func untried(mutants []*mutant, earlier string) (left []*mutant, err error) {
	if earlier == "" {
		return mutants, nil
	}
	text, err := os.ReadFile(earlier)
	if err != nil {
		return nil, err
	}
	done := make(map[string]bool)
	for _, line := range isOutcome.FindAllStringSubmatch(string(text), -1) {
		done[line[1]] = true
	}
	return slices.DeleteFunc(slices.Clone(mutants), func(m *mutant) bool { return done[m.String()] }), nil
}

// try runs the tests of one mutant.
func (p *pack) try(m *mutant, timeout time.Duration) (outcome string) {
	binary, batches := p.binary, [][]string{nil}
	if m.number > 0 {
		tests := slices.Clone(p.reached[m.number])
		if len(tests) == 0 {
			return "unreached"
		}
		slices.SortFunc(tests, func(a, b string) int { return cmp.Compare(p.passes[a], p.passes[b]) })
		first, second := min(12, len(tests)), min(72, len(tests))
		batches = [][]string{tests[:first], tests[first:second], tests[second:]}
	} else {
		timeout *= 10
		binary = filepath.Join(p.temp, fmt.Sprintf("%s-%d.test", m.file, m.line))
		defer os.Remove(binary)
		if err := p.compile(binary, map[string][]byte{m.file: m.source}); err != nil {
			return "invalid"
		}
	}
	for _, tests := range batches {
		if m.number > 0 && len(tests) == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		err := p.run(ctx, binary, tests, fmt.Sprint("MUTANT=", m.number))
		overdue := ctx.Err() != nil
		cancel()
		switch {
		case err != nil && overdue:
			return "late"
		case err != nil:
			return "killed"
		}
	}
	return "survived"
}
