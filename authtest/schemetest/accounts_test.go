package schemetest

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/authretry/authretry"
	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
)

// logins are the keys of accounts, "alice-1" to begin with.
type logins struct{ n sync.Map }

func (l *logins) key(account string) string {
	n, _ := l.n.LoadOrStore(account, 1)
	return fmt.Sprint(account, "-", n)
}

func (l *logins) renew(account string) {
	n, _ := l.n.LoadOrStore(account, 1)
	l.n.Store(account, n.(int)+1)
}

// server returns the server of an account.
func (l *logins) server(account string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Fake "+l.key(account) {
			w.Header().Set("WWW-Authenticate", `Fake realm="x"`)
			w.WriteHeader(401)
		}
	})
}

func (l *logins) options() Options {
	return Options{Accounts: map[string]http.Handler{"alice": l.server("alice"), "bob": l.server("bob")}, Renew: l.renew, AnswersAgain: true}
}

// session returns a Session that puts the key of an account as it is now.
func (l *logins) session(account string) put { return putting(l.key(account)) }

func putting(key string) put {
	return put{func(req *http.Request) error {
		req.Header.Set("Authorization", "Fake "+key)
		return nil
	}}
}

// An answerFunc returns the Session that answers a refusal.
type answerFunc = func(ctx context.Context, refusal *http.Response) authretry.Session

// answeringFor returns a function that makes fakes which answer by an answerFunc of their own.
func answeringFor(newFunc func() answerFunc) func() authretry.Scheme {
	return func() authretry.Scheme {
		session := newFunc()
		return &fake{answer: func(ctx context.Context, _ *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
			s := session(ctx, refusal)
			req := &http.Request{Header: http.Header{}}
			if s.Authorize(req.WithContext(ctx)); refusal.Request.Header.Get("Authorization") == req.Header.Get("Authorization") {
				return nil, authretry.ErrCredentialsRefused
			}
			return s, nil
		}}
	}
}

// A keeping is a Scheme that keeps the key of each account, and sends it ahead.
type keeping struct {
	fake
	*logins
	keys sync.Map
}

func (k *keeping) Start(ctx context.Context, _ *http.Request) (authretry.Session, error) {
	key, _ := k.keys.LoadOrStore(authretry.AccountOf(ctx), k.key(authretry.AccountOf(ctx)))
	return putting(key.(string)), nil
}

func (k *keeping) Answer(context.Context, *authretry.Challenge, *http.Response) (authretry.Session, error) {
	return nil, authretry.ErrCredentialsRefused
}

// A forgetting is a keeping that does what forget says.
type forgetting struct {
	keeping
	forget func(f *forgetting, account string)
}

func (f *forgetting) Forget(account string) { f.forget(f, account) }

func keepingBy(l *logins) keeping { return keeping{logins: l} }

