package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/authretry/authretry"
)

// mistyped is for an Authorization header, or a token, that cannot be right as it is written, whatever the server thinks of it.
func (in *inquiry) mistyped() *cause {
	switch {
	case in.lookedAt():
		if c := in.slip(); c != nil && (in.disguise == nil || in.disguise.Name != c.Name) {
			return c
		}
		return nil
	case in.isUnsendable():
		c := in.slip()
		if c != nil {
			c.Text += noneSent
		}
		return c
	}
	return nil
}

const noneSent = " No credentials were sent."

// brokenToken is for a token whose file has more than one line, of which the first was sent.
func (in *inquiry) brokenToken() *cause {
	if in.tokenRest == "" || in.header.Get("Authorization") != "" || !in.lookedAt() || in.sentOther() {
		return nil
	}
	sure := certain
	if decodeJWT(in.token) != nil && cutJWT(in.token) == nil || strings.ContainsAny(strings.TrimSpace(in.tokenRest), " \n") {
		sure = likely // the first line may be all of it
	}
	return &cause{"token-lines", sure, "Only the first of several lines in the token's file was sent. A token has no line break in it, so the file has half a token, or more than one.",
		"Join the lines, or remove what is not of the token."}
}

// tidied is for a secret that has passed here, and does not where a program sends all of what it has read.
func (in *inquiry) tidied() *cause {
	if in.report.Outcome != outcomePassed || in.resp == nil || in.resp.StatusCode >= 300 || in.schemes == nil || in.last() == "" {
		return nil
	}
	var found *cause
	for _, note := range in.tokenNotes {
		isBreak := strings.HasSuffix(note.Name, "-line-break") // which most files end with
		if isBreak && found != nil || !strings.HasPrefix(note.Name, "token-") && !strings.HasPrefix(note.Name, "password-line") {
			continue
		}
		found = &note
		if !isBreak {
			break
		}
	}
	if found != nil {
		found.Sure = possible
	}
	return found
}

// slip finds what is wrong with what was given, whatever came of it.
func (in *inquiry) slip() *cause {
	if value := in.header.Get("Authorization"); value != "" && in.last() != "" {
		if n := len(in.header.Values("Authorization")); n > 1 {
			return &cause{"header-repeated", certain, fmt.Sprintf("There are %d Authorization headers, and there may be only one.", n) + " Servers take the first, the last, or none of them (RFC 9110 §5.3).",
				"Send one of them. If one is for a proxy or gateway, its header has another name, such as Proxy-Authorization."}
		}
		if c := slipInHeader(value); c != nil {
			return c
		}
		switch scheme, rest, _ := strings.Cut(value, " "); {
		case in.sentOther():
		case strings.EqualFold(scheme, "Basic"):
			return slipInBasic(strings.TrimSpace(rest))
		case strings.EqualFold(scheme, "Bearer"), strings.EqualFold(scheme, "DPoP"):
			return slipInToken(strings.TrimSpace(rest))
		}
		return nil
	}
	if in.last() == "" && in.gaveKey() {
		return in.slipInKey()
	}
	if in.token == "" || in.sentOther() || in.lookedAt() && !strings.EqualFold(in.last(), "Bearer") {
		return nil
	}
	return slipInToken(in.token)
}

// slipInKey finds what is wrong with a key in a header given with -H.
func (in *inquiry) slipInKey() *cause {
	for _, name := range slices.Sorted(maps.Keys(in.header)) {
		if name == "Authorization" || !hasAny(strings.ToLower(name), "key", "token", "auth", "secret") {
			continue
		}
		if c := slipInValue("key", in.header.Get(name)); c != nil {
			c.Name = strings.Replace(c.Name, "token-", "key-", 1)
			return c
		}
	}
	return nil
}

