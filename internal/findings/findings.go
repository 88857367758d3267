// Package findings is what the checks of a contract have in common, those of schemetest and storetest.
package findings

import (
	"slices"
	"sync"
)

// A List is what a check has found. It is safe for concurrent use; the zero value is ready for it.
type List struct {
	mu      sync.Mutex // guards what follows
	found   []error
	stopped bool
}

// Report adds an error, unless one with the same text is there.
func (l *List) Report(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.ContainsFunc(l.found, func(known error) bool { return known.Error() == err.Error() }) {
		l.found = append(l.found, err)
	}
}

// Errs returns what was found so far.
func (l *List) Errs() []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.found)
}

// Stop notes that nothing more can be found out.
func (l *List) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
}

// IsStopped reports whether Stop was called.
func (l *List) IsStopped() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopped
}
