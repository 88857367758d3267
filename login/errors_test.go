package login_test

import (
	"testing"

	"github.com/authretry/authretry/login"
	"github.com/stretchr/testify/require"
)

// An answer that is no error of OAuth 2.0 comes most often from a URL that is wrong. One that may pass does not.
func TestErrorSaysWhatToCheck(t *testing.T) {
	for want, e := range map[string]*login.Error{
		"login: the authorization server answered 404, and names no error that is known; check the URLs of the TokenEndpoint and the Authorization": {Status: 404},
		"login: the authorization server answered 429":                                        {Status: 429},
		"login: the authorization server answered 503":                                        {Status: 503},
		"login: the authorization server has answered with an error":                          {},
		"login: the authorization server answered 400, slow_down":                             {Code: "slow_down", Status: 400},
		"login: the authorization server answered 403, access_denied: the login was declined": {Code: "access_denied", Status: 403},
	} {
		require.EqualError(t, e, want)
	}
}
