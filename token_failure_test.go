package authretry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

func TestTransientFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{delay: time.Second}
		cause := errors.New("no route")
		i.failWith(cause)
		src := &TokenSource{Fetch: i.fetch}
		errs := make(chan error)
		for range 100 {
			go func() { _, err := src.Token(); errs <- err }()
		}
		for range 100 {
			err := <-errs
			require.ErrorIs(t, err, cause)
			require.NotErrorIs(t, err, ErrLoginRequired)
		}
		require.EqualValues(t, 1, i.calls.Load())

		start := time.Now() // within the back-off: the same error at once
		_, err := src.Token()
		require.ErrorIs(t, err, cause)
		require.Zero(t, time.Since(start))
		require.EqualValues(t, 1, i.calls.Load())

		i.delay = 0 // the back-off grows
		for time.Since(start) < time.Hour {
			src.Token()
			time.Sleep(100 * time.Millisecond)
		}
		calls := i.calls.Load()
		require.Greater(t, calls, int32(3600/37))
		require.Less(t, calls, int32(3600/23))

		i.failWith(nil) // and is over within its bound
		time.Sleep(37 * time.Second)
		_, err = src.Token()
		require.NoError(t, err)
	})
}

func TestRetryAfterIsHeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := refusal(http.StatusTooManyRequests, "")
		fail.Response.Header.Set("Retry-After", "20")
		i := &issuer{}
		i.failWith(fail)
		src := &TokenSource{Fetch: i.fetch}
		for range 199 {
			_, err := src.Token()
			require.Error(t, err)
			require.NotErrorIs(t, err, ErrLoginRequired)
			time.Sleep(100 * time.Millisecond)
		}
		require.EqualValues(t, 1, i.calls.Load())
		time.Sleep(time.Second)
		i.failWith(nil)
		_, err := src.Token()
		require.NoError(t, err)
	})
}

func TestBackgroundFailureIsRetriedBeforeExpiry(t *testing.T) {
	for _, lifetime := range []time.Duration{time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			i := &issuer{lifetime: lifetime}
			src := &TokenSource{Fetch: i.fetch}
			first, err := src.Token()
			require.NoError(t, err)
			i.failWith(refusal(http.StatusServiceUnavailable, ""))
			for time.Until(first.Expiry) > lifetime/30 {
				got, err := src.Token()
				require.NoError(t, err)
				require.Same(t, first, got)
				time.Sleep(lifetime / 1000)
			}
			require.GreaterOrEqual(t, i.calls.Load(), int32(3))
			require.Less(t, i.calls.Load(), int32(40))
			i.failWith(nil)
			for time.Now().Before(first.Expiry) {
				_, err := src.Token()
				require.NoError(t, err)
				time.Sleep(lifetime / 1000)
			}
			synctest.Wait()
			next, err := src.Token()
			require.NoError(t, err)
			require.NotEqual(t, first.AccessToken, next.AccessToken)
		})
	}
}

func TestPermanentFailure(t *testing.T) {
	for _, fail := range []error{
		refusal(http.StatusBadRequest, "invalid_grant"),
		refusal(http.StatusOK, "bad_refresh_token"),
		fmt.Errorf("custom: %w", ErrLoginRequired),
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx := context.Background()
			i := &issuer{}
			i.failWith(fail)
			src := &TokenSource{Fetch: i.fetch, Initial: old()}
			for range 100 {
				_, err := src.Refresh(ctx, old())
				require.ErrorIs(t, err, ErrLoginRequired)
				require.NotContains(t, err.Error(), "s3cret")
				time.Sleep(time.Hour)
			}
			require.EqualValues(t, 1, i.calls.Load())
			i.failWith(nil)
			require.NoError(t, src.Set(&oauth2.Token{AccessToken: "login", RefreshToken: "refresh-login"}))
			got, err := src.Refresh(ctx, old())
			require.NoError(t, err)
			require.Equal(t, "login", got.AccessToken)
			_, err = src.Refresh(ctx, got)
			require.NoError(t, err)
			require.Equal(t, []string{"refresh-0", "refresh-login"}, i.previous)
		})
	}
}

// What a callback has done instead of returning is said, and not what it has panicked with.
func TestFetchThatDoesNotReturnSaysHow(t *testing.T) {
	for want, end := range map[string]func(){"panicked with a value of type string": func() { panic(secret) }, "ended its goroutine": runtime.Goexit} {
		_, err := (&TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { end(); return nil, nil }}).Token()
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), secret)
	}
}

