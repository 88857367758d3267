package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/internal/showtest"
	"github.com/authretry/authretry/registry"
	"github.com/stretchr/testify/require"
)

func TestNoTypePrintsASecret(t *testing.T) {
	const secret = showtest.Secret
	good := authtest.NewServer(&authtest.Registry{Username: user, Password: secret})
	defer good.Close()
	used := &registry.Scheme{Credentials: returning(user, secret)}
	resp, err := (&http.Client{Transport: authretry.New(used)}).Get(good.URL + "/v2/a/manifests/latest")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode)
	req := newRequest(t, good.URL+"/v2/a/manifests/latest")
	session, err := used.Start(t.Context(), req)
	require.NoError(t, err)
	require.NotNil(t, session)
	refusal := &http.Response{StatusCode: 401, Header: http.Header{}, Request: req}
	answer, err := used.Answer(t.Context(), nil, refusal)
	require.NoError(t, err)

	bad := authtest.NewServer(&authtest.Registry{Username: user, Password: "another"})
	defer bad.Close()
	failing := &registry.Scheme{Credentials: returning(user, secret)}
	_, refused := (&http.Client{Transport: authretry.New(failing)}).Get(bad.URL + "/v2/a/manifests/latest")
	require.ErrorIs(t, refused, authretry.ErrLoginRequired)
	unwrapped := []any{used, failing, session, answer, refused}
	for err := refused; err != nil; err = errors.Unwrap(err) {
		unwrapped = append(unwrapped, err, fmt.Sprint(err))
	}
	unwrapped = append(unwrapped, &registry.Scheme{Credentials: func(context.Context, authretry.CredentialsRequest) (string, string, error) { return user, secret, nil }})
	showtest.Types(t, ".", map[string]any{"Scheme": unwrapped})
}
