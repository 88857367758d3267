package returning

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/require"
)

// A retryablehttp.RoundTripper has its defaults where its fields are nil, and is not changed.
func TestDefaults(t *testing.T) {
	made := Redirects(&retryablehttp.RoundTripper{})
	require.Equal(t, retryablehttp.NewClient().RetryMax, made.Client.RetryMax)
	require.NotNil(t, made.Client.CheckRetry)
	theirs := &retryablehttp.Client{RetryMax: 7}
	made = Redirects(&retryablehttp.RoundTripper{Client: theirs})
	require.Nil(t, theirs.HTTPClient, "which is not ours to set")
	require.Equal(t, 7, made.Client.RetryMax)
	require.NotNil(t, made.Client.HTTPClient.Transport, "that of retryablehttp")
}

// A redirect is returned by each kind of client, and by one within another; and the client of the caller follows it as before.
func TestRedirectsAreReturned(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		}
	}))
	defer srv.Close()
	retrying := func(over *http.Client) *http.Client {
		c := retryablehttp.NewClient()
		c.HTTPClient, c.Logger = over, nil
		return c.StandardClient()
	}
	for name, client := range map[string]*http.Client{
		"plain":           srv.Client(),
		"retrying":        retrying(srv.Client()),
		"retrying, twice": retrying(retrying(srv.Client())),
	} {
		for status, c := range map[int]*http.Client{http.StatusFound: Client(client), http.StatusOK: client} {
			resp, err := c.Get(srv.URL)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, status, resp.StatusCode, name)
		}
	}
}