func brokenAccounts() []broken {
	l := new(logins) // for those that are not renewed
	o := l.options()
	o.Renew = nil
	one := func(session answerFunc) func() authretry.Scheme {
		return answeringFor(func() answerFunc { return session })
	}
	forgets := func(name string, c clause, limit time.Duration, forget func(f *forgetting, account string)) broken {
		l := new(logins)
		o := l.options()
		o.limit = limit
		return broken{name, c, func() authretry.Scheme { return &forgetting{keepingBy(l), forget} }, o}
	}
	ignoring := new(logins)
	return []broken{
		{"keeps its first Session", clauseWhose, answeringFor(func() answerFunc {
			var first atomic.Pointer[put]
			return func(ctx context.Context, _ *http.Response) authretry.Session {
				s := l.session(authretry.AccountOf(ctx))
				first.CompareAndSwap(nil, &s)
				return *first.Load()
			}
		}), o},
		{"keeps a Session for each origin", clauseWhose, answeringFor(func() answerFunc {
			var byOrigin sync.Map
			return func(ctx context.Context, refusal *http.Response) authretry.Session {
				s, _ := byOrigin.LoadOrStore(refusal.Request.URL.Host, l.session(authretry.AccountOf(ctx)))
				return s.(put)
			}
		}), o},
		{"starts with its first account", clauseWhose, func() authretry.Scheme {
			var first atomic.Value
			return &starting{*answeringFor(func() answerFunc {
				return func(ctx context.Context, _ *http.Response) authretry.Session {
					return l.session(authretry.AccountOf(ctx))
				}
			})().(*fake), func(ctx context.Context, _ *http.Request) (authretry.Session, error) {
				first.CompareAndSwap(nil, authretry.AccountOf(ctx))
				return l.session(first.Load().(string)), nil
			}}
		}, o},
		{"goes by the path", clauseWhose, one(func(ctx context.Context, _ *http.Response) authretry.Session {
			return put{func(req *http.Request) error {
				account := authretry.AccountOf(req.Context())
				if req.URL != nil && strings.Contains(req.URL.Path, "bob") {
					account = "bob"
				}
				return l.session(account).Authorize(req)
			}}
		}), o},
		{"goes by the request that was answered last", clauseWhose, answeringFor(func() answerFunc {
			var last atomic.Value
			return func(ctx context.Context, _ *http.Response) authretry.Session {
				last.Store(authretry.AccountOf(ctx))
				time.Sleep(5 * ms)
				return l.session(last.Load().(string))
			}
		}), o},
		{"tries the next account", clauseWhose, one(func(ctx context.Context, refusal *http.Response) authretry.Session {
			if account := authretry.AccountOf(ctx); refusal.Request.Header.Get("Authorization") == "" {
				return l.session(account)
			}
			return l.session("bob")
		}), o},
		{"knows one account", clauseForWhom, one(func(context.Context, *http.Response) authretry.Session {
			return put{func(req *http.Request) error {
				if authretry.AccountOf(req.Context()) != "alice" {
					return errGaveUp
				}
				return l.session("alice").Authorize(req)
			}}
		}), o},
		{"has no Forget", clauseForget, func() authretry.Scheme { k := keepingBy(ignoring); return &k }, ignoring.options()},
		forgets("forgets nothing", clauseForget, 0, func(*forgetting, string) {}),
		forgets("forgets another", clauseForget, 0, func(f *forgetting, account string) { f.keys.Delete("alice") }),
		forgets("forgets for ever", clauseForget, 300*ms, func(*forgetting, string) { select {} }),
		forgets("panics in Forget", clausePanic, 0, func(f *forgetting, account string) { panic("no account") }),
	}
}

// Schemes that have other credentials for each account pass, whether they keep them, and wherever they ask for them.
func TestSoundSchemesWithAccounts(t *testing.T) {
	t.Parallel()
	for name, newScheme := range map[string]func(l *logins) authretry.Scheme{
		"keeps": func(l *logins) authretry.Scheme {
			return &forgetting{keepingBy(l), func(f *forgetting, account string) { f.keys.Delete(account) }}
		},
		"keeps until any is forgotten": func(l *logins) authretry.Scheme {
			return &forgetting{keepingBy(l), func(f *forgetting, _ string) { f.keys.Clear() }}
		},
		"asks in Answer": func(l *logins) authretry.Scheme {
			return answeringFor(func() answerFunc {
				return func(ctx context.Context, _ *http.Response) authretry.Session {
					return l.session(authretry.AccountOf(ctx))
				}
			})()
		},
		"asks in Authorize": func(l *logins) authretry.Scheme {
			return &starting{start: func(context.Context, *http.Request) (authretry.Session, error) {
				return put{func(req *http.Request) error {
					return l.session(authretry.AccountOf(req.Context())).Authorize(req)
				}}, nil
			}}
		},
	} {
		if thorough.Or(false, name == "keeps until any is forgotten" || name == "asks in Answer") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := new(logins)
			Run(t, func() authretry.Scheme { return newScheme(l) }, l.options())
		})
	}
}

