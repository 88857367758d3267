package dpop_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/authtest/schemetest"
	"github.com/authretry/authretry/dpop"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// The second login fails, and then the account is asked for again.
func TestAccounts(t *testing.T) {
	guard := &authtest.DPoP{Nonces: authtest.NonceEachMinute}
	srv := authtest.NewServer(guard)
	defer srv.Close()
	var asked sync.Map
	s := &dpop.Scheme{Sources: func(_ context.Context, account string) (*authretry.TokenSource, *dpop.Key, error) {
		n, _ := asked.LoadOrStore(account, new(atomic.Int32))
		if n.(*atomic.Int32).Add(1) == 1 && account == "fails" {
			return nil, nil, errors.New("no such user")
		}
		key := newKey(t)
		return &authretry.TokenSource{Initial: guard.Login(key.Thumbprint())}, key, nil
	}}
	transport := &authretry.Transport{Schemes: []authretry.Scheme{s}, Account: func(r *http.Request) string { return r.Header.Get("X-User") }}
	get := func(user string) error {
		req := newRequest(t, srv.URL)
		req.Header.Set("X-User", user)
		resp, err := transport.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode)
		}
		return err
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() { get(fmt.Sprint("user", i%4)) })
	}
	wg.Wait()
	for i := range 4 {
		n, _ := asked.Load(fmt.Sprint("user", i))
		require.EqualValues(t, 1, n.(*atomic.Int32).Load())
	}
	require.ErrorContains(t, get("fails"), "no such user")
	require.NoError(t, get("fails"))
	transport.Forget("user1")
	require.NoError(t, get("user1"))
	n, _ := asked.Load("user1")
	require.EqualValues(t, 2, n.(*atomic.Int32).Load())
	require.Zero(t, guard.Replays())
}

const checkedSecret = "a-secret-of-the-check"

func TestSchemeKeepsTheContract(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	token := func(access string) *oauth2.Token {
		return &oauth2.Token{AccessToken: access, TokenType: "DPoP", RefreshToken: "refresh-" + checkedSecret}
	}
	accepting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "DPoP "+checkedSecret || len(r.Header["Dpop"]) != 1 || r.Header.Get("DPoP") == "the caller's" {
			refuse(w, `DPoP realm="x", algs="ES256"`, "")
		}
	})
	renewing := func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) { return token(checkedSecret), nil }
	slow := func() authretry.Scheme {
		return &dpop.Scheme{Key: key, Source: &authretry.TokenSource{Fetch: func(ctx context.Context, _ authretry.TokenRequest) (*oauth2.Token, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}}
	}
	for name, scheme := range map[string]func() authretry.Scheme{
		"static": func() authretry.Scheme {
			return &dpop.Scheme{Key: key, Source: &authretry.TokenSource{Initial: token(checkedSecret)}}
		},
		"renewing": func() authretry.Scheme {
			return &dpop.Scheme{Key: key, Source: &authretry.TokenSource{Initial: token("revoked"), Fetch: renewing}}
		},
		"steps up": func() authretry.Scheme {
			return &dpop.Scheme{Key: key, Source: &authretry.TokenSource{Initial: token(checkedSecret), Fetch: renewing}, StepUp: true}
		},
		"not ahead": func() authretry.Scheme {
			return &dpop.Scheme{Key: key, Source: &authretry.TokenSource{Initial: token(checkedSecret)}, NotAhead: true}
		},
	} {
		if thorough.Or(false, name == "static" || name == "steps up") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			schemetest.Run(t, scheme, schemetest.Options{Server: accepting, Slow: slow, Secrets: []string{checkedSecret}, AnswersAgain: name == "renewing" || name == "steps up"})
		})
	}
}

func TestSchemeKeepsAccountsApart(t *testing.T) {
	t.Parallel()
	var renewals sync.Map
	of := func(account string) string {
		n, _ := renewals.LoadOrStore(account, 0)
		return fmt.Sprintf("%s-%s-%d", checkedSecret, account, n)
	}
	accounts := map[string]http.Handler{}
	keys := map[string]*dpop.Key{}
	for _, account := range []string{"Mufasa", "Scar", "Nala"} {
		keys[account] = newKey(t)
		accounts[account] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "DPoP "+of(account) || len(r.Header["Dpop"]) != 1 {
				refuse(w, "DPoP", "")
			}
		})
	}
	schemetest.Run(t, func() authretry.Scheme {
		return &dpop.Scheme{Sources: func(_ context.Context, account string) (*authretry.TokenSource, *dpop.Key, error) {
			token := &oauth2.Token{AccessToken: of(account), TokenType: "DPoP", RefreshToken: "r"}
			fetch := func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) { return token, nil }
			return &authretry.TokenSource{Initial: token, Fetch: fetch}, keys[account], nil
		}}
	}, schemetest.Options{Accounts: accounts, Secrets: []string{checkedSecret}, AnswersAgain: true, Renew: func(account string) {
		n, _ := renewals.LoadOrStore(account, 0)
		renewals.Store(account, n.(int)+1)
	}})
}
