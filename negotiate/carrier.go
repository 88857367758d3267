package negotiate

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/authretry/authretry"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// A carried is a session whose requests go by connections of the account's own.
type carried struct {
	*session
	account  string
	carriers *carriers
}

// Carry implements authretry.Carrier.
func (c *carried) Carry(ctx context.Context, base http.RoundTripper) (http.RoundTripper, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	by, err := c.carriers.get(carrierKey{c.account, base})
	if err != nil {
		return nil, err
	}
	return choice{c.session, by}, nil
}

// A choice is what requests of a session go by: the clone of the user whose token they have. That may change, as in a credential cache,
// and a server may take what comes by the other's connections for the other's. It hides CloseIdleConnections: that is called when one
// session ends, and others use the clones as well.
type choice struct {
	session *session
	by      *carrier
}

// RoundTrip implements http.RoundTripper.
func (c choice) RoundTrip(req *http.Request) (*http.Response, error) {
	user := ""
	if k, ok := c.session.kerberos.(interface {
		userOf(spn string, token []byte) string
	}); ok {
		user = k.userOf(c.session.spn, tokenIn(req.Header))
	}
	return c.by.of(user).RoundTrip(req)
}

const (
	maxCarriers = 1 << 10          // that are kept
	maxUsers    = 4                // of one account, whose clones are kept
	idleTimeout = 90 * time.Second // of the connections of a clone, if Base's are kept for ever
)

// carriers are what the requests of accounts go by. The zero value is ready for use.
type carriers struct {
	mu  sync.Mutex // guards all, for no longer than a look
	all *simplelru.LRU[carrierKey, *carrier]
}

// A carrierKey says for whom clones are, and of what. The types that base has can be compared.
type carrierKey struct {
	account string
	base    http.RoundTripper
}

// A carrier has the clones of one account, which is one user's as a rule.
type carrier struct {
	base http.RoundTripper

	mu    sync.Mutex // guards users, for no longer than a look
	users *simplelru.LRU[string, cloned]
}

// A cloned is an *http.Transport or an *authretry.ProxyTransport.
type cloned interface {
	http.RoundTripper
	CloseIdleConnections()
}

// of returns the clone of a user, which it makes if need be.
func (c *carrier) of(user string) cloned {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.users.Get(user); ok {
		return known
	}
	made := cloneOf(c.base)
	c.users.Add(user, made)
	return made
}

// closeIdle closes the connections that nobody uses at present.
func (c *carrier) closeIdle() {
	c.mu.Lock()
	all := c.users.Values()
	c.mu.Unlock()
	for _, one := range all {
		one.CloseIdleConnections()
	}
}

// get returns the carrier for a key, which it makes if need be.
func (c *carriers) get(key carrierKey) (*carrier, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all, _ = simplelru.NewLRU(maxCarriers, func(_ carrierKey, old *carrier) {
			go old.closeIdle() // not under the lock
		})
	}
	if known, ok := c.all.Get(key); ok {
		return known, nil
	}
	switch key.base.(type) {
	case *http.Transport, *authretry.ProxyTransport:
	default:
		return nil, fmt.Errorf("negotiate: a %T cannot be cloned: set Scheme.SharedConnections", key.base)
	}
	made := &carrier{base: key.base}
	made.users, _ = simplelru.NewLRU(maxUsers, func(_ string, old cloned) {
		go old.CloseIdleConnections() // not under the lock
	})
	c.all.Add(key, made)
	return made, nil
}

// cloneOf returns a clone of a base, whose type get has looked at.
func cloneOf(base http.RoundTripper) cloned {
	proxy, ok := base.(*authretry.ProxyTransport)
	if !ok {
		return clone(base.(*http.Transport))
	}
	proxied := proxy.Base
	if proxied != nil {
		proxied = clone(proxied)
	}
	return &authretry.ProxyTransport{Base: proxied, Schemes: proxy.Schemes, AllowPlaintext: proxy.AllowPlaintext,
		ReplayLimit: proxy.ReplayLimit, OnEvent: proxy.OnEvent}
}

// clone returns a copy of base with connections of its own, which speaks HTTP/2 if base does.
func clone(base *http.Transport) *http.Transport {
	own := base.Clone()
	if own.TLSNextProto == nil && own.TLSClientConfig != nil && slices.Contains(own.TLSClientConfig.NextProtos, "h2") {
		own.ForceAttemptHTTP2 = true // a clone would offer it nevertheless, but not speak it
	}
	if own.IdleConnTimeout == 0 {
		own.IdleConnTimeout = idleTimeout
	}
	return own
}

// closeIdle closes the connections that nobody uses at present.
func (c *carriers) closeIdle() {
	c.mu.Lock()
	var all []*carrier
	if c.all != nil {
		all = c.all.Values()
	}
	c.mu.Unlock()
	for _, carrier := range all {
		carrier.closeIdle()
	}
}

// forget drops the clones of an account.
func (c *carriers) forget(account string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		return
	}
	for _, key := range c.all.Keys() {
		if key.account == account {
			c.all.Remove(key)
		}
	}
}
