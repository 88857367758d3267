package authtest_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/stretchr/testify/require"
)

// What ExpireNow says of a TokenSource: after 8 tokens it fetches no other, unless MinRefreshInterval is negative.
func TestExpireNowInALoop(t *testing.T) {
	for interval, want := range map[int]int{0: 8, -1: 20} {
		t.Run(fmt.Sprint(interval), func(t *testing.T) {
			bearer := &authtest.Bearer{}
			srv := authtest.NewServer(bearer)
			defer srv.Close()
			tokens := &authretry.TokenSource{Fetch: authretry.RefreshGrant(bearer.Config()), Initial: bearer.Login()}
			if interval < 0 {
				tokens.MinRefreshInterval = -1
			}
			client := &http.Client{Transport: authretry.New(&authretry.Bearer{Source: tokens})}
			for range 20 {
				bearer.ExpireNow()
				resp, err := client.Get(srv.URL)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
			}
			require.Len(t, srv.TokenRequests(), want)
		})
	}
}
