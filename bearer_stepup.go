package authretry

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// isStepUp reports whether a challenge asks for another kind of token than the one that was refused.
func isStepUp(c *Challenge) bool {
	if c == nil {
		return false
	}
	switch c.Params.Get("error") {
	case "insufficient_scope", "insufficient_user_authentication", "insufficient_claims":
		return true
	}
	return false
}

// answersForbidden reports whether a challenge that comes with 403 is to be answered as if it had come with 401.
func (b *Bearer) answersForbidden(c *Challenge) bool { return b.StepUp && isStepUp(c) }

// stepUp returns a token that meets the challenge c, in place of the one that was refused.
func (b *Bearer) stepUp(ctx context.Context, src *sourceInUse, refused string, c *Challenge) (*oauth2.Token, error) {
	r, reason, err := b.wanted(refused, c)
	if err != nil {
		return nil, err
	}
	tokens, ok := src.TokenSource.(*TokenSource)
	if !ok || !b.StepUp {
		return nil, cannotStepUp(reason, nil)
	}
	t, err := tokens.Obtain(ctx, r)
	switch {
	case errors.Is(err, ErrLoginRequired) || errors.Is(err, ErrCredentialsRefused):
		return nil, cannotStepUp(reason, err)
	case err != nil:
		return nil, err
	case t.AccessToken == refused: // it has what is asked for, for all that is known
		return nil, cannotStepUp(reason, errors.New("authretry: the token was granted that already, so another one would not help"))
	}
	return t, nil
}

// cannotStepUp is the error for a challenge to which there is no better token. The refusal goes to the caller.
func cannotStepUp(reason Reason, why error) error {
	return fmt.Errorf("%w: %w", ErrUnsupportedChallenge, &Rejection{Reason: reason, Err: why})
}

// wanted returns what a challenge asks for, and the reason for a refusal of that.
func (b *Bearer) wanted(refused string, c *Challenge) (r TokenRequest, reason Reason, err error) {
	r.Challenge = c
	switch c.Params.Get("error") {
	case "insufficient_scope":
		reason = ReasonInsufficientScope
		r.Scopes = strings.Fields(c.Params.Get("scope"))
		if b.ScopeFilter != nil {
			r.Scopes = b.ScopeFilter(r.Scopes)
		}
		switch {
		case len(r.Scopes) == 0 || len(r.Scopes) > maxNeedScopes:
			err = cannotStepUp(reason, nil)
		case slices.ContainsFunc(r.Scopes, func(s string) bool { return !isScope(s) }):
			err = cannotStepUp(reason, errors.New("authretry: the challenge has a scope with a character that scopes cannot have (RFC 6749 §3.3)"))
		}
	case "insufficient_claims":
		reason = ReasonCredentialsRefused
		if refused != "" {
			r.Previous = &oauth2.Token{AccessToken: refused}
		}
		if r.Claims, err = decodeClaims(c.Params.Get("claims")); err != nil {
			err = cannotStepUp(reason, err)
		}
	default:
		reason = ReasonInsufficientLogin
		r.ACRValues = strings.Fields(c.Params.Get("acr_values"))
		if age, ok := c.Params.Lookup("max_age"); ok {
			seconds, convErr := strconv.ParseInt(age, 10, 64)
			switch {
			case convErr != nil || seconds < 0:
				err = cannotStepUp(reason, errors.New("authretry: the challenge has a max_age that is no number of seconds (RFC 9470 §3)"))
			case seconds <= maxMaxAge: // or else any login will do
				r.MaxAge, r.HasMaxAge = time.Duration(seconds)*time.Second, true
			}
		}
		if err == nil && len(r.ACRValues) == 0 && !r.HasMaxAge {
			err = cannotStepUp(reason, nil)
		}
	}
	return r, reason, err
}

// maxMaxAge is the age of a login in seconds, some 30 years, above which it does not count.
const maxMaxAge = 1e9

// decodeClaims returns the claims of a challenge, which are in base64 or base64url, with padding or without.
func decodeClaims(encoded string) (string, error) {
	if len(encoded) > 2*maxClaims {
		return "", errors.New("authretry: the challenge has claims that are too long")
	}
	text := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(encoded, "="))
	claims, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(claims) == 0 {
		return "", errors.New("authretry: the challenge has claims that are not in base64")
	}
	return mergeClaims("", string(claims))
}
