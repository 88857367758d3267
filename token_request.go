package authretry

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/oauth2"
)

// A FetchFunc gets a new token, from an authorization server or elsewhere. It is called by one goroutine at a time, with
// a context that ends after [TokenSource.FetchTimeout] and carries the values of the context of whoever needed the
// token first. It must not modify what r points to.
//
// An error that wraps [ErrLoginRequired], or is an *oauth2.RetrieveError with a status of 4xx other than 408 and 429,
// is permanent for r.Previous's refresh token; others are transient. The text of an error may end up in the
// caller's log, so it must not carry a secret. That of an *oauth2.RetrieveError or *url.Error, which can, is not used.
type FetchFunc func(ctx context.Context, r TokenRequest) (*oauth2.Token, error)

// A TokenRequest says what a new token is for.
type TokenRequest struct {
	// Previous is the token to be replaced, with the newest refresh token that is known; nil if there is none.
	Previous *oauth2.Token

	// Challenge is the one with which the server refused Previous: its scope, error, claims or resource_metadata may
	// say what is wanted (RFC 6750 §3, RFC 9728 §5.1). It is nil if there was none.
	Challenge *Challenge
}

// Format keeps tokens out of everything that package fmt prints.
func (r TokenRequest) Format(f fmt.State, verb rune) { formatShown(f, "authretry.TokenRequest") }

// MarshalJSON keeps tokens out of JSON.
func (r TokenRequest) MarshalJSON() ([]byte, error) { return marshalShown() }

// A demand says which token a caller needs, if the current one will not do.
type demand struct {
	refusal   bool   // a server has refused a token
	rejected  string // its access token
	forced    bool   // the current one is to be replaced, although it has not expired
	noFetch   bool   // but only by what another process may have put into the Store
	challenge *Challenge
	attempt   int // of the request, for events; 0 in the background
}

// metBy reports whether k is what the caller needs.
func (d *demand) metBy(k *knownToken, now time.Time) bool {
	return !d.forced && k.usable(now) && (!d.refusal || k.token.AccessToken != d.rejected)
}
