package authretry

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/oauth2"
)

// A FetchFunc gets a new token, from an authorization server or elsewhere. Its context ends when
// [TokenSource.FetchTimeout] is over. It has no values of the caller who caused the refresh, since the token is for all
// callers; under oauth2.HTTPClient it has [TokenSource.HTTPClient]. It must not modify what r points to. A TokenSource does not call it again before it has returned, unless its context has ended or Set has been
// called.
//
// An error that wraps [ErrLoginRequired] is permanent for r.Previous's refresh token. So is an *oauth2.RetrieveError that
// says invalid_grant, invalid_client or unauthorized_client, or has a status of 4xx other than 408, 425 and 429, or a
// status of 2xx and an error code; unless that is temporarily_unavailable, server_error or slow_down. Other errors are
// transient.
//
// The text of an error may end up in the caller's log, so it must not carry a secret. That of an *oauth2.RetrieveError or
// *url.Error, which can, is not used.
type FetchFunc func(ctx context.Context, r TokenRequest) (*oauth2.Token, error)

// A TokenRequest says what a token is for. It is what [TokenSource.Obtain] is asked, and what it asks a [FetchFunc].
type TokenRequest struct {
	// Previous, for Obtain, is the token that a server has refused; only its AccessToken counts. It is nil if none
	// was.
	//
	// For a FetchFunc it is the token to be replaced, refused or not, with the newest refresh token that is known. It is
	// nil if there is none.
	Previous *oauth2.Token

	// Challenge is what the server asked for when it refused Previous, or a request without a token, so also for the very
	// first token: its scope, error, claims or resource_metadata may say what is wanted (RFC 6750 §3, RFC 9728 §5.1).
	// It is nil if there was no challenge, or if it is not what caused the refresh.
	Challenge *Challenge
}

// Format keeps tokens out of everything that package fmt prints.
func (r TokenRequest) Format(f fmt.State, verb rune) { formatShown(f, "authretry.TokenRequest") }

// MarshalJSON keeps tokens out of JSON.
func (r TokenRequest) MarshalJSON() ([]byte, error) { return marshalShown() }

// A demand is what a caller needs, if the current token will not do.
type demand struct {
	refused   string // the access token that a server has refused; "" if none was
	forced    bool   // the current token is to be replaced, although it has not expired
	noFetch   bool   // but only by what another process may have put into the Store
	challenge *Challenge
	attempt   int // of the request, for events; 0 in the background
}

func newDemand(r TokenRequest) demand {
	d := demand{challenge: r.Challenge, attempt: 1}
	if r.Previous != nil {
		d.refused = r.Previous.AccessToken
	}
	if d.refused != "" || r.Challenge != nil {
		d.attempt = 2
	}
	return d
}

// metBy reports whether k is what the caller needs.
func (d *demand) metBy(k *knownToken, now time.Time) bool {
	return !d.forced && k.usable(now) && !d.isRefused(k.token)
}

func (d *demand) isRefused(t *oauth2.Token) bool {
	return d.refused != "" && t.AccessToken == d.refused
}

// noFetchError is the error where only Fetch could help, and is nil.
func (d *demand) noFetchError() error {
	if d.refused != "" {
		return errNoOtherToken
	}
	return errNoFetch
}
