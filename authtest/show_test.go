package authtest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/authretry/authretry/internal/showtest"
	"github.com/stretchr/testify/require"
)

func TestNoTypePrintsASecret(t *testing.T) {
	const secret = showtest.Secret
	header := func() http.Header {
		return http.Header{"Authorization": {"Bearer " + secret}, "X-Api-Key": {secret}, "Cookie": {"a=" + secret}}
	}
	basic := &Basic{Username: "u", Password: secret}
	digest := &Digest{Username: "u", Password: secret}
	key := &APIKey{Header: "X-API-Key", Key: secret}
	bearer := &Bearer{ClientID: "id", ClientSecret: secret}
	changed, changedDigest, changedKey := &Basic{}, &Digest{}, &APIKey{}
	changed.SetPassword(secret)
	changedDigest.SetPassword(secret)
	changedKey.SetKey(secret)
	proven := &DPoP{TokenPath: "/dpop", ClientID: "id", ClientSecret: secret}
	images := &Registry{TokenPath: "/registry", Username: "u", Password: secret, IdentityToken: secret}
	persons := &OAuth{ClientID: "id", ClientSecret: secret}
	srv := NewServer(basic, digest, key, bearer, proven, images, persons)
	defer srv.Close()
	srv.Protect("/changed", changed, changedDigest, changedKey)
	send(t, srv, "GET", "/?key="+secret, "", header())
	send(t, srv, "POST", "/token", "client_secret="+secret, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}})
	require.NotEmpty(t, srv.TokenRequests()[0].Form)
	srv.Inject("/never", 1, Reply(200, header(), secret))
	request, grant := srv.Requests()[0], srv.TokenRequests()[0]

	showtest.Types(t, ".", map[string]any{
		"Server":       srv,
		"Basic":        []any{basic, changed},
		"Digest":       []any{digest, changedDigest},
		"APIKey":       []any{key, changedKey},
		"Bearer":       bearer,
		"DPoP":         proven,
		"Registry":     images,
		"OAuth":        persons,
		"Request":      []any{request, &request, request.Masked(), Request{Target: "/?key=" + secret, Header: http.Header{"Authorization": {secret}}}},
		"TokenRequest": []any{grant, &grant, TokenRequest{Header: header(), Form: url.Values{"client_secret": {secret}}}},
		"Fault":        []any{Reply(200, header(), secret), RewriteChallenges(func([]string) []string { return []string{secret} })},
	}, "Guard", "NextNonce", "Nonces", "Rspauth", "NonceError", "Decision", "Counts")
	require.False(t, showtest.Shows(request.Dump()))
}

// Where a guard has its key in a header of its own, that header is masked on all paths: a client may send it astray.
func TestKeysAreMaskedOnAllPaths(t *testing.T) {
	srv := NewServer()
	defer srv.Close()
	srv.Protect("/api", &APIKey{Header: "X-API-Key", Key: "key-secret"})
	send(t, srv, "GET", "/elsewhere", "", http.Header{"X-Api-Key": {"key-secret"}})
	r := srv.Requests()[0]
	require.NotContains(t, r.Dump(), "key-secret")
	text, err := json.Marshal(r)
	require.NoError(t, err)
	require.NotContains(t, string(text), "key-secret")
}

func TestRecordsObeyFlags(t *testing.T) {
	r := Request{Method: "GET", Path: "/", Status: 200, Decision: Accepted}
	require.Equal(t, `[GET / 200 accepted  ] "GET / 200 accepted" GET / 200 accepted GET / 200 accepted`, fmt.Sprintf("[%-20v] %q %d %#v", r, r, r, r))
	require.Equal(t, "47455420", fmt.Sprintf("%x", r)[:8])
}
