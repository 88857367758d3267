package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

func TestMain(m *testing.M) {
	if uploadIfChild() || fleetIfChild() {
		return
	}
	os.Exit(m.Run())
}

// What is timed has to be right first.
func TestOursIsRight(t *testing.T) {
	t.Run("Bearer", func(t *testing.T) {
		for _, expiry := range []time.Time{{}, time.Now().Add(time.Hour)} {
			token := &oauth2.Token{AccessToken: "t", Expiry: expiry}
			for _, name := range []string{ours, bound, "oauth2", "cloud auth", "azcore (all)"} {
				require.NoError(t, checkBearer(func(base http.RoundTripper) http.RoundTripper { return bearerPeers(base, token)[name] }, "t"), name)
			}
		}
	})
	t.Run("Digest", func(t *testing.T) {
		for _, h := range []hashing{md5Hashing, sha256Hashing} {
			hits, err := checkDigest(h, func(base http.RoundTripper) http.RoundTripper { return digestPeers(base)[ours] })
			require.NoError(t, err)
			require.Equal(t, 1.0, hits)
		}
	})
	t.Run("the bound of Digest", func(t *testing.T) {
		srv := newDigestServer(md5Hashing, true, false)
		defer srv.Close()
		srv.uses[nonce] = 0
		req, err := http.NewRequest("GET", srv.URL+"/x?y=z", nil)
		require.NoError(t, err)
		for range 20 {
			resp, err := (&boundDigest{base: http.DefaultTransport, hashing: md5Hashing, ha1: srv.ha1, nonce: nonce, nc: uint32(srv.uses[nonce])}).RoundTrip(req)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode)
		}
	})
	t.Run("parser", func(t *testing.T) {
		for _, c := range parseCases {
			require.NoError(t, c.check(parsers[ours]), c.name)
		}
	})
}

// A check that finds nothing wrong with anybody would be worth nothing.
func TestChecksFindWhatIsWrong(t *testing.T) {
	require.Error(t, parseCases[1].check(parsers["distribution"]))
	require.Error(t, checkBearer(func(base http.RoundTripper) http.RoundTripper { return base }, "t"))
	require.Error(t, checkBearer(func(base http.RoundTripper) http.RoundTripper {
		return roundTripFunc(func(req *http.Request) (*http.Response, error) {
			req.Header.Set("Authorization", "Bearer t")
			return base.RoundTrip(req)
		})
	}, "t"))
	_, err := checkDigest(md5Hashing, func(base http.RoundTripper) http.RoundTripper { return base })
	require.Error(t, err)
}

// All rows run, and what does not depend on the machine holds.
func TestRows(t *testing.T) {
	r, err := runAll(brief, "", func(row string) { t.Log(row) })
	require.NoError(t, err)
	for _, v := range r.verdicts {
		for _, steady := range []string{"Storm: ", "Upload"} {
			if strings.HasPrefix(v.row, steady) {
				require.True(t, v.met, "%s: %s", v.row, v.ours)
			}
		}
		if strings.HasPrefix(v.row, "Digest over loopback") {
			require.Contains(t, v.ours, "1.00 hits")
			require.Contains(t, v.ours, ", 1 connections")
		}
	}
	require.GreaterOrEqual(t, len(r.growths), 4, "and that of fleets, if there is a Redis or a PostgreSQL")
	require.True(t, strings.HasPrefix(picture(r.growths), "<svg"))
	text := r.write(time.Second)
	for _, module := range peerModules {
		require.Contains(t, text, module)
	}
}

func TestSpread(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3, 11, 10, 9, 8, 7, 6}
	require.Equal(t, spread{2, 6, 10}, spreadOf(values))
	require.False(t, slices.IsSorted(values), "the samples stay in the order of the rounds, which pairs them")
}

// A program that has only Digest must not be as large as one that has a TokenSource, too.
func TestDigestAloneLinksNoTokenSource(t *testing.T) {
	for program, wanted := range map[string]bool{"digest": false, "token": true} {
		file := filepath.Join(t.TempDir(), program)
		output, err := exec.Command("go", "build", "-buildvcs=false", "-o", file, "./link/"+program).CombinedOutput()
		require.NoError(t, err, "%s", output)
		symbols, err := exec.Command("go", "tool", "nm", file).CombinedOutput()
		require.NoError(t, err, "%s", symbols)
		require.Contains(t, string(symbols), "authretry.(*Transport).RoundTrip")
		require.Equal(t, wanted, strings.Contains(string(symbols), "authretry.(*TokenSource).obtain"), program)
	}
}
