package otelauthretry

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// Values of error.type besides the reasons of a Rejection, the codes of token endpoints, and their status codes.
const (
	typeLoginRequired = "login_required"
	typeNotSaved      = "not_saved"
	typeTokenRefused  = "token_refused"
	typeTimeout       = "timeout"
	typeCanceled      = "canceled"
	typeOther         = "_OTHER" // as the conventions have it
)

// codes are what token endpoints say (RFC 6749 §5.2, RFC 8628 §3.5, RFC 8707 §2, RFC 9449 §5, and GitHub). A server could write anything else
// there, so anything else counts by the status.
var codes = []string{"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
	"access_denied", "expired_token", "invalid_target", "invalid_dpop_proof", "use_dpop_nonce", "server_error", "temporarily_unavailable", "bad_refresh_token"}

// errorType returns what went wrong in a word of a fixed set; "" if nothing did.
func errorType(e *authretry.Event) string {
	switch {
	case e.Kind == authretry.EventDone || e.Kind == authretry.EventRefused:
		if errors.Is(e.Err, authretry.ErrLoginRequired) {
			return typeLoginRequired
		}
		if e.Reason != 0 {
			return strings.ToLower(strings.ReplaceAll(e.Reason.String(), " ", "_"))
		}
	case errors.Is(e.Err, authretry.ErrNotSaved):
		return typeNotSaved
	}
	if e.Err == nil {
		return ""
	}
	return causeType(e.Err)
}

func causeType(err error) string {
	var timeout interface{ Timeout() bool }
	r, isAnswer := errors.AsType[*oauth2.RetrieveError](err)
	switch {
	case isAnswer && slices.Contains(codes, r.ErrorCode):
		return r.ErrorCode
	case isAnswer && r.Response != nil && r.Response.StatusCode >= 100 && r.Response.StatusCode <= 999:
		return strconv.Itoa(r.Response.StatusCode)
	case errors.Is(err, authretry.ErrLoginRequired):
		return typeLoginRequired
	case errors.Is(err, authretry.ErrTokenRefused):
		return typeTokenRefused
	case errors.Is(err, context.Canceled):
		return typeCanceled
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return typeTimeout
	}
	return typeOther
}

// isNoRefresh reports whether a refresh has ended before it began: the server has to say first what it wants.
func isNoRefresh(err error) bool { return errors.Is(err, authretry.ErrChallengeRequired) }
