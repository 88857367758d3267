package authtest

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// send sends one request and returns the answer, whose body is read.
func send(t testing.TB, srv *Server, method, target, body string, header http.Header) *http.Response {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, srv.URL+target, reader)
	require.NoError(t, err)
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := srv.Client().Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body = io.NopCloser(strings.NewReader(string(text)))
	return resp
}

func TestBearerRefreshes(t *testing.T) {
	bearer := &Bearer{ClientID: "an id", ClientSecret: "s&cret:%"}
	srv := NewServer(bearer)
	defer srv.Close()
	first := bearer.Login("read")
	require.Equal(t, 200, send(t, srv, "GET", "/", "", auth("Bearer "+first.AccessToken)).StatusCode)
	bearer.ExpireNow()
	resp := send(t, srv, "GET", "/", "", auth("Bearer "+first.AccessToken))
	require.Equal(t, 401, resp.StatusCode)
	require.Equal(t, `Bearer error="invalid_token", error_description="the access token expired"`,
		resp.Header.Get("WWW-Authenticate"))

	expired := *first
	expired.Expiry = expired.Expiry.AddDate(-1, 0, 0)
	second, err := bearer.Config().TokenSource(t.Context(), &expired).Token()
	require.NoError(t, err)
	require.NotEqual(t, first.RefreshToken, second.RefreshToken)
	require.Equal(t, 200, send(t, srv, "GET", "/", "", auth("Bearer "+second.AccessToken)).StatusCode)

	_, err = bearer.Config().TokenSource(t.Context(), &expired).Token()
	require.ErrorContains(t, err, "invalid_grant")
	require.Equal(t, 1, bearer.Reuses())
	require.Equal(t, 401, send(t, srv, "GET", "/", "", auth("Bearer "+second.AccessToken)).StatusCode)
}
