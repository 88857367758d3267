package main

import (
	"net/http"
	"slices"
	"strings"
)

// What is there to be said of a login where the status says nothing of one: 404 (Not Found) and 500 (Internal Server Error).

// hiddenByScope is for GitHub's 404 to a token without the scope that it names in a header.
func (in *inquiry) hiddenByScope() *cause {
	if in.resp == nil || in.resp.StatusCode != http.StatusNotFound || !in.gave() {
		return nil
	}
	wanted, has := in.resp.Header.Get("X-Accepted-Oauth-Scopes"), in.resp.Header.Get("X-Oauth-Scopes")
	if wanted == "" || hasAny(", "+has+",", scopesIn(wanted)...) {
		return nil
	}
	return &cause{"hidden-by-scope", likely, "The token lacks a scope, and the 404 hides what exists from it. X-Accepted-OAuth-Scopes says " + in.clean.quote(wanted, 100) + ", and X-OAuth-Scopes, which is the token's, " + in.clean.quote(has, 100) + ".",
		"Get a token with such a scope. Check the path, too."}
}

// scopesIn returns the scopes of a list with commas, each between ", " and ",".
func scopesIn(list string) (scopes []string) {
	for s := range strings.SplitSeq(list, ",") {
		scopes = append(scopes, ", "+strings.TrimSpace(s)+",")
	}
	return scopes
}

// hidden is for a 404 that may mean 401.
func (in *inquiry) hidden() *cause {
	if in.resp == nil || in.resp.StatusCode != http.StatusNotFound || in.gave() {
		return nil
	}
	if hops := in.requests(); (in.schemes != nil || in.ownKey()) && left(hops) {
		return in.redirectedFrom(hops, "what was given was not sent there")
	}
	if names := in.asks(); names != "" {
		fix := "Try with credentials, sent at once: -ahead with -u, or -token-env."
		if in.user.given {
			fix = "Run it again with -ahead, which sends Basic at once."
		}
		return &cause{"challenge-in-404", certain, "The server asks for " + in.clean.text(names, 30) + ", and says 404 where it should say 401. Nothing answers a challenge in a 404, so no credentials were sent. Usually, the page for the 401 is not there (error_page in nginx, ErrorDocument in Apache).",
			fix + " Have the page for its 401 put right."}
	}
	const text = "The 404 may hide what exists from whom it does not know. Some servers answer so rather than 401 (RFC 9110 §15.5.5); GitHub does for private repositories."
	if in.schemes != nil {
		return &cause{"hidden", likely, text + " The user name and password given were not sent, because they wait for a challenge, which a 404 has not.",
			"Send Basic ahead, with -ahead. In a program, set Basic.Ahead. Check the path, too."}
	}
	return &cause{"hidden", possible, text, "Check the path; if it is right, try with credentials."}
}

// hiddenFromUser is for a 404 that may mean 403.
func (in *inquiry) hiddenFromUser() *cause {
	if in.resp == nil || in.resp.StatusCode != http.StatusNotFound || !in.gave() || in.hiddenByScope() != nil {
		return nil
	}
	return &cause{"hidden-from-user", possible, "The 404 may hide what this user or token may not see. Some servers answer so rather than 403 (RFC 9110 §15.5.5); GitHub and GitLab do for private repositories.",
		"Check the path; then what the user or the token may see. At GitHub, those are the repositories that the token was made for, its scopes, and whether the organization has let it in (SSO)."}
}

// githubPermission is for GitHub's 403 to a token without the permission that it names in a header.
func (in *inquiry) githubPermission() *cause {
	if in.resp == nil || in.resp.StatusCode != http.StatusForbidden || !in.gave() {
		return nil
	}
	wanted := in.resp.Header.Get("X-Accepted-Github-Permissions")
	if wanted == "" && !in.says("not accessible by personal access token", "not accessible by integration") {
		return nil
	}
	text := "The GitHub token lacks a permission that this needs."
	if wanted != "" {
		text += " X-Accepted-GitHub-Permissions says " + in.clean.quote(wanted, 100) + "."
	}
	return &cause{"github-permission", certain, text, "Give the token that permission in its settings, for this repository. In GitHub Actions, it is permissions: in the workflow."}
}

// methodChanged is for a redirect that has made a GET of a request with a body.
func (in *inquiry) methodChanged() *cause {
	hops := in.requests()
	if in.resp == nil || len(hops) < 2 || !slices.Contains([]int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented}, in.resp.StatusCode) {
		return nil
	}
	last := hops[len(hops)-1]
	if in.isSafe() || last.Method == in.method {
		return nil
	}
	return &cause{"method-changed", certain, "A redirect has made a " + printable(last.Method, 10) + " of the " + printable(in.method, 20) + ", and left out the body. Clients do so with 301, 302 and 303 (RFC 9110 §15.4); only 307 and 308 keep the method.",
		"Ask where it leads directly. The URL is " + in.clean.url(last.URL)}
}

