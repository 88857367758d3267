package storetest

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The clauses are quoted from the comments that they come from. If one of those was changed on purpose, change the clause
// and what checks it.
func TestClausesAreQuoted(t *testing.T) {
	var contract strings.Builder
	for _, name := range []string{"../token_store.go", "../record.go", "doc.go"} {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		contract.Write(text)
	}
	lines := regexp.MustCompile(`\s*\n\s*//\s*(- )?`)
	words := lines.ReplaceAllString(contract.String(), " ")
	for _, c := range clauses {
		require.True(t, strings.Contains(words, c.text), "%s has changed: it says no more %q", c.of, c.text)
	}
}

// clauses are all there are.
var clauses = []clause{
	clauseOnce, clauseUnless, clauseEnough, clauseConcurrent, clauseErrors, clauseNone, clauseLockFree, clauseNoneThere, clauseSaves, clauseKeepsOut,
	clauseCurrent, clauseCalls, clauseFails, clauseSame, clauseCompares, clauseSafe, clauseConfirm, clauseRoom, clauseObeys,
	clauseEnded, clauseNewer, clauseReturns, clausePanic, clauseFree, clauseWhole, clauseForward, clauseKilled, clauseFreed,
	clauseDamage, clauseLogout, clauseVanished, clauseShown, clauseLoginLock,
}
