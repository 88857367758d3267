package authretry

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// answering is a Base that answers at once: refusals to requests without credentials, 200 to the rest.
func answering(challenge string) roundTripFunc {
	ok := &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{}}
	return func(req *http.Request) (*http.Response, error) {
		if req.Header["Authorization"] == nil {
			return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: http.Header{"Www-Authenticate": {challenge}}}, nil
		}
		return ok, nil
	}
}

// expiringSource has a token that is good for an hour.
func expiringSource() *TokenSource {
	fetch := func(context.Context, TokenRequest) (*oauth2.Token, error) {
		return nil, errors.New("there is no need to")
	}
	return &TokenSource{Initial: &oauth2.Token{AccessToken: "t", Expiry: time.Now().Add(time.Hour)}, Fetch: fetch}
}

// Allocations of one request in the steady state, all told: the copy of the request, the map of its headers, which is two, and what
// the scheme needs. A change that adds one has to say why.
func TestAllocationBudgets(t *testing.T) {
	for _, c := range []struct {
		name      string
		challenge string
		scheme    Scheme
		budget    float64
	}{
		{"Bearer", `Bearer`, &Bearer{Source: expiringSource()}, 3},
		{"Basic", `Basic realm="x"`, &Basic{Username: "u", Password: "p"}, 3},
		{"Basic, ahead", `Basic realm="x"`, &Basic{Username: "u", Password: "p", Ahead: true}, 8},
		{"API key", `ApiKey`, &APIKey{Key: "k"}, 6},
		{"Digest MD5", `Digest realm="x", nonce="n", qop="auth"`, &Digest{Username: "u", Password: "p"}, 6},
		{"Digest SHA-256", `Digest realm="x", nonce="n", qop="auth", algorithm=SHA-256`, &Digest{Username: "u", Password: "p"}, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			transport := &Transport{Base: answering(c.challenge), Schemes: []Scheme{c.scheme}}
			req, err := http.NewRequest("GET", "https://api.example.com/v1/things?q=1", nil)
			require.NoError(t, err)
			req.Header.Set("Accept", "application/json")
			req.Header.Set("User-Agent", "x")
			n := testing.AllocsPerRun(100, func() {
				if _, err := transport.RoundTrip(req); err != nil {
					t.Fatal(err)
				}
			})
			t.Logf("%v allocations", n)
			require.LessOrEqual(t, n, c.budget)
		})
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	for _, c := range []struct {
		name      string
		challenge string
		scheme    Scheme
	}{
		{"Bearer", `Bearer`, &Bearer{Source: expiringSource()}},
		{"Basic", `Basic realm="x"`, &Basic{Username: "u", Password: "p"}},
		{"DigestMD5", `Digest realm="x", nonce="n", qop="auth"`, &Digest{Username: "u", Password: "p"}},
		{"DigestSHA256", `Digest realm="x", nonce="n", qop="auth", algorithm=SHA-256`, &Digest{Username: "u", Password: "p"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			transport := &Transport{Base: answering(c.challenge), Schemes: []Scheme{c.scheme}}
			req, err := http.NewRequest("GET", "https://api.example.com/v1/things?q=1", nil)
			require.NoError(b, err)
			req.Header.Set("Accept", "application/json")
			req.Header.Set("User-Agent", "x")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := transport.RoundTrip(req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
