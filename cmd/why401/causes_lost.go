package main

import (
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// headerLost is for a server that has not seen what was sent to it.
func (in *inquiry) headerLost() *cause {
	isForbidden := in.resp != nil && in.resp.StatusCode == http.StatusForbidden && in.says("credentials were not provided")
	code := in.param("error")
	if !in.is401() && !isForbidden || in.last() == "" || code != "" && code != "unauthorized" || !in.saysNothingCame() { // which Spring says of none
		return nil
	}
	first, fix := "The server has not seen the Authorization header that was sent.", passOn
	switch {
	case in.says("authentication credentials were not provided") && strings.EqualFold(in.last(), "Bearer") && in.has("Bearer") == nil: // Django REST framework
		first, fix = "The server saw no credentials, or wants another word than Bearer.", "Try -H 'Authorization: Token KEY'. Django REST framework often wants it so. If that is refused, too: "+strings.ToLower(passOn[:1])+passOn[1:]
	case !slices.ContainsFunc([]string{"Basic", "Bearer", "Digest", "DPoP"}, func(s string) bool { return strings.EqualFold(s, in.last()) }):
		first, fix = "The server has seen no credentials in a form that it knows.", "Compare the header with the documentation, each mark of it. If it is right: "+strings.ToLower(passOn[:1])+passOn[1:]
	}
	text := first + " Its text says that there was none"
	if message := in.shortMessage(); message != "" {
		text += ": “" + message + "”"
	}
	text += ". A gateway, load balancer or web server in between takes it off, or keeps it for itself."
	if in.resp.ProtoMajor == 2 && in.repeat == 0 && in.isSafe() {
		text += " It came over HTTP/2, where header names are in lower case: -repeat 3 shows whether HTTP/1.1 does better."
	}
	return &cause{"header-lost", likely, text, fix}
}

// passOn is what to do where Authorization does not come to the server.
const passOn = "Have the gateway pass Authorization on to the server. In Apache: CGIPassAuth On, or SetEnvIf Authorization; in nginx: proxy_set_header Authorization $http_authorization; asking the server itself, behind the gateway, shows whose fault it is."

// keyLost is for a server that says that nothing came, where a key was sent in a header of its own.
func (in *inquiry) keyLost() *cause {
	if !in.is401() && (in.resp == nil || in.resp.StatusCode != http.StatusForbidden) || in.last() != "" || !in.gaveKey() || len(in.report.Challenges) > 0 || in.sign() != nil || !in.saysNothingCame() || in.underscored() != nil {
		return nil
	}
	text := "The server saw no credentials: it does not read the header of -H."
	fix := "Send the key in the header that its documentation names. See that no gateway in between takes it off."
	switch {
	case in.header.Get("Cookie") != "":
		text = "The server knows no session of the cookie, or does not look at it."
		fix = "Log in again, and send the new cookie. If it is refused, too, the server wants a token here."
	case in.says("authorization", "bearer"):
		fix = "Send it in Authorization: -token-env for a Bearer token. If its documentation has the header that was sent, a gateway in between may take that off."
	}
	if message := in.shortMessage(); message != "" {
		text += " It says: “" + message + "”."
	}
	return &cause{"key-lost", likely, text, fix}
}

// nothingCame are what servers say if there are no credentials, besides what absent finds.
var nothingCame = []string{
	"authorization header required", "authorization header not found", // express-jwt, Flask-JWT
	"missing authentication", "authentication required", "full authentication is required", // Spring Security
	"not authenticated",                   // FastAPI
	"missing 'authorization'",             // Hasura
	"no session information", "no ticket", // Argo CD, Proxmox
	`"rest_not_logged_in"`, `"rest_cannot_`, `"rest_forbidden`, // WordPress, of who is not logged in: to others, it says so with a 403
	"no credentials found", // Kong
	"missing or malformed jwt", "missing or invalid authorization", "missing key in request header", "anonymous access",
}

// Of these words, one before the name of a credential, or one after it, says that there was none. Those of Apache's page for wrong
// passwords ("how to supply the credentials required") and of Tomcat's ("lacks valid authentication credentials") are not among them.
var (
	beforeAbsent = []string{"no", "missing", "without", "must provide", "must supply", "must include", "must send", "please provide", "did not provide", "didn't provide", "not provide"}
	afterAbsent  = []string{"missing", "is missing", "are missing", "was missing", "not provided", "is not provided", "was not provided", "were not provided", "not found", "was not found",
		"not supplied", "was not supplied", "were not supplied", "not present", "is not present", "is empty", "is required", "are required"}
	articles = []string{"a", "an", "the", "any", "your", "required", "request"}
	others   = []string{"valid", "invalid", "or", "and", "csrf", "xsrf", "refresh", "id", "mfa", "otp", "client", "device", "captcha", "verification", "reset", "user", "admin", "active", "new", "fresh", "different", "another", "other"}
)

// Names of credentials, in lower case: of any kind, of passwords, and of tokens.
var (
	anyCredentials  = []string{"credentials", "credential", "authorization header", "auth header", "authentication header", "authorization"}
	passwordsByName = []string{"username and password", "user name and password", "username/password", "basic auth"}
	tokensByName    = []string{"token", "jwt", "bearer"}
)

// saysNothingCame reports whether the body says that there were no credentials, of the kind that was sent or is asked for.
func (in *inquiry) saysNothingCame() bool {
	if in.says(nothingCame...) {
		return true
	}
	names := slices.Concat(anyCredentials, tokensByName, passwordsByName)
	switch {
	case in.has(in.last()) != nil: // which it asks for, in whatever words
	case sentPassword(in):
		names = slices.Concat(anyCredentials, passwordsByName)
	default:
		names = slices.Concat(anyCredentials, tokensByName)
	}
	return slices.ContainsFunc(names, func(name string) bool { return isAbsent(in.words, name) })
}

// wantsOtherKind is for a server that asks for nothing, and says that there was none of another kind of credentials than was sent.
func (in *inquiry) wantsOtherKind() *cause {
	if !in.is401() || in.sentOther() || in.param("error") != "" || in.headerLost() != nil {
		return nil
	}
	isAbsent := func(name string) bool { return isAbsent(in.words, name) }
	said := ""
	if message := in.shortMessage(); message != "" {
		said = " It says: “" + message + "”."
	}
	switch {
	case sentPassword(in) && slices.ContainsFunc(tokensByName, isAbsent):
		return &cause{"wants-token", likely, "The server wants a token, and was sent a user name and a password." + said, "Give it a token, with -token-env or -token-file."}
	case strings.EqualFold(in.last(), "Bearer") && slices.ContainsFunc(passwordsByName, isAbsent):
		return &cause{"wants-password", likely, "The server wants a user name and a password, and was sent a token." + said, "Give it a user name and a password, with -u, and -ahead if need be."}
	}
	return nil
}

// isAbsent reports whether a text says that something of the name is not there.
func isAbsent(text, name string) bool {
	for at := 0; ; {
		i := strings.Index(text[at:], name)
		if i < 0 {
			return false
		}
		before, after := text[:at+i], text[at+i+len(name):]
		at += i + len(name)
		if r, _ := utf8.DecodeLastRuneInString(before); isWord(r) || r == '_' || r == '-' {
			continue
		}
		if r, _ := utf8.DecodeRuneInString(after); isWord(r) || r == '_' || r == '-' {
			continue
		}
		before, word := withoutArticles(before)
		after = strings.TrimPrefix(strings.TrimSpace(after), "header ")
		isAfter := slices.ContainsFunc(afterAbsent, func(w string) bool { return beginsWithWord(after, w) })
		isBefore := slices.ContainsFunc(beforeAbsent, func(w string) bool {
			return endsWithWord(before, w) && !endsWithWord(strings.TrimSpace(strings.TrimSuffix(before, w)), "or") // invalid or missing
		})
		if isBefore || isAfter && !slices.Contains(others, word) {
			return true
		}
	}
}

// withoutArticles returns the text without articles and kinds of credentials at its end, and the last word that is left.
func withoutArticles(text string) (rest, word string) {
	for {
		text = strings.TrimRight(text, " \t\r\n")
		i := strings.LastIndexFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && r != '\'' })
		word = text[i+1:]
		if word == "" || !slices.Contains(articles, word) && !slices.Contains([]string{"access", "auth", "authentication", "authorization", "bearer", "login"}, word) {
			return text, word
		}
		text = text[:i+1]
	}
}

func beginsWithWord(s, word string) bool {
	rest, ok := strings.CutPrefix(s, word)
	r, _ := utf8.DecodeRuneInString(rest)
	return ok && !isWord(r)
}

func endsWithWord(s, word string) bool {
	rest, ok := strings.CutSuffix(s, word)
	r, _ := utf8.DecodeLastRuneInString(rest)
	return ok && !isWord(r)
}
