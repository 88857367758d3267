package authtest

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Digest is a [Guard] that asks for Digest credentials (RFC 7616, and RFC 2069 with [NoQOP]). It accepts what is right
// by the letter of RFC 7616 §3.4, and refuses
//
//   - a parameter that is missing, repeated, unquoted where quotes are required, or quoted where they are forbidden;
//   - a uri other than the request's target, byte by byte, and a realm or an opaque other than the challenge's;
//   - an algorithm that was not offered, and none at all unless a challenge named none;
//   - a qop that was not offered, and none at all unless [NoQOP] is set; with it, a cnonce, unless it is for -sess;
//   - a userhash that was not announced, or is neither true nor false;
//   - an nc that is not eight lower-case hex digits, is 0, or is not exactly one more than the last, as Apache httpd and
//     Squid have it, unless NonceWindow says otherwise;
//   - with -sess, a session key of another cnonce than the first of the nonce.
//
// What it does not know is ignored. A nonce that is unknown or at its end is refused with stale=true if all else is right.
// It remembers the last 65,536 nonces; older ones are stale, good as they may be.
//
// Under auth-int, the request's body is held in memory, and so is the answer until the handler returns: its
// ResponseWriter flushes nothing and cannot be hijacked, unless Rspauth is [RspauthMissing].
//
// Its fields must not be changed once it is in use.
type Digest struct {
	Username, Password string

	Realm      string   // "authtest" if empty
	Algorithms []string // offered in this order, one challenge each; {"SHA-256"} if empty; "" is MD5 without saying so
	QOP        string   // as offered, such as "auth", "auth-int" or "auth, auth-int"; "auth" if empty; or NoQOP; other words are offered, and not accepted
	Userhash   bool     // announces userhash=true
	UTF8       bool     // announces charset=UTF-8
	Opaque     string   // must come back as it is; none if empty
	Domain     string   // URIs separated by spaces; none if empty
	RawRealm   bool     // quotes and backslashes in the realm are sent without escape, as nginx and Tomcat do

	NonceLifetime time.Duration // after which a nonce is stale; 0: never
	NonceUses     int           // after which a nonce is stale; 0: never
	NonceWindow   int           // 0: nc must rise by one; n: it may be up to n behind the highest, but no repeat; negative: any but 0 is accepted
	StaleOnNC     bool          // a wrong nc is refused with stale=true and ends the nonce, as Squid has it

	NextNonce NextNonce // when an answer names the next nonce; NextNonceNever if 0
	Rspauth   Rspauth   // how the server proves that it knows the password; RspauthRight if 0

	password rotating

	mu     sync.Mutex // guards everything below
	nonces bounded[*nonce]
	errors []NonceError
}

// NoQOP as [Digest.QOP] offers no quality of protection, as RFC 2069 had it: no nonce count either.
const NoQOP = "none"

// A NextNonce says when an answer names the next nonce in Authentication-Info (RFC 7616 §3.5).
type NextNonce int

// When an answer names the next nonce.
const (
	NextNonceNever   NextNonce = iota
	NextNonceAlways            // a new nonce with every answer; the old one stays good
	NextNonceNearEnd           // when the nonce has one use or a quarter of its time left, or less
	NextNonceSame              // the very nonce that is in use, with every answer, as WEBrick may do; its nc goes on
)

// A Rspauth says how the server proves that it knows the password too (RFC 7616 §3.5).
type Rspauth int

// The kinds of proof.
const (
	RspauthRight Rspauth = iota
	RspauthWrong
	RspauthMissing
)

// A NonceError is a nonce count that came out of order, with credentials that were good otherwise.
type NonceError struct {
	Nonce     string
	Got, Want uint32 // Got is below Want for a repeat or a step back, above it for a gap
}

// String returns a line such as "nc 4 where 6 was next".
func (e NonceError) String() string { return fmt.Sprintf("nc %d where %d was next", e.Got, e.Want) }

