package main

import (
	"cmp"
	"encoding/json"
	"encoding/xml"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of a message that is quoted in the first line.
const (
	leastMessage = 12
	mostMessage  = 200
)

// commonCauses are those that are only what usually is the matter.
var commonCauses = []string{"wrong-password", "wrong-token", "no-challenge", "forbidden", "forbidden-key", "wrong-key", "should-be-403", "clock-skew"}

// quoteMessage puts what the body says in one short message before what usually is the matter, if it is more than that the request
// was refused.
func (in *inquiry) quoteMessage(c *cause) {
	if !in.refused() || !slices.Contains(commonCauses, c.Name) {
		return
	}
	text := strings.Join(strings.Fields(messageIn(in.resp, in.body)), " ")
	if n := utf8.RuneCountInString(text); n < leastMessage || n > mostMessage || strings.Count(text, " ") < 2 || isCommonplace(text) {
		return
	}
	c.Text = in.clean.quote(strings.TrimRight(text, "."), mostMessage) + " is what the server says. " + c.Text
	isPermission := c.Name == "forbidden" && hasAny(strings.ToLower(text), permission...) // of which what to do speaks
	if strings.HasPrefix(c.Name, "forbidden") && !isPermission || c.Name == "wrong-token" && !hasAny(strings.ToLower(text), aboutTokens...) {
		c.Fix = "See to what it says. " + c.Fix
	}
}

// aboutTokens are words of messages to which a new token may be the answer.
var aboutTokens = []string{"token", "jwt", "credential", "expire", "key", "auth", "bearer", "session", "signature", "audience", "issuer", "log in", "login", "logged in", "sign in", "user", "account"}

// shortMessage returns what the body says to people, if that is short.
func (in *inquiry) shortMessage() string {
	text := strings.Join(strings.Fields(messageIn(in.resp, in.body)), " ")
	if utf8.RuneCountInString(text) > mostMessage {
		return ""
	}
	return straightQuotes.Replace(in.clean.text(strings.TrimRight(text, "."), mostMessage))
}

// messageIn returns what the body says in a field for people; "" if there is none.
func messageIn(resp *http.Response, body string) string {
	body = strings.TrimSpace(body)
	switch kind := resp.Header.Get("Content-Type"); {
	case strings.HasPrefix(body, "{"), strings.HasPrefix(body, "["):
		var answer any
		if json.Unmarshal([]byte(body), &answer) != nil {
			return ""
		}
		return messageInJSON(answer, 0)
	case strings.HasPrefix(body, "<?xml"), strings.HasPrefix(body, "<Error"):
		return messageInXML(body)
	case strings.HasPrefix(kind, "text/plain"):
		return body
	}
	return ""
}

// messageFields are where messages for people are, the most telling first: RFC 6749 §5.2, RFC 9457 §3.1, and what is usual.
var messageFields = []string{"error_description", "errorMessage", "errorSummary", "detail", "details", "message", "error_message", "msg", "error", "errors", "reason", "title", "description", "moreInformation"}

func messageInJSON(v any, depth int) string {
	const deepest = 3
	if depth > deepest {
		return ""
	}
	switch v := v.(type) {
	case string:
		if depth > 0 {
			return v
		}
	case []any:
		if len(v) > 0 {
			return messageInJSON(v[0], depth+1)
		}
	case map[string]any:
		first := ""
		for _, name := range messageFields {
			text := messageInJSON(v[name], depth+1)
			if strings.Count(strings.TrimSpace(text), " ") > 1 { // it is no code
				return text
			}
			first = cmp.Or(first, text)
		}
		return first
	}
	return ""
}

// messageInXML returns the text of the first element Message.
func messageInXML(body string) string {
	d := xml.NewDecoder(strings.NewReader(body))
	for {
		token, err := d.Token()
		if err != nil {
			return ""
		}
		if start, ok := token.(xml.StartElement); ok && strings.EqualFold(start.Name.Local, "message") {
			var text string
			_ = d.DecodeElement(&text, &start) // what there is of it
			return text
		}
	}
}

// commonplaces are messages that say no more than the status.
var commonplaces = []string{"unauthorized", "unauthenticated", "forbidden", "access denied", "access is denied", "not authorized", "not authenticated",
	"authentication failed", "authentication required", "authentication is required", "authorization required", "permission denied", "bad credentials",
	"invalid credentials", "wrong credentials", "invalid username or password", "invalid user name or password", "incorrect username or password", "login failed", "login required",
	"could not validate credentials", "invalid token", "invalid access token", "token invalid", "token is invalid", "missing authentication token",
	"full authentication is required to access this resource", "you are not authorized", "you are not authorized to access this resource", "request had invalid authentication credentials"}

// isCommonplace reports whether a message says no more than the status.
func isCommonplace(text string) bool {
	text = strings.Trim(strings.ToLower(text), " .!:0123456789")
	for _, c := range commonplaces {
		if text == c || strings.TrimPrefix(text, "error: ") == c || strings.TrimPrefix(text, "http ") == c {
			return true
		}
	}
	return false
}
