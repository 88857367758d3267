package ntlm

import (
	"crypto/fips140"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf16"

	"github.com/Azure/go-ntlmssp"
	"github.com/authretry/authretry"
)

// The messages are those of [MS-NLMP]. Package ntlmssp makes the first and the third. It copies what it finds in the second, the
// server's, into the third: flags, times of any length, and the list that says who the server is. So what it gets to see is a second
// message of our own, with no more than was asked for in it; by that way the third has channel bindings, too, of which
// ntlmssp knows nothing.

// Bounds of what a server sends.
const (
	maxToken = 16 << 10 // bytes of a second message in base64; real ones have some hundreds
	maxPairs = 64       // attributes of a server; there are eleven kinds
)

// Parts of the second message ([MS-NLMP] 2.2.1.2), and of the attributes in it (2.2.2.1).
const (
	signature = "NTLMSSP\x00"
	fixedPart = 48 // bytes, before Version and what the offsets lead to

	flagUnicode    = 1 << 0
	flagTargetInfo = 1 << 23

	// What ntlmssp's first message asks for: a server can choose among these.
	flagsOffered = flagUnicode | 1<<9 /* NTLM */ | 1<<15 /* ALWAYS_SIGN */ | 1<<19 /* EXTENDED_SESSIONSECURITY */ |
		flagTargetInfo | 1<<29 /* 128 */ | 1<<31 /* 56 */

	pairEnd             = 0
	pairFlags           = 6
	pairTimestamp       = 7
	pairSingleHost      = 8
	pairTargetName      = 9
	pairChannelBindings = 10
)

// A user is who logs in.
type user struct{ name, password string }

const maxName = 1 << 10 // bytes of a user name with its domain, or of a password

// check returns what is wrong with the credentials.
func (u user) check() error {
	switch {
	case u.name == "":
		return errors.New("ntlm: the user name is empty")
	case len(u.name) > maxName || len(u.password) > maxName:
		return fmt.Errorf("ntlm: the user name or the password has more than %d bytes", maxName)
	case fips140.Enforced():
		return fmt.Errorf("%w: NTLM needs MD4 and MD5, which FIPS 140-3 mode forbids", authretry.ErrUnsupportedChallenge)
	}
	return nil
}

// negotiateMessage is the first message. It is always the same, and has no secret.
var negotiateMessage = func() string {
	message, err := ntlmssp.NewNegotiateMessage("", "")
	if err != nil {
		panic(err) // there is nothing that could be wrong
	}
	return "NTLM " + base64.StdEncoding.EncodeToString(message)
}()

// errNoToken means that a refusal has no message of the server's.
var errNoToken = errors.New("ntlm: the server has sent no NTLM message")

// tokenIn returns the server's message among the challenges of a refusal.
func tokenIn(challenges []string) ([]byte, error) {
	list, _ := authretry.ParseChallenges(challenges)
	for _, c := range list {
		if !strings.EqualFold(c.Scheme, "NTLM") || c.Token68 == "" {
			continue
		}
		if len(c.Token68) > maxToken {
			return nil, fmt.Errorf("ntlm: the server's message has %d bytes in base64, and may have %d", len(c.Token68), maxToken)
		}
		message, err := base64.StdEncoding.DecodeString(c.Token68)
		if err != nil {
			return nil, errors.New("ntlm: the server's message is not base64")
		}
		return message, nil
	}
	return nil, errNoToken
}

// authenticateMessage answers the server's message for a service such as "HTTP/www.example.com". The bindings say by which TLS
// connection; nil if it has none.
func (u user) authenticateMessage(message []byte, service string, bindings []byte) (string, error) {
	asked, err := parseChallengeMessage(message)
	if err != nil {
		return "", err
	}
	pairs := asked.pairs
	pairs = appendPair(pairs, pairTargetName, utf16LE(service))
	if bindings != nil {
		pairs = appendPair(pairs, pairChannelBindings, bindings)
	}
	pairs = appendPair(pairs, pairEnd, nil)
	answer, err := ntlmssp.NewAuthenticateMessage(newChallengeMessage(asked.flags, asked.nonce, pairs), u.name, u.password, nil)
	if err != nil {
		return "", fmt.Errorf("ntlm: %w", err)
	}
	return "NTLM " + base64.StdEncoding.EncodeToString(answer), nil
}

