package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// isDisguised reports whether the response is a refusal that does not look like one, and notes why.
func (in *inquiry) isDisguised() bool {
	for _, find := range []func() *cause{in.badRequestToken, in.apiError, in.faultIn200, in.grpc, in.graphQL, in.failedEvent, in.firewallPage, in.cloudflareAccess, in.captivePortal, in.loginPage, in.badRequestSign, in.oauthError, in.badRequestName, in.badRequestTyping} {
		if in.disguise = find(); in.disguise != nil {
			return true
		}
	}
	return false
}

func (in *inquiry) disguised() *cause { return in.disguise }

// refuser is what a program needs where a refusal is not a 401.
const refuser = "In a program, Transport.Refused says which responses are refusals: "

// badRequestToken is for an OAuth error under another status than 401 (RFC 6750 §3.1 has 401 for it).
func (in *inquiry) badRequestToken() *cause {
	code := in.param("error")
	if code == "" && in.resp.StatusCode >= 400 {
		var answer struct{ Error any }
		if json.Unmarshal([]byte(in.body), &answer) == nil {
			code, _ = answer.Error.(string)
		}
	}
	if code != "invalid_token" && code != "token_expired" && code != "expired_token" {
		return nil
	}
	return &cause{"invalid-token-status", certain, "The server says that the token is not valid. Its error is " + code + ", and it says so with the status " + statusText(in.resp.StatusCode) + ", where a 401 was due (RFC 6750 §3.1).",
		"Get a new token, for this server and from the issuer it trusts. " + refuser + "func(r *http.Response) bool { return r.StatusCode == " + statusNumber(in.resp.StatusCode) + " }, or what its body says."}
}

// apiErrors are what APIs that always answer 200 say of credentials: Slack's codes.
var apiErrors = map[string]bool{"not_authed": true, "invalid_auth": true, "token_expired": true, "token_revoked": true, "account_inactive": true,
	"missing_scope": true, "not_allowed_token_type": true, "no_permission": true, "access_denied": true, "unauthorized": true}

// apiError is for a refusal in the JSON of a 200: {"ok": false, "error": "invalid_auth"}, {"code": 401, "msg": …}, the error of JSON-RPC
// and of Esri, {"error": {"code": 499, "message": …}}, {"success": false, "errors": […]}, or {"errcode": 40001, "errmsg": …}.
func (in *inquiry) apiError() *cause {
	var answer map[string]any
	if in.resp.StatusCode >= 300 || json.Unmarshal([]byte(in.body), &answer) != nil {
		return nil
	}
	says, sure := "", certain
	isFailure := answer["ok"] == false || answer["success"] == false
	if name, _ := answer["error"].(string); isFailure && apiErrors[name] {
		says = name
	}
	details, _ := answer["error"].(map[string]any)
	if list, _ := answer["errors"].([]any); isFailure && len(list) > 0 {
		details, _ = list[0].(map[string]any)
	}
	for _, v := range []any{answer["code"], answer["status"], details["code"]} {
		switch n, _ := v.(float64); n {
		case 401, 403:
			says, sure = statusText(int(n)), likely
		case 498, 499:
			says, sure = statusText(int(n)), certain
		}
	}
	messages := []any{details["message"], details["data"]}
	if code, _ := answer["errcode"].(float64); isFailure || code != 0 {
		messages = append(messages, answer["message"], answer["msg"], answer["errmsg"])
	}
	for _, v := range messages {
		if message, _ := v.(string); says == "" && hasAny(strings.ToLower(in.clean.redact(message)), refusing...) {
			says, sure = in.clean.text(strings.TrimRight(message, "."), mostMessage), likely
		}
	}
	if says == "" {
		return nil
	}
	text := "The answer says in a 200 that the caller is not let in. It says: “" + straightQuotes.Replace(says) + "”."
	if message := in.shortMessage(); message != "" && message != says {
		text += " And: “" + message + "”."
	}
	fix := "Get a new token, or one that may do this."
	switch {
	case in.last() == "" && in.header.Get("Cookie") != "":
		fix = "Log in again, and send the new cookie."
	case !in.gave():
		fix = "Send credentials: -token-env for a token, -H for a key."
	}
	return &cause{"api-error", sure, text, fix + " " + refuser + "read r.Body, up to 64 KiB, and look for the error."}
}

