package authretry

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// Errors of net/http quote what a server has sent where it cannot be read, and a server may send back what it got: an
// Authorization too. Other Bases may say in theirs whatever they like, and at any length.
const (
	maxErrorText = 4 << 10 // bytes of another's error that are passed on
	secretPart   = 12      // so many bytes of a secret in a row are not passed on, nor is a shorter secret as a whole
	leastSecret  = 4       // a secret of fewer bytes is in every other text, and not looked for
	notShown     = "(not shown: it may have credentials in it)"
)

// A secretsFunc returns the secrets that may be in an error's text. It is called only if there is an error.
type secretsFunc func() []string

// withoutSecrets returns err, or an error in its place if the text of err could give away a secret, or is too long. That one
// is errors.Is of whatever err is, and errors.As of what has no secret in its text.
func withoutSecrets(err error, secrets secretsFunc) error {
	list := secrets()
	if len(list) == 0 {
		return err
	}
	clean := func(text string) string { return withoutSecretsIn(text, list) }
	text := err.Error()
	if cleaned := clean(text); cleaned != text {
		return &cleanedError{cleaned, func() (func(string) string, error) { return clean, err }}
	}
	return err
}

func withoutSecretsIn(text string, secrets []string) string {
	if text = withoutQuotes(text); showsAny(text, secrets) {
		return "authretry: the error has credentials in its text, and is " + notShown[1:len(notShown)-1]
	}
	return text
}

// withoutQuotes returns the text of an error without what net/http quotes in it of a server's answer.
func withoutQuotes(text string) string {
	for _, mark := range []string{"transport connection broken: ", "malformed "} {
		if at := strings.Index(text, mark); at >= 0 {
			open, end := strings.IndexByte(text[at:], '"'), strings.LastIndexByte(text, '"')
			if open >= 0 && end-(at+open) > secretPart { // in less there is no room for a good part of a secret
				text = text[:at+open] + notShown + text[max(end+1, at+open+1):]
			}
		}
	}
	if len(text) > maxErrorText {
		text = text[:maxErrorText] + "..."
	}
	return text
}

// showsAny reports whether a text has one of the secrets in it, or a good part of it.
func showsAny(text string, secrets []string) bool {
	parts := make(map[string]struct{}, len(text))
	for i := range max(0, len(text)-secretPart+1) {
		parts[text[i:i+secretPart]] = struct{}{}
	}
	for _, s := range secrets {
		if len(s) < secretPart {
			if contains(text, s) {
				return true
			}
			continue
		}
		for i := range len(s) - secretPart + 1 {
			if _, ok := parts[s[i:i+secretPart]]; ok {
				return true
			}
		}
	}
	return false
}

// repeats reports whether a text of a server's, of some 100 bytes, shows what was sent to it and is secret.
func (x *exchange) repeats(text string) bool { return text != "" && showsAny(text, x.secrets()) }

// secrets returns what is secret of all that was sent.
func (x *exchange) secrets() (list []string) {
	for _, sent := range []*http.Request{x.req, &x.copied, x.aside.value().last} {
		if sent != nil {
			list = append(list, secretsOf(sent, x.req)...)
		}
	}
	return list
}

// withoutRepeated removes from what a server asks for what it repeats of the credentials that it was sent. A short name is left, as
// whoever missed it would know that it is a password.
func (x *exchange) withoutRepeated(challenges []Challenge) []Challenge {
	if len(challenges) == 0 {
		return challenges
	}
	parts := make(map[string]struct{}) // of the secrets, rather than of a text that may be long
	var short []string
	for _, s := range x.secrets() {
		if len(s) < secretPart {
			short = append(short, s)
			continue
		}
		for i := range len(s) - secretPart + 1 {
			parts[s[i:i+secretPart]] = struct{}{}
		}
	}
	repeats := func(text string) bool {
		if len(parts) > 0 {
			for i := range max(0, len(text)-secretPart+1) {
				if _, ok := parts[text[i:i+secretPart]]; ok {
					return true
				}
			}
		}
		return slices.ContainsFunc(short, func(s string) bool { return contains(text, s) })
	}
	challenges = slices.DeleteFunc(challenges, func(c Challenge) bool { return len(c.Scheme) >= secretPart && repeats(c.Scheme) })
	for i := range challenges {
		c := &challenges[i]
		if repeats(c.Token68) {
			c.Token68 = ""
		}
		c.Params = slices.DeleteFunc(c.Params, func(p Param) bool { return len(p.Name) >= secretPart && repeats(p.Name) || repeats(p.Value) })
	}
	return challenges
}

