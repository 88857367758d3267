package main

import "strings"

// productSigns are what certain products say in words of their own, looked through in order between knownSigns and saidSigns.
var productSigns = []sign{
	{"gitlab-job-token", certain, []int{401, 403, 404}, "", []string{"job token allowlist", "job token scope", "job token is not allowed"}, nil,
		"The GitLab project does not let in this job's token.", "Add this project to its job token allowlist (Settings, CI/CD). Or take a token that is made for it."},
	{"vercel", certain, []int{401}, "", []string{"vercel authentication", "vercel.com/sso-api"}, nil,
		"Vercel protects this deployment; the server was not asked.", "Send its secret: -H 'X-Vercel-Protection-Bypass: SECRET'. It is in the project's settings. Or have Deployment Protection turned off."},
	{"google-iap", certain, []int{401, 403}, "X-Goog-Iap-Generated-Response: true", nil, nil,
		"Google's IAP refused: it wants an ID token for its client ID.", "Get an ID token whose aud is IAP's client ID. An access token does not do; the caller needs the role IAP-secured Web App User, too."},
	{"google-run", likely, []int{401, 403}, "Server: google frontend", []string{"your client does not have permission to"}, nil,
		"Cloud Run lets in only who may invoke the service.", "Send an ID token: gcloud auth print-identity-token. Its aud is the service's URL, and the caller has the role Cloud Run Invoker. An access token does not do."},
	{"google-run", certain, []int{401}, "", []string{"your client does not have permission to the requested url"}, nil,
		"Cloud Run lets in only who may invoke the service.", "Send an ID token: gcloud auth print-identity-token. Its aud is the service's URL, and the caller has the role Cloud Run Invoker. An access token does not do."},
	{"rabbitmq-guest", certain, []int{401}, "", []string{"can only log in via localhost"}, nil,
		"RabbitMQ lets this user log in from its own machine only.", "Use another user, or add one: rabbitmqctl add_user. It is so for guest unless loopback_users says otherwise."},
	{"splunk", certain, []int{401}, "", []string{`"text":"invalid authorization"`}, nil,
		"Splunk wants the word Splunk before the token.", "Send -H 'Authorization: Splunk TOKEN'. Other users of the machine can read that while it runs."},
	{"jira-cloud", certain, []int{401, 403}, "", []string{"failed to parse connect session auth token"}, nil,
		"Jira Cloud takes no Bearer here, but an API token by Basic.", "Use -u EMAIL, with the API token as the password. Personal access tokens are for Jira Data Center."},
	{"jenkins", certain, []int{403}, "X-You-Are-Authenticated-As: anonymous", nil, sentAny,
		"Jenkins takes the caller for anonymous, whatever was sent.", "Use -u USER and -ahead, with an API token as the password. Jenkins takes no Bearer by itself."},
	{"oauth2-proxy", certain, []int{401, 403}, "", []string{`action="/oauth2/start"`, `action="/oauth2/sign_in"`}, nil,
		"oauth2-proxy wants a login by browser; the server was not asked.", "Ask the server behind it, or have oauth2-proxy take tokens. That is skip_jwt_bearer_tokens, for those of its own issuer."},
	{"npm-otp", certain, []int{401}, "", []string{"you must provide a one-time pass"}, nil,
		"npm wants a one-time password, and none was sent.", "Send it with -H 'npm-otp: CODE'. In automation, use a token that needs none."},
	{"rabbitmq-tag", certain, []int{401}, "", []string{"not management user"}, nil,
		"RabbitMQ knows the user, who lacks the tag management.", "Have it set: rabbitmqctl set_user_tags USER management. Only such users may use the HTTP API."},
	{"laravel", likely, []int{500}, "", []string{"route [login] not defined"}, nil,
		"Laravel does not know the caller, and finds no login page.", "Send -H 'Accept: application/json' to see its 401. Then check the token, and the guard of the route (auth:sanctum, auth:api)."},
	{"tenant", certain, []int{401}, "", []string{"no org id"}, nil, // Loki, Mimir, Cortex, Tempo
		"The server wants the tenant's name, and has seen none.", "Send it with -H 'X-Scope-OrgID: TENANT'. Grafana's servers (Loki, Mimir, Tempo) want it besides credentials; have the gateway pass it on, or set it."},
	{"cosmos", certain, []int{401}, "", []string{"the input authorization token can't serve the request"}, nil,
		"Cosmos DB does not accept the signature in Authorization.", "Check the account's key; then what was signed. The verb, the path and x-ms-date are; the answer has the text that the server has signed."},
	{"consul", certain, []int{403}, "", []string{"acl not found", "acl token not found"}, nil,
		"Consul or Nomad does not know the token.", "Check the token and the cluster. It may have been deleted, or be of another datacenter."},
	{"consul", certain, []int{403}, "", []string{"token with accessorid"}, nil,
		"Consul knows the token, and its policies do not allow this.", "Have a policy added to the token. The answer names the permission that is missing."},
	{"kong-group", certain, []int{403}, "", []string{"you cannot consume this service"}, nil,
		"Kong knows the caller, who is in no group that may do this.", "Have the caller added to a group of the service's ACL."},
	{"tyk", certain, []int{403}, "", []string{"access to this api has been disallowed"}, nil,
		"Tyk does not know the key, or the key is not for this API.", "Check the key; then the APIs that its policy names."},
	{"key-without-word", certain, []int{400, 401}, "", []string{"remove the bearer prefix", "without the bearer prefix"}, func(in *inquiry) bool { return in.pasted || strings.EqualFold(in.last(), "Bearer") },
		"The server wants the key alone, without the word Bearer.", "Send -H 'Authorization: KEY'. In a program: &authretry.APIKey{Header: \"Authorization\", Key: os.Getenv(\"KEY\")}"},
	{"client-certificate-bad", certain, []int{403}, "", []string{"403.16 - ", "403.17 - ", "403.13 - "}, nil, // IIS
		"IIS does not accept the client certificate that was sent.", "See whether it has expired, was revoked, or is of another authority. 403.17 means expired, 403.13 revoked, and 403.16 that its authority is not trusted."},
}