// What may be the work of somebody in front of the token endpoint, or concerns a wish, is no end of a login.
func TestOnlyARefusedGrantIsPermanent(t *testing.T) {
	for _, fail := range []error{
		refusal(http.StatusForbidden, ""), refusal(http.StatusNotFound, ""), refusal(http.StatusBadRequest, "invalid_scope"),
		refusal(http.StatusBadRequest, "invalid_request"), refusal(http.StatusUnauthorized, "invalid_client"), refusal(http.StatusUnauthorized, ""),
		refusal(http.StatusBadRequest, "unsupported_grant_type"), refusal(http.StatusOK, "unauthorized_client"),
	} {
		synctest.Test(t, func(t *testing.T) {
			i := &issuer{}
			i.failWith(fail)
			src := &TokenSource{Fetch: i.fetch, Initial: old()}
			_, err := src.Refresh(t.Context(), old())
			require.Error(t, err)
			require.NotErrorIs(t, err, ErrLoginRequired)
			i.failWith(nil)
			time.Sleep(10 * time.Minute)
			got, err := src.Refresh(t.Context(), old())
			require.NoError(t, err)
			require.Equal(t, "access-2", got.AccessToken)
		})
	}
}

func TestPermanentFailureInTheBackgroundKeepsTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour}
		src := &TokenSource{Fetch: i.fetch}
		first, err := src.Token()
		require.NoError(t, err)
		i.failWith(refusal(http.StatusBadRequest, "invalid_grant"))
		for time.Until(first.Expiry) > 0 {
			_, err := src.Token()
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		_, err = src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
		require.EqualValues(t, 2, i.calls.Load())
	})
}

func TestRefusedClientCredentialsAreTriedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, fail := 0, true
		src := &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			if calls++; fail {
				return nil, refusal(http.StatusUnauthorized, "invalid_client")
			}
			return &oauth2.Token{AccessToken: "a"}, nil
		}}
		start := time.Now()
		for time.Since(start) < time.Hour {
			_, err := src.Token()
			require.ErrorIs(t, err, ErrLoginRequired)
			require.ErrorContains(t, err, "put the client's credentials right")
			time.Sleep(time.Second)
		}
		require.Greater(t, calls, 8)
		require.Less(t, calls, 24)
		fail = false
		time.Sleep(6 * time.Minute)
		_, err := src.Token()
		require.NoError(t, err)
	})
}

func TestErrorsSayWhatToDoAndNoSecret(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_grant","error_description":"s3cret refresh-0","x":"s3cret"}`)
	}))
	defer server.Close()
	refused := (&rotatingServer{Server: server}).source()
	_, refusedErr := refused.Refresh(context.Background(), nil)
	require.ErrorIs(t, refusedErr, ErrLoginRequired)
	retrieve, ok := errors.AsType[*oauth2.RetrieveError](refusedErr)
	require.True(t, ok)
	require.Contains(t, string(retrieve.Body), "s3cret")
	require.Regexp(t, `^authretry: no new token could be obtained: the token endpoint at 127\.0\.0\.1:\d+ answered 400 "invalid_grant"; log in again and call TokenSource\.Set$`, refusedErr.Error())

	workload := &TokenEndpoint{URL: server.URL, ClientID: "c"}
	_, assertionErr := (&TokenSource{Fetch: workload.JWTBearer(func(context.Context, TokenRequest) (string, error) { return "s3cret", nil })}).Token()
	require.ErrorIs(t, assertionErr, ErrLoginRequired)
	require.ErrorContains(t, assertionErr, `400 "invalid_grant"; the assertion or token that was presented is not good there; present another`)

	fail := func(err error) error {
		src := &TokenSource{Initial: old(), Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { return nil, err }}
		_, err = src.Refresh(context.Background(), old())
		return err
	}
	for _, err := range []error{
		refusedErr, assertionErr,
		fail(&url.Error{Op: "Post", URL: "https://idp.example/token?key=s3cret", Err: errors.New("connection refused")}),
		fail(fmt.Errorf("wrapped: %w", refusal(http.StatusInternalServerError, "server_error"))),
		fail(fmt.Errorf("oauth2: cannot parse json: invalid s3cret")),
		fail(errors.New("the refresh token refresh-0 (s3cret) is no good")),
	} {
		var logged strings.Builder
		slog.New(slog.NewTextHandler(&logged, nil)).Error("failed", "err", err)
		slog.New(slog.NewJSONHandler(&logged, nil)).Error("failed", "err", err)
		for _, text := range []string{err.Error(), fmt.Sprintf("%v %+v %#v %s %q", err, err, err, err, err), logged.String()} {
			require.NotContains(t, text, "s3cret")
			require.NotContains(t, text, "refresh-0")
			require.Contains(t, text, "authretry: no new token could be obtained: ")
		}
	}
}

