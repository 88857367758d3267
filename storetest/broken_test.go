package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
)

// broken are the flaws of a fileStore, and the clauses that each breaks; first the one that takes longest.
var broken = []struct {
	flaw   string
	clause clause
}{
	{"has a lock that stays", clauseFreed},
	{"takes no lock", clauseKeepsOut},
	{"loses patience", clauseKeepsOut},
	{"keeps out its own process", clauseKeepsOut},
	{"reads before it has the lock", clauseCurrent},
	{"locks for reading", clauseLockFree},
	{"does not look while it waits", clauseUnless},
	{"goes on after it has seen enough", clauseEnough},
	{"is empty where there is nothing", clauseNone},
	{"waits for ever", clauseObeys},
	{"calls twice", clauseCalls},
	{"saves what has failed", clauseFails},
	{"hides the error", clauseFails},
	{"saves under the context alone", clauseEnded},
	{"does not compare", clauseCompares},
	{"confirms always", clauseConfirm},
	{"confirms a lost lock", clauseConfirm},
	{"confirms when it is over", clauseConfirm},
	{"confirms what has changed", clauseRoom},
	{"hides that it cannot write", clauseSafe},
	{"returns too early", clauseSaves},
	{"forgets the lock of a panic", clauseFree},
	{"writes in place", clauseWhole},
	{"reads no scopes", clauseWhole},
	{"takes a logout for nothing", clauseLogout},
	{"takes nothing for a logout", clauseVanished},
	{"takes damage for nothing", clauseDamage},
	{"removes damage", clauseDamage},
	{"quotes damage", clauseErrors},
	{"shows what it has saved in errors", clauseErrors},
	{"shows what it has", clauseShown},
	{"takes a newer version for damage", clauseNewer},
	{"has everybody log in", clauseLoginLock},
	{"has refreshes wait for a login", clauseLoginLock},
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
	for _, b := range broken {
		t.Run(b.flaw, func(t *testing.T) {
			t.Parallel()
			o := optionsFor(t, b.flaw)
			switch b.flaw {
			case "has a lock that stays":
				o.Spoil = nil // which keeps the lock from being removed, too
			case "keeps out its own process":
				o.TakeLock = nil // which has no file
			}
			order := slices.Clone(cases)
			if b.clause == clauseLoginLock {
				slices.Reverse(order) // it is the last that finds it
			}
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
				for _, c := range order {
					if k.run(c); isFound(k) {
						attempt = 3
						break // which is what it is about: what else follows takes time
					}
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
