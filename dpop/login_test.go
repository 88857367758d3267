package dpop_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/dpop"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A Login that has to see first what the server asks for sees it, and where that is; and one login serves all who wait.
func TestLoginThatWaitsForAChallenge(t *testing.T) {
	guard := &authtest.DPoP{}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	key := newKey(t)
	var logins atomic.Int32
	source := &authretry.TokenSource{Login: func(_ context.Context, r authretry.TokenRequest) (*oauth2.Token, error) {
		if r.Challenge == nil {
			return nil, authretry.ErrChallengeRequired
		}
		require.Equal(t, srv.URL, "http://"+r.RemoteAddr)
		require.Equal(t, srv.URL+"/x", r.URL)
		logins.Add(1)
		return guard.Login(key.Thumbprint()), nil
	}}
	client := &http.Client{Transport: authretry.New(&dpop.Scheme{Source: source, Key: key})}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			resp, err := client.Get(srv.URL + "/x")
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode)
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, logins.Load())
}

// A key that has been lost costs one login, however many requests there are; and nobody is asked for ever.
func TestTokenOfALostKey(t *testing.T) {
	for name, isElsewhere := range map[string]bool{"lost": false, "bound elsewhere": true, "the same again": true} {
		t.Run(name, func(t *testing.T) {
			guard := &authtest.DPoP{}
			srv := authtest.NewServer(guard)
			defer srv.Close()
			lost, key := newKey(t), newKey(t)
			of := func(k *dpop.Key) *oauth2.Token {
				return authretry.WithRecord(guard.Login(k.Thumbprint()), authretry.Record{KeyThumbprint: k.Thumbprint()})
			}
			var logins atomic.Int32
			initial := of(lost)
			source := &authretry.TokenSource{
				Initial: initial,
				Fetch:   (&authretry.TokenEndpoint{URL: guard.TokenURL(), ClientID: "authtest", Proof: key}).Refresh(),
				Login: func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
					logins.Add(1)
					switch {
					case name == "the same again":
						return initial, nil
					case isElsewhere:
						return of(lost), nil
					}
					return of(key), nil
				},
			}
			client := &http.Client{Transport: authretry.New(&dpop.Scheme{Source: source, Key: key})}
			get := func() {
				resp, err := client.Get(srv.URL)
				if isElsewhere {
					rejection, ok := errors.AsType[*authretry.Rejection](err)
					assert.True(t, ok)
					assert.Equal(t, authretry.ReasonWrongKey, rejection.Reason)
					return
				}
				if assert.NoError(t, err) {
					resp.Body.Close()
					assert.Equal(t, 200, resp.StatusCode)
				}
			}
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(get)
			}
			wg.Wait()
			get()
			require.EqualValues(t, 1, logins.Load())
			require.Empty(t, srv.TokenRequests(), "the refresh token of another key is not sent")
		})
	}
}

// A login of the time when the program had no key goes on by a refresh.
func TestLoginFromBeforeThereWasAKey(t *testing.T) {
	guard := &authtest.DPoP{}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	key := newKey(t)
	before := guard.Login(key.Thumbprint()) // which the server binds at the refresh at the latest (RFC 9449 §5)
	source := &authretry.TokenSource{
		Initial: &oauth2.Token{AccessToken: before.AccessToken, TokenType: "Bearer", RefreshToken: before.RefreshToken},
		Fetch:   (&authretry.TokenEndpoint{URL: guard.TokenURL(), ClientID: "authtest", Proof: key}).Refresh(),
	}
	client := &http.Client{Transport: authretry.New(&dpop.Scheme{Source: source, Key: key})}
	for range 2 {
		resp, err := client.Get(srv.URL)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
	}
	require.Equal(t, 1, srv.Counts().TokenRequests)
}
