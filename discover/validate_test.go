package discover

import (
	"testing"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
)

func TestValidate(t *testing.T) {
	grant := func(e *authretry.TokenEndpoint, _ *Server) authretry.FetchFunc { return e.ClientCredentials() }
	for _, c := range []*Config{
		{Flow: approving()},
		{Grant: grant},
		{Grant: func(*authretry.TokenEndpoint, *Server) authretry.FetchFunc { panic("asks nobody") }},
		{Flow: approving(), Resource: "https://api.example.com/mcp", Issuers: []string{"https://auth.example.com/tenant/", "http://localhost:8080"},
			Clients:           []Client{{Issuer: "https://auth.example.com", ID: "me", Auth: authretry.SecretBasic("s")}, {ID: "me"}},
			ClientMetadataURL: "https://client.example.com/me.json?v=2", Registration: map[string]any{"client_name": "x"}},
		{Flow: approving(), Resource: "http://127.0.0.1:8080"},
	} {
		require.NoError(t, c.Validate())
	}
	for want, c := range map[string]*Config{
		"the Config is nil":                        nil,
		"Config.Flow and Config.Grant are both":    {},
		"Config.Resource must be an https URL":     {Resource: "http://api.example.com"},
		"Config.Issuers[1] must be an https URL":   {Issuers: []string{"https://a.example.com", "a.example.com"}},
		"Config.Issuers[0] must be an https URL":   {Issuers: []string{""}},
		"Config.Clients[0] has no ID":              {Clients: []Client{{Issuer: "https://a.example.com"}}},
		"Config.Clients[0].Issuer must be":         {Clients: []Client{{Issuer: "https://a.example.com?x", ID: "me"}}},
		"Config.Clients[0].Auth: authretry: ":      {Clients: []Client{{ID: "me", Auth: &authretry.PrivateKeyJWT{}}}},
		"Config.Registration cannot be written":    {Registration: map[string]any{"x": func() {}}},
		"Config.Resource must be an https URL, or": {Resource: "https://api.example.com/#f"},
	} {
		if c != nil && want != "Config.Flow and Config.Grant are both" {
			c.Flow = approving()
		}
		err := c.Validate()
		require.ErrorContains(t, err, "discover: ")
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
	}
	for _, u := range []string{"https://user:secret@a.example.com/me", "http://localhost/me", "https://a.example.com", "https:///me", "https://a.example.com/me#", "me"} {
		require.EqualError(t, (&Config{Flow: approving(), ClientMetadataURL: u}).Validate(),
			"discover: Config.ClientMetadataURL must be an https URL with a path, without user name and fragment", u)
	}
}
