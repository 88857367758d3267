package authretry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
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
	"golang.org/x/oauth2/clientcredentials"
)

// An issuer is a token endpoint in memory: it counts what it is asked, takes its time, and fails on demand.
type issuer struct {
	calls    atomic.Int32
	delay    time.Duration
	lifetime time.Duration // 0: tokens do not expire

	mu       sync.Mutex
	fail     error
	previous []string // the refresh tokens it was shown
}

func (i *issuer) fetch(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
	n := i.calls.Add(1)
	i.mu.Lock()
	fail := i.fail
	i.previous = append(i.previous, grantOf(r.Previous))
	i.mu.Unlock()
	if i.delay > 0 {
		select {
		case <-time.After(i.delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if fail != nil {
		return nil, fail
	}
	t := &oauth2.Token{AccessToken: fmt.Sprintf("access-%d", n), RefreshToken: fmt.Sprintf("refresh-%d", n)}
	if i.lifetime > 0 {
		t.Expiry = time.Now().Add(i.lifetime)
	}
	return t, nil
}

func (i *issuer) failWith(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fail = err
}

func old() *oauth2.Token { return &oauth2.Token{AccessToken: "old", RefreshToken: "refresh-0"} }

func refusal(status int, code string) *oauth2.RetrieveError {
	return &oauth2.RetrieveError{
		Response:         &http.Response{StatusCode: status, Header: http.Header{}},
		ErrorCode:        code,
		ErrorDescription: "s3cret description",
		Body:             []byte("s3cret body"),
	}
}

// A rotatingServer is a real token endpoint that rotates refresh tokens and revokes all when one is used twice, and
// a resource that takes its latest access token only.
type rotatingServer struct {
	*httptest.Server
	delay time.Duration

	mu       sync.Mutex
	requests int
	n        int // of the valid tokens
	revoked  bool
}

func newRotatingServer(t testing.TB) *rotatingServer {
	s := &rotatingServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(s.token))
	t.Cleanup(s.Close)
	return s
}

func (s *rotatingServer) token(w http.ResponseWriter, r *http.Request) {
	time.Sleep(s.delay)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	w.Header().Set("Content-Type", "application/json")
	if s.revoked || r.PostFormValue("refresh_token") != fmt.Sprintf("refresh-%d", s.n) {
		s.revoked = true
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_grant"}`)
		return
	}
	s.n++
	fmt.Fprintf(w, `{"access_token":"access-%d","refresh_token":"refresh-%d","token_type":"bearer","expires_in":3600}`, s.n, s.n)
}

func (s *rotatingServer) accepts(access string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.revoked && access == fmt.Sprintf("access-%d", s.n)
}

func (s *rotatingServer) config() *oauth2.Config {
	return &oauth2.Config{ClientID: "id", ClientSecret: "client-s3cret", Endpoint: oauth2.Endpoint{TokenURL: s.URL + "/token?key=s3cret"}}
}

func (s *rotatingServer) source() *TokenSource {
	return &TokenSource{
		Fetch:   RefreshGrant(s.config()),
		Initial: &oauth2.Token{AccessToken: "access-0", RefreshToken: "refresh-0", Expiry: time.Now().Add(time.Hour)},
	}
}

func TestStorms(t *testing.T) {
	const n = 1000
	run := func(t *testing.T, s *rotatingServer, src *TokenSource, call func(i int, rejected *oauth2.Token) error) {
		rejected, err := src.Token()
		require.NoError(t, err)
		errs := make(chan error, n)
		start := make(chan struct{})
		for i := range n {
			go func() { <-start; errs <- call(i, rejected) }()
		}
		close(start)
		for range n {
			require.NoError(t, <-errs)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		require.Equal(t, 1, s.requests)
	}
	refresh := func(src *TokenSource, s *rotatingServer) func(int, *oauth2.Token) error {
		return func(_ int, rejected *oauth2.Token) error {
			fresh, err := src.Refresh(context.Background(), rejected)
			if err == nil && !s.accepts(fresh.AccessToken) {
				err = errors.New("the refreshed token is not the valid one")
			}
			return err
		}
	}
	t.Run("refused together, rotating", func(t *testing.T) {
		s := newRotatingServer(t)
		src := s.source()
		run(t, s, src, refresh(src, s))
	})
	t.Run("slow endpoint", func(t *testing.T) {
		s := newRotatingServer(t)
		s.delay = 50 * time.Millisecond
		src := s.source()
		run(t, s, src, refresh(src, s))
	})
	t.Run("stragglers", func(t *testing.T) {
		s := newRotatingServer(t)
		src := s.source()
		run(t, s, src, func(i int, rejected *oauth2.Token) error {
			<-time.After(time.Duration(i) * 250 * time.Millisecond / n)
			return refresh(src, s)(i, rejected)
		})
	})
	t.Run("leader cancelled", func(t *testing.T) {
		s := newRotatingServer(t)
		s.delay = 100 * time.Millisecond
		src := s.source()
		rejected, err := src.Token()
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		leader := make(chan error)
		go func() { _, err := src.Refresh(ctx, rejected); leader <- err }()
		require.Eventually(t, func() bool { src.mu.Lock(); defer src.mu.Unlock(); return src.flight != nil }, time.Second, time.Millisecond)
		time.AfterFunc(10*time.Millisecond, cancel)
		errs := make(chan error)
		for i := range 99 {
			go func() { errs <- refresh(src, s)(i, rejected) }()
		}
		require.ErrorIs(t, <-leader, context.Canceled)
		for range 99 {
			require.NoError(t, <-errs)
		}
		require.Equal(t, 1, s.requests)
	})
}

func TestTokenSteadyStateDoesNotAllocate(t *testing.T) {
	src := &TokenSource{Initial: &oauth2.Token{AccessToken: "a", Expiry: time.Now().Add(time.Hour)}, Fetch: new(issuer).fetch}
	_, err := src.Token()
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(100, func() { src.Token() }))
}

func TestRefreshComparesWithTheRejectedToken(t *testing.T) {
	ctx := context.Background()
	i := &issuer{}
	src := &TokenSource{Fetch: i.fetch, Initial: old()}
	first, err := src.Refresh(ctx, old())
	require.NoError(t, err)
	second, err := src.Refresh(ctx, nil)
	require.NoError(t, err)
	require.NotEqual(t, first.AccessToken, second.AccessToken)
	require.EqualValues(t, 2, i.calls.Load())
	for _, late := range []*oauth2.Token{old(), first, {AccessToken: "from long ago"}} {
		got, err := src.Refresh(ctx, late)
		require.NoError(t, err)
		require.Same(t, second, got)
	}
	require.EqualValues(t, 2, i.calls.Load())
}

func TestFlightOutlivesItsCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		i := &issuer{delay: time.Second}
		var value any
		src := &TokenSource{Initial: old(), Fetch: func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
			value = ctx.Value(key{})
			return i.fetch(ctx, r)
		}}
		ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), key{}, "kept"), 10*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := src.Refresh(ctx, old())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 10*time.Millisecond, time.Since(start))
		time.Sleep(time.Second)
		synctest.Wait()
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "access-1", got.AccessToken)
		require.Equal(t, "kept", value)
		require.EqualValues(t, 1, i.calls.Load())
	})
}

