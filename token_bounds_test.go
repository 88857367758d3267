package authretry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

// Who has refused a token is remembered, each once, as far as its name is known and short.
func TestRefusersAreRemembered(t *testing.T) {
	k := new(knownToken)
	at := func(host string) origin { return origin{scheme: "https", host: host, port: "443"} }
	for range 3 {
		for _, host := range []string{"a.test", "b.test", "", strings.Repeat("h", 300)} {
			k.refusedBy(at(host))
		}
	}
	require.Equal(t, []origin{at("a.test"), at("b.test")}, *k.refusers.Load())
	for i := range 128 {
		k.refusedBy(at(fmt.Sprint("host", i)))
	}
	require.Len(t, *k.refusers.Load(), 64)
	k.unrefuse()
	require.False(t, k.isRefusedBy(at("a.test")))
}

// A token endpoint that grants a hundred thousand scopes does not fill the memory.
func TestGrantedScopesAreBounded(t *testing.T) {
	var all strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&all, "scope-%d ", i)
	}
	granted := grantedScopes((&oauth2.Token{}).WithExtra(map[string]any{"scope": all.String()}))
	require.Len(t, granted, 4_096)
}

// Of the refresh tokens that were spent here, the last ones are remembered; of a source that has none, nothing.
func TestSpentRefreshTokensAreBounded(t *testing.T) {
	src := new(TokenSource)
	for _, k := range []*knownToken{{token: old()}, {token: &oauth2.Token{AccessToken: "a"}, from: "r"}} {
		src.spend(k)
	}
	require.Nil(t, src.used)
	for i := range 1_000 {
		src.spend(&knownToken{token: old(), from: fmt.Sprint("r", i)})
	}
	require.Len(t, src.used.spent, 16)
	require.True(t, src.hasSpent(&oauth2.Token{RefreshToken: "r999"}))
	require.False(t, src.hasSpent(&oauth2.Token{RefreshToken: "r0"}))
}

// A token has come of another if it was obtained for that one's refresh token, also where nothing is known of a login.
func TestSuccessorIsKnownByTheRefreshToken(t *testing.T) {
	first := &knownToken{token: old()}
	require.True(t, (&knownToken{token: &oauth2.Token{AccessToken: "new"}, from: "refresh-0"}).succeeds(first))
	require.False(t, (&knownToken{token: &oauth2.Token{AccessToken: "new"}, from: "refresh-1"}).succeeds(first))
	require.False(t, (&knownToken{token: &oauth2.Token{AccessToken: "new"}}).succeeds(&knownToken{token: &oauth2.Token{AccessToken: "a"}}))
}

// Of two tokens of one login, the one that became known later is newer, also where the clock shows the same for both.
func TestEarlierTokenDoesNotSucceedALaterOne(t *testing.T) {
	src := new(TokenSource)
	first, second := src.newKnownToken(login("first")), src.newKnownToken(login("second"))
	first.login, second.login = "theirs", "theirs"
	second.received = first.received
	require.True(t, second.succeeds(first))
	require.False(t, first.succeeds(second))
	require.False(t, first.succeeds(first))
}

// The refresh tokens that were refused for good are bounded, too.
func TestRefusedRefreshTokensAreBounded(t *testing.T) {
	src := new(TokenSource)
	for i := range 100 {
		previous := &oauth2.Token{AccessToken: "a", RefreshToken: fmt.Sprint("r", i)}
		src.refuse(&TokenRequest{Previous: previous}, failed(refusal(http.StatusBadRequest, "invalid_grant"), previous))
	}
	require.Len(t, src.used.refused, 4)
	require.NotNil(t, src.used.refusalOf("r99"))
	require.Nil(t, src.used.refusalOf("r0"))
}

// A login may be so old that its age does not count.
func TestAgeThatDoesNotCount(t *testing.T) {
	for age, counts := range map[string]bool{"1000000000": true, "5000000000": false} {
		challenges, err := ParseChallenges([]string{`Bearer error="insufficient_user_authentication", acr_values="x", max_age=` + age})
		require.NoError(t, err)
		r, err := wanted("", &challenges[0], nil)
		require.NoError(t, err)
		require.Equal(t, counts, r.HasMaxAge, age)
	}
}

// What one origin accepts says nothing of a token that has taken the place of the one that it got.
func TestAcceptedIsOfTheTokenInUse(t *testing.T) {
	src := &TokenSource{Initial: old()}
	src.acceptedBy(origin{}, "old") // there is none yet
	require.Equal(t, "old", tokenOf(t, src))
	src.acceptedBy(origin{}, "the one before")
	require.False(t, src.current.Load().accepted.Load())
	src.acceptedBy(origin{}, "old")
	require.True(t, src.current.Load().accepted.Load())
}

