package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNetHTTP runs net/http's own tests, those of the installed Go, with a Transport around every RoundTripper: whatever
// passes with a wrapper that only copies the request has to pass with a Transport.
//
// Some of them fail with any wrapper now and then, since http.Client has another, racy way to time out where the
// RoundTripper is not an *http.Transport. And those that expect a header exactly fail if there is a key in it.
func TestNetHTTP(t *testing.T) {
	tests := buildNetHTTPTests(t)
	t.Run("Basic", func(t *testing.T) { tests.compare(t, "clone", "basic") })
	t.Run("APIKey", func(t *testing.T) { tests.compare(t, "cloneWithKey", "apiKey") })
}

// needOwnRequest matches the tests that wait for ever with any wrapper that copies the request: they call the deprecated
// Transport.CancelRequest, which has to be given the very request that the http.Transport got.
const needOwnRequest = "TestTransportAndServerSharedBodyRace/h1|TestTransportCancelRequest/.*/TransportCancel"

// netHTTPTests are the compiled tests of net/http.
type netHTTPTests struct {
	program string
	dir     string // where they find their testdata
}

// compare fails for each test that passes with the wrapper called clone, but not with the one called ours. Many of the
// tests depend on the time that things take; so where the two differ, ten more runs decide.
func (n netHTTPTests) compare(t *testing.T, clone, ours string) {
	const all, decisive = ".", 10
	without := n.run(t, clone, all, 1)
	t.Logf("with %s, %v", clone, without)
	with := n.run(t, ours, all, 1)
	t.Logf("with %s, %v", ours, with)
	require.Positive(t, with.passed["TestIsWrapped"], "requests have no credentials: they do not go through a Transport")

	suspects := with.worseThan(without, 1)
	if len(suspects) == 0 {
		return
	}
	again := alternatives(suspects)
	without, with = n.run(t, clone, again, decisive), n.run(t, ours, again, decisive)
	for _, test := range with.worseThan(without, decisive) {
		t.Errorf("%s passes %d times of %d; with %s, always. It said:\n%s", test, with.passed[test], decisive, clone, with.output[test])
	}
}

// run runs the tests that match, each so many times, with one of the wrappers of testdata/nethttp.
func (n netHTTPTests) run(t *testing.T, wrapper, match string, times int) *netHTTPRun {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "test2json", n.program, "-test.v=test2json", "-test.short",
		"-test.timeout=1m", "-test.count="+strconv.Itoa(times), "-test.run="+match, "-test.skip="+needOwnRequest)
	cmd.Dir = n.dir
	cmd.Env = append(os.Environ(), "AUTHRETRY_WRAP="+wrapper)
	events, err := cmd.Output()
	if _, failed := errors.AsType[*exec.ExitError](err); !failed {
		require.NoError(t, err)
	}
	r := &netHTTPRun{passed: map[string]int{}, failed: map[string]int{}, output: map[string]string{}}
	for decoder := json.NewDecoder(bytes.NewReader(events)); ; {
		var e testEvent
		err := decoder.Decode(&e)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		r.add(e)
	}
	if summary := r.output[""]; !strings.HasSuffix(summary, "PASS\n") && !strings.HasSuffix(summary, "FAIL\n") {
		stacks := strings.SplitN(r.panic.String(), "\n\ngoroutine ", 3)
		t.Fatalf("with %s, %v; and the tests broke off: %s", wrapper, r, strings.Join(stacks[:min(2, len(stacks))], "\n\ngoroutine "))
	}
	return r
}

// A testEvent is what test2json says of a test, or of them all if there is no name.
type testEvent struct{ Action, Test, Output string }

// A netHTTPRun is what came of running tests, each possibly several times.
type netHTTPRun struct {
	passed, failed map[string]int
	output         map[string]string // up to the first failure
	panic          strings.Builder   // what came from the panic on, if there was one
}

func (r *netHTTPRun) add(e testEvent) {
	switch e.Action {
	case "run":
		if r.failed[e.Test] == 0 {
			r.output[e.Test] = ""
		}
	case "pass":
		r.passed[e.Test]++
	case "fail":
		if r.panic.Len() == 0 { // test2json has it that a panic is of the test that it heard of last
			r.failed[e.Test]++
		}
	case "output":
		if r.failed[e.Test] == 0 && len(r.output[e.Test]) < 64<<10 { // one that loops has more to say than anybody reads
			r.output[e.Test] += e.Output
		}
		if r.panic.Len() > 0 || strings.HasPrefix(e.Output, "panic: ") || strings.HasPrefix(e.Output, "fatal error: ") {
			r.panic.WriteString(e.Output)
		}
	}
}

// worseThan returns the tests that passed every time in the other run, of so many, but in this one at most every other time.
func (r *netHTTPRun) worseThan(other *netHTTPRun, times int) []string {
	worse := map[string]int{}
	for test, passed := range other.passed {
		if passed == times && r.passed[test] <= times/2 {
			worse[test] = passed
		}
	}
	return innermost(worse)
}

func (r *netHTTPRun) String() string {
	return strconv.Itoa(len(r.passed)) + " tests pass; failing: " + strings.Join(innermost(r.failed), " ")
}

// innermost returns the names in order, without those of tests whose subtests are there.
func innermost(tests map[string]int) []string {
	inner := maps.Clone(tests)
	delete(inner, "") // the whole of them
	for name := range tests {
		for i, c := range name {
			if c == '/' {
				delete(inner, name[:i])
			}
		}
	}
	return slices.Sorted(maps.Keys(inner))
}

// alternatives returns a pattern that matches the tests, with those around them.
func alternatives(tests []string) string {
	var tops []string
	for _, test := range tests {
		top, _, _ := strings.Cut(test, "/")
		tops = append(tops, top)
	}
	return "^(" + strings.Join(slices.Compact(tops), "|") + ")$"
}
