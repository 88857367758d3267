package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/registry"
	"github.com/stretchr/testify/require"
)

// What a person reads of an http.Client's error says each thing once.
func TestErrorsSayEachThingOnce(t *testing.T) {
	srv := authtest.NewServer(&authtest.Registry{Username: "Aladdin", Password: "open sesame"})
	defer srv.Close()
	url := srv.URL + "/v2/cave/manifests/latest"
	for want, credentials := range map[string]authretry.CredentialsFunc{
		`the credentials could not be obtained: vault is sealed`: func(context.Context, authretry.CredentialsRequest) (string, string, error) {
			return "", "", errors.New("vault is sealed")
		},
		`the token server refuses the user name or the password (401); put them right`: func(context.Context, authretry.CredentialsRequest) (string, string, error) {
			return "Aladdin", "close barley", nil
		},
	} {
		_, err := (&http.Client{Transport: authretry.New(&registry.Scheme{Credentials: credentials})}).Get(url)
		require.EqualError(t, err, fmt.Sprintf(`Get %q: authretry: the server answered 401: registry: no token from "127.0.0.1" for "repository:cave:pull": %s`, url, want))
	}
}
