package dpop_test

import (
	"net/http"
	"testing"

	"github.com/authretry/authretry"
	"github.com/stretchr/testify/require"
)

// FuzzResponses has a hostile server answer with a nonce, a challenge and a status of its choice: no panic, two sends at most,
// one proof and one token each, no proof twice, and nothing in it that no nonce has.
func FuzzResponses(f *testing.F) {
	f.Add("n", `DPoP error="use_dpop_nonce"`, uint16(401), "n2", `DPoP error="invalid_token"`, uint16(401), false)
	f.Add("a b", `Bearer error="invalid_token"`, uint16(401), "\x00", ``, uint16(200), true)
	f.Add("", `DPoP algs="ES256 x", error="invalid_dpop_proof"`, uint16(403), "", `DPoP error="insufficient_scope", scope="a b"`, uint16(403), false)
	f.Add(`"`, `DPoP algs="none", DPoP nonce=`, uint16(401), `\`, `DPoP error="use_dpop_nonce`, uint16(407), true)
	key := newKey(f)
	f.Fuzz(func(t *testing.T, nonce1, challenge1 string, status1 uint16, nonce2, challenge2 string, status2 uint16, notAhead bool) {
		s := staticScheme(t)
		s.Key, s.NotAhead, s.StepUp = key, notAhead, true
		sends, proofs := 0, map[string]bool{}
		transport := &authretry.Transport{Schemes: []authretry.Scheme{s}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			sends++
			if proof := req.Header.Get("DPoP"); proof != "" {
				require.False(t, proofs[proof], "a proof was sent twice")
				proofs[proof] = true
				require.Equal(t, []string{"DPoP t"}, req.Header["Authorization"])
				require.Len(t, req.Header["Dpop"], 1)
				if nonce, ok := claimsOf(t, proof)["nonce"].(string); ok {
					require.Regexp(t, `^[!#-\[\]-~]{1,1024}$`, nonce)
				}
			} else {
				require.Empty(t, req.Header["Authorization"])
			}
			resp := &http.Response{StatusCode: int(status1), Body: http.NoBody, Request: req, Header: http.Header{
				"Www-Authenticate": {challenge1}, "Dpop-Nonce": {nonce1}}}
			if sends%2 == 0 {
				resp.StatusCode = int(status2)
				resp.Header = http.Header{"Www-Authenticate": {challenge2}, "Dpop-Nonce": {nonce2}}
			}
			return resp, nil
		})}
		for range 3 {
			before := sends
			resp, err := transport.RoundTrip(newRequest(t, "https://api.example.com/"))
			require.LessOrEqual(t, sends-before, 2)
			if err != nil {
				continue
			}
			require.Empty(t, resp.Request.Header["Authorization"])
			require.Empty(t, resp.Request.Header["Dpop"])
			if why := authretry.Explain(resp); why != nil {
				for proof := range proofs {
					require.NotContains(t, why.Error(), proof)
				}
			}
		}
	})
}