// badRequestTyping is for a 400 to credentials that are mistyped.
func (in *inquiry) badRequestTyping() *cause {
	if in.resp.StatusCode != http.StatusBadRequest || !in.gave() {
		return nil
	}
	if c := in.slip(); c != nil && c.Sure == certain {
		return c
	}
	return nil
}

// lookedAt reports whether the server has refused credentials that it has seen, and not for what they allow.
func (in *inquiry) lookedAt() bool {
	return in.refused() && in.resp.StatusCode != http.StatusProxyAuthRequired && in.gave() && in.param("error") != "insufficient_scope"
}

// isUnsendable reports whether there was a challenge, and credentials that could not be sent.
func (in *inquiry) isUnsendable() bool {
	return in.err != nil && !in.login.wanted && in.is(authretry.ReasonNoCredentials, authretry.ReasonMisconfigured)
}

// unlessMistyped returns find, or what finds nothing if the credentials cannot be right as they are written: then it does not
// matter what else may be wrong with them.
func (in *inquiry) unlessMistyped(find func() *cause) func() *cause {
	return func() *cause {
		for _, slip := range []func() *cause{in.mistyped, in.mistypedPassword} {
			if c := slip(); c != nil && c.Sure == certain {
				return nil
			}
		}
		return find()
	}
}

// slipInHeader finds what is wrong before the credentials in an Authorization header.
func slipInHeader(value string) *cause {
	word, _, colon := strings.Cut(value, ":")
	_, known := schemeNamed(word)
	_, alone := schemeNamed(value)
	switch {
	case alone:
		return &cause{"empty-credentials", certain, "The Authorization header has the word " + printable(value, 30) + ", and nothing after it.",
			"See where the credentials should come from. Probably a variable is empty, or has another name."}
	case colon && strings.EqualFold(word, "Authorization"):
		return &cause{"header-twice", certain, "The header's value begins with the header's name, Authorization.", "Remove it there. The value begins with the scheme, such as Bearer or Basic."}
	case colon && known:
		return &cause{"scheme-colon", certain, "There is a colon after the word " + printable(word, 30) + ", and there must be none.",
			"Write the word, one space, and the credentials. See RFC 9110 §11.4."}
	case isQuoted(value):
		return &cause{"header-quotes", certain, "The whole value of the Authorization header is in quotes.", "Remove them. A shell takes away one pair only, and what reads .env files often none."}
	}
	return nil
}

// slipInToken finds what is wrong with a token that the server has seen.
func slipInToken(token string) *cause {
	first, _, spaced := strings.Cut(token, " ")
	first = strings.TrimSuffix(first, ":")
	scheme, known := schemeNamed(first)
	switch {
	case spaced && strings.EqualFold(first, "Bearer"):
		return &cause{"token-prefix-twice", certain, "The word Bearer is there twice, and the second is not part of the token.",
			"Remove it where the token comes from, or where the header is made. One of the two puts it there already."}
	case known && !spaced:
		return &cause{"token-empty", certain, "The name of a scheme stands in place of the token. Nothing is after it.", "See where the token should come from. Probably a variable is empty, or has another name."}
	case known:
		return &cause{"token-scheme", certain, "The token begins with the name of a scheme other than Bearer. The word is " + scheme.name + ", and a token has no space in it.",
			"Give all of it as a header. For instance -H \"Authorization: $TOKEN\", which other users of the machine can read."}
	}
	if c := slipInValue("token", token); c != nil {
		return c
	}
	return oddCharacter(token)
}

