package authtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/authretry/authretry/internal/quicktls"
)

// A Server is an HTTP server with protected paths. It is safe for concurrent use.
type Server struct {
	// URL is the server's origin, such as "http://127.0.0.1:41234".
	URL string

	http   *httptest.Server
	client *http.Client
	done   chan struct{} // closed by Close, so that no hanging answer outlives it
	once   sync.Once     // closes done

	mu       sync.Mutex // guards everything below, and the records that requests and tokens point to
	spaces   []space
	handlers []mount
	tokens   map[string]issuer          // by the path of the token endpoint
	routes   map[string]func(*exchange) // what an OAuth has besides, by path
	faults   []*injection
	keep     int
	requests []*Request
	grants   []*TokenRequest
	counts   Counts
	secrets  []string // headers with the credentials of any guard there was; replaced, never changed
}

// A Guard protects a path of a [Server]. It is a [*Basic], [*Digest], [*Bearer], [*DPoP], [*OAuth], [*Registry] or [*APIKey].
type Guard interface {
	// problem says why no server could have the Guard; "" if one can.
	problem() string

	// attach tells the Guard which server it is on.
	attach(s *Server)

	// check judges the credentials of a request.
	check(x *exchange) verdict

	// challenges returns what a refusal asks for, given the verdict of check.
	challenges(v verdict) []string

	// secretHeader returns the canonical name of the header that carries the credentials.
	secretHeader() string
}

// A verdict is what a Guard thinks of a request.
type verdict struct {
	decision Decision
	scheme   string
	reason   string
	code     string // a word for challenges: "stale", "invalid_token", "insufficient_scope"
	status   int    // of the refusal; 0 is 401
	scope    string // that is needed, for challenges

	info      func(h http.Header, body []byte) // sets the header of the answer, if not nil
	needsBody bool                             // info depends on the body of the answer
}

type space struct {
	path   string
	guards []Guard
}

type mount struct {
	path    string
	handler http.Handler
}

// keepRequests is how many records a Server keeps unless [Server.Keep] says otherwise.
const keepRequests = 1 << 17

// NewServer starts a server on a free port of the loopback interface that speaks HTTP/1.1. Every path is
// protected by the guards: a request that satisfies any one of them is accepted, and a refusal carries the
// challenges of all, in order. Without guards every path is open; [Server.Protect] protects some.
func NewServer(guards ...Guard) *Server {
	s := newServer(guards)
	s.http = httptest.NewUnstartedServer(s)
	return s.start("http", s.http.Start)
}

// NewTLSServer is like [NewServer] for HTTP/1.1 over TLS. [Server.Client] trusts its certificate, and so must whatever sends token
// requests: set TokenSource.HTTPClient, TokenEndpoint.HTTPClient, discover.Config.HTTPClient or registry.Scheme.HTTPClient to it.
func NewTLSServer(guards ...Guard) *Server {
	return newServer(guards).startTLS(false)
}

// NewHTTP2Server is like [NewServer] for HTTP/2 and HTTP/1.1 over TLS; [Server.Client] chooses HTTP/2.
func NewHTTP2Server(guards ...Guard) *Server {
	return newServer(guards).startTLS(true)
}

// startTLS has a certificate of its own, since httptest's, of RSA, takes much of the time of tests with many connections.
func (s *Server) startTLS(http2 bool) *Server {
	s.http = httptest.NewUnstartedServer(s)
	s.http.EnableHTTP2 = http2
	s.http.TLS = &tls.Config{Certificates: []tls.Certificate{quicktls.Certificate()}}
	return s.start("https", s.http.StartTLS)
}

// NewPipeServer is like [NewServer] without a socket: its connections are pipes in memory, which only
// [Server.Client] and [Server.Dial] reach. Call it inside a testing/synctest bubble, and the server lives by the
// bubble's clock. Its URL has a loopback address that nobody listens on.
func NewPipeServer(guards ...Guard) *Server {
	s := newServer(guards)
	l := newPipeListener()
	s.http = &httptest.Server{Listener: l, Config: &http.Server{Handler: s}}
	s.client = &http.Client{Transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return l.dial(ctx) },
		MaxIdleConnsPerHost: 1000, // so that many requests at once do not make a pipe each
	}}
	return s.start("http", s.http.Start)
}

func newServer(guards []Guard) *Server {
	s := &Server{done: make(chan struct{}), tokens: map[string]issuer{}, keep: keepRequests}
	s.Protect("/", guards...)
	return s
}

