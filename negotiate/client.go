package negotiate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/authretry/authretry"
	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/messages"
	"github.com/jcmturner/gokrb5/v8/types"
)

// A Client is a [Kerberos] in Go, which needs no library of the system: one user of a realm, with a password, a keytab or a
// credential cache. The zero value has the default credential cache, as kinit fills it.
//
// There is one ticket for each service, with one exchange with the KDC however many requests want it; those wait under their own
// contexts. It is replaced in the background when a sixth of its time is left. Exchanges go by TCP, and 8 at most are under way at once.
// What a KDC has refused is not asked again for 30 seconds, so that a wrong password is not tried until the account is locked.
// A failure that may pass holds back the next exchange for a second. Where only a new login helps, because a cache is empty or its ticket
// has ended, or because the KDC does not take the password, errors wrap authretry.ErrLoginRequired.
//
// A Client is safe for concurrent use. It must not be copied, nor its fields changed, after its first use.
type Client struct {
	// Principal is the user, such as "alice@EXAMPLE.COM", or "alice" for one of the default realm. It goes with Password or Keytab.
	Principal string

	// Password is the user's password.
	Password string

	// Keytab is the path of a file with the user's keys. It is read for each login.
	Keytab string

	// Cache is the path of a file that kinit, or whatever else logs the user in, fills and keeps fresh, with or without "FILE:"
	// before it. It is read, and never written; when the user in it changes, or it is gone, its tickets are not used any more. Other types
	// of caches, such as KCM and KEYRING, cannot be read, and are an error. If it is empty, and Password and Keytab are, too, it is
	// what the environment variable KRB5CCNAME says, or else /tmp/krb5cc_ and the user's ID, where kinit puts it. The default_ccache_name
	// of krb5.conf is not looked at.
	Cache string

	// Config is the path of krb5.conf. If empty, it is what the environment variable KRB5_CONFIG says, or else /etc/krb5.conf. It is
	// read once. Files that it includes are not. With a password, only AES is used unless it has default_tkt_enctypes.
	Config string

	dial            func(ctx context.Context, network, address string) (net.Conn, error) // for tests; nil: a net.Dialer's
	leastIterations uint32                                                               // for tests; 0: minIterations

	once      sync.Once
	config    *config.Config
	err       error         // what is wrong with the fields, or with krb5.conf
	exchanges chan struct{} // has room for those that may be under way

	reading sync.Mutex // held while a cache is looked at; taken before mu

	mu       sync.Mutex        // guards what follows
	login    *login            // nil: none yet, or none any more
	previous *login            // whose tokens may be out yet
	lastTime int64             // of an authenticator, in microseconds
	good     map[string]string // by realm, the KDC that has answered last
}

const (
	maxExchanges  = 8
	exchangeLimit = 20 * time.Second // for all that one ticket needs
	spareTime     = 5 * time.Second  // a ticket that ends so soon is not used, or in the last tenth of its time if that is less
	refusedFor    = 30 * time.Second // see Client
	failedFor     = time.Second
)

// A ticket is what the user has for a service, or for the ticket-granting service of a realm.
type ticket struct {
	messages.Ticket
	key      types.EncryptionKey
	cname    types.PrincipalName // whose it is
	crealm   string
	realm    string // of whose ticket-granting service it is; "" for any other service
	got, end time.Time
}

// isUsable reports whether a server will take it.
func (t *ticket) isUsable(now time.Time) bool {
	return t != nil && now.Before(t.end.Add(-min(spareTime, t.end.Sub(t.got)/10)))
}

// isOld reports whether it is time to replace it.
func (t *ticket) isOld(now time.Time) bool {
	return !t.isUsable(now) || now.After(t.got.Add(t.end.Sub(t.got)/6*5))
}

// Token implements [Kerberos].
func (c *Client) Token(ctx context.Context, spn string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	t, err := c.ticket(ctx, spn)
	if err != nil {
		return nil, err
	}
	return c.newToken(t)
}

// ticket returns the ticket for a service.
func (c *Client) ticket(ctx context.Context, spn string) (*ticket, error) {
	if err := c.init(); err != nil {
		return nil, err
	}
	l, err := c.current()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	t, p, err := l.service(spn).want(time.Now(), func() *pending[*ticket] {
		return begin(exchangeLimit, func(ctx context.Context) (*ticket, error) {
			t, err := c.obtain(ctx, l, spn)
			c.mu.Lock()
			defer c.mu.Unlock()
			return t, l.got(spn, t, err)
		})
	})
	c.mu.Unlock()
	if t != nil || err != nil {
		return t, err
	}
	t, err = p.wait(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("negotiate: there was no ticket for %s in time: %w", spn, err)
	}
	return t, err
}

