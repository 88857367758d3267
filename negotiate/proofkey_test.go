package negotiate

import (
	"encoding/asn1"
	"testing"

	"github.com/jcmturner/gokrb5/v8/crypto"
	"github.com/jcmturner/gokrb5/v8/iana/errorcode"
	"github.com/jcmturner/gokrb5/v8/iana/keyusage"
	"github.com/jcmturner/gokrb5/v8/iana/patype"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
	"github.com/stretchr/testify/require"
)

// Who stands before the KDC names how the password is made into a key, and nobody has signed that. So one hint counts, the one whose
// encryption type was judged; what comes beside it can't have the key made by the MD4 of RC4, which is quick to guess by.
func TestKeyOfAProofIsOfTheTypeThatWasJudged(t *testing.T) {
	const aes128 = 17
	weak, err := asn1.Marshal([]types.ETypeInfoEntry{{EType: 23, Salt: []byte("x")}})
	require.NoError(t, err)
	fast := types.PAData{PADataType: patype.PA_ETYPE_INFO, PADataValue: weak}
	for name, hints := range map[string]types.PADataSequence{
		"an older kind":           {etypeInfo(t, aes128, "x", 4096), fast},
		"an older kind before it": {fast, etypeInfo(t, aes128, "x", 4096)},
		"the same kind again":     {etypeInfo(t, aes128, "x", 4096), etypeInfo(t, 23, "x", 4096)},
		"a salt":                  {etypeInfo(t, aes128, "x", 4096), {PADataType: patype.PA_PW_SALT, PADataValue: []byte("y")}},
	} {
		t.Run(name, func(t *testing.T) {
			k := newTestKDC(t, testSPN)
			var proof *types.EncryptedData
			k.lie = func(kind string, b []byte) []byte {
				if kind != "preauth" {
					return b
				}
				data, err := asn1.Marshal(hints)
				require.NoError(t, err)
				return k.refuse(errorcode.KDC_ERR_PREAUTH_REQUIRED, data)
			}
			k.heard = func(message []byte) {
				var as messages.ASReq
				if as.Unmarshal(message) != nil {
					return
				}
				for _, pa := range as.PAData {
					if pa.PADataType == patype.PA_ENC_TIMESTAMP {
						proof = new(types.EncryptedData)
						require.NoError(t, proof.Unmarshal(pa.PADataValue))
					}
				}
			}
			_, err := k.client("alice").Token(t.Context(), testSPN)
			require.Error(t, err, "the KDC knows another key")
			require.NotNil(t, proof)
			right, _, err := crypto.GetKeyFromPassword(secret, types.NewPrincipalName(1, "alice"), testRealm, aes128, types.PADataSequence{etypeInfo(t, aes128, "x", 4096)})
			require.NoError(t, err)
			_, err = crypto.DecryptEncPart(*proof, right, keyusage.AS_REQ_PA_ENC_TIMESTAMP)
			require.NoError(t, err, "the proof is by another key")
		})
	}
}

// Nor is a proof sent by a key that hashes the password a few times only.
func TestProofNeedsIterations(t *testing.T) {
	for _, iterations := range []uint32{1, 4095, 4096} {
		k := newTestKDC(t, testSPN)
		k.lie = func(kind string, b []byte) []byte {
			if kind != "preauth" {
				return b
			}
			data, err := asn1.Marshal(types.PADataSequence{etypeInfo(t, aes256, "x", iterations)})
			require.NoError(t, err)
			return k.refuse(errorcode.KDC_ERR_PREAUTH_REQUIRED, data)
		}
		c := k.client("alice")
		c.leastIterations = 0
		_, err := c.Token(t.Context(), testSPN)
		if iterations < 4096 {
			require.ErrorContains(t, err, "times only")
			require.EqualValues(t, 1, k.asked.Load(), "a proof was sent")
		} else {
			require.ErrorContains(t, err, "the password or the keytab is wrong")
			require.EqualValues(t, 2, k.asked.Load())
		}
	}
}
