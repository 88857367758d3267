// Package thorough says how much a test tries. Somebody waits for "go test ./...", so it tries enough to find what breaks at once;
// .ci/run sets AUTHRETRY_TESTS=all, and tries all.
package thorough

import (
	"flag"
	"os"
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

// Main is a TestMain for packages whose parallel tests wait more than they work: eight of them run at a time, on a machine with few
// cores, too, unless -parallel says otherwise.
func Main(m *testing.M) {
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
