package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// A model is a world of servers, accounts and credentials with one Transport in it.
type model struct {
	t         *testing.T
	script    *script
	transport *Transport
	client    *http.Client
	workers   int
	accounts  []string
	listens   bool
	kinds     []int // of what guards each origin
	qop       string
	algorithm string
	nonceUses int

	mu       sync.Mutex // guards what follows, never over a wait
	problems []string
	versions map[string]int // of the credentials of each account
	floor    map[string]int // below which no request that begins now may have any
	calls    map[string]int // of RoundTrip
	fetches  map[string]int
	bodies   []*modelBody
	answers  []*modelAnswer
	nonces   map[string]int // how often each origin's nonce has been used
	counts   map[string]int // the last count of each origin's nonce
	used     map[string]bool
	made     int // nonces
}

// Kinds of guard.
const (
	guardNone = iota
	guardBasic
	guardDigest
	guardBearer
	guardKey
	guards
)

// The URLs that clients and redirects address. Two are one origin, and two look as if they were.
var modelURLs = []string{
	"https://kit.test", "https://b.test", "http://127.0.0.1:8080", "http://plain.test", "https://kit.test:8443",
	"https://KIT.test", "https://\u212Ait.test", "http://kit.test",
}

// modelOrigin returns the origin of u in the words of the model, not of the Transport: ASCII case folded, no default port.
func modelOrigin(u *url.URL) string {
	host := strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, u.Host)
	return u.Scheme + "://" + host
}

// modelAt returns the origin at which a request arrives: over plain http it may go by a proxy, for all that is known, which goes by Host.
func modelAt(req *http.Request) string {
	u := *req.URL
	if u.Scheme == "http" && req.Host != "" && !strings.HasPrefix(u.Host, "127.") {
		u.Host = req.Host
	}
	return modelOrigin(&u)
}

func newModel(t *testing.T, data []byte) *model {
	s := &script{data: data}
	world := s.cut(worldBytes)
	m := &model{t: t, script: s, accounts: []string{""}, versions: map[string]int{}, floor: map[string]int{},
		calls: map[string]int{}, fetches: map[string]int{}, nonces: map[string]int{}, counts: map[string]int{}, used: map[string]bool{}}
	m.workers = pickOf(world, 1, 1, 2, 4)
	m.qop = pickOf(world, "auth", "auth-int", "", "auth,auth-int")
	m.algorithm = pickOf(world, "MD5", "SHA-256", "MD5-sess", "SHA-256-sess")
	if m.qop == "" {
		m.algorithm = strings.TrimSuffix(m.algorithm, "-sess")
	}
	m.nonceUses = pickOf(world, 1000, 1, 3)
	for range modelURLs {
		m.kinds = append(m.kinds, world.pick(guards))
	}
	m.transport = &Transport{Base: roundTripFunc(m.wire), ReplayLimit: pickOf[int64](world, 0, -1, 64, 1000), AllowPlaintext: world.rarely()}
	switch choice := world.pick(12); {
	case choice%3 == 1:
		m.transport.Origins = []string{"https://kit.test", "http://127.0.0.1:8080"}
		fallthrough
	case choice%3 == 2:
		m.accounts = []string{"ann", "ben", ""}
		m.transport.Account = func(req *http.Request) string { return req.Header.Get("X-Account") }
	}
	choice := world.pick(64)
	m.setSchemes(choice)
	if m.listens = choice%2 == 0; m.listens {
		m.transport.OnEvent = m.event
	}
	m.client = &http.Client{Transport: roundTripFunc(m.roundTrip)}
	return m
}

func (m *model) setSchemes(choice int) {
	ask := func(ctx context.Context, r CredentialsRequest) (string, string, error) {
		secret, err := m.ask(ctx, r)
		return "u-" + r.Account, secret, err
	}
	bearer := &Bearer{StepUp: choice&2 != 0, NotAhead: choice&4 != 0}
	if m.transport.Account == nil {
		bearer.Source = m.source("")
	} else {
		bearer.Sources = func(_ context.Context, account string) (oauth2.TokenSource, error) { return m.source(account), nil }
	}
	key := &APIKey{Header: "X-Api-Key", KeyFunc: m.ask}
	basic := &Basic{Credentials: ask, Ahead: choice&8 != 0}
	digest := &Digest{Credentials: ask}
	switch choice >> 4 {
	case 0:
		m.transport.Schemes = []Scheme{digest, basic}
	case 1:
		m.transport.Schemes = []Scheme{bearer}
	case 2:
		m.transport.Schemes = []Scheme{digest, bearer, basic}
	case 3:
		m.transport.Schemes = []Scheme{key, digest}
	}
}

