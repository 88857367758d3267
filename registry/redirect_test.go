package registry_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/registry"
	"github.com/hashicorp/go-retryablehttp"
	"github.com/stretchr/testify/require"
)

// A client of go-retryablehttp follows redirects below the http.Client that it gives out. As Scheme.HTTPClient it does not: a password
// and an identity token stay with the token server that was asked.
func TestRedirectOfATokenServerByARetryingClient(t *testing.T) {
	var mu sync.Mutex
	var stolen []string
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		stolen = append(stolen, r.Header.Get("Authorization")+string(body))
	}))
	defer thief.Close()
	redirecting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, thief.URL+"/token", http.StatusTemporaryRedirect)
	}))
	defer redirecting.Close()
	srv := httptest.NewServer(&naming{realm: redirecting.URL})
	defer srv.Close()
	for name, scheme := range map[string]*registry.Scheme{
		"password":         {Credentials: always(t)},
		"password by POST": {Credentials: always(t), PostPassword: true},
		"identity token":   {Credentials: returning("<token>", "identity-secret")},
	} {
		t.Run(name, func(t *testing.T) {
			retrying := retryablehttp.NewClient()
			retrying.Logger = nil
			defer retrying.HTTPClient.CloseIdleConnections()
			scheme.HTTPClient = retrying.StandardClient()
			_, err := (&http.Client{Transport: authretry.New(scheme)}).Get(srv.URL + "/v2/a/manifests/latest")
			require.ErrorContains(t, err, "answered 307, and redirects are not followed")
			mu.Lock()
			defer mu.Unlock()
			require.Empty(t, stolen)
		})
	}
}
