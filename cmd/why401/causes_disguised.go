package main

import (
	"encoding/json"
	"net/http"
	"strings"
)

// isDisguised reports whether the response is a refusal that does not look like one, and notes why.
func (in *inquiry) isDisguised() bool {
	for _, find := range []func() *cause{in.badRequestToken, in.apiError, in.grpc, in.graphQL, in.loginPage, in.badRequestSign, in.badRequestName, in.badRequestTyping} {
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

// apiError is for a refusal in the JSON of a 200: {"ok": false, "error": "invalid_auth"}, or {"code": 401, "msg": …}.
func (in *inquiry) apiError() *cause {
	var answer struct {
		OK           *bool
		Error        any
		Code, Status any
	}
	if in.resp.StatusCode >= 300 || json.Unmarshal([]byte(in.body), &answer) != nil {
		return nil
	}
	says, sure := "", certain
	if name, _ := answer.Error.(string); answer.OK != nil && !*answer.OK && apiErrors[name] {
		says = name
	}
	for _, v := range []any{answer.Code, answer.Status} {
		if n, _ := v.(float64); n == 401 || n == 403 {
			says, sure = statusText(int(n)), likely
		}
	}
	if says == "" {
		return nil
	}
	text := "The answer says in a 200 that the caller is not let in. It says: " + says + "."
	if message := strings.Join(strings.Fields(messageIn(in.resp, in.body)), " "); message != "" && message != says {
		text += " And: “" + in.clean.text(message, mostMessage) + "”."
	}
	fix := "Get a new token, or one that may do this."
	if !in.gave() {
		fix = "Send credentials: -token-env for a token, -H for a key."
	}
	return &cause{"api-error", sure, text, fix + " " + refuser + "read r.Body, up to 64 KiB, and look for the error."}
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
	message := in.resp.Header.Get("Grpc-Message") + in.resp.Trailer.Get("Grpc-Message")
	if message != "" {
		message = " It says: “" + in.clean.text(message, 200) + "”."
	}
	switch status {
	case "16":
		return &cause{"grpc", certain, "gRPC says that the caller is not authenticated (status 16). The HTTP status is 200 nevertheless, since gRPC has its own." + message,
			"Send a token: -token-env here, PerRPCCredentials in a program. The one of a TokenSource is refreshed; " + strings.ToLower(refuser[:1]) + refuser[1:] + "func(r *http.Response) bool { return r.Header.Get(\"Grpc-Status\") == \"16\" }"}
	case "7":
		return &cause{"grpc-permission", certain, "gRPC says that the caller may not do this (status 7). The HTTP status is 200 nevertheless, since gRPC has its own." + message,
			"Have the permission granted to the user or the token."}
	}
	return nil
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
			if !hasAny(strings.ToLower(in.clean.redact(e.Message)), "unauthorized", "not authorized", "unauthenticated", "not authenticated", "authentication", "not logged in", "must be logged in", "invalid token", "jwt") {
				continue
			}
		}
		text := "GraphQL says in a 200 that the caller is not let in."
		if code != "" {
			text += " Its code is " + in.clean.text(code, 60) + "."
		}
		if e.Message != "" {
			text += " It says: “" + in.clean.text(e.Message, 300) + "”."
		}
		fix := "Get a new token, or one that may do this."
		if !in.gave() {
			fix = "Send a token, with -token-env."
		}
		return &cause{"graphql", sure, text, fix + " " + refuser + "read r.Body, up to 64 KiB, and look for errors[].extensions.code."}
	}
	return nil
}

// loginPage is for a form where a program wants data.
func (in *inquiry) loginPage() *cause {
	if in.resp.StatusCode >= 300 || !isLoginPage(in.resp, strings.ToLower(in.body)) {
		return nil
	}
	sure, text := likely, "The answer is a login page for people, in place of a refusal."
	if len(in.hops) > 1 && isLoginPath(in.asked().Path) {
		sure, text = certain, text+" A redirect has led to it."
	}
	fix := "Send a token, or ask the API's own URL rather than the website's. "
	if in.gave() {
		text += " So what was sent is not accepted, or not looked at."
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
	return form || resp.Request.Response != nil && isLoginPath(resp.Request.URL.Path)
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
