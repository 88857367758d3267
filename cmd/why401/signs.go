package main

import (
	"slices"
	"strings"
)

// A sign is what a certain server or gateway says where there is a certain cause.
type sign struct {
	name     string
	sure     string
	statuses []int
	header   string              // "name: value", of which the value is a part of the header's; empty: any
	words    []string            // in the body, in lower case; one of them is enough; empty: any
	when     func(*inquiry) bool // nil: always
	text     string
	fix      string
}

const csrfFix = "Get the page's token and cookie first, and send both. Where the server has one, use its API for programs instead: it takes tokens, and needs none of this."

// knownSigns are looked through in order. The wording is that of the real servers.
var knownSigns = []sign{
	{"http-to-https", certain, []int{400}, "", []string{
		"client sent an http request to an https server",            // Go
		"the plain http request was sent to https port",             // nginx
		"speaking plain http to an ssl-enabled server port",         // Apache
		"this combination of host and port requires tls",            // Tomcat
		"the client sent a plain http request, but this server req", // others
	}, nil, "The server speaks https on this port, and was asked by http.", "Use https:// in the URL."},
	{"client-certificate", certain, []int{400, 403, 496}, "", []string{
		"no required ssl certificate was sent", // nginx
		"client certificate required", "ssl certificate required", "403.7",
		"cannot perform post-handshake authentication", // Apache
	}, nil, "The server wants a client certificate (mutual TLS).", "Get one from whoever runs the server, and try it with curl. The command is: curl --cert FILE --key FILE, and in a program, it is set as Certificates in the TLSClientConfig of the http.Transport that is Transport.Base."},
	{"client-certificate-bad", certain, []int{400, 495}, "", []string{"the ssl certificate error"}, nil, // nginx
		"The server does not accept the client certificate that was sent.", "See whether it has expired, and is of an authority that it trusts."},

	{"cloudflare", certain, []int{403, 503, 429}, "Cf-Mitigated: challenge", nil, nil, // documented by Cloudflare
		"Cloudflare wants to see a browser, before the server is asked. It has answered with a page that only a browser passes, whatever the credentials.",
		"Have a rule made for this path that lets programs pass. It is the site's owner who can do that (Security, WAF, skip rule); other credentials do not help."},
	{"cloudflare", certain, []int{403, 429}, "Server: cloudflare", []string{"error code: 10", "error 10", "attention required! | cloudflare", "sorry, you have been blocked", "just a moment..."}, nil,
		"Cloudflare refused, so the server itself was not asked. One of the site's rules forbids this address, country, user agent or request, whatever the credentials.",
		"Have the site's owner look up the Ray ID in Cloudflare's events. It is in the CF-Ray header; a User-Agent of your own (-H) is worth a try."},
	{"cloudflare-access", certain, []int{403}, "", []string{"cloudflare access"}, nil,
		"Cloudflare Access refused: it wants a service token of its own.", "Send CF-Access-Client-Id and CF-Access-Client-Secret, with -H. They come besides the credentials of the server."},

	{"csrf", certain, []int{400}, "", []string{"kbn-xsrf header"}, nil,
		"Kibana wants the header kbn-xsrf with each request that writes.", "Send it with -H 'kbn-xsrf: true'. Any value does; it comes besides the credentials."},
	{"csrf", certain, []int{403}, "", []string{"csrf verification failed", "csrf failed:", "csrf token missing"}, nil, // Django
		"Django wants a CSRF token, besides the credentials. It does so for sessions, that is, if there is a session cookie.", csrfFix},
	{"csrf", certain, []int{400, 403, 419, 422}, "", []string{"csrf token", "csrf-token", "csrftoken", "invalidauthenticitytoken", "authenticity token", "no valid crumb", "invalid csrf", "xsrf"}, nil, // Spring, Laravel, Rails, Jenkins, Tornado, Flask
		"The server wants a CSRF token, besides the credentials.", csrfFix},
	{"csrf", certain, []int{403}, "X-Csrf-Token: required", nil, nil, // SAP
		"The server wants a CSRF token, besides the credentials. Its X-CSRF-Token header says so.",
		"Ask with -H 'X-CSRF-Token: Fetch' first, and send what comes back. The cookie that comes with it must be sent, too."},

	{"aws-not-signed", certain, []int{403, 400}, "", []string{"not a valid key=value pair", "authorization header requires 'credential' parameter", "incompletesignatureexception"}, nil,
		"AWS wants a signature in Authorization, and got something else. API Gateway says so also of a path that it does not know.",
		"Check stage and path first; then sign with the AWS SDK (SigV4). A token goes to methods with an authorizer for tokens only."},
	{"aws-route", likely, []int{403}, "", []string{"missing authentication token", "missingauthenticationtokenexception"}, nil,
		"API Gateway has no such path or method, or wants a signature. It says “Missing Authentication Token” of both; tokens have nothing to do with it.",
		"Check stage, path and method; sign with SigV4 if it uses IAM."},
	{"aws-signature", certain, []int{403, 400}, "", []string{"signaturedoesnotmatch", "invalidsignatureexception", "the request signature we calculated does not match"}, nil,
		"The AWS signature does not match. The secret is wrong, or a proxy has changed what was signed, or region and service are others.",
		"Check secret key, region, service and what is between. The SDK signs the request as it is sent: nothing may change it afterwards."},
	{"aws-key", certain, []int{403, 400}, "", []string{"invalidaccesskeyid", "unrecognizedclientexception", "invalidclienttokenid", "the security token included in the request is invalid", "the aws access key id you provided does not exist"}, nil,
		"AWS does not know the access key.", "Check the access key, its account and partition; make a new one."},
	{"aws-expired", certain, []int{403, 400}, "", []string{"expiredtoken", "the security token included in the request is expired", "signature expired"}, nil,
		"The AWS session token or signature has expired.", "Get new credentials (aws sso login, sts), and check the clock."},
	{"aws-clock", certain, []int{403}, "", []string{"requesttimetooskewed"}, nil,
		"The clock here and that of AWS differ by more than 15 minutes.", "Set the clock (timedatectl, chronyc tracking)."},
	{"aws-authorizer", certain, []int{500}, "", []string{"authorizerconfigurationexception", "authorizerfailureexception"}, nil,
		"API Gateway's own authorizer has failed, or may not be called.", "Look into its log: its time limit, and what it returns. API Gateway must be allowed to invoke it."},
	{"aws-authorizer-denied", certain, []int{403}, "", []string{"user is not authorized to access this resource"}, nil,
		"API Gateway's own authorizer refuses this caller.", "Look into the authorizer's log. If it is a Lambda function, a policy that it returned for another path may be cached, and deny this one."},
	{"aws-api-key", likely, []int{403}, "X-Amzn-Errortype: forbiddenexception", nil, nil,
		"API Gateway wants a valid x-api-key, or its policy forbids this. It says “Forbidden” of a key that is wrong, missing, or in no usage plan for this stage, of a host name that is not its own, and where AWS WAF or a resource policy refuses.",
		"Check the key, its usage plan with this stage, and the WAF. Send it with -H 'X-Api-Key: …'"},
	{"aws-presigned-expired", certain, []int{403}, "", []string{"<message>request has expired"}, nil,
		"The presigned URL has expired.", "Have a new one made, that lasts longer. It is good no longer than the credentials that it was made with, either."},
	{"aws-two-kinds", certain, []int{400}, "", []string{"only one auth mechanism allowed"}, nil,
		"The request has two kinds of credentials. The URL is signed already.", "Leave out the Authorization header. A Transport with Origins leaves other hosts' URLs alone."},
	{"google-storage", certain, []int{401, 403}, "", []string{"anonymous caller does not have storage."}, nil,
		"Google Cloud Storage saw no credentials, and this wants some.", "Send an OAuth token: gcloud auth print-access-token. Or have allUsers let in, if that is meant."},
	{"google-storage", certain, []int{403}, "", []string{"does not have storage."}, nil,
		"Google Cloud Storage knows the caller, who lacks a permission.", "Have a role with it granted on the bucket. The answer names the caller and the permission."},
	{"aws-denied", certain, []int{403}, "", []string{"<code>accessdenied</code>"}, func(in *inquiry) bool { return !in.pasted && !in.gave() && !in.isSigned() },
		"Nothing signed was sent, and S3 does not let everybody do this.", "Sign the request with the AWS SDK, or have a presigned URL made. S3 says this also of an object that is not there, if listing the bucket is not allowed."},
	{"aws-denied", likely, []int{403}, "", []string{"<code>accessdenied</code>"}, func(in *inquiry) bool { return !in.pasted && strings.EqualFold(in.last(), "Bearer") },
		"S3 looks for a signature of AWS, and was sent a token.", "Sign the request with the AWS SDK, or have a presigned URL made. It says so as it does to whoever sends nothing."},
	{"aws-denied", certain, []int{403}, "", []string{"accessdeniedexception", "<code>accessdenied</code>", "is not authorized to perform:"}, nil,
		"An AWS policy does not allow this to this caller.", "Have the policy of the caller or the resource changed. Without credentials, the caller is anybody. S3 says this also of an object that is not there, if listing the bucket is not allowed."},
}

