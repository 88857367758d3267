package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// APIKey sends an API key ahead of any challenge (see [Starter]): as "Authorization: ApiKey K" by default, with another word
// instead of ApiKey if Prefix is set, or in a header of its own, as in "X-API-Key: K", if Header is set.
//
// The key goes over https, or to loopback, unless [Transport.AllowPlaintext] is set. If it is refused, KeyFunc is
// asked once more, and the request retried if the key is another by now. APIKey is safe for concurrent use.
//
// No key is put into the URL, where logs and the errors of http.Client show it. For an API that takes its key in the query
// only, put that into the URLs of your requests, or write a RoundTripper that sends a copy of a request, with the key, to the API's
// origin only.
type APIKey struct {
	// Header is the name of the header, such as "X-API-Key". If empty, it is Authorization. A request that has the
	// header already keeps its own, and gets no key.
	Header string

	// Prefix is put before the key, with a space. If empty, it is "ApiKey" for Authorization, nothing for any other
	// header.
	Prefix string

	// Key is the key, in visible ASCII characters.
	Key string

	// KeyFunc is asked for the key each time that one is sent instead, if it is not nil: for keys that rotate, or that differ from
	// user to user. It gets the request's own context, and what it returns is not remembered. For a proxy, whose
	// connections are everybody's, the context has no values. It should be quick, obey ctx, and be safe for concurrent
	// use.
	KeyFunc func(ctx context.Context, r CredentialsRequest) (string, error)
}

// Name returns the Prefix that goes into Authorization, "ApiKey" by default. It returns the header's name for a
// key in a header of its own, for which there are no challenges.
func (k *APIKey) Name() string {
	place := k.place()
	if place.isAuthorization() {
		return place.prefix
	}
	return place.name()
}

func (k *APIKey) place() headerPlace { return placeOf(k.Header, k.Prefix, "ApiKey") }

// Start implements [Starter].
func (k *APIKey) Start(ctx context.Context, req *http.Request) (Session, error) {
	if isCallers(req.Header, k.place().header) {
		return nil, nil
	}
	session, err := k.session(ctx, req.URL, nil)
	if err != nil {
		return nil, err
	}
	return k.kept(session), nil
}

// Answer implements [Scheme].
func (k *APIKey) Answer(ctx context.Context, c *Challenge, refusal *http.Response) (Session, error) {
	session, err := k.session(ctx, refusal.Request.URL, c)
	if err != nil {
		return nil, err
	}
	if refusal.Request.Header.Get(k.place().header) == session.values[0] {
		return nil, ErrCredentialsRefused
	}
	return k.kept(session), nil
}

// A keySession has a key that KeyFunc has returned for one request.
type keySession struct{ headerSession }

func (keySession) forOneRequest() {}

// kept returns the Session as it may be kept for other requests, or not.
func (k *APIKey) kept(session headerSession) Session {
	if k.KeyFunc != nil {
		return keySession{session}
	}
	return session
}

func (k *APIKey) session(ctx context.Context, u *url.URL, c *Challenge) (headerSession, error) {
	key := k.Key
	if k.KeyFunc != nil {
		own, ok := ctx.Value(requestKey{}).(context.Context)
		if !ok { // not in a Transport
			own = ctx
		}
		var err error
		if key, err = k.KeyFunc(own, CredentialsRequest{Account: AccountOf(ctx), Origin: originOf(u).String(), Challenge: c}); err != nil {
			return headerSession{}, err
		}
	}
	if err := k.check(key); err != nil {
		return headerSession{}, err
	}
	return k.place().session(key), nil
}

func (k *APIKey) check(key string) error {
	switch {
	case key == "":
		return errors.New("authretry: APIKey has no key; set Key or KeyFunc")
	case !isVisible(key):
		return errors.New("authretry: APIKey has a key with a space, a control character or a character outside ASCII")
	}
	return k.place().check("APIKey")
}

// Validate says what is wrong with the fields. See [Transport.Validate].
func (k *APIKey) Validate() error {
	if k.KeyFunc != nil {
		return k.place().check("APIKey")
	}
	return k.check(k.Key)
}

// Format keeps the key out of everything that package fmt prints.
func (k APIKey) Format(f fmt.State, verb rune) {
	formatShown(f, "authretry.APIKey", k.shown()...)
}

// MarshalJSON keeps the key out of JSON.
func (k APIKey) MarshalJSON() ([]byte, error) {
	return marshalShown(k.shown()...)
}

func (k APIKey) shown() []shownField {
	return []shownField{
		shown("Header", k.Header),
		shown("Prefix", k.Prefix),
		redacted("Key", k.Key),
	}
}

// isVisible reports whether s consists of visible ASCII characters.
func isVisible(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
