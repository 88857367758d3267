package authretry

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A sided is a Scheme, and its Session, that notes for which side it is asked, where.
type sided struct {
	mu     sync.Mutex
	asked  map[string]bool // guarded by mu
	closed int
}

func (s *sided) note(where string, ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[fmt.Sprint(where, " ", ForProxy(ctx))] = true
}

func (s *sided) Name() string          { return "Sided" }
func (s *sided) CloseIdleConnections() { s.closed++ }
func (s *sided) Start(ctx context.Context, req *http.Request) (Session, error) {
	s.note("Start", ctx)
	return nil, nil
}
func (s *sided) Answer(ctx context.Context, _ *Challenge, refusal *http.Response) (Session, error) {
	s.note("Answer", ctx)
	s.note("refusal", refusal.Request.Context())
	return s, nil
}
func (s *sided) Authorize(req *http.Request) error {
	s.note("Authorize", req.Context())
	req.Header.Set("Authorization", "Sided x")
	return nil
}

// A Scheme is told whether it answers for a proxy, wherever it is asked, also where the two are behind each other.
func TestForProxy(t *testing.T) {
	proxy := newTestProxy(t, &testProxy{schemes: []string{"Basic"}})
	origin := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", "Sided")
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer origin.Close()
	forProxy := &sided{asked: map[string]bool{}}
	forOrigin := &sided{asked: map[string]bool{}}
	base := via(proxy, origin)
	named := &renamed{forProxy, "Basic"}
	rt := &Transport{Base: &ProxyTransport{Base: base, Schemes: []Scheme{named}, AllowPlaintext: true}, Schemes: []Scheme{forOrigin}}
	resp, err := rt.RoundTrip(httptest.NewRequest("GET", origin.URL, nil))
	require.Error(t, err, "the proxy knows better")
	require.Nil(t, resp)
	require.Equal(t, map[string]bool{"Start true": true, "Answer true": true, "refusal true": true, "Authorize true": true}, forProxy.asked)
	require.Equal(t, map[string]bool{"Start false": true}, forOrigin.asked)

	rt = &Transport{Base: origin.Client().Transport, Schemes: []Scheme{forOrigin}}
	resp, err = rt.RoundTrip(httptest.NewRequest("GET", origin.URL, nil))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, map[string]bool{"Start false": true, "Answer false": true, "refusal false": true, "Authorize false": true}, forOrigin.asked)
	require.False(t, ForProxy(t.Context()))

	rt.CloseIdleConnections()
	require.Equal(t, 1, forOrigin.closed)
	(&Transport{Schemes: []Scheme{nil}}).CloseIdleConnections() // which says with the next request what is wrong
}

// A renamed is a sided by another name.
type renamed struct {
	*sided
	name string
}

func (r *renamed) Name() string { return r.name }

// What a Session finds out of a second refusal, Explain says; and no more than that the credentials were refused of any other error.
func TestExplainSaysWhatLearnHasFound(t *testing.T) {
	for _, c := range []struct {
		err  error
		said bool
	}{{fmt.Errorf("%w: the moon is full", ErrCredentialsRefused), true}, {fmt.Errorf("the moon is full"), false}} {
		transport := &Transport{Base: &saying{right: "never", challenge: "Puppet"}, Schemes: []Scheme{&puppet{name: "Puppet",
			answer: func(context.Context, *Challenge, *http.Response) (Session, error) {
				return word{text: "Puppet x", err: c.err}, nil
			}}}}
		r := rejectionFor(t, transport, "https://api.test/")
		require.Equal(t, ReasonCredentialsRefused, r.Reason)
		require.Equal(t, 401, r.Status)
		if c.said {
			require.ErrorContains(t, r, "the moon is full")
		} else {
			require.NotContains(t, r.Error(), "moon")
		}
	}
}