func allSigns() []sign { return slices.Concat(knownSigns, productSigns, saidSigns) }

// signs returns what the response's words mean.
func (in *inquiry) signs() *cause {
	if !in.refused() || in.disguise != nil || in.trials.agent || in.underscored() != nil && in.saysNoKey() {
		return nil
	}
	return in.sign()
}

func (in *inquiry) sign() *cause { return in.signOf(in.resp.StatusCode, in.words) }

// signOf returns what words mean that came with a status, or mean what is said with it elsewhere.
func (in *inquiry) signOf(status int, words string) *cause {
	for _, s := range allSigns() {
		if !slices.Contains(s.statuses, status) || len(s.words) > 0 && !in.saysSign(words, s.words) {
			continue
		}
		if name, value, _ := strings.Cut(s.header, ": "); name != "" && !strings.Contains(strings.ToLower(in.resp.Header.Get(name)), value) {
			continue
		}
		if s.when == nil || s.when(in) {
			return &cause{s.name, s.sure, s.text, s.fix}
		}
	}
	return nil
}

// isSigned reports whether the URL has a signature of AWS in its query.
func (in *inquiry) isSigned() bool {
	return in.url.Query().Has("X-Amz-Signature") || in.url.Query().Has("Signature")
}

// saysSign reports whether what is said, or the header in which AWS names an error, has any of the words.
func (in *inquiry) saysSign(said string, words []string) bool {
	return hasAny(said, words...) || hasAny(strings.ToLower(in.resp.Header.Get("X-Amzn-Errortype")), words...)
}

