package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/discover"
	"github.com/authretry/authretry/dpop"
	"github.com/authretry/authretry/login"
)

// A scenario is what the kit says of one: its name, and in some what the program has been given beforehand.
type scenario struct {
	Name string `json:"name"`

	// The client that somebody has registered, and where, if the kit says so.
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	PrivateKey   string `json:"private_key_pem"`
	Issuer       string `json:"issuer"`

	// What a workload's platform has issued to it.
	WorkloadJWT string `json:"valid_jwt"`

	// A person's login at their company's identity provider, and the client there.
	IDToken          string `json:"idp_id_token"`
	IDPClientID      string `json:"idp_client_id"`
	IDPTokenEndpoint string `json:"idp_token_endpoint"`
}

func scenarioFromEnvironment() (*scenario, error) {
	s := &scenario{Name: os.Getenv("MCP_CONFORMANCE_SCENARIO")}
	if given := os.Getenv("MCP_CONFORMANCE_CONTEXT"); given != "" {
		if err := json.Unmarshal([]byte(given), s); err != nil {
			return nil, fmt.Errorf("MCP_CONFORMANCE_CONTEXT: %w", err)
		}
	}
	return s, nil
}

// scheme returns what answers the server's 401: with a token, for which a person logs in, or the program itself.
func (s *scenario) scheme() (authretry.Scheme, error) {
	clients, err := s.clients()
	if err != nil {
		return nil, err
	}
	d := &discover.Config{
		Clients:           clients,
		ClientMetadataURL: "https://conformance-test.local/client-metadata.json",
		Registration:      map[string]any{"client_name": "authretry's interop"},
	}
	tokens := &authretry.TokenSource{Fetch: d.Fetch}
	switch s.Name {
	case "auth/client-credentials-basic", "auth/client-credentials-jwt":
		d.Grant = func(e *authretry.TokenEndpoint, _ *discover.Server) authretry.FetchFunc { return e.ClientCredentials() }
	case "auth/wif-jwt-bearer":
		d.Grant = s.workload
	case "auth/enterprise-managed-authorization":
		d.Grant = s.enterprise
	default:
		d.Flow = &login.Browser{Open: follow}
		tokens.Login = d.Login
	}
	switch s.Name {
	case "auth/2025-03-26-oauth-metadata-backcompat", "auth/2025-03-26-oauth-endpoint-fallback":
		d.OriginIsIssuer = true
	case "auth/dpop", "auth/dpop-nonce":
		return withProofs(d, tokens)
	}
	return &authretry.Bearer{Source: tokens, StepUp: true}, nil
}

// withProofs binds the tokens to a key.
func withProofs(d *discover.Config, tokens *authretry.TokenSource) (authretry.Scheme, error) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := dpop.NewKey(signer)
	if err != nil {
		return nil, err
	}
	d.Proof = key
	return &dpop.Scheme{Source: tokens, Key: key, StepUp: true}, nil
}

// clients returns the client that somebody has registered, if there is one.
func (s *scenario) clients() ([]discover.Client, error) {
	if s.ClientID == "" {
		return nil, nil
	}
	client := discover.Client{Issuer: s.Issuer, ID: s.ClientID}
	switch {
	case s.PrivateKey != "":
		key, err := parseKey(s.PrivateKey)
		if err != nil {
			return nil, err
		}
		client.Auth = &authretry.PrivateKeyJWT{Signer: key}
	case s.ClientSecret != "":
		client.Auth = authretry.SecretBasic(s.ClientSecret)
	}
	return []discover.Client{client}, nil
}

func parseKey(text string) (crypto.Signer, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("the private key is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T does not sign", key)
	}
	return signer, nil
}

// workload shows the JWT that the platform has issued (RFC 7523 §2.1).
func (s *scenario) workload(e *authretry.TokenEndpoint, _ *discover.Server) authretry.FetchFunc {
	return e.JWTBearer(func(context.Context, authretry.TokenRequest) (string, error) { return s.WorkloadJWT, nil })
}

// enterprise exchanges the person's login at their company's identity provider for an assertion that the authorization server
// takes (RFC 8693, Identity Assertion JWT Authorization Grant), so that they need not log in there.
func (s *scenario) enterprise(e *authretry.TokenEndpoint, at *discover.Server) authretry.FetchFunc {
	provider := &authretry.TokenEndpoint{URL: s.IDPTokenEndpoint, ClientID: s.IDPClientID}
	exchange := provider.TokenExchange(authretry.TokenExchange{
		Subject: func(context.Context) (token, tokenType string, err error) {
			return s.IDToken, "urn:ietf:params:oauth:token-type:id_token", nil
		},
		Audience:      []string{at.Issuer},
		Resource:      e.Params["resource"],
		RequestedType: "urn:ietf:params:oauth:token-type:id-jag",
	})
	return e.JWTBearer(func(ctx context.Context, _ authretry.TokenRequest) (string, error) {
		assertion, err := exchange(ctx, authretry.TokenRequest{})
		if err != nil {
			return "", err
		}
		return assertion.AccessToken, nil
	})
}

// follow is the browser. The kit's authorization server asks nobody, and redirects at once.
func follow(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return errors.Join(err, resp.Body.Close())
}
