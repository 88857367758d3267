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
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authretry/authretry/internal/thorough"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
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
	until chan struct{} // it answers when this is closed; nil: at once

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
	if s.until != nil {
		<-s.until
	}
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

func TestManyRefusalsAtOnce(t *testing.T) {
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
			<-time.After(time.Duration(i) * thorough.Or(250*time.Millisecond, 60*time.Millisecond) / n)
			return refresh(src, s)(i, rejected)
		})
	})
	t.Run("leader cancelled", func(t *testing.T) {
		s := newRotatingServer(t)
		s.until = make(chan struct{})
		src := s.source()
		rejected, err := src.Token()
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		leader := make(chan error)
		go func() { _, err := src.Refresh(ctx, rejected); leader <- err }()
		require.Eventually(t, func() bool { src.mu.Lock(); defer src.mu.Unlock(); return src.running != nil }, 30*time.Second, time.Millisecond)
		time.AfterFunc(10*time.Millisecond, cancel) // the others have most likely joined by then
		errs := make(chan error)
		for i := range 99 {
			go func() { errs <- refresh(src, s)(i, rejected) }()
		}
		require.ErrorIs(t, <-leader, context.Canceled)
		close(s.until)
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

func TestObtain(t *testing.T) {
	ctx := context.Background()
	c := &Challenge{Scheme: "Bearer", Params: Params{{"scope", "read"}}}
	var asked []TokenRequest
	fetch := func(_ context.Context, r TokenRequest) (*oauth2.Token, error) {
		asked = append(asked, r)
		n := len(asked)
		return &oauth2.Token{AccessToken: fmt.Sprintf("access-%d", n), RefreshToken: fmt.Sprintf("refresh-%d", n)}, nil
	}
	src := &TokenSource{Fetch: fetch}
	for _, step := range []struct {
		name    string
		request TokenRequest
		want    string
		fetches int
	}{
		{"the first, for a challenge", TokenRequest{Challenge: c}, "access-1", 1},
		{"what is at hand", TokenRequest{}, "access-1", 1},
		{"what is at hand, whatever the challenge", TokenRequest{Challenge: c}, "access-1", 1},
		{"the successor of what was refused", TokenRequest{Previous: &oauth2.Token{AccessToken: "access-1"}, Challenge: c}, "access-2", 2},
		{"which is there now", TokenRequest{Previous: &oauth2.Token{AccessToken: "access-1"}}, "access-2", 2},
		{"another than one from long ago", TokenRequest{Previous: &oauth2.Token{AccessToken: "x"}}, "access-2", 2},
		{"nothing was refused", TokenRequest{Previous: &oauth2.Token{}}, "access-2", 2},
	} {
		got, err := src.Obtain(ctx, step.request)
		require.NoError(t, err, step.name)
		require.Equal(t, step.want, got.AccessToken, step.name)
		require.Len(t, asked, step.fetches, step.name)
	}
	require.Equal(t, TokenRequest{Challenge: c}, asked[0])
	require.Equal(t, c, asked[1].Challenge)
	require.Equal(t, "refresh-1", asked[1].Previous.RefreshToken, "with the refresh token, which the caller need not know")

	_, err := src.Obtain(ctx, TokenRequest{Previous: &oauth2.Token{AccessToken: "access-2"}})
	require.ErrorIs(t, err, ErrTokenRefused)
	require.ErrorIs(t, err, ErrCredentialsRefused)
	static := &TokenSource{Initial: old()}
	_, err = static.Obtain(ctx, TokenRequest{Previous: old()})
	require.ErrorIs(t, err, ErrCredentialsRefused)
	require.ErrorIs(t, err, ErrLoginRequired)
	_, err = (&TokenSource{}).Obtain(ctx, TokenRequest{})
	require.NotErrorIs(t, err, ErrCredentialsRefused, "nothing was refused")
	require.ErrorIs(t, err, ErrLoginRequired)
}

func TestAccepted(t *testing.T) {
	ctx := context.Background()
	i := &issuer{}
	src := &TokenSource{Fetch: i.fetch, Initial: old()}
	src.Accepted(old()) // before it is known
	fresh, err := src.Refresh(ctx, old())
	require.NoError(t, err)
	for _, other := range []*oauth2.Token{nil, {}, old()} {
		src.Accepted(other)
		_, err = src.Refresh(ctx, fresh)
		require.ErrorIs(t, err, ErrTokenRefused)
	}
	src.Accepted(&oauth2.Token{AccessToken: fresh.AccessToken})
	_, err = src.Refresh(ctx, fresh)
	require.NoError(t, err)
	require.EqualValues(t, 2, i.calls.Load())
}

// That somebody wanted another token says nothing against the one that he got.
func TestRefusedAfterItWasReplacedByRequest(t *testing.T) {
	ctx := context.Background()
	i := &issuer{}
	src := &TokenSource{Fetch: i.fetch, Initial: old()}
	fresh, err := src.Refresh(ctx, nil)
	require.NoError(t, err)
	next, err := src.Refresh(ctx, fresh)
	require.NoError(t, err)
	require.Equal(t, "access-2", next.AccessToken)
}

func TestWaitThatEndsSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("the user has left")
		i := &issuer{delay: time.Second}
		src := &TokenSource{Fetch: i.fetch, Initial: old()}
		for name, refresh := range map[string]func(context.Context) error{
			"Obtain":  func(ctx context.Context) error { _, err := src.Obtain(ctx, TokenRequest{Previous: old()}); return err },
			"Refresh": func(ctx context.Context) error { _, err := src.Refresh(ctx, old()); return err },
			"Bearer": func(ctx context.Context) error {
				_, err := (&Bearer{Source: src}).Answer(ctx, nil, refusalOf(newRequest("Bearer old")))
				return err
			},
			"Bearer, with a source of others": func(ctx context.Context) error {
				_, err := (&Bearer{Source: foreignRefresher{src}}).Answer(ctx, nil, refusalOf(newRequest("Bearer old")))
				return err
			},
		} {
			ctx, cancel := context.WithCancelCause(context.Background())
			time.AfterFunc(time.Millisecond, func() { cancel(cause) })
			err := refresh(ctx)
			require.ErrorIs(t, err, cause, name)
			require.ErrorContains(t, err, "authretry: gave up waiting for ", name)
			ended, cancelled := context.WithCancelCause(context.Background())
			cancelled(cause)
			fresh := &TokenSource{Fetch: i.fetch}
			_, err = fresh.Obtain(ended, TokenRequest{})
			require.ErrorIs(t, err, cause, name)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		_, err := src.Obtain(ctx, TokenRequest{Previous: old()})
		require.EqualError(t, err, "authretry: gave up waiting for a token: context deadline exceeded")
		time.Sleep(time.Minute)
	})
}

