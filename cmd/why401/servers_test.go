package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAnswersOfServers has the first two lines for answers as certain servers word them.
func TestAnswersOfServers(t *testing.T) {
	const home = "https://api.example.com/"
	withToken, withKey := []string{"-token-env", "TOKEN"}, []string{"-H", "X-API-Key: " + apiKey}
	withPassword := []string{"-u", "Ali", "-password-env", "WRONG", "-ahead"}
	json := func(status int, body string) http.Handler {
		return says(status, "Content-Type: application/json\n\n"+body)
	}
	page := func(status int, body string) http.Handler { return says(status, "Content-Type: text/html\n\n"+body) }
	for _, c := range []struct {
		name      string
		args      []string
		server    http.Handler
		cause, do string
	}{
		{"IIS", withPassword, says(401, "WWW-Authenticate: Basic realm=\"x\"\nContent-Type: text/html\n\n<h2>401 - Unauthorized: Access is denied due to invalid credentials.</h2><h3>You do not have permission to view this directory or page using the credentials that you supplied.</h3>"), "The user name or the password is wrong.", "Type the password anew"},
		{"Mailgun", withPassword, says(401, "WWW-Authenticate: Basic realm=\"MG API\"\nContent-Type: text/plain\n\nForbidden"), "The user name or the password is wrong.", "Type the password anew"},
		{"Typesense", withToken, json(401, "{\"message\": \"Forbidden - a valid `x-typesense-api-key` header must be sent.\"}"), "a valid `x-typesense-api-key` header must be sent”", ""},
		{"Microsoft Graph", withToken, json(403, `{"error":{"code":"Authorization_RequestDenied","message":"Insufficient privileges to complete the operation."}}`), "“Insufficient privileges to complete the operation”", "Have the permission granted"},
		{"Okta", withToken, json(403, `{"errorCode":"E0000006","errorSummary":"You do not have permission to perform the requested action","errorCauses":[]}`), "“You do not have permission to perform the requested action”", "Have the permission granted"},
		{"Devise", withToken, json(401, `{"error":"You need to sign in or sign up before continuing."}`), "“You need to sign in or sign up before continuing”", "Get a new one"},
		{"WordPress", withPassword, json(401, `{"code":"rest_not_logged_in","message":"You are not currently logged in.","data":{"status":401}}`), "has not seen the Authorization header", "Have the gateway pass Authorization on"},
		{"WordPress, that writes", withPassword, json(401, `{"code":"rest_cannot_create","message":"Sorry, you are not allowed to create posts as this user.","data":{"status":401}}`), "has not seen the Authorization header", "Have the gateway pass Authorization on"},
		{"Argo CD", withToken, json(401, `{"error":"no session information","code":16,"message":"no session information"}`), "has not seen the Authorization header", "Have the gateway pass Authorization on"},
		{"NetBox", withToken, json(403, `{"detail":"Authentication credentials were not provided."}`), "wants another word than Bearer", "Try -H 'Authorization: Token KEY'"},
		{"Proxmox", []string{"-H", "Authorization: PVEAPIToken root@pam!mon=" + apiKey}, says(401, "Content-Type: text/plain\n\nNo ticket"), "no credentials in a form that it knows", "Compare the header with the documentation"},
		{"FastAPI, with a key", withKey, json(403, `{"detail":"Not authenticated"}`), "no credentials: it does not read the header of -H.", "Send the key in the header that its documentation names."},
		{"Meilisearch", withKey, json(401, `{"message":"The Authorization header is missing. It must use the bearer authorization method.","code":"missing_authorization_header"}`), "no credentials: it does not read the header of -H.", "Send it in Authorization: -token-env"},
		{"Jira Cloud", withToken, json(403, `{"error":"Failed to parse Connect Session Auth Token"}`), "Jira Cloud takes no Bearer here", "Use -u EMAIL"},
		{"Jenkins", withToken, says(403, "X-You-Are-Authenticated-As: anonymous\nContent-Type: text/html\n\nAuthentication required"), "Jenkins takes the caller for anonymous", "Use -u USER and -ahead"},
		{"oauth2-proxy", nil, page(403, `<form method="GET" action="/oauth2/start"><button>Sign in with OpenID Connect</button>`), "oauth2-proxy wants a login by browser", "Ask the server behind it"},
		{"npm", withToken, says(401, "WWW-Authenticate: OTP\nContent-Type: application/json\n\n"+`{"error":"You must provide a one-time pass. Upgrade your client to npm@latest in order to use 2FA."}`), "npm wants a one-time password", "npm-otp"},
		{"Laravel", withToken, page(500, "Symfony\\Component\\Routing\\Exception\\RouteNotFoundException: Route [login] not defined."), "Laravel does not know the caller", "Send -H 'Accept: application/json'"},
		{"Kibana", append([]string{"-X", "POST"}, withPassword...), json(400, `{"statusCode":400,"error":"Bad Request","message":"Request must contain a kbn-xsrf header."}`), "Kibana wants the header kbn-xsrf", "-H 'kbn-xsrf: true'"},
		{"Flask", append([]string{"-X", "POST"}, withPassword...), page(400, `<p>The CSRF session token is missing.</p><p>The CSRF token is missing.</p>`), "wants a CSRF token", "token and cookie"},
		{"ECR", withPassword, json(403, `{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}`), "token or session has expired", "Get a new one"},
		{"Azure DevOps", withPassword, says(401, "WWW-Authenticate: Bearer\nWWW-Authenticate: Basic realm=\"x\"\nX-TFS-ServiceError: Access+Denied%3A+The+Personal+Access+Token+used+has+expired.\nContent-Type: text/html\n\nTF400813: The user '' is not authorized to access this resource."), "token or session has expired", "Get a new one"},
		{"Entra", append([]string{"-X", "POST"}, withPassword...), json(401, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID"}`), "or it is the secret's ID, not its value.", "Take the column Value"},
		{"Flask-JWT", withPassword, json(401, `{"msg":"Missing 'Bearer' type in 'Authorization' header. Expected 'Authorization: Bearer <JWT>'"}`), "wants a Bearer token, and was sent something else", "Give it a token"},
		{"Spotify", withToken, json(400, `{"error":{"status":400,"message":"Only valid bearer authentication supported"}}`), "The server cannot read the token.", "Copy it anew"},
		{"jose", withToken, json(401, `{"error":"unexpected \"aud\" claim value"}`), "the token is for another audience", "Get one for this server"},
		{"Spring", withToken, says(401, `WWW-Authenticate: Bearer error="invalid_token", error_description="The iss claim is not valid"`), "does not trust the token's issuer", "Compare the token's iss"},
		{"Hikvision", []string{"-u", "Ali", "-password-env", "WRONG"}, says(401, `WWW-Authenticate: Digest qop="auth", realm="DS-2CD", nonce="4e6a", stale="FALSE"`+"\nContent-Type: application/xml\n\n<userCheck><statusValue>401</statusValue><lockStatus>lock</lockStatus><unlockTime>1698</unlockTime></userCheck>"), "The account is locked", "Wait"},
		{"API Gateway", withToken, says(500, "X-Amzn-Errortype: AuthorizerConfigurationException\nContent-Type: application/json\n\n"+`{"message":null}`), "own authorizer has failed", "Look into its log"},
		{"Zabbix", withToken, json(200, `{"jsonrpc":"2.0","error":{"code":-32602,"message":"Invalid params.","data":"Not authorised."},"id":1}`), "says in a 200 that the caller is not let in", "Get a new token"},
		{"Odoo", []string{"-H", "Cookie: session_id=" + cookie}, json(200, `{"jsonrpc":"2.0","id":null,"error":{"code":100,"message":"Odoo Session Expired","data":{"name":"odoo.http.SessionExpiredException"}}}`), "says in a 200 that the caller is not let in", "Log in again"},
		{"Snowflake", []string{"-X", "POST"}, json(200, `{"data":{"nextAction":"RETRY_LOGIN"},"code":"390100","message":"Incorrect username or password was specified.","success":false}`), "says in a 200 that the caller is not let in", "Send credentials"},
		{"WeChat", nil, json(200, `{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or not latest"}`), "says in a 200 that the caller is not let in", "Send credentials"},
		{"nginx that drops a header", []string{"-H", "api_key: " + apiKey}, json(401, `{"message":"No API key found in request"}`), "has not seen the header, whose name has an underscore", "Try the name with a hyphen"},
		{"nginx that refuses a User-Agent", withToken, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.UserAgent(), "Go-http") {
				nginx(403, "403 Forbidden", "403 Forbidden").ServeHTTP(w, r)
			}
		}), "refuses the User-Agent of Go programs", "Send a User-Agent of your own"},
		{"Apache", withPassword[:4], page(403, "<h1>Forbidden</h1>\n<p>You don't have permission to access this resource.</p>"), "The web server forbids this, not the application", "Look into its error log"},
		{"App Service of Azure", withToken, says(401, "WWW-Authenticate: Bearer realm=\"x\"\nContent-Type: text/html\n\nYou do not have permission to view this directory or page."), "The token is expired", "Get a new one"},
		{"UAA", withToken, says(401, `WWW-Authenticate: Bearer realm="oauth", error="unauthorized", error_description="Full authentication is required to access this resource"`+"\nContent-Type: application/json\n\n"+`{"error":"unauthorized","error_description":"Full authentication is required to access this resource"}`), "has not seen the Authorization header", "Have the gateway pass Authorization on"},
		{"HAProxy", withToken, page(403, "<html><body><h1>403 Forbidden</h1>\nRequest forbidden by administrative rules.\n</body></html>"), "The web server forbids this", "Look into its error log"},
		{"Azure Front Door", withToken, page(403, "<h2>The request is blocked.</h2>"), "Azure Front Door's firewall refused", "WAF log"},
		{"WSO2", withToken, json(403, `{"code":"900908","message":"Resource forbidden ","description":"User is NOT authorized to access the Resource. API Subscription validation failed."}`), "“User is NOT authorized to access the Resource", ""},
		{"WSO2, whose scheme is OAuth2", withToken, says(401, `WWW-Authenticate: OAuth2 realm="WSO2 API Manager", error="invalid_token", error_description="The access token expired"`), "The server says that the token or session has expired.", "Get a new one"},
		{"IBM API Connect", withToken, json(401, `{"httpCode":"401","httpMessage":"Unauthorized","moreInformation":"Invalid client id or secret."}`), "“Invalid client id or secret” is what the server says", ""},
		{"Google Cloud Storage", withToken, says(403, "Content-Type: application/xml\n\n<Error><Code>AccessDenied</Code><Message>Access denied.</Message><Details>ci@x.iam.gserviceaccount.com does not have storage.objects.get access to the Google Cloud Storage object.</Details></Error>"), "knows the caller, who lacks a permission", "Have a role with it granted"},
		{"Azure's storage", withToken, says(403, "Content-Type: application/xml\n\n<Error><Code>AuthorizationFailure</Code><Message>This request is not authorized to perform this operation.\nRequestId:x</Message></Error>"), "The storage account's firewall or its roles refuse", "See its network rules first"},
		{"Gemini", withToken, says(401, `WWW-Authenticate: Bearer realm="https://accounts.google.com/", error="invalid_token"`+"\nContent-Type: application/json\n\n"+`{"error":{"code":401,"message":"Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.","details":[{"reason":"ACCESS_TOKEN_TYPE_UNSUPPORTED"}]}}`), "Google wants an OAuth access token", "X-Goog-Api-Key"},
		{"Hasura", []string{"-H", "X-Hasura-Admin-Secret: " + apiKey}, json(401, `{"code":"access-denied","error":"invalid x-hasura-admin-secret/x-hasura-access-key","path":"$"}`), "Cause: The server says that the key is not valid.", "Check the key"},
		{"Entra, of a client in another tenant", append([]string{"-X", "POST"}, withPassword...), json(400, `{"error":"unauthorized_client","error_description":"AADSTS700016: Application with identifier 'x' was not found in the directory 'y'."}`), "Cause: “AADSTS700016: Application with", "Check the client's ID and secret"},
		{"Entra, of a tenant", append([]string{"-X", "POST"}, withPassword...), json(400, `{"error":"invalid_request","error_description":"AADSTS90002: Tenant 'x' not found."}`), "Cause: “AADSTS90002: Tenant 'x' not found”", "Look the number up at https://login.microsoftonline.com/error"},
		{"Keycloak", append([]string{"-X", "POST"}, withPassword...), json(401, `{"error":"unauthorized_client","error_description":"Client not enabled to retrieve service account"}`), "Cause: “Client not enabled to retrieve service account”", "Check the client's ID and secret"},
		{"token endpoint", append([]string{"-X", "POST"}, withPassword...), json(400, `{"error":"unsupported_grant_type"}`), "Cause: The authorization server refuses: its error is unsupported_grant_type.", "Send a grant_type"},
		{"GitLab, with a key", []string{"-H", "Private-Token: " + apiKey}, json(401, `{"message":"401 Unauthorized"}`), "The header given with -H does not let in here.", "Get a new one, or check this"},
		{"OpenStack", withToken, says(401, `WWW-Authenticate: Keystone uri="http://ks.example.com:5000"`), "of another kind than the server wants", "Send the token with -H 'X-Auth-Token: TOKEN'."},
		{"user name with a space", []string{"-u", "Ali ", "-password-env", "WRONG"}, says(401, `WWW-Authenticate: Basic realm="x"`), "The user name begins or ends with a space.", "Remove it"},
		{"no user name", []string{"-u", "", "-password-env", "WRONG"}, says(401, `WWW-Authenticate: Basic realm="x"`), "The user name is empty.", "Give it with -u."},
		{"limit for ever", withToken, says(403, "X-RateLimit-Remaining: 0\nX-RateLimit-Reset: 9999999999"), "The limit of requests is used up.", "Wait until the time"},
		{"FastAPI, with a cookie", []string{"-H", "Cookie: sid=" + cookie}, json(403, `{"detail":"Not authenticated"}`), "The server knows no session of the cookie", "Log in again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, map[string]http.Handler{"api.example.com": c.server})
			out, status := w.run(append(c.args, home), "", true)
			require.Equal(t, exitRefused, status, out)
			lines := strings.Split(out, "\n")
			require.Contains(t, lines[0], c.cause, out)
			require.Contains(t, lines[1], c.do, out)
			require.LessOrEqual(t, max(len([]rune(lines[0])), len([]rune(lines[1]))), 80)
			noSecret(t, out)
		})
	}
}

