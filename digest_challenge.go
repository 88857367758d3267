package authretry

import (
	"crypto/fips140"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// A digestOffer is what a challenge asks for, once it is known that it can be answered.
type digestOffer struct {
	realm, nonce, opaque string
	hasOpaque            bool
	algorithmSent        string // as the server wrote it; empty if it did not
	algorithm            digestAlgorithm
	sess                 bool
	qop                  digestQOP
	userhash             bool
	stale                bool
}

// maxDigestText is the most bytes of a challenge's text that a session keeps, most of it to be sent back. Apache and
// nginx take no more in a header line.
const maxDigestText = 8 << 10

// readDigestChallenge returns what c asks for, or an error wrapping ErrUnsupportedChallenge.
func readDigestChallenge(c *Challenge) (*digestOffer, error) {
	if c == nil {
		return nil, unsupportedDigest("the server sent none")
	}
	o := &digestOffer{nonce: c.Params.Get("nonce")}
	var hasRealm, known bool
	o.realm, hasRealm = c.Params.Lookup("realm")
	o.opaque, o.hasOpaque = c.Params.Lookup("opaque")
	switch {
	case !hasRealm:
		return nil, unsupportedDigest("it has no realm")
	case o.nonce == "":
		return nil, unsupportedDigest("it has no nonce")
	case len(o.realm)+len(o.nonce)+len(o.opaque)+len(c.Params.Get("domain")) > maxDigestText:
		return nil, unsupportedDigest("it is too large to be sent back")
	case hasControl(o.realm) || hasControl(o.nonce) || hasControl(o.opaque):
		return nil, unsupportedDigest("it has a control character in its realm, nonce or opaque")
	}

	if name, ok := c.Params.Lookup("algorithm"); ok { // without it, MD5 (RFC 7616 §3.3)
		if o.algorithm, o.sess, known = digestAlgorithmNamed(name); !known {
			return nil, unsupportedDigest("its algorithm %.40q is unknown", name)
		}
		o.algorithmSent = name
	}
	if o.algorithm == algorithmMD5 && fips140.Enforced() {
		return nil, unsupportedDigest("its algorithm is MD5, which FIPS 140-3 mode forbids")
	}
	if o.qop, known = readQOP(c.Params.Get("qop")); !known {
		return nil, unsupportedDigest("its qop %.40q is unknown", c.Params.Get("qop"))
	}
	if o.sess && o.qop == qopNone {
		return nil, unsupportedDigest("it has a -sess algorithm but no qop")
	}
	o.userhash = equalFoldASCII(c.Params.Get("userhash"), "true")
	o.stale = equalFoldASCII(c.Params.Get("stale"), "true")
	return o, nil
}

// unsupportedDigest returns an error that says why a challenge cannot be answered.
func unsupportedDigest(why string, args ...any) error {
	return fmt.Errorf("%w: Digest: %s", ErrUnsupportedChallenge, fmt.Sprintf(why, args...))
}

// A digestQOP is a quality of protection (RFC 7616 §3.3).
type digestQOP uint8

const (
	qopNone digestQOP = iota // RFC 2069
	qopAuth
	qopAuthInt
)

// String returns the token that is sent and hashed.
func (q digestQOP) String() string { return [...]string{"", "auth", "auth-int"}[q] }

// readQOP chooses from a challenge's qop. An empty list is no list. A list of strangers is not known: an answer
// as if there were no list would have no cnonce in it, which is what an attacker may be after.
func readQOP(list string) (qop digestQOP, known bool) {
	known = true
	for token := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		switch {
		case equalFoldASCII(token, "auth"):
			return qopAuth, true
		case equalFoldASCII(token, "auth-int"):
			qop = qopAuthInt
		default:
			known = false
		}
	}
	return qop, known || qop == qopAuthInt
}

// A digestAlgorithm is a hash function, the weakest first.
type digestAlgorithm uint8

const (
	algorithmMD5 digestAlgorithm = iota
	algorithmSHA256
	algorithmSHA512_256
)

// digestAlgorithmNamed returns the algorithm called name, and whether it is the -sess form.
func digestAlgorithmNamed(name string) (a digestAlgorithm, sess, ok bool) {
	const suffix = "-sess"
	if n := len(name) - len(suffix); n > 0 && equalFoldASCII(name[n:], suffix) {
		name, sess = name[:n], true
	}
	for i, known := range [...]string{algorithmMD5: "MD5", algorithmSHA256: "SHA-256", algorithmSHA512_256: "SHA-512-256"} {
		if equalFoldASCII(name, known) {
			return digestAlgorithm(i), sess, true
		}
	}
	return 0, false, false
}

// appendHex appends the hash of data to dst, in lower-case hexadecimal. It works on the stack.
func (a digestAlgorithm) appendHex(dst, data []byte) []byte {
	switch a {
	case algorithmSHA256:
		sum := sha256.Sum256(data)
		return hex.AppendEncode(dst, sum[:])
	case algorithmSHA512_256:
		sum := sha512.Sum512_256(data)
		return hex.AppendEncode(dst, sum[:])
	default:
		sum := md5.Sum(data)
		return hex.AppendEncode(dst, sum[:])
	}
}

// hex returns the hash of the parts joined by colons.
func (a digestAlgorithm) hex(parts ...string) string {
	return string(a.appendHex(nil, []byte(strings.Join(parts, ":"))))
}

// newHash returns the hash function for data that comes piece by piece.
func (a digestAlgorithm) newHash() hash.Hash {
	switch a {
	case algorithmSHA256:
		return sha256.New()
	case algorithmSHA512_256:
		return sha512.New512_256()
	default:
		return md5.New()
	}
}

// maxDigestHex is the length of the longest hash in hexadecimal.
const maxDigestHex = 2 * sha256.Size