func TestEarlyRefreshNobodyWaits(t *testing.T) {
	for range thorough.Or(5, 2) { // the jitter differs
		synctest.Test(t, func(t *testing.T) {
			i := &issuer{delay: 50 * time.Millisecond, lifetime: 200 * time.Millisecond}
			src := &TokenSource{Fetch: i.fetch}
			_, err := src.Token()
			require.NoError(t, err)
			start := time.Now()
			for time.Since(start) < 2*time.Second {
				before := time.Now()
				got, err := src.Token()
				if err != nil || time.Since(before) > 0 || !time.Now().Before(got.Expiry) {
					t.Fatal(got, err, time.Since(before))
				}
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
			src.Accepted(current)
		}
		require.Equal(t, maxForced, refreshes)
		require.EqualValues(t, maxForced, i.calls.Load())
		time.Sleep(10 * time.Second)
		_, err = src.Refresh(ctx, current)
		require.NoError(t, err)
	})
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
	var events []Event
	_, err = src.Refresh(withListener(context.Background(), func(_ context.Context, e Event) { events = append(events, e) }), got)
	require.ErrorContains(t, err, "TokenSource.Fetch is nil")
	require.Empty(t, events, "nothing is begun that cannot succeed")
	require.Error(t, src.Set(nil))
	require.Error(t, src.Set(&oauth2.Token{}))
	require.Error(t, src.Set(&oauth2.Token{AccessToken: "ö"}))
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
	h := src.newKnownToken(&oauth2.Token{AccessToken: "a", Expiry: now.Add(time.Minute)})
	require.True(t, h.usable(now))
	require.True(t, h.settled(0))
	h.expiry = now.Add(-time.Second).UnixMicro() // the machine has slept
	require.False(t, h.usable(now))
	require.True(t, h.settled(wallInterval-1), "the wall clock has just been looked at")
	require.False(t, h.settled(wallInterval))
	h.expiry = math.MaxInt64 // the wall clock was set back
	require.False(t, h.usable(now.Add(time.Hour)))
	require.False(t, h.settled(time.Hour))
}

// While a token is in much use, no clock is looked at for a moment, which is over when something is due.
func TestTokenRestsForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lifetime = 10*wallInterval + 20*time.Millisecond
		src := &TokenSource{RefreshBefore: -1}
		k := src.newKnownToken(&oauth2.Token{AccessToken: "a", Expiry: time.Now().Add(lifetime)})
		use := func() bool { return k.resting.Load() || k.settled(time.Since(k.received)) }
		require.False(t, k.resting.Load())
		require.True(t, use())
		require.False(t, k.resting.Load(), "it is not in much use")
		require.True(t, use())
		require.True(t, k.resting.Load())
		time.Sleep(wallInterval - 1)
		require.True(t, k.resting.Load())
		k.expiry = 0 // the machine has slept
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.False(t, use(), "the wall clock is looked at")
		k.expiry = math.MaxInt64
		for use() {
			time.Sleep(time.Millisecond)
		}
		require.Equal(t, lifetime, time.Since(k.received), "the end is found when it is there")
		lasting := src.newKnownToken(&oauth2.Token{AccessToken: "a"})
		time.Sleep(365 * 24 * time.Hour)
		require.True(t, lasting.resting.Load())
		require.False(t, src.newKnownToken(&oauth2.Token{}).resting.Load())
	})
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
	for _, v := range []any{src, request, &request, &Bearer{Source: src, Header: "X-Auth-Token", Prefix: "token"}, &Bearer{Source: oauth2.StaticTokenSource(src.Initial)}} {
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

// A token endpoint that issues again what a server has refused has no other token.
func TestRefusedTokenThatIsIssuedAgain(t *testing.T) {
	src := &TokenSource{Initial: &oauth2.Token{RefreshToken: "r"}, Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) { return old(), nil }}
	_, err := src.Obtain(t.Context(), TokenRequest{Previous: old()})
	require.ErrorIs(t, err, ErrCredentialsRefused)
}

// A login that uses the token itself neither has it refreshed nor keeps others from that.
func TestEarlyRefreshIsNotForALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour}
		src := &TokenSource{Fetch: i.fetch, RefreshBefore: 10 * time.Minute}
		src.Login = func(ctx context.Context, _ TokenRequest) (*oauth2.Token, error) {
			got, err := src.Obtain(ctx, TokenRequest{})
			require.NoError(t, err)
			require.Equal(t, "access-1", got.AccessToken)
			synctest.Wait()
			require.EqualValues(t, 1, i.calls.Load())
			return nil, errors.New("declined")
		}
		require.Equal(t, "access-1", tokenOf(t, src))
		time.Sleep(55 * time.Minute)
		_, err := src.Obtain(t.Context(), TokenRequest{HasMaxAge: true, MaxAge: time.Second})
		require.ErrorContains(t, err, "declined")
		require.Equal(t, "access-1", tokenOf(t, src))
		synctest.Wait()
		require.EqualValues(t, 2, i.calls.Load(), "now it is refreshed")
	})
}
