// Package thorough says how much a test tries. Somebody waits for "go test ./...", so it tries enough to find what breaks at once;
// .ci/run sets AUTHRETRY_TESTS=all, and tries all.
package thorough

import "os"

// Or returns many if all is to be tried, else few. What a test requires must hold for both. It is called by the test itself, since the
// go command runs a test again for another environment only if the test looks at it.
func Or[T any](many, few T) T {
	if os.Getenv("AUTHRETRY_TESTS") == "all" {
		return many
	}
	return few
}
