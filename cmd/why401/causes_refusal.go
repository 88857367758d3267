package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// date returns the server's clock, as the Date of its last response has it.
func (in *inquiry) date() (time.Time, bool) {
	if in.resp == nil {
		return time.Time{}, false
	}
	date, err := http.ParseTime(in.resp.Header.Get("Date"))
	return date, err == nil
}

// skew returns how far the server's clock is ahead of ours.
func (in *inquiry) skew() time.Duration {
	date, ok := in.date()
	if !ok {
		return 0
	}
	return date.Sub(in.now)
}

func (in *inquiry) insufficientScope() *cause {
	if !in.refused() || in.param("error") != "insufficient_scope" {
		return nil
	}
	const text = "The token is good, but its scope does not allow this. See RFC 6750 §3.1. Refreshing it does not help: the new one would have the same scope."
	const who = " The authorization server gives it out. In a program, Bearer.StepUp asks for it."
	named, has := strings.Fields(in.param("scope")), decodeJWT(in.sentToken()).scopes()
	lacks := slices.DeleteFunc(slices.Clone(named), func(s string) bool { return slices.Contains(has, s) })
	switch {
	case len(named) == 0:
		return &cause{"insufficient-scope", certain, text, "Get a token with a wider scope; the API's documentation says which." + who}
	case len(lacks) == 0:
		return &cause{"insufficient-scope", likely, "The token has the scope that the server names, and is refused. It is a JWT, and says that its scope is " + in.scopeText(has, 200) + ".",
			"See what else the server looks at. Often that is a role or a right of the user, another claim, or another audience. Or it asks the authorization server (RFC 7662), where the scope has been taken back."}
	case len(lacks) < len(named):
		return &cause{"insufficient-scope", certain, text + " The token is a JWT, and says that its scope is " + in.scopeText(has, 200) + ".",
			in.getScope("Get a token that also has the scope", lacks) + " The server names " + in.scopeText(named, 200) + "." + who}
	}
	return &cause{"insufficient-scope", certain, text, in.getScope("Get a token with the scope", lacks) + who}
}

// getScope says to get some scopes, in a sentence that fits on a line.
func (in *inquiry) getScope(what string, scopes []string) string {
	const short = 34 // characters
	if text := strings.Join(scopes, " "); len(text) > short {
		return what + " that the server names. It is " + in.scopeText(scopes, 200) + "."
	}
	return what + " " + in.scopeText(scopes, short) + "."
}

func (in *inquiry) scopeText(scopes []string, most int) string {
	return in.clean.text(strings.Join(scopes, " "), most)
}

func (in *inquiry) staleForEver() *cause {
	c := in.has("Digest")
	if !in.refused() || c == nil || !strings.EqualFold(c.Params.Get("stale"), "true") || in.last() == "" {
		return nil
	}
	return &cause{"stale-nonce", likely, "The server calls a nonce stale that it has just given out. The password is probably right: a server says stale only of an answer whose hash is (RFC 7616 §3.3). Usually there are several servers behind one address that do not know of each other's nonces, or the server restarts all the time, or nonces last no longer than a request takes.",
		"Bind clients to one server at the load balancer. Or share the nonce secret between the servers, or let nonces last longer."}
}

func (in *inquiry) serverSays() *cause {
	if !in.refused() || in.headerLost() != nil {
		return nil
	}
	code, description := in.param("error"), in.param("error_description")
	if code == "insufficient_scope" && description == "" || code == "" && description == "" {
		return nil
	}
	var known *cause // what the description means
	text := "The server says: " + in.clean.text(code, 60) + "."
	switch {
	case description != "":
		words := in.clean.quote(strings.TrimRight(description, "."), 400)
		if known = in.signOf(in.resp.StatusCode, strings.ToLower(description)); known != nil {
			text = known.Text + " Its words are " + words + "."
		} else {
			text = words + " is what the server says." // its words first, where a line may end
		}
		if code != "" {
			text += " The code is " + in.clean.text(code, 60) + "."
		}
	case code == "invalid_token":
		text = "The server says that the token is not valid. The code is invalid_token."
	}
	fix := "Read what it says; its documentation may say more."
	switch {
	case known != nil && (code == "" || code == "invalid_token" || code == "invalid_request"):
		fix = known.Fix
	case code == "invalid_token" && in.otherEnvironment(decodeJWT(in.sentToken())) != "":
		fix = "Get another: this one is of " + in.otherEnvironment(decodeJWT(in.sentToken())) + ". That is its issuer, and looks like one of another environment."
	case code == "invalid_token" && in.foreignHost(decodeJWT(in.sentToken())) != "":
		fix = "Get another: the aud of this one is " + in.foreignHost(decodeJWT(in.sentToken())) + ". The server may expect an aud of its own, and another issuer."
	case code == "invalid_token":
		fix = "Get a new token, for this server and from the issuer it trusts. If a new one is refused, too, compare its aud and iss with what the server is configured for."
	case code == "use_dpop_nonce", code == "invalid_dpop_proof":
		fix = in.fixOfProof(code)
	case code == "insufficient_claims":
		fix = "Log in again, with the claims of the challenge. They are passed on to the authorization server."
	case code == "insufficient_user_authentication":
		fix = "Log in again, with acr_values or max_age of the challenge."
	}
	if uri := in.param("error_uri"); uri != "" {
		fix += " See " + in.clean.text(uri, 200)
	}
	sure := certain
	if known != nil {
		sure = known.Sure
	}
	if code == "invalid_token" && !in.pasted && !in.gave() && in.keyInQuery() == "" {
		sure, text = likely, text+" Some servers say so of none, too: nothing was sent."
	}
	return &cause{"server-says", sure, text, fix}
}

