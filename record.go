package authretry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// A Record is what a [TokenStore] keeps: a login, with what must be known of it to go on with it in another process. It
// must not be modified once it has been handed on.
type Record struct {
	// Token is the token. Of what the token endpoint said besides, scope and id_token are kept. It is nil if LoggedOut.
	Token *oauth2.Token

	// Scopes are what Token is good for, as far as that is known. If they are nil, what the token endpoint said of it counts.
	Scopes []string

	// LoggedOut says that the login was ended by [TokenSource.Logout]. Nobody goes on with a token from memory then, nor with
	// Initial, until there is a new login.
	LoggedOut bool

	// Login names the login that Token comes of, or that was ended: it is chosen at random when that is new (by Set and Login of a
	// [TokenSource]), and kept by each refresh. It is no secret. A TokenSource goes by it where it has to tell what has become of its
	// own login from another one. "" means that it is not known.
	Login string

	// Where the token comes from, and what it is for, as far as that is known: the issuer (RFC 8414), the URL of the token
	// endpoint, the client, the resource (RFC 8707), and the JWK thumbprint of the key that it is bound to (RFC 9449 §6).
	Issuer, TokenURL, ClientID, Resource, KeyThumbprint string

	// Extra is what else a Fetch or Login wants to know of the login in a later process, by names of its own, as package discover
	// does. It may have secrets. In all it has 64 KiB at most. See [WithRecord].
	Extra map[string]string
}

// maxRecord is how many bytes a Record in JSON may have.
const maxRecord = 1 << 20

// maxExtra is how many bytes Record.Extra may have.
const maxExtra = 64 << 10

const recordVersion = 1

// savedRecord is a Record in JSON.
type savedRecord struct {
	Version       int        `json:"version"`
	AccessToken   string     `json:"access_token,omitempty"`
	TokenType     string     `json:"token_type,omitempty"`
	RefreshToken  string     `json:"refresh_token,omitempty"`
	Expiry        *time.Time `json:"expiry,omitempty"`
	Scope         string     `json:"scope,omitempty"`
	IDToken       string     `json:"id_token,omitempty"`
	LoggedOut     bool       `json:"logged_out,omitempty"`
	Login         string     `json:"login,omitempty"`
	Issuer        string     `json:"issuer,omitempty"`
	TokenURL      string     `json:"token_endpoint,omitempty"`
	ClientID      string     `json:"client_id,omitempty"`
	Resource      string     `json:"resource,omitempty"`
	KeyThumbprint string     `json:"jkt,omitempty"`

	Extra map[string]string `json:"extra,omitempty"`
}

// ErrNewerRecord means that a login was saved by a newer version of this package, which keeps more of it. A [TokenStore] must not
// take it for damage.
var ErrNewerRecord = errors.New("authretry: the login was saved by a newer version of this program")

// Errors of [DecodeRecord] and [Record.Encode]. They do not say what is wrong with the data, which might quote a part of it.
var (
	errNotARecord    = errors.New("authretry: it is not a saved login")
	errEmptyRecord   = errors.New("authretry: there is no token to save")
	errRecordTooLong = errors.New("authretry: the login is too large to be saved")
)

// Encode returns r in JSON, in one line. Equal Records give equal bytes. An Expiry after the year 9999 is left out, since JSON has no
// form for it. It fails if r has neither a token nor LoggedOut, or if the result were larger than 1 MiB.
func (r *Record) Encode() ([]byte, error) {
	s := savedRecord{Version: recordVersion}
	switch {
	case r == nil:
		return nil, errEmptyRecord
	case r.LoggedOut:
		s.LoggedOut, s.Login = true, r.Login
	case r.Token == nil || r.Token.AccessToken == "" && r.Token.RefreshToken == "":
		return nil, errEmptyRecord
	default:
		s.AccessToken, s.TokenType, s.RefreshToken = r.Token.AccessToken, r.Token.TokenType, r.Token.RefreshToken
		if !r.Token.Expiry.IsZero() {
			if expiry := r.Token.Expiry.Round(0).UTC(); expiry.Year() <= 9999 {
				s.Expiry = &expiry
			}
		}
		s.IDToken, _ = r.Token.Extra("id_token").(string)
		if s.Scope = strings.Join(r.Scopes, " "); r.Scopes == nil {
			s.Scope, _ = r.Token.Extra("scope").(string)
		}
		s.Login = r.Login
		s.Issuer, s.TokenURL, s.ClientID, s.Resource, s.KeyThumbprint = r.Issuer, r.TokenURL, r.ClientID, r.Resource, r.KeyThumbprint
		s.Extra = r.Extra
	}
	data, err := json.Marshal(s)
	switch {
	case err != nil:
		return nil, errors.New("authretry: the login cannot be written as JSON")
	case len(data) > maxRecord, sizeOf(s.Extra) > maxExtra:
		return nil, errRecordTooLong
	}
	return data, nil
}

