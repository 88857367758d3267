package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/registry"
	"github.com/stretchr/testify/require"
)

// A slowTransport takes a second for each token request, so that all who want a token are there before the first has one.
type slowTransport struct {
	http.RoundTripper
	fails    atomic.Int32 // how many are not answered
	together atomic.Int32
	most     atomic.Int32
}

func (s *slowTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if n := s.together.Add(1); n > s.most.Load() {
		s.most.Store(n)
	}
	defer s.together.Add(-1)
	time.Sleep(time.Second)
	if s.fails.Add(-1) >= 0 {
		return nil, errors.New("no answer")
	}
	return s.RoundTripper.RoundTrip(req)
}

// A password that is wrong is sent once, however many repositories are asked for at once. One that is good holds up nobody but those who
// come while it is tried for the first time.
func TestWrongPasswordManyAtOnce(t *testing.T) {
	const many = 20
	for name, c := range map[string]struct {
		password string
		fails    int32 // token requests that are not answered
		asked    int   // token requests
		together int32
		took     time.Duration
	}{
		"wrong":              {password: "wrong", asked: 1, together: 1, took: time.Second},
		"good":               {password: password, asked: many, together: many - 1, took: 2 * time.Second},
		"good, after a fail": {password: password, fails: 1, asked: many - 1, together: many - 1, took: 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := authtest.NewPipeServer(&authtest.Registry{Username: user, Password: password})
				defer srv.Close()
				slow := &slowTransport{RoundTripper: srv.Client().Transport}
				slow.fails.Store(c.fails)
				transport := authretry.New(&registry.Scheme{Credentials: returning(user, c.password), HTTPClient: &http.Client{Transport: slow}})
				transport.Base = srv.Client().Transport
				begin := time.Now()
				var wg sync.WaitGroup
				for i := range many {
					wg.Go(func() {
						req, _ := http.NewRequestWithContext(context.Background(), "GET", fmt.Sprint(srv.URL, "/v2/r", i, "/manifests/latest"), nil)
						resp, err := transport.RoundTrip(req)
						if err == nil {
							resp.Body.Close()
						}
						if c.password != password && !errors.Is(err, authretry.ErrLoginRequired) {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				require.Equal(t, c.took, time.Since(begin))
				require.Len(t, srv.TokenRequests(), c.asked)
				require.Equal(t, c.together, slow.most.Load())
			})
		})
	}
}

// Nor is it sent again because others, as those of another repository, have been tried since.
func TestTwoWrongPasswords(t *testing.T) {
	var asked []string
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		asked = append(asked, password)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer tokens.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		repository, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests")
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+tokens.URL+`",scope="repository:`+repository+`:pull"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer srv.Close()
	client := &http.Client{Transport: authretry.New(&registry.Scheme{Credentials: func(_ context.Context, r authretry.CredentialsRequest) (string, string, error) {
		return user, r.Challenge.Params.Get("scope")[:len("repository:x")], nil // one for each namespace
	}})}
	for i := range 10 {
		for _, namespace := range []string{"a", "b"} {
			_, err := client.Get(fmt.Sprint(srv.URL, "/v2/", namespace, "/", i, "/manifests/latest"))
			require.ErrorIs(t, err, authretry.ErrLoginRequired)
		}
	}
	require.Equal(t, []string{"repository:a", "repository:b"}, asked)
}