// permission are words in a body that speak of permission rather than of identity.
var permission = []string{"permission", "forbidden", "not allowed", "not permitted", "access denied", "not authorized to", "isn't authorized to", "insufficient", "privilege", "not entitled"}

// noPermission are words of texts that speak of permission, and mean that the credentials are wrong, or that there were none.
var noPermission = []string{"view this directory or page", "due to invalid credentials", "personal access token used has expired", // IIS and Azure's App Service, Azure DevOps
	"the user '' is", "must be sent", "must be provided"}

func (in *inquiry) shouldBe403() *cause {
	if !in.is401() || !in.gave() || in.headerLost() != nil || in.wantsOtherKind() != nil || in.sign() != nil || in.says(noPermission...) || isCommonplace(in.body) {
		return nil
	}
	const fix = "Have the permission granted to the user or the token. Whoever runs the server should send 403, or clients will ask for passwords and refresh tokens in vain."
	for _, word := range permission {
		if in.says(word) {
			return &cause{"should-be-403", likely, fmt.Sprintf("The response speaks of permission: the user may not do this. Its text says “%s”. Perhaps the credentials are good, and this 401 should be a 403.", word), fix}
		}
	}
	return nil
}

func (in *inquiry) skewed() *cause {
	skew := in.skew()
	if !in.refused() || skew.Abs() < mostSkew || !in.gave() && in.has("AWS4-HMAC-SHA256") == nil {
		return nil
	}
	direction := "ahead of"
	if skew < 0 {
		direction = "behind"
	}
	text := fmt.Sprintf("The server's clock is %s %s the one here. Tokens and signatures are refused as expired or not yet valid if clocks differ.", about(skew.Abs()), direction)
	return &cause{"clock-skew", likely, text, "Find out which of the two is wrong, and set it. See timedatectl or chronyc tracking."}
}

func (in *inquiry) wrongPassword() *cause {
	last := strings.ToLower(in.last())
	if !in.is401() || last != "basic" && last != "digest" || in.sentOther() || in.trials.latin1 {
		return nil
	}
	if c := in.has("Digest"); c != nil && strings.EqualFold(c.Params.Get("stale"), "true") {
		return nil
	}
	text := "The user name or the password is wrong. Or the user is locked, unknown, or not one of those who are let in here; a server does not tell which."
	if in.user.given && in.header.Get("Authorization") == "" {
		text += " The user name was " + quoted(in.user.name) + "."
	}
	fix := "Type the password anew, and check that the user is of this server"
	if realm := in.realm(); realm != "" {
		fix += ". Its realm is " + in.clean.quote(realm, 100)
	}
	fix += ". Services with two-factor login usually want an app password or a token in place of the password."
	if last == "digest" {
		text += " With Digest, the server's stored hash may also be of another realm (it must be made anew if the realm is renamed), or a proxy may have rewritten the URI, which is part of the hash."
	}
	return &cause{"wrong-password", likely, text, fix}
}

// realm returns the realm of the challenge that was answered, or of any.
func (in *inquiry) realm() string {
	if c := in.has(in.last()); c != nil {
		return c.Params.Get("realm")
	}
	return in.param("realm")
}

func (in *inquiry) noChallenge() *cause {
	if in.resp == nil || in.keyLost() != nil {
		return nil
	}
	values := in.resp.Header.Values("WWW-Authenticate")
	if !in.is401() || strings.TrimSpace(strings.Join(values, "")) != "" || len(in.report.Challenges) > 0 {
		return nil
	}
	text := "The 401 does not say what the server wants. It has no WWW-Authenticate header, though it must (RFC 9110 §15.5.2)."
	if len(values) > 0 {
		text = "The 401 does not say what the server wants. Its WWW-Authenticate header is empty, though it must have a challenge (RFC 9110 §15.5.2)."
	}
	fix := "See the API's documentation. Usually it is a token (-token-env), an API key in a header of its own (-H), or a session cookie from a login form."
	hinted := true
	switch {
	case in.says("api key", "api-key", "apikey", "api_key"):
		text += " Its text speaks of an API key."
		fix = "Send the key in the header that the documentation names. For instance -H 'X-API-Key: …'; in a program: &authretry.APIKey{Header: \"X-API-Key\", Key: os.Getenv(\"KEY\")}"
	case in.says("token", "bearer", "jwt"):
		text += " Its text speaks of a token."
	case in.says("session", "cookie", "log in", "login", "sign in"):
		text += " Its text speaks of a login."
	default:
		hinted = false
	}
	if in.gave() {
		fix += ". What was sent now is not it, or not good."
	} else if in.user.given {
		text += " User name and password were not sent, because they wait for a challenge."
		const ahead = "Run it again with -ahead, which sends Basic at once. In a program, set Basic.Ahead."
		if hinted {
			fix += " If it is Basic after all: " + strings.ToLower(ahead[:1]) + ahead[1:]
		} else {
			fix = ahead + " " + fix
		}
	}
	return &cause{"no-challenge", likely, text, strings.ReplaceAll(fix, "..", ".")}
}
