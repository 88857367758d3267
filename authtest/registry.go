package authtest

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Registry is a [Guard] that asks for the tokens of a container registry, and the token server that issues them: GET and POST
// at [Registry.TokenURL]. A Registry belongs to one server. Its fields must not be changed once it is in use.
//
// What a request needs follows from its method and path: below /v2/NAME/, GET and HEAD need "repository:NAME:pull", DELETE
// needs "delete", all others "pull,push"; a mount needs "pull" of the other repository besides; /v2/_catalog needs
// "registry:catalog:*"; and all else a token of any scope. A token that has not all of that is refused with 401 and
// insufficient_scope, one that is unknown or has ended with 401 and invalid_token.
//
// The token server takes the user name and password by Basic or by POST, an identity token by POST, or none if there is no
// Username or Public is set. It answers with what Grant allows of the scope, which may be less than was asked for: that is no error. It
// refuses a scope that it cannot read, a parameter but scope that is there twice, credentials in the query, and POST without a
// client_id.
type Registry struct {
	Service string // in challenges and token requests; "authtest" if empty
	Realm   string // the URL of the token server in challenges; TokenURL if empty

	Username, Password string // what the token server wants; nothing if Username is empty
	IdentityToken      string // what it takes in place of the password, by POST (grant_type=refresh_token); none if empty

	// Public are the repositories that anybody may pull, with or without the user's credentials, such as "library/alpine"; one
	// with a slash at its end, such as "library/", stands for all below it. All others are private: a token that is asked for
	// without credentials is issued, as Docker Hub does, but grants nothing of them. If nil, there is no token without
	// credentials, unless Username is empty.
	Public []string

	// Grant returns which of the actions on a resource, such as "repository:library/alpine", the user may have. If nil, it is
	// all of them. It is called by many goroutines at once, and is not asked about what Public allows, nor without credentials.
	Grant func(username, resource string, actions []string) []string

	TokenPath     string        // of the token server; "/token" if empty
	TokenLifetime time.Duration // 5 minutes if 0
	Leeway        time.Duration // for how long a token is accepted after it has ended
	OmitExpiry    bool          // the answer has no expires_in, which means 60 seconds, whatever TokenLifetime is
	NoPost        bool          // POST is answered with 405, as by older servers
	NoCodes       bool          // challenges have no error code

	mu     sync.Mutex // guards everything below
	server *Server
	tokens tokenSet[*registryToken]
	epoch  int // of the signing key
}

type registryToken struct {
	granted map[string][]string // actions, by resource
	until   time.Time           // with the leeway
	epoch   int
	dead    bool
}

func (t *registryToken) ended(now time.Time) bool { return t.dead || !now.Before(t.until) }

// TokenURL returns the URL of the token server. It panics if the Registry is on no server.
func (g *Registry) TokenURL() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.server == nil {
		panic("authtest: this Registry protects no server yet")
	}
	return g.server.URL + g.tokenPath()
}

// RotateKey makes all tokens issued so far bad, as if the key that signs them had been replaced.
func (g *Registry) RotateKey() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.epoch++
}

// ExpireNow lets all tokens issued so far expire, whatever their expires_in said, and whatever the Leeway. A
// registry.Scheme replaces no more than 8 tokens of a repository in 10 seconds because they were refused.
func (g *Registry) ExpireNow() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.tokens.values {
		t.dead = true
	}
}

func (g *Registry) tokenPath() string { return orDefault(g.TokenPath, "/token") }

func (g *Registry) service() string { return orDefault(g.Service, defaultRealm) }

func (g *Registry) problem() string {
	path := g.tokenPath()
	return firstProblem(
		headerProblem("Service", g.Service), headerProblem("Realm", g.Realm),
		when(g.TokenLifetime < 0 || g.Leeway < 0, "its TokenLifetime or Leeway is negative"),
		when(!isPath(path) || (&url.URL{Path: path}).EscapedPath() != path, "its TokenPath is no path, or one that has to be escaped"),
		when(g.Username == "" && (g.Password != "" || g.IdentityToken != ""), "it has a Password or an IdentityToken, and no Username"),
		when(g.Username == "" && g.Public != nil, "it has Public, and no Username, so that all of it is public"),
		when(slices.ContainsFunc(g.Public, func(name string) bool { return strings.Trim(name, "/") == "" || name[0] == '/' }), "its Public has what is no repository's name"),
		when(strings.Contains(g.Username, ":"), "its Username has a colon, which ends a user name (RFC 7617 §2)"),
	)
}

