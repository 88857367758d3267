package authretry

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// modelSecret is in every password, key and token.
const modelSecret = "s3cr3t"

// A credential says for whom it is: for which account, for which origin (-1: any), and how new it is.
type credential struct {
	account string
	at      int // in modelURLs
	version int
}

func (c credential) String() string {
	return fmt.Sprintf("%s~%s~%d~%d", modelSecret, c.account, c.at, c.version)
}

func readCredential(s string) *credential {
	parts := strings.Split(s, "~")
	if len(parts) < 4 || parts[0] != modelSecret {
		return nil
	}
	at, _ := strconv.Atoi(parts[2])
	version, _ := strconv.Atoi(parts[3])
	return &credential{parts[1], at, version}
}

// check checks what is sent, and returns whose credentials are.
func (m *model) check(c *call, req *http.Request) (who *credential) {
	own := c.req.Header["Authorization"]
	scheme, value, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	values := slices.Concat(req.Header["Authorization"], req.Header["X-Api-Key"])
	switch {
	case own != nil:
	case scheme == "Basic":
		username, password, _ := req.BasicAuth()
		if who = readCredential(password); who != nil && username != "u-"+who.account {
			m.problem("a user name with another's password")
		}
	case scheme == "Digest":
		if who = m.checkDigest(c, req, req.Header.Get("Authorization")); who == nil {
			return nil
		}
	case scheme == "Bearer":
		who = readCredential(value)
	case len(req.Header["X-Api-Key"]) > 0:
		who = readCredential(req.Header.Get("X-Api-Key"))
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	if c.sends++; c.sends > 2 {
		m.problemLocked("a request was sent %d times", c.sends)
	}
	if c.returned {
		m.problemLocked("a request was sent after RoundTrip had returned")
	}
	if req.ContentLength != c.req.ContentLength {
		m.problemLocked("Content-Length %d became %d", c.req.ContentLength, req.ContentLength)
	}
	if own != nil {
		if !slices.Equal(own, req.Header["Authorization"]) {
			m.problemLocked("the caller's Authorization %q became %q", own, req.Header["Authorization"])
		}
		return nil
	}
	for _, v := range values {
		if slices.Contains(c.refused, v) {
			m.problemLocked("refused credentials were sent again: %s", scheme)
		}
	}
	if len(values) > 1 || len(values) == 1 && who == nil {
		m.problemLocked("odd credentials: %q", values)
	}
	if who == nil {
		return nil
	}
	at := modelAt(req)
	switch {
	case m.transport.Account != nil && c.account == "":
		m.problemLocked("credentials for nobody's request")
	case who.account != c.account:
		m.problemLocked("credentials of %q on a request of %q", who.account, c.account)
	case who.at >= 0 && modelURLs[who.at] != at:
		m.problemLocked("credentials for %s went to %s", modelURLs[who.at], at)
	case strings.HasPrefix(at, "http:") && scheme != "Digest" && !strings.HasPrefix(modelOrigin(req.URL), "http://127.") && !m.transport.AllowPlaintext:
		m.problemLocked("%s credentials went over http to %s", scheme, at)
	case m.transport.Origins != nil && (!slices.Contains(m.transport.Origins, at) || !slices.Contains(m.transport.Origins, modelOrigin(req.URL))):
		m.problemLocked("credentials went to %s, which is not listed", at)
	case who.version < c.floor && (scheme != "Bearer" || m.transport.Account != nil):
		m.problemLocked("credentials of before Forget: %d, and %d is the first that may be", who.version, c.floor)
	}
	for i, hop := range c.hops {
		upgrade := hop == "http://kit.test" && !slices.ContainsFunc(c.hops[i:], func(h string) bool { return h != hop && h != "https://kit.test" })
		if hop != at && !upgrade {
			m.problemLocked("credentials went to %s, after redirects %q", at, c.hops)
		}
	}
	return who
}

var authParams = regexp.MustCompile(`(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))`)

func readParams(header string) map[string]string {
	params := map[string]string{}
	for _, p := range authParams.FindAllStringSubmatch(header, -1) {
		params[p[1]] = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(p[2]) + p[3]
	}
	return params
}

func paramOf(header, name string) string { return readParams(header)[name] }

// checkDigest checks Digest credentials for all that a server could find wrong, and returns whose password made them.
func (m *model) checkDigest(c *call, req *http.Request, header string) *credential {
	p := readParams(header)
	at := modelAt(req)
	m.mu.Lock()
	if p["qop"] != "" {
		count, err := strconv.ParseInt(p["nc"], 16, 32)
		key := at + " " + p["nonce"]
		use := key + " " + p["nc"]
		if err != nil || count <= 0 || m.used[use] {
			m.problemLocked("nonce count %s of %q at %s was used before", p["nc"], p["nonce"], at)
		}
		if m.used[use] = true; m.workers == 1 && int(count) <= m.counts[key] {
			m.problemLocked("nonce count %d of %q came after %d", count, p["nonce"], m.counts[key])
		}
		m.counts[key] = max(m.counts[key], int(count))
	}
	newest := m.versions[c.account]
	m.mu.Unlock()
	if p["uri"] != req.URL.RequestURI() {
		m.problem("the digest is for %q, the request for %q", p["uri"], req.URL.RequestURI())
	}
	content := c.content
	if req.Body == nil || req.Body == http.NoBody {
		content = nil
	}
	hash := digestHash(p["algorithm"])
	p["body"] = hash(content)
	for _, account := range append([]string{c.account}, m.accounts...) {
		for index := range modelURLs {
			for version := newest + 2; version >= 0; version-- {
				who := credential{account, index, version}
				if p["username"] == "u-"+account && digestOf(req.Method, p, who, hash) == p["response"] {
					return &who
				}
			}
		}
	}
	m.problem("a digest is nobody's: %s", header)
	return nil
}

// digestOf computes the response of RFC 7616 §3.4.1.
func digestOf(method string, p map[string]string, who credential, hash func([]byte) string) string {
	join := func(parts ...string) string { return hash([]byte(strings.Join(parts, ":"))) }
	a1 := join(p["username"], p["realm"], who.String())
	if strings.HasSuffix(p["algorithm"], "-sess") {
		a1 = join(a1, p["nonce"], p["cnonce"])
	}
	switch p["qop"] {
	case "":
		return join(a1, p["nonce"], join(method, p["uri"]))
	case "auth-int":
		return join(a1, p["nonce"], p["nc"], p["cnonce"], "auth-int", join(method, p["uri"], p["body"]))
	}
	return join(a1, p["nonce"], p["nc"], p["cnonce"], p["qop"], join(method, p["uri"]))
}

func digestHash(algorithm string) func(b []byte) string {
	if strings.HasPrefix(algorithm, "SHA-256") {
		return func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	}
	return func(b []byte) string { s := md5.Sum(b); return hex.EncodeToString(s[:]) }
}