// slipInValue finds what is wrong with a token or a key, whatever kind it is of.
func slipInValue(what, value string) *cause {
	switch {
	case isTokenAnswer(value):
		return &cause{"token-json", certain, "A whole JSON document stands in place of the " + what + ".", "Send what is in it alone, usually as access_token. To get that out: jq -r .access_token"}
	case isQuoted(value):
		return &cause{"token-quotes", certain, "The " + what + " is in quotes, which are not part of it.", "Remove them where it comes from. What reads .env files often leaves them, and jq does without -r."}
	case isVariable(value):
		return &cause{"token-variable", certain, "A variable's name stands in place of the " + what + ".",
			"Write the header in double quotes, not in single ones. A shell puts in variables within double quotes only; in cmd.exe they are %NAME%, in PowerShell $env:NAME, and most configuration files have none."}
	case isTemplate(value):
		return &cause{"token-template", certain, "A template's placeholder stands in place of the " + what + ".", "Set the variable that it stands for, and have it filled in."}
	case isWithin(value, "<", ">"):
		return &cause{"token-brackets", certain, "The " + what + " is in angle brackets, which are not part of it.",
			"Remove them. If they are those of some documentation, put your own in their place."}
	case noValues[value]:
		return &cause{"token-no-value", certain, "A word such as undefined or null stands in place of the " + what + ".", "See why the program that sends it has none at that moment."}
	case endsWithEscape(value):
		return &cause{"token-escape", certain, `The ` + what + ` ends with an escaped line break, such as \n or %0A.`, "Trim it before it is escaped, or where it is stored."}
	case strings.HasSuffix(value, "...") || strings.HasSuffix(value, "…"):
		return &cause{"token-dots", certain, "The " + what + " ends with dots: it was shortened for display.", "Copy it from where it is shown whole."}
	case isOfDocumentation(value):
		return &cause{"token-placeholder", likely, "The " + what + " looks like a placeholder of some documentation.", "Put your own in its place."}
	}
	return nil
}

