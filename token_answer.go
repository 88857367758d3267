package authretry

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// A tokenAnswer is what a token endpoint has answered (RFC 6749 §5). It is read as package oauth2 reads it, so that whoever is
// content with that is content with us, but for a JSON object, which is taken for one whatever the server calls it.
type tokenAnswer struct {
	resp    *http.Response
	body    []byte
	failure *oauth2.RetrieveError // nil: it is a success, for all that it says
	fields  answerFields
	extra   map[string]any // what it says
	form    bool           // it is not JSON
	damage  error          // of an answer that is none
}

type answerFields struct {
	AccessToken      string    `json:"access_token"`
	TokenType        string    `json:"token_type"`
	RefreshToken     string    `json:"refresh_token"`
	ExpiresIn        expiresIn `json:"expires_in"`
	ErrorCode        string    `json:"error"`
	ErrorDescription string    `json:"error_description"`
	ErrorURI         string    `json:"error_uri"`
}

// expiresIn is a lifetime in seconds. Some servers write it as a string, some with a decimal point. What cannot be read is 0, which means
// that nothing is known of it: the token is good until it is refused.
type expiresIn int64

// UnmarshalJSON implements json.Unmarshaler. An error would keep the decoder from what comes after it, such as a refresh token.
func (e *expiresIn) UnmarshalJSON(b []byte) error {
	var n json.Number
	if json.Unmarshal(b, &n) != nil {
		return nil
	}
	if f, err := n.Float64(); err == nil {
		*e = expiresIn(max(min(f, math.MaxInt32), math.MinInt32))
	}
	return nil
}

// Errors of an answer that is no token. They say nothing of what it has.
var (
	errUnreadableAnswer = errors.New("authretry: the endpoint's answer could not be read; check its URL")
	errNoAccessToken    = errors.New("authretry: the token endpoint's answer has no access_token")
)

func readTokenAnswer(resp *http.Response, body []byte) *tokenAnswer {
	a := &tokenAnswer{resp: resp, body: body}
	switch kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); {
	case bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")): // Tyk and Kanidm have sent it as text/plain
		a.readJSON(body)
	case kind == "application/x-www-form-urlencoded", kind == "text/plain":
		a.readForm(body)
	default:
		a.readJSON(body)
	}
	failed := resp.StatusCode < 200 || resp.StatusCode > 299
	if failed || a.fields.ErrorCode != "" { // which some send with 200
		a.failure = &oauth2.RetrieveError{Response: resp, Body: body, ErrorCode: a.fields.ErrorCode,
			ErrorDescription: a.fields.ErrorDescription, ErrorURI: a.fields.ErrorURI}
	}
	return a
}

func (a *tokenAnswer) readJSON(body []byte) {
	if json.Unmarshal(body, &a.fields) != nil {
		if a.damage = errUnreadableAnswer; !json.Valid(body) {
			a.fields = answerFields{}
		} // or else one member is of another type; the others count, since a refresh token may be among them, or why there is no token
		return
	}
	_ = json.Unmarshal(body, &a.extra)
}

func (a *tokenAnswer) readForm(body []byte) {
	a.form = true
	values, err := url.ParseQuery(string(body))
	if err != nil {
		a.damage = errUnreadableAnswer
		return
	}
	seconds, _ := strconv.ParseInt(values.Get("expires_in"), 10, 64)
	a.fields = answerFields{AccessToken: values.Get("access_token"), TokenType: values.Get("token_type"),
		RefreshToken: values.Get("refresh_token"), ExpiresIn: expiresIn(max(min(seconds, math.MaxInt32), math.MinInt32)),
		ErrorCode: values.Get("error"), ErrorDescription: values.Get("error_description"), ErrorURI: values.Get("error_uri")}
	a.extra = make(map[string]any, len(values))
	form := new(oauth2.Token).WithExtra(values)
	for name := range values {
		a.extra[name] = form.Extra(name) // which knows numbers
	}
}

// token returns the token, of which there is known besides what the answer says; or the error.
func (a *tokenAnswer) token(known *Record) (*oauth2.Token, error) {
	switch {
	case a.failure != nil:
		return nil, a.failure
	case a.damage != nil:
		return nil, a.damage
	case a.fields.AccessToken == "":
		return nil, errNoAccessToken
	}
	t := &oauth2.Token{AccessToken: a.fields.AccessToken, TokenType: a.fields.TokenType, RefreshToken: a.fields.RefreshToken,
		ExpiresIn: int64(a.fields.ExpiresIn)}
	if a.form { // as package oauth2 has it
		t.ExpiresIn = 0
	}
	if a.fields.ExpiresIn != 0 {
		t.Expiry = time.Now().Add(time.Duration(a.fields.ExpiresIn) * time.Second)
	}
	a.extra[recordKey] = known
	return t.WithExtra(a.extra), nil
}

// wantsNonce reports whether the server asks for a proof with the nonce that it has just given (RFC 9449 §8). If that is the one
// that the proof had, there is nothing to be done about it.
func (a *tokenAnswer) wantsNonce() bool {
	if a == nil || a.failure == nil || strings.TrimSpace(a.fields.ErrorCode) != "use_dpop_nonce" {
		return false
	}
	nonce := a.resp.Header.Get("DPoP-Nonce")
	return nonce != "" && nonce != nonceIn(a.resp.Request)
}

// nonceIn returns the nonce in the proof of a request (RFC 9449 §4.2), or "" if it has none.
func nonceIn(req *http.Request) string {
	if req == nil {
		return ""
	}
	_, rest, _ := strings.Cut(req.Header.Get("DPoP"), ".")
	payload, _, _ := strings.Cut(rest, ".")
	data, _ := base64.RawURLEncoding.DecodeString(payload)
	var claims struct {
		Nonce string `json:"nonce"`
	}
	_ = json.Unmarshal(data, &claims) // of whatever a Prover has made
	return claims.Nonce
}
