package authretry_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/authtest"
	"github.com/authretry/authretry/authtest/schemetest"
	"github.com/authretry/authretry/internal/thorough"
	"golang.org/x/oauth2"
)

const checkedSecret = "a-secret-of-the-check"

// waiting is a source of credentials that answers nobody.
func waiting(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestOwnSchemesKeepTheContract holds the Schemes of this package to what is asked of those of others.
func TestOwnSchemesKeepTheContract(t *testing.T) {
	t.Parallel()
	type testCase struct {
		guard        authtest.Guard
		scheme, slow func() authretry.Scheme
		answersAgain bool
	}
	token := &oauth2.Token{AccessToken: checkedSecret}
	credentials := func(ctx context.Context, _ authretry.CredentialsRequest) (string, string, error) {
		return "", "", waiting(ctx)
	}
	basic := &authtest.Basic{Username: "Mufasa", Password: checkedSecret}
	slowDigest := func() authretry.Scheme { return &authretry.Digest{Credentials: credentials} }
	bearer := &authtest.APIKey{Key: checkedSecret, Prefix: "Bearer"}
	slowBearer := func() authretry.Scheme {
		return &authretry.Bearer{Source: &authretry.TokenSource{
			Fetch: func(ctx context.Context, _ authretry.TokenRequest) (*oauth2.Token, error) { return nil, waiting(ctx) },
		}}
	}
	cases := map[string]testCase{
		"Basic": {basic,
			func() authretry.Scheme { return &authretry.Basic{Username: "Mufasa", Password: checkedSecret} },
			func() authretry.Scheme { return &authretry.Basic{Credentials: credentials} }, false},
		"Basic, ahead": {basic,
			func() authretry.Scheme {
				return &authretry.Basic{Username: "Mufasa", Password: checkedSecret, Ahead: true}
			},
			func() authretry.Scheme { return &authretry.Basic{Credentials: credentials, Ahead: true} }, false},
		"Bearer, static": {bearer,
			func() authretry.Scheme { return &authretry.Bearer{Source: oauth2.StaticTokenSource(token)} }, nil, false},
		"Bearer, not ahead": {bearer,
			func() authretry.Scheme {
				return &authretry.Bearer{Source: oauth2.StaticTokenSource(token), NotAhead: true}
			}, nil, false},
		"Bearer, TokenSource": {bearer, func() authretry.Scheme { return &authretry.Bearer{Source: renewing()} }, slowBearer, true},
		"Bearer, written outside": {bearer, func() authretry.Scheme { return &outsideBearer{tokens: renewing()} },
			func() authretry.Scheme {
				return &outsideBearer{tokens: slowBearer().(*authretry.Bearer).Source.(*authretry.TokenSource)}
			}, true},
		"Bearer, in a header of its own": {&authtest.APIKey{Key: checkedSecret, Header: "X-Auth-Token"},
			func() authretry.Scheme {
				return &authretry.Bearer{Source: oauth2.StaticTokenSource(token), Header: "X-Auth-Token"}
			}, nil, false},
		"APIKey, in a header of its own": {&authtest.APIKey{Key: checkedSecret, Header: "X-API-Key"},
			func() authretry.Scheme { return &authretry.APIKey{Key: checkedSecret, Header: "X-API-Key"} }, nil, false},
		"APIKey": {&authtest.APIKey{Key: checkedSecret},
			func() authretry.Scheme { return &authretry.APIKey{Key: checkedSecret} },
			func() authretry.Scheme {
				return &authretry.APIKey{KeyFunc: func(ctx context.Context, _ authretry.CredentialsRequest) (string, error) { return "", waiting(ctx) }}
			}, false},
	}
	// Those that differ little from others are tried if all is.
	rare := map[string]bool{"Basic, ahead": true, "Bearer, static": true, "Bearer, not ahead": true, "Bearer, in a header of its own": true, "APIKey": true, "Digest, nextnonce": true, "APIKey, in a header of its own": true,
		"Digest, auth": true, "Digest, auth-int": true, "Digest, MD5-sess": true, "Digest, without qop": true, "Digest, several, hash": true}
	for name, guard := range map[string]*authtest.Digest{
		"auth":          {},
		"auth-int":      {QOP: "auth-int"},
		"MD5-sess":      {Algorithms: []string{"MD5-sess"}},
		"without qop":   {QOP: authtest.NoQOP, Algorithms: []string{"MD5"}},
		"nextnonce":     {NextNonce: authtest.NextNonceAlways, Opaque: "opaque"},
		"few uses":      {NonceUses: 2},
		"several, hash": {Algorithms: []string{"SHA-512-256", "MD5"}, Userhash: true},
	} {
		guard.Username, guard.Password = "Mufasa", checkedSecret
		cases["Digest, "+name] = testCase{guard, func() authretry.Scheme {
			return &authretry.Digest{Username: "Mufasa", Password: checkedSecret}
		}, slowDigest, true} // whoever counts may have been refused for a count that came too late
	}
	for name, c := range cases {
		if thorough.Or(false, rare[name]) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := authtest.NewServer(c.guard)
			defer server.Close()
			schemetest.Run(t, c.scheme, schemetest.Options{
				Server: http.Handler(server), Slow: c.slow, Secrets: []string{checkedSecret}, AnswersAgain: c.answersAgain,
			})
		})
	}
}