// An error's text is the same in whatever way it is printed, but for %q, which quotes it.
func TestTokenErrorIsPrintedAsItsText(t *testing.T) {
	err := failed(errors.New(`no "route"`), nil)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		require.Equal(t, err.Error(), fmt.Sprintf(verb, err), verb)
	}
	require.Equal(t, strconv.Quote(err.Error()), fmt.Sprintf("%q", err))
}

// What an error says besides its cause: where a client is ignored, and which mistake a callback has made.
func TestTokenErrorsSayWhatIsWrong(t *testing.T) {
	ctx := context.WithValue(t.Context(), oauth2.HTTPClient, http.DefaultClient)
	src := &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
		return nil, errors.New("certificate of nobody")
	}}
	_, err := src.Obtain(ctx, TokenRequest{})
	require.ErrorContains(t, err, "set TokenSource.HTTPClient")
	src = &TokenSource{HTTPClient: http.DefaultClient, Fetch: src.Fetch}
	_, err = src.Obtain(ctx, TokenRequest{})
	require.NotContains(t, err.Error(), "set TokenSource.HTTPClient")

	var none map[string]int
	err = apart(panicked, func() error { none["x"]++; return nil })
	require.ErrorContains(t, err, "nil map")
	err = apart(panicked, func() error { panic("s3cret") })
	require.ErrorContains(t, err, "type string")
	require.NotContains(t, err.Error(), "s3cret")
}

// What others say gets into an error as one line of ASCII.
func TestPrintableIsOneLine(t *testing.T) {
	require.Equal(t, "a??b?c~ ", printable("a\r\nb\u202ec~ "))
	require.Len(t, printable(strings.Repeat("x", 1<<20)), 303)
}

// Where the token endpoint had no part in a failure, what another process puts into the Store is found soon.
func TestRefusedWhileFreshIsNoReasonToWaitLong(t *testing.T) {
	now := time.Now()
	f := failure{delay: maxRetryDelay}
	require.LessOrEqual(t, f.next(errRefusedWhileFresh, nil, new(TokenSource), now).until.Sub(now), 2*minStoreWait)
	require.Greater(t, f.next(errors.New("down"), nil, new(TokenSource), now).until.Sub(now), maxRetryDelay/2)
}

// Whoever walks over what an error wraps meets no nil, as package errors would not mind.
func TestRefusedErrorWrapsNoNil(t *testing.T) {
	for _, err := range []error{ErrTokenRefused, errRefusedWhileFresh, errNonceForgotten, notGranted("less")} {
		list := err.(interface{ Unwrap() []error }).Unwrap()
		require.Contains(t, list, ErrCredentialsRefused)
		require.NotContains(t, list, nil)
	}
}

// The Store may have a better token sooner. To look there does not put off when the client's credentials are tried again.
func TestLooksIntoTheStoreDoNotPutOffTheNextAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, loads := 0, atomic.Int32{}
		src := &TokenSource{Store: countedLoads{newSharedStore(nil), &loads}, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			calls++
			return nil, refusal(http.StatusUnauthorized, "invalid_client")
		}}
		start := time.Now()
		try := func(until time.Duration) {
			for time.Since(start) < until {
				_, err := src.Token()
				require.ErrorIs(t, err, ErrLoginRequired)
				time.Sleep(time.Second)
			}
		}
		try(12 * time.Second)
		require.GreaterOrEqual(t, int(loads.Load()), 4)
		require.Equal(t, 1, calls)
		try(71 * time.Second) // the third is at 72 s, if both delays are as short as they may be
		require.Equal(t, 2, calls)
		try(time.Hour)
		require.Greater(t, calls, 8)
		require.Less(t, calls, 24)
		require.Greater(t, int(loads.Load()), 60)
	})
}

type countedLoads struct {
	*sharedStore
	n *atomic.Int32
}

