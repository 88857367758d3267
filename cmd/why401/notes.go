package main

import "fmt"

// notes says what else was noticed.
func (in *inquiry) notes() []cause {
	var list []cause
	said := in.tidied()
	for _, note := range in.tokenNotes {
		if said == nil || note.Name != said.Name {
			list = append(list, note)
		}
	}
	if in.userinfo {
		list = append(list, cause{"userinfo", "", "The URL has a user name in it, and perhaps a password. It was not used: a URL gets into histories, logs and Referer headers, and every user of the machine can read it.",
			"Change the password if it is of any worth, and use -u."})
	}
	if in.has("Basic") != nil && !in.report.Challenges[0].Proxy && in.asked().Scheme == "http" && !isLoopback(in.asked().Hostname()) {
		list = append(list, cause{"basic-plain-http", "", "The server asks for Basic over plain http: whoever is on the way can read the password (RFC 7617 §4).",
			"Use https, if the server has it."})
	}
	if t := decodeJWT(in.sentToken()); in.refused() && t != nil {
		list = append(list, cause{"token-claims", "", "The token is a JWT that says of itself: " + in.clean.text(t.about(), 600) + ". (Read, but its signature was not checked, so anybody may have written that.)",
			"Compare that with what the server expects."})
	}
	if in.report.Login != nil && in.report.Login.Tried != "" && in.trial.isBound() {
		list = append(list, cause{"bound-login", "", "The login was for a token that is bound to a key (DPoP, RFC 9449). The key was made for it, and is forgotten now.",
			"In a program, use package dpop, with discover.Config.Proof."})
	}
	if in.header.Get("Authorization") != "" && in.schemes == nil {
		list = append(list, cause{"own-header", "", "In a program, authretry leaves a request alone that has an Authorization header of its own: no refresh, no retry.",
			"Give the Transport a Bearer, Basic or APIKey instead of setting the header."})
	}
	if n := len(in.report.Damage); n > 0 && len(in.report.Challenges) > 0 {
		list = append(list, cause{"damaged-challenge", "", "The header does not follow the grammar (RFC 9110 §11.6.1). It was read as well as it could be; other clients may read it otherwise.",
			"Tell whoever runs the server."})
	}
	if in.report.Outcome == outcomePassed && in.resp != nil && in.resp.StatusCode < 300 && in.schemes != nil && in.last() == "" {
		list = append(list, cause{"not-needed", "", "The server answered without credentials: none were asked for, and none were sent.", ""})
	}
	if in.unread != "" {
		list = append(list, cause{"compressed-body", "", "The answer's body is compressed in a way that cannot be undone here (Content-Encoding " + in.clean.quote(in.unread, 40) + "). So what it says was not looked at.",
			"Run it again with -H 'Accept-Encoding: identity'."})
	}
	if in.odd != "" {
		list = append(list, cause{"odd-encoding", "", "The answer's body is not in the Content-Encoding that its header gives (" + in.clean.quote(in.odd, 40) + "). It was read nevertheless; most clients cannot.",
			"Have the server, or the proxy that compresses, repaired."})
	}
	if in.isPreflight() && in.gave() {
		list = append(list, cause{"preflight-with-credentials", "", "This is a CORS preflight, and browsers send those without credentials: theirs may be answered otherwise.", "Run it again without credentials."})
	}
	if note := in.sameEachTime(); note != nil {
		list = append(list, *note)
	}
	if in.cut {
		list = append(list, cause{"long-header", "", fmt.Sprintf("An answer's header is very long. What is shown of it was cut: of a line, %d KiB were looked at.", mostField>>10), ""})
	}
	if in.slow {
		list = append(list, cause{"slow-body", "", fmt.Sprintf("The answer's body did not end within %d seconds. It was read no further; streams are like that, and broken servers.", int(bodyTime.Seconds())), ""})
	}
	return list
}
