package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

// broken are the flaws of a fileStore, the cases that find them, and the clauses that each breaks; first the one that takes longest.
var broken = []struct {
	flaw, by string
	clause   clause
}{
	{"has a lock that stays", "killed at a point", clauseFreed},
	{"takes no lock", "goroutines", clauseKeepsOut},
	{"loses patience", "goroutines", clauseKeepsOut},
	{"keeps out its own process", "processes", clauseKeepsOut},
	{"reads before it has the lock", "goroutines", clauseCurrent},
	{"locks for reading", "waiting", clauseLockFree},
	{"goes on after it has seen enough", "waiting for others' work", clauseEnough},
	{"does not look while it waits", "waiting for others' work", clauseUnless},
	{"is empty where there is nothing", "values", clauseNone},
	{"waits for ever", "waiting", clauseObeys},
	{"calls twice", "functions that fail", clauseCalls},
	{"saves what has failed", "functions that fail", clauseFails},
	{"hides the error", "functions that fail", clauseFails},
	{"saves under the context alone", "context that ends", clauseEnded},
	{"does not compare", "values of others", clauseCompares},
	{"confirms always", "confirm", clauseConfirm},
	{"confirms a lost lock", "lock that is lost", clauseConfirm},
	{"confirms when it is over", "lock that is lost", clauseConfirm},
	{"confirms what has changed", "values of others", clauseRoom},
	{"hides that it cannot write", "disk that fails", clauseSafe},
	{"returns too early", "confirm", clauseSaves},
	{"forgets the lock of a panic", "functions that fail", clauseFree},
	{"writes in place", "reading beside writing", clauseWhole},
	{"reads no scopes", "values", clauseWhole},
	{"takes a logout for nothing", "logging out", clauseLogout},
	{"takes nothing for a logout", "values that vanish", clauseVanished},
	{"takes damage for nothing", "damage", clauseDamage},
	{"removes damage", "damage", clauseDamage},
	{"quotes damage", "damage", clauseErrors},
	{"shows what it has saved in errors", "functions that fail", clauseErrors},
	{"shows what it has", "values", clauseShown},
	{"takes a newer version for damage", "damage", clauseNewer},
	{"has everybody log in", "logging in", clauseLoginLock},
	{"has refreshes wait for a login", "logging in", clauseLoginLock},
}

// orElse are the clauses by which a flaw may be found out as well: who does not look while it waits may wait for the lock for longer
// than the limit, beside others who save all the time.
var orElse = map[string]clause{"does not look while it waits": clauseEnough}

// breaches returns the clauses that are broken, going by the errors of a check.
func breaches(errs []error) (broken []clause) {
	for _, err := range errs {
		if b, ok := errors.AsType[*breach](err); ok {
			broken = append(broken, b.clause)
		}
	}
	return broken
}

func TestBrokenStoresAreFoundOut(t *testing.T) {
	t.Parallel()
	for i, b := range broken {
		if i%thorough.Or(1, 3) > 0 {
			continue
		}
		t.Run(b.flaw, func(t *testing.T) {
			t.Parallel()
			o := optionsFor(t, b.flaw)
			o.MaxSize = 64 << 10 // else most of the time goes into the longest Record
			switch b.flaw {
			case "has a lock that stays":
				o.Spoil = nil // which keeps the lock from being removed, too
			case "keeps out its own process":
				o.TakeLock = nil // which has no file
			}
			by := slices.IndexFunc(cases, func(c testCase) bool { return c.name == b.by })
			require.GreaterOrEqual(t, by, 0)
			isFound := func(k *check) bool {
				found := breaches(k.Errs())
				or, ok := orElse[b.flaw]
				return slices.Contains(found, b.clause) || ok && slices.Contains(found, or)
			}
			var k *check
			for attempt := 1; attempt <= 3; attempt++ { // on a busy machine another limit may end a case before it has found it
				k = newCheck(openFile, o)
				k.limit *= time.Duration(attempt * attempt)
				defer k.end()
				if k.run(cases[by]); isFound(k) {
					break
				}
			}
			err := errors.Join(k.Errs()...)
			require.True(t, isFound(k), "%v: %v", b.clause, err)
			require.NotContains(t, err.Error(), secret)
		})
	}
}

func TestMisuseIsSaid(t *testing.T) {
	require.ErrorContains(t, Check(nil, Options{}), "open is nil")
	require.ErrorContains(t, Check(openFile, Options{MaxSize: 10}), "MaxSize")
	failing := func(string) (authretry.TokenStore, error) { return nil, errors.New("no such place") }
	require.ErrorContains(t, Check(failing, Options{}), "no such place")
	require.ErrorContains(t, Check(openFile, Options{NewPlace: func() (string, error) { return "", errors.New("full") }}), "full")
	hooked.Store(false)
	defer hooked.Store(true)
	require.ErrorContains(t, Check(openFile, Options{}), "storetest.Child(open)")
}
