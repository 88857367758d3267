package authretry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A person is somebody who logs in when asked, and takes their time.
type person struct {
	takes  time.Duration
	err    error
	asked  atomic.Int32
	gaveUp atomic.Int32 // how often the context ended first
	last   TokenRequest
}

func (p *person) login(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
	n := p.asked.Add(1)
	p.last = r
	select {
	case <-time.After(p.takes):
	case <-ctx.Done():
		p.gaveUp.Add(1)
		return nil, ctx.Err()
	}
	if p.err != nil {
		return nil, p.err
	}
	return &oauth2.Token{AccessToken: fmt.Sprint("login-", n), RefreshToken: fmt.Sprint("r-login-", n)}, nil
}

// Where nothing else helps, one person is asked once, however many wait.
func TestLoginIsAskedOnceWhereALoginIsRequired(t *testing.T) {
	for name, src := range map[string]*TokenSource{
		"nothing at all": {},
		"refused for good": {Initial: &oauth2.Token{RefreshToken: "r"}, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			return nil, refusal(400, "invalid_grant")
		}},
		"no refresh token": {Initial: &oauth2.Token{AccessToken: "a", Expiry: time.Unix(1, 0)}, Fetch: (&TokenEndpoint{URL: "https://auth.test/"}).Refresh()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &person{takes: time.Minute}
				src.Login = p.login
				var all sync.WaitGroup
				for range 50 {
					all.Go(func() {
						got, err := src.Token()
						if err != nil || got.AccessToken != "login-1" {
							t.Errorf("%v", err)
						}
					})
				}
				all.Wait()
				require.EqualValues(t, 1, p.asked.Load())
				got, err := src.Token()
				require.NoError(t, err)
				require.Equal(t, "r-login-1", got.RefreshToken)
			})
		})
	}
}

// What passes is no reason to ask a person, nor is the client's secret.
func TestLoginIsNotAskedForWhatPasses(t *testing.T) {
	for _, fail := range []error{errors.New("down"), refusal(503, ""), refusal(404, ""), refusal(403, ""), refusal(401, "invalid_client"), refusal(400, "invalid_scope")} {
		for _, initial := range []*oauth2.Token{nil, {RefreshToken: "r"}} {
			synctest.Test(t, func(t *testing.T) {
				p := &person{}
				src := &TokenSource{Initial: initial, Login: p.login, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { return nil, fail }}
				_, err := src.Token()
				require.Error(t, err)
				require.Zero(t, p.asked.Load(), "%v", fail)
			})
		}
	}
}

func TestLoginThatIsDeclined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{takes: time.Second, err: errors.New("access_denied")}
		src := &TokenSource{Login: p.login}
		for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(100 * time.Millisecond) {
			_, err := src.Token()
			require.ErrorIs(t, err, ErrLoginRequired)
			require.ErrorContains(t, err, "access_denied")
		}
		require.LessOrEqual(t, p.asked.Load(), int32(6), "not before MinRefreshInterval is over")
		require.NoError(t, src.Set(&oauth2.Token{AccessToken: "a"}))
		_, err := src.Token()
		require.NoError(t, err)
	})
}

// A login ends when nobody waits any more, when its time is over, and if it does what it should not.
func TestLoginEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{takes: time.Hour}
		src := &TokenSource{Login: p.login, MinRefreshInterval: time.Second}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		_, err := src.Obtain(ctx, TokenRequest{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Minute, time.Since(start))
		synctest.Wait()
		require.EqualValues(t, 1, p.gaveUp.Load(), "nobody waits")

		time.Sleep(time.Minute)
		start = time.Now()
		_, err = src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
		require.ErrorContains(t, err, "LoginTimeout")
		require.Equal(t, 5*time.Minute, time.Since(start))
		synctest.Wait()
		require.EqualValues(t, 2, p.gaveUp.Load())

		// Whose context ends does not wait for a Login that does not heed its own.
		src = &TokenSource{Login: func(context.Context, TokenRequest) (*oauth2.Token, error) { time.Sleep(time.Hour); return nil, p.err }}
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start = time.Now()
		_, err = src.Obtain(ctx, TokenRequest{})
		require.EqualError(t, err, "authretry: the request's own time limit (the deadline of its context, or http.Client.Timeout) was over before somebody had logged in, "+
			"and a login ends when no request waits for it; log in before the first request, by TokenSource.Obtain, or set no such limit: context deadline exceeded")
		require.Equal(t, time.Minute, time.Since(start))
		_, err = (&http.Client{Timeout: time.Minute, Transport: New(&Bearer{Source: src})}).Get("https://api.test/")
		require.True(t, err.(*url.Error).Timeout())
		require.ErrorContains(t, err, "log in before the first request, by TokenSource.Obtain")
		time.Sleep(time.Hour)
	})
	for name, login := range map[string]FetchFunc{
		"panics":          func(context.Context, TokenRequest) (*oauth2.Token, error) { panic("secret") },
		"exits":           func(context.Context, TokenRequest) (*oauth2.Token, error) { runtime.Goexit(); return nil, nil },
		"returns nothing": func(context.Context, TokenRequest) (*oauth2.Token, error) { return nil, nil },
		"returns no token": func(context.Context, TokenRequest) (*oauth2.Token, error) {
			return &oauth2.Token{RefreshToken: "r"}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, err := (&TokenSource{Login: login}).Token()
				require.ErrorIs(t, err, ErrLoginRequired)
				require.NotContains(t, err.Error(), "secret")
			})
		})
	}
}

