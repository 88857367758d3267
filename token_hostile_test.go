package authretry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// A server that refuses every token has a person asked once in MinRefreshInterval, and not with each request.
func TestServerThatRefusesEveryLogin(t *testing.T) {
	for name, fetch := range map[string]FetchFunc{
		"no Fetch":        nil,
		"no way by Fetch": func(context.Context, TokenRequest) (*oauth2.Token, error) { return nil, ErrLoginRequired },
	} {
		for what, initial := range map[string]*oauth2.Token{"a token": {AccessToken: "T0", RefreshToken: "R0"}, "none": nil} {
			for whether, store := range map[string]TokenStore{"a Store": newSharedStore(nil), "no Store": nil} {
				t.Run(fmt.Sprint(name, ", ", what, ", ", whether), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						if store != nil {
							store = newSharedStore(nil)
						}
						p := &person{}
						src := &TokenSource{Fetch: fetch, Initial: initial, Store: store, Login: p.login}
						client := &http.Client{Transport: New(&Bearer{Source: src})}
						client.Transport.(*Transport).Base = refusingAll(`Bearer error="invalid_token"`)
						for range 10 {
							resp, err := client.Get("https://a.test/")
							require.NoError(t, err)
							require.Equal(t, 401, resp.StatusCode)
						}
						require.EqualValues(t, 1, p.asked.Load())
						time.Sleep(defaultRefusalInterval)
						_, err := client.Get("https://a.test/")
						require.NoError(t, err)
						require.EqualValues(t, 2, p.asked.Load())
					})
				})
			}
		}
	}
}

// While a server refuses what somebody has logged in for, a person is asked less and less often, whatever other servers accept; until it
// accepts a login, too.
func TestUselessLoginsBecomeRare(t *testing.T) {
	for _, others := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var accepts string // what the bad server accepts
			p := &person{}
			src := &TokenSource{Login: p.login}
			client := &http.Client{Transport: &Transport{Schemes: []Scheme{&Bearer{Source: src}}, Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
				sent := req.Header.Get("Authorization")
				if sent == accepts && sent != "" || req.URL.Host == "good.test" && sent != "" {
					return &http.Response{StatusCode: 200, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
				}
				return refusingAll(`Bearer error="invalid_token"`)(req)
			})}}
			get := func(url string) *http.Response {
				resp, err := client.Get(url)
				require.NoError(t, err)
				return resp
			}
			for start := time.Now(); time.Since(start) < 24*time.Hour; time.Sleep(5 * time.Second) {
				if others {
					get("https://good.test/")
				}
				get("https://bad.test/")
			}
			// At 0, 10, 30, 70 and so on to 5,110 seconds, and then each hour; one more if another server comes first.
			asked := p.asked.Load()
			require.GreaterOrEqual(t, asked, int32(31))
			require.LessOrEqual(t, asked, int32(34))
			resp := get("https://bad.test/")
			require.ErrorIs(t, Explain(resp), ErrTokenRefused)
			require.ErrorContains(t, Explain(resp), "nobody is asked to log in")

			accepts = fmt.Sprint("Bearer login-", asked+1)
			got, err := src.NewLogin(t.Context())
			require.NoError(t, err)
			require.Equal(t, accepts, "Bearer "+got.AccessToken, "who wants to can")
			require.Equal(t, 200, get("https://bad.test/").StatusCode)
			accepts = ""
			time.Sleep(defaultRefusalInterval)
			get("https://bad.test/")
			require.Equal(t, asked+2, p.asked.Load(), "as after the first login")
			accepts = fmt.Sprint("Bearer login-", asked+3)
			time.Sleep(2 * defaultRefusalInterval)
			require.Equal(t, 200, get("https://bad.test/").StatusCode)
			accepts = ""
			get("https://bad.test/")
			require.Equal(t, asked+4, p.asked.Load(), "it was good, and has been revoked")
		})
	}
}

