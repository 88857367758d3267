package authretry

import (
	"context"

	"golang.org/x/oauth2"
)

// A TokenStore keeps one token for several processes, such as the replicas of a service or the runs of a command, and
// sees to it that one of them refreshes it at a time. Package filestore has one for the processes of a machine, module
// redisstore one for those of many.
//
// A TokenStore must be safe for concurrent use. Its errors must not carry a token. It may have, besides, a method
//
//	Load(ctx context.Context) (*oauth2.Token, error)
//
// that returns the current token, nil if there is none, without waiting for a lock: it saves the lock where another
// process has refreshed already.
type TokenStore interface {
	// Update locks the store, calls fn with its current token, nil if there is none, saves the token that fn returns,
	// unlocks, and returns that token. The lock keeps out all other calls of Update, in all processes.
	//
	// It must read the current token after it has got the lock, and call fn at most once. If fn fails, nothing is
	// saved and the error, or one that wraps it, is returned. If fn returns the token that it was given, nothing need
	// be written. The token must be safe against a crash when Update returns: at any point there is the
	// old one or the new one. It saves access token, token type, refresh token and expiry at least.
	//
	// Update must obey ctx while it waits for the lock, but must not give up for it after fn has returned a token
	// before it has tried to save that: a refresh token that is lost here may be the last one. The lock has to
	// hold for as long as fn takes, which may send a request to the token endpoint.
	Update(ctx context.Context, fn func(ctx context.Context, current *oauth2.Token) (*oauth2.Token, error)) (*oauth2.Token, error)
}

// load returns the Store's current token without locking it, if the Store can do that.
func load(ctx context.Context, s TokenStore) (*oauth2.Token, bool) {
	l, ok := s.(interface {
		Load(ctx context.Context) (*oauth2.Token, error)
	})
	if !ok {
		return nil, false
	}
	t, err := l.Load(ctx)
	return t, err == nil // if it failed, so will Update, and say why
}