// A Login that does not heed its context keeps nobody waiting, and what it brings is used all the same.
func TestLoginThatIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{LoginTimeout: time.Minute, Login: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			time.Sleep(time.Hour)
			return &oauth2.Token{AccessToken: "late"}, nil
		}}
		start := time.Now()
		_, err := src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
		require.Equal(t, time.Minute, time.Since(start))
		time.Sleep(time.Hour)
		synctest.Wait()
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "late", got.AccessToken)
	})
}

// Refreshes go on beside a login, and only those wait for it who need it.
func TestRefreshesGoOnBesideALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newGrantingIssuer()
		p := &person{takes: time.Minute}
		store := newSharedStore(nil)
		store.put(i.initial())
		src := &TokenSource{Store: store, Login: p.login, Fetch: func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
			if len(r.Scopes) > 1 {
				return nil, fmt.Errorf("%w: a person has to consent", ErrLoginRequired)
			}
			return i.fetch(ctx, r)
		}}
		var all sync.WaitGroup
		for _, r := range []TokenRequest{{Scopes: []string{"more"}}, {MaxAge: time.Hour, HasMaxAge: true}} {
			all.Go(func() {
				got, err := src.Obtain(t.Context(), r)
				if err != nil || !strings.HasPrefix(got.AccessToken, "login-") {
					t.Errorf("%v", err)
				}
			})
		}
		time.Sleep(10 * time.Second)
		start := time.Now()
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "t0", got.AccessToken)
		got, err = src.Refresh(t.Context(), got)
		require.NoError(t, err)
		require.Equal(t, "base", got.Extra("scope"))
		require.Less(t, time.Since(start), time.Second, "the store is not locked")
		all.Wait()
		require.LessOrEqual(t, p.asked.Load(), int32(2))
		require.Equal(t, store.record().Token.AccessToken, tokenOf(t, src))
	})
}

func tokenOf(t *testing.T, src *TokenSource) string {
	t.Helper()
	got, err := src.Token()
	require.NoError(t, err)
	return got.AccessToken
}

// Nobody is asked where nobody waits.
func TestLoginIsNotAskedInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{}
		background := atomic.Int32{}
		src := &TokenSource{Login: p.login, Initial: &oauth2.Token{AccessToken: "a", RefreshToken: "r", Expiry: time.Now().Add(time.Hour)},
			Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
				if r.Background {
					background.Add(1)
				}
				return nil, refusal(400, "invalid_grant")
			}}
		for start := time.Now(); time.Since(start) < 59*time.Minute; time.Sleep(time.Second) {
			require.Equal(t, "a", tokenOf(t, src))
		}
		require.EqualValues(t, 1, background.Load())
		require.Zero(t, p.asked.Load())
		time.Sleep(2 * time.Minute)
		require.Equal(t, "login-1", tokenOf(t, src), "somebody waits now")
	})
}

// lockingStore is a TokenStore that has one person asked over all processes.
type lockingStore struct {
	*sharedStore
	logins chan struct{}
}

