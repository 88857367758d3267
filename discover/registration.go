package discover

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/authretry/authretry/internal/guarded"
)

// register registers the program (RFC 7591 §3.1).
func (c *Config) register(caller context.Context, s *Server, redirectURI string) (*registered, error) {
	failed := func(cause error) error { return failedAt(stepRegistration, s.at.url.Host, ErrRegistration, cause) }
	method := s.methodFor("")
	body, err := json.Marshal(c.registration(s, redirectURI, method))
	if err != nil {
		return nil, failed(errRegistration)
	}
	ctx, cancel := context.WithTimeout(caller, c.timeout())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.RegistrationURL, bytes.NewReader(body))
	if err != nil {
		return nil, failed(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := c.client(s.at).Do(req)
	if err != nil {
		return nil, failed(c.unanswered(caller, err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK {
		return nil, failed(answered(resp.StatusCode))
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, guarded.MaxAnswer+1))
	switch {
	case len(answer) > guarded.MaxAnswer, len(answer) == guarded.MaxAnswer && err != nil:
		return nil, failed(ownError("its answer is too long"))
	case err != nil:
		return nil, failed(c.unanswered(caller, err))
	}
	doc, err := parse(answer)
	if err == nil {
		var g *registered
		if g, err = readRegistered(doc, s); err == nil {
			g.redirectURI = redirectURI
			return g, nil
		}
	}
	return nil, failed(err)
}

const errRegistration = ownError("Config.Registration cannot be written as JSON")

// registration returns what the server is told of the program.
func (c *Config) registration(s *Server, redirectURI, method string) map[string]any {
	m := map[string]any{"client_name": "authretry"}
	maps.Copy(m, c.Registration)
	m["application_type"] = "native" // or else a redirect to this machine may be refused
	m["token_endpoint_auth_method"] = method
	var grants []string
	if m["response_types"] = []string{}; redirectURI != "" {
		grants = append(grants, "authorization_code")
		m["response_types"], m["redirect_uris"] = []string{"code"}, []string{redirectURI}
	}
	if redirectURI == "" || s.DeviceURL != "" && slices.Contains(s.GrantTypes, deviceGrant) {
		grants = append(grants, deviceGrant) // a person without a browser may come later
	}
	if s.supports("refresh_token") {
		grants = append(grants, "refresh_token")
	}
	m["grant_types"] = grants
	return m
}

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// methodFor returns how a client with a secret, or one that has none yet, is to authenticate itself.
func (s *Server) methodFor(secret string) string {
	prefer := []string{"none", "client_secret_basic", "client_secret_post"}
	if secret != "" {
		prefer = prefer[1:]
	}
	for _, method := range prefer {
		if slices.Contains(s.AuthMethods, method) {
			return method
		}
	}
	return prefer[0]
}

const maxClient = 4 << 10 // bytes of a client ID or secret

// readRegistered reads the answer to a registration (RFC 7591 §3.2.1).
func readRegistered(doc document, s *Server) (*registered, error) {
	g := &registered{}
	var expires float64
	err := doc.readAll(map[string]any{"client_id": &g.id, "client_secret": &g.secret, "client_secret_expires_at": &expires,
		"token_endpoint_auth_method": &g.method})
	switch {
	case err != nil:
		return nil, err
	case g.id == "" || len(g.id) > maxClient || len(g.secret) > maxClient:
		return nil, ownError("its answer has no client_id, or one that is too long")
	}
	if g.secret == "" {
		g.method = "none"
	} else if g.method == "" {
		g.method = s.methodFor(g.secret)
	}
	if expires > 0 && g.secret != "" {
		g.expires = time.Unix(int64(min(expires, 1e11)), 0)
	}
	if _, err := g.identity(); err != nil {
		return nil, ownError("it wants the program to authenticate itself in a way that it does not have")
	}
	return g, nil
}