// forbidden is for a 403 that says no more.
func (in *inquiry) forbidden() *cause {
	if in.resp == nil || in.resp.StatusCode != 403 || in.report.Outcome == outcomeFailed || in.param("error") == "insufficient_scope" || in.sign() != nil && !in.trials.agent || in.headerLost() != nil || in.keyLost() != nil {
		return nil
	}
	switch {
	case in.trials.agent:
		return &cause{"user-agent", certain, "The server refuses the User-Agent of Go programs. That is whatever the credentials: it was asked again as curl would, and did not answer 403.",
			"Send a User-Agent of your own. Here that is -H 'User-Agent: NAME/1.0'; in a program, set the header, with a name and an address by which you can be reached."}
	case !in.gave() && in.user.given:
		return &cause{"forbidden", likely, "The server forbids this, and the user name given was not sent. User name and password wait for a 401 with a challenge.",
			"Run it again with -ahead, which sends Basic at once. In a program, set Basic.Ahead."}
	case !in.gave():
		return &cause{"forbidden", likely, "The server forbids this, and no credentials were sent. Some servers say 403 where they mean 401; others refuse addresses, countries, user agents, or everything behind a firewall.",
			"Try with credentials. If the refusal stays, the server's log or its administrator knows the rule."}
	case in.gaveKey():
		return &cause{"forbidden-key", likely, "The key may be wrong: many services answer 403 to that. Or it is right, and may not do this; the status alone does not tell.",
			"Check the key, the header's name and the environment. Then whether the key may do this: other keys have other rights."}
	}
	if !in.isSafe() && !sentPassword(in) && in.sentToken() != "" {
		return &cause{"forbidden", likely, "The token may probably not write: the server forbids this " + printable(in.method, 10) + ". That is what 403 means (RFC 9110 §15.5.4), and a token that may only read is common; but some servers say it of an expired token, too.",
			"Ask with GET. If that is allowed, get a token that may write; if not, the permission to do anything here is missing, or the token is no good."}
	}
	return &cause{"forbidden", likely, "The server probably knows who this is, and does not allow it. That is what 403 means (RFC 9110 §15.5.4); but some servers say it of a wrong or expired " + in.kind() + ", too.",
		"Have the permission granted to the user or the token. If the server says 403 for expired tokens, Transport.Refused tells a program so."}
}

// kind returns what kind of credential was sent, for a sentence.
func (in *inquiry) kind() string {
	switch {
	case in.last() == "":
		return "key"
	case sentPassword(in):
		return "password"
	}
	return "token"
}