func (s lockingStore) LockLogin(ctx context.Context) (func(), error) {
	select {
	case s.logins <- struct{}{}:
		return func() { <-s.logins }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Nobody is asked without the lock, and why there is none is said.
func TestLockLoginThatFails(t *testing.T) {
	p, broken := &person{}, errors.New("the keyring is locked")
	src := &TokenSource{Store: unlockable{newSharedStore(nil), broken}, Login: p.login}
	_, err := src.Token()
	require.ErrorIs(t, err, broken)
	require.Zero(t, p.asked.Load())
}

type unlockable struct {
	*sharedStore
	err error
}

func (s unlockable) LockLogin(context.Context) (func(), error) { return nil, s.err }

func TestLockLoginAsksOnePersonOverAllProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{takes: time.Minute}
		store := lockingStore{newSharedStore(nil), make(chan struct{}, 1)}
		var all sync.WaitGroup
		for range 5 {
			src := &TokenSource{Store: store, Login: p.login}
			for range 5 {
				all.Go(func() {
					got, err := src.Token()
					if err != nil || got.AccessToken != "login-1" {
						t.Errorf("%v", err)
					}
				})
			}
		}
		all.Wait()
		require.EqualValues(t, 1, p.asked.Load())
		require.Equal(t, "login-1", store.record().Token.AccessToken)
	})
}

// A login with which the server is still not content is asked for once for a request.
func TestStepUpByLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{takes: time.Second}
		base, sent := challenging(401, func(int) string { return `Bearer error="insufficient_user_authentication", acr_values="urn:strong"` })
		src := &TokenSource{Login: p.login, Initial: old()}
		transport := &Transport{Base: base, Schemes: []Scheme{&Bearer{Source: src, StepUp: true}}}
		resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
		require.NoError(t, err)
		require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
		require.EqualValues(t, 2, sent.Load())
		require.EqualValues(t, 1, p.asked.Load())
		require.Equal(t, "old", p.last.Previous.AccessToken)
		require.Equal(t, []string{"urn:strong"}, p.last.ACRValues)
		require.NotNil(t, p.last.Challenge)
		for range 20 { // what the login has just been asked for is not asked for again
			_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://api.test/", nil))
			require.NoError(t, err)
		}
		require.EqualValues(t, 1, p.asked.Load())
	})
}

// An unlockedStore is one whose lock keeps nobody out, and that saves only over what it has shown all the same.
type unlockedStore struct{ *sharedStore }

func (s unlockedStore) Update(ctx context.Context, fn func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	current := s.record()
	r, err := fn(ctx, current, func(context.Context) error { return nil })
	if err != nil || r == nil {
		return err
	}
	return s.sharedStore.Update(ctx, func(_ context.Context, now *Record, _ func(context.Context) error) (*Record, error) {
		if now != current {
			return nil, errors.New("another record is there by now")
		}
		return r, nil
	})
}

// What took too long is not LoginTimeout's, if the login itself has time left.
func TestLoginWithARequestThatTakesTooLong(t *testing.T) {
	src := &TokenSource{Login: func(context.Context, TokenRequest) (*oauth2.Token, error) {
		return nil, fmt.Errorf("the server does not answer: %w", context.DeadlineExceeded)
	}}
	_, err := src.Token()
	require.ErrorIs(t, err, ErrLoginRequired)
	require.NotContains(t, err.Error(), "LoginTimeout")
}

// A login that could not be saved is saved later; one that was saved is not saved again.
func TestLoginIsSavedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{}
		store := newSharedStore(nil)
		store.change(func(s *sharedStore) { s.failSave = errors.New("disk full") })
		src := &TokenSource{Store: store, Login: p.login}
		require.Equal(t, "login-1", tokenOf(t, src))
		store.change(func(s *sharedStore) { s.failSave = nil })
		time.Sleep(time.Minute)
		require.Equal(t, "r-login-1", store.get().RefreshToken)
		updates := store.updates.Load()
		time.Sleep(time.Hour)
		require.Equal(t, updates, store.updates.Load())

		store = newSharedStore(nil)
		src = &TokenSource{Store: store, Login: p.login}
		require.Equal(t, "login-2", tokenOf(t, src))
		updates = store.updates.Load()
		time.Sleep(time.Hour)
		require.Equal(t, updates, store.updates.Load())
		require.Nil(t, src.current.Load().unsaved.Load())
	})
}

// Who has asked for a scope is told that the login has not brought it; the others go on with what it has.
func TestLoginThatGrantsLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Login: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			return (&oauth2.Token{AccessToken: "login"}).WithExtra(map[string]any{"scope": "read"}), nil
		}}
		_, err := src.Obtain(t.Context(), TokenRequest{Scopes: []string{"write"}})
		rejection, ok := errors.AsType[*Rejection](err)
		require.True(t, ok)
		require.Equal(t, ReasonInsufficientScope, rejection.Reason)
		require.Equal(t, "login", tokenOf(t, src))
	})
}

