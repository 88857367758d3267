package ntlm_test

import (
	"net/http"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/showtest"
	"github.com/authretry/authretry/ntlm"
	"github.com/stretchr/testify/require"
)

func TestNoTypePrintsASecret(t *testing.T) {
	l := newLab(t, func(l *lab) { l.passwords["mufasa"] = showtest.Secret })
	used := &ntlm.Scheme{Username: "mufasa", Password: showtest.Secret}
	getOK(t, newClient(t, used, nil), l.URL)
	refusal := &http.Response{StatusCode: 401, Header: http.Header{}, Request: newRequest(t, "GET", l.URL, nil)}
	session, err := used.Answer(t.Context(), &authretry.Challenge{Scheme: "NTLM"}, refusal)
	require.NoError(t, err)
	by, err := session.(authretry.Carrier).Carry(t.Context(), &http.Transport{})
	require.NoError(t, err)
	p := newProxyLab(t, nil)
	dialer := p.dialer()
	dialer.Username, dialer.Password = "scar", showtest.Secret
	_, refused := dialer.DialContext(t.Context(), "tcp", "origin.test:443")
	require.ErrorIs(t, refused, authretry.ErrCredentialsRefused)
	_, bad := (&ntlm.Scheme{Password: showtest.Secret}).Answer(t.Context(), &authretry.Challenge{Scheme: "NTLM"}, refusal)
	require.Error(t, bad)
	showtest.Types(t, ".", map[string]any{"Scheme": []any{used, session, by, bad}, "ProxyDialer": []any{dialer, *dialer, refused}})
}
