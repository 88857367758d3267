package authretry

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"

	"golang.org/x/oauth2"
)

// Post sends a form to another endpoint of the same authorization server, in the client's name: that for device logins (RFC 8628
// §3.1), for pushed requests (RFC 9126), or for introspection (RFC 7662). Auth, Proof, HTTPClient, AllowPlaintext and the rules for
// repetitions, redirects and sizes are as for tokens; Params are not sent. The answer is JSON, which is decoded into answer
// as package json does; nil means that it does not matter. An error of the server is an *oauth2.RetrieveError.
func (e *TokenEndpoint) Post(ctx context.Context, to string, form url.Values, answer any) error {
	if !isHTTP(to) {
		return errors.New("authretry: TokenEndpoint.Post was called for what is not an http or https URL")
	}
	if form == nil {
		form = url.Values{}
	}
	got, err := e.send(ctx, to, form, maxTokenRetries)
	switch {
	case err != nil:
		return err
	case got.failure != nil:
		return got.failure
	case answer != nil && json.Unmarshal(got.body, answer) != nil:
		return errUnreadableAnswer
	}
	return nil
}

// Revocation returns a func for [TokenSource.Revoke] that tells the authorization server, at its revocation endpoint, that a
// token is not used any more (RFC 7009): the refresh token, and then the access token, which a server may let live otherwise. One
// that does not revoke access tokens may say so. A token that is known to have been issued elsewhere, or to another client, is
// not sent.
func (e *TokenEndpoint) Revocation(to string) func(context.Context, *oauth2.Token) error {
	return func(ctx context.Context, t *oauth2.Token) error {
		if t == nil {
			return nil
		}
		if err := e.isStranger(t); err != nil {
			return err
		}
		var failed []error
		for _, one := range []struct{ hint, value string }{{"refresh_token", t.RefreshToken}, {"access_token", t.AccessToken}} {
			if one.value == "" {
				continue
			}
			err := e.Post(ctx, to, url.Values{"token": {one.value}, "token_type_hint": {one.hint}}, nil)
			if r, ok := errors.AsType[*oauth2.RetrieveError](err); ok && r.ErrorCode == "unsupported_token_type" && one.hint == "access_token" {
				continue
			}
			failed = append(failed, err)
		}
		return errors.Join(failed...)
	}
}
