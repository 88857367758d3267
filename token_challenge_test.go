package authretry

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/authretry/authretry/authtest"
)

// waitsForChallenge is a Fetch or Login that cannot do without a challenge.
func waitsForChallenge(got func(TokenRequest) (*oauth2.Token, error)) FetchFunc {
	return func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
		if r.Challenge == nil {
			return nil, ErrChallengeRequired
		}
		return got(r)
	}
}

func TestFirstRequestGoesWithoutATokenIfTheChallengeIsNeeded(t *testing.T) {
	bearer := &authtest.Bearer{}
	srv := authtest.NewServer(bearer)
	defer srv.Close()
	for name, asLogin := range map[string]bool{"Fetch": false, "Login": true} {
		t.Run(name, func(t *testing.T) {
			srv.Reset()
			var calls atomic.Int32
			var asked TokenRequest
			f := waitsForChallenge(func(r TokenRequest) (*oauth2.Token, error) {
				calls.Add(1)
				asked = r
				return bearer.Login(), nil
			})
			source := &TokenSource{Fetch: f}
			if asLogin {
				source = &TokenSource{Login: f}
			}
			transport := New(&Bearer{Source: source})
			transport.Base = srv.Client().Transport
			client := &http.Client{Transport: transport}
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					resp, err := client.Get(srv.URL + "/a/b?secret=1#x")
					require.NoError(t, err)
					resp.Body.Close()
					require.Equal(t, 200, resp.StatusCode)
				})
			}
			wg.Wait()
			require.EqualValues(t, 1, calls.Load())
			require.Equal(t, srv.URL+"/a/b", asked.URL)
			require.Equal(t, asLogin, asked.RemoteAddr != "", "it is asked for where a person logs in")
			if asLogin {
				require.Equal(t, srv.URL, "http://"+asked.RemoteAddr)
			}
			require.Equal(t, "Bearer", asked.Challenge.Scheme)
		})
	}
}

// After a logout there is a Session for the origin, and nothing to send.
func TestChallengeIsAskedForAgainAfterALogout(t *testing.T) {
	bearer := &authtest.Bearer{}
	srv := authtest.NewServer(bearer)
	defer srv.Close()
	var logins atomic.Int32
	source := &TokenSource{
		Fetch: waitsForChallenge(func(TokenRequest) (*oauth2.Token, error) { return nil, ErrLoginRequired }),
		Login: waitsForChallenge(func(TokenRequest) (*oauth2.Token, error) { logins.Add(1); return bearer.Login(), nil }),
	}
	transport := New(&Bearer{Source: source})
	transport.Base = srv.Client().Transport
	client := &http.Client{Transport: transport}
	for n := range 3 {
		for range 2 {
			resp, err := client.Post(srv.URL, "text/plain", http.NoBody)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode)
		}
		require.EqualValues(t, n+1, logins.Load())
		require.NoError(t, source.Logout(t.Context()))
	}
	require.Equal(t, authtest.Counts{Requests: 9, Accepted: 6, Challenged: 3}, srv.Counts())
}

func TestWithoutAServerThatAsksTheErrorSaysSo(t *testing.T) {
	calls := 0
	source := &TokenSource{Fetch: waitsForChallenge(func(TokenRequest) (*oauth2.Token, error) { calls++; return &oauth2.Token{AccessToken: "a"}, nil })}
	for range 3 {
		_, err := source.Token()
		require.ErrorIs(t, err, ErrChallengeRequired)
		require.NotErrorIs(t, err, ErrLoginRequired)
	}
	tok, err := source.Obtain(t.Context(), TokenRequest{Challenge: &Challenge{Scheme: "Bearer"}, URL: "https://api.example.com/"})
	require.NoError(t, err, "what went before is not remembered as a failure")
	require.Equal(t, "a", tok.AccessToken)
	require.Equal(t, 1, calls)
}

// A caller who has a challenge does not fail with one who has none.
func TestWhoHasAChallengeDoesNotFailWithOthers(t *testing.T) {
	begun, end := make(chan bool), make(chan bool)
	source := &TokenSource{Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
		if r.Challenge == nil {
			begun <- true
			<-end
			return nil, ErrChallengeRequired
		}
		return &oauth2.Token{AccessToken: "a"}, nil
	}}
	first := make(chan error)
	go func() { _, err := source.Token(); first <- err }()
	<-begun
	second := make(chan error)
	go func() {
		_, err := source.Obtain(t.Context(), TokenRequest{Challenge: &Challenge{Scheme: "Bearer"}})
		second <- err
	}()
	time.Sleep(10 * time.Millisecond) // most likely it has joined by then; if not, the test is easier to pass
	close(end)
	require.ErrorIs(t, <-first, ErrChallengeRequired)
	require.NoError(t, <-second)
}

// A Store keeps what a Fetch wants to know of a login later.
func TestWithRecord(t *testing.T) {
	tok := WithRecord((&oauth2.Token{AccessToken: "a", RefreshToken: "r"}).WithExtra(map[string]any{"scope": "x y", "id_token": "i", "other": "o"}),
		Record{Issuer: "https://issuer", Resource: "https://api", Extra: map[string]string{"k": "v"}, LoggedOut: true, Login: "other"})
	r := RecordOf(tok)
	require.Equal(t, []string{"x", "y"}, r.Scopes)
	require.False(t, r.LoggedOut)
	data, err := r.Encode()
	require.NoError(t, err)
	again, err := DecodeRecord(data)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"k": "v"}, RecordOf(again.Token).Extra)
	require.Equal(t, "https://issuer", RecordOf(again.Token).Issuer)
	require.Equal(t, "i", again.Token.Extra("id_token"))
	require.Nil(t, WithRecord(nil, Record{}))

	_, err = (&Record{Token: tok, Extra: map[string]string{"k": string(make([]byte, 64<<10))}}).Encode()
	require.ErrorIs(t, err, errRecordTooLong)
}

// A Fetch that sends a refresh token again asks the Store before.
func TestConfirm(t *testing.T) {
	require.NoError(t, Confirm(t.Context()), "there is no Store")
	lost := errors.New("the lock is lost")
	n := 0
	ctx := context.WithValue(t.Context(), confirmKey{}, func(context.Context) error { n++; return lost })
	require.ErrorIs(t, Confirm(ctx), lost)
	require.Equal(t, 1, n)
}
