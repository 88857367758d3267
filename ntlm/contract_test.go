package ntlm_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest/schemetest"
	"github.com/authretry/authretry/ntlm"
)

// judges are servers that know connections by their addresses, and have one memory.
type judges struct {
	mu    sync.Mutex // guards what follows
	conns map[string]*labConn
}

// of returns the server for a user, with the password that a func returns.
func (j *judges) of(name string, password func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		j.mu.Lock()
		defer j.mu.Unlock()
		at := fmt.Sprint(r.Context().Value(http.LocalAddrContextKey), r.RemoteAddr)
		c := j.conns[at]
		if c == nil {
			c = &labConn{nonce: []byte("12345678")}
			j.conns[at] = c
		}
		_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		message, _ := base64.StdEncoding.DecodeString(token)
		if m, err := parse3(message); err == nil {
			if m.user == name {
				c.user = ""
			}
			if m.user == name && m.verify(password(), c.nonce) {
				c.user = name
			}
		}
		if kindOf("NTLM", token) != "1" && c.user == name {
			return
		}
		challenge := "NTLM"
		if kindOf("NTLM", token) == "1" {
			c.user = ""
			challenge += " " + base64.StdEncoding.EncodeToString(message2{nonce: c.nonce, info: pair(0, nil), flags: usualFlags}.bytes())
		}
		w.Header().Set("WWW-Authenticate", challenge)
		w.WriteHeader(http.StatusUnauthorized)
	})
}

func TestSchemeKeepsTheContract(t *testing.T) {
	j := &judges{conns: map[string]*labConn{}}
	schemetest.Run(t, func() authretry.Scheme { return &ntlm.Scheme{Username: "mufasa", Password: secret} }, schemetest.Options{
		Server: j.of("mufasa", func() string { return secret }),
		Slow: func() authretry.Scheme {
			return &ntlm.Scheme{Credentials: func(ctx context.Context, _ authretry.CredentialsRequest) (string, string, error) {
				<-ctx.Done()
				return "", "", ctx.Err()
			}}
		},
		Secrets:      []string{secret},
		AnswersAgain: true,
	})
}

func TestSchemeKeepsAccountsApart(t *testing.T) {
	j := &judges{conns: map[string]*labConn{}}
	var mu sync.Mutex
	renewals := map[string]int{} // guarded by mu
	of := func(account string) string {
		mu.Lock()
		defer mu.Unlock()
		return fmt.Sprintf("%s-%s-%d", secret, account, renewals[account])
	}
	accounts := map[string]http.Handler{}
	for _, account := range []string{"mufasa", "scar", "nala"} {
		accounts[account] = j.of(account, func() string { return of(account) })
	}
	schemetest.Run(t, func() authretry.Scheme {
		return &ntlm.Scheme{Credentials: func(_ context.Context, r authretry.CredentialsRequest) (string, string, error) {
			return r.Account, of(r.Account), nil
		}}
	}, schemetest.Options{Accounts: accounts, Secrets: []string{secret}, AnswersAgain: true, Renew: func(account string) {
		mu.Lock()
		defer mu.Unlock()
		renewals[account]++
	}})
}

// dialling connects to an address, whatever is asked for.
func dialling(address string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
}