// refusing are words of messages that refuse, in lower case.
var refusing = []string{"unauthorized", "not authorized", "unauthenticated", "not authenticated", "authentication", "not logged in", "must be logged in", "invalid token", "jwt",
	"not authorised", "session expired", "session has expired", "session terminated", "access_token", "invalid credential", "username or password", "user name or password"}

// faultIn200 is for a fault of SOAP that refuses, under a status that does not.
func (in *inquiry) faultIn200() *cause {
	if in.resp.StatusCode >= 300 || !hasAny(in.words, "fault>", "<fault ") {
		return nil
	}
	c := in.signOf(http.StatusInternalServerError, in.words)
	if c == nil || c.Name != "soap" && c.Name != "session-invalid" {
		return nil
	}
	c.Text += " It says so in a " + statusNumber(in.resp.StatusCode) + ", where a 500 is due (SOAP 1.1 §6.2)."
	c.Fix += " " + refuser + "read r.Body, up to 64 KiB, and look for the fault."
	return c
}

func statusNumber(status int) string {
	number, _, _ := strings.Cut(statusText(status), " ")
	return number
}

// grpc is for gRPC's own status, in a header or trailer of a 200.
func (in *inquiry) grpc() *cause {
	status := in.resp.Header.Get("Grpc-Status")
	if status == "" {
		status = in.resp.Trailer.Get("Grpc-Status")
	}
	said, message := grpcMessage(in.resp), ""
	if said != "" {
		message = " It says: " + in.clean.quote(said, 200) + "."
	}
	const refused = "func(r *http.Response) bool { return r.Header.Get(\"Grpc-Status\") == \"16\" }"
	switch status {
	case "16":
		text := "gRPC says that the caller is not authenticated (status 16). The HTTP status is 200 nevertheless, since gRPC has its own." + message
		switch c := in.signOf(http.StatusUnauthorized, strings.ToLower(said)); {
		case c != nil && strings.HasPrefix(c.Name, "token-"):
			return &cause{"grpc", certain, c.Text + " It is gRPC's status 16, in a 200, since gRPC has a status of its own." + message, c.Fix + " " + strings.TrimPrefix(refuser, "In a program, ") + refused}
		case in.gave():
			return &cause{"grpc", certain, text, "Get a new token, for this server. One of a TokenSource is refreshed; " + strings.ToLower(refuser[:1]) + refuser[1:] + refused}
		}
		return &cause{"grpc", certain, text,
			"Send a token: -token-env here, PerRPCCredentials in a program. The one of a TokenSource is refreshed; " + strings.ToLower(refuser[:1]) + refuser[1:] + refused}
	case "7":
		return &cause{"grpc-permission", certain, "gRPC says that the caller may not do this (status 7). The HTTP status is 200 nevertheless, since gRPC has its own." + message,
			"Have the permission granted to the user or the token."}
	}
	return nil
}

// grpcMessage returns what gRPC says, which is percent-encoded in a header or a trailer.
func grpcMessage(resp *http.Response) string {
	message := resp.Header.Get("Grpc-Message") + resp.Trailer.Get("Grpc-Message")
	if plain, err := url.PathUnescape(message); err == nil {
		return plain
	}
	return message
}

// graphQLCodes are what servers put into extensions.code, in lower case with underscores: Apollo, Hasura, Hot Chocolate, GitHub, AppSync.
var graphQLCodes = map[string]bool{"unauthenticated": true, "unauthorized": true, "unauthorizedexception": true, "auth_not_authenticated": true,
	"not_authenticated": true, "invalid_jwt": true, "invalid_headers": true, "jwt_expired": true, "access_denied": true, "auth_not_authorized": true, "forbidden": true}

