package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"time"

	"github.com/authretry/authretry"
	names "github.com/authretry/authretry/internal/guarded"
	"github.com/authretry/authretry/login"
	"golang.org/x/oauth2"
)

// An asker asks the question.
type asker struct {
	base *http.Transport
	now  func() time.Time
	flow login.Flow // of -login; nil: login.Auto
	out  io.Writer  // where a person reads what to do for -login
}

// dial opens a connection as the transport does.
func (a *asker) dial(ctx context.Context, address string) (net.Conn, error) {
	if a.base.DialContext != nil {
		return a.base.DialContext(ctx, "tcp", address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

// dialNamed returns what opens a connection to a server that another has named. Where its name leads is seen before anything is sent.
func (in *inquiry) dialNamed(m manner) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, address string) (net.Conn, error) {
		conn, err := in.asker.dial(ctx, address)
		if err != nil {
			return nil, err
		}
		if err := m.policy.CheckAddress(m.url.Hostname(), conn.RemoteAddr().String()); err != nil {
			conn.Close()
			return nil, err
		}
		return conn, nil
	}
}

// mostBody is how much of the last response's body is looked at.
const mostBody = 64 << 10

// An inquiry is one question and what has been found out about it, for the causes to be found in.
type inquiry struct {
	question
	attempt
	asker    *asker
	report   *report
	schemes  []authretry.Scheme
	proxies  func(*http.Request) (*url.URL, error)
	rejected *authretry.Rejection // why there are no credentials, or why they were refused
	now      time.Time            // when the last response came
	trial    *loginTrial          // of -login; nil: it was not given
	words    string               // what words are looked for in: the body, in lower case, without secrets that are no ordinary words
	disguise *cause               // why a response is a refusal that does not look like one; nil: it is none
	trials   trials
	pasted   bool // there was no question: it is about what somebody has pasted
	cut      bool // a header was too long to be looked at to its end
}

// An attempt is what came of asking once.
type attempt struct {
	resp        *http.Response // the last one; nil if there is none
	body        string         // its beginning, as text
	unread      string         // how the body is compressed, if that cannot be undone
	odd         string         // the Content-Encoding, if the body is in another
	hops        []hop
	err         error
	certificate *tls.CertificateRequestInfo // what the server said when it asked for a client certificate; nil if it did not
	remote      string                      // the address of who was asked last
	stage       stage                       // how far the last request came
	slow        bool                        // a body was not read to its end, since that took too long
}

// A manner is how the question is asked. The zero value is that of an ordinary program.
type manner struct {
	trial     string // what is different, in words
	http1     bool
	clear2    bool // HTTP/2 without TLS
	agent     bool // with the User-Agent of another program
	noCookies bool
	latin1    bool          // user name and password are sent in ISO 8859-1
	url       *url.URL      // another than was asked for, which a server has named
	policy    *names.Policy // which addresses may be dialled for it
	password  bool          // send Basic at once
	token     string        // in place of what was given
	header    string        // Authorization, in place of what was given
	bare      bool          // without credentials, and without headers given with -H that may be some
}

// otherAgent is a User-Agent that most servers let in.
const otherAgent = "curl/8.14.1"

// asked returns the URL that was asked last.
func (in *inquiry) asked() *url.URL {
	for _, h := range slices.Backward(in.hops) {
		if !h.connect {
			return h.req.URL
		}
	}
	return in.url
}

// ask asks the question and reports.
func (a *asker) ask(ctx context.Context, q question) *report {
	if q.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, q.timeout)
		defer cancel()
	}
	in := &inquiry{question: q, asker: a, report: &report{URL: q.clean.url(q.url)}}
	if q.login.wanted {
		in.trial = in.startLogin()
	}
	in.attempt = in.send(ctx, manner{})
	in.overHTTP1(ctx)
	in.withNonce(ctx)
	in.now = a.now()
	in.fill(ctx)
	return in.report
}

// send asks once, with all the redirects and retries of a program.
func (in *inquiry) send(ctx context.Context, m manner) (at attempt) {
	recorder := &recorder{trial: m.trial}
	recorder.base = in.transport(recorder, m)
	client := in.client(recorder, m)
	defer client.CloseIdleConnections()

	body := in.payload()
	if m.url != nil { // for which it was not given
		body = nil
	}
	req, err := http.NewRequestWithContext(ctx, in.method, "", body)
	if err != nil {
		panic(err) // the method has been checked
	}
	req.URL, req.Header = in.url, in.headerFor(m)
	if m.url != nil {
		req.URL = m.url
	}
	if m.agent {
		req.Header.Set("User-Agent", otherAgent)
	}
	if req.Header.Get("Accept-Encoding") == "" {
		req.Header.Set("Accept-Encoding", "gzip") // as http.Transport does by itself
	}
	req.Host = req.Header.Get("Host") // the URL's if empty
	at.resp, at.err = client.Do(req)
	if at.resp != nil {
		if at.err == nil {
			at.body, at.unread, at.odd = readBody(at.resp)
		}
		at.resp.Body.Close()
	}
	at.hops, at.certificate = recorder.done()
	at.stage, at.slow, at.remote = recorder.progress()
	return at
}

