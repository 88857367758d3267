package authretry

import "errors"

// Errors of a TokenSource.
var (
	ErrTokenRefused  = errors.New("authretry: the server refuses a token fresh from the token endpoint")
	ErrLoginRequired = errors.New("authretry: a new login is required")
)

func isTransient(error) bool { return false }
