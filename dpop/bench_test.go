package dpop_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
)

// accepting is a Base that answers at once, with the same nonce.
var accepting = roundTripFunc(func(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{"Dpop-Nonce": {"eyJ7S_zG.eyJH0-Z.HX4w-7v"}}}, nil
})

func roundTrip(t testing.TB) func() {
	transport := &authretry.Transport{Base: accepting, Schemes: []authretry.Scheme{staticScheme(t)}}
	req := newRequest(t, "https://api.example.com/v1/things?q=1")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "x")
	return func() {
		if _, err := transport.RoundTrip(req); err != nil {
			t.Fatal(err)
		}
	}
}

// Most are those of the signature. A change that adds one has to say why.
func TestAllocationBudget(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates, too")
	}
	n := testing.AllocsPerRun(100, roundTrip(t))
	t.Logf("%v allocations", n)
	require.LessOrEqual(t, n, 95.0)
}

func BenchmarkProof(b *testing.B) {
	k := newKey(b)
	u, err := url.Parse("https://api.example.com/v1/things?q=1")
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Proof("GET", u, "eyJ7S_zG.eyJH0-Z.HX4w-7v", "t"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	run := roundTrip(b)
	b.ReportAllocs()
	for b.Loop() {
		run()
	}
}