// A server that never has enough of a login has a person asked as often as for scopes.
func TestFreshLoginsAreBounded(t *testing.T) {
	for challenge, most := range map[string]int{`max_age=0`: 1, `acr_values="a%d"`: maxStepUps} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
				n++
				said := challenge
				if strings.Contains(said, "%d") {
					said = fmt.Sprintf(challenge, n)
				}
				return refusingAll(`Bearer error="insufficient_user_authentication", ` + said)(req)
			})
			p := &person{}
			src := &TokenSource{Initial: &oauth2.Token{AccessToken: "T0"}, Login: p.login}
			client := &http.Client{Transport: &Transport{Base: base, Schemes: []Scheme{&Bearer{Source: src, StepUp: true}}}}
			for range 30 {
				resp, err := client.Get("https://a.test/")
				require.NoError(t, err)
				require.Equal(t, ReasonInsufficientLogin, Explain(resp).(*Rejection).Reason)
			}
			require.EqualValues(t, most, p.asked.Load(), challenge)
		})
	}
}

// One member of another type does not take the others with it: a refresh token that has been rotated, and why there is no token.
func TestAnswerWithAMemberOfAnotherType(t *testing.T) {
	for _, expires := range []string{`""`, `"never"`, `true`, `1e400`, `{}`, `"3600 "`} {
		e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"access_token":"a","expires_in":%s,"refresh_token":"r-1"}`, expires)
		})
		got, err := (&TokenSource{Fetch: RefreshGrant(e.config()), Initial: &oauth2.Token{RefreshToken: "r-0"}}).Token()
		require.NoError(t, err, expires)
		require.Equal(t, "r-1", got.RefreshToken)
		require.True(t, got.Expiry.IsZero(), "it is not known")
	}
	e := newTokenEndpoint(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n == 1 {
			io.WriteString(w, `{"access_token":"a","token_type":["Bearer"],"refresh_token":"r-1"}`)
			return
		}
		issue(w)
	})
	src := &TokenSource{Fetch: RefreshGrant(e.config()), Initial: &oauth2.Token{RefreshToken: "r-0"}, MinRefreshInterval: -1}
	_, err := src.Token()
	require.ErrorContains(t, err, "could not be read")
	require.Eventually(t, func() bool { _, err = src.Token(); return err == nil }, 10*time.Second, time.Millisecond)
	require.Equal(t, "r-0", e.forms()[0].Get("refresh_token"))
	require.Equal(t, "r-1", e.forms()[1].Get("refresh_token"))
	for _, more := range []string{`"error_description":{}`, `"error_uri":7`} {
		e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(400)
			fmt.Fprintf(w, `{"error":"invalid_grant",%s}`, more)
		})
		src := &TokenSource{Fetch: RefreshGrant(e.config()), Initial: &oauth2.Token{RefreshToken: "r-0"}}
		for range 3 {
			_, err := src.Token()
			require.ErrorIs(t, err, ErrLoginRequired)
		}
		require.Len(t, e.forms(), 1)
	}
}

// A login that could not be saved, as the lock could not be had, is not saved over a later one, nor after a Logout.
func TestEarlierLoginIsNotSavedOverALaterOne(t *testing.T) {
	for name, later := range map[string]func(src *TokenSource) error{
		"login":  func(src *TokenSource) error { return src.Set(login("later")) },
		"logout": func(src *TokenSource) error { return src.Logout(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newSharedStore(login("zero"))
				one, two := &TokenSource{Store: lockable{store, new(atomic.Bool)}}, &TokenSource{Store: store}
				one.Store.(lockable).away.Store(true)
				require.ErrorIs(t, one.Set(login("earlier")), ErrNotSaved)
				require.NoError(t, later(two))
				one.Store.(lockable).away.Store(false)
				time.Sleep(time.Minute)
				if name == "logout" {
					require.True(t, store.record().LoggedOut)
					_, err := one.Token()
					require.ErrorIs(t, err, ErrLoginRequired)
					return
				}
				require.Equal(t, "later", store.get().AccessToken)
				require.Equal(t, "later", tokenOf(t, one))
			})
		})
	}
}

// A lockable is a store whose lock cannot be had for a while.
type lockable struct {
	*sharedStore
	away *atomic.Bool
}

func (l lockable) Update(ctx context.Context, fn func(context.Context, *Record, func(context.Context) error) (*Record, error)) error {
	if l.away.Load() {
		return errors.New("the lock cannot be had")
	}
	return l.sharedStore.Update(ctx, fn)
}

// What the token endpoint says in place of an error code is not shown: it may be what was sent to it.
func TestSecretInPlaceOfAnErrorCode(t *testing.T) {
	for _, secret := range []string{"0123456789abcdef0123456789abcdef", "s3cret+/=client", "abcdef0123456789abcdef", strings.Repeat("x", 100)} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(400)
			fmt.Fprintf(w, `{"error":%q}`, secret)
		}))
		e := &TokenEndpoint{URL: srv.URL, ClientID: "c", Auth: SecretPost(secret)}
		_, err := (&TokenSource{Fetch: e.Refresh(), Initial: &oauth2.Token{RefreshToken: secret}}).Token()
		srv.Close()
		require.ErrorContains(t, err, "answered 400 with a text in place of an error code")
		require.NotContains(t, err.Error(), secret)
	}
}

// Whoever gets a failure of before hears that, and when there will be another attempt.
func TestRememberedFailureSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { return nil, refusal(400, "invalid_client") }}
		_, err := src.Token()
		require.NotContains(t, err.Error(), "said before")
		time.Sleep(10 * time.Second)
		_, later := src.Token()
		require.Regexp(t, `put the client's credentials right; that is what a refresh has said before, and the next one is in \d+s$`, later.Error())
		require.ErrorIs(t, later, ErrLoginRequired)
		retrieved, ok := errors.AsType[*oauth2.RetrieveError](later)
		require.True(t, ok)
		require.Equal(t, "invalid_client", retrieved.ErrorCode)
	})
}

