package login

import (
	"io"
	"net/url"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/showtest"
	"github.com/stretchr/testify/require"
)

func TestNoTypePrintsASecret(t *testing.T) {
	const secret = showtest.Secret
	s := newServer(t)
	s.deviceSay = map[string]any{"device_code": secret}
	a := s.authorization()
	a.Endpoint.Auth = authretry.SecretPost(secret)
	code, err := a.Code(t.Context(), "http://127.0.0.1/callback")
	require.NoError(t, err)
	code.state, code.verifier = secret, secret
	a.Params, a.Claims = url.Values{"id_token_hint": {secret}}, secret
	device, err := a.Device(t.Context())
	require.NoError(t, err)
	require.Equal(t, secret, device.code)
	showtest.Types(t, ".", map[string]any{
		"Authorization": []any{a, *a},
		"Code":          []any{code, *code},
		"DeviceCode":    []any{device, *device},
		"Browser":       &Browser{Out: io.Discard, Open: agree},
		"Device":        &Device{Out: io.Discard},
		"Error":         &Error{Code: "access_denied"},
	}, "Flow")
}