// What cannot be sent is not asked for, and no token request is spent on it.
func TestObtainRefusesWhatCannotBeAskedFor(t *testing.T) {
	i := &issuer{}
	src := &TokenSource{Fetch: i.fetch, Initial: old()}
	for text, r := range map[string]TokenRequest{
		"a scope":          {Scopes: []string{"read", "wri\"te"}},
		"scope is empty":   {Scopes: []string{""}},
		"not a JSON":       {Claims: "[]"},
		"is negative":      {MaxAge: -time.Second, HasMaxAge: true},
		"claims of 16390":  {Claims: `{"x":"` + strings.Repeat("x", maxClaims-2) + `"}`},
		"are too many":     {Claims: `{"x":"` + strings.Repeat("<", maxClaims-10) + `"}`}, // each is six bytes then
		"character that s": {Scopes: []string{"a b"}},
	} {
		_, err := src.Obtain(t.Context(), r)
		require.ErrorContains(t, err, text)
	}
	require.Zero(t, i.calls.Load())
}

// Of two ages the less is asked for.
func TestAgesAreUnited(t *testing.T) {
	hour, minute := needs{maxAge: time.Hour, hasMaxAge: true}, needs{maxAge: time.Minute, hasMaxAge: true}
	for _, n := range []needs{hour.and(minute), minute.and(hour), minute.and(needs{}), (needs{}).and(minute)} {
		require.True(t, n.hasMaxAge)
		require.Equal(t, time.Minute, n.maxAge)
	}
}

// The classes that several servers ask for are asked for together, each once, and not without end.
func TestClassesAreUnited(t *testing.T) {
	n := needs{acr: []string{"a", "b"}}.and(needs{acr: []string{"b", "c"}})
	require.Equal(t, []string{"a", "b", "c"}, n.acr)
	for i := range 48 {
		n = n.and(needs{acr: []string{fmt.Sprint("class", i)}})
	}
	require.Len(t, n.acr, 16)
}

// The bound of the scopes is of all that the token is to have, not of what is new.
func TestStepUpsAreBoundedInAll(t *testing.T) {
	var has, more []string
	for i := range maxNeedScopes / 2 {
		has, more = append(has, fmt.Sprint("has-", i)), append(more, fmt.Sprint("more-", i))
	}
	i := &issuer{}
	src := &TokenSource{Fetch: i.fetch, Initial: old().WithExtra(map[string]any{"scope": strings.Join(has, " ")})}
	require.Equal(t, "old", tokenOf(t, src))
	_, err := src.Obtain(t.Context(), TokenRequest{Scopes: append(more, "one")})
	require.ErrorContains(t, err, "more than 64 scopes")
	require.Zero(t, i.calls.Load())
	_, err = src.Obtain(t.Context(), TokenRequest{Scopes: more})
	require.NoError(t, err)
}

// A path that is no file is said to be that, and not read: a pipe would take forever.
func TestTokenFileIsAFile(t *testing.T) {
	_, err := FromFile(t.TempDir())(t.Context(), TokenRequest{})
	require.ErrorContains(t, err, "not a regular file")
	_, err = FromFile(t.TempDir()+"/none")(t.Context(), TokenRequest{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "authretry: stat ")
	long := filepath.Join(t.TempDir(), "long")
	require.NoError(t, os.WriteFile(long, make([]byte, 100_000), 0o600))
	_, err = FromFile(long)(t.Context(), TokenRequest{})
	require.ErrorContains(t, err, "so it is no token")
	if runtime.GOOS == "linux" { // which has a file that can be opened, but not read at its start
		_, err = FromFile("/proc/self/mem")(t.Context(), TokenRequest{})
		require.ErrorIs(t, err, syscall.EIO)
	}
}

// Nothing is sent for want of an assertion, or for claims that are none.
func TestGrantsWithoutWhatTheyNeed(t *testing.T) {
	e := newTokenEndpoint(t, func(_ int, w http.ResponseWriter, _ *http.Request) { issue(w) })
	endpoint := &TokenEndpoint{URL: e.URL, ClientID: "id"}
	sealed := errors.New("vault is sealed")
	for name, c := range map[string]struct {
		assertion string
		err       error
		want      string
	}{
		"failed": {"x", sealed, "vault is sealed"}, "empty": {"", nil, "is empty"},
	} {
		assertion := func(context.Context, TokenRequest) (string, error) { return c.assertion, c.err }
		_, err := endpoint.JWTBearer(assertion)(t.Context(), TokenRequest{})
		require.ErrorContains(t, err, c.want, name)
		if c.err != nil {
			require.ErrorIs(t, err, c.err)
		}
	}
	_, err := endpoint.ClientCredentials()(t.Context(), TokenRequest{Claims: "{"})
	require.ErrorContains(t, err, "not a JSON object")
	require.Empty(t, e.forms())
}

// Retry-After may be a date (RFC 9110 §10.2.3), and the wait is never longer than is bearable.
func TestRetryAfterIsADateToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := func(d time.Duration) time.Duration {
			date := time.Now().Add(d).UTC().Format(http.TimeFormat)
			return retryAfter(&http.Response{StatusCode: 503, Header: http.Header{"Retry-After": {date}}})
		}
		require.Equal(t, time.Minute, at(time.Minute))
		require.Equal(t, maxRetryAfter, at(24*time.Hour))
		require.Zero(t, at(-time.Minute))
	})
}

