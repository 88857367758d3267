// Package savedtoken is how a token is written where it outlives its process: in JSON, for each of the stores alike.
package savedtoken

import (
	"encoding/json"
	"time"

	"golang.org/x/oauth2"
)

const version = 1

// A Record is what is written of a token. Of what a token response says besides, scope and id_token are kept. Records
// of equal tokens are equal.
type Record struct {
	Version      int       `json:"version"`
	AccessToken  string    `json:"access_token,omitempty"`
	TokenType    string    `json:"token_type,omitempty"`
	RefreshToken string    `json:"refresh_token,omitempty"`
	Expiry       time.Time `json:"expiry,omitzero"`
	Scope        string    `json:"scope,omitempty"`
	IDToken      string    `json:"id_token,omitempty"`
}

// Of returns the Record of a token.
func Of(t *oauth2.Token) Record {
	scope, _ := t.Extra("scope").(string)
	idToken, _ := t.Extra("id_token").(string)
	return Record{
		Version: version, AccessToken: t.AccessToken, TokenType: t.TokenType, RefreshToken: t.RefreshToken,
		Expiry: t.Expiry.Round(0).UTC(), Scope: scope, IDToken: idToken,
	}
}

// Parse returns the token of a Record in JSON, or nil if data is not one. It does not say what is wrong with data, which
// might quote a part of it. If the Record is of a later version than this package knows, newer is that version.
func Parse(data []byte) (t *oauth2.Token, newer int) {
	var r Record
	switch {
	case json.Unmarshal(data, &r) != nil || r.AccessToken == "" && r.RefreshToken == "" || r.Version < 1:
		return nil, 0
	case r.Version > version:
		return nil, r.Version
	}
	t = &oauth2.Token{AccessToken: r.AccessToken, TokenType: r.TokenType, RefreshToken: r.RefreshToken, Expiry: r.Expiry}
	extra := make(map[string]any)
	if r.Scope != "" {
		extra["scope"] = r.Scope
	}
	if r.IDToken != "" {
		extra["id_token"] = r.IDToken
	}
	if len(extra) > 0 {
		t = t.WithExtra(extra)
	}
	return t, 0
}
