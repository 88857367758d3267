package authretry

import (
	"context"
	"crypto/fips140"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// Digest is the Digest scheme (RFC 7616), with which a client proves that it knows a password without sending it.
// Servers of RFC 2617 and RFC 2069 are answered too.
//
// It knows the algorithms MD5, SHA-256 and SHA-512-256 with their -sess forms, the qop values auth and auth-int
// (auth where there is a choice), and userhash. User name and password are hashed as the bytes they are:
// RFC 7616 §4 wants UTF-8, in normalization form C.
//
// Digest protects the password on the way, but nothing else of a request: prefer https, where it is to be had.
//
// A Digest must not be changed once it is in use. It is safe for concurrent use.
type Digest struct {
	// Username must not have control characters in it. One outside ASCII is sent as username* to a server that
	// announces charset=UTF-8, and as it is to others (RFC 7616 §3.4).
	Username string
	Password string

	// Credentials, if not nil, is called instead, once for each challenge that is answered.
	Credentials CredentialsFunc

	// RequireMutualAuth fails a request, with an error wrapping ErrMutualAuth, if the response does not prove that the
	// server knows the password as well (rspauth, RFC 7616 §3.5). It must then offer qop=auth: other challenges
	// are not answered. A server that does not ask for credentials is not checked. If false, a wrong or missing
	// rspauth is no more than an [Unverified] event.
	RequireMutualAuth bool

	// MinAlgorithm is the weakest algorithm that is answered: "MD5", "SHA-256" or "SHA-512-256", each with its
	// -sess form. If empty it is MD5, since most servers know nothing else. An attacker who can change a
	// challenge can otherwise ask for the weakest (RFC 7616 §5.11).
	MinAlgorithm string

	cnonce func() string // for tests; nil: crypto/rand
}

// ErrMutualAuth means that [Digest.RequireMutualAuth] is set, and that the response did not prove that the server
// knows the password.
var ErrMutualAuth = errors.New("authretry: the server did not prove that it knows the password")

// Name returns "Digest".
func (d *Digest) Name() string { return "Digest" }

// PlaintextSafe returns true: what Digest sends does not carry the password.
func (d *Digest) PlaintextSafe() bool { return true }

// Answer returns a [Session] for the nonce of challenge c. It never returns [ErrCredentialsRefused]: a server that
// wants nonce counts in order refuses good credentials too, and not all of them say stale=true.
//
// A user name that cannot be sent in a header fails the request, since no challenge would change that.
func (d *Digest) Answer(ctx context.Context, c *Challenge, rejected *http.Request) (Session, error) {
	if d == nil {
		return nil, errors.New("authretry: a nil *Digest has no credentials")
	}
	weakest := algorithmMD5
	if d.MinAlgorithm != "" {
		var ok bool
		if weakest, _, ok = digestAlgorithmNamed(d.MinAlgorithm); !ok {
			return nil, fmt.Errorf("authretry: Digest.MinAlgorithm %q is none of MD5, SHA-256, SHA-512-256", d.MinAlgorithm)
		}
	}
	offer, err := readDigestChallenge(c)
	if err != nil {
		return nil, err
	}
	if offer.algorithm < weakest {
		return nil, unsupportedDigest("its algorithm is weaker than Digest.MinAlgorithm")
	}
	if d.RequireMutualAuth && offer.qop != qopAuth {
		// Without qop nothing in the server's proof is fresh, and that of auth-int is not checked.
		return nil, unsupportedDigest("Digest.RequireMutualAuth is set, and qop=auth is not offered")
	}
	username, password, err := d.credentials(ctx, originOf(rejected.URL).String(), c)
	if err != nil {
		return nil, err
	}

	cnonce := d.cnonce
	if cnonce == nil {
		cnonce = rand.Text
	}
	s := newDigestSession(offer, username, password, cnonce())
	s.mutual = d.RequireMutualAuth
	if rejected.Method != http.MethodConnect { // a proxy's space is all of the proxy (RFC 7616 §3.3)
		s.space = readDigestDomain(c.Params.Get("domain"), rejected.URL)
	}
	return s, nil
}

// credentials returns a user name that is fit for a header, and the password.
func (d *Digest) credentials(ctx context.Context, origin string, c *Challenge) (username, password string, err error) {
	username, password = d.Username, d.Password
	if d.Credentials != nil {
		username, password, err = d.Credentials(ctx, origin, c)
		if err != nil {
			return "", "", fmt.Errorf("authretry: no Digest credentials for %s: %w", origin, err)
		}
	}
	if username == "" {
		return "", "", fmt.Errorf("authretry: no Digest user name for %s: set Digest.Username or Digest.Credentials", origin)
	}
	if hasControl(username) || strings.Contains(username, "\t") {
		return "", "", fmt.Errorf("authretry: the Digest user name for %s has a control character in it", origin)
	}
	return username, password, nil
}

// Format writes d without its password, whatever the verb.
func (d Digest) Format(f fmt.State, verb rune) { formatShown(f, "authretry.Digest", d.shown()...) }

// MarshalJSON returns d without its password.
func (d Digest) MarshalJSON() ([]byte, error) { return marshalShown(d.shown()...) }

func (d Digest) shown() []shownField {
	return []shownField{
		shown("Username", d.Username),
		redacted("Password", d.Password),
		shown("RequireMutualAuth", d.RequireMutualAuth),
		shown("MinAlgorithm", d.MinAlgorithm),
	}
}

// A digestOffer is what a challenge asks for, once it is known that it can be answered.
type digestOffer struct {
	realm, nonce, opaque string
	hasOpaque            bool
	algorithmSent        string // as the server wrote it; empty if it did not
	algorithm            digestAlgorithm
	sess                 bool
	qop                  digestQOP
	utf8                 bool // charset=UTF-8
	userhash             bool
}

// maxDigestText is the most bytes of a challenge's text that a session keeps and sends back. Servers seldom take
// more in a header.
const maxDigestText = 16 << 10

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
	o.utf8 = equalFoldASCII(c.Params.Get("charset"), "UTF-8")
	o.userhash = equalFoldASCII(c.Params.Get("userhash"), "true")
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

// A digestSession is a nonce and the credentials for its realm. It is lent to one request at a time: so its nonce
// count rises in order, and it needs no lock.
//
// One cnonce serves the whole session. It keeps the server from having tables made in advance for the nonce it chose
// (RFC 7616 §5.8), for which it need only be unpredictable; the nonce count makes each response differ; and the
// -sess algorithms demand the same cnonce for as long as the nonce lasts (RFC 7616 §3.4.2).
//
// Sessions are kept by the thousand, so what they keep is small: text that is the same for each request, made once.
type digestSession struct {
	algorithm digestAlgorithm
	qop       digestQOP
	sess      bool
	mutual    bool // Digest.RequireMutualAuth
	nc        uint32

	realm  string
	nonce  string
	cnonce string
	key    string // H(username ":" realm ":" password)
	ha1    string // H(A1), which is key unless sess

	head string // of the header's value, up to the nonce
	tail string // of the header's value, after the response

	uri   string       // of the request that is out, for rspauth
	space *digestSpace // nil: the whole origin
}

// newDigestSession returns the session that answers o. It holds on to nothing of o: its strings may be parts of
// a large header.
func newDigestSession(o *digestOffer, username, password, cnonce string) *digestSession {
	s := &digestSession{
		algorithm: o.algorithm,
		qop:       o.qop,
		sess:      o.sess,
		realm:     strings.Clone(o.realm),
		cnonce:    cnonce,
		key:       o.algorithm.hex(username, o.realm, password),
	}

	// RFC 7616 §3.4 says which values are quoted and which must not be.
	switch {
	case o.userhash: // in the header only: A1 has the plain name (RFC 7616 §3.4.4)
		s.head = `Digest username="` + o.algorithm.hex(username, o.realm) + `"`
	case o.utf8 && !isASCII(username) && utf8.ValidString(username):
		s.head = "Digest username*=UTF-8''" + encodeExtValue(username)
	default:
		s.head = `Digest username="` + escapeQuoted(username) + `"`
	}
	s.head += `, realm="` + escapeQuoted(o.realm) + `", nonce="`
	s.setNonce(o.nonce)

	s.tail = `"`
	if o.qop != qopNone {
		s.tail += `, cnonce="` + escapeQuoted(cnonce) + `", qop=` + o.qop.String()
	}
	if o.hasOpaque {
		s.tail += `, opaque="` + escapeQuoted(o.opaque) + `"`
	}
	if o.algorithmSent != "" {
		s.tail += ", algorithm=" + o.algorithmSent
	}
	if o.userhash {
		s.tail += ", userhash=true"
	}
	return s
}

// setNonce begins to use a nonce, of which it keeps a copy.
func (s *digestSession) setNonce(nonce string) {
	s.nonce = strings.Clone(nonce)
	s.nc = 0
	s.ha1 = s.key
	if s.sess {
		s.ha1 = s.algorithm.hex(s.key, s.nonce, s.cnonce)
	}
}

// Exclusive marks the session as lent to one request at a time.
func (s *digestSession) Exclusive() {}

// Authorize sets the Authorization header of req, with the next nonce count.
func (s *digestSession) Authorize(req *http.Request) error {
	uri := digestURI(req)
	if hasControl(uri) {
		return errors.New("authretry: the request's URL has a control character in it")
	}
	method := req.Method
	if method == "" {
		method = http.MethodGet
	}
	var buf [320]byte // enough for most; append goes elsewhere with the rest
	a2 := append(buf[:0], method...)
	a2 = append(a2, ':')
	a2 = append(a2, uri...)
	if s.qop == qopAuthInt {
		sum, err := s.hashBody(req)
		if err != nil {
			return err
		}
		a2 = append(a2, ':')
		a2 = append(a2, sum...)
	}
	s.uri = uri
	s.nc++ // after 2³² requests it is 0, which a server refuses as a replay, with a new nonce
	response := s.response(buf[:0], a2)

	var value string
	nonce := escapeQuoted(s.nonce)
	if uri = escapeQuoted(uri); s.qop == qopNone {
		value = s.head + nonce + `", uri="` + uri + `", response="` + string(response) + s.tail
	} else {
		var nc [8]byte
		appendNonceCount(nc[:0], s.nc)
		value = s.head + nonce + `", uri="` + uri + `", nc=` + string(nc[:]) + `, response="` + string(response) + s.tail
	}
	req.Header["Authorization"] = []string{value}
	return nil
}

// response returns the response for A2 (RFC 7616 §3.4.1), or the rspauth for its A2. It works in scratch, in which a2
// may be, and returns a part of it.
func (s *digestSession) response(scratch, a2 []byte) []byte {
	var sum [maxDigestHex]byte
	ha2 := s.algorithm.appendHex(sum[:0], a2)
	b := append(scratch[:0], s.ha1...)
	b = append(b, ':')
	b = append(b, s.nonce...)
	b = append(b, ':')
	if s.qop != qopNone {
		b = appendNonceCount(b, s.nc)
		b = append(b, ':')
		b = append(b, s.cnonce...)
		b = append(b, ':')
		b = append(b, s.qop.String()...)
		b = append(b, ':')
	}
	b = append(b, ha2...)
	return s.algorithm.appendHex(b[:0], b)
}

// hashBody returns the hash of a copy of req's body, for auth-int.
func (s *digestSession) hashBody(req *http.Request) ([]byte, error) {
	h := s.algorithm.newHash()
	if req.Body != nil && req.Body != http.NoBody {
		if req.GetBody == nil {
			return nil, fmt.Errorf("authretry: the server wants the body hashed (Digest qop=auth-int): %w", errBodyNotReplayable)
		}
		body, err := req.GetBody()
		if err != nil {
			return nil, fmt.Errorf("authretry: getting the body for Digest qop=auth-int: %w", err)
		}
		defer body.Close()
		if _, err := io.Copy(h, contextReader{req.Context(), body}); err != nil {
			return nil, fmt.Errorf("authretry: hashing the body for Digest qop=auth-int: %w", err)
		}
	}
	return hex.AppendEncode(nil, h.Sum(nil)), nil
}

// A contextReader reads until its context is done.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Learn obeys the response's Authentication-Info: it checks rspauth, if that matters to anybody, and goes on with
// nextnonce.
func (s *digestSession) Learn(resp *http.Response) error {
	info := readAuthInfo(resp.Header["Authentication-Info"])
	if err := s.checkServer(resp.Request, info.rspauth); err != nil {
		return err
	}
	s.uri = ""
	// A server may name the nonce in use again: then the count goes on. One that cannot be sent is left alone; at
	// worst the server refuses the old one, and gives another.
	if n := info.nextnonce; n != "" && n != s.nonce && len(n) <= maxDigestText && !hasControl(n) {
		s.setNonce(n)
	}
	return nil
}

// checkServer compares rspauth with what a server that knows H(A1) sends (RFC 7616 §3.5). If they differ it tells
// the listener; it returns an error only if mutual authentication is required.
//
// The rspauth of auth-int is not checked: it covers the response's body, and servers get that wrong.
func (s *digestSession) checkServer(req *http.Request, rspauth string) error {
	ctx, origin := context.Background(), "the server"
	if req != nil {
		ctx = req.Context()
	}
	listen := listener(ctx)
	if s.qop == qopAuthInt || listen == nil && !s.mutual {
		return nil
	}
	if subtle.ConstantTimeCompare(s.response(nil, []byte(":"+s.uri)), []byte(rspauth)) == 1 {
		return nil
	}
	if req != nil && req.URL != nil {
		origin = originOf(req.URL).String()
	}
	err := fmt.Errorf("%w: the rspauth of %s, realm %q, is wrong", ErrMutualAuth, origin, s.realm)
	if rspauth == "" {
		err = fmt.Errorf("%w: %s, realm %q, sent no rspauth", ErrMutualAuth, origin, s.realm)
	}
	if listen != nil {
		listen(ctx, Event{Kind: Unverified, Origin: origin, Scheme: "Digest", Realm: s.realm, Err: err})
	}
	if s.mutual {
		return err
	}
	return nil
}

// Covers reports whether u is in the session's protection space. It may be called while the session is lent, since a
// session's space never changes.
func (s *digestSession) Covers(u *url.URL) bool { return s.space == nil || s.space.covers(u) }

// Format writes s without its keys, whatever the verb.
func (s digestSession) Format(f fmt.State, verb rune) {
	formatShown(f, "authretry.digestSession", shown("realm", s.realm), shown("nc", int(s.nc)))
}

// A digestSpace is a protection space that a challenge's domain parameter limits to a part of the origin.
type digestSpace struct {
	challenged string   // the path that was challenged, which is in the space whatever domain says
	prefixes   []string // of request URIs
}

// readDigestDomain returns the space that domain describes (RFC 7616 §3.3), or nil for the whole origin of the URL that
// was challenged. URIs of other origins are left out: nothing but that origin gets to see this session.
func readDigestDomain(domain string, challenged *url.URL) *digestSpace {
	var prefixes []string
	for uri := range strings.FieldsSeq(domain) {
		u, err := url.Parse(uri)
		if err != nil {
			continue
		}
		absolutePath := u.Scheme == "" && u.Host == "" && strings.HasPrefix(u.Path, "/")
		if absolutePath || u.Scheme != "" && originOf(u) == originOf(challenged) {
			prefixes = append(prefixes, strings.Clone(u.RequestURI()))
		}
	}
	if prefixes == nil {
		return nil
	}
	return &digestSpace{challenged: challenged.EscapedPath(), prefixes: prefixes}
}

func (d *digestSpace) covers(u *url.URL) bool {
	uri := u.RequestURI()
	for _, prefix := range d.prefixes {
		if strings.HasPrefix(uri, prefix) {
			return true
		}
	}
	return u.EscapedPath() == d.challenged
}

// digestURI returns the request-target as the origin sees it (RFC 7616 §3.4.6), which through a forward proxy is path
// and query all the same; for CONNECT, host and port.
func digestURI(req *http.Request) string {
	if req.Method != http.MethodConnect || req.URL.Path != "" {
		return req.URL.RequestURI()
	}
	switch {
	case req.URL.Opaque != "":
		return req.URL.Opaque
	case req.Host != "":
		return req.Host
	default:
		return req.URL.Host
	}
}

// An authInfo is what we use of Authentication-Info (RFC 7616 §3.5): its qop, cnonce and nc are those of the request,
// or else rspauth is wrong.
type authInfo struct {
	nextnonce string
	rspauth   string
}

// readAuthInfo reads Authentication-Info as far as it makes sense. The first parameter of a name counts.
func readAuthInfo(lines []string) authInfo {
	var info authInfo
	var hasNextnonce, hasRspauth bool
	for _, rest := range lines {
		for rest != "" {
			var name, value string
			name, value, rest = consumeAuthInfoParam(rest)
			switch {
			case !hasNextnonce && equalFoldASCII(name, "nextnonce"):
				info.nextnonce, hasNextnonce = unescape(value), true
			case !hasRspauth && equalFoldASCII(name, "rspauth"):
				info.rspauth, hasRspauth = unescape(value), true
			}
		}
	}
	return info
}

// consumeAuthInfoParam returns the first auth-param of s, with its value unquoted but not unescaped, and what follows the
// comma after it. The value is empty if there is none, or if its closing quote is missing.
func consumeAuthInfoParam(s string) (name, value, rest string) {
	name, rest = consumeToken(skipSpace(s))
	rest, ok := consumeEquals(rest)
	switch {
	case !ok:
	case strings.HasPrefix(rest, `"`):
		value, rest = cutQuoted(rest[1:])
	default:
		value, rest = consumeUnquoted(rest)
	}
	_, rest, _ = strings.Cut(rest, ",")
	return name, value, rest
}

// cutQuoted returns s up to a quote that is not escaped, and what follows it.
func cutQuoted(s string) (value, rest string) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return s[:i], s[i+1:]
		}
	}
	return "", ""
}

// unescape returns s without the backslashes of its quoted-pairs (RFC 9110 §5.6.4).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

// escapeQuoted returns s as it is written between quotes (RFC 9110 §5.6.4).
func escapeQuoted(s string) string {
	if strings.IndexByte(s, '"') < 0 && strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s)+8)
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return string(b)
}

// encodeExtValue returns s with all but the attr-chars of RFC 8187 §3.2.1 percent-encoded.
func encodeExtValue(s string) string {
	const hexDigits = "0123456789ABCDEF"
	b := make([]byte, 0, 3*len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$&+-.^_`|~", c) >= 0 {
			b = append(b, c)
		} else {
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&0xf])
		}
	}
	return string(b)
}

// appendNonceCount appends nc as eight hexadecimal digits.
func appendNonceCount(dst []byte, nc uint32) []byte {
	for shift := 28; shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789abcdef"[nc>>shift&0xf])
	}
	return dst
}

// hasControl reports whether s has a control character in it other than a tab: it must not get into a header.
func hasControl(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
