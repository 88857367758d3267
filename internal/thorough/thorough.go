// Package thorough says how much a test tries. Somebody waits for "go test ./...", so it tries enough to find what breaks at once;
// .ci/run sets AUTHRETRY_TESTS=all, and tries all.
package thorough

import (
	"flag"
	"os"
	"runtime/debug"
	"testing"
)

// Or returns many if all is to be tried, else few. What a test requires must hold for both. Call it within a test, not for a variable of
// the package: the go command takes a result from its cache unless it has seen the test look at the environment.
func Or[T any](many, few T) T {
	if os.Getenv("AUTHRETRY_TESTS") == "all" {
		return many
	}
	return few
}

// Main is for TestMain. Eight of the parallel tests run at a time, unless -parallel says otherwise: most of them wait more than they
// work. Unless all is to be tried, garbage is collected less often; a test for which that matters sets it as usual.
func Main(m *testing.M) {
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	if Or(false, true) {
		debug.SetGCPercent(400)
	}
	os.Exit(m.Run())
}