// start starts s.http. A request may come at once, if only from a program that has known the port as another's, so the URL is there before.
func (s *Server) start(scheme string, start func()) *Server {
	s.URL = scheme + "://" + s.http.Listener.Addr().String()
	start()
	if s.client == nil {
		s.client = s.http.Client()
	}
	return s
}

// Client returns a client that reaches the server and trusts its certificate. It is always the same one, knows
// no credentials, and is closed by [Server.Close]. Its Transport is the base for the transport under test. Token requests do not go by
// that: unless [NewServer] made the server, they need the client, too, as TokenSource.HTTPClient for instance.
func (s *Server) Client() *http.Client { return s.client }

// Dial connects to the server, whatever its kind: for a test that writes its own bytes to the wire, or needs an
// [http.Transport] of its own for a server from [NewPipeServer]. Of a TLS server it returns the bare connection.
func (s *Server) Dial(ctx context.Context) (net.Conn, error) {
	if l, ok := s.http.Listener.(*pipeListener); ok {
		return l.dial(ctx)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", s.http.Listener.Addr().String())
}

// Close shuts the server down: it ends the answers that are under way, closes all connections, and leaves no
// goroutine. The records can still be read.
func (s *Server) Close() {
	s.once.Do(func() { close(s.done) })
	s.client.CloseIdleConnections()
	s.http.CloseClientConnections()
	s.http.Close()
}

// Protect puts guards before the path and all paths below it, in place of those that were there. Of several
// protected paths that cover a request, the longest counts. Without guards the path is open. The token endpoint of
// a [Bearer] stays, also if its guard is replaced.
//
// It panics if the path is none, and if a guard is nil or cannot work: if no request could satisfy it, such as an [APIKey]
// without a key, a [Basic] with a colon in its user name, or a [Digest] with an unknown algorithm; if its settings
// contradict each other; if a [Bearer] is on two servers, or two have one token endpoint.
func (s *Server) Protect(path string, guards ...Guard) {
	mustBePath(path)
	for _, g := range guards {
		mustWork(g)
	}
	for _, g := range guards {
		g.attach(s)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = slices.Clone(s.secrets)
	s.secrets = append(s.secrets, guardHeaders(guards)...)
	slices.Sort(s.secrets)
	s.secrets = slices.Compact(s.secrets)
	for i := range s.spaces {
		if s.spaces[i].path == path {
			s.spaces[i].guards = guards
			return
		}
	}
	s.spaces = append(s.spaces, space{path, guards})
}

// Handle sets what answers the accepted requests at or below the path, in place of what did. The longest path
// counts; paths without a handler are answered by [Echo]. It panics if the path is none, or the handler is nil.
//
// The handler's ResponseWriter is a [http.Flusher] and a [http.Hijacker] where that of the server is. A connection that
// was hijacked has no Status in its [Request]. Under auth-int it is different, see [Digest].
func (s *Server) Handle(path string, handler http.Handler) {
	mustBePath(path)
	if isNil(handler) {
		panic("authtest: the handler for " + strconv.Quote(path) + " is nil: the usual one is http.HandlerFunc(authtest.Echo)")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.handlers {
		if s.handlers[i].path == path {
			s.handlers[i].handler = handler
			return
		}
	}
	s.handlers = append(s.handlers, mount{path, handler})
}

// The headers by which [Echo] says what arrived.
const (
	BodyLengthHeader = "Authtest-Body-Length"
	BodySHA256Header = "Authtest-Body-Sha256"
)

// Echo is what answers an accepted request unless [Server.Handle] says otherwise. It reads the whole body and
// answers 200 with the body's length and SHA-256 (in hex) in [BodyLengthHeader] and [BodySHA256Header], so that
// a client can check that the body arrived whole. If the body is cut short, it answers 400.
func Echo(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		http.Error(w, "authtest: the body was cut short", http.StatusBadRequest)
		return
	}
	w.Header().Set(BodyLengthHeader, strconv.FormatInt(n, 10))
	w.Header().Set(BodySHA256Header, hex.EncodeToString(sum.Sum(nil)))
	io.WriteString(w, "ok\n")
}

// Format writes the type and the URL, whatever the verb.
func (s *Server) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "authtest.Server(%s)", s.URL) }

// ServeHTTP answers a request as the server does, for a test that puts a handler of its own before it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := s.begin(w, r)
	defer x.finish()
	if x.issuer != nil {
		x.readTokenRequest()
	}
	if f := s.nextFault(x); f != nil {
		if !f.passes {
			x.decide(verdict{decision: Injected, reason: f.name})
		}
		f.serve(x)
	} else {
		x.proceed()
	}
	x.rw.end()
}