type nonce struct {
	born   time.Time
	uses   int
	last   uint32              // the highest nc seen
	seen   map[uint32]struct{} // the ncs within the window; nil unless there is a window
	cnonce string              // of the first use, for -sess
	stale  bool
}

// SetPassword changes the password from now on.
func (d *Digest) SetPassword(password string) { d.password.set(password) }

// GoStale ends every nonce given out so far: the next request with one is refused with stale=true.
func (d *Digest) GoStale() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.nonces.values {
		n.stale = true
	}
}

// NonceErrors returns the repeats and gaps of nonce counts seen so far, in credentials that were good otherwise: at
// most the first 10,000, whether the requests were refused for them or not. A client that sends its requests of one nonce one
// after another causes none.
func (d *Digest) NonceErrors() []NonceError {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.errors)
}

const maxNonceErrors = 10_000

func (d *Digest) attach(*Server) {}

// Format writes the type and the realm, whatever the verb: no secret, and nothing that changes.
func (d *Digest) Format(f fmt.State, _ rune) { formatGuard(f, "Digest", d.realm()) }

// MarshalJSON writes the realm alone.
func (d *Digest) MarshalJSON() ([]byte, error) { return marshalGuard(d.realm()) }

func (d *Digest) secretHeader() string { return "Authorization" }

func (d *Digest) realm() string { return orDefault(d.Realm, defaultRealm) }

func (d *Digest) algorithms() []string {
	if len(d.Algorithms) == 0 {
		return []string{"SHA-256"}
	}
	return d.Algorithms
}

// qops returns the qops as offered; none for RFC 2069.
func (d *Digest) qops() (list []string) {
	if d.QOP == NoQOP {
		return nil
	}
	for qop := range strings.SplitSeq(orDefault(d.QOP, "auth"), ",") {
		list = append(list, strings.TrimSpace(qop))
	}
	return list
}

// offers reports whether the qop is among those offered, and known; "" is the qop of RFC 2069.
func (d *Digest) offers(qop string) bool {
	switch qop {
	case "":
		return d.QOP == NoQOP
	case "auth", "auth-int":
		return slices.Contains(d.qops(), qop)
	}
	return false
}

// newHash returns the hash of an algorithm with or without "-sess", or nil.
func newHash(algorithm string) func() hash.Hash {
	switch strings.ToUpper(algorithm) {
	case "", "MD5", "MD5-SESS":
		return md5.New
	case "SHA-256", "SHA-256-SESS":
		return sha256.New
	case "SHA-512-256", "SHA-512-256-SESS":
		return sha512.New512_256
	}
	return nil
}

func (d *Digest) challenges(v verdict) []string {
	fresh := d.newNonce()
	var list []string
	for _, algorithm := range d.algorithms() {
		list = append(list, d.challenge(algorithm, fresh, v.code == "stale"))
	}
	return list
}

func (d *Digest) challenge(algorithm, nonce string, stale bool) string {
	realm := quote(d.realm())
	if d.RawRealm {
		realm = `"` + d.realm() + `"`
	}
	c := "Digest realm=" + realm
	add := func(wanted bool, param string) {
		if wanted {
			c += ", " + param
		}
	}
	add(d.Domain != "", "domain="+quote(d.Domain))
	add(true, "nonce="+quote(nonce))
	add(d.Opaque != "", "opaque="+quote(d.Opaque))
	add(stale, "stale=true")
	add(algorithm != "", "algorithm="+algorithm)
	add(d.QOP != NoQOP, "qop="+quote(orDefault(d.QOP, "auth")))
	add(d.UTF8, "charset=UTF-8")
	add(d.Userhash, "userhash=true")
	return c
}

func (d *Digest) newNonce() string {
	value := rand.Text()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nonces.put(value, &nonce{born: time.Now()})
	return value
}

