package storetest

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/authretry/authretry"
	"golang.org/x/oauth2"
)

// secret is in all tokens of the check, and in nothing else.
const secret = "storetest-secret"

// secrets returns the forms in which secret may be seen, each followed by what to show in its place.
func secrets() (forms []string) {
	for _, form := range []string{
		secret, base64.StdEncoding.EncodeToString([]byte(secret))[:20], hex.EncodeToString([]byte(secret)),
		strings.ToUpper(hex.EncodeToString([]byte(secret))),
	} {
		forms = append(forms, form, "SECRET")
	}
	return forms
}

func hasSecret(text string) bool {
	forms := secrets()
	for i := 0; i < len(forms); i += 2 {
		if strings.Contains(text, forms[i]) {
			return true
		}
	}
	return false
}

// numbered returns the n-th of Records in which a torn write would show. They have several pages if the store takes that.
func (k *check) numbered(n int) *authretry.Record { return numbered(n, k.MaxSize) }

func numbered(n, maxSize int) *authretry.Record {
	unit := fmt.Sprintf("%08d", n)
	return &authretry.Record{Token: &oauth2.Token{
		AccessToken:  secret + strings.Repeat(unit, min(16<<10, maxSize/2)/len(unit)),
		RefreshToken: secret + unit,
	}}
}

// numberOf returns n of the n-th Record, 0 for none.
func numberOf(r *authretry.Record) (int, error) {
	switch {
	case r == nil:
		return 0, nil
	case r.LoggedOut:
		return 0, errors.New("a logout")
	case r.Token == nil:
		return 0, errors.New("a Record without a token")
	}
	access, ok := strings.CutPrefix(r.Token.AccessToken, secret)
	unit, ok2 := strings.CutPrefix(r.Token.RefreshToken, secret)
	if !ok || !ok2 || len(unit) != 8 || access != strings.Repeat(unit, len(access)/8) || access == "" {
		return 0, errors.New("a Record that is not whole")
	}
	n, err := strconv.Atoi(unit)
	if err != nil {
		return 0, errors.New("a Record that is not whole")
	}
	return n, nil
}

// whole returns a Record in which everything is set.
func whole() *authretry.Record {
	t := &oauth2.Token{AccessToken: secret + "-ä\"\\", RefreshToken: secret + "-r", TokenType: "DPoP", Expiry: time.Now().Add(time.Hour)}
	return &authretry.Record{
		Token:  t.WithExtra(map[string]any{"scope": "s t", "id_token": secret + "-i"}),
		Scopes: []string{"s", "t"}, Issuer: "https://login.example", TokenURL: "https://login.example/token", ClientID: "c",
		Resource: "https://api.example", KeyThumbprint: "k",
	}
}

// largest returns a Record of which Encode makes size bytes.
func largest(size int) *authretry.Record {
	r := &authretry.Record{Token: &oauth2.Token{AccessToken: secret, RefreshToken: secret}}
	data, err := r.Encode()
	if err == nil && len(data) < size {
		r.Token.AccessToken += strings.Repeat("x", size-len(data))
	}
	return r
}

// differences says in which respect two Records differ. Neither is nil.
func differences(want, got *authretry.Record) (fields []string) {
	for _, f := range []struct {
		name string
		same bool
	}{
		{"LoggedOut", want.LoggedOut == got.LoggedOut},
		{"Token", (want.Token == nil) == (got.Token == nil)},
		{"Scopes", scopesOf(want) == scopesOf(got)},
		{"Issuer", want.Issuer == got.Issuer},
		{"TokenURL", want.TokenURL == got.TokenURL},
		{"ClientID", want.ClientID == got.ClientID},
		{"Resource", want.Resource == got.Resource},
		{"KeyThumbprint", want.KeyThumbprint == got.KeyThumbprint},
	} {
		if !f.same {
			fields = append(fields, f.name)
		}
	}
	if want.Token == nil || got.Token == nil {
		return fields
	}
	for _, f := range []struct {
		name string
		same bool
	}{
		{"Token.AccessToken", want.Token.AccessToken == got.Token.AccessToken},
		{"Token.RefreshToken", want.Token.RefreshToken == got.Token.RefreshToken},
		{"Token.TokenType", want.Token.TokenType == got.Token.TokenType},
		{"Token.Expiry", want.Token.Expiry.Equal(got.Token.Expiry)},
		{"id_token", want.Token.Extra("id_token") == got.Token.Extra("id_token")},
	} {
		if !f.same {
			fields = append(fields, f.name)
		}
	}
	return fields
}

// scopesOf returns what a Record says that its token is good for.
func scopesOf(r *authretry.Record) string {
	if r.Scopes == nil && r.Token != nil {
		scope, _ := r.Token.Extra("scope").(string)
		return scope
	}
	return strings.Join(r.Scopes, " ")
}
