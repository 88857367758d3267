package authretry

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

func TestRecordComesBackWhole(t *testing.T) {
	expiry := time.Now().Add(time.Hour).Round(0)
	token := (&oauth2.Token{AccessToken: "a", TokenType: "bearer", RefreshToken: "r", Expiry: expiry}).
		WithExtra(map[string]any{"scope": "x y", "id_token": "i", "other": "not kept"})
	want := &Record{Token: token, Scopes: []string{"x", "y"}, Login: "l", Issuer: "https://issuer.test", TokenURL: "https://issuer.test/token",
		ClientID: "c", Resource: "https://api.test", KeyThumbprint: "jkt"}
	data, err := want.Encode()
	require.NoError(t, err)
	got, err := DecodeRecord(data)
	require.NoError(t, err)
	require.True(t, got.isSame(want))
	require.True(t, expiry.Equal(got.Token.Expiry))
	require.Equal(t, "x y", got.Token.Extra("scope"))
	require.Equal(t, "i", got.Token.Extra("id_token"))
	require.Nil(t, got.Token.Extra("other"))
	again, err := got.Encode()
	require.NoError(t, err)
	require.Equal(t, data, again)

	ended, err := (&Record{LoggedOut: true, Token: token}).Encode()
	require.NoError(t, err)
	require.Equal(t, `{"version":1,"logged_out":true}`, string(ended))
	got, err = DecodeRecord(ended)
	require.NoError(t, err)
	require.Equal(t, &Record{LoggedOut: true}, got)
}

func TestRecordThatIsNone(t *testing.T) {
	for _, r := range []*Record{nil, {}, {Token: &oauth2.Token{}}, {Token: &oauth2.Token{AccessToken: strings.Repeat("a", 1<<20)}}} {
		_, err := r.Encode()
		require.Error(t, err)
	}
	for _, data := range []string{"", "null", "{}", "[]", `"a"`, `{"version":1}`, `{"version":-1,"access_token":"` + secret + `"}`, `{"token":"` + secret + `"}`, `{"logged_out":true}`,
		`{"version":1,"access_token":"` + secret, `{"version":1,"access_token":7}`, `{"version":1,"access_token":"a","expiry":"` + secret + `"}`,
		`{"version":1,"access_token":"` + strings.Repeat("a", 1<<20) + `"}`, `{"version":2,"access_token":"` + secret + `"}`} {
		r, err := DecodeRecord([]byte(data))
		require.Error(t, err, "%.60s", data)
		require.Nil(t, r)
		require.NotContains(t, err.Error(), secret)
	}
	_, err := DecodeRecord([]byte(`{"version":2,"access_token":"a"}`))
	require.ErrorIs(t, err, ErrNewerRecord)
	r := Record{Token: &oauth2.Token{AccessToken: secret, RefreshToken: secret}, ClientID: "c"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		require.NotContains(t, fmt.Sprintf(verb, r)+fmt.Sprintf(verb, &r), secret)
	}
	require.Contains(t, fmt.Sprint(r), "ClientID")
}

// A program that has saved an oauth2.Token as JSON keeps its login.
func TestRecordThatPackageOAuth2HasSaved(t *testing.T) {
	want := &oauth2.Token{AccessToken: "a", TokenType: "Bearer", RefreshToken: "r", Expiry: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	data, err := json.MarshalIndent(want, "", "  ")
	require.NoError(t, err)
	r, err := DecodeRecord(data)
	require.NoError(t, err)
	require.Equal(t, &Record{Token: want, Scopes: []string{}}, r)
}

// FuzzDecodeRecord reads what somebody has put into a store.
func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"access_token":"a","expiry":"2026-01-02T03:04:05Z","scope":"x y"}`))
	f.Add([]byte(`{"version":1,"logged_out":true,"access_token":"a"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeRecord(data)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil {
			return // it was nearly too large
		}
		same, err := DecodeRecord(again)
		require.NoError(t, err)
		require.True(t, same.isSame(r))
	})
}

func TestRecordsThatAreNone(t *testing.T) {
	require.Equal(t, Record{}, RecordOf(nil))
	var none *Record
	some := &Record{Token: &oauth2.Token{AccessToken: "a"}}
	require.True(t, none.isSame(nil))
	require.False(t, none.isSame(some))
	require.False(t, some.isSame(nil))
	require.True(t, some.isSame(&Record{Token: &oauth2.Token{AccessToken: "a"}}))
}

// A token that says where it comes from is not made anew, and keeps all that the token endpoint has said of it.
func TestTokenOfARecordKeepsWhatItSays(t *testing.T) {
	r := &Record{Issuer: "https://issuer.test"}
	r.Token = (&oauth2.Token{AccessToken: "a"}).WithExtra(map[string]any{recordKey: r, "patient": "p-1"})
	require.Equal(t, "p-1", r.attached().Token.Extra("patient"))
}

// What is known of a token goes with it into the next process, and what its scopes are, also if only the token says that.
func TestRecordOfADecodedToken(t *testing.T) {
	token := (&oauth2.Token{AccessToken: "a"}).WithExtra(map[string]any{"scope": "x y"})
	data, err := (&Record{Token: token, Issuer: "https://issuer.test"}).Encode()
	require.NoError(t, err)
	r, err := DecodeRecord(data)
	require.NoError(t, err)
	require.Equal(t, []string{"x", "y"}, r.Scopes)
	require.Equal(t, "https://issuer.test", RecordOf(r.Token).Issuer)
}
