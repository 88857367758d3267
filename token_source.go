package authretry

import "errors"

// ErrTokenRefused means that the server refuses a token that is fresh from the token endpoint.
var ErrTokenRefused = errors.New("authretry: the server refuses a token fresh from the token endpoint")
