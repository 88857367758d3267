package authretry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"sync"
)

// A carried is what the requests of a Carrier go by. Its idle connections are closed when nobody remembers it and no exchange
// uses it: if they were closed before, an exchange could leave another one behind, and net/http may fail a request whose
// answer comes just then.
type carried struct {
	http.RoundTripper
	isBase bool // it is what all other requests go by, too, and not ours to close

	mu    sync.Mutex
	users int  // exchanges that use it
	ended bool // nobody remembers it
}

// isSame reports whether the requests of another Carrier go by the same. Values of some types cannot be compared.
func (c *carried) isSame(other *carried) bool {
	return other != nil && reflect.ValueOf(c.RoundTripper).Comparable() && c.RoundTripper == other.RoundTripper
}

// closeIdle closes the connections that are idle. It must not be called under a lock.
func (c *carried) closeIdle() {
	if idler, ok := c.RoundTripper.(interface{ CloseIdleConnections() }); ok && !c.isBase {
		quietly(idler.CloseIdleConnections)
	}
}

// enter says that one more exchange uses it.
func (c *carried) enter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users++
}

// leave says that an exchange does not use it any more, and reports whether it is to be closed.
func (c *carried) leave() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users--
	return c.ended && c.users == 0
}

// end says that nobody remembers it any more, and reports whether it is to be closed now.
func (c *carried) end() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	return c.users == 0
}

// endAll says that nobody remembers what Carriers have made for these. It must not be called under a lock.
func endAll(list []held) {
	for _, h := range list {
		if h.by.end() {
			h.by.closeIdle()
		}
	}
}

// A carriedUse is the use of what a Carrier has made by one exchange.
type carriedUse struct {
	*carried
	kept bool // it is remembered
}

// carry has a Carrier's Session say by which RoundTripper its requests go.
func (x *exchange) carry(l *lease) error {
	if !x.hasOthers {
		return nil // none of ours is one
	}
	c, ok := l.Session.(Carrier)
	if !ok {
		return nil
	}
	kept := l.by != nil && !isExclusive(l.Session) // else it is new, or lent to us alone
	if l.by == nil {
		base, err := x.way().carrying()
		var by http.RoundTripper
		if err == nil {
			by, err = c.Carry((*callContext)(x), base)
		}
		if err == nil && by == nil {
			err = errors.New("neither a RoundTripper nor an error was returned")
		}
		if err != nil {
			err = withoutSecrets(err, unknownSecrets)
			return fmt.Errorf("authretry: %s authenticates connections, and got none: %w", x.schemes[l.scheme()].Name(), err)
		}
		l.by = &carried{RoundTripper: by, isBase: by == base}
	}
	l.by.enter()
	a := x.setAside()
	a.carried = append(a.carried, carriedUse{l.by, kept})
	return nil
}

// endCarriers says that the exchange uses what Carriers have made no more, and closes what nobody else is going to use. If the
// caller is still to read from such a connection, it is closed after that.
func (x *exchange) endCarriers(resp *http.Response) {
	var over []*carried
	uses := x.aside.carried
	x.aside.carried = nil
	for _, use := range uses {
		if !use.kept {
			use.end()
		}
		if use.leave() {
			use.closeIdle()
			over = append(over, use.carried)
		}
	}
	if len(over) > 0 && resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body = &lastBody{resp.Body, over}
	}
}

// lastBody is the body of the last response that comes by what a Carrier has made.
type lastBody struct {
	io.ReadCloser
	carried []*carried
}

func (b *lastBody) Close() error {
	defer func() {
		for _, c := range b.carried {
			c.closeIdle()
		}
	}()
	return b.ReadCloser.Close()
}
