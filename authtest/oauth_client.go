package authtest

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// client returns a client by its ID; nil if it is not known.
func (o *OAuth) client(id string) *oauthClient {
	if id != "" && id == o.ClientID {
		return &oauthClient{id: id, secret: o.ClientSecret}
	}
	if u, err := url.Parse(id); o.MetadataDocuments && err == nil && u.Scheme == "https" && u.Host != "" && len(u.Path) > 1 {
		return &oauthClient{id: id}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.clients[id]
}

// authenticated returns the client of a request, or an error code and what is wrong.
func (o *OAuth) authenticated(r *http.Request, form url.Values) (client *oauthClient, code, problem string) {
	if problem := requestProblem(r, form); problem != "" {
		return nil, "invalid_request", problem
	}
	said := clientOf(r, form)
	if said.problem != "" {
		return nil, said.code, said.problem
	}
	known := o.client(said.id)
	if known == nil || !same(said.secret, known.secret) {
		return nil, "invalid_client", "unknown client or wrong secret"
	}
	return known, "", ""
}

// mayRedirect reports whether a client may have answers sent to a URI: one that it has registered, but for the port if it leads to
// this machine (RFC 8252 §7.3).
func (c *oauthClient) mayRedirect(uri string) bool {
	u, err := url.Parse(uri)
	if err != nil || u.Fragment != "" {
		return false
	}
	if c.redirectURIs == nil {
		return isLoopbackRedirect(u)
	}
	return slices.ContainsFunc(c.redirectURIs, func(registered string) bool {
		r, err := url.Parse(registered)
		return registered == uri || err == nil && isLoopbackRedirect(u) && isLoopbackRedirect(r) && u.Hostname() == r.Hostname() && u.Path == r.Path
	})
}

func isLoopbackRedirect(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback())
}

// serveRegister registers a client (RFC 7591 §3).
func (o *OAuth) serveRegister(x *exchange) {
	var m struct {
		RedirectURIs    []string `json:"redirect_uris"`
		GrantTypes      []string `json:"grant_types"`
		ApplicationType string   `json:"application_type"`
		Method          string   `json:"token_endpoint_auth_method"`
	}
	body, err := io.ReadAll(io.LimitReader(x.r.Body, maxForm))
	fail := func(code, why string) { x.tokenError(code, why) }
	switch {
	case o.NoRegistration:
		x.w.WriteHeader(http.StatusNotFound)
		return
	case x.r.Method != http.MethodPost || err != nil || json.Unmarshal(body, &m) != nil || !strings.HasPrefix(x.r.Header.Get("Content-Type"), "application/json"):
		fail("invalid_client_metadata", "it is no JSON by POST")
		return
	case len(m.RedirectURIs) == 0 && slices.Contains(m.GrantTypes, "authorization_code"):
		fail("invalid_redirect_uri", "redirect_uris is missing")
		return
	}
	for _, uri := range m.RedirectURIs {
		u, err := url.Parse(uri)
		if err != nil || u.Scheme != "https" && !(isLoopbackRedirect(u) && m.ApplicationType == "native") {
			fail("invalid_redirect_uri", "a redirect to this machine is for native applications")
			return
		}
	}
	c := &oauthClient{id: "client-" + rand.Text(), redirectURIs: append([]string{}, m.RedirectURIs...)}
	answer := map[string]any{"client_id": c.id, "redirect_uris": c.redirectURIs, "token_endpoint_auth_method": "none"}
	if o.RegisterSecrets {
		c.secret = "secret-" + rand.Text()
		answer["client_secret"], answer["client_secret_expires_at"], answer["token_endpoint_auth_method"] = c.secret, 0, "client_secret_basic"
	}
	o.mu.Lock()
	if o.clients == nil {
		o.clients = map[string]*oauthClient{}
	}
	o.clients[c.id] = c
	o.mu.Unlock()
	x.writeJSON(http.StatusCreated, answer)
}

// serveRevoke ends a token (RFC 7009).
func (o *OAuth) serveRevoke(x *exchange) {
	form := x.readForm()
	client, code, problem := o.authenticated(x.r, form)
	if code != "" {
		x.tokenError(code, problem)
		return
	}
	if token := form.Get("token"); o.tokens.isOf(token, client.id) { // of any other it says nothing (§2.1, §2.2)
		o.tokens.Revoke(token)
	}
	x.w.WriteHeader(http.StatusOK)
}
