package authretry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"time"
)

// maxAccount is how many bytes an account may have.
const maxAccount = 256

// AccountOf returns the account on whose behalf a request is sent, as [Transport.Account] has named it. Ctx is the
// context that a [Scheme]'s Start or Answer gets, that of a request that a [Session] authorizes, that of [Transport.OnEvent], or one
// derived from them. It is "" if Account is nil.
func AccountOf(ctx context.Context) string {
	if c, ok := ctx.(*sendContext); ok { // as a Value it would have to be allocated
		return c.account
	}
	account, _ := ctx.Value(accountKey{}).(string)
	return account
}

// ForProxy reports whether the credentials that a [Scheme] is asked for are a proxy's. Ctx is as for [AccountOf]. It matters for
// a Session that is a [Carrier], which a proxy's cannot be. Only those who implement a Scheme need it.
func ForProxy(ctx context.Context) bool {
	s, _ := ctx.Value(sideKey{}).(*side)
	return s == proxySide
}

// HasScheme reports whether the [Transport] or [ProxyTransport] that asks a [Scheme] has one with that name, compared without
// case. Ctx is as in [AccountOf]. By it a weak Scheme can stand back where the program has a stronger one, which a server
// need not offer if somebody on the way has taken that offer out. Only those who implement a Scheme need it.
func HasScheme(ctx context.Context, name string) bool {
	schemes, _ := ctx.Value(schemesKey{}).([]Scheme)
	return slices.ContainsFunc(schemes, func(s Scheme) bool { return equalFoldASCII(s.Name(), name) })
}

// Our own keys in a context have a method ours. The functions that a program gives us see those, whatever else they see.
type (
	accountKey struct{} // has the account
	schemesKey struct{} // has the Schemes
	requestKey struct{} // has the context in which a Session authorizes; a proxy's has itself
	originKey  struct{} // has the origin that the request is for
	refusalKey struct{} // has where the refusal came from that is being answered
	sideKey    struct{} // has the side that asks for credentials
)

func (accountKey) ours()   {}
func (schemesKey) ours()   {}
func (requestKey) ours()   {}
func (originKey) ours()    {}
func (refusalKey) ours()   {}
func (sideKey) ours()      {}
func (listenerKey) ours()  {}
func (noncesKey) ours()    {}
func (refreshKey) ours()   {}
func (proxySendKey) ours() {}

// originIn returns the origin that a request is for, if its context says so.
func originIn(ctx context.Context) origin {
	o, _ := ctx.Value(originKey{}).(origin)
	return o
}

// findAccount asks Transport.Account on whose behalf the request is sent. For a request that comes from a redirect it is
// the one on whose behalf the first was sent: where a redirect leads is for the server to say, but not for whom.
//
// http.Client gives all requests of a chain the same context, and each the response that led to it. Any other may be
// anybody's, such as a copy of a response's request, or what a cache has led to: then the chain and Account must say the
// same, or it is nobody's.
func (x *exchange) findAccount() error {
	first := x.req
	chain, whole := (*sentFor)(nil), true
	for range maxHops {
		if chain != nil || first.Response == nil || first.Response.Request == nil {
			break
		}
		resp := first.Response
		first = resp.Request
		if chain = sentForIn(first.Context(), x.authenticator); chain != nil {
			whole = chain.resp == resp
		}
	}
	if chain != nil && whole && isSameContext(chain.Context, x.req.Context()) {
		x.account = chain.account
		return nil
	}
	asked := first
	if chain != nil || first != x.req && !isSameContext(withoutExplanation(first).Context(), x.req.Context()) {
		asked = x.req
	}
	account := x.accountFunc(asked)
	if len(account) > maxAccount {
		return misconfiguration{fmt.Errorf("authretry: Transport.Account returned %d bytes, and an account may have %d", len(account), maxAccount)}
	}
	if chain != nil && chain.account != account {
		account = ""
	}
	x.account = account
	return nil
}

// sentFor is the context of the request of a redirect: it says for whom that was sent. The context in it is the caller's.
type sentFor struct {
	context.Context
	by      *authenticator
	account string
	resp    *http.Response
}

// sentForIn returns what a context says of for whom a request was sent whose response was a redirect; nil if nothing.
func sentForIn(ctx context.Context, by *authenticator) *sentFor {
	for {
		switch c := ctx.(type) {
		case *sentFor:
			if c.by == by {
				return c
			}
			ctx = c.Context
		case *explained:
			ctx = c.Context
		default:
			return nil
		}
	}
}

// withoutMarks returns the context below what is said of a response in that of its request, and for whom those have sent it
// who say so, the last one first.
func withoutMarks(ctx context.Context) (below context.Context, marks []*sentFor) {
	for {
		switch c := ctx.(type) {
		case *sentFor:
			marks = append(marks, c)
			ctx = c.Context
		case *explained:
			ctx = c.Context
		default:
			return ctx, marks
		}
	}
}

