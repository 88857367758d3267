package authretry

import (
	"context"
	"time"

	"golang.org/x/oauth2"
)

// refreshKey marks the context of a TokenSource's own refreshes.
type refreshKey struct{ *TokenSource }

// A refreshContext is the context of a refresh. What it obtains serves everybody, so it has no values of the caller who
// happened to start it, but for the listener and the marks of refreshes that led to it.
type refreshContext struct {
	context.Context
	source *TokenSource
}

func newRefreshContext(caller context.Context, s *TokenSource) *refreshContext {
	return &refreshContext{caller, s}
}

func (c *refreshContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c *refreshContext) Done() <-chan struct{}       { return nil }
func (c *refreshContext) Err() error                  { return nil }

// Value implements context.Context.
func (c *refreshContext) Value(key any) any {
	switch k := key.(type) {
	case refreshKey:
		if k.TokenSource == c.source {
			return true
		}
		return c.Context.Value(key)
	case listenerKey:
		return c.Context.Value(key)
	}
	if key == oauth2.HTTPClient && c.source.HTTPClient != nil {
		return c.source.HTTPClient
	}
	return nil
}

// caller returns the context of the caller who has started the refresh, with all its values.
func (c *refreshContext) caller() context.Context {
	if own, ok := c.Context.Value(requestKey{}).(context.Context); ok {
		return own
	}
	return c.Context // the caller is not a Transport
}

// explain returns the error of Fetch, and says so if the caller's context has an HTTP client, which the refresh has not
// used.
func (c *refreshContext) explain(err error) error {
	own := c.caller()
	if c.source.HTTPClient == nil && own.Value(oauth2.HTTPClient) != nil {
		return &unusedClientError{err}
	}
	return err
}

type unusedClientError struct{ error }

func (e *unusedClientError) Unwrap() error { return e.error }
