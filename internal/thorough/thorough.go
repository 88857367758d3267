// Package thorough says how much a test tries. Somebody waits for "go test ./...", so it tries enough to find what breaks at once;
// .ci/run sets AUTHRETRY_TESTS=all, and tries all.
package thorough

import "os"

var all = os.Getenv("AUTHRETRY_TESTS") == "all"

// Or returns many if all is to be tried, else few. What a test requires must hold for both.
func Or[T any](many, few T) T {
	if all {
		return many
	}
	return few
}
