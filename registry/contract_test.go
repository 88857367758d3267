package registry_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest/schemetest"
	"github.com/authretry/authretry/registry"
)

const checkedSecret = "a-secret-of-the-check"

// tokensOf is a registry, and a token server beside it, for the credentials that a func returns.
func tokensOf(credentials func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, sent, _ := r.BasicAuth()
		switch {
		case r.URL.Path == "/the-token-server" && sent == credentials():
			fmt.Fprintf(w, `{"token":"%s-token","expires_in":300}`, credentials())
		case r.URL.Path == "/the-token-server":
			w.WriteHeader(http.StatusUnauthorized)
		case r.Header.Get("Authorization") != "Bearer "+credentials()+"-token":
			w.Header().Set("WWW-Authenticate", `Bearer realm="/the-token-server",service="s",scope="repository:a:pull"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
}

func TestSchemeKeepsTheContract(t *testing.T) {
	t.Parallel()
	slow := func() authretry.Scheme {
		return &registry.Scheme{Credentials: func(ctx context.Context, _ authretry.CredentialsRequest) (string, string, error) {
			<-ctx.Done()
			return "", "", ctx.Err()
		}}
	}
	schemetest.Run(t, func() authretry.Scheme {
		return &registry.Scheme{Credentials: func(context.Context, authretry.CredentialsRequest) (string, string, error) {
			return "u", checkedSecret, nil
		}}
	}, schemetest.Options{Server: tokensOf(func() string { return checkedSecret }), Slow: slow, Secrets: []string{checkedSecret}, AnswersAgain: true})
}

func TestSchemeKeepsAccountsApart(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	renewals := map[string]int{} // guarded by mu
	of := func(account string) string {
		mu.Lock()
		defer mu.Unlock()
		return fmt.Sprintf("%s-%s-%d", checkedSecret, account, renewals[account])
	}
	accounts := map[string]http.Handler{}
	for _, account := range []string{"Mufasa", "Scar", "Nala"} {
		accounts[account] = tokensOf(func() string { return of(account) })
	}
	schemetest.Run(t, func() authretry.Scheme {
		return &registry.Scheme{Credentials: func(_ context.Context, r authretry.CredentialsRequest) (string, string, error) {
			return r.Account, of(r.Account), nil
		}}
	}, schemetest.Options{Accounts: accounts, Secrets: []string{checkedSecret}, AnswersAgain: true, Renew: func(account string) {
		mu.Lock()
		defer mu.Unlock()
		renewals[account]++
	}})
}