// Connections that a Carrier has authenticated are for one account each.
func TestSoundCarrierWithAccounts(t *testing.T) {
	t.Parallel()
	var proved sync.Map
	handler := func(account string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Fake "); ok {
				proved.Store(connectionOf(r), key)
			}
			if whose, _ := proved.Load(connectionOf(r)); whose != account {
				w.Header().Set("WWW-Authenticate", `Fake realm="x"`)
				w.WriteHeader(401)
			}
		})
	}
	Run(t, func() authretry.Scheme {
		return &shaking{key: func(ctx context.Context) string { return authretry.AccountOf(ctx) }}
	}, Options{Accounts: map[string]http.Handler{"alice": handler("alice"), "bob": handler("bob")}, AnswersAgain: true})
}

// The account is the same wherever a Scheme may ask for it, also after a redirect to another's path.
func TestAccountIsTheSameInEveryMethod(t *testing.T) {
	t.Parallel()
	var asked [4]atomic.Int32
	note := func(ctx context.Context, req *http.Request, method int) {
		asked[method].Add(1)
		if want := []string{"alice", "bob"}[accountIn(req)]; authretry.AccountOf(ctx) != want {
			t.Errorf("%d: %q for %q", method, authretry.AccountOf(ctx), want)
		}
	}
	l := new(logins)
	Run(t, func() authretry.Scheme {
		return &starting{fake{answer: func(ctx context.Context, _ *authretry.Challenge, refusal *http.Response) (authretry.Session, error) {
			note(ctx, refusal.Request, 1)
			note(refusal.Request.Context(), refusal.Request, 1)
			if refusal.Request.Header.Get("Authorization") != "" {
				return nil, authretry.ErrCredentialsRefused
			}
			asker := refusal.Request
			return carrying{put{func(req *http.Request) error {
				note(req.Context(), req, 2)
				return l.session(authretry.AccountOf(req.Context())).Authorize(req)
			}}, func(ctx context.Context, base http.RoundTripper) (http.RoundTripper, error) {
				note(ctx, asker, 3)
				return base, nil
			}}, nil
		}}, func(ctx context.Context, req *http.Request) (authretry.Session, error) {
			note(ctx, req, 0)
			return nil, nil
		}}
	}, l.options())
	for method := range asked {
		require.NotZero(t, asked[method].Load(), method)
	}
}

func TestMisusedAccounts(t *testing.T) {
	l := new(logins)
	newScheme := func() authretry.Scheme { return &fake{} }
	accepting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Fake realm="x"`)
			w.WriteHeader(401)
		}
	})
	for want, o := range map[string]Options{
		"needs two accounts":                {Accounts: map[string]http.Handler{"alice": server}},
		"takes the place of Options.Server": {Accounts: map[string]http.Handler{"alice": server, "bob": server}, Server: server},
		`for account ""`:                    {Accounts: map[string]http.Handler{"alice": server, "": server}},
		`for account "bob"`:                 {Accounts: map[string]http.Handler{"alice": server, "bob": nil}},
		`for account "carol"`:               {Accounts: map[string]http.Handler{"alice": server, "carol": http.NotFoundHandler()}},
		"accept the same request":           {Accounts: map[string]http.Handler{"alice": accepting, "bob": accepting}},
		"the Session's requests":            {Accounts: map[string]http.Handler{"alice": l.server("alice"), "bob": l.server("bob")}},
	} {
		require.ErrorContains(t, Check(newScheme, o), want)
	}
}

// Credentials are another account's, too, if only the nonce is not that of its server.
func TestStaleCredentialsAreRight(t *testing.T) {
	for challenge, right := range map[string]bool{`Digest realm="x", nonce="n", stale=true`: true, `Digest realm="x", nonce="n"`: false} {
		rec := httptest.NewRecorder()
		rec.Header().Set("WWW-Authenticate", challenge)
		rec.WriteHeader(401)
		require.Equal(t, right, isRight(rec), challenge)
	}
}