// isSameContext reports whether two contexts are one. Some cannot be compared.
func isSameContext(a, b context.Context) bool {
	return reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

// noteAccount notes in a redirect, from which the next request of the chain will come, for whom this one was sent.
func (x *exchange) noteAccount(resp *http.Response) {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		req := x.req
		if resp.Request != nil {
			req = resp.Request
		}
		resp.Request = req.WithContext(&sentFor{x.req.Context(), x.authenticator, x.account, resp})
	}
}

// A callContext is an exchange as the context that a Scheme gets. It has the deadline, the end and the cause of the request's
// context, and our own values.
//
// Unless Transport.Account is set, it has no others: what is got for a request is remembered for those that follow, which may be
// for another user, and only Account tells users apart. So a func that goes by a value of the request's context fails at its
// first call, rather than to have its result used for everybody.
type callContext exchange

// Deadline implements context.Context, and so do Done and Err.
func (c *callContext) Deadline() (deadline time.Time, ok bool) { return c.req.Context().Deadline() }
func (c *callContext) Done() <-chan struct{}                   { return c.req.Context().Done() }
func (c *callContext) Err() error                              { return c.req.Context().Err() }

// Format keeps the request, and with it credentials, out of everything that package fmt prints.
func (c *callContext) Format(f fmt.State, _ rune) {
	io.WriteString(f, "authretry: context of a Scheme")
}

// Value implements context.Context.
func (c *callContext) Value(key any) any {
	if v, ours := (*exchange)(c).valueOfOurs(key, c); ours {
		return v
	}
	v := c.req.Context().Value(key)
	if c.accountFunc == nil && v != nil {
		c.missed.Store(true)
		return nil
	}
	return v
}

// A sendContext is an exchange as the context in which a Session authorizes: a callContext with all values of the request's
// context, and for a proxy with none of them.
type sendContext exchange

// Deadline implements context.Context, and so do Done and Err.
func (c *sendContext) Deadline() (deadline time.Time, ok bool) { return c.req.Context().Deadline() }
func (c *sendContext) Done() <-chan struct{}                   { return c.req.Context().Done() }
func (c *sendContext) Err() error                              { return c.req.Context().Err() }

// Format keeps the request, and with it credentials, out of everything that package fmt prints.
func (c *sendContext) Format(f fmt.State, _ rune) {
	io.WriteString(f, "authretry: context of a request")
}

// Value implements context.Context.
func (c *sendContext) Value(key any) any {
	v, ours := (*exchange)(c).valueOfOurs(key, c)
	if ours || c.side == proxySide {
		return v
	}
	return c.req.Context().Value(key)
}

// valueOfOurs returns what a context of the exchange, which is asked, has under a key, if that is one of ours.
func (x *exchange) valueOfOurs(key any, asked context.Context) (value any, ours bool) {
	switch key.(type) {
	case accountKey:
		return x.account, true
	case schemesKey:
		return x.schemes, true
	case originKey:
		return x.origin(), true
	case refusalKey:
		return x.refusedAt(), true
	case sideKey:
		return x.side, true
	case noncesKey:
		return &x.nonces, true
	case listenerKey:
		if x.onEvent != nil {
			return x.onEvent, true
		}
	case requestKey:
		if x.side == proxySide {
			return asked, true
		}
		return (*sendContext)(x), true
	}
	if isOurs(key) {
		return x.req.Context().Value(key), true
	}
	return nil, false
}

// isOurs reports whether a key is one of ours, or that by which package context finds the context that a derived one
// ends with: without it, each derived context would need a goroutine, and would not know the cause.
func isOurs(key any) bool {
	_, ours := key.(interface{ ours() })
	return ours || key == contextsKey
}

// contextsKey is the key by which package context finds a parent that can be cancelled.
var contextsKey = func() (key any) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, end := context.WithCancel(asked{ctx, &key})
	end()
	return key
}()

// asked is a context that notes what it is asked for first.
type asked struct {
	context.Context
	key *any
}

func (a asked) Value(key any) any {
	if *a.key == nil {
		*a.key = key
	}
	return a.Context.Value(key)
}

// missedValues returns err, and how to have values if it may be for want of them.
func (x *exchange) missedValues(err error) error {
	if err == nil || !x.missed.Load() {
		return err
	}
	hint := "authretry: it asked its context for a value of the request's, and gets none, since what it returns is used for other requests too; set Transport.Account to tell users apart, or to a func that returns a constant if there is one"
	if x.side == proxySide {
		hint = "authretry: it asked its context for a value of the request's, and gets none, since the connections of a ProxyTransport are everybody's, whatever Transport.Account says; make a ProxyTransport for each user of the proxy"
	}
	return &missedValue{err, hint}
}

// A missedValue is the error of a func that may have failed for want of a value.
type missedValue struct {
	error
	hint string
}

func (m *missedValue) Error() string {
	return m.error.Error() + " (" + m.hint[len("authretry: "):] + ")"
}
func (m *missedValue) Unwrap() error { return m.error }
