package negotiate

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/alexbrainman/sspi"
	"github.com/alexbrainman/sspi/kerberos"
	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Default returns the Kerberos of whoever runs the program: on Windows the one of SSPI, which has not been tested with a server;
// elsewhere a [Client] with the default credential cache.
func Default() Kerberos { return &system{turns: make(chan struct{}, maxExchanges)} }

const (
	maxContexts = 256              // that wait for a reply
	sspiLimit   = 30 * time.Second // how long a caller waits that has no deadline of its own
)

// A system is the Kerberos of SSPI, with the credentials of the user who is logged on.
type system struct {
	turns chan struct{} // has room for the calls that may be under way

	mu       sync.Mutex // guards what follows
	user     *sspi.Credentials
	contexts *simplelru.LRU[string, *kerberos.ClientContext] // by token
}

// Token implements [Kerberos]. SSPI knows no contexts, so a call that has begun ends behind who waits for it.
func (s *system) Token(ctx context.Context, spn string) ([]byte, error) {
	select {
	case s.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	p := begin(sspiLimit, func(context.Context) ([]byte, error) {
		defer func() { <-s.turns }()
		return s.newToken(spn)
	})
	return p.wait(ctx)
}

func (s *system) newToken(spn string) ([]byte, error) {
	user, err := s.credentials()
	if err != nil {
		return nil, fmt.Errorf("negotiate: SSPI has no credentials of the user: %w", err)
	}
	c, _, inner, err := kerberos.NewClientContextWithFlags(user, spn, sspi.ISC_REQ_CONNECTION|sspi.ISC_REQ_MUTUAL_AUTH)
	if err != nil {
		return nil, fmt.Errorf("negotiate: SSPI makes no token for %s: %w", spn, err)
	}
	token, err := offered(inner)
	if err != nil {
		c.Release()
		return nil, fmt.Errorf("negotiate: no token can be made of what SSPI says: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.contexts == nil {
		s.contexts, _ = simplelru.NewLRU(maxContexts, func(_ string, old *kerberos.ClientContext) { old.Release() })
	}
	s.contexts.Add(string(token), c)
	return token, nil
}

func (s *system) credentials() (*sspi.Credentials, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.user != nil {
		return s.user, nil
	}
	user, err := kerberos.AcquireCurrentUserCredentials()
	if err == nil {
		s.user = user
	}
	return user, err
}

// Verify implements [Kerberos].
func (s *system) Verify(_ string, token, answer []byte) error {
	r, err := acceptance(answer)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.contexts == nil {
		return errNoKey
	}
	c, ok := s.contexts.Peek(string(token))
	if !ok {
		return errNoKey
	}
	defer s.contexts.Remove(string(token)) // which releases it
	done, _, err := c.Update(r.token)
	if err == nil && !done {
		err = errNoToken
	}
	return err
}

// Format shows nothing of the user.
func (s *system) Format(f fmt.State, _ rune) { io.WriteString(f, "negotiate.system{}") }
