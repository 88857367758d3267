package main

import (
	"net/http"
	"slices"
	"strings"
)

// misnamed is for a header that should be Authorization and has another name.
func (in *inquiry) misnamed() *cause {
	if !in.refused() || in.last() != "" || !in.gaveKey() {
		return nil
	}
	for name := range in.header {
		if isNearlyAuthorization(name) {
			return &cause{"header-name", likely, "The header is named " + printable(name, 20) + ", and HTTP has Authorization. Servers look for credentials there (RFC 9110 §11.6.2), unless their documentation names another header.",
				"Name it Authorization, with a scheme before the credentials. For instance: Authorization: Bearer …"}
		}
	}
	return nil
}

// isNearlyAuthorization reports whether a header's name is what people write for Authorization.
func isNearlyAuthorization(name string) bool {
	name = strings.ToLower(name)
	if slices.Contains([]string{"authentication", "authenticate", "token", "auth", "bearer", "basic", "authorize", "www-authenticate", "x-authorization"}, name) {
		return true
	}
	return isNearly(name, "authorization")
}

// otherSpelling returns the name of the scheme that was sent as the challenge has it, or RFC 9110 where there is none, if that is in
// another case than it was sent; else "".
func (in *inquiry) otherSpelling() string {
	last := in.last()
	if sentPassword(in) { // which is not sent again for that: a wrong one counts each time
		return ""
	}
	words, known := schemeNamed(last)
	if c := in.has(last); known && c != nil {
		words.name = c.Scheme
	}
	if !known || words.name == last || !strings.EqualFold(words.name, last) || len(in.report.Challenges) > 0 && in.has(last) == nil {
		return ""
	}
	return words.name
}

// spelling is for a server that reads the name of a scheme with its case.
func (in *inquiry) spelling() *cause {
	wanted := in.trials.spelling
	if wanted == "" {
		return nil
	}
	fix := "Write it so. In a program, leave the header to the Transport."
	if in.schemes != nil {
		fix = "Send -H 'Authorization: " + wanted + " TOKEN'. In a program: &authretry.APIKey{Header: \"Authorization\", Key: \"" + wanted + " \" + token}. Have the server repaired."
	}
	return &cause{"scheme-case", certain, "The server wants the word " + wanted + " in this case, and got " + in.last() + ". With that, it has let in. The names of schemes have no case (RFC 9110 §11.1), and this server compares it.", fix}
}

// underscored is for a header that servers may drop because of its name.
func (in *inquiry) underscored() *cause {
	if !in.refused() || !in.gaveKey() {
		return nil
	}
	for name := range in.header {
		if strings.Contains(name, "_") {
			if in.saysNoKey() {
				return &cause{"header-underscore", likely, "The server has not seen the header, whose name has an underscore. nginx drops such headers unless underscores_in_headers is on, and so do others.",
					"Try the name with a hyphen, such as api-key. Or have underscores_in_headers set on."}
			}
			return &cause{"header-underscore", possible, "The server may drop a header whose name has an underscore. That is what nginx does unless underscores_in_headers is on.",
				"Try the name with a hyphen, such as api-key. Or have underscores_in_headers set on."}
		}
	}
	return nil
}

// saysNoKey reports whether the server says that no key came.
func (in *inquiry) saysNoKey() bool {
	c := in.sign()
	return c != nil && c.Name == "api-key-wanted" || in.saysNothingCame()
}

// invalidKey is for a server that says that the header is not valid which was given with -H.
func (in *inquiry) invalidKey() *cause {
	if !in.refused() || in.last() != "" || !in.gaveKey() || in.sign() != nil {
		return nil
	}
	for name := range in.header {
		if !harmless[name] && in.says("invalid "+strings.ToLower(name), strings.ToLower(name)+" is invalid", strings.ToLower(name)+" is not valid") {
			return &cause{"key-invalid", certain, "The server says that the key is not valid. It names the header, " + printable(name, 40) + ".", "Check the key, all of it, and its environment. Where there is none of yours, get one."}
		}
	}
	return nil
}

// refusedKey is for a header given with -H in place of what the challenge asks for.
func (in *inquiry) refusedKey() *cause {
	if !in.is401() || in.last() != "" || !in.gaveKey() || in.schemes != nil || in.misnamed() != nil {
		return nil
	}
	what := "header"
	if len(in.header) == 1 && in.header.Get("Cookie") != "" {
		what = "cookie"
	}
	if len(in.report.Challenges) == 0 {
		if in.sign() != nil || in.keyLost() != nil || in.invalidKey() != nil || in.underscored() != nil {
			return nil
		}
		return &cause{"wrong-key", likely, "The " + what + " given with -H does not let in here. It may be wrong, expired, or of another environment; or the server does not look at it.",
			"Get a new one, or check this: all of it, and the header's name."}
	}
	return &cause{"wrong-key", likely, "The " + what + " given with -H does not let in here. The key may be wrong, or the server does not look at it: it asks for " + in.asks() + ".",
		"Check the key and the header's name. Or give what it asks for; see below for what each challenge needs."}
}

// refusedOther is for credentials of the scheme that is asked for, if it is none of those of which more is known.
func (in *inquiry) refusedOther() *cause {
	last := in.last()
	known := slices.ContainsFunc([]string{"Basic", "Digest", "Bearer", "DPoP"}, func(s string) bool { return strings.EqualFold(s, last) })
	if !in.is401() || last == "" || last == unreadable || known || in.has(last) == nil {
		return nil
	}
	return &cause{"wrong-credentials", likely, "The credentials are of the right kind, and are refused. They may be wrong, expired, or meant for another server.",
		"Get new ones, or check these. The header went out as it was given with -H."}
}

// unexplained is for a refusal that no other finder knows a cause of.
func (in *inquiry) unexplained() *cause {
	if !in.refused() {
		return nil
	}
	given := "Nothing that may be a credential was sent."
	if in.gave() {
		given = "What was sent may be wrong, or not what the server looks at."
	}
	text := "The server refuses, and does not say why. " + given
	if in.resp.StatusCode == http.StatusProxyAuthRequired {
		text = "The proxy refuses, and does not say why. The server was not asked."
	}
	return &cause{"unexplained", possible, text, "See below for what each challenge needs. The server's log says more, and its documentation may."}
}

// allCauses returns the causes, of which each refusal has one.
func (in *inquiry) allCauses() []cause {
	list := in.causes()
	if len(list) == 0 {
		list = in.find(in.unexplained)
	}
	return list
}
