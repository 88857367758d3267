package storetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/findings"
)

// An OpenFunc returns a store for a place: each time another one, as another process would have. It is called in the
// processes that the check starts, too.
type OpenFunc func(place string) (authretry.TokenStore, error)

// Options say what a check needs to know of a store besides how to open one. The zero Options are for a store that keeps a
// login in a file, with a lock that ends with its process.
type Options struct {
	// NewPlace returns a place where nothing is stored yet, each time another one. If nil, it is the path of a file in a
	// folder of its own, which is removed in the end.
	NewPlace func() (string, error)

	// OneProcess is for a store that one process has for itself. No other processes are started then, and Child is
	// not needed.
	OneProcess bool

	// LockTTL is how long the lock of a process that was killed may stay. The check waits for it several times, and
	// holds the lock for longer than that, so it should be less than a second. 0 means that it ends with the process.
	LockTTL time.Duration

	// MaxSize is how many bytes a Record may have, as Encode makes it. 0 means as many as Encode allows, 1 MiB.
	MaxSize int

	// Put puts a value where the Record is, whoever has the lock, in the store's own form if it is one that
	// Encode has made. If the store's lock keeps others from writing at all, Put returns when ctx ends, with its error.
	// If nil, it is not checked what becomes of damaged values, nor whether a Record is compared before it is replaced.
	Put func(ctx context.Context, place string, value []byte) error

	// Find reports whether a value that Put has put there is still there, or has been kept elsewhere. If nil, that
	// is not checked.
	Find func(ctx context.Context, place string, value []byte) (bool, error)

	// Remove removes the Record, as somebody would who deletes a file or a row. It may fail when ctx ends, as Put may. If nil,
	// it is not checked what becomes of that.
	Remove func(ctx context.Context, place string) error

	// TakeLock ends the lock of whoever has it, without that one's knowledge, as when it has expired. If nil, it is not
	// checked what becomes of that.
	TakeLock func(ctx context.Context, place string) error

	// Spoil makes it impossible to save until repair is called: a full disk, a folder that is read-only. If nil, that is not
	// checked.
	Spoil func(ctx context.Context, place string) (repair func() error, err error)

	limit time.Duration // how long a call may take; 0: defaultLimit
}

// defaultLimit is far more than a call takes, also with -race on a busy machine.
const defaultLimit = 30 * time.Second

// Check checks the stores that open returns. It returns nil, or an error for each thing that is wrong, all joined by
// [errors.Join]. If something hangs, it is left behind, and nothing more is checked.
func Check(open OpenFunc, o Options) error {
	k := newCheck(open, o)
	defer k.end()
	for _, c := range cases {
		k.run(c)
	}
	return errors.Join(k.Errs()...)
}

// Run is [Check] with a subtest for each part. What several parts find fails the first of them only.
func Run(t *testing.T, open OpenFunc, o Options) {
	k := newCheck(open, o)
	defer k.end()
	for _, err := range k.Errs() {
		t.Error(err)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, err := range k.run(c) {
				t.Error(err)
			}
		})
	}
}

// A testCase is one part of the check.
type testCase struct {
	name string
	run  func(*check)
}

var cases = []testCase{
	{"values", checkValues},
	{"functions that fail", checkFailures},
	{"context that ends", checkContexts},
	{"waiting", checkWaiting},
	{"waiting for others' work", checkUnless},
	{"goroutines", checkGoroutines},
	{"reading beside writing", checkReading},
	{"confirm", checkConfirm},
	{"lock that is lost", checkLostLock},
	{"values of others", checkPut},
	{"values that vanish", checkRemoved},
	{"disk that fails", checkSpoiled},
	{"damage", checkDamage},
	{"logging out", checkLogout},
	{"token sources", checkSources},
	{"processes", checkProcesses},
	{"killed at a point", checkKilled},
	{"killed at random", checkKilledAtRandom},
	{"logging in", checkLoginLock},
}

// A check is one call of Check or Run.
type check struct {
	Options
	open    OpenFunc
	folders []string   // to be removed
	opening sync.Mutex // an OpenFunc need not be safe for concurrent use

	findings.List
}

func newCheck(open OpenFunc, o Options) *check {
	k := &check{Options: o, open: open}
	if k.limit == 0 {
		k.limit = defaultLimit
	}
	if k.MaxSize == 0 {
		k.MaxSize = 1 << 20
	}
	switch {
	case open == nil:
		k.misused("open is nil")
	case k.MaxSize < 1<<10:
		k.misused("Options.MaxSize is too small for a login")
	case !o.OneProcess && !hooked.Load():
		k.misused("TestMain does not call storetest.Child(open), which the other processes need; see Options.OneProcess for a store without any")
	}
	return k
}

// end removes what the check has made.
func (k *check) end() {
	for _, folder := range k.folders {
		_ = os.RemoveAll(folder)
	}
}

// run runs a case, and returns the errors that are new.
func (k *check) run(c testCase) []error {
	known := len(k.Errs())
	if !k.IsStopped() {
		done := make(chan struct{})
		go func() { // a case may end its goroutine
			defer close(done)
			c.run(k)
		}()
		<-done
	}
	return k.Errs()[known:]
}

// newPlace returns a place where nothing is stored yet. If there is none, it ends the case.
func (k *check) newPlace() string {
	if k.NewPlace == nil {
		return filepath.Join(k.newFolder(), "login")
	}
	place, err := k.NewPlace()
	if err != nil {
		k.misused("Options.NewPlace failed: %v", err)
		runtime.Goexit()
	}
	return place
}

// newFolder returns a folder of the check's own.
func (k *check) newFolder() string {
	folder, err := os.MkdirTemp("", "storetest-")
	if err != nil {
		k.misused("there is no folder for the test: %v", err)
		runtime.Goexit()
	}
	k.folders = append(k.folders, folder)
	return folder
}

// storeAt opens a store. If that fails, it ends the case.
func (k *check) storeAt(place string) store {
	k.opening.Lock()
	defer k.opening.Unlock()
	s, err := k.open(place)
	if err != nil || s == nil {
		k.misused("open failed: %v, %v", s, err)
		runtime.Goexit()
	}
	return store{k, s}
}

// broken reports that a clause is broken, once for each thing that was seen.
func (k *check) broken(c clause, format string, args ...any) {
	seen := fmt.Sprintf(format, args...)
	if hasSecret(seen) {
		seen = strings.NewReplacer(secrets()...).Replace(seen)
	}
	k.Report(&breach{c, seen})
}

// misused reports that the check cannot be made.
func (k *check) misused(format string, args ...any) {
	k.Report(fmt.Errorf("storetest: "+format, args...))
	k.Stop()
}

// in runs do, and reports that a clause is broken if it takes longer than limit: then it is left behind, and the case ends.
func (k *check) in(limit time.Duration, c clause, what string, do func()) {
	done := make(chan struct{})
	var panicked any
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		do()
	}()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case <-done:
		if panicked != nil {
			k.broken(clausePanic, "%s panicked: %v", what, panicked)
			k.Stop()
			runtime.Goexit()
		}
		if k.IsStopped() { // something within it hangs
			runtime.Goexit()
		}
	case <-timeout.C:
		k.broken(c, "%s has not returned after %v", what, limit)
		k.Stop()
		runtime.Goexit()
	}
}