func (g *Registry) attach(s *Server) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.server != nil && g.server != s {
		panic("authtest: this Registry protects another server already")
	}
	g.server = s
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.tokens[g.tokenPath()]; other != nil && other != g {
		panic("authtest: two token endpoints of one server need different TokenPaths")
	}
	s.tokens[g.tokenPath()] = g
}

func (g *Registry) secretHeader() string { return "Authorization" }

// Format writes the type and the service, whatever the verb: no secret, and nothing that changes.
func (g *Registry) Format(f fmt.State, _ rune) { formatGuard(f, "Registry", g.service()) }

// MarshalJSON writes the service alone.
func (g *Registry) MarshalJSON() ([]byte, error) { return marshalGuard(g.service()) }

func (g *Registry) check(x *exchange) verdict {
	needed := neededBy(x.r)
	token, ok := credentials(x.r.Header.Get("Authorization"), "Bearer")
	if !ok {
		return verdict{decision: Challenged, scope: scopeText(needed)}
	}
	refused := verdict{decision: Refused, scheme: "Bearer", code: "invalid_token", scope: scopeText(needed)}
	g.mu.Lock()
	defer g.mu.Unlock()
	t, known := g.tokens.get(token)
	switch {
	case !known:
		refused.reason = "the token is unknown"
	case t.epoch != g.epoch:
		refused.reason = "the token is signed with a key of the past"
	case t.ended(time.Now()):
		refused.reason = "the token expired"
	case !covers(t.granted, needed):
		refused.reason, refused.code = "the token lacks the scope", "insufficient_scope"
	default:
		return verdict{decision: Accepted, scheme: "Bearer"}
	}
	return refused
}

func (g *Registry) challenges(v verdict) []string {
	realm := g.Realm
	if realm == "" {
		realm = g.TokenURL()
	}
	params := []string{"realm=" + quote(realm), "service=" + quote(g.service())}
	if v.scope != "" {
		params = append(params, "scope="+quote(v.scope))
	}
	if v.code != "" && !g.NoCodes {
		params = append(params, "error="+quote(v.code))
	}
	return []string{"Bearer " + strings.Join(params, ",")}
}

// neededBy returns what a request needs: actions, by resource.
func neededBy(r *http.Request) map[string][]string {
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	switch {
	case !ok || rest == "":
		return nil
	case rest == "_catalog":
		return map[string][]string{"registry:catalog": {"*"}}
	}
	end := -1
	for _, word := range []string{"/manifests/", "/blobs/", "/tags/", "/referrers/"} {
		end = max(end, strings.LastIndex(rest, word))
	}
	if at := strings.LastIndex(rest, "/blobs/uploads"); at >= 0 {
		end = at
	}
	if end < 0 {
		return nil
	}
	repository := "repository:" + rest[:end]
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return map[string][]string{repository: {"pull"}}
	case http.MethodDelete:
		return map[string][]string{repository: {"delete"}}
	}
	needed := map[string][]string{repository: {"pull", "push"}}
	if from := r.URL.Query().Get("from"); from != "" && r.URL.Query().Has("mount") && from != rest[:end] {
		needed["repository:"+from] = []string{"pull"}
	}
	return needed
}

// covers reports whether all that is needed was granted.
func covers(granted, needed map[string][]string) bool {
	for resource, actions := range needed {
		if slices.ContainsFunc(actions, func(action string) bool { return !slices.Contains(granted[resource], action) }) {
			return false
		}
	}
	return true
}

// scopeText returns resource scopes with spaces between them. As with real servers, the order of the actions is any.
func scopeText(needed map[string][]string) string {
	var list []string
	for resource, actions := range needed {
		list = append(list, resource+":"+strings.Join(actions, ","))
	}
	return strings.Join(list, " ")
}