// An exchange is one request on its way through the server.
type exchange struct {
	s      *Server
	w      http.ResponseWriter
	rw     *recordedWriter // what w is made of
	r      *http.Request
	guards []Guard
	body   *recordedBody
	issuer issuer          // whose token endpoint is asked; nil for all other paths
	route  func(*exchange) // what else of an OAuth is asked; nil for all other paths
	form   url.Values      // of a token request; nil if the body is not a form
	rec    *Request        // guarded by s.mu
	grant  *TokenRequest   // guarded by s.mu; nil unless issuer is set
}

// begin records the request as it arrives.
func (s *Server) begin(w http.ResponseWriter, r *http.Request) *exchange {
	r = r.WithContext(r.Context()) // net/http looks at the Body of its own request to see if "100 Continue" was sent
	x := &exchange{s: s, r: r}
	x.rw = &recordedWriter{ResponseWriter: w, x: x}
	x.w = x.rw.forHandler()
	x.body = &recordedBody{ReadCloser: r.Body, sum: sha256.New(), eof: r.ContentLength == 0}
	r.Body = x.body

	s.mu.Lock()
	defer s.mu.Unlock()
	x.issuer = s.tokens[r.URL.Path]
	longest := -1
	for _, sp := range s.spaces {
		if len(sp.path) > longest && under(sp.path, r.URL.Path) {
			longest, x.guards = len(sp.path), sp.guards
		}
	}
	x.rec = &Request{
		Time: time.Now(), Method: r.Method, Path: r.URL.Path, Target: r.RequestURI, Host: r.Host,
		Proto: r.Proto, Conn: r.RemoteAddr, Header: r.Header.Clone(),
	}
	x.rec.secrets = s.secrets
	if x.issuer != nil {
		x.grant = &TokenRequest{Time: x.rec.Time, Path: r.URL.Path, Header: x.rec.Header}
		s.counts.TokenRequests++
		s.grants = appendBounded(s.grants, x.grant, s.keep)
		return x
	}
	s.requests = appendBounded(s.requests, x.rec, s.keep)
	if x.route = s.routes[r.URL.Path]; x.route != nil {
		s.counts.AuthRequests++
		return x
	}
	s.counts.Requests++
	return x
}

// finish completes the record with what arrived of the body.
func (x *exchange) finish() {
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.body.mu.Lock()
	defer x.body.mu.Unlock()
	x.rec.BodyLength = x.body.n
	x.rec.BodySHA256 = hex.EncodeToString(x.body.sum.Sum(nil))
	x.rec.BodyComplete = x.body.eof
}

// proceed answers the request as a server without faults does.
func (x *exchange) proceed() {
	if x.issuer != nil {
		x.decide(verdict{decision: Refused})
		x.issuer.serveToken(x)
		return
	}
	if x.route != nil {
		x.decide(verdict{decision: Accepted, reason: "not protected"})
		x.route(x)
		return
	}
	if name := x.repeatedHeader(); name != "" {
		x.decide(verdict{decision: Refused, reason: "more than one " + name + " header"})
		x.refuse(0, x.collect(nil))
		return
	}
	var verdicts []verdict
	best := verdict{decision: Challenged}
	if x.r.Header.Get("Authorization") != "" {
		best.reason = "the Authorization header is of another scheme"
	}
	if len(x.guards) == 0 {
		best = verdict{decision: Accepted, reason: "not protected"}
	}
	for _, g := range x.guards {
		v := g.check(x)
		verdicts = append(verdicts, v)
		if v.decision == Accepted {
			best = v
			break
		}
		if v.decision == Refused && best.decision == Challenged {
			best = v
		}
	}
	x.decide(best)
	if best.decision == Accepted {
		x.accept(best)
		return
	}
	x.refuse(best.status, x.collect(verdicts))
}

// repeatedHeader returns the name of a header that the guards look for credentials in and that is there twice, or "":
// which of the two counts would be for chance to decide (RFC 9110 §5.3).
func (x *exchange) repeatedHeader() string {
	if len(x.guards) == 0 {
		return ""
	}
	for _, name := range append([]string{"Authorization"}, guardHeaders(x.guards)...) {
		if len(x.r.Header[name]) > 1 {
			return name
		}
	}
	return ""
}

func guardHeaders(guards []Guard) (names []string) {
	for _, g := range guards {
		names = append(names, g.secretHeader())
	}
	return names
}

