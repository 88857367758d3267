package dpop_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/dpop"
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
