package authretry

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/internal/showtest"
)

// Every exported type is here: a new one must say whether it has a secret.
func TestNoTypePrintsASecret(t *testing.T) {
	const secret = showtest.Secret
	token := (&oauth2.Token{AccessToken: secret, RefreshToken: secret}).WithExtra(map[string]any{"id_token": secret})
	basic, digest := &Basic{Username: "u", Password: secret}, &Digest{Username: "u", Password: secret}
	key, bearer := &APIKey{Key: secret}, &Bearer{Source: oauth2.StaticTokenSource(token)}
	source := &TokenSource{Initial: token}
	_, err := source.Token()
	require.NoError(t, err)

	// A server that refuses all, so that there is something to remember and to explain.
	srv := authtest.NewServer(&authtest.Digest{}, &authtest.Basic{}, &authtest.Bearer{})
	defer srv.Close()
	var shown []any
	transport := New(&Bearer{Source: source}, digest, basic)
	for _, scheme := range []Scheme{&Bearer{Source: source}, digest, basic, key} {
		one := New(scheme)
		one.Base = srv.Client().Transport
		resp, err := (&http.Client{Transport: one}).Get(srv.URL)
		require.NoError(t, err)
		resp.Body.Close()
		one.Base = nil // whose connections are still at work
		shown = append(shown, Explain(resp), one)
	}
	endpoint := authtest.NewServer()
	defer endpoint.Close()
	endpoint.Inject("/", -1, authtest.Reply(400, http.Header{"Content-Type": {"application/json"}}, `{"error":"invalid_grant","error_description":"no `+secret+`","access_token":"`+secret+`"}`))
	config := &oauth2.Config{ClientID: "id", ClientSecret: secret, Endpoint: oauth2.Endpoint{TokenURL: endpoint.URL}}
	failing := &TokenSource{Fetch: RefreshGrant(config), Initial: &oauth2.Token{RefreshToken: secret}}
	_, failure := failing.Token()
	require.Error(t, failure)

	showtest.Types(t, ".", map[string]any{
		"Basic":          []any{basic, *basic},
		"Digest":         []any{digest, *digest},
		"APIKey":         []any{key, *key},
		"Bearer":         []any{bearer, &Bearer{Source: source}},
		"TokenSource":    []any{source, failing},
		"Record":         []any{Record{Token: token, Extra: map[string]string{"a": secret}}, &Record{Token: token}},
		"TokenRequest":   []any{TokenRequest{Previous: token}, &TokenRequest{Previous: token}},
		"Rejection":      append(shown, &Rejection{Reason: ReasonNoCredentials, Err: failure}, failure),
		"Event":          Event{Kind: EventRefreshed, Err: failure},
		"Transport":      []any{transport, New(key)},
		"ProxyTransport": NewProxyTransport(nil, basic, digest),
		"FetchFunc":      FetchFunc(RefreshGrant(config)),
		"ClientAuth":     []any{SecretBasic(secret), SecretPost(secret), endpointOf("https://a/", "c", secret, 0).Auth, AssertionFile(secret)},
		"PrivateKeyJWT":  &PrivateKeyJWT{Signer: ed25519.NewKeyFromSeed([]byte(strings.Repeat(secret, 32))[:32])},
		"TokenEndpoint":  []any{&TokenEndpoint{Auth: SecretPost(secret)}, TokenEndpoint{Params: url.Values{"a": {secret}}}},
	},
		"Carrier", "Covers", "Exclusive", "Learner", "PlaintextSafe", "Scheme", "Session", "Starter", "TokenStore", "Prover", "WantsRemoteAddr", // interfaces
		"TokenExchange", "CredentialsFunc", "CredentialsRequest", "Challenge", "Param", "Params", "ParseError", "EventKind", "Reason")
	require.True(t, errors.Is(failure, ErrLoginRequired))
}

// What is shown says which header it is, and that it is not shown what is in it.
func TestHeaderSessionSaysWhichHeaderItSets(t *testing.T) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		require.Equal(t, "X-Api-Key: (secret)", fmt.Sprintf(verb, headerPlace{header: "x-api-key"}.session(secret)))
	}
}