// TestOwnSchemesKeepAccountsApart holds the Schemes of this package to what is asked of those that have other credentials
// for each account.
func TestOwnSchemesKeepAccountsApart(t *testing.T) {
	t.Parallel()
	basic := func(username, password string) (authtest.Guard, func(string)) {
		g := &authtest.Basic{Username: username, Password: password}
		return g, g.SetPassword
	}
	digest := func(nonceUses int) guardFunc {
		return func(username, password string) (authtest.Guard, func(string)) {
			g := &authtest.Digest{Username: username, Password: password, NonceUses: nonceUses}
			return g, g.SetPassword
		}
	}
	key := func(header, prefix string) guardFunc {
		return func(_, key string) (authtest.Guard, func(string)) {
			g := &authtest.APIKey{Key: key, Header: header, Prefix: prefix}
			return g, g.SetKey
		}
	}
	rare := map[string]bool{"Basic, ahead": true, "Digest": true, "APIKey": true, "APIKey, in a header of its own": true, "Bearer, static": true, "Bearer, not ahead": true}
	for name, c := range map[string]struct {
		guard  guardFunc
		scheme func(l *logins) authretry.Scheme
	}{
		"Basic":        {basic, func(l *logins) authretry.Scheme { return &authretry.Basic{Credentials: l.credentials} }},
		"Basic, ahead": {basic, func(l *logins) authretry.Scheme { return &authretry.Basic{Credentials: l.credentials, Ahead: true} }},
		"Digest":       {digest(0), func(l *logins) authretry.Scheme { return &authretry.Digest{Credentials: l.credentials} }},
		"Digest, few uses": {digest(2), func(l *logins) authretry.Scheme {
			return &authretry.Digest{Credentials: l.credentials}
		}},
		"APIKey": {key("", ""), func(l *logins) authretry.Scheme { return &authretry.APIKey{KeyFunc: l.key} }},
		"APIKey, in a header of its own": {key("X-API-Key", ""), func(l *logins) authretry.Scheme {
			return &authretry.APIKey{KeyFunc: l.key, Header: "X-API-Key"}
		}},
		"Bearer, static": {key("", "Bearer"), func(l *logins) authretry.Scheme {
			return &authretry.Bearer{Sources: func(_ context.Context, account string) (oauth2.TokenSource, error) {
				return oauth2.StaticTokenSource(&oauth2.Token{AccessToken: l.of(account)}), nil
			}}
		}},
		"Bearer, TokenSource": {key("", "Bearer"), func(l *logins) authretry.Scheme { return &authretry.Bearer{Sources: l.source} }},
		"Bearer, not ahead": {key("", "Bearer"), func(l *logins) authretry.Scheme {
			return &authretry.Bearer{Sources: l.source, NotAhead: true}
		}},
	} {
		if thorough.Or(false, rare[name]) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := &logins{change: map[string]func(string){}}
			accounts := map[string]http.Handler{}
			for _, account := range []string{"Mufasa", "Scar", "Nala"} {
				guard, change := c.guard(account, l.of(account))
				server := authtest.NewServer(guard)
				defer server.Close()
				accounts[account], l.change[account] = server, change
			}
			schemetest.Run(t, func() authretry.Scheme { return c.scheme(l) }, schemetest.Options{
				Accounts: accounts, Renew: l.renew, Secrets: []string{checkedSecret}, AnswersAgain: true,
			})
		})
	}
}

// A guardFunc returns the guard of a user, and what changes the secret that it accepts.
type guardFunc func(username, secret string) (authtest.Guard, func(secret string))

// logins are secrets of accounts, which change. The zero value has one for each.
type logins struct {
	renewals sync.Map                       // how often there was another, by account
	change   map[string]func(secret string) // has the server accept another
}

func (l *logins) of(account string) string {
	n, _ := l.renewals.LoadOrStore(account, 0)
	return fmt.Sprintf("%s-%s-%d", checkedSecret, account, n)
}

func (l *logins) renew(account string) {
	n, _ := l.renewals.LoadOrStore(account, 0)
	l.renewals.Store(account, n.(int)+1)
	l.change[account](l.of(account))
}

func (l *logins) credentials(_ context.Context, r authretry.CredentialsRequest) (string, string, error) {
	return r.Account, l.of(r.Account), nil
}

func (l *logins) key(_ context.Context, r authretry.CredentialsRequest) (string, error) {
	return l.of(r.Account), nil
}

func (l *logins) source(_ context.Context, account string) (oauth2.TokenSource, error) {
	token := &oauth2.Token{AccessToken: l.of(account), RefreshToken: "refresh"}
	return &authretry.TokenSource{
		Initial: token,
		Fetch:   func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) { return token, nil },
	}, nil
}

// renewing returns a source whose first token has been revoked.
func renewing() *authretry.TokenSource {
	return &authretry.TokenSource{
		Initial: &oauth2.Token{AccessToken: "revoked", RefreshToken: "refresh"},
		Fetch: func(context.Context, authretry.TokenRequest) (*oauth2.Token, error) {
			return &oauth2.Token{AccessToken: checkedSecret, RefreshToken: "refresh"}, nil
		},
	}
}

// Without these, package fmt would show the token that is in the TokenSource.

func (b *outsideBearer) Format(f fmt.State, _ rune) { io.WriteString(f, "outsideBearer") }
func (s outsideSession) Format(f fmt.State, _ rune) { io.WriteString(f, "outsideSession") }
