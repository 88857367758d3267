package authretry

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// A digestSession is a nonce and the credentials for its realm. It is lent to one request at a time: so its requests
// arrive in the order of their nonce counts, and it needs no lock. Other sessions may be using the same nonce: what
// must be the same for all of them is in its nonceUse.
//
// The cnonce keeps the server from having tables made in advance for the nonce it chose (RFC 7616 §5.8), for which it
// need only be unpredictable; the nonce count makes each response differ. So one serves the whole session.
//
// Sessions are kept by the thousand, so what they keep is small: text that is the same for each request, made once.
type digestSession struct {
	algorithm  digestAlgorithm
	qop        digestQOP
	sess       bool
	userhash   bool
	mutual     bool   // Digest.RequireMutualAuth
	hidden     bool   // see hideRealm
	forgotten  bool   // see refusedHint
	noPassword bool   // see refusedHint
	who        uint32 // a hash of the credentials, not 0
	nc         uint32 // of the request that is out
	realmAt    uint32 // where the realm is in head

	nonces *nonces
	origin uint64 // a hash of the origin, as nonces wants it
	use    *nonceUse

	nonce []byte // its memory serves one nonce after the other
	key   string // H(username ":" realm ":" password)
	ha1   string // H(A1), which is key unless sess

	head string // of the header's value, up to the nonce
	tail string // of the header's value, after the response

	uri   string       // of the request that is out, for rspauth
	space *digestSpace // nil: the whole origin
}

// newDigestSession returns the session that answers o for an origin. It holds on to nothing of o: its strings may be
// parts of a large header.
func newDigestSession(n *nonces, origin string, o *digestOffer, username, password, cnonce string) *digestSession {
	s := &digestSession{
		algorithm: o.algorithm,
		sess:      o.sess,
		userhash:  o.userhash,
		nonces:    n,
		origin:    n.hash(0, []byte(origin)),
		key:       o.algorithm.hex(username, o.realm, password),
	}
	s.noPassword = password == ""
	s.who = uint32(n.hash(1, []byte(s.key))) | 1

	// RFC 7616 §3.4 says which values are quoted and which must not be. The order of the parameters is curl's, which is
	// what embedded servers were tested with. A name outside ASCII is not sent as username*: no server is known to need
	// that, and there are some that refuse it.
	name := username
	if o.userhash { // in the header only: A1 has the plain name (RFC 7616 §3.4.4)
		name = o.algorithm.hex(username, o.realm)
	}
	s.head = `Digest username="` + escapeQuoted(name) + `", realm="`
	s.realmAt = uint32(len(s.head))
	s.head += escapeQuoted(o.realm) + beforeNonce
	s.goOn(o, cnonce)
	return s
}

// goOn begins to use what may differ from one challenge of a realm to the next.
func (s *digestSession) goOn(o *digestOffer, cnonce string) {
	s.qop = o.qop
	s.tail = `"`
	if o.hasOpaque {
		s.tail += `, opaque="` + escapeQuoted(o.opaque) + `"`
	}
	if o.algorithmSent != "" {
		s.tail += ", algorithm=" + o.algorithmSent
	}
	if o.userhash {
		s.tail += ", userhash=true"
	}
	s.setNonce(o.nonce, cnonce)
}

const beforeNonce = `", nonce="`

// realm returns the realm as it was before it was quoted.
func (s *digestSession) realm() string {
	return unescape(strings.TrimSuffix(s.head[s.realmAt:], beforeNonce))
}

// hideRealm says that the server repeats in the realm what is secret, so that nobody else gets to see that.
func (s *digestSession) hideRealm() { s.hidden = true }

// shownRealm returns the realm as others may see it.
func (s *digestSession) shownRealm() string {
	if s.hidden {
		return ""
	}
	return s.realm()
}

