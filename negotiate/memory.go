package negotiate

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	maxAccounts  = 1 << 10          // whose Kerberos is kept
	accountLimit = 30 * time.Second // how long Scheme.Accounts may take
)

// memory is what a Scheme remembers. The zero value is ready for use.
type memory struct {
	carriers carriers

	mu       sync.Mutex // guards what follows, for no longer than a look
	accounts *simplelru.LRU[string, *pending[Kerberos]]
	usual    Kerberos // the default
}

func (m *memory) defaultKerberos() Kerberos {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.usual == nil {
		m.usual = Default()
	}
	return m.usual
}

// account returns the Kerberos of an account, for which ask is called once however many wait for it.
func (m *memory) account(ctx context.Context, account string, ask func(context.Context, string) (Kerberos, error)) (Kerberos, error) {
	m.mu.Lock()
	if m.accounts == nil {
		m.accounts, _ = simplelru.NewLRU[string, *pending[Kerberos]](maxAccounts, nil)
	}
	p, ok := m.accounts.Get(account)
	if !ok || p.hasFailed() {
		p = begin(accountLimit, func(ctx context.Context) (Kerberos, error) {
			k, err := ask(ctx, account)
			if err == nil && k == nil {
				err = errors.New("negotiate: Scheme.Accounts returned neither a Kerberos nor an error")
			}
			return k, err
		})
		m.accounts.Add(account, p)
	}
	m.mu.Unlock()
	return p.wait(ctx)
}

// forget forgets what there is of an account.
func (m *memory) forget(account string) {
	m.mu.Lock()
	if m.accounts != nil {
		m.accounts.Remove(account)
	}
	m.mu.Unlock()
	m.carriers.forget(account)
}