// A challengeMessage is what counts of a server's message.
type challengeMessage struct {
	flags uint32
	nonce [8]byte
	pairs []byte // the server's attributes without an end, and without what only a client may say; nil if there are none
}

// parseChallengeMessage reads a server's message. Nothing outside of it is looked at, whatever its offsets say.
func parseChallengeMessage(b []byte) (m challengeMessage, err error) {
	if len(b) < 32 || string(b[:8]) != signature || binary.LittleEndian.Uint32(b[8:]) != 2 {
		return m, errors.New("ntlm: the server's message is no NTLM challenge")
	}
	m.flags = binary.LittleEndian.Uint32(b[20:])
	m.nonce = [8]byte(b[24:])
	if m.flags&flagTargetInfo == 0 || len(b) < fixedPart {
		return m, nil // an old server
	}
	length, offset := int64(binary.LittleEndian.Uint16(b[40:])), int64(binary.LittleEndian.Uint32(b[44:]))
	if length == 0 || offset < fixedPart || offset+length > int64(len(b)) {
		return m, nil // Squid's ntlm_fake_auth says that it has attributes, and has other things in their place
	}
	m.pairs, err = parsePairs(b[offset : offset+length])
	return m, err
}

// parsePairs reads a server's attributes.
func parsePairs(b []byte) (kept []byte, err error) {
	for range maxPairs {
		if len(b) < 4 {
			break
		}
		id, length := binary.LittleEndian.Uint16(b), int(binary.LittleEndian.Uint16(b[2:]))
		b = b[4:]
		if id == pairEnd {
			return kept, nil
		}
		if length > len(b) {
			break
		}
		value := b[:length]
		b = b[length:]
		switch id {
		case pairFlags, pairSingleHost, pairTargetName, pairChannelBindings: // the client's
			continue
		case pairTimestamp:
			if length != 8 {
				return nil, errors.New("ntlm: the time in the server's message has not 8 bytes")
			}
		}
		kept = appendPair(kept, id, value)
	}
	return nil, errors.New("ntlm: the attributes in the server's message have no end")
}

func appendPair(b []byte, id uint16, value []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, id)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

// newChallengeMessage makes a second message of what counts of the server's. Texts are sent in Unicode, also to a server that
// would have taken others: which it is, the third message says, and servers go by that.
func newChallengeMessage(flags uint32, nonce [8]byte, pairs []byte) []byte {
	b := binary.LittleEndian.AppendUint32([]byte(signature), 2)
	b = append(b, make([]byte, 8)...) // no name
	b = binary.LittleEndian.AppendUint32(b, flags&flagsOffered|flagUnicode|flagTargetInfo)
	b = append(append(b, nonce[:]...), make([]byte, 8)...)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(pairs)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(pairs)))
	b = binary.LittleEndian.AppendUint32(b, fixedPart)
	return append(b, pairs...)
}

func utf16LE(s string) (b []byte) {
	for _, unit := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}

// channelBindings returns the hash of what binds a login to a TLS connection: the server's certificate (tls-server-end-point,
// RFC 5929 §4.1), in the form of RFC 2744 §3.11. It is nil without TLS, and for a certificate of which the RFC defines none.
func channelBindings(state *tls.ConnectionState) []byte {
	if state == nil || len(state.PeerCertificates) == 0 {
		return nil
	}
	hash := certificateHash(state.PeerCertificates[0])
	if hash == nil {
		return nil
	}
	data := append([]byte("tls-server-end-point:"), hash...)
	b := make([]byte, 16) // no addresses
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	sum := md5.Sum(append(b, data...))
	return sum[:]
}

func certificateHash(cert *x509.Certificate) []byte {
	switch cert.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		sum := sha512.Sum384(cert.Raw)
		return sum[:]
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		sum := sha512.Sum512(cert.Raw)
		return sum[:]
	case x509.PureEd25519, x509.UnknownSignatureAlgorithm:
		return nil
	default: // also in place of MD5 and SHA-1
		sum := sha256.Sum256(cert.Raw)
		return sum[:]
	}
}

// authenticate answers the server's message in a refusal, which has come from a host.
func (u user) authenticate(refusal *http.Response, challenges []string, host string) (string, error) {
	message, err := tokenIn(challenges)
	if err != nil {
		return "", err
	}
	return u.authenticateMessage(message, "HTTP/"+host, channelBindings(refusal.TLS))
}
