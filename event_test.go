package authretry

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
)

func TestLogEventsLogsWhatThereIs(t *testing.T) {
	var out strings.Builder
	logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	listen := LogEvents(logger)
	listen(t.Context(), Event{Kind: EventChallenged, Origin: "https://a.test", Scheme: "Digest", Realm: "x \"y\"\x1b[31m", Attempt: 1, Status: 401})
	listen(t.Context(), Event{Kind: EventRefreshed, Scheme: "Bearer", Duration: time.Second})
	listen(t.Context(), Event{Kind: EventDone, Duration: time.Second, Waited: time.Millisecond})
	listen(t.Context(), Event{Kind: EventDone, Duration: time.Second, Waited: time.Microsecond})
	listen(t.Context(), Event{Kind: EventRefreshed, Err: errors.New("no")})
	listen(t.Context(), Event{Kind: EventRefused, Status: 401, Realm: strings.Repeat("r", 1000)})
	require.Equal(t, `level=DEBUG msg="authretry: challenged" origin=https://a.test scheme=Digest realm="x \"y\"\x1b[31m" attempt=1 status=401
level=INFO msg="authretry: refreshed" scheme=Bearer duration=1s
level=DEBUG msg="authretry: done" duration=1s waited=1ms
level=DEBUG msg="authretry: done" duration=1s
level=WARN msg="authretry: refresh failed" error=no
level=WARN msg="authretry: refused" realm=`+strings.Repeat("r", 100)+` status=401
`, out.String())
	require.NotPanics(t, func() { LogEvents(nil)(t.Context(), Event{Kind: EventChallenged}) })
}

// The text of an error is not logged without end: a server may have had a say in it.
func TestLoggedErrorsAreBounded(t *testing.T) {
	var out strings.Builder
	logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	LogEvents(logger)(t.Context(), Event{Kind: EventRefreshed, Err: errors.New(strings.Repeat("x", 100_000))})
	require.Contains(t, out.String(), strings.Repeat("x", 1_000))
	require.Less(t, out.Len(), 5_000)
}

// An Event cannot hold a secret, for it has no field for headers, queries or bodies.
func TestEventHasNoPlaceForSecrets(t *testing.T) {
	for f := range reflect.TypeFor[Event]().Fields() {
		require.Contains(t, []string{"Kind", "Origin", "Scheme", "Realm", "Attempt", "Status", "Reason", "Duration", "Waited", "Err"}, f.Name,
			"a new field needs a look at what it can hold")
	}
}

func TestEveryKindAndReasonHasAName(t *testing.T) {
	for k := EventAuthorized; k <= EventDone; k++ {
		require.NotContains(t, []string{"", "unknown"}, k.String())
	}
	for r := ReasonNotTraced; r <= ReasonWrongKey; r++ {
		require.NotContains(t, []string{"", "unknown"}, r.String())
	}
	require.Equal(t, "unknown", EventKind(-1).String())
	require.Equal(t, "unknown", Reason(1000).String())
}

// Who waits for somebody else's refresh has waited just as who has started it. Who needs none has not.
func TestDoneTellsHowLongTheCredentialsTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetch := func(context.Context, TokenRequest) (*oauth2.Token, error) {
			time.Sleep(3 * time.Second)
			return &oauth2.Token{AccessToken: "t"}, nil
		}
		waited := make(chan time.Duration, 100)
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			time.Sleep(time.Second) // is not for credentials
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: req}, nil
		})
		transport := &Transport{Base: base, Schemes: []Scheme{&Bearer{Source: &TokenSource{Fetch: fetch}}}, OnEvent: func(_ context.Context, e Event) {
			if e.Kind == EventDone {
				assert.Equal(t, e.Waited+time.Second, e.Duration)
				waited <- e.Waited
			} else {
				assert.Zero(t, e.Waited)
			}
		}}
		get := func() {
			if resp, err := transport.RoundTrip(httptest.NewRequest("GET", "https://a.test/", nil)); assert.NoError(t, err) {
				assert.NoError(t, resp.Body.Close())
			}
		}
		var together sync.WaitGroup
		together.Go(get)
		time.Sleep(time.Second)
		together.Go(get)
		together.Wait()
		get()
		require.ElementsMatch(t, []time.Duration{3 * time.Second, 2 * time.Second, 0}, []time.Duration{<-waited, <-waited, <-waited})
	})
}