func TestCancelledCallerStartsNothing(t *testing.T) {
	i := &issuer{}
	src := &TokenSource{Fetch: i.fetch, Initial: old()}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := src.Refresh(ctx, old())
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, i.calls.Load())
}

func TestEarlyRefreshNobodyWaits(t *testing.T) {
	for range 5 { // the jitter differs
		synctest.Test(t, func(t *testing.T) {
			i := &issuer{delay: 50 * time.Millisecond, lifetime: 200 * time.Millisecond}
			src := &TokenSource{Fetch: i.fetch}
			_, err := src.Token()
			require.NoError(t, err)
			start := time.Now()
			for time.Since(start) < 2*time.Second {
				before := time.Now()
				got, err := src.Token()
				require.NoError(t, err)
				require.Zero(t, time.Since(before))
				require.True(t, time.Now().Before(got.Expiry))
				time.Sleep(100 * time.Microsecond)
			}
			require.LessOrEqual(t, i.calls.Load(), int32(14))
			require.GreaterOrEqual(t, i.calls.Load(), int32(10))
			time.Sleep(time.Second) // for the one that is under way
		})
	}
}

func TestRefreshBefore(t *testing.T) {
	for name, c := range map[string]struct {
		before, lifetime, earliest, latest time.Duration
	}{
		"a share":              {0, 100 * time.Second, 50 * time.Second, 60 * time.Second},
		"a share, capped":      {0, 10 * time.Hour, 10*time.Hour - 331*time.Second, 10*time.Hour - 269*time.Second},
		"set":                  {time.Minute, time.Hour, 59 * time.Minute, 59*time.Minute + time.Second},
		"never more than half": {time.Hour, time.Minute, 30 * time.Second, 31 * time.Second},
		"negative: not at all": {-1, time.Minute, time.Minute, time.Minute},
		"seconds to live":      {0, 2 * time.Second, time.Second, 1200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := &issuer{lifetime: c.lifetime}
				src := &TokenSource{Fetch: i.fetch, RefreshBefore: c.before}
				_, err := src.Token()
				require.NoError(t, err)
				time.Sleep(c.earliest - time.Millisecond)
				_, err = src.Token()
				require.NoError(t, err)
				synctest.Wait()
				require.EqualValues(t, 1, i.calls.Load())
				time.Sleep(c.latest - c.earliest + time.Millisecond)
				_, err = src.Token()
				require.NoError(t, err)
				synctest.Wait()
				require.EqualValues(t, 2, i.calls.Load())
			})
		})
	}
}

func TestIdleSourceHasNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails if one is left when the function returns
		src := &TokenSource{Fetch: (&issuer{lifetime: time.Minute}).fetch}
		_, err := src.Token()
		require.NoError(t, err)
		time.Sleep(time.Hour)
		_, err = src.Token()
		require.NoError(t, err)
	})
}

func TestTokenWithoutExpiryLivesUntilRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		src := &TokenSource{Fetch: i.fetch}
		first, err := src.Token()
		require.NoError(t, err)
		time.Sleep(100 * 365 * 24 * time.Hour)
		again, err := src.Token()
		require.NoError(t, err)
		require.Same(t, first, again)
		next, err := src.Refresh(context.Background(), first)
		require.NoError(t, err)
		require.Equal(t, "access-2", next.AccessToken)
	})
}

func TestRefusedThoughFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		i := &issuer{}
		src := &TokenSource{Fetch: i.fetch, Initial: old()}
		fresh, err := src.Refresh(ctx, old())
		require.NoError(t, err)
		for range 100 {
			_, err = src.Refresh(ctx, fresh)
			require.ErrorIs(t, err, ErrTokenRefused)
		}
		require.EqualValues(t, 1, i.calls.Load())
		time.Sleep(10 * time.Second)
		next, err := src.Refresh(ctx, fresh)
		require.NoError(t, err)
		require.Equal(t, "access-2", next.AccessToken)
		_, err = src.Refresh(ctx, next)
		require.ErrorIs(t, err, ErrTokenRefused)
		require.EqualValues(t, 2, i.calls.Load())
	})
}

func TestRevokedAfterItWasAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		i := &issuer{}
		src := &TokenSource{Fetch: i.fetch, Initial: old()}
		current, err := src.Token()
		require.NoError(t, err)
		refreshes := 0
		for range 50 { // accepted on one path, refused on another
			next, err := src.Refresh(ctx, current)
			if err != nil {
				require.ErrorIs(t, err, ErrTokenRefused)
				continue
			}
			refreshes++
			current = next
			src.accepted(current)
		}
		require.Equal(t, maxForced, refreshes)
		require.EqualValues(t, maxForced, i.calls.Load())
		time.Sleep(10 * time.Second)
		_, err = src.Refresh(ctx, current)
		require.NoError(t, err)
	})
}

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
		refusal(http.StatusUnauthorized, "invalid_client"),
		refusal(http.StatusForbidden, ""),
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
	require.Equal(t, `authretry: no new token could be obtained: the token endpoint answered 400 "invalid_grant"; log in again and call TokenSource.Set`, refusedErr.Error())

	fail := func(err error) error {
		src := &TokenSource{Initial: old(), Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { return nil, err }}
		_, err = src.Refresh(context.Background(), old())
		return err
	}
	for _, err := range []error{
		refusedErr,
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

func TestFetchThatReturnsNonsense(t *testing.T) {
	for want, token := range map[string]*oauth2.Token{
		"neither a token nor an error": nil,
		"has no access token":          {RefreshToken: "r"},
		`of the type "DPoP"`:           {AccessToken: "a", TokenType: "DPoP"},
		"cannot be sent":               {AccessToken: "a\r\nX-Evil: 1"},
		"expired already":              {AccessToken: "a", Expiry: time.Now().Add(-time.Minute)},
	} {
		t.Run(want, func(t *testing.T) {
			calls := 0
			src := &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { calls++; return token, nil }}
			for range 100 {
				_, err := src.Token()
				require.ErrorContains(t, err, want)
			}
			require.Less(t, calls, 5)
		})
	}
	src := &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
		return &oauth2.Token{AccessToken: "a", TokenType: "bEARER"}, nil
	}}
	_, err := src.Token()
	require.NoError(t, err)
}

func TestExpiredTokenFromFetchKeepsItsRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var previous []string
		src := &TokenSource{Initial: &oauth2.Token{RefreshToken: "refresh-0"}, Fetch: func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
			previous = append(previous, r.Previous.RefreshToken)
			n := len(previous)
			return &oauth2.Token{AccessToken: fmt.Sprint("a", n), RefreshToken: fmt.Sprint("refresh-", n), Expiry: time.Now().Add(time.Duration(n-2) * time.Minute)}, nil
		}}
		for len(previous) < 3 {
			src.Token()
			time.Sleep(time.Second)
		}
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "a3", got.AccessToken)
		require.Equal(t, []string{"refresh-0", "refresh-1", "refresh-2"}, previous)
	})
}

func TestFetchThatDoesNotReturn(t *testing.T) {
	for name, end := range map[string]func(){
		"panics":       func() { panic("s3cret") },
		"dereferences": func() { var t *oauth2.Token; _ = t.AccessToken },
		"exits":        runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := false
				src := &TokenSource{Initial: old()}
				src.Fetch = func(context.Context, TokenRequest) (*oauth2.Token, error) {
					if !ended {
						ended = true
						time.Sleep(time.Second)
						end()
					}
					return &oauth2.Token{AccessToken: "new"}, nil
				}
				errs := make(chan error)
				for range 10 {
					go func() { _, err := src.Refresh(context.Background(), old()); errs <- err }()
				}
				for range 10 {
					err := <-errs
					require.ErrorContains(t, err, "callback")
					require.NotContains(t, err.Error(), "s3cret")
				}
				time.Sleep(time.Second)
				got, err := src.Refresh(context.Background(), old())
				require.NoError(t, err)
				require.Equal(t, "new", got.AccessToken)
			})
		})
	}
}

func TestFetchThatIgnoresItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &TokenSource{Initial: old(), FetchTimeout: 5 * time.Second, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
			time.Sleep(time.Minute)
			return &oauth2.Token{AccessToken: "late"}, nil
		}}
		start := time.Now()
		_, err := src.Refresh(context.Background(), old())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "FetchTimeout")
		require.Equal(t, 5*time.Second, time.Since(start))
		time.Sleep(time.Minute)
		synctest.Wait()
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "late", got.AccessToken)
	})
}

func TestFetchThatNeedsItsOwnToken(t *testing.T) {
	src := &TokenSource{}
	src.Fetch = func(ctx context.Context, r TokenRequest) (*oauth2.Token, error) {
		if _, err := src.refresh(ctx, "x", nil); !errors.Is(err, errRecursion) {
			return nil, errors.New("refresh did not notice")
		}
		return src.token(ctx)
	}
	_, err := src.Token()
	require.ErrorIs(t, err, errRecursion)
}

func TestTokenEndpointBehindItsOwnTransport(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	for _, initial := range []*oauth2.Token{nil, {AccessToken: "a", RefreshToken: "r"}} {
		src := &TokenSource{Initial: initial, Fetch: ClientCredentialsGrant(&clientcredentials.Config{ClientID: "id", TokenURL: server.URL})}
		client := &http.Client{Transport: New(&Bearer{Source: src})}
		ctx := context.WithValue(context.Background(), oauth2.HTTPClient, client)
		req, err := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
		require.NoError(t, err)
		_, err = client.Do(req)
		require.ErrorIs(t, err, errRecursion)
	}
}