// otherStatuses are what statuses mean that are no refusal, and may be taken for one.
var otherStatuses = map[int]cause{
	http.StatusMethodNotAllowed: {"method", certain, "The server does not take this method for this URL (405).",
		"Check the method and the path. Allow names the methods that it takes; credentials hardly help, unless a login page is in the way."},
	http.StatusNotAcceptable: {"not-acceptable", certain, "The server has no answer of a kind that Accept allows (406).",
		"Send the Accept of its documentation, with -H. Firewalls answer so, too, if they do not like the request or its User-Agent."},
	http.StatusUnsupportedMediaType: {"media-type", certain, "The server does not take a body of this Content-Type (415).",
		"Send that of its documentation, with -H. It is often -H 'Content-Type: application/json'; it is not about credentials."},
	http.StatusMisdirectedRequest: {"misdirected", certain, "The server says that it is not the one for this host name (421).",
		"Check the host name, and the Host header if -H has one. It must be one of those in the certificate (RFC 9110 §15.5.20)."},
	http.StatusUpgradeRequired: {"upgrade", certain, "The server wants another protocol for this URL, such as WebSocket (426).",
		"Connect by the protocol that its Upgrade header names. For a WebSocket, that is a wss:// URL."},
	http.StatusServiceUnavailable: {"unavailable", certain, "The server is not available now: overloaded, or being maintained (503).",
		"Try again later. It is not about credentials, even if the page has a form for them."},
}

// otherStatus is for such a status.
func (in *inquiry) otherStatus() *cause {
	if in.resp == nil || in.disguise != nil || in.report.Outcome != outcomePassed || in.methodChanged() != nil || in.proxyUnanswered() != nil {
		return nil
	}
	if s := in.resp.StatusCode; s >= 520 && s <= 530 && strings.Contains(strings.ToLower(in.resp.Header.Get("Server")), "cloudflare") {
		return &cause{"cloudflare-origin", certain, "Cloudflare does not reach the server behind it, and answers by itself (" + statusNumber(s) + "). It is not about credentials.",
			"See whether that server runs, and Cloudflare's addresses may reach it. Its certificate has to be right, too."}
	}
	c, ok := otherStatuses[in.resp.StatusCode]
	if !ok {
		return nil
	}
	return &c
}

// failed reports whether the server has failed rather than refused, and does not say why.
func (in *inquiry) failed() bool {
	return in.resp != nil && in.disguise == nil && slices.Contains([]int{http.StatusInternalServerError, http.StatusBadGateway}, in.resp.StatusCode) && in.sign() == nil
}

// serverError is for a server that has failed, perhaps on the credentials.
func (in *inquiry) serverError() *cause {
	if !in.failed() || in.proxyUnanswered() != nil {
		return nil
	}
	look := "Look into the server's log."
	if in.resp.StatusCode == http.StatusInternalServerError && in.says("<center>nginx", "<center>openresty") {
		look = "Look into nginx's log; see what auth_request asks, if it has that. It makes a 500 of any answer to that but 2xx, 401 and 403."
	}
	if in.resp.StatusCode == http.StatusBadGateway {
		look = "See whether the server behind the gateway runs (502)."
	}
	bare := in.trials.bare
	switch {
	case bare != nil && bare.resp != nil && bare.resp.StatusCode < 500:
		if c := in.failedOn(); c != nil {
			return c
		}
		return &cause{"server-error-credentials", likely, "The server fails with these credentials, and not without. Asked again without them, it answered " + strings.TrimSpace(statusText(bare.resp.StatusCode)) +
			". Either it cannot read them or look them up, and should answer 401; or it has accepted them, and failed after that.",
			"Check the credentials, and look into the server's log. Are they whole, with nothing else, and of the kind that the server wants?"}
	case bare != nil && bare.resp != nil:
		return &cause{"server-error", likely, "The server fails with credentials and without. So the failure is hardly about them.", look + " Or try again later."}
	case in.gave():
		return &cause{"server-error", possible, "The server failed, and the status does not say at what. Some servers fail on an Authorization header that they cannot read, where others answer 401.",
			look + " Asking again without credentials shows whether they are the matter."}
	case in.schemes != nil:
		return &cause{"server-error", possible, "The server failed before it asked for credentials. What was given was not sent, because it waits for a challenge. Some servers fail if there are no credentials, where others answer 401.",
			look + " A user name and a password can be sent at once, with -ahead."}
	}
	return &cause{"server-error", possible, "The server failed, and no credentials were sent. Some servers fail if there are none, where others answer 401.",
		look + " If that does not help, try with credentials."}
}

// failedOn says what is wrong with the credentials on which the server has failed, as far as that shows in them, or in what it says.
func (in *inquiry) failedOn() *cause {
	c := in.slip()
	if c == nil && strings.EqualFold(in.last(), "Bearer") {
		c = cutJWT(in.sentToken())
	}
	if c == nil {
		c = in.signOf(http.StatusUnauthorized, in.words)
	}
	if c == nil {
		return nil
	}
	c.Sure = likely
	c.Text += " The server fails on it with a " + statusText(in.resp.StatusCode) + ", where it should answer 401: without credentials, it does not fail."
	return c
}
