package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// tunnel sends a request for an https URL. If that takes a CONNECT, and the proxy refuses it, it is answered once. The
// body has not been read by then, but may have been closed.
func (x *proxyExchange) tunnel() (*http.Response, error) {
	defer x.takeBody(-1)()
	req := x.req.WithContext(x.ctx)
	x.body.first(req)
	resp, err := x.send(req, &proxySend{x: x})
	refusal, refused := errors.AsType[*connectRefusal](err)
	if !refused {
		return x.end(resp, err, lease{})
	}
	x.ahead = refusal.lease
	second, err := x.secondConnect(refusal)
	if err == nil {
		req = x.req.WithContext(x.ctx)
		if err = x.body.replay(req); err != nil {
			err = &standing{body: err}
		}
	}
	if err != nil {
		x.body.abandon()
		return nil, x.failConnect(refusal, err)
	}
	resp, err = x.send(req, second)
	if unused := second.takeAnswer(); unused.Session != nil {
		x.keep(unused) // another request's connection was free by then
	}
	again, refused := errors.AsType[*connectRefusal](err)
	switch {
	case refused:
		refusal, x.answer = again, again.lease
		x.learnRefusal(http.MethodConnect, refusal.header, refusal.sent)
	case err == errRefusedBefore:
		x.attempts = 1
	default:
		return x.end(resp, err, lease{})
	}
	x.body.abandon()
	return nil, x.failConnect(refusal, &standing{refused: ErrCredentialsRefused})
}

// secondConnect returns the send that answers a refused CONNECT.
func (x *proxyExchange) secondConnect(refusal *connectRefusal) (*proxySend, error) {
	if refusal.own {
		return nil, errOwnProxyAuthorization
	}
	answer, err := x.choose(http.MethodConnect, refusal.header, refusal.sent, refusal.lease)
	if err != nil {
		return nil, err
	}
	x.report(Event{Kind: EventReplayed, Attempt: 2}, answer)
	return &proxySend{x: x, answer: answer, refused: refusal.sent}, nil
}

// failConnect returns the error of a request whose CONNECT the proxy has refused.
func (x *proxyExchange) failConnect(refusal *connectRefusal, err error) error {
	challenges := readChallenges(refusal.header["Proxy-Authenticate"])
	r := x.refusal(challenges, err)
	if r.Reason == ReasonProxyAuthentication {
		if refusal.hook != nil {
			r.Err = fmt.Errorf("%w; OnProxyConnectResponse says: %w", r.Err, refusal.hook)
		}
		x.report(Event{Kind: EventRefused, Attempt: x.attempts, Status: r.Status}, lease{})
	}
	x.report(Event{Kind: EventDone, Attempt: x.attempts, Err: r}, lease{})
	return r
}

// errRefusedBefore ends a dial that would send what the proxy has just refused.
var errRefusedBefore = errors.New("authretry: the proxy has refused these credentials before")

// A connectRefusal is the proxy's 407 to a CONNECT, on its way from the hook to RoundTrip.
type connectRefusal struct {
	header http.Header
	sent   string // Proxy-Authorization
	lease  lease  // of what was sent; empty if the CONNECT was bare
	own    bool   // what was sent was the caller's
	hook   error  // what the caller's OnProxyConnectResponse says of it
}

func (*connectRefusal) Error() string {
	return "authretry: the proxy refused the CONNECT for want of credentials"
}

// A connect is a CONNECT that carries the credentials of a lease. It is recognized by them: Digest's are unique,
// and of others it does not matter which is which. A dial that fails leaves it behind, to go with its proxySend.
type connect struct {
	authorization string
	lease         lease
}

// headerForConnect is GetProxyConnectHeader: the caller's headers, and the credentials known for the proxy.
func (t *ProxyTransport) headerForConnect(ctx context.Context, proxyURL *url.URL, target string) (http.Header, error) {
	header := t.connectHeader
	if t.getConnectHeader != nil {
		var err error
		if header, err = t.getConnectHeader(ctx, proxyURL, target); err != nil {
			return nil, err
		}
	}
	if proxyURL.User != nil || hasField(header, "Proxy-Authorization") {
		return header, nil
	}
	value, err := proxySendOf(ctx).authorizeConnect(ctx, target)
	if err != nil {
		return nil, err
	}
	if header = header.Clone(); header == nil {
		header = make(http.Header)
	}
	if value != "" {
		header["Proxy-Authorization"] = []string{value}
	}
	return header, nil
}

// authorizeConnect returns the Proxy-Authorization of a CONNECT to target, or "" if nothing is known yet.
func (s *proxySend) authorizeConnect(ctx context.Context, target string) (string, error) {
	x := s.x
	l := s.takeAnswer()
	if l.Session == nil {
		var err error
		if l, err = x.t.negotiator.ahead(ctx, x.origin, x.asked(ctx, http.MethodConnect, "")); err != nil {
			return "", x.rejection(err)
		}
	}
	if l.Session == nil {
		return "", nil
	}
	scratch := &http.Request{Method: http.MethodConnect, URL: &url.URL{Host: target}, Host: target, Header: make(http.Header)}
	value, err := authorization(l, scratch.WithContext(ctx))
	if err != nil {
		return "", x.rejection(err)
	}
	if value == s.refused {
		return "", errRefusedBefore // never again unchanged, whatever the Scheme says
	}
	s.mu.Lock()
	s.out = append(s.out, connect{value, l})
	s.mu.Unlock()
	x.report(Event{Kind: EventAuthorized, Attempt: s.attempt}, l)
	return value, nil
}

func (s *proxySend) takeAnswer() lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.answer
	s.answer = lease{}
	return l
}

// responseToConnect is OnProxyConnectResponse: it takes the answer to a CONNECT to where it is understood, and calls
// the caller's hook.
func (t *ProxyTransport) responseToConnect(ctx context.Context, proxyURL *url.URL, connectReq *http.Request, connectRes *http.Response) error {
	err := proxySendOf(ctx).connected(ctx, connectReq, connectRes)
	if t.onConnectResponse == nil {
		return err
	}
	hookErr := t.onConnectResponse(ctx, proxyURL, connectReq, connectRes)
	if refusal, ok := err.(*connectRefusal); ok {
		refusal.hook = hookErr
		return refusal
	}
	if hookErr != nil {
		return hookErr
	}
	return err
}

// connected ends the lease of a CONNECT: the Session learns from the answer, or RoundTrip gets to know of the refusal.
func (s *proxySend) connected(ctx context.Context, connectReq *http.Request, connectRes *http.Response) error {
	sent := connectReq.Header.Get("Proxy-Authorization")
	l, ours := s.takeConnect(sent)
	if ours {
		delete(connectReq.Header, "Proxy-Authorization") // not for the caller's hook to see
	}
	if connectRes.StatusCode == http.StatusProxyAuthRequired {
		return &connectRefusal{header: connectRes.Header, sent: sent, lease: l, own: sent != "" && !ours}
	}
	if !ours {
		return nil
	}
	if err := s.x.learn(ctx, http.MethodConnect, sent, connectRes, l); err != nil {
		return s.x.rejection(err)
	}
	return nil
}

// takeConnect returns the lease of the CONNECT that carried these credentials, if they are ours.
func (s *proxySend) takeConnect(authorization string) (l lease, ours bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.out {
		if c.authorization == authorization {
			s.out = append(s.out[:i], s.out[i+1:]...)
			return c.lease, true
		}
	}
	return lease{}, false
}
