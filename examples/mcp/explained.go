package main

import (
	"errors"
	"net/http"

	"github.com/authretry/authretry"
)

// explained makes an error of a refusal, one that says what to do. Of a response, the SDK would show the status alone.
// It is the example "Library" of authretry.Explain.
type explained struct{ http.RoundTripper }

func (e explained) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := e.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if why := authretry.Explain(resp); why != nil {
		return nil, errors.Join(why, resp.Body.Close())
	}
	return resp, nil
}