// client returns the client that a program would have, over the recorder.
func (in *inquiry) client(recorder http.RoundTripper, m manner) *http.Client {
	in.schemes = in.schemesFor(m)
	client := &http.Client{Transport: recorder, CheckRedirect: in.checkRedirect}
	if m.url != nil { // package registry follows no redirects of a token service, either
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	if !m.noCookies {
		client.Jar, _ = cookiejar.New(nil)
	}
	if in.schemes != nil {
		t := authretry.New(in.schemes...)
		t.Base, t.Jar, t.AllowPlaintext = recorder, client.Jar, in.allowPlaintext
		client.Transport = t
	}
	return client
}

// headerFor returns the headers to send of those given with -H.
func (in *inquiry) headerFor(m manner) http.Header {
	header := in.header.Clone()
	for name := range in.header {
		if m.bare && !harmless[http.CanonicalHeaderKey(name)] {
			header.Del(name)
		}
	}
	if m.header != "" {
		header.Set("Authorization", m.header)
	}
	return header
}

func (in *inquiry) schemesFor(m manner) (list []authretry.Scheme) {
	if m.bare || m.header != "" {
		return nil
	}
	bearer := func(token string) authretry.Scheme {
		return &authretry.Bearer{Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: token})}
	}
	if m.token != "" {
		return []authretry.Scheme{bearer(m.token)}
	}
	if in.token != "" {
		list = append(list, bearer(in.token))
	}
	if in.trial != nil {
		list = append(list, loginScheme{"Bearer", in.trial}, loginScheme{"DPoP", in.trial})
	}
	if in.user.given {
		name, password := in.user.name, in.user.password
		if m.latin1 {
			name, password = inLatin1(name), inLatin1(password)
		}
		list = append(list, &authretry.Digest{Username: name, Password: password},
			&authretry.Basic{Username: name, Password: password, Ahead: in.ahead || m.password})
	}
	return list
}

var (
	errTooManyRedirects = errors.New("stopped after 10 redirects")
	errBodyElsewhere    = errors.New("a redirect leads to another origin, to which the body is not sent")
)

// checkRedirect keeps what was given with -H, and with -data, from another origin, as authretry does with its credentials: http.Client
// by itself removes Authorization and Cookie there, but no header with an API key, and it sends the body again (307, 308).
func (in *inquiry) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errTooManyRedirects
	}
	if left(append(via, req)) {
		if req.Body != nil {
			return errBodyElsewhere
		}
		for name := range in.header {
			if !harmless[http.CanonicalHeaderKey(name)] {
				req.Header.Del(name)
			}
		}
	}
	return nil
}

// left reports whether redirects have left the origin of the first request. From http to https of the same host
// is not leaving.
func left(hops []*http.Request) bool {
	if len(hops) == 0 { // no more than a CONNECT was sent
		return false
	}
	at := hops[0].URL
	for _, hop := range hops[1:] {
		upgrade := at.Scheme == "http" && hop.URL.Scheme == "https" && portOf(at) == "80" && portOf(hop.URL) == "443" &&
			isSameHost(at, hop.URL)
		if !upgrade && !sameOrigin(at, hop.URL) {
			return true
		}
		at = hop.URL
	}
	return false
}

// transport returns what sends requests by the proxy, if there is one, and has the recorder told of each CONNECT.
func (in *inquiry) transport(r *recorder, m manner) http.RoundTripper {
	t := in.asker.base.Clone()
	if in.proxy != nil {
		t.Proxy = http.ProxyURL(in.proxy)
	}
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = &tls.Config{}
	}
	if m.http1 {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP1(true)
		t.TLSClientConfig.NextProtos = nil // what the other one has put there
	}
	if m.clear2 {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	if m.policy != nil && in.proxyFor(m.url) == nil {
		t.DialContext = in.dialNamed(m)
	}
	t.DisableCompression = true // readBody reads also what is not compressed as it says
	t.TLSHandshakeTimeout = handshakeTime
	t.TLSClientConfig.GetClientCertificate = r.asksForCertificate
	t.OnProxyConnectResponse = r.connected
	in.proxies = t.Proxy
	if !in.proxyUser.given {
		return t
	}
	p := authretry.NewProxyTransport(t,
		&authretry.Digest{Username: in.proxyUser.name, Password: in.proxyUser.password},
		&authretry.Basic{Username: in.proxyUser.name, Password: in.proxyUser.password})
	p.AllowPlaintext = in.allowPlaintext
	p.OnEvent = r.event
	return p
}