// source returns a source of tokens as of a new login.
func (m *model) source(account string) *TokenSource {
	return &TokenSource{Fetch: func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
		m.mu.Lock()
		m.fetches[account]++
		n, version := m.fetches[account], m.versions[account]
		m.mu.Unlock()
		if n%3 == 2 && !pause(ctx, 7*tick) {
			return nil, ctx.Err()
		}
		if n%5 == 4 {
			return nil, errors.New("the token endpoint is out of order")
		}
		token := &oauth2.Token{AccessToken: credential{account, -1, version}.String() + "~" + strconv.Itoa(n)}
		if n%2 == 1 {
			token.Expiry = time.Now().Add(20 * time.Second)
		}
		return token, nil
	}}
}

// ask is the store of passwords and keys.
func (m *model) ask(ctx context.Context, r CredentialsRequest) (string, error) {
	m.mu.Lock()
	version := m.versions[r.Account]
	m.mu.Unlock()
	if version%3 == 1 && !pause(ctx, 3*tick) {
		return "", context.Cause(ctx)
	}
	at := slices.Index(modelURLs, r.Origin)
	if at < 0 {
		m.problem("credentials are asked for an origin that there is not: %s", r.Origin)
	}
	return credential{r.Account, at, version}.String(), nil
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (m *model) pickOrigin(s *script) string { return pickOf(s, modelURLs...) }

// wire is the Base: it does what an http.Transport may do, with the servers behind it.
func (m *model) wire(req *http.Request) (*http.Response, error) {
	c := orderIn(req.Context()).current
	ctx := req.Context()
	who := m.check(c, req)
	if ctx.Err() != nil { // as http.Transport does: whoever waited for a turn may come here with a context that has ended
		m.mu.Lock()
		c.byCause = true
		m.mu.Unlock()
		closeBody(req)
		return nil, context.Cause(ctx)
	}
	trace := httptrace.ContextClientTrace(ctx)
	u := &upload{c: c, req: req, began: time.Now(), allowed: make(chan struct{}), done: make(chan struct{})}
	u.gated = req.Header.Get("Expect") != "" && c.req.Header.Get("Expect") == ""
	answer := sync.OnceFunc(func() { close(u.allowed) })
	defer answer()
	if trace != nil && trace.WroteHeaders != nil {
		trace.WroteHeaders()
	}
	manner := c.pick(12)
	if u.gated && manner&1 == 0 && trace != nil && trace.Got100Continue != nil {
		answer()
		trace.Got100Continue()
	}
	reads := true // the answer comes after the body
	if req.Body != nil && req.Body != http.NoBody {
		most := 1 << 30
		if manner >= 8 {
			reads = false
			if manner >= 10 {
				most = 30
			}
		}
		u.start(most, manner >= 4 && manner < 8, manner/6*10)
	} else {
		close(u.done)
		if c.req.Body != nil && c.req.Body != http.NoBody {
			m.problem("a request was sent without its body")
		}
	}
	canceled := func() (*http.Response, error) {
		m.mu.Lock()
		c.byCause = true
		m.mu.Unlock()
		if req.Body != nil {
			go u.giveUp()
		}
		return nil, context.Cause(ctx)
	}
	what := c.pick(24)
	reset := func(text string) (*http.Response, error) {
		m.mu.Lock()
		c.reset = time.Now()
		m.mu.Unlock()
		return nil, errors.New(text)
	}
	if what == 20 {
		return reset("connection reset")
	}
	if reads {
		select {
		case <-u.done:
			if u.err != nil {
				return nil, u.err
			}
		case <-ctx.Done():
			return canceled()
		}
	}
	if what == 21 {
		return reset("connection reset after the body")
	}
	if delay := pickOf[time.Duration](c.script, 0, 0, 0, 0, 0, 1, 30, 70_000); delay > 0 && !pause(ctx, delay*tick) {
		return canceled()
	}
	if ctx.Err() != nil {
		return canceled()
	}
	return m.answer(c, req, what, who), nil
}

// answer is what a server says.
func (m *model) answer(c *call, req *http.Request, what int, who *credential) *http.Response {
	resp := &http.Response{StatusCode: 200, Header: http.Header{}, Request: req, ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1}
	switch what {
	case 12, 13, 14:
		resp.StatusCode = 401
		for range c.pick(4) {
			resp.Header.Add("WWW-Authenticate", pickOf(c.script, m.challenge(req), m.challenge(req), `Basic realm="x"`,
				`Digest realm="x", nonce="same", qop="auth"`, `Digest realm="x", nonce="same", qop="auth-int"`, `Digest realm="y", nonce="same", stale=true`,
				`Bearer error="insufficient_scope", scope="a b"`, `Bearer error="invalid_token"`, `Digest nonce=, realm="\`, `=;,`, `Digest realm="x", nonce="\"q\""`))
		}
	case 15:
		resp.StatusCode = 403
		if c.pick(2) == 1 {
			resp.Header.Set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="a b"`)
		}
	case 16:
		resp.StatusCode = pickOf(c.script, 417, 407, 413, 500)
		resp.Header.Set("Proxy-Authenticate", `Basic realm="x"`)
	case 17, 18, 19:
		resp.StatusCode = pickOf(c.script, 307, 308, 302, 303)
		resp.Header.Set("Location", m.pickOrigin(c.script)+"/r")
	default:
		m.honest(resp, req, who)
	}
	a := &modelAnswer{status: resp.StatusCode, end: req.Context().Done(), closed: make(chan struct{}), rest: modelContent[:pickOf(c.script, 10, 0, 5000, 100_000)]}
	a.delay = tick * pickOf[time.Duration](c.script, 0, 0, 0, 1, 50)
	resp.Body = a
	m.mu.Lock()
	m.answers = append(m.answers, a)
	if resp.StatusCode == 401 {
		for _, name := range []string{"Authorization", "X-Api-Key"} {
			c.refused = append(c.refused, req.Header[name]...)
		}
	}
	m.mu.Unlock()
	return resp
}

// guardOf returns what guards the origin of req.
func (m *model) guardOf(req *http.Request) int {
	at := slices.Index(modelURLs, modelAt(req))
	return m.kinds[max(at, 0)]
}

// honest lets in who has the right credentials.
func (m *model) honest(resp *http.Response, req *http.Request, who *credential) {
	guard := m.guardOf(req)
	ok := guard == guardNone
	if who != nil {
		kind, _, _ := strings.Cut(req.Header.Get("Authorization"), " ")
		kinds := []string{"", "Basic", "Digest", "Bearer", ""}
		m.mu.Lock()
		ok = ok || kind == kinds[guard] && who.version == m.versions[who.account]
		m.mu.Unlock()
	}
	if guard == guardDigest && ok {
		n := m.nonceAt(req)
		ok = paramOf(req.Header.Get("Authorization"), "nonce") == n
		m.mu.Lock()
		if m.nonces[n]++; m.nonces[n] >= m.nonceUses {
			delete(m.nonces, modelAt(req))
		}
		made := m.made
		m.mu.Unlock()
		if made%2 == 1 && m.nonceUses > 1 {
			resp.Header.Set("Authentication-Info", `nextnonce="`+m.nonceAt(req)+`"`)
		}
	}
	if !ok {
		resp.StatusCode = 401
		if challenge := m.challenge(req); challenge != "" {
			resp.Header.Set("WWW-Authenticate", challenge)
		}
	}
}

// nonceAt returns the current nonce of an origin.
func (m *model) nonceAt(req *http.Request) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := modelAt(req)
	if m.nonces[o] == 0 {
		m.made++
		m.nonces[o] = m.made
	}
	return fmt.Sprintf("n%d", m.nonces[o])
}

// challenge is what the guard of an origin asks for.
func (m *model) challenge(req *http.Request) string {
	switch m.guardOf(req) {
	case guardBasic:
		return `Basic realm="x"`
	case guardDigest:
		c := `Digest realm="x", nonce="` + m.nonceAt(req) + `", algorithm=` + m.algorithm
		if m.qop != "" {
			c += `, qop="` + m.qop + `"`
		}
		if n := paramOf(req.Header.Get("Authorization"), "nonce"); n != "" && n != m.nonceAt(req) {
			c += ", stale=true"
		}
		return c
	case guardBearer:
		return `Bearer realm="x", error="invalid_token"`
	}
	return ""
}
