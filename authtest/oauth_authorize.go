package authtest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// An oauthRequest is an authorization request: one on which a person has to decide, or has.
type oauthRequest struct {
	client      *oauthClient
	redirectURI string
	state       string
	challenge   string // of PKCE
	scope       string
	device      *deviceLogin // nil: it is answered by a redirect
	made        time.Time
	used        bool    // its code
	login       *family // what came of it
}

const (
	codeLifetime = time.Minute // how long a code is good
	pushLifetime = time.Minute // how long a pushed request is
)

// A pushedRequest is an authorization request that was pushed.
type pushedRequest struct {
	url.Values
	ends time.Time
}

// servePush takes an authorization request ahead (RFC 9126).
func (o *OAuth) servePush(x *exchange) {
	form := x.readForm()
	client, code, problem := o.authenticated(x.r, form)
	if code == "" {
		form.Set("client_id", client.id)
		_, code, problem = o.readRequest(form)
	}
	if code != "" {
		x.tokenError(code, problem)
		return
	}
	uri := "urn:ietf:params:oauth:request_uri:" + rand.Text()
	o.mu.Lock()
	if o.pushed == nil {
		o.pushed = map[string]pushedRequest{}
	}
	o.pushed[uri] = pushedRequest{form, time.Now().Add(pushLifetime)}
	o.mu.Unlock()
	x.writeJSON(http.StatusCreated, map[string]any{"request_uri": uri, "expires_in": int64(pushLifetime / time.Second)})
}

// readRequest reads an authorization request (RFC 6749 §4.1.1). If it has a client and a redirect URI that may be answered, it is
// returned besides the error.
func (o *OAuth) readRequest(q url.Values) (r *oauthRequest, code, problem string) {
	client := o.client(q.Get("client_id"))
	if client == nil {
		return nil, "invalid_client", "unknown client"
	}
	if !client.mayRedirect(q.Get("redirect_uri")) {
		return nil, "invalid_request", "the client may not redirect there"
	}
	r = &oauthRequest{client: client, redirectURI: q.Get("redirect_uri"), state: q.Get("state"), challenge: q.Get("code_challenge"),
		scope: q.Get("scope"), made: time.Now()}
	for name, values := range q {
		if len(values) > 1 && name != "resource" {
			return r, "invalid_request", "a parameter is there more than once"
		}
	}
	switch {
	case q.Get("response_type") != "code":
		return r, "unsupported_response_type", "it is not code"
	case q.Get("code_challenge_method") != "S256" || len(r.challenge) != 43:
		return r, "invalid_request", "PKCE by S256 is wanted (RFC 7636)"
	case o.scopeProblem(r.scope) != "":
		return r, "invalid_scope", o.scopeProblem(r.scope)
	case !isResource(q["resource"]):
		return r, "invalid_target", "it is no resource (RFC 8707)"
	}
	return r, "", ""
}

// serveAuthorize asks the person, or redirects back with an error.
func (o *OAuth) serveAuthorize(x *exchange) {
	q := x.r.URL.Query()
	if uri := q.Get("request_uri"); uri != "" {
		o.mu.Lock()
		pushed, ok := o.pushed[uri]
		delete(o.pushed, uri)
		o.mu.Unlock()
		if !ok || pushed.Get("client_id") != q.Get("client_id") || !time.Now().Before(pushed.ends) {
			x.page(http.StatusBadRequest, "the request_uri is unknown, or has ended")
			return
		}
		q = pushed.Values
	} else if o.RequirePushed {
		x.page(http.StatusBadRequest, "authorization requests must be pushed (RFC 9126)")
		return
	}
	r, code, problem := o.readRequest(q)
	switch {
	case x.r.Method != http.MethodGet:
		x.page(http.StatusMethodNotAllowed, "use GET")
	case r == nil:
		x.page(http.StatusBadRequest, problem)
	case code != "":
		x.redirect(o.answer(r, url.Values{"error": {code}, "error_description": {problem}}))
	default:
		o.ask(x, r)
	}
}

