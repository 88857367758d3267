package dpop_test

import (
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

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

func proof(b *testing.B) func() {
	k := newKey(b)
	u, err := url.Parse("https://api.example.com/v1/things?q=1")
	require.NoError(b, err)
	return func() {
		if _, err := k.Proof("GET", u, "eyJ7S_zG.eyJH0-Z.HX4w-7v", "t"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProof(b *testing.B) {
	run := proof(b)
	b.ReportAllocs()
	for b.Loop() {
		run()
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	run := roundTrip(b)
	b.ReportAllocs()
	for b.Loop() {
		run()
	}
}

// BenchmarkRoundTripPerProof says how much longer a whole RoundTrip takes than a proof, which is to be 1.1 times at most. They
// take turns, and the median of each counts, so that it matters little what else the machine does.
func BenchmarkRoundTripPerProof(b *testing.B) {
	runs := [2]func(){proof(b), roundTrip(b)}
	var took [2][]time.Duration
	for b.Loop() {
		for i, run := range runs {
			start := time.Now()
			run()
			took[i] = append(took[i], time.Since(start))
		}
	}
	var median [2]float64
	for i := range took {
		slices.Sort(took[i])
		median[i] = float64(took[i][len(took[i])/2])
	}
	b.ReportMetric(median[0], "ns/proof")
	b.ReportMetric(median[1], "ns/roundtrip")
	b.ReportMetric(median[1]/median[0], "roundtrip/proof")
}