func TestMisconfiguredSource(t *testing.T) {
	for _, src := range []*TokenSource{{}, {Fetch: RefreshGrant(nil)}, {Fetch: ClientCredentialsGrant(nil)}, {Fetch: RefreshGrant(&oauth2.Config{})}} {
		_, err := src.Token()
		require.ErrorIs(t, err, ErrLoginRequired)
	}
	_, err := (&TokenSource{Initial: &oauth2.Token{AccessToken: "a\nb"}}).Token()
	require.ErrorContains(t, err, "TokenSource.Initial")
	src := &TokenSource{Initial: old()}
	got, err := src.Token()
	require.NoError(t, err)
	require.Equal(t, "old", got.AccessToken)
	_, err = src.Refresh(context.Background(), got)
	require.ErrorContains(t, err, "TokenSource.Fetch is nil")
	require.Error(t, src.Set(nil))
	require.Error(t, src.Set(&oauth2.Token{}))
	require.Error(t, src.Set(&oauth2.Token{AccessToken: "ö"}))
}

func TestOnTokenSeesEachTokenFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Second, delay: time.Millisecond}
		var seen sync.Map
		var running, calls atomic.Int32
		src := &TokenSource{Fetch: i.fetch, OnToken: func(t *oauth2.Token) {
			if running.Add(1) != 1 {
				panic("concurrent OnToken")
			}
			calls.Add(1)
			time.Sleep(time.Millisecond)
			if _, twice := seen.LoadOrStore(t.AccessToken, true); twice {
				panic("twice: " + t.AccessToken)
			}
			running.Add(-1)
		}}
		var wg sync.WaitGroup
		for n := range 20 {
			wg.Go(func() {
				for range 100 {
					got, err := src.Token()
					require.NoError(t, err)
					_, ok := seen.Load(got.AccessToken)
					require.True(t, ok)
					time.Sleep(time.Duration(30+n) * time.Millisecond)
				}
			})
			wg.Go(func() {
				time.Sleep(time.Duration(n) * 100 * time.Millisecond)
				require.NoError(t, src.Set(&oauth2.Token{AccessToken: fmt.Sprintf("set-%d", n), Expiry: time.Now().Add(time.Second)}))
			})
		}
		wg.Wait()
		require.GreaterOrEqual(t, calls.Load(), int32(22))
	})
}

func TestOnTokenThatPanicsLosesNothing(t *testing.T) {
	i := &issuer{}
	src := &TokenSource{Fetch: i.fetch, OnToken: func(*oauth2.Token) { panic("s3cret") }}
	_, err := src.Token()
	require.ErrorContains(t, err, "panicked")
	got, err := src.Token()
	require.NoError(t, err)
	require.Equal(t, "access-1", got.AccessToken)
}

func TestSetOvertakesARefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{delay: time.Second}
		src := &TokenSource{Fetch: i.fetch, Initial: old()}
		type result struct {
			token *oauth2.Token
			err   error
		}
		done := make(chan result)
		go func() {
			got, err := src.Refresh(context.Background(), old())
			done <- result{got, err}
		}()
		synctest.Wait()
		start := time.Now()
		require.NoError(t, src.Set(&oauth2.Token{AccessToken: "login"}))
		r := <-done
		require.NoError(t, r.err)
		require.Equal(t, "login", r.token.AccessToken)
		require.Zero(t, time.Since(start))
		time.Sleep(2 * time.Second)
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "login", got.AccessToken)

		// One that has only a refresh token makes those who wait wait for another refresh.
		go func() {
			got, err := src.Refresh(context.Background(), got)
			done <- result{got, err}
		}()
		synctest.Wait()
		require.NoError(t, src.Set(&oauth2.Token{RefreshToken: "refresh-login"}))
		r = <-done
		require.NoError(t, r.err)
		require.Equal(t, "access-3", r.token.AccessToken)
		require.Equal(t, "refresh-login", i.previous[2])
	})
}

