package authtest

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
)

// OAuth is a [Guard] that asks for an access token and says where to get one (RFC 9728), and the authorization server that a person
// logs in to, on the same server: metadata (RFC 8414), authorization code with PKCE (RFC 7636), pushed requests (RFC 9126), device
// grant (RFC 8628), registration (RFC 7591), refresh, client credentials and revocation (RFC 7009). [Approve] plays the person. An
// OAuth belongs to one server. Its fields must not be changed once it is in use.
//
//	oauth := &authtest.OAuth{}
//	srv := authtest.NewServer(oauth)
//	flow := &login.Browser{Open: authtest.Approve}
//
// It is strict: PKCE by S256 with a verifier of 43 characters at least, a client that is registered or named here, a redirect URI that
// was registered, or to this machine with any port (RFC 8252 §7.3), what was pushed and a code for a minute, a code and a refresh token once, by the client that they are for, and as a resource, if one is named,
// an absolute URL (which need not be that of this OAuth: its tokens are good here nevertheless). Each answer to a browser has iss (RFC 9207).
//
// A program that does not read the metadata needs the endpoints below [Server.URL]: /oauth/authorize, where a person logs in;
// /oauth/token, which is also TokenURL; /oauth/device, /oauth/revoke, /oauth/par (pushed requests) and /oauth/register.
type OAuth struct {
	Scope         string        // scopes separated by spaces that a token must have, or the answer is 403; none if empty
	ResourcePath  string        // of the resource's identifier; "" if that is the server's origin
	TokenLifetime time.Duration // of an access token; an hour if 0

	Scopes                 []string      // that the authorization server knows; any if nil
	ClientID, ClientSecret string        // of a client that is known; none if ClientID is empty. It may redirect to this machine.
	NoRegistration         bool          // clients cannot register themselves
	RegisterSecrets        bool          // those that do get a secret, and must use it
	MetadataDocuments      bool          // an https URL with a path is a client, which may redirect to this machine
	RequirePushed          bool          // authorization requests must be pushed
	NoResourceOnRefresh    bool          // a refresh that names the resource is refused, as by Microsoft Entra
	DeviceInterval         time.Duration // between polls; 5 seconds if 0
	DeviceLifetime         time.Duration // of a device code; 10 minutes if 0

	// At is whose authorization server the resource trusts. If it is nil, that is its own.
	At *OAuth

	// Edit changes a metadata document before it is sent, by its path. It may be nil. It is called by many goroutines at once.
	Edit func(path string, document map[string]any)

	tokens Bearer // the tokens, with their own lock

	mu      sync.Mutex // guards everything below
	server  *Server
	clients map[string]*oauthClient
	pending map[string]*oauthRequest // authorization requests on which nobody has decided, by ticket
	pushed  map[string]pushedRequest // by request_uri
	codes   map[string]*oauthRequest // that were issued, by code
	devices map[string]*deviceLogin  // by device code
	logins  int
}

// An oauthClient is a client that may log people in.
type oauthClient struct {
	id, secret   string
	redirectURIs []string // nil: to this machine
}

// The paths of an OAuth.
const (
	oauthAuthorize = "/oauth/authorize"
	oauthDecide    = "/oauth/decide"
	oauthToken     = "/oauth/token"
	oauthPush      = "/oauth/par"
	oauthDevice    = "/oauth/device"
	oauthVerify    = "/oauth/verify"
	oauthRegister  = "/oauth/register"
	oauthRevoke    = "/oauth/revoke"

	serverMetadata   = "/.well-known/oauth-authorization-server"
	resourceMetadata = "/.well-known/oauth-protected-resource"

	deviceGrantType = "urn:ietf:params:oauth:grant-type:device_code"
)

// Issuer returns the name of the authorization server. It panics if the OAuth is on no server.
func (o *OAuth) Issuer() string {
	if o.At != nil {
		return o.At.Issuer()
	}
	return o.url()
}

// Resource returns the identifier of the resource. It panics if the OAuth is on no server.
func (o *OAuth) Resource() string { return o.url() + o.ResourcePath }

// TokenURL returns the URL of the token endpoint. It panics if the OAuth is on no server.
func (o *OAuth) TokenURL() string { return o.url() + oauthToken }

// Logins returns how often somebody has logged in.
func (o *OAuth) Logins() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.logins
}

// Login issues the first tokens of a login without a person, for the client ID, or "authtest" if there is none.
func (o *OAuth) Login(scopes ...string) *oauth2.Token {
	o.tokens.mu.Lock()
	defer o.tokens.mu.Unlock()
	scope := strings.Join(scopes, " ")
	return o.tokens.issue(&family{scope: scope, client: orDefault(o.ClientID, "authtest")}, scope, true)
}

// ExpireNow lets all access tokens issued so far expire, as [Bearer.ExpireNow] does. A test that calls it more than 8 times sets
// MinRefreshInterval of the authretry.TokenSource to -1.
func (o *OAuth) ExpireNow() { o.tokens.ExpireNow() }

// Revoke ends a token, as [Bearer.Revoke] does.
func (o *OAuth) Revoke(token string) bool { return o.tokens.Revoke(token) }

// ForgetClients forgets the clients that have registered themselves.
func (o *OAuth) ForgetClients() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clients = nil
}

func (o *OAuth) url() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.server == nil {
		panic("authtest: this OAuth protects no server yet")
	}
	return o.server.URL
}