// ask shows the page on which the person decides.
func (o *OAuth) ask(x *exchange, r *oauthRequest) {
	ticket := rand.Text()
	o.mu.Lock()
	if o.pending == nil {
		o.pending = map[string]*oauthRequest{}
	}
	o.pending[ticket] = r
	o.mu.Unlock()
	x.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(x.w, `<!doctype html><title>authtest</title><p>%s asks for: %s</p>
<form method="post" action="%s"><input type="hidden" name="ticket" value="%s">
<button id="allow" name="decision" value="allow">Allow</button> <button id="deny" name="decision" value="deny">Deny</button></form>
`, html.EscapeString(r.client.id), html.EscapeString(orDefault(r.scope, "nothing in particular")), oauthDecide, ticket)
}

// serveDecision takes the person's decision.
func (o *OAuth) serveDecision(x *exchange) {
	form := x.readForm()
	o.mu.Lock()
	r, ok := o.pending[form.Get("ticket")]
	delete(o.pending, form.Get("ticket"))
	o.mu.Unlock()
	allowed := form.Get("decision") == "allow"
	switch {
	case x.r.Method != http.MethodPost || !ok:
		x.page(http.StatusBadRequest, "there is nothing to decide")
	case r.device != nil:
		o.decideDevice(r, allowed)
		x.page(http.StatusOK, "you may close this window")
	case !allowed:
		x.redirect(o.answer(r, url.Values{"error": {"access_denied"}}))
	default:
		code := "code-" + rand.Text()
		o.mu.Lock()
		if o.codes == nil {
			o.codes = map[string]*oauthRequest{}
		}
		r.made = time.Now()
		o.codes[code] = r
		o.logins++
		o.mu.Unlock()
		x.redirect(o.answer(r, url.Values{"code": {code}}))
	}
}

// answer returns where the answer to a request goes.
func (o *OAuth) answer(r *oauthRequest, values url.Values) string {
	values.Set("iss", o.url())
	if r.state != "" {
		values.Set("state", r.state)
	}
	u, _ := url.Parse(r.redirectURI) // which mayRedirect has read
	query := u.Query()
	for name := range values {
		query.Set(name, values.Get(name))
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// redeem exchanges a code for the login that it stands for. If it is used twice, what came of it ends.
func (o *OAuth) redeem(client *oauthClient, values url.Values) (login *family, problem string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r, ok := o.codes[values.Get("code")]
	sum := sha256.Sum256([]byte(values.Get("code_verifier")))
	switch {
	case !ok || time.Since(r.made) > codeLifetime:
		return nil, "the code is unknown, or has ended"
	case r.used:
		if r.login != nil {
			o.tokens.mu.Lock()
			r.login.revoked = true
			o.tokens.mu.Unlock()
		}
		return nil, "the code was used before"
	}
	r.used = true
	switch {
	case r.client.id != client.id:
		return nil, "the code is another client's"
	case r.redirectURI != values.Get("redirect_uri"):
		return nil, "the redirect_uri is another one"
	case !isVerifier(values.Get("code_verifier")):
		return nil, "the code_verifier is not 43 to 128 letters, digits and -._~ (RFC 7636 §4.1)"
	case base64.RawURLEncoding.EncodeToString(sum[:]) != r.challenge:
		return nil, "the code_verifier is another one (RFC 7636 §4.6)"
	}
	r.login = &family{scope: r.scope, client: client.id}
	return r.login, ""
}

// isVerifier reports whether s is a code_verifier (RFC 7636 §4.1).
func isVerifier(s string) bool {
	return len(s) >= 43 && len(s) <= 128 && isB64Token(s) && !strings.ContainsAny(s, "+/=")
}

// page answers a person.
func (x *exchange) page(status int, text string) {
	x.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	x.w.WriteHeader(status)
	fmt.Fprintf(x.w, "<!doctype html><title>authtest</title><p>%s</p>\n", html.EscapeString(text))
}

func (x *exchange) redirect(to string) {
	x.w.Header().Set("Location", to)
	x.w.WriteHeader(http.StatusFound)
}