// The time for an answer to a challenge counts, also if none comes of it.
func TestDoneTellsHowLongAnAnswerTookThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetch := func(context.Context, TokenRequest) (*oauth2.Token, error) {
			time.Sleep(3 * time.Second)
			return nil, errors.New("no")
		}
		base := roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {"Bearer"}}, Body: http.NoBody, Request: req}, nil
		})
		var done []Event
		transport := &Transport{Base: base, Schemes: []Scheme{&Bearer{Source: &TokenSource{Fetch: fetch}, NotAhead: true}}, OnEvent: func(_ context.Context, e Event) {
			if e.Kind == EventDone {
				done = append(done, e)
			}
		}}
		_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://a.test/", nil))
		require.Error(t, err)
		require.Len(t, done, 1)
		require.Equal(t, 3*time.Second, done[0].Waited)
	})
}

// A TokenSource tells its own listener where no Transport has one, and nobody twice.
func TestEventsOfATokenSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var own, transports []string
		store := newSharedStore(nil)
		store.failSave = errors.New("disk full")
		src := &TokenSource{Store: store, Fetch: (&issuer{lifetime: time.Hour}).fetch, OnEvent: func(ctx context.Context, e Event) {
			require.Equal(t, "v", ctx.Value(eventKey{}), "the context of who has asked")
			own = append(own, e.Kind.String())
		}}
		ctx := context.WithValue(t.Context(), eventKey{}, "v")
		_, err := src.Obtain(ctx, TokenRequest{})
		require.NoError(t, err)
		require.Equal(t, []string{"refreshing", "refreshed"}, own)

		time.Sleep(time.Minute) // it is saved again, which fails
		synctest.Wait()
		require.Contains(t, own[2:], "not saved")
		store.mu.Lock()
		store.failSave = nil
		store.mu.Unlock()
		time.Sleep(time.Hour)
		synctest.Wait()
		own = nil

		transport := &Transport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Request: req, Header: http.Header{}, Body: http.NoBody}, nil
		}), Schemes: []Scheme{&Bearer{Source: src}}, OnEvent: func(_ context.Context, e Event) { transports = append(transports, e.Kind.String()) }}
		_, err = transport.RoundTrip(httptest.NewRequest("GET", "https://a.test/", nil))
		require.NoError(t, err)
		require.Equal(t, []string{"refreshing", "refreshed", "authorized", "done"}, transports)
		require.Empty(t, own)

		time.Sleep(time.Hour)
		transport.OnEvent = nil
		_, err = (&Transport{Base: transport.Base, Schemes: transport.Schemes}).RoundTrip(httptest.NewRequest("GET", "https://a.test/", nil).WithContext(ctx))
		require.NoError(t, err)
		require.Equal(t, []string{"refreshing", "refreshed"}, own)
	})
}

type eventKey struct{}

// Every event of a request says for whom the request is.
func TestEventsKnowTheAccount(t *testing.T) {
	seen := map[EventKind]bool{}
	transport := &Transport{Base: roundTripFunc(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 401, Request: req, Header: http.Header{"Www-Authenticate": {"Bearer"}}, Body: http.NoBody}, nil
	}), Schemes: []Scheme{&Bearer{Sources: func(context.Context, string) (oauth2.TokenSource, error) {
		return &TokenSource{Fetch: (&issuer{lifetime: time.Hour}).fetch}, nil
	}}}, Account: func(*http.Request) string { return "alice" }, OnEvent: func(ctx context.Context, e Event) {
		seen[e.Kind] = true
		require.Equal(t, "alice", AccountOf(ctx), e.Kind)
	}}
	_, err := transport.RoundTrip(httptest.NewRequest("GET", "https://a.test/", nil))
	require.NoError(t, err)
	require.Equal(t, map[EventKind]bool{EventRefreshing: true, EventRefreshed: true, EventAuthorized: true, EventChallenged: true, EventRefused: true, EventDone: true}, seen)
}

// withListener returns a context through which everything below reports to listen, as that of an exchange does.
func withListener(ctx context.Context, listen func(context.Context, Event)) context.Context {
	return context.WithValue(ctx, listenerKey{}, listen)
}
