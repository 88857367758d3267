package authretry

import (
	"context"
	"net/http"
	"net/url"
)

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

// headerForConnect is GetProxyConnectHeader: the caller's headers, and the credentials known for the proxy. It is called by a
// goroutine of http.Transport, which must not end by what is called.
func (t *ProxyTransport) headerForConnect(ctx context.Context, proxyURL *url.URL, target string) (header http.Header, err error) {
	err = proxySendOf(ctx).apart(ctx, target, func() (err error) {
		header, err = t.makeConnectHeader(ctx, proxyURL, target)
		return err
	})
	if err != nil {
		return nil, err
	}
	return header, nil
}

// apart calls f apart. A panic, or the end of the goroutine, is an error of the request.
func (s *proxySend) apart(ctx context.Context, target string, f func() error) error {
	err := apart(func(value any) error { return &panicError{panicText(value)} }, f)
	if p, ok := err.(*panicError); ok {
		return s.x.connecting(ctx, target).rejection(nil, p)
	}
	return err
}

func (t *ProxyTransport) makeConnectHeader(ctx context.Context, proxyURL *url.URL, target string) (http.Header, error) {
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
func (s *proxySend) authorizeConnect(ctx context.Context, target string) (value string, err error) {
	x := s.x.connecting(ctx, target)
	defer x.caught(&err)
	defer x.leave(false)
	l := s.takeAnswer()
	if l.Session == nil {
		var err error
		if err = x.lend(&l); err == nil {
			x.leave(false)
			err = x.carry(&l)
		}
		if err != nil {
			return "", x.rejection(nil, err)
		}
	}
	if l.Session == nil {
		return "", nil
	}
	if err := x.authorize(x.req, &l); err != nil {
		return "", x.rejection(nil, err)
	}
	value = x.req.Header.Get(x.credentials)
	if value == s.refused {
		return "", errRefusedBefore // never again unchanged, whatever the Scheme says
	}
	s.mu.Lock()
	s.out, s.sent = append(s.out, connect{value, l}), append(s.sent, value)
	s.mu.Unlock()
	x.report(Event{Kind: EventAuthorized, Attempt: s.attempt}, &l)
	return value, nil
}

// connecting returns what an exchange for a CONNECT to target is, in the hands of a dial that may outlive x.
func (x *exchange) connecting(ctx context.Context, target string) *exchange {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Host: target}, Host: target, Header: make(http.Header)}
	c := &exchange{authenticator: x.authenticator, req: req.WithContext(ctx), host: x.host, secure: x.secure, tunnel: x.tunnel,
		aside: &aside{proxied: x.aside.proxied}}
	c.begin()
	return c
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
	return proxySendOf(ctx).apart(ctx, connectReq.Host, func() error { return t.takeConnectResponse(ctx, proxyURL, connectReq, connectRes) })
}

func (t *ProxyTransport) takeConnectResponse(ctx context.Context, proxyURL *url.URL, connectReq *http.Request, connectRes *http.Response) error {
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
func (s *proxySend) connected(ctx context.Context, connectReq *http.Request, connectRes *http.Response) (err error) {
	x := s.x.connecting(ctx, connectReq.Host)
	defer x.caught(&err)
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
	x.req.Header["Proxy-Authorization"] = []string{sent}
	seen := *connectRes
	seen.Request = x.req
	if _, err := x.learn(&seen, x.req, &l, false); err != nil {
		return x.rejection(nil, err)
	}
	x.keep(&l)
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
