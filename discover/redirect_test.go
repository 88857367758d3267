package discover

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/require"

	"github.com/authretry/authretry"
)

// A client of go-retryablehttp follows redirects below the http.Client that it gives out. As Config.HTTPClient it does not: what
// another server says is not the metadata of the one that was asked, and is not asked for a registration.
func TestRedirectsAreNotFollowedByARetryingClient(t *testing.T) {
	var asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"client_id":"c"}`)
	}))
	defer other.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}))
	defer srv.Close()
	retrying := retryablehttp.NewClient()
	retrying.Logger = nil
	defer retrying.HTTPClient.CloseIdleConnections()
	c := &Config{Flow: &person{}, HTTPClient: retrying.StandardClient()}

	_, _, err := c.Discover(t.Context(), authretry.TokenRequest{URL: srv.URL + "/mcp"})
	require.ErrorIs(t, err, ErrNoMetadata)
	require.ErrorContains(t, err, "it answered 307")

	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	_, err = c.register(t.Context(), &Server{Issuer: srv.URL, RegistrationURL: srv.URL + "/register", at: place{url: u}}, "")
	require.ErrorIs(t, err, ErrRegistration)
	require.ErrorContains(t, err, "it answered 307")
	require.Zero(t, asked.Load())
}