// Nobody is asked to log in where there is a token by now, or for who is gone.
func TestLoginThatIsNotNeededAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{}
		src := &TokenSource{Login: p.login}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		run, _, err := src.joinLogin(gone, new(demand))
		require.Nil(t, run)
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, src.Set(old()))
		run, got, err := src.joinLogin(t.Context(), new(demand))
		require.NoError(t, err)
		require.Nil(t, run)
		require.Equal(t, "old", got.AccessToken)
		synctest.Wait()
		require.Zero(t, p.asked.Load())
	})
}

// Those whose needs a login under way will not meet are united in the next one.
func TestNextLoginIsForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked [][]string
		src := &TokenSource{Initial: &oauth2.Token{AccessToken: "a"}, Login: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			asked = append(asked, r.Scopes)
			time.Sleep(time.Minute)
			return (&oauth2.Token{AccessToken: fmt.Sprint("login-", len(asked))}).WithExtra(map[string]any{"scope": strings.Join(r.Scopes, " ")}), nil
		}}
		var all sync.WaitGroup
		for _, scope := range []string{"a", "b", "c"} {
			all.Go(func() {
				_, err := src.Obtain(t.Context(), TokenRequest{Scopes: []string{scope}})
				if err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		all.Wait()
		require.Len(t, asked, 2)
		require.Subset(t, asked[1], []string{"b", "c"})
	})
}

// A lockWatch calls a function before it frees the lock.
type lockWatch struct {
	*sharedStore
	before func()
}

func (s lockWatch) Update(ctx context.Context, fn func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	return s.sharedStore.Update(ctx, func(ctx context.Context, r *Record, confirm func(context.Context) error) (*Record, error) {
		defer s.before()
		return fn(ctx, r, confirm)
	})
}

// NewLogin asks whatever there is: a token that looks good, one that was declined a moment ago, a login that is dead.
func TestNewLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{takes: time.Second}
		store := newSharedStore(login("dead"))
		src := &TokenSource{Store: store, Login: p.login}
		require.Equal(t, "dead", tokenOf(t, src))
		got, err := src.NewLogin(t.Context())
		require.NoError(t, err)
		require.Equal(t, "login-1", got.AccessToken)
		require.Equal(t, "login-1", store.get().AccessToken)
		require.Equal(t, "login-1", tokenOf(t, src))
		require.Equal(t, "dead", p.last.Previous.AccessToken)

		p.err = errors.New("declined")
		_, err = src.NewLogin(t.Context())
		require.ErrorIs(t, err, p.err)
		require.Equal(t, "login-1", tokenOf(t, src), "what there was stays")
		p.err = nil
		got, err = src.NewLogin(t.Context())
		require.NoError(t, err)
		require.Equal(t, "login-3", got.AccessToken)

		// Two who want one share it; whoever has a token need not wait.
		results := make(chan string, 2)
		for range 2 {
			go func() {
				got, err := src.NewLogin(t.Context())
				if err != nil {
					results <- err.Error()
					return
				}
				results <- got.AccessToken
			}()
		}
		synctest.Wait()
		require.Equal(t, "login-3", tokenOf(t, src))
		require.Equal(t, "login-4", <-results)
		require.Equal(t, "login-4", <-results)
		require.EqualValues(t, 4, p.asked.Load())

		// It ends when nobody waits any more.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		_, err = src.NewLogin(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		synctest.Wait()
		require.EqualValues(t, 1, p.gaveUp.Load())
		require.Equal(t, "login-4", tokenOf(t, src))
	})
}

// What Login returns may have to be refreshed first; and where there is no Login, nobody can be asked.
func TestNewLoginThatHasToBeRefreshed(t *testing.T) {
	i := &rotatingIssuer{valid: "r0"}
	src := &TokenSource{Fetch: i.fetch, Login: func(context.Context, TokenRequest) (*oauth2.Token, error) {
		return &oauth2.Token{RefreshToken: "r0"}, nil
	}}
	got, err := src.NewLogin(t.Context())
	require.NoError(t, err)
	require.Equal(t, "a1", got.AccessToken)
	_, err = (&TokenSource{Initial: login("a")}).NewLogin(t.Context())
	require.ErrorIs(t, err, ErrLoginRequired)
	src.Login = func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) { return src.NewLogin(ctx) }
	_, err = src.NewLogin(t.Context())
	require.ErrorIs(t, err, errRecursion)
}
