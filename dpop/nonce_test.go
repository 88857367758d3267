package dpop_test

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

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/dpop"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// answering is a server of which a test says all.
type answering struct {
	sends   atomic.Int32
	headers sync.Map
}

func newAnswering(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) (*answering, string) {
	a := &answering{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(a.sends.Add(1))
		a.headers.Store(n, r.Header.Clone())
		answer(n, w, r)
	}))
	t.Cleanup(srv.Close)
	return a, srv.URL
}

func (a *answering) header(n int) http.Header {
	h, _ := a.headers.Load(n)
	return h.(http.Header)
}

func refuse(w http.ResponseWriter, challenge, nonce string) {
	w.Header().Set("WWW-Authenticate", challenge)
	if nonce != "" {
		w.Header().Set("DPoP-Nonce", nonce)
	}
	w.WriteHeader(401)
}

func staticScheme(t testing.TB) *dpop.Scheme {
	return &dpop.Scheme{Key: newKey(t), Source: &authretry.TokenSource{Initial: &oauth2.Token{AccessToken: "t", TokenType: "dpop"}}}
}

func TestNoncesThatAreNone(t *testing.T) {
	for name, nonce := range map[string]string{
		"none": "", "huge": strings.Repeat("n", 1025), "with a space": "a b", "with a quote": `a"b`, "outside ASCII": "ä",
	} {
		t.Run(name, func(t *testing.T) {
			a, url := newAnswering(t, func(_ int, w http.ResponseWriter, _ *http.Request) { refuse(w, `DPoP error="use_dpop_nonce"`, nonce) })
			client := &http.Client{Transport: authretry.New(staticScheme(t))}
			resp, err := client.Get(url)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, 401, resp.StatusCode)
			require.EqualValues(t, 1, a.sends.Load())
			require.ErrorContains(t, authretry.Explain(resp), "has given none that can be used")
		})
	}
}

func TestNonceForEver(t *testing.T) {
	for name, c := range map[string]struct {
		nonce func(n int) string
		sends []int32
	}{
		"the same":     {func(int) string { return "n" }, []int32{2, 3, 4}},
		"another each": {func(n int) string { return fmt.Sprint("n", n) }, []int32{2, 4, 6}},
	} {
		t.Run(name, func(t *testing.T) {
			a, url := newAnswering(t, func(n int, w http.ResponseWriter, _ *http.Request) {
				refuse(w, `DPoP error="use_dpop_nonce"`, c.nonce(n))
			})
			client := &http.Client{Transport: authretry.New(staticScheme(t))}
			for _, want := range c.sends {
				resp, err := client.Get(url)
				require.NoError(t, err)
				resp.Body.Close()
				require.Equal(t, 401, resp.StatusCode)
				require.Equal(t, want, a.sends.Load())
			}
		})
	}
}

// A server whose nonces are good once: each comes with the response before, which was a success.
func TestNonceThatChangesWithEachResponse(t *testing.T) {
	var last atomic.Value
	last.Store("")
	a, url := newAnswering(t, func(n int, w http.ResponseWriter, r *http.Request) {
		nonce, _ := claimsOf(t, r.Header.Get("DPoP"))["nonce"].(string)
		good := nonce != "" && nonce == last.Load()
		last.Store(fmt.Sprint("n", n))
		if !good {
			refuse(w, `DPoP error="use_dpop_nonce"`, fmt.Sprint("n", n))
			return
		}
		w.Header().Set("DPoP-Nonce", fmt.Sprint("n", n))
	})
	client := &http.Client{Transport: authretry.New(staticScheme(t))}
	for i := range 5 {
		resp, err := client.Get(url)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
		require.EqualValues(t, 2+i, a.sends.Load())
	}
}

// A server that says nothing but gives a nonce for the first time wants that, rather than another token.
func TestNonceWithoutAChallenge(t *testing.T) {
	a, url := newAnswering(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if claimsOf(t, r.Header.Get("DPoP"))["nonce"] != "n" {
			w.Header().Set("DPoP-Nonce", "n")
			w.WriteHeader(401)
		}
	})
	s := staticScheme(t)
	s.Source.Fetch = func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
		t.Error("the token is good")
		return nil, errors.New("x")
	}
	resp, err := (&http.Client{Transport: authretry.New(s)}).Get(url)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
	require.EqualValues(t, 2, a.sends.Load())
}

// A redirect to another origin takes neither token nor proof along, and its nonce is nobody's.
func TestRedirectToAnotherOrigin(t *testing.T) {
	other, otherURL := newAnswering(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		refuse(w, `DPoP error="use_dpop_nonce"`, "foreign")
	})
	a, url := newAnswering(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("DPoP-Nonce", "own")
		if r.URL.Path == "/away" {
			http.Redirect(w, r, otherURL, http.StatusTemporaryRedirect)
		}
	})
	s := staticScheme(t)
	client := &http.Client{Transport: authretry.New(s)}
	for _, path := range []string{"/away", "/"} {
		resp, err := client.Get(url + path)
		require.NoError(t, err)
		resp.Body.Close()
	}
	require.Empty(t, other.header(1)["Dpop"])
	require.Empty(t, other.header(1)["Authorization"])
	require.EqualValues(t, 1, other.sends.Load())
	require.Equal(t, "own", claimsOf(t, a.header(2).Get("DPoP"))["nonce"])

	resp, err := client.Get(otherURL) // which is asked now as any other
	require.NoError(t, err)
	resp.Body.Close()
	require.NotContains(t, claimsOf(t, other.header(2).Get("DPoP")), "nonce")
	require.Equal(t, "foreign", claimsOf(t, other.header(3).Get("DPoP"))["nonce"])
}

// A Base that follows redirects by itself brings a nonce from elsewhere.
func TestNonceByABaseThatFollowsRedirects(t *testing.T) {
	_, otherURL := newAnswering(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.Header().Set("DPoP-Nonce", "foreign") })
	away := false
	a, url := newAnswering(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		if away {
			http.Redirect(w, r, otherURL, http.StatusTemporaryRedirect)
		}
	})
	s := staticScheme(t)
	away = true
	following := roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return http.DefaultClient.Do(req.Clone(req.Context()))
	})
	_, err := (&authretry.Transport{Base: following, Schemes: []authretry.Scheme{s}}).RoundTrip(newRequest(t, url))
	require.Error(t, err)
	away = false
	resp, err := authretry.New(s).RoundTrip(newRequest(t, url))
	require.NoError(t, err)
	resp.Body.Close()
	require.NotContains(t, claimsOf(t, a.header(int(a.sends.Load())).Get("DPoP")), "nonce")
}
