package savedtoken

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

func TestRoundTrip(t *testing.T) {
	for _, token := range []*oauth2.Token{
		{AccessToken: "a"},
		{RefreshToken: "r"},
		{AccessToken: "a", TokenType: "Bearer", RefreshToken: "r", Expiry: time.Now().Add(time.Hour)},
		(&oauth2.Token{AccessToken: "a"}).WithExtra(map[string]any{"scope": "s", "id_token": "i", "other": "left out"}),
	} {
		data, err := json.Marshal(Of(token))
		require.NoError(t, err)
		again, newer := Parse(data)
		require.Zero(t, newer)
		require.Equal(t, Of(token), Of(again))
		require.Nil(t, again.Extra("other"))
	}
}

func TestParseRefuses(t *testing.T) {
	for _, data := range []string{``, `null`, `[]`, `{"version":1}`, `{"access_token":"a"}`, `{"version":1,"access_token":["a"]}`, `{"version":1,"access_token":"a"`} {
		token, newer := Parse([]byte(data))
		require.Nil(t, token, data)
		require.Zero(t, newer, data)
	}
	token, newer := Parse([]byte(`{"version":2,"access_token":"a"}`))
	require.Nil(t, token)
	require.Equal(t, 2, newer)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"access_token":"a","token_type":"Bearer","refresh_token":"r","expiry":"2026-01-02T03:04:05Z","scope":"s","id_token":"i"}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"access_token":"a"`))
	f.Fuzz(func(t *testing.T, data []byte) {
		token, newer := Parse(data)
		if token == nil {
			return
		}
		require.Zero(t, newer)
		written, err := json.Marshal(Of(token))
		if err != nil {
			return // such as a year that JSON cannot say
		}
		again, newer := Parse(written)
		require.NotNil(t, again)
		require.Zero(t, newer)
		require.Equal(t, Of(token), Of(again))
	})
}