// A panic in what gets tokens is told as any other: where it was, and that something is wrong with the program.
func TestPanicInFetchSaysWhere(t *testing.T) {
	src := &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { panic(errors.New("hunter2")) }}
	_, err := (&http.Client{Transport: New(&Bearer{Source: src})}).Get("https://a.test/")
	rejection, ok := errors.AsType[*Rejection](err)
	require.True(t, ok)
	require.Equal(t, ReasonMisconfigured, rejection.Reason)
	require.ErrorContains(t, err, "TestPanicInFetchSaysWhere.func1, line ")
	require.NotContains(t, err.Error(), "hunter2")
}

// A file of another program is no login, even if it has a refresh token; and what is no time in JSON is no expiry.
func TestRecordsOfOthers(t *testing.T) {
	for _, data := range []string{
		`{"refresh_token":"r","name":"x","region":"y"}`, `{"access_token":"a","error":"invalid_grant"}`, `{"vERSION_":1,"access_token":"a","login":"l"}`,
		`{"client_id":"c","client_secret":"s","refresh_token":"r","type":"authorized_user"}`, // of gcloud
	} {
		_, err := DecodeRecord([]byte(data))
		require.Error(t, err, data)
	}
	west := time.FixedZone("west", -5*60*60)
	data, err := (&Record{Token: &oauth2.Token{AccessToken: "a", Expiry: time.Date(9999, 12, 31, 23, 59, 59, 0, west)}}).Encode()
	require.NoError(t, err)
	r, err := DecodeRecord(data)
	require.NoError(t, err)
	require.True(t, r.Token.Expiry.IsZero())
}

// refusingAll is a server that refuses everything.
func refusingAll(challenge string) roundTripFunc {
	return func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 401, Body: http.NoBody, Request: req, Header: http.Header{"Www-Authenticate": {challenge}}}, nil
	}
}

