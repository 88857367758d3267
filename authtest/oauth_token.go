package authtest

import (
	"crypto/rand"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// serveToken is the token endpoint (RFC 6749 §3.2).
func (o *OAuth) serveToken(x *exchange) {
	if x.r.Method != http.MethodPost {
		x.w.Header().Set("Allow", http.MethodPost)
		x.w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	client, code, problem := o.authenticated(x.r, x.form)
	var token *oauth2.Token
	if code == "" {
		token, code, problem = o.grant(client, x.form)
	}
	if code != "" {
		x.tokenError(code, problem)
		return
	}
	x.tokenResponse(token)
}

// grant performs the grant that the form asks for.
func (o *OAuth) grant(client *oauthClient, form url.Values) (token *oauth2.Token, code, problem string) {
	kind, scope := form.Get("grant_type"), form.Get("scope")
	if !isResource(form["resource"]) {
		return nil, "invalid_target", "it is no resource (RFC 8707)"
	}
	if problem := o.scopeProblem(scope); problem != "" {
		return nil, "invalid_scope", problem
	}
	login, withRefresh := (*family)(nil), true
	switch kind {
	case "refresh_token":
		return o.refresh(client, form)
	case "authorization_code":
		if login, problem = o.redeem(client, form); login == nil {
			return nil, "invalid_grant", problem
		}
	case deviceGrantType:
		if login, code = o.redeemDevice(client, form.Get("device_code")); login == nil {
			return nil, code, "see RFC 8628 section 3.5"
		}
	case "client_credentials":
		if client.secret == "" {
			return nil, "unauthorized_client", "client_credentials is not for a client without a secret (RFC 6749 §4.4)"
		}
		login, withRefresh = &family{scope: scope, client: client.id}, false
	default:
		return nil, "unsupported_grant_type", "the grant_type is not supported"
	}
	o.tokens.mu.Lock()
	defer o.tokens.mu.Unlock()
	return o.tokens.issue(login, login.scope, withRefresh), "", ""
}

func (o *OAuth) refresh(client *oauthClient, form url.Values) (token *oauth2.Token, code, problem string) {
	if o.NoResourceOnRefresh && form.Has("resource") {
		return nil, "invalid_request", "the resource parameter is not supported in this request"
	}
	value := form.Get("refresh_token")
	o.tokens.mu.Lock()
	defer o.tokens.mu.Unlock()
	if r, known := o.tokens.refresh.get(value); known && r.client != client.id {
		return nil, "invalid_grant", "the refresh token is another client's"
	}
	return o.tokens.rotate(value, form.Get("scope"))
}

// A deviceLogin is a login by a device (RFC 8628).
type deviceLogin struct {
	request  *oauthRequest
	userCode string
	interval time.Duration
	ends     time.Time
	polled   time.Time
	decided  bool
	allowed  bool
}

// serveDevice is the device authorization endpoint (RFC 8628 §3.1).
func (o *OAuth) serveDevice(x *exchange) {
	form := x.readForm()
	client, code, problem := o.authenticated(x.r, form)
	if code == "" {
		if problem = o.scopeProblem(form.Get("scope")); problem != "" {
			code = "invalid_scope"
		} else if !isResource(form["resource"]) {
			code, problem = "invalid_target", "it is no resource (RFC 8707)"
		}
	}
	if code != "" {
		x.tokenError(code, problem)
		return
	}
	lifetime := o.DeviceLifetime
	if lifetime == 0 {
		lifetime = 10 * time.Minute
	}
	text := rand.Text()
	d := &deviceLogin{userCode: text[:4] + "-" + text[4:8], interval: o.deviceInterval(), ends: time.Now().Add(lifetime), polled: time.Now()}
	d.request = &oauthRequest{client: client, scope: form.Get("scope"), device: d}
	deviceCode := "device-" + rand.Text()
	o.mu.Lock()
	if o.devices == nil {
		o.devices = map[string]*deviceLogin{}
	}
	o.devices[deviceCode] = d
	o.mu.Unlock()
	at := o.url() + oauthVerify
	x.writeJSON(http.StatusOK, map[string]any{"device_code": deviceCode, "user_code": d.userCode, "verification_uri": at,
		"verification_uri_complete": at + "?user_code=" + d.userCode, "expires_in": int64(lifetime / time.Second), "interval": int64(d.interval / time.Second)})
}

// serveVerify is where the person types the code.
func (o *OAuth) serveVerify(x *exchange) {
	code := strings.ToUpper(x.r.URL.Query().Get("user_code"))
	if code == "" {
		x.page(http.StatusOK, "add ?user_code= and the code to the address")
		return
	}
	o.mu.Lock()
	var found *oauthRequest
	for _, d := range o.devices {
		if d.userCode == code && !d.decided && time.Now().Before(d.ends) {
			found = d.request
		}
	}
	o.mu.Unlock()
	if found == nil {
		x.page(http.StatusBadRequest, "there is no such code")
		return
	}
	o.ask(x, found)
}

func (o *OAuth) decideDevice(r *oauthRequest, allowed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !r.device.decided && allowed {
		o.logins++
	}
	r.device.decided, r.device.allowed = true, allowed
}

// redeemDevice exchanges a device code for the login that it stands for, or returns the error code (RFC 8628 §3.5).
func (o *OAuth) redeemDevice(client *oauthClient, code string) (login *family, failure string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d, ok := o.devices[code]
	if !ok || d.request.client.id != client.id {
		return nil, "invalid_grant"
	}
	now := time.Now()
	early := now.Sub(d.polled) < d.interval-50*time.Millisecond // clocks and timers are not exact
	d.polled = now
	switch {
	case !now.Before(d.ends):
		return nil, "expired_token"
	case early:
		d.interval += 5 * time.Second
		return nil, "slow_down"
	case !d.decided:
		return nil, "authorization_pending"
	}
	delete(o.devices, code)
	if !d.allowed {
		return nil, "access_denied"
	}
	return &family{scope: d.request.scope, client: client.id}, ""
}

// readForm reads the form in a request's body; nil if that is none.
func (x *exchange) readForm() url.Values {
	if kind, _, _ := strings.Cut(x.r.Header.Get("Content-Type"), ";"); strings.TrimSpace(kind) != "application/x-www-form-urlencoded" {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(x.r.Body, maxForm+1))
	if err != nil || len(body) > maxForm {
		return nil
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil
	}
	return form
}
