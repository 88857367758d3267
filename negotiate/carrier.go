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
	return c.carriers.get(carrierKey{c.account, base})
}

const (
	maxCarriers = 1 << 10          // clones that are kept
	idleTimeout = 90 * time.Second // of the connections of a clone, if Base's are kept for ever
)

// carriers are the clones by which the requests of accounts go. The zero value is ready for use.
type carriers struct {
	mu  sync.Mutex // guards all, for no longer than a look
	all *simplelru.LRU[carrierKey, *carrier]
}

// A carrierKey says for whom a clone is, and of what. The types that base has can be compared.
type carrierKey struct {
	account string
	base    http.RoundTripper
}

// A carrier is a clone. It hides CloseIdleConnections: that is called when one session ends, and others use the clone as well.
type carrier struct {
	clone interface {
		http.RoundTripper
		CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper.
func (c *carrier) RoundTrip(req *http.Request) (*http.Response, error) { return c.clone.RoundTrip(req) }

// get returns the clone for a key, which it makes if need be.
func (c *carriers) get(key carrierKey) (*carrier, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all, _ = simplelru.NewLRU(maxCarriers, func(_ carrierKey, old *carrier) {
			go old.clone.CloseIdleConnections() // not under the lock
		})
	}
	if known, ok := c.all.Get(key); ok {
		return known, nil
	}
	made := new(carrier)
	switch base := key.base.(type) {
	case *http.Transport:
		made.clone = clone(base)
	case *authretry.ProxyTransport:
		proxied := base.Base
		if proxied != nil {
			proxied = clone(proxied)
		}
		made.clone = &authretry.ProxyTransport{Base: proxied, Schemes: base.Schemes, AllowPlaintext: base.AllowPlaintext,
			ReplayLimit: base.ReplayLimit, OnEvent: base.OnEvent}
	default:
		return nil, fmt.Errorf("negotiate: a %T cannot be cloned: set Scheme.SharedConnections", base)
	}
	c.all.Add(key, made)
	return made, nil
}

// clone returns a copy of base with connections of its own, which speaks HTTP/2 if base does.
func clone(base *http.Transport) *http.Transport {
	own := base.Clone()
	if own.TLSNextProto == nil && own.TLSClientConfig != nil && slices.Contains(own.TLSClientConfig.NextProtos, "h2") {
		own.ForceAttemptHTTP2 = true // a clone would offer it all the same, but not speak it
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
		carrier.clone.CloseIdleConnections()
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