// collect returns the challenges of all guards; a guard without a verdict asks as it asks a newcomer.
func (x *exchange) collect(verdicts []verdict) []string {
	var values []string
	for i, g := range x.guards {
		v := verdict{decision: Challenged}
		if i < len(verdicts) {
			v = verdicts[i]
		}
		values = append(values, g.challenges(v)...)
	}
	return values
}

// decide records the decision.
func (x *exchange) decide(v verdict) {
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.rec.Decision, x.rec.Scheme, x.rec.Reason = v.decision, v.scheme, v.reason
	if x.grant != nil {
		x.grant.Decision = v.decision
		return
	}
	if x.route != nil {
		return
	}
	switch v.decision {
	case Accepted:
		x.s.counts.Accepted++
	case Challenged:
		x.s.counts.Challenged++
	case Refused:
		x.s.counts.Refused++
	case Injected:
		x.s.counts.Injected++
	}
}

// accept lets the handler answer.
func (x *exchange) accept(v verdict) {
	handler := x.s.handler(x.r.URL.Path)
	switch {
	case v.info == nil:
		handler.ServeHTTP(x.w, x.r)
	case !v.needsBody:
		v.info(x.w.Header(), nil)
		handler.ServeHTTP(x.w, x.r)
	default:
		held := httptest.NewRecorder()
		handler.ServeHTTP(held, x.r)
		body := held.Body.Bytes()
		if x.r.Method == http.MethodHead {
			body = nil
		}
		for name, values := range held.Result().Header {
			x.w.Header()[name] = values
		}
		v.info(x.w.Header(), body)
		x.w.WriteHeader(held.Code)
		x.w.Write(body)
	}
}

// refuse answers with the challenges.
func (x *exchange) refuse(status int, challenges []string) {
	if status == 0 {
		status = http.StatusUnauthorized
	}
	unread := false
	for _, f := range x.s.refusalFaults(x) {
		if f.rewrite != nil {
			challenges = f.rewrite(challenges)
		}
		unread = unread || f.unread
	}
	h := x.w.Header()
	for _, value := range challenges {
		h.Add("Www-Authenticate", value)
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	const text = "authtest: refused\n"
	if unread && x.r.ProtoMajor < 2 {
		x.answerAndClose(status, text)
		return
	}
	// A body that waits for "100 Continue" is not asked for. HTTP/2 keeps its connection without the body.
	if x.r.ProtoMajor < 2 && !strings.EqualFold(x.r.Header.Get("Expect"), "100-continue") {
		io.Copy(io.Discard, x.r.Body)
	}
	x.w.WriteHeader(status)
	io.WriteString(x.w, text)
}

// answerAndClose sends a whole answer over HTTP/1.1 and closes the connection without reading the request's body.
func (x *exchange) answerAndClose(status int, text string) {
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	defer conn.Close()
	h := x.w.Header()
	h.Set("Connection", "close")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	x.answered(status)
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	h.Write(&b)
	b.WriteString("\r\n" + text)
	io.WriteString(conn, b.String())
}

// answered records the answer that is about to be sent.
func (x *exchange) answered(status int) {
	x.finish()
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.rec.Status = status
	x.rec.ResponseHeader = x.w.Header().Clone()
	if x.grant != nil {
		x.grant.Status = status
	}
}

func (s *Server) handler(path string) http.Handler {
	s.mu.Lock()
	defer s.mu.Unlock()
	handler, longest := http.Handler(http.HandlerFunc(Echo)), -1
	for _, m := range s.handlers {
		if len(m.path) > longest && under(m.path, path) {
			longest, handler = len(m.path), m.handler
		}
	}
	return handler
}

// under reports whether path is base or below it.
func under(base, path string) bool {
	base = strings.TrimSuffix(base, "/")
	rest, ok := strings.CutPrefix(path, base)
	return ok && (rest == "" || rest[0] == '/' || base == "")
}

// A pipeListener accepts the connections that dial makes.
type pipeListener struct {
	addr  pipeAddr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	var ip [3]byte
	rand.Read(ip[:])
	addr := pipeAddr(fmt.Sprintf("127.%d.%d.%d:1", ip[0], ip[1], 1+ip[2]%254))
	return &pipeListener{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- pipeConn{server, pipeAddr("pipe-" + rand.Text()[:8])}:
		return client, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Addr: l.addr, Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "pipe", Addr: l.addr, Err: ctx.Err()}
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return l.addr }

// A pipeConn is the server's end of a pipe, with an address that tells it from the others.
type pipeConn struct {
	net.Conn
	remote pipeAddr
}

func (c pipeConn) RemoteAddr() net.Addr { return c.remote }

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }
