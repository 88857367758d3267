package authretry

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/oauth2"
)

// A FetchFunc gets a new token, from an authorization server or elsewhere. Its context ends when
// [TokenSource.FetchTimeout] is over. It has no values of the caller who caused the refresh, since the token is for all
// callers; under oauth2.HTTPClient it has [TokenSource.HTTPClient]. It must not modify what r points to. A TokenSource does not
// call it again before it has returned, even if its context has ended, but for another refresh token, as after Set.
//
// If it returns a token and an error, the token's refresh token is kept, and nothing else of it. An answer without a refresh token leaves the one that there was (RFC 6749 §6). A FetchFunc must not call Set or Logout of its
// TokenSource if that has a Store, whose lock it would wait for.
//
// An error that wraps [ErrLoginRequired] is permanent for r.Previous's refresh token. So is an *oauth2.RetrieveError that
// says invalid_grant, or bad_refresh_token as GitHub does. Without a refresh token, it is tried again after 30 s to 5 min, as is
// one that says invalid_client or unauthorized_client, which concerns the client, and, also with a refresh token, one that wants a person to
// log in or to agree: interaction_required, login_required or consent_required. All other errors are transient. An error
// in answer to a request that wants something besides what there was (Scopes, Claims, ACRValues, MaxAge) goes to those who
// wanted it, and concerns nobody else; but for one that says that the token endpoint is out of order: an *oauth2.RetrieveError with
// status 429 or 5xx, a net.Error, as a *url.Error is, or the end of its context.
//
// One that wraps [ErrChallengeRequired], where r.Challenge is nil, has the request sent without a token, to see what the server
// asks for.
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

	// Challenge is what the server asked for when it refused Previous, or a request without a token, so with [Bearer.NotAhead]
	// also for the very first token: its scope, error, claims or resource_metadata may say what is wanted (RFC 6750 §3, RFC 9728
	// §5.1). It is nil if there was no challenge, or if it is not what caused the refresh.
	Challenge *Challenge

	// URL is that of the request that was refused with Challenge, without user info, query and fragment; "" if Challenge is nil.
	// RemoteAddr is the address and port of the server that refused it, as [WantsRemoteAddr] says, if a [Bearer.Source] has a Login,
	// or another Scheme has asked for it.
	URL, RemoteAddr string

	// Account is for whom the token is wanted, as Transport.Account says, if that is known. For a FetchFunc it is that of
	// the caller who caused the refresh.
	Account string

	// Scopes, for Obtain, are what the token must be good for. For a FetchFunc they are what the token to be replaced is good
	// for, as far as that is known, and what is wanted besides; nil means as before (RFC 6749 §3.3, §6).
	Scopes []string

	// Claims are what an issuer is asked for in the claims parameter, a JSON object (OpenID Connect Core §5.5), such as the
	// decoded claims of a challenge with the error insufficient_claims.
	Claims string

	// ACRValues and MaxAge, if HasMaxAge, say how strong and how fresh the user's login must be (RFC 9470 §4). No refresh can
	// help there: TokenSource.Login is asked, also for a token of which it is not known when somebody has logged in for it, as for one
	// from the Store.
	ACRValues []string
	MaxAge    time.Duration
	HasMaxAge bool

	// Background says that nobody waits for the token: no person is to be asked.
	Background bool

	wider bool // Scopes has some for which the token to be replaced is not known to be good
}

func (r *TokenRequest) asksForNothing() bool {
	return len(r.Scopes) == 0 && r.Claims == "" && len(r.ACRValues) == 0 && !r.HasMaxAge
}

// Format keeps tokens out of everything that package fmt prints.
func (r TokenRequest) Format(f fmt.State, verb rune) { formatShown(f, "authretry.TokenRequest") }

// MarshalJSON keeps tokens out of JSON.
func (r TokenRequest) MarshalJSON() ([]byte, error) { return marshalShown() }

// A demand is what a caller needs, if the current token will not do.
type demand struct {
	needs
	background bool   // nobody waits
	refused    string // the access token that a server has refused; "" if none was
	by         origin // whose server that is, as far as that is known
	forced     bool   // the current token is to be replaced, although it has not expired
	noFetch    bool   // but only by what another process may have put into the Store
	challenge  *Challenge
	at         refusedAt // where that came from
	account    string
	attempt    int  // of the request, for events; 0 in the background
	alone      bool // what others have asked for besides has failed: nobody else's needs go with it
	retried    bool // because of what was said to others
	loggedIn   bool // somebody has logged in for it
	anew       bool // somebody is to log in, whatever there is
}

func newDemand(r *TokenRequest) (demand, error) {
	n, err := needsOf(r)
	d := demand{needs: n, challenge: r.Challenge, at: refusedAt{r.URL, r.RemoteAddr}, account: r.Account, attempt: 1}
	if r.Previous != nil {
		d.refused = r.Previous.AccessToken
	}
	if d.refused != "" || r.Challenge != nil {
		d.attempt = 2
	}
	return d, err
}

// metBy reports whether k is what the caller needs.
func (d *demand) metBy(k *knownToken, now time.Time) bool {
	return !d.forced && !d.anew && k.usable(now) && !d.isRefused(k.token) && k.meets(&d.needs, now)
}

// isRenewalOf reports whether k would be what the caller needs, had it not expired.
func (d *demand) isRenewalOf(k *knownToken, now time.Time) bool {
	return k != nil && !k.usable(now) && !d.isRefused(k.token) && k.meets(&d.needs, now)
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
