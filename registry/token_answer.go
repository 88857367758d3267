package registry

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

const (
	defaultLifetime = 60 * time.Second // of a token of which nothing is said
	maxLifetime     = 24 * time.Hour   // whatever is said
)

// An answerJSON is what a token server answers.
type answerJSON struct {
	Token       string          `json:"token"`
	AccessToken string          `json:"access_token"` // the same, by OAuth 2.0's name
	ExpiresIn   json.RawMessage `json:"expires_in"`
	IssuedAt    json.RawMessage `json:"issued_at"`
}

// Errors of an answer that is no token. They say nothing of what it has.
var (
	errNotJSON = errors.New("registry: the token server's answer is not the JSON of a token")
	errNoToken = errors.New("registry: the token server's answer has no token")
	errToken   = fmt.Errorf("registry: the token server's token has more than %d bytes, or a character that cannot be sent (RFC 6750 §2.1)", maxToken)
)

// readAnswer reads a token.
func readAnswer(resp *http.Response, body []byte) (*oauth2.Token, error) {
	var a answerJSON
	if json.Unmarshal(body, &a) != nil {
		return nil, errNotJSON
	}
	token := cmp.Or(a.AccessToken, a.Token)
	switch {
	case token == "":
		return nil, errNoToken
	case len(token) > maxToken, strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, errToken
	}
	now := time.Now()
	return &oauth2.Token{AccessToken: token, TokenType: "Bearer", Expiry: now.Add(a.lifetime(now, resp))}, nil
}

// lifetime returns for how long a token is good from now on. It counts from issued_at, by the server's clock: that of the Date
// header, or ours if there is none. An issued_at that is in the future, or leaves nothing of the token, is that of a clock that
// goes wrong, and does not count.
func (a *answerJSON) lifetime(now time.Time, resp *http.Response) time.Duration {
	lifetime := seconds(a.ExpiresIn)
	var text string
	if json.Unmarshal(a.IssuedAt, &text) != nil {
		return lifetime
	}
	issued, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return lifetime
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		now = date
	}
	if age := now.Sub(issued); age > 0 && age < lifetime {
		return lifetime - age
	}
	return lifetime
}

// seconds reads an expires_in, which some write as a string. What is not a positive number counts as if it were not there.
func seconds(text json.RawMessage) time.Duration {
	n, err := strconv.ParseFloat(strings.Trim(string(text), `"`), 64)
	if err != nil || math.IsNaN(n) || n <= 0 {
		return defaultLifetime
	}
	return time.Duration(min(n, maxLifetime.Seconds()) * float64(time.Second))
}

// failure returns the error for an answer that is none. A text of the server is not in it. If there were no credentials, none says
// why.
func failure(resp *http.Response, body []byte, none error) error {
	var said struct {
		Error string `json:"error"`
	}
	_ = json.Unmarshal(body, &said)
	status := resp.StatusCode
	switch {
	case none != nil && (status == http.StatusUnauthorized || status == http.StatusForbidden):
		return without(none)
	case status == http.StatusUnauthorized, status == http.StatusBadRequest && said.Error == "invalid_grant":
		return errCredentialsRefused(status)
	case status == http.StatusForbidden:
		return &authretry.Rejection{Reason: authretry.ReasonInsufficientScope, Err: errors.New("registry: the token server gives no token for this scope (403)")}
	case status >= 300 && status <= 399:
		return fmt.Errorf("registry: the token server answered %d, and redirects are not followed", status)
	}
	answer := &http.Response{StatusCode: status, Status: resp.Status, Header: http.Header{"Retry-After": resp.Header["Retry-After"]}}
	return &oauth2.RetrieveError{Response: answer}
}

// errCredentialsRefused is the error for credentials that a token server has refused with a status.
func errCredentialsRefused(status int) error { return &refusedCredentials{status} }

type refusedCredentials struct{ status int }

func (e *refusedCredentials) Error() string {
	return fmt.Sprintf("registry: the token server refuses the user name or the password (%d); put them right", e.status)
}

func (e *refusedCredentials) Unwrap() error { return authretry.ErrLoginRequired }
