package authretry

import "context"

// A TokenStore keeps one login for several processes, such as the replicas of a service or the runs of a command. It lets one of
// them refresh at a time. Package filestore has one for the processes of a machine, modules sqlstore and redisstore for many
// machines, and keyringstore for a desktop. Most programs take one of these; implement it only for another place, and check that
// with package storetest.
//
// A store that many share should have a method
//
//	UpdateUnless(ctx context.Context, enough func(current *Record) bool, fn func(...) (*Record, error)) error
//
// too, with Update's fn. It is Update, but while it waits for the lock it looks at what others save, and shows each new Record to
// enough, nil if there is none. As soon as enough returns true, it returns nil without having called fn. Then a thousand who
// wait for one token do not take the lock one after the other, to find that there is nothing left to do.
//
// It keeps the only copy of a login, so it must not say that something is saved before it is, nor write over what it has not
// shown. It must be safe for concurrent use. Its errors must not carry a token. [Record.Encode] and [DecodeRecord] are
// how a Record is written.
type TokenStore interface {
	// Load returns the current Record, nil if there is none. It takes no lock, and waits for none.
	Load(ctx context.Context) (*Record, error)

	// Update locks the store, calls fn with the current Record, nil if there is none, saves the Record that fn returns, and
	// unlocks. The lock keeps out all other calls of Update, in all processes, for as long as fn takes, which may send
	// requests to a token endpoint.
	//
	// It reads the current Record after it has got the lock, and calls fn at most once. If fn fails, nothing is saved, and the
	// error, or one that wraps it, is returned. If fn returns nil, or what it was given, nothing is written. Otherwise the
	// Record is saved only in place of the one that fn was given: if another is there by then, Update fails and
	// leaves that one. When Update returns nil, the Record is safe against a crash.
	//
	// Before a refresh token is spent, fn calls confirm, each time. It returns nil only if the lock still holds, by the
	// own clock too, and if the Record can be saved then, as far as that can be known: there is room for it, and the place can
	// be written. It extends the lock.
	//
	// Update obeys ctx while it waits for the lock. But what fn has returned it tries to save even if ctx has ended: a refresh
	// token that is lost here may be the last one.
	Update(ctx context.Context, fn func(ctx context.Context, current *Record, confirm func(context.Context) error) (*Record, error)) error
}

// unlessUpdater is a TokenStore that can do without the lock if somebody else has done the work.
type unlessUpdater interface {
	UpdateUnless(ctx context.Context, enough func(current *Record) bool, fn func(ctx context.Context, current *Record, confirm func(context.Context) error) (*Record, error)) error
}

// updateUnless calls UpdateUnless, or Update if the Store has no such method.
func (s *TokenSource) updateUnless(ctx context.Context, enough func(*Record) bool, fn func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	if u, ok := s.Store.(unlessUpdater); ok {
		return u.UpdateUnless(ctx, enough, fn)
	}
	return s.Store.Update(ctx, fn)
}

// confirmKey is the key of a context that has the confirm function of an Update under way.
type confirmKey struct{}

func (confirmKey) ours() {}

// Confirm returns nil if a refresh token may be spent now, as far as the Store knows (see [TokenStore]), or if there is no Store. A
// [FetchFunc] that sends a refresh token more than once calls it with its own context, before each send but the first. A
// [TokenEndpoint] does so by itself.
func Confirm(ctx context.Context) error {
	if f, ok := ctx.Value(confirmKey{}).(func(context.Context) error); ok {
		return f(ctx)
	}
	return nil
}