// obtain gets a ticket for a service from the KDC, or from the cache.
func (c *Client) obtain(ctx context.Context, l *login, spn string) (t *ticket, err error) {
	select {
	case c.exchanges <- struct{}{}:
		defer func() { <-c.exchanges }()
	case <-ctx.Done():
		return nil, fmt.Errorf("negotiate: the KDC answers so slowly that there was no time to ask for a ticket for %s: %w", spn, ctx.Err())
	}
	err = contained(func() error {
		if t = c.cached(l, spn); t != nil {
			return nil
		}
		tgt, err := c.ticketGranting(ctx, l)
		if err != nil {
			return err
		}
		t, err = c.serviceTicket(ctx, tgt, spn)
		if isTicketRefused(err) && c.drop(l, tgt) {
			if tgt, err = c.ticketGranting(ctx, l); err == nil {
				t, err = c.serviceTicket(ctx, tgt, spn)
			}
		}
		return err
	})
	if err == errUnreadable {
		err = errLying
	}
	if err != nil {
		return nil, fmt.Errorf("negotiate: there is no ticket for %s: %w", spn, err)
	}
	return t, nil
}

// drop drops a ticket-granting ticket that the KDC does not take, as after its key was changed, and reports whether there can be
// another.
func (c *Client) drop(l *login, tgt *ticket) bool {
	if l.path != "" || time.Since(tgt.got) < renewAfter {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.tgt == tgt {
		l.tgt, l.isUntil = nil, time.Time{}
	}
	return true
}

// cached is login.cached.
func (c *Client) cached(l *login, spn string) *ticket {
	c.mu.Lock()
	defer c.mu.Unlock()
	return l.cached(spn, time.Now())
}

// Verify implements [Kerberos].
func (c *Client) Verify(spn string, token, reply []byte) error {
	c.mu.Lock()
	var tickets []*ticket
	for _, l := range []*login{c.login, c.previous} {
		if l != nil {
			tickets = append(tickets, l.service(spn).all()...)
		}
	}
	c.mu.Unlock()
	return contained(func() error { return verify(tickets, token, reply) })
}

// userOf returns whose ticket is in a token: by another user's connections it must not go, as a server may authenticate these.
func (c *Client) userOf(spn string, token []byte) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range []*login{c.login, c.previous} {
		if l == nil {
			continue
		}
		for _, t := range l.service(spn).tickets {
			if t.isIn(token) {
				return t.cname.PrincipalNameString() + "@" + t.crealm
			}
		}
	}
	sum := sha256.Sum256(token) // its ticket is not known any more, so it goes by no connection of others
	return string(sum[:])
}

// Renew implements [Renewer]: it drops a ticket that was got more than a minute ago.
func (c *Client) Renew(spn string, token []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.login != nil && c.login.service(spn).renew(token, time.Now())
}

// init checks the fields, and reads krb5.conf.
func (c *Client) init() error {
	c.once.Do(func() {
		c.exchanges = make(chan struct{}, maxExchanges)
		if c.err = c.check(); c.err == nil {
			c.config, c.err = loadConfig(cmp.Or(c.Config, os.Getenv("KRB5_CONFIG"), "/etc/krb5.conf"))
		}
	})
	return c.err
}

func (c *Client) check() error {
	n := 0
	for _, field := range []string{c.Password, c.Keytab, c.Cache} {
		if field != "" {
			n++
		}
	}
	switch isCache := c.Password == "" && c.Keytab == ""; {
	case n > 1:
		return errors.New("negotiate: a Client has a Password, a Keytab or a Cache, and not two of them")
	case isCache && c.Principal != "":
		return errors.New("negotiate: a Client with a Principal needs a Password or a Keytab; a Cache says itself whose it is")
	case !isCache && c.Principal == "":
		return errors.New("negotiate: a Client with a Password or a Keytab needs a Principal")
	}
	return nil
}

// current returns the login whose tickets are to be used.
func (c *Client) current() (*login, error) {
	if c.Password != "" || c.Keytab != "" {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.login == nil {
			c.login = newLogin(nil)
		}
		return c.login, nil
	}
	c.reading.Lock() // not mu, for which those wait who have their tickets
	defer c.reading.Unlock()
	c.mu.Lock()
	known := c.login
	c.mu.Unlock()
	now, err := readCache(c.Cache, known)
	if _, isOver := errors.AsType[loginError](err); err != nil && !isOver {
		return nil, err
	}
	if now != known { // nil: its user has logged out, or another one is logging in
		c.mu.Lock()
		defer c.mu.Unlock()
		c.login = now
		if known != nil {
			c.previous = known
		}
	}
	return now, err
}

// newToken makes a token with a ticket.
func (c *Client) newToken(t *ticket) (token []byte, err error) {
	err = contained(func() error {
		request, err := newAPReq(t, c.uniqueTime())
		if err == nil {
			token, err = initToken(request)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("negotiate: no token can be made with the ticket for %s: %w", t.SName.PrincipalNameString(), err)
	}
	return token, nil
}

// uniqueTime returns the time for an authenticator, in microseconds, which no other has: some servers take the second one
// for a replay.
func (c *Client) uniqueTime() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now().UnixMicro()
	if c.lastTime > now+time.Second.Microseconds() {
		c.lastTime = now // the clock was set back
	}
	c.lastTime = max(c.lastTime+1, now)
	return time.UnixMicro(c.lastTime).UTC()
}

var _ Renewer = (*Client)(nil)
var _ authretry.Starter = (*Scheme)(nil)

// Format keeps the password and keys out of everything that package fmt prints.
func (c *Client) Format(f fmt.State, _ rune) { io.WriteString(f, "negotiate.Client{}") }

// MarshalJSON keeps the password and keys out of JSON.
func (c *Client) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }
