package ntlm_test

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/authretry/authretry/ntlm"
	"github.com/stretchr/testify/require"
)

// The lab judges as [MS-NLMP] 4.2.4 does: by its example of NTLMv2, with the password "Password".
func TestLabJudgesAsTheSpecificationDoes(t *testing.T) {
	// temp of 4.2.4.1.3: version, time, the client's challenge, and the server's attributes.
	blob := unhex("0101000000000000 0000000000000000 aaaaaaaaaaaaaaaa 00000000 02000c0044006f006d00610069006e00 01000c00530065007200760065007200 00000000 00000000")
	m := message3{domain: "Domain", user: "User", blob: blob, proof: unhex("68cd0ab851e51c96aabc927bebef6a1c")}
	require.True(t, m.verify("Password", unhex("0123456789abcdef")))
	require.False(t, m.verify("password", unhex("0123456789abcdef")))
	require.Equal(t, "Domain", string(utf16.Decode([]uint16{'D', 'o', 'm', 'a', 'i', 'n'})))
}

// RFC 5929's bindings go by the hash of the certificate's signature, SHA-256 in place of weaker ones; where it has none, there is no
// binding rather than a wrong one.
func TestChannelBindingsByCertificate(t *testing.T) {
	sums := map[string]x509.SignatureAlgorithm{}
	for algorithm, want := range map[x509.SignatureAlgorithm]string{
		x509.SHA256WithRSA:    "SHA-256",
		x509.SHA1WithRSA:      "SHA-256",
		x509.ECDSAWithSHA256:  "SHA-256",
		x509.SHA384WithRSA:    "SHA-384",
		x509.ECDSAWithSHA384:  "SHA-384",
		x509.SHA512WithRSAPSS: "SHA-512",
	} {
		b := ntlm.ChannelBindings(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte("a certificate"), SignatureAlgorithm: algorithm}}})
		require.Len(t, b, 16)
		if other, ok := sums[want]; ok {
			require.Equal(t, ntlm.ChannelBindings(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte("a certificate"), SignatureAlgorithm: other}}}), b)
		}
		sums[want] = algorithm
	}
	different := map[string]bool{}
	for _, algorithm := range sums {
		different[string(ntlm.ChannelBindings(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte("a certificate"), SignatureAlgorithm: algorithm}}}))] = true
	}
	require.Len(t, different, 3)
	require.Nil(t, ntlm.ChannelBindings(nil))
	require.Nil(t, ntlm.ChannelBindings(&tls.ConnectionState{}))
	require.Nil(t, ntlm.ChannelBindings(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{{SignatureAlgorithm: x509.PureEd25519, PublicKey: ed25519.PublicKey{}}}}))

	// By another program: printf of the 16 zero bytes, the length, "tls-server-end-point:" and the SHA-256, piped to md5sum.
	out, err := exec.Command("sh", "-c", `hash=$(printf 'a certificate' | sha256sum | cut -c1-64)
		{ printf '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\065\0\0\0tls-server-end-point:'; for i in $(seq 1 2 63); do printf "\\$(printf '%03o' "0x$(printf %s "$hash" | cut -c$i-$((i+1)))")"; done; } | md5sum`).Output()
	if err != nil {
		t.Skip("there is no md5sum")
	}
	b := ntlm.ChannelBindings(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Raw: []byte("a certificate"), SignatureAlgorithm: x509.SHA256WithRSA}}})
	require.Equal(t, strings.Fields(string(out))[0], hex.EncodeToString(b))
}

// In FIPS 140-3 mode there is no NTLM, and the refusal goes to the caller.
func TestFIPS(t *testing.T) {
	if os.Getenv("NTLM_TEST_FIPS") == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestFIPS$")
		cmd.Env = append(os.Environ(), "NTLM_TEST_FIPS=1", "GODEBUG=fips140=only")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "PASS")
		return
	}
	l := newLab(t, nil)
	resp, err := newClient(t, nil, nil).Get(l.URL)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 401, resp.StatusCode)
	require.ErrorContains(t, explain(t, resp), "FIPS 140-3")
}

// A gateway may have put the challenges into one line, as RFC 9110 §5.3 lets it.
func TestMessageAmongOtherChallenges(t *testing.T) {
	for _, line := range []string{"Negotiate, NTLM %s", `NTLM %s, Basic realm="NTLM x"`, `Basic realm="NTLM x, y",ntlm  %s`} {
		l := newLab(t, func(l *lab) {
			l.second = func(w http.ResponseWriter, r *http.Request) bool {
				message := message2{nonce: []byte("12345678"), info: targetInfo(), flags: usualFlags}.bytes()
				l.mu.Lock()
				l.conns[r.Context().Value(labKey{}).(net.Conn)].nonce = []byte("12345678")
				l.mu.Unlock()
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(line, base64.StdEncoding.EncodeToString(message)))
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
		})
		require.Equal(t, "hello mufasa, 0 bytes", getOK(t, newClient(t, nil, nil), l.URL+"/a"), line)
	}
}
