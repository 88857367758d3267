// This file joins the tests of package net/http.

package http_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"sync"
	"testing"

	"github.com/authretry/authretry"
)

const (
	keyHeader = "X-Authretry-Test"
	key       = "k"
)

// wraps are the ways to wrap a RoundTripper, one of which AUTHRETRY_WRAP names.
var wraps = map[string]func(http.RoundTripper) http.RoundTripper{
	"clone":        func(rt http.RoundTripper) http.RoundTripper { return cloner{rt, false} },
	"cloneWithKey": func(rt http.RoundTripper) http.RoundTripper { return cloner{rt, true} },
	"basic": func(rt http.RoundTripper) http.RoundTripper {
		return &authretry.Transport{Base: rt, Schemes: []authretry.Scheme{&authretry.Basic{Username: "u", Password: "p"}}}
	},
	"apiKey": func(rt http.RoundTripper) http.RoundTripper {
		return &authretry.Transport{Base: rt, AllowPlaintext: true, Schemes: []authretry.Scheme{&authretry.APIKey{Header: keyHeader, Key: key}}}
	},
}

// wrapped has what each RoundTripper became when it was wrapped: a Transport is made once and shared.
var wrapped sync.Map

func init() {
	wrap := wraps[os.Getenv("AUTHRETRY_WRAP")]
	http.TestingWrap = func(rt http.RoundTripper) http.RoundTripper {
		switch rt.(type) {
		case nil, cloner, *authretry.Transport:
			return rt
		}
		if !reflect.ValueOf(rt).Comparable() { // as functions are: they can't be found again
			return wrap(rt)
		}
		if w, ok := wrapped.Load(rt); ok {
			return w.(http.RoundTripper)
		}
		w, _ := wrapped.LoadOrStore(rt, wrap(rt))
		return w.(http.RoundTripper)
	}
}

func testingWrap(rt http.RoundTripper) http.RoundTripper { return http.TestingWrap(rt) }

// A cloner does no more than it takes to change a request's header without changing the caller's.
type cloner struct {
	rt      http.RoundTripper
	withKey bool
}

func (c cloner) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil || req.Header == nil {
		return c.rt.RoundTrip(req)
	}
	clone := new(http.Request)
	*clone = *req
	clone.Header = req.Header.Clone()
	if c.withKey {
		clone.Header.Set(keyHeader, key)
	}
	resp, err := c.rt.RoundTrip(clone)
	if resp != nil && resp.Request == clone {
		resp.Request = req
	}
	return resp, err
}

func (c cloner) CloseIdleConnections() {
	if i, ok := c.rt.(interface{ CloseIdleConnections() }); ok {
		i.CloseIdleConnections()
	}
}

// TestIsWrapped fails unless requests get credentials, both those of a Client and those that go without one. So it does
// with "clone".
func TestIsWrapped(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if u, p, _ := req.BasicAuth(); u != "u" || p != "p" {
			if req.Header.Get(keyHeader) != key {
				w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
				w.WriteHeader(http.StatusUnauthorized)
			}
		}
	}))
	defer srv.Close()
	req, err := http.NewRequest("GET", srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	sends := map[string]func(*http.Request) (*http.Response, error){
		"Client":    srv.Client().Do,
		"RoundTrip": testingWrap(srv.Client().Transport).RoundTrip,
	}
	for name, send := range sends {
		t.Run(name, func(t *testing.T) {
			resp, err := send(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Fatal(resp.Status)
			}
		})
	}
}
