package ntlm_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/authretry/authretry/ntlm"
	"github.com/stretchr/testify/require"
)

// Whatever a server's message says, the answer is none, or NTLMv2 for the nonce that is in it, with the client's part as the client
// has it, and not much longer than what it answers.
func FuzzChallengeMessage(f *testing.F) {
	f.Add(message2{nonce: []byte("12345678"), info: targetInfo(), flags: usualFlags}.bytes())
	f.Add(message2{nonce: []byte("12345678"), info: clientsPart(), flags: 0xffffffff}.bytes())
	f.Add(message2{nonce: []byte("12345678"), flags: usualFlags}.bytes())
	f.Add(message2{nonce: []byte("12345678"), info: targetInfo(), flags: usualFlags, offset: 8}.bytes())
	f.Add(message2{nonce: []byte("12345678"), info: targetInfo(), flags: usualFlags, length: 0xffff}.bytes())
	f.Add(message2{nonce: []byte("12345678"), info: targetInfo(), flags: 0}.bytes()[:32])
	f.Fuzz(func(t *testing.T, message []byte) {
		answer, err := ntlm.AuthenticateMessage(message, `EXAMPLE\mufasa`, secret)
		if err != nil {
			require.NotContains(t, err.Error(), secret)
			require.Less(t, len(err.Error()), 200)
			return
		}
		token, ok := strings.CutPrefix(answer, "NTLM ")
		require.True(t, ok)
		b, err := base64.StdEncoding.DecodeString(token)
		require.NoError(t, err)
		require.LessOrEqual(t, len(b), len(message)+512)
		m, err := parse3(b)
		require.NoError(t, err)
		require.Equal(t, "EXAMPLE", m.domain)
		require.Equal(t, "mufasa", m.user)
		require.True(t, m.verify(secret, message[24:32]))
		require.Equal(t, "HTTP/www.example.com", fromUTF16LE(m.pairs[9]))
		require.Equal(t, "0123456789abcdef", string(m.pairs[10]))
		require.Empty(t, m.lm)
	})
}
