package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// effort says how long measuring takes.
type effort struct {
	rounds int           // in which every contender has a turn
	slice  time.Duration // of a turn
	repeat int           // of whole scenarios: loopback, latency, storms
	size   int64         // of the upload
	header int           // bytes of a hostile header
	length time.Duration // of the latency row
	rate   int           // of the latency row, in requests a second

	replicas  int             // of a fleet, in one process
	processes int             // of a fleet of processes
	endpoints []time.Duration // how long a fleet's token endpoint takes
}

var (
	thorough = effort{rounds: 200, slice: 5 * time.Millisecond, repeat: 5, size: 256 << 20, header: 64 << 10, length: 2 * time.Second, rate: 10_000,
		replicas: 1000, processes: 200, endpoints: []time.Duration{200 * time.Millisecond, 5 * time.Second}}
	brief = effort{rounds: 3, slice: 200 * time.Microsecond, repeat: 1, size: 8 << 20, header: 4 << 10, length: 500 * time.Millisecond, rate: 1_000,
		replicas: 50, processes: 8, endpoints: []time.Duration{100 * time.Millisecond}}
)

// A contender is one way to do what a row is about.
type contender struct {
	name string
	op   func() error
	// check returns what the contender does wrong. If it is nil, op is run once, and must not fail.
	check func() error
}

const (
	ours  = "authretry"
	bound = "bound"
)

// A timing is what compare has found out about a contender.
type timing struct {
	name    string
	wrong   string // what it does wrong; empty if nothing
	ns      spread // for one op
	ratio   spread // to the reference, of the same round
	allocs  float64
	bytes   float64
	remarks string
}

// A spread is a median and the tenth and ninetieth percentile around it.
type spread struct{ p10, median, p90 float64 }

func spreadOf(values []float64) spread {
	v := slices.Sorted(slices.Values(values))
	if len(v) == 0 {
		return spread{}
	}
	at := func(q float64) float64 { return v[int(q*float64(len(v)-1)+0.5)] }
	return spread{at(0.1), at(0.5), at(0.9)}
}

// compare measures the contenders in turns, so that whatever else the machine does hits all alike. In each round every
// one has a slice of time, in an order that changes, and its time is divided by that of the reference in the same
// round. The op runs on so many goroutines at once.
func compare(e effort, goroutines int, reference string, contenders ...contender) ([]timing, error) {
	timings := make([]timing, len(contenders))
	counts := make([]int, len(contenders))
	samples := make([][]float64, len(contenders))
	ref := -1
	for i, c := range contenders {
		timings[i].name = c.name
		if c.name == reference {
			ref = i
		}
		check := c.check
		if check == nil {
			check = c.op
		}
		if err := check(); err != nil {
			timings[i].wrong = err.Error()
		}
		counts[i] = calibrate(e.slice, goroutines, c.op)
		timings[i].allocs, timings[i].bytes = allocations(min(20, counts[i]), c.op)
	}
	if ref < 0 {
		return nil, fmt.Errorf("there is no %q among the contenders", reference)
	}
	for range e.rounds {
		for _, i := range rand.Perm(len(contenders)) {
			elapsed := spend(counts[i], goroutines, contenders[i].op)
			samples[i] = append(samples[i], float64(elapsed)/float64(counts[i]))
		}
	}
	for i := range timings {
		ratios := make([]float64, e.rounds)
		for r := range ratios {
			ratios[r] = samples[i][r] / samples[ref][r]
		}
		timings[i].ns, timings[i].ratio = spreadOf(samples[i]), spreadOf(ratios)
	}
	return timings, nil
}

// calibrate returns how many ops fill a slice.
func calibrate(slice time.Duration, goroutines int, op func() error) int {
	for n := goroutines; ; n *= 2 {
		elapsed := spend(n, goroutines, op)
		if elapsed >= slice || n >= 1<<24 {
			return max(goroutines, int(float64(n)*float64(slice)/float64(elapsed)))
		}
	}
}

// spend returns how long n ops take. An op that fails is the business of its check.
//
// On one goroutine that is the processor time of its thread: neither other processes nor the collector's own threads get
// into it. On several, where one may have to wait for another, it is the time that passes.
func spend(n, goroutines int, op func() error) time.Duration {
	if goroutines == 1 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		start := threadTime()
		for range n {
			op()
		}
		return max(1, threadTime()-start)
	}
	start := time.Now()
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for range (n + g) / goroutines {
				op()
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// threadTime returns how long this thread has run. Getrusage would say it, too, but in ticks of a few milliseconds.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// allocations returns how often and how much an op allocates: the least of three tries, as others allocate, too.
func allocations(n int, op func() error) (count, bytes float64) {
	for try := range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range n {
			op()
		}
		runtime.ReadMemStats(&after)
		c, b := float64((after.Mallocs-before.Mallocs)/uint64(n)), float64(after.TotalAlloc-before.TotalAlloc)/float64(n)
		if try == 0 || c < count {
			count = c
		}
		if try == 0 || b < bytes {
			bytes = b
		}
	}
	return count, bytes
}

func named(timings []timing, name string) timing {
	for _, t := range timings {
		if t.name == name {
			return t
		}
	}
	return timing{name: name, wrong: "not measured"}
}