// What looks like such an answer, and refuses nobody, is not taken for one.
func TestAnswersThatRefuseNobody(t *testing.T) {
	for _, body := range []string{`{"errcode":0,"errmsg":"ok","access_token":"x"}`, `{"success":true,"message":"Incorrect username or password is what we say to others"}`,
		`{"success":false,"message":"no such article"}`, `{"message":"how the session expired"}`} {
		w := newWorld(t, map[string]http.Handler{"api.example.com": says(200, "Content-Type: application/json\n\n"+body)})
		out, status := w.run([]string{"-token-env", "TOKEN", "https://api.example.com/"}, "", true)
		require.Equal(t, exitPassed, status, out)
	}
}

// Of these, the exit status is that of an answer which is no refusal.
func TestAnswersThatAreNoRefusal(t *testing.T) {
	lost := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://api.example.com:8444/v1/", http.StatusMovedPermanently) // where nothing listens
	})
	for _, c := range []struct {
		name      string
		server    http.Handler
		cause, do string
	}{
		{"auth_request that fails", nginx(500, "500 Internal Server Error", "500 Internal Server Error"), "The server fails", "see what auth_request asks"},
		{"error_page that is not there", says(404, "WWW-Authenticate: Basic realm=\"cave\""), "asks for Basic, and says 404 where it should say 401", "Run it again with -ahead"},
		{"login that leads to itself", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }), "Redirects lead to a login again and again", "Ask the API's own URL"},
		{"415", says(415, ""), "does not take a body of this Content-Type", "Send that of its documentation"},
		{"521", says(521, "Server: cloudflare"), "Cloudflare does not reach the server behind it", "See whether that server runs"},
		{"502", says(502, "Server: envoy"), "The server fail", "See whether the server behind the gateway runs"},
		{"redirect to a port that is not open", lost, "A redirect leads to where no server can be reached.", "Ask where it means to lead"},
	} {
		w := newWorld(t, map[string]http.Handler{"api.example.com": c.server})
		args := []string{"-u", "Ali", "-password-env", "WRONG", "https://api.example.com/v1"}
		if strings.HasPrefix(c.name, "auth_request") {
			args = append([]string{"-ahead"}, args...)
		}
		out, status := w.run(args, "", true)
		require.NotEqual(t, exitRefused, status, out)
		lines := strings.Split(out, "\n")
		require.Contains(t, lines[0], c.cause, out)
		require.Contains(t, lines[1], c.do, out)
	}
}

// What is said in the status line counts, unless it says no more than the status does.
func TestStatusLine(t *testing.T) {
	for phrase, want := range map[string]string{
		"No ticket":               "no credentials in a form that it knows", // Proxmox
		"Authentication Required": "does not say what the server wants",
		"Unauthorized":            "does not say what the server wants",
	} {
		server := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				io.WriteString(conn, "HTTP/1.1 401 "+phrase+"\r\nContent-Length: 0\r\n\r\n")
				conn.Close()
			}
		})
		w := newWorld(t, map[string]http.Handler{"api.example.com": server})
		out, _ := w.run([]string{"-H", "Authorization: PVEAPIToken root@pam!mon=" + apiKey, "-allow-plaintext", "http://api.example.com/"}, "", true)
		require.Contains(t, strings.Split(out, "\n")[0], want, out)
	}
}