// graphQL is for errors in a 200.
func (in *inquiry) graphQL() *cause {
	var answer struct {
		Errors []struct {
			Message    string
			Type       string
			Extensions struct{ Code any }
		}
	}
	if in.resp.StatusCode >= 300 || json.Unmarshal([]byte(in.body), &answer) != nil {
		return nil
	}
	for _, e := range answer.Errors {
		code, _ := e.Extensions.Code.(string)
		if code == "" {
			code = e.Type
		}
		sure := certain
		if !graphQLCodes[strings.ReplaceAll(strings.ToLower(code), "-", "_")] {
			sure = likely
			if !hasAny(strings.ToLower(in.clean.redact(e.Message)), refusing...) {
				continue
			}
		}
		text := "GraphQL says in a 200 that the caller is not let in."
		if code != "" {
			text += " Its code is " + in.clean.text(code, 60) + "."
		}
		if e.Message != "" {
			text += " It says: " + in.clean.quote(e.Message, 300) + "."
		}
		fix := "Get a new token, or one that may do this."
		if !in.gave() {
			fix = "Send a token, with -token-env."
		}
		return &cause{"graphql", sure, text, fix + " " + refuser + "read r.Body, up to 64 KiB, and look for errors[].extensions.code."}
	}
	return nil
}

// failedEvent is for an event of a stream (text/event-stream) that refuses.
func (in *inquiry) failedEvent() *cause {
	if in.resp.StatusCode >= 300 || !strings.HasPrefix(in.resp.Header.Get("Content-Type"), "text/event-stream") || !strings.Contains(in.words, "event: error") {
		return nil
	}
	c := in.signOf(http.StatusUnauthorized, in.words)
	if c == nil {
		return nil
	}
	c.Sure = likely
	c.Text += " It says so in an event of the stream, under a status that is none of a refusal."
	return c
}

// firewallPage is for a firewall's page that refuses under a status that does not: F5's does so by default.
func (in *inquiry) firewallPage() *cause {
	if in.resp.StatusCode >= 300 || !in.says("<title>request rejected</title>") {
		return nil
	}
	c := in.signOf(http.StatusForbidden, in.words)
	if c == nil || c.Name != "firewall" {
		return nil
	}
	c.Text += " It says so in a " + statusNumber(in.resp.StatusCode) + ", which a program takes for success."
	return c
}

// cloudflareAccess is for a redirect to the login page of Cloudflare Access.
func (in *inquiry) cloudflareAccess() *cause {
	hops := in.requests()
	if len(hops) < 2 || !left(hops) || !strings.HasPrefix(in.asked().Path, "/cdn-cgi/access/") {
		return nil
	}
	if in.header.Get("Cf-Access-Client-Id") != "" {
		return &cause{"cloudflare-access", certain, "Cloudflare Access does not take the service token that was sent. It has redirected to its login page, " + in.clean.url(originURL(in.asked())) + ", before the server was asked.",
			"Check both headers, and the application's policy in Cloudflare. Its action must be Service Auth."}
	}
	return &cause{"cloudflare-access", certain, "Cloudflare Access wants a login, or a service token of its own. It has redirected to its login page, " + in.clean.url(originURL(in.asked())) + ", before the server was asked.",
		"Send CF-Access-Client-Id and CF-Access-Client-Secret, with -H. They come besides the credentials of the server."}
}

// captivePortal is for a network that sends to a page of its own whoever has not logged in to it.
func (in *inquiry) captivePortal() *cause {
	hops := in.requests()
	if len(hops) == 0 || in.resp.StatusCode >= 400 || !strings.Contains(in.resp.Header.Get("Content-Type"), "html") {
		return nil
	}
	isLed, isLogin := left(hops), isLoginPage(in.resp, strings.ToLower(in.body))
	speaks := isLogin && in.says("captive portal", "hotspot", "wifi", "wi-fi", "guest network")
	how := "A redirect has led to " + in.clean.url(originURL(in.asked())) + ", which"
	switch {
	case isLed && (speaks || hasAny(strings.ToLower(in.asked().Host+in.asked().Path), "captive", "hotspot")):
	case speaks && in.asked().Scheme == "http": // over https, it cannot answer for the server
		how = "Something on the way has answered in the place of the server, with what"
	default:
		return nil
	}
	return &cause{"captive-portal", likely, "The network wants a login: the server was not asked. " + how + " looks like the login page of a network, as hotels and trains have it.",
		"Open any page in a browser on this network, and log in. Credentials for the server do not help."}
}