// setNonce begins to use a nonce, of which it keeps a copy; with that cnonce, unless the nonce has one already.
func (s *digestSession) setNonce(nonce, cnonce string) {
	s.nonce = append(s.nonce[:0], nonce...)
	s.use = s.nonces.of(s.origin, s.nonce, cnonce)
	s.ha1 = s.key
	if s.sess {
		s.ha1 = s.algorithm.hex(s.key, nonce, s.use.cnonce)
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
	s.nc = s.nonces.next(s.use, s.origin, s.nonce)
	response := s.response(buf[:0], a2)

	var value string
	nonce := s.nonce
	if bytes.IndexByte(nonce, '"') >= 0 || bytes.IndexByte(nonce, '\\') >= 0 {
		nonce = []byte(escapeQuoted(string(nonce)))
	}
	if uri = escapeQuoted(uri); s.qop == qopNone {
		value = s.head + string(nonce) + `", uri="` + uri + `", response="` + string(response) + s.tail
	} else {
		var nc [8]byte
		appendNonceCount(nc[:0], s.nc)
		value = s.head + string(nonce) + `", uri="` + uri + `", cnonce="` + s.use.cnonce + `", nc=` + string(nc[:]) +
			`, qop=` + s.qop.String() + `, response="` + string(response) + s.tail
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
		b = append(b, s.use.cnonce...)
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
			return nil, errBodyNotHashable
		}
		body, err := req.GetBody()
		if errors.Is(err, errBodyNotReplayable) {
			return nil, errBodyNotHashable
		}
		if err != nil {
			return nil, fmt.Errorf("authretry: getting the body for Digest qop=auth-int: %w", err)
		}
		ctx := req.Context()
		shut := sync.OnceFunc(func() { body.Close() })
		defer shut()
		defer context.AfterFunc(ctx, func() { // or a Read that blocks would hold up the request for ever
			defer func() { _ = recover() }() // there is no caller here whom a panic would reach
			shut()
		})()
		if _, err := io.Copy(h, contextReader{ctx, body}); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
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

// size returns how many bytes the session takes, and its share of what is known of nonces.
func (s *digestSession) size() int {
	n := 320 + cap(s.nonce) + len(s.head) + len(s.tail)
	if s.space != nil {
		n += 64 + len(s.space.challenged)
		for _, prefix := range s.space.prefixes {
			n += 16 + len(prefix)
		}
	}
	return n
}

// Covers reports whether u is in the session's protection space. It may be called while the session is lent, since a
// session's space never changes.
func (s *digestSession) Covers(u *url.URL) bool { return s.space == nil || s.space.covers(u) }

// Format writes s without its keys, whatever the verb.
func (s digestSession) Format(f fmt.State, verb rune) {
	formatShown(f, "authretry.digestSession", shown("realm", s.shownRealm()), shown("nc", int(s.nc)))
}

// digestURI returns the request-target as the origin sees it (RFC 7616 §3.4.6), which through a forward proxy is path
// and query nevertheless; for CONNECT, host and port.
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

// appendNonceCount appends nc as eight hexadecimal digits.
func appendNonceCount(dst []byte, nc uint32) []byte {
	for shift := 28; shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789abcdef"[nc>>shift&0xf])
	}
	return dst
}

// A digestSpace is a protection space that a challenge's domain parameter limits to a part of the origin.
type digestSpace struct {
	challenged string   // the path that was challenged, which is in the space whatever domain says; "" if it is too long
	prefixes   []string // of request URIs
}

// maxDomain is how many URIs of a domain parameter count.
const maxDomain = 64

// readDigestDomain returns the space that domain describes (RFC 7616 §3.3), or nil for the whole origin of the URL that
// was challenged. URIs of other origins are left out: nothing but that origin gets to see this session.
func readDigestDomain(domain string, challenged *url.URL) *digestSpace {
	var prefixes []string
	for uri := range strings.FieldsSeq(domain) {
		if len(prefixes) == maxDomain {
			break // the rest is challenged each time
		}
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
	s := &digestSpace{prefixes: prefixes}
	if path := challenged.EscapedPath(); len(path) <= maxScope {
		s.challenged = strings.Clone(path)
	}
	return s
}

func (d *digestSpace) covers(u *url.URL) bool {
	uri := u.RequestURI()
	for _, prefix := range d.prefixes {
		if strings.HasPrefix(uri, prefix) {
			return true
		}
	}
	return d.challenged != "" && u.EscapedPath() == d.challenged
}