// withoutRepeatedIn returns why a Scheme has no answer to a refusal, or an error in its place if that quotes what the server repeats of
// the credentials that it was sent.
func (x *exchange) withoutRepeatedIn(err error, refusal *http.Response) error {
	if u, ok := err.(*unanswered); ok {
		for _, said := range []*error{&u.refused, &u.unsupported} {
			if *said != nil {
				*said = x.withoutRepeatedIn(*said, refusal)
			}
		}
		return u
	}
	if !x.repeats(err.Error()) {
		return err
	}
	asked := readChallenges(refusal.Header[x.challenge])
	if cleaned := x.withoutRepeated(readChallenges(refusal.Header[x.challenge])); reflect.DeepEqual(asked, cleaned) {
		return err // in which a short password is a word like others
	}
	return withoutSecrets(err, x.secrets)
}

// secretsOf returns what is secret of a request that was sent: its credentials, whoever has set them, and what else is not
// in the caller's request. What Digest sends proves a secret without showing it.
func secretsOf(sent, callers *http.Request) (list []string) {
	for name, values := range sent.Header {
		switch canonical := http.CanonicalHeaderKey(name); {
		case canonical == "Expect":
		case canonical == "Cookie":
			for _, line := range values {
				list = append(list, cookiesIn(line)...)
			}
		case canonical == "Authorization", canonical == "Proxy-Authorization", !slices.Equal(values, callers.Header[name]):
			for _, v := range values {
				list = append(list, secretsIn(v)...)
			}
		}
	}
	if sent.URL != nil && sent.URL.User != nil {
		if password, _ := sent.URL.User.Password(); isKey(sent.URL.User.Username(), password) {
			list = append(list, sent.URL.User.Username(), sent.URL.User.String())
		} else if password != "" {
			list = append(list, password, url.UserPassword("", password).String()[1:]) // and as a text of the URL has it
		}
	}
	return list
}

// isKey reports whether a user name without a password may be a key, which many APIs take in its place. A short one is a name.
func isKey(user, password string) bool { return password == "" && len(user) >= secretPart }

// cookiesIn returns what is secret of a line of Cookie: the values. One that is so short that it may be in any text counts only with its name.
func cookiesIn(line string) (list []string) {
	for text := range strings.SplitSeq(line, ";") {
		text = strings.TrimSpace(text)
		if _, value, _ := strings.Cut(text, "="); len(value) >= 2*leastSecret {
			text = value
		}
		list = append(list, text)
	}
	return list
}

// secretsIn returns what is secret of the value of a header.
func secretsIn(value string) []string {
	word, rest, ok := strings.Cut(value, " ")
	switch {
	case !ok:
		return []string{value}
	case equalFoldASCII(word, "Digest"):
		return nil
	case equalFoldASCII(word, "Basic"):
		decoded, _ := base64.StdEncoding.DecodeString(rest)
		if user, password, ok := strings.Cut(string(decoded), ":"); ok && isKey(user, password) {
			return []string{rest, user}
		} else if ok {
			return []string{rest, password}
		}
	}
	return []string{rest}
}

// forEvent returns the error of a send as events show it: without what a server has sent, and without the query of the
// caller's URL, which may be confidential.
func forEvent(err error, u *url.URL) error {
	if u != nil && u.RawQuery != "" && strings.Contains(err.Error(), u.RawQuery) {
		for cause := errors.Unwrap(err); cause != nil; cause = errors.Unwrap(cause) {
			err = cause
		}
		if strings.Contains(err.Error(), u.RawQuery) {
			return errHasQuery
		}
	}
	return withoutSecrets(err, unknownSecrets)
}

var errHasQuery = errors.New("authretry: the request could not be sent; why is not shown, because it has the query in it")

// unknownSecrets is for where it is not known what was sent.
func unknownSecrets() []string { return []string{""} }

// A cleanedError stands for an error whose text could give away a secret.
type cleanedError struct {
	text  string
	cause func() (clean func(text string) string, err error) // in a func, into which nobody looks
}

func (e *cleanedError) Error() string { return e.text }

// Is reports whether the error that this one stands for is the target.
func (e *cleanedError) Is(target error) bool {
	_, err := e.cause()
	return errors.Is(err, target)
}

// As finds what the error that this one stands for has of the target's type, unless that shows a secret.
func (e *cleanedError) As(target any) bool {
	clean, err := e.cause()
	if !errors.As(err, target) {
		return false
	}
	found := reflect.ValueOf(target).Elem()
	if said, ok := found.Interface().(error); ok && clean(said.Error()) != said.Error() {
		found.SetZero()
		return false
	}
	return true
}

// Timeout reports whether some time had run out, as for [net.Error].
func (e *cleanedError) Timeout() bool {
	_, err := e.cause()
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// Format keeps the cause out of everything that package fmt prints.
func (e *cleanedError) Format(f fmt.State, verb rune) {
	if verb == 'q' {
		fmt.Fprintf(f, "%q", e.text)
		return
	}
	io.WriteString(f, e.text)
}
