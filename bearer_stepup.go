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

// StepUp returns for which reason c asks for another kind of token than the one that was refused: [ReasonInsufficientScope]
// (insufficient_scope, RFC 6750 §3.1), [ReasonInsufficientLogin] (insufficient_user_authentication, RFC 9470 §3) or
// [ReasonCredentialsRefused] (insufficient_claims, as Microsoft Entra has it). It returns 0 if c is nil, or asks for nothing
// of that kind. Only those who implement a [Scheme] need it.
func (c *Challenge) StepUp() Reason {
	if c == nil {
		return 0
	}
	switch c.Params.Get("error") {
	case "insufficient_scope":
		return ReasonInsufficientScope
	case "insufficient_user_authentication":
		return ReasonInsufficientLogin
	case "insufficient_claims":
		return ReasonCredentialsRefused
	}
	return 0
}

// AnswersForbidden reports whether a challenge that comes with 403 is to be answered as if it had come with 401.
func (b *Bearer) AnswersForbidden(c *Challenge) bool { return b.StepUp && c.StepUp() != 0 }

// stepUp returns a token that meets the challenge c, in place of the one that was refused.
func (b *Bearer) stepUp(ctx context.Context, src *sourceInUse, refused string, c *Challenge) (*oauth2.Token, error) {
	if !b.StepUp {
		return nil, cannotStepUp(c.StepUp(), nil)
	}
	tokens, ok := src.TokenSource.(*TokenSource)
	if !ok {
		return nil, cannotStepUp(c.StepUp(), fmt.Errorf("authretry: Bearer.StepUp needs a TokenSource, and the source is of type %T", src.TokenSource))
	}
	return tokens.StepUp(ctx, refused, c, b.ScopeFilter)
}

// StepUp returns a token that meets a challenge for which Challenge.StepUp has a reason, in place of the access token refused,
// which may be "". Scopes that the challenge asks for go through filter first, unless that is nil.
//
// If there is no such token, or one that the challenge does not describe, the error wraps [ErrUnsupportedChallenge] and a
// [*Rejection] that says why, so that the Answer of a [Scheme] can return it as it is. Only those who implement one need it.
func (s *TokenSource) StepUp(ctx context.Context, refused string, c *Challenge, filter func(scopes []string) []string) (*oauth2.Token, error) {
	reason := c.StepUp()
	if reason == 0 {
		return nil, ErrUnsupportedChallenge
	}
	r, err := wanted(refused, c, filter)
	if err == nil && refused == "" {
		err = s.isForAnother(originIn(ctx))
	}
	if err != nil {
		return nil, cannotStepUp(reason, err)
	}
	t, err := s.Obtain(ctx, r)
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

// isForAnother returns an error if the current token is for a resource at another origin than by, which has no say in what it is good for.
func (s *TokenSource) isForAnother(by origin) error {
	k := s.current.Load()
	if k == nil || by == (origin{}) {
		return nil
	}
	if only := originOfResource(RecordOf(k.token).Resource); only != nil && *only != by {
		return errForAnother(only)
	}
	return nil
}

// cannotStepUp is the error for a challenge to which there is no better token. The refusal goes to the caller.
func cannotStepUp(reason Reason, why error) error {
	return fmt.Errorf("%w: %w", ErrUnsupportedChallenge, &Rejection{Reason: reason, Err: why})
}

// wanted returns what a challenge asks for. An error says why that cannot be asked for.
func wanted(refused string, c *Challenge, filter func([]string) []string) (r TokenRequest, err error) {
	r.Challenge = c
	switch c.StepUp() {
	case ReasonInsufficientScope:
		named := strings.Fields(c.Params.Get("scope"))
		r.Scopes = named
		if filter != nil {
			r.Scopes = filter(named)
		}
		switch {
		case len(named) == 0:
			return r, errors.New("authretry: the challenge names no scope")
		case len(r.Scopes) == 0:
			return r, errors.New("authretry: ScopeFilter lets none of the challenge's scopes be asked for")
		case len(r.Scopes) > maxNeedScopes:
			return r, fmt.Errorf("authretry: the challenge names more than %d scopes", maxNeedScopes)
		case slices.ContainsFunc(r.Scopes, func(s string) bool { return !isScope(s) }):
			return r, errors.New("authretry: the challenge has a scope with a character that scopes cannot have (RFC 6749 §3.3)")
		}
	case ReasonCredentialsRefused:
		if refused != "" {
			r.Previous = &oauth2.Token{AccessToken: refused}
		}
		r.Claims, err = decodeClaims(c.Params.Get("claims"))
	default:
		r.ACRValues = strings.Fields(c.Params.Get("acr_values"))
		if age, ok := c.Params.Lookup("max_age"); ok {
			seconds, err := strconv.ParseInt(age, 10, 64)
			switch {
			case err != nil || seconds < 0:
				return r, errors.New("authretry: the challenge has a max_age that is no number of seconds (RFC 9470 §3)")
			case seconds <= maxMaxAge: // or else any login will do
				r.MaxAge, r.HasMaxAge = time.Duration(seconds)*time.Second, true
			}
		}
		if len(r.ACRValues) == 0 && !r.HasMaxAge {
			return r, errors.New("authretry: the challenge does not say which login it asks for (RFC 9470 §3)")
		}
	}
	return r, err
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