// serveToken is the token server.
func (g *Registry) serveToken(x *exchange) {
	if x.r.Method == http.MethodPost && g.NoPost || x.r.Method != http.MethodPost && x.r.Method != http.MethodGet {
		x.w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	params := x.r.URL.Query()
	if x.r.Method == http.MethodPost {
		params = x.form
	}
	g.note(x, params)
	if problem := g.requestProblem(x.r, params); problem != "" {
		x.tokenError("invalid_request", problem)
		return
	}
	username, ok := g.authenticate(x.r, params)
	if !ok {
		x.tokenError("invalid_client", "unknown user or wrong password")
		return
	}
	wanted, ok := readScopes(params["scope"])
	if !ok {
		x.tokenError("invalid_scope", "the scope cannot be read")
		return
	}
	x.decide(verdict{decision: Accepted})
	x.writeJSON(http.StatusOK, g.issue(username, wanted))
}

// note completes the record of a token request.
func (g *Registry) note(x *exchange, params url.Values) {
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.grant.Form, x.grant.Scope = params, strings.Join(params["scope"], " ")
}

func (g *Registry) requestProblem(r *http.Request, params url.Values) string {
	for name, values := range params {
		if len(values) > 1 && name != "scope" {
			return "the parameter " + printable(name) + " is there more than once"
		}
	}
	if params.Get("service") != g.service() {
		return "the service is another one"
	}
	if r.Method == http.MethodGet {
		return when(params.Has("password") || params.Has("refresh_token"), "there are credentials in the URL, which logs have")
	}
	return firstProblem(
		when(params == nil, "the body is not a form, or is too large"),
		when(r.URL.RawQuery != "", "there is a query besides the form"),
		when(params.Get("client_id") == "", "client_id is missing"),
	)
}

// authenticate returns who asks, and whether that may be.
func (g *Registry) authenticate(r *http.Request, params url.Values) (username string, ok bool) {
	if r.Method == http.MethodPost {
		switch params.Get("grant_type") {
		case "password":
			return params.Get("username"), g.isUser(params.Get("username"), params.Get("password"))
		case "refresh_token":
			return g.Username, g.IdentityToken != "" && same(params.Get("refresh_token"), g.IdentityToken)
		}
		return "", false
	}
	username, password, ok := r.BasicAuth()
	if !ok {
		return "", (g.Username == "" || g.Public != nil) && r.Header.Get("Authorization") == ""
	}
	return username, g.isUser(username, password)
}

func (g *Registry) isUser(username, password string) bool {
	return g.Username == "" || same(username, g.Username) && same(password, g.Password)
}

// readScopes reads what is asked for: actions, by resource.
func readScopes(values []string) (wanted map[string][]string, ok bool) {
	wanted = map[string][]string{}
	for one := range strings.FieldsSeq(strings.Join(values, " ")) {
		first, last := strings.IndexByte(one, ':'), strings.LastIndexByte(one, ':')
		if first <= 0 || last == first || last == len(one)-1 {
			return nil, false
		}
		wanted[one[:last]] = append(wanted[one[:last]], strings.Split(one[last+1:], ",")...)
	}
	return wanted, true
}

// grant returns which of the actions on a resource a user may have, who is "" if there were no credentials.
func (g *Registry) grant(username, resource string, actions []string) (granted []string) {
	switch {
	case username == "" && g.Username != "":
	case g.Grant != nil:
		granted = g.Grant(username, resource, actions)
	default:
		return actions
	}
	if slices.Contains(actions, "pull") && !slices.Contains(granted, "pull") && g.isPublic(resource) {
		granted = append(slices.Clone(granted), "pull")
	}
	return granted
}

// isPublic reports whether anybody may pull a resource.
func (g *Registry) isPublic(resource string) bool {
	name, ok := strings.CutPrefix(resource, "repository:")
	return ok && slices.ContainsFunc(g.Public, func(public string) bool {
		return name == public || strings.HasSuffix(public, "/") && strings.HasPrefix(name, public)
	})
}

// issue makes a token, and returns the answer that has it.
func (g *Registry) issue(username string, wanted map[string][]string) map[string]any {
	granted := map[string][]string{}
	for resource, actions := range wanted {
		granted[resource] = g.grant(username, resource, actions)
	}
	lifetime := cmp.Or(g.TokenLifetime, 5*time.Minute)
	if g.OmitExpiry {
		lifetime = time.Minute
	}
	now, value := time.Now(), "registry-"+rand.Text()
	answer := map[string]any{"token": value, "access_token": value, "issued_at": now.UTC().Format(time.RFC3339)}
	if !g.OmitExpiry {
		answer["expires_in"] = max(1, int64(lifetime/time.Second))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tokens.put(value, &registryToken{granted: granted, until: now.Add(lifetime + g.Leeway), epoch: g.epoch})
	return answer
}