// Refused counts for the token in use only, and not in a refresh of that very token.
func TestRefusedIsOfTheTokenInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		src := &TokenSource{Fetch: i.fetch, Initial: old()}
		src.Refused(t.Context(), old(), nil) // there is none in use yet
		require.Equal(t, "old", tokenOf(t, src))
		src.Refused(t.Context(), nil, nil)
		src.Refused(t.Context(), &oauth2.Token{AccessToken: "the one before"}, nil)
		src.Refused(newRefreshContext(t.Context(), src), old(), nil)
		synctest.Wait()
		require.Zero(t, i.calls.Load())
		src.Refused(t.Context(), old(), nil)
		synctest.Wait()
		require.EqualValues(t, 1, i.calls.Load())
	})
}

// A refresh in the background does not begin beside another one, nor before the time that a failure asks for; but then.
func TestEarlyRefreshWaitsItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: time.Hour, delay: 10 * time.Second}
		src := &TokenSource{Fetch: i.fetch, RefreshBefore: 10 * time.Minute}
		require.Equal(t, "access-1", tokenOf(t, src))
		time.Sleep(50*time.Minute - time.Second)
		go src.Refresh(t.Context(), nil)
		for range 5 {
			time.Sleep(time.Second)
			require.Equal(t, "access-1", tokenOf(t, src))
		}
		got, err := src.Refresh(t.Context(), &oauth2.Token{AccessToken: "access-1"})
		require.NoError(t, err, "whoever comes now waits for the one that is under way")
		require.Equal(t, "access-2", got.AccessToken)
		require.EqualValues(t, 2, i.calls.Load())

		time.Sleep(46 * time.Minute)
		src.mu.Lock()
		src.failure.until = time.Now().Add(6 * time.Minute)
		src.mu.Unlock()
		time.Sleep(5*time.Minute + 30*time.Second)
		require.Equal(t, "access-2", tokenOf(t, src))
		synctest.Wait()
		require.EqualValues(t, 2, i.calls.Load())
		time.Sleep(time.Minute)
		require.Equal(t, "access-2", tokenOf(t, src))
		synctest.Wait()
		require.EqualValues(t, 3, i.calls.Load())
		time.Sleep(time.Minute)
	})
}

// Who is gone before there is a token has none fetched.
func TestNobodyIsNoReasonToFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := (&TokenSource{Fetch: i.fetch}).Obtain(ctx, TokenRequest{})
		require.ErrorIs(t, err, context.Canceled)
		synctest.Wait()
		require.Zero(t, i.calls.Load())
	})
}

// A login that is nowhere else must not be dropped to make room, nor one that is being refreshed.
func TestOnlyCopyOfALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{delay: time.Second}
		src := &TokenSource{Fetch: i.fetch, Initial: old()}
		require.True(t, src.isOnlyCopy())
		require.NoError(t, src.Set(&oauth2.Token{AccessToken: "a"}))
		require.False(t, src.isOnlyCopy(), "there is no refresh token any more")
		require.NoError(t, src.Set(old()))
		require.True(t, src.isOnlyCopy())

		src = &TokenSource{Fetch: i.fetch, Store: newSharedStore(old()), Initial: old()}
		require.False(t, src.isOnlyCopy(), "the Store has it")
		require.Equal(t, "old", tokenOf(t, src))
		go src.Refresh(t.Context(), nil)
		synctest.Wait()
		require.True(t, src.isOnlyCopy(), "it is being refreshed")
		time.Sleep(time.Minute)
		require.False(t, src.isOnlyCopy())

		src = &TokenSource{Fetch: i.fetch}
		go src.Token()
		synctest.Wait()
		require.True(t, src.isOnlyCopy())
		time.Sleep(time.Minute)
	})
}

// "Never" is also written as the latest time that there is, in whose year a count of microseconds runs over.
func TestExpiryInTheFarFutureIsNoneInThePast(t *testing.T) {
	for name, expiry := range map[string]time.Time{
		"the latest time":         time.Unix(1<<63-62135596801, 999999999),
		"the latest millisecond":  time.UnixMilli(1<<63 - 1),
		"more than a Duration":    time.Now().AddDate(1000, 0, 0),
		"the last year for JSON":  time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		"as much as there can be": time.Now().AddDate(200, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			src := &TokenSource{Fetch: func(context.Context, TokenRequest) (*oauth2.Token, error) {
				calls++
				return &oauth2.Token{AccessToken: fmt.Sprint("a-", calls), Expiry: expiry}, nil
			}}
			for range 3 {
				got, err := src.Obtain(t.Context(), TokenRequest{Previous: &oauth2.Token{AccessToken: "refused"}})
				require.NoError(t, err)
				require.Equal(t, "a-1", got.AccessToken)
			}
			require.Equal(t, 1, calls)
		})
	}
}
