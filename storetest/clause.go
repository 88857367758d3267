package storetest

import "fmt"

// A clause is a sentence of the contract, or a part of one, in its own words. A test sees to it that it is still there.
type clause struct {
	of   string // where it is
	text string
}

var (
	clauseOnce       = clause{"TokenStore", "It lets one of them refresh at a time."}
	clauseConcurrent = clause{"TokenStore", "It must be safe for concurrent use."}
	clauseErrors     = clause{"TokenStore", "Its errors must not carry a token."}

	clauseUnless = clause{"TokenStore", "while it waits for the lock it looks at what others save, and shows each new Record to enough"}
	clauseEnough = clause{"TokenStore", "As soon as enough returns true, it returns nil without having called fn."}

	clauseNone     = clause{"TokenStore.Load", "Load returns the current Record, nil if there is none."}
	clauseLockFree = clause{"TokenStore.Load", "It takes no lock, and waits for none."}

	clauseNoneThere = clause{"TokenStore.Update", "calls fn with the current Record, nil if there is none"}
	clauseSaves     = clause{"TokenStore.Update", "saves the Record that fn returns"}
	clauseKeepsOut  = clause{"TokenStore.Update", "The lock keeps out all other calls of Update, in all processes, for as long as fn takes"}
	clauseCurrent   = clause{"TokenStore.Update", "It reads the current Record after it has got the lock"}
	clauseCalls     = clause{"TokenStore.Update", "calls fn at most once."}
	clauseFails     = clause{"TokenStore.Update", "If fn fails, nothing is saved, and the error, or one that wraps it, is returned."}
	clauseSame      = clause{"TokenStore.Update", "If fn returns nil, or what it was given, nothing is written."}
	clauseCompares  = clause{"TokenStore.Update", "if another is there by then, Update fails and leaves that one"}
	clauseSafe      = clause{"TokenStore.Update", "When Update returns nil, the Record is safe against a crash."}
	clauseConfirm   = clause{"TokenStore.Update", "It returns nil only if the lock still holds"}
	clauseRoom      = clause{"TokenStore.Update", "if the Record can be saved then, as far as that can be known"}
	clauseObeys     = clause{"TokenStore.Update", "Update obeys ctx while it waits for the lock."}
	clauseEnded     = clause{"TokenStore.Update", "what fn has returned it tries to save even if ctx has ended"}
	clauseNewer     = clause{"ErrNewerRecord", "A [TokenStore] must not take it for damage."}

	clauseReturns   = clause{"storetest", "Every call returns within thirty seconds, once nobody has the lock."}
	clausePanic     = clause{"storetest", "No call panics, unless its function does."}
	clauseFree      = clause{"storetest", "Whatever its function does, the lock is free afterwards."}
	clauseWhole     = clause{"storetest", "What is read is as it was saved"}
	clauseForward   = clause{"storetest", "never older than what was read before"}
	clauseKilled    = clause{"storetest", "After a process was killed there is the old Record or the new one"}
	clauseFreed     = clause{"storetest", "the lock is free after Options.LockTTL"}
	clauseDamage    = clause{"storetest", "What is no Record is an error, and is kept"}
	clauseLogout    = clause{"storetest", "Logging out is kept like any Record."}
	clauseVanished  = clause{"storetest", "What has vanished is no logout."}
	clauseShown     = clause{"storetest", "Nothing that package fmt or encoding/json makes of a store has a token in it."}
	clauseLoginLock = clause{"storetest", "its lock keeps out all others, ends with its process, and lets refreshes go on"}
)

// A breach is the error for a clause that is broken.
type breach struct {
	clause clause
	seen   string
}

func (b *breach) Error() string {
	return fmt.Sprintf("%s (%s: %q)", b.seen, b.clause.of, b.clause.text)
}
