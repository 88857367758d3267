// Package storetest checks that a TokenStore keeps the contract that package authretry has for it. Whoever writes a
// [authretry.TokenStore] calls [Run] in a test, and [Child] in TestMain, so that the test can start other processes that
// share the store, and kill them:
//
//	func open(place string) (authretry.TokenStore, error) { return &Store{Path: place}, nil }
//
//	func TestMain(m *testing.M) {
//		storetest.Child(open)
//		os.Exit(m.Run())
//	}
//
//	func TestStore(t *testing.T) { storetest.Run(t, open, storetest.Options{}) }
//
// Run it with -race as well: then it finds data races, too. [Check] does the same without a testing.T.
//
// A place is where one login is kept: the path of a file, the address of a server with a key. Each call of open returns
// another store for the same place, as another process would have. The check takes a new place for each of its parts, and
// drives stores there from goroutines and from processes: it holds the lock, gives up waiting for it, reads beside it, lets
// functions fail, panic and end their goroutine, kills processes at each point of an Update, and has TokenSources share,
// refresh and end a login. Each error says what was seen, and quotes the sentence of the contract that is broken.
//
// Some things can be done only by somebody who knows how the store keeps its values: to put a damaged one there, to take the
// lock from its holder, to fill the disk. [Options] has a func for each. What has none is not checked.
//
// # What goes without saying
//
// The contract is in the comments of [authretry.TokenStore]. This is checked besides:
//
//   - Every call returns within thirty seconds, once nobody has the lock.
//   - No call panics, unless its function does. Whatever its function does, the lock is free afterwards.
//   - What is read is as it was saved, and never older than what was read before.
//   - After a process was killed there is the old Record or the new one, and the lock is free after Options.LockTTL.
//   - What is no Record is an error, and is kept: where it was, or under another name.
//   - Logging out is kept like any Record. What has vanished is no logout.
//   - Nothing that package fmt or encoding/json makes of a store has a token in it.
//   - If a store has a LockLogin, its lock keeps out all others, ends with its process, and lets refreshes go on.
//
// What cannot be seen from outside is not checked: whether a Record is safe against a crash of the machine, how a server
// fails over, and which of the errors of a store a person understands.
package storetest