// digestCredentials are the parameters of an Authorization header with Digest credentials.
type digestCredentials struct {
	username, realm, nonce, uri, response, cnonce, opaque string
	algorithm, qop, ncText                                string
	userhash                                              bool
	nc                                                    uint32
}

func (d *Digest) check(x *exchange) verdict {
	text, ok := credentials(x.r.Header.Get("Authorization"), "Digest")
	if !ok {
		return verdict{decision: Challenged}
	}
	refused := verdict{decision: Refused, scheme: "Digest"}
	c, reason := readDigestCredentials(text)
	if reason == "" {
		reason = d.mismatch(c, x.r)
	}
	if reason != "" {
		refused.reason = reason
		return refused
	}

	var entity []byte
	if c.qop == "auth-int" {
		var err error
		if entity, err = x.holdBody(); err != nil {
			refused.reason = "the body was cut short"
			return refused
		}
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	n, known := d.nonces.get(c.nonce)
	if !known {
		n = &nonce{stale: true} // forgotten, or not ours: stale only if the digest is right (RFC 7616 §3.3)
	}
	cnonce := c.cnonce
	if n.cnonce != "" {
		cnonce = n.cnonce
	}
	a1 := c.a1(d.Username, d.password.get(d.Password), cnonce)
	if !same(c.response, c.digest(a1, x.r.Method+":"+c.uri, entity)) {
		refused.reason = "the response is wrong: another password, or a mistake in the computation"
		return refused
	}
	if d.isStale(n) {
		refused.reason, refused.code = "the nonce is stale", "stale"
		return refused
	}
	if c.qop != "" {
		if e, bad := d.count(n, c); bad {
			refused.reason = e.String()
			if d.StaleOnNC {
				refused.code, n.stale = "stale", true
			}
			return refused
		}
	}
	n.uses++
	if n.cnonce == "" && isSess(c.algorithm) {
		n.cnonce = c.cnonce
	}
	return verdict{
		decision: Accepted, scheme: "Digest", needsBody: c.qop == "auth-int" && d.Rspauth != RspauthMissing,
		info: d.info(c, a1, d.nextNonce(c.nonce, n)),
	}
}

// mismatch says what in the credentials does not fit the challenge or the request, but for the digest itself.
func (d *Digest) mismatch(c digestCredentials, r *http.Request) string {
	// RFC 7616 §3.4: the algorithm "must be" the one supplied. If none was, naming the MD5 that it stands for is no mistake.
	offered := func(name string) bool {
		return strings.EqualFold(name, c.algorithm) || name == "" && strings.EqualFold(c.algorithm, "MD5")
	}
	username := d.Username
	if c.userhash {
		username = c.hex(d.Username + ":" + d.realm())
	}
	switch {
	case c.algorithm == "" && !slices.Contains(d.algorithms(), ""):
		return "algorithm is missing, which the challenge names (RFC 7616 §3.4)"
	case !slices.ContainsFunc(d.algorithms(), offered):
		return "the algorithm was not offered"
	case !d.offers(c.qop):
		return "the qop was not offered"
	case c.realm != d.realm():
		return "the realm is not the challenge's"
	case c.opaque != d.Opaque:
		return "opaque is not the challenge's"
	case c.uri != r.RequestURI:
		return "uri is not the request's target"
	case c.userhash && !d.Userhash:
		return "userhash was not offered"
	case c.username != username:
		return "wrong user name"
	case isSess(c.algorithm) && c.cnonce == "":
		return "cnonce is missing, which " + c.algorithm + " needs"
	case c.qop == "" && c.cnonce != "" && !isSess(c.algorithm):
		return "cnonce without qop (RFC 2617 §3.2.2)"
	}
	return ""
}

// isStale reports whether a nonce has come to its end.
func (d *Digest) isStale(n *nonce) bool {
	return n.stale ||
		d.NonceLifetime > 0 && time.Since(n.born) >= d.NonceLifetime ||
		d.NonceUses > 0 && n.uses >= d.NonceUses
}

// count notes the nonce count of a request, and reports whether the request is to be refused for it.
func (d *Digest) count(n *nonce, c digestCredentials) (e NonceError, bad bool) {
	e = NonceError{Nonce: c.nonce, Got: c.nc, Want: n.last + 1}
	inOrder := e.Got == e.Want
	if !inOrder && len(d.errors) < maxNonceErrors {
		d.errors = append(d.errors, e)
	}
	switch {
	case d.NonceWindow == 0:
		bad = !inOrder
	case d.NonceWindow > 0:
		_, repeated := n.seen[c.nc]
		bad = repeated || int64(c.nc) < int64(n.last)-int64(d.NonceWindow)
	}
	if bad {
		return e, true
	}
	n.last = max(n.last, c.nc)
	if d.NonceWindow > 0 {
		if n.seen == nil {
			n.seen = map[uint32]struct{}{}
		}
		n.seen[c.nc] = struct{}{}
		if len(n.seen) > 2*(d.NonceWindow+1) {
			for old := range n.seen {
				if int64(old) < int64(n.last)-int64(d.NonceWindow) {
					delete(n.seen, old)
				}
			}
		}
	}
	return e, false
}

// nextNonce returns the nonce that the answer names, or "". The caller holds d.mu.
func (d *Digest) nextNonce(current string, n *nonce) string {
	switch d.NextNonce {
	case NextNonceSame:
		return current
	case NextNonceNearEnd:
		fewUses := d.NonceUses > 0 && d.NonceUses-n.uses <= 1
		littleTime := d.NonceLifetime > 0 && d.NonceLifetime-time.Since(n.born) <= d.NonceLifetime/4
		if !fewUses && !littleTime {
			return ""
		}
	case NextNonceNever:
		return ""
	}
	value := rand.Text()
	d.nonces.put(value, &nonce{born: time.Now()})
	return value
}

// info returns the function that writes Authentication-Info (RFC 7616 §3.5).
func (d *Digest) info(c digestCredentials, a1, next string) func(http.Header, []byte) {
	return func(h http.Header, body []byte) {
		var params []string
		if next != "" {
			params = append(params, "nextnonce="+quote(next))
		}
		if c.qop != "" && d.Rspauth != RspauthMissing {
			method := ":" + c.uri
			if d.Rspauth == RspauthWrong {
				method = "wrong" + method
			}
			params = append(params, "qop="+c.qop, "rspauth="+quote(c.digest(a1, method, body)),
				"cnonce="+quote(c.cnonce), "nc="+c.ncText)
		}
		if params != nil {
			h.Set("Authentication-Info", strings.Join(params, ", "))
		}
	}
}

// holdBody reads the whole body and puts a copy in its place.
func (x *exchange) holdBody() ([]byte, error) {
	body, err := io.ReadAll(x.r.Body)
	x.r.Body = io.NopCloser(bytes.NewReader(body))
	return body, err
}

func isSess(algorithm string) bool { return strings.HasSuffix(strings.ToUpper(algorithm), "-SESS") }

// hex is H of RFC 7616 §3.4: the hash in lower-case hex.
func (c *digestCredentials) hex(data string) string {
	h := newHash(c.algorithm)()
	io.WriteString(h, data)
	return hex.EncodeToString(h.Sum(nil))
}

// a1 returns H(A1) (RFC 7616 §3.4.2).
func (c *digestCredentials) a1(username, password, cnonce string) string {
	a1 := c.hex(username + ":" + c.realm + ":" + password)
	if isSess(c.algorithm) {
		a1 = c.hex(a1 + ":" + c.nonce + ":" + cnonce)
	}
	return a1
}

// digest returns the request-digest, given H(A1), the beginning of A2, and the entity for auth-int (RFC 7616 §3.4.1).
func (c *digestCredentials) digest(a1, a2 string, entity []byte) string {
	if c.qop == "auth-int" {
		a2 += ":" + c.hex(string(entity))
	}
	if c.qop == "" {
		return c.hex(a1 + ":" + c.nonce + ":" + c.hex(a2))
	}
	return c.hex(strings.Join([]string{a1, c.nonce, c.ncText, c.cnonce, c.qop, c.hex(a2)}, ":"))
}

// readDigestCredentials reads the parameters, or says what is wrong with them.
func readDigestCredentials(text string) (c digestCredentials, reason string) {
	params, err := parseAuthParams(text)
	if err != nil {
		return c, err.Error()
	}
	fields := map[string]*string{
		"realm": &c.realm, "nonce": &c.nonce, "uri": &c.uri, "response": &c.response, "cnonce": &c.cnonce,
		"opaque": &c.opaque, "algorithm": &c.algorithm, "qop": &c.qop, "nc": &c.ncText, "username": &c.username,
	}
	seen := map[string]bool{}
	for _, p := range params {
		name := strings.ToLower(p.name)
		if seen[name] {
			return c, name + " is repeated"
		}
		seen[name] = true
		// RFC 7616 §3.4: "the quotation marks are required" for some and "MUST NOT" be there for others.
		switch name {
		case "username", "realm", "nonce", "uri", "response", "cnonce", "opaque":
			if !p.quoted {
				return c, name + " must be quoted (RFC 7616 §3.4)"
			}
		case "algorithm", "qop", "nc", "username*":
			if p.quoted {
				return c, name + " must not be quoted (RFC 7616 §3.4)"
			}
		}
		switch name {
		case "username*":
			if c.username, err = decodeExtValue(p.value); err != nil {
				return c, "username* is not an ext-value (RFC 8187 §3.2)"
			}
		case "userhash":
			if c.userhash = p.value == "true"; !c.userhash && p.value != "false" {
				return c, "userhash is neither true nor false (RFC 7616 §3.4)"
			}
		default:
			if field := fields[name]; field != nil {
				*field = p.value
			}
		}
	}
	for _, name := range []string{"realm", "nonce", "uri", "response"} {
		if !seen[name] {
			return c, name + " is missing"
		}
	}
	switch {
	case seen["username"] == seen["username*"]:
		return c, "there must be either username or username*"
	case seen["username*"] && c.userhash:
		return c, "username* must not be used with userhash (RFC 7616 §3.4)"
	case c.algorithm != "" && newHash(c.algorithm) == nil:
		return c, "the algorithm is not known"
	case c.qop == "" && seen["nc"]:
		return c, "nc without qop (RFC 7616 §3.4)"
	case c.qop != "" && c.cnonce == "":
		return c, "cnonce is missing"
	case seen["cnonce"] && c.cnonce == "":
		return c, "cnonce is empty"
	case c.qop != "":
		nc, err := strconv.ParseUint(c.ncText, 16, 32)
		if err != nil || len(c.ncText) != 8 || c.ncText != strings.ToLower(c.ncText) {
			return c, "nc is not eight lower-case hex digits"
		}
		if nc == 0 {
			return c, "nc is 00000000, and counting begins with 00000001 (RFC 7616 §3.4)"
		}
		c.nc = uint32(nc)
	}
	return c, ""
}

// decodeExtValue reads the charset, a language, and percent-encoded bytes (RFC 8187 §3.2).
func decodeExtValue(s string) (string, error) {
	charset, rest, _ := strings.Cut(s, "'")
	_, encoded, ok := strings.Cut(rest, "'")
	if !ok || !strings.EqualFold(charset, "UTF-8") || strings.ContainsAny(encoded, "*'") {
		return "", errParams
	}
	decoded, err := url.PathUnescape(encoded)
	if err == nil && !utf8.ValidString(decoded) {
		err = errParams
	}
	return decoded, err
}