// oddCharacter is for a character that no token has (RFC 6750 §2.1), or hardly one: some servers make tokens of others than that allows.
func oddCharacter(token string) *cause {
	if end := token[len(token)-1]; end == ';' || end == ',' {
		return &cause{"token-character", certain, "The token ends with a " + map[byte]string{';': "semicolon", ',': "comma"}[end] + ", which no token has (RFC 6750 §2.1).", "Remove it where the token comes from. It is probably of the code or the list that the token was copied from."}
	}
	for i, r := range []rune(token) {
		what, sure, rare := "", certain, " in it, which no token has. "
		switch {
		case unicode.IsSpace(r):
			what = "a space or line break"
		case r > unicode.MaxASCII:
			what = "a character outside ASCII"
		case !unicode.IsPrint(r):
			what = "a control character"
		case r == '"' || r == '\'' || r == '`':
			what = "a quotation mark"
		case strings.ContainsRune(`,;<>(){}[]\`, r):
			what, sure, rare = "a bracket, comma, semicolon or backslash", likely, ", as few have. "
		default:
			continue
		}
		return &cause{"token-character", sure, "The token has " + what + rare + fmt.Sprintf("It is the character number %d of %d (RFC 6750 §2.1).", i+1, utf8.RuneCountInString(token)),
			"Copy the token anew, all of it and nothing else."}
	}
	return nil
}

// slipInBasic finds what is wrong with what follows Basic (RFC 7617 §2).
func slipInBasic(code string) *cause {
	const encode = "Leave the header out, and use -u: then it is encoded as it must be."
	plain, exact, ok := decodeBasic(code)
	name, password, colon := strings.Cut(plain, ":")
	twice, _, again := decodeBasic(strings.TrimSpace(plain))
	switch {
	case isQuoted(code):
		return &cause{"basic-quotes", certain, "What follows Basic is in quotes, which do not belong there.", "Remove them."}
	case isVariable(code):
		return &cause{"basic-variable", certain, "A variable's name stands in place of the credentials.", "Write the header in double quotes, not in single ones. A shell puts in variables within double quotes only."}
	case !ok:
		return &cause{"basic-not-base64", certain, "What follows Basic is not base64. User name and password are encoded together, with a colon between them (RFC 7617 §2).", encode}
	case !colon && again && strings.Contains(twice, ":"):
		return &cause{"basic-twice", certain, "User name and password were encoded in base64 twice.", encode}
	case !colon:
		return &cause{"basic-no-colon", certain, "What follows Basic is base64 of something without a colon. There must be one between user name and password (RFC 7617 §2).", encode}
	case strings.HasSuffix(plain, "\n"):
		return &cause{"basic-line-break", certain, "The password ends with a line break, inside the base64.", "Encode it without: take printf %s, or echo -n, in place of echo."}
	case !exact:
		return &cause{"basic-alphabet", likely, "The base64 after Basic is the one for URLs, or lacks its padding.", encode + " Basic takes the alphabet with + and /, and = at the end (RFC 4648 §4)."}
	}
	if c := slipInPassword("password", password); c != nil {
		return c
	}
	if strings.TrimSpace(name) != name {
		return &cause{"user-space", likely, "The user name begins or ends with a space.", "Remove it, if it got there by accident."}
	}
	return nil
}

// mistypedPassword is for a password that probably is not meant as it is written.
func (in *inquiry) mistypedPassword() *cause {
	last := strings.ToLower(in.last())
	switch {
	case in.proxyUser.given && in.resp != nil && in.resp.StatusCode == http.StatusProxyAuthRequired && (in.has("Basic") != nil || in.has("Digest") != nil):
		return slipInPassword("proxy's password", in.proxyUser.password)
	case !in.user.given || in.header.Get("Authorization") != "" || in.trials.latin1:
		return nil
	case in.isUnsendable(), in.lookedAt() && !in.sentOther() && (last == "basic" || last == "digest"):
		if c := slipInPassword("password", in.user.password); c != nil {
			return c
		}
		return slipInName(in.user.name)
	}
	return nil
}

// slipInName finds what may be wrong with a user name.
func slipInName(name string) *cause {
	switch {
	case !utf8.ValidString(name):
		return &cause{"user-encoding", likely, "The user name is not UTF-8, which servers expect (RFC 7617 §2.1).", "Give it in UTF-8. The terminal here may have another encoding."}
	case name == "":
		return &cause{"user-empty", likely, "The user name is empty.", "Give it with -u. If it comes of a variable, that is probably empty, or has another name."}
	case strings.TrimSpace(name) != name:
		return &cause{"user-space", likely, "The user name begins or ends with a space.", "Remove it, if it got there by accident. It was sent as it is."}
	case isDecomposed(name):
		return &cause{"user-decomposed", likely, "The user name has combining characters (NFD).", "Try it in NFC, with composed characters. Most keyboards write those, and RFC 8265 §3.3 has them; the two look alike, and are other bytes."}
	}
	return nil
}

// slipInPassword finds what is wrong with a password, or may be.
func slipInPassword(what, password string) *cause {
	trimmed := strings.TrimRight(password, "\r\n")
	switch {
	case strings.ContainsFunc(trimmed, unicode.IsControl):
		return &cause{"password-control", certain, "The " + what + " has a control character in it. Basic can have none (RFC 7617 §2).", "Type it anew, or read it from a file in which it stands alone."}
	case strings.HasSuffix(password, "\r"):
		return &cause{"password-return", certain, "The " + what + " ends with a carriage return. It is not meant to, and no Basic can have it (RFC 7617 §2).", "Remove it. It comes from a file with the line ends of Windows."}
	case trimmed != password:
		return &cause{"password-line-break", certain, "The " + what + " ends with a line break. It is not meant to, and no Basic can have it (RFC 7617 §2).", "Remove it where the password comes from."}
	case strings.TrimSpace(password) != password:
		return &cause{"password-space", likely, "The " + what + " begins or ends with a space.", "Remove it, if it got there by accident. It was sent as it is."}
	case isQuoted(password):
		return &cause{"password-quotes", likely, "The " + what + " is in quotes, and was sent with them.", "Remove them, if they are not part of it. What reads .env files often leaves them."}
	case isVariable(password) && password == strings.ToUpper(password):
		return &cause{"password-variable", likely, "The " + what + " looks like the name of a variable.", "Write it in double quotes, if a shell is to put in its value."}
	case !utf8.ValidString(password):
		return &cause{"password-encoding", likely, "The " + what + " is not UTF-8, which servers expect (RFC 7617 §2.1).", "Save the file in UTF-8, or type the password anew. It was sent as it is, in whatever encoding it has."}
	case isDecomposed(password):
		return &cause{"password-decomposed", likely, "The " + what + " has combining characters (NFD).", "Try it in NFC, with composed characters. Most keyboards write those, and RFC 8265 §4.2 has them; the two look alike, and are other bytes."}
	}
	return nil
}

// isDecomposed reports whether s has a letter and a combining character for which there probably is one character.
func isDecomposed(s string) bool {
	var before rune
	for _, r := range s {
		if unicode.Is(unicode.Mn, r) && unicode.In(before, unicode.Latin, unicode.Greek, unicode.Cyrillic) {
			return true
		}
		before = r
	}
	return false
}

func isWithin(s, first, last string) bool {
	return len(s) >= len(first)+len(last) && strings.HasPrefix(s, first) && strings.HasSuffix(s, last)
}

// isQuoted reports whether s is in quotes of some kind.
func isQuoted(s string) bool {
	for _, q := range []string{`""`, "''", "``", "“”", "‘’", "«»"} {
		_, size := utf8.DecodeRuneInString(q)
		if isWithin(s, q[:size], q[size:]) {
			return true
		}
	}
	return false
}

// isVariable reports whether s is how a shell writes a variable, or a command for its output.
func isVariable(s string) bool {
	name, dollar := strings.CutPrefix(s, "$")
	switch {
	case isWithin(s, "%", "%"):
		return isName(s[1 : len(s)-1])
	case isWithin(s, "${", "}") && !strings.HasPrefix(s, "${{"), isWithin(s, "$(", ")"):
		return true
	case dollar:
		return isName(strings.TrimPrefix(name, "env:"))
	}
	return false
}

func isName(s string) bool {
	return s != "" && !unicode.IsDigit(rune(s[0])) && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && (r > unicode.MaxASCII || !isWord(r))
	})
}

// isTemplate reports whether s is a placeholder of a kind of template that is in use.
func isTemplate(s string) bool {
	return isWithin(s, "{{", "}}") || isWithin(s, "${{", "}}") || isWithin(s, "#{", "}") || isWithin(s, "<%", "%>") ||
		isWithin(s, "{", "}") && isName(s[1:len(s)-1])
}

// noValues are what languages make of a value that there is not.
var noValues = map[string]bool{"undefined": true, "null": true, "None": true, "nil": true, "<nil>": true, "NULL": true, "NaN": true, "none": true,
	"false": true, "true": true, "[object Object]": true, "[object Promise]": true, "%s": true, "%!s(<nil>)": true}

func endsWithEscape(s string) bool {
	s = strings.ToLower(s)
	for _, end := range []string{`\n`, `\r`, "%0a", "%0d", "&#10;", "&#13;", `\u000a`} {
		if strings.HasSuffix(s, end) {
			return true
		}
	}
	return false
}

// isOfDocumentation reports whether s is what documentation writes in place of a token.
func isOfDocumentation(s string) bool {
	s = strings.ToLower(s)
	return strings.HasPrefix(s, "your_") || strings.HasPrefix(s, "your-") || s == "token" || s == "access_token" || len(s) > 2 && strings.Trim(s, "x") == ""
}

// isTokenAnswer reports whether s is JSON, or begins as a token endpoint's answer does (RFC 6749 §5.1).
func isTokenAnswer(s string) bool {
	return strings.HasPrefix(s, "{") && (strings.Contains(s, `access_token"`) || json.Valid([]byte(s)))
}