func (o *OAuth) problem() string {
	return firstProblem(
		when(o.Scope != "" && !isScope(o.Scope), "its Scope is not scopes with one space between them (RFC 6749 §3.3)"),
		when(o.ResourcePath != "" && !isPath(o.ResourcePath), "its ResourcePath is no path"),
		when(o.TokenLifetime < 0 || o.DeviceInterval < 0 || o.DeviceLifetime < 0, "one of its times is negative"),
		when(o.ClientSecret != "" && o.ClientID == "", "it has a ClientSecret and no ClientID"),
		when(o.At != nil && o.At.At != nil, "At has an At itself"),
	)
}

func (o *OAuth) attach(s *Server) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.server != nil && o.server != s {
		panic("authtest: this OAuth protects another server already")
	}
	o.server, o.tokens.server = s, s
	o.tokens.Scope, o.tokens.TokenLifetime = o.Scope, o.TokenLifetime
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.tokens[oauthToken]; other != nil && other != o {
		panic("authtest: a server has one OAuth at most")
	}
	s.tokens[oauthToken] = o
	s.routes = map[string]func(*exchange){
		oauthAuthorize: o.serveAuthorize, oauthDecide: o.serveDecision, oauthPush: o.servePush, oauthDevice: o.serveDevice,
		oauthVerify: o.serveVerify, oauthRegister: o.serveRegister, oauthRevoke: o.serveRevoke,
		serverMetadata: o.serveServer, resourceMetadata + o.ResourcePath: o.serveResource,
	}
}

func (o *OAuth) secretHeader() string { return "Authorization" }

// Format writes the type alone, whatever the verb.
func (o *OAuth) Format(f fmt.State, _ rune) { formatGuard(f, "OAuth", o.Scope) }

// MarshalJSON writes the scope alone.
func (o *OAuth) MarshalJSON() ([]byte, error) { return marshalGuard(o.Scope) }

// issuing returns whose tokens the resource takes.
func (o *OAuth) issuing() *Bearer {
	if o.At != nil {
		return &o.At.tokens
	}
	return &o.tokens
}

func (o *OAuth) check(x *exchange) verdict { return o.issuing().checkScope(x, o.Scope) }

func (o *OAuth) challenges(v verdict) []string {
	params := []string{"resource_metadata=" + quote(o.url()+resourceMetadata+o.ResourcePath)}
	if v.code != "" {
		params = append(params, "error="+quote(v.code))
	}
	if o.Scope != "" {
		params = append(params, "scope="+quote(o.Scope))
	}
	return []string{"Bearer " + strings.Join(params, ", ")}
}

// serveResource answers with the metadata of the resource (RFC 9728 §2).
func (o *OAuth) serveResource(x *exchange) {
	o.serveMetadata(x, map[string]any{"resource": o.Resource(), "authorization_servers": []string{o.Issuer()},
		"bearer_methods_supported": []string{"header"}})
}

// serveServer answers with the metadata of the authorization server (RFC 8414 §2).
func (o *OAuth) serveServer(x *exchange) {
	at := o.url()
	methods := []string{"none", "client_secret_basic", "client_secret_post"}
	if o.RegisterSecrets {
		methods = methods[1:]
	}
	m := map[string]any{
		"issuer": at, "authorization_endpoint": at + oauthAuthorize, "token_endpoint": at + oauthToken,
		"device_authorization_endpoint": at + oauthDevice, "pushed_authorization_request_endpoint": at + oauthPush,
		"revocation_endpoint": at + oauthRevoke, "response_types_supported": []string{"code"},
		"grant_types_supported":                 []string{"authorization_code", "refresh_token", deviceGrantType, "client_credentials"},
		"token_endpoint_auth_methods_supported": methods, "code_challenge_methods_supported": []string{"S256"},
		"authorization_response_iss_parameter_supported": true, "require_pushed_authorization_requests": o.RequirePushed,
		"client_id_metadata_document_supported": o.MetadataDocuments,
	}
	if !o.NoRegistration {
		m["registration_endpoint"] = at + oauthRegister
	}
	if o.Scopes != nil {
		m["scopes_supported"] = o.Scopes
	}
	o.serveMetadata(x, m)
}

func (o *OAuth) serveMetadata(x *exchange, document map[string]any) {
	if o.Edit != nil {
		o.Edit(x.r.URL.Path, document)
	}
	x.writeJSON(http.StatusOK, document)
}

// scopeProblem says what is wrong with a scope that is asked for.
func (o *OAuth) scopeProblem(scope string) string {
	if scope == "" {
		return ""
	}
	if !isScope(scope) {
		return "the scope is malformed (RFC 6749 §3.3)"
	}
	for _, s := range strings.Fields(scope) {
		if o.Scopes != nil && !slices.Contains(o.Scopes, s) && s != "offline_access" {
			return "there is no such scope"
		}
	}
	return ""
}

// isResource reports whether a request may name a resource, which need not be that of this OAuth.
func isResource(values []string) bool {
	return !slices.ContainsFunc(values, func(v string) bool {
		u, err := url.Parse(v)
		return err != nil || u.Host == "" || u.Fragment != ""
	})
}

func (o *OAuth) deviceInterval() time.Duration { return cmp.Or(o.DeviceInterval, 5*time.Second) }
