package login

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxQuery   = 16 << 10 // bytes of an answer
	maxHeader  = 64 << 10 // bytes, cookies of other programs on this machine among them
	headerWait = 10 * time.Second
)

// A receiver is where the answer of the authorization server arrives: a server on a loopback address, for one login.
type receiver struct {
	redirectURI string
	host        string // of the redirect URI, as browsers write it
	port        string
	path        string // of the redirect URI
	last        string // of the last page; nobody can guess it
	listeners   []net.Listener

	server   *http.Server
	matches  func(url.Values) bool
	page     func(w http.ResponseWriter, err error)
	answered chan url.Values // gets the first answer

	mu    sync.Mutex // guards what follows
	first string     // the query of the first answer
	shown net.Conn   // by which the last page goes

	over      chan struct{} // closed when err is there
	err       error         // how it went
	delivered chan struct{} // closed when the last page has been sent
	once      sync.Once     // for delivered
}

// defaultRedirectURIs are what RFC 8252 §7.3 has native programs use.
var defaultRedirectURIs = []string{"http://127.0.0.1/callback", "http://[::1]/callback"}

// listen begins to listen for the first redirect URI for which that is possible.
func listen(uris []string) (*receiver, error) {
	if len(uris) == 0 {
		uris = defaultRedirectURIs
	}
	var parsed []*url.URL
	for _, uri := range uris { // a mistake in any is one
		u, err := url.Parse(uri)
		if err != nil || u.Scheme != "http" || addressesOf(u.Hostname()) == nil || u.User != nil || strings.ContainsAny(uri, "?#") {
			return nil, errRedirectURI
		}
		if u.Port() == "0" { // as net.Listen has it
			u.Host = strings.TrimSuffix(u.Host, ":0")
		}
		parsed = append(parsed, u)
	}
	var failed error
	for _, u := range parsed {
		r, err := listenAt(u)
		if err == nil {
			return r, nil
		}
		failed = err
	}
	return nil, fmt.Errorf("login: the answer could not be received; is another login under way, or the port taken? %w", failed)
}

var errRedirectURI = errors.New(`login: Browser.RedirectURIs has one that is not as "http://127.0.0.1/callback": ` +
	`http, to 127.0.0.1, [::1] or localhost, without query`)

// addressesOf returns where to listen for a host: the first of them is needed, the others if they can be had, so that nobody else
// gets what is meant for us. It is nil if the host is none for a redirect URI.
func addressesOf(host string) []string {
	switch strings.ToLower(host) {
	case "127.0.0.1", "::1":
		return []string{host}
	case "localhost":
		return []string{"127.0.0.1", "::1"}
	}
	return nil
}

func listenAt(u *url.URL) (*receiver, error) {
	r := &receiver{path: u.EscapedPath(), port: u.Port(), answered: make(chan url.Values, 1),
		over: make(chan struct{}), delivered: make(chan struct{})}
	if r.path == "" {
		r.path = "/"
	}
	r.last = strings.TrimSuffix(r.path, "/") + "/" + rand.Text()
	var err error
	if r.listeners, err = listenOn(addressesOf(u.Hostname()), r.port, net.Listen); err != nil {
		return nil, err
	}
	_, r.port, _ = net.SplitHostPort(r.listeners[0].Addr().String())
	r.host = strings.ToLower(u.Host)
	if u.Port() == "" {
		r.host = strings.TrimSuffix(r.host, ":") + ":" + r.port
	}
	r.redirectURI = "http://" + r.host + u.EscapedPath()
	r.host = strings.TrimSuffix(r.host, ":80")
	return r, nil
}

type listenFunc = func(network, address string) (net.Listener, error)

// listenOn listens at a port of all the addresses. If the port is "", it is one that is free at all of them: what is free at the first
// may be taken at the next, if only by a connection.
func listenOn(addresses []string, port string, listen listenFunc) (listeners []net.Listener, err error) {
	const tries = 8
	for range tries {
		if listeners, err = listenOnce(addresses, port, listen); err == nil || port != "" {
			break
		}
	}
	return listeners, err
}

// listenOnce does so once. But for the first, an address that this machine does not have is left out.
func listenOnce(addresses []string, port string, listen listenFunc) (listeners []net.Listener, err error) {
	port = cmp.Or(port, "0")
	for i, address := range addresses {
		l, err := listen("tcp", net.JoinHostPort(address, port))
		if err != nil && (i == 0 || has(address)) {
			for _, l := range listeners {
				l.Close()
			}
			return nil, err
		}
		if err == nil {
			listeners = append(listeners, l)
			_, port, _ = net.SplitHostPort(l.Addr().String())
		}
	}
	return listeners, nil
}

// has reports whether this machine has an address.
func has(address string) bool {
	all, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(all, func(a net.Addr) bool { return strings.HasPrefix(a.String(), address+"/") })
}

// serve begins to answer requests.
func (r *receiver) serve(matches func(url.Values) bool, page func(w http.ResponseWriter, err error)) {
	r.matches, r.page = matches, page
	if r.page == nil {
		r.page = closingPage
	}
	r.server = &http.Server{
		Handler:           r,
		ReadHeaderTimeout: headerWait,
		ReadTimeout:       headerWait,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(io.Discard, "", 0),
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ConnState:         r.connState,
	}
	r.server.SetKeepAlivesEnabled(false)
	for _, l := range r.listeners {
		go r.server.Serve(l)
	}
}

type connKey struct{}

// ServeHTTP implements http.Handler. Whatever is not the answer to this login, or its last page, gets a 404.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	secure(w.Header())
	switch {
	case req.Method != http.MethodGet || !strings.EqualFold(req.Host, r.host):
		notFound(w)
	case req.URL.EscapedPath() == r.path && r.receive(req):
		w.Header().Set("Location", r.last) // so that the code leaves the address bar and the history
		w.WriteHeader(http.StatusSeeOther)
	case req.URL.EscapedPath() == r.last:
		r.showLast(w, req)
	default:
		notFound(w)
	}
}

// receive reports whether a request to the redirect URI has this login's answer. The first one counts; a browser may repeat it.
func (r *receiver) receive(req *http.Request) bool {
	query, err := url.ParseQuery(req.URL.RawQuery)
	if err != nil || len(req.URL.RawQuery) > maxQuery || !r.matches(query) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.first == "" {
		r.first = req.URL.RawQuery
		r.answered <- query
	}
	return r.first == req.URL.RawQuery
}

// showLast shows the last page, as soon as it is known how it went.
func (r *receiver) showLast(w http.ResponseWriter, req *http.Request) {
	select {
	case <-r.over:
	case <-req.Context().Done():
		return
	}
	conn, _ := req.Context().Value(connKey{}).(net.Conn)
	r.mu.Lock()
	r.shown = conn
	r.mu.Unlock()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	r.page(w, r.err)
}

// connState notices that the last page has gone out: its connection is closed then.
func (r *receiver) connState(c net.Conn, state http.ConnState) {
	if state != http.StateClosed {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shown == c {
		r.once.Do(func() { close(r.delivered) })
	}
}

// finish has the last page say how it went, and waits for the browser to fetch it.
func (r *receiver) finish(ctx context.Context, err error) {
	r.err = err
	close(r.over)
	select {
	case <-r.delivered:
	case <-ctx.Done():
	}
}

// Close ends it. The port is free when it returns.
func (r *receiver) Close() error {
	for _, l := range r.listeners {
		l.Close()
	}
	if r.server != nil {
		r.server.Close()
	}
	return nil
}

// explain fills the port into a hint.
func (r *receiver) explain(hint string) string { return strings.ReplaceAll(hint, "PORT", r.port) }
