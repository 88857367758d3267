package authretry

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// Events of a refresh come with the values of the context of the request that has caused it, as tracing needs them.
func TestEventsOfARefreshHaveTheRequestsValues(t *testing.T) {
	type traceKey struct{}
	var traced atomic.Int32
	base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp := &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}, Request: req}
		if strings.HasSuffix(req.Header.Get("Authorization"), " old") {
			resp.StatusCode, resp.Header = 401, http.Header{"Www-Authenticate": {`Bearer error="invalid_token"`}}
		}
		return resp, nil
	})
	transport := &Transport{
		Base:    base,
		Schemes: []Scheme{&Bearer{Source: &TokenSource{Initial: old(), Fetch: new(issuer).fetch}}},
		OnEvent: func(ctx context.Context, e Event) {
			if (e.Kind == EventRefreshing || e.Kind == EventRefreshed) && ctx.Value(traceKey{}) == "trace" {
				traced.Add(1)
			}
		},
	}
	req, err := http.NewRequestWithContext(context.WithValue(t.Context(), traceKey{}, "trace"), "GET", "https://api.example.com/", nil)
	require.NoError(t, err)
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	require.EqualValues(t, 2, traced.Load())
}
