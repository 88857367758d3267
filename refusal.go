package authretry

import (
	"errors"
	"io"
	"net/http"
	"slices"
)

// isRefusal reports whether resp refuses the request for want of credentials.
func (x *exchange) isRefusal(resp *http.Response) bool {
	switch {
	case x.foreign:
		return false
	case resp.StatusCode == x.status:
		return true
	case resp.StatusCode == http.StatusForbidden && x.side == originSide && x.answersForbidden(resp):
		return true
	case x.refused == nil:
		return false
	}
	switch resp.StatusCode {
	case http.StatusSwitchingProtocols, http.StatusUnauthorized, http.StatusProxyAuthRequired:
		return false
	case http.StatusExpectationFailed:
		return !x.expects && x.looksRefused(resp)
	}
	return x.looksRefused(resp)
}

// answersForbidden reports whether a 403 (Forbidden) has a challenge that a Scheme answers as if it had come with a 401.
func (x *exchange) answersForbidden(resp *http.Response) bool {
	if len(resp.Header[x.challenge]) == 0 || len(x.forbidden) == 0 {
		return false
	}
	challenges := x.challenges(resp)
	for _, s := range x.forbidden {
		for c := range challenges {
			if equalFoldASCII(challenges[c].Scheme, s.Name()) && s.AnswersForbidden(&challenges[c]) {
				return true
			}
		}
	}
	return false
}

// maxLook is how much of a response's body Transport.Refused may read.
const maxLook = 64 << 10

// looksRefused asks Transport.Refused whether resp is a refusal, and puts back what it has read of the body.
func (x *exchange) looksRefused(resp *http.Response) bool {
	seen := *resp
	look := &looking{src: resp.Body}
	seen.Body = look
	refused := x.refused(&seen)
	if len(look.read) > 0 || look.err != nil {
		resp.Body = &putBack{ReadCloser: resp.Body, read: look.read, err: look.err}
	}
	return refused
}

// looking is the body of a response that Transport.Refused looks at.
type looking struct {
	src  io.Reader
	read []byte
	err  error // of src
}

func (l *looking) Read(p []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if p = p[:min(len(p), maxLook-len(l.read))]; len(p) == 0 {
		return 0, io.EOF
	}
	n, err := l.src.Read(p)
	l.read, l.err = append(l.read, p[:n]...), err
	return n, err
}

func (l *looking) Close() error { return nil }

// putBack is a response's body of which a part has been read already.
type putBack struct {
	io.ReadCloser
	read []byte
	err  error // what came after it; nil if there is more
}

func (b *putBack) Read(p []byte) (int, error) {
	if len(b.read) > 0 {
		n := copy(p, b.read)
		b.read = b.read[n:]
		return n, nil
	}
	if b.err != nil {
		return 0, b.err
	}
	return b.ReadCloser.Read(p)
}

// shown returns a request as a Scheme is to see it: the caller's, with the URL at which it arrives if req.Host decides that, or one for
// the root of a proxy. A proxy's protection space is all of the proxy (RFC 7616 §3.3), and credentials for it must not be confused
// with those for the origin that is behind it.
func (x *exchange) shown(req *http.Request, withCredentials bool) *http.Request {
	switch {
	case x.goesElsewhere():
		own := *req
		own.URL = x.at()
		return &own
	case x.side == originSide:
		return req
	}
	method := x.req.Method
	if x.tunnel {
		method = http.MethodConnect
	}
	at := x.at()
	asked := &http.Request{Method: method, URL: at, Host: at.Host, Header: make(http.Header)}
	if values := req.Header[x.credentials]; withCredentials && len(values) > 0 {
		asked.Header["Authorization"] = values
	}
	return asked.WithContext((*sendContext)(x))
}

// goesElsewhere reports whether req.Host decides that the request goes elsewhere than its URL says.
func (x *exchange) goesElsewhere() bool {
	return x.side == originSide && x.aside != nil && x.aside.at != nil
}

// shownResponse returns resp as Schemes are to see it: a copy without a body, whose request was the one that was sent,
// with our credentials or without. What a proxy says is put in an origin's words.
func (x *exchange) shownResponse(resp *http.Response, sent *http.Request, withCredentials bool) *http.Response {
	if x.tunnel {
		sent = resp.Request
	}
	c := *resp
	c.Body = unreadable{}
	req := *x.shown(sent, withCredentials)
	req.Body, req.GetBody = nil, nil
	c.Request = &req
	if x.asksRemote {
		req.RemoteAddr = x.aside.value().remote
	}
	if x.side == originSide {
		req.Header = sent.Header.Clone()
		if !withCredentials {
			req.Header = x.req.Header.Clone()
		}
	}
	a := x.setAside()
	if a.seen != resp {
		a.seen, a.seenHeader = resp, x.shownHeader(resp)
	}
	c.Header = a.seenHeader
	return &c
}

// shownHeader returns the header of resp as Schemes are to see it: one copy for all of them, since it may be large.
func (x *exchange) shownHeader(resp *http.Response) http.Header {
	if x.side == originSide {
		if resp.Header == nil {
			return make(http.Header)
		}
		return resp.Header.Clone()
	}
	h := make(http.Header)
	if resp.StatusCode == x.status && resp.Header != nil { // it is all the proxy's
		h = resp.Header.Clone()
		for _, name := range []string{"Proxy-Authenticate", "Proxy-Authentication-Info"} {
			delete(h, name)
		}
		h["Www-Authenticate"] = slices.Clone(resp.Header[x.challenge])
	}
	h["Authentication-Info"] = slices.Clone(resp.Header[x.info])
	return h
}

// unreadable is the body of a response that a Scheme looks at. The response itself goes to the caller, or to the
// connection for the retry.
type unreadable struct{}

func (unreadable) Read([]byte) (int, error) {
	return 0, errors.New("authretry: a Scheme must not read the body of a response")
}

func (unreadable) Close() error { return nil }
