package discover

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/authretry/authretry"
)

// FuzzMetadata has hostile servers describe themselves: no panic, no resource or issuer but the one that was asked, no URL that may
// not be asked, and no word of theirs in an error.
func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"resource":"https://api.example.com","authorization_servers":["https://as.example.com"],"scopes_supported":["a"]}`))
	f.Add([]byte(`{"issuer":"https://as.example.com","authorization_endpoint":"https://as.example.com/a","token_endpoint":"https://as.example.com/t","code_challenge_methods_supported":["S256"]}`))
	f.Add([]byte(`{"issuer":"https://as.example.com","token_endpoint":"http://127.0.0.1/","registration_endpoint":"javascript:x"}`))
	f.Add([]byte(`{"RESOURCE":"https://api.example.com","resource":["x"]}`))
	f.Add([]byte(`{"client_id":"c","client_secret":"s","client_secret_expires_at":1e300,"token_endpoint_auth_method":"tls_client_auth"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		doc, err := parse(body)
		if err != nil {
			require.IsType(t, ownError(""), err)
			return
		}
		c := &Config{HTTPClient: nil}
		home, _ := url.Parse("https://api.example.com")
		at := place{url: home, addr: netip.MustParseAddr("8.8.8.8")}
		if r, err := readResource(doc); err == nil {
			require.NotEmpty(t, r.ID)
			require.LessOrEqual(t, len(r.Scopes), maxScopes)
			if (&target{at: at}).is(r.ID) {
				require.True(t, strings.HasPrefix(r.ID, "https://api.example.com"))
			}
			r.at = at
			if chosen, err := c.choose(r, &authretry.Record{}); err == nil {
				require.LessOrEqual(t, len(chosen), maxTried)
			}
		}
		as, _ := url.Parse("https://as.example.com")
		c.HTTPClient = http.DefaultClient // so that no name is resolved
		s, err := c.readServer(t.Context(), "https://as.example.com", place{url: as}, doc)
		if err != nil {
			var e *Error
			require.True(t, errors.As(err, &e))
			require.Less(t, len(err.Error()), 1000)
			for _, r := range err.Error() {
				require.True(t, r >= ' ' && r <= '~', "%q", err.Error())
			}
			return
		}
		require.Equal(t, "https://as.example.com", s.Issuer)
		for _, named := range []string{s.AuthorizationURL, s.TokenURL, s.DeviceURL, s.PushedURL, s.RegistrationURL, s.RevocationURL} {
			if named == "" {
				continue
			}
			u, err := url.Parse(named)
			require.NoError(t, err)
			require.Equal(t, "https", u.Scheme)
			require.Nil(t, u.User)
			require.NotEmpty(t, u.Hostname())
		}
		if g, err := readRegistered(doc, s); err == nil {
			require.NotEmpty(t, g.id)
			_, err := g.identity()
			require.NoError(t, err)
		}
	})
}
