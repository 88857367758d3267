package authretry

import (
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
	listen(t.Context(), Event{Kind: EventRefreshed, Err: errors.New("no")})
	listen(t.Context(), Event{Kind: EventRefused, Status: 401, Realm: strings.Repeat("r", 1000)})
	require.Equal(t, `level=DEBUG msg="authretry: challenged" origin=https://a.test scheme=Digest realm="x \"y\"\x1b[31m" attempt=1 status=401
level=INFO msg="authretry: refreshed" scheme=Bearer duration=1s
level=WARN msg="authretry: refreshed" error=no
level=WARN msg="authretry: refused" realm=`+strings.Repeat("r", 100)+` status=401
`, out.String())
	require.NotPanics(t, func() { LogEvents(nil)(t.Context(), Event{Kind: EventChallenged}) })
}

// An Event cannot hold a secret, for it has no field for headers, queries or bodies.
func TestEventHasNoPlaceForSecrets(t *testing.T) {
	for f := range reflect.TypeFor[Event]().Fields() {
		require.Contains(t, []string{"Kind", "Origin", "Scheme", "Realm", "Attempt", "Status", "Reason", "Duration", "Err"}, f.Name,
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