// NewLogin is content with no login that was given up, nor with a token that somebody else has put into the Store for who had asked before.
func TestNewLoginWaitsForAPerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		src := &TokenSource{Initial: login("dead"), Login: func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
			if asked++; asked == 1 {
				<-ctx.Done()
				time.Sleep(time.Second) // it closes its listener, say
				return nil, ctx.Err()
			}
			return login("new"), nil
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := src.NewLogin(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		got, err := src.NewLogin(t.Context())
		require.NoError(t, err)
		require.Equal(t, "new", got.AccessToken)
		require.Equal(t, 2, asked)
	})
	synctest.Test(t, func(t *testing.T) {
		store := lockableLogin{newSharedStore(nil), make(chan struct{}, 1)}
		store.login <- struct{}{} // another process asks somebody
		p := &person{takes: time.Second}
		src := &TokenSource{Store: store, Login: p.login}
		go src.Token()
		synctest.Wait()
		time.AfterFunc(time.Second, func() { store.put(login("elsewhere")); <-store.login })
		got, err := src.NewLogin(t.Context())
		require.NoError(t, err)
		require.Equal(t, "login-1", got.AccessToken)
	})
}

// A lockableLogin is a store by which one person is asked over all processes.
type lockableLogin struct {
	*sharedStore
	login chan struct{}
}

func (l lockableLogin) LockLogin(context.Context) (unlock func(), err error) {
	l.login <- struct{}{}
	return func() { <-l.login }, nil
}

// Where Login returns but a refresh token, and that is refused, no server is said to have refused anything.
func TestLoginThatBringsNoGoodRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{
			Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { return nil, refusal(400, "invalid_grant") },
			Login: func(context.Context, TokenRequest) (*oauth2.Token, error) {
				return &oauth2.Token{RefreshToken: "r"}, nil
			},
		}
		for range 3 {
			_, err := src.Token()
			require.ErrorIs(t, err, ErrLoginRequired)
			require.NotErrorIs(t, err, ErrTokenRefused)
		}
	})
}

// Where there is nothing but Login, more scope is asked for no more often than where there is a Fetch.
func TestScopesByLoginAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		src := &TokenSource{Initial: &oauth2.Token{AccessToken: "T0"}, Login: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			asked++
			return (&oauth2.Token{AccessToken: fmt.Sprint("T", asked)}).WithExtra(map[string]any{"scope": "read"}), nil
		}}
		client := &http.Client{Transport: &Transport{Base: refusingAll(`Bearer error="insufficient_scope", scope="admin"`),
			Schemes: []Scheme{&Bearer{Source: src, StepUp: true}}}}
		for range 10 {
			_, err := client.Get("https://a.test/")
			require.NoError(t, err)
		}
		require.Equal(t, 1, asked, "it is not granted")
	})
}

// What a refresh of one user's login has brought, and is not in use yet, is not what a refresh of the next user's goes on with.
func TestUserIsChangedWhileATokenIsComing(t *testing.T) {
	for name, change := range map[string]func(src *TokenSource, bob *oauth2.Token) error{
		"Set": func(src *TokenSource, bob *oauth2.Token) error { return src.Set(bob) },
		"Logout and Set": func(src *TokenSource, bob *oauth2.Token) error {
			return errors.Join(src.Logout(context.Background()), src.Set(bob))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				src := &TokenSource{
					Initial: &oauth2.Token{AccessToken: "alice-0", RefreshToken: "alice"},
					Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
						n++
						return &oauth2.Token{AccessToken: fmt.Sprint(r.Previous.RefreshToken, "-", n), RefreshToken: r.Previous.RefreshToken + "'"}, nil
					},
					OnEvent: func(_ context.Context, e Event) {
						if e.Kind == EventRefreshed {
							time.Sleep(time.Second) // before the token is put to use
						}
					},
				}
				require.Equal(t, "alice-0", tokenOf(t, src))
				go src.Refresh(t.Context(), &oauth2.Token{AccessToken: "alice-0"})
				synctest.Wait()
				require.NoError(t, change(src, &oauth2.Token{AccessToken: "bob-0", RefreshToken: "bob"}))
				got, err := src.Refresh(t.Context(), &oauth2.Token{AccessToken: "bob-0"})
				require.NoError(t, err)
				require.Equal(t, "bob-2", got.AccessToken)
				time.Sleep(time.Minute)
				require.Equal(t, "bob-2", tokenOf(t, src))
			})
		})
	}
}
