package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/authretry/authretry"
)

// A hop is one request on the wire.
type hop struct {
	req  *http.Request
	resp *http.Response // its body is not to be read
	err  error
	sent string // the kind of credentials that it carried

	trial   string // how it was asked again; empty: it was not
	connect bool   // it is a CONNECT, to a proxy
	proxy   string // the kind of credentials that it carried for a proxy
}

// closed reports whether h is a CONNECT that has opened no tunnel.
func (h hop) closed() bool { return h.connect && h.resp.StatusCode != http.StatusOK }

// A recorder notes what goes over the wire below the Transport.
type recorder struct {
	base  http.RoundTripper
	trial string

	mu          sync.Mutex // guards what follows
	hops        []hop
	plain       *http.Request // the request that is on its way over plain http
	proxy       string        // the kind of credentials that the next request, or CONNECT, has for the proxy
	certificate *tls.CertificateRequestInfo
	remote      string // the address of who was asked last
	stage       stage  // of the last request
	slow        bool   // a body was not read to its end
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "http" {
		r.mu.Lock()
		r.plain = req
		r.mu.Unlock()
	}
	resp, err := r.watch(req)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plain = nil
	if n := len(r.hops); err != nil && n > 0 && r.hops[n-1].closed() {
		return resp, err // there was no tunnel to send it through
	}
	r.add(hop{req: req, resp: resp, err: err, sent: kindOf(req.Header.Get("Authorization"))})
	return resp, err
}

// connected is an http.Transport's OnProxyConnectResponse.
func (r *recorder) connected(_ context.Context, _ *url.URL, req *http.Request, resp *http.Response) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(hop{req: req, resp: resp, connect: true})
	return nil // http.Transport fails by itself if there is no tunnel
}

// asksForCertificate is a tls.Config's GetClientCertificate.
func (r *recorder) asksForCertificate(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.certificate = info
	return &tls.Certificate{}, nil // none
}

// add notes a hop. The recorder is locked.
func (r *recorder) add(h hop) {
	h.proxy, r.proxy = r.proxy, ""
	h.trial = r.trial
	r.hops = append(r.hops, h)
}

// event is a ProxyTransport's OnEvent. What a proxy answers to a request over plain http, and the ProxyTransport answers in
// turn, is seen by no RoundTripper, so it is made of what the event says.
func (r *recorder) event(_ context.Context, e authretry.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case e.Kind == authretry.EventAuthorized:
		r.proxy = e.Scheme
	case e.Kind == authretry.EventChallenged && e.Attempt == 1 && r.plain != nil:
		resp := &http.Response{StatusCode: e.Status, Status: fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status)), Header: http.Header{}}
		for scheme := range strings.SplitSeq(e.Scheme, ", ") {
			resp.Header.Add("Proxy-Authenticate", fmt.Sprintf("%s realm=%q", scheme, e.Realm))
		}
		r.add(hop{req: r.plain, resp: resp, sent: kindOf(r.plain.Header.Get("Authorization"))})
	}
}

func (r *recorder) CloseIdleConnections() {
	if c, ok := r.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// progress returns how far the last request has come, whether a body has taken too long, and the address of who was asked.
func (r *recorder) progress() (s stage, slow bool, remote string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stage, r.slow, r.remote
}

func (r *recorder) done() ([]hop, *tls.CertificateRequestInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.hops), r.certificate
}

// unreadable is what kindOf returns for what has no scheme.
const unreadable = "unreadable"

// kindOf returns the scheme of an Authorization header, if it looks like one.
func kindOf(authorization string) string {
	scheme, _, ok := strings.Cut(authorization, " ")
	_, alone := schemeNamed(authorization)
	switch {
	case authorization == "":
		return ""
	case alone:
		return authorization
	case !ok || len(scheme) > 30:
		return unreadable
	}
	return scheme
}
