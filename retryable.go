package authretry

import (
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/hashicorp/go-retryablehttp"
)

// NewRetryableClient returns a go-retryablehttp client whose requests go through t: each of its attempts gets a
// fresh nonce count or the token of that moment, and may be retried once by t for authentication.
//
// It differs from retryablehttp.NewClient where that would surprise: nothing is logged; when attempts run out, the
// last response is returned rather than an error in its place; errors about credentials are not retried unless they may
// pass, as when a token endpoint cannot be reached; and a request that may not be repeated, such as a POST or PATCH, is
// not retried after a 5xx response or a broken connection, unless it has an Idempotency-Key header (or X-Idempotency-Key). The
// client's HTTPClient uses t.Jar. All its fields may be changed before use. Package retryablehttp reads the whole of a body
// that can be read once into memory, to send it again, whatever ReplayLimit says.
//
// A client of your own that is to behave in the same way takes over HTTPClient and CheckRetry of the one that is returned.
func NewRetryableClient(t *Transport) *retryablehttp.Client {
	client := retryablehttp.NewClient()
	client.HTTPClient = &http.Client{Transport: unrepeatable{t}}
	if t != nil {
		client.HTTPClient.Jar = t.Jar
	}
	client.Logger = nil
	client.CheckRetry = checkRetry
	client.ErrorHandler = retryablehttp.PassthroughErrorHandler
	return client
}

// unrepeatable is a Transport that marks the errors of requests that must not be repeated, since CheckRetry does not
// see the request of an error.
type unrepeatable struct{ *Transport }

func (u unrepeatable) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := u.Transport.RoundTrip(req)
	if err != nil && !isRepeatable(req) && !isUnsent(err) {
		err = &unrepeatableError{err}
	}
	return resp, err
}

type unrepeatableError struct{ error }

func (e *unrepeatableError) Unwrap() error { return e.error }

// checkRetry is the CheckRetry of NewRetryableClient.
func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	var unrepeatable *unrepeatableError
	var rejection *Rejection
	switch {
	case errors.As(err, &rejection):
		return ctx.Err() == nil && rejection.mayPass(), ctx.Err()
	case errors.As(err, &unrepeatable):
		return false, ctx.Err()
	case resp != nil && resp.StatusCode >= 500 && !isRepeatable(resp.Request):
		return false, ctx.Err()
	}
	return retryablehttp.DefaultRetryPolicy(ctx, resp, err)
}

// isRepeatable reports whether the request, and each whose redirect led to it, is idempotent (RFC 9110 §9.2.2) or says
// by its Idempotency-Key that the server will recognise it.
func isRepeatable(req *http.Request) bool {
	for range maxHops {
		if req == nil {
			return false
		}
		switch req.Method {
		case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		default:
			if req.Header.Get("Idempotency-Key") == "" && req.Header.Get("X-Idempotency-Key") == "" {
				return false
			}
		}
		if req.Response == nil {
			return true
		}
		req = req.Response.Request
	}
	return false
}

// isUnsent reports whether the request did not get as far as a connection.
func isUnsent(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}