func (s countedLoads) Load(ctx context.Context) (*Record, error) {
	s.n.Add(1)
	return s.sharedStore.Load(ctx)
}

// A limit for each address, say, concerns one process of many. What another one has obtained is in the Store.
func TestRetryAfterDoesNotKeepFromWhatOthersHaveSaved(t *testing.T) {
	for name, grant := range map[string]string{"refresh token": "r-0", "none": ""} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fail := refusal(http.StatusTooManyRequests, "")
				fail.Response.Header.Set("Retry-After", "240")
				store := newSharedStore(&oauth2.Token{AccessToken: "a-0", RefreshToken: grant, Expiry: time.Now().Add(-time.Minute)})
				calls, loads := 0, atomic.Int32{}
				src := &TokenSource{Store: countedLoads{store, &loads}, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
					calls++
					return nil, fail
				}}
				start := time.Now()
				try := func(until time.Duration) (got *oauth2.Token, err error) {
					for time.Since(start) < until && got == nil {
						got, err = src.Token()
						time.Sleep(100 * time.Millisecond)
					}
					return got, err
				}
				_, err := try(time.Minute)
				require.ErrorContains(t, err, "the next one is in 3m0s")
				require.Less(t, int(loads.Load()), 15)
				_, err = try(239 * time.Second)
				require.ErrorContains(t, err, "429")
				require.Equal(t, 1, calls)
				_, err = try(245 * time.Second)
				require.Error(t, err)
				require.Equal(t, 2, calls, "when it is over, the token endpoint is asked again, and no later")

				_, err = try(260 * time.Second)
				require.Error(t, err)
				store.put(&oauth2.Token{AccessToken: "a-1", RefreshToken: "r-1", Expiry: time.Now().Add(time.Hour)})
				got, err := try(300 * time.Second)
				require.NoError(t, err)
				require.Equal(t, "a-1", got.AccessToken)
				require.Equal(t, 2, calls)
			})
		})
	}
}

// Microsoft Entra refuses a good refresh token where a person has to do more first: another factor, from this network, for instance. Then
// the person is asked; and if nobody can be, the refresh token is tried again, but seldom.
func TestPersonThatTheTokenEndpointWantsIsAsked(t *testing.T) {
	for _, code := range []string{"interaction_required", "login_required", "consent_required"} {
		t.Run(code, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := &issuer{}
				i.failWith(refusal(http.StatusBadRequest, code))
				src := &TokenSource{Fetch: i.fetch, Initial: old()}
				for range 24 {
					_, err := src.Refresh(t.Context(), old())
					require.ErrorIs(t, err, ErrLoginRequired)
					require.ErrorContains(t, err, code)
					time.Sleep(time.Second)
				}
				require.EqualValues(t, 1, i.calls.Load())
				require.True(t, src.isOnlyCopy(), "the refresh token may be good yet")
				i.failWith(nil)
				time.Sleep(10 * time.Minute)
				got, err := src.Refresh(t.Context(), old())
				require.NoError(t, err)
				require.Equal(t, []string{"access-2", "refresh-0"}, []string{got.AccessToken, i.previous[1]})

				i.failWith(refusal(http.StatusBadRequest, code))
				src = &TokenSource{Fetch: i.fetch, Initial: old(), Login: func(context.Context, TokenRequest) (*oauth2.Token, error) {
					return &oauth2.Token{AccessToken: "login", RefreshToken: "refresh-login"}, nil
				}}
				got, err = src.Refresh(t.Context(), old())
				require.NoError(t, err)
				require.Equal(t, "login", got.AccessToken)
			})
		})
	}
}

// So it is where an API wants claims (continuous access evaluation), and no refresh brings them.
func TestPersonIsAskedForClaimsThatNoRefreshBrings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		i.failWith(refusal(http.StatusBadRequest, "interaction_required"))
		var asked []string
		src := &TokenSource{Fetch: i.fetch, Initial: old(), Login: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			asked = append(asked, r.Claims)
			return &oauth2.Token{AccessToken: "login", RefreshToken: "refresh-login"}, nil
		}}
		got, err := src.Obtain(t.Context(), TokenRequest{Claims: `{"access_token":{"acrs":{"value":"c1"}}}`})
		require.NoError(t, err)
		require.Equal(t, "login", got.AccessToken)
		require.Equal(t, []string{`{"access_token":{"acrs":{"value":"c1"}}}`}, asked)
	})
}
