// Package returning keeps an http.Client from following redirects, which would take credentials along: by itself, and by a client of
// go-retryablehttp below it.
package returning

import (
	"net/http"

	"github.com/hashicorp/go-retryablehttp"
)

// Client returns a copy of a client that returns redirects.
func Client(c *http.Client) *http.Client {
	stay := *c
	stay.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if rt, ok := stay.Transport.(*retryablehttp.RoundTripper); ok { // which would follow by itself
		stay.Transport = Redirects(rt)
	}
	return &stay
}

// A RoundTripper is a retryablehttp.RoundTripper with a client of its own that returns redirects, as a RoundTripper should, where the
// original would follow them and take the credentials along.
type RoundTripper struct{ *retryablehttp.RoundTripper }

// Redirects returns such a RoundTripper.
func Redirects(rt *retryablehttp.RoundTripper) *RoundTripper {
	from := rt.Client
	if from == nil {
		from = retryablehttp.NewClient()
	}
	client := from.HTTPClient
	if client == nil {
		client = retryablehttp.NewClient().HTTPClient // as it would do itself
	}
	return &RoundTripper{&retryablehttp.RoundTripper{Client: &retryablehttp.Client{
		HTTPClient:      Client(client),
		Logger:          from.Logger,
		RetryWaitMin:    from.RetryWaitMin,
		RetryWaitMax:    from.RetryWaitMax,
		RetryMax:        from.RetryMax,
		RequestLogHook:  from.RequestLogHook,
		ResponseLogHook: from.ResponseLogHook,
		CheckRetry:      from.CheckRetry,
		Backoff:         from.Backoff,
		ErrorHandler:    from.ErrorHandler,
		PrepareRetry:    from.PrepareRetry,
	}}}
}

// CloseIdleConnections closes the idle connections of the client.
func (r *RoundTripper) CloseIdleConnections() { r.Client.HTTPClient.CloseIdleConnections() }