func TestTokenIsACopy(t *testing.T) {
	mine := old()
	src := &TokenSource{Initial: mine}
	got, err := src.Token()
	require.NoError(t, err)
	mine.AccessToken = "changed"
	require.Equal(t, "old", got.AccessToken)
}

func TestTokenExpiresByEitherClock(t *testing.T) {
	now := time.Now()
	src := &TokenSource{RefreshBefore: -1}
	h := src.hold(&oauth2.Token{AccessToken: "a", Expiry: now.Add(time.Minute)})
	require.True(t, h.usable(now))
	h.expiry = now.Add(-time.Second).UnixMicro() // the machine has slept
	require.False(t, h.usable(now))
	require.False(t, h.settled(now))
	h.expiry = math.MaxInt64 // the wall clock was set back
	require.False(t, h.usable(now.Add(time.Hour)))
	require.False(t, h.settled(now.Add(time.Hour)))
}

func TestTokenSourceEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []Event
		ctx := withListener(context.Background(), func(_ context.Context, e Event) { events = append(events, e) })
		i := &issuer{delay: time.Second}
		src := &TokenSource{Fetch: i.fetch, Initial: old()}
		_, err := src.Refresh(ctx, old())
		require.NoError(t, err)
		require.Equal(t, []Event{
			{Kind: EventRefreshing, Scheme: "Bearer", Attempt: 2},
			{Kind: EventRefreshed, Scheme: "Bearer", Attempt: 2, Duration: time.Second},
		}, events)
		i.failWith(refusal(400, "invalid_grant"))
		_, err = src.Refresh(ctx, nil)
		require.Error(t, err)
		require.Equal(t, err, events[3].Err)
	})
}

func TestListenerThatExitsHangsNobody(t *testing.T) {
	for _, end := range []func(){runtime.Goexit, func() { panic("listener") }} {
		for _, kind := range []EventKind{EventRefreshing, EventRefreshed} {
			src := &TokenSource{Fetch: new(issuer).fetch, Initial: old()}
			ctx := withListener(context.Background(), func(_ context.Context, e Event) {
				if e.Kind == kind {
					end()
				}
			})
			got, err := src.Refresh(ctx, old())
			if err == nil {
				require.Equal(t, "access-1", got.AccessToken)
			}
		}
	}
}

func TestExpiryInTheFarFuture(t *testing.T) {
	for _, year := range []int{2250, 2280, 9999} {
		src := &TokenSource{Initial: &oauth2.Token{AccessToken: "a", Expiry: time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)}, Fetch: new(issuer).fetch}
		got, err := src.Token()
		require.NoError(t, err)
		require.Equal(t, "a", got.AccessToken)
	}
}

func TestTokenTypesShowNoSecret(t *testing.T) {
	src := &TokenSource{Initial: &oauth2.Token{AccessToken: "s3cret", RefreshToken: "s3cret"}}
	_, err := src.Token()
	require.NoError(t, err)
	request := TokenRequest{Previous: src.Initial}
	for _, v := range []any{src, request, &request, &Bearer{Source: src}, &Bearer{Source: oauth2.StaticTokenSource(src.Initial)}} {
		j, err := json.Marshal(v)
		require.NoError(t, err)
		var logged strings.Builder
		slog.New(slog.NewTextHandler(&logged, nil)).Info("", "v", v)
		slog.New(slog.NewJSONHandler(&logged, nil)).Info("", "v", v)
		text := string(j) + logged.String() + fmt.Sprintf("%v %+v %#v %s %q %d", v, v, v, v, v, v)
		require.NotContains(t, text, "s3cret")
		require.Contains(t, text, "authretry.")
	}
}

func TestReuseTokenSourceAroundIt(t *testing.T) {
	i := &issuer{lifetime: time.Hour}
	src := &TokenSource{Fetch: i.fetch}
	reuse := oauth2.ReuseTokenSource(nil, src)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 10 {
				for _, s := range []oauth2.TokenSource{src, reuse} {
					got, err := s.Token()
					require.NoError(t, err)
					require.Equal(t, "access-1", got.AccessToken)
				}
			}
		})
	}
	wg.Wait()
}
