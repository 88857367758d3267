package negotiate

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest/schemetest"
)

const loopbackSPN = "HTTP/127.0.0.1"

func TestSchemeKeepsTheContract(t *testing.T) {
	for _, s := range []*Scheme{{}, {Ahead: true}, {Mutual: true}, {SharedConnections: true, Ahead: true, Mutual: true}} {
		t.Run(fmt.Sprintf("ahead=%v,mutual=%v,shared=%v", s.Ahead, s.Mutual, s.SharedConnections), func(t *testing.T) {
			k := newTestKDC(t, loopbackSPN)
			var mu sync.Mutex // guards open
			var open []net.Conn
			t.Cleanup(func() {
				mu.Lock()
				defer mu.Unlock()
				for _, c := range open {
					c.Close()
				}
			})
			slow := k.client("alice")
			slow.dial = func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe() // which nobody reads from
				mu.Lock()
				defer mu.Unlock()
				open = append(open, theirs)
				return ours, nil
			}
			with := func(c *Client) *Scheme {
				return &Scheme{Kerberos: c, Ahead: s.Ahead, Mutual: s.Mutual, SharedConnections: s.SharedConnections}
			}
			schemetest.Run(t, func() authretry.Scheme { return with(k.client("alice")) }, schemetest.Options{
				Server: newTestService(k), Slow: func() authretry.Scheme { return with(slow) }, Secrets: []string{secret},
			})
		})
	}
}

func TestSchemeKeepsAccountsApart(t *testing.T) {
	for _, ahead := range []bool{false, true} {
		t.Run(fmt.Sprint(ahead), func(t *testing.T) {
			k := newTestKDC(t, loopbackSPN)
			var mu sync.Mutex
			logins := map[string]int{} // guarded by mu
			user := func(account string) string {
				mu.Lock()
				defer mu.Unlock()
				return fmt.Sprintf("%s-%d", account, logins[account])
			}
			accounts := map[string]http.Handler{}
			for _, account := range []string{"Mufasa", "Scar", "Nala"} {
				k.add(user(account), secret)
				srv := newTestService(k)
				srv.only = func() string { return user(account) }
				accounts[account] = srv
			}
			schemetest.Run(t, func() authretry.Scheme {
				return &Scheme{Ahead: ahead, Accounts: func(_ context.Context, account string) (Kerberos, error) { return k.client(user(account)), nil }}
			}, schemetest.Options{Accounts: accounts, Secrets: []string{secret}, Renew: func(account string) {
				mu.Lock()
				logins[account]++
				mu.Unlock()
				k.add(user(account), secret)
			}})
		})
	}
}
