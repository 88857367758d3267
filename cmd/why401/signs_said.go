package main

import (
	"net/http"
	"strings"
)

// Statuses of refusals, and of what some servers send in their place.
var (
	refusals    = []int{400, 401, 403}
	moreStatus  = []int{400, 401, 403, 422, 423, 429}
	serverFault = []int{500, 502, 503, 504}
)

// sentAny reports whether anything was sent that may be a credential.
func sentAny(in *inquiry) bool { return in.gave() }

// sentPassword reports whether a password was sent.
func sentPassword(in *inquiry) bool {
	return strings.EqualFold(in.last(), "Basic") || strings.EqualFold(in.last(), "Digest")
}

// sentToken reports whether something else than a password was sent, be it in the URL.
func sentToken(in *inquiry) bool {
	return in.gave() && !sentPassword(in) || !in.gave() && in.url != nil && in.keyInQuery() != ""
}

// saidSigns are what servers say in so many words, looked through in order after knownSigns.
var saidSigns = []sign{
	// Of people and their passwords.
	{"captcha", certain, refusals, "X-Authentication-Denied-Reason: captcha", nil, nil, // Jira
		"The server wants a CAPTCHA, after logins that failed.", "Log in once in a browser, as the same user. Then have the program stop trying a wrong password."},
	{"account-locked", certain, moreStatus, "", []string{"account is locked", "account locked", "account has been locked", "<lockstatus>lock<", "user is locked", "is locked after", "locked out", "temporarily locked", "too many failed", "too many authentication failures", "too many login attempts"}, nil,
		"The account is locked, or held up after failed logins.", "Wait, or have it unlocked. No password gets in until then, and each more may make it longer."},
	{"password-expired", certain, moreStatus, "", []string{"password has expired", "password expired", "password is expired", "must change your password", "password must be changed"}, sentPassword,
		"The password has expired.", "Log in by a browser, and choose a new one."},
	{"account-disabled", certain, moreStatus, "", []string{"account is disabled", "account disabled", "account has been disabled", "user is disabled", "user disabled", "account is inactive", "account inactive", "account_inactive", "account suspended", "account is suspended", "account has been suspended", "account deactivated"}, nil,
		"The account is disabled.", "Have it enabled by whoever runs the server."},
	{"email-unverified", certain, moreStatus, "", []string{"email not verified", "email is not verified", "email address is not verified", "verify your email"}, nil,
		"The account's email address is not verified.", "Open the link in the service's mail, or have it sent anew."},
	{"second-factor", certain, refusals, "X-Github-Otp: required", nil, nil,
		"The account has two-factor login, and no code was sent.", "Use a personal access token in place of the password."},
	{"second-factor", likely, refusals, "", []string{"mfa required", "mfa_required", "mfa is required", "multi-factor authentication required", "multi-factor authentication is required", "otp required", "must use multi-factor authentication", "two-factor authentication required", "two-factor authentication is required"}, nil,
		"The server wants a second factor of the login.", "Use a token, or an app password, in place of the password. A token must come of a login with that factor."},
	{"token-for-password", certain, refusals, "", []string{"support for password authentication was removed", "password authentication is not supported", "basic authentication is disabled", "basic authentication has been disabled", "basic auth is disabled", "basic authentication with passwords is deprecated", "basic auth with password is not allowed"}, sentPassword,
		"The server takes no passwords here.", "Use a token: a personal access token or an app password."},
	{"token-for-password", likely, refusals, "", []string{"required to use a token instead of a password", "or your account has 2fa enabled"}, sentPassword, // GitLab
		"The password is wrong, or the server wants a token in its place.", "Try a personal access token as the password. Users with two-factor login need one."},

	{"digest-uri", certain, []int{400, 401}, "", []string{"uri mismatch", "does not match request-uri"}, func(in *inquiry) bool { return strings.EqualFold(in.last(), "Digest") }, // Apache
		"A proxy has changed the URI, which Digest has in its hash.", "Have the proxy pass the URI on as it is, or do Digest itself. Or take Basic over https, which has no URI in it."},

	// Of tokens and keys.
	{"api-key-wrong", certain, refusals, "", []string{"invalid api key", "api key not valid", "api_key_invalid", "invalid_api_key", "api key is invalid", "incorrect api key", "unknown api key", "invalid x-api-key"}, nil,
		"The server says that the API key is not valid.", "Check the key, all of it, and its environment (test, live). Where there is none of yours, get one."},
	{"api-key-expired", certain, refusals, "", []string{"expired api key", "api key expired", "api key has expired", "api key is expired"}, nil,
		"The server says that the API key has expired.", "Make a new one, and put it where the program reads it."},
	{"api-key-restricted", certain, refusals, "", []string{"api_key_http_referrer_blocked", "api_key_ip_address_blocked", "api_key_service_blocked", "api_key_android_app_blocked", "requests from referer"}, nil,
		"The API key's restrictions forbid this caller or service.", "Change the key's restrictions, or use a key that is made for this."},
	{"api-key-wanted", certain, refusals, "", []string{"x-api-key header is required", "missing x-api-key", "x-api-key is missing", "x-api-key is required", "no x-api-key"}, nil,
		"The server wants an API key in the header X-API-Key.", "Send it there: -H 'X-API-Key: KEY'. In a program: &authretry.APIKey{Header: \"X-API-Key\", Key: os.Getenv(\"KEY\")}"},
	{"azure-key", certain, refusals, "", []string{"missing subscription key", "invalid subscription key"}, nil, // Azure API Management
		"Azure API Management has seen no good subscription key.", "Send it with -H 'Ocp-Apim-Subscription-Key: KEY'. The challenge may name another header. In a program: &authretry.APIKey{Header: \"Ocp-Apim-Subscription-Key\", Key: os.Getenv(\"KEY\")}"},
	{"api-key-wanted", certain, refusals, "", []string{"no api key found", "no api key provided", "no api key was provided", "no api key in", "api key not provided", "api key was not provided", "didn't provide an api key", "did not provide an api key", "missing a valid api key", "missing api key", "missing api_key", "api key is missing", "api key required", "api key is required", "method doesn't allow unregistered callers"}, nil,
		"The server wants an API key, and has seen none.", "Send it in the header that its documentation names, with -H. Kong's is apikey, Google's X-Goog-Api-Key."},
	{"token-expired-said", certain, moreStatus, "", []string{"jwt expired", "jwt is expired", "token expired", "token has expired", "token is expired", "expired token", "expired_token", "expired_access_token", "token_expired", `:"expired"`, `: "expired"`, "session expired", "session has expired", "session is expired", `"exp" claim timestamp check failed`, "signature has expired", "token used has expired", "session has timed out", "session timed out", "session timeout", "session_timeout"}, func(in *inquiry) bool { return sentToken(in) || sentPassword(in) && in.says("token") }, // tokens stand in for passwords, too
		"The server says that the token or session has expired.", "Get a new one. In a program, give authretry.Bearer a TokenSource: it refreshes in time."},
	{"token-revoked", certain, moreStatus, "", []string{"token has been revoked", "token was revoked", "token revoked", "token is revoked", "token_revoked", "session has been revoked", "session was revoked", "session revoked", "blacklisted", "token has been invalidated", "token is no longer valid"}, sentToken,
		"The server says that the token was revoked.", "Log in again. The refresh token is probably revoked, too."},
	{"token-audience", certain, moreStatus, "", []string{"invalid audience", "audience invalid", "audience is invalid", "audience doesn't match", "audience does not match", "incorrect audience", "wrong audience", "audiences in jwt are not allowed", "bad audience", "the aud claim is not valid", `unexpected "aud" claim`, "jwt audience invalid", "invalid aud claim"}, sentToken,
		"The server says that the token is for another audience.", "Get one for this server. Compare its aud with what the server expects."},
	{"token-issuer", certain, moreStatus, "", []string{"invalid issuer", "issuer invalid", "issuer is invalid", "issuer is not configured", "unknown issuer", "untrusted issuer", "issuer mismatch", "the iss claim is not valid", `unexpected "iss" claim`, "invalid iss claim", "jwt issuer invalid", "credentials found for given 'iss'"}, sentToken,
		"The server says that it does not trust the token's issuer.", "Compare the token's iss with what the server is configured for."},
	{"issuer-keys", certain, moreStatus, "", []string{"jwks remote fetch", "fetch jwks", "fetching jwks", "fetch the jwks", "retrieve jwks", "retrieving jwks", "jwks endpoint", "remote jwk set"}, nil, // Envoy, Spring
		"The server cannot get the keys of the token's issuer. The token may be good.", "Have its owner see whether it reaches the issuer's jwks_uri."},
	{"token-algorithm", certain, moreStatus, "", []string{"invalid algorithm", "algorithm not allowed", "algorithm is not allowed", "alg value is not allowed", "unexpected signing method"}, sentToken,
		"The server does not take the algorithm of the token's signature.", "Compare its alg with what the server is configured for."},
	{"token-signature", certain, moreStatus, "", []string{"invalid signature", "signature verification failed", "signature is invalid", "invalid token signature", "jwsinvalidsignature", "doesn't have key to match kid", "signature key was not found", "signing key not found", "find a signing key", "find signing key", "unable to verify the signature", "jwt verification fails", "contains invalid signature", "no matching key(s) found"}, sentToken,
		"The server says that it cannot verify the token's signature.", "Compare the token's iss and kid with the keys of the server. Another environment has other keys."},
	{"token-not-yet", certain, moreStatus, "", []string{"jwt not active", "token not yet valid", "token is not yet valid", "jwt not yet valid", "jwt is not yet valid", "token used before issued"}, sentToken,
		"The server says that the token is not valid yet.", "Compare the clocks of the server and of the token's issuer."},
	{"clock-skew-said", certain, moreStatus, "", []string{"clock skew too great", "clock skew", "request timestamp is too"}, nil,
		"The server says that the clocks differ too much.", "Compare them, and set the one that is wrong. See timedatectl or chronyc tracking."},
	{"bearer-wanted", likely, refusals, "", []string{"expected 'authorization: bearer", "missing 'bearer' type", "only valid bearer authentication supported", "must use the bearer", "must use bearer", "bearer authentication is required", "bearer authentication required"}, func(in *inquiry) bool { return in.last() != "" && !strings.EqualFold(in.last(), "Bearer") },
		"The server wants a Bearer token, and was sent something else.", "Give it a token, with -token-env or -token-file."},
	{"token-malformed", certain, moreStatus, "", []string{"jwt malformed", "malformed token", "token is malformed", "not enough segments", "invalid number of segments", "jwt is not in the form", "jwt is not well formed", "cannot convert access token", "invalid number of parts", "invalid token format", "token contains an invalid number of segments", "only valid bearer authentication supported"}, func(in *inquiry) bool { return sentToken(in) && !in.says("missing or malformed") },
		"The server cannot read the token.", "Copy it anew, all of it and nothing else. Or it is of another kind: the server wants a JWT."},
	{"authorization-format", likely, refusals, "", []string{"malformed authorization header", "invalid format for authorization header", "authorization header is malformed", "invalid authorization header format", "authorization header format"}, sentAny,
		"The server cannot read the Authorization header that was sent.", "Send it as the documentation has it. It is often Bearer and a token, or Basic; some want another word there, or a header of their own."},
	{"dpop-wanted", certain, refusals, "", []string{"dpop proof required", "dpop proof is required", "dpop proof is missing", "missing dpop"}, nil,
		"The server wants a DPoP proof with the token.", "Use package dpop, with a token that is bound to a key (RFC 9449)."},
	{"vault-sealed", certain, []int{503}, "", []string{"vault is sealed"}, nil,
		"Vault is sealed, and answers nothing. The token may be good.", "Have it unsealed: vault operator unseal. No token helps before that."},
	{"token-in-query", likely, refusals, "", []string{"missing access_token parameter", "access_token parameter is missing", "missing parameter: access_token", "missing query parameter: access_token", "access_token query parameter"}, func(in *inquiry) bool { return in.pasted || in.url.Query().Get("access_token") == "" },
		"The server looks for the token in the URL: access_token=TOKEN.", "Send it there, if the documentation says so. URLs are logged: have the server take Authorization, if it can."},
	{"vault", certain, []int{400, 403}, "", []string{"missing client token"}, nil,
		"Vault has seen no token.", "Send it with -H 'X-Vault-Token: …', or as a Bearer."},
	{"token-invalid-said", likely, []int{403}, "", []string{"invalid access token", "invalid token", "token is invalid", "invalid authentication token", "invalid bearer token"}, sentToken,
		"The server says that the token is not valid.", "Get a new token, for this server. It says so with a 403, where a 401 is due: Transport.Refused tells a program."},
	{"password-wrong-said", likely, []int{400, 403}, "", []string{"authentication failed", "invalid authentication credentials", "invalid username or password", "invalid user name or password", "incorrect username or password", "password is incorrect", "wrong password",
		"invalid or non-existent authentication information", "login failed"}, sentPassword, // ClickHouse, PyPI
		"The server says that the user name or the password is wrong.", "Type the password anew, and check that the user is of this server. It says so with another status than 401: Transport.Refused tells a program."},
	{"scope-said", certain, moreStatus, "", []string{"insufficient_scope", "insufficient scope", "missing_scope", "missing required scope", "missing scope", "insufficient authentication scopes", "access_token_scope_insufficient"}, sentAny,
		"The token is good, but its scope does not allow this.", "Get a token with the scope that is wanted. The answer or the documentation names it. Refreshing it does not help."},
	{"client-secret-id", certain, refusals, "", []string{"aadsts7000215"}, nil, // Microsoft Entra
		"The secret is wrong, or it is the secret's ID, not its value.", "Take the column Value of the secret, not Secret ID. If the value is not known any more, make a new secret."},
	{"client-secret-expired", certain, refusals, "", []string{"aadsts7000222", "client secret has expired", "client secret is expired", "client secret expired"}, nil, // Microsoft Entra
		"The client's secret has expired.", "Make a new one, and put it where the program reads it. Note when that ends, too."},
	{"client-wrong", certain, refusals, "", []string{"invalid_client"}, nil, // RFC 6749 §5.2
		"The server says that the client's ID or secret is wrong.", "Check the client's ID and secret, and how it wants them. That is Basic (-u), or client_id and client_secret in the body (RFC 6749 §2.3.1)."},
	{"grant-wrong", certain, []int{400, 401}, "", []string{`"invalid_grant"`}, nil,
		"The server does not take the code, refresh token or password.", "Log in again. It has expired, was used before, or is of another client (RFC 6749 §5.2)."},
	{"token-invalid-status", certain, []int{498}, "", nil, nil, // Esri
		"The server says by its status 498 that the token is not valid.", "Get a new token, for this server."},
	{"token-wanted-status", certain, []int{499}, "", nil, nil,
		"The server says by its status 499 that it wants a token.", "Send a token, with -token-env. Esri's servers take it in the query, or in X-Esri-Authorization, too."},
	{"cookie-wanted", likely, []int{401, 403}, "", []string{"no auth cookie", "no session cookie", "missing session cookie", "session cookie is missing", "session cookie not found", "session cookie is required"}, func(in *inquiry) bool { return in.header.Get("Cookie") == "" },
		"The server wants a session cookie, and has seen none.", "Log in where it sets one, and send that in Cookie, with -H. If it has an API for programs, that takes tokens."},
	{"session-expired-status", certain, []int{440}, "", nil, nil, // IIS
		"The server says by its status 440 that the session has expired.", "Log in again, and send the new cookie or token."},
	{"quota", certain, []int{402, 403, 429}, "", []string{"insufficient_quota", "plan and billing", "billing_hard_limit", "billing hard limit", "billing is not active", "billing_not_active", "credit balance is too low", "insufficient credits", "insufficient_credits", "insufficient balance"}, nil, // OpenAI, Anthropic and others
		"The quota is used up, or the account's bills are not paid.", "See to the account's plan and billing. Waiting does not help, and other keys of the same account do not, either."},
	{"licence", likely, []int{401, 402, 403}, "", []string{"license expired", "license has expired", "licence expired", "subscription expired", "subscription has expired", "trial has expired"}, nil,
		"The server says that a licence or a subscription has ended.", "See to the subscription. Other credentials of the same account do not help."},

	{"payment", certain, []int{402}, "", nil, nil,
		"The server wants a payment, or a plan that allows this.", "See to the account's plan and bills. Other credentials of the same account do not help."},

	// Of rules that look at something else than credentials.
	{"https-wanted", certain, []int{400, 403, 426}, "", []string{"https_required", "ssl is required", "ssl required", "https is required", "please use https", "403.4"}, func(in *inquiry) bool { return in.asked().Scheme == "http" },
		"The server wants https.", "Use https:// in the URL."},
	{"squid", certain, []int{403}, "X-Squid-Error: err_access_denied", nil, nil,
		"The proxy refused, so the server was not asked.", "Have the proxy's administrator allow this address. Other credentials for the server do not help."},
	{"web-filter", certain, []int{403}, "", []string{"zscaler", "your organization blocked", "blocked by your organization", "fortiguard", "web filter"}, nil,
		"A web filter on the way refused, so the server was not asked.", "Have this address allowed by whoever runs the network."},
	{"github-sso", certain, []int{403}, "X-Github-Sso: required", nil, nil,
		"The token is not authorized for the organization's SSO.", "Authorize it at the URL that X-GitHub-SSO gives. See Settings, Developer settings, at the token."},
	{"rate", certain, []int{403, 429}, "", nil, func(in *inquiry) bool { return in.resp.Header.Get("X-Ratelimit-Remaining") == "0" },
		"The limit of requests is used up.", "Wait until the time in X-RateLimit-Reset. Callers who are known usually have a higher limit."},
	{"mesh-policy", certain, []int{403}, "", []string{"rbac: access denied"}, nil, // Envoy, and Istio by it
		"A policy of Istio or Envoy refused, so the server was not asked.", "Have the AuthorizationPolicy looked at. It may go by the token's claims, the caller's certificate, the path or the address."},
	{"rate", certain, []int{401, 403, 429}, "", []string{"rate limit exceeded", "ratelimit exceeded", "rate limit reached"}, nil, // GitHub, Kong
		"The limit of requests is used up.", "Wait. Callers who are known usually have a higher limit."},
	{"kubernetes-anonymous", certain, []int{401, 403}, "", []string{"system:anonymous"}, nil,
		"Kubernetes takes the caller for anonymous. It has seen no good token.", "Send a token that the cluster knows. See that no gateway takes it off."},
	{"kubernetes", certain, []int{403}, "", []string{"is forbidden: user"}, sentAny,
		"Kubernetes knows the caller, but no role allows this.", "Have a Role bound to the user. The answer names the user, the verb and the resource."},
	{"google-api", certain, []int{403}, "", []string{"service_disabled", "enable it by visiting", "has not been used in project"}, nil,
		"The API is not enabled in the caller's Google project.", "Enable it at the URL that the answer gives, and wait some minutes."},
	{"azure-sas", certain, []int{403}, "", []string{"signature not valid in the specified time frame"}, nil,
		"The SAS in the URL has expired, or is not valid yet.", "Have a new one made; compare the clocks."},
	{"azure-sas", certain, []int{403}, "", []string{"signature did not match. string to sign used"}, nil,
		"The SAS in the URL, or the signature, does not match.", "Copy the URL anew, with each %2B and %3D in it. Or the account's key was changed."},
	{"azure-role", certain, []int{403}, "", []string{"authorizationfailed", "does not have authorization to perform action", "authorizationpermissionmismatch"}, sentAny,
		"Azure knows the caller, but no role allows this.", "Have a role assigned for the action that the answer names. It takes some minutes to count."},
	{"azure-public", certain, []int{409}, "", []string{"publicaccessnotpermitted"}, nil,
		"The storage account allows no anonymous access.", "Send a token or a SAS. Or have public access allowed, if that is meant."},
	{"cloudfront-signed", certain, []int{403}, "", []string{"<code>missingkey</code>", "missing key-pair-id"}, nil,
		"CloudFront wants a signed URL or signed cookies.", "Have whoever runs the distribution give one out."},
	{"firewall", certain, []int{403, 406}, "", []string{"mod_security", "modsecurity"}, nil,
		"ModSecurity refused, a firewall within the web server.", "Look into its log for the rule. It looks at the request, whatever the credentials: URL, headers, body, User-Agent."},
	{"firewall", certain, []int{403}, "", []string{"the requested url was rejected. please consult with your administrator"}, nil, // F5 BIG-IP, which also says so in a 200
		"F5's firewall refused, so the server itself was not asked.", "Have whoever runs the firewall look up the support ID of the answer."},
	{"firewall", certain, []int{403}, "", []string{"sucuri website firewall"}, nil,
		"Sucuri refused, so the server itself was not asked.", "Have the site's owner allow this. The answer has the reason and the address."},
	{"firewall", certain, []int{403}, "", []string{"generated by wordfence"}, nil,
		"Wordfence refused, a firewall within WordPress.", "Have the site's owner allow this address or request in it."},
	{"firewall", likely, []int{403}, "Server: microsoft-azure-application-gateway", nil, nil,
		"Azure's gateway refused, so the server itself was not asked.", "Have its WAF log looked at. Other credentials hardly help."},
	{"firewall", certain, []int{403}, "", []string{"generated by cloudfront"}, nil,
		"CloudFront refused. It may be its firewall, a country rule, or the host name.", "Have the distribution's owner look up the request ID of the answer."},
	{"firewall", certain, []int{403}, "Server: akamaighost", nil, nil,
		"Akamai refused, so the server itself was not asked.", "Have the site's owner look up the reference number of the answer."},
	{"firewall", certain, []int{403}, "", []string{"incapsula incident id", "_incapsula_resource"}, nil,
		"Imperva refused, so the server itself was not asked.", "Have the site's owner look up the incident of the answer."},
	{"firewall", likely, []int{403}, "Server: awselb", nil, nil,
		"The load balancer refused, so the server itself was not asked.", "Have its rules and AWS WAF looked at. Other credentials hardly help."},
	{"address", likely, []int{401, 403}, "", []string{"ip address", "is not on the allow list", "ip not allowed", "not whitelisted", "allowlist", "whitelist"}, nil,
		"The server refuses this address, whatever the credentials.", "Have the address from which you ask added to its list. Behind NAT or a VPN it is another than the machine's own."},
	{"host-name", likely, []int{400, 403}, "", []string{"this host is not allowed", "host is not allowed", "blocked request. this host", "invalid host header", "disallowedhost"}, nil,
		"The server does not serve this host name.", "Ask it by a name that it is configured for, or have this one added."},
	{"cors", likely, []int{403}, "", []string{"invalid cors request", "origin not allowed", "cors origin"}, nil,
		"The server refuses the Origin header.", "Leave it out: only browsers need it. Or have the origin allowed."},
	{"csrf", certain, []int{419}, "", []string{"page expired"}, nil, // Laravel
		"The server wants a CSRF token, besides the credentials.", csrfFix},
	{"csrf", possible, []int{403}, "", nil, func(in *inquiry) bool { return !in.isSafe() && setsCookie(in.resp, "xsrf") },
		"The server may want a CSRF token. It has just set a cookie for one.", csrfFix},
	{"web-server", likely, []int{403}, "", []string{"<center>nginx", "<center><h1>403 forbidden</h1></center>", "<p>you don't have permission to access this resource.</p>", "request forbidden by administrative rules", "varnish cache server"}, nil, // nginx, Apache, HAProxy, Varnish
		"The web server forbids this, not the application behind it.", "Look into its error log. It may be a deny rule, a rate limit, a missing index, or the rights of a file."},
	{"headers-too-large", certain, []int{400, 431}, "", []string{"request header or cookie too large", "request header fields too large", "header field too large"}, nil,
		"The request's headers are too large. It may be the token.", "Use a smaller token, with fewer groups or claims in it. Or raise the limit, as in nginx's large_client_header_buffers."},
	{"headers-too-large", certain, []int{431}, "", nil, nil,
		"The request's headers are too large. It may be the token.", "Use a smaller token, with fewer groups or claims in it. Or raise the limit, as in nginx's large_client_header_buffers."},

	// Of servers that could not find out.
	{"login-service", likely, moreStatus, "", []string{"ldap connection", "ldap server", "contact ldap"}, nil,
		"The server cannot check credentials now. Yours may be good.", "Try again later; tell whoever runs the server. It does not reach its directory (LDAP)."},
	{"login-service", likely, serverFault, "", []string{"authentication service", "authorization service", "auth service", "identity provider", "authentication backend", "jwks"}, nil,
		"The server cannot check credentials now. Yours may be good.", "Try again later; tell whoever runs the server."},
	{"session-invalid", certain, []int{401, 403, 500}, "", []string{"invalid_session_id"}, nil, // Salesforce
		"The server says that the session ID is invalid, or has expired.", "Log in again, and send the new one. It is for this instance and environment only."},
	{"soap", certain, []int{500}, "", []string{"failedauthentication", "invalidsecuritytoken", "wsse:invalidsecurity"}, nil,
		"The SOAP service refuses the credentials of the message.", "Check the user name, password and time in wsse:Security. HTTP's own authentication has nothing to do with it."},
	{"captive-portal", certain, []int{511}, "", nil, nil,
		"The network wants a login, before anything is let through.", "Open any page in a browser on this network, and log in. See RFC 6585 §6."},
}

// setsCookie reports whether a response sets a cookie with a part of its name, in lower case.
func setsCookie(resp *http.Response, part string) bool {
	for _, c := range resp.Cookies() {
		if strings.Contains(strings.ToLower(c.Name), part) {
			return true
		}
	}
	return false
}