// DecodeRecord reads what Encode has written; and the JSON of an oauth2.Token, as programs have saved it that did without this package.
// Its errors have nothing of data in them; one of them is [ErrNewerRecord].
func DecodeRecord(data []byte) (*Record, error) {
	if len(data) > maxRecord {
		return nil, errNotARecord
	}
	var s savedRecord
	if json.Unmarshal(data, &s) != nil || s.Version < 0 || s.Version == 0 && !isTokenJSON(data) {
		return nil, errNotARecord
	}
	if s.Version > recordVersion {
		return nil, ErrNewerRecord
	}
	if s.LoggedOut {
		return &Record{LoggedOut: true, Login: s.Login}, nil
	}
	if s.AccessToken == "" && s.RefreshToken == "" {
		return nil, errNotARecord
	}
	t := &oauth2.Token{AccessToken: s.AccessToken, TokenType: s.TokenType, RefreshToken: s.RefreshToken}
	if s.Expiry != nil {
		t.Expiry = *s.Expiry
	}
	extra := make(map[string]any)
	if s.Scope != "" {
		extra["scope"] = s.Scope
	}
	if s.IDToken != "" {
		extra["id_token"] = s.IDToken
	}
	r := &Record{Token: t, Scopes: strings.Fields(s.Scope), Login: s.Login, Issuer: s.Issuer, TokenURL: s.TokenURL, ClientID: s.ClientID,
		Resource: s.Resource, KeyThumbprint: s.KeyThumbprint, Extra: s.Extra}
	if r.isOfSomewhere() {
		extra[recordKey] = r
	}
	if len(extra) > 0 {
		r.Token = t.WithExtra(extra)
	}
	return r, nil
}

// isTokenJSON reports whether data is the JSON of an oauth2.Token, and nothing else.
func isTokenJSON(data []byte) bool {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(new(oauth2.Token)) == nil
}

// recordKey is under which name a token has, among what the token endpoint said of it, a *Record that says where it comes from.
// A server cannot put one there.
const recordKey = "authretry.Record"

// RecordOf returns what is known of a token that a [TokenEndpoint], a [TokenSource] or [DecodeRecord] has returned. Of any other
// it is what the token says itself.
func RecordOf(t *oauth2.Token) Record {
	if t == nil {
		return Record{}
	}
	var r Record
	if known, ok := t.Extra(recordKey).(*Record); ok {
		r = *known
	}
	r.Token, r.Scopes, r.Login = t, grantedScopes(t), ""
	return r
}

// WithRecord returns t with what r says of where it comes from and what it is for: Issuer, TokenURL, ClientID, Resource,
// KeyThumbprint and Extra, in place of what was known of that. A [Bearer] sends the token to the origin of Resource only, a
// [TokenSource] saves all of it, and [RecordOf] returns it. It is for a Fetch or Login that gets tokens in its own way.
func WithRecord(t *oauth2.Token, r Record) *oauth2.Token {
	if t == nil {
		return nil
	}
	r.Token, r.Scopes, r.Login, r.LoggedOut = nil, nil, "", false
	return withRecord(t, &r)
}

// withRecord returns t with what r says of it, in place of what was known.
func withRecord(t *oauth2.Token, r *Record) *oauth2.Token {
	extra := map[string]any{recordKey: r}
	for _, name := range []string{"scope", "id_token"} {
		if text, ok := t.Extra(name).(string); ok {
			extra[name] = text
		}
	}
	return t.WithExtra(extra)
}

func sizeOf(extra map[string]string) (n int) {
	for name, value := range extra {
		n += len(name) + len(value)
	}
	return n
}

// scopes returns what the Token is good for, sorted.
func (r *Record) scopes() []string {
	if r.Scopes == nil && r.Token != nil {
		return grantedScopes(r.Token)
	}
	return union(nil, r.Scopes)
}

// login returns the name of the login, "" if there is none.
func (r *Record) login() string {
	if r == nil {
		return ""
	}
	return r.Login
}

// isOfSomewhere reports whether r says where its token comes from, or what it is for.
func (r *Record) isOfSomewhere() bool {
	return r.Issuer != "" || r.TokenURL != "" || r.ClientID != "" || r.Resource != "" || r.KeyThumbprint != "" || len(r.Extra) > 0
}

// attached returns r with a Token that knows what r says of it, for Records that were not read by DecodeRecord.
func (r *Record) attached() *Record {
	if r == nil || r.Token == nil || !r.isOfSomewhere() {
		return r
	}
	if _, knows := r.Token.Extra(recordKey).(*Record); knows {
		return r
	}
	c := *r
	c.Token = withRecord(r.Token, r)
	return &c
}

// isSame reports whether two Records say the same. Either may be nil.
func (r *Record) isSame(other *Record) bool {
	if r == nil || other == nil {
		return r == other
	}
	a, errA := r.Encode()
	b, errB := other.Encode()
	return errA == nil && errB == nil && slices.Equal(a, b)
}

// Format keeps tokens out of everything that package fmt prints.
func (r Record) Format(f fmt.State, verb rune) { formatShown(f, "authretry.Record", r.shown()...) }

// MarshalJSON keeps tokens out of JSON. To save a Record, use Encode.
func (r Record) MarshalJSON() ([]byte, error) { return marshalShown(r.shown()...) }

func (r Record) shown() []shownField {
	return []shownField{shown("LoggedOut", r.LoggedOut), shown("Issuer", r.Issuer), shown("ClientID", r.ClientID), shown("Resource", r.Resource)}
}