// loginPage is for a form where a program wants data.
func (in *inquiry) loginPage() *cause {
	if in.resp.StatusCode >= 300 || !isLoginPage(in.resp, strings.ToLower(in.body)) {
		return nil
	}
	sure, led := likely, ""
	if len(in.hops) > 1 && isLoginPath(in.asked().Path) {
		sure, led = certain, " A redirect has led to it."
	}
	text, fix := "The answer is a login page for people, in place of a refusal."+led, "Send a token, or ask the API's own URL rather than the website's. "
	switch {
	case in.last() == "" && in.header.Get("Cookie") != "":
		text = "The session has ended: the cookie leads to a login page." + led
		fix = "Log in again, and send the new cookie. Or ask the API's own URL, with a token: sessions are for browsers. "
	case in.gave():
		text += " So what was sent is not accepted, or not looked at."
		fix = "Ask the API's own URL, not the website's, or get a new " + in.kind() + ". "
	}
	return &cause{"login-page", sure, text + " A program would take its " + statusText(in.resp.StatusCode) + " for success.",
		fix + refuser + "func(r *http.Response) bool { return strings.HasPrefix(r.Header.Get(\"Content-Type\"), \"text/html\") }"}
}

// isLoginPage reports whether a response is HTML with a field for a password, or where a redirect led that is about logins.
// Words is its body, in lower case.
func isLoginPage(resp *http.Response, words string) bool {
	if !strings.Contains(resp.Header.Get("Content-Type"), "html") {
		return false
	}
	form := hasAny(words, `type="password"`, `type='password'`, `type=password`)
	if resp.StatusCode == http.StatusNonAuthoritativeInfo && strings.Contains(words, "sign in") { // Azure DevOps
		return true
	}
	return form || strings.Contains(words, `name="samlrequest"`) || resp.StatusCode < 300 && isLoginPath(leadsTo(words)) ||
		resp.Request.Response != nil && isLoginPath(resp.Request.URL.Path)
}

// leadsTo returns where a page sends a browser at once, by a meta element or a script, without its host and its query; "" if it does not.
func leadsTo(words string) string {
	for _, mark := range []string{`http-equiv="refresh"`, "location.href", "location.replace", "window.location", "document.location"} {
		_, after, ok := strings.Cut(words, mark)
		if !ok {
			continue
		}
		after = after[:min(len(after), 300)]
		if _, to, ok := strings.Cut(after, "url="); ok && strings.HasPrefix(mark, "http-equiv") {
			after = `"` + strings.TrimLeft(to, `'"`)
		}
		i := strings.IndexAny(after, `'"`)
		if i < 0 || strings.ContainsAny(after[:i], "<;{") {
			continue
		}
		to, _, _ := strings.Cut(after[i+1:], after[i:i+1])
		if u, err := url.Parse(strings.TrimRight(to, `'">`)); err == nil {
			return u.Path
		}
	}
	return ""
}

func isLoginPath(path string) bool {
	return hasAny(strings.ToLower(path), "login", "signin", "sign-in", "sign_in", "sso", "oauth", "/auth")
}

// badRequestSign is for a status besides 401, 403 and 407 with which a server says in words what is the matter.
func (in *inquiry) badRequestSign() *cause {
	if in.resp.StatusCode < 400 {
		return nil
	}
	return in.sign()
}

// badRequestName is for a 400 to a user name that the server cannot read.
func (in *inquiry) badRequestName() *cause {
	if in.resp.StatusCode != http.StatusBadRequest || !in.user.given || in.last() == "" || isASCII(in.user.name) {
		return nil
	}
	return &cause{"not-ascii", likely, "The server cannot read a user name outside ASCII. It was sent in UTF-8, and answered with 400 (Bad Request), where a user name that is only wrong gets a 401. Tomcat and CherryPy are known for it.",
		"Take a user whose name is ASCII, or have the server take UTF-8. RFC 7617 §2.1 and RFC 7616 §4 have it."}
}
